"""JSON between programs, read strictly: exactly the members that have to be there, each of its kind and in its bounds.

A ``Shape`` writes a value and reads it back, so that each member is named once for both directions. What cannot be read
is MalformedMessage, which names the place and never repeats what stood there. What this file refuses to do: guess,
convert, or leave out what it does not know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, cast

from . import b64url
from .errors import MalformedMessage

MAX_INTEGER: Final = 2**63 - 1
"""The largest number that counts something."""


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


_JSON: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)


def read_json(body: bytes) -> Any:
    """Return what ``body`` says, in which no object has a member twice; raise MalformedMessage."""
    try:
        text = body.decode()
        if text.startswith("\ufeff"):
            raise ValueError("a byte order mark")
        return _JSON.decode(text)
    except (ValueError, RecursionError) as err:
        raise MalformedMessage("not JSON") from err


@dataclass(frozen=True, slots=True)
class Shape[T]:
    """How a value is written in JSON, and how it is read from there."""

    write: Callable[[T], Any]
    read: Callable[[Any], T]
    """Raises MalformedMessage."""
    may_be_absent: bool = False
    """As a member it is left out if it is None."""


@dataclass(frozen=True, slots=True)
class Message[T]:
    """A body or a frame: a shape, in UTF-8."""

    shape: Shape[T]
    most: int
    """Bytes of it that are looked at."""

    def encode(self, value: T) -> bytes:
        """Return the message."""
        return json.dumps(self.shape.write(value), separators=(",", ":")).encode()

    def decode(self, body: bytes) -> T:
        """Return what the message says; raise MalformedMessage."""
        if len(body) > self.most:
            raise MalformedMessage("too long")
        return self.shape.read(read_json(body))


# ---- single values ----


def _same[T](value: T) -> T:
    return value


def _any_text(value: Any) -> str:
    if type(value) is not str:
        raise MalformedMessage("no text")
    return value


ANY_TEXT: Final = Shape[str](_same, _any_text)
"""Whatever a JSON text can hold."""


def text(most: int, least: int = 0) -> Shape[str]:
    """Unicode text of so many characters."""

    def read(value: Any) -> str:
        if not least <= len(_any_text(value)) <= most:
            raise MalformedMessage("a text that is too long or too short")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise MalformedMessage("half a character")
        return cast(str, value)

    return Shape(_same, read)


def parsed[T](parse: Callable[[str], T], spell: Callable[[T], str] = str) -> Shape[T]:
    """A text that ``parse`` understands; it raises ValueError for every other one."""

    def read(value: Any) -> T:
        try:
            return parse(_any_text(value))
        except ValueError as err:
            raise MalformedMessage("a text of another form than it should have") from err

    return Shape(spell, read)


def choice[E: StrEnum](words: type[E]) -> Shape[E]:
    """One of these words."""
    return parsed(words, lambda word: word.value)


def raw(size: int) -> Shape[bytes]:
    """So many bytes, in base64url without padding."""

    def parse(spelt: str) -> bytes:
        encoded = spelt.encode()
        if encoded.strip(b64url.ALPHABET) or len(value := b64url.decode(encoded)) != size:
            raise ValueError("not these bytes")
        return value

    return parsed(parse, b64url.encode)


def hexadecimal(size: int) -> Shape[bytes]:
    """So many bytes, in lower-case hexadecimal digits."""

    def parse(spelt: str) -> bytes:
        value = bytes.fromhex(spelt)
        if len(value) != size or value.hex() != spelt:
            raise ValueError("not these bytes")
        return value

    return parsed(parse, bytes.hex)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise MalformedMessage("neither true nor false")
    return value


FLAG: Final = Shape[bool](_same, _flag)


def integer(least: int = 0, most: int = MAX_INTEGER) -> Shape[int]:
    """A whole number."""

    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise MalformedMessage("no whole number, or out of range")
        return value

    return Shape(_same, read)


def number(least: float, most: float) -> Shape[float]:
    """A number."""

    def read(value: Any) -> float:
        # An int before it becomes a float: one that is too large for that is out of range, too.
        if type(value) not in (int, float) or not least <= value <= most or not math.isfinite(value):
            raise MalformedMessage("no number, or out of range")
        return float(value)

    return Shape(_same, read)


# ---- what is made of others ----


def optional[T](shape: Shape[T]) -> Shape[T | None]:
    """The same, or null."""
    return Shape(
        lambda value: None if value is None else shape.write(value),
        lambda value: None if value is None else shape.read(value),
    )


def if_known[T](shape: Shape[T]) -> Shape[T | None]:
    """A member that is there unless it is None; never null."""
    return replace(cast("Shape[T | None]", shape), may_be_absent=True)


def listed[T](shape: Shape[T], most: int) -> Shape[tuple[T, ...]]:
    """Up to ``most`` of them, in order."""

    def read(value: Any) -> tuple[T, ...]:
        if type(value) is not list or len(value) > most:
            raise MalformedMessage("no list, or too long")
        return tuple(shape.read(each) for each in value)

    return Shape(lambda values: [shape.write(each) for each in values], read)


def collected[T](shape: Shape[T], most: int) -> Shape[frozenset[T]]:
    """Up to ``most`` different ones, written in their order."""
    items = listed(shape, most)

    def read(value: Any) -> frozenset[T]:
        several = items.read(value)
        if len(unique := frozenset(several)) != len(several):
            raise MalformedMessage("the same twice")
        return unique

    return Shape(lambda values: sorted(shape.write(each) for each in values), read)


def record[T](
    make: Callable[..., T],
    members: Mapping[str, Shape[Any] | tuple[str | Callable[[Any], Any], Shape[Any]]],
    *,
    tag: str | None = None,
) -> Shape[T]:
    """An object with exactly these members.

    ``make`` gets each of them by the name of its attribute: its own name, or the one it stands beside. A dot in that
    leads into a part of the value; ``make`` gets it without what is before the dot. In place of an attribute may stand
    what computes it. ``tag``: what the member "type" says.
    """
    readers: list[tuple[str, str, Shape[Any]]] = []
    writers: list[tuple[str, Callable[[T], Any], Shape[Any]]] = []
    for name, row in members.items():
        source, shape = row if isinstance(row, tuple) else (name, row)
        readers.append((name, source.rpartition(".")[2] if isinstance(source, str) else name, shape))
        writers.append((name, attrgetter(source) if isinstance(source, str) else source, shape))
    head = {} if tag is None else {"type": tag}
    known = members.keys() | head.keys()
    needed = known - {name for name, _, shape in readers if shape.may_be_absent}

    def read(value: Any) -> T:
        if type(value) is not dict or not needed <= value.keys() <= known or value.get("type", tag) != tag:
            raise MalformedMessage("no object, or with other members than it should have")
        arguments: dict[str, Any] = {}
        for name, argument, shape in readers:
            try:
                arguments[argument] = shape.read(value[name]) if name in value else None
            except MalformedMessage as err:
                raise MalformedMessage(f"{name}: {err}") from err
        return make(**arguments)

    def write(value: T) -> dict[str, Any]:
        written: dict[str, Any] = dict(head)
        for name, get, shape in writers:
            if not (shape.may_be_absent and get(value) is None):
                written[name] = shape.write(get(value))
        return written

    return Shape(write, read)


def one_of[T](*shapes: tuple[str, type[T], Shape[Any]]) -> Shape[T]:
    """One of several objects, told apart by their tag; each is written by the type of the value."""
    by_tag: Mapping[object, Shape[T]] = {tag: shape for tag, _, shape in shapes}
    by_type = {kind: shape for _, kind, shape in shapes}

    def read(value: Any) -> T:
        tag = value.get("type") if type(value) is dict else None
        if type(tag) is not str or (shape := by_tag.get(tag)) is None:
            raise MalformedMessage("of no kind that is known")
        return shape.read(value)

    return Shape(lambda value: by_type[type(value)].write(value), read)
