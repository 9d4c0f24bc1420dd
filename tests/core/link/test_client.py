"""The building's end of a carrier's link, against a WebSocket that says what a cloud may and what it may not say."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.link_cloud import Key, LinkCloud, b64, payload_of
from tests.simulated import some_doors
from vestibule_core.errors import KeySetInvalid, Refused
from vestibule_core.link import client, standing
from vestibule_core.link.client import Link, NotLinked, WrongIssuer, enrol, pause
from vestibule_core.link.code import EnrolmentCode
from vestibule_core.link.messages import MAX_FRAME, MOST_OPEN, Begin, Close, Greeting, Hello, LinkedDoor, Unlock
from vestibule_core.link.standing import LinkState
from vestibule_core.model import Code, Word
from vestibule_core.note import SignerKey

DOOR, OTHER = (door.id for door in some_doors(2))
KEY = SignerKey("vestibule/test", Ed25519PrivateKey.generate())
NONCE = "A" * 22


@dataclass
class Building:
    """A host that remembers what it was asked."""

    issuer: str = "https://swift.example"
    key: SignerKey = KEY
    doors: tuple[LinkedDoor, ...] = (LinkedDoor(DOOR, "Gate", "Europe/Berlin", 52.5, 13.4),)
    presented: list[str] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    takes = True
    holds: asyncio.Event | None = None
    """What a strike waits for."""

    def hello(self, begin: Begin) -> Hello:
        if begin.issuer != self.issuer:
            raise WrongIssuer(begin.issuer)
        return Hello(self.key.verifier, begin.issuer, begin.nonce, bytes(16), self.doors, 3, None)

    async def challenge(self, door):
        if door != DOOR:
            raise Refused(Code.WRONG_DOOR)
        return NONCE, 60

    async def present(self, token):
        self.presented.append(token)
        if self.holds is not None:
            await self.holds.wait()
        return {"granted": (Word.GRANTED, Code.GRANTED), "shut": (Word.REFUSED, Code.LOCKDOWN)}.get(
            token, (Word.INVALID_TOKEN, Code.BAD_SIGNATURE)
        )

    async def take_keys(self, keys):
        self.sets.append(keys.set)
        if not self.takes:
            raise KeySetInvalid("older_version")

    async def take_issued(self, text):
        self.lists.append(text)
        if not self.takes:
            raise KeySetInvalid("no_list_key")


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    assert (client.PAUSES, client.TAKEN_OVER_PAUSE, client.TURNED_AWAY_PAUSE) == ((1.0, 300.0), 60.0, 3600.0)
    monkeypatch.setattr(client, "PAUSES", (0.02, 0.05))


@pytest.fixture
async def cloud():
    async with LinkCloud() as cloud:
        yield cloud


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


@asynccontextmanager
async def linked(session, cloud, building=None, where=None):
    """Keep a link up."""
    link = Link(session, where or cloud.host, building or Building())
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()


async def until(is_so):
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - several things at once
            await asyncio.sleep(0.005)


# ---- a link that works ----


async def test_a_hello_answers_the_number_of_this_connection_and_the_keys_say_that_it_was_accepted(session, cloud):
    building = Building()
    async with linked(session, cloud, building) as link:
        connection = await cloud.linked()
        await until(lambda: link.is_connected)
        assert connection.hello["doors"] == [
            {"id": DOOR, "name": "Gate", "zone": "Europe/Berlin", "lat": 52.5, "lon": 13.4}
        ]
        assert connection.hello["keyset_ver"] == 3
        assert "secret" not in connection.greeting
        assert len(building.sets) == 1


async def test_79_the_hello_of_another_connection_is_another_one(session, cloud):
    async with linked(session, cloud):
        first = await cloud.linked()
        first.cut()
        second = await cloud.linked(2)
        assert first.hello["n"] != second.hello["n"]
        assert first.greeting["jwt"] != second.greeting["jwt"]


async def test_a_challenge_is_signed_for_its_door_and_this_carrier(session, cloud):
    async with linked(session, cloud):
        answer = await cloud.challenge(DOOR)
        said = payload_of(answer["jwt"])
        assert said == {"ctl": str(KEY.verifier), "door": DOOR, "iss": cloud.issuer, "non": NONCE, "ttl": 60}


async def test_a_door_that_gives_no_challenge_is_refused_in_a_word(session, cloud):
    async with linked(session, cloud):
        answer = await cloud.challenge(OTHER)
        assert answer.keys() == {"type", "id", "word"}
        assert answer["word"] == "refused"


async def test_what_became_of_a_token_is_told_and_why_a_building_is_shut_is_not(session, cloud):
    building = Building()
    async with linked(session, cloud, building):
        granted, shut, forged = [await cloud.unlock(text) for text in ("granted", "shut", "forged")]
        assert (granted["word"], granted["code"]) == ("granted", "GRANTED")
        assert shut.keys() == forged.keys() == {"type", "id", "word"}
        assert (shut["word"], forged["word"]) == ("refused", "invalid_token")
        assert building.presented == ["granted", "shut", "forged"]


async def test_several_are_answered_at_a_time(session, cloud):
    building = Building(holds=asyncio.Event())
    async with linked(session, cloud, building):
        waiting = [asyncio.create_task(cloud.unlock("granted")) for _ in range(MOST_OPEN - 1)]
        await until(lambda: len(building.presented) == MOST_OPEN - 1)
        assert (await cloud.challenge(DOOR))["non"] == NONCE
        building.holds.set()
        assert {answer["word"] for answer in await asyncio.gather(*waiting)} == {"granted"}


async def test_more_than_may_be_open_ends_the_link(session, cloud):
    building = Building(holds=asyncio.Event())
    async with linked(session, cloud, building):
        connection = await cloud.linked()
        for number in range(MOST_OPEN + 1):
            await connection.say(type="unlock", id=number, token="granted")
        await cloud.linked(2)
        assert len(building.presented) <= MOST_OPEN


async def test_the_same_number_twice_ends_the_link(session, cloud):
    async with linked(session, cloud, Building(holds=asyncio.Event())):
        connection = await cloud.linked()
        for _ in range(2):
            await connection.say(type="unlock", id=7, token="granted")
        await cloud.linked(2)


async def test_a_ping_is_answered(session, cloud):
    async with linked(session, cloud):
        connection = await cloud.linked()
        await connection.say(type="ping")
        await cloud.until(lambda: connection.pongs == 1)


async def test_key_sets_and_lists_are_handed_on_and_a_bad_one_does_not_end_the_link(session, cloud):
    building = Building()
    async with linked(session, cloud, building):
        connection = await cloud.linked()
        building.takes = False
        await cloud.publish()
        await connection.say(type="issued", list="a list")
        await until(lambda: building.lists)
        assert len(building.sets) == 2
        assert (await cloud.challenge(DOOR))["non"] == NONCE
        assert len(cloud.connections) == 1


async def test_what_was_accepted_and_what_is_asked_for_is_told_while_there_is_a_link(session, cloud):
    building = Building()
    link = Link(session, cloud.host, building)
    link.accepted(bytes(16), DOOR, Code.GRANTED)  # nobody hears it
    async with linked(session, cloud, building) as link:
        connection = await cloud.linked()
        await until(lambda: link.is_connected)
        link.accepted(bytes(16), DOOR, Code.GRANTED)
        link.ask_list(date(2026, 11, 23))
        await cloud.until(lambda: connection.accepted and connection.asked_lists)
        assert connection.accepted == [{"type": "accepted", "jti": b64(bytes(16)), "door": DOOR, "code": "GRANTED"}]
        assert connection.asked_lists == ["2026-11-23"]


async def test_who_listens_hears_of_each_change(session, cloud):
    seen = []
    link = Link(session, cloud.host, Building())
    end = link.subscribe(lambda: seen.append(link.state))
    task = asyncio.create_task(link.run())
    await until(lambda: link.is_connected)
    await cloud.stop()
    await until(lambda: link.state is LinkState.UNREACHABLE)
    end()
    await cloud.start()
    await until(lambda: link.is_connected)
    assert seen == [LinkState.CONNECTED, LinkState.UNREACHABLE]
    task.cancel()
    await asyncio.wait([task])


# ---- lines that break ----


async def test_a_token_that_was_cut_off_is_not_presented_later(session, cloud):
    building = Building(holds=asyncio.Event())
    async with linked(session, cloud, building):
        connection = await cloud.linked()
        await connection.say(type="unlock", id=1, token="granted")
        await until(lambda: building.presented)
        connection.cut()
        second = await cloud.linked(2)
        building.holds.set()
        await second.say(type="ping")
        await cloud.until(lambda: second.pongs)
        assert building.presented == ["granted"]
        assert not second.answers


async def test_it_comes_back_after_the_cloud_was_away(session, cloud):
    async with linked(session, cloud) as link:
        await until(lambda: link.is_connected)
        await cloud.stop()
        await until(lambda: not link.is_connected)
        await asyncio.sleep(0.1)
        await cloud.start()
        await until(lambda: link.is_connected)


async def test_a_cloud_that_falls_silent_is_let_go_of(session, cloud, monkeypatch):
    monkeypatch.setattr(client, "SILENCE", 0.1)
    async with linked(session, cloud):
        await cloud.linked(2)


async def test_a_cloud_that_never_begins_is_let_go_of(session, cloud, monkeypatch):
    monkeypatch.setattr(client, "DEADLINE", 0.1)
    cloud.is_silent = True
    async with linked(session, cloud) as link:
        await until(lambda: link.state is LinkState.UNREACHABLE)


@pytest.mark.parametrize("after", range(4))
async def test_cut_after_each_frame_it_comes_back(session, cloud, after):
    frames = [{"type": "ping"}, {"type": "challenge", "id": 1, "door": DOOR}, {"type": "unlock", "id": 2, "token": "x"}]
    async with linked(session, cloud):
        first = await cloud.linked()
        for frame in frames[:after]:
            await first.say(**frame)
        first.cut()
        second = await cloud.linked(2)
        await second.say(type="ping")
        await cloud.until(lambda: second.pongs)


# ---- what a cloud may not say ----


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"type":"ping","more":1}',
        '{"type":"pong"}',
        '{"type":"nonce","n":"AAAAAAAAAAAAAAAAAAAAAA","iss":"https://swift.example","name":"x"}',
        '{"type":"unlock","id":1,"token":"' + "x" * MAX_FRAME + '"}',
    ],
)
async def test_a_frame_that_is_not_understood_ends_the_link(session, cloud, text):
    building = Building()
    async with linked(session, cloud, building):
        first = await cloud.linked()
        await first.socket.send_str(text)
        await cloud.linked(2)
        assert building.presented == []


async def test_bytes_end_the_link(session, cloud):
    async with linked(session, cloud):
        first = await cloud.linked()
        await first.socket.send_bytes(b'{"type":"ping"}')
        await cloud.linked(2)


async def test_a_question_before_the_hello_was_accepted_is_not_answered(session, cloud):
    cloud.before_keys = [{"type": "challenge", "id": 1, "door": DOOR}]
    building = Building()
    async with linked(session, cloud, building) as link:
        await until(lambda: link.state is LinkState.NO_CLOUD)
        assert building.sets == []


async def test_78_the_cloud_of_another_carrier_gets_no_hello(session, cloud):
    cloud.issuer = "https://other.example"
    async with linked(session, cloud) as link:
        await until(lambda: link.state is LinkState.WRONG_ISSUER)
        assert "https://other.example" in link.why
        assert cloud.connections == []


@pytest.mark.parametrize(
    "close, state",
    [
        (Close.GOING_AWAY, LinkState.NOT_READY),
        (Close.TAKEN_OVER, LinkState.TAKEN_OVER),
        (Close.NOT_ENROLLED, LinkState.NOT_ENROLLED),
        (Close.CODE_UNUSABLE, LinkState.CODE_UNUSABLE),
        (Close.VIOLATION, LinkState.NO_CLOUD),
        (1011, LinkState.UNREACHABLE),
    ],
)
async def test_how_the_cloud_ended_it_is_kept(session, cloud, close, state):
    cloud.refuse_with = close
    async with linked(session, cloud) as link:
        await until(lambda: link.why)
        assert (link.state, link.why) == (state, f"closed by the cloud ({int(close)})")


@pytest.mark.parametrize(
    "ends, trouble",
    [
        ({"end_with": 1000}, LinkState.UNSTABLE),
        ({"end_with": Close.GOING_AWAY}, LinkState.NOT_READY),
        ({"end_with": Close.VIOLATION}, LinkState.NO_CLOUD),
        ({"refuse_with": 1011}, LinkState.UNSTABLE),
        ({"refuse_with": Close.GOING_AWAY}, LinkState.NOT_READY),
    ],
)
async def test_a_link_that_ends_soon_after_each_hello_is_trouble_until_one_stands(
    session, cloud, monkeypatch, ends, trouble
):
    monkeypatch.setattr(standing, "TELL_AFTER", 1.0)
    monkeypatch.setattr(standing, "STOOD", 0.3)
    for name, value in ends.items():
        setattr(cloud, name, value)
    async with linked(session, cloud) as link:
        await until(lambda: link.trouble is not None)
        await until(lambda: link.trouble is trouble)
        assert len(cloud.connections) > 3
        cloud.refuse_with = cloud.end_with = None
        connection = await cloud.linked(len(cloud.connections) + 1)
        while link.trouble is not None:
            await connection.say(type="ping")
            await asyncio.sleep(0.02)
        assert cloud.connections[-1] is connection


async def test_a_cloud_that_says_nothing_after_its_keys_has_not_stood_and_is_called_less_and_less(
    session, cloud, monkeypatch
):
    waits = []
    monkeypatch.setattr(standing, "STOOD", 0.05)
    monkeypatch.setattr(client, "SILENCE", 0.1)
    monkeypatch.setattr(client, "pause", lambda state, failures, chance: waits.append(failures) or 0.01)
    async with linked(session, cloud):
        await until(lambda: len(waits) >= 3)
    assert waits[:3] == [0, 1, 2]


async def test_that_nobody_is_there_is_no_trouble(session, cloud, monkeypatch):
    monkeypatch.setattr(standing, "TELL_AFTER", 0.0)
    await cloud.stop()
    async with linked(session, cloud) as link:
        for _ in range(20):
            await asyncio.sleep(0.02)
            assert link.trouble is None
        assert link.state is LinkState.UNREACHABLE


# ---- where it goes ----


async def test_whoever_is_no_cloud_is_said_to_be_none(session):
    app = web.Application()
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with linked(session, None, where=f"127.0.0.1:{runner.addresses[0][1]}") as link:
        await until(lambda: link.state is LinkState.NO_CLOUD)
        assert link.why == "status 404"
    await runner.cleanup()


async def test_nobody_there_is_unreachable(session, cloud):
    await cloud.stop()
    async with linked(session, cloud) as link:
        await until(lambda: link.state is LinkState.UNREACHABLE)


async def test_anywhere_else_than_on_this_machine_it_is_encrypted(session, monkeypatch):
    called = []

    async def ws_connect(self, url, **how):
        called.append(str(url))
        raise aiohttp.ClientConnectionError

    monkeypatch.setattr(aiohttp.ClientSession, "ws_connect", ws_connect)
    for where in ("cloud.example", "192.0.2.1:8443", "localhost.example", "127.0.0.1:8080", "[::1]:8080", "localhost"):
        async with linked(session, None, where=where) as link:
            await until(lambda: link.why)
    firsts = {url.partition("//")[2]: url.partition(":")[0] for url in called}
    assert firsts == {
        "cloud.example/v1/link": "wss",
        "192.0.2.1:8443/v1/link": "wss",
        "localhost.example/v1/link": "wss",
        "127.0.0.1:8080/v1/link": "ws",
        "[::1]:8080/v1/link": "ws",
        "localhost/v1/link": "ws",
    }


async def test_a_certificate_that_is_not_good_is_said_to_be_so(session, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "_is_here", lambda where: False)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(self_signed(tmp_path / "cloud.pem"))
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    async with linked(session, None, where=f"127.0.0.1:{runner.addresses[0][1]}") as link:
        await until(lambda: link.state is LinkState.CERTIFICATE)
        assert "self-signed" in link.why
    await runner.cleanup()


def self_signed(path):
    key, name = Ed25519PrivateKey.generate(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cloud.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, None)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return path


class KnowsNoName(AbstractResolver):
    """In place of the machine's resolver, which would ask on its network."""

    async def resolve(self, host, port=0, family=0):
        raise OSError("unknown")

    async def close(self): ...


async def test_a_name_that_nobody_knows_is_said_to_be_one():
    connector = aiohttp.TCPConnector(resolver=KnowsNoName())
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        linked(session, None, where="cloud.invalid") as link,
    ):
        await until(lambda: link.why)
        assert (link.state, link.why) == (LinkState.UNREACHABLE, "nobody knows an address of cloud.invalid")


async def test_whoever_leads_it_elsewhere_gets_no_hello_and_no_secret(session, cloud):
    async def elsewhere(request):
        raise web.HTTPFound(f"http://{cloud.host}/v1/link")

    app = web.Application()
    app.router.add_get("/v1/link", elsewhere)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    where = f"127.0.0.1:{runner.addresses[0][1]}"
    async with linked(session, None, where=where) as link:
        await until(lambda: link.state is LinkState.NO_CLOUD)
        assert link.why == "it leads elsewhere (status 302)"
    code = EnrolmentCode(where, bytes(32), os.urandom(16))
    with pytest.raises(NotLinked, match="leads elsewhere"):
        await by_code(cloud, session, code=str(code))
    assert cloud.connections == []
    await runner.cleanup()


# ---- faults of ours ----


async def test_a_fault_of_the_host_does_not_end_the_link_for_good(session, cloud, caplog):
    building = Building()
    building.hello = lambda begin: 1 / 0
    async with linked(session, cloud, building) as link:
        await until(lambda: "fault of this program" in link.why)
        del building.hello
        await until(lambda: link.is_connected)
    assert "ZeroDivisionError" in caplog.text


async def test_a_question_that_a_fault_leaves_unanswered_is_logged_and_the_link_stays(session, cloud, caplog):
    building = Building()
    async with linked(session, cloud, building):
        connection = await cloud.linked()
        building.challenge = None
        await connection.say(type="challenge", id=1, door=DOOR)
        await until(lambda: "left a question of a carrier unanswered" in caplog.text)
        assert (await cloud.unlock("granted"))["word"] == "granted"


async def test_a_link_that_was_ended_is_not_connected(session, cloud):
    async with linked(session, cloud) as link:
        await until(lambda: link.is_connected)
    assert not link.is_connected


async def test_a_hello_with_more_doors_than_it_has_room_for_leaves_some_out(session, cloud):
    name = "Ä" * 60
    building = Building(doors=tuple(LinkedDoor(DOOR, name, "Europe/Berlin", 1.5, 2.5) for _ in range(24)))
    async with linked(session, cloud, building):
        assert 8 < len((await cloud.linked()).hello["doors"]) < 24


async def test_a_driver_does_not_wait_for_a_list(session, cloud):
    building = Building()
    taking = asyncio.Event()

    async def take_issued(text):
        building.lists.append(text)
        await taking.wait()

    building.take_issued = take_issued
    async with linked(session, cloud, building):
        connection = await cloud.linked()
        for number in range(3):
            await connection.say(type="issued", list=str(number))
        await until(lambda: building.lists)
        assert (await cloud.unlock("granted"))["word"] == "granted"
        assert building.lists == ["0"]
        taking.set()
        await until(lambda: building.lists == ["0", "1", "2"])


async def test_no_token_and_no_secret_reaches_the_log(session, cloud, caplog):
    caplog.set_level("DEBUG")
    async with linked(session, cloud) as link:
        await cloud.unlock("a-token-of-a-driver")
        first = await cloud.linked()
        await first.socket.send_str('{"type":"unlock","id":1,"token":"a-token-of-a-driver","more":1}')
        await cloud.linked(2)
        assert "a-token-of-a-driver" not in link.why
    await by_code(cloud, session)
    assert "a-token-of-a-driver" not in caplog.text
    assert b64(cloud.secret) not in caplog.text
    assert "a-token" not in repr(Unlock(1, "a-token"))
    assert "secret" not in repr(Greeting("jwt", b"secret-of-a-code"))


# ---- pauses ----


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_pauses_grow_are_spread_and_have_an_end(monkeypatch, chance):
    monkeypatch.setattr(client, "PAUSES", (1.0, 300.0))
    waits = [pause(LinkState.UNREACHABLE, failures, chance) for failures in range(40)]
    assert waits == sorted(waits)
    assert waits[0] == 1 + 14 * chance
    assert waits[-1] == 1 + 299 * chance


async def test_a_cloud_that_ends_each_link_at_once_is_called_less_and_less(session, cloud, monkeypatch):
    waits = []
    monkeypatch.setattr(client, "pause", lambda state, failures, chance: waits.append(failures) or 0.01)
    cloud.refuse_with = Close.VIOLATION
    async with linked(session, cloud):
        await until(lambda: len(waits) >= 4)
    assert waits[:4] == [0, 1, 2, 3]


async def test_after_a_link_that_stood_it_comes_back_soon(session, cloud, monkeypatch):
    waits = []
    monkeypatch.setattr(standing, "STOOD", 0.0)
    monkeypatch.setattr(client, "pause", lambda state, failures, chance: waits.append(failures) or 0.01)
    async with linked(session, cloud):
        for number in range(1, 4):
            (await cloud.linked(number)).cut()
        await until(lambda: len(waits) >= 3)
    assert set(waits) == {0}


def test_two_copies_do_not_fight_all_day(monkeypatch):
    monkeypatch.setattr(client, "PAUSES", (1.0, 300.0))
    assert pause(LinkState.TAKEN_OVER, 0, 0.0) >= 60


@pytest.mark.parametrize("state", [LinkState.WRONG_ISSUER, LinkState.NOT_ENROLLED, LinkState.CODE_UNUSABLE])
def test_whoever_is_turned_away_asks_once_an_hour(state):
    assert 3600 <= pause(state, 0, 0.5) <= 7200


# ---- enrolment ----


def by_code(cloud, session, *, code=None, hello=None, others=()):
    return enrol(
        session,
        EnrolmentCode.parse(code or cloud.code()),
        KEY,
        hello or Building().hello,
        int(time.time()),
        others,
    )


async def test_a_code_enrols_and_says_whose_cloud_it_is(session, cloud):
    enrolled = await by_code(cloud, session)
    assert (enrolled.issuer, enrolled.name) == (cloud.issuer, "Swift Parcels")
    assert enrolled.root.public == cloud.root.public
    assert [key.kid for key in enrolled.published.trusted] == [cloud.signing.kid]
    assert cloud.connections[0].greeting["secret"] == b64(cloud.secret)


async def test_it_may_be_done_again_with_the_same_code(session, cloud):
    assert (await by_code(cloud, session)).root == (await by_code(cloud, session)).root


async def test_78_a_root_that_the_code_does_not_name_is_not_taken(session, cloud):
    code = cloud.code()
    cloud.root = Key()
    with pytest.raises(KeySetInvalid, match="wrong_root"):
        await by_code(cloud, session, code=code)


async def test_78_a_set_with_another_carrier_s_key_is_not_taken(session, cloud):
    with pytest.raises(KeySetInvalid, match="anothers_key"):
        await by_code(cloud, session, others={cloud.signing.kid})


async def test_78_a_cloud_that_says_it_is_another_one_than_its_set_is_not_taken(session, cloud):
    cloud.text = cloud.key_set(iss="https://other.example")
    with pytest.raises(KeySetInvalid, match="wrong_issuer"):
        await by_code(cloud, session)


async def test_36_a_set_that_an_online_key_signed_is_not_taken(session, cloud):
    cloud.text = cloud.key_set(by=cloud.signing)
    with pytest.raises(KeySetInvalid, match="wrong_root"):
        await by_code(cloud, session)


async def test_whatever_the_form_finds_wrong_with_the_issuer_ends_it(session, cloud):
    with pytest.raises(WrongIssuer):
        await by_code(cloud, session, hello=Building("https://mine.example").hello)
    assert cloud.connections == []


async def test_a_code_that_was_used_by_another_one_is_said_to_be_unusable(session, cloud):
    cloud.refuse_with = Close.CODE_UNUSABLE
    with pytest.raises(NotLinked) as refused:
        await by_code(cloud, session)
    assert refused.value.state is LinkState.CODE_UNUSABLE


def test_what_is_logged_and_shown_holds_no_secret():
    code = EnrolmentCode("cloud.example", os.urandom(32), os.urandom(16))
    assert b64(code.secret) not in repr(code)
