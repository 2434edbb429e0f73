"""What an asset may be called, and ids: made in order, shown and read back exactly."""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay_api.engine import ids
from picopay_api.engine.assets import exponent_of
from picopay_api.errors import AssetUnknown

# Assets.


@pytest.mark.parametrize(
    ("asset", "exponent"),
    [
        ("USD", 2),
        ("EUR", 2),
        ("JPY", 0),
        ("KWD", 3),
        ("CLF", 4),
        ("XAU", 0),  # gold has no minor unit
        ("BTC/8", 8),
        ("ETH/18", 18),
        ("POINTS/0", 0),
        ("A/1", 1),
        ("ABCDEFGHIJKLMNOP/2", 2),
        ("X2/10", 10),
    ],
)
def test_the_exponent_of_an_asset(asset: str, exponent: int) -> None:
    assert exponent_of(asset) == exponent


@pytest.mark.parametrize(
    "asset",
    [
        "",
        "usd",
        "Usd",
        "BTC",  # no currency of ISO 4217
        "XYZ",
        "USD/2",  # a currency has one name
        "JPY/0",
        "BTC/",
        "/8",
        "BTC/08",
        "BTC/19",
        "BTC/-1",
        "BTC/+8",
        "BTC/8.0",
        "BTC/8/8",
        "btc/8",
        "2X/8",
        "B-C/8",
        "BTC /8",
        " USD",
        "USD ",
        "USD\n",
        "BTC/8\n",
        "BTC/\u0668",  # a digit, but not one of ours
        "\uff35\uff33\uff24",  # wide letters
        "ABCDEFGHIJKLMNOPQ/2",
        "BTC/8\x00",
    ],
)
def test_what_is_no_asset(asset: str) -> None:
    with pytest.raises(AssetUnknown) as raised:
        exponent_of(asset)
    assert raised.value.members == {"asset": asset}


@given(
    st.text(max_size=24) | st.from_regex(r"[A-Z][A-Z0-9]{0,16}(/[0-9]{1,2})?\n?", fullmatch=True)
)
def test_an_asset_is_known_or_refused(asset: str) -> None:
    try:
        exponent = exponent_of(asset)
    except AssetUnknown:
        return
    assert 0 <= exponent <= 18
    code, slash, places = asset.partition("/")
    assert re.fullmatch("[A-Z][A-Z0-9]{0,15}", code)
    if slash:
        assert places == str(exponent)
        with pytest.raises(AssetUnknown):  # no asset has two names
            exponent_of(code)
    else:
        with pytest.raises(AssetUnknown):
            exponent_of(f"{code}/{exponent}")


# Ids.

PREFIXES = [ids.ACCOUNT, ids.PAYMENT, ids.TRANSACTION, ids.EVENT, ids.API_KEY, ids.LEDGER]
prefixes = st.sampled_from(PREFIXES)


def test_new_ids_rise_and_carry_the_time() -> None:
    before = datetime.now(UTC)
    made = [ids.new_id() for _ in range(5_000)]
    after = datetime.now(UTC)
    assert made == sorted(set(made))
    assert {(id.version, id.variant) for id in made} == {(7, "specified in RFC 4122")}
    moment = timedelta(seconds=1)
    assert (
        ids.first_id_at(before - moment) <= made[0] <= made[-1] <= ids.first_id_at(after + moment)
    )


@given(prefixes, st.uuids())
def test_an_id_is_read_back_as_it_is_shown(prefix: str, id: UUID) -> None:
    shown = ids.format_id(prefix, id)
    assert re.fullmatch(r"[a-z]+_[0-9a-f]{32}", shown)
    assert ids.parse_id(prefix, shown) == id
    for other in PREFIXES:
        assert (ids.parse_id(other, shown) is not None) == (other == prefix)


@given(
    prefixes, st.text() | st.from_regex(r"(pay|tx|acct)_[0-9a-fA-F\-{} ]{30,36}\n?", fullmatch=True)
)
def test_what_is_read_as_an_id_is_exactly_how_it_is_shown(prefix: str, text: str) -> None:
    id = ids.parse_id(prefix, text)
    assert id is None or ids.format_id(prefix, id) == text


@pytest.mark.parametrize(
    "text",
    [
        "pay_" + "0" * 31,
        "pay_" + "0" * 33,
        "pay_" + "A" * 32,
        "pay_" + "0" * 32 + "\n",
        "PAY_" + "0" * 32,
        "0" * 32,
        "pay_00000000-0000-0000-0000-000000000000",
        "pay_" + "\u0660" * 32,
        "",
    ],
)
def test_what_is_no_id(text: str) -> None:
    assert ids.parse_id(ids.PAYMENT, text) is None


times = st.datetimes(
    datetime(1970, 1, 1),  # noqa: DTZ001  # the strategy adds the zone
    datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@given(times)
def test_the_first_id_of_a_millisecond(moment: datetime) -> None:
    first = ids.first_id_at(moment)
    milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert first.int == milliseconds << 80
    assert ids.first_id_at(moment + timedelta(milliseconds=1)) > first


@given(times, times)
def test_ids_have_the_order_of_time(one: datetime, other: datetime) -> None:
    assert (one <= other) <= (ids.first_id_at(one) <= ids.first_id_at(other))


@given(st.datetimes(timezones=st.timezones()))
def test_every_time_has_an_id(moment: datetime) -> None:
    """Times before 1970 have the smallest: there are no ids of theirs."""
    assert UUID(int=0) <= ids.first_id_at(moment) < ids.LARGEST_ID
