"""What is shown of an engine, as text for people. Pure: shapes of `overview.py` in, text out.

Called by `commands.py`. Colour is for terminals; without it, signs and words say the same.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from msgspec import Struct

from picopay_operator.conditions import TRUE, UNKNOWN, Type
from picopay_operator.plugin.overview import (
    AdminKey,
    Event,
    Job,
    Overview,
    Pod,
    SchemaPlan,
    SupportBundle,
    Workload,
)
from picopay_operator.spec.status import Condition

_CELL_MAX = 120
_GOOD, _BAD, _OPEN = "✓", "✗", "…"
_SUMS = {Type.READY, Type.RECONCILING, Type.STALLED}
"""Conditions that sum up the others: they are what the first line says."""

_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class Paint(Struct, frozen=True):
    """Colours, where there is somebody to see them."""

    enabled: bool

    def good(self, text: str) -> str:
        """Paint what is as it should be."""
        return self._in("32", text)

    def bad(self, text: str) -> str:
        """Paint what is not as it should be."""
        return self._in("31", text)

    def open(self, text: str) -> str:
        """Paint what is on its way."""
        return self._in("33", text)

    def head(self, text: str) -> str:
        """Paint a heading."""
        return self._in("1", text)

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.enabled else text


def overview(shown: Overview, now: datetime, paint: Paint) -> str:
    """Write down an engine."""
    lines = list(_fields(_summary(shown, paint), paint))
    lines += _section("Conditions", _conditions(shown.conditions, now, paint), paint)
    lines += _section("Workloads", _workloads(shown.workloads, now, paint), paint)
    lines += _section("Jobs", _table(_jobs(shown.jobs, now, paint)), paint)
    lines += _section("Next", shown.next, paint)
    return "\n".join(lines)


def schema_plan(shown: SchemaPlan, paint: Paint) -> str:
    """Write down what a migration would do."""
    state = "nothing waits"
    if shown.waits:
        state = paint.open("waits for an approval")
    elif shown.waiting:
        state = paint.open("waits until the pods of earlier releases are gone")
    fields = [
        ("Name", _named(shown.namespace, shown.name)),
        ("Plan", state),
        ("Policy", shown.policy),
        ("Schema", _towards(shown.current, shown.target)),
    ]
    if shown.applied:
        fields.append(("Applied", ", ".join(shown.applied)))
    if shown.plan_hash:
        fields.append(("Hash", shown.plan_hash))
    else:
        fields.append(("Message", _flat(shown.message)))
    lines = [*_fields(fields, paint)]
    for title, steps in (("Steps", shown.steps), ("Later", shown.waiting)):
        told = [paint.bad(step) if step.endswith("(destructive)") else step for step in steps]
        lines += _section(title, told, paint)
    if shown.waits:
        command = f"kubectl picopay approve {shown.name} --namespace {shown.namespace}"
        lines += _section("Next", [f"{command} --plan-hash {shown.plan_hash}"], paint)
    return "\n".join(lines)


def admin_key(shown: AdminKey, paint: Paint) -> str:
    """Write down where the administrator's key is."""
    fields = [
        ("Name", _named(shown.namespace, shown.name)),
        ("Secret", f"{shown.secret}, key {shown.key}"),
        ("Replaced", shown.rotation or "never"),
        ("Overlap", f"{shown.overlap_seconds} s, in which key {shown.previous_key} is valid, too"),
        ("State", _flat(shown.message)),
    ]
    rotate = f"kubectl picopay keys rotate {shown.name} --namespace {shown.namespace}"
    return "\n".join([*_fields(fields, paint), *_section("Next", [shown.read, rotate], paint)])


def events(shown: Sequence[Event], now: datetime, paint: Paint) -> str:
    """Write down Events, the newest last."""
    if not shown:
        return "nothing has happened lately"
    rows = [["AGE", "TYPE", "REASON", "OBJECT", "MESSAGE"]]
    for one in shown:
        kind = paint.bad(one.type) if one.type == "Warning" else one.type
        rows.append([age(one.at, now), kind, one.reason, one.object, _flat(one.message)])
    return "\n".join(_table(rows))


def support_bundle(shown: SupportBundle, paint: Paint) -> str:
    """Write down where a bundle is, what it lacks, and what to do with it."""
    lines = [f"{paint.good(_GOOD)} {shown.file}: {len(shown.files)} files, {shown.bytes:,} bytes"]
    left_out = _table([one.what, _flat(one.why)] for one in shown.left_out)
    lines += _section("Left out", left_out, paint)
    lines += _section("Next", shown.next, paint)
    return "\n".join(lines)


def age(since: str | None, now: datetime) -> str:
    """Return how long ago something was, as kubectl does: the two largest units matter at most."""
    if not since:
        return "-"
    seconds = max(0, int((now - datetime.fromisoformat(since)).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _summary(shown: Overview, paint: Paint) -> Iterator[tuple[str, str]]:
    yield "Name", _named(shown.namespace, shown.name)
    if shown.ready:
        yield "State", paint.good(f"{_GOOD} ready")
    else:
        reason = f": {shown.reason}" if shown.reason else ""
        yield "State", paint.bad(f"{_BAD} not ready{reason}")
        yield "", "\n".join(map(_printable, shown.message.splitlines()))
    if switched := [word for word in ("paused", "suspended") if getattr(shown, word)]:
        yield "Switched", " and ".join(switched)
    yield "Version", _towards(shown.version, shown.wanted_version)
    if shown.image:
        yield "Image", shown.image
    yield "Schema", _towards(shown.schema.current, shown.schema.target)
    yield "Pods", f"{shown.ready_replicas} of {shown.replicas} ready"
    if shown.endpoint:
        yield "Endpoint", shown.endpoint
    if earlier := [one.version for one in shown.releases if one.image != shown.image]:
        yield "Before", ", ".join(earlier)


def _conditions(found: Sequence[Condition], now: datetime, paint: Paint) -> Iterable[str]:
    return _table(
        [
            _sign(one, paint),
            one.type,
            one.reason,
            age(one.last_transition_time, now),
            _flat(one.message),
        ]
        for one in found
        if one.type not in _SUMS
    )


def _sign(one: Condition, paint: Paint) -> str:
    if one.type == Type.PAUSED:  # it is no fault not to be paused
        return paint.open(_OPEN) if one.status is TRUE else "-"
    if one.status is UNKNOWN:
        return paint.open(_OPEN)
    return paint.good(_GOOD) if one.status is TRUE else paint.bad(_BAD)


def _workloads(found: Sequence[Workload], now: datetime, paint: Paint) -> Iterable[str]:
    rows = []
    for one in found:
        full = one.ready >= one.replicas
        sign = paint.good(_GOOD) if full else paint.open(_OPEN)
        what = f"{one.component}, serves" if one.serves else one.component
        updated = "" if one.updated >= one.replicas else f", {one.updated} updated"
        ready = f"{one.ready}/{one.replicas} ready{updated}"
        rows.append([sign, f"{one.kind} {one.name}", what, ready, one.image])
        rows += [_pod(pod, now, paint) for pod in one.pods]
    return _table(rows)


def _pod(pod: Pod, now: datetime, paint: Paint) -> list[str]:
    sign = paint.good(_GOOD) if pod.ready else paint.open(_OPEN)
    restarts = f", {pod.restarts} restarts" if pod.restarts else ""
    return ["", f"  {sign} {pod.name}", pod.state, f"{age(pod.created_at, now)}{restarts}", ""]


def _jobs(found: Sequence[Job], now: datetime, paint: Paint) -> Iterator[list[str]]:
    signs = {"Complete": paint.good(_GOOD), "Failed": paint.bad(_BAD)}
    for one in found:
        sign = signs.get(one.state, paint.open(_OPEN))
        failures = f"{one.failures} failed" if one.failures else ""
        told = _flat(one.message)
        yield [sign, one.name, one.component, one.state, failures, age(one.created_at, now), told]


def _fields(fields: Iterable[tuple[str, str]], paint: Paint) -> Iterator[str]:
    for name, value in fields:
        first, *more = value.splitlines() or [""]
        yield f"{paint.head(name)}{' ' * (10 - len(name))}{first}"
        yield from (f"{'':10}{line}" for line in more)


def _section(title: str, lines: Iterable[str], paint: Paint) -> list[str]:
    indented = [f"  {line}" for line in lines]
    return ["", paint.head(title), *indented] if indented else []


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Align cells; colours have no width."""
    cells = [list(row) for row in rows]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]


def _width(text: str) -> int:
    return len(_ESCAPE.sub("", text))


def _named(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


def _towards(current: str | None, wanted: str | None) -> str:
    """Say what is, and what is wanted where that is something else."""
    shown = current or "none yet"
    return f"{shown} → {wanted}" if wanted and wanted != current else shown


def _flat(text: str) -> str:
    """Return a text on one line, cut so that a table stays one."""
    flat = " ".join(_printable(text).split())
    return flat if len(flat) <= _CELL_MAX else f"{flat[: _CELL_MAX - 1]}…"


def _printable(text: str) -> str:
    """Return a text without what would steer a terminal: it may come from anywhere."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
