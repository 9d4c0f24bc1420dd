"""Home Assistant's own Bluetooth stack on the virtual radio: through two scanners, and through an ESPHome proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import bleak_retry_connector
import pytest
from bleak import BleakClient
from bleak.backends.device import BLEDevice
from bleak.exc import BleakError
from homeassistant.components import bluetooth
from homeassistant.const import EVENT_HOMEASSISTANT_STOP
from homeassistant.core import HomeAssistant

from tests.radio import virtual_radio
from tests.radio.ether import LOOPBACK, Radio
from tests.radio.peripheral import RX, SERVICE, TX, Peripheral
from tests.radio.until import until

pytestmark = pytest.mark.usefixtures("socket_enabled", "with_bluetooth")


@pytest.fixture
async def gate(radio: Radio) -> AsyncGenerator[Peripheral]:
    async with Peripheral(radio, "gate") as gate:
        yield gate


def seen(hass: HomeAssistant, address: str) -> BLEDevice | None:
    return bluetooth.async_ble_device_from_address(hass, address, connectable=True)


async def connect(hass: HomeAssistant, address: str) -> BleakClient:
    """Connect as an integration does.

    Home Assistant puts its own client in the place of bleak-retry-connector's while its Bluetooth stack is set up;
    who has imported it by its name before that has the plain one, which knows BlueZ only.
    """
    await until(lambda: seen(hass, address))
    device = seen(hass, address)
    assert device is not None
    client_class = bleak_retry_connector.BleakClientWithServiceCache
    return await bleak_retry_connector.establish_connection(client_class, device, "gate", max_attempts=1)


def by(radio: Radio) -> str:
    """Who has the link to the gate."""
    (pair,) = radio.links()
    return next(iter(pair - {"gate"}))


# ---- two scanners


async def test_home_assistant_hears_what_is_advertised(hass, radio, gate, scanners):
    await until(lambda: (info := bluetooth.async_last_service_info(hass, gate.address)) and info.service_uuids)
    info = bluetooth.async_last_service_info(hass, gate.address)
    assert info.service_data == {SERVICE: bytes.fromhex("01000000a1b2c3d4e5f6")}
    assert info.service_uuids == [SERVICE]
    assert (info.name, info.rssi, info.source) == ("gate", -45, scanners[0].address)


async def test_home_assistant_writes_and_is_told(hass, radio, gate, scanners):
    client, told = await connect(hass, gate.address), asyncio.Queue()
    await client.start_notify(TX, lambda _, value: told.put_nowait(bytes(value)))
    await client.write_gatt_char(RX, b"open", response=True)
    await gate.notify(b"opened")
    assert (gate.written, await told.get()) == ([b"open"], b"opened")
    await client.disconnect()


async def test_the_better_scanner_connects_and_the_other_when_it_has_no_slot(hass, radio, gate, scanners):
    hallway, _ = scanners
    hallway.slots = 1
    hallway.slots_changed()
    await until(lambda: len(bluetooth.async_scanner_devices_by_address(hass, gate.address, True)) == 2)
    client = await connect(hass, gate.address)
    assert by(radio) == "hallway"
    await client.disconnect()
    radio.walk_away("attic", "lobby")
    async with Peripheral(radio, "lobby") as lobby:
        other = await connect(hass, lobby.address)
        assert hallway.free_slots == 0
        client = await connect(hass, gate.address)
        assert {frozenset(("attic", "gate")), frozenset(("hallway", "lobby"))} == radio.links()
        await client.disconnect()
        await other.disconnect()


async def test_home_assistant_knows_why_it_cannot_connect(hass, radio, gate, scanners):
    for adapter in scanners:
        adapter.slots = 0
        adapter.slots_changed()
    await until(lambda: seen(hass, gate.address))
    reason = bluetooth.async_address_reachability_diagnostics(
        hass, gate.address, bluetooth.BluetoothReachabilityIntent.CONNECTION
    )
    assert "slot" in reason


async def test_a_link_lost_in_the_middle_of_a_write_is_a_bleak_error(hass, radio, gate, scanners):
    client = await connect(hass, gate.address)
    with radio.tap() as tap:
        tap.cut_at(1, delivered=True)
        with pytest.raises(BleakError):
            await client.write_gatt_char(RX, b"open", response=True)
    assert gate.written == [b"open"]
    assert not client.is_connected


async def test_cached_handles_save_round_trips_through_home_assistant(hass, radio, gate, scanners):
    counted = []
    for _ in range(2):
        with radio.tap() as tap:
            client = await connect(hass, gate.address)
            await client.start_notify(TX, lambda *_: None)
            await client.write_gatt_char(RX, b"HS1", response=True)
            counted.append(tap.round_trips)
        await client.disconnect()
    await connect(hass, gate.address)
    assert counted == [14, 3]


# ---- the integration for a live Home Assistant


async def test_the_integration_makes_scanners_of_ports(hass, radio, gate):
    port = await radio.open_port("hallway")
    one = {"transport": f"tcp-client:{LOOPBACK}:{port}", "name": "hallway", "address": "F0:CA:C0:01:00:01"}
    assert await virtual_radio.async_setup(hass, {"virtual_radio": [one]})
    client = await connect(hass, gate.address)
    await client.write_gatt_char(RX, b"open", response=True)
    assert (gate.written, by(radio)) == ([b"open"], "hallway")
    await client.disconnect()
    hass.bus.async_fire(EVENT_HOMEASSISTANT_STOP)
    await hass.async_block_till_done()
    await until(lambda: not radio.is_on("hallway"))


# ---- an ESPHome proxy


async def test_the_stock_integration_connects_through_the_proxy(hass, radio, gate, proxy):
    client, told = await connect(hass, gate.address), asyncio.Queue()
    assert by(radio) == "hallway"
    await client.start_notify(TX, lambda _, value: told.put_nowait(bytes(value)))
    await client.write_gatt_char(RX, b"open", response=True)
    await gate.notify(b"opened")
    assert (gate.written, await told.get()) == ([b"open"], b"opened")
    gate.refuse(0x0D)
    with pytest.raises(BleakError):
        await client.write_gatt_char(RX, b"no", response=True)
    await client.disconnect()
    assert not radio.links()


async def test_behind_the_proxy_a_write_may_take_an_earlier_ones_answer_for_its_own(hass, radio, gate, proxy):
    """The firmware confirms writes without response, too, and the client tells answers apart by their handle only."""
    client = await connect(hass, gate.address)
    gate.refuse(0x0D)
    with radio.tap() as tap:
        await client.write_gatt_char(RX, b"first fragment", response=False)
        await client.write_gatt_char(RX, b"last fragment", response=True)
        await tap.reached(3)
    assert [pdu.opcode.name for pdu in tap.pdus] == ["ATT_WRITE_COMMAND", "ATT_WRITE_REQUEST", "ATT_ERROR_RESPONSE"]
    await client.disconnect()


async def test_a_link_lost_behind_the_proxy_is_a_bleak_error(hass, radio, gate, proxy):
    client = await connect(hass, gate.address)
    with radio.tap() as tap:
        tap.cut_at(1)
        with pytest.raises(BleakError):
            await client.write_gatt_char(RX, b"open", response=True)
    assert gate.written == []
    await until(lambda: not client.is_connected)
