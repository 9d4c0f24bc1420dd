"""The whole gateway with a Bluetooth strike, a Modbus board and a Shelly: from the wish to the hardware and back."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from gateway.app import at_work
from gateway.check import check
from gateway.config import read_config
from gateway.relay import ble
from gateway.strike import air
from scripts.demo_home.relay_board import LOOPBACK, RelayBoard
from tests.gateway.process import write_config
from vestibule_core.doorstrike import driver, keyring
from vestibule_core.model import Actor, Code, EventName, Sense, Sensor

from .boards import hurry
from .shelly_unit import ID, PASSWORD, ShellyUnit

ANN = Actor("1", "Ann", is_admin=True)


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - whatever it looks at, it has no event
            await asyncio.sleep(0.01)


@pytest.fixture
def config(tmp_path, adapter, monkeypatch):
    """A gateway whose third door is a strike, reached by the virtual radio's adapter."""
    monkeypatch.setattr(keyring, "ATTEMPT_GAP", 0.001)
    monkeypatch.setattr(air, "INTERVAL", 20.0)
    monkeypatch.setattr(ble, "SETTLE", 0.1)
    monkeypatch.setattr(driver, "QUIET", 0.1)
    radio = {"client": adapter.client_class, "scanner": adapter.scanner_class}
    monkeypatch.setattr(ble, "BleStrikes", partial(ble.BleStrikes, **radio))
    monkeypatch.setattr(ble, "pair_strike", partial(ble.pair_strike, **radio))
    more = '[door.bins]\nname = "Bins"\naccess_time = 0.5\nrelay = { strike = "ble" }\n'
    return read_config(write_config(tmp_path, more))


async def test_a_strike_is_paired_opened_and_heard(config, gate):
    async with at_work(config) as gateway:
        *_, bins = gateway.doorways.values()
        assert not bins.described.reachable
        assert (await gateway.controller.by_hand.open(bins.id, ANN)).code is Code.STRIKE_UNREACHABLE
    gate.hold_button()
    await ble.pair_strike(config.state, "bins", gate.label.grouped, config.name)
    async with at_work(config) as gateway:
        *_, again = gateway.doorways.values()
        assert again.id == bins.id
        assert again.described.model == "Bluetooth strike"
        await until(lambda: again.described.reachable)
        assert (await gateway.controller.by_hand.open(again.id, ANN)).code is Code.GRANTED
        await gateway.controller.recorded()
        entries = await gateway.journal.newest_entries(again.id, 10)
        assert {EventName.ACCESS_GRANTED, EventName.DOOR_RELEASED} <= {entry.leaf.kind for entry in entries}
        assert again.door.sensors <= set(Sensor)


async def test_a_modbus_board_is_moved_watched_lost_and_found_again(tmp_path, monkeypatch):
    hurry(monkeypatch)
    async with RelayBoard() as relays:
        hall = f'[board.hall]\nkind = "modbus"\nhost = "{LOOPBACK}"\nport = {relays.port}\ninputs = 8\npoll = 0.05\n'
        door = '[door.hall]\nname = "Hall"\naccess_time = 0.5\nrelay = { board = "hall", channel = 3 }\n'
        path = write_config(tmp_path, door + 'contact = { board = "hall", input = 1 }\n' + hall)
        assert await check(path) == 0
        async with at_work(read_config(path)) as gateway:
            *_, hall_door = gateway.doorways.values()
            await until(lambda: hall_door.described.reachable and hall_door.state.contact is Sense.INACTIVE)
            assert relays.movements == [0] * 8
            assert (await gateway.controller.by_hand.open(hall_door.id, ANN)).code is Code.GRANTED
            assert relays.movements == [0, 0, 1, 0, 0, 0, 0, 0]
            relays.press(1)
            await until(lambda: hall_door.state.contact is Sense.ACTIVE)
            await relays.cut_power()
            await until(lambda: not hall_door.described.reachable)
            assert (await gateway.controller.by_hand.open(hall_door.id, ANN)).code is Code.STRIKE_UNREACHABLE
            assert await check(path) == 2
            await relays.restore_power()
            await until(lambda: hall_door.described.reachable)
            assert (await gateway.controller.by_hand.open(hall_door.id, ANN)).code is Code.GRANTED
        assert sum(relays.movements) == 2


async def test_a_shelly_is_moved_watched_lost_and_found_again(tmp_path, monkeypatch, capsys):
    hurry(monkeypatch)
    secret = tmp_path / "hall.password"
    secret.touch(0o600)
    secret.write_text(PASSWORD)
    async with ShellyUnit() as unit:
        unit.output_config[1]["in_mode"] = "follow"
        hall = f'[board.hall]\nkind = "shelly"\nhost = "{LOOPBACK}"\nport = {unit.port}\ndevice = "{ID}"\n'
        lines = 'password_file = "hall.password"\noutputs = 2\ninputs = 2\npoll = 0.2\n'
        door = '[door.hall]\nname = "Hall"\naccess_time = 0.5\nrelay = { board = "hall", channel = 2 }\n'
        path = write_config(tmp_path, door + 'contact = { board = "hall", input = 1 }\n' + hall + lines)
        assert await check(path) == 0
        assert "WARNING: output 2 is moved by its input" in capsys.readouterr().out
        async with at_work(read_config(path)) as gateway:
            *_, hall_door = gateway.doorways.values()
            assert hall_door.described.model == "Shelly relay board, channel 2"
            await until(lambda: hall_door.described.reachable and hall_door.state.contact is Sense.INACTIVE)
            assert unit.movements == [0, 0]
            assert (await gateway.controller.by_hand.open(hall_door.id, ANN)).code is Code.GRANTED
            assert unit.movements == [0, 1]
            unit.press(1)
            await until(lambda: hall_door.state.contact is Sense.ACTIVE)
            await unit.cut_power()
            await until(lambda: not hall_door.described.reachable)
            assert (await gateway.controller.by_hand.open(hall_door.id, ANN)).code is Code.STRIKE_UNREACHABLE
            assert await check(path) == 2
            await unit.restore_power()
            await until(lambda: hall_door.described.reachable)
            assert (await gateway.controller.by_hand.open(hall_door.id, ANN)).code is Code.GRANTED
        assert unit.movements == [0, 2]
        assert [order["on"] for order in unit.orders].count(True) == 2
