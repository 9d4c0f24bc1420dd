"""How far a gateway's events were told, on disk: whatever ends Home Assistant, none is lost and none sets off twice.

What was told is written down at once. It is in Activity only when Home Assistant's recorder has written it, too,
which takes seconds, or minutes if it is behind; a kill loses that. So two numbers are kept: up to where events were
told, and up to where the recorder says it has them. What is between them is told again at the next start, on the bus
and for Activity only. What the recorder itself gives up, after a commit that failed for half a minute, is lost to
Activity as everything of that time is; the journals have it. What this file refuses to do: write more often than a
few times a second, however many events there are.
"""

from __future__ import annotations

import asyncio
from typing import Final, Self

from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.recorder import DATA_INSTANCE
from homeassistant.helpers.storage import Store

from .const import DOMAIN

RECORDED: Final = 6.0
"""Seconds between two questions to the recorder. By itself it writes every five, so that it mostly just answers."""
PATIENCE: Final = 60.0
"""Seconds for an answer: after a commit that failed there is none, and it has to be asked anew."""
LAST_WORD: Final = 5.0
"""Seconds for the answer at the end; what it has not written by then is told again at the next start."""
TAKEN: Final = 0.1
"""Seconds after which it knows of what it was told: it does not count what it has just taken from its queue."""
APART: Final = 0.1
"""Seconds between two writes: a kill within them has what was told meanwhile told as new once more."""


class Told:
    """Two marks in the events of one gateway. Belongs to one event loop."""

    def __init__(self, hass: HomeAssistant, store: Store[dict[str, int]], kept: dict[str, int] | None) -> None:
        """Use ``Told.open``."""
        self._hass, self._store, self._written = hass, store, kept
        self.before = kept["seen"] if kept else 0
        """Up to here events were told before Home Assistant started."""
        self.after = kept.get("recorded", self.before) if kept else None
        """Up to here they are recorded, too; None: nothing was ever told of this gateway."""
        self._now = self.after
        self._recorded = self._asked = self.after or 0
        self._changed = asyncio.Event()
        self._is_closed = False

    @classmethod
    async def open(cls, hass: HomeAssistant, gateway: str) -> Self:
        """Read the marks of a gateway."""
        store = told_store(hass, gateway)
        return cls(hass, store, await store.async_load())

    @callback
    def reach(self, sequence: int) -> None:
        """Note that everything up to this number was told now."""
        if self._now is None:  # what was before it was paired is of no interest
            self._recorded = self._asked = sequence
        self._now = sequence
        self._changed.set()

    @callback
    def shorten(self, newest: int) -> None:
        """Note that there is no more than this: the journal has become shorter."""
        self.before, self._recorded = min(self.before, newest), min(self._recorded, newest)
        self._asked = min(self._asked, newest)  # a number that comes again is of another entry
        if self._now is not None:
            self.reach(min(self._now, newest))

    async def keep(self) -> None:
        """Write the marks down, for as long as the entry is loaded."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._write_down())
            both.create_task(self._ask_again_and_again())

    async def _write_down(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._write()
            await asyncio.sleep(APART)

    async def _ask_again_and_again(self) -> None:
        while True:
            if self._now is not None:
                self._asked = self._now
            await asyncio.sleep(RECORDED)
            if self._asked != self._recorded:
                await self._hear_of_it(PATIENCE)
                self._changed.set()

    async def _hear_of_it(self, patience: float) -> None:
        """Wait until the recorder has what it is asked for, or not any longer."""
        recorder = self._hass.data.get(DATA_INSTANCE)
        # Without one, or with one that has broken down, there is no Activity that could lack anything.
        if recorder is not None and recorder.is_alive() and (answer := recorder.async_get_commit_future()) is not None:
            try:
                async with asyncio.timeout(patience):
                    await answer
            except TimeoutError:
                return
        self._recorded = self._asked

    async def close(self) -> None:
        """Write the marks down for the last time: the entry is unloaded, or Home Assistant stops. May be repeated."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._write()  # what was told is not told as news again, whatever comes of the rest
        if self._now is not None and self._now != self._recorded:
            self._asked = self._now
            await asyncio.sleep(TAKEN)
            await self._hear_of_it(LAST_WORD)
            await self._write()

    async def _write(self) -> None:
        if self._now is None:
            return
        marks = {"seen": max(self._now, self.before), "recorded": self._recorded}
        if marks != self._written:  # a gateway that is away is looked for again and again
            await self._store.async_save(marks)
            self._written = marks


def told_store(hass: HomeAssistant, gateway: str) -> Store[dict[str, int]]:
    """Return where the marks of a gateway are kept."""
    return Store(hass, 1, f"{DOMAIN}.gateway.{gateway}", atomic_writes=True)
