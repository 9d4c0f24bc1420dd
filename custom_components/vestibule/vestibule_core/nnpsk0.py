"""Noise_NNpsk0_25519_ChaChaPoly_SHA256, both roles, and the transport that comes of it.

The one module that knows noiseprotocol, which has no types and lets errors of three libraries through: all of them are
a Violation here. What it refuses to do: negotiate anything, take a key exchange that gives a known secret, or go on
after a message that did not decrypt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from noise.backends.default.keypairs import KeyPair25519  # type: ignore[import-untyped]
from noise.connection import NoiseConnection  # type: ignore[import-untyped]
from noise.exceptions import NoiseInvalidMessage  # type: ignore[import-untyped]

from .errors import Violation

SUITE: Final = b"Noise_NNpsk0_25519_ChaChaPoly_SHA256"
KEY_SIZE: Final = 32
"""Bytes of the shared key, and of the private keys that are used once."""
MAX_PAYLOAD: Final = 65535 - KEY_SIZE - 16
"""Bytes that a handshake message can carry."""
# Any scalar is a multiple of eight: times it, a point of low order is nothing, and every other point is something.
_PROBE: Final = X25519PrivateKey.from_private_bytes(bytes(KEY_SIZE))


class Transport:
    """An established session: messages in strict order, each once."""

    def __init__(self, connection: Any) -> None:
        """Go on where the handshake ended."""
        self._connection = connection

    @property
    def handshake_hash(self) -> bytes:
        """What names this session, 32 bytes; both ends have the same."""
        return bytes(self._connection.get_handshake_hash())

    def encrypt(self, plaintext: bytes) -> bytes:
        """Return the next message to send."""
        return bytes(self._connection.encrypt(plaintext))

    def decrypt(self, sealed: bytes) -> bytes:
        """Return the next message received; raise Violation if it is another one, or changed."""
        with _translated():
            return bytes(self._connection.decrypt(sealed))


class Initiator:
    """The end that begins."""

    def __init__(self, psk: bytes, prologue: bytes, ephemeral: bytes) -> None:
        """Bind the handshake to ``prologue``; ``ephemeral`` is KEY_SIZE random bytes, never used twice."""
        self._connection = _connection(psk, prologue, initiator=True)
        _set_ephemeral(self._connection, ephemeral)

    def first(self, payload: bytes) -> bytes:
        """Return Noise's first message."""
        return bytes(self._connection.write_message(payload))

    def second(self, sealed: bytes) -> tuple[bytes, Transport]:
        """Return the payload of Noise's second message and the session; raise Violation."""
        with _translated():
            return bytes(self._connection.read_message(sealed)), Transport(self._connection)


class Responder:
    """The end that answers."""

    def __init__(self, psk: bytes, prologue: bytes) -> None:
        """Bind the handshake to ``prologue``."""
        self._connection = _connection(psk, prologue, initiator=False)

    def first(self, sealed: bytes) -> bytes:
        """Return the payload of Noise's first message; raise Violation.

        After that ``second`` cannot fail: a key of low order is refused here, before anything is recorded or moved.
        """
        with _translated():
            _PROBE.exchange(X25519PublicKey.from_public_bytes(sealed[:KEY_SIZE]))
            return bytes(self._connection.read_message(sealed))

    def second(self, payload: bytes, ephemeral: bytes) -> tuple[bytes, Transport]:
        """Return Noise's second message and the session; ``ephemeral`` as for Initiator."""
        _set_ephemeral(self._connection, ephemeral)
        return bytes(self._connection.write_message(payload)), Transport(self._connection)


def _connection(psk: bytes, prologue: bytes, *, initiator: bool) -> Any:
    connection = NoiseConnection.from_name(SUITE)
    connection.set_psks(psk)
    connection.set_prologue(prologue)
    if initiator:
        connection.set_as_initiator()
    else:
        connection.set_as_responder()
    connection.start_handshake()
    return connection


def _set_ephemeral(connection: Any, private: bytes) -> None:
    # Where the library would put a key of its own making. Its own setter warns that only tests should use it.
    connection.noise_protocol.handshake_state.e = KeyPair25519.from_private_bytes(private)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (InvalidTag, NoiseInvalidMessage, ValueError) as err:
        raise Violation("not authentic") from err
