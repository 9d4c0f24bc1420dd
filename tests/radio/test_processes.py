"""A radio with more than one process on it, over TCP on loopback."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bleak import BleakClient
from bumble.device import Device, DeviceConfiguration
from bumble.hci import Address
from bumble.transport import open_transport

from .ether import LOOPBACK, Radio
from .peripheral import RX, TX, Peripheral
from .virtual_radio.adapter import Adapter

ROOT = Path(__file__).parent.parent.parent
ADDRESS = "F0:CA:C0:02:00:01"


@asynccontextmanager
async def process(module: str, *arguments: str) -> AsyncGenerator[Process]:
    """Run a module of this package, and kill it at the end."""
    command = [sys.executable, "-m", f"tests.radio.{module}", *arguments]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # or it is closed when the loop is, with a warning


async def said(process: Process) -> str:
    return (await process.stdout.readline()).decode().strip()


@asynccontextmanager
async def host(transport: str, name: str, address: str) -> AsyncGenerator[Device]:
    """A Bumble host in this process on a controller that is elsewhere."""
    async with await open_transport(transport) as (source, sink):
        config = DeviceConfiguration(name=name, address=Address(address))
        yield Device.from_config_with_hci(config, source, sink)


async def test_a_peripheral_lives_in_a_process_of_its_own_and_dies_with_it(radio: Radio, phone):
    port = await radio.open_port("gate")
    transport, lost, told = f"tcp-client:{LOOPBACK}:{port}", asyncio.Event(), asyncio.Queue()
    async with process("peripheral", transport, ADDRESS) as gate:
        assert await said(gate) == "ready"
        device = await phone.find(ADDRESS)
        client = BleakClient(device, lambda _: lost.set(), backend=phone.client_class)
        await client.connect()
        await client.start_notify(TX, lambda _, value: told.put_nowait(bytes(value)))
        await client.write_gatt_char(RX, b"hello", response=True)
        assert await said(gate) == "written 68656c6c6f"
        assert await told.get() == b"hello"
        gate.kill()
        await lost.wait()
        assert not radio.is_on("gate")
    # Power is back: the same port, a new controller, the same address.
    async with host(transport, "gate", ADDRESS) as device, Peripheral(device, "gate") as gate:
        await client.connect()
        await client.write_gatt_char(RX, b"again", response=True)
        assert gate.written == [b"again"]


async def test_a_radio_lives_in_a_process_of_its_own():
    async with process("hub", "gate=0", "hallway=0") as hub:
        ports = dict([(await said(hub)).split(), (await said(hub)).split()])
        assert await said(hub) == "ready"
        async with (
            host(ports["gate"], "gate", ADDRESS) as gate_device,
            host(ports["hallway"], "hallway", "F0:CA:C0:02:00:02") as hallway_device,
            Peripheral(gate_device, "gate") as gate,
            Adapter(hallway_device) as hallway,
            BleakClient(await hallway.find(ADDRESS), backend=hallway.client_class) as client,
        ):
            await client.write_gatt_char(RX, b"from afar", response=True)
            assert gate.written == [b"from afar"]
        hub.terminate()
        assert await hub.wait() == 0


async def test_a_port_is_one_controller_for_one_host(radio: Radio):
    port = await radio.open_port("gate")
    async with host(f"tcp-client:{LOOPBACK}:{port}", "gate", ADDRESS) as device, Peripheral(device, "gate"):
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        with suppress(ConnectionResetError):
            assert await reader.read() == b"", "turned away"
        writer.close()
        assert radio.is_on("gate")
