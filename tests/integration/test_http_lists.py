"""Lists over HTTP: each filter alone and in pairs, pages that add up, cursors for one list only."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import combinations
from typing import Any
from uuid import UUID

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.accounts import NewAccount
from picopay_api.engine.commands import Pay, Reverse
from picopay_api.engine.paging import SCAN_MAX
from support.api import Api, as_key, served
from support.seeded import SHARED_KEY, Seeded, Shown, ledger_of, seed

Query = dict[str, str]
Matches = Callable[[Shown], bool]


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    # One committer at a time decides in the order of arrival, which is that of ids.
    async with served(database_url, commit_connections=1) as api:
        yield api


async def every_page(api: Api, path: str, query: Query, limit: int = 100) -> list[Shown]:
    """Read a list to its end."""
    found: list[Shown] = []
    asked = {**query, "limit": str(limit)}
    for _ in range(500):
        answer = await api.client.get(path, params=asked)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert list(page) == ["data", "has_more", "next_cursor"]
        assert page["has_more"] == (page["next_cursor"] is not None)
        assert len(page["data"]) <= limit
        found += page["data"]
        if not page["has_more"]:
            return found
        asked["cursor"] = page["next_cursor"]
    raise AssertionError(f"{path} does not end with {query}")


def ids(rows: list[Shown]) -> list[str]:
    return [row["id"] for row in rows]


async def agrees(
    api: Api, path: str, rows: list[Shown], filters: list[tuple[str, str, Matches]]
) -> None:
    """Ask with each filter alone and with every two of different names, all at once."""

    async def ask(*chosen: tuple[str, str, Matches]) -> None:
        query = {name: value for name, value, _ in chosen}
        expected = [row for row in rows if all(matches(row) for *_, matches in chosen)]
        found = await every_page(api, path, query)
        assert ids(found) == ids(expected), query
        assert found == expected, query

    await ask()
    pairs = [pair for pair in combinations(filters, 2) if pair[0][0] != pair[1][0]]
    assert len(pairs) > len(filters)
    chosen = [*((one,) for one in filters), *pairs]
    for place in range(0, len(chosen), 8):
        await asyncio.gather(*(ask(*some) for some in chosen[place : place + 8]))


def times_around(rows: list[Shown]) -> list[tuple[str, str, Matches]]:
    """Return filters by time around one in the middle, which several rows share."""
    times = [row["created_at"] for row in rows]
    middle = max(times[len(times) // 3 :], key=times.count)
    late = times[len(times) // 5]
    assert times[0] > late > middle > times[-1]
    return [
        ("created_at[gte]", middle, lambda row: row["created_at"] >= middle),
        ("created_at[gt]", middle, lambda row: row["created_at"] > middle),
        ("created_at[lte]", middle, lambda row: row["created_at"] <= middle),
        ("created_at[lt]", middle, lambda row: row["created_at"] < middle),
        ("created_at[lt]", late, lambda row: row["created_at"] < late),
    ]


def has(member: str, value: str) -> tuple[str, str, Matches]:
    return member, value, lambda row: row[member] == value


def tagged(key: str, value: str) -> tuple[str, str, Matches]:
    return f"metadata[{key}]", value, lambda row: row["metadata"].get(key) == value


def moving(seeded: Seeded) -> list[tuple[str, str, Matches]]:
    """Return filters that payments and transactions have in common."""

    def touching(account: str) -> tuple[str, str, Matches]:
        return "account", account, lambda row: seeded.touches(row, account)

    def keyed(key: str) -> tuple[str, str, Matches]:
        return "idempotency_key", key, lambda row: seeded.key_of(row) == key

    (a3,) = (one["id"] for one in seeded.accounts if one["reference"] == "a3")
    accounts = ("@a1", "@a13", a3, "@a5", "@nobody")
    return [
        *(touching(account) for account in accounts),
        *(keyed(key) for key in ("key-17", SHARED_KEY, "never")),
        *(has("reference", reference) for reference in ("ref-17", "tx-ref-3", "never")),
        *(tagged(*pair) for pair in (("tier", "gold"), ("tier", "tin"), ("n", "17"))),
    ]


async def test_accounts_by_every_filter_and_every_two(api: Api) -> None:
    seeded = await seed(api)
    rows = [(await api.client.get(f"/v1/accounts/{row['id']}")).json() for row in seeded.accounts]
    filters = [
        *(has("reference", reference) for reference in ("a3", "a5", "never")),
        *(has("asset", asset) for asset in ("USD", "BTC/8", "JPY")),
        *(tagged(*pair) for pair in (("tier", "gold"), ("n", "7"), ("tier", "tin"))),
        *times_around(rows),
    ]
    await agrees(api, "/v1/accounts", rows, filters)


async def test_payments_by_every_filter_and_every_two(api: Api) -> None:
    seeded = await seed(api)
    statuses = [has("status", status) for status in ("captured", "refunded", "voided")]
    filters = [*moving(seeded), *statuses, *times_around(seeded.payments)]
    await agrees(api, "/v1/payments", seeded.payments, filters)


async def test_transactions_by_every_filter_and_every_two(api: Api) -> None:
    seeded = await seed(api)
    filters = [*moving(seeded), *times_around(seeded.transactions)]
    await agrees(api, "/v1/transactions", seeded.transactions, filters)


async def test_several_pairs_of_metadata_must_all_match(api: Api) -> None:
    seeded = await seed(api)
    for pairs in (
        {"tier": "gold", "n": "117"},
        {"n": "117", "tier": "gold"},
        {"tier": "silver", "n": "117"},
        {"tier": "gold", "none": "such"},
    ):
        query = {f"metadata[{key}]": value for key, value in pairs.items()}
        for path, rows in (
            ("/v1/accounts", seeded.accounts),
            ("/v1/payments", seeded.payments),
            ("/v1/transactions", seeded.transactions),
        ):
            expected = [row for row in rows if pairs.items() <= row["metadata"].items()]
            assert ids(await every_page(api, path, query)) == ids(expected), (path, query)


def payment(account: str, amount: int = 5, **fields: Any) -> Pay:
    return Pay(source="@world", destination=account, amount_minor=amount, asset="USD", **fields)


class Growing:
    """A ledger that gets one more row of each kind whenever it is asked to."""

    def __init__(self, api: Api, ledger: UUID) -> None:
        self.api = api
        self.ledger = ledger
        self.rows = 0

    async def account(self) -> None:
        asked = NewAccount(asset="USD", reference=self._name(), metadata={"tag": "x"})
        await self.api.engine.accounts.create(self.ledger, asked)

    async def money(self) -> None:
        """Make a payment, and refund every second one."""
        name = self._name()
        asked = payment("@a0", metadata={"tag": "x"})
        made = await self.api.engine.payments.create(self.ledger, asked, name)
        if self.rows % 2:
            reverse = Reverse(transaction=made.value.id, metadata={"tag": "x"})
            await self.api.engine.transactions.reverse(self.ledger, reverse, name)

    async def key(self) -> None:
        await self.api.engine.keys.create(self.ledger, self._name(), ["payments:read"])

    async def book(self) -> None:
        await self.api.engine.ledgers.create(self._name())

    def _name(self) -> str:
        self.rows += 1
        return f"row-{self.rows}"


GROWING: list[tuple[str, Query, Callable[[Growing], Awaitable[None]]]] = [
    ("/v1/accounts", {}, Growing.account),
    ("/v1/accounts", {"asset": "USD"}, Growing.account),
    ("/v1/accounts", {"metadata[tag]": "x"}, Growing.account),
    ("/v1/payments", {}, Growing.money),
    ("/v1/payments", {"account": "@a0"}, Growing.money),
    ("/v1/payments", {"status": "refunded"}, Growing.money),
    ("/v1/payments", {"metadata[tag]": "x"}, Growing.money),
    ("/v1/transactions", {}, Growing.money),
    ("/v1/transactions", {"account": "@a0"}, Growing.money),
    ("/v1/transactions", {"metadata[tag]": "x"}, Growing.money),
    ("/v1/accounts/@a0/entries", {}, Growing.money),
    ("/v1/api_keys", {}, Growing.key),
    ("/v1/ledgers", {}, Growing.book),
]


@pytest.mark.parametrize("part", range(3))
async def test_every_page_size_puts_the_list_together_while_rows_arrive(
    api: Api, part: int
) -> None:
    await api.account("a0")
    growing = Growing(api, await ledger_of(api))
    for _ in range(16):
        await growing.money()
    for path, query, arrive in GROWING[part::3]:
        for _ in range(8):
            await arrive(growing)
        for limit in range(1, 8):
            # It grows with each turn: of what was there at its beginning, the newest are looked at.
            begins = (await api.client.get(path, params={**query, "limit": 8})).json()["data"]
            assert len(begins) == 8, (path, query)
            found: list[Shown] = []
            asked = {**query, "limit": str(limit)}
            while len(found) < len(begins):
                page = (await api.client.get(path, params=asked)).json()
                assert len(page["data"]) == limit or not page["has_more"]
                found += page["data"]
                asked["cursor"] = page["next_cursor"]
                if len(found) <= 2 * limit:
                    await arrive(growing)
            assert found[: len(begins)] == begins, (path, query, limit)


async def test_a_page_is_bounded_by_what_it_looks_at(api: Api) -> None:
    ledger = await ledger_of(api)
    await api.account("a0")
    first = await api.engine.payments.create(ledger, payment("@a0"), "first")
    await api.engine.transactions.reverse(ledger, Reverse(transaction=first.value.id), "undo")
    payments = (
        api.engine.payments.create(ledger, payment("@a0"), f"k{n}") for n in range(SCAN_MAX + 200)
    )
    await asyncio.gather(*payments)
    query = {"account": "@a0", "status": "refunded", "limit": "1"}
    page = (await api.client.get("/v1/payments", params=query)).json()
    # Nothing yet, which is not the end.
    assert (page["data"], page["has_more"]) == ([], True)
    query["cursor"] = page["next_cursor"]
    page = (await api.client.get("/v1/payments", params=query)).json()
    assert [one["amount"] for one in page["data"]] == [5]
    assert page["has_more"] is False
    # A time is no reason to look at what came after it.
    for path in ("/v1/payments", "/v1/transactions"):
        until = {"created_at[lte]": first.value.created_at.isoformat(), "limit": "1"}
        page = (await api.client.get(path, params=until)).json()
        assert len(page["data"]) == 1, path


async def test_a_list_ends_exactly_where_its_rows_end(api: Api) -> None:
    ledger = await ledger_of(api)
    for n in range(6):
        await api.engine.accounts.create(ledger, NewAccount(asset="USD", reference=f"a{n}"))
    for limit, pages in ((6, [6]), (7, [6]), (3, [3, 3]), (2, [2, 2, 2]), (5, [5, 1])):
        sizes, asked = [], {"limit": str(limit)}
        while True:
            page = (await api.client.get("/v1/accounts", params=asked)).json()
            sizes.append(len(page["data"]))
            if not page["has_more"]:
                break
            asked["cursor"] = page["next_cursor"]
        assert sizes == pages, limit
    assert len((await api.client.get("/v1/api_keys")).json()["data"]) == 1
    for _ in range(22):
        await api.engine.keys.create(ledger, "n", ["*"])
    assert len((await api.client.get("/v1/api_keys")).json()["data"]) == 20


async def test_the_limit_is_one_to_a_hundred(api: Api) -> None:
    await api.account("a0", 5)
    lists = ("accounts", "payments", "transactions", "api_keys", "ledgers", "accounts/@a0/entries")
    for path in lists:
        for limit in ("1", "100", "007"):
            answer = await api.client.get(f"/v1/{path}?limit={limit}")
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["data"]) >= 1
        for limit in (
            "0",
            "101",
            "-1",
            "1.0",
            "1e1",
            "",
            "0x1",
            "%D9%A1",
            "1%0A",
            "%2B1",
            "9" * 50,
        ):
            answer = await api.client.get(f"/v1/{path}?limit={limit}")
            problem = answer.json()
            assert (answer.status_code, problem["code"]) == (400, "invalid_request"), (path, limit)
            assert problem["errors"][0]["pointer"] == "?limit"


async def test_a_cursor_belongs_to_one_list_of_one_ledger(api: Api) -> None:
    ledger = await ledger_of(api)
    for n in range(4):
        await api.account(f"a{n}", 5, metadata={"tag": "x"})
        await api.engine.keys.create(ledger, "n", ["*"])
        await api.engine.ledgers.create(f"l{n}")
    await api.pay("@a0", "@a1", 1)
    lists = [
        "/v1/accounts?limit=1",
        "/v1/accounts?limit=1&asset=USD",
        "/v1/accounts?limit=1&metadata[tag]=x",
        "/v1/payments?limit=1",
        "/v1/payments?limit=1&account=@a0",
        "/v1/payments?limit=1&status=captured",
        "/v1/payments?limit=1&created_at[gte]=2000-01-01T00:00:00Z",
        "/v1/transactions?limit=1",
        "/v1/transactions?limit=1&account=@a0",
        "/v1/transactions?limit=1&account=@a1",
        "/v1/accounts/@a0/entries?limit=1",
        "/v1/accounts/@a1/entries?limit=1",
        "/v1/api_keys?limit=1",
        "/v1/ledgers?limit=1",
    ]
    cursors = {}
    for path in lists:
        page = (await api.client.get(f"{path}")).json()
        assert page["has_more"], path
        cursors[path] = page["next_cursor"]
    assert len(set(cursors.values())) == len(lists)

    async def status(path: str, cursor: str, **headers: str) -> tuple[int, str | None]:
        answer = await api.client.get(f"{path}&cursor={cursor}", headers=headers)
        return answer.status_code, answer.json().get("code")

    for of, cursor in cursors.items():
        answers = await asyncio.gather(*(status(path, cursor) for path in lists))
        for path, answer in zip(lists, answers, strict=True):
            wanted = (200, None) if path == of else (400, "invalid_cursor")
            assert answer == wanted, (of, path)
    # The cursor says where to go on, not how far: another limit is no other list.
    assert await status("/v1/accounts?limit=7", cursors["/v1/accounts?limit=1"]) == (200, None)
    other = await api.engine.ledgers.create("other")
    secret = (await api.engine.keys.create(other.id, "other", ["*"])).secret
    for path in lists:
        if "@" not in path and "ledgers" not in path:
            answer = await status(path, cursors[path], **as_key(secret))
            assert answer == (400, "invalid_cursor"), path
    whole = cursors["/v1/accounts?limit=1"]
    for cursor in ("x", "=", whole[:-1], whole + "A", whole[1:], "%C3%BC", whole.swapcase()):
        assert await status("/v1/accounts?limit=1", cursor) == (400, "invalid_cursor"), cursor


async def test_metadata_is_found_by_any_key_and_any_value(api: Api) -> None:
    await api.account("a0", 5)
    odd = ["a b", "]", "[", "a[b]", "ключ", "&=?#", "%41", "+", "'\"\\", "{}", "n" * 40, "🎉" * 40]
    values = ["", " ", "line\nfeed", "tab\t", "\u2028", "100%", "a&b=c", "+", "v" * 500, "🎉" * 500]
    metadata = dict(zip(odd, (*values, "x", "y"), strict=True))
    account = await api.account("a1", metadata=metadata)
    body = {"source": "@a0", "destination": "@a1", "amount": 1, "asset": "USD"}
    paid = (await api.post("/v1/payments", {**body, "metadata": metadata})).json()
    for key, value in metadata.items():
        query = {f"metadata[{key}]": value}
        for path, id in (
            ("/v1/accounts", account["id"]),
            ("/v1/payments", paid["id"]),
            ("/v1/transactions", paid["id"].replace("pay_", "tx_")),
        ):
            answer = await api.client.get(path, params=query)
            assert answer.status_code == 200, (query, answer.text)
            assert ids(answer.json()["data"]) == [id], query
            other = await api.client.get(path, params={f"metadata[{key}]": value + "?"[:499]})
            assert other.status_code == (400 if len(value) == 500 else 200)
            assert other.json().get("data", []) == []
