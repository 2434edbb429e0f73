"""Every field of a spec does something: it is seen in an object that is made, or in what the plan does."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import pytest

from picopay_operator import crd, names
from picopay_operator.conditions import Type
from picopay_operator.plan.outcome import SecretSeen
from picopay_operator.resources import Ref
from support.controlplane.engine import SMALLEST, at, overlaid
from support.spec_fields import FIELDS, IN_CLUSTER
from support.world import World, secret


def _strategy() -> None:
    world = served(rollout={"strategy": "BlueGreen"})
    leads_to = world.children[Ref("Service", "payments-api")]["metadata"]["annotations"]
    assert leads_to[names.ACTIVE] != "payments-api"


def _auto_promote() -> None:
    for auto, complete in ((True, "RolledOut"), (False, "PromotionPending")):
        world = served(rollout={"strategy": "BlueGreen", "blueGreen": {"autoPromote": auto}})
        world.change(version="1.5.0")
        world.run(release="1.5.0")
        assert world.reason(Type.ROLLOUT_COMPLETE)[1] == complete


def _scale_down_delay() -> None:
    delay = {"scaleDownDelaySeconds": 77}
    world = served(rollout={"strategy": "BlueGreen", "blueGreen": delay})
    world.change(version="1.5.0")
    world.run(release="1.5.0")
    for later_s, deployments in ((76, 2), (1, 1)):
        world.later(seconds=later_s)
        world.run(release="1.5.0")
        api = [ref for ref in world.children if ref.name.startswith("payments-api-")]
        assert len([ref for ref in api if ref.kind == "Deployment"]) == deployments


def _paused() -> None:
    world = served()
    world.change(paused=True, replicas=7)
    assert world.settle().apply == ()
    assert world.deployment()["spec"]["replicas"] == 2


def _overlap() -> None:
    world = served(auth={"overlapSeconds": 77})
    world.annotations[names.ROTATE_KEY] = "now"
    world.run()
    (job,) = world.jobs("key")
    (container,) = world.children[Ref("Job", job)]["spec"]["template"]["spec"]["containers"]
    assert container["args"][-2:] == ["--overlap-s", "77"]


DEEDS: dict[str, Callable[[], None]] = {
    "rollout.strategy": _strategy,
    "rollout.blueGreen.autoPromote": _auto_promote,
    "rollout.blueGreen.scaleDownDelaySeconds": _scale_down_delay,
    "paused": _paused,
    "auth.overlapSeconds": _overlap,
}
"""Fields that are seen in what is done, one after the other, rather than in an object."""


def served(**spec: Any) -> World:
    """Return an engine that serves, in a world that has whatever it refers to."""
    world = World(overlaid(SMALLEST, spec))
    of_cnpg = SecretSeen({"uri": "d1", "ca.crt": "d2"})
    world.secrets = {
        **dict.fromkeys(
            ("picopay-secrets", "other"), secret(database_url="postgresql://one", k="v")
        ),
        **dict.fromkeys(
            ("bank-app", "bank-ca", "payments-postgres-app", "payments-postgres-ca"), of_cnpg
        ),
    }
    world.run()
    return world


@cache
def plain(kind: str) -> World:
    """Return an engine that serves without any field but its kind of database."""
    return served(**IN_CLUSTER) if kind == "postgres" else served()


def found(world: World, place: str) -> Any:
    """Return what is at a place; None where nothing is."""
    where, path = place.split(":", 1)
    kind, name = where.split("/")
    pattern = re.escape(name).replace(r"\*", ".+")
    objects = [
        one
        for ref, one in world.children.items()
        if ref.kind == kind and re.fullmatch(pattern, ref.name)
    ]
    value: Any = objects[0] if objects else None
    for part in path.split("."):
        if isinstance(value, list):
            named = [one for one in value if isinstance(one, dict) and one.get("name") == part]
            index = int(part) if part.isdigit() and int(part) < len(value) else None
            value = named[0] if named else value[index] if index is not None else None
        else:
            value = (value or {}).get(part)
    return value


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_arrives(path: str) -> None:
    seen = FIELDS[path]
    change = seen.field or at(path, seen.value)
    with_it = served(**overlaid(dict(seen.beside), change))
    there = found(with_it, seen.place)
    if seen.value is False:  # what it turns off is there without it
        assert there is None
    else:
        assert there == (seen.value if seen.as_ is None else seen.as_)
    without = found(plain("postgres" if seen.beside == IN_CLUSTER else "external"), seen.place)
    assert without != there


@pytest.mark.parametrize("show", DEEDS.values(), ids=DEEDS)
def test_a_field_decides_what_is_done(show: Callable[[], None]) -> None:
    show()


def leaves(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Return the fields of a schema that have no fields of their own; `[]` stands for an element."""
    if "items" in schema and schema["items"].get("properties"):
        yield from leaves(schema["items"], f"{path}[]")
    elif "properties" in schema:
        for name, part in schema["properties"].items():
            yield from leaves(part, f"{path}.{name}" if path else name)
    else:
        yield path


def test_every_field_has_its_case() -> None:
    schema = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert sorted(leaves(schema["properties"]["spec"])) == sorted([*FIELDS, *DEEDS])
