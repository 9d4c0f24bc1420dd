"""What is taken out of the journal: persons who ask for it, and everything after its time. Proofs hold without it.

Each function does a part of the work that no door notices and tells whether more is left. A deletion that was begun is
noted, so that it is carried to its end whatever happens. One row that cannot be read keeps no other from being taken
out. What they leave on the disk until the log is truncated is journal.py's to see to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

from . import leaf
from .b64url import decode
from .evidence import BASE, Broken, Entry, note_of, read_base, read_person
from .leaf import Person, read_json
from .model import Issuer
from .note import Checkpoint, NoteError
from .schema import is_too_long
from .token import erased_jti

STEP: Final = 500
"""Rows that are looked at in one go."""

EMPTY: Final = "empty"
"""Name of the note that the log still has to be emptied: what was taken out is in there, or in the file behind it."""

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
    """Return who a person's part is about; None if it names nobody (an automation), or cannot be read."""
    person = _read(text)
    if isinstance(user := person.get("user_id"), str):
        return Subject(user, None, None)
    if isinstance(pseudonym := person.get("sub"), str) and (issuer := _issuer_of(person)) is not None:
        return Subject(None, issuer, pseudonym)
    return None


def subject_at(db: sqlite3.Connection, sequence: int) -> Subject | None:
    """Return whom entry ``sequence`` is about; None if nobody, or no longer.

    While the deletion of that person that was asked for by this entry is not done, it still is about that person.
    """
    if (text := _text_at(db, sequence)) is not None:
        return subject_of(text)
    noted = _noted(db, f"{DELETING}{sequence}")
    return noted[0] if noted else None


def entries_about(db: sqlite3.Connection, subject: Subject, after: int) -> tuple[list[Entry], int | None]:
    """Return what is about ``subject`` among the next rows behind entry ``after``, and where to go on (None: done).

    Raises Broken if such an entry cannot be read.
    """
    numbers, last = _about(db, subject, after)
    return [Entry.of(seq, _leaf_at(db, seq), read_person(db, seq)) for seq in numbers], last


def _about(db: sqlite3.Connection, subject: Subject, after: int) -> tuple[list[int], int | None]:
    rows = _next_persons(db, after)
    name = leaf.compact({"": subject.user_id or subject.pseudonym})[4:-1]
    found = [seq for seq in rows if name in (text := _text_at(db, seq) or "") and subject_of(text) == subject]
    return found, rows[-1] if len(rows) == STEP else None


def _next_persons(db: sqlite3.Connection, after: int) -> list[int]:
    # Their numbers only: a text that cannot be read would keep all from being read.
    rows = db.execute("SELECT seq FROM person WHERE seq > ? ORDER BY seq LIMIT ?", (after, STEP)).fetchall()
    return [seq for (seq,) in rows]


def erase(db: sqlite3.Connection, sequences: Iterable[int]) -> None:
    """Delete persons' parts and the ids of their tokens: what was spent stays so, under a name that tells nothing."""
    for sequence in sequences:
        person = _read(_text_at(db, sequence))
        db.execute("DELETE FROM person WHERE seq = ?", (sequence,))
        if isinstance(jti := person.get("jti"), str) and (issuer := _issuer_of(person)) is not None:
            db.execute("UPDATE spent SET jti = ? WHERE iss = ? AND jti = ?", (erased_jti(issuer, jti), issuer, jti))


# ---- a deletion, from its note to its end ----

DELETING: Final = "deleting:"
"""Name of the note of a deletion that is not done, followed by the number of the entry that it was asked for by."""


def begun(subject: Subject, sequence: int) -> Mapping[str, str]:
    """Return what has to be noted before the first of ``subject``'s entries, which ``sequence`` is one of, is erased.

    It names the person until the last one is.
    """
    return {f"{DELETING}{sequence}": leaf.compact(asdict(subject) | {"after": 0})}


def go_on_deleting(db: sqlite3.Connection, note: str) -> int | None:
    """Erase some entries of whom this note of a deletion names; return how many, None if it is done."""
    if (noted := _noted(db, note)) is None:
        return None
    subject, after = noted
    found, last = _about(db, subject, after)
    erase(db, found)
    if last is None:
        db.execute("DELETE FROM meta WHERE key = ?", (note,))
    else:
        text = leaf.compact(asdict(subject) | {"after": last})
        db.execute("UPDATE meta SET value = ? WHERE key = ?", (text, note))
    return len(found)


def go_on_deleting_any(db: sqlite3.Connection) -> int | None:
    """The same with whatever deletion was begun and not done."""
    row = db.execute("SELECT key FROM meta WHERE key GLOB ? LIMIT 1", (f"{DELETING}*",)).fetchone()
    return go_on_deleting(db, row[0]) if row else None


def _noted(db: sqlite3.Connection, note: str) -> tuple[Subject, int] | None:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (note,)).fetchone()
    if row is None:
        return None
    match _read(row[0]):
        case {"user_id": str() | None as user, "issuer": str() | None as issuer, "pseudonym": str() | None as name,
              "after": int(after)}:  # fmt: skip
            return Subject(user, None if issuer is None else Issuer(issuer), name), after
    raise Broken(0, "what the journal notes of a deletion cannot be read")


# ---- after their time ----

type Step = Callable[[sqlite3.Connection], int | None]
"""Takes out some rows and returns how many; None: there is nothing more."""


def steps(due: Due) -> tuple[Step, ...]:
    """Return what takes out what is due, each to be repeated in transactions of its own until it returns None."""
    return (
        go_on_deleting_any,
        partial(drop_persons, before=due.persons),
        partial(drop_leaves, before=due.leaves),
        partial(drop_spends, before=due.spends),
    )


def drop_persons(db: sqlite3.Connection, before: float) -> int | None:
    """Erase persons of entries of before this time, oldest first; return of how many.

    An entry that cannot be read is as old as the one after it, else as the one before.
    """
    rows = _next_persons(db, -(2**63))
    times = _filled([_time_at(db, seq) for seq in rows])
    due = [seq for seq, at in zip(rows, times, strict=True) if at < before]
    erase(db, due)
    return len(due) or None


def drop_leaves(db: sqlite3.Connection, before: float) -> int | None:
    """Drop the oldest entries to the next checkpoint if they are of before this time; return how many.

    Their tree stays, and its checkpoint: all that follows is proved by them. The newest entries are never dropped, and
    none that are not those which were signed: what follows could be proved no more.
    """
    base = read_base(db)
    sizes = [size for (size,) in db.execute("SELECT size FROM checkpoint WHERE size > ? LIMIT 2", (base.size,))]
    if len(sizes) < 2:
        return None
    rows = db.execute("SELECT seq FROM leaf WHERE seq > ? AND seq <= ? ORDER BY seq", (base.size, sizes[0])).fetchall()
    leaves = [_leaf_at(db, seq) for (seq,) in rows]
    ends = [next((at for at in map(_time, way) if at is not None), before) for way in (leaves, reversed(leaves))]
    if max(ends) >= before or (tree := base.extend(leaves)).root() != _signed_root(db, sizes[0]):
        return None
    persons = db.execute("SELECT seq FROM person WHERE seq <= ?", (tree.size,)).fetchall()
    erase(db, [seq for (seq,) in persons])
    db.execute("DELETE FROM leaf WHERE seq <= ?", (tree.size,))
    db.execute("DELETE FROM checkpoint WHERE size < ?", (tree.size,))
    db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (BASE, note_of(tree)))
    return len(leaves)


def drop_spends(db: sqlite3.Connection, before: float) -> int | None:
    """Forget tokens that were spent before this time, oldest first; return how many."""
    rows = db.execute("SELECT rowid, at FROM spent ORDER BY rowid LIMIT ?", (STEP,)).fetchall()
    due = [(row,) for row, at in rows if isinstance(at, float) and at < before]
    db.executemany("DELETE FROM spent WHERE rowid = ?", due)
    return len(due) or None


# ---- what may be damaged ----


def _text_at(db: sqlite3.Connection, sequence: int) -> str | None:
    """Return a person's text, None if there is none or it cannot be read."""
    # As bytes: SQLite takes any for text.
    text = _value(db, "SELECT CAST(json AS BLOB) FROM person WHERE seq = ?", sequence)
    try:
        return text.decode() if isinstance(text, bytes) else None
    except UnicodeDecodeError:
        return None


def _leaf_at(db: sqlite3.Connection, sequence: int) -> bytes:
    """Return a leaf; no bytes, which are none, if it is not there or cannot be read."""
    data = _value(db, "SELECT bytes FROM leaf WHERE seq = ?", sequence)
    return data if isinstance(data, bytes) else b""


def _value(db: sqlite3.Connection, query: str, key: int) -> object:
    try:
        row = db.execute(query, (key,)).fetchone()
    except sqlite3.Error as err:
        # No other error: in a transaction that has met a damaged page, SQLite commits nothing any more.
        if not is_too_long(err):
            raise
        return None
    return row[0] if row else None


def _time_at(db: sqlite3.Connection, sequence: int) -> float | None:
    return _time(_leaf_at(db, sequence))


def _time(data: bytes) -> float | None:
    try:
        return leaf.parse(data).at
    except ValueError:
        return None


def _filled(times: list[float | None]) -> list[float]:
    """Return times in which each unknown one is that of the next, else of the one before, else long past."""
    known = [at for at in times if at is not None]
    after = known[-1] if known else float("-inf")
    filled = []
    for at in reversed(times):
        after = after if at is None else at
        filled.append(after)
    return filled[::-1]


def _signed_root(db: sqlite3.Connection, size: int) -> bytes | None:
    """Return what a checkpoint says; who signed it is not looked at. None if it says nothing."""
    note = _value(db, "SELECT note FROM checkpoint WHERE size = ?", size)
    try:
        return Checkpoint.parse(str(note).rpartition("\n\n")[0] + "\n").root
    except NoteError:
        return None


def _read(text: str | None) -> Person:
    """Return what a person's text says; nothing if it cannot be read."""
    try:
        person = read_json(text)
    except ValueError:
        return {}
    return person if isinstance(person, dict) else {}


def _issuer_of(person: Person) -> Issuer | None:
    """Return who issued the token that a person's part holds; None if it holds none that can be read.

    The controller verified it before it wrote it down.
    """
    try:
        payload = read_json(decode(person["token"].split(".")[1].encode()).decode())
        return Issuer(payload["iss"]) if isinstance(payload["iss"], str) else None
    except ValueError, LookupError, TypeError, AttributeError:
        return None
