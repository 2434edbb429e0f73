"""Jobs beside the migration: the administrator's key is made valid, the money is checked. Pure."""

from datetime import datetime, timedelta
from enum import Enum

from msgspec import structs

from picopay_operator import contract, drift, names
from picopay_operator.conditions import FALSE, TRUE, Finding, Reason, Type
from picopay_operator.contract import CheckReport, ExitCode
from picopay_operator.manifests import jobs as manifests
from picopay_operator.manifests.context import Context, SecretKey
from picopay_operator.plan import jobs, secrets
from picopay_operator.plan.jobs import JobState
from picopay_operator.plan.outcome import Observed, Step
from picopay_operator.resources import Ref

_RETRY_S = 30.0
"""How long a Job that could not reach the database is left before another one is made."""

_PATIENCE = timedelta(seconds=20)
"""For how long pods may take no requests before it is asked whether the database is why."""


_ASK_AGAIN = timedelta(minutes=5)
"""After which that is asked once more, while they still take none."""


class Verdict(Enum):
    """What is known of the money. What cannot be checked is not sound."""

    SOUND = 1
    UNKNOWN = 2
    UNSOUND = 3


def admin_key(observed: Observed, context: Context) -> Step:
    """Make the administrator's key valid, once its Secret is there and whenever it has changed."""
    name = secrets.admin_key_name(observed.engine)
    job = secrets.key_job(observed)
    if job is None:
        return _key_finding(Reason.KEY_PENDING, "the administrator's key is being made")
    previous = secrets.value_digest(observed, SecretKey(name, contract.PREVIOUS_ADMIN_KEY))
    overlap_s = observed.engine.spec.auth.overlap_seconds if previous else None
    kept = Step(kept=[Ref("Job", job)])
    live = observed.child("Job", job)
    if live is None:
        wanted = manifests.admin_key(context, job.rpartition("-")[2], name, overlap_s)
        pending = "the administrator's key is being made valid"
        return Step(wanted=[wanted]) | _key_finding(Reason.KEY_PENDING, pending)
    match jobs.state(live):
        case JobState.COMPLETE:
            return kept
        case JobState.FAILED:
            ending = jobs.ending(jobs.pods_of(observed, job))
            said = jobs.tail(ending.message)
            if (again := _again(observed, live, ending.exit_code)) is not None:
                message = f"the administrator's key could not be made valid yet: {said}"
                return again | _key_finding(Reason.KEY_PENDING, message)
            message = (
                f"the administrator's key could not be made valid: {said};"
                f" delete the Job {job} to try again"
            )
            return kept | _key_finding(Reason.KEY_FAILED, message, stalled=True)
        case JobState.RUNNING:
            trouble = jobs.trouble(jobs.pods_of(observed, job))
            message = trouble.message if trouble else f"the Job {job} is running"
            return kept | _key_finding(Reason.KEY_PENDING, message)


def check(observed: Observed, context: Context, occasion: str) -> tuple[Verdict, Step]:
    """Check the money for an occasion; return what is known of it, and what is to be done."""
    digest = _check_digest(context, occasion)
    name = names.check(observed.name, digest)
    live = observed.child("Job", name)
    if live is None:
        message = f"the Job {name} checks the money before anything goes on"
        found = _ledger(Reason.CHECK_RUNNING, message)
        return Verdict.UNKNOWN, Step(wanted=[manifests.check(context, digest)], findings=[found])
    kept = Step(kept=[Ref("Job", name)])
    match jobs.state(live):
        case JobState.COMPLETE:
            sound = Finding(Type.LEDGER_SOUND, TRUE, Reason.SOUND, "every ledger adds up")
            return Verdict.SOUND, kept | Step(findings=[sound])
        case JobState.RUNNING:
            trouble = jobs.trouble(jobs.pods_of(observed, name))
            message = trouble.message if trouble else f"the Job {name} is running"
            found = _ledger(Reason.CHECK_RUNNING, message)
            return Verdict.UNKNOWN, kept | Step(findings=[found])
        case JobState.FAILED:
            return _failed_check(observed, live)


def _failed_check(observed: Observed, live: jobs.Live) -> tuple[Verdict, Step]:
    name = live["metadata"]["name"]
    ending = jobs.ending(jobs.pods_of(observed, name))
    report = contract.read_report(CheckReport, ending.message)
    exit_code = report.exit_code if report else ending.exit_code
    said = (report and report.detail) or jobs.tail(ending.message)
    if (tried := _again(observed, live, exit_code)) is not None:
        message = f"the Job {name} could not check the money yet: {said}"
        found = [_ledger(Reason.CHECK_RUNNING, message)]
        if exit_code == ExitCode.UNAVAILABLE:
            found.append(unreachable(said))
        return Verdict.UNKNOWN, tried | Step(findings=found)
    reason, message = Reason.CHECK_FAILED, f"the money could not be checked: {said}"
    if exit_code == ExitCode.FAILED:
        told = [
            f"{one.ledger} {one.subject}: {one.detail}"
            for one in (report.findings if report else ())
        ]
        reason = Reason.FINDINGS
        message = f"the ledger does not add up: {'; '.join(told) or said}"
    kept = Step(kept=[Ref("Job", name)])
    if observed.engine.metadata.annotations.get(names.ACCEPT_FINDINGS) == name:
        message += f"; this was accepted, and nothing waits for it. Delete the Job {name} when it is settled"
        return Verdict.SOUND, kept | Step(findings=[_ledger(reason, message)])
    message += (
        f"; nothing is rolled out. Delete the Job {name} to check again; the annotation"
        f" {names.ACCEPT_FINDINGS}={name} goes on all the same"
    )
    found = [_ledger(reason, message, stalled=True)]
    return Verdict.UNSOUND, kept | Step(findings=found)


def is_open(observed: Observed, context: Context, occasion: str) -> bool:
    """Tell whether a check that has begun has not found the money sound (yet), though its Job be gone."""
    name = names.check(observed.name, _check_digest(context, occasion))
    if (live := observed.child("Job", name)) is not None:
        return jobs.state(live) is not JobState.COMPLETE
    if observed.engine.metadata.annotations.get(names.ACCEPT_FINDINGS) == name:
        return False  # it is settled
    return any(
        one.type == Type.LEDGER_SOUND and one.status is FALSE and name in one.message
        for one in observed.engine.status.conditions
    )


def reach(observed: Observed, context: Context, since: datetime) -> Step:
    """Find out whether the database is why pods take no requests, by a Job that has to reach it."""
    left_s = (since + _PATIENCE - observed.now).total_seconds()
    if left_s > 0:
        return Step(look_again_s=left_s)
    verdict, made = check(observed, context, f"no requests since {since.isoformat()}")
    if verdict is Verdict.SOUND:
        # It was reached, and yet pods do not come back: it is asked again as long as they do not.
        ended = [ref for ref in made.kept if _ended_before(observed, ref, _ASK_AGAIN)]
        made = structs.replace(made, kept=[ref for ref in made.kept if ref not in ended])
        made |= Step(deleted=ended, look_again_s=_ASK_AGAIN.total_seconds())
    # Nobody has asked for the money: that it could not be checked follows from what is wrong anyway.
    found = [
        one
        for one in made.findings
        if one.type is not Type.LEDGER_SOUND or one.reason is Reason.FINDINGS
    ]
    return structs.replace(made, findings=found)


def _ended_before(observed: Observed, ref: Ref, past: timedelta) -> bool:
    ended_at = jobs.ended_at(observed.children[ref])
    return ended_at is not None and ended_at + past <= observed.now


def unreachable(said: str) -> Finding:
    """Say that the database cannot be reached, in the words of a Job that has tried."""
    message = "the database cannot be reached" + (f": {said}" if said else "")
    return Finding(Type.DATABASE_REACHABLE, FALSE, Reason.DATABASE_UNREACHABLE, message)


def _check_digest(context: Context, occasion: str) -> str:
    return drift.digest([context.image, occasion], 8)


def _ledger(reason: Reason, message: str, *, stalled: bool = False) -> Finding:
    return Finding(Type.LEDGER_SOUND, FALSE, reason, message, stalled=stalled)


def not_needed() -> Finding:
    """Say that there was no occasion for a check."""
    message = "nothing has asked for a check since the ledger was last in use"
    return Finding(Type.LEDGER_SOUND, TRUE, Reason.SOUND, message)


def _again(observed: Observed, job: jobs.Live, exit_code: int | None) -> Step | None:
    """Have a Job made again after a while that has failed for what may pass; None for any other failure."""
    if exit_code not in {None, ExitCode.UNAVAILABLE, ExitCode.BUSY, ExitCode.INTERRUPTED}:
        return None
    ref = Ref("Job", job["metadata"]["name"])
    left_s = _RETRY_S - (observed.now - (jobs.ended_at(job) or observed.now)).total_seconds()
    if left_s > 0:
        return Step(kept=[ref], look_again_s=left_s)
    return Step(deleted=[ref])


def _key_finding(reason: Reason, message: str, *, stalled: bool = False) -> Step:
    return Step(findings=[Finding(Type.SECRETS_READY, FALSE, reason, message, stalled=stalled)])
