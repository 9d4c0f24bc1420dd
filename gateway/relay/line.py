"""What all boards that are asked over a network have in common: their life, and how outputs and inputs are heard of.

What each board says in its own language is in the file of its driver. What this file refuses to do: make up a reading.
"""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from gateway.log import say
from vestibule_core.errors import StrikeRefused, StrikeUnreachable, VestibuleError
from vestibule_core.model import Sense
from vestibule_core.strike import Capabilities, Reading

from .board import Input, Inverted, Listeners

_LOGGER: Final = logging.getLogger(__name__)


class Hardware(Protocol):
    """The board that an output is of."""

    @property
    def capabilities(self) -> Capabilities:
        """What its outputs can do."""
        ...

    @property
    def reason(self) -> str | None:
        """Why it does not answer, in words for a person; None: it does."""
        ...


class ReportedOutput(ABC):
    """An output of which the board says how it is. Implements ``Channel`` but for its commands."""

    def __init__(self, hardware: Hardware, number: int) -> None:
        """Take its number, from 1."""
        self.number: Final = number
        self.was_left_on = False
        """This program switched it on, or may have, and nothing but this program switches it off."""
        self._hardware = hardware
        self._reading = Reading.UNKNOWN
        self._readings: Listeners[[Reading]] = Listeners()
        self._changes: Listeners[[]] = Listeners()

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._hardware.capabilities

    @property
    def reading(self) -> Reading:
        """What the board said last; UNKNOWN if it does not answer."""
        return self._reading

    @property
    def is_reachable(self) -> bool:
        """Whether the board answers."""
        return self._reading is not Reading.UNKNOWN

    @property
    def reason(self) -> str | None:
        """Why it does not, in words for a person."""
        return self._hardware.reason

    def subscribe(self, listener: Callable[[Reading], None]) -> Callable[[], None]:
        """Call ``listener`` with each new reading, until the returned function is called."""
        return self._readings.add(listener)

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when something has changed, until the returned function is called."""
        return self._changes.add(listener)

    @abstractmethod
    async def secure(self) -> None:
        """Switch it off, whatever it was on for. Raises what a strike's ``secure`` does."""

    async def leave_on(self, switching: Awaitable[None]) -> None:
        """Do what switches it on for good, and know until then and afterwards that this program may have."""
        before, self.was_left_on = self.was_left_on, True
        try:
            await switching
        except StrikeUnreachable, StrikeRefused:
            self.was_left_on = before
            raise

    def read(self, reading: Reading) -> None:
        """Take what the board says."""
        if reading is not self._reading:
            self._reading = reading
            self._readings.tell(reading)
            self.changed()

    def changed(self) -> None:
        """Tell those who watch."""
        self._changes.tell()


class ReportedInput:
    """An input of which the board says how it is. Implements ``Input``."""

    def __init__(self) -> None:
        """Make one that has said nothing yet."""
        self.sense = Sense.UNKNOWN
        self._senses: Listeners[[Sense]] = Listeners()

    def subscribe(self, listener: Callable[[Sense], None]) -> Callable[[], None]:
        """Call ``listener`` with each new word of it, until the returned function is called."""
        return self._senses.add(listener)

    def say(self, sense: Sense) -> None:
        """Take what the board says."""
        if sense is not self.sense:
            self.sense = sense
            self._senses.tell(sense)


class FollowedBoard[Output: ReportedOutput](ABC):
    """A board that is asked again and again how it is. Implements ``Board`` but for ``probe``."""

    def __init__(self, name: str, capabilities: Capabilities, channels: Sequence[Output], inputs: int) -> None:
        """Make it; nothing is reached before ``start``."""
        self.reason: str | None = None
        """Why it could not be reached the last time, in words for a person."""
        self.capabilities: Final = capabilities
        self._name, self._channels = name, channels
        self._inputs = [ReportedInput() for _ in range(inputs)]
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow it. Moves nothing."""
        self._following = asyncio.get_running_loop().create_task(self._follow(), name=f"board {self._name}")

    async def stop(self) -> None:
        """End what this program left on, if the board can be told so, and let go of it."""
        await ended(self._following)
        self._following = None
        await asyncio.gather(*(self._end(channel) for channel in self._channels if channel.was_left_on))
        await self._let_go()

    async def _end(self, channel: Output) -> None:
        try:
            await channel.secure()
        except VestibuleError as error:
            say(_LOGGER, logging.ERROR, "output_left_on", board=self._name, output=channel.number, reason=str(error))

    def channel(self, number: int) -> Output:
        """Return an output."""
        return self._channels[number - 1]

    def input(self, number: int, *, inverted: bool = False) -> Input:
        """Return an input."""
        return Inverted(self._inputs[number - 1]) if inverted else self._inputs[number - 1]

    @abstractmethod
    async def _follow(self) -> None:
        """Ask it how it is until cancelled."""

    @abstractmethod
    async def _let_go(self) -> None:
        """Close the connection, and know nothing of it any more."""


def pause(failures: int, first: float, longest: float) -> float:
    """Return the seconds until a board is tried again that has not answered, nor ``failures`` times before that."""
    most = min(first * 2 ** min(failures, 10), longest)
    # Boards that lost their switch, or their access point, together do not all come back in the same moment.
    return random.uniform(most / 2, most)  # noqa: S311 - no secret


async def ended(task: asyncio.Task[None] | None) -> None:
    """End a task, if there is one, and wait until it has ended."""
    if task is not None:
        task.cancel()
        await asyncio.wait({task})


def looked_at(task: asyncio.Task[Any]) -> None:
    """Keep the event loop from telling of an exception that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def numbered(numbers: Sequence[int]) -> str:
    """Return the numbers of lines as ``check`` shows them."""
    return ", ".join(map(str, numbers)) or "none"
