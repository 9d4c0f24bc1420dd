"""The ether: what is counted, what is held, what is lost and who is out of range."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from bleak import BleakClient
from bleak.exc import BleakError
from bumble.att import Opcode

from .ether import Fate, Radio, Tap
from .peripheral import RX, TX, Peripheral
from .until import until
from .virtual_radio.adapter import Adapter

LAST = b"last fragment"


@pytest.fixture
async def client(gate: Peripheral, phone: Adapter) -> BleakClient:
    """A connection with its services learned and nothing said yet."""
    client = BleakClient(await phone.find(gate.address), backend=phone.client_class)
    await client.connect()
    return client


async def unlock(client: BleakClient) -> None:
    """Say what an unlock with cached handles says, as far as packets are concerned."""
    await client.connect(dangerous_use_bleak_cache=True)
    await client.start_notify(TX, lambda *_: None)
    await client.write_gatt_char(RX, b"first fragment", response=False)
    await client.write_gatt_char(RX, LAST, response=True)


# ---- counting


async def test_a_round_trip_is_a_request_with_its_answer(radio, gate, client):
    with radio.tap() as tap:
        await client.start_notify(TX, lambda *_: None)
        await client.write_gatt_char(RX, b"a command", response=False)
        await gate.notify(b"a notification")
        assert (tap.round_trips, len(tap.pdus)) == (1, 4)
        gate.refuse(0x80)
        with pytest.raises(BleakError):
            await client.write_gatt_char(RX, b"refused", response=True)
        assert tap.round_trips == 2
    await client.stop_notify(TX)
    assert len(tap.pdus) == 6, "It is over"
    assert [pdu.number for pdu in tap.pdus] == [1, 2, 3, 4, 5, 6]
    assert len(tap.sent(Opcode.ATT_WRITE_COMMAND)) == 1
    assert str(tap.pdus[2]) == "#3 phone > gate ATT_WRITE_COMMAND 1000" + b"a command".hex()


async def test_what_was_never_answered_is_no_round_trip(radio, client):
    with radio.tap() as tap:
        tap.cut_at(2)
        with pytest.raises(BleakError):
            await client.write_gatt_char(RX, b"", response=True)
    assert (tap.round_trips, len(tap.pdus)) == (0, 2)


async def test_a_tap_of_a_pair_sees_that_pair(radio, client, phone):
    async with Peripheral(radio, "lobby") as lobby:
        other = BleakClient(await phone.find(lobby.address), backend=phone.client_class)
        await other.connect()
        with radio.tap(phone, "lobby") as of_lobby, radio.tap() as of_all:
            await client.write_gatt_char(RX, b"", response=True)
            await other.write_gatt_char(RX, b"", response=True)
        assert (len(of_lobby.pdus), len(of_all.pdus)) == (2, 4)


# ---- meddling


@pytest.mark.parametrize("delivered", [False, True])
async def test_the_link_can_be_cut_at_every_packet_of_an_unlock(radio: Radio, gate, phone, client, delivered):
    gate.on_write = lambda value: value == LAST and asyncio.ensure_future(gate.notify(b"done"))
    await client.disconnect()
    with radio.tap() as whole:
        await unlock(client)
    await client.disconnect()
    reached = []
    for number in range(1, len(whole.pdus) + 1):
        gate.written.clear()
        with radio.tap() as tap:
            tap.cut_at(number, delivered=delivered)
            with suppress(BleakError):  # the last packets are not the client's to miss
                await unlock(client)
            await until(lambda: not (client.is_connected or gate.device.connections))
        assert tap.pdus == whole.pdus[:number], "Nothing gets through a link that was cut"
        reached.append(len(gate.written))
    # MTU asked and answered, CCCD asked and answered, command, request, answered and notified
    assert len(whole.pdus) == 8
    assert reached == ([0, 0, 0, 0, 1, 2, 2, 2] if delivered else [0, 0, 0, 0, 0, 1, 2, 2])


async def test_what_is_held_arrives_in_order_once_it_is_released(radio, gate, client):
    with radio.tap() as tap:
        tap.hold_at(1)
        await client.write_gatt_char(RX, b"1", response=False)
        answer = asyncio.ensure_future(client.write_gatt_char(RX, b"2", response=True))
        await tap.reached(2)
        await asyncio.sleep(0.01)
        assert gate.written == []
        tap.release()
        await answer
        assert gate.written == [b"1", b"2"]


async def test_what_is_held_when_the_link_is_lost_never_arrives(radio, gate, phone, client):
    with radio.tap() as tap:
        tap.hold_at(1)
        await client.write_gatt_char(RX, b"old", response=False)
        await tap.reached(1)
        radio.cut_link()
        await until(lambda: not client.is_connected)
        await client.connect()
        tap.release()
        await client.write_gatt_char(RX, b"new", response=True)
    assert gate.written == [b"new"]


async def test_what_is_dropped_is_never_answered(radio, gate, client):
    with radio.tap() as tap:
        tap.drop_at(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.write_gatt_char(RX, b"dropped", response=True), 0.05)
    assert gate.written == []
    assert client.is_connected


async def test_anything_else_can_be_decided(radio, gate, client):
    with radio.tap() as tap:
        tap.decide(lambda pdu: Fate.DROP if pdu.raw.endswith(b"evil") else Fate.DELIVER)
        for value in (b"good", b"evil", b"better"):
            await client.write_gatt_char(RX, value, response=False)
        await client.write_gatt_char(RX, b"", response=True)
    assert gate.written == [b"good", b"better", b""]


async def test_what_goes_on_can_be_rewritten_dropped_and_doubled(radio, gate, client):
    def rewritten(pdu):
        header, value = pdu.raw[:3], pdu.raw[3:]
        return {b"one": [header + b"another"], b"none": [], b"two": [pdu.raw, pdu.raw]}.get(value, [pdu.raw])

    with radio.tap() as tap:
        tap.rewrite(rewritten)
        for value in (b"one", b"none", b"two"):
            await client.write_gatt_char(RX, value, response=False)
        await client.write_gatt_char(RX, b"", response=True)
    assert gate.written == [b"another", b"two", b"two", b""]


async def test_what_is_held_is_rewritten_when_it_is_released(radio, gate, client):
    with radio.tap() as tap:
        tap.hold_at(1)
        tap.rewrite(lambda pdu: [pdu.raw[:3] + b"rewritten"])
        await client.write_gatt_char(RX, b"held", response=False)
        await tap.reached(1)
        tap.release()
        await until(lambda: gate.written)
    assert gate.written == [b"rewritten"]


async def test_a_notification_can_be_forged(radio, gate, phone, client):
    heard = []
    await client.start_notify(TX, lambda _, value: heard.append(bytes(value)))
    tx = client.services.get_characteristic(TX).handle.to_bytes(2, "little")
    radio.forge(gate, phone, bytes([Opcode.ATT_HANDLE_VALUE_NOTIFICATION]) + tx + b"never sent")
    await until(lambda: heard)
    assert heard == [b"never sent"]


# ---- range


async def test_who_walks_away_is_lost_to_both_sides(radio, gate, phone, client):
    radio.walk_away("gate", phone)
    await until(lambda: not (client.is_connected or gate.device.connections))
    assert not radio.links()
    radio.come_back("gate", phone)
    await client.connect()


async def test_who_walks_away_from_one_is_heard_by_the_others(radio, gate, phone):
    radio.walk_away(gate, phone)
    async with Adapter(radio.device("hallway")) as hallway:
        await hallway.hear(gate.address)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(phone.hear(gate.address), 0.05)


async def test_who_comes_back_in_time_has_missed_nothing(radio, gate, phone, client):
    radio.walk_away(gate, phone, supervision_timeout=60)
    write = asyncio.ensure_future(client.write_gatt_char(RX, b"patience", response=True))
    await asyncio.sleep(0.02)
    assert not write.done()
    assert client.is_connected
    radio.come_back(gate, phone)
    await write
    assert gate.written == [b"patience"]


async def test_who_comes_back_too_late_has_lost_the_link_and_what_was_sent(radio, gate, phone, client):
    radio.walk_away(gate, phone, supervision_timeout=0.02)
    with pytest.raises(BleakError):
        await client.write_gatt_char(RX, b"gone", response=True)
    radio.come_back(gate, phone)
    await client.connect()
    assert gate.written == []


async def test_who_hangs_up_out_of_range_is_missed_by_the_other_after_the_timeout(radio, gate, phone, client):
    radio.walk_away(gate, phone, supervision_timeout=0.02)
    await client.disconnect()
    assert gate.device.connections
    await until(lambda: not gate.device.connections)


async def test_a_name_is_taken_once(radio, gate):
    with pytest.raises(ValueError, match="gate"):
        radio.device("gate")


async def test_nobody_is_left_when_the_radio_is_gone():
    async with Radio() as radio:
        async with Peripheral(radio, "gate") as gate, Adapter(radio.device("phone")) as phone:
            async with BleakClient(await phone.find(gate.address), backend=phone.client_class):
                assert len(radio.links()) == 1
            assert not radio.links()
        assert not radio.is_on("gate")
    assert not radio.controllers


def test_a_tap_shows_what_it_saw():
    assert str(Tap()) == ""
