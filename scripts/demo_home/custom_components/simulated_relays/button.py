"""The relay that is a button."""

from __future__ import annotations

from typing import override

from homeassistant.components.button import ButtonEntity
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .relays import PARCEL_ROOM, Hardware, Relay, RelaysConfigEntry, relays_of

PARALLEL_UPDATES = 0


async def async_setup_entry(
    _: HomeAssistant, entry: RelaysConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add the button, if its relay was added."""
    if PARCEL_ROOM in relays_of(entry):
        async_add_entities([RelayButton(PARCEL_ROOM, entry.runtime_data)])


class RelayButton(ButtonEntity):
    """A relay that releases for a while when it is pressed, and reports nothing."""

    _attr_has_entity_name = True
    _attr_name = None

    def __init__(self, relay: Relay, hardware: Hardware) -> None:
        self._relay = relay
        self._log = hardware.log
        self._door = hardware.doors[relay.key]
        self._attr_unique_id = relay.key
        self._attr_device_info = relay.device()

    @override
    async def async_press(self) -> None:
        await self.hass.async_add_executor_job(self._log.released, self._relay)
        self._door.released()
