"""What `picopay up` begins with: made once, and healed when a crash left half of it."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from picopay_api.cli.bootstrap import LEDGER, SAMPLE_FUNDS_MINOR, bootstrap
from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.accounts import NewAccount
from picopay_api.engine.engine import Engine
from picopay_api.engine.keys import Keys, new_secret
from picopay_api.errors import ApiKeyInvalid
from picopay_api.settings import Settings


@pytest.fixture
async def engine(database_url: DatabaseUrl) -> AsyncIterator[Engine]:
    async with Engine.open(Settings(database_url=database_url)) as opened:
        yield opened


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "api_key"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()


async def assert_complete(engine: Engine, secret: str) -> None:
    (ledger,) = (await engine.ledgers.list(100)).data
    assert ledger.name == LEDGER
    # As a server does: this engine may remember that the key was not valid yet.
    principal = await Keys(engine.database).authenticate(secret)
    assert principal.is_admin
    assert principal.ledger == ledger.id
    for reference in ("@alice", "@bob"):
        found = await engine.accounts.balance(ledger.id, reference)
        assert found.balance.posted_minor == SAMPLE_FUNDS_MINOR
    outside = await engine.accounts.balance(ledger.id, "@world/USD")
    assert outside.balance.posted_minor == -2 * SAMPLE_FUNDS_MINOR


async def test_twice_is_as_good_as_once(engine: Engine, key_file: Path) -> None:
    secret = await bootstrap(engine, key_file)
    assert mode(key_file) == 0o600
    assert await bootstrap(engine, key_file) == secret
    await assert_complete(engine, secret)
    ledger = await engine.ledgers.find(LEDGER)
    assert len((await engine.keys.list(ledger.id, 100)).data) == 1


async def test_after_a_crash_behind_the_ledger(engine: Engine, key_file: Path) -> None:
    await engine.ledgers.create(LEDGER)
    await assert_complete(engine, await bootstrap(engine, key_file))


async def test_after_a_crash_between_account_and_funds(engine: Engine, key_file: Path) -> None:
    ledger = await engine.ledgers.create(LEDGER)
    await engine.accounts.create(ledger.id, NewAccount(asset="USD", reference="alice"))
    await assert_complete(engine, await bootstrap(engine, key_file))


async def test_after_a_crash_between_file_and_key(engine: Engine, key_file: Path) -> None:
    secret = new_secret()
    write(key_file, secret)
    assert await bootstrap(engine, key_file) == secret
    await assert_complete(engine, secret)


@pytest.mark.parametrize("content", ["", "\n", "guess-me", "ppk_123", "\x00\xff"])
async def test_a_file_without_a_key_gets_one(engine: Engine, key_file: Path, content: str) -> None:
    write(key_file, content)
    await assert_complete(engine, await bootstrap(engine, key_file))
    if content.strip():
        with pytest.raises(ApiKeyInvalid):
            await engine.keys.authenticate(content)


async def test_a_key_that_was_revoked_is_replaced(
    engine: Engine, key_file: Path, database_url: DatabaseUrl
) -> None:
    secret = await bootstrap(engine, key_file)
    ledger = await engine.ledgers.find(LEDGER)
    (key,) = (await engine.keys.list(ledger.id, 100)).data
    await engine.keys.revoke(ledger.id, key.id)
    async with Engine.open(Settings(database_url=database_url)) as restarted:
        other = await bootstrap(restarted, key_file)
        assert other != secret
        assert read(key_file) == other
        await assert_complete(restarted, other)


async def test_what_users_did_since_is_left_alone(engine: Engine, key_file: Path) -> None:
    await bootstrap(engine, key_file)
    ledger = await engine.ledgers.find(LEDGER)
    await engine.accounts.freeze(ledger.id, "@alice")
    await bootstrap(engine, key_file)
    assert (await engine.accounts.get(ledger.id, "@alice")).state == "frozen"
