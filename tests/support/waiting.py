"""Waiting for what another process or the database will show, with a bound."""

import asyncio
from collections.abc import Awaitable, Callable

PROMPT_S = 60  # far more than it takes; the bound of a test that hangs


async def eventually(condition: Callable[[], Awaitable[bool]], within_s: float = PROMPT_S) -> None:
    """Ask again and again until a condition holds."""
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110  # what is waited for is in another process
            await asyncio.sleep(0.02)
