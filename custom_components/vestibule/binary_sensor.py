"""What watches a door, and whether something is wrong with it. Each entity is a row of a table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, override

from homeassistant.components.binary_sensor import BinarySensorEntity, BinarySensorEntityDescription
from homeassistant.components.binary_sensor.const import BinarySensorDeviceClass
from homeassistant.config_entries import ConfigSubentry
from homeassistant.const import CONF_HOST, EntityCategory, Platform
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .const import CONF_ISSUER, SUBENTRY_CARRIER
from .doorway import Doorway, Premises, PremisesEntry
from .embedded import Embedded
from .entity import VestibuleDoorEntity, VestibulePremisesEntity, add_for_each_door, always
from .vestibule_core.door import Alarm, DoorState
from .vestibule_core.model import Issuer, Sense, Sensor

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
    if isinstance(entry.runtime_data, Embedded):
        _Connections(hass, entry, entry.runtime_data, async_add_entities).begin()
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


class VestibuleLink(VestibulePremisesEntity, BinarySensorEntity):
    """Whether the link to a carrier's cloud is up: over it its deliveries come."""

    _attr_device_class = BinarySensorDeviceClass.CONNECTIVITY
    _attr_entity_category = EntityCategory.DIAGNOSTIC
    _attr_translation_key = "link"

    def __init__(self, embedded: Embedded, carrier: ConfigSubentry) -> None:
        """Watch the link to this carrier's cloud. The entity is the building's: a device is of one subentry at most."""
        super().__init__(embedded, f"{_LINK}{carrier.subentry_id}")
        self.carrier: Final = carrier.title
        self._attr_translation_placeholders = {"carrier": carrier.title}
        self._links, self._issuer = embedded.links, Issuer(carrier.data[CONF_ISSUER])
        self._attr_is_on = self._links.is_connected(self._issuer)

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the link."""
        self.async_on_remove(self._links.subscribe(self._follow))
        self._attr_is_on = self._links.is_connected(self._issuer)

    @callback
    def _follow(self) -> None:
        if self._attr_is_on is not (is_on := self._links.is_connected(self._issuer)):
            self._attr_is_on = is_on
            self.async_write_ha_state()


_LINK: Final = "link_"
"""Begins the keys of these; a carrier's subentry id follows."""


class _Connections:
    """One for each carrier that is linked, now and whenever that changes."""

    def __init__(
        self, hass: HomeAssistant, entry: PremisesEntry, embedded: Embedded, add: AddConfigEntryEntitiesCallback
    ) -> None:
        self._hass = hass
        self._entry = entry
        self._embedded = embedded
        self._add = add
        self._shown: dict[str, VestibuleLink] = {}
        """By the subentry id of the carrier."""
        self._keeping = asyncio.Lock()

    @callback
    def begin(self) -> None:
        self._entry.async_on_unload(self._entry.add_update_listener(self._entry_changed))
        self._keep()

    async def _entry_changed(self, _: HomeAssistant, __: PremisesEntry) -> None:
        async with self._keeping:
            for carrier, link in [*self._shown.items()]:
                # Its name is made once: an entity with another one takes its place.
                if (known := self._carriers.get(carrier)) is not None and known.title != link.carrier:
                    del self._shown[carrier]
                    await link.async_remove()
            self._keep()

    @property
    def _carriers(self) -> dict[str, ConfigSubentry]:
        """The carriers that are linked, by subentry id."""
        return {
            carrier.subentry_id: carrier
            for carrier in self._entry.subentries.values()
            if carrier.subentry_type == SUBENTRY_CARRIER and CONF_HOST in carrier.data
        }

    @callback
    def _keep(self) -> None:
        carriers = self._carriers
        registry = er.async_get(self._hass)
        begins = f"{self._embedded.id}_{_LINK}"
        for known in er.async_entries_for_config_entry(registry, self._entry.entry_id):
            if known.unique_id.startswith(begins) and known.unique_id.removeprefix(begins) not in carriers:
                registry.async_remove(known.entity_id)  # its carrier is gone, maybe since before a restart
        self._shown = {carrier: link for carrier, link in self._shown.items() if carrier in carriers}
        new = {each: VestibuleLink(self._embedded, carriers[each]) for each in carriers if each not in self._shown}
        self._shown |= new
        self._add(new.values())
