"""The doors behind the relays, and the people who use them.

A driver stands at each door and pulls it as soon as a relay has released it: it opens a moment later and falls
shut behind the driver. Whoever asks the actions can send the driver away, prop the door open, walk in past the
relay, press the exit button or open the housing. What this file refuses to do: know whether somebody may.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from homeassistant.core import CALLBACK_TYPE, HomeAssistant, callback
from homeassistant.helpers.event import async_call_later

REACTION = 0.8
"""Seconds from a release until the driver has pulled the door open."""
PASSAGE = 1.5
"""Seconds that somebody who goes through leaves the door open."""
PRESS = 0.5
"""Seconds that the exit button is held."""


class SimulatedDoor:
    """A door: what its sensors see, and what people do to it."""

    def __init__(self, hass: HomeAssistant) -> None:
        """Begin closed, with a driver in front of it."""
        self.is_open = False
        self.rex_pressed = False
        self.tampered = False
        self.driver_present = True
        self._hass = hass
        self._listeners: list[Callable[[], None]] = []
        self._next_move: CALLBACK_TYPE | None = None
        self._let_go: CALLBACK_TYPE | None = None

    @callback
    def watch(self, listener: Callable[[], None]) -> CALLBACK_TYPE:
        """Call ``listener`` after each change, until what is returned is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # ---- what the relay does ----

    @callback
    def released(self) -> None:
        """Let the driver, if there is one, pull the door."""
        if self.driver_present and not self.is_open and self._next_move is None:
            self._next_move = async_call_later(self._hass, REACTION, self._go_through)

    @callback
    def secured(self) -> None:
        """Hold a door that nobody has pulled yet."""
        if not self.is_open:
            self._drop_move()

    # ---- what people do ----

    @callback
    def send_driver(self, *, present: bool) -> None:
        """Put a driver in front of the door, or send the one there away."""
        self.driver_present = present

    @callback
    def open(self) -> None:
        """Prop the door open: it stays so until somebody closes it."""
        self._drop_move()
        self._change(is_open=True)

    @callback
    def close(self) -> None:
        """Close the door."""
        self._drop_move()
        self._change(is_open=False)

    @callback
    def walk_in(self) -> None:
        """Go through at once, released or not, and let the door fall shut."""
        self._drop_move()
        self._go_through(None)

    @callback
    def press_rex(self) -> None:
        """Press the exit button and let go of it."""
        self._drop_press()
        self._change(rex_pressed=True)
        self._let_go = async_call_later(self._hass, PRESS, self._release_rex)

    @callback
    def tamper(self, *, opened: bool) -> None:
        """Open or close the housing of the reader."""
        self._change(tampered=opened)

    @callback
    def leave_alone(self) -> None:
        """Do nothing more by itself."""
        self._drop_move()
        self._drop_press()

    # ---- what follows ----

    @callback
    def _go_through(self, _: datetime | None) -> None:
        self._next_move = async_call_later(self._hass, PASSAGE, self._fall_shut)
        self._change(is_open=True)

    @callback
    def _fall_shut(self, _: datetime) -> None:
        self._next_move = None
        self._change(is_open=False)

    @callback
    def _release_rex(self, _: datetime) -> None:
        self._let_go = None
        self._change(rex_pressed=False)

    @callback
    def _drop_move(self) -> None:
        if self._next_move is not None:
            self._next_move()
            self._next_move = None

    @callback
    def _drop_press(self) -> None:
        if self._let_go is not None:
            self._let_go()
            self._let_go = None

    @callback
    def _change(self, **what: bool) -> None:
        for name, value in what.items():
            setattr(self, name, value)
        for listener in tuple(self._listeners):
            listener()
