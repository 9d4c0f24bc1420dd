"""One link as the cloud has it: what is asked over it, and what its controller answers.

Each question has a number of its own, and a place among the few that may be open at a time. What it refuses to do:
send a question again, take an answer to another question than was asked, or take a challenge that this controller has
not signed for the very door that was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from aiohttp import ClientConnectionResetError, WSMsgType, web

from vestibule_core.bucket import Bucket
from vestibule_core.errors import Violation
from vestibule_core.link.messages import (
    FROM_CLOUD,
    MOST_OPEN,
    AskChallenge,
    Challenge,
    Close,
    FromCloud,
    NoChallenge,
    Outcome,
    Ping,
    Unlock,
    read_challenge,
)
from vestibule_core.model import DoorId, Issuer, Word
from vestibule_core.note import VerifierKey

from .decide import Answer, NotSent, Unreachable

MOST_UNREAD: Final = 64 * 1024
"""Bytes that wait for a controller which does not read them."""
CLOSE_WAIT: Final = 5.0
"""Seconds for a controller to hear that its link ends."""
PLACE_WAIT: Final = 4.0
"""Seconds for a place among the open questions."""
LONGEST_CHALLENGE: Final = 2000
"""Characters of a signed challenge: twice as many as the longest one has whose members are all as long as they may be.
JSON takes as much white space as there is room for, and a notification to another replica holds less than a frame.
"""
FRAMES_PER_SECOND, FRAMES_AT_ONCE = 100.0, 2000.0
"""All that a controller says, pings of the WebSocket included: more than it has to say when it comes back."""
LISTS_PER_SECOND, LISTS_AT_ONCE = 1 / 60, 8.0
"""How often a controller may ask for a list again."""

type _Answer = Challenge | NoChallenge | Outcome


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end."""

    controller: VerifierKey
    building: str
    instance: str


class Connection:
    """A controller's link. Belongs to one event loop."""

    __slots__ = (
        "_asked",
        "_open",
        "_places",
        "_socket",
        "_transport",
        "closing",
        "frames",
        "heard",
        "id",
        "issuer",
        "list_asks",
        "lists",
        "peer",
        "settled",
        "settling",
    )

    def __init__(
        self,
        id_: str,
        socket: web.WebSocketResponse,
        transport: asyncio.WriteTransport,
        issuer: Issuer,
        peer: Peer,
        now: float,
    ) -> None:
        """Speak over ``socket``, whose hello was taken; ``now``: seconds of a clock that only goes forward."""
        self.id, self._socket, self._transport, self.issuer, self.peer = id_, socket, transport, issuer, peer
        self._asked = 0
        self._open: dict[int, tuple[type[FromCloud], asyncio.Future[_Answer]]] = {}
        self._places = asyncio.Semaphore(MOST_OPEN)
        self.heard: asyncio.Future[None] | bool = True
        """Whether anything has come since the last ping; or who waits for that."""
        self.frames = Bucket(FRAMES_PER_SECOND, FRAMES_AT_ONCE, FRAMES_AT_ONCE, now)
        self.settling = 0
        """Acceptances of it that are not looked up yet."""
        self.settled: asyncio.Event | None = None
        self.lists: set[date] = set()
        """Days whose lists are on their way."""
        self.list_asks = Bucket(LISTS_PER_SECOND, LISTS_AT_ONCE, LISTS_AT_ONCE, now)
        self.closing: asyncio.TimerHandle | None = None
        """Of a link that is being ended: what ends it if the other side does not answer."""

    # ---- what the cloud asks ----

    async def challenge(self, door: DoorId) -> str:
        """Return a fresh challenge of a door, as its controller has signed it; raise Unreachable."""
        answer = await self._ask(lambda number: AskChallenge(number, door))
        if isinstance(answer, NoChallenge):
            raise Unreachable(answer.word.upper())
        assert isinstance(answer, Challenge)
        try:
            if len(answer.jwt) > LONGEST_CHALLENGE:
                raise Violation("a challenge that is longer than any")
            read_challenge(answer.jwt, self.peer.controller, self.issuer, door)
        except Violation as err:
            self.close(Close.VIOLATION)
            raise Unreachable("WRONG_CHALLENGE") from err
        return answer.jwt

    async def unlock(self, text: str) -> Answer:
        """Hand over a token, once; return what the controller says. Raises NotSent; Unreachable if it may have left."""
        answer = await self._ask(lambda number: Unlock(number, text))
        assert isinstance(answer, Outcome)
        code = answer.code.told if answer.code is not None else None
        if code is None and answer.word is Word.REFUSED:
            code = "DOOR_UNAVAILABLE"  # why a building is shut, it does not say
        return Answer(answer.word, code)

    async def _ask(self, question: Callable[[int], FromCloud]) -> _Answer:
        try:
            async with asyncio.timeout(PLACE_WAIT):
                await self._places.acquire()
        except TimeoutError as err:
            raise NotSent("BUSY") from err
        number, self._asked = self._asked, self._asked + 1
        asked = question(number)
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._open[number] = type(asked), answer
        try:
            await self.send(asked)
            return await answer
        finally:
            del self._open[number]
            self._places.release()

    def answered(self, answer: _Answer) -> None:
        """Take an answer; raise Violation if it answers nothing that was asked."""
        if (waits := self._open.get(answer.id)) is None:
            if answer.id >= self._asked:
                raise Violation("an answer to nothing")
            return  # too late: whoever asked has given up
        asked, future = waits
        if isinstance(answer, Outcome) is not (asked is Unlock):
            raise Violation("an answer to something else")
        if not future.done():
            future.set_result(answer)

    @property
    def is_idle(self) -> bool:
        """Whether nothing that was asked is open."""
        return not self._open

    # ---- the line ----

    async def send(self, frame: FromCloud) -> None:
        """Send a frame; wait while a little too much waits to be read. Raises NotSent, or Unreachable if it may have
        left.
        """
        if self.closing is not None or self._socket.closed or self._transport.is_closing():
            raise NotSent
        try:
            await self._socket.send_str(FROM_CLOUD.encode(frame).decode())
        except ClientConnectionResetError as err:  # while it waited for the rest to be read
            raise Unreachable from err

    def ping(self) -> bool:
        """Ask whether anybody is there, without waiting; return False if nothing came since it was last asked."""
        if self.heard is False or self._transport.get_write_buffer_size() > MOST_UNREAD:
            return False
        if self.heard is True:
            self.heard = False
        self.post(Ping())
        return True

    async def is_alive(self, seconds: float) -> bool:
        """Ask whether anybody is there, and wait for any word so long."""
        waiting = asyncio.get_running_loop().create_future()
        self.heard = waiting
        self.post(Ping())
        try:
            async with asyncio.timeout(seconds):
                await waiting
        except TimeoutError:
            return False
        return True

    def hears(self) -> None:
        """Note that something has come."""
        if isinstance(self.heard, asyncio.Future) and not self.heard.done():
            self.heard.set_result(None)
        self.heard = True

    def post(self, frame: FromCloud) -> None:
        """Send a frame without waiting; if the link is broken, that is found elsewhere."""
        _begin(self._try(frame))

    async def _try(self, frame: FromCloud) -> None:
        try:
            await self.send(frame)
        except Unreachable:
            return

    def close(self, why: Close) -> None:
        """End the link, and say why; may be repeated. Whoever waits for an answer gets none."""
        if self.closing is None:
            self.closing = asyncio.get_running_loop().call_later(CLOSE_WAIT, self._transport.abort)
            self.lost()
            _begin(self._say_close(why))

    async def _say_close(self, why: Close) -> None:
        # Not the socket's own close(): while somebody reads, that does not wait for the other side to have heard why.
        with suppress(ClientConnectionResetError):
            await self._socket.send_frame(why.to_bytes(2, "big"), WSMsgType.CLOSE)

    def lost(self) -> None:
        """Tell whoever waits that no answer will come."""
        for _, answer in self._open.values():
            if not answer.done():
                answer.set_exception(Unreachable())


def _begin(sending: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(sending, eager_start=True)
    if not task.done():
        _WAITING.add(task)
        task.add_done_callback(_WAITING.discard)


_WAITING: set[asyncio.Task[None]] = set()
"""What is being sent to those who read slowly."""
