"""A backup of a gateway that works: a tar of what makes it the same gateway again.

The gateway lets its journal's file rest while a command copies it, in a process of its own: if the gateway itself
opened and closed the file once more, SQLite's lock on it would be gone. The doors work meanwhile: what happens goes to
the journal's log, which is not in the copy. The copy says that it is one, and a gateway that begins with it says so
until an administrator confirms it (protocol D). What this file refuses to do: give a tar an ``id`` before everything
else is in it, for no gateway begins without.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import secrets
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from vestibule_core import durable
from vestibule_core.errors import StoreFailed
from vestibule_core.journal import Journal

from .control import Facts, Unable
from .log import say
from .source import Unusable
from .state import Files

_LOGGER = logging.getLogger(__name__)

LONGEST: Final = 600.0
"""Seconds that the journal's file rests for a command at most. Its log grows, and nothing is taken out of it."""


class Rest:
    """The rest of the journal's file, for one command at a time: one that begins takes it from one that was killed."""

    def __init__(self, journal: Journal) -> None:
        """Let nothing rest yet."""
        self._journal = journal
        self._turn: str | None = None
        self._end: asyncio.TimerHandle | None = None

    async def begin(self, turn: str) -> None:
        """Let the file rest. Raises Unable."""
        self._forget()
        self._turn = turn
        try:
            await self._journal.begin_copy()
        except StoreFailed as err:
            self._turn = None
            raise Unable(
                "the journal cannot be written, so that a copy could not say that it is one: see `status`"
            ) from err
        if self._turn == turn:  # else another one was quicker
            say(_LOGGER, logging.INFO, "backup_begun")
            self._end = asyncio.get_running_loop().call_later(LONGEST, self._journal_goes_on)

    def end(self, turn: str) -> None:
        """Let it go on. Raises Unable if it did not rest all the time."""
        if turn != self._turn:
            raise Unable(
                "another backup was begun meanwhile, or the gateway was started anew, or this took longer than "
                f"{LONGEST / 60:.0f} minutes: write it to a quick disk of this machine, and move it then"
            )
        self._journal_goes_on()

    def stop(self) -> None:
        """Let it go on, if it rests: the gateway stops, and its journal is no copy."""
        if self._turn is not None:
            self._journal_goes_on()

    def _journal_goes_on(self) -> None:
        self._forget()
        ending = self._journal.end_copy()
        ending.add_done_callback(_ended)

    def _forget(self) -> None:
        self._turn = None
        if self._end is not None:
            self._end.cancel()
            self._end = None


def _ended(ending: asyncio.Future[None]) -> None:
    with suppress(StoreFailed):  # said where it failed
        ending.result()
        say(_LOGGER, logging.INFO, "backup_ended")


def write(files: Files, into: BinaryIO, ask: Callable[[str, str, Facts], object]) -> None:
    """Write the tar; blocks. ``ask`` asks the gateway (control.call).

    Raises OSError, or what ``ask`` raises: then what was written is of no use, and no gateway begins with it.
    """
    turn = {"turn": secrets.token_hex(8)}
    with tarfile.open(fileobj=into, mode="w|") as tar:
        try:
            ask("POST", "/backup", turn)
            with files.journal.open("rb") as file:
                member = tar.gettarinfo(arcname=files.journal.name, fileobj=file)
                tar.addfile(_private(member), file)
        except BaseException:  # whatever it is: the journal need not rest any longer
            with suppress(Unusable):  # and did not rest at all, maybe
                ask("DELETE", "/backup", turn)
            raise
        ask("DELETE", "/backup", turn)
        for path in files.small:
            content = path.read_bytes()  # at once: another may take its place
            member = tarfile.TarInfo(path.relative_to(files.folder).as_posix())
            member.size = len(content)
            tar.addfile(_private(member), io.BytesIO(content))


def _private(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode, member.uid, member.gid, member.uname, member.gname = 0o600, 0, 0, "", ""
    return member


def create(path: Path, work: Callable[[BinaryIO], None]) -> None:
    """Have a new file written that only its owner may read, and leave none if that fails; blocks. Raises OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            work(file)
            file.flush()
            os.fsync(handle)
        with suppress(OSError):  # not every file system can
            durable.sync_directory(path.parent)
    except BaseException:  # whatever it is: half of it is of no use
        path.unlink()
        raise
