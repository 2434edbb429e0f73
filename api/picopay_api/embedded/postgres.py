"""EmbeddedPostgres: the life of one private server, from an empty directory to a clean stop.

Used by `picopay up` and by the tests. The directory belongs to one process at a time (a lock on a
file, which the system gives back however the process ends); the data in it appears whole or not at
all, and outlives any kill. It must not be asked to take over data that it did not make.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final

from picopay_api.database_url import DatabaseUrl
from picopay_api.embedded.directory import Memory, ServerDirectory
from picopay_api.embedded.errors import EmbeddedError
from picopay_api.embedded.processes import SystemUser, Workplace
from picopay_api.embedded.software import Software

Report = Callable[[str], None]

OWNER: Final = "picopay"
"""The role that owns the database, and the name of the database."""

SUPERUSER: Final = "postgres"

DURABLE_SETTINGS: Final[Mapping[str, str]] = {
    # What is acknowledged is on the disk, whatever happens next.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Room for a busy ledger on a laptop; checkpoints far enough apart not to be felt.
    "shared_buffers": "128MB",
    "wal_buffers": "16MB",
    "min_wal_size": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "max_connections": "200",
    "password_encryption": "scram-sha-256",
    # A line for each start and end, none for each refused statement: the log stays small.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}

_HOST: Final = "127.0.0.1"
_ACCESS: Final = f"# Made by PicoPay.\nhost all all {_HOST}/32 scram-sha-256\n"
_INITIALISE_TIMEOUT_S: Final = 300
_START_TIMEOUT_S: Final = 600  # a recovery reads up to max_wal_size again
_STOP_TIMEOUT_S: Final = 30
_LEFTOVER_GRACE_S: Final = 30
_PORT_TRIES: Final = 5
_REPORT_EVERY_S: Final = 5
_POLL_S: Final = 0.05


class EmbeddedPostgres:
    """A PostgreSQL server of our own on 127.0.0.1, with its data below `directory`.

    On Linux the server also stops when the thread that called `start` ends, so call it from one
    that lives as long as the server shall.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        software: Software | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Name a server; nothing happens before `start`.

        Args:
            directory: where everything is kept; made when missing, else empty or made by us.
            port: the port on the loopback interface; 0 takes the last one if free, or any other.
            software: the release to run, by default the one of the installed wheel.
            settings: PostgreSQL's settings in place of `DURABLE_SETTINGS`, or beside them.
        """
        self._directory = ServerDirectory(directory)
        self._fixed_port = port
        self._software = software
        self._settings = {**DURABLE_SETTINGS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._memory = Memory("", "")
        # A stop may come from another thread than the one that starts the server once more.
        self._launching = threading.Lock()
        self._stopped = False

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    @property
    def port(self) -> int:
        """The port of the running server."""
        self._running()
        return self._memory.port

    @property
    def owner_url(self) -> DatabaseUrl:
        """The database as its owner reaches it: may migrate it and make roles, no superuser."""
        return self.owner_url_of(OWNER)

    def owner_url_of(self, database: str) -> DatabaseUrl:
        """Return the address of a database as the owner's role reaches it."""
        return self._url(OWNER, self._memory.owner_password, database)

    @property
    def superuser_url(self) -> DatabaseUrl:
        """The maintenance database as the superuser of the server reaches it."""
        return self._url(SUPERUSER, self._memory.superuser_password, SUPERUSER)

    def _url(self, role: str, password: str, database: str) -> DatabaseUrl:
        address = f"{_HOST}:{self.port}/{database}?sslmode=disable"
        return DatabaseUrl.parse(f"postgresql://{role}:{password}@{address}")

    def is_running(self) -> bool:
        """Tell whether the server was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the server has ended, as of a child process; None while it runs."""
        return self._running().poll()

    def start(self, report: Report = lambda _: None) -> None:
        """Start the server and return when it takes connections, after a recovery if need be.

        Raises:
            DataDirectoryInUse: another process has the directory.
            EmbeddedError: the directory, the system or PostgreSQL itself stands against it.
        """
        if self._process is not None:
            raise EmbeddedError("the embedded PostgreSQL was started already")
        self._stopped = False
        try:
            self._directory.take()
            with self._directory.open_log() as log:
                self._start(log, report)
        except OSError as error:
            self.stop()
            raise EmbeddedError(f"the embedded PostgreSQL cannot start: {error}") from error
        except BaseException:
            self.stop()
            raise

    def restart(self, report: Report = lambda _: None) -> None:
        """Start the server once more after it has ended by itself: same data, same port.

        Whoever was connected to it finds it again. When this fails, it may be tried again; a server
        whose recovery takes longer than this waits is left to it.

        Raises:
            EmbeddedError: the server runs, the data is gone, the port is taken, or PostgreSQL itself
                stands against it.
        """
        if self.is_running():
            raise EmbeddedError("the embedded PostgreSQL has not ended")
        self._fixed_port = self.port
        if self._directory.major_version() is None:
            raise EmbeddedError(f"{self._directory.data} is gone")
        try:
            with self._directory.open_log() as log:
                self._start(log, report)
        except OSError as error:
            raise EmbeddedError(f"the embedded PostgreSQL cannot start: {error}") from error

    def stop(self) -> None:
        """Stop the server and give the directory back; nothing happens when it is not running.

        Clients are cut off, their transactions rolled back; what was committed stays.
        """
        with self._launching:
            self._stopped = True
            process, self._process = self._process, None
        if process is not None:
            # Fast, immediate (the next start recovers), and then there is nothing left to ask.
            for step in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                process.send_signal(step)
                try:
                    process.wait(_STOP_TIMEOUT_S)
                    break
                except subprocess.TimeoutExpired:
                    continue
        self._directory.give_back()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise EmbeddedError("the embedded PostgreSQL is not running")
        return self._process

    def _start(self, log: IO[bytes], report: Report) -> None:
        directory = self._directory
        software = self._software or Software.find()
        made_by = directory.major_version()
        if made_by not in {None, software.major}:
            raise EmbeddedError(
                f"{directory.path} was made by PostgreSQL {made_by}, this is {software.version}: "
                f"dump it with PostgreSQL {made_by} and load the dump into a new directory"
            )
        user = SystemUser.for_server(directory.data)
        report(f"PostgreSQL {software.version} as user {user.name}, data in {directory.path}")
        programs = software.programs(user, directory.software)
        self._end_earlier_life(user, report)
        if made_by is None:
            report("creating the database")
            self._create_data(programs, user, log)
        self._memory = directory.recall()
        self._serve(programs, Workplace(directory.data, user), log, report)

    def _end_earlier_life(self, user: SystemUser, report: Report) -> None:
        """End what a killed parent left running, and forget what it had not finished."""
        directory = self._directory
        for data in (directory.data, directory.unfinished_data):
            place = Workplace(data, user)
            if place.leftovers():
                report("waiting for the server of a killed process to end")
                place.end_leftovers(_LEFTOVER_GRACE_S)
        if directory.unfinished_data.exists():
            shutil.rmtree(directory.unfinished_data)
        # Nothing works in the data any more, so a process that has the id noted here is not the
        # server: ids are given again, above all in containers, and PostgreSQL would not start.
        (directory.data / "postmaster.pid").unlink(missing_ok=True)

    def _create_data(self, programs: Path, user: SystemUser, log: IO[bytes]) -> None:
        """Make the data, the roles, the database and the rules of access."""
        fresh = self._directory.unfinished_data
        fresh.mkdir(mode=0o700)
        if user.user_id != os.geteuid():
            os.chown(fresh, user.user_id, user.group_id)
        memory = Memory(secrets.token_hex(16), secrets.token_hex(16))
        place = Workplace(fresh, user)
        initialise: list[str | Path] = [
            programs / "initdb",
            *("--username", SUPERUSER, "--auth=reject"),
            *("--encoding=UTF8", "--locale=C", "--data-checksums"),
        ]
        alone: list[str | Path] = [
            programs / "postgres",
            *("--single", "-j", "--exit_on_error=on", "--log_min_error_statement=panic", SUPERUSER),
        ]
        place.run(initialise, log, _INITIALISE_TIMEOUT_S)
        place.run(alone, log, _INITIALISE_TIMEOUT_S, script=_first_statements(memory))
        (fresh / "pg_hba.conf").write_text(_ACCESS, encoding="ascii")
        self._directory.remember(memory)
        self._directory.finish_data()

    def _serve(self, programs: Path, place: Workplace, log: IO[bytes], report: Report) -> None:
        for _ in range(_PORT_TRIES):
            port = self._choose_port()
            report(f"starting PostgreSQL on port {port}")
            if self._wait_until_ready(
                self._launch(place, self._command(programs, port), log), report
            ):
                self._memory.port = port
                self._directory.remember(self._memory)
                return
            # Somebody may have taken the port between our look and the server's; anything else
            # fails again on the next try, or here.
            if _is_free(port):
                break
        raise EmbeddedError(f"PostgreSQL did not start: {self._directory.last_words()}")

    def _launch(
        self, place: Workplace, command: list[str | Path], log: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        with self._launching:
            if self._stopped:
                raise EmbeddedError("the embedded PostgreSQL was stopped while it started")
            self._process = place.start(command, log, subprocess.DEVNULL)
            return self._process

    def _command(self, programs: Path, port: int) -> list[str | Path]:
        fixed = {"listen_addresses": _HOST, "port": str(port), "unix_socket_directories": ""}
        settings = {**self._settings, **fixed}
        return [programs / "postgres", *(f"--{name}={value}" for name, value in settings.items())]

    def _wait_until_ready(self, process: subprocess.Popen[bytes], report: Report) -> bool:
        """Wait for the word `ready` that the server writes for its own tools; False if it ended."""
        begun = reported = time.monotonic()
        while process.poll() is None:
            if self._says_ready(process.pid):
                return True
            now = time.monotonic()
            if now - begun > _START_TIMEOUT_S:
                raise EmbeddedError(f"PostgreSQL is not ready after {_START_TIMEOUT_S} s")
            if now - reported > _REPORT_EVERY_S:
                reported = now
                report(f"PostgreSQL recovers what the last run left ({now - begun:.0f} s so far)")
            time.sleep(_POLL_S)
        return False

    def _says_ready(self, pid: int) -> bool:
        try:
            lines = (
                (self._directory.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            )
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _choose_port(self) -> int:
        if self._fixed_port:
            if not _is_free(self._fixed_port):
                raise EmbeddedError(f"port {self._fixed_port} of {_HOST} is taken")
            return self._fixed_port
        if self._memory.port and _is_free(self._memory.port):
            return self._memory.port
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            return int(probe.getsockname()[1])


def _first_statements(memory: Memory) -> str:
    """Return the SQL of a new server; statements are parted by empty lines (`postgres -j`)."""
    return (
        f"ALTER ROLE {SUPERUSER} PASSWORD '{memory.superuser_password}';\n\n"
        f"CREATE ROLE {OWNER} LOGIN CREATEROLE PASSWORD '{memory.owner_password}';\n\n"
        f"CREATE DATABASE {OWNER} OWNER {OWNER};\n\n"
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True
