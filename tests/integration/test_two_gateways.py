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
from typing import Any

import pytest
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.exceptions import HomeAssistantError

from custom_components.vestibule import embedded
from custom_components.vestibule.vestibule_core.api import client
from custom_components.vestibule.vestibule_core.api.client import GatewayClient
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

DYING = "Dying gateway"


@pytest.fixture
async def dying(hass: HomeAssistant, site: Site, paired: Paired, tmp_path: Path) -> AsyncGenerator[Paired]:  # noqa: F811
    """A second gateway, which is going to die."""
    folder = tmp_path / "dying"
    folder.mkdir()
    process = Gateway(folder)
    process.config.write_text(process.config.read_text().replace("Parcel room gateway", DYING))
    await process.start()
    flow = await begin(hass, process)
    flow = await enter(hass, flow, await process.code("--replace", "--trust"))
    assert flow["type"] is FlowResultType.CREATE_ENTRY, flow
    await hass.async_block_till_done()
    yield Paired(site, process, flow["result"])
    with contextlib.suppress(ProcessLookupError):
        process.signal(signal.SIGCONT)
    # What was released is locked again: news in the moment of an end leave aiohttp a timer.
    await until(lambda: all(process.movements.count(f"{n} on") == process.movements.count(f"{n} off") for n in (1, 2)))
    await asyncio.sleep(0.3)
    await hass.config_entries.async_unload(flow["result"].entry_id)
    await process.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that stands still is waited for until everybody else has been served, also on a slow machine."""
    monkeypatch.setattr(embedded, "GATEWAYS_TIME", 6.0)
    for deadline in ("DEADLINE", "COMMAND_DEADLINE"):
        monkeypatch.setattr(client, deadline, 60.0)


def acts(paired: Paired, site: Site, cloud: Cloud) -> list[Callable[[], Awaitable[None]]]:  # noqa: F811
    """What is done at the gateway that is well, and at Home Assistant's own door; each returns when it has happened."""

    async def token(door: DoorId) -> None:
        answer = await site.call("present_token", token=await site.token(door, cloud))
        assert answer["word"] == "granted"

    async def by_hand() -> None:
        moved, told = paired.gateway.movements.count("1 on"), paired.outcomes().count("door_released")
        await paired.call("lock", "unlock", entity_id=paired.entity("lock", "lock"))
        await until(lambda: paired.gateway.movements.count("1 on") > moved)
        await until(lambda: paired.outcomes().count("door_released") > told)

    async def mode(option: str) -> None:
        await paired.call("select", "select_option", entity_id=paired.entity("select", "mode"), option=option)
        await until(lambda: paired.state("select", "mode") == option)

    async def own_by_hand() -> None:
        await paired.call("lock", "unlock", entity_id=site.entity_id("lock"))

    async def lockdown(turn: str) -> None:
        await paired.call("switch", f"turn_{turn}", entity_id=paired.lockdown_of_the_building)
        assert _shown(paired, paired.lockdown_of_the_building) == turn
        await until(lambda: _shown(paired, paired.lockdown_of_the_gateway) == turn)

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


def _lockdowns(paired: Paired) -> list[str]:  # noqa: F811
    """What a gateway has told of its lockdown."""
    name, told = paired.entry.title, [event.data for event in paired.site.events]
    return [data["outcome"] for data in told if data.get("gateway") == name and data["outcome"].startswith("lockdown")]


async def test_a_gateway_that_stands_still_keeps_no_other_door_waiting(hass, site, paired, dying, patient, cloud):  # noqa: F811
    doors = [site.door, *paired.doors.values(), *dying.doors.values()]
    for each in (paired, dying):
        await each.change_carrier(doors=doors)  # and wait until that gateway has agreed
    for_dying = await site.token(dying.doors[OTHER], cloud)
    dying.gateway.signal(signal.SIGSTOP)
    assert dying.state("binary_sensor", "connection", None) == "on", "that it is dead is not known yet"
    asked = [asyncio.create_task(site.call("present_token", token=for_dying))]
    for act in acts(paired, site, cloud):
        asked.append(asyncio.create_task(dying.call("lock", "unlock", entity_id=dying.entity("lock", "lock"))))
        await asyncio.sleep(0.02)
        await act()
        assert not asked[-1].done(), "the dead one's door is still being waited for"
    dying.gateway.signal(signal.SIGCONT)
    by_token, *by_hand = await asyncio.gather(*asked, return_exceptions=True)
    await until(lambda: _shown(dying, dying.lockdown_of_the_gateway) == "on")
    assert by_token["word"] in ("granted", "refused", "unavailable", "unknown_outcome")
    assert all(answer is None or isinstance(answer, HomeAssistantError) for answer in by_hand)
    might_open = [each for each in by_hand if each is None or each.translation_key == "unlock_outcome_unknown"]
    assert dying.gateway.movements.count("1 on") <= len(might_open), "who was told no was told the truth"
    assert dying.gateway.movements.count("2 on") <= (by_token["word"] in ("granted", "unknown_outcome"))


async def test_what_a_gateway_did_not_answer_in_time_moves_nothing_afterwards(paired, dying, cloud, monkeypatch):  # noqa: F811
    """Whoever was told that the door may have opened has gone; nobody stands before it when the gateway goes on."""
    site = paired.site
    await dying.grant()
    token = await site.token(dying.doors[OTHER], cloud)
    dying.gateway.signal(signal.SIGSTOP)
    monkeypatch.setattr(client, "COMMAND_DEADLINE", 1.0)
    assert (await site.call("present_token", token=token))["word"] == "unknown_outcome"
    with pytest.raises(HomeAssistantError) as raised:
        await dying.call("lock", "unlock", entity_id=dying.entity("lock", "lock"))
    assert raised.value.translation_key == "unlock_outcome_unknown"
    await asyncio.sleep(0.1)
    dying.gateway.signal(signal.SIGCONT)
    monkeypatch.undo()
    mode = {"entity_id": dying.entity("select", "mode"), "option": "blocked"}
    await dying.call("select", "select_option", **mode)  # whatever was asked before has been looked at
    await until(lambda: dying.state("select", "mode") == "blocked")
    assert dying.gateway.movements == []


async def test_a_lockdown_waits_for_no_gateway_that_stands_still(hass, paired, dying, patient):  # noqa: F811
    """Whoever turns it on is answered before the dead one could, and sees whom it is pending at; off is the same."""
    dying.gateway.signal(signal.SIGSTOP)
    switch = paired.lockdown_of_the_building
    async with asyncio.timeout(30):
        await paired.call("switch", "turn_on", entity_id=switch)
    assert _shown(paired, switch) == "on"
    assert hass.states.get(switch).attributes["pending"] == [DYING]
    await until(lambda: _shown(paired, paired.lockdown_of_the_gateway) == "on")

    async with asyncio.timeout(30):
        with pytest.raises(HomeAssistantError) as raised:
            await paired.call("switch", "turn_off", entity_id=switch)
    assert raised.value.translation_key == "lockdown_not_lifted"
    assert raised.value.translation_placeholders == {"building": paired.site.embedded.name, "gateways": DYING}
    assert _shown(paired, switch) == "off"
    await until(lambda: _shown(paired, paired.lockdown_of_the_gateway) == "off")

    dying.gateway.signal(signal.SIGCONT)
    await until(lambda: _lockdowns(dying) == ["lockdown_on", "lockdown_off"])
    assert _shown(dying, dying.lockdown_of_the_gateway) == "off"


async def test_to_lift_a_lockdown_that_does_not_hold_is_no_error_although_a_gateway_is_away(paired, dying):  # noqa: F811
    """An automation of every morning goes on."""
    await dying.gateway.kill()
    await paired.call("switch", "turn_off", entity_id=paired.lockdown_of_the_building)


async def test_a_lockdown_that_is_slow_to_arrive_does_not_outlive_its_end(paired, monkeypatch):  # noqa: F811
    """One connection stalls and the next one does not: the gateway is told in the order in which it was asked for."""
    monkeypatch.setattr(embedded, "GATEWAYS_TIME", 0.1)
    real, told, stalled = GatewayClient.lockdown, [], asyncio.Event()

    async def tell(asking: GatewayClient, on: bool, *more: Any) -> Code:
        if on:
            await stalled.wait()
        told.append(on)
        return await real(asking, on, *more)

    monkeypatch.setattr(GatewayClient, "lockdown", tell)
    await paired.call("switch", "turn_on", entity_id=paired.lockdown_of_the_building)
    with pytest.raises(HomeAssistantError):
        await paired.call("switch", "turn_off", entity_id=paired.lockdown_of_the_building)
    stalled.set()
    await until(lambda: False in told)
    await until(lambda: _lockdowns(paired) == ["lockdown_on", "lockdown_off"])
    assert told[-1] is False, told
    assert _shown(paired, paired.lockdown_of_the_gateway) == "off"


async def test_whoever_lifts_a_lockdown_learns_which_gateway_has_not(paired, dying, caplog):  # noqa: F811
    await paired.lock_down()
    await until(lambda: _shown(dying, dying.lockdown_of_the_gateway) == "on")
    await dying.lose()
    with pytest.raises(HomeAssistantError) as raised:
        await paired.call("switch", "turn_off", entity_id=paired.lockdown_of_the_building)
    assert raised.value.translation_placeholders["gateways"] == DYING
    assert f"{DYING} has not lifted its lockdown: STRIKE_UNREACHABLE" in caplog.text
    await until(lambda: _shown(paired, paired.lockdown_of_the_gateway) == "off")

    await dying.find()
    assert _shown(dying, dying.lockdown_of_the_gateway) == "on", "nothing lifts it by itself"
    await paired.call("switch", "turn_off", entity_id=dying.lockdown_of_the_gateway)
    await until(lambda: _shown(dying, dying.lockdown_of_the_gateway) == "off")


async def test_a_gateway_that_was_killed_keeps_no_other_door_waiting(hass, site, paired, dying, cloud):  # noqa: F811
    await paired.grant()
    await dying.lose()
    doorway = dying.entry.runtime_data.doors[dying.doors[OTHER]]
    assert (await doorway.open_by_hand(Actor(None, None, is_admin=False), None)).code is Code.STRIKE_UNREACHABLE
    for act in acts(paired, site, cloud):
        await act()
    await dying.find()
    await until(lambda: _shown(dying, dying.lockdown_of_the_gateway) == "on")
