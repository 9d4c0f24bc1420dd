"""A Shelly of the second generation or later, made of software: relays with timers, inputs, a password, a power supply.

It does what Shelly documents as far as the gateway depends on it, over HTTP and over WebSocket: Shelly.GetDeviceInfo,
GetStatus, GetConfig and ListMethods, Switch.Set, GetStatus and GetConfig, Input.GetStatus and GetConfig, and
NotifyStatus to whoever has sent a request with a source. It checks digests as firmware 2.0 does (a challenge serves for
an hour, for rising counts) or, as ``firmware`` says, as the ones before it did. It listens on 127.0.0.1 only. It counts
what the relays did, not what they were told. Nothing of the gateway is used in here: it is the other end of the wire,
and test_shelly_unit.py shows it to the library that Home Assistant drives real ones with.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Callable
from typing import Any, Final, Self

from aiohttp import WSCloseCode, WSMsgType, web

from scripts.demo_home.home import free_port

LOOPBACK: Final = "127.0.0.1"
ID: Final = "shellyplus2-a8032ab12345"
PASSWORD: Final = "correct horse battery staple"
CHALLENGE_LASTS: Final = 3600.0
FIRMWARE_2: Final = "2.0.1"
FIRMWARE_1: Final = "1.4.4"
INVALID_ARGUMENT: Final = -103
NOT_FOUND: Final = -105
FAILED_PRECONDITION: Final = -109
FIRST_GENERATION: Final = {"type": "SHSW-25", "mac": "AABBCCDDEEFF", "auth": True, "fw": "20230913-112003/v1.14.0"}

type Params = dict[str, Any]


class _Refused(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class ShellyUnit:
    """A unit. Use it in an ``async with``; ``port`` is where it listens.

    Relays and inputs are counted from 1. Verbs: ``press`` an input, ``operate`` a relay by hand, ``stick`` it,
    ``cut_power`` and ``restore_power``, ``restart``, ``forget_challenges``; ``fall_silent``, ``lose_answers``,
    ``be_slow``, ``decline``, ``garble``, ``redirect`` and ``obey`` say how it answers from now on.
    """

    def __init__(
        self, *, outputs: int = 2, inputs: int = 2, password: str | None = PASSWORD, firmware: str = FIRMWARE_2,
        device: str = ID, generation: int = 2,
    ) -> None:  # fmt: skip
        self.id, self.password, self.firmware, self.generation = device, password, firmware, generation
        self.relays = [False] * outputs
        self.inputs: list[bool | None] = [False] * inputs
        self.movements = [0] * outputs
        """How often each relay was switched on."""
        self.frames: list[dict[str, Any]] = []
        """The requests that it got over a WebSocket or by POST, as they came."""
        self.orders: list[Params] = []
        """What Switch.Set was told, carried out or not; not what was turned away for its digest."""
        self.connections = 0
        """How often somebody has opened a WebSocket."""
        self.resets = 0
        """How often one ended without a word."""
        self.turned_away = 0
        """How many requests had a proof that was none."""
        self.port = 0
        self.output_config: list[Params] = [
            {
                "id": n, "name": None, "in_mode": "detached", "initial_state": "off", "auto_on": False,
                "auto_on_delay": 60.0, "auto_off": False, "auto_off_delay": 60.0,
            }
            for n in range(outputs)
        ]  # fmt: skip
        self.input_config: list[Params] = [
            {"id": n, "name": None, "type": "switch", "enable": True, "invert": False} for n in range(inputs)
        ]
        self.services = {"cloud": False, "mqtt": False, "ws": False}
        """To what it is connected."""
        self._challenges: dict[str, tuple[float, int]] = {}
        self._timers: dict[int, tuple[asyncio.TimerHandle, float]] = {}
        self._stuck: set[int] = set()
        self._links: dict[web.WebSocketResponse, str] = {}
        """The WebSockets, and the source that each has named ("": none yet)."""
        self._runner: web.AppRunner | None = None
        self.obey()

    async def __aenter__(self) -> Self:
        await self.restore_power()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut_power()

    # ---- what can be seen of it ----

    @property
    def is_powered(self) -> bool:
        return self._runner is not None

    @property
    def is_connected(self) -> bool:
        return bool(self._links)

    @property
    def methods(self) -> list[str]:
        return [frame["method"] for frame in self.frames]

    # ---- verbs ----

    async def restore_power(self) -> None:
        """Power is on: each relay is as its initial_state says, and it listens, on the same port as before."""
        for number, config in enumerate(self.output_config, 1):
            self._move(number, config["initial_state"] == "on" or self.relays[number - 1])
        app = web.Application()
        app.router.add_get("/shelly", self._tell_who)
        app.router.add_route("*", "/rpc", self._rpc)
        app.router.add_route("*", "/rpc/{method}", self._rpc_by_path)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, self.port or free_port())
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def cut_power(self) -> None:
        """Power is off: every relay is, too, its challenges are forgotten, and nobody hears anything."""
        before = list(self.relays)
        for number in range(1, len(self.relays) + 1):
            self._move(number, False)
        for index, config in enumerate(self.output_config):
            self.relays[index] = before[index] and config["initial_state"] == "restore_last"
        self._challenges.clear()
        runner, self._runner = self._runner, None
        if runner is not None:
            self.hang_up()
            await runner.cleanup()

    async def restart(self) -> None:
        """Begin anew, as after an update."""
        await self.cut_power()
        await self.restore_power()

    def hang_up(self) -> None:
        """Cut the connections that there are, without a word."""
        for link in self._links:
            if link._req is not None and link._req.transport is not None:
                link._req.transport.abort()  # type: ignore[attr-defined]

    def press(self, number: int, on: bool | None = True) -> None:
        """Close the circuit of an input, or open it; None: it is a button, and says nothing."""
        self.inputs[number - 1] = on
        self._notify({f"input:{number - 1}": self._input(number - 1)})

    def operate(self, number: int, on: bool) -> None:
        """Switch a relay without a word on the wire."""
        self._move(number, on)

    def stick(self, number: int) -> None:
        """Let a relay stay where it is, whatever the unit is told."""
        self._stuck.add(number)

    def forget_challenges(self) -> None:
        """Let no challenge be good any more, as after an hour."""
        self._challenges.clear()

    def fall_silent(self) -> None:
        """Hear nothing, and answer nothing, with the connections up."""
        self._silent = True

    def be_slow(self, seconds: float, method: str = "Switch.Set") -> None:
        """Do what is told, and take so long to answer a method."""
        self._slow = {method: seconds}

    def lose_answers(self, method: str = "Switch.Set") -> None:
        """Do what is told, without an answer. Whoever asks something else is answered."""
        self.garble(lambda frame, due: "" if frame["method"] == method else due)

    def garble(self, answer: Callable[[dict[str, Any], str], str | bytes]) -> None:
        """Do what is told, and answer what ``answer`` makes of the request and the frame that is due; "": nothing."""
        self._answer = answer

    def decline(self, code: int, *, method: str = "Switch.Set") -> None:
        """Answer a method with an error, and do nothing."""
        self._declined[method] = code

    def redirect(self, url: str) -> None:
        """Send whoever asks elsewhere."""
        self._elsewhere = url

    def be_something_else(self, said: Params) -> None:
        """Know no RPC, and say this of itself."""
        self._instead = said

    def say(self, text: str | bytes) -> None:
        """Say this to everybody who listens."""
        for link in self._links:
            self._send(link, text)

    def obey(self) -> None:
        """Behave again."""
        self._silent, self._elsewhere = False, ""
        self._slow: dict[str, float] = {}
        self._instead: Params | None = None
        self._answer: Callable[[dict[str, Any], str], str | bytes] = lambda _, due: due
        self._declined: dict[str, int] = {}

    # ---- HTTP ----

    @property
    def _info(self) -> Params:
        return {
            "name": None, "id": self.id, "mac": self.id.rpartition("-")[2].upper(), "slot": 0,
            "model": "SNSW-102X16EU", "gen": self.generation, "fw_id": f"20260801-112233/{self.firmware}-g1a2b3c4",
            "ver": self.firmware, "app": "Plus2PM", "auth_en": self.password is not None,
            "auth_domain": None if self.password is None else self.id, "profile": "switch",
        }  # fmt: skip

    async def _tell_who(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self._info if self._instead is None else self._instead)

    async def _rpc(self, request: web.Request) -> web.StreamResponse:
        if self._elsewhere:
            raise web.HTTPTemporaryRedirect(self._elsewhere)
        if self._instead is not None:
            raise web.HTTPNotFound
        if request.method == "GET":
            return await self._talk(request)
        frame = await request.json()
        self.frames.append(frame)
        self._check_header(request, frame["method"])
        answer = {"id": frame.get("id"), "src": self.id} | self._done(frame)
        return web.json_response(answer, headers={"Connection": "close"})

    async def _rpc_by_path(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        params = await request.json() if request.method == "POST" else dict(request.query)
        self._check_header(request, method)
        answer = self._done({"method": method, "params": params})
        if "error" in answer:
            return web.json_response(answer["error"], status=500, headers={"Connection": "close"})
        return web.json_response(answer["result"], headers={"Connection": "close"})

    def _check_header(self, request: web.Request, method: str) -> None:
        if self.password is None or method == "Shelly.GetDeviceInfo":
            return
        given = dict(re.findall(r'(\w+)="?([^",]*)"?', request.headers.get("Authorization", "")))
        what = _hash(f"{request.method}:{given.get('uri', '')}")
        right = given.get("uri") == request.raw_path
        count = int(given.get("nc", "0"), 16) if given else 0
        if not (right and self._proves(given, given.get("nc", ""), count, what)):
            stale = ", stale=true" if given and self._is_new and given.get("nonce") not in self._challenges else ""
            challenge = f'Digest qop="auth", realm="{self.id}", nonce="{self._challenge()}", algorithm=SHA-256{stale}'
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": challenge, "Connection": "close"})

    # ---- the WebSocket ----

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        link = web.WebSocketResponse(autoping=True, compress=False)
        if not link.can_prepare(request):
            raise web.HTTPBadRequest
        await link.prepare(request)
        self.connections += 1
        self._links[link] = ""
        try:
            async for message in link:
                if message.type is not WSMsgType.TEXT or self._silent:
                    continue
                frame = json.loads(message.data)
                self.frames.append(frame)
                answer = {"id": frame["id"], "src": self.id}
                if source := frame.get("src"):
                    answer["dst"] = source
                if (refusal := self._refusal(frame)) is not None:
                    answer["error"] = refusal
                else:
                    if source:
                        self._links[link] = source
                    answer |= self._done(frame)
                if seconds := self._slow.get(frame["method"]):
                    await asyncio.sleep(seconds)
                if text := self._answer(frame, json.dumps(answer)):
                    self._send(link, text)
            if link.close_code in (None, WSCloseCode.ABNORMAL_CLOSURE):
                self.resets += 1
        finally:
            del self._links[link]
        return link

    def _send(self, link: web.WebSocketResponse, text: str | bytes) -> None:
        writer = link._writer
        if writer is not None and not link.closed:
            opcode = WSMsgType.TEXT if isinstance(text, str) else WSMsgType.BINARY
            task = asyncio.ensure_future(writer.send_frame(text.encode() if isinstance(text, str) else text, opcode))
            task.add_done_callback(lambda done: None if done.cancelled() else done.exception())

    def _refusal(self, frame: dict[str, Any]) -> Params | None:
        """Return the error for a frame without a good proof."""
        if self.password is None or frame["method"] == "Shelly.GetDeviceInfo":
            return None
        given = frame.get("auth")
        if given is not None and self._proves(given, str(given.get("nc", 1)), given.get("nc", 1), _DUMMY):
            return None
        challenge: Params = {"auth_type": "digest"}
        if given is not None and self._is_new and str(given.get("nonce")) not in self._challenges:
            challenge["stale"] = True
        nonce = self._challenge()
        challenge |= {"nonce": nonce if self._is_new else int(nonce), "nc": 1, "realm": self.id, "algorithm": "SHA-256"}
        return {"code": 401, "message": json.dumps(challenge)}

    # ---- the password ----

    @property
    def _is_new(self) -> bool:
        return self.firmware >= "2"

    def _challenge(self) -> str:
        nonce = secrets.token_urlsafe(24) + "==" if self._is_new else str(secrets.randbelow(2**31))
        self._challenges[nonce] = asyncio.get_running_loop().time() + CHALLENGE_LASTS, 0
        return nonce

    def _proves(self, given: dict[str, Any], count: str, number: int, what: str) -> bool:
        """Return whether this is a proof of the password, for a challenge of ours and a count that is the next."""
        if not given:
            return False
        nonce = str(given.get("nonce", ""))
        until, before = self._challenges.get(nonce, (0.0, 0))
        own = _hash(f"admin:{self.id}:{self.password}")
        due = _hash(f"{own}:{nonce}:{count}:{given.get('cnonce')}:auth:{what}")
        good = (
            given.get("username") == "admin"
            and given.get("realm") == self.id
            and given.get("algorithm", "SHA-256") == "SHA-256"
            and given.get("response") == due
            and asyncio.get_running_loop().time() < until
            and (number > before or not self._is_new)
        )
        if good:
            self._challenges[nonce] = until, number
        else:
            self.turned_away += 1
        return good

    # ---- what it does ----

    def _done(self, frame: dict[str, Any]) -> Params:
        """Do what a frame asks for; return the member that answers it."""
        method, params = frame["method"], frame.get("params") or {}
        if method == "Switch.Set":
            self.orders.append(params)
        try:
            if (code := self._declined.get(method)) is not None:
                raise _Refused(code, "declined")
            return {"result": self._call(method, params)}
        except _Refused as refused:
            return {"error": {"code": refused.code, "message": refused.message}}

    def _call(self, method: str, params: Params) -> Params:
        match method:
            case "Shelly.GetDeviceInfo":
                return self._info
            case "Shelly.GetStatus":
                return self._status
            case "Shelly.GetConfig":
                return self._config
            case "Shelly.GetComponents":
                return {"components": [], "cfg_rev": 1, "offset": 0, "total": 0}
            case "Shelly.ListMethods":
                return {"methods": ["Shelly.GetStatus", "Switch.Set"]}
            case "Switch.GetStatus":
                return self._switch(self._index(params, self.relays))
            case "Switch.GetConfig":
                return self.output_config[self._index(params, self.relays)]
            case "Input.GetStatus":
                return self._input(self._index(params, self.inputs))
            case "Input.GetConfig":
                return self.input_config[self._index(params, self.inputs)]
            case "Switch.Set":
                return self._set(params)
        raise _Refused(404, f"No handler for {method}")

    def _index(self, params: Params, lines: list[Any]) -> int:
        index = params.get("id")
        if type(index) is not int:
            raise _Refused(INVALID_ARGUMENT, "Missing required argument 'id'!")
        if not 0 <= index < len(lines):
            raise _Refused(NOT_FOUND, f"Argument 'id', value {index} not found!")
        return index

    def _set(self, params: Params) -> Params:
        index, on, seconds = self._index(params, self.relays), params.get("on"), params.get("toggle_after")
        if type(on) is not bool or (seconds is not None and type(seconds) not in (int, float)):
            raise _Refused(INVALID_ARGUMENT, "Missing or bad argument!")
        was_on = self.relays[index]
        self._move(index + 1, on)
        if seconds is not None:
            timer = asyncio.get_running_loop().call_later(seconds, self._move, index + 1, not on)
            self._timers[index] = timer, seconds
        return {"was_on": was_on}

    def _move(self, number: int, on: bool) -> None:
        """Switch a relay, and stop its timer."""
        if timer := self._timers.pop(number - 1, None):
            timer[0].cancel()
        if number in self._stuck or self.relays[number - 1] is on:
            return
        self.relays[number - 1] = on
        self.movements[number - 1] += on
        self._notify({f"switch:{number - 1}": {"id": number - 1, "output": on, "source": "WS_in"}})

    def _notify(self, changes: Params) -> None:
        if self._silent:
            return
        for link, source in self._links.items():
            if source:
                frame = {"src": self.id, "dst": source, "method": "NotifyStatus", "params": {"ts": 1.0} | changes}
                self._send(link, json.dumps(frame))

    def _switch(self, index: int) -> Params:
        timer = {"timer_started_at": 1.0, "timer_duration": self._timers[index][1]} if index in self._timers else {}
        return {"id": index, "source": "init", "output": self.relays[index], "temperature": {"tC": 51.2}} | timer

    def _input(self, index: int) -> Params:
        return {"id": index, "state": self.inputs[index]}

    @property
    def _status(self) -> Params:
        return (
            {name: {"connected": on} for name, on in self.services.items()}
            | {f"switch:{n}": self._switch(n) for n in range(len(self.relays))}
            | {f"input:{n}": self._input(n) for n in range(len(self.inputs))}
            | {"sys": {"mac": self._info["mac"], "restart_required": False, "uptime": 11081}, "wifi": {"rssi": -50}}
        )

    @property
    def _config(self) -> Params:
        return (
            {f"switch:{n}": config for n, config in enumerate(self.output_config)}
            | {f"input:{n}": config for n, config in enumerate(self.input_config)}
            | {"sys": {"device": {"name": None, "mac": self._info["mac"], "fw_id": self._info["fw_id"]}, "cfg_rev": 1}}
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_DUMMY: Final = _hash("dummy_method:dummy_uri")
