"""Who the server runs as, how its programs are started, and what an earlier life left running.

Called by `postgres.py`. A process belongs to a data directory when it is PostgreSQL's and works in
it. That holds for the postmaster, its children and `initdb`, and stays true after the parent
has died and a process id has been given to somebody else.
"""

import os
import pwd
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from picopay_api.embedded.errors import EmbeddedError

_LAUNCHER = Path(__file__).with_name("launch.py")
_PROGRAMS = {"postgres", "initdb"}
_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}
_OF_PYTHON = ("LD_LIBRARY_PATH",)  # where a Python that was moved finds its own library
_ORPHAN_TITLE = "postgres: "  # the children of a postmaster call themselves so, it does not
_UNPRIVILEGED = ("postgres", "nobody")
_POLL_S = 0.05


@dataclass(frozen=True)
class SystemUser:
    """A user of the operating system: the one the server runs as."""

    name: str
    user_id: int
    group_id: int

    @classmethod
    def for_server(cls, data: Path) -> "SystemUser":
        """Choose the user: ourselves, or for root the owner of the data, `postgres` or `nobody`.

        Raises:
            EmbeddedError: we are root and there is nobody else to be.
        """
        if os.geteuid() != 0:
            return cls._of(os.geteuid())
        if data.exists() and (owner := data.stat().st_uid) != 0:
            return cls._of(owner)
        for name in _UNPRIVILEGED:
            try:
                user_id = pwd.getpwnam(name).pw_uid
            except KeyError:
                continue
            return cls._of(user_id)
        raise EmbeddedError(
            "PostgreSQL refuses to run as root, and there is no user "
            f"{' or '.join(_UNPRIVILEGED)} to run it as: start as an ordinary user"
        )

    @classmethod
    def _of(cls, user_id: int) -> "SystemUser":
        try:
            entry = pwd.getpwuid(user_id)
        except KeyError:  # a container started under a bare number
            return cls(str(user_id), user_id, os.getegid())
        own = user_id == os.geteuid()
        return cls(entry.pw_name, user_id, os.getegid() if own else entry.pw_gid)

    def reaches(self, folder: Path) -> bool:
        """Tell whether the user comes into a folder: it and all above it let them pass.

        A folder that is not there yet counts as open, as it will be made so.
        """
        if self.user_id == os.geteuid():
            return True
        folder = folder.resolve()
        return all(self._passes(step) for step in (folder, *folder.parents) if step.exists())

    def _passes(self, folder: Path) -> bool:
        status = folder.stat()
        if status.st_uid == self.user_id:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.group_id:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


@dataclass(frozen=True)
class Workplace:
    """A data directory and the user whose programs work in it."""

    data: Path
    user: SystemUser

    def start(
        self, command: Sequence[str | Path], log: IO[bytes], standard_input: int
    ) -> subprocess.Popen[bytes]:
        """Start a program as the user, on the data directory and in a session of its own.

        On Linux it gets a fast shutdown when the *thread* that calls this ends.
        """
        # The folders above may be closed to the user (a home directory, a temporary one), so that
        # no path leads in: the program is handed the directory open.
        descriptor = os.open(self.data, os.O_RDONLY)
        by_path = self.user.user_id == os.geteuid() or sys.platform != "linux"
        try:
            return subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", _LAUNCHER),
                    *(str(os.getpid()), str(self.user.user_id), str(self.user.group_id)),
                    *command,
                ],
                cwd=self.data,
                env=_environment(os.environ)
                | {"PGDATA": str(self.data) if by_path else f"/proc/self/fd/{descriptor}"},
                pass_fds=() if by_path else (descriptor,),
                stdin=standard_input,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the parent, which then stops the server
            )
        finally:
            os.close(descriptor)

    def run(
        self, command: Sequence[str | Path], log: IO[bytes], timeout_s: float, script: str = ""
    ) -> None:
        """Run a program to its end, with `script` as its input.

        Raises:
            EmbeddedError: it failed or took longer than `timeout_s`.
        """
        with self.start(command, log, subprocess.PIPE) as process:
            try:
                process.communicate(script.encode(), timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise EmbeddedError(f"{command[0]} did not end in {timeout_s:g} s") from None
        if process.returncode != 0:
            raise EmbeddedError(f"{command[0]} failed; why is said in {log.name}")

    def leftovers(self) -> list[psutil.Process]:
        """List PostgreSQL's processes that work in the data directory."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.name() in _PROGRAMS and process.cwd() == str(self.data):
                    found.append(process)
            except psutil.Error:  # it ended meanwhile, or is another user's and so not ours
                continue
        return found

    def end_leftovers(self, grace_s: float) -> None:
        """End what an earlier life left running, gently first.

        Raises:
            EmbeddedError: something would not end.
        """
        # After SIGINT the postmaster rolls back, writes its checkpoint and ends; SIGQUIT is the
        # stop without a checkpoint, from which the next start recovers. Children whose postmaster was
        # killed get what it would send them after a crash: by SIGINT, one of them might note a clean
        # end while another one still commits.
        for step in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            for process in self._heads(self.leftovers()):
                try:
                    too_gentle = step == signal.SIGINT and _is_orphan(process)
                    process.send_signal(signal.SIGQUIT if too_gentle else step)
                except psutil.NoSuchProcess:
                    continue
            deadline = time.monotonic() + grace_s
            while time.monotonic() < deadline:
                if not self.leftovers():
                    return
                time.sleep(_POLL_S)
        raise EmbeddedError(f"what an earlier run left in {self.data} does not end")

    @staticmethod
    def _heads(processes: list[psutil.Process]) -> list[psutil.Process]:
        """Leave out the children of others in the list: their parent ends them."""
        known = {process.pid for process in processes}
        return [process for process in processes if _parent_of(process) not in known]


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Return what the launcher needs of our environment, and nothing that PostgreSQL might read."""
    return {name: ours[name] for name in _OF_PYTHON if name in ours} | _ENVIRONMENT


def _is_orphan(process: psutil.Process) -> bool:
    return " ".join(process.cmdline()).startswith(_ORPHAN_TITLE)


def _parent_of(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.Error:
        return None
