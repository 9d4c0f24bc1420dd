"""What a piece of work may do inside a transaction of the journal, and where a journal that is opened goes on.

Keeps the tree of all leaves beside the file, and signs it at the end of each transaction that added one. What it
refuses to do: go on from newest entries that are not those which were signed. Lives in the journal's writer thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from . import erasure, evidence, leaf
from .epoch import Epoch, Head, read_head, split_name
from .merkle import Tree
from .model import AccessEvent, DoorId, EventName
from .note import Checkpoint, NoteError, SignerKey, VerifierKey, open_note
from .schema import LOG, LONGEST_VALUE

NOTED_BACK: Final = 1.0
"""Seconds by which an entry is earlier than the newest one before that is noted."""
SPARSE: Final = 1024
"""Entries between two checkpoints that stay; of the newest entries each transaction's stays. A checkpoint covers all
before it: a dropped one costs no proof, only how narrowly damage is located."""

NEWEST: Final = "newest"
_ANCHOR_BEFORE: Final = "tree before"
EPOCH: Final = "epoch"
COSIGNED: Final = "cosigned"
"""Names of notes: the newest time if the clock went back since, the size of the anchor before this one, what the
checkpoints are called if that is another name than at first, and the size of the newest one that was cosigned."""

_OWN: Final = frozenset(
    {NEWEST, _ANCHOR_BEFORE, EPOCH, COSIGNED, evidence.BASE, evidence.KEYS, evidence.TREE, erasure.EMPTY, LOG}
)

type Notes = Mapping[str, str | None]
"""What has to be known after a restart, committed along with an entry: text by name, None takes a name away. A text may
be of any length, and has several rows if it is a long one."""
_PIECE: Final = LONGEST_VALUE // 4
"""Characters of a note in one row: none of them takes more than four bytes."""
_MORE: Final = "\n"
"""Stands in no name: behind it is the number of a row that goes on where the one before ends."""
_BEHIND_MORE: Final = "\v"


def is_own(name: str) -> bool:
    """Return whether a note is the journal's own, which nobody else sees."""
    return name in _OWN or name.startswith(erasure.DELETING)


def whole_notes(rows: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return notes by name, of their rows."""
    notes: dict[str, str] = {}
    for key, text in sorted(rows):
        name, _, _ = key.partition(_MORE)
        notes[name] = notes.get(name, "") + text
    return notes


def noted_release(door: DoorId, spend_id: bytes) -> Notes:
    """Return the note that the controller has a release of ``door`` to end, should it die."""
    return {f"release:{door}": spend_id.hex()}


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a savepoint began: what goes back along with the file."""

    sequence: int
    newest: float
    tree: Tree
    signer: SignerKey


class Writer:
    """The open file and the tree of its leaves."""

    def __init__(self, db: sqlite3.Connection, signer: SignerKey) -> None:
        """Use ``Writer.resume``."""
        self.db = db
        self.sequence = 0
        self.newest = 0.0
        """The newest time of any entry, in seconds since 1970."""
        self.checkpoint: str | None = None
        """The newest signed note; None: there is no entry yet."""
        self.signer = signer
        """The controller's own key, under the name of its first epoch."""
        self._signer = signer
        self._tree = Tree()
        self._anchor = Tree()
        """A tree that is noted now and then: at the next start only what follows it is hashed."""
        self._anchor_before = 0
        """The size of the anchor before."""
        self._long: set[str] = set()
        """Names of notes that have, or had, several rows."""

    @classmethod
    def resume(cls, db: sqlite3.Connection, signer: SignerKey, *, signed: bool) -> Self:
        """Go on where the file ends, inside of a transaction; ``signed`` says whether its entries have to be.

        Raises ValueError if its newest entries are not those that were signed, or cannot be read.
        """
        writer = cls(db, signer)
        base, keys = evidence.read_base(db), evidence.read_keys(db)
        rows = db.execute("SELECT key, value FROM meta").fetchall()
        writer._long = {key.partition(_MORE)[0] for key, _ in rows if _MORE in key}
        notes = whole_notes(rows)
        if (name := notes.get(EPOCH)) is not None:
            if split_name(name)[0] != signer.verifier.name:
                raise ValueError("its epoch is another journal's")
            writer._signer = signer.renamed(name)
        anchor = evidence.tree_of(notes.get(evidence.TREE))
        writer._anchor = max(anchor, base, key=lambda tree: tree.size)
        writer._anchor_before = int(notes.get(_ANCHOR_BEFORE, 0))
        writer._tree = writer._anchor
        while (run := evidence.read_run(db, writer._tree.size)) is not None:
            writer._tree = writer._tree.extend(run.leaves)
        writer.sequence = writer._tree.size
        writer._find_time(notes.get(NEWEST))
        writer._find_checkpoint(keys, signed=signed)
        writer._note_key()
        if not signed:
            writer._sign()
        return writer

    def _find_time(self, noted: str | None) -> None:
        row = self.db.execute("SELECT bytes FROM leaf ORDER BY seq DESC LIMIT 1").fetchone()
        self.newest = max(leaf.parse(row[0]).at if row else 0.0, float(noted) if noted else 0.0)

    def _find_checkpoint(self, keys: Sequence[VerifierKey], *, signed: bool) -> None:
        row = self.db.execute("SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        if row is None:
            if signed and self._tree.size:
                raise ValueError("its entries are not signed")
            return
        if type(row[1]) is not str:
            raise ValueError("its newest checkpoint is no text")
        self.checkpoint = row[1]
        kept = Checkpoint.parse(open_note(row[1], keys))
        if (kept.size, kept.root) != (self._tree.size, self._tree.root()):
            raise ValueError(f"its newest entries are not those that were signed, up to entry {kept.size}")

    @property
    def anchor(self) -> Tree:
        """A tree of most of the entries: who needs only what follows it, need not read what is before."""
        return self._anchor

    # ---- in a transaction ----

    @property
    def mark(self) -> Mark:
        """Where a savepoint begins."""
        return Mark(self.sequence, self.newest, self._tree, self._signer)

    def go_back(self, mark: Mark) -> None:
        """Forget what was added since ``mark``, as the file does."""
        self.sequence, self.newest, self._tree, self._signer = mark.sequence, mark.newest, mark.tree, mark.signer

    def append(self, event: AccessEvent, person: leaf.Person | None, notes: Notes) -> AccessEvent:
        """Add a leaf (with its person and notes) and return the event with its sequence number.

        Raises ValueError if the entry or its person's part is longer than what is read again.
        """
        self.sequence += 1
        self._see_time(event)
        self.note(notes)
        commit = None
        if person is not None:
            salt, text = os.urandom(leaf.SALT_SIZE), leaf.compact(person)
            if len(text) > leaf.MAX_PERSON:
                raise ValueError("a person's part is too long")
            commit = leaf.commitment(salt, text)
            self.db.execute("INSERT INTO person VALUES(?, ?, ?)", (self.sequence, salt, text))
        data = leaf.encode(event, self.sequence, commit)
        if len(data) > LONGEST_VALUE:
            raise ValueError("an entry is too long")
        self.db.execute("INSERT INTO leaf VALUES(?, ?)", (self.sequence, data))
        self._tree = self._tree.append(data)
        return replace(event, sequence=self.sequence)

    def begin_epoch(
        self, event: AccessEvent, person: leaf.Person | None, notes: Notes, seen: Iterable[str]
    ) -> AccessEvent:
        """Add the first leaf of a new epoch, which names the journal's own end and those in the notes ``seen``.

        Raises NoteError if one of those is no checkpoint of this journal.
        """
        base, _ = split_name(self._signer.verifier.name)
        heads = [read_head(note, evidence.read_keys(self.db)) for note in seen]
        if self.checkpoint is not None:
            heads.append(read_head(self.checkpoint, evidence.read_keys(self.db)))
        heads.sort(key=_age)
        number = max(head.epoch.number for head in heads) + 1 if heads else 1
        name = Epoch(number, self.sequence + 1).name(base)
        words = dict.fromkeys(head.words for head in heads[-leaf.MOST_HEADS :])
        self._signer = self._signer.renamed(name)
        self._note_key()
        return self.append(replace(event, heads=tuple(words)), person, {**notes, EPOCH: name})

    def _note_key(self) -> None:
        keys = evidence.read_keys(self.db)
        if (key := self._signer.verifier) not in keys:
            self.note({evidence.KEYS: evidence.note_of_keys((*keys, key))})

    def cosigned(self, note: str) -> None:
        """Keep a checkpoint of this journal as a witness has cosigned it. Raises NoteError if it is none."""
        head = read_head(note, evidence.read_keys(self.db))
        row = self.db.execute("SELECT note FROM checkpoint WHERE size = ?", (head.size,)).fetchone()
        if row is None or read_head(row[0], evidence.read_keys(self.db)).checkpoint != head.checkpoint:
            raise NoteError("it is no checkpoint of this journal that is still kept")
        self.db.execute("UPDATE checkpoint SET note = ? WHERE size = ?", (note, head.size))
        self.note({COSIGNED: str(head.size)})

    def note(self, notes: Notes) -> None:
        """Note what has to be known after a restart."""
        for name, text in notes.items():
            if name in self._long:
                self.db.execute("DELETE FROM meta WHERE key > ? AND key < ?", (name + _MORE, name + _BEHIND_MORE))
            if text is None:
                self.db.execute("DELETE FROM meta WHERE key = ?", (name,))
                continue
            self.db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (name, text[:_PIECE]))
            for number, begin in enumerate(range(_PIECE, len(text), _PIECE), 1):
                self._long.add(name)  # stays, whatever becomes of the transaction
                row = f"{name}{_MORE}{number:05}", text[begin : begin + _PIECE]
                self.db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", row)

    def sign(self, before: Mark) -> None:
        """Sign all that there is if something was added since ``before``: the last thing of a transaction."""
        if self._tree.size > before.tree.size:
            self._sign()

    def _sign(self) -> None:
        if not (size := self._tree.size):
            return
        self.checkpoint = self._signer.sign(Checkpoint(self._signer.verifier.name, size, self._tree.root()).text)
        self.db.execute("INSERT INTO checkpoint VALUES(?, ?)", (size, self.checkpoint))
        if size - self._anchor.size >= SPARSE:
            # What lies between the last two anchors is old enough to be located by them.
            self.db.execute(
                "DELETE FROM checkpoint WHERE size > max(?, ?) AND size < ? "
                "AND size IS NOT (SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?)",
                (self._anchor_before, evidence.read_base(self.db).size, self._anchor.size, COSIGNED),
            )
            self._anchor, self._anchor_before = self._tree, self._anchor.size
            self.note({evidence.TREE: evidence.note_of(self._anchor), _ANCHOR_BEFORE: str(self._anchor_before)})

    def _see_time(self, event: AccessEvent) -> None:
        """Keep the newest time of all, also when the clock has gone back since: ``newest`` of the next start (A.2)."""
        if event.outcome is EventName.CLOCK_CONFIRMED:
            self.newest = event.at
            self.note({NEWEST: None})
        elif event.at >= self.newest:
            self.newest = event.at
        elif event.at < self.newest - NOTED_BACK:
            self.note({NEWEST: repr(self.newest)})


def _age(head: Head) -> tuple[int, int]:
    return head.epoch.number, head.size
