"""API keys over HTTP: told once, and never more powerful than who makes them."""

import hashlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.ids import LEDGER, format_id
from picopay_api.engine.keys import ADMIN, ALL, SCOPES
from support.api import Api, as_key, served
from support.postgres import on_connection
from support.waiting import eventually

KEYS = "/v1/api_keys"
NOBODY = "key_" + "0" * 32
Body = dict[str, Any]
OF_A_LEDGER = [scope for scope in SCOPES if scope not in {ALL, ADMIN} and "ledgers:" not in scope]


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url) as api:
        yield api


async def made(api: Api, *scopes: str, by: str | None = None, **fields: Any) -> Body:
    """Make a key, as the administrator or by a secret."""
    headers = as_key(by) if by else {}
    body = {"name": "test", "scopes": scopes, **fields}
    answer = await api.client.post(KEYS, json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    key: Body = answer.json()
    return key


async def works(api: Api, secret: str) -> bool:
    """Tell whether a secret is accepted, whatever it may do."""
    answer = await api.client.get("/v1/payments", headers=as_key(secret))
    assert answer.status_code in {200, 401, 403}
    return answer.status_code != 401


async def ends(api: Api, secret: str) -> None:
    """Wait until a secret is refused: keys are remembered for two seconds."""

    async def refused() -> bool:
        return not await works(api, secret)

    await eventually(refused)


def outcome(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code")


async def test_a_secret_is_told_once_and_kept_nowhere(api: Api, database_url: DatabaseUrl) -> None:
    key = await made(api, "payments:read", "events:read", name="till 7")
    secret = key["secret"]
    assert re.fullmatch(r"ppk_[0-9a-f]{64}", secret)
    assert key == {
        "id": key["id"],
        "object": "api_key",
        "ledger": key["ledger"],
        "name": "till 7",
        "scopes": ["events:read", "payments:read"],
        "hint": secret[-4:],
        "created_at": key["created_at"],
        "expires_at": None,
        "revoked_at": None,
        "secret": secret,
    }
    shown = {name: value for name, value in key.items() if name != "secret"}
    assert (await api.client.get(f"{KEYS}/{key['id']}")).json() == shown
    assert shown in (await api.client.get(KEYS)).json()["data"]
    rolled = await api.client.post(f"{KEYS}/{key['id']}/roll")
    assert secret not in rolled.text
    revoked = await api.client.post(f"{KEYS}/{key['id']}/revoke")
    assert "secret" not in revoked.json()

    async def search(connection: Any) -> None:
        tables = await connection.fetch(
            "SELECT c.oid::regclass::text AS name FROM pg_class AS c"
            " WHERE relnamespace = 'picopay'::regnamespace AND relkind = 'r'"
        )
        assert len(tables) > 10
        for table in tables:
            found = (
                f"SELECT count(*) FROM {table['name']} AS row WHERE row::text LIKE '%' || $1 || '%'"
            )
            for text in (secret[4:], secret[4:36], secret[36:]):
                assert await connection.fetchval(found, text) == 0, table
        hashes = await connection.fetch("SELECT hash FROM picopay.api_key WHERE name = 'till 7'")
        assert hashlib.sha256(secret.encode()).digest() in {row["hash"] for row in hashes}

    await on_connection(database_url, search)


async def test_keys_that_cannot_be(api: Api) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    faults: list[tuple[Body, str]] = [
        ({"name": ""}, "/name"),
        ({"name": "x" * 101}, "/name"),
        ({"name": "a\n"}, "/name"),
        ({"name": None}, "/name"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": "*"}, "/scopes"),
        ({"scopes": ["*"] * 51}, "/scopes"),
        ({"scopes": ["events:read", "events:write"]}, "/scopes/1"),
        ({"scopes": ["PAYMENTS:READ"]}, "/scopes/0"),
        ({"scopes": [7]}, "/scopes/0"),
        ({"expires_at": past}, "/expires_at"),
        ({"expires_at": "2100-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": "tomorrow"}, "/expires_at"),
        ({"expires_at": 4102444800}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "/expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+23:59"}, "/expires_at"),
        ({"ledger": "mine"}, "/ledger"),
        ({"ledger": NOBODY}, "/ledger"),
        ({"secret": "ppk_" + "0" * 64}, "/secret"),
    ]
    before = (await api.client.get(KEYS)).json()
    for change, pointer in faults:
        body = {"name": "n", "scopes": ["events:read"], **change}
        answer = await api.client.post(KEYS, json=body)
        assert outcome(answer) == (400, "invalid_request"), change
        assert answer.json()["errors"][0]["pointer"] == pointer, change
    nobody = {"name": "n", "scopes": ["*"], "ledger": "ldg_" + "0" * 32}
    assert outcome(await api.client.post(KEYS, json=nobody)) == (404, "ledger_not_found")
    assert (await api.client.get(KEYS)).json() == before


async def test_who_is_not_there_is_not_found(api: Api) -> None:
    account = await api.account("alice")
    for id in (
        NOBODY,
        "key_",
        "nonsense",
        account["id"].replace("acct_", "key_"),
        "KEY_" + "0" * 32,
    ):
        for method, suffix in (("GET", ""), ("POST", "/roll"), ("POST", "/revoke")):
            answer = await api.client.request(method, f"{KEYS}/{id}{suffix}")
            assert outcome(answer) == (404, "api_key_not_found"), (id, suffix)


async def test_every_scope_can_be_given_and_is_kept(api: Api) -> None:
    for scope in SCOPES:
        key = await made(api, scope, scope)
        assert key["scopes"] == [scope]
        assert await works(api, key["secret"])
    assert (await made(api, *SCOPES))["scopes"] == sorted(SCOPES)


async def test_a_key_gives_no_scope_that_it_lacks(api: Api) -> None:
    powers = {scope: {scope, "api_keys:write"} for scope in SCOPES if scope not in {ALL, ADMIN}}
    powers[ALL] = {ALL, *OF_A_LEDGER}
    powers[ADMIN] = set(SCOPES)
    for scope in ("payments:read", "api_keys:write", "ledgers:write", ALL, ADMIN):
        secret = (await made(api, scope, "api_keys:write"))["secret"]
        for wanted in SCOPES:
            body = {"name": "n", "scopes": ["api_keys:write", wanted]}
            answer = await api.client.post(KEYS, json=body, headers=as_key(secret))
            allowed = wanted in powers[scope]
            assert outcome(answer) == ((201, None) if allowed else (403, "scope_missing")), (
                scope,
                wanted,
            )
            if not allowed:
                assert answer.json()["scope"] == wanted


async def test_a_key_neither_rolls_nor_revokes_a_more_powerful_one(api: Api) -> None:
    strong = [await made(api, ADMIN), await made(api, ALL), await made(api, "payments:read")]
    weak = await made(api, "api_keys:write", "events:read")
    headers = as_key(weak["secret"])
    for key in strong:
        for action in ("roll", "revoke"):
            answer = await api.client.post(f"{KEYS}/{key['id']}/{action}", headers=headers)
            assert outcome(answer) == (403, "scope_missing"), (key["scopes"], action)
        assert (await api.client.get(f"{KEYS}/{key['id']}")).json()["revoked_at"] is None
        assert (await api.client.get(f"{KEYS}/{key['id']}")).json()["expires_at"] is None
    assert (await api.client.post(f"{KEYS}/{weak['id']}/roll", headers=headers)).status_code == 201
    assert (
        await api.client.post(f"{KEYS}/{weak['id']}/revoke", headers=headers)
    ).status_code == 200


async def test_a_key_that_expires_makes_and_rolls_none_that_outlives_it(api: Api) -> None:
    soon, later = (
        (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds")
        for hours in (1, 2)
    )
    asking = await made(api, "api_keys:write", expires_at=soon)
    headers = as_key(asking["secret"])
    for expires_at in (None, later):
        body = {"name": "n", "scopes": ["api_keys:write"], "expires_at": expires_at}
        answer = await api.client.post(KEYS, json=body, headers=headers)
        assert outcome(answer) == (400, "invalid_request")
        assert answer.json()["errors"][0]["pointer"] == "/expires_at"
        other = await made(api, "api_keys:write", expires_at=expires_at)
        rolled = await api.client.post(f"{KEYS}/{other['id']}/roll", headers=headers)
        assert outcome(rolled) == (400, "invalid_request")
    await made(api, "api_keys:write", by=asking["secret"], expires_at=soon)
    rolled = await api.client.post(f"{KEYS}/{asking['id']}/roll", headers=headers)
    assert (rolled.status_code, rolled.json()["expires_at"]) == (201, asking["expires_at"])


async def test_keys_of_another_ledger_are_for_administrators(api: Api) -> None:
    other = format_id(LEDGER, (await api.engine.ledgers.create("other")).id)
    tenant = await made(api, ALL, "ledgers:read", "ledgers:write")
    there = await made(api, "api_keys:read", "accounts:read", ledger=other)
    assert there["ledger"] == other
    calls = [
        ("GET", f"{KEYS}?ledger={other}", None),
        ("GET", f"{KEYS}/{there['id']}?ledger={other}", None),
        ("POST", f"{KEYS}/{there['id']}/roll?ledger={other}", None),
        ("POST", KEYS, {"name": "n", "scopes": ["accounts:read"], "ledger": other}),
        ("POST", f"{KEYS}/{there['id']}/revoke?ledger={other}", None),
    ]
    for method, path, body in calls:
        answer = await api.client.request(method, path, json=body, headers=as_key(tenant["secret"]))
        assert outcome(answer) == (404, "ledger_not_found"), path
        # It says no more of a ledger that is there than of one that is not.
        assert answer.json()["detail"] == "there is no such ledger"
    own = f"ledger={tenant['ledger']}"
    answer = await api.client.get(f"{KEYS}?{own}", headers=as_key(tenant["secret"]))
    assert answer.status_code == 200
    # In its own ledger, a key of another one is not there, for the administrator neither.
    for suffix in ("", f"?{own}"):
        answer = await api.client.get(f"{KEYS}/{there['id']}{suffix}")
        assert outcome(answer) == (404, "api_key_not_found")
    answer = await api.client.get(KEYS, headers=as_key(there["secret"]))
    assert [key["id"] for key in answer.json()["data"]] == [there["id"]]
    for method, path, body in calls:
        answer = await api.client.request(method, path, json=body)
        assert answer.status_code in {200, 201}, (path, answer.text)
    listed = (await api.client.get(f"{KEYS}?ledger={other}")).json()["data"]
    assert [key["revoked_at"] is None for key in listed] == [True, True, False]


async def test_a_key_ends_when_its_time_has_come(api: Api) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    key = await made(api, ALL, expires_at=soon.isoformat())
    assert datetime.fromisoformat(key["expires_at"]) == soon.replace(
        microsecond=soon.microsecond // 1000 * 1000
    )
    await ends(api, key["secret"])
    assert datetime.now(UTC) >= soon
    answer = await api.client.post(f"{KEYS}/{key['id']}/roll")
    assert outcome(answer) == (409, "api_key_inactive")
    assert (await api.client.get(f"{KEYS}/{key['id']}")).json()["revoked_at"] is None


async def test_a_rolled_key_has_a_successor_like_it(api: Api) -> None:
    old = await made(api, "payments:read", "accounts:read", name="till")
    for body in ({"overlap_s": -1}, {"overlap_s": 2_592_001}, {"overlap_s": "60"}, {"overlap": 1}):
        answer = await api.client.post(f"{KEYS}/{old['id']}/roll", json=body)
        assert outcome(answer) == (400, "invalid_request"), body
    asked = datetime.now(UTC)
    new = (await api.client.post(f"{KEYS}/{old['id']}/roll")).json()
    assert new["id"] != old["id"]
    assert new["secret"] != old["secret"]
    for name in ("name", "scopes", "ledger", "expires_at", "revoked_at"):
        assert new[name] == old[name]
    for key in (old, new):
        assert await works(api, key["secret"])
    expires_at = (await api.client.get(f"{KEYS}/{old['id']}")).json()["expires_at"]
    day = datetime.fromisoformat(expires_at) - asked
    assert timedelta(days=1, seconds=-1) < day < timedelta(days=1, minutes=2)
    at_once = await api.client.post(f"{KEYS}/{new['id']}/roll", json={"overlap_s": 0})
    assert at_once.status_code == 201
    await ends(api, new["secret"])
    assert await works(api, at_once.json()["secret"])
    assert await works(api, old["secret"])


async def test_an_overlap_does_not_lengthen_the_life_of_a_key(api: Api) -> None:
    expires_at = (datetime.now(UTC) + timedelta(minutes=10)).isoformat(timespec="milliseconds")
    old = await made(api, ALL, expires_at=expires_at)
    new = (await api.client.post(f"{KEYS}/{old['id']}/roll", json={"overlap_s": 86_400})).json()
    assert new["expires_at"] == old["expires_at"]
    again = (await api.client.get(f"{KEYS}/{old['id']}")).json()
    assert again["expires_at"] == old["expires_at"]


async def test_a_key_that_is_rolled_again_has_another_successor_like_it(api: Api) -> None:
    """As after an answer that was lost: the overlap of the old key is not the term of the new one."""
    old = await made(api, ALL)
    rolled = [
        (await api.client.post(f"{KEYS}/{old['id']}/roll", json={"overlap_s": overlap_s})).json()
        for overlap_s in (60, 3_600)
    ]
    assert [key["expires_at"] for key in rolled] == [None, None]
    ending = (await api.client.get(f"{KEYS}/{old['id']}")).json()["expires_at"]
    assert datetime.fromisoformat(ending) < datetime.now(UTC) + timedelta(minutes=2)


async def test_who_waits_for_a_lock_too_long_is_told_to_come_back(
    database_url: DatabaseUrl,
) -> None:
    async with served(database_url, lock_timeout_ms=50) as api:
        key = await made(api, ALL)
        connection = await asyncpg.connect(**database_url.connect_arguments())
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE picopay.api_key, picopay.ledger")
                for path, body in (
                    (f"{KEYS}/{key['id']}/revoke", None),
                    (f"{KEYS}/{key['id']}/roll", {}),
                    ("/v1/ledgers", {"name": "another"}),
                ):
                    answer = await api.client.post(path, json=body)
                    assert outcome(answer) == (503, "database_unavailable"), path
                    assert answer.headers["Retry-After"] == "1"
        finally:
            await connection.close()
        revoked = await api.client.post(f"{KEYS}/{key['id']}/revoke")
        assert revoked.status_code == 200


async def test_a_revoked_key_stays_revoked(api: Api) -> None:
    old = await made(api, ALL)
    new = (await api.client.post(f"{KEYS}/{old['id']}/roll")).json()
    first = (await api.client.post(f"{KEYS}/{old['id']}/revoke")).json()
    again = (await api.client.post(f"{KEYS}/{old['id']}/revoke")).json()
    assert first["revoked_at"] is not None
    assert again == first
    await ends(api, old["secret"])
    assert await works(api, new["secret"])
    answer = await api.client.post(f"{KEYS}/{old['id']}/roll")
    assert outcome(answer) == (409, "api_key_inactive")
