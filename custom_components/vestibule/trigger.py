"""The triggers: access granted or denied, a door held open or forced open, at the doors of any target.

They look at the doors' event entities, so that areas, floors, labels and devices work as everywhere. An event entity
of another integration in the same area sets nothing off.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar, Final, override

from homeassistant.components.event import EventEntityStateAttribute
from homeassistant.const import Platform
from homeassistant.core import HomeAssistant, State
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.automation import DomainSpec
from homeassistant.helpers.trigger import NotTriggeredReasonReporter, StatelessEntityTriggerBase, Trigger

from .const import DOMAIN
from .vestibule_core.model import EventName


class _DoorTrigger(StatelessEntityTriggerBase):
    """One kind of event at one or more doors."""

    _domain_specs = MappingProxyType({Platform.EVENT.value: DomainSpec()})
    _what: ClassVar[EventName]

    @override
    def entity_filter(self, entities: set[str]) -> set[str]:
        """Keep the entities that tell of our doors."""
        registry = er.async_get(self._hass)
        return {
            entity_id
            for entity_id in super().entity_filter(entities)
            if (entry := registry.async_get(entity_id)) is not None and entry.platform == DOMAIN
        }

    @override
    def is_valid_state(self, state: State, report_not_triggered: NotTriggeredReasonReporter) -> bool:
        """Return whether this event is meant."""
        return bool(state.attributes.get(EventEntityStateAttribute.EVENT_TYPE) == self._what)


def _trigger(what: EventName) -> type[Trigger]:
    return type(f"{what.value}_trigger", (_DoorTrigger,), {"_what": what})


TRIGGERS: Final[dict[str, type[Trigger]]] = {
    what.value: _trigger(what)
    for what in (
        EventName.ACCESS_GRANTED,
        EventName.ACCESS_DENIED,
        EventName.DOOR_HELD_OPEN,
        EventName.DOOR_FORCED_OPEN,
    )
}


async def async_get_triggers(_: HomeAssistant) -> dict[str, type[Trigger]]:
    """Return the triggers by their names."""
    return TRIGGERS
