"""`picopay keys ensure`: the key of a given secret is valid however often it is done."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from picopay_api.cli.exits import ExitCode
from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.engine import Engine
from picopay_api.engine.keys import ADMIN, Keys, new_secret
from picopay_api.errors import ApiKeyInvalid
from picopay_api.settings import Settings
from support.console import Console
from support.journal import opened
from support.sql import execute, rows, value

ENSURE = ("keys", "ensure", "administrator", "--scope", "admin", "--direct")


@pytest.fixture
def console(
    capsys: pytest.CaptureFixture[str],
    database_url: DatabaseUrl,
    monkeypatch: pytest.MonkeyPatch,
) -> Console:
    monkeypatch.setenv("DATABASE_URL", database_url.text)
    return Console(capsys)


def kept(path: Path, secret: str | None = None) -> tuple[str, Path]:
    """Write a secret to a file, as Kubernetes mounts it; return both."""
    secret = secret or new_secret()
    path.write_text(secret, encoding="utf-8")
    return secret, path


async def ends_at(url: DatabaseUrl, secret: str) -> datetime | None:
    """Return when a key ends, None for never.

    Raises:
        ApiKeyInvalid: it is not valid, to a process that sees it for the first time.
    """
    async with opened(url) as database:
        return (await Keys(database).authenticate(secret)).expires_at


def ensure(console: Console, current: Path, *more: str) -> Any:
    return console.json(*ENSURE, "--secret-file", str(current), *more)


def refuse(console: Console, current: Path, *more: str) -> dict[str, Any]:
    return console.refusal(*ENSURE, "--secret-file", str(current), *more)


def test_the_ledger_and_the_key_are_made_once(
    console: Console, database_url: DatabaseUrl, tmp_path: Path
) -> None:
    secret, file = kept(tmp_path / "api-key")
    made = ensure(console, file)
    assert (made["name"], made["scopes"]) == ("administrator", ["admin"])
    assert (made["hint"], made["expires_at"]) == (secret[-4:], None)
    assert secret not in str(made)
    assert console.json("ledgers", "get", "main", "--direct")["id"] == made["ledger"]
    assert asyncio.run(ends_at(database_url, secret)) is None
    file.write_text(f"{secret}\n", encoding="utf-8")
    assert ensure(console, file) == made
    assert len(console.json("keys", "list", "--direct")["data"]) == 1
    assert ensure(console, kept(tmp_path / "other")[1], "--ledger", made["ledger"]) != made


def test_a_ledger_of_another_name_is_made_and_one_of_an_id_is_not(
    console: Console, tmp_path: Path
) -> None:
    _, file = kept(tmp_path / "api-key")
    made = ensure(console, file, "--ledger", "shop")
    assert console.json("ledgers", "get", "shop", "--direct")["id"] == made["ledger"]
    refusal = refuse(console, kept(tmp_path / "other")[1], "--ledger", f"ldg_{0:032x}")
    assert refusal["code"] == "ledger_not_found"


def test_the_key_that_is_replaced_ends_after_the_overlap_and_never_later(
    console: Console, database_url: DatabaseUrl, tmp_path: Path
) -> None:
    before, old = kept(tmp_path / "previous-api-key")
    after, new = kept(tmp_path / "api-key")
    ensure(console, old)
    rotate = ("--previous-secret-file", str(old), "--overlap-s")
    began = datetime.now(UTC)
    ensure(console, new, *rotate, "3600")
    end = asyncio.run(ends_at(database_url, before))
    assert end is not None
    assert began + timedelta(hours=1) <= end <= datetime.now(UTC) + timedelta(hours=1)
    assert asyncio.run(ends_at(database_url, after)) is None
    for overlap_s in ("3600", "2592000"):
        ensure(console, new, *rotate, overlap_s)
        assert asyncio.run(ends_at(database_url, before)) == end
    ensure(console, new, *rotate, "0")
    with pytest.raises(ApiKeyInvalid):
        asyncio.run(ends_at(database_url, before))
    ensure(console, new, *rotate, "3600")
    with pytest.raises(ApiKeyInvalid):
        asyncio.run(ends_at(database_url, before))
    assert asyncio.run(ends_at(database_url, after)) is None


def test_a_key_that_was_never_made_is_not_made_by_being_replaced(
    console: Console, database_url: DatabaseUrl, tmp_path: Path
) -> None:
    before, old = kept(tmp_path / "previous-api-key")
    after, new = kept(tmp_path / "api-key")
    ensure(console, new, "--previous-secret-file", str(old))
    assert asyncio.run(ends_at(database_url, after)) is None
    with pytest.raises(ApiKeyInvalid):
        asyncio.run(ends_at(database_url, before))


def test_a_key_that_ends_by_itself_is_not_given_more_time(
    console: Console, database_url: DatabaseUrl, tmp_path: Path
) -> None:
    before, old = kept(tmp_path / "previous-api-key")
    ensure(console, old)
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=5)
    asyncio.run(execute(database_url, "UPDATE picopay.api_key SET expires_at = $1", end))
    ensure(console, kept(tmp_path / "api-key")[1], "--previous-secret-file", str(old))
    assert asyncio.run(ends_at(database_url, before)) == end


@pytest.mark.parametrize("change", ["revoked_at = now()", "expires_at = now()"])
def test_a_key_that_has_ended_is_refused_and_the_previous_one_stays(
    console: Console, database_url: DatabaseUrl, tmp_path: Path, change: str
) -> None:
    before, old = kept(tmp_path / "previous-api-key")
    secret, file = kept(tmp_path / "api-key")
    ensure(console, file)
    asyncio.run(execute(database_url, f"UPDATE picopay.api_key SET {change}"))
    ensure(console, old)
    refusal = refuse(console, file, "--previous-secret-file", str(old), "--overlap-s", "0")
    assert (refusal["exit_code"], refusal["code"]) == (ExitCode.REFUSED, "api_key_inactive")
    assert "revoked or expired" in refusal["detail"]
    assert secret not in refusal["detail"]
    assert asyncio.run(ends_at(database_url, before)) is None


def test_the_secret_of_another_key_is_refused(console: Console, tmp_path: Path) -> None:
    _, file = kept(tmp_path / "api-key")
    ensure(console, file)
    for other in (("--ledger", "shop"), ("--scope", "payments:read")):
        assert refuse(console, file, *other)["code"] == "api_key_differs"
    assert ensure(console, file)["scopes"] == ["admin"]


@pytest.mark.parametrize(
    "content", ["", "\n", "guess-me", "ppk_123", f"ppk_{'A' * 64}", f"ppk_{'a' * 65}", "\x00\xff"]
)
def test_what_is_no_secret_is_refused_without_being_told(
    console: Console, database_url: DatabaseUrl, tmp_path: Path, content: str
) -> None:
    _, good = kept(tmp_path / "api-key")
    bad = tmp_path / "bad"
    bad.write_text(content, encoding="utf-8")
    for current, more in ((bad, ()), (good, ("--previous-secret-file", str(bad)))):
        refusal = refuse(console, current, *more)
        assert refusal["exit_code"] == ExitCode.CONFIGURATION
        assert refusal["code"] == "secret_malformed"
        assert not content.strip() or content not in refusal["detail"]
    assert asyncio.run(value(database_url, "SELECT count(*) FROM picopay.api_key")) == 0


def test_command_lines_that_make_no_sense(console: Console, tmp_path: Path) -> None:
    _, file = kept(tmp_path / "api-key")
    secret = ("--secret-file", str(file))
    without_direct = console.refusal(*ENSURE[:-1], *secret)
    assert without_direct["exit_code"] == ExitCode.USAGE
    itself = refuse(console, file, "--previous-secret-file", str(file))
    assert itself["exit_code"] == ExitCode.USAGE
    missing = refuse(console, tmp_path / "none")
    assert missing["exit_code"] == ExitCode.CONFIGURATION
    unknown = console.refusal("keys", "ensure", "x", "--scope", "all", "--direct", *secret)
    assert unknown["code"] == "invalid_request"


async def test_many_at_once_make_one_ledger_and_one_key(database_url: DatabaseUrl) -> None:
    secret = new_secret()

    async def once() -> object:
        async with Engine.open(Settings(database_url=database_url, pool_size=4)) as engine:
            ledger = await engine.ledgers.ensure("main")
            return (await engine.keys.ensure(ledger.id, "administrator", [ADMIN], secret)).id

    made = await asyncio.gather(*(once() for _ in range(8)))
    assert len(set(made)) == 1
    assert len(await rows(database_url, "SELECT FROM picopay.ledger")) == 1
    assert len(await rows(database_url, "SELECT FROM picopay.api_key")) == 1
    assert await ends_at(database_url, secret) is None
