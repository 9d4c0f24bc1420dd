"""What is inside of what: HS1, HS2 and DATA around their sealed parts, and the plaintexts that DATA carries (B.2).

The bodies of single operations are here, too. Every parser wants exact lengths and raises Violation.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Self

from .slots import MOST as MOST_SLOTS
from .wire import ALL_RIGHTS, Command, Event, Rights, State, Type, Violation, exactly

KEY_SIZE: Final = 32
TAG_SIZE: Final = 16
RAND_SIZE: Final = 32
NAME_SIZE: Final = 16
"""Bytes of UTF-8."""
MOST_EVENTS: Final = 17
"""In one reply."""

_HS1: Final = 2 + KEY_SIZE + Command.FORM.size + TAG_SIZE
_HS2: Final = 1 + KEY_SIZE + State.FORM.size + TAG_SIZE
_REPLY: Final = 0x90
_PUSH: Final = 0x21
_WAITING: Final = 0x80
_U32: Final = struct.Struct(">I")


def hs1(slot: int, sealed: bytes) -> bytes:
    """Return HS1 around Noise's first message."""
    return bytes([Type.HS1, slot]) + sealed


def open_hs1(message: bytes) -> tuple[int, bytes]:
    """Return the slot and Noise's first message."""
    if exactly(message, _HS1)[0] != Type.HS1:
        raise Violation("no HS1")
    return message[1], message[2:]


def hs2(sealed: bytes) -> bytes:
    """Return HS2 around Noise's second message."""
    return bytes([Type.HS2]) + sealed


def open_hs2(message: bytes) -> bytes:
    """Return Noise's second message."""
    if exactly(message, _HS2)[0] != Type.HS2:
        raise Violation("no HS2")
    return message[1:]


def data(sealed: bytes) -> bytes:
    """Return DATA around a transport message."""
    return bytes([Type.DATA]) + sealed


def open_data(message: bytes) -> bytes:
    """Return the transport message."""
    if message[:1] != bytes([Type.DATA]):
        raise Violation("no DATA")
    return message[1:]


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks within a session."""

    command: Command
    not_after: int
    """Milliseconds of session time after which the strike must not do it any more."""
    body: bytes = field(default=b"", repr=False)

    @classmethod
    def parse(cls, plaintext: bytes) -> Self:
        """Return the request; raise Violation. The body is read by whoever knows the operation."""
        head = Command.FORM.size
        (not_after,) = _U32.unpack(exactly(plaintext[head : head + _U32.size], _U32.size))
        return cls(Command.parse(plaintext[:head]), not_after, plaintext[head + _U32.size :])

    def encode(self) -> bytes:
        """Return the plaintext."""
        return self.command.encode() + _U32.pack(self.not_after) + self.body


@dataclass(frozen=True, slots=True)
class Reply:
    """What the strike answers to a request."""

    op: int
    state: State
    body: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """Return the plaintext."""
        return bytes([_REPLY, self.op]) + self.state.encode() + self.body


def push(event: Event) -> bytes:
    """Return the plaintext that tells of an event."""
    return bytes([_PUSH]) + event.encode()


def from_strike(plaintext: bytes) -> Reply | Event:
    """Return what a strike says within a session; raise Violation."""
    match plaintext[:1]:
        case b"\x90" if len(plaintext) >= (head := 2 + State.FORM.size):
            return Reply(plaintext[1], State.parse(plaintext[2:head]), plaintext[head:])
        case b"\x21":
            return Event.parse(plaintext[1:])
        case _:
            raise Violation("neither a reply nor an event")


# ---- bodies ----


def uptime(milliseconds: int) -> bytes:
    """Return the body that says how long ago the strike powered up."""
    return _U32.pack(milliseconds)


def open_uptime(body: bytes) -> int | None:
    """Return the milliseconds since the strike powered up; None: an older strike, which does not say."""
    return int(_U32.unpack(exactly(body, _U32.size))[0]) if body else None


def events_from(seq: int) -> bytes:
    """Return the body that asks for the events from ``seq`` on."""
    return _U32.pack(seq)


def open_events_from(body: bytes) -> int:
    """Return from which event on is asked."""
    (seq,) = _U32.unpack(exactly(body, _U32.size))
    return int(seq)


def events(some: Sequence[Event]) -> bytes:
    """Return the body that holds events, MOST_EVENTS at the most."""
    return bytes([len(some)]) + b"".join(event.encode() for event in some)


def open_events(body: bytes) -> tuple[Event, ...]:
    """Return the events of a reply, in the order of their numbers."""
    if not body or body[0] > MOST_EVENTS:
        raise Violation("no list of events")
    size = Event.FORM.size
    exactly(body, 1 + body[0] * size)
    found = tuple(Event.parse(body[start : start + size]) for start in range(1, len(body), size))
    if any(later.seq <= earlier.seq for earlier, later in pairwise(found)):
        raise Violation("events out of order")
    return found


@dataclass(frozen=True, slots=True)
class SlotAdd:
    """The wish for a slot of one's own."""

    name: str
    rand_c: bytes = field(repr=False)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Return the wish; raise Violation."""
        exactly(body, NAME_SIZE + RAND_SIZE)
        return cls(parse_name(body[:NAME_SIZE]), body[NAME_SIZE:])

    def encode(self) -> bytes:
        """Return the body."""
        return encode_name(self.name) + self.rand_c


@dataclass(frozen=True, slots=True)
class SlotAdded:
    """The slot, and the strike's part of its key."""

    slot: int
    rand_s: bytes = field(repr=False)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Return the answer; raise Violation."""
        exactly(body, 1 + RAND_SIZE)
        return cls(body[0], body[1:])

    def encode(self) -> bytes:
        """Return the body."""
        return bytes([self.slot]) + self.rand_s


@dataclass(frozen=True, slots=True)
class SlotRights:
    """The rights that a slot is to have."""

    slot: int
    rights: Rights

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Return the wish; raise Violation. A right that is not known cannot be given."""
        slot, rights = exactly(body, 2)
        if rights > ALL_RIGHTS:
            raise Violation("a right that is not known")
        return cls(slot, Rights(rights))

    def encode(self) -> bytes:
        """Return the body."""
        return bytes([self.slot, self.rights])


@dataclass(frozen=True, slots=True)
class SlotListed:
    """A slot, as an administrator sees it."""

    slot: int
    """1 to 8."""
    rights: Rights
    name: str
    """What the controller called itself: whoever paired it chose any characters that fit."""
    waiting: bool = False
    """It was added, and has not been used yet."""

    _FORM = struct.Struct(f">BB{NAME_SIZE}s")
    SIZE = _FORM.size

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Return what 18 bytes say; raise Violation.

        A right that is not known is one: who saw only some of a slot's rights would take the others away.
        """
        slot, rights, name = cls._FORM.unpack(exactly(raw, cls.SIZE))
        known = rights & ~_WAITING
        if known > ALL_RIGHTS:
            raise Violation("a right that is not known")
        return cls(slot, Rights(known), parse_name(name), bool(rights & _WAITING))

    def encode(self) -> bytes:
        """Return the 18 bytes."""
        return self._FORM.pack(self.slot, self.rights | _WAITING * self.waiting, encode_name(self.name))


def slot_list(some: Sequence[SlotListed]) -> bytes:
    """Return the body that holds the slots that there are."""
    return bytes([len(some)]) + b"".join(listed.encode() for listed in some)


def open_slot_list(body: bytes) -> tuple[SlotListed, ...]:
    """Return the slots of a reply, in the order of their numbers; raise Violation."""
    if not body:
        raise Violation("no list of slots")
    exactly(body, 1 + body[0] * SlotListed.SIZE)
    found = tuple(
        SlotListed.parse(body[start : start + SlotListed.SIZE]) for start in range(1, len(body), SlotListed.SIZE)
    )
    numbers = [listed.slot for listed in found]
    if numbers != sorted(set(numbers) & set(range(1, MOST_SLOTS + 1))):
        raise Violation("slots out of order, or that no strike has")
    return found


def encode_name(name: str) -> bytes:
    """Return a slot's name as 16 bytes, cut between two characters if it is longer."""
    short = name.replace("\0", "").encode(errors="replace")[:NAME_SIZE].decode(errors="ignore")
    return short.encode().ljust(NAME_SIZE, b"\0")


def parse_name(raw: bytes) -> str:
    """Return the name in 16 bytes; raise Violation."""
    try:
        name = raw.rstrip(b"\0").decode()
    except UnicodeDecodeError as err:
        raise Violation("a name that is not UTF-8") from err
    if "\0" in name:
        raise Violation("a name with a hole")
    return name
