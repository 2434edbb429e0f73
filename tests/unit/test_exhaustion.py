"""What is counted does not run out: the arithmetic behind `docs/explanation/long-life.md`.

Each number that grows has a type, a rate that no installation keeps up, and the years that it then lasts.
"""

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from sqlalchemy import BigInteger, Column, Integer, SmallInteger

from picopay_api.engine.ids import first_id_at, new_id
from picopay_api.engine.ledger import AMOUNT_MAX_MINOR, BALANCE_MAX_MINOR, MOVED_MAX_MINOR
from picopay_api.settings import Settings
from picopay_api.store import audit, tables
from picopay_api.store.tables import Xid8
from picopay_api.worker.sealer import BLOCK_ROWS_MAX
from support.postgres import CHECKOUT

PAGE = CHECKOUT / "docs" / "explanation" / "long-life.md"
BIGINT_MAX = 2**63 - 1
INTEGER_MAX = 2**31 - 1
YEAR_S = 365.25 * 86_400
TABLE_BYTES_MAX = 2**32 * 8_192  # PostgreSQL counts pages of 8 KiB in 32 bits

GROWING = {
    "entry.sequence": (BIGINT_MAX, 100_000),  # entries of one account
    "block.first_position": (BIGINT_MAX, 1_000_000),  # payments of one ledger
    "block.height": (BIGINT_MAX, 10),  # seven rounds of the sealer a second
    "commit.xid": (2**64, 100_000),  # transactions of the whole cluster
}
"""Columns that count up for ever: the largest value, and steps per second."""


@pytest.mark.parametrize("name", GROWING)
def test_what_counts_up_lasts(name: str) -> None:
    table, column = name.split(".")
    largest, per_second = GROWING[name]
    kind = tables.metadata.tables[f"picopay.{table}"].columns[column].type
    assert isinstance(kind, Xid8 if largest == 2**64 else BigInteger)
    years = largest / per_second / YEAR_S
    assert years > 250_000
    shown = f"{years / 1e6:.1f} million" if years < 1e9 else f"{years / 1e9:.0f} billion"
    assert f"| `{name}` | {per_second:,} | {shown} years |" in PAGE.read_text(encoding="utf-8")


def columns() -> list[Column[object]]:
    return [column for table in tables.metadata.tables.values() for column in table.columns]


def test_there_is_no_sequence_to_run_out() -> None:
    assert [str(column) for column in columns() if column.identity or column.default] == []
    # SQLAlchemy makes a sequence of a sole integer key, unless the key has a default.
    assert [str(column) for column in columns() if "nextval" in str(column.server_default)] == []
    (only,) = [
        str(column)
        for column in columns()
        if column.primary_key
        and isinstance(column.type, Integer)
        and len(column.table.primary_key) == 1
    ]
    assert only == "schema_version.one"


def test_what_is_smaller_than_a_bigint_is_bounded() -> None:
    small = {
        str(c)
        for c in columns()
        if isinstance(c.type, Integer) and not isinstance(c.type, BigInteger)
    }
    states = {str(column) for column in columns() if isinstance(column.type, SmallInteger)}
    assert small - states == {"commit.count", "block.count"}
    (bound,) = [
        meta.le
        for meta in get_args(Settings.__annotations__["batch_commands_max"])[1:]
        if meta.le is not None
    ]
    # A block is full before its last commit, which may be as large as a batch.
    assert bound + BLOCK_ROWS_MAX <= INTEGER_MAX // 1_000


def test_no_sum_on_the_way_to_a_decision_overflows() -> None:
    assert (
        BALANCE_MAX_MINOR + MOVED_MAX_MINOR <= BIGINT_MAX
    )  # a balance, and all of a command on top
    assert BALANCE_MAX_MINOR + BALANCE_MAX_MINOR <= BIGINT_MAX  # posted less held, less a floor
    assert AMOUNT_MAX_MINOR <= MOVED_MAX_MINOR


def test_the_sum_of_all_balances_fits_whatever_their_number() -> None:
    # PostgreSQL adds bigints up as numeric, of 131,072 digits; as text, nothing narrows it on the way.
    assert "sum(posted_minor)::text" in audit.SUMS
    accounts = 2**63
    assert len(str(accounts * BALANCE_MAX_MINOR)) < 131_072


def test_ids_carry_time_until_the_year_10889() -> None:
    assert new_id().version == 7
    last_ms = 2**48 - 1
    days = last_ms // 86_400_000
    # Beyond what Python can say: 400 years of the calendar always have 146,097 days.
    year = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days - 10 * 146_097)).year + 4_000
    assert year == 10_889
    assert first_id_at(datetime.max.replace(tzinfo=UTC)).int >> 80 < last_ms
    assert f"the year {year:,}".replace(",", "") in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("table", "row_bytes", "per_second"),
    [("reference", 77, 1_000), ("metadata_item", 85, 1_000), ("commit", 110, 300)],
)
def test_tables_that_are_not_partitioned_have_room(
    table: str, row_bytes: int, per_second: int
) -> None:
    """A day and night average; rows of short texts, as measured, at the full 32 TiB of a table."""
    assert not tables.metadata.tables[f"picopay.{table}"].dialect_options["postgresql"][
        "partition_by"
    ]
    years = TABLE_BYTES_MAX / row_bytes / per_second / YEAR_S
    text = PAGE.read_text(encoding="utf-8")
    assert f"| `{table}` | {row_bytes} | {per_second:,} | {years:.0f} |" in text
