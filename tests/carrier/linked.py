"""A carrier's cloud and buildings that hold real links to it: sockets, a database, controllers with simulated strikes.

``Wire`` is the way between them: the one address that buildings know, behind which a replica can be put, changed and
cut off. ``Replica`` is one of the cloud's programs on a ``Town``'s database. ``Linked`` is a controller behind the
core's own client; ``Raw`` is somebody who says on the line whatever a test wants.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Self

import aiohttp

from carrier import enrolment, keys
from carrier.app import Front
from carrier.cloud import Cloud
from carrier.decide import Outcome, decide
from carrier.links import Links
from carrier.passkeys import Party
from carrier.store import Store
from carrier.ways import Ways
from tests.simulated import IDENTITY, Site
from vestibule_core import b64url, jws, keyset
from vestibule_core.link import messages
from vestibule_core.link.client import PATH, Link
from vestibule_core.link.code import EnrolmentCode
from vestibule_core.link.messages import Begin, Hello, Keys, LinkedDoor
from vestibule_core.model import Code, DoorId, Principal, Word
from vestibule_core.note import SignerKey

from .town import HOME, Town

SOON = 20.0
"""Seconds for what has to happen."""


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - of several programs, which tell nobody
            await asyncio.sleep(0.01)


async def until_so(condition: Callable[[], Awaitable[Any]]) -> None:
    """Wait until something is so that has to be asked for."""
    async with asyncio.timeout(SOON):
        while not await condition():  # noqa: ASYNC110 - a database tells nobody
            await asyncio.sleep(0.02)


class Wire:
    """A port on loopback behind which a replica is: what is sent to it is passed on, until it is cut."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.where = f"127.0.0.1:{self.port}"
        self.heard = bytearray()
        """All that the cloud has sent."""
        self._target = 0
        self._server: asyncio.Server | None = None
        self._lines: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass_on, sock=self._listening)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def lead_to(self, replica: Replica | None) -> None:
        """Lead new connections there, or nowhere."""
        self._target = replica.port if replica is not None else 0

    def cut(self) -> None:
        """Break all connections at once, without a word."""
        for pair in tuple(self._lines):
            for writer in pair:
                writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if not self._target:
                return
            there, to = await asyncio.open_connection("127.0.0.1", self._target)
            pair = writer, to
            self._lines.add(pair)
            try:
                await asyncio.gather(_copy(reader, to), _copy(there, writer, self.heard))
            finally:
                self._lines.discard(pair)
                to.close()
        except OSError:
            pass
        finally:
            writer.close()
            self._tasks.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray | None = None) -> None:
    try:
        while data := await reader.read(65536):
            if record is not None:
                record += data
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


class Replica:
    """A program of the cloud of ``town``, on a connection of its own to the town's database. The newest one that was
    started is where ``wire`` leads.
    """

    def __init__(self, town: Town, wire: Wire) -> None:
        self.town = town
        self.store = Store(town.store.url)
        links = Links(self.store, town.desk.keyring, town.carrier.issuer, "Parcels", lambda: town.now)
        self.ways = Ways(self.store, links)
        self.desk = replace(town.desk, store=self.store, link=self.ways)
        self._wire = wire
        self._party = Party("127.0.0.1", f"http://{wire.where}", "Parcels")

    async def __aenter__(self) -> Self:
        self._front = await Front.open(Cloud(self.desk, self._party, self.ways), "127.0.0.1", 0)
        self.port = self._front.port
        self._wire.lead_to(self)
        if self.ways.switchboard is not None:
            await self.ways.switchboard.is_up.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._front.close()
        await self.store.close()

    @property
    def links(self) -> Links:
        return self.ways.links

    async def ask(self, **changes: object) -> Outcome:
        """Ask for the town's door at this replica."""
        async with asyncio.timeout(60):
            return await decide(self.desk, self.town.asked(**changes))


class Linked:
    """A controller with a link: the host of the core's client. Use ``async with``; ``line`` is the link."""

    def __init__(self, town: Town, where: str, *, site: Site | None = None, key: SignerKey = IDENTITY) -> None:
        self.town, self.where, self.key = town, where, key
        self.site = site or town.site
        self.issuer = town.carrier.issuer
        self.instance = os.urandom(16)
        self.doors = tuple(LinkedDoor(door.id, door.name, "Europe/Berlin", *HOME) for door in self.site.doors)
        self.sets: list[Keys] = []
        self.lists: list[keyset.Issued] = []
        self.tokens: list[str] = []
        self.before_challenge: Callable[[], Awaitable[None]] = _nothing
        self.before_present: Callable[[], Awaitable[None]] = _nothing
        self.after_present: Callable[[], Awaitable[None]] = _nothing
        self.tells_acceptances = True

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        self.line = Link(self.session, self.where, self, chance=lambda: 0.0)
        self._running = asyncio.create_task(self.line.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.session.close()

    async def connected(self) -> Self:
        await until(lambda: self.line.is_connected)
        return self

    # ---- what the client asks (client.Host) ----

    def hello(self, begin: Begin) -> Hello:
        return Hello(self.key.verifier, begin.issuer, begin.nonce, self.instance, self.doors, len(self.sets), None)

    async def challenge(self, door: DoorId) -> tuple[str, int]:
        await self.before_challenge()
        return self.site.controller.challenge(door, self.issuer).nonce, 60

    async def present(self, token: str) -> tuple[Word, Code | None]:
        self.tokens.append(token)
        await self.before_present()
        decision = await self.site.controller.present(token, Principal(self.issuer))
        if self.tells_acceptances:
            await self.tell_acceptances()
        await self.after_present()
        return decision.code.word, decision.code

    async def take_keys(self, told: Keys) -> None:
        root = keyset.pin(self.issuer, told.root, keys.fingerprint(self.town.root))
        keyset.read(told.set, root, None, int(self.town.now.timestamp()))
        self.sets.append(told)

    async def take_issued(self, text: str) -> None:
        published = keyset.kept(self.sets[-1].set, keyset.Root(self.issuer, self.sets[-1].root))
        self.lists.append(keyset.read_issued(text, published, self.key.verifier, int(self.town.now.timestamp())))

    # ---- what it tells ----

    async def tell_acceptances(self) -> None:
        """Tell of every token that is spent here, as after a reconnection."""
        read = await asyncio.wrap_future(self.site.journal.accepted(self.issuer, 0))
        for spend in read.spends:
            self.line.accepted(b64url.decode(spend.jti.encode()), spend.door, Code.GRANTED)


async def _nothing() -> None: ...


class Raw:
    """Somebody who speaks WebSocket to a cloud. Use ``await Raw.dial(where)``, and ``close`` at the end."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._session, self.socket = session, socket

    @classmethod
    async def dial(cls, where: str, **options: Any) -> Self:
        session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        try:
            return cls(session, await session.ws_connect(f"ws://{where}{PATH}", autoping=False, **options))
        except BaseException:
            await session.close()
            raise

    async def begun(self) -> Begin:
        begin = messages.FROM_CLOUD.decode((await self.socket.receive_str(timeout=SOON)).encode())
        assert isinstance(begin, Begin)
        return begin

    async def hear(self, kind: type[Any]) -> Any:
        """Return the next frame of a kind."""
        async with asyncio.timeout(SOON):
            while not isinstance(frame := messages.FROM_CLOUD.decode((await self.socket.receive_str()).encode()), kind):
                pass
        return frame

    async def say(self, frame: messages.FromController | str) -> None:
        text = frame if isinstance(frame, str) else messages.FROM_CONTROLLER.encode(frame).decode()
        await self.socket.send_str(text)

    async def closed(self) -> int | None:
        """Return with which code the cloud ends it."""
        async with asyncio.timeout(SOON):
            while (await self.socket.receive()).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PONG):
                pass
        return self.socket.close_code

    async def close(self) -> None:
        await self.socket.close()
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def greet(
    where: str,
    key: SignerKey,
    doors: Iterable[LinkedDoor] = (),
    secret: bytes | None = None,
    *,
    host: str = "",
    address: str = "127.0.0.1",
    **changes: Any,
) -> Raw:
    """Dial and say hello; return the line. ``changes`` are of the hello, whose signature is always ``key``'s; ``host``
    is whom it says that it dials, ``address`` what the cloud's proxy says where it comes from.
    """
    raw = await Raw.dial(where, headers={"Host": host or where, "X-Forwarded-For": address})
    begin = await raw.begun()
    hello = Hello(key.verifier, begin.issuer, begin.nonce, os.urandom(16), tuple(doors), 0, None)
    await raw.say(messages.Greeting(messages.write_hello(key, replace(hello, **changes)), secret))
    return raw


async def invited(town: Town, where: str, *, building: str | None = None, days: float = 7) -> EnrolmentCode:
    """Return an enrolment code."""
    async with town.store.transaction() as session:
        secret = await enrolment.invite(session, "Number 9", building, timedelta(days=days), "command", town.now)
    return EnrolmentCode(where, keys.fingerprint(town.root), secret)


def padded(challenge: messages.SignedChallenge, length: int) -> str:
    """Return a challenge, signed by IDENTITY, of so many characters at least, for the white space in it."""
    text = messages.write_challenge(IDENTITY, challenge)
    body = b" " * ((length - len(text)) * 3 // 4) + b64url.decode(text.split(".")[1].encode())
    return jws.sign(messages._Identity(IDENTITY), messages.CHALLENGE_TYPE, body)


def payload(text: str) -> dict[str, Any]:
    """Return what a signed text says."""
    said = json.loads(b64url.decode(text.split(".")[1].encode()))
    assert isinstance(said, dict)
    return said
