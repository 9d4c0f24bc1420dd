"""Reconciliation with a carrier's cloud: is every token that was accepted here one that it issued? (protocol E)

A stolen signing key opens the doors that its carrier may open, whenever that may and with a door's challenge, until
somebody notices. Here it is noticed: for each UTC day the carrier lists the tokens that it issued, signed by a key that
signs nothing else. A token that was accepted and is not in its day's list is an alarm; if it is still in none a day
later, no token of the carrier is accepted until an administrator has looked.

Pure: the state is frozen, and kept by the host, durably before it acts on it. What this file refuses to do: lock a
carrier out because a list does not come (whoever cuts the line would shut the doors), ask our own clock of which day a
token is, or keep a token's id: it knows tokens by their spend ids, as the journal does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final

from .keyset import DAY, ISSUER, MAX_JTIS, MAX_PARTS, Issued
from .model import Issuer
from .strict import FLAG, Shape, hexadecimal, integer, listed, optional, record
from .token import spend_id, spend_id_of

LOCK_AFTER: Final = 86400
"""Seconds for which an accepted token may be missing from its day's list, which is asked for again meanwhile."""
LIST_WITHIN: Final = 2 * 86400
"""Seconds after which a list that did not come is an alarm."""
ASK_EVERY: Final = 3600
"""Seconds between two times when the same list is asked for."""
ASKED_BACK: Final = timedelta(days=35)
"""For how long a carrier lists a day's tokens again when it is asked."""
LISTS_KEPT: Final = 3
"""Lists that are kept, for tokens that are heard of late; an earlier one is asked for again."""
MOST: Final = 20_000
"""Tokens that wait for their list. The oldest beyond that are forgotten: no list has come for long, which is told."""


class Alarm(StrEnum):
    """What an administrator has to know."""

    LOCKED_OUT = "locked_out"
    """Tokens were missing for a day: none of the carrier's opens a door until somebody has looked."""
    NEVER_ISSUED = "never_issued"
    """A token was accepted that is not in its day's list."""
    NO_LIST = "no_list"
    """No list has come for two days, or not that of a day of which a token was accepted."""


@dataclass(frozen=True, slots=True)
class Token:
    """One that was accepted and is in no list so far."""

    spend: bytes
    """Its spend id."""
    day: date
    """UTC, of its ``iat``: by the issuer's clock."""
    since: int
    """Seconds since 1970, by our clock: when it began to wait, or was found missing."""


@dataclass(frozen=True, slots=True)
class DayList:
    """What has come of a day's list."""

    day: date
    issued_at: int
    parts: int
    got: tuple[int, ...]
    spends: tuple[bytes, ...]

    @property
    def is_complete(self) -> bool:
        """Whether all parts are there. Before that it says nothing about what is not in it."""
        return len(self.got) == self.parts


@dataclass(frozen=True, slots=True)
class _Question:
    """A list that was asked for."""

    day: date
    at: int


@dataclass(frozen=True, slots=True)
class State:
    """How far a carrier's tokens are reconciled."""

    issuer: Issuer
    upto: int
    """Up to where the journal was read (``Journal.accepted``)."""
    heard: int
    """Seconds since 1970, by our clock: when a day's list last came for the first time, or reconciliation began."""
    newest: date | None = None
    """The latest day whose list was complete."""
    waiting: tuple[Token, ...] = ()
    missing: tuple[Token, ...] = ()
    lists: tuple[DayList, ...] = ()
    asked: tuple[_Question, ...] = ()
    locked_out: bool = False

    def alarms(self, now: int) -> frozenset[Alarm]:
        """Return what an administrator has to know, at this second of our clock."""
        newest = self.newest
        late = any(newest is not None and each.day < newest and _overdue(each.since, now) for each in self.waiting)
        return frozenset(
            alarm
            for alarm, is_so in (
                (Alarm.LOCKED_OUT, self.locked_out),
                (Alarm.NEVER_ISSUED, bool(self.missing)),
                (Alarm.NO_LIST, late or _overdue(self.heard, now)),
            )
            if is_so
        )


def begin(issuer: Issuer, upto: int, now: int) -> State:
    """Begin with what is accepted from now on, ``upto`` being how far the journal is already."""
    return State(issuer, upto, now)


def resume(left: State, upto: int, now: int) -> State:
    """Begin again after the link was taken away: what was accepted before, and is in no list so far, waits on.

    What was accepted while there was no link is not looked at: nobody listed it.
    """
    return replace(left, upto=upto, heard=now, asked=())


def accept(state: State, tokens: Iterable[tuple[str, int | None]], now: int, upto: int | None = None) -> State:
    """Take in tokens that were accepted, each its id as it is stored and its ``iat`` (None: of before that was kept,
    and not looked at); ``upto`` if they are from the journal.
    """
    waiting, missing = list(state.waiting), list(state.missing)
    known = {each.spend for each in (*waiting, *missing)}
    for stored, issued_at in tokens:
        if issued_at is None or (spend := spend_id_of(state.issuer, stored)) in known:
            continue
        token = Token(spend, _day_of(issued_at), now)
        known.add(spend)
        # Such a day is listed no more, and no genuine token is accepted weeks after it was issued.
        is_too_old = state.newest is not None and token.day <= state.newest - ASKED_BACK
        (missing if is_too_old else waiting).append(token)
    return look(
        replace(
            state,
            waiting=tuple(waiting[-MOST:]),
            missing=tuple(missing[-MOST:]),
            upto=state.upto if upto is None else upto,
        ),
        now,
    )


def take_list(state: State, part: Issued, now: int) -> State:
    """Take in a part of a list whose signature was verified (``keyset.read_issued``)."""
    of_day = [each for each in state.lists if each.day == part.day]
    if any(each.is_complete and part.issued_at <= each.issued_at for each in of_day):
        return state  # it is known, or was replaced
    same = next((each for each in of_day if (each.issued_at, each.parts) == (part.issued_at, part.parts)), None)
    begun = same or DayList(part.day, part.issued_at, part.parts, (), ())
    if part.part in begun.got:
        return state
    spends = (spend_id(state.issuer, jti) for jti in part.jtis)
    grown = replace(begun, got=(*begun.got, part.part), spends=(*begun.spends, *spends))
    others = [each for each in state.lists if each is not same]
    if not grown.is_complete:
        begun_ones = [each for each in others if not each.is_complete]
        whole = [each for each in others if each.is_complete]
        return replace(state, lists=(*whole, *begun_ones[1 - _MOST_BEGUN :], grown))
    # It replaces what has come of the day before; days of long ago are asked for again if they are needed.
    complete = sorted(
        (each for each in (*others, grown) if each.is_complete and (each is grown or each.day != part.day)),
        key=lambda each: each.day,
    )
    begun_ones = [each for each in others if not each.is_complete and each.day != part.day]
    is_new = state.newest is None or part.day > state.newest
    # No token is of a day that had not begun when the carrier listed an earlier one.
    latest = _day_of(part.issued_at) + timedelta(days=1)
    ahead = (replace(each, since=now) for each in state.waiting if each.day > latest)
    settled = _settle(
        replace(
            state,
            waiting=tuple(each for each in state.waiting if each.day <= latest),
            missing=(*state.missing, *ahead),
            newest=part.day if is_new else state.newest,
            heard=now if is_new else state.heard,
        ),
        grown,
        now,
    )
    return look(replace(settled, lists=(*complete[-LISTS_KEPT:], *begun_ones)), now)


def _settle(state: State, complete: DayList, now: int) -> State:
    """Hold what was accepted against the list of its day."""
    listed_ones = frozenset(complete.spends)
    of_day = [each for each in state.waiting if each.day == complete.day]
    new = (replace(each, since=now) for each in of_day if each.spend not in listed_ones)
    found = (each for each in state.missing if each.day == complete.day and each.spend in listed_ones)
    gone = {each.spend for each in found}
    return replace(
        state,
        waiting=tuple(each for each in state.waiting if each.day != complete.day),
        missing=(*(each for each in state.missing if each.spend not in gone), *new)[-MOST:],
    )


def look(state: State, now: int) -> State:
    """Return what follows from what is known, and from the time that has gone by. To be called every few minutes."""
    for complete in (each for each in state.lists if each.is_complete):
        if any(each.day == complete.day for each in state.waiting):
            state = _settle(state, complete, now)
    newest = state.newest
    if newest is not None:  # a list that was withheld for weeks will not come any more; that was told
        state = replace(state, waiting=tuple(each for each in state.waiting if each.day > newest - ASKED_BACK))
    is_late = any(now - each.since >= LOCK_AFTER for each in state.missing)
    return replace(state, locked_out=state.locked_out or is_late)


def questions(state: State, now: int) -> tuple[State, tuple[date, ...]]:
    """Return the days whose lists are to be asked for now: of tokens that are missing, or that still wait."""
    newest = state.newest
    wanted = {each.day for each in state.missing}
    wanted |= {each.day for each in state.waiting if newest is not None and each.day < newest}
    recent = {each.day: each for each in state.asked if 0 <= now - each.at < ASK_EVERY}
    days = tuple(sorted(wanted - recent.keys()))
    asked = (*(recent[day] for day in sorted(recent) if day in wanted), *(_Question(day, now) for day in days))
    return replace(state, asked=asked), days


def approve(state: State) -> State:
    """Let the carrier in again: an administrator has looked. What was missing is not looked for any more."""
    return replace(state, locked_out=False, missing=(), asked=())


def _overdue(since: int, now: int) -> bool:
    return now - since >= LIST_WITHIN


def _day_of(seconds: int) -> date:
    # A claim may hold any number below 2^53; what is beyond the calendar is its last day.
    return datetime.fromtimestamp(min(seconds, _LAST), UTC).date()


_LAST: Final = int(datetime(9998, 12, 31, tzinfo=UTC).timestamp())
_MOST_BEGUN: Final = 4
"""Lists of which not all parts have come."""

# ---- how the state is kept ----

_SECONDS: Final = integer()
_SPEND: Final = hexadecimal(16)
_TOKEN: Final = record(Token, {"spend": _SPEND, "day": DAY, "since": _SECONDS})
_LIST: Final = record(
    DayList,
    {
        "day": DAY,
        "issued_at": _SECONDS,
        "parts": integer(1, MAX_PARTS),
        "got": listed(integer(0, MAX_PARTS - 1), MAX_PARTS),
        "spends": listed(_SPEND, MAX_JTIS * MAX_PARTS),
    },
)
_QUESTION: Final = record(_Question, {"day": DAY, "at": _SECONDS})

STATE: Final[Shape[State]] = record(
    State,
    {
        "issuer": ISSUER,
        "upto": integer(),
        "heard": _SECONDS,
        "newest": optional(DAY),
        "waiting": listed(_TOKEN, MOST),
        "missing": listed(_TOKEN, MOST),
        "lists": listed(_LIST, LISTS_KEPT + _MOST_BEGUN),
        "asked": listed(_QUESTION, 2 * MOST),
        "locked_out": FLAG,
    },
)
"""How a host keeps it as JSON. What was kept and cannot be read raises MalformedMessage."""
