"""The audit over HTTP: where the auditor is, that all is well, and what it found when it is not."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.keys import ALL
from picopay_api.worker.auditor import Auditor
from picopay_api.worker.sealer import Sealer
from support.api import Api, as_key, served
from support.contract import hold
from support.journal import tamper


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url) as api:
        hold(api.client)
        await api.account("alice")
        yield api


async def state(api: Api, **options: Any) -> dict[str, Any]:
    answer = await api.client.get("/v1/audit", **options)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def work(api: Api) -> None:
    """Let the worker seal and check until it has seen everything."""
    await Sealer(api.engine.database).step()
    auditor = Auditor(api.engine.database, interval_s=0)
    for _ in range(10):
        await auditor.step()


async def test_the_audit_tells_how_far_it_is(api: Api) -> None:
    nothing = {
        "object": "audit",
        "position": 0,
        "sealed_position": 0,
        "sealed_hash": None,
        "sums": {},
        "findings": [],
        "checked_at": None,
    }
    assert await state(api) == nothing
    for n in (1, 2, 3):
        await api.pay("@world", "@alice", n)
    assert await state(api) == nothing
    await Sealer(api.engine.database).step()
    sealed = await state(api)
    assert sealed == {**nothing, "sealed_position": 3, "sealed_hash": sealed["sealed_hash"]}
    assert len(bytes.fromhex(sealed["sealed_hash"])) == 32
    await work(api)
    checked = await state(api)
    assert checked == {
        **sealed,
        "position": 3,
        "sums": {"USD": 0},
        "checked_at": checked["checked_at"],
    }
    assert checked["checked_at"].endswith("Z")


async def test_what_was_tampered_with_is_told(api: Api, database_url: DatabaseUrl) -> None:
    alice = (await api.client.get("/v1/accounts/@alice")).json()["id"]
    await api.pay("@world", "@alice", 7)
    await work(api)
    assert (await state(api))["findings"] == []
    await tamper(
        database_url,
        "UPDATE picopay.balance SET posted_minor = $1 WHERE posted_minor = 7",
        10**18,  # beyond what every reader of JSON keeps exactly
    )
    await work(api)
    found = await state(api)
    assert found["sums"] == {"USD": str(10**18 - 7)}
    kinds = {finding["kind"] for finding in found["findings"]}
    assert kinds == {"balance_differs", "asset_unbalanced"}
    for finding in found["findings"]:
        assert set(finding) == {"kind", "subject", "detail", "found_at"}
        assert finding["found_at"].endswith("Z")
    assert any(
        alice.removeprefix("acct_") in f["subject"].replace("-", "") for f in found["findings"]
    )
    # Nobody else's auditor is alarmed.
    other = await api.engine.ledgers.create("other", {})
    made = await api.engine.keys.create(other.id, "other", [ALL])
    theirs = await state(api, headers=as_key(made.secret))
    assert (theirs["findings"], theirs["sums"]) == ([], {})
