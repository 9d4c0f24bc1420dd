"""A process of its own with buildings that hold links to a carrier's cloud; started by carrier_cloud.Buildings.

``real``: controllers with journals on the disk and simulated strikes, behind the core's own link client. ``idle``: the
same client and real hellos, with nothing behind them. ``echo``: as many plain WebSockets to an echo server, which say a
word every 30 s. All come back after the same pauses.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from carrier.keys import KeyFolder
from tests.simulated import Carrier, SimulatedStrike, Site, some_doors
from vestibule_core import b64url
from vestibule_core.link.client import Link, pause
from vestibule_core.link.messages import Begin, Hello, Keys, LinkedDoor
from vestibule_core.link.standing import LinkState
from vestibule_core.model import Code, DoorId, Principal, Word, read_clock

from .carrier_cloud import CARRIER, HOME, controller_of

OPEN_FOR: Final = 0.5
"""Seconds for which a door stays released."""
SOURCES: Final = 64
"""Addresses from which idle links and echo clients come."""
WORD_EVERY: Final = 30.0


class AnyOf(AbstractResolver):
    """Several addresses behind one name, each time in another order."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = list(addresses)

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - aiohttp's
    ) -> list[ResolveResult]:
        random.shuffle(self._addresses)
        return [
            ResolveResult(hostname=host, host=each, port=port, family=socket.AF_INET, proto=0, flags=0)
            for each in self._addresses
        ]

    async def close(self) -> None: ...


class Building(Protocol):
    """What is connected, or tries to be."""

    @property
    def is_connected(self) -> bool: ...
    async def open(self) -> None: ...
    async def run(self) -> None: ...
    async def close(self) -> dict[str, Any]: ...


class Idle:
    """A link with nothing behind it (client.Host)."""

    def __init__(self, number: int, doors: int, session: aiohttp.ClientSession, where: str) -> None:
        self.number, self.key = number, controller_of(number)
        self.doors = some_doors(doors, f"house {number}")
        self.instance, self.version = os.urandom(16), 0
        self.link = Link(session, where, self)

    @property
    def is_connected(self) -> bool:
        return self.link.is_connected

    async def open(self) -> None: ...

    async def run(self) -> None:
        await self.link.run()

    async def close(self) -> dict[str, Any]:
        return {}

    def hello(self, begin: Begin) -> Hello:
        doors = tuple(LinkedDoor(door.id, "Door", "Europe/Berlin", *HOME) for door in self.doors)
        return Hello(self.key.verifier, begin.issuer, begin.nonce, self.instance, doors, self.version, None)

    async def challenge(self, door: DoorId) -> tuple[str, int]:  # noqa: ARG002
        raise AssertionError("nobody asks")

    async def present(self, token: str) -> tuple[Word, Code | None]:  # noqa: ARG002
        raise AssertionError("nobody asks")

    async def take_keys(self, keys: Keys) -> None:  # noqa: ARG002
        self.version = 1

    async def take_issued(self, text: str) -> None: ...


class Real(Idle):
    """A building whose doors open."""

    def __init__(
        self, number: int, doors: int, session: aiohttp.ClientSession, where: str, folder: Path, carrier: Carrier
    ) -> None:
        super().__init__(number, doors, session, where)
        trusted = Carrier("Parcels", self.doors)
        trusted.key = carrier.key
        self.site = Site(
            folder / f"journal-{number}.db",
            carriers=[trusted],
            access_time=OPEN_FOR,
            clock=read_clock,  # type: ignore[arg-type] # time passes here
            strikes={door.id: SimulatedStrike() for door in self.doors},
        )
        self.site.doors = tuple(type(door)(door.id, door.name, OPEN_FOR) for door in self.doors)
        self._accepted: list[tuple[bytes, DoorId]] = []
        self._upto = 0
        self._telling: set[asyncio.Task[None]] = set()
        self.link.subscribe(self._tell_again)

    async def open(self) -> None:
        await self.site.__aenter__()

    async def close(self) -> dict[str, Any]:
        await asyncio.gather(*self._telling)
        pulses = [pulse.spend_id.hex() for strike in self.site.strikes.values() for pulse in strike.pulses]
        await self.site.__aexit__()
        return {"spent": self.site.spent(), "pulses": pulses}

    async def challenge(self, door: DoorId) -> tuple[str, int]:
        return self.site.controller.challenge(door, CARRIER.issuer).nonce, 60

    async def present(self, token: str) -> tuple[Word, Code | None]:
        decision = await self.site.controller.present(token, Principal(CARRIER.issuer))
        telling = asyncio.get_running_loop().create_task(self._tell())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        return decision.code.word, decision.code

    async def _tell(self) -> None:
        """Tell of what was accepted since the last time."""
        read = await asyncio.wrap_future(self.site.journal.accepted(CARRIER.issuer, self._upto))
        if read.upto <= self._upto:
            return
        self._upto = read.upto
        for spend in read.spends:
            self._accepted.append(told := (b64url.decode(spend.jti.encode()), spend.door))
            self.link.accepted(*told, Code.GRANTED)

    def _tell_again(self) -> None:
        if self.link.is_connected:
            for told in self._accepted:
                self.link.accepted(*told, Code.GRANTED)


class Echo:
    """A plain WebSocket to the echo server."""

    def __init__(self, session: aiohttp.ClientSession, where: str) -> None:
        self._session, self._url, self.is_connected = session, f"ws://{where}/", False

    async def open(self) -> None: ...

    async def close(self) -> dict[str, Any]:
        return {}

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                async with self._session.ws_connect(self._url) as line:
                    failures, self.is_connected = 0, True
                    wait = random.uniform(0, WORD_EVERY)  # noqa: S311
                    while True:
                        try:
                            async with asyncio.timeout(wait):
                                if (await line.receive()).type is not aiohttp.WSMsgType.TEXT:
                                    break
                        except TimeoutError:
                            await line.send_str("x")
                            wait = WORD_EVERY
            except aiohttp.ClientError, OSError:
                pass
            self.is_connected = False
            await asyncio.sleep(pause(LinkState.UNREACHABLE, failures, random.random()))  # noqa: S311
            failures += 1


class World:
    """All buildings of this process."""

    def __init__(self) -> None:
        self.buildings: list[Building] = []
        self._running: list[asyncio.Task[None]] = []
        self._sessions: list[aiohttp.ClientSession] = []
        self._beginning: asyncio.Task[None] | None = None

    async def begin(self, setup: dict[str, Any]) -> None:
        kind, folder, where = setup["kind"], Path(setup["folder"]), setup["where"]
        self._sessions = [
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    resolver=AnyOf(setup["addresses"]),
                    use_dns_cache=False,
                    local_addr=(f"127.0.{1 + setup['first'] // 1000}.{1 + number}", 0),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            for number in range(SOURCES)
        ]
        carrier = Carrier("Parcels")
        if kind == "real":
            carrier.key = await KeyFolder(folder / "keys").signer(setup["kid"])
        for number in range(setup["first"], setup["first"] + setup["count"]):
            session = self._sessions[number % SOURCES]
            building: Building
            match kind:
                case "real":
                    building = Real(number, setup["doors"], session, where, folder, carrier)
                case "idle":
                    building = Idle(number, setup["doors"], session, where)
                case _:
                    building = Echo(session, where)
            self.buildings.append(building)
        self._beginning = asyncio.create_task(self._begin(setup["per_second"]))

    async def _begin(self, per_second: float) -> None:
        began = time.monotonic()
        for number, building in enumerate(self.buildings):
            await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
            await building.open()
            self._running.append(asyncio.create_task(building.run()))

    def connected(self) -> int:
        if self._beginning is not None and self._beginning.done():
            self._beginning.result()
        return sum(building.is_connected for building in self.buildings)

    async def end(self) -> list[dict[str, Any]]:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        told = [await building.close() for building in self.buildings]
        for session in self._sessions:
            await session.close()
        return told


async def main() -> None:
    world = World()
    while line := await asyncio.to_thread(sys.stdin.readline):
        said, answer = json.loads(line), dict[str, Any]()
        match said["verb"]:
            case "begin":
                await world.begin(said)
            case "connected":
                answer["connected"] = world.connected()
            case "end":
                answer["buildings"] = await world.end()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
