"""The relays that are switches: on is released."""

from __future__ import annotations

from datetime import datetime
from typing import Any, override

from homeassistant.components.switch import SwitchEntity
from homeassistant.core import CALLBACK_TYPE, Context, HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.event import async_call_later

from .relays import GATE, LOBBY, Hardware, Relay, RelaysConfigEntry, relays_of

PARALLEL_UPDATES = 0


async def async_setup_entry(
    _: HomeAssistant, entry: RelaysConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add the switches."""
    switches = [relay for relay in relays_of(entry) if relay in (GATE, LOBBY)]
    async_add_entities([RelaySwitch(relay, entry.runtime_data) for relay in switches])


class RelaySwitch(SwitchEntity):
    """A relay that is released while it is on."""

    _attr_has_entity_name = True
    _attr_name = None
    _attr_should_poll = False

    def __init__(self, relay: Relay, hardware: Hardware) -> None:
        self._relay = relay
        self._log = hardware.log
        self._door = hardware.doors[relay.key]
        self._stop_timer: CALLBACK_TYPE | None = None
        self._attr_is_on = False
        self._attr_unique_id = relay.key
        self._attr_device_info = relay.device()

    @override
    async def async_turn_on(self, **kwargs: Any) -> None:
        """Release; a relay with a timer starts it, or starts it again."""
        await self.hass.async_add_executor_job(self._log.released, self._relay)
        self._drop_timer()
        if self._relay.returns_after is not None:
            self._stop_timer = async_call_later(self.hass, self._relay.returns_after, self._return)
        self._attr_is_on = True
        self.async_write_ha_state()
        self._door.released()

    @override
    async def async_turn_off(self, **kwargs: Any) -> None:
        """Go back."""
        self._drop_timer()
        self._attr_is_on = False
        self.async_write_ha_state()
        self._door.secured()

    @override
    async def async_will_remove_from_hass(self) -> None:
        self._drop_timer()

    @callback
    def _return(self, _: datetime) -> None:
        self._stop_timer = None
        self._attr_is_on = False
        self.async_set_context(Context())  # nobody did this; it happened
        self.async_write_ha_state()
        self._door.secured()

    @callback
    def _drop_timer(self) -> None:
        if self._stop_timer is not None:
            self._stop_timer()
            self._stop_timer = None
