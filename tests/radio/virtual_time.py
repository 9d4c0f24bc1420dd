"""Time that passes only when there is nothing else to do: minutes of waiting cost nothing.

All of it lives in one event loop here: both Bluetooth stacks, the ether, the driver and the strike. ``RadioLoop`` is
that loop, and ``of_the_strike`` makes the strike's program use its time; nothing else of the strike is another one than
in the field. What this module refuses to do: stand in for the relay's thread, which has tests of its own
(tests/gateway/strike/test_relay.py), or for processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Final, override

import pytest

from gateway.strike import relay, shell
from gateway.strike.relay import Output, Relay
from tests.core.doorstrike.live import JumpingLoop, JumpingSelector

_TURN: Final = 1e-9
"""Seconds that pass in each turn of the loop: a timer that was rounded down does not go off for ever."""
_START: Final = 1000.0


class _Selector(JumpingSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = _START
        self.idle: Callable[[], None] | None = None
        """What to call instead of letting time pass."""

    @override
    def select(self, timeout: float | None = None) -> list[object]:
        self.now += _TURN
        if self.idle is not None and (timeout is None or timeout > _TURN):
            timeout = 0.0
            if not (ready := super().select(timeout)):
                self.idle()
            return ready
        return super().select(timeout)


class RadioLoop(JumpingLoop):
    """A loop whose time passes at once when everybody in it waits, unless it is driven by ``settle``."""

    selector_class = _Selector

    def settle(self) -> None:
        """Run whatever can be run, and let no time pass."""
        self.selector.idle = self.stop
        try:
            self.run_forever()
        finally:
            self.selector.idle = None

    def leap(self, to: float) -> None:
        """Be at a later time at once. What was due meanwhile goes off afterwards, once."""
        self.selector.now = max(self.selector.now, to)


class _Rearmed:
    """In place of the relay's lock: there is one thread, and whatever changes the relay arms its timer anew."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self.notify = notify

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class LoopRelay(Relay):
    """The strike's relay with a timer of the running loop, not a thread."""

    def __init__(self, output: Output, over: Callable[[int], None]) -> None:
        self._timer: asyncio.TimerHandle | None = None
        super().__init__(output, over)
        self._thread.join()
        self._changed = _Rearmed(self._arm)  # type: ignore[assignment]

    @override
    def _run(self) -> None:
        """The thread ends at once."""

    @property
    def due(self) -> float | None:
        """When its timer will go off."""
        return self._until

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closing:
            self._switch(False)
        elif self._until is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, self._until - loop.time()), self._end)

    def _end(self) -> None:
        if self._switch(False):
            number, self._until, self._number = self._number, None, None
            if number is not None:
                self._over(number)
        else:
            self._until = asyncio.get_running_loop().time() + relay.RETRY
            self._arm()


def of_the_strike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every strike of this process live in the time of the loop that it runs in."""
    clock = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    monkeypatch.setattr(shell, "time", clock)
    monkeypatch.setattr(relay, "time", clock)
    monkeypatch.setattr(shell, "Relay", LoopRelay)
