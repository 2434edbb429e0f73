"""What is open to everybody: probes that tell the truth about the database, metrics and documents."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from picopay_api.database_url import DatabaseUrl
from support.api import Api, served
from support.postgres import Server
from support.waiting import eventually


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """Return a server that the test may stop; started from the thread that lives as long as it."""
    server = Server.start(tmp_path / "server")
    yield server
    server.stop()


@pytest.fixture
def own_database_url(own_server: Server) -> Iterator[DatabaseUrl]:
    with own_server.database() as url:
        yield url


async def _expect(api: Api, status: int) -> None:
    async def both() -> bool:
        answers = [await api.client.get(path) for path in ("/health", "/readyz")]
        return [answer.status_code for answer in answers] == [status, status]

    await eventually(both)


async def test_probes_follow_the_database_and_liveness_does_not(
    own_server: Server, own_database_url: DatabaseUrl
) -> None:
    async with served(own_database_url) as api:
        await _expect(api, 200)
        assert (await api.client.get("/health")).json() == {"status": "healthy"}
        assert (await api.client.get("/readyz")).json() == {"status": "ready"}
        own_server.postgres.stop()
        await _expect(api, 503)
        reason = "the database cannot be reached"
        health, ready = await api.client.get("/health"), await api.client.get("/readyz")
        assert health.json() == {"status": "unhealthy", "reason": reason}
        assert ready.json() == {"status": "not_ready", "reason": reason}
        alive = await api.client.get("/livez")
        assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
        own_server.postgres.start()
        await _expect(api, 200)


async def test_nothing_that_is_open_needs_a_key(database_url: DatabaseUrl) -> None:
    async with served(database_url) as api:
        for path, media_type in (
            ("/health", "application/json"),
            ("/livez", "application/json"),
            ("/readyz", "application/json"),
            ("/metrics", "text/plain"),
            ("/docs", "text/html"),
            ("/openapi.json", "application/json"),
        ):
            answer = await api.client.get(path, headers={"Authorization": ""})
            assert answer.status_code == 200, path
            assert answer.headers["Content-Type"].startswith(media_type), path
            assert answer.headers["Request-Id"], path
            assert "RateLimit" not in answer.headers, path


async def test_documents_can_be_switched_off(database_url: DatabaseUrl) -> None:
    async with served(database_url, docs_enabled=False) as api:
        for path in ("/docs", "/openapi.json"):
            answer = await api.client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
