"""Callers who have gone: a door is not opened for nobody, however late their request is read."""

import asyncio
import json
import signal

import pytest

from gateway import limits
from tests.gateway.at_work import ANN, Gateway, raw_connection
from tests.gateway.process import gateway_process, network, write_config
from vestibule_core.api import client
from vestibule_core.api.messages import Operation
from vestibule_core.model import Actor, Code, EventName


@pytest.fixture
async def gateway(tmp_path):
    """A gateway with one door, which can be held open."""
    async with Gateway(tmp_path, device_timed=False) as gateway:
        yield gateway


async def hang_up_behind(gateway, caller, what, body, how):
    """Ask, and be gone before the gateway has read it: what one loop does in one go, the other end finds at once."""
    said = json.dumps(body)
    async with raw_connection(gateway) as (_, writer):
        writer.write(
            f"POST /v1/doors/{gateway.door.id}/{what} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {caller.token}\r\nContent-Length: {len(said)}\r\n\r\n{said}".encode()
        )
        getattr(writer.transport, how)()


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("do", ["access", "hold"])
async def test_a_door_is_not_opened_by_hand_for_who_has_hung_up(gateway, admin, do, how):
    await hang_up_behind(gateway, admin, "operate", {"do": do, "actor": ANN, "ref": None}, how)
    (denied,) = await gateway.told(EventName.ACCESS_DENIED)
    assert (denied.code, denied.door) == (Code.LATE, gateway.door.id)
    assert (gateway.pulses, gateway.controller.state(gateway.door.id).mode) == (0, "normal")
    assert (await admin.operate(gateway.door, do)).json == {"code": "GRANTED"}, "who waits is let in"


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_token_is_not_spent_for_who_has_hung_up(gateway, open_for, carrier, how):
    token = carrier.token(await open_for.challenge(gateway.door, carrier))
    await hang_up_behind(gateway, open_for, "unlock", {"token": token}, how)
    (denied,) = await gateway.told(EventName.ACCESS_DENIED)
    assert (denied.code, gateway.pulses) == (Code.LATE, 0)
    assert await open_for.code(gateway.door, token) == "GRANTED"


async def test_what_shuts_a_door_is_done_for_who_has_hung_up(gateway, admin):
    await hang_up_behind(gateway, admin, "operate", {"do": "block", "actor": ANN, "ref": None}, "abort")
    await gateway.told(EventName.DOOR_BLOCKED)


async def test_a_gateway_that_stood_still_opens_nothing_for_who_gave_up_meanwhile(tmp_path):
    """A machine that was suspended, or too busy: the click is in its socket, and behind it that nobody waits."""
    ann = Actor("1", "Ann", is_admin=True)
    async with network() as session, gateway_process(write_config(tmp_path)) as gateway:
        asking = gateway.client(session, await gateway.pair(session))
        gate, yard = [each.door.id for each in (await asking.doors()).doors]  # the connection is kept
        gateway.running.process.send_signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asking.operate(gate, Operation.ACCESS, ann)
        gateway.running.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(10):
            while not (await asking.events(1)).events:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
        (denied,) = (await asking.events(1)).events
        assert (denied.outcome, denied.code, denied.door) == (EventName.ACCESS_DENIED, Code.LATE, gate)
        assert await asking.operate(yard, Operation.ACCESS, ann) is Code.GRANTED
        await gateway.moved("2 off")
        assert gateway.movements == ["2 on", "2 off"]


def test_a_kept_connection_ends_before_a_command_on_it_is_given_up():
    """Else one that the network held back could still be read from it, after "unknown" was said and nobody waits."""
    assert limits.IDLE <= client.COMMAND_DEADLINE
