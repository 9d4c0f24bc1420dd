"""Every driver of relays passes what all strikes pass (tests/conformance.py); Bluetooth strikes: test_ble.py."""

from __future__ import annotations

import pytest

from gateway.relay.esphome import EsphomeBoard
from gateway.relay.memory import MemoryBoard
from gateway.relay.modbus import ModbusBoard
from gateway.relay.shelly import ShellyBoard
from scripts.demo_home.relay_board import ILLEGAL_VALUE, RelayBoard
from tests.conformance import StrikeConformance, StrikeHarness
from vestibule_core import errors
from vestibule_core.strike import Pulse

from .boards import config, esphome_config, hurry, shelly, until, until_reachable
from .esphome_node import Node
from .shelly_unit import FAILED_PRECONDITION, FIRMWARE_1, FIRMWARE_2, PASSWORD, ShellyUnit


class ModbusHarness(StrikeHarness):
    """A board on a wire, and its second output."""

    errors = errors

    def __init__(self, board: ModbusBoard, relays: RelayBoard) -> None:
        self.board, self.relays = board, relays
        self.strike = board.channel(2)
        self.by_others = 0

    def pulse(self, seconds=60.0):
        return Pulse(bytes(16), seconds)

    @property
    def commands(self):
        return sum(frame[4:] != b"\0\0" for frame in self.relays.writes)

    @property
    def movements(self):
        return self.relays.movements[1] - self.by_others

    @property
    def is_secured(self):
        return not self.relays.relays[1]

    async def make_unreachable(self):
        await self.relays.cut_power()
        await until(lambda: not self.strike.is_reachable)

    async def make_reachable(self):
        await self.relays.restore_power()

    async def refuse(self):
        self.relays.decline(ILLEGAL_VALUE, function=5)

    async def hang(self):
        self.relays.lose_answers()

    async def operate_by_someone_else(self, *, released):
        self.relays.operate(2, released)
        self.by_others += released

    async def settle(self):
        """Wait for two looks: the first may have begun before."""
        if self.relays.is_powered:
            before = len(self.relays.frames)
            await until(lambda: len(self.relays.frames) >= before + 4)


class _OverModbus(StrikeConformance):
    timed = True

    @pytest.fixture
    async def harness(self, monkeypatch):
        hurry(monkeypatch)
        async with RelayBoard(timed=self.timed) as relays:
            changes = {} if self.timed else {"flash": None}
            board = ModbusBoard("hall", config(relays.port, **changes))
            await board.start()
            await until_reachable(board)
            yield ModbusHarness(board, relays)
            await board.stop()


class TestModbusWithFlash(_OverModbus):
    pass


class TestModbusWithoutFlash(_OverModbus):
    timed = False


class EsphomeHarness(StrikeHarness):
    """A node, encrypted, and its second output."""

    errors = errors

    def __init__(self, board: EsphomeBoard, node: Node) -> None:
        self.board, self.node = board, node
        self.strike = board.channel(2)
        self.by_others = 0

    def pulse(self, seconds=20.0):
        return Pulse(bytes(16), seconds)

    @property
    def commands(self):
        return sum(action != "vestibule_secure" for action, _ in self.node.calls)

    @property
    def movements(self):
        return self.node.movements[1] - self.by_others

    @property
    def is_secured(self):
        return not self.node.outputs[1]

    async def make_unreachable(self):
        await self.node.cut_power()
        await until(lambda: not self.strike.is_reachable)

    async def make_reachable(self):
        await self.node.restore_power()

    async def refuse(self):
        self.node.refuse()

    async def hang(self):
        self.node.lose_answers()

    async def operate_by_someone_else(self, *, released):
        self.node.operate(2, released)
        self.by_others += released

    async def settle(self):
        """Wait for two looks: what the node has said before the second one's answer has arrived."""
        if self.node.is_powered:
            before = self.node.questions
            await until(lambda: self.node.questions >= before + 2 and self.strike.is_reachable)


class TestEsphome(StrikeConformance):
    @pytest.fixture
    async def harness(self, monkeypatch, tmp_path):
        hurry(monkeypatch)
        async with Node() as node:
            board = EsphomeBoard("hall", esphome_config(node, tmp_path))
            await board.start()
            await until_reachable(board)
            yield EsphomeHarness(board, node)
            await board.stop()


class ShellyHarness(StrikeHarness):
    """A unit, and its second output."""

    errors = errors

    def __init__(self, board: ShellyBoard, unit: ShellyUnit) -> None:
        self.board, self.unit = board, unit
        self.strike = board.channel(2)
        self.by_others = 0

    def pulse(self, seconds=60.0):
        return Pulse(bytes(16), seconds)

    @property
    def commands(self):
        return sum(order["on"] for order in self.unit.orders)

    @property
    def movements(self):
        return self.unit.movements[1] - self.by_others

    @property
    def is_secured(self):
        return not self.unit.relays[1]

    async def make_unreachable(self):
        await self.unit.cut_power()
        await until(lambda: not self.strike.is_reachable)

    async def make_reachable(self):
        await self.unit.restore_power()

    async def refuse(self):
        self.unit.decline(FAILED_PRECONDITION)

    async def hang(self):
        self.unit.lose_answers()

    async def operate_by_someone_else(self, *, released):
        self.unit.operate(2, released)
        self.by_others += released

    async def settle(self):
        """Wait for two looks: the first may have begun before."""
        if self.unit.is_powered:
            before = self.unit.methods.count("Shelly.GetStatus")
            await until(lambda: self.unit.methods.count("Shelly.GetStatus") >= before + 3)


class _OverShelly(StrikeConformance):
    firmware = FIRMWARE_2
    password: str | None = PASSWORD

    @pytest.fixture
    async def harness(self, monkeypatch):
        hurry(monkeypatch)
        async with ShellyUnit(firmware=self.firmware, password=self.password) as unit:
            board = shelly(unit, password=self.password)
            await board.start()
            await until_reachable(board)
            yield ShellyHarness(board, unit)
            await board.stop()


class TestShelly(_OverShelly):
    pass


class TestShellyBeforeFirmware2(_OverShelly):
    firmware = FIRMWARE_1


class TestShellyWithoutPassword(_OverShelly):
    password = None


class MemoryHarness(StrikeHarness):
    errors = errors

    def __init__(self, board: MemoryBoard) -> None:
        self.board = board
        self.strike = board.channel(2)
        self.by_others = 0

    def pulse(self, seconds=60.0):
        return Pulse(bytes(16), seconds)

    @property
    def movements(self):
        return self.strike.movements - self.by_others

    commands = movements

    @property
    def is_secured(self):
        return not self.strike.is_on

    async def make_unreachable(self):
        self.board.cut_power()

    async def make_reachable(self):
        self.board.restore_power()

    async def refuse(self):
        pytest.skip("what is only remembered does not refuse")

    async def hang(self):
        pytest.skip("what is only remembered answers at once")

    async def operate_by_someone_else(self, *, released):
        self.board.operate(2, released)
        self.by_others += released


class _InMemory(StrikeConformance):
    timed = True

    @pytest.fixture
    async def harness(self):
        board = MemoryBoard(timed=self.timed)
        yield MemoryHarness(board)
        await board.stop()


class TestTimedMemory(_InMemory):
    pass


class TestUntimedMemory(_InMemory):
    timed = False
