"""What of a journal is evidence: leaves, checkpoints and persons, read in runs that follow each other.

The same shapes whether they come from the file, from the running journal or from an exported text, so that one
verifier (audit.py) serves all three. What has been spent and what is noted is the controller's working memory and no
evidence.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self

from .leaf import Leaf, Person, parse
from .merkle import Tree
from .model import DoorId
from .note import VerifierKey

RUN: Final = 1000
"""Entries of a run: about a millisecond of the writer's time, so that no door waits for a reader."""

BASE: Final = "base"
KEYS: Final = "keys"
TREE: Final = "tree"
"""Names of notes in the journal: the tree of what was dropped, who signed, and a tree to begin with at start."""


@dataclass(frozen=True, slots=True)
class Header:
    """What has to be known before the first run."""

    keys: tuple[VerifierKey, ...]
    """Who signed, in order; the journal's own word, until somebody compares it with what was noted elsewhere."""
    base: Tree
    """The tree of the oldest entries, which were dropped after their time."""
    base_note: str | None
    """The checkpoint of that tree; None if nothing was dropped."""
    size: int
    """How many entries there were, the dropped ones included."""


@dataclass(frozen=True, slots=True)
class PersonPart:
    """The deletable part of an entry."""

    sequence: int
    salt: bytes
    text: str

    def read(self) -> Person:
        """Return what the text says; raise ValueError if it cannot be read."""
        person = json.loads(self.text)
        if not isinstance(person, dict):
            raise ValueError("a person's part is no object")
        return person


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, as it is shown."""

    leaf: Leaf
    person: PersonPart | None

    @classmethod
    def of(cls, sequence: int, data: bytes, salt: bytes | None, text: str | None) -> Self:
        """Return the entry in a row; raise ValueError if its leaf cannot be read."""
        part = PersonPart(sequence, salt, text) if salt is not None and text is not None else None
        return cls(parse(data), part)


@dataclass(frozen=True, slots=True)
class SignedSize:
    """A checkpoint as it was kept: a signed note about the first ``size`` entries."""

    size: int
    note: str


@dataclass(frozen=True, slots=True)
class Run:
    """Entries ``first`` to ``last``, and what belongs to them; a run ends at a checkpoint or with the journal."""

    first: int
    leaves: tuple[bytes, ...]
    persons: tuple[PersonPart, ...]
    checkpoints: tuple[SignedSize, ...]

    @property
    def last(self) -> int:
        """The number of its last entry."""
        return self.first + len(self.leaves) - 1

    def entries(self) -> Iterator[Entry]:
        """Yield its entries as they are shown; raise Broken at one that cannot be read."""
        parts = {part.sequence: part for part in self.persons}
        for sequence, data in enumerate(self.leaves, self.first):
            try:
                yield Entry(parse(data), parts.get(sequence))
            except ValueError as err:
                raise Broken(sequence - 1, "an entry cannot be read") from err


class Broken(ValueError):
    """Entries are missing or cannot be read; ``after`` is the last one before them."""

    def __init__(self, after: int, why: str) -> None:
        """Say where, and why."""
        super().__init__(why)
        self.after = after


def note_of(tree: Tree) -> str:
    """Return a tree as a note in the journal."""
    return json.dumps({"size": tree.size, "peaks": [peak.hex() for peak in tree.peaks]})


def tree_of(note: str | None) -> Tree:
    """Return the tree that was noted; raise ValueError if it is none."""
    if note is None:
        return Tree()
    try:
        fields = json.loads(note)
        return Tree.parse(fields["size"], tuple(bytes.fromhex(peak) for peak in fields["peaks"]))
    except (KeyError, TypeError) as err:
        raise ValueError("what is noted is no tree") from err


def note_of_keys(keys: Iterable[VerifierKey]) -> str:
    """Return keys as a note in the journal."""
    return json.dumps([str(key) for key in keys])


def keys_of(note: str | None) -> tuple[VerifierKey, ...]:
    """Return the keys that were noted; raise ValueError if they are none."""
    keys = json.loads(note) if note is not None else []
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("what is noted are no keys")
    return tuple(VerifierKey.parse(key) for key in keys)


def read_base(db: sqlite3.Connection) -> Tree:
    """Return the tree of the entries that were dropped after their time; raise ValueError if it cannot be read."""
    note = db.execute("SELECT value FROM meta WHERE key = ?", (BASE,)).fetchone()
    return tree_of(note[0] if note else None)


def read_header(db: sqlite3.Connection) -> Header:
    """Return what has to be known before the first run; raise ValueError if it cannot be read."""
    base = read_base(db)
    keys = db.execute("SELECT value FROM meta WHERE key = ?", (KEYS,)).fetchone()
    (newest,) = db.execute("SELECT max(seq) FROM leaf").fetchone()
    note = db.execute("SELECT note FROM checkpoint WHERE size = ?", (base.size,)).fetchone()
    return Header(
        keys_of(keys[0] if keys else None), base, note[0] if note and base.size else None, newest or base.size
    )


def read_run(db: sqlite3.Connection, after: int, *, most: int = RUN) -> Run | None:
    """Return the run after entry ``after``, None behind the last one; raise Broken.

    It has ``most`` entries and those to the next checkpoint.
    """
    (end,) = db.execute("SELECT min(size) FROM checkpoint WHERE size >= ?", (after + most,)).fetchone()
    span = after, 2**63 - 1 if end is None else end
    leaves = db.execute("SELECT bytes FROM leaf WHERE seq > ? AND seq <= ? ORDER BY seq", span)
    checkpoints = db.execute("SELECT size, note FROM checkpoint WHERE size > ? AND size <= ? ORDER BY size", span)
    persons = db.execute("SELECT seq, salt, json FROM person WHERE seq > ? AND seq <= ? ORDER BY seq", span)
    run = Run(
        after + 1,
        # A verification comes by here a million times: neither its number beside each, nor all rows at once.
        tuple([leaf for (leaf,) in leaves]),
        tuple(PersonPart(*person) for person in persons),
        tuple(SignedSize(*checkpoint) for checkpoint in checkpoints),
    )
    (newest,) = db.execute("SELECT max(seq) FROM leaf WHERE seq > ? AND seq <= ?", span).fetchone()
    if run.leaves and newest != run.last:  # no number is there twice, so their count tells
        numbers = enumerate(db.execute("SELECT seq FROM leaf WHERE seq > ? ORDER BY seq", (after,)), run.first)
        gap = next((number - 1 for number, (sequence,) in numbers if sequence != number), run.last)
        raise Broken(gap, "entries are missing")
    if run.checkpoints and run.checkpoints[-1].size > run.last:
        raise Broken(run.last, "entries are missing")
    # A damaged record may have turned one kind of value into another.
    if not set(map(type, run.leaves)) <= {bytes}:
        raise Broken(after, "an entry is not in bytes")
    if not all(type(person.salt) is bytes and type(person.text) is str for person in run.persons):
        raise Broken(after, "a person's part is not salt and text")
    if not all(type(checkpoint.note) is str for checkpoint in run.checkpoints):
        raise Broken(after, "a checkpoint is no text")
    return run if run.leaves else None


def read_runs(db: sqlite3.Connection, header: Header) -> Iterator[Run]:
    """Yield every run of a journal at rest, in order; raise Broken, or sqlite3.Error if the disk fails."""
    after = header.base.size
    while True:
        try:
            run = read_run(db, after)
        except sqlite3.Error as err:
            # None: text that is not UTF-8.
            if getattr(err, "sqlite_errorcode", None) not in {None, sqlite3.SQLITE_CORRUPT}:
                raise
            raise Broken(after, "the file is damaged") from err
        if run is None:
            return
        yield run
        after = run.last


def read_newest(db: sqlite3.Connection, door: DoorId | None, most: int) -> list[Entry]:
    """Return the newest entries (of ``door``; None: of all), newest first; raise ValueError if one cannot be read."""
    which = "" if door is None else "WHERE CAST(bytes AS TEXT) ->> '$.door' = :door"  # as the index leaf_door has it
    rows = db.execute(
        f"SELECT seq, bytes, salt, json FROM leaf LEFT JOIN person USING(seq) {which} ORDER BY seq DESC LIMIT :most",  # noqa: S608 - a constant
        {"door": door, "most": most},
    )
    return [Entry.of(*row) for row in rows]
