"""What a client knows of its strike, and which of its events are new (protocol B.6).

The driver hands in whatever an authentic strike said, in the order in which it said it, and tells of what comes back.
What has to survive a restart is remembered before it comes back: an event is told of once. What this module refuses to
do: let anything in that is not a strike's authentic word.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from ..model import Now, Sense, Sensor  # noqa: TID252 - the core is imported relatively
from ..strike import Reading  # noqa: TID252
from .client import Paired
from .kept import Kept
from .news import StrikeEvent, after, timed
from .polling import GAP, Polling
from .wire import Advertisement, Caps, Event, EventKind, Flags, Op, State

REFRESH_AFTER: Final = 900.0
"""Seconds after which a strike that still advertises is asked anew, news or not."""
MOST_SENT: Final = 64
MOST_RECENT: Final = 256


class Known:
    """One strike, as its client knows it."""

    def __init__(self, kept: Kept, remember: Callable[[Kept], None]) -> None:
        """Begin with what was remembered; there is no state yet."""
        self.kept = kept
        self.state: State | None = None
        """The last authentic one; None: none, or too old."""
        self.newest = kept.heard
        """The number of the strike's newest event, as it said itself."""
        self.unsettled = False
        """Something has happened since the strike said how everything is."""
        self.said_at = 0.0
        """When it said something last (boot seconds)."""
        self._remember = remember
        self._polling = Polling(kept.paired.strike_id, kept.heard)
        self._refreshing = Polling(kept.paired.strike_id)
        """The same for asking anew: a stranger's false news must not keep it from that."""
        self._no_poll_before = 0.0
        self._is_told_nothing = False
        """It did not give the events that it had last."""
        self._recent: deque[Event] = deque(maxlen=MOST_RECENT)
        self._live: dict[int, float] = {}
        """When events were heard that cannot be told of yet (wall clock, by number)."""
        self._sent: dict[bytes, float] = {}
        """When our spends were sent (wall clock), newest last."""

    # ---- what is known ----

    @property
    def reading(self) -> Reading:
        """What its relay does; UNKNOWN if there is no state."""
        return Reading.UNKNOWN if self.state is None else self.state.reading

    def sense(self, sensor: Sensor) -> Sense:
        """Return what a sensor says; UNKNOWN if the strike has none, or there is no state.

        Nor is there a request to exit for whom the strike tells of no events: it would be silence, not rest.
        """
        if self.state is None or (sensor is Sensor.REX and self._is_told_nothing):
            return Sense.UNKNOWN
        return self.state.sense(sensor, self.kept.caps)

    @property
    def heard(self) -> int:
        """The number of the last event that was told of."""
        return self._polling.heard

    def since(self, heard: int) -> list[Event]:
        """Return the events after this one that were told of, as far as they are at hand."""
        return [event for event in self._recent if event.seq > heard]

    def was_sent(self, spend_id: bytes) -> bool:
        """Return whether this client has sent this spend before."""
        return spend_id in self._sent

    # ---- when to ask ----

    def is_old(self, now: float) -> bool:
        """Return whether the strike should be asked anew although nothing is new."""
        return self.state is None or now - self.said_at >= REFRESH_AFTER

    def is_worth_a_poll(self, seen: Advertisement, now: float) -> bool:
        """Return whether to connect because of an advertisement (polling.py): for its news, or because all is old."""
        if now < self._no_poll_before:
            return False
        if self.is_old(now):
            return self._refreshing.worth_it(replace(seen, flags=seen.flags | Flags.ATTENTION), now)
        return self._polling.worth_it(seen, now)

    def polled(self, *, refresh: bool, found: bool, now: float) -> None:
        """A connection that an advertisement caused at ``now`` is over, and found what it was made for, or not."""
        self._no_poll_before = now + GAP
        (self._refreshing if refresh else self._polling).polled(found=found, now=now)

    def fetch_from(self) -> int | None:
        """Return from which event on to ask; None: none is missing."""
        return self._polling.fetch_from(self.newest)

    # ---- what happens ----

    def proved(self, paired: Paired, caps: Caps, *, drop_next: bool) -> None:
        """The strike has proved this key, and with it what its HELLO said. ``drop_next``: another one cannot be its."""
        drop_next = drop_next or paired.psk == self.kept.next_psk
        self.keep(paired=paired, caps=caps, next_psk=None if drop_next else self.kept.next_psk)

    def sent(self, spend_id: bytes, now: Now) -> None:
        """A spend is being sent."""
        self._sent[spend_id] = now.wall
        while len(self._sent) > MOST_SENT:
            del self._sent[next(iter(self._sent))]

    def answered(self, op: int, state: State, now: Now) -> None:
        """The strike answered."""
        self.state, self.newest, self.said_at = state, state.evt_seq, now.boot
        self.unsettled = op in (Op.UNLOCK, Op.HOLD, Op.RELOCK)

    def told(self, event: Event, now: Now) -> list[StrikeEvent]:
        """The strike told of an event while it happened; return what is to be told of."""
        self.newest, self.said_at, self.unsettled = event.seq, now.boot, True
        if self.state is not None:
            self.state = after(self.state, event)
        self._live[event.seq] = now.wall
        return self.fetched((event,), now) if event.seq == self.heard + 1 else []

    def fetched(self, events: Sequence[Event], now: Now, up_since: float | None = None) -> list[StrikeEvent]:
        """Events were fetched, in order; return those that are to be told of.

        ``up_since``: when it had powered up last (wall clock), if it has just said so.
        """
        heard = self.heard
        if not (new := [event for event in events if event.seq > heard]):
            return []
        if new[-1].seq < self.newest:
            up_since = None
        told, booted = timed(
            new, self.kept.booted, follows=heard or None, known=self._known_time, now=now.wall, up_since=up_since
        )
        self._polling.heard = new[-1].seq
        self._is_told_nothing = False
        self._recent.extend(new)
        self._live = {seq: at for seq, at in self._live.items() if seq > new[-1].seq}
        self.keep(heard=new[-1].seq, booted=booted)
        return told

    def nothing_to_fetch(self) -> None:
        """The strike has not given the events that are missing: no right to hear them, or they are lost."""
        self._polling.heard = self.newest
        self._is_told_nothing = True
        self.keep(heard=self.newest, booted=None)

    def keep(self, **changes: Any) -> None:
        """Remember what has changed (fields of Kept)."""
        if (kept := replace(self.kept, **changes)) != self.kept:
            self.kept = kept
            self._remember(kept)

    def _known_time(self, event: Event) -> float | None:
        at = self._live.get(event.seq)
        return self._sent.get(event.spend_id) if at is None and event.kind == EventKind.RELAY_ON else at
