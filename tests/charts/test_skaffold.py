"""skaffold.yaml: it is what skaffold reads, and all that it names is there."""

from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from support import skaffold
from support.chart_files import helm
from support.postgres import CHECKOUT

CONFIG: dict[str, Any] = yaml.safe_load((CHECKOUT / "skaffold.yaml").read_text(encoding="utf-8"))
RELEASES = {one["name"]: one for one in CONFIG["deploy"]["helm"]["releases"]}
PROFILES = {one["name"]: one for one in CONFIG["profiles"]}


@pytest.mark.timeout(900)  # the schema may have to be fetched first
def test_skaffold_understands_it() -> None:
    version = CONFIG["apiVersion"].removeprefix("skaffold/")
    errors = Draft7Validator(skaffold.schema(version)).iter_errors(CONFIG)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_both_images_are_built_from_their_files() -> None:
    built = {one["image"]: one["docker"]["dockerfile"] for one in CONFIG["build"]["artifacts"]}
    assert built == {f"picopay/picopay-{one}": f"Dockerfile.{one}" for one in ("api", "operator")}


def rendered(release: dict[str, Any], kind: str) -> dict[str, Any]:
    """Render the one object of a kind as skaffold has helm do it; templates of values are "built"."""
    values = release.get("setValues", {}) | dict.fromkeys(
        release.get("setValueTemplates", ()), "built"
    )
    told = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    chart = CHECKOUT / release["chartPath"]
    text = helm("template", release["name"], chart, "--namespace", release["namespace"], *told)
    found: dict[str, Any]
    (found,) = (one for one in yaml.safe_load_all(text) if one and one["kind"] == kind)
    return found


def test_the_operator_and_its_engines_get_what_was_built() -> None:
    deployment = rendered(RELEASES["picopay-operator"], "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    told = {one["name"]: one.get("value") for one in container["env"]}
    assert container["image"] == "built:built"
    assert told["PICOPAY_OPERATOR_API_IMAGE"] == "built:built"


def test_an_engine_has_a_database_of_its_own() -> None:
    engine = rendered(RELEASES["picopay"], "PicoPayEngine")
    assert engine["spec"]["database"] == {"postgres": {"storage": {"size": "1Gi"}}}
    (forward,) = CONFIG["portForward"]
    assert forward["resourceName"] == f"{engine['metadata']['name']}-api"
    assert forward["namespace"] == RELEASES["picopay"]["namespace"]


def test_a_profile_gives_an_engine_another_database() -> None:
    (patch,) = PROFILES["own-database"]["patches"]
    assert patch["path"] == "/deploy/helm/releases/1/setValues"
    engine = rendered(RELEASES["picopay"] | {"setValues": patch["value"]}, "PicoPayEngine")
    assert engine["spec"]["database"] == {"secretRef": {"name": "picopay-secrets"}}


def test_a_profile_has_the_operator_alone() -> None:
    assert list(RELEASES) == ["picopay-operator", "picopay"]
    removed = [(patch["op"], patch["path"]) for patch in PROFILES["operator"]["patches"]]
    assert removed == [("remove", "/deploy/helm/releases/1"), ("remove", "/portForward")]
