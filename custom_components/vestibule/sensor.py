"""Diagnostics of a building, disabled until somebody wants them. Each entity is a row of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from homeassistant.components.sensor import (
    SensorEntity,
    SensorEntityDescription,
    SensorStateClass,
)
from homeassistant.const import EntityCategory
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .embedded import Embedded, VestibuleConfigEntry
from .entity import VestibuleBuildingEntity

PARALLEL_UPDATES = 0
SCAN_INTERVAL = timedelta(minutes=1)  # of the counts: a state for each access would only fill the recorder


@dataclass(frozen=True, kw_only=True)
class VestibuleSensorDescription(SensorEntityDescription):
    """A row: a count of the building."""

    count: Callable[[Embedded], int]


_ROWS: Final = (
    VestibuleSensorDescription(
        key="journal_entries",
        translation_key="journal_entries",
        state_class=SensorStateClass.TOTAL_INCREASING,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        count=lambda embedded: embedded.journal_entries,
    ),
    VestibuleSensorDescription(
        key="refusals_counted",
        translation_key="refusals_counted",
        state_class=SensorStateClass.TOTAL_INCREASING,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        count=lambda embedded: embedded.controller.counters.total(),
    ),
)


async def async_setup_entry(
    _: HomeAssistant, entry: VestibuleConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add the building's counts."""
    async_add_entities([VestibuleCount(entry.runtime_data, row) for row in _ROWS], update_before_add=True)


class VestibuleCount(VestibuleBuildingEntity, SensorEntity):
    """One count of the building."""

    entity_description: VestibuleSensorDescription
    _attr_should_poll = True

    def __init__(self, embedded: Embedded, row: VestibuleSensorDescription) -> None:
        """Count ``row``."""
        super().__init__(embedded, row.key)
        self.entity_description = row

    async def async_update(self) -> None:
        """Count."""
        self._attr_native_value = self.entity_description.count(self._embedded)
