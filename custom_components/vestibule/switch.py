"""Switches: whether a door takes deliveries, and the building's lockdown. Turning either the safe way is anybody's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, override

from homeassistant.components.switch import SwitchEntity
from homeassistant.const import EntityCategory, Platform
from homeassistant.core import Context, HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .actor import async_actor, raise_unless_done
from .doorway import Doorway, Premises, PremisesEntry
from .entity import VestibuleDoorEntity, VestibuleEntity, VestibulePremisesEntity, add_for_each_door, always

PARALLEL_UPDATES = 0


async def async_setup_entry(
    hass: HomeAssistant, entry: PremisesEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add the building's lockdown, and a switch for each door, now and later."""
    async_add_entities([VestibuleLockdown(entry.runtime_data)])
    rows = [("accept_deliveries", always, VestibuleDeliveries)]
    add_for_each_door(hass, entry, async_add_entities, Platform.SWITCH, rows)


class _ByHand(VestibuleEntity, SwitchEntity, ABC):
    """A switch whose turning is a wish, which the core grants or not."""

    @abstractmethod
    async def _wish(self, on: bool, context: Context | None) -> None:
        """Do it durably, or raise."""

    @property
    @abstractmethod
    def _is_so(self) -> bool:
        """What holds."""

    @override
    async def async_turn_on(self, **kwargs: Any) -> None:
        """Turn on; raise if that was not done, or not made durable."""
        await self._wish(True, self._context)

    @override
    async def async_turn_off(self, **kwargs: Any) -> None:
        """Turn off; raise if that was not done, or not made durable."""
        await self._wish(False, self._context)

    @callback
    def _follow(self) -> None:
        if self._attr_is_on is not self._is_so:
            self._attr_is_on = self._is_so
            self.async_write_ha_state()


class VestibuleDeliveries(VestibuleDoorEntity, _ByHand):
    """Whether one door takes deliveries."""

    _attr_translation_key = "accept_deliveries"
    _attr_entity_category = EntityCategory.CONFIG

    def __init__(self, doorway: Doorway) -> None:
        """Be this door's switch."""
        super().__init__(doorway, "accept_deliveries")

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the door."""
        self._keep_up(self._follow)
        self._attr_is_on = self._is_so

    @property
    @override
    def _is_so(self) -> bool:
        return self._doorway.state.accepts_deliveries

    @override
    async def _wish(self, on: bool, context: Context | None) -> None:
        actor = await async_actor(self.hass, context)
        raise_unless_done(await self._doorway.set_deliveries(on, actor, context), self._door_name)


class VestibuleLockdown(VestibulePremisesEntity, _ByHand):
    """The lockdown of the building, or of one gateway. Keeps nobody in: the way out is mechanical."""

    _attr_translation_key = "lockdown"
    # Also keeps it from voice assistants, which get every plain switch unasked, and call without a user.
    _attr_entity_category = EntityCategory.CONFIG

    def __init__(self, premises: Premises[Any]) -> None:
        """Be the premises' switch."""
        super().__init__(premises, "lockdown")
        self._attr_extra_state_attributes: dict[str, list[str]] = {}
        self._was_there = False

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the premises."""
        self.async_on_remove(self._premises.on_change(self._follow))
        self._show()

    @callback
    @override
    def _follow(self) -> None:
        if self._show():
            self.async_write_ha_state()

    def _show(self) -> bool:
        """Take over what holds; return whether that is news."""
        before = self._attr_is_on, self._attr_extra_state_attributes, self._was_there
        self._attr_is_on, self._was_there = self._is_so, self._premises.is_there
        self._attr_extra_state_attributes = {"pending": self._premises.lockdown_pending}
        return before != (self._attr_is_on, self._attr_extra_state_attributes, self._was_there)

    @property
    @override
    def _is_so(self) -> bool:
        return self._premises.locked_down

    @override
    async def _wish(self, on: bool, context: Context | None) -> None:
        actor = await async_actor(self.hass, context)
        raise_unless_done(await self._premises.set_lockdown(on, actor, context), self._premises.name)
