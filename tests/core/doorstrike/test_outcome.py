"""What became of a release: every answer there is, and what proves that a strike has not powered up since."""

import pytest

from vestibule_core.doorstrike.outcome import Outcome, answered, may_send_again, queried
from vestibule_core.doorstrike.wire import Contact, Event, EventKind, Relay, Result, SpendState, State

SPEND = bytes(range(16))
UNSEEN, RECORDED, RELAY_ON, COMPLETE = SpendState
DONE, NOT_MOVED, ALREADY_SPENT, UNKNOWN = Outcome


def state(result=Result.OK, spend_state=RELAY_ON, evt_seq=0):
    return State(result, Relay.LOCKED, Contact.UNKNOWN, False, False, spend_state, 0, None, evt_seq, SPEND)


@pytest.mark.parametrize("result", Result)
@pytest.mark.parametrize("sent_before", [False, True])
def test_the_answer_to_a_release(result, sent_before):
    expected = {Result.OK: DONE, Result.DUPLICATE: UNKNOWN if sent_before else ALREADY_SPENT}.get(result, NOT_MOVED)
    assert answered(state(result), sent_before=sent_before) is expected


def test_a_duplicate_of_ones_own_that_is_complete():
    assert answered(state(Result.DUPLICATE, COMPLETE), sent_before=True) is DONE


@pytest.mark.parametrize(
    "result, spend_state, sent_ago, expected",
    [
        (Result.OK, UNSEEN, 5.9, UNKNOWN),  # it may still be on its way
        (Result.OK, UNSEEN, 6.0, NOT_MOVED),
        (Result.OK, UNSEEN, 120.0, NOT_MOVED),
        (Result.OK, UNSEEN, 120.1, UNKNOWN),  # it may have been forgotten
        (Result.OK, COMPLETE, 0.0, DONE),
        (Result.OK, COMPLETE, 9e9, DONE),
        (Result.RELAY_FAULT, RECORDED, 6.0, NOT_MOVED),
        (Result.LOCKOUT, UNSEEN, 6.0, UNKNOWN),
        (Result.LATE, UNSEEN, 6.0, UNKNOWN),
        (Result.RIGHTS, UNSEEN, 6.0, UNKNOWN),
        (Result.OK, RECORDED, 6.0, UNKNOWN),
        (Result.OK, RELAY_ON, 6.0, UNKNOWN),
    ],
)
def test_the_answer_to_a_query(result, spend_state, sent_ago, expected):
    assert queried(state(result, spend_state), sent_ago=sent_ago) is expected


def on(seq, spend_id=SPEND):
    return Event(seq, 0, EventKind.RELAY_ON, 0, spend_id)


def other(seq, kind=EventKind.OPENED):
    return Event(seq, 0, kind)


@pytest.mark.parametrize(
    "events, heard, evt_seq, expected",
    [
        ([on(5)], None, 5, DONE),
        ([on(5), other(6)], None, 6, DONE),
        ([other(4, EventKind.BOOT), on(5), other(6)], None, 6, DONE),
        ([on(5), other(6, EventKind.BOOT)], None, 6, UNKNOWN),
        ([on(5), other(7)], None, 7, UNKNOWN),
        ([on(5)], None, 6, UNKNOWN),
        ([on(5, bytes(16))], None, 5, UNKNOWN),
        ([other(5)], 4, 5, DONE),
        ([], 5, 5, DONE),
        ([other(6)], 4, 6, UNKNOWN),
        ([other(5, EventKind.BOOT)], 4, 5, UNKNOWN),
        ([], None, 5, UNKNOWN),
        ([], 4, 5, UNKNOWN),
    ],
    ids=[
        "its own RELAY_ON is the newest",
        "something else after it",
        "a power-up before it",
        "a power-up after it",
        "a gap after it",
        "the newest is missing",
        "the RELAY_ON of another spend",
        "all since the last one that was heard",
        "nothing since the last one that was heard",
        "a gap since the last one that was heard",
        "a power-up since the last one that was heard",
        "nothing is known",
        "nothing could be read",
    ],
)
@pytest.mark.parametrize("spend_state", [RECORDED, RELAY_ON])
def test_whether_it_powered_up_since(events, heard, evt_seq, expected, spend_state):
    found = queried(state(spend_state=spend_state, evt_seq=evt_seq), sent_ago=6.0, events=events, heard=heard)
    assert found is expected


@pytest.mark.parametrize("outcome", Outcome)
def test_only_what_did_not_move_is_sent_again_and_only_in_time(outcome):
    assert may_send_again(outcome, 4.99) is (outcome is NOT_MOVED)
    assert not may_send_again(outcome, 5.0)
