"""The Jobs: a migration, the administrator's key, the check of the money.

Used by the plan, which names each by a digest of what it depends on. A Job is applied when there is none of
its name, and never again: its pods cannot be changed. It stays until the plan has read its report and deletes
it, so no time to live is set.
"""

from collections.abc import Iterable, Sequence

from picopay_operator import contract, names
from picopay_operator.contract import ExitCode, Hold, Variable
from picopay_operator.manifests import pods
from picopay_operator.manifests.context import Context, Manifest
from picopay_operator.manifests.metadata import metadata
from picopay_operator.manifests.pods import Volume
from picopay_operator.names import Component
from picopay_operator.spec.database import MigrationPolicy
from picopay_operator.spec.kinds import Resources

_RESOURCES = Resources(requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "512Mi"})
_ATTEMPTS = 3
_ADMIN_KEY_S = 600
_CHECK_S = 900

_HOPELESS = (
    ExitCode.FAILED,
    ExitCode.USAGE,
    ExitCode.CONFIGURATION,
    ExitCode.SCHEMA,
    ExitCode.REFUSED,
    ExitCode.HELD,
)
"""Ends after which another attempt would end the same way. Any other one counts as an attempt."""

_HOLDS = {
    MigrationPolicy.AUTOMATIC: None,
    MigrationPolicy.APPROVAL: Hold.DESTRUCTIVE,
    MigrationPolicy.MANUAL: Hold.ALWAYS,
}


def migration(
    context: Context, digest: str, approved: str | None = None, admit: str | None = None
) -> Manifest:
    """Return the Job that migrates.

    `approved` is the hash of a plan that may run although it is held, `admit` the schema of the oldest
    release that serves meanwhile.
    """
    wanted = context.engine.spec.migrations
    return _job(
        context,
        names.migration(context.name, digest),
        Component.MIGRATION,
        contract.migrate(_HOLDS[wanted.policy], approved, admit),
        attempts=wanted.backoff_limit,
        deadline_s=wanted.timeout_seconds,
    )


def admin_key(context: Context, digest: str, secret: str, overlap_s: int | None = None) -> Manifest:
    """Return the Job that makes the key in a Secret valid.

    With `overlap_s` the previous key, which the Secret has then as well, ends after so many seconds.
    """
    return _job(
        context,
        names.admin_key_job(context.name, digest),
        Component.ADMIN_KEY,
        contract.ensure_admin_key(overlap_s),
        attempts=_ATTEMPTS,
        deadline_s=_ADMIN_KEY_S,
        volumes=[pods.from_secret("admin-key", contract.ADMIN_KEY_FOLDER, secret)],
    )


def check(context: Context, digest: str) -> Manifest:
    """Return the Job that checks the money, and changes nothing."""
    return _job(
        context,
        names.check(context.name, digest),
        Component.CHECK,
        contract.check(),
        attempts=_ATTEMPTS,
        deadline_s=_CHECK_S,
    )


def _job(
    context: Context,
    name: str,
    component: Component,
    arguments: Iterable[str],
    *,
    attempts: int,
    deadline_s: int,
    volumes: Sequence[Volume] = (),
) -> Manifest:
    environment = pods.environment(context, {})
    owner = context.access.migration_url
    if component is Component.MIGRATION and owner:
        # Nobody else gets it: the owner of the tables may change history.
        environment.append(pods.from_key(Variable.MIGRATION_DATABASE_URL.value, owner))
    made = pods.container(context, component, arguments, environment, _RESOURCES, volumes)
    made["terminationMessagePath"] = contract.REPORT_FILE
    made["terminationMessagePolicy"] = "FallbackToLogsOnError"
    template = pods.template(context, component, made, volumes)
    template["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(context.engine, name, component, context.version),
        "spec": {
            "backoffLimit": attempts,
            "activeDeadlineSeconds": deadline_s,
            "podFailurePolicy": {"rules": _rules(component)},
            "template": template,
        },
    }


def _rules(component: Component) -> list[Manifest]:
    """Return what a pod's failure means. The first rule that fits counts."""
    return [
        {
            "action": "FailJob",
            "onExitCodes": _exits(component, _HOPELESS),
        },
        # Somebody else migrates, or a node was drained: neither is an attempt.
        {"action": "Ignore", "onExitCodes": _exits(component, [ExitCode.BUSY])},
        {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
    ]


def _exits(component: Component, codes: Iterable[ExitCode]) -> Manifest:
    return {
        "containerName": component.value,
        "operator": "In",
        "values": sorted(code.value for code in codes),
    }
