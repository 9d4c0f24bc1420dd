"""What of a journal is evidence: leaves, checkpoints and persons, read in runs that follow each other.

The same shapes whether they come from the file, from the running journal or from an exported text, so that one
verifier (audit.py) serves all three. What has been spent and what is noted is the controller's working memory and no
evidence.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Final, Self

from .leaf import Leaf, Person, parse, read_json
from .merkle import Tree
from .model import DoorId
from .note import VerifierKey
from .schema import is_damage

RUN: Final = 1000
"""Entries of a run: about a millisecond of the writer's time, so that no door waits for a reader."""
DAMAGED: Final = "the file is damaged"
MISSING: Final = "entries are missing"
UNREADABLE: Final = "an entry cannot be read"

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
    flaw: str | None = None
    """What is wrong with the file before its first entry; a verification fails for it."""


@dataclass(frozen=True, slots=True)
class PersonPart:
    """The deletable part of an entry."""

    sequence: int
    salt: bytes
    text: str

    def read(self) -> Person:
        """Return what the text says; raise ValueError if it cannot be read."""
        person = read_json(self.text)
        if not isinstance(person, dict):
            raise ValueError("a person's part is no object")
        return person


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, as it is shown."""

    leaf: Leaf
    person: PersonPart | None

    @classmethod
    def of(cls, sequence: int, data: bytes, person: PersonPart | None) -> Self:
        """Return entry ``sequence``; raise Broken if its leaf cannot be read, or says that it is another."""
        try:
            leaf = parse(data)
        except ValueError:
            raise Broken(sequence - 1, UNREADABLE) from None
        if leaf.sequence != sequence:
            raise Broken(sequence - 1, "an entry carries another number than its place")
        return cls(leaf, person)

    @property
    def who(self) -> str | None:
        """What a person would be called; None if nobody is named, or nobody any more. Raises ValueError."""
        if self.person is None:
            return None
        person = self.person.read()
        name = person.get("user") or person.get("sub")
        return None if name is None else str(name)


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
            yield Entry.of(sequence, data, parts.get(sequence))


class Broken(ValueError):
    """Entries are missing or cannot be read; ``after`` is the last one before them."""

    def __init__(self, after: int, why: str) -> None:
        """Say where, and why."""
        super().__init__(why)
        self.after = after


def note_of(tree: Tree) -> str:
    """Return a tree as a note in the journal."""
    return json.dumps({"size": tree.size, "peaks": [peak.hex() for peak in tree.peaks]})


def tree_of(note: object) -> Tree:
    """Return the tree that was noted; raise ValueError if it is none."""
    if note is None:
        return Tree()
    try:
        fields = read_json(note)
        return Tree.parse(fields["size"], tuple(bytes.fromhex(peak) for peak in fields["peaks"]))
    except (KeyError, TypeError) as err:
        raise ValueError("what is noted is no tree") from err


def note_of_keys(keys: Iterable[VerifierKey]) -> str:
    """Return keys as a note in the journal."""
    return json.dumps([str(key) for key in keys])


def keys_of(note: object) -> tuple[VerifierKey, ...]:
    """Return the keys that were noted; raise ValueError if they are none."""
    keys = read_json(note) if note is not None else []
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("what is noted are no keys")
    return tuple(VerifierKey.parse(key) for key in keys)


def read_base(db: sqlite3.Connection) -> Tree:
    """Return the tree of the entries that were dropped after their time; raise Broken if it cannot be read."""
    return _read(tree_of, db, BASE)


def read_keys(db: sqlite3.Connection) -> tuple[VerifierKey, ...]:
    """Return who signed, in order; raise Broken if it cannot be read."""
    return _read(keys_of, db, KEYS)


def read_header(db: sqlite3.Connection) -> Header:
    """Return what has to be known before the first run; raise Broken if it cannot be read."""
    base, keys = read_base(db), read_keys(db)
    (newest,) = db.execute("SELECT max(seq) FROM leaf").fetchone()
    note = db.execute("SELECT note FROM checkpoint WHERE size = ?", (base.size,)).fetchone() if base.size else None
    return Header(
        keys=keys,
        base=base,
        base_note=note[0] if note and type(note[0]) is str else None,
        size=max(newest or 0, base.size),
        flaw=_flaw(db, base.size),
    )


def _read[T](reading: Callable[[object], T], db: sqlite3.Connection, name: str) -> T:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (name,)).fetchone()
    try:
        return reading(row[0] if row else None)
    except ValueError as err:
        raise Broken(0, f"what the journal notes of itself cannot be read: {err}") from None


def _flaw(db: sqlite3.Connection, base: int) -> str | None:
    """Say if there is something where nothing is looked at: under the numbers of entries that were dropped."""
    for below in (
        "SELECT seq FROM leaf WHERE seq <= ? LIMIT 1",
        "SELECT seq FROM person WHERE seq <= ? LIMIT 1",
        "SELECT size FROM checkpoint WHERE size < ? LIMIT 1",
    ):
        try:
            row = db.execute(below, (base,)).fetchone()
        except sqlite3.Error as err:
            if not is_damage(err):
                raise
            return None  # whoever reads the first run is told of that
        if row:
            return f"there is something under the number {row[0]}, although it begins after entry {base}"
    return None


def read_run(db: sqlite3.Connection, after: int, *, most: int = RUN) -> Run | None:
    """Return the run after entry ``after``, None behind the last one; raise Broken.

    It has ``most`` entries and those to the next checkpoint, or fewer if what follows them is broken: whoever asks for
    what follows is told of that. Raises sqlite3.Error if the disk fails.
    """
    try:
        run = _all_at_once(db, after, most)
    except sqlite3.Error as err:
        if not is_damage(err):
            raise
        run = None
    return run or _one_by_one(db, after)


def _all_at_once(db: sqlite3.Connection, after: int, most: int) -> Run | None:
    """Return a run; None if it is not as it should be, or the journal ends at ``after``."""
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
    is_whole = (
        newest == run.last  # no number is there twice, so their count tells
        and (not run.checkpoints or run.checkpoints[-1].size <= run.last)
        and (not run.persons or run.persons[-1].sequence <= run.last)
        # A damaged record may have turned one kind of value into another.
        and set(map(type, run.leaves)) == {bytes}
        and all(type(person.salt) is bytes and type(person.text) is str for person in run.persons)
        and all(type(checkpoint.note) is str for checkpoint in run.checkpoints)
    )
    return run if is_whole else None


def _one_by_one(db: sqlite3.Connection, after: int) -> Run | None:
    """Return the entries after ``after`` up to one that is broken, None if there are none; raise Broken at that one."""
    leaves: list[bytes] = []
    persons: list[PersonPart] = []
    checkpoints: list[SignedSize] = []
    for sequence in count(after + 1):
        try:
            found = _one(db, sequence)
        except (Broken, sqlite3.Error) as err:
            if isinstance(err, sqlite3.Error) and not is_damage(err):
                raise
            if leaves:
                break
            raise (err if isinstance(err, Broken) else Broken(after, DAMAGED)) from None
        if found is None:
            break
        leaf, person, checkpoint = found
        leaves.append(leaf)
        persons += [person] if person else []
        checkpoints += [checkpoint] if checkpoint else []
    return Run(after + 1, tuple(leaves), tuple(persons), tuple(checkpoints)) if leaves else None


def _one(db: sqlite3.Connection, sequence: int) -> tuple[bytes, PersonPart | None, SignedSize | None] | None:
    """Return what belongs to entry ``sequence``, None if the journal ends before it; raise Broken, or sqlite3.Error."""
    leaf = db.execute("SELECT bytes FROM leaf WHERE seq = ?", (sequence,)).fetchone()
    if leaf is None:
        for behind in (
            "SELECT 1 FROM leaf WHERE seq > ? LIMIT 1",
            "SELECT 1 FROM person WHERE seq >= ? LIMIT 1",
            "SELECT 1 FROM checkpoint WHERE size >= ? LIMIT 1",
        ):
            if db.execute(behind, (sequence,)).fetchone():
                raise Broken(sequence - 1, MISSING)
        return None
    if type(leaf[0]) is not bytes:
        raise Broken(sequence - 1, "an entry is not in bytes")
    note = db.execute("SELECT note FROM checkpoint WHERE size = ?", (sequence,)).fetchone()
    if note is not None and type(note[0]) is not str:
        raise Broken(sequence - 1, "a checkpoint is no text")
    return leaf[0], read_person(db, sequence), SignedSize(sequence, note[0]) if note else None


def read_person(db: sqlite3.Connection, sequence: int) -> PersonPart | None:
    """Return the person's part of an entry, None if it has none; raise Broken, or sqlite3.Error if the disk fails."""
    try:
        row = db.execute("SELECT salt, json FROM person WHERE seq = ?", (sequence,)).fetchone()
    except sqlite3.Error as err:
        if not is_damage(err):
            raise
        raise Broken(sequence - 1, DAMAGED) from None
    if row is None:
        return None
    salt, text = row
    if type(salt) is not bytes or type(text) is not str:
        raise Broken(sequence - 1, "a person's part is not salt and text")
    return PersonPart(sequence, salt, text)


def read_runs(db: sqlite3.Connection, header: Header) -> Iterator[Run]:
    """Yield every run of a journal at rest, in order; raise Broken, or sqlite3.Error if the disk fails."""
    after = header.base.size
    while (run := read_run(db, after)) is not None:
        yield run
        after = run.last


def read_newest(db: sqlite3.Connection, door: DoorId | None, most: int, *, trusts_index: bool = False) -> list[Entry]:
    """Return the newest entries (of ``door``; None: of all), newest first; raise Broken if one cannot be read.

    ``trusts_index``: by the index of doors, which is quick and no evidence. Else every entry is looked at.
    """
    try:
        above: dict[str, object] = {"base": read_base(db).size, "door": door}
        which = "AND CAST(bytes AS TEXT) ->> '$.door' = :door" if trusts_index and door is not None else ""
        table = "leaf" if which else "leaf NOT INDEXED"
        found: list[Entry] = []
        rows = db.execute(
            f"SELECT seq, bytes FROM {table} WHERE seq > :base {which} ORDER BY seq DESC",  # noqa: S608 - constants
            above,
        )
        for sequence, data in rows:
            if len(found) == most:
                break
            entry = Entry.of(sequence, data, None)
            if door is None or entry.leaf.door == door:
                found.append(replace(entry, person=read_person(db, sequence)))
        return found
    except sqlite3.Error as err:
        if not is_damage(err):
            raise
        raise Broken(0, DAMAGED) from None
