"""The schema: one Job for each image and database, and nothing is rolled out before it has succeeded. Pure.

The Job plans, waits for an approval where the policy asks for one, and migrates; its report says what was. A
Job is made once and never changed: whatever it depends on is in its name. One that runs is never deleted.
"""

import re
from datetime import timedelta
from typing import NamedTuple

from msgspec import structs

from picopay_operator import contract, drift, names
from picopay_operator.conditions import FALSE, TRUE, Finding, Reason, Type
from picopay_operator.contract import ExitCode, MigrationReport
from picopay_operator.manifests import jobs as manifests
from picopay_operator.manifests.context import Access, Context
from picopay_operator.plan import jobs, secrets
from picopay_operator.plan.jobs import JobState, Live
from picopay_operator.plan.outcome import Observed, Release, Step
from picopay_operator.resources import Ref
from picopay_operator.spec.engine import EngineSpec
from picopay_operator.spec.status import Revisions, ServedRelease

_RETRY_UNREACHABLE = timedelta(seconds=30)
"""How long a Job that could not reach the database is left before another one is made."""

_RELEASES_MAX = 10
_REPORT_S = 10.0
"""How long after the end of a Job its pod, and with it the report, may still be on its way to us."""

_LABEL = re.compile(r"[^A-Za-z0-9._-]")


class Cleared(NamedTuple):
    """An image that may run on the database as it is, as a Job has found."""

    image: str
    version: str
    job: str


class Schema(NamedTuple):
    """What is known of the schema: for the status, and for the next step."""

    revisions: Revisions
    releases: list[ServedRelease]
    connections_max: int | None


def image_of(spec: EngineSpec, release: Release) -> tuple[str, str]:
    """Return the image that an engine asks for, complete, and its version as far as that is said."""
    repository, tag = _parted(release.image)
    version = spec.image.tag or spec.version or ("" if spec.image.repository else tag)
    version = version or release.version
    image = f"{spec.image.repository or repository}:{version}"
    if spec.image.digest:
        image += f"@{spec.image.digest}"
    return image, _LABEL.sub("-", spec.version or version)[:63].strip("-._")


def _parted(image: str) -> tuple[str, str]:
    """Part an image into its repository, which may have a port, and its tag."""
    image = image.partition("@")[0]
    folder, slash, name = image.rpartition("/")
    name, _, tag = name.partition(":")
    return f"{folder}{slash}{name}", tag


def step(observed: Observed, access: Access | None) -> tuple[Cleared | None, Schema, Step]:
    """Return the wanted image once it may run, what is known of the schema, and what is to be done."""
    status = observed.engine.status
    known = Schema(status.schema, list(status.releases), status.connections_max)
    if access is None:
        return None, known, _kept(observed)
    image, version = image_of(observed.engine.spec, observed.release)
    context = Context(
        engine=observed.engine, image=image, version=version, access=access, data_hash=""
    )
    digest = _digest(observed, access, image)
    name = names.migration(observed.name, digest)
    job = observed.child("Job", name)
    if job is None:
        return None, known, _begin(observed, context, digest)
    ending = jobs.ending(jobs.pods_of(observed, name))
    report = contract.read_report(MigrationReport, ending.message)
    known = _known(known, name, job, report, ending)
    match jobs.state(job):
        case JobState.RUNNING:
            return None, known, _running(observed, name, ending) | _kept(observed)
        case JobState.COMPLETE:
            if (overtaken := _overtaken(observed, name, job)) is not None:
                return None, known, overtaken
            found = (report and report.release) or _version_of(known, image)
            if found is None and _since_end_s(observed, job) < _REPORT_S:
                return None, known, _awaited(observed, name)
            cleared = Cleared(image, found or version, name)
            return cleared, _served(known, cleared, report), _done(observed, name, known)
        case JobState.FAILED:
            if known.revisions.exit_code is None and _since_end_s(observed, job) < _REPORT_S:
                return None, known, _awaited(observed, name)
    return None, known, _failed(observed, name, job, report, ending, known)


def _digest(observed: Observed, access: Access, image: str) -> str:
    """Return the part of a Job's name that tells what it was for."""
    spec, annotations = observed.engine.spec, observed.engine.metadata.annotations
    used = [
        secrets.value_digest(observed, key) for key in (access.url, access.migration_url, access.ca)
    ]
    asked = [annotations.get(names.APPROVE_PLAN), annotations.get(names.RETRY)]
    return drift.digest([image, used, access.tls_mode, spec.migrations.policy, asked], 8)


def _migrations(observed: Observed) -> list[Live]:
    prefix = names.migration(observed.name, "")
    return [job for job in observed.of_kind("Job") if job["metadata"]["name"].startswith(prefix)]


def _kept(observed: Observed) -> Step:
    return Step(kept=[Ref("Job", job["metadata"]["name"]) for job in _migrations(observed)])


def _version_of(known: Schema, image: str) -> str | None:
    """Return the version of an image that has been cleared before."""
    return next((one.version for one in known.releases if one.image == image), None)


def _since_end_s(observed: Observed, job: Live) -> float:
    ended_at = jobs.ended_at(job) or observed.now
    return (observed.now - ended_at).total_seconds()


def _awaited(observed: Observed, name: str) -> Step:
    message = f"the report of the Job {name} is awaited"
    return _kept(observed) | Step(
        findings=_findings(Reason.MIGRATION_RUNNING, message), look_again_s=1.0
    )


def _overtaken(observed: Observed, name: str, job: Live) -> Step | None:
    """Return what to do about a Job after which another one was made; None if there is none."""
    made = str(job["metadata"].get("creationTimestamp", ""))
    newer = [
        one
        for one in _migrations(observed)
        if one["metadata"]["name"] != name
        and str(one["metadata"].get("creationTimestamp", "")) > made
    ]
    if not newer:
        return None
    other = newer[-1]["metadata"]["name"]
    if any(jobs.state(one) is JobState.RUNNING for one in newer):
        message = f"another migration is running: {other}"
        return _kept(observed) | Step(findings=_findings(Reason.MIGRATION_RUNNING, message))
    # What it found may not be so any more: another one of its name finds out.
    kept = [ref for ref in _kept(observed).kept if ref.name != name]
    message = f"the schema is looked at again, after {other}"
    return Step(
        kept=kept,
        deleted=[Ref("Job", name)],
        findings=_findings(Reason.MIGRATION_PENDING, message),
    )


def _begin(observed: Observed, context: Context, digest: str) -> Step:
    running = [job for job in _migrations(observed) if jobs.state(job) is JobState.RUNNING]
    if running:
        message = f"another migration is running: {running[0]['metadata']['name']}"
        return _kept(observed) | Step(findings=_findings(Reason.MIGRATION_RUNNING, message))
    approved = observed.engine.metadata.annotations.get(names.APPROVE_PLAN)
    message = f"the schema is checked and migrated for {context.image}"
    return _kept(observed) | Step(
        wanted=[manifests.migration(context, digest, approved)],
        findings=_findings(Reason.MIGRATION_PENDING, message),
    )


def _running(observed: Observed, name: str, ending: jobs.Ending) -> Step:
    trouble = jobs.trouble(jobs.pods_of(observed, name))
    if trouble:
        return Step(findings=_findings(trouble.reason, trouble.message))
    if ending.exit_code is None:
        return Step(findings=_findings(Reason.MIGRATION_RUNNING, f"the Job {name} is running"))
    why = {
        ExitCode.UNAVAILABLE: "the database cannot be reached",
        ExitCode.BUSY: "another process is migrating the database",
    }.get(ExitCode(ending.exit_code) if ending.exit_code in set(ExitCode) else ExitCode.INTERNAL)
    message = why or f"an attempt has failed: {_said(ending)}"
    found = list(_findings(Reason.MIGRATION_RUNNING, f"{message}; the Job {name} tries again"))
    if ending.exit_code == ExitCode.UNAVAILABLE:
        found.append(_unreachable(_said(ending)))
    return Step(findings=found)


def _done(observed: Observed, name: str, known: Schema) -> Step:
    revision = known.revisions.current
    migrated = f"the schema is at {revision}" if revision else "the schema is as the image wants it"
    old = [
        Ref("Job", job["metadata"]["name"])
        for job in _migrations(observed)
        if job["metadata"]["name"] != name and jobs.state(job) is not JobState.RUNNING
    ]
    return Step(
        kept=[Ref("Job", name)],
        deleted=old,
        findings=[
            Finding(Type.SCHEMA_MIGRATED, TRUE, Reason.MIGRATED, migrated),
            Finding(
                Type.SCHEMA_COMPATIBLE, TRUE, Reason.COMPATIBLE, "the image goes with the schema"
            ),
            Finding(
                Type.DATABASE_REACHABLE, TRUE, Reason.REACHABLE, "a migration Job has reached it"
            ),
        ],
    )


def _failed(
    observed: Observed,
    name: str,
    job: Live,
    report: MigrationReport | None,
    ending: jobs.Ending,
    known: Schema,
) -> Step:
    code = known.revisions.exit_code
    if code is None or code == ExitCode.UNAVAILABLE:
        # Nobody has got to the database, or nobody knows whether: neither is an answer.
        return _try_again(observed, name, job, ending)
    kept = _kept(observed)
    plan_hash = known.revisions.plan_hash
    if code == ExitCode.HELD and plan_hash:
        message = (
            f"the plan {plan_hash} waits: approve it with the annotation"
            f" {names.APPROVE_PLAN}={plan_hash}, or with `kubectl picopay approve {observed.name}`"
        )
        return kept | Step(findings=_findings(Reason.APPROVAL_PENDING, message))
    if report and report.code == contract.SCHEMA_AHEAD:
        return kept | Step(findings=[_refused(known, report)])
    trouble = jobs.trouble(jobs.pods_of(observed, name))
    why = _said(ending) or (trouble and trouble.message) or _job_says(job)
    message = (
        f"the migration has failed after {jobs.failures(job)} attempts: {why};"
        f" the annotation {names.RETRY} with any new value tries again"
    )
    return kept | Step(
        findings=[
            Finding(Type.SCHEMA_MIGRATED, FALSE, Reason.MIGRATION_FAILED, message, stalled=True)
        ]
    )


def _try_again(observed: Observed, name: str, job: Live, ending: jobs.Ending) -> Step:
    """Have another Job of the same name made after a while: what was away may be back."""
    ended_at = jobs.ended_at(job) or observed.now
    left_s = (ended_at + _RETRY_UNREACHABLE - observed.now).total_seconds()
    found = [
        *_findings(
            Reason.MIGRATION_PENDING, "the migration waits until the database can be reached"
        ),
        _unreachable(_said(ending)),
    ]
    if left_s > 0:
        return _kept(observed) | Step(findings=found, look_again_s=left_s)
    kept = [ref for ref in _kept(observed).kept if ref.name != name]
    return Step(findings=found, kept=kept, deleted=[Ref("Job", name)])


def _refused(known: Schema, report: MigrationReport) -> Finding:
    """Refuse to go back, and name the release nearest to the wanted one that the database admits."""
    oldest = report.oldest_release or ""
    admitted = sorted(
        (one for one in known.releases if one.head >= oldest), key=lambda one: one.head
    )
    nearest = (
        f"the nearest release that has served here and can is {admitted[0].version}"
        if admitted
        else "no release that has served here can"
    )
    message = (
        f"{report.release or 'this release'} wants schema {report.head}, and the database at"
        f" {report.current} admits releases from schema {oldest} on; {nearest}"
    )
    return Finding(Type.SCHEMA_COMPATIBLE, FALSE, Reason.ROLLBACK_REFUSED, message, stalled=True)


def _known(
    known: Schema, name: str, job: Live, report: MigrationReport | None, ending: jobs.Ending
) -> Schema:
    """Return what a Job has told, or what was known before where it has not told it (yet)."""
    attempts = jobs.failures(job)
    if report is None:
        if known.revisions.job == name:
            revisions = structs.replace(known.revisions, attempts=attempts)
        else:
            revisions = Revisions(
                current=known.revisions.current, attempts=attempts, exit_code=ending.exit_code
            )
        return known._replace(revisions=revisions)
    waits = report.exit_code == ExitCode.HELD
    titles = [
        f"{one.revision} {one.title}{' (destructive)' if one.destructive else ''}"
        for one in report.steps
    ]
    revisions = Revisions(
        current=report.current,
        target=report.head,
        min_compatible=report.min_compatible,
        plan=titles if waits else [],
        plan_hash=report.plan_hash if waits else None,
        attempts=attempts,
        job=name,
        exit_code=report.exit_code,
    )
    return Schema(revisions, known.releases, report.connections_max or known.connections_max)


def _served(known: Schema, cleared: Cleared, report: MigrationReport | None) -> Schema:
    """Note an image that may serve: to go back to it may be asked for one day."""
    if report is None or report.head is None or report.min_compatible is None:
        return known
    one = ServedRelease(
        version=cleared.version,
        image=cleared.image,
        head=report.head,
        min_compatible=report.min_compatible,
    )
    others = [other for other in known.releases if other.image != one.image]
    return known._replace(releases=[one, *others][:_RELEASES_MAX])


def _findings(reason: Reason, message: str) -> list[Finding]:
    return [Finding(Type.SCHEMA_MIGRATED, FALSE, reason, message)]


def _unreachable(said: str) -> Finding:
    message = (
        f"the database cannot be reached: {said}" if said else "the database cannot be reached"
    )
    return Finding(Type.DATABASE_REACHABLE, FALSE, Reason.DATABASE_UNREACHABLE, message)


def _said(ending: jobs.Ending) -> str:
    report = contract.read_report(MigrationReport, ending.message)
    return (report.detail or "") if report else jobs.tail(ending.message)


def _job_says(job: Live) -> str:
    for condition in job.get("status", {}).get("conditions", ()):
        if condition.get("type") == "Failed":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return "nothing is known of why"
