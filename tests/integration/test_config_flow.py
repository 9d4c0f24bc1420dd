"""The forms: each way through, each mistake and the way on from it."""

from __future__ import annotations

import hashlib
import json
import re

import probatio
import pytest
from homeassistant.config_entries import ConfigEntryState, FlowType
from homeassistant.data_entry_flow import FlowResultType, InvalidData
from homeassistant.helpers import entity_registry as er
from homeassistant.setup import async_setup_component

from custom_components.vestibule.const import DOMAIN
from custom_components.vestibule.vestibule_core.keys import Alg, SigningKey
from custom_components.vestibule.vestibule_core.model import door_id
from tests.integration.site import Cloud, RelayButton


@pytest.fixture
async def empty(hass, site):
    """The loaded building without doors and carriers."""
    site.remove("Parcel Express")
    site.remove("Front door")
    await hass.async_block_till_done()
    return site


def suggested(result) -> dict:
    """What a form shows as already filled in."""
    return {
        key.schema: key.description["suggested_value"]
        for key in result["data_schema"].schema
        if key.description and "suggested_value" in key.description
    }


def options(result, field: str) -> dict[str, str]:
    """What a form offers for a field."""
    selector = next(value for key, value in result["data_schema"].schema.items() if key.schema == field)
    return {option["value"]: option["label"] for option in selector.config["options"]}


# ---- the building ---------------------------------------------------------------------------------------------------


async def test_the_first_building_is_named_and_the_first_door_is_asked_for(hass):
    hass.config.location_name = "Linden Court"
    flow = await hass.config_entries.flow.async_init(DOMAIN, context={"source": "user"})
    assert (flow["type"], flow["step_id"]) == (FlowResultType.FORM, "user")
    assert suggested(flow) == {"name": "Linden Court"}

    flow = await hass.config_entries.flow.async_configure(flow["flow_id"], {"name": "   "})
    assert flow["errors"] == {"name": "name_empty"}

    flow = await hass.config_entries.flow.async_configure(flow["flow_id"], {"name": " Oak House "})
    assert flow["type"] is FlowResultType.CREATE_ENTRY
    assert flow["title"] == "Oak House"
    assert re.fullmatch("[a-z2-7]{26}", flow["data"]["building"])
    assert flow["result"].unique_id == "building"
    assert flow["result"].state is ConfigEntryState.LOADED

    kind, next_flow = flow["next_flow"]
    assert kind is FlowType.CONFIG_SUBENTRIES_FLOW
    door = hass.config_entries.subentries.async_get(next_flow)
    assert (door["handler"], door["step_id"]) == ((flow["result"].entry_id, "door"), "user")


async def test_without_a_name_for_the_home_the_form_says_building(hass):
    hass.config.location_name = ""
    flow = await hass.config_entries.flow.async_init(DOMAIN, context={"source": "user"})
    assert suggested(flow) == {"name": "Building"}


async def test_there_is_one_building(hass, site):
    flow = await hass.config_entries.flow.async_init(DOMAIN, context={"source": "user"})
    assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "already_configured")


async def test_the_building_is_renamed_without_a_reload(hass, site, device_registry):
    controller = site.embedded.controller
    flow = await site.entry.start_reconfigure_flow(hass)
    assert suggested(flow) == {"name": "Linden Court"}

    flow = await hass.config_entries.flow.async_configure(flow["flow_id"], {"name": " "})
    assert flow["errors"] == {"name": "name_empty"}

    flow = await hass.config_entries.flow.async_configure(flow["flow_id"], {"name": "Linden Yard"})
    await hass.async_block_till_done()
    assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "reconfigure_successful")
    assert site.entry.title == "Linden Yard"
    building = device_registry.async_get_device_by_identifier(
        (DOMAIN, site.entry.data["building"]), site.entry.entry_id
    )
    assert building.name == "Linden Yard"
    assert site.embedded.controller is controller


async def test_renaming_a_building_that_failed_to_load_tries_to_load_it(hass, site):
    await hass.config_entries.async_unload(site.entry.entry_id)
    flow = await site.entry.start_reconfigure_flow(hass)
    await hass.config_entries.flow.async_configure(flow["flow_id"], {"name": "Linden Yard"})
    await hass.async_block_till_done()
    assert site.entry.state is ConfigEntryState.LOADED


# ---- doors ----------------------------------------------------------------------------------------------------------


def door_input(relay: str, /, **changes) -> dict:
    return {
        "name": "Back door",
        "relay": relay,
        "access_time": 4,
        "releases_when": "on",
        "returns": "by_itself",
    } | changes


async def start(hass, site, kind: str):
    return await hass.config_entries.subentries.async_init((site.entry.entry_id, kind), context={"source": "user"})


async def go_on(hass, flow, user_input: dict):
    return await hass.config_entries.subentries.async_configure(flow["flow_id"], user_input)


async def test_a_door_is_added_and_its_id_is_shown_before(hass, empty, relay, entity_registry):
    flow = await start(hass, empty, "door")
    assert (flow["type"], flow["step_id"], flow["errors"]) == (FlowResultType.FORM, "user", None)

    flow = await go_on(hass, flow, door_input(relay.entity_id, name=" Back door "))
    assert (flow["type"], flow["step_id"]) == (FlowResultType.FORM, "give")
    shown = flow["description_placeholders"]
    assert shown == {"name": "Back door", "door": door_id(shown["door"])}

    flow = await go_on(hass, flow, {})
    await hass.async_block_till_done()
    assert flow["type"] is FlowResultType.CREATE_ENTRY
    subentry = empty.subentry("Back door")
    assert subentry.unique_id == shown["door"]
    assert dict(subentry.data) == {
        "door": shown["door"],
        "relay": entity_registry.async_get(relay.entity_id).id,
        "access_time": 4,
        "releases_when": "on",
        "returns": "by_itself",
        "reports": True,
    }
    assert relay.told == [], "setting up moves nothing"
    assert empty.lock(shown["door"]).state == "locked"


async def test_the_manager_has_to_say_who_ends_a_release(hass, empty, relay):
    flow = await start(hass, empty, "door")
    without = door_input(relay.entity_id)
    del without["returns"]
    # The frontend chooses the first option of a required field by itself; this one must be left for a person.
    assert isinstance(next(key for key in flow["data_schema"].schema if key == "returns"), probatio.Optional)
    flow = await go_on(hass, flow, without)
    assert flow["errors"] == {"returns": "returns_missing"}
    flow = await go_on(hass, flow, door_input(relay.entity_id, returns="by_vestibule"))
    assert flow["step_id"] == "give"


@pytest.mark.parametrize(
    "mistake, errors",
    [
        ({"name": "  "}, {"name": "name_empty"}),
        ({"access_time": 0.4}, {"access_time": "access_time_range"}),
        ({"access_time": 30.5}, {"access_time": "access_time_range"}),
        ({"access_time": float("nan")}, {"access_time": "access_time_range"}),
        ({"relay": "switch.nowhere"}, {"relay": "relay_missing"}),
        ({"relay": "0123456789abcdef0123456789abcdef"}, {"relay": "relay_missing"}),
        ({"name": "", "relay": "switch.nowhere"}, {"name": "name_empty", "relay": "relay_missing"}),
    ],
)
async def test_a_mistake_in_a_door_is_named_and_nothing_typed_is_lost(hass, empty, relay, mistake, errors):
    flow = await start(hass, empty, "door")
    typed = door_input(relay.entity_id, **mistake)
    flow = await go_on(hass, flow, typed)
    assert (flow["step_id"], flow["errors"]) == ("user", errors)
    assert suggested(flow) == pytest.approx(typed, nan_ok=True)

    flow = await go_on(hass, flow, door_input(relay.entity_id))
    assert flow["step_id"] == "give"


async def test_a_relay_drives_one_door(hass, site, relay, entity_registry):
    flow = await start(hass, site, "door")
    for same in (relay.entity_id, entity_registry.async_get(relay.entity_id).id):
        flow = await go_on(hass, flow, door_input(same))
        assert flow["errors"] == {"relay": "relay_used"}
    hass.states.async_set("switch.unregistered", "off")
    flow = await go_on(hass, flow, door_input("switch.unregistered"))
    flow = await go_on(hass, flow, {})
    assert flow["data"]["relay"] == "switch.unregistered"
    flow = await start(hass, site, "door")
    flow = await go_on(hass, flow, door_input("switch.unregistered", name="Third door"))
    assert flow["errors"] == {"relay": "relay_used"}


async def test_vestibules_own_entities_are_no_relays(hass, site, relay, entity_registry):
    ours = entity_registry.async_get_or_create("switch", DOMAIN, "ours", config_entry=site.entry)
    hass.states.async_set(ours.entity_id, "off")
    flow = await start(hass, site, "door")
    with pytest.raises(InvalidData):  # not offered
        await go_on(hass, flow, door_input(ours.entity_id))
    flow = await go_on(hass, flow, door_input(ours.id))
    assert flow["errors"] == {"relay": "relay_ours"}
    lock = entity_registry.async_get(site.entity_id("lock"))
    flow = await go_on(hass, flow, door_input(lock.id))
    assert flow["errors"] == {"relay": "relay_ours"}


async def test_a_light_is_no_relay(hass, empty, relay, entity_registry):
    light = entity_registry.async_get_or_create("light", "demo", "lamp")
    hass.states.async_set(light.entity_id, "off")
    flow = await start(hass, empty, "door")
    with pytest.raises(InvalidData):  # not offered
        await go_on(hass, flow, door_input(light.entity_id))
    flow = await go_on(hass, flow, door_input(light.id))
    assert flow["errors"] == {"relay": "relay_wrong_kind"}
    flow = await go_on(hass, flow, door_input(relay.entity_id))
    assert flow["step_id"] == "give"


@pytest.mark.parametrize(
    "mistake, errors",
    [
        ({"returns": "by_vestibule"}, {"returns": "button_returns"}),
        ({"releases_when": "off"}, {"releases_when": "button_releases_when"}),
        (
            {"returns": "by_vestibule", "releases_when": "off"},
            {"returns": "button_returns", "releases_when": "button_releases_when"},
        ),
    ],
)
@pytest.mark.parametrize("kind", ["button", "input_button"])
async def test_a_button_cannot_be_put_back_nor_be_off(hass, empty, kind, mistake, errors):
    if kind == "button":
        button = RelayButton("gong")
        await button.install(hass)
        relay = button.entity_id
    else:
        assert await async_setup_component(hass, "input_button", {"input_button": {"gong": {}}})
        relay = "input_button.gong"
    flow = await start(hass, empty, "door")
    flow = await go_on(hass, flow, door_input(relay, **mistake))
    assert flow["errors"] == errors
    flow = await go_on(hass, flow, door_input(relay))
    assert flow["step_id"] == "give"


async def test_a_door_is_changed_and_keeps_its_id(hass, site, relay):
    before = dict(site.subentry("Front door").data)
    flow = await site.entry.start_subentry_reconfigure_flow(hass, site.subentry("Front door").subentry_id)
    assert flow["description_placeholders"] == {"door": site.door}
    assert suggested(flow) == {
        "name": "Front door",
        "relay": relay.entity_id,
        "access_time": 5.0,
        "releases_when": "on",
        "returns": "by_itself",
    }

    flow = await go_on(hass, flow, door_input(relay.entity_id, name=""))
    assert (flow["step_id"], flow["errors"]) == ("reconfigure", {"name": "name_empty"})
    assert flow["description_placeholders"] == {"door": site.door}

    flow = await go_on(hass, flow, door_input(relay.entity_id, name="Garden gate", access_time=9))
    await hass.async_block_till_done()
    assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "reconfigure_successful")
    assert dict(site.subentry("Garden gate").data) == before | {"access_time": 9}
    assert site.subentry("Garden gate").unique_id == site.door


async def test_a_relay_that_was_renamed_is_shown_by_its_new_name(hass, site, relay):
    er.async_get(hass).async_update_entity(relay.entity_id, new_entity_id="switch.strike")
    await hass.async_block_till_done()
    flow = await site.entry.start_subentry_reconfigure_flow(hass, site.subentry("Front door").subentry_id)
    assert suggested(flow)["relay"] == "switch.strike"


@pytest.mark.parametrize("kind", ["button", "a switch that assumes"])
async def test_a_relay_that_cannot_report_is_known_as_such_from_then_on(hass, site, kind):
    blind = "button.blind" if kind == "button" else "switch.blind"
    hass.states.async_set(blind, "unknown", {"assumed_state": kind != "button"})
    flow = await site.entry.start_subentry_reconfigure_flow(hass, site.subentry("Front door").subentry_id)
    await go_on(hass, flow, door_input(blind))
    await hass.async_block_till_done()
    assert site.subentry("Back door").data["reports"] is False
    assert site.lock().attributes["assumed_state"] is True


@pytest.mark.parametrize("stored", [{}, {"door": None}, {"door": "door:x"}])
async def test_a_door_whose_id_cannot_be_read_can_only_be_deleted_and_hinders_no_form(hass, site, cloud, stored):
    front = site.subentry("Front door")
    site._add("door", "Broken", stored, None)
    await hass.async_block_till_done()
    flow = await site.entry.start_subentry_reconfigure_flow(hass, site.subentry("Broken").subentry_id)
    assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "door_id_unreadable")
    assert options(await start(hass, site, "carrier"), "doors") == {site.door: "Front door"}
    assert options(await reconfigure(hass, site), "doors") == {site.door: "Front door"}
    flow = await site.entry.start_subentry_reconfigure_flow(hass, front.subentry_id)
    assert flow["step_id"] == "reconfigure"


@pytest.mark.parametrize("lost", ["relay", "reports", "access_time", "returns"])
async def test_a_door_that_cannot_be_read_is_mended_in_its_form(hass, site, relay, issue_registry, lost):
    front = site.subentry("Front door")
    data = {name: value for name, value in front.data.items() if name != lost}
    hass.config_entries.async_update_subentry(site.entry, front, data=data)
    await hass.async_block_till_done()
    assert len(issue_registry.issues) == 1
    flow = await site.entry.start_subentry_reconfigure_flow(hass, front.subentry_id)
    await go_on(hass, flow, door_input(relay.entity_id, name="Front door"))
    await hass.async_block_till_done()
    assert issue_registry.issues == {}
    assert (await site.present(await site.token()))["word"] == "granted"


# ---- carriers -------------------------------------------------------------------------------------------------------


def jwk_set(*keys: SigningKey, **extra) -> str:
    return json.dumps({"keys": [key.jwk() | extra for key in keys]})


def carrier_input(cloud: Cloud, /, **changes) -> dict:
    return {
        "name": "Parcel Express",
        "issuer": cloud.issuer,
        "jwk_set": jwk_set(cloud.key),
        "doors": [],
        "methods": ["passkey", "device_key"],
        "distance": 75,
        "accuracy": 50,
        "position_age": 30,
        "request_age": 120,
    } | changes


async def test_a_carrier_is_added_its_keys_compared_and_its_intake_key_shown_once(hass, site):
    cloud, second = Cloud("https://second.example"), SigningKey.generate(Alg.ES256)
    flow = await start(hass, site, "carrier")
    assert (flow["type"], flow["step_id"]) == (FlowResultType.FORM, "user")
    assert options(flow, "doors") == {site.door: "Front door"}
    defaults = flow["data_schema"]({"name": "n", "issuer": "i", "jwk_set": "j"})
    assert defaults == carrier_input(cloud) | {
        "name": "n",
        "issuer": "i",
        "jwk_set": "j",
        "methods": ["device_key", "passkey"],
    }

    typed = carrier_input(
        cloud,
        name=" Second ",
        issuer=f" {cloud.issuer} ",
        jwk_set=jwk_set(cloud.key, second, use="sig", note="2026"),
        doors=[site.door],
    )
    flow = await go_on(hass, flow, typed)
    assert flow["step_id"] == "confirm"
    assert flow["description_placeholders"] == {
        "name": "Second",
        "keys": f"- `{cloud.key.kid}` (EdDSA)\n- `{second.kid}` (ES256)",
    }

    flow = await go_on(hass, flow, {})
    assert flow["step_id"] == "intake_key"
    intake_key = flow["description_placeholders"]["intake_key"]
    assert len(intake_key) == 43

    flow = await go_on(hass, flow, {})
    await hass.async_block_till_done()
    assert flow["type"] is FlowResultType.CREATE_ENTRY
    subentry = site.subentry("Second")
    assert subentry.unique_id == cloud.issuer
    data = dict(subentry.data)
    assert json.loads(data.pop("jwk_set")) == {"keys": [cloud.key.jwk(), second.jwk()]}
    assert data == {
        "issuer": cloud.issuer,
        "revoked": [],
        "doors": [site.door],
        "methods": ["passkey", "device_key"],
        "distance": 75,
        "accuracy": 50,
        "position_age": 30,
        "request_age": 120,
        "intake_key_sha256": hashlib.sha256(intake_key.encode()).hexdigest(),
    }
    assert intake_key not in json.dumps(site.entry.as_dict(), default=str)

    answer = await site.present(await site.token(cloud=cloud))
    assert answer["word"] == "granted"


async def test_a_single_jwk_is_a_set_of_one(hass, empty, cloud):
    flow = await start(hass, empty, "carrier")
    flow = await go_on(hass, flow, carrier_input(cloud, jwk_set=json.dumps(cloud.key.jwk())))
    flow = await go_on(hass, flow, {})
    flow = await go_on(hass, flow, {})
    assert json.loads(flow["data"]["jwk_set"]) == {"keys": [cloud.key.jwk()]}


ED = SigningKey.generate().jwk()
ES = SigningKey.generate(Alg.ES256).jwk()


@pytest.mark.parametrize(
    "text, reason, position",
    [
        ("[" * 20_000, "too_large", 0),
        ("{", "not_json", 0),
        ("[]", "no_keys", 0),
        ({"keys": []}, "no_keys", 0),
        ({"keys": [ED] * 9}, "too_many_keys", 0),
        ({"keys": [ED, 7]}, "not_an_object", 2),
        ({"keys": [ES, ED | {"d": "c2VjcmV0"}]}, "private_key", 2),
        ({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}, "wrong_kty", 1),
        ({"keys": [ED | {"crv": "X25519"}]}, "wrong_crv", 1),
        ({"keys": [ED | {"alg": "HS256"}]}, "wrong_alg", 1),
        ({"keys": [ES, ED | {"use": "enc"}]}, "wrong_use", 2),
        ({"keys": [ED | {"kid": "main"}]}, "wrong_kid", 1),
        ({"keys": [ED | {"x": "AQAB"}]}, "bad_coordinate", 1),
        ({"keys": [ED | {"x": "A" * 43}]}, "weak_key", 1),
        ({"keys": [ED, ED]}, "duplicate_key", 2),
    ],
)
async def test_a_key_set_that_cannot_be_trusted_is_refused_by_reason_and_position(
    hass, empty, cloud, text, reason, position
):
    flow = await start(hass, empty, "carrier")
    typed = carrier_input(cloud, jwk_set=text if isinstance(text, str) else json.dumps(text))
    flow = await go_on(hass, flow, typed)
    assert (flow["step_id"], flow["errors"]) == ("user", {"jwk_set": f"key_set_{reason}"})
    assert flow["description_placeholders"]["position"] == str(position)
    if reason == "private_key":  # it has to be replaced; the form does not keep it
        del typed["jwk_set"]
    assert suggested(flow) == typed

    flow = await go_on(hass, flow, carrier_input(cloud))
    assert flow["step_id"] == "confirm"


@pytest.mark.parametrize(
    "mistake, errors",
    [
        ({"name": " "}, {"name": "name_empty"}),
        ({"issuer": "http://parcel.example"}, {"issuer": "issuer_invalid"}),
        ({"issuer": f"https://{'a' * 57}"}, {"issuer": "issuer_invalid"}),
        ({"issuer": "https://parcel.example/<b>"}, {"issuer": "issuer_invalid"}),
        ({"methods": []}, {"methods": "methods_empty"}),
        ({"distance": 0}, {"distance": "distance_range"}),
        ({"distance": 1001}, {"distance": "distance_range"}),
        ({"accuracy": 0}, {"accuracy": "accuracy_range"}),
        ({"position_age": 301}, {"position_age": "position_age_range"}),
        ({"request_age": -1}, {"request_age": "request_age_range"}),
        (
            {"name": "", "issuer": "x", "jwk_set": "x", "methods": []},
            {
                "name": "name_empty",
                "issuer": "issuer_invalid",
                "jwk_set": "key_set_not_json",
                "methods": "methods_empty",
            },
        ),
    ],
)
async def test_a_mistake_in_a_carrier_is_named_and_nothing_typed_is_lost(hass, empty, cloud, mistake, errors):
    flow = await start(hass, empty, "carrier")
    typed = carrier_input(cloud, **mistake)
    flow = await go_on(hass, flow, typed)
    assert (flow["step_id"], flow["errors"]) == ("user", errors)
    assert suggested(flow) == typed
    flow = await go_on(hass, flow, carrier_input(cloud))
    assert flow["step_id"] == "confirm"


async def test_two_carriers_share_neither_issuer_nor_key(hass, site, cloud):
    other = Cloud("https://other.example")
    flow = await start(hass, site, "carrier")
    flow = await go_on(hass, flow, carrier_input(other, issuer=cloud.issuer))
    assert flow["errors"] == {"issuer": "issuer_used"}
    flow = await go_on(hass, flow, carrier_input(other, jwk_set=jwk_set(other.key, cloud.key)))
    assert flow["errors"] == {"jwk_set": "key_set_of_another_carrier"}
    assert flow["description_placeholders"]["position"] == "2"
    flow = await go_on(hass, flow, carrier_input(other))
    assert flow["step_id"] == "confirm"


async def test_of_two_managers_who_add_the_same_carrier_the_second_is_told(hass, empty, cloud):
    flows = [await start(hass, empty, "carrier") for _ in range(2)]
    for step in (carrier_input(cloud), {}):
        flows = [await go_on(hass, flow, step) for flow in flows]
    first, second = [await go_on(hass, flow, {}) for flow in flows]
    assert first["type"] is FlowResultType.CREATE_ENTRY
    assert (second["type"], second["reason"]) == (FlowResultType.ABORT, "already_configured")


async def test_a_carrier_whose_stored_keys_are_broken_does_not_hinder_another(hass, site):
    site.change("Parcel Express", jwk_set="broken")
    other = Cloud("https://other.example")
    flow = await start(hass, site, "carrier")
    flow = await go_on(hass, flow, carrier_input(other))
    assert flow["step_id"] == "confirm"


async def reconfigure(hass, site):
    return await site.entry.start_subentry_reconfigure_flow(hass, site.subentry("Parcel Express").subentry_id)


def change_input(cloud: Cloud, /, **changes) -> dict:
    return carrier_input(cloud) | {"revoked": [], "new_intake_key": False} | changes


async def test_a_carriers_limits_are_changed_at_once(hass, site, cloud):
    before = dict(site.subentry("Parcel Express").data)
    flow = await reconfigure(hass, site)
    assert suggested(flow) == {
        "name": "Parcel Express",
        **{
            field: before[field]
            for field in (
                "issuer",
                "jwk_set",
                "revoked",
                "doors",
                "methods",
                "distance",
                "accuracy",
                "position_age",
                "request_age",
            )
        },
    }
    assert options(flow, "revoked") == {cloud.key.kid: f"{cloud.key.kid} (EdDSA)"}

    flow = await go_on(hass, flow, change_input(cloud, distance=0))
    assert (flow["step_id"], flow["errors"]) == ("reconfigure", {"distance": "distance_range"})
    assert options(flow, "revoked") == {cloud.key.kid: f"{cloud.key.kid} (EdDSA)"}

    flow = await go_on(hass, flow, change_input(cloud, name="Parcels", doors=[site.door], distance=5))
    await hass.async_block_till_done()
    assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "reconfigure_successful")
    after = dict(site.subentry("Parcels").data)
    assert json.loads(after.pop("jwk_set")) == json.loads(before.pop("jwk_set"))
    assert after == before | {"distance": 5}

    answer = await site.present(await site.token(distance=6))
    assert (answer["code"], answer["limit"]) == ("POLICY_EVIDENCE", "distance")


async def test_a_revoked_key_stays_listed_and_its_tokens_are_refused_by_name(hass, site, cloud):
    token = await site.token()
    flow = await reconfigure(hass, site)
    flow = await go_on(hass, flow, change_input(cloud, doors=[site.door], revoked=[cloud.key.kid]))
    await hass.async_block_till_done()
    assert flow["reason"] == "reconfigure_successful"
    assert site.subentry("Parcel Express").data["revoked"] == [cloud.key.kid]

    assert (await site.present(token))["word"] == "invalid_token"
    assert site.outcomes()[-1] == ("access_denied", "KEY_REVOKED")
    assert site.access().attributes["code"] == "KEY_REVOKED", "the door that it was for shows it"

    flow = await reconfigure(hass, site)
    assert suggested(flow)["revoked"] == [cloud.key.kid]


async def test_new_keys_are_shown_to_be_compared_and_the_old_ones_end(hass, site, cloud):
    new = SigningKey.generate()
    flow = await reconfigure(hass, site)
    flow = await go_on(
        hass, flow, change_input(cloud, doors=[site.door], jwk_set=jwk_set(new), revoked=[cloud.key.kid])
    )
    assert flow["step_id"] == "confirm"
    assert flow["description_placeholders"]["keys"] == f"- `{new.kid}` (EdDSA)"
    token = await site.token()
    flow = await go_on(hass, flow, {})
    await hass.async_block_till_done()
    assert flow["reason"] == "reconfigure_successful"
    assert site.subentry("Parcel Express").data["revoked"] == [cloud.key.kid], "it may come back with an old set"

    assert (await site.present(token))["word"] == "invalid_token"
    old, cloud.key = cloud.key, new
    assert (await site.present(await site.token()))["word"] == "granted"

    flow = await reconfigure(hass, site)
    flow = await go_on(hass, flow, change_input(cloud, doors=[site.door], jwk_set=jwk_set(old, new)))
    await go_on(hass, flow, {})
    await hass.async_block_till_done()
    cloud.key = old
    assert (await site.present(await site.token()))["word"] == "invalid_token", "revoked is revoked"


async def test_a_new_intake_key_is_shown_once_and_replaces_the_old_one(hass, site, cloud):
    flow = await reconfigure(hass, site)
    flow = await go_on(hass, flow, change_input(cloud, new_intake_key=True))
    assert flow["step_id"] == "intake_key"
    intake_key = flow["description_placeholders"]["intake_key"]
    before = site.subentry("Parcel Express").data["intake_key_sha256"]
    assert before == "0" * 64, "until it was seen, nothing changes"

    flow = await go_on(hass, flow, {})
    await hass.async_block_till_done()
    assert flow["reason"] == "reconfigure_successful"
    after = site.subentry("Parcel Express").data["intake_key_sha256"]
    assert after == hashlib.sha256(intake_key.encode()).hexdigest()


async def test_a_carrier_renames_itself(hass, site, cloud):
    flow = await reconfigure(hass, site)
    flow = await go_on(hass, flow, change_input(cloud, doors=[site.door], issuer="https://new.example"))
    await hass.async_block_till_done()
    assert site.subentry("Parcel Express").unique_id == "https://new.example"
    renamed = Cloud("https://new.example")
    renamed.key = cloud.key
    assert (await site.present(await site.token(cloud=renamed)))["word"] == "granted"


async def test_a_door_that_is_gone_is_not_shown_as_chosen(hass, site, cloud):
    site.remove("Front door")
    await hass.async_block_till_done()
    flow = await reconfigure(hass, site)
    assert suggested(flow)["doors"] == []


@pytest.mark.parametrize("lost", ["issuer", "doors", "revoked", "jwk_set"])
async def test_a_carrier_that_lost_something_is_mended_in_its_form(hass, site, cloud, issue_registry, lost):
    site.change("Parcel Express", **{lost: None})
    await hass.async_block_till_done()
    assert len(issue_registry.issues) == 1
    flow = await reconfigure(hass, site)
    flow = await go_on(hass, flow, change_input(cloud, doors=[site.door]))
    if flow["type"] is FlowResultType.FORM:
        await go_on(hass, flow, {})
    await hass.async_block_till_done()
    assert issue_registry.issues == {}


async def test_a_carrier_whose_stored_keys_are_broken_is_mended_in_its_form(hass, site, cloud, issue_registry):
    site.change("Parcel Express", jwk_set="broken")
    await hass.async_block_till_done()
    assert len(issue_registry.issues) == 1
    flow = await reconfigure(hass, site)
    assert suggested(flow)["jwk_set"] == "broken"
    flow = await go_on(hass, flow, change_input(cloud, doors=[site.door]))
    assert flow["step_id"] == "confirm"
    await go_on(hass, flow, {})
    await hass.async_block_till_done()
    assert issue_registry.issues == {}
    assert (await site.present(await site.token()))["word"] == "granted"
