"""What goes wrong around an unlock: things that change, stop, stall or break in the middle of it."""

import asyncio
import threading
from dataclasses import replace

import pytest

from tests.simulated import Moment, SimulatedStrike, Site
from vestibule_core import door as door_module
from vestibule_core import door_task
from vestibule_core.door import DeliveriesChosen, Lock, ModeChosen
from vestibule_core.keys import KeyStatus
from vestibule_core.model import Actor, Code, DoorMode, EventName, issuer, read_clock
from vestibule_core.policy import Building
from vestibule_core.strike import Reading
from vestibule_core.telling import REFUSALS_AN_HOUR

ANN = Actor(user_id="ann-1", name="Ann", is_admin=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for module in (door_module, door_task):
        monkeypatch.setattr(module, "SECURE_AGAIN", 0.02)


@pytest.fixture
async def ours(tmp_path):
    """A door whose releases the controller ends, on the real clock."""
    async with Site(tmp_path / "journal.db", device_timed=False, access_time=0.2, clock=read_clock) as site:
        yield site


async def until_secured(strike, seconds=5.0):
    async with asyncio.timeout(seconds):
        while strike.bolt is not Reading.SECURED:  # noqa: ASYNC110 - the bolt is hardware, nobody tells
            await asyncio.sleep(0.005)


async def at_the_door(site, *wishes):
    """Let somebody hang at the door, and the others wait behind; return what lets them go on, and their tasks."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hang():
        reached.set()
        await go_on.wait()

    site.strike.at(Moment.REACHED, hang)
    waiting = [asyncio.create_task(wish) for wish in wishes]
    await reached.wait()
    return go_on, waiting


# ---- a release that is ours to end ----


@pytest.mark.parametrize("what", ["another relay", "no door any more"])
async def test_a_release_is_ended_although_the_door_changes_while_its_relay_is_away(tmp_path, what):
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        strike = site.strike
        assert (await site.present(site.token())).granted
        strike.refuse()
        if what == "another relay":
            site.controller.apply(site.building, {site.door.id: SimulatedStrike(device_timed=False)})
        else:
            site.controller.apply(Building.of((), ()), {})
        await asyncio.sleep(0.1)
        assert strike.bolt is Reading.RELEASED
        strike.obey()
        await until_secured(strike)
    assert site.rows("SELECT key FROM meta WHERE key GLOB 'release:*'") == []


async def test_a_release_that_could_not_be_ended_before_the_program_did_is_ended_by_the_next_one(tmp_path):
    """Also if the manager has said meanwhile that the relay goes back by itself."""
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        assert (await site.present(site.token())).granted
        site.strike.refuse()
    site.strikes[site.door.id] = strike = SimulatedStrike(device_timed=True)
    async with site.reopen():
        await strike.until(lambda strike: strike.times_secured == 1)


@pytest.mark.parametrize("ticks", [0, 1, 3, 100])
async def test_a_release_is_ended_and_told_of_once_although_its_door_is_removed_and_added_again(tmp_path, ticks):
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        assert (await site.present(site.token())).granted
        for _ in range(3):
            site.controller.apply(Building.of((), ()), {})
            for _ in range(ticks):
                await asyncio.sleep(0)
            site.controller.apply(site.building, site.strikes)
        await site.told(EventName.DOOR_RELOCKED)
        assert (await site.present(site.token())).granted
    assert site.outcomes.count(EventName.DOOR_RELOCKED) == site.strike.times_secured == 2
    assert site.rows("SELECT key FROM meta WHERE key GLOB 'release:*'") == []


async def test_a_release_that_could_not_be_ended_is_ended_by_the_door_that_is_added_again(tmp_path):
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        assert (await site.present(site.token())).granted
        site.strike.refuse()
        site.controller.apply(Building.of((), ()), {})
        await asyncio.sleep(0.05)
        site.controller.apply(site.building, site.strikes)
        await asyncio.sleep(0.05)
        assert site.strike.bolt is Reading.RELEASED
        site.strike.obey()
        site.clock.advance(1)
        await site.until(lambda state: _nudged(site) and state.lock is Lock.LOCKED)
        assert site.strike.bolt is Reading.SECURED
    assert site.rows("SELECT key FROM meta WHERE key GLOB 'release:*'") == []


def _nudged(site):
    """Let the door look at the clock."""
    site.controller._doors[site.door.id].post(DeliveriesChosen(not site.state.accepts_deliveries))
    return True


async def test_a_door_that_is_removed_and_added_again_goes_on_where_it_was(ours):
    assert (await ours.present(ours.token())).granted
    ours.controller.apply(Building.of((), ()), {})
    ours.controller.apply(ours.building, ours.strikes)
    await until_secured(ours.strike)
    assert (await ours.present(ours.token())).granted
    await until_secured(ours.strike)


@pytest.mark.parametrize("stalls", ["the strike", "the disk"])
async def test_nobody_who_waits_keeps_a_door_open(ours, stalls):
    assert (await ours.present(ours.token())).granted
    go_on, disk_goes_on = asyncio.Event(), threading.Event()
    if stalls == "the strike":
        ours.strike.at(Moment.REACHED, go_on.wait)
    else:
        commit = ours.journal._commit

        def stalled(group):
            disk_goes_on.wait(10)
            commit(group)

        ours.journal._commit = stalled
    waiting = asyncio.create_task(ours.present(ours.token()))
    await until_secured(ours.strike)
    assert not waiting.done()
    go_on.set()
    disk_goes_on.set()
    await waiting


async def test_a_release_without_an_answer_is_ended_as_soon_as_it_is_given_up(ours, monkeypatch):
    monkeypatch.setattr(door_task, "STRIKE_DEADLINE", 0.3)  # longer than the access time
    ours.strike.hang(moved=True)
    assert (await ours.present(ours.token())).code is Code.OUTCOME_UNKNOWN
    ours.strike.obey()
    await until_secured(ours.strike, 0.15)


# ---- what changes while somebody waits ----


async def test_a_carrier_that_gets_another_issuer_while_its_token_waits_is_refused(site):
    go_on, waiting = await at_the_door(site, site.present(site.token()), site.present(site.token()))
    site.carrier.issuer = issuer("https://renamed.example")
    site.controller.apply(site.building, site.strikes)
    go_on.set()
    assert {decision.code for decision in await asyncio.gather(*waiting)} == {Code.KEY_REVOKED}
    assert site.pulses == 0
    assert site.strike.times_reached == 1, "for the other one nobody disturbed the strike"


async def test_a_door_that_is_taken_away_opens_to_nobody_who_waits(site):
    go_on, waiting = await at_the_door(
        site, site.present(site.token()), site.controller.by_hand.open(site.door.id, ANN)
    )
    others = {door.id: site.strikes[door.id] for door in site.doors[1:]}
    site.controller.apply(Building.of(site.doors[1:], [site.carrier.admitted]), others)
    go_on.set()
    codes = [decision.code for decision in await asyncio.gather(*waiting)]
    assert codes == [Code.WRONG_DOOR, Code.STOPPING]
    assert site.pulses == 0


async def test_those_who_wait_go_to_the_new_relay(site):
    go_on, waiting = await at_the_door(site, site.present(site.token()), site.present(site.token()))
    old, new = site.strike, SimulatedStrike()
    site.controller.apply(site.building, {**site.strikes, site.door.id: new})
    go_on.set()
    assert all(decision.granted for decision in await asyncio.gather(*waiting))
    assert (len(old.pulses), len(new.pulses)) == (1, 1), "who was at the old one already stays there"


async def test_row_37_a_key_that_is_revoked_after_the_commit_moves_nothing(site):
    deliver, held = site.journal._deliver, asyncio.Queue()
    site.journal._deliver = held.put_nowait
    waiting = asyncio.create_task(site.present(site.token()))
    results = await held.get()
    carrier = site.carrier.admitted
    revoked = replace(carrier, keys=tuple(replace(key, status=KeyStatus.REVOKED) for key in carrier.keys))
    site.controller.apply(Building.of(site.doors, [revoked]), site.strikes)
    site.journal._deliver = deliver
    deliver(results)
    assert (await waiting).code is Code.KEY_REVOKED
    assert site.pulses == 0
    await site.told(EventName.RELEASE_FAILED)


# ---- the end of the program ----


async def test_when_the_program_ends_nobody_who_waits_is_let_in(site):
    go_on, waiting = await at_the_door(
        site, *(site.present(site.token()) for _ in range(3)), site.controller.by_hand.open(site.door.id, ANN)
    )
    stopping = asyncio.create_task(site.controller.stop())
    await asyncio.sleep(0)
    go_on.set()
    await stopping
    assert {decision.code for decision in await asyncio.gather(*waiting)} == {Code.STOPPING}
    assert site.pulses == 0
    assert len(await site.told(EventName.ACCESS_DENIED, 4)) == 4, "each is told of"


async def test_a_stop_that_is_cancelled_goes_on_and_a_second_one_waits_for_it(tmp_path):
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        told, go_on = asyncio.Event(), asyncio.Event()

        async def hold():
            told.set()
            await go_on.wait()

        site.strike.at(Moment.TOLD, hold)
        waiting = asyncio.create_task(site.present(site.token()))
        await told.wait()
        first, second = (asyncio.create_task(site.controller.stop()) for _ in range(2))
        await asyncio.sleep(0.02)
        first.cancel()
        await asyncio.sleep(0.02)
        assert first.cancelled()
        assert not second.done()
        go_on.set()
        await second
        assert (await waiting).granted
        assert site.strike.bolt is Reading.SECURED
    async with site.reopen() as again:
        await again.controller.recorded()
        assert again.events == [], "its outcome was recorded before the end"


async def test_a_strike_of_before_that_cannot_be_put_back_does_not_hold_up_the_end(tmp_path):
    """It is tried once more, and the note stays: the next start ends it, whatever drives the door by then."""
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        assert (await site.present(site.token())).granted
        old = site.strike
        old.refuse()
        old.at(Moment.TOLD_TO_SECURE, lambda: asyncio.sleep(0.05))
        site.strikes[site.door.id] = SimulatedStrike(device_timed=False)
        site.controller.apply(site.building, site.strikes)
        assert (await site.controller.by_hand.open(site.door.id, ANN)).granted
        async with asyncio.timeout(2):
            await site.controller.stop()
        assert old.bolt is Reading.RELEASED
        assert site.strike.bolt is Reading.SECURED
        await old.aclose()


async def test_what_a_lockdown_could_not_put_back_is_put_back_at_the_end(tmp_path):
    """The pulse of a device that times itself, which no note is about."""
    async with Site(tmp_path / "journal.db") as site:
        assert (await site.present(site.token())).granted
        site.strike.refuse()
        assert (await site.controller.by_hand.set_lockdown(True, ANN)).granted
        await site.until(lambda state: state.deadline is not None and state.securing)
        assert site.strike.times_secured == 0
        site.strike.obey()
    assert site.strike.times_secured == 1


async def test_what_may_never_have_been_released_is_put_back_at_the_end_and_not_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(door_task, "STRIKE_DEADLINE", 0.05)
    async with Site(tmp_path / "journal.db", device_timed=False) as site:
        site.strike.hang(moved=False)
        assert (await site.present(site.token())).code is Code.OUTCOME_UNKNOWN
        site.strike.obey()
    assert site.strike.times_secured == 1
    assert EventName.DOOR_RELOCKED not in site.outcomes


async def test_who_has_gone_before_the_end_is_not_told_of_it(site):
    go_on, waiting = await at_the_door(site, *(site.present(site.token()) for _ in range(3)))
    waiting[1].cancel()
    stopping = asyncio.create_task(site.controller.stop())
    await asyncio.sleep(0)
    go_on.set()
    await stopping
    await asyncio.gather(*waiting, return_exceptions=True)
    assert [task.cancelled() for task in waiting] == [False, True, False]
    assert len(await site.told(EventName.ACCESS_DENIED, 2)) == 2


async def test_what_happens_to_a_door_happens_whether_somebody_waits_for_it_or_not(site):
    """Somebody cancels every task but the door's; and the other way round, its task has ended before."""
    door = site.controller._doors[site.door.id]
    posted = door.post(ModeChosen(DoorMode.BLOCKED))
    posted.cancel()
    await site.until(lambda state: state.mode is DoorMode.BLOCKED)
    waiting = door.post(ModeChosen(DoorMode.NORMAL))
    waiting.cancel()
    await door.stop(hurry=True)
    assert (await door.post(ModeChosen(DoorMode.UNLOCKED))) is Code.STOPPING


# ---- what breaks ----


async def test_the_end_of_a_release_that_cannot_be_noted_is_said_and_ends_no_door(ours, caplog):
    """The strike is put back all the same; the next start does it once more."""
    assert (await ours.present(ours.token())).granted
    await ours.controller.recorded()
    ours.journal.failed = True
    await until_secured(ours.strike)
    await ours.until(lambda state: state.lock is Lock.LOCKED)
    assert "will be ended again at the next start" in caplog.text
    ours.journal.failed = False
    assert (await ours.present(ours.token())).granted


async def test_a_driver_that_breaks_while_it_is_read_ends_no_door(ours, monkeypatch, caplog):
    monkeypatch.setattr(type(ours.strike), "reading", property(lambda _: 1 / 0))
    for listener in ours.strike._listeners:
        listener(Reading.UNKNOWN)
    await asyncio.sleep(0.02)
    monkeypatch.undo()
    assert "ZeroDivisionError" in caplog.text
    assert (await ours.present(ours.token())).granted


# ---- what is told ----


async def test_the_outcome_of_one_is_told_before_the_grant_of_the_next(site):
    await asyncio.gather(*(site.present(site.token()) for _ in range(4)))
    await site.controller.recorded()
    assert [event.outcome for event in site.events] == [EventName.ACCESS_GRANTED, EventName.DOOR_RELEASED] * 4
    assert [event.sequence for event in site.events] == list(range(1, 9))


async def test_a_refused_token_presented_for_ever_fills_no_journal(site):
    """It is genuine, so each refusal is worth a line; but whoever has overheard it could make any number."""
    text = site.carrier.token("A" * 22)
    for _ in range(REFUSALS_AN_HOUR + 40):
        assert (await site.present(text)).code is Code.NONCE_UNKNOWN
    await site.controller.recorded()
    assert len(site.events) == REFUSALS_AN_HOUR
    assert site.controller.counters[Code.NONCE_UNKNOWN] == 40
    site.clock.advance(3600)
    await site.present(text)
    await site.told(EventName.ACCESS_DENIED, REFUSALS_AN_HOUR + 1)


async def test_a_revoked_key_is_told_with_its_door_and_kept_with_its_token(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        text = site.token()
        carrier = site.carrier.admitted
        revoked = replace(carrier, keys=tuple(replace(key, status=KeyStatus.REVOKED) for key in carrier.keys))
        site.controller.apply(Building.of(site.doors, [revoked]), site.strikes)
        assert (await site.present(text)).code is Code.KEY_REVOKED
        (event,) = await site.told(EventName.ACCESS_DENIED)
        assert (event.door, event.carrier, event.has_stop) == (site.door.id, "Parcels", True)
    assert text in site.rows("SELECT json FROM person")[0][0]
