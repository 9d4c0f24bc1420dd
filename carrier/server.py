"""The cloud's HTTP side, behind a proxy that speaks HTTPS: pages, the driver's and the dispatchers' API, links' begin.

Each request goes the same way: for which host it is, from which page it comes, who shows what, how often that asks,
its body, and only then what it asks for. The routes are rows of two tables. What this file refuses to do: decide
anything, take a key from anywhere but its header, answer a page of another origin, load anything from another host, or
say more than a constant word to whoever is turned away.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aiohttp import ETag, hdrs, web
from sqlalchemy import literal, select

from . import api_keys, dispatch_api, driver_api, links
from .cloud import Cloud
from .intake import (
    LATER,
    Call,
    Caller,
    ErrorWord,
    Guest,
    Route,
    TurnedAway,
    body_of,
    forbidden,
    not_found,
    said,
)
from .limits import Rates, caller_of
from .store import StoreUnavailable

_LOGGER = logging.getLogger(__name__)
_WEB: Final = Path(__file__).parent / "web"
_TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
_BEARER: Final = re.compile(r"Bearer (vck_[A-Za-z0-9_-]{43})")
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
HEADERS: Final = {
    hdrs.SERVER: "vestibule",
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "geolocation=(self), publickey-credentials-get=(self), publickey-credentials-create=(self), "
    "camera=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SECURE_ONLY: Final = "max-age=31536000"
"""Strict-Transport-Security, in seconds."""

ROUTES: Final = (*driver_api.ROUTES, *dispatch_api.ROUTES)


@dataclass(frozen=True, slots=True)
class Page:
    """A file of the pages, as it is sent."""

    plain: bytes
    packed: bytes
    type: str
    tag: str


def pages() -> dict[str, Page]:
    """Return the files of the pages, by their path."""
    found = {}
    for file in sorted(_WEB.iterdir()):
        if (kind := _TYPES.get(file.suffix)) is not None:
            plain = file.read_bytes()
            path = {"index.html": "/", "dispatch.html": "/dispatch"}.get(file.name, f"/web/{file.name}")
            found[path] = Page(plain, gzip.compress(plain, mtime=0), kind, hashlib.sha256(plain).hexdigest()[:32])
    return found


class Api:
    """The HTTP side of a cloud, as an aiohttp application (``app``)."""

    def __init__(self, cloud: Cloud) -> None:
        """Serve ``cloud``."""
        self.cloud = cloud
        self.rates = Rates()
        self.app = web.Application(middlewares=[self._guard])
        self._host = urlsplit(cloud.party.origin).netloc.lower()
        self._routes: dict[object, Route] = {}
        for route in ROUTES:
            serve = self._serving(route)
            self._routes[serve] = route
            self.app.router.add_route(route.method, route.path, serve)
        self.app.router.add_get(links.PATH, cloud.ways.links.serve)
        self.app.router.add_get("/health", self._health)
        for path, page in pages().items():
            self.app.router.add_get(path, _serve_page(page))
        self.app.on_response_prepare.append(self._sign)

    async def _health(self, _: web.Request) -> web.Response:
        """Say whether this replica can decide: whether its store answers."""
        async with self.cloud.store.reading() as session:
            await session.execute(select(literal(1)))
            return said({"status": "ok", "buildings_connected": self.cloud.buildings_connected()})

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Turn away what is not for us, and say every refusal in a constant word."""
        try:
            self._check_host(request)
            return await handler(request)
        except TurnedAway as away:
            return _refusal(away)
        except web.HTTPMethodNotAllowed as err:
            allowed = {str(hdrs.ALLOW): err.headers[hdrs.ALLOW]}
            return _refusal(TurnedAway(HTTPStatus.METHOD_NOT_ALLOWED, ErrorWord.BAD_REQUEST, allowed))
        except web.HTTPNotFound:
            return _refusal(not_found())
        except StoreUnavailable as err:
            _LOGGER.warning("The database does not answer: %s", err)
            return _refusal(TurnedAway(HTTPStatus.SERVICE_UNAVAILABLE, ErrorWord.UNAVAILABLE, LATER))

    def _check_host(self, request: web.Request) -> None:
        """A page in a browser can make any name mean our address, but not make its browser say another one."""
        hosts = [host.lower() for host in request.headers.getall(hdrs.HOST, [])]
        if request.path != "/health" and hosts != [self._host]:
            raise forbidden()

    def _check_page(self, request: web.Request, route: Route) -> None:
        """Refuse what another origin's page asks. The driver's API is for our page alone: what changes something has
        to say that it comes from there.
        """
        origin, site = request.headers.get(hdrs.ORIGIN), request.headers.get("Sec-Fetch-Site", "same-origin")
        must_say = isinstance(route.who, Guest) and request.method != hdrs.METH_GET
        if origin is None and must_say:
            raise forbidden()
        if origin not in (None, self.cloud.party.origin) or site not in ("same-origin", "none"):
            raise forbidden()

    def _serving(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            self._check_page(request, route)
            caller = await self._caller(request, route)
            body = await body_of(request, route.most) if route.most else b""
            return await route.answer(Call(self.cloud, request, caller, body, self.cloud.now()))

        return serve

    async def _caller(self, request: web.Request, route: Route) -> Caller | None:
        """Return who asks, if that is known and may; count the request."""
        seconds = time.monotonic()
        # Looked up before anything is counted: else whoever floods from a driver's address would keep the driver out.
        caller = await self._known(request, route)
        if caller is None:
            if not self.rates.stranger_may(caller_of(request), seconds):
                raise _too_many()
            if route.who is Guest.ANYBODY:
                return None
            shown_by = {} if isinstance(route.who, Guest) else {str(hdrs.WWW_AUTHENTICATE): "Bearer"}
            raise TurnedAway(HTTPStatus.UNAUTHORIZED, ErrorWord.UNAUTHORIZED, shown_by)
        if isinstance(route.who, Guest):
            may = self.rates.device_may(caller.id, seconds)
            if may and (route.method, route.path) == driver_api.WISH_ROUTE:
                may = self.rates.may_wish(caller.id, seconds)
        else:
            may = self.rates.key_may(caller.id, seconds)
        if not may:
            raise _too_many()
        if not isinstance(route.who, Guest) and route.who not in caller.scopes:
            raise forbidden()
        return caller

    async def _known(self, request: web.Request, route: Route) -> Caller | None:
        """Return who shows a session or a key that is good for this route's kind."""
        match route.who:
            case Guest.ANYBODY:
                return None
            case Guest.DRIVER:
                if driver_api.COOKIE not in request.cookies:
                    return None
                async with self.cloud.store.reading() as session:
                    return await driver_api.caller(session, request, self.cloud.now())
            case _:
                if (bearer := _BEARER.fullmatch(request.headers.get(hdrs.AUTHORIZATION, ""))) is None:
                    return None
                async with self.cloud.store.reading() as session:
                    key = await api_keys.of(session, bearer[1])
                return None if key is None else Caller(key.id, scopes=frozenset(key.scopes))

    async def _sign(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        if self.cloud.party.origin.startswith("https:"):
            response.headers["Strict-Transport-Security"] = SECURE_ONLY


def _serve_page(page: Page) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:
        headers = {hdrs.CACHE_CONTROL: "no-cache", hdrs.VARY: hdrs.ACCEPT_ENCODING}
        tag = ETag(page.tag)
        if request.if_none_match and tag in request.if_none_match:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        body = page.plain
        if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
            body, headers[hdrs.CONTENT_ENCODING] = page.packed, "gzip"
        charset = None if page.type.startswith("image/") else "utf-8"
        answer = web.Response(body=body, content_type=page.type, charset=charset, headers=headers)
        answer.etag = tag
        return answer

    return serve


def _too_many() -> TurnedAway:
    return TurnedAway(HTTPStatus.TOO_MANY_REQUESTS, ErrorWord.TOO_MANY_REQUESTS, LATER)


def _refusal(away: TurnedAway) -> web.Response:
    answer = web.json_response(
        {"error": away.word} | ({} if away.why is None else {"why": away.why}), status=away.status, headers=away.headers
    )
    if hdrs.CONNECTION in away.headers:
        answer.force_close()
    return answer
