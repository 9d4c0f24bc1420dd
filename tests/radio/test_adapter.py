"""The adapter as bleak shows it: what a door depends on in scanning, connecting, reading, writing and losing links."""

from __future__ import annotations

import asyncio
import time

import pytest
from bleak import BleakClient, BleakScanner
from bleak.backends.device import BLEDevice
from bleak.exc import BleakDeviceNotFoundError, BleakError, BleakGATTProtocolError
from bleak_retry_connector import BleakClientWithServiceCache, establish_connection

from .ether import Radio
from .peripheral import RX, SERVICE, TX, Peripheral, advertisement
from .until import until
from .virtual_radio.adapter import Adapter

SOON = 0.2
"""Seconds in which nothing has happened if it does not happen at all: ten adverts."""


async def connected(adapter: Adapter, peripheral: Peripheral, **more: object) -> BleakClient:
    client = BleakClient(await adapter.find(peripheral.address), backend=adapter.client_class, **more)
    await client.connect()
    return client


# ---- scanning


def test_the_advertisement_of_a_strike_is_exactly_full():
    flags, service_data = "020106", "1b21" + bytes.fromhex(SERVICE.replace("-", ""))[::-1].hex()
    told = advertisement(flags=2, evt_seq=0x0102)
    assert told.hex() == flags + service_data + "01" + "02" + "0201" + "a1b2c3d4e5f6"
    assert len(told) == 31


async def test_service_data_comes_with_the_advertisement_and_the_name_with_the_scan_response(radio, gate, phone):
    heard = asyncio.Queue()
    async with BleakScanner(lambda _, told: heard.put_nowait(told), backend=phone.scanner_class):
        first = await heard.get()
        assert first.service_data == {SERVICE: bytes.fromhex("01000000a1b2c3d4e5f6")}
        assert (first.service_uuids, first.local_name) == ([], None)
        second = await heard.get()
        assert second.service_data == first.service_data
        assert (second.service_uuids, second.local_name) == ([SERVICE], "gate")


async def test_who_listens_passively_hears_no_scan_response(radio, gate):
    async with Adapter(radio.device("passive"), active=False) as passive:
        heard = []
        passive.listen(heard.append)
        for _ in range(3):
            await passive.hear(gate.address)
        assert {one.data_bytes for one in heard} == {advertisement()}


async def test_each_pair_has_its_own_rssi(radio, gate, phone):
    radio.set_rssi("gate", "phone", -91)
    async with Adapter(radio.device("hallway")) as hallway:
        assert (await phone.hear(gate.address)).rssi == -91
        assert (await hallway.hear(gate.address)).rssi == -50


async def test_what_is_advertised_can_change_and_stop(radio, gate, phone):
    await gate.advertise(flags=2, evt_seq=513)
    assert (await phone.hear(gate.address)).data_bytes[-10:] == bytes.fromhex("01020102a1b2c3d4e5f6")
    await gate.stop_advertising()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(phone.hear(gate.address), SOON / 2)


# ---- writing and being told


@pytest.mark.parametrize("response", [True, False])
async def test_a_write_arrives(gate, phone, response):
    client = await connected(phone, gate)
    await client.write_gatt_char(RX, b"\1" * 74, response=response)
    await client.write_gatt_char(RX, b"then", response=True)
    assert gate.written == [b"\1" * 74, b"then"]


@pytest.mark.parametrize("mtu", [23, 65, 247])
@pytest.mark.parametrize("of", ["the peripheral", "the adapter"])
async def test_the_smaller_mtu_holds(radio, mtu, of):
    async with (
        Peripheral(radio, "gate", mtu=mtu if of == "the peripheral" else 247) as gate,
        Adapter(radio.device("phone"), mtu=mtu if of == "the adapter" else 247) as phone,
    ):
        client = await connected(phone, gate)
        rx = client.services.get_characteristic(RX)
        assert client.mtu_size == mtu
        assert rx.max_write_without_response_size == mtu - 3
        with pytest.raises(BleakError):
            await client.write_gatt_char(rx, bytes(mtu - 2), response=False)
        await client.write_gatt_char(rx, bytes(mtu - 3), response=False)
        told = asyncio.Queue()
        await client.start_notify(TX, lambda _, value: told.put_nowait(len(value)))
        await gate.notify(bytes(512))
        assert await told.get() == mtu - 3
        assert gate.written == [bytes(mtu - 3)]


async def test_who_subscribed_is_told_until_it_has_enough(gate, phone):
    client = await connected(phone, gate)
    told = []
    await gate.notify(b"nobody listens")
    await client.start_notify(TX, lambda _, value: told.append(bytes(value)))
    await gate.notify(b"listening")
    await client.stop_notify(TX)
    await gate.notify(b"not any more")
    await client.write_gatt_char(RX, b"", response=True)  # whatever was sent before this has arrived
    assert told == [b"listening"]


async def test_a_refusal_has_its_code_and_the_link_stays(gate, phone):
    client = await connected(phone, gate)
    gate.refuse(0x0D)
    with pytest.raises(BleakGATTProtocolError) as refused:
        await client.write_gatt_char(RX, b"no", response=True)
    assert refused.value.code == 0x0D
    gate.accept()
    await client.write_gatt_char(RX, b"yes", response=True)
    assert gate.written == [b"yes"]


async def test_what_a_characteristic_cannot_do_is_an_error(gate, phone):
    client = await connected(phone, gate)
    for forbidden in (
        client.write_gatt_char(TX, b"", response=True),
        client.write_gatt_char(TX, b"", response=False),
        client.start_notify(RX, lambda *_: None),
    ):
        with pytest.raises(BleakError):
            await forbidden


# ---- links that come about and are lost


async def test_the_caller_hears_of_a_lost_link_in_the_middle_of_a_write(radio, gate, phone):
    lost = asyncio.Event()
    client = await connected(phone, gate, disconnected_callback=lambda _: lost.set())
    with radio.tap() as tap:
        tap.hold_at(1)
        write = asyncio.ensure_future(client.write_gatt_char(RX, b"held", response=True))
        await tap.reached(1)
        assert radio.cut_link("phone", "gate") == 1
        with pytest.raises(BleakError):
            await write
    await lost.wait()
    assert not client.is_connected
    assert gate.written == []
    with pytest.raises(BleakError):
        await client.write_gatt_char(RX, b"late", response=True)


async def test_the_other_side_can_hang_up(gate, phone):
    lost = asyncio.Event()
    client = await connected(phone, gate, disconnected_callback=lambda _: lost.set())
    await gate.hang_up()
    await lost.wait()
    assert not client.is_connected


async def test_who_disconnects_can_connect_again_with_the_same_client(radio, gate, phone):
    client = await connected(phone, gate)
    await client.disconnect()
    assert not radio.links()
    await client.connect()
    assert radio.links() == {frozenset(("phone", "gate"))}


async def test_an_address_that_was_never_heard_is_not_found(gate, phone):
    client = BleakClient(BLEDevice("F0:00:00:00:00:00", None, {}), backend=phone.client_class)
    with pytest.raises(BleakDeviceNotFoundError):
        await client.connect()


async def test_who_is_out_of_range_cannot_be_connected_to_and_is_not_later(radio, gate, phone):
    client = BleakClient(await phone.find(gate.address), backend=phone.client_class)
    radio.walk_away("phone", "gate")
    with pytest.raises(TimeoutError):
        await client.connect(timeout=0.1)
    radio.come_back("phone", "gate")
    await phone.hear(gate.address)
    await phone.hear(gate.address)
    assert not radio.links()
    await client.connect()
    assert client.is_connected


async def test_an_attempt_that_was_given_up_leaves_nothing_behind(radio, gate, phone):
    """Whenever it is cancelled: while it waits for an advert, after it, while it asks for services."""
    device = await phone.find(gate.address)
    for turns in (0, 1, 2, 3, 5, 8, 13, 21):
        client = BleakClient(device, backend=phone.client_class)
        attempt = asyncio.ensure_future(client.connect())
        await phone.hear(gate.address)
        for _ in range(turns):
            await asyncio.sleep(0)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert not radio.links()
        assert phone.free_slots == 3
    await client.connect()


async def test_who_is_away_holds_up_nobody_else(radio, gate, phone):
    async with Peripheral(radio, "lobby") as lobby:
        absent = BleakClient(await phone.find(gate.address), backend=phone.client_class)
        radio.walk_away("phone", "gate")
        waiting = asyncio.ensure_future(absent.connect(timeout=60))
        began = time.monotonic()
        assert (await connected(phone, lobby)).is_connected
        assert time.monotonic() - began < 5
        waiting.cancel()


async def test_no_more_links_than_slots(radio, gate):
    async with Adapter(radio.device("small"), slots=1) as small, Peripheral(radio, "lobby") as lobby:
        first = await connected(small, gate)
        with pytest.raises(BleakError, match="connection slot"):
            await connected(small, lobby)
        await first.disconnect()
        assert (await connected(small, lobby)).is_connected


async def test_of_two_who_want_the_same_link_one_gets_it(radio, gate, phone):
    async with Adapter(radio.device("hallway")) as hallway:
        clients = [
            BleakClient(await adapter.find(gate.address), backend=adapter.client_class) for adapter in (phone, hallway)
        ]
        outcomes = await asyncio.gather(*(c.connect(timeout=0.3) for c in clients), return_exceptions=True)
        assert sorted(client.is_connected for client in clients) == [False, True]
        (failed,) = filter(None, outcomes)
        assert isinstance(failed, (BleakError, TimeoutError))
        assert len(radio.links()) == 1


# ---- what callers build on it


async def test_the_retry_connector_finds_its_cached_services(radio, gate, phone):
    """The goal is 15 ATT round trips for an unlock, 4 with cached handles, 1 on a kept connection."""
    device = await phone.find(gate.address)
    counted = []
    with phone.as_platform_backend():
        for _ in range(2):
            with radio.tap() as tap:
                client = await establish_connection(BleakClientWithServiceCache, device, "gate")
                await client.start_notify(TX, lambda *_: None)
                await client.write_gatt_char(RX, b"HS1", response=True)
                counted.append(tap.round_trips)
            with radio.tap() as tap:
                await client.write_gatt_char(RX, b"DATA", response=True)
                assert tap.round_trips == 1
            await client.disconnect()
        phone.forget_services()
        with radio.tap() as tap:
            client = await establish_connection(BleakClientWithServiceCache, device, "gate")
            assert tap.round_trips == counted[0] - 2
    assert counted == [14, 3]


async def test_code_that_does_not_know_uses_the_radio(gate, phone):
    with phone.as_platform_backend():
        await phone.hear(gate.address)
        device = await BleakScanner.find_device_by_filter(lambda _, told: SERVICE in told.service_data)
        async with BleakClient(device) as client:
            await client.write_gatt_char(RX, b"unknowing", response=True)
    assert gate.written == [b"unknowing"]


async def test_leaving_the_radio_ends_everything(gate, phone):
    client = await connected(phone, gate)
    gate.cut_power()
    with pytest.raises(BleakError):
        await client.write_gatt_char(RX, b"", response=True)
    with pytest.raises(TimeoutError):
        await client.connect(timeout=0.1)


async def test_an_adapter_that_is_pulled_out_loses_its_links(radio, gate, phone):
    lost = asyncio.Event()
    client = await connected(phone, gate, disconnected_callback=lambda _: lost.set())
    radio.cut_power("phone")
    await lost.wait()
    assert not client.is_connected
    await until(lambda: not gate.device.connections)


async def test_power_comes_back_under_the_same_address(radio: Radio, gate, phone):
    lost = asyncio.Event()
    client = await connected(phone, gate, disconnected_callback=lambda _: lost.set())
    gate.cut_power()
    async with Peripheral(radio, "gate", address=gate.address) as again:
        await lost.wait()
        await client.connect()
        await client.write_gatt_char(RX, b"back", response=True)
        assert again.written == [b"back"]
