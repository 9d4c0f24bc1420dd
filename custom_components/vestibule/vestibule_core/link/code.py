"""The enrolment code: what a manager gets from a carrier and enters, once, to let its cloud ask for doors.

It names the cloud's host and the fingerprint of its root, so that nobody in between can put in another root, and holds
a secret that is good for one enrolment. What this file refuses to do: guess at a code of which a character is wrong.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from .. import b64url

PREFIX: Final = "vst1."
MAX_LENGTH: Final = 200
"""Characters, after white space is taken out."""

_HOST: Final = re.compile(
    r"(?=.{1,80}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[1-9][0-9]{0,4})?"
)
_SECRET: Final = 16
_ROOT: Final = 32
_CHECK: Final = 4


class Slip(StrEnum):
    """What is wrong with an entered code; the word for a form's message."""

    NO_CODE = "code_none"
    NOT_ALONE = "code_not_alone"
    CUT = "code_cut"
    CHECK = "code_check"
    NO_HOST = "code_no_host"


_ADVICE: Final = {
    Slip.NO_CODE: f"an enrolment code begins with {PREFIX} - copy the whole code that the carrier gave you",
    Slip.NOT_ALONE: "the code has something else after it, or in it: copy it again, alone",
    Slip.CUT: "the code is not complete: copy it again, whole",
    Slip.CHECK: "a character of the code is wrong or missing: copy it again",
    Slip.NO_HOST: "the code names no host: ask the carrier for a new one",
}


class CodeInvalid(ValueError):
    """A text is no enrolment code. The message says what to do; it never repeats the text, which holds a secret."""

    def __init__(self, slip: Slip) -> None:
        """Say what to do about it."""
        super().__init__(_ADVICE[slip])
        self.slip: Final = slip


@dataclass(frozen=True, slots=True)
class EnrolmentCode:
    """What an enrolment code says."""

    host: str
    """Of the cloud, with its port if it is not 443."""
    root: bytes
    """SHA-256 of the raw root key."""
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what could not be read again."""
        if not _HOST.fullmatch(self.host):
            raise CodeInvalid(Slip.NO_HOST)
        if len(self.root) != _ROOT or len(self.secret) != _SECRET:
            raise CodeInvalid(Slip.CUT)

    def __str__(self) -> str:
        """Return the code, secret included."""
        body = self.secret + self.root + self.host.encode()
        return PREFIX + b64url.encode(body + _checksum(body))

    @classmethod
    def parse(cls, entered: str) -> Self:
        """Return what was entered, in which white space means nothing; raise CodeInvalid."""
        text = "".join(entered.split())
        if not text.startswith(PREFIX):
            raise CodeInvalid(Slip.NO_CODE)
        encoded = text.removeprefix(PREFIX).encode(errors="replace")
        if len(text) > MAX_LENGTH or encoded.strip(b64url.ALPHABET):
            raise CodeInvalid(Slip.NOT_ALONE)
        try:
            raw = b64url.decode(encoded)
        except ValueError as err:
            raise CodeInvalid(Slip.CUT) from err
        body, check = raw[:-_CHECK], raw[-_CHECK:]
        if check != _checksum(body):
            raise CodeInvalid(Slip.CHECK)
        try:
            host = body[_SECRET + _ROOT :].decode("ascii")
        except UnicodeDecodeError as err:
            raise CodeInvalid(Slip.NO_HOST) from err
        return cls(host, body[_SECRET : _SECRET + _ROOT], body[:_SECRET])


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(PREFIX.encode() + body).digest()[:_CHECK]
