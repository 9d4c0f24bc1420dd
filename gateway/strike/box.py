"""All of a box put together, from its configuration to the air.

The order is what matters here. At the start: the relay's output first of all, since what a process before this one left
on is off from then on; then the state folder, the machine with what the disk holds, and only at last the radio and the
inputs. At the end: the relay first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass

from bumble.core import BaseBumbleError
from bumble.device import Device, DeviceConfiguration
from bumble.hci import Address
from bumble.transport import open_transport

from vestibule_core.doorstrike.pairing import Label

from . import gpio
from .air import BumbleAir, address_of
from .config import INPUTS, Config, MemoryRelay
from .inputs import Switches, caps, read_simulated
from .label import find_label
from .relay import MemoryOutput, Output
from .shell import Shell
from .store import Store


class NoController(Exception):
    """There is no Bluetooth controller where the configuration says, or it does not answer."""


@dataclass(frozen=True, slots=True)
class Box:
    """A strike at work."""

    label: Label
    new: bool
    """This is its first start: nobody has seen the label yet."""
    address: str
    shell: Shell
    gone: asyncio.Future[None]
    """Done when its Bluetooth controller is not there any more."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A Bluetooth controller that can be used."""

    device: Device
    """Not powered on."""
    gone: asyncio.Future[None]
    """Done when the controller is not there any more."""


type Reach = Callable[[str], AbstractAsyncContextManager[Reached]]
"""Reaches a controller, for a device with this address; raises NoController."""


@asynccontextmanager
async def at_work(config: Config, reach: Reach) -> AsyncGenerator[Box]:
    """Be a strike for as long as the ``async with`` lasts.

    Raises StoreFailed, StoreInUse, LineError, NoController, OSError.
    """
    async with AsyncExitStack() as stack:
        output = stack.enter_context(closing(_relay(config)))
        light = None if config.light is None else stack.enter_context(closing(gpio.GpioOutput(config.light)))
        store = stack.enter_context(closing(Store.open(config.state)))
        label, new = find_label(store)
        address = address_of(label.strike_id)
        reached = await stack.enter_async_context(reach(address))
        air = BumbleAir(reached.device, config.name)
        stack.push_async_callback(lambda: air.stop(lost=reached.gone.done()))
        limits = {"shortest": config.shortest, "longest": config.longest}
        shell = stack.enter_context(closing(Shell(label, caps(config), store, output, air, light=light, **limits)))
        shell.power_up()
        try:
            await air.start(shell)
        except (BaseBumbleError, TimeoutError) as err:
            raise NoController(f"the Bluetooth controller does not work: {err or 'no answer'}") from err
        _start_inputs(config, shell, stack)
        yield Box(label, new, address, shell, reached.gone)


def _relay(config: Config) -> Output:
    if isinstance(config.relay, MemoryRelay):
        return MemoryOutput(config.relay.log)
    return gpio.GpioOutput(config.relay)


def _start_inputs(config: Config, shell: Shell, stack: AsyncExitStack) -> None:
    loop = asyncio.get_running_loop()
    if config.simulated_inputs:
        reading = loop.create_task(read_simulated(shell.sensed))
        stack.callback(reading.cancel)
        return
    lines = {name: line for name in INPUTS if (line := getattr(config, name)) is not None}
    if lines:
        switches = Switches(shell.sensed)
        inputs = gpio.GpioInputs(lines, switches.told)
        stack.callback(switches.close)
        stack.callback(inputs.close, loop.remove_reader)
        inputs.start(loop.add_reader)


def controller(config: Config) -> Reach:
    """Return what reaches the Bluetooth controller of a configuration."""

    @asynccontextmanager
    async def reach(address: str) -> AsyncGenerator[Reached]:
        try:
            transport = await open_transport(config.transport)
        except Exception as err:  # whatever libusb, pyserial or a socket raise; all of it says the same
            raise NoController(f'there is no Bluetooth controller at "{config.transport}": {err}') from err
        async with transport:
            device = DeviceConfiguration(name=config.name, address=Address(address))
            yield Reached(
                Device.from_config_with_hci(device, transport.source, transport.sink), transport.source.terminated
            )

    return reach
