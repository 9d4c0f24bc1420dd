"""The tables of gateway.toml that say what hangs on which relay board (docs/gateway.example.toml).

What it refuses to do: take a channel or an input that its board does not have.
"""

from __future__ import annotations

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


class Kind(StrEnum):
    """How a board is reached."""

    MODBUS = "modbus"
    MEMORY = "memory"
    """Not at all: there is none, for a trial."""


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


type BoardConfig = MemoryConfig | ModbusConfig


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
                host=table.text("host", lambda host: bool(host.strip()), "an address: the board's"),
                port=table.number("port", "a port, 1 to 65535", DEFAULT_PORT, least=1, most=65535),
                unit=table.number("unit", "a unit id, 1 to 255", 1, least=1, most=255),
                framing=table.word("framing", Framing, Framing.TCP),
                flash=_flash(table, outputs),
                outputs=outputs,
                inputs=_lines(table, "inputs", 0),
                poll=table.seconds("poll", POLL[0], POLL[2], POLL[1]),
            )


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
    """Make the boards, none of which is reached before it is started. Raises OSError, or Unusable without pymodbus."""
    return {name: _open(name, config) for name, config in configs.items()}


def _open(name: str, config: BoardConfig) -> Board:
    if isinstance(config, MemoryConfig):
        return MemoryBoard(outputs=config.outputs, inputs=config.inputs, timed=config.timed, log=config.log)
    try:
        from .modbus import ModbusBoard
    except ModuleNotFoundError as err:
        if err.name is None or err.name.partition(".")[0] != "pymodbus":
            raise
        raise Unusable("a relay board needs one more package: pip install 'vestibule-gateway[modbus]'") from err
    return ModbusBoard(name, config)
