"""The gateway's state folder: its own alone, with the id that it keeps for life.

What it refuses to do: share the folder with another gateway, which would spend the same tokens; and make up a new id
where there is one that cannot be read, for that would be another gateway with other doors.
"""

from __future__ import annotations

import base64
import hmac
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from vestibule_core import durable
from vestibule_core.api.messages import GatewayId, gateway_id, new_gateway_id
from vestibule_core.model import DoorId, new_door_id

LONGEST_SOCKET: Final = 107
"""Bytes of the path of a Unix socket, on Linux."""


class StateUnusable(Exception):
    """The state folder cannot be used. The text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where everything lies in a state folder."""

    folder: Path

    @property
    def identity(self) -> Path:
        """The Ed25519 key that signs the journal."""
        return self.folder / "identity.pem"

    @property
    def tls(self) -> Path:
        """The key and the certificate of the API."""
        return self.folder / "tls.pem"

    @property
    def next_tls(self) -> Path:
        """Those that will be used next, while they are announced."""
        return self.folder / "next-tls.pem"

    @property
    def journal(self) -> Path:
        """The journal."""
        return self.folder / "journal.db"

    @property
    def control(self) -> Path:
        """The socket of the commands."""
        return self.folder / "control.sock"

    @property
    def strikes(self) -> Path:
        """The keys of strikes that are reached by radio, one file for each door."""
        return self.folder / "strikes"

    @property
    def id(self) -> Path:
        """The gateway's id."""
        return self.folder / "id"

    @property
    def small(self) -> list[Path]:
        """What makes it the same gateway besides the journal; ``id`` last, for there is no gateway without it."""
        # The next certificate first: `keys switch` puts it in the place of the other.
        following = [self.next_tls] if self.next_tls.exists() else []
        return [*following, self.identity, self.tls, *sorted(self.strikes.glob("*.json")), self.id]


def signs_as(gateway: GatewayId) -> str:
    """Return the name that the gateway's signatures carry."""
    return f"vestibule/{gateway}"


def door_id_of(gateway: GatewayId, key: str) -> DoorId:
    """Return the id of the door [door.KEY]: the same for life, and another one at each gateway."""
    secret = base64.b32decode(gateway.upper() + "======")
    return new_door_id(hmac.digest(secret, f"door:{key}".encode(), "sha256")[:16])


def read_id(files: Files) -> GatewayId | None:
    """Return the gateway's id; None if it has none yet. Raises StateUnusable or OSError."""
    try:
        return gateway_id(files.id.read_text("ascii").removesuffix("\n"))
    except FileNotFoundError:
        return None
    except ValueError as err:
        raise StateUnusable(
            f"{files.id} holds no id: restore the folder from a backup, or begin with an empty one"
        ) from err


class State:
    """The folder while a gateway works in it."""

    def __init__(self, files: Files, gateway: GatewayId, lock: int) -> None:
        """See ``open``."""
        self.files = files
        self.id = gateway
        self._lock = lock

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Take a folder, which is made if it does not exist; blocks. Raises StateUnusable."""
        files = Files(folder)
        if len(os.fsencode(files.control)) > LONGEST_SOCKET:
            raise StateUnusable(
                f"{folder} is too long a path: a socket in it would have more than {LONGEST_SOCKET} bytes"
            )
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            files.strikes.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as err:
            raise StateUnusable(f"the state folder cannot be used: {err}") from err
        import fcntl  # Windows has none, and `journal verify` has to work there

        with ExitStack() as undo:
            undo.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if (known := read_id(files)) is None:
                    if files.journal.exists():
                        raise StateUnusable(f"{files.id} is not there, but a journal is: restore it from a backup")
                    known = new_gateway_id(os.urandom(16))
                    durable.write(files.id, f"{known}\n".encode())
            except BlockingIOError as err:
                raise StateUnusable(f"{folder} is in use by another gateway: stop that one first") from err
            except OSError as err:
                raise StateUnusable(f"the state folder cannot be used: {err}") from err
            undo.pop_all()
        return cls(files, known, lock)

    def close(self) -> None:
        """Let go of the folder; once."""
        os.close(self._lock)
