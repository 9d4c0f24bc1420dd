"""The line is cut while a token is with the door: what was begun comes to its end, and the cloud hears of it later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.test_link import clock, cloud, linked, site, until
from tests.integration.test_link_gateway import linked_gateway, look_all_the_time
from tests.integration.test_remote import ROOM, gateway, hurried, paired
from tests.link_cloud import LinkCloud

__all__ = ["clock", "cloud", "gateway", "hurried", "linked_gateway", "look_all_the_time", "paired", "site"]  # fixtures

pytestmark = pytest.mark.usefixtures("socket_enabled")


class Gate:
    """Holds whoever calls something until it is opened."""

    def __init__(self, what: Callable[..., Any]) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        self._what = what

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.reached.set()
        await self.opened.wait()
        return await self._what(*args, **kwargs)


async def cut_while(site, cloud: LinkCloud, token: str, gate: Gate) -> None:
    """Hand over a token, cut the line when it is at the gate, and open that when the line is gone."""
    asking = asyncio.create_task(cloud.unlock(token))
    await gate.reached.wait()
    cloud.connections[-1].cut()
    await until(lambda: not site.embedded.links.is_connected(cloud.issuer))
    with pytest.raises(asyncio.CancelledError):
        await asking
    gate.opened.set()


async def test_a_token_that_is_with_the_strike(site, cloud, relay, monkeypatch):
    answer = await cloud.challenge(site.door)
    gate = Gate(relay.async_turn_on)
    monkeypatch.setattr(relay, "async_turn_on", gate)
    await cut_while(site, cloud, cloud.token(site.door, answer["non"]), gate)
    await until(lambda: ("door_released", "GRANTED") in site.outcomes())
    assert relay.told == ["on"]
    await linked(site, cloud, 2)
    told = {"type": "accepted", "jti": cloud.jti, "door": site.door, "code": "GRANTED"}
    await cloud.until(lambda: told in cloud.connections[-1].accepted)


async def test_a_token_that_is_on_its_way_to_a_gateway(site, cloud, linked_gateway, monkeypatch):
    room, remote = linked_gateway.doors[ROOM], linked_gateway.entry.runtime_data
    hellos = len(cloud.connections)
    answer = await cloud.challenge(room)
    gate = Gate(remote.present)
    monkeypatch.setattr(remote, "present", gate)
    await cut_while(site, cloud, cloud.token(room, answer["non"]), gate)
    await until(lambda: linked_gateway.gateway.movements[:1] == ["1 on"])
    await linked(site, cloud, hellos + 1)
    told = {"type": "accepted", "jti": cloud.jti, "door": room, "code": "GRANTED"}
    await cloud.until(lambda: told in cloud.connections[-1].accepted)


async def test_home_assistant_is_stopped_while_a_token_is_with_the_strike(hass, site, cloud, relay, monkeypatch):
    answer = await cloud.challenge(site.door)
    gate = Gate(relay.async_turn_on)
    monkeypatch.setattr(relay, "async_turn_on", gate)
    asking = asyncio.create_task(cloud.unlock(cloud.token(site.door, answer["non"])))
    await gate.reached.wait()
    unloading = asyncio.create_task(hass.config_entries.async_unload(site.entry.entry_id))
    await asyncio.sleep(0)
    gate.opened.set()
    assert await unloading
    assert (await asking)["word"] == "granted", "the link is let go of after the last answer"
    assert relay.told == ["on"]
