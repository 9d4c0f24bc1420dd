"""A door's mode as a select: only what its strike can do, and *locked down* while the building is."""

from __future__ import annotations

from typing import override

from homeassistant.components.select import SelectEntity
from homeassistant.const import Platform
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .actor import async_actor, raise_unless_done
from .doorway import Doorway, PremisesEntry
from .entity import VestibuleDoorEntity, add_for_each_door, always
from .vestibule_core.model import DoorMode

PARALLEL_UPDATES = 0


async def async_setup_entry(
    hass: HomeAssistant, entry: PremisesEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add a mode for each door, now and later."""
    add_for_each_door(hass, entry, async_add_entities, Platform.SELECT, [("mode", always, VestibuleMode)])


class VestibuleMode(VestibuleDoorEntity, SelectEntity):
    """The mode of one door. Available whatever the strike does: a door out of reach can be blocked."""

    _attr_translation_key = "mode"

    def __init__(self, doorway: Doorway) -> None:
        """Be this door's mode."""
        super().__init__(doorway, "mode")
        self._attr_options: list[str] = []
        self._attr_current_option: str | None = None
        self._show()  # Home Assistant asks for the options before it adds the entity

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the door."""
        self._keep_up(self._follow)
        self._show()

    @override
    async def async_select_option(self, option: str) -> None:
        """Set the mode, durably; raise if that was not done."""
        context = self._context  # another call may replace it while this one waits
        actor = await async_actor(self.hass, context)
        raise_unless_done(await self._doorway.set_mode(DoorMode(option), actor, context), self._door_name)

    @callback
    def _follow(self) -> None:
        if self._show():
            self.async_write_ha_state()

    def _show(self) -> bool:
        """Take over the door's mode; return whether that is news."""
        before = self._attr_current_option, self._attr_options
        mode, can_hold = self._doorway.state.mode, self._doorway.bolt.capabilities.can_hold
        self._attr_current_option = mode.value
        self._attr_options = [
            each.value
            for each in DoorMode
            if each is mode or not (each is DoorMode.LOCKED_DOWN or (each is DoorMode.UNLOCKED and not can_hold))
        ]
        return before != (self._attr_current_option, self._attr_options)
