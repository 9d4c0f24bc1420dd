"""The tables that say what hangs on which board: what they mean, and what is refused with its line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.relay.config import (
    BleConfig,
    ChannelConfig,
    EsphomeConfig,
    Framing,
    InputConfig,
    MemoryConfig,
    ModbusConfig,
    ShellyConfig,
    open_boards,
    read_boards,
    read_input,
    read_relay,
)
from gateway.relay.memory import MemoryBoard
from gateway.relay.modbus import ModbusBoard
from gateway.source import Unusable
from gateway.toml_table import ConfigError, Table

FILE = Path("/etc/vestibule-gateway/gateway.toml")
HALL = '[board.hall]\nkind = "modbus"\nhost = "10.0.0.7"\n'
UNIT = '[board.hall]\nkind = "shelly"\nhost = "10.0.0.9"\n'
NODE = '[board.hall]\nkind = "esphome"\nhost = "10.0.0.8"\nnode = "hall-node"\nkey_file = "hall.key"\n'


def boards(text):
    return read_boards(Table.parse(text, FILE))


def relay(text, on=HALL):
    top = Table.parse(f"{on}[door.front]\n{text}\n", FILE)
    return read_relay(top.table("door").table("front").table("relay"), read_boards(top))


def contact(text, on=HALL + "inputs = 8\n"):
    top = Table.parse(f"{on}[door.front]\n{text}\n", FILE)
    return read_input(top.table("door").table("front").table("contact"), read_boards(top))


@pytest.mark.parametrize(
    "text, config",
    [
        (HALL, ModbusConfig("10.0.0.7")),
        (
            HALL + 'port = 4196\nunit = 3\nframing = "rtu"\nflash = 0x1000\noutputs = 16\ninputs = 4\npoll = 1',
            ModbusConfig("10.0.0.7", 4196, 3, Framing.RTU, 0x1000, 16, 4, 1.0),
        ),
        (HALL + "flash = false", ModbusConfig("10.0.0.7", flash=None)),
        (NODE, EsphomeConfig("10.0.0.8", "hall-node", FILE.parent / "hall.key")),
        (
            NODE.replace("10.0.0.8", "fd00::8").replace("hall.key", "/etc/hall.key")
            + "port = 6054\noutputs = 2\ninputs = 4",
            EsphomeConfig("fd00::8", "hall-node", Path("/etc/hall.key"), 6054, 2, 4),
        ),
        (UNIT + 'password_file = "hall.password"', ShellyConfig("10.0.0.9", FILE.parent / "hall.password")),
        (UNIT + "allow_open = true", ShellyConfig("10.0.0.9", None)),
        (
            UNIT.replace("10.0.0.9", "fd00::9")
            + 'port = 8080\ndevice = "shellypro4pm-f008d1d8b8b8"\nallow_open = false\noutputs = 4\ninputs = 4\n'
            'poll = 0.5\npassword_file = "/etc/hall.password"',
            ShellyConfig("fd00::9", Path("/etc/hall.password"), 8080, "shellypro4pm-f008d1d8b8b8", 4, 4, 0.5),
        ),
        ('[board.hall]\nkind = "memory"', MemoryConfig()),
        (
            '[board.hall]\nkind = "memory"\noutputs = 1\ninputs = 0\ntimed = false\nlog = "relays.log"',
            MemoryConfig(1, 0, False, FILE.parent / "relays.log"),
        ),
    ],
)
def test_a_board_is_what_its_table_says(text, config):
    assert boards(text) == {"hall": config}


def test_a_file_without_boards_has_none():
    assert boards('name = "Hall"') == {}


@pytest.mark.parametrize(
    "text, line, says",
    [
        ("[board.hall]", 1, "board.hall.kind: this is missing"),
        ('[board.hall]\nkind = "zigbee"', 2, '"modbus", "memory"'),
        ('[board.hall]\nkind = "modbus"', 1, "board.hall.host: this is missing"),
        ('[board.hall]\nkind = "modbus"\nhost = " "', 3, "an IP address: the board's, which should be a fixed one"),
        (HALL.replace("10.0.0.7", "hall.lan"), 3, "an IP address"),  # a name server that is dead would hold up others
        (HALL + "prot = 502", 4, 'the nearest one is "port"'),
        (HALL + "port = 65536", 4, "a port"),
        (HALL + "unit = 0", 4, "a unit id"),
        (HALL + "outputs = 0", 4, "1 to 256"),
        (HALL + "inputs = -1", 4, "0 to 256"),
        (HALL + "poll = 0", 4, "0.05 to 10 seconds"),
        (HALL + "flash = true", 4, "false if the board has none"),
        (HALL + "flash = 7", 4, "the first flash-on coil"),  # a plain coil would be on for good
        (HALL + "flash = 0xfff9", 4, "the first flash-on coil"),
        (HALL + 'framing = "ascii"', 4, '"tcp", "rtu"'),
        ('[board.hall]\nkind = "memory"\nhost = "x"', 3, "this key is not known"),
        (NODE.replace("10.0.0.8", "hall.local"), 3, "an IP address"),  # whoever answers first would be asked
        (NODE.replace("hall-node", "Hall"), 4, "the name in the node's YAML"),
        (NODE.replace('node = "hall-node"\n', ""), 1, "board.hall.node: this is missing"),
        (NODE.replace('key_file = "hall.key"\n', ""), 1, "board.hall.key_file: this is missing"),
        (NODE + 'key = "c2VjcmV0"', 6, "this key is not known"),  # this file is shown to whoever asks for help
        (NODE + "flash = 0x0200", 6, "this key is not known"),
        (UNIT, 1, "password_file: this is missing; a unit without a password takes allow_open = true"),
        (UNIT + "allow_open = false", 1, "password_file: this is missing"),
        (UNIT + 'allow_open = true\npassword_file = "x"', 4, "leave it or password_file out"),
        (UNIT + 'password = "secret"', 4, 'the nearest one is "password_file"'),  # this file is shown to whoever helps
        (UNIT.replace("10.0.0.9", "hall.local"), 3, "an IP address"),
        (UNIT + 'allow_open = true\ndevice = "hall"', 5, "the id of the unit"),
        (UNIT + "allow_open = true\npoll = 0.1", 5, "0.2 to 30 seconds"),
    ],
)
def test_a_wrong_board_is_refused_with_its_line(text, line, says):
    with pytest.raises(ConfigError, match=f"line {line}: ") as raised:
        boards(text)
    assert says in str(raised.value)


def test_a_relay_is_a_channel_of_a_board_or_a_bluetooth_strike():
    assert relay('relay = { board = "hall", channel = 8 }') == ChannelConfig("hall", 8)
    assert relay('relay = { strike = "ble" }') == BleConfig(keep_connected=True)
    assert relay('relay = { strike = "ble", keep_connected = false }') == BleConfig(keep_connected=False)
    assert BleConfig.is_radio
    assert not ChannelConfig.is_radio


@pytest.mark.parametrize(
    "text, says",
    [
        ("relay = {}", "board: this is missing"),
        ('relay = { board = "attic", channel = 1 }', 'the name of a board ("hall")'),
        ('relay = { board = "hall" }', "channel: this is missing"),
        ('relay = { board = "hall", channel = 9 }', "1 to 8, because [board.hall] has outputs = 8"),
        ('relay = { board = "hall", channel = 0 }', "1 to 8"),
        ('relay = { board = "hall", channel = 1, strike = "ble" }', "board: this key is not known"),
        ('relay = { strike = "wifi" }', '"ble"'),
    ],
)
def test_a_wrong_relay_is_refused(text, says):
    with pytest.raises(ConfigError, match=r"door\.front\.relay") as raised:
        relay(text)
    assert says in str(raised.value)


def test_an_input_is_one_of_its_boards():
    assert contact('contact = { board = "hall", input = 8 }') == InputConfig("hall", 8)
    assert contact('contact = { board = "hall", input = 1, inverted = true }') == InputConfig("hall", 1, True)


def test_an_input_of_a_board_that_is_said_to_have_none_is_refused():
    with pytest.raises(ConfigError, match=r"\[board.hall\] has inputs = 0: say there how many it has"):
        contact('contact = { board = "hall", input = 1 }', on=HALL)


def test_a_file_without_boards_says_how_one_is_made():
    with pytest.raises(ConfigError, match=r"there is none yet: \[board.NAME\]"):
        relay('relay = { board = "hall", channel = 1 }', on="")


async def test_boards_are_made_of_their_tables_and_reach_nothing_yet(tmp_path):
    made = open_boards({"trial": MemoryConfig(log=tmp_path / "log"), "hall": ModbusConfig("192.0.2.1")})
    assert isinstance(made["trial"], MemoryBoard)
    assert isinstance(made["hall"], ModbusBoard)
    assert made["hall"].channel(8) is made["hall"].channel(8)
    await made["trial"].stop()


def test_without_aioesphomeapi_the_command_that_brings_it_is_named(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "gateway.relay.esphome", raising=False)
    monkeypatch.setitem(sys.modules, "aioesphomeapi.client", None)
    with pytest.raises(Unusable, match=r"pip install 'vestibule-gateway\[esphome\]'"):
        open_boards({"hall": EsphomeConfig("192.0.2.1", "hall", tmp_path / "key")})


def test_without_pymodbus_the_command_that_brings_it_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "gateway.relay.modbus", raising=False)
    monkeypatch.setitem(sys.modules, "pymodbus", None)
    with pytest.raises(Unusable, match=r"pip install 'vestibule-gateway\[modbus\]'"):
        open_boards({"hall": ModbusConfig("192.0.2.1")})
