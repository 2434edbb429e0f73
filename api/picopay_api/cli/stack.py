"""Everything that `picopay up` runs: a private PostgreSQL, servers on one socket, a worker.

One supervisor owns it all. It starts from the database outwards and stops in the opposite order, so
that whatever was accepted is committed. When it is killed, its children see their stdin end, PostgreSQL
gets a signal from the kernel, and the next start waits for both. It must not decide anything about money.

    DIR/api_key         the administrator's key, for our own user alone
    DIR/children.lock   locked while servers and worker live, also when their supervisor is gone
    DIR/metrics/        what they count, shared, from this start on
"""

import asyncio
import fcntl
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec

from picopay_api import logs
from picopay_api.cli.bootstrap import bootstrap
from picopay_api.cli.console import Report, note, print_json, progress
from picopay_api.cli.exits import CommandFailed, ExitCode
from picopay_api.cli.lifetime import StopRequests, interrupt_on_stop, survive_repeated_signals
from picopay_api.cli.migrate import migrate_to
from picopay_api.cli.serving import (
    UNTIL_STDIN_ENDS,
    grace_s,
    listen,
    server_children,
    supervise,
    url_of,
)
from picopay_api.cli.supervisor import (
    Child,
    Patience,
    Supervisor,
    environment_for_children,
    tell_restart,
)
from picopay_api.cli.welcome import Welcome
from picopay_api.embedded import DataDirectoryInUse, EmbeddedError, EmbeddedPostgres
from picopay_api.engine.engine import Engine
from picopay_api.environment import replaced, with_defaults
from picopay_api.metrics import forget_process
from picopay_api.settings import Settings, SettingsError

_READY_TIMEOUT_S = 60.0
_READY_POLL_S = 0.1
_DATABASE_POLL_S = 0.25
_LOCK_POLL_S = 0.1
_LOCAL = {"API_HOST": "127.0.0.1"}
_FOR_PEOPLE = {"LOG_LEVEL": "WARNING", "PICOPAY_LOG_FORMAT": "text"}
_STDERR = 2


class Options(NamedTuple):
    """What was asked for on the command line; None leaves it to the settings."""

    directory: Path
    port: int | None
    workers: int | None
    as_json: bool


def run_stack(options: Options, environ: Mapping[str, str]) -> None:
    """Run everything until it is told to stop.

    Raises:
        CommandFailed: it cannot start, or a part of it cannot be kept running.
    """
    interrupt_on_stop()
    environ = with_defaults(environ, _LOCAL if options.as_json else _LOCAL | _FOR_PEOPLE)
    _settings(options, _with_database(environ, "postgresql://127.0.0.1/picopay"))  # fail early
    postgres = EmbeddedPostgres(options.directory)
    try:
        with progress("starting PostgreSQL") as tell:
            _start(postgres, tell)
        environ = _with_database(environ, postgres.owner_url.text)
        settings = _settings(options, environ)
        logs.configure(settings.log_level, settings.log_format, sys.stderr)
        migrate_to(settings, "head")
        directory = options.directory.resolve()
        api_key = asyncio.run(_bootstrap(settings, directory / "api_key"))
        lock = _lock_children(directory / "children.lock", grace_s(settings))
        listener = listen(settings.api_host, settings.api_port)
        welcome = Welcome(
            url=url_of(listener),
            api_key=api_key,
            database_url=postgres.owner_url.text,
            directory=directory,
        )
        supervisor = _supervisor(settings, environ, listener, lock, _empty(directory / "metrics"))
        asyncio.run(_serve(postgres, supervisor, listener, welcome, as_json=options.as_json))
    finally:
        survive_repeated_signals()
        postgres.stop()


def _settings(options: Options, environ: Mapping[str, str]) -> Settings:
    try:
        settings = Settings.from_environment(environ)
    except SettingsError as error:
        raise CommandFailed(str(error), ExitCode.CONFIGURATION, code="settings_invalid") from error
    return msgspec.structs.replace(
        settings,
        api_port=settings.api_port if options.port is None else options.port,
        workers=settings.workers if options.workers is None else options.workers,
    )


def _with_database(environ: Mapping[str, str], url: str) -> dict[str, str]:
    of_others = ("MIGRATION_DATABASE_URL", "DATABASE_TLS_MODE", "DATABASE_TLS_CA_FILE")
    return replaced(environ, {"DATABASE_URL": url} | {f"PICOPAY_{name}": "" for name in of_others})


def _start(postgres: EmbeddedPostgres, tell: Report) -> None:
    try:
        postgres.start(tell)
    except DataDirectoryInUse as error:
        raise CommandFailed(str(error), ExitCode.BUSY, code="data_directory_in_use") from error
    except EmbeddedError as error:
        raise CommandFailed(str(error), ExitCode.UNAVAILABLE, code="embedded_failed") from error


async def _bootstrap(settings: Settings, key_file: Path) -> str:
    async with Engine.open(settings) as engine:
        return await bootstrap(engine, key_file)


def _lock_children(path: Path, timeout_s: float) -> int:
    """Wait until no child of an earlier supervisor lives; return what the next ones shall hold open.

    Raises:
        CommandFailed: there still is one after `timeout_s`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + timeout_s
    with progress("waiting for the processes of a killed run to end"):
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_POLL_S)
            else:
                return descriptor
    raise CommandFailed(
        f"processes of an earlier run still have {path}",
        ExitCode.BUSY,
        code="data_directory_in_use",
    )


def _empty(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    return directory


def _supervisor(
    settings: Settings,
    environ: Mapping[str, str],
    listener: socket.socket,
    lock: int,
    metrics_directory: Path,
) -> Supervisor:
    """Describe the servers and the worker, which count into one directory, whoever is asked."""
    shared = environment_for_children(environ, {"PROMETHEUS_MULTIPROC_DIR": str(metrics_directory)})
    worker = Child(
        name="worker",
        arguments=("worker", *UNTIL_STDIN_ENDS),
        environment=shared,
        descriptors=(lock,),
    )
    return Supervisor(
        [*server_children(settings.workers, listener, shared, lock), worker],
        grace_s=grace_s(settings),
        report=note,
        ended=partial(forget_process, directory=str(metrics_directory)),
        stdout=_STDERR,
    )


async def _serve(
    postgres: EmbeddedPostgres,
    supervisor: Supervisor,
    listener: socket.socket,
    welcome: Welcome,
    *,
    as_json: bool,
) -> None:
    requests = StopRequests.listen()
    host = asyncio.create_task(_host(postgres, welcome, as_json=as_json))
    host.add_done_callback(lambda _: requests.note())
    try:
        await supervise(supervisor, listener, requests)
        if host.done():
            host.result()  # raises what has ended it
    finally:
        host.cancel()
        # Here, where a further Ctrl-C is only noted; also ends a start that is under way.
        await asyncio.to_thread(postgres.stop)


async def _host(postgres: EmbeddedPostgres, welcome: Welcome, *, as_json: bool) -> None:
    """Welcome whoever has started this once it is ready, and see to it that the database stays.

    Raises:
        CommandFailed: the servers do not become ready, or the database cannot be kept running.
    """
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_welcome(welcome, as_json=as_json))
            group.create_task(keep_database(postgres, welcome.directory / "postgres.log"))
    except* CommandFailed as failures:
        raise failures.exceptions[0] from None


async def _welcome(welcome: Welcome, *, as_json: bool) -> None:
    await _until_ready(welcome.url)
    if as_json:
        print_json(welcome.facts(os.getpid()))
    else:
        welcome.show()


async def keep_database(postgres: EmbeddedPostgres, log: Path) -> None:
    """Start PostgreSQL again whenever it ends; servers and worker find it where it was.

    Until then, requests wait or are answered 503, as with any database that is away.

    Raises:
        CommandFailed: it cannot be kept running.
    """
    patience = Patience()
    reason = ""
    while True:
        started = time.monotonic()
        while postgres.is_running():  # noqa: ASYNC110  # a process tells nobody that it ends
            await asyncio.sleep(_DATABASE_POLL_S)
        reason = reason or f"it ended with {postgres.exit_code}"
        pause_s = patience.pause_s(time.monotonic() - started)
        if pause_s is None:
            raise CommandFailed(
                f"PostgreSQL cannot be kept running: {reason}; its log is {log}",
                ExitCode.UNAVAILABLE,
                code="database_unavailable",
                hint="start again when the cause is gone: what was acknowledged is there",
            )
        tell_restart("PostgreSQL", reason, pause_s)
        await asyncio.sleep(pause_s)
        reason = ""
        try:
            # In a thread of the loop's own pool, which lives as long as the loop: the server ends
            # with the thread that has started it.
            await asyncio.to_thread(postgres.restart)
        except EmbeddedError as error:
            reason = str(error)


async def _until_ready(url: str) -> None:
    reason = "no server has answered"
    with progress("waiting for the servers"):
        try:
            async with (
                asyncio.timeout(_READY_TIMEOUT_S),
                httpx.AsyncClient(trust_env=False, timeout=5) as client,
            ):
                while True:  # until the time-out above
                    try:
                        answer = await client.get(f"{url}/readyz")
                    except httpx.TransportError as error:
                        reason = f"{type(error).__name__} {error}".strip()
                    else:
                        if answer.is_success:
                            return
                        reason = answer.text[:500]
                    await asyncio.sleep(_READY_POLL_S)
        except TimeoutError:
            raise CommandFailed(
                f"the servers were not ready within {_READY_TIMEOUT_S:g} s: {reason}",
                ExitCode.UNAVAILABLE,
                code="not_ready",
            ) from None
