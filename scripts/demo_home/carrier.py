"""Swift Parcels: a carrier without a link. A driver's phone, and the cloud that vouches for what the phone says.

The cloud signs an unlock token only after it has confirmed four things itself: who asks (a signature by the
key in the driver's phone), that the stop is a due stop of the driver's route, that the phone is at the door,
and that it asks now. It calls the building at its intake, as any carrier would (docs/protocol.md, G). Small, but
real: real keys, real signatures, real distances on the globe. What it is not: a service. It keeps its routes in
memory and its keys in files; a carrier has databases and a hardware security module there.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from vestibule_core import b64url, token
from vestibule_core.keys import SigningKey
from vestibule_core.model import DoorId, Issuer
from vestibule_core.token import Claims, Confirmations, DriverProof

EARTH_RADIUS: Final = 6_371_000.0
TOKEN_LIFETIME: Final = 60
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a phone believes to be; ``accuracy`` in metres, ``taken_at`` in seconds since 1970."""

    latitude: float
    longitude: float
    accuracy: float = 0.0
    taken_at: float = 0.0

    def distance(self, other: Position) -> float:
        """Return the metres between two positions on the globe (haversine)."""
        here, there = math.radians(self.latitude), math.radians(other.latitude)
        east = math.radians(other.longitude - self.longitude)
        chord = math.sin((there - here) / 2) ** 2 + math.cos(here) * math.cos(there) * math.sin(east / 2) ** 2
        return 2 * EARTH_RADIUS * math.asin(math.sqrt(chord))


@dataclass(frozen=True, slots=True)
class Request:
    """A driver's wish to be let in, as the phone sends it."""

    driver: str
    route: str
    stop: str
    door: str
    position: Position
    asked_at: float
    """Seconds since 1970."""

    def encoded(self) -> bytes:
        """Return the bytes that the phone signs."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Phone:
    """A driver's phone. Its private key never leaves it."""

    driver: str
    key: Ed25519PrivateKey

    def sign(self, request: Request) -> bytes:
        """Return the phone's signature of a request."""
        return self.key.sign(request.encoded())


@dataclass(frozen=True, slots=True)
class Check:
    """One of the four confirmations, and what was found."""

    name: str
    found: str
    holds: bool
    limited: bool = True
    """False where the cloud sets no limit, so that what was found is told but not confirmed."""


class NotConfirmed(Exception):
    """The cloud does not vouch for a request; ``checks`` ends with the one that failed."""

    def __init__(self, checks: list[Check]) -> None:
        """Tell what was checked."""
        super().__init__(checks[-1].found)
        self.checks = checks


@dataclass(frozen=True, slots=True)
class Rules:
    """What the carrier asks of its drivers; metres and seconds. The building has limits of its own."""

    distance: float = 75.0
    accuracy: float = 50.0
    position_age: float = 30.0
    request_age: float = 60.0


CARELESS: Final = Rules(distance=math.inf)
"""A carrier that does not mind where its drivers are, and says so truthfully."""


@dataclass
class Cloud:
    """The carrier's cloud. ``secret`` makes the pseudonyms that buildings see instead of names."""

    issuer: Issuer
    key: SigningKey
    secret: bytes
    drivers: Mapping[str, Ed25519PublicKey]
    due: Mapping[tuple[str, str], frozenset[str]]
    """By driver and route: the stops that are still to be made."""
    places: Mapping[str, Position]
    """Where each door is."""
    rules: Rules = field(default_factory=Rules)

    def confirm(self, request: Request, signature: bytes, now: float) -> tuple[list[Check], Confirmations]:
        """Check the four things in turn. Raises NotConfirmed at the first that does not hold."""
        checks: list[Check] = []

        def check(name: str, holds: bool, found: str, *, limited: bool = True) -> None:
            checks.append(Check(name, found, holds, limited))
            if not holds:
                raise NotConfirmed(checks)

        known = self.drivers.get(request.driver)
        signed = known is not None and _verifies(known, signature, request.encoded())
        check(
            "driver ID",
            signed,
            "signed by the key in the driver's phone" if signed else "not the driver's phone",
        )

        due = request.stop in self.due.get((request.driver, request.route), frozenset())
        check("route", due, f"{request.stop} is {'' if due else 'not '}a due stop of route {request.route}")

        distance = request.position.distance(self.places[request.door])
        age = now - request.position.taken_at
        rules = self.rules
        near = distance <= rules.distance and request.position.accuracy <= rules.accuracy
        limited = math.isfinite(rules.distance)
        details = f"± {request.position.accuracy:.0f} m), {age:.0f} s old" if limited else "this cloud sets no limit)"
        found = f"{distance:.0f} m from the door ({details}"
        check("position", near and 0 <= age <= rules.position_age, found, limited=limited)

        waited = now - request.asked_at
        check("time", 0 <= waited <= rules.request_age, f"asked {waited:.1f} s ago")
        # Rounded up, so that the building never hears a better value than was measured.
        return checks, Confirmations(
            driver=DriverProof.DEVICE_KEY,
            route=self._pseudonym("route", request.route),
            distance=math.ceil(distance),
            accuracy=math.ceil(request.position.accuracy),
            position_age=math.ceil(age),
            requested_at=int(request.asked_at),
        )

    def claims(self, request: Request, confirmed: Confirmations, door: str, challenge: str, now: float) -> Claims:
        """Return what a token for this request says: for one door, one challenge, once."""
        return Claims(
            issuer=self.issuer,
            door=DoorId(door),
            jti=b64url.encode(os.urandom(16)),
            issued_at=int(now),
            expires_at=int(now) + TOKEN_LIFETIME,
            subject=self._pseudonym("driver", request.driver),
            stop=self._pseudonym("stop", request.stop),
            nonce=challenge,
            confirmations=confirmed,
        )

    def sign(self, claims: Claims) -> str:
        """Return the token."""
        return token.issue(self.key, claims)

    def _pseudonym(self, kind: str, name: str) -> str:
        """Return a name that means nothing to anybody else."""
        return b64url.encode(hmac.digest(self.secret, f"{kind}\0{name}".encode(), hashlib.sha256)[:15])


class TurnedAway(Exception):
    """The building's intake does not take the request; the text is for a person."""


@dataclass(frozen=True, slots=True)
class Intake:
    """Where the cloud calls a building. Without TLS: it is on this machine."""

    host: str
    port: int
    key: str = field(repr=False)
    """The intake key."""

    def challenge(self, door: str) -> tuple[str, int]:
        """Return a fresh challenge of a door, and for how many seconds it is good. Raises TurnedAway."""
        answer = self._ask(door, "challenge", {})
        return answer["non"], answer["ttl"]

    def present(self, door: str, text: str) -> dict[str, Any]:
        """Present a token at a door and return the building's answer. Raises TurnedAway."""
        return self._ask(door, "unlock", {"token": text})

    def _ask(self, door: str, verb: str, message: Mapping[str, str]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request("POST", f"/api/vestibule/doors/{door}/{verb}", json.dumps(message), headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise TurnedAway(f"The building's intake answered {response.status} {response.reason}.")
        answer: dict[str, Any] = json.loads(body)
        return answer


@dataclass(frozen=True)
class Impostor(SigningKey):
    """A key that claims to be another: what somebody has who wants to be taken for the carrier."""

    claimed: str = ""

    @property
    def kid(self) -> str:
        """The name of the key that it is not."""
        return self.claimed


def _verifies(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
