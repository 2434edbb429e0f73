"""k8s/, its samples, and all files that are made: as they would be made anew, valid, in a good order."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator

from picopay_operator import crd, install, names
from picopay_operator.spec.engine import Engine, EngineSpec
from support import chart_files
from support.chart_files import NAMESPACE, PLAIN
from support.pod_security import violations

FILES = sorted(PLAIN.glob("*.yaml"))
SAMPLES = sorted(path for path in (PLAIN / "samples").glob("*.yaml"))
OF_THE_CLUSTER = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}


def objects(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found]


def engines(path: Path) -> list[dict[str, Any]]:
    return [found for found in objects(path) if found["kind"] == names.KIND]


def test_files_that_are_made_are_as_they_would_be_made() -> None:
    for path, text in chart_files.made():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run support.chart_files"


def test_a_difference_is_noticed_and_put_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chart_files, "CHECKOUT", tmp_path)
    monkeypatch.setattr(chart_files, "made", lambda: iter([(tmp_path / "k8s" / "a.yaml", "a\n")]))
    with pytest.raises(SystemExit, match=r"support\.chart_files"):
        chart_files.main(["--check"])
    chart_files.main([])
    chart_files.main(["--check"])


def test_the_folder_brings_a_kind_but_no_object_of_it() -> None:
    # kubectl asks for all kinds before it applies anything, and would refuse the engine.
    kinds = [found["kind"] for path in FILES for found in objects(path)]
    assert kinds[0] == "CustomResourceDefinition"
    assert names.KIND not in kinds
    assert kinds[-1] == "Job"
    assert [path.name for path in FILES] == [
        "10-definition.yaml",
        "20-operator.yaml",
        "30-engine.yaml",
    ]


def test_everything_is_in_one_namespace_and_nothing_is_helms() -> None:
    for path in FILES:
        assert "helm" not in path.read_text(encoding="utf-8").lower().replace("by helm", "")
        for found in objects(path):
            expected = None if found["kind"] in OF_THE_CLUSTER else NAMESPACE
            assert found["metadata"].get("namespace") == expected


def test_the_definition_fits_into_the_annotation_of_kubectl_apply() -> None:
    (definition,) = objects(PLAIN / "10-definition.yaml")
    assert definition["spec"] == crd.definition()["spec"]
    assert len(json.dumps(definition)) < 200_000  # of 262,144


def test_the_engine_of_the_folder_is_that_of_the_guide(tmp_path: Path) -> None:
    made = {found["kind"]: found for found in objects(PLAIN / "30-engine.yaml")}
    (tmp_path / "engine.yaml").write_text(
        made["ConfigMap"]["data"]["engine.yaml"], encoding="utf-8"
    )
    (engine,) = install.read(tmp_path)
    assert engine["metadata"]["namespace"] == NAMESPACE
    assert engine["spec"] == {"database": {"secretRef": {"name": "picopay-secrets"}}}
    read = msgspec.convert(engine, Engine)
    assert read.spec.database.secret_ref is not None
    assert read.spec.database.secret_ref.key == "database-url"


def test_the_job_may_apply_engines_and_nothing_else() -> None:
    made = {found["kind"]: found for found in objects(PLAIN / "30-engine.yaml")}
    pod = made["Job"]["spec"]["template"]
    assert violations(pod) == []
    assert pod["spec"]["serviceAccountName"] == made["RoleBinding"]["subjects"][0]["name"]
    assert made["Role"]["rules"] == [
        {"apiGroups": [names.GROUP], "resources": [names.PLURAL], "verbs": ["create", "patch"]}
    ]
    (container,) = pod["spec"]["containers"]
    (mount,) = container["volumeMounts"]
    assert container["command"] == ["python", "-m", install.__name__, mount["mountPath"]]
    operator = next(
        found for found in objects(PLAIN / "20-operator.yaml") if found["kind"] == "Deployment"
    )
    assert container["image"] == operator["spec"]["template"]["spec"]["containers"][0]["image"]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_are_read_and_fit_the_schema(path: Path) -> None:
    schema = Draft202012Validator(chart_files.strict(crd.schema_of(EngineSpec)))
    for engine in engines(path):
        msgspec.convert(engine, Engine)
        assert [error.message for error in schema.iter_errors(engine["spec"])] == []
        assert engine["apiVersion"] == names.API_VERSION


def test_there_is_a_sample_for_every_kind_of_database_and_of_exposure() -> None:
    specs = [engine["spec"] for path in SAMPLES for engine in engines(path)]
    assert {name for spec in specs for name in spec["database"]} >= {
        *("secretRef", "postgres", "cloudNativePG", "migrationSecretRef", "tls", "pool")
    }
    assert {"ingress", "httpRoute"} <= {name for spec in specs for name in spec}


def test_the_policy_of_the_samples_binds_itself() -> None:
    policy, binding = objects(PLAIN / "samples" / "admission-policy.yaml")
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
    assert (rule["apiGroups"], rule["apiVersions"], rule["resources"]) == (
        [names.GROUP],
        [names.VERSION],
        [names.PLURAL],
    )


def test_the_installer_applies_nothing_but_engines(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("apiVersion: v1\nkind: Secret\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="something else than a PicoPayEngine"):
        list(install.read(tmp_path))
