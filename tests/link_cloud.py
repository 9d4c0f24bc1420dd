"""A carrier's cloud at its end of the link, for tests of the building's end: real keys, a real WebSocket, no database.

It says whatever a test wants, wrong things too. It speaks JSON and cryptography by itself and imports nothing of ours,
so that it serves tests that load the core under another name, and does not err where the core errs.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Self

from aiohttp import WSCloseCode, WSMsgType, web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from scripts.demo_home.home import free_port

DAY = 86400
CERTAIN = 30.0
"""Seconds in which what has to come comes."""


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True)
class Key:
    """An Ed25519 key that signs texts."""

    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @property
    def kid(self) -> str:
        jwk = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": b64(self.public)}, separators=(",", ":"))
        return b64(hashlib.sha256(jwk.encode()).digest())

    def jws(self, typ: str, payload: dict[str, Any]) -> str:
        head = json.dumps({"alg": "EdDSA", "kid": self.kid, "typ": typ}, separators=(",", ":"))
        signed = f"{b64(head.encode())}.{b64(json.dumps(payload, separators=(',', ':')).encode())}"
        return f"{signed}.{b64(self.private.sign(signed.encode()))}"


def payload_of(jws: str) -> dict[str, Any]:
    """Return what a signed text says, unverified."""
    said = json.loads(unb64(jws.split(".")[1]))
    assert isinstance(said, dict)
    return said


def controller_of(hello: dict[str, Any]) -> bytes:
    """Return the raw public key of the controller that a hello names."""
    # A verifier key is <name>+<key id>+<base64 of: type, key>.
    return base64.b64decode(str(hello["ctl"]).split("+", 2)[2])[1:]


class Connection:
    """One that a controller has begun."""

    def __init__(self, socket: web.WebSocketResponse, nonce: bytes) -> None:
        self.socket, self.nonce = socket, nonce
        self.greeting: dict[str, Any] = {}
        self.hello: dict[str, Any] = {}
        self.accepted: list[dict[str, Any]] = []
        self.asked_lists: list[str] = []
        self.pongs = 0
        self.answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.over = asyncio.Event()

    async def say(self, **frame: Any) -> None:
        await self.socket.send_str(json.dumps(frame))

    async def ask(self, **frame: Any) -> dict[str, Any]:
        """Ask something that has a number; return the answer."""
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.answers[frame["id"]] = answer
        await self.say(**frame)
        async with asyncio.timeout(CERTAIN):
            return await answer

    async def close(self, code: int = WSCloseCode.OK) -> None:
        await self.socket.close(code=code)

    def cut(self) -> None:
        """Break the line, without a word."""
        transport = self.socket._req.transport if self.socket._req is not None else None
        if transport is not None:
            transport.abort()


class LinkCloud:
    """Use ``async with LinkCloud() as cloud``. ``host`` is where it is; ``code()`` enrols."""

    def __init__(self, issuer: str = "https://swift.example", name: str = "Swift Parcels") -> None:
        self.issuer, self.name = issuer, name
        self.root, self.next_root, self.signing, self.listing = Key(), Key(), Key(), Key()
        self.version = 1
        self.secret = os.urandom(16)
        self.text: str | None = None
        """The set that a hello is answered with; None: a good one."""
        self.connections: list[Connection] = []
        self.refuse_with: int | None = None
        """A close code for each hello."""
        self.answers_hellos = asyncio.Event()
        """Cleared: it takes its time, until it is set again."""
        self.answers_hellos.set()
        self.before_keys: list[dict[str, Any]] = []
        """Frames in place of the keys."""
        self.end_with: int | None = None
        """A close code for each link, right after its keys."""
        self.is_silent = False
        """It accepts connections and says nothing."""
        self._ids = itertools.count()
        self._sets: dict[tuple[object, ...], str] = {}
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    # ---- its life ----

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/link", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port or free_port()).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Be away; ``start`` comes back at the same port."""
        for connection in self.connections:
            connection.cut()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        connection = Connection(socket, os.urandom(16))
        try:
            await self._talk(connection)
        finally:
            connection.over.set()
            for answer in connection.answers.values():
                answer.cancel()
            self._wake()
        return socket

    async def _talk(self, connection: Connection) -> None:
        if not self.is_silent:
            await connection.say(type="nonce", n=b64(connection.nonce), iss=self.issuer, name=self.name)
        async for message in connection.socket:
            if message.type is not WSMsgType.TEXT:
                return
            frame = json.loads(message.data)
            match frame["type"]:
                case "hello":
                    await self._greeted(connection, frame)
                case "accepted":
                    connection.accepted.append(frame)
                case "list":
                    connection.asked_lists.append(frame["day"])
                case "pong":
                    connection.pongs += 1
                case _:
                    answer = connection.answers.get(frame["id"])
                    if answer is not None and not answer.done():
                        answer.set_result(frame)
            self._wake()

    async def _greeted(self, connection: Connection, frame: dict[str, Any]) -> None:
        hello = payload_of(frame["jwt"])
        signed, _, signature = frame["jwt"].rpartition(".")
        Ed25519PublicKey.from_public_bytes(controller_of(hello)).verify(unb64(signature), signed.encode())
        assert hello["n"] == b64(connection.nonce), "a hello that is not for this connection"
        assert hello["aud"] == self.issuer
        connection.greeting, connection.hello = frame, hello
        self.connections.append(connection)
        self._wake()
        await self.answers_hellos.wait()
        if self.refuse_with is not None:
            await connection.close(self.refuse_with)
        elif self.before_keys:
            for each in self.before_keys:
                await connection.say(**each)
        else:
            await connection.say(type="keys", root=b64(self.root.public), set=self.text or self._newest())
            if self.end_with is not None:
                await connection.close(self.end_with)

    # ---- what it signs ----

    def code(self, secret: bytes | None = None) -> str:
        """Return an enrolment code."""
        body = (secret or self.secret) + hashlib.sha256(self.root.public).digest() + self.host.encode()
        return "vst1." + b64(body + hashlib.sha256(b"vst1." + body).digest()[:4])

    def key_set(self, *, by: Key | None = None, signing: list[Key] | None = None, **members: Any) -> str:
        """Return a set, signed by the root; ``members`` are changed."""
        now = int(time.time())
        keys = [(key, "sig") for key in (signing or [self.signing])] + [(self.listing, "issued")]
        said = {
            "iss": self.issuer,
            "ver": self.version,
            "iat": now - 60,
            "exp": now + 30 * DAY,
            "keys": [
                {
                    "kid": key.kid,
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "x": b64(key.public),
                    "use": use,
                    "nbf": now - DAY,
                    "exp": now + 20 * DAY,
                }
                for key, use in keys
            ],
            "next": b64(hashlib.sha256(self.next_root.public).digest()),
        } | members
        return (by or self.root).jws("door-keys+jwt", said)

    def _newest(self) -> str:
        """Return the same good set each time, until something about it is changed."""
        what = self.version, self.issuer, self.root.kid, self.signing.kid, self.listing.kid
        if what not in self._sets:
            self._sets[what] = self.key_set()
        return self._sets[what]

    def token(self, door: str, nonce: str, *, by: Key | None = None, **claims: Any) -> str:
        """Return a good token; ``claims`` are changed. ``self.jti`` and ``self.day`` are the last one's."""
        now = int(time.time())
        self.jti = b64(os.urandom(16))
        said = {
            "ver": 1,
            "iss": self.issuer,
            "aud": door,
            "jti": self.jti,
            "iat": now,
            "exp": now + 60,
            "act": "unlock",
            "sub": "driver-1",
            "stp": "stop-1",
            "non": nonce,
            "chk": {"drv": "passkey", "rte": "route-1", "gps": {"d": 12, "acc": 8, "age": 3}, "req": now - 2},
        } | claims
        self.day = datetime.fromtimestamp(said["iat"], UTC).date()
        return (by or self.signing).jws("door-unlock+jwt", said)

    def issued(
        self,
        controller: str,
        jtis: list[str],
        *,
        day: date | None = None,
        by: Key | None = None,
        **members: Any,
    ) -> str:
        """Return the list of a UTC day (the last whose list is due) for a controller, in one part."""
        of = day or (datetime.now(UTC) - timedelta(days=1, minutes=15)).date()
        midnight = datetime(of.year, of.month, of.day, tzinfo=UTC) + timedelta(days=1, minutes=10)
        said = {
            "iss": self.issuer,
            "ctl": controller,
            "day": of.isoformat(),
            "iat": max(int(midnight.timestamp()), int(time.time()) - 60),
            "part": 0,
            "parts": 1,
            "jtis": sorted(jtis),
        } | members
        return (by or self.listing).jws("door-issued+jwt", said)

    # ---- what a test does ----

    async def linked(self, number: int = 1) -> Connection:
        """Return the newest connection once ``number`` hellos have come and the newest one still stands."""

        def newest() -> Connection | None:
            if len(self.connections) < number or self.connections[-1].over.is_set():
                return None
            return self.connections[-1]

        async with asyncio.timeout(CERTAIN):
            while (connection := newest()) is None:
                self._changed.clear()
                await self._changed.wait()
        return connection

    async def until(self, is_so: Any) -> None:
        """Wait for something that a frame brings about."""
        async with asyncio.timeout(CERTAIN):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    async def challenge(self, door: str) -> dict[str, Any]:
        """Ask for a challenge over the newest connection; return the frame, whose ``non`` is added if there is one."""
        connection = await self.linked()
        answer = await connection.ask(type="challenge", id=next(self._ids), door=door)
        if "jwt" in answer:
            said = payload_of(answer["jwt"])
            signed, _, signature = answer["jwt"].rpartition(".")
            key = Ed25519PublicKey.from_public_bytes(controller_of(connection.hello))
            key.verify(unb64(signature), signed.encode())
            assert (said["door"], said["iss"], said["ctl"]) == (door, self.issuer, connection.hello["ctl"])
            answer["non"] = said["non"]
        return answer

    async def unlock(self, token: str) -> dict[str, Any]:
        """Hand a token over; return the outcome."""
        return await (await self.linked()).ask(type="unlock", id=next(self._ids), token=token)

    async def deliver(self, door: str, **claims: Any) -> dict[str, Any]:
        """Deliver as a good cloud does; return the outcome."""
        answer = await self.challenge(door)
        assert "non" in answer, answer
        return await self.unlock(self.token(door, answer["non"], **claims))

    async def publish(self, text: str | None = None, root: Key | None = None) -> None:
        """Send a set over the newest connection (None: a good one of the next version)."""
        if text is None:
            self.version += 1
            text = self._newest()
        await (await self.linked()).say(type="keys", root=b64((root or self.root).public), set=text)

    def _wake(self) -> None:
        self._changed.set()
