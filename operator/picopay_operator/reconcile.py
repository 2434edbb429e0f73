"""One pass over an engine: observe, plan, apply, report. It catches everything.

Called by the queue. Each pass begins with what there is, and so it does not matter where an earlier one has
ended. What goes wrong is shown on the engine and raised again: the queue tries later.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import NamedTuple

import msgspec
from msgspec import structs

from picopay_operator import conditions, logs, metrics, names
from picopay_operator.cache import Cache, Key, is_let_go
from picopay_operator.cluster import Cluster
from picopay_operator.conditions import FALSE, TRUE, Finding, Reason, Type
from picopay_operator.contest import Contests
from picopay_operator.errors import (
    AdmissionDenied,
    AdoptionRefused,
    ApiError,
    ChangesUndone,
    DefinitionOutdated,
    OperatorError,
    PermissionDenied,
    SeenLate,
    Unprocessable,
)
from picopay_operator.logs import Event
from picopay_operator.plan import plan, secrets
from picopay_operator.plan.outcome import Observed, Plan, Release
from picopay_operator.resources import Ref
from picopay_operator.spec.engine import Engine, ObjectMeta
from picopay_operator.spec.status import EngineStatus

_KINDS_FRESH_S = 30.0
_AFTER_CHANGE_S = 0.05
_SUMMARY = (Type.READY, Type.RECONCILING, Type.STALLED)
_log = logs.get_logger(__name__)


class _Decoded(msgspec.Struct):
    """The parts of an engine that are understood even when its spec is not."""

    metadata: ObjectMeta
    status: EngineStatus = EngineStatus()


class _Deeds(NamedTuple):
    """Whether Secrets were made up, of which the plan knew nothing yet, and what was refused first."""

    changed: bool
    refusal: OperatorError | None


class Reconciler:
    """Looks at engines. `resync_s` is how long one is left alone at most."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        release: Release,
        resync_s: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._release = release
        self._resync_s = resync_s
        self._now = now
        self._contests = Contests()
        self._changes: dict[Key, int] = {}
        self._kinds: frozenset[str] = frozenset()
        self._kinds_until_s = 0.0
        self._kinds_lock = asyncio.Lock()

    def forget_kinds(self) -> None:
        """Ask again which optional kinds there are: one may have been installed."""
        self._kinds_until_s = 0.0

    async def __call__(self, key: Key) -> float | None:
        """Look at an engine; return when to look again.

        Raises:
            OperatorError: it could not be brought to an end, and was shown on the engine.
        """
        body = self._cache.engines.get(key)
        if body is None or is_let_go(body):
            self._changes.pop(key, None)
            self._contests.forget(key)
            return None
        began_s, result = monotonic(), "done"
        try:
            try:
                engine = msgspec.convert(body, Engine)
            except msgspec.ValidationError as error:
                result = "invalid"
                return await self._report_invalid(body, str(error))
            return await self._pass(key, engine)
        except SeenLate:
            result = "again"
            return 0.0
        except Exception as error:
            result = "failed"
            _log.warning(
                Event.RECONCILE_FAILED, engine=key.name, namespace=key.namespace, error=error
            )
            # As it is by now: the plan's own status may have been written before.
            await self._report_failure(self._cache.engines.get(key, body), error)
            raise
        finally:
            metrics.reconciled(result, monotonic() - began_s)

    async def _pass(self, key: Key, engine: Engine) -> float | None:
        observed = await self._observe(key, engine)
        wanted = plan(observed)
        if wanted.finalizer and not observed.engine.metadata.deletion_timestamp:
            await self._hold(engine)
        deeds = await self._carry_out(key, engine, wanted)
        await self._report(engine, wanted, deeds.refusal)
        if deeds.refusal is not None:
            raise deeds.refusal
        if wanted.finalizer is False:
            await self._cluster.let_go(engine.metadata)
            return None
        metrics.note_conditions(key, wanted.status.conditions)
        if wanted.status.schema.seconds is not None:
            metrics.note_migration(key, wanted.status.schema.seconds)
        return self._look_again_s(key, wanted, changed=deeds.changed)

    def _look_again_s(self, key: Key, wanted: Plan, *, changed: bool) -> float:
        """Return when to look again: soon after a change, as what was done may allow for more.

        Should a change never come to rest, as when somebody else undoes it each time, the pauses grow.
        """
        if not (changed or wanted.apply or wanted.delete):
            self._changes.pop(key, None)
            return min(self._resync_s, wanted.look_again_s or self._resync_s)
        times = self._changes[key] = self._changes.get(key, 0) + 1
        return min(self._resync_s, _AFTER_CHANGE_S * 2.0 ** min(times - 1, 16))

    async def _observe(self, key: Key, engine: Engine) -> Observed:
        wanted = sorted(secrets.to_read(engine))
        config_maps = sorted(secrets.config_maps_to_read(engine))
        self._cache.referred[key] = frozenset(
            [Ref("Secret", name) for name in wanted]
            + [Ref("ConfigMap", name) for name in config_maps]
        )
        seen, configured = await asyncio.gather(
            asyncio.gather(*(self._cluster.secret(key, name) for name in wanted)),
            asyncio.gather(*(self._cluster.config_map(key, name) for name in config_maps)),
        )
        return Observed(
            engine=engine,
            children=self._cache.children(key),
            secrets=dict(zip(wanted, seen, strict=True)),
            apis=await self._optional_kinds(),
            release=self._release,
            now=self._now(),
            config_maps=dict(zip(config_maps, configured, strict=True)),
        )

    async def _optional_kinds(self) -> frozenset[str]:
        async with self._kinds_lock:
            if monotonic() >= self._kinds_until_s:
                self._kinds = await self._cluster.optional_kinds()
                self._kinds_until_s = monotonic() + _KINDS_FRESH_S
        return self._kinds

    async def _hold(self, engine: Engine) -> None:
        if names.FINALIZER not in engine.metadata.finalizers:
            await self._cluster.set_finalizer(engine.metadata, held=True)

    async def _carry_out(self, key: Key, engine: Engine, wanted: Plan) -> _Deeds:
        """Carry a plan out. What is refused keeps nothing else from being done."""
        changed, refusal = False, None
        for generated in wanted.generated:
            try:
                made = await self._cluster.make_up(engine, generated, self._release.version)
            except OperatorError as error:
                refusal = refusal or error
                continue
            if made:
                _log.info(
                    Event.SECRET_MADE, engine=key.name, namespace=key.namespace, name=generated.name
                )
                changed = True
        children = self._cache.children(key)
        taken = await self._cluster.taken(key, wanted.apply)
        for manifest in wanted.apply:
            if (why := taken.get(Ref.of(manifest))) is not None:
                refusal = refusal or why
                continue
            try:
                await self._cluster.apply(key, manifest)
            except OperatorError as error:
                refusal = refusal or error
                continue
            before = children.get(Ref.of(manifest))
            refusal = refusal or self._contests.corrected(key, manifest, before)
            _log.info(
                Event.APPLIED,
                engine=key.name,
                namespace=key.namespace,
                kind=manifest["kind"],
                name=manifest["metadata"]["name"],
            )
            metrics.APPLIED.labels(kind=manifest["kind"]).inc()
        for ref in wanted.delete:
            await self._cluster.delete(key, ref)
            _log.info(
                Event.DELETED,
                engine=key.name,
                namespace=key.namespace,
                kind=ref.kind,
                name=ref.name,
            )
        return _Deeds(changed, refusal)

    async def _report(self, engine: Engine, wanted: Plan, refusal: OperatorError | None) -> None:
        """Report what the plan says, and with it what was refused: Ready is never true in between."""
        now = self._now().isoformat(timespec="seconds")
        status, told = wanted.status, list(wanted.notices)
        if refusal is not None:
            before, generation = engine.status.conditions, engine.metadata.generation
            findings = _failure(refusal)
            failed = {one.type: one for one in conditions.merge(findings, before, generation, now)}
            shown = {finding.type: failed[finding.type] for finding in findings}
            after = [shown.get(Type(one.type), one) for one in status.conditions]
            status = structs.replace(status, conditions=after)
            told += conditions.notices(before, after)
        posted = (self._cluster.post(engine.metadata, one, now) for one in dict.fromkeys(told))
        await asyncio.gather(*posted)
        if msgspec.to_builtins(status) != msgspec.to_builtins(engine.status):
            await self._cluster.write_status(engine.metadata, status)

    async def _report_invalid(self, body: object, why: str) -> float | None:
        """Show that a spec is not understood; nothing helps but another one."""
        known = msgspec.convert(body, _Decoded)
        if known.metadata.deletion_timestamp:
            # Its policy is not understood either. What it owns goes with it, what it does not own stays.
            await self._cluster.let_go(known.metadata)
            return None
        message = f"the spec is not understood: {why}"
        findings = [
            Finding(Type.READY, FALSE, Reason.INVALID_SPEC, message),
            Finding(Type.RECONCILING, FALSE, Reason.INVALID_SPEC, "it waits for somebody"),
            Finding(Type.STALLED, TRUE, Reason.INVALID_SPEC, message),
        ]
        await self._show(known, findings)
        return None

    async def _report_failure(self, body: object, error: Exception) -> None:
        """Show why a pass has failed, if that can be shown."""
        known = msgspec.convert(body, _Decoded)
        try:
            await self._show(known, _failure(error))
        except OperatorError:
            return  # it is in the log, and the queue comes back

    async def _show(self, known: _Decoded, findings: list[Finding]) -> None:
        metadata = known.metadata
        now = self._now().isoformat(timespec="seconds")
        before = known.status.conditions
        after = conditions.merge(findings, before, metadata.generation, now)
        metrics.note_conditions(Key(metadata.namespace, metadata.name), after)
        status = structs.replace(
            known.status, conditions=after, observed_generation=metadata.generation
        )
        for notice in conditions.notices(before, after):
            await self._cluster.post(metadata, notice, now)
        if msgspec.to_builtins(status) != msgspec.to_builtins(known.status):
            await self._cluster.write_status(metadata, status)


def _failure(error: Exception) -> list[Finding]:
    """Return what an engine says of itself when a pass over it has failed."""
    reason, stalled = _reason(error)
    said = str(error) if isinstance(error, OperatorError) else type(error).__name__
    return [
        Finding(Type.READY, FALSE, reason, said),
        Finding(Type.RECONCILING, FALSE if stalled else TRUE, reason, said),
        Finding(Type.STALLED, TRUE if stalled else FALSE, reason, said),
    ]


def _reason(error: Exception) -> tuple[Reason, bool]:
    """Return by which reason an error is shown, and whether only a person can go on."""
    match error:
        case AdoptionRefused():
            return Reason.ADOPTION_REFUSED, True
        case ChangesUndone():
            return Reason.CHANGES_UNDONE, True
        case DefinitionOutdated():
            return Reason.DEFINITION_OUTDATED, True
        case PermissionDenied():
            return Reason.PERMISSION_DENIED, False
        case AdmissionDenied():
            return Reason.ADMISSION_DENIED, False
        case Unprocessable():
            return Reason.INVALID_SPEC, True
        case ApiError():
            return Reason.API_ERROR, False
    return Reason.INTERNAL_ERROR, False
