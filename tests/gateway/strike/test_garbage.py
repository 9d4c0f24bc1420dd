"""Bytes that no Bluetooth stack sends, below the protocol: they end nothing but their own link."""

from __future__ import annotations

import asyncio
import random

import pytest
from bumble.att import ATT_CID
from bumble.l2cap import L2CAP_LE_SIGNALING_CID
from bumble.smp import SMP_CID

from vestibule_core.doorstrike.wire import Op, Result

from .controller import Controller, pair


@pytest.mark.parametrize("channel", [ATT_CID, L2CAP_LE_SIGNALING_CID, SMP_CID, 0x40, 0x00])
async def test_garbage_on_a_channel_of_the_link_ends_nothing_else(gate, phone, channel):
    gate.hold_button()
    paired = await pair(phone, gate.address, gate.label)
    await phone.hear(gate.address)
    link = await phone.connect(gate.address, 5)
    chance = random.Random(channel)
    for _ in range(300):
        phone.device.send_l2cap_pdu(link.handle, channel, chance.randbytes(chance.choice([0, 1, 2, 3, 5, 9, 30])))
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    await link.disconnect()
    async with Controller(phone, gate.address, paired) as caller:
        assert (await caller.state(Op.UNLOCK, bytes(range(16)))).result is Result.OK
    assert not gate.box.shell.failed.done()
    assert not gate.box.gone.done()
    assert gate.pulses == 1


async def test_garbage_over_a_real_transport_does_not_end_the_process(gate_process, phone):
    await gate_process.hold_button()
    paired = await pair(phone, gate_process.address, gate_process.label)
    await phone.hear(gate_process.address)
    link = await phone.connect(gate_process.address, 5)
    chance = random.Random(1)
    for channel in (ATT_CID, L2CAP_LE_SIGNALING_CID, SMP_CID, 0x40):
        for _ in range(100):
            phone.device.send_l2cap_pdu(link.handle, channel, chance.randbytes(chance.choice([0, 1, 2, 3, 5, 9, 30])))
            await asyncio.sleep(0)
    await asyncio.sleep(0.3)
    await link.disconnect()
    async with Controller(phone, gate_process.address, paired) as caller:
        assert (await caller.state(Op.UNLOCK, bytes(range(16)))).result is Result.OK
    assert gate_process.process.returncode is None
