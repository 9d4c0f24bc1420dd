"""A door as a lock. Unlocking is momentary; the door locks by itself, and the state is what was confirmed."""

from __future__ import annotations

from typing import Any, Final, override

from homeassistant.components.lock import LockEntity
from homeassistant.components.lock.const import LockEntityStateAttribute
from homeassistant.const import ATTR_CODE, Platform
from homeassistant.core import Context, HomeAssistant, callback
from homeassistant.exceptions import ServiceValidationError
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .actor import async_actor, raise_unless_done
from .const import DOMAIN
from .doorway import Doorway, PremisesEntry
from .entity import VestibuleDoorEntity, add_for_each_door, always
from .vestibule_core.door import Lock
from .vestibule_core.model import DoorMode
from .vestibule_core.pin import FORMAT

PARALLEL_UPDATES = 0  # one task per door in the controller; a slow strike delays its own door only

_IS_LOCKED: Final = {Lock.LOCKED: True, Lock.ACCESSED: False, Lock.UNKNOWN: None}


async def async_setup_entry(
    hass: HomeAssistant, entry: PremisesEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add a lock for each door, now and later."""
    add_for_each_door(hass, entry, async_add_entities, Platform.LOCK, [("lock", always, VestibuleLock)])


class VestibuleLock(VestibuleDoorEntity, LockEntity):
    """The lock of one door."""

    _attr_name = None
    # The journal knows who it was, for its time; the recorder would still name a person who was deleted there.
    _unrecorded_attributes = frozenset({LockEntityStateAttribute.CHANGED_BY})

    def __init__(self, doorway: Doorway) -> None:
        """Be this door's lock."""
        super().__init__(doorway, "lock")
        self._released_for: Context | None = None

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the door."""
        self._keep_up(self._follow)
        self._show()

    @override
    async def async_unlock(self, **kwargs: Any) -> None:
        """Release the door once; raise unless the strike confirmed it."""
        context = self._context  # another call may replace it while this one waits
        actor = await async_actor(self.hass, context)
        decision = await self._doorway.open_by_hand(actor, context, kwargs.get(ATTR_CODE))
        raise_unless_done(decision, self._door_name, self._doorway.why_not)

    @override
    async def async_lock(self, **kwargs: Any) -> None:
        """End a hold-open. Scenes and "lock all" scripts pass; a door that is released says why it does not lock."""
        context, state = self._context, self._doorway.state
        if state.mode is DoorMode.UNLOCKED:
            actor = await async_actor(self.hass, context)
            raise_unless_done(await self._doorway.set_mode(DoorMode.NORMAL, actor, context), self._door_name)
        elif state.position is Lock.ACCESSED:
            raise ServiceValidationError(
                translation_domain=DOMAIN,
                translation_key="locks_by_itself" if state.released or state.securing else "released_elsewhere",
                translation_placeholders={"door": self._door_name},
            )

    @callback
    def _follow(self) -> None:
        # Whoever asked is shown with the release, nobody with what follows of itself: locking again, a lost relay.
        releasing, was_releasing = self._doorway.state.releasing, self._attr_is_unlocking
        if releasing and not was_releasing:
            self._released_for = self._doorway.last_origin  # and not for who asks while the strike has not answered
        self.async_set_context((self._released_for if releasing or was_releasing else None) or Context())
        self._show()
        self.async_write_ha_state()

    def _show(self) -> None:
        state, strike = self._doorway.state, self._doorway.bolt
        self._attr_available = strike.is_reachable
        self._attr_assumed_state = not strike.capabilities.feedback
        self._attr_is_locked = _IS_LOCKED[state.position]
        self._attr_is_unlocking = state.releasing
        self._attr_changed_by = state.by.name if state.by else None
        self._attr_code_format = f"^{FORMAT}$" if self._doorway.door.pin else None
