"""What the tests with Home Assistant share: a building with a door, its relay as a real switch, and a carrier."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant

from tests.integration.site import Cloud, RelaySwitch, Site

pytest.register_assert_rewrite("tests.conformance")


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
