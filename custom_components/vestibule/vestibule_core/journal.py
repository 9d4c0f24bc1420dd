"""The journal: what was spent and what happened, durable before it has an effect, and signed with it.

One SQLite file, one writer thread, and one COMMIT (one sync) for everything that waits at that moment, with a signed
checkpoint over all that there is; each entry has a savepoint of its own, so that a bad neighbour harms nobody.
Whatever is committed is told once, in the order of its sequence numbers. Who reads in it, reads between two commits,
and what is wrong with old entries is said to them and stops nobody else. What this file refuses to do: try a failed
COMMIT again (a retried fsync may lie), or lose a line silently (protocol D).
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from . import erasure, evidence
from .erasure import EMPTY, Due, Subject
from .errors import BackupRunning, JournalDamaged, JournalInUse, JournalMoved, Refused, StoreFailed
from .evidence import DAMAGED, Broken, Entry, Header, Run
from .leaf import Person
from .merkle import Tree
from .model import AccessEvent, Code, DoorId, Issuer
from .note import SignerKey
from .schema import SIGNED_SINCE, held, is_damage, leave, log_pages, start_log, take, translated, words_of
from .token import erased_jti
from .writer import Notes, Writer, is_own, whole_notes

_LOGGER = logging.getLogger(__name__)

CHECKPOINT_PAGES: Final = 1000
"""Pages of 4 KiB in the write-ahead log after which it is copied back, in a quiet moment."""
MOST_PAGES: Final = 16 * CHECKPOINT_PAGES
"""Pages after which it is copied back although it is never quiet."""
QUIET: Final = 0.5
"""Seconds without work that make a moment quiet: after an unlock its outcome comes, and maybe the next driver."""

RESERVE: Final = 32 * 2**20
"""Bytes of the disk that are left to what is more than a refusal (A.2)."""
LOOK_EVERY: Final = 1.0
"""Seconds for which what is left of the disk is taken as known."""

COPIED: Final = "copied"
"""Name of the note that says that the file may be a copy: it was restored from a backup, if it is found at start."""
_COPIES: Final[dict[Path, bool]] = {}
"""Journals in which this process has noted that they are copied, and whether they still are: closed and opened again
meanwhile, one is no copy for that. Neither the boot id nor a process id would tell: both are the same again in a
container that was restored."""


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
    issued_at: int | None = field(default=None, compare=False)
    """Seconds since 1970 by the issuer's clock; None: it was spent before that was kept."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A spend as it is remembered at start; ``at`` is seconds since 1970."""

    spend: Spend
    at: float


@dataclass(frozen=True, slots=True)
class Acceptances:
    """What was spent of one issuer since the journal was asked last."""

    upto: int
    """What to ask from the next time."""
    spends: tuple[Spend, ...]


type _Work = Callable[[Writer], Any]
type _Results = list[tuple[asyncio.Future[Any], Any]]


class _Kind(Enum):
    """How a piece of work is done."""

    WRITES = auto()
    """In the next commit, behind a savepoint of its own."""
    ERASES = auto()
    """In a commit of its own, among old rows: damage that it meets there is said to whoever asked, and the store goes
    on. (SQLite commits nothing any more after that, not even what was written before a savepoint.)"""
    READS = auto()
    """Outside of any transaction, and when nothing waits to be written: a writer waits for one at the most."""
    ALONE = auto()
    """It makes its own transactions."""


@dataclass(frozen=True, slots=True)
class _Item:
    """A piece of work that waits for the writer."""

    work: _Work
    future: asyncio.Future[Any]
    kind: _Kind
    after: int = 0
    """The entry behind which it reads."""


class Journal:
    """The one writer of the file. Open it off the event loop; use it from one event loop; close it once."""

    def __init__(self, path: Path, lock: int, writer: Writer) -> None:
        """Use ``Journal.open``."""
        self._path = path
        self._lock = lock
        self._writer = writer
        self._waiting: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tell: Callable[[AccessEvent], None] | None = None
        self.failed = False
        """Whether the store has failed; it then stays so until it is opened anew."""
        self._reserve_alone, self._look_again = False, 0.0
        """Whether no more than RESERVE is left of the disk, and until when that is taken as known; the writer's."""
        self._must_empty = False
        """Whether the log still has to be emptied (EMPTY); the writer's."""
        self._erasing = asyncio.Lock()
        self._closed = False

    @classmethod
    def open(cls, path: Path, key: Callable[[bool], SignerKey]) -> Self:
        """Open or create the journal at ``path``; blocks.

        ``key`` returns what signs its checkpoints from now on. It is called while the journal is held, and told whether
        that was signed before. Raises JournalInUse, JournalTooNew, JournalDamaged, StoreFailed, or what ``key`` raises,
        each with the file as it was.
        """
        with ExitStack() as undo:
            lock, db, version = take(path)
            undo.callback(os.close, lock)
            undo.callback(leave, db)
            signed = version >= SIGNED_SINCE
            signer = key(signed)
            try:
                writer = Writer.resume(db, signer, signed=signed)
                if ended := _COPIES.get(path) is False:
                    db.execute("DELETE FROM meta WHERE key = ?", (COPIED,))
                db.execute("COMMIT")
                if ended:
                    _COPIES.pop(path)
                journal = cls(path, lock, writer)
                journal._must_empty = bool(db.execute("SELECT 1 FROM meta WHERE key = ?", (EMPTY,)).fetchone())
                journal._empty_log(writer)
            except (OSError, sqlite3.Error) as err:
                raise translated(err, path) from None
            except (ValueError, KeyError, TypeError) as err:
                raise JournalDamaged(f"{path}: {err}") from err
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

    @property
    def checkpoint(self) -> str | None:
        """The newest signed note over all entries (C2SP tlog-checkpoint); None: there is no entry. Any thread."""
        return self._writer.checkpoint

    @property
    def signer(self) -> SignerKey:
        """What signs it, under the name of its first epoch. Any thread."""
        return self._writer.signer

    @property
    def is_copy(self) -> bool:
        """Whether it was restored from a backup, and nobody has recorded that yet. Only before ``start``."""
        return self._path not in _COPIES and COPIED in self.notes()

    def recent_spends(self, most: int) -> list[Accepted]:
        """Return the newest spends, oldest first. Only before ``start``."""
        rows = self._writer.db.execute(
            "SELECT iss, jti, door, non, at FROM spent ORDER BY rowid DESC LIMIT ?", (most,)
        ).fetchall()
        return [Accepted(Spend(Issuer(iss), jti, DoorId(door), non), at) for iss, jti, door, non, at in reversed(rows)]

    def notes(self) -> dict[str, str]:
        """Return what is noted. Only before ``start``."""
        notes = whole_notes(self._writer.db.execute("SELECT key, value FROM meta"))
        return {name: text for name, text in notes.items() if not is_own(name)}

    def unsettled(self) -> list[Spend]:
        """Return the spends without an outcome: their strikes may have moved. Only before ``start``."""
        rows = self._writer.db.execute("SELECT iss, jti, door, non FROM spent WHERE state = 'SPENT' ORDER BY rowid")
        return [Spend(Issuer(iss), jti, DoorId(door), non) for iss, jti, door, non in rows]

    def accepted(self, issuer: Issuer, after: int, most: int = 1000) -> asyncio.Future[Acceptances]:
        """Return what was spent of an issuer's tokens after ``after``, a former ``upto`` (0: all), oldest first.

        An id may have been erased (``token.spend_id_of``). Raises StoreFailed.
        """

        def work(writer: Writer) -> Acceptances:
            newest = _newest_spend(writer)
            begin = after if after <= newest else 0  # the file was replaced by an older one
            rows = writer.db.execute(
                "SELECT rowid, iss, jti, door, non, iat FROM spent WHERE rowid > ? ORDER BY rowid LIMIT ?",
                (begin, most),
            ).fetchall()
            spends = (Spend(Issuer(iss), *rest) for _, iss, *rest in rows if iss == issuer)
            return Acceptances(rows[-1][0] if rows else begin, tuple(spends))

        return self._submit(work, _Kind.READS)

    def accepted_upto(self) -> asyncio.Future[int]:
        """Return the ``upto`` behind which nothing was accepted yet (0: nothing at all). Raises StoreFailed."""
        return self._submit(_newest_spend, _Kind.READS)

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

        def work(writer: Writer) -> AccessEvent:
            if code := check_again():
                raise Refused(code)
            erased = spend.issuer, erased_jti(spend.issuer, spend.jti)
            if writer.db.execute("SELECT 1 FROM spent WHERE iss = ? AND jti = ?", erased).fetchone():
                raise Refused(Code.ALREADY_SPENT)
            try:
                writer.db.execute(
                    "INSERT INTO spent VALUES(?, ?, ?, ?, ?, ?, ?)",
                    (spend.issuer, spend.jti, spend.door, spend.nonce, event.at, SpentState.SPENT, spend.issued_at),
                )
            except sqlite3.IntegrityError as err:
                raise Refused(Code.ALREADY_SPENT) from err
            spent()
            return writer.append(event, person, notes)

        return self._submit(work)

    def settle(self, spend: Spend, state: SpentState, event: AccessEvent) -> asyncio.Future[AccessEvent]:
        """Record what came of a spend. Raises StoreFailed."""

        def work(writer: Writer) -> AccessEvent:
            ids = spend.jti, erased_jti(spend.issuer, spend.jti)  # its driver may have been deleted meanwhile
            writer.db.execute("UPDATE spent SET state = ? WHERE iss = ? AND jti IN (?, ?)", (state, spend.issuer, *ids))
            return writer.append(event, None, {})

        return self._submit(work)

    def append(
        self,
        event: AccessEvent,
        person: Person | None = None,
        notes: Notes | None = None,
        *,
        may_use_reserve: bool = True,
    ) -> asyncio.Future[AccessEvent]:
        """Record an event that spends nothing; one that may not use the reserve, only while more is left of the disk.

        Raises StoreFailed.
        """

        def work(writer: Writer) -> AccessEvent:
            if not may_use_reserve and self._is_at_reserve():
                raise StoreFailed("the rest of the disk is kept for what is more than a refusal")
            return writer.append(event, person, notes or {})

        return self._submit(work)

    def begin_epoch(
        self, event: AccessEvent, person: Person | None, notes: Notes, seen: Sequence[str]
    ) -> asyncio.Future[AccessEvent]:
        """Record that the journal goes on as a new epoch, after ``seen``: checkpoints that it does not go on from.

        Raises NoteError if one of them is no checkpoint of this journal, or StoreFailed.
        """
        return self._submit(lambda writer: writer.begin_epoch(event, person, notes, seen))

    def cosigned(self, note: str) -> asyncio.Future[None]:
        """Keep a checkpoint as a witness has cosigned it. Raises NoteError if it is not ours, or StoreFailed."""
        return self._submit(lambda writer: writer.cosigned(note))

    def note(self, notes: Notes) -> asyncio.Future[None]:
        """Note what has to be known after a restart, without an entry. Raises StoreFailed."""
        return self._submit(lambda writer: writer.note(notes))

    def release_ended(self, door: DoorId, ids: Sequence[bytes]) -> asyncio.Future[None]:
        """Note that releases which the controller had to end are over; a later one's note stays. Raises StoreFailed."""

        def work(writer: Writer) -> None:
            for spend_id in ids:
                writer.db.execute("DELETE FROM meta WHERE key = ? AND value = ?", (f"release:{door}", spend_id.hex()))

        return self._submit(work)

    # ---- reading it ----

    # Each of these raises StoreFailed, or Broken where the journal is damaged; that harms nobody else.

    def header(self) -> asyncio.Future[Header]:
        """Return what has to be known before the first run."""
        return self._read(lambda writer: evidence.read_header(writer.db))

    def anchor(self) -> asyncio.Future[Tree]:
        """Return the tree of all entries but some of the newest."""
        return self._read(lambda writer: writer.anchor)

    def run(self, after: int) -> asyncio.Future[Run | None]:
        """Return the entries after entry ``after``, up to a checkpoint; None behind the last one.

        Raises JournalMoved if those have been dropped meanwhile. No door waits for it longer than for its own entry.
        """

        def work(writer: Writer) -> Run | None:
            if evidence.read_base(writer.db).size > after:
                raise JournalMoved("old entries were dropped after their time, meanwhile")
            return evidence.read_run(writer.db, after)

        return self._read(work, after)

    def runs(self, header: Header) -> Iterator[Run]:
        """Yield every run, in order, in another thread than the event loop's. Raises JournalMoved besides."""
        assert self._loop is not None

        async def run_after(after: int) -> Run | None:
            return await self.run(after)

        after = header.base.size
        while (run := asyncio.run_coroutine_threadsafe(run_after(after), self._loop).result()) is not None:
            yield run
            after = run.last

    def newest_entries(self, door: DoorId | None, most: int) -> asyncio.Future[list[Entry]]:
        """Return the newest entries (of ``door``; None: of all), newest first, each with its person's part."""
        return self._read(lambda writer: evidence.read_newest(writer.db, door, most, trusts_index=True))

    def subject(self, sequence: int) -> asyncio.Future[Subject | None]:
        """Return whom entry ``sequence`` is about; None if nobody, or no longer."""
        return self._read(lambda writer: erasure.subject_at(writer.db, sequence))

    async def about(self, subject: Subject) -> list[Entry]:
        """Return every entry about ``subject``, oldest first."""
        found: list[Entry] = []
        after: int | None = 0
        while after is not None:
            entries, after = await self._read(partial(_find, subject, after), after)
            found += entries
        return found

    # ---- taking out of it ----

    async def delete(self, sequence: int, record: tuple[AccessEvent, Person | None] | None = None) -> int:
        """Delete the person that entry ``sequence`` is about from every entry; return from how many (0: about nobody).

        ``record`` is written down before the first is deleted, in one commit with the note that this was begun: by
        that it is carried to its end, if not by this call then when something is taken out next, or at the next start.
        Nothing of the person is left in the file or its log when this returns; if a backup was begun meanwhile, when
        that ends. Raises BackupRunning (nothing was deleted), or StoreFailed or Broken (maybe half of it was).
        """
        note = f"{erasure.DELETING}{sequence}"

        def begin(writer: Writer) -> AccessEvent | None:
            self.check_not_copied()
            if (subject := erasure.subject_at(writer.db, sequence)) is None:
                return None
            writer.note(erasure.begun(subject, sequence))
            return writer.append(*record, {}) if record is not None else None

        async with self._erasing:
            self.check_not_copied()
            await self._submit(begin, _Kind.ERASES)
            count = 0
            while (erased := await self._take_out(partial(erasure.go_on_deleting, note=note))) is not None:
                count += erased
            await self._submit(self._empty_log, _Kind.ALONE)
        return count

    async def retain(self, due: Due) -> int:
        """Take out what has had its time; return how many rows. While a backup runs, nothing.

        Raises StoreFailed, or Broken if that meets damage.
        """
        count = 0
        async with self._erasing:
            if self._copied:
                return 0
            for step in erasure.steps(due):
                while (removed := await self._take_out(step)) is not None:
                    count += removed
            await self._submit(self._empty_log, _Kind.ALONE)
        return count

    def retain_now(self, due: Due) -> int:
        """Do the same before ``start``, so that nothing is shown that has had its time; blocks.

        Raises StoreFailed or JournalDamaged.
        """
        count, db = 0, self._writer.db
        if self._copied:
            return 0
        try:
            for step in erasure.steps(due):
                removed: int | None = 0
                while removed is not None:
                    db.execute("BEGIN IMMEDIATE")
                    removed = self._do_step(step, self._writer)
                    db.execute("COMMIT")
                    count += removed or 0
            self._empty_log(self._writer)
        except (sqlite3.Error, ValueError) as err:
            self.failed = True
            leave(db)
            if isinstance(err, sqlite3.Error):
                raise translated(err, self._path) from None
            raise JournalDamaged(f"{self._path}: {err}") from err
        return count

    def _take_out(self, step: erasure.Step) -> asyncio.Future[int | None]:
        return self._submit(partial(self._do_step, step), _Kind.ERASES)

    def _do_step(self, step: erasure.Step, writer: Writer) -> int | None:
        """Take some rows out, and note that they are in the log: it has to be emptied whatever happens now."""
        if (removed := step(writer.db)) is not None:
            self._must_empty = True
            writer.note({EMPTY: "yes"})
        return removed

    # ---- backups ----

    @property
    def _copied(self) -> bool:
        """Whether the file is being copied: it is then not written to, only its log is."""
        return _COPIES.get(self._path, False)

    def check_not_copied(self) -> None:
        """Raise BackupRunning if the file is being copied. Any thread."""
        if self._copied:
            raise BackupRunning("the journal is being copied for a backup")

    def begin_copy(self) -> asyncio.Future[None]:
        """Make the file fit to be copied, until ``end_copy``: what is written meanwhile goes to its log only.

        The copy says that it is one. Raises StoreFailed.
        """
        return self._submit(self._begin_copy, _Kind.ALONE)

    def end_copy(self) -> asyncio.Future[None]:
        """Go on as before ``begin_copy``. Raises StoreFailed."""
        return self._submit(self._end_copy, _Kind.ALONE)

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
                    self._hand_over([(item.future, StoreFailed("the journal is closed"))])
        if self._copied:
            leave(self._writer.db)  # the log is not copied back under the reader
        elif not self.failed:
            self._writer.db.close()
        os.close(self._lock)

    def _read[T](self, work: Callable[[Writer], T], after: int = 0) -> asyncio.Future[T]:
        return self._submit(work, _Kind.READS, after)

    def _submit[T](self, work: Callable[[Writer], T], kind: _Kind = _Kind.WRITES, after: int = 0) -> asyncio.Future[T]:
        if self._loop is None:
            raise RuntimeError("the journal was not started")
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreFailed("the journal is closed"))
        else:
            self._waiting.put(_Item(work, future, kind, after))
        return future

    # ---- the writer thread ----

    def _write(self) -> None:
        reads: deque[_Item] = deque()
        ended = False
        while reads or not ended:
            group: list[_Item] = []
            last: _Item | None = None
            for item in self._arrived(wait=not reads):
                if item is None:
                    ended = True
                elif item.kind is _Kind.READS:
                    reads.append(item)
                elif item.kind is _Kind.WRITES:
                    group.append(item)
                else:
                    last = item
                if ended or last:
                    break
            if group:
                self._commit(group)
            if last is not None and last.kind is _Kind.ERASES:
                self._do_erase(last)
            elif last is not None:
                self._do_alone(last)
            if reads:
                self._do_read(reads.popleft())
            if log_pages(self._path) >= MOST_PAGES:
                self._copy_back()

    def _arrived(self, *, wait: bool) -> Iterator[_Item | None]:
        """Yield what has come to be done; ``wait`` for the first of it."""
        if wait:
            yield self._next()
        while not self._waiting.empty():
            yield self._waiting.get()

    def _next(self) -> _Item | None:
        try:
            return self._waiting.get(timeout=QUIET)
        except queue.Empty:
            self._copy_back()
            return self._waiting.get()

    def _commit(self, group: list[_Item]) -> None:
        results: _Results = []
        before = self._writer.mark
        try:
            if self.failed:
                raise StoreFailed("the journal is closed after an error")
            self._writer.db.execute("BEGIN IMMEDIATE")
            for item in group:
                results.append((item.future, self._in_savepoint(item.work)))
            self._writer.sign(before)
            self._writer.db.execute("COMMIT")
        except Exception as err:  # noqa: BLE001 - whatever it is, nobody knows what is on the disk, and all must be told
            self._writer.go_back(before)
            self._fail(err, group)
            return
        self._hand_over(results)

    def _is_at_reserve(self) -> bool:
        if (now := time.monotonic()) >= self._look_again:
            try:
                disk = os.statvfs(self._path.parent)
                self._reserve_alone = disk.f_bavail * disk.f_frsize < RESERVE
            except OSError:
                self._reserve_alone = True
            self._look_again = now + LOOK_EVERY
        return self._reserve_alone

    def _do_alone(self, item: _Item) -> None:
        try:
            if self.failed:
                raise StoreFailed("the journal is closed after an error")
            result = item.work(self._writer)
        except Exception as err:  # noqa: BLE001 - as above
            self._fail(err, [item])
            return
        self._hand_over([(item.future, result)])

    def _hand_over(self, results: _Results) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._deliver, results)
        except RuntimeError:  # the loop has gone; the journal has it
            _LOGGER.debug("nobody is left to be told of %d entries", len(results))

    def _do_erase(self, item: _Item) -> None:
        before, db = self._writer.mark, self._writer.db
        try:
            if self.failed:
                raise StoreFailed("the journal is closed after an error")
            db.execute("BEGIN IMMEDIATE")
            try:
                result = item.work(self._writer)
                self._writer.sign(before)
            except Exception as error:  # delivered to whoever asked
                if isinstance(error, sqlite3.Error) and not is_damage(error):
                    raise
                result = Broken(item.after, DAMAGED) if isinstance(error, sqlite3.Error) else error
                db.execute("ROLLBACK")
                self._writer.go_back(before)
            else:
                db.execute("COMMIT")
        except Exception as err:  # noqa: BLE001 - as above
            self._writer.go_back(before)
            self._fail(err, [item])
            return
        self._hand_over([(item.future, result)])

    def _do_read(self, item: _Item) -> None:
        try:
            if self.failed:
                raise StoreFailed("the journal is closed after an error")
            result = item.work(self._writer)
        except sqlite3.Error as err:  # whether the store has failed, only a COMMIT says
            result = Broken(item.after, DAMAGED) if is_damage(err) else translated(err, self._path)
        except Exception as error:  # noqa: BLE001 - delivered to whoever asked
            result = error
        self._hand_over([(item.future, result)])

    def _in_savepoint(self, work: _Work) -> Any:
        db, before = self._writer.db, self._writer.mark
        db.execute("SAVEPOINT entry")
        try:
            result = work(self._writer)
        except sqlite3.Error:
            raise  # the store's failure, not this entry's
        except Exception as error:  # noqa: BLE001 - delivered to whoever asked; the neighbours go on
            db.execute("ROLLBACK TO entry")
            self._writer.go_back(before)
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
        failure = StoreFailed(words_of(err))
        self._hand_over([(item.future, failure) for item in group])  # the check below may take its time
        if not first:
            return
        _LOGGER.error("The journal %s failed and stays closed until it is opened anew: %s", self._path, words_of(err))
        db = self._writer.db
        leave(db)
        try:
            check = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True)
            try:
                found = check.execute("PRAGMA quick_check(1)").fetchone()[0]
            finally:
                check.close()
            _LOGGER.error("The journal's file reads: %s", found)
        except sqlite3.Error as unreadable:
            _LOGGER.error("The journal's file cannot be read: %s", words_of(unreadable))  # noqa: TRY400 - as above

    def _copy_back(self) -> None:
        """Copy a log that is long, or has to be emptied, back into the file, outside of any unlock."""
        if self.failed or self._copied or not (self._must_empty or log_pages(self._path) >= CHECKPOINT_PAGES):
            return
        try:
            self._truncate(self._writer)
        except (sqlite3.Error, StoreFailed) as err:
            self._fail(err, [])

    def _truncate(self, writer: Writer) -> None:
        """Copy the log back into the file and empty it: nothing of what was deleted is left in either."""
        busy, _, _ = writer.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:  # something else reads a file that is ours alone
            raise StoreFailed("the journal's log could not be emptied")
        writer.db.execute("BEGIN IMMEDIATE")
        writer.note({EMPTY: None})
        start_log(writer.db)
        writer.db.execute("COMMIT")
        self._must_empty = False

    def _empty_log(self, writer: Writer) -> None:
        """Empty the log of what was taken out, unless the file is being copied; the end of the copy does it then."""
        if self._must_empty and not self._copied:
            self._truncate(writer)

    def _begin_copy(self, writer: Writer) -> None:
        writer.db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (COPIED, "yes"))
        self._truncate(writer)
        _COPIES[self._path] = True

    def _end_copy(self, writer: Writer) -> None:
        writer.db.execute("DELETE FROM meta WHERE key = ?", (COPIED,))
        _COPIES.pop(self._path, None)
        self._empty_log(writer)


def end_copies() -> None:
    """End every copy that ``Journal.end_copy`` did not: of journals that were closed, have failed or are gone; blocks.

    One that cannot be written to now is seen to when it is opened next.
    """
    for path in tuple(_COPIES):
        _COPIES[path] = False
        if path.exists():
            with suppress(JournalInUse, StoreFailed, sqlite3.Error), held(path):
                with closing(sqlite3.connect(path)) as db, db:
                    db.execute("DELETE FROM meta WHERE key = ?", (COPIED,))
                _COPIES.pop(path)
        else:
            _COPIES.pop(path)


def _find(subject: Subject, after: int, writer: Writer) -> tuple[list[Entry], int | None]:
    return erasure.entries_about(writer.db, subject, after)


def _newest_spend(writer: Writer) -> int:
    """Return the number of the newest row of ``spent``; 0: there is none."""
    newest: int | None = writer.db.execute("SELECT max(rowid) FROM spent").fetchone()[0]
    return newest or 0
