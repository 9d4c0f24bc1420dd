"""Deliveries over Home Assistant's link to the door of a gateway, a real one in a process of its own."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from homeassistant.core import HomeAssistant

from custom_components.vestibule import link
from custom_components.vestibule.issues import GATEWAYS_ALARMS
from custom_components.vestibule.vestibule_core.api.client import GatewayClient
from custom_components.vestibule.vestibule_core.api.messages import Answer, CarrierAlarm, LinkAlarm
from custom_components.vestibule.vestibule_core.api.policy import Policy
from custom_components.vestibule.vestibule_core.model import Issuer, Word
from custom_components.vestibule.vestibule_core.reconcile import Alarm
from tests.integration.site import Site
from tests.integration.test_link import clock, cloud, linked, site, until
from tests.integration.test_link_reconcile import next_day, send_list, until_shown
from tests.integration.test_remote import ROOM, Paired, gateway, hurried, paired
from tests.integration.test_repairs import repairs, texts
from tests.link_cloud import DAY, Key, LinkCloud

__all__ = ["clock", "cloud", "gateway", "hurried", "paired", "repairs", "site"]  # fixtures

pytestmark = pytest.mark.usefixtures("socket_enabled")


@pytest.fixture(autouse=True)
def look_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(link, "APART", 0.01)


@pytest.fixture
async def linked_gateway(hass: HomeAssistant, site: Site, cloud: LinkCloud, paired: Paired) -> Paired:
    """The gateway, whose doors the linked carrier may enter."""
    hellos = len(cloud.connections)
    site.change("Swift", doors=[site.door, *paired.doors.values()])
    await linked(site, cloud, hellos + 1)
    await allows(paired, True)
    return paired


async def _until(paired: Paired, is_so: Callable[[Policy], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so((await paired.entry.runtime_data.client.policy()).policy):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def allows(paired: Paired, is_so: bool) -> None:
    """Wait until the gateway lets a carrier in somewhere, or none anywhere."""
    await _until(paired, lambda policy: bool(policy.carriers) is is_so)


async def has_key(paired: Paired, kid: str) -> None:
    """Wait until the gateway has a key."""
    await _until(paired, lambda policy: kid in {key.kid for carrier in policy.carriers for key in carrier.keys})


async def test_a_delivery_over_the_link_is_carried_to_the_gateway_that_has_the_door(site, cloud, linked_gateway):
    """Attack 35."""
    room = linked_gateway.doors[ROOM]
    doors = {door["name"]: door for door in cloud.connections[-1].hello["doors"]}
    assert doors.keys() == {"Front door", ROOM, "Yard"}
    assert doors[ROOM]["id"] == room
    answer = await cloud.challenge(room)
    token = cloud.token(room, answer["non"])
    assert (await cloud.unlock(token))["word"] == "granted"
    assert (await cloud.unlock(token))["word"] == "already_used"
    await until(lambda: linked_gateway.gateway.movements == ["1 on", "1 off"])
    told = {"type": "accepted", "jti": cloud.jti, "door": room, "code": "GRANTED"}
    await cloud.until(lambda: cloud.connections[-1].accepted == [told])
    await until(lambda: "access_granted" in linked_gateway.outcomes())
    (granted,) = [event.data for event in site.events if event.data["outcome"] == "access_granted"]
    assert granted["confirmed"]["distance"] == 12
    assert granted["gateway"] == "Parcel room gateway"


async def test_a_refusal_of_the_gateway_is_told_by_its_name(cloud, linked_gateway):
    room = linked_gateway.doors[ROOM]
    far = {"drv": "badge", "rte": "r", "gps": {"d": 1, "acc": 1, "age": 1}, "req": 1_700_000_000}
    outcome = await cloud.deliver(room, chk=far)
    assert (outcome["word"], outcome["code"]) == ("refused", "POLICY_EVIDENCE")
    assert linked_gateway.gateway.movements == []


async def test_a_gateway_that_is_away_gives_no_challenge_and_the_other_doors_go_on(site, cloud, linked_gateway):
    room = linked_gateway.doors[ROOM]
    await linked_gateway.lose()
    assert (await cloud.challenge(room))["word"] == "unavailable"
    assert (await cloud.deliver(site.door))["word"] == "granted"
    await linked_gateway.find()
    assert (await cloud.deliver(room))["word"] == "granted"


async def test_a_token_that_is_with_the_gateway_when_the_link_is_cut_is_told_when_it_stands_again(
    site, cloud, linked_gateway, monkeypatch
):
    room, hellos = linked_gateway.doors[ROOM], len(cloud.connections)
    carry, is_carried = GatewayClient.unlock, asyncio.Event()

    async def unlock(*what: Any) -> Answer:
        is_carried.set()
        return await carry(*what)

    monkeypatch.setattr(GatewayClient, "unlock", unlock)
    answer = await cloud.challenge(room)
    linked_gateway.gateway.signal(signal.SIGSTOP)  # it is slow
    waiting = asyncio.create_task(cloud.unlock(cloud.token(room, answer["non"])))
    await is_carried.wait()
    cloud.connections[-1].cut()
    await linked(site, cloud, hellos + 1)
    await asyncio.gather(waiting, return_exceptions=True)
    linked_gateway.gateway.signal(signal.SIGCONT)
    told = {"type": "accepted", "jti": cloud.jti, "door": room, "code": "GRANTED"}
    await cloud.until(lambda: cloud.connections[-1].accepted == [told])
    await until(lambda: linked_gateway.gateway.movements == ["1 on", "1 off"])


async def test_a_new_key_is_good_at_the_gateway_and_a_dropped_one_no_more(cloud, linked_gateway):
    room = linked_gateway.doors[ROOM]
    old, cloud.signing = cloud.signing, Key()
    await cloud.publish()
    await has_key(linked_gateway, cloud.signing.kid)
    assert (await cloud.deliver(room))["word"] == "granted"
    answer = await cloud.challenge(room)
    assert (await cloud.unlock(cloud.token(room, answer["non"], by=old)))["word"] == "invalid_token"
    asked = await linked_gateway.entry.runtime_data.client.policy()
    (carrier,) = asked.policy.carriers
    assert {key.kid for key in carrier.keys if key.opens(time.time())} == {cloud.signing.kid}
    assert all(key.valid_until is not None for key in carrier.keys if key.kid == cloud.signing.kid), (
        "it ends there, too"
    )


async def test_a_token_that_a_gateway_accepted_and_nobody_issued_locks_the_carrier_out_everywhere(
    hass, site, cloud, clock, relay, repairs, linked_gateway
):
    """Attack 70."""
    room = linked_gateway.doors[ROOM]
    assert (await cloud.deliver(room))["word"] == "granted"
    await send_list(cloud, next_day(clock), ["A" * 22])
    await until_shown(repairs, "carrier_never_issued")
    await hass.config_entries.async_reload(site.entry.entry_id)  # it is on the disk
    await linked(site, cloud, len(cloud.connections) + 1)
    clock.tick(DAY + 1)
    await until(lambda: site.embedded.links.locked_out == {cloud.issuer})
    await allows(linked_gateway, False)
    assert (await cloud.deliver(site.door))["code"] == "CARRIER_LOCKED_OUT"
    assert relay.told == []

    await repairs.confirm(await repairs.open(f"carrier_locked_out_{site.subentry('Swift').subentry_id}"))
    await allows(linked_gateway, True)
    assert (await cloud.deliver(room))["word"] == "granted"


async def test_a_gateway_that_has_not_heard_of_a_lock_out_is_asked_nothing(
    hass, site, cloud, clock, linked_gateway, monkeypatch
):
    room = linked_gateway.doors[ROOM]
    assert (await cloud.deliver(room))["word"] == "granted"
    await until(lambda: len(linked_gateway.gateway.movements) == 2)
    answer = await cloud.challenge(room)
    linked_gateway.entry.runtime_data.agreement.look_soon = lambda: None  # the news are slow
    await send_list(cloud, next_day(clock), ["A" * 22])
    await until(lambda: site.embedded.links.alarms(cloud.issuer))
    clock.tick(DAY + 1)
    await until(lambda: site.embedded.links.locked_out == {cloud.issuer})
    outcome = await cloud.unlock(cloud.token(room, answer["non"]))
    assert (outcome["word"], outcome["code"]) == ("refused", "CARRIER_LOCKED_OUT")
    await asyncio.sleep(0.2)
    assert len(linked_gateway.gateway.movements) == 2, "of before"


async def test_36_a_gateway_that_has_not_heard_of_a_revoked_key_is_not_asked_about_its_tokens(
    site, cloud, linked_gateway
):
    room, stolen = linked_gateway.doors[ROOM], cloud.signing
    linked_gateway.entry.runtime_data.agreement.look_soon = lambda: None  # the news are slow
    cloud.signing = Key()
    await cloud.publish()
    await until(
        lambda: stolen.kid not in {k.kid for k in site.embedded.setup.building.keys.values() if k.opens(time.time())}
    )
    await has_key(linked_gateway, stolen.kid)
    answer = await cloud.challenge(room)
    outcome = await cloud.unlock(cloud.token(room, answer["non"], by=stolen))
    assert outcome["word"] == "invalid_token"
    await site.settle()
    assert "KEY_REVOKED" in [event.data["code"] for event in site.events], "an administrator sees that"
    await asyncio.sleep(0.2)
    assert linked_gateway.gateway.movements == []


@pytest.mark.parametrize(
    "word, code", [("unavailable", "STRIKE_REFUSED"), ("unavailable", "LATE"), ("unknown_outcome", None)]
)
async def test_a_token_that_a_gateway_may_have_spent_is_held_against_the_list_though_nothing_opened(
    cloud, linked_gateway, monkeypatch, word, code
):
    room = linked_gateway.doors[ROOM]

    async def present(door, token, issuer):
        return Answer(Word(word), code)

    answer = await cloud.challenge(room)
    monkeypatch.setattr(linked_gateway.entry.runtime_data, "present", present)
    assert (await cloud.unlock(cloud.token(room, answer["non"])))["word"] == word
    await cloud.until(lambda: cloud.connections[-1].accepted)
    told = {"type": "accepted", "jti": cloud.jti, "door": room, "code": code or "OUTCOME_UNKNOWN"}
    assert cloud.connections[-1].accepted == [told]


@pytest.mark.parametrize("alarm", [*Alarm, *LinkAlarm])
async def test_what_a_gateway_finds_on_a_link_of_its_own_is_a_repair_here(site, paired, repairs, alarm):
    remote = paired.entry.runtime_data
    alarms = (
        CarrierAlarm(Issuer("https://north.example"), alarm),
        CarrierAlarm(Issuer("https://swift.example"), alarm),
    )
    remote._standing = replace(remote._standing, alarms=alarms)
    remote.notify()
    issues = await repairs.listed()
    assert {issue["translation_key"] for issue in issues.values()} == {GATEWAYS_ALARMS[alarm].value}
    said = [texts(issue) for issue in issues.values()]
    assert any("https://north.example" in text for text in said), "which the building does not know"
    assert any("Swift" in text for text in said)
    assert not any(issue["is_fixable"] for issue in issues.values())
    remote._standing = replace(remote._standing, alarms=())
    remote.notify()
    assert await repairs.listed() == {}
