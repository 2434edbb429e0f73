"""Arrays that are written as one text come out of PostgreSQL as they went in, whatever is in them."""

from uuid import UUID

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from picopay_api.store.database import Database
from picopay_api.store.literals import binaries, integers, texts, uuids

READ = """
SELECT $1::text::text[], $2::text::jsonb[]::text[], $3::text::bytea[], $4::text::uuid[],
       $5::text::smallint[], $6::text::integer[], $7::text::bigint[]
"""
"""Every cast of the call of `picopay.decide`."""

# PostgreSQL keeps no NUL, UTF-8 has no surrogates; the edge of the API refuses both.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
SYNTAX = st.sampled_from(
    [
        "{",
        "}",
        ",",
        '"',
        "\\",
        "'",
        " ",
        "\t",
        "\n",
        "NULL",
        "null",
        "{}",
        '"","',
        "\\x",
        ";",
        "$1",
        "%",
    ]
)
TEXTS = st.text(CHARACTERS) | st.lists(SYNTAX | CHARACTERS, max_size=12).map("".join)
DOCUMENTS = st.dictionaries(TEXTS, TEXTS, max_size=3)


def integers_of(bits: int) -> st.SearchStrategy[list[int | None]]:
    return st.lists(st.none() | st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), max_size=4)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(st.none() | TEXTS, max_size=6),
    documents=st.lists(st.none() | DOCUMENTS, max_size=4),
    raw=st.lists(st.binary(), max_size=4),
    ids=st.lists(st.none() | st.uuids(), max_size=4),
    small=integers_of(16),
    middle=integers_of(32),
    large=integers_of(64),
)
@example(
    words=["", " ", "NULL", '"', "\\", '\\"', "{}", "},{", None, "a" * 100_000],
    documents=[{}, {"\\": '"', "{": "}"}],
    raw=[b"", b"\x00", b"\\x", bytes(range(256))],
    ids=[UUID(int=0), UUID(int=2**128 - 1)],
    small=[-(2**15), 2**15 - 1],
    middle=[-(2**31), 2**31 - 1],
    large=[-(2**63), 2**63 - 1],
)
async def test_an_array_comes_back_as_it_was_written(
    database: Database,
    words: list[str | None],
    documents: list[dict[str, str] | None],
    raw: list[bytes],
    ids: list[UUID | None],
    small: list[int | None],
    middle: list[int | None],
    large: list[int | None],
) -> None:
    encoded = [None if each is None else msgspec.json.encode(each).decode() for each in documents]
    row = await database.row(
        READ,
        texts(words),
        texts(encoded),
        binaries(raw),
        uuids(ids),
        integers(small),
        integers(middle),
        integers(large),
    )
    assert row is not None
    found_words, found_documents, *others = row
    assert found_words == words
    decoded = [None if each is None else msgspec.json.decode(each) for each in found_documents]
    assert decoded == documents
    assert others == [raw, ids, small, middle, large]
