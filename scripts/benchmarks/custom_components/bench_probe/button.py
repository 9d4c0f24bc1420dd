"""Relays: each notes when it is pressed."""

from __future__ import annotations

from typing import Any

from homeassistant.components.button import ButtonEntity
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddEntitiesCallback

from . import DOMAIN, stamp

RELAYS = 200


async def async_setup_platform(
    hass: HomeAssistant, config: Any, async_add_entities: AddEntitiesCallback, discovery_info: Any = None
) -> None:
    """Add the relays."""
    async_add_entities(Relay(hass, number) for number in range(RELAYS))


class Relay(ButtonEntity):
    """A relay with a timer of its own."""

    _attr_should_poll = False

    def __init__(self, hass: HomeAssistant, number: int) -> None:
        self._heard = hass.data[DOMAIN]
        self._attr_name = f"Bench relay {number}"
        self._attr_unique_id = f"bench_relay_{number}"

    async def async_press(self) -> None:
        self._heard.append(stamp())
