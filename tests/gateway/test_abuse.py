"""Who only wants to be in the way: floods, bodies without an end, connections that do nothing."""

import asyncio
import contextlib
import errno
import gc
import socket
import ssl
from asyncio import sslproto

import pytest

from gateway import limits
from gateway.limits import Guest, Listener, Places, Rates, _everywhere, network
from tests.gateway.at_work import Gateway, put_request, raw_connection
from tests.simulated import Carrier

NOW = 5000.0


# ---- what counts as one ----


@pytest.mark.parametrize(
    "host, counts_as",
    [
        ("192.168.1.7", "192.168.1.7"),
        ("::ffff:192.168.1.7", "192.168.1.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        (None, ""),
        ("somewhere", ""),
    ],
)
def test_of_ipv6_a_64_counts_as_one_address(host, counts_as):
    assert network(host) == counts_as


def test_strangers_have_to_wait_each_for_himself():
    rates = Rates()
    asked = [rates.stranger_may("10.0.0.1", NOW) for _ in range(100)]
    assert asked.count(True) == limits.STRANGER_BURST
    assert rates.stranger_may("10.0.0.2", NOW)
    assert rates.stranger_may("10.0.0.1", NOW + 1)


def test_one_machine_with_a_whole_64_is_one_stranger():
    rates = Rates()
    asked = [rates.stranger_may(f"2001:db8::{number:x}", NOW) for number in range(1000)]
    assert asked.count(True) == limits.STRANGER_BURST


def test_addresses_are_remembered_within_bounds():
    rates = Rates()
    for number in range(3 * limits.ADDRESSES):
        rates.stranger_may(f"2001:db8:0:{number:x}::1", NOW)
    assert len(rates._strangers) == limits.ADDRESSES


def test_a_client_has_more_than_all_carriers_need_and_not_without_end():
    rates = Rates()
    asked = [rates.client_may("a", NOW) for _ in range(1000)]
    assert asked.count(True) == limits.CLIENT_BURST
    assert rates.client_may("b", NOW)
    assert rates.client_may("a", NOW + 1)


# ---- places ----


class Visitors:
    def __init__(self):
        self.places, self.ended, self.now = Places(), [], NOW

    def come(self, host, name, *, known=False):
        guest = Guest(host, lambda: self.ended.append(name))
        if not self.places.take(guest, self.now):
            return None
        if known:
            self.places.recognise(guest)
        return guest


@pytest.fixture
def visitors(monkeypatch):
    """Few places: five in all, three for one address, two of those for strangers."""
    monkeypatch.setattr(limits, "CONNECTIONS", 5)
    monkeypatch.setattr(limits, "OF_ONE_ADDRESS", 3)
    monkeypatch.setattr(limits, "STRANGERS", 2)
    return Visitors()


def test_of_one_address_the_oldest_stranger_gives_way(visitors):
    for name in "abc":
        assert visitors.come("10.0.0.1", name)
    assert visitors.ended == ["a"]
    assert len(visitors.places) == 2


def test_a_client_gives_way_to_nobody(visitors):
    for name in "abc":
        assert visitors.come("10.0.0.1", name, known=True)
    assert visitors.come("10.0.0.1", "d") is None
    for name in "ef":
        assert visitors.come("10.0.0.2", name, known=True)
    assert visitors.come("10.0.0.3", "g") is None
    assert visitors.ended == []


def test_who_has_shown_a_bearer_is_no_stranger_any_more(visitors):
    first = visitors.come("10.0.0.1", "a")
    visitors.come("10.0.0.1", "b")
    visitors.places.recognise(first)
    assert visitors.come("10.0.0.1", "c")
    assert visitors.ended == []
    assert visitors.come("10.0.0.1", "d")
    assert visitors.ended == ["b"]


def test_when_all_places_are_taken_the_oldest_stranger_of_all_gives_way(visitors):
    for number, name in enumerate("abcde"):
        assert visitors.come(f"10.0.0.{number}", name, known=name == "a")
    assert visitors.come("10.0.0.9", "f")
    assert visitors.ended == ["b"]


def test_who_leaves_makes_room_and_leaves_once(visitors):
    one = visitors.come("10.0.0.1", "a")
    visitors.come("10.0.0.1", "b")
    visitors.places.leave(one)
    visitors.places.leave(one)
    assert visitors.come("10.0.0.1", "c")
    assert visitors.ended == []
    assert len(visitors.places) == 2


def test_an_address_connects_so_often_and_no_oftener(visitors):
    """A handshake costs more than an answer. Whoever is told to go is gone before it."""

    def come(host):
        if (guest := visitors.come(host, "")) is not None:
            visitors.places.leave(guest)
        return guest is not None

    came = [come("10.0.0.1") for _ in range(1000)]
    assert came == [True] * limits.ARRIVALS + [False] * (1000 - limits.ARRIVALS)
    assert come("10.0.0.2"), "another has not to wait for that"
    visitors.now += 3 / limits.ARRIVALS_PER_SECOND
    assert [come("10.0.0.1") for _ in range(4)] == [True, True, True, False]


def test_where_a_client_has_come_from_connects_as_often_as_it_wants(visitors):
    """It has no other way than a new connection, if its network was away for a moment."""
    client = visitors.come("10.0.0.1", "client", known=True)
    for _ in range(3 * limits.ARRIVALS):
        again = visitors.come("10.0.0.1", "again")
        assert again is not None
        visitors.places.leave(again)
    visitors.places.leave(client)
    assert visitors.come("10.0.0.1", "later"), "also when it has gone"


def test_as_many_addresses_are_remembered_as_there_is_room_for(visitors):
    for number in range(2 * limits.ADDRESSES):
        visitors.places.leave(visitors.come(f"10.1.{number // 250}.{number % 250}", "client", known=True))
    assert len(visitors.places._homes) == limits.ADDRESSES
    assert visitors.come("10.1.7.249", "the latest")
    assert "10.1.7.249" in visitors.places._homes
    assert "10.1.0.0" not in visitors.places._homes


async def test_a_connection_that_has_gone_leaves_nothing_behind(gateway, admin):
    """Thousands come and go in a flood. If each waited for Python to look for cycles, they would take all memory."""

    def left():
        return sum(isinstance(one, sslproto.SSLProtocol) and one._server_side for one in gc.get_objects())

    stranger = {"source": "127.0.1.1"}
    gc.collect()
    gc.disable()
    try:
        before = left()
        for number in range(40):
            async with raw_connection(gateway, **stranger, handshake=number % 2 == 0) as (reader, writer):
                if number % 4 == 0:
                    writer.write(b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    await reader.readline()
                elif number % 4 == 1:
                    writer.write(b"no TLS")
                    await until_closed(reader)
        await eventually(lambda: len(gateway.front.listener.places) <= 1)
        await eventually(lambda: left() <= before)
    finally:
        gc.enable()


async def test_where_hundreds_connect_at_once_what_is_served_has_its_turn_in_between(gateway):
    """One is accepted in each turn of the event loop, however many wait for that."""
    turns, waiting = 0, []
    for number in range(100):
        waiting.append(sock := socket.socket())
        sock.bind((f"127.0.1.{1 + number % 4}", 0))
        sock.connect(("127.0.0.1", gateway.front.port))  # the kernel's backlog takes it; the loop stands still

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await eventually(lambda: len(gateway.front.listener.places) == 100)
    counting.cancel()
    for sock in waiting:
        sock.close()
    assert turns >= 100


# ---- floods ----


async def test_a_stranger_who_asks_and_asks_has_to_wait_and_a_client_beside_him_has_not(gateway, admin):
    stranger = gateway.caller()
    asked = [
        (await stranger.get("/v1/doors", headers={"Authorization": "Bearer " + "A" * 43})).status for _ in range(60)
    ]
    assert asked[0] == 401
    assert asked[-1] == 429
    assert asked.count(401) <= limits.STRANGER_BURST
    turned_away = await stranger.get("/v1/info")
    assert (turned_away.status, turned_away.json) == (429, {"error": "too_many_requests"})
    assert turned_away.headers["Retry-After"] == "1"
    assert turned_away.headers["Connection"] == "close"
    assert (await admin.get("/v1/doors")).status == 200
    gateway.pass_time(60)
    assert (await stranger.get("/v1/info")).status == 200


async def test_a_client_that_asks_and_asks_has_to_wait_and_another_has_not(gateway, admin, monkeypatch):
    panel = await gateway.pair("Panel")
    asked = [(await panel.get("/v1/doors")).status for _ in range(int(limits.CLIENT_BURST) + 5)]
    assert asked.count(200) == limits.CLIENT_BURST
    assert asked[-1] == 429
    assert (await admin.get("/v1/doors")).status == 200


async def test_rubbish_from_one_source_keeps_no_good_token_out(gateway, admin):
    a, b = Carrier("A Parcels"), Carrier("B Parcels")
    await gateway.allow(admin, a, b)
    good = b.token(await admin.challenge(gateway.door, b))
    codes = [(await admin.unlock(gateway.door, f"rubbish {number}", iss=a.issuer)).status for number in range(40)]
    assert codes[0] == 200
    assert codes[-1] == 429
    assert await admin.code(gateway.door, good, iss=b.issuer) == "GRANTED"


# ---- bodies ----


async def test_a_body_that_is_too_large_is_not_read(gateway, admin):
    for size in (9 * 1024, 1_000_000):
        said = await admin.post(f"/v1/doors/{gateway.door.id}/unlock", b"x" * size)
        assert (said.status, said.json) == (413, {"error": "too_large"})
        assert said.headers["Connection"] == "close"
    assert (await admin.post(f"/v1/doors/{gateway.door.id}/unlock", b"x" * 8192)).status == 400
    assert (await admin.put("/v1/policy", b"x" * 65537)).status == 413
    assert (await admin.put("/v1/policy", b"x" * 65536)).status == 400
    assert (await gateway.caller().post("/v1/pair", b"x" * 1025)).status == 413


async def test_nor_is_the_one_of_a_stranger_at_all(gateway):
    async with raw_connection(gateway) as (reader, writer):
        writer.write(b"PUT /v1/policy HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"401"


async def test_chunks_without_an_end_are_cut_off(gateway, admin, monkeypatch):
    monkeypatch.setattr(limits, "LINGER", 0.1)
    async with raw_connection(gateway) as (reader, writer):
        head = f"PUT /v1/policy HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {admin.token}\r\n"
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        sent = 0
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                while not reader.at_eof():
                    writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
                    await writer.drain()
                    sent += 1024
        with contextlib.suppress(ConnectionError):
            assert (await reader.read(12)) in (b"HTTP/1.1 413", b"")
    assert (await admin.get("/v1/doors")).status == 200


async def test_chunks_that_come_drop_by_drop_are_not_waited_for(gateway, admin, monkeypatch):
    monkeypatch.setattr("vestibule_core.api.body.DEADLINE", 0.3)
    monkeypatch.setattr(limits, "LINGER", 0.1)
    async with raw_connection(gateway) as (reader, writer):
        head = f"PUT /v1/policy HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {admin.token}\r\n"
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        dripping = asyncio.create_task(drip(writer, b"1\r\nx\r\n"))
        async with asyncio.timeout(5):
            assert (await reader.readline()).split()[1] == b"408"
            await until_closed(reader)
        dripping.cancel()


async def drip(writer, piece):
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)


async def until_closed(reader):
    with contextlib.suppress(ConnectionError):
        while await reader.read(4096):
            pass


async def test_chunks_that_are_none_are_turned_away(gateway, admin, monkeypatch):
    monkeypatch.setattr("vestibule_core.api.body.DEADLINE", 0.3)
    async with raw_connection(gateway) as (reader, writer):
        head = f"PUT /v1/policy HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {admin.token}\r\n"
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"no number\r\nx\r\n")
        assert (await reader.readline()).split()[1] in (b"400", b"408")


async def test_who_goes_away_in_the_middle_of_a_body_is_in_no_log(gateway, caplog):
    """A stranger could fill it with that."""
    for kind in ("Content-Length: 96", "Transfer-Encoding: chunked"):
        async with raw_connection(gateway) as (_, writer):
            writer.write(f"POST /v1/pair HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n\r\n1".encode())
            await writer.drain()
            await asyncio.sleep(0.05)
    await eventually(lambda: len(gateway.front.listener.places) == 0)
    await asyncio.sleep(0.05)
    assert caplog.records == []


async def test_what_is_compressed_stays_so(gateway, admin):
    """A small body that becomes a large one."""
    import zlib

    bomb = zlib.compress(b'{"a":' + b" " * 8_000_000)
    assert len(bomb) < 8192
    said = await admin.put("/v1/lockdown", bomb, headers={"Content-Encoding": "deflate"})
    assert said.status == 400


# ---- connections ----


@pytest.mark.parametrize("stage", ["nothing", "half a handshake", "half a head", "a bearer and half a head"])
async def test_a_connection_on_which_nothing_comes_is_ended(tmp_path, monkeypatch, stage):
    monkeypatch.setattr(limits, "HANDSHAKE", 0.3)
    monkeypatch.setattr(limits, "IDLE", 0.3)
    async with Gateway(tmp_path) as gateway:
        admin = await gateway.pair()
        handshake = "head" in stage
        async with raw_connection(gateway, handshake=handshake) as (reader, writer):
            if stage == "half a handshake":
                writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            if handshake:
                writer.write(b"GET /v1/doors HTTP/1.1\r\nHost: localhost\r\n")
            if "bearer" in stage:
                writer.write(f"Authorization: Bearer {admin.token}\r\n".encode())
            dripping = asyncio.create_task(drip(writer, b"X-Y: z\r\n")) if handshake else None
            async with asyncio.timeout(5):
                await until_closed(reader)
            if dripping is not None:
                dripping.cancel()
        await eventually(lambda: len(gateway.front.listener.places) <= 2)


async def eventually(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_who_speaks_no_tls_takes_no_place(gateway):
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"\x16\x03\x01\xff\xff" + bytes(50)):
        async with raw_connection(gateway, handshake=False) as (reader, writer):
            writer.write(nonsense)
            async with asyncio.timeout(5):
                await until_closed(reader)
    await eventually(lambda: len(gateway.front.listener.places) == 0)
    async with raw_connection(gateway, handshake=False):
        await eventually(lambda: len(gateway.front.listener.places) == 1)
    await eventually(lambda: len(gateway.front.listener.places) == 0)


async def test_many_addresses_cannot_take_all_places_from_clients(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "CONNECTIONS", 20)
    async with Gateway(tmp_path) as gateway, contextlib.AsyncExitStack() as stack:
        admin = await gateway.pair()
        async with admin.stream() as frames:
            await frames.next()
            for number in range(60):
                await stack.enter_async_context(
                    raw_connection(gateway, source=f"127.0.1.{number}", handshake=number % 2 == 0)
                )
            assert len(gateway.front.listener.places) <= 20
            assert (await admin.get("/v1/doors")).status == 200
            await admin.operate(gateway.door, "access")
            await frames.event("access_granted")
        assert (await gateway.caller().get("/v1/info")).status == 200


async def test_a_machine_without_room_for_another_connection_takes_the_next_one_later(gateway, monkeypatch, caplog):
    monkeypatch.setattr(limits, "NO_ROOM", 0.05)
    loop = asyncio.get_running_loop()
    accept, fails = loop.sock_accept, [OSError(24, "Too many open files"), ConnectionAbortedError()]

    async def failing(listening):
        if fails:
            raise fails.pop(0)
        return await accept(listening)

    monkeypatch.setattr(loop, "sock_accept", failing)
    for _ in range(3):
        assert (await gateway.caller().get("/v1/info")).status == 200
    assert fails == []
    assert "No connection can be taken: Too many open files" in caplog.text
    caplog.clear()


async def test_it_listens_where_it_is_told_to(tmp_path):
    async with Gateway(tmp_path, host="127.0.0.2") as gateway:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", gateway.front.port)
        _, writer = await asyncio.open_connection("127.0.0.2", gateway.front.port)
        writer.close()
        await writer.wait_closed()


async def test_at_an_address_that_is_not_there_it_does_not_begin(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listener = Listener(None, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        for host, port in (("127.0.0.1", taken.getsockname()[1]), ("203.0.113.1", 0)):
            with pytest.raises(OSError):  # noqa: PT011
                await listener.listen(host, port)
        await listener.close()


@pytest.mark.parametrize("is_on", [True, False], ids=["with IPv6", "without"])
async def test_without_an_address_it_listens_at_all(tmp_path, monkeypatch, is_on):
    create = socket.create_server

    def create_server(place, *, family=socket.AF_INET, **kind):
        if family is socket.AF_INET6 and not is_on:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return create(("::1" if family is socket.AF_INET6 else "127.0.0.1", place[1]), family=family, backlog=10)

    monkeypatch.setattr(socket, "create_server", create_server)  # so that it is the loopback's
    async with Gateway(tmp_path, host="") as gateway:
        _, writer = await asyncio.open_connection("::1" if is_on else "127.0.0.1", gateway.front.port)
        writer.close()
        await writer.wait_closed()
    monkeypatch.undo()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError):  # noqa: PT011
        _everywhere(taken.getsockname()[1])


async def test_an_attacker_who_pairs_and_pairs_gets_one_try_a_second(gateway):
    gateway.window.open(replaces=False, trusts=False)
    stranger = gateway.caller()
    asked = [(await stranger.post("/v1/pair", bytes(96))).status for _ in range(10)]
    assert asked == [403] + [429] * 9


async def test_a_policy_of_the_largest_size_is_taken(gateway, admin):
    carriers = [Carrier(f"Carrier {number}", gateway.all_doors) for number in range(60)]
    body = put_request(0, carriers)
    said = await admin.put("/v1/policy", body)
    assert said.status == 200, said
