"""The links that controllers hold: who is let in, what is asked over them, and what is not believed."""

import asyncio
import os
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import WSServerHandshakeError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from multidict import CIMultiDict
from sqlalchemy import delete

from carrier import buildings, enrolment, keys, links, lists
from carrier.checks import Reason
from carrier.store import Store, database_url, schema
from carrier.store.tables import Controller, KeySet, RequestState
from tests.simulated import IDENTITY, Site, some_doors
from vestibule_core import b64url
from vestibule_core.link import messages
from vestibule_core.link.client import LinkState
from vestibule_core.link.messages import Close, Hello, LinkedDoor, SignedChallenge
from vestibule_core.model import Code, Word
from vestibule_core.note import SignerKey

from .linked import Linked, Raw, Replica, greet, invited, padded, payload, until, until_so
from .town import HOME, NAME, NEAR, REFERENCE, Town

STRANGER = SignerKey("vestibule/stranger", Ed25519PrivateKey.from_private_bytes(bytes(32)))
ABNORMAL = 1006
"""Cut off without a word."""
OTHER_DOOR = some_doors(1, "another building")[0].id


@pytest.fixture
async def town(tmp_path):
    store = Store(database_url(f"sqlite:///{tmp_path}/carrier.db"))
    await schema.migrate(store)
    town = await Town.founded(store, tmp_path, stops=3)
    async with town.site:
        yield town
    await store.close()


@pytest.fixture
async def cloud(town, wire):
    async with Replica(town, wire) as replica:
        yield replica


def own_doors(town):
    return [LinkedDoor(door.id, door.name, "Europe/Berlin", *HOME) for door in town.site.doors]


async def issued(town):
    return (await town.rows("SELECT count(*) FROM issued"))[0]


async def alarms(town):
    return await town.rows("SELECT kind, subject FROM alarm ORDER BY id")


# ---- a door ----


async def test_a_door_opens_over_a_link_exactly_once(town, wire, cloud):
    async with Linked(town, wire.where) as building:
        await building.connected()
        assert (await cloud.ask()).state is RequestState.GRANTED
        assert (await cloud.ask()).code == Reason.ALREADY_ASKED
        assert town.site.pulses == 1
        assert await town.rows("SELECT word, code FROM outcome") == [("granted", "GRANTED")]
        assert await alarms(town) == []


async def test_a_building_that_is_not_connected_costs_nothing(town, wire, cloud):
    outcome = await cloud.ask()
    assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "UNREACHABLE")
    async with Linked(town, wire.where) as building:
        await building.connected()
        assert (await cloud.ask()).state is RequestState.GRANTED


async def test_a_building_that_gives_no_challenge_is_said_and_costs_nothing(town, wire, cloud):
    async with Linked(town, wire.where) as building:
        await building.connected()
        town.site.controller.stopped = True
        outcome = await cloud.ask()
        assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "UNAVAILABLE")
        town.site.controller.stopped = False
        assert (await cloud.ask()).state is RequestState.GRANTED


async def test_why_a_building_refused_is_told_by_its_code(town, wire, cloud):
    async with Linked(town, wire.where) as building:
        await building.connected()
        town.site.strike.cut_power()
        outcome = await cloud.ask()
        assert (outcome.state, outcome.code) == (RequestState.REFUSED_BY_BUILDING, "STRIKE_UNREACHABLE")


async def test_what_a_building_does_not_explain_is_said_as_such(town, wire, cloud):
    """A lockdown is the building's own matter."""
    async with Linked(town, wire.where) as building:
        await building.connected()
        building.present = _answering(Word.REFUSED, Code.LOCKDOWN)
        outcome = await cloud.ask()
        assert (outcome.state, outcome.code) == (RequestState.REFUSED_BY_BUILDING, "DOOR_UNAVAILABLE")
        assert (await cloud.ask()).code == Reason.ALREADY_ASKED


async def test_a_link_cut_after_the_token_left_is_unknown_until_the_building_tells(town, wire, cloud):
    async def cut():
        wire.cut()

    async with Linked(town, wire.where) as building:
        await building.connected()
        building.tells_acceptances = False
        building.after_present = cut
        assert (await cloud.ask()).state is RequestState.UNKNOWN
        assert town.site.pulses == 1
        assert (await cloud.ask()).code == Reason.ALREADY_ASKED
        await building.connected()
        await building.tell_acceptances()
        await until_so(lambda: town.rows("SELECT 1 FROM request WHERE state = 'granted'"))
        assert (town.site.pulses, await issued(town), await alarms(town)) == (1, 1, [])


async def test_a_link_cut_before_the_token_left_gives_the_door_back(town, wire, cloud):
    """The token is signed and written down, but nobody has it."""
    async with Linked(town, wire.where) as building:
        await building.connected()
        unlock = cloud.ways.unlock

        async def cut_first(challenge, text):
            wire.cut()
            await until(lambda: not len(cloud.links))
            return await unlock(challenge, text)

        cloud.ways.unlock = cut_first
        outcome = await cloud.ask()
        assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "UNREACHABLE")
        cloud.ways.unlock = unlock
        await building.connected()
        assert (await cloud.ask()).state is RequestState.GRANTED
        assert (town.site.pulses, len(building.tokens), await issued(town)) == (1, 1, 2)


async def test_a_token_is_not_sent_over_a_link_that_began_after_its_challenge(town, wire, cloud):
    """The controller may have been started again: what it was asked before is not its business any more."""
    async with Linked(town, wire.where) as building:
        await building.connected()
        unlock = cloud.ways.unlock

        async def come_again_first(challenge, text):
            wire.cut()
            await until(lambda: not len(cloud.links))
            await building.connected()
            await until(lambda: len(cloud.links))
            return await unlock(challenge, text)

        cloud.ways.unlock = come_again_first
        assert (await cloud.ask()).state is RequestState.UNREACHABLE
        assert building.tokens == []


async def test_twenty_questions_are_open_at_a_time_and_no_more(town, wire, cloud):
    """The rest waits; whoever waits too long has asked nothing."""
    async with await greet(wire.where, IDENTITY, own_doors(town)) as raw:
        await raw.hear(messages.Keys)
        await until(lambda: len(cloud.links))
        (connection,) = cloud.links._here.values()
        asking = [asyncio.create_task(connection.challenge(town.site.door.id)) for _ in range(22)]
        asked = [await raw.hear(messages.AskChallenge) for _ in range(20)]
        assert len({each.id for each in asked}) == 20
        await raw.say(messages.NoChallenge(asked[7].id, Word.UNAVAILABLE))
        assert (await raw.hear(messages.AskChallenge)).id == 20
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


# ---- attack 79 ----


async def test_79_a_hello_in_the_name_of_another_controller_is_refused(town, wire, cloud):
    async with await greet(wire.where, STRANGER, own_doors(town), controller=IDENTITY.verifier) as raw:
        assert await raw.closed() == Close.NOT_ENROLLED
    assert await town.rows("SELECT count(*) FROM link") == [0]


async def test_79_a_hello_of_a_controller_that_nobody_enrolled_is_refused(town, wire, cloud):
    async with await greet(wire.where, STRANGER, own_doors(town)) as raw:
        assert await raw.closed() == Close.NOT_ENROLLED


async def test_79_a_replayed_hello_is_refused(town, wire, cloud):
    async with await Raw.dial(wire.where) as first, await Raw.dial(wire.where) as second:
        begin = await first.begun()
        await second.begun()
        hello = messages.Hello(IDENTITY.verifier, begin.issuer, begin.nonce, os.urandom(16), (), 0, None)
        recorded = messages.Greeting(messages.write_hello(IDENTITY, hello))
        await second.say(recorded)
        assert await second.closed() == Close.NOT_ENROLLED
        await first.say(recorded)
        await first.hear(messages.Keys)  # where it belongs, it is good
    async with await Raw.dial(wire.where) as again:
        await again.begun()
        await again.say(recorded)
        assert await again.closed() == Close.NOT_ENROLLED


async def test_79_a_hello_to_another_carrier_is_refused(town, wire, cloud):
    async with await greet(wire.where, IDENTITY, own_doors(town), issuer="https://other.example") as raw:
        assert await raw.closed() == Close.NOT_ENROLLED


async def test_79_a_token_goes_to_the_controller_of_its_door_alone(town, wire, cloud, tmp_path):
    """B is connected, and says that A's door is its own: it is not asked for it, and sees no token for it."""
    b_site = Site(tmp_path / "b.db", doors=2)
    async with town.store.transaction() as session:
        key, doors = str(STRANGER.verifier), (buildings.NewDoor(OTHER_DOOR, "B's", HOME),)
        await buildings.add(session, "B", "Europe/Berlin", key, doors, "command", town.now)
    async with Linked(town, wire.where) as a, Linked(town, wire.where, site=b_site, key=STRANGER) as b:
        b.doors = (replace(a.doors[0], name="B's too"), LinkedDoor(OTHER_DOOR, "B's", "Europe/Berlin", *HOME))
        await a.connected()
        await b.connected()
        assert await alarms(town) == [("door_of_another", town.site.door.id)]
        assert (await cloud.ask()).state is RequestState.GRANTED
        assert (len(a.tokens), b.tokens) == (1, [])
        assert await town.rows(f"SELECT name FROM door WHERE id = '{town.site.door.id}'") == [town.site.door.name]


def challenge_of(town, **changes):
    nonce = town.site.controller.challenge(town.site.door.id, town.carrier.issuer).nonce
    good = SignedChallenge(IDENTITY.verifier, town.site.door.id, town.carrier.issuer, nonce, 60)
    return replace(good, **changes)


@pytest.mark.parametrize(
    "key, changes",
    [
        (IDENTITY, {"door": OTHER_DOOR}),
        (IDENTITY, {"issuer": "https://other.example"}),
        (IDENTITY, {"controller": STRANGER.verifier}),
        (STRANGER, {}),
        (STRANGER, {"controller": STRANGER.verifier}),
    ],
    ids=["of another door", "for another carrier", "of another controller", "forged", "somebody else's"],
)
async def test_79_for_a_challenge_that_is_not_this_doors_no_token_is_signed(town, wire, cloud, key, changes):
    async with await greet(wire.where, IDENTITY, own_doors(town)) as raw:
        await raw.hear(messages.Keys)
        asking = asyncio.create_task(cloud.ask())
        asked = await raw.hear(messages.AskChallenge)
        await raw.say(messages.Challenge(asked.id, messages.write_challenge(key, challenge_of(town, **changes))))
        outcome = await asking
        assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "WRONG_CHALLENGE")
        assert await raw.closed() == Close.VIOLATION
    assert await issued(town) == 0
    assert await town.rows("SELECT opened_by FROM stop_door WHERE opened_by IS NOT NULL") == []


@pytest.mark.parametrize("how", ["unsigned", "a hello", "a token", "with much white space"])
async def test_79_for_what_is_no_signed_challenge_no_token_is_signed(town, wire, cloud, how):
    async with await greet(wire.where, IDENTITY, own_doors(town)) as raw:
        await raw.hear(messages.Keys)
        asking = asyncio.create_task(cloud.ask())
        asked = await raw.hear(messages.AskChallenge)
        good = messages.write_challenge(IDENTITY, challenge_of(town))
        said = {
            "unsigned": good.rpartition(".")[0] + ".",
            "a hello": messages.write_hello(
                IDENTITY,
                messages.Hello(IDENTITY.verifier, town.carrier.issuer, os.urandom(16), os.urandom(16), (), 0, None),
            ),
            "a token": town.carrier.token(town.site.challenge()),
            "with much white space": padded(challenge_of(town), 2100),
        }[how]
        await raw.say(messages.Challenge(asked.id, said))
        assert (await asking).state is RequestState.UNREACHABLE
        assert await raw.closed() == Close.VIOLATION
    assert await issued(town) == 0


# ---- what is not said on a link ----


@pytest.mark.parametrize(
    "said",
    [
        messages.Outcome(0, Word.GRANTED, Code.GRANTED),
        "{}",
        '{"type":"nonce"}',
        '{"type":"pong","more":1}',
        "[" * 5000,
        messages.Greeting("a.b.c"),
    ],
    ids=["an answer to nothing", "nothing", "what the cloud says", "one member more", "a deep list", "a second hello"],
)
async def test_whoever_says_what_the_protocol_does_not_know_is_let_go_of(town, wire, cloud, said):
    async with await greet(wire.where, IDENTITY, own_doors(town)) as raw:
        await raw.hear(messages.Keys)
        await raw.say(said)
        assert await raw.closed() == Close.VIOLATION
    await until(lambda: not len(cloud.links))
    await until_so(lambda: _is(town.rows("SELECT count(*) FROM link"), [0]))


async def test_bytes_and_more_than_8_kib_are_not_read(town, wire, cloud):
    async with await greet(wire.where, IDENTITY) as raw:
        await raw.hear(messages.Keys)
        await raw.socket.send_bytes(b"{}")
        assert await raw.closed() == Close.VIOLATION
    async with await greet(wire.where, IDENTITY) as raw:
        await raw.hear(messages.Keys)
        await raw.say("x" * 8193)
        assert await raw.closed() == 1009
    await until(lambda: not len(cloud.links))


async def test_an_outcome_instead_of_a_challenge_is_no_answer(town, wire, cloud):
    async with await greet(wire.where, IDENTITY, own_doors(town)) as raw:
        await raw.hear(messages.Keys)
        asking = asyncio.create_task(cloud.ask())
        asked = await raw.hear(messages.AskChallenge)
        await raw.say(messages.Outcome(asked.id, Word.GRANTED, Code.GRANTED))
        assert (await asking).state is RequestState.UNREACHABLE
        assert await raw.closed() == Close.VIOLATION


async def test_whoever_says_no_hello_is_let_go_of(town, wire, cloud, monkeypatch):
    monkeypatch.setattr(links, "HELLO_WAIT", 0.3)
    async with await Raw.dial(wire.where) as raw:
        assert await raw.closed() == Close.VIOLATION


async def test_of_those_who_say_no_hello_one_address_has_few(town, wire, cloud, monkeypatch):
    monkeypatch.setattr(links, "MOST_OF_ONE", 2)
    async with await Raw.dial(wire.where) as first, await Raw.dial(wire.where) as second:
        await first.begun()
        await second.begun()
        with pytest.raises(WSServerHandshakeError) as refused:
            await Raw.dial(wire.where)
        assert refused.value.status == 503
        for line in ("127.0.0.1", "6.6.6.6, 127.0.0.1"):  # what the caller writes before our proxy does is nothing
            own = CIMultiDict([("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", line)])
            with pytest.raises(WSServerHandshakeError):
                await Raw.dial(wire.where, headers=own)
        async with await Raw.dial(wire.where, headers={"X-Forwarded-For": "192.0.2.7"}) as other:
            await other.begun()
    await until(lambda: not cloud.links._silent)
    async with Linked(town, wire.where) as building:
        await building.connected()


async def test_strangers_at_many_addresses_who_say_nothing_keep_no_building_out(town, wire, cloud, monkeypatch):
    """The newest comer gets the place of whoever has been silent for the longest."""
    monkeypatch.setattr(links, "MOST_SILENT", 2)

    async def dial(address):
        return await Raw.dial(wire.where, headers={"X-Forwarded-For": address})

    async with await dial("192.0.2.1") as first, await dial("192.0.2.2") as second:
        await first.begun()
        await second.begun()
        async with Linked(town, wire.where) as building:
            await building.connected()
            assert await first.closed() == ABNORMAL
            assert (await cloud.ask()).state is RequestState.GRANTED


async def test_strangers_who_talk_rubbish_and_do_not_go_keep_no_building_out(town, wire, cloud, monkeypatch):
    monkeypatch.setattr(links, "MOST_SILENT", 2)
    async with AsyncExitStack() as strangers:
        for number in range(2):
            headers = {"X-Forwarded-For": f"192.0.2.{number}"}
            stranger = await strangers.enter_async_context(await Raw.dial(wire.where, headers=headers, autoclose=False))
            await stranger.begun()
            await stranger.say("{}")
            assert (await stranger.socket.receive()).type is aiohttp.WSMsgType.CLOSE  # which it never answers
        assert cloud.links._silent.total() == 2
        async with Linked(town, wire.where) as building:
            await building.connected()
            assert (await cloud.ask()).state is RequestState.GRANTED


async def test_pings_and_pongs_that_nobody_asked_for_are_no_mistake(town, wire, cloud):
    """Anybody may send them at any time (RFC 6455 5.5): a proxy that keeps the line warm does."""
    async with await Raw.dial(wire.where) as raw:
        begin = await raw.begun()
        await raw.socket.pong(b"1")
        await raw.socket.ping(b"2")
        assert (await raw.socket.receive()).type is aiohttp.WSMsgType.PONG
        hello = Hello(IDENTITY.verifier, begin.issuer, begin.nonce, bytes(16), (), 0, None)
        await raw.say(messages.Greeting(messages.write_hello(IDENTITY, hello), None))
        await raw.hear(messages.Keys)
        await raw.socket.pong(b"3")
        await raw.socket.ping(b"4")
        await raw.say(messages.AskList(lists.newest_day(town.now)))
        async with asyncio.timeout(5):
            while (message := await raw.socket.receive()).type is not aiohttp.WSMsgType.PONG:
                assert message.type is aiohttp.WSMsgType.TEXT
    async with await Raw.dial(wire.where) as raw:
        await raw.begun()
        for _ in range(links.MOST_PINGS):
            await raw.socket.pong()
        assert await raw.closed() == Close.VIOLATION


async def test_a_link_that_was_ended_for_a_violation_is_handed_no_token(town, wire, cloud):
    """Whoever does not answer that it is over would be sent a token that nobody looks at the answer of."""
    async with await greet(wire.where, IDENTITY, own_doors(town)) as raw:
        raw.socket._autoclose = False  # of aiohttp: it would answer at once
        await raw.hear(messages.Keys)
        await raw.socket.send_bytes(b"x")
        async with asyncio.timeout(5):
            while (await raw.socket.receive()).type is not aiohttp.WSMsgType.CLOSE:
                pass
        assert len(cloud.links) == 0
        assert (await cloud.ask()).state is RequestState.UNREACHABLE


async def test_keys_that_a_stranger_makes_are_looked_up_a_few_times_and_keep_no_building_out(town, wire, monkeypatch):
    looked_up = []
    look_up = enrolment.greet

    async def counted(session, hello, *rest):
        looked_up.append(hello.controller)
        return await look_up(session, hello, *rest)

    async def stranger(address):
        async with await greet(
            wire.where, SignerKey("vestibule/x", Ed25519PrivateKey.generate()), address=address
        ) as it:
            return await it.closed()

    monkeypatch.setattr(enrolment, "greet", counted)
    monkeypatch.setattr(links, "STRANGER_BURST", 3.0)
    monkeypatch.setattr(links, "STRANGER_PER_SECOND", 0.001)
    async with Replica(town, wire) as cloud, Linked(town, wire.where) as building:
        await building.connected()
        del looked_up[:]
        assert [await stranger("127.0.0.1") for _ in range(3)] == [Close.NOT_ENROLLED] * 3
        assert [await stranger("127.0.0.1") for _ in range(3)] == [Close.GOING_AWAY] * 3
        assert len(looked_up) == 3
        assert await stranger("192.0.2.7") == Close.NOT_ENROLLED
        # Whoever was here comes back, from the same address; whoever was not, once less is asked from there.
        wire.cut()
        await until(lambda: len(building.sets) == 2)
        assert (await cloud.ask()).state is RequestState.GRANTED
        code = await invited(town, wire.where)
        async with await greet(wire.where, STRANGER, secret=code.secret) as raw:
            assert await raw.closed() == Close.GOING_AWAY
        ahead = SimpleNamespace(monotonic=lambda: time.monotonic() + 1100)
        monkeypatch.setattr(links, "time", ahead)
        async with await greet(wire.where, STRANGER, secret=code.secret) as raw:
            await raw.hear(messages.Keys)


async def test_buildings_that_come_back_together_from_one_address_are_no_strangers(town, wire, monkeypatch):
    """As behind a proxy that says nothing about addresses."""
    monkeypatch.setattr(links, "STRANGER_BURST", 1.0)
    monkeypatch.setattr(links, "STRANGER_PER_SECOND", 0.0)
    keys_of = [SignerKey("vestibule/x", Ed25519PrivateKey.generate()) for _ in range(10)]
    for key in keys_of:
        await enrol_in(town, key)
    async with Replica(town, wire):
        for key in keys_of:
            async with await greet(wire.where, key) as raw:
                await raw.hear(messages.Keys)


async def test_a_page_of_another_host_begins_no_link(town, wire, cloud):
    with pytest.raises(WSServerHandshakeError) as refused:
        await Raw.dial(wire.where, headers={"Host": "evil.example"})
    assert refused.value.status == 403


async def test_before_any_keys_are_published_nobody_is_let_in(town, wire, cloud):
    async with town.store.transaction() as session:
        await session.execute(delete(KeySet))
    async with await greet(wire.where, IDENTITY, own_doors(town)) as raw:
        assert await raw.closed() == Close.GOING_AWAY
    assert await town.rows("SELECT count(*) FROM link") == [0]


# ---- who is there ----


async def test_one_timer_asks_all_links_and_lets_go_of_the_dead(town, wire, monkeypatch):
    monkeypatch.setattr(links, "PING_EVERY", 2)
    async with Replica(town, wire) as cloud, Linked(town, wire.where) as alive:
        await alive.connected()
        await enrol_in(town, STRANGER)
        async with await greet(wire.where, STRANGER) as dead:
            await dead.hear(messages.Keys)
            assert await dead.closed() == Close.GOING_AWAY
        await until(lambda: len(cloud.links) == 1)
        assert alive.line.is_connected


async def test_a_second_link_of_a_controller_ends_the_first(town, wire, cloud):
    """As after a cut that only one end has noticed: no alarm."""
    instance = os.urandom(16)
    async with await greet(wire.where, IDENTITY, own_doors(town), instance=instance) as first:
        await first.hear(messages.Keys)
        async with await greet(wire.where, IDENTITY, own_doors(town), instance=instance) as second:
            await second.hear(messages.Keys)
            assert await first.closed() == Close.TAKEN_OVER
            await until(lambda: len(cloud.links) == 1)
            asking = asyncio.create_task(cloud.ask())
            await second.hear(messages.AskChallenge)
            asking.cancel()
    assert await alarms(town) == []


async def test_two_programs_that_are_one_controller_are_an_alarm(town, wire, cloud):
    async with Linked(town, wire.where) as first:
        await first.connected()
        async with Linked(town, wire.where) as copy:
            await copy.connected()
            await until(lambda: first.line.state is LinkState.TAKEN_OVER)
            await until_so(lambda: town.rows("SELECT 1 FROM alarm"))
            ((kind, subject),) = await alarms(town)
            assert (kind, subject.partition(":")[0]) == ("second_link", "controller")
            assert (await cloud.ask()).state is RequestState.GRANTED
            assert (len(copy.tokens), first.tokens) == (1, [])


async def test_a_controller_that_was_started_again_while_its_old_link_is_dead_is_no_alarm(
    town, wire, cloud, monkeypatch
):
    monkeypatch.setattr(links, "PROOF_WAIT", 0.3)
    async with await greet(wire.where, IDENTITY, own_doors(town)) as dead:
        await dead.hear(messages.Keys)
        async with Linked(town, wire.where) as again:
            await again.connected()
            assert await dead.closed() == Close.TAKEN_OVER
    assert await alarms(town) == []


async def test_a_controller_that_was_removed_is_let_go_of_and_not_let_in_again(town, wire, cloud, monkeypatch):
    monkeypatch.setattr(links, "LOOK_EVERY", 0.1)
    async with await greet(wire.where, IDENTITY, own_doors(town)) as raw:
        await raw.hear(messages.Keys)
        async with town.store.transaction() as session:
            await buildings.remove_controller(session, str(IDENTITY.verifier), "command", town.now)
        assert (await cloud.ask()).code == Reason.DOOR_WITHOUT_POSITION
        assert await raw.closed() == Close.NOT_ENROLLED
    async with await greet(wire.where, IDENTITY, own_doors(town)) as raw:
        assert await raw.closed() == Close.NOT_ENROLLED


async def test_keys_that_are_published_reach_every_link(town, wire, cloud, monkeypatch):
    monkeypatch.setattr(links, "LOOK_EVERY", 0.1)
    async with Linked(town, wire.where) as building:
        await building.connected()
        async with town.store.transaction() as session:
            await keys.publish(session, town.carrier.issuer, town.root, None, "command", town.now)
        await until(lambda: len(building.sets) == 2)
        assert [payload(told.set)["ver"] for told in building.sets] == [1, 2]


async def test_when_the_cloud_ends_its_links_are_told_to_come_back(town, wire):
    async with Linked(town, wire.where) as building:
        async with Replica(town, wire) as cloud:
            await building.connected()
            wire.lead_to(None)
        assert building.line.state is LinkState.NOT_READY
        assert await town.rows("SELECT count(*) FROM link") == await town.rows("SELECT count(*) FROM replica") == [0]
        async with Replica(town, wire) as cloud:
            await building.connected()
            assert (await cloud.ask()).state is RequestState.GRANTED


async def test_what_a_driver_waits_for_is_answered_before_the_cloud_ends(town, wire):
    async with Linked(town, wire.where) as building, Replica(town, wire) as cloud:
        await building.connected()
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def wait():
            reached.set()
            await go_on.wait()

        building.before_present = wait
        asking = asyncio.create_task(cloud.ask())
        await reached.wait()
        ending = asyncio.create_task(cloud.links.end())
        await asyncio.sleep(0.1)
        assert not ending.done()
        go_on.set()
        assert (await asking).state is RequestState.GRANTED
        await ending


# ---- privacy ----


async def test_nothing_that_a_building_gets_or_keeps_names_a_person_a_parcel_or_a_place(town, wire, cloud):
    async with Linked(town, wire.where) as building:
        await building.connected()
        assert (await cloud.ask()).state is RequestState.GRANTED
        await until(lambda: len(building.lists) == 2)
        (text,) = building.tokens
    told = repr(town.site.events)
    await town.site.__aexit__()
    kept = town.site.all_bytes()
    await town.site.__aenter__()
    sent = bytes(wire.heard) + b"".join(b64url.decode(part.encode()) for part in text.split("."))
    (route,) = await town.rows("SELECT id FROM route")
    (request,) = await town.rows("SELECT id FROM request")
    places = [str(number) for place in (HOME, NEAR) for number in place]
    for secret in (NAME, *NAME.split(), REFERENCE, town.driver, town.device, town.stop, route, request, *places):
        assert secret.encode() not in sent
        assert secret.encode() not in kept
        assert secret not in told
    assert payload(text)["sub"].encode() in sent  # what it does get is found by this search


# ---- helpers ----


def _answering(word, code):
    async def present(token):
        return word, code

    return present


async def _is(found, expected):
    return await found == expected


async def enrol_in(town, key):
    """Make somebody a controller of the town's building, without doors."""
    later = town.now + timedelta(seconds=1)
    async with town.store.transaction() as session:
        session.add(Controller(key=str(key.verifier), building_id=town.building, enrolled_at=later, removed_at=None))
