"""Simulated relays: door hardware for those who have none, in a Home Assistant that is otherwise real.

Three devices, one for each way in which a relay can drive a door's strike, each with the contact of its door:

- *Gate relay*, a switch that goes back by itself after three seconds. As long as it is released, a further
command starts its timer again.
- *Lobby relay*, a switch that stays released until it is switched off. Its door has an exit button (REX) and a
tamper contact, too.
- *Parcel room relay*, a button: it can be pressed and tells nothing about itself.

The first and the last can be left out: those doors then have something else.

The relays move at once and never fail. A driver stands at every door and goes through it when it is released;
the actions of this integration play everything else that people do at doors. All is forgotten when Home
Assistant stops.
"""

from __future__ import annotations

from homeassistant.const import Platform
from homeassistant.core import HomeAssistant
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers.typing import ConfigType

from .doors import SimulatedDoor
from .relays import DOMAIN, Hardware, RelaysConfigEntry, open_log, relays_of
from .services import add_actions

CONFIG_SCHEMA = cv.config_entry_only_config_schema(DOMAIN)
PLATFORMS = [Platform.BINARY_SENSOR, Platform.BUTTON, Platform.SWITCH]


async def async_setup(hass: HomeAssistant, _: ConfigType) -> bool:
    """Add the actions."""
    add_actions(hass)
    return True


async def async_setup_entry(hass: HomeAssistant, entry: RelaysConfigEntry) -> bool:
    """Add the relays and their doors."""
    doors = {relay.key: SimulatedDoor(hass) for relay in relays_of(entry)}
    entry.runtime_data = Hardware(open_log(hass), doors)
    for door in doors.values():
        entry.async_on_unload(door.leave_alone)
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    return True


async def async_unload_entry(hass: HomeAssistant, entry: RelaysConfigEntry) -> bool:
    """Remove the relays and their doors."""
    return await hass.config_entries.async_unload_platforms(entry, PLATFORMS)
