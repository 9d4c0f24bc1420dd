"""What became of a release: from its answer, or later from a QUERY when there was none (protocol B.3).

Leans to UNKNOWN. A release that is not known to have happened may have, and is never repeated under another spend_id.

After a lost link: wait SETTLED, connect again, QUERY the same spend_id, and if its answer is neither UNSEEN nor
COMPLETE read the strike's events, by which a reboot shows. Without the right to read them such a spend stays UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from .wire import Event, EventKind, Result, SpendState, State

SETTLED: Final = 6.0
"""Seconds after HS1 from which on it can no longer be obeyed: the nonce that it answers has run out by then."""
REMEMBERED: Final = 120.0
"""Seconds after HS1 for which UNSEEN proves that nothing moved. A strike remembers 64 spends, at 20 a minute the most,
and says LOCKOUT for 125 s after it has lost them; later, it may just have forgotten.
"""
SAME_AGAIN: Final = 5.0
"""Seconds since step 1 (A.2) in which a spend that was not seen may be sent again, as itself."""


class Outcome(StrEnum):
    """What a release came to."""

    DONE = "done"
    NOT_MOVED = "not_moved"
    ALREADY_SPENT = "already_spent"
    """Another controller has spent it."""
    UNKNOWN = "unknown"


def answered(state: State, *, sent_before: bool) -> Outcome:
    """Return what the answer to an UNLOCK or HOLD says.

    ``sent_before``: this client has sent this spend_id in an earlier connection, so that a DUPLICATE may be its own.
    """
    match state.result:
        case Result.OK:
            return Outcome.DONE
        case Result.DUPLICATE if not sent_before:
            return Outcome.ALREADY_SPENT
        case Result.DUPLICATE:
            return Outcome.DONE if state.spend_state is SpendState.COMPLETE else Outcome.UNKNOWN
        case _:
            return Outcome.NOT_MOVED


def queried(state: State, *, sent_ago: float, events: Sequence[Event] = (), heard: int | None = None) -> Outcome:
    """Return what the answer to a QUERY for a spend, sent ``sent_ago`` seconds ago, says.

    ``events`` are the strike's newest ones, in order; ``heard`` is the number of the last event that this client had
    heard of before it sent the spend, if any.
    """
    match state.result, state.spend_state:
        case Result.RELAY_FAULT, _:
            return Outcome.NOT_MOVED
        case Result.OK, SpendState.UNSEEN if SETTLED <= sent_ago <= REMEMBERED:
            return Outcome.NOT_MOVED
        case Result.OK, SpendState.COMPLETE:
            return Outcome.DONE
        case Result.OK, SpendState.RECORDED | SpendState.RELAY_ON if not _rebooted(state, events, heard):
            return Outcome.DONE
        case _:
            return Outcome.UNKNOWN


def may_send_again(outcome: Outcome, since_step_1: float) -> bool:
    """Return whether a spend may be sent again, with the same spend_id, after a QUERY came to this outcome."""
    return outcome is Outcome.NOT_MOVED and since_step_1 < SAME_AGAIN


def _rebooted(state: State, events: Sequence[Event], heard: int | None) -> bool:
    """Whether the strike may have powered up since the spend.

    Each power-up is an event. It did not if every event is known from the spend's own RELAY_ON, or else from the last
    one that was heard before it, up to the newest, and none of them is a BOOT.
    """
    on = [event.seq for event in events if event.kind == EventKind.RELAY_ON and event.spend_id == state.spend_id]
    start = on[0] if on else heard
    if start is None:
        return True
    later = [event for event in events if event.seq > start]
    complete = [event.seq for event in later] == list(range(start + 1, max(start, state.evt_seq) + 1))
    return not complete or any(event.kind == EventKind.BOOT for event in later)
