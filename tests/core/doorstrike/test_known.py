"""What a client knows of its strike: events and their times, the state after them, and what is kept."""

import json
from dataclasses import replace

import pytest

from vestibule_core.doorstrike.client import Paired
from vestibule_core.doorstrike.kept import Kept
from vestibule_core.doorstrike.known import MOST_SENT, REFRESH_AFTER, Known
from vestibule_core.doorstrike.news import WRAP, after, timed
from vestibule_core.doorstrike.wire import (
    Advertisement,
    Caps,
    Contact,
    Event,
    EventKind,
    Flags,
    Op,
    Relay,
    Result,
    SpendState,
    State,
    Violation,
)
from vestibule_core.model import Now, Sense, Sensor

KEPT = Kept(Paired(bytes(range(8)), 3, b"\x5a" * 32), Caps.CONTACT, 10)
STATE = State(Result.OK, Relay.LOCKED, Contact.CLOSED, False, True, SpendState.UNSEEN, 0, None, 10, bytes(16))
NOON = 1_800_000_000.0


def opened(seq, uptime=1.0):
    return Event(seq, int(uptime * 1000), EventKind.OPENED)


def boot(seq):
    return Event(seq, 0, EventKind.BOOT)


def nothing(event):
    return None


# ---- times ----


def times(events, booted=None, *, follows=None, known=nothing, now=NOON, up_since=None):
    found, booted = timed(events, booted, follows=follows, known=known, now=now, up_since=up_since)
    return [one.at and round(one.at - NOON, 3) for one in found], booted and round(booted - NOON, 3)


def test_no_event_has_a_time_before_one_was_heard_while_it_happened():
    assert times([opened(11), opened(12)], follows=10) == ([None, None], None)


def test_an_event_of_a_known_power_up_has_its_own_time():
    assert times([opened(11, 20), opened(12, 30)], NOON - 100, follows=10) == ([-80, -70], -100)


def test_one_heard_while_it_happened_gives_those_before_it_their_times():
    known = {12: NOON}
    assert times([opened(11, 20), opened(12, 30)], follows=10, known=lambda e: known.get(e.seq)) == ([-10, 0], -30)


def test_the_strikes_word_how_long_it_has_been_up_gives_the_last_power_ups_events_their_times():
    events = [opened(11, 20), boot(12), opened(13, 5)]
    assert times(events, follows=10, up_since=NOON - 50) == ([None, -50, -45], -50)
    hole = [opened(11, 20), opened(13, 30)]
    assert times(hole, follows=10, up_since=NOON - 50) == ([None, -20], -50), "a power-up may have been forgotten"


def test_a_power_up_begins_a_time_that_is_not_known():
    events = [opened(11, 20), boot(12), opened(13, 5)]
    assert times(events, NOON - 100, follows=10) == ([-80, None, None], None)
    assert times(events, NOON - 100, follows=10, known=lambda e: NOON if e.seq == 13 else None) == ([-80, -5, 0], -5)


def test_a_hole_in_the_numbers_may_hide_a_power_up():
    assert times([opened(12)], NOON - 100, follows=10) == ([None], None)
    assert times([opened(11, 20), opened(13, 30)], NOON - 100, follows=10) == ([-80, None], None)


def test_an_uptime_that_started_over_after_49_days():
    assert times([opened(11, 60)], NOON - WRAP - 100, follows=10)[0] == [-40]
    # The power-up as it seems from an event after the wrap, and an event before it.
    assert times([opened(11, WRAP - 30)], NOON - 100, follows=10)[0] == [-130]


def test_no_event_is_in_the_future():
    assert times([opened(11, 101)], NOON - 100, follows=10)[0] == [0]


# ---- the state after an event ----


@pytest.mark.parametrize(
    "kind, value, changes",
    [
        (EventKind.RELAY_ON, 0, {"relay": Relay.PULSING}),
        (EventKind.RELAY_OFF, 0, {"relay": Relay.LOCKED}),
        (EventKind.OPENED, 0, {"contact": Contact.OPEN}),
        (EventKind.FORCED_OPEN, 0, {"contact": Contact.OPEN}),
        (EventKind.HELD_OPEN, 0, {"contact": Contact.OPEN}),
        (EventKind.CLOSED, 0, {"contact": Contact.CLOSED}),
        (EventKind.TAMPER, 0, {"tampered": True}),
        (EventKind.TAMPER_CLEARED, 0, {"tampered": False}),
        (EventKind.LOW_BATTERY, 9, {"battery": 9}),
        (EventKind.LOW_BATTERY, 255, {"battery": None}),
        (EventKind.REX, 0, {}),
        (99, 0, {}),
    ],
)
def test_what_an_event_changes(kind, value, changes):
    before = replace(STATE, relay=Relay.HELD, contact=Contact.UNKNOWN, tampered=kind != EventKind.TAMPER, battery=50)
    assert after(before, Event(11, 0, kind, value)) == replace(before, evt_seq=11, **changes)


def test_an_event_that_the_state_knows_of_changes_nothing():
    assert after(STATE, opened(10)) is STATE


# ---- what is known ----


@pytest.fixture
def remembered():
    return []


@pytest.fixture
def known(remembered):
    return Known(KEPT, remembered.append)


def test_nothing_is_known_before_the_strike_has_said_something(known):
    assert (known.reading, known.sense(Sensor.CONTACT), known.is_old(0)) == ("unknown", Sense.UNKNOWN, True)
    known.told(opened(11), Now(NOON, 1))
    assert known.state is None


def test_what_is_heard_out_of_turn_waits_and_keeps_its_time(known, remembered):
    assert known.told(opened(12, 30), Now(NOON, 1)) == []
    assert known.fetch_from() == 11
    told = known.fetched((opened(11, 20), opened(12, 30)), Now(NOON + 50, 51))
    assert [one.at for one in told] == [NOON - 10, NOON]
    assert known.fetched((opened(11, 20), opened(12, 30)), Now(NOON + 50, 51)) == []
    assert [kept.heard for kept in remembered] == [12], "before they were handed out, once"
    assert known.since(11) == [opened(12, 30)]


def test_its_word_how_long_it_has_been_up_counts_only_if_nothing_newer_is_missing(known):
    known.newest = 13
    assert [one.at for one in known.fetched((opened(11, 20),), Now(NOON, 1), NOON - 30)] == [None]
    assert [one.at for one in known.fetched((opened(12, 21), opened(13, 30)), Now(NOON + 4, 5), NOON - 30)] == [
        NOON - 9,
        NOON,
    ]


def test_our_own_spend_tells_the_time(known):
    spend = b"s" * 16
    known.sent(spend, Now(NOON, 1))
    events = (opened(11, 20), Event(12, 30_000, EventKind.RELAY_ON, 0, spend))
    assert [one.at for one in known.fetched(events, Now(NOON + 50, 51))] == [NOON - 10, NOON]


def test_what_the_strike_does_not_give_is_not_asked_for_again(known, remembered):
    known.answered(Op.QUERY, replace(STATE, evt_seq=15), Now(NOON, 1))
    assert known.fetch_from() == 11
    known.nothing_to_fetch()
    assert known.fetch_from() is None
    assert remembered[-1].heard == 15


def test_spends_are_remembered_for_a_while(known):
    for number in range(MOST_SENT + 1):
        known.sent(number.to_bytes(16), Now(NOON, 1))
    assert not known.was_sent(bytes(16))
    assert known.was_sent((1).to_bytes(16))


@pytest.mark.parametrize("used", ["old", "new"])
@pytest.mark.parametrize("drop", [False, True])
def test_a_new_key_takes_the_place_of_the_old_one_when_it_is_proved(known, used, drop):
    known.keep(next_psk=b"\xa5" * 32)
    paired = replace(KEPT.paired, psk=b"\xa5" * 32) if used == "new" else KEPT.paired
    known.proved(paired, Caps.CONTACT, drop_next=drop)
    assert known.kept.paired == paired
    assert known.kept.next_psk == (b"\xa5" * 32 if used == "old" and not drop else None)


def test_row_59_two_reasons_for_a_poll_are_not_two_polls_in_five_seconds(known):
    news = Advertisement(1, Flags.ATTENTION, 11, KEPT.paired.strike_id[:6])
    assert known.is_worth_a_poll(news, 0)
    known.answered(Op.QUERY, replace(STATE, evt_seq=11), Now(NOON, 1))
    known.polled(refresh=True, found=True, now=1)
    assert not known.is_worth_a_poll(news, 5.9)
    assert known.is_worth_a_poll(news, 6)


def test_false_news_do_not_keep_what_is_old_from_being_asked_for(known):
    news = Advertisement(1, Flags.ATTENTION, 11, KEPT.paired.strike_id[:6])
    known.answered(Op.QUERY, STATE, Now(NOON, 0))
    now = 0.0
    for _ in range(10):
        known.polled(refresh=False, found=False, now=now)
        now += 11
    assert not known.is_worth_a_poll(news, now)
    assert known.is_worth_a_poll(replace(news, flags=Flags(0), evt_seq=10), REFRESH_AFTER)


# ---- what is kept ----


@pytest.mark.parametrize("kept", [KEPT, replace(KEPT, booted=NOON, next_psk=b"\xa5" * 32)])
def test_what_is_kept_survives_json(kept):
    assert Kept.from_json(json.loads(json.dumps(kept.to_json()))) == kept


def test_keys_are_not_shown():
    shown = repr(replace(KEPT, next_psk=b"\xa5" * 32))
    assert "psk" not in shown
    assert "Z" * 8 not in shown


@pytest.mark.parametrize(
    "change",
    [
        {"slot": 0},
        {"slot": 256},
        {"version": 0},
        {"caps": -1},
        {"heard": -1},
        {"psk": "00"},
        {"psk": None},
        {"strike_id": "zz"},
        {"next_psk": "00"},
        {"booted": "noon"},
    ],
)
def test_what_is_kept_and_cannot_be_is_refused(change):
    with pytest.raises((Violation, ValueError, TypeError)):
        Kept.from_json({**KEPT.to_json(), **change})


def test_what_was_kept_without_the_newer_fields_can_be_read():
    kept = KEPT.to_json()
    del kept["booted"], kept["next_psk"]
    assert Kept.from_json(kept) == KEPT
