"""The seam to the API's image: what its containers are told, and what they answer. Constants and shapes.

Used by `manifests/` and `plan/`. The operator never imports the API; `tests/contract` imports both and holds
them to each other. Ports are in `names.py`.
"""

from enum import IntEnum, StrEnum
from typing import Annotated

from msgspec import DecodeError, Meta, Struct, json


class ExitCode(IntEnum):
    """How a container of the API's image ends."""

    OK = 0
    FAILED = 1
    """Done, and the answer is bad: the check has findings."""
    USAGE = 2
    CONFIGURATION = 3
    UNAVAILABLE = 4
    """The database cannot be reached now: the same Job may do later."""
    SCHEMA = 5
    """The schema does not fit, or a step failed: trying again does not help."""
    REFUSED = 6
    BUSY = 7
    """Somebody else is in the way: trying again helps, and counts for nothing."""
    HELD = 8
    """The plan of a migration waits for its approval."""
    INTERNAL = 70
    INTERRUPTED = 130


SCHEMA_AHEAD = "schema_ahead"
"""The `code` of a migration whose release is older than the database admits: going back is refused."""

SCHEMA_GAP = "schema_gap"
"""The `code` of a migration whose release and those that still serve cannot work with the same schema."""


class Variable(StrEnum):
    """The environment of the API's containers."""

    DATABASE_URL = "DATABASE_URL"
    MIGRATION_DATABASE_URL = "PICOPAY_MIGRATION_DATABASE_URL"
    DATABASE_TLS_MODE = "PICOPAY_DATABASE_TLS_MODE"
    DATABASE_TLS_CA_FILE = "PICOPAY_DATABASE_TLS_CA_FILE"
    POOL_SIZE = "PICOPAY_POOL_SIZE"
    RATE_LIMIT_REQUESTS = "PICOPAY_RATE_LIMIT_REQUESTS"
    RATE_LIMIT_WINDOW_S = "PICOPAY_RATE_LIMIT_WINDOW_S"
    SHUTDOWN_GRACE_MS = "PICOPAY_SHUTDOWN_GRACE_MS"
    WORKER_METRICS_PORT = "PICOPAY_WORKER_METRICS_PORT"
    API_PORT = "API_PORT"
    LOG_LEVEL = "LOG_LEVEL"


LIVE_PATH = "/livez"
READY_PATH = "/readyz"
METRICS_PATH = "/metrics"

REPORT_FILE = "/dev/termination-log"
"""Where Jobs write their report: Kubernetes shows it as the container's termination message."""

REPORT_BYTES_MAX = 4_000
"""A little less than what Kubernetes keeps of a termination message."""

CA_FOLDER = "/var/run/picopay/database-ca"
CA_FILE = f"{CA_FOLDER}/ca.crt"

ADMIN_KEY_FOLDER = "/var/run/picopay/admin"
ADMIN_KEY = "api-key"
PREVIOUS_ADMIN_KEY = "previous-api-key"
"""Keys of the Secret of the administrator's key, and files in the folder it is mounted to."""

ADMINISTRATOR = "administrator"
"""The name of the first administrator's key."""

ADMIT = "--admit"
"""The option of a migration beside which a release serves: its schema."""

SERVE = ("serve",)
WORKER = ("worker",)


class Hold(StrEnum):
    """Which plans of a migration wait for an approval."""

    DESTRUCTIVE = "destructive"
    ALWAYS = "always"


def migrate(hold: Hold | None, approved: str | None = None, admit: str | None = None) -> list[str]:
    """Return the arguments of a migration.

    `approved` is the hash of the plan that may run. With `admit`, the schema of a release that still serves,
    what would turn that away is left to a later migration.
    """
    arguments = ["migrate", "--report", REPORT_FILE]
    if admit is not None:
        arguments += [ADMIT, admit]
    if hold is not None:
        arguments += ["--hold", hold.value]
        if approved:
            arguments += ["--approve", approved]
    return arguments


def ensure_admin_key(overlap_s: int | None = None) -> list[str]:
    """Return the arguments that make the administrator's key valid.

    With `overlap_s`, the previous one ends after that many seconds.
    """
    arguments = ["keys", "ensure", ADMINISTRATOR, "--scope", "admin", "--direct"]
    arguments += ["--secret-file", f"{ADMIN_KEY_FOLDER}/{ADMIN_KEY}"]
    if overlap_s is not None:
        arguments += ["--previous-secret-file", f"{ADMIN_KEY_FOLDER}/{PREVIOUS_ADMIN_KEY}"]
        arguments += ["--overlap-s", str(overlap_s)]
    return arguments


def check() -> list[str]:
    """Return the arguments of the check of the money."""
    return ["audit", "--quick", "--report", REPORT_FILE]


class PlanStep(Struct, frozen=True):
    """A revision that a migration takes, or leaves to a later one (`waiting`)."""

    revision: str = ""
    title: str = ""
    destructive: bool = False


class MigrationReport(Struct, frozen=True):
    """What a migration says in the end. Steps and the detail may be cut."""

    ok: bool
    exit_code: int
    code: str | None = None
    detail: str | None = None
    release: str | None = None
    current: str | None = None
    head: str | None = None
    min_compatible: str | None = None
    oldest_release: str | None = None
    steps: tuple[PlanStep, ...] = ()
    waiting: tuple[PlanStep, ...] = ()
    plan_hash: str | None = None
    applied: tuple[str, ...] = ()
    connections_max: Annotated[int, Meta(ge=0)] | None = None


class CheckFinding(Struct, frozen=True):
    """Something that does not add up."""

    ledger: str = ""
    kind: str = ""
    subject: str = ""
    detail: str = ""
    found_at: str = ""


class CheckReport(Struct, frozen=True):
    """What the check of the money says in the end. Findings and the detail may be cut."""

    ok: bool
    exit_code: int
    code: str | None = None
    detail: str | None = None
    findings: tuple[CheckFinding, ...] = ()
    checked: dict[str, int] = {}


def read_report[R: (MigrationReport, CheckReport)](kind: type[R], message: str | None) -> R | None:
    """Understand a termination message; None when it is not a report, as after a crash.

    What a newer release says beside is passed over.
    """
    try:
        return json.decode(message or "", type=kind)
    except DecodeError:  # text of a log, or a shape that is not ours
        return None
