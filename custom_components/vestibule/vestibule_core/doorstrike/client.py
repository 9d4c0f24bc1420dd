"""The client's end of DoorStrike/1: one connection to one strike, from the subscription to its end (protocol B.3).

WAIT_HELLO (1 s, then HELLO_REQ, three times) -> GREETED -> WAIT_HS2 (6 s) -> READY. The shell calls a method for
whatever happens on the radio and performs what it returns in order: fragments to write, and news. No radio and no clock
in here; ``now`` is seconds of a monotonic clock.

What it refuses to do: send anything that the paired strike alone should have to another one; use an ephemeral key
twice; take an ERR, which anybody can send, for a strike's word; and guess what became of a command that was not
answered. That one is in ``Ended.unanswered``, and outcome.py says how to find out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from ..errors import StrikeUnreachable  # noqa: TID252 - the core is imported relatively
from . import frames
from .fragments import Reassembler, cut
from .handshake import Initiator, Transport
from .wire import ERR, HELLO_REQ, NO_SPEND, VERSION, Command, Event, Hello, Op, State, Violation

HELLO_WAIT: Final = 1.0
MOST_HELLO_REQUESTS: Final = 3
HELLO_LIFE: Final = 4.5
"""Seconds after the subscription in which HS1 may be sent. The strike takes it for 5 s; the rest is for the way."""
ANSWER_WAIT: Final = 6.0
COMMAND_LIFE: Final = 5.0
"""Seconds of session time in which a strike may obey a request."""
KEEP_ALIVE: Final = 20.0
SESSION_LIFE: Final = 2 * 3600.0
"""Seconds. Two clocks that differ by 100 ppm have drifted 0.7 s apart by then; in two days a strike would find every
request LATE, or obey one that is.
"""


class Ending(Enum):
    """Why a connection is over. Nothing of it is a strike's authentic word."""

    LINK_LOST = auto()
    NO_HELLO = auto()
    """It is connected, but no strike answers."""
    OTHER_STRIKE = auto()
    """It answers, but is not the paired one."""
    VERSION = auto()
    """It speaks a version that is not known here, or an older one than it did before: an update is due, or it is no
    strike. Nothing is remembered of it.
    """
    STALE = auto()
    """HELLO was not used in time."""
    REFUSED = auto()
    """ERR: a wrong key, HS1 too late, or somebody in the middle."""
    NO_ANSWER = auto()
    VIOLATION = auto()
    """What came was not the strike's."""
    RENEW = auto()
    """The session is old: connect anew."""
    CLOSED = auto()
    """The shell wanted it."""


@dataclass(frozen=True, slots=True)
class Paired:
    """What a client knows of its strike."""

    strike_id: bytes
    slot: int
    psk: bytes = field(repr=False)
    version: int = VERSION
    """The highest one that a handshake has proved."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write this to RX."""

    fragment: bytes
    with_response: bool
    """The last one of a message: its response says that all of them have arrived."""


@dataclass(frozen=True, slots=True)
class Greeted:
    """The strike is there and would hear a command, within HELLO_LIFE of the subscription."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Verified:
    """The strike has proved its key: from now on remember this version, and forget the key before it."""

    version: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The strike's authentic answer to a command."""

    op: int
    state: State
    body: bytes = field(default=b"", repr=False)
    """May hold a part of a key."""


@dataclass(frozen=True, slots=True)
class Told:
    """The strike tells of an event."""

    event: Event


@dataclass(frozen=True, slots=True)
class Ended:
    """Disconnect, if the link is still there. Nothing follows."""

    ending: Ending
    unanswered: Command | None
    """A command that may have been heard, and obeyed."""


type Output = Write | Greeted | Verified | Answered | Told | Ended


class _Phase(Enum):
    WAIT_HELLO = auto()
    GREETED = auto()
    WAIT_HS2 = auto()
    READY = auto()
    ENDED = auto()


class Client:
    """One connection. Made before the subscription is written, since the strike's time may start with it."""

    def __init__(
        self, paired: Paired, size: int, random: Callable[[int], bytes], now: float, *, keep: bool = False
    ) -> None:
        """``size``: bytes of a write without response (ATT_MTU - 3). ``keep``: hold the session open by PING."""
        self._paired, self._size, self._random, self._keep = paired, size, random, keep
        self.said: Hello | None = None
        """What whoever answered says of itself. Nothing of it is proved."""
        self._phase = _Phase.WAIT_HELLO
        self._incoming = Reassembler()
        self._subscribed = now
        self._deadline = now + HELLO_WAIT
        self._hello_requests = 0
        self._hello = b""
        self._initiator: Initiator | None = None
        self._transport: Transport | None = None
        self._began = self._last_sent = now
        self._asked: Command | None = None

    @property
    def ready(self) -> bool:
        """Whether ``command`` would be sent at once, within the session."""
        return self._phase is _Phase.READY and self._asked is None

    @property
    def due(self) -> float | None:
        """When to call ``elapsed`` if nothing happens before; None: it is over."""
        if self._phase is _Phase.ENDED:
            return None
        times = [self._deadline]
        if self._incoming.due is not None:
            times.append(self._incoming.due)
        if self._keep and self.ready:
            times.append(self._last_sent + KEEP_ALIVE)
        return min(times)

    def command(self, command: Command, now: float, body: bytes = b"") -> list[Output]:
        """Send a command: the first one of a connection with HS1, which has no room for a body, the others as requests.

        Raises StrikeUnreachable if the strike was not told anything: it has not greeted, or not answered yet, or its
        time is over.
        """
        if now < self._deadline and self.ready:
            return self._ask(command, now, body)
        if now < self._deadline and self._phase is _Phase.GREETED and not body:
            self._initiator = Initiator(self._paired.psk, self._hello, self._paired.slot, self._random(frames.KEY_SIZE))
            self._phase = _Phase.WAIT_HS2
            return self._send(command, frames.hs1(self._paired.slot, self._initiator.first(command.encode())), now)
        raise StrikeUnreachable("the strike cannot be asked now")

    def notified(self, fragment: bytes, now: float) -> list[Output]:
        """Take a notification of TX."""
        outputs = self.elapsed(now)
        if self._phase is _Phase.ENDED:
            return outputs
        try:
            message = self._incoming.feed(fragment, now)
            return outputs if message is None else [*outputs, *self._message(message, now)]
        except Violation:
            return [*outputs, *self._end(Ending.VIOLATION)]

    def lost(self) -> list[Output]:
        """The link is gone."""
        return self._end(Ending.LINK_LOST)

    def close(self) -> list[Output]:
        """The shell wants no more of it."""
        return self._end(Ending.CLOSED)

    def elapsed(self, now: float) -> list[Output]:
        """Time has passed: ``due``."""
        if self._phase is _Phase.ENDED:
            return []
        if self._incoming.due is not None and now >= self._incoming.due:
            return self._end(Ending.VIOLATION)
        if now < self._deadline:
            if self._keep and self.ready and now >= self._last_sent + KEEP_ALIVE:
                return self._ask(Command(Op.PING), now, b"")
            return []
        match self._phase:
            case _Phase.WAIT_HELLO if self._hello_requests < MOST_HELLO_REQUESTS:
                self._hello_requests += 1
                self._deadline = now + HELLO_WAIT
                return self._write(HELLO_REQ)
            case _Phase.WAIT_HELLO:
                return self._end(Ending.NO_HELLO)
            case _Phase.GREETED:
                return self._end(Ending.STALE)
            case _:
                return self._end(Ending.NO_ANSWER if self._asked else Ending.RENEW)

    def _message(self, message: bytes, now: float) -> list[Output]:
        if message == ERR:
            return self._end(Ending.REFUSED)
        match self._phase:
            case _Phase.WAIT_HELLO:
                return self._greeted(message)
            case _Phase.READY:
                return self._told(message)
            case _ if message == self._hello:
                return []  # the first one was slow, and the one that was asked for came as well
            case _Phase.WAIT_HS2:
                return self._verified(message, now)
            case _:
                raise Violation("out of turn")

    def _greeted(self, message: bytes) -> list[Output]:
        self.said = hello = Hello.parse(message)
        if hello.version != VERSION or hello.version < self._paired.version:
            return self._end(Ending.VERSION)
        if hello.strike_id != self._paired.strike_id:
            return self._end(Ending.OTHER_STRIKE)
        self._hello = message
        self._phase = _Phase.GREETED
        self._deadline = self._subscribed + HELLO_LIFE
        return [Greeted(hello)]

    def _verified(self, message: bytes, now: float) -> list[Output]:
        assert self._initiator is not None
        plaintext, self._transport = self._initiator.second(frames.open_hs2(message))
        answered = self._answered(State.parse(plaintext), b"")
        self._phase = _Phase.READY
        self._began = now
        self._deadline = now + SESSION_LIFE
        return [Verified(VERSION), answered]

    def _told(self, message: bytes) -> list[Output]:
        assert self._transport is not None
        said = frames.from_strike(self._transport.decrypt(frames.open_data(message)))
        if isinstance(said, Event):
            return [Told(said)]
        if self._asked is None or self._asked.op != said.op:
            raise Violation("an answer to no question")
        answered = self._answered(said.state, said.body)
        self._deadline = self._began + SESSION_LIFE
        return [answered]

    def _answered(self, state: State, body: bytes) -> Answered:
        asked = self._asked
        assert asked is not None
        if asked.spend_id not in (NO_SPEND, state.spend_id):
            raise Violation("an answer about another spend")
        self._asked = None
        return Answered(asked.op, state, body)

    def _ask(self, command: Command, now: float, body: bytes) -> list[Output]:
        assert self._transport is not None
        not_after = int((now - self._began + COMMAND_LIFE) * 1000)
        request = frames.Request(command, not_after, body)
        return self._send(command, frames.data(self._transport.encrypt(request.encode())), now)

    def _send(self, command: Command, message: bytes, now: float) -> list[Output]:
        self._asked = command
        self._deadline = now + ANSWER_WAIT
        self._last_sent = now
        return self._write(message)

    def _write(self, message: bytes) -> list[Output]:
        *some, last = cut(message, self._size)
        return [*(Write(fragment, with_response=False) for fragment in some), Write(last, with_response=True)]

    def _end(self, ending: Ending) -> list[Output]:
        if self._phase is _Phase.ENDED:
            return []
        self._phase = _Phase.ENDED
        return [Ended(ending, self._asked)]
