"""What the system information says of Vestibule."""

from __future__ import annotations

import json
import sqlite3

import pytest
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import get_system_health_info

from custom_components.vestibule.const import DOMAIN
from tests.integration.test_translations import EN


@pytest.fixture(autouse=True)
async def system_health(hass) -> None:
    assert await async_setup_component(hass, "system_health", {})


async def test_it_counts_and_names_nobody(hass, site):
    await site.present(await site.token())
    info = await get_system_health_info(hass, DOMAIN)
    assert info == {
        "building": "working",
        "doors": 1,
        "carriers": 1,
        "links": "0 of 0",
        "journal": "working",
        "journal_entries": 2,
        "lockdown": "off",
        "clock": "trusted",
    }
    assert info.keys() == EN["system_health"]["info"].keys()
    assert not any(name in json.dumps(info) for name in ("Front", "Parcel", "Linden"))


async def test_a_lockdown_shows(hass, site):
    lockdown = {"entity_id": "switch.linden_court_lockdown"}
    await hass.services.async_call("switch", "turn_on", lockdown, blocking=True)
    assert (await get_system_health_info(hass, DOMAIN))["lockdown"] == "on"


async def test_a_failed_journal_shows(hass, site):
    def broken(*_) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    site.embedded._journal._writer.append = broken  # as a dying disk would make it
    await site.present(await site.token(distance=400))
    assert (await get_system_health_info(hass, DOMAIN))["journal"] == "failed"


async def test_a_clock_that_went_back_shows(hass, site, freezer):
    await site.unlock()
    freezer.tick(-3600)
    assert (await get_system_health_info(hass, DOMAIN))["clock"] == "earlier than it was"


async def test_a_stopped_and_an_unloaded_building_show(hass, site):
    await site.embedded.stop()
    assert (await get_system_health_info(hass, DOMAIN))["building"] == "stopped"
    await hass.config_entries.async_unload(site.entry.entry_id)
    assert await get_system_health_info(hass, DOMAIN) == {"building": "not loaded"}
