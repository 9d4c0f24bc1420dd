"""What the strike's machine tells its shell to do. The shell does it in order, one after the other.

A Persist is on the disk (fsync) before the next effect begins: it may be what keeps the bolt from moving twice. If it
fails, the shell performs nothing more, lets go of every link and starts anew from what the disk holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .memory import Part


@dataclass(frozen=True, slots=True)
class Persist:
    """Keep this piece, whole or not at all."""

    part: Part
    contents: bytes = field(repr=False)
    """Holds keys."""


@dataclass(frozen=True, slots=True)
class StartPulse:
    """Switch the relay on for this time, by a timer that nothing else can stop from running out; then report.

    A pulse that is running starts over. When it has performed the other effects that came along, and before any other
    input, the shell answers with ``relay_done`` or ``relay_failed``; ``pulse_complete(number)`` follows when the relay
    is off again. If it failed, ``pulse_complete`` of the one that was running, if any, follows all the same.
    """

    seconds: float
    number: int


@dataclass(frozen=True, slots=True)
class HoldRelay:
    """Switch the relay on until StopRelay; a pulse that is running becomes part of it. Answered like StartPulse; if it
    failed, the same follows.
    """


@dataclass(frozen=True, slots=True)
class StopRelay:
    """Switch the relay off now, whatever runs. Answered like StartPulse; ``pulse_complete`` follows only if it failed
    during a pulse.
    """


@dataclass(frozen=True, slots=True)
class Notify:
    """Send these fragments to one link, each as one notification."""

    link: int
    fragments: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Let go of a link, after what was to be sent on it."""

    link: int


type Effect = Persist | StartPulse | HoldRelay | StopRelay | Notify | Disconnect
