"""The tutorial and the how-tos, followed word by word on a running PicoPay."""

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.guides import reader, steps, to_be_done
from support.installation import environment, installed
from support.postgres import CHECKOUT, Server, on_connection

DOCS = CHECKOUT / "docs"
OWN_POSTGRESQL = DOCS / "how-to" / "run-on-your-own-postgresql.md"
ON_A_CLUSTER = DOCS / "tutorial" / "kubernetes.md"  # tests/e2e/test_tour.py follows it
GUIDES = {*DOCS.glob("tutorial/*.md"), *DOCS.glob("how-to/*.md")}
PAGES = sorted(
    page
    for page in GUIDES - {OWN_POSTGRESQL, ON_A_CLUSTER}
    if any(map(to_be_done, steps(page.read_text(encoding="utf-8"))))
)


def surroundings(*folders: Path, **variables: str) -> dict[str, str]:
    """Return an environment in which `picopay` is the one of this checkout."""
    base = environment()
    path = [Path(sys.executable).parent, *folders, base["PATH"]]
    return {**base, **variables, "PATH": os.pathsep.join(map(str, path))}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory to read in."""
    place = tmp_path / "place"
    place.mkdir()
    return place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_guide_followed_word_by_word(page: Path, tmp_path: Path, place: Path) -> None:
    with installed(tmp_path / "data") as installation:
        ready = installation.ready
        (place / "picopay.log").symlink_to(tmp_path / "data.log")
        variables = surroundings(
            URL=ready.url,
            KEY=ready.api_key,
            PICOPAY_URL=ready.url,
            PICOPAY_API_KEY=ready.api_key,
            DATABASE_URL=ready.database_url,
        )
        with reader(place, variables) as someone:
            someone.follow(page)


@pytest.fixture
def bare_server(tmp_path: Path) -> Iterator[Server]:
    """Return a server of one's own, on which nothing of PicoPay has been yet."""
    server = Server.start(tmp_path / "postgres")
    asyncio.run(
        on_connection(server.postgres.superuser_url, lambda c: c.execute("DROP DATABASE picopay"))
    )
    yield server
    server.stop()


def test_a_postgresql_of_ones_own(bare_server: Server, place: Path) -> None:
    postgres = bare_server.postgres
    programs = Path(psutil.Process(postgres.pid).exe()).parent
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = surroundings(
        programs,
        API_PORT=str(port),
        API_HOST="127.0.0.1",
        PGPORT=str(postgres.port),
        PGPASSWORD=postgres.superuser_url.password or "",
    )
    replaced = {
        "-h localhost": "-h 127.0.0.1",
        "localhost:5432": f"127.0.0.1:{postgres.port}",
        "127.0.0.1:8000": f"127.0.0.1:{port}",
    }
    with reader(place, variables, replaced) as someone:
        someone.follow(OWN_POSTGRESQL)
