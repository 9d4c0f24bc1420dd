"""The simulated Shelly before the library by which Home Assistant drives real ones, and before aiohttp's own digest."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aioshelly.common import ConnectionOptions
from aioshelly.exceptions import InvalidAuthError, MacAddressMismatchError, RpcCallError
from aioshelly.rpc_device import RpcDevice, RpcUpdateType

from .boards import until
from .shelly_unit import FIRMWARE_1, FIRMWARE_2, ID, LOOPBACK, NOT_FOUND, PASSWORD, ShellyUnit

MAC = "A8032AB12345"


@pytest.fixture(params=[FIRMWARE_2, FIRMWARE_1])
async def unit(request):
    async with ShellyUnit(firmware=request.param) as unit:
        yield unit


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as session:
        yield session


async def device_of(session, unit, password=PASSWORD, mac=MAC):
    options = ConnectionOptions(LOOPBACK, "admin", password, device_mac=mac, port=unit.port)
    return await RpcDevice.create(session, None, options)


async def test_it_is_read_switched_and_heard_with_its_password(unit, session):
    device = await device_of(session, unit)
    await device.initialize()
    heard = []
    device.subscribe_updates(lambda _, kind: heard.append(kind))
    try:
        assert (device.hostname, device.gen, device.requires_auth) == (ID, 2, True)
        assert device.status["switch:0"]["output"] is False
        assert device.config["switch:1"]["in_mode"] == "detached"
        assert await device.call_rpc("Switch.Set", {"id": 0, "on": True, "toggle_after": 0.1}) == {"was_on": False}
        await until(lambda: device.status["switch:0"]["output"] is True)
        await until(lambda: device.status["switch:0"]["output"] is False)
        unit.press(2)
        await until(lambda: device.status["input:1"]["state"] is True)
        assert set(heard) == {RpcUpdateType.STATUS}
        assert unit.movements == [1, 0]
    finally:
        await device.shutdown()


async def test_it_refuses_a_wrong_password(unit, session):
    device = await device_of(session, unit, password="guess")
    with pytest.raises(InvalidAuthError):
        await device.initialize()
    assert unit.methods.count("Shelly.GetConfig") == 2


async def test_it_says_who_it_is(unit, session):
    device = await device_of(session, unit, mac="A8032AB99999")
    with pytest.raises(MacAddressMismatchError):
        await device.initialize()


async def test_it_says_no_to_a_switch_that_it_does_not_have(unit, session):
    device = await device_of(session, unit)
    await device.initialize()
    with pytest.raises(RpcCallError) as raised:
        await device.call_rpc("Switch.Set", {"id": 7, "on": True})
    assert raised.value.code == NOT_FOUND
    await device.shutdown()


async def test_a_challenge_that_ran_out_is_replaced_without_an_error(unit, session):
    device = await device_of(session, unit)
    await device.initialize()
    unit.forget_challenges()
    await device.call_rpc("Shelly.GetStatus")
    await device.shutdown()


async def test_a_restart_ends_the_connection(unit, session):
    device = await device_of(session, unit)
    await device.initialize()
    await unit.restart()
    await until(lambda: not device.connected)
    await device.shutdown()


async def test_it_is_commanded_over_http_with_a_digest(unit):
    async with aiohttp.ClientSession(middlewares=(aiohttp.DigestAuthMiddleware("admin", PASSWORD),)) as session:
        frame = {"id": 1, "method": "Switch.Set", "params": {"id": 1, "on": True}}
        async with session.post(f"http://{LOOPBACK}:{unit.port}/rpc", json=frame) as answer:
            assert await answer.json() == {"id": 1, "src": ID, "result": {"was_on": False}}
        async with session.get(f"http://{LOOPBACK}:{unit.port}/rpc/Shelly.GetStatus") as answer:
            assert (await answer.json())["switch:1"]["output"] is True
    assert unit.relays == [False, True]


async def test_over_http_a_wrong_password_and_none_move_nothing(unit, session):
    url = f"http://{LOOPBACK}:{unit.port}/rpc"
    frame = {"id": 1, "method": "Switch.Set", "params": {"id": 0, "on": True}}
    async with session.post(url, json=frame) as answer:
        assert answer.status == 401
    async with (
        aiohttp.ClientSession(middlewares=(aiohttp.DigestAuthMiddleware("admin", "guess"),)) as guessing,
        guessing.post(url, json=frame) as answer,
    ):
        assert answer.status == 401
    assert unit.movements == [0, 0]


@pytest.mark.parametrize("initial_state, after", [("off", False), ("on", True), ("restore_last", True)])
async def test_a_relay_is_after_a_restart_as_it_is_set(unit, initial_state, after):
    unit.output_config[0]["initial_state"] = initial_state
    unit.operate(1, True)
    await unit.cut_power()
    await asyncio.sleep(0)
    await unit.restore_power()
    assert unit.relays[0] is after
