"""A standby of an embedded server, kept in step by streaming: what was answered is on both.

Used by the tests of a fail-over. The copy is made by `pg_basebackup`; the standby runs as a child of the
test's process and ends with it.
"""

import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from picopay_api.database_url import DatabaseUrl
from picopay_api.embedded import EmbeddedPostgres
from picopay_api.embedded.processes import SystemUser, Workplace
from picopay_api.embedded.software import Software
from support.own_server import SETTINGS, OwnServer
from support.sql import execute, value
from support.waiting import eventually

_BACKUP_TIMEOUT_S = 60
_ACCESS = "\nhost replication all 127.0.0.1/32 scram-sha-256\n"

_IN_STEP = "SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"


class Standby:
    """A running standby; `url` is its address as the owner's role reaches it. Make one with `following`."""

    def __init__(self, primary: EmbeddedPostgres, port: int, process: psutil.Process) -> None:
        self.url = primary.owner_url.replace(ports=(port,))
        self._superuser_url = primary.superuser_url.replace(ports=(port,))
        self._process = process

    async def promote(self) -> None:
        """Make it the primary; returns when it takes writes."""
        assert await value(self._superuser_url, "SELECT pg_promote()")

    def stop(self) -> None:
        """Let it do nothing, with its connections open."""
        self._tell_all(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it do what it has missed."""
        self._tell_all(signal.SIGCONT)

    def _tell_all(self, number: signal.Signals) -> None:
        for process in (self._process, *self._process.children()):
            process.send_signal(number)


@asynccontextmanager
async def following(primary: OwnServer, directory: Path) -> AsyncIterator[Standby]:
    """Copy a server, start the copy as its synchronous standby, and end it with the block."""
    postgres = primary.postgres
    source = postgres._directory.data
    with (source / "pg_hba.conf").open("a", encoding="ascii") as access:
        access.write(_ACCESS)
    await execute(postgres.superuser_url, "SELECT pg_reload_conf()")
    user = SystemUser.for_server(source)
    programs = Software.find().programs(user, postgres._directory.software)
    place = _empty(directory, user)
    copy: list[str | Path] = [
        *(programs / "pg_basebackup", "--dbname", postgres.superuser_url.text),
        *("--pgdata", ".", "--checkpoint=fast"),
    ]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = SETTINGS | {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "primary_conninfo": postgres.superuser_url.text,
    }
    options = [f"--{name}={said}" for name, said in settings.items()]
    with (directory / "postgres.log").open("wb") as log:
        await primary.run(lambda: place.run(copy, log, _BACKUP_TIMEOUT_S))
        (place.data / "standby.signal").touch()
        process = await primary.run(
            lambda: place.start([programs / "postgres", *options], log, subprocess.DEVNULL)
        )
    standby = Standby(postgres, port, psutil.Process(process.pid))
    try:
        await _in_step(postgres.superuser_url)
        yield standby
    finally:
        standby.go_on()
        process.send_signal(signal.SIGQUIT)
        await primary.run(process.wait)


def _empty(directory: Path, user: SystemUser) -> Workplace:
    data = directory / "postgres"
    data.mkdir(parents=True, mode=0o700)
    if user.user_id != os.geteuid():
        os.chown(data, user.user_id, user.group_id)
    return Workplace(data, user)


async def _in_step(primary: DatabaseUrl) -> None:
    """From now on the primary answers only what the standby has, too."""
    await execute(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
    await execute(primary, "SELECT pg_reload_conf()")

    async def following() -> bool:
        return bool(await value(primary, _IN_STEP))

    await eventually(following)
