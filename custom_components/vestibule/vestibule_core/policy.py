"""What the building allows: its doors, its carriers, and the judgement on one genuine token.

The building decides, whatever a cloud has signed (A.2 steps 7-10). Pure: the same building, token and time give the
same answer.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from . import challenge
from .keys import TrustedKey
from .model import Code, Decision, Door, DoorId, Issuer, Limit
from .token import Confirmations, DriverProof, UnlockToken


@dataclass(frozen=True, slots=True)
class EvidenceLimits:
    """How good the four confirmations must be; the defaults of protocol A.1. A value at a limit is inside."""

    methods: frozenset[DriverProof] = frozenset({DriverProof.PASSKEY, DriverProof.DEVICE_KEY})
    distance: int = 75
    """Metres."""
    accuracy: int = 50
    """Metres."""
    position_age: int = 30
    """Seconds."""
    request_age: int = 120
    """Seconds between the driver's request and the token, both by the issuer's clock."""

    def exceeded(self, checks: Confirmations, issued_at: int) -> Limit | None:
        """Return the first limit that the confirmations are outside of."""
        if checks.driver not in self.methods:
            return Limit.METHOD
        if checks.distance > self.distance:
            return Limit.DISTANCE
        if checks.accuracy > self.accuracy:
            return Limit.ACCURACY
        if checks.position_age > self.position_age:
            return Limit.POSITION_AGE
        # A request "after" the token is as wrong as an old one.
        if not 0 <= issued_at - checks.requested_at <= self.request_age:
            return Limit.REQUEST_AGE
        return None


@dataclass(frozen=True, slots=True)
class Carrier:
    """A carrier that the building manager let in: its keys, its doors and how well it must know its drivers."""

    issuer: Issuer
    name: str
    keys: tuple[TrustedKey, ...]
    doors: frozenset[DoorId]
    limits: EvidenceLimits = EvidenceLimits()


@dataclass(frozen=True, slots=True)
class Building:
    """All that a decision depends on and a manager can change. A change makes a new one."""

    doors: Mapping[DoorId, Door]
    carriers: Mapping[Issuer, Carrier]
    keys: Mapping[str, TrustedKey]

    @classmethod
    def of(cls, doors: Iterable[Door], carriers: Iterable[Carrier]) -> Self:
        """Index doors and carriers; raise ValueError if two carriers share an issuer or a key (attack 78)."""
        by_issuer: dict[Issuer, Carrier] = {}
        by_kid: dict[str, TrustedKey] = {}
        for carrier in carriers:
            if carrier.issuer in by_issuer:
                raise ValueError("two carriers share an issuer")
            by_issuer[carrier.issuer] = carrier
            for key in carrier.keys:
                if key.kid in by_kid or key.issuer != carrier.issuer:
                    raise ValueError("a key belongs to two carriers")
                by_kid[key.kid] = key
        return cls(
            MappingProxyType({door.id: door for door in doors}),
            MappingProxyType(by_issuer),
            MappingProxyType(by_kid),
        )


def judge(
    unlock: UnlockToken,
    building: Building,
    spent: Container[tuple[Issuer, str]],
    challenge_secret: bytes,
    boot: float,
) -> Decision | None:
    """Return why the building refuses a genuine token, None if it does not: steps 7 to 10 of A.2, in this order.

    ``spent`` holds spend keys that are remembered; ``boot`` is seconds of boot time.
    """
    claims = unlock.claims
    if claims.door not in building.doors:  # 7
        return Decision(Code.WRONG_DOOR, claims.door)
    if unlock.spend_key in spent:  # 7b
        return Decision(Code.ALREADY_SPENT, claims.door)
    if code := challenge.check(challenge_secret, claims.door, claims.issuer, boot, claims.nonce):  # 8
        return Decision(code, claims.door)
    carrier = building.carriers[claims.issuer]  # 10
    if claims.door not in carrier.doors:
        return Decision(Code.POLICY_CARRIER_DOOR, claims.door)
    if limit := carrier.limits.exceeded(claims.confirmations, claims.issued_at):
        return Decision(Code.POLICY_EVIDENCE, claims.door, limit)
    return None
