"""A Shelly of the second generation or later, as a relay board.

One WebSocket to each unit, one request at a time on it, and a deadline for each. A release is ``Switch.Set`` with
``toggle_after``: the unit itself switches off again, whatever has died by then. What changes at its outputs and inputs
it says by itself; every few seconds it is asked for all of it, which also shows whether it is still there.

A WebSocket, and not an HTTP request for each command: the password is proven with one challenge that serves every
request, on all firmware, and ``reach`` has shown that it does a moment before a token is spent. Over HTTP a challenge
may serve once only (before firmware 2.0), or there are 32 of them in an hour (since), so that a release would need one
more round trip, or be sent twice, as aiohttp's digest middleware does after a 401. And what takes the release is what
has just said who it is, not whatever answers on the next connection.

What this file refuses to do: send a release twice, also after a 401, which says that nothing moved. Follow a redirect.
Send anything to a unit without a password, unless it is told so, or to another unit than it was told. Leave a release
in the system's buffers: a connection that is given up is reset, so that nothing is delivered when the radio is back,
long after everybody was told that the outcome is unknown. A Shelly proves nothing and encrypts nothing; whoever can
listen in its network can act in it (docs/gateway.md).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from time import monotonic
from typing import Any, Final, Self, override

from aiohttp import (
    ClientError,
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientWebSocketResponse,
    DummyCookieJar,
    TCPConnector,
    WSMsgType,
)
from yarl import URL

from gateway.log import say
from vestibule_core.errors import OutcomeUnknown, StrikeRefused, StrikeUnreachable, VestibuleError
from vestibule_core.model import Sense
from vestibule_core.strike import Capabilities, Pulse, Reading

from . import shelly_rpc as rpc
from .board import drop_at_the_end
from .config import ShellyConfig
from .line import FollowedBoard, ReportedOutput, numbered, pause
from .shelly_rpc import FIRST_GENERATION, LARGEST_FRAME, NONSENSE, Answer, Challenge, Garbage, Notice, Unit

ANSWER: Final = 2.0
"""Seconds in which a unit has to take a connection, and to answer a request. Its radio sleeps now and then."""
FIRST_RETRY: Final = 0.25
LONGEST_RETRY: Final = 10.0
"""Seconds between two attempts to reach a unit that does not answer."""
LOCKED_OUT: Final = 60.0
"""Seconds for which one that refused the password is left alone: it counts failures, and locks everybody out."""
FRESH: Final = 1800.0
"""Seconds for which a challenge is used: half the time for which it is good."""
TENTH: Final = 0.1
_LONGEST_WORD: Final = 4096
"""Bytes that are read of what is no Shelly."""
MOST_COMPLAINTS: Final = 8
"""Lines in the log for one outage: what a unit says of itself is in some of them."""

_LOGGER: Final = logging.getLogger(__name__)


def seconds_on(pulse: float) -> float:
    """Return ``toggle_after``: never less than what was asked for, in tenths of a second."""
    return max(math.ceil(round(pulse / TENTH, 6)), 1) / 10


class _NotSent(Exception):
    """The connection was closed before the request was written."""


class _NoAnswer(Exception):
    """A request was sent and not answered in time or in sense; the connection is closed."""


class _Declined(Exception):
    """The unit answered with an error."""

    def __init__(self, code: int) -> None:
        super().__init__(f"error {code}")
        self.code = code


class ShellyBoard(FollowedBoard["ShellyChannel"]):
    """Implements ``Board``."""

    def __init__(self, name: str, config: ShellyConfig, password: str | None) -> None:
        """Make it; nothing is reached before ``start``."""
        super().__init__(
            name,
            Capabilities(device_timed=True, feedback=True, can_secure=True, can_hold=True),
            [ShellyChannel(self, index) for index in range(config.outputs)],
            config.inputs,
        )
        self._config, self._password = config, password
        self._turn = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._link: _Link | None = None
        self._unit: Unit | None = None
        self._challenge: Challenge | None = None
        self._challenged_at = -math.inf
        self._has_answered = False
        """On the connection that is up, with its state."""
        self._began = -math.inf
        """When it was connected to last."""
        self._came_to_nothing = -math.inf
        """When a connection was begun on which it did not tell its state."""
        self._not_before = -math.inf
        """When it may be tried again."""
        self._examined: _Link | None = None
        """The connection on which its settings were looked at."""
        self._dangers: list[str] = []
        self._complaints: set[str] = set()
        """What was logged since it answered the last time: each once."""
        self._look_now = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()

    # ---- life ----

    async def probe(self) -> str:
        """Look at its state and its settings once; raise StrikeUnreachable."""
        began = monotonic()
        try:
            await self._look()
            took = monotonic() - began
            found = await self._examine()
            unit = self._unit
            on = [channel.number for channel in self._channels if channel.reading is Reading.RELEASED]
            closed = [number for number, one in enumerate(self._inputs, 1) if one.sense is Sense.ACTIVE]
        finally:
            if self._following is None:
                await self._let_go()
        assert unit is not None
        said = [
            f"{unit.model}, firmware {unit.version}, {unit.id}",
            f"answers in {took * 1000:.0f} ms",
            f"{len(self._channels)} outputs, on: {numbered(on)}",
        ]
        if self._inputs:
            said.append(f"{len(self._inputs)} inputs, closed: {numbered(closed)}")
        return "; ".join([*said, *(f"WARNING: {danger}" for danger in found)])

    @override
    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                await self._look()
                if self._link is not self._examined:
                    link = self._link
                    self._warn(await self._examine())
                    self._examined = link
            except StrikeUnreachable:
                wait = max(pause(failures, FIRST_RETRY, LONGEST_RETRY), self._not_before - monotonic())
                failures += 1
            except Exception:
                _LOGGER.exception("A Shelly could not be read in an unforeseen way")
                self._lose("an unforeseen error")
                wait = LONGEST_RETRY
            else:
                wait, failures = self._config.poll, 0
            self._look_now.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._look_now.wait()

    def _warn(self, dangers: list[str]) -> None:
        """Log what endangers its doors, once as long as it does."""
        for danger in dangers:
            if danger not in self._dangers:
                say(_LOGGER, logging.WARNING, "board_endangered", board=self._name, reason=danger)
        self._dangers = dangers

    # ---- what is asked of it ----

    async def _look(self) -> None:
        """Read its whole state; raise StrikeUnreachable."""
        async with self._its_turn():
            if monotonic() - self._challenged_at > FRESH:
                self._challenge = None  # so that none runs out between reach and release
            await self._read_state()

    async def look_at(self, index: int) -> None:
        """Read an output; raise StrikeUnreachable."""
        async with self._its_turn():
            await self._read_output(index)

    async def _examine(self) -> list[str]:
        """Return what in its settings endangers its doors; raise StrikeUnreachable."""
        async with self._its_turn():
            status = await self._question("Shelly.GetStatus")
            config = await self._question("Shelly.GetConfig")
        open_to_all = [] if self._password is not None else ["it has no password: whoever reaches it opens its doors"]
        return open_to_all + rpc.dangers(status, config, len(self._channels), len(self._inputs))

    async def command(self, index: int, on: bool, want: Reading, *, seconds: float | None = None) -> None:
        """Switch an output, once, and see whether it reads as wanted (for ``seconds``, if it is for a time).

        Raises StrikeUnreachable (it was told nothing), StrikeRefused or OutcomeUnknown.
        """
        async with self._its_turn():
            if self._password is not None and self._challenge is None:
                await self._read_output(index)  # gets one: a command is not sent to be refused
            told_at = monotonic()
            timer = {} if seconds is None else {"toggle_after": seconds}
            try:
                result = await self._ask("Switch.Set", {"id": index, "on": on, **timer})
                if type(result.get("was_on")) is not bool:
                    raise self._nonsense()
            except _NotSent as error:
                raise StrikeUnreachable(self.reason) from error
            except _NoAnswer as error:
                raise OutcomeUnknown(str(error)) from error
            except _Declined as declined:
                raise _refusal(declined.code) from declined
            try:
                await self._read_output(index)
            except StrikeUnreachable:
                return  # it confirmed the command, and has been lost since
        lasts = math.inf if seconds is None else seconds
        if self._channels[index].reading is want or monotonic() - told_at >= lasts:
            return
        if want is Reading.SECURED:
            raise StrikeRefused("the unit confirmed the command, but reads as released")
        raise OutcomeUnknown("the unit confirmed the command, but does not read as released")

    # ---- one request ----

    @asynccontextmanager
    async def _its_turn(self) -> AsyncGenerator[None]:
        """Wait for a turn, and for a connection; raise StrikeUnreachable."""
        began = monotonic()
        async with self._turn:
            if self._link is None:
                if self._came_to_nothing >= began or monotonic() < self._not_before:
                    raise StrikeUnreachable(self.reason or "the unit does not answer")
                await self._connect()
            yield

    async def _connect(self) -> None:
        """Connect, and see who it is and how its lines are; raise StrikeUnreachable."""
        self._began, self._unit = monotonic(), None
        try:
            async with asyncio.timeout(ANSWER):
                link = await _Link.open(self._config.host, self._config.port, self._heard, self._link_lost)
        except _NotAShelly as error:
            self._lose(str(error))
            raise StrikeUnreachable(self.reason) from error
        except (TimeoutError, OSError, ClientError) as error:
            self._lose("it takes no connection: has it power, and is its address right?")
            raise StrikeUnreachable(self.reason) from error
        self._link = link
        try:
            self._unit = unit = rpc.read_unit(await self._question("Shelly.GetDeviceInfo"))
        except Garbage as error:
            raise StrikeUnreachable(str(self._nonsense())) from error
        if why_not := rpc.objection(unit, self._config.device, has_password=self._password is not None):
            self._lose(why_not)
            raise StrikeUnreachable(self.reason)
        if self._challenge is not None and self._challenge.realm != unit.id:
            self._challenge = None
        await self._read_state()
        self._look_now.set()

    async def _read_state(self) -> None:
        status = await self._question("Shelly.GetStatus")
        try:
            lacks = rpc.missing(status, len(self._channels), len(self._inputs))
            outputs = rpc.read_outputs(status, len(self._channels))
        except Garbage as error:
            raise StrikeUnreachable(str(self._nonsense())) from error
        if lacks is not None:
            self._lose(lacks)
            raise StrikeUnreachable(self.reason)
        self._has_answered = True
        if self.reason is not None:
            say(_LOGGER, logging.INFO, "board_back", board=self._name)
            self.reason = None
            self._complaints.clear()
        no_contacts = dict.fromkeys(range(len(self._inputs)), Sense.FAULT)
        self._take(outputs, no_contacts | rpc.read_inputs(status, len(self._inputs)))

    async def _read_output(self, index: int) -> None:
        status = await self._question("Switch.GetStatus", id=index)
        try:
            outputs = rpc.read_outputs({f"switch:{index}": status}, len(self._channels))
        except Garbage as error:
            raise StrikeUnreachable(str(self._nonsense())) from error
        if not outputs:
            raise StrikeUnreachable(str(self._nonsense()))
        self._take(outputs, {})

    def _take(self, outputs: Mapping[int, Reading], inputs: Mapping[int, Sense]) -> None:
        for index, reading in outputs.items():
            self._channels[index].read(reading)
        for index, sense in inputs.items():
            self._inputs[index].say(sense)

    async def _question(self, method: str, **params: int) -> Mapping[str, Any]:
        """Ask what moves nothing, once more if the challenge is not good any more; raise StrikeUnreachable."""
        try:
            try:
                return await self._ask(method, params)
            except _Declined as declined:
                if declined.code != HTTPStatus.UNAUTHORIZED or self._challenge is None:
                    raise
                return await self._ask(method, params)
        except (_NoAnswer, _NotSent) as error:
            raise StrikeUnreachable(self.reason) from error
        except _Declined as declined:
            match declined.code:
                case HTTPStatus.UNAUTHORIZED:
                    self._challenge = None
                    self._lose("it does not take the password: is it the one in password_file?", leave_alone=LOCKED_OUT)
                case HTTPStatus.TOO_MANY_REQUESTS:
                    why = "it takes no password for a while, because there were too many attempts or wrong ones"
                    self._lose(why, leave_alone=LOCKED_OUT)
                case code:
                    self._lose(f"it does not answer {method} (error {code}): has it so many outputs and inputs?")
            raise StrikeUnreachable(self.reason) from declined

    async def _ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a request, once, and return the result; raise _NotSent, _NoAnswer or _Declined."""
        if (link := self._link) is None:
            raise _NotSent(self.reason)
        frame = {"id": next(self._numbers), "src": "vestibule-gateway", "method": method, "params": params}
        # Not before it is known who it is: a proof is a gift to whoever tries passwords.
        if self._password is not None and self._challenge is not None and self._unit is not None:
            frame["auth"] = rpc.proof(self._challenge, self._password)
            self._challenge = self._challenge.next
        try:
            async with asyncio.timeout(ANSWER):
                answer = await link.ask(frame)
        except asyncio.CancelledError:
            self._forget()
            raise
        except TimeoutError as error:
            self._lose("it has not answered in time")
            raise _NoAnswer(self.reason) from error
        except (_NoAnswer, _NotSent) as error:
            self._link_lost(link, str(error))
            raise
        if answer.result is not None:
            return answer.result
        if answer.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS):
            self._challenge = None
        if answer.code == HTTPStatus.UNAUTHORIZED and self._unit is not None:
            try:
                self._challenge, self._challenged_at = rpc.read_challenge(answer.message, self._unit), monotonic()
            except Garbage as error:
                raise self._nonsense() from error
        raise _Declined(answer.code)

    def _heard(self, link: _Link, notice: Notice) -> None:
        """Take what it says by itself."""
        if (
            link is not self._link
            or not self._has_answered
            or notice.method not in ("NotifyStatus", "NotifyFullStatus")
        ):
            return
        try:
            outputs = rpc.read_outputs(notice.params, len(self._channels))
        except Garbage:
            self._nonsense()
            return
        self._take(outputs, rpc.read_inputs(notice.params, len(self._inputs)))

    def _nonsense(self) -> _NoAnswer:
        self._lose(NONSENSE)
        return _NoAnswer(self.reason)

    def _link_lost(self, link: _Link, reason: str) -> None:
        if link is self._link:
            self._lose(reason)

    def _lose(self, reason: str, *, leave_alone: float = 0.0) -> None:
        """Close the connection, and say why."""
        if reason not in self._complaints and len(self._complaints) < MOST_COMPLAINTS:
            self._complaints.add(reason)
            say(_LOGGER, logging.WARNING, "board_lost", board=self._name, reason=reason)
        self.reason = reason
        if not self._has_answered:
            self._came_to_nothing = self._began
        if leave_alone:
            self._not_before = monotonic() + leave_alone
        self._forget()

    def _forget(self) -> None:
        """Close the connection: nothing that was known of the unit is known any more."""
        link, self._link, self._has_answered = self._link, None, False
        if link is not None:
            task = asyncio.get_running_loop().create_task(link.close())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        for channel in self._channels:
            channel.read(Reading.UNKNOWN)
        for one in self._inputs:
            one.say(Sense.FAULT)

    @override
    async def _let_go(self) -> None:
        self._forget()
        if self._ending:
            await asyncio.wait(self._ending)


class _NotAShelly(Exception):
    """What answers speaks no RPC. The text is for a person."""


class _NoUpgrade(Exception):
    """The answer to the handshake is another one than 101."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Link:
    """A connection to a unit: a request at a time, and what it says by itself in between."""

    def __init__(
        self,
        session: ClientSession,
        socket: ClientWebSocketResponse,
        heard: Callable[[_Link, Notice], None],
        lost: Callable[[_Link, str], None],
    ) -> None:
        self._session, self._socket, self._heard, self._lost = session, socket, heard, lost
        self._asked: tuple[int, asyncio.Future[Answer]] | None = None
        self._is_over = False
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def open(
        cls, host: str, port: int, heard: Callable[[_Link, Notice], None], lost: Callable[[_Link, str], None]
    ) -> Self:
        """Connect; raise OSError, ClientError or _NotAShelly."""
        session = ClientSession(
            connector=TCPConnector(socket_factory=_reset_at_the_end),
            middlewares=(_no_detour,),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
        )
        url = URL.build(scheme="http", host=host, port=port, path="/rpc")
        try:
            try:
                socket = await session.ws_connect(url, max_msg_size=LARGEST_FRAME)
            except _NoUpgrade as error:
                raise _NotAShelly(await _what_else(session, url, error.status)) from error
        except BaseException:
            await session.close()
            raise
        return cls(session, socket, heard, lost)

    async def ask(self, frame: Mapping[str, Any]) -> Answer:
        """Send a request and return the answer to it; raise _NotSent or _NoAnswer. Has no deadline of its own."""
        if self._is_over or self._socket.closed:
            raise _NotSent("the connection is closed")
        asked: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked = frame["id"], asked
        try:
            await self._socket.send_str(json.dumps(frame))
            return await asked
        except (ClientError, OSError) as error:
            raise _NoAnswer("the connection was lost before it answered") from error
        finally:
            self._asked = None
            asked.cancel()

    async def _read(self) -> None:
        why = "it has closed the connection"
        try:
            async for message in self._socket:
                if message.type is not WSMsgType.TEXT:
                    raise Garbage(message.type.name)
                match rpc.read_frame(message.data):
                    case Notice() as notice:
                        self._heard(self, notice)
                    case answer if self._asked is not None and answer.id == self._asked[0]:
                        if not self._asked[1].done():
                            self._asked[1].set_result(answer)
        except Garbage:
            why = NONSENSE
        except ClientError, OSError:
            pass
        self._is_over = True  # before anybody is told
        self._lost(self, why)
        self._give_up(why)

    def _give_up(self, why: str) -> None:
        self._is_over = True
        if self._asked is not None and not self._asked[1].done():
            self._asked[1].set_exception(_NoAnswer(why))

    async def close(self) -> None:
        """Reset the connection: what the unit has not got yet, it does not get any more."""
        self._give_up("the connection was given up")
        self._reading.cancel()
        await asyncio.wait({self._reading})
        await self._session.close()
        await self._socket.close()  # after it: there is no goodbye to wait for


def _reset_at_the_end(address: Any) -> socket.socket:
    """Make a socket whose buffers are thrown away when it is closed."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    drop_at_the_end(made)
    return made


async def _no_detour(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Take the answer of who was asked, and no other: aiohttp's handshake would follow a redirect."""
    response = await handler(request)
    if response.status != HTTPStatus.SWITCHING_PROTOCOLS:
        response.close()
        raise _NoUpgrade(response.status)
    return response


async def _what_else(session: ClientSession, url: URL, status: int) -> str:
    """Return what it is that takes no WebSocket, in words for a person."""
    said = b""
    with suppress(ClientError, OSError):
        async with session.get(url.with_path("/shelly"), allow_redirects=False, middlewares=()) as response:
            async for piece in response.content.iter_any():
                said += piece
                if len(said) > _LONGEST_WORD:
                    break
    if rpc.is_first_generation(said.decode("utf-8", "replace")):
        return FIRST_GENERATION
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return f"it sends whoever asks elsewhere (HTTP {status}), where nobody goes: is it a Shelly?"
    return f"it takes no WebSocket (HTTP {status}): is it a Shelly, and has it too many connections?"


class ShellyChannel(ReportedOutput):
    """An output of a unit. Implements ``Channel``."""

    def __init__(self, board: ShellyBoard, index: int) -> None:
        """Take the id of its switch, from 0."""
        super().__init__(board, index + 1)
        self._board, self._index = board, index
        self._timer_until = -math.inf

    async def reach(self) -> None:
        """Ask the unit how this output is, which proves the password as well; raise StrikeUnreachable."""
        await self._board.look_at(self._index)

    async def release(self, pulse: Pulse) -> None:
        """Switch on for the pulse's time, rounded up to 0.1 s; the unit ends it."""
        seconds = seconds_on(pulse.seconds)
        self._timer_until = monotonic() + ANSWER + seconds
        await self._board.command(self._index, True, Reading.RELEASED, seconds=seconds)
        self.was_left_on = False  # a hold, if there was one, ends with this

    async def hold(self, origin: object) -> None:  # noqa: ARG002 - every strike is told; this one has no use for it
        """Switch on until ``secure``."""
        if monotonic() < self._timer_until:
            # No document says whether a timer that is running ends a plain on, too, when its time is over.
            await self._switch_off()
        await self.leave_on(self._board.command(self._index, True, Reading.RELEASED))

    async def secure(self) -> None:
        """Switch off; that ends a timed release as well."""
        await self._switch_off()

    async def _switch_off(self) -> None:
        await self._board.command(self._index, False, Reading.SECURED)
        self.was_left_on, self._timer_until = False, -math.inf


def _refusal(code: int) -> VestibuleError:
    """Return what to raise for the error that answered a command."""
    match code:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.TOO_MANY_REQUESTS:
            return StrikeRefused("the unit wants its password proven anew: try again")
        case HTTPStatus.NOT_FOUND | -103 | -105 | -112:  # no such method; an argument is wrong, or of nothing there is
            return StrikeRefused(f"the unit does not know this command (error {code}): is it a switch, and that many?")
        case -107 | -109:  # it may not; something is in the way: too hot, too much current, calibration
            return StrikeRefused(f"the unit will not switch now (error {code}): its own page says why")
        case _:
            return OutcomeUnknown(f"the unit does not say whether it moved (error {code})")
