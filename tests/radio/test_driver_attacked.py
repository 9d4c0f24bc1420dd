"""Attacks on a door at work, over the virtual radio: the real driver, the real strike, and somebody in between.

Each test is one row of the attack table (protocol F) that has an honest client. The same rows, and those where the
attacker is alone with the strike, are in test_attacks_over_radio.py packet by packet. Here is what comes out of it at
the end: the bolt moves as often as it may, and the driver says of each release what became of it.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from gateway.ble import BleakRadio
from gateway.strike import air
from tests.core.doorstrike.test_attacks import BROKEN, flipped, hs1_for
from tests.radio.test_attacks_over_radio import some
from vestibule_core.doorstrike.client import Paired
from vestibule_core.doorstrike.fragments import cut
from vestibule_core.doorstrike.memory import Part
from vestibule_core.doorstrike.pairing import Label
from vestibule_core.doorstrike.pairing_session import PairingFailed, pair
from vestibule_core.doorstrike.polling import GAP
from vestibule_core.doorstrike.wire import ERR, Advertisement, EventKind, Rights
from vestibule_core.errors import OutcomeUnknown, SpentElsewhere, StrikeRefused, StrikeUnreachable

from .ether import Fate
from .peripheral import advertisement
from .site import Site, a_pulse, clock, in_radio_time, until

pytestmark = pytest.mark.usefixtures("radio_time")

HELLO, HS1, HS2, DATA = 1, 2, 3, 4


def once(change):
    """A tap that calls ``change`` with each fragment until it has changed one."""
    done = []

    def tap(to_strike, fragment):
        if done or (changed := change(to_strike, fragment)) == [fragment]:
            return [fragment]
        done.append(True)
        return changed

    return tap


async def ready(site):
    """No connection is left of what happened before."""
    await until(lambda: site.keep or site.idle)


@in_radio_time
async def test_row_41_an_unlock_is_recorded_and_replayed_by_a_stranger(tmp_path):
    async with Site(tmp_path) as site:
        await ready(site)
        with site.middle() as middle:
            assert await site.open(a_pulse())
            await site.closed()
        hello, *answers = await site.write_as_a_stranger(middle.to_strike[:1])
        assert hello != middle.to_client[0], "another nonce"
        assert answers == list(cut(ERR, 20))
        assert site.pulses == 1


@in_radio_time
async def test_row_42_a_handshake_is_held_back_until_nobody_looks(tmp_path):
    async with Site(tmp_path) as site:
        await ready(site)
        with site.middle() as middle:
            middle.hold()
            assert await site.open(a_pulse()) is False, "asked, once it could not arrive any more"
            middle.release()
        await asyncio.sleep(1.0)
        assert site.pulses == 0


@pytest.mark.parametrize("place", [2, 3], ids=["caps, high", "caps, low"])
@in_radio_time
async def test_row_44_hello_is_rewritten(tmp_path, place):
    def rewrite(to_strike, fragment):
        if to_strike or fragment[3] != HELLO:
            return [fragment]
        at = 3 + place
        return [fragment[:at] + bytes([fragment[at] ^ 0x40]) + fragment[at + 1 :]]

    async with Site(tmp_path) as site:
        await ready(site)
        caps = site.kept.caps
        with site.middle() as middle:
            middle.tap = once(rewrite)
            assert await site.open(a_pulse()) is False
        assert site.pulses == 0
        assert site.kept.caps == caps, "nothing of it was believed"
        assert await site.open(a_pulse())


@pytest.mark.parametrize("version", [0, 2, 99])
@in_radio_time
async def test_row_44_a_version_is_rewritten(tmp_path, version):
    async with Site(tmp_path) as site:
        await ready(site)
        with site.middle() as middle:
            middle.tap = lambda to_strike, fragment: [
                fragment if to_strike or fragment[3] != HELLO else fragment[:4] + bytes([version]) + fragment[5:]
            ]
            with pytest.raises(StrikeUnreachable, match="version"):
                await site.strike.reach()
            assert middle.to_strike == []
        assert site.pulses == 0


@in_radio_time
async def test_row_45_a_handshake_made_for_an_old_hello_is_taken_to_the_strike(tmp_path):
    async with Site(tmp_path) as site:
        await ready(site)
        with site.middle() as middle:
            await site.strike.reach()
            old = middle.to_client[0]
            await until(lambda: site.idle)
            middle.tap = once(lambda to_strike, fragment: [fragment if to_strike or fragment[3] != HELLO else old])
            assert await site.open(a_pulse()) is False
        assert site.pulses == 0


@pytest.mark.parametrize("place", some(70))
@in_radio_time
async def test_row_48_a_bit_of_the_handshake_is_flipped_on_the_way_there(tmp_path, place):
    async with Site(tmp_path) as site:
        await ready(site)
        with site.middle() as middle:
            middle.tap = flipped(True, HS1, place)
            assert await site.open(a_pulse()) is False
        assert site.pulses == 0


@pytest.mark.parametrize("place", some(74))
@in_radio_time
async def test_row_48_a_bit_of_the_handshake_is_flipped_on_the_way_back(tmp_path, place):
    async with Site(tmp_path) as site:
        await ready(site)
        with site.middle() as middle:
            middle.tap = flipped(False, HS2, place)
            assert await site.open(a_pulse()) is True, "it did open, and says so when it is asked"
        assert site.pulses == 1


@pytest.mark.parametrize("place", some(41))
@in_radio_time
async def test_row_48_a_bit_of_a_request_is_flipped(tmp_path, place):
    async with Site(tmp_path, keep=True) as site:
        with site.middle() as middle:
            middle.tap = flipped(True, DATA, place)
            assert await site.open(a_pulse()) is False
        assert site.pulses == 0


@pytest.mark.parametrize("place", some(44))
@in_radio_time
async def test_row_48_a_bit_of_a_reply_is_flipped(tmp_path, place):
    async with Site(tmp_path, keep=True) as site:
        with site.middle() as middle:
            middle.tap = flipped(False, DATA, place)
            assert await site.open(a_pulse()) is True
        assert site.pulses == 1


@in_radio_time
async def test_row_49_a_request_is_replayed(tmp_path):
    async with Site(tmp_path, keep=True) as site:
        with site.middle() as middle:
            middle.tap = once(lambda to_strike, fragment: [fragment] * (1 + to_strike))
            assert await site.open(a_pulse()) is True
            assert len(middle.to_strike) >= 2
        assert site.pulses == 1


@in_radio_time
async def test_row_49_a_request_disappears(tmp_path):
    async with Site(tmp_path, keep=True) as site:
        with site.middle() as middle:
            middle.tap = once(lambda to_strike, fragment: [] if to_strike else [fragment])
            assert await site.open(a_pulse()) is False
        assert site.pulses == 0


@in_radio_time
async def test_row_49_an_answer_is_given_twice(tmp_path):
    async with Site(tmp_path, keep=True) as site:
        with site.middle() as middle:
            middle.tap = once(lambda to_strike, fragment: [fragment] * (2 - to_strike))
            first, second = a_pulse(), a_pulse()
            assert await site.open(first) is True
            assert await site.open(second) is True
        await until(lambda: (site.told(first), site.told(second)) == (1, 1))
        assert site.pulses == 2


@pytest.mark.parametrize("fragments", BROKEN.values(), ids=BROKEN)
@in_radio_time
async def test_row_51_fragments_that_nobody_would_cut_instead_of_the_answer(tmp_path, fragments):
    async with Site(tmp_path) as site:
        await ready(site)
        with site.middle() as middle:
            middle.tap = once(
                lambda to_strike, fragment: [fragment] if to_strike or fragment[3] != HS2 else list(fragments)
            )
            assert await site.open(a_pulse()) is True
        assert site.pulses == 1


@in_radio_time
async def test_row_52_half_an_answer_and_no_more(tmp_path):
    hellos = []

    def half(to_strike, fragment):
        hellos.extend([fragment] if not to_strike and fragment[3] == HELLO else [])
        if to_strike or fragment[3] == HELLO or len(hellos) > 1:
            return [fragment]
        return [bytes([0x80]) + fragment[1:20]] if fragment[3] == HS2 else []

    async with Site(tmp_path) as site:
        await ready(site)
        began = clock().boot
        with site.middle() as middle:
            middle.tap = half
            assert await site.open(a_pulse()) is True
        assert 2.0 <= clock().boot - began < 4.0, "the 2 s are over, and it asked"
        assert site.pulses == 1


@in_radio_time
async def test_row_53_the_same_spend_after_a_reconnection(tmp_path):
    async with Site(tmp_path) as site:
        pulse = a_pulse()
        for _ in range(3):
            assert await site.open(pulse) is True
            await site.closed()
        await site.restart()
        with pytest.raises(SpentElsewhere):  # it does not remember, and the strike does
            await site.strike.release(pulse)
        assert site.pulses == 1


@in_radio_time
async def test_row_53_the_same_spend_from_a_second_controller(tmp_path):
    async with Site(tmp_path) as site:
        other = await site.another_driver()
        slots = await site.strike.list_slots()
        await site.strike.set_rights(slots[-1].slot, Rights.MANUAL | Rights.EVENTS)
        pulse = a_pulse()
        assert await site.open(pulse) is True
        with pytest.raises(SpentElsewhere):
            await other.release(pulse)
        assert site.pulses == 1


@pytest.mark.parametrize("keep", [False, True], ids=["cold", "kept connection"])
@in_radio_time
async def test_row_54_the_link_is_lost_after_the_command_was_heard(tmp_path, keep):
    async with Site(tmp_path, keep=keep) as site:
        await ready(site)
        pulse = a_pulse()
        with site.radio.tap() as tap:
            # The first notification after it is not heard: HS2, or the reply.
            tap.decide(
                lambda pdu: Fate.CUT if pdu.sender == "gate" and pdu.raw[6:7] in (b"\x03", b"\x04") else Fate.DELIVER
            )
            opening = asyncio.ensure_future(site.open(pulse))
            await until(lambda: site.pulses == 1)
        assert await opening is True
        await site.closed()
        assert await site.open(pulse) is True
        assert site.pulses == 1


@in_radio_time
async def test_row_55_a_controller_without_rights(tmp_path):
    async with Site(tmp_path) as site:
        other = await site.another_driver()
        for attempt in (lambda: other.release(a_pulse()), other.secure, lambda: other.hold(None), other.list_slots):
            with pytest.raises(StrikeRefused, match="right"):
                await attempt()
        with pytest.raises(StrikeRefused, match="administrator"):
            await other.delete_slot(1)
        with pytest.raises(StrikeRefused, match="one has to remain"):
            await site.strike.delete_slot(1)
        assert site.pulses == 0


@in_radio_time
async def test_row_56_the_controller_vanishes_during_a_pulse(tmp_path):
    async with Site(tmp_path) as site:
        assert await site.open(a_pulse(655.35)) is True
        site.radio.walk_away("phone", "gate")
        began = clock().boot
        assert site.gate.is_released
        await until(lambda: not site.gate.is_released)
        assert clock().boot - began == pytest.approx(10.0, abs=0.1)


@in_radio_time
async def test_row_57_a_pairing_without_the_button_or_with_another_code(tmp_path):
    async with Site(tmp_path) as site:
        phone = await site.another_phone()
        bleak = BleakRadio(site.gate.address, backend=phone.client_class)
        wrong = Label.new(site.gate.label.strike_id, bytes(12))
        for label, press in [(site.gate.label, False), (wrong, True)]:
            if press:
                site.gate.hold_button()
            with pytest.raises(PairingFailed):
                await pair(bleak, label, "Other", clock=clock)
            await asyncio.sleep(1.0)
        assert (await pair(bleak, site.gate.label, "Other", clock=clock)).paired.slot == 2
        assert site.pulses == 0


@in_radio_time
async def test_row_58_a_recorded_pairing_and_a_label_that_leaks_later(tmp_path):
    """What was recorded of the pairing is worth nothing: no slot's key is in it, nor in what the label says."""
    async with Site(tmp_path) as site:
        await asyncio.sleep(1.0)
        phone = await site.another_phone()
        bleak = BleakRadio(site.gate.address, backend=phone.client_class)
        site.gate.hold_button()
        with site.radio.tap() as tap:
            other = await pair(bleak, site.gate.label, "Other", clock=clock)
        recorded = b"".join(pdu.raw for pdu in tap.pdus)
        assert other.paired.psk not in recorded
        thief = Paired(other.paired.strike_id, other.paired.slot, site.gate.label.psk)
        hello = (await site.write_as_a_stranger([]))[0]
        assert (await site.write_as_a_stranger([hs1_for(thief, hello)]))[1:] == list(cut(ERR, 20))
        assert site.pulses == 0


@in_radio_time
async def test_row_59_a_flood_of_advertisements(tmp_path, monkeypatch):
    monkeypatch.setattr(air, "INTERVAL", 1000.0)
    async with Site(tmp_path) as site:
        await ready(site)
        await site.advertised()
        await asyncio.sleep(GAP)
        await ready(site)
        before, connections = site.strike.state, []
        connect = site.bleak.connect

        async def counted(lost):
            connections.append(clock().boot)
            return await connect(lost)

        site.bleak.connect = counted
        impostor = site.radio.device("impostor")
        await impostor.power_on()
        stop = site.phone.listen(lambda heard: heard_of_any(site.strike, heard))
        for second in range(160):
            data = advertisement(flags=0xFE, evt_seq=1000 + second, strike_id=site.gate.label.strike_id)
            await impostor.start_advertising(advertising_data=data, advertising_interval_min=500.0)
            await asyncio.sleep(1.0)
            await impostor.stop_advertising()
        stop()
        gaps = [later - earlier for earlier, later in pairwise(connections)]
        assert 3 <= len(connections) <= 6, "fewer and fewer"
        assert min(gaps) >= GAP
        assert gaps == sorted(gaps)
        assert site.strike.state == before, "nothing of it was believed"
        assert site.pulses == 0


def heard_of_any(strike, heard):
    """Tell the driver of every advertisement that says it is a strike's, whoever sent it."""
    raw = heard.data_bytes
    if raw[:5] == b"\x02\x01\x06\x1b\x21":
        strike.seen(Advertisement.parse(raw[-10:]))


@in_radio_time
async def test_row_60_a_fake_strike_with_version_99_and_then_the_real_one(tmp_path):
    async with Site(tmp_path) as site:
        await ready(site)
        with site.middle() as middle:
            middle.tap = once(
                lambda to_strike, fragment: [fragment if to_strike else fragment[:4] + b"\x63" + fragment[5:]]
            )
            with pytest.raises(StrikeUnreachable, match="version"):
                await site.strike.reach()
            assert middle.to_strike == []
        assert site.kept.paired.version == 1, "nothing is remembered"
        assert await site.open(a_pulse()) is True
        assert site.pulses == 1


@in_radio_time
async def test_row_60_another_strikes_hello(tmp_path):
    async with Site(tmp_path) as site:
        await ready(site)
        with site.middle() as middle:
            middle.tap = lambda to_strike, fragment: [
                fragment if to_strike else fragment[:7] + bytes([fragment[7] ^ 1]) + fragment[8:]
            ]
            with pytest.raises(StrikeUnreachable, match="another strike"):
                await site.strike.reach()
            assert middle.to_strike == []
        assert site.pulses == 0


@in_radio_time
async def test_row_71_the_button_and_the_right_code_on_a_strike_in_use(tmp_path):
    async with Site(tmp_path) as site:
        thief = await site.another_driver()
        assert await site.open(a_pulse(), thief) is False
        await site.gate.cut_power()
        await site.gate.power_up()
        assert await site.open(a_pulse(), thief) is False
        await site.strike.reach()
        await site.strike.secure()
        await until(lambda: [e.event.value for e in site.events if e.event.kind == EventKind.SLOT_ADDED])
        assert site.pulses == 0


@pytest.mark.parametrize("late", [6.5, 59.0])
@pytest.mark.parametrize("keep", [False, True], ids=["cold", "kept connection"])
@in_radio_time
async def test_row_72_a_command_that_was_held_back_arrives_late(tmp_path, keep, late):
    async with Site(tmp_path, keep=keep) as site:
        await ready(site)
        began, pulse = clock().boot, a_pulse()
        with site.middle() as middle:
            middle.hold()
            opening = asyncio.ensure_future(site.open(pulse))
            await asyncio.sleep(late)
            middle.release()
            assert await opening is False
        await asyncio.sleep(10.0)
        assert clock().boot - began > late
        assert site.pulses == 0


@in_radio_time
async def test_row_73_a_query_after_another_controllers_unlock(tmp_path):
    async with Site(tmp_path) as site:
        other = await site.another_driver()
        slots = await site.strike.list_slots()
        await site.strike.set_rights(slots[-1].slot, Rights.MANUAL | Rights.EVENTS)
        await ready(site)
        mine, theirs = a_pulse(), a_pulse()
        await other.reach()  # two phones that connect at once are in each other's way
        with site.radio.tap(site.phone, "gate") as tap:
            tap.decide(lambda pdu: Fate.CUT if pdu.sender == "gate" and pdu.raw[6:7] == b"\x03" else Fate.DELIVER)
            opening = asyncio.ensure_future(site.open(mine))
            await until(lambda: site.pulses == 1)
            assert await site.open(theirs, other) is True
        assert await opening is True
        await site.closed()
        assert (site.told(mine), site.told(theirs)) == (1, 1)
        assert site.pulses == 2


@pytest.mark.parametrize("effects, pulses", [(0, 0), (1, 0), (2, 1), (3, 1)])
@in_radio_time
async def test_row_74_the_power_fails_between_the_ring_and_the_relay_and_during_the_pulse(tmp_path, effects, pulses):
    async with Site(tmp_path) as site:
        await ready(site)
        pulse = a_pulse()
        await site.strike.reach()
        site.gate.effects_left = effects
        opening = asyncio.ensure_future(site.open(pulse))
        await until(lambda: site.gate.machine is None)
        await site.gate.cut_power()
        await asyncio.sleep(1.0)
        await site.gate.power_up()
        assert await opening is (False if effects == 0 else None), "never: done"
        assert site.pulses == pulses
        if effects:
            for _ in range(2):
                with pytest.raises(OutcomeUnknown):
                    await site.strike.release(pulse)
        assert site.pulses == pulses


@in_radio_time
async def test_row_75_another_controller_has_spent_it(tmp_path):
    async with Site(tmp_path) as site:
        other = await site.another_driver()
        slots = await site.strike.list_slots()
        await site.strike.set_rights(slots[-1].slot, Rights.MANUAL | Rights.EVENTS)
        pulse = a_pulse()
        assert await site.open(pulse, other) is True
        with pytest.raises(SpentElsewhere):
            await site.strike.release(pulse)
        assert site.pulses == 1


@in_radio_time
async def test_row_80_a_torn_ring(tmp_path):
    async with Site(tmp_path) as site:
        pulse = a_pulse()
        assert await site.open(pulse) is True
        await site.closed()
        await site.gate.cut_power()
        log = tmp_path / "state" / Part.LOG
        log.write_bytes(log.read_bytes()[:-1])
        await site.gate.power_up()
        with pytest.raises(StrikeRefused, match="two minutes"):
            await site.strike.release(pulse)
        await ready(site)
        site.pass_time(100.0)
        assert await site.open(a_pulse()) is False
        await ready(site)
        site.pass_time(30.0)
        assert site.pulses == 1
        assert await site.open(a_pulse()) is True


@pytest.mark.parametrize("at_once", [False, True])
@in_radio_time
async def test_row_81_two_hosts_from_one_backup(tmp_path, at_once):
    async with Site(tmp_path) as site:
        await ready(site)
        twin = await site.another_driver(site.kept)
        pulse = a_pulse()
        if at_once:
            await site.strike.reach()
            await twin.reach()
            said = await asyncio.gather(site.open(pulse), site.open(pulse, twin))
        else:
            said = [await site.open(pulse), await site.open(pulse, twin)]
        assert True in said
        assert site.pulses == 1
