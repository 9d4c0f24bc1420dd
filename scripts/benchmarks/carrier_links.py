"""Links: what 1 000 and 10 000 connected buildings cost one replica, next to an idle echo server with as many.

The buildings are the core's own link client with real hellos, each signed by a controller's key of its own, from many
addresses of this machine, in three processes. The echo server (carrier_echo.py) is aiohttp's WebSocket and nothing
else; its clients say a word every 30 s, as often as the cloud asks whether a building is there. After a restart of the
server both kinds come back after the same pauses, those of the link client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.carrier.databases import Cluster

from . import old_journal
from .carrier_cloud import Buildings, Program, Town, cpu_of, cpu_with_children, memory_of, postgresql
from .table import Row

COUNTS: Final = (1_000, 10_000)
PER_SECOND: Final = 100
"""That connect at first."""
RESTS: Final = 60.0
"""Seconds: two rounds of pings, and as long as a link has to have stood for its client to come back soon."""
SETTLES: Final = 10.0
BACK: Final = 900.0
"""Seconds in which all have to be back."""


@dataclass(frozen=True)
class Seen:
    """What so many connections cost."""

    memory: float
    """Bytes for each."""
    rest: float
    """CPU of a second, in seconds."""
    rest_of_database: float
    ending: float
    """Seconds until the server has ended and begun again."""
    back: float
    """Seconds from then until all are back."""
    to_come_back: float
    """Seconds of CPU for one to come back."""


def connected() -> list[Row]:
    """Links: memory, CPU at rest and the time until all are back, for each number of links."""
    rows = []
    for count in COUNTS:
        with old_journal.folder() as name, postgresql() as cluster:
            rows += asyncio.run(_compared(Path(name), cluster, count))
    return rows


async def _compared(folder: Path, cluster: Cluster, count: int) -> list[Row]:
    town = await Town.founded(folder / "town", cluster.create(), count)
    try:
        ours = await _seen("idle", town, town.replica(), count, cluster)
        arguments = ("-m", "scripts.benchmarks.carrier_echo", str(town.port))
        echo = await _seen("echo", town, Program("127.0.0.1", town.port, arguments, folder / "echo.log"), count, None)
    finally:
        await town.store.close()
    what = f"cloud, {count} connected buildings at one replica"
    as_many = "aiohttp's echo server with as many connections"
    return [
        Row("Links", f"{what}: memory for each, kB", ours.memory / 1000, None),
        Row("Links", f"the same / {as_many}", ours.memory / echo.memory, None),
        Row("Links", "the same, CPU at rest, ms in a second", 1000 * ours.rest, None),
        Row("Links", f"the same / {as_many}", ours.rest / echo.rest, None),
        Row("Links", "the same, CPU of the database at rest, ms in a second", 1000 * ours.rest_of_database, None),
        Row("Links", "the same, seconds for the replica to end in order and to begin again", ours.ending, None),
        Row("Links", "the same, seconds from then until all are back", ours.back, None),
        Row("Links", f"the same / {as_many}", ours.back / echo.back, None),
        Row("Links", "the same, CPU of the replica for one to come back, ms", 1000 * ours.to_come_back, None),
        Row("Links", f"the same / {as_many}", ours.to_come_back / echo.to_come_back, None),
    ]


async def _seen(kind: str, town: Town, server: Program, count: int, cluster: Cluster | None) -> Seen:
    few, half = count // 10, (count - count // 10) // 2
    shares = ((0, few), (few, half), (few + half, count - few - half))
    clients = [Buildings(kind, town, *share) for share in shares]
    try:
        await asyncio.to_thread(server.start)
        await clients[0].begin(per_second=PER_SECOND)
        await asyncio.sleep(SETTLES)
        before = memory_of(server.pid)  # with all that the first ones need
        await asyncio.gather(*(each.begin(per_second=PER_SECOND / 2) for each in clients[1:]))
        await asyncio.sleep(SETTLES)
        memory = (memory_of(server.pid) - before) / (count - few)
        rest, rest_of_database = await _rest(server, cluster)
        return Seen(memory, rest, rest_of_database, *await _back(server, clients, count))
    finally:
        for each in clients:
            each.kill()
        server.end()


async def _rest(server: Program, cluster: Cluster | None) -> tuple[float, float]:
    """Return the CPU of a second, of the server and of the database."""
    of_database = cpu_with_children(cluster.pid) if cluster is not None else 0.0
    cpu, began = cpu_of(server.pid), time.monotonic()
    await asyncio.sleep(RESTS)
    took = time.monotonic() - began
    after = cpu_with_children(cluster.pid) if cluster is not None else 0.0
    return (cpu_of(server.pid) - cpu) / took, (after - of_database) / took


async def _back(server: Program, clients: Sequence[Buildings], count: int) -> tuple[float, float, float]:
    """Restart the server; return the seconds that this took, those until all are back, and its CPU for one."""
    began = time.monotonic()
    await asyncio.to_thread(server.end)
    await asyncio.to_thread(server.start)
    start, up = cpu_of(server.pid), time.monotonic()
    await asyncio.gather(*(each.all_connected(BACK) for each in clients))
    return up - began, time.monotonic() - up, (cpu_of(server.pid) - start) / count
