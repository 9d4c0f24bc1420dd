"""A PIN: four to eight digits that have to be typed to open a door by hand.

Kept as a salted scrypt hash (RFC 7914), which slows a guesser who has the file down, and no more: so few digits can be
tried out. What protects a door is that wrong attempts are counted (controller.py).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final, Self

FORMAT: Final = r"\d{4,8}"
_PIN: Final = re.compile(FORMAT, re.ASCII)


@dataclass(frozen=True, slots=True)
class Pin:
    """What is kept of a PIN."""

    salt: bytes
    """16 random bytes."""
    digest: bytes
    """32 bytes."""

    @classmethod
    def of(cls, text: str, salt: bytes) -> Self:
        """Return what to keep of ``text``; raise ValueError if it is no PIN. Takes about 50 ms."""
        if not _PIN.fullmatch(text):
            raise ValueError("a PIN has four to eight digits")
        return cls(salt, _digest(text, salt))

    def matches(self, text: str) -> bool:
        """Return whether this PIN was typed. Takes about 50 ms."""
        return bool(_PIN.fullmatch(text)) and hmac.compare_digest(self.digest, _digest(text, self.salt))


def _digest(text: str, salt: bytes) -> bytes:
    return hashlib.scrypt(text.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)
