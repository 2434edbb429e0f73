"""What the parts of a `PicoPayEngine` are made of: base class, rules in CEL, types of Kubernetes' fields.

Used by the modules of this package, and by `crd.py`, which makes the schema from them. Nothing here, or in
the package, decides anything: these are shapes.
"""

from typing import Annotated, Any, ClassVar, NamedTuple

from msgspec import Meta, Struct


class Rule(NamedTuple):
    """A rule across fields: an expression of CEL over `self` (and `oldSelf`), and what a person is told."""

    expression: str
    message: str


class Kind(Struct, frozen=True, rename="camel", omit_defaults=True):
    """An object of the API. Fields that it does not know are let pass: they may be of a newer release."""

    rules: ClassVar[tuple[Rule, ...]] = ()


_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_DNS_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)"
    r"|(\.[0-9]+))))?$"
)
_LABEL_PART = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)"

Label = Annotated[str, Meta(min_length=1, max_length=63, pattern=_DNS_LABEL)]
"""A name that becomes a part of a DNS name."""

Name = Annotated[str, Meta(min_length=1, max_length=253, pattern=_DNS_NAME)]
"""The name of an object of Kubernetes."""

Hostname = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=253,
        pattern=r"^(\*\.)?" + _DNS_NAME[1:],
    ),
]
SecretKey = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
Quantity = Annotated[
    int | Annotated[str, Meta(min_length=1, max_length=64, pattern=_QUANTITY)],
    Meta(extra_json_schema={"x-kubernetes-int-or-string": True}),
]
IntOrPercent = Annotated[
    Annotated[int, Meta(ge=0)]
    | Annotated[str, Meta(pattern=r"^(100|[1-9]?[0-9])%$", max_length=4)],
    Meta(extra_json_schema={"x-kubernetes-int-or-string": True}),
]
Seconds = Annotated[int, Meta(ge=1, le=86_400)]
Labels = Annotated[
    dict[
        Annotated[str, Meta(max_length=317)],
        Annotated[str, Meta(max_length=63, pattern=rf"^{_LABEL_PART}?$")],
    ],
    Meta(max_length=64),
]
Annotations = Annotated[
    dict[Annotated[str, Meta(max_length=317)], Annotated[str, Meta(max_length=16_384)]],
    Meta(max_length=64),
]

Foreign = Annotated[
    dict[str, Any], Meta(extra_json_schema={"x-kubernetes-preserve-unknown-fields": True})
]
"""A part of a pod that is handed on as it is: Kubernetes' own schema judges it."""


class LocalReference(Kind, frozen=True):
    """An object of the engine's namespace."""

    name: Annotated[Name, Meta(description="Its name.")]


class SecretReference(Kind, frozen=True):
    """A key of a Secret in the engine's namespace."""

    name: Annotated[Name, Meta(description="The name of the Secret.")]
    key: Annotated[SecretKey, Meta(description="The key in it.")]


class Resources(Kind, frozen=True):
    """What a container asks for and may use."""

    requests: Annotated[
        dict[str, Quantity],
        Meta(description="What is set aside for it, for example `cpu: 500m`.", max_length=16),
    ] = {}
    limits: Annotated[
        dict[str, Quantity],
        Meta(description="What it may use at most, for example `memory: 512Mi`.", max_length=16),
    ] = {}
