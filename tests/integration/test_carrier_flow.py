"""Adding a carrier by its enrolment code: two pages, a cloud on loopback that is met, and what a mistake leads to."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import pytest
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.helpers import issue_registry as ir
from homeassistant.setup import async_setup_component

from custom_components.vestibule.const import DOMAIN, JOURNAL_FILE
from custom_components.vestibule.vestibule_core.errors import StoreFailed
from custom_components.vestibule.vestibule_core.model import new_door_id
from custom_components.vestibule.vestibule_core.reconcile import STATE, begin
from tests.integration.test_config_flow import go_on, options, start, suggested
from tests.link_cloud import Key, LinkCloud, b64

pytestmark = pytest.mark.usefixtures("socket_enabled")


@pytest.fixture
async def swift(socket_enabled):
    """The cloud of Swift Parcels."""
    async with LinkCloud() as cloud:
        yield cloud


def code_input(cloud: LinkCloud, site, **changes) -> dict:
    return {
        "code": cloud.code(),
        "doors": [site.door],
        "methods": ["passkey", "device_key"],
        "distance": 75,
        "accuracy": 50,
        "position_age": 30,
        "request_age": 120,
        "hours": [],
        "rate": 12,
    } | changes


async def start_by_code(hass, site):
    return await go_on(hass, await start(hass, site, "carrier"), {"next_step_id": "code"})


async def enrol(hass, site, cloud: LinkCloud, **changes):
    """Go through both pages, and wait for the link."""
    flow = await go_on(hass, await start_by_code(hass, site), code_input(cloud, site, **changes))
    assert flow["step_id"] == "enrolled", flow["errors"]
    met = len(cloud.connections)
    flow = await go_on(hass, flow, {"name": "Swift Parcels"})
    assert flow["type"] is FlowResultType.CREATE_ENTRY
    await hass.async_block_till_done()
    await cloud.linked(met + 1)
    return site.subentry("Swift Parcels")


async def test_a_carrier_is_added_by_its_code_in_two_pages(hass, site, swift):
    flow = await start(hass, site, "carrier")
    assert (flow["type"], flow["menu_options"]) == (FlowResultType.MENU, ["code", "keys"]), "the code comes first"
    flow = await go_on(hass, flow, {"next_step_id": "code"})
    assert options(flow, "doors") == {site.door: "Front door"}
    assert suggested(flow) == {"rate": 12}

    # Nothing but the code and the doors has to be filled in.
    typed = flow["data_schema"]({"code": "  " + swift.code()[:40] + "\n" + swift.code()[40:], "doors": [site.door]})
    flow = await go_on(hass, flow, typed)
    assert (flow["step_id"], suggested(flow)) == ("enrolled", {"name": "Swift Parcels"})
    shown = flow["description_placeholders"]
    assert shown["issuer"] == "https://swift.example"
    assert shown["host"] == swift.host
    assert shown["root"].replace(" ", "") == hashlib.sha256(swift.root.public).hexdigest()
    assert shown["keys"] == f"- `{swift.signing.kid}`"

    flow = await go_on(hass, flow, {"name": " Swift "})
    assert flow["type"] is FlowResultType.CREATE_ENTRY
    await hass.async_block_till_done()
    carrier = site.subentry("Swift")
    assert carrier.unique_id == "https://swift.example"
    assert carrier.data["host"] == swift.host
    assert carrier.data["root"] == swift.root.public.hex()
    assert carrier.data["doors"] == [site.door]
    assert "intake_key_sha256" not in carrier.data, "its cloud is called, and does not call"
    assert swift.code() not in repr(dict(carrier.data)), "the code is used up and not kept"
    assert b64(swift.secret) not in repr(dict(carrier.data))

    # The link stands at once, and what was chosen holds.
    connection = await swift.linked(2)
    assert "secret" not in connection.greeting
    assert [door["id"] for door in connection.hello["doors"]] == [site.door]
    assert await swift.deliver(site.door) == {"type": "outcome", "id": 1, "word": "granted", "code": "GRANTED"}


async def test_the_cloud_is_told_the_doors_that_were_chosen_where_they_are_and_no_others(hass, site, relay, swift):
    hass.config.latitude, hass.config.longitude = 52.5, 13.4
    site.add_door("Yard", relay.entity_id, position={"latitude": 52.6, "longitude": 13.5})
    site.add_door("Private", relay.entity_id)
    await hass.async_block_till_done()
    chosen = site.doors[:2]
    await go_on(hass, await start_by_code(hass, site), code_input(swift, site, doors=chosen))
    (connection,) = swift.connections
    assert connection.greeting["secret"] == b64(swift.secret)
    zone = hass.config.time_zone
    assert sorted(connection.hello["doors"], key=lambda door: door["name"]) == [
        {"id": chosen[0], "name": "Front door", "zone": zone, "lat": 52.5, "lon": 13.4},
        {"id": chosen[1], "name": "Yard", "zone": zone, "lat": 52.6, "lon": 13.5},
    ]


async def test_a_flow_that_is_left_lets_nobody_in_and_its_code_works_again(hass, site, relay, swift):
    flow = await go_on(hass, await start_by_code(hass, site), code_input(swift, site))
    assert flow["step_id"] == "enrolled"
    hass.config_entries.subentries.async_abort(flow["flow_id"])
    await hass.async_block_till_done()
    assert swift.connections[0].over.is_set(), "no link is left behind"
    assert "https://swift.example" not in site.embedded.controller.building.carriers

    await enrol(hass, site, swift)
    first, second = (connection.greeting["secret"] for connection in swift.connections[:2])
    assert first == second
    assert swift.connections[0].hello["ctl"] == swift.connections[1].hello["ctl"]
    assert (await swift.deliver(site.door))["word"] == "granted"


def nowhere() -> str:
    """Return a code that is complete and names no host."""
    body = bytes(48)
    return "vst1." + b64(body + hashlib.sha256(b"vst1." + body).digest()[:4])


@pytest.mark.parametrize(
    "spoil, error",
    [
        (lambda code: "", "code_none"),
        (lambda code: "https://swift.example/enrol", "code_none"),
        (lambda code: "vst2.AAAA", "code_none"),
        (lambda code: "vst1.A", "code_cut"),
        (lambda code: f"vst1.{'B' if code[5] == 'A' else 'A'}{code[6:]}", "code_check"),
        (lambda code: f"{code}.", "code_not_alone"),
        (lambda code: code + "A" * 200, "code_not_alone"),
        (lambda code: nowhere(), "code_no_host"),
    ],
)
async def test_what_is_wrong_with_a_code_is_said_and_nobody_is_called(hass, site, swift, spoil, error):
    flow = await start_by_code(hass, site)
    flow = await go_on(hass, flow, code_input(swift, site, code=spoil(swift.code())))
    assert (flow["step_id"], flow["errors"]) == ("code", {"code": error})
    assert suggested(flow)["doors"] == [site.door], "what was typed is still there"
    assert not swift.connections


@pytest.mark.parametrize(
    "changes, errors",
    [
        ({"doors": []}, {"doors": "doors_empty"}),
        ({"doors": [new_door_id(bytes([number] * 16)) for number in range(25)]}, {"doors": "doors_too_many"}),
        ({"methods": []}, {"methods": "methods_empty"}),
        ({"distance": 0}, {"distance": "distance_range"}),
        ({"rate": float("nan")}, {"rate": "rate_range"}),
        ({"hours": [{"days": []}]}, {"hours": "hours_without_days"}),
    ],
)
async def test_nobody_is_called_before_the_page_is_right(hass, site, swift, changes, errors):
    # The selector would refuse doors that it does not offer; here they have gone since.
    for number in range(25):
        site._add("door", f"Door {number}", {"door": new_door_id(bytes([number] * 16))}, None)
    flow = await go_on(hass, await start_by_code(hass, site), code_input(swift, site, **changes))
    assert (flow["step_id"], flow["errors"]) == ("code", errors)
    assert not swift.connections


@pytest.mark.parametrize(
    "close, error",
    [
        (4000, "enrol_busy"),
        (4001, "enrol_busy"),
        (4003, "enrol_turned_away"),
        (4004, "enrol_code_unusable"),
        (4005, "enrol_no_cloud"),
    ],
)
async def test_a_cloud_that_turns_the_code_away_is_understood(hass, site, swift, close, error):
    swift.refuse_with = close
    flow = await go_on(hass, await start_by_code(hass, site), code_input(swift, site))
    assert (flow["step_id"], flow["errors"]) == ("code", {"base": error})
    assert flow["description_placeholders"]["host"] == swift.host

    swift.refuse_with = None  # and tried again on the same page
    flow = await go_on(hass, flow, code_input(swift, site))
    assert flow["step_id"] == "enrolled"


async def test_a_cloud_that_is_away_is_named(hass, site, swift):
    await swift.stop()
    flow = await go_on(hass, await start_by_code(hass, site), code_input(swift, site))
    assert flow["errors"] == {"base": "enrol_unreachable"}


@pytest.mark.parametrize(
    "members, error",
    [
        ({"by": Key()}, "enrol_wrong_root"),
        ({"exp": int(time.time()) - 1, "iat": int(time.time()) - 1000}, "enrol_set_expired"),
        ({"iss": "https://other.example"}, "enrol_set_refused"),
        ({"ver": 0}, "enrol_set_refused"),
    ],
)
async def test_keys_that_the_code_does_not_vouch_for_are_refused(hass, site, swift, members, error):
    if "by" in members:  # somebody in between has another root, and signs with it
        impostor = members["by"]
        code = swift.code()
        swift.root = impostor
        members = {}
    else:
        code = swift.code()
    swift.text = swift.key_set(**members)
    flow = await go_on(hass, await start_by_code(hass, site), code_input(swift, site, code=code))
    assert (flow["step_id"], flow["errors"]) == ("code", {"base": error})


async def test_a_cloud_cannot_take_another_carriers_issuer_or_key(hass, site, cloud, swift):
    """Attack 78: refused, and the other carrier is as it was."""
    swift.issuer = cloud.issuer
    flow = await go_on(hass, await start_by_code(hass, site), code_input(swift, site))
    assert flow["errors"] == {"base": "enrol_issuer_used"}
    assert flow["description_placeholders"]["issuer"] == cloud.issuer
    assert not swift.connections, "it never heard a hello"

    swift.issuer = "https://swift.example"
    swift.signing = Key(cloud.key.private)
    flow = await go_on(hass, flow, code_input(swift, site))
    assert flow["errors"] == {"base": "enrol_anothers_key"}
    assert (await site.present(await site.token()))["word"] == "granted"


async def test_no_pasted_key_set_can_take_a_linked_carriers_issuer_or_key(hass, site, swift):
    """Attack 78, the other way round."""
    await enrol(hass, site, swift)
    flow = await go_on(hass, await start(hass, site, "carrier"), {"next_step_id": "keys"})
    x = b64(swift.signing.public)
    keys = f'{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "x": "{x}"}}]}}'
    typed = {"name": "Copy", "issuer": "https://swift.example", "jwk_set": keys, **code_input(swift, site)}
    del typed["code"]
    flow = await go_on(hass, flow, typed)
    assert flow["errors"] == {"issuer": "issuer_used", "jwk_set": "key_set_of_another_carrier"}


async def test_the_time_zone_may_come_out_of_configuration_yaml(hass, site, swift):
    class YamlText(str):
        """What Home Assistant's YAML loader makes of a text."""

        __slots__ = ()

    hass.config.time_zone = YamlText("Europe/Berlin")
    flow = await go_on(hass, await start_by_code(hass, site), code_input(swift, site))
    assert flow["step_id"] == "enrolled"
    assert swift.connections[0].hello["doors"][0]["zone"] == "Europe/Berlin"


@pytest.mark.parametrize(
    "name, told",
    [
        ("Haustür", "Haustür"),
        ("  \u202egate\n ", "gate"),
        ("\t", "Door"),
        ("D" * 200, "D" * 60),
        ("Парадная дверь", "Парадная дверь"),
    ],
)
async def test_a_doors_name_is_told_as_far_as_a_cloud_can_show_it(hass, site, swift, name, told):
    site.change("Front door", new_title=name)
    await hass.async_block_till_done()
    await go_on(hass, await start_by_code(hass, site), code_input(swift, site))
    assert swift.connections[0].hello["doors"][0]["name"] == told


async def test_a_hello_with_the_most_doors_and_the_longest_names_fits_into_its_frame(hass, site, relay, swift):
    await site.present(await site.token())  # so that there is a checkpoint
    hass.config.time_zone = "America/Argentina/ComodRivadavia"
    for _ in range(23):
        site.add_door("Ж" * 60, relay.entity_id, position={"latitude": -45.864131234, "longitude": -67.482345678})
    await hass.async_block_till_done()
    flow = await go_on(hass, await start_by_code(hass, site), code_input(swift, site, doors=site.doors))
    assert flow["step_id"] == "enrolled", flow["errors"]
    hello = swift.connections[0].hello
    assert len(hello["doors"]) == 24
    assert hello["ckpt"]


async def test_a_name_is_needed(hass, site, swift):
    flow = await go_on(hass, await start_by_code(hass, site), code_input(swift, site))
    flow = await go_on(hass, flow, {"name": "  "})
    assert (flow["step_id"], flow["errors"]) == ("enrolled", {"name": "name_empty"})


async def test_a_building_that_is_not_loaded_enrols_nobody(hass, site, swift):
    flow = await start_by_code(hass, site)
    await hass.config_entries.async_unload(site.entry.entry_id)
    flow = await go_on(hass, flow, code_input(swift, site))
    assert flow["errors"] == {"base": "not_loaded"}
    assert not swift.connections


async def test_what_a_linked_carrier_may_is_changed_and_holds_at_once(hass, site, relay, swift):
    await enrol(hass, site, swift)
    back = site.add_door("Back door", relay.entity_id)
    await hass.async_block_till_done()
    flow = await site.entry.start_subentry_reconfigure_flow(hass, site.subentry("Swift Parcels").subentry_id)
    assert flow["step_id"] == "linked"
    assert "approve" not in flow["data_schema"].schema
    shown = flow["description_placeholders"]
    assert (shown["host"], shown["issuer"], shown["version"]) == (swift.host, swift.issuer, "1")
    typed = code_input(swift, site) | {"name": "Swift"}
    del typed["code"]
    flow = await go_on(hass, flow, typed | {"name": "", "distance": 0})
    assert flow["errors"] == {"name": "name_empty", "distance": "distance_range"}
    flow = await go_on(hass, flow, typed | {"doors": [back], "distance": 10})
    assert flow["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()

    carrier = site.embedded.controller.building.carriers[swift.issuer]
    assert (carrier.name, carrier.doors, carrier.limits.distance) == ("Swift", {back}, 10)
    assert [key.kid for key in carrier.keys] == [swift.signing.kid], "its keys are as they were"
    connection = await swift.linked(3)
    assert [door["id"] for door in connection.hello["doors"]] == [back]


async def test_more_doors_than_a_link_has_are_named_when_a_carrier_is_changed(hass, site, swift):
    await enrol(hass, site, swift)
    many = [new_door_id(bytes([number] * 16)) for number in range(25)]
    for door in many:
        site._add("door", door, {"door": door}, None)
    flow = await site.entry.start_subentry_reconfigure_flow(hass, site.subentry("Swift Parcels").subentry_id)
    typed = code_input(swift, site, doors=many) | {"name": "Swift"}
    del typed["code"]
    flow = await go_on(hass, flow, typed)
    assert flow["errors"] == {"doors": "doors_too_many"}


async def test_a_linked_carrier_whose_keys_cannot_be_read_is_left_out_and_its_form_still_opens(hass, site, swift):
    await enrol(hass, site, swift)
    site.change("Swift Parcels", key_set="x")
    await hass.async_block_till_done()
    assert swift.issuer not in site.embedded.controller.building.carriers
    carrier = site.subentry("Swift Parcels")
    assert ir.async_get(hass).async_get_issue(DOMAIN, f"unreadable_{carrier.subentry_id}")
    flow = await site.entry.start_subentry_reconfigure_flow(hass, carrier.subentry_id)
    assert flow["description_placeholders"]["version"] == "-"


# ---- letting in again ----


@pytest.fixture
async def locked_out(hass, site, swift):
    """Swift Parcels, found locked out after a restart."""
    await enrol(hass, site, swift)
    await hass.config_entries.async_unload(site.entry.entry_id)
    state = replace(begin(swift.issuer, 0, int(time.time())), locked_out=True)
    with closing(sqlite3.connect(hass.config.path(".storage", JOURNAL_FILE))) as journal, journal:
        noted = f"link:{swift.issuer}", json.dumps(STATE.write(state))
        journal.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", noted)
    met = len(swift.connections)
    await site.load()
    await swift.linked(met + 1)
    assert (await swift.deliver(site.door))["code"] == "CARRIER_LOCKED_OUT"
    return site.subentry("Swift Parcels")


async def test_an_administrator_lets_a_carrier_in_again_in_its_form(
    hass, site, swift, locked_out, hass_client, hass_admin_user
):
    assert await async_setup_component(hass, "config", {})
    client = await hass_client()
    flow = await site.entry.start_subentry_reconfigure_flow(hass, locked_out.subentry_id)
    typed = code_input(swift, site) | {"name": "Swift Parcels"}
    del typed["code"]

    flow = await go_on(hass, flow, typed | {"approve": False})
    assert flow["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    assert (await swift.deliver(site.door))["code"] == "CARRIER_LOCKED_OUT", "a change is no approval"

    flow = await site.entry.start_subentry_reconfigure_flow(hass, locked_out.subentry_id)
    address = f"/api/config/config_entries/subentries/flow/{flow['flow_id']}"
    answer = await client.post(address, json=typed | {"approve": True})
    assert (await answer.json())["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    assert (await swift.deliver(site.door))["code"] == "GRANTED"
    approved = next(event for event in site.events if event.data["outcome"] == "carrier_approved")
    assert (approved.data["carrier"], approved.context.user_id) == ("Swift Parcels", hass_admin_user.id)
    (entry,) = [
        entry for entry in await site.embedded.journal.newest_entries(None, 50) if entry.leaf.kind == "carrier_approved"
    ]
    assert entry.person.read()["user_id"] == hass_admin_user.id


async def test_an_approval_that_cannot_be_recorded_is_none(hass, site, swift, locked_out, monkeypatch):
    def append(*_):
        raise StoreFailed("disk full")

    flow = await site.entry.start_subentry_reconfigure_flow(hass, locked_out.subentry_id)
    typed = code_input(swift, site) | {"name": "Swift Parcels", "approve": True}
    del typed["code"]
    monkeypatch.setattr(site.embedded.journal, "append", append)
    flow = await go_on(hass, flow, typed)
    assert flow["errors"] == {"approve": "store_failed"}
    monkeypatch.undo()
    assert (await swift.deliver(site.door))["code"] == "CARRIER_LOCKED_OUT"
    flow = await go_on(hass, flow, typed)
    assert flow["reason"] == "reconfigure_successful"
