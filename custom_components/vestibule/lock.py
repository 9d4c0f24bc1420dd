"""A door as a lock. Unlocking is momentary; the door locks by itself, and the state is what was confirmed."""

from __future__ import annotations

from typing import Any, Final, override

from homeassistant.components.lock import LockEntity
from homeassistant.core import Context, HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .const import DOMAIN
from .embedded import VestibuleConfigEntry
from .entity import VestibuleDoorEntity, add_for_each_door
from .vestibule_core.door import Lock
from .vestibule_core.model import Actor, Code

PARALLEL_UPDATES = 0  # one task per door in the controller; a slow strike delays its own door only

_IS_LOCKED: Final = {Lock.LOCKED: True, Lock.ACCESSED: False, Lock.UNKNOWN: None}

_NOT_OPENED: Final = {
    Code.LATE: "unlock_late",
    Code.OUTCOME_UNKNOWN: "unlock_outcome_unknown",
    Code.RATE_LIMITED: "unlock_too_many",
    Code.STOPPING: "unlock_stopped",
    Code.STORE_FAILED: "unlock_store_failed",
    Code.STRIKE_REFUSED: "unlock_strike_refused",
    Code.STRIKE_UNREACHABLE: "unlock_strike_unreachable",
    Code.WRONG_DOOR: "unknown_door",
}


async def async_setup_entry(
    _: HomeAssistant, entry: VestibuleConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add a lock for each door, now and later."""
    add_for_each_door(entry, async_add_entities, VestibuleLock)


class VestibuleLock(VestibuleDoorEntity, LockEntity):
    """The lock of one door."""

    _attr_name = None
    _key = "lock"

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the door."""
        self.async_on_remove(self._doorway.on_state(self._follow))
        self._show()

    @override
    async def async_unlock(self, **kwargs: Any) -> None:
        """Release the door once; raise unless the strike confirmed it."""
        context = self._context  # another call may replace it while this one waits
        decision = await self._doorway.open_by_hand(await self._actor(context), context)
        if not decision.granted:
            raise HomeAssistantError(
                translation_domain=DOMAIN,
                translation_key=_NOT_OPENED[decision.code],
                translation_placeholders={"door": self._doorway.setup.door.name},
            )

    @override
    async def async_lock(self, **kwargs: Any) -> None:
        """Do nothing: it locks by itself. Scenes and "lock all" scripts pass; a released door says why not."""
        state = self._doorway.state
        if state.lock is Lock.ACCESSED:
            is_ours = state.deadline is not None or state.securing
            raise ServiceValidationError(
                translation_domain=DOMAIN,
                translation_key="locks_by_itself" if is_ours else "released_elsewhere",
                translation_placeholders={"door": self._doorway.setup.door.name},
            )

    async def _actor(self, context: Context | None) -> Actor:
        user_id = context.user_id if context else None
        user = await self.hass.auth.async_get_user(user_id) if user_id else None
        if user is None:
            return Actor(user_id=None, name=None, is_admin=False)  # an automation
        return Actor(user_id=user.id, name=user.name, is_admin=user.is_admin)

    @callback
    def _follow(self) -> None:
        # Whoever asked is shown with the release, nobody with what follows of itself: locking again, a lost relay.
        is_release = self._doorway.state.releasing or self._attr_is_unlocking
        self.async_set_context((self._doorway.last_origin if is_release else None) or Context())
        self._show()
        self.async_write_ha_state()

    def _show(self) -> None:
        state, strike = self._doorway.state, self._doorway.strike
        self._attr_available = strike.is_reachable
        self._attr_assumed_state = not strike.capabilities.feedback
        self._attr_is_locked = _IS_LOCKED[state.lock]
        self._attr_is_unlocking = state.releasing
        self._attr_changed_by = state.by
