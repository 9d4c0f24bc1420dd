"""The proof that one entry is in a journal, as a text that stands alone (c2sp.org/tlog-proof, in its one spelling).

Its extra data is the entry itself, as a line of an exported journal has it (bundle.py). Whoever has the verifier key
can check it, without the journal and without trusting whoever hands it over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Self

from . import bundle, leaf, merkle
from .evidence import Entry, Header, PersonPart, Run
from .leaf import SALT_SIZE
from .note import Checkpoint, NoteError, VerifierKey, decode, encode, open_note

FIRST_LINE: Final = "c2sp.org/tlog-proof@v1"
MAX_BYTES: Final = 128 * 1024

_EXTRA: Final = "extra "
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class EntryProof:
    """One entry, the way from it to a root, and the signed checkpoint with that root."""

    sequence: int
    """The number of the entry, from 1."""
    leaf: bytes
    person: PersonPart | None
    path: tuple[bytes, ...]
    note: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the proof in ``text``; raise NoteError."""
        head, blank, note = text.partition("\n\n")
        match head.split("\n"):
            case first, extra, index, *path if blank and first == FIRST_LINE and extra.startswith(_EXTRA):
                pass
            case _:
                raise NoteError("not a proof of an entry: copy it whole, from its first line on")
        if not (number := _INDEX.fullmatch(index)):
            raise NoteError("the third line of a proof is its index, in decimal without leading zeros")
        sequence = int(number[1]) + 1
        entry = decode(extra.removeprefix(_EXTRA))
        try:
            data, person = bundle.decode_entry(entry, sequence)
        except ValueError as err:
            raise NoteError(f"the entry in the proof cannot be read: {err}") from err
        return cls(sequence, data, person, tuple(decode(line) for line in path), note)

    def __str__(self) -> str:
        """Return the text of the proof."""
        extra = encode(bundle.encode_entry(self.leaf, self.person))
        lines = [FIRST_LINE, _EXTRA + extra, f"index {self.sequence - 1}", *map(encode, self.path)]
        return "\n".join(lines) + "\n\n" + self.note

    def check(self, keys: Collection[VerifierKey]) -> tuple[Entry, Checkpoint]:
        """Return the entry that is proved, and the checkpoint that proves it; raise NoteError."""
        checkpoint = Checkpoint.parse(open_note(self.note, keys))
        if checkpoint.origin not in {key.name for key in keys}:
            raise NoteError("the checkpoint in the proof is another journal's")
        if not merkle.check_inclusion(self.leaf, self.sequence - 1, checkpoint.size, self.path, checkpoint.root):
            raise NoteError("the entry is not in the journal that was signed: do not rely on it")
        try:
            read = leaf.parse(self.leaf)
        except ValueError as err:
            raise NoteError(f"the entry cannot be read: {err}") from err
        if read.sequence != self.sequence:
            raise NoteError("the entry carries another number than its place in the journal")
        if self.person is not None and (
            len(self.person.salt) != SALT_SIZE or read.commit != leaf.commitment(self.person.salt, self.person.text)
        ):
            raise NoteError("the person's part is not the one that the entry was committed to: do not rely on it")
        return Entry(read, self.person), checkpoint


def prove(header: Header, runs: Iterable[Run], sequence: int, *, person: bool) -> EntryProof:
    """Prove entry ``sequence`` by a checkpoint that follows it, with who it was if ``person`` is True and it is known.

    Raises Broken if the journal is, or NoteError if the entry is not there or not what was signed.
    """
    tree, remaining = header.base, iter(runs if sequence > header.base.size else ())
    for run in remaining:
        if sequence <= run.last:
            signed = next((kept for kept in reversed(run.checkpoints) if kept.size >= sequence), None)
            if signed is None:
                next(remaining, None)  # raises Broken if that is because what follows is
                raise NoteError(f"entry {sequence} is not signed")
            inclusion = merkle.prove_inclusion(sequence - 1, signed.size, run.leaves[: signed.size - tree.size], tree)
            part = next((part for part in run.persons if part.sequence == sequence), None)
            data = run.leaves[sequence - run.first]
            proof = EntryProof(sequence, data, part if person else None, inclusion.path, signed.note)
            proof.check(header.keys)
            return proof
        tree = tree.extend(run.leaves)
    raise NoteError(f"there is no entry {sequence}: it was dropped after its time, or has not happened")
