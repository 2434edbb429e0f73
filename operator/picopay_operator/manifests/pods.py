"""What all pods of PicoPay's image have in common: security, environment, volumes, where they run.

Used by the builders of the API, the worker and the Jobs. Pods pass Pod Security `restricted`, whatever an
engine says; the database's pod has its own user and image, and borrows the security from here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from picopay_operator import contract, names
from picopay_operator.contract import Variable
from picopay_operator.manifests.context import Context, Manifest, SecretKey
from picopay_operator.names import Component
from picopay_operator.spec.engine import EngineSpec
from picopay_operator.spec.kinds import Resources

USER = 10_001
"""User and group of PicoPay's image."""

_FILES_MODE = 0o440
"""Of files from Secrets: they are root's, and the pod's group reads them."""

_SPREAD_OVER = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")


class Volume(NamedTuple):
    """A volume and where containers see it."""

    name: str
    path: str
    source: Mapping[str, Any]
    read_only: bool = False

    @property
    def mount(self) -> Manifest:
        """The container's part of it."""
        read_only = {"readOnly": True} if self.read_only else {}
        return {"name": self.name, "mountPath": self.path, **read_only}

    @property
    def volume(self) -> Manifest:
        """The pod's part of it."""
        return {"name": self.name, **self.source}


def scratch(name: str, path: str) -> Volume:
    """Return a volume that is as empty as its pod is new."""
    return Volume(name, path, {"emptyDir": {}})


def from_secret(name: str, path: str, secret: str, items: Sequence[tuple[str, str]] = ()) -> Volume:
    """Return a Secret as files: those of `items` (key, file), or all keys."""
    source: Manifest = {"secretName": secret, "defaultMode": _FILES_MODE}
    if items:
        source["items"] = [{"key": key, "path": file} for key, file in items]
    return Volume(name, path, {"secret": source}, read_only=True)


def pod_security(user: int) -> Manifest:
    """Return the security context of a pod whose processes are this user."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Return the security context of a container: it may do nothing that needs a privilege."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def resources(wanted: Resources) -> Manifest:
    """Return what a container asks for; nothing where nothing is said."""
    parts = {"requests": wanted.requests, "limits": wanted.limits}
    given = {name: dict(part) for name, part in parts.items() if part}
    return {"resources": given} if given else {}


def container(
    context: Context,
    component: Component,
    arguments: Iterable[str],
    environment: Sequence[Manifest],
    wanted: Resources,
    volumes: Iterable[Volume] = (),
) -> Manifest:
    """Return the container of a pod, without what only some have: ports, probes, life cycle."""
    return {
        "name": component.value,
        "image": context.image,
        "imagePullPolicy": context.engine.spec.image.pull_policy.value,
        "args": list(arguments),
        "env": list(environment),
        **resources(wanted),
        "securityContext": container_security(),
        "volumeMounts": [volume.mount for volume in _volumes(context, volumes)],
    }


def template(
    context: Context,
    component: Component,
    made: Manifest,
    volumes: Iterable[Volume] = (),
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Return the template of a pod with this container, which was made with the same `volumes`."""
    spec = context.engine.spec
    ours = names.labels(context.name, component, context.version) | dict(labels or {})
    return {
        "metadata": {
            "labels": {**spec.pod_labels, **ours},
            "annotations": {
                **spec.pod_annotations,
                "kubectl.kubernetes.io/default-container": component.value,
                **(annotations or {}),
            },
        },
        "spec": {
            # Variables of Services would begin with PICOPAY_ where an engine is called so, and those that
            # PicoPay does not know keep it from starting.
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": pod_security(USER),
            "containers": [made],
            "volumes": [volume.volume for volume in _volumes(context, volumes)],
            **placement(spec),
        },
    }


def served(
    context: Context, component: Component, made: Manifest, revision: str | None
) -> Manifest:
    """Return the template of a pod that runs for long: spread, and replaced when its Secrets change."""
    labels = {names.REVISION_LABEL: revision} if revision else {}
    made = template(
        context,
        component,
        made,
        labels=labels,
        annotations={names.DATA_HASH: context.data_hash, names.IMAGE: context.image},
    )
    made["spec"]["terminationGracePeriodSeconds"] = (
        context.engine.spec.termination_grace_period_seconds
    )
    made["spec"]["topologySpreadConstraints"] = _spread(context, component)
    return made


def placement(spec: EngineSpec) -> Manifest:
    """Return where pods run, and how their image is pulled: what an engine says, and nothing else."""
    parts: Manifest = {
        "nodeSelector": dict(spec.node_selector),
        "tolerations": list(spec.tolerations),
        "affinity": spec.affinity,
        "priorityClassName": spec.priority_class_name,
        "imagePullSecrets": [{"name": secret.name} for secret in spec.image_pull_secrets],
    }
    return {name: part for name, part in parts.items() if part}


def from_key(name: str, source: SecretKey) -> Manifest:
    """Return a variable whose value is in a Secret."""
    reference = {"name": source.secret, "key": source.key}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def environment(
    context: Context, own: Mapping[Variable, object], further: Sequence[Manifest] = ()
) -> list[Manifest]:
    """Return the environment of a container: the way to the database, `own` and `further` variables.

    Each name stands there once, and the operator's own win: what is promised of an engine (its budget of
    connections, its time to end) is calculated from them.
    """
    access = context.access
    given = [
        from_key(Variable.DATABASE_URL.value, access.url),
        *_values(
            {
                Variable.DATABASE_TLS_MODE: access.tls_mode.value if access.tls_mode else None,
                Variable.DATABASE_TLS_CA_FILE: contract.CA_FILE if access.ca else None,
                Variable.LOG_LEVEL: context.engine.spec.log_level.value,
                **own,
            }
        ),
    ]
    taken = {variable["name"] for variable in given}
    return [*given, *(one for one in further if one["name"] not in taken)]


def served_environment(
    context: Context, own: Mapping[Variable, object], not_its_own_s: int
) -> list[Manifest]:
    """Return the environment of a pod that runs for long.

    Of the time that it has to end, `not_its_own_s` go by before it is told and after it must have ended.
    """
    spec = context.engine.spec
    grace_s = spec.termination_grace_period_seconds - not_its_own_s
    common = {
        Variable.POOL_SIZE: spec.database.pool.size,
        Variable.SHUTDOWN_GRACE_MS: grace_s * 1_000,
    }
    return environment(
        context, common | dict(own), [msgspec.to_builtins(variable) for variable in spec.env]
    )


def _values(values: Mapping[Variable, object]) -> list[Manifest]:
    return [
        {"name": variable.value, "value": str(value)}
        for variable, value in values.items()
        if value is not None
    ]


def _volumes(context: Context, further: Iterable[Volume]) -> list[Volume]:
    found = [scratch("tmp", "/tmp"), *further]  # noqa: S108  # a pod's own
    if ca := context.access.ca:
        file = contract.CA_FILE.rpartition("/")[2]
        found.append(from_secret("database-ca", contract.CA_FOLDER, ca.secret, [(ca.key, file)]))
    return found


def _spread(context: Context, component: Component) -> list[Manifest]:
    """Return how pods are spread: as the engine says, else over nodes and zones as far as possible."""
    selector = {"matchLabels": names.selector(context.name, component)}
    given = context.engine.spec.topology_spread_constraints
    if given is not None:
        return [{"labelSelector": selector, **constraint} for constraint in given]
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": selector,
            # Counted by version: pods that are about to go would push the new ones together.
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in _SPREAD_OVER
    ]
