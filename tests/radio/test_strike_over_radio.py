"""The driver and the strike over the virtual radio, each on its own Bluetooth stack, with a real bleak client.

Links are cut at every packet, and at random. Never a second pulse, and never a wrong or a lost word about the first
one. What somebody does on purpose is in test_driver_attacked.py.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from bleak.backends.device import BLEDevice
from bleak.exc import BleakGATTProtocolError, BleakGATTProtocolErrorCode
from bumble.core import AdvertisingData

from gateway import ble
from gateway.ble import BleakLink, BleakRadio
from vestibule_core.doorstrike.pairing_session import PairingFailed, PairingSlip, pair
from vestibule_core.doorstrike.wire import EventKind
from vestibule_core.errors import StrikeUnreachable

from .ether import Fate, Radio
from .site import Site, a_pulse, clock, in_radio_time, until
from .virtual_radio.adapter import Adapter

pytestmark = pytest.mark.usefixtures("radio_time")


@in_radio_time
async def test_a_strike_is_paired_and_opened_and_says_when_it_is_locked_again(tmp_path):
    async with Site(tmp_path) as site:
        await site.strike.reach()
        assert site.pulses == 0
        await site.strike.release(a_pulse())
        assert (site.pulses, site.strike.reading) == (1, "released")
        await until(lambda: site.idle)
        assert site.strike.reading == "secured"
        assert [one.event.kind for one in site.events][-2:] == [EventKind.RELAY_ON, EventKind.RELAY_OFF]


@pytest.mark.parametrize(
    "how, most", [("cold", 15), ("cached handles", 4), ("kept connection", 1)], ids=lambda value: str(value)
)
@in_radio_time
async def test_g17_an_unlock_takes_as_few_round_trips_as_it_may(tmp_path, how, most):
    async with Site(tmp_path, keep=how == "kept connection") as site:
        if how == "cold":
            site.phone.forget_services()
        with site.radio.tap() as tap:
            await site.strike.reach()
            await site.strike.release(a_pulse())
            assert 1 <= tap.round_trips <= most, str(tap)
        assert site.pulses == 1


@pytest.mark.parametrize("mtu", [23, 65, 247])
@pytest.mark.parametrize("keep", [False, True], ids=["cached handles", "kept connection"])
@in_radio_time
async def test_row_54_the_link_is_cut_at_every_packet_of_an_unlock(tmp_path, keep, mtu):
    async with Site(tmp_path, keep=keep, mtu=mtu) as site:
        with site.radio.tap() as tap:
            assert await site.open(a_pulse())
            whole = len(tap.pdus)
        pulses = 1
        cuts = [(number, delivered) for number in range(1, whole + 1) for delivered in (False, True)]
        for number, delivered in cuts:
            await site.closed()
            pulse = a_pulse()
            with site.radio.tap() as tap:
                tap.cut_at(number, delivered=delivered)
                moved = await site.open(pulse)
            assert moved is not None
            pulses += moved
            assert site.pulses == pulses, f"packet {number}: what was said is so"
            while site.strike.reading != "secured":
                await site.strike.secure()
            await until(lambda moved=moved, pulse=pulse: site.told(pulse) == moved)
            site.pass_time(3.0)  # twenty in a minute is the most
        assert site.pulses == pulses


LONGEST = {23: 24, 65: 16, 185: 12, 247: 12}
"""About as many packets as an unlock has, at each MTU."""
LIVES = 25
"""How many a strike leads in one of the tests that follow; there are 200 of them."""


@pytest.mark.parametrize("mtu", [23, 65, 185, 247])
@pytest.mark.parametrize("keep", [False, True], ids=["cached handles", "kept connection"])
@in_radio_time
async def test_random_cuts_both_ways_move_nothing_twice_and_lose_nothing(tmp_path, keep, mtu):
    async with Site(tmp_path, keep=keep, mtu=mtu) as site:
        moved = {}
        for seed in range(LIVES):
            rng = random.Random(f"{keep} {mtu} {seed}")
            # A number counts packets of either end, over the reconnections that follow as well.
            cuts = {
                number: rng.choice([Fate.CUT, Fate.DELIVER_AND_CUT])
                for number in rng.sample(range(1, LONGEST[mtu] + 1), rng.choice([1, 1, 2, 3]))
            }
            pulse, before = a_pulse(), site.pulses
            with site.radio.tap() as tap:
                tap.decide(lambda pdu, cuts=cuts: cuts.get(pdu.number, Fate.DELIVER))
                said = await site.open(pulse)
            moved[pulse] = site.pulses - before
            assert moved[pulse] in (0, 1), f"{seed}: never a second pulse"
            if len(cuts) == 1:
                assert said is not None, f"{seed}: it can connect again, and ask"
            assert said in (None, moved[pulse]), f"{seed}: what is said is so"
            while site.strike.reading != "secured":
                await site.strike.secure()
            await until(lambda pulse=pulse: site.told(pulse) == moved[pulse])
            again = await site.open(pulse)
            assert (again, site.pulses - before) == (True, 1), f"{seed}: once more, and it moves if it had not"
            await site.closed()
            site.pass_time(3.0)  # twenty in a minute is the most
        assert [site.told(pulse) for pulse in moved] == [1] * LIVES
        assert 0 < sum(moved.values()) < len(moved), "cuts before it and after it"


@in_radio_time
async def test_a_strike_out_of_range_is_given_up_with_a_reason_and_leaves_no_slot_taken(tmp_path):
    async with Site(tmp_path) as site:
        await until(lambda: site.idle)
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
        assert (site.pulses, site.strike.reason) == (1, None)


@in_radio_time
async def test_power_that_comes_back_is_seen_and_nothing_moves(tmp_path):
    async with Site(tmp_path, keep=True) as site:
        await site.gate.cut_power()
        await until(lambda: not site.strike.is_connected)
        await asyncio.sleep(1.2)
        await site.gate.power_up()
        await site.advertised()
        await until(lambda: site.strike.is_connected and site.strike.state, seconds=10)
        await until(lambda: site.events and site.events[-1].event.kind == EventKind.BOOT)
        assert site.pulses == 0


@in_radio_time
async def test_an_advertisement_of_news_causes_a_poll(tmp_path):
    async with Site(tmp_path) as site:
        await until(lambda: site.idle)
        site.gate.sense("cover open")
        await site.advertised()
        await until(lambda: site.strike.state and site.strike.state.tampered)
        await until(lambda: site.idle)
        assert site.events[-1].event.kind == EventKind.TAMPER


@in_radio_time
async def test_a_gatt_refusal_moves_nothing_and_is_no_word_of_the_strike(tmp_path, monkeypatch):
    """The stack beneath refuses a write: whether the strike has heard the command is asked, and it has not."""
    write = BleakLink.write

    async def refused(link, fragment, *, with_response):
        monkeypatch.setattr(BleakLink, "write", write)
        with ble._translated():
            raise BleakGATTProtocolError(BleakGATTProtocolErrorCode.UNLIKELY_ERROR)

    async with Site(tmp_path) as site:
        await site.strike.reach()
        monkeypatch.setattr(BleakLink, "write", refused)
        with pytest.raises(StrikeUnreachable, match="nothing moved"):
            await site.strike.release(a_pulse())
        assert site.pulses == 0


@in_radio_time
async def test_pairing_without_the_button_says_so(tmp_path):
    async with Site(tmp_path) as site:
        await until(lambda: site.idle)
        with pytest.raises(PairingFailed) as raised:
            await pair(site.bleak, site.gate.label, "Other", window_open=False, clock=clock)
        assert raised.value.slip is PairingSlip.NO_WINDOW


@in_radio_time
async def test_a_device_without_the_service_is_no_strike():
    async with Radio() as radio, Adapter(radio.device("phone")) as phone:
        device = radio.device("lamp")
        await device.power_on()
        await device.start_advertising(advertising_data=bytes(AdvertisingData([(AdvertisingData.Type.FLAGS, b"\6")])))
        address = device.static_address.to_string(False)
        await phone.hear(address)
        bleak = BleakRadio(BLEDevice(address, None, {}), backend=phone.client_class)
        with pytest.raises(StrikeUnreachable, match="service of a strike"):
            await bleak.connect(lambda: None)
        await until(lambda: not radio.links())
