"""The handshake of protocol B: Noise NNpsk0, bound to the strike's HELLO and the slot of the key."""

from __future__ import annotations

from typing import Final

from .. import nnpsk0  # noqa: TID252 - the core is imported relatively
from ..nnpsk0 import Transport as Transport  # noqa: TID252

_PROLOGUE: Final = b"DoorStrike/1"


class Initiator(nnpsk0.Initiator):
    """The client's end of one handshake."""

    def __init__(self, psk: bytes, hello: bytes, slot: int, ephemeral: bytes) -> None:
        """Bind the handshake to the HELLO as received; ``ephemeral`` is 32 random bytes, never used twice."""
        super().__init__(psk, _PROLOGUE + hello + bytes([slot]), ephemeral)


class Responder(nnpsk0.Responder):
    """The strike's end of one handshake."""

    def __init__(self, psk: bytes, hello: bytes, slot: int) -> None:
        """Bind the handshake to the HELLO as sent."""
        super().__init__(psk, _PROLOGUE + hello + bytes([slot]))
