"""Ports of addresses, as network policies need them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay_operator.address import ports


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("postgresql://u:p@host/db", (5432,)),
        ("postgresql://u:p@host:6432/db?sslmode=require", (6432,)),
        ("postgres://u:p%40:1@a:5433,b:5434/db", (5433, 5434)),
        ("postgresql+asyncpg://u@[::1]:5439/db", (5439,)),
        ("postgresql://u@[::1]/db", (5432,)),
        ('{"host": "db", "port": 5444, "username": "u"}', (5444,)),
        ('{"host": "db"}', (5432,)),
        ("host=db port=5455 user=u", (5455,)),
        ("host=a,b port=1,2", (1, 2)),
        ("host=db user=u", (5432,)),
        ("postgresql://u@host:0/db", ()),
        ("postgresql://u@host:99999/db", ()),
        ('{"password": "x"}', ()),
        ("hunter2", ()),
        ("", ()),
    ],
)
def test_ports_of_addresses(address: str, found: tuple[int, ...]) -> None:
    assert ports(address) == found


@given(st.text())
def test_nothing_does_harm(text: str) -> None:
    for address in (text, f"postgresql://{text}", "{" + text, f"host={text}"):
        assert isinstance(ports(address), tuple)
