"""The door: every transition of one door, in one place.

``advance`` is a function of (state, input, now) and returns the next state and what to do. It never waits, reads no
clock and moves nothing itself. The lock state is what was confirmed, never what was hoped for: a release that was not
confirmed leaves UNKNOWN, and a door that has not been heard of yet is UNKNOWN too.

What the door refuses to do: release for anything but a grant or the wish to hold it open, whatever its sensors say; and
fight for the strike. Who releases it elsewhere (a key, a fire alarm) is told of and let be, in a lockdown too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from .model import Code, DoorMode, EventName, RelockOn, Sense, Sensor
from .strike import Capabilities, Reading

SECURE_AGAIN = 5.0
"""Seconds between attempts to put a strike back. Securing may be repeated; releasing never is."""
GRACE: Final = 2.0
"""Seconds after a release in which an opening still belongs to it: contacts by radio are late."""
ON_ITS_WAY: Final = 60.0
"""Seconds in which what takes its time (a gate) must be back, once it moves; after that it is told again."""
REX_TIME: Final = 10.0
"""Seconds after a request to exit in which an opening is not forced."""


class Lock(StrEnum):
    """What is known of a door's lock."""

    LOCKED = "locked"
    ACCESSED = "accessed"
    """Released: for one access, held open, or because the strike reports it."""
    UNKNOWN = "unknown"


class Alarm(StrEnum):
    """What is wrong with an open door (BACnet DOOR_ALARM_STATE, ONVIF DoorAlarmState)."""

    NONE = "none"
    HELD_OPEN = "held_open"
    FORCED_OPEN = "forced_open"


@dataclass(frozen=True, slots=True)
class Timing:
    """What a door's transitions depend on besides inputs: how it was set up."""

    access_time: float
    """Seconds."""
    strike: Capabilities
    sensors: frozenset[Sensor] = frozenset()
    relock: RelockOn = RelockOn.TIMEOUT
    held_open_time: float | None = None
    """Seconds."""
    pre_alarm_time: float = 0.0
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Passage:
    """An access that was granted and in which nobody has gone through yet."""

    until: float
    """Seconds of boot time."""
    confirmed: bool
    """The strike confirmed the release: if the door stays closed, the access was not taken."""


@dataclass(frozen=True, slots=True)
class Opener:
    """For whom a door is released: a carrier's or a person's name."""

    name: str
    user_id: str | None = None
    """Of a person."""


@dataclass(frozen=True, slots=True)
class DoorState:
    """One door at one moment. All times are seconds of boot time."""

    lock: Lock = Lock.UNKNOWN
    """What the strike confirmed or reports; what the bolt says as well: ``position``."""
    releasing: bool = False
    """The strike was told to release and has not answered."""
    deadline: float | None = None
    """When the release is over."""
    securing: bool = False
    """A release that the controller has to end is, or may be, under way."""
    granted_to: Opener | None = None
    """For whom the strike was told, while it has not answered."""
    by: Opener | None = None
    """For whom it released last. None: something else moved it, or nobody is named."""
    told_at: float | None = None
    """When the strike was told to release, while it has not answered."""
    unanswered: bool = False
    """A release got no answer: the strike may still move, late."""
    released: bool = False
    """A release of ours is confirmed or seen, and its end is not."""

    mode: DoorMode = DoorMode.NORMAL
    after_lockdown: DoorMode = DoorMode.NORMAL
    """What a lockdown goes back to: a door that was blocked is, one that was held open is not."""
    accepts_deliveries: bool = True
    tampered: bool = False
    """Since the enclosure was opened, until somebody has looked."""

    contact: Sense = Sense.UNKNOWN
    rex: Sense = Sense.UNKNOWN
    tamper: Sense = Sense.UNKNOWN
    lock_monitor: Sense = Sense.UNKNOWN
    rex_until: float | None = None
    """Until when the last request to exit explains an opening, once it is over."""
    passage: Passage | None = None
    open_too_long_at: float | None = None
    """When the open door is warned of or held open, whichever is next."""
    warned: bool = False
    alarm: Alarm = Alarm.NONE

    @property
    def position(self) -> Lock:
        """What is known of the lock, with the bolt's word: a bolt that is not home is not locked, whatever the relay
        says; a relay that is silent is locked if its bolt is.
        """
        match self.lock, self.lock_monitor:
            case Lock.LOCKED, Sense.ACTIVE:
                return Lock.ACCESSED
            case Lock.UNKNOWN, Sense.ACTIVE:
                return Lock.ACCESSED
            case Lock.UNKNOWN, Sense.INACTIVE if not (self.releasing or self.unanswered):
                return Lock.LOCKED
            case _:
                return self.lock

    @property
    def shut(self) -> Code | None:
        """Why nobody is let in, by token or by hand; None if somebody may be."""
        return _SHUT.get(self.mode)

    @property
    def faults(self) -> frozenset[Sensor]:
        """The sensors that are out of order."""
        return frozenset(sensor for sensor in Sensor if getattr(self, sensor) is Sense.FAULT)

    @property
    def due(self) -> float | None:
        """When something elapses next."""
        passage = self.passage.until if self.passage else None
        return min((at for at in (self.deadline, passage, self.open_too_long_at) if at is not None), default=None)


_SHUT: Final = {DoorMode.LOCKED_DOWN: Code.LOCKDOWN, DoorMode.BLOCKED: Code.DOOR_BLOCKED}


# ---- inputs ----


@dataclass(frozen=True, slots=True)
class Grant:
    """An access was decided and is durable."""

    by: Opener | None


@dataclass(frozen=True, slots=True)
class Released:
    """The strike confirmed the release."""


@dataclass(frozen=True, slots=True)
class NotReleased:
    """The strike did not move."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Nobody knows whether the strike moved."""


@dataclass(frozen=True, slots=True)
class Secured:
    """The strike confirmed the command to go back; ``reading`` is what it says now."""

    reading: Reading = Reading.SECURED


@dataclass(frozen=True, slots=True)
class NotSecured:
    """The attempt to put the strike back failed."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The strike reported a reading by itself."""

    reading: Reading


@dataclass(frozen=True, slots=True)
class LeftOpen:
    """At start: the journal names a release that the controller had to end and did not live to."""


@dataclass(frozen=True, slots=True)
class Elapsed:
    """Something is due."""


@dataclass(frozen=True, slots=True)
class ModeChosen:
    """A mode was chosen for this door, and is durable; LOCKED_DOWN cannot be chosen (``LockdownBegun``)."""

    mode: DoorMode
    by: Opener | None = None
    """Who chose it."""


@dataclass(frozen=True, slots=True)
class LockdownBegun:
    """The building is locked down."""


@dataclass(frozen=True, slots=True)
class LockdownLifted:
    """The lockdown is over, durably."""


@dataclass(frozen=True, slots=True)
class DeliveriesChosen:
    """Whether this door takes deliveries."""

    accepted: bool


@dataclass(frozen=True, slots=True)
class TamperCleared:
    """Somebody has looked, and it is durable."""


@dataclass(frozen=True, slots=True)
class PersonForgotten:
    """A person is deleted, and is not named any more."""

    user_id: str


@dataclass(frozen=True, slots=True)
class StrikeReplaced:
    """The door has another strike from now on; what the old one is up to is no longer this door's."""


@dataclass(frozen=True, slots=True)
class SetUpChanged:
    """The door was set up anew: some sensors or times may be others."""


@dataclass(frozen=True, slots=True)
class Sensed:
    """A sensor says something."""

    sensor: Sensor
    sense: Sense
    at: float | None = None
    """When it began to be so (wall clock), if that is known: of what follows, that is recorded. None: now."""


type Input = (
    Grant
    | Released
    | NotReleased
    | Unresolved
    | Secured
    | NotSecured
    | Observed
    | LeftOpen
    | Elapsed
    | ModeChosen
    | LockdownBegun
    | LockdownLifted
    | DeliveriesChosen
    | TamperCleared
    | PersonForgotten
    | StrikeReplaced
    | SetUpChanged
    | Sensed
)


class Effect(StrEnum):
    """What the controller does next, in this door's own task."""

    RELEASE = "release"
    HOLD = "hold"
    SECURE = "secure"
    OBSERVE = "observe"
    """Look at the strike's reading again."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the controller writes down and tells. Nothing waits for it."""

    what: EventName
    of_access: bool = False
    """It belongs to the access that was granted last."""


type Outcome = tuple[DoorState, tuple[Effect | Record, ...]]

_TAKEN: Final = Record(EventName.ACCESS_TAKEN, of_access=True)
_NOT_TAKEN: Final = Record(EventName.ACCESS_NOT_TAKEN, of_access=True)
_RELOCKED: Final = Record(EventName.DOOR_RELOCKED, of_access=True)
_NORMAL: Final = Record(EventName.DOOR_NORMAL)


def advance(state: DoorState, event: Input, now: float, timing: Timing) -> Outcome:
    """Return the next state and what to do, in order. An input that cannot happen in a state changes nothing."""
    match event:
        case Grant():
            return _grant(state, event, now)
        case Released() | NotReleased() | Unresolved() if state.releasing and state.mode is DoorMode.UNLOCKED:
            return _held(state, event, now, timing)
        case Released() | NotReleased() | Unresolved() if state.releasing:
            return _answered(state, event, now, timing)
        case Secured() | NotSecured() if state.securing and state.mode is not DoorMode.UNLOCKED:
            return _put_back(state, event, now, timing)
        case Observed(reading):
            return _observed(state, reading, now, timing)
        case LeftOpen() if timing.strike.can_secure and state.mode is not DoorMode.UNLOCKED:
            # Whatever the strike is now said to do by itself: this release was ours to end.
            return replace(state, deadline=None, securing=True, released=True), (Effect.SECURE,)
        case Elapsed():
            return _elapsed(state, now, timing)
        case Sensed(sensor=sensor) if sensor not in timing.sensors:  # it was taken away while this was on its way
            return state, ()
        case Sensed(Sensor.CONTACT, sense):
            return _contact(state, sense, now, timing)
        case Sensed(Sensor.REX, sense):
            over = now + REX_TIME if state.rex is Sense.ACTIVE and sense is not Sense.ACTIVE else state.rex_until
            return replace(state, rex=sense, rex_until=over), ()
        case Sensed(Sensor.TAMPER, Sense.ACTIVE) if not state.tampered:
            return replace(state, tamper=Sense.ACTIVE, tampered=True), (Record(EventName.DOOR_TAMPERED),)
        case Sensed(Sensor.TAMPER, sense):
            return replace(state, tamper=sense), ()
        case Sensed(Sensor.LOCK_MONITOR, sense):
            return replace(state, lock_monitor=sense), ()
        case TamperCleared() if state.tamper is not Sense.ACTIVE:
            return replace(state, tampered=False), ()
        case DeliveriesChosen(accepted):
            return replace(state, accepts_deliveries=accepted), ()
        case PersonForgotten(user_id):
            return replace(state, by=_but(state.by, user_id), granted_to=_but(state.granted_to, user_id)), ()
        case ModeChosen():
            return _mode(state, event, now, timing)
        case LockdownBegun() if state.mode is not DoorMode.LOCKED_DOWN:
            after = DoorMode.BLOCKED if state.mode is DoorMode.BLOCKED else DoorMode.NORMAL
            locked = _leave_unlocked(state, now, timing)
            return _secure_now(replace(locked, mode=DoorMode.LOCKED_DOWN, after_lockdown=after), timing)
        case StrikeReplaced():
            return _without_strike(state, now, timing)
        case SetUpChanged():
            return _set_up(state, now, timing), ()
        case LockdownLifted() if state.mode is DoorMode.LOCKED_DOWN:
            return replace(state, mode=state.after_lockdown, after_lockdown=DoorMode.NORMAL), ()
        case _:
            return state, ()


def _but(opener: Opener | None, user_id: str) -> Opener | None:
    return None if opener is not None and opener.user_id == user_id else opener


# ---- an access ----


def _grant(state: DoorState, grant: Grant, now: float) -> Outcome:
    match state.mode:
        case DoorMode.NORMAL:  # a second one during a release restarts the time
            return replace(state, releasing=True, told_at=now, granted_to=grant.by), (Effect.RELEASE,)
        case DoorMode.UNLOCKED:  # open already: granted and spent, without a pulse (A.2)
            return replace(state, by=grant.by), ()
        case _:  # blocked or locked down
            return state, ()


def _answered(state: DoorState, answer: Released | NotReleased | Unresolved, now: float, timing: Timing) -> Outcome:
    """Take the strike's answer to a release."""
    we_end_it = not timing.strike.device_timed
    free = replace(state, releasing=False, told_at=None, granted_to=None)
    match answer:
        case Released():
            over = now + timing.access_time
            free = replace(free, unanswered=False, by=state.granted_to, passage=_passage(state, over, timing))
            return replace(free, lock=Lock.ACCESSED, deadline=over, securing=we_end_it, released=True), ()
        case NotReleased() if we_end_it and not state.securing:
            # It says that it did not move. What drives it may have, before it failed: securing costs nothing.
            return replace(free, securing=True), (Effect.SECURE,)
        case NotReleased():
            return free, ()
        case _:  # Unresolved
            # If it did move, it did when it was told: that is over, or for us to end, an access time after that.
            over = max(now, (state.told_at or now) + timing.access_time)
            passage = _passage(state, over, timing, confirmed=False)
            before = state.released or state.lock is Lock.ACCESSED  # then to see it released proves nothing
            free = replace(free, unanswered=True, by=state.granted_to, passage=passage, released=before)
            return replace(free, lock=Lock.UNKNOWN, deadline=over, securing=we_end_it), ()


def _passage(state: DoorState, over: float, timing: Timing, *, confirmed: bool = True) -> Passage | None:
    if Sensor.CONTACT not in timing.sensors or state.contact is Sense.ACTIVE:
        return None  # nothing tells, or it stands open: whoever goes through it opens nothing
    return Passage(over + GRACE, confirmed)


def _put_back(state: DoorState, answer: Secured | NotSecured, now: float, timing: Timing) -> Outcome:
    """Take the strike's answer to the command to go back."""
    match answer:
        case NotSecured():
            return replace(state, lock=Lock.UNKNOWN, deadline=now + SECURE_AGAIN), ()
        case Secured(Reading.RELEASED) if timing.strike.feedback:  # on its way: a gate takes its time
            return replace(state, deadline=now + ON_ITS_WAY, securing=False), ()
        case _:  # Secured
            return _locked(replace(state, deadline=None, securing=False), now)


def _locked(state: DoorState, now: float) -> Outcome:
    """Become locked, confirmed; the end of a release of ours is told."""
    passage = state.passage and replace(state.passage, until=min(state.passage.until, now + GRACE))
    locked = replace(state, lock=Lock.LOCKED, released=False, passage=passage)
    return locked, (_RELOCKED,) if state.released else ()


def _without_strike(state: DoorState, now: float, timing: Timing) -> Outcome:
    """Forget the strike. A new one holds nothing open."""
    told = (_NORMAL,) if state.mode is DoorMode.UNLOCKED else ()
    state = _leave_unlocked(state, now, timing)
    return replace(
        state, lock=Lock.UNKNOWN, releasing=False, deadline=None, securing=False, granted_to=None, told_at=None,
        unanswered=False, released=False, passage=None,
    ), told  # fmt: skip


def _secure_now(state: DoorState, timing: Timing) -> Outcome:
    """End whatever keeps the door released or may do so, if the strike can be told."""
    if not (state.securing or (timing.strike.can_secure and state.lock is not Lock.LOCKED)):
        return state, ()
    return replace(state, deadline=None, securing=True), (Effect.SECURE,)


# ---- what the strike reports by itself ----


def _observed(state: DoorState, reading: Reading, now: float, timing: Timing) -> Outcome:
    match reading:
        case Reading.SECURED if state.mode is DoorMode.UNLOCKED and not state.releasing:
            # Put back by something else, or by a power cut: nobody holds the door open any more, and we do not fight
            # for it.
            after, told = _locked(replace(_leave_unlocked(state, now, timing), securing=True), now)
            return after, (Record(EventName.RELAY_OPERATED_ELSEWHERE), _NORMAL, *told, Effect.SECURE)
        case Reading.SECURED if state.securing:
            # A relay's reading can lag behind our command: one that reads secured early is put back all the same, and
            # what is told of waits for that.
            return replace(state, lock=Lock.LOCKED), ()
        case Reading.SECURED:
            return _locked(replace(state, deadline=None), now)
        case Reading.RELEASED if (state.unanswered or state.released) and not (
            state.securing or state.releasing or state.deadline is not None
        ):
            # A command that got no answer has arrived after all, or one to go back has not.
            after = replace(state, lock=Lock.ACCESSED, unanswered=False, released=True)
            if timing.strike.device_timed and not timing.strike.can_hold:
                return after, ()
            return replace(after, securing=True), (Effect.SECURE,)  # nobody else would end it
        case Reading.RELEASED if state.releasing or state.released or state.deadline is not None:
            ours = state.releasing or state.released or state.unanswered
            unanswered = state.unanswered and state.released  # else it has arrived: here it is
            return replace(state, lock=Lock.ACCESSED, released=ours, unanswered=unanswered), ()
        case Reading.RELEASED if state.lock is Lock.LOCKED:  # no access of ours is under way
            return replace(state, lock=Lock.ACCESSED, by=None), (Record(EventName.RELAY_OPERATED_ELSEWHERE),)
        case Reading.RELEASED if state.lock is Lock.UNKNOWN:  # nobody can say since when
            return replace(state, lock=Lock.ACCESSED, by=None), ()
        case Reading.UNKNOWN if timing.strike.feedback:
            return replace(state, lock=Lock.UNKNOWN), ()
        case _:
            return state, ()


# ---- time ----


def _elapsed(state: DoorState, now: float, timing: Timing) -> Outcome:
    """Let the first thing happen that is due."""
    if state.deadline is not None and now >= state.deadline:
        over = replace(state, deadline=None)
        if state.securing:
            return over, (Effect.SECURE,)
        if timing.strike.feedback:
            return over, (Effect.OBSERVE,)
        if state.lock is Lock.ACCESSED and timing.strike.device_timed:
            # The device's timer; nothing else will tell, and so nothing confirms that it is locked again.
            return replace(over, lock=Lock.LOCKED, released=False), ()
        return over, ()
    if state.passage is not None and now >= state.passage.until:
        stayed_closed = state.passage.confirmed and state.contact is Sense.INACTIVE
        return replace(state, passage=None), (_NOT_TAKEN,) if stayed_closed else ()
    if state.open_too_long_at is not None and now >= state.open_too_long_at:
        if not state.warned and timing.pre_alarm_time > 0:
            later = replace(state, warned=True, open_too_long_at=state.open_too_long_at + timing.pre_alarm_time)
            return later, (Record(EventName.DOOR_HELD_OPEN_WARNING),)
        alarm = Alarm.HELD_OPEN if state.alarm is Alarm.NONE else state.alarm
        return replace(state, open_too_long_at=None, alarm=alarm), (Record(EventName.DOOR_HELD_OPEN),)
    return state, ()


# ---- the door leaf ----


def _contact(state: DoorState, sense: Sense, now: float, timing: Timing) -> Outcome:
    before, state = state.contact, replace(state, contact=sense)
    match sense:
        case Sense.ACTIVE if before is not Sense.ACTIVE:
            return _opened(_watch(state, now, timing), before, now, timing)
        case Sense.INACTIVE if before is not Sense.INACTIVE:
            return _closed(state, before, timing)
        case Sense.UNKNOWN | Sense.FAULT:
            return replace(state, open_too_long_at=None, warned=False), ()  # how long it is open, nobody knows now
        case _:
            return state, ()


def _opened(state: DoorState, before: Sense, now: float, timing: Timing) -> Outcome:
    if state.passage is not None:
        # An opening is the best proof of a release, also of one that got no answer.
        state = replace(state, passage=None)
        if timing.relock is RelockOn.OPEN and state.mode is DoorMode.NORMAL:
            state, effects = _secure_now(state, timing)
            return state, (_TAKEN, *effects)
        return state, (_TAKEN,)
    if before is not Sense.INACTIVE:
        return state, ()  # found open: at start, or by a contact that was out of order
    let_out = (
        Sensor.REX not in timing.sensors  # residents leave by the handle, and nothing would tell
        or state.rex is not Sense.INACTIVE  # asked for, or the button is out of order and explains nothing
        or (state.rex_until is not None and now <= state.rex_until)
    )
    if let_out or state.mode is DoorMode.UNLOCKED or state.lock is Lock.ACCESSED:
        return state, (Record(EventName.DOOR_OPENED),)
    return replace(state, alarm=Alarm.FORCED_OPEN), (Record(EventName.DOOR_FORCED_OPEN),)


def _closed(state: DoorState, before: Sense, timing: Timing) -> Outcome:
    state = replace(state, open_too_long_at=None, warned=False, alarm=Alarm.NONE)
    if before is not Sense.ACTIVE:
        return state, ()
    told: tuple[Effect | Record, ...] = (Record(EventName.DOOR_CLOSED),)
    if timing.relock is RelockOn.CLOSE and state.mode is DoorMode.NORMAL and state.released:
        state, effects = _secure_now(state, timing)
        return state, (*told, *effects)
    return state, told


def _set_up(state: DoorState, now: float, timing: Timing) -> DoorState:
    """Forget what sensors said that the door has no more."""

    def kept(sensor: Sensor, sense: Sense) -> Sense:
        return sense if sensor in timing.sensors else Sense.UNKNOWN

    state = replace(
        state,
        contact=kept(Sensor.CONTACT, state.contact),
        rex=kept(Sensor.REX, state.rex),
        tamper=kept(Sensor.TAMPER, state.tamper),
        lock_monitor=kept(Sensor.LOCK_MONITOR, state.lock_monitor),
    )
    return _watch(state if state.contact is Sense.ACTIVE else replace(state, alarm=Alarm.NONE), now, timing)


def _watch(state: DoorState, now: float, timing: Timing) -> DoorState:
    """Begin to count how long the door is open, unless it is held open on purpose."""
    if state.mode is DoorMode.UNLOCKED or timing.held_open_time is None or state.contact is not Sense.ACTIVE:
        return replace(state, open_too_long_at=None, warned=False)
    return replace(state, open_too_long_at=now + timing.held_open_time - timing.pre_alarm_time, warned=False)


# ---- modes ----


def _mode(state: DoorState, chosen: ModeChosen, now: float, timing: Timing) -> Outcome:
    match state.mode, chosen.mode:
        case (DoorMode.LOCKED_DOWN, _) | (_, DoorMode.LOCKED_DOWN):
            return state, ()
        case before, after if before is after:
            return state, ()
        case DoorMode.BLOCKED, DoorMode.UNLOCKED:
            return state, ()  # not in one step: a strike that does not hold would leave the door unblocked
        case _, DoorMode.UNLOCKED if not timing.strike.can_hold:
            return state, ()
        case _, DoorMode.UNLOCKED:
            alarm = Alarm.NONE if state.alarm is Alarm.HELD_OPEN else state.alarm
            held = replace(state, mode=DoorMode.UNLOCKED, releasing=True, told_at=now, granted_to=chosen.by)
            return _watch(replace(held, passage=None, alarm=alarm), now, timing), (Effect.HOLD,)
        case (DoorMode.UNLOCKED, _) | (_, DoorMode.BLOCKED):
            return _secure_now(replace(_leave_unlocked(state, now, timing), mode=chosen.mode), timing)
        case _:
            return replace(state, mode=chosen.mode), ()


def _leave_unlocked(state: DoorState, now: float, timing: Timing) -> DoorState:
    """Be normal instead of held open, and watch a door that stands open from now on."""
    if state.mode is not DoorMode.UNLOCKED:
        return state
    return _watch(replace(state, mode=DoorMode.NORMAL), now, timing)


def _held(state: DoorState, answer: Released | NotReleased | Unresolved, now: float, timing: Timing) -> Outcome:
    """Take the strike's answer to the command to hold. What is not confirmed is not held, and is put back."""
    free = replace(state, releasing=False, told_at=None, granted_to=None, deadline=None, securing=True)
    match answer:
        case Released():
            held = replace(free, lock=Lock.ACCESSED, unanswered=False, released=True, by=state.granted_to)
            return held, ()
        case NotReleased():
            return _leave_unlocked(free, now, timing), (_NORMAL, Effect.SECURE)
        case _:  # Unresolved
            unknown = replace(free, lock=Lock.UNKNOWN, unanswered=True)
            return _leave_unlocked(unknown, now, timing), (_NORMAL, Effect.SECURE)
