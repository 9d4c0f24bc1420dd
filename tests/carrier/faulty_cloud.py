"""Another carrier's cloud, small and right, which can be told to do one thing wrong for ``conformance --url`` to see.

It is a real server on loopback with real keys, and no part of ours: it checks and signs by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from aiohttp import WSMsgType, web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.simulated import signing_key
from vestibule_core import b64url, jws, keyset
from vestibule_core.keys import Alg
from vestibule_core.keyset import Issued, KeySet, PublishedKey, Use
from vestibule_core.link.code import EnrolmentCode
from vestibule_core.note import VerifierKey

ISSUER = "https://faulty.example"
ROOT, TOKENS, LISTS, OTHER = (
    signing_key(Alg.EDDSA, f"faulty {what}") for what in ("root", "tokens", "lists", "another root")
)


def raw(key):
    return b64url.decode(key.jwk()["x"].encode())


@dataclass
class FaultyCloud:
    """Use it with ``async with``. ``faults`` are words that stand where they matter, below."""

    faults: frozenset[str] = frozenset()
    drivers: int = 4
    """How many requests for the door come, one after another."""
    wanted: asyncio.Event | None = None
    """They do not come before it is set; None: as soon as a controller is there."""
    alarms: list[str] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)
    enrolled: dict[str, list[str]] = field(default_factory=dict)
    """Each controller, and its doors."""
    tls: ssl.SSLContext | None = None
    claims: dict[str, Any] = field(default_factory=dict)
    """What its tokens say otherwise than they should."""

    def __post_init__(self) -> None:
        self.secret = os.urandom(16)
        self._secrets = {self.secret}
        self._links: dict[str, web.WebSocketResponse] = {}
        self._driving: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._asked = 0
        self._nonce = os.urandom(16)
        self._began = int(time.time())
        self._sets = self._connections = 0
        self._cuts = {1, self.drivers}

    async def __aenter__(self) -> FaultyCloud:
        app = web.Application()
        app.router.add_get("/v1/link", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._driving:
            self._driving.cancel()
            await asyncio.wait([self._driving])
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"wss://localhost:{self.port}" if self.tls else f"ws://127.0.0.1:{self.port}"

    @property
    def code(self) -> EnrolmentCode:
        return EnrolmentCode(self.url.partition("//")[2], hashlib.sha256(raw(ROOT)).digest(), self.secret)

    # ---- a connection ----

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self._connections += 1
        if "no websocket" in self.faults or ("few connections" in self.faults and 1 < self._connections < 10):
            return web.Response(status=404)
        socket = web.WebSocketResponse(compress=False, max_msg_size=0 if "reads anything" in self.faults else 8192)
        await socket.prepare(request)
        nonce = self._nonce if "one number for all" in self.faults else os.urandom(16)
        if "says nothing" not in self.faults:
            begin = {"type": "nonce", "n": b64url.encode(nonce), "iss": ISSUER, "name": "Faulty"}
            if "another first frame" in self.faults:
                begin = {"type": "hurry"}
            if "issued first" in self.faults:
                begin = {"type": "issued", "list": "x"}
            await self._say(socket, begin)
        key = None
        try:
            key = await self._greet(socket, nonce)
            if key is not None:
                await self._listen(socket, key)
        except ValueError, KeyError, TypeError, InvalidSignature:
            await socket.close(code=4003 if key is None else 4005)
        finally:
            if key is not None and self._links.get(key) is socket:
                del self._links[key]
        return socket

    async def _say(self, socket: web.WebSocketResponse, frame: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):
            await socket.send_str(json.dumps(frame))

    async def _greet(self, socket: web.WebSocketResponse, nonce: bytes) -> str | None:
        wait = 60 if "waits for ever" in self.faults else 1.5
        try:
            async with asyncio.timeout(wait):
                message = await socket.receive()
        except TimeoutError:
            if "talks to strangers" in self.faults:
                await self._keys(socket)
            await socket.close(code=4005)
            return None
        if message.type is not WSMsgType.TEXT:
            return None
        said = json.loads(message.data)
        hello = self._verified(said["jwt"], "door-link+jwt")
        fresh = hello["n"] == b64url.encode(nonce) or "takes old hellos" in self.faults
        if not fresh or (hello["aud"] != ISSUER and "takes any issuer" not in self.faults):
            raise ValueError("a hello for somebody else")
        secret = b64url.decode(said["secret"].encode()) if "secret" in said else None
        if hello["ctl"] not in self.enrolled and "enrols anybody" not in self.faults:
            if secret is None:
                raise ValueError("not enrolled")
            if secret not in self._secrets:
                await socket.close(code=4004)
                return None
            if "codes for ever" not in self.faults:
                self._secrets.discard(secret)
        if "closes after the hello" in self.faults:
            raise ValueError("a fault")
        self.enrolled[hello["ctl"]] = [door["id"] for door in hello["doors"]]
        if (before := self._links.get(hello["ctl"])) is not None and "two links" not in self.faults:
            await before.close(code=4001)
        if "never again" in self.faults and secret is None:
            raise ValueError("a fault")
        self._links[hello["ctl"]] = socket
        await self._keys(socket)
        if "no lists" not in self.faults:
            yesterday = (datetime.now(UTC) - timedelta(days=1, seconds=keyset.AFTER_MIDNIGHT)).date()
            for days in (1, 0):
                await self._list(socket, hello["ctl"], yesterday - timedelta(days=days))
        return hello["ctl"]

    def _verified(self, text: str, typ: str) -> dict[str, Any]:
        header, payload, signature = text.split(".")
        said = json.loads(b64url.decode(payload.encode()))
        public = VerifierKey.parse(said["ctl"]).public
        if json.loads(b64url.decode(header.encode()))["typ"] != typ:
            raise ValueError("of another type")
        if "takes any signature" not in self.faults:
            Ed25519PublicKey.from_public_bytes(public).verify(
                b64url.decode(signature.encode()), f"{header}.{payload}".encode()
            )
        return said

    async def _keys(self, socket: web.WebSocketResponse) -> None:
        if "no keys" in self.faults:
            return
        now = self._began
        keys = [PublishedKey(raw(TOKENS), Use.TOKENS, now - 100, now + 20 * 86400)]
        if "no list key" not in self.faults:
            keys.append(PublishedKey(raw(LISTS), Use.ISSUED, now - 86400, now + 300 * 86400))
        root = OTHER if "another root" in self.faults else ROOT
        at = now - (36 * 86400 if "an old set" in self.faults else 50)
        self._sets += 1
        version = {"older sets": 100 - self._sets}.get(next(iter(self.faults), ""), 1)
        ends = at + 30 * 86400 + (self._sets if "another set of one version" in self.faults else 0)
        text = keyset.write(root, KeySet(ISSUER, version, at, ends, tuple(keys), None))
        await self._say(socket, {"type": "ping"})
        await self._say(socket, {"type": "keys", "root": b64url.encode(raw(root)), "set": text})

    async def _list(self, socket: web.WebSocketResponse, key: str, day: date) -> None:
        of = VerifierKey("another", raw(OTHER)) if "another's list" in self.faults else VerifierKey.parse(key)
        now = int(time.time())
        for part, parts, at in {"half a list": [(0, 2, now)], "torn lists": [(0, 2, now), (1, 3, now + 1)]}.get(
            next(iter(self.faults), ""), [(0, 1, now)]
        ):
            text = keyset.write_issued(LISTS, Issued(ISSUER, of, day, at, part, parts, ()))
            await self._say(socket, {"type": "issued", "list": text})

    async def _listen(self, socket: web.WebSocketResponse, key: str) -> None:
        if self.drivers and (self._driving is None or self._driving.done()):
            self._driving = asyncio.get_running_loop().create_task(self._drive(key))
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            said = json.loads(message.data)
            if "reads anything" in self.faults and said.get("type") in ("pong", "outcome"):
                if (waits := self._answers.get(said.get("id", -1))) is not None and not waits.done():
                    waits.set_result(said)
                continue
            match said:
                case {"type": "pong", **rest} if not rest:
                    pass
                case {"type": "challenge" | "refused", "id": number}:
                    self._take(number, said)
                case {"type": "outcome", "id": number, "word": word} if word != "perhaps":
                    self._take(number, said)
                case {"type": "accepted", "jti": jti}:
                    if jti not in self.issued:
                        self.alarms.append(jti)
                        if "closes at an alarm" in self.faults:
                            await socket.close(code=4005)
                case {"type": "list", "day": day}:
                    if "no lists" not in self.faults and "lists once" not in self.faults:
                        await self._list(socket, key, date.fromisoformat(day))
                case _:
                    raise ValueError("of another form")

    def _take(self, number: int, said: dict[str, Any]) -> None:
        if (waits := self._answers.get(number)) is not None and not waits.done():
            waits.set_result(said)

    # ---- drivers ----

    async def _drive(self, key: str) -> None:
        if self.wanted is not None:
            await self.wanted.wait()
        while self.drivers:
            await asyncio.sleep(0.05)
            if (socket := self._links.get(key)) is None:
                continue
            (door,) = self.enrolled[key]
            if "another door" in self.faults:
                await self._ask(socket, {"type": "challenge", "door": "door:" + "a" * 26})
            if "a token without a challenge" in self.faults:
                await self._ask(socket, {"type": "unlock", "token": self._token(door, "A" * 22)})
            if "the number again" in self.faults:
                await self._say(socket, {"type": "nonce", "n": "A" * 22, "iss": ISSUER, "name": "Faulty"})
            if "another frame" in self.faults:
                await self._say(socket, {"type": "hurry"})
                self.faults -= {"another frame"}
            if "binary frames" in self.faults:
                await socket.send_bytes(b"{}")
                self.faults -= {"binary frames"}
            if "a huge frame" in self.faults:
                await self._say(socket, {"type": "ping", "more": "x" * 9000})
                self.faults -= {"a huge frame"}
            if "cuts the link" in self.faults and self.drivers in self._cuts:
                self._cuts.discard(self.drivers)
                await socket.close(code=4000)
                continue
            answer = await self._ask(socket, {"type": "challenge", "door": door})
            self.drivers -= 1
            if answer is None or answer["type"] != "challenge":
                continue
            try:
                given = self._verified(answer["jwt"], "door-challenge+jwt")
                if (given["ctl"], given["door"], given["iss"]) != (
                    key,
                    door,
                    ISSUER,
                ) and "any challenge" not in self.faults:
                    raise ValueError("another challenge")
            except ValueError, InvalidSignature:
                if "a bad frame for a token" in self.faults:
                    await self._say(socket, {"type": "unlock", "id": 1})
                    await asyncio.sleep(0.3)
                    continue
                if "keeps the link" not in self.faults:
                    await socket.close(code=4005)
                await asyncio.sleep(0.3)
                continue
            if "never signs" in self.faults:
                continue
            if "closes at a challenge" in self.faults:
                await socket.close(code=4000)
                continue
            text = self._token(door, given["non"])
            await self._ask(socket, {"type": "unlock", "token": text})
            if "twice" in self.faults:
                await self._ask(socket, {"type": "unlock", "token": text})

    async def _ask(self, socket: web.WebSocketResponse, question: dict[str, Any]) -> dict[str, Any] | None:
        number, self._asked = self._asked, self._asked + 1
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._say(socket, question | {"id": number})
        try:
            async with asyncio.timeout(3):
                return await self._answers[number]
        except TimeoutError:
            return None

    def _token(self, door: str, nonce: str) -> str:
        now, jti = int(time.time()), b64url.encode(os.urandom(16))
        self.issued.append(jti)
        claims = {
            "ver": 1,
            "iss": ISSUER,
            "aud": door,
            "jti": jti,
            "iat": now,
            "exp": now + 60,
            "act": "unlock",
            "sub": "d-1",
            "stp": "s-1",
            "non": nonce,
            "chk": {"drv": "passkey", "rte": "r-1", "gps": {"d": 10, "acc": 8, "age": 2}, "req": now - 2},
        }
        return jws.sign(TOKENS, "door-unlock+jwt", json.dumps(claims | self.claims, separators=(",", ":")).encode())
