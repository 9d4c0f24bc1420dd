"""Diagnostics of a building and of its strikes. Each entity is a row of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final, override

from homeassistant.components.sensor import (
    SensorDeviceClass,
    SensorEntity,
    SensorEntityDescription,
    SensorStateClass,
)
from homeassistant.const import PERCENTAGE, SIGNAL_STRENGTH_DECIBELS_MILLIWATT, EntityCategory, Platform
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.event import async_track_time_interval

from .doorway import Doorway, Premises, PremisesEntry
from .entity import VestibuleDoorEntity, VestibulePremisesEntity, add_for_each_door
from .vestibule_core.doorstrike.wire import Caps

PARALLEL_UPDATES = 0
SCAN_INTERVAL = timedelta(minutes=1)  # of the counts: a state for each access would only fill the recorder


@dataclass(frozen=True, kw_only=True)
class VestibuleSensorDescription(SensorEntityDescription):
    """A row: a count of the premises."""

    count: Callable[[Premises[Any]], int | None]
    """None: it does not say."""


_ROWS: Final = (
    VestibuleSensorDescription(
        key="journal_entries",
        translation_key="journal_entries",
        state_class=SensorStateClass.TOTAL_INCREASING,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        count=lambda premises: premises.journal_entries,
    ),
    VestibuleSensorDescription(
        key="refusals_counted",
        translation_key="refusals_counted",
        state_class=SensorStateClass.TOTAL_INCREASING,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        count=lambda premises: premises.refusals_counted,
    ),
)


@dataclass(frozen=True, kw_only=True)
class VestibuleStrikeSensorDescription(SensorEntityDescription):
    """A row: a figure of a strike that is reached by radio."""

    value: Callable[[Doorway], int | None]
    """None: it has not said lately."""
    exists: Callable[[Doorway], bool]


def _signal(doorway: Doorway) -> int | None:
    strike = doorway.radio_strike
    return None if strike is None else strike.radio.rssi


def _is_radio(doorway: Doorway) -> bool:
    return doorway.radio_caps is not None


def _has_battery(doorway: Doorway) -> bool:
    return doorway.radio_caps is not None and Caps.BATTERY in doorway.radio_caps


_STRIKE_ROWS: Final = (
    VestibuleStrikeSensorDescription(
        key="battery",
        device_class=SensorDeviceClass.BATTERY,
        state_class=SensorStateClass.MEASUREMENT,
        native_unit_of_measurement=PERCENTAGE,
        entity_category=EntityCategory.DIAGNOSTIC,
        value=lambda doorway: doorway.battery,
        exists=_has_battery,
    ),
    VestibuleStrikeSensorDescription(
        key="signal",
        device_class=SensorDeviceClass.SIGNAL_STRENGTH,
        state_class=SensorStateClass.MEASUREMENT,
        native_unit_of_measurement=SIGNAL_STRENGTH_DECIBELS_MILLIWATT,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        value=_signal,
        exists=_is_radio,
    ),
)


async def async_setup_entry(
    hass: HomeAssistant, entry: PremisesEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add the premises' counts, and what each strike says of itself, now and later."""
    premises = entry.runtime_data
    async_add_entities(
        [VestibuleCount(premises, row) for row in _ROWS if row.count(premises) is not None], update_before_add=True
    )
    rows = [(row.key, row.exists, partial(VestibuleStrikeSensor, row=row)) for row in _STRIKE_ROWS]
    add_for_each_door(hass, entry, async_add_entities, Platform.SENSOR, rows)


class VestibuleStrikeSensor(VestibuleDoorEntity, SensorEntity):
    """One figure of a strike; unavailable if it has not said it lately."""

    entity_description: VestibuleStrikeSensorDescription

    def __init__(self, doorway: Doorway, row: VestibuleStrikeSensorDescription) -> None:
        """Show ``row`` of this door's strike."""
        super().__init__(doorway, row.key)
        self.entity_description = row

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the strike."""
        self._keep_up(self._follow)
        # Of how loud it is heard, nothing tells. Home Assistant's own polling would outlive the last entity polled.
        self.async_on_remove(async_track_time_interval(self.hass, self._follow, SCAN_INTERVAL))
        self._show()

    @callback
    def _follow(self, *_: object) -> None:
        before = self._attr_native_value
        self._show()
        if self._attr_native_value != before:
            self.async_write_ha_state()

    def _show(self) -> None:
        self._attr_native_value = self.entity_description.value(self._doorway)
        self._attr_available = self._attr_native_value is not None


class VestibuleCount(VestibulePremisesEntity, SensorEntity):
    """One count of the building."""

    entity_description: VestibuleSensorDescription
    _attr_should_poll = True

    def __init__(self, premises: Premises[Any], row: VestibuleSensorDescription) -> None:
        """Count ``row``."""
        super().__init__(premises, row.key)
        self.entity_description = row

    async def async_update(self) -> None:
        """Count."""
        self._attr_native_value = self.entity_description.count(self._premises)
