"""Every error that the document lists of every operation comes about, and is what its page says."""

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.errors import BY_CODE, PicoPayError
from picopay_api.http.openapi import errors_of
from picopay_api.http.resources import OPERATIONS
from support.api import Api, served
from support.contract import hold
from support.journal import tamper
from support.locks import held
from support.postgres import CHECKOUT, Server, on_connection
from support.refusals import BODY_BYTES_MAX, ELSEWHERE, Ask, Scene, case_of
from support.waiting import eventually

BASE_URL = "https://errors.example.com/of/picopay/"
BY_NAME = {operation.name: operation for operation in OPERATIONS}
LISTED = [
    (operation, error)
    for operation in OPERATIONS
    for error in errors_of(operation)
    if error.code not in ELSEWHERE
]


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(
        database_url, body_bytes_max=BODY_BYTES_MAX, error_type_base_url=BASE_URL
    ) as api:
        hold(api.client)
        yield api


def members_of_page(code: str) -> dict[str, Any]:
    """Return the members that the page of an error shows."""
    page = (CHECKOUT / "docs" / "reference" / "errors" / f"{code}.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```json\n(\{.+?\n\})\n```", page, re.DOTALL)
    members: dict[str, Any] = json.loads(shown)
    return members


def examine(answer: httpx.Response, error: type[PicoPayError], base_url: str = BASE_URL) -> None:
    """Hold an answer to its error, to the page of the error and to the rules for all errors."""
    problem = answer.json()
    shown = (error.code, answer.status_code, problem)
    assert (answer.status_code, problem.get("code")) == (error.status, error.code), shown
    assert answer.headers["Content-Type"] == "application/problem+json", shown
    assert problem["type"] == base_url + error.code, shown
    assert (problem["title"], problem["status"]) == (error.title, error.status), shown
    assert problem["detail"], shown
    assert problem["instance"] == answer.request.url.raw_path.partition(b"?")[0].decode(), shown
    assert problem["request_id"] == answer.headers["Request-Id"], shown
    page = members_of_page(error.code)
    assert page.keys() == problem.keys() - ({"errors"} - page.keys()), shown
    for name, value in page.items():
        assert type(problem[name]) is type(value), (name, *shown)
    again_later = error.status in {429, 503} or error.code == "idempotency_key_in_flight"
    assert ("Retry-After" in answer.headers) == again_later, shown
    if again_later:
        assert int(answer.headers["Retry-After"]) >= getattr(error, "retry_after_s", 1), shown
    assert ("WWW-Authenticate" in answer.headers) == (error.status == 401), shown
    assert ("Allow" in answer.headers) == (error.status == 405), shown


async def test_every_error_of_every_operation_comes_about(api: Api) -> None:
    scene = await Scene.set_up(api)
    for operation, error in LISTED:
        make_wrong = case_of(operation, error.code)
        assert make_wrong is not None, f"{operation.name} lists {error.code}; nobody says how"
        ask = scene.ask(operation)
        prepared = make_wrong(scene, ask)
        if inspect.isawaitable(prepared):
            await prepared
        answer = await ask.send(api.client)
        try:
            examine(answer, error)
        except AssertionError as failure:
            failure.add_note(f"{operation.name} was asked for {error.code}")
            raise


async def test_references_of_the_outside_world_are_taken(api: Api) -> None:
    for reference in ("world", "world/", "world/USD", "world/anything"):
        answer = await api.post("/v1/accounts", {"reference": reference, "asset": "USD"})
        examine(answer, BY_CODE["reference_taken"])
    assert (await api.post("/v1/accounts", {"reference": "worldly", "asset": "USD"})).is_success


async def test_what_is_made_wrong_is_right_otherwise(api: Api) -> None:
    """Without this, an error could come about because of something else."""
    scene = await Scene.set_up(api)
    for operation in OPERATIONS:
        answer = await scene.ask(operation).send(api.client)
        assert answer.status_code == operation.status, (operation.name, answer.text)


def test_every_error_is_listed_somewhere() -> None:
    listed = {error.code for operation in OPERATIONS for error in errors_of(operation)}
    assert set(BY_CODE) - listed == {"not_found", "method_not_allowed"}


async def test_requests_beyond_the_quota(database_url: DatabaseUrl) -> None:
    async with served(
        database_url, rate_limit_requests=1, rate_limit_window_s=600, error_type_base_url=BASE_URL
    ) as api:
        hold(api.client)
        assert (await api.client.get("/v1/audit")).status_code == 200
        for operation in OPERATIONS:
            answer = await api.client.request(operation.method, operation.path)
            problem = answer.json()
            assert (answer.status_code, problem["code"]) == (429, "rate_limited"), operation.name
            assert 500 < int(answer.headers["Retry-After"]) <= 600
        path = await api.client.get("/v1/audit")
        examine(path, BY_CODE["rate_limited"])


async def test_paths_and_methods_that_are_not_there(api: Api) -> None:
    examine(await api.client.get("/v1/acounts"), BY_CODE["not_found"])
    answer = await api.client.request("DELETE", "/v1/transactions")
    examine(answer, BY_CODE["method_not_allowed"])
    assert answer.headers["Allow"] == "GET, POST"


@pytest.mark.parametrize(
    "name",
    [
        one.name
        for one in OPERATIONS
        if "idempotency_key_in_flight" in {error.code for error in errors_of(one)}
    ],
)
async def test_the_same_key_with_another_body_at_the_same_moment(
    api: Api, database_url: DatabaseUrl, name: str
) -> None:
    scene = await Scene.set_up(api)
    ask = scene.ask(BY_NAME[name])
    async with held(database_url, "bob") as bob:
        first = asyncio.create_task(ask.send(api.client))
        await bob.waited_for()
        other = Ask(
            operation=ask.operation,
            path=ask.path,
            headers=ask.headers,
            body={**(ask.body or {}), "metadata": {"other": "body"}},
        )
        examine(await other.send(api.client), BY_CODE["idempotency_key_in_flight"])
    assert (await first).status_code == 201


async def test_a_queue_that_is_full(database_url: DatabaseUrl) -> None:
    limits: dict[str, Any] = {
        "queue_commands_max": 1,
        "batch_commands_max": 1,
        "commit_connections": 1,
    }
    async with served(database_url, error_type_base_url=BASE_URL, **limits) as api:
        hold(api.client)
        await api.account("alice", 100)
        async with held(database_url, "alice") as alice:
            tasks = [asyncio.create_task(api.pay("@alice", "@world", 1, key="k-0"))]
            await alice.waited_for()
            # One more may wait; of two, one is refused at once.
            tasks += [
                asyncio.create_task(api.pay("@alice", "@world", 1, key=f"k-{n}")) for n in (1, 2)
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            (refused,) = done
            examine(await refused, BY_CODE["overloaded"])
        answers = await asyncio.gather(*tasks)
        assert sorted(answer.status_code for answer in answers) == [201, 201, 503]
        again = await api.pay("@alice", "@world", 1, key=f"k-{tasks.index(refused)}")
        assert (again.status_code, "Idempotent-Replayed" in again.headers) == (201, False)


@asynccontextmanager
async def impatient(api: Api, url: DatabaseUrl) -> AsyncIterator[Api]:
    """Serve the same ledger from a second server that waits for the database for a moment only."""
    async with served(url, error_type_base_url=BASE_URL, request_timeout_ms=300) as second:
        second.client.headers = api.client.headers
        hold(second.client)
        yield second


async def test_an_outcome_that_comes_too_late(api: Api, database_url: DatabaseUrl) -> None:
    await api.account("alice", 100)
    async with impatient(api, database_url) as second:
        async with held(database_url, "alice"):
            answer = await second.pay("@alice", "@world", 1, key="k")
            examine(answer, BY_CODE["deadline_exceeded"])
        # Whether it was decided after all is not known, but the key tells.
        assert (await api.pay("@alice", "@world", 1, key="k")).status_code == 201
    assert await api.available("alice") == 99


@asynccontextmanager
async def locked_out(server: Server, url: DatabaseUrl) -> AsyncIterator[None]:
    """End every session of the database's owner and let none begin."""
    role = "picopay"

    async def lock_out(connection: "asyncpg.Connection[Any]") -> None:
        await connection.execute(f"ALTER ROLE {role} NOLOGIN")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role
        )

    superuser = server.postgres.superuser_url
    await on_connection(superuser, lock_out)
    try:
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(**url.connect_arguments())
        yield
    finally:
        await on_connection(superuser, lambda c: c.execute(f"ALTER ROLE {role} LOGIN"))


async def test_a_database_that_is_away(api: Api, server: Server, database_url: DatabaseUrl) -> None:
    scene = await Scene.set_up(api)
    asks = [scene.ask(operation) for operation in OPERATIONS]
    async with impatient(api, database_url) as second, locked_out(server, database_url):
        answers = await asyncio.gather(*(ask.send(second.client) for ask in asks))
    for ask, answer in zip(asks, answers, strict=True):
        code = answer.json()["code"]
        # Payments wait for the database as long as they may.
        assert code in {"database_unavailable", "deadline_exceeded"}, (ask.operation.name, code)
        examine(answer, BY_CODE[code])
    assert "database_unavailable" in {answer.json()["code"] for answer in answers}

    async def back() -> bool:
        return (await api.client.get("/health")).status_code == 200

    await eventually(back)
    for ask in asks:
        answer = await ask.send(api.client)
        assert answer.status_code == ask.operation.status, (ask.operation.name, answer.text)


async def test_a_schema_that_does_not_fit(database_url: DatabaseUrl) -> None:
    async with served(database_url, error_type_base_url=BASE_URL) as api:
        hold(api.client)
        scene = await Scene.set_up(api)
        asks = [scene.ask(operation) for operation in OPERATIONS]
        change = "UPDATE picopay.schema_version SET min_compatible = $1"
        await tamper(database_url, change, "9999")

        async def unfit() -> bool:
            return (await api.client.get("/readyz")).status_code == 503

        await eventually(unfit)
        for ask in asks:
            answer = await ask.send(api.client)
            assert answer.json()["code"] == "schema_out_of_range", (ask.operation.name, answer.text)
            examine(answer, BY_CODE["schema_out_of_range"])
            assert answer.headers["Retry-After"] == "10"


async def test_a_server_that_is_shutting_down(api: Api) -> None:
    await api.account("alice", 100)
    assert api.app is not None
    api.app.state.engine.stop_accepting()
    for answer in (
        await api.pay("@alice", "@world", 1),
        await api.transact(("@alice", "@world", 1)),
    ):
        examine(answer, BY_CODE["shutting_down"])
    assert (await api.client.get("/v1/payments")).status_code == 200  # reading goes on


async def test_a_defect_is_told_without_its_cause(api: Api, database_url: DatabaseUrl) -> None:
    await api.account("alice")
    id = (await api.pay("@world", "@alice", 7)).json()["id"]
    await tamper(database_url, "UPDATE picopay.journal SET postings = '[{\"secret\": 1.5}]'")
    read = await api.client.get(f"/v1/payments/{id}")
    rename = "ALTER TABLE picopay.{} RENAME TO {}"
    await on_connection(database_url, lambda c: c.execute(rename.format("commit", "committed")))
    paid = await api.pay("@world", "@alice", 7, key="k")
    await on_connection(database_url, lambda c: c.execute(rename.format("committed", "commit")))
    for answer in (read, paid):
        examine(answer, BY_CODE["internal_error"])
        for word in ("secret", "posting", "commit", "Traceback", "asyncpg", "relation"):
            assert word not in answer.text.replace('"/v1/payments', ""), answer.text
    # Nothing was kept of it.
    again = await api.pay("@world", "@alice", 7, key="k")
    assert (again.status_code, "Idempotent-Replayed" in again.headers) == (201, False)
