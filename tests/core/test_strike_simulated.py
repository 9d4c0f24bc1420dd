"""The test double passes what every driver must pass, and its verbs do what they say."""

import asyncio
from functools import partial

import pytest

from tests.conformance import StrikeConformance, StrikeHarness
from tests.simulated import Moment, SimulatedStrike, pulses_in
from vestibule_core import errors
from vestibule_core.strike import Pulse, Reading

PULSE = Pulse(b"\x01" * 16, 60.0)


class Harness(StrikeHarness):
    errors = errors
    patience = 0.02

    def __init__(self, strike):
        self.strike = strike

    def pulse(self, seconds=60.0):
        return Pulse(bytes(16), seconds)

    @property
    def commands(self):
        return self.strike.commands

    @property
    def movements(self):
        return len(self.strike.pulses)

    @property
    def is_secured(self):
        return self.strike.bolt is Reading.SECURED

    async def make_unreachable(self):
        self.strike.cut_power()

    async def make_reachable(self):
        self.strike.restore_power()

    async def refuse(self):
        self.strike.refuse()

    async def hang(self):
        self.strike.hang()

    async def operate_by_someone_else(self, *, released):
        self.strike.operate_by_someone_else(Reading.RELEASED if released else Reading.SECURED)


@pytest.fixture
async def strike():
    strike = SimulatedStrike()
    yield strike
    await strike.aclose()


class _Conformance(StrikeConformance):
    kind = SimulatedStrike

    @pytest.fixture
    async def harness(self):
        strike = self.kind()
        yield Harness(strike)
        await strike.aclose()


class TestDeviceTimedWithFeedback(_Conformance):
    pass


class TestDeviceTimedWithoutFeedback(_Conformance):
    kind = staticmethod(partial(SimulatedStrike, feedback=False))


class TestDeviceTimedThatHolds(_Conformance):
    kind = staticmethod(partial(SimulatedStrike, can_hold=True))


class TestDeviceTimedThatCannotBeToldToGoBack(_Conformance):
    kind = staticmethod(partial(SimulatedStrike, can_secure=False))


class TestControllerTimedWithFeedback(_Conformance):
    kind = staticmethod(partial(SimulatedStrike, device_timed=False))


class TestControllerTimedWithoutFeedback(_Conformance):
    kind = staticmethod(partial(SimulatedStrike, device_timed=False, feedback=False))


async def test_the_log_has_the_pulse_before_the_strike_confirms_it(tmp_path):
    strike = SimulatedStrike(log=tmp_path / "pulses")
    strike.hang()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await strike.release(PULSE)
    assert pulses_in(tmp_path / "pulses") == ["01" * 16]
    await strike.aclose()


def test_a_strike_that_never_moved_has_an_empty_log(tmp_path):
    assert pulses_in(tmp_path / "pulses") == []


async def test_power_that_fails_between_reach_and_release_moves_nothing(strike):
    strike.at(Moment.TOLD, strike.cut_power)
    await strike.reach()
    with pytest.raises(errors.StrikeUnreachable):
        await strike.release(PULSE)
    assert strike.pulses == []


async def test_a_second_pulse_restarts_the_device_timer(strike):
    await strike.release(Pulse(bytes(16), 0.01))
    await strike.release(PULSE)
    await asyncio.sleep(0.03)  # the first pulse would be over
    assert strike.bolt is Reading.RELEASED


@pytest.mark.parametrize("moved", [True, False])
async def test_nonsense_comes_out_as_it_is_whether_it_moved_or_not(strike, moved):
    strike.answer_nonsense(moved=moved)
    with pytest.raises(ZeroDivisionError):
        await strike.release(PULSE)
    assert len(strike.pulses) == moved
    strike.obey()
    await strike.release(PULSE)
    assert len(strike.pulses) == moved + 1


async def test_a_lost_answer_may_have_moved_it(strike):
    strike.lose_the_answer()
    with pytest.raises(errors.OutcomeUnknown):
        await strike.release(PULSE)
    assert len(strike.pulses) == 1


async def test_whoever_waits_for_the_strike_is_woken(strike):
    waiting = asyncio.create_task(strike.until(lambda strike: strike.bolt is Reading.RELEASED))
    await asyncio.sleep(0)
    assert not waiting.done()
    await strike.release(PULSE)
    await waiting


async def test_a_gate_confirms_when_it_moves_and_reads_secured_when_it_is_there():
    strike = SimulatedStrike(device_timed=False)
    strike.take_its_time()
    await strike.release(PULSE)
    await strike.secure()
    assert (strike.times_secured, strike.reading) == (1, Reading.RELEASED)
    strike.arrive()
    assert strike.reading is Reading.SECURED
