"""Two gateways in Home Assistant, one of them dead: the doors of the other one, and Home Assistant's own, do not wait.

Real gateways in processes of their own. One of them is stopped by SIGSTOP: it takes connections and never answers, and
that is worse than to be away. Nothing is timed: while the dead one's door is still waited for, the others are opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.exceptions import HomeAssistantError

from custom_components.vestibule.vestibule_core.model import Actor, Code, DoorId
from tests.integration.gateway import Gateway
from tests.integration.site import Cloud, Site
from tests.integration.test_remote import (  # noqa: F401 - its fixtures
    OTHER,
    Paired,
    begin,
    enter,
    gateway,
    hurried,
    paired,
    until,
)

pytestmark = pytest.mark.usefixtures("socket_enabled")


@pytest.fixture
async def dying(hass: HomeAssistant, site: Site, paired: Paired, tmp_path: Path) -> AsyncGenerator[Paired]:  # noqa: F811
    """A second gateway, which is going to die."""
    folder = tmp_path / "dying"
    folder.mkdir()
    process = await Gateway(folder).start()
    flow = await begin(hass, process)
    flow = await enter(hass, flow, await process.code("--replace", "--trust"))
    assert flow["type"] is FlowResultType.CREATE_ENTRY, flow
    await hass.async_block_till_done()
    yield Paired(site, process, flow["result"])
    with contextlib.suppress(ProcessLookupError):
        process.signal(signal.SIGCONT)
    await asyncio.sleep(0.8)  # what was released is locked again: news in the moment of an end leave aiohttp a timer
    await hass.config_entries.async_unload(flow["result"].entry_id)
    await process.close()


def acts(
    paired: Paired,  # noqa: F811
    site: Site,
    cloud: Cloud,
    lockdowns: list[asyncio.Task[None]],
) -> list[Callable[[], Awaitable[None]]]:
    """What is done at the gateway that is well, and at Home Assistant's own door; each returns when it has happened.

    ``lockdowns`` gets the task that asks for one.
    """

    async def token(door: DoorId) -> None:
        answer = await site.call("present_token", token=await site.token(door, cloud))
        assert answer["word"] == "granted"

    async def by_hand() -> None:
        moved = paired.gateway.movements.count("1 on")
        await paired.call("lock", "unlock", entity_id=paired.entity("lock", "lock"))
        await until(lambda: paired.gateway.movements.count("1 on") > moved)
        await until(lambda: paired.state("lock", "lock") in ("unlocked", "unlocking"))

    async def mode(option: str) -> None:
        await paired.call("select", "select_option", entity_id=paired.entity("select", "mode"), option=option)
        await until(lambda: paired.state("select", "mode") == option)

    async def own_by_hand() -> None:
        await paired.call("lock", "unlock", entity_id=site.entity_id("lock"))

    async def lockdown(turn: str) -> None:
        asking = asyncio.create_task(
            paired.call("switch", f"turn_{turn}", entity_id=paired.lockdown_of_the_building)
        )  # which answers when every gateway has; but it holds before
        await until(lambda: _shown(paired, paired.lockdown_of_the_gateway) == turn)
        await until(lambda: _shown(paired, paired.lockdown_of_the_building) == turn)
        lockdowns.append(asking)

    return [
        partial(token, paired.doors[OTHER]),
        partial(token, site.door),
        by_hand,
        own_by_hand,
        partial(mode, "blocked"),
        partial(mode, "normal"),
        partial(lockdown, "on"),
    ]


def _shown(paired: Paired, entity: str) -> str:  # noqa: F811
    state = paired.hass.states.get(entity)
    assert state is not None
    return state.state


async def test_a_gateway_that_stands_still_keeps_no_other_door_waiting(hass, site, paired, dying, cloud):  # noqa: F811
    doors = [site.door, *paired.doors.values(), *dying.doors.values()]
    versions = [each.entry.runtime_data.policy.version for each in (paired, dying)]
    site.change("Parcel Express", doors=doors)
    await until(
        lambda: all(
            each.entry.runtime_data.policy.version > version
            for each, version in zip((paired, dying), versions, strict=True)
        )
    )
    await paired.settle()
    for_dying = await site.token(dying.doors[OTHER], cloud)
    dying.gateway.signal(signal.SIGSTOP)
    assert dying.state("binary_sensor", "connection", None) == "on", "that it is dead is not known yet"
    asked, lockdowns = [asyncio.create_task(site.call("present_token", token=for_dying))], []
    for act in acts(paired, site, cloud, lockdowns):
        asked.append(asyncio.create_task(dying.call("lock", "unlock", entity_id=dying.entity("lock", "lock"))))
        await asyncio.sleep(0.02)
        await act()
        assert not asked[-1].done(), "the dead one's door is still being waited for"
    dying.gateway.signal(signal.SIGCONT)
    by_token, *by_hand = await asyncio.gather(*asked, return_exceptions=True)
    await asyncio.gather(*lockdowns)
    await until(lambda: _shown(dying, dying.lockdown_of_the_gateway) == "on")
    assert by_token["word"] in ("granted", "refused", "unavailable", "unknown_outcome")
    assert all(answer is None or isinstance(answer, HomeAssistantError) for answer in by_hand)


async def test_a_gateway_that_was_killed_keeps_no_other_door_waiting(hass, site, paired, dying, cloud):  # noqa: F811
    await paired.grant()
    await dying.lose()
    doorway = dying.entry.runtime_data.doors[dying.doors[OTHER]]
    assert (await doorway.open_by_hand(Actor(None, None, is_admin=False), None)).code is Code.STRIKE_UNREACHABLE
    lockdowns = []
    for act in acts(paired, site, cloud, lockdowns):
        await act()
    await asyncio.gather(*lockdowns)
    await dying.find()
    await until(lambda: _shown(dying, dying.lockdown_of_the_gateway) == "on")
