"""Weekly hours: when a door or a carrier is open for deliveries, by the clock on the building's wall.

Pure. An instant is inside if the clock on the wall shows a time inside, which settles both DST changes: an hour that is
left out is never shown, an hour that comes twice counts twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, tzinfo
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
