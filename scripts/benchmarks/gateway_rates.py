"""G4, G5, G6, G8 and G16: what an unlock over the gateway's API costs, alone and with many at once.

What is compared with is the same server with something simpler in place of the unlock (gateway_rivals.py); both get the
very same requests, in turns. Time is the callers'; CPU is the kernel's count of the gateway's process, all threads.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.gateway.forked import Forks, make_shim, syncs_of_unlocks

from . import old_journal
from .gateway_site import LIFTED, Line, Site
from .table import Row

ROUNDS: Final = 7
CALLERS: Final = 64
EACH: Final = 8
"""Unlocks of a caller in a round."""
SLOW: Final = 0.020
"""Seconds that a sync takes besides, on an SD card."""
UNLOCKS: Final = 25
"""Lone ones, whose syncs are counted."""
TOKENS: Final = 100
AT_ONCE: Final = 200
FRESH: Final = 60
"""Fresh connections of a round, of each kind."""
_RIVALS: Final = "scripts.benchmarks.gateway_rivals"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a round of unlocks cost."""

    per_second: float
    cpu: float
    """Nanoseconds of the server for each."""
    median: float
    """Seconds from a request to its answer."""


def _shim(folder: Path) -> Path:
    if (shim := make_shim(folder)) is None:
        raise SystemExit("G5 and G6 count and slow syncs with a small C library: please install a C compiler (cc).")
    return shim


@asynccontextmanager
async def _forks(*, is_slow: bool = False) -> AsyncIterator[tuple[Forks, Path]]:
    with old_journal.folder() as folder:
        forks = Forks(_shim(Path(folder)) if is_slow else None)
        try:
            yield forks, Path(folder)
        finally:
            forks.close()


async def _round(site: Site, lines: Sequence[Line], requests: Sequence[Sequence[bytes]]) -> Cost:
    """Let every caller ask what it has to ask, one after the other."""
    waits: list[float] = []

    async def call(line: Line, own: Sequence[bytes]) -> None:
        for request in own:
            sent = time.perf_counter()
            answer = await line.ask(request)
            waits.append(time.perf_counter() - sent)
            assert b'"granted"' in answer, answer

    cpu, began = site.process.cpu, time.perf_counter()
    await asyncio.gather(*(call(line, own) for line, own in zip(lines, requests, strict=True)))
    took = time.perf_counter() - began
    await asyncio.sleep(0.2)  # what came of the last ones is recorded
    return Cost(len(waits) / took, (site.process.cpu - cpu) / len(waits), statistics.median(waits))


async def _rounds(
    forks: Forks, folder: Path, rivals: Sequence[str], rounds: int, each: int, sync_delay: float = 0.0
) -> list[list[Cost]]:
    """Return what each round cost at the gateway and at each of its rivals."""
    async with AsyncExitStack() as stack:
        sites: list[tuple[Site, list[Line]]] = []
        for number, prepare in enumerate((LIFTED, *rivals)):
            site = Site(folder / f"site{number}", CALLERS)
            await stack.enter_async_context(site.at_work(forks, sync_delay=sync_delay, prepare=prepare))
            lines = [await site.line() for _ in range(CALLERS)]
            for line in lines:
                stack.push_async_callback(line.close)
            sites.append((site, lines))
        costs = []
        for round_ in range(rounds + 1):
            cost = []
            for site, lines in reversed(sites):
                requests = await site.unlocks(lines, each)
                await asyncio.sleep(0.2)
                cost.append(await _round(site, lines, requests))
            if round_:  # the first one warms up
                costs.append(cost[::-1])
        return costs


def _ratio(costs: Sequence[Sequence[Cost]], rival: int, figure: Callable[[Cost], float]) -> float:
    return statistics.median(figure(cost[0]) / figure(cost[rival]) for cost in costs)


# ---- G4 ----


def accepts_per_second() -> list[Row]:
    """G4: durable accepts a second of many callers / of the same server that only verifies."""
    return asyncio.run(_accepts_per_second())


async def _accepts_per_second() -> list[Row]:
    async with _forks() as (forks, folder):
        costs = await _rounds(forks, folder, [f"{_RIVALS}:verifies", f"{_RIVALS}:verifies_with_pyjwt"], ROUNDS, EACH)
    what = f"gateway, {CALLERS} callers at {CALLERS} doors: durable unlocks a second / of the same server that only"
    return [
        Row("G4", f"{what} verifies", _ratio(costs, 1, lambda cost: cost.per_second), 0.8, at_least=True),
        Row("G4", f"{what} verifies with PyJWT", _ratio(costs, 2, lambda cost: cost.per_second), None),
        Row("G4", "CPU of an unlock, its outcome recorded / of a mere verification",
            _ratio(costs, 1, lambda cost: cost.cpu), None),
        Row("G4", "CPU of an unlock, microseconds", statistics.median(cost[0].cpu for cost in costs) / 1e3, None),
    ]  # fmt: skip


# ---- G5 ----


def slow_disk() -> list[Row]:
    """G5: on a disk whose syncs take long, many callers' unlocks a second / with a commit for each request."""
    return asyncio.run(_slow_disk())


async def _slow_disk() -> list[Row]:
    async with _forks(is_slow=True) as (forks, folder):
        costs = await _rounds(forks, folder, [f"{_RIVALS}:commits_each_by_itself"], 5, 3, SLOW)
        sync = SLOW + _bare_sync(folder)
    what = f"gateway, {CALLERS} callers, each sync {SLOW * 1000:.0f} ms longer:"
    return [
        Row("G5", f"{what} durable unlocks a second / of the same server with a commit for each request",
            _ratio(costs, 1, lambda cost: cost.per_second), 25, at_least=True),
        Row("G5", "the same, time of an unlock in syncs, median",
            statistics.median(cost[0].median for cost in costs) / sync, 2.5),
    ]  # fmt: skip


def _bare_sync(folder: Path) -> float:
    file = os.open(folder / "sync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    times = []
    for _ in range(50):
        os.write(file, bytes(4096))
        began = time.perf_counter()
        os.fdatasync(file)
        times.append(time.perf_counter() - began)
    os.close(file)
    return statistics.median(times)


# ---- G6 ----


def syncs_of_an_unlock() -> list[Row]:
    """G6: syncs from a request over the network to the relay's command, the most of many unlocks."""
    with old_journal.folder() as folder:
        syncs = syncs_of_unlocks(Path(folder), _shim(Path(folder)), UNLOCKS)
    return [
        Row(
            "G6",
            f"gateway, syncs from the request to the relay's command, most of {UNLOCKS} lone unlocks",
            max(syncs),
            1,
        )
    ]


# ---- G8 ----


def races() -> list[Row]:
    """G8: strikes for each token that many callers present at once, over the network."""
    return asyncio.run(_races())


async def _races() -> list[Row]:
    async with _forks() as (forks, folder), Site(folder / "site", TOKENS).at_work(forks) as site:
        lines = [await site.line() for _ in range(AT_ONCE)]
        answers: Counter[str] = Counter()
        for door in range(TOKENS):
            request = await site.unlock(lines[0], door)
            for answer in await asyncio.gather(*(line.ask(request) for line in lines)):
                answers[
                    "granted" if b'"granted"' in answer else "already_used" if b'"already_used"' in answer else "?"
                ] += 1
        for line in lines:
            await line.close()
        opened = Counter(site.opened)
    assert answers == {"granted": TOKENS, "already_used": (AT_ONCE - 1) * TOKENS}, answers
    what = f"gateway, one token presented on {AT_ONCE} connections at once: strikes"
    return [
        Row("G8", f"{what}, most of {TOKENS} tokens", max(opened.values()), 1),
        Row("G8", f"{what}, tokens that opened", len(opened), TOKENS, at_least=True),
    ]


# ---- G16 ----


def fresh_connections() -> list[Row]:
    """G16: an unlock on a fresh TLS connection / a request for nothing in particular on another fresh one."""
    return asyncio.run(_fresh_connections())


async def _fresh_connections() -> list[Row]:
    ratios: list[list[float]] = []
    async with (
        _forks() as (forks, folder),
        Site(folder / "site", CALLERS).at_work(forks) as ours,
        Site(folder / "rival", CALLERS).at_work(forks, prepare=f"{_RIVALS}:verifies") as rival,
    ):
        kept = {site: await site.line() for site in (ours, rival)}
        for round_ in range(6):
            costs: dict[str, list[tuple[float, float]]] = {"unlock": [], "verification": [], "nothing": []}
            for number in range(FRESH):
                for what, site in (("unlock", ours), ("verification", rival)):
                    costs[what].append(await _fresh(site, await site.unlock(kept[site], number)))
                costs["nothing"].append(await _fresh(ours, ours.request("GET", "/v1/info")))
            (time_, cpu), (of_rival, _), (least, least_cpu) = (
                [statistics.median(one) for one in zip(*each, strict=True)] for each in costs.values()
            )
            if round_:
                ratios.append([time_ / least, cpu / least_cpu, of_rival / least])
        for line in kept.values():
            await line.close()
    waited, used, verified = (statistics.median(one) for one in zip(*ratios, strict=True))
    what = "gateway, unlock on a fresh TLS connection / `GET /v1/info` on another"
    return [
        Row("G16", f"{what}, time from the first packet to the answer", waited, 1.3),
        Row("G16", "the same, CPU of the gateway until the outcome is recorded", used, None),
        Row("G16", "the same, time, if the server only verifies the token", verified, None),
    ]


async def _fresh(site: Site, request: bytes) -> tuple[float, float]:
    """Return the seconds until the answer, and the CPU of the gateway for all that it does."""
    await asyncio.sleep(0.02)
    cpu, began = site.process.cpu, time.perf_counter()
    line = await site.line()
    await line.ask(request)
    took = time.perf_counter() - began
    await line.close()
    await asyncio.sleep(0.02)
    return took, site.process.cpu - cpu
