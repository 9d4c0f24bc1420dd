"""Every transition of a door. The tables are the specification: one sentence per row."""

from dataclasses import replace
from itertools import chain
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule_core import door
from vestibule_core.door import (
    GRACE,
    ON_ITS_WAY,
    REX_TIME,
    SECURE_AGAIN,
    Alarm,
    DeliveriesChosen,
    DoorState,
    Effect,
    Elapsed,
    Grant,
    LeftOpen,
    Lock,
    LockdownBegun,
    LockdownLifted,
    ModeChosen,
    NotReleased,
    NotSecured,
    Observed,
    Opener,
    Passage,
    PersonForgotten,
    Record,
    Released,
    Secured,
    Sensed,
    SetUpChanged,
    StrikeReplaced,
    TamperCleared,
    Timing,
    Unresolved,
    advance,
)
from vestibule_core.model import DoorMode, EventName, RelockOn, Sense, Sensor
from vestibule_core.strike import Capabilities, Reading

NOW = 1000.0
ACCESS = 5.0
OVER = NOW + ACCESS
PAST, FUTURE = NOW - 1, NOW + 1
HELD, WARNED = 30.0, 10.0
"""Seconds until an open door is held open, and of warning before."""

LOCKED, ACCESSED, UNKNOWN = Lock
NORMAL, UNLOCKED, BLOCKED, LOCKED_DOWN = DoorMode
INACTIVE, ACTIVE, NO_WORD, FAULT = Sense
CONTACT, REX, TAMPER, MONITOR = Sensor
RELEASE, HOLD, SECURE, OBSERVE = Effect
S = DoorState
ANN, BOB, PARCELS = Opener("Ann", "ann-1"), Opener("Bob", "bob-2"), Opener("Parcels")


def strike(**can):
    return Timing(ACCESS, Capabilities(**can))


DEVICE = strike(device_timed=True, feedback=True)
BLIND_DEVICE = strike(device_timed=True, feedback=False)
OURS = strike(device_timed=False, feedback=True, can_hold=True)
BLIND_OURS = strike(device_timed=False, feedback=False, can_hold=True)
DEVICE_THAT_HOLDS = strike(device_timed=True, feedback=True, can_hold=True)
BUTTON = strike(device_timed=True, feedback=False, can_secure=False)
"""Can be told to release, and nothing else."""
TIMINGS = [DEVICE, BLIND_DEVICE, OURS, BLIND_OURS, DEVICE_THAT_HOLDS, BUTTON]

WATCHED = replace(OURS, sensors=frozenset(Sensor), held_open_time=HELD, pre_alarm_time=WARNED)
"""Everything that a door can have."""
WITH_CONTACT = replace(WATCHED, sensors=frozenset({CONTACT}))
UNTIMED = replace(WATCHED, held_open_time=None, pre_alarm_time=0.0)
"""Nobody minds how long it is open."""
CLOSED = {"contact": INACTIVE, "rex": INACTIVE, "tamper": INACTIVE, "lock_monitor": INACTIVE}
OPEN = CLOSED | {"contact": ACTIVE}


def told(name, *, of_access=False):
    return Record(EventName(name), of_access)


RELOCKED = told("door_relocked", of_access=True)
TAKEN = told("access_taken", of_access=True)
NOT_TAKEN = told("access_not_taken", of_access=True)
ELSEWHERE = told("relay_operated_elsewhere")
BACK_TO_NORMAL = told("door_normal")
OPENED, FORCED = told("door_opened"), told("door_forced_open")
SHUT = told("door_closed")
HELD_OPEN, WARNING = told("door_held_open"), told("door_held_open_warning")
TAMPERED = told("door_tampered")


def specified_by(table):
    return pytest.mark.parametrize(
        "timing, state, event, after, effects, sentence", table, ids=[row[-1] for row in table]
    )


def check(timing, state, event, after, effects):
    assert advance(state, event, NOW, timing) == (after, tuple(effects))


# ---- every pair of a mode and an input ------------------------------------------------------------------------------

AT_REST = {
    NORMAL: S(LOCKED, **CLOSED),
    UNLOCKED: S(ACCESSED, mode=UNLOCKED, securing=True, released=True, by=ANN, **CLOSED),
    BLOCKED: S(LOCKED, mode=BLOCKED, **CLOSED),
    LOCKED_DOWN: S(LOCKED, mode=LOCKED_DOWN, **CLOSED),
}
"""Each mode with nothing under way; held open is ours to end."""


class Does:
    """What changes in a state, and the effects."""

    def __init__(self, *effects, **changes):
        self.effects, self.changes = effects, changes


NOTHING = Does()
TOO_LONG_AT = NOW + HELD - WARNED


def same(outcome):
    """The same in every mode."""
    return (outcome, outcome, outcome, outcome)


FORCED_NOW = Does(FORCED, contact=ACTIVE, alarm=Alarm.FORCED_OPEN, open_too_long_at=TOO_LONG_AT)
LEFT_OPEN = Does(SECURE, securing=True, released=True)
BY_A_KEY = Does(ELSEWHERE, lock=ACCESSED)
HOLDS = Does(HOLD, mode=UNLOCKED, releasing=True, told_at=NOW, granted_to=BOB)

PAIRS = [
    # input, (what it does in: normal, unlocked, blocked, locked down), sentence
    (Grant(BOB), (Does(RELEASE, releasing=True, told_at=NOW, granted_to=BOB), Does(by=BOB), NOTHING, NOTHING),
     "a grant releases a normal door, finds an unlocked one open, and moves nothing at one that is shut"),
    (Released(), same(NOTHING), "nobody told the strike to release"),
    (NotReleased(), same(NOTHING), "nobody told the strike to release"),
    (Unresolved(), same(NOTHING), "nobody told the strike to release"),
    (Secured(Reading.SECURED), same(NOTHING), "nobody told the strike to go back"),
    (Secured(Reading.RELEASED), same(NOTHING), "nobody told the strike to go back"),
    (Secured(Reading.UNKNOWN), same(NOTHING), "nobody told the strike to go back"),
    (NotSecured(), same(NOTHING), "nobody told the strike to go back"),
    (Observed(Reading.SECURED),
     (NOTHING, Does(ELSEWHERE, BACK_TO_NORMAL, RELOCKED, SECURE, lock=LOCKED, mode=NORMAL, released=False),
      NOTHING, NOTHING),
     "what something else puts back is not held open any more, and we do not fight for it"),
    (Observed(Reading.RELEASED), (BY_A_KEY, NOTHING, BY_A_KEY, BY_A_KEY),
     "what something else releases is told of and let be, in every mode"),
    (Observed(Reading.UNKNOWN), same(Does(lock=UNKNOWN)), "a strike that stops telling is neither locked nor released"),
    (LeftOpen(), (LEFT_OPEN, NOTHING, LEFT_OPEN, LEFT_OPEN),
     "a release of before a crash is ended at start, in whatever mode the door begins; none begins held open"),
    (Elapsed(), same(NOTHING), "nothing is due"),
    (ModeChosen(NORMAL, BOB), (NOTHING, Does(SECURE, mode=NORMAL), Does(mode=NORMAL), NOTHING),
     "normal ends a hold and a block, and no lockdown"),
    (ModeChosen(UNLOCKED, BOB), (HOLDS, NOTHING, NOTHING, NOTHING),
     "unlocked holds a normal door, no blocked one in the same step, and none in a lockdown"),
    (ModeChosen(BLOCKED, BOB), (Does(mode=BLOCKED), Does(SECURE, mode=BLOCKED), NOTHING, NOTHING),
     "blocked ends what is held open; a lockdown takes no other mode"),
    (ModeChosen(LOCKED_DOWN, BOB), same(NOTHING), "a lockdown is the building's and cannot be chosen for one door"),
    (LockdownBegun(),
     (Does(mode=LOCKED_DOWN), Does(SECURE, mode=LOCKED_DOWN), Does(mode=LOCKED_DOWN, after_lockdown=BLOCKED), NOTHING),
     "a lockdown shuts every door, and remembers those that were blocked"),
    (LockdownLifted(), (NOTHING, NOTHING, NOTHING, Does(mode=NORMAL)), "what is not locked down has nothing to lift"),
    (DeliveriesChosen(True), same(NOTHING), "it takes deliveries already"),
    (DeliveriesChosen(False), same(Does(accepts_deliveries=False)), "deliveries are another matter than modes"),
    (TamperCleared(), same(NOTHING), "nobody has opened the enclosure"),
    (PersonForgotten("ann-1"), (NOTHING, Does(by=None), NOTHING, NOTHING),
     "who held the door open is not named any more; it stays open"),
    (StrikeReplaced(),
     (Does(lock=UNKNOWN), Does(BACK_TO_NORMAL, lock=UNKNOWN, mode=NORMAL, securing=False, released=False),
      Does(lock=UNKNOWN), Does(lock=UNKNOWN)),
     "of a new strike nothing is known, and it holds nothing open; what is shut stays shut"),
    (SetUpChanged(), same(NOTHING), "the same sensors and nothing open"),
    (Sensed(CONTACT, INACTIVE), same(NOTHING), "it was closed before"),
    (Sensed(CONTACT, ACTIVE), (FORCED_NOW, Does(OPENED, contact=ACTIVE), FORCED_NOW, FORCED_NOW),
     "an opening without an access is forced, except where the door is held open"),
    (Sensed(CONTACT, NO_WORD), same(Does(contact=NO_WORD)), "a contact that says nothing"),
    (Sensed(CONTACT, FAULT), same(Does(contact=FAULT)), "a contact that is out of order"),
    (Sensed(REX, INACTIVE), same(NOTHING), "nobody wants out"),
    (Sensed(REX, ACTIVE), same(Does(rex=ACTIVE)), "who wants out is noted; no strike is told: egress is mechanical"),
    (Sensed(REX, NO_WORD), same(Does(rex=NO_WORD)), "a request to exit that says nothing"),
    (Sensed(REX, FAULT), same(Does(rex=FAULT)), "a request to exit that is out of order"),
    (Sensed(TAMPER, INACTIVE), same(NOTHING), "the enclosure is closed"),
    (Sensed(TAMPER, ACTIVE), same(Does(TAMPERED, tamper=ACTIVE, tampered=True)),
     "an opened enclosure is told of, whatever the mode"),
    (Sensed(TAMPER, NO_WORD), same(Does(tamper=NO_WORD)), "a tamper switch that says nothing"),
    (Sensed(TAMPER, FAULT), same(Does(tamper=FAULT)), "a tamper switch that is out of order"),
    (Sensed(MONITOR, INACTIVE), same(NOTHING), "the bolt is home"),
    (Sensed(MONITOR, ACTIVE), same(Does(lock_monitor=ACTIVE)), "the bolt is not home"),
    (Sensed(MONITOR, NO_WORD), same(Does(lock_monitor=NO_WORD)), "a lock monitor that says nothing"),
    (Sensed(MONITOR, FAULT), same(Does(lock_monitor=FAULT)), "a lock monitor that is out of order"),
]  # fmt: skip


@pytest.mark.parametrize("event, outcomes, sentence", PAIRS, ids=[str(row[0]) for row in PAIRS])
@pytest.mark.parametrize("mode", DoorMode)
def test_every_mode_and_every_input(mode, event, outcomes, sentence):
    outcome, state = outcomes[list(DoorMode).index(mode)], AT_REST[mode]
    check(WATCHED, state, event, replace(state, **outcome.changes), outcome.effects)


def test_no_pair_has_been_forgotten():
    """Every class of input, and every value that one of its fields can have."""
    values = {Reading: Reading, DoorMode: DoorMode, bool: (True, False)}
    written = {type(row[0]) for row in PAIRS}
    assert written == set(get_args(door.Input.__value__))
    events = {row[0] for row in PAIRS}
    assert len(events) == len(PAIRS)
    assert events == {
        Grant(BOB), Released(), NotReleased(), Unresolved(), NotSecured(), LeftOpen(), Elapsed(), LockdownBegun(),
        LockdownLifted(), TamperCleared(), StrikeReplaced(), SetUpChanged(),
        PersonForgotten("ann-1"),
        *(Secured(reading) for reading in values[Reading]),
        *(Observed(reading) for reading in values[Reading]),
        *(ModeChosen(mode, BOB) for mode in values[DoorMode]),
        *(DeliveriesChosen(accepted) for accepted in values[bool]),
        *(Sensed(sensor, sense) for sensor in Sensor for sense in Sense),
    }  # fmt: skip
    assert all(len(row[1]) == len(DoorMode) for row in PAIRS)


IMPOSSIBLE = [
    (S(LOCKED), Released(), "nothing was to be released"),
    (S(LOCKED), NotReleased(), "nothing was to be released"),
    (S(LOCKED), Unresolved(), "nothing was to be released"),
    (S(ACCESSED, deadline=FUTURE), Released(), "the release has been answered before"),
    (S(ACCESSED), Secured(), "nothing was to be put back"),
    (S(UNKNOWN), Secured(), "nothing was to be put back"),
    (S(LOCKED), NotSecured(), "nothing was to be put back"),
    (S(ACCESSED), ModeChosen(LOCKED_DOWN), "a lockdown is never a mode of one door"),
    (S(LOCKED, tampered=True, tamper=ACTIVE), TamperCleared(), "its enclosure is open at this moment"),
]


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("state, event, why", IMPOSSIBLE)
def test_an_impossible_input_changes_nothing(timing, state, event, why):
    assert advance(state, event, NOW, timing) == (state, ())


def test_a_door_that_has_not_been_heard_of_is_unknown():
    assert S().lock is UNKNOWN
    assert (S().contact, S().rex, S().tamper, S().lock_monitor) == (NO_WORD,) * 4
    assert S().mode is NORMAL


A_PERSON_IS_DELETED = [
    (DEVICE, S(LOCKED, by=ANN), PersonForgotten("ann-1"), S(LOCKED), [], "who was let in last is named no more"),
    (DEVICE, S(LOCKED, by=BOB), PersonForgotten("ann-1"), S(LOCKED, by=BOB), [], "another person still is"),
    (DEVICE, S(LOCKED, by=replace(BOB, name="Ann")), PersonForgotten("ann-1"), S(LOCKED, by=replace(BOB, name="Ann")),
     [], "another one of the same name still is"),
    (DEVICE, S(LOCKED, by=PARCELS), PersonForgotten("ann-1"), S(LOCKED, by=PARCELS), [], "a carrier is no person"),
    (DEVICE, S(LOCKED, releasing=True, told_at=NOW, granted_to=ANN, by=ANN), PersonForgotten("ann-1"),
     S(LOCKED, releasing=True, told_at=NOW), [], "a release that is under way goes on, and is nobody's"),
]  # fmt: skip


@specified_by(A_PERSON_IS_DELETED)
def test_a_person_is_deleted(timing, state, event, after, effects, sentence):
    check(timing, state, event, after, effects)


# ---- an access ------------------------------------------------------------------------------------------------------

AN_ACCESS = [
    # timing, state, input, next state, effects, sentence
    (DEVICE, S(), Grant(PARCELS), S(releasing=True, told_at=NOW, granted_to=PARCELS), [RELEASE],
     "a grant tells the strike to release"),
    (DEVICE, S(LOCKED, by=ANN), Grant(BOB),
     S(LOCKED, releasing=True, told_at=NOW, granted_to=BOB, by=ANN), [RELEASE],
     "who was let in last is who was, until the strike has answered"),
    (DEVICE, S(LOCKED, releasing=True, granted_to=None, by=ANN), Released(),
     S(ACCESSED, deadline=OVER, released=True), [],
     "who is let in now replaces who was let in last, an automation without a name too"),
    (DEVICE, S(LOCKED, releasing=True, granted_to=BOB, by=ANN), NotReleased(), S(LOCKED, by=ANN), [],
     "who was not let in does not"),
    (DEVICE, S(LOCKED, releasing=True, granted_to=BOB, by=ANN), Unresolved(),
     S(UNKNOWN, deadline=OVER, unanswered=True, by=BOB), [],
     "who may have been let in does"),
    (OURS, S(ACCESSED, deadline=FUTURE, securing=True, by=ANN), Grant(BOB),
     S(ACCESSED, releasing=True, deadline=FUTURE, securing=True, told_at=NOW, granted_to=BOB, by=ANN), [RELEASE],
     "a grant during a release releases again, and what has to be ended stays to be ended"),
    (DEVICE, S(LOCKED, releasing=True), Released(), S(ACCESSED, deadline=OVER, released=True), [],
     "a confirmed release is an access until the device's time is over"),
    (OURS, S(LOCKED, releasing=True), Released(), S(ACCESSED, deadline=OVER, securing=True, released=True), [],
     "a confirmed release without a timer of its own is ours to end"),
    (DEVICE, S(ACCESSED, releasing=True, deadline=FUTURE, released=True), Released(),
     S(ACCESSED, deadline=OVER, released=True), [],
     "a second release restarts the time"),
    (DEVICE, S(LOCKED, releasing=True), NotReleased(), S(LOCKED), [],
     "a strike that did not move leaves the lock as it was"),
    (OURS, S(LOCKED, releasing=True), NotReleased(), S(LOCKED, securing=True), [SECURE],
     "one that is ours to end is secured all the same: what drives it may have moved before it failed"),
    (OURS, S(ACCESSED, releasing=True, deadline=FUTURE, securing=True), NotReleased(),
     S(ACCESSED, deadline=FUTURE, securing=True), [],
     "a second release that fails leaves the first one running and ours to end"),
    (DEVICE, S(LOCKED, releasing=True), Unresolved(), S(UNKNOWN, deadline=OVER, unanswered=True), [],
     "without an answer nobody knows, and it is looked at again when it would be over"),
    (OURS, S(LOCKED, releasing=True), Unresolved(), S(UNKNOWN, deadline=OVER, securing=True, unanswered=True), [],
     "a release that may have happened is ours to end"),
    (OURS, S(LOCKED, releasing=True, told_at=NOW - 2), Unresolved(),
     S(UNKNOWN, deadline=OVER - 2, securing=True, unanswered=True), [],
     "its time counts from when the strike was told, not from when it was given up"),
    (OURS, S(LOCKED, releasing=True, told_at=NOW - 9), Unresolved(),
     S(UNKNOWN, deadline=NOW, securing=True, unanswered=True), [],
     "and is over at once if that was long ago"),
    (OURS, S(UNKNOWN, releasing=True, unanswered=True), Released(),
     S(ACCESSED, deadline=OVER, securing=True, released=True), [],
     "a release that is answered makes up for one that was not"),
    (DEVICE, S(ACCESSED, deadline=FUTURE, released=True, by=ANN, releasing=True, granted_to=BOB), Unresolved(),
     S(UNKNOWN, deadline=OVER, unanswered=True, released=True, by=BOB), [],
     "a second release without an answer leaves the first one to be told of as over"),
    (DEVICE, S(ACCESSED, releasing=True), Unresolved(), S(UNKNOWN, deadline=OVER, unanswered=True, released=True), [],
     "where it was released before, to see it released later will prove nothing"),

    (WITH_CONTACT, S(LOCKED, contact=INACTIVE, releasing=True), Released(),
     S(ACCESSED, contact=INACTIVE, deadline=OVER, securing=True, released=True, passage=Passage(OVER + GRACE, True)),
     [],
     "with a contact it is watched whether somebody goes through, a moment longer than the release lasts"),
    (WITH_CONTACT, S(LOCKED, contact=INACTIVE, releasing=True), Unresolved(),
     S(UNKNOWN, contact=INACTIVE, deadline=OVER, securing=True, unanswered=True, passage=Passage(OVER + GRACE, False)),
     [],
     "also if nobody knows whether it released"),
    (WITH_CONTACT, S(LOCKED, contact=NO_WORD, releasing=True), Released(),
     S(ACCESSED, deadline=OVER, securing=True, released=True, passage=Passage(OVER + GRACE, True)), [],
     "also if the contact has said nothing yet"),
    (WITH_CONTACT, S(LOCKED, contact=ACTIVE, releasing=True), Released(),
     S(ACCESSED, contact=ACTIVE, deadline=OVER, securing=True, released=True), [],
     "whoever goes through a door that stands open opens nothing"),
    (WITH_CONTACT, S(LOCKED, contact=INACTIVE, releasing=True), NotReleased(),
     S(LOCKED, contact=INACTIVE, securing=True), [SECURE],
     "nobody goes through a door that was not released"),
    (WATCHED, S(LOCKED, accepts_deliveries=False, tampered=True), Grant(ANN),
     S(LOCKED, accepts_deliveries=False, tampered=True, releasing=True, told_at=NOW, granted_to=ANN), [RELEASE],
     "deliveries and tampering are for the policy to judge: who opens by hand is let in all the same"),
]  # fmt: skip


@specified_by(AN_ACCESS)
def test_an_access(timing, state, event, after, effects, sentence):
    check(timing, state, event, after, effects)


# ---- the end of it --------------------------------------------------------------------------------------------------

THE_END = [
    (DEVICE, S(ACCESSED, deadline=FUTURE), Elapsed(), S(ACCESSED, deadline=FUTURE), [],
     "a timer that rings early rings for nothing"),
    (OURS, S(ACCESSED, deadline=FUTURE, securing=True), Elapsed(), S(ACCESSED, deadline=FUTURE, securing=True), [],
     "nor is a release ended early"),
    (OURS, S(ACCESSED, deadline=NOW, securing=True), Elapsed(), S(ACCESSED, securing=True), [SECURE],
     "when the access time is over the strike is put back"),
    (OURS, S(LOCKED, deadline=PAST, securing=True), Elapsed(), S(LOCKED, securing=True), [SECURE],
     "also when it already reads secured: a reading can lag behind the command"),
    (BLIND_OURS, S(UNKNOWN, deadline=PAST, securing=True), Elapsed(), S(UNKNOWN, securing=True), [SECURE],
     "also when nobody knows whether it moved"),
    (DEVICE, S(ACCESSED, deadline=PAST), Elapsed(), S(ACCESSED), [OBSERVE],
     "a device with feedback is asked where it is, and not believed to be back"),
    (DEVICE, S(UNKNOWN, deadline=PAST), Elapsed(), S(UNKNOWN), [OBSERVE],
     "after a release without an answer too"),
    (BLIND_DEVICE, S(ACCESSED, deadline=PAST, released=True), Elapsed(), S(LOCKED), [],
     "a device without feedback that confirmed the release is back when its own timer is over; nothing confirms it"),
    (BLIND_DEVICE, S(UNKNOWN, deadline=PAST), Elapsed(), S(UNKNOWN), [],
     "one that did not confirm stays unknown"),
    (DEVICE, S(ACCESSED), Elapsed(), S(ACCESSED), [],
     "without a deadline nothing elapses: a door that somebody else released stays so"),

    (OURS, S(), LeftOpen(), S(securing=True, released=True), [SECURE],
     "a release that outlived the last run of the program is ended at start"),
    (DEVICE, S(), LeftOpen(), S(securing=True, released=True), [SECURE],
     "also if the strike is now said to time itself: that release was ours to end"),
    (BUTTON, S(), LeftOpen(), S(), [],
     "unless there is now no command for it"),

    (OURS, S(ACCESSED, securing=True), Secured(), S(LOCKED), [],
     "confirmed back is locked"),
    (OURS, S(ACCESSED, securing=True, released=True), Secured(), S(LOCKED), [RELOCKED],
     "the end of a release of ours is told"),
    (BLIND_OURS, S(UNKNOWN, securing=True), Secured(), S(LOCKED), [],
     "confirmed back is locked, also without feedback"),
    (BLIND_OURS, S(ACCESSED, securing=True, released=True), Secured(Reading.UNKNOWN), S(LOCKED), [RELOCKED],
     "whatever a strike without feedback reads"),
    (OURS, S(ACCESSED, securing=True), NotSecured(), S(UNKNOWN, deadline=NOW + SECURE_AGAIN, securing=True), [],
     "a strike that cannot be put back is unknown, and tried again"),
    (OURS, S(ACCESSED, securing=True, released=True), Secured(Reading.RELEASED),
     S(ACCESSED, deadline=NOW + ON_ITS_WAY, released=True), [],
     "a gate that moves is not yet closed: its reading says when it is"),
    (OURS, S(ACCESSED, deadline=FUTURE, released=True), Observed(Reading.RELEASED),
     S(ACCESSED, deadline=FUTURE, released=True), [],
     "while it moves it is left alone"),
    (OURS, S(ACCESSED, deadline=FUTURE, released=True), Observed(Reading.SECURED), S(LOCKED), [RELOCKED],
     "a gate that has arrived has relocked"),
    (OURS, S(ACCESSED, deadline=PAST, released=True), Elapsed(), S(ACCESSED, released=True), [OBSERVE],
     "one that has not is looked at"),
    (OURS, S(ACCESSED, released=True), Observed(Reading.RELEASED), S(ACCESSED, released=True, securing=True), [SECURE],
     "and told again: nobody else would close it"),
    (DEVICE, S(ACCESSED, released=True), Observed(Reading.RELEASED), S(ACCESSED, released=True), [],
     "a device that times itself and is stuck is shown as released, and not told anything"),
    (WITH_CONTACT, S(ACCESSED, securing=True, released=True, passage=Passage(NOW + 60, True)), Secured(),
     S(LOCKED, passage=Passage(NOW + GRACE, True)), [RELOCKED],
     "once it is back, an opening belongs to the access for a moment only: contacts by radio are late"),
    (WITH_CONTACT, S(ACCESSED, securing=True, released=True, passage=Passage(NOW + 1, True)), Secured(),
     S(LOCKED, passage=Passage(NOW + 1, True)), [RELOCKED],
     "and no longer than before"),
]  # fmt: skip


@specified_by(THE_END)
def test_the_end_of_a_release(timing, state, event, after, effects, sentence):
    check(timing, state, event, after, effects)


# ---- what the strike reports by itself ------------------------------------------------------------------------------

REPORTS = [
    (DEVICE, S(LOCKED, by=ANN), Observed(Reading.RELEASED), S(ACCESSED), [ELSEWHERE],
     "nobody is named for what something else released"),
    (DEVICE, S(LOCKED), Observed(Reading.RELEASED), S(ACCESSED), [ELSEWHERE],
     "somebody else released it"),
    (OURS, S(LOCKED), Observed(Reading.RELEASED), S(ACCESSED), [ELSEWHERE],
     "what somebody else released is not ours to end"),
    (OURS, S(ACCESSED), Observed(Reading.RELEASED), S(ACCESSED), [],
     "and told of once"),
    (OURS, S(ACCESSED), Observed(Reading.SECURED), S(LOCKED), [],
     "that it is over is nobody's access"),
    (OURS, S(UNKNOWN, by=ANN), Observed(Reading.RELEASED), S(ACCESSED), [],
     "one that is found released at start is not said to have been moved: nobody knows since when"),
    (DEVICE, S(LOCKED, releasing=True, granted_to=BOB, by=ANN), Observed(Reading.RELEASED),
     S(ACCESSED, releasing=True, granted_to=BOB, by=ANN, released=True), [],
     "a strike that moves while it is told to was not moved by something else"),
    (DEVICE, S(UNKNOWN, deadline=FUTURE, by=BOB, unanswered=True), Observed(Reading.RELEASED),
     S(ACCESSED, deadline=FUTURE, by=BOB, released=True), [],
     "a late report within the access time belongs to the access"),
    (OURS, S(UNKNOWN, deadline=FUTURE, securing=True, unanswered=True, released=True), Observed(Reading.RELEASED),
     S(ACCESSED, deadline=FUTURE, securing=True, unanswered=True, released=True), [],
     "unless it was released before: then the command may still be on its way"),
    (OURS, S(ACCESSED, deadline=FUTURE, securing=True), Observed(Reading.RELEASED),
     S(ACCESSED, deadline=FUTURE, securing=True), [],
     "what we put back for another reason was no release of ours"),
    (OURS, S(LOCKED, unanswered=True), Observed(Reading.RELEASED), S(ACCESSED, securing=True, released=True), [SECURE],
     "a command that arrives after it was given up is ended, since nobody else would"),
    (DEVICE, S(LOCKED, unanswered=True), Observed(Reading.RELEASED), S(ACCESSED, released=True), [],
     "a device that times itself ends it by itself"),
    (DEVICE_THAT_HOLDS, S(LOCKED, unanswered=True), Observed(Reading.RELEASED),
     S(ACCESSED, securing=True, released=True), [SECURE],
     "unless what arrives late may be the command to hold"),

    (DEVICE, S(), Observed(Reading.SECURED), S(LOCKED), [],
     "a strike that reads secured is locked"),
    (DEVICE, S(ACCESSED, deadline=FUTURE, released=True), Observed(Reading.SECURED), S(LOCKED), [RELOCKED],
     "an access ends as soon as the device says so"),
    (OURS, S(ACCESSED, deadline=FUTURE, securing=True, released=True), Observed(Reading.SECURED),
     S(LOCKED, deadline=FUTURE, securing=True, released=True), [],
     "one that reads secured early is put back all the same, and then told of"),
    (OURS, S(LOCKED, deadline=FUTURE, securing=True, released=True), Observed(Reading.RELEASED),
     S(ACCESSED, deadline=FUTURE, securing=True, released=True), [],
     "a reading that changes its mind during a release is not somebody else"),
    (DEVICE, S(LOCKED), Observed(Reading.UNKNOWN), S(UNKNOWN), [],
     "a strike that stops telling is not locked"),
    (OURS, S(ACCESSED, deadline=FUTURE, securing=True), Observed(Reading.UNKNOWN),
     S(UNKNOWN, deadline=FUTURE, securing=True), [],
     "what is ours to end stays so, however little is known"),
    (BLIND_DEVICE, S(ACCESSED, deadline=FUTURE), Observed(Reading.UNKNOWN), S(ACCESSED, deadline=FUTURE), [],
     "a strike without feedback says nothing by saying unknown"),
    (OURS, S(UNKNOWN, mode=UNLOCKED, securing=True, released=True), Observed(Reading.SECURED),
     S(LOCKED, securing=True), [ELSEWHERE, BACK_TO_NORMAL, RELOCKED, SECURE],
     "a power cut ends a hold: what comes back secured is not said to be open"),
    (OURS, S(UNKNOWN, mode=UNLOCKED, securing=True, released=True), Observed(Reading.RELEASED),
     S(ACCESSED, mode=UNLOCKED, securing=True, released=True), [],
     "what comes back released is held open as before"),
]  # fmt: skip


@specified_by(REPORTS)
def test_what_the_strike_reports_by_itself(timing, state, event, after, effects, sentence):
    check(timing, state, event, after, effects)


# ---- modes ----------------------------------------------------------------------------------------------------------

MODES = [
    (OURS, S(ACCESSED, deadline=FUTURE, securing=True, released=True, passage=Passage(FUTURE, True)),
     ModeChosen(UNLOCKED, ANN),
     S(ACCESSED, mode=UNLOCKED, releasing=True, told_at=NOW, granted_to=ANN, deadline=FUTURE, securing=True,
       released=True), [HOLD],
     "a door that is held open during an access is nobody's access any more"),
    (OURS, S(LOCKED, mode=UNLOCKED, releasing=True, told_at=NOW, granted_to=ANN), Released(),
     S(ACCESSED, mode=UNLOCKED, securing=True, released=True, by=ANN), [],
     "a confirmed hold has no deadline, and is ours to end"),
    (DEVICE_THAT_HOLDS, S(LOCKED, mode=UNLOCKED, releasing=True, told_at=NOW, granted_to=ANN), Released(),
     S(ACCESSED, mode=UNLOCKED, securing=True, released=True, by=ANN), [],
     "also on a device that times its accesses"),
    (OURS, S(LOCKED, mode=UNLOCKED, releasing=True, told_at=NOW, granted_to=ANN, by=BOB), NotReleased(),
     S(LOCKED, securing=True, by=BOB), [BACK_TO_NORMAL, SECURE],
     "a hold that was refused is no hold, and is put back all the same"),
    (OURS, S(LOCKED, mode=UNLOCKED, releasing=True, told_at=NOW, granted_to=ANN), Unresolved(),
     S(UNKNOWN, securing=True, unanswered=True), [BACK_TO_NORMAL, SECURE],
     "nor is one without an answer"),
    (OURS, S(ACCESSED, mode=UNLOCKED, releasing=True, deadline=FUTURE, securing=True, released=True), NotReleased(),
     S(ACCESSED, securing=True, released=True), [BACK_TO_NORMAL, SECURE],
     "a hold that fails during an access ends that, too"),
    (DEVICE, S(LOCKED), ModeChosen(UNLOCKED), S(LOCKED), [],
     "a strike that cannot stay released is not asked to"),
    (BUTTON, S(LOCKED), ModeChosen(UNLOCKED), S(LOCKED), [],
     "nor a button"),
    (WATCHED, S(LOCKED, alarm=Alarm.HELD_OPEN, **OPEN), ModeChosen(UNLOCKED),
     S(LOCKED, mode=UNLOCKED, releasing=True, told_at=NOW, **OPEN), [HOLD],
     "a door that is to be held open is not held open too long"),
    (WATCHED, S(LOCKED, alarm=Alarm.FORCED_OPEN, open_too_long_at=FUTURE, warned=True, **OPEN), ModeChosen(UNLOCKED),
     S(LOCKED, mode=UNLOCKED, releasing=True, told_at=NOW, alarm=Alarm.FORCED_OPEN, **OPEN), [HOLD],
     "that it was forced before stays so until it is closed"),
    (WATCHED, replace(AT_REST[UNLOCKED], **OPEN), ModeChosen(NORMAL),
     replace(AT_REST[UNLOCKED], mode=NORMAL, open_too_long_at=TOO_LONG_AT, **OPEN), [SECURE],
     "a door that stands open when the hold ends is watched from then on"),
    (WATCHED, replace(AT_REST[UNLOCKED], **OPEN), LockdownBegun(),
     replace(AT_REST[UNLOCKED], mode=LOCKED_DOWN, open_too_long_at=TOO_LONG_AT, **OPEN), [SECURE],
     "also when a lockdown ends it"),
    (OURS, S(ACCESSED, deadline=FUTURE, securing=True, released=True), ModeChosen(BLOCKED),
     S(ACCESSED, mode=BLOCKED, securing=True, released=True), [SECURE],
     "who blocks a door during an access ends the access"),
    (DEVICE, S(ACCESSED, deadline=FUTURE, released=True), ModeChosen(BLOCKED),
     S(ACCESSED, mode=BLOCKED, securing=True, released=True), [SECURE],
     "also one that a device would end by itself"),
    (BUTTON, S(ACCESSED, deadline=FUTURE, released=True), ModeChosen(BLOCKED),
     S(ACCESSED, mode=BLOCKED, deadline=FUTURE, released=True), [],
     "unless it cannot be told"),
    (OURS, S(UNKNOWN), ModeChosen(BLOCKED), S(UNKNOWN, mode=BLOCKED, securing=True), [SECURE],
     "where nobody knows, it costs nothing to put it back"),
    (OURS, S(ACCESSED, deadline=FUTURE, securing=True, released=True), LockdownBegun(),
     S(ACCESSED, mode=LOCKED_DOWN, securing=True, released=True), [SECURE],
     "a lockdown during an access ends it"),
    (OURS, S(UNKNOWN, deadline=FUTURE, securing=True, unanswered=True), LockdownBegun(),
     S(UNKNOWN, mode=LOCKED_DOWN, securing=True, unanswered=True), [SECURE],
     "also one of which nobody knows"),
    (OURS, S(ACCESSED), LockdownBegun(), S(ACCESSED, mode=LOCKED_DOWN, securing=True), [SECURE],
     "also one that somebody else began: whatever can be shut is told to be, once"),
    (DEVICE, S(LOCKED), LockdownBegun(), S(LOCKED, mode=LOCKED_DOWN), [],
     "a locked door needs no command"),
    (BUTTON, S(ACCESSED, deadline=FUTURE, released=True), LockdownBegun(),
     S(ACCESSED, mode=LOCKED_DOWN, deadline=FUTURE, released=True), [],
     "what cannot be told ends by itself"),
    (OURS, S(LOCKED, mode=LOCKED_DOWN, after_lockdown=BLOCKED), LockdownLifted(), S(LOCKED, mode=BLOCKED), [],
     "a door that was blocked is, after the lockdown"),
    (OURS, S(ACCESSED, mode=LOCKED_DOWN, securing=True, deadline=FUTURE), LockdownLifted(),
     S(ACCESSED, securing=True, deadline=FUTURE), [],
     "a strike that could not be put back yet is, also after it"),
    (OURS, S(LOCKED, mode=LOCKED_DOWN), Observed(Reading.RELEASED), S(ACCESSED, mode=LOCKED_DOWN), [ELSEWHERE],
     "who opens with a key during a lockdown is told of and let be"),
    (OURS, S(LOCKED, mode=LOCKED_DOWN, unanswered=True), Observed(Reading.RELEASED),
     S(ACCESSED, mode=LOCKED_DOWN, securing=True, released=True), [SECURE],
     "a command of ours that arrives late in a lockdown is ended"),
    (OURS, S(ACCESSED, mode=LOCKED_DOWN, securing=True, released=True), Secured(), S(LOCKED, mode=LOCKED_DOWN),
     [RELOCKED],
     "the end of an access is told in a lockdown, too"),
    (OURS, S(ACCESSED, mode=BLOCKED, securing=True), NotSecured(),
     S(UNKNOWN, mode=BLOCKED, securing=True, deadline=NOW + SECURE_AGAIN), [],
     "a blocked door whose strike cannot be put back is not said to be locked"),
    (OURS, S(accepts_deliveries=False), DeliveriesChosen(True), S(), [],
     "deliveries are taken again"),
]  # fmt: skip


@specified_by(MODES)
def test_modes(timing, state, event, after, effects, sentence):
    check(timing, state, event, after, effects)


# ---- the door leaf --------------------------------------------------------------------------------------------------

LET_IN = Passage(FUTURE, True)
ON_OPEN, ON_CLOSE = (replace(UNTIMED, relock=relock) for relock in (RelockOn.OPEN, RelockOn.CLOSE))
RUNNING = {"lock": ACCESSED, "deadline": FUTURE, "securing": True, "released": True}
NO_REX = replace(UNTIMED, sensors=frozenset({CONTACT}))

GOING_THROUGH = [
    (UNTIMED, S(**RUNNING, passage=LET_IN, **CLOSED), Sensed(CONTACT, ACTIVE), S(**RUNNING, **OPEN), [TAKEN],
     "an opening during an access takes it"),
    (UNTIMED, S(LOCKED, passage=LET_IN, **CLOSED), Sensed(CONTACT, ACTIVE), S(LOCKED, **OPEN), [TAKEN],
     "also in the moment after it"),
    (UNTIMED, S(UNKNOWN, unanswered=True, passage=Passage(FUTURE, False), **CLOSED), Sensed(CONTACT, ACTIVE),
     S(UNKNOWN, unanswered=True, **OPEN), [TAKEN],
     "also one of which nobody knew whether it released: this is the best proof"),
    (UNTIMED, S(**RUNNING, passage=LET_IN, **CLOSED | {"contact": NO_WORD}), Sensed(CONTACT, ACTIVE),
     S(**RUNNING, **OPEN), [TAKEN],
     "also if the contact has not said a word before"),
    (UNTIMED, S(**RUNNING, **OPEN), Sensed(CONTACT, INACTIVE), S(**RUNNING, **CLOSED), [SHUT],
     "a door that closes is closed, and the access lasts"),
    (UNTIMED, S(**RUNNING, **CLOSED), Sensed(CONTACT, ACTIVE), S(**RUNNING, **OPEN), [OPENED],
     "a second opening during one access is an opening"),
    (UNTIMED, S(ACCESSED, **CLOSED), Sensed(CONTACT, ACTIVE), S(ACCESSED, **OPEN), [OPENED],
     "an opening while something else releases the door is an opening"),
    (UNTIMED, S(LOCKED, passage=Passage(NOW, True), **CLOSED), Elapsed(), S(LOCKED, **CLOSED), [NOT_TAKEN],
     "an access that ends while the door has stayed closed was not taken"),
    (UNTIMED, S(UNKNOWN, passage=Passage(NOW, False), **CLOSED), Elapsed(), S(UNKNOWN, **CLOSED), [],
     "one that nobody confirmed may not even have been one"),
    (UNTIMED, S(LOCKED, passage=Passage(NOW, True), contact=FAULT), Elapsed(), S(LOCKED, contact=FAULT), [],
     "of one whose contact is out of order nobody knows"),
    (UNTIMED, S(LOCKED, passage=Passage(NOW, True)), Elapsed(), S(LOCKED), [],
     "nor of one whose contact says nothing"),
    (UNTIMED, S(LOCKED, passage=LET_IN, **CLOSED), Elapsed(), S(LOCKED, passage=LET_IN, **CLOSED), [],
     "it is not over early"),
    (UNTIMED, S(LOCKED, contact=NO_WORD), Sensed(CONTACT, ACTIVE), S(LOCKED, contact=ACTIVE), [],
     "a door that is found open was not opened now"),
    (UNTIMED, S(LOCKED, contact=FAULT), Sensed(CONTACT, ACTIVE), S(LOCKED, contact=ACTIVE), [],
     "nor one whose contact works again"),
    (UNTIMED, S(LOCKED, contact=FAULT, alarm=Alarm.FORCED_OPEN), Sensed(CONTACT, INACTIVE),
     S(LOCKED, contact=INACTIVE), [],
     "a door that is found closed was not closed now, and nothing is wrong with it any more"),
    (UNTIMED, S(LOCKED, **OPEN), Sensed(CONTACT, ACTIVE), S(LOCKED, **OPEN), [],
     "what a contact repeats is no news"),
    (UNTIMED, S(LOCKED, alarm=Alarm.FORCED_OPEN, **OPEN), Sensed(CONTACT, FAULT),
     S(LOCKED, alarm=Alarm.FORCED_OPEN, **OPEN | {"contact": FAULT}), [],
     "a contact that is torn off closes no door"),
    (OURS, S(LOCKED), Sensed(CONTACT, ACTIVE), S(LOCKED), [],
     "a contact that this door does not have says nothing"),
    (OURS, S(LOCKED), Sensed(TAMPER, ACTIVE), S(LOCKED), [],
     "nor does any other sensor"),
]  # fmt: skip

RELOCKING = [
    (ON_OPEN, S(**RUNNING, passage=LET_IN, **CLOSED), Sensed(CONTACT, ACTIVE),
     S(ACCESSED, securing=True, released=True, **OPEN), [TAKEN, SECURE],
     "on open: the strike goes back as soon as somebody has opened"),
    (replace(ON_OPEN, strike=DEVICE.strike), S(ACCESSED, deadline=FUTURE, released=True, passage=LET_IN, **CLOSED),
     Sensed(CONTACT, ACTIVE), S(ACCESSED, securing=True, released=True, **OPEN), [TAKEN, SECURE],
     "also one that a device would end by itself"),
    (replace(ON_OPEN, strike=BUTTON.strike), S(ACCESSED, deadline=FUTURE, released=True, passage=LET_IN, **CLOSED),
     Sensed(CONTACT, ACTIVE), S(ACCESSED, deadline=FUTURE, released=True, **OPEN), [TAKEN],
     "unless it cannot be told"),
    (ON_OPEN, S(**RUNNING, **CLOSED), Sensed(CONTACT, ACTIVE), S(**RUNNING, **OPEN), [OPENED],
     "a second opening ends nothing: the first one has"),
    (ON_OPEN, S(LOCKED, passage=LET_IN, **CLOSED), Sensed(CONTACT, ACTIVE), S(LOCKED, **OPEN), [TAKEN],
     "what is back already needs no command"),
    (ON_OPEN, replace(AT_REST[BLOCKED], passage=LET_IN), Sensed(CONTACT, ACTIVE),
     replace(AT_REST[BLOCKED], contact=ACTIVE), [TAKEN],
     "who opens a door in the moment in which it is blocked has taken an access"),
    (ON_OPEN, S(**RUNNING, **OPEN), Sensed(CONTACT, INACTIVE), S(**RUNNING, **CLOSED), [SHUT],
     "on open: closing ends nothing"),
    (ON_CLOSE, S(**RUNNING, **OPEN), Sensed(CONTACT, INACTIVE), S(ACCESSED, securing=True, released=True, **CLOSED),
     [SHUT, SECURE],
     "on close: the strike goes back as soon as the door has closed behind somebody"),
    (ON_CLOSE, S(**RUNNING, passage=LET_IN, **CLOSED), Sensed(CONTACT, ACTIVE), S(**RUNNING, **OPEN), [TAKEN],
     "on close: opening ends nothing"),
    (ON_CLOSE, S(LOCKED, **OPEN), Sensed(CONTACT, INACTIVE), S(LOCKED, **CLOSED), [SHUT],
     "a door that closes without an access needs no command"),
    (ON_CLOSE, S(ACCESSED, **OPEN), Sensed(CONTACT, INACTIVE), S(ACCESSED, **CLOSED), [SHUT],
     "nor does one that somebody else released"),
    (ON_CLOSE, S(**RUNNING, contact=FAULT), Sensed(CONTACT, INACTIVE), S(**RUNNING, contact=INACTIVE), [],
     "a contact that works again has closed nothing"),
    (ON_CLOSE, replace(AT_REST[UNLOCKED], **OPEN), Sensed(CONTACT, INACTIVE), AT_REST[UNLOCKED], [SHUT],
     "a door that is held open on purpose stays so when it closes"),
    (ON_OPEN, AT_REST[UNLOCKED], Sensed(CONTACT, ACTIVE), replace(AT_REST[UNLOCKED], **OPEN), [OPENED],
     "and when it opens"),
]  # fmt: skip

FORCING = [
    (UNTIMED, S(LOCKED, **CLOSED), Sensed(CONTACT, ACTIVE), S(LOCKED, alarm=Alarm.FORCED_OPEN, **OPEN), [FORCED],
     "an opening that nothing explains is forced, where a request to exit would have explained it"),
    (UNTIMED, S(UNKNOWN, **CLOSED), Sensed(CONTACT, ACTIVE), S(UNKNOWN, alarm=Alarm.FORCED_OPEN, **OPEN), [FORCED],
     "also if nothing is known of the lock"),
    (NO_REX, S(LOCKED, contact=INACTIVE), Sensed(CONTACT, ACTIVE), S(LOCKED, contact=ACTIVE), [OPENED],
     "without a request to exit nothing is said to be forced: residents leave by the handle"),
    (UNTIMED, S(LOCKED, **CLOSED | {"rex": ACTIVE}), Sensed(CONTACT, ACTIVE), S(LOCKED, **OPEN | {"rex": ACTIVE}),
     [OPENED],
     "who asks to go out goes out"),
    (UNTIMED, S(LOCKED, **CLOSED | {"rex": ACTIVE}), Sensed(REX, INACTIVE),
     S(LOCKED, rex_until=NOW + REX_TIME, **CLOSED), [],
     "a request to exit explains what follows"),
    (UNTIMED, S(LOCKED, **CLOSED | {"rex": ACTIVE}), Sensed(REX, FAULT),
     S(LOCKED, rex_until=NOW + REX_TIME, **CLOSED | {"rex": FAULT}), [],
     "also if its button breaks off"),
    (UNTIMED, S(LOCKED, rex_until=NOW, **CLOSED), Sensed(CONTACT, ACTIVE), S(LOCKED, rex_until=NOW, **OPEN), [OPENED],
     "for a while"),
    (UNTIMED, S(LOCKED, rex_until=PAST, **CLOSED), Sensed(CONTACT, ACTIVE),
     S(LOCKED, rex_until=PAST, alarm=Alarm.FORCED_OPEN, **OPEN), [FORCED],
     "and no longer"),
    (UNTIMED, S(LOCKED, rex_until=FUTURE, **CLOSED | {"rex": ACTIVE}), Sensed(REX, ACTIVE),
     S(LOCKED, rex_until=FUTURE, **CLOSED | {"rex": ACTIVE}), [],
     "who keeps asking is still asking"),
    (UNTIMED, S(LOCKED, **CLOSED | {"rex": FAULT}), Sensed(CONTACT, ACTIVE), S(LOCKED, **OPEN | {"rex": FAULT}),
     [OPENED],
     "where the request to exit is out of order nothing is said to be forced"),
    (UNTIMED, S(LOCKED, **CLOSED | {"rex": NO_WORD}), Sensed(CONTACT, ACTIVE), S(LOCKED, **OPEN | {"rex": NO_WORD}),
     [OPENED],
     "nor where it has said nothing yet"),
    (UNTIMED, S(LOCKED, alarm=Alarm.FORCED_OPEN, **OPEN), Sensed(CONTACT, INACTIVE), S(LOCKED, **CLOSED), [SHUT],
     "the alarm ends when the door is closed"),
]  # fmt: skip

TOO_LONG = [
    (WATCHED, S(**RUNNING, passage=LET_IN, **CLOSED), Sensed(CONTACT, ACTIVE),
     S(**RUNNING, open_too_long_at=TOO_LONG_AT, **OPEN), [TAKEN],
     "how long a door is open counts from its opening, also with an access"),
    (WATCHED, S(LOCKED, contact=NO_WORD), Sensed(CONTACT, ACTIVE),
     S(LOCKED, contact=ACTIVE, open_too_long_at=TOO_LONG_AT), [],
     "a door that is found open counts from then"),
    (WATCHED, S(LOCKED, open_too_long_at=NOW, **OPEN), Elapsed(),
     S(LOCKED, open_too_long_at=NOW + WARNED, warned=True, **OPEN), [WARNING],
     "first it is warned of"),
    (WATCHED, S(LOCKED, open_too_long_at=NOW, warned=True, **OPEN), Elapsed(),
     S(LOCKED, warned=True, alarm=Alarm.HELD_OPEN, **OPEN), [HELD_OPEN],
     "then it is held open"),
    (replace(WATCHED, pre_alarm_time=0.0), S(LOCKED, open_too_long_at=NOW, **OPEN), Elapsed(),
     S(LOCKED, alarm=Alarm.HELD_OPEN, **OPEN), [HELD_OPEN],
     "at once, if no warning is wanted"),
    (WATCHED, S(LOCKED, open_too_long_at=NOW, warned=True, alarm=Alarm.FORCED_OPEN, **OPEN), Elapsed(),
     S(LOCKED, warned=True, alarm=Alarm.FORCED_OPEN, **OPEN), [HELD_OPEN],
     "a door that was forced stays forced, and it is told that it is still open"),
    (WATCHED, S(LOCKED, open_too_long_at=FUTURE, **OPEN), Elapsed(), S(LOCKED, open_too_long_at=FUTURE, **OPEN), [],
     "not early"),
    (WATCHED, S(LOCKED, open_too_long_at=FUTURE, warned=True, alarm=Alarm.HELD_OPEN, **OPEN),
     Sensed(CONTACT, INACTIVE), S(LOCKED, **CLOSED), [SHUT],
     "a door that is closed is not open for too long, and the next opening is warned of again"),
    (WATCHED, S(LOCKED, open_too_long_at=FUTURE, warned=True, **OPEN), Sensed(CONTACT, FAULT),
     S(LOCKED, **OPEN | {"contact": FAULT}), [],
     "how long it is open, nobody knows without the contact"),
    (WATCHED, AT_REST[UNLOCKED], Sensed(CONTACT, ACTIVE), replace(AT_REST[UNLOCKED], **OPEN), [OPENED],
     "what is held open on purpose is not open for too long"),
    (UNTIMED, S(**RUNNING, **CLOSED), Sensed(CONTACT, ACTIVE), S(**RUNNING, **OPEN), [OPENED],
     "nor where nobody minds"),
]  # fmt: skip

TAMPERING = [
    (WATCHED, S(LOCKED, tamper=ACTIVE, tampered=True), Sensed(TAMPER, INACTIVE),
     S(LOCKED, tamper=INACTIVE, tampered=True), [],
     "an enclosure that is closed again has been open: somebody has to look"),
    (WATCHED, S(LOCKED, tamper=INACTIVE, tampered=True), Sensed(TAMPER, ACTIVE),
     S(LOCKED, tamper=ACTIVE, tampered=True), [],
     "nobody is told again before somebody has looked"),
    (WATCHED, S(LOCKED, tamper=INACTIVE, tampered=True), TamperCleared(), S(LOCKED, tamper=INACTIVE), [],
     "somebody has looked"),
    (WATCHED, S(LOCKED, tamper=FAULT, tampered=True), TamperCleared(), S(LOCKED, tamper=FAULT), [],
     "also at one whose switch is out of order"),
    (WATCHED, S(LOCKED, tamper=ACTIVE, tampered=True), TamperCleared(), S(LOCKED, tamper=ACTIVE, tampered=True), [],
     "not while it is open"),
    (WATCHED, S(LOCKED, tamper=ACTIVE), Sensed(TAMPER, ACTIVE), S(LOCKED, tamper=ACTIVE, tampered=True), [TAMPERED],
     "one that is open after all is told of"),
]  # fmt: skip


@specified_by(GOING_THROUGH)
def test_who_goes_through(timing, state, event, after, effects, sentence):
    check(timing, state, event, after, effects)


@specified_by(RELOCKING)
def test_what_ends_a_release_early(timing, state, event, after, effects, sentence):
    check(timing, state, event, after, effects)


@specified_by(FORCING)
def test_what_is_forced_and_what_is_explained(timing, state, event, after, effects, sentence):
    check(timing, state, event, after, effects)


@specified_by(TOO_LONG)
def test_a_door_that_is_open_for_too_long(timing, state, event, after, effects, sentence):
    check(timing, state, event, after, effects)


@specified_by(TAMPERING)
def test_an_enclosure_that_was_opened(timing, state, event, after, effects, sentence):
    check(timing, state, event, after, effects)


# ---- a door that becomes another ------------------------------------------------------------------------------------

BECOMING = [
    (OURS, S(**RUNNING, by=ANN, unanswered=True, passage=LET_IN), StrikeReplaced(), S(UNKNOWN, by=ANN), [],
     "a new strike has nothing to end: the old one is put back by itself"),
    (OURS, S(LOCKED, releasing=True, told_at=NOW, granted_to=ANN), StrikeReplaced(), S(UNKNOWN), [],
     "nor an answer to give"),
    (WATCHED, replace(AT_REST[UNLOCKED], **OPEN), StrikeReplaced(),
     S(UNKNOWN, by=ANN, open_too_long_at=TOO_LONG_AT, **OPEN), [BACK_TO_NORMAL],
     "a door that stands open when its hold ends is watched from then on"),
    (WATCHED, S(LOCKED, mode=LOCKED_DOWN, after_lockdown=BLOCKED, tampered=True, accepts_deliveries=False, **OPEN),
     StrikeReplaced(),
     S(UNKNOWN, mode=LOCKED_DOWN, after_lockdown=BLOCKED, tampered=True, accepts_deliveries=False, **OPEN), [],
     "what is known of the door is not the strike's"),
    (NO_REX, S(LOCKED, **OPEN), SetUpChanged(), S(LOCKED, contact=ACTIVE), [],
     "a sensor that was taken away says nothing any more"),
    (OURS, S(LOCKED, alarm=Alarm.HELD_OPEN, open_too_long_at=FUTURE, warned=True, **OPEN), SetUpChanged(),
     S(LOCKED), [],
     "without a contact nothing is wrong with the door leaf"),
    (WATCHED, S(LOCKED, alarm=Alarm.FORCED_OPEN, **OPEN), SetUpChanged(),
     S(LOCKED, alarm=Alarm.FORCED_OPEN, open_too_long_at=TOO_LONG_AT, **OPEN), [],
     "a door that stands open is watched by the new times, and was forced all the same"),
    (UNTIMED, S(LOCKED, open_too_long_at=FUTURE, warned=True, **OPEN), SetUpChanged(), S(LOCKED, **OPEN), [],
     "or not at all"),
    (NO_REX, S(LOCKED, tampered=True, tamper=ACTIVE), SetUpChanged(), S(LOCKED, tampered=True), [],
     "an enclosure that was opened has been, whether its switch is still there or not"),
    (OURS, S(**RUNNING), SetUpChanged(), S(**RUNNING), [],
     "a running access runs on"),
]  # fmt: skip


@specified_by(BECOMING)
def test_a_door_that_becomes_another(timing, state, event, after, effects, sentence):
    check(timing, state, event, after, effects)


# ---- what is known of it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lock, monitor, kind, position, sentence",
    [
        (LOCKED, NO_WORD, {}, LOCKED, "without a lock monitor the strike's word counts"),
        (ACCESSED, NO_WORD, {}, ACCESSED, "without a lock monitor the strike's word counts"),
        (UNKNOWN, NO_WORD, {}, UNKNOWN, "two that say nothing say nothing"),
        (LOCKED, FAULT, {}, LOCKED, "a broken monitor says nothing"),
        (UNKNOWN, FAULT, {}, UNKNOWN, "a broken monitor says nothing"),
        (LOCKED, INACTIVE, {}, LOCKED, "both say locked"),
        (LOCKED, ACTIVE, {}, ACCESSED, "a bolt that is not home is not locked, whatever the relay says"),
        (UNKNOWN, ACTIVE, {}, ACCESSED, "a bolt that is not home is not locked, whoever is silent"),
        (UNKNOWN, INACTIVE, {}, LOCKED, "a relay that is silent is locked if its bolt is"),
        (UNKNOWN, INACTIVE, {"releasing": True}, UNKNOWN, "unless it was told to release"),
        (UNKNOWN, INACTIVE, {"unanswered": True}, UNKNOWN, "or was, and never answered: it may still move"),
        (ACCESSED, INACTIVE, {}, ACCESSED, "a released strike is released: its bolt goes with the door"),
        (ACCESSED, ACTIVE, {}, ACCESSED, "both say released"),
    ],
)
def test_the_position_of_the_lock(lock, monitor, kind, position, sentence):
    assert S(lock, lock_monitor=monitor, **kind).position is position


def test_a_fault_is_known_for_each_sensor_apart():
    assert S(**CLOSED).faults == frozenset()
    for sensor in Sensor:
        assert S(**CLOSED | {sensor.value: FAULT}).faults == {sensor}
    assert S(FAULT, contact=FAULT, tamper=FAULT, rex=NO_WORD).faults == {CONTACT, TAMPER}


def test_what_is_due_next_is_the_first_of_all():
    assert S().due is None
    for at in [(1.0, 2.0, 3.0), (2.0, 3.0, 1.0), (3.0, 1.0, 2.0)]:
        assert S(deadline=at[0], passage=Passage(at[1], True), open_too_long_at=at[2]).due == 1.0
    assert S(passage=Passage(4.0, True)).due == 4.0
    assert S(rex_until=4.0).due is None, "nothing happens then"


def test_what_is_due_at_once_comes_one_after_the_other():
    """The strike first, then the access, then the door leaf."""
    state = S(ACCESSED, deadline=NOW, securing=True, passage=Passage(NOW, True), open_too_long_at=NOW, contact=INACTIVE)
    timing, effects = replace(WATCHED, pre_alarm_time=0.0), []
    while state.due is not None:
        state, more = advance(state, Elapsed(), NOW, timing)
        effects += more
    assert effects == [SECURE, NOT_TAKEN, HELD_OPEN]


# ---- whatever happens, in whatever order ----------------------------------------------------------------------------

NAMES = st.none() | st.sampled_from([ANN, PARCELS])
TIMES = st.none() | st.floats(0, 2000)
SENSES = st.sampled_from(Sense)
STATES = st.builds(
    S,
    lock=st.sampled_from(Lock),
    releasing=st.booleans(),
    deadline=TIMES,
    securing=st.booleans(),
    granted_to=NAMES,
    by=NAMES,
    unanswered=st.booleans(),
    released=st.booleans(),
    mode=st.sampled_from(DoorMode),
    after_lockdown=st.sampled_from([NORMAL, BLOCKED]),
    accepts_deliveries=st.booleans(),
    tampered=st.booleans(),
    contact=SENSES,
    rex=SENSES,
    tamper=SENSES,
    lock_monitor=SENSES,
    rex_until=TIMES,
    passage=st.none() | st.builds(Passage, st.floats(0, 2000), st.booleans()),
    open_too_long_at=TIMES,
    warned=st.booleans(),
    alarm=st.sampled_from(Alarm),
)
"""Any state that can be written down, possible or not."""
ANSWERS = [Released(), NotReleased(), Unresolved(), NotSecured(), *(Secured(reading) for reading in Reading)]
FROM_OUTSIDE = st.one_of(
    st.builds(Grant, NAMES),
    st.sampled_from([Observed(reading) for reading in Reading]),
    st.just(Elapsed()),
    st.builds(ModeChosen, st.sampled_from(DoorMode), NAMES),
    st.sampled_from([LockdownBegun(), LockdownLifted(), TamperCleared(), StrikeReplaced(), SetUpChanged()]),
    st.builds(PersonForgotten, st.sampled_from(["ann-1", "bob-2"])),
    st.builds(DeliveriesChosen, st.booleans()),
    st.builds(Sensed, st.sampled_from(Sensor), SENSES),
)
INPUTS = FROM_OUTSIDE | st.sampled_from([LeftOpen(), *ANSWERS])
SETUPS = st.builds(
    lambda timing, sensors, relock, times: replace(
        timing, sensors=frozenset(sensors), relock=relock, held_open_time=times[0], pre_alarm_time=times[1]
    ),
    st.sampled_from(TIMINGS),
    st.sets(st.sampled_from(Sensor)) | st.just(set(Sensor)),
    st.sampled_from(RelockOn),
    st.sampled_from([(None, 0.0), (30.0, 0.0), (30.0, 10.0), (5.0, 10.0)]),
)


@given(STATES, INPUTS, st.floats(0, 2000), SETUPS)
@settings(max_examples=500)
def test_only_a_grant_at_a_normal_door_releases_and_only_the_wish_to_hold_it_holds(state, event, now, timing):
    _, effects = advance(state, event, now, timing)
    assert effects.count(RELEASE) == (isinstance(event, Grant) and state.mode is NORMAL)
    assert effects.count(HOLD) == (
        isinstance(event, ModeChosen) and event.mode is UNLOCKED and state.mode is NORMAL and timing.strike.can_hold
    )


@given(STATES, st.sampled_from(Sensor), SENSES, st.floats(0, 2000), SETUPS)
def test_no_sensor_ever_releases(state, sensor, sense, now, timing):
    """Whatever it says, in whatever state: the way out is mechanical, and who is outside stays there."""
    after, effects = advance(state, Sensed(sensor, sense), now, timing)
    assert not {RELEASE, HOLD} & set(effects)
    assert after.mode is state.mode
    assert after.releasing is state.releasing


@given(STATES, INPUTS, st.floats(0, 2000), SETUPS)
@settings(max_examples=500)
def test_no_input_ends_a_lockdown_except_that_it_is_lifted(state, event, now, timing):
    state = replace(state, mode=LOCKED_DOWN)
    after, effects = advance(state, event, now, timing)
    assert not {RELEASE, HOLD} & set(effects)
    assert (after.mode is LOCKED_DOWN) is (event != LockdownLifted())


@given(STATES, st.floats(0, 2000), SETUPS)
def test_what_is_due_happens_and_is_not_due_any_more(state, later, timing):
    """Else a door's task would ask again and again, for ever."""
    if state.due is not None:
        after, _ = advance(state, Elapsed(), state.due + later, timing)
        assert after != state


@given(STATES, INPUTS, st.floats(0, 2000), st.sampled_from(TIMINGS))
def test_locked_is_what_was_confirmed_and_never_what_was_hoped_for(state, event, now, timing):
    """Locked comes from the bolt's own word, from a confirmed command, or from the timer of a confirmed release."""
    after, _ = advance(state, event, now, timing)
    if after.lock is LOCKED and state.lock is not LOCKED:
        assert (
            event == Observed(Reading.SECURED)
            or (isinstance(event, Secured) and state.securing)
            or (event == Elapsed() and state.lock is ACCESSED and timing in (BLIND_DEVICE, BUTTON))
        )


NEW = S()


class Run:
    """A door at work, with a strike that answers each command as it is told to. Nothing comes between the two."""

    def __init__(self, timing, state=NEW):
        self.timing, self.state, self.now = timing, state, 0.0
        self.done = []
        self._answers = iter(())

    def take(self, event, seconds=0.0, answers=()):
        """Let ``seconds`` pass and something happen; what is left of ``answers`` goes to the next commands."""
        self.now += seconds
        self._answers = chain(answers, self._answers)
        self._take(event)

    def _take(self, event):
        self.state, effects = advance(self.state, event, self.now, self.timing)
        for effect in effects:
            self.done.append(effect)
            if effect is not OBSERVE and not isinstance(effect, Record):
                self._take(self._answer(effect))
            elif effect is OBSERVE:
                self._take(Observed(next(self._answers, (None, None, Reading.RELEASED))[2]))

    def _answer(self, effect):
        released, secured, _ = next(self._answers, (Released(), Secured(), None))
        return secured if effect is SECURE else released

    def obeys(self):
        """From now on the strike does what it is told."""
        self._answers = iter(())

    def count(self, *effects):
        return sum(self.done.count(effect) for effect in effects)


HOW_IT_ANSWERS = st.tuples(
    st.sampled_from([Released(), NotReleased(), Unresolved()]),
    st.sampled_from([NotSecured(), *(Secured(reading) for reading in Reading)]),
    st.sampled_from(Reading),
)
STEPS = st.lists(st.tuples(FROM_OUTSIDE, st.floats(0, 40), st.lists(HOW_IT_ANSWERS, max_size=3)), max_size=25)


def is_possible(event, timing):
    """A strike without feedback reports nothing."""
    return timing.strike.feedback or not isinstance(event, Observed) or event.reading is Reading.UNKNOWN


def runs(timing, steps, state=NEW):
    """Yield the run after each step."""
    run = Run(timing, state)
    for event, seconds, answers in steps:
        if is_possible(event, timing):
            run.take(event, seconds, answers)
            yield run


@given(STEPS, SETUPS)
def test_what_is_ours_to_end_has_a_deadline_or_is_held_open_on_purpose(steps, timing):
    for run in runs(timing, steps):
        if run.state.securing:
            assert run.state.deadline is not None or run.state.mode is UNLOCKED
        assert not run.state.releasing
        if run.state.mode is UNLOCKED:
            assert run.state.securing
            assert run.state.deadline is None


@given(STEPS, SETUPS)
def test_a_strike_that_reads_released_by_our_doing_is_put_back_when_its_time_is_over(steps, timing):
    """However it was disturbed, whatever was lost: unless it is held open on purpose or a device times it."""
    if timing.strike.device_timed or not timing.strike.feedback:
        return
    *_, run = (Run(timing), *runs(timing, steps))
    ours = run.state.released or run.state.unanswered
    if run.state.mode is UNLOCKED or not ours:
        return
    before = run.count(SECURE)
    run.obeys()
    run.take(Observed(Reading.RELEASED))
    for _ in range(9):
        if run.state.due is not None:
            run.take(Elapsed(), max(0.0, run.state.due - run.now))
    assert run.count(SECURE) > before
    assert run.state.lock is LOCKED


@given(STEPS, SETUPS)
def test_a_lockdown_releases_nothing_whatever_comes(steps, timing):
    begun = Run(timing)
    begun.take(Grant(ANN))
    begun.take(LockdownBegun())
    for run in runs(timing, [step for step in steps if step[0] != LockdownLifted()], begun.state):
        assert run.state.mode is LOCKED_DOWN
        assert run.count(RELEASE, HOLD) == 0


@given(STEPS, SETUPS)
def test_nothing_is_wrong_with_a_door_that_is_closed(steps, timing):
    for run in runs(timing, steps):
        if run.state.contact is INACTIVE:
            assert run.state.alarm is Alarm.NONE
            assert run.state.open_too_long_at is None
        if CONTACT not in timing.sensors:
            assert run.state.alarm is Alarm.NONE
            assert run.state.passage is None


@given(STEPS, SETUPS)
def test_a_door_without_a_request_to_exit_is_never_said_to_be_forced(steps, timing):
    for run in runs(replace(timing, sensors=timing.sensors - {REX}), steps):
        assert FORCED not in run.done


@given(STEPS, SETUPS)
def test_no_release_is_told_of_as_over_twice(steps, timing):
    """As often as the strike was told to release, and once more for a command that had no answer and may come late."""
    unanswered = sum(answer[0] == Unresolved() for _, _, answers in steps for answer in answers)
    for run in runs(timing, steps):
        assert run.count(RELOCKED) <= run.count(RELEASE, HOLD) + unanswered


@given(STEPS, SETUPS)
def test_where_every_command_is_answered_no_release_is_told_of_as_over_twice(steps, timing):
    steps = [(event, seconds, [a for a in answers if a[0] != Unresolved()]) for event, seconds, answers in steps]
    for run in runs(timing, steps):
        assert run.count(RELOCKED) <= run.count(RELEASE, HOLD)


@given(STEPS, SETUPS)
def test_an_access_is_taken_or_not_taken_and_never_both(steps, timing):
    for run in runs(timing, steps):
        assert run.count(TAKEN, NOT_TAKEN) <= run.count(RELEASE)


@given(STEPS, SETUPS)
def test_what_is_due_never_lies_back_for_long(steps, timing):
    """The task lets happen what is due before anything else: that must come to an end."""
    for run in runs(timing, steps):
        for _ in range(8):
            if run.state.due is None or run.state.due > run.now:
                break
            run.take(Elapsed())
        else:
            pytest.fail("still due")


QUIET_INPUTS = st.one_of(
    st.builds(Grant, NAMES),
    st.sampled_from([*ANSWERS, Elapsed(), LeftOpen(), *(Observed(reading) for reading in Reading)]),
)
QUIET_STEPS = st.lists(st.tuples(QUIET_INPUTS, st.floats(0, 10)), max_size=30)
"""One door in normal mode and its strike, in any order, possible or not."""


@given(QUIET_STEPS, st.sampled_from(TIMINGS))
def test_nothing_confirmed_never_makes_a_door_locked(steps, timing):
    state, now = S(), 0.0
    confirmed = (Observed(Reading.SECURED), Released(), Observed(Reading.RELEASED))
    for event, seconds in steps:
        now += seconds
        if event in confirmed or isinstance(event, Secured):
            continue
        state, _ = advance(state, event, now, timing)
        assert state.lock is UNKNOWN


@given(QUIET_STEPS, st.sampled_from([OURS, BLIND_OURS]))
def test_a_release_that_we_time_always_ends_in_an_attempt_to_secure(steps, timing):
    """However it is disturbed: while it is ours to end, there is a deadline, and at the deadline it is secured."""
    state, now = S(), 0.0
    for event, seconds in [(Grant(ANN), 0.0), (Released(), 0.0), *steps]:
        now += seconds
        state, effects = advance(state, event, now, timing)
        if SECURE in effects:
            # The task performs it before anything else happens, and it works or it does not.
            state, _ = advance(state, NotSecured(), now, timing)
        assert not state.securing or state.deadline is not None
    if state.securing:
        _, effects = advance(state, Elapsed(), state.deadline, timing)
        assert effects == (SECURE,)


@given(QUIET_STEPS, st.sampled_from([OURS, BLIND_OURS]))
def test_only_a_confirmed_securing_relieves_us_of_a_release(steps, timing):
    state, now = S(), 0.0
    for event, seconds in [(Grant(ANN), 0.0), (Unresolved(), 0.0), *steps]:
        now += seconds
        before = state
        state, _ = advance(state, event, now, timing)
        assert state.securing or not before.securing or isinstance(event, Secured)


@given(QUIET_STEPS, st.sampled_from([DEVICE, BLIND_DEVICE, BUTTON]))
@settings(max_examples=200)
def test_a_device_that_times_itself_is_never_told_to_end_an_access(steps, timing):
    """Only a mode, a lockdown or an opening that relocks tells it."""
    state, now = S(), 0.0
    for event, seconds in steps:
        now += seconds
        if event == LeftOpen():  # of another time, when the strike was said not to
            continue
        state, effects = advance(state, event, now, timing)
        assert not state.securing
        assert SECURE not in effects
