"""The journal: what was spent and what happened, durable before it has an effect.

One SQLite file, one writer thread, and one COMMIT (one sync) for everything that waits at that moment; each entry has a
savepoint of its own, so that a bad neighbour harms nobody. Whatever is committed is told once, in the order of its
sequence numbers. What this file refuses to do: try a failed COMMIT again (a retried fsync may lie), open a journal that
another process holds or a newer version wrote, or lose a line silently (protocol D).
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from .errors import JournalDamaged, JournalInUse, JournalTooNew, Refused, StoreFailed
from .model import AccessEvent, Code, DoorId, EventName, Issuer

_LOGGER = logging.getLogger(__name__)

CHECKPOINT_PAGES: Final = 1000
"""Pages of 4 KiB in the write-ahead log after which it is copied back, in a quiet moment."""
MOST_PAGES: Final = 16 * CHECKPOINT_PAGES
"""Pages after which it is copied back although it is never quiet."""
QUIET: Final = 0.5
"""Seconds without work that make a moment quiet: after an unlock its outcome comes, and maybe the next driver."""
NOTED_BACK: Final = 1.0
"""Seconds by which an entry is earlier than the newest one before that is noted."""

# Each migration takes the schema from its position to the next, in one transaction with the new user_version.
_MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE spent(
             iss TEXT NOT NULL, jti TEXT NOT NULL, door TEXT NOT NULL, non TEXT NOT NULL, at REAL NOT NULL,
             state TEXT NOT NULL CHECK(state IN ('SPENT', 'GRANTED', 'FAILED', 'UNKNOWN')),
             PRIMARY KEY(iss, jti), UNIQUE(door, non))""",
        # Only the few without outcome are indexed: found at start however many were spent.
        "CREATE INDEX spent_unsettled ON spent(state) WHERE state = 'SPENT'",
        "CREATE TABLE leaf(seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL)",
        "CREATE TABLE person(seq INTEGER PRIMARY KEY, salt BLOB NOT NULL, json TEXT NOT NULL)",
        "CREATE TABLE checkpoint(size INTEGER PRIMARY KEY, note TEXT NOT NULL)",
        "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    ),
)
SCHEMA_VERSION: Final = len(_MIGRATIONS)
# "vstb": tells our file from any other SQLite database.
_APPLICATION_ID: Final = 0x76737462


class SpentState(StrEnum):
    """The state of a spent token; SPENT means that the strike may have moved (protocol D)."""

    SPENT = "SPENT"
    GRANTED = "GRANTED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Spend:
    """One token to be spent for one door."""

    issuer: Issuer
    jti: str
    door: DoorId
    nonce: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A spend as it is remembered at start; ``at`` is seconds since 1970."""

    spend: Spend
    at: float


type Notes = Mapping[str, str | None]
"""What has to be known after a restart, committed along with an entry: text by name, None takes a name away."""

type Person = dict[str, Any]
"""What of an entry is about a person or is a secret's trace: kept apart, behind a salted commitment, deletable."""

type _Work = Callable[[_Writer], Any]
type _Item = tuple[_Work, asyncio.Future[Any]]
type _Results = list[tuple[asyncio.Future[Any], Any]]


class _Writer:
    """What a piece of work may do inside its savepoint. Lives in the writer thread."""

    def __init__(self, db: sqlite3.Connection, sequence: int, newest: float) -> None:
        self.db = db
        self.sequence = sequence
        self.newest = newest

    def append(self, event: AccessEvent, person: Person | None, notes: Notes) -> AccessEvent:
        """Add a leaf (with its person and notes) and return the event with its sequence number."""
        self.sequence += 1
        self._see_time(event)
        for name, text in notes.items():
            if text is None:
                self.db.execute("DELETE FROM meta WHERE key = ?", (name,))
            else:
                self.db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (name, text))
        leaf: dict[str, Any] = {
            "seq": self.sequence,
            "t": round(event.at, 3),
            "door": event.door,
            "kind": event.outcome,
            "code": event.code,
            "means": event.means,
            "kid": event.kid,
            "spend_id": event.spend_id.hex() if event.spend_id else None,
            "commit": None,
        }
        if person is not None:
            salt, text = os.urandom(16), _compact(person)
            leaf["commit"] = hashlib.sha256(salt + text.encode()).hexdigest()
            self.db.execute("INSERT INTO person VALUES(?, ?, ?)", (self.sequence, salt, text))
        self.db.execute("INSERT INTO leaf VALUES(?, ?)", (self.sequence, _compact(leaf).encode()))
        return replace(event, sequence=self.sequence)

    def _see_time(self, event: AccessEvent) -> None:
        """Keep the newest time of all, also when the clock has gone back since: ``newest`` of the next start (A.2)."""
        if event.outcome is EventName.CLOCK_CONFIRMED:
            self.newest = event.at
            self.db.execute("DELETE FROM meta WHERE key = 'newest'")
        elif event.at >= self.newest:
            self.newest = event.at
        elif event.at < self.newest - NOTED_BACK:
            self.db.execute("INSERT OR REPLACE INTO meta VALUES('newest', ?)", (repr(self.newest),))


def noted_release(door: DoorId, spend_id: bytes) -> Notes:
    """Return the note that the controller has a release of ``door`` to end, should it die."""
    return {f"release:{door}": spend_id.hex()}


class Journal:
    """The one writer of the file. Open it off the event loop; use it from one event loop; close it once."""

    def __init__(self, path: Path, lock: int, db: sqlite3.Connection) -> None:
        """Use ``Journal.open``."""
        self._path = path
        self._lock = lock
        self._writer = _Writer(db, *_newest(db))
        self._waiting: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tell: Callable[[AccessEvent], None] | None = None
        self.failed = False
        """Whether the store has failed; it then stays so until it is opened anew."""
        self._closed = False

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the journal at ``path``; blocks.

        Raises JournalInUse, JournalTooNew, JournalDamaged or StoreFailed, each with the file as it was.
        """
        with ExitStack() as undo:
            try:
                lock = _hold(path.with_name(f"{path.name}.lock"))
                undo.callback(os.close, lock)
                # Holds tokens and pseudonyms: nobody else's to read. SQLite gives its log the same mode.
                os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
                path.chmod(0o600)
                _sync_directory(path.parent)
                db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
                undo.callback(_leave, db)
                _prepare(db, path)
                journal = cls(path, lock, db)
            except BlockingIOError as err:
                raise JournalInUse(f"{path} is held by another process") from err
            except (OSError, sqlite3.Error) as err:
                raise _translated(err, path) from err
            except (ValueError, KeyError, TypeError) as err:
                raise JournalDamaged(f"{path}: its newest entry cannot be read") from err
            undo.pop_all()
            return journal

    def start(self, tell: Callable[[AccessEvent], None]) -> None:
        """Start the writer; ``tell`` gets every committed event once, in order, in the running event loop."""
        self._loop, self._tell = asyncio.get_running_loop(), tell
        self._thread = threading.Thread(target=self._write, name="vestibule-journal", daemon=True)
        self._thread.start()

    @property
    def newest(self) -> float:
        """The newest time of any entry, in seconds since 1970; 0 if there is none. Any thread."""
        return self._writer.newest

    @property
    def sequence(self) -> int:
        """The number of the newest entry. Any thread."""
        return self._writer.sequence

    def recent_spends(self, most: int) -> list[Accepted]:
        """Return the newest spends, oldest first. Only before ``start``."""
        rows = self._writer.db.execute(
            "SELECT iss, jti, door, non, at FROM spent ORDER BY rowid DESC LIMIT ?", (most,)
        ).fetchall()
        return [Accepted(Spend(Issuer(iss), jti, DoorId(door), non), at) for iss, jti, door, non, at in reversed(rows)]

    def notes(self) -> dict[str, str]:
        """Return what is noted. Only before ``start``."""
        return dict(self._writer.db.execute("SELECT key, value FROM meta"))

    def unsettled(self) -> list[Spend]:
        """Return the spends without an outcome: their strikes may have moved. Only before ``start``."""
        rows = self._writer.db.execute("SELECT iss, jti, door, non FROM spent WHERE state = 'SPENT' ORDER BY rowid")
        return [Spend(Issuer(iss), jti, DoorId(door), non) for iss, jti, door, non in rows]

    def spend(
        self,
        spend: Spend,
        event: AccessEvent,
        person: Person,
        *,
        check_again: Callable[[], Code | None],
        spent: Callable[[], None],
        notes: Notes,
    ) -> asyncio.Future[AccessEvent]:
        """Spend a token and record its grant, durably; the recorded event is awaited (A.2 step 11).

        This and the methods below take their place in the order when they are called, not when they are awaited.

        ``check_again`` runs in the writer just before the row is written and ``spent`` just after, so that the next
        entry of the same commit sees it. Raises Refused (its code, or ALREADY_SPENT for the token or its challenge) or
        StoreFailed; in both cases nothing may move.
        """

        def work(writer: _Writer) -> AccessEvent:
            if code := check_again():
                raise Refused(code)
            try:
                writer.db.execute(
                    "INSERT INTO spent VALUES(?, ?, ?, ?, ?, ?)",
                    (spend.issuer, spend.jti, spend.door, spend.nonce, event.at, SpentState.SPENT),
                )
            except sqlite3.IntegrityError as err:
                raise Refused(Code.ALREADY_SPENT) from err
            spent()
            return writer.append(event, person, notes)

        return self._submit(work)

    def settle(self, spend: Spend, state: SpentState, event: AccessEvent) -> asyncio.Future[AccessEvent]:
        """Record what came of a spend. Raises StoreFailed."""

        def work(writer: _Writer) -> AccessEvent:
            writer.db.execute("UPDATE spent SET state = ? WHERE iss = ? AND jti = ?", (state, spend.issuer, spend.jti))
            return writer.append(event, None, {})

        return self._submit(work)

    def append(
        self, event: AccessEvent, person: Person | None = None, notes: Notes | None = None
    ) -> asyncio.Future[AccessEvent]:
        """Record an event that spends nothing. Raises StoreFailed."""
        return self._submit(lambda writer: writer.append(event, person, notes or {}))

    def release_ended(self, door: DoorId, ids: Sequence[bytes]) -> asyncio.Future[None]:
        """Note that releases which the controller had to end are over; a later one's note stays. Raises StoreFailed."""

        def work(writer: _Writer) -> None:
            for spend_id in ids:
                writer.db.execute("DELETE FROM meta WHERE key = ? AND value = ?", (f"release:{door}", spend_id.hex()))

        return self._submit(work)

    def close(self) -> None:
        """Write what waits, copy the log back and close; blocks; may be repeated."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            # What came in while the writer was ending.
            while not self._waiting.empty():
                if (item := self._waiting.get()) is not None:
                    self._hand_over([(item[1], StoreFailed("the journal is closed"))])
        if not self.failed:
            self._writer.db.close()
        os.close(self._lock)

    def _submit[T](self, work: Callable[[_Writer], T]) -> asyncio.Future[T]:
        if self._loop is None:
            raise RuntimeError("the journal was not started")
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreFailed("the journal is closed"))
        else:
            self._waiting.put((work, future))
        return future

    # ---- the writer thread ----

    def _write(self) -> None:
        closing = False
        while not closing:
            group = [self._next()]
            while not self._waiting.empty():
                group.append(self._waiting.get())
            closing = None in group
            if work := [item for item in group if item is not None]:
                self._commit(work)
            if _wal_pages(self._path) >= MOST_PAGES:
                self._copy_back()

    def _next(self) -> _Item | None:
        try:
            return self._waiting.get(timeout=QUIET)
        except queue.Empty:
            self._copy_back()
            return self._waiting.get()

    def _commit(self, group: list[_Item]) -> None:
        results: _Results = []
        sequence = self._writer.sequence
        try:
            if self.failed:
                raise StoreFailed("the journal is closed after an error")
            self._writer.db.execute("BEGIN IMMEDIATE")
            for work, future in group:
                results.append((future, self._in_savepoint(work)))
            self._writer.db.execute("COMMIT")
        except Exception as err:  # noqa: BLE001 - whatever it is, nobody knows what is on the disk, and all must be told
            self._writer.sequence = sequence
            self._fail(err, group)
            return
        self._hand_over(results)

    def _hand_over(self, results: _Results) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._deliver, results)
        except RuntimeError:  # the loop has gone; the journal has it
            _LOGGER.debug("nobody is left to be told of %d entries", len(results))

    def _in_savepoint(self, work: _Work) -> Any:
        db, sequence = self._writer.db, self._writer.sequence
        db.execute("SAVEPOINT entry")
        try:
            result = work(self._writer)
        except sqlite3.Error:
            raise  # the store's failure, not this entry's
        except Exception as error:  # noqa: BLE001 - delivered to whoever asked; the neighbours go on
            db.execute("ROLLBACK TO entry")
            self._writer.sequence = sequence
            result = error
        db.execute("RELEASE entry")
        return result

    def _deliver(self, results: _Results) -> None:
        assert self._tell is not None
        for future, result in results:
            if isinstance(result, AccessEvent):
                self._tell(result)
            if future.done():  # whoever asked has gone; the entry stands
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _fail(self, err: Exception, group: list[_Item]) -> None:
        """Close the store for good: after a failed COMMIT nobody knows what is on the disk."""
        first, self.failed = not self.failed, True
        failure = StoreFailed(str(err))
        self._hand_over([(future, failure) for _, future in group])  # the check below may take its time
        if not first:
            return
        _LOGGER.error("The journal %s failed and stays closed until it is opened anew: %s", self._path, err)
        db = self._writer.db
        _leave(db)
        try:
            check = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True)
            try:
                found = check.execute("PRAGMA quick_check(1)").fetchone()[0]
            finally:
                check.close()
            _LOGGER.error("The journal's file reads: %s", found)
        except sqlite3.Error:
            _LOGGER.exception("The journal's file cannot be read")

    def _copy_back(self) -> None:
        """Copy a long log back into the file, outside of any unlock."""
        if self.failed or _wal_pages(self._path) < CHECKPOINT_PAGES:
            return
        db = self._writer.db
        try:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            _start_log(db)
        except sqlite3.Error as err:
            self._fail(err, [])


def _hold(path: Path) -> int:
    """Return a lock that no other process gets while this one lives; raise BlockingIOError if one has it.

    SQLite's own lock is not enough: a process loses it as soon as any part closes the same file (a rule of POSIX),
    and Home Assistant reads every file for a backup. A flock on a file of its own stays.
    """
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _leave(db: sqlite3.Connection) -> None:
    """Close without touching the file: its log is not copied back, for it may be another's or not on the disk."""
    with suppress(sqlite3.Error):
        db.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
        db.close()


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _wal_pages(path: Path) -> int:
    try:
        return path.with_name(path.name + "-wal").stat().st_size // 4096
    except OSError:  # not there yet, or a disk that is dying: the next COMMIT will say so
        return 0


def _start_log(db: sqlite3.Connection) -> None:
    """Write once, so that the new log's header is synced here and an unlock costs one sync, not two."""
    db.execute("INSERT OR REPLACE INTO meta VALUES('log', ?)", (os.urandom(4).hex(),))


def _newest(db: sqlite3.Connection) -> tuple[int, float]:
    """Return the number of the newest entry and the newest time of any."""
    sequence, leaf = db.execute("SELECT seq, bytes FROM leaf ORDER BY seq DESC LIMIT 1").fetchone() or (0, b'{"t":0}')
    noted = db.execute("SELECT value FROM meta WHERE key = 'newest'").fetchone()
    return sequence, max(float(json.loads(leaf)["t"]), float(noted[0]) if noted else 0.0)


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Lock, configure and migrate."""
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if application != _APPLICATION_ID and (version or db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]):
        raise JournalDamaged(f"{path} is not a journal of Vestibule")
    if version > SCHEMA_VERSION:
        raise JournalTooNew(f"{path} has schema {version}, this version knows {SCHEMA_VERSION}")
    if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise StoreFailed(f"{path} cannot keep a write-ahead log")
    db.execute("PRAGMA synchronous = FULL")  # NORMAL loses the last commits at a power cut
    db.execute("PRAGMA secure_delete = ON")
    db.execute("PRAGMA wal_autocheckpoint = 0")  # its syncs would fall into an unlock
    db.execute("BEGIN EXCLUSIVE")  # the lock that is taken here is kept until the file is closed
    try:
        for statements in _MIGRATIONS[version:]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        _start_log(db)
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _translated(err: OSError | sqlite3.Error, path: Path) -> Exception:
    code = getattr(err, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return JournalInUse(f"{path} is held by another process")
    if code is not None and code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return JournalDamaged(f"{path}: {err}")
    return StoreFailed(f"{path}: {err}")
