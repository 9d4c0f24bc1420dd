"""G18 and G10: what follows a gateway costs: how late the last of many clients hears of an event, and their memory."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Self, override

from tests.gateway.forked import Forks

from . import old_journal
from .gateway_site import HOST, Line, Site
from .table import Row

ROUNDS: Final = 7
EVENTS: Final = 30
"""Events of a round."""
CLIENTS: Final = 100
DOORS: Final = 64
FEW: Final = 20
"""Clients with which weighing begins: what the first ones take is there already."""
MOST: Final = 120
PROCESSES: Final = 5
_UPGRADE: Final = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
_GRANTED: Final = b'"access_granted"'


class Follower(asyncio.Protocol):
    """A client of the stream that does as little as can be done: it looks for a grant in what comes in."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received = bytearray()
        self.heard: asyncio.Future[float] | None = None
        self.is_following = asyncio.Event()
        self.transport: asyncio.Transport

    @classmethod
    async def follow(cls, site: Site) -> Self:
        """Follow from now on."""
        request = site.request("GET", f"/v1/stream?after={10**9}", more=_UPGRADE)
        loop = asyncio.get_running_loop()
        _, follower = await loop.create_connection(lambda: cls(request), HOST, site.port, ssl=site.context)
        async with asyncio.timeout(20):
            await follower.is_following.wait()
        return follower

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    @override
    def data_received(self, data: bytes) -> None:
        if self.heard is not None:
            if _GRANTED in data:
                self.heard.set_result(time.perf_counter())
                self.heard = None
        elif not self.is_following.is_set():
            self._received += data
            if b'"type":"hello"' in self._received.replace(b" ", b""):
                assert self._received.startswith(b"HTTP/1.1 101 ")
                self.is_following.set()

    def listens(self) -> asyncio.Future[float]:
        """Return what will be the time at which the next grant is heard of."""
        self.heard = asyncio.get_running_loop().create_future()
        return self.heard


# ---- G18 ----


def events_at_many() -> list[Row]:
    """G18: from an unlock's request until the last of many clients has heard of the grant / until a single one has."""
    return asyncio.run(_events_at_many())


async def _events_at_many() -> list[Row]:
    with old_journal.folder() as folder:
        forks = Forks()
        try:
            async with AsyncExitStack() as stack:
                sites: list[tuple[Site, Line, list[Follower]]] = []
                for followers in (1, CLIENTS):
                    site = Site(Path(folder) / str(followers), DOORS)
                    await stack.enter_async_context(site.at_work(forks))
                    sites.append((site, await site.line(), [await Follower.follow(site) for _ in range(followers)]))
                ratios = []
                for round_ in range(ROUNDS + 1):
                    waits: tuple[list[float], list[float]] = ([], [])
                    for number in range(EVENTS):
                        for (site, line, all_), wait in zip(sites, waits, strict=True):
                            wait.append(await _until_all_heard(site, line, all_, number % DOORS))
                    if round_:
                        ratios.append(statistics.median(waits[1]) / statistics.median(waits[0]))
                for _, line, all_ in sites:
                    await line.close()
                    _leave(all_)
        finally:
            forks.close()
    what = f"gateway, from an unlock's request until the last of {CLIENTS} clients has heard of it / until one has"
    return [Row("G18", what, statistics.median(ratios), 6)]


async def _until_all_heard(site: Site, line: Line, all_: Sequence[Follower], door: int) -> float:
    request = await site.unlock(line, door)
    await asyncio.sleep(0.03)
    hearing = [follower.listens() for follower in all_]
    began = time.perf_counter()
    await line.ask(request)
    last = max(await asyncio.gather(*hearing))
    await asyncio.sleep(0.03)
    return last - began


def _leave(followers: Sequence[Follower]) -> None:
    for follower in followers:
        follower.transport.abort()


# ---- G10 ----


def memory() -> list[Row]:
    """G10: what a gateway has in memory for each client of its stream."""
    return asyncio.run(_memory())


async def _memory() -> list[Row]:
    streams, lines = [], []
    with old_journal.folder() as folder:
        for number in range(PROCESSES):
            forks = Forks()
            try:
                async with Site(Path(folder) / str(number), 1).at_work(forks) as site:
                    followers = [await Follower.follow(site) for _ in range(FEW)]
                    few = _in_use(site)
                    followers += [await Follower.follow(site) for _ in range(MOST - FEW)]
                    streams.append((_in_use(site) - few) / (MOST - FEW))
                    _leave(followers)
                async with Site(Path(folder) / f"{number} lines", 1).at_work(forks) as site:
                    connections = [await _used(site) for _ in range(FEW)]
                    few = _in_use(site)
                    connections += [await _used(site) for _ in range(MOST - FEW)]
                    lines.append((_in_use(site) - few) / (MOST - FEW))
                    for connection in connections:
                        await connection.close()
            finally:
                forks.close()
    of_stream, of_line = statistics.median(streams), statistics.median(lines)
    return [
        Row("G10", "gateway, memory for each WebSocket client, kB", of_stream / 1000, 15),
        Row("G10", "of that, for a TLS connection of aiohttp's that rests, kB", of_line / 1000, None),
    ]


async def _used(site: Site) -> Line:
    line = await site.line()
    await line.ask(site.request("GET", "/v1/info"))
    return line


def _in_use(site: Site) -> int:
    time.sleep(0.3)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{site.process.pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024
