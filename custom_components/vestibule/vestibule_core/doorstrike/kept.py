"""What a client has to remember of its strike across restarts, and that as JSON. The host stores it as a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from .client import Paired
from .frames import KEY_SIZE
from .pairing import PAIRING_SLOT
from .wire import STRIKE_ID_SIZE, VERSION, Caps, exactly


@dataclass(frozen=True, slots=True)
class Kept:
    """One paired strike."""

    paired: Paired
    caps: Caps
    heard: int
    """The number of the last event that was told of."""
    booted: float | None = None
    """When the strike powered up (wall clock), as of ``heard``; None: not known."""
    next_psk: bytes | None = field(default=None, repr=False)
    """A key that the strike has made and may or may not have taken into use: both are tried until one is proved."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it. It holds the key."""
        return {
            "strike_id": self.paired.strike_id.hex(),
            "slot": self.paired.slot,
            "psk": self.paired.psk.hex(),
            "version": self.paired.version,
            "caps": int(self.caps),
            "heard": self.heard,
            "booted": self.booted,
            "next_psk": self.next_psk and self.next_psk.hex(),
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """Return what ``to_json`` wrote; raise Violation, ValueError, KeyError or TypeError if it is something else."""
        slot, version, caps, heard = (int(kept[name]) for name in ("slot", "version", "caps", "heard"))
        if not PAIRING_SLOT < slot < 256 or version < VERSION or caps < 0 or heard < 0:
            raise ValueError("no strike that was paired")
        booted, next_psk = kept.get("booted"), kept.get("next_psk")
        return cls(
            paired=Paired(
                strike_id=exactly(bytes.fromhex(kept["strike_id"]), STRIKE_ID_SIZE),
                slot=slot,
                psk=exactly(bytes.fromhex(kept["psk"]), KEY_SIZE),
                version=version,
            ),
            caps=Caps(caps),
            heard=heard,
            booted=None if booted is None else float(booted),
            next_psk=None if next_psk is None else exactly(bytes.fromhex(next_psk), KEY_SIZE),
        )
