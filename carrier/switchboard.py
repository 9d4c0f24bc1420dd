"""How replicas ask each other: a link is held by one replica, and a driver asks at any.

Each replica listens on a channel of its own in PostgreSQL (LISTEN/NOTIFY), by a connection of its own. A question names
the very connection that it is for, and the moment until which it may be put; its answer comes back to the asker's
channel. What this file refuses to do: keep a question for later, put one again, or say that one did not leave when it
may have. PostgreSQL away means: nobody is asked.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]
from asyncpg.exceptions import PostgresError  # type: ignore[import-untyped]

from vestibule_core.errors import MalformedMessage
from vestibule_core.model import Word
from vestibule_core.strict import FLAG, Message, Shape, choice, integer, one_of, optional, parsed, record, text

from .connection import LONGEST_CHALLENGE
from .decide import Answer, NotSent, Unreachable
from .store import Store

_LOGGER = logging.getLogger(__name__)

GOOD_FOR: Final = 5.0
"""Seconds within which a question has to be put, by the clocks of both replicas."""
KEPT_FOR: Final = 30.0
"""Seconds for which an answer about a token is told again; nobody waits so long."""
MOST: Final = 7500
"""Bytes of a notification: PostgreSQL takes 7999."""
TOGETHER: Final = 100
"""Notifications of one statement."""
SEND_WAIT: Final = 5.0
BACK: Final = (0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts to reach PostgreSQL."""
_AWAY: Final = (PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A challenge of a door is asked for."""

    number: int
    replica: str
    """Who asks."""
    connection: str
    until: int
    """Milliseconds UTC."""
    door: str


@dataclass(frozen=True, slots=True)
class Handed:
    """A token is to be handed over."""

    number: int
    replica: str
    connection: str
    until: int
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A controller has another link now."""

    connection: str
    instance: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """The answer about a token may have been told while the asker did not hear."""

    number: int
    replica: str


@dataclass(frozen=True, slots=True)
class Given:
    """A challenge, as its controller has signed it: a notification may be anybody's who reaches the database."""

    number: int
    jwt: str


@dataclass(frozen=True, slots=True)
class Told:
    """What the building says about a token."""

    number: int
    word: Word
    code: str | None


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no answer. ``sent``: what was asked may have left."""

    number: int
    code: str
    sent: bool


type Question = Wanted | Handed | TakenOver
type _Said = Question | Repeat | Reply
type Reply = Given | Told | Failed


def _id(spelt: str) -> str:
    if not _ID_FORM.fullmatch(spelt):
        raise ValueError("names no replica, connection or instance")
    return spelt


_ID_FORM: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_ID: Final = parsed(_id)
"""Part of a channel's name, which PostgreSQL refuses if it is too long: no other one than we make ourselves."""
_NUMBER: Final = integer(0, 2**53)
_ASKED: Final[dict[str, Shape[Any]]] = {"number": _NUMBER, "replica": _ID, "connection": _ID, "until": _NUMBER}
NOTIFICATION: Final = Message[_Said](
    one_of(
        ("wanted", Wanted, record(Wanted, {**_ASKED, "door": text(31, 31)}, tag="wanted")),
        ("handed", Handed, record(Handed, {**_ASKED, "token": text(1500, 1)}, tag="handed")),
        ("taken_over", TakenOver, record(TakenOver, {"connection": _ID, "instance": _ID}, tag="taken_over")),
        ("repeat", Repeat, record(Repeat, {"number": _NUMBER, "replica": _ID}, tag="repeat")),
        ("given", Given, record(Given, {"number": _NUMBER, "jwt": text(LONGEST_CHALLENGE, 1)}, tag="given")),
        (
            "told",
            Told,
            record(Told, {"number": _NUMBER, "word": choice(Word), "code": optional(text(40, 1))}, tag="told"),
        ),
        ("failed", Failed, record(Failed, {"number": _NUMBER, "code": text(40, 1), "sent": FLAG}, tag="failed")),
    ),
    MOST,
)


@dataclass(slots=True)
class _Outgoing:
    replica: str
    said: _Said
    reply: asyncio.Future[Reply] | None = None
    """Of whoever asks."""
    drop_at: float = 0.0
    """Of a reply: seconds of the loop's clock after which nobody waits for it."""


class Switchboard:
    """This replica's end. Belongs to one event loop."""

    def __init__(self, store: Store, replica: str, answer: Callable[[Question], Awaitable[Reply | None]]) -> None:
        """Reach other replicas by the database of ``store``. ``answer`` puts what they ask."""
        self._store, self._replica, self._answer = store, replica, answer
        self._numbers = itertools.count()
        self._open: dict[int, _Outgoing] = {}
        self._outgoing: asyncio.Queue[_Outgoing | None] = asyncio.Queue()
        """None: look whether the line is still there."""
        self._answering: set[asyncio.Task[None]] = set()
        self._answers: dict[tuple[str, int], tuple[float, Reply]] = {}
        """What was answered about tokens in the last seconds, and when, the oldest first."""
        self.is_up = asyncio.Event()
        """Whether this replica hears others."""

    # ---- asking ----

    async def challenge(self, replica: str, connection: str, door: str) -> str:
        """Return what a controller has signed whose link another replica holds, unverified; raise Unreachable."""
        reply = await self._ask(replica, lambda number, until: Wanted(number, self._replica, connection, until, door))
        if not isinstance(reply, Given):
            raise Unreachable
        return reply.jwt

    async def unlock(self, replica: str, connection: str, token: str) -> Answer:
        """Let another replica hand a token over; raise NotSent, or Unreachable if it may have left."""
        reply = await self._ask(replica, lambda number, until: Handed(number, self._replica, connection, until, token))
        if not isinstance(reply, Told):
            raise Unreachable
        return Answer(reply.word, reply.code, passed_on=True)

    def take_over(self, replica: str, connection: str, instance: str) -> None:
        """Tell another replica that the controller of a link of its has another one now."""
        self._outgoing.put_nowait(_Outgoing(replica, TakenOver(connection, instance), drop_at=_seconds() + GOOD_FOR))

    async def _ask(self, replica: str, question: Callable[[int, int], Wanted | Handed]) -> Reply:
        if not self.is_up.is_set():
            raise NotSent
        number = next(self._numbers)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        asked = question(number, _now() + int(GOOD_FOR * 1000))
        self._open[number] = outgoing = _Outgoing(replica, asked, reply)
        self._outgoing.put_nowait(outgoing)
        try:
            answer = await reply
        finally:
            del self._open[number]
        if isinstance(answer, Failed):
            # Of a token only this replica's own line is believed: a notification could be forged, and a door be given
            # back whose token still opens.
            raise (Unreachable if answer.sent or isinstance(asked, Handed) else NotSent)(answer.code)
        return answer

    # ---- the line ----

    async def run(self) -> None:
        """Hold the line, and take it up again whenever it is lost, until cancelled."""
        attempt = 0
        while True:
            try:
                await self._hold()
                attempt = 0
            except _AWAY as err:
                _LOGGER.warning("No line to the other replicas: %s", str(err) or type(err).__name__)
            await asyncio.sleep(BACK[min(attempt, len(BACK) - 1)])
            attempt += 1

    async def _hold(self) -> None:
        """Listen and speak until the line is lost."""
        options = dict(self._store.connect_options())
        line = await asyncpg.connect(**options, timeout=SEND_WAIT, command_timeout=SEND_WAIT)
        try:
            line.add_termination_listener(lambda _: self._outgoing.put_nowait(None))
            await line.add_listener(_channel(self._replica), self._heard)
            self.is_up.set()
            for number, asked in self._open.items():
                if isinstance(asked.said, Handed):
                    repeat = Repeat(number, self._replica)
                    self._outgoing.put_nowait(_Outgoing(asked.replica, repeat, drop_at=_seconds() + GOOD_FOR))
            while not line.is_closed():
                await self._speak(line, await self._next())
        finally:
            self.is_up.clear()
            line.terminate()
            self._lost()

    async def _next(self) -> list[_Outgoing]:
        with suppress(TimeoutError):
            async with asyncio.timeout(SEND_WAIT):
                batch = [await self._outgoing.get()]
                while len(batch) < TOGETHER and not self._outgoing.empty():
                    batch.append(self._outgoing.get_nowait())
                return [each for each in batch if each is not None]
        return []

    async def _speak(self, line: Any, batch: list[_Outgoing]) -> None:
        now = _seconds()
        batch = [
            each
            for each in batch
            if (each.drop_at > now if each.reply is None else not each.reply.done())  # nobody waits any more
        ]
        try:
            await line.execute(
                "SELECT pg_notify(channel, said) FROM unnest($1::text[], $2::text[]) AS each(channel, said)",
                [_channel(each.replica) for each in batch],
                [NOTIFICATION.encode(each.said).decode() for each in batch],
            )
        except _AWAY:
            for each in batch:
                if each.reply is None:  # once more: an answer that comes twice is taken once
                    self._outgoing.put_nowait(each)
                elif not isinstance(each.said, Handed) and not each.reply.done():  # it may have left: ``_hold`` asks
                    each.reply.set_exception(Unreachable())
            raise

    def _lost(self) -> None:
        """Give up what was asked for and cannot come, and keep what others wait for."""
        waiting = [self._outgoing.get_nowait() for _ in range(self._outgoing.qsize())]
        for each in waiting:
            if each is not None and each.reply is not None:
                if not each.reply.done():
                    each.reply.set_exception(NotSent())
            elif each is not None:
                self._outgoing.put_nowait(each)
        for each in self._open.values():
            # What became of a token is asked for when the line is back.
            if isinstance(each.said, Wanted) and each.reply is not None and not each.reply.done():
                each.reply.set_exception(Unreachable())

    # ---- answering ----

    def _heard(self, _line: object, _process: int, _channel: str, payload: str) -> None:
        try:
            said = NOTIFICATION.decode(payload.encode())
        except MalformedMessage as err:
            _LOGGER.warning("Another replica said what is not understood: is it of another version? %s", err)
            return
        match said:
            case Given(number) | Told(number) | Failed(number):
                if (asked := self._open.get(number)) is not None and asked.reply and not asked.reply.done():
                    asked.reply.set_result(said)
            case Repeat(number, replica):
                if (answer := self._answers.get((replica, number))) is not None:
                    self._reply(replica, answer[1])
            case _:
                task = asyncio.get_running_loop().create_task(self._put(said))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    async def _put(self, question: Question) -> None:
        if isinstance(question, TakenOver):
            await self._answer(question)
            return
        if question.until < _now():
            reply: Reply | None = Failed(question.number, "LATE", sent=False)
        else:
            reply = await self._answer(question)
        assert reply is not None, "it is a question"
        if isinstance(question, Handed):
            now = _seconds()
            while self._answers and (oldest := next(iter(self._answers.items())))[1][0] < now - KEPT_FOR:
                del self._answers[oldest[0]]
            self._answers[question.replica, question.number] = now, reply
        self._reply(question.replica, reply)

    def _reply(self, replica: str, reply: Reply) -> None:
        try:
            NOTIFICATION.decode(NOTIFICATION.encode(reply))
        except MalformedMessage:
            # Nobody would read it, or PostgreSQL refuse it together with all that is sent beside it, again and again.
            reply = Failed(reply.number, "UNREACHABLE", sent=True)
        self._outgoing.put_nowait(_Outgoing(replica, reply, drop_at=_seconds() + 2 * GOOD_FOR))

    async def end(self) -> None:
        """Return when what others have asked is answered."""
        await asyncio.gather(*self._answering, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(GOOD_FOR):
                while self.is_up.is_set() and not self._outgoing.empty():  # noqa: ASYNC110 - once in a run
                    await asyncio.sleep(0.02)


def _channel(replica: str) -> str:
    return f"vestibule_{replica}"


def _now() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def _seconds() -> float:
    return asyncio.get_running_loop().time()
