"""Whether 32 bytes are a public Ed25519 key under which only its owner can sign (RFC 8032 5.1.3).

The library takes any 32 bytes, and says nothing of a point of small order. What it refuses to do: mend a key.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Flaw(StrEnum):
    """What is wrong with a key."""

    WEAK = "weak"
    """Anybody can sign under it."""
    NO_POINT = "no_point"
    """It is not the one spelling of a point on the curve."""


# The encodings of the points of order 1, 2, 4 and 8, the non-canonical ones included; each also with the sign bit set,
# which makes the 14 of protocol A.1. Under such a key anybody can sign.
_SMALL_ORDER: Final = frozenset(
    int.from_bytes(bytes.fromhex(point), "little")
    for point in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P


def flaw_of(public: bytes) -> Flaw | None:
    """Return what is wrong with a public key of 32 bytes; None: nothing."""
    y = int.from_bytes(public, "little") & ~(1 << 255)
    if y in _SMALL_ORDER:
        return Flaw.WEAK
    # y must be below p, and x^2 = (y^2 - 1) / (d y^2 + 1) must have a root.
    x2 = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if y >= _P or pow(x2, (_P - 1) // 2, _P) != 1:
        return Flaw.NO_POINT
    return None
