"""`picopay healthcheck`: asks the server on this machine whether it is ready; for containers without curl."""

from typing import Annotated

import typer

from picopay_api.cli.console import print_json
from picopay_api.cli.direct import settings_of_environment
from picopay_api.cli.exits import CommandFailed, ExitCode
from picopay_api.cli.options import AsJson, examples

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples("picopay healthcheck", "picopay healthcheck --url http://127.0.0.1:9000")
)
def healthcheck(
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The server; API_HOST and API_PORT tell it otherwise."),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.1, max=60, help="Seconds to wait.")
    ] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Exit with 0 when the server is ready, 1 when it is not, 4 when it cannot be reached."""
    import httpx

    server = url or _local_server()
    try:
        answer = httpx.get(f"{server.rstrip('/')}/readyz", timeout=timeout_s, trust_env=False)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise CommandFailed(
            f"{server} cannot be reached: {error}", ExitCode.UNAVAILABLE, code="unreachable"
        ) from error
    if not answer.is_success:
        raise CommandFailed(f"{server} is not ready: {answer.text[:500]}", code="not_ready")
    if as_json:
        print_json({"ready": True, "url": server})
    else:
        typer.echo("ready")


def _local_server() -> str:
    from picopay_api.cli.serving import local_url

    settings = settings_of_environment()
    return local_url(settings.api_host, settings.api_port)
