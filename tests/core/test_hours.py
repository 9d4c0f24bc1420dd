"""Weekly hours, by the clock on the building's wall: rows, midnight, both changes of the clocks, other zones."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core.hours import NEVER, Day, Hours, common, is_open, is_within

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
"""Its clocks go by half an hour."""
MON, TUE, WED, THU, FRI, SAT, SUN = Day
WEEKDAYS, EVERY_DAY = frozenset({MON, TUE, WED, THU, FRI}), frozenset(Day)


def row(days, begins, ends):
    return Hours(frozenset(days), time.fromisoformat(begins), time.fromisoformat(ends))


def at(text, zone=BERLIN, *, second=False):
    """Return the instant at which the clock on the wall shows ``text``; the ``second`` time, if it comes twice."""
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=int(second)).timestamp()


# 2026-11-23 is a Monday.
ROWS = [
    # hours, wall clock, open, sentence
    ((), "2026-11-23T03:00", True, "no row at all means always"),
    ((row(WEEKDAYS, "07:00", "18:00"),), "2026-11-23T07:00", True, "it begins with its first moment"),
    ((row(WEEKDAYS, "07:00", "18:00"),), "2026-11-23T06:59:59.999", False, "and not before"),
    ((row(WEEKDAYS, "07:00", "18:00"),), "2026-11-23T17:59:59.999", True, "it lasts to the last moment"),
    ((row(WEEKDAYS, "07:00", "18:00"),), "2026-11-23T18:00", False, "and no longer"),
    ((row(WEEKDAYS, "07:00", "18:00"),), "2026-11-28T12:00", False, "not on a Saturday"),
    ((row(WEEKDAYS, "07:00", "18:00"), row({SAT}, "09:00", "12:00")), "2026-11-28T09:30", True, "rows add up"),
    ((row({MON}, "07:00", "09:00"), row({MON}, "08:00", "10:00")), "2026-11-23T09:30", True, "also where they overlap"),
    ((row(set(), "00:00", "00:00"),), "2026-11-23T12:00", False, "a row without days is never, and not always"),
    ((row({MON}, "22:00", "02:00"),), "2026-11-23T23:00", True, "a row over midnight begins on its day"),
    ((row({MON}, "22:00", "02:00"),), "2026-11-24T01:59", True, "and ends on the day after"),
    ((row({MON}, "22:00", "02:00"),), "2026-11-24T02:00", False, "with its last moment outside"),
    ((row({MON}, "22:00", "02:00"),), "2026-11-23T01:00", False, "the morning before belongs to Sunday's"),
    ((row({SUN}, "22:00", "02:00"),), "2026-11-23T01:00", True, "also over the end of the week"),
    ((row({MON}, "22:00", "00:00"),), "2026-11-23T23:59:59", True, "to midnight is to the end of the day"),
    ((row({MON}, "22:00", "00:00"),), "2026-11-24T00:00", False, "and not a moment of the next"),
    ((row({MON}, "00:00", "00:00"),), "2026-11-23T00:00", True, "the same time is a whole day later"),
    ((row({MON}, "00:00", "00:00"),), "2026-11-23T23:59:59", True, "a whole day"),
    ((row({MON}, "00:00", "00:00"),), "2026-11-24T00:00", False, "and no more"),
    ((row({MON}, "07:00", "07:00"),), "2026-11-24T06:59", True, "a whole day from seven to seven"),
    ((row({MON}, "07:00", "07:00"),), "2026-11-23T06:59", False, "not before its seven"),
    ((row({MON}, "07:00", "07:00"),), "2026-11-24T07:00", False, "not after its other seven"),
    ((row(EVERY_DAY, "00:00", "00:00"),), "2026-11-25T04:00", True, "every day, all day"),
    ((row(EVERY_DAY, "07:00", "07:01"),), "2026-11-25T07:01", False, "a minute is a minute"),
]  # fmt: skip


@pytest.mark.parametrize("hours, shown, inside, sentence", ROWS, ids=[each[-1] for each in ROWS])
@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, UTC], ids=str)
def test_rows(zone, hours, shown, inside, sentence):
    assert is_open(hours, at(shown, zone), zone) is inside


# Berlin: 29 March 2026, 02:00 -> 03:00; 25 October 2026, 03:00 -> 02:00. New York: 8 March 2026; 1 November 2026.
CHANGES = [
    # zone, hours, instant, open, sentence
    (BERLIN, row({SUN}, "02:00", "03:00"), at("2026-03-29T01:59:59"), False, "the hour that is left out has not begun"),
    (BERLIN, row({SUN}, "02:00", "03:00"), at("2026-03-29T01:59:59") + 1, False, "it never comes"),
    (BERLIN, row({SUN}, "02:30", "04:00"), at("2026-03-29T03:00"), True, "who may come in it comes when it is over"),
    (BERLIN, row({SUN}, "01:00", "02:30"), at("2026-03-29T01:59:59") + 1, False, "what ends in it ends there"),
    (BERLIN, row({SUN}, "01:00", "02:30"), at("2026-03-29T01:59:59"), True, "and not a second before"),
    (BERLIN, row({SAT}, "22:00", "02:30"), at("2026-03-29T03:00"), False, "also over midnight"),
    (BERLIN, row({SUN}, "02:00", "03:00"), at("2026-10-25T02:30"), True, "the hour that comes twice counts once"),
    (BERLIN, row({SUN}, "02:00", "03:00"), at("2026-10-25T02:30", second=True), True, "and once more"),
    (BERLIN, row({SUN}, "01:00", "02:30"), at("2026-10-25T02:29"), True, "what ends in it ends"),
    (BERLIN, row({SUN}, "01:00", "02:30"), at("2026-10-25T02:31"), False, "as the clock says"),
    (BERLIN, row({SUN}, "01:00", "02:30"), at("2026-10-25T02:29", second=True), True, "and begins again, as it says"),
    (BERLIN, row({SUN}, "01:00", "02:30"), at("2026-10-25T02:31", second=True), False, "until it is over for good"),
    (BERLIN, row({SAT}, "22:00", "02:30"), at("2026-10-25T02:15", second=True), True, "also over midnight"),
    (BERLIN, row({SUN}, "03:00", "04:00"), at("2026-10-25T02:59:59", second=True) + 1, True, "then it is three"),
    (NEW_YORK, row({SUN}, "02:00", "03:00"), at("2026-03-08T01:59:59", NEW_YORK) + 1, False, "it never comes either"),
    (NEW_YORK, row({SUN}, "02:30", "04:00"), at("2026-03-08T03:00", NEW_YORK), True, "three follows on two"),
    (NEW_YORK, row({SUN}, "01:00", "02:00"), at("2026-11-01T01:30", NEW_YORK), True, "there it is the hour from one"),
    (NEW_YORK, row({SUN}, "01:00", "02:00"), at("2026-11-01T01:30", NEW_YORK, second=True), True, "that comes twice"),
    (NEW_YORK, row({SUN}, "02:00", "03:00"), at("2026-11-01T01:59:59", NEW_YORK, second=True) + 1, True, "then two"),
    (LORD_HOWE, row({SUN}, "01:30", "02:00"), at("2026-04-05T01:45", LORD_HOWE, second=True), True, "half an hour too"),
]  # fmt: skip


@pytest.mark.parametrize("zone, hours, instant, inside, sentence", CHANGES)
def test_both_changes_of_the_clocks(zone, hours, instant, inside, sentence):
    assert is_open((hours,), instant, zone) is inside


def test_a_whole_day_lasts_23_or_25_hours_when_the_clocks_change():
    whole_day = (row({SUN}, "00:00", "00:00"),)
    for day, length in (("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-18", 24)):
        begins = at(f"{day}T00:00")
        assert sum(is_open(whole_day, begins - 3600 + 60 * minute, BERLIN) for minute in range(27 * 60)) == length * 60


def test_the_same_instant_in_another_zone_is_another_time():
    """The manager moves the building, or corrects Home Assistant's time zone."""
    mornings = (row(WEEKDAYS, "07:00", "12:00"),)
    eight_in_berlin = at("2026-11-23T08:00")
    assert is_open(mornings, eight_in_berlin, BERLIN)
    assert not is_open(mornings, eight_in_berlin, NEW_YORK)  # 02:00
    assert not is_open(mornings, at("2026-11-23T03:00", NEW_YORK), NEW_YORK)
    assert not is_open(mornings, at("2026-11-20T20:00", NEW_YORK), BERLIN), "Saturday over there, Friday here"


# ---- against another computation ----


def shown_on_the_wall(instant, zone):
    """Return (weekday, minute of the day) without asking for local time: by counting from the zone's offset."""
    utc = datetime.fromtimestamp(instant, UTC)
    local = utc + utc.astimezone(zone).utcoffset()
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    days_since_a_monday = (midnight - datetime(2024, 1, 1, tzinfo=UTC)).days
    return days_since_a_monday % 7, int((local - midnight) / timedelta(minutes=1))


def minutes_of_the_week(hours):
    """Return the minutes of a week (Monday 00:00 is 0) that are inside."""
    inside = set()
    for each in hours:
        begins, ends = (60 * edge.hour + edge.minute for edge in (each.begins, each.ends))
        length = (ends - begins) % 1440 or 1440
        for day in each.days:
            first = 1440 * list(Day).index(day) + begins
            inside |= {minute % 10080 for minute in range(first, first + length)}
    return inside


MINUTES = st.builds(time, st.integers(0, 23), st.integers(0, 59))
SOME_HOURS = st.lists(st.builds(Hours, st.frozensets(st.sampled_from(Day)), MINUTES, MINUTES), min_size=1, max_size=3)
YEARS = st.integers(1_700_000_000, 1_900_000_000)
NEAR_A_CHANGE = st.builds(
    lambda change, minutes: change + 60 * minutes,
    st.sampled_from([at("2026-03-29T01:59"), at("2026-10-25T02:30"), at("2026-11-01T01:30", NEW_YORK)]),
    st.integers(-1500, 1500),
)


@given(SOME_HOURS, YEARS | NEAR_A_CHANGE, st.sampled_from([BERLIN, NEW_YORK, UTC, LORD_HOWE]))
def test_any_rows_at_any_instant_agree_with_counting_minutes(hours, instant, zone):
    weekday, minute = shown_on_the_wall(instant, zone)
    inside = 1440 * weekday + minute in minutes_of_the_week(hours)
    assert is_open(tuple(hours), instant, zone) is inside


# ---- two tables of hours ----

SOME_OR_NO_HOURS = SOME_HOURS.map(tuple) | st.just(())
EVERY_MINUTE = set(range(7 * 24 * 60))


def minutes_of(hours):
    return minutes_of_the_week(hours) if hours else EVERY_MINUTE


BOTH = [
    # one, other, what they have in common, sentence
    ((), (), (), "always and always"),
    ((), (row({MON}, "07:00", "12:00"),), (row({MON}, "07:00", "12:00"),), "always and a morning"),
    ((row({MON, TUE}, "07:00", "12:00"),), (row({TUE, WED}, "10:00", "14:00"),), (row({TUE}, "10:00", "12:00"),),
     "two days and two days"),
    ((row({MON}, "22:00", "06:00"),), (row({TUE}, "05:00", "07:00"),), (row({TUE}, "05:00", "06:00"),),
     "the end of a night"),
    ((row({SUN}, "22:00", "06:00"),), (row({MON}, "05:00", "07:00"),), (row({MON}, "05:00", "06:00"),),
     "over the end of the week"),
    ((row({MON}, "07:00", "08:00"),), (row({MON}, "08:00", "09:00"),), NEVER, "one ends where the other begins"),
    ((row(set(), "07:00", "08:00"),), (), (row(set(), "07:00", "08:00"),), "never and always"),
    (NEVER, (row({MON}, "08:00", "09:00"),), NEVER, "never and a morning"),
    ((row(EVERY_DAY, "00:00", "00:00"),), (row({MON}, "22:00", "22:00"),),
     (row({MON}, "22:00", "22:00"),), "a whole day from ten to ten"),
    ((row(EVERY_DAY, "07:00", "12:00"),), (row(WEEKDAYS, "07:00", "12:00"),), (row(WEEKDAYS, "07:00", "12:00"),),
     "the days of a row stay in a row"),
    ((row({MON}, "07:00:30", "12:00"),), (row({MON}, "07:00", "11:59:59.5"),), (row({MON}, "07:00:30", "11:59:59.5"),),
     "to the fraction of a second"),
]  # fmt: skip


@pytest.mark.parametrize("one, other, both, sentence", BOTH, ids=[each[-1] for each in BOTH])
def test_what_two_tables_have_in_common(one, other, both, sentence):
    assert common(one, other) == both
    assert common(other, one) == both


@given(SOME_OR_NO_HOURS, SOME_OR_NO_HOURS)
def test_any_two_tables_have_in_common_what_counting_minutes_says(one, other):
    assert minutes_of(common(one, other)) == minutes_of(one) & minutes_of(other)


@given(SOME_OR_NO_HOURS, SOME_OR_NO_HOURS)
def test_any_table_is_within_another_as_counting_minutes_says(inner, outer):
    assert is_within(inner, outer) is (minutes_of(inner) <= minutes_of(outer))


@given(SOME_OR_NO_HOURS, SOME_OR_NO_HOURS)
def test_what_two_tables_have_in_common_is_within_both(one, other):
    both = common(one, other)
    assert is_within(both, one)
    assert is_within(both, other)


def test_never_is_not_always():
    assert not is_within((), NEVER)
    assert is_within(NEVER, NEVER)
    assert not is_open(NEVER, at("2026-11-23T12:00"), BERLIN)
