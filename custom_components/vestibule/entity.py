"""What the entities of doors and of their premises have in common: each is a row of its platform's table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, override

from homeassistant.const import Platform
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.device_registry import DeviceInfo
from homeassistant.helpers.entity import Entity
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .const import DOMAIN
from .doorway import Doorway, Premises, PremisesEntry


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
    @override
    def available(self) -> bool:
        """Whether what it shows is true now."""
        return self._attr_available and self._doorway.is_known

    @callback
    def _keep_up(self, follow: Callable[[], None]) -> None:
        """Call ``follow`` whenever the door may be in another state, as long as the entity lives."""
        self.async_on_remove(self._doorway.on_state(follow))
        self.async_on_remove(self._doorway.on_known(self.async_write_ha_state))

    @property
    def _door_name(self) -> str:
        return self._doorway.door.name


class VestibulePremisesEntity(VestibuleEntity):
    """An entity of what is common to the doors of one controller: of the building, or of a gateway."""

    def __init__(self, premises: Premises[Any], key: str) -> None:
        """Belong to the device of the premises; ``key`` tells its entities apart, for ever."""
        self._premises = premises
        self._attr_unique_id = f"{premises.id}_{key}"
        self._attr_device_info = DeviceInfo(identifiers={(DOMAIN, premises.id)})

    @property
    @override
    def available(self) -> bool:
        """Whether what it shows is true now."""
        return self._premises.is_there


def unique_id(doorway: Doorway, key: str) -> str:
    """Return the unique id of an entity of a door."""
    return f"{doorway.id}_{key}"


def always(_: Doorway) -> bool:
    """Every door has it."""
    return True


type Row = tuple[str, Callable[[Doorway], bool], Callable[[Doorway], VestibuleDoorEntity]]
"""The key of an entity, whether a door has it, and what makes it."""


@callback
def add_for_each_door(
    hass: HomeAssistant,
    entry: PremisesEntry,
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
            if exists(doorway):
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
            async_add_entities(new, config_subentry_id=doorway.subentry_id)

    entry.runtime_data.for_each_door(keep)
