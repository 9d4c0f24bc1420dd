"""Writing down and telling: each event goes into the journal, and from there to the host, once and in order.

Nothing waits for what goes through here; what an unlock waits for is the controller's (``make_durable``). If the
journal has failed, an event is at least told of.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

from .errors import StoreFailed
from .journal import Journal, Spend, SpentState
from .leaf import Person
from .model import AccessEvent, Code, DoorId
from .writer import Notes

_LOGGER = logging.getLogger(__name__)

REFUSALS_AN_HOUR: Final = 60
"""Refusals of one issuer at one door (by hand: of one person, for one reason) that are recorded within an hour; more
are counted (A.2)."""
MOST_KEYS: Final = 1000
"""Issuers, doors and persons whose refusals are counted."""


class Telling:
    """The pen of one controller."""

    def __init__(self, journal: Journal, host: Callable[[AccessEvent], None]) -> None:
        """``host`` gets every event once, in order."""
        self._journal = journal
        self._host = host
        self._refusals: dict[tuple[object, ...], tuple[float, int]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self.counters: Counter[Code] = Counter()
        """Refusals that leave no other trace: what a stranger could cause in any number (A.2)."""

    def record(
        self,
        event: AccessEvent,
        person: Person | None = None,
        *,
        settles: tuple[Spend, SpentState] | None = None,
        notes: Notes | None = None,
    ) -> None:
        """Write an event that nothing waits for; if the journal has failed, at least tell of it."""
        # Takes its place in the journal's order here, before the door goes on to the next in the queue.
        written = self._journal.settle(*settles, event) if settles else self._journal.append(event, person, notes)

        async def see() -> None:
            try:
                await written
            except StoreFailed:
                self.tell(event)

        self.later(see())

    def record_refusal(self, event: AccessEvent, person: Person | None, door: DoorId | None, boot: float) -> None:
        """Record a refusal, unless there were too many: a genuine text that is refused can be presented for ever.

        ``door`` is the door if it is one of ours; ``boot`` is seconds of boot time.
        """
        assert event.code is not None
        key: tuple[object, ...] = event.issuer, door
        if event.issuer is None:
            # By hand each person and each reason counts for itself: nobody hides another's wrong PINs.
            key += event.code, person and person.get("user_id")
        began, count = self._refusals.pop(key, (boot, 0))
        if boot - began >= 3600:
            began, count = boot, 0
        self._refusals[key] = began, count + 1
        if len(self._refusals) > MOST_KEYS:
            del self._refusals[next(iter(self._refusals))]
        if count < REFUSALS_AN_HOUR:
            self.record(event, person)
        else:
            self.counters[event.code] += 1

    def tell(self, event: AccessEvent) -> None:
        """Hand an event to the host, whose failure is its own."""
        try:
            self._host(event)
        except Exception:
            _LOGGER.exception("The host failed to take event %s", event.sequence)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` while nothing waits for it, except the end (``recorded``)."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def recorded(self) -> None:
        """Return when all that has happened is in the journal, or cannot be."""
        while self._background:
            done, _ = await asyncio.wait(self._background)
            self._background -= done  # now: what is done calls back later, and this loop would not let it
