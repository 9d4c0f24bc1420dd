"""What a strike remembers of its past: the last 64 spends and the last 256 events (protocol B.3, B.6).

The spends are what keeps a bolt from moving twice for one token. Sixty-four of them, under a cap of twenty a minute
that a power cut does not lift, reach back three minutes: longer than anything lives that could ask for one of them
again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from .wire import NO_SPEND, Event, SpendState

MOST_SPENDS: Final = 64
MOST_EVENTS: Final = 256
RATE_TIME: Final = 60_000
"""Milliseconds in which so many spends may be recorded, and no more."""
MOST_IN_RATE_TIME: Final = 20


class Progress(IntEnum):
    """How far a spend got, as it is kept: its SpendState, and one that is told as RECORDED and RELAY_FAULT."""

    RECORDED = 1
    RELAY_ON = 2
    COMPLETE = 3
    FAILED = 4
    """The relay did not move."""

    @property
    def told(self) -> SpendState:
        """How a controller hears of it."""
        return SpendState.RECORDED if self is Progress.FAILED else SpendState(self)


@dataclass(frozen=True, slots=True)
class Spend:
    """One spend."""

    spend_id: bytes
    progress: Progress = Progress.RECORDED
    at: int | None = None
    """Milliseconds of this power-up when it was recorded, or later; None: too long ago to count in the rate."""


@dataclass(frozen=True, slots=True)
class Spends:
    """The last ones, oldest first."""

    spends: tuple[Spend, ...] = ()
    holed: bool = False
    """Some were lost, and may still be asked for: kept, so that no second power-up forgets that there was a first."""

    def find(self, spend_id: bytes) -> Spend | None:
        """Return what is known of a spend; of the last one if NO_SPEND is asked for."""
        if spend_id == NO_SPEND:
            return self.spends[-1] if self.spends else None
        return next((spend for spend in self.spends if spend.spend_id == spend_id), None)

    def too_many(self, uptime: int) -> bool:
        """Return whether the rate has no room for another one."""
        return sum(_lately(spend, uptime) for spend in self.spends) >= MOST_IN_RATE_TIME

    def recorded(self, spend_id: bytes, uptime: int, progress: Progress = Progress.RECORDED) -> Spends:
        """Return the spends with a new one; the oldest one goes if there is no room."""
        return replace(self, spends=(*self.spends, Spend(spend_id, progress, uptime))[-MOST_SPENDS:])

    def advanced(self, spend_ids: frozenset[bytes], progress: Progress) -> Spends:
        """Return the spends with the progress of these."""
        return replace(
            self,
            spends=tuple(
                replace(spend, progress=progress) if spend.spend_id in spend_ids else spend for spend in self.spends
            ),
        )


def _lately(spend: Spend, uptime: int) -> bool:
    return spend.at is not None and uptime - spend.at < RATE_TIME


@dataclass(frozen=True, slots=True)
class History:
    """The last events, oldest first, and what else is counted or latched."""

    boots: int = 0
    """Power-ups; part of every nonce, so that none comes twice even where randomness is poor."""
    seq: int = 0
    """Of the newest event."""
    tampered: bool = False
    """Since the cover was opened."""
    events: tuple[Event, ...] = ()

    def happened(self, kind: int, uptime_ms: int, value: int = 0, spend_id: bytes = NO_SPEND) -> History:
        """Return the history with a new event."""
        event = Event(self.seq + 1, uptime_ms, kind, value, spend_id)
        return replace(self, seq=event.seq, events=(*self.events, event)[-MOST_EVENTS:])

    def since(self, seq: int, most: int = MOST_EVENTS) -> tuple[Event, ...]:
        """Return the first ``most`` events whose number is at least ``seq``."""
        return tuple(event for event in self.events if event.seq >= seq)[:most]


@dataclass(frozen=True, slots=True)
class Log:
    """Both, as they are kept: in one piece."""

    spends: Spends = Spends()
    history: History = History()

    def powered_up(self) -> Log:
        """Return it at the next power-up.

        How long the power was off is not known, and may be nothing: what was recorded within the rate's time before the
        newest thing on the disk counts as recorded now. Who cuts the power wins no spends by it, and no time.
        """
        # An event's uptime starts over after 49 days: then too much counts, never too little.
        newest = max(
            (0, *(event.uptime_ms for event in self.history.events[-1:]), *(s.at or 0 for s in self.spends.spends))
        )
        spends = tuple(replace(spend, at=0 if _lately(spend, newest) else None) for spend in self.spends.spends)
        return Log(replace(self.spends, spends=spends), replace(self.history, boots=self.history.boots + 1))
