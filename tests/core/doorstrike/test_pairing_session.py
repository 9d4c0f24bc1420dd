"""Pairing over a link: the slot that comes of it works, and what goes wrong is said so that a person can act on it."""

import asyncio
import random

import pytest

from tests.core.doorstrike.bench import ALL_CAPS, STRIKE_ID
from tests.core.doorstrike.live import BenchRadio, LiveBench, clock, in_no_time
from vestibule_core.doorstrike import pairing_session
from vestibule_core.doorstrike.driver import BleStrike
from vestibule_core.doorstrike.pairing import Label
from vestibule_core.doorstrike.pairing_session import PairingFailed, PairingSlip, pair
from vestibule_core.doorstrike.wire import EventKind, Rights
from vestibule_core.errors import StrikeRefused, StrikeUnreachable
from vestibule_core.strike import Pulse

RANDOM = random.Random(7).randbytes


class Site:
    """A strike out of the box, and who wants to pair with it."""

    def __init__(self, size=244):
        self.bench = LiveBench()
        self.radio = BenchRadio(self.bench, size)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.bench.close()

    async def pair(self, label=None, **more):
        return await pair(self.radio, label or self.bench.label, "Home", clock=clock, random=RANDOM, **more)

    def driver(self, kept):
        return BleStrike(self.radio, kept, keep_connected=False, remember=lambda kept: None, clock=clock, random=RANDOM)


async def slip_of(pairing):
    with pytest.raises(PairingFailed) as raised:
        await pairing
    return raised.value.slip


@in_no_time
async def test_the_first_one_to_pair_may_do_everything_and_hears_nothing_of_the_time_before():
    async with Site() as site:
        site.bench.hold_button()
        kept = await site.pair()
        assert (kept.paired.slot, kept.caps, kept.next_psk) == (1, ALL_CAPS, None)
        strike = site.driver(kept)
        events = []
        strike.on_event(lambda one: events.append(one.event.kind))
        await strike.release(Pulse(bytes(range(16)), 1.0))
        await strike.set_rights(1, Rights.ADMIN | Rights.EVENTS)
        await asyncio.sleep(5)
        await strike.close()
        assert events[:2] == [EventKind.SLOT_ADDED, EventKind.RELAY_ON]
        assert not site.radio.open_links


@in_no_time
async def test_row_71_button_and_code_on_a_strike_that_has_an_owner_give_a_slot_without_rights():
    async with Site() as site:
        site.bench.pair()
        await asyncio.sleep(1)
        site.bench.hold_button()
        strike = site.driver(await site.pair())
        with pytest.raises(StrikeRefused, match="no right"):
            await strike.release(Pulse(bytes(range(16)), 1.0))
        await strike.close()
        assert site.bench.pulses == []


@in_no_time
async def test_row_57_pairing_without_the_button_and_after_the_window():
    async with Site() as site:
        assert await slip_of(site.pair(window_open=False)) is PairingSlip.NO_WINDOW
        assert await slip_of(site.pair()) is PairingSlip.NOT_ACCEPTED
        site.bench.hold_button()
        await asyncio.sleep(121)
        assert await slip_of(site.pair(window_open=False)) is PairingSlip.NO_WINDOW


@in_no_time
async def test_row_57_wrong_codes_and_then_the_right_one():
    async with Site() as site:
        site.bench.hold_button()
        for number in range(20):
            wrong = Label.new(STRIKE_ID, number.to_bytes(12))
            assert await slip_of(site.pair(wrong, window_open=True)) is PairingSlip.WRONG_CODE
            await asyncio.sleep(1)
        assert (await site.pair()).paired.slot == 1


@in_no_time
async def test_the_window_that_closes_between_two_messages():
    async with Site() as site:
        site.bench.hold_button()

        def close_the_window(to_strike, fragment):
            if to_strike and site.radio.written == 2:
                site.bench.strike._device.keyring.pairing_until = None
            return [fragment]

        site.radio.tap = close_the_window
        assert await slip_of(site.pair()) is PairingSlip.NO_WINDOW


@in_no_time
async def test_the_label_of_another_strike():
    async with Site() as site:
        site.bench.hold_button()
        label = Label.new(b"\1" * 8, bytes(12))
        assert await slip_of(site.pair(label)) is PairingSlip.OTHER_STRIKE


@in_no_time
async def test_a_strike_of_another_version():
    async with Site() as site:
        site.radio.tap = lambda to_strike, fragment: [fragment if to_strike else fragment[:4] + b"\2" + fragment[5:]]
        assert await slip_of(site.pair()) is PairingSlip.VERSION


@in_no_time
async def test_all_slots_are_taken():
    async with Site() as site:
        for _ in range(8):
            site.bench.pair()
        await asyncio.sleep(1)
        site.bench.hold_button()
        assert await slip_of(site.pair()) is PairingSlip.NO_FREE_SLOT


@in_no_time
async def test_a_strike_out_of_range_and_one_that_never_answers():
    async with Site() as site:
        site.radio.walk_away()
        with pytest.raises(StrikeUnreachable, match="out of range"):
            await site.pair()
        site.radio.come_back()
        site.radio.mute()
        with pytest.raises(StrikeUnreachable, match="does not answer"):
            await site.pair()
        assert not site.radio.open_links


@in_no_time
async def test_a_radio_that_hangs_is_given_up():
    async with Site() as site:

        async def hang(lost):
            await asyncio.sleep(3600)

        site.radio.connect = hang
        with pytest.raises(StrikeUnreachable):
            await site.pair()


@in_no_time
async def test_nonsense_in_the_answer_pairs_nothing(monkeypatch):
    async with Site() as site:
        site.bench.hold_button()
        monkeypatch.setattr(pairing_session.frames.SlotAdded, "encode", lambda self: b"")
        with pytest.raises(StrikeUnreachable):
            await site.pair()


@pytest.mark.parametrize("size", [20, 62, 244])
@pytest.mark.parametrize("packets", range(26))
def test_a_pairing_that_is_cut_at_any_packet_works_or_leaves_no_key(packets, size):
    @in_no_time
    async def check():
        async with Site(size) as site:
            site.bench.hold_button()
            site.radio.cut_after(packets)
            try:
                kept = await site.pair()
            except StrikeUnreachable:
                await asyncio.sleep(31)
                assert site.bench.strike._device.keyring.slots.slots == ()
            else:
                site.radio.packets_left = None
                strike = site.driver(kept)
                await strike.release(Pulse(bytes(range(16)), 1.0))
                await strike.close()
            assert not site.radio.open_links

    check()


@in_no_time
async def test_a_new_key_that_cannot_be_tried_in_time_is_given_up():
    async with Site() as site:
        site.bench.hold_button()

        def walk_away_after_the_slot(to_strike, fragment):
            if not to_strike and site.radio.carried > 4:
                asyncio.get_running_loop().call_soon(site.radio.walk_away)
            return [fragment]

        site.radio.tap = walk_away_after_the_slot
        with pytest.raises(StrikeUnreachable, match="new key"):
            await site.pair()
