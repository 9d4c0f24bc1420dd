"""What a Bluetooth strike says, as the door that it locks is told of it, whoever hosts the controller.

What this file refuses to do: take what happened long ago for something that happens now, or tell of anything twice.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Final

from ..controller import Controller  # noqa: TID252 - the core is imported relatively
from ..door import REX_TIME  # noqa: TID252
from ..model import DoorId, EventName, Sense, Sensor  # noqa: TID252
from ..strike import Reading  # noqa: TID252
from ..writer import Notes  # noqa: TID252
from .driver import BleStrike, Kept, StrikeEvent
from .news import WRAP
from .wire import Event, EventKind

NEWS: Final = 20.0
"""Seconds for which something that happened is news: the door takes it as happening now. What is older only becomes a
line of the journal, with its own time: nobody stands at the door for it any more."""

_CONTACT: Final = {EventKind.OPENED: Sense.ACTIVE, EventKind.CLOSED: Sense.INACTIVE}
_REMEMBERED: Final = {
    EventKind.OPENED: EventName.DOOR_OPENED,
    EventKind.CLOSED: EventName.DOOR_CLOSED,
    EventKind.FORCED_OPEN: EventName.DOOR_FORCED_OPEN,
    EventKind.HELD_OPEN: EventName.DOOR_HELD_OPEN,
}
"""What the strike's own judgement of old events is called. Of what is news, the door judges itself."""
_OF_ITSELF: Final = {
    EventKind.PAIRING_OPENED: EventName.STRIKE_PAIRING_OPENED,
    EventKind.FACTORY_RESET: EventName.STRIKE_FACTORY_RESET,
}
_OF_A_SLOT: Final = {
    EventKind.SLOT_ADDED: EventName.STRIKE_SLOT_ADDED,
    EventKind.SLOT_DELETED: EventName.STRIKE_SLOT_DELETED,
    EventKind.RIGHTS_CHANGED: EventName.STRIKE_RIGHTS_CHANGED,
}
"""Who else may open the strike: events however old they are."""


@dataclass(frozen=True, slots=True)
class Heard:
    """How far a strike's events have been heard, as the journal notes it: so it is as old as what it says of them."""

    seq: int = 0
    booted: float | None = None
    """When the strike powered up (wall clock), if that is known."""

    @classmethod
    def read(cls, text: str | None, first: int) -> Heard:
        """Return what was noted; if that is nothing or cannot be read, what was so when the strike was paired
        (``first``: the number of its newest event then).
        """
        try:
            seq, _, booted = (text or "").partition(" ")
            return cls(int(seq), float(booted) if booted else None)
        except ValueError:
            return cls(first)

    @classmethod
    def of(cls, kept: Kept) -> Heard:
        """Return how far the events of a strike have been told of."""
        return cls(kept.heard, kept.booted)

    def note(self, strike_id: bytes) -> Notes:
        """Return it as a note."""
        return {HEARD + strike_id.hex(): str(self.seq) if self.booted is None else f"{self.seq} {self.booted!r}"}


HEARD: Final = "strike:"
"""Begins the names of these notes; the strike's id follows."""


class Hearing:
    """What one strike says, as its door is told of it, until ``end``.

    News goes the way of every sensor's. What happened while nobody was connected is recorded in order, once, with its
    own time, and moves nothing; how the strike is then, is found and not news. What somebody did to the strike itself
    is recorded whenever it was. An answer of the strike comes before the events that led to it: it waits for them.
    """

    def __init__(
        self,
        strike: BleStrike,
        controller: Controller,
        door: DoorId,
        sensors: frozenset[Sensor],
        spends: Container[bytes],
        now: Callable[[], float],
    ) -> None:
        """``sensors`` are those of the strike's that watch the door; ``spends`` the releases of ours; ``now`` the wall
        clock.
        """
        self._strike, self._controller, self._door = strike, controller, door
        # Whether anybody can be heard who wants out comes before the door that opens.
        self._sensors = sorted(sensors, key=lambda sensor: (sensor is not Sensor.REX, sensor))
        self._spends, self._now = spends, now
        self._said: dict[Sensor, Sense] = {}
        self._exit: Event | None = None
        """The last request to exit of this power-up."""
        self._noted = Heard.of(strike.kept)
        self._undo = (strike.on_event(self._take), strike.on_change(self._look))
        self._look()

    def end(self) -> None:
        """Hear nothing any more."""
        for undo in self._undo:
            undo()

    def _take(self, told: StrikeEvent) -> None:
        event, at = told.event, told.at
        is_news = at is not None and self._now() - at < NEWS
        what: EventName | None = None
        slot = count = None
        match event.kind:
            case EventKind.BOOT:
                self._exit = None
            case EventKind.REX if Sensor.REX in self._sensors:
                self._exit = event
                if is_news:
                    self._let_out(at)
            case EventKind.OPENED | EventKind.CLOSED if Sensor.CONTACT in self._sensors and is_news:
                if event.kind == EventKind.OPENED and self._was_asked_for(event):
                    self._let_out(at)
                self._say(Sensor.CONTACT, _CONTACT[EventKind(event.kind)], at)
            case EventKind.OPENED | EventKind.CLOSED | EventKind.FORCED_OPEN | EventKind.HELD_OPEN:
                if Sensor.CONTACT in self._sensors and not is_news:
                    what = _REMEMBERED[EventKind(event.kind)]
                    self._say(Sensor.CONTACT, Sense.UNKNOWN)  # what it is like after that, is found
            case EventKind.TAMPER if Sensor.TAMPER in self._sensors:
                # However old: the door is not trusted until somebody has looked, though it was cleared meanwhile.
                self._say(Sensor.TAMPER, Sense.ACTIVE, at)
            case EventKind.RELAY_ON if event.spend_id not in self._spends:
                # A relay that is still on is told of by its reading.
                if self._strike.reading is not Reading.RELEASED:
                    what = EventName.RELAY_OPERATED_ELSEWHERE
            case EventKind.SLOT_ADDED if event.value == self._strike.kept.paired.slot:
                pass  # that is us
            case EventKind.SLOT_ADDED | EventKind.SLOT_DELETED | EventKind.RIGHTS_CHANGED:
                what, slot = _OF_A_SLOT[EventKind(event.kind)], event.value
            case EventKind.PAIRING_OPENED | EventKind.FACTORY_RESET:
                what = _OF_ITSELF[EventKind(event.kind)]
            case EventKind.FAILED_HANDSHAKES:
                what, count = EventName.STRIKE_AUTHENTICATION_FAILED, event.value
        if what is not None:
            self._noted = Heard(event.seq, self._strike.kept.booted)
            notes = self._noted.note(self._strike.kept.paired.strike_id)
            self._controller.remembered(self._door, what, at, notes, slot=slot, count=count)
        self._look()

    def _was_asked_for(self, opened: Event) -> bool:
        """Return whether the strike heard somebody who wants out shortly before, by its own clock: both may have come
        here late, and together or not.
        """
        asked = self._exit
        return asked is not None and (opened.uptime_ms - asked.uptime_ms) / 1000 % WRAP <= REX_TIME

    def _let_out(self, at: float | None) -> None:
        """Somebody wants out; the strike does not say for how long."""
        self._say(Sensor.REX, Sense.ACTIVE, at)
        self._say(Sensor.REX, Sense.INACTIVE, at)

    def _look(self) -> None:
        state, heard = self._strike.state, Heard.of(self._strike.kept)
        if state is not None and state.evt_seq > heard.seq:
            return
        for sensor in self._sensors:
            self._say(sensor, self._sense(sensor))
        if heard != self._noted:
            self._noted = heard
            self._controller.note(self._door, heard.note(self._strike.kept.paired.strike_id))

    def _sense(self, sensor: Sensor) -> Sense:
        if sensor is Sensor.REX and Sensor.CONTACT not in self._sensors and not self._strike.is_kept_up:
            return Sense.UNKNOWN  # a contact of another make is heard at once, and a request before it might not be yet
        return self._strike.sense(sensor)

    def _say(self, sensor: Sensor, sense: Sense, at: float | None = None) -> None:
        if self._said.get(sensor) is not sense:
            self._said[sensor] = sense
            self._controller.sense(self._door, sensor, sense, at)
