"""base64url without padding, in its one canonical spelling (RFC 7515 section 2, RFC 4648 section 3.5).

A second spelling of the same bytes would be a second text for one token; a decoder that is generous makes it.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
# By the number of characters past a multiple of four: padding, and the last characters whose spare bits are zero.
_TAIL: Final = {0: (b"", ALPHABET), 2: (b"==", b"AQgw"), 3: (b"=", b"AEIMQUYcgkosw048")}


def encode(raw: bytes) -> str:
    """Return the text of ``raw``."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(text: bytes) -> bytes:
    """Return the bytes that ``text``, made of ALPHABET only, spells; raise ValueError if it is not canonical."""
    padding, canonical = _TAIL.get(len(text) % 4, (b"", b""))
    if text and text[-1] not in canonical:
        raise ValueError("not canonical base64url")
    return binascii.a2b_base64(text.translate(_STANDARD) + padding)
