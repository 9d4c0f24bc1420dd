"""The intake by HTTP: a carrier's cloud asks a door for a challenge and presents a token there (protocol G).

The caller is a carrier, known by its intake key as a bearer; it is no user of Home Assistant. What this file refuses
to do: decide anything, read more of a body than a request may have, take a key from anywhere but the Authorization
header, or say more than a few constant words to whoever is turned away. It answers 401 and never raises it: Home
Assistant bans the address of a raised one, and behind a tunnel that is everybody's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aiohttp import hdrs, web
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.http import KEY_HASS, HomeAssistantView

from . import presenting
from .const import DOMAIN
from .embedded import Embedded, loaded_building
from .presenting import NotAsked, Obstacle
from .vestibule_core import wire
from .vestibule_core.api.body import read_body
from .vestibule_core.errors import MalformedMessage
from .vestibule_core.model import DoorId, Issuer

_BEARER: Final = re.compile(r"Bearer ([A-Za-z0-9_-]{43})")
_CLOSE: Final[Mapping[str, str]] = {hdrs.CONNECTION: "close"}
_LATER: Final[Mapping[str, str]] = {hdrs.RETRY_AFTER: "1"}
_ANSWERS: Final[Mapping[Obstacle, tuple[HTTPStatus, Mapping[str, str]]]] = {
    Obstacle.FORBIDDEN: (HTTPStatus.FORBIDDEN, {}),
    Obstacle.TOO_MANY: (HTTPStatus.TOO_MANY_REQUESTS, _LATER),
    Obstacle.AWAY: (HTTPStatus.SERVICE_UNAVAILABLE, _LATER),
    Obstacle.STOPPING: (HTTPStatus.SERVICE_UNAVAILABLE, {}),
}


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
    with _turned_away():
        nonce, ttl = await presenting.challenge(asked.hass, asked.embedded, asked.issuer, asked.door)
    return wire.challenge_answer(nonce, ttl)


async def _unlock(asked: _Request) -> dict[str, Any]:
    with _turned_away():
        presenting.spender(asked.hass, asked.embedded, asked.issuer, asked.door)  # before anything is read
        try:
            token = wire.unlock_request(asked.body)
        except MalformedMessage as err:
            raise _TurnedAway(HTTPStatus.BAD_REQUEST) from err
        source = f"{asked.issuer} {asked.remote}"
        answer = await presenting.present(asked.hass, asked.embedded, asked.issuer, asked.door, token, source)
    return presenting.said(answer)


@contextmanager
def _turned_away() -> Iterator[None]:
    try:
        yield
    except NotAsked as refusal:
        raise _TurnedAway(*_ANSWERS[refusal.why]) from refusal


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
    """Return the whole body."""
    try:
        body = await read_body(request.content.iter_any(), request.content_length, wire.MAX_REQUEST)
    except TimeoutError as err:
        raise _TurnedAway(HTTPStatus.REQUEST_TIMEOUT, _CLOSE) from err
    except web.RequestPayloadError as err:  # compressed, and not what it says
        raise _TurnedAway(HTTPStatus.BAD_REQUEST, _CLOSE) from err
    if body is None:
        raise _TurnedAway(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _CLOSE)
    return body
