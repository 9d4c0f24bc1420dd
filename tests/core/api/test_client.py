"""The client of a gateway against real servers on loopback: what it sends, to whom, and what it makes of no answer."""

import asyncio
import contextlib
import json
from dataclasses import replace
from urllib.parse import quote_plus

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.core.api.documents import DOORS, ISSUERS, carrier, policy
from tests.core.api.server import Gateway, Identity, Listener, Pairable
from tests.core.api.test_messages import (
    BARE_EVENT,
    CLIENT,
    CLIENT_JSON,
    DOOR,
    DOOR_JSON,
    EVENT,
    GROWN,
    ID,
    KEY,
    PERSON,
    STANDING,
    STANDS,
)
from tests.core.api.test_messages import PERSON_JSON as PERSON_WRITTEN
from vestibule_core.api import client as module
from vestibule_core.api.client import GatewayClient, ask_stranger, check_session, pair
from vestibule_core.api.messages import (
    FRAME,
    Admission,
    Answer,
    ChallengeAnswer,
    Confirmed,
    DoorChanged,
    Doors,
    Events,
    Happened,
    Hello,
    Info,
    Newer,
    Operation,
    Peer,
    PolicyMark,
    PolicyTaken,
    PolicyView,
    Scope,
    Shown,
    Signed,
    Witnessed,
    bearer,
    client_id,
)
from vestibule_core.api.pairing import CodeError, new_code, shown
from vestibule_core.api.policy import EMPTY, POLICY
from vestibule_core.errors import (
    GatewayForbidden,
    GatewayImpostor,
    GatewayRefused,
    GatewayUnreachable,
    MalformedMessage,
    NotPaired,
    OutcomeUnknown,
    PairingFailed,
    PolicyConflict,
)
from vestibule_core.model import Code, Word
from vestibule_core.note import SignerKey
from vestibule_core.policy import EvidenceLimits

TOKEN = bearer("s3cr3t" + "A" * 37)
FRONT, NORTH = DOORS[0], ISSUERS[0]


@pytest.fixture(scope="session")
def identities(tmp_path_factory):
    """Two certificates."""
    folder = tmp_path_factory.mktemp("certificates")
    return Identity.new(folder), Identity.new(folder)


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


@pytest.fixture
async def gateway(identities):
    gateway = Gateway(identities[0])
    await gateway.start()
    yield gateway
    await gateway.stop()


@pytest.fixture
async def client(session, gateway):
    return GatewayClient(session, "127.0.0.1", gateway.port, TOKEN, [gateway.identity.fingerprint])


@pytest.fixture
async def listener(identities):
    """Whoever listens there, with the gateway's certificate."""
    listener = Listener(identities[0])
    await listener.start()
    yield listener
    await listener.stop()


@pytest.fixture
async def impostor(identities):
    """Whoever listens there, with a certificate of its own."""
    impostor = Listener(identities[1])
    await impostor.start()
    yield impostor
    await impostor.stop()


def at(session, server, *identities):
    """A client that looks for the gateway where ``server`` is, and knows these certificates."""
    return GatewayClient(session, "127.0.0.1", server.port, TOKEN, [each.fingerprint for each in identities])


async def first_frame(client):
    async with contextlib.aclosing(client.stream(0)) as frames:
        return await anext(frames)


# ---- what is asked, and how it is answered ----

DOORS_JSON = {"doors": [DOOR_JSON], **STANDING}
POLICY_JSON = {"zone": "UTC", "carriers": []}
SOME_POLICY = policy(carrier(limits=EvidenceLimits()))

CALLS = [
    # call, method, path with its query, body, answer, result
    (lambda it: it.info(), "GET", "/v1/info", None, {"id": ID, "version": "1", "pair": False}, Info(ID, "1")),
    (lambda it: it.doors(), "GET", "/v1/doors", None, DOORS_JSON, Doors(doors=(DOOR,), **STANDS)),
    (lambda it: it.challenge(FRONT, NORTH), "POST", f"/v1/doors/{FRONT}/challenge", {"iss": NORTH},
     {"non": "n", "ttl": 60}, ChallengeAnswer("n", 60)),
    (lambda it: it.policy(), "GET", "/v1/policy", None,
     {"version": 0, "policy": POLICY_JSON, "pending": None, "trusted": False}, PolicyView(0, EMPTY, None, False)),
    (lambda it: it.put_policy(6, SOME_POLICY), "PUT", "/v1/policy",
     {"base": 6, "version": 7, "policy": POLICY.write(SOME_POLICY)},
     {"version": 7, "pending": True, "seconds_left": 60}, PolicyTaken(7, True, 60)),
    (lambda it: it.clients(), "GET", "/v1/clients", None, {"clients": [CLIENT_JSON]}, (CLIENT,)),
    (lambda it: it.events(6, 10), "GET", "/v1/events?after=6&limit=10", None, {"events": [], "newest": 6},
     Events((), 6)),
    (lambda it: it.events(0), "GET", "/v1/events?after=0&limit=500", None, {"events": [], "newest": 0}, Events((), 0)),
    (lambda it: it.witnessed(3, KEY.verifier), "GET", f"/v1/witness?old=3&key={quote_plus(str(KEY.verifier))}", None,
     {"grown": str(GROWN), "held": None}, Witnessed(GROWN, None)),
    (lambda it: it.show(Shown(KEY.verifier, GROWN, None)), "PUT", "/v1/witness",
     {"key": str(KEY.verifier), "grown": str(GROWN), "epoch": None}, {"note": "cosigned"}, Signed("cosigned")),
    (lambda it: it.dispute("note"), "POST", "/v1/witness/receipt", {"note": "note"}, {"disputed": True}, True),
    (lambda it: it.unlock(FRONT, "a.b.c"), "POST", f"/v1/doors/{FRONT}/unlock", {"token": "a.b.c"},
     {"word": "granted", "code": "GRANTED"}, Answer(Word.GRANTED, "GRANTED")),
    (lambda it: it.unlock(FRONT, "a.b.c", NORTH), "POST", f"/v1/doors/{FRONT}/unlock", {"token": "a.b.c", "iss": NORTH},
     {"word": "refused", "code": "POLICY_RATE"}, Answer(Word.REFUSED, "POLICY_RATE")),
    (lambda it: it.operate(FRONT, Operation.HOLD, PERSON, "r"), "POST", f"/v1/doors/{FRONT}/operate",
     {"do": "hold", "actor": PERSON_WRITTEN, "ref": "r"}, {"code": "LOCKDOWN"}, Code.LOCKDOWN),
    (lambda it: it.lockdown(True, PERSON), "PUT", "/v1/lockdown", {"on": True, "actor": PERSON_WRITTEN, "ref": None},
     {"code": "GRANTED"}, Code.GRANTED),
    (lambda it: it.confirm(Confirmed.CLOCK, PERSON), "POST", "/v1/confirm",
     {"what": "clock", "actor": PERSON_WRITTEN, "ref": None}, {"code": "GRANTED"}, Code.GRANTED),
]  # fmt: skip


@pytest.mark.parametrize("call, method, path, body, answer, result", CALLS)
async def test_what_is_asked_and_answered(client, gateway, call, method, path, body, answer, result):
    gateway.answers(json.dumps(answer))
    assert await call(client) == result
    (asked,) = gateway.asked
    assert asked.method == method
    assert asked.path + (f"?{asked.query}" if asked.query else "") == path
    assert asked.authorization == f"Bearer {TOKEN}"
    assert (json.loads(asked.body) if asked.body else None) == body


async def test_the_newest_checkpoint_is_a_text_and_may_not_be_there_yet(client, gateway):
    gateway.answers("a note\n")
    assert await client.checkpoint() == "a note\n"
    gateway.answers(b'{"error":"not_found"}', 404)
    assert await client.checkpoint() is None
    gateway.answers(b'{"error":"forbidden"}', 403)
    with pytest.raises(GatewayRefused):
        await client.checkpoint()
    gateway.answers(b"\xff")
    with pytest.raises(MalformedMessage):
        await client.checkpoint()


QUESTIONS = [call for call, *_ in CALLS[:11]] + [
    lambda it: it.checkpoint(),
    lambda it: it.cosigned("note"),
    lambda it: it.proof(1),
    first_frame,
]
COMMANDS = [call for call, *_ in CALLS[11:]]

# ---- row 62: somebody else in the gateway's place ----


@pytest.mark.parametrize("call", QUESTIONS + COMMANDS)
async def test_row_62_an_impostor_does_not_get_to_see_a_single_byte(session, identities, impostor, call):
    client = at(session, impostor, identities[0])
    with pytest.raises(GatewayImpostor) as raised:
        await call(client)
    assert raised.value.fingerprint == identities[1].fingerprint
    assert isinstance(raised.value.__cause__, aiohttp.ServerFingerprintMismatch)
    await asyncio.sleep(0.05)  # what had been sent would have arrived
    assert impostor.connections == 1
    assert impostor.received == b""


async def test_a_certificate_that_was_announced_is_the_gateways_too(session, identities):
    old, new = identities
    gateway = Gateway(new)
    await gateway.start()
    try:
        client = at(session, gateway, old, new)
        assert client.fingerprint == old.fingerprint
        gateway.answers(json.dumps(DOORS_JSON))
        await client.doors()
        assert client.fingerprint == new.fingerprint
        with pytest.raises(GatewayImpostor):
            await at(session, gateway, old).doors()
        assert len(gateway.asked) == 1
    finally:
        await gateway.stop()


@pytest.mark.parametrize("call", [*QUESTIONS, *COMMANDS])
async def test_of_two_known_certificates_neither_is_the_impostors(session, identities, impostor, call, tmp_path):
    client = at(session, impostor, identities[0], Identity.new(tmp_path))
    with pytest.raises(GatewayImpostor):
        await call(client)
    await asyncio.sleep(0.05)
    assert impostor.connections == 2
    assert impostor.received == b""


async def test_a_redirect_is_not_followed(client, gateway, listener):
    async def lead_elsewhere(request):
        raise web.HTTPTemporaryRedirect(f"https://127.0.0.1:{listener.port}/")

    gateway.answer = lead_elsewhere
    with pytest.raises(GatewayRefused) as raised:
        await client.doors()
    assert raised.value.status == 307
    assert listener.connections == 0


async def test_a_stream_that_leads_to_somebody_who_does_not_encrypt_is_none(client, gateway):
    async def plain(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("{}")
        return socket

    app = web.Application()
    app.router.add_get("/", plain)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def lead_elsewhere(request):
        raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{runner.addresses[0][1]}/")

    gateway.answer = lead_elsewhere
    try:
        with pytest.raises(GatewayUnreachable):
            await first_frame(client)
    finally:
        await runner.cleanup()


async def test_a_cookie_is_not_kept(client, gateway):
    async def answer(request):
        response = web.json_response(DOORS_JSON)
        response.set_cookie("id", "1")
        return response

    gateway.answer = answer
    await client.doors()
    await client.doors()
    assert [asked.cookie for asked in gateway.asked] == [None, None]


async def test_a_proxy_of_the_environment_is_not_used(client, gateway, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "WSS_PROXY", "wss_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    gateway.answers(json.dumps(DOORS_JSON))
    await client.doors()


async def test_a_session_that_keeps_cookies_or_uses_proxies_is_refused(identities):
    async with (
        aiohttp.ClientSession() as keeps,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=True) as trusts,
    ):
        for session in (keeps, trusts):
            with pytest.raises(ValueError, match="DummyCookieJar"):
                check_session(session)
            with pytest.raises(ValueError, match="DummyCookieJar"):
                GatewayClient(session, "127.0.0.1", 1, TOKEN, [identities[0].fingerprint])
            with pytest.raises(ValueError, match="DummyCookieJar"):
                await ask_stranger(session, "127.0.0.1", 1)
            with pytest.raises(ValueError, match="DummyCookieJar"):
                await pair(session, "127.0.0.1", 1, "A" * 20, "Ada")


# ---- no answer ----


@pytest.mark.parametrize("call", QUESTIONS + COMMANDS)
async def test_where_nobody_listens_nothing_was_sent(session, identities, unused_tcp_port, call):
    client = GatewayClient(session, "127.0.0.1", unused_tcp_port, TOKEN, [identities[0].fingerprint])
    with pytest.raises(GatewayUnreachable) as raised:
        await call(client)
    assert not raised.value.may_have_succeeded


@pytest.mark.parametrize("host", ["no such host", "a/b", "[::1", ""])
async def test_what_is_no_host_is_not_reached(session, identities, host):
    client = GatewayClient(session, host, 7443, TOKEN, [identities[0].fingerprint])
    for call in (client.doors(), client.lockdown(True, PERSON), first_frame(client), ask_stranger(session, host, 7443)):
        with pytest.raises(GatewayUnreachable):
            await call


@pytest.mark.parametrize("call", QUESTIONS + COMMANDS)
async def test_who_does_not_finish_the_tls_handshake_was_told_nothing(session, identities, monkeypatch, call):
    """A command that waits for its connection is not one that waits for its answer."""
    monkeypatch.setattr(module, "DEADLINE", 0.3)
    monkeypatch.setattr(module, "COMMAND_DEADLINE", 5.0)
    arrived = bytearray()

    async def swallow(reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while part := await reader.read(1000):
                arrived.extend(part)
        writer.transport.abort()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = GatewayClient(session, "127.0.0.1", port, TOKEN, [identities[0].fingerprint])
        with pytest.raises(GatewayUnreachable):
            await call(client)
        assert arrived
        assert TOKEN.encode() not in arrived


@pytest.mark.parametrize("call", COMMANDS)
@pytest.mark.parametrize("cut", [True, False], ids=["cut off", "silent"])
async def test_a_command_without_an_answer_may_have_been_carried_out(
    session, identities, listener, monkeypatch, call, cut
):
    monkeypatch.setattr(module, "COMMAND_DEADLINE", 0.5)
    listener.cuts_after = b"\r\n\r\n{" if cut else None
    with pytest.raises(OutcomeUnknown) as raised:
        await call(at(session, listener, identities[0]))
    assert raised.value.may_have_succeeded
    assert listener.received.count(b"HTTP/1.1\r\n") == listener.connections == 1, "it was not sent twice"


async def test_a_policy_is_not_sent_twice_either(session, identities, listener):
    """The second one would meet the first, and be taken for somebody else's."""
    listener.cuts_after = b"\r\n\r\n{"
    with pytest.raises(GatewayUnreachable):
        await at(session, listener, identities[0]).put_policy(0, SOME_POLICY)
    assert listener.connections == 1


@pytest.mark.parametrize("call", QUESTIONS)
@pytest.mark.parametrize("cut", [True, False], ids=["cut off", "silent"])
async def test_a_question_without_an_answer_can_be_asked_again(session, identities, listener, monkeypatch, call, cut):
    monkeypatch.setattr(module, "DEADLINE", 0.5)
    listener.cuts_after = b"\r\n\r\n" if cut else None
    with pytest.raises(GatewayUnreachable) as raised:
        await call(at(session, listener, identities[0]))
    assert raised.value.temporary


async def test_a_command_whose_caller_goes_away_is_cancelled(session, identities, listener):
    asking = asyncio.ensure_future(at(session, listener, identities[0]).lockdown(True, PERSON))
    await listener.something_came.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


# ---- no, and nonsense ----

REFUSALS = [
    # status, body, error, its word
    (401, b'{"error":"unauthorized"}', GatewayForbidden, "not paired"),
    (403, b'{"error":"forbidden"}', GatewayRefused, "403 forbidden"),
    (404, b"", GatewayRefused, "404 no reason that is understood"),
    (409, b'{"error":"conflict","version":8}', PolicyConflict, "409 version 8"),
    (409, b'{"error":"last_admin"}', GatewayRefused, "409 last_admin"),
    (413, b"<html>", GatewayRefused, "413 no reason that is understood"),
    (429, b'{"error":"too_many_requests"}', GatewayRefused, "429 too_many_requests"),
    (503, b'{"error":"unavailable"}', GatewayRefused, "503 unavailable"),
]


@pytest.mark.parametrize("call", QUESTIONS[:8] + COMMANDS)
@pytest.mark.parametrize("status, body, error, words", REFUSALS)
async def test_a_refusal_says_why(client, gateway, call, status, body, error, words):
    gateway.answers(body, status)
    with pytest.raises(error) as raised:
        await call(client)
    assert type(raised.value) is error
    assert str(raised.value) == words


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_an_answer_that_does_not_say_whether_it_was_done(client, gateway, status):
    gateway.answers(b'{"error":"x"}', status)
    for command in COMMANDS:
        with pytest.raises(OutcomeUnknown):
            await command(client)
    with pytest.raises(GatewayRefused):
        await client.doors()


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"code":"OPEN"}', b"\xff", b'{"word":"granted","code":"GRANTED","x":1}']
)
async def test_nonsense_in_place_of_an_answer(client, gateway, body):
    gateway.answers(body)
    for command in COMMANDS:
        with pytest.raises(OutcomeUnknown):
            await command(client)
    for question in QUESTIONS[:8]:
        with pytest.raises(MalformedMessage):
            await question(client)


async def test_an_answer_without_end_is_not_read_to_its_end(client, gateway):
    sent = 0

    async def endless(request):
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while sent < 64 * module.MAX_ANSWER:
                await response.write(b" " * 65536)
                sent += 65536
        return response

    gateway.answer = endless
    with pytest.raises(MalformedMessage, match="too long"):
        await client.doors()
    assert sent < 16 * module.MAX_ANSWER


async def test_no_error_shows_the_bearer(session, client, gateway, identities, impostor):
    gateway.answers(b'{"error":"forbidden"}', 403)
    seen = []
    for asked in (client, at(session, impostor, identities[0])):
        with pytest.raises(Exception) as raised:  # noqa: PT011
            await asked.doors()
        error = raised.value
        while error is not None:
            seen.append(repr(error) + str(error))
            error = error.__cause__
    assert len(seen) == 3
    assert TOKEN not in "".join(seen)


# ---- the stream ----

HELLO = Hello(doors=(DOOR,), **STANDS, id=ID, name="Parcel room", version="1", policy=PolicyMark(0, False), next=None)


def streams(*frames, then=None, heartbeat=None):
    """An answer: a WebSocket that sends these frames, and closes unless ``then`` goes on."""

    async def answer(request):
        socket = web.WebSocketResponse(heartbeat=heartbeat)
        await socket.prepare(request)
        for frame in frames:
            await socket.send_str(frame if isinstance(frame, str) else FRAME.encode(frame).decode())
        if then is not None:
            await then(socket)
        return socket

    return answer


async def silence(socket):
    await asyncio.sleep(5)


async def patience(socket):
    async for _ in socket:
        pass


async def test_a_stream_begins_with_a_hello_and_goes_on_in_order(client, gateway):
    frames = [HELLO, Happened(BARE_EVENT), DoorChanged(DOOR), Happened(EVENT)]
    gateway.answer = streams(*frames)
    stream = client.stream(6)
    assert [await anext(stream) for _ in frames] == frames
    with pytest.raises(GatewayUnreachable):
        await anext(stream)
    (asked,) = gateway.asked
    assert (asked.path, asked.query, asked.authorization) == ("/v1/stream", "after=6", f"Bearer {TOKEN}")


async def test_a_word_that_only_a_newer_gateway_knows_ends_no_stream(client, gateway):
    new = FRAME.encode(Happened(EVENT)).replace(b"access_granted", b"door_sang")
    gateway.answer = streams(HELLO, new.decode(), Happened(BARE_EVENT))
    stream = client.stream(6)
    assert [await anext(stream) for _ in range(3)] == [HELLO, Newer(EVENT.sequence), Happened(BARE_EVENT)]


@pytest.mark.parametrize(
    "frames, sentence",
    [
        ((DoorChanged(DOOR),), "it does not begin with a hello"),
        ((HELLO, HELLO), "a second hello"),
        ((HELLO, "{}"), "no frame"),
        ((HELLO, "hello"), "no JSON"),
    ],
)
async def test_a_stream_that_is_not_understood(client, gateway, frames, sentence):
    gateway.answer = streams(*frames, then=patience)
    stream = client.stream(0)
    for _ in frames[:-1]:
        await anext(stream)
    with pytest.raises(MalformedMessage):
        await anext(stream)


async def test_bytes_are_no_frame(client, gateway):
    async def binary(socket):
        await socket.send_bytes(FRAME.encode(HELLO))
        await patience(socket)

    gateway.answer = streams(then=binary)
    with pytest.raises(GatewayUnreachable):
        await first_frame(client)


async def test_a_gateway_that_falls_silent_is_noticed(client, gateway, monkeypatch):
    """It may have lost its power: the network says nothing of that."""
    monkeypatch.setattr(module, "SILENCE", 0.2)
    gateway.answer = streams(HELLO, then=silence)
    frames = client.stream(0)
    assert await anext(frames) == HELLO
    with pytest.raises(GatewayUnreachable):
        async with asyncio.timeout(3):
            await anext(frames)


async def test_a_gateway_that_has_nothing_to_tell_is_not_taken_for_dead(client, gateway, monkeypatch):
    monkeypatch.setattr(module, "SILENCE", 0.3)
    gateway.answer = streams(HELLO, then=patience, heartbeat=0.1)  # which closes it if no pong comes
    async with contextlib.aclosing(client.stream(0)) as frames:
        assert await anext(frames) == HELLO
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(frames)


@pytest.mark.parametrize("status, error", [(401, GatewayForbidden), (403, GatewayRefused), (429, GatewayRefused)])
async def test_a_stream_that_is_refused(client, gateway, status, error):
    gateway.answers(b'{"error":"x"}', status)
    with pytest.raises(error):
        await first_frame(client)


async def test_a_stream_that_is_left_is_closed(client, gateway):
    closed = asyncio.Event()

    async def wait(socket):
        await patience(socket)
        closed.set()

    gateway.answer = streams(HELLO, then=wait)
    assert await first_frame(client) == HELLO
    async with asyncio.timeout(3):
        await closed.wait()


# ---- pairing ----

CODE = new_code(bytes(range(13)))
ADMISSION = Admission(
    TOKEN,
    client_id("0" * 16),
    SignerKey("gateway", Ed25519PrivateKey.from_private_bytes(bytes(32))).verifier,
    "Parcel room",
    frozenset(Scope),
    True,
    (Peer(client_id("1" * 16), "Another", frozenset({Scope.READ})),),
)


@pytest.fixture
async def pairable(identities):
    gateway = Pairable(identities[0], Info(ID, "1", b"n" * 16), CODE, ADMISSION)
    await gateway.start()
    yield gateway
    await gateway.stop()


def pairing(session, server, code=CODE, name="Home Assistant"):
    return pair(session, "127.0.0.1", server.port, code, name)


async def test_who_types_the_code_is_paired(session, pairable):
    paired = await pairing(session, pairable, shown(CODE).lower())
    assert pairable.names == ["Home Assistant"]
    assert paired.fingerprint == pairable.identity.fingerprint
    assert (paired.gateway_id, paired.token, paired.client_id) == (ID, TOKEN, ADMISSION.client_id)
    assert (paired.gateway_key, paired.name, paired.scopes) == (ADMISSION.gateway_key, "Parcel room", ADMISSION.scopes)
    assert (paired.trusted, paired.clients) == (True, ADMISSION.clients)
    assert TOKEN not in repr(paired)
    assert [asked.authorization for asked in pairable.asked] == [None, None]


async def test_row_57_nobody_allowed_it(session, pairable):
    pairable.info = replace(pairable.info, pair_nonce=None)
    with pytest.raises(PairingFailed) as raised:
        await pairing(session, pairable)
    assert raised.value.reason is NotPaired.NO_WINDOW
    assert [asked.path for asked in pairable.asked] == ["/v1/info"]


@pytest.mark.parametrize(
    "status, reason", [(404, NotPaired.NO_WINDOW), (403, NotPaired.WRONG_CODE), (429, NotPaired.BUSY)]
)
async def test_why_it_was_not_paired(session, pairable, status, reason):
    pairable.status = status
    with pytest.raises(PairingFailed) as raised:
        await pairing(session, pairable)
    assert raised.value.reason is reason


async def test_a_gateway_that_fails_says_how(session, pairable):
    pairable.status = 500
    with pytest.raises(GatewayRefused):
        await pairing(session, pairable)


async def test_row_61_a_wrong_code_pairs_nobody(session, pairable):
    with pytest.raises(PairingFailed) as raised:
        await pairing(session, pairable, new_code(bytes(13)))
    assert raised.value.reason is NotPaired.WRONG_CODE
    assert pairable.names == []


async def test_what_cannot_be_a_code_is_not_tried(session, pairable):
    with pytest.raises(CodeError):
        await pairing(session, pairable, "ABC")
    assert pairable.asked == []


async def test_row_61_a_man_in_the_middle_gets_nobody_paired(session, pairable, identities):
    """It has a certificate of its own, and hands everything on, both ways."""
    middle = Gateway(identities[1])

    async def hand_on(request):
        url = f"https://127.0.0.1:{pairable.port}{request.path}"
        async with session.request(request.method, url, data=await request.read(), ssl=False) as answer:
            return web.Response(body=await answer.read(), status=answer.status)

    middle.answer = hand_on
    await middle.start()
    try:
        with pytest.raises(PairingFailed) as raised:
            await pairing(session, middle)
    finally:
        await middle.stop()
    assert raised.value.reason is NotPaired.WRONG_CODE
    assert [asked.path for asked in pairable.asked] == ["/v1/info", "/v1/pair"], "it did reach the gateway"
    assert pairable.names == []


async def test_row_61_whoever_answers_without_the_code_is_believed_nothing(session, pairable):
    async def lie(request):
        if request.path == "/v1/info":
            return await pairable._answer(request)
        return web.Response(body=bytes(300))

    pairable.answer = lie
    with pytest.raises(PairingFailed) as raised:
        await pairing(session, pairable)
    assert raised.value.reason is NotPaired.WRONG_CODE


@pytest.mark.parametrize("connections", [1, 2])
async def test_row_61_a_certificate_that_changes_meanwhile_is_told_nothing_more(
    session, pairable, impostor, connections
):
    """Somebody takes the gateway's place after so many connections."""

    async def answer_once(request):
        response = await pairable._answer(request)
        response.force_close()
        return response

    pairable.answer = answer_once
    count = 0

    async def switch(reader, writer):
        nonlocal count
        count += 1
        server = pairable if count <= connections else impostor
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def copy(source, target):
            with contextlib.suppress(ConnectionError):
                while part := await source.read(65536):
                    target.write(part)
                    await target.drain()
            target.close()

        await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))

    async with await asyncio.start_server(switch, "127.0.0.1", 0) as server:
        with pytest.raises(GatewayImpostor):
            await pair(session, "127.0.0.1", server.sockets[0].getsockname()[1], CODE, "Home Assistant")
        await asyncio.sleep(0.05)
    assert impostor.connections == 1
    assert impostor.received == b""
    assert pairable.names == []


async def test_an_answer_to_pairing_that_gets_lost(session, pairable):
    async def hang_up(request):
        if request.path == "/v1/info":
            return await pairable._answer(request)
        request.transport.abort()
        return web.Response()

    pairable.answer = hang_up
    with pytest.raises(GatewayUnreachable):
        await pairing(session, pairable)


async def test_a_stranger_is_asked_who_it_is(session, pairable, listener, monkeypatch):
    assert await ask_stranger(session, "127.0.0.1", pairable.port) == pairable.info
    pairable.answers(b'{"hello":"I am a printer"}')
    with pytest.raises(MalformedMessage):
        await ask_stranger(session, "127.0.0.1", pairable.port)
    pairable.answers(b"", 404)
    with pytest.raises(GatewayRefused):
        await ask_stranger(session, "127.0.0.1", pairable.port)


async def test_a_stranger_that_does_not_encrypt_is_none(session):
    async def plain(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        with pytest.raises(GatewayUnreachable):
            await ask_stranger(session, "127.0.0.1", server.sockets[0].getsockname()[1])
