"""What a strike's inputs say, and which of it is an event. Nothing here ever moves the relay.

Whether a door was forced or is held open depends on accesses, requests to exit and times that the controller knows
(door.py of the core): this strike tells what it saw, and leaves that to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .wire import Contact, EventKind

LOW_BATTERY: Final = 15
"""Percent."""
CHARGED: Final = 20
"""Percent; between the two a battery that was low stays low, so that it is not told of again and again."""


@dataclass(slots=True)
class Senses:
    """The inputs, as they were last heard."""

    contact: Contact = Contact.UNKNOWN
    cover_open: bool = False
    bolt_secured: bool = False
    battery: int | None = None
    battery_low: bool = False

    def contact_says(self, contact: Contact) -> EventKind | None:
        """Take the contact's word; return what to tell of. The first word after power-up is no event."""
        before, self.contact = self.contact, contact
        match before, contact:
            case Contact.CLOSED | Contact.FAULT, Contact.OPEN:
                return EventKind.OPENED
            case Contact.OPEN | Contact.FAULT, Contact.CLOSED:
                return EventKind.CLOSED
            case _:
                return None

    def battery_says(self, percent: int | None) -> EventKind | None:
        """Take the battery's level; return what to tell of."""
        self.battery = percent
        was_low = self.battery_low
        self.battery_low = percent is not None and percent <= (CHARGED if was_low else LOW_BATTERY)
        return EventKind.LOW_BATTERY if self.battery_low and not was_low else None
