"""A node of ESPHome as a relay board, by its native API.

The node has three actions, each of which answers (docs/esphome-door.yaml): ``vestibule_release`` switches an output on
for a time that the node itself measures, so that it ends whatever has died by then; ``vestibule_hold`` switches it on
until ``vestibule_secure``. Its binary sensors ``vestibule_output_N`` and ``vestibule_input_N`` say how it is. One
connection for each node is kept; a node that does not answer makes its own doors unreachable and keeps nobody else
waiting.

What this file refuses to do: speak without encryption; take another node for this one, also if it has the same key;
command an entity, which ESPHome does not confirm; send an action twice. One whose answer did not arrive has an unknown
outcome. It asks no name server and no neighbour for the node's address.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import math
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import Any, Final, override

from aioesphomeapi.client import APIClient
from aioesphomeapi.core import (
    APIConnectionError,
    BadNameAPIError,
    EncryptionHelloAPIError,
    EncryptionPlaintextAPIError,
    HandshakeAPIError,
    InvalidEncryptionKeyAPIError,
    ProtocolAPIError,
)
from aioesphomeapi.model import (
    BinarySensorInfo,
    BinarySensorState,
    DeviceInfo,
    EntityInfo,
    EntityState,
    ExecuteServiceResponse,
    SupportsResponseType,
    UserService,
    UserServiceArgType,
)

from gateway.log import say
from gateway.source import Unusable
from vestibule_core.errors import OutcomeUnknown, StrikeRefused, StrikeUnreachable
from vestibule_core.model import Sense
from vestibule_core.strike import Capabilities, Pulse, Reading

from .config import EsphomeConfig
from .line import FollowedBoard, ReportedOutput, ended, looked_at, numbered, pause
from .secret import read_secret

ANSWER: Final = 2.0
"""Seconds in which a node has to take a connection, and to answer. What the network has not delivered by then is
dropped, so that no release arrives when nobody expects it any more."""
GREETING: Final = 2.5
"""Seconds in which a node has to prove its key and to say what it has."""
LOOK: Final = 2.0
"""Seconds from one look at a node that says nothing by itself to the next."""
FIRST_RETRY: Final = 0.25
LONGEST_RETRY: Final = 10.0
"""Seconds between two attempts to reach a node that does not answer."""
_MOST_WORDS: Final = 100
"""Characters of what a node says that are passed on."""

_LOGGER: Final = logging.getLogger(__name__)
# What it logs as an error (nobody answers) is an ordinary thing here, and said once by this module.
logging.getLogger("aioesphomeapi").setLevel(logging.CRITICAL)


class Action(StrEnum):
    """What a node is told."""

    RELEASE = "vestibule_release"
    HOLD = "vestibule_hold"
    SECURE = "vestibule_secure"


ARGUMENTS: Final = {
    Action.RELEASE: {"channel": UserServiceArgType.INT, "ms": UserServiceArgType.INT},
    Action.HOLD: {"channel": UserServiceArgType.INT},
    Action.SECURE: {"channel": UserServiceArgType.INT},
}
type Key = tuple[int, int]
"""Of an entity: its sub-device and its number."""


def milliseconds(seconds: float) -> int:
    """Return for how long a release is: never less than what was asked for."""
    return max(math.ceil(round(seconds * 1000, 3)), 1)


@dataclass(frozen=True, slots=True)
class Found:
    """What a node has, of what it needs."""

    actions: dict[Action, UserService]
    outputs: dict[Key, int]
    """The entities that say how the outputs are, with their indexes."""
    inputs: dict[Key, int]
    missing: list[str]
    """In words for a person."""


def find(entities: Sequence[EntityInfo], services: Sequence[UserService], outputs: int, inputs: int) -> Found:
    """Look through what a node says that it has."""
    found = Found({}, {}, {}, [])
    named = {service.name: service for service in services}
    for action, arguments in ARGUMENTS.items():
        if (service := named.get(action)) is None:
            found.missing.append(f"the action {action}")
        elif {one.name: one.type for one in service.args} != arguments:
            found.missing.append(f"{' and '.join(arguments)}, and nothing else, as arguments of the action {action}")
        elif service.supports_response not in (SupportsResponseType.ONLY, SupportsResponseType.OPTIONAL):
            found.missing.append(f"the answer of the action {action}")
        else:
            found.actions[action] = service
    sensors = {one.object_id: (one.device_id, one.key) for one in entities if isinstance(one, BinarySensorInfo)}
    for keys, count, kind in ((found.outputs, outputs, "output"), (found.inputs, inputs, "input")):
        for index in range(count):
            name = f"vestibule_{kind}_{index + 1}"
            if (key := sensors.get(name)) is None:
                found.missing.append(f"the binary sensor {name}")
            else:
                keys[key] = index
    return found


class _Failed(Exception):
    """A connection did not come about. The text says why, for a person."""


class _Link:
    """A connection."""

    def __init__(self, client: APIClient) -> None:
        self.client = client
        self.found = Found({}, {}, {}, [])
        self.requests: set[asyncio.Task[Any]] = set()
        self.heard: dict[Key, BinarySensorState] = {}
        """The first states that the node says, while they are collected."""
        self.ready = asyncio.Event()
        """They are complete, or the connection is gone."""
        self.is_gone = False


class EsphomeBoard(FollowedBoard["EsphomeChannel"]):
    """Implements ``Board``."""

    def __init__(self, name: str, config: EsphomeConfig) -> None:
        """Make it; nothing is reached before ``start``. Raises Unusable if its key cannot be used."""
        super().__init__(
            name,
            Capabilities(device_timed=True, feedback=True, can_secure=True, can_hold=True),
            [EsphomeChannel(self, number) for number in range(1, config.outputs + 1)],
            config.inputs,
        )
        self._config, self._key = config, _read_key(name, config)
        self._link: _Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()

    # ---- life ----

    @override
    async def _let_go(self) -> None:
        await ended(self._connecting)
        self._forget()
        await asyncio.sleep(0)  # the socket is closed in the loop's next turn

    @property
    def is_reachable(self) -> bool:
        """Whether a connection to it is up."""
        return self._link is not None

    async def probe(self) -> str:
        """Ask it who it is and how everything is; raise StrikeUnreachable."""
        try:
            await self._linked()
            began = monotonic()
            info = await self.look()
            took = monotonic() - began
            on = [channel.number for channel in self._channels if channel.reading is Reading.RELEASED]
            active = [number for number, one in enumerate(self._inputs, 1) if one.sense is Sense.ACTIVE]
        finally:
            if self._following is None:
                self._forget()
                await asyncio.sleep(0)
        said = [f"node {info.name}, ESPHome {_words(info.esphome_version)}, answers in {took * 1000:.0f} ms"]
        said.append(f"{len(self._channels)} outputs, on: {numbered(on)}")
        if self._inputs:
            said.append(f"{len(self._inputs)} inputs, on: {numbered(active)}")
        return "; ".join(said)

    @override
    async def _follow(self) -> None:
        failures = 0
        while True:
            self._lost.clear()
            try:
                await self.look()
            except StrikeUnreachable:
                pass
            except Exception:
                _LOGGER.exception("A board could not be read in an unforeseen way")
                self._lose("an unforeseen error")
                failures = max(failures, 6)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await self._lost.wait()
            if self._link is not None:
                failures = 0
                continue
            await asyncio.sleep(pause(failures, FIRST_RETRY, LONGEST_RETRY))
            failures += 1

    # ---- what is asked of it ----

    async def look(self) -> DeviceInfo:
        """Make sure that it answers; raise StrikeUnreachable."""
        link = await self._linked()
        task: asyncio.Task[DeviceInfo] = asyncio.get_running_loop().create_task(link.client.device_info())
        try:
            return await self._answer(link, task)
        except _Failed as error:
            raise StrikeUnreachable(str(error)) from error

    async def command(self, action: Action, channel: EsphomeChannel, *, on: bool, **arguments: int) -> None:
        """Tell it something, once, and see whether the output is then as wanted.

        Raises StrikeUnreachable (it was told nothing), StrikeRefused or OutcomeUnknown.
        """
        link = await self._linked()
        heard = channel.heard
        asked = link.client.execute_service(
            link.found.actions[action],
            {"channel": channel.number, **arguments},
            return_response=True,
            timeout=10 * ANSWER,  # never reached: this module has a deadline of its own
        )
        # Eagerly, because nothing must happen to the connection between here and the write.
        task = asyncio.get_running_loop().create_task(asked, eager_start=True)
        try:
            answer = await self._answer(link, task)
        except _Failed as error:
            raise OutcomeUnknown(str(error)) from error
        if answer is not None and not answer.success:
            raise StrikeRefused(f"the node refused: {_words(answer.error_message) or 'it does not say why'}")
        if (is_on := _is_on(answer, channel.number)) is None:
            raise OutcomeUnknown("its answer does not say how its output is: has it the actions of esphome-door.yaml?")
        if link is self._link and channel.heard == heard:  # else it has said since how it is, perhaps after this answer
            channel.read(Reading.RELEASED if is_on else Reading.SECURED)
        if is_on is on:
            return
        if on:
            raise OutcomeUnknown("the node confirmed the command, but its output is off")
        raise StrikeRefused("the node confirmed the command, but its output is on")

    async def _answer[T](self, link: _Link, task: asyncio.Task[T]) -> T:
        """Return what a request comes to; raise _Failed, after which there is no connection."""
        link.requests.add(task)
        task.add_done_callback(looked_at)
        try:
            await asyncio.wait({task}, timeout=ANSWER)
        finally:
            link.requests.discard(task)
            task.cancel()
        if not task.done():
            self._drop(link, "it has not answered in time")
            raise _Failed("it has not answered in time")
        if task.cancelled() or isinstance(task.exception(), APIConnectionError):
            self._drop(link, "the connection was lost before it answered")
            raise _Failed("the connection was lost before it answered")
        return task.result()

    # ---- the connection ----

    async def _linked(self) -> _Link:
        """Return the connection, or what an attempt to make one comes to; raise StrikeUnreachable."""
        if self._link is None:
            if self._connecting is None:  # else everybody waits for the same attempt
                self._connecting = asyncio.get_running_loop().create_task(self._connect())
                self._connecting.add_done_callback(self._connected)
            await asyncio.shield(self._connecting)
        if self._link is None:
            raise StrikeUnreachable(self.reason or "the connection was lost")
        return self._link

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        looked_at(task)

    async def _connect(self) -> None:
        """Try to connect, once; ``reason`` says why it did not come about."""
        config = self._config
        client = APIClient(
            config.host,
            config.port,
            None,
            client_info="vestibule-gateway",
            noise_psk=self._key,
            expected_name=config.node,
            provide_time=False,
        )
        link = _Link(client)
        try:
            with _explained(config.node):
                await self._greet(link, await _dial(config.host, config.port))
        except _Failed as error:
            self._lose(str(error))
        else:
            self._link = link
            if self.reason is not None:
                say(_LOGGER, logging.INFO, "board_back", board=self._name)
                self.reason = None
            for state in link.heard.values():
                self._take(link, state)
            for channel in self._channels:
                channel.changed()
        finally:
            if self._link is not link:
                client.force_disconnect()

    async def _greet(self, link: _Link, taken: socket.socket) -> None:
        """Make sure that it is the node, ask what it has, and wait until it has said how everything is."""

        async def stopped(_expected: bool) -> None:
            self._gone(link)

        client, config = link.client, self._config
        client.start_connection_from_socket(taken, on_stop=stopped, log_errors=False)
        async with asyncio.timeout(GREETING):
            await client.finish_connection()
            info, entities, services = await client.device_info_and_list_entities()
            if info.name != config.node:  # what was compared before may have been left out
                raise _Failed(f"another node is at this address, not {config.node}")
            link.found = found = find(entities, services, config.outputs, config.inputs)
            if found.missing:
                raise _Failed(f"it lacks {', '.join(found.missing)}: see esphome-door.yaml")
            client.subscribe_states(lambda state: self._hear(link, state))
            await link.ready.wait()
        if link.is_gone:
            raise _Failed("the connection was lost before it said how it is")

    def _hear(self, link: _Link, state: EntityState) -> None:
        if not isinstance(state, BinarySensorState):
            return
        if link is self._link:
            self._take(link, state)
            return
        wanted = link.found.outputs.keys() | link.found.inputs.keys()
        if (key := (state.device_id, state.key)) in wanted:
            link.heard[key] = state
            if len(link.heard) == len(wanted):
                link.ready.set()

    def _take(self, link: _Link, state: BinarySensorState) -> None:
        key = state.device_id, state.key
        if (index := link.found.outputs.get(key)) is not None:
            self._channels[index].heard += 1
            on = Reading.RELEASED if state.state else Reading.SECURED
            self._channels[index].read(Reading.UNKNOWN if state.missing_state else on)
        elif (index := link.found.inputs.get(key)) is not None:
            active = Sense.ACTIVE if state.state else Sense.INACTIVE
            self._inputs[index].say(Sense.UNKNOWN if state.missing_state else active)

    def _gone(self, link: _Link) -> None:
        link.is_gone = True
        link.ready.set()
        self._drop(link, "it has closed the connection")

    def _drop(self, link: _Link, reason: str) -> None:
        """Lose ``link``, unless that has happened already."""
        if link is self._link:
            self._lose(reason)

    def _lose(self, reason: str) -> None:
        """Close the connection, and say why."""
        if self.reason is None:
            say(_LOGGER, logging.WARNING, "board_lost", board=self._name, reason=reason)
        self.reason = reason
        self._forget()

    def _forget(self) -> None:
        """Close the connection: nothing that was known of the node is known any more."""
        link, self._link = self._link, None
        if link is not None:
            for task in link.requests:
                # Not at once: it may have its answer already, and not know yet.
                asyncio.get_running_loop().call_soon(task.cancel)
            link.client.force_disconnect()
        self._lost.set()
        for channel in self._channels:
            channel.read(Reading.UNKNOWN)
            channel.changed()
        for one in self._inputs:
            one.say(Sense.FAULT)


class EsphomeChannel(ReportedOutput):
    """An output of a node. Implements ``Channel``."""

    def __init__(self, board: EsphomeBoard, number: int) -> None:
        """Take its number, from 1."""
        super().__init__(board, number)
        self.heard = 0
        """How often the node has said by itself how it is."""
        self._board = board

    @property
    @override
    def is_reachable(self) -> bool:
        """Whether the node answers."""
        return self._board.is_reachable

    async def reach(self) -> None:
        """Ask the node something; raise StrikeUnreachable."""
        await self._board.look()

    async def release(self, pulse: Pulse) -> None:
        """Switch on for the pulse's time, which the node measures, and of which it takes no more than it says."""
        await self._board.command(Action.RELEASE, self, on=True, ms=milliseconds(pulse.seconds))

    async def hold(self, origin: object) -> None:  # noqa: ARG002 - every strike is told; this one has no use for it
        """Switch on until ``secure``."""
        await self.leave_on(self._board.command(Action.HOLD, self, on=True))

    async def secure(self) -> None:
        """Switch off; that ends a release as well."""
        await self._board.command(Action.SECURE, self, on=False)
        self.was_left_on = False


def _read_key(name: str, config: EsphomeConfig) -> str:
    place = f"[board.{name}] key_file"
    try:
        text = read_secret(config.key_file)
    except Unusable as err:
        raise Unusable(f"{place}: {err}") from err
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 32 or not any(key):  # nothing but zeros is what every node takes that was not given a key yet
        raise Unusable(f"{place}: {config.key_file} is not 32 bytes in base64, as `openssl rand -base64 32` makes them")
    return text


async def _dial(host: str, port: int) -> socket.socket:
    """Return a connection to an address; raise _Failed."""
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=numeric)[0]
    taken = socket.socket(family, kind, protocol)
    try:
        taken.setblocking(False)
        # A release that waits in this machine for a network that is away must not open the door when it is back.
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(ANSWER * 1000))
        async with asyncio.timeout(ANSWER):
            await asyncio.get_running_loop().sock_connect(taken, address)
    except OSError as err:  # a TimeoutError, too
        taken.close()
        raise _Failed("it takes no connection: has it power, and is its address right?") from err
    except BaseException:
        taken.close()
        raise
    return taken


@contextmanager
def _explained(node: str) -> Iterator[None]:
    """Turn what can go wrong with a connection into _Failed."""
    try:
        yield
    except TimeoutError as err:
        raise _Failed("it has not answered in time") from err
    except InvalidEncryptionKeyAPIError as err:
        raise _Failed("its key is another one than that in key_file") from err
    except BadNameAPIError as err:
        raise _Failed(f"another node is at this address: {_words(err.received_name)}, not {node}") from err
    except (EncryptionPlaintextAPIError, EncryptionHelloAPIError) as err:
        raise _Failed("it speaks without encryption: give it a key (api: encryption: key:)") from err
    except (HandshakeAPIError, ProtocolAPIError) as err:
        raise _Failed("it does not speak as ESPHome does: is something else at this address?") from err
    except APIConnectionError as err:
        raise _Failed("the connection was lost before it said how it is") from err


def _is_on(answer: ExecuteServiceResponse | None, channel: int) -> bool | None:
    """Return what an answer says of an output; None if it says nothing of it."""
    try:
        said = json.loads(answer.response_data) if answer is not None else None
    except ValueError:
        return None
    match said:
        case {"channel": int(which), "on": bool(on)} if which == channel and not isinstance(which, bool):
            return on
    return None


def _words(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:_MOST_WORDS])
