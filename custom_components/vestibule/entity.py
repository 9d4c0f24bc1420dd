"""What the entities of a building and of its doors have in common: each is a row of its platform's table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from homeassistant.const import Platform
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.device_registry import DeviceInfo
from homeassistant.helpers.entity import Entity
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .building import DoorSetup
from .const import DOMAIN
from .embedded import Doorway, Embedded, VestibuleConfigEntry


class VestibuleEntity(Entity):
    """An entity that is told of changes, never polled."""

    _attr_has_entity_name = True
    _attr_should_poll = False

    @callback
    def async_entity_id_changed(self, old_entity_id: str) -> None:
        """Go on under another entity id (a hook of Home Assistant 2026.11): nothing is keyed on it."""


class VestibuleDoorEntity(VestibuleEntity):
    """An entity of one door."""

    def __init__(self, doorway: Doorway, key: str) -> None:
        """Belong to the device of the door; ``key`` tells its entities apart, for ever."""
        self._doorway = doorway
        self._attr_unique_id = unique_id(doorway, key)
        self._attr_device_info = doorway.device_info

    @property
    def _door_name(self) -> str:
        return self._doorway.setup.door.name


class VestibuleBuildingEntity(VestibuleEntity):
    """An entity of the building."""

    def __init__(self, embedded: Embedded, key: str) -> None:
        """Belong to the device of the building; ``key`` tells its entities apart, for ever."""
        self._embedded = embedded
        self._attr_unique_id = f"{embedded.building_id}_{key}"
        self._attr_device_info = DeviceInfo(identifiers={(DOMAIN, embedded.building_id)})


def unique_id(doorway: Doorway, key: str) -> str:
    """Return the unique id of an entity of a door."""
    return f"{doorway.id}_{key}"


def always(_: DoorSetup) -> bool:
    """Every door has it."""
    return True


type Row = tuple[str, Callable[[DoorSetup], bool], Callable[[Doorway], VestibuleDoorEntity]]
"""The key of an entity, whether a door has it, and what makes it."""


@callback
def add_for_each_door(
    hass: HomeAssistant,
    entry: VestibuleConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
    platform: Platform,
    rows: Sequence[Row],
) -> None:
    """Keep, for each door, the entities that its set-up asks for, now and whenever it changes."""

    @callback
    def keep(doorway: Doorway) -> None:
        new = []
        for key, exists, make in rows:
            known = (platform, key) in doorway.entities
            if exists(doorway.setup):
                if not known:
                    doorway.entities.add((platform, key))
                    new.append(make(doorway))
            elif exists is not always:
                doorway.entities.discard((platform, key))
                # Also one of before a restart: the door has lost what it showed.
                registry = er.async_get(hass)
                if gone := registry.async_get_entity_id(platform, DOMAIN, unique_id(doorway, key)):
                    registry.async_remove(gone)
        if new:
            async_add_entities(new, config_subentry_id=doorway.setup.subentry_id)

    entry.runtime_data.for_each_door(keep)
