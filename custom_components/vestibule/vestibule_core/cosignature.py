"""Cosignatures (c2sp.org/tlog-cosignature, Ed25519): a witness's word that it has seen a checkpoint, and when.

A witness signs only what follows from all that it signed before (witness.py). What this file refuses to do: return a
time that the witness has not signed.
"""

from __future__ import annotations

import hashlib
from typing import Final

from .note import SignerKey, VerifierKey, encode, note_parts

_COSIGNATURE: Final = b"\x04"  # the signature type
_TIME_SIZE: Final = 8
_SIZE: Final = _TIME_SIZE + 64


def _key_id(key: VerifierKey) -> bytes:
    return hashlib.sha256(key.name.encode() + b"\n" + _COSIGNATURE + key.public).digest()[:4]


def _message(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def cosign(signer: SignerKey, note: str, at: int) -> str:
    """Return ``note`` with one more line: ``signer`` saw it at ``at`` (seconds since 1970). Raises NoteError."""
    text, _ = note_parts(note)
    signature = signer.sign_bytes(_message(text, at))
    line = (
        f"\N{EM DASH} {signer.verifier.name} {encode(_key_id(signer.verifier) + at.to_bytes(_TIME_SIZE) + signature)}\n"
    )
    note_parts(note + line)
    return note + line


def cosigned_at(note: str, key: VerifierKey) -> int | None:
    """Return when the witness with this key says that it saw ``note``, the latest time; None: it does not say so.

    A line of its name that it has not signed counts for nothing. Raises NoteError if the note has no note's form.
    """
    text, lines = note_parts(note)
    times = []
    for name, key_id, signature in lines:
        if (name, key_id) == (key.name, _key_id(key)) and len(signature) == _SIZE:
            at = int.from_bytes(signature[:_TIME_SIZE])
            if key.verifies(signature[_TIME_SIZE:], _message(text, at)):
                times.append(at)
    return max(times, default=None)
