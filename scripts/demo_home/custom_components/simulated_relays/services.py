"""What can be played at the doors: actions of this integration, each with the short name of its door."""

from __future__ import annotations

from collections.abc import Callable

import probatio
from homeassistant.core import HomeAssistant, ServiceCall, callback
from homeassistant.exceptions import ServiceValidationError
from homeassistant.helpers import config_validation as cv

from .doors import SimulatedDoor
from .relays import DOMAIN, LOBBY, RELAYS, Relay, RelaysConfigEntry

DOOR = "door"
EVERY = RELAYS
EQUIPPED = (LOBBY,)
"""The doors with an exit button and a tamper contact."""


@callback
def add_actions(hass: HomeAssistant) -> None:
    """Register the actions."""

    def add(
        name: str,
        doors: tuple[Relay, ...],
        play: Callable[[SimulatedDoor, ServiceCall], None],
        fields: dict[probatio.Marker, object] | None = None,
    ) -> None:
        async def act(call: ServiceCall) -> None:
            play(_door(hass, call.data[DOOR]), call)

        keys = probatio.In([relay.key for relay in doors])
        schema = probatio.Schema({probatio.Required(DOOR): keys, **(fields or {})})
        hass.services.async_register(DOMAIN, name, act, schema=schema)

    add("open_door", EVERY, lambda door, _: door.open())
    add("close_door", EVERY, lambda door, _: door.close())
    add("walk_in", EVERY, lambda door, _: door.walk_in())
    add(
        "driver",
        EVERY,
        lambda door, call: door.send_driver(present=call.data["present"]),
        {probatio.Required("present"): cv.boolean},
    )
    add("press_rex", EQUIPPED, lambda door, _: door.press_rex())
    add(
        "tamper",
        EQUIPPED,
        lambda door, call: door.tamper(opened=call.data["opened"]),
        {probatio.Optional("opened", default=True): cv.boolean},
    )


def _door(hass: HomeAssistant, key: str) -> SimulatedDoor:
    entries: list[RelaysConfigEntry] = hass.config_entries.async_loaded_entries(DOMAIN)
    if not entries:
        raise ServiceValidationError(translation_domain=DOMAIN, translation_key="not_loaded")
    if (door := entries[0].runtime_data.doors.get(key)) is None:
        raise ServiceValidationError(translation_domain=DOMAIN, translation_key="no_relay")
    return door
