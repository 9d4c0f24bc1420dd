"""The four confirmations: the driver's ID, the route, the position and the time. All of them, or no token.

A function of what was asked, what is known, and the time. Each of the four has a result even if another has failed, so
that the driver sees all of them. What it refuses to do: assume. What is not known has failed, with a reason of its own.
What is measured is rounded against the driver, so that the door, which judges the same whole numbers again, agrees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo
from enum import StrEnum
from typing import Final

_EARTH: Final = 6_371_008.8
"""Metres: the mean radius."""


class Check(StrEnum):
    """The confirmations, in order."""

    ID = "id"
    ROUTE = "route"
    POSITION = "position"
    TIME = "time"


class Reason(StrEnum):
    """Why a confirmation failed."""

    # ID
    NOT_VERIFIED = "not_verified"
    """The passkey's answer does not verify, or not for this very request."""
    NO_USER_VERIFICATION = "no_user_verification"
    """The phone did not see who it is: no fingerprint, face or PIN."""
    PASSKEY_COPIED = "passkey_copied"
    """Its counter went back: there may be two of it."""
    DEVICE_UNKNOWN = "device_unknown"
    """Not a device of this driver."""
    DEVICE_REVOKED = "device_revoked"
    DRIVER_INACTIVE = "driver_inactive"
    VETTING_MISSING = "vetting_missing"
    VETTING_EXPIRED = "vetting_expired"

    # Route
    NOT_ON_ROUTE = "not_on_route"
    """No such stop on a route of this driver."""
    ROUTE_NOT_TODAY = "route_not_today"
    STOP_DONE = "stop_done"
    STOP_CANCELLED = "stop_cancelled"
    DOOR_NOT_AT_STOP = "door_not_at_stop"
    BUILDING_REMOVED = "building_removed"
    ALREADY_ASKED = "already_asked"
    """A request for this door is under way, or has been granted, or nobody knows."""
    EARLIER_DOOR_FIRST = "earlier_door_first"

    # Position
    DOOR_WITHOUT_POSITION = "door_without_position"
    POSITION_MISSING = "position_missing"
    POSITION_IMPOSSIBLE = "position_impossible"
    """No place on the earth."""
    POSITION_INACCURATE = "position_inaccurate"
    POSITION_OLD = "position_old"
    POSITION_FROM_THE_FUTURE = "position_from_the_future"
    TOO_FAR = "too_far"
    MOVED_TOO_FAST = "moved_too_fast"
    """Nobody gets there so fast from where this phone was last."""

    # Time
    NO_WINDOW = "no_window"
    """Without a stop there is no time for it."""
    REQUEST_OLD = "request_old"
    REQUEST_FROM_THE_FUTURE = "request_from_the_future"
    OUTSIDE_SHIFT = "outside_shift"
    TOO_EARLY = "too_early"
    TOO_LATE = "too_late"


class StopState(StrEnum):
    """How far a stop is. The dispatcher ends it; a stop whose every door was opened stays due until then."""

    DUE = "due"
    DONE = "done"
    CANCELLED = "cancelled"


class Opening(StrEnum):
    """How far a door of a stop is."""

    NOT_YET = "not_yet"
    UNDER_WAY = "under_way"
    """A request has claimed it, and has no outcome yet."""
    OPENED = "opened"
    REFUSED = "refused"
    """The building refused the token. It is signed, so the door is not claimed again."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AssertionFacts:
    """What the passkey's answer to this request's challenge shows."""

    verified: bool
    """The signature is the device's, for our site, over a challenge made of this very request: stop, door and position;
    and somebody was there.
    """
    user_verified: bool
    sign_count_ok: bool
    """It has risen, or the authenticator does not count."""


@dataclass(frozen=True, slots=True)
class Fix:
    """Where a phone says that it is."""

    lat: float
    lon: float
    """Degrees."""
    accuracy: float
    """Metres."""
    at: datetime
    typed: bool = False
    """By a person, in a demonstration; never by a phone."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A driver's wish for a door, as it arrived."""

    request: str
    """``req:...``, made by the cloud, for one use."""
    driver: str
    device: str
    assertion: AssertionFacts
    stop: str
    door: str
    fix: Fix | None
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class Limits:
    """What a confirmation may be at the most."""

    distance: int = 75
    """Metres, for a door that has no limit of its own."""
    accuracy: int = 50
    """Metres."""
    fix_age: int = 30
    """Seconds."""
    speed: int = 70
    """Metres in a second, from where the phone was last."""
    request_age: int = 60
    """Seconds."""
    ahead: int = 5
    """Seconds by which a phone's clock may be ahead of ours."""


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """The driver who asks."""

    id: str
    active: bool
    vetted_until: datetime | None


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The device that is asked with."""

    id: str
    driver: str
    revoked: bool


@dataclass(frozen=True, slots=True)
class StopFacts:
    """The stop that is asked for, and the route that it is on."""

    id: str
    route: str
    driver: str
    day: date
    shift_from: datetime
    shift_to: datetime
    window_from: datetime
    window_to: datetime
    state: StopState
    building: str
    doors: tuple[tuple[str, Opening], ...]
    """In the order of the path."""


@dataclass(frozen=True, slots=True)
class DoorFacts:
    """The door that is asked for."""

    id: str
    building: str
    building_removed: bool
    zone: tzinfo
    position: tuple[float, float] | None
    """Latitude and longitude, degrees."""
    radius: int | None
    """Metres, its own limit."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the cloud knows about a wish. None: there is none such."""

    driver: DriverFacts | None
    device: DeviceFacts | None
    stop: StopFacts | None
    door: DoorFacts | None
    previous: Fix | None
    """Where this device was when it was last heard."""
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Result:
    """What one confirmation came to."""

    check: Check
    reason: Reason | None
    """None: it passed."""
    measured: Mapping[str, int] = field(default_factory=dict)
    """Position: ``d``, ``acc`` (metres), ``age`` (seconds), ``limit`` (metres). Never coordinates."""

    @property
    def passed(self) -> bool:
        """Whether it did."""
        return self.reason is None


@dataclass(frozen=True, slots=True)
class Verdict:
    """All four results, in order."""

    results: tuple[Result, Result, Result, Result]

    @property
    def passed(self) -> bool:
        """Whether all of them did."""
        return all(result.passed for result in self.results)

    @property
    def reason(self) -> Reason | None:
        """The first thing that failed."""
        return next((result.reason for result in self.results if result.reason), None)

    def of(self, check: Check) -> Result:
        """Return one of the four."""
        return next(result for result in self.results if result.check is check)


def judge(asked: Asked, known: Known, now: datetime) -> Verdict:
    """Return what the four confirmations come to at ``now``."""
    position, measured = _position(asked, known, now)
    return Verdict(
        (
            Result(Check.ID, _id(asked, known, now)),
            Result(Check.ROUTE, _route(asked, known, now)),
            Result(Check.POSITION, position, measured),
            Result(Check.TIME, _time(asked, known, now)),
        )
    )


def judge_again(verdict: Verdict, asked: Asked, known: Known, now: datetime) -> Verdict:
    """Return what is left at ``now`` of a verdict that passed, while its request has the door: a dispatcher may have
    withdrawn the device, the driver, the stop or the building since. Position and time are of when it was asked.
    """
    _, _, position, time = verdict.results
    route = _route(asked, known, now)
    if route is Reason.ALREADY_ASKED:  # by this very request; all that a dispatcher can withdraw is looked at before
        route = None
    return Verdict((Result(Check.ID, _id(asked, known, now)), Result(Check.ROUTE, route), position, time))


def _id(asked: Asked, known: Known, now: datetime) -> Reason | None:
    proof, driver, device = asked.assertion, known.driver, known.device
    if not proof.verified:
        return Reason.NOT_VERIFIED
    if not proof.user_verified:
        return Reason.NO_USER_VERIFICATION
    if not proof.sign_count_ok:
        return Reason.PASSKEY_COPIED
    if device is None or driver is None or device.id != asked.device or not asked.driver == driver.id == device.driver:
        return Reason.DEVICE_UNKNOWN
    if device.revoked:
        return Reason.DEVICE_REVOKED
    if not driver.active:
        return Reason.DRIVER_INACTIVE
    if driver.vetted_until is None:
        return Reason.VETTING_MISSING
    if now >= driver.vetted_until:
        return Reason.VETTING_EXPIRED
    return None


def _route(asked: Asked, known: Known, now: datetime) -> Reason | None:
    stop, door = known.stop, known.door
    if stop is None or stop.id != asked.stop or stop.driver != asked.driver:
        return Reason.NOT_ON_ROUTE
    path = [each for each, _ in stop.doors]
    if door is None or door.id != asked.door or door.building != stop.building or door.id not in path:
        return Reason.DOOR_NOT_AT_STOP
    if door.building_removed:
        return Reason.BUILDING_REMOVED
    if not is_today(stop.day, stop.shift_from, stop.shift_to, door.zone, now):
        return Reason.ROUTE_NOT_TODAY
    if stop.state is not StopState.DUE:
        return Reason.STOP_DONE if stop.state is StopState.DONE else Reason.STOP_CANCELLED
    place = path.index(door.id)
    if stop.doors[place][1] is not Opening.NOT_YET:
        return Reason.ALREADY_ASKED
    # Behind a door of which nobody knows whether it opened, the driver may well stand at the next one.
    if any(opening not in (Opening.OPENED, Opening.UNKNOWN) for _, opening in stop.doors[:place]):
        return Reason.EARLIER_DOOR_FIRST
    return None


def is_today(day: date, shift_from: datetime, shift_to: datetime, zone: tzinfo, now: datetime) -> bool:
    """Return whether a route is today's where ``zone`` is. A shift that goes past midnight is still the route's of the
    day on which it began.
    """
    if now.astimezone(zone).date() == day:
        return True
    return shift_from.astimezone(zone).date() == day and shift_from <= now < shift_to


def _position(asked: Asked, known: Known, now: datetime) -> tuple[Reason | None, Mapping[str, int]]:
    fix, door, limits = asked.fix, known.door, known.limits
    if door is None or door.id != asked.door or door.position is None:
        return Reason.DOOR_WITHOUT_POSITION, {}
    if fix is None:
        return Reason.POSITION_MISSING, {}
    if not is_place(fix.lat, fix.lon) or not 0 <= fix.accuracy < math.inf:
        return Reason.POSITION_IMPOSSIBLE, {}
    age = (now - fix.at).total_seconds()
    limit = limits.distance if door.radius is None else door.radius
    d, acc = math.ceil(metres(fix.lat, fix.lon, *door.position)), math.ceil(fix.accuracy)
    measured = {"d": d, "acc": acc, "age": max(0, math.ceil(age)), "limit": limit}
    if age < -limits.ahead:
        return Reason.POSITION_FROM_THE_FUTURE, measured
    if measured["age"] > limits.fix_age:
        return Reason.POSITION_OLD, measured
    if acc > limits.accuracy:
        return Reason.POSITION_INACCURATE, measured
    if d > limit:
        return Reason.TOO_FAR, measured
    if known.previous is not None and _is_jump(known.previous, fix, limits.speed):
        return Reason.MOVED_TOO_FAST, measured
    return None, measured


def _is_jump(before: Fix, after: Fix, speed: int) -> bool:
    """Return whether nobody gets from one place to the other; what may be inaccuracy does not count."""
    moved = metres(before.lat, before.lon, after.lat, after.lon) - before.accuracy - after.accuracy
    return moved > speed * abs((after.at - before.at).total_seconds())


def _time(asked: Asked, known: Known, now: datetime) -> Reason | None:
    stop, limits = known.stop, known.limits
    age = (now - asked.asked_at).total_seconds()
    if age > limits.request_age:
        return Reason.REQUEST_OLD
    if age < -limits.ahead:
        return Reason.REQUEST_FROM_THE_FUTURE
    if stop is None or stop.id != asked.stop:
        return Reason.NO_WINDOW
    if not stop.shift_from <= now < stop.shift_to:
        return Reason.OUTSIDE_SHIFT
    if now < stop.window_from:
        return Reason.TOO_EARLY
    if now >= stop.window_to:
        return Reason.TOO_LATE
    return None


def is_place(lat: float, lon: float) -> bool:
    """Return whether these degrees are a place on the earth; NaN is none."""
    return -90 <= lat <= 90 and -180 <= lon <= 180


def metres(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """Return the distance of two places along the earth (haversine; right to 0.5 %)."""
    p1, p2 = math.radians(lat1), math.radians(lat2)
    across, along = p2 - p1, math.radians(lon2 - lon1)
    h = math.sin(across / 2) ** 2 + math.cos(p1) * math.cos(p2) * math.sin(along / 2) ** 2
    return 2 * _EARTH * math.asin(math.sqrt(min(1.0, h)))
