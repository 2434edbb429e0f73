"""The headers of a request by name, made once and read by everything that looks at one.

Names and values are bytes, as the server has them: decoding those that nobody asks for would cost more
than most checks. Names are in lower case, as ASGI has them.
"""

from collections.abc import Iterable, Mapping

Headers = Mapping[bytes, bytes]
"""Values by name; of a header that came several times all of them, separated by `AGAIN`."""

AGAIN = b"\n"
"""What no header can hold, so that it tells several headers of one name from one with commas in it."""


def by_name(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return headers by name."""
    raw = list(raw)
    found = dict(raw)
    if len(found) != len(raw):
        found.clear()
        for name, value in raw:
            found[name] = found[name] + AGAIN + value if name in found else value
    return found


def text(headers: Headers, name: bytes) -> str | None:
    """Return a header as text; one that came several times joined by commas, as HTTP reads it."""
    value = headers.get(name)
    if value is None:
        return None
    return ", ".join(part.strip() for part in value.decode("latin-1").split("\n"))
