"""The relay's timer: a thread that ends every pulse, whatever else happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from gateway.strike.relay import MemoryOutput, Relay


class Coil(MemoryOutput):
    """An output that can fail. Verbs: ``fail_writes``, ``fail_reads``, ``stick``, ``work``."""

    def __init__(self) -> None:
        self.switched: list[bool] = []
        self.work()
        super().__init__()

    def work(self) -> None:
        self._fail_writes = self._fail_reads = self._sticks = False

    def fail_writes(self) -> None:
        self._fail_writes = True

    def fail_reads(self) -> None:
        self._fail_reads = True

    def stick(self) -> None:
        """It says that it has switched, and has not."""
        self._sticks = True

    def write(self, on: bool) -> None:
        if self._fail_writes:
            raise OSError(110, "no answer")
        if not self._sticks:
            self.switched.append(on)
            super().write(on)

    def read(self) -> bool:
        if self._fail_reads:
            raise OSError(110, "no answer")
        return super().read()


@pytest.fixture
def coil():
    return Coil()


@pytest.fixture
def over():
    return []


@pytest.fixture
def relay(coil, over):
    relay = Relay(coil, over.append)
    yield relay
    coil.work()
    relay.close()


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_nothing_moves_when_it_is_made(relay, coil):
    time.sleep(0.05)
    assert coil.switched == [False]


def test_a_pulse_ends_by_itself_and_is_reported(relay, coil, over):
    began = time.monotonic()
    assert relay.pulse(0.1, 7)
    assert coil.read()
    wait_for(lambda: over)
    assert 0.1 <= time.monotonic() - began < 0.3
    assert (coil.switched, over) == ([False, True, False], [7])


def test_a_pulse_during_a_pulse_starts_over(relay, coil, over):
    relay.pulse(0.1, 1)
    time.sleep(0.05)
    began = time.monotonic()
    relay.pulse(0.1, 2)
    wait_for(lambda: over)
    assert time.monotonic() - began >= 0.1
    assert over == [2], "of the one that was overtaken nothing is told"


def test_a_hold_lasts_and_takes_a_pulse_over(relay, coil, over):
    relay.pulse(0.05, 1)
    assert relay.hold()
    time.sleep(0.15)
    assert coil.read()
    assert relay.off()
    assert not coil.read()
    assert over == []


def test_off_ends_a_pulse_without_a_report(relay, coil, over):
    relay.pulse(0.05, 1)
    assert relay.off()
    time.sleep(0.1)
    assert (coil.switched, over) == ([False, True, False], [])


@pytest.mark.parametrize("how", [Coil.fail_writes, Coil.stick])
def test_what_certainly_did_not_move_is_said_to_have_failed_and_is_switched_off(relay, coil, over, how):
    how(coil)
    assert relay.pulse(0.05, 1) is False
    assert relay.hold() is False
    coil.work()
    time.sleep(0.25)
    assert True not in coil.switched
    assert over == []


@pytest.mark.parametrize("command", [lambda relay: relay.pulse(10, 2), Relay.hold])
@pytest.mark.parametrize("how", ["reads off", "stays off"])
def test_what_fails_during_a_pulse_ends_it_and_that_is_reported(relay, coil, over, command, how):
    relay.pulse(10, 1)
    MemoryOutput.write(coil, False)  # somebody pulled the plug of the coil
    coil.fail_writes() if how == "reads off" else coil.stick()
    assert command(relay) is False
    coil.work()
    wait_for(lambda: over)
    assert (coil.read(), over) == (False, [1])


def test_off_that_fails_during_a_pulse_is_reported_when_it_is_off(relay, coil, over):
    relay.pulse(10, 1)
    coil.fail_writes()
    assert relay.off() is False
    coil.work()
    wait_for(lambda: over)
    assert (coil.read(), over) == (False, [1])


def test_who_is_not_sure_says_that_it_moved(relay, coil):
    coil.fail_reads()
    assert relay.pulse(0.05, 1) is True


def test_a_pulse_that_cannot_be_ended_is_tried_until_it_is(relay, coil, over):
    relay.pulse(0.05, 1)
    coil.fail_writes()
    time.sleep(0.3)
    assert (coil.read(), over) == (True, []), "it is not reported before it is so"
    coil.work()
    wait_for(lambda: over)
    assert not coil.read()


def test_off_that_fails_is_tried_again(relay, coil):
    relay.hold()
    coil.fail_writes()
    assert relay.off() is False
    coil.work()
    wait_for(lambda: not coil.read())


def test_the_end_is_off(coil, over):
    relay = Relay(coil, over.append)
    relay.pulse(10, 1)
    relay.close()
    assert coil.switched == [False, True, False]
    assert over == []
    assert "relay" not in [thread.name for thread in threading.enumerate()]


def test_a_log_has_a_line_for_each_movement(tmp_path):
    output = MemoryOutput(tmp_path / "relay.log")
    output.write(True)
    output.close()
    assert [line.split()[0] for line in (tmp_path / "relay.log").read_text().splitlines()] == ["off", "on"]
