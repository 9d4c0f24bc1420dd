"""The intake by HTTP, with a real client on a real socket: protocol G and A.2 step 0, rows 27 to 29 and 65 of F."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import AsyncGenerator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout
from aiohttp.test_utils import TestServer
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component

from custom_components.vestibule.vestibule_core import door_task
from custom_components.vestibule.vestibule_core.intake import PER_SECOND
from custom_components.vestibule.vestibule_core.model import issuer, new_door_id
from custom_components.vestibule.vestibule_core.wire import MAX_REQUEST
from tests.integration.site import Cloud, RelayButton, RelaySwitch, Site

KEY = base64.urlsafe_b64encode(bytes(range(200, 232))).decode().rstrip("=")
"""As ``secrets.token_urlsafe(32)`` makes it; each of the tests' processes has the same."""


def kept(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Caller:
    """A carrier's cloud at the other end of the line."""

    def __init__(self, session: ClientSession, server: TestServer, key: str | None = KEY) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{server.port}/api/vestibule/doors"
        self.headers = {"Authorization": f"Bearer {key}"} if key is not None else {}

    async def post(self, door: str, verb: str, body: Any = b"", query: str = "", **headers: str) -> SimpleNamespace:
        url = f"{self._url}/{door}/{verb}{query}"
        async with self._session.post(url, data=body, headers=self.headers | headers) as answer:
            return SimpleNamespace(status=answer.status, headers=answer.headers, text=await answer.text())

    async def challenge(self, door: str) -> dict[str, Any]:
        answer = await self.post(door, "challenge")
        assert answer.status == 200, answer
        return json.loads(answer.text)

    async def unlock(self, door: str, token: str) -> SimpleNamespace:
        return await self.post(door, "unlock", json.dumps({"token": token}))

    async def present(self, door: str, token: str) -> dict[str, Any]:
        answer = await self.unlock(door, token)
        assert answer.status == 200, answer
        return json.loads(answer.text)


@pytest.fixture
async def server(hass: HomeAssistant, socket_enabled: None) -> AsyncGenerator[TestServer]:
    """Home Assistant's HTTP application; on a socket as soon as the site is loaded. A caller that goes away is treated
    as by Home Assistant's own server: its handler is cancelled.
    """
    assert await async_setup_component(hass, "api", {})
    server = TestServer(hass.http.app)
    yield server
    await server.close()


@pytest.fixture
async def session(socket_enabled: None) -> AsyncGenerator[ClientSession]:
    async with ClientSession(timeout=ClientTimeout(30)) as session:
        yield session


@pytest.fixture
async def site(hass: HomeAssistant, relay: RelaySwitch, cloud: Cloud, server: TestServer) -> AsyncGenerator[Site]:
    """A loaded building whose carrier has an intake key."""
    site = Site(hass, cloud)
    site.add_door("Front door", relay.entity_id)
    site.add_carrier("Parcel Express", cloud, intake_key_sha256=kept(KEY))
    await site.load()
    await server.start_server()
    yield site
    await hass.async_block_till_done()


@pytest.fixture
def caller(site: Site, session: ClientSession, server: TestServer) -> Caller:
    """The carrier."""
    return Caller(session, server)


def stranger(session: ClientSession, server: TestServer, key: str | None) -> Caller:
    return Caller(session, server, key)


async def token(caller: Caller, site: Site, **changes: Any) -> str:
    challenge = await caller.challenge(site.door)
    return site.cloud.token(site.door, challenge["non"], **changes)


async def until(happened: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not happened():  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)


def hold(relay: RelaySwitch) -> asyncio.Event:
    """Let a relay that was told wait; return what lets it obey."""
    go_on, hear = asyncio.Event(), relay._hear

    async def wait(command: str) -> None:
        await hear(command)
        await go_on.wait()

    relay._hear = wait
    return go_on


async def raw(server: TestServer, *parts: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    return reader, writer


def head(site: Site, verb: str, *lines: str) -> bytes:
    request = [
        f"POST /api/vestibule/doors/{site.door}/{verb} HTTP/1.1",
        "Host: door.example",
        f"Authorization: Bearer {KEY}",
        *lines,
    ]
    return "".join(f"{line}\r\n" for line in request).encode() + b"\r\n"


# ---- the way in ----


async def test_a_carrier_asks_for_a_challenge_presents_a_token_and_the_door_opens(site, caller, relay):
    challenge = await caller.challenge(site.door)
    assert challenge == {"non": challenge["non"], "ttl": 60}
    assert len(challenge["non"]) == 22
    answer = await caller.unlock(site.door, site.cloud.token(site.door, challenge["non"]))
    assert (answer.status, json.loads(answer.text)) == (200, {"word": "granted", "code": "GRANTED"})
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"
    assert relay.told == ["on"]
    await site.settle()
    assert site.outcomes()[:2] == [("access_granted", "GRANTED"), ("door_released", "GRANTED")]
    assert site.events[0].data["carrier"] == "Parcel Express"
    assert site.events[0].context.user_id is None


async def test_a_refusal_is_an_answer_that_names_what_may_be_told(site, caller, relay):
    assert await caller.present(site.door, await token(caller, site, distance=400)) == {
        "word": "refused",
        "code": "POLICY_EVIDENCE",
        "limit": "distance",
    }
    spent = await token(caller, site)
    await caller.present(site.door, spent)
    assert await caller.present(site.door, spent) == {"word": "already_used", "code": "ALREADY_SPENT"}
    assert await caller.present(site.door, spent[:-8] + "AAAAAAAA") == {"word": "invalid_token", "code": None}
    assert relay.told == ["on"]


async def test_why_a_building_is_shut_is_nobodys_business_outside_of_it(hass, site, caller, relay):
    presented = await token(caller, site)
    await hass.services.async_call("select", "select_option", {
        "entity_id": site.entity_id("select"), "option": "blocked",
    }, blocking=True)  # fmt: skip
    assert await caller.present(site.door, presented) == {"word": "refused", "code": "DOOR_UNAVAILABLE"}
    by_action = await site.present(await token(caller, site))
    assert (by_action["word"], by_action["code"]) == ("refused", "DOOR_UNAVAILABLE")
    assert relay.told == []


async def test_a_token_for_one_door_opens_it_only_at_that_door(hass, site, caller, relay):
    button = RelayButton("gate")
    await button.install(hass)
    gate = site.add_door("Gate", button.entity_id)
    site.change("Parcel Express", doors=[site.door, gate])
    await hass.async_block_till_done()
    answer = await caller.present(gate, await token(caller, site))
    assert answer == {"word": "refused", "code": "WRONG_DOOR"}
    assert relay.told == button.told == []


# ---- who is let in: row 29 ----

NO_KEYS = [
    None,
    "",
    "A" * 43,
    KEY[:-1],
    KEY + "A",
    f" {KEY}",
    kept(KEY),
    "0" * 64,
]


@pytest.mark.parametrize("key", NO_KEYS)
async def test_row_29_without_its_intake_key_nobody_gets_a_challenge_or_is_heard(site, session, server, relay, key):
    somebody = stranger(session, server, key)
    presented = site.cloud.token(site.door, await site.challenge())
    for answer in (await somebody.post(site.door, "challenge"), await somebody.unlock(site.door, presented)):
        assert (answer.status, answer.text) == (401, '{"error":"Unauthorized"}')
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["Cache-Control"] == "no-store"
    assert relay.told == []


@pytest.mark.parametrize(
    "how",
    [
        lambda key: {"query": f"?access_token={key}"},
        lambda key: {"query": f"?authorization=Bearer%20{key}"},
        lambda key: {"query": f"?api_password={key}&token={key}"},
        lambda key: {"Cookie": f"access_token={key}"},
        lambda key: {"Authorization": f"Basic {key}"},
        lambda key: {"Authorization": f"Token {key}"},
        lambda key: {"Authorization": key},
        lambda key: {"X-Api-Key": key},
    ],
)
async def test_row_63_a_key_anywhere_but_in_the_authorization_header_is_no_key(site, session, server, how):
    answer = await stranger(session, server, None).post(site.door, "challenge", **how(KEY))
    assert answer.status == 401


async def test_a_user_of_home_assistant_is_no_carrier(hass, site, session, server, hass_access_token):
    answer = await stranger(session, server, hass_access_token).post(site.door, "challenge")
    assert answer.status == 401


async def test_row_29_an_unknown_door_looks_like_one_that_is_not_the_carriers(hass, site, caller):
    button = RelayButton("gate")
    await button.install(hass)
    gate = site.add_door("Gate", button.entity_id)
    await hass.async_block_till_done()
    answers = {
        (answer.status, answer.text, tuple(sorted(name for name in answer.headers)))
        for door in (gate, new_door_id(bytes(16)), "x", "door:..", "..%2f..%2fapi", "%00", "a" * 2000)
        for verb in ("challenge", "unlock")
        for answer in [await caller.post(door, verb, json.dumps({"token": "t"}))]
    }
    assert {(status, text) for status, text, _ in answers} <= {
        (403, '{"error":"Forbidden"}'),
        (400, "400: Bad Request"),
    }
    assert (403, '{"error":"Forbidden"}') in {(status, text) for status, text, _ in answers}
    assert button.told == []


async def test_row_29_a_key_gives_challenges_of_its_own_carrier_only(hass, site, caller, session, server, relay):
    rival, rivals_key = Cloud("https://rival.example"), secrets.token_urlsafe(32)
    site.add_carrier("Rival", rival, intake_key_sha256=kept(rivals_key))
    await hass.async_block_till_done()
    other = stranger(session, server, rivals_key)
    ours, theirs = await caller.challenge(site.door), await other.challenge(site.door)
    assert await other.present(site.door, rival.token(site.door, ours["non"])) == {
        "word": "refused",
        "code": "NONCE_UNKNOWN",
    }
    # Its own genuine token, presented by the rival: only the carrier itself is heard for it.
    assert await other.present(site.door, site.cloud.token(site.door, ours["non"])) == {
        "word": "invalid_token",
        "code": None,
    }
    assert relay.told == []
    assert (await other.present(site.door, rival.token(site.door, theirs["non"])))["word"] == "granted"


async def test_a_replaced_key_is_no_key_from_that_moment_on(hass, site, caller, session, server):
    new = secrets.token_urlsafe(32)
    site.change("Parcel Express", intake_key_sha256=kept(new))
    await hass.async_block_till_done()
    assert (await caller.post(site.door, "challenge")).status == 401
    assert (await stranger(session, server, new).post(site.door, "challenge")).status == 200


async def test_a_removed_carrier_is_nobody(hass, site, caller):
    site.remove("Parcel Express")
    await hass.async_block_till_done()
    assert (await caller.post(site.door, "challenge")).status == 401


async def test_wrong_keys_do_not_get_the_address_banned_behind_which_every_carrier_is(site, server, session, caplog):
    for _ in range(3):
        assert (await stranger(session, server, "A" * 43).post(site.door, "challenge")).status == 401
    assert "invalid authentication" not in caplog.text
    # What is counted, and leads to a ban: a login of Home Assistant's own that failed.
    async with session.get(f"http://127.0.0.1:{server.port}/api/config") as answer:
        assert answer.status == 401
    assert "invalid authentication" in caplog.text


# ---- what is read ----

MALFORMED = [
    b"",
    b"x",
    b"{}",
    b"[]",
    b'"token"',
    b'{"token":1}',
    b'{"token":null}',
    b'{"token":"a","token":"b"}',
    b'{"token":"a","door":"b"}',
    b'{"token":NaN}',
    b'\xff\xfe{"token":"a"}',
    b"[" * 4000,
    b'{"token":"a"} x',
]


@pytest.mark.parametrize("body", MALFORMED)
async def test_a_body_that_is_not_the_message_is_turned_away_in_constant_words(site, caller, body):
    answer = await caller.post(site.door, "unlock", body)
    assert (answer.status, answer.text) == (400, '{"error":"Bad Request"}')


async def chunks(size: int, count: int) -> AsyncGenerator[bytes]:
    for _ in range(count):
        yield b" " * size


@pytest.mark.parametrize("verb", ["challenge", "unlock"])
async def test_row_65_a_body_that_is_too_large_is_not_read(site, caller, verb):
    for body in (b" " * (MAX_REQUEST + 1), b"x" * 5_000_000, chunks(1024, 9), chunks(65536, 200)):
        try:
            answer = await caller.post(site.door, verb, body)
        except ConnectionError:  # closed on a client that kept sending
            continue
        assert (answer.status, answer.text) == (413, '{"error":"Content Too Large"}')
        assert answer.headers["Connection"] == "close"


async def test_row_65_a_body_that_is_said_to_be_too_large_is_not_waited_for(site, server):
    reader, writer = await raw(server, head(site, "unlock", "Content-Length: 1000000"))
    async with asyncio.timeout(30):
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.transport.abort()


async def test_a_body_of_the_greatest_size_is_read(site, caller):
    body = json.dumps({"token": "t"}).encode().ljust(MAX_REQUEST)
    assert (await caller.post(site.door, "unlock", body)).status == 200


async def test_row_65_an_endless_chunked_body_is_answered_before_it_ends(site, server):
    reader, writer = await raw(server, head(site, "unlock", "Transfer-Encoding: chunked"))
    answered = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    sent = 0
    while not answered.done():
        writer.write(b"400\r\n" + b" " * 1024 + b"\r\n")
        await asyncio.sleep(0.001)
        sent += 1
        assert sent < 1000
    assert answered.result().startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in answered.result()
    writer.transport.abort()


async def test_row_52_a_body_that_trickles_is_given_up(site, server, monkeypatch):
    monkeypatch.setattr("custom_components.vestibule.vestibule_core.api.body.DEADLINE", 0.2)
    for lines in (("Content-Length: 100",), ("Transfer-Encoding: chunked",)):
        reader, writer = await raw(server, head(site, "unlock", *lines), b"1\r\n")
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_body_that_is_longer_than_its_head_says_is_cut_there(site, server):
    reader, writer = await raw(server, head(site, "unlock", "Content-Length: 5"), b'{"token":"t"}')
    async with asyncio.timeout(30):
        assert (await reader.readline()).split()[1] == b"400"
    writer.close()


# ---- how much: rows 27 and 28 ----


async def test_a_body_that_is_not_compressed_as_it_says_is_turned_away(site, server):
    reader, writer = await raw(server, head(site, "unlock", "Content-Encoding: gzip", "Content-Length: 6"), b"abcdef")
    assert (await reader.readline()).split()[1] == b"400"
    writer.close()


async def test_row_27_bad_tokens_are_slowed_down_and_the_good_one_from_elsewhere_opens(site, caller, relay, hass):
    entries = site.embedded.journal_entries
    good = await token(caller, site)
    forged = good[:-20] + "A" * 20
    answers = [await caller.unlock(site.door, forged) for _ in range(40)]
    assert [answer.status for answer in answers[:20]] == [200] * 20
    assert answers[-1].status == 429
    assert answers[-1].text == '{"error":"Too Many Requests"}'
    assert answers[-1].headers["Retry-After"] == "1"
    assert site.embedded.journal_entries == entries
    assert await site.present(good) | {"door": None} == {
        "word": "granted",
        "code": "GRANTED",
        "door": None,
        "limit": None,
    }
    assert relay.told == ["on"]


async def test_row_27_a_carrier_that_is_slowed_down_slows_no_other_down(hass, site, caller, session, server):
    rival, rivals_key = Cloud("https://rival.example"), secrets.token_urlsafe(32)
    site.add_carrier("Rival", rival, intake_key_sha256=kept(rivals_key))
    await hass.async_block_till_done()
    other = stranger(session, server, rivals_key)
    presented = rival.token(site.door, (await other.challenge(site.door))["non"])
    while (await caller.unlock(site.door, "rubbish")).status == 200:
        pass
    assert (await other.present(site.door, presented))["word"] == "granted"


async def test_refusals_of_genuine_tokens_cost_nothing(site, caller):
    refused = await token(caller, site, distance=400)
    assert {(await caller.unlock(site.door, refused)).status for _ in range(30)} == {200}


async def test_row_28_any_number_of_challenges_keeps_nobody_from_getting_one_that_opens(hass, site, caller, relay):
    rival = Cloud("https://rival.example")
    site.add_carrier("Rival", rival, intake_key_sha256=kept("unused"))
    await hass.async_block_till_done()
    entries = site.embedded.journal_entries
    for _ in range(10):
        assert {answer.status for answer in await asyncio.gather(
            *(caller.post(site.door, "challenge") for _ in range(50))
        )} == {200}  # fmt: skip
    assert site.embedded.journal_entries == entries
    assert (await caller.present(site.door, await token(caller, site)))["word"] == "granted"
    assert relay.told == ["on"]


async def test_more_requests_than_all_may_make_together_wait(site, caller):
    soon = site.embedded.controller.now().boot + 60  # until then nothing is gained
    for number in range(int(PER_SECOND)):
        assert site.embedded.intake.admit(issuer(f"https://carrier-{number}.example"), "others", soon) is None
    answer = await caller.unlock(site.door, "t")
    assert (answer.status, answer.headers["Retry-After"]) == (429, "1")


async def test_more_requests_than_can_wait_at_a_door_are_told_to_come_back(site, caller, relay, monkeypatch):
    monkeypatch.setattr(door_task, "QUEUE", 1)
    go_on = hold(relay)
    tokens = [await token(caller, site) for _ in range(3)]
    first = asyncio.create_task(caller.unlock(site.door, tokens[0]))
    await until(lambda: relay.told)
    others = [asyncio.create_task(caller.unlock(site.door, waiting)) for waiting in tokens[1:]]
    turned_away = await next(asyncio.as_completed(others))
    assert turned_away.status == 429
    assert (turned_away.text, turned_away.headers["Retry-After"]) == ('{"error":"Too Many Requests"}', "1")
    go_on.set()
    assert sorted([(await other).status for other in others]) == [200, 429]
    await first
    assert relay.told == ["on", "on"]


# ---- life ----


async def test_a_caller_that_goes_away_does_not_stop_the_unlock(hass, site, caller, server, relay):
    presented = await token(caller, site)
    reached = asyncio.Event()
    go_on = asyncio.Event()
    turn_on = relay.async_turn_on

    async def slow(**kwargs: Any) -> None:
        reached.set()
        await go_on.wait()
        await turn_on(**kwargs)

    relay.async_turn_on = slow
    body = json.dumps({"token": presented}).encode()
    cancelled = asyncio.Event()
    present = site.embedded.controller.present

    async def noticed(*args: Any, **kwargs: Any) -> Any:
        try:
            return await present(*args, **kwargs)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    site.embedded.controller.present = noticed
    _, writer = await raw(server, head(site, "unlock", f"Content-Length: {len(body)}"), body)
    async with asyncio.timeout(30):
        await reached.wait()
        writer.transport.abort()
        await cancelled.wait()  # Home Assistant's server stops the handler of a caller that is gone
    go_on.set()
    await until(lambda: ("door_released", "GRANTED") in site.outcomes())
    assert relay.told == ["on"]
    assert await caller.present(site.door, presented) == {"word": "already_used", "code": "ALREADY_SPENT"}
    assert relay.told == ["on"]


async def test_row_24_the_same_token_from_two_hundred_callers_opens_once(site, caller, relay):
    presented = await token(caller, site)
    answers = await asyncio.gather(*(caller.unlock(site.door, presented) for _ in range(200)))
    words = [json.loads(answer.text).get("word") for answer in answers if answer.status == 200]
    assert words.count("granted") == 1
    assert set(words) == {"granted", "already_used"}
    assert {answer.status for answer in answers} <= {200, 429}
    assert relay.told == ["on"]


async def test_while_no_building_is_loaded_the_answer_is_503(hass, site, caller):
    await hass.config_entries.async_unload(site.entry.entry_id)
    for verb in ("challenge", "unlock"):
        answer = await caller.post(site.door, verb)
        assert (answer.status, answer.text) == (503, '{"error":"Service Unavailable"}')
    assert await hass.config_entries.async_setup(site.entry.entry_id)
    assert (await caller.post(site.door, "challenge")).status == 200


async def test_while_the_building_is_being_stopped_the_answer_is_503(site, caller):
    presented = await token(caller, site)
    await site.embedded.stop()
    assert (await caller.post(site.door, "challenge")).status == 503
    assert (await caller.unlock(site.door, presented)).status == 503


async def test_a_token_that_waits_while_the_building_stops_is_told_503(site, caller, relay):
    go_on = hold(relay)
    tokens = [await token(caller, site) for _ in range(2)]
    door = site.embedded.controller._doors[site.door]
    first = asyncio.create_task(caller.unlock(site.door, tokens[0]))
    await until(lambda: relay.told)
    waiting = asyncio.create_task(caller.unlock(site.door, tokens[1]))
    await until(lambda: len(door._waiting) == 1)
    stopping = asyncio.create_task(site.embedded.stop())
    await until(lambda: door._stop_asked)
    go_on.set()
    assert (await waiting).status == 503
    assert json.loads((await first).text)["word"] == "granted"
    await stopping
    assert relay.told == ["on"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_there_is_nothing_else_to_ask(site, session, server, method):
    url = f"http://127.0.0.1:{server.port}/api/vestibule/doors/{site.door}/challenge"
    async with session.request(method, url, headers={"Authorization": f"Bearer {KEY}"}) as answer:
        assert answer.status == 405
    async with session.post(f"http://127.0.0.1:{server.port}/api/vestibule/doors") as answer:
        assert answer.status == 404
