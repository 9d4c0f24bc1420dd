"""Going on with a new key: a journal whose own is missing is signed by another one from then on, if somebody confirms.

Who that was is noted in the journal before the key is on the disk, and is its first entry under the new key. Whatever a
crash leaves of the two, no key that was confirmed here signs anything before that is told. What this file refuses to
do: take the place of a key that is there, or make one for a journal that it cannot write to.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from . import identity
from .epoch import read_head
from .errors import Refused
from .model import Actor, Code
from .note import NoteError, VerifierKey
from .schema import leave, take, translated

CONFIRMED: Final = "new_key"
"""Name of the note that says who has confirmed a new key, until that is an entry."""


def go_on(journal: Path, file: Path, name: str, actor: Actor) -> None:
    """Note that ``actor`` has confirmed it, and make a key in ``file`` under ``name``; blocks. Nothing if one is there.

    Raises Refused if that is no administrator; JournalInUse, JournalTooNew, JournalDamaged, StoreFailed or
    IdentityUnusable.
    """
    if not actor.is_admin:
        raise Refused(Code.MANUAL_NOT_ALLOWED)
    with ExitStack() as undo:
        lock, db, _ = take(journal)
        undo.callback(os.close, lock)
        undo.callback(leave, db)
        if file.exists():  # it came back
            return
        try:
            db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (CONFIRMED, _noted(actor)))
            db.execute("COMMIT")
        except sqlite3.Error as err:
            raise translated(err, journal) from None
        identity.keep(file, name, make=True)


def confirmed_by(noted: str) -> Actor:
    """Return who has confirmed it, by the note."""
    who = json.loads(noted)
    return Actor(who["user_id"], who["user"], is_admin=True)


def has_signed(key: VerifierKey, newest: str | None) -> bool:
    """Return whether ``newest``, the newest checkpoint of a journal, is this key's. If so, it is no new one."""
    try:
        return newest is not None and bool(read_head(newest, (key,)))
    except NoteError:
        return False


def _noted(actor: Actor) -> str:
    return json.dumps({"user_id": actor.user_id, "user": actor.name})
