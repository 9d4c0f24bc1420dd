"""What a driver is told, in English: what happened, and what to do. The page has the same in German (web/words.js).

Nothing in here helps to get around a check: no distance, no minute, no name.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .checks import Reason

CALL: Final = "Call your dispatcher."


class Told(NamedTuple):
    """What is said."""

    what: str
    advice: str


REASONS: Final[dict[Reason, Told]] = {
    Reason.NOT_VERIFIED: Told("Your passkey did not confirm this.", "Try again with the passkey of this phone."),
    Reason.NO_USER_VERIFICATION: Told(
        "Your phone did not check who you are.", "Try again with your finger, your face or the phone's code."
    ),
    Reason.PASSKEY_COPIED: Told("There may be a copy of your passkey.", "Call your dispatcher: you need a new one."),
    Reason.DEVICE_UNKNOWN: Told("This phone is not registered for you.", "Ask your dispatcher for a new link."),
    Reason.DEVICE_REVOKED: Told("This phone was withdrawn.", "Ask your dispatcher for a new link."),
    Reason.DRIVER_INACTIVE: Told("You are not active at the moment.", CALL),
    Reason.VETTING_MISSING: Told("Your background check is not recorded yet.", CALL),
    Reason.VETTING_EXPIRED: Told("Your background check has run out.", CALL),
    Reason.NOT_ON_ROUTE: Told("This stop is not on your route.", "Refresh today's stops, or call your dispatcher."),
    Reason.ROUTE_NOT_TODAY: Told("This stop is on another day.", "Refresh today's stops."),
    Reason.STOP_DONE: Told("This stop is done already.", "Refresh today's stops."),
    Reason.STOP_CANCELLED: Told("This stop was cancelled.", "Refresh today's stops."),
    Reason.DOOR_NOT_AT_STOP: Told("This door is not on the way of this stop.", "Refresh today's stops."),
    Reason.BUILDING_REMOVED: Told("This building is not with us any more.", CALL),
    Reason.ALREADY_ASKED: Told(
        "This door was asked for already.",
        "It opens once for each stop. If you are still outside, call your dispatcher.",
    ),
    Reason.EARLIER_DOOR_FIRST: Told("There is another door before this one.", "Open that first."),
    Reason.DOOR_WITHOUT_POSITION: Told("We do not know where this door is.", CALL),
    Reason.POSITION_MISSING: Told("Your phone sent no position.", "Switch location on, then try again."),
    Reason.POSITION_IMPOSSIBLE: Told("Your phone sent a position that cannot be.", "Switch location off and on again."),
    Reason.POSITION_INACCURATE: Told(
        "Your position is not exact enough.", "Step away from walls, allow the exact position, and try again."
    ),
    Reason.POSITION_OLD: Told("Your position is too old.", "Wait a moment, then try again and confirm sooner."),
    Reason.POSITION_FROM_THE_FUTURE: Told(
        "Your phone's clock is ahead.", "Let the phone set its time by itself, then try again."
    ),
    Reason.TOO_FAR: Told("You are not at this door.", "Go to the door, then try again. Is it the right building?"),
    Reason.MOVED_TOO_FAST: Told(
        "Your position has jumped.", "Wait a minute at the door, then try again. If it stays so, call your dispatcher."
    ),
    Reason.NO_WINDOW: Told("There is no time for this stop.", "Refresh today's stops."),
    Reason.REQUEST_OLD: Told("It took too long to confirm.", "Try again and confirm sooner."),
    Reason.REQUEST_FROM_THE_FUTURE: Told("The time of your request cannot be.", "Try again."),
    Reason.OUTSIDE_SHIFT: Told("It is outside your shift.", CALL),
    Reason.TOO_EARLY: Told("It is too early for this stop.", "Come back when its time has begun."),
    Reason.TOO_LATE: Told("The time for this stop is over.", CALL),
}

BUILDING: Final[dict[str, Told]] = {
    "POLICY_HOURS": Told("The building takes no deliveries at this time.", CALL),
    "POLICY_RATE": Told("The building has had too many deliveries in this hour.", CALL),
    "POLICY_CARRIER_DOOR": Told("The building does not let us use this door.", CALL),
    "POLICY_EVIDENCE": Told("The building asks for a closer or newer position.", CALL),
    "DELIVERIES_OFF": Told("The building takes no deliveries at the moment.", CALL),
    "DOOR_UNAVAILABLE": Told("This door cannot be used at the moment.", CALL),
    "CLOCK_UNTRUSTED": Told("The building is not sure what time it is.", CALL),
    "STRIKE_UNREACHABLE": Told("The building cannot reach its lock.", CALL),
    "STRIKE_REFUSED": Told("The lock did not obey.", CALL),
    "CARRIER_LOCKED_OUT": Told("The building does not trust our keys any more.", CALL),
    "REFUSED": Told("The building does not let us use this door.", CALL),
    "NO_SIGNING_KEY": Told("The carrier's cloud cannot sign at the moment.", CALL),
}
"""By the code that a building told, or by why it could not be asked."""

OTHERWISE: Final = Told("", "")


def told(code: str | None) -> Told:
    """Return what a driver is told about a code; nothing, if there is nothing more to say."""
    return BUILDING.get(code or "", OTHERWISE)
