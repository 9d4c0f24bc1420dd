"""The gateway's bodies and frames, each as one constant that encodes and decodes it (protocol C).

``DOORS.encode(doors)`` gives the bytes that ``DOORS.decode`` reads. What this file refuses to do: take a body with a
member that it does not know, or say anything about a person but the name of who opened a door last.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NewType, Self

from ..b64url import decode as b64url_decode
from ..door import Alarm, DoorState, Lock, Opener
from ..errors import MalformedMessage
from ..leaf import LATEST
from ..model import (
    AccessEvent,
    Actor,
    Checks,
    Code,
    Decision,
    Door,
    DoorMode,
    EventName,
    Issuer,
    Limit,
    ManualRule,
    Means,
    OnPowerLoss,
    RelockOn,
    Sense,
    Sensor,
    Word,
)
from ..note import NoteError, VerifierKey, open_note
from ..proof import EntryProof
from ..reconcile import Alarm as ReconcileAlarm
from ..strict import (
    ANY_TEXT,
    FLAG,
    MAX_INTEGER,
    Message,
    Shape,
    choice,
    collected,
    hexadecimal,
    if_known,
    integer,
    listed,
    number,
    one_of,
    optional,
    parsed,
    raw,
    read_json,
    record,
    text,
)
from ..strike import Capabilities
from ..token import DriverProof
from ..wire import MAX_REQUEST
from ..witness import MAX_GROWN, Grown
from .policy import DOOR_ID, ISSUER, MAX_POLICY, POLICY, Policy

MAX_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of an answer or of a frame that are looked at."""
MAX_WITNESS: Final = 32 * 1024
"""Bytes of what is said of a journal's growth."""
MAX_EVENTS: Final = 500
"""Events in one answer."""
MAX_DOORS: Final = 1024
MAX_ALARMS: Final = 64
MAX_CLIENTS: Final = 64
"""So many of the longest names still fit into the answer to pairing."""

GatewayId = NewType("GatewayId", str)
"""26 lower-case base32 characters that hold 128 random bits."""
ClientId = NewType("ClientId", str)
"""16 lower-case hexadecimal digits."""
Bearer = NewType("Bearer", str)
"""What a client shows that it is itself: 32 random bytes in base64url. A key: it is never shown or logged."""

_GATEWAY_ID: Final = re.compile(r"[a-z2-7]{25}[aeimquy4]")  # two spare bits, as in a door's id
_CLIENT_ID: Final = re.compile(r"[0-9a-f]{16}")
_BEARER: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def gateway_id(text: str) -> GatewayId:
    """Return ``text`` as a gateway's id; raise ValueError if it is not one."""
    if not _GATEWAY_ID.fullmatch(text):
        raise ValueError("not a gateway's id")
    return GatewayId(text)


def new_gateway_id(random: bytes) -> GatewayId:
    """Return the id that 16 random bytes make."""
    return gateway_id(base64.b32encode(random).decode().rstrip("=").lower())


def client_id(text: str) -> ClientId:
    """Return ``text`` as a client's id; raise ValueError if it is not one."""
    if not _CLIENT_ID.fullmatch(text):
        raise ValueError("not a client's id")
    return ClientId(text)


def bearer(text: str) -> Bearer:
    """Return ``text`` as a bearer; raise ValueError if it is not one."""
    if not _BEARER.fullmatch(text):
        raise ValueError("not a bearer")
    b64url_decode(text.encode())
    return Bearer(text)


def client_name(text: str) -> str:
    """Return ``text`` as a client's name: 1 to 64 characters that can be shown; raise ValueError if it is not one."""
    if not (0 < len(text) <= 64 and text.isprintable()):
        raise ValueError("not a name that can be shown")
    return text


# ---- words ----


class Scope(StrEnum):
    """What a client may do; none of them implies another."""

    READ = "read"
    PRESENT = "present"
    """Ask for challenges and present tokens, for its issuers."""
    OPERATE = "operate"
    """Open by hand, set modes, lock down."""
    ADMIN = "admin"
    """Set the policy and what clients may do."""


class Operation(StrEnum):
    """What somebody does at a door by hand."""

    ACCESS = "access"
    HOLD = "hold"
    RELOCK = "relock"
    """Back to normal: end what is held open or blocked."""
    BLOCK = "block"
    DELIVERIES_ON = "deliveries_on"
    DELIVERIES_OFF = "deliveries_off"
    CLEAR_TAMPER = "clear_tamper"


class Confirmed(StrEnum):
    """What an administrator has looked at."""

    CLOCK = "clock"
    RESTORED = "restored"
    JOURNAL = "journal"
    """What a witness holds that is not in the journal: it goes on as a new epoch."""


class ErrorWord(StrEnum):
    """Why a request is turned away: all that is said of it."""

    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    TIMEOUT = "timeout"
    CONFLICT = "conflict"
    """The policy is another version than was thought."""
    LAST_ADMIN = "last_admin"
    TOO_LARGE = "too_large"
    TOO_MANY_REQUESTS = "too_many_requests"
    UNAVAILABLE = "unavailable"
    STORE_FAILED = "store_failed"


_NAME: Final = text(200)
_REF: Final = text(64)
_COUNT: Final = integer()
_SECONDS: Final = number(0, 86_400 * 366)
_CLIENT_NAME: Final = parsed(client_name)
_SCOPES: Final = collected(choice(Scope), len(Scope))
_ISSUERS: Final = optional(collected(ISSUER, 256))


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request was turned away; ``version`` is the policy's, of a conflict."""

    error: str
    version: int | None = None


FAILURE: Final = Message(record(Failure, {"error": text(64), "version": if_known(_COUNT)}), MAX_REQUEST)


# ---- who is there, and pairing ----


@dataclass(frozen=True, slots=True)
class Info:
    """What a gateway tells a stranger."""

    id: GatewayId
    version: str
    pair_nonce: bytes | None = None
    """16 bytes; None: it is not to be paired now."""

    @property
    def pair(self) -> bool:
        """Whether it is to be paired now."""
        return self.pair_nonce is not None


PAIR_NONCE_SIZE: Final = 16


def _info(id: str, version: str, pair: bool, pair_nonce: bytes | None) -> Info:  # noqa: A002
    if pair is (pair_nonce is None):
        raise MalformedMessage("pair: there has to be a nonce just then")
    return Info(GatewayId(id), version, pair_nonce)


INFO: Final = Message(
    record(
        _info,
        {
            "id": parsed(gateway_id),
            "version": text(64),
            "pair": FLAG,
            "pair_nonce": if_known(raw(PAIR_NONCE_SIZE)),
        },
    ),
    MAX_REQUEST,
)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another client, as one that pairs is told of it."""

    id: ClientId
    name: str
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class Admission:
    """What a client gets when it is paired."""

    token: Bearer = field(repr=False)
    client_id: ClientId
    gateway_key: VerifierKey
    """Signs the gateway's journal and its next certificate."""
    name: str
    """The gateway's."""
    scopes: frozenset[Scope]
    trusted: bool
    """What this client asks for in the policy holds at once, also if it is more."""
    clients: tuple[Peer, ...]
    """All others."""


ADMISSION: Final = Message(
    record(
        Admission,
        {
            "token": parsed(bearer),
            "client_id": parsed(client_id),
            "gateway_key": parsed(VerifierKey.parse),
            "name": _NAME,
            "scopes": _SCOPES,
            "trusted": FLAG,
            "clients": listed(
                record(Peer, {"id": parsed(client_id), "name": _CLIENT_NAME, "scopes": _SCOPES}), MAX_CLIENTS
            ),
        },
    ),
    64 * 1024,
)


@dataclass(frozen=True, slots=True)
class Client:
    """A paired program."""

    id: ClientId
    name: str
    scopes: frozenset[Scope]
    issuers: frozenset[Issuer] | None
    """Whose tokens it may present; None: everybody's."""


CLIENT: Final = record(Client, {"id": parsed(client_id), "name": _CLIENT_NAME, "scopes": _SCOPES, "issuers": _ISSUERS})


@dataclass(frozen=True, slots=True)
class Clients:
    """All paired programs."""

    clients: tuple[Client, ...]


CLIENTS: Final = Message(record(Clients, {"clients": listed(CLIENT, MAX_CLIENTS)}), MAX_ANSWER)


@dataclass(frozen=True, slots=True)
class ClientChange:
    """What a client may do from now on."""

    scopes: frozenset[Scope]
    issuers: frozenset[Issuer] | None


CLIENT_CHANGE: Final = Message(record(ClientChange, {"scopes": _SCOPES, "issuers": _ISSUERS}), MAX_REQUEST)


@dataclass(frozen=True, slots=True)
class ClientTaken:
    """The change was taken; ``pending``: what is more than before waits for the button, or for so many seconds."""

    pending: bool
    seconds_left: int | None


CLIENT_TAKEN: Final = Message(record(ClientTaken, {"pending": FLAG, "seconds_left": optional(_COUNT)}), MAX_REQUEST)


# ---- doors ----


@dataclass(frozen=True, slots=True)
class DoorDescription:
    """A door as its gateway describes it. Its hours are the gateway's own business, and are not told."""

    door: Door
    model: str
    """Of its strike or relay board, for people."""
    strike: Capabilities
    reachable: bool
    """Whether its strike would hear a command, as far as is known."""
    state: DoorState
    """What of it can be seen from outside: no deadlines."""


_SENSE: Final = choice(Sense)
STATE: Final = record(
    DoorState,
    {
        "lock": choice(Lock),
        "releasing": FLAG,
        "unanswered": FLAG,
        "released": FLAG,
        "securing": FLAG,
        "mode": choice(DoorMode),
        "deliveries": ("accepts_deliveries", FLAG),
        "tampered": FLAG,
        "contact": _SENSE,
        "rex": _SENSE,
        "tamper": _SENSE,
        "lock_monitor": _SENSE,
        "alarm": choice(Alarm),
        "by": optional(record(Opener, {"name": _NAME, "user_id": optional(text(64))})),
    },
)


def _door(
    *,
    model: str,
    device_timed: bool,
    feedback: bool,
    can_hold: bool,
    can_secure: bool,
    reachable: bool,
    state: DoorState,
    **door: Any,
) -> DoorDescription:
    strike = Capabilities(device_timed=device_timed, feedback=feedback, can_hold=can_hold, can_secure=can_secure)
    return DoorDescription(Door(**door), model, strike, reachable, state)


DOOR: Final = record(
    _door,
    {
        "id": ("door.id", DOOR_ID),
        "name": ("door.name", _NAME),
        "access_time": ("door.access_time", _SECONDS),
        "sensors": ("door.sensors", collected(choice(Sensor), len(Sensor))),
        "held_open_time": ("door.held_open_time", optional(_SECONDS)),
        "pre_alarm_time": ("door.pre_alarm_time", _SECONDS),
        "relock": ("door.relock", choice(RelockOn)),
        "on_power_loss": ("door.on_power_loss", choice(OnPowerLoss)),
        "manual": ("door.manual", choice(ManualRule)),
        "model": _NAME,
        "device_timed": ("strike.device_timed", FLAG),
        "feedback": ("strike.feedback", FLAG),
        "can_hold": ("strike.can_hold", FLAG),
        "can_secure": ("strike.can_secure", FLAG),
        "reachable": FLAG,
        "state": STATE,
    },
)
_DOORS: Final = listed(DOOR, MAX_DOORS)


class LinkAlarm(StrEnum):
    """What somebody has to know of a gateway's link to a carrier's cloud."""

    NO_LINK = "no_link"
    """The cloud does not accept the gateway, or no link has lasted for long (``standing.told``)."""
    TAKEN_OVER = "taken_over"
    """Something else was connected as this gateway within the last hour."""
    KEYS_REFUSED = "keys_refused"
    KEYS_END = "keys_end"
    """The keys of the carrier end within days, or have ended."""


@dataclass(frozen=True, slots=True)
class CarrierAlarm:
    """What somebody has to know of a carrier whose cloud the gateway has a link to."""

    issuer: Issuer
    alarm: ReconcileAlarm | LinkAlarm


def _alarm(word: str) -> ReconcileAlarm | LinkAlarm:
    return ReconcileAlarm(word) if word in ReconcileAlarm else LinkAlarm(word)


_ALARM: Final = parsed(_alarm, lambda alarm: alarm.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the gateway as a whole is."""

    lockdown: bool
    newest: int
    """Sequence number of the newest event."""
    restored: bool
    """Its journal was restored from a backup, and nobody has confirmed that."""
    clock_trusted: bool
    journal_failed: bool
    disputed: bool
    """Its journal does not go on from what somebody holds of it, and nobody has confirmed that."""
    alarms: tuple[CarrierAlarm, ...] = ()


_STANDING: Final[dict[str, Shape[Any]]] = {
    "lockdown": FLAG,
    "newest": _COUNT,
    "restored": FLAG,
    "clock_trusted": FLAG,
    "journal_failed": FLAG,
    "disputed": FLAG,
    "alarms": listed(record(CarrierAlarm, {"iss": ("issuer", ISSUER), "alarm": _ALARM}), MAX_ALARMS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors(Standing):
    """All doors, and the gateway as a whole."""

    doors: tuple[DoorDescription, ...]


DOORS: Final = Message(record(Doors, {"doors": _DOORS, **_STANDING}), MAX_ANSWER)


# ---- tokens ----


@dataclass(frozen=True, slots=True)
class ChallengeRequest:
    """Who will sign for the challenge."""

    issuer: Issuer


CHALLENGE_REQUEST: Final = Message(record(ChallengeRequest, {"iss": ("issuer", ISSUER)}), MAX_REQUEST)


@dataclass(frozen=True, slots=True)
class ChallengeAnswer:
    """A live challenge, as ``wire.challenge_answer`` writes it; ``ttl`` in seconds."""

    nonce: str
    ttl: int


CHALLENGE_ANSWER: Final = Message(
    record(ChallengeAnswer, {"non": ("nonce", text(64)), "ttl": integer(0, 3600)}), MAX_REQUEST
)


@dataclass(frozen=True, slots=True)
class UnlockRequest:
    """A token that is presented, and for which issuer if that is not plain."""

    token: str = field(repr=False)
    issuer: Issuer | None = None


UNLOCK_REQUEST: Final = Message(
    record(UnlockRequest, {"token": ANY_TEXT, "iss": ("issuer", if_known(ISSUER))}), MAX_REQUEST
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a presenter hears of a decision, as ``wire.decision_answer`` writes it."""

    word: Word
    code: str | None
    """Why, as far as that is told (``Code.told``)."""
    limit: Limit | None = None

    @classmethod
    def of(cls, decision: Decision) -> Self:
        """Return what is told of a decision."""
        return cls(decision.code.word, decision.code.told, decision.limit)


ANSWER: Final = Message(
    record(Answer, {"word": choice(Word), "code": optional(text(64)), "limit": if_known(choice(Limit))}), MAX_REQUEST
)


# ---- by hand ----


_ACTOR: Final = record(Actor, {"user_id": optional(text(64)), "name": optional(_NAME), "admin": ("is_admin", FLAG)})


@dataclass(frozen=True, slots=True)
class Operate:
    """Somebody does something at a door by hand."""

    do: Operation
    actor: Actor
    ref: str | None
    """Comes back in this client's own live events."""


OPERATE: Final = Message(
    record(Operate, {"do": choice(Operation), "actor": _ACTOR, "ref": optional(_REF)}), MAX_REQUEST
)


@dataclass(frozen=True, slots=True)
class Lockdown:
    """Somebody locks all doors down, or lifts that."""

    on: bool
    actor: Actor
    ref: str | None


LOCKDOWN: Final = Message(record(Lockdown, {"on": FLAG, "actor": _ACTOR, "ref": optional(_REF)}), MAX_REQUEST)


@dataclass(frozen=True, slots=True)
class Confirm:
    """Somebody has looked at something."""

    what: Confirmed
    actor: Actor
    ref: str | None


CONFIRM: Final = Message(
    record(Confirm, {"what": choice(Confirmed), "actor": _ACTOR, "ref": optional(_REF)}), MAX_REQUEST
)


@dataclass(frozen=True, slots=True)
class Done:
    """What came of something that was done by hand, exactly."""

    code: Code


DONE: Final = Message(record(Done, {"code": choice(Code)}), MAX_REQUEST)


# ---- witnesses ----


@dataclass(frozen=True, slots=True)
class Witnessed:
    """How the gateway's journal has grown, and what the gateway holds of the client's."""

    grown: Grown | None
    """None: it has no entry."""
    held: str | None
    """The client's newest checkpoint that the gateway has cosigned; None: it has seen none."""


WITNESSED: Final = Message(
    record(Witnessed, {"grown": optional(parsed(Grown.parse)), "held": optional(text(MAX_GROWN))}), MAX_WITNESS
)


@dataclass(frozen=True, slots=True)
class Shown:
    """How the client's own journal has grown."""

    key: VerifierKey
    """What its checkpoints are verified by, under the name of its first epoch."""
    grown: Grown
    epoch: EntryProof | None
    """The proof of the first entry of its epoch; None: it is in its first."""


SHOWN: Final = Message(
    record(
        Shown,
        {
            "key": parsed(VerifierKey.parse),
            "grown": parsed(Grown.parse),
            "epoch": optional(parsed(EntryProof.parse)),
        },
    ),
    MAX_WITNESS,
)


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint: one that a witness has added its line to, or one that it holds."""

    note: str


SIGNED: Final = Message(record(Signed, {"note": text(MAX_GROWN)}), MAX_WITNESS)


@dataclass(frozen=True, slots=True)
class Disputed:
    """Whether the gateway's journal does not go on from what a client holds of it."""

    disputed: bool


DISPUTED: Final = Message(record(Disputed, {"disputed": FLAG}), MAX_REQUEST)


# ---- the policy ----


@dataclass(frozen=True, slots=True)
class PendingPolicy:
    """A policy that allows more than the one in force, and waits."""

    policy: Policy
    seconds_left: int
    why: tuple[str, ...]
    """What waits, for people."""


@dataclass(frozen=True, slots=True)
class PolicyView:
    """The policy in force, and the one that waits."""

    version: int
    policy: Policy
    pending: PendingPolicy | None
    trusted: bool


POLICY_VIEW: Final = Message(
    record(
        PolicyView,
        {
            "version": _COUNT,
            "policy": POLICY,
            "pending": optional(
                record(
                    PendingPolicy,
                    {"policy": POLICY, "seconds_left": _COUNT, "why": listed(text(1000), 10_000)},
                )
            ),
            "trusted": FLAG,
        },
    ),
    MAX_ANSWER,
)


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """A new policy, in place of version ``base``."""

    base: int
    version: int
    policy: Policy


POLICY_REQUEST: Final = Message(
    record(PolicyRequest, {"base": _COUNT, "version": _COUNT, "policy": POLICY}), MAX_POLICY
)


@dataclass(frozen=True, slots=True)
class PolicyTaken:
    """The policy was taken; ``pending``: what is more than before waits for the button, or for so many seconds."""

    version: int
    pending: bool
    seconds_left: int | None


POLICY_TAKEN: Final = Message(
    record(PolicyTaken, {"version": _COUNT, "pending": FLAG, "seconds_left": optional(_COUNT)}), MAX_REQUEST
)


# ---- what happened ----


def _ref(event: AccessEvent) -> str | None:
    return event.origin if isinstance(event.origin, str) else None


def _event(ref: str | None, **rest: Any) -> AccessEvent:
    return AccessEvent(**rest, origin=ref)


_CHECKS: Final = record(
    Checks,
    {
        "driver": parsed(lambda spelt: DriverProof(spelt).value),
        "distance": _COUNT,
        "accuracy": _COUNT,
        "position_age": _COUNT,
        "request_age": integer(-MAX_INTEGER),
    },
)
EVENT: Final = record(
    _event,
    {
        "seq": ("sequence", optional(integer(1))),
        "at": number(0, LATEST + 1),
        "outcome": choice(EventName),
        "door": optional(DOOR_ID),
        "code": optional(choice(Code)),
        "means": optional(choice(Means)),
        "kid": optional(text(64)),
        "issuer": optional(ISSUER),
        "carrier": optional(_NAME),
        "stop": ("has_stop", FLAG),
        "checks": if_known(_CHECKS),
        "count": optional(_COUNT),
        "slot": optional(integer(0, 255)),
        "spend_id": optional(hexadecimal(16)),
        "ref": (_ref, if_known(_REF)),
    },
)
"""An event. Its ``origin`` is told if it is a text: the ``ref`` of the client that is meant."""


@dataclass(frozen=True, slots=True)
class Events:
    """Events in order, and the sequence number of the newest one there is."""

    events: tuple[AccessEvent, ...]
    newest: int


EVENTS: Final = Message(record(Events, {"events": listed(EVENT, MAX_EVENTS), "newest": _COUNT}), MAX_ANSWER)


# ---- the stream ----


@dataclass(frozen=True, slots=True)
class PolicyMark:
    """Which policy is in force, and whether another one waits."""

    version: int
    pending: bool


@dataclass(frozen=True, slots=True)
class NextCertificate:
    """The certificate that the gateway will use after this one."""

    fingerprint: bytes
    """SHA-256 of it in DER."""
    note: str
    """By the gateway's identity, over ``next_certificate_text``."""

    def is_announced_by(self, gateway: GatewayId, key: VerifierKey) -> bool:
        """Return whether it is this gateway's word: signed with the key that it had when it was paired."""
        try:
            return open_note(self.note, (key,)) == next_certificate_text(gateway, self.fingerprint)
        except NoteError:
            return False


def next_certificate_text(gateway: GatewayId, fingerprint: bytes) -> str:
    """Return what a gateway signs to announce its next certificate."""
    return f"vestibule gateway certificate\n{gateway}\n{fingerprint.hex()}\n"


_POLICY_MARK: Final = record(PolicyMark, {"version": _COUNT, "pending": FLAG})
_NEXT: Final = record(NextCertificate, {"fp": ("fingerprint", hexadecimal(32)), "note": text(4096)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Doors):
    """The first frame."""

    id: GatewayId
    name: str
    version: str
    policy: PolicyMark
    next: NextCertificate | None


@dataclass(frozen=True, slots=True)
class Happened:
    """An event, in order."""

    event: AccessEvent


@dataclass(frozen=True, slots=True)
class DoorChanged:
    """A door is as it was not before; the latest one counts."""

    door: DoorDescription


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildingChanged(Standing):
    """The gateway as a whole is as it was not before."""

    policy: PolicyMark
    next: NextCertificate | None


@dataclass(frozen=True, slots=True)
class DoorsChanged:
    """There are other doors than before."""

    doors: tuple[DoorDescription, ...]


@dataclass(frozen=True, slots=True)
class Newer:
    """An event in words that only a newer version knows; it has its place in the order all the same."""

    sequence: int


type Frame = Hello | Happened | Newer | DoorChanged | BuildingChanged | DoorsChanged

_HELLO: Final = record(
    Hello,
    {
        "id": parsed(gateway_id),
        "name": _NAME,
        "version": text(64),
        "policy": _POLICY_MARK,
        "next": optional(_NEXT),
        "doors": _DOORS,
        **_STANDING,
    },
    tag="hello",
)
FRAME: Final[Message[Frame]] = Message(
    one_of(
        ("hello", Hello, _HELLO),
        ("event", Happened, record(Happened, {"event": EVENT}, tag="event")),
        ("door", DoorChanged, record(DoorChanged, {"door": DOOR}, tag="door")),
        (
            "building",
            BuildingChanged,
            record(BuildingChanged, {"policy": _POLICY_MARK, "next": optional(_NEXT), **_STANDING}, tag="building"),
        ),
        ("doors", DoorsChanged, record(DoorsChanged, {"doors": _DOORS}, tag="doors")),
    ),
    MAX_ANSWER,
)
"""Every frame of the stream, in UTF-8."""


def newer_event(body: bytes) -> Newer | None:
    """Return the event that a frame is, if all that is wrong with it is a word that this version does not know."""
    try:
        said = read_json(body)
        event = said["event"]
        sequence, code = event["seq"], event["code"]
        known = event | {"outcome": EventName.ACCESS_DENIED.value, "code": None}
        FRAME.shape.read(said | {"event": known})
    except KeyError, TypeError, MalformedMessage:
        return None
    is_new = type(event["outcome"]) is str and event["outcome"] not in EventName
    is_new |= type(code) is str and code not in Code
    return Newer(sequence) if is_new and sequence is not None else None
