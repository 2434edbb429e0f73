"""Logging: one line for each event, JSON for machines or text for a terminal.

`Event` is the closed list of what the operator logs itself; what libraries log comes out in the same form. No
manifest and no value of a Secret is ever given to a logger.
"""

import logging
import sys
from enum import StrEnum
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger


class Event(StrEnum):
    """Every event."""

    STARTED = "operator started"
    LEADING = "leading"
    STOPPED_LEADING = "stopped leading"
    WAITING = "waiting for a kind"
    RECONCILE_FAILED = "reconcile failed"
    APPLIED = "applied"
    DELETED = "deleted"
    SECRET_MADE = "secret made"  # noqa: S105  # an event
    CENSUS_FAILED = "census failed"
    REFERRED_WATCH_FAILED = "referred watch failed"


def configure(level: str, log_format: str) -> None:
    """Set logging up, for this process."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _texts,
                last,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Every event of every object would be a line; ours say what was done about it.
    for noisy in ("kopf", "aiohttp.access", "kubernetes", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


def _texts(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Make texts of exceptions: they may be values of any field."""
    return {
        key: f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else value
        for key, value in event.items()
    }
