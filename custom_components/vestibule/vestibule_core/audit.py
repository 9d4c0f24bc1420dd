"""The verifier: whether a journal says what was signed, and if not, in which interval it first does not.

Takes the runs of a journal in order, from wherever they come (evidence.py), and holds them against the checkpoints in
them, the persons' commitments, and a checkpoint that was kept elsewhere. What it refuses to do: believe a key only
because the journal names it, if the caller has named one; go on behind the first interval that fails (protocol D).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from . import leaf
from .evidence import Broken, Header, Run, SignedSize
from .note import Checkpoint, NoteError, VerifierKey, open_note


@dataclass(frozen=True, slots=True)
class Failure:
    """The first interval that fails: entries ``first`` to ``last``, behind one checkpoint and up to the next."""

    first: int
    last: int
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found."""

    entries: int
    """How many were proved, before the interval that fails."""
    persons: int
    """How many persons' parts are those that were committed to."""
    checkpoints: int
    dropped: int
    """How many of the oldest entries are no longer there; their checkpoint is."""
    keys: tuple[VerifierKey, ...]
    """Who had to sign: the keys that the caller named, else those that the journal names."""
    newest: str | None
    """The newest checkpoint that was proved: worth keeping elsewhere."""
    failure: Failure | None

    @property
    def holds(self) -> bool:
        """Whether nothing fails."""
        return self.failure is None


def verify(
    header: Header, runs: Iterable[Run], *, keys: Collection[VerifierKey] = (), kept: Checkpoint | None = None
) -> Verdict:
    """Return whether a journal says what was signed; its ``runs`` may raise Broken. ``keys``, ``kept``: as Audit."""
    audit = Audit(header, keys=keys, kept=kept)
    try:
        for run in runs:
            audit.take(run)
            if audit.failure is not None:
                break
    except Broken as broken:
        audit.fail_after(broken.after, str(broken))
    return audit.verdict()


class Audit:
    """One verification: ``take`` each run in order, then ask for the ``verdict``."""

    def __init__(self, header: Header, *, keys: Collection[VerifierKey] = (), kept: Checkpoint | None = None) -> None:
        """Begin. ``keys`` are the keys that may sign; ``kept`` is a checkpoint of this journal, known to be genuine."""
        self._keys = tuple(keys) or header.keys
        self._kept = kept
        self._tree = header.base
        self._dropped = header.base.size
        self._proved = header.base.size
        self._persons = self._checkpoints = 0
        self._newest: str | None = None
        self.failure: Failure | None = None
        """The first interval that fails; what is taken after it is not looked at."""
        if header.base.size:
            self._begin_at(header)
        if kept is not None and kept.size < header.base.size:
            self._fail(1, header.base.size, f"the checkpoint of entry {kept.size} is older than what is still there")

    def take(self, run: Run) -> None:
        """Look at the next run."""
        at = 0
        for checkpoint in run.checkpoints:
            if self.failure is not None:
                return
            count = checkpoint.size - self._tree.size
            self._extend(run.leaves[at : at + count])
            at += count
            self._see(checkpoint)
        if self.failure is None:
            self._extend(run.leaves[at:])
            self._see_persons(run)

    def fail_after(self, entry: int, why: str) -> None:
        """Say that nothing behind ``entry`` can be read."""
        self._fail(self._proved + 1, max(entry + 1, self._proved + 1), why)

    def verdict(self) -> Verdict:
        """Return what was found when every run was taken."""
        if self.failure is None and self._tree.size > self._proved:
            self._fail(self._proved + 1, self._tree.size, "they are not signed")
        if self.failure is None and self._kept is not None and self._kept.size > self._tree.size:
            why = f"the journal ends before entry {self._kept.size}, which is in the checkpoint that was kept"
            self._fail(self._tree.size + 1, self._kept.size, why)
        return Verdict(
            entries=self._proved - self._dropped,
            persons=self._persons,
            checkpoints=self._checkpoints,
            dropped=self._dropped,
            keys=self._keys,
            newest=self._newest,
            failure=self.failure,
        )

    def _begin_at(self, header: Header) -> None:
        if header.base_note is None:
            self._fail(1, header.base.size, "what is left of the dropped entries is not signed")
        else:
            self._see(SignedSize(header.base.size, header.base_note))

    def _extend(self, leaves: tuple[bytes, ...]) -> None:
        if self._kept is not None and self._tree.size < self._kept.size <= self._tree.size + len(leaves):
            count = self._kept.size - self._tree.size
            self._tree = self._tree.extend(leaves[:count])
            leaves = leaves[count:]
            if self._tree.root() != self._kept.root:
                self._fail(self._proved + 1, self._kept.size, "they are not those of the checkpoint that was kept")
        self._tree = self._tree.extend(leaves)

    def _see(self, checkpoint: SignedSize) -> None:
        if self.failure is not None:
            return
        first = self._proved + 1 if checkpoint.size > self._dropped else 1
        try:
            signed = Checkpoint.parse(open_note(checkpoint.note, self._keys))
        except NoteError as err:
            self._fail(first, checkpoint.size, f"their checkpoint does not hold: {err}")
            return
        if signed.origin not in {key.name for key in self._keys} or signed.size != checkpoint.size:
            self._fail(first, checkpoint.size, "their checkpoint is another's")
        elif (signed.size, signed.root) != (self._tree.size, self._tree.root()):
            self._fail(first, checkpoint.size, "they are not those that were signed")
        else:
            self._proved, self._newest = checkpoint.size, checkpoint.note
            self._checkpoints += 1

    def _see_persons(self, run: Run) -> None:
        for person in run.persons:
            place = person.sequence - run.first
            if not 0 <= place < len(run.leaves):
                self._fail(person.sequence, person.sequence, "a person's part belongs to no entry")
                return
            try:
                commit = json.loads(run.leaves[place].decode())["commit"]  # all of the leaf would take twice as long
            except (ValueError, LookupError, TypeError, RecursionError) as err:
                self._fail(person.sequence, person.sequence, f"the entry cannot be read: {err}")
                return
            if len(person.salt) != leaf.SALT_SIZE or commit != leaf.commitment(person.salt, person.text):
                self._fail(person.sequence, person.sequence, "the person's part is not the one that was committed to")
                return
            self._persons += 1

    def _fail(self, first: int, last: int, why: str) -> None:
        self.failure = self.failure or Failure(first, last, why)
