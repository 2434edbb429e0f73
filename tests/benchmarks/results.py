"""What a run of the benchmark writes to its file of JSON: made by `command.py`, read by `report.py`."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from benchmarks.arithmetic import Measurement
from benchmarks.machine import Machine
from benchmarks.plan import Plan


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """A minute of a soak: memory of the server process, speed, and what became of `balance`.

    `memory_mb` is the median of the samples in it.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    memory_mb: float
    memory_peak_mb: float
    balance_mb: float
    balance_dead_rows: int


class Sample(msgspec.Struct, frozen=True):
    """The memory of the server process at a moment of a soak."""

    at_s: float
    memory_mb: float


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    """One server process under load for a long time."""

    connections: int
    memory_before_mb: float
    minutes: Sequence[Minute]
    samples: Sequence[Sample]


class Filling(msgspec.Struct, frozen=True, kw_only=True):
    """How a history was filled in: seconds by step, and what it takes on the disk."""

    rows: int
    steps_s: dict[str, float]
    database_mb: float

    @property
    def per_s(self) -> float:
        """Payments filled in per second, all steps included."""
        return self.rows / sum(self.steps_s.values())


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    began_at: datetime
    took_s: float
    machine: Machine
    plan: Plan
    measurements: Sequence[Measurement] = ()
    cold_starts_s: Sequence[float] = ()
    soak: Soak | None = None
    fillings: Sequence[Filling] = ()

    def write(self, file: Path) -> None:
        """Keep it."""
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")

    @classmethod
    def read(cls, file: Path) -> "Result":
        """Read one back."""
        return msgspec.json.decode(file.read_bytes(), type=cls)
