"""A door's challenge: fresh, bound to one door and one issuer, and remembered nowhere.

A challenge carries its own time and proof, so that no number of requests can fill a table (protocol A.1, attack 28).
It replaces the clock: a token is fresh because it quotes a challenge, not because of its ``exp``. That a challenge is
used once is the journal's business (UNIQUE(door, non)).
"""

from __future__ import annotations

import hmac
from hashlib import blake2s

from . import b64url
from .model import Code, DoorId, Issuer

LIFETIME = 60
"""Seconds of boot time for which a challenge can be answered."""


def make(secret: bytes, door: DoorId, issuer: Issuer, boot: float, salt: bytes) -> str:
    """Return a challenge for ``door`` and ``issuer``: 22 characters.

    ``secret`` is 32 bytes known to this controller alone, ``boot`` is seconds of boot time, ``salt`` 4 random bytes.
    """
    head = int(boot).to_bytes(4) + salt
    return b64url.encode(head + _mac(secret, door, issuer, head))


def check(secret: bytes, door: DoorId, issuer: Issuer, boot: float, nonce: str) -> Code | None:
    """Return None if ``nonce`` is a live challenge of this door for this issuer, else why not (A.2 step 8).

    ``nonce`` is a token's ``non``: 22 characters of base64url.
    """
    raw = b64url.decode(nonce.encode())
    head, mac = raw[:8], raw[8:]
    if not hmac.compare_digest(mac, _mac(secret, door, issuer, head)):
        return Code.NONCE_UNKNOWN
    if int(boot) - int.from_bytes(head[:4]) > LIFETIME:
        return Code.NONCE_EXPIRED
    return None


def _mac(secret: bytes, door: DoorId, issuer: Issuer, head: bytes) -> bytes:
    # Unambiguous without separators: the door's id and the head have fixed lengths. Keyed BLAKE2s (RFC 7693 2.9) where
    # the profile says HMAC-SHA256: nobody else computes this, and it takes half the time inside of every decision.
    return blake2s(b"%b%b%b" % (door.encode(), issuer.encode(), head), key=secret, digest_size=8).digest()
