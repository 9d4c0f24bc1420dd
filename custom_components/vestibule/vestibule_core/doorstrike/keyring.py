"""The strike's keys at work: which of them a handshake may use, what a slot may do, the pairing window (protocol B.5).

Decides and keeps time; persists nothing and tells nobody. What it refuses to do: open the pairing slot without the
button, let it be tried more than once a second, and keep a slot or a key that nobody has used in time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from . import frames
from .pairing import PAIRING_SLOT, Label, slot_psk
from .slots import Slots
from .wire import EventKind, Op, Result, Rights, exactly

PAIRING_TIME: Final = 120.0
ATTEMPT_GAP: Final = 1.0
"""Seconds between two handshakes on the pairing slot."""
CONFIRM_TIME: Final = 30.0
"""Seconds in which a new slot or key has to be used."""

NEEDS: Final = {
    Op.QUERY: None,
    Op.UNLOCK: Rights.SPEND | Rights.MANUAL,
    Op.RELOCK: Rights.SPEND | Rights.MANUAL,
    Op.HOLD: Rights.MANUAL,
    Op.EVENTS: Rights.EVENTS,
    Op.SLOT_ADD: Rights.ADMIN,
    Op.SLOT_DEL: Rights.ADMIN,
    Op.SLOT_RIGHTS: Rights.ADMIN,
    Op.SLOT_REKEY: None,
    Op.SLOT_LIST: Rights.ADMIN,
    Op.PING: None,
}
"""The rights of which a slot needs one; None: none. ``may`` knows the two exceptions."""


@dataclass(frozen=True, slots=True)
class Change:
    """What came of a wish about slots."""

    result: Result
    body: bytes = b""
    """Of the reply."""
    event: EventKind | None = None
    slot: int = 0
    """The event's value."""


class Keyring:
    """The label's key and the slots' keys. Seconds are the caller's monotonic ones."""

    def __init__(self, label: Label, slots: Slots, random: Callable[[int], bytes]) -> None:
        """Begin with what was kept. What was not confirmed before the power went is not kept."""
        self.slots = slots.given_up(slots.waiting)
        self.pairing_until: float | None = None
        self._confirm_until: dict[int, float] = {}
        """For each slot: so that no wish gives another one more time."""
        self._label = label
        self._random = random
        self._next_attempt: float | None = None

    def keys(self, number: int, now: float) -> list[bytes]:
        """Return the keys that a handshake on this slot may use.

        Where there is none, one that nobody has: a stranger cannot tell the two apart by the time that a refusal takes.
        """
        if number == PAIRING_SLOT and self.pairing_until is not None:
            early = self._next_attempt is not None and now < self._next_attempt
            if not early:
                self._next_attempt = now + ATTEMPT_GAP
                return [self._label.psk]
        if (slot := self.slots.get(number)) is None:
            return [self._random(frames.KEY_SIZE)]
        return [slot.psk] if slot.next_psk is None else [slot.psk, slot.next_psk]

    def knows(self, number: int) -> bool:
        """Return whether a session of this slot may go on: the pairing slot's may, after the window, until a reset."""
        return number == PAIRING_SLOT or self.slots.get(number) is not None

    def proved(self, number: int, psk: bytes) -> None:
        """A handshake on this slot with this key was good."""
        self.slots = self.slots.confirm(number, psk)

    @property
    def confirm_until(self) -> float | None:
        """When the next slot or key is given up that nobody has used."""
        waiting = self.slots.waiting
        return min((until for number, until in self._confirm_until.items() if number in waiting), default=None)

    def may(self, number: int, op: Op) -> bool:
        """Return whether this slot may ask for this."""
        slot = self.slots.get(number)
        if op is Op.SLOT_ADD and number == PAIRING_SLOT:
            return self.pairing_until is not None
        if op is Op.SLOT_REKEY:
            return slot is not None
        needs = NEEDS[op]
        return needs is None or (slot is not None and bool(slot.rights & needs))

    def rights(self, number: int | None) -> Rights:
        """Return what a slot may do."""
        slot = None if number is None else self.slots.get(number)
        return Rights.NONE if slot is None else slot.rights

    def open_pairing(self, now: float) -> None:
        """The button was held."""
        self.pairing_until = now + PAIRING_TIME

    def reset(self) -> None:
        """Forget every slot: factory state."""
        self.pairing_until = None
        self.slots = Slots(generation=(self.slots.generation + 1) % 256)

    def elapse(self, now: float) -> None:
        """Close the window and erase what nobody has used, once their time is over."""
        if self.pairing_until is not None and now >= self.pairing_until:
            self.pairing_until = None
        if self.confirm_until is not None and now >= self.confirm_until:
            late = frozenset(number for number, until in self._confirm_until.items() if now >= until)
            self.slots = self.slots.given_up(late)

    def change(self, number: int, op: Op, body: bytes, now: float) -> Change:
        """Do what this slot, which may, wants done about slots; raise Violation if the body is malformed."""
        match op:
            case Op.SLOT_ADD:
                return self._add(number, frames.SlotAdd.parse(body), now)
            case Op.SLOT_REKEY:
                exactly(body, frames.RAND_SIZE)
                rand_s = self._random(frames.RAND_SIZE)
                self.slots = self.slots.rekey(number, slot_psk(self._label.strike_id, number, body, rand_s))
                self._confirm_until[number] = now + CONFIRM_TIME
                return Change(Result.OK, rand_s)
            case Op.SLOT_LIST:
                exactly(body, 0)
                return Change(
                    Result.OK,
                    frames.slot_list(
                        [
                            frames.SlotListed(slot.number, slot.rights, slot.name, waiting=not slot.confirmed)
                            for slot in self.slots.slots
                        ]
                    ),
                )
            case Op.SLOT_DEL:
                (target,) = exactly(body, 1)
                return self._replace(target, self.slots.delete(target), EventKind.SLOT_DELETED)
            case _:
                wish = frames.SlotRights.parse(body)
                return self._replace(wish.slot, self.slots.grant(wish.slot, wish.rights), EventKind.RIGHTS_CHANGED)

    def _add(self, number: int, wish: frames.SlotAdd, now: float) -> Change:
        if (new := self.slots.free) is None:
            return Change(Result.BAD_OP)
        rand_s = self._random(frames.RAND_SIZE)
        self.slots = self.slots.add(wish.name, new, slot_psk(self._label.strike_id, new, wish.rand_c, rand_s))
        self._confirm_until[new] = now + CONFIRM_TIME
        if number == PAIRING_SLOT:
            self.pairing_until = None
        return Change(Result.OK, frames.SlotAdded(new, rand_s).encode(), EventKind.SLOT_ADDED, new)

    def _replace(self, target: int, slots: Slots | None, event: EventKind) -> Change:
        if self.slots.get(target) is None:
            return Change(Result.BAD_OP)
        if slots is None:
            return Change(Result.RIGHTS)
        self.slots = slots
        return Change(Result.OK, event=event, slot=target)
