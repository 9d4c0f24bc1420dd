"""What the entities of a door have in common."""

from __future__ import annotations

from homeassistant.core import callback
from homeassistant.helpers.device_registry import DeviceInfo
from homeassistant.helpers.entity import Entity
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .const import DOMAIN
from .embedded import Doorway, VestibuleConfigEntry


class VestibuleDoorEntity(Entity):
    """An entity of one door; told of changes by its doorway, never polled."""

    _attr_has_entity_name = True
    _attr_should_poll = False

    _key: str
    """Tells the entities of one door apart, for ever."""

    def __init__(self, doorway: Doorway) -> None:
        """Belong to the device that the embedded controller has made for the door."""
        self._doorway = doorway
        self._attr_unique_id = f"{doorway.id}_{self._key}"
        self._attr_device_info = DeviceInfo(identifiers={(DOMAIN, doorway.id)})

    @callback
    def async_entity_id_changed(self, old_entity_id: str) -> None:
        """Go on under another entity id (a hook of Home Assistant 2026.11): nothing is keyed on it."""


@callback
def add_for_each_door(
    entry: VestibuleConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
    entity: type[VestibuleDoorEntity],
) -> None:
    """Add an entity of this class for each door, now and later."""

    @callback
    def add(doorway: Doorway) -> None:
        async_add_entities([entity(doorway)], config_subentry_id=doorway.setup.subentry_id)

    entry.runtime_data.for_each_door(add)
