"""`spec` of a `PicoPayEngine`: what a platform team writes."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from picopay_operator.spec.database import Database, Migrations
from picopay_operator.spec.exposure import (
    DisruptionBudget,
    HttpRoute,
    Ingress,
    Monitoring,
    NetworkPolicy,
)
from picopay_operator.spec.kinds import (
    Annotations,
    Foreign,
    Kind,
    Labels,
    LocalReference,
    Name,
    Resources,
    Rule,
)
from picopay_operator.spec.pods import Autoscaling, Image, Probes, Rollout, Variable, Worker
from picopay_operator.spec.status import EngineStatus

NAME_LENGTH_MAX = 40
"""Of an engine: names of its objects add up to 23 characters and must stay DNS labels."""


class DeletionPolicy(StrEnum):
    """What becomes of data and generated Secrets when an engine is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class LogLevel(StrEnum):
    """The least severity that is logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class RateLimit(Kind, frozen=True):
    """Requests of one API key, at most."""

    requests: Annotated[
        int, Meta(ge=1, le=1_000_000_000, description="Requests in a window, to one process.")
    ] = 1_000_000
    window_seconds: Annotated[int, Meta(ge=1, le=3_600, description="The length of a window.")] = 60


class Auth(Kind, frozen=True):
    """API keys."""

    overlap_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=2_592_000,
            description="How long the old administrator's key stays valid when the annotation"
            " picopay.io/rotate-admin-key has it replaced.",
        ),
    ] = 86_400

    admin_key_secret_name: (
        Annotated[
            Name,
            Meta(
                description="The Secret in which the first administrator's key is delivered, under `api-key`;"
                " `<engine>-admin-key` when it is not given."
            ),
        ]
        | None
    ) = None


class EngineSpec(Kind, frozen=True, kw_only=True):
    """A payment engine: an API, a worker, their database, and how they are reached and watched."""

    rules = (
        Rule(
            "self.rollout.strategy != 'BlueGreen' || !has(self.autoscaling)",
            "the strategy BlueGreen needs a fixed number of replicas: leave autoscaling out",
        ),
    )

    version: (
        Annotated[
            str,
            Meta(
                pattern=r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$",
                max_length=64,
                description="The release of PicoPay; the operator's own when it is not given. To go back"
                " beyond what the schema of the database allows is refused, with the nearest release that it"
                " allows.",
            ),
        ]
        | None
    ) = None
    image: Annotated[
        Image, Meta(description="The image of the API, where it is not the usual one.")
    ] = Image()
    image_pull_secrets: Annotated[
        list[LocalReference], Meta(max_length=16, description="Secrets for the image's registry.")
    ] = []
    replicas: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="Pods of the API. With autoscaling it is not looked at.",
        ),
    ] = 2
    autoscaling: (
        Annotated[Autoscaling, Meta(description="Pods of the API by their load.")] | None
    ) = None
    database: Annotated[
        Database,
        Meta(
            description="The database: exactly one of `secretRef`, `postgres` and `cloudNativePG`."
        ),
    ]
    migrations: Annotated[
        Migrations, Meta(description="How the schema of the database follows the version.")
    ] = Migrations()
    auth: Annotated[Auth, Meta(description="API keys.")] = Auth()
    rate_limit: Annotated[RateLimit, Meta(description="Requests of one API key, at most.")] = (
        RateLimit()
    )
    log_level: Annotated[LogLevel, Meta(description="The least severity that is logged.")] = (
        LogLevel.INFO
    )
    env: Annotated[
        list[Variable],
        Meta(
            max_length=64,
            description="Further settings of PicoPay, for the API and the worker.",
            extra_json_schema={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = []
    worker: Annotated[Worker, Meta(description="The pods that work beside the API.")] = Worker()
    resources: Annotated[
        Resources,
        Meta(description="What an API container asks for: one process uses one processor."),
    ] = Resources(requests={"cpu": "500m", "memory": "256Mi"}, limits={"memory": "512Mi"})
    node_selector: Annotated[Labels, Meta(description="Labels of the nodes to run on.")] = {}
    tolerations: Annotated[list[Foreign], Meta(max_length=32, description="As in a pod.")] = []
    affinity: Annotated[Foreign, Meta(description="As in a pod.")] | None = None
    topology_spread_constraints: (
        Annotated[
            list[Foreign],
            Meta(
                max_length=8,
                description="As in a pod, with the labels of the pods filled in; over nodes and zones, as"
                " far as that is possible, when they are not given.",
            ),
        ]
        | None
    ) = None
    priority_class_name: Annotated[Name, Meta(description="As in a pod.")] | None = None
    pod_labels: Annotated[Labels, Meta(description="More labels for all pods.")] = {}
    pod_annotations: Annotated[Annotations, Meta(description="More annotations for all pods.")] = {}
    probes: Annotated[Probes, Meta(description="How patiently the API's pods are asked.")] = (
        Probes()
    )
    termination_grace_period_seconds: Annotated[
        int,
        Meta(
            ge=10,
            le=600,
            description="How long a pod has to answer what it has accepted, of which the first seconds go"
            " by until no more requests are sent to it.",
        ),
    ] = 40
    ingress: Annotated[Ingress, Meta(description="An Ingress in front of the API.")] | None = None
    http_route: (
        Annotated[
            HttpRoute, Meta(description="An HTTPRoute of the Gateway API in front of the API.")
        ]
        | None
    ) = None
    network_policy: Annotated[
        NetworkPolicy, Meta(description="Who may talk to the pods, and whom they may talk to.")
    ] = NetworkPolicy()
    pod_disruption_budget: Annotated[
        DisruptionBudget, Meta(description="How many pods stay when nodes are drained.")
    ] = DisruptionBudget()
    monitoring: Annotated[Monitoring, Meta(description="What watches the engine.")] = Monitoring()
    rollout: Annotated[
        Rollout, Meta(description="How a new version, or any change of the pods, is brought in.")
    ] = Rollout()
    paused: Annotated[
        bool,
        Meta(
            description="Leave everything as it is: nothing is repaired or rolled out until this is off."
        ),
    ] = False
    suspended: Annotated[
        bool, Meta(description="Run no pods of the API and the worker; data and Secrets stay.")
    ] = False
    deletion_policy: Annotated[
        DeletionPolicy,
        Meta(
            description="What becomes of volumes and generated Secrets when the engine is deleted. A"
            " database outside is never touched.",
        ),
    ] = DeletionPolicy.RETAIN


class ObjectMeta(Kind, frozen=True):
    """The part of an object's metadata that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    deletion_timestamp: str | None = None


class Engine(Kind, frozen=True):
    """A `PicoPayEngine` as the API server returns it."""

    metadata: ObjectMeta
    spec: EngineSpec
    status: EngineStatus = EngineStatus()


ENGINE_RULES = (
    Rule(
        f"self.metadata.name.size() <= {NAME_LENGTH_MAX}",
        f"the name of an engine has at most {NAME_LENGTH_MAX} characters: names of its objects begin with it",
    ),
    Rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "the name of an engine begins with a letter and has letters, digits and hyphens only:"
        " names of Services begin with it",
    ),
)
"""Rules of the whole object: those about its name."""
