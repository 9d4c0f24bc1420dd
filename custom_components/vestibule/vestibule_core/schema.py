"""The journal's file: who holds it, what is in it, and how an older one is brought forward.

What it refuses to do: open a file that another process holds, that a newer version wrote, or that is no journal of
Vestibule; and change a file before all of that is known (protocol D).
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from .durable import sync_directory
from .errors import JournalDamaged, JournalInUse, JournalTooNew, JournalUnsigned, StoreFailed

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
    # 0.2.0: signed checkpoints (the journal makes the first one) and the newest entries of a door without a search.
    ("CREATE INDEX leaf_door ON leaf(CAST(bytes AS TEXT) ->> '$.door')",),
    # 0.4.0: when a token was issued, for the day whose list has to have it (protocol E).
    ("ALTER TABLE spent ADD COLUMN iat INTEGER",),
)
SCHEMA_VERSION: Final = len(_MIGRATIONS)
SIGNED_SINCE: Final = 2
"""The schema whose every entry is under a signed checkpoint."""

LOG: Final = "log"
"""Name of a note that is written only to begin a new log."""

LONGEST: Final = 64 * 1024
"""Bytes of the longest row; what is longer, nobody wrote (no line of an export could hold it), and it is not read."""
LONGEST_VALUE: Final = LONGEST - 512
"""Bytes that one value of a row may have: SQLite counts name and header as well, and fails the whole commit."""

# "vstb": tells our file from any other SQLite database.
_APPLICATION_ID: Final = 0x76737462


def take(path: Path) -> tuple[int, sqlite3.Connection, int]:
    """Open or create the journal at ``path`` for writing, alone, in a transaction that the caller ends; blocks.

    Returns the lock, to be closed last; the connection; and the schema version that was found. Raises JournalInUse,
    JournalTooNew, JournalDamaged or StoreFailed, each with the file as it was.
    """
    with ExitStack() as undo:
        try:
            lock = _hold(path)
            undo.callback(os.close, lock)
            # Holds tokens and pseudonyms: nobody else's to read. SQLite gives its log the same mode.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            path.chmod(0o600)
            sync_directory(path.parent)
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
            undo.callback(leave, db)
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
            version = _prepare(db, path)
        except (OSError, sqlite3.Error) as err:
            raise translated(err, path) from None
        undo.pop_all()
        return lock, db, version


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep everybody else from the journal at ``path`` without opening it. Raises JournalInUse or StoreFailed."""
    try:
        lock = _hold(path)
    except OSError as err:
        raise translated(err, path) from err
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def look(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a journal that nobody writes to, mostly a copy of one, for reading only; blocks.

    Keeps no controller from its journal: one that begins to write meanwhile is found at the end. Writes nothing beside
    it, so a medium that cannot be written to is not in the way. Raises JournalInUse, JournalTooNew, JournalDamaged or
    StoreFailed.
    """
    before = _at_rest(path)
    try:
        with ExitStack() as opened:
            if before[1] is None:
                file, how = path.absolute(), "mode=ro&immutable=1"
            else:  # to read both, SQLite keeps a file of its own beside them
                file, how = opened.enter_context(_copied(path)), "mode=ro"
            db = opened.enter_context(
                closing(sqlite3.connect(f"{file.as_uri()}?{how}", uri=True, isolation_level=None))
            )
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
            if _check_kind(db, path) < SIGNED_SINCE:
                raise JournalUnsigned(f"{path} is of a version that did not sign")
            _check_tables(db, path)
            yield db
    except sqlite3.Error as err:
        raise translated(err, path) from None
    if _at_rest(path) != before:
        raise JournalInUse(f"{path} was written to meanwhile")


@contextmanager
def _copied(path: Path) -> Iterator[Path]:
    """Copy a journal and its log to a folder that nobody else can read, for a while. Raises StoreFailed."""
    with TemporaryDirectory(prefix="vestibule-") as folder:
        copy = Path(folder, "journal.db")
        try:
            for end in ("", "-wal"):
                shutil.copyfile(path.with_name(path.name + end), copy.with_name(copy.name + end))
        except OSError as err:
            raise translated(err, path) from err
        yield copy


def _at_rest(path: Path) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Return what would change if the journal, or its log (None: empty), were written to.

    Raises JournalInUse if a process holds it, or StoreFailed.
    """
    log, lock = path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}.lock")
    try:
        if lock.is_file():  # a pipe of that name would never be opened
            _check_nobody_holds(lock)
        file, logged = path.stat(), log.stat() if log.exists() else None
    except BlockingIOError as err:
        raise JournalInUse(f"{path} is held by another process") from err
    except OSError as err:
        raise translated(err, path) from err
    changed = (file.st_size, file.st_mtime_ns)
    return changed, (logged.st_size, logged.st_mtime_ns) if logged and logged.st_size else None


def _check_nobody_holds(lock: Path) -> None:
    """Raise BlockingIOError if a process holds this lock, or OSError."""
    try:
        import fcntl  # Windows has none: a journal can be read there, and no controller runs
    except ModuleNotFoundError:
        return
    with lock.open("rb") as handle:  # closed at once: no controller has to wait for us
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)


def leave(db: sqlite3.Connection) -> None:
    """Close without touching the file: its log is not copied back, for it may be another's or not on the disk."""
    with suppress(sqlite3.Error):
        db.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
        db.close()


def start_log(db: sqlite3.Connection) -> None:
    """Write once, so that the new log's header is synced here and an unlock costs one sync, not two."""
    db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (LOG, os.urandom(4).hex()))


def log_pages(path: Path) -> int:
    """Return how many pages of 4 KiB the log of the journal at ``path`` has."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size // 4096
    except OSError:  # not there yet, or a disk that is dying: the next COMMIT will say so
        return 0


def translated(err: OSError | sqlite3.Error, path: Path) -> Exception:
    """Return what an error of the disk or of SQLite means for a journal. It is not to be raised from that error."""
    if isinstance(err, sqlite3.Error):
        if _code(err) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return JournalInUse(f"{path} is held by another process")
        if is_damage(err):
            return JournalDamaged(f"{path}: {words_of(err)}")
    return StoreFailed(f"{path}: {words_of(err)}")


def is_damage(err: sqlite3.Error) -> bool:
    """Return whether an error of SQLite is about what is in a file, and not about the disk or who uses it."""
    return _is_no_text(err) or _code(err) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG}


def is_too_long(err: sqlite3.Error) -> bool:
    """Return whether a row is longer than LONGEST."""
    return _code(err) == sqlite3.SQLITE_TOOBIG


def words_of(err: Exception) -> str:
    """Return what may be told of an error. SQLite's words for a text that is not UTF-8 hold that text."""
    if isinstance(err, sqlite3.Error) and _is_no_text(err):
        return "a text in it is not UTF-8"
    if isinstance(err, sqlite3.Error) and is_too_long(err):
        return "something in it is longer than anything that is written there"
    return str(err)


def _is_no_text(err: sqlite3.Error) -> bool:
    # Not SQLite's own error, so without a code: Python's module reads what SQLite returns.
    return isinstance(err, sqlite3.OperationalError) and _code(err) is None


def _code(err: sqlite3.Error) -> int | None:
    code: int | None = getattr(err, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _hold(path: Path) -> int:
    """Return a lock that no other process gets while this one lives. Raises JournalInUse, or OSError.

    SQLite's own lock is not enough: a process loses it as soon as any part closes the same file (a rule of POSIX),
    and Home Assistant reads every file for a backup. A flock on a file of its own stays.
    """
    import fcntl  # not on Windows, where a journal can only be read

    file = path.with_name(f"{path.name}.lock")
    lock = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who puts a journal away removes this file as well: what is locked may be the one of before.
        if not file.exists() or not os.path.samestat(os.fstat(lock), file.stat()):
            raise BlockingIOError
    except BlockingIOError as err:
        os.close(lock)
        raise JournalInUse(f"{path} is held by another process") from err
    except BaseException:
        os.close(lock)
        raise
    return lock


def _check_kind(db: sqlite3.Connection, path: Path) -> int:
    """Return the schema version of a journal; 0 of a new one. Raises JournalDamaged or JournalTooNew."""
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if application != _APPLICATION_ID and (version or db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]):
        raise JournalDamaged(f"{path} is not a journal of Vestibule")
    if version > SCHEMA_VERSION:
        raise JournalTooNew(f"{path} has schema {version}, this version knows {SCHEMA_VERSION}")
    return version


def _check_tables(db: sqlite3.Connection, path: Path) -> None:
    """Raise JournalDamaged if the tables are not those of a journal: what is in them would mean something else."""
    with closing(sqlite3.connect(":memory:")) as ours:
        for statement in chain.from_iterable(_MIGRATIONS):
            ours.execute(statement)
        tables = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
        if db.execute(tables).fetchall() != ours.execute(tables).fetchall():
            raise JournalDamaged(f"{path}: its tables are not those of a journal")


def _prepare(db: sqlite3.Connection, path: Path) -> int:
    """Lock, configure and migrate, in a transaction that stays open; return the version that was found."""
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    version = _check_kind(db, path)
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
    except sqlite3.OperationalError as err:
        if err.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        # Not the disk: what is in the file is not what its version says; a leaf that is no JSON, for instance.
        raise JournalDamaged(f"{path} cannot be brought forward: {err}") from err
    db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    _check_tables(db, path)
    start_log(db)
    return version
