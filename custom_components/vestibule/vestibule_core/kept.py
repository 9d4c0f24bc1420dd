"""A checkpoint that somebody kept and hands over, however it was kept.

On its way through a mail, a page of a browser or a YAML text, lines are folded, indented or parted by empty ones. So
only the words count here; the note that they are the words of is put together anew, and has to be signed. What this
file refuses to do: return a checkpoint that none of the keys has signed, or one of another journal.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import batched

from .note import Checkpoint, NoteError, VerifierKey, open_note


def read_kept(text: str, keys: Collection[VerifierKey]) -> Checkpoint:
    """Return the checkpoint in ``text``, which one of ``keys`` has signed; raise NoteError."""
    match text.split():
        case origin, size, root, *signatures if signatures and len(signatures) % 3 == 0:
            lines = [" ".join(words) for words in batched(signatures, 3, strict=True)]
        case _:
            raise NoteError("not a checkpoint: copy it whole, from its first line to its signature")
    checkpoint = Checkpoint.parse(open_note("\n".join([origin, size, root, "", *lines, ""]), keys))
    if checkpoint.origin not in {key.name for key in keys}:
        raise NoteError("it is another journal's checkpoint")
    return checkpoint
