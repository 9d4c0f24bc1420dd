"""What somebody does to a Bluetooth strike itself, and who wants out: as its manager hears of it. A real strike's own
program on a virtual radio, and Home Assistant's own Bluetooth stack.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

pytest.importorskip("noise", reason="noiseprotocol is not installed")
pytest.importorskip("bumble", reason="the virtual radio's Bluetooth stack is not installed")
pytest.importorskip("aiousbwatcher", reason="what Home Assistant's Bluetooth needs is not installed")

from homeassistant.core import HomeAssistant
from homeassistant.helpers.json import json_dumps

from custom_components.vestibule import ble
from custom_components.vestibule.vestibule_core import door as core_door
from custom_components.vestibule.vestibule_core.doorstrike import hearing, known, polling
from custom_components.vestibule.vestibule_core.doorstrike.client import Paired
from custom_components.vestibule.vestibule_core.doorstrike.driver import BleStrike, Kept
from custom_components.vestibule.vestibule_core.doorstrike.wire import Caps as CapsHere
from custom_components.vestibule.vestibule_core.doorstrike.wire import Rights
from custom_components.vestibule.vestibule_core.errors import OutcomeUnknown
from tests.integration.site import Site
from tests.integration.test_ble import (
    ALL_CAPS,
    WAIT,
    Strike,
    add_gate,
    building,
    change,
    code_of,
    entity,
    go_on,
    happened,
    hurried,
    pair_another,
    strike_of,
)
from tests.radio.ether import Radio
from tests.radio.until import until
from vestibule_core.doorstrike import peripheral
from vestibule_core.doorstrike.device import BatteryIs, BoltIs
from vestibule_core.doorstrike.wire import Caps

__all__ = ["building", "hurried"]  # fixtures

pytestmark = pytest.mark.usefixtures("socket_enabled", "hurried", "with_bluetooth")

REX_TIME = 0.6


@pytest.fixture
async def gate(radio: Radio, tmp_path: Path, caps: Caps) -> AsyncGenerator[Strike]:
    """A strike at the gate, with these capabilities and a closed door."""
    with patch("gateway.strike.box.caps", lambda _: caps):
        async with Strike(radio, tmp_path) as gate:
            gate.close_door()
            gate.tell(BoltIs(secured=True))
            gate.tell(BatteryIs(80))
            yield gate


@pytest.fixture
def caps() -> Caps:
    """What the strike says that it has: a request to exit as well."""
    return ALL_CAPS | Caps.REX


def told(site: Site, door: str) -> list[dict[str, Any]]:
    return [event.data for event in site.events if event.data["door"] == door]


def at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


async def until_told(site: Site, door: str, *outcomes: str, seconds: float = WAIT) -> None:
    """Wait until these, and nothing else, have happened, in this order."""
    await until(lambda: len(happened(site, door)) >= len(outcomes), seconds=seconds)
    await site.settle()
    assert happened(site, door) == list(outcomes)


async def fetched(site: Site, door: str, gate: Strike) -> None:
    """Wait until nothing that the strike knows of is unheard."""
    await until(lambda: strike_of(site, door).kept.heard == gate.box.shell._machine._device.history.seq, seconds=20)
    await site.settle()


# ---- what somebody does to the strike


async def test_each_change_of_who_may_open_a_strike_is_an_event_with_its_slot(hass, scanners, building, gate):
    door = await add_gate(hass, building, gate, keep_connected=True)
    await until(lambda: strike_of(building, door).is_connected, seconds=WAIT)
    assert happened(building, door) == [], "that this Home Assistant was paired is no news"

    assert await pair_another(hass, gate, "Tablet") == 2
    await strike_of(building, door).set_rights(2, Rights.MANUAL)
    await strike_of(building, door).delete_slot(2)
    await until_told(
        building,
        door,
        "strike_pairing_opened",
        "strike_slot_added",
        "strike_rights_changed",
        "strike_slot_deleted",
    )
    opened, *of_a_slot = told(building, door)
    assert "slot" not in opened
    assert [event["slot"] for event in of_a_slot] == [2, 2, 2]
    assert all(event["sequence"] and event["means"] is event["carrier"] is event["code"] is None for event in of_a_slot)
    state = building.access(door)
    assert (state.attributes["event_type"], state.attributes["slot"]) == ("strike_slot_deleted", 2)
    entries = await building.embedded.journal.newest_entries(door, 4)
    assert [entry.leaf.kind for entry in reversed(entries)] == happened(building, door)
    assert [entry.person and entry.person.read() for entry in reversed(entries)] == [None, *[{"slot": 2}] * 3]
    assert "Tablet" not in json_dumps([event.data for event in building.events])


async def test_who_tries_a_strike_without_its_key_is_counted_and_told_of(
    hass, scanners, building, gate, monkeypatch, caplog
):
    monkeypatch.setattr(peripheral, "FAILURES_TIME", 0.5)
    door = await add_gate(hass, building, gate, keep_connected=True)
    await until(lambda: strike_of(building, door).is_connected, seconds=WAIT)
    stranger = Kept(Paired(gate.label.strike_id, 1, bytes(32)), CapsHere(0), 0)
    radio = ble.HomeAssistantRadio(hass, gate.address)
    wrong = BleStrike(radio, stranger, keep_connected=False, remember=lambda _: None)
    with pytest.raises(OutcomeUnknown):  # an ERR is nobody's word
        await wrong.list_slots()
    await wrong.close()
    await until(lambda: "strike_authentication_failed" in happened(building, door), seconds=WAIT)
    (event,) = told(building, door)
    assert event["count"] == building.access(door).attributes["count"] == 1
    stored = building.subentry("Gate").data["strike"]
    assert stored["psk"] not in caplog.text + json_dumps([event.data for event in building.events])


async def test_what_was_done_to_a_strike_meanwhile_comes_in_order_once_and_with_its_own_time(
    hass, radio, scanners, building, gate
):
    door = await add_gate(hass, building, gate)
    await building.unlock(door)  # from now on the time of its power-up is known
    await until(lambda: not radio.links(), seconds=WAIT)
    await building.settle()
    await hass.config_entries.async_unload(building.entry.entry_id)
    building.events.clear()
    began = time.time()
    gate.tamper()
    await asyncio.sleep(0.2)
    gate.hold_button()
    await asyncio.sleep(0.2)
    slot = await pair_another(hass, gate, "Tablet")
    ended = time.time()
    await building.load()
    await until_told(
        building,
        door,
        "door_tampered",
        "strike_pairing_opened",
        "strike_pairing_opened",
        "strike_slot_added",
        seconds=20,
    )
    times = [at(event) for event in told(building, door)]
    assert began - 0.5 <= times[0] <= times[1] - 0.15 <= times[2] <= times[3] <= ended + 0.5
    assert told(building, door)[-1]["slot"] == slot

    building.events.clear()
    await hass.config_entries.async_unload(building.entry.entry_id)
    await building.load()
    await fetched(building, door, gate)
    assert happened(building, door) == [], "not a second time"


async def test_a_reset_is_told_of_when_the_strike_is_paired_again(hass, scanners, building, gate):
    door = await add_gate(hass, building, gate)
    await fetched(building, door, gate)
    gate.tamper()
    gate.sense("button 10")
    flow = await change(hass, building, "pair_again")
    gate.hold_button()
    await until(lambda: ble.in_range(hass)[0].pairs, seconds=WAIT)
    flow = await go_on(hass, flow, {"code": code_of(gate)})
    assert flow["reason"] == "reconfigure_successful"
    await hass.async_block_till_done()
    await until_told(
        building, door, "door_tampered", "strike_factory_reset", "strike_pairing_opened", seconds=20
    )  # and not that this Home Assistant has a slot again


async def test_a_release_that_is_under_way_keeps_nothing_from_its_place(hass, scanners, building, gate):
    """The door is busy with its strike while the strike tells of something."""
    door = await add_gate(hass, building, gate, keep_connected=True)
    await until(lambda: strike_of(building, door).is_connected, seconds=WAIT)
    gate.tamper()
    gate.hold_button()
    await building.unlock(door)
    await until(lambda: "door_relocked" in happened(building, door), seconds=WAIT)
    await building.settle()
    outcomes = happened(building, door)
    assert sorted(outcomes) == [
        "access_granted",
        "door_released",
        "door_relocked",
        "door_tampered",
        "strike_pairing_opened",
    ]
    assert outcomes.index("door_tampered") < outcomes.index("strike_pairing_opened")


# ---- who wants out


@pytest.fixture
def short_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request to exit is good for a moment only."""
    monkeypatch.setattr(core_door, "REX_TIME", REX_TIME)
    monkeypatch.setattr(hearing, "REX_TIME", REX_TIME)


async def door_at_rest(hass: HomeAssistant, site: Site, gate: Strike, *, keep_connected: bool) -> str:
    door = await add_gate(hass, site, gate, keep_connected=keep_connected)
    contact = entity(hass, "binary_sensor", door, "contact")
    await until(lambda: hass.states.get(contact).state == "off", seconds=WAIT)
    await fetched(site, door, gate)
    assert happened(site, door) == []
    return door


@pytest.mark.parametrize("keep_connected", [True, False])
async def test_a_door_opened_after_a_request_to_exit_is_not_forced_and_any_other_is(
    hass, scanners, building, gate, short_exit, keep_connected
):
    door = await door_at_rest(hass, building, gate, keep_connected=keep_connected)
    gate.sense("exit")
    gate.open_door()
    await until_told(building, door, "door_opened")
    gate.close_door()
    await until_told(building, door, "door_opened", "door_closed")
    await asyncio.sleep(REX_TIME + 0.2)
    gate.open_door()
    await until_told(building, door, "door_opened", "door_closed", "door_forced_open")
    assert gate.pulses == 0


async def test_a_request_and_the_opening_after_it_that_are_heard_far_apart_belong_together(
    hass, scanners, building, gate, monkeypatch
):
    """The time between them is what the strike's own clock says."""
    door = await door_at_rest(hass, building, gate, keep_connected=False)
    for module in (core_door, hearing):
        monkeypatch.setattr(module, "REX_TIME", 4.0)
    for module in (polling, known):
        monkeypatch.setattr(module, "GAP", 8.0)
    gate.sense("exit")
    await fetched(building, door, gate)
    heard = time.monotonic()
    gate.open_door()
    await until_told(building, door, "door_opened", seconds=30)
    assert time.monotonic() - heard > 4.0, "else it would have been in time anyhow"


@pytest.mark.parametrize("caps", [ALL_CAPS])
async def test_a_strike_of_before_cannot_tell_who_leaves_and_nothing_is_forced(hass, scanners, building, gate):
    door = await door_at_rest(hass, building, gate, keep_connected=True)
    gate.sense("exit")
    gate.open_door()
    await until_told(building, door, "door_opened")


@pytest.mark.parametrize("caps", [ALL_CAPS])
async def test_a_strike_that_gets_an_exit_button_later_is_believed_from_then_on(hass, scanners, building, gate):
    door = await door_at_rest(hass, building, gate, keep_connected=True)
    await gate.cut_power()
    with patch("gateway.strike.box.caps", lambda _: ALL_CAPS | Caps.REX):
        await gate.power_up()
    gate.close_door()
    await until(lambda: CapsHere.REX in strike_of(building, door).relay.caps, seconds=20)
    await hass.async_block_till_done()
    state = building.embedded.doors[door]
    await until(lambda: (state.state.rex, state.state.contact) == ("inactive", "inactive"), seconds=WAIT)
    await building.settle()
    building.events.clear()
    gate.open_door()
    await until_told(building, door, "door_forced_open")


@pytest.mark.parametrize(
    "keep_connected, outcome",
    [(True, "door_forced_open"), (False, "door_opened")],
)
async def test_a_contact_of_another_make_is_judged_by_the_strikes_exit_button_only_while_that_is_heard_at_once(
    hass, scanners, building, gate, keep_connected, outcome
):
    door = await door_at_rest(hass, building, gate, keep_connected=keep_connected)
    hass.states.async_set("binary_sensor.leaf", "off")
    building.change("Gate", contact="binary_sensor.leaf")
    await hass.async_block_till_done()
    doorway = building.embedded.doors[door]
    at_rest = "inactive" if keep_connected else "unknown"
    await until(lambda: (doorway.state.rex, doorway.state.contact) == (at_rest, "inactive"), seconds=WAIT)
    hass.states.async_set("binary_sensor.leaf", "on")
    await until_told(building, door, outcome)
