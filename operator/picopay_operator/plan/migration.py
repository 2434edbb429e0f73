"""The schema: nothing is rolled out before a Job for that image and database has migrated. Pure.

The first one plans, waits for an approval where the policy asks for one, and migrates as far as the releases
that still serve can go along (expand). When their last pod is gone, a second one takes the steps that turn
them away, if there are any (contract). Reports say what was done. A Job is made once and never changed:
whatever it depends on is in its name. One that runs is never deleted; one that cannot begin is, as soon as
something else is asked for.
"""

from collections.abc import Sequence
from datetime import timedelta

from msgspec import structs

from picopay_operator import contract, drift, names
from picopay_operator.conditions import FALSE, TRUE, Finding, Reason, Type
from picopay_operator.contract import ExitCode, MigrationReport
from picopay_operator.manifests import jobs as manifests
from picopay_operator.manifests.context import Access, Context
from picopay_operator.plan import jobs, running, secrets
from picopay_operator.plan.admitted import Admitted, Cleared, image_of
from picopay_operator.plan.jobs import JobState, Live
from picopay_operator.plan.outcome import Observed, Step
from picopay_operator.plan.schema import Schema
from picopay_operator.plan.upkeep import unreachable
from picopay_operator.resources import Ref

_RETRY_UNREACHABLE = timedelta(seconds=30)
"""How long a Job that could not reach the database is left before another one is made."""

_REPORT_S = 10.0
"""How long after the end of a Job its pod, and with it the report, may still be on its way to us."""


def step(observed: Observed, access: Access | None) -> tuple[Cleared | None, Schema, Step]:
    """Return the wanted image once it may run, what is known of the schema, and what is to be done."""
    known = Schema.known(observed)
    if access is None:
        return None, known, _kept(observed)
    served = observed.engine.status.image
    image, version = image_of(
        observed.engine.spec, observed.release, running.serving(observed), served
    )
    context = Context(
        engine=observed.engine, image=image, version=version, access=access, data_hash=""
    )
    digest = _digest(observed, access, image)
    phases = _phases(observed, digest)
    if (given_up := _given_up(observed, phases)) is not None:
        return None, known, given_up
    expand, _ = phases
    job, admit = observed.child("Job", expand), _admitted(observed, known, image)
    if job is None:
        return None, known, _begin(observed, context, digest, admit)
    asked = jobs.argument(job, contract.ADMIT)
    known, report, made = _look(observed, known, job, phases)
    if made is not None:
        is_gap = any(one.reason is Reason.UPGRADE_REFUSED for one in made.findings)
        if is_gap and asked != admit:
            made = _made_again(observed, job, "other releases serve by now, or none")
        return None, known, made
    is_lost = known.revisions.job not in phases
    if is_lost and _since_end_s(observed, job) < _REPORT_S:
        return None, known, _awaited(observed, expand)
    head = report.head if report else known.head_of(image) or known.revisions.target
    found = (report and report.release) or known.version_of(image)
    cleared = Cleared(image, found or version, expand, head)
    known = known.served(cleared, report)
    # Of one whose report is lost it is not known whether it has left anything.
    is_left = known.revisions.waiting or (is_lost and asked is not None)
    if not is_left and observed.child("Job", phases[1]) is None:
        return cleared, known, _done(observed, phases, known)
    return _contract(observed, context, cleared, known, phases)


def excluding(observed: Observed, serving: Admitted) -> str | None:
    """Return the Job that may turn away the release which served, as it has no pods; None if none may."""
    if not running.is_scaled_down(observed):
        return None
    for job in _migrations(observed):
        is_other = jobs.image(job) != serving.image
        takes_all = jobs.argument(job, contract.ADMIT) is None
        if is_other and takes_all and jobs.state(job) is not JobState.FAILED:
            return str(job["metadata"]["name"])
    return None


def _contract(
    observed: Observed, context: Context, cleared: Cleared, known: Schema, phases: Sequence[str]
) -> tuple[Cleared, Schema, Step]:
    """Take the steps that turn earlier releases away, once these are gone.

    The release that serves needs none of them: only when they fail for good, somebody has to look.
    """
    done, name = _done(observed, phases, known), phases[1]
    job = observed.child("Job", name)
    if job is None:
        if not (running.runs_only(observed, context.image) and _has_served(observed)):
            waiting = known.revisions.waiting
            left = waiting[0].partition(" ")[0] if waiting else "what may be left to migrate"
            message = (
                f"{left} waits until the pods of earlier releases are gone, and those of"
                f" {cleared.version} take requests"
            )
            waits = Finding(Type.SCHEMA_MIGRATED, TRUE, Reason.CONTRACT_PENDING, message)
            return cleared, known, _without_migrated(done) | Step(findings=[waits])
        made: Step | None = _begin(observed, context, name.rpartition("-")[2], None)
    else:
        known, _, made = _look(observed, known, job, phases)
        if made is None:
            return structs.replace(cleared, job=name), known, _done(observed, phases, known)
    made = made or Step()
    calm = [
        one
        if one.stalled or one.type is not Type.SCHEMA_MIGRATED
        else structs.replace(one, status=TRUE)
        for one in made.findings
    ]
    return cleared, known, _without_migrated(done) | structs.replace(made, findings=calm)


def _has_served(observed: Observed) -> bool:
    """Tell whether the release that serves can: before that, nobody takes away the way back."""
    active = running.active_deployment(observed)
    is_available = active is not None and running.available(observed, active).status is TRUE
    return is_available or observed.engine.spec.suspended


def _without_migrated(done: Step) -> Step:
    found = [one for one in done.findings if one.type is not Type.SCHEMA_MIGRATED]
    return structs.replace(done, findings=found)


def _look(
    observed: Observed, known: Schema, job: Live, phases: Sequence[str]
) -> tuple[Schema, MigrationReport | None, Step | None]:
    """Look at a Job; return what it has told, and what is to be done unless it has succeeded."""
    name = job["metadata"]["name"]
    ending = jobs.ending(jobs.pods_of(observed, name))
    report = contract.read_report(MigrationReport, ending.message)
    known = known.told(job, report, ending, phases)
    match jobs.state(job):
        case JobState.RUNNING:
            return known, report, _running(observed, name, ending) | _kept(observed)
        case JobState.COMPLETE:
            return known, report, _overtaken(observed, job, phases)
        case JobState.FAILED:
            pass
    if known.revisions.exit_code is None and _since_end_s(observed, job) < _REPORT_S:
        return known, report, _awaited(observed, name)
    return known, report, _failed(observed, job, report, ending, known)


def _admitted(observed: Observed, known: Schema, image: str) -> str | None:
    """Return the schema of the oldest release beside which a Job migrates; None when none serves.

    An image that serves needs no step that the database would turn any release away with. Those are left to
    a Job of their own, which may wait or fail without that a new password, say, waits with it.
    """
    oldest = running.oldest_head(observed)
    if oldest and running.runs_only(observed, image):
        return min(oldest, known.revisions.oldest_release or oldest)
    return oldest


def _digest(observed: Observed, access: Access, image: str) -> str:
    """Return the part of a Job's name that tells what it was for."""
    spec, annotations = observed.engine.spec, observed.engine.metadata.annotations
    used = [
        secrets.value_digest(observed, key) for key in (access.url, access.migration_url, access.ca)
    ]
    asked = [annotations.get(names.APPROVE_PLAN), annotations.get(names.RETRY)]
    return drift.digest([image, used, access.tls_mode, spec.migrations.policy, asked], 8)


def _phases(observed: Observed, digest: str) -> tuple[str, str]:
    """Return the names of the Jobs of an image: expand and contract."""
    after = drift.digest([digest, "contract"], 8)
    return names.migration(observed.name, digest), names.migration(observed.name, after)


def _migrations(observed: Observed) -> list[Live]:
    prefix = names.migration(observed.name, "")
    return [job for job in observed.of_kind("Job") if job["metadata"]["name"].startswith(prefix)]


def _kept(observed: Observed) -> Step:
    return Step(kept=[Ref("Job", job["metadata"]["name"]) for job in _migrations(observed)])


def _since_end_s(observed: Observed, job: Live) -> float:
    ended_at = jobs.ended_at(job) or observed.now
    return (observed.now - ended_at).total_seconds()


def _awaited(observed: Observed, name: str) -> Step:
    message = f"the report of the Job {name} is awaited"
    return _kept(observed) | Step(
        findings=_findings(Reason.MIGRATION_RUNNING, message), look_again_s=1.0
    )


def _given_up(observed: Observed, phases: Sequence[str]) -> Step | None:
    """Delete Jobs for something else that cannot begin, as nothing else could until their time is over.

    Should one begin at that very moment, the lock of the database keeps them apart.
    """
    given_up = [
        Ref("Job", name)
        for job in _migrations(observed)
        if (name := job["metadata"]["name"]) not in phases
        and jobs.cannot_begin(job, jobs.pods_of(observed, name))
    ]
    if not given_up:
        return None
    kept = [ref for ref in _kept(observed).kept if ref not in given_up]
    message = f"the Job {given_up[0].name} could not begin, and is wanted no more"
    return Step(kept=kept, deleted=given_up, findings=_findings(Reason.MIGRATION_PENDING, message))


def _overtaken(observed: Observed, job: Live, phases: Sequence[str]) -> Step | None:
    """Return what to do about a Job after which one for something else was made; None if there is none."""
    made = str(job["metadata"].get("creationTimestamp", ""))
    newer = [
        one
        for one in _migrations(observed)
        if one["metadata"]["name"] not in phases
        and str(one["metadata"].get("creationTimestamp", "")) > made
    ]
    if not newer:
        return None
    other = newer[-1]["metadata"]["name"]
    if any(jobs.state(one) is JobState.RUNNING for one in newer):
        message = f"another migration is running: {other}"
        return _kept(observed) | Step(findings=_findings(Reason.MIGRATION_RUNNING, message))
    # What it found may not be so any more: another one of its name finds out.
    return _made_again(observed, job, f"the schema is looked at again, after {other}")


def _made_again(observed: Observed, job: Live, message: str) -> Step:
    name = job["metadata"]["name"]
    kept = [ref for ref in _kept(observed).kept if ref.name != name]
    return Step(
        kept=kept,
        deleted=[Ref("Job", name)],
        findings=_findings(Reason.MIGRATION_PENDING, message),
    )


def _begin(observed: Observed, context: Context, digest: str, admit: str | None) -> Step:
    busy = [job for job in _migrations(observed) if jobs.state(job) is JobState.RUNNING]
    if busy:
        message = f"another migration is running: {busy[0]['metadata']['name']}"
        return _kept(observed) | Step(findings=_findings(Reason.MIGRATION_RUNNING, message))
    approved = observed.engine.metadata.annotations.get(names.APPROVE_PLAN)
    message = f"the schema is checked and migrated for {context.image}"
    return _kept(observed) | Step(
        wanted=[manifests.migration(context, digest, approved, admit)],
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
        found.append(unreachable(_said(ending)))
    return Step(findings=found)


def _done(observed: Observed, phases: Sequence[str], known: Schema) -> Step:
    revision = known.revisions.current
    migrated = f"the schema is at {revision}" if revision else "the schema is as the image wants it"
    ours: list[Ref] = []
    others: list[Ref] = []
    for job in _migrations(observed):
        name = job["metadata"]["name"]
        (ours if name in phases else others).append(Ref("Job", name))
    ended = [ref for ref in others if jobs.state(observed.children[ref]) is not JobState.RUNNING]
    return Step(
        kept=ours,
        deleted=ended,
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
    job: Live,
    report: MigrationReport | None,
    ending: jobs.Ending,
    known: Schema,
) -> Step:
    code, name = known.revisions.exit_code, job["metadata"]["name"]
    if code is None or code == ExitCode.UNAVAILABLE:
        # Nobody has got to the database, or nobody knows whether: neither is an answer.
        return _try_again(observed, job, ending)
    kept = _kept(observed)
    plan_hash = known.revisions.plan_hash
    if code == ExitCode.HELD and plan_hash:
        message = (
            f"the plan {plan_hash} waits: approve it with the annotation"
            f" {names.APPROVE_PLAN}={plan_hash}, or with `kubectl picopay approve {observed.name}`"
        )
        return kept | Step(findings=_findings(Reason.APPROVAL_PENDING, message))
    if report is None and known.revisions.job == name and (told := _refused_before(observed)):
        return kept | Step(findings=[told])
    if report and report.code == contract.SCHEMA_AHEAD:
        return kept | Step(findings=[known.refused(report)])
    if report and report.code == contract.SCHEMA_GAP:
        return _gap(observed, report)
    trouble = jobs.trouble(jobs.pods_of(observed, name))
    why = _said(ending) or (trouble and trouble.message) or _job_says(job)
    message = (
        f"the migration has failed after {jobs.failures(job)} attempts: {why};"
        f" the annotation {names.RETRY} with any new value tries again"
    )
    failed = Finding(Type.SCHEMA_MIGRATED, FALSE, Reason.MIGRATION_FAILED, message, stalled=True)
    return kept | Step(findings=[failed])


def _refused_before(observed: Observed) -> Finding | None:
    """Return the refusal of a Job whose report was seen and has gone with its pod."""
    for one in observed.engine.status.conditions:
        if one.reason in {Reason.ROLLBACK_REFUSED, Reason.UPGRADE_REFUSED} and (
            one.type == Type.SCHEMA_COMPATIBLE
        ):
            return Finding(
                Type.SCHEMA_COMPATIBLE, FALSE, Reason(one.reason), one.message, stalled=True
            )
    return None


def _gap(observed: Observed, report: MigrationReport) -> Step:
    """Refuse a release that cannot serve beside the one that does, as long as that does."""
    message = f"{report.detail}; spec.suspended ends its pods"
    refused = Finding(Type.SCHEMA_COMPATIBLE, FALSE, Reason.UPGRADE_REFUSED, message, stalled=True)
    return _kept(observed) | Step(findings=[refused])


def _try_again(observed: Observed, job: Live, ending: jobs.Ending) -> Step:
    """Have another Job of the same name made after a while: what was away may be back."""
    ended_at = jobs.ended_at(job) or observed.now
    left_s = (ended_at + _RETRY_UNREACHABLE - observed.now).total_seconds()
    message = "the migration waits until the database can be reached"
    found = Step(findings=[unreachable(_said(ending))])
    if left_s > 0:
        waits = Step(findings=_findings(Reason.MIGRATION_PENDING, message), look_again_s=left_s)
        return _kept(observed) | waits | found
    return _made_again(observed, job, message) | found


def _findings(reason: Reason, message: str) -> list[Finding]:
    return [Finding(Type.SCHEMA_MIGRATED, FALSE, reason, message)]


def _said(ending: jobs.Ending) -> str:
    report = contract.read_report(MigrationReport, ending.message)
    return (report.detail or "") if report else jobs.tail(ending.message)


def _job_says(job: Live) -> str:
    for condition in job.get("status", {}).get("conditions", ()):
        if condition.get("type") == "Failed":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return "nothing is known of why"
