"""By hand: modes, lockdown, deliveries, tampering, the clock, PINs, and what sensors make of it all.

What is shut is durable before it is confirmed, holds before it is written, and survives whatever comes between. The
rule itself is in test_manual.py, each transition in test_door.py, SIGKILL in test_crash.py.
"""

import asyncio
import sqlite3
from collections import Counter
from dataclasses import replace

import pytest

from tests.simulated import Moment, SimulatedStrike, Site, open_journal, refusals, small_journal, some_doors
from vestibule_core import door as door_module
from vestibule_core import door_task, pin
from vestibule_core.bucket import Buckets
from vestibule_core.by_hand import MOST_RECEIPTS
from vestibule_core.door import GRACE, ON_ITS_WAY, Alarm, Lock, LockdownBegun, ModeChosen, Opener
from vestibule_core.manual import PIN_AGAIN, PIN_TRIES
from vestibule_core.model import Actor, Code, DoorMode, EventName, ManualRule, Means, RelockOn, Sense, Sensor
from vestibule_core.pin import Pin
from vestibule_core.policy import Building
from vestibule_core.strike import Reading

ANN = Actor(user_id="ann-1", name="Ann", is_admin=True)
BOB = Actor(user_id="bob-2", name="Bob", is_admin=False)
ROBOT = Actor(user_id=None, name=None, is_admin=False)

NORMAL, UNLOCKED, BLOCKED, LOCKED_DOWN = DoorMode
CONTACT, REX, TAMPER, MONITOR = Sensor
WATCHED = {"sensors": frozenset(Sensor), "held_open_time": 30.0, "pre_alarm_time": 10.0}


@pytest.fixture
async def ours(tmp_path):
    """A door with every sensor, whose releases the controller ends."""
    async with Site(tmp_path / "journal.db", device_timed=False, setup=WATCHED) as site:
        for sensor in Sensor:
            site.sense(sensor, Sense.INACTIVE)
        await site.until(lambda state: state.lock_monitor is Sense.INACTIVE)
        yield site


@pytest.fixture
def quick_pins(monkeypatch):
    """PINs whose hash costs nothing; returns what was looked at."""
    looked_at = []

    def digest(text, salt):
        looked_at.append(text)
        return salt + text.encode()

    monkeypatch.setattr(pin, "_digest", digest)
    return looked_at


class Stalled:
    """A journal that writes and keeps it to itself: ``written`` waits for a commit, ``go_on`` tells of all."""

    def __init__(self, site):
        self._journal, self._deliver = site.journal, site.journal._deliver
        self._held, self._seen = asyncio.Queue(), []
        self._journal._deliver = self._held.put_nowait

    async def written(self):
        self._seen.append(await self._held.get())

    def go_on(self):
        self._journal._deliver = self._deliver
        while not self._held.empty():
            self._seen.append(self._held.get_nowait())
        for results in self._seen:
            self._deliver(results)


def break_disk(site):
    """Let every statement of the journal fail from now on."""
    database = site.journal._writer.db

    class Broken:
        def execute(self, sql, *_):
            raise sqlite3.OperationalError("disk I/O error")

        def __getattr__(self, name):
            return getattr(database, name)

    site.journal._writer.db = Broken()


def mode(site, which, who=ANN, **kind):
    return site.controller.by_hand.set_mode(site.door.id, which, who, **kind)


def lockdown(site, on=True, who=ANN):
    return site.controller.by_hand.set_lockdown(on, who)


def by_hand(site, who=ANN, **kind):
    return site.controller.by_hand.open(site.door.id, who, **kind)


def notes(site, prefix=""):
    return dict(
        site.rows(f"SELECT key, value FROM meta WHERE key GLOB '{prefix}*' AND key NOT IN ('log', 'newest', 'keys')")
    )


# ---- modes ----


async def test_a_blocked_door_lets_nobody_in_also_after_a_restart(tmp_path):
    origin = object()
    async with Site(tmp_path / "journal.db") as site:
        text = site.token()
        assert (await mode(site, BLOCKED, BOB, origin=origin)).granted
        assert site.state.mode is BLOCKED
        (event,) = site.events
        assert (event.outcome, event.door, event.means) == (EventName.DOOR_BLOCKED, site.door.id, Means.MANUAL)
        assert (event.code, event.sequence, event.origin) == (Code.GRANTED, 1, origin)
        assert (await site.present(text)).code is Code.DOOR_BLOCKED
        assert (await by_hand(site)).code is Code.DOOR_BLOCKED
    assert notes(site) == {f"mode:{site.door.id}": "blocked"}
    assert site.rows("SELECT json FROM person WHERE seq = 1") == [('{"user":"Bob","user_id":"bob-2"}',)]
    async with site.reopen() as again:
        assert again.state.mode is BLOCKED
        assert (await by_hand(again)).code is Code.DOOR_BLOCKED
        assert (await mode(again, NORMAL)).granted
        assert (await by_hand(again)).granted
    assert notes(again) == {}
    async with again.reopen() as once_more:
        assert once_more.state.mode is NORMAL


async def test_a_door_that_is_held_open_grants_tokens_without_a_pulse(tmp_path):
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        assert (await mode(site, UNLOCKED)).granted
        assert (site.state.mode, site.state.lock, site.state.by) == (UNLOCKED, Lock.ACCESSED, Opener("Ann", "ann-1"))
        assert (site.strike.holds, site.strike.bolt) == (1, Reading.RELEASED)
        text = site.token()
        assert (await site.present(text)).granted
        assert (await site.present(text)).code is Code.ALREADY_SPENT
        assert site.state.by == Opener("Parcels")
        assert (await by_hand(site, BOB)).granted
        assert site.strike.pulses == []
        assert (await mode(site, NORMAL, BOB)).granted
        await site.told(EventName.DOOR_RELOCKED)
        assert site.outcomes == [
            EventName.DOOR_UNLOCKED,
            EventName.ACCESS_GRANTED,
            EventName.DOOR_ALREADY_UNLOCKED,
            EventName.ACCESS_GRANTED,
            EventName.DOOR_ALREADY_UNLOCKED,
            EventName.DOOR_NORMAL,
            EventName.DOOR_RELOCKED,
        ]
        assert (site.state.lock, site.strike.times_secured) == (Lock.LOCKED, 1)
        relocked = site.events[-1]
        assert (relocked.spend_id, relocked.code, relocked.means) == (None, None, None), "nobody's access"
    assert [state for _, state in site.spent()] == ["GRANTED"]
    assert notes(site) == {}


async def test_a_hold_outlasts_the_time_of_an_access(ours):
    assert (await by_hand(ours)).granted
    assert (await mode(ours, UNLOCKED)).granted
    ours.clock.advance(ours.door.access_time + 1)
    assert (await by_hand(ours)).granted  # the door has had a turn
    assert (ours.strike.bolt, ours.strike.times_secured) == (Reading.RELEASED, 0)
    assert (await mode(ours, NORMAL)).granted
    (relocked,) = await ours.told(EventName.DOOR_RELOCKED)
    assert relocked.spend_id is None, "the hold is over, and nobody's access"


async def test_the_same_mode_again_is_no_news(ours):
    for which in (NORMAL, UNLOCKED, UNLOCKED, BLOCKED, BLOCKED):
        assert (await mode(ours, which)).granted
    assert [name for name in ours.outcomes if name is not EventName.DOOR_RELOCKED] == [
        EventName.DOOR_UNLOCKED,
        EventName.DOOR_BLOCKED,
    ]
    assert ours.strike.holds == 1


@pytest.mark.parametrize("kind, which", [({}, UNLOCKED), ({}, LOCKED_DOWN), ({"device_timed": False}, LOCKED_DOWN)])
async def test_a_mode_that_the_door_cannot_have_is_refused_and_recorded(tmp_path, kind, which):
    async with Site(tmp_path / "journal.db", **kind) as site:
        assert (await mode(site, which)).code is Code.MODE_NOT_POSSIBLE
        (event,) = await site.told(EventName.ACCESS_DENIED)
        assert (event.code, event.means, event.door) == (Code.MODE_NOT_POSSIBLE, Means.MANUAL, site.door.id)
        assert (site.state.mode, site.controller.by_hand.locked_down, site.strike.holds) == (NORMAL, False, 0)
    ((person,),) = site.rows("SELECT json FROM person")
    assert f'"wanted":"{"lockdown_on" if which is LOCKED_DOWN else "door_unlocked"}"' in person


HOLDS_THAT_FAIL = [
    (lambda s: s.refuse(), Code.STRIKE_REFUSED, "it said no"),
    (lambda s: s.at(Moment.TOLD, s.cut_power), Code.STRIKE_UNREACHABLE, "there is no power"),
    (lambda s: s.lose_the_answer(), Code.OUTCOME_UNKNOWN, "it holds, and the answer was lost"),
    (lambda s: s.hang(moved=False), Code.OUTCOME_UNKNOWN, "no answer at all"),
    (lambda s: s.answer_nonsense(), Code.OUTCOME_UNKNOWN, "a driver's bug, after it moved"),
]


@pytest.mark.parametrize("fail, code, why", HOLDS_THAT_FAIL, ids=[row[-1] for row in HOLDS_THAT_FAIL])
async def test_a_hold_that_is_not_confirmed_is_none_and_is_put_back(tmp_path, monkeypatch, fail, code, why):
    monkeypatch.setattr(door_task, "STRIKE_DEADLINE", 0.05)
    monkeypatch.setattr(door_module, "SECURE_AGAIN", 0.01)
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        fail(site.strike)
        assert (await mode(site, UNLOCKED)).code is code
        assert site.state.mode is NORMAL
        assert (await site.told(EventName.DOOR_NORMAL))[-1].sequence
        site.strike.at(Moment.TOLD, lambda: None)
        site.strike.restore_power()
        site.strike.obey()
        await site.until(lambda state: _after(site, 0.02) and not state.securing and state.lock is Lock.LOCKED)
        assert site.strike.bolt is Reading.SECURED
    assert notes(site) == {}


async def test_a_blocked_door_is_not_held_open_in_one_step(ours):
    """A strike that does not hold would leave it neither blocked nor held."""
    assert (await mode(ours, BLOCKED)).granted
    assert (await mode(ours, UNLOCKED)).code is Code.DOOR_BLOCKED
    assert (ours.state.mode, ours.strike.holds) == (BLOCKED, 0)
    assert (await ours.present(ours.token())).code is Code.DOOR_BLOCKED


async def test_nobody_hides_anothers_wrong_pins_behind_refusals_of_their_own(tmp_path):
    door = {"pin": Pin.of("4711", bytes(16)), "manual": ManualRule.EVERYONE}
    async with Site(tmp_path / "journal.db", setup=door) as site:
        for _ in range(70):
            assert (await site.controller.by_hand.open(site.door.id, BOB)).code is Code.PIN_MISSING
        for _ in range(3):
            assert (await site.controller.by_hand.open(site.door.id, ROBOT, pin="0000")).code is Code.PIN_WRONG
    refused = Counter(leaf.says["code"] for leaf in site.leaves() if leaf.says["kind"] == "access_denied")
    assert refused == {"PIN_MISSING": 60, "PIN_WRONG": 3}


async def test_a_hold_that_the_end_of_the_program_ends_is_told(tmp_path):
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        assert (await mode(site, UNLOCKED)).granted
    assert [leaf.says["kind"] for leaf in site.leaves()] == ["door_unlocked", "door_normal", "door_relocked"]
    assert notes(site) == {}


async def test_every_note_of_a_release_goes_when_it_has_ended(tmp_path):
    """An access and a hold that were written in one go: the journal has the note of the one that came later."""
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        await asyncio.gather(site.present(site.token()), mode(site, UNLOCKED), by_hand(site))
        assert (await mode(site, NORMAL)).granted
        await site.until(lambda state: state.lock is Lock.LOCKED and not state.securing)
        await site.controller.recorded()
    assert notes(site) == {}


async def test_a_removed_door_is_forgotten(ours):
    for _ in range(20):
        ours.controller.apply(Building.of((), ()), {})
        await ours.controller.recorded()
        assert ours.controller._removed == {}
        ours.controller.apply(ours.building, ours.strikes)


async def test_a_loose_contact_does_not_fill_the_journal(ours, monkeypatch):
    monkeypatch.setattr(ours.controller, "_chatter", Buckets(per_second=0, burst=10, most=10))
    for _ in range(50):
        ours.sense(CONTACT, Sense.INACTIVE)
        ours.sense(REX, Sense.ACTIVE)
        ours.sense(CONTACT, Sense.ACTIVE)
        await ours.until(lambda state: state.contact is Sense.ACTIVE)
    await ours.controller.recorded()
    assert ours.journal.sequence == 10


def _after(site, seconds):
    """Let a deadline of the door pass whenever it is looked at."""
    site.clock.advance(seconds)
    site.sense(CONTACT, Sense.UNKNOWN)
    return True


async def test_the_program_that_ends_ends_a_hold_and_the_next_one_does_not_begin_it(tmp_path):
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        assert (await mode(site, UNLOCKED)).granted
    assert site.strike.bolt is Reading.SECURED
    assert notes(site) == {}
    async with site.reopen() as again:
        assert again.state.mode is NORMAL
        assert again.strike.holds == 1


async def test_a_hold_that_could_not_be_ended_before_the_program_did_is_ended_by_the_next_one(tmp_path):
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        assert (await mode(site, UNLOCKED)).granted
        site.strike.refuse()
    assert list(notes(site)) == [f"release:{site.door.id}"]
    site.strike.obey()
    async with site.reopen() as again:
        await again.strike.until(lambda strike: strike.times_secured == 1)
        assert (again.state.mode, again.strike.bolt) == (NORMAL, Reading.SECURED)
        await again.told(EventName.DOOR_RELOCKED)


async def test_a_new_strike_holds_nothing_open_and_the_old_one_is_put_back(ours):
    assert (await mode(ours, UNLOCKED)).granted
    old, new = ours.strike, SimulatedStrike(device_timed=False)
    ours.strikes[ours.door.id] = new
    ours.controller.apply(ours.building, ours.strikes)
    await old.until(lambda strike: strike.times_secured == 1)
    await ours.told(EventName.DOOR_NORMAL)
    assert (ours.state.mode, old.bolt, new.holds) == (NORMAL, Reading.SECURED, 0)
    assert (await by_hand(ours)).granted
    assert (len(old.pulses), len(new.pulses)) == (0, 1)


async def test_what_something_else_puts_back_is_not_held_open_any_more(ours):
    assert (await mode(ours, UNLOCKED)).granted
    ours.strike.operate_by_someone_else(Reading.SECURED)
    await ours.told(EventName.DOOR_RELOCKED)
    assert ours.outcomes[-3:] == [EventName.RELAY_OPERATED_ELSEWHERE, EventName.DOOR_NORMAL, EventName.DOOR_RELOCKED]
    assert (ours.state.mode, ours.strike.bolt, ours.strike.holds) == (NORMAL, Reading.SECURED, 1), "we do not fight"


async def test_a_power_cut_ends_a_hold_and_tokens_are_pulsed_again(ours):
    """What comes back locked must not be said to be open: a driver would stand before a locked door with a grant."""
    assert (await mode(ours, UNLOCKED)).granted
    ours.strike.cut_power()
    await ours.until(lambda state: state.lock is Lock.UNKNOWN)
    ours.strike.restore_power()
    await ours.told(EventName.DOOR_NORMAL)
    assert (await ours.present(ours.token())).granted
    assert ours.pulses == 1


async def test_who_blocks_a_door_during_an_access_ends_the_access(ours):
    assert (await ours.present(ours.token())).granted
    assert (await mode(ours, BLOCKED, BOB)).granted
    assert ours.strike.bolt is Reading.SECURED
    await ours.told(EventName.DOOR_RELOCKED)


# ---- lockdown ----


async def test_a_lockdown_shuts_every_door_also_after_a_restart(tmp_path):
    async with Site(tmp_path / "journal.db", doors=2, device_timed=False) as site:
        one, other = site.doors
        texts = [site.carrier.token(site.challenge(door), aud=door.id) for door in site.doors]
        assert (await mode(site, BLOCKED)).granted
        assert (await site.controller.by_hand.set_mode(other.id, UNLOCKED, ANN)).granted
        assert (await lockdown(site, who=BOB)).granted
        assert site.controller.by_hand.locked_down
        await site.until(lambda state: state.mode is LOCKED_DOWN, other)
        assert site.strikes[other.id].bolt is Reading.SECURED
        (event,) = await site.told(EventName.LOCKDOWN_ON)
        assert (event.door, event.means, event.code) == (None, Means.MANUAL, Code.GRANTED)
        for door, text in zip(site.doors, texts, strict=True):
            assert (await site.present(text)).code is Code.LOCKDOWN
            for who in (ANN, BOB, ROBOT):
                assert (await site.controller.by_hand.open(door.id, who)).code is Code.LOCKDOWN
            for which in (NORMAL, UNLOCKED, BLOCKED):
                assert (await site.controller.by_hand.set_mode(door.id, which, ANN)).code is Code.LOCKDOWN
            assert (await site.controller.by_hand.set_mode(door.id, LOCKED_DOWN, ANN)).granted, "it is, already"
        assert site.pulses == 0
    assert notes(site, "lockdown") == {"lockdown": "on"}
    async with site.reopen() as again:
        assert again.controller.by_hand.locked_down
        assert {again.controller.state(door.id).mode for door in again.doors} == {LOCKED_DOWN}
        assert (await by_hand(again)).code is Code.LOCKDOWN
        assert (await lockdown(again, on=False)).granted
        assert not again.controller.by_hand.locked_down
        assert again.controller.state(one.id).mode is BLOCKED, "as it was before"
        assert again.controller.state(other.id).mode is NORMAL, "nothing is held open again by itself"
        assert (await again.controller.by_hand.open(other.id, ANN)).granted
    assert notes(again) == {f"mode:{one.id}": "blocked"}


async def test_a_lockdown_is_begun_and_lifted_once(ours):
    for on in (False, True, True, False, False):
        assert (await lockdown(ours, on)).granted
    assert ours.outcomes == [EventName.LOCKDOWN_ON, EventName.LOCKDOWN_OFF]


async def test_a_lockdown_ends_a_running_access_at_once(ours):
    assert (await ours.present(ours.token())).granted
    assert (await lockdown(ours)).granted
    await ours.strike.until(lambda strike: strike.times_secured == 1)
    assert ours.strike.bolt is Reading.SECURED
    await ours.until(lambda state: state.lock is Lock.LOCKED)


async def test_a_lockdown_ends_the_pulse_of_a_device_too(site):
    assert (await site.present(site.token())).granted
    assert (await lockdown(site)).granted
    await site.strike.until(lambda strike: strike.times_secured == 1)


async def test_what_cannot_be_told_to_go_back_is_not(tmp_path):
    strikes = {door.id: SimulatedStrike(can_secure=False) for door in some_doors(1)}
    async with Site(tmp_path / "journal.db", strikes=strikes) as site:
        assert (await site.present(site.token())).granted
        assert (await lockdown(site)).granted
        assert (await by_hand(site)).code is Code.LOCKDOWN
        assert site.strike.times_secured == 0


async def test_a_lockdown_while_the_strike_is_being_told_ends_what_it_began(ours):
    told, go_on = asyncio.Event(), asyncio.Event()

    async def hold():
        told.set()
        await go_on.wait()

    ours.strike.at(Moment.TOLD, hold)
    unlock = asyncio.create_task(ours.present(ours.token()))
    await told.wait()
    assert (await lockdown(ours)).granted
    go_on.set()
    await unlock
    await ours.strike.until(lambda strike: strike.times_secured == 1)
    assert ours.strike.bolt is Reading.SECURED


@pytest.mark.parametrize("shut", ["lockdown", "block", "no deliveries"])
async def test_what_shuts_a_door_in_the_last_moment_before_the_strike_is_told(ours, shut):
    """Somebody acts upon the very event that says that access was granted. Nothing may move any more (A.2 step 12)."""
    tell, orders = ours._tell, []

    def act(event):
        tell(event)
        if event.outcome is EventName.ACCESS_GRANTED:
            order = {
                "lockdown": lockdown(ours),
                "block": mode(ours, BLOCKED),
                "no deliveries": ours.controller.by_hand.set_deliveries(ours.door.id, False, ANN),
            }
            orders.append(asyncio.ensure_future(order.pop(shut)))
            for other in order.values():
                other.close()

    ours.controller._telling._host = act
    code = {"lockdown": Code.LOCKDOWN, "block": Code.DOOR_BLOCKED, "no deliveries": Code.DELIVERIES_OFF}[shut]
    assert (await ours.present(ours.token())).code is code
    assert (await orders[0]).granted
    assert ours.pulses == 0


async def test_a_lockdown_that_is_lifted_while_another_is_asked_for_stays(ours):
    assert (await lockdown(ours)).granted
    disk = Stalled(ours)
    lifting = asyncio.create_task(lockdown(ours, on=False))
    await disk.written()
    again = asyncio.create_task(lockdown(ours))
    await asyncio.sleep(0)
    disk.go_on()
    assert (await lifting).code is Code.LOCKDOWN
    assert (await again).granted
    assert ours.controller.by_hand.locked_down
    assert ours.state.mode is LOCKED_DOWN
    assert ours.outcomes == [EventName.LOCKDOWN_ON, EventName.LOCKDOWN_OFF, EventName.LOCKDOWN_ON]


async def test_nor_does_one_that_waits_to_be_lifted_take_a_later_one_with_it(ours):
    disk = Stalled(ours)
    first, lifting = asyncio.create_task(lockdown(ours)), asyncio.create_task(lockdown(ours, on=False))
    await disk.written()
    again = asyncio.create_task(lockdown(ours))
    await asyncio.sleep(0)
    disk.go_on()
    assert (await first).granted
    assert (await again).granted
    assert (await lifting).code is Code.LOCKDOWN
    assert ours.outcomes == [EventName.LOCKDOWN_ON], "not lifted, not even for a moment"
    assert ours.controller.by_hand.locked_down
    assert ours.state.mode is LOCKED_DOWN


async def test_many_who_lock_down_and_lift_at_once_end_as_the_last_one_wanted(ours):
    """However it comes, controller, doors and journal agree."""
    wishes = [True, False, True, True, False, False, True, False, True]
    await asyncio.gather(*(lockdown(ours, on) for on in wishes))
    assert ours.controller.by_hand.locked_down
    assert ours.state.mode is LOCKED_DOWN
    await ours.__aexit__()
    assert notes(ours, "lockdown") == {"lockdown": "on"}


async def test_a_door_that_is_added_during_a_lockdown_is_locked_down(tmp_path):
    async with Site(tmp_path / "journal.db", doors=2) as site:
        one, other = site.doors
        site.doors = (one,)
        site.controller.apply(site.building, {one.id: site.strikes[one.id]})
        assert (await lockdown(site)).granted
        site.doors = (one, other)
        site.controller.apply(site.building, site.strikes)
        assert site.controller.state(other.id).mode is LOCKED_DOWN
        assert (await site.controller.by_hand.open(other.id, ANN)).code is Code.LOCKDOWN
        assert (await lockdown(site, on=False)).granted
        assert (await site.controller.by_hand.open(other.id, ANN)).granted


async def test_a_door_that_is_taken_away_and_added_again_is_as_shut_as_before(tmp_path):
    async with Site(tmp_path / "journal.db", doors=2, setup=WATCHED) as site:
        (one, other), strikes = site.doors, dict(site.strikes)
        assert (await site.controller.by_hand.set_mode(other.id, BLOCKED, ANN)).granted
        assert (await site.controller.by_hand.set_deliveries(other.id, False, ANN)).granted
        site.controller.sense(other.id, TAMPER, Sense.ACTIVE)
        await site.told(EventName.DOOR_TAMPERED)
        site.doors = (one,)
        site.controller.apply(site.building, {one.id: strikes[one.id]})
        site.doors = (one, other)
        site.controller.apply(site.building, strikes)
        state = site.controller.state(other.id)
        assert (state.mode, state.accepts_deliveries, state.tampered) == (BLOCKED, False, True)


async def test_a_door_that_was_told_to_open_as_it_was_taken_away_and_added_again_obeys_a_lockdown(ours):
    """Its old task still has an access under way, its new one has not begun: neither may let anybody in."""
    go_on = asyncio.Event()
    ours.strike.at(Moment.REACHED, go_on.wait)
    unlock = asyncio.create_task(ours.present(ours.token()))
    await ours.strike.until(lambda strike: strike.times_reached == 1)
    ours.controller.apply(Building.of((), ()), {})
    ours.controller.apply(ours.building, ours.strikes)
    shut = asyncio.create_task(lockdown(ours))
    await asyncio.sleep(0)
    go_on.set()
    assert (await unlock).code is Code.LOCKDOWN
    assert (await shut).granted
    assert ours.pulses == 0


# ---- two things at once ----


async def test_orders_for_one_door_are_done_one_after_the_other(ours):
    wanted = (BLOCKED, NORMAL, UNLOCKED, BLOCKED)
    decisions = await asyncio.gather(*(mode(ours, each) for each in wanted))
    assert all(decision.granted for decision in decisions)
    await ours.told(EventName.DOOR_RELOCKED)
    assert [name for name in ours.outcomes if name is not EventName.DOOR_RELOCKED] == [
        EventName.DOOR_BLOCKED,
        EventName.DOOR_NORMAL,
        EventName.DOOR_UNLOCKED,
        EventName.DOOR_BLOCKED,
    ]
    assert (ours.state.mode, ours.strike.holds, ours.strike.bolt) == (BLOCKED, 1, Reading.SECURED)


async def test_a_block_and_an_unlock_at_once_let_nobody_in_after_the_block(ours):
    blocking, unlock = await asyncio.gather(mode(ours, BLOCKED), ours.present(ours.token()))
    assert blocking.granted
    assert unlock.code is Code.DOOR_BLOCKED
    assert ours.strike.bolt is Reading.SECURED


async def test_a_mode_is_confirmed_when_the_door_has_it_and_not_before(ours):
    """The strike is busy: until it has answered, the door cannot be blocked, and nobody is told that it is."""
    told, go_on = asyncio.Event(), asyncio.Event()

    async def hold():
        told.set()
        await go_on.wait()

    ours.strike.at(Moment.TOLD, hold)
    unlock = asyncio.create_task(ours.present(ours.token()))
    await told.wait()
    blocking = asyncio.create_task(mode(ours, BLOCKED))
    unblocking = asyncio.create_task(mode(ours, NORMAL))
    await ours.told(EventName.DOOR_BLOCKED)
    assert (await ours.controller.by_hand.confirm_clock(ANN)).granted  # the journal and the loop have had a turn
    assert not blocking.done()
    assert not unblocking.done()
    go_on.set()
    assert (await unlock).granted
    assert (await blocking).granted
    assert (await unblocking).granted
    assert ours.state.mode is NORMAL


async def test_a_lockdown_that_comes_between_a_wish_and_its_door_wins(ours):
    disk = Stalled(ours)
    holding = asyncio.create_task(mode(ours, UNLOCKED))
    await disk.written()
    shut = asyncio.create_task(lockdown(ours))
    await asyncio.sleep(0)
    disk.go_on()
    assert (await holding).code is Code.LOCKDOWN
    assert (await shut).granted
    assert ours.strike.holds == 0
    await ours.__aexit__()
    assert notes(ours) == {"lockdown": "on"}, "nothing is left to be ended"


async def test_a_door_that_has_not_heard_of_a_lockdown_yet_takes_no_other_mode(ours):
    """Its strike is busy. What is not done must not be noted either: the door would be blocked after a restart."""
    told, go_on = asyncio.Event(), asyncio.Event()

    async def hold():
        told.set()
        await go_on.wait()

    ours.strike.at(Moment.TOLD, hold)
    unlock = asyncio.create_task(by_hand(ours))
    await told.wait()
    shut = asyncio.create_task(lockdown(ours))
    await asyncio.sleep(0)
    assert ours.state.mode is NORMAL
    for which in (NORMAL, UNLOCKED, BLOCKED):
        assert (await mode(ours, which)).code is Code.LOCKDOWN
    go_on.set()
    await asyncio.gather(unlock, shut)
    await ours.__aexit__()
    assert notes(ours) == {"lockdown": "on"}


async def test_a_grant_that_comes_to_a_shut_door_for_whatever_reason_moves_nothing_and_says_so(ours, monkeypatch):
    """It was judged before. If that judgement were wrong, the door itself would be the last one to refuse."""
    monkeypatch.setattr(ours.controller, "objection", lambda access, *, spent=False: None)
    assert (await mode(ours, BLOCKED)).granted
    assert (await by_hand(ours)).code is Code.DOOR_BLOCKED
    assert ours.pulses == 0


async def test_a_door_that_a_lockdown_found_blocked_stays_so_also_after_a_restart(ours):
    assert (await mode(ours, BLOCKED)).granted
    disk = Stalled(ours)
    opening = asyncio.create_task(mode(ours, NORMAL))
    await disk.written()
    shut = asyncio.create_task(lockdown(ours))
    await asyncio.sleep(0)
    disk.go_on()
    assert (await opening).code is Code.LOCKDOWN
    assert (await shut).granted
    await ours.__aexit__()
    async with ours.reopen() as again:
        assert (await lockdown(again, on=False)).granted
        assert again.state.mode is BLOCKED


@pytest.mark.parametrize("what", ["unlock", "mode", "block", "lockdown", "lift", "deliveries"])
async def test_a_caller_that_goes_away_in_the_middle_stops_nothing_half_way(ours, what):
    await lockdown(ours, on=what == "lift")
    work, done = {
        "unlock": (lambda: ours.present(ours.token()), lambda state: state.lock is Lock.ACCESSED),
        "mode": (lambda: mode(ours, UNLOCKED), lambda state: state.mode is UNLOCKED and not state.releasing),
        "block": (lambda: mode(ours, BLOCKED), lambda state: state.mode is BLOCKED),
        "lockdown": (lambda: lockdown(ours), lambda state: state.mode is LOCKED_DOWN),
        "lift": (lambda: lockdown(ours, on=False), lambda state: state.mode is NORMAL),
        "deliveries": (
            lambda: ours.controller.by_hand.set_deliveries(ours.door.id, False, ANN),
            lambda state: not state.accepts_deliveries,
        ),
    }[what]
    before, disk = len(ours.events), Stalled(ours)
    caller = asyncio.create_task(work())
    await disk.written()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert caller.cancelled()
    disk.go_on()
    await ours.until(done)
    assert len(ours.events) > before
    assert (await ours.controller.by_hand.confirm_clock(ANN)).granted, "the next order is not held up"


async def test_a_caller_that_goes_away_before_its_turn_has_asked_all_the_same(ours):
    disk = Stalled(ours)
    first, second = asyncio.create_task(lockdown(ours)), asyncio.create_task(lockdown(ours, on=False))
    await disk.written()
    second.cancel()
    disk.go_on()
    assert (await first).granted
    await ours.told(EventName.LOCKDOWN_OFF)
    await ours.until(lambda state: state.mode is NORMAL)


@pytest.mark.parametrize("what", ["hold", "block", "no deliveries", "clear tamper"])
async def test_a_door_that_is_taken_away_in_the_middle_of_an_order_holds_up_no_later_one(ours, what):
    ours.sense(TAMPER)
    ours.sense(TAMPER, Sense.INACTIVE)
    await ours.told(EventName.DOOR_TAMPERED)
    await ours.until(lambda state: state.tamper is Sense.INACTIVE)
    order = {
        "hold": lambda: mode(ours, UNLOCKED),
        "block": lambda: mode(ours, BLOCKED),
        "no deliveries": lambda: ours.controller.by_hand.set_deliveries(ours.door.id, False, ANN),
        "clear tamper": lambda: ours.controller.by_hand.clear_tamper(ours.door.id, ANN),
    }[what]
    disk = Stalled(ours)
    asked = asyncio.create_task(order())
    await disk.written()
    ours.controller.apply(Building.of((), ()), {})
    await asyncio.sleep(0.02)  # its task has ended by now
    disk.go_on()
    async with asyncio.timeout(2):
        assert (await asked).code is Code.STOPPING
        assert ours.strike.holds == 0
        ours.controller.apply(ours.building, ours.strikes)
        assert (await order()).granted, "and what was written already is no hindrance"
    await ours.__aexit__()
    assert notes(ours, "release") == {}


async def test_a_hold_that_came_to_nothing_leaves_nothing_to_be_ended(ours):
    disk = Stalled(ours)
    asked = asyncio.create_task(mode(ours, UNLOCKED))
    await disk.written()
    ours.controller.apply(Building.of((), ()), {})
    disk.go_on()
    assert (await asked).code is Code.STOPPING
    await ours.__aexit__()
    assert notes(ours) == {}


async def test_a_hold_and_a_lockdown_that_come_to_a_door_together_hold_nothing(ours):
    task = ours.controller._doors[ours.door.id]
    holding, shut = task.post(ModeChosen(UNLOCKED), held=bytes(16)), task.post(LockdownBegun())
    assert await holding is Code.LOCKDOWN
    await shut
    assert (ours.state.mode, ours.strike.holds, task.noted) == (LOCKED_DOWN, 0, [])


async def test_those_who_wait_at_a_door_that_is_taken_away_are_answered_though_its_strike_never_goes_back(tmp_path):
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        assert (await by_hand(site)).granted
        go_on = asyncio.Event()
        site.strike.at(Moment.REACHED, go_on.wait)
        waiting = [asyncio.create_task(by_hand(site)) for _ in range(3)]
        await site.strike.until(lambda strike: strike.times_reached == 2)
        order = asyncio.create_task(mode(site, BLOCKED))
        await asyncio.sleep(0)
        site.strike.refuse()
        site.controller.apply(Building.of((), ()), {})
        go_on.set()
        async with asyncio.timeout(2):
            assert not any(decision.granted for decision in await asyncio.gather(*waiting))
            await order
        assert site.strike.bolt is Reading.RELEASED, "and is tried again and again"


async def test_orders_in_hand_when_the_program_ends_get_an_answer(ours):
    disk = Stalled(ours)
    orders = [asyncio.create_task(mode(ours, which)) for which in (UNLOCKED, BLOCKED)]
    await disk.written()
    stopping = asyncio.create_task(ours.controller.stop())
    await asyncio.sleep(0)
    disk.go_on()
    async with asyncio.timeout(2):
        await stopping
        assert {decision.code for decision in await asyncio.gather(*orders)} == {Code.STOPPING}
    assert ours.strike.bolt is Reading.SECURED


async def test_after_the_end_nothing_is_taken(ours):
    controller, door = ours.controller, ours.door.id
    await controller.stop()
    ours.sense(CONTACT)
    for order in (
        controller.by_hand.set_mode(door, BLOCKED, ANN),
        controller.by_hand.set_deliveries(door, False, ANN),
        controller.by_hand.clear_tamper(door, ANN),
        controller.by_hand.set_lockdown(True, ANN),
        controller.by_hand.set_lockdown(False, ANN),
    ):
        assert (await order).code is Code.STOPPING


async def test_a_door_that_is_not_ours_takes_no_orders(ours):
    (other,) = some_doors(1, "another building")
    ours.controller.sense(other.id, CONTACT, Sense.ACTIVE)
    for order in (
        ours.controller.by_hand.set_mode(other.id, BLOCKED, ANN),
        ours.controller.by_hand.set_deliveries(other.id, False, ANN),
        ours.controller.by_hand.clear_tamper(other.id, ANN),
    ):
        assert (await order).code is Code.WRONG_DOOR
    assert ours.events == []


# ---- a disk that fails ----


async def test_without_a_journal_what_shuts_holds_and_says_that_it_was_not_written(ours):
    break_disk(ours)
    assert (await ours.controller.by_hand.set_deliveries(ours.door.id, False, ANN)).code is Code.STORE_FAILED
    assert (await mode(ours, BLOCKED)).code is Code.STORE_FAILED
    await ours.until(lambda state: state.mode is BLOCKED and not state.accepts_deliveries)
    assert (await mode(ours, BLOCKED)).code is Code.STORE_FAILED, "it is, and still not written"
    assert (await ours.controller.by_hand.set_deliveries(ours.door.id, False, ANN)).code is Code.STORE_FAILED
    for _ in range(2):
        assert (await lockdown(ours)).code is Code.STORE_FAILED
    assert ours.controller.by_hand.locked_down
    assert (await by_hand(ours)).code is Code.LOCKDOWN
    assert ours.pulses == 0


async def test_without_a_journal_nothing_that_was_shut_is_opened(ours):
    assert (await mode(ours, BLOCKED)).granted
    assert (await ours.controller.by_hand.set_deliveries(ours.door.id, False, ANN)).granted
    ours.sense(TAMPER, Sense.ACTIVE)
    ours.sense(TAMPER, Sense.INACTIVE)
    await ours.told(EventName.DOOR_TAMPERED)
    break_disk(ours)
    assert (await mode(ours, NORMAL)).code is Code.STORE_FAILED
    assert (await ours.controller.by_hand.set_deliveries(ours.door.id, True, ANN)).code is Code.STORE_FAILED
    assert (await ours.controller.by_hand.clear_tamper(ours.door.id, ANN)).code is Code.STORE_FAILED
    assert (await ours.controller.by_hand.confirm_clock(ANN)).code is Code.STORE_FAILED
    assert (ours.state.mode, ours.state.accepts_deliveries, ours.state.tampered) == (BLOCKED, False, True)
    assert ours.strike.holds == 0


async def test_without_a_journal_no_lockdown_is_lifted(ours):
    assert (await lockdown(ours)).granted
    break_disk(ours)
    assert (await lockdown(ours, on=False)).code is Code.STORE_FAILED
    assert ours.controller.by_hand.locked_down
    assert ours.state.mode is LOCKED_DOWN


async def test_without_a_journal_events_at_the_door_are_told_all_the_same(ours):
    break_disk(ours)
    ours.sense(REX, Sense.INACTIVE)
    ours.sense(CONTACT)
    (event,) = await ours.told(EventName.DOOR_FORCED_OPEN)
    assert event.sequence is None


# ---- the rule ----


@pytest.mark.parametrize(
    "who, code",
    [(BOB, Code.MANUAL_NOT_ALLOWED), (ANN, Code.GRANTED), (ROBOT, Code.GRANTED)],
    ids=["user", "administrator", "automation"],
)
async def test_the_rule_covers_every_way_to_weaken_a_door_and_no_way_to_shut_it(tmp_path, who, code):
    setup = WATCHED | {"manual": ManualRule.ADMINISTRATORS}
    async with Site(tmp_path / "journal.db", device_timed=False, setup=setup) as site:
        controller, by_hand, door = site.controller, site.controller.by_hand, site.door.id

        async def tampered():
            site.sense(TAMPER, Sense.ACTIVE)
            site.sense(TAMPER, Sense.INACTIVE)
            await site.until(lambda state: state.tampered and state.tamper is Sense.INACTIVE)

        weakening = [
            # what comes before it, the wish
            (None, lambda: by_hand.open(door, who)),
            (None, lambda: by_hand.set_mode(door, UNLOCKED, who)),
            (
                lambda: by_hand.set_mode(door, BLOCKED, BOB),
                lambda: by_hand.set_mode(door, NORMAL, who),
            ),
            (
                lambda: by_hand.set_deliveries(door, False, BOB),
                lambda: by_hand.set_deliveries(door, True, who),
            ),
            (tampered, lambda: by_hand.clear_tamper(door, who)),
            (lambda: by_hand.set_lockdown(True, BOB), lambda: by_hand.set_lockdown(False, who)),
            (None, lambda: by_hand.confirm_clock(who)),
        ]
        for before, wish in weakening:
            if before is not None and (decision := await before()) is not None:
                assert decision.granted, "shutting a door is anybody's"
            state = site.state
            assert (await wish()).code is code
            if code is not Code.GRANTED:
                assert site.state == state
                assert by_hand.locked_down is (state.mode is LOCKED_DOWN)
                assert (site.pulses, site.strike.holds) == (0, 0)
        await controller.recorded()
        assert refusals(site.events) == ([code] * len(weakening) if code is not Code.GRANTED else [])


async def test_to_end_a_hold_is_anybodys(ours):
    assert (await mode(ours, UNLOCKED, ANN)).granted
    ours.doors = tuple(replace(door, manual=ManualRule.NOBODY) for door in ours.doors)
    ours.controller.apply(ours.building, ours.strikes)
    assert (await mode(ours, NORMAL, BOB)).granted
    assert ours.strike.bolt is Reading.SECURED


async def test_a_lockdown_is_lifted_by_who_may_weaken_every_door(tmp_path):
    async with Site(tmp_path / "journal.db", doors=2) as site:
        one, other = site.doors
        site.doors = (one, replace(other, manual=ManualRule.ADMINISTRATORS))
        site.controller.apply(site.building, site.strikes)
        assert (await lockdown(site, who=BOB)).granted
        assert (await lockdown(site, on=False, who=BOB)).code is Code.MANUAL_NOT_ALLOWED
        (event,) = await site.told(EventName.ACCESS_DENIED)
        assert event.door is None
        assert (await lockdown(site, on=False, who=ROBOT)).granted
        assert (await site.told(EventName.LOCKDOWN_OFF))[0].means is Means.AUTOMATION


async def test_where_nobody_opens_by_hand_a_token_still_does(tmp_path):
    async with Site(tmp_path / "journal.db", setup={"manual": ManualRule.NOBODY}) as site:
        for who in (ANN, BOB, ROBOT):
            assert (await by_hand(site, who)).code is Code.MANUAL_NOT_ALLOWED
        assert (await site.present(site.token())).granted


# ---- PINs ----

PIN = {"pin": Pin(b"salt", b"salt" + b"25801470")}


@pytest.mark.parametrize("who", [ANN, BOB, ROBOT], ids=["administrator", "user", "automation"])
async def test_a_door_with_a_pin_opens_to_whoever_types_it(tmp_path, quick_pins, who):
    async with Site(tmp_path / "journal.db", setup=PIN) as site:
        for typed, code in [
            (None, Code.PIN_MISSING),
            ("", Code.PIN_MISSING),
            ("25801471", Code.PIN_WRONG),
            ("no digits", Code.PIN_WRONG),
            ("25801470", Code.GRANTED),
        ]:
            assert (await by_hand(site, who, pin=typed)).code is code
        assert site.pulses == 1
        await site.controller.recorded()
        assert refusals(site.events) == [Code.PIN_MISSING] * 2 + [Code.PIN_WRONG] * 2
    assert b"2580147" not in site.all_bytes()


async def test_too_many_wrong_pins_have_to_wait_and_the_right_one_too(tmp_path, quick_pins):
    async with Site(tmp_path / "journal.db", setup=PIN) as site:
        for _ in range(PIN_TRIES):
            assert (await by_hand(site, BOB, pin="0000")).code is Code.PIN_WRONG
        assert (await by_hand(site, BOB, pin="25801470")).code is Code.PIN_LOCKED
        assert len(quick_pins) == PIN_TRIES, "it was not even looked at"
        assert (await by_hand(site, ANN, pin="25801470")).granted, "nobody locks anybody else out"
        assert (await site.present(site.token())).granted
        site.clock.advance(PIN_AGAIN)
        assert (await by_hand(site, BOB, pin="25801470")).granted


async def test_who_knows_the_pin_never_has_to_wait(tmp_path, quick_pins):
    async with Site(tmp_path / "journal.db", setup=PIN) as site:
        for _ in range(PIN_TRIES - 1):
            assert (await by_hand(site, BOB, pin="0000")).code is Code.PIN_WRONG
        for _ in range(3 * PIN_TRIES):
            assert (await by_hand(site, BOB, pin="25801470")).granted


async def test_many_wrong_pins_at_once_are_not_all_looked_at(tmp_path, quick_pins):
    """Else a guesser would try a thousand in the time that it takes to hash one."""
    async with Site(tmp_path / "journal.db", setup=PIN) as site:
        codes = [d.code for d in await asyncio.gather(*(by_hand(site, BOB, pin=f"{n:04}") for n in range(100)))]
        assert codes.count(Code.PIN_WRONG) == len(quick_pins) == PIN_TRIES
        assert codes.count(Code.PIN_LOCKED) == 100 - PIN_TRIES
        assert site.pulses == 0


async def test_a_door_with_a_pin_leaves_what_has_no_field_for_it_to_administrators(tmp_path, quick_pins):
    async with Site(tmp_path / "journal.db", device_timed=False, setup=PIN) as site:
        assert (await mode(site, UNLOCKED, BOB)).code is Code.PIN_MISSING
        assert (await mode(site, BLOCKED, BOB)).granted
        assert (await mode(site, NORMAL, BOB)).code is Code.PIN_MISSING
        assert (await mode(site, NORMAL, ANN)).granted
        assert (await lockdown(site, who=BOB)).granted
        assert (await lockdown(site, on=False, who=BOB)).code is Code.PIN_MISSING
        assert (await lockdown(site, on=False, who=ANN)).granted
        assert site.strike.holds == 0


@pytest.mark.parametrize("what", ["is taken away", "ends"])
async def test_a_door_that_goes_away_while_a_pin_is_looked_at_opens_to_nobody(tmp_path, monkeypatch, what):
    async with Site(tmp_path / "journal.db", setup=PIN) as site:
        loop = asyncio.get_running_loop()

        def digest(text, salt):
            async def go():
                if what == "ends":
                    await site.controller.stop()
                else:
                    site.controller.apply(Building.of((), ()), {})

            asyncio.run_coroutine_threadsafe(go(), loop).result(5)
            return salt + text.encode()

        monkeypatch.setattr(pin, "_digest", digest)
        code = Code.STOPPING if what == "ends" else Code.WRONG_DOOR
        assert (await by_hand(site, BOB, pin="25801470")).code is code
        assert site.pulses == 0


# ---- deliveries, tampering, the clock ----


async def test_a_door_that_takes_no_deliveries_lets_people_in_and_carriers_not(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        text = site.token()
        assert (await site.controller.by_hand.set_deliveries(site.door.id, False, BOB)).granted
        assert (await site.controller.by_hand.set_deliveries(site.door.id, False, BOB)).granted
        assert (await site.present(text)).code is Code.DELIVERIES_OFF
        assert (await by_hand(site, BOB)).granted
    assert notes(site) == {f"deliveries:{site.door.id}": "off"}
    async with site.reopen() as again:
        assert (await again.present(again.token())).code is Code.DELIVERIES_OFF
        assert (await again.controller.by_hand.set_deliveries(again.door.id, True, ANN)).granted
        assert (await again.present(again.token())).granted
    assert notes(again) == {}
    assert site.outcomes.count(EventName.DELIVERIES_OFF) == 1
    assert again.outcomes.count(EventName.DELIVERIES_ON) == 1


async def test_a_tampered_door_takes_no_deliveries_until_somebody_has_looked(tmp_path):
    async with Site(tmp_path / "journal.db", setup=WATCHED) as site:
        text = site.token()
        site.sense(TAMPER)
        (event,) = await site.told(EventName.DOOR_TAMPERED)
        assert (event.door, event.means, event.code, event.spend_id) == (site.door.id, None, None, None)
        assert (await site.present(text)).code is Code.TAMPERED
        assert (await by_hand(site, BOB)).granted
        assert (await site.controller.by_hand.clear_tamper(site.door.id, ANN)).code is Code.TAMPERED, "it is still open"
        site.sense(TAMPER, Sense.INACTIVE)
        await site.until(lambda state: state.tamper is Sense.INACTIVE)
        assert (await site.present(site.token())).code is Code.TAMPERED
    assert notes(site) == {f"tamper:{site.door.id}": "on"}
    async with site.reopen() as again:
        assert (await again.present(again.token())).code is Code.TAMPERED
        assert (await again.controller.by_hand.clear_tamper(again.door.id, ANN)).granted
        await again.told(EventName.TAMPER_CLEARED)
        assert (await again.present(again.token())).granted
    assert notes(again) == {}
    assert site.outcomes.count(EventName.DOOR_TAMPERED) == 1


async def test_to_clear_what_was_never_tampered_with_is_no_news(ours):
    assert (await ours.controller.by_hand.clear_tamper(ours.door.id, BOB)).granted
    assert ours.events == []


async def test_an_enclosure_that_is_opened_while_its_tampering_is_cleared_stays_tampered(ours):
    ours.sense(TAMPER)
    ours.sense(TAMPER, Sense.INACTIVE)
    await ours.told(EventName.DOOR_TAMPERED)
    disk = Stalled(ours)
    clearing = asyncio.create_task(ours.controller.by_hand.clear_tamper(ours.door.id, ANN))
    await disk.written()
    ours.sense(TAMPER)
    disk.go_on()
    assert (await clearing).code is Code.TAMPERED
    assert (await ours.present(ours.token())).code is Code.TAMPERED
    assert len(await ours.told(EventName.DOOR_TAMPERED, 2)) == 2
    await ours.__aexit__()
    assert notes(ours) == {f"tamper:{ours.door.id}": "on"}


async def test_a_clock_that_was_set_back_is_trusted_again_when_an_administrator_says_so(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        assert (await by_hand(site)).granted
        assert site.controller.clock_is_trusted
        site.clock.set_wall(by=-86400)
        assert not site.controller.clock_is_trusted
        assert (await site.controller.by_hand.confirm_clock(BOB)).code is Code.MANUAL_NOT_ALLOWED
        assert not site.controller.clock_is_trusted
    async with site.reopen() as again:
        assert not again.controller.clock_is_trusted, "a restart makes no clock right"
        assert (await again.controller.by_hand.confirm_clock(ANN)).granted
        assert again.controller.clock_is_trusted
    async with again.reopen() as once_more:
        assert once_more.controller.clock_is_trusted


# ---- who goes through ----


async def test_an_access_is_taken_by_who_opens_the_door_and_both_are_one_story(ours):
    assert (await ours.present(ours.token(), ours.carrier)).granted
    ours.sense(CONTACT)
    (taken,) = await ours.told(EventName.ACCESS_TAKEN)
    (granted,) = await ours.told(EventName.ACCESS_GRANTED)
    assert taken.spend_id == granted.spend_id == ours.strike.pulses[0].spend_id
    assert (taken.carrier, taken.means, taken.has_stop) == ("Parcels", Means.TOKEN, True)
    assert taken.origin is None, "what follows of itself is not what somebody asked for"
    ours.sense(CONTACT, Sense.INACTIVE)
    ours.clock.advance(ours.door.access_time)
    ours.sense(REX, Sense.UNKNOWN)
    (relocked,) = await ours.told(EventName.DOOR_RELOCKED)
    assert relocked.spend_id == granted.spend_id
    assert ours.outcomes == [
        EventName.ACCESS_GRANTED,
        EventName.DOOR_RELEASED,
        EventName.ACCESS_TAKEN,
        EventName.DOOR_CLOSED,
        EventName.DOOR_RELOCKED,
    ]
    await ours.__aexit__()
    persons = ours.rows("SELECT seq FROM person ORDER BY seq")
    assert persons == [(1,)], "the driver is named once, where the access was granted"


async def test_an_access_that_nobody_takes_is_told_of(ours):
    assert (await by_hand(ours)).granted
    ours.clock.advance(ours.door.access_time)
    ours.sense(REX, Sense.UNKNOWN)
    await ours.told(EventName.DOOR_RELOCKED)
    ours.clock.advance(GRACE)
    ours.sense(REX, Sense.INACTIVE)
    (not_taken,) = await ours.told(EventName.ACCESS_NOT_TAKEN)
    assert not_taken.spend_id == ours.strike.pulses[0].spend_id
    assert EventName.ACCESS_TAKEN not in ours.outcomes


async def test_a_release_that_failed_takes_nothing_from_the_one_that_runs(ours):
    """The second one was refused by the strike: who goes through goes through on the first."""
    assert (await ours.present(ours.token())).granted
    ours.strike.refuse()
    assert (await by_hand(ours)).code is Code.STRIKE_REFUSED
    ours.strike.obey()
    ours.sense(CONTACT)
    (taken,) = await ours.told(EventName.ACCESS_TAKEN)
    assert (taken.spend_id, taken.means) == (ours.strike.pulses[0].spend_id, Means.TOKEN)


async def test_a_second_token_during_a_release_restarts_the_time(ours):
    assert (await ours.present(ours.token())).granted
    ours.clock.advance(40)
    assert (await ours.present(ours.token())).granted
    ours.clock.advance(40)
    ours.sense(REX, Sense.UNKNOWN)
    await ours.until(lambda state: state.rex is Sense.UNKNOWN)
    assert ours.strike.bolt is Reading.RELEASED
    ours.clock.advance(20)
    ours.sense(REX, Sense.INACTIVE)
    await ours.told(EventName.DOOR_RELOCKED)
    assert (ours.pulses, ours.strike.times_secured) == (2, 1)
    assert ours.outcomes.count(EventName.DOOR_RELOCKED) == 1


async def test_the_strike_goes_back_as_soon_as_somebody_has_opened(tmp_path):
    setup = WATCHED | {"relock": RelockOn.OPEN}
    async with Site(tmp_path / "journal.db", device_timed=False, setup=setup) as site:
        site.sense(CONTACT, Sense.INACTIVE)
        assert (await site.present(site.token())).granted
        site.sense(CONTACT)
        await site.told(EventName.DOOR_RELOCKED)
        assert site.outcomes[-2:] == [EventName.ACCESS_TAKEN, EventName.DOOR_RELOCKED]
        assert site.strike.bolt is Reading.SECURED


async def test_a_door_that_stays_open_is_warned_of_and_then_held_open(ours):
    ours.sense(REX)
    ours.sense(CONTACT)
    await ours.told(EventName.DOOR_OPENED)
    ours.clock.advance(20)
    ours.sense(REX, Sense.INACTIVE)
    await ours.told(EventName.DOOR_HELD_OPEN_WARNING)
    ours.clock.advance(10)
    ours.sense(REX)
    await ours.told(EventName.DOOR_HELD_OPEN)
    assert ours.state.alarm is Alarm.HELD_OPEN
    ours.sense(CONTACT, Sense.INACTIVE)
    await ours.told(EventName.DOOR_CLOSED)
    assert ours.state.alarm is Alarm.NONE


async def test_a_door_that_is_opened_by_force_is_told_of_and_nothing_moves(ours):
    ours.sense(CONTACT)
    (event,) = await ours.told(EventName.DOOR_FORCED_OPEN)
    assert (event.means, event.spend_id, event.carrier) == (None, None, None)
    assert ours.state.alarm is Alarm.FORCED_OPEN
    assert (ours.pulses, ours.strike.holds) == (0, 0)


async def test_who_moves_the_relay_elsewhere_is_told_of_once_and_is_nobody_of_ours(ours):
    assert (await by_hand(ours)).granted
    ours.clock.advance(60)
    ours.sense(REX, Sense.UNKNOWN)
    await ours.told(EventName.DOOR_RELOCKED)
    ours.strike.operate_by_someone_else(Reading.RELEASED)
    ours.strike.chatter(5)
    (event,) = await ours.told(EventName.RELAY_OPERATED_ELSEWHERE)
    assert (event.means, event.spend_id) == (None, None)
    assert (ours.state.by, ours.strike.times_secured) == (None, 1), "it is let be"
    ours.strike.operate_by_someone_else(Reading.SECURED)
    await ours.until(lambda state: state.lock is Lock.LOCKED)
    assert ours.outcomes.count(EventName.RELAY_OPERATED_ELSEWHERE) == 1


async def test_a_gate_is_locked_when_it_is_there_and_told_again_if_it_never_arrives(ours):
    ours.strike.take_its_time()
    assert (await by_hand(ours)).granted
    ours.clock.advance(60)
    ours.sense(REX, Sense.UNKNOWN)
    await ours.strike.until(lambda strike: strike.times_secured == 1)
    await ours.until(lambda state: not state.securing)
    assert ours.state.lock is Lock.ACCESSED, "it is on its way"
    ours.clock.advance(ON_ITS_WAY)
    ours.sense(REX, Sense.INACTIVE)
    await ours.strike.until(lambda strike: strike.times_secured == 2)
    ours.strike.arrive()
    await ours.told(EventName.DOOR_RELOCKED)
    assert ours.state.lock is Lock.LOCKED


async def test_a_sensor_that_chatters_while_the_strike_is_busy_takes_bounded_room_and_loses_no_alarm(ours):
    told, go_on = asyncio.Event(), asyncio.Event()

    async def hold():
        told.set()
        await go_on.wait()

    ours.strike.at(Moment.TOLD, hold)
    unlock = asyncio.create_task(by_hand(ours))
    await told.wait()
    ours.sense(TAMPER)
    ours.sense(TAMPER, Sense.INACTIVE)
    for _ in range(5000):
        ours.sense(CONTACT)
        ours.sense(CONTACT, Sense.INACTIVE)
        ours.sense(TAMPER, Sense.INACTIVE)
    task = ours.controller._doors[ours.door.id]
    assert len(task._happenings) <= door_task.CHATTER + len(Sensor) * len(Sense)
    blocking = asyncio.create_task(mode(ours, BLOCKED))
    go_on.set()
    assert (await unlock).granted
    await ours.told(EventName.DOOR_TAMPERED)
    await ours.told(EventName.ACCESS_TAKEN)
    assert (await blocking).granted, "an order is never outdone by a sensor"
    await ours.until(lambda state: (state.contact, state.tamper) == (Sense.INACTIVE, Sense.INACTIVE))


# ---- a journal that is not whole ----


async def longer(path, entries=60):
    """Return what a witness would hold of a journal with the same key that has more in it."""
    return await newest_note(await small_journal(path, entries))


async def newest_note(path):
    journal = await asyncio.to_thread(open_journal, path)
    note = journal.checkpoint
    await asyncio.to_thread(journal.close)
    return note


async def test_a_disputed_journal_lets_in_no_token_and_nobody_by_hand_but_administrators(tmp_path, ours):
    waiting = ours.token()
    ours.controller.by_hand.dispute(await longer(tmp_path / "other.db"))
    assert ours.controller.by_hand.disputed
    assert (await ours.present(waiting)).code is Code.JOURNAL_DISPUTED
    for who in (BOB, ROBOT):
        assert (await ours.controller.by_hand.open(ours.door.id, who)).code is Code.JOURNAL_DISPUTED
        assert (await mode(ours, UNLOCKED, who)).code is Code.JOURNAL_DISPUTED
    assert ours.pulses == ours.strike.holds == 0
    assert (await mode(ours, BLOCKED, BOB)).granted, "who makes a door safer may"
    assert (await mode(ours, DoorMode.NORMAL, BOB)).granted
    assert (await ours.controller.by_hand.open(ours.door.id, ANN)).granted
    await ours.told(EventName.JOURNAL_DISPUTED)


async def test_a_dispute_that_comes_while_a_token_waits_keeps_the_door_shut(tmp_path, ours):
    receipt = await longer(tmp_path / "other.db")
    ours.strike.at(Moment.REACHED, lambda: ours.controller.by_hand.dispute(receipt))
    assert (await ours.present(ours.token())).code is Code.JOURNAL_DISPUTED
    assert ours.pulses == 0


async def test_a_dispute_survives_a_restart_until_an_administrator_has_looked(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        receipt = await longer(tmp_path / "other.db")
        for each in (receipt, await longer(tmp_path / "third.db", 70), receipt):
            site.controller.by_hand.dispute(each)
        await site.told(EventName.JOURNAL_DISPUTED)
    async with site.reopen() as site:
        assert (await site.present(site.token())).code is Code.JOURNAL_DISPUTED
        assert (await site.controller.by_hand.confirm_journal(BOB)).code is Code.MANUAL_NOT_ALLOWED
        assert site.controller.by_hand.disputed
        assert (await site.controller.by_hand.confirm_journal(ANN)).granted
        assert not site.controller.by_hand.disputed
        assert (await site.present(site.token())).granted
        assert (await site.controller.by_hand.confirm_journal(ANN)).granted, "there is nothing to confirm"
        site.controller.by_hand.dispute(receipt)
        assert not site.controller.by_hand.disputed, "it was still being looked at when an administrator had"
    async with site.reopen() as site:
        assert not site.controller.by_hand.disputed
        assert (await site.present(site.token())).granted
    begun = [leaf for leaf in site.leaves() if leaf.says["kind"] == "epoch_begun"]
    assert len(begun) == 1
    assert [head.split()[1] for head in begun[0].says["heads"]][-2:] == ["60", "70"]
    assert [leaf.says["kind"] for leaf in site.leaves()].count("journal_disputed") == 1


async def test_receipts_that_are_kept_are_few(tmp_path, ours):
    note = await longer(tmp_path / "other.db")
    for number in range(MOST_RECEIPTS + 5):
        ours.controller.by_hand.dispute(f"{note}{number}")
    assert len(ours.controller.by_hand._receipts) == MOST_RECEIPTS


async def test_an_epoch_is_not_begun_where_nothing_can_be_written(tmp_path, ours, monkeypatch):
    ours.controller.by_hand.dispute(await longer(tmp_path / "other.db"))
    await ours.told(EventName.JOURNAL_DISPUTED)
    ours.journal._fail(OSError("the disk is gone"), [])
    assert (await ours.controller.by_hand.confirm_journal(ANN)).code is Code.STORE_FAILED
    assert ours.controller.by_hand.disputed
