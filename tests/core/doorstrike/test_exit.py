"""Requests to exit: a strike says that it hears them, and silence is rest only for whom it tells of events."""

from tests.core.doorstrike.bench import ALL_CAPS
from tests.core.doorstrike.live import Rig, in_no_time
from vestibule_core.doorstrike.device import ContactIs, ExitRequested
from vestibule_core.doorstrike.wire import Caps, Contact, EventKind, Rights, sensors_of
from vestibule_core.model import Sense, Sensor

WITH_EXIT = ALL_CAPS | Caps.REX


def test_a_strike_watches_its_door_with_what_it_says_that_it_has():
    assert sensors_of(WITH_EXIT) == set(Sensor)
    assert sensors_of(ALL_CAPS) == set(Sensor) - {Sensor.REX}
    assert sensors_of(Caps.BATTERY | Caps.HOLD | Caps(0x8000)) == set()


@in_no_time
async def test_who_wants_out_is_told_of_before_the_door_that_opens_and_moves_nothing():
    async with Rig(keep=True, caps=WITH_EXIT) as rig:
        assert Caps.REX in rig.strike.kept.caps
        assert rig.strike.sense(Sensor.REX) is Sense.INACTIVE
        rig.bench.sense(ContactIs(Contact.CLOSED))
        rig.bench.sense(ExitRequested())
        rig.bench.sense(ContactIs(Contact.OPEN))
        await rig.until(lambda: rig.strike.kept.heard == rig.bench.seq)
        assert [one.event.kind for one in rig.events][-2:] == [EventKind.REX, EventKind.OPENED]
        assert rig.strike.sense(Sensor.REX) is Sense.INACTIVE, "it is over at once"
        assert rig.bench.commands == 0


@in_no_time
async def test_a_strike_of_before_that_does_not_say_so_has_none():
    async with Rig(keep=True) as rig:
        rig.bench.sense(ExitRequested())
        await rig.until(lambda: rig.strike.kept.heard == rig.bench.seq)
        assert rig.strike.sense(Sensor.REX) is Sense.UNKNOWN


@in_no_time
async def test_without_the_right_to_events_nobody_knows_whether_somebody_wanted_out():
    async with Rig(caps=WITH_EXIT) as rig:
        admin = rig.bench.session(rig.other)
        rig.bench.grant(rig.paired, rig.other.slot, Rights.ADMIN)
        admin.close()
        rig.bench.grant(rig.other, rig.paired.slot, Rights.SPEND | Rights.MANUAL)
        await rig.polled()
        assert rig.strike.sense(Sensor.REX) is Sense.UNKNOWN, "silence"

        rig.bench.grant(rig.other, rig.paired.slot, Rights.SPEND | Rights.MANUAL | Rights.EVENTS)
        rig.skip(20)
        await rig.polled()
        assert rig.strike.sense(Sensor.REX) is Sense.INACTIVE
