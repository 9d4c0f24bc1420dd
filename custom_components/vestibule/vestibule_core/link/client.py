"""The controller's end of the link to a carrier's cloud: one outbound WebSocket (protocol G).

The controller calls, so that a building needs no open port. What the cloud asks is answered at once or never: a token
that was cut off with its connection is not judged later. What this file refuses to do: speak without encryption to
anybody but this very machine, follow a redirect, use a proxy or a cookie, go on after a frame that it does not
understand, or write any part of a token down.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from time import monotonic
from typing import Final, Protocol

import aiohttp
from yarl import URL

from .. import keyset
from ..errors import KeySetInvalid, MalformedMessage, Refused, VestibuleError
from ..keyset import KeySet, Root
from ..model import Code, DoorId, Issuer, Word
from ..note import SignerKey
from . import standing
from .code import EnrolmentCode
from .messages import (
    FROM_CLOUD,
    FROM_CONTROLLER,
    MAX_FRAME,
    MOST_OPEN,
    Accepted,
    AskChallenge,
    AskList,
    Begin,
    Challenge,
    Close,
    FromCloud,
    FromController,
    Greeting,
    Hello,
    IssuedPart,
    Keys,
    NoChallenge,
    Outcome,
    Ping,
    Pong,
    SignedChallenge,
    TooLong,
    Unlock,
    write_challenge,
    write_hello,
)
from .standing import LinkState, Trouble

_LOGGER = logging.getLogger(__name__)

PATH: Final = "/v1/link"
DEADLINE: Final = 15.0
"""Seconds until the connection stands, and for each of the first two frames of the cloud."""
SILENCE: Final = 90.0
"""Seconds without a frame after which the link is lost; the cloud pings every 30."""
PAUSES: Final = (1.0, 300.0)
"""Seconds between two attempts, at the least and at the most (RFC 6455, 7.2.3)."""
SPREAD: Final = 14.0
"""Seconds over which the first attempts of many buildings are spread; doubled with each failure. Ten thousand that lose
the same cloud in the same second come back at 700 a second.
"""
TAKEN_OVER_PAUSE: Final = 60.0
"""Seconds at the least, when another connection of this controller has begun: two copies must not fight all day."""
TURNED_AWAY_PAUSE: Final = 3600.0
"""Seconds between two attempts when the cloud has said that it does not want us."""
_SENDING: Final = 10.0
"""Seconds for a frame to be taken by the network; a cloud that does not read is let go of."""
_CLOSING: Final = 2.0

_TURNED_AWAY: Final = frozenset({LinkState.WRONG_ISSUER, LinkState.NOT_ENROLLED, LinkState.CODE_UNUSABLE})
_CLOSED: Final = {
    Close.GOING_AWAY: LinkState.NOT_READY,
    Close.TAKEN_OVER: LinkState.TAKEN_OVER,
    Close.NOT_ENROLLED: LinkState.NOT_ENROLLED,
    Close.CODE_UNUSABLE: LinkState.CODE_UNUSABLE,
    Close.VIOLATION: LinkState.NO_CLOUD,
}


class WrongIssuer(VestibuleError):
    """The cloud says that it is another carrier's than this link is for."""

    def __init__(self, said: Issuer) -> None:
        """``said``: whose it says that it is."""
        super().__init__(f"this is the cloud of {said}")
        self.said = said


class NotLinked(VestibuleError):
    """There is no link, or no more. ``state`` says why."""

    def __init__(self, state: LinkState, why: str) -> None:
        """``why``: in words, for a log."""
        super().__init__(why)
        self.state = state


class Host(Protocol):
    """A controller, as one link needs it. Nothing here may raise anything but what is named."""

    @property
    def key(self) -> SignerKey:
        """Its identity."""
        ...

    def hello(self, begin: Begin) -> Hello:
        """Return what is so now. Raises WrongIssuer."""
        ...

    async def challenge(self, door: DoorId) -> tuple[str, int]:
        """Return a fresh challenge of a door, and for how many seconds it is good. Raises Refused."""
        ...

    async def present(self, token: str) -> tuple[Word, Code | None]:
        """Have a token judged for this link's issuer; return what its carrier may hear."""
        ...

    async def take_keys(self, keys: Keys) -> None:
        """Take a key set. Raises KeySetInvalid: it is not taken, and the host says so."""
        ...

    async def take_issued(self, text: str) -> None:
        """Take a part of a list. Raises KeySetInvalid: it is not taken."""
        ...


class Link:
    """A link that is kept up. Belongs to one event loop."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        where: str,
        host: Host,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Go to ``where``, a host with its port if that is not 443; of ``session`` only the connector is used, which
        keeps no cookies and knows no proxies. ``chance``: a number in [0, 1), for pauses.
        """
        self.state = LinkState.CONNECTING
        self.why = ""
        """What the last attempt ended with, in words."""
        self._session = session
        self._where = where
        self._host = host
        self._chance = chance
        self._line: _Line | None = None
        self._stood: float | None = None
        """As ``standing.after`` has it, of the connection that there is or was last."""
        self._trouble: Trouble | None = None
        self._listeners: list[Callable[[], None]] = []

    @property
    def is_connected(self) -> bool:
        """Whether the cloud has accepted our hello."""
        return self.state is LinkState.CONNECTED

    @property
    def trouble(self) -> LinkState | None:
        """What keeps the link from standing and is a matter for people (``standing.told``), also while one that is
        new looks well; None: nothing.
        """
        return standing.told(self._trouble, self._stood, monotonic())

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` at each change of ``state``; return what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def run(self) -> None:
        """Keep the link up until cancelled; what is being answered is cut off then."""
        failures = 0
        while True:
            self._stood = None
            try:
                await self._once()
            except NotLinked as err:
                _LOGGER.debug("link to %s: %s", self._where, err)
                self._ended(err.state, str(err))
            except Exception:
                # Whatever it is: a link that is never begun again would keep every driver of this carrier outside.
                _LOGGER.exception("A bug of Vestibule ended the link to %s", self._where)
                self._ended(LinkState.CONNECTING, "a fault of this program: see the log")
            except BaseException:
                self._set(LinkState.CONNECTING, "ended")
                raise
            if standing.has_stood(self._stood):
                failures = 0
            await asyncio.sleep(pause(self.state, failures, self._chance()))
            failures += 1

    async def _once(self) -> None:
        line = await _open(self._session, self._where)
        self._stood = 0.0
        try:
            await self._serve(line)
        finally:
            self._line = None
            await line.close()

    async def _serve(self, line: _Line) -> None:
        begin = await line.read(Begin)
        try:
            hello = self._host.hello(begin)
        except WrongIssuer as err:
            raise NotLinked(LinkState.WRONG_ISSUER, str(err)) from err
        await line.send(Greeting(_written(self._host.key, hello)))
        keys = await line.read(Keys)
        self._line = line
        self._set(LinkState.CONNECTED, "")
        accepted_at = monotonic()

        def heard() -> None:
            self._stood = monotonic() - accepted_at

        work = _Work(line, self._host, hello, heard)
        try:
            await work.take(keys)
            await work.listen()
        finally:
            await work.cut()

    # ---- what is told unasked ----

    def accepted(self, jti: bytes, door: DoorId, code: Code) -> None:
        """Tell of a token that was accepted, if there is a link. After a cut the host tells of the last ones again."""
        self._tell(Accepted(jti, door, code))

    def ask_list(self, day: date) -> None:
        """Ask for the list of a day once more, if there is a link."""
        self._tell(AskList(day))

    def _tell(self, frame: FromController) -> None:
        if self._line is not None:
            self._line.send_soon(frame)

    def _ended(self, state: LinkState, why: str) -> None:
        self._trouble = standing.after(self._trouble, state, self._stood, monotonic())
        self._set(state, why)

    def _set(self, state: LinkState, why: str) -> None:
        is_news = state is not self.state
        self.state, self.why = state, why
        if is_news:
            for listener in tuple(self._listeners):
                listener()


def pause(state: LinkState, failures: int, chance: float) -> float:
    """Return for how many seconds to wait after a link has ended, or was not to be had ``failures`` times running.

    At random, so that ten thousand buildings do not come back in the same second.
    """
    if state in _TURNED_AWAY:
        return TURNED_AWAY_PAUSE * (1 + chance)
    least, most = PAUSES
    if state is LinkState.TAKEN_OVER:
        least, most = least + TAKEN_OVER_PAUSE, most + TAKEN_OVER_PAUSE
    return least + min(most - least, SPREAD * float(2 ** min(failures, 16))) * chance


# ---- enrolment ----


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a cloud has said that was met by a code, and what was verified of it."""

    issuer: Issuer
    name: str
    root: Root
    published: KeySet
    text: str
    """Of the set, as it is kept."""


async def enrol(
    session: aiohttp.ClientSession,
    code: EnrolmentCode,
    key: SignerKey,
    hello: Callable[[Begin], Hello],
    now: int,
    others: Container[str] = (),
) -> Enrolled:
    """Enrol the controller with this identity by a code; return whose cloud it is. May be repeated with the same code.

    ``hello`` may raise what ``enrol`` then raises (another carrier has this issuer, attack 78); ``others`` has the kids
    of other carriers. Raises NotLinked, or KeySetInvalid as ``keyset.pin`` and ``keyset.read`` do.
    """
    line = await _open(session, code.host)
    try:
        begin = await line.read(Begin)
        await line.send(Greeting(_written(key, hello(begin)), code.secret))
        keys = await line.read(Keys)
    finally:
        await line.close()
    root = keyset.pin(begin.issuer, keys.root, code.root)
    published = keyset.read(keys.set, root, None, now, others)
    return Enrolled(begin.issuer, begin.name, root, published, keys.set)


def _written(key: SignerKey, hello: Hello) -> str:
    """Return the signed hello, with as many doors as it has room for."""
    while True:
        try:
            return write_hello(key, hello)
        except TooLong:
            if not hello.doors:
                raise
            _LOGGER.warning("%s is not offered to %s: its hello has no more room", hello.doors[-1].name, hello.issuer)
            hello = replace(hello, doors=hello.doors[:-1])


# ---- one connection ----


class _Work:
    """What is done for the cloud while one connection stands."""

    def __init__(self, line: _Line, host: Host, hello: Hello, heard: Callable[[], None]) -> None:
        """``heard`` is called for each frame that is understood."""
        self._line, self._host, self._hello, self._heard = line, host, hello, heard
        self._open: dict[int, asyncio.Task[None]] = {}
        self._to_take: asyncio.Queue[Keys | IssuedPart] = asyncio.Queue(MOST_OPEN)
        self._taking = asyncio.get_running_loop().create_task(self._take())

    async def listen(self) -> None:
        """Answer until the connection ends: NotLinked."""
        while True:
            frame = await self._line.receive(SILENCE)
            self._heard()
            match frame:
                case AskChallenge(number, door):
                    self._answer(number, partial(self._challenge, number, door))
                case Unlock(number, token):
                    self._answer(number, partial(self._present, number, token))
                case Keys() | IssuedPart():
                    await self.take(frame)
                case Ping():
                    await self._line.send(Pong())
                case Begin():
                    raise NotLinked(LinkState.NO_CLOUD, "it begins twice")

    async def take(self, frame: Keys | IssuedPart) -> None:
        """Have a set or a part of a list taken, one after the other, while drivers are answered."""
        if self._taking.done():
            await self._taking  # raises what went wrong
        await self._to_take.put(frame)

    async def _take(self) -> None:
        while True:
            with suppress(KeySetInvalid):  # the host says so, and the link stays: a better one may come
                match await self._to_take.get():
                    case Keys() as keys:
                        await self._host.take_keys(keys)
                    case IssuedPart(text):
                        await self._host.take_issued(text)

    async def cut(self) -> None:
        """Answer nothing any more: whoever asked is gone. A token that is with the strike goes on there."""
        tasks = [*self._open.values(), self._taking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _answer(self, number: int, answer: Callable[[], Awaitable[FromController]]) -> None:
        if number in self._open or len(self._open) >= MOST_OPEN:
            raise NotLinked(LinkState.NO_CLOUD, "it asks too much at a time, or twice")

        async def work() -> None:
            with suppress(NotLinked):  # whoever reads hears of it, too
                await self._line.send(await answer())

        def done(task: asyncio.Task[None]) -> None:
            del self._open[number]
            if not task.cancelled() and (error := task.exception()) is not None:
                _LOGGER.error("A bug of Vestibule left a question of a carrier unanswered", exc_info=error)

        self._open[number] = asyncio.get_running_loop().create_task(work())
        self._open[number].add_done_callback(done)

    async def _challenge(self, number: int, door: DoorId) -> FromController:
        try:
            nonce, ttl = await self._host.challenge(door)
        except Refused as err:
            return NoChallenge(number, err.code.word)
        signed = SignedChallenge(self._host.key.verifier, door, self._hello.issuer, nonce, ttl)
        return Challenge(number, write_challenge(self._host.key, signed))

    async def _present(self, number: int, token: str) -> FromController:
        word, code = await self._host.present(token)
        return Outcome(number, word, code if code is not None and code.told == code.value else None)


class _Line:
    """A WebSocket that speaks frames."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._session, self._socket = session, socket
        self._sending: set[asyncio.Task[None]] = set()

    async def receive(self, seconds: float) -> FromCloud:
        """Return the next frame; raise NotLinked."""
        try:
            async with asyncio.timeout(seconds):
                message = await self._socket.receive()
        except TimeoutError as err:
            raise NotLinked(LinkState.UNREACHABLE, "it says nothing any more") from err
        if message.type is aiohttp.WSMsgType.TEXT:
            try:
                return FROM_CLOUD.decode(message.data.encode(errors="surrogatepass"))
            except MalformedMessage as err:
                raise NotLinked(LinkState.NO_CLOUD, f"a frame that is not understood: {err}") from err
        if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
            # aiohttp answers a close by itself; if that fails, its own close_code is another one than was said.
            code = message.data if message.type is aiohttp.WSMsgType.CLOSE else self._socket.close_code
            state = _CLOSED.get(Close(code)) if code in set(Close) else LinkState.UNREACHABLE
            raise NotLinked(state or LinkState.UNREACHABLE, f"closed by the cloud ({code})")
        if message.type is aiohttp.WSMsgType.ERROR:
            raise NotLinked(LinkState.UNREACHABLE, "the connection was lost")
        raise NotLinked(LinkState.NO_CLOUD, "a frame that is no text")

    async def read[T: FromCloud](self, kind: type[T]) -> T:
        """Return the next frame, which has to be of a kind; raise NotLinked."""
        while isinstance(frame := await self.receive(DEADLINE), Ping):
            await self.send(Pong())
        if not isinstance(frame, kind):
            raise NotLinked(LinkState.NO_CLOUD, f"something else than {kind.__name__.lower()} to begin with")
        return frame

    async def send(self, frame: FromController) -> None:
        """Send a frame; raise NotLinked."""
        try:
            async with asyncio.timeout(_SENDING):
                await self._socket.send_str(FROM_CONTROLLER.encode(frame).decode())
        except (aiohttp.ClientError, OSError, TimeoutError) as err:
            raise NotLinked(LinkState.UNREACHABLE, "the connection was lost") from err

    def send_soon(self, frame: FromController) -> None:
        """Send a frame that nobody waits for."""

        async def send() -> None:
            with suppress(NotLinked):
                await self.send(frame)

        task = asyncio.get_running_loop().create_task(send())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def close(self) -> None:
        """End the connection."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            await self._socket.close()
        await self._session.close()


async def _no_redirect(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Turn back before the first frame: whoever can answer in the cloud's place once must not get the code's secret."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise NotLinked(LinkState.NO_CLOUD, f"it leads elsewhere (status {response.status})")
    return response


async def _open(session: aiohttp.ClientSession, where: str) -> _Line:
    """Connect; raise NotLinked."""
    own = aiohttp.ClientSession(
        connector=session.connector,
        connector_owner=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=(_no_redirect,),
    )
    try:
        return _Line(own, await _connected(own, where))
    except BaseException:
        await own.close()
        raise


async def _connected(session: aiohttp.ClientSession, where: str) -> aiohttp.ClientWebSocketResponse:
    try:
        url = URL(f"{'ws' if _is_here(where) else 'wss'}://{where}{PATH}")
        async with asyncio.timeout(DEADLINE):
            return await session.ws_connect(
                url,
                autoping=False,  # the cloud's pings are frames; a timer of aiohttp's own may outlive its socket
                max_msg_size=MAX_FRAME,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSING),
            )
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError, ssl.SSLError) as err:
        raise NotLinked(LinkState.CERTIFICATE, f"the certificate of {where} is not good: {err}") from err
    except aiohttp.WSServerHandshakeError as err:
        busy = err.status in (429, 502, 503, 504)
        state = LinkState.UNREACHABLE if busy else LinkState.NO_CLOUD
        raise NotLinked(state, f"status {err.status}") from err
    except aiohttp.ClientConnectorDNSError as err:
        raise NotLinked(LinkState.UNREACHABLE, f"nobody knows an address of {where}") from err
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as err:
        raise NotLinked(LinkState.UNREACHABLE, f"no connection to {where}") from err


def _is_here(where: str) -> bool:
    """Return whether a host is this very machine, to which nobody can listen in: for trying it out."""
    name = URL(f"ws://{where}").host or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
