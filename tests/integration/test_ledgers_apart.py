"""Tenants share nothing: a ledger notices nothing of a twin, whose ids, references and keys are its own.

The twin differs in all that a statement could take up by mistake: amounts, states, outcomes. One statement
without its ledger would find two rows for one, or the wrong one. That each names its ledger is read off its
plan and its text, besides (decision 0011).
"""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.store import (
    accounts,
    audit,
    events,
    idempotency,
    journal,
    keys,
    ledgers,
    partitions,
    seal,
    tables,
)
from picopay_api.worker.audit_all import audit_everything
from picopay_api.worker.sealer import Sealer
from support.api import Api, as_key, served
from support.postgres import CHECKOUT, on_connection
from support.seeded import SHARED_KEY, Seeded, seed
from support.sql import rows

POISON = {
    "account": 'metadata = \'{"poison": "1"}\'',
    "api_key": "hash = sha256(t.hash), name = 'poison', scopes = '{}', revoked_at = now()",
    "balance": "asset = 'JPY', state = 1, floor_minor = NULL, posted_minor = 666, sequence = 666",
    "block": "first_position = t.first_position + 7, hash = sha256(t.hash)",
    "commit": "count = t.count + 1",
    "entry": "posted_minor = 666, posted_after_minor = 666",
    "idempotency_key": "fingerprint = sha256(t.fingerprint), object_id = gen_random_uuid()",
    "journal": "reference = 'poison', postings = jsonb_set(t.postings, '{0,amount}', '666')",
    "metadata_item": "id = gen_random_uuid()",
    "reference": "journal_id = gen_random_uuid()",
    "reversal": "reversal_id = gen_random_uuid()",
}

KEY = {"name": "rolled", "scopes": ["*"]}
MADE = {"reference": "made", "asset": "USD"}

CONTENTS = """
SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text))
  FROM picopay.{} AS t WHERE ledger_id = $1
"""


async def make_twin(url: DatabaseUrl, ledger: UUID) -> UUID:
    """Copy a ledger, and poison the copy."""
    twin = UUID(int=7)  # first in every index: who takes one row too many takes it first

    async def work(owner: "asyncpg.Connection[Any]") -> None:
        await owner.execute(
            "INSERT INTO picopay.ledger (ledger_id, name, created_at) VALUES ($1, 'twin', now())",
            twin,
        )
        for table, poison in POISON.items():
            changed = dict(re.findall(r"(\w+) = (.+?)(?=, \w+ = |$)", poison))
            columns = tables.metadata.tables[f"picopay.{table}"].columns.keys()
            values = ["$1", *(changed.get(name, f"t.{name}") for name in columns[1:])]
            await owner.execute(
                f"INSERT INTO picopay.{table} ({', '.join(columns)})"
                f" SELECT {', '.join(values)} FROM picopay.{table} AS t WHERE ledger_id = $2",
                twin,
                ledger,
            )

    await on_connection(url, work)
    return twin


async def contents(url: DatabaseUrl, ledger: UUID) -> dict[str, tuple[int, str]]:
    return {table: tuple((await rows(url, CONTENTS.format(table), ledger))[0]) for table in POISON}


def reads(seeded: Seeded) -> list[str]:
    """Return the path of every way to read."""
    account, payment = seeded.accounts[0]["id"], seeded.payments[0]["id"]
    reversal = next(row for row in seeded.transactions if row["reverses"])
    at = "2100-01-01T00:00:00Z"
    return [
        *(
            "/v1/accounts/@world",
            "/v1/accounts",
            "/v1/accounts?asset=USD",
            "/v1/accounts?reference=a1",
        ),
        *("/v1/accounts?metadata[tier]=gold", f"/v1/accounts/{account}", "/v1/accounts/@a1"),
        *("/v1/accounts/@a1/balance", f"/v1/accounts/@a1/balance?at={at}"),
        *("/v1/accounts/@a3/entries", "/v1/accounts/@a3/entries?format=csv"),
        "/v1/accounts/@a3/entries?format=ndjson",
        *("/v1/payments", "/v1/payments?account=@a1", "/v1/payments?status=refunded"),
        *("/v1/payments?reference=ref-3", f"/v1/payments/{payment}"),
        *("/v1/payments?idempotency_key=key-7", "/v1/payments?metadata[tier]=gold"),
        *(
            "/v1/transactions",
            "/v1/transactions?account=@a3",
            "/v1/transactions?reference=tx-ref-3",
        ),
        *("/v1/transactions?metadata[tier]=gold", "/v1/transactions?idempotency_key=tx-key-7"),
        *(f"/v1/transactions/{reversal['id']}", f"/v1/transactions/{reversal['reverses']}"),
        *("/v1/events?limit=100", "/v1/events?after=100&limit=100", "/v1/audit", "/v1/api_keys"),
    ]


async def read_all(client: httpx.AsyncClient, paths: list[str]) -> dict[str, tuple[int, str]]:
    found = {}
    for path in paths:
        answer = await client.get(path)
        found[path] = (answer.status_code, answer.text)
    return found


async def write_all(api: Api, client: httpx.AsyncClient, seeded: Seeded, api_key: str) -> list[int]:
    """Use every operation that writes; return the statuses."""

    async def post(path: str, body: Any, key: str | None = None) -> httpx.Response:
        return await client.post(
            path, json=body, headers={"Idempotency-Key": key or f"late-{api.fresh_key()}"}
        )

    usd = {"asset": "USD", "amount": 1}
    there = {"source": "@world", "destination": "@a3", **usd}
    unreversed = next(
        row for row in seeded.transactions if not (row["reverses"] or row["reversed_by"])
    )
    by_id = next(row["id"] for row in seeded.accounts if row["reference"] == "a3")
    fresh = {"reference": "fresh", "asset": "USD", "metadata": {"tier": "gold"}}
    answers = [
        await post("/v1/payments", {**there, "reference": "once"}),
        await post("/v1/payments", {**there, "reference": "ref-3"}),  # taken
        await post("/v1/payments", there, SHARED_KEY),  # used for something else
        await post("/v1/transactions", {"postings": [there | {"destination": by_id}]}),
        await post(f"/v1/transactions/{unreversed['id']}/reverse", {}),
        await post(f"/v1/transactions/{unreversed['id']}/reverse", {}),  # reversed already
        await post("/v1/accounts", fresh),
        await post("/v1/accounts", MADE, "made"),  # a replay
        await client.patch("/v1/accounts/@a1", json={"metadata": {"tier": "tin"}}),
        await client.post("/v1/accounts/@a1/freeze"),
        await client.post("/v1/accounts/@a1/unfreeze"),
        await client.post("/v1/accounts/@fresh/close"),
        await client.post(f"/v1/api_keys/{api_key}/roll", json={}),
        await client.post(f"/v1/api_keys/{api_key}/revoke"),
    ]
    return [answer.status_code for answer in answers]


@asynccontextmanager
async def asking(api: Api, headers: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=30) as client:
        yield client


async def test_a_ledger_notices_nothing_of_its_twin(database_url: DatabaseUrl) -> None:
    async with served(database_url, commit_connections=1) as api:
        seeded = await seed(api)
        key = (await api.client.post("/v1/api_keys", json=KEY)).json()["id"]
        assert (await api.post("/v1/accounts", MADE, "made")).status_code == 201
        assert (await api.pay("@world", "@a3", 1)).status_code == 201
        while (await Sealer(api.engine.database).seal(seeded.ledger)).events:
            pass
        paths = reads(seeded)
        alone = await read_all(api.client, paths)
        assert [path for path, (status, _) in alone.items() if status != 200] == []
        headers = as_key(await api.secret("*"))
        alone["/v1/api_keys"] = (200, (await api.client.get("/v1/api_keys")).text)
    twin = await make_twin(database_url, seeded.ledger)
    before = await contents(database_url, twin)
    assert all(count for count, _ in before.values()), before
    # Another process, which remembers nothing of the time without the twin.
    async with served(database_url) as api, asking(api, headers) as client:
        assert await read_all(client, paths) == alone
        statuses = await write_all(api, client, seeded, key)
        assert statuses == [201, 409, 422, 201, 201, 409, 201, 201, 200, 200, 200, 200, 201, 200]
        await Sealer(api.engine.database).seal(seeded.ledger)
        findings = await audit_everything(api.engine.database, lambda _: None)
        assert {finding.ledger for finding in findings} == {twin}
        # And the twin is no phantom: whoever has a key of it sees the poison.
        await api.engine.keys.create(twin, "twin", ["*"], secret="ppk_" + "7" * 64)
        async with asking(api, as_key("ppk_" + "7" * 64)) as other:
            assert '"poison"' in (await other.get("/v1/accounts/@a1")).text
            assert "666" in (await other.get("/v1/accounts/@a3/entries")).text
    after = await contents(database_url, twin)
    assert {table for table in POISON if after[table] != before[table]} == {"api_key"}


def test_the_twin_differs_in_every_table() -> None:
    of_ledgers = {table for table in TABLES if table not in {"ledger", "schema_version"}}
    assert of_ledgers - {"audit", "audit_finding"} == set(POISON)  # the auditor's own


STATEMENTS: tuple[ModuleType, ...] = (
    *(accounts, audit, events, idempotency, journal, keys, ledgers, partitions, seal),
)

ACROSS = {
    "audit.ALL_ACCOUNTS_OUT_OF_BOUNDS": "the quick check of all ledgers",
    "audit.ALL_FINDINGS": "the quick check of all ledgers",
    "audit.ALL_SUMS": "the quick check of all ledgers",
    "audit.ALL_UNKNOWN_LEDGERS": "looks for ledgers",
    "audit.COUNT_FINDINGS": "a metric of all ledgers",
    "audit.LEDGERS": "the auditor's round of all ledgers",
    "audit.NEWEST_COMMITS": "the quick check of all ledgers",
    "events.POSITIONS": "which clusters there were: no ledger's own",
    "keys.ANY_BY_HASH": "tells which ledger a secret is for, valid or not",
    "keys.BY_HASH": "tells which ledger a secret is for",
    "ledgers.BY_NAME": "for administrators",
    "ledgers.PAGE": "for administrators",
    "partitions.DEFAULT_ROWS": "a metric of all ledgers",
    "seal.ACTIVE": "which ledgers are to be sealed",
    "seal.CLUSTERS": "which clusters there were: no ledger's own",
    "seal.SNAPSHOT": "which commits are settled: no ledger's own",
    "seal.UNSEALED_LEDGERS": "the sealer's round of all ledgers",
}
"""Statements that do not go by one ledger, each with its reason. None answers a question of a tenant's."""

TABLES = tuple(name.removeprefix("picopay.") for name in tables.metadata.tables)
_TABLE = "|".join(TABLES)


def statements() -> dict[str, str]:
    """Return every statement of the store by its name."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": text
        for module in STATEMENTS
        for name, text in vars(module).items()
        if isinstance(text, str) and re.search(rf"picopay\.({_TABLE})", text)
        # Fragments of others.
        if not name.startswith("_") and name != "KNOWN_CLUSTERS"
    }


def scans(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """Return which tables a plan reads, each with the conditions by which it does."""
    conditions = (plan.get(name, "") for name in ("Index Cond", "Recheck Cond", "Filter"))
    found = []
    if "Relation Name" in plan and plan["Node Type"] != "ModifyTable":
        found.append((plan["Relation Name"], " ".join(conditions)))
    return found + [scan for part in plan.get("Plans", ()) for scan in scans(part)]


async def test_each_statement_reads_each_table_by_the_ledger(database_url: DatabaseUrl) -> None:
    wide = set()
    known = statements()
    assert len(known) > 60

    async def explain(owner: "asyncpg.Connection[Any]") -> None:
        await owner.execute("SET plan_cache_mode = force_generic_plan")
        for name, sql in known.items():
            given = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", sql))))
            asked = f"asked ({given})" if given else "asked"
            await owner.execute(f"PREPARE asked AS {sql}")
            (plan,) = json.loads(await owner.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {asked}"))
            await owner.execute("DEALLOCATE asked")
            read = scans(plan["Plan"])
            if any("ledger_id = " not in conditions for _, conditions in read):
                wide.add(name)

    await on_connection(database_url, explain)
    assert wide == set(ACROSS)


@pytest.mark.parametrize("name", sorted(statements()))
def test_what_is_written_is_of_the_ledger_that_was_given(name: str) -> None:
    for columns, values in re.findall(
        r"INSERT INTO picopay\.\w+ \((\w+).*?\)\s+(?:VALUES \(|SELECT )([\w.$]+)",
        statements()[name],
        re.DOTALL,
    ):
        assert columns == "ledger_id"
        assert values in {"$1", "ledger_id"}


def test_each_statement_of_the_arbiter_goes_by_its_ledger() -> None:
    sql = (CHECKOUT / "api/picopay_api/store/decide.sql").read_text(encoding="utf-8")
    body = re.sub("--.*", "", sql[sql.index("$decide$") :])
    read = re.findall(
        rf"(?:FROM|JOIN|UPDATE) picopay\.({_TABLE}) AS (\w+)(.*?)(?=;|$)", body, re.DOTALL
    )
    assert len(read) == body.count("picopay.") - body.count("INSERT INTO picopay.")
    for table, alias, rest in read:
        assert f"{alias}.ledger_id = p_ledger" in rest, table
    inserted = re.findall(r"INSERT INTO picopay\.\w+ \((\w+),.*?SELECT (\w+),", body, re.DOTALL)
    assert len(inserted) == body.count("INSERT INTO picopay.")
    assert set(inserted) == {("ledger_id", "p_ledger")}


def test_no_statement_is_anywhere_else() -> None:
    package = CHECKOUT / "api" / "picopay_api"
    others = [path for path in package.rglob("*.py") if package / "store" not in path.parents]
    strays = [
        path.name
        for path in others
        if re.search(rf"\b(FROM|JOIN|INTO|UPDATE) picopay\.({_TABLE})\b", path.read_text("utf-8"))
    ]
    assert strays == []
    modules = {
        path.stem
        for path in (package / "store").glob("*.py")
        if re.search(rf"(FROM|INTO|UPDATE) picopay\.({_TABLE})", path.read_text("utf-8"))
    } - {"migrate"}  # which asks for nothing of a ledger's
    assert modules == {one.__name__.rpartition(".")[2] for one in STATEMENTS}
