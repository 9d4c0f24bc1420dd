"""By hand: who may weaken a door in Home Assistant, and how often a PIN may be tried.

Home Assistant lets every user control every entity, so the rule is the building's own, and covers every way to weaken a
door: releasing it, holding it open, taking back what keeps people out. Making a door safer is anybody's.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from .bucket import Buckets
from .model import Actor, Code, Door, ManualRule

PIN_TRIES: Final = 5
"""Wrong PINs of one person at one door before they have to wait."""
PIN_AGAIN: Final = 600.0
"""Seconds until one more may be tried: a PIN of four digits outlasts weeks of that, each try on record."""


class Wish(StrEnum):
    """What somebody wants by hand."""

    OPEN = "open"
    """Release the door, for a moment or for long."""
    RELAX = "relax"
    """Take back what keeps people out: lift a lockdown, take deliveries again, trust a door after tampering."""


def objection(door: Door, actor: Actor, wish: Wish) -> Code | None:
    """Return why the rule of ``door`` forbids it, None if it does not. Says nothing about the PIN.

    A call that names no person is an automation; only administrators make those. Where nobody may open, administrators
    still take back what they shut: else a lockdown would be for ever.
    """
    match door.manual:
        case ManualRule.NOBODY if wish is Wish.OPEN or not actor.is_trusted:
            return Code.MANUAL_NOT_ALLOWED
        case ManualRule.ADMINISTRATORS if not actor.is_trusted:
            return Code.MANUAL_NOT_ALLOWED
        case _:
            return None


def objection_without_pin(door: Door, actor: Actor, wish: Wish) -> Code | None:
    """The same for what has no field for a PIN (a mode, a switch): a door with a PIN leaves that to administrators, who
    could change the PIN as well.
    """
    if code := objection(door, actor, wish):
        return code
    if door.pin is not None and not actor.is_trusted:
        return Code.PIN_MISSING
    return None


def pin_tries() -> Buckets[tuple[str, str | None]]:
    """Return the count of wrong PINs, by door and person."""
    return Buckets(per_second=1 / PIN_AGAIN, burst=PIN_TRIES, most=1000)
