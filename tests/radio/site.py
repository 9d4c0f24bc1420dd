"""A strike, the driver that opens it, and the radio between them: all that there is of a door over Bluetooth.

``Site`` is used in an ``async with``, in a test that is ``in_radio_time``: there minutes pass at once. What this module
refuses to do: stand in for anything but the relay, which is one in memory.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Self

from bleak import BleakClient
from bleak.backends.device import BLEDevice
from bleak.exc import BleakError

from gateway.ble import BleakRadio
from tests.core.doorstrike.live import clock, in_no_time
from vestibule_core.doorstrike.driver import BleStrike, Kept, StrikeEvent
from vestibule_core.doorstrike.pairing_session import pair
from vestibule_core.doorstrike.wire import RX, TX, Advertisement, EventKind
from vestibule_core.errors import OutcomeUnknown, StrikeRefused, StrikeUnreachable
from vestibule_core.strike import Pulse

from .ether import Radio
from .fragile import FragileGate
from .middle import Middle
from .virtual_radio.adapter import LARGEST_MTU, Adapter
from .virtual_time import RadioLoop

in_radio_time = functools.partial(in_no_time, loop_factory=RadioLoop)
"""Runs an asynchronous test on a RadioLoop."""


def a_pulse(seconds: float = 0.5) -> Pulse:
    """Return one that nobody has heard of."""
    return Pulse(os.urandom(16), seconds)


async def until(happened: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Let time pass until ``happened()`` is true. Raises TimeoutError after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not happened():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.01)


class Site:
    """A strike that was paired over the radio, and its driver.

    ``gate`` is the strike, ``phone`` the adapter with which ``strike``, the driver, reaches it; ``kept`` is what the
    driver remembers, ``events`` what it told of.
    """

    def __init__(self, folder: Path, *, keep: bool = False, mtu: int = LARGEST_MTU) -> None:
        self.radio = Radio()
        self.phone = Adapter(self.radio.device("phone"), mtu=mtu)
        self.gate = FragileGate(self.radio, folder)
        self.keep = keep
        self.events: list[StrikeEvent] = []
        self.kept: Kept
        self.strike: BleStrike
        self._stack = AsyncExitStack()
        self._others = 0

    async def __aenter__(self) -> Self:
        for thing in (self.radio, self.gate, self.phone):
            await self._stack.enter_async_context(thing)
        await self.phone.hear(self.gate.address)
        self.bleak = BleakRadio(BLEDevice(self.gate.address, None, {}), backend=self.phone.client_class)
        self.gate.hold_button()
        self.kept = await pair(self.bleak, self.gate.label, "Home", window_open=True, clock=clock)
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.strike.close()
        await self._stack.aclose()
        self.gate.check_releases()

    # ---- the driver ----

    async def start(self) -> None:
        """Start the driver with what is remembered; with a kept connection it has one from then on."""
        self.strike = BleStrike(self.bleak, self.kept, keep_connected=self.keep, remember=self._remember, clock=clock)
        self.strike.on_event(self.events.append)
        if self.keep:
            await until(lambda: self.strike.state)

    async def restart(self) -> None:
        """The program ends and starts again with what it remembered."""
        await self.strike.close()
        await self.start()

    def _remember(self, kept: Kept) -> None:
        self.kept = Kept.from_json(json.loads(json.dumps(kept.to_json())))

    async def open(self, pulse: Pulse, strike: BleStrike | None = None) -> bool | None:
        """Return whether the driver says that the bolt was released by it; None: it does not know."""
        strike = strike or self.strike
        try:
            await strike.reach()
            await strike.release(pulse)
        except StrikeUnreachable, StrikeRefused:
            return False
        except OutcomeUnknown:
            return None
        return True

    async def closed(self) -> None:
        """Wait until the pulse is over and the driver knows it."""
        await until(lambda: self.strike.reading == "secured" and (self.keep or self.idle))

    def pass_time(self, seconds: float) -> None:
        """Be so much later, at once."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, RadioLoop)
        loop.leap(loop.time() + seconds)

    async def advertised(self) -> Advertisement:
        """Let the driver hear the strike once, and return what it heard."""
        advertisement = Advertisement.parse((await self.phone.hear(self.gate.address)).data_bytes[-10:])
        self.strike.seen(advertisement)
        return advertisement

    @property
    def pulses(self) -> int:
        """How often the relay was switched on."""
        return self.gate.pulses

    @property
    def idle(self) -> bool:
        return not self.radio.links()

    def told(self, pulse: Pulse) -> int:
        """How often the driver has told that the relay was switched on for this pulse."""
        return sum(e.event.kind == EventKind.RELAY_ON and e.event.spend_id == pulse.spend_id for e in self.events)

    # ---- others on the radio ----

    def middle(self) -> Middle:
        """Return somebody between the phone and the strike; the phone has been connected before."""
        characteristics = {
            one.uuid: one.handle
            for service in self.phone.services_cache[self.gate.address]
            for one in service.characteristics
        }
        return Middle(self.radio, self.phone, characteristics[RX], characteristics[TX])

    async def another_phone(self) -> Adapter:
        """Return one that has heard the strike."""
        self._others += 1
        phone = Adapter(self.radio.device(f"another phone {self._others}"))
        await self._stack.enter_async_context(phone)
        await phone.hear(self.gate.address)
        return phone

    async def another_driver(self, kept: Kept | None = None) -> BleStrike:
        """Return another controller's driver, with a phone of its own; it was restored from the same backup, or is
        another client of the strike.
        """
        phone = await self.another_phone()
        bleak = BleakRadio(BLEDevice(self.gate.address, None, {}), backend=phone.client_class)
        if kept is None:
            await asyncio.sleep(1.0)  # one attempt to pair in a second
            self.gate.hold_button()
            kept = await pair(bleak, self.gate.label, "Other", window_open=True, clock=clock)
        strike = BleStrike(bleak, kept, keep_connected=False, remember=lambda _: None, clock=clock)
        self._stack.push_async_callback(strike.close)
        return strike

    async def write_as_a_stranger(self, fragments: Sequence[bytes]) -> list[bytes]:
        """Connect with a program of one's own, write these to RX, and return what was notified, HELLO first."""
        phone = await self.another_phone()
        heard: list[bytes] = []
        async with BleakClient(self.gate.address, backend=phone.client_class) as client:
            await client.start_notify(TX, lambda _, fragment: heard.append(bytes(fragment)))
            await asyncio.sleep(0.01)
            with suppress(BleakError):  # it hangs up
                for fragment in fragments:
                    await client.write_gatt_char(RX, fragment, response=fragment is fragments[-1])
            await asyncio.sleep(0.01)
        return heard
