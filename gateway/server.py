"""The API that programs on the network speak to (protocol C), over TLS.

Each request goes the same way: where it comes from, whose bearer it shows, how often that asks, what it may do, its
body, and only then what it asks for. The routes are rows of a table. What this file refuses to do: decide anything
about a door, take a bearer from anywhere but its header, serve a browser, read more of a body than a request may have,
or say more than a constant word to whoever is turned away. A caller that goes away stops nothing that has begun, and
opens nothing that has not.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Self

from aiohttp import hdrs, web

from vestibule_core import proof, receipts
from vestibule_core.api import messages
from vestibule_core.api.body import read_body
from vestibule_core.api.messages import Client, Confirmed, ErrorWord, Operation, Scope
from vestibule_core.api.pairing import MAX_FIRST
from vestibule_core.api.policy import MAX_POLICY
from vestibule_core.errors import JournalMoved, MalformedMessage, Refused, StoreFailed, Violation
from vestibule_core.evidence import Broken
from vestibule_core.model import Code, Decision, DoorId, DoorMode, Issuer, Principal
from vestibule_core.note import NoteError
from vestibule_core.strict import MAX_INTEGER, Message
from vestibule_core.wire import MAX_REQUEST

from . import view
from .clients import LastAdmin, TooManyClients, UnknownClient
from .edge import Edge
from .limits import CHANGE_AGAIN, Connection, Listener, Rates, TooManyChanges
from .pairing import NoWindow, TooSoon
from .policy import Conflict, PolicyTooLarge, after_pairing
from .stream import HEARTBEAT, MAX_FRAME, TooManyStreams
from .view import Origin
from .witness import DoesNotGoOn, TooManyJournals

END: Final = 2.0
"""Seconds for requests that are being answered when the API ends."""

_BEARER: Final = re.compile(r"Bearer ([A-Za-z0-9_-]{43})")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_BEHIND: Final = 4
"""Turns of the event loop in which it is seen that a connection has ended: one reads that, others tell of it."""
_CLOSE: Final[Mapping[str, str]] = {hdrs.CONNECTION: "close"}
_LATER: Final[Mapping[str, str]] = {hdrs.RETRY_AFTER: "1"}
_AFTER_CHANGES: Final[Mapping[str, str]] = {hdrs.RETRY_AFTER: str(int(CHANGE_AGAIN))}


class TurnedAway(Exception):
    """Nothing is done, and this is the answer."""

    def __init__(
        self, status: HTTPStatus, word: ErrorWord, headers: Mapping[str, str] | None = None, version: int | None = None
    ) -> None:
        """Answer with this status and word."""
        super().__init__(word.value)
        self.status, self.word, self.version = status, word, version
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as far as it is understood before it is answered."""

    api: Api
    request: web.Request
    client: Client | None
    body: bytes

    @property
    def edge(self) -> Edge:
        """The gateway."""
        return self.api.edge

    @property
    def by(self) -> Client:
        """Who asks, of a request that needs a bearer."""
        assert self.client is not None
        return self.client

    def read[T](self, message: Message[T]) -> T:
        """Return what the body says."""
        try:
            return message.decode(self.body)
        except MalformedMessage as err:
            raise TurnedAway(HTTPStatus.BAD_REQUEST, ErrorWord.BAD_REQUEST) from err

    def door(self) -> DoorId:
        """Return the door that the path names, if it is one of this gateway's."""
        door = DoorId(self.request.match_info["door"])
        if door not in self.edge.controller.building.doors:
            raise TurnedAway(HTTPStatus.NOT_FOUND, ErrorWord.NOT_FOUND)
        return door

    @asynccontextmanager
    async def proving(self) -> AsyncIterator[None]:
        """Have the turn to make a proof: one at a time, for a long journal takes its time, and one of each client's."""
        if self.by.id in self.api.waiting:
            raise TurnedAway(HTTPStatus.TOO_MANY_REQUESTS, ErrorWord.TOO_MANY_REQUESTS, _LATER)
        self.api.waiting.add(self.by.id)
        try:
            async with self.api.turn:
                yield
        finally:
            self.api.waiting.discard(self.by.id)

    async def hears(self) -> Callable[[], bool]:
        """Return what says whether the caller still waits for an answer (any thread).

        How late a request is read does not show; that its caller gave it up meanwhile is right behind it in the socket.
        """
        for _ in range(_BEHIND):
            await asyncio.sleep(0)
        return lambda: (transport := self.request.transport) is not None and not transport.is_closing()

    def number(self, name: str, otherwise: int | None = None) -> int:
        """Return a number of the query."""
        text = self.request.query.get(name, "" if otherwise is None else str(otherwise))
        if not _NUMBER.fullmatch(text) or len(self.request.query.getall(name, ())) > 1 or int(text) > MAX_INTEGER:
            raise TurnedAway(HTTPStatus.BAD_REQUEST, ErrorWord.BAD_REQUEST)
        return int(text)


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that may be asked."""

    method: str
    path: str
    scope: Scope | None
    """What a client needs for it; None: anybody may ask."""
    answer: Callable[[Asked], Awaitable[web.StreamResponse]]
    most: int = 0
    """Bytes of its body."""


# ---- strangers ----


async def _info(asked: Asked) -> web.Response:
    edge = asked.edge
    return _said(messages.INFO, messages.Info(edge.id, edge.version, edge.window.nonce))


async def _pair(asked: Asked) -> web.Response:
    edge = asked.edge
    try:
        admitted = await edge.window.admit(asked.body, edge.clients, edge.key, edge.name)
    except NoWindow as err:
        raise TurnedAway(HTTPStatus.NOT_FOUND, ErrorWord.NOT_FOUND) from err
    except TooSoon as err:
        raise TurnedAway(HTTPStatus.TOO_MANY_REQUESTS, ErrorWord.TOO_MANY_REQUESTS, _LATER) from err
    except Violation as err:
        raise TurnedAway(HTTPStatus.FORBIDDEN, ErrorWord.FORBIDDEN) from err
    except TooManyClients as err:
        raise TurnedAway(HTTPStatus.SERVICE_UNAVAILABLE, ErrorWord.UNAVAILABLE) from err
    with suppress(StoreFailed):  # it is paired all the same; what waits then goes on waiting
        await after_pairing(edge.policy, edge.clients, replaced=admitted.replaced, trusted=admitted.trusted)
    return web.Response(body=admitted.answer, content_type="application/octet-stream")


# ---- clients ----


async def _clients(asked: Asked) -> web.Response:
    return _said(messages.CLIENTS, messages.Clients(asked.edge.clients.registry.clients))


async def _change_client(asked: Asked) -> web.Response:
    wanted = asked.read(messages.CLIENT_CHANGE)
    taken = await _of_client(asked.edge.clients.change(asked.request.match_info["client"], wanted, asked.by))
    return _said(messages.CLIENT_TAKEN, taken)


async def _remove_client(asked: Asked) -> web.Response:
    await _of_client(asked.edge.clients.remove(asked.request.match_info["client"], asked.by))
    return web.Response(status=HTTPStatus.NO_CONTENT)


async def _of_client[T](work: Awaitable[T]) -> T:
    try:
        return await work
    except UnknownClient as err:
        raise TurnedAway(HTTPStatus.NOT_FOUND, ErrorWord.NOT_FOUND) from err
    except LastAdmin as err:
        raise TurnedAway(HTTPStatus.CONFLICT, ErrorWord.LAST_ADMIN) from err
    except TooManyChanges as err:
        raise TurnedAway(HTTPStatus.TOO_MANY_REQUESTS, ErrorWord.TOO_MANY_REQUESTS, _AFTER_CHANGES) from err


# ---- tokens ----


async def _challenge(asked: Asked) -> web.Response:
    door, issuer = asked.door(), asked.read(messages.CHALLENGE_REQUEST).issuer
    _issuer(asked.by, issuer)
    try:
        challenge = asked.edge.controller.challenge(door, issuer)
    except Refused as refusal:
        if refusal.code is Code.STOPPING:
            raise TurnedAway(HTTPStatus.SERVICE_UNAVAILABLE, ErrorWord.UNAVAILABLE) from refusal
        raise TurnedAway(HTTPStatus.FORBIDDEN, ErrorWord.FORBIDDEN) from refusal
    return _said(messages.CHALLENGE_ANSWER, messages.ChallengeAnswer(challenge.nonce, challenge.ttl))


async def _unlock(asked: Asked) -> web.Response:
    """Have a token judged, and answer when the strike has."""
    door, wanted = asked.door(), asked.read(messages.UNLOCK_REQUEST)
    issuer, controller = _issuer(asked.by, wanted.issuer), asked.edge.controller
    origin, is_wanted = Origin(asked.by.id, None), await asked.hears()
    decision = await asked.edge.intake.judge(
        issuer or _ANY,
        f"{asked.by.id} {issuer or _ANY}",
        controller.now().boot,
        lambda: controller.present(wanted.token, Principal(issuer), origin, at=door, is_wanted=is_wanted),
    )
    if decision.code is Code.RATE_LIMITED:
        raise TurnedAway(HTTPStatus.TOO_MANY_REQUESTS, ErrorWord.TOO_MANY_REQUESTS, _LATER)
    if decision.code is Code.STOPPING:
        raise TurnedAway(HTTPStatus.SERVICE_UNAVAILABLE, ErrorWord.UNAVAILABLE)
    return _said(messages.ANSWER, messages.Answer.of(decision))


_ANY: Final = Issuer("")
"""Stands for no issuer in particular."""


def _issuer(client: Client, named: Issuer | None) -> Issuer | None:
    """Return for whom a client asks; None: for whomever a token is of. It is turned away if it may not."""
    if client.issuers is None:
        return named
    if named is None and len(client.issuers) == 1:
        (named,) = client.issuers
    if named not in client.issuers:
        raise TurnedAway(HTTPStatus.FORBIDDEN, ErrorWord.FORBIDDEN)
    return named


# ---- by hand ----


async def _operate(asked: Asked) -> web.Response:
    door, wanted = asked.door(), asked.read(messages.OPERATE)
    hand, actor, origin = asked.edge.controller.by_hand, wanted.actor, Origin(asked.by.id, wanted.ref)
    is_wanted = await asked.hears()
    match wanted.do:
        case Operation.ACCESS:
            decision = await hand.open(door, actor, origin, is_wanted=is_wanted)
        case Operation.HOLD:
            decision = await hand.set_mode(door, DoorMode.UNLOCKED, actor, origin, is_wanted=is_wanted)
        case Operation.RELOCK:
            decision = await hand.set_mode(door, DoorMode.NORMAL, actor, origin)
        case Operation.BLOCK:
            decision = await hand.set_mode(door, DoorMode.BLOCKED, actor, origin)
        case Operation.DELIVERIES_ON:
            decision = await hand.set_deliveries(door, True, actor, origin)
        case Operation.DELIVERIES_OFF:
            decision = await hand.set_deliveries(door, False, actor, origin)
        case Operation.CLEAR_TAMPER:
            decision = await hand.clear_tamper(door, actor, origin)
    return _done(decision)


async def _lockdown(asked: Asked) -> web.Response:
    wanted = asked.read(messages.LOCKDOWN)
    setting = asked.edge.controller.by_hand.set_lockdown(wanted.on, wanted.actor, Origin(asked.by.id, wanted.ref))
    return _done(await setting)


async def _confirm(asked: Asked) -> web.Response:
    wanted, hand = asked.read(messages.CONFIRM), asked.edge.controller.by_hand
    match wanted.what:
        case Confirmed.CLOCK:
            confirm = hand.confirm_clock
        case Confirmed.RESTORED:
            confirm = hand.confirm_restore
        case Confirmed.JOURNAL:
            confirm = hand.confirm_journal
    decision = await confirm(wanted.actor, Origin(asked.by.id, wanted.ref))
    asked.edge.stream.building_changed()  # the event was told before it was so
    return _done(decision)


def _done(decision: Decision) -> web.Response:
    return _said(messages.DONE, messages.Done(decision.code))


# ---- the policy ----


async def _policy(asked: Asked) -> web.Response:
    return _said(messages.POLICY_VIEW, asked.edge.policy.view)


async def _put_policy(asked: Asked) -> web.Response:
    try:
        taken = await asked.edge.policy.put(asked.read(messages.POLICY_REQUEST), asked.by)
    except Conflict as err:
        raise TurnedAway(HTTPStatus.CONFLICT, ErrorWord.CONFLICT, version=err.version) from err
    except PolicyTooLarge as err:
        raise TurnedAway(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ErrorWord.TOO_LARGE) from err
    except TooManyChanges as err:
        raise TurnedAway(HTTPStatus.TOO_MANY_REQUESTS, ErrorWord.TOO_MANY_REQUESTS, _AFTER_CHANGES) from err
    return _said(messages.POLICY_TAKEN, taken)


# ---- what is so, and what happened ----


async def _doors(asked: Asked) -> web.Response:
    return _said(messages.DOORS, view.doors(asked.edge))


async def _events(asked: Asked) -> web.Response:
    after, limit = asked.number("after"), asked.number("limit", messages.MAX_EVENTS)
    if not 1 <= limit <= messages.MAX_EVENTS:
        raise TurnedAway(HTTPStatus.BAD_REQUEST, ErrorWord.BAD_REQUEST)
    events = await view.missed(asked.edge, after, limit)
    return _said(messages.EVENTS, messages.Events(events, asked.edge.stream.newest))


async def _stream(asked: Asked) -> web.StreamResponse:
    after = asked.number("after")
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=MAX_FRAME, compress=False)
    if not socket.can_prepare(asked.request).ok:
        raise TurnedAway(HTTPStatus.BAD_REQUEST, ErrorWord.BAD_REQUEST)
    try:
        await asked.edge.stream.serve(socket, asked.request, asked.by.id, after)
    except TooManyStreams as err:
        raise TurnedAway(HTTPStatus.TOO_MANY_REQUESTS, ErrorWord.TOO_MANY_REQUESTS, _LATER) from err
    return socket


async def _checkpoint(asked: Asked) -> web.Response:
    if (note := asked.edge.journal.checkpoint) is None:
        raise TurnedAway(HTTPStatus.NOT_FOUND, ErrorWord.NOT_FOUND)
    return web.Response(text=note)


async def _proof(asked: Asked) -> web.Response:
    sequence, journal = asked.number("seq"), asked.edge.journal
    async with asked.proving():
        header = await journal.header()
        try:
            proved = await asyncio.to_thread(proof.prove, header, journal.runs(header), sequence, person=False)
        except NoteError as err:
            raise TurnedAway(HTTPStatus.NOT_FOUND, ErrorWord.NOT_FOUND) from err
    return web.Response(text=str(proved))


# ---- witnesses ----


async def _witnessed(asked: Asked) -> web.Response:
    edge, old = asked.edge, asked.number("old")
    async with asked.proving():
        try:
            grown = await receipts.grown_since(edge.journal, old) or await receipts.grown_since(edge.journal, 0)
        except NoteError as err:
            raise TurnedAway(HTTPStatus.NOT_FOUND, ErrorWord.NOT_FOUND) from err
    return _said(messages.WITNESSED, messages.Witnessed(grown, edge.witness.held(asked.request.query.get("key", ""))))


async def _show(asked: Asked) -> web.Response:
    try:
        signed = await asked.edge.witness.show(asked.read(messages.SHOWN), asked.by)
    except NoteError as err:
        raise TurnedAway(HTTPStatus.BAD_REQUEST, ErrorWord.BAD_REQUEST) from err
    except DoesNotGoOn as err:
        raise TurnedAway(HTTPStatus.CONFLICT, ErrorWord.CONFLICT) from err
    except TooManyJournals as err:
        raise TurnedAway(HTTPStatus.SERVICE_UNAVAILABLE, ErrorWord.UNAVAILABLE) from err
    return _said(messages.SIGNED, signed)


async def _cosigned(asked: Asked) -> web.Response:
    note = asked.read(messages.SIGNED).note
    try:
        if not asked.edge.witness.is_cosigned(note):
            raise TurnedAway(HTTPStatus.FORBIDDEN, ErrorWord.FORBIDDEN)
        await asked.edge.journal.cosigned(note)
    except NoteError as err:
        raise TurnedAway(HTTPStatus.NOT_FOUND, ErrorWord.NOT_FOUND) from err
    return web.Response(status=HTTPStatus.NO_CONTENT)


async def _receipt(asked: Asked) -> web.Response:
    """Look at a checkpoint of this gateway's that somebody holds: if its journal does not go on from it, no token opens
    a door until an administrator has looked. A forged one changes nothing.
    """
    edge, receipt = asked.edge, asked.read(messages.SIGNED).note
    async with asked.proving():
        try:
            disputed = await receipts.disputed_by(edge.journal, receipt)
        except NoteError as err:
            raise TurnedAway(HTTPStatus.NOT_FOUND, ErrorWord.NOT_FOUND) from err
    if disputed is not None:
        edge.controller.by_hand.dispute(disputed)
    return _said(messages.DISPUTED, messages.Disputed(disputed is not None))


ROUTES: Final = (
    Route("GET", "/v1/info", None, _info),
    Route("POST", "/v1/pair", None, _pair, MAX_FIRST),
    Route("GET", "/v1/clients", Scope.ADMIN, _clients),
    Route("PUT", "/v1/clients/{client}", Scope.ADMIN, _change_client, MAX_REQUEST),
    Route("DELETE", "/v1/clients/{client}", Scope.ADMIN, _remove_client),
    Route("GET", "/v1/doors", Scope.READ, _doors),
    Route("POST", "/v1/doors/{door}/challenge", Scope.PRESENT, _challenge, MAX_REQUEST),
    Route("POST", "/v1/doors/{door}/unlock", Scope.PRESENT, _unlock, MAX_REQUEST),
    Route("POST", "/v1/doors/{door}/operate", Scope.OPERATE, _operate, MAX_REQUEST),
    Route("PUT", "/v1/lockdown", Scope.OPERATE, _lockdown, MAX_REQUEST),
    Route("POST", "/v1/confirm", Scope.ADMIN, _confirm, MAX_REQUEST),
    Route("GET", "/v1/policy", Scope.READ, _policy),
    Route("PUT", "/v1/policy", Scope.ADMIN, _put_policy, MAX_POLICY),
    Route("GET", "/v1/events", Scope.READ, _events),
    Route("GET", "/v1/stream", Scope.READ, _stream),
    Route("GET", "/v1/witness", Scope.READ, _witnessed),
    Route("PUT", "/v1/witness", Scope.ADMIN, _show, messages.MAX_WITNESS),
    Route("PUT", "/v1/witness/cosigned", Scope.ADMIN, _cosigned, messages.MAX_WITNESS),
    Route("POST", "/v1/witness/receipt", Scope.READ, _receipt, messages.MAX_WITNESS),
    Route("GET", "/v1/journal/checkpoint", Scope.READ, _checkpoint),
    Route("GET", "/v1/journal/proof", Scope.READ, _proof),
)


# ---- the way of a request ----


class Api:
    """The API of one gateway, as an aiohttp application (``app``)."""

    def __init__(self, edge: Edge) -> None:
        """Serve ``edge``."""
        self.edge = edge
        self.turn = asyncio.Lock()
        self.waiting: set[str] = set()
        """Clients that have a proof made, or wait for one."""
        self._rates = Rates()
        self.app = web.Application(middlewares=[self._guard])
        self._routes: dict[object, Route] = {}
        for route in ROUTES:
            serve = self._serving(route)
            self._routes[serve] = route
            self.app.router.add_route(route.method, route.path, serve)
        self.app.on_response_prepare.append(_unsigned)
        self.app.on_shutdown.append(self._end)

    async def _end(self, _: web.Application) -> None:
        self.edge.stream.close()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Turn away who may not ask this, and say every refusal in a constant word."""
        try:
            self._admit(request, self._routes.get(request.match_info.handler))
            return await handler(request)
        except TurnedAway as away:
            return _refusal(away)
        except web.HTTPMethodNotAllowed as err:
            return _refusal(
                TurnedAway(HTTPStatus.METHOD_NOT_ALLOWED, ErrorWord.BAD_REQUEST, {hdrs.ALLOW: err.headers[hdrs.ALLOW]})
            )
        except web.HTTPNotFound:
            return _refusal(TurnedAway(HTTPStatus.NOT_FOUND, ErrorWord.NOT_FOUND))
        except StoreFailed, Broken:
            return _refusal(TurnedAway(HTTPStatus.SERVICE_UNAVAILABLE, ErrorWord.STORE_FAILED))
        except JournalMoved:
            return _refusal(TurnedAway(HTTPStatus.SERVICE_UNAVAILABLE, ErrorWord.UNAVAILABLE, _LATER))

    def _admit(self, request: web.Request, route: Route | None) -> None:
        headers, now = request.headers, self.edge.controller.now().boot
        client = self._client(headers)
        if client is None and not self._rates.stranger_may(request.remote, now):
            raise TurnedAway(HTTPStatus.TOO_MANY_REQUESTS, ErrorWord.TOO_MANY_REQUESTS, {**_LATER, **_CLOSE})
        if hdrs.ORIGIN in headers or not self._is_ours(headers.getall(hdrs.HOST, ())):
            raise TurnedAway(HTTPStatus.FORBIDDEN, ErrorWord.FORBIDDEN)
        if client is not None:
            if isinstance(request.protocol, Connection):
                request.protocol.recognise()
            if not self._rates.client_may(client.id, now):
                raise TurnedAway(HTTPStatus.TOO_MANY_REQUESTS, ErrorWord.TOO_MANY_REQUESTS, _LATER)
        _check(route, client)

    def _client(self, headers: Mapping[str, str]) -> Client | None:
        bearer = _BEARER.fullmatch(headers.get(hdrs.AUTHORIZATION, ""))
        return self.edge.clients.registry.holder(bearer[1]) if bearer else None

    def _is_ours(self, hosts: Any) -> bool:
        """Return whether a request was meant for this gateway. A page in a browser can make any name mean our address,
        but not make its browser say another one.
        """
        if len(hosts) != 1:
            return False
        name = _host_name(hosts[0])
        return name is not None and (name == "" or name == "localhost" or name in self.edge.hosts)

    def _serving(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            body = await _body(request, route.most) if route.most else b""
            client = self._client(request.headers)  # once more: it may have been removed while the body came
            _check(route, client)
            return await route.answer(Asked(self, request, client, body))

        return serve


def _check(route: Route | None, client: Client | None) -> None:
    """Turn away who may not ask this. A path that there is not is none of a stranger's business either."""
    scope = route.scope if route is not None else Scope.READ
    if scope is not None and client is None:
        raise TurnedAway(HTTPStatus.UNAUTHORIZED, ErrorWord.UNAUTHORIZED, {str(hdrs.WWW_AUTHENTICATE): "Bearer"})
    if route is not None and client is not None and scope is not None and scope not in client.scopes:
        raise TurnedAway(HTTPStatus.FORBIDDEN, ErrorWord.FORBIDDEN)


def _host_name(host: str) -> str | None:
    """Return the name in a ``Host`` header, in small letters; "": an address; None: it is neither."""
    match = _HOST.fullmatch(host)
    if match is None:
        return None
    name = (match["v6"] or match["name"]).lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return None if match["v6"] else name.removesuffix(".")
    return ""


_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9_.-]{1,253}))(?::[0-9]{1,5})?")


async def _body(request: web.Request, most: int) -> bytes:
    """Return the whole body."""
    try:
        body = await read_body(request.content.iter_any(), request.content_length, most)
    except TimeoutError as err:
        raise TurnedAway(HTTPStatus.REQUEST_TIMEOUT, ErrorWord.TIMEOUT, _CLOSE) from err
    except (web.RequestPayloadError, ConnectionError) as err:  # chunks that are none, or the caller has gone
        raise TurnedAway(HTTPStatus.BAD_REQUEST, ErrorWord.BAD_REQUEST, _CLOSE) from err
    if body is None:
        raise TurnedAway(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ErrorWord.TOO_LARGE, _CLOSE)
    return body


def _said[T](message: Message[T], value: T) -> web.Response:
    return web.Response(body=message.encode(value), content_type="application/json")


def _refusal(away: TurnedAway) -> web.Response:
    body = messages.FAILURE.encode(messages.Failure(away.word, away.version))
    answer = web.Response(body=body, status=away.status, content_type="application/json", headers=away.headers)
    if hdrs.CONNECTION in away.headers:
        answer.force_close()
    return answer


async def _unsigned(_: web.Request, response: web.StreamResponse) -> None:
    """Keep answers out of caches, and what serves them to ourselves."""
    response.headers[hdrs.CACHE_CONTROL] = "no-store"
    response.headers[hdrs.SERVER] = "vestibule"


class Front:
    """The API on the network."""

    def __init__(self, runner: web.AppRunner, listener: Listener, port: int) -> None:
        """Use ``Front.open``."""
        self._runner, self.listener, self.port = runner, listener, port

    @classmethod
    async def open(cls, edge: Edge, context: ssl.SSLContext, host: str = "", port: int = 0) -> Self:
        """Serve ``edge`` at ``host`` ("": at every address) over TLS; ``port`` 0: a free one. Raises OSError."""
        runner = web.AppRunner(Api(edge).app, access_log=None, shutdown_timeout=END)
        await runner.setup()
        assert runner.server is not None
        listener = Listener(runner.server, context)
        try:
            return cls(runner, listener, await listener.listen(host, port))
        except BaseException:
            await listener.close()
            await runner.cleanup()
            raise

    async def close(self) -> None:
        """Listen to nobody any more; what is being answered has END seconds."""
        await self.listener.close()
        await self._runner.cleanup()
