"""Pairing with a gateway: both ends of it, without a network (protocol C).

Who knows the code that the gateway shows gets in, once. The handshake is bound to the gateway, to the window that it
was opened in and to the certificate of the connection that carries it: whoever sits in between has another certificate,
and nothing decrypts. What this file refuses to do: say which of them was wrong.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .. import crockford
from ..errors import Violation
from ..nnpsk0 import KEY_SIZE, Initiator, Responder
from .messages import ADMISSION, Admission, GatewayId, client_name

CODE_SIZE: Final = 20
RANDOM_SIZE: Final = 13
"""Bytes that a new code is made of; four bits are left over."""
MAX_FIRST: Final = 1024
"""Bytes of a first message that are looked at; one with the longest name has about 300."""

_NAME: Final = b"VestibuleGateway/1 pair"


class CodeSlip(StrEnum):
    """What is wrong with a typed code; the word for a form's message."""

    LENGTH = "code_length"
    CHARACTER = "code_character"


_ADVICE: Final = {
    CodeSlip.LENGTH: "the code has 20 characters: type all of them, dashes do not matter",
    CodeSlip.CHARACTER: "a code is made of digits and letters without U: look at it again",
}


class CodeError(ValueError):
    """What was typed cannot be a code. The message says what to do, and does not repeat it."""

    def __init__(self, slip: CodeSlip) -> None:
        """Say what to do about it."""
        super().__init__(_ADVICE[slip])
        self.slip = slip


def new_code(random: bytes) -> str:
    """Return the code that RANDOM_SIZE random bytes make: a key as long as its window is open."""
    return crockford.spell(random, CODE_SIZE)


def shown(code: str) -> str:
    """Return the code as it is shown: four groups of five."""
    return crockford.grouped(code, 5)


def read_code(typed: str) -> str:
    """Return the code that somebody typed; raise CodeError."""
    if (code := crockford.read(typed)) is None:
        raise CodeError(CodeSlip.CHARACTER)
    if len(code) != CODE_SIZE:
        raise CodeError(CodeSlip.LENGTH)
    return code


class Applicant:
    """The client's end of one attempt."""

    def __init__(self, code: str, gateway: GatewayId, nonce: bytes, fingerprint: bytes, ephemeral: bytes) -> None:
        """Try ``code`` (read by ``read_code``) on the gateway that said ``nonce``.

        ``fingerprint``: SHA-256 of the certificate that the connection has, in DER. ``ephemeral``: 32 random bytes,
        never used twice.
        """
        self._handshake = Initiator(_psk(code, gateway), _prologue(gateway, nonce, fingerprint), ephemeral)

    def first(self, name: str) -> bytes:
        """Return the request's body; ``name`` is the client's (``client_name``)."""
        return self._handshake.first(name.encode())

    def second(self, answer: bytes) -> Admission:
        """Return what the gateway answers.

        Raises Violation if whoever answered does not know the code, and MalformedMessage if it speaks another version.
        """
        return ADMISSION.decode(self._handshake.second(answer)[0])


class Host:
    """The gateway's end of one attempt."""

    def __init__(self, code: str, gateway: GatewayId, nonce: bytes, fingerprint: bytes) -> None:
        """Wait for whoever knows ``code``; ``nonce`` is the window's, ``fingerprint`` of the certificate in use."""
        self._handshake = Responder(_psk(code, gateway), _prologue(gateway, nonce, fingerprint))

    def first(self, body: bytes) -> str:
        """Return the name of the client that asks; raise Violation. After one of those this attempt is over."""
        if len(body) > MAX_FIRST:
            raise Violation("not authentic")
        try:
            return client_name(self._handshake.first(body).decode())
        except ValueError as err:
            raise Violation("a name that cannot be shown") from err

    def second(self, admission: Admission, ephemeral: bytes) -> bytes:
        """Return the answer's body; ``ephemeral`` is 32 random bytes, never used twice."""
        return self._handshake.second(ADMISSION.encode(admission), ephemeral)[0]


def _psk(code: str, gateway: GatewayId) -> bytes:
    return HKDF(SHA256(), KEY_SIZE, salt=gateway.encode(), info=_NAME).derive(code.encode())


def _prologue(gateway: GatewayId, nonce: bytes, fingerprint: bytes) -> bytes:
    return _NAME + gateway.encode() + nonce + fingerprint
