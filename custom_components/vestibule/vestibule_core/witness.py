"""A witness: somebody who keeps the newest checkpoint that he saw of another's journal, and cosigns what follows it.

The shapes are C2SP's (tlog-witness): how a journal has grown since a size is a text with the proof and the newest
checkpoint. All here is pure: what is to be held next, and whether to cosign, follows from what is held and what is
shown. What this file refuses to do: let go of a checkpoint because its journal does not go on from it. That takes a new
epoch whose first entry names that checkpoint, or an administrator.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self

from . import merkle
from .epoch import Head, read_head
from .evidence import Header, Run
from .model import EventName
from .note import NoteError, VerifierKey, decode, encode
from .proof import EntryProof

MAX_GROWN: Final = 8 * 1024
"""Characters of a journal's growth: at most 63 hashes and a note."""

_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})")
_MOST_HASHES: Final = 63


@dataclass(frozen=True, slots=True)
class Grown:
    """How a journal has grown since it had ``old`` entries: the proof, and its newest checkpoint."""

    old: int
    path: tuple[bytes, ...]
    note: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what ``text`` says (C2SP tlog-witness, the body of add-checkpoint); raise NoteError."""
        if len(text) > MAX_GROWN:
            raise NoteError(f"longer than {MAX_GROWN} characters: this cannot be a journal's growth")
        head, blank, note = text.partition("\n\n")
        first, *path = head.split("\n")
        if not blank or not (old := _OLD.fullmatch(first)) or len(path) > _MOST_HASHES:
            raise NoteError("not a journal's growth: it begins with the old size and at most 63 hashes")
        return cls(int(old[1]), tuple(decode(line) for line in path), note)

    def __str__(self) -> str:
        """Return the text."""
        return "\n".join([f"old {self.old}", *map(encode, self.path)]) + "\n\n" + self.note


class Finding(StrEnum):
    """What a witness sees."""

    GROWN = "grown"
    """It goes on from what is held, or nothing was held: it is to be held from now on, and cosigned."""
    BEHIND = "behind"
    """It ends before what is held: it was set back."""
    FORKED = "forked"
    """It does not go on from what is held: it was set back or changed, and written on since."""
    NEW_EPOCH = "new_epoch"
    """An administrator of its controller has confirmed that, and its first entry since names what is held."""
    ASK_AGAIN = "ask_again"
    """The proof is about another size than what is held: nothing follows from it."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen, and the journal's end that was shown."""

    finding: Finding
    shown: Head


def look(held: Head | None, grown: Grown, keys: Collection[VerifierKey], epoch_proof: EntryProof | None = None) -> Look:
    """Look at how a journal with one of these ``keys`` has grown, with ``held`` in mind; None: nothing was seen of it.

    ``epoch_proof`` proves the first entry of a new epoch. Raises NoteError if what is shown is not signed: it is
    nobody's word, and nothing follows from it.
    """
    shown = read_head(grown.note, keys)
    if held is None:
        return Look(Finding.GROWN, shown)
    if shown.epoch != held.epoch:
        if shown.epoch.number < held.epoch.number:
            return Look(Finding.BEHIND, shown)
        is_named = epoch_proof is not None and held.words in _heads_in(epoch_proof, shown, keys)
        goes_on = shown.epoch.number > held.epoch.number and (is_named or _goes_on(held, grown, shown))
        return Look(Finding.NEW_EPOCH if goes_on else Finding.FORKED, shown)
    if shown.size < held.size:
        return Look(Finding.BEHIND, shown)
    if shown.size > held.size and grown.old != held.size:
        return Look(Finding.ASK_AGAIN, shown)
    return Look(Finding.GROWN if _goes_on(held, grown, shown) else Finding.FORKED, shown)


def _goes_on(held: Head, grown: Grown, shown: Head) -> bool:
    before, now = held.checkpoint, shown.checkpoint
    if before.size == now.size:
        return before.root == now.root
    return grown.old == before.size and merkle.check_consistency(
        before.size, before.root, now.size, now.root, grown.path
    )


def _heads_in(proved: EntryProof, shown: Head, keys: Collection[VerifierKey]) -> tuple[str, ...]:
    """Return what the first entry of the epoch of ``shown`` names; nothing if it is not proved to be that."""
    origin = shown.checkpoint.origin
    try:
        entry, _ = proved.check([replace(key, name=origin) for key in keys])
    except NoteError:
        return ()
    is_first = entry.leaf.sequence == shown.epoch.first and entry.leaf.kind == EventName.EPOCH_BEGUN
    return entry.leaf.heads if is_first else ()


def prove_growth(header: Header, runs: Iterable[Run], old: int, newest: Head) -> Grown:
    """Return how a journal has grown from ``old`` entries to ``newest``, in one pass over its ``runs``.

    ``header.base`` may be any tree of its first entries, with the runs that follow it. Raises NoteError if entries that
    the proof needs are gone or damaged, or if there never were that many.
    """
    if not old:
        return Grown(0, (), newest.note)
    return Grown(old, _consistency(header, runs, old, newest).path, newest.note)


def continues(header: Header, runs: Iterable[Run], seen: Head, newest: Head) -> bool:
    """Return whether a journal that ends with ``newest`` goes on from ``seen``, of the same epoch. Raises NoteError."""
    if seen.size > newest.size:
        return False
    return not seen.size or _consistency(header, runs, seen.size, newest).old_root == seen.checkpoint.root


def _consistency(header: Header, runs: Iterable[Run], old: int, newest: Head) -> merkle.Consistency:
    leaves = (each for run in runs for each in run.leaves)
    try:
        return merkle.prove_consistency(old, newest.size, leaves, header.base)
    except ValueError as err:
        raise NoteError(f"there is no proof from entry {old} on: {err}") from err
