"""A building that is enrolled and lies, or is out of its mind: it fills nothing, hides nothing, and gets
nothing of others.
"""

import asyncio
import json
import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from aiohttp import WSMsgType
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from carrier import acceptances, alarms, audit, buildings, connection, enrolment, keys, links, lists
from carrier.acceptances import Acceptance, Finding, weigh
from carrier.decide import Answer, NotSent, record_outcome
from carrier.enrolment import Unwelcome, controller_id
from carrier.store import Store, database_url, schema
from carrier.store.tables import AlarmKind, RequestState
from tests.simulated import IDENTITY, some_doors
from vestibule_core import b64url
from vestibule_core.link import messages
from vestibule_core.link.messages import Close, Hello, LinkedDoor
from vestibule_core.model import Code, Word
from vestibule_core.note import SignerKey

from .linked import Linked, Replica, greet, invited, until, until_so
from .town import HOME, Town

OTHER = SignerKey("vestibule/other", Ed25519PrivateKey.from_private_bytes(bytes([7] * 32)))
WHO = controller_id(IDENTITY.verifier)


@pytest.fixture
async def small(tmp_path):
    """The same on SQLite alone."""
    store = Store(database_url(f"sqlite:///{tmp_path}/carrier.db"))
    await schema.migrate(store)
    town = await Town.founded(store, tmp_path)
    async with town.site:
        yield town
    await store.close()


def placed(doors, zone="Europe/Berlin"):
    return tuple(LinkedDoor(door.id, door.name, zone, *HOME) for door in doors)


async def says_hello(town, doors, *, key=IDENTITY, secret=None):
    """Let a hello, whose signature was verified, be taken."""
    hello = Hello(key.verifier, town.carrier.issuer, bytes(16), bytes(16), tuple(doors), 0, None)
    async with town.store.transaction() as session:
        return await enrolment.greet(session, hello, secret, "replica", "connection", town.now)


async def written(town):
    """Return what stands in the audit about the town's building, the oldest first."""
    async with town.store.transaction() as session:
        entries = await audit.newest(session, 1000, subject=town.building)
    return [(entry.who, entry.what, entry.detail) for entry in reversed(entries)]


async def sounded(town):
    return await town.rows("SELECT kind, subject FROM alarm ORDER BY id")


async def counting(town):
    """Return the details of the alarms that count others."""
    return [
        json.loads(detail) if isinstance(detail, str) else detail
        for detail in await town.rows("SELECT detail FROM alarm WHERE subject = 'more' ORDER BY id")
    ]


# ---- it grows ----


async def test_a_building_with_other_doors_in_each_hello_fills_no_database(town):
    """24 doors that nobody has heard of, 40 times: those that are offered and those with a stop are what is left."""
    for number in range(40):
        doors = placed(some_doors(messages.MAX_DOORS, f"generation {number}"))
        await says_hello(town, doors)
    kept = await town.rows(f"SELECT id FROM door WHERE building_id = '{town.building}'")
    assert len(kept) <= enrolment.MOST_KEPT + messages.MAX_DOORS
    assert {door.id for door in doors} | {town.site.door.id} <= {*kept}
    assert sorted(await town.rows("SELECT door_id FROM door_controller")) == sorted(door.id for door in doors)
    (named,) = await town.rows(f"SELECT lat FROM door WHERE id = '{town.site.door.id}'")
    assert named is None  # nobody offers it: it never opens
    assert len(await written(town)) <= 2 + enrolment.MOST_AUDITED


async def test_a_door_with_a_limit_that_was_set_by_hand_is_not_forgotten_for_a_flood_of_others(town):
    by_hand = some_doors(1, "by hand")[0]
    async with town.store.transaction() as session:
        place = buildings.NewDoor(by_hand.id, "Gate", HOME, 20)
        other = await buildings.add(session, "B", "Europe/Berlin", str(OTHER.verifier), (place,), "command", town.now)
    for number in range(12):
        await says_hello(town, placed(some_doors(messages.MAX_DOORS, f"generation {number}")), key=OTHER)
    assert await town.rows(f"SELECT position_radius_m FROM door WHERE id = '{by_hand.id}'") == [20]
    assert (await town.rows(f"SELECT count(*) FROM door WHERE building_id = '{other.id}'"))[0] <= 256 + 24
    assert await town.rows(f"SELECT count(*) FROM door WHERE building_id = '{town.building}'") == [1]


async def test_a_building_that_does_not_offer_a_door_for_a_while_keeps_it(town):
    await says_hello(town, [*placed(town.site.doors), *placed(some_doors(3, "the yard"))])
    await says_hello(town, [])
    assert await town.rows("SELECT count(*) FROM door") == [4]


async def test_a_building_with_other_names_in_each_hello_fills_no_audit_and_what_is_left_out_is_counted(town):
    before = len(await written(town))
    for number in range(50):
        zone = ("Europe/Vienna", "Europe/Berlin")[number % 2]
        await says_hello(town, [replace(each, name=f"Gate {number}") for each in placed(town.site.doors, zone)])
    rows = (await written(town))[before:]
    assert [what for _, what, _ in rows] == ["zone changed", "doors offered"] * 24 + ["changes left out"]
    assert rows[-1] == (WHO, "changes left out", {"zone changed": 26, "doors offered": 26})
    # The next day is another one.
    town.now += timedelta(days=1)
    await says_hello(town, placed(town.site.doors))
    assert (await written(town))[-1] == (WHO, "doors offered", {"offered": 1, "added": 0, "gone": 0, "changed": 1})


async def test_a_change_of_the_zone_is_not_left_out_for_many_changes_of_names(town):
    """Windows are judged in it: where there was another one, and when, has to be found."""
    for number in range(30):
        await says_hello(town, [replace(each, name=f"Gate {number}") for each in placed(town.site.doors)])
    await says_hello(town, placed(town.site.doors, "Pacific/Auckland"))
    changed = [detail for _, what, detail in await written(town) if what == "zone changed"]
    assert changed[-1]["new"] == "Pacific/Auckland"


async def test_the_same_hello_again_is_no_change(town):
    await says_hello(town, placed(town.site.doors))
    rows = await written(town)
    for _ in range(3):
        await says_hello(town, placed(town.site.doors))
    assert await written(town) == rows


async def test_a_flood_of_hellos_is_told_to_come_back_and_costs_the_database_nothing(small, wire, monkeypatch):
    monkeypatch.setattr(links, "HELLOS_AT_ONCE", 3.0)
    monkeypatch.setattr(links, "HELLOS_PER_SECOND", 1 / 600)  # none is given back while this runs
    async with Replica(small, wire) as cloud:
        for _ in range(3):  # as after cuts: a second hello in a minute is nothing
            async with await greet(wire.where, IDENTITY, placed(small.site.doors)) as raw:
                await raw.hear(messages.Keys)
        rows = await written(small)
        for number in range(5):
            doors = placed(some_doors(2, f"generation {number}"))
            async with await greet(wire.where, IDENTITY, doors) as raw:
                assert await raw.closed() == Close.GOING_AWAY
        assert await written(small) == rows
        assert await small.rows("SELECT count(*) FROM door") == [1]
        # Nobody else has fewer for it, and it may come again in time.
        code = await invited(small, wire.where)
        async with await greet(wire.where, OTHER, placed(some_doors(1, "another")), code.secret) as raw:
            await raw.hear(messages.Keys)
        ahead = SimpleNamespace(monotonic=lambda: time.monotonic() + 1 / links.HELLOS_PER_SECOND)
        monkeypatch.setattr(links, "time", ahead)
        async with Linked(small, wire.where) as building:
            await building.connected()
            assert (await cloud.ask()).state is RequestState.GRANTED


async def test_a_stranger_uses_up_nobodys_hellos(small, wire, monkeypatch):
    """A hello counts for whoever has signed it."""
    monkeypatch.setattr(links, "HELLOS_AT_ONCE", 1.0)
    async with Replica(small, wire):
        for _ in range(3):
            async with await greet(wire.where, OTHER, controller=IDENTITY.verifier) as raw:
                assert await raw.closed() == Close.NOT_ENROLLED
        async with await greet(wire.where, IDENTITY) as raw:
            await raw.hear(messages.Keys)


async def test_a_flood_of_acceptances_is_read_slowly_and_none_is_lost(small, wire, monkeypatch):
    monkeypatch.setattr(links, "SETTLE_AFTER", 0.01)
    monkeypatch.setattr(links, "ACCEPTED_AT_ONCE", 20.0)
    async with Replica(small, wire) as cloud:
        begun = time.monotonic()
        for link in range(2):  # a new link is no new right
            async with await greet(wire.where, IDENTITY, placed(small.site.doors)) as raw:
                await raw.hear(messages.Keys)
                for number in range(20):
                    said = messages.Accepted((20 * link + number).to_bytes(16), small.site.door.id, Code.GRANTED)
                    await raw.say(said)
                await until_so(lambda last=20 * (link + 1): small.rows(f"SELECT 1 FROM alarm WHERE id = {last}"))
                assert len(cloud.links) == 1
        assert time.monotonic() - begun >= 20 / links.ACCEPTED_PER_SECOND


@pytest.mark.parametrize("how", ["frames", "pings of the WebSocket"])
async def test_a_building_that_says_more_than_it_can_have_to_say_is_let_go_of(small, wire, monkeypatch, how):
    """What has come is read without a pause: a flood from one leaves no time for any other building or driver."""
    monkeypatch.setattr(connection, "FRAMES_AT_ONCE", 20.0)
    monkeypatch.setattr(connection, "FRAMES_PER_SECOND", 0.001)
    async with Replica(small, wire) as cloud, await greet(wire.where, IDENTITY, placed(small.site.doors)) as raw:
        await raw.hear(messages.Keys)

        async def talk():
            await (raw.say(messages.Pong()) if how == "frames" else raw.socket.ping(b"there?"))

        for _ in range(19):
            await talk()
        asking = asyncio.create_task(cloud.ask())
        asked = await hear_asked(raw)
        await raw.say(messages.NoChallenge(asked.id, Word.UNAVAILABLE))
        assert (await asking).code == "UNAVAILABLE"  # so far nothing is wrong
        await talk()
        assert await raw.closed() == Close.VIOLATION
        await until(lambda: not len(cloud.links))


async def hear_asked(raw):
    """Return what the cloud asks, whatever else it says before."""
    async with asyncio.timeout(20):
        while True:
            said = await raw.socket.receive()
            if said.type is WSMsgType.TEXT and '"challenge"' in said.data:
                return messages.FROM_CLOUD.decode(said.data.encode())


@pytest.mark.parametrize("key", [IDENTITY, OTHER], ids=["a building", "a stranger"])
async def test_whoever_goes_on_talking_when_told_to_go_is_cut_off(small, wire, monkeypatch, key):
    monkeypatch.setattr(links, "CLOSE_WAIT", 600.0)
    async with Replica(small, wire), await greet(wire.where, key, placed(small.site.doors)) as raw:
        if key is IDENTITY:
            await raw.hear(messages.Keys)
            await raw.socket.send_bytes(b"what no controller says")

        async def talk():
            while True:
                await raw.socket.ping(b"there?")
                await asyncio.sleep(0)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(talk(), 20)


async def test_connections_that_are_over_wait_for_no_list(small, wire, monkeypatch):
    """While lists cannot be signed, whoever connects again and again piles nothing up."""
    monkeypatch.setattr(links, "LIST_RETRY", 0.05)

    async def unusable(*_):
        raise keys.KeyUnusable("not there")

    monkeypatch.setattr(lists, "written", unusable)
    async with Replica(small, wire) as cloud:
        for _ in range(10):
            async with await greet(wire.where, IDENTITY) as raw:
                await raw.hear(messages.Keys)
        await until(lambda: not len(cloud.links))
        assert cloud.links._wanting == {}
        await asyncio.sleep(0.2)  # also what was being worked on
        assert cloud.links._wanting == {}
        monkeypatch.undo()
        async with Linked(small, wire.where) as building:
            await building.connected()
            await until(lambda: len(building.lists) == 2)


# ---- it hides ----


async def test_a_thief_is_not_hidden_by_a_hundred_alarms_that_wait(town):
    """Whoever has a stolen key at a building that lies, or lets it lie: the 101st is counted where all is shown."""
    told = [
        Acceptance(town.building, "controller:x", b64url.encode(number.to_bytes(16)), town.site.door.id, Code.GRANTED)
        for number in range(150)
    ]
    await acceptances.look_up(town.store, told[:100], town.now)
    assert len(await sounded(town)) == alarms.MOST
    assert await counting(town) == []
    await acceptances.look_up(town.store, told[100:], town.now)
    assert len(await sounded(town)) == alarms.MOST + 1
    last = {"last": told[-1].jti, "door": town.site.door.id, "code": "GRANTED", "controller": "controller:x"}
    assert await counting(town) == [{"count": 50, **last}]
    await acceptances.look_up(town.store, told[:100], town.now)  # as each reconnection tells
    assert (await counting(town))[0]["count"] == 50
    await acceptances.look_up(town.store, told[100:110], town.now)  # whose are not known apart
    assert (await counting(town))[0]["count"] == 60
    # Somebody looks: what comes then is counted anew, and written down again as soon as there is room.
    async with town.store.transaction() as session:
        (more,) = await alarms.listed(session, 1)
        await alarms.see(session, more.id, "key:somebody", town.now)
    await acceptances.look_up(town.store, [replace(told[0], jti="thief")], town.now)
    assert [each["count"] for each in await counting(town)] == [60, 1]
    async with town.store.transaction() as session:
        await alarms.see(session, 1, "key:somebody", town.now)
    await acceptances.look_up(town.store, [replace(told[0], jti="another")], town.now)
    assert (await sounded(town))[-1] == ("never_issued", "another")


async def test_what_one_building_piles_up_hides_nothing_of_another_building_or_kind(small):
    async with small.store.transaction() as session:
        for number in range(200):
            await alarms.sound(session, AlarmKind.NEVER_ISSUED, small.building, str(number), small.now)
        assert await alarms.sound(session, AlarmKind.NEVER_ISSUED, "building:other", "0", small.now)
        assert await alarms.sound(session, AlarmKind.CONTRADICTED, small.building, "0", small.now)


# ---- it contradicts itself ----

STRIKE = {Code.STRIKE_UNREACHABLE, Code.STRIKE_REFUSED}
SHUT = {Code.LOCKDOWN, Code.DOOR_BLOCKED, Code.TAMPERED, Code.JOURNAL_DISPUTED}
"""Why, a building does not say: DOOR_UNAVAILABLE."""
JUDGED_AGAIN = {
    Code.KEY_REVOKED,
    Code.WRONG_DOOR,
    Code.NOT_SPENDER,
    Code.NONCE_UNKNOWN,
    Code.NONCE_EXPIRED,
    Code.POLICY_CARRIER_DOOR,
    Code.POLICY_EVIDENCE,
    Code.POLICY_HOURS,
    Code.CLOCK_UNTRUSTED,
    Code.DELIVERIES_OFF,
    Code.CARRIER_LOCKED_OUT,
    Code.LATE,
    Code.STOPPING,
    *SHUT,
}
"""Between COMMIT and strike."""
OF_ACCEPTED = {Code.GRANTED, Code.OUTCOME_UNKNOWN, Code.STORE_FAILED, Code.ALREADY_SPENT, *STRIKE, *JUDGED_AGAIN}

GRANTED, REFUSED, UNKNOWN = RequestState.GRANTED, RequestState.REFUSED_BY_BUILDING, RequestState.UNKNOWN
HONEST = [
    # how far, the building's answer, what may be told of an acceptance then
    (RequestState.ASKED, None, set()),
    (RequestState.REFUSED, None, set()),
    (RequestState.UNREACHABLE, None, set()),  # signed, and certainly never left
    (RequestState.SIGNED, None, OF_ACCEPTED),
    (UNKNOWN, None, OF_ACCEPTED),
    (GRANTED, Answer(Word.GRANTED, "GRANTED"), {Code.GRANTED, Code.OUTCOME_UNKNOWN}),
    (GRANTED, Answer(Word.GRANTED), {Code.GRANTED, Code.OUTCOME_UNKNOWN}),
    (REFUSED, Answer(Word.UNAVAILABLE, "STRIKE_REFUSED"), {Code.STRIKE_REFUSED, Code.OUTCOME_UNKNOWN}),
    (REFUSED, Answer(Word.UNAVAILABLE, "LATE"), {Code.LATE, Code.OUTCOME_UNKNOWN}),
    (REFUSED, Answer(Word.ALREADY_USED, "ALREADY_SPENT"), {Code.ALREADY_SPENT, Code.OUTCOME_UNKNOWN}),
    (REFUSED, Answer(Word.REFUSED, "POLICY_HOURS"), {Code.POLICY_HOURS, Code.OUTCOME_UNKNOWN}),
    (REFUSED, Answer(Word.REFUSED, "DOOR_UNAVAILABLE"), {*SHUT, Code.OUTCOME_UNKNOWN}),
    (REFUSED, Answer(Word.INVALID_TOKEN), {Code.KEY_REVOKED, Code.OUTCOME_UNKNOWN}),
    (
        REFUSED,
        Answer(Word.UNAVAILABLE),
        {*STRIKE, Code.STORE_FAILED, Code.LATE, Code.STOPPING, Code.OUTCOME_UNKNOWN},
    ),
    (REFUSED, Answer(Word.UNAVAILABLE, "RATE_LIMITED"), set()),  # before it was looked at
    (REFUSED, Answer(Word.REFUSED, "POLICY_RATE"), set()),  # before it was spent
]


@pytest.mark.parametrize("state, before, honest", HONEST)
def test_what_a_building_may_say_of_an_acceptance_and_every_other_code_contradicts(state, before, honest):
    is_right = Finding.SETTLES if state in (RequestState.SIGNED, UNKNOWN) else Finding.AGREES
    assert {code: weigh(state, before, code) for code in Code} == {
        code: is_right if code in honest else Finding.CONTRADICTS for code in Code
    }


def test_every_state_of_a_request_is_in_the_table():
    assert {state for state, *_ in HONEST} == {*RequestState}


async def accepts(town, code, *, times=2):
    """Let the building say that it accepted the one token that was signed; told again, it is no other alarm."""
    (jti,) = await town.rows("SELECT jti FROM issued")
    told = Acceptance(town.building, WHO, jti, town.site.door.id, code)
    for _ in range(times):
        await acceptances.look_up(town.store, [told], town.now)
    return jti


@pytest.mark.parametrize("code", [Code.GRANTED, Code.STRIKE_REFUSED, Code.LATE, Code.OUTCOME_UNKNOWN])
async def test_a_building_that_accepted_a_token_that_never_left_is_an_alarm_whatever_came_of_it(town, code):
    async def gone():
        raise NotSent

    town.link.before_unlock = gone
    assert (await town.ask()).state is RequestState.UNREACHABLE
    jti = await accepts(town, code)
    assert await sounded(town) == [("contradicted", jti)]
    assert await town.rows("SELECT state FROM request") == ["unreachable"]


async def test_a_building_that_first_refused_a_token_and_then_accepted_it_is_an_alarm(town):
    town.site.strike.cut_power()
    assert (await town.ask()).state is RequestState.REFUSED_BY_BUILDING
    jti = await accepts(town, Code.GRANTED)
    assert await sounded(town) == [("contradicted", jti)]
    assert await town.rows("SELECT state FROM request") == ["refused_by_building"]


async def test_a_building_that_gets_a_second_token_by_a_lie_about_the_first_is_an_alarm(town):
    """It says that the token is not good, which gives the door back, and then that it was spent at the strike."""

    async def lies():
        (jti,) = await town.rows("SELECT jti FROM issued")
        await record_outcome(town.store, jti, Answer(Word.INVALID_TOKEN), town.now)

    town.link.before_unlock = lies
    await town.ask()
    assert await town.rows("SELECT opened_by FROM stop_door WHERE opened_by IS NOT NULL") == []
    jti = await accepts(town, Code.STRIKE_REFUSED)
    assert await sounded(town) == [("contradicted", jti)]


async def test_a_building_that_said_granted_and_then_that_its_strike_refused_is_an_alarm(town):
    assert (await town.ask()).state is RequestState.GRANTED
    jti = await accepts(town, Code.STRIKE_REFUSED)
    assert await sounded(town) == [("contradicted", jti)]


async def test_a_controller_that_was_killed_after_its_answer_and_knows_no_more_is_no_alarm(town):
    assert (await town.ask()).state is RequestState.GRANTED
    await accepts(town, Code.OUTCOME_UNKNOWN)
    assert await sounded(town) == []
    assert await town.rows("SELECT state FROM request") == ["granted"]


async def test_an_answer_that_comes_in_while_an_acceptance_is_looked_up_has_to_agree_with_it(small, monkeypatch):
    async def silent():
        raise TimeoutError

    small.link.after_unlock = silent
    small.site.strike.cut_power()
    assert (await small.ask()).state is RequestState.UNKNOWN
    record = acceptances.record_outcome

    async def overtaken(store, jti, answer, now, **options):
        await record(store, jti, Answer(Word.UNAVAILABLE, "LATE"), now)
        return await record(store, jti, answer, now, **options)

    monkeypatch.setattr(acceptances, "record_outcome", overtaken)
    jti = await accepts(small, Code.GRANTED, times=1)
    assert await sounded(small) == [("contradicted", jti)]


# ---- it takes what is not its own ----


async def enrolled(town, doors, *, key=OTHER):
    """Enrol another building by a code."""
    code = await invited(town, "parcels.example")
    return (await says_hello(town, doors, key=key, secret=code.secret)).building


async def removed(town):
    async with town.store.transaction() as session:
        await buildings.remove(session, town.building, "command", town.now)


async def owner(town):
    return (await town.rows(f"SELECT building_id FROM door WHERE id = '{town.site.door.id}'"))[0]


async def test_the_door_of_a_removed_building_is_not_taken_by_a_building_that_was_there_before(town):
    """It knows the id, from a token or a list: who comes back by a new code is to find its own doors."""
    await enrolled(town, placed(some_doors(2, "hostile")))
    town.now += timedelta(days=1)
    await removed(town)
    await says_hello(town, placed(town.site.doors), key=OTHER)
    assert await owner(town) == town.building
    assert await sounded(town) == [("door_of_another", town.site.door.id)]
    assert await town.rows(f"SELECT door_id FROM door_controller WHERE door_id = '{town.site.door.id}'") == []
    town.now += timedelta(days=1)
    again = await enrolled(town, placed(town.site.doors), key=IDENTITY)
    assert await owner(town) == again != town.building


async def test_the_door_of_a_removed_building_goes_to_the_new_controller_that_got_a_code_afterwards(town):
    """A gateway in place of a broken one: another identity, the same doors."""
    await removed(town)
    new = await enrolled(town, placed(some_doors(1, "the yard")))
    town.now += timedelta(hours=1)
    await says_hello(town, placed(town.site.doors), key=OTHER)  # they need not be in the hello with the code
    assert await owner(town) == new
    assert await sounded(town) == []


async def test_old_stops_of_a_removed_building_open_nothing_at_whoever_has_its_doors_now(town):
    await removed(town)
    new = await enrolled(town, placed(town.site.doors))
    assert (await town.rows(f"SELECT lat FROM door WHERE building_id = '{new}'"))[0] == HOME[0]
    outcome = await town.ask()
    assert outcome.state is RequestState.REFUSED
    assert await town.rows("SELECT count(*) FROM issued") == [0]


async def test_the_door_of_a_building_that_is_there_is_not_taken_by_a_code(town):
    code = await invited(town, "parcels.example")
    with pytest.raises(Unwelcome):
        await says_hello(town, placed(town.site.doors), key=OTHER, secret=code.secret)
    assert await owner(town) == town.building


# ---- what is written down of it ----


async def test_a_building_that_moves_its_clock_to_another_zone_is_seen_to(town):
    """A window is judged in the building's zone."""
    await says_hello(town, placed(town.site.doors, "Pacific/Kiritimati"))
    assert (WHO, "zone changed", {"old": "Europe/Berlin", "new": "Pacific/Kiritimati"}) in await written(town)
    await says_hello(town, placed(town.site.doors, "Nowhere/Nothing"))
    assert await town.rows("SELECT zone FROM building") == ["Pacific/Kiritimati"]
    assert [what for _, what, _ in await written(town)].count("zone changed") == 1


async def test_a_name_that_a_controller_gives_itself_is_in_no_audit(town):
    named = SignerKey("Erika-Mustermann", Ed25519PrivateKey.from_private_bytes(bytes([9] * 32)))
    building = await enrolled(town, placed(some_doors(1, "named")), key=named)
    assert await town.rows(f"SELECT who FROM audit WHERE what = 'controller enrolled' AND subject = '{building}'") == [
        controller_id(named.verifier)
    ]
    assert "Mustermann" not in repr(await town.rows("SELECT who, what, subject, detail FROM audit"))
