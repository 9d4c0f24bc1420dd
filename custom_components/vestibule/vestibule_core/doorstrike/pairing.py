"""The label inside of a strike's cover, and the keys that come of it (protocol B.5).

The code is read generously, because a person types it, and is then one text of 20 characters, because it becomes a key.
It must not get shorter: an eavesdropper can try codes out at home, and 95 bits are what keeps that hopeless.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .. import crockford  # noqa: TID252 - the core is imported relatively
from ..crockford import ALPHABET as ALPHABET  # noqa: TID252
from .frames import KEY_SIZE

PAIRING_SLOT: Final = 0
"""Open for two minutes after somebody held the button."""

CODE_SIZE: Final = 20
RANDOM_SIZE: Final = 12
"""Bytes that a new code is made of; one bit is left over."""

_QR: Final = re.compile(r"vestibule-strike:([0-9a-f]{16})\?code=([0-9a-z-]+)", re.ASCII | re.IGNORECASE)


class Slip(StrEnum):
    """What is wrong with a typed code; the word for a form's message."""

    LENGTH = "code_length"
    CHARACTER = "code_character"
    CHECK = "code_check"
    NO_LABEL = "no_label"


_ADVICE: Final = {
    Slip.LENGTH: "the code has 20 characters: type all of them, dashes do not matter",
    Slip.CHARACTER: "a code is made of digits and letters without U: look at the label again",
    Slip.CHECK: "one character is not as on the label, or two changed places: compare them one by one",
    Slip.NO_LABEL: "this is not the QR code of a strike: scan the one on the label inside of its cover",
}


class LabelError(ValueError):
    """A code or QR text cannot be a label's. The message says what to do, and does not repeat what was typed."""

    def __init__(self, slip: Slip) -> None:
        """Say what to do about it."""
        super().__init__(_ADVICE[slip])
        self.slip = slip


@dataclass(frozen=True, slots=True, repr=False)
class Label:
    """What is printed inside of the cover. The code is a key: it is not shown in logs."""

    strike_id: bytes
    code: str
    """20 characters of ALPHABET, the last one a check."""

    @classmethod
    def new(cls, strike_id: bytes, random: bytes) -> Self:
        """Return the label that RANDOM_SIZE random bytes make."""
        body = crockford.spell(random, CODE_SIZE - 1)
        return cls(strike_id, body + _check(body))

    @classmethod
    def typed(cls, strike_id: bytes, text: str) -> Self:
        """Return the label that somebody typed: O is 0, I and L are 1, case, spaces and dashes are free.

        Raises LabelError.
        """
        if (code := crockford.read(text)) is None:
            raise LabelError(Slip.CHARACTER)
        if len(code) != CODE_SIZE:
            raise LabelError(Slip.LENGTH)
        if code[-1] != _check(code[:-1]):
            raise LabelError(Slip.CHECK)
        return cls(strike_id, code)

    @classmethod
    def scanned(cls, text: str) -> Self:
        """Return the label that a QR code holds; raise LabelError."""
        if not (found := _QR.fullmatch(text.strip())):
            raise LabelError(Slip.NO_LABEL)
        return cls.typed(bytes.fromhex(found[1]), found[2])

    @property
    def qr(self) -> str:
        """The text of the QR code."""
        return f"vestibule-strike:{self.strike_id.hex()}?code={self.code}"

    @property
    def grouped(self) -> str:
        """The code as it is printed: five groups of four."""
        return crockford.grouped(self.code, 4)

    @property
    def psk(self) -> bytes:
        """The key of the pairing slot."""
        kdf = HKDF(SHA256(), KEY_SIZE, salt=self.strike_id, info=b"DoorStrike/1 pair")
        return kdf.derive(self.code.encode())


def slot_psk(strike_id: bytes, slot: int, rand_c: bytes, rand_s: bytes) -> bytes:
    """Return the key of a slot that SLOT_ADD or SLOT_REKEY made. It does not depend on the label."""
    return hashlib.sha256(b"DoorStrike/1 slot" + strike_id + bytes([slot]) + rand_c + rand_s).digest()


def _check(body: str) -> str:
    return ALPHABET[hashlib.sha256(body.encode()).digest()[0] >> 3]
