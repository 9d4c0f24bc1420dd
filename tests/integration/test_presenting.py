"""What a carrier meets before a door judges anything, whichever way it came."""

from __future__ import annotations

import os

import pytest

from custom_components.vestibule import presenting
from custom_components.vestibule.presenting import NotAsked, Obstacle
from custom_components.vestibule.vestibule_core.model import Actor, Code, Word, new_door_id
from tests.integration.test_remote import ROOM, gateway, hurried, paired

__all__ = ["gateway", "hurried", "paired"]  # fixtures

pytestmark = pytest.mark.usefixtures("socket_enabled")


async def present(hass, site, door, token="x") -> tuple[Word, str | None]:
    answer = await presenting.present(hass, site.embedded, site.cloud.issuer, door, token, "a caller")
    return answer.word, answer.code


@pytest.mark.parametrize("what", ["challenge", "present"])
async def test_a_door_that_nobody_has_any_more_is_as_forbidden_as_one_of_another_building(hass, site, what):
    gone, strange = new_door_id(os.urandom(16)), new_door_id(os.urandom(16))
    site.change("Parcel Express", doors=[site.door, gone])
    await hass.async_block_till_done()
    embedded, issuer = site.embedded, site.cloud.issuer
    ask = {
        "challenge": lambda door: presenting.challenge(hass, embedded, issuer, door),
        "present": lambda door: present(hass, site, door),
    }[what]
    for door in (gone, strange):
        with pytest.raises(NotAsked) as raised:
            await ask(door)
        assert raised.value.why is Obstacle.FORBIDDEN


async def test_a_carrier_that_was_removed_is_asked_nothing_more(hass, site):
    site.remove("Parcel Express")
    await hass.async_block_till_done()
    with pytest.raises(NotAsked, match="FORBIDDEN"):
        await presenting.challenge(hass, site.embedded, site.cloud.issuer, site.door)


async def test_a_building_that_is_stopping_gives_no_challenge_and_judges_nothing(hass, site):
    await site.embedded.stop()
    with pytest.raises(NotAsked, match="STOPPING"):
        await presenting.challenge(hass, site.embedded, site.cloud.issuer, site.door)
    with pytest.raises(NotAsked, match="STOPPING"):
        await present(hass, site, site.door)


async def test_too_many_requests_of_one_carrier_reach_neither_a_door_nor_a_gateway(hass, paired, relay):
    await paired.grant()
    site, room = paired.site, paired.doors[ROOM]
    here, there = await site.token(), await site.token(room)
    now = site.embedded.controller.now().boot
    while site.embedded.intake.admit(site.cloud.issuer, "another caller", now) is None:
        pass
    for door, token in ((site.door, here), (room, there)):
        with pytest.raises(NotAsked, match="TOO_MANY"):
            await present(hass, site, door, token)
    assert (relay.told, paired.gateway.movements) == ([], [])


async def test_what_is_no_token_is_paid_for_by_its_caller_at_a_gateways_door_too(hass, paired):
    await paired.grant()
    site, room = paired.site, paired.doors[ROOM]
    answers: list[tuple[Word, str | None]] = []

    async def flood() -> None:
        while len(answers) < 200:  # it is let off one a second
            answers.append(await present(hass, site, room))

    with pytest.raises(NotAsked, match="TOO_MANY"):
        await flood()
    assert set(answers) == {(Word.INVALID_TOKEN, None)}
    assert len(answers) >= 20


async def test_a_lockdown_holds_at_once_for_a_token_that_is_carried(hass, paired):
    """The gateway may not have heard of it yet."""
    await paired.grant()
    site, room = paired.site, paired.doors[ROOM]
    token = await site.token(room)
    await site.embedded.controller.by_hand.set_lockdown(True, Actor(user_id=None, name=None, is_admin=True))
    assert await present(hass, site, room, token) == (Word.REFUSED, Code.LOCKDOWN.told)
    assert paired.gateway.movements == []
