"""What watches a door, and whether something is wrong with it. Each entity is a row of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, override

from homeassistant.components.binary_sensor import BinarySensorEntity, BinarySensorEntityDescription
from homeassistant.components.binary_sensor.const import BinarySensorDeviceClass
from homeassistant.const import EntityCategory, Platform
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .doorway import Doorway, Premises, PremisesEntry
from .entity import VestibuleDoorEntity, VestibulePremisesEntity, add_for_each_door, always
from .vestibule_core.door import Alarm, DoorState
from .vestibule_core.model import Sense, Sensor

PARALLEL_UPDATES = 0


@dataclass(frozen=True, kw_only=True)
class VestibuleBinarySensorDescription(BinarySensorEntityDescription):
    """A row: what it shows, and which doors have it."""

    sense: Callable[[DoorState], Sense]
    reasons: Callable[[DoorState], list[str]] | None = None
    exists: Callable[[Doorway], bool] = always
    sensor: Sensor | None = None
    """Whose word it is. Of a strike's own it is shown from the start: no other entity shows it."""


def _has(sensor: Sensor) -> Callable[[Doorway], bool]:
    return lambda doorway: sensor in doorway.door.sensors


def problems(state: DoorState) -> list[str]:
    """Return what is wrong with a door, in words for automations."""
    alarm = [] if state.alarm is Alarm.NONE else [f"door_{state.alarm.value}"]
    tampered = ["tampered"] if state.tampered else []
    return alarm + tampered + sorted(f"{sensor.value}_fault" for sensor in state.faults)


def _problem(state: DoorState) -> Sense:
    return Sense.ACTIVE if problems(state) else Sense.INACTIVE


_ROWS: Final = (
    VestibuleBinarySensorDescription(
        key="contact",
        device_class=BinarySensorDeviceClass.DOOR,
        sense=lambda state: state.contact,
        exists=_has(Sensor.CONTACT),
        sensor=Sensor.CONTACT,
    ),
    VestibuleBinarySensorDescription(
        key="problem",
        device_class=BinarySensorDeviceClass.PROBLEM,
        sense=_problem,
        reasons=problems,
        exists=lambda doorway: bool(doorway.door.sensors),  # else nothing could tell of one, and "OK" would be a guess
    ),
    VestibuleBinarySensorDescription(
        key="tamper",
        device_class=BinarySensorDeviceClass.TAMPER,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        sense=lambda state: state.tamper,
        exists=_has(Sensor.TAMPER),
        sensor=Sensor.TAMPER,
    ),
    VestibuleBinarySensorDescription(
        key="lock_monitor",
        translation_key="lock_monitor",
        device_class=BinarySensorDeviceClass.LOCK,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        sense=lambda state: state.lock_monitor,
        exists=_has(Sensor.LOCK_MONITOR),  # Activity would have two lines for one movement, the lock's and this one
    ),
    VestibuleBinarySensorDescription(
        key="rex",
        translation_key="rex",
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        sense=lambda state: state.rex,
        exists=_has(Sensor.REX),
    ),
)


async def async_setup_entry(
    hass: HomeAssistant, entry: PremisesEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add what each door has, now and later, and whether its controller answers if it may not."""
    if entry.runtime_data.can_be_away:
        async_add_entities([VestibuleConnection(entry.runtime_data)])
    rows = [(row.key, row.exists, partial(VestibuleBinarySensor, row=row)) for row in _ROWS]
    add_for_each_door(hass, entry, async_add_entities, Platform.BINARY_SENSOR, rows)


class VestibuleBinarySensor(VestibuleDoorEntity, BinarySensorEntity):
    """One sense of a door, or its problems."""

    entity_description: VestibuleBinarySensorDescription

    def __init__(self, doorway: Doorway, row: VestibuleBinarySensorDescription) -> None:
        """Show ``row`` of this door."""
        super().__init__(doorway, row.key)
        self.entity_description = row
        if row.sensor is not None and row.sensor not in doorway.watched_by_entities:
            self._attr_entity_registry_enabled_default = True

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the door."""
        self._keep_up(self._follow)
        self._show()

    @callback
    def _follow(self) -> None:
        if self._show():
            self.async_write_ha_state()

    def _show(self) -> bool:
        """Take over what the door says; return whether that is news."""
        before = self._attr_available, self._attr_is_on, getattr(self, "_attr_extra_state_attributes", None)
        row, state = self.entity_description, self._doorway.state
        sense = row.sense(state)
        self._attr_available = sense is not Sense.FAULT
        self._attr_is_on = None if sense is Sense.UNKNOWN else sense is Sense.ACTIVE
        if row.reasons is not None:
            reasons: dict[str, Any] = {"reasons": row.reasons(state)}
            self._attr_extra_state_attributes = reasons
        return before != (self._attr_available, self._attr_is_on, getattr(self, "_attr_extra_state_attributes", None))


class VestibuleConnection(VestibulePremisesEntity, BinarySensorEntity):
    """Whether a gateway answers."""

    _attr_device_class = BinarySensorDeviceClass.CONNECTIVITY
    _attr_entity_category = EntityCategory.DIAGNOSTIC

    def __init__(self, premises: Premises[Any]) -> None:
        """Watch this gateway."""
        super().__init__(premises, "connection")
        self._attr_is_on = premises.is_there

    @property
    @override
    def available(self) -> bool:
        """Always."""
        return True

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the gateway."""
        self.async_on_remove(self._premises.on_change(self._follow))
        self._attr_is_on = self._premises.is_there

    @callback
    def _follow(self) -> None:
        if self._attr_is_on is not self._premises.is_there:
            self._attr_is_on = self._premises.is_there
            self.async_write_ha_state()
