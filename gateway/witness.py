"""The gateway as a witness: it keeps the newest checkpoint that it saw of other controllers' journals, and cosigns.

Of each journal, known by its key, one checkpoint is held, in a note of the gateway's own journal; it is durable before
the cosignature is given out. What follows from what is shown, the core decides (vestibule_core/witness.py). What this
file refuses to do: let go of a checkpoint, whoever wishes so and whatever becomes of the client that showed it, or
write an entry for each that it sees, which would set two journals that witness each other growing for ever.

Nothing is let go of because a key that is forgotten may still be somebody's: he would set his journal back, and show it
as one that nobody has seen. So room is not made, it is brought along: each pairing, for which somebody has to stand at
the gateway, comes with places of its own. What one client shows takes none of another's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from vestibule_core.api.messages import Client, ClientId, Shown, Signed, client_id
from vestibule_core.cosignature import cosign, cosigned_at
from vestibule_core.epoch import Head, read_head, split_name
from vestibule_core.errors import MalformedMessage
from vestibule_core.journal import Journal
from vestibule_core.model import AccessEvent, EventName, Now
from vestibule_core.note import NoteError, SignerKey, VerifierKey
from vestibule_core.schema import LONGEST
from vestibule_core.strict import Message, if_known, listed, parsed, record, text
from vestibule_core.witness import MAX_GROWN, Finding, look

from .log import say

_LOGGER = logging.getLogger(__name__)

MOST: Final = 16
"""Journals that one client may be the first to show; each costs about a kilobyte, for ever."""
MOST_BEFORE: Final = 8
"""Ends of earlier epochs that are kept of each."""
MAX_NOTE: Final = 1024
"""Bytes of a checkpoint that is held; one of ours has about 300. All that is held of a journal has to fit into one
note, however it is spelt there: the store fails for everybody over one that does not."""

_WITNESS: Final = "witness:"
"""Name of notes in the journal, followed by the journal's key."""


class DoesNotGoOn(Exception):
    """What is shown does not go on from what is held: it is not cosigned."""


class TooManyJournals(Exception):
    """The client has no place left for another one: it has to be paired again."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of one journal."""

    key: VerifierKey
    note: str
    """Its newest checkpoint, signed by its controller."""
    before: tuple[str, ...] = ()
    """What was held when its controller began new epochs."""
    by: ClientId | None = None
    """The client that showed it first, and whose place it takes, also when that client is gone; None: from before that
    was kept."""

    @property
    def head(self) -> Head:
        """The end of the journal, as it was seen."""
        return read_head(self.note, (self.key,))


_NOTE: Final = Message(
    record(
        Held,
        {
            "key": parsed(VerifierKey.parse),
            "note": text(MAX_GROWN),
            "before": listed(text(MAX_GROWN), MOST_BEFORE),
            "by": if_known(parsed(client_id)),
        },
    ),
    LONGEST,
)


class Witness:
    """What is held of all journals. Belongs to one event loop."""

    def __init__(self, journal: Journal, notes: Mapping[str, str], signer: SignerKey, clock: Callable[[], Now]) -> None:
        """Take what the journal has noted. Raises MalformedMessage if that cannot be read."""
        self._journal, self._signer, self._clock = journal, signer, clock
        self._held = {str(held.key): held for held in map(_read, _noted(notes))}
        self._turn = asyncio.Lock()
        self._refused: set[str] = set()
        """Journals whose refusal is on record."""

    def held(self, key: str) -> str | None:
        """Return the newest checkpoint that was seen of the journal with this verifier key; None: none was."""
        known = self._held.get(key)
        return known.note if known is not None else None

    def is_cosigned(self, note: str) -> bool:
        """Return whether a controller that is witnessed here has cosigned ``note``. Raises NoteError."""
        return any(cosigned_at(note, held.key) is not None for held in self._held.values())

    async def show(self, shown: Shown, by: Client) -> Signed:
        """Look at how a journal has grown, as client ``by`` shows it; return its newest checkpoint, cosigned.

        Raises DoesNotGoOn, TooManyJournals, NoteError (what is shown is not signed, or too long) or StoreFailed.
        """
        if split_name(shown.key.name)[1].number:
            raise NoteError("a journal is known by the name of its first epoch")
        async with self._turn:  # from what is held to what is held next, one at a time
            known = self._held.get(str(shown.key))
            if known is None:
                self._check_place(by)
            seen = look(known.head if known is not None else None, shown.grown, (shown.key,), shown.epoch)
            if seen.finding not in (Finding.GROWN, Finding.NEW_EPOCH):
                await self._refuse(shown.key, seen.finding, by)
                raise DoesNotGoOn
            note = seen.shown.note
            if len(note.encode()) > MAX_NOTE:
                raise NoteError(f"a checkpoint of more than {MAX_NOTE} bytes is not held")
            if known is None:
                held = Held(shown.key, note, by=by.id)
            elif seen.finding is Finding.NEW_EPOCH:
                say(_LOGGER, logging.WARNING, "journal_new_epoch", client=by.id, epoch=seen.shown.epoch.number)
                held = replace(known, note=note, before=(*known.before, known.note)[-MOST_BEFORE:])
            else:
                held = replace(known, note=note)
            if held != known:
                await self._journal.note({_WITNESS + str(held.key): _NOTE.encode(held).decode()})
                self._held[str(held.key)] = held
            self._refused.discard(str(held.key))
        return Signed(cosign(self._signer, note, int(self._clock().wall)))

    def _check_place(self, by: Client) -> None:
        if sum(held.by == by.id for held in self._held.values()) >= MOST:
            say(_LOGGER, logging.WARNING, "no_place_for_journal", client=by.id)
            raise TooManyJournals

    async def _refuse(self, key: VerifierKey, finding: Finding, by: Client) -> None:
        if finding is Finding.ASK_AGAIN or str(key) in self._refused:
            return
        say(_LOGGER, logging.ERROR, "journal_does_not_go_on", client=by.id, finding=finding)
        event = AccessEvent(outcome=EventName.WITNESS_REFUSED, door=None, at=self._clock().wall)
        await self._journal.append(event, {"client": by.id, "name": by.name, "finding": finding.value})
        self._refused.add(str(key))


def _noted(notes: Mapping[str, str]) -> list[str]:
    return [text for name, text in notes.items() if name.startswith(_WITNESS)]


def _read(noted: str) -> Held:
    held = _NOTE.decode(noted.encode())
    try:
        read_head(held.note, (held.key,))
    except NoteError as err:
        raise MalformedMessage("a checkpoint that is not signed") from err
    return held
