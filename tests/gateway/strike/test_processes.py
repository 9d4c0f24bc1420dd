"""A strike in a process of its own, as a person starts it: what it says, and what survives its death at any point."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from vestibule_core.doorstrike.memory import Part, decode_log, decode_slots
from vestibule_core.doorstrike.outcome import Outcome, queried
from vestibule_core.doorstrike.wire import Contact, EventKind, Op, Relay, Result, SpendState

from .controller import Controller, Lost, pair
from .strikes import GateProcess


def spend(number: int) -> bytes:
    return hashlib.sha256(bytes([number])).digest()[:16]


async def test_it_is_paired_opened_ended_and_started_again(gate_process: GateProcess, phone):
    gate = gate_process
    await gate.hold_button()
    paired = await pair(phone, gate.address, gate.label)
    await gate.sense("contact closed")
    async with Controller(phone, gate.address, paired) as caller:
        assert (await caller.state(Op.UNLOCK, spend(1))).result is Result.OK
        await caller.told(EventKind.RELAY_OFF)
    assert await gate.stop() == 0
    assert [word for word, _ in gate.moves] == ["off", "on", "off", "off"], "at power-up and at its end, too"
    await gate.start()
    async with Controller(phone, gate.address, paired) as caller:
        state = await caller.state(Op.UNLOCK, spend(1))
        assert (state.result, state.spend_state) == (Result.DUPLICATE, SpendState.COMPLETE)
        assert state.contact is Contact.UNKNOWN, "the switches of a trial say nothing before they are told to"
        await gate.sense("contact open")
        await asyncio.sleep(0.1)
        assert (await caller.state(Op.QUERY)).contact is Contact.OPEN
    assert gate.pulses == 1


async def test_its_log_and_its_files_keep_the_code_to_themselves(gate_process: GateProcess, phone):
    gate = gate_process
    assert any("--label" in line for line in gate.said), "the first start says how to see it"
    await gate.hold_button()
    paired = await pair(phone, gate.address, gate.label)
    async with Controller(phone, gate.address, paired) as caller:
        await caller.ask(Op.UNLOCK, spend(1))
    said = "\n".join(gate.said)
    for secret in (gate.label.code, gate.label.grouped, paired.psk.hex(), gate.label.psk.hex()):
        assert secret not in said
    assert not any("--label" in line for line in gate.said[2:])
    state = gate.folder / "state"
    assert state.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in state.iterdir()} == dict.fromkeys(
        ["label", "lock", "log", "slots"], 0o600
    )


async def test_a_second_process_cannot_be_the_same_strike(gate_process: GateProcess, radio):
    second = GateProcess(gate_process.folder, await radio.open_port("second"))
    with pytest.raises(AssertionError, match="in use by another process"):
        await second.start()
    assert await second.gone() == 2


async def test_it_ends_when_its_bluetooth_controller_is_gone(gate_process: GateProcess, radio):
    for port in list(radio._ports):
        port.hang_up()
    assert await gate_process.gone() == 2
    assert "the Bluetooth controller is gone" in gate_process.said[-1]


async def test_row_74_power_lost_between_the_ring_and_the_relay_is_unknown_and_never_done(mortal: GateProcess, phone):
    await mortal.hold_button()
    paired = await pair(phone, mortal.address, mortal.label)
    async with Controller(phone, mortal.address, paired) as caller:
        heard = (await caller.state(Op.PING)).evt_seq
        mortal.die_at(2)  # the ring's write is points 0 and 1
        with pytest.raises(Lost):
            await caller.ask(Op.UNLOCK, spend(1))
    assert spends(mortal) == {spend(1): SpendState.RECORDED}
    await mortal.gone()
    await mortal.start()
    async with Controller(phone, mortal.address, paired) as caller:
        state = await caller.state(Op.QUERY, spend(1))
        assert (state.result, state.spend_state, state.relay) == (Result.OK, SpendState.RECORDED, Relay.LOCKED)
        events = await caller.all_events()
        assert queried(state, sent_ago=10, events=events, heard=heard) is Outcome.UNKNOWN
        assert (await caller.state(Op.UNLOCK, spend(1))).result is Result.DUPLICATE
    assert mortal.pulses == 0


@pytest.mark.timeout(180)
async def test_killed_before_and_in_every_effect_of_an_unlock(radio, phone, tmp_path):
    """SIGKILL at each boundary: nothing moves at the next start, the ring is whole, and no spend moves the bolt twice.

    The points are walked through one after the other, until one comes that lies behind the end of the pulse. Two
    strikes share them, as a strike mostly waits.
    """
    async with AsyncExitStack() as power, asyncio.TaskGroup() as group:
        walks = []
        for first in (0, 1):
            folder = tmp_path / str(first)
            folder.mkdir()
            gate = GateProcess(folder, await radio.open_port(f"gate {first}"), mortal=True)
            await power.enter_async_context(gate)
            walks.append(group.create_task(killed_at_each(range(first, 40, 2), gate, phone)))
    assert {death for walk in walks for death in walk.result()} == {
        (False, 0),
        (True, 0),
        (True, 1),
    }, "killed before the record, between the record and the relay, and after the relay"


async def killed_at_each(points: range, gate: GateProcess, phone) -> list[tuple[bool, int]]:
    """Kill a strike at these points, up to one that it outlives; return what each death left: a record, a move."""
    await gate.hold_button()
    paired = await pair(phone, gate.address, gate.label)
    deaths = []
    for number, point in enumerate(points, 1):
        spend_id, before = spend(number), gate.pulses
        gate.die_at(point)
        answer = await unlock_until_death(gate, phone, paired, spend_id)
        if gate.process.returncode is None and answer is not None:
            break
        await gate.gone()
        moved = gate.pulses - before
        known = spend_id in spends(gate)
        assert moved <= known, f"killed at {point}: it moved without a record"
        gate.die_at(None)
        await gate.start()
        assert gate.pulses == before + moved, f"killed at {point}: it moved at power-up"
        async with Controller(phone, gate.address, paired) as caller:
            state = await caller.state(Op.UNLOCK, spend_id)
            assert state.result is (Result.DUPLICATE if known else Result.OK), f"killed at {point}"
            if not known:
                await caller.told(EventKind.RELAY_OFF)
            for earlier in range(1, number + 1):
                assert (await caller.state(Op.QUERY, spend(earlier))).spend_state is not SpendState.UNSEEN
        assert gate.pulses == before + max(moved, not known), f"killed at {point}: a second pulse"
        deaths.append((known, moved))
    else:
        pytest.fail("it never lived through an unlock")
    assert len(decode_log((gate.folder / "state" / Part.LOG).read_bytes()).spends.spends) == number
    assert len(decode_slots((gate.folder / "state" / Part.SLOTS).read_bytes()).slots) == 1
    return deaths


async def unlock_until_death(gate: GateProcess, phone, paired, spend_id: bytes) -> object:
    """Unlock and stay until the pulse is over; None if it died first."""
    try:
        async with Controller(phone, gate.address, paired) as caller:
            answer = await caller.ask(Op.UNLOCK, spend_id)
            ended = asyncio.create_task(caller.ended())
            over = asyncio.create_task(caller.told(EventKind.RELAY_OFF))
            await asyncio.wait([ended, over], return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            over.cancel()
            return None if ended.done() and not ended.cancelled() else answer
    except Lost:
        return None


def spends(gate: GateProcess) -> dict[bytes, SpendState]:
    """Return the spends on its disk."""
    log = decode_log(Path(gate.folder / "state" / Part.LOG).read_bytes())
    return {spend.spend_id: spend.progress.told for spend in log.spends.spends}
