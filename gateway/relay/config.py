"""The tables of gateway.toml that say what hangs on which relay board (docs/gateway.example.toml).

What it refuses to do: take a channel or an input that its board does not have.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from gateway.source import Unusable
from gateway.toml_table import Table

from .board import Board
from .memory import MemoryBoard

MOST_LINES: Final = 256
"""Outputs or inputs of a board."""
DEFAULT_LINES: Final = 8
DEFAULT_PORT: Final = 502
FLASH: Final = 0x0200
"""Where the boards of Waveshare have their flash-on coils; the first one is relay 1."""
POLL: Final = (0.05, 0.2, 10.0)
"""Seconds from one look at a board to the next: the least, the usual and the most."""


NODE: Final = re.compile(r"[a-z0-9_-]{1,31}")
"""What the name of an ESPHome node can be."""
NATIVE_API_PORT: Final = 6053


DEVICE: Final = re.compile(r"shelly[A-Za-z0-9]{1,32}-[A-Fa-f0-9]{12}")
"""The id of a Shelly: its kind, and its MAC address."""
STATE_POLL: Final = (0.2, 2.0, 30.0)
"""Seconds from one look at a unit that tells of changes by itself to the next: the least, the usual and the most."""


class Kind(StrEnum):
    """How a board is reached."""

    ESPHOME = "esphome"
    MODBUS = "modbus"
    MEMORY = "memory"
    """Not at all: there is none, for a trial."""
    SHELLY = "shelly"


class Framing(StrEnum):
    """How a Modbus message is packed on its TCP connection."""

    TCP = "tcp"
    RTU = "rtu"
    """As on a serial line: what an adapter without protocol conversion passes through."""


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """A board without hardware."""

    outputs: int = DEFAULT_LINES
    inputs: int = DEFAULT_LINES
    timed: bool = True
    """It ends a release by itself."""
    log: Path | None = None
    """A file that gets a line for each movement."""
    brand = "Simulated"


@dataclass(frozen=True, slots=True)
class ModbusConfig:
    """A board that speaks Modbus over TCP: no encryption, no password. It belongs into a network of its own."""

    host: str
    port: int = DEFAULT_PORT
    unit: int = 1
    framing: Framing = Framing.TCP
    flash: int | None = FLASH
    """The first of the coils that switch an output on for a time (its value, in units of 100 ms); None: it has none,
    and the controller ends a release."""
    outputs: int = DEFAULT_LINES
    inputs: int = 0
    poll: float = POLL[1]
    """Seconds from one look at it to the next."""
    brand = "Modbus"


type BoardConfig = EsphomeConfig | MemoryConfig | ModbusConfig | ShellyConfig


@dataclass(frozen=True, slots=True)
class EsphomeConfig:
    """A node of ESPHome with the actions of docs/esphome-door.yaml, reached by its native API, encrypted."""

    host: str
    """Its IP address."""
    node: str
    """Its name: another node at that address is refused, also one with the same key."""
    key_file: Path
    """Holds the key of its API's encryption: 32 bytes in base64."""
    port: int = NATIVE_API_PORT
    outputs: int = 1
    inputs: int = 0
    brand = "ESPHome"


@dataclass(frozen=True, slots=True)
class ShellyConfig:
    """A Shelly of the second generation or later. No encryption: it belongs into a network of its own."""

    host: str
    """Its IP address."""
    password_file: Path | None
    """Holds its password; None: it has none, and whoever reaches it opens its doors."""
    port: int = 80
    device: str | None = None
    """Its id: another unit at that address is refused."""
    outputs: int = 1
    inputs: int = 0
    poll: float = STATE_POLL[1]
    """Seconds from one look at it to the next; of changes it tells by itself."""
    brand = "Shelly"


@dataclass(frozen=True, slots=True)
class ChannelConfig:
    """An output of a board drives the lock."""

    board: str
    channel: int
    is_radio = False


@dataclass(frozen=True, slots=True)
class BleConfig:
    """A Bluetooth strike is the lock. Its keys are in the state folder, where ``pair-strike`` put them."""

    keep_connected: bool = True
    """Have a connection always: the door opens at once and its sensors are live; a strike with a battery is emptied."""
    is_radio = True


type RelayConfig = ChannelConfig | BleConfig


@dataclass(frozen=True, slots=True)
class InputConfig:
    """An input of a board."""

    board: str
    input: int
    inverted: bool = False
    """It is active while its circuit is open."""


def read_boards(top: Table) -> dict[str, BoardConfig]:
    """Return the boards of ``[board.NAME]``; raise ConfigError."""
    return {name: _board(table) for name, table in top.tables("board").items()}


def _board(table: Table) -> BoardConfig:
    match table.word("kind", Kind):
        case Kind.ESPHOME:
            table.only("kind", "host", "port", "node", "key_file", "outputs", "inputs")
            return EsphomeConfig(
                host=table.text("host", _is_address, "an IP address: the node's, which its YAML gives it"),
                node=table.text("node", lambda name: NODE.fullmatch(name) is not None, "the name in the node's YAML"),
                key_file=table.path("key_file"),
                port=table.number("port", "a port, 1 to 65535", NATIVE_API_PORT, least=1, most=65535),
                outputs=_lines(table, "outputs", 1, least=1),
                inputs=_lines(table, "inputs", 0),
            )
        case Kind.MEMORY:
            table.only("kind", "outputs", "inputs", "timed", "log")
            return MemoryConfig(
                outputs=_lines(table, "outputs", DEFAULT_LINES, least=1),
                inputs=_lines(table, "inputs", DEFAULT_LINES),
                timed=table.switch("timed", True),
                log=table.path("log") if table.has("log") else None,
            )
        case Kind.MODBUS:
            table.only("kind", "host", "port", "unit", "framing", "flash", "outputs", "inputs", "poll")
            outputs = _lines(table, "outputs", DEFAULT_LINES, least=1)
            return ModbusConfig(
                host=table.text("host", _is_address, "an IP address: the board's, which should be a fixed one"),
                port=table.number("port", "a port, 1 to 65535", DEFAULT_PORT, least=1, most=65535),
                unit=table.number("unit", "a unit id, 1 to 255", 1, least=1, most=255),
                framing=table.word("framing", Framing, Framing.TCP),
                flash=_flash(table, outputs),
                outputs=outputs,
                inputs=_lines(table, "inputs", 0),
                poll=table.seconds("poll", POLL[0], POLL[2], POLL[1]),
            )
        case Kind.SHELLY:
            keys = "kind", "host", "port", "device", "password_file", "allow_open", "outputs", "inputs", "poll"
            table.only(*keys)
            return ShellyConfig(
                host=table.text("host", _is_address, "an IP address: the unit's, which should be a fixed one"),
                port=table.number("port", "a port, 1 to 65535", 80, least=1, most=65535),
                device=_device(table) if table.has("device") else None,
                password_file=_password_file(table),
                outputs=_lines(table, "outputs", 1, least=1),
                inputs=_lines(table, "inputs", 0),
                poll=table.seconds("poll", STATE_POLL[0], STATE_POLL[2], STATE_POLL[1]),
            )


def _device(table: Table) -> str:
    return table.text(
        "device", lambda name: DEVICE.fullmatch(name) is not None, 'the id of the unit, like "shellyplus1-a8032ab12345"'
    )


def _password_file(table: Table) -> Path | None:
    if not table.switch("allow_open"):
        if not table.has("password_file"):
            raise table.error("password_file", "this is missing; a unit without a password takes allow_open = true")
        return table.path("password_file")
    if table.has("password_file"):
        raise table.error("allow_open", "this is for a unit without a password: leave it or password_file out")
    return None


def _is_address(text: str) -> bool:
    """Return whether it is an IP address, and no name: who asks a name server that is dead holds one of the few threads
    that all of the gateway shares, again and again.
    """
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _lines(table: Table, key: str, default: int, *, least: int = 0) -> int:
    return table.number(key, f"{least} to {MOST_LINES}", default, least=least, most=MOST_LINES)


def _flash(table: Table, outputs: int) -> int | None:
    if table.values.get("flash") is False:
        return None
    # Not among the plain coils: a duration written to one of those would switch it on for good.
    wanted = "the first flash-on coil, for example 0x0200, or false if the board has none"
    return table.number("flash", wanted, FLASH, least=outputs, most=0x10000 - outputs)


def read_relay(table: Table, boards: Mapping[str, BoardConfig]) -> RelayConfig:
    """Return what moves a door's bolt: ``{ board = "NAME", channel = 1 }`` or ``{ strike = "ble" }``."""
    if table.has("strike"):
        table.only("strike", "keep_connected")
        table.text("strike", "ble".__eq__, '"ble"')
        return BleConfig(keep_connected=table.switch("keep_connected", True))
    table.only("board", "channel")
    board = _name(table, boards)
    return ChannelConfig(board, _number(table, "channel", boards[board].outputs, f"[board.{board}] has outputs"))


def read_input(table: Table, boards: Mapping[str, BoardConfig]) -> InputConfig:
    """Return an input: ``{ board = "NAME", input = 1, inverted = false }``."""
    table.only("board", "input", "inverted")
    board = _name(table, boards)
    number = _number(table, "input", boards[board].inputs, f"[board.{board}] has inputs")
    return InputConfig(board, number, table.switch("inverted"))


def _name(table: Table, boards: Mapping[str, BoardConfig]) -> str:
    known = ", ".join(f'"{name}"' for name in boards) or "there is none yet: [board.NAME]"
    return table.text("board", boards.__contains__, f"the name of a board ({known})")


def _number(table: Table, key: str, most: int, what: str) -> int:
    if most == 0:
        raise table.error(key, f"{what} = 0: say there how many it has")
    return table.number(key, f"1 to {most}, because {what} = {most}", least=1, most=most)


def open_boards(configs: Mapping[str, BoardConfig]) -> dict[str, Board]:
    """Make the boards, none of which is reached before it is started.

    Raises OSError, or Unusable without a package or a secret that a board needs.
    """
    return {name: _open(name, config) for name, config in configs.items()}


def _open(name: str, config: BoardConfig) -> Board:
    if isinstance(config, MemoryConfig):
        return MemoryBoard(outputs=config.outputs, inputs=config.inputs, timed=config.timed, log=config.log)
    if isinstance(config, EsphomeConfig):
        try:
            from .esphome import EsphomeBoard
        except ModuleNotFoundError as err:
            if err.name is None or err.name.partition(".")[0] != "aioesphomeapi":
                raise
            raise Unusable("an ESPHome node needs one more package: pip install 'vestibule-gateway[esphome]'") from err
        return EsphomeBoard(name, config)
    if isinstance(config, ShellyConfig):
        from .secret import read_secret
        from .shelly import ShellyBoard

        return ShellyBoard(name, config, None if config.password_file is None else read_secret(config.password_file))
    try:
        from .modbus import ModbusBoard
    except ModuleNotFoundError as err:
        if err.name is None or err.name.partition(".")[0] != "pymodbus":
            raise
        raise Unusable("a relay board needs one more package: pip install 'vestibule-gateway[modbus]'") from err
    return ModbusBoard(name, config)
