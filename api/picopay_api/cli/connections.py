"""Bounds on what a connection may take: of the server's memory and of its patience.

`end_slow` is called by `draining.py` about once a second, for all connections at once, so that no request
pays for a clock of its own. A client that sends its request in drops, opens connections and says nothing,
or asks and never reads holds a socket and little else: no thread, no session with the database. This is
what takes the socket back. Connections between requests are uvicorn's own concern (`timeout_keep_alive`).

`Connection` bounds what uvicorn leaves open: the size of a head, and how many requests wait on one
connection. And it sees to it that no client takes the refusal of one request for the answer to another.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from picopay_api.metrics import CONNECTIONS, SLOW_CONNECTIONS, UNREADABLE_REQUESTS, child

ARRIVAL_S = 20.0
"""How long a request may take to arrive, from its first byte to its last; and the first byte to come."""

READING_S = 20.0
"""How long a client may leave answers unread once they fill the buffers between it and us."""

HEAD_BYTES_MAX = 64 * 1024
"""How large the address and the headers of a request may be together; its trailers as well."""

HEADERS_MAX = 256
"""How many headers a request may have."""

WAITING_REQUESTS_MAX = 256
"""How many requests may wait on one connection for the answers to those before them."""

_TOO_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 33\r\n\r\nThe request took too long to come"
)
_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 37\r\n\r\n"
    b"The headers are too many or too large"
)


_CONTINUE = b"HTTP/1.1 1"
_NOWHERE: deque[Any] = deque(maxlen=0)  # keeps nothing of what is put there


class _Flow(FlowControl):
    """uvicorn's control of reading, which does not read on while requests wait for their turn."""

    def __init__(self, transport: Any, waiting: deque[Any]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on, unless what has come already is enough."""
        if not self._waiting:
            super().resume_reading()


class _Gathering:
    """A transport that sends the head of an answer together with what follows it.

    uvicorn writes them one after the other, and each write is a call of the system, a packet, and a wake-up
    of the client: together more than all that PicoPay itself does for a payment.
    """

    __slots__ = (
        "_head",
        "_transport",
        "get_extra_info",
        "is_closing",
        "pause_reading",
        "resume_reading",
    )

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Send, or keep the head of an answer until more of it comes."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data[-4:] == b"\r\n\r\n" and data[:10] != _CONTINUE and data[:9] == b"HTTP/1.1 ":
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Send a head that nothing follows."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        """Send what is kept, and close."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which also knows since when it waits for its client, and its bounds.

    `waits_since_s` is when the first byte of a request came that is not whole yet, or, before the first
    request, when the connection was made; None while nothing of a request is outstanding.
    """

    waits_since_s: float | None = None
    unread_since_s: float | None = None
    _answering: Any = None  # the request whose turn it is, or was last
    _bytes = 0  # that have come since the last end of a head and the last part of a body
    _fault = "syntax"

    @property
    def owes_answer(self) -> bool:
        """Whether a request that came whole waits for its answer."""
        asked = self._answering
        return asked is not None and not (asked.more_body or asked.response_complete)

    @property
    def may_refuse(self) -> bool:
        """Whether a client could only take a refusal for the answer to what it is sending now."""
        cycle: Any = self.cycle
        if cycle is None:
            return True
        if cycle.response_complete:
            return not cycle.more_body  # else it is the rest of what was answered already
        return not (cycle.response_started or self.owes_answer)

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        transport = _Gathering(transport)
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self.waits_since_s = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request whose turn it is, too; uvicorn tells the last one."""
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Read on in a request; refuse one whose head or trailers do not end."""
        self._bytes += len(data)
        super().data_received(data)
        if self._bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self._fault = "head"
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a request."""
        super().on_message_begin()
        self.waits_since_s = self.loop.time()

    def on_headers_complete(self) -> None:
        """Take a request up, unless its head is too large or too many wait; the parser stops there."""
        if len(self.headers) > HEADERS_MAX or (
            self._bytes > HEAD_BYTES_MAX and self._head_bytes() > HEAD_BYTES_MAX
        ):
            self._fault = "head"
            raise ValueError
        self._bytes = 0
        super().on_headers_complete()
        # Trailers must not become headers of a request that was looked at without them.
        self.headers = _NOWHERE  # type: ignore[assignment]  # all that is asked of it is `append`
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # the parser reads no further
        if len(self.pipeline) > WAITING_REQUESTS_MAX:
            self._fault = "waiting"
            raise ValueError

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop waiting."""
        super().on_message_complete()
        self.waits_since_s = None
        self._bytes = 0

    def on_response_complete(self) -> None:
        """Send an answer that has no body."""
        self.transport.flush()  # type: ignore[attr-defined]  # it is `_Gathering`
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read on, and close; requests that came whole before it are answered first."""
        child(UNREADABLE_REQUESTS, self._fault).inc()
        if self.owes_answer:
            self.flow.pause_reading()
            if self.pipeline and self.pipeline[0][0].more_body:
                self.pipeline.popleft()  # the newest is not whole
            self.cycle = self.pipeline[0][0] if self.pipeline else self._answering
            self.cycle.keep_alive = False
        elif not self.may_refuse:
            self.transport.close()
        elif self._fault == "head":
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
        else:
            super().send_400_response(msg)

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)


def end_slow(connections: Iterable[Any], now_s: float) -> None:
    """Close the connections of clients that take too long; `now_s` is the event loop's time."""
    count = 0
    for connection in list(connections):
        count += 1
        if not isinstance(connection, Connection):
            continue
        if connection.flow.read_paused or connection.owes_answer:
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
    """Let the clock of a connection begin anew: it is we who do not read, or owe an answer."""
    if connection.waits_since_s is not None:
        connection.waits_since_s = now_s


def _hang_up(connection: Connection) -> None:
    """Close; say why, where an answer is expected and none has begun."""
    headers: Any = connection.headers  # None before the first byte
    if headers is not None and connection.may_refuse:
        connection.transport.write(_TOO_LATE)
    connection.transport.close()
