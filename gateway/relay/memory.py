"""A board without hardware, for a trial and for tests: outputs and inputs that are only remembered.

It has verbs for whoever plays the hardware. What it refuses to do: pretend to be a lock, hence the log, which says for
each movement what a relay would have done.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vestibule_core.errors import StrikeUnreachable
from vestibule_core.model import Sense
from vestibule_core.strike import Capabilities, Pulse, Reading

from .board import Input, Inverted, Listeners

NO_POWER: Final = "its power is cut"


class MemoryBoard:
    """Implements ``Board``. Verbs: ``operate``, ``sense``, ``cut_power`` and ``restore_power``.

    ``log`` gets a line for each movement, ``CHANNEL on SECONDS`` or ``CHANNEL off SECONDS`` of the monotonic clock,
    before anything is confirmed.
    """

    def __init__(self, *, outputs: int = 8, inputs: int = 8, timed: bool = True, log: Path | None = None) -> None:
        """Make it, with everything off; raise OSError. ``timed``: it ends a release by itself."""
        self.powered = True
        self.capabilities: Final = Capabilities(device_timed=timed, feedback=True, can_hold=True)
        self._log = None if log is None else os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._channels = [MemoryChannel(self, number) for number in range(1, outputs + 1)]
        self._inputs = [MemoryInput(self) for _ in range(inputs)]

    # ---- what the gateway does with it ----

    async def start(self) -> None:
        """Do nothing: it is there."""

    async def stop(self) -> None:
        """Switch everything off, and close the log."""
        for channel in self._channels:
            channel.move(False)
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def channel(self, number: int) -> MemoryChannel:
        """Return an output."""
        return self._channels[number - 1]

    def input(self, number: int, *, inverted: bool = False) -> Input:
        """Return an input."""
        return Inverted(self._inputs[number - 1]) if inverted else self._inputs[number - 1]

    async def probe(self) -> str:
        """Say that it is there."""
        self.check_power()
        return f"in memory only: {len(self._channels)} outputs, {len(self._inputs)} inputs"

    # ---- verbs ----

    def operate(self, number: int, on: bool) -> None:
        """Switch an output without the gateway."""
        self.channel(number).move(on)

    def sense(self, number: int, sense: Sense) -> None:
        """Let an input say something."""
        self._inputs[number - 1].say(sense)

    def cut_power(self) -> None:
        """Take its power away, which puts every output off."""
        self.powered = False
        self._each_changed()

    def restore_power(self) -> None:
        """Give it power again."""
        self.powered = True
        self._each_changed()

    def _each_changed(self) -> None:
        for channel in self._channels:
            channel.move(False)
            channel.changed()
        for one in self._inputs:
            one.changed()

    # ---- what its channels need ----

    def check_power(self) -> None:
        """Raise StrikeUnreachable if it has none."""
        if not self.powered:
            raise StrikeUnreachable(NO_POWER)

    def write_down(self, number: int, on: bool) -> None:
        """Write a movement down."""
        if self._log is not None:
            os.write(self._log, f"{number} {'on' if on else 'off'} {time.monotonic():.3f}\n".encode())


class MemoryChannel:
    """An output of a ``MemoryBoard``. Implements ``Channel``."""

    def __init__(self, board: MemoryBoard, number: int) -> None:
        """Make one that is off."""
        self.is_on = False
        self.movements = 0
        """How often it was switched on."""
        self._board, self._number = board, number
        self._timer: asyncio.TimerHandle | None = None
        self._readings: Listeners[[Reading]] = Listeners()
        self._changes: Listeners[[]] = Listeners()

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._board.capabilities

    @property
    def reading(self) -> Reading:
        """What it does."""
        if not self._board.powered:
            return Reading.UNKNOWN
        return Reading.RELEASED if self.is_on else Reading.SECURED

    @property
    def is_reachable(self) -> bool:
        """Whether its board has power."""
        return self._board.powered

    @property
    def reason(self) -> str | None:
        """Why it cannot be reached."""
        return None if self._board.powered else NO_POWER

    def subscribe(self, listener: Callable[[Reading], None]) -> Callable[[], None]:
        """Call ``listener`` with each new reading, until the returned function is called."""
        return self._readings.add(listener)

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when something has changed, until the returned function is called."""
        return self._changes.add(listener)

    async def reach(self) -> None:
        """Raise StrikeUnreachable if there is no power."""
        self._board.check_power()

    async def release(self, pulse: Pulse) -> None:
        """Switch on, for the pulse's time if the board is timed."""
        self._board.check_power()
        self.move(True)
        if self.capabilities.device_timed:
            self._timer = asyncio.get_running_loop().call_later(pulse.seconds, self.move, False)

    async def hold(self, origin: object) -> None:  # noqa: ARG002 - every strike is told; this one has no use for it
        """Switch on until ``secure``."""
        self._board.check_power()
        self.move(True)

    async def secure(self) -> None:
        """Switch off."""
        self._board.check_power()
        self.move(False)

    def move(self, on: bool) -> None:
        """Switch, and stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if on is self.is_on:
            return
        self._board.write_down(self._number, on)
        self.is_on = on
        self.movements += on
        self.changed()

    def changed(self) -> None:
        """Tell everybody."""
        self._readings.tell(self.reading)
        self._changes.tell()


class MemoryInput:
    """An input of a ``MemoryBoard``; inactive until it is told something else. Implements ``Input``."""

    def __init__(self, board: MemoryBoard) -> None:
        """Make one."""
        self._board = board
        self._said = Sense.INACTIVE
        self._senses: Listeners[[Sense]] = Listeners()

    @property
    def sense(self) -> Sense:
        """What it says."""
        return self._said if self._board.powered else Sense.FAULT

    def subscribe(self, listener: Callable[[Sense], None]) -> Callable[[], None]:
        """Call ``listener`` with each new word of it, until the returned function is called."""
        return self._senses.add(listener)

    def say(self, sense: Sense) -> None:
        """Say this from now on."""
        if sense is not self._said:
            self._said = sense
            self.changed()

    def changed(self) -> None:
        """Tell everybody."""
        self._senses.tell(self.sense)
