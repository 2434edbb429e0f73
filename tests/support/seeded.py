"""A ledger of a few hundred rows whose every detail the test knows, as clients see it.

Used by the tests of lists, which compare what a list answers with what these rows say.
"""

import asyncio
from typing import Any
from uuid import UUID

import msgspec

from picopay_api.engine.accounts import NewAccount
from picopay_api.engine.commands import Pay, PostingRequest, Reverse, Transact
from picopay_api.engine.ids import LEDGER, parse_id
from picopay_api.http import answers
from support.api import Api

Shown = dict[str, Any]

ACCOUNTS = 24
PAYMENTS = 200
TRANSACTIONS = 40
SHARED_KEY = 'shared, "quoted" ~ key'
"""An idempotency key that a payment, a transaction and a reversal all have."""

_ASSETS = ("USD", "EUR", "BTC/8")
_TIERS = ("gold", "silver", "bronze")
_AT_ONCE = 20


class Seeded:
    """The rows, newest first; `keys` are idempotency keys by the id of their transaction."""

    def __init__(self, api: Api, ledger: UUID) -> None:
        self.api = api
        self.ledger = ledger
        self.accounts: list[Shown] = []
        self.payments: list[Shown] = []
        self.transactions: list[Shown] = []
        self.keys: dict[str, str] = {}

    def key_of(self, row: Shown) -> str:
        """Return the key that made a payment or transaction."""
        return self.keys[row["id"].replace("pay_", "tx_")]

    def touches(self, row: Shown, account: str) -> bool:
        """Tell whether a payment or transaction moves money of an account, given by its address."""
        ids = {one["id"] for one in self.accounts if account in (one["id"], f"@{one['reference']}")}
        sides = {(p["source"], p["destination"]) for p in row.get("postings", [row])}
        return any(ids & set(side) for side in sides)


async def ledger_of(api: Api) -> UUID:
    """Return the ledger of the administrator that `api` asks as."""
    (key,) = (await api.client.get("/v1/api_keys")).json()["data"][-1:]
    ledger = parse_id(LEDGER, key["ledger"])
    assert ledger is not None
    return ledger


async def seed(api: Api) -> Seeded:
    """Fill the ledger, some rows to a commit, so that rows share their times."""
    seeded = Seeded(api, await ledger_of(api))
    await _accounts(seeded)
    await _payments(seeded)
    await _transactions(seeded)
    await _reversals(seeded)
    seeded.transactions.sort(key=lambda row: str(row["id"]), reverse=True)
    return seeded


async def _accounts(seeded: Seeded) -> None:
    for n in range(ACCOUNTS):
        asked = NewAccount(
            asset=_ASSETS[n % 3],
            reference=f"a{n}" if n % 4 else None,
            min_balance_minor=None,
            metadata={"tier": _TIERS[n // 2 % 3], "n": str(n)} if n % 5 else {},
        )
        made = await seeded.api.engine.accounts.create(seeded.ledger, asked)
        seeded.accounts.insert(0, _built(answers.account(made.value)))
        if n % 6 == 0:
            await asyncio.sleep(0.002)  # times have milliseconds


async def _payments(seeded: Seeded) -> None:
    async def pay(n: int) -> None:
        key = SHARED_KEY if n == 150 else f"key-{n}"
        asked = Pay(
            source="@a1" if n % 3 else "@a10",
            destination=f"@a{(7, 13, 19, 22)[n % 4]}",
            amount_minor=n + 1,
            asset="EUR",
            reference=f"ref-{n}" if n % 2 else None,
            metadata={"tier": _TIERS[n % 3], "n": str(n)} if n % 4 else {},
        )
        made = await seeded.api.engine.payments.create(seeded.ledger, asked, key)
        _keep(seeded, key, _built(answers.payment(made.value)))

    await _in_turns(pay, PAYMENTS)
    seeded.payments.sort(key=lambda row: str(row["id"]), reverse=True)


async def _transactions(seeded: Seeded) -> None:
    async def transact(n: int) -> None:
        key = SHARED_KEY if n == 20 else f"tx-key-{n}"
        # The same account several times, in neighbouring entries and not.
        postings = tuple(
            PostingRequest(source=source, destination=destination, amount_minor=n + 1, asset="USD")
            for source, destination in (("@a3", "@a6"), ("@a3", "@a9"), ("@a6", "@a3"))[: n % 3 + 1]
        )
        metadata = {"tier": _TIERS[n % 3]} if n % 2 else {}
        reference = f"tx-ref-{n}" if n % 2 else None
        asked = Transact(postings=postings, reference=reference, metadata=metadata)
        made = await seeded.api.engine.transactions.create(seeded.ledger, asked, key)
        _keep(seeded, key, _built(answers.transaction(made.value)))

    await _in_turns(transact, TRANSACTIONS)


async def _reversals(seeded: Seeded) -> None:
    originals = [*seeded.payments[::7], *(t for t in seeded.transactions if not t["payment"])][:35]

    async def reverse(n: int) -> None:
        key = SHARED_KEY if n == 0 else f"rev-key-{n}"
        original = originals[n]
        id = UUID(hex=original["id"].split("_")[1])
        asked = Reverse(transaction=id, metadata={"tier": "gold"} if n % 2 else {})
        made = await seeded.api.engine.transactions.reverse(seeded.ledger, asked, key)
        reversal: Shown = _built(answers.transaction(made.value))
        _keep(seeded, key, reversal)
        for row in seeded.transactions:
            if row["id"] == reversal["reverses"]:
                row["reversed_by"] = reversal["id"]
        if "status" in original:
            original.update(status="refunded", refunded=original["amount"])

    await _in_turns(reverse, len(originals))


def _keep(seeded: Seeded, key: str, row: Shown) -> None:
    id = row["id"].replace("pay_", "tx_")
    seeded.keys[id] = key
    if row["object"] == "transaction":
        seeded.transactions.append(row)
        return
    seeded.payments.append(row)
    posting = {name: row[name] for name in ("source", "destination", "amount", "asset")}
    seeded.transactions.append(
        {
            "object": "transaction",
            "id": id,
            "postings": [posting],
            "payment": row["id"],
            "reverses": None,
            "reversed_by": None,
            "position": None,
            "dry_run": False,
            "reference": row["reference"],
            "metadata": row["metadata"],
            "created_at": row["created_at"],
        }
    )


async def _in_turns(make: Any, count: int) -> None:
    for place in range(0, count, _AT_ONCE):
        await asyncio.gather(*(make(n) for n in range(place, min(place + _AT_ONCE, count))))
        await asyncio.sleep(0.002)


def _built(answer: Any) -> Shown:
    shown: Shown = msgspec.json.decode(msgspec.json.encode(answer))
    return shown
