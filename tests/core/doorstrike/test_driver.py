"""The strike driver: what a door, its host and a person see of a strike that comes, goes, refuses and is attacked.

Rows are those of the protocol's adversarial tests (F). Everything runs on the bench, in no time (live.py).
"""

import asyncio
import os
import random
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.core.doorstrike.bench import ALL_CAPS, SPEND, unlock
from tests.core.doorstrike.live import EPOCH, Rig, in_no_time
from vestibule_core.doorstrike import driver, frames
from vestibule_core.doorstrike.device import BatteryIs, ContactIs, CoverIs
from vestibule_core.doorstrike.keyring import NEEDS
from vestibule_core.doorstrike.outcome import REMEMBERED
from vestibule_core.doorstrike.wire import ALL_RIGHTS, Caps, Command, Contact, EventKind, Op, Relay, Result, Rights
from vestibule_core.errors import OutcomeUnknown, SpentElsewhere, StrikeRefused, StrikeUnreachable
from vestibule_core.model import Sense, Sensor
from vestibule_core.strike import Pulse, Reading

PULSE = Pulse(SPEND, 1.0)
SIZES = [20, 62, 244]


def kinds(events):
    return [EventKind(one.event.kind).name for one in events]


def releases(rig, spend_id=SPEND):
    return [one for one in rig.events if one.event.kind == EventKind.RELAY_ON and one.event.spend_id == spend_id]


# ---- a release, when all is well ----


@in_no_time
async def test_a_release_comes_with_its_readings_and_events_and_then_lets_go_of_the_strike():
    async with Rig() as rig:
        await rig.strike.reach()
        assert rig.radio.carried == 1, "HELLO, and nothing else: nothing is spent"
        await rig.strike.release(PULSE)
        assert (rig.bench.pulses, rig.strike.reading) == ([1.0], "released")
        assert rig.radio.written == 1, "HS1"
        await rig.until(lambda: rig.idle)
        assert rig.readings == ["released", "secured"]
        assert kinds(rig.events) == ["RELAY_ON", "RELAY_OFF"]
        assert rig.radio.connections == 1


@in_no_time
async def test_a_kept_connection_is_reached_at_once_and_released_in_one_exchange():
    async with Rig(keep=True) as rig:
        await asyncio.sleep(100)
        assert rig.radio.connections == 1, "PING keeps it"
        before = rig.radio.carried, rig.radio.written
        await rig.strike.reach()
        assert rig.radio.carried == before[0]
        await rig.strike.release(PULSE)
        assert rig.radio.written == before[1] + 1
        await asyncio.sleep(5)
        assert kinds(rig.events) == ["RELAY_ON", "RELAY_OFF"]
        assert rig.strike.is_connected


@in_no_time
async def test_without_the_right_to_hear_events_the_end_of_a_pulse_is_asked_for():
    async with Rig() as rig:
        other = replace(rig.kept, paired=rig.other)
        assert rig.bench.grant(rig.paired, rig.other.slot, Rights.MANUAL) is Result.OK
        rig.kept = other
        await rig.restart()
        await rig.strike.release(PULSE)
        await rig.until(lambda: rig.idle)
        assert (rig.strike.reading, rig.events) == ("secured", [])


@in_no_time
async def test_a_reached_strike_that_nobody_releases_is_let_go():
    async with Rig() as rig:
        await rig.strike.reach()
        await rig.until(lambda: rig.idle)
        assert (rig.bench.commands, rig.bench.pulses) == (0, [])


@in_no_time
async def test_a_second_reach_does_not_begin_with_an_old_hello():
    async with Rig() as rig:
        await rig.strike.reach()
        await asyncio.sleep(4.0)
        await rig.strike.reach()
        assert rig.radio.connections == 2
        await asyncio.sleep(4.0)
        await rig.strike.release(PULSE)
        assert rig.bench.pulses == [1.0]


@in_no_time
async def test_a_release_whose_connection_was_lost_since_it_was_reached_makes_another():
    async with Rig() as rig:
        await rig.strike.reach()
        rig.radio.cut()
        await rig.strike.release(PULSE)
        assert rig.bench.pulses == [1.0]


@in_no_time
async def test_the_strike_times_the_pulse_within_its_own_limits():
    async with Rig() as rig:
        for seconds in (0.001, 3.21, 1000.0):
            await rig.strike.release(Pulse(os.urandom(16), seconds))
            await asyncio.sleep(15)
        assert rig.bench.pulses == [0.5, 3.21, 10.0]


@in_no_time
async def test_a_hold_lasts_until_secure():
    async with Rig() as rig:
        await rig.strike.hold(None)
        await rig.until(lambda: rig.idle)
        await asyncio.sleep(60)
        assert (rig.bench.released, rig.strike.reading, rig.strike.state.relay) == (True, "released", Relay.HELD)
        await rig.strike.secure()
        assert (rig.bench.released, rig.strike.reading) == (False, "secured")


@in_no_time
async def test_what_a_strike_cannot_hold_is_not_offered():
    async with Rig(caps=ALL_CAPS & ~Caps.HOLD) as rig:
        assert not rig.strike.capabilities.can_hold
        with pytest.raises(StrikeRefused, match="cannot do that"):
            await rig.strike.hold(None)


@in_no_time
async def test_two_releases_at_once_share_one_connection():
    async with Rig() as rig:
        await asyncio.gather(rig.strike.release(Pulse(b"a" * 16, 1)), rig.strike.release(Pulse(b"b" * 16, 1)))
        assert len(rig.bench.pulses) == 2
        assert rig.radio.connections == 1


@in_no_time
async def test_a_ping_under_way_does_not_disturb_a_release():
    async with Rig(keep=True) as rig:
        rig.radio.latency = 0.1
        await asyncio.sleep(5)
        before = rig.radio.written
        while rig.radio.written == before:  # noqa: ASYNC110 - the next one reaches the strike
            await asyncio.sleep(0.01)
        await rig.strike.release(PULSE)
        assert rig.bench.pulses == [1.0]
        assert rig.radio.connections == 1


# ---- refusals ----


async def lockout(rig):
    rig.bench.flash["log"] = b"torn"
    rig.bench.reboot()


async def rate(rig):
    for _ in range(20):
        await rig.strike.release(Pulse(os.urandom(16), 0.5))


async def no_right(rig):
    assert rig.bench.grant(rig.paired, rig.other.slot, Rights.NONE) is Result.OK
    rig.kept = replace(rig.kept, paired=rig.other)
    await rig.restart()


async def jammed(rig):
    rig.bench.jammed = True


@pytest.mark.parametrize(
    "what, words",
    [(lockout, "lost its memory"), (rate, "wait a minute"), (no_right, "no right"), (jammed, "relay did not move")],
    ids=["row 80: torn ring", "row 39: too many", "row 55: no right", "relay fault"],
)
@pytest.mark.parametrize("keep", [False, True], ids=["cold", "kept connection"])
def test_a_refusal_says_why_and_moves_nothing(what, words, keep):
    @in_no_time
    async def check():
        async with Rig(keep=keep) as rig:
            await what(rig)
            moved = len(rig.bench.pulses)
            with pytest.raises(StrikeRefused, match=words) as raised:
                await rig.strike.release(PULSE)
            assert not isinstance(raised.value, SpentElsewhere)
            assert len(rig.bench.pulses) == moved

    check()


@in_no_time
async def test_row_75_a_duplicate_of_what_this_client_never_sent_is_already_spent():
    async with Rig() as rig:
        assert rig.bench.session(rig.other).ask(unlock()).state.result is Result.OK
        with pytest.raises(SpentElsewhere):
            await rig.strike.release(PULSE)
        assert rig.bench.pulses == [0.5]


@in_no_time
async def test_row_53_the_same_spend_again_moves_nothing_and_is_not_taken_for_anothers():
    async with Rig() as rig:
        await rig.strike.release(PULSE)
        with pytest.raises(OutcomeUnknown):
            await rig.strike.release(PULSE)
        await asyncio.sleep(2)
        await rig.strike.release(PULSE)  # it happened: once
        assert rig.bench.pulses == [1.0]


@in_no_time
async def test_row_72_a_command_that_was_held_back_is_late():
    async with Rig(keep=True) as rig:
        held = []

        def hold_back(to_strike, fragment):
            if to_strike and not held:
                held.append(fragment)
                link = next(iter(rig.radio.open_links))
                asyncio.get_running_loop().call_later(5.5, rig.bench.tell, "fragment", link.number, fragment)
                return []
            return [fragment]

        rig.radio.tap = hold_back
        with pytest.raises(StrikeRefused, match="too late"):
            await rig.strike.release(PULSE)
        assert rig.bench.pulses == []


# ---- no answer ----


@pytest.mark.parametrize("keep", [False, True], ids=["cold", "kept connection"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("packets", range(17))
def test_row_54_the_link_is_cut_at_every_packet_of_an_unlock(packets, size, keep):
    @in_no_time
    async def check():
        async with Rig(keep=keep, size=size) as rig:
            rig.radio.cut_after(packets)
            failure = None
            try:
                await rig.strike.reach()
                await rig.strike.release(PULSE)
            except (StrikeUnreachable, StrikeRefused) as error:
                failure = error
            rig.radio.packets_left = None
            assert bool(rig.bench.pulses) == (failure is None), "it is known, and right"
            await rig.until(lambda: not rig.bench.released)
            rig.advertise()
            await asyncio.sleep(30)
            rig.advertise()
            await asyncio.sleep(30)
            assert len(releases(rig)) == len(rig.bench.pulses), "and told, once"
            assert rig.bench.connect(rig.other).ask(unlock()).state.result is (
                Result.OK if failure else Result.DUPLICATE
            )
            assert len(rig.bench.pulses) == 1
            assert rig.radio.most_links == 1

    check()


@in_no_time
async def test_an_outcome_is_found_out_as_soon_as_the_strike_can_say_that_it_began():
    async with Rig() as rig:
        rig.radio.cut_after(2)  # HELLO and HS1 get through
        began = asyncio.get_running_loop().time()
        await rig.strike.release(PULSE)
        assert asyncio.get_running_loop().time() - began < 1
        assert rig.radio.connections == 2


@in_no_time
async def test_what_the_strike_has_not_heard_is_known_only_when_it_cannot_hear_it_any_more():
    async with Rig() as rig:
        rig.radio.cut_after(1)
        began = asyncio.get_running_loop().time()
        with pytest.raises(StrikeUnreachable, match="nothing moved"):
            await rig.strike.release(PULSE)
        assert 6 <= asyncio.get_running_loop().time() - began < 7
        assert rig.bench.pulses == []


@in_no_time
async def test_an_outcome_that_takes_too_long_is_unknown_and_then_told_by_readings_and_events():
    async with Rig() as rig:
        await rig.strike.reach()

        def walk_away_before_the_answer(to_strike, fragment):
            if not to_strike:
                rig.radio.walk_away()
            return [fragment] if to_strike else []

        rig.radio.tap = walk_away_before_the_answer
        began = asyncio.get_running_loop().time()
        with pytest.raises(OutcomeUnknown):
            await rig.strike.release(PULSE)
        assert rig.bench.pulses == [1.0]
        assert 9 < asyncio.get_running_loop().time() - began < 10
        assert rig.strike.reading == "unknown"
        rig.radio.tap = lambda to_strike, fragment: [fragment]
        rig.radio.come_back()
        await rig.until(lambda: rig.strike.state, 60)
        await rig.until(lambda: rig.idle, 60)
        assert rig.strike.reading == "secured"
        assert kinds(rig.events) == ["RELAY_ON", "RELAY_OFF"]
        assert rig.bench.pulses == [1.0]


@in_no_time
async def test_nobody_asks_for_an_outcome_for_ever():
    async with Rig() as rig:
        await rig.strike.reach()
        rig.radio.mute()
        with pytest.raises(OutcomeUnknown):
            await rig.strike.release(PULSE)
        rig.radio.walk_away()
        await asyncio.sleep(REMEMBERED + 60)
        attempts = rig.radio.attempts
        await asyncio.sleep(600)
        assert rig.radio.attempts == attempts


@in_no_time
async def test_row_74_a_brown_out_between_ring_and_relay_is_unknown():
    async with Rig() as rig:
        await rig.strike.reach()
        rig.bench.effects_left = 1  # the spend is on the disk, and the relay has not heard of it
        release = asyncio.ensure_future(rig.strike.release(PULSE))
        await rig.until(lambda: rig.bench.strike is None)
        rig.bench.power_up()
        with pytest.raises(OutcomeUnknown):
            await release
        await asyncio.sleep(30)
        assert rig.bench.pulses == []


@in_no_time
async def test_a_refusal_in_clear_is_no_word_of_the_strike():
    """Anybody in the middle can say ERR: whether it moved is asked, and not believed."""
    async with Rig() as rig:
        await rig.strike.reach()

        def forge(to_strike, fragment):
            rig.radio.tap = forge if to_strike else lambda to_strike, fragment: [fragment]
            return [fragment] if to_strike else [b"\xc0\x00\x02\x7f\x01"]

        rig.radio.tap = forge
        await rig.strike.release(PULSE)
        assert rig.bench.pulses == [1.0]


# ---- callers who give up ----


@in_no_time
async def test_a_release_that_was_given_up_before_it_was_sent_is_not_made_up_for():
    async with Rig() as rig:
        rig.radio.walk_away()
        rig.radio.patience = 3.0
        release = asyncio.ensure_future(rig.strike.release(PULSE))
        await asyncio.sleep(1)
        release.cancel()
        await asyncio.wait({release})
        rig.radio.come_back()
        await asyncio.sleep(60)
        assert (rig.bench.commands, rig.radio.connections) == (0, 0)


@in_no_time
async def test_a_release_is_never_sent_later_than_five_seconds_after_it_was_asked_for():
    async with Rig() as rig:
        connect = rig.radio.connect

        async def slowly(lost):
            await asyncio.sleep(5.1)
            return await connect(lost)

        rig.radio.connect = slowly
        with pytest.raises(StrikeUnreachable, match="in time"):
            await rig.strike.release(PULSE)
        await asyncio.sleep(60)
        assert rig.bench.commands == 0


@in_no_time
async def test_a_release_that_was_given_up_after_it_was_sent_goes_on_and_is_told():
    async with Rig() as rig:
        await rig.strike.reach()
        release = asyncio.ensure_future(rig.strike.release(PULSE))

        def give_up_before_the_answer(to_strike, fragment):
            if not to_strike:
                rig.radio.tap = lambda to_strike, fragment: [fragment]
                release.cancel()
                rig.radio.cut()
            return [fragment] if to_strike else []

        rig.radio.tap = give_up_before_the_answer
        await asyncio.wait({release})
        assert release.cancelled()
        await rig.until(lambda: rig.strike.reading is Reading.SECURED)
        assert rig.readings == ["released", "secured"]
        assert len(releases(rig)) == 1
        assert rig.bench.pulses == [1.0]


@in_no_time
async def test_an_attempt_that_nobody_waits_for_any_more_takes_no_slot():
    async with Rig() as rig:
        rig.radio.walk_away()
        rig.radio.patience = 60.0
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await rig.strike.reach()
        assert rig.radio.attempts == 3
        rig.radio.come_back()
        await rig.strike.reach()


@in_no_time
async def test_an_attempt_that_takes_its_time_to_give_up_is_waited_for():
    async with Rig() as rig:
        under_way, most = 0, 0
        connect = rig.radio.connect

        async def slow_to_give_up(lost):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                await asyncio.sleep(1)
                return await connect(lost)
            finally:
                await asyncio.sleep(0.5)
                under_way -= 1

        rig.radio.connect = slow_to_give_up
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.7):
                    await rig.strike.reach()
        await rig.strike.reach()
        assert most == 1


@in_no_time
async def test_who_gives_up_does_not_take_the_connection_from_others_who_wait():
    async with Rig() as rig:
        first = asyncio.ensure_future(rig.strike.reach())
        second = asyncio.ensure_future(rig.strike.reach())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert rig.radio.attempts == 1


@pytest.mark.parametrize("keep", [False, True], ids=["cold", "kept connection"])
@pytest.mark.parametrize("turns", range(12))
def test_close_ends_whatever_is_under_way_and_leaves_nothing(turns, keep):
    @in_no_time
    async def check():
        async with Rig(keep=keep) as rig:
            rig.advertise()
            work = [
                asyncio.ensure_future(one)
                for one in (rig.strike.reach(), rig.strike.release(PULSE), rig.strike.set_rights(2, Rights.NONE))
            ]
            for _ in range(turns):
                await asyncio.sleep(0 if turns < 8 else 0.0005)
            await rig.strike.close()
            for one in await asyncio.gather(*work, return_exceptions=True):
                assert one is None or isinstance(one, StrikeUnreachable | OutcomeUnknown | StrikeRefused)
            assert rig.idle
            assert rig.strike.reading == "unknown"
            with pytest.raises(StrikeUnreachable):
                await rig.strike.reach()
            rig.advertise()
            await asyncio.sleep(100)
            assert rig.idle

    check()


# ---- lives ----


def a_life(seed):
    """Deliveries while the link breaks at random packets, the strike comes and goes, and callers give up."""

    @in_no_time
    async def live():
        rng = random.Random(seed)
        async with Rig(keep=rng.random() < 0.5, size=rng.choice(SIZES), seed=seed) as rig:
            moved_by = {}
            for _ in range(4):
                pulse = Pulse(rng.randbytes(16), rng.choice([0.5, 8.0]))
                before = len(rig.bench.pulses)
                rig.radio.cut_after(rng.randrange(18))
                if rng.random() < 0.2:
                    asyncio.get_running_loop().call_later(rng.random() * 0.02, rig.radio.walk_away)
                asyncio.get_running_loop().call_later(rng.choice([1, 20]), rig.radio.come_back)
                said = None
                try:
                    async with asyncio.timeout(rng.choice([0.01, 3, 10])):
                        await rig.strike.reach()
                        await rig.strike.release(pulse)
                        said = True
                except StrikeUnreachable, StrikeRefused:
                    said = False
                except TimeoutError, OutcomeUnknown:
                    pass
                if rng.random() < 0.2:
                    await rig.restart()
                rig.radio.packets_left = rng.choice([None, rng.randrange(12)])
                await asyncio.sleep(rng.choice([15, 40]))
                moved = len(rig.bench.pulses) - before
                assert moved <= 1, "never a second pulse"
                assert said in (None, bool(moved)), "what was said is so"
                moved_by[pulse.spend_id] = moved
            rig.radio.packets_left = None
            rig.radio.come_back()
            for _ in range(20):
                rig.advertise()
                await asyncio.sleep(60)
            assert {spend_id: len(releases(rig, spend_id)) for spend_id in moved_by} == moved_by, "nothing is lost"
            numbers = [one.event.seq for one in rig.events]
            assert numbers == list(range(numbers[0], rig.bench.seq + 1)) if numbers else not any(moved_by.values())
            assert rig.strike.reading == "secured"
            assert rig.radio.most_links <= 1

    live()


@pytest.mark.parametrize("some", range(10))
def test_200_random_cuts(some):
    for seed in range(20):
        a_life(some * 20 + seed)


# ---- polls ----


@in_no_time
async def test_a_poll_brings_state_senses_and_events_and_lets_go():
    async with Rig() as rig:
        rig.bench.sense(ContactIs(Contact.CLOSED))
        rig.bench.sense(ContactIs(Contact.OPEN))
        rig.bench.sense(BatteryIs(55))
        rig.bench.sense(CoverIs(True))
        assert rig.strike.state is None
        assert rig.strike.sense(Sensor.CONTACT) is Sense.UNKNOWN
        await rig.polled()
        assert rig.strike.sense(Sensor.CONTACT) is Sense.ACTIVE
        assert rig.strike.sense(Sensor.TAMPER) is Sense.ACTIVE
        assert rig.strike.state.battery == 55
        assert kinds(rig.events)[-2:] == ["OPENED", "TAMPER"]


@in_no_time
async def test_row_59_a_flood_of_advertisements_causes_a_connection_in_five_seconds_at_the_most_and_backs_off():
    async with Rig() as rig:
        real = rig.bench.strike.advertisement
        for number in range(3600):
            rig.strike.seen(replace(real, evt_seq=number, flags=real.flags | 2))
            await asyncio.sleep(1)
        assert rig.radio.attempts <= 14
        assert (rig.bench.commands, rig.strike.reading) == (0, "secured")


@in_no_time
async def test_advertisements_of_another_strike_are_nothing():
    async with Rig() as rig:
        rig.strike.seen(replace(rig.bench.strike.advertisement, strike=b"\1\2\3\4\5\6"))
        await asyncio.sleep(1)
        assert (rig.radio.attempts, rig.strike.is_reachable) == (0, False)


@in_no_time
async def test_an_unlock_joins_a_poll_instead_of_waiting_for_its_end():
    async with Rig() as rig:
        for number in range(200):
            rig.bench.sense(ContactIs(Contact.OPEN if number % 2 else Contact.CLOSED))
        under_way = asyncio.Event()
        rig.strike.on_change(lambda: rig.strike.state is not None and under_way.set())
        rig.advertise()
        await under_way.wait()
        await rig.strike.release(PULSE)
        assert rig.events == [], "after one more page of the poll's, not after all of them"
        assert rig.radio.connections == 1
        await rig.until(lambda: rig.idle)
        assert len(rig.events) == 201


@in_no_time
async def test_a_strike_that_still_advertises_is_asked_again_before_what_it_said_is_too_old():
    async with Rig() as rig:
        await rig.polled()
        for _ in range(4 * 360):
            rig.advertise()
            await asyncio.sleep(10)
            assert rig.strike.state is not None
        assert rig.radio.connections <= 4 * 5


# ---- events ----


@in_no_time
async def test_events_of_the_time_without_a_connection_come_in_order_once_and_with_their_own_time():
    async with Rig() as rig:
        await rig.strike.release(PULSE)
        await rig.until(lambda: rig.idle)
        rig.bench.sense(ContactIs(Contact.CLOSED))
        at = []
        for number in range(40):
            await asyncio.sleep(7)
            rig.bench.sense(ContactIs(Contact.OPEN if number % 2 == 0 else Contact.CLOSED))
            at.append(rig.clock().wall)
        await asyncio.sleep(1000)
        rig.events.clear()
        await rig.polled()
        assert [one.event.kind for one in rig.events] == [EventKind.OPENED, EventKind.CLOSED] * 20
        assert [one.at for one in rig.events] == pytest.approx(at, abs=0.01)
        rig.advertise()
        await asyncio.sleep(100)
        assert len(rig.events) == 40


@in_no_time
async def test_events_are_told_of_once_and_keep_their_time_across_a_restart():
    async with Rig() as rig:
        await rig.strike.release(PULSE)
        await rig.until(lambda: rig.idle)
        rig.events.clear()
        await asyncio.sleep(100)
        rig.bench.sense(ContactIs(Contact.CLOSED))
        rig.bench.sense(ContactIs(Contact.OPEN))
        happened = rig.clock().wall
        await rig.restart()
        await asyncio.sleep(100)
        await rig.polled()
        assert [one.event.kind for one in rig.events] == [EventKind.OPENED]
        assert rig.events[0].at == pytest.approx(happened, abs=0.01)


@in_no_time
async def test_events_of_before_it_was_ever_heard_have_their_own_time_by_its_word_how_long_it_has_been_up():
    async with Rig() as rig:
        rig.bench.sense(ContactIs(Contact.CLOSED))
        rig.bench.sense(ContactIs(Contact.OPEN))
        happened = rig.clock().wall
        await asyncio.sleep(100)
        await rig.polled()
        assert [one.event.kind for one in rig.events] == [EventKind.OPENED]
        assert rig.events[0].at == pytest.approx(happened, abs=0.1)


@in_no_time
async def test_across_a_power_cut_times_are_known():
    async with Rig(keep=True) as rig:
        rig.bench.sense(ContactIs(Contact.CLOSED))
        rig.bench.sense(ContactIs(Contact.OPEN))
        await asyncio.sleep(1)
        assert rig.events[-1].at == pytest.approx(EPOCH, abs=10)
        rig.bench.reboot()
        booted = rig.clock().wall
        rig.bench.sense(ContactIs(Contact.CLOSED))
        await asyncio.sleep(5)
        assert [one.event.kind for one in rig.events[1:]] == [EventKind.BOOT]
        assert rig.events[-1].at == pytest.approx(booted, abs=0.1)
        rig.bench.sense(ContactIs(Contact.OPEN))
        await asyncio.sleep(1)
        assert rig.events[-1].at == pytest.approx(rig.clock().wall - 1, abs=0.01)


@in_no_time
async def test_what_a_strike_has_forgotten_is_skipped():
    async with Rig() as rig:
        for number in range(600):
            rig.bench.sense(ContactIs(Contact.OPEN if number % 2 else Contact.CLOSED))
        await rig.polled()
        assert len(rig.events) == 256
        assert rig.events[-1].event.seq == rig.bench.seq


@in_no_time
async def test_a_strike_that_has_lost_its_log_is_heard_from_the_beginning():
    async with Rig() as rig:
        await rig.polled()
        rig.bench.flash["log"] = b"torn"
        rig.bench.reboot()
        rig.skip(10)
        rig.advertise()
        await asyncio.sleep(5)
        assert [(one.event.seq, one.event.kind) for one in rig.events] == [(1, EventKind.BOOT)]
        assert rig.kept.heard == 1


# ---- what is known, and for how long ----


@in_no_time
async def test_what_a_strike_said_last_is_dropped_after_a_while():
    async with Rig() as rig:
        await rig.polled()
        assert rig.strike.reading == "secured"
        await asyncio.sleep(driver.STALE_AFTER + 1)
        assert (rig.strike.state, rig.strike.reading, rig.readings[-1]) == (None, "unknown", "unknown")
        assert rig.strike.sense(Sensor.TAMPER) is Sense.UNKNOWN


@in_no_time
async def test_a_strike_that_is_gone_says_nothing():
    async with Rig() as rig:
        changes = []
        rig.strike.on_change(lambda: changes.append(rig.strike.is_reachable))
        await rig.polled()
        assert rig.strike.is_reachable
        rig.strike.gone()
        assert (rig.strike.is_reachable, rig.strike.reading) == (False, "unknown")
        assert changes[0]
        assert not changes[-1]


@in_no_time
async def test_a_pulse_whose_end_nobody_heard_is_not_read_for_ever():
    async with Rig() as rig:
        await rig.strike.release(PULSE)
        rig.radio.walk_away()
        assert rig.strike.reading == "released"
        await asyncio.sleep(11)
        assert rig.strike.reading == "unknown"


@in_no_time
async def test_a_kept_connection_that_is_lost_comes_back_without_a_gap_or_says_nothing():
    async with Rig(keep=True) as rig:
        rig.radio.cut()
        await asyncio.sleep(3)
        assert (rig.strike.is_connected, rig.readings) == (True, ["secured"])
        rig.radio.walk_away()
        await asyncio.sleep(3)
        assert rig.strike.reading == "unknown"


@in_no_time
async def test_a_kept_connection_is_tried_less_and_less_often_and_at_once_when_the_strike_is_seen():
    async with Rig(keep=True) as rig:
        rig.radio.walk_away()
        before, started = rig.radio.attempts, []
        connect, clock = rig.radio.connect, asyncio.get_running_loop().time

        async def noted(lost):
            started.append(clock())
            return await connect(lost)

        rig.radio.connect = noted
        await asyncio.sleep(300)
        gaps = [round(later - earlier) for earlier, later in pairwise(started)]
        assert gaps == [2, 4, 8, 16, 32, 60, 60, 60]
        rig.radio.come_back()
        await asyncio.sleep(1)
        rig.advertise()
        await asyncio.sleep(1)
        assert rig.strike.is_connected
        assert rig.radio.attempts == before + 10


@in_no_time
async def test_a_session_that_has_become_old_is_renewed_without_anybody_noticing():
    async with Rig(keep=True) as rig:
        await asyncio.sleep(3 * 3600)
        assert rig.radio.connections == 2
        assert rig.readings == ["secured"]


@in_no_time
async def test_a_strike_that_is_silent_is_found_out():
    async with Rig(keep=True) as rig:
        rig.radio.mute()
        await asyncio.sleep(40)
        assert rig.strike.reading == "unknown"
        assert "does not answer" in rig.strike.reason


# ---- who it is ----


@in_no_time
async def test_row_60_another_strike_at_the_address_hears_no_command():
    async with Rig() as rig:
        rig.kept = replace(rig.kept, paired=replace(rig.paired, strike_id=b"\1" * 8))
        await rig.restart()
        with pytest.raises(StrikeUnreachable, match="another strike"):
            await rig.strike.reach()
        assert "another strike" in rig.strike.reason
        assert rig.radio.carried == 1


@in_no_time
async def test_row_60_a_fake_hello_of_a_high_version_does_not_shut_the_real_strike_out():
    async with Rig() as rig:

        def fake(to_strike, fragment):
            return [fragment] if to_strike else [fragment[:4] + b"\x63" + fragment[5:]]

        rig.radio.tap = fake
        with pytest.raises(StrikeUnreachable, match="version"):
            await rig.strike.reach()
        rig.radio.tap = lambda to_strike, fragment: [fragment]
        await rig.strike.release(PULSE)
        assert (rig.strike.reason, rig.kept.paired.version) == (None, 1)


@in_no_time
async def test_row_46_a_wrong_key_opens_nothing_and_the_reason_can_be_read():
    async with Rig() as rig:
        rig.kept = replace(rig.kept, paired=replace(rig.paired, psk=bytes(32)))
        await rig.restart()
        with pytest.raises(OutcomeUnknown):  # ERR is nobody's word
            await rig.strike.release(PULSE)
        assert "refused the key" in rig.strike.reason
        assert rig.bench.pulses == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("packet", range(1, 4))
def test_row_48_a_bit_that_flips_on_the_way_moves_nothing_twice(packet, size):
    @in_no_time
    async def check():
        async with Rig(size=size) as rig:
            await rig.strike.reach()
            seen = []

            def flip(to_strike, fragment):
                seen.append(fragment)
                return [bytes([*fragment[:-1], fragment[-1] ^ 1])] if len(seen) == packet else [fragment]

            rig.radio.tap = flip
            try:
                await rig.strike.release(PULSE)
            except StrikeUnreachable:
                assert rig.bench.pulses == []
            else:
                assert rig.bench.pulses == [1.0]

    check()


@in_no_time
async def test_what_answers_nonsense_to_events_is_let_go():
    async with Rig() as rig:
        original = frames.events
        rig.bench.sense(ContactIs(Contact.CLOSED))
        try:
            frames.events = lambda some: b"\xff"
            rig.bench.sense(ContactIs(Contact.OPEN))
            rig.advertise()
            await asyncio.sleep(3)
        finally:
            frames.events = original
        assert rig.idle
        assert rig.events == []
        rig.skip(30)
        await rig.polled()
        assert kinds(rig.events)[-1] == "OPENED"


# ---- administration ----


@in_no_time
async def test_rights_are_given_and_taken_and_slots_deleted():
    async with Rig() as rig:
        await rig.strike.set_rights(rig.other.slot, Rights.EVENTS)
        with pytest.raises(StrikeRefused, match="no such slot"):
            await rig.strike.set_rights(7, Rights.EVENTS)
        with pytest.raises(StrikeRefused, match="only one slot may spend"):
            await rig.strike.set_rights(rig.other.slot, Rights.SPEND)
        await rig.strike.delete_slot(rig.other.slot)
        assert not rig.bench.connect(rig.other).ask(Command(Op.QUERY))
        with pytest.raises(StrikeRefused, match="one has to remain"):
            await rig.strike.delete_slot(rig.paired.slot)
        await rig.strike.release(PULSE)


@pytest.mark.parametrize("keep", [False, True], ids=["cold", "kept connection"])
def test_an_administrator_sees_who_has_a_slot(keep):
    @in_no_time
    async def check():
        async with Rig(keep=keep) as rig:
            await rig.strike.set_rights(rig.other.slot, Rights.MANUAL | Rights.EVENTS)
            await rig.until(lambda: keep or rig.idle)
            assert await rig.strike.list_slots() == (
                frames.SlotListed(rig.paired.slot, ALL_RIGHTS, "Home Assistant"),
                frames.SlotListed(rig.other.slot, Rights.MANUAL | Rights.EVENTS, "another"),
            )

    check()


@in_no_time
async def test_who_may_not_administer_does_not_see_who_has_a_slot():
    async with Rig() as rig:
        rig.kept = replace(rig.kept, paired=rig.other)
        await rig.restart()
        with pytest.raises(StrikeRefused, match="no right to do that"):
            await rig.strike.list_slots()


@in_no_time
async def test_an_early_strike_cannot_say_who_has_a_slot(monkeypatch):
    async with Rig() as rig:
        monkeypatch.delitem(NEEDS, Op.SLOT_LIST)
        with pytest.raises(StrikeRefused, match="it cannot do that"):
            await rig.strike.list_slots()
        await rig.strike.release(PULSE)


@in_no_time
async def test_a_list_of_slots_that_is_nonsense_is_none(monkeypatch):
    async with Rig() as rig:
        monkeypatch.setattr(frames, "slot_list", lambda some: b"\x09")
        with pytest.raises(OutcomeUnknown, match="not its own"):
            await rig.strike.list_slots()
        await rig.strike.release(PULSE)


@pytest.mark.parametrize("keep", [False, True], ids=["cold", "kept connection"])
def test_a_new_key_is_remembered_before_it_is_used_and_the_old_one_ends(keep):
    @in_no_time
    async def check():
        async with Rig(keep=keep) as rig:
            stored = []

            async def durable():
                stored.append((rig.kept, rig.radio.carried))
                await asyncio.sleep(1)
                assert rig.radio.carried == stored[0][1] or keep

            await rig.strike.rekey(durable)
            kept = stored[0][0]
            assert kept.next_psk
            assert kept.paired == rig.paired, "both, until the new one is proved"
            assert (rig.kept.paired.psk, rig.kept.next_psk) == (kept.next_psk, None)
            assert rig.bench.connect(rig.paired).ask(Command(Op.QUERY)) is None
            await rig.strike.release(PULSE)
            await rig.restart()
            await rig.strike.reach()

    check()


@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
@pytest.mark.parametrize("packets", range(14))
def test_a_change_of_keys_that_is_cut_at_any_packet_locks_nobody_out(packets, restart):
    @in_no_time
    async def check():
        async with Rig(size=62) as rig:
            await rig.strike.reach()
            rig.radio.cut_after(packets)
            with suppress(StrikeUnreachable, OutcomeUnknown):
                await rig.strike.rekey()
            rig.radio.packets_left = None
            if restart:
                await rig.restart()
            for wait in (0, 10, 60):
                await asyncio.sleep(wait)
                await rig.strike.reach()
                await rig.strike.release(Pulse(os.urandom(16), 0.5))
            assert rig.kept.next_psk is None
            assert rig.bench.pulses == [0.5, 0.5, 0.5]

    check()


@in_no_time
async def test_a_listener_that_fails_does_not_keep_others_from_hearing(caplog):
    async with Rig() as rig:

        def fail(_):
            raise ZeroDivisionError

        rig.strike.subscribe(fail)
        heard = []
        stop = rig.strike.subscribe(heard.append)
        await rig.strike.release(PULSE)
        assert heard == ["released"]
        stop()
        stop()
        assert "ZeroDivisionError" in caplog.text


@in_no_time
async def test_a_radio_that_fails_in_an_unforeseen_way_is_reported_and_tried_again(caplog):
    async with Rig(keep=True) as rig:
        connect = rig.radio.connect

        async def broken(lost):
            rig.radio.connect = connect
            raise ZeroDivisionError

        rig.radio.connect = broken
        rig.radio.cut()
        await asyncio.sleep(10)
        assert rig.strike.is_connected
        assert "ZeroDivisionError" in caplog.text


@in_no_time
async def test_a_write_that_fails_in_an_unforeseen_way_is_reported_and_the_outcome_asked_for(caplog):
    async with Rig() as rig:
        await rig.strike.reach()
        (link,) = rig.radio.open_links

        async def broken(fragment, *, with_response):
            raise ZeroDivisionError

        link.write = broken
        with pytest.raises(StrikeUnreachable, match="nothing moved"):
            await rig.strike.release(PULSE)
        assert "ZeroDivisionError" in caplog.text


@in_no_time
async def test_a_link_that_does_not_want_to_close_holds_nobody_up():
    async with Rig() as rig:
        await rig.strike.reach()
        (link,) = rig.radio.open_links
        close = link.close

        async def hang():
            await close()
            await asyncio.sleep(3600)

        link.close = hang
        await rig.strike.close()


@in_no_time
async def test_a_link_that_is_lost_before_it_can_be_used():
    async with Rig() as rig:
        connect = rig.radio.connect

        async def lost_at_once(lost):
            link = await connect(lost)
            link.cut()
            return link

        rig.radio.connect = lost_at_once
        with pytest.raises(StrikeUnreachable, match="lost"):
            await rig.strike.reach()


@in_no_time
async def test_a_radio_that_hangs_is_given_up_after_a_while():
    async with Rig(keep=True) as rig:

        async def hang(lost):
            await asyncio.sleep(3600)

        rig.radio.connect = hang
        rig.radio.cut()
        await asyncio.sleep(30)
        assert "in time" in rig.strike.reason
