"""What a strike keeps through a power cut: one file per piece, each whole or not at all, in a folder of its own.

It knows nothing of what the pieces say. What it refuses to do: share the folder with another process, whose spends it
would not know; and take slots that the disk cannot read for slots that are not there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Self

from vestibule_core import durable
from vestibule_core.doorstrike.memory import Part

_LOCK: Final = "lock"


class StoreFailed(Exception):
    """The disk did not do what it was told."""


class StoreInUse(Exception):
    """Another process is this strike."""


class Store:
    """The state folder. Every method blocks, and raises StoreFailed."""

    def __init__(self, folder: Path, lock: int) -> None:
        """See ``open``."""
        self.folder = folder
        self._lock = lock

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Take a folder, which is made if it does not exist; raise StoreInUse as well."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as err:
            raise StoreFailed(str(err)) from err
        import fcntl  # Windows has none, and `journal verify` has to work there

        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            os.close(lock)
            raise StoreInUse(f"{folder} is in use by another process: stop that one first") from err
        return cls(folder, lock)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._lock)

    def load(self) -> dict[Part, bytes]:
        """Return the pieces that are there.

        A log that the disk cannot read is there, and is nothing that anybody wrote: the strike locks out for a while
        and writes a new one. Slots are not given up like that: a disk that recovers still has them.
        """
        found = {}
        for part in Part:
            try:
                found[part] = (self.folder / part).read_bytes()
            except FileNotFoundError:
                continue
            except OSError as err:
                if part is not Part.LOG:
                    raise StoreFailed(str(err)) from err
                found[part] = b""
        return found

    def keep(self, name: str, contents: bytes) -> None:
        """Have a piece on the disk when this returns; if it raises, it may be there or not, but whole."""
        try:
            durable.write(self.folder / name, contents)
        except OSError as err:
            raise StoreFailed(str(err)) from err
