"""By hand, at Home Assistant's edge: who asks, and how they are told no. Whether they may is the core's to say."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError

from .const import DOMAIN
from .vestibule_core.model import Actor, Code, Decision

_NOT_YOURS: Final = {
    Code.DOOR_BLOCKED: "door_blocked",
    Code.JOURNAL_DISPUTED: "journal_disputed",
    Code.LOCKDOWN: "locked_down",
    Code.MANUAL_NOT_ALLOWED: "manual_not_allowed",
    Code.MODE_NOT_POSSIBLE: "mode_not_possible",
    Code.PIN_LOCKED: "pin_locked",
    Code.PIN_MISSING: "pin_missing",
    Code.PIN_WRONG: "pin_wrong",
    Code.TAMPERED: "still_tampered",
}
_FAILED: Final = {
    Code.LATE: "unlock_late",
    Code.OUTCOME_UNKNOWN: "unlock_outcome_unknown",
    Code.RATE_LIMITED: "unlock_too_many",
    Code.STOPPING: "unlock_stopped",
    Code.STORE_FAILED: "store_failed",
    Code.STRIKE_REFUSED: "unlock_strike_refused",
    Code.STRIKE_UNREACHABLE: "unlock_strike_unreachable",
    Code.WRONG_DOOR: "unknown_door",
}
"""Each code that something done by hand can come out as, and the text that says so."""


async def async_actor(hass: HomeAssistant, context: Context | None) -> Actor:
    """Return who asks. A call that names no person is an automation; a person who is gone may do nothing special."""
    if context is None or context.user_id is None:
        return Actor(user_id=None, name=None, is_admin=False)
    user = await hass.auth.async_get_user(context.user_id)
    if user is None:
        return Actor(user_id=context.user_id, name=None, is_admin=False)
    return Actor(user_id=user.id, name=user.name, is_admin=user.is_admin)


_BECAUSE: Final = {
    Code.STRIKE_REFUSED: "unlock_strike_refused_because",
    Code.STRIKE_UNREACHABLE: "unlock_strike_unreachable_because",
}
"""The same, where the strike has words of its own for it."""


def raise_unless_done(decision: Decision, name: str, why: Mapping[Code, str] = MappingProxyType({})) -> None:
    """Raise what tells a person why something at ``name`` (a door, the building) was not done, or may not have been.

    ``why`` is what a door's strike says to that itself.
    """
    if decision.granted:
        return
    if decision.code in why and (because := _BECAUSE.get(decision.code)):
        raise HomeAssistantError(
            translation_domain=DOMAIN,
            translation_key=because,
            translation_placeholders={"door": name, "reason": why[decision.code]},
        )
    error = ServiceValidationError if decision.code in _NOT_YOURS else HomeAssistantError
    raise error(
        translation_domain=DOMAIN,
        translation_key=_NOT_YOURS.get(decision.code) or _FAILED[decision.code],
        translation_placeholders={"door": name},
    )
