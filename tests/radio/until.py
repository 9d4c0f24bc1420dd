"""Waiting for what a radio brings about in a few turns of the event loop. What it refuses to do: wait for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(happened: Callable[[], object], *, seconds: float = 5.0) -> None:
    """Return as soon as ``happened()`` is true. Raises TimeoutError after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not happened():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0)
