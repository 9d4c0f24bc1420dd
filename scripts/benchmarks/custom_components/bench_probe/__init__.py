"""Inside the Home Assistant that is measured: relays that note when they hear a command, trivial locks to compare with,
and actions that measure from within.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from homeassistant.core import HomeAssistant, ServiceCall, SupportsResponse
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers.discovery import async_load_platform
from homeassistant.helpers.recorder import get_instance

DOMAIN = "bench_probe"
CONFIG_SCHEMA = cv.empty_config_schema(DOMAIN)

type Stamp = tuple[int, int]
"""Nanoseconds of the wall clock and of this process's CPU."""


def stamp() -> Stamp:
    return time.perf_counter_ns(), time.process_time_ns()


async def async_setup(hass: HomeAssistant, config: dict[str, Any]) -> bool:
    """Make relays and locks, and register the actions."""
    heard: list[Stamp] = hass.data.setdefault(DOMAIN, [])
    for platform in ("button", "lock"):
        hass.async_create_task(async_load_platform(hass, platform, DOMAIN, {}, config))

    async def unlock(entity_id: str) -> None:
        await hass.services.async_call("lock", "unlock", {"entity_id": entity_id}, blocking=True)

    async def lock_to_strike(call: ServiceCall) -> Any:
        """Unlock each of the named locks in turns; return how long each took until the relay heard of it."""
        taken: dict[str, list[Stamp]] = {entity_id: [] for entity_id in call.data["locks"]}
        for _ in range(call.data["count"]):
            for entity_id, times in taken.items():
                heard.clear()
                began = stamp()
                await unlock(entity_id)
                times.append((heard[0][0] - began[0], heard[0][1] - began[1]))
                await asyncio.sleep(0.005)  # what follows of itself (outcome, recorder) is not part of the next one
        return taken

    async def accesses(call: ServiceCall) -> None:
        """Unlock the named locks in turns, and wait until the recorder has written all of it."""
        locks = call.data["locks"]
        for number in range(call.data["count"]):
            await unlock(locks[number % len(locks)])
        await asyncio.sleep(0.1)
        await get_instance(hass).async_block_till_done()

    hass.services.async_register(DOMAIN, "lock_to_strike", lock_to_strike, supports_response=SupportsResponse.ONLY)

    async def rows(call: ServiceCall) -> None:
        """Change states that have nothing to do with any door, and wait until the recorder has committed all of it."""
        for number in range(call.data["count"]):
            hass.states.async_set(f"sensor.bench_{number % call.data['entities']}", str(time.perf_counter_ns()))
            if number % 100 == 0:
                await asyncio.sleep(0)
        await get_instance(hass).async_block_till_done()

    hass.services.async_register(DOMAIN, "accesses", accesses)
    hass.services.async_register(DOMAIN, "rows", rows)
    return True
