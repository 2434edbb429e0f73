"""`picopay audit --quick`: money that does not add up now is found, without a look at all of history."""

import asyncio
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from picopay_api.cli.exits import ExitCode
from picopay_api.cli.report import BYTES_MAX
from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.commands import Posting
from picopay_api.store.database import Database
from picopay_api.worker import audit_quick
from picopay_api.worker.audit_quick import audit_quickly
from picopay_api.worker.auditor import Auditor
from picopay_api.worker.sealer import Sealer
from support.console import Console
from support.journal import Book, opened, tamper
from support.sql import contents, execute

TRANSACTIONS = 6


async def fill(database: Database) -> Book:
    """Make a ledger with some history, of which a part is sealed, and another one beside."""
    await (await Book.make(database)).account("EUR")
    book = await Book.make(database)
    alice, bob = await book.funded(), await book.account()
    paid = book.payment(alice, bob, 250)
    await book.decide(paid, book.payment(alice, bob, 50))
    await Sealer(database).seal(book.ledger)
    await book.decide(book.transaction(*(Posting(alice, bob, n, "USD") for n in (1, 2))))
    await book.decide(book.reversal(paid))
    await book.decide(book.payment(alice, bob, 7))
    return book


async def kinds(database: Database) -> set[str]:
    return {finding.kind for finding in (await audit_quickly(database)).findings}


async def test_a_healthy_database_has_no_findings(
    database: Database, database_url: DatabaseUrl
) -> None:
    assert (await audit_quickly(database)).findings == []
    await fill(database)
    before = await contents(database_url)
    found = await audit_quickly(database)
    assert found.findings == []
    # The other ledger has an outside account in USD, too, as every `Book`.
    assert found.checked == {
        "ledgers": 2,
        "assets": 3,
        "accounts": 5,
        "transactions": TRANSACTIONS,
    }
    assert await contents(database_url) == before


class Corruption(NamedTuple):
    """A change of what is stored, and the kind of finding that must come of it."""

    name: str
    kind: str
    sql: str


LAST = "(SELECT id FROM picopay.journal ORDER BY id DESC LIMIT 1)"

CORRUPTIONS = [
    Corruption(
        "money out of nothing",
        "asset_unbalanced",
        "UPDATE picopay.balance SET posted_minor = posted_minor + 1 WHERE posted_minor < 0",
    ),
    Corruption(
        "money moved from one account to another",
        "balance_differs",
        "UPDATE picopay.balance SET posted_minor = posted_minor"
        " + CASE WHEN posted_minor < 0 THEN 1 ELSE -1 END"
        " WHERE posted_minor < 0 OR posted_minor = (SELECT max(posted_minor) FROM picopay.balance)",
    ),
    Corruption(
        "below the floor",
        "floor_crossed",
        "ALTER TABLE picopay.balance DROP CONSTRAINT balance_floor;"
        "UPDATE picopay.balance SET posted_minor = -1 WHERE floor_minor = 0",
    ),
    Corruption(
        "as low as a number can be",
        "floor_crossed",
        "ALTER TABLE picopay.balance DROP CONSTRAINT balance_floor;"
        "UPDATE picopay.balance SET posted_minor = -9223372036854775808, held_minor = 1",
    ),
    Corruption(
        "held without a hold",
        "held_differs",
        "UPDATE picopay.balance SET held_minor = 1 WHERE posted_minor > 0",
    ),
    Corruption(
        "another asset",
        "asset_unbalanced",
        "UPDATE picopay.balance SET asset = 'EUR' WHERE posted_minor < 0",
    ),
    Corruption(
        "the last row deleted",
        "journal_incomplete",
        f"DELETE FROM picopay.journal WHERE id = {LAST}",
    ),
    Corruption(
        "the last amount changed",
        "entries_differ",
        "UPDATE picopay.journal SET postings = jsonb_set(postings, '{0,amount}', '1')"
        f" WHERE id = {LAST}",
    ),
    Corruption(
        "the last entries deleted",
        "entries_differ",
        f"DELETE FROM picopay.entry WHERE journal_id = {LAST}",
    ),
    Corruption(
        "a running balance",
        "running_balance_wrong",
        "UPDATE picopay.entry SET posted_after_minor = posted_after_minor + 1"
        f" WHERE journal_id = {LAST} AND posted_minor > 0",
    ),
    Corruption("a ledger taken off the list", "ledger_unknown", "DELETE FROM picopay.ledger"),
]


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)
async def test_corruption_is_found(
    database: Database, database_url: DatabaseUrl, corruption: Corruption
) -> None:
    await fill(database)
    await tamper(database_url, corruption.sql)
    assert corruption.kind in await kinds(database)


async def test_of_history_only_the_end_is_read(
    database: Database, database_url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_quick, "_COMMITS_MAX", 2)
    await fill(database)
    first = "(SELECT id FROM picopay.journal ORDER BY id LIMIT 1)"
    await tamper(database_url, f"DELETE FROM picopay.entry WHERE journal_id = {first}")
    found = await audit_quickly(database)
    assert (found.findings, found.checked["transactions"]) == ([], 2)
    monkeypatch.setattr(audit_quick, "_COMMITS_MAX", 500)
    monkeypatch.setattr(audit_quick, "_ROWS_MAX", 1)
    assert (await audit_quickly(database)).checked["transactions"] == 1
    monkeypatch.undo()
    assert "entries_differ" in await kinds(database)


async def test_what_the_continuous_auditor_has_found_counts(
    database: Database, database_url: DatabaseUrl
) -> None:
    book = await fill(database)
    await Sealer(database).step()
    change = "UPDATE picopay.block SET previous_hash = hash WHERE height = 1"
    await tamper(database_url, change)
    assert await kinds(database) == set()
    await Auditor(database, interval_s=0).check(book.ledger)
    (finding,) = (await audit_quickly(database)).findings
    assert (finding.ledger, finding.kind) == (book.ledger, "chain_broken")
    await execute(database_url, "DELETE FROM picopay.audit_finding")  # somebody has settled it
    assert await kinds(database) == set()


@pytest.fixture
def console(
    capsys: pytest.CaptureFixture[str],
    database_url: DatabaseUrl,
    monkeypatch: pytest.MonkeyPatch,
) -> Console:
    monkeypatch.setenv("DATABASE_URL", database_url.text)
    return Console(capsys)


async def filled(url: DatabaseUrl, accounts: int = 0) -> Book:
    async with opened(url) as database:
        book = await fill(database)
        for _ in range(accounts):
            await book.account()
        return book


def reported(console: Console, file: Path, exit_code: ExitCode) -> dict[str, Any]:
    ended, _ = console.run("audit", "--quick", "--report", str(file))
    text = file.read_bytes()
    report: dict[str, Any] = json.loads(text)
    assert ended == report["exit_code"] == exit_code, text
    assert report["ok"] is (exit_code == ExitCode.OK)
    assert len(text) <= BYTES_MAX
    return report


def test_the_command_and_its_report(
    console: Console, database_url: DatabaseUrl, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    book = asyncio.run(filled(database_url, accounts=50))
    checked = {"ledgers": 2, "assets": 3, "accounts": 55, "transactions": TRANSACTIONS}
    assert reported(console, file, ExitCode.OK) == {
        "ok": True,
        "exit_code": 0,
        "code": None,
        "detail": None,
        "findings": [],
        "checked": checked,
    }
    assert console.run("audit", "--quick") == (ExitCode.OK, "everything adds up\n")
    assert console.json("audit", "--quick") == {"findings": [], "checked": checked}
    asyncio.run(
        tamper(database_url, "UPDATE picopay.balance SET held_minor = 0, floor_minor = NULL")
    )
    asyncio.run(tamper(database_url, "UPDATE picopay.balance SET held_minor = 1"))
    told = console.json("audit", "--quick", exit_code=ExitCode.FAILED)
    assert len(told["findings"]) >= 55
    report = reported(console, file, ExitCode.FAILED)
    assert (report["code"], report["checked"]) == ("audit_findings", checked)
    assert 5 < len(report["findings"]) < len(told["findings"])
    assert report["findings"][0].keys() == told["findings"][0].keys()
    assert f"ldg_{book.ledger.hex}" in {finding["ledger"] for finding in report["findings"]}
    assert str(len(told["findings"])) in report["detail"]


def test_a_check_that_cannot_be_made_is_reported(
    console: Console, database_url: DatabaseUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.json"
    asyncio.run(execute(database_url, "DROP SCHEMA picopay CASCADE"))
    report = reported(console, file, ExitCode.SCHEMA)
    assert (report["code"], report["findings"], report["checked"]) == (
        "schema_out_of_range",
        [],
        {},
    )
    monkeypatch.setenv("DATABASE_URL", database_url.replace(ports=(1,)).text)
    assert reported(console, file, ExitCode.UNAVAILABLE)["code"] == "database_unavailable"
    monkeypatch.setenv("DATABASE_URL", "nothing")
    assert reported(console, file, ExitCode.CONFIGURATION)["code"] == "settings_invalid"
    assert console.refusal("audit", "--report", str(file))["exit_code"] == ExitCode.USAGE
