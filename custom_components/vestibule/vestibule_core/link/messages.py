"""The link's frames, and the two texts that a controller signs on it (protocol G). Both ends write and read them here.

Either end reads only what the other may say. A hello answers the cloud's own number, so that a recorded one is worth
nothing; a challenge is the controller's word that the door asked for it, and the cloud signs no token for any other.
What this file refuses to do: believe a key that a text brings along (``claimed_controller`` says so), or say which
check failed: everything that is wrong is one Violation, and the link is closed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date
from enum import IntEnum
from typing import Any, Final

from .. import b64url, jws
from ..errors import MalformedMessage, Refused, Violation
from ..keyset import CONTROLLER, DAY, ISSUER, MAX_TEXT
from ..model import Code, DoorId, Issuer, Word, door_id
from ..note import SignerKey, VerifierKey
from ..strict import (
    Message,
    Shape,
    choice,
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
from ..token import MAX_LENGTH

HELLO_TYPE: Final = "door-link+jwt"
CHALLENGE_TYPE: Final = "door-challenge+jwt"
MAX_FRAME: Final = 8 * 1024
"""Bytes."""
MAX_DOORS: Final = 24
MAX_TTL: Final = 60
"""Seconds."""
MOST_OPEN: Final = 20
"""Questions of the cloud that are open at a time."""


class Close(IntEnum):
    """Why the cloud ends a link: WebSocket close codes (RFC 6455, 7.4.2)."""

    GOING_AWAY = 4000
    """It restarts, or has published no keys yet: come back."""
    TAKEN_OVER = 4001
    """Another connection of this controller has begun: come back slowly, it may be a copy of this installation."""
    NOT_ENROLLED = 4003
    """The hello is not of a controller that it knows, or the controller was removed."""
    CODE_UNUSABLE = 4004
    """The enrolment code is unknown, used by another controller, or too old."""
    VIOLATION = 4005
    """Something was said that the protocol does not allow."""


@dataclass(frozen=True, slots=True)
class LinkedDoor:
    """A door as its carrier's cloud hears of it. The position is degrees, or None: then no driver can be beside it."""

    id: DoorId
    name: str
    zone: str
    """Of the IANA database."""
    lat: float | None = None
    lon: float | None = None


@dataclass(frozen=True, slots=True)
class Hello:
    """Who is at the controller's end, and what it has."""

    controller: VerifierKey
    issuer: Issuer
    nonce: bytes
    """The cloud's number, 16 bytes: of this connection."""
    instance: bytes
    """16 bytes that are new with each start of the controller."""
    doors: tuple[LinkedDoor, ...]
    key_set: int
    """Version of the newest one it has; 0: none."""
    checkpoint: str | None
    """The journal's, a signed note."""


@dataclass(frozen=True, slots=True)
class SignedChallenge:
    """A door's challenge, under its controller's signature."""

    controller: VerifierKey
    door: DoorId
    issuer: Issuer
    nonce: str
    ttl: int
    """Seconds for which it can be answered."""


# ---- what the cloud says ----


@dataclass(frozen=True, slots=True)
class Begin:
    """The first frame: the number that the hello has to answer, and whose cloud this says that it is.

    Issuer and name are the cloud's own word until a key set under the pinned root names the issuer.
    """

    nonce: bytes
    issuer: Issuer
    name: str


@dataclass(frozen=True, slots=True)
class AskChallenge:
    """A challenge is asked for."""

    id: int
    door: DoorId


@dataclass(frozen=True, slots=True)
class Unlock:
    """A token is presented."""

    id: int
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keys:
    """A key set, and the raw root key that signed it: the building knows that one by its fingerprint only."""

    root: bytes
    set: str


@dataclass(frozen=True, slots=True)
class IssuedPart:
    """A part of the daily list."""

    list: str


@dataclass(frozen=True, slots=True)
class Ping:
    """Is anybody there?"""


type FromCloud = Begin | AskChallenge | Unlock | Keys | IssuedPart | Ping


# ---- what the controller says ----


@dataclass(frozen=True, slots=True)
class Greeting:
    """The signed hello; with the code's secret if the building is to be enrolled by it."""

    jwt: str
    secret: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Challenge:
    """The signed challenge that was asked for."""

    id: int
    jwt: str


@dataclass(frozen=True, slots=True)
class NoChallenge:
    """No challenge is given."""

    id: int
    word: Word


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a token that was presented."""

    id: int
    word: Word
    code: Code | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Unasked: a token of this issuer was accepted, whichever way it came. The cloud alarms on one it never issued."""

    jti: bytes
    door: DoorId
    code: Code


@dataclass(frozen=True, slots=True)
class AskList:
    """A day's list is asked for once more."""

    day: date
    """UTC."""


@dataclass(frozen=True, slots=True)
class Pong:
    """Somebody is there."""


type FromController = Greeting | Challenge | NoChallenge | Outcome | Accepted | AskList | Pong


# ---- the signed texts ----


class TooLong(ValueError):
    """What is to be signed does not fit into a frame."""


def write_hello(key: SignerKey, hello: Hello) -> str:
    """Return the signed hello; raise ValueError if no cloud would read it."""
    return _written(key, HELLO_TYPE, _HELLO, hello)


def read_hello(said: object, controller: VerifierKey, issuer: Issuer, nonce: bytes) -> Hello:
    """Return the hello of an enrolled controller to this issuer, that answers this connection's number.

    Raises Violation.
    """
    hello = _read(said, HELLO_TYPE, _HELLO, controller)
    if (hello.controller, hello.issuer, hello.nonce) != (controller, issuer, nonce):
        raise Violation("a hello that is not this controller's, or not for this connection")
    return hello


def claimed_controller(said: object) -> VerifierKey:
    """Return the controller that a hello says it is from, **unverified**: to look it up, or to enrol it by a secret.

    Raises Violation.
    """
    try:
        return _HELLO.read(read_json(jws.claimed(said, MAX_TEXT)[1])).controller
    except (Refused, MalformedMessage) as err:
        raise Violation("not a hello") from err


def write_challenge(key: SignerKey, challenge: SignedChallenge) -> str:
    """Return the signed challenge; raise ValueError if no cloud would read it."""
    return _written(key, CHALLENGE_TYPE, _CHALLENGE, challenge)


def read_challenge(said: object, controller: VerifierKey, issuer: Issuer, door: DoorId) -> SignedChallenge:
    """Return the challenge of this door, given to this issuer by its controller; raise Violation."""
    challenge = _read(said, CHALLENGE_TYPE, _CHALLENGE, controller)
    if (challenge.controller, challenge.issuer, challenge.door) != (controller, issuer, door):
        raise Violation("a challenge that is not this door's, or not for this issuer")
    return challenge


@dataclass(frozen=True, slots=True)
class _Identity:
    """A controller's identity as it signs here. What a JWS signs never ends with a newline, so it is no note's text."""

    key: SignerKey

    @property
    def kid(self) -> str:
        return jws.key_id(self.key.verifier.public)

    def sign(self, message: bytes, /) -> bytes:
        return self.key.sign_bytes(message)


def _written[T](key: SignerKey, typ: str, shape: Shape[T], value: T) -> str:
    written = shape.write(value)
    try:
        shape.read(written)
    except MalformedMessage as err:
        raise ValueError(f"cannot be signed: {err}") from err
    said = jws.sign(_Identity(key), typ, json.dumps(written, separators=(",", ":")).encode())
    if len(said) > MAX_TEXT:
        raise TooLong("too long to be sent: leave out doors")
    return said


def _read[T](said: object, typ: str, shape: Shape[T], controller: VerifierKey) -> T:
    try:
        return shape.read(read_json(jws.verify(said, typ, controller.public, MAX_TEXT)))
    except (Refused, MalformedMessage) as err:
        raise Violation("not signed by this controller, or of another form") from err


def _nonce(said: str) -> str:
    if len(b64url.decode(said.encode())) != 16 or said.encode().strip(b64url.ALPHABET):
        raise ValueError("not a challenge")
    return said


_ID: Final = integer(0, 2**31 - 1)
_DOOR: Final = parsed(door_id)
_SIXTEEN: Final = raw(16)
_SIGNED: Final = text(MAX_TEXT, 1)

_LINKED_DOOR: Final = record(
    LinkedDoor,
    {
        "id": _DOOR,
        "name": text(60, 1),
        "zone": text(60, 1),
        "lat": if_known(number(-90, 90)),
        "lon": if_known(number(-180, 180)),
    },
)
_HELLO: Final = record(
    Hello,
    {
        "ctl": ("controller", CONTROLLER),
        "aud": ("issuer", ISSUER),
        "n": ("nonce", _SIXTEEN),
        "inst": ("instance", _SIXTEEN),
        "doors": listed(_LINKED_DOOR, MAX_DOORS),
        "keyset_ver": ("key_set", integer(0, 2**53 - 1)),
        "ckpt": ("checkpoint", optional(text(1000, 1))),
    },
)
_CHALLENGE: Final = record(
    SignedChallenge,
    {
        "ctl": ("controller", CONTROLLER),
        "door": _DOOR,
        "iss": ("issuer", ISSUER),
        "non": ("nonce", parsed(_nonce)),
        "ttl": integer(1, MAX_TTL),
    },
)


# ---- the frames ----


def _row(tag: str, kind: type[Any], members: dict[str, Any]) -> tuple[str, type[Any], Shape[Any]]:
    return tag, kind, record(kind, members, tag=tag)


FROM_CLOUD: Final = Message[FromCloud](
    one_of(
        _row("nonce", Begin, {"n": ("nonce", _SIXTEEN), "iss": ("issuer", ISSUER), "name": text(60, 1)}),
        _row("challenge", AskChallenge, {"id": _ID, "door": _DOOR}),
        _row("unlock", Unlock, {"id": _ID, "token": text(MAX_LENGTH, 1)}),
        _row("keys", Keys, {"root": raw(32), "set": _SIGNED}),
        _row("issued", IssuedPart, {"list": _SIGNED}),
        _row("ping", Ping, {}),
    ),
    MAX_FRAME,
)
"""The controller decodes it (MalformedMessage: the link is closed), the cloud encodes it."""

FROM_CONTROLLER: Final = Message[FromController](
    one_of(
        _row("hello", Greeting, {"jwt": _SIGNED, "secret": if_known(_SIXTEEN)}),
        _row("challenge", Challenge, {"id": _ID, "jwt": _SIGNED}),
        _row("refused", NoChallenge, {"id": _ID, "word": choice(Word)}),
        _row("outcome", Outcome, {"id": _ID, "word": choice(Word), "code": if_known(choice(Code))}),
        _row("accepted", Accepted, {"jti": _SIXTEEN, "door": _DOOR, "code": choice(Code)}),
        _row("list", AskList, {"day": DAY}),
        _row("pong", Pong, {}),
    ),
    MAX_FRAME,
)
"""The cloud decodes it (MalformedMessage: the link is closed), the controller encodes it."""
