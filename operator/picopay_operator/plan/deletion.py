"""The end of an engine: its data is kept or given up, as `deletionPolicy` says, then it is let go. Pure.

Kubernetes' garbage collector deletes what the engine owns, so all there is to do is to see to it that its
data is owned or not. The policy may have been changed the moment before, and nothing may be made any more:
the namespace may be on its way out, too.
"""

from datetime import datetime, timedelta

from msgspec import structs

from picopay_operator import drift, names
from picopay_operator.conditions import FALSE, TRUE, Finding, Notice, Reason, Type, merge
from picopay_operator.manifests import postgres
from picopay_operator.plan import database, secrets
from picopay_operator.plan.outcome import Observed, Plan
from picopay_operator.resources import Ref
from picopay_operator.spec.engine import DeletionPolicy

_DEADLINE = timedelta(minutes=5)
"""After which data that was to be deleted is left behind, rather than that the engine never goes."""


def plan(observed: Observed) -> Plan:
    """Return what is left to do before an engine may go."""
    engine = observed.engine
    now = observed.now.isoformat(timespec="seconds")
    findings = [
        Finding(Type.READY, FALSE, Reason.DELETING, "the engine is being deleted"),
        Finding(Type.RECONCILING, TRUE, Reason.DELETING, "the engine is being deleted"),
    ]
    conditions = merge(findings, engine.status.conditions, engine.metadata.generation, now)
    status = structs.replace(
        engine.status, conditions=conditions, observed_generation=engine.metadata.generation
    )
    if names.FINALIZER not in engine.metadata.finalizers:
        return Plan(status=status)
    _, made = database.step(observed)
    key = secrets.step(observed)
    amended = [
        marked
        for marked in map(drift.marked, made.wanted)
        if (live := observed.children.get(Ref.of(marked))) is not None
        and drift.differences(marked, live)
    ]
    generated = [
        one
        for one in (*made.generated, *key.generated)
        if (seen := observed.secrets.get(one.name)) is not None and seen.owned is not one.owned
    ]
    claim = observed.child("PersistentVolumeClaim", postgres.claim_name(engine))
    gives_up = engine.spec.deletion_policy is DeletionPolicy.DELETE
    is_late = gives_up and _since(observed) > _DEADLINE
    if (amended or generated) and not is_late:
        return Plan(
            status=status, apply=amended, generated=generated, finalizer=True, look_again_s=1
        )
    if not gives_up and claim is not None and claim["metadata"].get("ownerReferences"):
        # The StatefulSet's controller has still to let go of the volume: it would go with the StatefulSet.
        return Plan(status=status, finalizer=True, look_again_s=1)
    kept = (
        "goes with it"
        if gives_up
        else "stays: Secrets and volumes of the same names will find it again"
    )
    volume = Ref("PersistentVolumeClaim", postgres.claim_name(engine))
    return Plan(
        status=status,
        delete=[volume] if gives_up and engine.spec.database.postgres else [],
        finalizer=False,
        notices=[Notice("DataReleased", f"the engine is deleted; its data {kept}")],
    )


def _since(observed: Observed) -> timedelta:
    began = observed.engine.metadata.deletion_timestamp
    return observed.now - datetime.fromisoformat(began) if began else timedelta()
