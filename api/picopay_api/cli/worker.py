"""`picopay worker`: what runs beside the servers, until it is told to stop."""

import asyncio
from typing import Annotated

import typer

from picopay_api.cli.direct import settings_of_environment
from picopay_api.cli.lifetime import StopRequests, end_with_stdin
from picopay_api.cli.options import examples

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples(
        "DATABASE_URL=postgresql://picopay@localhost/picopay picopay worker",
        "PICOPAY_WORKER_METRICS_PORT=9464 picopay worker",
    )
)
def worker(
    until_stdin_ends: Annotated[bool, typer.Option("--until-stdin-ends", hidden=True)] = False,
) -> None:
    """Seal the journal, audit it and create partitions ahead of time, until SIGTERM.

    Any number of workers may run on one database; they share the work by locks. With
    PICOPAY_WORKER_METRICS_PORT, a worker answers there with its metrics.
    """
    from picopay_api import logs, metrics
    from picopay_api.cli.serving import not_listening
    from picopay_api.worker.run import run

    settings = settings_of_environment()
    logs.configure(settings.log_level, settings.log_format)
    if until_stdin_ends:
        end_with_stdin(settings.shutdown_grace_ms / 1000)
    if port := settings.worker_metrics_port:
        try:
            metrics.serve(settings.api_host, port)
        except OSError as error:
            hint = "choose another port with PICOPAY_WORKER_METRICS_PORT"
            raise not_listening(settings.api_host, port, error, hint) from error

    async def work() -> None:
        await run(settings, StopRequests.listen().first)

    asyncio.run(work())
