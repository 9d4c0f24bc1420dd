"""The words that every part of Vestibule shares: doors, codes, decisions and events.

Only types. Nothing here reads a clock, touches a disk or knows Home Assistant. Text from outside becomes
one of these types once, at the edge, and cannot be wrong afterwards.
"""

from __future__ import annotations

import base64
import re
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

DoorId = NewType("DoorId", str)
"""``door:`` and 26 lower-case base32 characters holding 128 random bits (protocol A.1, ``aud``)."""

Issuer = NewType("Issuer", str)
"""A carrier's cloud as it names itself in ``iss``: URL-like, at most 64 characters (protocol A.1)."""

# 26 characters hold 130 bits; the last one has two spare bits, which must be zero, so that a door has one spelling.
_DOOR_ID = re.compile(r"door:[a-z2-7]{25}[aeimquy4]")
_ISSUER = re.compile(r"https://[A-Za-z0-9._~:/-]{1,56}")


def door_id(text: str) -> DoorId:
    """Return ``text`` as a door's id; raise ValueError if it is not one."""
    if not _DOOR_ID.fullmatch(text):
        raise ValueError("not a door id")
    return DoorId(text)


def new_door_id(random: bytes) -> DoorId:
    """Return the id that 16 random bytes make."""
    return door_id("door:" + base64.b32encode(random).decode().rstrip("=").lower())


def issuer(text: str) -> Issuer:
    """Return ``text`` as an issuer; raise ValueError if it is not one."""
    if not _ISSUER.fullmatch(text):
        raise ValueError("not an issuer")
    return Issuer(text)


@dataclass(frozen=True, slots=True)
class Now:
    """One reading of the clocks, in seconds; a decision reads once and passes it down.

    ``boot`` counts while the machine sleeps and is never set: durations and deadlines use it. ``wall`` is for the
    line in the journal only.
    """

    wall: float
    boot: float


# CLOCK_BOOTTIME is Linux's; elsewhere (a developer's laptop) the monotonic clock has to do, which may stop in sleep.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def read_clock() -> Now:
    """Return what the machine's clocks say."""
    return Now(wall=time.time(), boot=time.clock_gettime(_BOOT_CLOCK))


class Word(StrEnum):
    """What a presenter is told, whoever it is (protocol A.2)."""

    GRANTED = "granted"
    INVALID_TOKEN = "invalid_token"
    REFUSED = "refused"
    ALREADY_USED = "already_used"
    UNAVAILABLE = "unavailable"
    UNKNOWN_OUTCOME = "unknown_outcome"


class Code(StrEnum):
    """Why a decision came out as it did, in the order of the checks (protocol A.2)."""

    word: Word

    def __new__(cls, value: str, word: Word) -> Code:
        """Attach the outward word to the code."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.word = word
        return member

    MALFORMED = "MALFORMED", Word.INVALID_TOKEN
    BAD_HEADER = "BAD_HEADER", Word.INVALID_TOKEN
    WRONG_TYPE = "WRONG_TYPE", Word.INVALID_TOKEN
    UNKNOWN_KEY = "UNKNOWN_KEY", Word.INVALID_TOKEN
    ALG_MISMATCH = "ALG_MISMATCH", Word.INVALID_TOKEN
    BAD_SIGNATURE = "BAD_SIGNATURE", Word.INVALID_TOKEN
    BAD_CLAIMS = "BAD_CLAIMS", Word.INVALID_TOKEN
    LIFETIME_TOO_LONG = "LIFETIME_TOO_LONG", Word.INVALID_TOKEN
    WRONG_ISSUER = "WRONG_ISSUER", Word.INVALID_TOKEN
    KEY_REVOKED = "KEY_REVOKED", Word.INVALID_TOKEN
    WRONG_DOOR = "WRONG_DOOR", Word.REFUSED
    ALREADY_SPENT = "ALREADY_SPENT", Word.ALREADY_USED
    NONCE_UNKNOWN = "NONCE_UNKNOWN", Word.REFUSED
    NONCE_EXPIRED = "NONCE_EXPIRED", Word.REFUSED
    POLICY_CARRIER_DOOR = "POLICY_CARRIER_DOOR", Word.REFUSED
    POLICY_EVIDENCE = "POLICY_EVIDENCE", Word.REFUSED
    RATE_LIMITED = "RATE_LIMITED", Word.UNAVAILABLE
    STORE_FAILED = "STORE_FAILED", Word.UNAVAILABLE
    LATE = "LATE", Word.UNAVAILABLE
    STOPPING = "STOPPING", Word.UNAVAILABLE
    STRIKE_UNREACHABLE = "STRIKE_UNREACHABLE", Word.UNAVAILABLE
    STRIKE_REFUSED = "STRIKE_REFUSED", Word.UNAVAILABLE
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN", Word.UNKNOWN_OUTCOME
    GRANTED = "GRANTED", Word.GRANTED


class Limit(StrEnum):
    """Which limit of the building a confirmation was outside of; goes with POLICY_EVIDENCE."""

    METHOD = "method"
    DISTANCE = "distance"
    ACCURACY = "accuracy"
    POSITION_AGE = "position_age"
    REQUEST_AGE = "request_age"


class Means(StrEnum):
    """How an access was asked for."""

    TOKEN = "token"
    MANUAL = "manual"


class EventName(StrEnum):
    """What happened: the name of a journal leaf, of a bus event's outcome and of the event entity's type."""

    ACCESS_GRANTED = "access_granted"
    """Decided and durable; the strike is about to be told."""
    ACCESS_DENIED = "access_denied"
    """Refused; the strike was not told anything."""
    DOOR_RELEASED = "door_released"
    """The strike confirmed the release of a granted access."""
    RELEASE_FAILED = "release_failed"
    """A granted access did not move the strike."""
    OUTCOME_UNKNOWN = "outcome_unknown"
    """A granted access may or may not have moved the strike. It is never tried again."""


@dataclass(frozen=True, slots=True)
class Door:
    """A door as the building manager set it up."""

    id: DoorId
    name: str
    access_time: float
    """Seconds of release for one access. Never taken from a token (protocol A.1, ``act``)."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who presents a token, for which issuer; None: Home Assistant itself, for any carrier (A.2 step 0)."""

    issuer: Issuer | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """A person or an automation that opens by hand; ``user_id`` None is an automation."""

    user_id: str | None
    name: str | None
    is_admin: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a presented token or a wish to open by hand."""

    code: Code
    door: DoorId | None = None
    limit: Limit | None = None

    @property
    def granted(self) -> bool:
        """True only if the strike confirmed the release."""
        return self.code is Code.GRANTED


@dataclass(frozen=True, slots=True)
class AccessEvent:
    """One line of the building's history, and the only shape in which it is told.

    It holds no personal data and no part of a token. ``sequence`` is the journal's number of it; None says that the
    journal could not take it (an administrator opened by hand while the disk was full).
    """

    outcome: EventName
    code: Code
    door: DoorId | None
    means: Means
    at: float
    """Seconds since 1970, wall clock."""
    spend_id: bytes
    """16 bytes that tie a decision to its outcome (protocol B.2)."""
    kid: str | None = None
    issuer: Issuer | None = None
    carrier: str | None = None
    """The carrier's name as the manager wrote it."""
    has_stop: bool = False
    sequence: int | None = None
    origin: object = None
    """What the host gave along with the request (Home Assistant: the Context), handed back untouched."""
