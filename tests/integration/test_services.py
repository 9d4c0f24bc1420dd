"""The actions and what they say to bad input: always a translated error, and never the token."""

from __future__ import annotations

import probatio
import pytest
from homeassistant.exceptions import ServiceValidationError

from custom_components.vestibule.const import DOMAIN
from custom_components.vestibule.vestibule_core.model import new_door_id
from tests.integration.site import RelayButton


@pytest.mark.parametrize(
    "data, key",
    [
        ({}, "door_or_device"),
        ({"door": "DOOR", "device_id": "DEVICE"}, "door_or_device"),
        ({"door": new_door_id(bytes(16))}, "unknown_door"),
        ({"door": "<script>"}, "unknown_door"),
        ({"device_id": "BUILDING"}, "unknown_door"),
        ({"device_id": "no such device"}, "service_device_not_found"),
        ({"door": "DOOR", "issuer": "https://stranger.example"}, "unknown_issuer"),
        ({"door": "DOOR", "issuer": "not an issuer"}, "unknown_issuer"),
        ({"door": "GATE"}, "carrier_without_door"),
    ],
)
async def test_a_wish_for_a_challenge_that_cannot_be_met_says_why(hass, site, device_registry, data, key):
    button = RelayButton("gate")
    await button.install(hass)
    gate = site.add_door("Gate", button.entity_id)
    await hass.async_block_till_done()
    building = device_registry.async_get_device_by_identifier(
        (DOMAIN, site.entry.data["building"]), site.entry.entry_id
    )
    known = {"DOOR": site.door, "GATE": gate, "DEVICE": site.device().id, "BUILDING": building.id}
    given = {"issuer": site.cloud.issuer} | {name: known.get(value, value) for name, value in data.items()}
    with pytest.raises(ServiceValidationError) as raised:
        await site.call("request_challenge", **given)
    assert raised.value.translation_key == key


async def test_a_stopped_building_gives_no_challenge_and_says_why(site):
    await site.embedded.stop()
    with pytest.raises(ServiceValidationError) as raised:
        await site.challenge()
    assert raised.value.translation_key == "stopping"


async def test_a_stopped_building_answers_a_token_with_unavailable(site, relay):
    token = await site.token()
    await site.embedded.stop()
    answer = await site.present(token)
    assert (answer["word"], answer["code"]) == ("unavailable", "STOPPING")
    assert relay.told == []


async def test_without_a_loaded_building_the_actions_say_so(hass, site):
    await hass.config_entries.async_unload(site.entry.entry_id)
    for service, data in (
        ("request_challenge", {"door": site.door, "issuer": site.cloud.issuer}),
        ("present_token", {"token": "t"}),
    ):
        with pytest.raises(ServiceValidationError) as raised:
            await site.call(service, **data)
        assert raised.value.translation_key == "service_config_entry_not_loaded"


async def test_a_refusal_is_an_answer_so_the_answer_has_to_be_taken(hass, site):
    with pytest.raises(ServiceValidationError) as raised:
        await hass.services.async_call(DOMAIN, "present_token", {"token": "t"}, blocking=True)
    assert raised.value.translation_key == "service_lacks_response_request"


@pytest.mark.parametrize("data", [{}, {"token": ["SECRET"]}, {"token": "SECRET", "door": "x"}, {"token": None}])
async def test_a_malformed_call_is_turned_away_without_showing_the_token(site, data):
    with pytest.raises(probatio.Invalid) as raised:
        await site.call("present_token", **data)
    assert "SECRET" not in str(raised.value)
    assert "SECRET" not in repr(raised.value)
