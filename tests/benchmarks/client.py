"""The HTTP client of the benchmark: raw sockets on uvloop, so that little of the machine goes to asking.

Run by `load.py` as a process of its own (`python -m benchmarks.client`), with a `Job` as JSON on stdin. It
says `measuring` and `measured` on stdout as it happens, then a `Report` as JSON. Closed loop: each
connection asks again as soon as it has its answer. Any answer but 201 ends it, with that answer on stderr.
"""

import array
import asyncio
import gc
import random
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from time import perf_counter, process_time
from typing import cast

import msgspec
import uvloop

from benchmarks.arithmetic import percentile

HOST = "127.0.0.1"
DRAIN_S = 15.0
"""How long the last answers may take; longer than a server lets a payment wait."""

_CREATED = 201
_HEAD_END = b"\r\n\r\n"
_HEAD_BYTES_MAX = 16_384
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask for, how often at once, and for how long."""

    port: int
    connections: int
    warm_up_s: float
    seconds: float
    api_key: str
    accounts_file: str
    hot: bool
    run: str
    """The first part of every idempotency key: unlike that of any other job."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered: `statuses` from beginning to end, the rest while it was measured."""

    statuses: dict[int, int]
    count: int
    seconds: float
    average_ms: float
    p50_ms: float
    p99_ms: float
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
            f"POST /v1/payments HTTP/1.1\r\nHost: {HOST}:{job.port}\r\n"
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


class Load:
    """What all connections share: whether to ask, whether to count, and what was counted."""

    def __init__(self, requests: Requests, connections: int) -> None:
        self.requests = requests
        self.waiting = connections
        self.asking = True
        self.counting = False
        self.statuses: Counter[int] = Counter()
        self.latencies_s = array.array("d")
        loop = asyncio.get_running_loop()
        self.failure: asyncio.Future[None] = loop.create_future()
        self.drained: asyncio.Future[None] = loop.create_future()

    def rest(self) -> None:
        """Note that a connection has its last answer."""
        self.waiting -= 1
        if not self.waiting:
            self.drained.set_result(None)

    def fail(self, reason: str) -> None:
        """End the measurement."""
        self.asking = False
        if not self.failure.done():
            self.failure.set_exception(RuntimeError(f"{reason}; statuses: {dict(self.statuses)}"))


class Connection(asyncio.Protocol):
    """A connection with one request on its way at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport
        self._received = b""
        self._asked_s = 0.0
        self._resting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # what TCP has in any event loop

    def ask(self) -> None:
        """Send the next request."""
        request = self._load.requests.next()
        self._asked_s = perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        try:
            answer = parse_answer(data)
        except ValueError as error:
            self._load.fail(str(error))
            return
        if answer is None:
            self._received = data
            return
        self._received = b""
        now_s = perf_counter()
        load = self._load
        status, end = answer
        load.statuses[status] += 1
        if status != _CREATED or len(data) != end:
            load.fail(f"not one answer with status 201: {data.decode('latin-1')}")
            return
        if load.counting:
            load.latencies_s.append(now_s - self._asked_s)
        if load.asking:
            self.ask()
        else:
            self._resting = True
            load.rest()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._resting:
            self._load.fail(f"the server has closed a connection: {exc}")

    def close(self) -> None:
        self._transport.close()


async def run(job: Job, accounts: list[bytes]) -> Report:
    """Do a job between these accounts.

    Raises:
        RuntimeError, TimeoutError: an answer was not 201, or did not come.
    """
    load = Load(Requests(job, accounts, seed=job.connections), job.connections)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: load.fail(str(context)))
    connections = [
        (await loop.create_connection(lambda: Connection(load), HOST, job.port))[1]
        for _ in range(job.connections)
    ]
    for connection in connections:
        connection.ask()
    await _unless_failed(load, job.warm_up_s)
    load.counting = True
    began_s, cpu_began_s = perf_counter(), process_time()
    _say("measuring")
    await _unless_failed(load, job.seconds)
    load.counting = load.asking = False
    seconds, cpu_s = perf_counter() - began_s, process_time() - cpu_began_s
    _say("measured")
    await _unless_failed(load, DRAIN_S, load.drained)
    if not load.drained.done():
        raise TimeoutError(f"{load.waiting} answers did not come within {DRAIN_S:g} s")
    for connection in connections:
        connection.close()
    load.failure.cancel()
    return _report(load, seconds, cpu_s)


async def _unless_failed(load: Load, seconds: float, *ended: asyncio.Future[None]) -> None:
    """Let time pass, or what ends sooner."""
    await asyncio.wait([load.failure, *ended], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if load.failure.done():
        load.failure.result()


def _report(load: Load, seconds: float, cpu_s: float) -> Report:
    latencies_ms = sorted(latency * 1000 for latency in load.latencies_s)
    if not latencies_ms:
        raise RuntimeError("not one answer came while it was measured: measure longer")
    return Report(
        statuses=dict(load.statuses),
        count=len(latencies_ms),
        seconds=seconds,
        average_ms=sum(latencies_ms) / len(latencies_ms),
        p50_ms=percentile(latencies_ms, 0.5),
        p99_ms=percentile(latencies_ms, 0.99),
        cpu_s=cpu_s,
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Read a job, do it, write the report."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    accounts = Path(job.accounts_file).read_bytes().split()
    signal.alarm(int(job.warm_up_s + job.seconds + 2 * DRAIN_S))  # whatever happens, it ends
    gc.disable()  # nothing here makes cycles, and a pause would be taken for the server's
    try:
        report = uvloop.run(run(job, accounts))
    except (RuntimeError, TimeoutError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    _say(msgspec.json.encode(report).decode())


if __name__ == "__main__":
    main()
