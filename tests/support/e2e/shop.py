"""An engine in a namespace of its own, with customers in pods beside it: what the end-to-end tests act on.

Used by tests/e2e. Requests are made from inside the cluster, as those of a service of the company would be;
so it does not matter where the tests run.
"""

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from picopay_operator import names
from picopay_operator.names import Component
from support.controlplane.engine import overlaid
from support.e2e.kube import PATIENCE_S, CommandError, Kube, Manifest, until

NAME = "payments"
SMALLEST: Manifest = {"database": {"postgres": {}}}
SMALL: Manifest = {
    # A small node has room for several of these, and what happens to their pods is soon known.
    "replicas": 2,
    "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}},
    "worker": {"resources": {"requests": {"cpu": "20m", "memory": "96Mi"}}},
    "probes": {"startup": {"periodSeconds": 1}, "readiness": {"periodSeconds": 1}},
}
PAYMENT = {"source": "@world", "destination": "@shop", "amount": 1, "asset": "USD"}

_PROGRAM = Path(__file__).with_name("customer.py")
_FOLDER = "/customer"
_WAIT_MAX_S = 15.0
"""Far more than a payment takes on a busy node, and less than one that has got lost on its way."""


class Takings(msgspec.Struct, frozen=True):
    """What came of a customer's payments, as `customer.py` prints it."""

    ids: dict[str, str]
    """The payment that each idempotency key has made."""
    failures: list[dict[str, Any]]
    """Requests that were not answered by 201, the first thousand of them; they were tried again."""
    failed: int
    lost: list[str]
    """Keys of payments that were never acknowledged."""
    seconds: float
    p50_ms: float | None
    p99_ms: float | None
    longest_gap_s: float | None
    """The longest time in which nobody's payment was acknowledged."""
    longest_wait_s: float
    """The longest time from when a payment was due until it was acknowledged, with all tries."""

    @property
    def troubles(self) -> list[str]:
        """Return what a customer would complain about; nothing, when none of it should have been noticed."""
        complaints = [str(failure) for failure in self.failures]
        if not self.ids:
            complaints.append("nothing was paid")
        if self.longest_wait_s > _WAIT_MAX_S:
            complaints.append(f"a payment took {self.longest_wait_s:.0f} s")
        return complaints


class Shop:
    """An engine, what it needs, and those who pay."""

    def __init__(self, kube: Kube, image: str) -> None:
        """`image` is one of the API, for the customers' pods."""
        self.kube = kube
        self.url = f"http://{names.api(NAME)}"
        self.image = image
        self._takings: list[Takings] = []
        self._customers = 0

    def apply(self, spec: Manifest) -> None:
        """Apply the engine as it shall be."""
        self.kube.apply(
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "metadata": {"name": NAME},
                "spec": spec,
            }
        )

    def change(self, change: Manifest) -> None:
        """Change a part of what the engine shall be, as `kubectl patch` does; None takes a part away."""
        self.kube("patch", "ppe", NAME, "--type=merge", f"--patch={json.dumps({'spec': change})}")

    def annotate(self, annotation: str, value: str) -> None:
        """Ask the engine for something once."""
        self.kube("annotate", "--overwrite", f"ppe/{NAME}", f"{annotation}={value}")

    def ready(self, within_s: float = PATIENCE_S) -> None:
        """Wait until the engine is ready, with the command of the guide."""
        wait = ("wait", "--for=condition=Ready", f"ppe/{NAME}", f"--timeout={within_s:.0f}s")
        try:
            self.kube(*wait)
        except CommandError as error:
            error.add_note(json.dumps(self.engine().get("status"), indent=1))
            raise

    def engine(self) -> Any:
        """Return the engine."""
        return self.kube.get("ppe", NAME)

    def condition(self, kind: str) -> Any:
        """Return a condition, for the spec that there is; an empty one while there is none."""
        found = self.engine()
        for one in found.get("status", {}).get("conditions", ()):
            if (one["type"], one["observedGeneration"]) == (kind, found["metadata"]["generation"]):
                return one
        return {"status": "Unknown", "reason": "", "message": ""}

    def until(self, kind: str, status: str, reason: str, within_s: float = PATIENCE_S) -> str:
        """Wait until a condition is so; return its message."""
        last: Any = None

        def look() -> Any:
            nonlocal last
            last = self.condition(kind)
            return (last["status"], last["reason"]) == (status, reason) and last

        try:
            return str(until(look, f"{kind}={status} {reason}", within_s)["message"])
        except TimeoutError as error:
            error.add_note(json.dumps(last))
            raise

    def open(self, spec: Manifest) -> None:
        """Have the engine serve, with an account that can be paid to, and somebody to ask it."""
        self.apply(spec)
        self.ready()
        self.customers_come()
        self.open_account()

    def open_account(self) -> None:
        """Make the account that can be paid to."""
        made = self.ask("POST", "/v1/accounts", {"reference": "shop", "asset": "USD"}, "shop")
        assert made[0] in {200, 201}, made

    def customers_come(self) -> None:
        """Put up what the customers' pods run, and one of them that waits for requests to make."""
        self.kube.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "customer"},
                "data": {"customer.py": _PROGRAM.read_text(encoding="utf-8")},
            },
            self._pod("client", "wait", {}),
        )
        self.kube("wait", "--for=condition=Ready", "pod/client", f"--timeout={PATIENCE_S:.0f}s")

    def admin_key(self, key: str = "api-key") -> str:
        """Return the administrator's key, as it is delivered."""
        secret = self.kube.get("secret", names.admin_key(NAME))
        return b64decode(secret["data"][key]).decode()

    def ask(
        self, method: str, path: str, body: Any = None, key: str | None = None, **more: str
    ) -> tuple[int, Any]:
        """Make one request from inside the cluster; return the status of the answer and its JSON.

        `more` are the API's `secret`, the administrator's key when it is not given; the `url`, the Service's
        when it is not given; and the `host` that is asked for there.
        """
        asked = {"method": method, "path": path, "body": body, "key": key}
        status, answer = self._have_done("ask", asked, **more)
        return status, answer

    def _have_done(
        self, task: str, asked: Mapping[str, Any], secret: str = "", url: str = "", host: str = ""
    ) -> Any:
        told = self.kube(
            *("exec", "--stdin", "client", "--", "python", f"{_FOLDER}/customer.py", task),
            given=json.dumps({**asked, **self._door(secret, url, host)}),
        )
        return json.loads(told)

    def _door(self, secret: str, url: str, host: str) -> dict[str, Any]:
        """Return where customers go, and what they say there in every request."""
        headers = {"Authorization": f"Bearer {secret or self.admin_key()}"}
        return {"url": url or self.url, "headers": headers | ({"Host": host} if host else {})}

    @contextmanager
    def customer(
        self, *, per_s: float | None = 40, connections: int = 8, url: str = "", host: str = ""
    ) -> Iterator["Customer"]:
        """Have a customer pay until the end of the block, and count what it paid in.

        `url` is where it pays, the Service as a rule; `host` what it asks for there.
        """
        self._customers += 1
        name = f"customer-{self._customers}"
        told = {
            "url": url or self.url,
            "headers": {"Host": host} if host else {},
            "name": name,
            "payment": PAYMENT,
            "per_s": per_s,
            "connections": connections,
        }
        self.kube.apply(self._pod(name, "pay", told))
        self.kube("wait", "--for=condition=Ready", f"pod/{name}", f"--timeout={PATIENCE_S:.0f}s")
        customer = Customer(self.kube, name)
        yield customer
        self._takings.append(customer.leave())

    def sound(self) -> None:
        """Demand that what customers were told is what is in the books, and that these are in order."""
        assert [takings.lost for takings in self._takings if takings.lost] == []
        told = {payment: key for takings in self._takings for key, payment in takings.ids.items()}
        assert len(told) == sum(len(takings.ids) for takings in self._takings), "one for two keys"
        booked = self._have_done("list", {"path": "/v1/payments"})
        assert {one["id"]: one["metadata"]["order"] for one in booked} == told
        assert len(booked) == len(told)
        _, balance = self.ask("GET", "/v1/accounts/@shop/balance")
        assert int(balance["balance"]["posted"]) == len(told)
        audit = self.kube("exec", f"deployment/{self.deployment()}", "--", "picopay", "audit")
        assert audit, "it ends with 1, which is an error, when something does not add up"

    def deployment(self) -> str:
        """Return the name of the Deployment to which the Service leads."""
        service = self.kube.get("service", names.api(NAME))
        return str(service["metadata"].get("annotations", {}).get(names.ACTIVE, names.api(NAME)))

    def pods(self, component: Component = Component.API) -> list[Any]:
        """Return the pods of a kind that are not about to end."""
        labels = names.selector(NAME, component)
        found = self.kube.list("pod", ",".join(f"{key}={value}" for key, value in labels.items()))
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def lives(self, *components: Component) -> set[tuple[str, int]]:
        """Return the containers of pods of some kinds, or of all: each start of one is something else."""
        return {
            (one["metadata"]["uid"], status["restartCount"])
            for component in components or (Component.API, Component.WORKER, Component.DATABASE)
            for one in self.pods(component)
            for status in one["status"].get("containerStatuses", ())
        }

    def _key(self) -> Manifest:
        """Return the variable with the API key: diagnostics show pods, and are no place for secrets."""
        where = {"name": names.admin_key(NAME), "key": "api-key", "optional": True}
        return {"name": "API_KEY", "valueFrom": {"secretKeyRef": where}}

    def _pod(self, name: str, task: str, told: Mapping[str, Any]) -> Manifest:
        closed = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        container = {
            "name": "customer",
            "image": self.image,
            "command": ["python", f"{_FOLDER}/customer.py", task],
            "env": [{"name": "CUSTOMER", "value": json.dumps(told)}, self._key()],
            "securityContext": closed,
            "volumeMounts": [{"name": "program", "mountPath": _FOLDER}],
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "program", "configMap": {"name": "customer"}}],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "customer"}},
            "spec": spec,
        }


class Customer:
    """A customer who pays in a pod."""

    def __init__(self, kube: Kube, name: str) -> None:
        self._kube = kube
        self.name = name
        self._takings: Takings | None = None

    def leave(self) -> Takings:
        """Have the customer pay no more; return what came of the payments."""
        if self._takings is None:
            stop = "import os, signal; os.kill(1, signal.SIGTERM)"
            self._kube("exec", self.name, "--", "python", "-c", stop)
            done = f"--timeout={PATIENCE_S:.0f}s"
            self._kube("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{self.name}", done)
            self._takings = msgspec.json.decode(self._kube("logs", self.name), type=Takings)
        return self._takings


def small(change: Manifest) -> Manifest:
    """Return the spec of a small engine, with something more."""
    return overlaid(SMALL, change)
