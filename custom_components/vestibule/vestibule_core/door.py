"""The door: every transition of one door, in one place.

``advance`` is a function of (state, input, now) and returns the next state and what to do. It never waits, reads no
clock and moves nothing itself. The lock state is what was confirmed, never what was hoped for: a release that was not
confirmed leaves UNKNOWN, and a door that has not been heard of yet is UNKNOWN too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from .strike import Capabilities, Reading

SECURE_AGAIN = 5.0
"""Seconds between attempts to put a strike back. Securing may be repeated; releasing never is."""


class Lock(StrEnum):
    """What is known of a door's lock."""

    LOCKED = "locked"
    ACCESSED = "accessed"
    """Released: for one access, or because the strike reports it."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Timing:
    """What a door's transitions depend on besides inputs."""

    access_time: float
    """Seconds."""
    strike: Capabilities


@dataclass(frozen=True, slots=True)
class DoorState:
    """One door at one moment. ``deadline`` is in seconds of boot time."""

    lock: Lock = Lock.UNKNOWN
    releasing: bool = False
    """The strike was told to release and has not answered."""
    deadline: float | None = None
    securing: bool = False
    """A release that the controller has to end is, or may be, under way."""
    granted_to: str | None = None
    """For whom the strike was told, while it has not answered."""
    by: str | None = None
    """For whom it released last: a carrier's or a person's name. None: something else moved it, or nobody is named."""
    told_at: float | None = None
    """When the strike was told to release, while it has not answered."""
    unanswered: bool = False
    """A release got no answer: the strike may still move, late."""


# ---- inputs ----


@dataclass(frozen=True, slots=True)
class Grant:
    """An access was decided and is durable."""

    by: str | None


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
    """The strike confirmed that it is back."""


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
    """The deadline has passed."""


type Input = Grant | Released | NotReleased | Unresolved | Secured | NotSecured | Observed | LeftOpen | Elapsed


class Effect(StrEnum):
    """What the controller does next, in this door's own task."""

    RELEASE = "release"
    SECURE = "secure"
    OBSERVE = "observe"
    """Look at the strike's reading again."""


def advance(state: DoorState, event: Input, now: float, timing: Timing) -> tuple[DoorState, tuple[Effect, ...]]:
    """Return the next state and what to do, in order. An input that cannot happen in a state changes nothing."""
    we_end_it = not timing.strike.device_timed
    match event:
        # An access. A second one during a release restarts the time.
        case Grant(by):
            return replace(state, releasing=True, told_at=now, granted_to=by), (Effect.RELEASE,)
        case Released() if state.releasing:
            over = now + timing.access_time
            after = replace(_answered(state), unanswered=False, by=state.granted_to)
            return replace(after, lock=Lock.ACCESSED, deadline=over, securing=we_end_it), ()
        case NotReleased() if state.releasing and we_end_it and not state.securing:
            # It says that it did not move. What drives it may have, before it failed: securing costs nothing.
            return replace(_answered(state), securing=True), (Effect.SECURE,)
        case NotReleased() if state.releasing:
            return _answered(state), ()
        case Unresolved() if state.releasing:
            # If it did move, it did when it was told: that is over, or for us to end, an access time after that.
            over = max(now, (state.told_at or now) + timing.access_time)
            after = replace(_answered(state), unanswered=True, by=state.granted_to)
            return replace(after, lock=Lock.UNKNOWN, deadline=over, securing=we_end_it), ()

        # The end of it.
        case Elapsed() if state.deadline is None or now < state.deadline:
            return state, ()
        case Elapsed() if state.securing:
            return replace(state, deadline=None), (Effect.SECURE,)
        case Elapsed() if timing.strike.feedback:
            return replace(state, deadline=None), (Effect.OBSERVE,)
        case Elapsed() if state.lock is Lock.ACCESSED and not we_end_it:
            return replace(state, lock=Lock.LOCKED, deadline=None), ()  # the device's timer; nothing else will tell
        case Elapsed():
            return replace(state, deadline=None), ()
        case LeftOpen():
            # Whatever the strike is now said to do by itself: this release was ours to end.
            return replace(state, deadline=None, securing=True), (Effect.SECURE,)
        case Secured() if state.securing:
            return replace(state, lock=Lock.LOCKED, deadline=None, securing=False), ()
        case NotSecured() if state.securing:
            return replace(state, lock=Lock.UNKNOWN, deadline=now + SECURE_AGAIN), ()

        # What the strike reports by itself. A relay's reading can lag behind our command, so that one which reads
        # secured early is put back all the same: ``securing`` and its deadline stay.
        case Observed(Reading.SECURED) if state.securing:
            return replace(state, lock=Lock.LOCKED), ()
        case Observed(Reading.SECURED):
            return replace(state, lock=Lock.LOCKED, deadline=None), ()
        case Observed(Reading.RELEASED) if (
            state.unanswered and we_end_it and not state.securing and not state.releasing
        ):
            # The command that got no answer has arrived after all, and nobody else would end it.
            return replace(state, lock=Lock.ACCESSED, unanswered=False, securing=True), (Effect.SECURE,)
        case Observed(Reading.RELEASED) if state.lock is Lock.ACCESSED or state.releasing or state.deadline is not None:
            return replace(state, lock=Lock.ACCESSED), ()
        case Observed(Reading.RELEASED):
            return replace(state, lock=Lock.ACCESSED, by=None), ()  # no access of ours is under way
        case Observed(Reading.UNKNOWN) if timing.strike.feedback:
            return replace(state, lock=Lock.UNKNOWN), ()
        case _:
            return state, ()


def _answered(state: DoorState) -> DoorState:
    return replace(state, releasing=False, told_at=None, granted_to=None)
