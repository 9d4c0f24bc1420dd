"""What is taken out of the journal: persons who ask for it, and everything after its time. Proofs hold without it.

Each function does a part of the work that no door notices and tells whether more is left. What they leave on the disk
until the log is truncated is journal.py's to see to.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from . import leaf
from .b64url import decode
from .evidence import BASE, Entry, PersonPart, note_of, read_base
from .model import Issuer
from .token import spend_id

STEP: Final = 500
"""Rows that are looked at in one go."""

DAY: Final = 86400.0
LEAVES_KEPT: Final = 730 * DAY
"""Seconds that leaves are kept: 24 months."""
SPENDS_KEPT: Final = 400 * DAY
"""Seconds that a spent token is remembered; it was valid for minutes."""


@dataclass(frozen=True, slots=True)
class Due:
    """What has had its time: entries of before these times, in seconds since 1970."""

    persons: float
    leaves: float
    spends: float

    @classmethod
    def at(cls, now: float, newest: float, persons_kept: float) -> Due:
        """Return what is due at ``now``, if persons are kept for ``persons_kept`` seconds and ``newest`` is the newest
        entry's time.

        Proofs and spends go by the newest entry: a clock that jumps ahead by years does not empty the journal.
        """
        known = min(now, newest)
        return cls(now - persons_kept, known - LEAVES_KEPT, known - SPENDS_KEPT)


@dataclass(frozen=True, slots=True)
class Subject:
    """One person, as the journal knows persons: a user of Home Assistant, or a carrier's name for its driver."""

    user_id: str | None
    issuer: Issuer | None
    pseudonym: str | None


def subject_of(text: str) -> Subject | None:
    """Return who a person's part is about; None if it names nobody (an automation)."""
    person = json.loads(text)
    if isinstance(user := person.get("user_id"), str):
        return Subject(user, None, None)
    if isinstance(pseudonym := person.get("sub"), str):
        return Subject(None, _issuer_of(person), pseudonym)
    return None


def subject_at(db: sqlite3.Connection, sequence: int) -> Subject | None:
    """Return whom entry ``sequence`` is about; None if nobody, or no longer."""
    row = db.execute("SELECT json FROM person WHERE seq = ?", (sequence,)).fetchone()
    return subject_of(row[0]) if row else None


def entries_about(db: sqlite3.Connection, subject: Subject, after: int) -> tuple[list[Entry], int | None]:
    """Return what is about ``subject`` among the next rows behind entry ``after``, and where to go on (None: done)."""
    rows = db.execute(
        "SELECT seq, bytes, salt, json FROM leaf JOIN person USING(seq) WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, STEP),
    ).fetchall()
    name = subject.user_id or subject.pseudonym or ""
    found = [Entry.of(*row) for row in rows if name in row[3] and subject_of(row[3]) == subject]
    return found, rows[-1][0] if len(rows) == STEP else None


def erase(db: sqlite3.Connection, parts: list[PersonPart]) -> None:
    """Delete persons' parts and the ids of their tokens: what was spent stays so, under a name that tells nothing."""
    for part in parts:
        db.execute("DELETE FROM person WHERE seq = ?", (part.sequence,))
        person = json.loads(part.text)
        if isinstance(jti := person.get("jti"), str):
            issuer = _issuer_of(person)
            db.execute("UPDATE spent SET jti = ? WHERE iss = ? AND jti = ?", (erased_jti(issuer, jti), issuer, jti))


def erased_jti(issuer: Issuer, jti: str) -> str:
    """Return what stands for the id of a spent token whose person was deleted. No token can have such an id."""
    return f"erased:{spend_id(issuer, jti).hex()}"


type Step = Callable[[sqlite3.Connection], int]
"""Takes out some rows and returns how many; 0: there is nothing more."""


def steps(due: Due) -> tuple[Step, ...]:
    """Return what takes out what is due, each to be repeated in transactions of its own until it returns 0."""
    return (
        partial(drop_persons, before=due.persons),
        partial(drop_leaves, before=due.leaves),
        partial(drop_spends, before=due.spends),
    )


def drop_persons(db: sqlite3.Connection, before: float) -> int:
    """Erase persons of entries of before this time, oldest first; return of how many."""
    rows = db.execute(
        "SELECT person.seq, salt, json, bytes FROM person JOIN leaf USING(seq) ORDER BY seq LIMIT ?", (STEP,)
    ).fetchall()
    due = [PersonPart(*row[:3]) for row in rows if leaf.parse(row[3]).at < before]
    erase(db, due)
    return len(due)


def drop_leaves(db: sqlite3.Connection, before: float) -> int:
    """Drop the oldest entries to the next checkpoint if they are of before this time; return how many.

    Their tree stays, and its checkpoint: all that follows is proved by them. The newest entries are never dropped.
    """
    base = read_base(db)
    sizes = [size for (size,) in db.execute("SELECT size FROM checkpoint WHERE size > ? LIMIT 2", (base.size,))]
    if len(sizes) < 2:
        return 0
    leaves = [row[0] for row in db.execute("SELECT bytes FROM leaf WHERE seq <= ? ORDER BY seq", (sizes[0],))]
    if not leaves or leaf.parse(leaves[0]).at >= before or leaf.parse(leaves[-1]).at >= before:
        return 0
    tree = base.extend(leaves)
    persons = db.execute("SELECT seq, salt, json FROM person WHERE seq <= ?", (tree.size,)).fetchall()
    erase(db, [PersonPart(*row) for row in persons])
    db.execute("DELETE FROM leaf WHERE seq <= ?", (tree.size,))
    db.execute("DELETE FROM checkpoint WHERE size < ?", (tree.size,))
    db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (BASE, note_of(tree)))
    return len(leaves)


def drop_spends(db: sqlite3.Connection, before: float) -> int:
    """Forget tokens that were spent before this time, oldest first; return how many."""
    rows = db.execute("SELECT rowid, at FROM spent ORDER BY rowid LIMIT ?", (STEP,)).fetchall()
    due = [(row,) for row, at in rows if at < before]
    db.executemany("DELETE FROM spent WHERE rowid = ?", due)
    return len(due)


def _issuer_of(person: leaf.Person) -> Issuer:
    """Return who issued the token that a person's part holds; the controller verified it before it wrote it down."""
    payload = json.loads(decode(person["token"].split(".")[1].encode()))
    return Issuer(payload["iss"])
