"""The triggers in real automations: what sets them off, by which target, and what does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from homeassistant.components.automation.const import DOMAIN as AUTOMATION
from homeassistant.components.event import EventEntity
from homeassistant.core import HomeAssistant
from homeassistant.helpers import area_registry as ar
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import floor_registry as fr
from homeassistant.helpers import label_registry as lr
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import async_capture_events, setup_test_component_platform

from custom_components.vestibule import trigger
from tests.integration.site import RelayButton, Site
from tests.integration.test_translations import EN, PACKAGE

type Ran = list[dict[str, Any]]


class OtherEvents(EventEntity):
    """An event entity of another integration, which speaks as ours do."""

    _attr_should_poll = False
    _attr_name = "other"
    _attr_unique_id = "other"

    def __init__(self) -> None:
        self._attr_event_types = ["access_granted", "access_denied"]

    def tell(self, what: str) -> None:
        self._trigger_event(what)
        self.async_write_ha_state()


@pytest.fixture
def automate(hass: HomeAssistant) -> Callable[..., Any]:
    """Set an automation up; it notes what it saw in the returned list."""

    async def automate(what: str, target: dict[str, Any], condition: str | None = None) -> Ran:
        ran = async_capture_events(hass, f"ran_{what}")
        config: dict[str, Any] = {
            "alias": f"on {what}",
            "triggers": {"trigger": f"vestibule.{what}", "target": target},
            "actions": {
                "event": f"ran_{what}",
                "event_data": {
                    "carrier": "{{ trigger.to_state.attributes.carrier }}",
                    "code": "{{ trigger.to_state.attributes.code }}",
                    "entity": "{{ trigger.entity_id }}",
                },
            },
        }
        if condition:
            config["conditions"] = {"condition": "template", "value_template": condition}
        assert await async_setup_component(hass, AUTOMATION, {AUTOMATION: config})
        await hass.async_block_till_done()
        assert hass.states.get(f"automation.on_{what}").state == "on"
        return ran

    return automate


def put_into_an_area(hass: HomeAssistant, site: Site) -> tuple[str, str]:
    """Put the front door into an area on a floor; return the ids of both."""
    floor = fr.async_get(hass).async_create("Ground floor")
    area = ar.async_get(hass).async_create("Entrance", floor_id=floor.floor_id)
    dr.async_get(hass).async_update_device(site.device().id, area_id=area.id)
    return area.id, floor.floor_id


@pytest.fixture
async def other(hass: HomeAssistant) -> OtherEvents:
    """An event entity of another integration; to be asked for before the site."""
    other = OtherEvents()
    setup_test_component_platform(hass, "event", [other])
    assert await async_setup_component(hass, "event", {"event": {"platform": "test"}})
    await hass.async_block_till_done()
    return other


async def until_it(ran: Ran) -> None:
    async with asyncio.timeout(30):
        while not ran:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("by", ["entity_id", "device_id", "area_id", "floor_id", "label_id"])
async def test_a_grant_sets_an_automation_off_by_every_kind_of_target(hass, site, automate, by):
    area, floor = put_into_an_area(hass, site)
    label = lr.async_get(hass).async_create("Parcels").label_id
    dr.async_get(hass).async_update_device(site.device().id, labels={label})
    target = {
        "entity_id": site.entity_id("event"),
        "device_id": site.device().id,
        "area_id": area,
        "floor_id": floor,
        "label_id": label,
    }[by]
    ran = await automate("access_granted", {by: target})
    await site.present(await site.token())
    assert [event.data for event in ran] == [
        {"carrier": "Parcel Express", "code": "GRANTED", "entity": site.entity_id("event")}
    ]


async def test_a_refusal_sets_off_only_what_waits_for_refusals_and_says_why(hass, site, automate):
    denied = await automate("access_denied", {"device_id": site.device().id})
    await site.present(await site.token(distance=400))
    await site.present(await site.token())
    assert [event.data["code"] for event in denied] == ["POLICY_EVIDENCE"]


async def test_a_person_who_opens_by_hand_sets_it_off_too(hass, site, automate):
    ran = await automate("access_granted", {"device_id": site.device().id})
    await site.unlock()
    assert len(ran) == 1


async def test_another_door_sets_nothing_off(hass, site, automate):
    button = RelayButton("gate")
    await button.install(hass)
    gate = site.add_door("Gate", button.entity_id)
    await hass.async_block_till_done()
    ran = await automate("access_granted", {"device_id": site.device(gate).id})
    await site.unlock()
    assert ran == []
    await site.unlock(gate)
    assert len(ran) == 1


async def test_an_event_entity_of_another_integration_sets_nothing_off(hass, other, site, automate):
    area, floor = put_into_an_area(hass, site)
    er.async_get(hass).async_update_entity(other.entity_id, area_id=area)
    ran = await automate("access_granted", {"floor_id": floor, "entity_id": other.entity_id})
    other.tell("access_denied")
    other.tell("access_granted")
    await hass.async_block_till_done()
    assert hass.states.get(other.entity_id).attributes["event_type"] == "access_granted"
    assert ran == []
    await site.unlock()
    assert len(ran) == 1


async def test_the_first_access_after_an_outage_is_not_lost(hass, site, relay, automate):
    ran = await automate("access_granted", {"device_id": site.device().id})
    relay.lose()
    await hass.async_block_till_done()
    assert site.lock().state == "unavailable"
    relay.find()
    await site.unlock()
    assert len(ran) == 1


async def test_the_first_access_of_all_and_the_first_after_a_reload_are_not_lost(hass, site, automate):
    assert site.access().state == "unknown"
    ran = await automate("access_granted", {"device_id": site.device().id})
    await site.unlock()
    assert len(ran) == 1
    await hass.config_entries.async_reload(site.entry.entry_id)
    await hass.async_block_till_done()
    assert len(ran) == 1  # what is shown again is no new event
    await site.unlock()
    assert len(ran) == 2


async def test_a_refusal_while_the_relay_is_away_sets_it_off(hass, site, relay, automate):
    ran = await automate("access_denied", {"device_id": site.device().id})
    token = await site.token()
    relay.lose()
    await site.present(token)
    assert [event.data["code"] for event in ran] == ["STRIKE_UNREACHABLE"]


@pytest.fixture
async def watched(hass: HomeAssistant, site: Site) -> Site:
    """The front door with a contact and a button to leave by."""
    hass.states.async_set("binary_sensor.contact", "off")
    hass.states.async_set("binary_sensor.rex", "off")
    site.change("Front door", contact="binary_sensor.contact", rex="binary_sensor.rex", held_open_time=0.05)
    await hass.async_block_till_done()
    await site.settle()
    return site


async def test_a_door_that_is_forced_open_sets_it_off(hass, watched, automate):
    ran = await automate("door_forced_open", {"device_id": watched.device().id})
    hass.states.async_set("binary_sensor.contact", "on")
    await until_it(ran)
    assert len(ran) == 1


async def test_a_door_that_is_held_open_sets_it_off(hass, watched, automate):
    _, floor = put_into_an_area(hass, watched)
    ran = await automate("door_held_open", {"floor_id": floor})
    await watched.unlock()
    hass.states.async_set("binary_sensor.contact", "on")
    await until_it(ran)
    assert len(ran) == 1


async def test_an_automation_of_the_old_kind_listens_to_the_bus(hass, site):
    ran = async_capture_events(hass, "ran")
    assert await async_setup_component(hass, AUTOMATION, {AUTOMATION: {
        "triggers": {"trigger": "event", "event_type": "vestibule_access", "event_data": {
            "device": site.device().id, "outcome": "access_granted",
        }},
        "actions": {"event": "ran", "event_data": {"carrier": "{{ trigger.event.data.carrier }}"}},
    }})  # fmt: skip
    await hass.async_block_till_done()
    await site.present(await site.token())
    assert [event.data for event in ran] == [{"carrier": "Parcel Express"}]


def test_every_trigger_is_described_and_has_its_texts_and_icon():
    described = yaml.safe_load((PACKAGE / "triggers.yaml").read_text("utf-8"))
    icons = json.loads((PACKAGE / "icons.json").read_text("utf-8"))
    described.pop(".doors")  # the part that they share
    assert described.keys() == trigger.TRIGGERS.keys() == EN["triggers"].keys() == icons["triggers"].keys()


async def test_the_triggers_are_offered_with_their_targets(hass, site, hass_ws_client):
    client = await hass_ws_client()
    await client.send_json_auto_id({"type": "trigger_platforms/subscribe"})
    assert (await client.receive_json())["success"]
    offered = (await client.receive_json())["event"]
    ours = {name: described for name, described in offered.items() if name.startswith("vestibule.")}
    assert ours.keys() == {f"vestibule.{name}" for name in trigger.TRIGGERS}
    for described in ours.values():
        assert described["target"]["entity"] == [{"integration": "vestibule", "domain": ["event"]}]
