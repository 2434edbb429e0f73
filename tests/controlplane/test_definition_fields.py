"""The fields of a `PicoPayEngine`, one by one: what is out of bounds is refused, with the field's name."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from picopay_operator import crd
from support.controlplane.api_server import ApiServer, Manifest, RefusedError
from support.controlplane.engine import SMALLEST, created, engine, overlaid

type Schema = Mapping[str, Any]

LONG = "a" * 20_000
TEXTS = ("a", "a.b", "1.2.3", "8Gi", "10%", "A", "", f"sha256:{'0' * 64}")
"""Whatever a pattern of ours is, one of these fits; what does not fit any is below."""
UNFIT = "no such thing: ü"


class Trial(NamedTuple):
    """A value of a field, which is within its bounds or not."""

    path: str
    value: Any
    fits: bool

    @property
    def spec(self) -> Manifest:
        """Return the smallest spec that has the value."""
        return overlaid(SMALLEST, _inside(self.path.split("."), self.value, SPEC))


def _spec() -> Schema:
    schema = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec: Schema = schema["properties"]["spec"]
    return spec


SPEC = _spec()


def _trials(schema: Schema, path: str = "") -> Iterator[Trial]:
    for name, part in schema.get("properties", {}).items():
        yield from _trials(part, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from _trials(schema["items"], f"{path}.0")
        yield from _lengths(schema, path)
    for value in schema.get("enum", ()):
        yield Trial(path, value, fits=True)
    if "enum" in schema:
        yield Trial(path, UNFIT, fits=False)
    if "minimum" in schema:
        yield Trial(path, schema["minimum"], fits=True)
        yield Trial(path, schema["minimum"] - 1, fits=False)
    if "maximum" in schema:
        yield Trial(path, schema["maximum"], fits=True)
        yield Trial(path, schema["maximum"] + 1, fits=False)
    if "pattern" in schema:
        yield Trial(path, _valid(schema), fits=True)
        yield Trial(path, UNFIT, fits=False)
    if "maxLength" in schema:
        yield Trial(path, LONG[: schema["maxLength"] + 1], fits=False)
    if schema.get("type") == "boolean":
        yield Trial(path, value=True, fits=True)
        yield Trial(path, "yes", fits=False)


def _lengths(schema: Schema, path: str) -> Iterator[Trial]:
    if "minItems" in schema:
        yield Trial(path, [], fits=False)
    if "x-kubernetes-list-type" not in schema:
        yield Trial(path, [_valid(schema["items"])] * schema["maxItems"], fits=True)
        yield Trial(path, [_valid(schema["items"])] * (schema["maxItems"] + 1), fits=False)


def _valid(schema: Schema) -> Any:
    """Return the smallest value of a schema."""
    if "enum" in schema:
        return schema["enum"][0]
    if "pattern" in schema:
        return next(text for text in TEXTS if re.search(schema["pattern"], text))
    match schema.get("type"):
        case "object":
            required = schema.get("required", ())
            return {name: _valid(schema["properties"][name]) for name in required}
        case "array":
            return [_valid(schema["items"])] * schema.get("minItems", 0)
        case "integer":
            return schema.get("maximum", 1)
        case "boolean":
            return True
    return "a"


def _inside(path: list[str], value: Any, schema: Schema) -> Any:
    """Return a value of a schema that has another one at a path below it, and else what it must have."""
    if not path:
        return value
    name, *rest = path
    if name == "0":
        return [_inside(rest, value, schema["items"])]
    around = _valid(schema) if schema is not SPEC else {}
    return {**around, name: _inside(rest, value, schema["properties"][name])}


TRIALS = list(_trials(SPEC))


async def told(api_server: ApiServer, trial: Trial) -> str:
    """Return what is said of the field, or nothing."""
    try:
        await created(api_server, engine(trial.spec))
    except RefusedError as error:
        place = re.sub(r"\.0\b", "[0]", f"spec.{trial.path}")
        # Rules across fields may have something to say as well; their turn comes last.
        return "\n".join(
            part for part in error.message.split("spec.") if f"spec.{part}".startswith(place)
        )
    return ""


@pytest.mark.usefixtures("definition")
async def test_values_within_their_bounds_are_taken(api_server: ApiServer) -> None:
    wrong = {
        (trial.path, str(trial.value)[:40]): said
        for trial in TRIALS
        if trial.fits
        and re.search(r"should|Unsupported|Too|must", said := await told(api_server, trial))
    }
    assert wrong == {}


@pytest.mark.usefixtures("definition")
async def test_values_out_of_bounds_are_refused_with_the_name_of_the_field(
    api_server: ApiServer,
) -> None:
    taken = [
        (trial.path, str(trial.value)[:40])
        for trial in TRIALS
        if not trial.fits and not await told(api_server, trial)
    ]
    assert taken == []


def test_every_field_with_a_bound_is_tried() -> None:
    paths = {trial.path for trial in TRIALS}
    assert {
        "database.pool.size",
        "autoscaling.maxReplicas",
        "env.0.name",
        "httpRoute.parentRefs",
    } <= paths
    assert len(paths) > 60
