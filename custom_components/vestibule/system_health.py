"""What Settings > System > Repairs > System information says of Vestibule. Names nobody and no door."""

from __future__ import annotations

from typing import Any

from homeassistant.components.system_health import SystemHealthRegistration
from homeassistant.core import HomeAssistant, callback

from .embedded import loaded_building


@callback
def async_register(hass: HomeAssistant, register: SystemHealthRegistration) -> None:  # noqa: ARG001 - their signature
    """Say who answers."""
    register.async_register_info(_info)


async def _info(hass: HomeAssistant) -> dict[str, Any]:
    if (embedded := loaded_building(hass)) is None:
        return {"building": "not loaded"}
    controller, linked = embedded.controller, embedded.setup.enrolments
    return {
        "building": "stopped" if controller.stopped else "working",
        "doors": len(controller.building.doors),
        "carriers": len(controller.building.carriers),
        "links": f"{sum(map(embedded.links.is_connected, linked))} of {len(linked)}",
        "journal": "failed" if embedded.journal_failed else "working",
        "journal_entries": embedded.journal_entries,
        "lockdown": "on" if controller.by_hand.locked_down else "off",
        "clock": "trusted" if controller.clock_is_trusted else "earlier than it was",
    }
