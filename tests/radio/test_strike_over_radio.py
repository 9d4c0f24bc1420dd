"""The driver and the strike over the virtual radio, each on its own Bluetooth stack, with a real bleak client."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from bleak.backends.device import BLEDevice
from bleak.exc import BleakGATTProtocolError, BleakGATTProtocolErrorCode
from bumble.core import AdvertisingData

from gateway import ble
from gateway.ble import BleakLink, BleakRadio
from gateway.strike import air
from tests.gateway.strike.strikes import Gate
from vestibule_core.doorstrike import driver, keyring, outcome
from vestibule_core.doorstrike.driver import BleStrike
from vestibule_core.doorstrike.pairing_session import PairingFailed, PairingSlip, pair
from vestibule_core.doorstrike.wire import Advertisement, EventKind
from vestibule_core.errors import OutcomeUnknown, StrikeRefused, StrikeUnreachable
from vestibule_core.strike import Pulse

from .ether import Radio
from .until import until
from .virtual_radio.adapter import Adapter


class Site:
    """A strike that was paired over the radio, and its driver. Use it in an ``async with``."""

    def __init__(self, radio: Radio, phone: Adapter, gate: Gate) -> None:
        self.radio, self.phone, self.gate = radio, phone, gate
        self.bleak = BleakRadio(BLEDevice(gate.address, None, {}), backend=phone.client_class)
        self.events = []
        self.strike = None

    async def __aenter__(self):
        await self.phone.hear(self.gate.address)
        self.gate.hold_button()
        self.kept = await pair(self.bleak, self.gate.label, "Home", window_open=True)
        self.start(keep=False)
        return self

    async def __aexit__(self, *_):
        await self.strike.close()

    def start(self, *, keep):
        self.strike = BleStrike(self.bleak, self.kept, keep_connected=keep, remember=self._remember)
        self.strike.on_event(self.events.append)

    def _remember(self, kept):
        self.kept = kept

    async def restart(self, *, keep):
        await self.strike.close()
        self.start(keep=keep)
        if keep:
            await until(lambda: self.strike.state)

    async def advertised(self):
        """Let the driver hear the strike once."""
        self.strike.seen(Advertisement.parse((await self.phone.hear(self.gate.address)).data_bytes[-10:]))

    @property
    def idle(self):
        return not self.radio.links()

    def told(self, pulse):
        return sum(e.event.kind == EventKind.RELAY_ON and e.event.spend_id == pulse.spend_id for e in self.events)


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    monkeypatch.setattr(keyring, "ATTEMPT_GAP", 0.001)
    monkeypatch.setattr(air, "INTERVAL", 20.0)
    # Nothing arrives here over a link that was cut, so that nobody has to wait until it cannot any more.
    monkeypatch.setattr(driver, "SETTLED", 0.2)
    monkeypatch.setattr(outcome, "SETTLED", 0.2)


@pytest.fixture
async def gate(radio, tmp_path: Path):
    async with Gate(radio, tmp_path) as gate:
        yield gate


@pytest.fixture
async def site(radio, phone, gate):
    async with Site(radio, phone, gate) as site:
        yield site


def a_pulse():
    return Pulse(os.urandom(16), 0.5)


async def test_a_strike_is_paired_and_opened_and_says_when_it_is_locked_again(site):
    await site.strike.reach()
    assert site.gate.pulses == 0
    await site.strike.release(a_pulse())
    assert (site.gate.pulses, site.strike.reading) == (1, "released")
    await until(lambda: site.idle)
    assert site.strike.reading == "secured"
    assert [one.event.kind for one in site.events][-2:] == [EventKind.RELAY_ON, EventKind.RELAY_OFF]


@pytest.mark.parametrize(
    "how, most", [("cold", 15), ("cached handles", 4), ("kept connection", 1)], ids=lambda value: str(value)
)
async def test_g17_an_unlock_takes_as_few_round_trips_as_it_may(site, how, most):
    if how == "cold":
        site.phone.forget_services()
    await site.restart(keep=how == "kept connection")
    with site.radio.tap() as tap:
        await site.strike.reach()
        await site.strike.release(a_pulse())
        assert 1 <= tap.round_trips <= most, str(tap)
    assert site.gate.pulses == 1


@pytest.mark.parametrize("mtu", [23, pytest.param(65, marks=pytest.mark.long), 247])
@pytest.mark.parametrize("keep", [False, True], ids=["cached handles", "kept connection"])
async def test_row_54_the_link_is_cut_at_every_packet_of_an_unlock(site, keep, mtu):
    site.phone.mtu = mtu
    await site.restart(keep=keep)
    with site.radio.tap() as tap:
        await site.strike.reach()
        await site.strike.release(a_pulse())
        whole = len(tap.pdus)
    pulses = 1
    for number in range(1, whole + 1):
        await until(lambda: site.strike.reading == "secured" and (keep or site.idle), seconds=30)
        pulse = a_pulse()
        with site.radio.tap() as tap:
            tap.cut_at(number, delivered=bool(number % 2))
            try:
                await site.strike.reach()
                await site.strike.release(pulse)
                moved = 1
            except StrikeUnreachable, StrikeRefused:
                moved = 0
        pulses += moved
        assert site.gate.pulses == pulses, f"packet {number}: what was said is so"
        while site.strike.reading != "secured":
            await site.strike.secure()
        await until(lambda moved=moved, pulse=pulse: site.told(pulse) == moved)
    assert site.gate.pulses == pulses


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 17))])
async def test_random_cuts_both_ways_move_nothing_twice_and_lose_nothing(site, seed):
    rng = random.Random(seed)
    await site.restart(keep=bool(seed % 2))
    wanted = {}
    for _ in range(12):
        pulse, before, said = a_pulse(), site.gate.pulses, None
        with site.radio.tap() as tap:
            tap.cut_at(rng.randrange(1, 14), delivered=rng.random() < 0.5)
            try:
                await site.strike.reach()
                await site.strike.release(pulse)
                said = 1
            except StrikeUnreachable, StrikeRefused:
                said = 0
            except OutcomeUnknown:
                pass
        await until(lambda: not site.strike._tasks or site.strike.reading != "released", seconds=20)
        moved = site.gate.pulses - before
        assert moved <= 1
        assert said in (None, moved)
        wanted[pulse] = moved
    await site.strike.reach()
    await site.strike.secure()
    await until(lambda: all(site.told(pulse) == moved for pulse, moved in wanted.items()), seconds=20)


async def test_a_strike_out_of_range_is_given_up_with_a_reason_and_leaves_no_slot_taken(site):
    site.radio.walk_away("phone", "gate")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await site.strike.reach()
    await until(lambda: site.phone.free_slots == site.phone.slots)
    site.phone.slots = 0
    with pytest.raises(StrikeUnreachable, match="slot"):
        await site.strike.reach()
    assert "slot" in site.strike.reason
    site.phone.slots = 1
    site.radio.come_back("phone", "gate")
    await site.strike.release(a_pulse())
    assert (site.gate.pulses, site.strike.reason) == (1, None)


async def test_power_that_comes_back_is_seen_and_nothing_moves(site):
    await site.restart(keep=True)
    await site.gate.cut_power()
    await until(lambda: not site.strike.is_connected)
    await asyncio.sleep(1.2)
    await site.gate.power_up()
    await site.advertised()
    await until(lambda: site.strike.is_connected and site.strike.state, seconds=10)
    await until(lambda: site.events and site.events[-1].event.kind == EventKind.BOOT)
    assert site.gate.pulses == 0


async def test_an_advertisement_of_news_causes_a_poll(site):
    site.gate.sense("cover open")
    await site.advertised()
    await until(lambda: site.strike.state and site.strike.state.tampered)
    await until(lambda: site.idle)
    assert site.events[-1].event.kind == EventKind.TAMPER


async def test_a_gatt_refusal_moves_nothing_and_is_no_word_of_the_strike(site, monkeypatch):
    """The stack beneath refuses a write: whether the strike has heard the command is asked, and it has not."""
    write = BleakLink.write

    async def refused(link, fragment, *, with_response):
        monkeypatch.setattr(BleakLink, "write", write)
        with ble._translated():
            raise BleakGATTProtocolError(BleakGATTProtocolErrorCode.UNLIKELY_ERROR)

    await site.strike.reach()
    monkeypatch.setattr(BleakLink, "write", refused)
    with pytest.raises(StrikeUnreachable, match="nothing moved"):
        await site.strike.release(a_pulse())
    assert site.gate.pulses == 0


async def test_pairing_without_the_button_says_so(site):
    with pytest.raises(PairingFailed) as raised:
        await pair(site.bleak, site.gate.label, "Other", window_open=False)
    assert raised.value.slip is PairingSlip.NO_WINDOW


async def test_a_device_without_the_service_is_no_strike(radio, phone):
    device = radio.device("lamp")
    await device.power_on()
    await device.start_advertising(advertising_data=bytes(AdvertisingData([(AdvertisingData.Type.FLAGS, b"\6")])))
    address = device.static_address.to_string(False)
    await phone.hear(address)
    bleak = BleakRadio(BLEDevice(address, None, {}), backend=phone.client_class)
    with pytest.raises(StrikeUnreachable, match="service of a strike"):
        await bleak.connect(lambda: None)
    await until(lambda: not radio.links())
