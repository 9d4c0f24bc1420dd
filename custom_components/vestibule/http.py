"""The intake by HTTP: a carrier's cloud asks a door for a challenge and presents a token there (protocol G).

The caller is a carrier, known by its intake key as a bearer; it is no user of Home Assistant. What this file refuses
to do: decide anything, read more of a body than a request may have, take a key from anywhere but the Authorization
header, or say more than a few constant words to whoever is turned away. It answers 401 and never raises it: Home
Assistant bans the address of a raised one, and behind a tunnel that is everybody's.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aiohttp import hdrs, web
from homeassistant.core import Context, HomeAssistant, callback
from homeassistant.helpers.http import KEY_HASS, HomeAssistantView

from .const import DOMAIN
from .embedded import Embedded, loaded_building
from .remote import gateway_of
from .vestibule_core import wire
from .vestibule_core.errors import (
    GatewayForbidden,
    GatewayImpostor,
    GatewayRefused,
    GatewayUnreachable,
    MalformedMessage,
    Refused,
)
from .vestibule_core.model import Code, Decision, DoorId, Issuer, Principal, Word

BODY_DEADLINE: Final = 10.0
"""Seconds in which the whole body has to be there."""

_BEARER: Final = re.compile(r"Bearer ([A-Za-z0-9_-]{43})")
_CLOSE: Final[Mapping[str, str]] = {hdrs.CONNECTION: "close"}
_CARRIED: Final = {
    403: HTTPStatus.FORBIDDEN,
    404: HTTPStatus.FORBIDDEN,
    429: HTTPStatus.TOO_MANY_REQUESTS,
}
"""What a gateway's answers to Home Assistant mean to a carrier."""
_LATER: Final[Mapping[str, str]] = {hdrs.RETRY_AFTER: "1"}


@callback
def async_register_views(hass: HomeAssistant) -> None:
    """Register the views, for good; they answer 503 while no building is loaded."""
    hass.http.register_view(_IntakeView("challenge", _challenge))
    hass.http.register_view(_IntakeView("unlock", _unlock))


@dataclass(frozen=True, slots=True)
class _Request:
    """A carrier's request, as far as it is understood before it is answered."""

    hass: HomeAssistant
    embedded: Embedded
    issuer: Issuer
    remote: str | None
    door: DoorId
    body: bytes


class _TurnedAway(Exception):
    """Nothing is done, and this is the answer."""

    def __init__(self, status: HTTPStatus, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status.phrase)
        self.status = status
        self.headers = headers or {}


class _IntakeView(HomeAssistantView):
    """One thing that carriers may ask at a door."""

    requires_auth = False  # of Home Assistant's users; a carrier has a key of its own

    def __init__(self, verb: str, answer: Callable[[_Request], Awaitable[dict[str, Any]]]) -> None:
        self.url = f"/api/{DOMAIN}/doors/{{door}}/{verb}"
        self.name = f"api:{DOMAIN}:{verb}"
        self._answer = answer

    async def post(self, request: web.Request, door: str) -> web.Response:
        """Answer a carrier."""
        status = HTTPStatus.OK
        headers: dict[str, str] = {hdrs.CACHE_CONTROL: "no-store"}
        try:
            hass = request.app[KEY_HASS]
            embedded = _embedded(hass)
            issuer = _issuer(request, embedded)
            body = await _body(request)
            answer = await self._answer(_Request(hass, embedded, issuer, request.remote, DoorId(door), body))
        except _TurnedAway as away:
            status, answer = away.status, {"error": away.status.phrase}
            headers |= away.headers
        return self.json(answer, status, headers)


# ---- the two things that are asked ----


async def _challenge(asked: _Request) -> dict[str, Any]:
    """Give a challenge. It costs next to nothing and nothing of it is kept, so nobody is slowed down."""
    if _may(asked):
        with _carried():
            if (gateway := gateway_of(asked.hass, asked.door)) is not None:
                return await gateway.challenge(asked.door, asked.issuer)
    try:
        challenge = asked.embedded.controller.challenge(asked.door, asked.issuer)
    except Refused as refusal:
        stopping = refusal.code is Code.STOPPING
        raise _TurnedAway(HTTPStatus.SERVICE_UNAVAILABLE if stopping else HTTPStatus.FORBIDDEN) from refusal
    return wire.challenge_answer(challenge.nonce, challenge.ttl)


async def _unlock(asked: _Request) -> dict[str, Any]:
    """Have a token judged, and answer when the strike has. A caller that goes away meanwhile stops nothing."""
    controller, intake = asked.embedded.controller, asked.embedded.intake
    if not _may(asked):
        raise _TurnedAway(HTTPStatus.FORBIDDEN)
    with _carried():
        gateway = gateway_of(asked.hass, asked.door)
    if gateway is None and asked.door not in controller.building.doors:
        raise _TurnedAway(HTTPStatus.FORBIDDEN)
    try:
        token = wire.unlock_request(asked.body)
    except MalformedMessage as err:
        raise _TurnedAway(HTTPStatus.BAD_REQUEST) from err
    source, now = f"{asked.issuer} {asked.remote}", controller.now().boot
    if gateway is not None:
        if intake.admit(asked.issuer, source, now):
            raise _TurnedAway(HTTPStatus.TOO_MANY_REQUESTS, _LATER)
        with _carried():
            answer = await gateway.present(asked.door, token, asked.issuer)
        if answer["word"] == Word.INVALID_TOKEN:
            intake.charge(source, Decision(Code.MALFORMED), now)
        return answer
    principal = Principal(asked.issuer)
    decision = await intake.judge(
        asked.issuer, source, now, lambda: controller.present(token, principal, Context(), at=asked.door)
    )
    if decision.code is Code.RATE_LIMITED:
        raise _TurnedAway(HTTPStatus.TOO_MANY_REQUESTS, _LATER)
    if decision.code is Code.STOPPING:
        raise _TurnedAway(HTTPStatus.SERVICE_UNAVAILABLE)
    return wire.decision_answer(decision)


def _may(asked: _Request) -> bool:
    """Return whether the building has let this carrier in at this door."""
    carrier = asked.embedded.controller.building.carriers.get(asked.issuer)
    return carrier is not None and asked.door in carrier.doors


@contextmanager
def _carried() -> Iterator[None]:
    """Say to a carrier why a gateway could not be asked; it was not, so asking again is no harm."""
    try:
        yield
    except (GatewayUnreachable, GatewayImpostor, GatewayForbidden) as err:
        raise _TurnedAway(HTTPStatus.SERVICE_UNAVAILABLE, _LATER) from err
    except GatewayRefused as refusal:
        status = _CARRIED.get(refusal.status, HTTPStatus.SERVICE_UNAVAILABLE)
        raise _TurnedAway(status, {} if status is HTTPStatus.FORBIDDEN else _LATER) from refusal


# ---- what is read of a request ----


def _embedded(hass: HomeAssistant) -> Embedded:
    """Return the building, if it takes requests."""
    if (building := loaded_building(hass)) is None or building.controller.stopped:
        raise _TurnedAway(HTTPStatus.SERVICE_UNAVAILABLE)
    return building


def _issuer(request: web.Request, embedded: Embedded) -> Issuer:
    """Return the carrier that has the caller's key. It is looked up by its hash, whose timing tells nothing of it."""
    bearer = _BEARER.fullmatch(request.headers.get(hdrs.AUTHORIZATION, ""))
    digest = hashlib.sha256(bearer[1].encode()).hexdigest() if bearer else ""
    if (issuer := embedded.setup.intake_keys.get(digest)) is None:
        raise _TurnedAway(HTTPStatus.UNAUTHORIZED, {hdrs.WWW_AUTHENTICATE: "Bearer"})
    return issuer


async def _body(request: web.Request) -> bytes:
    """Return the body; of one that is too large, no more is read than shows that, whatever its head says."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            if (request.content_length or 0) <= wire.MAX_REQUEST:
                async for part in request.content.iter_any():
                    body += part
                    if len(body) > wire.MAX_REQUEST:
                        break
                else:
                    return bytes(body)
    except TimeoutError as err:
        raise _TurnedAway(HTTPStatus.REQUEST_TIMEOUT, _CLOSE) from err
    except web.RequestPayloadError as err:  # compressed, and not what it says
        raise _TurnedAway(HTTPStatus.BAD_REQUEST, _CLOSE) from err
    raise _TurnedAway(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _CLOSE)
