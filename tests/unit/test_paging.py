"""Pages put together are the whole list, once and in order; a cursor is of use to its own list only."""

import base64
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay_api.engine import paging
from picopay_api.engine.accounts import AccountFilter
from picopay_api.engine.ids import new_id
from picopay_api.engine.paging import (
    SCAN_MAX,
    Candidate,
    Page,
    Times,
    decode_cursor,
    encode_cursor,
    entries_from,
    entry_position,
    list_name,
    scan_page,
)
from picopay_api.errors import InvalidCursor

LEDGER = UUID(int=1)
NAME = list_name("numbers", LEDGER, None)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Index:
    """Numbers in descending order, and how much was read of them for the last page."""

    def __init__(self, size: int) -> None:
        self.numbers = range(size, 0, -1)
        self.read = 0

    async def scan(self, after: bytes | None, count: int) -> Sequence[Candidate[int]]:
        assert count >= 1
        begin = 0 if after is None else len(self.numbers) - int.from_bytes(after) + 1
        chunk = self.numbers[begin : begin + count]
        self.read += len(chunk)
        return [Candidate(number.to_bytes(16), number) for number in chunk]


async def pages(
    index: Index, matches: Callable[[int], bool], limits: Sequence[int]
) -> list[Page[int]]:
    """Read a list to its end; the pages take turns at the limits."""
    read: list[Page[int]] = []
    cursor: str | None = None
    while True:
        limit = limits[len(read) % len(limits)]
        index.read = 0
        page = await scan_page(index.scan, matches, limit, cursor, NAME)
        assert len(page.data) <= limit
        assert index.read <= SCAN_MAX + max(limit + 1, paging._CHUNK)
        read.append(page)
        cursor = page.next_cursor
        if cursor is None:
            return read
        assert len(read) <= len(index.numbers) + 1, "the list does not come to an end"


@given(
    size=st.integers(0, 3_000) | st.integers(0, 30),
    divisor=st.sampled_from([1, 2, 3, 7, 1_000, 5_000]),
    limits=st.lists(st.integers(1, 100), min_size=1, max_size=3),
)
async def test_pages_put_together_are_the_whole_list(
    size: int, divisor: int, limits: list[int]
) -> None:
    index = Index(size)

    def matches(number: int) -> bool:
        return number % divisor == 0

    read = await pages(index, matches, limits)
    assert [number for page in read for number in page.data] == list(filter(matches, index.numbers))


@given(size=st.integers(0, 300), limit=st.integers(1, 100))
async def test_pages_of_everything_are_full_and_none_is_empty(size: int, limit: int) -> None:
    """Without a filter a page is short only at the end, and the end is known in advance."""
    read = await pages(Index(size), lambda _: True, [limit])
    assert [len(page.data) for page in read[:-1]] == [limit] * (len(read) - 1)
    assert len(read) == max(1, -(-size // limit))


async def test_a_page_without_a_match_is_empty_and_has_a_successor() -> None:
    index = Index(SCAN_MAX * 3)
    page = await scan_page(index.scan, lambda number: number == 1, 20, None, NAME)
    assert page.data == []
    assert page.next_cursor is not None
    assert index.read < SCAN_MAX + 200


# Cursors.

positions = st.binary(min_size=16, max_size=16)
names = st.binary(min_size=8, max_size=8)


@given(names, positions)
def test_a_cursor_tells_its_position_to_its_own_list_only(name: bytes, position: bytes) -> None:
    cursor = encode_cursor(name, position)
    assert decode_cursor(name, cursor) == position
    with pytest.raises(InvalidCursor):
        decode_cursor(bytes(byte ^ 1 for byte in name), cursor)


FILTERS = [
    AccountFilter(),
    AccountFilter(reference="a"),
    AccountFilter(asset="USD"),
    AccountFilter(metadata={"a": "1"}),
    AccountFilter(metadata={"a": "2"}),
    AccountFilter(created_at=Times(gte=EPOCH)),
    AccountFilter(created_at=Times(gt=EPOCH)),
    AccountFilter(created_at=Times(lt=EPOCH)),
]


def test_every_list_has_a_name_of_its_own() -> None:
    lists = [
        list_name(resource, ledger, filters)
        for resource in ("accounts", "payments")
        for ledger in (LEDGER, UUID(int=2))
        for filters in FILTERS
    ]
    assert len(set(lists)) == len(lists)
    same = AccountFilter(metadata={"b": "2", "a": "1"})
    assert list_name("accounts", LEDGER, same) == list_name(
        "accounts", LEDGER, AccountFilter(metadata={"a": "1", "b": "2"})
    )


@given(
    st.text()
    | st.text("abcXYZ019-_+/=", min_size=30, max_size=34)
    | st.binary(max_size=40).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
)
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor(NAME, cursor)


@pytest.mark.parametrize(
    "cursor", ["", "\ud800", "%%%%", "A" * 32, "A" * 100_000, "é" * 32, "\x00"]
)
def test_what_is_certainly_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor(NAME, cursor)


# Places in a statement.

times = st.datetimes(timezones=st.timezones())
sequences = st.integers(1, 2**63 - 1)
LAST_MOMENT = datetime(9999, 12, 31, tzinfo=UTC)


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # the strategy adds the zone
    sequences,
)
def test_the_place_of_an_entry_is_read_back_to_the_millisecond(
    moment: datetime, sequence: int
) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1_000 * 1_000)
    position = entry_position(moment, sequence)
    assert len(position) == 16
    assert entries_from(Times(), position)[:2] == (moment, sequence)


@given(positions)
def test_a_forged_place_is_brought_into_range(position: bytes) -> None:
    moment, sequence, stop = entries_from(Times(), position)
    assert datetime(1, 1, 1, tzinfo=UTC) <= moment <= LAST_MOMENT
    assert 0 <= sequence <= 2**63 - 1
    assert stop == datetime(1, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("milliseconds", [-(2**63), 2**63 - 1, -1, 0, 253_402_300_800_000])
@pytest.mark.parametrize("sequence", [0, 2**63, 2**64 - 1])
def test_a_place_out_of_range_is_no_crash(milliseconds: int, sequence: int) -> None:
    entries_from(Times(), struct.pack(">qQ", milliseconds, sequence))


def test_a_statement_begins_at_its_latest_time_and_stops_at_its_earliest() -> None:
    low, high = EPOCH, EPOCH + timedelta(days=1)
    assert entries_from(Times(gte=low, lt=high), None) == (high, 2**63 - 1, low)
    position = entry_position(EPOCH + timedelta(hours=1), 5)
    assert entries_from(Times(gte=low, lt=high), position) == (EPOCH + timedelta(hours=1), 5, low)


# Filters by time.

bounds = st.none() | times
filters = st.builds(Times, gte=bounds, gt=bounds, lte=bounds, lt=bounds)


@given(filters, times)
def test_what_is_admitted_lies_in_the_range_that_is_read(within: Times, moment: datetime) -> None:
    low, high = within.moments()
    # East of Greenwich, the first hours of the first year are before the first moment.
    if within.admit(moment) and datetime(1, 1, 1, tzinfo=UTC) <= moment <= LAST_MOMENT:
        assert low <= moment <= high


@given(times)
def test_each_bound_is_what_it_says(moment: datetime) -> None:
    assert Times(gte=moment, lte=moment).admit(moment)
    assert not Times(gt=moment).admit(moment)
    assert not Times(lt=moment).admit(moment)
    assert Times().admit(moment)


@given(filters)
def test_any_bounds_make_a_range_of_ids(within: Times) -> None:
    low, high = within.ids()
    assert low.int >= 0
    assert high.int >= 0


@given(st.integers(-300_000, 300_000))
def test_the_range_of_ids_leaves_room_for_clocks_that_differ(difference_ms: int) -> None:
    """An id is made before the database tells the time, by a clock up to five minutes off."""
    id = new_id()
    made = EPOCH + timedelta(milliseconds=id.int >> 80)
    told = made + timedelta(milliseconds=difference_ms)
    for within in (Times(gte=told), Times(lte=told), Times(gte=told, lte=told)):
        low, high = within.ids()
        assert low <= id < high


def test_ranges_of_ids_are_as_tight_as_the_clocks_allow() -> None:
    noon = EPOCH + timedelta(days=9, hours=12)
    low, high = Times(gte=noon, lte=noon).ids()
    assert timedelta() < timedelta(milliseconds=(high.int - low.int) >> 80) < timedelta(minutes=11)
