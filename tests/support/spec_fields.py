"""A value for each field of a spec, and the place in the objects of an engine where it arrives. Data.

Used by `test_spec_fields.py`, which fails for a field that has no entry there or here.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

API = "Deployment/payments-api:spec.template"
WORKER = "Deployment/payments-worker:spec.template"
API_POD = f"{API}.spec.containers.api"
WORKER_POD = f"{WORKER}.spec.containers.worker"
MIGRATION = "Job/payments-migrate-*:spec"
MIGRATION_POD = f"{MIGRATION}.template.spec.containers.migration"
POSTGRES = "StatefulSet/payments-postgres:spec"
CLAIM = f"{POSTGRES}.volumeClaimTemplates.0.spec"
CLUSTER = "Cluster/payments-postgres:spec"
SCALER = "HorizontalPodAutoscaler/payments-api:spec"
ROUTE = "HTTPRoute/payments-api:spec"
MONITOR = "ServiceMonitor/payments-monitoring"

SECRET = {"name": "other", "key": "k"}
SCALED = {"maxReplicas": 9}
PEER = {"namespaceSelector": {"matchLabels": {"team": "web"}}}
TERM = {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM]}
    }
}
TOLERATION = {"key": "payments", "operator": "Exists"}
IN_CLUSTER: dict[str, Any] = {"database": {"secretRef": None, "postgres": {}}}
OF_CNPG = {"database": {"secretRef": None, "cloudNativePG": {"instances": 1}}}
REFERRED = {"database": {"secretRef": None, "cloudNativePG": {"clusterRef": {"name": "bank"}}}}


class Seen(NamedTuple):
    """Where the value of a field arrives, and as what.

    A place is a kind, a name and a path; `*` ends a name that has a digest. `beside` is what else an engine
    must say for the field to have a sense. The value itself arrives where `as_` is not given.
    """

    value: Any
    place: str
    as_: Any = None
    beside: Mapping[str, Any] = {}
    field: dict[str, Any] | None = None
    """The change itself, where the field is in a list."""


def _variable(value: Any) -> dict[str, Any]:
    return {"env": [{"name": "PICOPAY_TUNED", **value}]}


def _probe(name: str) -> dict[str, Seen]:
    place = f"{API_POD}.{name}Probe"
    return {
        f"probes.{name}.{field}": Seen(47, f"{place}.{field}")
        for field in ("periodSeconds", "timeoutSeconds", "failureThreshold")
    }


def _parent(**fields: str) -> dict[str, Any]:
    return {"httpRoute": {"parentRefs": [{"name": "public", **fields}]}}


def _variables() -> dict[str, Seen]:
    place = f"{API_POD}.env.PICOPAY_TUNED"
    from_secret = _variable({"valueFrom": {"secretKeyRef": SECRET}})
    from_map = _variable({"valueFrom": {"configMapKeyRef": SECRET}})
    secret_place, map_place = (
        f"{place}.valueFrom.{kind}KeyRef" for kind in ("secret", "configMap")
    )
    return {
        "env[].name": Seen("PICOPAY_TUNED", f"{place}.name", field=_variable({"value": "7"})),
        "env[].value": Seen(
            "7", f"{WORKER_POD}.env.PICOPAY_TUNED.value", field=_variable({"value": "7"})
        ),
        "env[].valueFrom.secretKeyRef.name": Seen(
            "other", f"{secret_place}.name", field=from_secret
        ),
        "env[].valueFrom.secretKeyRef.key": Seen("k", f"{secret_place}.key", field=from_secret),
        "env[].valueFrom.configMapKeyRef.name": Seen("other", f"{map_place}.name", field=from_map),
        "env[].valueFrom.configMapKeyRef.key": Seen("k", f"{map_place}.key", field=from_map),
    }


FIELDS: dict[str, Seen] = {
    "version": Seen("2.0.0", f"{API_POD}.image", "picopay/picopay-api:2.0.0"),
    "image.repository": Seen("mirror/api", f"{API_POD}.image", "mirror/api:1.4.0"),
    "image.tag": Seen("fips", f"{API_POD}.image", "picopay/picopay-api:fips"),
    "image.digest": Seen(
        f"sha256:{'0' * 64}", f"{API_POD}.image", f"picopay/picopay-api:1.4.0@sha256:{'0' * 64}"
    ),
    "image.pullPolicy": Seen("Always", f"{MIGRATION_POD}.imagePullPolicy"),
    "imagePullSecrets[].name": Seen(
        "registry",
        f"{WORKER}.spec.imagePullSecrets.0.name",
        field={"imagePullSecrets": [{"name": "registry"}]},
    ),
    "replicas": Seen(7, "Deployment/payments-api:spec.replicas"),
    "autoscaling.minReplicas": Seen(3, f"{SCALER}.minReplicas", beside={"autoscaling": SCALED}),
    "autoscaling.maxReplicas": Seen(7, f"{SCALER}.maxReplicas", beside={"autoscaling": SCALED}),
    "autoscaling.cpuUtilizationPercent": Seen(
        55,
        f"{SCALER}.metrics.0.containerResource.target.averageUtilization",
        beside={"autoscaling": SCALED},
    ),
    "autoscaling.scaleDownStabilizationSeconds": Seen(
        17,
        f"{SCALER}.behavior.scaleDown.stabilizationWindowSeconds",
        beside={"autoscaling": SCALED},
    ),
    "database.secretRef.name": Seen(
        "other", f"{API_POD}.env.DATABASE_URL.valueFrom.secretKeyRef.name"
    ),
    "database.secretRef.key": Seen("k", f"{API_POD}.env.DATABASE_URL.valueFrom.secretKeyRef.key"),
    "database.postgres.version": Seen(
        17,
        f"{POSTGRES}.template.spec.containers.database.image",
        "docker.io/library/postgres:17",
        IN_CLUSTER,
    ),
    "database.postgres.image": Seen(
        "mirror/pg:18", f"{POSTGRES}.template.spec.containers.database.image", beside=IN_CLUSTER
    ),
    "database.postgres.storage.size": Seen(
        "9Gi", f"{CLAIM}.resources.requests.storage", beside=IN_CLUSTER
    ),
    "database.postgres.storage.className": Seen(
        "fast", f"{CLAIM}.storageClassName", beside=IN_CLUSTER
    ),
    "database.postgres.resources.requests": Seen(
        {"cpu": "3"},
        f"{POSTGRES}.template.spec.containers.database.resources.requests",
        beside=IN_CLUSTER,
    ),
    "database.postgres.resources.limits": Seen(
        {"memory": "3Gi"},
        f"{POSTGRES}.template.spec.containers.database.resources.limits",
        beside=IN_CLUSTER,
    ),
    "database.cloudNativePG.clusterRef.name": Seen(
        "bank", f"{API_POD}.env.DATABASE_URL.valueFrom.secretKeyRef.name", "bank-app", REFERRED
    ),
    "database.cloudNativePG.instances": Seen(5, f"{CLUSTER}.instances", beside=OF_CNPG),
    "database.cloudNativePG.storage.size": Seen("9Gi", f"{CLUSTER}.storage.size", beside=OF_CNPG),
    "database.cloudNativePG.storage.className": Seen(
        "fast", f"{CLUSTER}.storage.storageClass", beside=OF_CNPG
    ),
    "database.migrationSecretRef.name": Seen(
        "other",
        f"{MIGRATION_POD}.env.PICOPAY_MIGRATION_DATABASE_URL.valueFrom.secretKeyRef.name",
    ),
    "database.migrationSecretRef.key": Seen(
        "k",
        f"{MIGRATION_POD}.env.PICOPAY_MIGRATION_DATABASE_URL.valueFrom.secretKeyRef.key",
        beside={"database": {"migrationSecretRef": {"name": "other"}}},
    ),
    "database.pool.size": Seen(4, f"{API_POD}.env.PICOPAY_POOL_SIZE.value", "4"),
    "database.tls.mode": Seen("require", f"{WORKER_POD}.env.PICOPAY_DATABASE_TLS_MODE.value"),
    "database.tls.caSecretRef.name": Seen(
        "other",
        f"{API}.spec.volumes.database-ca.secret.secretName",
        beside={"database": {"tls": {"mode": "verify-full", "caSecretRef": {"key": "k"}}}},
    ),
    "database.tls.caSecretRef.key": Seen(
        "k",
        f"{MIGRATION}.template.spec.volumes.database-ca.secret.items.0.key",
        beside={"database": {"tls": {"mode": "verify-full", "caSecretRef": {"name": "other"}}}},
    ),
    "migrations.policy": Seen("Manual", f"{MIGRATION_POD}.args.4", "always"),
    "migrations.backoffLimit": Seen(7, f"{MIGRATION}.backoffLimit"),
    "migrations.timeoutSeconds": Seen(77, f"{MIGRATION}.activeDeadlineSeconds"),
    "auth.adminKeySecretName": Seen(
        "treasury", "Job/payments-key-*:spec.template.spec.volumes.admin-key.secret.secretName"
    ),
    "rateLimit.requests": Seen(77, f"{API_POD}.env.PICOPAY_RATE_LIMIT_REQUESTS.value", "77"),
    "rateLimit.windowSeconds": Seen(7, f"{API_POD}.env.PICOPAY_RATE_LIMIT_WINDOW_S.value", "7"),
    "logLevel": Seen("DEBUG", f"{WORKER_POD}.env.LOG_LEVEL.value"),
    **_variables(),
    "worker.replicas": Seen(3, "Deployment/payments-worker:spec.replicas"),
    "worker.resources.requests": Seen({"cpu": "3"}, f"{WORKER_POD}.resources.requests"),
    "worker.resources.limits": Seen({"memory": "3Gi"}, f"{WORKER_POD}.resources.limits"),
    "resources.requests": Seen({"cpu": "3"}, f"{API_POD}.resources.requests"),
    "resources.limits": Seen({"memory": "3Gi"}, f"{API_POD}.resources.limits"),
    "nodeSelector": Seen({"pool": "x"}, f"{MIGRATION}.template.spec.nodeSelector"),
    "tolerations": Seen([TOLERATION], f"{WORKER}.spec.tolerations"),
    "affinity": Seen(AFFINITY, f"{API}.spec.affinity"),
    "topologySpreadConstraints": Seen(
        [{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
        f"{API}.spec.topologySpreadConstraints.0.topologyKey",
        "rack",
    ),
    "priorityClassName": Seen("critical", f"{API}.spec.priorityClassName"),
    "podLabels": Seen({"team": "x"}, f"{WORKER}.metadata.labels.team", "x"),
    "podAnnotations": Seen({"team": "x"}, f"{API}.metadata.annotations.team", "x"),
    **_probe("startup"),
    **_probe("readiness"),
    **_probe("liveness"),
    "terminationGracePeriodSeconds": Seen(77, f"{API}.spec.terminationGracePeriodSeconds"),
    "ingress.host": Seen("pay.example.com", "Ingress/payments-api:spec.rules.0.host"),
    "ingress.className": Seen(
        "haproxy", "Ingress/payments-api:spec.ingressClassName", beside={"ingress": {"host": "a.b"}}
    ),
    "ingress.annotations": Seen(
        {"issuer": "x"},
        "Ingress/payments-api:metadata.annotations.issuer",
        "x",
        {"ingress": {"host": "a.b"}},
    ),
    "ingress.tls.secretName": Seen(
        "pay-tls", "Ingress/payments-api:spec.tls.0.secretName", beside={"ingress": {"host": "a.b"}}
    ),
    "httpRoute.parentRefs[].name": Seen("public", f"{ROUTE}.parentRefs.0.name", field=_parent()),
    "httpRoute.parentRefs[].namespace": Seen(
        "gates", f"{ROUTE}.parentRefs.0.namespace", field=_parent(namespace="gates")
    ),
    "httpRoute.parentRefs[].sectionName": Seen(
        "https", f"{ROUTE}.parentRefs.0.sectionName", field=_parent(sectionName="https")
    ),
    "httpRoute.hostnames": Seen(["a.example.com"], f"{ROUTE}.hostnames", beside=_parent()),
    "networkPolicy.enabled": Seen(
        value=True,
        place="NetworkPolicy/payments-worker:spec.policyTypes",
        as_=["Ingress", "Egress"],
    ),
    "networkPolicy.ingressFrom": Seen(
        [PEER],
        "NetworkPolicy/payments-api:spec.ingress.0.from",
        beside={"networkPolicy": {"enabled": True}},
    ),
    "networkPolicy.metricsFrom": Seen(
        [PEER],
        "NetworkPolicy/payments-worker:spec.ingress.0.from",
        beside={"networkPolicy": {"enabled": True}},
    ),
    "podDisruptionBudget.enabled": Seen(value=False, place="PodDisruptionBudget/payments-api:kind"),
    "podDisruptionBudget.maxUnavailable": Seen(
        "25%", "PodDisruptionBudget/payments-api:spec.maxUnavailable"
    ),
    "monitoring.serviceMonitor.enabled": Seen(
        value=True, place=f"{MONITOR}:kind", as_="ServiceMonitor"
    ),
    "monitoring.serviceMonitor.labels": Seen(
        {"team": "x"},
        f"{MONITOR}:metadata.labels.team",
        "x",
        {"monitoring": {"serviceMonitor": {"enabled": True}}},
    ),
    "monitoring.serviceMonitor.intervalSeconds": Seen(
        17,
        f"{MONITOR}:spec.endpoints.0.interval",
        "17s",
        {"monitoring": {"serviceMonitor": {"enabled": True}}},
    ),
    "monitoring.prometheusRule.enabled": Seen(
        value=True, place="PrometheusRule/payments-monitoring:kind", as_="PrometheusRule"
    ),
    "monitoring.prometheusRule.labels": Seen(
        {"team": "x"},
        "PrometheusRule/payments-monitoring:metadata.labels.team",
        "x",
        {"monitoring": {"prometheusRule": {"enabled": True}}},
    ),
    "monitoring.dashboard.enabled": Seen(
        value=True, place="ConfigMap/payments-monitoring:kind", as_="ConfigMap"
    ),
    "monitoring.dashboard.labels": Seen(
        {"team": "x"},
        "ConfigMap/payments-monitoring:metadata.labels.team",
        "x",
        {"monitoring": {"dashboard": {"enabled": True}}},
    ),
    "rollout.maxSurge": Seen("50%", "Deployment/payments-api:spec.strategy.rollingUpdate.maxSurge"),
    "rollout.maxUnavailable": Seen(
        1, "Deployment/payments-api:spec.strategy.rollingUpdate.maxUnavailable"
    ),
    "rollout.progressDeadlineSeconds": Seen(
        77, "Deployment/payments-api:spec.progressDeadlineSeconds"
    ),
    "suspended": Seen(value=True, place="Deployment/payments-worker:spec.replicas", as_=0),
    "deletionPolicy": Seen(
        "Delete",
        f"{POSTGRES}.persistentVolumeClaimRetentionPolicy.whenDeleted",
        beside=IN_CLUSTER,
    ),
}
