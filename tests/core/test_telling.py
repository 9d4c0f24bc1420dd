"""Each event goes into the journal, and from there to the host, once and in order; or is told of at least."""

import asyncio
import logging

import pytest

from tests.simulated import open_journal, read_journal, some_doors
from vestibule_core.journal import Spend, SpentState
from vestibule_core.model import AccessEvent, Code, EventName, Means, issuer
from vestibule_core.telling import MOST_KEYS, REFUSALS_AN_HOUR, Telling

DOOR, OTHER_DOOR = (door.id for door in some_doors(2))
A, B = issuer("https://a.example"), issuer("https://b.example")
HOUR = 3600.0


def happened(outcome=EventName.DOOR_OPENED, **kind):
    return AccessEvent(outcome=outcome, door=DOOR, at=1_790_000_000.0, **kind)


def refusal(code=Code.LATE, who=A):
    return happened(EventName.ACCESS_DENIED, code=code, means=Means.TOKEN, issuer=who, spend_id=bytes(16))


class Host:
    def __init__(self):
        self.told = []
        self.fails = False

    def __call__(self, event):
        self.told.append(event)
        if self.fails:
            raise ZeroDivisionError


@pytest.fixture
def host():
    return Host()


@pytest.fixture
async def pen(tmp_path, host):
    """A pen on a real journal."""
    journal = await asyncio.to_thread(open_journal, tmp_path / "journal.db")
    pen = Telling(journal, host)
    pen.journal, pen.path = journal, tmp_path / "journal.db"
    journal.start(pen.tell)
    yield pen
    await asyncio.to_thread(journal.close)


async def close(pen):
    await pen.recorded()
    await asyncio.to_thread(pen.journal.close)


async def test_what_happens_is_written_and_told_in_the_order_in_which_it_happened(pen, host):
    names = [EventName.DOOR_OPENED, EventName.DOOR_HELD_OPEN, EventName.DOOR_CLOSED] * 5
    for name in names:
        pen.record(happened(name))
    await pen.recorded()
    assert [event.outcome for event in host.told] == names
    assert [event.sequence for event in host.told] == list(range(1, 16))


async def test_nothing_that_waits_to_be_written_is_told_before_it_is(pen, host):
    pen.record(happened())
    assert host.told == []
    await pen.recorded()
    assert len(host.told) == 1


async def test_persons_notes_and_outcomes_go_with_their_entry(pen, host):
    spend = Spend(A, "jti-1", DOOR, "nonce-1")
    await pen.journal.spend(spend, refusal(), {}, check_again=lambda: None, spent=lambda: None, notes={})
    pen.record(happened(), {"user": "Ann"}, notes={"tamper:x": "on"})
    pen.record(happened(EventName.DOOR_RELEASED, spend_id=bytes(16)), settles=(spend, SpentState.GRANTED))
    await close(pen)
    assert read_journal(pen.path, "SELECT json FROM person WHERE seq = 2") == [('{"user":"Ann"}',)]
    assert read_journal(pen.path, "SELECT value FROM meta WHERE key = 'tamper:x'") == [("on",)]
    assert read_journal(pen.path, "SELECT state FROM spent") == [("GRANTED",)]


async def test_without_a_journal_it_is_told_of_at_least_and_without_a_number(pen, host):
    await asyncio.to_thread(pen.journal.close)
    pen.record(happened(EventName.DOOR_FORCED_OPEN))
    await pen.recorded()
    assert [(event.outcome, event.sequence) for event in host.told] == [(EventName.DOOR_FORCED_OPEN, None)]


async def test_a_host_that_fails_hears_the_next_one_all_the_same(pen, host, caplog):
    host.fails = True
    with caplog.at_level(logging.ERROR):
        pen.record(happened(), {"token": "aaa.bbb.ccc"})
        pen.record(happened())
        await pen.recorded()
    assert len(host.told) == 2
    assert caplog.text.count("failed to take event") == 2
    assert "aaa.bbb.ccc" not in caplog.text


async def test_the_end_waits_for_what_was_begun_meanwhile(pen, host):
    done = []

    async def later():
        await asyncio.sleep(0)
        pen.record(happened())
        done.append(True)

    pen.later(later())
    await pen.recorded()
    assert done
    assert len(host.told) == 1


# ---- refusals ----


def refuse(pen, times, *, who=A, door=DOOR, boot=0.0):
    for _ in range(times):
        pen.record_refusal(refusal(who=who), None, door, boot)


async def test_refusals_beyond_so_many_an_hour_are_only_counted(pen, host):
    refuse(pen, REFUSALS_AN_HOUR + 7)
    await pen.recorded()
    assert len(host.told) == REFUSALS_AN_HOUR
    assert pen.counters == {Code.LATE: 7}


async def test_each_carrier_and_each_door_has_refusals_of_its_own(pen, host):
    for who, door in [(A, DOOR), (A, OTHER_DOOR), (B, DOOR), (A, None), (B, None)]:
        refuse(pen, REFUSALS_AN_HOUR + 1, who=who, door=door)
    await pen.recorded()
    assert len(host.told) == 5 * REFUSALS_AN_HOUR
    assert pen.counters[Code.LATE] == 5


async def test_by_hand_each_person_and_each_reason_has_refusals_of_its_own(pen, host):
    """Else who is refused for nothing, again and again, would hide another's wrong PINs."""

    def by_hand(code, person):
        event = happened(EventName.ACCESS_DENIED, code=code, means=Means.MANUAL)
        for _ in range(REFUSALS_AN_HOUR + 1):
            pen.record_refusal(event, person, DOOR, 0.0)

    for code, person in [
        (Code.PIN_MISSING, {"user_id": "bob-2"}),
        (Code.PIN_WRONG, {"user_id": "bob-2"}),
        (Code.PIN_WRONG, {"user_id": "ann-1"}),
        (Code.PIN_WRONG, {"user_id": None}),
    ]:
        by_hand(code, person)
    await pen.recorded()
    assert len(host.told) == 4 * REFUSALS_AN_HOUR
    assert pen.counters == {Code.PIN_MISSING: 1, Code.PIN_WRONG: 3}


async def test_any_number_of_persons_takes_bounded_memory(pen):
    refuse(pen, 1)
    for number in range(MOST_KEYS + 50):
        refuse(pen, 1, door=f"door {number}")
    assert len(pen._refusals) == MOST_KEYS
    assert (A, DOOR) not in pen._refusals, "who was refused longest ago is forgotten first"


@pytest.mark.parametrize("later, more", [(HOUR - 1, 0), (HOUR, 1)])
async def test_after_an_hour_they_are_recorded_again(pen, host, later, more):
    refuse(pen, REFUSALS_AN_HOUR, boot=100.0)
    refuse(pen, 1, boot=100.0 + later)
    await pen.recorded()
    assert len(host.told) == REFUSALS_AN_HOUR + more
