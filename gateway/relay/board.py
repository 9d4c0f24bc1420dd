"""What the gateway needs of whatever drives its doors' locks and reads their sensors.

A driver implements ``Board`` and hands out ``Channel`` objects, which are the core's strikes, and passes the suite that
all strikes pass (tests/conformance.py). An output that is on has released its door: whether current opens a lock or
keeps it shut is settled by the contact it is wired to (normally open or normally closed), so that off is locked in
either case. What a driver refuses to do: move anything before it is told to.
"""

from __future__ import annotations

import logging
import socket
import struct
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

from vestibule_core.model import Sense
from vestibule_core.strike import Strike

_LOGGER: Final = logging.getLogger(__name__)


class Channel(Strike, Protocol):
    """An output that drives a door's lock, or a strike."""

    @property
    def is_reachable(self) -> bool:
        """Whether it answered the last time."""
        ...

    @property
    def reason(self) -> str | None:
        """Why it did not, in words for a person; None: it did."""
        ...

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` in the event loop when what is known of it may have changed, until the returned one is."""
        ...


class Input(Protocol):
    """A contact, a button or a switch."""

    @property
    def sense(self) -> Sense:
        """What it says; UNKNOWN before its board has answered, FAULT while that does not."""
        ...

    def subscribe(self, listener: Callable[[Sense], None]) -> Callable[[], None]:
        """Call ``listener`` in the event loop with each new word of it, until the returned function is called."""
        ...


class Board(Protocol):
    """Outputs and inputs that share a connection. Numbers begin at 1, as they are printed on it.

    Its outputs are at their locked level when it starts and stops. At the start nothing is written for that, because
    then nothing may move: a timer of the board's own ends by itself, and a release that a gateway had to end before it
    died is in the journal, from which the controller ends it (``Controller.start``); any other output that is on
    belongs to somebody else. At the stop it ends what this program left on and could not end before.
    """

    async def start(self) -> None:
        """Begin to follow the hardware. Returns at once; one that does not answer is tried until it does."""
        ...

    async def stop(self) -> None:
        """Let go of the hardware. After this, nothing of it is on because of this program, if it could be told so."""
        ...

    def channel(self, number: int) -> Channel:
        """Return an output, always the same object."""
        ...

    def input(self, number: int, *, inverted: bool = False) -> Input:
        """Return an input; ``inverted``: it is active while its circuit is open."""
        ...

    async def probe(self) -> str:
        """Try the hardware without moving anything, and return what it says, for a person; raise StrikeUnreachable."""
        ...


def drop_at_the_end(connection: socket.socket | TransportSocket) -> None:
    """Have a connection throw away what it has not delivered when it is closed.

    A release waits in this machine while the network is away. It must not open the door when that is back, long after
    it was reported as unknown.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Listeners[**P]:
    """Those who want to hear of something."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._listeners: list[Callable[P, None]] = []

    def add(self, listener: Callable[P, None]) -> Callable[[], None]:
        """Tell ``listener``, too, until the returned function is called, which may be repeated."""
        own = partial(listener)  # the same one may listen twice
        self._listeners.append(own)

        def remove() -> None:
            with suppress(ValueError):
                self._listeners.remove(own)

        return remove

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell everybody; one who fails keeps nobody else from hearing."""
        for listener in tuple(self._listeners):
            try:
                listener(*args, **kwargs)
            except Exception:
                _LOGGER.exception("A listener of a board failed")


class Inverted:
    """An input whose circuit is open in the active state. Implements ``Input``."""

    def __init__(self, beneath: Input) -> None:
        """Take the input as its board reads it."""
        self._beneath = beneath

    @property
    def sense(self) -> Sense:
        """What it says."""
        return _INVERSE.get(self._beneath.sense, self._beneath.sense)

    def subscribe(self, listener: Callable[[Sense], None]) -> Callable[[], None]:
        """Call ``listener`` with each new word of it, until the returned function is called."""
        return self._beneath.subscribe(lambda sense: listener(_INVERSE.get(sense, sense)))


_INVERSE: Final = {Sense.ACTIVE: Sense.INACTIVE, Sense.INACTIVE: Sense.ACTIVE}
