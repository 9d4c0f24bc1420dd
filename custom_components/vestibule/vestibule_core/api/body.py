"""A request's body, as far as a server reads it.

What it refuses to do: read more of one that is too large than shows that, whatever its head says, or wait for a sender
that gives it out in crumbs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

DEADLINE: Final = 10.0
"""Seconds in which the whole body has to be there."""


async def read_body(parts: AsyncIterator[bytes], length: int | None, most: int) -> bytes | None:
    """Return a body of at most ``most`` bytes; None: it is larger. ``length``: what its head says, if it does.

    Raises TimeoutError, and whatever ``parts`` raises.
    """
    if (length or 0) > most:
        return None
    body = bytearray()
    async with asyncio.timeout(DEADLINE):
        async for part in parts:
            body += part
            if len(body) > most:
                return None
    return bytes(body)
