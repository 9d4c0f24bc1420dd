"""Who may talk to a strike: eight slots, each with a key, a name and rights (protocol B.2, B.5).

Functions of what is kept: they return what is to be kept from now on, and persist nothing. What they refuse to do: give
a right on their own, except to the first slot of a strike in factory state; let two slots spend; and leave a strike
that had an administrator without one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from .wire import ALL_RIGHTS, Rights

MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Slot:
    """One controller's."""

    number: int
    """1 to MOST."""
    name: str
    rights: Rights
    psk: bytes = field(repr=False)
    confirmed: bool = False
    """A handshake with it has succeeded."""
    next_psk: bytes | None = field(default=None, repr=False)
    """Takes the place of ``psk`` when a handshake with it succeeds."""


@dataclass(frozen=True, slots=True)
class Slots:
    """All of them, in the order of their numbers."""

    slots: tuple[Slot, ...] = ()
    generation: int = 0
    """Changes, modulo 256, whenever anything here does that a controller may want to know."""
    factory: bool = True
    """No slot was ever confirmed since the last factory reset: the next one gets all rights."""

    def get(self, number: int) -> Slot | None:
        """Return the slot of this number."""
        return next((slot for slot in self.slots if slot.number == number), None)

    def add(self, name: str, number: int, psk: bytes) -> Slots:
        """Return the slots with a new one, which has to be confirmed; one that waits for that already gives way."""
        rights = ALL_RIGHTS if self.factory else Rights.NONE
        waiting = {slot.number for slot in self.slots if not slot.confirmed}
        return self._without(waiting)._with(Slot(number, name, rights, psk))

    @property
    def free(self) -> int | None:
        """The number of a new slot: the lowest one that is free or waits to be confirmed; None: all are taken."""
        taken = {slot.number for slot in self.slots if slot.confirmed}
        return next((number for number in range(1, MOST + 1) if number not in taken), None)

    @property
    def waiting(self) -> frozenset[int]:
        """The slots that wait, or whose new key waits, for the first handshake."""
        return frozenset(slot.number for slot in self.slots if not slot.confirmed or slot.next_psk is not None)

    def confirm(self, number: int, psk: bytes) -> Slots:
        """Return the slots after a good handshake of this slot with this key; they are the same if that is no news."""
        slot = self.get(number)
        if slot is None or (slot.confirmed and slot.psk == psk):
            return self
        return replace(self._with(replace(slot, psk=psk, confirmed=True, next_psk=None)), factory=False)

    def given_up(self, numbers: frozenset[int]) -> Slots:
        """Return the slots without those of these, or without their new keys, that nobody has used in time."""
        unused = {slot.number for slot in self.slots if slot.number in numbers and not slot.confirmed}
        kept = self._without(unused) if unused else self
        return replace(
            kept,
            slots=tuple(replace(slot, next_psk=None) if slot.number in numbers else slot for slot in kept.slots),
        )

    def delete(self, number: int) -> Slots | None:
        """Return the slots without this one; None if it is the last administrator."""
        return self._guarded(self._without({number}))

    def grant(self, number: int, rights: Rights) -> Slots | None:
        """Return the slots with this one's rights replaced; None if two could spend then, or nobody administer.

        To move the right to spend, take it away first: so it is never a surprise to its holder's administrator.
        """
        granted = self._changed(
            tuple(replace(slot, rights=rights) if slot.number == number else slot for slot in self.slots)
        )
        if sum(Rights.SPEND in other.rights for other in granted.slots) > 1:
            return None
        return self._guarded(granted)

    def rekey(self, number: int, psk: bytes) -> Slots:
        """Return the slots with a new key waiting next to the old one: make before break."""
        return replace(
            self, slots=tuple(replace(slot, next_psk=psk) if slot.number == number else slot for slot in self.slots)
        )

    def _guarded(self, changed: Slots) -> Slots | None:
        return None if self._has_admin and not changed._has_admin else changed

    @property
    def _has_admin(self) -> bool:
        return any(Rights.ADMIN in slot.rights for slot in self.slots)

    def _with(self, slot: Slot) -> Slots:
        others = tuple(other for other in self.slots if other.number != slot.number)
        return self._changed(tuple(sorted((*others, slot), key=lambda one: one.number)))

    def _without(self, numbers: set[int]) -> Slots:
        return self._changed(tuple(slot for slot in self.slots if slot.number not in numbers))

    def _changed(self, slots: tuple[Slot, ...]) -> Slots:
        return replace(self, slots=slots, generation=(self.generation + 1) % 256)
