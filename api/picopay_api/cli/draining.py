"""Ends a server so that its clients do not notice: whoever has asked is answered, nobody is cut off.

Used by `serving.py`. What a process cannot know is what is on its way to it. So it stops new connections
before they are made, tells each client with its answer to use another connection from now on, and hangs up
by itself only where nothing was said for a while. Whatever happens, it ends within its grace.
"""

import asyncio
import ctypes
import select
import socket
import struct
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import uvicorn

from picopay_api.cli.connections import end_slow

if TYPE_CHECKING:
    from litestar import Litestar

    from picopay_api.engine.engine import Engine

_TICK_S = 0.05
_TICKS_BETWEEN_LOOKS = 10  # of uvicorn's, which are a tenth of a second
_SETTLE_S = 0.1  # for handshakes that have begun to end, and for us to take their connections
_QUIET_S = 1.0  # a client that will ask on an idle connection has asked by then
_LAST_WORDS_S = 0.5  # of the grace, for answers that say that it is over

_SO_ATTACH_FILTER = 26  # Linux; the module `socket` does not name it
# Load the flags of TCP; of those keep SYN and ACK; if it is SYN alone, drop the packet, else let it pass.
_DROP_SYN = (
    (0x30, 0, 0, 13),
    (0x54, 0, 0, 0x12),
    (0x15, 0, 1, 0x02),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


def end_handshakes(listener: socket.socket) -> None:
    """Let no more connections begin at a listening socket, for every process that shares it.

    A connection that the system has taken and no process has, is reset when the socket is closed, with
    what the client has said on it already. Once none begins, those there are can be taken before that.
    Who knocks in between is not answered, knocks once more after a second and is refused then, in time
    to go elsewhere. Where the system has no such filter, nothing happens here.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN)
    )
    described = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
    except OSError:
        return  # a sandbox without filters: the old risk stays


class DrainingServer(uvicorn.Server):
    """uvicorn's server with an end of its own; its protocol is `Connection`.

    `shares_listener` says that others take connections from the same socket, and that whoever has made
    it sees to `end_handshakes`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: "Litestar",
        *,
        grace_s: float,
        request_timeout_s: float,
        shares_listener: bool,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._grace_s = grace_s
        self._request_timeout_s = request_timeout_s
        self._shares_listener = shares_listener
        self._idle: dict[Any, tuple[Any, float]] = {}

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does ten times a second, and now and then look for slow clients."""
        if counter % _TICKS_BETWEEN_LOOKS == 0:
            end_slow(self._connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Answer what comes on the connections there are, until none is left or the grace is over.

        In the last part of the grace, as long as a request may take, payments are refused.
        """
        now_s = asyncio.get_running_loop().time
        ends_s = now_s() + self._grace_s
        engine: Engine = self._app.state.engine
        engine.leave()
        await self._ask_to_leave()
        await self._stop_listening(sockets or ())
        await self._until_all_have_left(ends_s - min(self._request_timeout_s, self._grace_s / 2))
        last_words_s = ends_s - _LAST_WORDS_S
        engine.stop_accepting(within_s=last_words_s - now_s())
        await self._until_all_have_left(last_words_s)
        if not self.force_exit:
            await self.lifespan.shutdown()
        await self._until_all_have_left(ends_s)
        for connection in list(self._connections):
            connection.transport.abort()

    @property
    def _connections(self) -> set[Any]:
        """Uvicorn's own objects, one for each connection: `HttpToolsProtocol`."""
        return self.server_state.connections

    async def _ask_to_leave(self) -> None:
        """Have each answer from now on say that its connection ends with it."""
        await self.on_tick(0)  # it is uvicorn's way to a header with the time
        self.server_state.default_headers = [
            *self.server_state.default_headers,
            (b"connection", b"close"),
        ]

    async def _stop_listening(self, sockets: Sequence[socket.socket]) -> None:
        if not self._shares_listener:
            for listener in sockets:
                end_handshakes(listener)
        await asyncio.sleep(_SETTLE_S)
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()

    async def _until_all_have_left(self, latest_s: float) -> None:
        now_s = asyncio.get_running_loop().time
        while self._connections and not self.force_exit and now_s() < latest_s:
            for connection in list(self._connections):
                self._see_off(connection, now_s())
            await asyncio.sleep(_TICK_S)

    def _see_off(self, connection: Any, now_s: float) -> None:
        """Mark a connection as one to be closed after its answer; close it once it has been quiet."""
        cycle = connection.cycle
        if not _is_idle(connection):
            self._idle.pop(connection, None)
            # An answer that has begun without a word of it leaves the connection as it is.
            if cycle is not None and not cycle.response_started:
                cycle.keep_alive = False
            return
        known, since_s = self._idle.setdefault(connection, (cycle, now_s))
        if known is not cycle:
            self._idle[connection] = (cycle, now_s)
        elif now_s - since_s >= _QUIET_S and not _has_input(connection.transport):
            connection.transport.close()


def _is_idle(connection: Any) -> bool:
    """Tell whether a connection waits for its next request, and nothing of that has come."""
    if connection.cycle is None:
        return connection.headers is None
    # uvicorn's clock for idle connections runs from the end of an answer to the next byte.
    answered: bool = connection.cycle.response_complete
    return answered and connection.timeout_keep_alive_task is not None


def _has_input(transport: asyncio.Transport) -> bool:
    """Tell whether something has come that was not read yet: to close now would be to reset."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
