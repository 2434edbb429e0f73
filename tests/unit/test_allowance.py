"""What an allowance allows: the burst, then its rate, whatever the order of asking and taking."""

from hypothesis import given
from hypothesis import strategies as st

from picopay_api.engine.allowance import Allowance


def test_a_burst_then_a_rate() -> None:
    allowance = Allowance(3, 2.0, 100.0)
    for _ in range(3):
        assert allowance.is_left(100.0)
        allowance.take()
    assert not allowance.is_left(100.4)
    assert allowance.is_left(100.5)
    allowance.take()
    assert not allowance.is_left(100.9)


def test_what_is_owed_has_an_end() -> None:
    allowance = Allowance(2, 1.0, 0.0)
    for _ in range(1_000):
        allowance.take()
    assert not allowance.is_left(2.9)
    assert allowance.is_left(3.0)


@given(st.lists(st.floats(0, 10), max_size=200))
def test_never_more_than_the_burst_and_the_rate(pauses_s: list[float]) -> None:
    now_s, taken = 0.0, 0
    allowance = Allowance(5, 3.0, now_s)
    for pause_s in pauses_s:
        now_s += pause_s
        if allowance.is_left(now_s):
            allowance.take()
            taken += 1
    assert taken <= 5 + 3.0 * now_s + 1e-6
