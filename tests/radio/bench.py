"""The bench (tests/core/doorstrike/bench.py) on the radio: the real strike, and what is said to it goes over the air.

``RadioBench`` has the verbs of ``AnyBench``, so that the same tests run on both. Behind them are the strike's whole
program with a relay in memory, a controller and a Bluetooth stack for it and for each client, bleak, and an ether
without encryption, where somebody in the middle may read, change, keep, drop and invent whatever he likes. What this
module refuses to do: let time pass while packets are on their way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bleak import BleakClient
from bleak.backends.device import BLEDevice
from bleak.exc import BleakError

from tests.core.doorstrike.bench import STRIKE_ID, AnyBench, Wire
from vestibule_core.doorstrike.client import Client, Ended, Output, Paired, Write
from vestibule_core.doorstrike.device import Input
from vestibule_core.doorstrike.memory import Part
from vestibule_core.doorstrike.pairing import Label
from vestibule_core.doorstrike.peripheral import Peripheral
from vestibule_core.doorstrike.wire import RX, TX

from .ether import Radio
from .fragile import FragileGate
from .middle import Middle, Tap
from .virtual_radio.adapter import Adapter
from .virtual_time import RadioLoop

ATT_HEADER = 3


class Flash(MutableMapping[Part, bytes]):
    """The strike's disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, part: Part) -> bytes:
        try:
            return (self.folder / part).read_bytes()
        except FileNotFoundError:
            raise KeyError(part) from None

    def __setitem__(self, part: Part, contents: bytes) -> None:
        (self.folder / part).write_bytes(contents)

    def __delitem__(self, part: Part) -> None:
        (self.folder / part).unlink()

    def __iter__(self) -> Iterator[Part]:
        return (part for part in Part if (self.folder / part).exists())

    def __len__(self) -> int:
        return len(list(iter(self)))


class RadioBench(AnyBench):
    """A strike on a radio, and as many phones as are needed. ``virtual_time.of_the_strike`` comes before it."""

    def __init__(self, folder: Path, random: Callable[[int], bytes]) -> None:
        self.random = random
        self.label = Label.new(STRIKE_ID, random(12))
        self.loop = RadioLoop()
        self.failures: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        self.radio = Radio()
        self.gate = FragileGate(self.radio, folder)
        self.flash = Flash(folder / "state")
        self.flash.folder.mkdir(parents=True)
        (self.flash.folder / "label").write_text(self.label.qr)
        self.phones: list[Adapter] = []
        self.wires: dict[int, RadioWire] = {}
        self.connections = 0
        self.do(self.gate.power_up())

    def close(self) -> None:
        """Cut everybody's power; fail if anything went wrong that nobody noticed."""
        self.cut_power()
        self.do(self.radio.aclose())
        self.gate.check_releases()
        if tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(tasks))
        self.loop.close()
        assert self.failures == []

    def do[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Return what comes of ``work``, and leave nothing on its way."""
        result = self.loop.run_until_complete(work)
        self.run()
        return result

    def tell(self, what: Callable[..., object], *args: Any) -> None:
        """Call something that belongs into the loop, and let come of it what may."""
        self.loop.call_soon(what, *args)
        self.run()

    # ---- the strike ----

    def power_up(self) -> None:
        self.do(self.gate.cut_power())
        self.do(self.gate.power_up())

    def cut_power(self) -> None:
        self.do(self.gate.cut_power())

    def sense(self, what: Input) -> None:
        self.tell(self.gate.box.shell.sensed, what)

    @property
    def strike(self) -> Peripheral | None:
        return self.gate.machine

    @property
    def pulses(self) -> list[float]:
        assert len(self.gate.releases) == self.gate.pulses, "what the relay was told is what it did"
        return self.gate.releases

    @property
    def released(self) -> bool:
        return self.gate.is_released

    @property
    def effects_left(self) -> int | None:
        return self.gate.effects_left

    @effects_left.setter
    def effects_left(self, value: int | None) -> None:
        self.gate.effects_left = value

    # ---- time ----

    @property
    def now(self) -> float:
        return self.loop.time()

    @now.setter
    def now(self, value: float) -> None:
        self.loop.leap(value)

    def run(self) -> None:
        self.loop.settle()

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            self.run()
            dues = [wire.due for wire in self.wires.values()] + [self.gate.relay.due]
            dues.append(self.strike.due if self.strike else None)
            self.now = min([end, *(due for due in dues if due is not None)])
            self.run()
            for wire in list(self.wires.values()):
                wire.elapsed()
            if self.now >= end:
                self.run()
                return

    # ---- clients ----

    def connect(
        self, paired: Paired, size: int = 244, keep: bool = False, tap: Tap | None = None, subscribe: bool = True
    ) -> RadioWire:
        """Connect with a phone that has no connection, subscribe and deliver what comes: the HELLO."""
        return self.do(self._connect(paired, size, keep, tap, subscribe))

    async def _connect(self, paired: Paired, size: int, keep: bool, tap: Tap | None, subscribe: bool) -> RadioWire:
        phone = await self._free_phone()
        phone.mtu = size + ATT_HEADER
        lost = [lambda: None]
        device = BLEDevice(self.gate.address, None, {})
        bleak = BleakClient(device, lambda _: lost[0](), backend=phone.client_class)
        await bleak.connect(dangerous_use_bleak_cache=True)
        assert bleak.mtu_size == phone.mtu
        self.connections += 1
        client = Client(paired, size, self.random, self.now, keep=keep)
        wire = RadioWire(self, self.connections, client, size, phone, bleak)
        lost[0] = wire.lost
        wire.tap = tap or wire.tap
        self.wires[wire.number] = wire
        if subscribe:
            with suppress(BleakError):
                await bleak.start_notify(TX, lambda _, fragment: wire.hear(bytes(fragment)))
        return wire

    async def _free_phone(self) -> Adapter:
        for phone in self.phones:
            if not phone.taken:
                return phone
        phone = Adapter(self.radio.device(f"phone {len(self.phones)}"))
        await phone.start()
        await phone.hear(self.gate.address)
        self.phones.append(phone)
        return phone


class RadioWire(Wire):
    """One connection over the air: bleak on a phone, the client behind it, and whoever is in the middle."""

    def __init__(
        self, bench: RadioBench, number: int, client: Client, size: int, phone: Adapter, bleak: BleakClient
    ) -> None:
        super().__init__(bench, number, client, size)
        self.bleak = bleak
        self.phone = phone
        rx, tx = (bleak.services.get_characteristic(uuid).handle for uuid in (RX, TX))
        self.middle = Middle(bench.radio, phone, rx, tx)
        self.middle.tap = lambda to_strike, fragment: self.tap(to_strike, fragment)
        self.sent = self.middle.to_strike
        self._outbox: asyncio.Queue[Write] = asyncio.Queue()
        self._writer = bench.loop.create_task(self._write_all())

    async def _write_all(self) -> None:
        with suppress(BleakError):  # the link is gone
            while True:
                write = await self._outbox.get()
                await self.bleak.write_gatt_char(RX, write.fragment, response=write.with_response)

    def lost(self) -> None:
        """The link is gone, whoever ended it."""
        if self.bench.wires.pop(self.number, None) is not None:
            self.take(self.client.lost())
        self.middle.close()
        self._writer.cancel()

    def cut(self) -> None:
        self.bench.tell(self.bench.radio.cut_link, self.phone, "gate")

    def take(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Write():
                    self._outbox.put_nowait(output)
                case Ended():
                    self.news.append(output)
                    self.bench.wires.pop(self.number, None)
                    self.bench.loop.create_task(self.bleak.disconnect())
                case _:
                    self.news.append(output)

    def write(self, *fragments: bytes) -> list[bytes]:
        before = len(self.heard)
        for fragment in fragments:
            self._outbox.put_nowait(Write(fragment, with_response=fragment is fragments[-1]))
        self.bench.run()
        return self.heard[before:]

    # ---- somebody in the middle ----

    def hold(self) -> None:
        self.middle.hold()

    def release(self) -> list[bytes]:
        before = len(self.heard)
        self.bench.tell(self.middle.release)
        return self.heard[before:]

    def inject(self, *fragments: bytes) -> None:
        self.bench.tell(self.middle.inject, *fragments)
