"""A cluster in memory, for tests of the plan: it takes what a plan wants, and plays what Kubernetes would do.

`World.settle` plans, carries out and plans again until nothing is left to do; between passes tests let Jobs
end and pods come up. Only as much of Kubernetes is played as the plan looks at; tests of the control plane
have the real one.
"""

import copy
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from picopay_operator import names
from picopay_operator.cache import _slim
from picopay_operator.conditions import Notice, Type
from picopay_operator.contract import ADMIN_KEY, PREVIOUS_ADMIN_KEY
from picopay_operator.manifests.context import Manifest
from picopay_operator.plan import plan
from picopay_operator.plan.outcome import Generated, Observed, Plan, Release, SecretSeen
from picopay_operator.resources import OPTIONAL, Ref
from picopay_operator.spec.engine import Engine
from picopay_operator.spec.status import Condition

RELEASE = Release("1.4.0", "picopay/picopay-api", "docker.io/library/postgres")
PASSES_MAX = 20

type Object = dict[str, Any]


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def secret(**values: str) -> SecretSeen:
    """A Secret of somebody else."""
    return SecretSeen({name.replace("_", "-"): digest(value) for name, value in values.items()})


def report(**changes: Any) -> str:
    """What a migration that had nothing to do says."""
    said: Object = {
        "ok": True,
        "exit_code": 0,
        "code": None,
        "detail": None,
        "release": "1.4.0",
        "current": "0001",
        "head": "0001",
        "min_compatible": "0001",
        "oldest_release": "0001",
        "steps": [],
        "waiting": [],
        "plan_hash": None,
        "applied": [],
        "connections_max": 97,
    }
    return msgspec.json.encode(said | changes).decode()


class World:
    """One engine and its surroundings. `spec` is as in a manifest."""

    def __init__(self, spec: Mapping[str, Any] | None = None, name: str = "payments") -> None:
        self.spec: Object = copy.deepcopy(
            dict(spec if spec is not None else {"database": {"secretRef": {"name": "db"}}})
        )
        self.name = name
        self.generation = 1
        self.annotations: dict[str, str] = {}
        self.deleted_at: datetime | None = None
        self.finalizers: list[str] = []
        self.status: Object = {}
        self.children: dict[Ref, Object] = {}
        self.secrets: dict[str, SecretSeen | None] = {"db": secret(database_url="postgresql://one")}
        self.config_maps: dict[str, dict[str, str] | None] = {}
        self.apis = OPTIONAL
        self.release = RELEASE
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.notices: list[Notice] = []
        self.applied: list[Ref] = []
        self.gone = False

    def engine(self) -> Engine:
        metadata: Object = {
            "name": self.name,
            "namespace": "shop",
            "uid": "u-1",
            "generation": self.generation,
            "annotations": self.annotations,
            "finalizers": self.finalizers,
        }
        if self.deleted_at:
            metadata["deletionTimestamp"] = self.deleted_at.isoformat()
        body = {"metadata": metadata, "spec": self.spec, "status": self.status}
        return msgspec.convert(body, Engine)

    def observed(self) -> Observed:
        return Observed(
            engine=self.engine(),
            children=copy.deepcopy(self.children),
            secrets=dict(self.secrets),
            apis=self.apis,
            release=self.release,
            now=self.now,
            config_maps=dict(self.config_maps),
        )

    def change(self, **spec: Any) -> None:
        """Change the spec, as somebody who applies another manifest."""
        self.spec = copy.deepcopy(self.spec | spec)
        self.generation += 1

    def step(self) -> Plan:
        """Plan once, and carry that out."""
        observed = self.observed()
        kept = {ref: _slim(one, ref.kind) for ref, one in observed.children.items()}
        made = plan(msgspec.structs.replace(observed, children=kept))
        if made.finalizer:
            self.finalizers = [names.FINALIZER]
        for generated in made.generated:
            self._make_up(generated)
        for manifest in made.apply:
            self.apply(manifest)
        for ref in made.delete:
            self.children.pop(ref, None)
        self.status = msgspec.to_builtins(made.status)
        self.notices += made.notices
        if made.finalizer is False:
            self.finalizers, self.gone = [], True
        return made

    def settle(self) -> Plan:
        """Go on until nothing changes any more."""
        for _ in range(PASSES_MAX):
            before = self._state()
            made = self.step()
            if self._state() == before:
                return made
        raise AssertionError("it never comes to rest")

    def apply(self, manifest: Manifest) -> None:
        ref = Ref.of(manifest)
        self.applied.append(ref)
        before = self.children.get(ref, {})
        live = copy.deepcopy(manifest)
        others = before.get("metadata", {}).get("ownerReferences")
        if others and "ownerReferences" not in live["metadata"]:
            live["metadata"]["ownerReferences"] = others  # another manager's
        live["metadata"].setdefault("creationTimestamp", self.now.isoformat())
        live["metadata"]["uid"] = before.get("metadata", {}).get(
            "uid", f"u-{len(self.applied) + 1}"
        )
        live["metadata"]["generation"] = before.get("metadata", {}).get("generation", 0) + 1
        if ref.kind == "Deployment":
            live["spec"].setdefault("replicas", before.get("spec", {}).get("replicas", 1))
        live["status"] = before.get("status", {})
        self.children[ref] = live

    def jobs(self, part: str = "migrate") -> list[str]:
        """Return the names of the Jobs of a kind, the oldest first."""
        return [ref.name for ref in self.children if ref.kind == "Job" and f"-{part}-" in ref.name]

    def end_job(
        self, name: str, message: str = "", exit_code: int = 0, *, attempts: int = 1
    ) -> None:
        """Let a Job end: complete with exit code 0, else failed."""
        job = self.children[Ref("Job", name)]
        kind = "Failed" if exit_code else "Complete"
        at = self.now.isoformat()
        job["status"] = {
            "conditions": [{"type": kind, "status": "True", "lastTransitionTime": at}],
            "failed": attempts if exit_code else 0,
        }
        self.end_pod(name, message, exit_code)

    def end_pod(self, job: str, message: str, exit_code: int) -> None:
        """Let a pod of a Job end."""
        pod = f"{job}-{len(self.children)}"
        uid = self.children[Ref("Job", job)]["metadata"]["uid"]
        labels = {"batch.kubernetes.io/job-name": job, "batch.kubernetes.io/controller-uid": uid}
        ended = {"exitCode": exit_code, "message": message}
        self.children[Ref("Pod", pod)] = {
            "metadata": {"name": pod, "labels": labels, "creationTimestamp": self.now.isoformat()},
            "status": {"containerStatuses": [{"state": {"terminated": ended}}]},
        }

    def come_up(self, *names: str) -> None:
        """Let the pods of Deployments become ready, all of them when none is named."""
        for ref, live in self.children.items():
            if ref.kind == "StatefulSet":
                live["status"] = {"readyReplicas": 1}
            if ref.kind == "Cluster":
                live["status"] = {"readyInstances": 1}
            if ref.kind != "Deployment" or (names and ref.name not in names):
                continue
            count = live["spec"]["replicas"]
            live["status"] = {
                "observedGeneration": live["metadata"]["generation"],
                "replicas": count,
                "updatedReplicas": count,
                "readyReplicas": count,
                "availableReplicas": count,
                "conditions": [{"type": "Available", "status": "True"}],
            }

    def start_pod(self, name: str, deployment: str = "payments-api") -> Object:
        """Let a pod of a Deployment be there, from its template of now, and return it."""
        template = copy.deepcopy(self.deployment(deployment)["spec"]["template"])
        pod: Object = {
            "metadata": {**template["metadata"], "name": name},
            "spec": template["spec"],
            "status": {"phase": "Running"},
        }
        self.children[Ref("Pod", name)] = pod
        return pod

    def lose(self, *deployments: str) -> None:
        """Let pods of Deployments take no requests any more."""
        for name in deployments or ("payments-api",):
            self.deployment(name)["status"] |= {
                "readyReplicas": 0,
                "availableReplicas": 0,
                "conditions": [
                    {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
                    {
                        "type": "Available",
                        "status": "False",
                        "lastTransitionTime": self.now.isoformat(),
                    },
                ],
            }

    def run(self, **changes: Any) -> None:
        """Go all the way: every Job succeeds, every pod comes up."""
        for _ in range(PASSES_MAX):
            before = self._state()
            self.settle()
            for ref, job in list(self.children.items()):
                if ref.kind == "Job" and not job["status"]:
                    said = report(**changes) if "-migrate-" in ref.name else ""
                    self.end_job(ref.name, said)
            self.come_up()
            if self._state() == before:
                return
        raise AssertionError("it never comes to rest")

    def condition(self, kind: Type) -> Condition:
        (found,) = [one for one in self.engine().status.conditions if one.type == kind]
        return found

    def reason(self, kind: Type) -> tuple[str, str]:
        found = self.condition(kind)
        return found.status.value, found.reason

    def deployment(self, name: str = "payments-api") -> Object:
        return self.children[Ref("Deployment", name)]

    def image(self, name: str = "payments-api") -> str:
        return str(self.deployment(name)["spec"]["template"]["spec"]["containers"][0]["image"])

    def later(self, **parts: float) -> None:
        self.now += timedelta(**parts)

    def _make_up(self, wanted: Generated) -> None:
        seen = self.secrets.get(wanted.name)
        if seen is None:
            made = (
                {"password": "p", "database-url": "postgresql://made"}
                if wanted.kind == "postgres"
                else {ADMIN_KEY: "ppk_one"}
            )
            seen = SecretSeen({key: digest(value) for key, value in made.items()}, ours=True)
        rotated = seen.annotations.get(names.ROTATE_KEY)
        if wanted.rotate and wanted.rotate != rotated:
            digests = {
                ADMIN_KEY: digest(wanted.rotate),
                PREVIOUS_ADMIN_KEY: seen.digests[ADMIN_KEY],
            }
            seen = msgspec.structs.replace(
                seen, digests=digests, annotations={names.ROTATE_KEY: wanted.rotate}
            )
        self.secrets[wanted.name] = msgspec.structs.replace(seen, owned=wanted.owned)

    def _state(self) -> bytes:
        known = [
            {f"{ref.kind}/{ref.name}": child for ref, child in self.children.items()},
            self.secrets,
            self.status,
            self.finalizers,
        ]
        return msgspec.json.encode(known, order="deterministic")
