"""The HTTP client of the benchmark: raw sockets and nothing in between, so that little goes to asking.

Run by `load.py` as a process of its own (`python -m benchmarks.client`), with a `Job` as JSON on stdin. It
says `measuring` and `measured` on stdout as it happens, then a `Report` as JSON. In a closed loop each
connection asks again as soon as it has its answer. In an open loop requests are due at a constant rate
whatever becomes of them, and latency counts from when a request was due, sent or not. Any answer that is
not expected ends it, with that answer on stderr. SIGTERM ends the measurement early.

`cluster_load.py` runs it in a pod, of the API's image: it takes nothing from elsewhere but msgspec.
"""

import array
import gc
import math
import random
import re
import select
import selectors
import signal
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time, sleep

import msgspec

from benchmarks.arithmetic import percentile
from benchmarks.schedule import Schedule

HOST = "127.0.0.1"
DRAIN_S = 15.0
"""How long the last answers may take; longer than a server lets a payment wait."""

CONNECT_S = 60.0
"""How long a server that may fail may be away."""

_CREATED = 201
_REFUSED = 503
_HEAD_END = b"\r\n\r\n"
_HEAD_BYTES_MAX = 16_384
_RECEIVE_BYTES = 65_536
_PAUSE_S = 0.05
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask for, how often at once or (`per_s`) in a second, and for how long.

    With `failures_expected` any answer and any lost connection is counted, and it goes on.
    """

    port: int
    host: str = HOST
    connections: int
    warm_up_s: float
    seconds: float
    api_key: str
    accounts_file: str
    hot: bool
    run: str
    """The first part of every idempotency key: unlike that of any other job."""
    per_s: float | None = None
    refusals_expected: bool = False
    failures_expected: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered: `statuses` from beginning to end, the rest while it was measured.

    From beginning to end, too: `uncertain` counts refusals and losses that leave open whether the payment was
    made, `lost` requests without an answer, and attempts to connect to nobody, `sent` all requests with an
    answer, `unsent` what was due and found no connection. Latencies are those of payments made, and of what
    was not sent, so far.
    """

    statuses: dict[int, int]
    uncertain: int
    lost: int
    count: int
    refused: int
    sent: int
    unsent: int
    seconds: float
    average_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_s: float


class Requests:
    """Makes requests, each with a key of its own; all but accounts, amount and key is made once."""

    def __init__(self, job: Job, accounts: list[bytes], seed: int) -> None:
        self._accounts = accounts
        self._hot = job.hot
        self._random = random.Random(seed).random
        self._number = 0
        self._run = job.run.encode()
        self._template = _template(job, accounts[0])

    def next(self) -> bytes:
        """Return the bytes of a request that was never made before."""
        accounts, chance = self._accounts, self._random
        self._number += 1
        if self._hot:  # the last account is paid by all others
            source, destination = int(chance() * (len(accounts) - 1)), -1
        else:
            source = int(chance() * len(accounts))
            destination = (source + 1 + int(chance() * (len(accounts) - 1))) % len(accounts)
        return self._template % (
            self._run,
            self._number,
            accounts[source],
            accounts[destination],
            100 + self._number % 900,
        )


def _template(job: Job, account: bytes) -> bytes:
    body = b'{"source":"%b","destination":"%b","amount":%d,"asset":"USD"}'
    length = len(body % (account, account, 100))
    return (
        (
            f"POST /v1/payments HTTP/1.1\r\nHost: {job.host}:{job.port}\r\n"
            f"Authorization: Bearer {job.api_key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {length}\r\n"
        ).encode()
        + b"Idempotency-Key: %b-%09d\r\n\r\n"
        + body
    )


def parse_answer(data: bytes) -> tuple[int, int] | None:
    """Return the status of an answer and the number of its bytes; None while it is not complete.

    Raises:
        ValueError: it is no answer of HTTP/1.1 that tells its length.
    """
    head_end = data.find(_HEAD_END)
    if head_end < 0:
        if len(data) > _HEAD_BYTES_MAX:
            raise ValueError(f"an answer without an end of its headers: {data[:200]!r}")
        return None
    status = _STATUS.match(data)
    length = _LENGTH.search(data, 0, head_end + 2)
    if status is None or length is None:
        raise ValueError(f"not an answer with a Content-Length: {data[:head_end]!r}")
    end = head_end + len(_HEAD_END) + int(length[1])
    return (int(status[1]), end) if len(data) >= end else None


class Connection:
    """A connection with one request on its way at a time, due at `due_s`."""

    __slots__ = ("due_s", "held", "receive", "send", "socket")

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=DRAIN_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.send: Callable[[bytes], int] = self.socket.send
        self.receive: Callable[[int], bytes] = self.socket.recv
        self.held = b""
        self.due_s = 0.0

    def is_readable(self) -> bool:
        """Tell whether the server has said something."""
        return bool(select.select([self.socket], [], [], 0)[0])


class Load:
    """Asks a server and counts its answers."""

    def __init__(self, job: Job, accounts: list[bytes]) -> None:
        self._job = job
        self._next_request = Requests(job, accounts, seed=job.connections).next
        self._selector = selectors.DefaultSelector()
        self._idle: deque[Connection] = deque()
        self._from_s = self._to_s = 0.0  # while it is measured
        self._latencies_s = array.array("d")
        self._statuses: Counter[int] = Counter()
        self._uncertain = self._refused = self._made = self._lost = 0
        self._on_way = 0
        self._stop_s = math.inf

    def stop(self) -> None:
        """Measure no longer."""
        self._stop_s = perf_counter()

    def run(self) -> Report:
        """Do the job.

        Raises:
            RuntimeError, TimeoutError, OSError: an answer was not what it should be, or did not come.
        """
        try:
            return self._run(self._job)
        finally:
            for key in list(self._selector.get_map().values()):
                key.data.socket.close()
            self._selector.close()

    def _run(self, job: Job) -> Report:
        for _ in range(job.connections):
            self._connect()
        began_s = perf_counter()
        self._from_s = began_s + job.warm_up_s
        self._to_s = self._from_s + job.seconds
        schedule = Schedule(began_s, job.per_s)
        self._ask_until(self._from_s, schedule)
        cpu_began_s = process_time()
        _say("measuring")
        self._ask_until(self._to_s, schedule)
        cpu_s = process_time() - cpu_began_s
        self._to_s = min(self._to_s, perf_counter())
        _say("measured")
        self._drain()
        return self._report(schedule, cpu_s)

    def _connect(self) -> None:
        connection = self._connection()
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._idle.append(connection)

    def _connection(self) -> Connection:
        latest_s = perf_counter() + CONNECT_S
        while True:
            try:
                return Connection(self._job.host, self._job.port)
            except OSError:
                if not self._job.failures_expected or perf_counter() > latest_s:
                    raise
                self._lost += 1
                sleep(_PAUSE_S)

    def _ask_until(self, end_s: float, schedule: Schedule) -> None:
        idle = self._idle
        while (now_s := perf_counter()) < min(end_s, self._stop_s):
            while idle and schedule.is_due(now_s):
                self._ask(idle.popleft(), schedule.take(now_s))
                now_s = perf_counter()
            until_s = min(end_s, schedule.next_s(now_s)) if idle else end_s
            self._take_answers(until_s - perf_counter())

    def _ask(self, connection: Connection, due_s: float) -> None:
        if self._job.failures_expected and connection.is_readable():
            # What any pool of connections does: one on which the server has said goodbye is not used again.
            self._replace(connection)
            connection = self._idle.pop()
        connection.due_s = due_s
        request = self._next_request()
        self._on_way += 1
        try:
            sent = connection.send(request)
        except ConnectionError:
            self._cut_off(connection)
        else:
            if sent != len(request):
                raise RuntimeError("a request did not fit into the connection")

    def _take_answers(self, timeout_s: float) -> None:
        """Wait for answers, not longer than this, and take them."""
        if self._job.per_s is not None and timeout_s > 0:
            # The selector itself waits for whole milliseconds: long, where several are due in one.
            select.select([self._selector], [], [], timeout_s)
            timeout_s = 0
        for key, _ in self._selector.select(max(timeout_s, 0)):
            self._take_answer(key.data)

    def _take_answer(self, connection: Connection) -> None:
        try:
            data = connection.receive(_RECEIVE_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            self._closed(connection)
            return
        if connection.held:
            data, connection.held = connection.held + data, b""
        try:
            answer = parse_answer(data)
        except ValueError as error:
            raise RuntimeError(str(error)) from error
        if answer is None:
            connection.held = data
            return
        now_s = perf_counter()
        status, end = answer
        expected = (
            status == _CREATED
            or self._job.failures_expected
            or (status == _REFUSED and self._job.refusals_expected)
        )
        if not expected or len(data) != end:
            raise RuntimeError(f"not one answer as expected: {data.decode('latin-1')}")
        self._statuses[status] += 1
        self._on_way -= 1
        self._count(status, data, connection.due_s, now_s)
        if (status != _CREATED or self._job.failures_expected) and _CLOSES.search(data):
            self._replace(connection)
        else:
            self._idle.append(connection)

    def _count(self, status: int, data: bytes, due_s: float, now_s: float) -> None:
        measured = self._from_s <= now_s < self._to_s
        if status == _CREATED:
            # Of a closed loop what was answered while it was measured; of an open one what was due.
            if self._from_s <= (now_s if self._job.per_s is None else due_s) < self._to_s:
                self._latencies_s.append(now_s - due_s)
            self._made += measured
        else:
            self._refused += measured
            self._uncertain += b'"overloaded"' not in data

    def _closed(self, connection: Connection) -> None:
        if connection not in self._idle:
            self._cut_off(connection)
        elif self._job.refusals_expected or self._job.failures_expected:
            self._idle.remove(connection)
            self._replace(connection)
        else:
            raise RuntimeError(f"the server has closed a connection; {dict(self._statuses)}")

    def _cut_off(self, connection: Connection) -> None:
        """Go on without the answer to a request on its way."""
        if not self._job.failures_expected:
            raise RuntimeError(f"the server has closed a connection; {dict(self._statuses)}")
        self._on_way -= 1
        self._lost += 1
        self._uncertain += 1
        self._replace(connection)

    def _replace(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()
        self._connect()

    def _drain(self) -> None:
        latest_s = perf_counter() + DRAIN_S
        while self._on_way:
            left_s = latest_s - perf_counter()
            if left_s <= 0:
                raise TimeoutError(f"{self._on_way} answers did not come within {DRAIN_S:g} s")
            self._take_answers(left_s)

    def _report(self, schedule: Schedule, cpu_s: float) -> Report:
        waiting_s = schedule.waiting_s(self._to_s)
        latencies_ms = sorted(1000 * taken_s for taken_s in (*self._latencies_s, *waiting_s))
        if not self._made or not latencies_ms:
            raise RuntimeError("not one payment came while it was measured: measure longer")
        return Report(
            statuses=dict(self._statuses),
            uncertain=self._uncertain,
            lost=self._lost,
            count=self._made,
            refused=self._refused,
            sent=self._statuses.total(),
            unsent=len(waiting_s),
            seconds=self._to_s - self._from_s,
            average_ms=sum(latencies_ms) / len(latencies_ms),
            p50_ms=percentile(latencies_ms, 0.5),
            p99_ms=percentile(latencies_ms, 0.99),
            max_ms=latencies_ms[-1],
            cpu_s=cpu_s,
        )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Read a job, do it, write the report."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    accounts = Path(job.accounts_file).read_bytes().split()
    # Whatever happens, it ends: connecting takes a while, too, where there are many.
    signal.alarm(int(job.warm_up_s + job.seconds + 4 * DRAIN_S))
    gc.disable()  # nothing here makes cycles, and a pause would be taken for the server's
    load = Load(job, accounts)
    signal.signal(signal.SIGTERM, lambda *_: load.stop())
    try:
        report = load.run()
    except (RuntimeError, TimeoutError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    _say(msgspec.json.encode(report).decode())


if __name__ == "__main__":
    main()
