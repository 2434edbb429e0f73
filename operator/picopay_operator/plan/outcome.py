"""What the plan is made from and what comes out of it. Shapes only.

`reconcile.py` gathers an `Observed`, asks `plan`, and carries a `Plan` out in the order of its fields.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Struct, structs

from picopay_operator.conditions import Finding, Notice
from picopay_operator.manifests.context import Manifest
from picopay_operator.resources import Ref
from picopay_operator.spec.engine import Engine
from picopay_operator.spec.status import EngineStatus


class Release(Struct, frozen=True):
    """What this operator was made with: used where an engine names no version or image."""

    version: str
    image: str
    postgres_image: str


class SecretSeen(Struct, frozen=True):
    """A Secret without its values: the digest of each, and what is known of it.

    `ports` are those in a value that is the address of a database. `ours` is whether the operator has made it
    for this engine, `owned` whether it goes with the engine.
    """

    digests: Mapping[str, str]
    ports: Mapping[str, tuple[int, ...]] = {}
    annotations: Mapping[str, str] = {}
    ours: bool = False
    owned: bool = False


class Observed(Struct, frozen=True):
    """An engine and all that was seen of what belongs to it.

    `children` are live objects that carry the engine's label, `secrets` and `config_maps` those that it
    refers to (None: not there; of a ConfigMap, the digest of each value), `apis` the optional kinds that the
    API server has, `now` the time in UTC.
    """

    engine: Engine
    children: Mapping[Ref, Mapping[str, Any]]
    secrets: Mapping[str, SecretSeen | None]
    apis: frozenset[str]
    release: Release
    now: datetime
    config_maps: Mapping[str, Mapping[str, str] | None] = {}

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.engine.metadata.name

    def of_kind(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the children of a kind."""
        return [child for ref, child in self.children.items() if ref.kind == kind]

    def child(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """Return a child, if it is there."""
        return self.children.get(Ref(kind, name))


class Generated(NamedTuple):
    """A Secret whose values are made up: `kind` tells which ones.

    `rotate` is the mark of a rotation: a Secret that carries another one gets a new value and keeps the old
    one beside it.
    """

    kind: str
    name: str
    owned: bool
    rotate: str | None = None


class Step(Struct, frozen=True):
    """What a step of the plan wants: objects in this order, findings, and when to look again."""

    findings: Sequence[Finding] = ()
    wanted: Sequence[Manifest] = ()
    kept: Sequence[Ref] = ()
    """Objects that stay as they are, whether they are wanted now or not."""
    generated: Sequence[Generated] = ()
    deleted: Sequence[Ref] = ()
    look_again_s: float | None = None

    def __or__(self, other: "Step") -> "Step":
        """Return both steps as one."""
        moments = [one.look_again_s for one in (self, other) if one.look_again_s is not None]
        joined = {
            name: (*getattr(self, name), *getattr(other, name))
            for name in self.__struct_fields__
            if name != "look_again_s"
        }
        return structs.replace(self, **joined, look_again_s=min(moments, default=None))


class Plan(Struct, frozen=True):
    """What to do now: make Secrets up, apply, delete; then write the status, post the notices.

    `finalizer` is whether the engine should have ours; None leaves that as it is.
    """

    status: EngineStatus
    apply: Sequence[Manifest] = ()
    delete: Sequence[Ref] = ()
    generated: Sequence[Generated] = ()
    notices: Sequence[Notice] = ()
    finalizer: bool | None = None
    look_again_s: float | None = None
