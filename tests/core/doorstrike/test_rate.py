"""Twenty spends a minute, whatever the power does: so that none leaves the ring while it may be asked for again."""

import random
from contextlib import suppress
from itertools import count

import pytest

from tests.core.doorstrike.bench import Bench, unlock
from vestibule_core.doorstrike.log import MOST_SPENDS, RATE_TIME, History, Log, Spend, Spends
from vestibule_core.doorstrike.memory import Part, Unreadable, decode_log
from vestibule_core.doorstrike.wire import Event, Result
from vestibule_core.errors import StrikeUnreachable

ASKED_FOR = 125.0
"""Seconds after which nothing can ask for a spend any more."""


def ids():
    return (number.to_bytes(16) for number in count(1))


def spend(bench, paired, some, many=1):
    """Unlock so many times in one session; return the results."""
    wire = bench.session(paired)
    return [wire.ask(unlock(next(some))).state.result for _ in range(many)]


# ---- attacks ----


def test_row_53_the_same_spend_after_eighty_others_over_four_power_cuts():
    bench, some = Bench(), ids()
    paired = bench.pair()
    first = next(some)
    bench.session(paired).ask(unlock(first))
    for _ in range(4):
        bench.reboot(0)
        spend(bench, paired, some, 20)
    assert bench.session(paired).ask(unlock(first)).state.result is Result.DUPLICATE
    assert len(bench.pulses) == 20


@pytest.mark.parametrize("off", [0, 1, 3600])
def test_a_power_cut_does_not_begin_a_new_minute(off):
    """How long the power was off the strike cannot know."""
    bench, some = Bench(), ids()
    paired = bench.pair()
    assert spend(bench, paired, some, 21) == [Result.OK] * 20 + [Result.RATE]
    bench.reboot(off)
    bench.wait(59.9)
    assert spend(bench, paired, some) == [Result.RATE]
    bench.wait(0.1)
    assert spend(bench, paired, some, 21) == [Result.OK] * 20 + [Result.RATE]


def test_a_second_power_cut_begins_the_minute_anew():
    bench, some = Bench(), ids()
    paired = bench.pair()
    spend(bench, paired, some, 20)
    for _ in range(3):
        bench.reboot(0)
        bench.wait(59)
        assert spend(bench, paired, some) == [Result.RATE]


def test_the_power_is_cut_at_the_first_effect_of_a_power_up():
    """What is on the disk then still has the times of the power-up before."""
    bench, some = Bench(), ids()
    paired = bench.pair()
    spend(bench, paired, some, 20)
    bench.cut_power()
    bench.effects_left = 0
    bench.power_up()
    bench.power_up()
    assert spend(bench, paired, some) == [Result.RATE]


# ---- those who do nothing wrong ----


def test_one_use_an_hour_is_not_slowed_by_power_cuts():
    bench, some = Bench(), ids()
    paired = bench.pair()
    for _ in range(100):
        assert spend(bench, paired, some) == [Result.OK]
        bench.reboot()
        assert spend(bench, paired, some) == [Result.OK]
        bench.wait(3600)


def test_a_burst_long_before_the_power_cut_does_not_count():
    bench, some = Bench(), ids()
    paired = bench.pair()
    spend(bench, paired, some, 20)
    bench.wait(70)
    spend(bench, paired, some)
    bench.reboot(0)
    assert spend(bench, paired, some, 20) == [Result.OK] * 19 + [Result.RATE]


def test_any_event_shows_that_the_minute_was_over():
    bench, some = Bench(), ids()
    paired = bench.pair()
    spend(bench, paired, some, 20)
    bench.wait(61)
    bench.hold_button()
    bench.reboot(0)
    assert spend(bench, paired, some, 20) == [Result.OK] * 20


def test_an_event_whose_uptime_started_over_does_not_make_a_spend_older():
    at = 2**32 + 30_000
    log = Log(Spends((Spend(bytes(16), at=at - 20_000), Spend(bytes(16), at=at))), History(events=(Event(1, 5, 1),)))
    assert [one.at for one in log.powered_up().spends.spends] == [0, 0]


def test_the_first_power_up_has_nothing_to_count():
    assert Log().powered_up() == Log(history=History(boots=1))


# ---- anything ----


def one_life(seed):
    """Spends, duplicates, waiting and power cuts in any order; the power is off for any time, also for none."""
    rng, some = random.Random(seed), ids()
    bench = Bench(seed=seed)
    paired = bench.pair()
    recorded, pulses = {}, {}

    def ask(spend_id):
        nonlocal wire
        if bench.strike is None:
            return
        before, began = len(bench.pulses), bench.now
        with suppress(StrikeUnreachable):  # the power was cut before it was asked
            if wire is None or not wire.alive:
                wire = bench.session(paired)
            wire.ask(unlock(spend_id))
        moved = len(bench.pulses) - before
        pulses[spend_id] = pulses.get(spend_id, 0) + moved
        if moved or kept(bench.flash).find(spend_id) is not None:
            recorded.setdefault(spend_id, began)

    wire = None
    for _ in range(rng.randrange(10, 40)):
        match rng.randrange(6):
            case 0 | 1:
                for _ in range(rng.choice([1, 5, 20, 25])):
                    ask(next(some))
                    bench.now += rng.choice([0, 0, 0.1, 3])
            case 2:
                for spend_id in [one for one, at in recorded.items() if bench.now - at < ASKED_FOR][:3]:
                    ask(spend_id)
            case 3:
                bench.wait(rng.choice([0.5, 10, 30, 59.9, 60, 70]))
            case 4:
                bench.effects_left, bench.tears = rng.randrange(8), rng.random() < 0.1
                ask(next(some))
                bench.effects_left = None
            case _:
                bench.cut_power()
        if bench.strike is None:
            bench.now += rng.choice([0, 0, 0, 1, 60])
            bench.power_up()
        spends = kept(bench.flash)
        assert len(spends.spends) <= MOST_SPENDS
        for spend_id, at in recorded.items():
            if bench.now - at <= ASKED_FOR:
                assert spends.holed or spends.find(spend_id) is not None, "out of the ring while it may be asked for"
    assert max(pulses.values(), default=0) <= 1, "never a second pulse"
    times = sorted(recorded.values())
    for first, last in zip(times, times[20:], strict=False):
        assert last - first > RATE_TIME / 1000 - 0.002, "twenty in any minute, in real time"
    return len(recorded)


def kept(flash):
    """The spends on the disk; of a torn log, none and a hole."""
    try:
        return decode_log(flash[Part.LOG]).spends
    except Unreadable:
        return Spends(holed=True)


@pytest.mark.parametrize(
    "lives",
    [
        pytest.param(range(30), id="30"),
        pytest.param(range(1000, 3000), id="2000", marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
)
def test_no_spend_leaves_the_ring_while_it_may_be_asked_for(lives):
    assert max(one_life(seed) for seed in lives) > MOST_SPENDS, "or the ring was never full"
