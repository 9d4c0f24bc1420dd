"""A request to the cloud, as far as it is understood before it is answered; and how one is turned away.

What this file refuses to do: decide anything, read more of a body than a request may have, or say more than a constant
word to whoever is turned away.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from aiohttp import hdrs, web

from vestibule_core import b64url
from vestibule_core.api.body import read_body
from vestibule_core.errors import MalformedMessage
from vestibule_core.strict import MAX_INTEGER, Message, Shape, parsed

from .api_keys import Scope
from .cloud import Cloud
from .store import Prefix, is_id

MAX_REQUEST: Final = 8 * 1024
"""Bytes of a body, unless a route says otherwise."""
CLOSE: Final[Mapping[str, str]] = {hdrs.CONNECTION: "close"}
LATER: Final[Mapping[str, str]] = {hdrs.RETRY_AFTER: "1"}
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")


class ErrorWord(StrEnum):
    """Why a request was turned away."""

    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    EXPIRED = "expired"
    """What it answers to was given out too long ago, or answered before."""
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    TOO_MANY_REQUESTS = "too_many_requests"
    UNAVAILABLE = "unavailable"


class TurnedAway(Exception):
    """Nothing is done, and this is the answer."""

    def __init__(
        self, status: HTTPStatus, word: ErrorWord, headers: Mapping[str, str] | None = None, why: str | None = None
    ) -> None:
        """Answer with this status and word; ``why``: which part of a dispatcher's own input does not fit."""
        super().__init__(word.value)
        self.status, self.word, self.headers, self.why = status, word, headers or {}, why


def bad_request(why: str | None = None) -> TurnedAway:
    """Return the refusal of something that says nothing, or what cannot be."""
    return TurnedAway(HTTPStatus.BAD_REQUEST, ErrorWord.BAD_REQUEST, why=why)


def not_found() -> TurnedAway:
    """Return the refusal of something that is not there, or is none of the caller's business."""
    return TurnedAway(HTTPStatus.NOT_FOUND, ErrorWord.NOT_FOUND)


def forbidden() -> TurnedAway:
    """Return the refusal of something that this caller may not do."""
    return TurnedAway(HTTPStatus.FORBIDDEN, ErrorWord.FORBIDDEN)


class Guest(StrEnum):
    """Who may ask without a dispatcher's key."""

    ANYBODY = "anybody"
    """Anything but a page of another origin."""
    DRIVER = "driver"
    """A browser in which a driver's device has signed in."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as shown by a key or a session."""

    id: str
    """Of the key, or of the device."""
    driver: str | None = None
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Call:
    """A request, with what is known of it."""

    cloud: Cloud
    request: web.Request
    caller: Caller | None
    body: bytes
    now: datetime

    @property
    def by(self) -> Caller:
        """Who asks, of a request that not anybody may make."""
        assert self.caller is not None
        return self.caller

    @property
    def driver(self) -> str:
        """The driver who asks."""
        assert self.by.driver is not None
        return self.by.driver

    def read[T](self, message: Message[T]) -> T:
        """Return what the body says."""
        try:
            return message.decode(self.body)
        except MalformedMessage as err:
            raise bad_request(str(err)) from err

    def id(self, kind: Prefix) -> str:
        """Return the id of the path, ``{driver}`` for a driver; what is none, or of another kind, is not there."""
        if not is_id(spelt := self.request.match_info[kind.name.lower()], kind):
            raise not_found()
        return spelt

    def number(self, name: str, otherwise: int, most: int = MAX_INTEGER) -> int:
        """Return a number of the query."""
        text = self.request.query.get(name, str(otherwise))
        if not _NUMBER.fullmatch(text) or len(self.request.query.getall(name, ())) > 1 or int(text) > most:
            raise bad_request(name)
        return int(text)


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that may be asked."""

    method: str
    path: str
    who: Scope | Guest
    answer: Callable[[Call], Awaitable[web.StreamResponse]]
    most: int = 0
    """Bytes of its body."""


async def body_of(request: web.Request, most: int) -> bytes:
    """Return the whole body."""
    try:
        body = await read_body(request.content.iter_any(), request.content_length, most)
    except TimeoutError as err:
        raise TurnedAway(HTTPStatus.REQUEST_TIMEOUT, ErrorWord.TIMEOUT, CLOSE) from err
    except (web.RequestPayloadError, ConnectionError) as err:  # chunks that are none, or the caller has gone
        raise TurnedAway(HTTPStatus.BAD_REQUEST, ErrorWord.BAD_REQUEST, CLOSE) from err
    if body is None:
        raise TurnedAway(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ErrorWord.TOO_LARGE, CLOSE)
    return body


def said(value: Any, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """Return an answer in JSON."""
    return web.json_response(value, status=status)


def octets(most: int, least: int = 1) -> Shape[bytes]:
    """A number of bytes, in base64url without padding."""

    def parse(spelt: str) -> bytes:
        encoded = spelt.encode()
        if encoded.strip(b64url.ALPHABET) or not least <= len(value := b64url.decode(encoded)) <= most:
            raise ValueError("not such bytes")
        return value

    return parsed(parse, b64url.encode)


def identifier(prefix: str) -> Shape[str]:
    """An id: its prefix, a colon, and 26 base32 characters in lower case."""

    def parse(spelt: str) -> str:
        if not is_id(spelt, prefix):
            raise ValueError("no such id")
        return spelt

    return parsed(parse)
