"""The gateway's API as a client asks it: HTTP and a WebSocket over TLS, to one certificate that is known (protocol C).

The certificate is looked at before anything is sent: an impostor never sees the bearer. What this file refuses to do:
follow a redirect, keep a cookie, use a proxy, send a command twice, or call something undone that may have been done.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from yarl import URL

from ..errors import (
    GatewayForbidden,
    GatewayImpostor,
    GatewayRefused,
    GatewayUnreachable,
    MalformedMessage,
    NotPaired,
    OutcomeUnknown,
    PairingFailed,
    PolicyConflict,
    Violation,
)
from ..model import Actor, Code, DoorId, Issuer
from ..nnpsk0 import KEY_SIZE
from ..note import VerifierKey
from ..proof import EntryProof
from ..strict import Message
from .messages import (
    ANSWER,
    CHALLENGE_ANSWER,
    CHALLENGE_REQUEST,
    CLIENTS,
    CONFIRM,
    DISPUTED,
    DONE,
    DOORS,
    EVENTS,
    FAILURE,
    FRAME,
    INFO,
    LOCKDOWN,
    MAX_ANSWER,
    MAX_EVENTS,
    OPERATE,
    POLICY_REQUEST,
    POLICY_TAKEN,
    POLICY_VIEW,
    SHOWN,
    SIGNED,
    UNLOCK_REQUEST,
    WITNESSED,
    Answer,
    Bearer,
    ChallengeAnswer,
    ChallengeRequest,
    Client,
    ClientId,
    Confirm,
    Confirmed,
    Doors,
    Events,
    Frame,
    GatewayId,
    Hello,
    Info,
    Lockdown,
    Operate,
    Operation,
    Peer,
    PolicyRequest,
    PolicyTaken,
    PolicyView,
    Scope,
    Shown,
    Signed,
    UnlockRequest,
    Witnessed,
    newer_event,
)
from .pairing import Applicant, read_code
from .policy import Policy

DEADLINE: Final = 10.0
"""Seconds until a connection stands, and until a question is answered."""
COMMAND_DEADLINE: Final = 20.0
"""Seconds until a command is answered: a strike may take its time. Not less than the gateway's ``limits.IDLE``: one
that the network held back on a kept connection is then not carried out after "unknown" was said.
"""
SILENCE: Final = 45.0
"""Seconds without a frame or a ping after which a stream is lost; a gateway pings every 30."""
_CLOSING: Final = 2.0

_NO_CERTIFICATE: Final = bytes(32)
_UNCLEAR: Final = frozenset({500, 502, 504})
"""Answers that do not say whether a command was carried out."""


def check_session(session: aiohttp.ClientSession) -> None:
    """Raise ValueError if a session would keep cookies, or go through a proxy that the environment names."""
    if session.trust_env or not isinstance(session.cookie_jar, aiohttp.DummyCookieJar):
        raise ValueError("a gateway is asked without cookies and proxies: make the session with a DummyCookieJar")


# ---- one exchange ----


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a gateway is."""

    session: aiohttp.ClientSession
    host: str
    port: int

    def url(self, path: str, scheme: str = "https") -> URL:
        try:
            return URL.build(scheme=scheme, host=self.host, port=self.port, path=path)
        except ValueError as err:
            raise GatewayUnreachable("no such host") from err

    async def exchange(
        self,
        fingerprint: aiohttp.Fingerprint,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        params: Mapping[str, int | str] | None = None,
        is_command: bool = False,
    ) -> tuple[int, bytes]:
        """Return the status and the body of the answer.

        Raises GatewayImpostor, GatewayUnreachable or, of a command that may have arrived, OutcomeUnknown.
        """
        deadline = COMMAND_DEADLINE if is_command else DEADLINE
        with _translated(is_command):
            async with self.session.request(
                method,
                self.url(path),
                params=params,
                data=body,
                headers=headers,
                ssl=fingerprint,
                allow_redirects=False,
                middlewares=() if method == "GET" else (_once(),),
                timeout=aiohttp.ClientTimeout(total=deadline, connect=DEADLINE),
            ) as response:
                read = bytearray()
                async for part in response.content.iter_any():
                    read += part
                    if len(read) > MAX_ANSWER:
                        break  # nobody understands it
                return response.status, bytes(read)


def _once() -> aiohttp.ClientMiddlewareType:
    """Return what keeps aiohttp from sending a request again by itself, which it does with a PUT whose line was cut."""
    is_sent = False

    async def send(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        nonlocal is_sent
        if is_sent:
            raise aiohttp.ClientError("not sent twice")
        is_sent = True
        return await handler(request)

    return send


@contextmanager
def _translated(is_command: bool) -> Iterator[None]:
    try:
        yield
    except aiohttp.ServerFingerprintMismatch as err:
        raise GatewayImpostor(err.got) from err
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as err:
        raise GatewayUnreachable("no connection") from err
    except (aiohttp.ClientError, TimeoutError, OSError) as err:  # at any time since the request began to be sent
        if is_command:
            raise OutcomeUnknown("no answer") from err
        raise GatewayUnreachable("no answer") from err


def _refusal(status: int, body: bytes) -> GatewayForbidden | GatewayRefused:
    if status == 401:
        return GatewayForbidden("not paired")
    with suppress(MalformedMessage):
        failure = FAILURE.decode(body)
        if status == 409 and failure.version is not None:
            return PolicyConflict(failure.version)
        return GatewayRefused(status, failure.error)
    return GatewayRefused(status, "no reason that is understood")


# ---- a paired client ----


class GatewayClient:
    """One gateway, as one paired client asks it. Belongs to one event loop.

    Every question raises GatewayUnreachable, GatewayImpostor, GatewayForbidden, GatewayRefused or MalformedMessage. A
    command raises OutcomeUnknown in place of those that would not be sure.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        host: str,
        port: int,
        token: Bearer,
        fingerprints: Sequence[bytes],
    ) -> None:
        """Ask the gateway that has one of these certificates: SHA-256 of the pinned one, then of the announced ones.

        The session keeps no cookies and uses no proxy (``check_session``); it is not closed here.
        """
        check_session(session)
        self._place = _Place(session, host, port)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._fingerprints = [aiohttp.Fingerprint(fingerprint) for fingerprint in fingerprints]

    @property
    def fingerprint(self) -> bytes:
        """The certificate that was met last; the pinned one before that."""
        return self._fingerprints[0].fingerprint

    # -- questions --

    async def info(self) -> Info:
        """Ask who it is."""
        return await self._ask("GET", "/v1/info", INFO)

    async def doors(self) -> Doors:
        """Ask for all doors and how they are."""
        return await self._ask("GET", "/v1/doors", DOORS)

    async def challenge(self, door: DoorId, issuer: Issuer) -> ChallengeAnswer:
        """Ask a door for a challenge."""
        body = CHALLENGE_REQUEST.encode(ChallengeRequest(issuer))
        return await self._ask("POST", f"/v1/doors/{door}/challenge", CHALLENGE_ANSWER, body)

    async def policy(self) -> PolicyView:
        """Ask which policy is in force, and which one waits."""
        return await self._ask("GET", "/v1/policy", POLICY_VIEW)

    async def put_policy(self, base: int, policy: Policy) -> PolicyTaken:
        """Set the policy in place of version ``base``.

        Raises PolicyConflict if another one is in force. After GatewayUnreachable it may have been set: ask.
        """
        body = POLICY_REQUEST.encode(PolicyRequest(base, base + 1, policy))
        return await self._ask("PUT", "/v1/policy", POLICY_TAKEN, body)

    async def clients(self) -> tuple[Client, ...]:
        """Ask which clients are paired."""
        return (await self._ask("GET", "/v1/clients", CLIENTS)).clients

    async def events(self, after: int, limit: int = MAX_EVENTS) -> Events:
        """Ask for the events after this sequence number."""
        return await self._ask("GET", "/v1/events", EVENTS, params={"after": after, "limit": limit})

    async def witnessed(self, old: int, key: VerifierKey) -> Witnessed:
        """Ask how its journal has grown since it had ``old`` entries, and what it holds of the journal with ``key``.

        Of a journal that never had that many, only its newest checkpoint is shown. Raises GatewayRefused (404) if the
        entries that could show it were dropped.
        """
        return await self._ask("GET", "/v1/witness", WITNESSED, params={"old": old, "key": str(key)})

    async def show(self, shown: Shown) -> Signed:
        """Show how our own journal has grown; return its newest checkpoint, cosigned.

        Raises GatewayRefused (409: it does not go on from what the gateway holds).
        """
        return await self._ask("PUT", "/v1/witness", SIGNED, SHOWN.encode(shown))

    async def cosigned(self, note: str) -> None:
        """Hand the gateway a checkpoint of its own that we have cosigned."""
        status, body = await self._exchange("PUT", "/v1/witness/cosigned", SIGNED.encode(Signed(note)))
        if status != 204:
            raise _refusal(status, body)

    async def dispute(self, receipt: str) -> bool:
        """Show the gateway a checkpoint of its own; return whether its journal does not go on from it."""
        return (await self._ask("POST", "/v1/witness/receipt", DISPUTED, SIGNED.encode(Signed(receipt)))).disputed

    async def proof(self, sequence: int) -> EntryProof:
        """Ask for the proof that an entry is in its journal. Nothing in it is verified yet."""
        status, body = await self._exchange("GET", "/v1/journal/proof", params={"seq": sequence})
        if status != 200:
            raise _refusal(status, body)
        try:
            return EntryProof.parse(body.decode())
        except ValueError as err:
            raise MalformedMessage("no proof") from err

    async def checkpoint(self) -> str | None:
        """Ask for the newest checkpoint of the journal, a signed note; None if there is none yet."""
        status, body = await self._exchange("GET", "/v1/journal/checkpoint")
        if status == 404:
            return None
        if status != 200:
            raise _refusal(status, body)
        try:
            return body.decode()
        except UnicodeDecodeError as err:
            raise MalformedMessage("not text") from err

    # -- commands --

    async def unlock(self, door: DoorId, token: str, issuer: Issuer | None = None) -> Answer:
        """Present a token at a door; ``issuer``: for whom, if this client may present for several."""
        body = UNLOCK_REQUEST.encode(UnlockRequest(token, issuer))
        return await self._ask("POST", f"/v1/doors/{door}/unlock", ANSWER, body, is_command=True)

    async def operate(self, door: DoorId, do: Operation, actor: Actor, ref: str | None = None) -> Code:
        """Do something at a door for a person or an automation; ``ref`` comes back with what happens then."""
        body = OPERATE.encode(Operate(do, actor, ref))
        return (await self._ask("POST", f"/v1/doors/{door}/operate", DONE, body, is_command=True)).code

    async def lockdown(self, on: bool, actor: Actor, ref: str | None = None) -> Code:
        """Lock all doors of the gateway down, or lift that."""
        body = LOCKDOWN.encode(Lockdown(on, actor, ref))
        return (await self._ask("PUT", "/v1/lockdown", DONE, body, is_command=True)).code

    async def confirm(self, what: Confirmed, actor: Actor, ref: str | None = None) -> Code:
        """Say that an administrator has looked at the clock, or knows of a restored journal."""
        body = CONFIRM.encode(Confirm(what, actor, ref))
        return (await self._ask("POST", "/v1/confirm", DONE, body, is_command=True)).code

    # -- the stream --

    async def stream(self, after: int) -> AsyncGenerator[Frame]:
        """Yield the gateway's frames: first a Hello, then the events after this sequence number, and what changes.

        Never ends by itself: raises GatewayUnreachable when the connection is lost, and what a question raises besides.
        Close it (``contextlib.aclosing``).
        """
        socket = await self._connect(after)
        try:
            is_first = True
            while True:
                with _translated(is_command=False):
                    message = await socket.receive(timeout=SILENCE)
                    if message.type is aiohttp.WSMsgType.PING:
                        await socket.pong(message.data)
                        continue
                if message.type is not aiohttp.WSMsgType.TEXT:
                    raise GatewayUnreachable("the connection was lost")
                frame = _read(message.data.encode())
                if isinstance(frame, Hello) is not is_first:
                    raise MalformedMessage("no hello, or a second one")
                is_first = False
                yield frame
        finally:
            await socket.close()

    async def _connect(self, after: int) -> aiohttp.ClientWebSocketResponse:
        async def connect(fingerprint: aiohttp.Fingerprint) -> aiohttp.ClientWebSocketResponse:
            with _translated(is_command=False):
                async with asyncio.timeout(DEADLINE):
                    try:
                        return await self._place.session.ws_connect(
                            self._place.url("/v1/stream"),
                            params={"after": after},
                            headers=self._headers,
                            ssl=fingerprint,
                            autoping=False,  # the gateway pings; a timer of aiohttp's own may outlive its socket
                            max_msg_size=MAX_ANSWER,
                            timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSING),
                        )
                    except aiohttp.WSServerHandshakeError as err:
                        raise _refusal(err.status, b"") from err

        socket = await self._with_each_certificate(connect)
        if socket.get_extra_info("ssl_object") is None:  # led elsewhere: this request would follow a redirect
            await socket.close()
            raise GatewayUnreachable("led to somebody who does not encrypt")
        return socket

    # -- what they have in common --

    async def _ask[T](
        self,
        method: str,
        path: str,
        answer: Message[T],
        body: bytes | None = None,
        *,
        params: Mapping[str, int | str] | None = None,
        is_command: bool = False,
    ) -> T:
        status, read = await self._exchange(method, path, body, params=params, is_command=is_command)
        if is_command and status in _UNCLEAR:
            raise OutcomeUnknown(f"status {status}")
        if status != 200:
            raise _refusal(status, read)
        try:
            return answer.decode(read)
        except MalformedMessage as err:
            if is_command:
                raise OutcomeUnknown("an answer that is not understood") from err
            raise

    async def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        params: Mapping[str, int | str] | None = None,
        is_command: bool = False,
    ) -> tuple[int, bytes]:
        return await self._with_each_certificate(
            lambda fingerprint: self._place.exchange(
                fingerprint, method, path, headers=self._headers, body=body, params=params, is_command=is_command
            )
        )

    async def _with_each_certificate[T](self, attempt: Callable[[aiohttp.Fingerprint], Awaitable[T]]) -> T:
        """Try until the certificate is one that is known: up to then nothing was sent."""
        for fingerprint in tuple(self._fingerprints):
            try:
                result = await attempt(fingerprint)
            except GatewayImpostor as err:
                impostor = err
                continue
            self._fingerprints.remove(fingerprint)
            self._fingerprints.insert(0, fingerprint)
            return result
        raise impostor


def _read(body: bytes) -> Frame:
    """Return what a frame says. A gateway that is newer than we must not be out of reach for one new word."""
    try:
        return FRAME.decode(body)
    except MalformedMessage:
        if (newer := newer_event(body)) is None:
            raise
        return newer


# ---- pairing ----


@dataclass(frozen=True, slots=True)
class Paired:
    """What a client has to keep of a gateway that it was paired with."""

    token: Bearer = field(repr=False)
    client_id: ClientId
    gateway_id: GatewayId
    gateway_key: VerifierKey
    """Signs the gateway's journal and its next certificate."""
    fingerprint: bytes
    """SHA-256 of the gateway's certificate."""
    name: str
    """The gateway's."""
    scopes: frozenset[Scope]
    trusted: bool
    clients: tuple[Peer, ...]
    """All others."""


async def ask_stranger(session: aiohttp.ClientSession, host: str, port: int) -> Info:
    """Ask whoever is there who it is. Nothing proves the answer.

    Raises GatewayUnreachable, GatewayRefused or MalformedMessage.
    """
    check_session(session)
    place = _Place(session, host, port)
    return await _info(place, await _certificate(place))


async def pair(session: aiohttp.ClientSession, host: str, port: int, code: str, name: str) -> Paired:
    """Pair with the gateway that shows ``code``, as ``name`` (``messages.client_name``).

    Raises PairingFailed, CodeError (nothing was sent), GatewayUnreachable (also if the answer got lost: the code is
    used up then), GatewayImpostor (the certificate changed meanwhile), GatewayRefused or MalformedMessage.
    """
    code = read_code(code)
    check_session(session)
    place = _Place(session, host, port)
    fingerprint = await _certificate(place)
    info = await _info(place, fingerprint)
    if info.pair_nonce is None:
        raise PairingFailed(NotPaired.NO_WINDOW)
    applicant = Applicant(code, info.id, info.pair_nonce, fingerprint.fingerprint, os.urandom(KEY_SIZE))
    # Every connection from here on has this very certificate, or nothing is sent on it.
    status, answer = await place.exchange(
        fingerprint,
        "POST",
        "/v1/pair",
        headers={"Content-Type": "application/octet-stream"},
        body=applicant.first(name),
    )
    if reason := _NOT_PAIRED.get(status):
        raise PairingFailed(reason)
    if status != 200:
        raise _refusal(status, answer)
    try:
        admission = applicant.second(answer)
    except Violation as err:
        raise PairingFailed(NotPaired.WRONG_CODE) from err
    return Paired(
        token=admission.token,
        client_id=admission.client_id,
        gateway_id=info.id,
        gateway_key=admission.gateway_key,
        fingerprint=fingerprint.fingerprint,
        name=admission.name,
        scopes=admission.scopes,
        trusted=admission.trusted,
        clients=admission.clients,
    )


_NOT_PAIRED: Final = {403: NotPaired.WRONG_CODE, 404: NotPaired.NO_WINDOW, 429: NotPaired.BUSY}


async def _certificate(place: _Place) -> aiohttp.Fingerprint:
    """Return what the certificate is that is met there, without sending anything."""
    try:
        await place.exchange(aiohttp.Fingerprint(_NO_CERTIFICATE), "GET", "/v1/info", headers={})
    except GatewayImpostor as met:
        return aiohttp.Fingerprint(met.fingerprint)
    raise GatewayUnreachable("no certificate")  # no SHA-256 is zero


async def _info(place: _Place, fingerprint: aiohttp.Fingerprint) -> Info:
    status, body = await place.exchange(fingerprint, "GET", "/v1/info", headers={})
    if status != 200:
        raise _refusal(status, body)
    return INFO.decode(body)
