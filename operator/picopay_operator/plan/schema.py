"""What is known of the schema of an engine's database: from the reports of its migrations. Pure.

Kept in the status, so that it outlasts the pods that have said it. Used by `migration.py`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec import structs

from picopay_operator.conditions import FALSE, Finding, Reason, Type
from picopay_operator.contract import ExitCode, MigrationReport, PlanStep
from picopay_operator.plan import jobs
from picopay_operator.plan.admitted import Cleared
from picopay_operator.plan.jobs import Live
from picopay_operator.plan.outcome import Observed
from picopay_operator.spec.status import Revisions, ServedRelease

_RELEASES_MAX = 10


class Schema(NamedTuple):
    """What is known of the schema: for the status, and for the next step."""

    revisions: Revisions
    releases: list[ServedRelease]
    connections_max: int | None

    @classmethod
    def known(cls, observed: Observed) -> "Schema":
        """Return what was known before."""
        status = observed.engine.status
        return cls(status.schema, list(status.releases), status.connections_max)

    def version_of(self, image: str) -> str | None:
        """Return the version of an image that has been cleared before."""
        return next((one.version for one in self.releases if one.image == image), None)

    def head_of(self, image: str) -> str | None:
        """Return the schema that an image wants which has been cleared before."""
        return next((one.head for one in self.releases if one.image == image), None)

    def told(
        self, job: Live, report: MigrationReport | None, ending: jobs.Ending, phases: Sequence[str]
    ) -> "Schema":
        """Return what is known once a Job has told it; what it has not told (yet) stays.

        `phases` are the Jobs of one image: what one of them has told, the silence of another does not undo.
        """
        name, attempts, before = job["metadata"]["name"], jobs.failures(job), self.revisions
        is_known, is_done = before.job in phases, jobs.state(job) is jobs.JobState.COMPLETE
        if is_done and (name, before.job) == tuple(phases):
            return self  # what came after it has told more
        if report is None:
            if before.job == name:
                return self._replace(revisions=structs.replace(before, attempts=attempts))
            if is_known and is_done:
                return self
            known = structs.replace(before, plan=[], plan_hash=None, seconds=None)
            if not is_known:
                known = Revisions(current=before.current, oldest_release=before.oldest_release)
            revisions = structs.replace(known, attempts=attempts, exit_code=ending.exit_code)
            return self._replace(revisions=revisions)
        is_held = report.exit_code == ExitCode.HELD
        is_reached = report.connections_max is not None
        revisions = Revisions(
            current=report.current if is_reached else before.current,
            target=report.head,
            min_compatible=report.min_compatible,
            oldest_release=report.oldest_release if is_reached else before.oldest_release,
            plan=_titles(report.steps) if is_held else [],
            plan_hash=report.plan_hash if is_held else None,
            # What one leaves to the next waits until that has succeeded.
            waiting=before.waiting if is_known and not report.ok else _titles(report.waiting),
            attempts=attempts,
            seconds=_seconds(job),
            job=name,
            exit_code=report.exit_code,
        )
        return Schema(revisions, self.releases, report.connections_max or self.connections_max)

    def served(self, cleared: Cleared, report: MigrationReport | None) -> "Schema":
        """Note an image that may serve: to go back to it may be asked for one day."""
        if report is None or report.head is None or report.min_compatible is None:
            return self
        one = ServedRelease(
            version=cleared.version,
            image=cleared.image,
            head=report.head,
            min_compatible=report.min_compatible,
        )
        others = [other for other in self.releases if other.image != one.image]
        return self._replace(releases=[one, *others][:_RELEASES_MAX])

    def refused(self, report: MigrationReport) -> Finding:
        """Refuse to go back, and name the release nearest to the wanted one that the database admits."""
        oldest = report.oldest_release or ""
        admitted = sorted(
            (one for one in self.releases if one.head >= oldest), key=lambda one: one.head
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
        return Finding(
            Type.SCHEMA_COMPATIBLE, FALSE, Reason.ROLLBACK_REFUSED, message, stalled=True
        )


def _titles(steps: Sequence[PlanStep]) -> list[str]:
    return [
        f"{one.revision} {one.title}{' (destructive)' if one.destructive else ''}" for one in steps
    ]


def _seconds(job: Live) -> int | None:
    """Return how long a Job took; None while it runs."""
    began, ended = job.get("status", {}).get("startTime"), jobs.ended_at(job)
    return (
        round((ended - datetime.fromisoformat(began)).total_seconds()) if began and ended else None
    )
