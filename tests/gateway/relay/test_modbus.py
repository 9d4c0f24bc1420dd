"""A relay board on a wire: what it is told byte for byte, and what comes of answers that are late, lost or wrong."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
import sys
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from gateway.relay import modbus
from gateway.relay.config import Framing
from gateway.relay.modbus import LONGEST_FLASH, ModbusBoard, flash_units
from scripts.demo_home.home import free_port
from scripts.demo_home.relay_board import LOOPBACK, RelayBoard
from tests.conftest import ROOT
from vestibule_core.door import Lock
from vestibule_core.errors import OutcomeUnknown, StrikeRefused, StrikeUnreachable
from vestibule_core.model import Code, EventName, Sense
from vestibule_core.strike import Pulse, Reading

from .boards import ANN, PULSE, QUICK, Door, config, hurry, until, until_reachable


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    hurry(monkeypatch)


@pytest.fixture
async def relays():
    async with RelayBoard() as relays:
        yield relays


@asynccontextmanager
async def at_work(relays, **changes):
    board = ModbusBoard("hall", config(relays.port, **changes))
    await board.start()
    try:
        await until_reachable(board)
        yield board
    finally:
        await board.stop()


@pytest.fixture
async def board(relays):
    async with at_work(relays) as board:
        await until(lambda: board.input(1).sense is Sense.INACTIVE)  # which it reads after its outputs
        yield board


# ---- what it is told ----


@given(st.floats(0.001, 4000))
def test_a_flash_is_never_shorter_than_asked_for_and_less_than_a_unit_longer(seconds):
    units = flash_units(seconds)
    assert 1 <= units <= LONGEST_FLASH
    if units < LONGEST_FLASH:
        assert -1e-6 <= units * 0.1 - seconds < 0.1


@pytest.mark.parametrize(
    "seconds, units", [(0.3, 3), (0.7, 7), (5.0, 50), (5.01, 51), (0.0, 1), (3276.7, 0x7FFF), (1e9, 0x7FFF)]
)
def test_tenths_of_a_second_are_counted_without_a_rounding_error(seconds, units):
    assert flash_units(seconds) == units


@pytest.mark.parametrize(
    "changes, verb, frames",
    [
        pytest.param({}, "release", ["05 02 02 00 32"], id="a flash of 5 s"),
        pytest.param({"flash": 0x1000}, "release", ["05 10 02 00 32"], id="a flash at another address"),
        pytest.param({"flash": None}, "release", ["05 00 02 ff 00"], id="a release without a timer is a plain on"),
        pytest.param({}, "hold", ["05 00 02 ff 00"], id="a hold is a plain on"),
        pytest.param({}, "secure", ["05 00 02 00 00"], id="off"),
        pytest.param({}, "reach", [], id="whether it hears is asked without a write"),
        pytest.param({}, "release hold", ["05 02 02 00 32", "05 00 02 00 00", "05 00 02 ff 00"],
                     id="a flash that is running is ended before a hold, which must outlast it"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("unit", [1, 17])
async def test_the_board_is_told_byte_for_byte(changes, verb, frames, unit):
    async with RelayBoard(unit=unit) as relays:
        relays.flash = changes.get("flash") or relays.flash
        async with at_work(relays, unit=unit, **changes) as board:
            strike = board.channel(3)
            do = {"reach": strike.reach, "secure": strike.secure, "hold": lambda: strike.hold(None),
                  "release": lambda: strike.release(PULSE)}  # fmt: skip
            for one in verb.split():
                await do[one]()
            assert relays.writes == [bytes([unit]) + bytes.fromhex(frame) for frame in frames]


async def test_it_reads_all_outputs_and_inputs_and_writes_nothing_by_itself(relays, board):
    await until(lambda: len(relays.frames) > 6)
    assert set(relays.frames) == {bytes.fromhex("01 01 00 00 00 08"), bytes.fromhex("01 02 00 00 00 08")}


# ---- start and stop ----


async def test_nothing_moves_at_the_start_and_an_output_that_is_on_is_left_to_its_owner(relays):
    relays.operate(4, True)
    async with at_work(relays) as board:
        assert board.channel(4).reading is Reading.RELEASED
        assert board.channel(1).reading is Reading.SECURED
        await until(lambda: len(relays.frames) > 6)
    assert relays.writes == []
    assert relays.relays[3]


async def test_what_it_left_on_is_off_after_the_stop_and_nothing_else_is_touched(relays):
    relays.operate(4, True)
    async with at_work(relays) as board:
        await board.channel(2).hold(None)
        await board.channel(3).release(Pulse(bytes(16), 60.0))
    assert relays.relays == [False, False, True, True, False, False, False, False], "a flash ends itself"
    assert relays.writes[-1] == bytes.fromhex("01 05 00 01 00 00")


async def test_a_hold_without_an_answer_is_ended_at_the_stop(relays):
    async with at_work(relays) as board:
        relays.lose_answers()
        with pytest.raises(OutcomeUnknown):
            await board.channel(2).hold(None)
        assert relays.relays[1]
        relays.obey()
    assert not relays.relays[1]


async def test_a_hold_that_was_refused_leaves_the_output_to_its_owner_at_the_stop(relays):
    async with at_work(relays) as board:
        relays.operate(2, True)
        relays.decline(6, function=5)
        with pytest.raises(StrikeRefused):
            await board.channel(2).hold(None)
        relays.obey()
    assert relays.relays[1]


async def test_a_dead_board_does_not_keep_the_gateway_from_stopping(relays, caplog):
    board = ModbusBoard("hall", config(relays.port))
    await board.start()
    await until_reachable(board)
    for number in range(1, 9):
        await board.channel(number).hold(None)
    relays.fall_silent()
    async with asyncio.timeout(6 * modbus.ANSWER):  # not eight times as long as for one output
        await board.stop()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["output_left_on"] * 8


async def test_a_board_that_is_not_there_at_the_start_is_found_when_it_comes(relays):
    await relays.cut_power()
    board = ModbusBoard("hall", config(relays.port))
    await board.start()
    assert board.input(1).sense is Sense.UNKNOWN
    await until(lambda: board.input(1).sense is Sense.FAULT)
    assert board.channel(1).reading is Reading.UNKNOWN
    assert "takes no connection" in board.channel(1).reason
    await relays.restore_power()
    await until_reachable(board)
    await until(lambda: board.input(1).sense is Sense.INACTIVE)
    assert board.channel(1).reason is None
    await board.stop()


# ---- a door on it ----


async def test_an_unlock_is_one_flash_and_the_door_says_when_it_is_locked_again(relays, board, tmp_path):
    async with Door(tmp_path / "journal.db", board.channel(1)) as site:
        assert (await site.controller.by_hand.open(site.door.id, ANN)).granted
        await until(lambda: EventName.DOOR_RELOCKED in site.outcomes)
        assert [frame.hex() for frame in relays.writes if frame[4:] != b"\0\0"] == ["010502000005"]
        assert EventName.RELAY_OPERATED_ELSEWHERE not in site.outcomes


async def test_an_unlock_without_an_answer_is_unknown_until_the_relay_is_seen_and_is_put_back(relays, tmp_path):
    async with at_work(relays, flash=None) as board, Door(tmp_path / "journal.db", board.channel(1)) as site:
        relays.lose_answers()
        decision = await site.controller.by_hand.open(site.door.id, ANN)
        assert decision.code is Code.OUTCOME_UNKNOWN
        assert relays.relays[0]
        relays.obey()
        await until(lambda: not relays.relays[0])
        assert relays.movements[0] == 1


async def test_a_relay_that_somebody_else_switches_is_told_of(relays, board, tmp_path):
    async with Door(tmp_path / "journal.db", board.channel(1)) as site:
        await until(lambda: site.state.lock is Lock.LOCKED)
        relays.operate(1, True)
        await until(lambda: EventName.RELAY_OPERATED_ELSEWHERE in site.outcomes)


# ---- answers that are late, lost or wrong ----


@pytest.mark.parametrize("flash", [0x0200, None], ids=["flash", "no flash"])
async def test_a_lost_answer_is_an_unknown_outcome_and_the_write_is_never_repeated(relays, flash):
    async with at_work(relays, flash=flash) as board:
        relays.lose_answers()
        with pytest.raises(OutcomeUnknown):
            await board.channel(1).release(PULSE)
        relays.obey()
        await until(lambda: relays.connections > 1)
        await until(lambda: board.channel(1).reading is Reading.RELEASED)  # it is found out by looking
        assert len(relays.writes) == 1


async def test_a_link_that_is_cut_between_command_and_answer_is_an_unknown_outcome_at_once(relays, board):
    def cut(asked, answer):
        if asked[1] != 5:
            return answer
        relays.hang_up()
        return b""

    relays.garble(cut)
    began = asyncio.get_running_loop().time()
    with pytest.raises(OutcomeUnknown):
        await board.channel(1).release(PULSE)
    assert asyncio.get_running_loop().time() - began < modbus.ANSWER, "nobody waits for a link that is gone"
    assert len(relays.writes) == 1


async def test_a_command_that_waits_for_a_dead_network_is_thrown_away_with_its_connection(relays, board):
    """Else it would be delivered when the network is back, long after it was reported as unknown."""
    await board.channel(1).reach()
    connection = board._client.ctx.transport.get_extra_info("socket")
    at_the_end = connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
    assert struct.unpack("ii", at_the_end) == (1, 0)


async def test_a_caller_who_gives_up_leaves_no_answer_for_the_next_one(relays, board):
    relays.lose_answers()
    asking = asyncio.create_task(board.channel(1).release(PULSE))
    await until(lambda: relays.writes)
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()
    relays.obey()
    await until(lambda: relays.connections > 1)  # on a new connection
    await board.channel(2).release(PULSE)
    assert [frame.hex() for frame in relays.writes] == ["010502000032", "010502010032"]


ECHO = bytes.fromhex("01 05 02 00 00 32")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(bytes.fromhex("01 05 02 01 00 32"), id="of another output"),
        pytest.param(bytes.fromhex("01 05 02 00 ff 00"), id="of another value"),
        pytest.param(bytes.fromhex("01 01 01 01"), id="to another question"),
        pytest.param(bytes.fromhex("02 05 02 00 00 32"), id="of another unit"),
        pytest.param(bytes.fromhex("01 05 02 00"), id="cut off"),
        pytest.param(bytes.fromhex("01 63 00"), id="of a function that nobody knows"),
        pytest.param(bytes.fromhex("01 05"), id="with nothing in it"),
        pytest.param(bytes(range(60, 100)), id="of noise"),
    ],
)
async def test_a_bad_answer_to_a_command_is_an_unknown_outcome_and_is_survived(relays, board, answer):
    relays.garble(lambda asked, due: answer if asked[1] == 5 else due)
    with pytest.raises(OutcomeUnknown):
        await board.channel(1).release(PULSE)
    assert relays.writes == [ECHO]
    relays.obey()
    await until_reachable(board)
    await board.channel(1).release(PULSE)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(bytes.fromhex("01 01 00"), id="without an output"),
        pytest.param(bytes.fromhex("01 01 02 00 00"), id="with more outputs than it has"),
        pytest.param(bytes.fromhex("01 02 01 00"), id="about its inputs"),
        pytest.param(bytes.fromhex("01 81 02"), id="that it has not so many"),
    ],
)
async def test_a_board_whose_outputs_cannot_be_read_is_unreachable_and_moves_nothing(relays, board, answer):
    relays.garble(lambda asked, due: answer if asked[1] == 1 else due)
    await until(lambda: not board.channel(1).is_reachable)
    with pytest.raises(StrikeUnreachable):
        await board.channel(1).reach()
    assert relays.writes == []
    relays.obey()
    await until_reachable(board)


async def test_an_answer_in_pieces_is_one_answer(relays, board, monkeypatch):
    relays.in_pieces = True
    await board.channel(1).release(PULSE)
    assert relays.relays[0]


@pytest.mark.parametrize(
    "code, error",
    [
        (1, StrikeRefused),
        (2, StrikeRefused),
        (3, StrikeRefused),
        (4, OutcomeUnknown),  # it failed while it did it
        (5, OutcomeUnknown),  # it will do it
        (6, StrikeRefused),
        (10, StrikeUnreachable),  # the adapter has no way to it
        (11, OutcomeUnknown),  # the adapter has passed it on and heard nothing
        (99, OutcomeUnknown),
    ],
)
async def test_an_exception_code_is_read_as_no_only_where_nothing_can_have_moved(relays, board, code, error):
    relays.decline(code, function=5)
    with pytest.raises(error) as raised:
        await board.channel(1).release(PULSE)
    assert raised.value.may_have_succeeded is (error is OutcomeUnknown)
    assert len(relays.writes) == 1


async def test_a_relay_that_does_not_follow_is_not_taken_for_open(relays, board):
    relays.stick(1)
    with pytest.raises(OutcomeUnknown):
        await board.channel(1).release(PULSE)


async def test_a_relay_that_stays_on_is_not_taken_for_locked(relays, board):
    await board.channel(1).release(PULSE)
    relays.stick(1)
    with pytest.raises(StrikeRefused):
        await board.channel(1).secure()
    assert board.channel(1).reading is Reading.RELEASED


async def test_a_board_that_is_lost_after_it_confirmed_has_confirmed(relays, board):
    def confirm_and_die(asked, answer):
        if asked[1] == 5:
            relays.garble(b"")
        return answer

    relays.garble(confirm_and_die)
    await board.channel(1).release(PULSE)
    assert board.channel(1).reading is Reading.UNKNOWN


# ---- boards and doors beside each other ----


async def test_a_silent_board_delays_no_door_of_another_one(relays, board):
    async with RelayBoard() as others, at_work(others) as dead:
        others.fall_silent()
        stuck = [asyncio.create_task(dead.channel(number).release(PULSE)) for number in range(1, 9)]
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        await board.channel(1).reach()
        await board.channel(1).release(PULSE)
        assert asyncio.get_running_loop().time() - began < modbus.ANSWER / 2
        assert all(isinstance(error, OutcomeUnknown | StrikeUnreachable) for error in await _ended(stuck))
        assert others.movements == [0] * 8


async def test_a_silent_board_makes_its_own_doors_unreachable_not_one_after_the_other(relays, board):
    relays.fall_silent()
    await until(lambda: not board.channel(1).is_reachable)
    began = asyncio.get_running_loop().time()
    errors = await _ended([asyncio.create_task(board.channel(number).reach()) for number in range(1, 9)])
    assert all(isinstance(error, StrikeUnreachable) for error in errors)
    assert asyncio.get_running_loop().time() - began < 7 * modbus.ANSWER, "it would be eight"
    assert {board.input(number).sense for number in range(1, 9)} == {Sense.FAULT}


async def test_doors_of_one_board_are_told_one_at_a_time_and_each_once(relays, board):
    await asyncio.gather(*(board.channel(number).release(PULSE) for number in range(1, 9)))
    assert relays.movements == [1] * 8
    assert relays.connections == 1


async def test_a_board_that_is_back_is_reached_at_once_by_whoever_wants_in(relays, monkeypatch):
    monkeypatch.setattr(modbus, "FIRST_RETRY", 60.0)
    monkeypatch.setattr(modbus, "LONGEST_RETRY", 60.0)
    async with at_work(relays) as board:
        await relays.cut_power()
        await until(lambda: not board.channel(1).is_reachable)
        await asyncio.sleep(5 * QUICK)
        await relays.restore_power()
        await board.channel(1).reach()
        await until(lambda: board.input(1).sense is Sense.INACTIVE)  # and is followed again from then on
    assert relays.writes == []


async def test_a_board_that_stays_away_is_tried_less_and_less_and_not_all_at_once(monkeypatch):
    monkeypatch.setattr(modbus, "FIRST_RETRY", 0.25)
    monkeypatch.setattr(modbus, "LONGEST_RETRY", 10.0)
    waits = []
    monkeypatch.setattr(random, "uniform", lambda least, most: waits.append((least, most)) or 0.0)
    with socket.socket() as nobody:
        nobody.bind((LOOPBACK, 0))
        board = ModbusBoard("hall", config(nobody.getsockname()[1]))
        await board.start()
        await until(lambda: len(waits) > 8)
        await board.stop()
    assert [most for _, most in waits[:8]] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert all(least == most / 2 for least, most in waits)


async def test_what_goes_on_is_said_once(relays, caplog):
    caplog.set_level(logging.INFO, "gateway")
    async with at_work(relays) as board:
        relays.fall_silent()
        await until(lambda: not board.channel(1).is_reachable)
        await asyncio.sleep(4 * modbus.ANSWER)
        relays.obey()
        await until_reachable(board)
    assert [record.message for record in caplog.records] == ["board_lost", "board_back"]


# ---- inputs ----


async def test_inputs_follow_their_circuits(relays, board):
    plain, inverted = board.input(3), board.input(3, inverted=True)
    heard = []
    stop = plain.subscribe(heard.append)
    relays.press(3)
    await until(lambda: heard)
    assert (plain.sense, inverted.sense) == (Sense.ACTIVE, Sense.INACTIVE)
    relays.press(3, False)
    await until(lambda: len(heard) > 1)
    assert heard == [Sense.ACTIVE, Sense.INACTIVE]
    stop()
    relays.press(3)
    await until(lambda: inverted.sense is Sense.INACTIVE)
    assert len(heard) == 2


async def test_an_inverted_input_of_a_board_that_is_away_is_out_of_order_and_nothing_else(relays, board):
    heard = []
    board.input(1, inverted=True).subscribe(heard.append)
    await relays.cut_power()
    await until(lambda: heard)
    assert heard == [Sense.FAULT]


async def test_a_board_without_inputs_opens_its_doors_all_the_same(caplog):
    async with RelayBoard(inputs=0) as relays, at_work(relays) as board:
        await until(lambda: board.input(1).sense is Sense.FAULT)
        await until(lambda: len(relays.frames) > 8)
        await board.channel(1).release(PULSE)
        assert relays.connections == 1
    assert [record.message for record in caplog.records] == ["board_inputs_unreadable"]


# ---- trying it out ----


async def test_a_trial_says_what_the_board_says_and_moves_nothing(relays):
    relays.operate(2, True)
    relays.press(5)
    said = await ModbusBoard("hall", config(relays.port)).probe()
    assert said.endswith("8 outputs, on: 2; 8 inputs, closed: 5")
    assert relays.writes == []
    await until(lambda: not relays.is_connected)


async def test_a_trial_of_a_board_says_that_it_has_no_inputs():
    async with RelayBoard(inputs=0) as relays:
        assert "inputs cannot be read" in await ModbusBoard("hall", config(relays.port)).probe()


async def test_a_trial_of_a_board_that_is_not_there_says_so(relays):
    await relays.cut_power()
    with pytest.raises(StrikeUnreachable, match="takes no connection"):
        await ModbusBoard("hall", config(relays.port)).probe()


async def test_a_trial_of_a_board_at_work_leaves_its_connection_alone(relays, board):
    await board.probe()
    await until(lambda: len(relays.frames) > 6)
    assert relays.connections == 1


# ---- the server of pymodbus, which is nobody's idea of a board but the standard's ----


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
async def test_a_plain_modbus_server_is_a_board_without_flash_in_either_framing(framing):
    coils = []

    async def seen(function, _start, address, _count, _now, _values):
        if function == 5:
            coils.append(address)

    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    words = [SimData(0, values=[0], datatype=DataType.REGISTERS)]
    port = free_port()
    framer = FramerType.SOCKET if framing == "tcp" else FramerType.RTU
    server = ModbusTcpServer(
        SimDevice(1, simdata=(bits, bits, words, words), action=seen), framer=framer, address=(LOOPBACK, port)
    )
    await server.serve_forever(background=True)
    board = ModbusBoard("hall", config(port, flash=None, framing=Framing(framing)))
    await board.start()
    await until_reachable(board)
    strike = board.channel(3)
    await strike.reach()
    await strike.release(PULSE)
    assert strike.reading is Reading.RELEASED
    await strike.secure()
    assert strike.reading is Reading.SECURED
    await until(lambda: board.input(1).sense is Sense.INACTIVE)
    assert set(coils) == {2}
    await board.stop()
    await server.shutdown()


# ---- the simulated board as a process, as the demo has it ----


async def test_the_simulated_board_runs_as_a_process_and_writes_down_what_moved(tmp_path):
    log = tmp_path / "relays.log"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.demo_home.relay_board", "--log", str(log),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        word, port = (await process.stdout.readline()).split()
        assert word == b"ready"
        board = ModbusBoard("hall", config(int(port)))
        await board.start()
        await until_reachable(board)
        await board.channel(1).release(Pulse(bytes(16), 0.1))
        process.stdin.write(b"input 2 on\n")
        await until(lambda: board.input(2).sense is Sense.ACTIVE)
        await until(lambda: len(log.read_text().splitlines()) == 2)
        assert [line.split()[2:] for line in log.read_text().splitlines()] == [["1", "on"], ["1", "off"]]
        process.stdin.write(b"power off\n")
        await until(lambda: not board.channel(1).is_reachable)
        await board.stop()
    finally:
        process.terminate()
        assert await process.wait() == 0
        process._transport.close()


async def _ended(tasks):
    return await asyncio.gather(*tasks, return_exceptions=True)
