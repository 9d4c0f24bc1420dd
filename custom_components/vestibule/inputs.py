"""What watches a door, as Home Assistant has it: a binary sensor for each of its contact, request to exit, tamper
switch and lock monitor. Reads and passes on; decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from homeassistant.const import ATTR_RESTORED, STATE_OFF, STATE_ON, STATE_UNAVAILABLE
from homeassistant.core import HomeAssistant, State, callback

from .registered import follow, resolve
from .vestibule_core.model import Sense

_SENSES: Final = {STATE_ON: Sense.ACTIVE, STATE_OFF: Sense.INACTIVE, STATE_UNAVAILABLE: Sense.FAULT}


class EntitySensor:
    """One binary sensor; ``on`` is what ``Sensor`` calls active."""

    def __init__(self, hass: HomeAssistant, entity: str) -> None:
        """Take an id of the entity registry, or an entity id. It need not exist yet."""
        self.entity = entity
        self._hass = hass

    @property
    def sense(self) -> Sense:
        """What it says; UNKNOWN if it is not there or has said nothing."""
        entity_id = resolve(self._hass, self.entity)
        return _sense(self._hass.states.get(entity_id) if entity_id else None)

    @callback
    def subscribe(self, listener: Callable[[Sense], None]) -> Callable[[], None]:
        """Call ``listener`` with each new word of it, also after it was renamed, until the returned one is called."""
        last = self.sense

        @callback
        def changed(state: State | None) -> None:
            nonlocal last
            if (sense := _sense(state)) is not last:
                last = sense
                listener(sense)

        return follow(self._hass, self.entity, changed)


def _sense(state: State | None) -> Sense:
    if state is None or state.attributes.get(ATTR_RESTORED):  # of before a restart: its integration is not there yet
        return Sense.UNKNOWN
    return _SENSES.get(state.state, Sense.UNKNOWN)
