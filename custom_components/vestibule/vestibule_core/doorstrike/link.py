"""One connection as the strike sees it: from the radio's connection to a session (protocol B.3).

CONNECTED (10 s) -> HELLO_SENT (5 s, one HS1) -> READY (60 s idle). Only what belongs to one connection; who may do what
is the peripheral's to decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .fragments import SMALLEST, Reassembler
from .handshake import Responder, Transport
from .wire import Command

SUBSCRIBE_TIME: Final = 10.0
HELLO_TIME: Final = 5.0
IDLE_TIME: Final = 60.0
MOST_HELLO_REQUESTS: Final = 3


@dataclass(slots=True)
class Session:
    """An authenticated connection."""

    transport: Transport
    began: float
    """When HS2 was sent: session time counts from there."""

    def milliseconds(self, now: float) -> int:
        """Return the session time."""
        return int((now - self.began) * 1000)


@dataclass(slots=True)
class Link:
    """One connection."""

    number: int
    """What the shell calls it."""
    deadline: float
    """When the present phase is over."""
    incoming: Reassembler = field(default_factory=Reassembler)
    size: int = SMALLEST
    """Bytes of a notification."""
    hello: bytes | None = None
    """As sent; None: nobody has subscribed."""
    hello_requests: int = 0
    nonce_consumed: bool = False
    """The one attempt that a HELLO is good for has been made."""
    slot: int | None = None
    """Whose key the handshake proved."""
    responder: Responder | None = None
    """Has read a good HS1, and HS2 is not sent."""
    session: Session | None = None

    @property
    def due(self) -> float:
        """When something is too late next."""
        return self.deadline if self.incoming.due is None else min(self.deadline, self.incoming.due)


@dataclass(frozen=True, slots=True)
class Pending:
    """A command that waits for the relay."""

    link: Link
    command: Command
