"""Doors whose strike is reached over Bluetooth: Home Assistant's own stack on a virtual radio, and a real strike's own
program at the other end. Nothing of either is mocked.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

pytest.importorskip("noise", reason="noiseprotocol is not installed")
pytest.importorskip("bumble", reason="the virtual radio's Bluetooth stack is not installed")
pytest.importorskip("aiousbwatcher", reason="what Home Assistant's Bluetooth needs is not installed")

if importlib.util.find_spec("vestibule_core") is None:  # the project is not installed: as its installation does
    sys.path.append(str(Path(__file__).parents[2] / "custom_components" / "vestibule"))

import bleak_retry_connector
from bumble.att import Opcode
from homeassistant.components import bluetooth
from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.json import json_dumps
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import async_fire_time_changed

from custom_components.vestibule import ble, issues
from custom_components.vestibule.const import DOMAIN
from custom_components.vestibule.diagnostics import async_get_config_entry_diagnostics
from custom_components.vestibule.strikes import AbsentStrike
from custom_components.vestibule.vestibule_core import door_task
from custom_components.vestibule.vestibule_core.doorstrike import driver, hearing, known, outcome, polling
from custom_components.vestibule.vestibule_core.doorstrike.pairing_session import pair as core_pair
from custom_components.vestibule.vestibule_core.errors import StrikeUnreachable
from gateway.strike import air
from tests.gateway.strike.strikes import Gate
from tests.integration.site import Cloud, RelaySwitch, Site
from tests.radio.ether import Fate, Radio
from tests.radio.peripheral import Peripheral
from tests.radio.until import until
from vestibule_core.doorstrike import keyring
from vestibule_core.doorstrike.device import BatteryIs, BoltIs, ContactIs, CoverIs
from vestibule_core.doorstrike.keyring import NEEDS
from vestibule_core.doorstrike.wire import Caps, Contact, Op

pytestmark = pytest.mark.usefixtures("socket_enabled", "hurried", "with_bluetooth")

ALL_CAPS = Caps.CONTACT | Caps.TAMPER | Caps.BATTERY | Caps.LOCK_MONITOR | Caps.HOLD
WAIT = 30


class Strike(Gate):
    """A strike at the gate, with everything that a strike can have. Verbs of ``Gate``, and those below."""

    def tell(self, what: object) -> None:
        self.box.shell.sensed(what)

    def open_door(self) -> None:
        self.tell(ContactIs(Contact.OPEN))

    def close_door(self) -> None:
        self.tell(ContactIs(Contact.CLOSED))

    def tamper(self) -> None:
        self.tell(CoverIs(open=True))


@pytest.fixture
async def gate(radio: Radio, tmp_path: Path) -> AsyncGenerator[Strike]:
    with patch("gateway.strike.box.caps", lambda _: ALL_CAPS):
        async with Strike(radio, tmp_path) as gate:
            gate.close_door()
            gate.tell(BoltIs(secured=True))
            gate.tell(BatteryIs(80))
            yield gate


@pytest.fixture
async def building(hass: HomeAssistant, relay: RelaySwitch, cloud: Cloud) -> AsyncGenerator[Site]:
    """A loaded building with a front door that has a relay."""
    site = Site(hass, cloud)
    site.add_door("Front door", relay.entity_id)
    await site.load()
    yield site
    if site.entry.state is ConfigEntryState.LOADED:
        await hass.config_entries.async_unload(site.entry.entry_id)


HURRIED: list[tuple[Any, str, Any, Any]] = [  # of whom, what, in truth, here
    (ble, "HEAR_AGAIN", timedelta(seconds=1), timedelta(seconds=0.2)),
    (polling, "GAP", 5.0, 0.5),
    (known, "GAP", 5.0, 0.5),
    (driver, "GAP", 5.0, 0.5),
    (driver, "QUIET", 0.5, 0.1),
    (driver, "PUSH_TIME", 0.3, 0.1),
    # The strike's end.
    (keyring, "ATTEMPT_GAP", 1.0, 0.001),
    (air, "INTERVAL", 100.0, 20.0),
]


IN_TRUTH = [getattr(of, what) for of, what, _, _ in HURRIED]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten what these tests would only wait for."""
    for of, what, _, here in HURRIED:
        monkeypatch.setattr(of, what, here)


@contextmanager
def impatient() -> Iterator[None]:
    """Let a door give up early on a strike that is not there; whoever connects still gives up after the door."""
    assert (door_task.REACH_DEADLINE, ble.CONNECT_DEADLINE) == (5.0, 7.0)
    with patch.object(door_task, "REACH_DEADLINE", 1.0):
        yield


@contextmanager
def impatient_form() -> Iterator[None]:
    """Let whoever connects give up early on a strike that is not there."""
    with patch.object(ble, "CONNECT_DEADLINE", 1.5):
        yield


@pytest.fixture
def nothing_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing arrives here over a link that was cut, so that nobody has to wait until it cannot any more."""
    monkeypatch.setattr(driver, "SETTLED", 0.2)
    monkeypatch.setattr(outcome, "SETTLED", 0.2)


def code_of(gate: Gate) -> str:
    return gate.label.grouped


def form(gate: Gate, **changes: Any) -> dict[str, Any]:
    return {
        "name": "Gate",
        "access_time": 0.5,
        "on_power_loss": "fail_secure",
        "keep_connected": False,
        "code": code_of(gate),
    } | changes


async def discovered(hass: HomeAssistant) -> dict[str, Any]:
    """Wait until Home Assistant offers a strike by itself; return the form."""
    await until(lambda: offers(hass), seconds=WAIT)
    (offer,) = offers(hass)
    return await hass.config_entries.flow.async_configure(offer["flow_id"])


def offers(hass: HomeAssistant) -> list[Any]:
    return [
        flow
        for flow in hass.config_entries.flow.async_progress_by_handler(DOMAIN)
        if flow["context"]["source"] == "bluetooth" and flow.get("step_id") == "strike"
    ]


async def add_gate(hass: HomeAssistant, site: Site, gate: Strike, **changes: Any) -> str:
    """Pair the gate through the form that Home Assistant offers; return the door's id."""
    flow = await discovered(hass)
    gate.hold_button()
    flow = await hass.config_entries.flow.async_configure(flow["flow_id"], form(gate, **changes))
    assert (flow["type"], flow.get("reason"), flow.get("errors")) == (FlowResultType.ABORT, "door_added", None)
    await hass.async_block_till_done()
    door = flow["description_placeholders"]["door"]
    site.doors.append(door)
    await until(lambda: site.lock(door).state == "locked", seconds=WAIT)
    return door


def strike_of(site: Site, door: str) -> ble.HomeAssistantStrike:
    strike = site.embedded.doors[door].radio_strike
    assert strike is not None
    return strike


def happened(site: Site, door: str) -> list[str]:
    return [event.data["outcome"] for event in site.events if event.data["door"] == door]


def entity(hass: HomeAssistant, kind: str, door: str, key: str) -> str | None:
    return er.async_get(hass).async_get_entity_id(kind, DOMAIN, f"{door}_{key}")


def test_what_is_hurried_here_is_so_in_truth():
    assert [in_truth for _, _, in_truth, _ in HURRIED] == IN_TRUTH


# ---- from the advertisement to the open door


async def test_a_strike_in_range_is_offered_paired_and_opens_for_a_delivery(hass, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    subentry = building.subentry("Gate")
    assert subentry.unique_id == gate.label.strike_id.hex()
    assert gate.pulses == 0, "nothing moves while it is set up"
    building.add_carrier("Parcel Express", building.cloud)
    await hass.async_block_till_done()

    assert (await building.present(await building.token(door)))["word"] == "granted"
    assert gate.pulses == 1
    await until(lambda: building.lock(door).state == "locked", seconds=WAIT)
    assert happened(building, door)[:2] == ["access_granted", "door_released"]
    assert "relay_operated_elsewhere" not in happened(building, door)


async def test_without_a_building_the_strike_founds_one(hass, scanners, gate):
    flow = await discovered(hass)
    gate.hold_button()
    answers = form(gate, building=" ")
    flow = await hass.config_entries.flow.async_configure(flow["flow_id"], answers)
    assert flow["errors"] == {"building": "name_empty"}
    flow = await hass.config_entries.flow.async_configure(flow["flow_id"], form(gate, building="Linden Court"))
    assert flow["type"] is FlowResultType.CREATE_ENTRY
    await hass.async_block_till_done()
    entry = flow["result"]
    assert (entry.title, entry.unique_id, entry.state) == ("Linden Court", "building", ConfigEntryState.LOADED)
    assert [subentry.title for subentry in entry.subentries.values()] == ["Gate"]
    assert hass.config_entries.subentries.async_progress() == []
    await hass.config_entries.async_unload(entry.entry_id)


async def test_a_known_strike_is_not_offered_again(hass, scanners, building, gate):
    await add_gate(hass, building, gate)
    bluetooth.async_rediscover_address(hass, gate.address)
    await asyncio.sleep(0.2)  # ten advertisements
    await hass.async_block_till_done()
    assert offers(hass) == []


async def test_what_is_no_strikes_advertisement_is_not_offered(hass, scanners, building, gate):
    flow = await discovered(hass)
    hass.config_entries.flow.async_abort(flow["flow_id"])
    info = bluetooth.async_last_service_info(hass, gate.address)
    info.service_data = {}
    flow = await hass.config_entries.flow.async_init(DOMAIN, context={"source": "bluetooth"}, data=info)
    assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "no_strike")


@pytest.mark.parametrize(
    "mistake, held, errors",
    [
        ({"name": " "}, True, {"name": "name_empty"}),
        ({"access_time": 11}, True, {"access_time": "strike_time_range"}),
        ({"code": "7K3M"}, True, {"code": "code_length"}),
        ({"code": "7K3M-9QXT-2VWH-PD4R-8ZB0"}, True, {"base": "pairing_wrong_code"}),
        (
            {"code": "vestibule-strike:a1b2c3d4e5f60718?code=7K3M-9QXT-2VWH-PD4R-8ZB0"},
            True,
            {"base": "pairing_other_strike"},
        ),
        ({}, False, {"base": "pairing_no_window"}),
    ],
)
async def test_a_mistake_in_pairing_is_named_and_can_be_put_right(
    hass, scanners, building, gate, mistake, held, errors
):
    flow = await discovered(hass)
    if held:
        gate.hold_button()
        await until(lambda: any(found.pairs for found in ble.in_range(hass)), seconds=WAIT)
    flow = await hass.config_entries.flow.async_configure(flow["flow_id"], form(gate, **mistake))
    assert (flow["step_id"], flow["errors"]) == ("strike", errors)
    gate.hold_button()
    flow = await hass.config_entries.flow.async_configure(flow["flow_id"], form(gate, code=gate.label.qr))
    assert flow["reason"] == "door_added"
    assert gate.pulses == 0


async def test_a_strike_out_of_range_is_no_riddle_in_the_form(hass, radio, scanners, building, gate):
    flow = await discovered(hass)
    radio.walk_away("hallway", "gate")
    radio.walk_away("attic", "gate")
    with impatient_form():
        flow = await hass.config_entries.flow.async_configure(flow["flow_id"], form(gate))
    assert flow["errors"] == {"base": "strike_unreachable"}
    assert flow["description_placeholders"]["reason"]


async def test_a_strike_that_had_a_controller_before_says_what_is_missing(hass, scanners, building, gate):
    await add_gate(hass, building, gate)
    building.remove("Gate")
    await hass.async_block_till_done()
    flow = await discovered(hass)
    gate.hold_button()
    flow = await hass.config_entries.flow.async_configure(flow["flow_id"], form(gate))
    assert flow.get("errors") is None
    assert flow["reason"] == "door_added_without_rights"
    await hass.async_block_till_done()
    door = flow["description_placeholders"]["door"]
    await until(lambda: building.embedded.doors[door].strike.is_reachable, seconds=WAIT)
    with pytest.raises(HomeAssistantError) as refused:
        await building.unlock(door)
    assert refused.value.translation_key == "unlock_strike_refused_because"
    assert "right" in refused.value.translation_placeholders["reason"]
    assert gate.pulses == 0


async def test_a_strike_that_became_a_door_meanwhile_is_not_paired_twice(hass, scanners, building, gate):
    offered = await discovered(hass)
    await until(lambda: ble.in_range(hass), seconds=WAIT)
    flow = await go_on(hass, await start(hass, building), {"next_step_id": "strike"})
    gate.hold_button()
    flow = await go_on(hass, flow, form(gate, strike=gate.label.strike_id[:6].hex()))
    assert flow["reason"] == "door_added"
    flow = await hass.config_entries.flow.async_configure(offered["flow_id"], form(gate))
    assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "strike_known")


async def test_a_strike_that_is_to_be_ignored_is_not_offered_again(hass, scanners, building, gate):
    await discovered(hass)
    key = gate.label.strike_id[:6].hex()
    await hass.config_entries.flow.async_init(
        DOMAIN, context={"source": "ignore"}, data={"unique_id": key, "title": "Gate"}
    )
    bluetooth.async_rediscover_address(hass, gate.address)
    await asyncio.sleep(0.2)  # ten advertisements
    await hass.async_block_till_done()
    assert offers(hass) == []


# ---- through the form of the building


async def start(hass, site):
    return await hass.config_entries.subentries.async_init((site.entry.entry_id, "door"), context={"source": "user"})


async def go_on(hass, flow, answers):
    return await hass.config_entries.subentries.async_configure(flow["flow_id"], answers)


async def change(hass, site, step: str):
    flow = await site.entry.start_subentry_reconfigure_flow(hass, site.subentry("Gate").subentry_id)
    assert (flow["type"], flow["menu_options"]) == (FlowResultType.MENU, ["settings", "pair_again", "rekey", "slots"])
    return await go_on(hass, flow, {"next_step_id": step})


async def test_with_bluetooth_a_new_door_has_a_relay_or_a_strike(hass, scanners, building, gate):
    flow = await start(hass, building)
    assert (flow["type"], flow["menu_options"]) == (FlowResultType.MENU, ["relay", "strike"])
    assert (await go_on(hass, flow, {"next_step_id": "relay"}))["step_id"] == "relay"

    await until(lambda: ble.in_range(hass), seconds=WAIT)
    flow = await go_on(hass, await start(hass, building), {"next_step_id": "strike"})
    (offered,) = next(
        field.config["options"] for key, field in flow["data_schema"].schema.items() if key.schema == "strike"
    )
    assert offered["value"] == gate.label.strike_id[:6].hex()
    assert offered["label"].startswith(gate.label.strike_id[:4].hex().upper())
    gate.hold_button()
    answers = form(gate, strike=offered["value"])
    flow = await go_on(hass, flow, answers | {"code": "7"})
    assert flow["errors"] == {"code": "code_length"}
    flow = await go_on(hass, flow, answers)
    assert (flow["type"], flow["reason"]) == (FlowResultType.ABORT, "door_added")
    await hass.async_block_till_done()
    assert building.subentry("Gate").data["door"] == flow["description_placeholders"]["door"]


async def test_the_form_says_why_there_is_no_strike(hass, building):
    flow = await go_on(hass, await start(hass, building), {"next_step_id": "strike"})
    assert (flow["step_id"], flow["errors"]) == ("strike", {"base": "strikes_nothing_listens"})


async def test_the_form_looks_again_when_it_is_submitted(hass, radio, scanners, building, tmp_path):
    flow = await go_on(hass, await start(hass, building), {"next_step_id": "strike"})
    assert flow["errors"] == {"base": "strikes_none_heard"}
    async with Strike(radio, tmp_path) as gate:
        await until(lambda: ble.in_range(hass), seconds=WAIT)
        flow = await go_on(hass, flow, {})
        assert flow["errors"] == {}
        chosen = form(gate, strike=gate.label.strike_id[:6].hex())
        with patch.object(ble, "in_range", lambda _: []):
            flow = await go_on(hass, flow, chosen)
        assert flow["errors"] == {"strike": "strike_gone"}


async def test_the_settings_of_a_door_with_a_strike_are_changed_and_its_key_stays(hass, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    before = building.subentry("Gate").data
    flow = await change(hass, building, "settings")
    assert flow["description_placeholders"] == {"door": door}
    answers = {"name": "Gate", "access_time": 0.4, "on_power_loss": "fail_secure", "keep_connected": True}
    flow = await go_on(hass, flow, answers)
    assert flow["errors"] == {"access_time": "strike_time_range"}
    flow = await go_on(hass, flow, answers | {"name": "Yard", "access_time": 2})
    assert flow["step_id"] == "watch"
    flow = await go_on(hass, flow, {})
    assert flow["step_id"] == "opened", "the strike has a contact of its own"
    flow = await go_on(hass, flow, {"relock": "close", "held_open_time": 30})
    flow = await go_on(hass, flow, {"manual": "everyone"})
    assert flow["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    after = building.subentry("Yard").data
    assert after["strike"] == {**before["strike"], "keep_connected": True}
    assert (after["door"], after["access_time"], after["held_open_time"]) == (door, 2, 30)
    await until(lambda: strike_of(building, door).is_connected, seconds=WAIT)


async def test_a_strike_that_was_reset_is_paired_again(hass, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    gate.tamper()
    gate.sense("button 10")
    flow = await change(hass, building, "pair_again")
    await until(lambda: ble.in_range(hass)[0].advertisement.flags & 8, seconds=WAIT)
    gate.hold_button()
    await until(lambda: ble.in_range(hass)[0].pairs, seconds=WAIT)
    flow = await go_on(hass, flow, {"code": "x"})
    assert flow["errors"] == {"code": "code_length"}
    flow = await go_on(hass, flow, {"code": code_of(gate)})
    assert flow["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    await until(lambda: building.embedded.doors[door].strike.is_reachable, seconds=WAIT)
    await building.unlock(door)
    assert gate.pulses == 1


async def test_a_strike_that_is_away_cannot_be_paired_again(hass, radio, scanners, building, gate):
    await add_gate(hass, building, gate)
    with patch.object(ble, "in_range", lambda _: []):
        flow = await go_on(hass, await change(hass, building, "pair_again"), {"code": code_of(gate)})
    assert flow["errors"] == {"base": "strike_unreachable"}


async def test_a_strike_gets_a_new_key(hass, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    before = building.subentry("Gate").data["strike"]["psk"]
    flow = await change(hass, building, "rekey")
    with patch("custom_components.vestibule.strike_flow.SAVE_DELAY", 0):
        flow = await go_on(hass, flow, {})
    assert flow["reason"] == "rekeyed"
    await hass.async_block_till_done()
    strike = building.subentry("Gate").data["strike"]
    assert strike["psk"] != before
    assert strike["next_psk"] is None
    await building.unlock(door)
    assert gate.pulses == 1


@pytest.mark.parametrize("expected_lingering_tasks", [True])  # Bumble waits 30 s for an answer over a link that is lost
async def test_a_strike_that_goes_away_while_it_gets_a_new_key_opens_with_whichever_counts(
    hass, radio, scanners, building, gate
):
    door = await add_gate(hass, building, gate)
    flow = await change(hass, building, "rekey")

    async def walk_away(_):
        radio.walk_away("hallway", "gate")
        radio.walk_away("attic", "gate")

    with patch("custom_components.vestibule.strike_flow.asyncio.sleep", walk_away):
        flow = await go_on(hass, flow, {})
    assert flow["errors"] == {"base": "strike_unknown"}
    assert building.subentry("Gate").data["strike"]["next_psk"]
    with impatient_form():
        flow = await go_on(hass, flow, {})
    assert flow["errors"] == {"base": "strike_unreachable"}
    radio.come_back("hallway", "gate")
    radio.come_back("attic", "gate")
    await building.unlock(door)
    assert gate.pulses == 1


def offered_slots(flow) -> dict[str, str]:
    """Return what the form says of each slot."""
    (options,) = (field.config["options"] for key, field in flow["data_schema"].schema.items() if key.schema == "slot")
    return {option["value"]: option["label"] for option in options}


async def pair_another(hass: HomeAssistant, gate: Gate, name: str) -> int:
    """Pair another controller, and return its slot."""
    gate.hold_button()
    return (await core_pair(ble.HomeAssistantRadio(hass, gate.address), gate.label, name)).paired.slot


async def choose(hass, site, slot: str):
    """Change a slot: choose it, and return the form about it."""
    return await go_on(hass, await change(hass, site, "slots"), {"slot": slot})


def suggested_rights(flow) -> list[str]:
    """Return what the form says that a slot may do now."""
    (rights,) = (key for key in flow["data_schema"].schema if key.schema == "rights")
    return rights.description["suggested_value"]


async def test_slots_get_rights_and_are_deleted(hass, scanners, building, gate):
    await add_gate(hass, building, gate)
    assert await pair_another(hass, gate, "Tablet") == 2
    flow = await change(hass, building, "slots")
    assert (flow["errors"], flow["description_placeholders"]["slot"]) == ({}, "1")
    flow = await go_on(hass, flow, {"slot": "1"})
    assert (flow["step_id"], flow["description_placeholders"]["slot"]) == ("slot", "1")
    assert suggested_rights(flow) == ["spend", "manual", "events", "admin"]
    flow = await go_on(hass, flow, {"rights": [], "delete": True})
    assert flow["errors"] == {"delete": "slot_own"}
    flow = await go_on(hass, flow, {"rights": ["manual"], "delete": False})
    assert flow["errors"] == {"base": "strike_refused"}
    assert "one has to remain" in flow["description_placeholders"]["reason"]
    assert suggested_rights(flow) == ["manual"], "what was typed stays"
    flow = await choose(hass, building, "2")
    assert suggested_rights(flow) == []
    flow = await go_on(hass, flow, {"rights": ["manual", "events"], "delete": False})
    assert flow["reason"] == "slot_changed"
    flow = await change(hass, building, "slots")
    assert offered_slots(flow)["2"] == "2: Open by hand, Hear what happens · Tablet"
    flow = await go_on(hass, flow, {"slot": "2"})
    assert suggested_rights(flow) == ["manual", "events"]
    flow = await go_on(hass, flow, {"rights": ["manual", "events"], "delete": True})
    assert flow["reason"] == "slot_deleted"
    assert list(offered_slots(await change(hass, building, "slots"))) == ["1"]


async def test_the_form_shows_who_has_a_slot_and_no_name_can_pass_for_more(hass, scanners, building, gate):
    hass.config.location_name = "Linden Court"
    await add_gate(hass, building, gate)
    await pair_another(hass, gate, "\u202eadmin\n\x07 \u200b")
    keyring = gate.box.shell._machine._device.keyring
    keyring.slots = keyring.slots.add("Küche", 3, bytes(32))
    assert offered_slots(await change(hass, building, "slots")) == {
        "1": "1: this Home Assistant, Open for deliveries, Open by hand, Hear what happens, Administer · Linden Court",
        "2": "2: may do nothing · admin",
        "3": "3: not used yet, may do nothing · Küche",
    }


async def test_a_slot_is_chosen_by_its_number_where_the_strike_does_not_tell_who_has_which(
    hass, scanners, building, gate
):
    await add_gate(hass, building, gate)
    with patch.dict(NEEDS):
        del NEEDS[Op.SLOT_LIST]  # an early strike
        flow = await change(hass, building, "slots")
        assert flow["errors"] == {"base": "slots_unlisted"}
        assert flow["description_placeholders"]["reason"] == "it cannot do that"
        assert offered_slots(flow) == {str(number): str(number) for number in range(1, 9)}
        flow = await go_on(hass, flow, {"slot": "2"})
        assert suggested_rights(flow) == [], "nobody knows"
        flow = await go_on(hass, flow, {"rights": ["manual"], "delete": False})
    assert flow["errors"] == {"base": "strike_refused"}
    assert flow["description_placeholders"]["reason"] == "there is no such slot"


async def test_a_building_that_is_not_loaded_has_no_strike_at_work(hass, scanners, building, gate):
    await add_gate(hass, building, gate)
    chosen = await choose(hass, building, "1")
    await hass.config_entries.async_unload(building.entry.entry_id)
    for step in ("rekey", "slots"):
        assert (await change(hass, building, step))["reason"] == "strike_not_at_work"
    assert (await go_on(hass, chosen, {"rights": [], "delete": False}))["reason"] == "strike_not_at_work"


# ---- at the door


@pytest.mark.parametrize("expected_lingering_tasks", [True])  # Bumble waits 30 s for an answer over a link that is lost
async def test_a_strike_out_of_range_says_why_and_nothing_is_spent(hass, radio, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    building.add_carrier("Parcel Express", building.cloud)
    await hass.async_block_till_done()
    token = await building.token(door)
    radio.walk_away("hallway", "gate")
    radio.walk_away("attic", "gate")
    began = time.monotonic()
    with impatient(), pytest.raises(HomeAssistantError) as failed:
        await building.unlock(door)
    assert time.monotonic() - began < ble.CONNECT_DEADLINE, "the door's own deadline, not the stack's"
    assert failed.value.translation_key == "unlock_strike_unreachable_because"
    assert failed.value.translation_placeholders["reason"]
    with impatient():
        assert (await building.present(token))["word"] == "unavailable"
    radio.come_back("hallway", "gate")
    radio.come_back("attic", "gate")
    assert (await building.present(token))["word"] == "granted", "it was not spent"
    assert gate.pulses == 1


async def test_without_a_free_slot_the_door_says_so(hass, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    for adapter in scanners:
        adapter.slots = 0
        adapter.slots_changed()
    await until(lambda: not strike_of(building, door).is_connected, seconds=WAIT)
    began = time.monotonic()
    with impatient(), pytest.raises(HomeAssistantError) as failed:
        await building.unlock(door)
    assert time.monotonic() - began < ble.CONNECT_DEADLINE
    assert failed.value.translation_key == "unlock_strike_unreachable_because"
    assert "slot" in failed.value.translation_placeholders["reason"]
    assert gate.pulses == 0


async def test_the_other_scanner_serves_when_the_better_one_has_no_slot(hass, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    hallway, _ = scanners
    hallway.slots = 0
    hallway.slots_changed()
    await until(lambda: not strike_of(building, door).is_connected, seconds=WAIT)
    await building.unlock(door)
    assert gate.pulses == 1


async def test_no_other_door_is_slower_while_a_strike_is_looked_for(hass, radio, scanners, building, gate, relay):
    door = await add_gate(hass, building, gate)
    radio.walk_away("hallway", "gate")
    radio.walk_away("attic", "gate")
    slow = hass.async_create_task(building.unlock(door))
    await asyncio.sleep(0.1)
    await hass.services.async_call("lock", "unlock", {"entity_id": building.entity_id("lock")}, blocking=True)
    assert not slow.done(), "the strike is still being looked for"
    assert relay.told == ["on"]
    with pytest.raises(HomeAssistantError):
        await slow


async def test_a_link_lost_in_an_unlock_never_makes_a_second_pulse(hass, radio, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    await until(lambda: not radio.links(), seconds=WAIT)
    with radio.tap() as tap:
        seen = 0

        def cut_the_answer(pdu):
            nonlocal seen
            if pdu.sender == "gate" and pdu.opcode.name == "ATT_HANDLE_VALUE_NOTIFICATION":
                seen += 1
                return Fate.CUT if seen == 2 else Fate.DELIVER  # the first one is HELLO
            return Fate.DELIVER

        tap.decide(cut_the_answer)
        with suppress(HomeAssistantError):
            await building.unlock(door)
    assert gate.pulses == 1
    await until(lambda: building.lock(door).state == "locked", seconds=30)
    assert gate.pulses == 1
    assert happened(building, door).count("access_granted") == 1
    assert "relay_operated_elsewhere" not in happened(building, door)


async def opens(site: Site, door: str) -> bool:
    """Unlock by hand; return whether the door says that it opened. It may not say that nobody knows."""
    try:
        await site.unlock(door)
    except HomeAssistantError as error:
        if error.translation_key != "unlock_strike_unreachable_because":
            raise
        return False
    return True


async def test_the_link_is_cut_at_every_packet_of_an_unlock(hass, radio, scanners, building, gate, nothing_is_late):
    door = await add_gate(hass, building, gate)
    strike = strike_of(building, door)
    await until(lambda: not radio.links(), seconds=WAIT)
    with radio.tap() as tap:
        assert await opens(building, door)
        whole = len(tap.pdus)
    pulses = 1
    for number in range(1, whole + 1):
        await until(lambda: strike.reading == "secured" and not radio.links(), seconds=WAIT)
        with radio.tap() as tap:
            tap.cut_at(number, delivered=bool(number % 2))
            with impatient():  # to say that it cannot be reached is an answer here
                pulses += await opens(building, door)
        assert gate.pulses == pulses, f"packet {number}: what was said is so"
        while strike.reading != "secured":
            await strike.secure()
    await building.settle()
    assert happened(building, door).count("door_released") == pulses == gate.pulses


async def test_a_kept_connection_tells_at_once_what_happens(hass, scanners, building, gate):
    door = await add_gate(hass, building, gate, keep_connected=True)
    await until(lambda: strike_of(building, door).is_connected, seconds=WAIT)
    contact = entity(hass, "binary_sensor", door, "contact")
    await until(lambda: hass.states.get(contact).state == "off", seconds=WAIT)
    gate.open_door()
    await until(lambda: hass.states.get(contact).state == "on", seconds=WAIT)
    gate.close_door()
    await until(lambda: hass.states.get(contact).state == "off", seconds=WAIT)
    await building.settle()
    assert happened(building, door) == ["door_opened", "door_closed"]

    await building.unlock(door)
    gate.open_door()
    await until(lambda: "access_taken" in happened(building, door), seconds=WAIT)


async def test_a_strike_shows_its_battery_and_its_tamper_switch_and_more_if_asked_to(hass, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    battery = entity(hass, "sensor", door, "battery")
    assert hass.states.get(battery).state == "80"
    for kind, key in (("sensor", "signal"), ("binary_sensor", "lock_monitor")):
        assert er.async_get(hass).async_get(entity(hass, kind, door, key)).disabled
    tamper = entity(hass, "binary_sensor", door, "tamper")
    await until(lambda: hass.states.get(tamper).state == "off", seconds=WAIT)
    gate.tamper()
    await until(lambda: hass.states.get(tamper).state == "on", seconds=20)
    await building.settle()
    assert happened(building, door) == ["door_tampered"]
    building.add_carrier("Parcel Express", building.cloud)
    await hass.async_block_till_done()
    answer = await building.present(await building.token(door))
    assert answer["code"] == "DOOR_UNAVAILABLE"
    assert gate.pulses == 0


async def test_what_happened_meanwhile_comes_in_order_once_and_with_its_own_time(
    hass, radio, scanners, building, gate, monkeypatch
):
    monkeypatch.setattr(hearing, "NEWS", 0.2)
    door = await add_gate(hass, building, gate)
    await building.unlock(door)  # from now on the time of its power-up is known
    await until(lambda: not radio.links(), seconds=WAIT)
    await building.settle()
    await hass.config_entries.async_unload(building.entry.entry_id)
    building.events.clear()
    before = time.time()
    gate.open_door()
    await asyncio.sleep(0.2)
    gate.close_door()
    after = time.time()
    await asyncio.sleep(0.4)
    await building.load()
    await until(lambda: len(happened(building, door)) >= 2, seconds=20)
    await building.settle()
    told = [event.data for event in building.events if event.data["door"] == door]
    assert [event["outcome"] for event in told] == ["door_opened", "door_closed"]
    opened, closed = (datetime.fromisoformat(event["time"]).timestamp() for event in told)
    assert before - 0.5 <= opened <= closed - 0.15 <= after + 0.5
    assert building.lock(door).state == "locked"

    building.events.clear()
    await hass.config_entries.async_unload(building.entry.entry_id)
    await building.load()
    await until(lambda: building.lock(door).state == "locked", seconds=WAIT)
    await building.settle()
    assert happened(building, door) == [], "not a second time"


async def test_a_door_that_was_opened_meanwhile_is_found_open(hass, radio, scanners, building, gate, monkeypatch):
    monkeypatch.setattr(hearing, "NEWS", 0.2)
    door = await add_gate(hass, building, gate)
    await until(lambda: not radio.links(), seconds=WAIT)
    await hass.config_entries.async_unload(building.entry.entry_id)
    gate.open_door()
    await asyncio.sleep(0.4)
    await building.load()
    contact = entity(hass, "binary_sensor", door, "contact")
    await until(lambda: hass.states.get(contact).state == "on", seconds=20)
    await building.settle()
    assert happened(building, door) == ["door_opened"]


async def test_a_strike_that_is_gone_is_unavailable_and_not_locked(hass, radio, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    await until(lambda: not radio.links(), seconds=WAIT)
    strike_of(building, door).gone()
    assert building.lock(door).state == "unavailable"
    battery = entity(hass, "sensor", door, "battery")
    assert hass.states.get(battery).state == "unavailable"
    await until(lambda: building.lock(door).state == "locked", seconds=30)


async def test_a_strike_that_moves_to_another_address_is_the_same(hass, radio, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    await gate.cut_power()
    with patch("gateway.strike.box.address_of", lambda _: "C1:CA:C0:00:00:99"):
        await gate.power_up()
    await until(lambda: strike_of(building, door).radio.address == "C1:CA:C0:00:00:99", seconds=WAIT)
    await building.unlock(door)
    assert gate.pulses == 1


async def test_a_strike_is_held_open_and_put_back(hass, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    mode = building.entity_id("select", door)

    async def select(option):
        data = {"entity_id": mode, "option": option}
        await hass.services.async_call("select", "select_option", data, blocking=True)

    await select("unlocked")
    assert building.lock(door).state == "unlocked"
    await select("normal")
    await until(lambda: building.lock(door).state == "locked", seconds=WAIT)
    assert [move for move, _ in gate.moves][-2:] == ["on", "off"]
    assert gate.pulses == 1


async def test_a_door_that_is_removed_lets_go_of_its_strike(hass, radio, scanners, building, gate):
    door = await add_gate(hass, building, gate, keep_connected=True)
    await until(lambda: strike_of(building, door).is_connected, seconds=WAIT)
    building.remove("Gate")
    await hass.async_block_till_done()
    await until(lambda: not radio.links(), seconds=WAIT)


async def test_a_door_that_is_removed_while_it_is_held_open_is_put_back_first(hass, radio, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    data = {"entity_id": building.entity_id("select", door), "option": "unlocked"}
    await hass.services.async_call("select", "select_option", data, blocking=True)
    assert gate.moves[-1][0] == "on"
    building.remove("Gate")
    await hass.async_block_till_done()
    await until(lambda: gate.moves[-1][0] == "off", seconds=WAIT)
    await until(lambda: not radio.links(), seconds=WAIT)


# ---- through an ESPHome proxy, and nothing else


async def test_through_a_proxy_a_strike_is_offered_paired_and_opens_for_a_delivery(hass, radio, proxy, building, gate):
    door = await add_gate(hass, building, gate)
    building.add_carrier("Parcel Express", building.cloud)
    await hass.async_block_till_done()
    assert gate.pulses == 0, "nothing moves while it is set up"

    token = await building.token(door)
    assert (await building.present(token))["word"] == "granted"
    assert radio.links() == {frozenset(("hallway", "gate"))}
    assert gate.pulses == 1
    await until(lambda: building.lock(door).state == "locked", seconds=WAIT)
    await until(lambda: not radio.links(), seconds=WAIT)
    assert (await building.present(token))["word"] != "granted"
    assert gate.pulses == 1
    assert happened(building, door)[:2] == ["access_granted", "door_released"]
    assert "relay_operated_elsewhere" not in happened(building, door)


async def test_a_proxy_whose_slots_are_taken_is_named_and_nothing_is_spent(hass, radio, proxy, building, gate):
    door = await add_gate(hass, building, gate)
    building.add_carrier("Parcel Express", building.cloud)
    await hass.async_block_till_done()
    token = await building.token(door)
    await until(lambda: not radio.links(), seconds=WAIT)
    async with Peripheral(radio, "lamp") as lamp:
        await until(lambda: bluetooth.async_ble_device_from_address(hass, lamp.address, True))
        other = await bleak_retry_connector.establish_connection(
            bleak_retry_connector.BleakClientWithServiceCache,
            bluetooth.async_ble_device_from_address(hass, lamp.address, True),
            "lamp",
        )
        began = time.monotonic()
        with impatient(), pytest.raises(HomeAssistantError) as failed:
            await building.unlock(door)
        assert time.monotonic() - began < ble.CONNECT_DEADLINE, "the door's own deadline, not the stack's"
        assert failed.value.translation_key == "unlock_strike_unreachable_because"
        assert "slot" in failed.value.translation_placeholders["reason"]
        with impatient():
            assert (await building.present(token))["word"] == "unavailable"
        assert gate.pulses == 0
        await other.disconnect()
        await until(lambda: proxy.adapter.free_slots == 1)
    assert (await building.present(token))["word"] == "granted", "it was not spent"
    assert gate.pulses == 1


@pytest.mark.parametrize("message, pulses", [("HS1", 0), ("HS2", 1)])
async def test_a_link_lost_behind_the_proxy_at_the_command_or_its_answer_is_resolved_and_opens_once_at_most(
    hass, radio, proxy, building, gate, nothing_is_late, message, pulses
):
    door = await add_gate(hass, building, gate)
    building.add_carrier("Parcel Express", building.cloud)
    await hass.async_block_till_done()
    token = await building.token(door)
    await until(lambda: not radio.links(), seconds=WAIT)
    with radio.tap() as tap:
        said = []

        def cut_the_message(pdu):
            if pdu.sender == "gate" and pdu.opcode is Opcode.ATT_HANDLE_VALUE_NOTIFICATION:
                said.append("HS2" if said else "HELLO")
            elif said and pdu.opcode is Opcode.ATT_WRITE_REQUEST:
                said.append("HS1")
            if message not in said:
                return Fate.DELIVER
            tap.decide(lambda _: Fate.DELIVER)
            return Fate.CUT

        tap.decide(cut_the_message)
        word = (await building.present(token))["word"]
    assert said[-1] == message
    assert word == ("granted" if pulses else "unavailable")
    assert gate.pulses == pulses
    await until(lambda: building.lock(door).state == "locked", seconds=WAIT)
    await building.settle()
    assert happened(building, door).count("door_released") == pulses
    assert (await building.present(token))["word"] != "granted"
    assert gate.pulses == pulses
    await building.unlock(door)
    assert gate.pulses == pulses + 1


# ---- what may be shown of it


async def test_a_strikes_key_is_in_no_log_no_diagnostics_and_no_state(hass, scanners, building, gate, caplog):
    caplog.set_level("DEBUG")
    door = await add_gate(hass, building, gate)
    await building.unlock(door)
    shown = await async_get_config_entry_diagnostics(hass, building.entry)
    facts = shown["doors"]["2"]["relay"]
    assert (facts["bluetooth"], facts["keep_connected"], facts["battery"]) == (True, False, 80)
    assert facts["caps"] == ["CONTACT", "TAMPER", "BATTERY", "HOLD", "LOCK_MONITOR"]
    stored = building.subentry("Gate").data["strike"]
    everywhere = json_dumps(shown) + caplog.text + str([state.as_dict() for state in hass.states.async_all()])
    everywhere += str([event.data for event in building.events])
    for secret in (stored["psk"], str(bytes.fromhex(stored["psk"])), gate.label.code, code_of(gate)):
        assert secret not in everywhere
    assert stored["address"] not in json_dumps(shown)
    assert stored["strike_id"] not in json_dumps(shown)


async def test_a_strike_not_heard_for_long_is_a_repair_until_it_is(hass, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    registry, issue = ir.async_get(hass), f"strike_unheard_{building.subentry('Gate').subentry_id}"
    strike = strike_of(building, door)
    strike.unheard_since = time.monotonic() - issues.UNHEARD
    async_fire_time_changed(hass, dt_util.utcnow() + issues.LOOK_AGAIN * 2)
    await hass.async_block_till_done()
    assert registry.async_get_issue(DOMAIN, issue)
    strike.unheard_since = None
    async_fire_time_changed(hass, dt_util.utcnow() + issues.LOOK_AGAIN * 4)
    await hass.async_block_till_done()
    assert not registry.async_get_issue(DOMAIN, issue)


async def test_without_bluetooth_the_door_is_unavailable_until_it_is_there(hass, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    await hass.config_entries.async_unload(building.entry.entry_id)
    hass.config.components.remove("bluetooth")
    await building.load()
    assert isinstance(building.embedded.doors[door].strike, AbsentStrike)
    assert building.lock(door).state == "unavailable"
    issue = f"bluetooth_missing_{building.subentry('Gate').subentry_id}"
    assert ir.async_get(hass).async_get_issue(DOMAIN, issue)
    with pytest.raises(StrikeUnreachable, match="Bluetooth is not set up"):
        await building.embedded.doors[door].strike.reach()
    flow = await building.entry.start_subentry_reconfigure_flow(hass, building.subentry("Gate").subentry_id)
    flow = await go_on(hass, flow, {"next_step_id": "pair_again"})
    assert flow["reason"] == "strike_without_bluetooth"

    hass.config.components.add("bluetooth")
    hass.bus.async_fire("component_loaded", {"component": "bluetooth"})
    await until(lambda: building.lock(door).state == "locked", seconds=WAIT)
    await hass.async_block_till_done()
    assert not ir.async_get(hass).async_get_issue(DOMAIN, issue)
    await building.unlock(door)
    assert gate.pulses == 1


async def test_a_door_whose_strike_cannot_be_read_is_to_be_added_again(hass, building):
    building._add("door", "Gate", {"door": building.door, "access_time": 5, "strike": {}}, "a1b2c3d4e5f60718")
    await hass.async_block_till_done()
    flow = await building.entry.start_subentry_reconfigure_flow(hass, building.subentry("Gate").subentry_id)
    assert flow["reason"] == "strike_unreadable"
