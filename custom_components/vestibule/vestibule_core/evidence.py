"""What of a journal is evidence: leaves, checkpoints and persons, read in runs that follow each other.

The same shapes whether they come from the file, from the running journal or from an exported text, so that one
verifier (audit.py) serves all three. What has been spent and what is noted is the controller's working memory and no
evidence.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from .leaf import Leaf, parse
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


class Gap(ValueError):
    """Entries are missing; ``after`` is the last one before the gap."""

    def __init__(self, after: int) -> None:
        """Say where."""
        super().__init__(f"entries are missing after entry {after}")
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
    """Return the run after entry ``after``, None behind the last one; raise Gap or ValueError.

    It has ``most`` entries and those to the next checkpoint.
    """
    (end,) = db.execute("SELECT min(size) FROM checkpoint WHERE size >= ?", (after + most,)).fetchone()
    place = after, 2**63 - 1 if end is None else end
    rows = db.execute("SELECT seq, bytes FROM leaf WHERE seq > ? AND seq <= ? ORDER BY seq", place).fetchall()
    checkpoints = db.execute("SELECT size, note FROM checkpoint WHERE size > ? AND size <= ? ORDER BY size", place)
    persons = db.execute("SELECT seq, salt, json FROM person WHERE seq > ? AND seq <= ? ORDER BY seq", place)
    run = Run(
        after + 1,
        tuple(leaf for _, leaf in rows),
        tuple(PersonPart(*person) for person in persons),
        tuple(SignedSize(*checkpoint) for checkpoint in checkpoints),
    )
    if rows and rows[-1][0] != run.last:  # they rise, so the last one tells
        raise Gap(next(number - 1 for number, (sequence, _) in enumerate(rows, run.first) if sequence != number))
    if run.checkpoints and run.checkpoints[-1].size > run.last:
        raise Gap(run.last)
    # A damaged record may have turned one kind of value into another.
    if not set(map(type, run.leaves)) <= {bytes}:
        raise ValueError(f"an entry of {run.first} to {run.last} is not in bytes")
    if not all(type(person.salt) is bytes and type(person.text) is str for person in run.persons):
        raise ValueError(f"a person's part in {run.first} to {run.last} is not salt and text")
    if not all(type(checkpoint.note) is str for checkpoint in run.checkpoints):
        raise ValueError(f"a checkpoint in {run.first} to {run.last} is no text")
    return run if rows else None


def read_newest(db: sqlite3.Connection, door: DoorId | None, most: int) -> list[Entry]:
    """Return the newest entries (of ``door``; None: of all), newest first; raise ValueError if one cannot be read."""
    which = "" if door is None else "WHERE CAST(bytes AS TEXT) ->> '$.door' = :door"  # as the index leaf_door has it
    rows = db.execute(
        f"SELECT seq, bytes, salt, json FROM leaf LEFT JOIN person USING(seq) {which} ORDER BY seq DESC LIMIT :most",  # noqa: S608 - a constant
        {"door": door, "most": most},
    )
    return [Entry.of(*row) for row in rows]
