"""Each event goes into the journal, and from there to the host, once and in order; or is told of at least."""

import asyncio
import json
import logging
import os

import pytest

from tests.simulated import Clock, open_journal, read_journal, some_doors
from vestibule_core import journal, telling
from vestibule_core.erasure import subject_of
from vestibule_core.journal import RESERVE, Spend, SpentState
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

    @property
    def summaries(self):
        return [event for event in self.told if event.outcome is EventName.REFUSALS_COUNTED]


@pytest.fixture
def host():
    return Host()


@pytest.fixture
async def pen(tmp_path, host):
    """A pen on a real journal."""
    opened = await asyncio.to_thread(open_journal, tmp_path / "journal.db")
    pen = Telling(opened, host, Clock())
    pen.journal, pen.path = opened, tmp_path / "journal.db"
    opened.start(pen.tell)
    yield pen
    await pen.end()
    await asyncio.to_thread(opened.close)


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


async def test_a_person_who_is_deleted_is_not_remembered_for_refusals_either(pen):
    event = happened(EventName.ACCESS_DENIED, code=Code.PIN_WRONG, means=Means.MANUAL)
    for user_id in ("ann-1", "bob-2", None):
        pen.record_refusal(event, {"user_id": user_id}, DOOR, 0.0)
    refuse(pen, 1, who=issuer("https://ann-1"), door="ann-1")
    pen.forget("ann-1")
    assert list(pen._refusals) == [
        (None, DOOR, Code.PIN_WRONG, "bob-2"),
        (None, DOOR, Code.PIN_WRONG, None),
        ("https://ann-1", "ann-1"),
    ]


# ---- summaries of what is only counted ----


def count(pen, **times):
    for code, number in times.items():
        for _ in range(number):
            pen.count(Code[code])


async def summaries(pen, host, number):
    """Return the summaries that were told, when there are so many."""
    async with asyncio.timeout(10):
        while len(host.summaries) < number:  # noqa: ASYNC110 - a host is told, and tells nobody
            await asyncio.sleep(0.005)
    return host.summaries


async def test_a_minute_after_the_first_one_an_entry_sums_up_what_was_counted(pen, host, monkeypatch):
    assert telling.SUMMARY_AFTER == 60.0
    monkeypatch.setattr(telling, "SUMMARY_AFTER", 0.05)
    count(pen, BAD_SIGNATURE=12, MALFORMED=3)
    await asyncio.sleep(0)
    count(pen, ALREADY_SPENT=1, BAD_SIGNATURE=1)
    assert host.told == []
    (event,) = await summaries(pen, host, 1)
    assert event == AccessEvent(
        outcome=EventName.REFUSALS_COUNTED,
        code=Code.BAD_SIGNATURE,
        door=None,
        at=Clock()().wall,
        sequence=1,
        count=17,
    )
    await close(pen)
    ((leaf, person),) = read_journal(pen.path, "SELECT bytes, json FROM leaf JOIN person USING(seq)")
    assert (json.loads(leaf)["kind"], json.loads(leaf)["code"]) == ("refusals_counted", "BAD_SIGNATURE")
    assert json.loads(person) == {"counts": {"ALREADY_SPENT": 1, "BAD_SIGNATURE": 13, "MALFORMED": 3}}
    assert subject_of(person) is None, "it is about nobody"


async def test_each_summary_has_what_was_counted_since_the_last_one_and_nothing_makes_none(pen, host, monkeypatch):
    monkeypatch.setattr(telling, "SUMMARY_AFTER", 0.02)
    for number, code in enumerate([Code.MALFORMED, Code.UNKNOWN_KEY], 1):
        count(pen, **{code: number})
        assert [event.count for event in await summaries(pen, host, number)] == list(range(1, number + 1))
        await asyncio.sleep(0.06)
    assert [event.code for event in host.told] == [Code.MALFORMED, Code.UNKNOWN_KEY]
    assert pen.counters == {Code.MALFORMED: 1, Code.UNKNOWN_KEY: 2}, "what is shown counts on"


async def test_of_equally_frequent_reasons_the_first_by_name_is_told(pen, host):
    count(pen, UNKNOWN_KEY=2, MALFORMED=1, BAD_HEADER=2)
    await pen.end()
    assert [(event.code, event.count) for event in host.told] == [(Code.BAD_HEADER, 5)]


async def test_refusals_beyond_so_many_an_hour_are_in_the_summary(pen, host):
    refuse(pen, REFUSALS_AN_HOUR + 7)
    await pen.end()
    assert (host.told[-1].outcome, host.told[-1].code, host.told[-1].count) == ("refusals_counted", Code.LATE, 7)
    assert len(host.told) == REFUSALS_AN_HOUR + 1


async def test_at_the_end_what_is_not_summed_up_yet_is_and_nothing_after_it(pen, host, monkeypatch):
    monkeypatch.setattr(telling, "SUMMARY_AFTER", 0.02)
    count(pen, MALFORMED=2)
    await pen.end()
    count(pen, MALFORMED=1)
    await asyncio.sleep(0.06)
    await pen.end()
    assert [event.count for event in host.told] == [2]
    assert pen.counters == {Code.MALFORMED: 3}


async def test_without_a_journal_a_summary_is_told_of_at_least_and_refusals_are_counted(pen, host):
    await asyncio.to_thread(pen.journal.close)
    refuse(pen, 2)
    pen.record(happened(EventName.DOOR_FORCED_OPEN))
    await pen.end()
    assert [(event.outcome, event.sequence, event.count) for event in host.told] == [
        (EventName.ACCESS_DENIED, None, None),
        (EventName.ACCESS_DENIED, None, None),
        (EventName.DOOR_FORCED_OPEN, None, None),
        (EventName.REFUSALS_COUNTED, None, 2),
    ]


# ---- the reserve ----


class Disk:
    """What ``os.statvfs`` says of a disk."""

    f_frsize = 4096

    def __init__(self, free):
        self.f_bavail = free // 4096
        self.looked = 0
        self.error = None

    def __call__(self, path):
        self.looked += 1
        if self.error:
            raise self.error
        return self


@pytest.fixture
def disk(monkeypatch):
    disk = Disk(free=RESERVE)
    monkeypatch.setattr(os, "statvfs", disk)
    monkeypatch.setattr(journal, "LOOK_EVERY", 0.0)
    return disk


async def test_the_last_of_the_disk_is_not_for_refusals(pen, host, disk):
    refuse(pen, 1)
    await pen.recorded()
    disk.f_bavail -= 1
    refuse(pen, 1)
    await pen.recorded()
    pen.record(happened(), {"user_id": "ann-1"})
    await pen.end()
    disk.f_bavail += 1
    assert [(event.outcome, event.sequence) for event in host.told] == [
        (EventName.ACCESS_DENIED, 1),
        (EventName.ACCESS_DENIED, None),
        (EventName.DOOR_OPENED, 2),
        (EventName.REFUSALS_COUNTED, None),
    ]
    assert host.told[-1].count == 1
    assert pen.counters == {Code.LATE: 1}
    assert not pen.journal.failed


async def test_with_room_again_refusals_are_written_again(pen, host, disk):
    disk.f_bavail -= 1
    refuse(pen, 1)
    await pen.recorded()
    disk.f_bavail += 1
    refuse(pen, 1)
    await pen.recorded()
    assert [event.sequence for event in host.told] == [None, 1]


async def test_a_disk_that_cannot_be_asked_is_not_for_refusals(pen, host, disk):
    disk.error = OSError("gone")
    refuse(pen, 1)
    await pen.recorded()
    pen.record(happened())
    await pen.recorded()
    assert [event.sequence for event in host.told] == [None, 1]


async def test_many_refusals_ask_the_disk_once_a_second(pen, host, disk, monkeypatch):
    monkeypatch.setattr(journal, "LOOK_EVERY", 1000.0)
    for _ in range(20):
        refuse(pen, 1)
        await pen.recorded()
    assert disk.looked == 1
