"""The engine's chart: its values are the spec of a PicoPayEngine, and it knows which there are."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from picopay_api.environment import variable
from picopay_api.settings import Settings
from picopay_operator import crd, names
from picopay_operator.spec.engine import NAME_LENGTH_MAX, Engine, EngineSpec
from support.chart_files import ENGINE, HelmRefusedError, helm
from support.pod_security import violations

FILES = sorted((ENGINE / "ci").glob("*-values.yaml"))
MINIMAL = ENGINE / "ci" / "minimal-values.yaml"
TEMPLATE = ("template", "ledger", ENGINE, "--namespace", "payments")


def objects(*command: Any) -> dict[str, dict[str, Any]]:
    return {found["kind"]: found for found in yaml.safe_load_all(helm(*command)) if found}


def engine(*command: Any) -> dict[str, Any]:
    return objects(*command)[names.KIND]


def values(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_helm_has_nothing_to_say_about_it(path: Path) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", ENGINE, "--values", path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_values_are_the_spec(path: Path) -> None:
    made = engine(*TEMPLATE, "--values", path)
    own = {"fullnameOverride", "commonLabels", "annotations"}
    assert made["spec"] == {name: one for name, one in values(path).items() if name not in own}
    assert made["apiVersion"] == names.API_VERSION
    read = msgspec.convert(made, Engine)
    assert read.metadata.namespace == "payments"
    assert read.metadata.name == values(path).get("fullnameOverride", "ledger")


def fields(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the fields of an object that have no fields of their own."""
    inner = schema.get("items", schema)
    if "properties" in inner:
        for name, field in inner["properties"].items():
            yield from fields(field, f"{path}.{name}")
    else:
        yield path


def test_the_files_set_every_field_together() -> None:
    told: set[str] = set()
    for path in FILES:
        told |= set(set_fields(crd.schema_of(EngineSpec), values(path)))
    assert set(fields(crd.schema_of(EngineSpec))) - told == set()


def set_fields(schema: Mapping[str, Any], given: Any, path: str = "") -> Iterator[str]:
    if "items" in schema:
        for one in given:
            yield from set_fields(schema["items"], one, path)
    elif "properties" in schema:
        for name in given.keys() & schema["properties"].keys():
            yield from set_fields(schema["properties"][name], given[name], f"{path}.{name}")
    else:
        yield path


def test_variables_in_the_files_are_settings() -> None:
    known = {variable(field) for field in msgspec.structs.fields(Settings)}
    for path in FILES:
        assert {one["name"] for one in values(path).get("env", [])} <= known


def test_the_schema_of_the_values_is_strict_everywhere() -> None:
    schema = json.loads((ENGINE / "values.schema.json").read_text(encoding="utf-8"))
    for part in objects_in(schema):
        if "properties" in part:
            assert part["additionalProperties"] is False
        else:
            assert "additionalProperties" in part
    assert "x-kubernetes" not in json.dumps(schema)


def objects_in(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for part in schema.values():
            yield from objects_in(part)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("database.secretRef.nmae=x", "'nmae' not allowed"),
        ("relicas=3", "'relicas' not allowed"),
        ("replicas=101", "/replicas"),
        ("replicas=many", "/replicas"),
        ("logLevel=VERBOSE", "/logLevel"),
        ("rollout.strategy=Canary", "/rollout/strategy"),
        ("worker.resources.requests.cpu=much", "/worker/resources/requests/cpu"),
        ("version=latest", "/version"),
        ("env[0].nam=x", "'nam' not allowed"),
        ("fullnameOverride=Ledger", "/fullnameOverride"),
    ],
)
def test_values_that_mean_nothing_are_refused(wrong: str, told: str) -> None:
    with pytest.raises(HelmRefusedError, match=re.escape(told)):
        helm(*TEMPLATE, "--values", MINIMAL, "--set", wrong)


def test_without_a_database_it_says_what_is_missing() -> None:
    with pytest.raises(HelmRefusedError, match="missing property 'database'"):
        helm(*TEMPLATE)


def test_a_release_whose_name_is_too_long_is_told_the_way_out() -> None:
    release = "a" * (NAME_LENGTH_MAX + 1)
    with pytest.raises(HelmRefusedError, match="set fullnameOverride"):
        helm("template", release, ENGINE, "--values", MINIMAL)
    assert engine("template", release[1:], ENGINE, "--values", MINIMAL)


def test_large_numbers_stay_what_they_are() -> None:
    given = ("--set", "rateLimit.requests=1000000000")
    assert engine(*TEMPLATE, "--values", MINIMAL, *given)["spec"]["rateLimit"] == {
        "requests": 1_000_000_000
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_test_is_a_restricted_pod_that_asks_the_service(path: Path) -> None:
    made = objects(*TEMPLATE, "--values", path)
    name = made[names.KIND]["metadata"]["name"]
    assert violations(made["Pod"]) == []
    (container,) = made["Pod"]["spec"]["containers"]
    assert container["args"][:3] == ["healthcheck", "--url", f"http://{names.api(name)}"]
    assert names.SERVICE_PORT == 80  # what the address leaves out
    selector = names.selector(name, names.Component.API)
    assert not selector.items() <= made["Pod"]["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("given", "image"),
    [
        ({}, "picopay/picopay-api:0.1.0"),
        ({"version": "1.2.3"}, "picopay/picopay-api:1.2.3"),
        ({"version": "1.2.3", "image.tag": "mine"}, "picopay/picopay-api:mine"),
        (
            {"image.repository": "r.example/api", "image.digest": f"sha256:{'0' * 64}"},
            f"r.example/api@sha256:{'0' * 64}",
        ),
    ],
)
def test_its_test_runs_the_image_of_the_engine(given: dict[str, str], image: str) -> None:
    pairs = ",".join(f"{name}={value}" for name, value in given.items())
    made = objects(*TEMPLATE, "--values", MINIMAL, "--set", pairs)
    assert made["Pod"]["spec"]["containers"][0]["image"] == image


def test_its_notes_say_what_to_do_next() -> None:
    notes = helm("install", "ledger", ENGINE, "--values", MINIMAL, "--dry-run=client")
    assert "wait --for=condition=Ready ppe/ledger" in notes
    assert f"get secret {names.admin_key('ledger')} " in notes
    assert f"service/{names.api('ledger')} 8000:{names.SERVICE_PORT}" in notes
