"""The directory: finds accounts by address, from memory for those seen before.

Asked for every posting. Keeps only what never changes about an account (id and asset), so that nothing
need ever be taken back; `store/decide.sql` judges the rest under its locks. Makes the account of the
outside world, `@world`, when an asset first needs one.
"""

from collections.abc import Iterable
from uuid import UUID

from picopay_api.engine.assets import exponent_of
from picopay_api.engine.ids import ACCOUNT, new_id, parse_id
from picopay_api.engine.ledger import Address, Found, FoundAccount
from picopay_api.errors import AccountNotFound
from picopay_api.store import accounts as statements
from picopay_api.store.database import Database

WORLD = "world"
"""The reference of the outside; stored as `world/ASSET`, one per asset."""

_OUTSIDE = f"@{WORLD}"
_NOBODY = UUID(int=0)
_REMEMBERED_MAX = 100_000
_FORGOTTEN_AT_ONCE = 10_000


def is_reserved(reference: str) -> bool:
    """Tell whether a reference belongs to the outside world."""
    return reference == WORLD or reference.startswith(f"{WORLD}/")


class Directory:
    """The accounts of all ledgers, as far as they have been asked for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[tuple[UUID, str], FoundAccount] = {}

    async def find(self, ledger: UUID, addresses: Iterable[Address]) -> Found:
        """Find accounts; those that do not exist are absent from the answer.

        An address in a posting comes with its asset, which tells the outside accounts apart.

        Raises:
            AssetUnknown: the outside was asked for with an asset that is none.
            DatabaseUnavailable: the directory does not know and cannot ask.
        """
        found: dict[Address, FoundAccount] = {}
        missing: list[Address] = []
        known = self._known
        for address in addresses:
            account = known.get((ledger, _name(address)))
            if account is None:
                missing.append(address)
            else:
                found[address] = account
        if missing:
            await self._load(ledger, {_name(address) for address in missing})
            for address in missing:
                account = self._known.get((ledger, _name(address)))
                if account is None and _name(address) == f"@{WORLD}":
                    account = await self._only_outside(ledger)
                if account is not None:
                    found[address] = account
            for address in missing:
                if address not in found and address[1] is not None and _is_outside(address):
                    found[address] = await self._outside(ledger, address[1], found)
        return found

    async def one(self, ledger: UUID, address: str) -> FoundAccount:
        """Find one account by its address.

        Raises:
            AccountNotFound: there is none.
        """
        found = await self.find(ledger, [(address, None)])
        if (address, None) not in found:
            raise AccountNotFound(f"there is no account {address} in this ledger")
        return found[address, None]

    async def _load(self, ledger: UUID, names: set[str]) -> None:
        references = [name[1:] for name in names if name.startswith("@")]
        ids = [id for name in names if (id := parse_id(ACCOUNT, name)) is not None]
        if not references and not ids:
            return
        for row in await self._database.rows(statements.FIND, ledger, references, ids):
            account = FoundAccount(row["id"], row["asset"])
            if row["reference"] is None:
                self._remember(ledger, ACCOUNT + account.id.hex, account)
            else:
                self._remember(ledger, f"@{row['reference']}", account)

    async def _outside(self, ledger: UUID, asset: str, found: Found) -> FoundAccount:
        """Make the outside of an asset, if anything that was found can be paid from it or to it.

        Otherwise the request is about to be refused for its other accounts, and nothing is made: a
        ledger has an outside only for assets that it holds.
        """
        exponent_of(asset)
        if all(account.asset != asset for account in found.values()):
            return FoundAccount(_NOBODY, asset)
        reference = f"{WORLD}/{asset}"
        async with self._database.transaction() as connection:
            await connection.fetchval(
                statements.MAKE, ledger, new_id(), reference, "{}", asset, None
            )
        await self._load(ledger, {f"@{reference}"})
        return self._known[ledger, f"@{reference}"]

    async def _only_outside(self, ledger: UUID) -> FoundAccount | None:
        rows = await self._database.rows(statements.OUTSIDE, ledger)
        return FoundAccount(rows[0]["id"], rows[0]["asset"]) if len(rows) == 1 else None

    def _remember(self, ledger: UUID, name: str, account: FoundAccount) -> None:
        if len(self._known) >= _REMEMBERED_MAX:
            for oldest in list(self._known)[:_FORGOTTEN_AT_ONCE]:
                del self._known[oldest]
        self._known[ledger, name] = account


def _name(address: Address) -> str:
    """Return what an address is remembered by: `@world` in a posting becomes `@world/ASSET`."""
    text, asset = address
    return f"{_OUTSIDE}/{asset}" if text == _OUTSIDE and asset is not None else text


def _is_outside(address: Address) -> bool:
    return _name(address) == f"@{WORLD}/{address[1]}"
