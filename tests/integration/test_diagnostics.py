"""Diagnostics: what helps, and nothing that identifies or opens anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from homeassistant.auth.models import User
from homeassistant.core import Context, HomeAssistant
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.components.diagnostics import (
    get_diagnostics_for_config_entry,
    get_diagnostics_for_device,
)

from custom_components.vestibule.const import DOMAIN
from custom_components.vestibule.vestibule_core.pin import Pin
from tests.integration.site import RelayButton, Site

PIN = Pin.of("4711", b"salt-of-sixteen.")


@pytest.fixture
async def busy(hass: HomeAssistant, site: Site, hass_admin_user: User) -> dict[str, str]:
    """A building in which everything has been used; returns what must not be found, by what it is."""
    assert await async_setup_component(hass, "diagnostics", {})
    button = RelayButton("gate opener")
    await button.install(hass)
    gate = site.add_door("Garden gate", button.entity_id)
    hass.states.async_set("binary_sensor.contact_of_the_hall", "off")
    site.change(
        "Front door",
        contact="binary_sensor.contact_of_the_hall",
        held_open_time=30,
        pin={"salt": PIN.salt.hex(), "digest": PIN.digest.hex()},
        hours=[{"days": ["mon", "tue"], "from": "08:00:00", "to": "18:00:00"}],
    )
    site.change(
        "Parcel Express",
        doors=[site.door, gate],
        intake_key_sha256="5ec2e7" * 10 + "abcd",
        revoked=[site.cloud.key.kid],
        rate=7,
    )
    await hass.async_block_till_done()
    await hass.services.async_call(
        "lock",
        "unlock",
        {"entity_id": site.entity_id("lock"), "code": "4711"},
        blocking=True,
        context=Context(user_id=hass_admin_user.id),
    )
    await site.present(await site.token())
    await site.present("rubbish")
    await site.settle()
    jwk = site.cloud.key.jwk()
    return {
        "building": site.entry.title,
        "building id": site.entry.data["building"],
        "entry": site.entry.entry_id,
        "unique id": '"building"' + site.entry.unique_id,
        "door": "Front door",
        "other door": "Garden gate",
        "door id": site.door.removeprefix("door:"),
        "other door id": gate.removeprefix("door:"),
        "carrier": "Parcel Express",
        "issuer": site.cloud.issuer,
        "host": "parcel.example",
        "kid": site.cloud.key.kid,
        "key": jwk["x"],
        "intake key": "5ec2e7",
        "PIN": "4711",
        "PIN's salt": PIN.salt.hex(),
        "PIN's digest": PIN.digest.hex(),
        "person": hass_admin_user.name,
        "person's id": hass_admin_user.id,
        "relay": "relay",
        "button": "gate_opener",
        "sensor": "contact_of_the_hall",
        **{f"subentry {s.title}": s.subentry_id for s in site.entry.subentries.values()},
        **{
            f"registry id of {entity.entity_id}": entity.id
            for entity in er.async_get(hass).entities.values()
            if entity.platform in ("test", DOMAIN)
        },
    }


def leaks(found: dict[str, Any], secrets: dict[str, str]) -> set[str]:
    # "relay" is our own word for it; an entity id or a name of it is not.
    text = json.dumps(found).replace('"relay":', "").replace("relay_", "")
    return {what for what, secret in secrets.items() if secret.lower() in text.lower()}


async def test_the_buildings_diagnostics_hold_no_secret_and_no_name(hass, site, busy, hass_client):
    found = await get_diagnostics_for_config_entry(hass, hass_client, site.entry)
    assert leaks(found, busy) == set()


async def test_a_doors_diagnostics_hold_no_secret_and_no_name(hass, site, busy, hass_client):
    found = await get_diagnostics_for_device(hass, hass_client, site.entry, site.device())
    assert leaks(found, busy) == set()


async def test_the_search_for_secrets_finds_what_is_there(hass, site, busy):
    everything = {"entry": site.entry.as_dict(), "states": [state.as_dict() for state in hass.states.async_all()]}
    found = leaks(json.loads(json.dumps(everything, default=str)), busy)
    assert {"building", "door", "carrier", "kid", "key", "issuer", "intake key", "person", "PIN's digest"} <= found


async def test_they_say_how_the_building_is_set_up_and_what_is_going_on(hass, site, busy, hass_client):
    found = await get_diagnostics_for_config_entry(hass, hass_client, site.entry)
    assert found["building"] == {
        "stopped": False,
        "lockdown": False,
        "clock_is_trusted": True,
        "unreadable": 0,
        "persons_kept_days": 30,
        "refusals_without_trace": {"MALFORMED": 1},
    }
    journal = found["journal"]
    assert journal["entries"] == site.embedded.journal_entries > 2
    assert journal["failed"] is False
    assert journal["bytes"] > 0
    front, gate = found["doors"]["1"], found["doors"]["2"]
    assert front["has_pin"] is True
    assert front["hours"] == [{"days": ["mon", "tue"], "from": "08:00:00", "to": "18:00:00"}]
    capabilities = site.embedded.doors[site.door].strike.capabilities
    assert front["relay"] == {
        "domain": "switch",
        "releases_when": "on",
        "returns": "by_itself",
        "reports": True,
        "integration": "test",
        "disabled": False,
        "says": "on",
        "assumed": False,
        "reachable": True,
        "reading": "released",
        "device_timed": True,
        "feedback": True,
        "can_secure": capabilities.can_secure,
        "can_hold": capabilities.can_hold,
    }
    assert front["sensors"] == {"contact": {"integration": None, "disabled": None, "says": "off", "assumed": False}}
    assert (front["state"]["lock"], front["state"]["mode"], front["state"]["contact"]) == (
        "accessed",
        "normal",
        "inactive",
    )
    assert (gate["relay"]["domain"], gate["relay"]["says"], gate["has_pin"]) == ("button", None, False)
    assert found["carriers"] == [
        {
            "doors": [1, 2],
            "keys": [{"alg": "EdDSA", "status": "revoked", "from": 0, "until": None}],
            "hours": [],
            "rate": 7,
            "limits": {
                "methods": ["device_key", "passkey"],
                "distance": 75,
                "accuracy": 50,
                "position_age": 30,
                "request_age": 120,
            },
            "link": None,
        }
    ]


async def test_a_missing_relay_shows(hass, site, relay, busy, hass_client):
    er.async_get(hass).async_remove(relay.entity_id)
    await hass.async_block_till_done()
    found = await get_diagnostics_for_device(hass, hass_client, site.entry, site.device())
    shown = found["door"]["relay"]
    assert (shown["integration"], shown["says"], shown["reachable"]) == (None, None, False)


async def test_the_buildings_own_device_has_the_buildings(hass, site, busy, hass_client, device_registry):
    building = device_registry.async_get_device_by_identifier(
        (DOMAIN, site.entry.data["building"]), site.entry.entry_id
    )
    found = await get_diagnostics_for_device(hass, hass_client, site.entry, building)
    assert found.keys() == {"building", "journal", "doors", "carriers"}
    assert leaks(found, busy) == set()
