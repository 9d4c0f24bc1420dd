"""Links and power that fail in the middle of an unlock: at every packet, at every effect, and at random.

Never a second pulse, and never a wrong word about the first one: DONE means that it was, NOT_MOVED that it was not.
"""

import random

import pytest

from tests.core.doorstrike.bench import SPEND, Bench, events_of, unlock
from vestibule_core.doorstrike.outcome import Outcome, answered, may_send_again, queried
from vestibule_core.doorstrike.wire import Command, Op, Result
from vestibule_core.errors import StrikeUnreachable

SIZES = [20, 62, 244]
PACKETS = {20: 10, 62: 5, 244: 3}
"""HELLO, HS1 and HS2 at these sizes (protocol B.1)."""


def find_out(bench, paired, spend_id=SPEND, sent_at=None, heard=0):
    """What the client does after a link was lost: wait, connect again, ask, and read the events if it has to."""
    bench.wait(6)
    wire = bench.connect(paired)
    state = wire.ask(Command(Op.QUERY, 0, spend_id)).state
    events = events_of(wire, heard + 1)
    return queried(state, sent_ago=bench.now - (sent_at or bench.now - 6), events=events, heard=heard)


@pytest.mark.parametrize("size", SIZES)
def test_an_unlock_has_as_many_packets_as_the_protocol_says(size):
    bench = Bench()
    paired = bench.pair()
    wire = bench.connect(paired, size=size)
    wire.ask(unlock())
    events = len(wire.events)
    relay_on = 3 if size == 20 else 1  # the event of 44 bytes that follows
    assert events == 1
    assert len(wire.heard) + len(wire.sent) == PACKETS[size] + relay_on


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cut_after", range(14))
def test_the_link_is_cut_at_every_packet_of_a_cold_unlock(size, cut_after):
    bench = Bench()
    paired = bench.pair()
    wire = bench.connect(paired, size=size, cut_after=cut_after)
    if not wire.greeted:
        with pytest.raises(StrikeUnreachable):
            wire.send(unlock())
        assert bench.pulses == []
        return
    answer = wire.ask(unlock())
    if answer is not None:
        outcome = answered(answer.state, sent_before=False)
    else:
        assert wire.ended.unanswered == unlock()
        outcome = find_out(bench, paired)
    assert outcome is (Outcome.DONE if bench.pulses else Outcome.NOT_MOVED)
    bench.connect(paired).ask(unlock())
    assert bench.pulses == [0.5], "the same spend, once more: it moves if and only if it had not"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cut_after", range(9))
def test_the_link_is_cut_at_every_packet_of_an_unlock_on_a_kept_connection(size, cut_after):
    bench = Bench()
    paired = bench.pair()
    wire = bench.session(paired, size=size)
    wire.cut_after = cut_after
    answer = wire.ask(unlock())
    outcome = answered(answer.state, sent_before=False) if answer else find_out(bench, paired)
    assert outcome is (Outcome.DONE if bench.pulses else Outcome.NOT_MOVED)
    bench.connect(paired).ask(unlock())
    assert bench.pulses == [0.5]


def test_a_query_in_time_lets_the_same_spend_go_on():
    bench = Bench()
    paired = bench.pair()
    wire = bench.connect(paired, tap=lambda to_strike, fragment: [] if to_strike else [fragment])
    wire.ask(unlock())
    wire.cut()
    outcome = find_out(bench, paired)
    assert outcome is Outcome.NOT_MOVED
    assert may_send_again(outcome, 4.9)
    assert not may_send_again(outcome, 5.0)


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("kept", [False, True], ids=["cold", "kept connection"])
@pytest.mark.parametrize("effects", range(6))
def test_the_power_is_cut_at_every_effect_of_an_unlock(effects, kept, torn):
    bench = Bench()
    paired = bench.pair()
    wire = bench.session(paired) if kept else bench.connect(paired)
    bench.effects_left, bench.tears = effects, torn
    answer = wire.ask(unlock())
    bench.effects_left = None
    if bench.strike is None:
        bench.now += 1
        bench.power_up()
        assert not bench.released, "nothing moves at power-up"
    moved = list(bench.pulses)
    outcome = answered(answer.state, sent_before=False) if answer else find_out(bench, paired)
    if outcome is Outcome.DONE:
        assert moved == [0.5]
    if outcome is Outcome.NOT_MOVED:
        assert moved == []
        return
    for _ in range(3):
        assert bench.connect(paired).ask(unlock()).state.result in (Result.DUPLICATE, Result.LOCKOUT)
        bench.reboot()
    assert bench.pulses == moved


def test_the_outcome_of_each_power_cut():
    """The row of outcomes, one for each effect after which nothing more is done."""
    outcomes = []
    for effects in range(5):
        bench = Bench()
        paired = bench.pair()
        wire = bench.connect(paired)
        bench.effects_left = effects
        answer = wire.ask(unlock())
        bench.effects_left = None
        if bench.strike is None:
            bench.power_up()
        outcome = answered(answer.state, sent_before=False) if answer else find_out(bench, paired)
        outcomes.append((outcome, len(bench.pulses)))
    assert outcomes == [
        (Outcome.NOT_MOVED, 0),  # nothing on the disk
        (Outcome.UNKNOWN, 0),  # recorded
        (Outcome.UNKNOWN, 1),  # the relay is on
        (Outcome.UNKNOWN, 1),  # HS2 was given to the radio, which lost its power as well
        (Outcome.UNKNOWN, 1),  # its progress is on the disk
    ]


def one_life(seed):
    """A strike and a client that unlock again and again while everything around them fails."""
    rng = random.Random(seed)
    bench = Bench(seed=seed)
    paired = bench.pair()
    reboots = 0
    for _ in range(4):
        spend_id = rng.randbytes(16)
        before, sent_at, boots = len(bench.pulses), bench.now, reboots
        heard = bench.strike._device.history.seq
        wire = bench.connect(paired, size=rng.choice(SIZES), cut_after=rng.choice([None, rng.randrange(16)]))
        if rng.random() < 0.3:
            bench.effects_left, bench.tears = rng.randrange(6), rng.random() < 0.3
        try:
            answer = wire.ask(unlock(spend_id, rng.choice([50, 800])))
        except StrikeUnreachable:
            assert len(bench.pulses) == before
            answer = None
        bench.wait(rng.choice([0, 0.3, 5]))
        bench.effects_left = None
        if bench.strike is None or rng.random() < 0.1:
            bench.reboot()
            reboots += 1
        if answer is not None:
            outcome = answered(answer.state, sent_before=False)
        else:
            outcome = find_out(bench, paired, spend_id, sent_at, heard)
        moved = len(bench.pulses) - before
        assert moved <= 1
        match outcome:
            case Outcome.DONE:
                assert moved == 1
            case Outcome.NOT_MOVED:
                assert moved == 0
            case _:
                assert outcome is Outcome.UNKNOWN
                holed = bench.strike._device.spending.lockout_until is not None
                assert reboots > boots or holed, "only a power cut leaves a question open"
        if outcome is not Outcome.NOT_MOVED:
            bench.connect(paired).ask(unlock(spend_id))
            assert len(bench.pulses) - before == moved, "never a second pulse"
        bench.wait(rng.choice([1, 11]))


@pytest.mark.parametrize("some", range(10))
def test_200_random_cuts(some):
    for seed in range(20):
        one_life(some * 20 + seed)
