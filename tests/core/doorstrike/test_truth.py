"""How soon the truth is known without a kept connection, and by whom it is told."""

import asyncio
import random

import pytest

from tests.core.doorstrike.bench import STRIKE_ID
from tests.core.doorstrike.live import BenchRadio, LiveBench, Rig, clock, in_no_time
from vestibule_core.doorstrike.device import ContactIs
from vestibule_core.doorstrike.pairing_session import PairingFailed, PairingSlip, ask_id
from vestibule_core.doorstrike.wire import Contact
from vestibule_core.errors import StrikeUnreachable
from vestibule_core.model import Sense, Sensor

TOLD_AGAIN = 1.0
"""Seconds after which the host repeats what is advertised."""
FOR_THE_RADIO = 2.0
"""Seconds that are left for a real radio to connect; the bench's needs none."""


@pytest.mark.parametrize("packets", range(9))
@in_no_time
async def test_the_truth_after_a_power_cut_is_known_in_ten_seconds_wherever_it_cut_a_poll_off(packets):
    async with Rig() as rig:
        rig.bench.sense(ContactIs(Contact.CLOSED))
        await rig.polled()
        await asyncio.sleep(60)
        rig.bench.sense(ContactIs(Contact.OPEN))
        before = rig.radio.carried
        rig.advertise()
        await rig.until(lambda: rig.radio.carried - before >= packets or (packets == 8 and rig.idle))
        rig.bench.strike = None  # without a word: the client has to find out
        rig.radio.mute()
        rig.bench.power_up()
        rig.bench.sense(ContactIs(Contact.CLOSED))
        restored = clock().boot
        rig.radio.muted = False
        while rig.strike.kept.heard != rig.bench.seq:
            rig.advertise()
            await asyncio.sleep(TOLD_AGAIN)
        assert clock().boot - restored <= 10 - FOR_THE_RADIO
        assert rig.strike.sense(Sensor.CONTACT) is Sense.INACTIVE


@in_no_time
async def test_what_happens_just_after_a_poll_is_known_in_ten_seconds():
    async with Rig() as rig:
        rig.bench.sense(ContactIs(Contact.CLOSED))
        await rig.polled()
        rig.bench.sense(ContactIs(Contact.OPEN))
        happened = clock().boot
        while rig.strike.kept.heard != rig.bench.seq:
            rig.advertise()
            await asyncio.sleep(TOLD_AGAIN)
        assert clock().boot - happened <= 10 - FOR_THE_RADIO
        assert rig.radio.connections == 2


# ---- who answers


def asked(radio):
    return ask_id(radio, clock=clock, random=random.Random(7).randbytes)


@in_no_time
async def test_whoever_answers_says_who_it_is_and_is_told_nothing():
    bench = LiveBench()
    radio = BenchRadio(bench)
    assert await asked(radio) == STRIKE_ID
    assert (radio.written, radio.open_links) == (0, set())
    bench.close()


@in_no_time
async def test_a_hello_that_gets_lost_is_asked_for_again():
    bench = LiveBench()
    radio = BenchRadio(bench)
    heard = []

    def lose_the_first(to_strike, fragment):
        heard.append(to_strike)
        return [] if heard == [False] else [fragment]

    radio.tap = lose_the_first
    assert await asked(radio) == STRIKE_ID
    assert heard == [False, True, False]
    bench.close()


@in_no_time
async def test_what_does_not_say_who_it_is_is_unreachable_and_let_go():
    bench = LiveBench()
    radio = BenchRadio(bench)
    radio.mute()
    with pytest.raises(StrikeUnreachable, match="does not answer"):
        await asked(radio)
    assert radio.open_links == set()
    radio.muted = False
    radio.tap = lambda to_strike, fragment: [fragment if to_strike else fragment[:-1]]
    with pytest.raises(StrikeUnreachable):
        await asked(radio)
    assert radio.open_links == set()
    bench.close()


@in_no_time
async def test_a_strike_of_another_version_says_that_an_update_is_due():
    bench = LiveBench()
    radio = BenchRadio(bench)

    def newer(to_strike, fragment):
        return [fragment if to_strike else fragment[:4] + b"\x02" + fragment[5:]]

    radio.tap = newer
    with pytest.raises(PairingFailed) as failed:
        await asked(radio)
    assert failed.value.slip is PairingSlip.VERSION
    bench.close()


@in_no_time
async def test_a_strike_whose_id_is_all_zeros_is_one_like_any_other(monkeypatch):
    monkeypatch.setattr("tests.core.doorstrike.bench.STRIKE_ID", bytes(8))
    bench = LiveBench()
    radio = BenchRadio(bench)
    assert await asked(radio) == bytes(8)
    assert radio.open_links == set()
    bench.close()
