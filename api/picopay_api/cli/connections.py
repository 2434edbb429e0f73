"""Bounds on what a connection may take: of the server's memory and of its patience.

Used by `draining.py` about once a second, for all connections at once, so that no request pays for a clock
of its own. A client that sends its request in drops, opens connections and says nothing, or asks and never
reads holds a socket and little else: no thread, no session with the database. This is what takes the
socket back. Connections between requests are uvicorn's own concern (`timeout_keep_alive`).
"""

from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from picopay_api.metrics import CONNECTIONS, SLOW_CONNECTIONS, child

ARRIVAL_S = 20.0
"""How long a request may take to arrive, from its first byte to its last; and the first byte to come."""

READING_S = 20.0
"""How long a client may leave answers unread once they fill the buffers between it and us."""

_TOO_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 33\r\n\r\nThe request took too long to come"
)


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which also knows since when it waits for its client.

    `waits_since_s` is when the first byte of a request came that is not whole yet, or, before the first
    request, when the connection was made; None while nothing of a request is outstanding.
    """

    waits_since_s: float | None = None
    unread_since_s: float | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.waits_since_s = self.loop.time()

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a request."""
        super().on_message_begin()
        self.waits_since_s = self.loop.time()

    def on_message_complete(self) -> None:
        """Stop waiting."""
        super().on_message_complete()
        self.waits_since_s = None


def end_slow(connections: Iterable[Any], now_s: float) -> None:
    """Close the connections of clients that take too long; `now_s` is the event loop's time."""
    count = 0
    for connection in list(connections):
        count += 1
        if not isinstance(connection, Connection):
            continue
        if connection.flow.read_paused:
            _forgive(connection, now_s)
        elif connection.waits_since_s is not None and now_s - connection.waits_since_s > ARRIVAL_S:
            child(SLOW_CONNECTIONS, "sending").inc()
            _hang_up(connection)
            continue
        if not connection.flow.write_paused:
            connection.unread_since_s = None
        elif connection.unread_since_s is None:
            connection.unread_since_s = now_s
        elif now_s - connection.unread_since_s > READING_S:
            child(SLOW_CONNECTIONS, "reading").inc()
            connection.transport.abort()
    CONNECTIONS.set(count)


def _forgive(connection: Connection, now_s: float) -> None:
    """Let the clock of a connection begin anew: it is we who do not read."""
    if connection.waits_since_s is not None:
        connection.waits_since_s = now_s


def _hang_up(connection: Connection) -> None:
    """Close; say why, where an answer is expected and none has begun."""
    cycle: Any = connection.cycle
    headers: Any = connection.headers  # None before the first byte
    if cycle is None:
        expected = headers is not None
    elif cycle.response_complete:
        expected = not cycle.more_body  # else it is the rest of what was answered already
    else:
        expected = not cycle.response_started
    if expected:
        connection.transport.write(_TOO_LATE)
    connection.transport.close()
