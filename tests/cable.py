"""A cable between two programs on loopback, which can be pulled out in the middle of anything.

What comes in at its own port goes on to another one, byte for byte, both ways. Each connection lasts for as many bytes
as ``lasts`` says when it begins (None: for as long as the two want); then both ends find it reset, wherever they were.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Self

from scripts.demo_home.home import free_port

LOOPBACK = "127.0.0.1"


class Cable:
    """Use it in an ``async with``; ``port`` is where it begins."""

    def __init__(self, to: int, lasts: Callable[[], int | None] = lambda: None) -> None:
        self.to, self.lasts = to, lasts
        self.port = 0
        self.cuts = 0
        """How often a connection was cut before its end."""
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port or free_port())
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Pull it out, whatever is under way; the next connection finds it there again."""
        self.cuts += bool(self._ends)
        for end in self._ends:
            end.transport.abort()

    async def _serve(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        left = self.lasts()
        try:
            far_in, far_out = await asyncio.open_connection(LOOPBACK, self.to)
        except OSError:
            near_out.transport.abort()
            return
        ends = {near_out, far_out}
        self._ends |= ends

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            nonlocal left
            while part := await source.read(16 * 1024):
                if left is not None and len(part) >= left:
                    sink.write(part[:left])
                    left = 0
                    self.cuts += 1
                    return
                left = None if left is None else left - len(part)
                sink.write(part)
                await sink.drain()

        ways = {asyncio.create_task(pass_on(near_in, far_out)), asyncio.create_task(pass_on(far_in, near_out))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in ends:
                end.transport.abort()
            self._ends -= ends
            with contextlib.suppress(OSError):
                await asyncio.gather(*ways, return_exceptions=True)
