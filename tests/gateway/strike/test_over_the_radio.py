"""A strike and its controllers over the virtual radio, in one process. A row is one of the protocol's attacks."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from bumble.core import UUID, AdvertisingData

from gateway.strike import air
from tests.radio.until import until
from vestibule_core.doorstrike import keyring, spending
from vestibule_core.doorstrike.client import Ending, Paired
from vestibule_core.doorstrike.pairing import Label
from vestibule_core.doorstrike.wire import (
    SERVICE,
    Advertisement,
    Contact,
    EventKind,
    Flags,
    Op,
    Relay,
    Result,
    Rights,
    SpendState,
)

from .controller import Controller, Lost, grant, pair
from .strikes import Gate

SPEND, ANOTHER = bytes(range(16)), bytes(range(16, 32))


async def advertised(phone, gate) -> Advertisement:
    raw = (await phone.hear(gate.address)).data_bytes
    assert len(raw) == 31
    assert raw[:5] == b"\x02\x01\x06\x1b\x21", "flags, then service data, exactly full"
    return Advertisement.parse(raw[-10:])


@pytest.fixture
async def paired(gate, phone) -> Paired:
    gate.hold_button()
    return await pair(phone, gate.address, gate.label)


async def test_it_is_found_paired_and_opened(gate, phone):
    gate.hold_button()
    paired = await pair(phone, gate.address, gate.label)
    async with Controller(phone, gate.address, paired) as caller:
        state = await caller.state(Op.UNLOCK, SPEND)
        assert (state.result, state.relay, state.spend_state) == (Result.OK, Relay.PULSING, SpendState.RELAY_ON)
        assert (await caller.told(EventKind.RELAY_ON)).spend_id == SPEND
        assert (await caller.told(EventKind.RELAY_OFF)).spend_id == SPEND
        state = await caller.state(Op.QUERY, SPEND)
        assert (state.relay, state.spend_state) == (Relay.LOCKED, SpendState.COMPLETE)
    assert gate.pulses == 1


async def test_its_advertisement_follows_what_happens(gate, phone):
    first = await advertised(phone, gate)
    assert first.flags == Flags.FACTORY | Flags.ATTENTION
    assert first.strike == gate.label.strike_id[:6]
    gate.hold_button()
    async with asyncio.timeout(5):
        while (seen := await advertised(phone, gate)).evt_seq == first.evt_seq:
            pass
    assert seen.flags == Flags.FACTORY | Flags.ATTENTION | Flags.PAIRING
    await pair(phone, gate.address, gate.label)
    async with asyncio.timeout(5):
        while Flags.PAIRING in (seen := await advertised(phone, gate)).flags:
            pass
    assert Flags.FACTORY not in seen.flags


async def test_its_scan_response_says_its_service_and_name(gate, phone):
    responses: asyncio.Queue[Any] = asyncio.Queue()
    stop = phone.listen(lambda heard: responses.put_nowait(heard) if heard.is_scan_response else None)
    heard = await responses.get()
    stop()
    assert heard.data.get(AdvertisingData.Type.COMPLETE_LOCAL_NAME) == "Gate"
    assert heard.data.get(AdvertisingData.Type.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS) == [UUID(SERVICE)]


def test_a_long_name_is_cut_between_two_characters():
    response = AdvertisingData.from_bytes(air.scan_response("Tür zum Garten"))
    assert len(bytes(response)) <= 31
    assert response.get(AdvertisingData.Type.SHORTENED_LOCAL_NAME) == "Tür zum Ga"
    assert len(air.scan_response("ééééééé")) == 30, "the sixth one would be cut in two"


async def test_it_stays_on_the_air_while_a_connection_is_kept(gate, phone, paired, radio):
    async with Controller(phone, gate.address, paired) as caller:
        await caller.ask(Op.PING)
        assert await advertised(phone, gate)
        gate.hold_button()
        await caller.told(EventKind.PAIRING_OPENED)
        async with asyncio.timeout(5):
            while Flags.PAIRING not in (await advertised(phone, gate)).flags:
                pass


async def test_two_controllers_are_connected_at_the_same_time_and_both_hear(gate, phone, paired, radio):
    from tests.radio.virtual_radio.adapter import Adapter

    gate.hold_button()
    async with Adapter(radio.device("tablet")) as tablet:
        other = await pair(tablet, gate.address, gate.label, "Office")
        assert await grant(phone, gate.address, paired, other.slot, Rights.MANUAL | Rights.EVENTS) is Result.OK
        async with Controller(phone, gate.address, paired) as one, Controller(tablet, gate.address, other) as two:
            await one.ask(Op.PING)
            await two.ask(Op.PING)
            assert (await two.state(Op.UNLOCK, SPEND)).result is Result.OK
            assert (await one.told(EventKind.RELAY_OFF)) == (await two.told(EventKind.RELAY_OFF))
            assert (await one.state(Op.UNLOCK, SPEND)).result is Result.DUPLICATE
    assert gate.pulses == 1


async def test_what_happened_meanwhile_is_told_later_in_order(gate, phone, paired):
    for line in ("contact closed", "contact open", "contact closed", "exit"):
        gate.sense(line)
    async with Controller(phone, gate.address, paired) as caller:
        events = await caller.all_events()
        assert (await caller.state(Op.QUERY)).contact is Contact.CLOSED
    kinds = [event.kind for event in events]
    assert kinds[:2] == [EventKind.BOOT, EventKind.PAIRING_OPENED]
    assert kinds[-3:] == [EventKind.OPENED, EventKind.CLOSED, EventKind.REX]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_a_small_mtu_is_enough(gate, radio):
    from tests.radio.virtual_radio.adapter import Adapter

    async with Adapter(radio.device("old phone"), mtu=23) as old:
        gate.hold_button()
        paired = await pair(old, gate.address, gate.label)
        async with Controller(old, gate.address, paired) as caller:
            assert (await caller.state(Op.UNLOCK, SPEND)).result is Result.OK
            assert len(await caller.all_events()) > 3


async def test_row_56_a_pulse_is_capped_and_ends_although_its_controller_is_gone(gate, phone, paired, radio):
    async with Controller(phone, gate.address, paired) as caller:
        assert (await caller.state(Op.UNLOCK, SPEND, 65535)).result is Result.OK
        assert gate.box.shell._relay._output.read() is True
        radio.walk_away("phone", "gate")
        await until(lambda: len(gate.moves) == 3)
    _, (_, on), (_, off) = gate.moves
    assert off - on == pytest.approx(gate.config.longest, abs=0.1)


async def test_row_56_a_pulse_ends_in_time_although_the_event_loop_is_stuck(gate, phone, paired):
    async with Controller(phone, gate.address, paired) as caller:
        await caller.ask(Op.UNLOCK, SPEND)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            pass
        _, (_, on), (_, off) = gate.moves
        assert off - on == pytest.approx(0.5, abs=0.1)


async def test_row_57_pairing_needs_the_button(gate, phone):
    with pytest.raises(Lost) as lost:
        await pair(phone, gate.address, gate.label)
    assert lost.value.args[0].ending is Ending.REFUSED


async def test_row_57_wrong_codes_do_not_shut_out_the_right_one(gate, phone):
    gate.hold_button()
    for number in range(20):
        with pytest.raises(Lost):
            await pair(phone, gate.address, Label.new(gate.label.strike_id, bytes([number]) * 12))
    await pair(phone, gate.address, gate.label)
    assert gate.pulses == 0


async def test_row_57_the_right_code_after_the_window_does_not_pair(gate, phone, monkeypatch):
    monkeypatch.setattr(keyring, "PAIRING_TIME", 0.2)
    gate.hold_button()
    await asyncio.sleep(0.3)
    with pytest.raises(Lost):
        await pair(phone, gate.address, gate.label)


async def test_row_71_button_and_code_on_a_paired_strike_give_a_slot_without_rights(gate, phone, paired):
    gate.hold_button()
    intruder = await pair(phone, gate.address, gate.label, "intruder")
    await gate.cut_power()
    await gate.power_up()
    async with Controller(phone, gate.address, intruder) as caller:
        assert (await caller.state(Op.UNLOCK, SPEND)).result is Result.RIGHTS
        assert (await caller.state(Op.SLOT_RIGHTS)).result is Result.RIGHTS
    async with Controller(phone, gate.address, paired) as owner:
        events = await owner.all_events()
    kinds = [event.kind for event in events]
    assert kinds.count(EventKind.PAIRING_OPENED) == 2
    assert [event.value for event in events if event.kind == EventKind.SLOT_ADDED] == [paired.slot, intruder.slot]
    assert gate.pulses == 0


async def test_row_80_a_torn_ring_locks_out_and_then_opens_again(gate, phone, paired, monkeypatch):
    log = gate.folder / "state" / "log"
    await gate.cut_power()
    log.write_bytes(log.read_bytes()[:-20])
    monkeypatch.setattr(spending, "LOCKOUT_TIME", 1.0)
    await gate.power_up()
    async with Controller(phone, gate.address, paired) as caller:
        assert (await caller.state(Op.UNLOCK, SPEND)).result is Result.LOCKOUT
        assert gate.pulses == 0
        await asyncio.sleep(1.0)
        assert (await caller.state(Op.UNLOCK, SPEND)).result is Result.OK


async def test_a_pulse_is_not_begun_if_the_disk_does_not_take_the_spend(gate, phone, paired, monkeypatch):
    """Every link is ended, and it starts anew from what the disk holds."""
    broken = OSError(5, "Input/output error")

    def fail(*_):
        raise broken

    async with Controller(phone, gate.address, paired) as caller:
        await caller.ask(Op.PING)
        with monkeypatch.context() as patch:
            patch.setattr("vestibule_core.durable.os.fsync", fail)
            with pytest.raises(Lost) as lost:
                await caller.ask(Op.UNLOCK, SPEND)
        assert lost.value.args[0].ending is Ending.LINK_LOST
    await asyncio.sleep(0.1)
    async with Controller(phone, gate.address, paired) as again:  # it is not on the air before it works again
        assert (await again.state(Op.QUERY, SPEND)).spend_state is SpendState.UNSEEN
        assert gate.pulses == 0
        assert (await again.state(Op.UNLOCK, SPEND)).result is Result.OK
    assert gate.pulses == 1


async def test_a_disk_that_fails_during_a_pulse_locks_the_door(radio, phone, tmp_path, monkeypatch):
    async with Gate(radio, tmp_path, longest=10.0) as gate:
        gate.hold_button()
        paired = await pair(phone, gate.address, gate.label)
        async with Controller(phone, gate.address, paired) as caller:
            assert (await caller.state(Op.UNLOCK, SPEND, 1000)).relay is Relay.PULSING

            def fail(*_):
                raise OSError(28, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr("vestibule_core.durable.os.fsync", fail)
                gate.sense("exit")
            assert [word for word, _ in gate.moves] == ["off", "on", "off"]


async def test_a_relay_that_does_not_move_is_told_and_not_tried_again(gate, phone, paired, monkeypatch):
    output = gate.box.shell._relay._output

    def jam(on):
        if on:
            raise OSError(110, "no answer")

    monkeypatch.setattr(output, "write", jam)
    async with Controller(phone, gate.address, paired) as caller:
        assert (await caller.state(Op.UNLOCK, SPEND)).result is Result.RELAY_FAULT
        monkeypatch.undo()
        assert (await caller.state(Op.UNLOCK, SPEND)).result is Result.RELAY_FAULT
        assert (await caller.state(Op.UNLOCK, ANOTHER)).result is Result.OK
    assert gate.pulses == 1


async def test_a_strike_that_can_be_held_is_held_until_it_is_relocked(radio, phone, tmp_path):
    async with Gate(radio, tmp_path, hold=True) as gate:
        gate.hold_button()
        paired = await pair(phone, gate.address, gate.label)
        async with Controller(phone, gate.address, paired) as caller:
            assert (await caller.state(Op.HOLD, SPEND)).relay is Relay.HELD
            await asyncio.sleep(0.7)
            assert (await caller.state(Op.RELOCK)).relay is Relay.LOCKED
        assert [word for word, _ in gate.moves] == ["off", "on", "off"]


async def test_a_strike_that_cannot_be_held_is_not(gate, phone, paired):
    async with Controller(phone, gate.address, paired) as caller:
        assert (await caller.state(Op.HOLD, SPEND)).result is Result.BAD_OP
    assert gate.pulses == 0


async def test_a_stranger_who_says_nothing_is_let_go(gate, phone, monkeypatch):
    from bleak import BleakClient

    from vestibule_core.doorstrike import peripheral

    monkeypatch.setattr(peripheral, "SUBSCRIBE_TIME", 0.3)
    gone = asyncio.Event()
    client = BleakClient(await phone.find(gate.address), lambda _: gone.set(), backend=phone.client_class)
    await client.connect()
    assert {service.uuid for service in client.services} >= {SERVICE}
    async with asyncio.timeout(5):
        await gone.wait()
    await advertised(phone, gate)


async def test_a_wrong_key_gets_the_same_refusal_as_an_unknown_slot(gate, phone, paired):
    for stranger in (replace(paired, psk=bytes(32)), replace(paired, slot=7)):
        async with Controller(phone, gate.address, stranger) as caller:
            with pytest.raises(Lost) as lost:
                await caller.ask(Op.UNLOCK, SPEND)
            assert lost.value.args[0].ending is Ending.REFUSED
    assert gate.pulses == 0


async def test_a_factory_reset_forgets_every_controller_and_keeps_the_label(gate, phone, paired):
    label = gate.label
    gate.sense("button 10")
    async with Controller(phone, gate.address, paired) as caller:
        with pytest.raises(Lost):
            await caller.ask(Op.UNLOCK, SPEND)
    assert gate.label == label
    gate.hold_button()
    again = await pair(phone, gate.address, label)
    async with Controller(phone, gate.address, again) as caller:
        assert (await caller.state(Op.UNLOCK, SPEND)).result is Result.OK


async def test_an_operating_systems_pairing_is_refused(gate, phone):
    from bumble.core import ProtocolError

    await phone.hear(gate.address)
    link = await phone.connect(gate.address, 5)
    with pytest.raises(ProtocolError):
        async with asyncio.timeout(5):
            await link.pair()
    await link.disconnect()
