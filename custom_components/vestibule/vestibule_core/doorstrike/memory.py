"""What a strike keeps through a power cut, as bytes: its slots and its log, each in one piece with a checksum (B.5).

Two pieces, because they fail apart: a log that is torn shuts the door for two minutes (row 80), while torn slots let
nobody in at all. What is not exactly what `encode_*` wrote is Unreadable; nothing is repaired or guessed.
"""

from __future__ import annotations

import hashlib
import struct
from enum import StrEnum
from typing import Final

from ..errors import VestibuleError  # noqa: TID252 - the core is imported relatively
from .frames import KEY_SIZE, NAME_SIZE, encode_name, parse_name
from .log import MOST_EVENTS, MOST_SPENDS, History, Log, Progress, Spend, Spends
from .slots import MOST, Slot, Slots
from .wire import ALL_RIGHTS, SPEND_ID_SIZE, Event, Rights, Violation

_SUM: Final = 16
_SLOTS: Final = b"DoorStrike/1 slots\n"
_LOG: Final = b"DoorStrike/1 log\n"
_SLOTS_HEAD: Final = struct.Struct(">B?B")
_SLOT: Final = struct.Struct(f">BB?{NAME_SIZE}s{KEY_SIZE}s?{KEY_SIZE}s")
_LOG_HEAD: Final = struct.Struct(">II??HH")
_SPEND: Final = struct.Struct(f">{SPEND_ID_SIZE}sBq")
_LONG_AGO: Final = -1


class Part(StrEnum):
    """The pieces, each kept under its own name."""

    SLOTS = "slots"
    LOG = "log"


class Unreadable(VestibuleError):
    """A piece is torn, changed or from another program."""


def encode_slots(slots: Slots) -> bytes:
    """Return the piece that holds the slots."""
    return _sealed(
        _SLOTS,
        _SLOTS_HEAD.pack(slots.generation, slots.factory, len(slots.slots))
        + b"".join(
            _SLOT.pack(
                slot.number,
                slot.rights,
                slot.confirmed,
                encode_name(slot.name),
                slot.psk,
                slot.next_psk is not None,
                slot.next_psk or bytes(KEY_SIZE),
            )
            for slot in slots.slots
        ),
    )


def decode_slots(piece: bytes) -> Slots:
    """Return the slots; raise Unreadable."""
    body = _opened(_SLOTS, piece)
    try:
        generation, factory, count = _SLOTS_HEAD.unpack_from(body)
        rows = list(_SLOT.iter_unpack(body[_SLOTS_HEAD.size :]))
        slots = tuple(
            Slot(
                number,
                parse_name(name),
                Rights(rights & int(ALL_RIGHTS)),
                psk,
                confirmed,
                next_psk if has_next else None,
            )
            for number, rights, confirmed, name, psk, has_next, next_psk in rows
        )
    except (struct.error, Violation) as err:
        raise Unreadable("slots of another form") from err
    found = Slots(slots, generation, factory)
    if count > MOST or encode_slots(found) != piece:
        raise Unreadable("slots in another spelling")
    return found


def encode_log(log: Log) -> bytes:
    """Return the piece that holds spends, events, the tamper latch and the boot counter."""
    spends, history = log.spends.spends, log.history
    return _sealed(
        _LOG,
        _LOG_HEAD.pack(history.boots, history.seq, history.tampered, log.spends.holed, len(spends), len(history.events))
        + b"".join(
            _SPEND.pack(spend.spend_id, spend.progress, _LONG_AGO if spend.at is None else spend.at) for spend in spends
        )
        + b"".join(event.encode() for event in history.events),
    )


def decode_log(piece: bytes) -> Log:
    """Return the log; raise Unreadable."""
    body = _opened(_LOG, piece)
    try:
        boots, seq, tampered, holed, many_spends, many_events = _LOG_HEAD.unpack_from(body)
        middle = _LOG_HEAD.size + many_spends * _SPEND.size
        spends = tuple(
            Spend(spend_id, Progress(progress), None if at < 0 else at)
            for spend_id, progress, at in _SPEND.iter_unpack(body[_LOG_HEAD.size : middle])
        )
        events = tuple(Event(*row) for row in Event.FORM.iter_unpack(body[middle:]))
    except (struct.error, ValueError) as err:
        raise Unreadable("a log of another form") from err
    found = Log(Spends(spends, holed), History(boots, seq, tampered, events))
    if many_spends > MOST_SPENDS or many_events > MOST_EVENTS or encode_log(found) != piece:
        raise Unreadable("a log in another spelling")
    return found


def _sealed(kind: bytes, body: bytes) -> bytes:
    return kind + body + hashlib.sha256(kind + body).digest()[:_SUM]


def _opened(kind: bytes, piece: bytes) -> bytes:
    body = piece[len(kind) : -_SUM]
    if _sealed(kind, body) != piece:
        raise Unreadable("torn, or not this piece")
    return body
