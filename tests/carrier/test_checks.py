"""The four confirmations, as a table: from a wish that everything speaks for, one thing at a time is changed.

Each row says what was changed, which confirmation has to fail for it, and why; the three others have to hold, so that
each alone decides.
"""

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from carrier.checks import (
    Asked,
    AssertionFacts,
    Check,
    DeviceFacts,
    DoorFacts,
    DriverFacts,
    Fix,
    Known,
    Limits,
    Opening,
    Reason,
    StopFacts,
    StopState,
    judge,
    metres,
)

NOW = datetime(2026, 11, 26, 9, 0, 0, tzinfo=UTC)
HOME = (52.52, 13.405)
GATE, LOBBY = "door:" + "a" * 26, "door:" + "e" * 26
ONE_METRE = 1 / 111_195.08


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def north(distance: float) -> float:
    """Return the latitude so many metres north of the door."""
    return HOME[0] + distance * ONE_METRE


FIX = Fix(north(12), HOME[1], 8.0, NOW - s(3))
ASKED = Asked("req:1", "driver:1", "device:1", AssertionFacts(True, True, True), "stop:1", GATE, FIX, NOW - s(2))
STOP = StopFacts(
    id="stop:1",
    route="route:1",
    driver="driver:1",
    day=date(2026, 11, 26),
    shift_from=NOW - s(3600),
    shift_to=NOW + s(3600),
    window_from=NOW - s(600),
    window_to=NOW + s(600),
    state=StopState.DUE,
    building="building:1",
    doors=((GATE, Opening.NOT_YET), (LOBBY, Opening.NOT_YET)),
)
KNOWN = Known(
    DriverFacts("driver:1", True, NOW + s(1)),
    DeviceFacts("device:1", "driver:1", False),
    STOP,
    DoorFacts(GATE, "building:1", False, ZoneInfo("Europe/Berlin"), HOME, None),
    previous=None,
)


def wish(**changes):
    return replace(ASKED, **changes)


def proof(**changes):
    return wish(assertion=replace(ASKED.assertion, **changes))


def fix(**changes):
    return wish(fix=replace(FIX, **changes))


def fact(**changes):
    return replace(KNOWN, **changes)


def stop(**changes):
    return fact(stop=replace(STOP, **changes))


def door(**changes):
    return fact(door=replace(KNOWN.door, **changes))


def driver(**changes):
    return fact(driver=replace(KNOWN.driver, **changes))


def device(**changes):
    return fact(device=replace(KNOWN.device, **changes))


def before(metres_off, seconds_ago, accuracy=0.0):
    """Known, with a phone that was last heard from somewhere north."""
    return fact(previous=Fix(north(12 + metres_off), HOME[1], accuracy, FIX.at - s(seconds_ago)))


EXACT = wish(fix=replace(FIX, accuracy=0.0))

REFUSED = [
    # what happened, wish, known, which confirmation, why
    ("signature of another passkey", proof(verified=False), KNOWN, Check.ID, Reason.NOT_VERIFIED),
    ("phone unlocked by nobody it knows", proof(user_verified=False), KNOWN, Check.ID, Reason.NO_USER_VERIFICATION),
    ("a copy of the passkey", proof(sign_count_ok=False), KNOWN, Check.ID, Reason.PASSKEY_COPIED),
    ("device that nobody registered", ASKED, fact(device=None), Check.ID, Reason.DEVICE_UNKNOWN),
    ("device of another driver", ASKED, device(driver="driver:2"), Check.ID, Reason.DEVICE_UNKNOWN),
    ("another device than was looked up", ASKED, device(id="device:2"), Check.ID, Reason.DEVICE_UNKNOWN),
    ("driver who is not there", ASKED, fact(driver=None), Check.ID, Reason.DEVICE_UNKNOWN),
    ("another driver than was looked up", ASKED, driver(id="driver:2"), Check.ID, Reason.DEVICE_UNKNOWN),
    ("stolen phone, revoked", ASKED, device(revoked=True), Check.ID, Reason.DEVICE_REVOKED),
    ("driver who was suspended", ASKED, driver(active=False), Check.ID, Reason.DRIVER_INACTIVE),
    ("driver nobody has vetted", ASKED, driver(vetted_until=None), Check.ID, Reason.VETTING_MISSING),
    ("vetting that ends in this second", ASKED, driver(vetted_until=NOW), Check.ID, Reason.VETTING_EXPIRED),
    ("another driver's stop", ASKED, stop(driver="driver:2"), Check.ROUTE, Reason.NOT_ON_ROUTE),
    ("yesterday's route", ASKED, stop(day=date(2026, 11, 25), shift_from=NOW - s(3600)), Check.ROUTE,
     Reason.ROUTE_NOT_TODAY),
    ("tomorrow's route", ASKED, stop(day=date(2026, 11, 27)), Check.ROUTE, Reason.ROUTE_NOT_TODAY),
    ("stop that is done", ASKED, stop(state=StopState.DONE), Check.ROUTE, Reason.STOP_DONE),
    ("stop that was cancelled", ASKED, stop(state=StopState.CANCELLED), Check.ROUTE, Reason.STOP_CANCELLED),
    ("door that the stop does not have", ASKED, stop(doors=((LOBBY, Opening.NOT_YET),)), Check.ROUTE,
     Reason.DOOR_NOT_AT_STOP),
    ("stop in another building", ASKED, stop(building="building:2"), Check.ROUTE, Reason.DOOR_NOT_AT_STOP),
    ("building that was removed", ASKED, door(building_removed=True), Check.ROUTE, Reason.BUILDING_REMOVED),
    *(
        (f"door {opening}", ASKED, stop(doors=((GATE, opening),)), Check.ROUTE, Reason.ALREADY_ASKED)
        for opening in Opening
        if opening is not Opening.NOT_YET
    ),
    *(
        (f"door before it {opening}", ASKED, stop(doors=((LOBBY, opening), (GATE, Opening.NOT_YET))), Check.ROUTE,
         Reason.EARLIER_DOOR_FIRST)
        for opening in (Opening.NOT_YET, Opening.UNDER_WAY, Opening.REFUSED)
    ),
    ("door that nobody measured", ASKED, door(position=None), Check.POSITION, Reason.DOOR_WITHOUT_POSITION),
    ("phone without a position", wish(fix=None), KNOWN, Check.POSITION, Reason.POSITION_MISSING),
    ("latitude beyond the pole", fix(lat=90.0001), KNOWN, Check.POSITION, Reason.POSITION_IMPOSSIBLE),
    ("latitude that is no number", fix(lat=math.nan), KNOWN, Check.POSITION, Reason.POSITION_IMPOSSIBLE),
    ("longitude beyond the date line", fix(lon=-180.0001), KNOWN, Check.POSITION, Reason.POSITION_IMPOSSIBLE),
    ("accuracy below zero", fix(accuracy=-0.1), KNOWN, Check.POSITION, Reason.POSITION_IMPOSSIBLE),
    ("accuracy that is no number", fix(accuracy=math.nan), KNOWN, Check.POSITION, Reason.POSITION_IMPOSSIBLE),
    ("accuracy without end", fix(accuracy=math.inf), KNOWN, Check.POSITION, Reason.POSITION_IMPOSSIBLE),
    ("76 m away", fix(lat=north(75.5)), KNOWN, Check.POSITION, Reason.TOO_FAR),
    ("a door of 20 m, 21 m away", fix(lat=north(20.5)), door(radius=20), Check.POSITION, Reason.TOO_FAR),
    ("accuracy of 51 m", fix(accuracy=50.5), KNOWN, Check.POSITION, Reason.POSITION_INACCURATE),
    ("fix of 31 s", fix(at=NOW - s(30.5)), KNOWN, Check.POSITION, Reason.POSITION_OLD),
    ("fix of in 6 s", fix(at=NOW + s(5.5)), KNOWN, Check.POSITION, Reason.POSITION_FROM_THE_FUTURE),
    ("701 m in 10 s", EXACT, before(701, 10), Check.POSITION, Reason.MOVED_TOO_FAST),
    ("701 m back in time", EXACT, before(701, -10), Check.POSITION, Reason.MOVED_TOO_FAST),
    ("two places at once", EXACT, before(1, 0), Check.POSITION, Reason.MOVED_TOO_FAST),
    ("request of 61 s", wish(asked_at=NOW - s(60.5)), KNOWN, Check.TIME, Reason.REQUEST_OLD),
    ("request of in 6 s", wish(asked_at=NOW + s(5.5)), KNOWN, Check.TIME, Reason.REQUEST_FROM_THE_FUTURE),
    ("a second before the shift", ASKED, stop(shift_from=NOW + s(1)), Check.TIME, Reason.OUTSIDE_SHIFT),
    ("the second after the shift", ASKED, stop(shift_to=NOW), Check.TIME, Reason.OUTSIDE_SHIFT),
    ("a second early", ASKED, stop(window_from=NOW + s(1)), Check.TIME, Reason.TOO_EARLY),
    ("the second after the window", ASKED, stop(window_to=NOW), Check.TIME, Reason.TOO_LATE),
]  # fmt: skip


@pytest.mark.parametrize("asked, known, check, reason", [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_each_confirmation_alone_decides(asked, known, check, reason):
    verdict = judge(asked, known, NOW)
    assert not verdict.passed
    assert [result.check for result in verdict.results if not result.passed] == [check]
    assert verdict.of(check).reason is verdict.reason is reason


GRANTED = [
    ("as it is", ASKED, KNOWN),
    ("vetting that ends in a second", ASKED, driver(vetted_until=NOW + s(1))),
    ("75 m away", fix(lat=north(74.9)), KNOWN),
    ("a door of 20 m, 20 m away", fix(lat=north(19.9)), door(radius=20)),
    ("a door of 200 m, 150 m away", fix(lat=north(150)), door(radius=200)),
    ("accuracy of 50 m", fix(accuracy=50.0), KNOWN),
    ("fix of 30 s", fix(at=NOW - s(30)), KNOWN),
    ("fix of in 5 s", fix(at=NOW + s(5)), KNOWN),
    ("699 m in 10 s", EXACT, before(699, 10)),
    ("800 m in 10 s, give or take 101 m", EXACT, before(800, 10, 101.0)),
    ("request of 60 s", wish(asked_at=NOW - s(60)), KNOWN),
    ("request of in 5 s", wish(asked_at=NOW + s(5)), KNOWN),
    ("the first second of the shift", ASKED, stop(shift_from=NOW)),
    ("the last second of the shift", ASKED, stop(shift_to=NOW + s(1))),
    ("the first second of the window", ASKED, stop(window_from=NOW)),
    ("the last second of the window", ASKED, stop(window_to=NOW + s(1))),
    ("the second door, behind one that opened", ASKED, stop(doors=((LOBBY, Opening.OPENED), (GATE, Opening.NOT_YET)))),
    ("behind one of which nobody knows", ASKED, stop(doors=((LOBBY, Opening.UNKNOWN), (GATE, Opening.NOT_YET)))),
]


@pytest.mark.parametrize("asked, known", [row[1:] for row in GRANTED], ids=[row[0] for row in GRANTED])
def test_what_is_just_within_every_limit_passes(asked, known):
    verdict = judge(asked, known, NOW)
    assert verdict.passed, verdict.reason
    assert verdict.reason is None
    assert [result.check for result in verdict.results] == list(Check)


def test_the_table_has_a_row_for_every_reason():
    """What is missing can only be together with another: without a stop there is no window, and no route."""
    assert set(Reason) - {row[4] for row in REFUSED} == {Reason.NO_WINDOW}


def test_a_night_shift_is_still_the_route_of_the_day_on_which_it_began():
    began = datetime(2026, 11, 25, 22, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    night = stop(day=date(2026, 11, 25), shift_from=began, shift_to=began + timedelta(hours=14))
    assert judge(ASKED, night, NOW).passed
    ended = stop(day=date(2026, 11, 25), shift_from=began, shift_to=NOW)
    assert judge(ASKED, ended, NOW).of(Check.ROUTE).reason is Reason.ROUTE_NOT_TODAY


def test_today_is_what_the_building_s_calendar_says():
    """23:30 UTC is the next day in Berlin already, and still the same in London."""
    late = datetime(2026, 11, 25, 23, 30, tzinfo=UTC)
    for zone, passes in (("Europe/Berlin", True), ("Europe/London", False)):
        known = stop(shift_from=late, shift_to=late + s(60))
        known = replace(known, door=replace(known.door, zone=ZoneInfo(zone)))
        assert judge(ASKED, known, late).of(Check.ROUTE).passed is passes


def test_a_stop_that_is_not_there_fails_on_route_and_time_and_the_others_are_judged_all_the_same():
    verdict = judge(ASKED, fact(stop=None), NOW)
    assert [result.reason for result in verdict.results] == [None, Reason.NOT_ON_ROUTE, None, Reason.NO_WINDOW]


def test_a_door_that_is_not_there_has_no_position_and_is_of_no_stop():
    verdict = judge(ASKED, fact(door=None), NOW)
    wanted = [None, Reason.DOOR_NOT_AT_STOP, Reason.DOOR_WITHOUT_POSITION, None]
    assert [result.reason for result in verdict.results] == wanted


def test_what_was_looked_up_has_to_be_what_was_asked_for():
    other = fact(stop=replace(STOP, id="stop:2"), door=replace(KNOWN.door, id=LOBBY))
    wanted = [None, Reason.NOT_ON_ROUTE, Reason.DOOR_WITHOUT_POSITION, Reason.NO_WINDOW]
    assert [result.reason for result in judge(ASKED, other, NOW).results] == wanted


def test_everything_wrong_at_once_is_told_at_once():
    nothing = Known(None, None, None, None, None)
    assert all(not result.passed for result in judge(ASKED, nothing, NOW).results)


def test_what_is_measured_is_rounded_against_the_driver_and_names_no_place():
    measured = judge(fix(lat=north(11.2), accuracy=7.1, at=NOW - s(2.1)), KNOWN, NOW).of(Check.POSITION).measured
    assert measured == {"d": 12, "acc": 8, "age": 3, "limit": 75}


def test_a_phone_that_is_a_little_ahead_is_not_younger_than_now():
    assert judge(fix(at=NOW + s(4)), KNOWN, NOW).of(Check.POSITION).measured["age"] == 0


def test_limits_are_the_carrier_s_to_set():
    strict = fact(limits=Limits(distance=10))
    assert judge(ASKED, strict, NOW).of(Check.POSITION).reason is Reason.TOO_FAR


places = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@given(places, places)
def test_a_distance_is_the_same_both_ways_and_never_more_than_half_the_earth(one, other):
    there, back = metres(*one, *other), metres(*other, *one)
    assert there == pytest.approx(back, abs=1e-3)
    assert 0 <= there <= 20_015_200
    assert metres(*one, *one) == 0


def test_a_distance_is_that_of_the_map():
    """Berlin to London, by the great circle."""
    assert metres(52.5200, 13.4050, 51.5074, -0.1278) == pytest.approx(931_500, rel=0.005)


@given(st.floats(-89, 89), st.floats(-180, 180), st.floats(0, 300), st.floats(0, 100), st.floats(-20, 60))
def test_a_position_passes_if_and_only_if_it_is_near_exact_and_fresh(lat, lon, off, accuracy, age):
    assume(abs(lat + off * ONE_METRE) < 90)
    known = door(position=(lat, lon))
    asked = fix(lat=lat + off * ONE_METRE, lon=lon, accuracy=accuracy, at=NOW - s(age))
    result = judge(asked, known, NOW).of(Check.POSITION)
    d = result.measured["d"]
    assert abs(d - off) <= 2
    age = (NOW - asked.fix.at).total_seconds()  # datetimes have microseconds
    assert result.passed == (d <= 75 and math.ceil(accuracy) <= 50 and age >= -5 and math.ceil(age) <= 30)


@given(st.sets(st.sampled_from(range(len(REFUSED))), min_size=1, max_size=3))
def test_no_failure_is_made_good_by_another(rows):
    """Of several rows of the table together, each confirmation that one of them fails, fails."""
    chosen = [REFUSED[row] for row in rows]
    asked, known = ASKED, KNOWN
    for _, changed, facts, _, _ in chosen:
        for name in ("assertion", "fix", "asked_at"):
            if getattr(changed, name) != getattr(ASKED, name):
                asked = replace(asked, **{name: getattr(changed, name)})
        for name in ("driver", "device", "stop", "door", "previous"):
            if getattr(facts, name) != getattr(KNOWN, name):
                known = replace(known, **{name: getattr(facts, name)})
    assert not judge(asked, known, NOW).passed
