"""What a fresh `picopay up` has to begin with: a ledger, an administrator's key, two funded accounts.

Run at every start of `up`, before it serves. Each step looks first whether it was done, and is done
whole or not at all, so that a crash anywhere is healed by the next start and nothing is made twice.
What users changed since then is left alone.
"""

import os
from pathlib import Path
from uuid import UUID

from picopay_api.engine.accounts import NewAccount
from picopay_api.engine.commands import PostingRequest, Transact
from picopay_api.engine.engine import Engine
from picopay_api.engine.journal import JournalFilter
from picopay_api.engine.keys import ADMIN, is_secret, new_secret
from picopay_api.errors import ApiKeyInactive, ReferenceTaken

LEDGER = "main"
SAMPLE_ACCOUNTS = ("alice", "bob")
SAMPLE_ASSET = "USD"
SAMPLE_FUNDS_MINOR = 100_000

_FUNDING = "sample-funds"
"""Reference and idempotency key of the transaction that funds the sample accounts."""


async def bootstrap(engine: Engine, key_file: Path) -> str:
    """Make what is missing and return the secret of the administrator's key, kept in `key_file`."""
    ledger = (await engine.ledgers.ensure(LEDGER)).id
    await _fund_sample_accounts(engine, ledger)
    return await _administrator_key(engine, ledger, key_file)


async def _administrator_key(engine: Engine, ledger: UUID, key_file: Path) -> str:
    """Return a valid key. It is in its file before it is valid: a crash in between loses nothing."""
    secret = _read_secret(key_file) or _write_secret(key_file)
    try:
        await engine.keys.ensure(ledger, "administrator", [ADMIN], secret)
    except ApiKeyInactive:  # somebody revoked it or let it expire
        secret = _write_secret(key_file)
        await engine.keys.ensure(ledger, "administrator", [ADMIN], secret)
    return secret


def _read_secret(key_file: Path) -> str | None:
    try:
        secret = key_file.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None
    return secret if is_secret(secret) else None


def _write_secret(key_file: Path) -> str:
    """Put a new secret in place, in one step and for our own user alone."""
    secret = new_secret()
    working = key_file.with_suffix(".new")
    working.unlink(missing_ok=True)
    working.touch(mode=0o600)
    with working.open("w", encoding="ascii") as file:
        file.write(f"{secret}\n")
        file.flush()
        os.fsync(file.fileno())
    working.replace(key_file)
    return secret


async def _fund_sample_accounts(engine: Engine, ledger: UUID) -> None:
    funded = JournalFilter(reference=_FUNDING)
    if (await engine.transactions.list(ledger, funded, 1)).data:
        return
    for reference in SAMPLE_ACCOUNTS:
        try:
            await engine.accounts.create(
                ledger, NewAccount(asset=SAMPLE_ASSET, reference=reference)
            )
        except ReferenceTaken:
            continue  # made before a crash
    postings = tuple(
        PostingRequest(
            source="@world",
            destination=f"@{reference}",
            amount_minor=SAMPLE_FUNDS_MINOR,
            asset=SAMPLE_ASSET,
        )
        for reference in SAMPLE_ACCOUNTS
    )
    await engine.transactions.create(
        ledger, Transact(postings=postings, reference=_FUNDING), _FUNDING
    )
