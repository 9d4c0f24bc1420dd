"""What the tests with Home Assistant share: a building with a door, its relay as a real switch, and a carrier; and for
those with Bluetooth Home Assistant's own stack on a virtual radio, through two scanners or through an ESPHome proxy.

The radio is imported where it is wanted: the other tests need none of its packages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import CONF_HOST, CONF_PASSWORD, CONF_PORT
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import MockConfigEntry

from tests.integration.site import Cloud, RelaySwitch, Site

if TYPE_CHECKING:
    from tests.radio.esphome import EsphomeProxy
    from tests.radio.ether import Radio
    from tests.radio.virtual_radio.adapter import Adapter

pytest.register_assert_rewrite("tests.conformance")


# The test plugin puts the loop into debug mode, whose checks are welcome. But that also keeps the last ten frames of
# whoever schedules anything, which is a tenth of all that these tests do.
asyncio.constants.DEBUG_STACK_DEPTH = 1


@pytest.fixture(autouse=True)
def our_integration(enable_custom_integrations: None) -> None:
    """Let Home Assistant load this project's integration."""


@pytest.fixture
def hass_config_dir(hass_tmp_config_dir: str) -> str:
    """A configuration folder of the test's own, for the journal."""
    (Path(hass_tmp_config_dir) / ".storage").mkdir(exist_ok=True)
    return hass_tmp_config_dir


@pytest.fixture
async def relay(hass: HomeAssistant) -> RelaySwitch:
    """A switch entity, off."""
    relay = RelaySwitch("relay")
    await relay.install(hass)
    return relay


@pytest.fixture
def cloud() -> Cloud:
    """A carrier's cloud with an Ed25519 key."""
    return Cloud()


@pytest.fixture
async def site(hass: HomeAssistant, relay: RelaySwitch, cloud: Cloud) -> AsyncGenerator[Site]:
    """A loaded building: one door driven by ``relay``, one carrier."""
    site = Site(hass, cloud)
    site.add_door("Front door", relay.entity_id)
    site.add_carrier("Parcel Express", cloud)
    await site.load()
    yield site
    if site.entry.state is ConfigEntryState.LOADED:
        await site.settle()


# ---- Bluetooth


@pytest.fixture
async def with_bluetooth(our_integration: None, hass: HomeAssistant) -> AsyncGenerator[None]:
    """Home Assistant's Bluetooth stack, in a computer without an adapter of its own.

    It looks what an integration wants to hear of when it is set up, so that ours has to be known by then.
    """
    with patch("bluetooth_adapters.systems.linux.LinuxAdapters.adapters", {}):
        assert await async_setup_component(hass, "homeassistant", {})
        assert await async_setup_component(hass, "bluetooth", {})
        await hass.async_block_till_done()
        yield


@pytest.fixture
async def radio() -> AsyncGenerator[Radio]:
    from tests.radio.ether import Radio

    async with Radio() as radio:
        yield radio


@pytest.fixture
async def scanners(hass: HomeAssistant, with_bluetooth: None, radio: Radio) -> AsyncGenerator[tuple[Adapter, Adapter]]:
    """Two scanners: the hallway hears the gate well and has two slots; the attic hears it badly and has three."""
    from tests.radio.until import until
    from tests.radio.virtual_radio.adapter import Adapter
    from tests.radio.virtual_radio.scanner import register

    radio.set_rssi("hallway", "gate", -45)
    radio.set_rssi("attic", "gate", -85)
    async with AsyncExitStack() as off:
        hallway = await off.enter_async_context(Adapter(radio.device("hallway"), slots=2))
        attic = await off.enter_async_context(Adapter(radio.device("attic")))
        for adapter in (hallway, attic):
            off.callback(register(hass, adapter))
        yield hallway, attic
        if not radio.is_on("gate"):
            await until(lambda: not (hallway.device.connections or attic.device.connections))


@pytest.fixture
async def proxy(
    hass: HomeAssistant, with_bluetooth: None, radio: Radio, mock_async_zeroconf: object
) -> AsyncGenerator[EsphomeProxy]:
    """A proxy in the hallway with one slot that the stock integration is connected to."""
    from tests.radio.esphome import EsphomeProxy
    from tests.radio.ether import LOOPBACK
    from tests.radio.until import until
    from tests.radio.virtual_radio.adapter import Adapter

    async with Adapter(radio.device("hallway"), slots=1) as hallway, EsphomeProxy(hallway) as proxy:
        data = {CONF_HOST: LOOPBACK, CONF_PORT: proxy.port, CONF_PASSWORD: ""}
        entry = MockConfigEntry(domain="esphome", data=data, unique_id=proxy.mac.lower())
        entry.add_to_hass(hass)
        assert await hass.config_entries.async_setup(entry.entry_id)
        await hass.async_block_till_done()
        yield proxy
        await hass.config_entries.async_unload(entry.entry_id)
        assert entry.state is ConfigEntryState.NOT_LOADED
        await until(lambda: not hallway.device.connections)
