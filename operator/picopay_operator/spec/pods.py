"""The pods of an engine: image, number, what they may use, where they run, how they are replaced.

Parts of `spec` that have to do with the API's and the worker's pods.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from picopay_operator import contract
from picopay_operator.spec.kinds import (
    IntOrPercent,
    Kind,
    Resources,
    Rule,
    Seconds,
    SecretKey,
    SecretReference,
)

_TAKEN = ", ".join(
    f"'{name}'"
    for name in sorted(
        {
            *(variable.value for variable in contract.Variable),
            # The address could be given as a file, beside ours.
            f"{contract.Variable.DATABASE_URL}_FILE",
            f"{contract.Variable.MIGRATION_DATABASE_URL}_FILE",
            "API_HOST",
            "HOSTNAME",
            "PICOPAY_MIGRATE_ON_START",
            "PICOPAY_WORKERS",  # replicas are what is counted
        }
    )
)
"""Variables of PicoPay that an engine cannot set."""


class PullPolicy(StrEnum):
    """When the image is pulled."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class Image(Kind, frozen=True):
    """The image of the API; the release that the operator was made with when nothing is given."""

    repository: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=255,
                pattern=r"^[^\s@]+$",
                description="Without tag or digest.",
            ),
        ]
        | None
    ) = None
    tag: (
        Annotated[
            str,
            Meta(
                pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$",
                description="The tag; `spec.version` when it is not given.",
            ),
        ]
        | None
    ) = None
    digest: (
        Annotated[
            str,
            Meta(
                pattern=r"^sha256:[0-9a-f]{64}$",
                description="The digest: what is pulled then, whatever the tag is.",
            ),
        ]
        | None
    ) = None
    pull_policy: Annotated[PullPolicy, Meta(description="When the image is pulled.")] = (
        PullPolicy.IF_NOT_PRESENT
    )


class Autoscaling(Kind, frozen=True, kw_only=True):
    """A HorizontalPodAutoscaler for the API's pods. The operator leaves their number alone then."""

    rules = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "autoscaling.minReplicas must not be above maxReplicas",
        ),
    )

    min_replicas: Annotated[int, Meta(ge=1, le=100, description="Pods at least.")] = 2
    max_replicas: Annotated[int, Meta(ge=1, le=100, description="Pods at most.")]
    cpu_utilization_percent: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="The share of the requested processor time that pods are kept at.",
        ),
    ] = 70
    scale_down_stabilization_seconds: Annotated[
        int,
        Meta(ge=0, le=3_600, description="How long the load must have been lower before pods go."),
    ] = 300


class ConfigMapReference(Kind, frozen=True):
    """A key of a ConfigMap in the engine's namespace."""

    name: Annotated[str, Meta(min_length=1, max_length=253, description="Its name.")]
    key: Annotated[SecretKey, Meta(description="The key in it.")]


class VariableSource(Kind, frozen=True):
    """Where the value of a variable is."""

    rules = (
        Rule(
            "has(self.secretKeyRef) != has(self.configMapKeyRef)",
            "exactly one of secretKeyRef and configMapKeyRef is needed",
        ),
    )

    secret_key_ref: Annotated[SecretReference, Meta(description="A key of a Secret.")] | None = None
    config_map_key_ref: (
        Annotated[ConfigMapReference, Meta(description="A key of a ConfigMap.")] | None
    ) = None


class Variable(Kind, frozen=True):
    """A variable of the environment."""

    rules = (
        Rule(
            "has(self.value) != has(self.valueFrom)", "exactly one of value and valueFrom is needed"
        ),
        Rule(
            f"!(self.name in [{_TAKEN}])",
            "this variable is the operator's: it has a field of its own in spec, or cannot be changed",
        ),
    )

    name: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=128,
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            description="A setting of PicoPay, such as `PICOPAY_QUEUE_COMMANDS_MAX`.",
        ),
    ]
    value: Annotated[str, Meta(max_length=4_096, description="Its value.")] | None = None
    value_from: Annotated[VariableSource, Meta(description="Where its value is.")] | None = None


class Probe(Kind, frozen=True):
    """How patiently a pod is asked; what is not given stays as it is without."""

    period_seconds: (
        Annotated[int, Meta(ge=1, le=300, description="The time between two probes.")] | None
    ) = None
    timeout_seconds: (
        Annotated[int, Meta(ge=1, le=60, description="How long an answer may take.")] | None
    ) = None
    failure_threshold: (
        Annotated[int, Meta(ge=1, le=600, description="How many must fail one after the other.")]
        | None
    ) = None


class Probes(Kind, frozen=True):
    """The probes of the API's pods: `/livez` (the process), `/readyz` (it can take payments)."""

    startup: Annotated[
        Probe, Meta(description="Until a pod answers for the first time: a minute, by default.")
    ] = Probe()
    readiness: Annotated[
        Probe,
        Meta(description="Whether requests are sent to a pod: gone in four seconds, by default."),
    ] = Probe()
    liveness: Annotated[
        Probe, Meta(description="Whether a pod is started again: after a minute, by default.")
    ] = Probe()


class Worker(Kind, frozen=True):
    """The pods that work beside the API: they seal history, audit it, and expire holds."""

    replicas: Annotated[
        int,
        Meta(ge=0, le=10, description="Their number; more than one only stand by for each other."),
    ] = 1
    resources: Annotated[Resources, Meta(description="What its container may use.")] = Resources(
        requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "512Mi"}
    )


class Strategy(StrEnum):
    """How pods of another version take over."""

    ROLLING_UPDATE = "RollingUpdate"
    BLUE_GREEN = "BlueGreen"


class BlueGreen(Kind, frozen=True):
    """How all pods of a new version take over at once."""

    auto_promote: Annotated[
        bool,
        Meta(
            description="Switch when all checks have passed; else wait for the annotation"
            " picopay.io/promote with the new version's revision.",
        ),
    ] = True
    scale_down_delay_seconds: Annotated[
        int,
        Meta(
            ge=0, le=86_400, description="How long the old pods stay after the switch, to go back."
        ),
    ] = 30


class Rollout(Kind, frozen=True):
    """How a new version, or any change of the pods, is brought in."""

    rules = (
        Rule(
            # The default of the whole is checked before it gets those of its fields.
            "!(has(self.maxSurge) && has(self.maxUnavailable)"
            " && (type(self.maxSurge) == int ? self.maxSurge == 0 : self.maxSurge == '0%')"
            " && (type(self.maxUnavailable) == int"
            " ? self.maxUnavailable == 0 : self.maxUnavailable == '0%'))",
            "rollout.maxSurge and rollout.maxUnavailable must not both be 0: nothing could be replaced",
        ),
    )

    strategy: Annotated[
        Strategy,
        Meta(
            description="RollingUpdate: pod by pod. BlueGreen: all pods of the new version beside the old"
            " ones; when they are ready and the ledger is sound, the Service switches.",
        ),
    ] = Strategy.ROLLING_UPDATE
    max_surge: Annotated[
        IntOrPercent,
        Meta(description="Pods above their number, meanwhile: a number, or a share such as `25%`."),
    ] = 1
    max_unavailable: Annotated[
        IntOrPercent,
        Meta(
            description="Pods that may be missing, meanwhile: a number, or a share such as `25%`."
        ),
    ] = 0
    progress_deadline_seconds: Annotated[
        Seconds, Meta(description="A rollout that has not moved for so long has failed.")
    ] = 600
    blue_green: Annotated[BlueGreen, Meta(description="Only for the strategy BlueGreen.")] = (
        BlueGreen()
    )
