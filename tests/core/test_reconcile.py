"""Reconciliation with a carrier's daily lists: row 70 of protocol F, on the building's side."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import signing_key
from vestibule_core import reconcile
from vestibule_core.errors import MalformedMessage
from vestibule_core.keys import Alg
from vestibule_core.keyset import Issued
from vestibule_core.model import issuer
from vestibule_core.note import VerifierKey
from vestibule_core.reconcile import ASK_EVERY, ASKED_BACK, LIST_WITHIN, LOCK_AFTER, STATE, Alarm
from vestibule_core.token import erased_jti

A = issuer("https://parcels.example")
CONTROLLER = VerifierKey("vestibule/test", signing_key(Alg.EDDSA, "controller").private.public_key().public_bytes_raw())
MONDAY = date(2026, 11, 23)
DAY = timedelta(days=1)


def at(day, clock="12:00:00"):
    return int(datetime.fromisoformat(f"{day}T{clock}+00:00").astimezone(UTC).timestamp())


def jti(number):
    return f"{number:0>21}A"


NOW = at(MONDAY)
LISTED = at(MONDAY + DAY, "00:10:00")
"""When Monday's list is written."""


def a_list(*numbers, day=MONDAY, issued_at=None, part=0, parts=1):
    when = at(day + DAY, "00:10:00") if issued_at is None else issued_at
    return Issued(A, CONTROLLER, day, when, part, parts, tuple(sorted(map(jti, numbers))))


def begun():
    return reconcile.begin(A, 0, NOW)


def accepted(state, *tokens, now=NOW):
    """Take in tokens, each a number, or a number and its iat."""
    rows = ((token, NOW) if isinstance(token, int) else token for token in tokens)
    return reconcile.accept(state, [(jti(number), iat) for number, iat in rows], now)


def listed(state, *numbers, now=None, **of):
    the_list = a_list(*numbers, **of)
    return reconcile.take_list(state, the_list, the_list.issued_at if now is None else now)


def alarms(state, now=LISTED):
    return state.alarms(now)


# ---- what is as it should be ----


def test_tokens_that_were_issued_raise_no_alarm():
    state = listed(accepted(begun(), 1, 2), 1, 2, 3)
    assert alarms(state) == frozenset()
    assert state.waiting == ()


def test_a_token_waits_for_its_day_s_list():
    state = accepted(begun(), 1)
    assert alarms(state, NOW) == frozenset()
    assert len(state.waiting) == 1


def test_70_a_token_of_the_last_second_of_a_day_is_in_that_day_s_list_and_locks_nobody_out():
    last = at(MONDAY, "23:59:59")
    state = accepted(begun(), (1, last), now=last + 40)  # accepted on Tuesday
    state = listed(state, 1)
    state = listed(state, day=MONDAY + DAY)
    assert alarms(reconcile.look(state, LISTED + 10 * LOCK_AFTER), state.heard) == frozenset()


def test_a_token_that_is_heard_of_after_its_list_is_held_against_it():
    state = listed(begun(), 1, 2)
    assert alarms(accepted(state, 1, now=LISTED + 5)) == frozenset()
    assert alarms(accepted(state, 1, 7, now=LISTED + 5)) == {Alarm.NEVER_ISSUED}


def test_a_token_is_taken_in_once():
    state = accepted(accepted(begun(), 1, 1), 1)
    assert len(state.waiting) == 1
    state = listed(state)
    assert accepted(state, 1).missing == state.missing


def test_a_token_whose_driver_was_deleted_meanwhile_is_found_in_the_list_all_the_same():
    state = reconcile.accept(begun(), [(erased_jti(A, jti(1)), NOW)], NOW)
    assert alarms(listed(state, 1)) == frozenset()
    assert alarms(listed(state, 2)) == {Alarm.NEVER_ISSUED}


def test_a_token_of_before_its_day_was_kept_is_not_looked_at():
    assert reconcile.accept(begun(), [(jti(1), None)], NOW, upto=4) == replace(begun(), upto=4)


# ---- accepted, and never issued ----


def test_70_a_token_that_was_never_issued_is_an_alarm_and_its_list_is_asked_for_again():
    state = listed(accepted(begun(), 1, 666), 1)
    assert alarms(state) == {Alarm.NEVER_ISSUED}
    assert not state.locked_out
    state, days = reconcile.questions(state, LISTED)
    assert days == (MONDAY,)
    assert reconcile.questions(state, LISTED + ASK_EVERY - 1)[1] == ()
    assert reconcile.questions(state, LISTED + ASK_EVERY)[1] == (MONDAY,)


def test_70_still_missing_after_a_day_locks_the_carrier_out():
    state = listed(accepted(begun(), 666))
    assert not reconcile.look(state, LISTED + LOCK_AFTER - 1).locked_out
    late = reconcile.look(state, LISTED + LOCK_AFTER)
    assert late.locked_out
    assert Alarm.LOCKED_OUT in alarms(late)


def test_a_list_that_has_it_after_all_ends_the_alarm():
    state = listed(accepted(begun(), 1))
    state = listed(state, 1, issued_at=LISTED + 3600)
    assert alarms(state) == frozenset()
    assert not reconcile.look(state, LISTED + LOCK_AFTER).locked_out


def test_a_link_that_is_taken_away_and_made_again_is_no_way_round_the_lists():
    left = accepted(listed(accepted(begun(), 1, 666), 1), (2, at(MONDAY + DAY)))
    again = reconcile.resume(left, 77, LISTED + 60)
    assert (again.upto, again.missing, again.waiting) == (77, left.missing, left.waiting)
    assert alarms(again) == {Alarm.NEVER_ISSUED}
    assert reconcile.questions(again, LISTED + 60)[1] == (MONDAY,), "asked for at once, whenever it was before"
    assert reconcile.look(again, LISTED + LOCK_AFTER).locked_out, "the day goes on from where it was"
    assert not reconcile.look(listed(again, 1, 666, issued_at=LISTED + 3600), LISTED + LOCK_AFTER).locked_out


def test_a_new_link_has_two_days_for_its_first_list_however_long_there_was_none():
    again = reconcile.resume(accepted(begun(), 1), 77, NOW + 30 * LIST_WITHIN)
    assert alarms(again, NOW + 31 * LIST_WITHIN - 1) == frozenset()
    assert alarms(again, NOW + 31 * LIST_WITHIN) == {Alarm.NO_LIST}


def test_a_list_that_comes_after_the_lock_out_does_not_end_it():
    state = reconcile.look(listed(accepted(begun(), 1)), LISTED + LOCK_AFTER)
    assert listed(state, 1, issued_at=LISTED + LOCK_AFTER).locked_out


def test_an_administrator_lets_the_carrier_in_again_and_the_same_token_locks_it_out_no_more():
    state = reconcile.look(listed(accepted(begun(), 666)), LISTED + LOCK_AFTER)
    state = reconcile.approve(state)
    assert alarms(state) == frozenset()
    state = listed(state, issued_at=LISTED + LOCK_AFTER)
    assert not reconcile.look(state, LISTED + 9 * LOCK_AFTER).locked_out


@pytest.mark.parametrize(
    "iat, why",
    [
        (at(MONDAY + 3 * DAY), "a day that had not come yet"),
        (2**53 - 1, "beyond the calendar"),
    ],
)
def test_a_thief_who_dates_a_token_ahead_is_found_by_the_next_list(iat, why):
    assert alarms(listed(accepted(begun(), (666, iat)))) == {Alarm.NEVER_ISSUED}, why


def test_a_thief_who_dates_a_token_back_is_found_as_its_list_is_asked_for():
    state = accepted(listed(begun()), (666, at(MONDAY - 5 * DAY)), now=LISTED + 60)
    assert alarms(state) == frozenset()
    state, days = reconcile.questions(state, LISTED + 60)
    assert days == (MONDAY - 5 * DAY,)
    state = listed(state, day=MONDAY - 5 * DAY, issued_at=LISTED + 61)
    assert alarms(state) == {Alarm.NEVER_ISSUED}


def test_a_thief_who_dates_a_token_back_so_far_that_nobody_lists_it_is_found_at_once():
    state = accepted(listed(begun()), (666, at(MONDAY - ASKED_BACK)), now=LISTED + 60)
    assert alarms(state) == {Alarm.NEVER_ISSUED}


def test_a_token_of_the_day_of_the_list_that_comes_first_is_not_ahead():
    state = accepted(begun(), (1, at(MONDAY + DAY, "00:05:00")), (2, at(MONDAY + 2 * DAY, "00:00:10")))
    assert alarms(listed(state)) == frozenset(), "clocks differ"


# ---- lists that do not come ----


def test_70_a_list_that_is_withheld_is_an_alarm_and_locks_nobody_out():
    state = accepted(begun(), 1)
    assert alarms(state, NOW + LIST_WITHIN - 1) == frozenset()
    assert alarms(state, NOW + LIST_WITHIN) == {Alarm.NO_LIST}
    assert not reconcile.look(state, NOW + 30 * LIST_WITHIN).locked_out


def test_a_list_of_one_day_that_is_left_out_is_asked_for_and_then_an_alarm():
    state = accepted(begun(), 1)
    for later in range(1, 40):
        state = listed(state, day=MONDAY + later * DAY)
        if later == 1:
            assert reconcile.questions(state, state.heard)[1] == (MONDAY,)
        if later < 35:
            assert alarms(state, state.heard) == (frozenset() if later == 1 else {Alarm.NO_LIST})
    assert alarms(state, state.heard) == frozenset(), "it will not come any more, and that was told"
    assert not state.locked_out


def test_an_old_list_again_does_not_hide_that_no_new_one_comes():
    state = listed(begun())
    state = listed(state, issued_at=LISTED + 9 * 86400)
    assert alarms(state, LISTED + LIST_WITHIN) == {Alarm.NO_LIST}


def test_a_list_says_nothing_before_all_its_parts_are_there():
    state = accepted(begun(), 1, 2)
    state = listed(state, 1, part=0, parts=2)
    assert (len(state.waiting), alarms(state)) == (2, frozenset())
    assert listed(state, 1, part=0, parts=2) == state, "the same part again"
    state = listed(state, 2, part=1, parts=2)
    assert (state.waiting, alarms(state)) == ((), frozenset())


def test_parts_of_two_editions_do_not_make_one_list():
    state = listed(accepted(begun(), 1), part=0, parts=2)
    state = listed(state, 1, issued_at=LISTED + 60, part=1, parts=2)
    assert len(state.waiting) == 1
    state = listed(state, issued_at=LISTED + 60, part=0, parts=2)
    assert alarms(state) == frozenset()


def test_an_edition_that_was_replaced_is_not_taken_any_more():
    state = listed(accepted(begun(), 1), 1, issued_at=LISTED + 60)
    assert listed(state, issued_at=LISTED) == state


def test_what_is_begun_and_never_finished_does_not_pile_up():
    state = begun()
    for number in range(50):
        state = listed(state, part=0, parts=2, day=MONDAY + number * DAY)
    assert len(state.lists) == 4
    for number in range(50):
        state = listed(state, day=MONDAY + number * DAY)
    assert [each.day for each in state.lists] == [MONDAY + number * DAY for number in (47, 48, 49)]


def test_tokens_that_wait_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(reconcile, "MOST", 3)
    state = accepted(begun(), 1, 2, 3, 4, 5)
    assert state.waiting == accepted(begun(), 3, 4, 5).waiting


# ---- how it is kept ----

numbers = st.integers(0, 5)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("accept"), numbers, st.integers(-40, 10)),
        st.tuples(st.just("list"), st.lists(numbers, max_size=4), st.integers(-3, 3), st.integers(0, 2)),
        st.tuples(st.just("look"), st.integers(0, 3 * LOCK_AFTER)),
        st.tuples(st.just("ask")),
        st.tuples(st.just("approve")),
    ),
    max_size=12,
)


@given(steps)
def test_whatever_happens_the_state_is_kept_as_it_is_and_only_what_is_in_no_list_locks_out(happening):
    state, now, issued = begun(), NOW, set()
    for what, *of in happening:
        now += 60
        match what:
            case "accept":
                state = accepted(state, (of[0], NOW + of[1] * 86400), now=now)
            case "list":
                day = MONDAY + of[1] * DAY
                parts = max(1, of[2])
                state = listed(state, *of[0], day=day, part=0, parts=parts, now=now)
                issued |= set(of[0])
            case "look":
                now += of[0]
                state = reconcile.look(state, now)
            case "ask":
                state, _ = reconcile.questions(state, now)
            case "approve":
                state = reconcile.approve(state)
        assert STATE.read(STATE.write(state)) == state
        assert not (state.locked_out and not any(step[0] == "accept" for step in happening))


@given(
    st.sampled_from(sorted(STATE.write(begun()))), st.one_of(st.none(), st.text(), st.integers(), st.lists(st.none()))
)
def test_what_was_kept_and_cannot_be_read_is_malformed(member, value):
    with suppress(MalformedMessage):
        STATE.read(STATE.write(begun()) | {member: value})


def test_the_state_holds_no_token_s_id():
    state = listed(accepted(begun(), 1, 2), 1)
    assert jti(1) not in str(STATE.write(state))
    assert jti(2) not in str(STATE.write(state))
