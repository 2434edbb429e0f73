"""`status` of a `PicoPayEngine`: what the operator has seen and done. There is no phase: conditions tell."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from picopay_operator.spec.kinds import Kind


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Kind, frozen=True, omit_defaults=False):
    """One aspect of an engine's state, as in all of Kubernetes' own objects."""

    type: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=316,
            pattern=r"^[A-Za-z]([A-Za-z0-9]*[A-Za-z0-9])?$",
            description="Which aspect.",
        ),
    ]
    status: Annotated[ConditionStatus, Meta(description="Whether it holds.")]
    reason: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=1_024,
            pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            description="Why, in one word out of a documented set.",
        ),
    ]
    message: Annotated[str, Meta(max_length=32_768, description="Why, in a sentence for people.")]
    last_transition_time: Annotated[
        str,
        Meta(
            description="When the status last changed.",
            extra_json_schema={"format": "date-time"},
        ),
    ]
    observed_generation: Annotated[
        int, Meta(ge=0, description="The generation of the spec that this is about.")
    ]


class Revisions(Kind, frozen=True):
    """The schema of the database."""

    current: Annotated[str, Meta(description="The revision that the database has.")] | None = None
    target: Annotated[str, Meta(description="The revision that the version wants.")] | None = None
    min_compatible: (
        Annotated[str, Meta(description="The oldest revision that the version can work with.")]
        | None
    ) = None
    oldest_release: (
        Annotated[
            str, Meta(description="The oldest revision that a release may want to be admitted.")
        ]
        | None
    ) = None
    plan: Annotated[
        list[str],
        Meta(max_length=64, description="What a migration would do, a revision a line."),
    ] = []
    plan_hash: (
        Annotated[str, Meta(description="What an approval of that plan has to name.")] | None
    ) = None
    attempts: Annotated[int, Meta(ge=0, description="Attempts of the migration so far.")] = 0
    job: Annotated[str, Meta(description="The Job from which all this is known.")] | None = None
    exit_code: Annotated[int, Meta(description="How it has ended.")] | None = None


class ServedRelease(Kind, frozen=True):
    """A release that has served, and which schemas it goes with."""

    version: Annotated[str, Meta(description="Its version.")]
    image: Annotated[str, Meta(description="Its image.")]
    head: Annotated[str, Meta(description="The revision that it wants.")]
    min_compatible: Annotated[str, Meta(description="The oldest revision that it works with.")]


class Secrets(Kind, frozen=True):
    """Secrets that the operator has made."""

    admin_key: (
        Annotated[str, Meta(description="The Secret of the first administrator's key.")] | None
    ) = None
    database: (
        Annotated[str, Meta(description="The Secret of the address of a database in the cluster.")]
        | None
    ) = None


class EngineStatus(Kind, frozen=True):
    """What the operator has seen and done."""

    observed_generation: Annotated[
        int, Meta(ge=0, description="The generation of the spec that the status is about.")
    ] = 0
    conditions: Annotated[
        list[Condition],
        Meta(
            max_length=32,
            description="Ready sums up all others; `kubectl wait --for=condition=Ready` waits for it.",
            extra_json_schema={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = []
    replicas: Annotated[int, Meta(ge=0, description="API pods that there are.")] = 0
    ready_replicas: Annotated[int, Meta(ge=0, description="API pods that take requests.")] = 0
    selector: Annotated[str, Meta(description="The labels of the API pods, for autoscalers.")] = ""
    version: Annotated[str, Meta(description="The release that serves.")] | None = None
    image: Annotated[str, Meta(description="The image that serves.")] | None = None
    schema: Annotated[Revisions, Meta(description="The schema of the database.")] = Revisions()
    releases: Annotated[
        list[ServedRelease],
        Meta(max_length=10, description="Releases that have served, the newest first."),
    ] = []
    connections_max: (
        Annotated[
            int, Meta(ge=0, description="Connections that the server of the database admits.")
        ]
        | None
    ) = None
    endpoint: (
        Annotated[
            str, Meta(description="The URL of the API inside the cluster, or of its ingress.")
        ]
        | None
    ) = None
    secrets: Annotated[Secrets, Meta(description="Secrets that were made.")] = Secrets()
