"""What the lines of every board that is asked over a network have in common: how an output and an input are heard of.

What each board says in its own language is in the file of its driver. What this file refuses to do: make up a reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from vestibule_core.errors import StrikeRefused, StrikeUnreachable
from vestibule_core.model import Sense
from vestibule_core.strike import Capabilities, Reading

from .board import Listeners


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


class ReportedOutput:
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


def looked_at(task: asyncio.Task[Any]) -> None:
    """Keep the event loop from telling of an exception that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def numbered(numbers: Sequence[int]) -> str:
    """Return the numbers of lines as ``check`` shows them."""
    return ", ".join(map(str, numbers)) or "none"
