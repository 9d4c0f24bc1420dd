"""Who looks on: a client of Home Assistant's WebSocket that hears every event, and gauges of the two processes."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from .site import Site

WARM_UP: Final = 120.0
"""Seconds of a process's life after which it should have all that it needs; for a short run a third of the life."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a process may have."""

    memory: int
    """Bytes."""
    growth: float
    """Bytes for each minute, after the warm-up of the last life, if that was long enough."""
    handles: int
    more_handles: int
    """In the last life, after its warm-up."""


MIB: Final = 2**20
BOUNDS: Final = {
    "gateway": Bound(memory=120 * MIB, growth=1 * MIB, handles=120, more_handles=16),
    "home": Bound(memory=400 * MIB, growth=4 * MIB, handles=100, more_handles=24),
}
LONG_ENOUGH: Final = 300.0
"""Seconds of life, after the warm-up, over which growth can be told from noise."""


@dataclass
class Gauge:
    """Memory and file handles of one program over its lives."""

    name: str
    seen: list[tuple[int, float, int, int]] = field(default_factory=list)
    """Process, monotonic seconds, bytes in memory, file handles."""

    def look(self, process: int | None) -> None:
        """Read what it has now."""
        if process is None:
            return
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            resident = int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) * 1024
            handles = len(list(Path(f"/proc/{process}/fd").iterdir()))
            self.seen.append((process, time.monotonic(), resident, handles))

    def judge(self) -> tuple[str, list[str]]:
        """Return the figures, and what is too much."""
        bound = BOUNDS[self.name]
        last = [row for row in self.seen if row[0] == self.seen[-1][0]]
        lived = last[-1][1] - last[0][1]
        warm = [row for row in last if row[1] - last[0][1] >= min(WARM_UP, lived / 3)] or last
        slope = _slope([(at, resident) for _, at, resident, _ in warm]) * 60
        memory, handles = [row[2] for row in self.seen], [row[3] for row in self.seen]
        more = warm[-1][3] - min(row[3] for row in warm)
        said = (
            f"{self.name}: {len({row[0] for row in self.seen})} lives; memory first {memory[0] / MIB:.1f}, "
            f"last {memory[-1] / MIB:.1f}, most {max(memory) / MIB:.1f} MiB; in the last life of {lived / 60:.1f} min, "
            f"after {(warm[0][1] - last[0][1]) / 60:.1f} min: {warm[0][2] / MIB:.1f} to {warm[-1][2] / MIB:.1f} MiB, "
            f"{slope / MIB:+.2f} MiB a minute; "
            f"handles first {handles[0]}, last {handles[-1]}, most {max(handles)}"
        )
        too_much = []
        if max(memory) > bound.memory:
            too_much.append(f"{self.name} had {max(memory) / MIB:.0f} MiB in memory, more than {bound.memory // MIB}")
        if warm[-1][1] - warm[0][1] >= LONG_ENOUGH and slope > bound.growth:
            too_much.append(f"{self.name} grows by {slope / MIB:.2f} MiB a minute")
        if max(handles) > bound.handles or more > bound.more_handles:
            too_much.append(f"{self.name} had {max(handles)} file handles, and {more} more at the end")
        return said, too_much


def _slope(points: list[tuple[float, int]]) -> float:
    """Return the growth for each second, by least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    width = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / width if width else 0.0


@dataclass
class Listener:
    """Hears what Home Assistant tells on its bus, connection by connection. Belongs to one event loop."""

    site: Site
    connections: list[list[dict[str, Any]]] = field(default_factory=list)
    newest: dict[str, int] = field(default_factory=dict)
    """By source: the number of the event that was heard last."""

    async def listen(self) -> None:
        """Listen, and connect again whenever the connection is lost."""
        async with aiohttp.ClientSession() as session:
            while True:
                with suppress(aiohttp.ClientError, OSError, TimeoutError, TypeError, KeyError, ValueError):
                    await self._hear(session)
                await asyncio.sleep(0.2)

    async def _hear(self, session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(f"{self.site.home.url}/api/websocket", max_msg_size=0) as socket:
            await socket.receive_json(timeout=10)
            await socket.send_json({"type": "auth", "access_token": self.site.home.access})
            if (await socket.receive_json(timeout=10))["type"] != "auth_ok":
                return
            await socket.send_json({"id": 1, "type": "subscribe_events", "event_type": "vestibule_access"})
            heard: list[dict[str, Any]] = []
            self.connections.append(heard)
            while True:
                said = await socket.receive_json()
                if said["type"] == "event":
                    event = said["event"]["data"]
                    heard.append(event)
                    if event["sequence"] is not None:
                        self.newest[source_of(event)] = event["sequence"]


def source_of(event: dict[str, Any]) -> str:
    """Return whose journal an event's number counts in."""
    return "gateway" if "gateway" in event else "building"
