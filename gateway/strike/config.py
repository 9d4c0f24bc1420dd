"""The file that says what hangs on the box (TOML, docs/strike.example.toml), read once and strictly.

What it refuses to do: guess. A key that is not known, or a value that is not of its kind, is an error that names the
line, because a relay that is configured by halves is a door that opens by halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from gateway.toml_table import Table
from vestibule_core.doorstrike.spending import LONGEST_PULSE, SHORTEST_PULSE

LONGEST_NAME: Final = 32
DEFAULT_CHIP: Final = "/dev/gpiochip0"


class Pull(StrEnum):
    """What an input reads while its switch is open."""

    UP = "up"
    DOWN = "down"
    NONE = "none"
    """The circuit has a resistor of its own."""


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A GPIO line that drives something."""

    chip: str
    line: int
    active_low: bool = False
    """The module behind it switches on when the line is low."""


@dataclass(frozen=True, slots=True)
class InputLine:
    """A GPIO line with a switch to ground: the switch is closed in the state that docs/strike.md names for it."""

    chip: str
    line: int
    inverted: bool = False
    """The switch is open in that state."""
    pull: Pull = Pull.UP


@dataclass(frozen=True, slots=True)
class MemoryRelay:
    """No relay: what it would have done is written to a file, if one is named."""

    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A box."""

    name: str
    transport: str
    """How Bumble reaches the Bluetooth controller."""
    state: Path
    """The folder that survives a power cut."""
    relay: OutputLine | MemoryRelay
    hold: bool = False
    """The strike may be released for as long as it is wanted."""
    shortest: float = SHORTEST_PULSE
    longest: float = LONGEST_PULSE
    """Seconds."""
    contact: InputLine | None = None
    tamper: InputLine | None = None
    bolt: InputLine | None = None
    button: InputLine | None = None
    rex: InputLine | None = None
    light: OutputLine | None = None
    """On while the pairing window is open."""
    simulated_inputs: bool = False
    """Lines of text on standard input instead of switches (inputs.py)."""


INPUTS: Final = ("contact", "tamper", "bolt", "button", "rex")


def read_config(path: Path) -> Config:
    """Return what a file says; raise ConfigError, or OSError. Relative paths in it begin at its own folder."""
    return _config(Table.read(path))


def parse_config(text: str, path: Path) -> Config:
    """Return what ``text``, which is from ``path``, says; raise ConfigError."""
    return _config(Table.parse(text, path))


def _config(top: Table) -> Config:
    top.only("name", "transport", "state", "relay", "pulse", *INPUTS, "light", "simulated_inputs")
    relay, hold = _relay(top.table("relay"))
    shortest, longest = _limits(top.table("pulse", {}))
    config = Config(
        name=top.text("name", lambda name: 0 < len(name) <= LONGEST_NAME, f"1 to {LONGEST_NAME} characters"),
        transport=top.text("transport", lambda spec: bool(spec.strip()), 'a Bluetooth controller, for example "usb:0"'),
        state=top.path("state"),
        relay=relay,
        hold=hold,
        shortest=shortest,
        longest=longest,
        light=_output(top.table("light")) if top.has("light") else None,
        simulated_inputs=top.switch("simulated_inputs"),
        **{name: _input(top.table(name)) for name in INPUTS if top.has(name)},
    )
    if config.simulated_inputs and (config.light or any(getattr(config, name) for name in INPUTS)):
        raise top.error("simulated_inputs", "either simulated inputs or real ones: remove one of the two")
    _distinct(top, config)
    return config


# ---- tables ----


def _relay(table: Table) -> tuple[OutputLine | MemoryRelay, bool]:
    kind = table.text("kind", {"gpio", "memory"}.__contains__, '"gpio", or "memory" for a trial without a relay')
    if kind == "gpio":
        table.only("kind", "chip", "line", "active_low", "hold")
        return _line(table), table.switch("hold")
    table.only("kind", "log", "hold")
    return MemoryRelay(table.path("log") if table.has("log") else None), table.switch("hold")


def _limits(table: Table) -> tuple[float, float]:
    table.only("shortest", "longest")
    shortest = table.seconds("shortest", SHORTEST_PULSE, LONGEST_PULSE, SHORTEST_PULSE)
    longest = table.seconds("longest", SHORTEST_PULSE, LONGEST_PULSE, LONGEST_PULSE)
    if shortest > longest:
        raise table.error("shortest", "the shortest pulse is longer than the longest one")
    return shortest, longest


def _output(table: Table) -> OutputLine:
    table.only("chip", "line", "active_low")
    return _line(table)


def _line(table: Table) -> OutputLine:
    return OutputLine(_chip(table), _number(table), table.switch("active_low"))


def _chip(table: Table) -> str:
    return table.text(
        "chip", lambda chip: chip.startswith("/dev/"), f'a device, for example "{DEFAULT_CHIP}"', DEFAULT_CHIP
    )


def _number(table: Table) -> int:
    return table.number("line", "the number of a line")


def _input(table: Table) -> InputLine:
    table.only("chip", "line", "inverted", "pull")
    return InputLine(_chip(table), _number(table), table.switch("inverted"), table.word("pull", Pull, Pull.UP))


def _distinct(top: Table, config: Config) -> None:
    taken: dict[tuple[str, int], str] = {}
    for name in ("relay", *INPUTS, "light"):
        if isinstance(line := getattr(config, name), OutputLine | InputLine):
            other = taken.setdefault((line.chip, line.line), name)
            if other != name:
                raise top.table(name).error("line", f"this line is taken by [{other}]")


def chips(config: Config) -> list[OutputLine | InputLine]:
    """Return every GPIO line that a box uses."""
    lines = (config.relay, config.light, *(getattr(config, name) for name in INPUTS))
    return [line for line in lines if isinstance(line, OutputLine | InputLine)]
