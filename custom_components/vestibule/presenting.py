"""A carrier asks a door: for a challenge, and what becomes of a token. By HTTP (http.py) or over its link (link.py).

One place, so that both ways lead past the same checks: the carrier may enter at the door, requests are counted, and a
door that a gateway has is asked there. What this file refuses to do: decide anything about a token, or say of a door
that the carrier may not enter whether it exists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Final

from homeassistant.core import Context, HomeAssistant

from .embedded import Embedded
from .remote import Remote, gateway_of
from .vestibule_core import token as tokens
from .vestibule_core.api.messages import Answer
from .vestibule_core.errors import (
    GatewayForbidden,
    GatewayImpostor,
    GatewayRefused,
    GatewayUnreachable,
    Refused,
)
from .vestibule_core.model import Code, Decision, DoorId, Issuer, Principal, Word

_SPENT_BY_WORD: Final = {Word.GRANTED: Code.GRANTED, Word.UNKNOWN_OUTCOME: Code.OUTCOME_UNKNOWN}
_SPENT: Final = (Code.STRIKE_UNREACHABLE, Code.STRIKE_REFUSED, Code.STORE_FAILED, Code.LATE)
"""What a gateway may say of a token that it has spent, although nothing opened: held against the carrier's list."""


class Obstacle(Enum):
    """Why a door was not asked."""

    FORBIDDEN = auto()
    """It is none that the carrier may enter."""
    TOO_MANY = auto()
    """Too much was asked; asking again is no harm."""
    AWAY = auto()
    """Its gateway does not answer; asking again is no harm."""
    STOPPING = auto()


class NotAsked(Exception):
    """A door was not asked, and nothing moved."""

    def __init__(self, why: Obstacle) -> None:
        """Say why."""
        super().__init__(why.name)
        self.why: Final = why


_CARRIED: Final = {
    403: Obstacle.FORBIDDEN,
    404: Obstacle.FORBIDDEN,
    429: Obstacle.TOO_MANY,
}
"""What a gateway's answers to Home Assistant mean to a carrier."""


async def challenge(hass: HomeAssistant, embedded: Embedded, issuer: Issuer, door: DoorId) -> tuple[str, int]:
    """Return a challenge of a door and for how many seconds it is good; raise NotAsked.

    It costs next to nothing and nothing of it is kept, so nobody is slowed down.
    """
    if (gateway := spender(hass, embedded, issuer, door)) is not None:
        with _carried():
            answer = await gateway.challenge(door, issuer)
        return answer.nonce, answer.ttl
    try:
        given = embedded.controller.challenge(door, issuer)
    except Refused as refusal:
        why = Obstacle.STOPPING if refusal.code is Code.STOPPING else Obstacle.FORBIDDEN
        raise NotAsked(why) from refusal
    return given.nonce, given.ttl


async def present(
    hass: HomeAssistant, embedded: Embedded, issuer: Issuer, door: DoorId, token: str, source: str
) -> Answer:
    """Have a token judged at a door, and answer when the strike has. A caller that goes away meanwhile stops nothing.

    ``source`` pays for what is no genuine token. Raises NotAsked.
    """
    controller, intake = embedded.controller, embedded.intake
    now = controller.now().boot
    if (gateway := spender(hass, embedded, issuer, door)) is not None:
        if intake.admit(issuer, source, now):
            raise NotAsked(Obstacle.TOO_MANY)
        with _carried():
            answer = await carry(hass, embedded, gateway, door, token, issuer)
        if answer.word is Word.INVALID_TOKEN:
            intake.charge(source, Decision(Code.MALFORMED), now)
        return answer
    principal = Principal(issuer)
    decision = await intake.judge(issuer, source, now, lambda: controller.present(token, principal, Context(), at=door))
    if decision.code is Code.RATE_LIMITED:
        raise NotAsked(Obstacle.TOO_MANY)
    if decision.code is Code.STOPPING:
        raise NotAsked(Obstacle.STOPPING)
    return Answer.of(decision)


def spender(hass: HomeAssistant, embedded: Embedded, issuer: Issuer, door: DoorId) -> Remote | None:
    """Return the gateway that judges what this carrier presents at a door; None: the building itself does.

    Raises NotAsked.
    """
    if embedded.controller.stopped:
        raise NotAsked(Obstacle.STOPPING)
    carrier = embedded.controller.building.carriers.get(issuer)
    if carrier is None or door not in carrier.doors:
        raise NotAsked(Obstacle.FORBIDDEN)
    with _carried():
        gateway = gateway_of(hass, door)
    if gateway is None and door not in embedded.controller.building.doors:
        raise NotAsked(Obstacle.FORBIDDEN)
    return gateway


async def carry(
    hass: HomeAssistant, embedded: Embedded, gateway: Remote, door: DoorId, token: str, issuer: Issuer | None
) -> Answer:
    """Carry a token to the gateway that has its door, and answer what that says; ``issuer`` None: anybody's.

    A caller that goes away meanwhile stops nothing. Raises what ``Remote.present`` does.
    """
    carrying = hass.async_create_background_task(_carry(embedded, gateway, door, token, issuer), "carry a token")
    carrying.add_done_callback(lambda done: done.cancelled() or done.exception())  # if nobody waits any more
    return await asyncio.shield(carrying)


async def _carry(embedded: Embedded, gateway: Remote, door: DoorId, token: str, issuer: Issuer | None) -> Answer:
    if embedded.locked_down:  # the gateway may not have heard of it yet
        return Answer.of(Decision(Code.LOCKDOWN, door))
    building = embedded.controller.building
    carrier = building.carriers.get(issuer) if issuer is not None else None
    if carrier is not None and carrier.locked_out:  # whatever it is: it may not have heard of that either
        return Answer.of(Decision(Code.CARRIER_LOCKED_OUT, door))
    try:
        claims = tokens.verify(token, building.keys, issuer, ()).claims
    except Refused as refusal:
        if refusal.code is Code.KEY_REVOKED:  # nor of this: the thief's key is good there until it has
            return Answer.of(await embedded.controller.present(token, Principal(issuer), Context(), at=door))
        return await gateway.present(door, token, issuer)  # for the gateway to judge, and to record
    if building.carriers[claims.issuer].locked_out:
        return Answer.of(Decision(Code.CARRIER_LOCKED_OUT, door))
    answer = await gateway.present(door, token, issuer)
    code = _SPENT_BY_WORD.get(answer.word) or next((each for each in _SPENT if each == answer.code), None)
    if code is not None:
        embedded.links.carried(claims, code)
    return answer


def said(answer: Answer) -> dict[str, str | None]:
    """Return an answer as a presenter hears it in JSON."""
    words: dict[str, str | None] = {"word": answer.word.value, "code": answer.code}
    return words if answer.limit is None else words | {"limit": answer.limit.value}


@contextmanager
def _carried() -> Iterator[None]:
    """Say to a carrier why a gateway could not be asked; it was not, so asking again is no harm."""
    try:
        yield
    except (GatewayUnreachable, GatewayImpostor, GatewayForbidden) as err:
        raise NotAsked(Obstacle.AWAY) from err
    except GatewayRefused as refusal:
        raise NotAsked(_CARRIED.get(refusal.status, Obstacle.AWAY)) from refusal
