"""Simulated relays: door hardware for those who have none, in a Home Assistant that is otherwise real.

Three devices, one for each way in which a relay can drive a door's strike:

- *Gate relay*, a switch that goes back by itself after three seconds. As long as it is released, a further
command starts its timer again.
- *Lobby relay*, a switch that stays released until it is switched off.
- *Parcel room relay*, a button: it can be pressed and tells nothing about itself.

They move at once, never fail, and forget everything when Home Assistant stops.
"""

from __future__ import annotations

from homeassistant.const import Platform
from homeassistant.core import HomeAssistant

from .relays import RelaysConfigEntry, open_log

PLATFORMS = [Platform.BUTTON, Platform.SWITCH]


async def async_setup_entry(hass: HomeAssistant, entry: RelaysConfigEntry) -> bool:
    """Add the relays."""
    entry.runtime_data = open_log(hass)
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    return True


async def async_unload_entry(hass: HomeAssistant, entry: RelaysConfigEntry) -> bool:
    """Remove the relays."""
    return await hass.config_entries.async_unload_platforms(entry, PLATFORMS)
