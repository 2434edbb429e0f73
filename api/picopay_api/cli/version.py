"""`picopay version`: which release this is, and of which Python."""

import platform

import typer

from picopay_api import __version__
from picopay_api.cli.console import print_json
from picopay_api.cli.options import AsJson, examples

app = typer.Typer(add_completion=False)


@app.command(epilog=examples("picopay version", "picopay version --json"))
def version(as_json: AsJson = False) -> None:
    """Show the version."""
    if as_json:
        print_json({"version": __version__, "python": platform.python_version()})
    else:
        typer.echo(__version__)
