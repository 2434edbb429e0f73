"""The operator's chart: what it renders, what it refuses, what the operator may do, and how its pods run."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from picopay_operator import metrics, names
from picopay_operator.resources import RESOURCES
from picopay_operator.settings import Settings
from support.chart_files import CHARTS, OPERATOR, HelmRefusedError, helm
from support.pod_security import violations
from support.postgres import CHECKOUT

EVERYTHING = OPERATOR / "ci" / "everything-values.yaml"
DEFAULT = ("template", "picopay-operator", OPERATOR, "--namespace", "operators")
FULL = (*DEFAULT, "--values", EVERYTHING)
WITHOUT_LIST = (*FULL, "--set", "watchNamespaces=null")


def objects(*command: Any) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(helm(*command)) if found]


def of_kind(kind: str, *command: Any) -> list[dict[str, Any]]:
    return [found for found in objects(*command) if found["kind"] == kind]


def the(kind: str, *command: Any) -> dict[str, Any]:
    (found,) = of_kind(kind, *command)
    return found


def pod(*command: Any) -> dict[str, Any]:
    template: dict[str, Any] = the("Deployment", *command)["spec"]["template"]
    return template


def environment(*command: Any) -> dict[str, Any]:
    (container,) = pod(*command)["spec"]["containers"]
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


@pytest.mark.parametrize("values", [(), ("--values", EVERYTHING)], ids=["default", "everything"])
def test_helm_has_nothing_to_say_about_it(values: tuple[Any, ...]) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", OPERATOR, *values)


def test_the_default_is_small() -> None:
    kinds = sorted(found["kind"] for found in objects(*DEFAULT, "--skip-tests"))
    assert kinds == [
        *(["ClusterRole"] * 4),
        *("ClusterRoleBinding", "CustomResourceDefinition", "Deployment"),
        *("Role", "RoleBinding", "Service", "ServiceAccount"),
    ]


def test_everything_is_set_to_something_else_than_its_default() -> None:
    default = dict(leaves(yaml.safe_load((OPERATOR / "values.yaml").read_text())))
    everything = dict(leaves(yaml.safe_load(EVERYTHING.read_text())))
    # These are on by default, and off is tried by tests of their own.
    same = {"crds.enabled", "rbac.create", "serviceAccount.create"}
    for name, value in default.items():
        found = {path: one for path, one in everything.items() if path.startswith(name)}
        assert found, name
        assert (
            name in same or name.startswith(("podSecurity", "security")) or found != {name: value}
        )


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from leaves(value, f"{path}.{name}" if path else name)
    else:
        yield path, values


def test_everything_is_rendered() -> None:
    kinds = {found["kind"] for found in objects(*FULL)}
    assert kinds >= {"NetworkPolicy", "PodDisruptionBudget", "ServiceMonitor", "PrometheusRule"}
    text = helm(*FULL)
    for name, value in leaves(yaml.safe_load(EVERYTHING.read_text())):
        if isinstance(value, str) and name != "image.tag":  # the digest takes its place
            assert value in text, name


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("replicaCounts=2", "'replicaCounts' not allowed"),
        ("image.tags=1", "'tags' not allowed"),
        ("replicaCount=4", "/replicaCount"),
        ("logLevel=VERBOSE", "/logLevel"),
        ("image.digest=sha256:12", "/image/digest"),
        ("watchNamespaces={Payments}", "/watchNamespaces/0"),
        ("resources.request.cpu=1", "'request' not allowed"),
        ("postgresImage=postgres:18", "/postgresImage"),
    ],
)
def test_values_that_mean_nothing_are_refused(wrong: str, told: str) -> None:
    with pytest.raises(HelmRefusedError, match=re.escape(told)):
        helm(*DEFAULT, "--set", wrong)


def test_the_definition_stays_unless_that_is_not_wanted() -> None:
    kept = the("CustomResourceDefinition", *DEFAULT)["metadata"]
    assert kept["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in the("CustomResourceDefinition", *FULL)["metadata"]
    assert of_kind("CustomResourceDefinition", *DEFAULT, "--set", "crds.enabled=false") == []


# What the operator may do.


def rules(kind: str, *command: Any) -> list[dict[str, Any]]:
    return [rule for role in of_kind(kind, *command) for rule in role["rules"]]


@pytest.mark.parametrize("command", [DEFAULT, FULL, WITHOUT_LIST], ids=["default", "list", "all"])
def test_no_right_is_unbounded(command: tuple[Any, ...]) -> None:
    for rule in [*rules("ClusterRole", *command), *rules("Role", *command)]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "nonResourceURLs" not in rule
        assert not {"escalate", "impersonate", "deletecollection"} & {*rule["verbs"]}


def test_secrets_are_nobodys_in_the_whole_cluster() -> None:
    bound = {role["roleRef"]["name"] for role in of_kind("ClusterRoleBinding", *DEFAULT)}
    assert bound == {"picopay-operator"}
    roles = {role["metadata"]["name"]: role["rules"] for role in of_kind("ClusterRole", *DEFAULT)}
    for name, of_role in roles.items():
        touched = [rule for rule in of_role if "secrets" in rule["resources"]]
        assert bool(touched) == (name == names.SECRETS_ROLE)
    (bind,) = [rule for rule in roles["picopay-operator"] if "bind" in rule["verbs"]]
    assert bind["resourceNames"] == [names.SECRETS_ROLE]
    assert bind["resources"] == ["clusterroles"]


def test_with_a_list_of_namespaces_there_is_no_role_of_the_cluster() -> None:
    assert [
        found["kind"] for found in objects(*FULL) if found["kind"].startswith("ClusterRole")
    ] == []
    roles = {
        (role["metadata"]["namespace"], role["metadata"]["name"]) for role in of_kind("Role", *FULL)
    }
    assert roles == {
        ("operators", "payments-operator-leader"),
        ("payments", "payments-operator"),
        ("payments-staging", "payments-operator"),
    }
    bindings = of_kind("RoleBinding", *FULL)
    assert {(one["metadata"]["namespace"], one["roleRef"]["name"]) for one in bindings} == roles
    for binding in bindings:
        assert binding["subjects"] == [
            {
                "kind": "ServiceAccount",
                "name": the("ServiceAccount", *FULL)["metadata"]["name"],
                "namespace": "operators",
            }
        ]


@pytest.mark.parametrize(("command", "kind"), [(DEFAULT, "ClusterRole"), (FULL, "Role")])
def test_every_kind_that_the_operator_knows_is_allowed(command: tuple[Any, ...], kind: str) -> None:
    allowed = {
        (group, resource, verb)
        for rule in rules(kind, *command)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    for resource in RESOURCES.values():
        if resource.kind == "RoleBinding" and kind == "Role":
            continue  # the role of a listed namespace has its Secrets in it
        needed = {"get", "list", "watch"} if resource.watched else set()
        needed |= {"create"} if resource.kind == "Event" else set()
        assert {(resource.group, resource.plural, verb) for verb in needed} <= allowed, (
            resource.kind
        )
        assert any(one[:2] == (resource.group, resource.plural) for one in allowed), resource.kind


@pytest.mark.parametrize(("command", "kind"), [(DEFAULT, "ClusterRole"), (FULL, "Role")])
def test_of_leases_only_the_operators_own_is_touched(command: tuple[Any, ...], kind: str) -> None:
    # A list of all namespaces is allowed by a name because it is asked for with a selector of that name.
    of_leases = [rule for rule in rules(kind, *command) if "leases" in rule["resources"]]
    assert any({"list", "watch"} <= set(rule["verbs"]) for rule in of_leases)
    for rule in [*of_leases, *rules("Role", *DEFAULT)]:
        assert rule.get("resourceNames") == [names.FIELD_MANAGER] or rule["verbs"] == ["create"]


def test_roles_can_be_left_to_others() -> None:
    command = (
        *DEFAULT,
        "--set",
        "rbac.create=false,serviceAccount.create=false,serviceAccount.name=mine",
    )
    assert [found["kind"] for found in objects(*command) if "Role" in found["kind"]] == []
    assert pod(*command)["spec"]["serviceAccountName"] == "mine"


# How its pods run.


def settings(*command: Any) -> Settings:
    """Read the environment of the operator's container as the operator does; it refuses unknown names."""
    told = {
        name: value if isinstance(value, str) else value["fieldRef"]["fieldPath"]
        for name, value in environment(*command).items()
    }
    return Settings.of(told)


def test_the_operator_is_told_what_it_has_to_know() -> None:
    assert settings(*FULL) == Settings(
        namespaces=("payments", "payments-staging"),
        api_image="registry.example.com/picopay/picopay-api:0.1.0-rc.1",
        postgres_image="registry.example.com:5000/library/postgres",
        resync_s=120,
        workers=4,
        pod_name="metadata.name",
        pod_namespace="metadata.namespace",
        account="spec.serviceAccountName",
        log_level="DEBUG",
        log_format="text",
    )


def test_the_defaults_of_the_chart_are_those_of_the_operator() -> None:
    assert settings(*DEFAULT) == Settings(
        pod_name="metadata.name",
        pod_namespace="metadata.namespace",
        account="spec.serviceAccountName",
    )


def test_it_is_asked_where_it_listens() -> None:
    (container,) = pod(*DEFAULT)["spec"]["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == settings(*DEFAULT).port
    asked = {
        kind: container[kind]["httpGet"]
        for kind in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert {kind: one["path"] for kind, one in asked.items()} == {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    assert {one["port"] for one in asked.values()} == {port["name"]}
    (of_service,) = the("Service", *DEFAULT)["spec"]["ports"]
    assert of_service["targetPort"] == port["name"]
    (endpoint,) = the("ServiceMonitor", *FULL)["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == (of_service["name"], "/metrics")


@pytest.mark.parametrize("command", [DEFAULT, FULL], ids=["default", "everything"])
def test_its_pods_are_restricted(command: tuple[Any, ...]) -> None:
    assert violations(pod(*command)) == []
    (test,) = of_kind("Pod", *command)
    assert violations(test) == []
    for spec in (pod(*command)["spec"], test["spec"]):
        assert spec["securityContext"]["runAsUser"] >= 10_001
        assert spec["enableServiceLinks"] is False
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"]["memory"]


def test_its_service_finds_its_pods_and_not_those_of_the_test() -> None:
    selector = the("Service", *DEFAULT)["spec"]["selector"]
    assert selector == the("Deployment", *DEFAULT)["spec"]["selector"]["matchLabels"]
    assert selector.items() <= pod(*DEFAULT)["metadata"]["labels"].items()
    (test,) = of_kind("Pod", *DEFAULT)
    assert not selector.items() <= test["metadata"]["labels"].items()


def test_alerts_are_about_metrics_that_there_are_and_tell_what_to_do() -> None:
    page = (CHECKOUT / "docs" / "how-to" / "answer-an-alert.md").read_text(encoding="utf-8")
    (group,) = the("PrometheusRule", *FULL)["spec"]["groups"]
    source = Path(metrics.__file__).read_text(encoding="utf-8")
    known = set(re.findall(r'"(picopay_operator_\w+)"', source))
    for rule in group["rules"]:
        used = set(re.findall(r"picopay_operator_\w+", rule["expr"]))
        assert used
        assert used <= known
        heading = rule["annotations"]["runbook_url"].partition("#")[2]
        assert heading == rule["alert"].lower()
        assert f"### {rule['alert']}\n" in page


def test_a_budget_never_keeps_a_single_operator_where_it_is() -> None:
    one = (*FULL, "--set", "replicaCount=1")
    assert of_kind("PodDisruptionBudget", *one) == []


@pytest.mark.parametrize("chart", ["picopay-operator", "picopay-engine"])
def test_charts_are_of_the_release(chart: str) -> None:
    release = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    about = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text(encoding="utf-8"))
    assert (about["version"], about["appVersion"]) == (release["version"], release["version"])
