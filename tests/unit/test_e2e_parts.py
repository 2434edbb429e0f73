"""What the end-to-end tests stand on: where they may be run, and a customer who counts honestly."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from support.e2e.context import objection
from support.e2e.customer import PAUSE_S, Connection, Customer

TOLD = {"name": "c", "headers": {}, "payment": {"amount": 1}, "per_s": 200, "connections": 3}


@pytest.mark.parametrize(
    "context", ["kind-dev", "k3d-dev", "minikube", "docker-desktop", "picopay-cluster"]
)
def test_clusters_of_a_developers_machine_are_known(context: str) -> None:
    assert objection(context, None) is None


@pytest.mark.parametrize("context", ["production", "arn:aws:eks:eu-1:1:cluster/kind-", "my-kind-"])
def test_another_cluster_has_to_be_named(context: str) -> None:
    assert f"--e2e-context={context}" in str(objection(context, None))
    assert objection(context, context) is None


def test_the_cluster_that_was_named_must_be_the_current_one() -> None:
    assert "is production, not staging" in str(objection("production", "staging"))
    assert "no current kube context" in str(objection("", "staging"))


class Api(BaseHTTPRequestHandler):
    """Refuses each key once, then makes a payment of it; closes connections as `closing` says."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()
    refusing = False
    closing = False

    def do_POST(self) -> None:  # http.server calls it so
        key = self.headers["Idempotency-Key"]
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked[key] += 1
        made = self.asked[key] > 1 or not self.refusing
        answer = json.dumps({"id": f"pay_{key}"} if made else {"code": "busy"}).encode()
        self.send_response(201 if made else 503)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        if (
            self.closing
        ):  # without a word, as a server that ends does with a connection that is idle
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as in the class above
        """Say nothing."""


@contextmanager
def serving(handler: type[Api]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_refused_payment_is_counted_and_tried_again_with_its_key() -> None:
    class Refusing(Api):
        asked: ClassVar[Counter[str]] = Counter()
        refusing = True

    with serving(Refusing) as url:
        told = Customer({**TOLD, "url": url, "seconds": 0.3}).run()
    assert set(Refusing.asked.values()) == {2}
    assert set(told["ids"]) == set(Refusing.asked)
    assert told["failed"] == len(told["ids"]) > 3
    assert told["longest_wait_s"] > PAUSE_S
    assert told["lost"] == []
    assert {failure["what"] for failure in told["failures"]} == {'503 {"code": "busy"}'}


def test_a_connection_that_was_closed_meanwhile_is_not_used_and_not_counted() -> None:
    class Closing(Api):
        asked: ClassVar[Counter[str]] = Counter()
        closing = True

    with serving(Closing) as url, closing(Connection(url, {})) as connection:
        for number in range(3):
            status, _ = connection.request("POST", "/v1/payments", {}, f"key-{number}")
            assert status == 201
            threading.Event().wait(0.1)


def test_a_server_that_is_not_there_costs_failures_and_in_the_end_the_payment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("support.e2e.customer.GIVE_UP_S", 0.2)
    with serving(Api) as url:
        pass
    told = Customer({**TOLD, "url": url, "seconds": 0.1, "connections": 1}).run()
    assert told["ids"] == {}
    assert told["lost"] == ["c-0"]
    assert told["failed"] > 1
