"""Whether a link works, judged by how it ended each time. Pure.

A link that is accepted and lost again within seconds, however often, is none: trouble counts from the first answer
after the link last stood, and ends when it stands again. What this file refuses to do: call it trouble that nobody
answers. That is the network, mostly, and passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

STOOD: Final = 60.0
"""Seconds for which a link has to have stood to count as one that works."""
TELL_AFTER: Final = 900.0
"""Seconds of trouble until it is a matter for people. A cloud's restart is shorter; and between two tries there is a
third of it at the most, so that it takes several.
"""
CONTESTED: Final = 3600.0
"""Seconds for which it is told that another installation has taken a link over."""
ENDS_SOON: Final = 7 * 86400
"""Seconds before the end of a carrier's keys from which that is told."""


class LinkState(StrEnum):
    """How a link is, in one word for the host's texts."""

    CONNECTED = "connected"
    CONNECTING = "connecting"
    """Not tried yet."""
    NOT_READY = "not_ready"
    """The cloud has asked us to come back: it restarts, or has published no keys yet."""
    UNREACHABLE = "unreachable"
    CERTIFICATE = "certificate"
    """Somebody answers, whose certificate is not good for this host."""
    NO_CLOUD = "no_cloud"
    """What answers does not speak this protocol."""
    WRONG_ISSUER = "wrong_issuer"
    """It is the cloud of another carrier than the one that was enrolled."""
    TAKEN_OVER = "taken_over"
    """Another connection of this controller has begun: maybe a copy of this installation."""
    NOT_ENROLLED = "not_enrolled"
    """The cloud does not know this controller, or has removed it."""
    CODE_UNUSABLE = "code_unusable"
    """The enrolment code is unknown, used by another controller, or too old."""
    UNSTABLE = "unstable"
    """Somebody answers, and the link never stands for long: what many tries come to. No single one ends so."""


NOT_ACCEPTED: Final = frozenset({LinkState.NOT_ENROLLED, LinkState.WRONG_ISSUER})
"""What a cloud says once and means: a matter for people at once."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """That somebody answers, and the link has not stood since. All times are monotonic seconds."""

    why: LinkState
    """What the last try came to that was answered."""
    why_since: float
    """Since when all that were answered have come to that."""
    since: float
    answered: float
    """When the last one that was answered has ended."""


def has_stood(stood: float | None) -> bool:
    """Return whether a connection makes a link that works; ``stood`` as in ``after``."""
    return stood is not None and stood >= STOOD


def after(trouble: Trouble | None, state: LinkState, stood: float | None, now: float) -> Trouble | None:
    """Return the trouble that there is after a try that has ended with ``state`` at ``now``.

    ``stood``: for how many seconds the cloud was heard after it had accepted the hello, 0 if it had not; None if there
    was no connection.
    """
    if has_stood(stood):
        return None
    why = LinkState.UNSTABLE
    match state:
        case LinkState.CERTIFICATE | LinkState.NO_CLOUD | LinkState.NOT_READY:
            why = state
        case LinkState.UNREACHABLE | LinkState.CONNECTING if stood is None:
            return trouble
        case LinkState.UNREACHABLE | LinkState.CONNECTING:
            pass
        case _:
            return None  # the cloud has said what is wrong, and means it: that is told by itself
    if trouble is None or now - trouble.answered >= TELL_AFTER:
        return Trouble(why, now, now, now)
    return Trouble(why, trouble.why_since if why is trouble.why else now, trouble.since, now)


def told(trouble: Trouble | None, stood: float | None, now: float) -> LinkState | None:
    """Return what a person has to hear of, None if nothing: CERTIFICATE, NO_CLOUD or NOT_READY if that alone has kept
    the link from standing for TELL_AFTER seconds, else UNSTABLE.

    ``stood`` is that of the connection that there is now, as in ``after``: the first seconds of one cure nothing.
    """
    if trouble is None or has_stood(stood) or now - trouble.since < TELL_AFTER or now - trouble.answered >= TELL_AFTER:
        return None
    return trouble.why if now - trouble.why_since >= TELL_AFTER else LinkState.UNSTABLE
