"""Jobs beside the migration: the administrator's key is made valid, the money is checked. Pure."""

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


def check(observed: Observed, context: Context, occasion: str) -> tuple[bool, Step]:
    """Check the money for an occasion; return whether it is sound, as far as that is known."""
    digest = drift.digest([context.image, occasion], 8)
    name = names.check(observed.name, digest)
    live = observed.child("Job", name)
    if live is None:
        message = "the money is checked before anything is rolled out"
        running = Finding(Type.LEDGER_SOUND, FALSE, Reason.CHECK_RUNNING, message)
        return False, Step(wanted=[manifests.check(context, digest)], findings=[running])
    kept = Step(kept=[Ref("Job", name)])
    ending = jobs.ending(jobs.pods_of(observed, name))
    report = contract.read_report(CheckReport, ending.message)
    match jobs.state(live):
        case JobState.COMPLETE:
            message = "every ledger adds up"
            return True, kept | Step(
                findings=[Finding(Type.LEDGER_SOUND, TRUE, Reason.SOUND, message)]
            )
        case JobState.RUNNING:
            message = f"the Job {name} is running"
            running = Finding(Type.LEDGER_SOUND, FALSE, Reason.CHECK_RUNNING, message)
            return False, kept | Step(findings=[running])
        case JobState.FAILED:
            pass
    exit_code = report.exit_code if report else ending.exit_code
    if (tried := _again(observed, live, exit_code)) is not None:
        message = f"the money could not be checked yet: {jobs.tail(ending.message)}"
        running = Finding(Type.LEDGER_SOUND, FALSE, Reason.CHECK_RUNNING, message)
        return False, tried | Step(findings=[running])
    again = f"delete the Job {name} to check again"
    if exit_code == ExitCode.FAILED:
        found = (
            [f"{one.ledger} {one.subject}: {one.detail}" for one in report.findings]
            if report
            else []
        )
        said = "; ".join(found) or jobs.tail(ending.message)
        message = f"the ledger does not add up, and nothing is rolled out: {said}; {again}"
        reason = Reason.FINDINGS
    else:
        message = f"the money could not be checked: {jobs.tail(ending.message)}; {again}"
        reason = Reason.CHECK_FAILED
    return False, kept | Step(
        findings=[Finding(Type.LEDGER_SOUND, FALSE, reason, message, stalled=True)]
    )


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
