"""Pods of an engine: their security, their environment, when they are replaced and when they are not."""

from typing import Any

import msgspec
import pytest

from picopay_operator import names
from picopay_operator.contract import Variable
from picopay_operator.manifests import api, jobs, postgres, worker
from picopay_operator.manifests.context import Context, Manifest
from picopay_operator.names import Component
from support.engines import DIGEST, ENGINES, REPOSITORY, context, known, manifests, templates
from support.pod_security import violations

ALL = [pytest.param(context(known(source.stem)), id=source.stem) for source in ENGINES]


@pytest.mark.parametrize("decided", ALL)
def test_every_pod_passes_the_restricted_profile(decided: Context) -> None:
    found = templates(manifests(decided))
    assert len(found) >= 5
    for template in found:
        assert violations(template) == []
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def spoilt(spec: dict[str, Any], container: dict[str, Any]) -> Manifest:
    template = api.template(context(known("minimal")))
    template["spec"] |= spec
    template["spec"]["containers"][0] |= container
    return template


@pytest.mark.parametrize(
    ("spec", "container", "problem"),
    [
        ({"hostNetwork": True}, {}, "hostNetwork"),
        ({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, {}, "volume host"),
        ({"securityContext": {"runAsNonRoot": True}}, {}, "api: seccompProfile"),
        ({}, {"securityContext": {}}, "api: allowPrivilegeEscalation"),
        ({}, {"securityContext": {"runAsUser": 0}}, "api: runAsUser"),
        ({}, {"ports": [{"containerPort": 80, "hostPort": 80}]}, "api: hostPort"),
    ],
)
def test_what_the_restricted_profile_refuses_is_noticed(
    spec: dict[str, Any], container: dict[str, Any], problem: str
) -> None:
    assert problem in violations(spoilt(spec, container))


@pytest.mark.parametrize("decided", ALL)
def test_the_same_is_made_of_the_same(decided: Context) -> None:
    first = [msgspec.json.encode(one) for one in manifests(decided)]
    assert first == [msgspec.json.encode(one) for one in manifests(decided)]


def selectors(found: list[Manifest]) -> list[Any]:
    return [one["spec"].get("selector") for one in found if "spec" in one]


@pytest.mark.parametrize("source", ENGINES, ids=lambda source: source.stem)
def test_selectors_stay_whatever_changes(source: Any) -> None:
    before = manifests(context(known(source.stem)))
    other = known(
        source.stem,
        podLabels={"a": "b", names.COMPONENT_LABEL: "other", names.ENGINE_LABEL: "other"},
        logLevel="DEBUG",
    )
    after = manifests(context(other, version="9.9.9", data_hash="0ther"))
    assert selectors(before) == selectors(after)
    for spec in (one["spec"] for one in after if "template" in one.get("spec", {})):
        labels = spec["template"]["metadata"]["labels"]
        assert labels.items() >= spec.get("selector", {}).get("matchLabels", {}).items()
        assert labels["a"] == "b"
        assert labels[names.ENGINE_LABEL] == other.metadata.name


@pytest.mark.parametrize("decided", ALL)
def test_fields_of_others_are_left_alone(decided: Context) -> None:
    for one in manifests(decided):
        assert "status" not in one
        assert one["metadata"].keys() <= {
            *("name", "namespace", "labels", "annotations", "ownerReferences")
        }
    for template in templates(manifests(decided)):
        assert names.RESTARTED_AT not in template["metadata"]["annotations"]


def test_the_number_of_pods_is_the_autoscalers_where_there_is_one() -> None:
    decided = context(known("everything"))
    assert "replicas" not in api.deployment(decided)["spec"]
    suspended = context(known("everything", suspended=True))
    assert api.deployment(suspended)["spec"]["replicas"] == 0
    assert worker.deployment(suspended)["spec"]["replicas"] == 0


@pytest.mark.parametrize(("given", "made"), [({}, 2), ({"replicas": 0}, 0), ({"replicas": 5}, 5)])
def test_the_number_of_pods_is_what_an_engine_says(given: dict[str, int], made: int) -> None:
    decided = context(known("minimal", **given))
    assert api.deployment(decided)["spec"]["replicas"] == made


def test_new_data_of_secrets_replaces_the_pods_that_use_it() -> None:
    one, other = (context(known("minimal"), data_hash=data) for data in ("a", "b"))
    assert api.template(one) != api.template(other)
    assert worker.deployment(one) != worker.deployment(other)
    assert jobs.check(one, DIGEST) == jobs.check(other, DIGEST)


def test_a_new_release_does_not_start_the_database_again() -> None:
    made = known("minimal")
    wanted = made.spec.database.postgres
    assert wanted
    before = postgres.stateful_set(made, wanted, REPOSITORY)
    assert before["metadata"]["labels"][names.VERSION_LABEL] == "18"
    assert before == postgres.stateful_set(known("minimal", version="9.9.9"), wanted, REPOSITORY)


def test_of_a_blue_green_rollout_each_deployment_has_its_own_pods() -> None:
    decided = context(known("cloud_native_pg"))
    blue, green = api.deployment(decided, "aaaa"), api.deployment(decided, "bbbb")
    assert (blue["metadata"]["name"], green["metadata"]["name"]) == (
        "bank-api-aaaa",
        "bank-api-bbbb",
    )
    for one, revision in ((blue, "aaaa"), (green, "bbbb")):
        selector = one["spec"]["selector"]["matchLabels"]
        assert selector == {
            **names.selector("bank", Component.API),
            names.REVISION_LABEL: revision,
        }
        assert one["spec"]["template"]["metadata"]["labels"].items() >= selector.items()
        assert api.service(decided, revision)["spec"]["selector"] == selector
    # The budget, and without a revision the Service, take in the pods of both.
    budget = api.disruption_budget(decided)["spec"]["selector"]["matchLabels"]
    assert budget == names.selector("bank", Component.API)


def environment(template: Manifest) -> dict[str, Any]:
    (container,) = template["spec"]["containers"]
    found = {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}
    assert len(found) == len(container["env"])
    return found


def test_the_operators_variables_win() -> None:
    given = [
        {"name": "PICOPAY_POOL_SIZE", "value": "100"},
        {"name": "PICOPAY_BATCH_COMMANDS_MAX", "value": "64"},
    ]
    decided = context(known("minimal", env=given))
    for template in (api.template(decided), worker.deployment(decided)["spec"]["template"]):
        found = environment(template)
        assert found["PICOPAY_POOL_SIZE"] == "8"
        assert found["PICOPAY_BATCH_COMMANDS_MAX"] == "64"
    assert "PICOPAY_BATCH_COMMANDS_MAX" not in environment(
        jobs.migration(decided, DIGEST)["spec"]["template"]
    )


def test_only_the_migration_knows_the_owner_of_the_tables() -> None:
    knowing = [
        template["metadata"]["labels"][names.COMPONENT_LABEL]
        for template in templates(manifests(context(known("everything"))))
        if Variable.MIGRATION_DATABASE_URL in environment(template)
    ]
    assert knowing == ["migration"]


@pytest.mark.parametrize("grace_s", [10, 40, 600])
def test_a_pod_ends_by_itself_before_kubernetes_ends_it(grace_s: int) -> None:
    template = api.template(context(known("minimal", terminationGracePeriodSeconds=grace_s)))
    (container,) = template["spec"]["containers"]
    waits_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    ends_s = int(environment(template)[Variable.SHUTDOWN_GRACE_MS]) / 1000
    assert 0 < ends_s < template["spec"]["terminationGracePeriodSeconds"] - waits_s
