"""Requests whose end two readers may see in different places, written in the ways that smugglers know.

Used by the tests of the raw socket. `{n}` stands for the length of a body, `{size}` for the same in
hexadecimal, `{body}` for the body itself: `filled` puts them in.
"""

LENGTHS = [
    ("twice", b"Content-Length: {n}\r\nContent-Length: {n}"),
    ("two", b"Content-Length: {n}\r\nContent-Length: 5"),
    ("a list", b"Content-Length: {n}, {n}"),
    ("signed", b"Content-Length: +{n}"),
    ("negative", b"Content-Length: -1"),
    ("hexadecimal", b"Content-Length: 0x41"),
    ("split", b"Content-Length: 6 5"),
    ("empty", b"Content-Length:"),
    ("beyond 64 bits", b"Content-Length: 99999999999999999999999"),
    ("blank before the colon", b"Content-Length : {n}"),
    ("folded", b"X-A: 1\r\n Content-Length: {n}"),
    ("bare line feed", b"X-A: 1\nContent-Length: {n}"),
    ("bare carriage return", b"X-A: 1\rContent-Length: {n}"),
    ("NUL in a value", b"X-A: a\x00b\r\nContent-Length: {n}"),
    ("NUL in a name", b"X\x00A: a\r\nContent-Length: {n}"),
    ("no name", b": a\r\nContent-Length: {n}"),
    ("other coding", b"Transfer-Encoding: identity\r\nContent-Length: {n}"),
]
"""Heads that are refused before a plain body."""

CODINGS = [
    ("and a length", b"Transfer-Encoding: chunked\r\nContent-Length: {n}"),
    ("after a length", b"Content-Length: {n}\r\nTransfer-Encoding: chunked"),
    ("unknown", b"Transfer-Encoding: xchunked"),
    ("not last", b"Transfer-Encoding: chunked, identity"),
    ("not last, by another header", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    ("twice", b"Transfer-Encoding: chunked, chunked"),
    ("behind a vertical tab", b"Transfer-Encoding: \x0bchunked"),
    ("behind a blank", b"Transfer-Encoding : chunked"),
    ("folded", b"Transfer-Encoding:\r\n chunked"),
]
"""Heads that are refused before a body in chunks."""

CHUNKS = [
    ("no number", b"zz\r\n{body}\r\n0\r\n\r\n"),
    ("negative", b"-1\r\n{body}\r\n0\r\n\r\n"),
    ("a prefix", b"0x{size}\r\n{body}\r\n0\r\n\r\n"),
    ("beyond 64 bits", b"fffffffffffffffff\r\n{body}\r\n0\r\n\r\n"),
    ("too long", b"{size}\r\n{body}XX\r\n0\r\n\r\n"),
    ("bare line feeds", b"{size}\n{body}\n0\n\n"),
    ("an extension with a bare line feed", b"{size};a\n{body}\r\n0\r\n\r\n"),
]
"""Bodies in chunks that are refused."""


def filled(template: bytes, body: bytes) -> bytes:
    """Put a body and its length into a template."""
    for name, value in ((b"n", b"%d" % len(body)), (b"size", b"%x" % len(body)), (b"body", body)):
        template = template.replace(b"{%s}" % name, value)
    return template
