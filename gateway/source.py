"""Where a journal is read from: its file, or an exported text. Reads only, and repairs nothing.

The one place that turns what a disk, a database or a text can do wrong into words for whoever typed the command. What
it refuses to do: wait for a pipe, or read without end; whatever is read has a greatest length.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from vestibule_core import evidence
from vestibule_core.bundle import MAX_LINE, Bundle, decode_end
from vestibule_core.errors import JournalDamaged, JournalInUse, JournalTooNew, JournalUnsigned, StoreFailed
from vestibule_core.evidence import Broken, Entry, Header, Run
from vestibule_core.model import DoorId
from vestibule_core.note import NoteError
from vestibule_core.proof import FIRST_LINE, MAX_BYTES, EntryProof
from vestibule_core.schema import look

_DATABASE: Final = b"SQLite format 3\0"


class Unusable(Exception):
    """What was asked for cannot be done, or a question cannot be answered. The text is for a person."""


class Source(Protocol):
    """A journal to read."""

    @property
    def header(self) -> Header:
        """What has to be known before the first run."""

    @property
    def size(self) -> int | None:
        """The number of its last entry, as far as it is known beforehand."""

    @property
    def damage(self) -> str | None:
        """What is wrong with the file apart from what it says."""

    def runs(self) -> Iterator[Run]:
        """Yield every run, in order; raise Broken."""

    def newest(self, door: DoorId | None, most: int) -> list[Entry]:
        """Return the newest entries (of ``door``; None: of all), newest first; raise Broken."""


@contextmanager
def open_journal(path: Path) -> Iterator[Source]:
    """Open a journal's file or an exported journal; raise Unusable, also for what turns out while it is read."""
    with _explained(path), ExitStack() as opened:
        if _begins_with(path, _DATABASE):
            source: Source = _File(path, opened.enter_context(look(path)))
        elif _begins_with(path, FIRST_LINE.encode()):
            raise Unusable(f"{path} is the proof of one entry, not a journal")
        else:
            source = _Text.open(path)
        yield source


def read_proof(path: Path) -> EntryProof | None:
    """Return the proof of an entry in a file; None if the file is none. Raises Unusable."""
    if not _begins_with(path, FIRST_LINE.encode()):
        return None
    try:
        return EntryProof.parse(read_text(path, MAX_BYTES))
    except NoteError as err:
        raise Unusable(f"{path}: {err}") from err


def read_text(path: Path, most: int) -> str:
    """Return the text in a file that has ``most`` bytes at most; raise Unusable."""
    with _open(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise Unusable(f"{path} is longer than {most} bytes: this is another file than it should be")
    try:
        return content.decode()
    except UnicodeDecodeError as err:
        raise Unusable(f"{path} is no text: {err}") from err


class _File:
    """A journal as its controller left it."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self._db = db
        # Not integrity_check: what that looks at beyond this are indexes, which are no evidence, and it takes long.
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        self.damage = None if found == "ok" else str(found)
        try:
            self.header = evidence.read_header(db)
        except Broken as err:
            raise JournalDamaged(f"{path}: {err}") from err
        self.size = self.header.size

    def runs(self) -> Iterator[Run]:
        return evidence.read_runs(self._db, self.header)

    def newest(self, door: DoorId | None, most: int) -> list[Entry]:
        return evidence.read_newest(self._db, door, most)


@dataclass(frozen=True, slots=True)
class _Text:
    """An exported journal. A file is read from its beginning each time."""

    path: Path
    header: Header
    size: int | None
    damage: str | None = None

    @classmethod
    def open(cls, path: Path) -> _Text:
        with _open(path) as file:
            try:
                header = Bundle.open(_lines(file)).header
            except ValueError as err:
                raise Unusable(f"{path} is neither a journal, an exported journal nor a proof: {err}") from err
            file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_LINE))
            return cls(path, header, decode_end(file.read().splitlines(keepends=True)[-1]))

    def runs(self) -> Iterator[Run]:
        with _open(self.path) as file:
            yield from Bundle.open(_lines(file)).runs()

    def newest(self, door: DoorId | None, most: int) -> list[Entry]:
        entries = (entry for run in self.runs() for entry in run.entries())
        wanted = deque((entry for entry in entries if door is None or entry.leaf.door == door), maxlen=most)
        return list(reversed(wanted))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; of one that is too long, no more than shows that."""
    while line := file.readline(MAX_LINE + 1):
        yield line


def _begins_with(path: Path, text: bytes) -> bool:
    with _open(path) as file:
        return file.read(len(text)) == text


def _open(path: Path) -> BinaryIO:
    """Open a file; raise OSError, or Unusable if it is something else, which might be waited for for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise Unusable(f"{path} is not a file. What comes through a pipe has to be saved as a file first")
    return path.open("rb")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say what went wrong with a file for whoever wants to read it."""
    try:
        yield
    except JournalInUse as err:
        raise Unusable(
            f"{path} is being written to, by Home Assistant or by a gateway. Home Assistant: read the copy in a "
            "backup, or ask it (action vestibule.verify_journal). A gateway: make a `vestibule-gateway backup`, "
            "and read the journal in it"
        ) from err
    except JournalTooNew as err:
        raise Unusable(f"{err}: use a newer vestibule-gateway") from err
    except JournalUnsigned as err:
        raise Unusable(f"{err}: open it once with a newer Vestibule, which signs it") from err
    except (JournalDamaged, StoreFailed) as err:
        raise Unusable(str(err)) from err
    except Broken as err:
        raise Unusable(f"{path} is broken after entry {err.after}, {err}: `journal verify` says more") from err
