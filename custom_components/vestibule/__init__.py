"""Vestibule: doors that open to signed one-time tokens.

One building entry, whose subentries are the doors and the carriers, and one entry for each gateway. Sets up and takes
down; what happens in between is the embedded controller's (embedded.py), or the gateway's (remote.py).
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from homeassistant.config_entries import ConfigEntry
from homeassistant.const import (
    EVENT_COMPONENT_LOADED,
    EVENT_CORE_CONFIG_UPDATE,
    EVENT_HOMEASSISTANT_FINAL_WRITE,
    Platform,
)
from homeassistant.core import HassJob, HomeAssistant
from homeassistant.exceptions import ConfigEntryError, ConfigEntryNotReady
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers.event import async_track_time_interval
from homeassistant.helpers.start import async_at_started
from homeassistant.helpers.typing import ConfigType
from homeassistant.util import dt as dt_util

from .auditing import async_setup_auditing
from .const import CONF_GATEWAY, DOMAIN
from .embedded import Embedded, VestibuleConfigEntry, is_building, loaded_building, put_away
from .gateway_issues import tell_of_unreached, watch_gateway
from .http import async_register_views
from .issues import Kind, tell_of_unopened, watch
from .remote import GatewayConfigEntry, Remote
from .services import async_setup_services
from .told import told_store

RETAIN_EVERY: Final = timedelta(hours=1)

CONFIG_SCHEMA = cv.config_entry_only_config_schema(DOMAIN)

PLATFORMS = (
    Platform.BINARY_SENSOR,
    Platform.EVENT,
    Platform.LOCK,
    Platform.SELECT,
    Platform.SENSOR,
    Platform.SWITCH,
)


async def async_setup(hass: HomeAssistant, config: ConfigType) -> bool:  # noqa: ARG001 - Home Assistant's signature
    """Register the actions and the intake; they answer with an error while no building is loaded."""
    async_setup_services(hass)
    async_setup_auditing(hass)
    async_register_views(hass)
    return True


async def async_setup_entry(hass: HomeAssistant, entry: ConfigEntry[Any]) -> bool:
    """Start the embedded controller, or follow a gateway, with the entities of its doors."""
    set_up = _set_up_building if is_building(entry) else _set_up_gateway
    return await set_up(hass, entry)


async def _set_up_gateway(hass: HomeAssistant, entry: GatewayConfigEntry) -> bool:
    try:
        remote = entry.runtime_data = await Remote.open(hass, entry)
    except ConfigEntryNotReady:
        tell_of_unreached(hass, entry)
        raise
    entry.async_on_unload(remote.stop)
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    remote.start()
    entry.async_on_unload(entry.add_update_listener(_async_gateway_changed))
    watch_gateway(hass, entry)
    # A stopping Home Assistant does not unload its entries.
    entry.async_on_unload(hass.async_add_shutdown_job(HassJob(remote.stop, "let go of a gateway")))
    return True


async def _set_up_building(hass: HomeAssistant, entry: VestibuleConfigEntry) -> bool:
    try:
        embedded = entry.runtime_data = await Embedded.open(hass, entry)
    except ConfigEntryError as err:
        tell_of_unopened(hass, entry, Kind(str(err.translation_key)))
        raise
    entry.async_on_unload(embedded.close)
    embedded.start()
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    embedded.tell_what_waited()
    entry.async_on_unload(entry.add_update_listener(_async_entry_changed))
    entry.async_on_unload(hass.bus.async_listen(EVENT_CORE_CONFIG_UPDATE, embedded.follow_core_config))
    entry.async_on_unload(hass.bus.async_listen(EVENT_COMPONENT_LOADED, embedded.follow_component))
    entry.async_on_unload(async_track_time_interval(hass, embedded.retain, RETAIN_EVERY))
    watch(hass, entry)
    entry.async_on_unload(async_at_started(hass, embedded.links.start))
    # A stopping Home Assistant does not unload its entries. Shutdown jobs run while switches still work.
    entry.async_on_unload(hass.async_add_shutdown_job(HassJob(embedded.stop, "end Vestibule's releases")))
    entry.async_on_unload(hass.bus.async_listen(EVENT_HOMEASSISTANT_FINAL_WRITE, embedded.close))
    return True


async def async_unload_entry(hass: HomeAssistant, entry: ConfigEntry[Any]) -> bool:
    """Stop; what is still under way comes to its end while the event entities are there to tell of it."""
    await entry.runtime_data.stop()
    return await hass.config_entries.async_unload_platforms(entry, PLATFORMS)


async def async_remove_entry(hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
    """Keep the journal of a building that is gone, under a dated name; its key goes, so that nobody can add to it.

    A gateway goes on with what it was last told, until it is paired anew.
    """
    if not is_building(entry):
        await told_store(hass, entry.data[CONF_GATEWAY]).async_remove()
        if (building := loaded_building(hass)) is not None:
            building.apply()
        return
    await hass.async_add_executor_job(put_away, Path(hass.config.path(".storage")), dt_util.now().date())


async def _async_entry_changed(_: HomeAssistant, entry: VestibuleConfigEntry) -> None:
    """Apply a change of a door, a carrier or the building itself."""
    await entry.runtime_data.follow_entry()


async def _async_gateway_changed(hass: HomeAssistant, entry: GatewayConfigEntry) -> None:
    """Begin anew if the gateway is somewhere else, or another one; what is learned of it is no reason to."""
    if not entry.runtime_data.is_as_stored:
        hass.config_entries.async_schedule_reload(entry.entry_id)
