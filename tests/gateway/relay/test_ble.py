"""A door whose lock is a Bluetooth strike: pairing it, opening it, hearing it, and all that over a restart."""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gateway.relay import ble
from gateway.relay.ble import BleStrikes, StoredStrike, UnpairedStrike, pair_strike
from gateway.source import Unusable
from gateway.strike import air
from vestibule_core.doorstrike import driver, keyring
from vestibule_core.doorstrike.pairing import Label, LabelError
from vestibule_core.doorstrike.pairing_session import PairingFailed, PairingSlip
from vestibule_core.errors import StrikeUnreachable
from vestibule_core.model import EventName, Sense, Sensor
from vestibule_core.strike import Pulse, Reading

from .boards import ANN, Door, until

DOOR = "yard"
WATCHED = frozenset({Sensor.CONTACT, Sensor.TAMPER})


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    monkeypatch.setattr(keyring, "ATTEMPT_GAP", 0.001)
    monkeypatch.setattr(air, "INTERVAL", 20.0)
    monkeypatch.setattr(ble, "SETTLE", 0.1)
    monkeypatch.setattr(ble, "FIND", 0.5)
    monkeypatch.setattr(driver, "QUIET", 0.1)


@pytest.fixture
def state(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    return state


@pytest.fixture
def pairs(state, adapter):
    """Pair as the command does."""

    async def pairs(code):
        return await pair_strike(
            state, DOOR, code, "Gateway", client=adapter.client_class, scanner=adapter.scanner_class
        )

    return pairs


@asynccontextmanager
async def at_work(state, adapter, *, keep=True, notes=None):
    strikes = BleStrikes(state, client=adapter.client_class, scanner=adapter.scanner_class)
    strike = strikes.open(DOOR, keep_connected=keep, notes=notes or {})
    await strikes.start()
    try:
        if keep:
            await until(lambda: strike.is_reachable and strike.reading is Reading.SECURED)
        yield strike
    finally:
        await strikes.stop()


@pytest.fixture
async def paired(gate, pairs):
    gate.hold_button()
    return await pairs(gate.label.grouped)


def a_pulse():
    return Pulse(os.urandom(16), 0.5)


# ---- pairing ----


async def test_a_strike_is_paired_by_its_typed_code_and_its_key_is_for_nobody_else_to_read(state, gate, paired):
    file = state / "strikes" / f"{DOOR}.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert StoredStrike.read(state, DOOR) == paired
    assert paired.kept.paired.strike_id == gate.label.strike_id
    assert paired.kept.paired.psk.hex() not in repr(paired)


async def test_a_strike_is_paired_by_its_qr_code(gate, pairs):
    gate.hold_button()
    assert (await pairs(gate.label.qr)).kept.paired.slot == 1


async def test_a_mistyped_code_is_found_before_the_radio_is_troubled(radio, gate, pairs):
    with pytest.raises(LabelError):
        await pairs(gate.label.grouped[:-1] + ("A" if gate.label.code[-1] != "A" else "B"))
    assert not radio.links()


async def test_no_strike_is_paired_while_nobody_held_its_button(gate, pairs, state):
    with pytest.raises(StrikeUnreachable, match="hold the button"):
        await pairs(gate.label.grouped)
    assert StoredStrike.read(state, DOOR) is None


async def test_another_strike_than_the_labels_is_not_paired(gate, pairs):
    gate.hold_button()
    with pytest.raises(PairingFailed) as raised:
        await pairs(Label.new(gate.label.strike_id, bytes(12)).grouped)
    assert raised.value.slip is PairingSlip.WRONG_CODE
    with pytest.raises(StrikeUnreachable, match="hold the button"):
        await pairs(Label.new(b"elsewher", bytes(12)).qr)


# ---- opening ----


@pytest.mark.parametrize("keep", [True, False], ids=["kept connection", "connected when needed"])
async def test_a_door_is_opened_held_and_locked(state, adapter, gate, paired, keep):
    async with at_work(state, adapter, keep=keep) as strike:
        await strike.reach()
        assert gate.pulses == 0
        await strike.release(pulse := a_pulse())
        assert (gate.pulses, strike.reading) == (1, Reading.RELEASED)
        assert list(strike.spends) == [pulse.spend_id], "its own are known again"
        await until(lambda: strike.reading is Reading.SECURED)
        await strike.hold(None)
        await strike.secure()
        assert strike.reading is Reading.SECURED
        assert strike.sensors == WATCHED
    assert gate.moves[-1][0] == "off"


async def test_a_strike_out_of_range_is_unreachable_with_a_reason(state, adapter, gate, paired):
    async with at_work(state, adapter) as strike:
        await gate.cut_power()
        await until(lambda: not strike.is_connected)
        with pytest.raises((StrikeUnreachable, TimeoutError)):
            async with asyncio.timeout(0.5):
                await strike.reach()
        await gate.power_up()
        await until(lambda: strike.is_connected, seconds=10)


async def test_a_strike_that_was_never_paired_says_which_command_pairs_it(state, adapter):
    strikes = BleStrikes(state, client=adapter.client_class, scanner=adapter.scanner_class)
    strike = strikes.open(DOOR, keep_connected=True, notes={})
    assert isinstance(strike, UnpairedStrike)
    for told in (strike.reach(), strike.release(a_pulse()), strike.secure()):
        with pytest.raises(StrikeUnreachable, match=f"pair-strike {DOOR}"):
            await told
    await strikes.start()
    await strikes.stop()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"address": "C0:00:00:00:00:01"}', "\0"])
def test_a_file_that_pairing_did_not_write_is_refused_by_name(state, text):
    (state / "strikes").mkdir()
    (state / "strikes" / f"{DOOR}.json").write_text(text)
    with pytest.raises(Unusable, match="delete it and pair the strike again"):
        StoredStrike.read(state, DOOR)


async def test_a_strike_that_has_moved_to_another_address_is_found_by_what_it_advertises(state, adapter, gate, paired):
    replace(paired, address="C0:00:00:00:00:77").write(state, DOOR)
    async with at_work(state, adapter, keep=False) as strike:
        await until(lambda: StoredStrike.read(state, DOOR).address == gate.address)
        await strike.release(a_pulse())
    assert gate.pulses == 1


async def test_an_adapter_that_cannot_scan_is_tried_again_and_the_rest_goes_on(state, adapter, gate, paired, caplog):
    class Broken(adapter.scanner_class):
        async def start(self):
            raise OSError("no such adapter")

    strikes = BleStrikes(state, client=adapter.client_class, scanner=Broken)
    strike = strikes.open(DOOR, keep_connected=False, notes={})
    await strikes.start()
    await strike.release(a_pulse())
    await strikes.stop()
    assert [record.message for record in caplog.records if record.name.startswith("gateway.relay")] == [
        "bluetooth_failed"
    ]


# ---- hearing ----


async def test_a_door_hears_what_its_strike_says_once_and_over_a_restart(state, adapter, gate, paired, tmp_path):
    path = tmp_path / "journal.db"
    async with at_work(state, adapter) as strike, Door(path, strike, sensors=WATCHED) as site:
        strike.hear(site.controller, site.door.id, WATCHED)
        await until(lambda: site.state.tamper is Sense.INACTIVE)
        gate.sense("contact open")
        await until(lambda: site.state.contact is Sense.ACTIVE)
        gate.sense("contact closed")
        await until(lambda: EventName.DOOR_CLOSED in site.outcomes)
        assert site.state.contact is Sense.INACTIVE
        await site.controller.recorded()
        notes = site.journal.notes()
    assert any(name.startswith("strike:") for name in notes)

    gate.sense("cover open")  # while the gateway is down
    async with at_work(state, adapter, notes=notes) as strike, Door(path, strike, sensors=WATCHED) as site:
        strike.hear(site.controller, site.door.id, WATCHED)
        await until(lambda: EventName.DOOR_TAMPERED in site.outcomes)
        assert EventName.DOOR_CLOSED not in site.outcomes, "that was told before"
        assert site.outcomes.count(EventName.DOOR_TAMPERED) == 1


async def test_only_a_release_of_somebody_else_is_told_of_as_one(state, adapter, gate, paired, tmp_path):
    async with at_work(state, adapter) as strike, Door(tmp_path / "journal.db", strike, sensors=WATCHED) as site:
        strike.hear(site.controller, site.door.id, WATCHED)
        assert (await site.controller.by_hand.open(site.door.id, ANN)).granted
        await until(lambda: EventName.DOOR_RELOCKED in site.outcomes)
        gate.sense("contact open")  # what it tells of comes in order
        await until(lambda: site.state.contact is Sense.ACTIVE)
        assert EventName.RELAY_OPERATED_ELSEWHERE not in site.outcomes
        strike.spends.clear()
        await strike.release(a_pulse())  # as far as the door knows, somebody else did that
        await until(lambda: EventName.RELAY_OPERATED_ELSEWHERE in site.outcomes)
