"""The tables of a configuration file (TOML), read once and strictly, each of which knows where it stands.

What it refuses to do: guess. A key that is not known, or a value that is not of its kind, is a ConfigError that names
the file, the line and the key, because a relay that is configured by halves is a door that opens by halves.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

_PART: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_NAME: Final = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER: Final = re.compile(rf"\s*\[\[?\s*({_NAME})\s*\]")
_KEY: Final = re.compile(rf"\s*({_NAME})\s*=")


class ConfigError(ValueError):
    """The file cannot be used. The text says where and what to do."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the file. Every method raises ConfigError."""

    file: Path
    place: tuple[str, ...]
    """Its name, from the outermost table inwards."""
    values: Mapping[str, Any]
    lines: Mapping[tuple[str, ...], int]
    """Where each table and key of the file begins."""

    @classmethod
    def parse(cls, text: str, file: Path) -> Self:
        """Return the outermost table of ``text``, which is from ``file``."""
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as err:
            raise ConfigError(f"{file}, line {err.lineno}: {err.msg}") from err
        return cls(file, (), values, _lines(text))

    @classmethod
    def read(cls, file: Path) -> Self:
        """Return the outermost table of a file; raise OSError besides."""
        try:
            return cls.parse(file.read_text("utf-8"), file)
        except UnicodeDecodeError as err:
            raise ConfigError(f"{file}: this is not UTF-8 text") from err

    def line(self, key: str) -> int:
        """Return the line of a key, or of the nearest thing around it that begins one."""
        place = (*self.place, key)
        nearest = (place[:length] for length in range(len(place), 0, -1))
        return next((self.lines[near] for near in nearest if near in self.lines), 1)

    def error(self, key: str, what: str) -> ConfigError:
        """Return the error about a key, with its line."""
        return ConfigError(f"{self.file}, line {self.line(key)}: {'.'.join((*self.place, key))}: {what}")

    def has(self, key: str) -> bool:
        """Return whether the key is there."""
        return key in self.values

    def only(self, *known: str) -> None:
        """Refuse every other key."""
        for key in self.values:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1, cutoff=0)[0]
                raise self.error(key, f'this key is not known; the nearest one is "{near}"')

    def table(self, key: str, default: Mapping[str, Any] | None = None) -> Table:
        """Return a table in this one."""
        value = self._value(key, default)
        if not isinstance(value, dict):
            raise self.error(key, f"this has to be a table: [{key}]")
        return Table(self.file, (*self.place, key), value, self.lines)

    def tables(self, key: str) -> dict[str, Table]:
        """Return the tables in a table by their names: those of [key.NAME]; none if it is not there."""
        parent = self.table(key, {})
        return {name: parent.table(name) for name in parent.values}

    def rows(self, key: str) -> list[Table]:
        """Return the tables of a list, none by default."""
        value = self._value(key, [])
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise self.error(key, "this has to be a list of tables: [{...}, {...}]")
        return [Table(self.file, (*self.place, key, str(n)), row, self.lines) for n, row in enumerate(value, 1)]

    def text(self, key: str, good: Callable[[str], bool], wanted: str, default: str | None = None) -> str:
        """Return a text that is ``good``; ``wanted`` says what that is."""
        value = self._value(key, default)
        if not isinstance(value, str) or not good(value):
            raise self.error(key, f"this has to be {wanted}")
        return value

    def texts(self, key: str, good: Callable[[str], bool], wanted: str) -> tuple[str, ...]:
        """Return a list of texts, each of them ``good``; none by default."""
        value = self._value(key, [])
        if not isinstance(value, list) or not all(isinstance(text, str) and good(text) for text in value):
            raise self.error(key, f"this has to be {wanted}")
        return tuple(value)

    def word[W: StrEnum](self, key: str, words: type[W], default: W | None = None) -> W:
        """Return one of ``words``."""
        wanted = "one of " + ", ".join(f'"{word}"' for word in words)
        return words(self.text(key, {*words}.__contains__, wanted, default))

    def path(self, key: str) -> Path:
        """Return a path, from the folder of the file."""
        return self.file.parent / self.text(key, bool, "a path")

    def switch(self, key: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "this has to be true or false")
        return value

    def number(
        self, key: str, wanted: str = "a number", default: int | None = None, *, least: int = 0, most: int = 2**31 - 1
    ) -> int:
        """Return a whole number from ``least`` to ``most``; ``wanted`` says what that is."""
        value = self._value(key, default)
        if type(value) is not int or not least <= value <= most:
            raise self.error(key, f"this has to be {wanted}")
        return value

    def seconds(self, key: str, least: float, most: float, default: float | None = None) -> float:
        """Return seconds from ``least`` to ``most``."""
        value = self._value(key, default)
        if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
            raise self.error(key, f"this has to be {least:g} to {most:g} seconds")
        return float(value)

    def degrees(self, key: str, most: float) -> float:
        """Return degrees from ``-most`` to ``most``."""
        value = self._value(key, None)
        if type(value) not in (int, float) or not abs(value) <= most:
            raise self.error(key, f"this has to be degrees, {-most:g} to {most:g}")
        return float(value)

    def _value(self, key: str, default: Any) -> Any:
        if (value := self.values.get(key, default)) is None:
            raise self.error(key, "this is missing")
        return value


def _lines(text: str) -> dict[tuple[str, ...], int]:
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, *_parts(key[1])), number)
    return lines


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_PART, name))
