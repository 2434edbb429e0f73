"""`picopay up`: PicoPay on one machine with a database of its own, in one command."""

import os
from pathlib import Path
from typing import Annotated

import typer

from picopay_api.cli.options import examples

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples(
        "picopay up",
        "picopay up --port 9000 --workers 2",
        "picopay up --data /var/lib/picopay",
        "picopay up --json --port 0 --data DIR",
    )
)
def up(
    data: Annotated[
        Path, typer.Option(metavar="DIR", file_okay=False, help="Where everything is kept.")
    ] = Path(".picopay"),
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.  [API_PORT]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Server processes.  [PICOPAY_WORKERS]")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one line of JSON when ready, and nothing else.")
    ] = False,
) -> None:
    """Start PicoPay with a private PostgreSQL, until Ctrl-C or SIGTERM.

    Creates, migrates and fills the database in DIR at the first start: a ledger `main`, an administrator's
    key (kept in DIR/api_key) and two accounts, @alice and @bob, with 1,000.00 USD each. Every further start
    finds the same data and the same key, whatever ended the one before. One process at a time can have
    a DIR (exit code 7).

    Listens on this machine only, unless API_HOST says otherwise; DATABASE_URL is not looked at. Logs go
    to stderr: warnings as text, or with --json everything as JSON; LOG_LEVEL and PICOPAY_LOG_FORMAT
    choose. The line of --json has `url`, `api_key`, `pid` (the process to signal) and `database_url`
    (the database as its owner).
    """
    from picopay_api.cli.stack import Options, run_stack

    run_stack(Options(data, port, workers, as_json), os.environ)
