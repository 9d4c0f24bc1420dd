"""Every message of DoorStrike/1, byte by byte (protocol B.1 and B.2): exact lengths, reserved bits zero.

What is unknown is decided per field, so that an older client lives with a newer strike wherever that is safe:

- a *result*, a *spend state* and the reserved bits of ``io`` and of a command are errors: they say whether a door
  moved, and whoever does not understand them must not guess;
- an *event's kind* stays a number: an event that is only new must neither be lost nor cost the link;
- *capabilities* and an advertisement's *flags* keep bits that are not known yet, and nobody acts on those;
- a *battery* above 100 is unknown: a gauge that reads 101 shuts no door.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final, Self

from ..errors import Violation as Violation  # noqa: TID252 - the core is imported relatively
from ..model import Sense, Sensor  # noqa: TID252
from ..strike import Reading  # noqa: TID252


def _uuid(short: int) -> str:
    return f"cac0{short:04x}-4afb-4df1-a811-ee3233c60005"


SERVICE: Final = _uuid(0)
RX: Final = _uuid(1)
"""The client writes here, with and without response."""
TX: Final = _uuid(2)
"""The strike notifies here."""

VERSION: Final = 1
MAX_MESSAGE: Final = 512
"""Bytes."""
STRIKE_ID_SIZE: Final = 8
SPEND_ID_SIZE: Final = 16
NONCE_SIZE: Final = 16
NO_SPEND: Final = bytes(SPEND_ID_SIZE)
"""Asks for the last one; says that there was none."""
MAINS: Final = 255
"""A battery's level where there is none, or none is known."""


class Type(IntEnum):
    """A message's first byte."""

    HELLO_REQ = 0x00
    HELLO = 0x01
    HS1 = 0x02
    HS2 = 0x03
    DATA = 0x04
    ERR = 0x7F


HELLO_REQ: Final = bytes([Type.HELLO_REQ])
ERR: Final = bytes([Type.ERR, 1])


class Op(IntEnum):
    """What a client asks for."""

    QUERY = 0x00
    UNLOCK = 0x10
    RELOCK = 0x11
    HOLD = 0x12
    EVENTS = 0x20
    SLOT_ADD = 0x30
    SLOT_DEL = 0x31
    SLOT_REKEY = 0x32
    SLOT_RIGHTS = 0x33
    SLOT_LIST = 0x34
    PING = 0x40


class Result(IntEnum):
    """What came of it."""

    OK = 0
    DUPLICATE = 1
    """The strike knows this spend: no pulse."""
    RATE = 2
    """Too many at once, or in this minute."""
    BAD_OP = 3
    LOCKOUT = 4
    """The strike has lost its memory of spends and waits until no old one can come back."""
    RIGHTS = 5
    RELAY_FAULT = 6
    LATE = 7


class Relay(IntEnum):
    """What the relay does."""

    LOCKED = 0
    PULSING = 1
    HELD = 2
    FAULT = 3


class Contact(IntEnum):
    """Where the door is."""

    UNKNOWN = 0
    CLOSED = 1
    OPEN = 2
    FAULT = 3


class SpendState(IntEnum):
    """How far a spend got."""

    UNSEEN = 0
    RECORDED = 1
    RELAY_ON = 2
    COMPLETE = 3


class EventKind(IntEnum):
    """What an event tells of."""

    BOOT = 1
    RELAY_ON = 2
    RELAY_OFF = 3
    OPENED = 4
    CLOSED = 5
    FORCED_OPEN = 6
    HELD_OPEN = 7
    TAMPER = 8
    TAMPER_CLEARED = 9
    PAIRING_OPENED = 10
    SLOT_ADDED = 11
    SLOT_DELETED = 12
    RIGHTS_CHANGED = 13
    REX = 14
    LOW_BATTERY = 15
    FACTORY_RESET = 16
    FAILED_HANDSHAKES = 17


MOST_COUNTED: Final = 255
"""How many failed handshakes an event can count; that may be more."""


class Rights(IntFlag):
    """What a slot may do besides asking."""

    NONE = 0
    SPEND = 1
    MANUAL = 2
    EVENTS = 4
    ADMIN = 8


ALL_RIGHTS: Final = Rights.SPEND | Rights.MANUAL | Rights.EVENTS | Rights.ADMIN


class Caps(IntFlag):
    """What a strike has."""

    CONTACT = 1
    TAMPER = 2
    BATTERY = 4
    HOLD = 8
    LOCK_MONITOR = 16
    REX = 32
    """A request to exit, which is only told of: no state has it."""


class Flags(IntFlag):
    """What an advertisement hints at."""

    PAIRING = 1
    ATTENTION = 2
    LOW_BATTERY = 4
    FACTORY = 8


def exactly(raw: bytes, size: int) -> bytes:
    """Return ``raw`` if it has this many bytes; raise Violation."""
    if len(raw) != size:
        raise Violation(f"{len(raw)} bytes instead of {size}")
    return raw


@dataclass(frozen=True, slots=True)
class Advertisement:
    """A strike's service data. Anybody can send it: it may cause a connection, and nothing else."""

    version: int
    flags: Flags
    evt_seq: int
    """The low 16 bits."""
    strike: bytes
    """The first six bytes of the strike's id."""

    _FORM = struct.Struct("<BBH6s")

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Return what 10 bytes say; raise Violation."""
        version, flags, evt_seq, strike = cls._FORM.unpack(exactly(raw, cls._FORM.size))
        return cls(version, Flags(flags), evt_seq, strike)

    def encode(self) -> bytes:
        """Return the 10 bytes."""
        return self._FORM.pack(self.version, self.flags, self.evt_seq, self.strike)


@dataclass(frozen=True, slots=True)
class Hello:
    """How a strike opens a connection. Any version can be read, so that the client can say that it does not know it."""

    version: int
    caps: Caps
    strike_id: bytes
    nonce: bytes

    _FORM = struct.Struct(">BBH8s16s")

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Return what 28 bytes say; raise Violation."""
        kind, version, caps, strike_id, nonce = cls._FORM.unpack(exactly(raw, cls._FORM.size))
        if kind != Type.HELLO:
            raise Violation("no HELLO")
        return cls(version, Caps(caps), strike_id, nonce)

    def encode(self) -> bytes:
        """Return the 28 bytes."""
        return self._FORM.pack(Type.HELLO, self.version, self.caps, self.strike_id, self.nonce)


@dataclass(frozen=True, slots=True)
class Command:
    """What HS1 and every request begin with."""

    op: int
    """An Op, or a number that this version does not know, which is answered with BAD_OP."""
    pulse_cs: int = 0
    """Hundredths of a second."""
    spend_id: bytes = NO_SPEND

    FORM = struct.Struct(">BBH16s")

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Return what 20 bytes say; raise Violation."""
        op, flags, pulse_cs, spend_id = cls.FORM.unpack(exactly(raw, cls.FORM.size))
        if flags:
            raise Violation("reserved flags of a command")
        return cls(op, pulse_cs, spend_id)

    def encode(self) -> bytes:
        """Return the 20 bytes."""
        return self.FORM.pack(self.op, 0, self.pulse_cs, self.spend_id)


_TAMPER: Final = 1 << 4
_BOLT: Final = 1 << 5
_RESERVED_IO: Final = 0xC0


@dataclass(frozen=True, slots=True)
class State:
    """What a strike answers: the command's result, and all that it knows of its door."""

    result: Result
    relay: Relay
    contact: Contact
    tampered: bool
    """Latched: it stays after the cover is back."""
    bolt_secured: bool
    spend_state: SpendState
    slots_gen: int
    battery: int | None
    """Percent; None: mains, or unknown."""
    evt_seq: int
    spend_id: bytes

    FORM = struct.Struct(">BBBBBI16s")

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Return what 25 bytes say; raise Violation."""
        result, io, spend_state, slots_gen, battery, evt_seq, spend_id = cls.FORM.unpack(exactly(raw, cls.FORM.size))
        if io & _RESERVED_IO:
            raise Violation("reserved bits of io")
        try:
            result, spend_state = Result(result), SpendState(spend_state)
        except ValueError as err:
            raise Violation("a result or a spend state that is not known") from err
        return cls(
            result=result,
            relay=Relay(io & 3),
            contact=Contact(io >> 2 & 3),
            tampered=bool(io & _TAMPER),
            bolt_secured=bool(io & _BOLT),
            spend_state=spend_state,
            slots_gen=slots_gen,
            battery=battery if battery <= 100 else None,
            evt_seq=evt_seq,
            spend_id=spend_id,
        )

    def encode(self) -> bytes:
        """Return the 25 bytes."""
        io = self.relay | self.contact << 2 | _TAMPER * self.tampered | _BOLT * self.bolt_secured
        battery = MAINS if self.battery is None else self.battery
        return self.FORM.pack(self.result, io, self.spend_state, self.slots_gen, battery, self.evt_seq, self.spend_id)

    @property
    def reading(self) -> Reading:
        """What the strike says about its relay, in the core's words."""
        return _READING.get(self.relay, Reading.UNKNOWN)

    def sense(self, sensor: Sensor, caps: Caps) -> Sense:
        """Return what a sensor says, in the core's words; one that the strike does not have is UNKNOWN."""
        match sensor:
            case Sensor.CONTACT if Caps.CONTACT in caps:
                return _SENSE[self.contact]
            case Sensor.TAMPER if Caps.TAMPER in caps:
                return Sense.ACTIVE if self.tampered else Sense.INACTIVE
            case Sensor.LOCK_MONITOR if Caps.LOCK_MONITOR in caps:
                return Sense.INACTIVE if self.bolt_secured else Sense.ACTIVE
            case Sensor.REX if Caps.REX in caps:
                return Sense.INACTIVE  # whoever wants out is told of by an event, and that is over at once
            case _:
                return Sense.UNKNOWN


_SENSORS: Final = {
    Caps.CONTACT: Sensor.CONTACT,
    Caps.TAMPER: Sensor.TAMPER,
    Caps.LOCK_MONITOR: Sensor.LOCK_MONITOR,
    Caps.REX: Sensor.REX,
}


def sensors_of(caps: Caps) -> frozenset[Sensor]:
    """Return what a strike watches by itself."""
    return frozenset(sensor for cap, sensor in _SENSORS.items() if cap in caps)


_READING: Final = {Relay.LOCKED: Reading.SECURED, Relay.PULSING: Reading.RELEASED, Relay.HELD: Reading.RELEASED}
_SENSE: Final = {
    Contact.UNKNOWN: Sense.UNKNOWN,
    Contact.CLOSED: Sense.INACTIVE,
    Contact.OPEN: Sense.ACTIVE,
    Contact.FAULT: Sense.FAULT,
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at the strike, in its own time."""

    seq: int
    uptime_ms: int
    """Since its last boot; starts over after 49 days."""
    kind: int
    """An EventKind, or a number that this version does not know."""
    value: int = 0
    spend_id: bytes = NO_SPEND

    FORM = struct.Struct(">IIBB16s")

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Return what 26 bytes say; raise Violation."""
        return cls(*cls.FORM.unpack(exactly(raw, cls.FORM.size)))

    def encode(self) -> bytes:
        """Return the 26 bytes."""
        return self.FORM.pack(self.seq, self.uptime_ms, self.kind, self.value, self.spend_id)
