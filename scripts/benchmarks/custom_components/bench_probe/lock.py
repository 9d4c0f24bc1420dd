"""What a lock entity costs that does nothing else."""

from __future__ import annotations

from typing import Any

from homeassistant.components.lock import LockEntity
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddEntitiesCallback


async def async_setup_platform(
    hass: HomeAssistant, config: Any, async_add_entities: AddEntitiesCallback, discovery_info: Any = None
) -> None:
    """Add the locks."""
    async_add_entities([Trivial("Trivial"), Driving("Driving")])


class Trivial(LockEntity):
    """Is unlocked for half a second, and records nothing."""

    _attr_should_poll = False
    _attr_is_locked = True

    def __init__(self, name: str) -> None:
        self._attr_name = name
        self._attr_unique_id = name

    async def async_unlock(self, **kwargs: Any) -> None:
        self._attr_is_locked = False
        self.async_write_ha_state()
        self.hass.loop.call_later(0.5, self._relock)

    @callback
    def _relock(self) -> None:
        self._attr_is_locked = True
        self.async_write_ha_state()


class Driving(Trivial):
    """The same, and presses a relay."""

    async def async_unlock(self, **kwargs: Any) -> None:
        relay = {"entity_id": "button.bench_relay_199"}
        await self.hass.services.async_call("button", "press", relay, blocking=True)
        await super().async_unlock()
