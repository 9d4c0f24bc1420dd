"""What a controller shows of its journal to those who witness it, and what it makes of the checkpoints that they hold.

Reads the running journal (journal.py) and leaves what follows from it to witness.py. What this file refuses to do: take
anybody's word for it that the journal is not whole. Only a checkpoint that this controller has signed itself counts.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from . import proof, witness
from .epoch import Head, read_head
from .evidence import Header
from .journal import Journal
from .proof import EntryProof
from .witness import Grown


async def newest_head(journal: Journal) -> Head | None:
    """Return the signed end of the journal; None: it has no entry. Raises StoreFailed or Broken, as all of these."""
    return _head(journal, await journal.header())


def _head(journal: Journal, header: Header) -> Head | None:
    note = journal.checkpoint
    return None if note is None else read_head(note, header.keys)


async def grown_since(journal: Journal, old: int) -> Grown | None:
    """Return how the journal has grown since it had ``old`` entries; None: it has none, or never had that many.

    Raises NoteError if what the proof needs was dropped after its time, or JournalMoved.
    """
    header = await journal.header()
    newest = _head(journal, header)
    if newest is None or newest.size < old:
        return None
    start = await _start(journal, header, old)
    return await asyncio.to_thread(witness.prove_growth, start, journal.runs(start), old, newest)


async def first_of_epoch(journal: Journal) -> EntryProof | None:
    """Return the proof of the first entry of the epoch that the journal is in; None: it is in none but its first."""
    header = await journal.header()
    newest = _head(journal, header)
    if newest is None or not newest.epoch.number:
        return None
    return await asyncio.to_thread(proof.prove, header, journal.runs(header), newest.epoch.first, person=False)


async def disputed_by(journal: Journal, receipt: str) -> str | None:
    """Return ``receipt`` if it is a checkpoint that this controller signed and its journal does not go on from.

    What others have added to it is left out: the same checkpoint is then the same text, whoever brings it. None: the
    journal goes on from it, or it is one of an earlier epoch; what was lost then, an administrator has looked at.
    Raises NoteError if it is not signed by this controller, or if what could tell was dropped after its time.
    """
    header = await journal.header()
    seen, newest = read_head(receipt, header.keys), _head(journal, header)
    return None if await _goes_on(journal, header, seen, newest) else seen.note


async def _goes_on(journal: Journal, header: Header, seen: Head, newest: Head | None) -> bool:
    if newest is None:
        return not seen.size
    if seen.epoch.number < newest.epoch.number:
        return True
    if seen.epoch != newest.epoch:
        return False
    start = await _start(journal, header, seen.size)
    return await asyncio.to_thread(witness.continues, start, journal.runs(start), seen, newest)


async def _start(journal: Journal, header: Header, old: int) -> Header:
    """Return the header to begin with: mostly only some of the newest entries have to be looked at."""
    anchor = await journal.anchor()
    return replace(header, base=anchor) if header.base.size <= anchor.size <= old else header
