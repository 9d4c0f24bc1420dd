"""The record of all that a decision was made of, and the salted digest of it that goes into the token.

Whoever is shown record and salt can check the digest; without the salt, nobody can guess a place from it. The record is
kept as the bytes that were digested, never written anew.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from vestibule_core import b64url

from .checks import Asked, Fix, Known, Verdict


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record with its salt."""

    salt: bytes
    """16 random bytes."""
    record: bytes

    @property
    def digest(self) -> str:
        """What the token says (``evd``): SHA-256 of salt and record, 43 characters."""
        return b64url.encode(hashlib.sha256(self.salt + self.record).digest())


def seal(asked: Asked, known: Known, verdict: Verdict, now: datetime, salt: bytes) -> Sealed:
    """Return the record of a decision."""
    door = known.door
    record = {
        "version": 1,
        "request": asked.request,
        "driver": asked.driver,
        "device": asked.device,
        "stop": asked.stop,
        "route": known.stop.route if known.stop else None,
        "door": asked.door,
        "asked_at": asked.asked_at.timestamp(),
        "decided_at": now.timestamp(),
        "assertion": asdict(asked.assertion),
        "fix": _fix(asked.fix),
        "previous": _fix(known.previous),
        "door_position": door.position if door else None,
        "limits": asdict(known.limits),
        "results": [
            {"check": result.check, "reason": result.reason, "measured": dict(result.measured)}
            for result in verdict.results
        ],
    }
    # What is no number in JSON (a phone may say NaN) was judged as no place; it is kept as its name.
    return Sealed(salt, json.dumps(record, separators=(",", ":"), sort_keys=True).encode())


def _fix(fix: Fix | None) -> dict[str, Any] | None:
    if fix is None:
        return None
    return {"lat": fix.lat, "lon": fix.lon, "accuracy": fix.accuracy, "at": fix.at.timestamp(), "typed": fix.typed}
