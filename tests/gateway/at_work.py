"""A gateway at work on loopback: its API over real TLS, a real controller and journal, and strikes made of software.

``Gateway`` serves what gateway/app.py serves, with doors and clocks in a test's hands. ``Caller`` is a program that
speaks to it, with a bearer or without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from gateway import tls
from gateway.carriers import Carriers
from gateway.clients import Clients
from gateway.links import Links
from gateway.pairing import Window
from gateway.policy import PolicyDesk, approve
from gateway.server import Front
from gateway.stream import Stream
from gateway.witness import Witness
from tests.simulated import IDENTITY, Carrier, Clock, SimulatedStrike, open_journal, some_doors
from vestibule_core.api import messages, pairing
from vestibule_core.api.messages import Admission, DoorDescription, GatewayId, NextCertificate, new_gateway_id
from vestibule_core.api.policy import POLICY, Policy
from vestibule_core.controller import Controller
from vestibule_core.intake import Intake
from vestibule_core.journal import Journal
from vestibule_core.model import AccessEvent, Door, DoorId, EventName, Now

GATEWAY_ID = new_gateway_id(bytes(range(16)))
ANN = {"user_id": "ann-1", "name": "Ann", "admin": True}
BOB = {"user_id": "bob-1", "name": "Bob", "admin": False}


@dataclass(frozen=True, slots=True)
class Said:
    """An answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """A program on the network; ``token``: its bearer, if it has one."""

    def __init__(
        self, session: aiohttp.ClientSession, base: str, fingerprint: bytes, admission: Admission | None
    ) -> None:
        self.session, self.base, self.admission = session, base, admission
        self.pin = aiohttp.Fingerprint(fingerprint)

    @property
    def token(self) -> str | None:
        return self.admission.token if self.admission else None

    @property
    def id(self) -> str:
        assert self.admission is not None
        return self.admission.client_id

    def headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        own = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return {**own, **(more or {})}

    async def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Said:
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        asking = self.session.request(
            method, self.base + path, data=raw, headers=self.headers(headers), ssl=self.pin, **more
        )
        async with asyncio.timeout(20), asking as response:
            return Said(response.status, await response.read(), response.headers)

    async def get(self, path: str, **more: Any) -> Said:
        return await self.ask("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Said:
        return await self.ask("POST", path, body, **more)

    async def put(self, path: str, body: Any = None, **more: Any) -> Said:
        return await self.ask("PUT", path, body, **more)

    # ---- what is asked often ----

    async def challenge(self, door: Door, carrier: Carrier) -> str:
        said = await self.post(f"/v1/doors/{door.id}/challenge", {"iss": carrier.issuer})
        assert said.status == 200, said
        return str(said.json["non"])

    async def unlock(self, door: Door, token: object, **more: Any) -> Said:
        return await self.post(f"/v1/doors/{door.id}/unlock", {"token": token, **more})

    async def code(self, door: Door, token: object, **more: Any) -> str | None:
        """Present a token and return the code that comes back."""
        said = await self.unlock(door, token, **more)
        assert said.status == 200, said
        return said.json["code"] or said.json["word"]

    async def operate(self, door: Door, do: str, actor: Mapping[str, Any] = ANN, ref: str | None = None) -> Said:
        return await self.post(f"/v1/doors/{door.id}/operate", {"do": do, "actor": actor, "ref": ref})

    async def lockdown(self, on: bool, actor: Mapping[str, Any] = ANN) -> Said:
        return await self.put("/v1/lockdown", {"on": on, "actor": actor, "ref": None})

    @contextlib.asynccontextmanager
    async def stream(self, after: int = 0) -> AsyncIterator[Frames]:
        async with self.session.ws_connect(
            f"{self.base}/v1/stream?after={after}", headers=self.headers(), ssl=self.pin, max_msg_size=0
        ) as socket:
            yield Frames(socket)


class Frames:
    """What comes in on a stream."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.seen: list[Any] = []

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            message = await self.socket.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, message
        messages.FRAME.decode(message.data.encode())  # it is one that a client can read
        self.seen.append(json.loads(message.data))
        return self.seen[-1]

    async def until(self, condition: Callable[[Any], bool]) -> Any:
        while not condition(frame := await self.next()):
            pass
        return frame

    async def event(self, outcome: EventName | None = None) -> Any:
        frame = await self.until(
            lambda frame: frame["type"] == "event" and outcome in (None, frame["event"]["outcome"])
        )
        return frame["event"]

    async def closed(self) -> None:
        """Return when the gateway has ended it."""
        async with asyncio.timeout(10):
            while (await self.socket.receive()).type is aiohttp.WSMsgType.TEXT:
                pass

    @property
    def numbers(self) -> list[int]:
        return [frame["event"]["seq"] for frame in self.seen if frame["type"] == "event"]


class Gateway:
    """A gateway with simulated doors. Use it with ``async with``; ``reopen`` is a restart of the program."""

    def __init__(
        self,
        folder: Path,
        *,
        doors: int = 1,
        clock: Callable[[], Now] | None = None,
        setup: Mapping[str, Any] | None = None,
        strikes: dict[DoorId, SimulatedStrike] | None = None,
        device_timed: bool = True,
        host: str = "127.0.0.1",
    ) -> None:
        self.folder, self.host = folder, host
        self.clock: Any = clock or Clock()
        self.id: GatewayId = GATEWAY_ID
        self.name, self.version = "Parcel room", "0.0"
        self.hosts = frozenset({"gateway.local"})
        self.key = IDENTITY.verifier
        self.next: NextCertificate | None = None
        self.positions: dict[DoorId, tuple[float, float]] = {}
        self.all_doors = tuple(
            Door(**{name: getattr(door, name) for name in Door.__slots__} | {"access_time": 60.0} | dict(setup or {}))
            for door in some_doors(doors)
        )
        self.strikes = strikes or {door.id: SimulatedStrike(device_timed=device_timed) for door in self.all_doors}
        self.intake = Intake()
        self.events: list[AccessEvent] = []
        self._sessions: list[aiohttp.ClientSession] = []
        self.journal: Journal
        self.controller: Controller
        self.front: Front

    async def __aenter__(self) -> Self:
        self.journal = await asyncio.to_thread(open_journal, self.folder / "journal.db")
        self.certificate = await asyncio.to_thread(tls.keep, self.folder / "tls.pem", self.id)
        self.controller = Controller(self.journal, tell=self._tell, clock=self.clock)
        notes = self.journal.notes()
        self.clients = Clients(self.journal, notes, clock=self.clock)
        self.policy = PolicyDesk(
            self.journal,
            notes,
            clock=self.clock,
            is_trusted=lambda: self.clients.registry.trusted,
            changed=self._policy_changed,
        )
        self.carriers = Carriers(
            self.journal,
            notes,
            clock=self.clock,
            policy=lambda: self.policy.carriers,
            changed=self._policy_changed,
        )
        self.witness = Witness(self.journal, notes, IDENTITY, self.clock)
        self.window = Window(self.id, self.certificate.fingerprint, clock=self.clock)
        self.stream = Stream(self)
        self.links = Links(self, self.positions, lambda: self.policy.effective.zone, chance=lambda: 0.0)
        self.controller.start(self.policy.building(self.all_doors, self.carriers.applied), self.strikes)
        self._unsubscribe = [
            self.controller.subscribe(door.id, lambda _, door=door.id: self.stream.door_changed(door))  # type: ignore[misc]
            for door in self.all_doors
        ]
        self.front = await Front.open(self, self.certificate.context(), self.host)
        await self.links.start()
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in self._sessions:
            await session.close()
        await self.links.stop()
        await self.front.close()
        await self.controller.stop()
        await asyncio.to_thread(self.journal.close)
        for strike in self.strikes.values():
            await strike.aclose()

    def reopen(self) -> Gateway:
        again = Gateway(self.folder, clock=self.clock, strikes=self.strikes)
        again.all_doors = self.all_doors
        return again

    # ---- the edge, as the API sees it ----

    def doors(self) -> Sequence[DoorDescription]:
        return [
            DoorDescription(door, "simulated", self.strikes[door.id].capabilities, True, self.controller.state(door.id))
            for door in self.all_doors
        ]

    def _tell(self, event: AccessEvent) -> None:
        self.events.append(event)
        self.stream.publish(event)
        self.links.happened(event)

    def _policy_changed(self) -> None:
        self.controller.apply(self.policy.building(self.all_doors, self.carriers.applied), self.strikes)
        self.stream.building_changed()
        self.links.refresh()

    # ---- who is there ----

    @property
    def door(self) -> Door:
        return self.all_doors[0]

    @property
    def strike(self) -> SimulatedStrike:
        return self.strikes[self.door.id]

    @property
    def pulses(self) -> int:
        return sum(len(strike.pulses) for strike in self.strikes.values())

    @property
    def outcomes(self) -> list[EventName]:
        return [event.outcome for event in self.events]

    def caller(self, admission: Admission | None = None) -> Caller:
        """Return somebody on the network: a stranger, or whoever was paired."""
        self._sessions.append(session := aiohttp.ClientSession())
        return Caller(session, f"https://127.0.0.1:{self.front.port}", self.certificate.fingerprint, admission)

    async def pair(self, name: str = "Home Assistant", *, replaces: bool = False, trusts: bool = False) -> Caller:
        """Pair a program the way it is done, and return it."""
        code = self.window.open(replaces=replaces, trusts=trusts)
        stranger = self.caller()
        info = messages.INFO.decode((await stranger.get("/v1/info")).body)
        assert info.pair_nonce is not None
        applicant = pairing.Applicant(
            pairing.read_code(code), info.id, info.pair_nonce, self.certificate.fingerprint, os.urandom(32)
        )
        said = await stranger.post("/v1/pair", applicant.first(name))
        assert said.status == 200, said
        self.pass_time(1)
        return self.caller(applicant.second(said.body))

    async def allow(self, admin: Caller, *carriers: Carrier, zone: str = "UTC") -> None:
        """Let carriers in, at every door unless they have some of their own; somebody presses the button."""
        for carrier in carriers:
            carrier.doors = carrier.doors or self.all_doors
        said = await admin.put("/v1/policy", put_request(self.policy.version, carriers, zone))
        assert said.status == 200, said
        await approve(self.policy, self.clients)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, if a test has the clock in its hands."""
        if isinstance(self.clock, Clock):
            self.clock.advance(seconds)

    async def told(self, outcome: EventName, times: int = 1) -> list[AccessEvent]:
        async with asyncio.timeout(10):
            while len(found := [event for event in self.events if event.outcome == outcome]) < times:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return found


class Disk:
    """The disk under a journal that is open: it can be told to wait, or to fail."""

    def __init__(self, journal: Journal) -> None:
        self._db = journal._writer.db
        self._may_go_on = threading.Event()
        self._may_go_on.set()
        self.fails = False
        journal._writer.db = self  # type: ignore[assignment]

    def stall(self) -> None:
        """No commit ends from now on."""
        self._may_go_on.clear()

    def go_on(self) -> None:
        """Commits end again."""
        self._may_go_on.set()

    def execute(self, sql: str, *parameters: Any) -> Any:
        if sql == "COMMIT":
            self._may_go_on.wait(10)
            if self.fails:
                raise sqlite3.OperationalError("disk I/O error")
        return self._db.execute(sql, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def policy_of(carriers: Iterable[Carrier], zone: str = "UTC") -> Policy:
    return Policy(zone, tuple(carrier.admitted for carrier in carriers))


def put_request(base: int, carriers: Iterable[Carrier], zone: str = "UTC") -> dict[str, Any]:
    return {"base": base, "version": base + 1, "policy": POLICY.write(policy_of(carriers, zone))}


def trusting_context() -> ssl.SSLContext:
    """Return what takes whatever certificate it meets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextlib.asynccontextmanager
async def raw_connection(
    gateway: Gateway, *, source: str = "127.0.0.1", handshake: bool = True
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect as something does that speaks no proper HTTP, from an address of its own."""
    context = trusting_context() if handshake else None
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", gateway.front.port, ssl=context, local_addr=(source, 0), family=socket.AF_INET
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
