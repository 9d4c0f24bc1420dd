"""Writing down and telling: each event goes into the journal, and from there to the host, once and in order.

Nothing waits for what goes through here; what an unlock waits for is the controller's (``make_durable``). If the
journal has failed, an event is at least told of. What it refuses to do: let refusals, which a stranger can cause in any
number, take more of the disk than a line a minute and a share for each issuer and door.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from .errors import StoreFailed
from .journal import Journal, Spend, SpentState
from .leaf import Person
from .model import AccessEvent, Code, DoorId, EventName, Now
from .writer import Notes

_LOGGER = logging.getLogger(__name__)

REFUSALS_AN_HOUR: Final = 60
"""Refusals of one issuer at one door (by hand: of one person, for one reason) that are recorded within an hour; more
are counted (A.2)."""
MOST_KEYS: Final = 1000
"""Issuers, doors and persons whose refusals are counted."""
SUMMARY_AFTER: Final = 60.0
"""Seconds from the first refusal that is only counted to the entry that sums up what was."""

_REFUSALS: Final = frozenset(
    {EventName.ACCESS_DENIED, EventName.REFUSALS_COUNTED, EventName.STRIKE_AUTHENTICATION_FAILED}
)
"""What may not use the journal's reserve (A.2)."""


class Telling:
    """The pen of one controller."""

    def __init__(self, journal: Journal, host: Callable[[AccessEvent], None], clock: Callable[[], Now]) -> None:
        """``host`` gets every event once, in order."""
        self._journal = journal
        self._host = host
        self._clock = clock
        self._refusals: dict[tuple[object, ...], tuple[float, int]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self.counters: Counter[Code] = Counter()
        """Refusals that left no entry of their own: what a stranger could cause in any number (A.2)."""
        self._summed: Counter[Code] = Counter()
        """Those of them that are in a summary."""
        self._summary: asyncio.TimerHandle | None = None
        """When the next summary is due; None: nothing was counted since the last one."""
        self._ended = False

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
        if settles:
            written = self._journal.settle(*settles, event)
        else:
            written = self._journal.append(event, person, notes, may_use_reserve=event.outcome not in _REFUSALS)

        async def see() -> None:
            try:
                await written
            except StoreFailed:
                self.tell(event)
                if event.outcome is EventName.ACCESS_DENIED and event.code is not None:
                    self.count(event.code)

        self.later(see())

    def note(self, notes: Notes) -> None:
        """Note what has to be known after a restart. If the journal has failed, a restart finds what it had before."""
        written = self._journal.note(notes)

        async def see() -> None:
            with suppress(StoreFailed):  # said where it failed
                await written

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
            self.count(event.code)

    def count(self, code: Code) -> None:
        """Count a refusal that leaves no entry of its own. A minute after the first one, one entry sums them up."""
        self.counters[code] += 1
        if self._summary is None and not self._ended:
            self._summary = asyncio.get_running_loop().call_later(SUMMARY_AFTER, self._sum_up)

    def _sum_up(self) -> None:
        self._summary = None
        counts = self.counters - self._summed
        self._summed = self.counters.copy()
        event = AccessEvent(
            outcome=EventName.REFUSALS_COUNTED,
            code=min(counts, key=lambda code: (-counts[code], code)),
            door=None,
            at=self._clock().wall,
            count=counts.total(),
        )
        self.record(event, {"counts": {code.value: count for code, count in counts.items()}})

    def forget(self, user_id: str) -> None:
        """Forget whom refusals by hand were of, if it was this person."""
        for key in [key for key in self._refusals if key[3:] == (user_id,)]:
            del self._refusals[key]

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

    async def end(self) -> None:
        """Write what waits, and sum up at once what was counted; what is counted from now on is in no summary."""
        await self.recorded()  # what cannot be written is counted
        self._ended = True
        if self._summary is not None:
            self._summary.cancel()
            self._sum_up()
            await self.recorded()

    async def recorded(self) -> None:
        """Return when all that has happened is in the journal, or cannot be."""
        while self._background:
            done, _ = await asyncio.wait(self._background)
            self._background -= done  # now: what is done calls back later, and this loop would not let it
