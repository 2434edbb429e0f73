"""What a person decides about an engine: approve, retry, promote, go back, replace the key. Pure.

Each function looks at an engine and returns the `Change` that the decision comes to, or raises `Refused` with
the reason. Called by `commands.py`, which carries it out.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Struct

from picopay_operator import contract, names
from picopay_operator.conditions import TRUE, Reason, Type
from picopay_operator.contract import MigrationReport
from picopay_operator.names import Component
from picopay_operator.plan import jobs, running
from picopay_operator.plan.jobs import JobState, Live
from picopay_operator.plan.outcome import Observed
from picopay_operator.spec.status import Condition, ServedRelease


class Refused(Exception):
    """What was asked for does not go with how the engine is; the message is for people."""


class Change(Struct, frozen=True, rename="camel"):
    """What is to be done: a merge patch of the engine, or Jobs to delete; and what to tell about it."""

    message: str
    patch: dict[str, Any] = {}
    deleted_jobs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


_OF_JOBS: Mapping[str, Component] = {
    Reason.CHECK_FAILED: Component.CHECK,
    Reason.FINDINGS: Component.CHECK,
    Reason.KEY_FAILED: Component.ADMIN_KEY,
}
"""What stands still because of a Job other than a migration's, which is made again when it is gone."""

_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?")
"""What `spec.version` can be."""


class _Image(NamedTuple):
    repository: str | None
    tag: str
    digest: str | None


def approve(observed: Observed, plan_hash: str | None = None) -> Change:
    """Let the plan run that waits; with a hash, only that plan."""
    _require_alive(observed)
    schema = observed.engine.status.schema
    if not schema.plan_hash:
        raise Refused(f"no plan of {observed.name} waits for an approval")
    if plan_hash and plan_hash != schema.plan_hash:
        raise Refused(
            f"the plan that waits is {schema.plan_hash}, not {plan_hash}: look at it again"
        )
    return Change(
        message=f"approved the plan {schema.plan_hash} of {observed.name}",
        patch=_annotation(names.APPROVE_PLAN, schema.plan_hash),
        notes=_if_paused(observed),
    )


def retry(observed: Observed) -> Change:
    """Have tried again what has failed: a migration, the check of the money, the administrator's key."""
    _require_alive(observed)
    ready = condition(observed, Type.READY)
    if ready and ready.status is TRUE and _is_current(observed, ready):
        raise Refused(f"{observed.name} is ready: nothing has failed")
    told = [one.reason for one in observed.engine.status.conditions if one.status is not TRUE]
    components = {_OF_JOBS[reason] for reason in told if reason in _OF_JOBS}
    if not components:
        return Change(
            message=f"the operator tries {observed.name} again",
            patch=_annotation(names.RETRY, _mark(observed.now)),
            notes=_if_paused(observed),
        )
    # An annotation would have the schema looked at again, and not what has failed.
    failed = tuple(
        job["metadata"]["name"]
        for job in observed.of_kind("Job")
        if _component(job) in components and jobs.state(job) is JobState.FAILED
    )
    if not failed:
        raise Refused("the Job that has failed is gone: the operator makes another one")
    message = f"deleted {', '.join(failed)}: the operator makes it anew"
    return Change(message=message, deleted_jobs=failed, notes=_if_paused(observed))


def promote(observed: Observed) -> Change:
    """Let the pods of the new version take over that wait for it."""
    _require_alive(observed)
    rolled_out = condition(observed, Type.ROLLOUT_COMPLETE)
    if not rolled_out or rolled_out.reason != Reason.PROMOTION_PENDING:
        why = f": {rolled_out.message}" if rolled_out else ""
        raise Refused(f"nothing of {observed.name} waits to be promoted{why}")
    waiting = beside(observed)
    if len(waiting) != 1:
        raise Refused(
            f"{len(waiting)} Deployments stand beside the one that serves: ask again soon"
        )
    revision = waiting[0]["metadata"]["labels"][names.REVISION_LABEL]
    return Change(
        message=f"promoted {waiting[0]['metadata']['name']}",
        patch=_annotation(names.PROMOTE, revision),
        notes=_if_paused(observed),
    )


def rotate(observed: Observed) -> Change:
    """Have the administrator's key replaced."""
    _require_alive(observed)
    secrets = condition(observed, Type.SECRETS_READY)
    if secrets and secrets.reason in {Reason.KEY_PENDING, Reason.KEY_FAILED}:
        raise Refused(f"the last key is not valid yet: {secrets.message}")
    overlap_s = observed.engine.spec.auth.overlap_seconds
    return Change(
        message=f"the administrator's key of {observed.name} is replaced",
        patch=_annotation(names.ROTATE_KEY, _mark(observed.now)),
        notes=(f"the old key stays valid for {overlap_s} s", *_if_paused(observed)),
    )


def rollback(observed: Observed, version: str | None = None) -> Change:
    """Go back to a release that has served here: the newest one that the schema admits, or a given one."""
    _require_alive(observed)
    oldest, earlier = oldest_release(observed), _earlier(observed)
    asked = [one for one in earlier if version in {None, one.version}]
    if not asked:
        known = ", ".join(one.version for one in earlier) or "none"
        wanted = f"{version} is no" if version else f"{observed.name} has no"
        raise Refused(f"{wanted} earlier release; those that have served: {known}")
    found = next((one for one in asked if _admits(oldest, one)), None)
    if found is None:
        safe = ", ".join(one.version for one in earlier if _admits(oldest, one)) or "none"
        raise Refused(
            f"{asked[0].version} wants schema {asked[0].head}, and the database admits releases from"
            f" schema {oldest} on; those that have served here and can: {safe}"
        )
    changed = _spec_of(observed, found)
    if not changed:
        raise Refused(f"{observed.name} asks for {found.version} already")
    admits = f"the schema admits it: it wants {found.head}, and {oldest} is the oldest that may be"
    if oldest is None:
        admits = "whether the schema admits it is not known here: the operator finds out first"
    kept = "a manifest in a repository or a chart must say the same, or it is undone"
    return Change(
        message=f"{observed.name} goes back to {found.version} ({found.image})",
        patch={"spec": changed},
        notes=(admits, kept, *_if_paused(observed)),
    )


def oldest_release(observed: Observed) -> str | None:
    """Return the oldest schema that a release may want; None when it is known from nowhere."""
    schema = observed.engine.status.schema
    if schema.oldest_release is not None or (job := schema.job) is None:
        return schema.oldest_release
    # The operator that has written the status is of an older release: what the migration has left tells, too.
    ending = jobs.ending(jobs.pods_of(observed, job))
    report = contract.read_report(MigrationReport, ending.message)
    return report.oldest_release if report else None


def condition(observed: Observed, kind: Type) -> Condition | None:
    """Return a condition of an engine, if it is there."""
    return next((one for one in observed.engine.status.conditions if one.type == kind), None)


def beside(observed: Observed) -> list[Live]:
    """Return the API's Deployments to which the Service does not lead."""
    active = running.active_deployment(observed)
    return [
        one
        for one in observed.of_kind("Deployment")
        if _component(one) == Component.API and one["metadata"]["name"] != active
    ]


def _admits(oldest: str | None, release: ServedRelease) -> bool:
    return oldest is None or release.head >= oldest


def _earlier(observed: Observed) -> list[ServedRelease]:
    """Return the releases that have served, without the one that is asked for now, if it was admitted."""
    releases = list(observed.engine.status.releases)
    migrated = condition(observed, Type.SCHEMA_MIGRATED)
    is_admitted = (
        migrated is not None and migrated.status is TRUE and _is_current(observed, migrated)
    )
    return releases[1:] if is_admitted else releases


def _spec_of(observed: Observed, release: ServedRelease) -> dict[str, Any]:
    """Return what must change in the spec, so that it asks for a release; None takes a field away."""
    spec, status = observed.engine.spec, observed.engine.status
    repository, tag, digest = _parts(release.image)
    is_version = _VERSION.fullmatch(release.version) is not None
    version = release.version if is_version else None
    used = {
        _parts(image).repository
        for image in (status.image, *(r.image for r in status.releases))
        if image
    }
    if spec.image.repository is None and used == {repository}:
        repository = None  # the operator's own, which is not written down
    wanted = {"repository": repository, "tag": None if tag == version else tag, "digest": digest}
    image = {key: value for key, value in wanted.items() if value != getattr(spec.image, key)}
    changed: dict[str, Any] = {"image": image} if image else {}
    return changed | ({"version": version} if version != spec.version else {})


def _parts(image: str) -> _Image:
    named, _, digest = image.partition("@")
    repository, _, tag = named.rpartition(":")
    return _Image(repository, tag, digest or None)


def _annotation(name: str, value: str) -> dict[str, Any]:
    return {"metadata": {"annotations": {name: value}}}


def _mark(now: datetime) -> str:
    return now.isoformat(timespec="milliseconds")


def _component(child: Live) -> str | None:
    component: str | None = child["metadata"].get("labels", {}).get(names.COMPONENT_LABEL)
    return component


def _is_current(observed: Observed, one: Condition) -> bool:
    return one.observed_generation == observed.engine.metadata.generation


def _require_alive(observed: Observed) -> None:
    if observed.engine.metadata.deletion_timestamp:
        raise Refused(f"{observed.name} is being deleted")


def _if_paused(observed: Observed) -> tuple[str, ...]:
    paused = observed.engine.spec.paused
    return (
        (f"{observed.name} is paused: nothing happens until spec.paused is off",) if paused else ()
    )
