"""The bolt's output, and the timer that ends a pulse.

The timer is a thread of its own with a monotonic deadline: neither a link, nor a busy event loop, nor a disk that takes
its time keeps the bolt released for longer. It is still a process of an ordinary system. If that dies during a pulse,
what the output does then is the hardware's business (docs/strike.md).

What it refuses to do: switch on except when told to, and give up switching off.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

RETRY: Final = 0.1
"""Seconds between two attempts to switch off."""

_LOG: Final = logging.getLogger(__name__)


class Output(Protocol):
    """Something that is on or off. May be used from any thread, by one at a time. Methods raise OSError."""

    def write(self, on: bool) -> None:
        """Switch it."""

    def read(self) -> bool:
        """Read back whether it is on."""

    def close(self) -> None:
        """Let go of it."""


class MemoryOutput:
    """An output without hardware; off when it is made, like one that has just got power.

    ``log``: a file that gets a line for that and for each time it is switched, ``on SECONDS`` or ``off SECONDS`` of the
    monotonic clock, on the kernel's side before anything is confirmed: what moved is known even if the process is
    killed.
    """

    def __init__(self, log: Path | None = None) -> None:
        """Open the log; raise OSError."""
        self._log = None if log is None else os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.write(False)

    def write(self, on: bool) -> None:
        """Switch it."""
        if self._log is not None:
            os.write(self._log, f"{'on' if on else 'off'} {time.monotonic():.3f}\n".encode())
        self._on = on

    def read(self) -> bool:
        """Return whether it is on."""
        return self._on

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            os.close(self._log)
            self._log = None


class Relay:
    """An output with a timer. ``pulse``, ``hold`` and ``off`` return False only if it certainly did not do that.

    Whatever fails ends in off. ``over`` is called from the timer's thread, with the number of a pulse that ended by
    itself, or because what came during it failed. ``close`` is the end: off, whatever it takes. The output itself stays
    open.
    """

    def __init__(self, output: Output, over: Callable[[int], None]) -> None:
        """Take an output that is off."""
        self._output = output
        self._over = over
        self._changed = threading.Condition()
        self._number: int | None = None
        self._until: float | None = None
        """When to switch off."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def pulse(self, seconds: float, number: int) -> bool:
        """Switch on for this time; one that is running starts over."""
        with self._changed:
            moved = self._on()
            self._until = time.monotonic() + (seconds if moved else 0.0)
            if moved:
                self._number = number
            self._changed.notify()
        return moved

    def hold(self) -> bool:
        """Switch on until ``off``."""
        with self._changed:
            moved = self._on()
            self._until = None if moved else time.monotonic()
            if moved:
                self._number = None
            self._changed.notify()
        return moved

    def off(self) -> bool:
        """Switch off. If that fails, it is tried again and again."""
        with self._changed:
            now_off = self._switch(False)
            self._until = None if now_off else time.monotonic() + RETRY
            if now_off:
                self._number = None
            self._changed.notify()
        return now_off is not False

    def close(self) -> None:
        """Switch off and end the timer. Blocks until it is off."""
        with self._changed:
            self._until, self._number, self._closing = time.monotonic(), None, True
            self._changed.notify()
        self._thread.join()

    def _on(self) -> bool:
        return self._switch(True) is not False

    def _switch(self, on: bool) -> bool | None:
        """Return whether it did; None: that cannot be known."""
        word = "on" if on else "off"
        try:
            self._output.write(on)
        except OSError as err:
            _LOG.error("relay failed to=%s error=%s", word, err.strerror)
        try:
            return self._output.read() is on
        except OSError as err:
            _LOG.error("relay unreadable after=%s error=%s", word, err.strerror)
            return None

    def _run(self) -> None:
        with self._changed:
            while not self._closing or self._until is not None:
                left = None if self._until is None else self._until - time.monotonic()
                if left is None or left > 0:
                    self._changed.wait(left)
                elif self._switch(False):
                    number, self._until, self._number = self._number, None, None
                    if number is not None:
                        self._over(number)
                else:
                    self._until = time.monotonic() + RETRY
