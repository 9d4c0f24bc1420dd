"""The controller: reach, spend, release, in this order; one thing at a time at each door.

Attacks are in test_attacks.py.
"""

import asyncio
import sqlite3
from dataclasses import replace

import pytest

from tests.simulated import Carrier, Clock, Moment, SimulatedStrike, Site, open_journal, refusals, some_doors
from vestibule_core import door_task, history, policy
from vestibule_core.door import Lock, Opener
from vestibule_core.errors import Refused
from vestibule_core.model import Actor, Code, DoorId, EventName, Limit, Means, Sense, Sensor, issuer
from vestibule_core.strike import Reading

ANN = Actor(user_id="ann-1", name="Ann", is_admin=True)
BOB = Actor(user_id="bob-2", name="Bob", is_admin=False)


def outcomes(site):
    return [event.outcome for event in site.events]


async def lock_is(site, lock, door=None):
    """Wait until the door is known to be so."""
    door = (door or site.door).id
    changed = asyncio.Event()
    unsubscribe = site.controller.subscribe(door, lambda _: changed.set())
    async with asyncio.timeout(10):
        while site.controller.state(door).lock is not lock:
            changed.clear()
            await changed.wait()
    unsubscribe()


# ---- one unlock ----


async def test_an_unlock_is_decided_recorded_released_and_settled(site):
    origin = object()
    decision = await site.controller.present(site.token(), site.carrier.principal, origin)
    assert decision.granted
    assert decision.door == site.door.id
    await site.told(EventName.DOOR_RELEASED)
    granted, released = site.events
    assert (granted.outcome, released.outcome) == (EventName.ACCESS_GRANTED, EventName.DOOR_RELEASED)
    assert granted.spend_id == released.spend_id == site.strike.pulses[0].spend_id
    assert (granted.sequence, released.sequence) == (1, 2)
    assert granted.origin is released.origin is site.strike.pulses[0].origin is origin
    assert (granted.means, granted.carrier, granted.issuer, granted.has_stop) == (
        Means.TOKEN, "Parcels", site.carrier.issuer, True,
    )  # fmt: skip
    assert site.strike.pulses[0].seconds == site.door.access_time, "the door's time, and never a token's"
    assert site.controller.state(site.door.id).lock is Lock.ACCESSED
    assert site.controller.state(site.door.id).by == Opener("Parcels")


async def test_the_spend_is_durable_before_the_strike_is_told(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        order = []
        site.strike.at(Moment.REACHED, lambda: order.append("reached"))
        site.strike.at(Moment.TOLD, lambda: order.append("told"))
        database = site.journal._writer.db

        class Watched:
            def execute(self, sql, *parameters):
                result = database.execute(sql, *parameters)
                if sql == "COMMIT":
                    order.append("committed")
                return result

            def __getattr__(self, name):
                return getattr(database, name)

        site.journal._writer.db = Watched()
        assert (await site.present(site.token())).granted
        assert order[:3] == ["reached", "committed", "told"]


async def test_a_caller_that_goes_away_does_not_stop_the_unlock(site):
    told, go_on = asyncio.Event(), asyncio.Event()

    async def wait():
        told.set()
        await go_on.wait()

    site.strike.at(Moment.TOLD, wait)
    caller = asyncio.create_task(site.present(site.token()))
    await told.wait()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    go_on.set()
    await site.told(EventName.DOOR_RELEASED)
    assert site.pulses == 1


async def test_a_dead_strike_delays_its_own_door_and_no_other(site):
    one, other = site.doors
    go_on = asyncio.Event()
    site.strikes[one.id].at(Moment.MOVED, go_on.wait)
    waiting = asyncio.create_task(site.present(site.token()))
    await site.strikes[one.id].until(lambda strike: strike.commands == 1)
    text = site.carrier.token(site.challenge(other), aud=other.id)
    assert (await site.present(text)).granted
    assert not waiting.done()
    go_on.set()
    assert (await waiting).granted


# ---- how a strike can fail ----

FAILURES = [
    # what the strike does, code, outcome told, state in the journal, lock, pulses, sentence
    (lambda s: s.refuse(), "STRIKE_REFUSED", "release_failed", "FAILED", Lock.LOCKED, 0, "it said no"),
    (lambda s: s.at(Moment.TOLD, s.cut_power), "STRIKE_UNREACHABLE", "release_failed", "FAILED", Lock.UNKNOWN, 0,
     "the power failed between reach and release: the token is burned"),
    (lambda s: s.lose_the_answer(), "OUTCOME_UNKNOWN", "outcome_unknown", "UNKNOWN", Lock.ACCESSED, 1,
     "it moved, and the answer was lost; its own reading tells"),
    (lambda s: s.lose_the_answer(moved=False), "OUTCOME_UNKNOWN", "outcome_unknown", "UNKNOWN", Lock.UNKNOWN, 0,
     "it did not move, and nobody knows"),
    (lambda s: s.answer_nonsense(moved=False), "OUTCOME_UNKNOWN", "outcome_unknown", "UNKNOWN", Lock.UNKNOWN, 0,
     "a driver's bug says nothing about the bolt"),
    (lambda s: s.answer_nonsense(TimeoutError(), moved=False), "OUTCOME_UNKNOWN", "outcome_unknown", "UNKNOWN",
     Lock.UNKNOWN, 0, "a timeout of the driver's own"),
    (lambda s: s.hang(moved=False), "OUTCOME_UNKNOWN", "outcome_unknown", "UNKNOWN", Lock.UNKNOWN, 0,
     "no answer at all: the controller's deadline ends it"),
    (lambda s: s.answer_nonsense(asyncio.CancelledError(), moved=False), "OUTCOME_UNKNOWN", "outcome_unknown",
     "UNKNOWN", Lock.UNKNOWN, 0, "something inside the driver was cancelled"),
]  # fmt: skip


@pytest.mark.parametrize("fail, code, told, state, lock, pulses, sentence", FAILURES, ids=[row[-1] for row in FAILURES])
async def test_a_release_that_fails_is_told_and_never_tried_again(
    tmp_path, monkeypatch, fail, code, told, state, lock, pulses, sentence
):
    monkeypatch.setattr(door_task, "STRIKE_DEADLINE", 0.05)
    async with Site(tmp_path / "journal.db") as site:
        await lock_is(site, Lock.LOCKED)
        fail(site.strike)
        text = site.token()
        async with asyncio.timeout(2):
            assert (await site.controller.present(text, site.carrier.principal)).code == code
        await site.told(EventName(told))
        await lock_is(site, lock)
        site.strike.obey()
        assert (await site.present(text)).code is Code.ALREADY_SPENT
        assert site.pulses == pulses
    assert [row[1] for row in site.spent()] == [state]


async def test_jamming_burns_no_token(site):
    site.strike.cut_power()
    text = site.token()
    assert (await site.present(text)).code is Code.STRIKE_UNREACHABLE
    site.strike.restore_power()
    assert (await site.present(text)).granted


async def test_a_strike_that_cannot_be_found_in_time_burns_no_token(site, monkeypatch):
    monkeypatch.setattr(door_task, "REACH_DEADLINE", 0.02)
    site.strike.at(Moment.REACHED, lambda: asyncio.Event().wait())
    text = site.token()
    assert (await site.present(text)).code is Code.STRIKE_UNREACHABLE
    site.strike.at(Moment.REACHED, lambda: None)
    assert (await site.present(text)).granted


async def test_a_bug_in_reach_burns_no_token_and_ends_no_door(site):
    site.strike.at(Moment.REACHED, lambda: 1 // 0)
    text = site.token()
    assert (await site.present(text)).code is Code.STRIKE_UNREACHABLE
    site.strike.at(Moment.REACHED, lambda: None)
    assert (await site.present(text)).granted


# ---- time ----


async def test_who_has_waited_too_long_is_not_let_in(site):
    """Nobody may stand at the door any more (A.2 step 12). Before the spend it burns nothing."""
    text = site.token()
    site.strike.at(Moment.REACHED, lambda: site.clock.advance(5.1))
    assert (await site.present(text)).code is Code.LATE
    site.strike.at(Moment.REACHED, lambda: None)
    assert site.pulses == 0
    assert (await site.present(text)).granted


async def test_who_has_gone_before_the_spend_burns_nothing_and_who_goes_later_stops_nothing(site):
    text, gone = site.token(), []

    def present():
        return site.controller.present(text, site.carrier.principal, is_wanted=lambda: not gone)

    site.strike.at(Moment.REACHED, lambda: gone.append("before"))
    assert (await present()).code is Code.LATE
    gone.clear()
    site.strike.at(Moment.REACHED, lambda: None)
    site.strike.at(Moment.TOLD, lambda: gone.append("after"))
    assert (await present()).granted
    assert (gone, site.pulses) == (["after"], 1)


async def test_a_commit_that_stalls_burns_the_token_and_moves_nothing(tmp_path):
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        database = site.journal._writer.db

        class Slow:
            def execute(self, sql, *parameters):
                if sql == "COMMIT":
                    site.clock.advance(30)
                return database.execute(sql, *parameters)

            def __getattr__(self, name):
                return getattr(database, name)

        site.journal._writer.db = Slow()
        assert (await site.present(text := site.token())).code is Code.LATE
        site.journal._writer.db = database
        await site.told(EventName.RELEASE_FAILED)
        assert (await site.present(text)).code is Code.ALREADY_SPENT
        assert site.pulses == 0
    assert [row[1] for row in site.spent()] == ["FAILED"]
    assert site.rows("SELECT key FROM meta WHERE key GLOB 'release:*'") == []


async def test_a_clock_that_steps_voids_all_challenges(site):
    """A snapshot was resumed: what was promised before it may have been kept already."""
    text = site.token()
    site.clock.set_wall(by=6)
    assert (await site.present(text)).code is Code.NONCE_UNKNOWN
    assert (await site.present(site.token())).granted


async def test_a_clock_that_is_disciplined_voids_nothing(site):
    text = site.token()
    site.clock.set_wall(by=-4)
    assert (await site.present(text)).granted


# ---- a release that the controller ends ----


async def test_the_controller_ends_a_release_that_the_strike_does_not(tmp_path):
    async with Site(tmp_path / "journal.db", device_timed=False, access_time=0.01) as site:
        assert (await site.present(site.token())).granted
        site.clock.advance(0.02)
        await site.strike.until(lambda strike: strike.times_secured == 1)
        await lock_is(site, Lock.LOCKED)


async def test_a_release_that_cannot_be_ended_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr("vestibule_core.door.SECURE_AGAIN", 0.01)
    async with Site(tmp_path / "journal.db", device_timed=False, access_time=0.01) as site:
        assert (await site.present(site.token())).granted
        site.strike.refuse()
        site.clock.advance(0.02)
        await lock_is(site, Lock.UNKNOWN)
        site.strike.answer_nonsense(moved=False)
        site.clock.advance(0.02)
        await asyncio.sleep(0.03)
        site.strike.obey()
        site.clock.advance(0.02)
        await lock_is(site, Lock.LOCKED)


async def test_others_who_want_in_do_not_keep_a_door_open(tmp_path):
    """The end of a release comes before whatever waits at the door."""
    async with Site(tmp_path / "journal.db", device_timed=False, access_time=0.01) as site:
        assert (await site.present(site.token())).granted
        order = []

        async def jammed():
            order.append("reach")
            await asyncio.sleep(0)
            site.clock.advance(0.02)
            site.strike._powered = False

        site.strike.at(Moment.REACHED, jammed)
        site.strike.at(Moment.TOLD_TO_SECURE, lambda: order.append("secure"))
        await asyncio.gather(*(site.controller.by_hand.open(site.door.id, ANN) for _ in range(20)))
        assert "secure" in order[:3]
        site.strike.restore_power()


async def test_the_program_that_ends_puts_the_strike_back(tmp_path):
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        assert (await site.present(site.token())).granted
    assert site.strike.times_secured == 1
    assert site.rows("SELECT key FROM meta WHERE key GLOB 'release:*'") == []


async def test_a_release_that_failed_does_not_take_the_note_of_the_next_one(tmp_path):
    """The second release is under way: if the program dies now, the next start has to end it."""
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        site.strike.refuse()
        site.strike.at(Moment.REACHED, lambda: site.strike.obey() if site.strike.times_reached > 1 else None)
        one, other = await asyncio.gather(*(site.present(site.token()) for _ in range(2)))
        assert (one.code, other.code) == (Code.STRIKE_REFUSED, Code.GRANTED)
        await site.controller.recorded()
        noted = await asyncio.to_thread(
            lambda: site.journal._writer.db.execute("SELECT count(*) FROM meta WHERE key GLOB 'release:*'").fetchone()
        )
        assert site.strike.bolt is Reading.RELEASED
        assert noted == (1,)


async def test_a_bug_in_an_unlock_ends_no_door_and_claims_nothing(site, monkeypatch, caplog):
    """Whatever goes wrong in our own code: the caller hears that the door may have opened, the next one finds it."""
    text, other = site.token(), site.token()
    with monkeypatch.context() as broken:
        broken.setattr(door_task, "advance", lambda *_: 1 / 0)
        assert (await site.present(text)).code is Code.OUTCOME_UNKNOWN
    assert "ZeroDivisionError" in caplog.text
    assert (await site.present(other)).granted
    assert len(site.strike.pulses) == 1


async def test_a_door_whose_task_is_cancelled_ends(site):
    """Somebody cancels every task at the end of the program; that is not a strike's failure to be survived."""
    site.strike.hang()
    waiting = asyncio.create_task(site.present(site.token()))
    await site.strike.until(lambda strike: strike.pulses)
    task = site.controller._doors[site.door.id]._task
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    waiting.cancel()
    del site.controller._doors[site.door.id]


async def test_a_contact_that_chatters_takes_one_place_in_the_queue(site, monkeypatch):
    monkeypatch.setattr(door_task, "QUEUE", 2)
    site.strike.chatter(50)
    assert (await site.present(site.token())).granted


async def test_a_building_that_changes_after_the_end_starts_nothing(site):
    text = site.token()
    await site.controller.stop()
    site.controller.apply(site.building, site.strikes)
    assert (await site.present(text)).code is Code.STOPPING
    assert (await site.controller.by_hand.open(site.door.id, ANN)).code is Code.STOPPING
    with pytest.raises(Refused, match="STOPPING"):
        site.challenge()
    assert site.strike.pulses == []


# ---- by hand ----


async def test_a_person_opens_by_hand_and_is_recorded(tmp_path):
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        assert (await site.controller.by_hand.open(site.door.id, BOB)).granted
        await site.told(EventName.DOOR_RELEASED)
        assert [event.means for event in site.events] == [Means.MANUAL, Means.MANUAL]
        assert site.controller.state(site.door.id).by == Opener("Bob", "bob-2")
    assert site.rows("SELECT json FROM person") == [('{"user":"Bob","user_id":"bob-2"}',)]
    assert all(b"Bob" not in leaf.raw for leaf in site.leaves())


async def test_a_door_that_is_not_ours_is_not_opened_by_hand(site):
    other = some_doors(1, "another building")[0].id
    assert (await site.controller.by_hand.open(other, ANN)).code is Code.WRONG_DOOR


@pytest.mark.parametrize(
    "who, code, pulses", [(ANN, Code.GRANTED, 1), (BOB, Code.STORE_FAILED, 0)], ids=["admin", "user"]
)
async def test_without_a_journal_only_an_administrator_opens_and_unrecorded(tmp_path, who, code, pulses):
    async with Site(tmp_path / "journal.db") as site:
        database = site.journal._writer.db

        class Broken:
            def execute(self, sql, *_):
                raise sqlite3.OperationalError("disk I/O error")

            def __getattr__(self, name):
                return getattr(database, name)

        site.journal._writer.db = Broken()
        assert (await site.controller.by_hand.open(site.door.id, who)).code is code
        await site.told(EventName.DOOR_RELEASED if pulses else EventName.ACCESS_DENIED)
        assert {event.sequence for event in site.events} == {None}
        assert site.pulses == pulses


# ---- what hosts ask ----


async def test_a_token_that_is_presented_at_another_door_than_its_own_opens_neither(site):
    one, other = site.doors
    text = site.token()
    refused = await site.controller.present(text, site.carrier.principal, at=other.id)
    assert (refused.code, refused.door) == (Code.WRONG_DOOR, one.id)
    assert site.pulses == 0
    assert (await site.controller.present(text, site.carrier.principal, at=one.id)).granted


async def test_challenges_are_for_doors_of_ours_and_carriers_that_were_granted_them(tmp_path):
    doors = some_doors(2)
    async with Site(tmp_path / "journal.db", doors=2, carriers=[Carrier("Parcels", doors[:1])]) as site:
        for door, who, code in [
            (some_doors(1, "another")[0].id, site.carrier.issuer, Code.WRONG_DOOR),
            (doors[0].id, issuer("https://stranger.example"), Code.WRONG_ISSUER),
            (doors[1].id, site.carrier.issuer, Code.POLICY_CARRIER_DOOR),
        ]:
            with pytest.raises(Refused) as refused:
                site.controller.challenge(door, who)
            assert refused.value.code is code
        challenge = site.controller.challenge(doors[0].id, site.carrier.issuer)
        assert (challenge.door, challenge.ttl, len(challenge.nonce)) == (doors[0].id, 60, 22)


async def test_evidence_outside_of_the_limits_names_the_limit(site):
    decision = await site.present(site.token(chk={"drv": "badge"}))
    assert (decision.code, decision.limit) == (Code.POLICY_EVIDENCE, Limit.METHOD)


async def test_a_listener_hears_each_new_state_until_it_stops(site):
    heard = []

    def broken(_):
        raise ZeroDivisionError

    site.controller.subscribe(site.door.id, broken)
    unsubscribe = site.controller.subscribe(site.door.id, heard.append)
    site.strike.operate_by_someone_else(Reading.RELEASED)
    await lock_is(site, Lock.ACCESSED)
    assert [state.lock for state in heard][-1] is Lock.ACCESSED
    unsubscribe()
    unsubscribe()
    count = len(heard)
    site.strike.operate_by_someone_else(Reading.SECURED)
    await lock_is(site, Lock.LOCKED)
    assert len(heard) == count


async def test_a_host_that_fails_to_take_an_event_stops_nothing(tmp_path):
    site = Site(tmp_path / "journal.db")
    take = site._tell

    def fail(event):
        take(event)
        raise ZeroDivisionError

    site._tell = fail
    async with site:
        assert (await site.present(site.token())).granted
        assert (await site.present(site.token())).granted


async def test_too_many_at_one_door_are_sent_away(site, monkeypatch):
    monkeypatch.setattr(door_task, "QUEUE", 2)
    go_on = asyncio.Event()
    site.strike.at(Moment.REACHED, go_on.wait)
    waiting = [asyncio.create_task(site.present(site.token())) for _ in range(3)]
    await site.strike.until(lambda strike: strike.times_reached == 1)
    waiting += [asyncio.create_task(site.present(site.token())) for _ in range(3)]
    await asyncio.sleep(0)
    done = [task.result().code for task in waiting if task.done()]
    assert done
    assert set(done) == {Code.RATE_LIMITED}
    assert site.pulses == 0
    go_on.set()
    codes = [decision.code for decision in await asyncio.gather(*waiting)]
    assert codes.count(Code.GRANTED) == site.pulses == 6 - len(done)


async def test_memories_are_bounded_and_the_journal_remembers_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "RECENT", 2)
    monkeypatch.setattr(history, "RECENT_TEXTS", 2)
    async with Site(tmp_path / "journal.db") as site:
        texts = [site.token() for _ in range(5)]
        for text in texts:
            assert (await site.present(text)).granted
        assert len(site.controller._history.spent) == len(site.controller._history.texts) == 2
        for text in texts:
            assert (await site.present(text)).code is Code.ALREADY_SPENT
        assert site.pulses == 5


# ---- changes while it runs ----


async def test_a_new_access_time_is_that_of_the_next_pulse(site):
    doors = tuple(replace(door, access_time=7.0) for door in site.doors)
    site.controller.apply(policy.Building.of(doors, [site.carrier.admitted]), site.strikes)
    assert (await site.present(site.token())).granted
    assert site.strike.pulses[0].seconds == 7.0


async def test_a_new_strike_replaces_the_old_one_which_is_put_back(tmp_path):
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        assert (await site.present(site.token())).granted
        old, new = site.strike, SimulatedStrike(device_timed=False)
        site.strikes[site.door.id] = new
        site.controller.apply(site.building, site.strikes)
        assert (await site.present(site.token())).granted
        assert (old.times_secured, len(old.pulses), len(new.pulses)) == (1, 1, 1)
        assert old._listeners == []


async def test_a_door_that_is_taken_away_ends_its_release_and_sends_away_who_waits(tmp_path):
    async with Site(tmp_path / "journal.db", doors=2, device_timed=False) as site:
        go_on = asyncio.Event()
        site.strike.at(Moment.TOLD, go_on.wait)
        one = asyncio.create_task(site.present(site.token()))
        await site.strike.until(lambda strike: strike.times_reached == 1)
        other = asyncio.create_task(site.present(site.token()))
        await asyncio.sleep(0)
        building = policy.Building.of(site.doors[1:], [site.carrier.admitted])
        site.controller.apply(building, site.strikes)
        go_on.set()
        assert (await one).code in {Code.GRANTED, Code.WRONG_DOOR}
        assert (await other).code is not Code.GRANTED
        with pytest.raises(KeyError):
            site.controller.state(site.door.id)
        assert site.controller.building is building
    assert site.strike.bolt is Reading.SECURED


async def test_a_token_that_comes_while_the_program_ends_is_refused(tmp_path):
    site = Site(tmp_path / "journal.db")
    async with site:
        text = site.token()
        await site.controller.stop()
        decision = await site.present(text)
        assert not decision.granted
        await site.controller.stop()
    assert site.pulses == 0


async def test_those_who_wait_while_the_program_ends_get_an_answer(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        told, go_on = asyncio.Event(), asyncio.Event()

        async def hold():
            told.set()
            await go_on.wait()

        site.strike.at(Moment.TOLD, hold)
        waiting = [asyncio.create_task(site.present(site.token())) for _ in range(3)]
        await told.wait()
        stopping = asyncio.create_task(site.controller.stop())
        await asyncio.sleep(0)
        go_on.set()
        await stopping
        assert [task.result().code for task in waiting] == [Code.GRANTED, Code.STOPPING, Code.STOPPING]
    assert (refusals(site.events), site.pulses) == ([Code.STOPPING] * 2, 1)


async def test_nothing_is_released_at_start_and_the_unknown_is_told(tmp_path):
    clock = Clock()
    async with Site(tmp_path / "journal.db", clock=clock) as site:
        site.strike.hang()
        waiting = asyncio.create_task(site.present(site.token()))
        await site.strike.until(lambda strike: strike.commands == 1)
        waiting.cancel()
        site.strike.obey()
        site.controller._doors[site.door.id]._task.cancel()  # the program dies here
        await asyncio.gather(site.controller._doors.pop(site.door.id)._task, return_exceptions=True)
    async with site.reopen() as again:
        (event,) = await again.told(EventName.OUTCOME_UNKNOWN)
        assert (event.carrier, event.door) == ("Parcels", site.door.id)
        assert again.pulses == 1


async def test_what_a_strike_tells_afterwards_has_its_own_time_and_moves_nothing(site):
    await lock_is(site, Lock.LOCKED)
    before, at = site.controller.state(site.door.id), site.clock().wall - 3600
    site.controller.remembered(site.door.id, EventName.DOOR_FORCED_OPEN, at, {"strike:1": "7"})
    site.controller.remembered(site.door.id, EventName.DOOR_CLOSED, None, {"strike:1": "8"})
    site.controller.remembered(DoorId("door:gone"), EventName.DOOR_OPENED, at, {"strike:1": "9"})
    await site.told(EventName.DOOR_CLOSED)
    told = [(event.outcome, event.at, event.door) for event in site.events]
    assert told == [
        (EventName.DOOR_FORCED_OPEN, at, site.door.id),
        (EventName.DOOR_CLOSED, site.clock().wall, site.door.id),
    ]
    assert site.controller.state(site.door.id) == before


async def test_what_a_strike_tells_of_itself_comes_after_what_its_sensors_said_before(tmp_path):
    setup = {"sensors": frozenset({Sensor.TAMPER})}
    async with Site(tmp_path / "journal.db", setup=setup) as site:
        now, door = site.clock().wall, site.door.id
        site.controller.sense(door, Sensor.TAMPER, Sense.ACTIVE, now - 3)
        site.controller.remembered(door, EventName.STRIKE_PAIRING_OPENED, now - 2, {"strike:1": "7"})
        site.controller.remembered(door, EventName.STRIKE_SLOT_ADDED, now - 1, {"strike:1": "8"}, slot=3)
        site.controller.remembered(door, EventName.STRIKE_AUTHENTICATION_FAILED, now, {"strike:1": "9"}, count=255)
        site.controller.note(door, {"strike:1": "10"})
        await site.told(EventName.STRIKE_AUTHENTICATION_FAILED)
        assert [(event.outcome, event.at, event.slot, event.count) for event in site.events] == [
            (EventName.DOOR_TAMPERED, now - 3, None, None),
            (EventName.STRIKE_PAIRING_OPENED, now - 2, None, None),
            (EventName.STRIKE_SLOT_ADDED, now - 1, 3, None),
            (EventName.STRIKE_AUTHENTICATION_FAILED, now, None, 255),
        ]
        entries = await site.journal.newest_entries(door, 4)
        said = [entry.person and entry.person.read() for entry in reversed(entries)]
        assert said == [None, None, {"slot": 3}, {"count": 255}]
    journal = await asyncio.to_thread(open_journal, tmp_path / "journal.db")
    assert journal.notes()["strike:1"] == "10"
    await asyncio.to_thread(journal.close)


async def test_what_is_noted_is_known_after_a_restart(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        site.controller.remembered(site.door.id, EventName.DOOR_OPENED, 1.0, {"strike:1": "7"})
        site.controller.note(site.door.id, {"strike:2": "8"})
        site.controller.note(DoorId("door:gone"), {"strike:3": "9"})
    journal = await asyncio.to_thread(open_journal, tmp_path / "journal.db")
    notes = journal.notes()
    await asyncio.to_thread(journal.close)
    assert (notes["strike:1"], notes["strike:2"], notes["strike:3"]) == ("7", "8", "9")


async def test_a_note_that_cannot_be_written_stops_nothing(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        await asyncio.to_thread(site.journal.close)
        site.controller.note(site.door.id, {"strike:1": "7"})
        await site.controller.recorded()


async def test_a_sensor_that_is_late_has_its_own_time(tmp_path):
    setup = {"sensors": frozenset({Sensor.TAMPER})}
    async with Site(tmp_path / "journal.db", setup=setup) as site:
        at = site.clock().wall - 60
        site.controller.sense(site.door.id, Sensor.TAMPER, Sense.ACTIVE, at)
        await site.until(lambda state: state.tampered)
        await site.controller.recorded()
        assert [(event.outcome, event.at) for event in site.events] == [(EventName.DOOR_TAMPERED, at)]
