"""Weekly hours: when a door or a carrier is open for deliveries, by the clock on the building's wall.

Pure. An instant is inside if the clock on the wall shows a time inside, which settles both DST changes: an hour that is
left out is never shown, an hour that comes twice counts twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from enum import StrEnum
from typing import Final


class Day(StrEnum):
    """A day of the week, in the order of ``datetime.weekday``."""

    MONDAY = "mon"
    TUESDAY = "tue"
    WEDNESDAY = "wed"
    THURSDAY = "thu"
    FRIDAY = "fri"
    SATURDAY = "sat"
    SUNDAY = "sun"


_DAYS: Final = tuple(Day)


@dataclass(frozen=True, slots=True)
class Hours:
    """One row. ``ends`` at or before ``begins`` is on the day after; the same time is a whole day later."""

    days: frozenset[Day]
    """On which the row begins."""
    begins: time
    ends: time
    """The first moment that is outside again."""


type WeeklyHours = tuple[Hours, ...]
"""Rows that add up; none at all means always."""


def is_open(hours: WeeklyHours, wall: float, zone: tzinfo) -> bool:
    """Return whether the instant ``wall`` (seconds since 1970) is inside, in the building's time zone."""
    if not hours:
        return True
    shown = datetime.fromtimestamp(wall, zone)
    clock, weekday = shown.time(), shown.weekday()
    today, yesterday = _DAYS[weekday], _DAYS[weekday - 1]
    for row in hours:
        if row.begins < row.ends:
            if today in row.days and row.begins <= clock < row.ends:
                return True
        elif (today in row.days and clock >= row.begins) or (yesterday in row.days and clock < row.ends):
            return True
    return False


# ---- two tables of hours held against each other ----

type _Spans = list[tuple[datetime, datetime]]
"""When the week that begins with _MONDAY is open: apart from each other and in order, each end outside."""

_MONDAY: Final = datetime(1, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_OVER: Final = _MONDAY + 7 * _DAY


def common(one: WeeklyHours, other: WeeklyHours) -> WeeklyHours:
    """Return hours that are inside exactly where both are, for clocks on walls of one time zone."""
    if not one or not other:
        return one or other
    mine, theirs = _spans(one), _spans(other)
    both: _Spans = []
    while mine and theirs:
        begins, ends = max(mine[0][0], theirs[0][0]), min(mine[0][1], theirs[0][1])
        if begins < ends:
            both.append((begins, ends))
        del (mine if mine[0][1] == ends else theirs)[0]
    return _rows(both)


def is_within(inner: WeeklyHours, outer: WeeklyHours) -> bool:
    """Return whether ``outer`` is inside wherever ``inner`` is."""
    return not outer or _spans(inner or _ALWAYS) == _spans(common(inner, outer))


def _spans(hours: WeeklyHours) -> _Spans:
    pieces: _Spans = []
    for row in hours:
        for day in row.days:
            midnight = _MONDAY + _DAYS.index(day) * _DAY
            begins, ends = (datetime.combine(midnight, clock, UTC) for clock in (row.begins, row.ends))
            if ends <= begins:
                ends += _DAY
            pieces.append((begins, min(ends, _OVER)))
            if ends > _OVER:
                pieces.append((_MONDAY, ends - 7 * _DAY))
    spans: _Spans = []
    for begins, ends in sorted(pieces):
        if spans and begins <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], ends)
        else:
            spans.append((begins, ends))
    return spans


def _rows(spans: _Spans) -> WeeklyHours:
    days: dict[tuple[time, time], set[Day]] = {}
    for begins, ends in spans:
        while begins < ends:
            until = min(ends, begins + _DAY)  # further than that no row reaches
            days.setdefault((begins.time(), until.time()), set()).add(_DAYS[begins.weekday()])
            begins = until
    # Without any row it would be open always.
    return tuple(Hours(frozenset(on), *clocks) for clocks, on in days.items()) or NEVER


_ALWAYS: Final = (Hours(frozenset(Day), time(), time()),)
NEVER: Final[WeeklyHours] = (Hours(frozenset(), time(), time()),)
"""A row without a day."""
