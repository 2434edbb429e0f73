"""A raw ASGI application that does nothing, on the same uvicorn as PicoPay: the ceiling of any server.

Run by `servers.py` as a process of its own (`python -m benchmarks.noop SOCKET`). It takes a request's body
and answers 201 with as many bytes as a payment has. Ends when its stdin ends.
"""

import socket
import sys
from typing import Any

import uvicorn

from picopay_api.cli.lifetime import end_with_stdin
from picopay_api.cli.serving import config_of

_BODY = b'{"id":"pay_%032d","object":"payment","status":"captured","padding":"%s"}' % (
    0,
    b"." * 300,
)
_START = {
    "type": "http.response.start",
    "status": 201,
    "headers": [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_BODY)).encode()),
    ],
}
_END = {"type": "http.response.body", "body": _BODY}


async def application(_: Any, receive: Any, send: Any) -> None:
    """Answer a request."""
    while (await receive()).get("more_body", False):
        continue
    await send(_START)
    await send(_END)


def main(descriptor: int) -> None:
    """Serve on a listening socket."""
    end_with_stdin(grace_s=5)
    config = config_of(application, grace_ms=5_000, lifespan="off")
    uvicorn.Server(config).run([socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
