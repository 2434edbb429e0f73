"""Objects around the pods: Jobs, the network, databases, Secrets."""

from base64 import b64decode
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import pytest

from picopay_operator import contract
from picopay_operator.contract import ExitCode
from picopay_operator.manifests import cnpg, jobs, network, postgres, secrets
from picopay_operator.manifests.access import access, cluster_name
from picopay_operator.manifests.context import Manifest, SecretKey
from picopay_operator.spec.database import TlsMode
from support.engines import DIGEST, REPOSITORY, context, known


def fate(job: Manifest, code: int) -> str:
    """Return what becomes of a Job after a pod that ended with this code."""
    rules: list[dict[str, Any]] = job["spec"]["podFailurePolicy"]["rules"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    for rule in rules:
        exits = rule.get("onExitCodes")
        if exits and exits["containerName"] == container["name"] and code in exits["values"]:
            return str(rule["action"])
    return "Count"


@pytest.mark.parametrize(
    ("code", "then"),
    [
        (ExitCode.FAILED, "FailJob"),
        (ExitCode.USAGE, "FailJob"),
        (ExitCode.CONFIGURATION, "FailJob"),
        (ExitCode.UNAVAILABLE, "Count"),
        (ExitCode.SCHEMA, "FailJob"),
        (ExitCode.REFUSED, "FailJob"),
        (ExitCode.BUSY, "Ignore"),
        (ExitCode.HELD, "FailJob"),
        (ExitCode.INTERNAL, "Count"),
        (ExitCode.INTERRUPTED, "Count"),
        (137, "Count"),  # killed, for its memory perhaps
    ],
)
def test_how_a_job_goes_on_after_a_pod_has_failed(code: int, then: str) -> None:
    decided = context(known("minimal"))
    for job in (
        jobs.migration(decided, DIGEST),
        jobs.admin_key(decided, DIGEST, "key"),
        jobs.check(decided, DIGEST),
    ):
        assert fate(job, code) == then
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
        assert "ttlSecondsAfterFinished" not in job["spec"]


@pytest.mark.parametrize(
    ("policy", "hold"),
    [("Automatic", []), ("Approval", ["--hold", "destructive"]), ("Manual", ["--hold", "always"])],
)
def test_a_migration_is_held_as_the_policy_says(policy: str, hold: list[str]) -> None:
    decided = context(known("minimal", migrations={"policy": policy}))
    (container,) = jobs.migration(decided, DIGEST)["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["migrate", "--report", contract.REPORT_FILE, *hold]
    assert container["terminationMessagePath"] == contract.REPORT_FILE


def paths(made: Manifest) -> list[str]:
    rules = made["spec"]["rules"]
    if made["kind"] == "Ingress":
        return [path["path"] for rule in rules for path in rule["http"]["paths"]]
    return [match["path"]["value"] for rule in rules for match in rule["matches"]]


def test_metrics_and_probes_are_not_reached_from_outside() -> None:
    decided = context(known("everything"))
    for made in (network.ingress(decided), network.http_route(decided)):
        assert made
        for hidden in (contract.METRICS_PATH, contract.LIVE_PATH, contract.READY_PATH):
            assert not any(f"{hidden}/".startswith(f"{path}/") for path in paths(made))
        assert "/v1" in paths(made)


def test_policies_let_in_whom_they_name_and_the_cluster_where_they_name_nobody() -> None:
    assert network.policies(context(known("minimal"))) == []
    api, workers, database = network.policies(
        context(known("minimal", networkPolicy={"enabled": True}))
    )
    anybody: list[Manifest] = [{"namespaceSelector": {}}]
    assert [rule["from"] for rule in api["spec"]["ingress"]] == [anybody]
    assert [rule["from"] for rule in workers["spec"]["ingress"]] == [anybody]
    ((clients,),) = (rule["from"] for rule in database["spec"]["ingress"])
    assert clients.keys() == {"podSelector"}
    assert "egress" not in database["spec"]  # and of that type: nothing is allowed


def test_a_database_is_reached_on_its_ports_and_on_any_where_they_are_not_known() -> None:
    decided = context(known("everything"))
    assert network.policies(decided)[0]["spec"]["egress"][1] == {
        "ports": [{"port": 5432, "protocol": "TCP"}, {"port": 6432, "protocol": "TCP"}]
    }
    unknown = msgspec.structs.replace(decided, access=access(decided.engine))
    assert network.policies(unknown)[0]["spec"]["egress"][1] == {"ports": [{"protocol": "TCP"}]}
    assert access(known("minimal")).ports == access(known("cloud_native_pg")).ports == (5432,)


def test_who_may_read_metrics_does_not_open_the_api_to_all() -> None:
    named = [{"podSelector": {"matchLabels": {"app": "shop"}}}]
    api, workers, _ = network.policies(
        context(known("minimal", networkPolicy={"enabled": True, "ingressFrom": named}))
    )
    assert [rule["from"] for rule in api["spec"]["ingress"]] == [named]
    assert workers["spec"]["ingress"][0]["from"] == [{"namespaceSelector": {}}]


@pytest.mark.parametrize(("policy", "kept"), [("Retain", "Retain"), ("Delete", "Delete")])
def test_the_volume_of_a_database_stays_or_goes_with_its_engine(policy: str, kept: str) -> None:
    made = known("minimal", deletionPolicy=policy)
    assert made.spec.database.postgres
    there = postgres.stateful_set(made, made.spec.database.postgres, REPOSITORY)
    assert there["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == kept


def test_a_volume_grows_by_its_claim_and_the_stateful_set_stays_as_it_is() -> None:
    made = known("minimal", database={"postgres": {"storage": {"size": "20Gi"}}})
    wanted = made.spec.database.postgres
    assert wanted
    (template,) = postgres.stateful_set(made, wanted, REPOSITORY, "5Gi")["spec"][
        "volumeClaimTemplates"
    ]
    claim = postgres.claim(made, wanted)
    assert template["spec"]["resources"]["requests"] == {"storage": "5Gi"}
    assert claim["spec"]["resources"]["requests"] == {"storage": "20Gi"}
    assert claim["metadata"]["name"] == f"{template['metadata']['name']}-demo-postgres-0"


def test_nothing_in_the_template_of_a_claim_ever_changes() -> None:
    made = known("minimal", podLabels={"a": "b"}, version="9.9.9", logLevel="DEBUG")
    other = known("minimal")
    assert made.spec.database.postgres
    assert other.spec.database.postgres
    one, two = (
        postgres.stateful_set(engine, wanted, REPOSITORY)["spec"]["volumeClaimTemplates"]
        for engine, wanted in (
            (made, made.spec.database.postgres),
            (other, other.spec.database.postgres),
        )
    )
    assert one == two
    assert "app.kubernetes.io/version" not in one[0]["metadata"]["labels"]


@pytest.mark.parametrize(("policy", "owned"), [("Retain", False), ("Delete", True)])
def test_a_cluster_of_data_belongs_to_its_engine_only_if_it_may_go_with_it(
    policy: str, owned: bool
) -> None:
    made = known("cloud_native_pg", deletionPolicy=policy)
    assert made.spec.database.cloud_native_pg
    there = cnpg.cluster(made, made.spec.database.cloud_native_pg, "1.2.3")
    assert ("ownerReferences" in there["metadata"]) is owned
    assert there["spec"]["instances"] == cnpg.INSTANCES


@pytest.mark.parametrize("instances", [1, 2, 3])
def test_a_payment_is_on_a_standby_before_it_is_answered(instances: int) -> None:
    made = known("cloud_native_pg", database={"cloudNativePG": {"instances": instances}})
    assert made.spec.database.cloud_native_pg
    spec = cnpg.cluster(made, made.spec.database.cloud_native_pg, "1.2.3")["spec"]
    if instances == 1:  # nothing could ever be answered
        assert "postgresql" not in spec
    else:
        assert spec["postgresql"] == {
            "synchronous": {
                "method": "any",
                "number": 1,
                "dataDurability": "required",
                "failoverQuorum": True,
            }
        }


def test_where_the_way_to_each_kind_of_database_is() -> None:
    assert access(known("minimal")).url == SecretKey("demo-postgres", "database-url")
    outside = access(known("everything"))
    assert outside.url == SecretKey("picopay-secrets", "url")
    assert outside.migration_url == SecretKey("picopay-owner", "owner-url")
    assert (outside.tls_mode, outside.ca) == (
        TlsMode.VERIFY_FULL,
        SecretKey("rds-ca", "bundle.pem"),
    )
    own = access(known("cloud_native_pg"))
    assert own.url == SecretKey("bank-postgres-app", "uri")
    assert (own.tls_mode, own.ca) == (
        TlsMode.VERIFY_FULL,
        SecretKey("bank-postgres-ca", "ca.crt"),
    )


def test_of_a_cluster_that_is_there_only_what_is_sure_is_taken_for_granted() -> None:
    made = known("cloud_native_pg", database={"cloudNativePG": {"clusterRef": {"name": "shared"}}})
    there = access(made)
    assert cluster_name(made) == "shared"
    assert there.url == SecretKey("shared-app", "uri")
    assert (there.tls_mode, there.ca) == (TlsMode.REQUIRE, None)


def read(secret: Manifest) -> dict[str, str]:
    return {key: b64decode(value).decode() for key, value in secret["data"].items()}


def test_the_secret_of_a_database_has_its_password_and_the_address_with_it() -> None:
    secret = secrets.database(known("minimal"), "18", "p@ss/w%rd", owned=False)
    values = read(secret)
    address = urlsplit(values["database-url"])
    assert values["password"] == "p@ss/w%rd" == unquote(address.password or "")
    assert address.hostname == "demo-postgres.shop.svc"
    assert (address.username, address.path) == (postgres.USER, f"/{postgres.DATABASE}")
    assert "ownerReferences" not in secret["metadata"]
    assert "stringData" not in secret


def test_the_secret_of_the_administrators_key_keeps_the_one_before() -> None:
    made = known("everything")
    first = secrets.admin_key(made, "treasury-key", "1.2.3", "ppk_1", owned=True)
    assert read(first) == {"api-key": "ppk_1"}
    assert "annotations" not in first["metadata"]
    second = secrets.admin_key(
        made, "treasury-key", "1.2.3", "ppk_2", owned=True, previous="ppk_1", rotation="2026-11"
    )
    assert read(second) == {"api-key": "ppk_2", "previous-api-key": "ppk_1"}
    assert second["metadata"]["annotations"] == {"picopay.io/rotate-admin-key": "2026-11"}
