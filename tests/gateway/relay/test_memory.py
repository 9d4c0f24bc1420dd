"""The board without hardware: its log, its inputs, and listeners that fail."""

from __future__ import annotations

import pytest

from gateway.relay.memory import MemoryBoard
from vestibule_core.errors import StrikeUnreachable
from vestibule_core.model import Sense
from vestibule_core.strike import Pulse

from .boards import until


async def test_each_movement_is_one_line_of_the_log(tmp_path):
    log = tmp_path / "relays.log"
    board = MemoryBoard(log=log)
    await board.channel(2).release(Pulse(bytes(16), 0.02))
    await until(lambda: not board.channel(2).is_on)
    await board.channel(1).hold(None)
    await board.stop()
    assert [line.rpartition(" ")[0] for line in log.read_text().splitlines()] == ["2 on", "2 off", "1 on", "1 off"]


async def test_inputs_say_what_they_are_told_and_are_out_of_order_without_power():
    board = MemoryBoard()
    heard, inverse = [], []
    stop = board.input(1).subscribe(heard.append)
    board.input(1, inverted=True).subscribe(inverse.append)
    board.sense(1, Sense.ACTIVE)
    board.sense(1, Sense.ACTIVE)
    board.cut_power()
    board.restore_power()
    stop()
    board.sense(1, Sense.INACTIVE)
    assert heard == [Sense.ACTIVE, Sense.FAULT, Sense.ACTIVE]
    assert inverse == [Sense.INACTIVE, Sense.FAULT, Sense.INACTIVE, Sense.ACTIVE]


async def test_a_trial_says_what_it_is():
    board = MemoryBoard(outputs=2, inputs=1)
    assert await board.probe() == "in memory only: 2 outputs, 1 inputs"
    board.cut_power()
    assert board.channel(1).reason == "its power is cut"
    with pytest.raises(StrikeUnreachable):
        await board.probe()


async def test_a_listener_that_fails_keeps_nobody_else_from_hearing(caplog):
    board = MemoryBoard()
    heard = []

    def fails():
        raise ZeroDivisionError

    board.channel(1).watch(fails)
    board.channel(1).watch(lambda: heard.append(True))
    board.operate(1, True)
    assert heard
    assert "A listener of a board failed" in caplog.text
