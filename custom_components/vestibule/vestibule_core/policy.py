"""What the building allows: its doors, its carriers, and the judgement on one genuine token.

The building decides, whatever a cloud has signed (A.2 steps 7-10). Pure: the same building, token and time give the
same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from types import MappingProxyType
from typing import Final, Self

from . import challenge
from .door import DoorState
from .history import History
from .hours import WeeklyHours, is_open
from .keys import TrustedKey
from .model import Code, Decision, Door, DoorId, Issuer, Limit, Now
from .token import Confirmations, DriverProof, UnlockToken

CLOCKS_APART: Final = 120.0
"""Seconds by which our clock and the issuer's may differ where hours are to be kept (A.2)."""
CLOCK_BACK: Final = 5.0
"""Seconds by which a clock that is being disciplined may go back without being distrusted."""


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
    hours: WeeklyHours = ()
    """When it may deliver, at any door; the door's own hours hold as well."""
    rate: int | None = None
    """Accesses at one door within an hour; None: as many as it likes."""
    locked_out: bool = False
    """Tokens were accepted that its cloud says it never issued, and no administrator has looked yet (protocol E)."""


@dataclass(frozen=True, slots=True)
class Building:
    """All that a decision depends on and a manager can change. A change makes a new one."""

    doors: Mapping[DoorId, Door]
    carriers: Mapping[Issuer, Carrier]
    keys: Mapping[str, TrustedKey]
    zone: tzinfo = UTC
    """The time zone that hours are meant in."""
    elsewhere: frozenset[DoorId] = frozenset()
    """Doors of the building whose tokens another controller spends."""

    @classmethod
    def of(
        cls,
        doors: Iterable[Door],
        carriers: Iterable[Carrier],
        *,
        zone: tzinfo = UTC,
        elsewhere: Iterable[DoorId] = (),
    ) -> Self:
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
            zone,
            frozenset(elsewhere),
        )


def judge(
    unlock: UnlockToken,
    building: Building,
    state: DoorState | None,
    history: History,
    newest: float,
    challenge_secret: bytes,
    now: Now,
    *,
    is_spent: bool = False,
) -> Decision | None:
    """Return why the building refuses a genuine token, None if it does not: steps 7 to 10 of A.2, in this order, and
    of step 6 the key's status once more, with its time.

    ``state`` is what is known of the token's door (None: not a door of ours), ``newest`` the newest time in the journal
    (seconds since 1970). ``is_spent``: the token is spent and counted, by itself, and is judged once more.
    """
    claims = unlock.claims
    key = building.keys.get(unlock.key.kid)  # it may have been revoked since the signature was verified
    if key is None or key.issuer != claims.issuer or not key.opens(now.wall):  # 6
        return Decision(Code.KEY_REVOKED, claims.door)
    door = building.doors.get(claims.door)
    if door is None or state is None:  # 7
        return Decision(Code.NOT_SPENDER if claims.door in building.elsewhere else Code.WRONG_DOOR, claims.door)
    if not is_spent and unlock.spend_key in history.spent:  # 7b
        return Decision(Code.ALREADY_SPENT, claims.door)
    if code := challenge.check(challenge_secret, claims.door, claims.issuer, now.boot, claims.nonce):  # 8
        return Decision(code, claims.door)
    carrier = building.carriers[claims.issuer]  # 10
    if carrier.locked_out:
        return Decision(Code.CARRIER_LOCKED_OUT, claims.door)
    if claims.door not in carrier.doors:
        return Decision(Code.POLICY_CARRIER_DOOR, claims.door)
    if limit := carrier.limits.exceeded(claims.confirmations, claims.issued_at):
        return Decision(Code.POLICY_EVIDENCE, claims.door, limit)
    if (door.hours or carrier.hours) and (code := _hours(unlock, building, door, carrier, newest, now)):
        return Decision(code, claims.door)
    if (
        carrier.rate is not None
        and not is_spent
        and history.accepted(claims.issuer, claims.door, now.boot) >= carrier.rate
    ):
        return Decision(Code.POLICY_RATE, claims.door)
    if code := _shut(state):
        return Decision(code, claims.door)
    return None


def _hours(
    unlock: UnlockToken, building: Building, door: Door, carrier: Carrier, newest: float, now: Now
) -> Code | None:
    """Judge the hours by our clock and by the issuer's, which have to agree."""
    issued_at = unlock.claims.issued_at
    if abs(now.wall - issued_at) > CLOCKS_APART or now.wall < newest - CLOCK_BACK:
        return Code.CLOCK_UNTRUSTED
    for hours in (door.hours, carrier.hours):
        for at in (now.wall, issued_at):
            if not is_open(hours, at, building.zone):
                return Code.POLICY_HOURS
    return None


def _shut(state: DoorState) -> Code | None:
    if code := state.shut:
        return code
    if not state.accepts_deliveries:
        return Code.DELIVERIES_OFF
    if state.tampered:
        return Code.TAMPERED
    return None
