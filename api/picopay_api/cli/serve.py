"""`picopay serve`: the HTTP API over a database that exists already; what a container runs."""

import asyncio
import os
import socket
from typing import Annotated

import msgspec
import typer

from picopay_api.cli.direct import settings_of_environment
from picopay_api.cli.lifetime import end_with_stdin
from picopay_api.cli.options import examples

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples(
        "DATABASE_URL=postgresql://picopay@localhost/picopay picopay serve",
        "picopay serve --host 127.0.0.1 --port 9000",
        "picopay serve --workers 4",
    )
)
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [API_HOST]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.  [API_PORT]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Server processes.  [PICOPAY_WORKERS]")
    ] = None,
    descriptor: Annotated[int | None, typer.Option("--socket", hidden=True)] = None,
    until_stdin_ends: Annotated[bool, typer.Option("--until-stdin-ends", hidden=True)] = False,
) -> None:
    """Serve the HTTP API until SIGTERM, then finish what was accepted.

    Settings come from the environment (DATABASE_URL, API_HOST, API_PORT, PICOPAY_…). The database must
    be migrated, unless PICOPAY_MIGRATE_ON_START is true. Logs go to stdout, one JSON object a line.
    """
    from picopay_api import logs
    from picopay_api.cli.migrate import migrate_to
    from picopay_api.cli.serving import listen, serve_many, serve_one

    settings = settings_of_environment()
    logs.configure(settings.log_level, settings.log_format)
    settings = msgspec.structs.replace(
        settings,
        api_host=settings.api_host if host is None else host,
        api_port=settings.api_port if port is None else port,
        workers=settings.workers if workers is None else workers,
    )
    if until_stdin_ends:
        end_with_stdin(settings.shutdown_grace_ms / 1000)
    if descriptor is not None:
        serve_one(settings, socket.socket(fileno=descriptor), shares_listener=True)
        return
    listener = listen(settings.api_host, settings.api_port)
    if settings.migrate_on_start:
        migrate_to(settings, "head")
    if settings.workers == 1:
        serve_one(settings, listener)
    else:
        asyncio.run(serve_many(settings, listener, os.environ))
