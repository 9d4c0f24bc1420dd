"""A node of ESPHome with the actions of docs/esphome-door.yaml: the native API over a real socket, encrypted.

It does what the firmware (2026.10) does, as far as a client can tell: Noise with the key of its YAML, its name before
and after the handshake, no object ids, states after answers, no answer to an action that it does not know. It measures
its releases itself. Verbs: ``cut_power``, ``restore_power``, ``reboot``, ``operate``, ``press``, ``lose_answers``,
``refuse``, ``garble``, ``hang_up``, ``fall_silent``, ``obey``. What this module refuses to do: speak in the clear; with
``encrypted = False`` it only says that it does, as a node without a key.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Callable
from typing import Any, Final, Self

from aioesphomeapi import api_pb2
from aioesphomeapi.core import MESSAGE_TYPE_TO_PROTO

from scripts.demo_home.home import free_port
from scripts.demo_home.relay_board import LOOPBACK
from vestibule_core.errors import Violation
from vestibule_core.nnpsk0 import KEY_SIZE, Responder, Transport

pb: Any = api_pb2  # made at run time, out of a description

VERSION: Final = "2026.10.0"
ARGUMENTS: Final = {
    "vestibule_release": ("channel", "ms"),
    "vestibule_hold": ("channel",),
    "vestibule_secure": ("channel",),
}
REFUSED: Final = "it has no such output, or that is longer than it releases"
_NUMBER: Final = {kind.__name__: number for number, kind in MESSAGE_TYPE_TO_PROTO.items()}


class Node:
    """A node. Use it in an ``async with``: it listens on ``port`` of 127.0.0.1 from then on."""

    def __init__(self, name: str = "hall", *, key: bytes | None = None, outputs: int = 8, inputs: int = 8) -> None:
        self.name = name
        self.inner_name = name
        """What it says that it is called when nobody else hears it."""
        self.key = key or secrets.token_bytes(KEY_SIZE)
        self.encrypted = True
        self.api = (1, 19)
        self.longest = 30.0
        """Seconds that a release lasts at most."""
        self.missing: set[str] = set()
        """Actions and binary sensors that it does not have."""
        self.responds = pb.SUPPORTS_RESPONSE_ONLY
        self.more_arguments: tuple[str, ...] = ()
        self.outputs: list[bool | None] = [False] * outputs
        self.inputs: list[bool | None] = [False] * inputs
        self.movements = [0] * outputs
        """How often each output was switched on."""
        self.calls: list[tuple[str, dict[str, int]]] = []
        """Every action that it was told, in order."""
        self.questions = 0
        """How often it was asked who it is."""
        self.connections = 0
        self.is_silent = False
        self.port = 0
        self._answer: Callable[[Any], Any] = _as_it_is
        self._refusal: str | None = None
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._server: asyncio.Server | None = None
        self._sessions: dict[_Session, asyncio.Task[None]] = {}

    @property
    def key_text(self) -> str:
        """Its key as its YAML has it."""
        return base64.b64encode(self.key).decode()

    @property
    def is_connected(self) -> bool:
        return bool(self._sessions)

    @property
    def is_powered(self) -> bool:
        return self._server is not None

    async def __aenter__(self) -> Self:
        await self.restore_power()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut_power()

    # ---- verbs ----

    async def cut_power(self) -> None:
        """Everything is off, and nobody answers."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.reboot()

    async def restore_power(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port or free_port())
        self.port = self._server.sockets[0].getsockname()[1]

    async def reboot(self) -> None:
        """As its watchdog does it: everything is off, and connections are gone without a word."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self.outputs = [False] * len(self.outputs)
        self.hang_up()
        await asyncio.gather(*self._sessions.values())

    def hang_up(self) -> None:
        for session in self._sessions:
            session.writer.transport.abort()

    def operate(self, number: int, on: bool) -> None:
        """Switch an output by a button on the node."""
        self.switch(number - 1, on)

    def press(self, number: int, on: bool | None = True) -> None:
        """Let an input say something; None: that it does not know."""
        self.inputs[number - 1] = on
        for session in self._sessions:
            session.tell_input(number - 1)

    def lose_answers(self) -> None:
        """Do what it is told from now on, and do not answer."""
        self._answer = lambda _: None

    def refuse(self, words: str = REFUSED) -> None:
        """Answer no from now on, and move nothing."""
        self._refusal = words

    def garble(self, answer: Callable[[Any], Any]) -> None:
        """Let each answer to an action be what ``answer`` makes of it; None: there is none."""
        self._answer = answer

    def fall_silent(self) -> None:
        """Take connections and whatever comes on them, and never say a word again."""
        self.is_silent = True

    def obey(self) -> None:
        """End all that."""
        self._answer, self._refusal, self.is_silent = _as_it_is, None, False

    # ---- what its program does ----

    def switch(self, index: int, on: bool, seconds: float | None = None) -> None:
        """What the scripts and switches of the YAML do."""
        if (timer := self._timers.pop(index, None)) is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        if seconds is not None:
            self._timers[index] = loop.call_later(seconds, self.switch, index, False)
        if on is not self.outputs[index]:
            self.outputs[index] = on
            self.movements[index] += on
            for session in self._sessions:
                loop.call_soon(session.tell_output, index)  # in the next turn of its loop

    def act(self, action: str, channel: int, ms: int = 0) -> Any:
        """Do what it is told; return what is answered, without the number of the call."""
        self.calls.append((action, {"channel": channel} | ({"ms": ms} if ms else {})))
        known = 1 <= channel <= len(self.outputs)
        if action == "vestibule_release":
            known = known and 0 < ms <= self.longest * 1000
        if self._refusal is not None or not known:
            return pb.ExecuteServiceResponse(success=False, error_message=self._refusal or REFUSED)
        self.switch(channel - 1, action != "vestibule_secure", ms / 1000 if action == "vestibule_release" else None)
        said = json.dumps({"channel": channel, "on": self.outputs[channel - 1]}).encode()
        return pb.ExecuteServiceResponse(success=True, response_data=said)

    def answered(self, answer: Any) -> Any:
        return self._answer(answer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = _Session(self, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._sessions[session] = task
        self.connections += 1
        try:
            await session.run()
        except asyncio.IncompleteReadError, ConnectionError, Violation:
            pass  # it hung up, or has another key
        finally:
            del self._sessions[session]
            writer.close()


class _Session:
    """A client of the node."""

    def __init__(self, node: Node, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._node, self._reader = node, reader
        self._noise: Transport | None = None
        self._wants_states = False

    # ---- frames ----

    async def run(self) -> None:
        """Answer until it hangs up."""
        node = self._node
        head = await self._reader.readexactly(3)
        if not node.encrypted:
            self.writer.write(b"\0Bad indicator byte")
            return
        assert head == b"\1\0\0", "the firmware takes any hello, aioesphomeapi sends an empty one"
        if not node.is_silent:
            named = node.name.encode() + b"\0" + b"063569abf680\0"
            self._frame(b"\1" + (named if node.name else b""))
        await self._shake_hands()
        while True:
            message = self._noise.decrypt(await self._read_frame())
            kind = MESSAGE_TYPE_TO_PROTO.get(int.from_bytes(message[:2]))
            if kind is not None and not node.is_silent and (answer := _ANSWERS.get(kind.__name__)) is not None:
                answer(self, kind.FromString(message[4:]))

    async def _shake_hands(self) -> None:
        responder = Responder(self._node.key, b"NoiseAPIInit\0\0")
        status, *sealed = await self._read_frame()
        assert status == 0
        try:
            responder.first(bytes(sealed))
        except Violation:
            self._frame(b"\1Handshake MAC failure")
            raise
        reply, self._noise = responder.second(b"", secrets.token_bytes(KEY_SIZE))
        if not self._node.is_silent:
            self._frame(b"\0" + reply)

    async def _read_frame(self) -> bytes:
        head = await self._reader.readexactly(3)
        assert head[0] == 1
        return await self._reader.readexactly(int.from_bytes(head[1:]))

    def _frame(self, content: bytes) -> None:
        self.writer.write(b"\1" + len(content).to_bytes(2) + content)

    def _send(self, message: Any) -> None:
        body = message.SerializeToString()
        if self._noise is not None and not self.writer.is_closing() and not self._node.is_silent:
            head = _NUMBER[type(message).__name__].to_bytes(2) + len(body).to_bytes(2)
            self._frame(self._noise.encrypt(head + body))

    # ---- who it is, and what it has ----

    def _hello(self, _: Any) -> None:
        major, minor = self._node.api
        name = self._node.inner_name
        self._send(pb.HelloResponse(api_version_major=major, api_version_minor=minor, server_info=VERSION, name=name))

    def _device_info(self, _: Any) -> None:
        self._node.questions += 1
        self._send(
            pb.DeviceInfoResponse(
                name=self._node.inner_name,
                mac_address="06:35:69:AB:F6:80",
                esphome_version=VERSION,
                api_encryption_supported=True,
            )
        )

    def _list(self, _: Any) -> None:
        node = self._node
        for name, key in self._sensors().items():
            object_id = name if node.api < (1, 14) else ""
            shown = name.replace("_", " ").capitalize()
            self._send(pb.ListEntitiesBinarySensorResponse(object_id=object_id, key=key, name=shown))
        self._send(pb.ListEntitiesSensorResponse(key=7, name="Temperature"))
        for key, (name, arguments) in enumerate(ARGUMENTS.items(), 1):
            if name not in node.missing:
                args = [
                    pb.ListEntitiesServicesArgument(name=one, type=pb.SERVICE_ARG_TYPE_INT)
                    for one in (*arguments, *node.more_arguments)
                ]
                self._send(
                    pb.ListEntitiesServicesResponse(name=name, key=key, args=args, supports_response=node.responds)
                )
        self._send(pb.ListEntitiesDoneResponse())

    def _sensors(self) -> dict[str, int]:
        """Return its binary sensors with their keys."""
        outputs = {f"vestibule_output_{n}": 0x1000 + n for n in range(1, len(self._node.outputs) + 1)}
        inputs = {f"vestibule_input_{n}": 0x2000 + n for n in range(1, len(self._node.inputs) + 1)}
        return {name: key for name, key in (outputs | inputs).items() if name not in self._node.missing}

    # ---- how it is ----

    def _subscribe(self, _: Any) -> None:
        self._wants_states = True
        self._send(pb.SensorStateResponse(key=7, state=21.5))
        for index in range(len(self._node.outputs)):
            self.tell_output(index)
        for index in range(len(self._node.inputs)):
            self.tell_input(index)

    def tell_output(self, index: int) -> None:
        self._tell(0x1001 + index, self._node.outputs[index])

    def tell_input(self, index: int) -> None:
        self._tell(0x2001 + index, self._node.inputs[index])

    def _tell(self, key: int, said: bool | None) -> None:
        if self._wants_states:
            self._send(pb.BinarySensorStateResponse(key=key, state=bool(said), missing_state=said is None))

    # ---- what it is told ----

    def _execute(self, call: Any) -> None:
        name, arguments = list(ARGUMENTS.items())[call.key - 1]
        if len(call.args) != len(arguments):
            return  # the firmware does not know such an action, and says nothing
        answer = self._node.act(name, **{key: one.int_ for key, one in zip(arguments, call.args, strict=True)})
        answer.call_id = call.call_id
        if (answer := self._node.answered(answer)) is not None:
            self._send(answer)

    def _disconnect(self, _: Any) -> None:
        self._send(pb.DisconnectResponse())
        self.writer.close()


def _as_it_is(answer: Any) -> Any:
    return answer


_ANSWERS: Final[dict[str, Callable[[_Session, Any], None]]] = {
    "HelloRequest": _Session._hello,
    "PingRequest": lambda session, _: session._send(pb.PingResponse()),
    "DeviceInfoRequest": _Session._device_info,
    "ListEntitiesRequest": _Session._list,
    "SubscribeStatesRequest": _Session._subscribe,
    "ExecuteServiceRequest": _Session._execute,
    "DisconnectRequest": _Session._disconnect,
}
