"""What is seen of the doors: a contact each, and in the lobby an exit button and a tamper contact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import override

from homeassistant.components.binary_sensor import BinarySensorEntity, BinarySensorEntityDescription
from homeassistant.components.binary_sensor.const import BinarySensorDeviceClass
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .doors import SimulatedDoor
from .relays import LOBBY, Relay, RelaysConfigEntry, relays_of

PARALLEL_UPDATES = 0


@dataclass(frozen=True, kw_only=True)
class SensorDescription(BinarySensorEntityDescription):
    """A sensor and what it reads off its door."""

    reads: Callable[[SimulatedDoor], bool]


CONTACT = SensorDescription(key="door", device_class=BinarySensorDeviceClass.DOOR, reads=lambda door: door.is_open)
REX = SensorDescription(key="rex", translation_key="rex", reads=lambda door: door.rex_pressed)
TAMPER = SensorDescription(key="tamper", device_class=BinarySensorDeviceClass.TAMPER, reads=lambda door: door.tampered)


async def async_setup_entry(
    _: HomeAssistant, entry: RelaysConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add the sensors."""
    sensors = [(relay, CONTACT) for relay in relays_of(entry)] + [(LOBBY, REX), (LOBBY, TAMPER)]
    doors = entry.runtime_data.doors
    async_add_entities(DoorSensor(relay, doors[relay.key], description) for relay, description in sensors)


class DoorSensor(BinarySensorEntity):
    """One sensor of one door."""

    entity_description: SensorDescription
    _attr_has_entity_name = True
    _attr_should_poll = False

    def __init__(self, relay: Relay, door: SimulatedDoor, description: SensorDescription) -> None:
        self.entity_description = description
        self._door = door
        self._attr_unique_id = f"{relay.key}-{description.key}"
        self._attr_device_info = relay.device()

    @property
    @override
    def is_on(self) -> bool:
        return self.entity_description.reads(self._door)

    @override
    async def async_added_to_hass(self) -> None:
        self.async_on_remove(self._door.watch(self.async_write_ha_state))
