"""The strike: what the core needs from whatever moves a door's bolt.

A driver implements ``Strike`` and passes the conformance suite that all drivers pass (tests/conformance.py). A driver
never retries a release: whether it happened is not its to guess.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Reading(StrEnum):
    """What a strike says about itself. UNKNOWN is an answer, and never means secured."""

    SECURED = "secured"
    RELEASED = "released"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a strike can do, fixed for its life."""

    device_timed: bool
    """It secures by itself after a release, whatever has died by then. Else the controller secures it."""
    feedback: bool
    """Its readings come from the hardware. Else they are always UNKNOWN."""
    can_secure: bool = True
    """It can be told to go back before its time is over."""
    can_hold: bool = False
    """It can be told to stay released until it is told to go back."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """One release."""

    spend_id: bytes
    """16 bytes; a strike that has a memory refuses one that it has seen (protocol B.2)."""
    seconds: float
    origin: object = None
    """What the host gave along with the request."""


class Strike(Protocol):
    """A door's lock hardware, or the relay that drives it."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    @property
    def reading(self) -> Reading:
        """What it last said, without asking it."""
        ...

    def subscribe(self, listener: Callable[[Reading], None]) -> Callable[[], None]:
        """Call ``listener`` in the event loop with each new reading, until the returned function is called."""
        ...

    async def reach(self) -> None:
        """Make sure that it would hear a command, without moving it; raise StrikeUnreachable.

        Called before a token is spent, so that jamming burns none (A.2).
        """
        ...

    async def release(self, pulse: Pulse) -> None:
        """Release once and return when the strike confirmed it.

        Raises StrikeUnreachable (it heard nothing), StrikeRefused (it did not move) or OutcomeUnknown (it may have).
        """
        ...

    async def hold(self, origin: object) -> None:
        """Release until ``secure``, and return when it confirmed it. Raises as ``release`` does.

        Called only if it ``can_hold``. ``origin`` is what the host gave along with the request.
        """
        ...

    async def secure(self) -> None:
        """Put it back and return when it confirmed it; may be repeated. Raises as ``release`` does.

        Called only if it ``can_secure``. What takes its time (a gate) has confirmed when it moves; its reading says
        when it is there.
        """
        ...
