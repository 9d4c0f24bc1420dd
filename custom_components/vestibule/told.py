"""How far a gateway's events were told, on disk: whatever ends Home Assistant, none is lost and none sets off twice.

What was told is written down at once. It is in Activity only when Home Assistant's recorder has written it, too, which
takes a few seconds; a kill loses that. So two numbers are kept: up to where events were told, and up to where they are
recorded. What is between them is told again at the next start, on the bus and for Activity only. What this file refuses
to do: write more often than a few times a second, however many events there are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Final, Self

from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.storage import Store

from .const import DOMAIN

RECORDED: Final = 10.0
"""Seconds after which the recorder has written what it was told: it does so every five."""
APART: Final = 0.1
"""Seconds between two writes: a kill within them has what was told meanwhile told as new once more."""


class Told:
    """Two marks in the events of one gateway. Belongs to one event loop."""

    def __init__(self, store: Store[dict[str, int]], kept: dict[str, int] | None) -> None:
        """Use ``Told.open``."""
        self._store, self._written = store, kept
        self.before = kept["seen"] if kept else 0
        """Up to here events were told before Home Assistant started."""
        self.after = kept.get("recorded", self.before) if kept else None
        """Up to here they are recorded, too; None: nothing was ever told of this gateway."""
        self._now, self._recorded = self.after, self.after or 0
        self._changed = asyncio.Event()

    @classmethod
    async def open(cls, hass: HomeAssistant, gateway: str) -> Self:
        """Read the marks of a gateway."""
        store = told_store(hass, gateway)
        return cls(store, await store.async_load())

    @callback
    def reach(self, sequence: int) -> None:
        """Note that everything up to this number was told now."""
        if self._now is None:  # what was before it was paired is of no interest
            self._recorded = sequence
        self._now = sequence
        self._changed.set()

    @callback
    def shorten(self, newest: int) -> None:
        """Note that there is no more than this: the journal has become shorter."""
        self.before, self._recorded = min(self.before, newest), min(self._recorded, newest)
        if self._now is not None:
            self.reach(min(self._now, newest))

    async def keep(self) -> None:
        """Write the marks down, for as long as the entry is loaded."""
        written: deque[tuple[float, int]] = deque()
        while True:
            idle = RECORDED if written else None
            with suppress(TimeoutError):
                async with asyncio.timeout(idle):
                    await self._changed.wait()
            self._changed.clear()
            now = monotonic()
            while written and written[0][0] <= now - RECORDED:
                self._recorded = written.popleft()[1]
            if self._now is not None and self._now != (written[-1][1] if written else self._recorded):
                written.append((now, self._now))
            await self._write()
            await asyncio.sleep(APART)

    async def close(self) -> None:
        """Write down that all is told and will be recorded: Home Assistant is not killed, or at least not yet."""
        if self._now is not None:
            self._recorded = self._now
            await self._write()

    async def _write(self) -> None:
        if self._now is None:
            return
        marks = {"seen": max(self._now, self.before), "recorded": self._recorded}
        if marks != self._written:  # a gateway that is away is looked for again and again
            self._written = marks
            await self._store.async_save(marks)


def told_store(hass: HomeAssistant, gateway: str) -> Store[dict[str, int]]:
    """Return where the marks of a gateway are kept."""
    return Store(hass, 1, f"{DOMAIN}.gateway.{gateway}", atomic_writes=True)
