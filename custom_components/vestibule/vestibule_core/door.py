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
    by: str | None = None
    """Who was let in last, in the words of the building: a carrier's or a person's name."""


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
    over = now + timing.access_time
    match event:
        # An access. A second one during a release restarts the time.
        case Grant(by):
            return replace(state, releasing=True, by=by), (Effect.RELEASE,)
        case Released() if state.releasing:
            return replace(state, lock=Lock.ACCESSED, releasing=False, deadline=over, securing=we_end_it), ()
        case NotReleased() if state.releasing:
            return replace(state, releasing=False), ()
        case Unresolved() if state.releasing:
            # If it did move, that is over, or for us to end, when the access time is.
            return replace(state, lock=Lock.UNKNOWN, releasing=False, deadline=over, securing=we_end_it), ()

        # The end of it.
        case Elapsed() if state.deadline is None or now < state.deadline:
            return state, ()
        case Elapsed() if state.securing:
            return replace(state, deadline=None), (Effect.SECURE,)
        case Elapsed() if timing.strike.feedback:
            return replace(state, deadline=None), (Effect.OBSERVE,)
        case Elapsed() if state.lock is Lock.ACCESSED:
            return replace(state, lock=Lock.LOCKED, deadline=None), ()  # the device's timer; nothing else will tell
        case Elapsed():
            return replace(state, deadline=None), ()
        case LeftOpen() if we_end_it:
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
        case Observed(Reading.RELEASED):
            return replace(state, lock=Lock.ACCESSED), ()
        case Observed(Reading.UNKNOWN) if timing.strike.feedback:
            return replace(state, lock=Lock.UNKNOWN), ()
        case _:
            return state, ()
