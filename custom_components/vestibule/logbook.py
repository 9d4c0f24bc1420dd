"""What happened, in plain words, for Home Assistant's Activity (docs/adr/0006).

The door's page shows the line of its event entity, in the reader's language. What is described here names the cause
of that line, and is a line of its own where Activity is looked at as a whole. English only: Home Assistant has no
translation of such words. Rows can be of any age and version, so nothing in here may raise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from homeassistant.components.logbook.const import LOGBOOK_ENTRY_ICON, LOGBOOK_ENTRY_MESSAGE, LOGBOOK_ENTRY_NAME
from homeassistant.core import Event, HomeAssistant, callback
from homeassistant.helpers import device_registry as dr

from .const import DOMAIN, EVENT_ACCESS
from .vestibule_core.doorstrike.wire import MOST_COUNTED
from .vestibule_core.model import Code, EventName, Means


@callback
def async_describe_events(
    hass: HomeAssistant, async_describe_event: Callable[[str, str, Callable[[Event], dict[str, str]]], None]
) -> None:
    """Say how our event is described."""

    @callback
    def describe(event: Event) -> dict[str, str]:
        name, message = words(event.data, _door(hass, event.data))
        return {LOGBOOK_ENTRY_NAME: name, LOGBOOK_ENTRY_MESSAGE: message, LOGBOOK_ENTRY_ICON: "mdi:door"}

    async_describe_event(DOMAIN, EVENT_ACCESS, describe)


def words(data: Mapping[str, Any], door: str | None) -> tuple[str, str]:
    """Return who or what, and what it did: a sentence together. ``door`` is the door's name.

    Home Assistant shows the first part alone as the cause of an entity's line, so that names a carrier and why it was
    refused.
    """
    outcome, code = str(data.get("outcome")), str(data.get("code"))
    why = WHY.get(code)
    if (carrier := data.get("carrier")) and outcome in BY_CARRIER:
        return f"{carrier} ({why})" if why else str(carrier), BY_CARRIER[outcome].format(door=door or "a door")
    whose = door or str(data.get("gateway") or "The building")
    happened = AT_DOOR.get(outcome, "had an event of an unknown kind")
    if outcome == EventName.REFUSALS_COUNTED:
        return whose, _counted(happened, data.get("count"), why)
    if type(slot := data.get("slot")) is int:
        happened = f"{happened} (slot {slot})"
    if outcome == EventName.STRIKE_AUTHENTICATION_FAILED and type(count := data.get("count")) is int:
        happened = f"{happened} {_times(count)}"
    how = HOW.get(str(data.get("means")), "") if outcome in DONE else ""
    return whose, f"{happened}{how}: {why}" if why else f"{happened}{how}"


def _counted(happened: str, count: object, why: str | None) -> str:
    requests = "1 request" if count == 1 else f"{count} requests" if type(count) is int else "requests"
    most = ": " if count == 1 else ", most often: "
    return f"{happened} {requests}{most}{why}" if why else f"{happened} {requests}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times" if count < MOST_COUNTED else f"{count} times or more"


def _door(hass: HomeAssistant, data: Mapping[str, Any]) -> str | None:
    device = dr.async_get(hass).async_get(str(data.get("device")))
    return (device.name_by_user or device.name) if device else None


BY_CARRIER: Final[Mapping[str, str]] = {
    EventName.ACCESS_GRANTED: "was granted access at {door}",
    EventName.ACCESS_DENIED: "was denied access at {door}",
    EventName.DOOR_RELEASED: "had {door} released",
    EventName.RELEASE_FAILED: "was granted access, but {door} was not released",
    EventName.OUTCOME_UNKNOWN: "was granted access, and {door} may or may not have been released",
    EventName.DOOR_ALREADY_UNLOCKED: "was granted access at {door}, which was held open",
    EventName.ACCESS_TAKEN: "opened {door}",
    EventName.ACCESS_NOT_TAKEN: "did not open {door}",
    EventName.DOOR_RELOCKED: "was let in before {door} locked again",
}
"""What a carrier did or met with."""

AT_DOOR: Final[Mapping[str, str]] = {
    EventName.ACCESS_GRANTED: "granted access",
    EventName.ACCESS_DENIED: "denied access",
    EventName.DOOR_RELEASED: "was released",
    EventName.RELEASE_FAILED: "was not released",
    EventName.OUTCOME_UNKNOWN: "may or may not have been released",
    EventName.DOOR_ALREADY_UNLOCKED: "granted access while it was held open",
    EventName.ACCESS_TAKEN: "was opened after it had been released",
    EventName.ACCESS_NOT_TAKEN: "was released, and nobody opened it",
    EventName.DOOR_RELOCKED: "locked again",
    EventName.DOOR_OPENED: "was opened",
    EventName.DOOR_CLOSED: "was closed",
    EventName.DOOR_HELD_OPEN_WARNING: "has been open for long",
    EventName.DOOR_HELD_OPEN: "is held open",
    EventName.DOOR_FORCED_OPEN: "was forced open",
    EventName.RELAY_OPERATED_ELSEWHERE: "had its relay operated by something other than Vestibule",
    EventName.DOOR_TAMPERED: "was tampered with",
    EventName.TAMPER_CLEARED: "is trusted again after tampering",
    EventName.STRIKE_PAIRING_OPENED: "had the button of its strike held: a controller can be paired",
    EventName.STRIKE_SLOT_ADDED: "had a controller paired with its strike",
    EventName.STRIKE_SLOT_DELETED: "had a controller deleted from its strike",
    EventName.STRIKE_RIGHTS_CHANGED: "had the rights of a controller of its strike changed",
    EventName.STRIKE_FACTORY_RESET: "had its strike reset: it knows no controller any more",
    EventName.STRIKE_AUTHENTICATION_FAILED: "had its strike tried without a valid key",
    EventName.DOOR_NORMAL: "was set to normal",
    EventName.DOOR_UNLOCKED: "was set to be held open",
    EventName.DOOR_BLOCKED: "was blocked",
    EventName.LOCKDOWN_ON: "was locked down",
    EventName.LOCKDOWN_OFF: "is no longer locked down",
    EventName.DELIVERIES_ON: "takes deliveries again",
    EventName.DELIVERIES_OFF: "takes no more deliveries",
    EventName.CLOCK_CONFIRMED: "had its clock confirmed",
    EventName.JOURNAL_RESTORED: "goes on from a backup of its journal, or was ended while one was made",
    EventName.RESTORE_CONFIRMED: "had the backup of its journal confirmed",
    EventName.KEY_CONFIRMED: "goes on with a new key for its journal, as an administrator has confirmed",
    EventName.JOURNAL_DISPUTED: "has a journal that is not whole: a witness holds other entries",
    EventName.EPOCH_BEGUN: "goes on with a journal that is not whole, as an administrator has confirmed",
    EventName.WITNESS_REFUSED: "did not cosign a journal that is not whole",
    EventName.JOURNAL_EXPORTED: "had its journal exported",
    EventName.PERSON_EXPORTED: "had a person's entries exported",
    EventName.PERSON_DELETED: "had a person deleted from its journal",
    EventName.REFUSALS_COUNTED: "refused and only counted",
    EventName.POLICY_CHANGED: "had what it allows changed",
    EventName.POLICY_PENDING: "was asked to allow more, which waits for its button or a day",
    EventName.CLIENT_PAIRED: "was paired with a program",
    EventName.CLIENT_CHANGED: "had the rights of a program changed",
    EventName.CLIENT_REMOVED: "had a program removed",
    EventName.CARRIER_LINKED: "was linked with a carrier's cloud",
    EventName.CARRIER_UNLINKED: "is no longer linked with a carrier's cloud",
    EventName.CARRIER_LOCKED_OUT: "accepted tokens that their carrier never issued, and lets that carrier in no more",
    EventName.CARRIER_APPROVED: "lets a carrier in again, as an administrator has confirmed",
}
"""What happened at a door, or to the building."""

DONE: Final = frozenset(
    {
        EventName.ACCESS_GRANTED,
        EventName.ACCESS_DENIED,
        EventName.TAMPER_CLEARED,
        EventName.DOOR_NORMAL,
        EventName.DOOR_UNLOCKED,
        EventName.DOOR_BLOCKED,
        EventName.LOCKDOWN_ON,
        EventName.LOCKDOWN_OFF,
        EventName.DELIVERIES_ON,
        EventName.DELIVERIES_OFF,
        EventName.CLOCK_CONFIRMED,
        EventName.RESTORE_CONFIRMED,
        EventName.KEY_CONFIRMED,
        EventName.EPOCH_BEGUN,
        EventName.JOURNAL_EXPORTED,
        EventName.PERSON_EXPORTED,
        EventName.PERSON_DELETED,
        EventName.POLICY_CHANGED,
        EventName.POLICY_PENDING,
        EventName.CLIENT_PAIRED,
        EventName.CLIENT_CHANGED,
        EventName.CLIENT_REMOVED,
        EventName.CARRIER_LINKED,
        EventName.CARRIER_UNLINKED,
        EventName.CARRIER_APPROVED,
    }
)
"""What somebody does; the rest follows from it, or happens."""

HOW: Final[Mapping[str, str]] = {
    Means.TOKEN: " by token",
    Means.MANUAL: " by hand",
    Means.AUTOMATION: " by an automation",
}

WHY: Final[Mapping[str, str]] = {
    Code.MALFORMED: "no token",
    Code.BAD_HEADER: "a token with a bad header",
    Code.WRONG_TYPE: "a token of another kind",
    Code.UNKNOWN_KEY: "an unknown key",
    Code.ALG_MISMATCH: "a signature of another kind than the key's",
    Code.BAD_SIGNATURE: "a wrong signature",
    Code.BAD_CLAIMS: "a token with wrong contents",
    Code.LIFETIME_TOO_LONG: "a token that is valid for too long",
    Code.WRONG_ISSUER: "a token of another carrier",
    Code.KEY_REVOKED: "a revoked key",
    Code.WRONG_DOOR: "a token for another door",
    Code.NOT_SPENDER: "a door that another controller operates",
    Code.ALREADY_SPENT: "a token that was used before",
    Code.NONCE_UNKNOWN: "not the challenge of this door",
    Code.NONCE_EXPIRED: "a challenge that has expired",
    Code.POLICY_CARRIER_DOOR: "not one of its doors",
    Code.POLICY_EVIDENCE: "its confirmations are outside the limits",
    Code.POLICY_HOURS: "outside the hours for deliveries",
    Code.POLICY_RATE: "too many accesses within an hour",
    Code.CLOCK_UNTRUSTED: "the clock cannot be trusted",
    Code.LOCKDOWN: "the building is locked down",
    Code.DOOR_BLOCKED: "the door is blocked",
    Code.DELIVERIES_OFF: "the door takes no deliveries",
    Code.TAMPERED: "the door was tampered with",
    Code.JOURNAL_DISPUTED: "the journal is not whole",
    Code.CARRIER_LOCKED_OUT: "the carrier is locked out",
    Code.MANUAL_NOT_ALLOWED: "not allowed by hand",
    Code.PIN_MISSING: "no PIN",
    Code.PIN_WRONG: "a wrong PIN",
    Code.PIN_LOCKED: "too many wrong PINs",
    Code.MODE_NOT_POSSIBLE: "its lock cannot do that",
    Code.RATE_LIMITED: "too many requests",
    Code.STORE_FAILED: "the journal cannot be written",
    Code.LATE: "it took too long",
    Code.STOPPING: "Vestibule was being stopped",
    Code.STRIKE_UNREACHABLE: "the relay was not available",
    Code.STRIKE_REFUSED: "the relay did not do it",
    Code.OUTCOME_UNKNOWN: "the relay did not answer",
}
"""Why not. Nothing has to be said of GRANTED."""
