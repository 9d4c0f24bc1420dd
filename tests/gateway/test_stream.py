"""Who follows a gateway: every event once and in order, and how everything is; nobody is waited for."""

import asyncio
import json

import aiohttp
import pytest

from gateway import stream, view
from gateway.policy import approve
from gateway.stream import OF_ONE_CLIENT
from tests.gateway.at_work import ANN, BOB, Disk, Gateway, raw_connection
from vestibule_core.api import messages
from vestibule_core.erasure import LEAVES_KEPT, Due
from vestibule_core.errors import StoreFailed
from vestibule_core.model import AccessEvent, EventName


async def happen(gateway, times=1):
    """Let something happen at the first door, in one commit or a few."""
    at = gateway.clock().wall
    events = (AccessEvent(outcome=EventName.DOOR_OPENED, door=gateway.door.id, at=at) for _ in range(times))
    await asyncio.gather(*[gateway.journal.append(event) for event in events])


async def follow(frames, last):
    """Read until event ``last``; return the numbers of all events since the beginning."""
    await frames.until(lambda frame: frame["type"] == "event" and frame["event"]["seq"] == last)
    return frames.numbers


# ---- events ----


async def test_it_begins_with_how_everything_is(gateway, admin):
    async with admin.stream() as frames:
        hello = await frames.next()
    doors = (await admin.get("/v1/doors")).json
    assert hello == {
        "type": "hello",
        "id": gateway.id,
        "name": "Parcel room",
        "version": "0.0",
        "policy": {"version": 0, "pending": False},
        "next": None,
        **doors,
    }


async def test_then_come_all_events_after_the_number_that_was_named_and_those_that_happen(gateway, admin):
    await happen(gateway, 30)
    async with admin.stream(after=10) as frames:
        assert (await frames.next())["newest"] == 31
        assert await follow(frames, 31) == list(range(11, 32))
        await happen(gateway, 3)
        assert await follow(frames, 34) == list(range(11, 35))


async def test_no_gap_and_no_repeat_while_things_happen_during_the_catching_up(gateway, admin):
    await happen(gateway, 500)
    going_on = True

    async def go_on():
        while going_on:
            await happen(gateway)

    happening = asyncio.create_task(go_on())
    async with admin.stream(after=3) as one, admin.stream(after=450) as other:
        for frames in (one, other):
            await frames.until(lambda frame: frame["type"] == "event" and frame["event"]["seq"] > 700)
        going_on = False
        await happening
        last = gateway.journal.sequence
        assert await follow(one, last) == list(range(4, last + 1))
        assert await follow(other, last) == list(range(451, last + 1))


async def test_what_happens_meanwhile_need_not_fit_into_the_queue(gateway, admin, monkeypatch):
    monkeypatch.setattr(stream, "QUEUE", 3)
    await happen(gateway, 20)
    missed, asked = view.missed, []

    async def slow(*arguments):
        if not asked:
            asked.append(True)
            await happen(gateway, 10)
        return await missed(*arguments)

    monkeypatch.setattr(view, "missed", slow)
    async with admin.stream() as frames:
        assert await follow(frames, 31) == list(range(1, 32))
        for number in range(32, 50):
            await happen(gateway)
            assert (await follow(frames, number))[-1] == number


async def test_who_comes_back_goes_on_where_he_was(gateway, admin):
    async with admin.stream() as frames:
        await happen(gateway, 5)
        seen = await follow(frames, 6)
    await happen(gateway, 5)
    async with admin.stream(after=seen[-1]) as frames:
        assert seen + await follow(frames, 11) == list(range(1, 12))


async def test_an_event_reads_the_same_live_and_afterwards(gateway, open_for, carrier):
    door = gateway.door
    async with open_for.stream(after=gateway.stream.newest) as frames:
        await frames.next()
        text = carrier.token(await open_for.challenge(door, carrier))
        for _ in range(2):
            await open_for.unlock(door, text)
        await open_for.code(door, carrier.token("A" * 22))
        unreadable = carrier.token(await open_for.challenge(door, carrier), ver=2)
        await open_for.code(door, unreadable)
        await open_for.operate(gateway.all_doors[1], "block", BOB, ref="a call")
        await open_for.lockdown(True)
        await gateway.told(EventName.DOOR_RELOCKED)
        await gateway.told(EventName.LOCKDOWN_ON)
        last = gateway.journal.sequence
        first = gateway.stream.newest - 7
        await follow(frames, last)
    live = [frame["event"] for frame in frames.seen if frame["type"] == "event"]
    ref = live[4].pop("ref")
    assert [event["outcome"] for event in live[:5]] == [
        "access_granted",
        "door_released",
        "access_denied",
        "access_denied",
        "door_blocked",
    ]
    assert {event["outcome"] for event in live[5:]} == {"lockdown_on", "door_relocked"}
    assert [event["stop"] for event in live[:5]] == [True, True, True, False, False]
    asked = (await open_for.get(f"/v1/events?after={first}")).json
    assert (asked["events"], asked["newest"]) == (live, last)
    live[4]["ref"] = ref  # which the journal does not know, and the stream does for a while
    async with open_for.stream(after=first) as frames:
        await follow(frames, last)
    assert [frame["event"] for frame in frames.seen if frame["type"] == "event"] == live
    said = json.dumps(live)
    assert not any(name in said for name in ("driver-4711", "Bob", "bob-1", text)), "nothing of a person"


async def test_a_summary_of_refusals_says_how_many_there_were(gateway, open_for):
    for text in ("a", "b", "c"):
        await open_for.code(gateway.door, text)
    before = gateway.stream.newest
    await gateway.controller.stop()
    (event,) = (await open_for.get(f"/v1/events?after={before}")).json["events"]
    assert (event["outcome"], event["code"], event["count"]) == ("refusals_counted", "MALFORMED", 3)


async def test_only_who_asked_for_it_hears_its_own_name_for_it(gateway, admin):
    panel = await gateway.pair("Panel")
    async with admin.stream() as own, panel.stream() as other:
        await admin.operate(gateway.door, "access", ref="call-1")
        events = [await frames.event(EventName.ACCESS_GRANTED) for frames in (own, other)]
        released = [await frames.event(EventName.DOOR_RELEASED) for frames in (own, other)]
    assert [event.get("ref") for event in events] == ["call-1", None]
    assert [event.get("ref") for event in released] == ["call-1", None]
    assert {event["seq"] for event in events} == {events[0]["seq"]}


async def test_who_asked_hears_its_own_name_for_it_also_when_it_comes_back(gateway, admin):
    """It may have been catching up while that happened."""
    await admin.operate(gateway.door, "access", ref="call-1")
    await gateway.controller.recorded()
    panel = await gateway.pair("Panel")
    for caller, ref in ((admin, "call-1"), (panel, None)):
        async with caller.stream() as frames:
            assert (await frames.event(EventName.ACCESS_GRANTED)).get("ref") == ref


async def test_the_names_of_requests_are_not_remembered_for_ever(gateway, admin, monkeypatch):
    monkeypatch.setattr("gateway.stream.ASKED", 2)
    for number in range(2):
        await admin.operate(gateway.door, "access", ref=f"call-{number}")
        await gateway.controller.recorded()
    async with admin.stream() as frames:
        heard = [(await frames.event(EventName.ACCESS_GRANTED)).get("ref") for _ in range(2)]
    assert heard == [None, "call-1"]


async def test_a_number_that_there_is_not_yet_means_from_now_on(gateway, admin):
    """The gateway's journal was restored from a backup."""
    async with admin.stream(after=10**9) as frames:
        assert (await frames.next())["newest"] == 1
        await happen(gateway)
        assert await follow(frames, 2) == [2]


async def test_entries_that_were_dropped_after_their_time_are_not_waited_for(gateway, admin):
    for _ in range(50):  # so that there are checkpoints to drop up to
        await happen(gateway, 45)
    gateway.clock.advance(LEAVES_KEPT + 1)
    await happen(gateway)
    wall = gateway.clock().wall
    while (await gateway.journal.header()).base.size == 0:
        assert await gateway.journal.retain(Due.at(wall, gateway.journal.newest, 1.0))
    base = (await gateway.journal.header()).base.size
    newest = gateway.stream.newest
    assert newest > base
    async with admin.stream(after=1) as frames:
        assert await follow(frames, newest) == list(range(base + 1, newest + 1))
    events = (await admin.get("/v1/events?after=1&limit=500")).json["events"]
    assert events[0]["seq"] == base + 1


async def test_an_event_that_cannot_be_recorded_is_told_all_the_same(gateway, admin):
    async with admin.stream(after=1) as frames:
        await frames.next()
        await happen(gateway)
        await follow(frames, 2)
        Disk(gateway.journal).fails = True
        assert (await admin.operate(gateway.door, "access")).json == {"code": "GRANTED"}
        event = await frames.event(EventName.ACCESS_GRANTED)
        assert event["seq"] is None
        await frames.until(lambda frame: frame["type"] == "building" and frame["journal_failed"])
    async with admin.stream() as frames:
        hello = await frames.next()
        assert hello["journal_failed"]
        await admin.operate(gateway.door, "access")
        assert (await frames.event(EventName.ACCESS_GRANTED))["seq"] is None
    assert (await admin.get("/v1/events?after=0")).status == 503


async def test_when_the_disk_fails_during_the_catching_up_nothing_in_between_is_skipped(gateway, admin, monkeypatch):
    """Who is told of a later number takes what lies before it for lost. It comes back, after the restart, for that."""
    await happen(gateway, 30)
    missed, disk = view.missed, Disk(gateway.journal)

    async def then_the_disk_fails(edge, after):
        found = await missed(edge, after, 10)
        await happen(gateway, 3)  # these wait for who is catching up
        disk.fails = True
        with pytest.raises(StoreFailed):
            await happen(gateway)
        return found

    monkeypatch.setattr(view, "missed", then_the_disk_fails)
    async with admin.stream() as frames:
        assert await follow(frames, 10) == list(range(1, 11))
        await admin.operate(gateway.door, "access")
        assert (await frames.event(EventName.ACCESS_GRANTED))["seq"] is None, "what happens is told all the same"
        assert frames.numbers == [*range(1, 11), None]


async def test_when_the_disk_cannot_be_read_for_a_moment_who_follows_comes_back(gateway, admin, monkeypatch):
    """The journal goes on being written, so what happens next has a number that is too high for him."""
    await happen(gateway, 30)
    missed = view.missed

    async def then_it_cannot_be_read(edge, after):
        if after:
            raise StoreFailed("disk I/O error")
        return await missed(edge, after, 10)

    monkeypatch.setattr(view, "missed", then_it_cannot_be_read)
    async with admin.stream() as frames:
        assert await follow(frames, 10) == list(range(1, 11))
        await frames.closed()
    monkeypatch.undo()
    async with admin.stream(after=10) as frames:
        assert await follow(frames, 31) == list(range(11, 32))


async def test_a_disk_that_never_gives_an_entry_again_keeps_nobody_from_what_happens(gateway, admin, monkeypatch):
    """Who is sent away each time would take the gateway for one that comes and goes, and hear of nothing."""
    await happen(gateway, 30)

    async def never(*_):
        raise StoreFailed("disk I/O error")

    monkeypatch.setattr(view, "missed", never)
    for _ in range(stream.READ_TRIES):
        async with admin.stream() as frames:
            await frames.next()
            await frames.closed()
    async with admin.stream() as frames:
        await frames.next()
        await happen(gateway)
        assert await follow(frames, 32) == [32], "the number tells what is missing"


async def test_a_damaged_entry_does_not_hide_those_behind_it(gateway, admin):
    await happen(gateway, 30)
    db = gateway.journal._writer.db
    db.execute("UPDATE leaf SET bytes = CAST(bytes AS TEXT) WHERE seq IN (1, 20, 21, 31)")
    whole = [number for number in range(2, 31) if number not in (20, 21)]
    async with admin.stream() as frames:
        await follow(frames, 30)
        await happen(gateway)
        assert await follow(frames, 32) == [*whole, 32]
    said = (await admin.get("/v1/events?after=19")).json
    assert [event["seq"] for event in said["events"]] == [*range(22, 31)]
    said = (await admin.get("/v1/events?after=30")).json
    assert [event["seq"] for event in said["events"]] == [32]


async def test_of_a_journal_that_is_damaged_throughout_not_every_entry_is_looked_at(gateway, admin, monkeypatch):
    monkeypatch.setattr(view, "DAMAGED", 20)
    await happen(gateway, 50)
    gateway.journal._writer.db.execute("UPDATE leaf SET bytes = CAST(bytes AS TEXT) WHERE seq <= 40")
    assert (await admin.get("/v1/events?after=10")).status == 503
    assert len(gateway.stream._unreadable) == 20
    async with admin.stream() as frames:
        await frames.next()
        await happen(gateway)
        assert await follow(frames, 52) == [52]


# ---- doors and the gateway as a whole ----


async def test_a_door_is_told_whenever_it_changes(gateway, admin):
    async with admin.stream() as frames:
        await frames.next()
        await admin.operate(gateway.door, "block")
        frame = await frames.until(lambda frame: frame["type"] == "door")
        assert (frame["door"]["id"], frame["door"]["state"]["mode"]) == (gateway.door.id, "blocked")
        doors = (await admin.get("/v1/doors")).json["doors"]
        assert frame["door"] == doors[0]


async def test_of_a_door_that_changes_fast_only_the_latest_is_waited_for(gateway, admin, monkeypatch):
    """Frames that nobody could make use of are not made: the last one says how it is."""
    async with admin.stream() as frames:
        await frames.next()
        for _ in range(50):
            gateway.stream.door_changed(gateway.door.id)
        await happen(gateway)
        await follow(frames, 2)
        assert [frame["type"] for frame in frames.seen].count("door") <= 2


async def test_the_gateway_as_a_whole_is_told_when_it_changes_and_not_when_it_does_not(gateway, admin, carrier):
    async with admin.stream() as frames:
        await frames.next()
        await admin.lockdown(True)
        frame = await frames.until(lambda frame: frame["type"] == "building")
        assert frame["lockdown"]
        assert frame["policy"] == {"version": 0, "pending": False}
        await happen(gateway, 3)
        await gateway.allow(admin, carrier)
        pending = await frames.until(lambda frame: frame["type"] == "building" and frame["policy"]["version"] == 1)
        if pending["policy"]["pending"]:
            await frames.until(lambda frame: frame["type"] == "building" and not frame["policy"]["pending"])
        gateway.next = messages.NextCertificate(bytes(32), "a note\n")
        gateway.stream.building_changed()
        frame = await frames.until(lambda frame: frame["type"] == "building" and frame["next"])
        assert frame["next"] == {"fp": "00" * 32, "note": "a note\n"}
        gateway.stream.building_changed()
        await happen(gateway)
        seen = len(frames.seen)
        await frames.event()
        assert "building" not in [frame["type"] for frame in frames.seen[seen:]]


# ---- who follows ----


async def test_a_frame_is_encoded_once_for_all(gateway, admin, monkeypatch):
    encoded = []

    class Counting:
        def encode(self, frame):
            encoded.append(type(frame).__name__)
            return messages.FRAME.encode(frame)

    async with admin.stream(after=1) as one, admin.stream(after=1) as two, admin.stream(after=1) as three:
        for frames in (one, two, three):
            await frames.next()
        async with asyncio.timeout(10):
            while not all(follower.is_live for follower in gateway.stream._followers):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.005)
        monkeypatch.setattr(stream, "FRAME", Counting())
        await happen(gateway)
        gateway.stream.door_changed(gateway.door.id)
        for frames in (one, two, three):
            await frames.until(lambda frame: frame["type"] == "door")
            assert frames.numbers == [2]
        assert sorted(encoded) == ["DoorChanged", "Happened"]


async def test_who_does_not_read_loses_the_connection_and_nobody_waits_for_him(gateway, admin, monkeypatch):
    monkeypatch.setattr(stream, "QUEUE", 200)
    request = (
        f"GET /v1/stream?after=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {admin.token}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with raw_connection(gateway) as (reader, writer), admin.stream(after=1) as frames:
        writer.write(request.encode())
        await reader.readuntil(b"hello")
        await frames.next()
        event = AccessEvent(outcome=EventName.DOOR_OPENED, door=gateway.door.id, at=0.0, carrier="x" * 200)
        published = 0
        async with asyncio.timeout(30):
            while len(gateway.stream) > 1:
                for _ in range(100):
                    gateway.stream.publish(event)
                published += 100
                await follow_times(frames, published)
        assert len(gateway.stream) == 1
        await happen(gateway)
        assert (await frames.until(lambda frame: frame["type"] == "event" and frame["event"]["seq"]))["event"][
            "seq"
        ] == 2


async def follow_times(frames, events):
    """Read until so many events have come in."""
    while sum(frame["type"] == "event" for frame in frames.seen[-1:]) + frames.__dict__.setdefault("count", 0) < events:
        await frames.next()
        frames.count += frames.seen[-1]["type"] == "event"
        frames.seen.clear()


async def test_there_is_an_end_to_streams(gateway, admin, monkeypatch):
    panel = await gateway.pair("Panel")
    open_ones = [await _opened(admin) for _ in range(OF_ONE_CLIENT)]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await _opened(admin)
    assert refused.value.status == 429
    open_ones.append(await _opened(panel))
    monkeypatch.setattr(stream, "STREAMS", len(open_ones))
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await _opened(panel)
    assert refused.value.status == 429
    await open_ones.pop().close()
    await _eventually(lambda: len(gateway.stream) == OF_ONE_CLIENT)
    open_ones.append(await _opened(panel))
    for socket in open_ones:
        await socket.close()
    await _eventually(lambda: len(gateway.stream) == 0)


async def _opened(caller):
    socket = await caller.session.ws_connect(
        f"{caller.base}/v1/stream?after=0", headers=caller.headers(), ssl=caller.pin
    )
    await socket.receive()
    return socket


async def _eventually(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_client_that_is_removed_hears_nothing_more(gateway, admin):
    panel = await gateway.pair("Panel")
    async with panel.stream() as frames, admin.stream() as own:
        await frames.next()
        assert (await admin.ask("DELETE", f"/v1/clients/{panel.id}")).status == 204
        await frames.closed()
        assert (await own.event(EventName.CLIENT_REMOVED))["outcome"] == "client_removed"


async def test_nor_does_one_that_may_not_read_any_more(gateway, admin):
    panel = await gateway.pair("Panel")
    async with panel.stream() as frames:
        await frames.next()
        taken = await admin.put(f"/v1/clients/{panel.id}", {"scopes": ["operate", "read"], "issuers": None})
        assert taken.json["pending"]
        await approve(gateway.policy, gateway.clients)
        await panel.operate(gateway.door, "access")
        await frames.event(EventName.ACCESS_GRANTED)
        await admin.put(f"/v1/clients/{panel.id}", {"scopes": ["operate"], "issuers": None})
        await frames.closed()
    assert (await panel.get("/v1/doors")).status == 403


async def test_there_is_nothing_that_a_client_could_say(gateway, admin):
    async with admin.stream() as frames:
        await frames.next()
        await frames.socket.send_str('{"type":"unlock"}')
        await frames.closed()
    assert gateway.pulses == 0


@pytest.mark.parametrize("query", ["", "?after=", "?after=x", "?after=-1", "?after=1&after=2", f"?after={2**63}"])
async def test_a_number_has_to_be_named(gateway, admin, query):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await admin.session.ws_connect(f"{admin.base}/v1/stream{query}", headers=admin.headers(), ssl=admin.pin)
    assert refused.value.status == 400


async def test_it_ends_when_the_gateway_does(tmp_path):
    async with Gateway(tmp_path) as gateway:
        admin = await gateway.pair()
        async with admin.stream() as frames:
            await frames.next()
            async with asyncio.timeout(5):
                await gateway.front.close()
            await frames.closed()
        assert len(gateway.stream) == 0


async def test_ann_is_named_where_a_door_says_for_whom_it_is_open(gateway, admin):
    """The one name that is told: Home Assistant shows who opened a door last."""
    async with admin.stream() as frames:
        await admin.operate(gateway.door, "access", ANN)
        frame = await frames.until(lambda frame: frame["type"] == "door" and frame["door"]["state"]["by"])
        assert frame["door"]["state"]["by"] == {"name": "Ann", "user_id": "ann-1"}
