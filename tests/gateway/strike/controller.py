"""Who opens a strike: a plain bleak client with the client's end of the protocol behind it, and nothing else.

One ``Controller`` is one connection. What this module refuses to do: connect again, and decide what became of a command
that was not answered.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, Self

from bleak import BleakClient

from tests.radio.virtual_radio.adapter import Adapter
from vestibule_core.doorstrike import frames
from vestibule_core.doorstrike.client import Answered, Client, Ended, Greeted, Output, Paired, Told, Verified, Write
from vestibule_core.doorstrike.pairing import Label, slot_psk
from vestibule_core.doorstrike.wire import RX, TX, Command, Event, Op, Result, Rights, State

ATT_HEADER = 3


class Lost(Exception):
    """The connection ended before the answer. ``args[0]`` is the Ended."""


class Controller:
    """A connection to a strike. Use it in an ``async with``: it is greeted from then on."""

    def __init__(self, phone: Adapter, address: str, paired: Paired) -> None:
        self.phone, self.address, self.paired = phone, address, paired
        self.events: list[Event] = []
        self._news: asyncio.Queue[Output] = asyncio.Queue()
        self._bleak: BleakClient
        self._client: Client | None = None
        self._clock: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        device = await self.phone.find(self.address)
        self._bleak = BleakClient(device, lambda _: self._lost(), backend=self.phone.client_class)
        await self._bleak.connect()
        size = self._bleak.mtu_size - ATT_HEADER
        client = self._client = Client(self.paired, size, os.urandom, time.monotonic())
        self._clock = asyncio.create_task(self._keep_time(client))
        try:
            await self._bleak.start_notify(TX, lambda _, raw: self._take(client.notified(bytes(raw), time.monotonic())))
            await self._next(Greeted)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._clock is not None:
            self._clock.cancel()
        await self._bleak.disconnect()

    async def ask(self, op: Op, spend_id: bytes = bytes(16), pulse_cs: int = 50, body: bytes = b"") -> Answered:
        """Send a command and return the answer; raise Lost."""
        assert self._client is not None
        outputs = self._client.command(Command(op, pulse_cs, spend_id), time.monotonic(), body)
        await self._write(outputs)
        return await self._next(Answered)

    async def state(self, op: Op, spend_id: bytes = bytes(16), pulse_cs: int = 50) -> State:
        """Send a command; return the state that is answered."""
        return (await self.ask(op, spend_id, pulse_cs)).state

    async def all_events(self) -> list[Event]:
        """Fetch what the strike remembers of its past; a session is needed, and made."""
        await self.ask(Op.PING)
        found: list[Event] = []
        while True:
            start = found[-1].seq + 1 if found else 0
            more = frames.open_events((await self.ask(Op.EVENTS, body=frames.events_from(start))).body)
            if not more:
                return found
            found += more

    async def told(self, kind: int) -> Event:
        """Wait for an event of this kind."""
        async with asyncio.timeout(10):
            while not (found := [event for event in self.events if event.kind == kind]):  # noqa: ASYNC110 - a test's
                await asyncio.sleep(0.01)
        return found[-1]

    async def ended(self) -> Ended:
        """Wait for the end."""
        return await self._next(Ended)

    # ---- inside ----

    async def _next(self, kind: type[Any]) -> Any:
        async with asyncio.timeout(15):
            while not isinstance(news := await self._news.get(), kind):
                if isinstance(news, Ended):
                    raise Lost(news)
        return news

    def _take(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Told(event):
                    self.events.append(event)
                case Write():
                    raise AssertionError("nothing that is heard is answered at once")
                case Verified():
                    pass
                case _:
                    self._news.put_nowait(output)

    async def _write(self, outputs: list[Output]) -> None:
        for output in outputs:
            assert isinstance(output, Write)
            try:
                await self._bleak.write_gatt_char(RX, output.fragment, response=output.with_response)
            except Exception:
                # The strike's end may come before its response; what it says about that is in the news.
                if self._bleak.is_connected:
                    raise

    def _lost(self) -> None:
        if self._client is not None:
            self._take(self._client.lost())

    async def _keep_time(self, client: Client) -> None:
        while (due := client.due) is not None:
            await asyncio.sleep(max(0.01, min(0.1, due - time.monotonic())))
            outputs = client.elapsed(time.monotonic())
            if outputs and isinstance(outputs[0], Write):
                await self._write(outputs)
            else:
                self._take(outputs)


async def pair(phone: Adapter, address: str, label: Label, name: str = "Home") -> Paired:
    """Pair with a strike whose window is open, and prove the new slot once; raise Lost."""
    async with Controller(phone, address, Paired(label.strike_id, 0, label.psk)) as caller:
        await caller.ask(Op.QUERY)
        rand_c = os.urandom(32)
        answer = await caller.ask(Op.SLOT_ADD, body=frames.SlotAdd(name, rand_c).encode())
        assert answer.state.result is Result.OK
        added = frames.SlotAdded.parse(answer.body)
    paired = Paired(label.strike_id, added.slot, slot_psk(label.strike_id, added.slot, rand_c, added.rand_s))
    async with Controller(phone, address, paired) as caller:
        await caller.ask(Op.PING)
    return paired


async def grant(phone: Adapter, address: str, admin: Paired, slot: int, rights: Rights) -> Result:
    """Give a slot these rights."""
    async with Controller(phone, address, admin) as caller:
        await caller.ask(Op.PING)
        return (await caller.ask(Op.SLOT_RIGHTS, body=frames.SlotRights(slot, rights).encode())).state.result
