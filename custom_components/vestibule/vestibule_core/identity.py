"""The controller's identity: an Ed25519 key in a file of its own, made once and kept for the life of the controller.

Whoever has it can sign for this controller. A file that cannot be read is never replaced by a new key, for that would
look like another controller; nor is one that is missing, unless its maker is asked to.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from . import durable
from .errors import IdentityMissing, IdentityUnusable
from .note import SignerKey

_LOGGER = logging.getLogger(__name__)

_MOST: Final = 4096
"""Bytes of the file that are looked at; a key has 119."""


def keep(path: Path, name: str, *, make: bool) -> SignerKey:
    """Return the key in ``path`` under ``name``; if there is none, ``make`` it durably. Blocks.

    The file is PEM (PKCS #8, not encrypted), mode 0600. To be made only while the journal is held: of two that are made
    at once, one would sign and be gone. Raises IdentityMissing, or IdentityUnusable if it cannot be read or made.
    """
    try:
        with suppress(FileNotFoundError):
            return SignerKey(name, _read(path))
        if not make:
            raise IdentityMissing(f"{path} is not there")
        key = Ed25519PrivateKey.generate()
        durable.write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except OSError as err:
        raise IdentityUnusable(f"{path}: {err}") from err
    return SignerKey(name, key)


def _read(path: Path) -> Ed25519PrivateKey:
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            # A backup that was unpacked by hand forgets modes. Not to be used for that would leave the doors shut.
            _LOGGER.warning("%s could be read by others; it is its owner's alone now", path)
            os.fchmod(file.fileno(), 0o600)
        text = file.read(_MOST)
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise IdentityUnusable(f"{path} holds no key that can be read") from err
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityUnusable(f"{path} holds a key that is not Ed25519")
    return key
