"""What happens at a door, as an event entity: each grant, each outcome, and each refusal of a token whose signature is
good. A forged, malformed or already presented text leaves only a count.
"""

from __future__ import annotations

from typing import Final, override

from homeassistant.components.event import EventEntity
from homeassistant.core import Context, HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .embedded import VestibuleConfigEntry, access_data
from .entity import VestibuleDoorEntity, add_for_each_door
from .vestibule_core.model import AccessEvent, EventName

PARALLEL_UPDATES = 0

_EVENT_TYPES: Final = [name.value for name in EventName]


async def async_setup_entry(
    _: HomeAssistant, entry: VestibuleConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add an event entity for each door, now and later."""
    add_for_each_door(entry, async_add_entities, VestibuleAccess)


class VestibuleAccess(VestibuleDoorEntity, EventEntity):
    """The accesses of one door. Always available: Home Assistant's triggers ignore the first event after an outage."""

    _attr_translation_key = "access"
    _attr_event_types = _EVENT_TYPES
    _key = "access"

    @override
    async def async_added_to_hass(self) -> None:
        """Follow the door."""
        self.async_on_remove(self._doorway.on_access(self._take))

    @callback
    def _take(self, event: AccessEvent) -> None:
        self.async_set_context(event.origin if isinstance(event.origin, Context) else Context())
        self._trigger_event(event.outcome.value, access_data(event))
        self.async_write_ha_state()
