"""The client: every wait of it, and what it tells of an end. What it refuses is in test_attacks.py."""

from dataclasses import replace

import pytest

from tests.core.doorstrike.bench import SPEND, STRIKE_ID, Bench, unlock
from vestibule_core.doorstrike import frames
from vestibule_core.doorstrike.client import SESSION_LIFE, Client, Ended, Ending, Paired, Verified, Write
from vestibule_core.doorstrike.fragments import cut
from vestibule_core.doorstrike.wire import (
    ERR,
    HELLO_REQ,
    Caps,
    Command,
    Contact,
    Hello,
    Op,
    Relay,
    Result,
    SpendState,
    State,
)
from vestibule_core.errors import StrikeUnreachable

PING = Command(Op.PING)
QUERY = Command(Op.QUERY, 0, SPEND)


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def paired(bench):
    return bench.pair()


def silent(to_strike, fragment):
    """Nothing comes back."""
    return [fragment] if to_strike else []


def fresh(now=0.0, **how):
    return Client(Paired(STRIKE_ID, 1, bytes(32)), 20, lambda size: b"\x07" * size, now, **how)


def ended(outputs):
    (output,) = outputs
    assert isinstance(output, Ended)
    return output.ending


def test_hello_is_asked_for_three_times_and_then_given_up():
    client = fresh()
    ask = [Write(*cut(HELLO_REQ, 20), with_response=True)]
    for second in (1.0, 2.0, 3.0):
        assert client.due == second
        assert client.elapsed(second - 0.01) == []
        assert client.elapsed(second) == ask
    assert ended(client.elapsed(4.0)) is Ending.NO_HELLO
    assert client.due is None
    assert client.elapsed(99.0) == []


def test_a_strike_whose_hello_was_lost(bench, paired):
    lost = []
    wire = bench.connect(
        paired, tap=lambda to_strike, fragment: [] if not to_strike and not lost and not lost.append(1) else [fragment]
    )
    assert not wire.greeted
    bench.wait(1)
    assert wire.greeted
    assert wire.ask(unlock()).state.result is Result.OK


def test_a_hello_that_was_only_slow_comes_twice(bench, paired):
    wire = bench.connect(paired)
    (hello,) = wire.heard
    wire.to_client.append(hello)
    bench.run()
    assert wire.alive
    wire.send(unlock())
    wire.to_client.append(hello)
    bench.run()
    assert wire.verified


def test_another_hello_after_the_first_one(bench, paired):
    wire = bench.connect(paired)
    wire.to_client.extend(cut(Hello(1, Caps(0), STRIKE_ID, bytes(16)).encode(), 244))
    bench.run()
    assert wire.ended.ending is Ending.VIOLATION


@pytest.mark.parametrize("late, ending", [(4.4, None), (4.5, Ending.STALE)])
def test_a_hello_that_is_not_used_goes_stale(bench, paired, late, ending):
    wire = bench.connect(paired)
    bench.now += late
    if ending is None:
        assert wire.ask(unlock()).state.result is Result.OK
    else:
        with pytest.raises(StrikeUnreachable):
            wire.send(unlock())
        assert wire.client.elapsed(bench.now) == [Ended(ending, None)]
        assert bench.pulses == []


@pytest.mark.parametrize("late, is_over", [(5.9, False), (6.0, True)])
def test_six_seconds_for_hs2(bench, paired, late, is_over):
    client = fresh()
    client.notified(cut(Hello(1, Caps(0), STRIKE_ID, bytes(16)).encode(), 244)[0], 0.0)
    client.command(unlock(), 1.0)
    assert client.due == 7.0
    outputs = client.elapsed(1.0 + late)
    assert outputs == ([Ended(Ending.NO_ANSWER, unlock())] if is_over else [])


def test_six_seconds_for_an_answer(bench, paired):
    wire = bench.session(paired)
    wire.tap = silent
    wire.send(unlock())
    bench.wait(5.9)
    assert wire.ended is None
    bench.wait(0.1)
    assert wire.ended == Ended(Ending.NO_ANSWER, unlock())
    assert bench.pulses == [0.5], "it did: what was not answered is unknown"


def test_the_last_fragment_of_a_message_is_written_with_response(bench, paired):
    wire = bench.connect(paired, size=20)
    outputs = wire.client.command(unlock(), bench.now)
    assert [output.with_response for output in outputs] == [False, False, False, True]


def test_one_question_at_a_time(bench, paired):
    wire = bench.session(paired)
    wire.send(QUERY)
    assert not wire.client.ready
    with pytest.raises(StrikeUnreachable):
        wire.send(unlock())
    bench.run()
    assert wire.client.ready
    assert wire.ask(unlock()).state.result is Result.OK


def test_nothing_can_be_asked_before_the_strike_has_greeted():
    with pytest.raises(StrikeUnreachable):
        fresh().command(unlock(), 0.0)


def test_the_first_command_has_no_body(bench, paired):
    wire = bench.connect(paired)
    with pytest.raises(StrikeUnreachable):
        wire.send(Command(Op.EVENTS), frames.events_from(1))
    assert wire.ask(PING), "it can be asked all the same"


def test_nothing_can_be_asked_after_the_end(bench, paired):
    wire = bench.session(paired)
    wire.cut()
    with pytest.raises(StrikeUnreachable):
        wire.send(unlock())
    assert wire.client.lost() == []
    assert wire.client.notified(b"\x00", bench.now) == []


@pytest.mark.parametrize(
    "end, ending", [(lambda wire: wire.cut(), Ending.LINK_LOST), (lambda wire: wire.close(), Ending.CLOSED)]
)
def test_what_was_not_answered_is_told(bench, paired, end, ending):
    wire = bench.connect(paired)
    wire.send(unlock())
    end(wire)
    assert wire.ended == Ended(ending, unlock())
    assert bench.pulses == []


def test_what_was_answered_is_not(bench, paired):
    wire = bench.connect(paired)
    wire.ask(unlock())
    wire.cut()
    assert wire.ended == Ended(Ending.LINK_LOST, None)


def test_an_err_that_anybody_can_send_does_not_say_that_nothing_moved(bench, paired):
    wire = bench.connect(paired)
    wire.send(unlock())
    wire.tap = lambda to_strike, fragment: [fragment] if to_strike else [cut(ERR, 244)[0]]
    bench.run()
    assert wire.ended == Ended(Ending.REFUSED, unlock())
    assert bench.pulses == [0.5]


def test_the_version_is_proved_by_hs2_only(bench, paired):
    wire = bench.connect(paired)
    assert not wire.verified
    wire.ask(unlock())
    assert wire.news[1] == Verified(1)
    wrong = bench.connect(replace(paired, psk=bytes(32)))
    wrong.ask(unlock())
    assert not wrong.verified


def test_a_kept_connection_is_kept(bench, paired):
    wire = bench.session(paired, keep=True)
    bench.wait(600)
    assert wire.alive
    assert wire.ask(unlock()).state.result is Result.OK


def test_a_connection_that_is_not_kept_is_let_go_of(bench, paired):
    wire = bench.session(paired)
    bench.wait(61)
    assert not wire.alive


def test_a_kept_connection_is_made_anew_before_two_clocks_can_drift_apart(bench, paired):
    wire = bench.session(paired, keep=True)
    bench.wait(SESSION_LIFE - 1)
    assert wire.alive
    bench.wait(2)
    assert wire.ended == Ended(Ending.RENEW, None)


@pytest.mark.parametrize("drift", [1 - 1e-4, 1 + 1e-4])
def test_100_ppm_of_drift_make_no_request_late(bench, paired, drift):
    wire = bench.session(paired)
    at_client = wire.bench.now + (SESSION_LIFE - 1) * drift
    (write,) = wire.client.command(PING, at_client)
    wire.take = lambda outputs: None
    link = wire.bench.strike._links[wire.number]
    link.deadline = 1e9
    bench.now += SESSION_LIFE - 1
    bench.tell("fragment", wire.number, write.fragment)
    reply = wire.to_client.popleft()[3:]
    assert frames.from_strike(wire.client._transport.decrypt(reply[1:])).state.result is Result.OK


STATE = State(Result.OK, Relay.LOCKED, Contact.UNKNOWN, False, False, SpendState.UNSEEN, 0, None, 0, SPEND)


@pytest.mark.parametrize(
    "reply",
    [
        frames.Reply(Op.PING, STATE),
        frames.Reply(Op.QUERY, replace(STATE, spend_id=b"\x01" * 16)),
        None,
    ],
    ids=["to another operation", "about another spend", "to no question"],
)
def test_an_answer_that_does_not_fit_the_question(bench, paired, reply):
    wire = bench.session(paired)
    if reply is not None:
        wire.client.command(QUERY, bench.now)
    transport = bench.strike._links[wire.number].session.transport
    sealed = transport.encrypt((reply or frames.Reply(Op.QUERY, STATE)).encode())
    wire.to_client.extend(cut(frames.data(sealed), 244))
    bench.run()
    assert wire.ended.ending is Ending.VIOLATION
