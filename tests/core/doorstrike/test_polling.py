"""Row 59: whatever advertisements say, they cause one connection in five seconds at the most, and fewer and fewer."""

import pytest

from vestibule_core.doorstrike.polling import Polling
from vestibule_core.doorstrike.wire import Advertisement, Flags

STRIKE_ID = bytes(range(8))


def advert(evt_seq=1, flags=0, strike=STRIKE_ID[:6]):
    return Advertisement(1, Flags(flags), evt_seq, strike)


def test_row_59_a_flood_of_advertisements():
    polling = Polling(STRIKE_ID)
    polls = []
    for tenth in range(36_000):
        now = 1000 + tenth / 10
        if polling.worth_it(advert(tenth % 0xFFFF + 1), now):
            polls.append(now)
            polling.polled(found=False, now=now)
    assert polls[:5] == pytest.approx([1000, 1005, 1015, 1035, 1075])
    assert len(polls) == 10
    assert polling.heard == 0, "nothing of it is believed"


def test_row_59_after_a_poll_that_found_something_the_next_one_is_due_in_five_seconds():
    polling = Polling(STRIKE_ID)
    for _ in range(6):
        polling.polled(found=False, now=0.0)
    polling.polled(found=True, now=1000.0)
    assert not polling.worth_it(advert(), 1004.9)
    assert polling.worth_it(advert(), 1005.0)


def test_row_59_an_hour_is_the_longest_silence():
    polling = Polling(STRIKE_ID)
    for _ in range(40):
        polling.polled(found=False, now=0.0)
    assert not polling.worth_it(advert(), 3599.0)
    assert polling.worth_it(advert(), 3600.0)


@pytest.mark.parametrize(
    "seen, worth",
    [
        (advert(7), False),
        (advert(8), True),
        (advert(7, Flags.ATTENTION), True),
        (advert(7, Flags.PAIRING | Flags.LOW_BATTERY), False),
        (advert(8, strike=bytes(6)), False),
    ],
)
def test_what_is_news(seen, worth):
    polling = Polling(STRIKE_ID, heard=0x10007)
    assert polling.worth_it(seen, 0.0) is worth


@pytest.mark.parametrize("heard, evt_seq, start", [(7, 7, None), (7, 9, 8), (0, 3, 1), (7, 3, 1), (0, 0, None)])
def test_from_which_event_on_to_ask(heard, evt_seq, start):
    assert Polling(STRIKE_ID, heard).fetch_from(evt_seq) == start
