"""When an advertisement is worth a connection: at most once in five seconds, and less and less often if there was
nothing to fetch (protocol B.1, row 59).

Anybody can send advertisements. One can cause a connection, whose strike then has to prove itself, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .wire import Advertisement, Flags

GAP: Final = 5.0
"""Seconds from the beginning of one to the beginning of the next. The truth after a power cut is known within ten, also
if that cut off a poll: its answer is given up after 6 s (client.py) and the gap is over by then; the host repeats what
is advertised within 1 s (ble.py), and a poll takes 1 s or 2. With 10 s from the end of one, it could take 20 s.
"""
LONGEST_GAP: Final = 3600.0


@dataclass(slots=True)
class Polling:
    """What a client knows of its strike's events, and when it may ask next. Seconds are monotonic."""

    strike_id: bytes
    heard: int = 0
    """The number of the last event that an authentic strike told of, without a gap before it."""
    _gap: float = GAP
    _not_before: float = 0.0

    def worth_it(self, seen: Advertisement, now: float) -> bool:
        """Return whether to connect because of what was seen."""
        news = Flags.ATTENTION in seen.flags or seen.evt_seq != self.heard & 0xFFFF
        return seen.strike == self.strike_id[: len(seen.strike)] and news and now >= self._not_before

    def polled(self, *, found: bool, now: float) -> None:
        """A connection that an advertisement caused at ``now`` is over: it found events that were new, or nothing, or
        nobody.
        """
        self._not_before = now + (GAP if found else self._gap)
        self._gap = GAP if found else min(2 * self._gap, LONGEST_GAP)

    def fetch_from(self, evt_seq: int) -> int | None:
        """Return from which event on to ask a strike whose authentic state says ``evt_seq``; None: there is no news.

        A number that went back means that the strike has lost its log: everything that it has is new.
        """
        if evt_seq < self.heard:
            self.heard = 0
        return None if evt_seq == self.heard else self.heard + 1
