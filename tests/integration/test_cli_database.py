"""Commands that work on the database itself: migrations, the schema, first ledgers and keys, the audit."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from picopay_api.cli.exits import ExitCode
from picopay_api.database_url import DatabaseUrl
from picopay_api.logs import Event
from picopay_api.worker.sealer import Sealer
from support.console import Console
from support.installation import environment
from support.journal import Book, opened, tamper


@pytest.fixture
def console(capsys: pytest.CaptureFixture[str]) -> Console:
    return Console(capsys)


@pytest.fixture
def migrated(database_url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch) -> DatabaseUrl:
    monkeypatch.setenv("DATABASE_URL", database_url.text)
    return database_url


def test_migrations_from_an_empty_database(
    empty_database_url: DatabaseUrl, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url.text)
    (first, *_) = console.json("migrate", "--plan")["steps"]
    assert first["revision"] == "0001"
    before = console.json("migrate", "--check", exit_code=ExitCode.SCHEMA)
    assert before["current"] is None
    assert console.json("schema", "info") == {
        "current": None,
        "head": before["head"],
        "min_compatible": before["min_compatible"],
    }
    refusal = console.refusal("ledgers", "list", "--direct")
    assert (refusal["exit_code"], refusal["code"]) == (ExitCode.SCHEMA, "schema_out_of_range")

    assert console.json("migrate")["current"] == before["head"]
    applied = [json.loads(line) for line in console.error.splitlines()]
    assert [line["revision"] for line in applied if line["event"] == Event.MIGRATION_APPLIED]
    assert console.json("migrate", "--check")["up_to_date"] is True
    assert console.json("migrate", "--plan")["steps"] == []
    assert console.json("migrate")["current"] == before["head"]
    assert console.error == ""
    assert console.json("schema", "info")["current"] == before["head"]
    assert console.refusal("migrate", "--to", "9999")["exit_code"] == ExitCode.SCHEMA


def test_the_schema_that_a_release_wants_is_known_without_a_database(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert console.json("schema", "info")["current"] is None
    assert console.run("schema", "info")[0] == ExitCode.OK
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    assert console.json("schema", "info", exit_code=ExitCode.UNAVAILABLE)["current"] is None


@pytest.mark.parametrize(
    "arguments", [["ledgers", "list", "--direct"], ["audit"], ["migrate"], ["migrate", "--plan"]]
)
def test_a_database_that_is_away(
    arguments: list[str], console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    refusal = console.refusal(*arguments)
    assert refusal["exit_code"] == ExitCode.UNAVAILABLE
    assert refusal["code"] == "database_unavailable"
    assert console.run(*arguments)[0] == ExitCode.UNAVAILABLE
    assert "DATABASE_URL" in console.error


@pytest.mark.parametrize("arguments", [["serve"], ["worker"], ["migrate"], ["audit"]])
def test_wrong_settings_are_told_all_at_once(
    arguments: list[str], console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("PICOPAY_POOL_SIZE", "many")
    exit_code, out = console.run(*arguments)
    assert (exit_code, out) == (ExitCode.CONFIGURATION, "")
    assert "DATABASE_URL is required" in console.error
    assert "PICOPAY_POOL_SIZE" in console.error


@pytest.mark.usefixtures("migrated")
def test_the_first_ledger_and_key_of_a_database(console: Console) -> None:
    ledger = console.json("ledgers", "create", "main", "--direct", "-m", "country=DE")
    assert ledger["metadata"] == {"country": "DE"}
    assert console.json("ledgers", "list", "--direct")["data"] == [ledger]
    assert console.json("ledgers", "get", "main", "--direct") == ledger
    assert console.json("ledgers", "get", ledger["id"], "--direct") == ledger
    key = console.json("keys", "create", "first", "--scope", "admin", "--direct")
    assert key["ledger"] == ledger["id"]
    assert key["secret"].startswith("ppk_")
    (listed,) = console.json("keys", "list", "--direct")["data"]
    assert listed == {name: value for name, value in key.items() if name != "secret"}
    rolled = console.json("keys", "roll", key["id"], "--overlap", "0", "--direct")
    assert rolled["scopes"] == ["admin"]
    revoked = console.json("keys", "revoke", rolled["id"], "--direct", "--ledger", "main")
    assert revoked["revoked_at"] is not None

    refusals = {
        ("ledgers", "create", "main"): "ledger_name_taken",
        ("ledgers", "get", "other"): "ledger_not_found",
        ("keys", "list", "--ledger", "other"): "ledger_not_found",
        ("keys", "revoke", f"key_{0:032x}"): "api_key_not_found",
        ("keys", "roll", rolled["id"]): "api_key_inactive",
        ("keys", "create", "x", "--scope", "everything"): "invalid_request",
    }
    for arguments, code in refusals.items():
        assert console.refusal(*arguments, "--direct")["code"] == code
    assert console.run("keys", "revoke", "acct_1", "--direct")[0] == ExitCode.USAGE
    late = ("keys", "create", "x", "--scope", "*", "--expires-at", "tomorrow", "--direct")
    assert console.run(*late)[0] == ExitCode.USAGE


@pytest.mark.usefixtures("migrated")
def test_people_get_tables(console: Console) -> None:
    assert console.run("ledgers", "list", "--direct") == (ExitCode.OK, "")
    assert "no ledgers" in console.error
    console.run("ledgers", "create", "main", "--direct")
    exit_code, table = console.run("ledgers", "list", "--direct")
    assert exit_code == ExitCode.OK
    assert table.splitlines()[0].split() == ["id", "name", "metadata", "created_at"]
    assert "main" in table
    made = console.run("keys", "create", "first", "--scope", "*", "--direct")
    assert "ppk_" in made[1]
    assert "this once" in console.error
    assert console.run("ledgers", "get", "other", "--direct")[0] == ExitCode.REFUSED
    assert console.error.startswith("error: ")
    assert "(ledger_not_found)" in console.error


def test_a_command_in_a_process_of_its_own(database_url: DatabaseUrl) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "picopay_api", "migrate", "--check", "--json"],
        env=environment() | {"DATABASE_URL": database_url.text},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(ended.stdout)["up_to_date"] is True
    assert ended.stderr == ""


async def one_sealed_payment(url: DatabaseUrl) -> tuple[str, str]:
    """Make a ledger in which one payment is sealed; return the ledger's name and the payment."""
    async with opened(url) as database:
        book = await Book.make(database)
        alice, bob = await book.funded(), await book.account()
        (payment,) = await book.decide(book.payment(alice, bob, 1_250))
        await Sealer(database).step()
        return book.ledger.hex, f"pay_{payment.hex}"


def test_the_audit_finds_what_was_spoilt(migrated: DatabaseUrl, console: Console) -> None:
    asyncio.run(one_sealed_payment(migrated))
    assert console.json("audit") == {"findings": []}
    assert console.run("audit") == (ExitCode.OK, "everything adds up\n")
    asyncio.run(tamper(migrated, "UPDATE picopay.balance SET posted_minor = posted_minor + 1"))
    findings = console.json("audit", exit_code=ExitCode.FAILED)["findings"]
    assert {"ledger", "kind", "subject", "detail", "found_at"} == findings[0].keys()
    exit_code, table = console.run("audit")
    assert exit_code == ExitCode.FAILED
    assert findings[0]["kind"] in table
    assert "finding(s)" in console.error


def test_a_proof_is_verified_without_the_database(
    migrated: DatabaseUrl, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, payment = asyncio.run(one_sealed_payment(migrated))
    exit_code, text = console.run("audit", "prove", payment, "--ledger", ledger)
    assert exit_code == ExitCode.OK
    trusted = json.loads(text)["block_hash"]
    monkeypatch.delenv("DATABASE_URL")
    proof = tmp_path / "proof.json"
    proof.write_text(text, encoding="utf-8")
    verified = console.json("audit", "verify", str(proof), "--hash", trusted)
    assert verified["document"]["postings"][0]["amount"] == "1250"
    assert console.run("audit", "verify", str(proof), "--hash", trusted)[0] == ExitCode.OK
    refusal = console.refusal("audit", "verify", str(proof), "--hash", "00" * 32)
    assert (refusal["exit_code"], refusal["code"]) == (ExitCode.FAILED, "proof_invalid")
    proof.write_text(text.replace("1250", "9250"), encoding="utf-8")
    assert console.run("audit", "verify", str(proof), "--hash", trusted)[0] == ExitCode.FAILED
    assert console.run("audit", "verify", str(proof), "--hash", "xyz")[0] == ExitCode.USAGE


def test_no_proof_of_what_is_not_there(
    migrated: DatabaseUrl, console: Console, tmp_path: Path
) -> None:
    ledger, _ = asyncio.run(one_sealed_payment(migrated))
    absent = ("audit", "prove", f"pay_{0:032x}")
    assert console.run(*absent, "--ledger", ledger)[0] == ExitCode.REFUSED
    assert console.run(*absent)[0] == ExitCode.REFUSED
    missing = str(tmp_path / "none.json")
    assert console.run("audit", "verify", missing, "--hash", "00")[0] == ExitCode.CONFIGURATION
