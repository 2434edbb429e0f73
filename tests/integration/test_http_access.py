"""Who may ask for what: every operation without a key, with each scope, and from another ledger."""

import hashlib
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.allowance import Allowance
from picopay_api.http.operations import Operation
from picopay_api.http.resources import OPERATIONS
from support.api import Api, as_key, served
from support.waiting import eventually


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url) as api:
        yield api


def _path(operation: Operation) -> str:
    return operation.path.replace("{account}", "@alice").replace("{", "no_").replace("}", "")


def _body(operation: Operation) -> dict[str, Any] | None:
    if operation.name == "create_api_key":  # nobody may give away more than they have
        return {"name": "n", "scopes": [operation.scope]}
    return operation.example if operation.body else None


async def _status(
    api: Api, operation: Operation, headers: dict[str, str]
) -> tuple[int, str | None]:
    answer = await api.client.request(
        operation.method,
        _path(operation),
        headers={"Authorization": "", **headers, "Idempotency-Key": "k"},
        json=_body(operation),
    )
    return answer.status_code, answer.json().get("code")


async def test_every_operation_needs_a_key_that_is_valid(api: Api) -> None:
    for operation in OPERATIONS:
        assert await _status(api, operation, {}) == (401, "authentication_required")
        wrong = as_key("ppk_" + "0" * 64)
        assert await _status(api, operation, wrong) == (401, "api_key_invalid")


async def test_every_operation_needs_its_scope_and_no_other_one(api: Api) -> None:
    scopes = {operation.scope for operation in OPERATIONS}
    secrets = {scope: await api.secret(scope) for scope in scopes if scope != "admin"}
    for operation in OPERATIONS:
        for scope, secret in secrets.items():
            status, code = await _status(api, operation, as_key(secret))
            missing = (status, code) == (403, "scope_missing")
            assert missing == (scope != operation.scope), (operation.name, scope, status, code)


async def test_a_key_of_one_ledger_sees_nothing_of_another(api: Api) -> None:
    alice = await api.account("alice", 500)
    payment = (await api.pay("@alice", "@world", 10)).json()
    other = await api.engine.ledgers.create("other", {})
    made = await api.engine.keys.create(other.id, "other", ["*"])
    headers = as_key(made.secret)
    for path in (
        f"/v1/accounts/{alice['id']}",
        f"/v1/accounts/{alice['id']}/balance",
        f"/v1/accounts/{alice['id']}/entries",
        f"/v1/accounts/{alice['id']}/entries?format=csv",
        "/v1/accounts/@alice",
        f"/v1/payments/{payment['id']}",
        f"/v1/transactions/{payment['id'].replace('pay_', 'tx_')}",
    ):
        answer = await api.client.get(path, headers=headers)
        assert answer.status_code == 404, path
    for path in ("/v1/accounts", "/v1/payments", "/v1/transactions", "/v1/events"):
        answer = await api.client.get(path, headers=headers)
        assert answer.json()["data"] == [], path
    stolen: dict[str, Any] = {
        "source": alice["id"],
        "destination": "@world",
        "amount": 1,
        "asset": "USD",
    }
    answer = await api.client.post(
        "/v1/payments", json=stolen, headers={**headers, "Idempotency-Key": "k"}
    )
    assert (answer.status_code, answer.json()["code"]) == (404, "account_not_found")


async def test_a_revoked_key_is_refused(api: Api) -> None:
    made = (
        await api.client.post("/v1/api_keys", json={"name": "n", "scopes": ["payments:read"]})
    ).json()
    assert (await api.client.get("/v1/payments", headers=as_key(made["secret"]))).status_code == 200
    assert (await api.client.post(f"/v1/api_keys/{made['id']}/revoke")).status_code == 200

    async def refused() -> bool:
        answer = await api.client.get("/v1/payments", headers=as_key(made["secret"]))
        return answer.status_code == 401

    await eventually(refused)  # keys are remembered for two seconds


async def test_a_rolled_key_and_its_successor_are_both_valid(api: Api) -> None:
    old = (
        await api.client.post("/v1/api_keys", json={"name": "n", "scopes": ["payments:read"]})
    ).json()
    new = (await api.client.post(f"/v1/api_keys/{old['id']}/roll", json={"overlap_s": 60})).json()
    for key in (old, new):
        assert (
            await api.client.get("/v1/payments", headers=as_key(key["secret"]))
        ).status_code == 200
    listed = (await api.client.get("/v1/api_keys")).text
    assert old["secret"] not in listed
    assert new["secret"] not in listed


async def test_requests_beyond_the_rate_are_refused_and_told_when_to_come_back(
    database_url: DatabaseUrl,
) -> None:
    async with served(database_url, rate_limit_requests=3) as api:
        answers = [await api.client.get("/v1/payments") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == [
        "r=2",
        "r=1",
        "r=0",
        "r=0",
    ]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert answers[-1].json()["code"] == "rate_limited"


async def test_guesses_are_limited_and_the_keys_of_others_are_not(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert api.app is not None
    known = await api.secret("audit:read")
    unseen = await api.secret("audit:read")
    assert (await api.client.get("/v1/audit", headers=as_key(known))).status_code == 200
    keys = api.app.state.engine.keys
    monkeypatch.setattr(keys, "_strangers", Allowance(5, 2.0, monotonic()))
    statuses = [
        (await api.client.get("/v1/audit", headers=as_key(f"ppk_guess_{n}"))).status_code
        for n in range(40)
    ]
    assert statuses[:5] == [401] * 5
    assert set(statuses[5:]) <= {401, 429}
    assert statuses.count(429) > 20
    refused = await api.client.get("/v1/audit", headers=as_key(f"{unseen}x"))
    assert refused.status_code in {401, 429}
    keys._remembered[hashlib.sha256(known.encode()).digest()].until_s = 0.0  # it was long ago
    assert (await api.client.get("/v1/audit", headers=as_key(known))).status_code == 200

    async def admitted() -> bool:
        answer = await api.client.get("/v1/audit", headers=as_key(unseen))
        assert answer.status_code in {200, 429}
        if answer.status_code == 429:
            assert answer.headers["Retry-After"] == "1"
            assert answer.json()["code"] == "rate_limited"
        return answer.status_code == 200

    await eventually(admitted)
