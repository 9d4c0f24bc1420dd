"""The gateway from its configuration to its relay: as a process, over the network, through kills and restarts."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from gateway import systemd
from gateway.app import Gateway, at_work
from gateway.config import read_config
from gateway.relay.memory import MemoryBoard
from tests.gateway.process import Command, command, gateway_process, write_config
from tests.simulated import Carrier
from vestibule_core.api.client import GatewayClient, Paired, pair
from vestibule_core.api.messages import Operation
from vestibule_core.api.policy import Policy
from vestibule_core.erasure import DAY
from vestibule_core.errors import GatewayForbidden, StoreFailed
from vestibule_core.journal import Spend
from vestibule_core.model import AccessEvent, Actor, Code, DoorMode, EventName, Issuer, Means, Sense, Word

ANN = Actor("1", "Ann", is_admin=True)


async def carrier_of(client: GatewayClient) -> Carrier:
    """A carrier that may enter at every door of a gateway."""
    return Carrier(doors=[each.door for each in (await client.doors()).doors])


async def token_for(client: GatewayClient, carrier: Carrier, door: int = 0) -> str:
    door_id = carrier.doors[door].id
    challenge = await client.challenge(door_id, carrier.issuer)
    return carrier.token(challenge.nonce, aud=door_id)


# ---- one way through everything ----


async def test_a_paired_client_brings_a_policy_and_a_driver_is_let_in_once(tmp_path, session):
    """Then the power fails: nothing moves at the next start, and the token stays spent."""
    config = write_config(tmp_path)
    async with gateway_process(config) as gateway:
        paired = await gateway.pair(session)
        client = gateway.client(session, paired)
        carrier = await carrier_of(client)
        taken = await client.put_policy(0, Policy("Europe/Berlin", (carrier.admitted,)))
        assert taken.pending
        assert await gateway.command("approve") == (0, "waits     Parcels: a new carrier\napproved: it holds now\n")
        token = await token_for(client, carrier)
        assert (await client.unlock(carrier.doors[0].id, token)).word is Word.GRANTED
        await gateway.moved("1 off")
        assert gateway.movements == ["1 on", "1 off"]
        unfinished = await token_for(client, carrier, 1)
        await gateway.kill()
    async with gateway_process(config) as again:
        answer = await client.unlock(carrier.doors[0].id, token)
        assert (answer.word, answer.code) == (Word.ALREADY_USED, "ALREADY_SPENT")
        answer = await client.unlock(carrier.doors[1].id, unfinished)
        assert (answer.word, answer.code) == (Word.REFUSED, "NONCE_UNKNOWN")
        assert again.movements == ["1 on", "1 off"]
        assert (await client.unlock(carrier.doors[0].id, await token_for(client, carrier))).word is Word.GRANTED


async def test_a_kill_in_the_middle_of_a_release_moves_nothing_at_the_next_start(tmp_path, session):
    """A board that does not time its own releases would stay released: that one is ended, and nothing else moves."""
    config = write_config(tmp_path, more='[board.untimed]\nkind = "memory"\ntimed = false\nlog = "untimed.log"\n')
    config.write_text(config.read_text().replace('board = "b", channel = 1', 'board = "untimed", channel = 1'))
    log = tmp_path / "untimed.log"
    async with gateway_process(config) as gateway:
        client = gateway.client(session, await gateway.pair(session, "--trust"))
        carrier = await carrier_of(client)
        await client.put_policy(0, Policy("UTC", (carrier.admitted,)))
        assert (await client.unlock(carrier.doors[0].id, await token_for(client, carrier))).word is Word.GRANTED
        await gateway.kill()
    assert [line.split()[:2] for line in log.read_text().splitlines()] == [["1", "on"]]
    async with gateway_process(config) as again:
        assert again.movements == []
        events = await client.events(0)
        assert [event.outcome for event in events.events].count(EventName.ACCESS_GRANTED) == 1
    assert [line.split()[1] for line in log.read_text().splitlines()].count("on") == 1


async def test_who_was_paired_as_trusted_does_not_wait(tmp_path, session):
    async with gateway_process(write_config(tmp_path)) as gateway:
        client = gateway.client(session, await gateway.pair(session, "--trust"))
        carrier = await carrier_of(client)
        assert not (await client.put_policy(0, Policy("UTC", (carrier.admitted,)))).pending
        assert (await client.unlock(carrier.doors[1].id, await token_for(client, carrier, 1))).word is Word.GRANTED
        assert gateway.movements[0] == "2 on"


async def test_a_gateway_that_is_not_paired_opens_nothing(tmp_path, session):
    async with gateway_process(write_config(tmp_path)) as gateway:
        url = f"https://127.0.0.1:{gateway.port}/v1"
        async with session.get(f"{url}/info", ssl=False) as info:
            assert (info.status, (await info.json())["pair"]) == (200, False)
        async with session.post(f"{url}/pair", ssl=False, data=b"x" * 60) as pairing:
            assert pairing.status == 404
        async with session.post(f"{url}/doors/x/unlock", ssl=False, json={"token": "x"}) as unlock:
            assert unlock.status == 401
        assert gateway.movements == []


async def test_replacing_removes_every_other_client_at_once(tmp_path, session):
    async with gateway_process(write_config(tmp_path)) as gateway:
        old = gateway.client(session, await gateway.pair(session))
        await old.doors()
        new = gateway.client(session, await gateway.pair(session, "--replace", name="Another Home Assistant"))
        with pytest.raises(GatewayForbidden):
            await old.doors()
        assert [client.name for client in await new.clients()] == ["Another Home Assistant"]


async def test_the_next_certificate_is_known_before_it_is_used(tmp_path, session):
    """A client that was told of it goes on after the switch, one that was not sees an impostor."""
    config = write_config(tmp_path)
    async with gateway_process(config) as gateway:
        paired = await gateway.pair(session)
        client = gateway.client(session, paired)
        status, said = await gateway.command("keys", "next")
        assert status == 0
        announced = bytes.fromhex(said.split()[2])
        stream = client.stream(0)
        hello = await anext(stream)
        await stream.aclose()
        assert hello.next is not None
        assert hello.next.fingerprint == announced != paired.fingerprint
        assert (await gateway.command("keys", "switch"))[0] == 0
        await client.doors()  # not before the next start
    async with gateway_process(config) as again:
        both = GatewayClient(session, "127.0.0.1", again.port, paired.token, [paired.fingerprint, announced])
        await both.doors()
        assert both.fingerprint == announced


async def test_it_is_ready_in_less_than_two_seconds(tmp_path):
    """With an empty state: keys, certificate and journal are made on the way. The best of three on a busy machine."""
    took = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        config, began = write_config(folder), time.monotonic()
        async with gateway_process(config):
            took.append(time.monotonic() - began)
    assert min(took) < 2, took


async def test_the_state_is_its_own_alone(tmp_path):
    config = write_config(tmp_path)
    async with gateway_process(config):
        (second,) = [await Command.start("run", "--config", config)]
        assert await second.ends() == 2
        assert "is in use by another gateway: stop that one first" in second.said
        state = tmp_path / "state"
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        others = [path.name for path in state.iterdir() if stat.S_IMODE(path.stat().st_mode) & 0o077]
        assert others == []


async def test_a_port_that_is_taken_is_named(tmp_path):
    config = write_config(tmp_path)
    port = int(re.search(r"^port = (\d+)$", config.read_text(), re.MULTILINE)[1])
    with socket.create_server(("127.0.0.1", port)):
        status, said = await command("run", "--config", config)
    assert status == 2
    assert f"port {port} cannot be listened at: " in said


async def test_no_secret_is_logged(tmp_path, session):
    config = write_config(tmp_path)
    async with gateway_process(config) as gateway:
        window = await Command.start("pair", "--config", config)
        code = (await window.until("code")).split()[-1]
        window.process.kill()
        await window.ends()
        paired = await gateway.pair(session, "--trust")
        client = gateway.client(session, paired)
        carrier = await carrier_of(client)
        await client.put_policy(0, Policy("UTC", (carrier.admitted,)))
        token = await token_for(client, carrier)
        await client.unlock(carrier.doors[0].id, token)
        await client.operate(carrier.doors[0].id, Operation.ACCESS, ANN)
    said = gateway.running.said
    assert "info access_granted " in said
    for secret in (code, code.replace("-", ""), paired.token, token, "Ann", "driver-"):
        assert secret not in said


async def test_who_it_was_is_forgotten_after_the_time_that_the_configuration_allows(tmp_path):
    """What happened stays. At the start, before anything is shown."""
    config = write_config(tmp_path)
    config.write_text("persons_kept = 90\n" + config.read_text())
    long_ago = time.time() - 60 * DAY
    async with at_work(read_config(config)) as gateway:
        event = AccessEvent(EventName.DOOR_BLOCKED, next(iter(gateway.doorways)), long_ago, means=Means.MANUAL)
        await gateway.journal.append(event, {"user_id": "1", "user": "Ann"})

    async def person() -> bool:
        async with at_work(read_config(config)) as gateway:
            (entry,) = await gateway.journal.newest_entries(None, 10)
            return entry.person is not None

    assert await person()
    config.write_text(config.read_text().replace("persons_kept = 90", "persons_kept = 30"))
    assert not await person()


async def test_a_policy_that_cannot_be_read_keeps_the_gateway_shut(tmp_path):
    """Written by a newer version, say. It is not taken for an empty one, which would be overwritten."""
    config = write_config(tmp_path)
    async with at_work(read_config(config)) as gateway:
        await gateway.journal.note({"policy": '{"version": 1, "from the future": []}'})
    status, said = await command("run", "--config", config)
    assert status == 2
    assert "has noted of clients, policy, carriers or witnesses cannot be read" in said
    assert "use the version of vestibule-gateway that wrote it" in said


# ---- systemd ----


async def test_systemd_hears_when_it_is_ready_that_it_works_and_that_it_stops(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        hears = asyncio.get_running_loop().sock_recv
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        config = write_config(tmp_path)
        async with gateway_process(config, env), asyncio.timeout(10):
            assert [await hears(listening, 100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        async with asyncio.timeout(10):
            while (heard := await hears(listening, 100)) == b"WATCHDOG=1":
                pass
        assert heard == b"STOPPING=1"


def test_systemd_that_does_not_read_holds_nothing_up(tmp_path, monkeypatch):
    """Whoever tells it is the event loop: a door would wait."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        told = threading.Thread(target=lambda: [systemd.tell("WATCHDOG=1") for _ in range(1000)], daemon=True)
        told.start()
        told.join(10)
        assert not told.is_alive()


# ---- in this process, with hands on the board ----

MORE = """
[button]
board = "b"
input = 7
[fire]
board = "b"
input = 8
"""
ON_FIRE = 'on_power_loss = "fail_safe"\nrelease_on_fire = true\n'


@asynccontextmanager
async def at_hand(folder: Path, more: str = MORE, *, fire: bool = True) -> AsyncGenerator[tuple[Gateway, MemoryBoard]]:
    """A gateway in this process whose yard opens on fire, and its board."""
    path = write_config(folder, (ON_FIRE if fire else "") + more)
    async with at_work(read_config(path)) as gateway:
        board = gateway.boards["b"]
        assert isinstance(board, MemoryBoard)
        yield gateway, board


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - whatever it looks at, it has no event
            await asyncio.sleep(0.01)


async def test_fire_holds_the_doors_open_that_are_to_be_until_a_person_ends_it(tmp_path):
    async with at_hand(tmp_path) as (gateway, board):
        gate, yard = gateway.doorways.values()
        board.sense(8, Sense.ACTIVE)
        await until(lambda: board.channel(2).is_on)
        await until(lambda: yard.state.mode is DoorMode.UNLOCKED)
        board.sense(8, Sense.INACTIVE)
        await asyncio.sleep(0.1)
        assert (board.channel(1).is_on, board.channel(2).is_on) == (False, True)
        assert (await gateway.controller.by_hand.set_mode(yard.id, DoorMode.NORMAL, ANN)).code is Code.GRANTED
        assert not board.channel(2).is_on
        await gateway.controller.recorded()
        assert gate.state.mode is DoorMode.NORMAL
        entries = await gateway.journal.newest_entries(yard.id, 10)
        (held,) = [entry for entry in entries if entry.leaf.kind == EventName.DOOR_UNLOCKED]
        assert held.person.read()["user"] == "fire"


async def test_fire_when_the_gateway_starts_moves_nothing(tmp_path):
    """Nothing moves at a start; a line that is broken from the beginning opens no door."""
    more = MORE.replace("input = 8", "input = 8\ninverted = true")
    async with at_hand(tmp_path, more) as (_, board):
        await asyncio.sleep(0.2)
        assert not board.channel(2).is_on
        board.sense(8, Sense.ACTIVE)
        board.cut_power()
        board.restore_power()
        await asyncio.sleep(0.1)
        assert not board.channel(2).is_on
        board.sense(8, Sense.INACTIVE)
        await until(lambda: board.channel(2).is_on)


async def test_the_button_lets_what_waits_hold(tmp_path, session):
    async with at_hand(tmp_path) as (gateway, board):
        paired = await pair_here(gateway, session)
        client = GatewayClient(session, "127.0.0.1", gateway.port, paired.token, [paired.fingerprint])
        carrier = await carrier_of(client)
        assert (await client.put_policy(0, Policy("UTC", (carrier.admitted,)))).pending
        board.sense(7, Sense.ACTIVE)
        await until(lambda: gateway.policy.pending is None)
        assert carrier.issuer in gateway.controller.building.carriers


async def pair_here(gateway: Gateway, session: aiohttp.ClientSession) -> Paired:
    code = gateway.window.open(replaces=False, trusts=False)
    return await pair(session, "127.0.0.1", gateway.port, code, "Home Assistant")


async def test_outputs_are_at_their_locked_level_after_a_stop(tmp_path):
    async with at_hand(tmp_path) as (gateway, board):
        _, yard = gateway.doorways.values()
        assert (await gateway.controller.by_hand.set_mode(yard.id, DoorMode.UNLOCKED, ANN)).granted
        assert board.channel(2).is_on
    assert not board.channel(2).is_on


async def test_boards_are_let_go_of_all_at_once(tmp_path, monkeypatch):
    """Each that is dead takes its time, and systemd waits for half a minute; the journal is closed last."""
    stop, stopping = MemoryBoard.stop, asyncio.Barrier(3)

    async def together(board):
        async with asyncio.timeout(3):
            await stopping.wait()
        await stop(board)

    monkeypatch.setattr(MemoryBoard, "stop", together)
    more = '[board.c]\nkind = "memory"\n[board.d]\nkind = "memory"\n'
    async with at_hand(tmp_path, more, fire=False):
        pass


async def test_what_sensors_say_reaches_the_door(tmp_path):
    more = (
        'contact = { board = "b", input = 1 }\nheld_open_time = 1\nrex = { board = "b", input = 2, inverted = true }\n'
    )
    async with at_hand(tmp_path, more, fire=False) as (gateway, board):
        _, yard = gateway.doorways.values()
        await until(lambda: yard.state.contact is Sense.INACTIVE and yard.state.rex is Sense.ACTIVE)
        board.sense(2, Sense.ACTIVE)
        board.sense(1, Sense.ACTIVE)
        await until(lambda: yard.state.contact is Sense.ACTIVE and yard.state.rex is Sense.INACTIVE)
        board.cut_power()
        await until(lambda: yard.state.contact is Sense.FAULT)
        assert not yard.described.reachable


async def test_a_journal_that_stands_still_is_not_called_alive(tmp_path, monkeypatch):
    """The watchdog then ends the process; a journal that has failed is an answer, and no reason to restart."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        hears = asyncio.get_running_loop().sock_recv
        async with at_hand(tmp_path) as (gateway, _), asyncio.timeout(20):
            assert await hears(listening, 100) == b"WATCHDOG=1"
            stands_still, goes_on = threading.Event(), threading.Event()

            def stand_still() -> None:
                stands_still.set()
                goes_on.wait(10)

            def fail() -> None:
                raise sqlite3.OperationalError("disk I/O error")

            door = next(iter(gateway.doorways))
            spend = Spend(Issuer("https://x.example"), "j", door, "n")
            event = AccessEvent(EventName.ACCESS_GRANTED, door, time.time(), Code.GRANTED)
            stalled = gateway.journal.spend(spend, event, {}, check_again=stand_still, spent=lambda: None, notes={})
            await asyncio.to_thread(stands_still.wait, 10)
            await asyncio.sleep(0.3)
            while True:  # what was said before
                try:
                    listening.recv(100)
                except BlockingIOError:
                    break
            await asyncio.sleep(0.5)
            with pytest.raises(BlockingIOError):
                listening.recv(100)
            goes_on.set()
            await stalled
            assert await hears(listening, 100) == b"WATCHDOG=1"
            with pytest.raises(StoreFailed):
                await gateway.journal.spend(spend, event, {}, check_again=fail, spent=lambda: None, notes={})
            assert gateway.journal.failed
            assert await hears(listening, 100) == b"WATCHDOG=1"
