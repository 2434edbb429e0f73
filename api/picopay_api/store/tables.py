"""The schema `picopay` as SQLAlchemy Core tables: the source that migrations are checked against.

Read by Alembic (`migrations/env.py`) and by the drift check; queries elsewhere are plain SQL over
asyncpg. Rules that hold for every table: the key begins with `ledger_id`, so that tenants stay apart
and the schema distributes by ledger; money is a `bigint` of minor units (`…_minor`); the tables of the
hot path carry no foreign keys, because they double the cost of a payment (`decide.sql` proves existence
and the auditor covers it).
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

SCHEMA = "picopay"

metadata = MetaData(
    schema=SCHEMA,
    naming_convention={"pk": "%(table_name)s_pkey", "ck": "%(table_name)s_%(constraint_name)s"},
)


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id, which does not wrap around."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the name of the type in DDL."""
        return "xid8"


ischema_names["xid8"] = Xid8  # so that the drift check recognises it in a database


KeyText = Text(collation="C")
"""Text within a key: compared by its bytes, so that no upgrade of the system's locales spoils an index and
ranges mean the same in every database."""


def _time(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _ledger() -> Column[Any]:
    return Column("ledger_id", Uuid, nullable=False)


ledger = Table(
    "ledger",
    metadata,
    _ledger(),
    Column("name", KeyText, nullable=False),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    _time("created_at"),
    PrimaryKeyConstraint("ledger_id"),
    UniqueConstraint("name", name="ledger_name_key"),
    comment="A tenant's isolated book.",
)

api_key = Table(
    "api_key",
    metadata,
    _ledger(),
    Column("id", Uuid, nullable=False),
    Column("hash", LargeBinary, nullable=False, comment="SHA-256 of the secret; never the secret"),
    Column("hint", Text, nullable=False, comment="the last four characters, for people"),
    Column("name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    _time("created_at"),
    _time("expires_at", nullable=True),
    Column(
        "retires_at",
        DateTime(timezone=True),
        comment="when the overlap with its successor ends, once it was rolled",
    ),
    _time("revoked_at", nullable=True),
    PrimaryKeyConstraint("ledger_id", "id"),
    UniqueConstraint("hash", name="api_key_hash_key"),
    comment="Who may ask. A key is valid until it expires, retires or is revoked.",
)

account = Table(
    "account",
    metadata,
    _ledger(),
    Column("id", Uuid, nullable=False),
    Column("reference", KeyText, comment="never changes and is never given to another account"),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    _time("created_at"),
    PrimaryKeyConstraint("ledger_id", "id"),
    UniqueConstraint("ledger_id", "reference", name="account_reference_key"),
    comment="What is described of an account; seldom written.",
)

balance = Table(
    "balance",
    metadata,
    _ledger(),
    Column("account_id", Uuid, nullable=False),
    Column("asset", KeyText, nullable=False),
    Column("state", SmallInteger, nullable=False, comment="0 open, 1 frozen, 2 closed"),
    Column("floor_minor", BigInteger, comment="lowest available balance; null: unbounded"),
    Column("posted_minor", BigInteger, nullable=False),
    Column("held_minor", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False, comment="number of entries so far"),
    _time("changed_at"),
    PrimaryKeyConstraint("ledger_id", "account_id"),
    CheckConstraint("posted_minor - held_minor >= floor_minor", name="floor"),
    CheckConstraint("held_minor >= 0", name="held"),
    CheckConstraint("state between 0 and 2", name="state"),
    Index("balance_asset", "ledger_id", "asset", "account_id"),
    postgresql_with={"fillfactor": 50},
    comment="The row that is locked: narrow, updated in place (HOT): no index on what changes.",
)

journal = Table(
    "journal",
    metadata,
    _ledger(),
    Column("id", Uuid, nullable=False, comment="UUIDv7: the partition and the order of lists"),
    Column("kind", SmallInteger, nullable=False, comment="1 payment, 2 transaction, 3 reversal"),
    Column("xid", Xid8, nullable=False, comment="the commit it came with"),
    Column("parent_id", Uuid, comment="what it reverses"),
    Column("reference", Text),
    Column("idempotency_key", Text),
    Column("postings", JSONB, nullable=False),
    Column("metadata", JSONB),
    _time("created_at"),
    PrimaryKeyConstraint("ledger_id", "id"),
    Index("journal_payment", "ledger_id", "id", postgresql_where=text("kind = 1")),
    postgresql_partition_by="RANGE (id)",
    comment="One immutable row per accepted command; the event feed reads it.",
)

entry = Table(
    "entry",
    metadata,
    _ledger(),
    Column("account_id", Uuid, nullable=False),
    _time("created_at"),
    Column("sequence", BigInteger, nullable=False, comment="dense per account, from 1"),
    Column("journal_id", Uuid, nullable=False),
    Column("posted_minor", BigInteger, nullable=False, comment="signed change of posted"),
    Column("held_minor", BigInteger, nullable=False, comment="signed change of held"),
    Column("posted_after_minor", BigInteger, nullable=False),
    Column("held_after_minor", BigInteger, nullable=False),
    PrimaryKeyConstraint("ledger_id", "account_id", "created_at", "sequence"),
    Index("entry_created_at_brin", "created_at", postgresql_using="brin"),
    postgresql_partition_by="RANGE (created_at)",
    comment="An account's side of a posting, immutable, with the balance after it.",
)

idempotency_key = Table(
    "idempotency_key",
    metadata,
    _ledger(),
    Column("key", KeyText, nullable=False),
    Column("operation", SmallInteger, nullable=False, comment="as journal.kind; 4 account"),
    Column("day", Date, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("outcome", Text, nullable=False, comment="ok, or the code of the refusal"),
    Column("object_id", Uuid, comment="what it made"),
    Column("detail", JSONB, comment="members of the refusal"),
    _time("created_at"),
    PrimaryKeyConstraint("ledger_id", "key", "operation", "day"),
    postgresql_partition_by="RANGE (day)",
    comment="Outcomes by key; forgotten by dropping the partition of ten days.",
)

reference = Table(
    "reference",
    metadata,
    _ledger(),
    Column("reference", KeyText, nullable=False),
    Column("journal_id", Uuid, nullable=False),
    PrimaryKeyConstraint("ledger_id", "reference"),
    comment="A reference names one journal row for ever.",
)

reversal = Table(
    "reversal",
    metadata,
    _ledger(),
    Column("original_id", Uuid, nullable=False),
    Column("reversal_id", Uuid, nullable=False),
    PrimaryKeyConstraint("ledger_id", "original_id"),
    comment="What has been reversed, at most once.",
)

metadata_item = Table(
    "metadata_item",
    metadata,
    _ledger(),
    Column("object", SmallInteger, nullable=False, comment="0 account, else journal.kind"),
    Column("key", KeyText, nullable=False),
    Column("value", KeyText, nullable=False),
    Column("id", Uuid, nullable=False),
    PrimaryKeyConstraint("ledger_id", "object", "key", "value", "id"),
    comment="The index behind metadata[key] filters.",
)

commit = Table(
    "commit",
    metadata,
    _ledger(),
    Column("cluster", BigInteger, nullable=False, comment="system identifier of the cluster"),
    Column("xid", Xid8, nullable=False),
    Column("first_id", Uuid, nullable=False),
    Column("last_id", Uuid, nullable=False),
    Column("count", Integer, nullable=False),
    _time("decided_at"),
    PrimaryKeyConstraint("ledger_id", "cluster", "xid"),
    Index("commit_xid", "cluster", "xid"),
    comment="One row per batch and ledger: what the sealer reads.",
)

block = Table(
    "block",
    metadata,
    _ledger(),
    Column("height", BigInteger, nullable=False),
    Column("cluster", BigInteger, nullable=False),
    Column("xid_from", Xid8, nullable=False, comment="inclusive"),
    Column("xid_to", Xid8, nullable=False, comment="exclusive"),
    Column("first_position", BigInteger, nullable=False),
    Column("count", Integer, nullable=False),
    Column("root", LargeBinary, nullable=False, comment="Merkle root of the rows"),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    _time("sealed_at"),
    PrimaryKeyConstraint("ledger_id", "height"),
    UniqueConstraint("ledger_id", "first_position", name="block_position_key"),
    UniqueConstraint("ledger_id", "cluster", "xid_from", name="block_xid_key"),
    comment="Sealed journal rows in their final order, chained by hash.",
)

audit = Table(
    "audit",
    metadata,
    _ledger(),
    Column("height", BigInteger, nullable=False, comment="blocks checked so far"),
    Column("position", BigInteger, nullable=False, comment="events checked so far"),
    Column("block_hash", LargeBinary, nullable=False, comment="hash of the last block checked"),
    Column("account_id", Uuid, comment="accounts checked so far in this round; null: start"),
    Column("sums", JSONB, nullable=False, comment="sum of all balances by asset: zeros"),
    _time("checked_at"),
    PrimaryKeyConstraint("ledger_id"),
    comment="Where the continuous auditor is.",
)

audit_finding = Table(
    "audit_finding",
    metadata,
    _ledger(),
    Column("kind", KeyText, nullable=False),
    Column(
        "subject", KeyText, nullable=False, comment="what it is about: an id, an asset, a height"
    ),
    Column("detail", Text, nullable=False),
    _time("found_at"),
    PrimaryKeyConstraint("ledger_id", "kind", "subject"),
    comment="What the auditor found wrong. Empty in a healthy ledger.",
)

schema_version = Table(
    "schema_version",
    metadata,
    Column("one", SmallInteger, nullable=False, server_default=text("1")),
    Column("min_compatible", Text, nullable=False, comment="oldest release head that may write"),
    Column("functions_digest", Text, nullable=False),
    PrimaryKeyConstraint("one"),
    CheckConstraint("one = 1", name="single"),
    comment="What a process must know of before it writes.",
)
