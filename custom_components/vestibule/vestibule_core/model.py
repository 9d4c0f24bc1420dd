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

from .hours import WeeklyHours
from .pin import Pin

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
    NOT_SPENDER = "NOT_SPENDER", Word.REFUSED
    ALREADY_SPENT = "ALREADY_SPENT", Word.ALREADY_USED
    NONCE_UNKNOWN = "NONCE_UNKNOWN", Word.REFUSED
    NONCE_EXPIRED = "NONCE_EXPIRED", Word.REFUSED
    POLICY_CARRIER_DOOR = "POLICY_CARRIER_DOOR", Word.REFUSED
    POLICY_EVIDENCE = "POLICY_EVIDENCE", Word.REFUSED
    POLICY_HOURS = "POLICY_HOURS", Word.REFUSED
    POLICY_RATE = "POLICY_RATE", Word.REFUSED
    CLOCK_UNTRUSTED = "CLOCK_UNTRUSTED", Word.REFUSED
    LOCKDOWN = "LOCKDOWN", Word.REFUSED
    DOOR_BLOCKED = "DOOR_BLOCKED", Word.REFUSED
    DELIVERIES_OFF = "DELIVERIES_OFF", Word.REFUSED
    TAMPERED = "TAMPERED", Word.REFUSED
    JOURNAL_DISPUTED = "JOURNAL_DISPUTED", Word.REFUSED
    CARRIER_LOCKED_OUT = "CARRIER_LOCKED_OUT", Word.REFUSED
    # By hand only.
    MANUAL_NOT_ALLOWED = "MANUAL_NOT_ALLOWED", Word.REFUSED
    PIN_MISSING = "PIN_MISSING", Word.REFUSED
    PIN_WRONG = "PIN_WRONG", Word.REFUSED
    PIN_LOCKED = "PIN_LOCKED", Word.REFUSED
    MODE_NOT_POSSIBLE = "MODE_NOT_POSSIBLE", Word.REFUSED
    RATE_LIMITED = "RATE_LIMITED", Word.UNAVAILABLE
    STORE_FAILED = "STORE_FAILED", Word.UNAVAILABLE
    LATE = "LATE", Word.UNAVAILABLE
    STOPPING = "STOPPING", Word.UNAVAILABLE
    STRIKE_UNREACHABLE = "STRIKE_UNREACHABLE", Word.UNAVAILABLE
    STRIKE_REFUSED = "STRIKE_REFUSED", Word.UNAVAILABLE
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN", Word.UNKNOWN_OUTCOME
    GRANTED = "GRANTED", Word.GRANTED

    @property
    def told(self) -> str | None:
        """How this code is named to the carrier of the token (A.2): not before step 7, and why a building is shut is
        nobody's business outside of it.
        """
        if self.word is Word.INVALID_TOKEN:
            return None
        return "DOOR_UNAVAILABLE" if self in _UNAVAILABLE else self.value

    @property
    def is_charged(self) -> bool:
        """Whether it says that a text is no genuine token (steps 1 to 5): its source pays for it, nobody else does."""
        return self.word is Word.INVALID_TOKEN and self not in (Code.WRONG_ISSUER, Code.KEY_REVOKED)


_UNAVAILABLE = frozenset({Code.LOCKDOWN, Code.TAMPERED, Code.DOOR_BLOCKED, Code.JOURNAL_DISPUTED})


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
    """By a person, in Home Assistant."""
    AUTOMATION = "automation"
    """By a call that names no person."""


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
    DOOR_ALREADY_UNLOCKED = "door_already_unlocked"
    """A granted access found its door held open on purpose; the strike was not told anything."""

    ACCESS_TAKEN = "access_taken"
    """The door was opened while an access lasted."""
    ACCESS_NOT_TAKEN = "access_not_taken"
    """An access ended, and the door had stayed closed."""
    DOOR_RELOCKED = "door_relocked"
    """The strike confirmed that a release of ours is over."""
    DOOR_OPENED = "door_opened"
    """The door was opened without an access, and nothing says that it was forced."""
    DOOR_CLOSED = "door_closed"
    DOOR_HELD_OPEN_WARNING = "door_held_open_warning"
    """The door has been open for long, and will be held open if it stays so (pre-alarm)."""
    DOOR_HELD_OPEN = "door_held_open"
    DOOR_FORCED_OPEN = "door_forced_open"
    """The door was opened without an access and without a request to exit."""
    RELAY_OPERATED_ELSEWHERE = "relay_operated_elsewhere"
    """Something other than Vestibule moved the strike."""
    DOOR_TAMPERED = "door_tampered"
    TAMPER_CLEARED = "tamper_cleared"
    STRIKE_PAIRING_OPENED = "strike_pairing_opened"
    """The button of a strike was held: for two minutes another controller can be paired with it."""
    STRIKE_SLOT_ADDED = "strike_slot_added"
    """Another controller was paired with a strike."""
    STRIKE_SLOT_DELETED = "strike_slot_deleted"
    """A strike was told to forget a controller."""
    STRIKE_RIGHTS_CHANGED = "strike_rights_changed"
    """What a controller may do with a strike was changed."""
    STRIKE_FACTORY_RESET = "strike_factory_reset"
    """A strike was made to forget all of its controllers."""
    STRIKE_AUTHENTICATION_FAILED = "strike_authentication_failed"
    """Somebody tried a strike without a key that it knows."""

    DOOR_NORMAL = "door_normal"
    DOOR_UNLOCKED = "door_unlocked"
    """Held open on purpose, from now on."""
    DOOR_BLOCKED = "door_blocked"
    LOCKDOWN_ON = "lockdown_on"
    LOCKDOWN_OFF = "lockdown_off"
    DELIVERIES_ON = "deliveries_on"
    DELIVERIES_OFF = "deliveries_off"
    CLOCK_CONFIRMED = "clock_confirmed"
    """An administrator says that the clock is right, although it is earlier than it was (A.2)."""
    JOURNAL_RESTORED = "journal_restored"
    """The journal was found to be a copy: what happened after it was made is not in it."""
    RESTORE_CONFIRMED = "restore_confirmed"
    """An administrator has seen that the journal was restored."""
    KEY_CONFIRMED = "key_confirmed"
    """An administrator has confirmed that the journal goes on with a new key, for its own was missing."""
    JOURNAL_DISPUTED = "journal_disputed"
    """Somebody holds a checkpoint of the journal, signed by this controller, that the journal does not go on from."""
    EPOCH_BEGUN = "epoch_begun"
    """An administrator has looked at that: the journal goes on from what is left, under a new name (protocol D)."""
    WITNESS_REFUSED = "witness_refused"
    """A paired program's journal does not go on from what was seen of it: it was not cosigned."""
    JOURNAL_EXPORTED = "journal_exported"
    """An administrator was given a copy of the whole journal."""
    PERSON_EXPORTED = "person_exported"
    """An administrator was given all that the journal says about one person."""
    PERSON_DELETED = "person_deleted"
    """What the journal said about one person was deleted on request; what happened stays."""
    REFUSALS_COUNTED = "refusals_counted"
    """Refusals that left no entry of their own were counted for a minute (A.2)."""

    POLICY_CHANGED = "policy_changed"
    """What a gateway allows was changed: the change holds from now on (protocol C)."""
    POLICY_PENDING = "policy_pending"
    """A gateway was asked to allow more: that waits for its button, or for a day."""
    CLIENT_PAIRED = "client_paired"
    """A program was paired with a gateway."""
    CLIENT_CHANGED = "client_changed"
    """What a paired program may do at a gateway was changed."""
    CLIENT_REMOVED = "client_removed"
    """A program may do nothing at a gateway any more."""

    CARRIER_LINKED = "carrier_linked"
    """A link to a carrier's cloud was set up, with the carrier's enrolment code."""
    CARRIER_UNLINKED = "carrier_unlinked"
    """The link to a carrier's cloud was removed."""
    CARRIER_LOCKED_OUT = "carrier_locked_out"
    """Tokens were accepted that a carrier's cloud says it never issued: none of its tokens opens a door from now on."""
    CARRIER_APPROVED = "carrier_approved"
    """An administrator has looked at that, and the carrier's tokens open doors again."""


class DoorMode(StrEnum):
    """What a door does with those who want in, until told otherwise (ONVIF door control: DoorMode)."""

    NORMAL = "normal"
    """Locked; an access releases it for its time."""
    UNLOCKED = "unlocked"
    """Held open on purpose; door alarms are masked."""
    BLOCKED = "blocked"
    """Lets nobody in, by token or by hand."""
    LOCKED_DOWN = "locked_down"
    """Lets nobody in and takes no other mode until the lockdown is lifted. Never keeps anybody in: the way out is
    mechanical."""


class Sensor(StrEnum):
    """What can watch a door: each sense apart, each with *unknown* and *fault*."""

    CONTACT = "contact"
    """The door's position; active: open."""
    REX = "rex"
    """Request to exit; active: somebody on the secure side wants out."""
    TAMPER = "tamper"
    """The enclosure; active: opened."""
    LOCK_MONITOR = "lock_monitor"
    """The bolt's own position; active: not secured."""


class Sense(StrEnum):
    """What a sensor says."""

    INACTIVE = "inactive"
    ACTIVE = "active"
    UNKNOWN = "unknown"
    """It has said nothing yet, or is not there."""
    FAULT = "fault"
    """It is out of order or out of reach."""


class RelockOn(StrEnum):
    """What ends a release early. Its time always does."""

    TIMEOUT = "timeout"
    OPEN = "open"
    CLOSE = "close"


class OnPowerLoss(StrEnum):
    """What the lock hardware does without power. Declared by the manager; nothing in software can change it."""

    FAIL_SECURE = "fail_secure"
    FAIL_SAFE = "fail_safe"


class ManualRule(StrEnum):
    """Who may open a door by hand in Home Assistant. An automation counts as made by an administrator."""

    EVERYONE = "everyone"
    ADMINISTRATORS = "administrators"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Door:
    """A door as the building manager set it up."""

    id: DoorId
    name: str
    access_time: float
    """Seconds of release for one access. Never taken from a token (protocol A.1, ``act``)."""
    hours: WeeklyHours = ()
    """When deliveries are allowed; empty: always."""
    sensors: frozenset[Sensor] = frozenset()
    relock: RelockOn = RelockOn.TIMEOUT
    held_open_time: float | None = None
    """Seconds after which an open door is held open; None: never."""
    pre_alarm_time: float = 0.0
    """Seconds of warning before that; 0: none."""
    on_power_loss: OnPowerLoss = OnPowerLoss.FAIL_SECURE
    manual: ManualRule = ManualRule.EVERYONE
    pin: Pin | None = None
    """What has to be typed to open by hand; None: nothing."""


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

    @property
    def means(self) -> Means:
        """How it asks."""
        return Means.AUTOMATION if self.user_id is None else Means.MANUAL

    @property
    def is_trusted(self) -> bool:
        """Whether an administrator is behind it: only they make automations."""
        return self.is_admin or self.user_id is None


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
class Checks:
    """What a carrier's cloud says of its four confirmations, as far as it is told: no place, no pseudonym.

    That the token named a stop of a route says ``AccessEvent.has_stop``.
    """

    driver: str
    """How the driver proved who it is: a value of ``token.DriverProof``."""
    distance: int
    """Metres between the phone and the door."""
    accuracy: int
    """Metres."""
    position_age: int
    """Seconds."""
    request_age: int
    """Seconds between the driver's request and the token, both by the issuer's clock."""


@dataclass(frozen=True, slots=True)
class AccessEvent:
    """One line of the building's history, and the only shape in which it is told.

    It holds no personal data and no part of a token. ``sequence`` is the journal's number of it; None says that the
    journal could not take it (an administrator opened by hand while the disk was full).
    """

    outcome: EventName
    door: DoorId | None
    at: float
    """Seconds since 1970, wall clock."""
    code: Code | None = None
    """Of a decision and what came of it; None for what merely happened at the door."""
    means: Means | None = None
    """None: nobody asked for it."""
    spend_id: bytes | None = None
    """16 bytes that tie a decision to its outcome (protocol B.2)."""
    kid: str | None = None
    issuer: Issuer | None = None
    carrier: str | None = None
    """The carrier's name as the manager wrote it."""
    has_stop: bool = False
    checks: Checks | None = None
    """Of a decision on a token, as long as that is kept: not in the journal's leaf, but where it can be deleted."""
    sequence: int | None = None
    count: int | None = None
    """How many refusals a summary sums up, or how many attempts without a key a strike has counted; None for everything
    else."""
    slot: int | None = None
    """Which of a strike's controllers was added, deleted or given other rights; None for everything else."""
    heads: tuple[str, ...] = ()
    """Of EPOCH_BEGUN: the ends of the journal that were known of before (``epoch.Head.words``)."""
    origin: object = None
    """What the host gave along with the request (Home Assistant: the Context), handed back untouched."""
