"""Serves the HTTP API: one process by itself, or several on one listening socket under a supervisor.

Used by `picopay serve` and `picopay up`. The socket is bound once, by whoever is outermost, and handed
down, so that a port chosen is a port held and a child that starts again never finds it taken.
"""

import asyncio
import gc
import math
import signal
import socket
import tempfile
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import uvicorn

from picopay_api.cli.connections import Connection
from picopay_api.cli.console import note
from picopay_api.cli.draining import DrainingServer, end_handshakes
from picopay_api.cli.exits import CommandFailed, ExitCode
from picopay_api.cli.lifetime import StopRequests, survive_repeated_signals
from picopay_api.cli.supervisor import Child, Supervisor, environment_for_children
from picopay_api.metrics import forget_process
from picopay_api.settings import Settings

UNTIL_STDIN_ENDS = ("--until-stdin-ends",)
"""What a child is told so that it does not outlive its supervisor."""

_KEEP_ALIVE_S = (
    75  # longer than the 60 s of the usual load balancers, which must be first to hang up
)
_BACKLOG = 2_048
_OBJECTS_BETWEEN_LOOKS = 20_000
_SUPERVISION_S = 5.0  # on top of a child's own grace, to end by itself


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen; port 0 takes a free one.

    Raises:
        CommandFailed: the port is taken, or the host is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise not_listening(
            host, port, error, "choose another port with --port; --port 0 takes a free one"
        ) from error
    return listener


def not_listening(host: str, port: int, error: OSError, hint: str) -> CommandFailed:
    """Say that a port cannot be had."""
    return CommandFailed(
        f"cannot listen on {host} port {port}: {error.strerror}",
        ExitCode.BUSY,
        code="port_in_use",
        hint=hint,
    )


def url_of(listener: socket.socket) -> str:
    """Return the URL at which this machine reaches a listening socket."""
    host, port = listener.getsockname()[:2]
    return local_url(host, port)


def local_url(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a server that listens on a host and a port."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    shown = f"[{reachable}]" if ":" in reachable else reachable
    return f"http://{shown}:{port}"


def config_of(app: Any, *, grace_ms: int, lifespan: Literal["on", "off"] = "on") -> uvicorn.Config:
    """Say how uvicorn is to serve an application; `make bench` serves one that does nothing, too."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(grace_ms / 1000),
    )


def serve_one(
    settings: Settings, listener: socket.socket, *, shares_listener: bool = False
) -> None:
    """Serve from this process until it is told to stop, then drain.

    Raises:
        CommandFailed: the application could not start; the log says why.
    """
    from picopay_api.app import create_app  # its metrics must find their directory set

    app = create_app(settings)
    server = DrainingServer(
        config_of(app, grace_ms=settings.shutdown_grace_ms),
        app,
        grace_s=settings.shutdown_grace_ms / 1000,
        request_timeout_s=settings.request_timeout_ms / 1000,
        shares_listener=shares_listener,
    )
    survive_repeated_signals()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Whoever is told to end before uvicorn listens to that must not miss it.
        signal.signal(number, server.handle_exit)
    _spare_the_collector()
    try:
        server.run([listener])
    except SystemExit as ending:
        raise CommandFailed("the server could not start; the log says why") from ending


def _spare_the_collector() -> None:
    """Keep Python's collector of cycles away from what it can never free.

    What is here now lives as long as the process, and the requests on their way at any time are more
    objects than the collector lets pass between two looks by default: it would look at each several times.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_LOOKS, 20, 20)


async def serve_many(
    settings: Settings, listener: socket.socket, environment: Mapping[str, str]
) -> None:
    """Serve from `settings.workers` child processes until this one is told to stop.

    Raises:
        CommandFailed: a child cannot be kept running.
    """
    with tempfile.TemporaryDirectory(prefix="picopay-metrics-") as metrics_directory:
        shared = environment_for_children(
            environment, {"PROMETHEUS_MULTIPROC_DIR": metrics_directory}
        )
        supervisor = Supervisor(
            server_children(settings.workers, listener, shared),
            grace_s=grace_s(settings),
            report=note,
            ended=partial(forget_process, directory=metrics_directory),
            stdout=1,
        )
        requests = StopRequests.listen()
        await supervise(supervisor, listener, requests)


async def supervise(
    supervisor: Supervisor, listener: socket.socket, requests: StopRequests
) -> None:
    """Run a supervisor until a stop is requested, then stop it in good order."""
    running = asyncio.ensure_future(supervisor.run())
    stopped = asyncio.ensure_future(requests.first.wait())
    try:
        await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
        # Nobody would answer a connection that is only held open by the supervisor; those that have
        # begun are for the children to take before they close the socket, too.
        end_handshakes(listener)
        listener.close()
        if not running.done():
            await supervisor.stop(requests.second)
        await running
    finally:
        running.cancel()
        stopped.cancel()


def server_children(
    count: int, listener: socket.socket, environment: dict[str, str], *held: int
) -> list[Child]:
    """Describe child processes that serve on one listening socket and keep these files open."""
    descriptor = listener.fileno()
    return [
        Child(
            name=f"server {number}",
            arguments=("serve", "--workers", "1", "--socket", str(descriptor), *UNTIL_STDIN_ENDS),
            environment=environment,
            descriptors=(descriptor, *held),
        )
        for number in range(1, count + 1)
    ]


def grace_s(settings: Settings) -> float:
    """Return how long a supervisor waits for its children to drain."""
    return settings.shutdown_grace_ms / 1000 + _SUPERVISION_S
