"""The file that says what hangs on the box (TOML, docs/strike.example.toml), read once and strictly.

What it refuses to do: guess. A key that is not known, or a value that is not of its kind, is an error that names the
line, because a relay that is configured by halves is a door that opens by halves.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from vestibule_core.doorstrike.spending import LONGEST_PULSE, SHORTEST_PULSE

LONGEST_NAME: Final = 32
DEFAULT_CHIP: Final = "/dev/gpiochip0"


class ConfigError(ValueError):
    """The file cannot be used. The text says where and what to do."""


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
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: this is not UTF-8 text") from err
    return parse_config(text, path)


def parse_config(text: str, path: Path) -> Config:
    """Return what ``text``, which is from ``path``, says; raise ConfigError."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise ConfigError(f"{path}, line {err.lineno}: {err.msg}") from err
    top = _Table(text, path, (), tables)
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
        light=_output(top.table("light")) if "light" in tables else None,
        simulated_inputs=top.switch("simulated_inputs"),
        **{name: _input(top.table(name)) for name in INPUTS if name in tables},
    )
    if config.simulated_inputs and (config.light or any(getattr(config, name) for name in INPUTS)):
        raise top.error("simulated_inputs", "either simulated inputs or real ones: remove one of the two")
    _distinct(top, config)
    return config


# ---- tables ----


def _relay(table: _Table) -> tuple[OutputLine | MemoryRelay, bool]:
    kind = table.text("kind", {"gpio", "memory"}.__contains__, '"gpio", or "memory" for a trial without a relay')
    if kind == "gpio":
        table.only("kind", "chip", "line", "active_low", "hold")
        return _line(table), table.switch("hold")
    table.only("kind", "log", "hold")
    return MemoryRelay(table.path("log") if "log" in table.values else None), table.switch("hold")


def _limits(table: _Table) -> tuple[float, float]:
    table.only("shortest", "longest")
    shortest = table.seconds("shortest", SHORTEST_PULSE)
    longest = table.seconds("longest", LONGEST_PULSE)
    if shortest > longest:
        raise table.error("shortest", "the shortest pulse is longer than the longest one")
    return shortest, longest


def _output(table: _Table) -> OutputLine:
    table.only("chip", "line", "active_low")
    return _line(table)


def _line(table: _Table) -> OutputLine:
    return OutputLine(table.chip(), table.number("line"), table.switch("active_low"))


def _input(table: _Table) -> InputLine:
    table.only("chip", "line", "inverted", "pull")
    pull = table.text("pull", {*Pull}.__contains__, "one of " + ", ".join(f'"{pull}"' for pull in Pull), Pull.UP)
    return InputLine(table.chip(), table.number("line"), table.switch("inverted"), Pull(pull))


def _distinct(top: _Table, config: Config) -> None:
    taken: dict[tuple[str, int], str] = {}
    for name in ("relay", *INPUTS, "light"):
        if isinstance(line := getattr(config, name), OutputLine | InputLine):
            other = taken.setdefault((line.chip, line.line), name)
            if other != name:
                raise top.table(name).error("line", f"this line is taken by [{other}]")


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of the file, which knows where it stands."""

    text_: str
    file: Path
    place: tuple[str, ...]
    values: Mapping[str, Any]

    def error(self, key: str, what: str) -> ConfigError:
        """Return the error about a key."""
        return ConfigError(f"{self.file}, line {self._line(key)}: {'.'.join((*self.place, key))}: {what}")

    def only(self, *known: str) -> None:
        """Refuse every other key."""
        for key in self.values:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1, cutoff=0)[0]
                raise self.error(key, f'this key is not known; the nearest one is "{near}"')

    def table(self, key: str, default: Mapping[str, Any] | None = None) -> _Table:
        """Return a table in this one."""
        value = self._value(key, default)
        if not isinstance(value, dict):
            raise self.error(key, f"this has to be a table: [{key}]")
        return _Table(self.text_, self.file, (*self.place, key), value)

    def text(self, key: str, good: Callable[[str], bool], wanted: str, default: str | None = None) -> str:
        """Return a text that is ``good``; ``wanted`` says what that is."""
        value = self._value(key, default)
        if not isinstance(value, str) or not good(value):
            raise self.error(key, f"this has to be {wanted}")
        return value

    def path(self, key: str) -> Path:
        """Return a path, from the folder of the file."""
        return self.file.parent / self.text(key, bool, "a path")

    def chip(self) -> str:
        """Return the path of a GPIO chip."""
        return self.text(
            "chip", lambda chip: chip.startswith("/dev/"), f'a device, for example "{DEFAULT_CHIP}"', DEFAULT_CHIP
        )

    def switch(self, key: str) -> bool:
        """Return true or false; false by default."""
        value = self._value(key, False)
        if not isinstance(value, bool):
            raise self.error(key, "this has to be true or false")
        return value

    def number(self, key: str) -> int:
        """Return the number of a line."""
        value = self._value(key, None)
        if type(value) is not int or value < 0:
            raise self.error(key, "this has to be the number of a line")
        return value

    def seconds(self, key: str, default: float) -> float:
        """Return seconds within what the protocol allows."""
        value = self._value(key, default)
        if type(value) not in (int, float) or not SHORTEST_PULSE <= value <= LONGEST_PULSE:
            raise self.error(key, f"this has to be {SHORTEST_PULSE:g} to {LONGEST_PULSE:g} seconds")
        return float(value)

    def _value(self, key: str, default: Any) -> Any:
        if (value := self.values.get(key, default)) is None:
            raise self.error(key, "this is missing")
        return value

    def _line(self, key: str) -> int:
        """Return the line of a key; of its table if the key is missing or does not begin a line."""
        table: tuple[str, ...] = ()
        of_table = 1
        for number, line in enumerate(self.text_.splitlines(), 1):
            if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
                table = tuple(_bare(part) for part in header[1].split("."))
                if table == self.place or table == (*self.place, key):
                    of_table = number
            elif table == self.place and _bare(line.partition("=")[0]) == key:
                return number
        return of_table


def _bare(key: str) -> str:
    return key.strip().strip("\"'")


def chips(config: Config) -> list[OutputLine | InputLine]:
    """Return every GPIO line that a box uses."""
    lines = (config.relay, config.light, *(getattr(config, name) for name in INPUTS))
    return [line for line in lines if isinstance(line, OutputLine | InputLine)]
