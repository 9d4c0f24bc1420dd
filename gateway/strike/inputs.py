"""What is at the box's inputs, in the protocol's words: switches on lines, or lines of text for a trial without any.

A button has to be held, and what it means depends on for how long: that is measured here. What this module refuses to
do: move anything, and guess the state of a switch that is not there.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Final

from vestibule_core.doorstrike.device import (
    PAIRING_HOLD,
    RESET_HOLD,
    BoltIs,
    ButtonHeld,
    ContactIs,
    CoverIs,
    ExitRequested,
    Input,
)
from vestibule_core.doorstrike.wire import Caps, Contact

from .config import Config

_LOG: Final = logging.getLogger(__name__)

SAID: Final[dict[str, Input]] = {
    "contact closed": ContactIs(Contact.CLOSED),
    "contact open": ContactIs(Contact.OPEN),
    "contact fault": ContactIs(Contact.FAULT),
    "cover closed": CoverIs(open=False),
    "cover open": CoverIs(open=True),
    "bolt secured": BoltIs(secured=True),
    "bolt open": BoltIs(secured=False),
    "button 3": ButtonHeld(PAIRING_HOLD),
    "button 10": ButtonHeld(RESET_HOLD),
    "exit": ExitRequested(),
}
"""The lines that simulated inputs understand."""

_SWITCHES: Final[dict[str, Callable[[bool], Input]]] = {
    "contact": lambda closed: ContactIs(Contact.CLOSED if closed else Contact.OPEN),
    "tamper": lambda closed: CoverIs(open=not closed),
    "bolt": BoltIs,
}


def caps(config: Config) -> Caps:
    """Return what a box has."""
    simulated = config.simulated_inputs
    return Caps(
        Caps.CONTACT * bool(config.contact or simulated)
        | Caps.TAMPER * bool(config.tamper or simulated)
        | Caps.LOCK_MONITOR * bool(config.bolt or simulated)
        | Caps.REX * bool(config.rex or simulated)
        | Caps.HOLD * config.hold
    )


class Switches:
    """Turns switches into the protocol's inputs."""

    def __init__(self, sensed: Callable[[Input], None]) -> None:
        """Tell ``sensed``."""
        self._sensed = sensed
        self._held: list[asyncio.TimerHandle] = []

    def told(self, name: str, closed: bool) -> None:
        """Take a switch's word."""
        match name:
            case "button":
                self._button(pressed=closed)
            case "rex":
                if closed:
                    self._sensed(ExitRequested())
            case _:
                self._sensed(_SWITCHES[name](closed))

    def close(self) -> None:
        """Forget a button that is held."""
        self._button(pressed=False)

    def _button(self, *, pressed: bool) -> None:
        for timer in self._held:
            timer.cancel()
        self._held = [
            asyncio.get_running_loop().call_later(seconds, self._sensed, ButtonHeld(seconds))
            for seconds in (PAIRING_HOLD, RESET_HOLD)
            if pressed
        ]


async def read_simulated(sensed: Callable[[Input], None]) -> None:
    """Take lines of SAID from standard input, a pipe or a terminal, until it ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while line := (await reader.readline()).decode(errors="replace"):
            if (what := SAID.get(" ".join(line.split()))) is not None:
                sensed(what)
            elif line.strip():
                _LOG.warning("input unknown; one of: %s", ", ".join(SAID))
    finally:
        transport.close()
