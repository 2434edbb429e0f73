"""The worker process: every loop beside requests, supervised.

Called by `picopay worker` and `picopay up`. A loop that fails is logged and tried again with
growing pauses while the others go on; a database that is away, or whose schema this release does
not know, is waited for. All work is in transactions that may be cut off at any point, so stopping
is immediate.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from picopay_api.engine.readiness import Readiness
from picopay_api.errors import UnavailableError
from picopay_api.logs import Event, get_logger
from picopay_api.settings import Settings
from picopay_api.store.database import Database
from picopay_api.worker.auditor import Auditor
from picopay_api.worker.partitions import Partitions
from picopay_api.worker.sealer import Sealer

Step = Callable[[], Coroutine[Any, Any, float]]
"""Does a bounded piece of work and returns how many seconds to pause before the next."""

_SESSIONS = 4
_BACKOFF_FIRST_S = 0.25
_BACKOFF_MAX_S = 15.0

_log = get_logger(__name__)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Seal, audit and keep partitions until `stop` is set."""
    database = await Database.open(
        settings.database_url,
        size=_SESSIONS,
        statement_timeout_ms=settings.statement_timeout_ms,
        lock_timeout_ms=settings.lock_timeout_ms,
        application_name="picopay-worker",
    )
    readiness = Readiness(database)
    readiness.stay()
    loops: dict[str, Step] = {
        "sealer": Sealer(database).step,
        "auditor": Auditor(database, settings.audit_interval_s).step,
        "partitions": Partitions(database, settings.idempotency_retention_days).step,
    }
    _log.info(Event.WORKER_STARTED)
    tasks = [
        asyncio.create_task(_repeat(name, _once_in_range(readiness, step)))
        for name, step in loops.items()
    ]
    tasks.append(asyncio.create_task(readiness.watch()))
    try:
        await stop.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await database.close()
        _log.info(Event.WORKER_STOPPED)


def _once_in_range(readiness: Readiness, step: Step) -> Step:
    """Hold a loop back until the schema is one that this release knows."""

    async def wait_and_step() -> float:
        await readiness.in_range()
        return await step()

    return wait_and_step


async def _repeat(name: str, step: Step) -> None:
    """Run a step for ever; failures are logged and followed by growing pauses."""
    failures = 0
    while True:
        try:
            pause_s = await step()
            failures = 0
        except UnavailableError as error:
            failures += 1
            pause_s = _backoff_s(failures)
            _log.warning(Event.WORKER_WAITING, task=name, reason=error.detail)
        except Exception:  # noqa: BLE001  # one loop's defect must not stop the others
            failures += 1
            pause_s = _backoff_s(failures)
            _log.exception(Event.WORKER_FAILED, task=name)
        await asyncio.sleep(pause_s)


def _backoff_s(failures: int) -> float:
    """Double the pause with each failure up to a bound, with jitter so that workers spread out."""
    pause_s = min(_BACKOFF_FIRST_S * 2.0 ** min(failures, 10), _BACKOFF_MAX_S)
    return pause_s * random.uniform(0.5, 1)  # noqa: S311  # not a secret
