"""The embedded server on real directories and processes: what it refuses and what it survives."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.embedded import DataDirectoryInUse, EmbeddedError, EmbeddedPostgres
from picopay_api.embedded.directory import ServerDirectory
from picopay_api.embedded.processes import SystemUser, Workplace
from picopay_api.embedded.software import Software
from support.embedded import poll, query, run, running, server_processes
from support.postgres import CHECKOUT, VERSIONS, software


@contextmanager
def running_elsewhere(directory: Path, until: str = "ready") -> Iterator[subprocess.Popen[str]]:
    """Run a server from a process of its own that has reported `until`."""
    with subprocess.Popen(
        [sys.executable, "-m", "support.embedded_child", directory],
        env={"PYTHONPATH": os.pathsep.join((str(CHECKOUT / "api"), str(CHECKOUT / "tests")))},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        try:
            assert parent.stdout is not None
            assert any(line.startswith(until) for line in parent.stdout), "it ended early"
            yield parent
        finally:
            parent.kill()


def postmaster(directory: Path) -> psutil.Process:
    text = (directory / "postgres" / "postmaster.pid").read_text(encoding="utf-8")
    return psutil.Process(int(text.splitlines()[0]))


def test_a_second_start_finds_data_passwords_and_port_again(tmp_path: Path) -> None:
    with running(tmp_path / "deep" / "data") as postgres:
        run(postgres.owner_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        first = postgres.owner_url.text
    with running(tmp_path / "deep" / "data") as postgres:
        assert postgres.owner_url.text == first
        assert query(postgres.owner_url, "SELECT answer FROM kept") == 42


def test_another_port_is_taken_when_the_last_one_is_not_free(tmp_path: Path) -> None:
    with running(tmp_path / "data") as postgres:
        last = postgres.port
    with socket.create_server(("127.0.0.1", last)), running(tmp_path / "data") as postgres:
        assert postgres.port != last
        assert query(postgres.owner_url, "SELECT 1") == 1


def test_a_given_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"port {port}"):
            EmbeddedPostgres(tmp_path / "data", port=port).start()
    with running(tmp_path / "data", port=port) as postgres:  # and nothing is left locked
        assert postgres.port == port


@pytest.mark.parametrize("version", VERSIONS)
def test_each_release_starts_durable_and_closed_to_all_but_loopback(
    version: str, tmp_path: Path
) -> None:
    with running(tmp_path / "data", software=software(version)) as postgres:
        assert query(postgres.owner_url, "SHOW server_version") == version
        for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
            assert query(postgres.owner_url, f"SHOW {setting}") == "on"
        assert query(postgres.owner_url, "SHOW server_encoding") == "UTF8"
        assert query(postgres.owner_url, "SHOW listen_addresses") == "127.0.0.1"
        assert query(postgres.superuser_url, "SHOW unix_socket_directories") == ""
        server = psutil.Process(postgres.pid)
        listening = [
            connection.laddr
            for connection in server.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening == [("127.0.0.1", postgres.port)]
        assert server.net_connections("unix") == []


def test_the_server_runs_as_nobody_special_below_folders_closed_to_it(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with running(closed / "data") as postgres:
        user = psutil.Process(postgres.pid).uids()
        assert user.real == user.effective == user.saved != 0
        assert (closed / "data" / "postgres").stat().st_uid == user.real
        assert os.getsid(postgres.pid) == postgres.pid  # Ctrl-C does not reach it


def test_programs_in_a_closed_folder_are_put_where_the_server_can_run_them(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    archive = Software.find().archive
    (closed / archive.name).symlink_to(archive)
    with running(tmp_path / "data", software=Software.find(closed)) as postgres:
        assert query(postgres.owner_url, "SELECT 1") == 1


def test_a_library_that_the_system_lacks_is_named_with_its_package(tmp_path: Path) -> None:
    programs = tmp_path / "postgresql-18.6.0-any" / "bin"
    programs.mkdir(parents=True)
    postgres = programs / "postgres"
    postgres.write_text(
        "#!/bin/sh\necho libxml2.so.2: cannot open shared object file >&2; exit 127"
    )
    postgres.chmod(0o755)
    with tarfile.open(tmp_path / "postgresql-18.6.0-any.tar.gz", "w:gz") as archive:
        archive.add(programs.parent, programs.parent.name)
    with (
        pytest.raises(EmbeddedError, match=r"(?s)libxml2\.so\.2.*apt install libxml2"),
        running(tmp_path / "data", software=Software.find(tmp_path)),
    ):
        pass


def test_passwords_are_needed_kept_private_and_not_in_the_log(tmp_path: Path) -> None:
    with running(tmp_path / "data") as postgres:
        for guess in ("wrong", ""):
            wrong = f"postgresql://picopay:{guess}@127.0.0.1:{postgres.port}/picopay"
            with pytest.raises(asyncpg.InvalidPasswordError):
                query(DatabaseUrl.parse(wrong), "SELECT 1")
        assert query(
            postgres.superuser_url,
            "SELECT bool_and(rolpassword LIKE 'SCRAM-SHA-256$%') FROM pg_authid WHERE rolcanlogin",
        )
    assert stat.S_IMODE((tmp_path / "data" / "server.json").stat().st_mode) == 0o600
    memory = ServerDirectory(tmp_path / "data").recall()
    log = (tmp_path / "data" / "postgres.log").read_text(encoding="utf-8")
    assert memory.owner_password not in log
    assert memory.superuser_password not in log


def test_the_owner_makes_roles_and_is_no_superuser(tmp_path: Path) -> None:
    with running(tmp_path / "data") as postgres:
        run(postgres.owner_url, "CREATE ROLE helper; CREATE SCHEMA own")
        assert not query(
            postgres.owner_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
        )


def test_two_on_one_directory_are_refused(tmp_path: Path) -> None:
    with running(tmp_path / "data") as postgres:
        second = EmbeddedPostgres(tmp_path / "data")
        with pytest.raises(DataDirectoryInUse, match="another PicoPay"):
            second.start()
        second.stop()
        assert query(postgres.owner_url, "SELECT 1") == 1
    with running_elsewhere(tmp_path / "data"), pytest.raises(DataDirectoryInUse):
        EmbeddedPostgres(tmp_path / "data").start()


def test_a_directory_with_other_things_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(EmbeddedError, match="not made by PicoPay"):
        EmbeddedPostgres(tmp_path).start()
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_directory_that_cannot_be_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match="cannot start"):
        EmbeddedPostgres(tmp_path / "file" / "data").start()


def test_data_of_another_release_is_refused(tmp_path: Path) -> None:
    with running(tmp_path / "data", software=software("17.11")):
        pass
    with pytest.raises(EmbeddedError, match=r"PostgreSQL 17.*this is 18"):
        EmbeddedPostgres(tmp_path / "data").start()


def test_what_postgresql_says_is_in_the_error(tmp_path: Path) -> None:
    broken = EmbeddedPostgres(tmp_path / "data", settings={"max_connections": "many"})
    with pytest.raises(EmbeddedError, match='invalid value for parameter "max_connections"'):
        broken.start()
    with running(tmp_path / "data") as postgres:
        assert postgres.is_running()


def test_stop_may_come_at_any_time(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "data")
    postgres.stop()
    postgres.start()
    pid = postgres.pid
    with pytest.raises(EmbeddedError, match="already"):
        postgres.start()
    postgres.stop()
    postgres.stop()
    assert not psutil.pid_exists(pid)
    with pytest.raises(EmbeddedError, match="not running"):
        _ = postgres.owner_url


def test_after_everything_was_killed_the_next_start_recovers(tmp_path: Path) -> None:
    with running_elsewhere(tmp_path / "data") as parent:
        everything = server_processes(tmp_path / "data")
        with running_client(tmp_path / "data") as client:
            client("CREATE TABLE kept AS SELECT 42 AS answer")
            for process in (psutil.Process(parent.pid), *everything):
                process.suspend()  # so that nobody sees another one die and tidies up
            for process in (psutil.Process(parent.pid), *everything):
                process.kill()
    with running(tmp_path / "data") as postgres:
        assert query(postgres.owner_url, "SELECT answer FROM kept") == 42
    log = (tmp_path / "data" / "postgres.log").read_text(encoding="utf-8")
    assert "automatic recovery in progress" in log


@contextmanager
def running_client(directory: Path) -> Iterator[Callable[[str], None]]:
    """Hold a connection to the server of another process, by the address kept in its directory."""
    memory = ServerDirectory(directory).recall()
    url = DatabaseUrl.parse(
        f"postgresql://picopay:{memory.owner_password}@127.0.0.1:{memory.port}/picopay"
    )
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(**url.connect_arguments()))
        try:
            yield lambda sql: runner.run(connection.execute(sql))
        finally:
            connection.terminate()


def test_the_server_stops_when_its_parent_is_killed(tmp_path: Path) -> None:
    with running_elsewhere(tmp_path / "data") as parent:
        server = postmaster(tmp_path / "data")
        parent.kill()
        poll(lambda: not server.is_running())
    log = (tmp_path / "data" / "postgres.log").read_text(encoding="utf-8")
    assert "received fast shutdown request" in log


def test_a_start_right_after_the_parent_was_killed_works(tmp_path: Path) -> None:
    with running_elsewhere(tmp_path / "data") as parent:
        parent.kill()
        parent.wait()
        with running(tmp_path / "data") as postgres:
            assert query(postgres.owner_url, "SELECT 1") == 1


def test_orphans_of_a_killed_postmaster_are_waited_for(tmp_path: Path) -> None:
    with running_elsewhere(tmp_path / "data") as parent, running_client(tmp_path / "data"):
        server = postmaster(tmp_path / "data")
        server.suspend()
        parent.kill()
        parent.wait()
        server.kill()
        with running(tmp_path / "data") as postgres:
            assert query(postgres.owner_url, "SELECT 1") == 1


def test_a_postmaster_left_over_is_ended_first(tmp_path: Path) -> None:
    with running(tmp_path / "data"):
        pass
    data = tmp_path / "data" / "postgres"
    user = SystemUser.for_server(data)
    programs = Software.find().programs(user, tmp_path)
    flags = ["--listen_addresses=127.0.0.1", f"--port={free_port()}", "--unix_socket_directories="]
    with (tmp_path / "log").open("wb") as log:
        left = Workplace(data, user).start([programs / "postgres", *flags], log, subprocess.DEVNULL)
    with left:
        poll((data / "postmaster.pid").exists)
        said: list[str] = []
        postgres = EmbeddedPostgres(tmp_path / "data")
        postgres.start(said.append)
        try:
            assert left.poll() is not None
            assert any("killed process" in line for line in said)
        finally:
            postgres.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_process_id_given_to_somebody_else_is_no_hindrance(tmp_path: Path) -> None:
    with running(tmp_path / "data"):
        pass
    data = tmp_path / "data" / "postgres"
    with subprocess.Popen(
        ["sleep", "60"], user=data.stat().st_uid if os.getuid() == 0 else None
    ) as alien:
        try:
            note = f"{alien.pid}\n{data}\n1\n5432\n\n127.0.0.1\n\nready\n"
            (data / "postmaster.pid").write_text(note, encoding="utf-8")
            with running(tmp_path / "data") as postgres:
                assert query(postgres.owner_url, "SELECT 1") == 1
            assert alien.poll() is None
        finally:
            alien.kill()


def test_data_half_made_is_made_anew(tmp_path: Path) -> None:
    unfinished = tmp_path / "data" / "postgres.new"
    with running_elsewhere(tmp_path / "data", until="creating") as parent:
        poll((unfinished / "PG_VERSION").exists)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert unfinished.exists()
        assert not (tmp_path / "data" / "postgres").exists()
    with running(tmp_path / "data") as postgres:
        assert query(postgres.owner_url, "SELECT 1") == 1
    assert not unfinished.exists()
