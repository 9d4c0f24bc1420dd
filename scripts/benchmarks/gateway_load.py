"""Load: a good token while strangers flood the gateway (flood.py), beside the same when nobody does.

The gateway has its own limits here, nothing is lifted. The client whose token is good comes from another address than
the flood. All of them share the machine's cores, and whoever sends a flood uses up more of one than whoever is flooded:
so the same flood goes to another gateway beside it as well, and what that does to this one's time is told apart.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from gateway import control
from tests.gateway.forked import ROOT, Forks
from tests.gateway.process import network
from vestibule_core.api import client

from . import old_journal
from .gateway_site import HOST, Line, Site
from .table import Row

ROUNDS: Final = 12
LASTS: Final = 5.0
"""Seconds in which good tokens are timed, of each kind in a round: a minute in all."""
OPENS: Final = 2.0
"""Seconds in which a flood begins, before they are timed."""
PACE: Final = 0.1
"""Seconds from one good token to the next."""
DOORS: Final = 8
PER_SECOND: Final = 1000
CONNECTIONS: Final = 500


class Flood:
    """The other process, and what came of its requests."""

    def __init__(self, site: Site, bearer: str) -> None:
        arguments = (str(site.port), bearer, site.doors[0].id, str(PER_SECOND), str(CONNECTIONS))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.flood", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.seen: Counter[str] = Counter()
        self.seconds = 0.0
        self._began = 0.0

    async def on(self) -> None:
        await asyncio.to_thread(self._say, "on")
        self._began = time.monotonic()

    async def off(self) -> None:
        self.seconds += time.monotonic() - self._began
        self.seen.update(json.loads(await asyncio.to_thread(self._say, "off")))

    def _say(self, word: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class Watched:
    """What the flooded gateway's process has, and what it writes for nobody's good token."""

    def __init__(self, site: Site) -> None:
        self._site, self._began = site, time.monotonic()
        self._log = site.folder / "output.log"
        self.memory: list[int] = []
        self.handles: list[int] = []
        self.cpu = 0.0
        """Seconds while it was flooded."""
        self._lines, self._told = self._count()
        self._entries = 0

    def look(self) -> None:
        status = Path(f"/proc/{self._site.process.pid}/status").read_text().splitlines()
        self.memory.append(next(int(row.split()[1]) for row in status if row.startswith("RssAnon:")))
        self.handles.append(len(list(Path(f"/proc/{self._site.process.pid}/fd").iterdir())))

    def _count(self) -> tuple[int, int]:
        lines = self._log.read_bytes().splitlines()
        return len(lines), sum(line.split()[1] in (b"access_granted", b"door_released") for line in lines)

    def written(self, entries: int, good: int) -> tuple[float, float]:
        """Return lines of log and entries of the journal a minute, without those of so many good tokens.

        Each has an entry when it is granted, and one of its outcome. The log leaves out lines that come so often.
        """
        lines, told = self._count()
        minutes, of_good = (time.monotonic() - self._began) / 60, told - self._told
        return (lines - self._lines - of_good) / minutes, (entries - 2 * good) / minutes


def good_token_in_a_flood() -> list[Row]:
    """Load: how long a good token takes, and what the gateway's process has, while it is flooded."""
    return asyncio.run(_good_token_in_a_flood())


async def _good_token_in_a_flood() -> list[Row]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(old_journal.folder()))
        forks = Forks()
        stack.callback(forks.close)
        sites = [Site(folder / name, DOORS) for name in ("ours", "beside")]
        floods = []
        for site in sites:
            await stack.enter_async_context(site.at_work(forks, prepare=None))
            floods.append(flood := Flood(site, await _presenter(site)))
            stack.callback(flood.end)
        ours, line = sites[0], await sites[0].line()
        stack.push_async_callback(line.close)
        return await _rounds(ours, line, floods)


async def _rounds(ours: Site, line: Line, floods: Sequence[Flood]) -> list[Row]:
    await good_tokens(ours, line, 3.0)
    newest = await _newest(ours, line)
    watched, ratios, good = Watched(ours), list[list[float]](), 0
    watched.look()
    for _ in range(ROUNDS):
        idle = await good_tokens(ours, line, LASTS)
        loaded = []
        for flood in floods:
            cpu = ours.process.cpu
            await flood.on()
            good += len(await good_tokens(ours, line, OPENS))
            loaded.append(await good_tokens(ours, line, LASTS))
            if flood is floods[0]:
                watched.cpu += (ours.process.cpu - cpu) / 1e9
                watched.look()
            await flood.off()
            await asyncio.sleep(0.5)
        watched.look()
        flooded, beside = loaded
        good += len(idle) + len(flooded) + len(beside)
        ratios.append([
            part(one) / part(other)
            for one, other in ((flooded, idle), (beside, idle), (flooded, beside))
            for part in (statistics.median, p95)
        ])  # fmt: skip
    lines, entries = watched.written(await _newest(ours, line) - newest, good)
    seen, seconds, (before, *memory) = floods[0].seen, floods[0].seconds, watched.memory
    median = [statistics.median(one) for one in zip(*ratios, strict=True)]
    what = f"gateway, good token while strangers try {PER_SECOND} requests a second and {CONNECTIONS} connections"
    elsewhere = "while they try it at another gateway on these cores"
    tried = (seen["sent"] + seen["closed"]) / seconds
    return [
        Row("Load", f"{what} / while nobody does, time, median", median[0], 2.0),
        Row("Load", "the same, 95th percentile", median[1], 2.0),
        Row("Load", f"the same {elsewhere} / while nobody does, median", median[2], None),
        Row("Load", "the same, 95th percentile", median[3], None),
        Row("Load", f"the same while they try it here / {elsewhere}, median", median[4], 2.0),
        Row("Load", "the same, 95th percentile", median[5], 2.0),
        Row("Load", "strangers' requests a second: sent, or closed before the handshake", tried, None),
        Row("Load", "of these, those that were sent", seen["sent"] / seconds, None),
        Row("Load", "CPU of the gateway meanwhile, good tokens included, of one core", watched.cpu / seconds, None),
        Row("Load", "memory of the gateway, most while it is flooded / before", max(memory) / before, 2.5),
        Row("Load", f"memory after flood {ROUNDS} / after the first", memory[-1] / memory[1], 1.1),
        Row("Load", "file handles of the gateway, most", max(watched.handles), 560),
        Row("Load", "lines of log a minute, without those of good tokens", lines, 10),
        Row("Load", "entries of the journal a minute, without those of good tokens", entries, 1),
    ]


async def good_tokens(site: Site, line: Line, seconds: float, *, doors: int = DOORS) -> list[float]:
    """Present good tokens at an even pace, door after door; return how long each took."""
    took, began = [], time.perf_counter()
    for number in range(round(seconds / PACE)):
        request = await site.unlock(line, number % doors)
        await asyncio.sleep(max(0.0, began + number * PACE - time.perf_counter()))
        sent = time.perf_counter()
        answer = await line.ask(request)
        took.append(time.perf_counter() - sent)
        assert b'"granted"' in answer, answer
    return took


async def _presenter(site: Site) -> str:
    """Pair a client that may present tokens and nothing else; return its bearer."""
    async with network() as session:
        socket = site.folder / "state" / "control.sock"
        window = await asyncio.to_thread(control.call, socket, "POST", "/pair", {"replace": False, "trust": True})
        await asyncio.sleep(1)  # one attempt a second
        paired = await client.pair(session, HOST, site.port, window["code"], "Presenter")
    line = await site.line()
    change = {"scopes": ["present"], "issuers": [site.carrier.issuer]}
    await line.ask(site.request("PUT", f"/v1/clients/{paired.client_id}", change))
    await line.close()
    return paired.token


async def _newest(site: Site, line: Line) -> int:
    await asyncio.sleep(0.5)
    return int(json.loads(await line.ask(site.request("GET", "/v1/doors")))["newest"])


def p95(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]
