"""What a migration would do, and whether it may be done without being asked for. Pure.

Used by `migrate.py`, which makes the steps and asks for the approval while it holds the lock; and by the
command line, which shows plans. Imports nothing heavy: the help of a command needs it.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

import msgspec


class Step(msgspec.Struct, frozen=True):
    """One revision that is still to come.

    A `destructive` one takes away what an older one wrote; `digest` is that of the revision's files.
    """

    revision: str
    title: str
    min_compatible: str
    destructive: bool
    digest: str


class Hold(StrEnum):
    """Which plans wait until their hash is approved."""

    DESTRUCTIVE = "destructive"
    ALWAYS = "always"


def parted(steps: Sequence[Step], admit: str | None) -> tuple[list[Step], list[Step]]:
    """Part a plan into what releases of schema `admit` can go on beside, and what waits until they are gone.

    A step waits when it turns them away, and so does all that comes after it. None: no release still serves;
    an empty text: it is not known which one does, and everything waits.
    """
    if admit is None:
        return list(steps), []
    turns_away = (index for index, step in enumerate(steps) if step.min_compatible > admit)
    first = next(turns_away, len(steps))
    return list(steps[:first]), list(steps[first:])


def plan_hash(steps: Sequence[Step]) -> str | None:
    """Return what an approval names: these revisions, with exactly these files; None for no steps."""
    if not steps:
        return None
    lines = "".join(f"{step.revision} {step.digest}\n" for step in steps)
    return hashlib.sha256(lines.encode()).hexdigest()


def is_held(steps: Sequence[Step], hold: Hold | None, approved: str | None) -> bool:
    """Tell whether a plan waits: it is one of those that do, and is not the one that was approved."""
    if hold is None or not steps:
        return False
    waits = hold is Hold.ALWAYS or any(step.destructive for step in steps)
    return waits and approved != plan_hash(steps)
