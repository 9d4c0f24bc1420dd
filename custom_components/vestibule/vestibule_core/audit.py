"""The verifier: whether a journal says what was signed, and if not, in which interval it first does not.

Takes the runs of a journal in order, from wherever they come (evidence.py), and holds them against the checkpoints in
them, the persons' commitments, and a checkpoint that was kept elsewhere. What it refuses to do: believe a key only
because the journal names it, if the caller has named one; go on behind the first interval that fails (protocol D).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from . import leaf
from .epoch import split_name
from .erasure import DAY, LEAVES_KEPT
from .evidence import Broken, Entry, Header, Run, SignedSize
from .note import Checkpoint, NoteError, VerifierKey, open_signed

QUIET: Final = 31 * DAY
"""Seconds between the last entry that was dropped and the first one that is left, in a building without doubt."""


class Kept(StrEnum):
    """What a checkpoint that was kept elsewhere says about the journal."""

    MATCHES = "matches"
    """The journal goes on from it."""
    CONTRADICTED = "contradicted"
    """The journal had other entries by then, or ends before it: a failure."""
    TOO_OLD = "too_old"
    """What it is about was dropped, as happens after its time: it says nothing any more, and nothing fails for it."""
    NOT_REACHED = "not_reached"
    """Something else fails before it."""


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
    """How many were proved, before the interval that fails: the first ones behind those that were dropped."""
    persons: int
    """How many persons' parts are those that were committed to."""
    checkpoints: int
    dropped: int
    """How many of the oldest entries are no longer there; their checkpoint is."""
    keys: tuple[VerifierKey, ...]
    """Who had to sign: the keys that the caller named, else those that the journal names."""
    signed: tuple[tuple[VerifierKey, int], ...]
    """Who of them did sign, in order, and how many of the checkpoints."""
    newest: str | None
    """The newest checkpoint that was proved: worth keeping elsewhere."""
    oldest: float | None
    """When the first entry that is still there happened, in seconds since 1970; None: none was looked at.

    Whoever can write the file can drop its oldest entries before their time, and nothing in it can tell. If some were
    dropped, about the 24 months for which entries are kept lie between this and ``latest``, or somebody dropped them
    too early, or nothing had happened for as long as is missing."""
    latest: float | None
    """When the newest entry that was looked at happened, in seconds since 1970."""
    kept: Kept | None
    """What the checkpoint that was handed over says; None: there was none."""
    failure: Failure | None

    @property
    def holds(self) -> bool:
        """Whether nothing fails."""
        return self.failure is None

    @property
    def may_be_cut(self) -> bool:
        """Whether entries are gone that may be younger than those which a journal drops by itself."""
        if not self.dropped or self.oldest is None or self.latest is None:
            return False
        return self.latest - self.oldest < LEAVES_KEPT - QUIET


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
        self._keys = tuple(dict.fromkeys((*keys, *_epochs_of(keys, header.keys)) if keys else header.keys))
        self._kept = kept
        self._tree = header.base
        self._dropped = header.base.size
        self._proved = header.base.size
        self._persons = self._checkpoints = 0
        self._signed: Counter[VerifierKey] = Counter()
        self._newest: str | None = None
        self._oldest: float | None = None
        self._latest: float | None = None
        self._matches: bool | None = None
        """Whether the kept checkpoint was found to be right; None: not yet looked at."""
        self.failure: Failure | None = None
        """The first interval that fails; what is taken after it is not looked at."""
        if header.flaw is not None:
            self._fail(1, max(1, header.base.size), header.flaw)
        if header.base.size:
            self._begin_at(header)
        if kept is not None and kept.size == header.base.size:
            self._compare(kept, 1)

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
            self._see_places(run)
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
            self._matches = False
        # What fails may be one entry of many that a checkpoint has proved together.
        proved = self._proved if self.failure is None else min(self._proved, self.failure.first - 1)
        return Verdict(
            entries=max(0, proved - self._dropped),
            persons=self._persons,
            checkpoints=self._checkpoints,
            dropped=self._dropped,
            keys=self._keys,
            signed=tuple((key, self._signed[key]) for key in self._keys if self._signed[key]),
            newest=self._newest,
            oldest=self._oldest,
            latest=self._latest,
            kept=self._kept_says(),
            failure=self.failure,
        )

    def _kept_says(self) -> Kept | None:
        if self._kept is None:
            return None
        if self._matches is not None:
            return Kept.MATCHES if self._matches else Kept.CONTRADICTED
        return Kept.TOO_OLD if self._kept.size < self._dropped else Kept.NOT_REACHED

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
            self._compare(self._kept, self._proved + 1)
        self._tree = self._tree.extend(leaves)

    def _compare(self, kept: Checkpoint, first: int) -> None:
        """Hold the kept checkpoint against the tree, which has just its size."""
        self._matches = self._tree.root() == kept.root
        if not self._matches:
            self._fail(first, max(first, kept.size), "they are not those of the checkpoint that was kept")

    def _see(self, checkpoint: SignedSize) -> None:
        if self.failure is not None:
            return
        first = self._proved + 1 if checkpoint.size > self._dropped else 1
        try:
            text, signers = open_signed(checkpoint.note, self._keys)
            signed = Checkpoint.parse(text)
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
            self._signed.update(signers)

    def _see_places(self, run: Run) -> None:
        """See that each entry says where it is, and when the first and the last one happened."""
        if not run.leaves or self.failure is not None:
            return
        suspects = {*leaf.misplaced(run.leaves, run.first), run.first, run.last}
        for place in sorted(suspects):
            try:
                entry = Entry.of(place, run.leaves[place - run.first], None)
            except Broken as broken:
                self._fail(place, place, str(broken))
                return
            self._latest = entry.leaf.at
            if self._oldest is None:
                self._oldest = self._latest

    def _see_persons(self, run: Run) -> None:
        for person in run.persons:
            if self.failure is not None:
                return
            place = person.sequence - run.first
            if not 0 <= place < len(run.leaves):
                self._fail(person.sequence, person.sequence, "a person's part belongs to no entry")
            elif not leaf.commits_to(run.leaves[place], person.salt, person.text):
                self._fail(person.sequence, person.sequence, "the person's part is not the one that was committed to")
            else:
                self._persons += 1

    def _fail(self, first: int, last: int, why: str) -> None:
        self.failure = self.failure or Failure(first, last, why)


def _epochs_of(keys: Collection[VerifierKey], named: Iterable[VerifierKey]) -> Iterable[VerifierKey]:
    """Return which of the keys that a journal names are those of the caller under the name of a later epoch."""
    known = {(split_name(key.name)[0], key.public) for key in keys}
    return (key for key in named if (split_name(key.name)[0], key.public) in known)
