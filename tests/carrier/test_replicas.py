"""Several replicas of one cloud: a link is held by one of them, a driver asks at any. They are killed, PostgreSQL is
restarted, links are cut at random: the answer is honest, a door of a stop opens once at the most, nothing is lost.
"""

import asyncio
import random
import signal
import sys
import time
from dataclasses import dataclass
from datetime import time as clock
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from carrier import decide, links
from carrier.checks import Reason
from carrier.decide import settle
from carrier.store import Store, database_url, schema
from carrier.store.tables import RequestState
from carrier.switchboard import NOTIFICATION, Failed, Given, Handed, Told, Wanted
from tests.simulated import IDENTITY
from vestibule_core.hours import Day, Hours
from vestibule_core.link import messages
from vestibule_core.link.client import LinkState
from vestibule_core.link.messages import Close, LinkedDoor
from vestibule_core.model import Word
from vestibule_core.note import SignerKey

from .linked import Linked, Replica, greet, padded, until, until_so
from .town import HOME, Town

ROOT = Path(__file__).parents[2]


async def founded(cluster, folder, stops):
    store = Store(database_url(cluster.create()))
    await schema.migrate(store)
    return await Town.founded(store, folder, stops=stops)


@pytest.fixture
async def town(cluster, tmp_path):
    town = await founded(cluster, tmp_path, 3)
    async with town.site:
        yield town
    await town.store.close()


async def states(town):
    return await town.rows("SELECT state FROM request")


def placed(town):
    return [LinkedDoor(door.id, door.name, "Europe/Berlin", *HOME) for door in town.site.doors]


def challenge_of(town, key=IDENTITY):
    nonce = town.site.controller.challenge(town.site.door.id, town.carrier.issuer).nonce
    return messages.SignedChallenge(key.verifier, town.site.door.id, town.carrier.issuer, nonce, 60)


# ---- a driver asks at any replica ----


async def test_a_door_opens_whichever_replica_is_asked(town, wire):
    async with Replica(town, wire) as other, Replica(town, wire) as holder, Linked(town, wire.where) as building:
        await building.connected()
        assert (len(holder.links), len(other.links)) == (1, 0)
        for asked, stop in zip((holder, other), town.stops, strict=False):
            assert (await asked.ask(stop=stop)).state is RequestState.GRANTED
        assert (town.site.pulses, len(set(building.tokens))) == (2, 2)
        town.site.strike.cut_power()
        outcome = await other.ask(stop=town.stops[2])
        assert (outcome.state, outcome.code) == (RequestState.REFUSED_BY_BUILDING, "STRIKE_UNREACHABLE")


@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.long)])
async def test_of_many_at_once_for_one_stop_over_three_replicas_one_opens(town, wire, count):
    async with (
        Replica(town, wire) as one,
        Replica(town, wire) as two,
        Replica(town, wire) as three,
        Linked(town, wire.where) as building,
    ):
        await building.connected()
        asked = [one, two, three]
        outcomes = await asyncio.gather(*(asked[number % 3].ask() for number in range(count)))
        assert sorted(outcome.state for outcome in outcomes) == ["granted"] + ["refused"] * (count - 1)
        assert {each.code for each in outcomes if each.state is RequestState.REFUSED} == {Reason.ALREADY_ASKED}
        assert (town.site.pulses, len(building.tokens)) == (1, 1)
    assert await town.rows("SELECT count(*) FROM issued") == [1]


async def test_a_challenge_that_is_refused_elsewhere_is_said_here(town, wire):
    async with Replica(town, wire), Linked(town, wire.where) as building:
        await building.connected()
        town.site.controller.stopped = True
        async with Replica(town, wire) as other:
            outcome = await other.ask()
            assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "UNAVAILABLE")


async def test_a_link_that_is_over_at_the_other_replica_costs_nothing(town, wire):
    async with Replica(town, wire) as other, Replica(town, wire) as holder, Linked(town, wire.where) as building:
        await building.connected()
        (connection,) = holder.links._here
        holder.links._here.pop(connection)
        outcome = await other.ask()
        assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "UNREACHABLE")
        assert await town.rows("SELECT opened_by FROM stop_door WHERE opened_by IS NOT NULL") == []


async def test_what_is_asked_too_late_is_not_passed_on(town, wire):
    async with Replica(town, wire) as holder, Linked(town, wire.where) as building:
        await building.connected()
        switchboard, (connection,) = holder.ways.switchboard, holder.links._here
        await switchboard._put(Handed(7, "A" * 22, connection, 1, "a.b.c"))
        assert switchboard._outgoing.get_nowait().said == Failed(7, "LATE", sent=False)
        assert building.tokens == []


async def test_without_a_line_to_the_others_nobody_is_asked(town, wire):
    async with Replica(town, wire), Linked(town, wire.where) as building:
        await building.connected()
        async with Replica(town, wire) as other:
            other.ways.switchboard.is_up.clear()
            assert (await other.ask()).state is RequestState.UNREACHABLE
            other.ways.switchboard.is_up.set()
            assert (await other.ask()).state is RequestState.GRANTED


async def test_a_replica_that_says_nothing_for_long_is_not_asked_and_its_links_are_struck_off(town, wire):
    async with Replica(town, wire) as other, Replica(town, wire) as holder, Linked(town, wire.where) as building:
        await building.connected()
        await _unheard(other, holder, 31)
        outcome = await other.ask()
        assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "UNREACHABLE")
        await _unheard(other, holder, 91)
        await other.links._look_once()
        assert await town.rows("SELECT count(*) FROM link") == [0]
        # It was alive all the time: its controllers come again, and are written down again.
        await holder.links._look_once()
        await until_so(lambda: town.rows("SELECT 1 FROM link"))
        await building.connected()
        assert (await other.ask()).state is RequestState.GRANTED


async def _unheard(listener, replica, seconds):
    """Let the last word of a replica be new to another one so long ago."""
    await listener.links._look_once()
    word, _ = listener.links._others[replica.links.replica]
    listener.links._others[replica.links.replica] = word, time.monotonic() - seconds


@pytest.mark.parametrize("days", [-1, 1])
async def test_a_replica_whose_clock_is_wrong_strikes_nobody_off_and_is_asked(town, wire, days, caplog):
    async with Replica(town, wire) as other, Replica(town, wire) as holder, Linked(town, wire.where) as building:
        await building.connected()
        now = town.now
        await other.links._look_once()
        assert "clocks_differ" not in caplog.text
        holder.links.clock = lambda: now + timedelta(days=days)
        for _ in range(2):
            await holder.links._look_once()
            await other.links._look_once()
        assert "clocks_differ" in caplog.text
        assert await town.rows("SELECT count(*) FROM replica") == [2]
        assert len(holder.links) == 1
        assert (await other.ask()).state is RequestState.GRANTED


async def test_79_a_forged_word_of_another_replica_gets_nothing_signed(town, wire):
    """Whoever may only speak to the database can say what he likes in a replica's name."""
    async with Replica(town, wire) as other, Replica(town, wire), Linked(town, wire.where) as building:
        await building.connected()
        stranger = SignerKey(IDENTITY.verifier.name, Ed25519PrivateKey.generate())
        forged = messages.write_challenge(stranger, challenge_of(town, stranger))

        async def challenge(replica, connection, door):
            return forged

        other.ways.switchboard.challenge = challenge
        outcome = await other.ask()
        assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "WRONG_CHALLENGE")
        assert await town.rows("SELECT count(*) FROM issued") == [0]


@pytest.mark.parametrize("length", [2100, 7996])
async def test_a_challenge_that_no_notification_holds_takes_no_replicas_line_down(town, wire, length, caplog):
    """JSON takes white space. One building that is out of its mind, and nobody hears of any other's."""
    async with Replica(town, wire) as other, Replica(town, wire):
        async with await greet(wire.where, IDENTITY, placed(town)) as raw:
            await raw.hear(messages.Keys)
            asking = asyncio.create_task(other.ask())
            asked = await raw.hear(messages.AskChallenge)
            await raw.say(messages.Challenge(asked.id, padded(challenge_of(town), length)))
            outcome = await asking  # at once: its code says that nobody has waited in vain
            assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "WRONG_CHALLENGE")
            assert await raw.closed() == Close.VIOLATION
        async with Linked(town, wire.where) as building:
            await building.connected()
            assert (await other.ask()).state is RequestState.GRANTED
    assert "No line to the other replicas" not in caplog.text


async def test_a_reply_that_no_replica_would_read_is_not_sent(town, wire):
    """PostgreSQL would refuse it together with all that is sent beside it, and then again."""
    async with Replica(town, wire) as replica:
        replica.ways.switchboard._reply("A" * 22, Given(7, "x" * 8000))
        assert replica.ways.switchboard._outgoing.get_nowait().said == Failed(7, "UNREACHABLE", sent=True)


@pytest.mark.parametrize("replica", ["\N{LOCK}" * 22, "\0" * 22], ids=["88 bytes", "no text"])
async def test_a_forged_question_of_no_replica_gets_no_answer_that_takes_the_line_down(town, wire, replica, caplog):
    """Where the answer would go is a channel's name: too long for PostgreSQL, or nothing that it takes."""
    async with Replica(town, wire) as holder:
        forged = NOTIFICATION.encode(Wanted(7, replica, "A" * 22, 2**53, town.site.door.id)).decode()
        holder.ways.switchboard._heard(None, 0, "", forged)
        assert not holder.ways.switchboard._answering
        assert "is not understood" in caplog.text


async def test_79_a_forged_refusal_of_another_replica_gives_no_door_back(town, wire):
    """It says that the building is shut, in the holder's name; the door opened, and opens no second time."""
    async with Replica(town, wire) as holder, Linked(town, wire.where) as building, Replica(town, wire) as other:
        wire.lead_to(holder)
        await building.connected()
        switchboard = other.ways.switchboard

        async def forge():
            (number,) = switchboard._open
            note = NOTIFICATION.encode(Told(number, Word.REFUSED, "POLICY_HOURS")).decode()
            async with town.store.transaction() as session:
                notify = text("SELECT pg_notify(:channel, :note)")
                await session.execute(notify, {"channel": f"vestibule_{other.links.replica}", "note": note})
            await until(lambda: not switchboard._open)

        building.before_present = forge
        outcome = await other.ask()
        assert (outcome.state, outcome.code) == (RequestState.REFUSED_BY_BUILDING, "POLICY_HOURS")
        await until(lambda: town.site.pulses)
        assert (await other.ask()).code == Reason.ALREADY_ASKED
        assert (town.site.pulses, len(building.tokens)) == (1, 1)
        await until_so(lambda: _is(town.rows("SELECT kind FROM alarm"), ["contradicted"]))


async def test_a_door_that_a_building_did_not_open_may_be_asked_for_once_more_whichever_replica_is_asked(town, wire):
    """Whoever holds the link has heard it, and writes it down."""
    async with Replica(town, wire) as other, Replica(town, wire), Linked(town, wire.where) as building:
        await building.connected()
        town.site.carrier.hours = (Hours(frozenset(Day), clock(3), clock(4)),)
        building.before_present = lambda: _apply(town)
        outcome = await other.ask()
        assert (outcome.state, outcome.code) == (RequestState.REFUSED_BY_BUILDING, "POLICY_HOURS")
        town.site.carrier.hours = ()
        assert (await other.ask()).state is RequestState.GRANTED
        assert (await other.ask()).code == Reason.ALREADY_ASKED
        assert (town.site.pulses, len(set(building.tokens))) == (1, 2)


async def _apply(town):
    town.site.controller.apply(town.site.building, town.site.strikes)


async def test_79_a_token_that_was_listened_to_is_passed_on_once_and_another_text_is_not_taken_for_it(town, wire):
    """Else a copy could open the door after the first one was refused, and the door had been given back."""
    async with Replica(town, wire) as other, Replica(town, wire) as holder, Linked(town, wire.where) as building:
        await building.connected()
        (connection,) = holder.links._here

        async def hand(text):
            return await holder.ways._put(Handed(7, other.links.replica, connection, 2**53, text))

        copies = []

        async def copy():
            copies.append(await hand(building.tokens[0]))

        building.before_present = copy
        assert (await other.ask()).state is RequestState.GRANTED
        copies.append(await hand(building.tokens[0]))
        copies.append(await hand("a.b.c"))
        assert copies == [Failed(7, "UNREACHABLE", sent=False)] * 3
        assert (town.site.pulses, len(building.tokens)) == (1, 1)


# ---- one controller, two links ----


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_second_link_at_another_replica_ends_the_first(town, wire, monkeypatch, is_told):
    """At once; and if what the other one told was lost, when it next looks."""
    monkeypatch.setattr(links, "LOOK_EVERY", 0.1)
    doors = placed(town)
    async with Replica(town, wire) as one, await greet(wire.where, IDENTITY, doors, instance=bytes(16)) as first:
        await first.hear(messages.Keys)
        async with Replica(town, wire) as two:
            if not is_told:
                two.links.elsewhere = lambda before, instance: None
            async with await greet(wire.where, IDENTITY, doors, instance=bytes(16)) as second:
                await second.hear(messages.Keys)
                assert await first.closed() == Close.TAKEN_OVER
                await until(lambda: (len(one.links), len(two.links)) == (0, 1))
    assert await town.rows("SELECT kind FROM alarm") == []


async def test_two_copies_of_an_installation_at_two_replicas_are_an_alarm(town, wire):
    async with Replica(town, wire), Linked(town, wire.where) as first:
        await first.connected()
        async with Replica(town, wire) as two, Linked(town, wire.where) as copy:
            await copy.connected()
            await until(lambda: first.line.state is LinkState.TAKEN_OVER)
            await until_so(lambda: town.rows("SELECT 1 FROM alarm WHERE kind = 'second_link'"))
            assert (await two.ask()).state is RequestState.GRANTED
            assert (len(copy.tokens), first.tokens) == (1, [])


# ---- killed ----


@dataclass
class Killed:
    """A replica in a process of its own."""

    process: asyncio.subprocess.Process
    port: int

    @classmethod
    async def started(cls, town, wire, point):
        database = town.store.url.render_as_string(hide_password=False).replace("+asyncpg", "")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.carrier.replica_process", database, str(town.folder), wire.where, point),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process, int(await process.stdout.readline()))

    def ask(self):
        self.process.stdin.write(b"\n")

    async def is_gone(self):
        async with asyncio.timeout(30):
            assert await self.process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("point, moved", [("signed", 0), ("answered", 1)])
async def test_a_replica_killed_between_signing_and_outcome_leaves_an_honest_answer(town, wire, point, moved):
    """The link is another one's, which hears from the building itself what became of the token."""
    async with Replica(town, wire) as holder, Linked(town, wire.where) as building:
        await building.connected()
        asker = await Killed.started(town, wire, point)
        asker.ask()
        await asker.is_gone()
        expected = "granted" if moved else "signed"
        await until_so(lambda: _is(states(town), [expected]))
        assert await settle(town.store, town.now + timedelta(seconds=36)) == (0, 1 - moved)
        assert (await holder.ask()).code == Reason.ALREADY_ASKED
        assert (town.site.pulses, len(building.tokens)) == (moved, moved)
        signed = await town.rows("SELECT state FROM request WHERE signed_jti IS NOT NULL")
        assert signed == ["granted" if moved else "unknown"]


@pytest.mark.parametrize("point, moved", [("handed", 0), ("passed", 1)])
async def test_a_replica_killed_while_it_passes_a_token_on_leaves_an_honest_answer(
    town, wire, point, moved, monkeypatch
):
    monkeypatch.setattr(decide, "UNLOCK_WAIT", 1.0)
    async with Replica(town, wire) as asker, Linked(town, wire.where) as building:
        await building.connected()
        holder = await Killed.started(town, wire, point)
        wire.lead_to(holder)
        building.tells_acceptances = False
        wire.cut()
        await until(lambda: not len(asker.links) and len(building.sets) == 2)  # the other replica has it
        outcome = await asker.ask()
        await holder.is_gone()
        assert (outcome.state, town.site.pulses) == (RequestState.UNKNOWN, moved)
        assert (await asker.ask()).code == Reason.ALREADY_ASKED
        wire.lead_to(asker)
        wire.cut()
        await until(lambda: len(asker.links))
        await building.connected()
        await building.tell_acceptances()
        assert (await asker.ask(stop=town.stops[1])).state is RequestState.GRANTED
        await until_so(lambda: _is(states_of(town, outcome.request), ["granted" if moved else "unknown"]))
        assert (town.site.pulses, len(building.tokens)) == (moved + 1, moved + 1)


async def states_of(town, request):
    return await town.rows(f"SELECT state FROM request WHERE id = '{request}'")


# ---- PostgreSQL ----


async def test_postgresql_restarted_the_replicas_find_each_other_again(town, wire, cluster):
    async with Replica(town, wire) as one, Replica(town, wire) as two, Linked(town, wire.where) as building:
        await building.connected()
        link = building.line
        await asyncio.to_thread(cluster.kill)
        for replica in (one, two):
            await until(lambda replica=replica: not replica.ways.switchboard.is_up.is_set())
        await asyncio.to_thread(cluster.start)
        for replica in (one, two):
            await until(replica.ways.switchboard.is_up.is_set)
        assert link.is_connected  # a link needs no database
        for replica, stop in zip((one, two), town.stops, strict=False):
            assert (await replica.ask(stop=stop)).state is RequestState.GRANTED
        assert town.site.pulses == 2


@pytest.mark.parametrize("point", ["before_present", "after_present"])
async def test_postgresql_restarted_while_a_token_is_with_the_building_loses_no_answer(town, wire, cluster, point):
    async def restart():
        await asyncio.to_thread(cluster.restart)

    async with Replica(town, wire), Linked(town, wire.where) as building:
        await building.connected()
        setattr(building, point, restart)
        async with Replica(town, wire) as other:
            assert (await other.ask()).state is RequestState.GRANTED
        assert town.site.pulses == 1
    assert await states(town) == ["granted"]


# ---- cut at random ----


@pytest.mark.parametrize(
    "seed, stops", [(1, 4), (2, 4), *(pytest.param(seed, 40, marks=pytest.mark.long) for seed in range(3, 6))]
)
async def test_links_cut_at_random_moments_leave_honest_answers_and_open_each_stop_once(
    cluster, tmp_path, wire, monkeypatch, seed, stops
):
    monkeypatch.setattr(decide, "UNLOCK_WAIT", 3.0)
    chance = random.Random(seed)
    town = await founded(cluster, tmp_path, stops)
    async with (
        town.site,
        Replica(town, wire) as one,
        Replica(town, wire) as two,
        Linked(town, wire.where) as building,
    ):
        await building.connected()
        begun = time.monotonic()
        first = [(await two.ask(stop=town.stops[0])).state]
        took = time.monotonic() - begun
        for stop in town.stops[1:]:
            await building.connected()
            await until_so(lambda: _link_is_here(town, one, two))
            asking = asyncio.create_task(chance.choice([one, two]).ask(stop=stop))
            await asyncio.sleep(chance.uniform(0, 1.3 * took))
            wire.lead_to(chance.choice([one, two]))
            wire.cut()
            first.append((await asking).state)
        await building.connected()
        assert set(first) <= {RequestState.GRANTED, RequestState.UNKNOWN, RequestState.UNREACHABLE}
        opened = await opened_by_stop(town)
        for stop, state in zip(town.stops, first, strict=True):
            if state is not RequestState.UNKNOWN:
                assert opened.count(stop) == (state is RequestState.GRANTED)
        await until_so(lambda: _link_is_here(town, one, two))
        # What was not opened is asked for again, and what is unknown is found out.
        again = [(await one.ask(stop=stop)).state for stop in town.stops]
        for before, after in zip(first, again, strict=True):
            assert (after is RequestState.GRANTED) == (before is RequestState.UNREACHABLE)
        await building.tell_acceptances()
        opened = await opened_by_stop(town)
        assert len(opened) == len(set(opened))
        await until_so(lambda: _is(_granted(town), sorted(opened)))
        assert await town.rows("SELECT * FROM alarm") == []
        assert town.site.pulses == len(opened)
    await town.store.close()


async def opened_by_stop(town):
    """Return for which stops the building has spent tokens, a stop as often as it did."""
    stop_of = dict(await town.rows("SELECT i.jti, r.stop_id FROM issued AS i JOIN request AS r ON r.id = i.request_id"))
    read = await asyncio.wrap_future(town.site.journal.accepted(town.carrier.issuer, 0))
    return [stop_of[spend.jti] for spend in read.spends]


async def _granted(town):
    return sorted(await town.rows("SELECT stop_id FROM request WHERE state = 'granted'"))


async def _link_is_here(town, *replicas):
    held = {connection for replica in replicas for connection in replica.links._here}
    return set(await town.rows("SELECT connection FROM link")) & held


async def _is(found, expected):
    return await found == expected
