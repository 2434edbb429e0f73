"""A bank: several servers and a worker on one PostgreSQL, clients that never rest, and deaths of all kinds.

Used by `tests/stress`, for a short time in a test and for a chosen one by its command. What clients do and
who dies when follows from a seed, as far as processes that race can follow. After each restart of the
database and in the end everything is added up and held against what clients were told.
"""

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import psutil

from picopay_api.database_url import DatabaseUrl
from picopay_api.embedded import EmbeddedError, EmbeddedPostgres
from picopay_api.engine.commands import Posting
from picopay_api.store import migrate
from picopay_api.worker.audit_all import audit_everything
from support.bank_clients import Client, Town
from support.bank_history import Entry, History, Ledger, Row, faults
from support.fleet import Member, Program, fleet, running
from support.installation import environment
from support.invariants import broken_rules
from support.journal import opened
from support.postgres import on_connection
from support.waiting import eventually

_STARTS_MAX = 40  # somebody else may have the port of the database for a moment
_AUDIT_TIMEOUT_S = 600
_PAGE = 100
_TIMES = {"PICOPAY_REQUEST_TIMEOUT_MS": "2000", "PICOPAY_AUDIT_INTERVAL_S": "1"}

_postings = msgspec.json.Decoder(tuple[Posting, ...])


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How large a bank is and how long it lives: each kind of death once, and on until the time is over."""

    seed: int
    seconds: float
    servers: int = 3
    clients: int = 12
    rest_max_s: float = 1.0
    """The longest time between two deaths."""


class Outcome(msgspec.Struct, kw_only=True):
    """What has happened, and what was found wrong."""

    deaths: Counter[str] = msgspec.field(default_factory=Counter[str])
    checks: int = 0
    operations: int = 0
    told: Counter[str] = msgspec.field(default_factory=Counter[str])
    replays: int = 0
    readings: int = 0
    asked_again: int = 0
    wrong: list[str] = []


class Database:
    """The PostgreSQL of a bank, which waits for the disk and comes back at the same port."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server = EmbeddedPostgres(directory)
        # The server ends with the thread that has started it.
        self._thread = ThreadPoolExecutor(1)
        self.port = 0

    async def start(self) -> None:
        """Start it, at the port that it had."""
        loop = asyncio.get_running_loop()
        for _ in range(_STARTS_MAX):
            self._server = EmbeddedPostgres(self._directory, port=self.port)
            try:
                await loop.run_in_executor(self._thread, self._server.start)
            except EmbeddedError:
                await asyncio.sleep(0.25)
                continue
            self.port = self._server.port
            return
        raise AssertionError("the database does not come back")

    async def stop(self) -> None:
        """Stop it, or give its directory back when it is dead."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._server.stop)

    @property
    def url(self) -> DatabaseUrl:
        """Where its owner reaches it."""
        return self._server.owner_url

    def kill(self, chance: random.Random, *, backend: bool) -> None:
        """Kill the postmaster, or one of the processes below it: then it starts all others anew."""
        postmaster = psutil.Process(self._server.pid)
        victim = chance.choice(postmaster.children()) if backend else postmaster
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            return  # a session that has just ended by itself


class Bank:
    """A running bank; make one with `bank`."""

    def __init__(
        self, plan: Plan, database: Database, members: list[Member], worker: Program
    ) -> None:
        self._plan = plan
        self._database = database
        self._members = members
        self._worker = worker
        self._chance = random.Random(f"{plan.seed}-deaths")
        self._feed: list[tuple[int, str]] = []
        calm = asyncio.Event()
        calm.set()
        history = History(operations=[], replays=[], readings=[], states=[])
        self.town = Town(accounts=[], history=history, by_id={}, calm=calm)
        self.outcome = Outcome()
        self._deaths: dict[str, Callable[[], Any]] = {
            "server killed": self._kill_a_server,
            "server told to end": self._end_a_server,
            "worker killed": self._kill_the_worker,
            "worker told to end": self._end_the_worker,
            "postmaster killed": self._kill_the_database,
            "postmaster told to end": self._end_the_database,
            "process of PostgreSQL killed": self._kill_a_backend,
            "sessions ended": self._end_sessions,
        }

    async def live(self, report: Callable[[str], None]) -> Outcome:
        """Let clients and deaths have their way; look at the books."""
        loop = asyncio.get_running_loop()
        ends, ended = loop.time() + self._plan.seconds, asyncio.Event()
        clients = [
            Client(number, self._plan.seed, self.town, self._members)
            for number in range(self._plan.clients)
        ]
        for client in clients:
            await client.settle()
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.live(ended))
            try:
                while not self.outcome.wrong:
                    deck = list(self._deaths)
                    self._chance.shuffle(deck)
                    for death in deck:
                        await self._die(death, report)
                    if loop.time() >= ends:
                        break
            finally:
                ended.set()
                self.town.calm.set()
        await self._check(report)
        self.outcome.wrong += await asyncio.to_thread(self._audit)
        self._sum_up()
        return self.outcome

    async def _die(self, death: str, report: Callable[[str], None]) -> None:
        await asyncio.sleep(self._chance.uniform(0.1, self._plan.rest_max_s))
        report(f"{death}, after {self.town.moving()} operations")
        restarted = await self._deaths[death]()
        self.outcome.deaths[death] += 1
        if restarted:
            await eventually(self._is_there)
            await self._check(report)

    async def _kill_a_server(self) -> None:
        member = self._chance.choice(self._members)
        member.kill()
        await member.start_again()

    async def _end_a_server(self) -> None:
        member = self._chance.choice(self._members)
        self._expect_good_end("a server", await member.stop())
        await member.start_again()

    async def _kill_the_worker(self) -> None:
        self._worker.kill()
        self._worker.start()

    async def _end_the_worker(self) -> None:
        self._expect_good_end("the worker", await self._worker.stop())
        self._worker.start()

    def _expect_good_end(self, who: str, exit_code: int) -> None:
        if exit_code != 0:
            self.outcome.wrong.append(f"{who} that was told to end has ended with {exit_code}")

    async def _kill_the_database(self) -> bool:
        self._database.kill(self._chance, backend=False)
        await self._database.stop()
        await self._database.start()
        return True

    async def _end_the_database(self) -> bool:
        await self._database.stop()
        await self._database.start()
        return True

    async def _kill_a_backend(self) -> bool:
        self._database.kill(self._chance, backend=True)
        return True

    async def _end_sessions(self) -> None:
        end = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = current_user AND pid <> pg_backend_pid()"
        )
        await on_connection(self._database.url, lambda owner: owner.execute(end))

    async def _is_there(self) -> bool:
        try:
            await on_connection(self._database.url, lambda owner: owner.execute("SELECT"))
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    async def _check(self, report: Callable[[str], None]) -> None:
        """Let the clients come to rest, and look at everything."""
        self.town.calm.clear()
        await eventually(self._at_rest)
        wrong = self.outcome.wrong
        id, ledger = await on_connection(self._database.url, self._read)
        await self._follow_the_feed(len(ledger.rows))
        ledger = msgspec.structs.replace(ledger, feed=self._feed)
        wrong += await on_connection(self._database.url, lambda owner: broken_rules(owner, id))
        wrong += await asyncio.to_thread(faults, self.town.history, ledger)
        async with opened(self._database.url) as database:
            wrong += map(str, await audit_everything(database, lambda _: None))
        self.outcome.checks += 1
        report(f"checked {len(ledger.rows)} transactions: {len(wrong)} faults")
        self.town.calm.set()

    async def _at_rest(self) -> bool:
        return self.town.busy == 0

    async def _read(self, owner: "asyncpg.Connection[Any]") -> tuple[Any, Ledger]:
        """Read the journal and the entries as they are in the tables."""
        (id,) = [row["ledger_id"] for row in await owner.fetch("SELECT * FROM picopay.ledger")]
        names = {
            row["id"]: row["reference"]
            for row in await owner.fetch("SELECT id, reference FROM picopay.account")
        }
        # The asset is in the reference of the outside: there is one asset here.
        names = {key: "world" if name.startswith("world") else name for key, name in names.items()}
        rows = [
            Row(
                row["id"].hex,
                row["idempotency_key"],
                tuple(
                    (names[posting.source], names[posting.destination], posting.amount)
                    for posting in _postings.decode(row["postings"])
                ),
                row["parent_id"].hex if row["parent_id"] else None,
            )
            for row in await owner.fetch("SELECT * FROM picopay.journal")
        ]
        entries: dict[str, list[Entry]] = {}
        for row in await owner.fetch("SELECT * FROM picopay.entry ORDER BY account_id, sequence"):
            entry = Entry(row["journal_id"].hex, row["posted_minor"], row["posted_after_minor"])
            entries.setdefault(names[row["account_id"]], []).append(entry)
        return id, Ledger(rows, entries, ())

    async def _follow_the_feed(self, count: int) -> None:
        """Read on where it was left, as whoever follows it does, until it has so many events."""

        async def complete() -> bool:
            member = self._chance.choice(self._members)
            after = self._feed[-1][0] if self._feed else 0
            answer = await member.client.get(f"/v1/events?after={after}&limit={_PAGE}")
            if answer.is_success:
                for event in answer.json()["data"]:
                    about = str(event["data"]["id"]).partition("_")[2]
                    self._feed.append((event["position"], about))
            return len(self._feed) >= count

        for _ in range(1 + count // _PAGE):
            if await complete():
                return
        await eventually(complete)

    def _audit(self) -> list[str]:
        """Run `picopay audit`, as an operator does in the end."""
        ran = subprocess.run(
            [sys.executable, "-m", "picopay_api", "audit", "--json"],
            env=environment() | {"DATABASE_URL": self._database.url.text},
            capture_output=True,
            text=True,
            timeout=_AUDIT_TIMEOUT_S,
            check=False,
        )
        if ran.returncode == 0:
            return []
        return [f"the audit has ended with {ran.returncode}: {ran.stdout} {ran.stderr}"]

    def _sum_up(self) -> None:
        history, outcome = self.town.history, self.outcome
        outcome.operations = len(history.operations)
        outcome.told = Counter(one.told for one in history.operations)
        outcome.replays, outcome.readings = len(history.replays), len(history.readings)
        outcome.asked_again = self.town.lost


@asynccontextmanager
async def bank(plan: Plan, directory: Path) -> AsyncIterator[Bank]:
    """Open a bank on a database of its own; nothing of it is left in the end, and no error was logged."""
    database = Database(directory / "database")
    await database.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.stop)
        await migrate.upgrade_async(database.url)
        worker = stack.enter_context(
            running(database.url, directory / "worker.log", "worker", **_TIMES)
        )
        members = await stack.enter_async_context(
            fleet(database.url, directory, plan.servers, **_TIMES)
        )
        yield Bank(plan, database, members, worker)
