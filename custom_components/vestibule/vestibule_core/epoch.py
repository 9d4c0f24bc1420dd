"""Epochs of a journal: what its signatures are called, from its first entry on and after each confirmed rollback.

The key stays; the name in its checkpoints changes (C2SP: the origin of a log names one history and no other). A name
says the how-manieth epoch it is and the number of its first entry, which names what was known of the epochs before.
What this file refuses to do: read a checkpoint that the controller's own key has not signed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from .note import Checkpoint, NoteError, VerifierKey, encode, note_parts, open_note

_NAME: Final = re.compile(r"(?P<base>.+)/epoch/(?P<number>[1-9][0-9]{0,8})/(?P<first>[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True, order=True)
class Epoch:
    """One history of a journal; 0 is the one that it began with."""

    number: int = 0
    first: int = 1
    """The number of its first entry."""

    def name(self, base: str) -> str:
        """Return what its checkpoints are called at the controller ``base``."""
        return f"{base}/epoch/{self.number}/{self.first}" if self.number else base


def split_name(name: str) -> tuple[str, Epoch]:
    """Return whose name that is, and of which epoch."""
    if match := _NAME.fullmatch(name):
        return match["base"], Epoch(int(match["number"]), int(match["first"]))
    return name, Epoch()


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a journal, as its controller has signed it once."""

    note: str
    """The checkpoint, with its controller's signature and nobody else's."""
    checkpoint: Checkpoint
    epoch: Epoch

    @property
    def size(self) -> int:
        """How many entries there were."""
        return self.checkpoint.size

    @property
    def words(self) -> str:
        """What an entry names it by: origin, size and root on one line."""
        return self.checkpoint.text.rstrip("\n").replace("\n", " ")


def read_head(note: str, keys: Iterable[VerifierKey]) -> Head:
    """Return what ``note`` says, signed by one of the controller's ``keys`` in any epoch; raise NoteError.

    Only the words and the controller's own signature stay: what others have added to the note proves nothing here. A
    controller that starts anew shows what was cosigned; if that were cosigned whole, a note would soon be full.
    """
    origin = note.partition("\n")[0]
    base, epoch = split_name(origin)
    known = [replace(key, name=origin) for key in keys if split_name(key.name)[0] == base]
    if not known:
        raise NoteError("it is another journal's checkpoint")
    checkpoint = Checkpoint.parse(open_note(note, known))
    return Head(_signed_by_its_own(note, known), checkpoint, epoch)


def _signed_by_its_own(note: str, known: Collection[VerifierKey]) -> str:
    text, lines = note_parts(note)
    own = {(key.name, key.key_id) for key in known}
    signatures = {(name, key_id): signature for name, key_id, signature in lines if (name, key_id) in own}
    return f"{text}\n" + "".join(
        f"\N{EM DASH} {name} {encode(key_id + signature)}\n" for (name, key_id), signature in signatures.items()
    )
