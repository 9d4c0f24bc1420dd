"""What a strike's events mean: when each of them happened, and what they change in what is known of the strike.

An event carries the milliseconds since its strike's power-up, so its time is known once that power-up's is. It comes of
an event that is told of while it happens, of the one that our own command caused, and of the strike's word how long it
has been up. It is good for all events of that power-up, also for those that nobody heard at the time, and for none
across another one or across a hole in the numbers.
What this module refuses to do: guess a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from .wire import Contact, Event, EventKind, Relay, State

WRAP: Final = 2**32 / 1000
"""Seconds after which a strike's uptime starts over."""
_DRIFT: Final = 600.0
"""Seconds by which two clocks may have come apart before a time in the future is taken for one before the last wrap."""


@dataclass(frozen=True, slots=True)
class StrikeEvent:
    """An event, and when it was."""

    event: Event
    at: float | None
    """Wall clock. None: between two power-ups of which neither's time is known. Its place in the order is right."""


def timed(
    events: Sequence[Event],
    booted: float | None,
    *,
    follows: int | None,
    known: Callable[[Event], float | None],
    now: float,
    up_since: float | None = None,
) -> tuple[list[StrikeEvent], float | None]:
    """Return new events, in order, with their times, and when the strike powered up last (wall clock), if known.

    ``booted`` is that time as known so far, which holds for whatever follows the event number ``follows`` immediately.
    ``known`` returns the time of an event that was heard while it happened, or that a command of ours caused.
    ``up_since``: when the strike powered up last (wall clock), by its own word, if ``events`` reach up to that word.
    """
    found: list[StrikeEvent] = []
    runs = _runs(events)
    for run in runs:
        if run[0].kind == EventKind.BOOT or follows is None or run[0].seq != follows + 1:
            booted = None
        for event in run:
            if (at := known(event)) is not None:
                booted = at - event.uptime_ms / 1000
        if run is runs[-1] and up_since is not None:
            booted = up_since
        found += [StrikeEvent(event, None if booted is None else _at(event, booted, now)) for event in run]
        follows = run[-1].seq
    return found, booted


def after(state: State, event: Event) -> State:
    """Return what is known of a strike after it told of an event; that stays what it is if it knew of it already."""
    if event.seq <= state.evt_seq:
        return state
    state = replace(state, evt_seq=event.seq)
    match event.kind:
        case EventKind.RELAY_ON:
            return replace(state, relay=Relay.PULSING)
        case EventKind.RELAY_OFF:
            return replace(state, relay=Relay.LOCKED)
        case EventKind.OPENED | EventKind.FORCED_OPEN | EventKind.HELD_OPEN:
            return replace(state, contact=Contact.OPEN)
        case EventKind.CLOSED:
            return replace(state, contact=Contact.CLOSED)
        case EventKind.TAMPER:
            return replace(state, tampered=True)
        case EventKind.TAMPER_CLEARED:
            return replace(state, tampered=False)
        case EventKind.LOW_BATTERY:
            return replace(state, battery=event.value if event.value <= 100 else None)
        case _:
            return state


def _runs(events: Sequence[Event]) -> list[list[Event]]:
    """Return the events of one power-up each, without a hole in the numbers."""
    runs: list[list[Event]] = []
    for event in events:
        if not runs or event.kind == EventKind.BOOT or event.seq != runs[-1][-1].seq + 1:
            runs.append([])
        runs[-1].append(event)
    return runs


def _at(event: Event, booted: float, now: float) -> float:
    latest = now + _DRIFT
    return min(latest - (latest - booted - event.uptime_ms / 1000) % WRAP, now)
