"""What wrong figures of the benchmark could come from: its client, and the histories that it fills in."""

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.client import Job, Load, Report
from benchmarks.fill import fill
from benchmarks.ground import make_tenant
from benchmarks.history import History
from benchmarks.servers import BenchmarkError
from benchmarks.soundness import Tally, check
from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.commands import Pay
from picopay_api.engine.engine import Engine
from picopay_api.settings import Settings
from support.postgres import on_connection

ACCOUNTS = [b"acct_%032x" % number for number in range(9)]
MADE = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}"
REFUSED = (
    b'HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 21\r\n\r\n{"code":"overloaded"}'
)


@contextmanager
def answering(
    answer: bytes, *, pause_s: float = 0, closing: bool = False, cut_off_every: int = 0
) -> Iterator[int]:
    """Answer every request so, in two parts, over any number of connections; lend the port.

    Every so manieth request is not answered, if that is said: its connection is closed.
    """
    stopped = threading.Event()
    numbers = itertools.count(1)

    def serve(connection: socket.socket) -> None:
        # A client whose time is up goes away in the middle of an answer.
        with connection, suppress(ConnectionError):
            while connection.recv(4096) and not stopped.wait(pause_s):
                if cut_off_every and next(numbers) % cut_off_every == 0:
                    return
                connection.sendall(answer[:30])
                connection.sendall(answer[30:])
                if closing:
                    return

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            if stopped.is_set():
                connection.close()
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield port
        finally:
            stopped.set()
            socket.create_connection(("127.0.0.1", port)).close()
            accepting.join()


def load(port: int, **more: float | bool) -> Report:
    return asked(port, **more).run()


def asked(port: int, **more: float | bool) -> Load:
    values = {
        "port": port,
        "connections": 2,
        "warm_up_s": 0.1,
        "seconds": 1.0,
        "api_key": "ppk_test",
        "accounts_file": "",
        "hot": True,
        "run": "run",
        **more,
    }
    return Load(Job(**values), ACCOUNTS)  # type: ignore[arg-type]  # of many types


def test_each_connection_asks_again_when_it_has_its_answer() -> None:
    with answering(MADE, pause_s=0.02) as port:
        report = load(port)
    assert report.statuses[201] >= report.count > 0
    assert report.p50_ms >= 20
    assert report.count <= 2 * 1.0 / 0.02 + 2
    assert (report.refused, report.unsent, report.uncertain) == (0, 0, 0)


def test_latency_counts_from_when_a_request_was_due() -> None:
    # 100 a second, and a server that makes 2 in 100 ms: most are never sent, and none is left out.
    with answering(MADE, pause_s=0.1) as port:
        report = load(port, per_s=100.0)
    assert report.sent + report.unsent in {110, 111}
    assert report.unsent > 60
    assert report.max_ms > 300


def test_refusals_are_counted_and_end_a_run_that_does_not_expect_them() -> None:
    with answering(REFUSED, closing=True) as port:
        with pytest.raises(RuntimeError, match="not one payment"):
            load(port, per_s=50.0, refusals_expected=True)
        with pytest.raises(RuntimeError, match="not one answer as expected"):
            load(port)


def test_requests_that_are_not_answered_are_counted_where_that_is_expected() -> None:
    with answering(MADE, cut_off_every=5) as port:
        report = load(port, failures_expected=True, per_s=30.0)
        with pytest.raises(RuntimeError, match="the server has closed a connection"):
            load(port)
    assert report.lost == report.uncertain > 3
    assert report.sent == report.statuses[201] >= 4 * report.lost


def test_answers_that_are_no_payments_are_counted_where_that_is_expected() -> None:
    with answering(REFUSED, closing=True) as port, pytest.raises(RuntimeError, match="not one pay"):
        load(port, per_s=50.0, failures_expected=True)


def test_a_connection_that_was_closed_meanwhile_is_not_used_and_not_counted() -> None:
    with answering(MADE, closing=True) as port:
        report = load(port, per_s=20.0, failures_expected=True)
    assert (report.lost, report.uncertain) == (0, 0)
    assert report.statuses[201] > 15


def test_nobody_to_connect_to_is_counted_and_in_the_end_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.client.CONNECT_S", 0.2)
    with answering(MADE) as port:
        pass
    client = asked(port, failures_expected=True)
    with pytest.raises(ConnectionError):
        client.run()
    assert client._lost > 1


def test_a_measurement_ends_early_when_it_is_stopped() -> None:
    with answering(MADE, pause_s=0.01) as port:
        client = asked(port, seconds=600.0)

        def stop_after_a_payment() -> None:
            while not client._made:
                threading.Event().wait(0.01)
            client.stop()

        stopping = threading.Thread(target=stop_after_a_payment)
        stopping.start()
        report = client.run()
        stopping.join()
    assert report.seconds < 600
    assert report.count > 0


async def test_a_history_that_was_filled_in_is_audited_and_goes_on(
    database_url: DatabaseUrl, tmp_path: Path
) -> None:
    async with Engine.open(Settings(database_url=database_url)) as engine:
        tenant = await make_tenant(engine, database_url, "grown", 40, tmp_path)
        history = History.of(1_000, 40, datetime.now(UTC) - timedelta(hours=1))
        filling = await fill(database_url, tenant, history, lambda _: None)
        assert filling.rows == 1_000
        await check(database_url, Tally(filling.rows))

        source, destination = tenant.accounts[:2]
        asked = Pay(source=source, destination=destination, amount_minor=1, asset="USD")
        await engine.payments.create(tenant.ledger, asked, "the next one")
        await check(database_url, Tally(filling.rows + 1))
        with pytest.raises(BenchmarkError, match="1000 payments were acknowledged, 1001 are there"):
            await check(database_url, Tally(filling.rows))


async def test_what_does_not_add_up_ends_the_benchmark(
    database_url: DatabaseUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Engine.open(Settings(database_url=database_url)) as engine:
        await make_tenant(engine, database_url, "odd", 2, tmp_path)
    change = "UPDATE picopay.balance SET posted_minor = posted_minor + 5"
    await on_connection(database_url, lambda connection: connection.execute(change))
    with pytest.raises(BenchmarkError, match="the audit has"):
        await check(database_url, Tally())
    monkeypatch.setattr("benchmarks.soundness.AUDITED_MAX", -1)  # what is too large for the audit
    with pytest.raises(BenchmarkError, match=r"balances_that_differ.*money_from_nowhere"):
        await check(database_url, Tally())
