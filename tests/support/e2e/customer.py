"""A customer of an engine, in a pod: pays on and on, and notes what came of each payment.

Runs in containers of the API's image, from a ConfigMap, so it takes nothing but the standard library, and
imports nothing of the project. `shop.py` starts it and reads what it prints: one line of JSON at the end.
Its tasks: `pay` does as the environment says, `ask` makes a request and `list` walks a whole list, of which
they are told on standard input, and `wait` is there for the two.
"""

import http.client
import itertools
import json
import os
import select
import signal
import sys
import threading
import time
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 30.0
GIVE_UP_S = 120.0
"""How long one payment is tried, with its key, until it counts as lost."""

PAUSE_S = 0.05


class Connection:
    """A connection that is kept, and made anew when the server has closed it."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self._kept = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=TIMEOUT_S)
        self._headers = {"Content-Type": "application/json", **headers}

    def close(self) -> None:
        """End it."""
        self._kept.close()

    def request(self, method: str, path: str, body: Any, key: str | None) -> tuple[int, Any]:
        """Return the status of the answer and its JSON."""
        socket = self._kept.sock
        # What any pool of connections does: one on which the server has said goodbye is not used again.
        if socket is not None and select.select([socket], [], [], 0)[0]:
            self._kept.close()
        headers = {**self._headers, **({"Idempotency-Key": key} if key else {})}
        content = None if body is None else json.dumps(body)
        try:
            self._kept.request(method, path, content, headers)
            answer = self._kept.getresponse()
            return answer.status, decoded(answer.read())
        except BaseException:
            self._kept.close()
            raise


def decoded(content: bytes) -> Any:
    """Return what an answer says; what stands between may answer with a text."""
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")


class Customer:
    """Threads that pay at one pace. Every payment is tried with its key until it is acknowledged."""

    def __init__(self, told: dict[str, Any]) -> None:
        key = os.environ.get("API_KEY")
        self._told = told
        self._headers = told["headers"] | ({"Authorization": f"Bearer {key}"} if key else {})
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._ended = threading.Event()
        self.ids: dict[str, str] = {}
        self.failures: list[dict[str, Any]] = []
        self.lost: list[str] = []
        self.latencies_s: list[float] = []
        self.longest_wait_s = 0.0
        self.times_s: list[float] = []

    def run(self) -> dict[str, Any]:
        """Pay until SIGTERM, or for as long as was said; return what came of it."""
        signal.signal(signal.SIGTERM, lambda *_: self._ended.set())
        threads = [threading.Thread(target=self._pay_on) for _ in range(self._told["connections"])]
        for thread in threads:
            thread.start()
        self._ended.wait(self._told.get("seconds"))
        self._ended.set()
        for thread in threads:
            thread.join()
        return self._summary()

    def _pay_on(self) -> None:
        pace = self._told.get("per_s")
        with closing(Connection(self._told["url"], self._headers)) as connection:
            while not self._ended.is_set():
                number = next(self._numbers)
                due = self._began + number / pace if pace else time.monotonic()
                if self._ended.wait(max(0.0, due - time.monotonic())):
                    return
                self._pay(connection, f"{self._told['name']}-{number}", due)

    def _pay(self, connection: Connection, key: str, due: float) -> None:
        first = time.monotonic()
        while True:
            asked = time.monotonic()
            try:
                status, told = connection.request(
                    "POST",
                    "/v1/payments",
                    {**self._told["payment"], "metadata": {"order": key}},
                    key,
                )
            except (OSError, http.client.HTTPException) as error:
                failure = f"no answer: {error!r}"
            else:
                if status == http.client.CREATED:
                    self._note(key, told["id"], asked, due)
                    return
                failure = f"{status} {json.dumps(told)[:200]}"
            with self._lock:
                at_s = round(time.monotonic() - self._began, 3)
                self.failures.append({"at_s": at_s, "key": key, "what": failure})
                if time.monotonic() - first > GIVE_UP_S:
                    self.lost.append(key)
                    return
            time.sleep(PAUSE_S)

    def _note(self, key: str, payment: str, asked: float, due: float) -> None:
        now = time.monotonic()
        with self._lock:
            self.ids[key] = payment
            self.latencies_s.append(now - asked)
            self.longest_wait_s = max(self.longest_wait_s, now - due)
            self.times_s.append(now - self._began)

    def _summary(self) -> dict[str, Any]:
        times = sorted(self.times_s)
        ordered = sorted(self.latencies_s)
        gaps = [after - before for before, after in itertools.pairwise([0.0, *times])]
        return {
            "ids": self.ids,
            "failures": self.failures[:1000],
            "failed": len(self.failures),
            "lost": self.lost,
            "seconds": times[-1] if times else 0.0,
            "p50_ms": 1000 * ordered[len(ordered) // 2] if ordered else None,
            "p99_ms": 1000 * ordered[len(ordered) * 99 // 100] if ordered else None,
            "longest_gap_s": max(gaps, default=None),
            "longest_wait_s": self.longest_wait_s,
        }


def ask() -> tuple[int, Any]:
    """Make one request; return the status of the answer and its JSON."""
    asked = json.load(sys.stdin)
    with closing(Connection(asked["url"], asked["headers"])) as connection:
        return connection.request(
            asked["method"], asked["path"], asked.get("body"), asked.get("key")
        )


def walk() -> list[Any]:
    """Return all there is in a list, page after page."""
    asked = json.load(sys.stdin)
    found: list[Any] = []
    cursor = ""
    with closing(Connection(asked["url"], asked["headers"])) as connection:
        while True:
            path = f"{asked['path']}?limit=100{cursor}"
            status, page = connection.request("GET", path, None, None)
            if status != http.client.OK:
                raise RuntimeError(f"{status} {page}")
            found += page["data"]
            if not page["has_more"]:
                return found
            cursor = f"&cursor={page['next_cursor']}"


def wait() -> None:
    """Do nothing, until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()


TASKS = {
    "pay": lambda: Customer(json.loads(os.environ["CUSTOMER"])).run(),
    "ask": ask,
    "list": walk,
    "wait": wait,
}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]]()), flush=True)
