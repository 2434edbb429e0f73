"""How Argo CD and kstatus, which is Flux's, read the conditions that the operator writes."""

import re
from typing import Any

import msgspec
import pytest
import yaml
from lupa import lua51  # type: ignore[import-untyped]  # it comes without types

from picopay_operator import names
from picopay_operator.conditions import Finding, Reason, Type, merge, summary
from picopay_operator.spec.status import ConditionStatus
from support.chart_files import PLAIN

TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE
GOOD = {
    kind: Finding(kind, TRUE, Reason.APPLIED, "as it should be")
    for kind in Type
    if kind not in {Type.READY, Type.RECONCILING, Type.STALLED, Type.PAUSED}
}
FILES = sorted((PLAIN / "gitops").glob("*.yaml"))


def engine(*findings: Finding, generation: int = 3, observed: int = 3) -> dict[str, Any]:
    """Return an engine whose status the operator has written after these findings."""
    found = GOOD | {finding.type: finding for finding in findings}
    conditions = merge([*summary(found), *found.values()], [], observed, "2026-11-25T10:00:00Z")
    return {
        "metadata": {"name": "ledger", "generation": generation},
        "spec": {},
        "status": {
            "observedGeneration": observed,
            "conditions": msgspec.to_builtins(conditions),
        },
    }


ROLLING = engine(Finding(Type.ROLLOUT_COMPLETE, FALSE, Reason.PROGRESSING, "1 of 3 pods"))
FAILED = engine(
    Finding(Type.SCHEMA_MIGRATED, FALSE, Reason.MIGRATION_FAILED, "it broke", stalled=True)
)
PENDING = engine(Finding(Type.SCHEMA_MIGRATED, FALSE, Reason.APPROVAL_PENDING, "approve a1b2"))
PAUSED = engine(
    Finding(Type.PAUSED, TRUE, Reason.PAUSED, "paused"),
    Finding(Type.ROLLOUT_COMPLETE, FALSE, Reason.PROGRESSING, "1 of 3 pods"),
)
ASLEEP = engine(Finding(Type.AVAILABLE, FALSE, Reason.SUSPENDED, "no pods, as was asked for"))
STALE = engine(generation=4)
NEW = {"metadata": {"name": "ledger", "generation": 1}, "spec": {}}


@pytest.mark.parametrize(
    ("made", "health", "told"),
    [
        (engine(), "Healthy", "takes payments"),
        (ROLLING, "Progressing", "Progressing: 1 of 3 pods"),
        (FAILED, "Degraded", "MigrationFailed: it broke"),
        (PENDING, "Suspended", "approve a1b2"),
        (PAUSED, "Suspended", "paused; 1 of 3 pods"),
        (ASLEEP, "Suspended", "no pods"),
        (STALE, "Progressing", "not seen this generation"),
        (NEW, "Progressing", "not seen this generation"),
    ],
    ids=["ready", "rolling", "failed", "pending", "paused", "suspended", "stale", "new"],
)
def test_argo_cd_shows_how_an_engine_is(made: dict[str, Any], health: str, told: str) -> None:
    patch = yaml.safe_load((PLAIN / "gitops" / "argocd-health-patch.yaml").read_text())
    script = patch["data"][f"resource.customizations.health.{names.GROUP}_{names.KIND}"]
    lua = lua51.LuaRuntime()  # Argo CD's interpreter is one of Lua 5.1
    lua.globals().obj = lua.table_from(made, recursive=True)
    answer = lua.execute(script)
    assert answer["status"] == health
    assert told in answer["message"]


def kstatus(made: dict[str, Any]) -> str:
    """Return what kstatus makes of an object of a kind that it does not know, by its rules in their order."""
    status = made.get("status", {})
    if (
        status.get("observedGeneration", made["metadata"]["generation"])
        != made["metadata"]["generation"]
    ):
        return "InProgress"
    found = {one["type"]: one["status"] for one in status.get("conditions", [])}
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    return "InProgress" if found.get("Ready", "True") != "True" else "Current"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (engine(), "Current"),
        (ROLLING, "InProgress"),
        (FAILED, "Failed"),
        (PENDING, "InProgress"),
        (PAUSED, "InProgress"),
        (ASLEEP, "InProgress"),
        (STALE, "InProgress"),
    ],
    ids=["ready", "rolling", "failed", "pending", "paused", "suspended", "stale"],
)
def test_kstatus_reads_it_without_help(made: dict[str, Any], expected: str) -> None:
    assert kstatus(made) == expected


def test_the_files_are_what_the_tools_read() -> None:
    for path in FILES:
        for found in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            assert found.keys() >= {"data"} or found.keys() >= {"apiVersion", "kind", "metadata"}
    (checks,) = [
        found["spec"]["healthCheckExprs"]
        for found in yaml.safe_load_all((PLAIN / "gitops" / "flux.yaml").read_text())
        if "healthCheckExprs" in found["spec"]
    ]
    assert [(one["apiVersion"], one["kind"]) for one in checks] == [(names.API_VERSION, names.KIND)]


def test_reasons_that_argo_cd_waits_for_are_reasons() -> None:
    text = (PLAIN / "gitops" / "argocd-health-patch.yaml").read_text(encoding="utf-8")
    (waits,) = re.findall(r"local waits = {(.*)}", text)
    assert set(re.findall(r"(\w+) = true", waits)) <= {reason.value for reason in Reason}
