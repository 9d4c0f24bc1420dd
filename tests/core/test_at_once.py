"""Everything at once: tokens, hands, modes, lockdowns, sensors, set-ups and a strike in a bad temper, in any order.

What must hold whatever the order is checked where it counts: when a command arrives at the strike, and when all is
quiet again.
"""

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest

from tests.simulated import SimulatedStrike, Site, some_doors
from vestibule_core import door as door_module
from vestibule_core import door_task
from vestibule_core.door import Alarm, Lock
from vestibule_core.model import Actor, Code, DoorMode, EventName, RelockOn, Sense, Sensor
from vestibule_core.policy import Building
from vestibule_core.strike import Reading

ANN = Actor(user_id="ann-1", name="Ann", is_admin=True)
DOORS = some_doors(2)


class WatchfulStrike(SimulatedStrike):
    """Looks, whenever it is told to release, whether anything could allow that."""

    def __init__(self, allowed, **kind):
        super().__init__(**kind)
        self._allowed = allowed
        self.told_while_shut = []

    async def release(self, pulse):
        if not self._allowed():
            self.told_while_shut.append(pulse)
        await super().release(pulse)

    async def hold(self, origin):
        if not self._allowed():
            self.told_while_shut.append(origin)
        await super().hold(origin)


class Day:
    """A bad day of a building, told by a seed."""

    def __init__(self, site, seed):
        self.site, self.chance = site, random.Random(seed)
        self.done, self.texts = [], []
        self.takes_doors_away = seed % 2 == 1

    async def run(self, steps):
        for _ in range(steps):
            act = self.chance.choice(self.ACTS)
            if (work := act(self)) is not None:
                self.done.append(asyncio.ensure_future(work))
            for _ in range(self.chance.choice([0, 0, 1, 2, 5])):
                await asyncio.sleep(0)
            if self.chance.random() < 0.1:
                await asyncio.sleep(0.002)  # the disk has a turn

    @property
    def controller(self):
        return self.site.controller

    def door(self):
        return self.chance.choice([door.id for door in DOORS])

    def present(self):
        door = self.chance.choice(DOORS)
        if door.id not in self.controller.building.doors or self.controller.stopped:
            return None
        text = self.site.carrier.token(self.site.challenge(door), aud=door.id)
        self.texts.append(text)
        return self.site.controller.present(text, self.site.carrier.principal)

    def present_again(self):
        if not self.texts:
            return None
        return self.site.controller.present(self.chance.choice(self.texts), self.site.carrier.principal)

    def by_hand(self):
        return self.controller.by_hand.open(self.door(), ANN)

    def mode(self):
        mode = self.chance.choice([DoorMode.NORMAL, DoorMode.UNLOCKED, DoorMode.BLOCKED])
        return self.controller.by_hand.set_mode(self.door(), mode, ANN)

    def lockdown(self):
        return self.controller.by_hand.set_lockdown(self.chance.random() < 0.4, ANN)

    def deliveries(self):
        return self.controller.by_hand.set_deliveries(self.door(), self.chance.random() < 0.8, ANN)

    def clear_tamper(self):
        return self.controller.by_hand.clear_tamper(self.door(), ANN)

    def sense(self):
        sensor = self.chance.choice([Sensor.CONTACT, Sensor.CONTACT, Sensor.CONTACT, Sensor.REX, Sensor.LOCK_MONITOR])
        self.controller.sense(self.door(), sensor, self.chance.choice(list(Sense)))

    def tamper(self):
        self.controller.sense(self.door(), Sensor.TAMPER, self.chance.choice(list(Sense)))

    def temper(self):
        strike = self.site.strikes[self.door()]
        self.chance.choice(
            [
                strike.obey,
                strike.obey,
                strike.refuse,
                strike.lose_the_answer,
                lambda: strike.lose_the_answer(moved=False),
                strike.answer_nonsense,
                strike.cut_power,
                strike.restore_power,
                strike.restore_power,
            ]
        )()

    def meddle(self):
        """A key, which goes back by itself."""
        strike = self.site.strikes[self.door()]
        strike.operate_by_someone_else(Reading.RELEASED)
        strike.operate_by_someone_else(Reading.SECURED)

    def wait(self):
        self.site.clock.advance(self.chance.choice([0.1, 1.0, 5.0, 30.0]))
        for door in self.controller.building.doors:
            self.controller.sense(door, Sensor.LOCK_MONITOR, Sense.UNKNOWN)

    def set_up(self):
        doors = [
            replace(
                door,
                relock=self.chance.choice(list(RelockOn)),
                access_time=self.chance.choice([0.02, 0.03]),
                held_open_time=self.chance.choice([None, 10.0]),
                sensors=self.chance.choice([frozenset(), frozenset(Sensor), frozenset(Sensor)]),
            )
            for door in DOORS
            if not self.takes_doors_away or self.chance.random() < 0.9
        ]
        self.controller.apply(
            Building.of(doors, [self.site.carrier.admitted]), {door.id: self.site.strikes[door.id] for door in doors}
        )

    def go_away(self):
        if self.done:
            self.chance.choice(self.done).cancel()

    ACTS = (
        *[present] * 6, present_again, *[by_hand] * 4, *[mode] * 4, *[lockdown] * 3, deliveries, clear_tamper,
        *[sense] * 6, tamper, *[temper] * 3, meddle, *[wait] * 4, set_up, go_away,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(door_task, "SECURE_AGAIN", 0.01)
    monkeypatch.setattr(door_task, "STRIKE_DEADLINE", 0.05)


async def calm_down(site):
    """Let everybody obey and time pass, until nothing is due."""
    for strike in site.strikes.values():
        strike.restore_power()
        strike.obey()
    site.controller.apply(site.building, site.strikes)
    for _ in range(12):
        for door in site.doors:
            site.controller.sense(door.id, Sensor.LOCK_MONITOR, Sense.UNKNOWN)
            site.controller.sense(door.id, Sensor.LOCK_MONITOR, Sense.FAULT)
        await asyncio.sleep(0.005)  # the devices' own timers, and the disk
        site.clock.advance(door_module.ON_ITS_WAY)
    await site.controller.recorded()


KINDS = {
    "device-timed": {"can_hold": True},
    "controller-timed": {"device_timed": False},
    "controller-timed without feedback": {"device_timed": False, "feedback": False},
    "button": {"feedback": False, "can_secure": False},
}


@pytest.mark.parametrize(
    "days", [range(6), pytest.param(range(100, 400), marks=[pytest.mark.long, pytest.mark.timeout(1800)])], ids=len
)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_a_bad_day(tmp_path, kind, days):
    for seed in days:
        folder = tmp_path / str(seed)
        folder.mkdir()
        site = Site(folder / "journal.db", doors=2, strikes={}, access_time=0.02, setup={"sensors": frozenset(Sensor)})

        def allowed(site=site):
            return not site.controller.by_hand.locked_down

        site.strikes = {door.id: WatchfulStrike(allowed, **kind) for door in site.doors}
        async with site:
            day = Day(site, seed)
            await day.run(120)
            await calm_down(site)
            answers = await asyncio.gather(*day.done, return_exceptions=True)
            await calm_down(site)
            check_answers(answers)
            check_quiet(site, seed)
            locked_down = site.controller.by_hand.locked_down
            modes = {door.id: site.controller.state(door.id) for door in site.doors}
        check_told(site)
        async with site.reopen() as again:
            assert again.controller.by_hand.locked_down is locked_down, seed
            for door in site.doors:
                now, before = shut(again.controller.state(door.id)), shut(modes[door.id])
                # A door that was taken away in the middle of an order may be shut for more reasons afterwards.
                assert before <= now if day.takes_doors_away else before == now, seed


def shut(state):
    """Return all for which a door is shut, now or after a lockdown."""
    reasons = {state.mode, state.after_lockdown} & {DoorMode.BLOCKED, DoorMode.LOCKED_DOWN}
    if not state.accepts_deliveries:
        reasons.add("no deliveries")
    if state.tampered:
        reasons.add("tampered")
    return reasons


def check_answers(answers):
    """Everybody who did not go away got an answer, and none of them an error."""
    for answer in answers:
        assert not isinstance(answer, Exception), answer


def check_quiet(site, seed):
    for door in site.doors:
        state, strike = site.controller.state(door.id), site.strikes[door.id]
        assert strike.told_while_shut == [], (seed, "released in a lockdown")
        assert (state.mode is DoorMode.LOCKED_DOWN) is site.controller.by_hand.locked_down, seed
        is_open = Reading.RELEASED if state.mode is DoorMode.UNLOCKED else Reading.SECURED
        if strike.capabilities.feedback or state.mode is not DoorMode.UNLOCKED:
            assert strike.bolt is is_open, (seed, state)  # else a key may have ended a hold, and nobody knows
        if strike.capabilities.feedback:
            assert state.lock is (Lock.ACCESSED if is_open is Reading.RELEASED else Lock.LOCKED), (seed, state)
        assert not state.releasing
        assert state.due is None or state.alarm is not Alarm.NONE or state.open_too_long_at is not None, (seed, state)
        moved = Counter(pulse.spend_id for pulse in strike.pulses)
        assert set(moved.values()) <= {1}, (seed, "one access moved the strike twice")


def check_told(site):
    """Each event once and in order; each release that was confirmed is one of a grant."""
    sequence = [event.sequence for event in site.events]
    assert sequence == list(range(1, len(sequence) + 1))
    granted = Counter(event.spend_id for event in site.events if event.outcome is EventName.ACCESS_GRANTED)
    assert set(granted.values()) <= {1}
    ends = {
        EventName.DOOR_RELEASED,
        EventName.RELEASE_FAILED,
        EventName.OUTCOME_UNKNOWN,
        EventName.DOOR_ALREADY_UNLOCKED,
    }
    ended = Counter(event.spend_id for event in site.events if event.outcome in ends)
    assert ended == granted, "each grant has one outcome"
    denied = {event.spend_id for event in site.events if event.code is Code.ALREADY_SPENT and event.count is None}
    pulsed = {pulse.spend_id for strike in site.strikes.values() for pulse in strike.pulses}
    assert pulsed <= granted.keys()
    assert denied <= granted.keys()
    assert "SPENT" not in {state for _, state in site.spent()}
