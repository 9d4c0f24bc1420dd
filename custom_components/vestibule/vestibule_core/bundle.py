"""An exported journal: one text that holds all that a verifier needs, and that can be read without any database.

JSON lines (docs/protocol.md D): a header, then each entry with its person's part if it has one, each checkpoint behind
the entries that it signs, and how many entries there were. It is signed by its checkpoints. What is read is strict: a
line has exactly the bytes that would be written, so that no byte can be changed unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Self

from .evidence import RUN, Broken, Header, PersonPart, Run, SignedSize
from .leaf import compact, read_json
from .merkle import Tree
from .note import VerifierKey

FORMAT: Final = "vestibule-journal/1"
MAX_LINE: Final = 64 * 1024
"""Bytes of a line; an entry with a token has about 3000."""

_HEADER: Final = frozenset({"base", "base_note", "format", "keys"})


def encode_header(header: Header) -> bytes:
    """Return the first line; raise ValueError if it would be too long."""
    return _line(
        {
            "base": {"peaks": [peak.hex() for peak in header.base.peaks], "size": header.base.size},
            "base_note": header.base_note,
            "format": FORMAT,
            "keys": [str(key) for key in header.keys],
        }
    )


def encode_run(run: Run, *, persons: bool = True) -> bytes:
    """Return the lines of a run, without who it was if ``persons`` is False; raise Broken if no line can hold one."""
    parts = {part.sequence: part for part in run.persons} if persons else {}
    notes = {checkpoint.size: checkpoint.note for checkpoint in run.checkpoints}
    lines = []
    for sequence, data in enumerate(run.leaves, run.first):
        try:
            lines.append(encode_entry(data, parts.get(sequence)))
            if note := notes.get(sequence):
                lines.append(_line({"checkpoint": note}))
        except ValueError as err:
            raise Broken(sequence - 1, f"an entry cannot be exported: {err}") from None
    return b"".join(lines)


def encode_end(size: int) -> bytes:
    """Return the last line, behind ``size`` entries, the dropped ones included."""
    return _line({"entries": size})


def decode_end(line: bytes) -> int | None:
    """Return how many entries the last line says that there were; None if it is no last line."""
    try:
        match _members(line):
            case {"entries": int(size), **rest} if not rest and type(size) is int:
                return size
    except ValueError:
        pass
    return None


def encode_entry(data: bytes, person: PersonPart | None) -> bytes:
    """Return the line of one entry; raise ValueError if its leaf is no text, or if it would be too long."""
    members: dict[str, Any] = {"leaf": _text(data)}
    if person is not None:
        members |= {"person": person.text, "salt": person.salt.hex()}
    return _line(members)


def decode_entry(line: bytes, sequence: int) -> tuple[bytes, PersonPart | None]:
    """Return the leaf and the person's part in a line; raise ValueError."""
    return _entry(_members(line), sequence)


@dataclass(slots=True)
class _Collected:
    """Lines that have not yet become a run."""

    first: int
    leaves: list[bytes] = field(default_factory=list)
    persons: list[PersonPart] = field(default_factory=list)
    checkpoints: list[SignedSize] = field(default_factory=list)

    @property
    def last(self) -> int:
        return self.first + len(self.leaves) - 1

    @property
    def is_run(self) -> bool:
        """Whether there are enough entries, and a checkpoint ends them."""
        return len(self.leaves) >= RUN and bool(self.checkpoints) and self.checkpoints[-1].size == self.last

    def take(self, members: dict[str, Any]) -> None:
        """Add a line; raise ValueError."""
        match members:
            case {"checkpoint": str(note), **rest} if not rest:
                self.checkpoints.append(SignedSize(self.last, note))
            case _:
                data, person = _entry(members, self.last + 1)
                self.leaves.append(data)
                if person is not None:
                    self.persons.append(person)

    def run(self) -> Run:
        return Run(self.first, tuple(self.leaves), tuple(self.persons), tuple(self.checkpoints))


class Bundle:
    """An exported journal that is being read, once, from its first line to its last."""

    def __init__(self, header: Header, lines: Iterator[bytes]) -> None:
        """Use ``Bundle.open``."""
        self.header = header
        self._lines = lines

    @classmethod
    def open(cls, lines: Iterable[bytes]) -> Self:
        """Read the header; raise ValueError. ``lines`` end with a newline each, and hold MAX_LINE bytes at most."""
        rest = iter(lines)
        return cls(_header(_members(next(rest, b""))), rest)

    def runs(self) -> Iterator[Run]:
        """Yield every run, in order; raise Broken."""
        collected = _Collected(self.header.base.size + 1)
        for line in self._lines:
            try:
                members = _members(line)
                if not (is_last := members.keys() == {"entries"}):
                    collected.take(members)
            except ValueError as err:
                yield collected.run()
                raise Broken(collected.last, f"a line is not as it was written: {err}") from err
            if is_last:
                yield collected.run()
                self._end(decode_end(line), collected.last)
                return
            if collected.is_run:
                yield collected.run()
                collected = _Collected(collected.last + 1)
        yield collected.run()
        raise Broken(collected.last, "the text ends here, before its last line")

    def _end(self, size: int | None, last: int) -> None:
        if size != last:
            raise Broken(last, "there are more or fewer entries than the last line says")
        if next(self._lines, None) is not None:
            raise Broken(last, "something follows the last line")


def _header(members: dict[str, Any]) -> Header:
    if members.keys() != _HEADER or members["format"] != FORMAT:
        raise ValueError(f"not an exported journal of the format {FORMAT}")
    match members:
        case {
            "base": {"peaks": list(peaks), "size": int(size)},
            "base_note": str() | None as note,
            "keys": list(keys),
        }:
            pass
        case _:
            raise ValueError("the header has a member of another type than it should")
    try:
        header = Header(
            keys=tuple(VerifierKey.parse(key) for key in keys),
            base=Tree.parse(size, tuple(_bytes(peak) for peak in peaks)),
            base_note=note,
            size=size,
        )
    except (AttributeError, TypeError) as err:
        raise ValueError("the header has a member of another type than it should") from err
    if note is not None and not size:
        raise ValueError("the header has a checkpoint of entries that were dropped, and none were")
    return header


def _entry(members: dict[str, Any], sequence: int) -> tuple[bytes, PersonPart | None]:
    match members:
        case {"leaf": str(leaf), **rest} if not rest:
            return leaf.encode(), None
        case {"leaf": str(leaf), "person": str(text), "salt": str(salt), **rest} if not rest:
            text.encode()  # half a surrogate pair could not be hashed
            return leaf.encode(), PersonPart(sequence, _bytes(salt), text)
    raise ValueError("neither an entry nor a checkpoint")


def _bytes(text: str) -> bytes:
    """Return what hexadecimal digits stand for; raise ValueError if they are not in their one spelling."""
    raw = bytes.fromhex(text)
    if raw.hex() != text:
        raise ValueError("not lower-case hexadecimal digits")
    return raw


def _line(members: dict[str, Any]) -> bytes:
    """Return a line; raise ValueError if it would be too long to be read again."""
    line = compact(members).encode() + b"\n"
    if len(line) > MAX_LINE:
        raise ValueError(f"its line would be longer than {MAX_LINE} bytes")
    return line


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError("it is no text") from None


def _members(line: bytes) -> dict[str, Any]:
    """Return the members in a line in its one spelling; raise ValueError."""
    if len(line) > MAX_LINE:
        raise ValueError(f"it is longer than {MAX_LINE} bytes")
    members = read_json(_text(line))
    if not isinstance(members, dict) or _line(members) != line:
        raise ValueError("it is spelt in another way than it would be written")
    return members
