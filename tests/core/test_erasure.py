"""What is taken out of the journal is gone from the disk, what stays is still proved, and what was spent stays spent.

Row 69 of the protocol's table, as far as the core goes; tests/integration/test_erasure.py has the rest.
"""

import asyncio
import base64
import json
import sqlite3

import pytest

from tests.simulated import IDENTITY, Moment, Site, open_journal, read_journal, some_doors
from vestibule_core import erasure
from vestibule_core.door import Lock
from vestibule_core.erasure import DAY, Due, Subject
from vestibule_core.errors import BackupRunning, Refused, StoreFailed
from vestibule_core.evidence import read_base
from vestibule_core.journal import COPIED, Spend, SpentState
from vestibule_core.leaf import commitment
from vestibule_core.merkle import Tree
from vestibule_core.model import AccessEvent, Actor, Code, DoorMode, EventName, ManualRule, Means, issuer
from vestibule_core.note import Checkpoint, open_note
from vestibule_core.telling import REFUSALS_AN_HOUR

ONE, OTHER = (door.id for door in some_doors(2))
ISSUER = issuer("https://parcels.example")
NOW = 1_790_000_000.0
NEVER = -1.0


def event(at=NOW, outcome=EventName.ACCESS_GRANTED, door=ONE):
    return AccessEvent(outcome=outcome, code=Code.GRANTED, door=door, means=Means.TOKEN, at=at, issuer=ISSUER)


def spend_of(number):
    return Spend(ISSUER, f"jti-{number}", ONE, f"nonce-{number}")


def driver(number, name):
    part = base64.urlsafe_b64encode(json.dumps({"iss": ISSUER, "n": "x" * (number % 3)}).encode()).decode().rstrip("=")
    return {"jti": f"jti-{number}", "sub": name, "stp": f"stop-of-{name}", "token": f"head.{part}.signature-{name}"}


async def deliver(journal, number, name, at=NOW):
    return await journal.spend(
        spend_of(number), event(at), driver(number, name), check_again=lambda: None, spent=lambda: None, notes={}
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
async def journal(path):
    opened = await asyncio.to_thread(open_journal, path)
    opened.start(lambda _: None)
    yield opened
    await asyncio.to_thread(opened.close)


def proved(path):
    """Return how many entries are proved by the newest checkpoint, each person by its commitment."""
    ((size, note),) = read_journal(path, "SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1")
    db = sqlite3.connect(path)
    base = read_base(db)
    db.close()
    rows = read_journal(path, "SELECT seq, bytes FROM leaf ORDER BY seq")
    tree = base.extend(leaf for _, leaf in rows)
    assert Checkpoint.parse(open_note(note, [IDENTITY.verifier])) == Checkpoint("vestibule/test", size, tree.root())
    leaves = dict(rows)
    for sequence, salt, text in read_journal(path, "SELECT seq, salt, json FROM person"):
        assert json.loads(leaves[sequence])["commit"] == commitment(salt, text)
    return len(rows)


def on_disk(path):
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


async def test_row_69_person_deleted(journal, path):
    anna = "driver-of-the-month"
    for number, name in enumerate([anna, "bert", anna, "bert"]):
        await deliver(journal, number, name)
        await journal.settle(spend_of(number), SpentState.GRANTED, event(outcome=EventName.DOOR_RELEASED))
    await journal.append(event(door=OTHER), {"user_id": "u1", "user": "Cleo"})
    assert anna.encode() in on_disk(path)
    subject = await journal.subject(1)
    assert [entry.leaf.sequence for entry in await journal.about(subject)] == [1, 5]
    assert await journal.delete(subject) == 2
    for trace in (anna, f"stop-of-{anna}", f"signature-{anna}", "jti-0", "jti-2"):
        assert trace.encode() not in on_disk(path), trace
    assert b"bert" in on_disk(path)
    assert await journal.subject(1) is None
    assert await journal.about(subject) == []
    await asyncio.to_thread(journal.close)
    assert proved(path) == 9
    assert b"jti-0" not in on_disk(path)


async def test_what_a_deleted_person_spent_stays_spent(journal, path):
    await deliver(journal, 1, "anna")
    await journal.delete(await journal.subject(1))
    again = Spend(ISSUER, "jti-1", ONE, "a fresh challenge")
    with pytest.raises(Refused) as refused:
        await journal.spend(again, event(), driver(1, "anna"), check_again=lambda: None, spent=lambda: None, notes={})
    assert refused.value.code is Code.ALREADY_SPENT
    # Its outcome comes after the deletion: it is not left open for the next start to puzzle over.
    await journal.settle(spend_of(1), SpentState.GRANTED, event(outcome=EventName.DOOR_RELEASED))
    await asyncio.to_thread(journal.close)
    assert read_journal(path, "SELECT state FROM spent") == [("GRANTED",)]


async def test_the_same_name_at_another_carrier_is_another_person(journal):
    await deliver(journal, 1, "anna")
    other = driver(2, "anna")
    payload = base64.urlsafe_b64encode(b'{"iss":"https://other.example"}').decode().rstrip("=")
    await journal.append(event(), other | {"token": f"head.{payload}.sig"})
    assert await journal.delete(await journal.subject(1)) == 1
    assert await journal.subject(2) == Subject(None, issuer("https://other.example"), "anna")


async def test_an_automation_is_nobody(journal):
    await journal.append(event(), {"user_id": None, "user": None})
    assert await journal.subject(1) is None
    assert await journal.subject(99) is None


async def test_many_are_deleted_step_by_step(journal, path, monkeypatch):
    monkeypatch.setattr(erasure, "STEP", 4)
    for number in range(11):
        await journal.append(event(at=NOW + number), {"user_id": f"u{number % 2}", "user": "x"})
    assert await journal.delete(Subject("u0", None, None)) == 6
    assert read_journal_rows(journal, "SELECT count(*) FROM person") == [(5,)]


def read_journal_rows(journal, sql):
    return journal._writer.db.execute(sql).fetchall()


# ---- what a controller remembers besides ----

ANN = Actor(user_id="ann-1", name="Ann", is_admin=True)
BOB = Actor(user_id="bob-2", name="Bob", is_admin=False)


@pytest.mark.parametrize("way", ["open", "hold"])
async def test_a_person_who_is_deleted_is_not_named_by_a_door_any_more(tmp_path, way):
    async with Site(tmp_path / "journal.db", doors=2, device_timed=False) as site:
        one, other = site.doors
        if way == "open":
            assert (await site.controller.by_hand.open(one.id, ANN)).granted
        else:
            assert (await site.controller.by_hand.set_mode(one.id, DoorMode.UNLOCKED, ANN)).granted
        assert (await site.controller.by_hand.open(other.id, BOB)).granted
        named = [site.controller.state(door.id).by.name for door in site.doors]
        assert await site.controller.delete_person(Subject("ann-1", None, None)) == 1
        assert (named, site.controller.state(one.id).by, site.controller.state(other.id).by.name) == (
            ["Ann", "Bob"], None, "Bob",
        )  # fmt: skip
        assert site.state.lock is Lock.ACCESSED, "the door goes on"
        await site.controller.recorded()
        assert b"Ann" not in site.all_bytes()
        assert b"Bob" in site.all_bytes()


async def test_a_person_who_is_deleted_while_the_strike_is_told_is_not_named_afterwards(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        told, go_on = asyncio.Event(), asyncio.Event()

        async def hold():
            told.set()
            await go_on.wait()

        site.strike.at(Moment.TOLD, hold)
        opening = asyncio.create_task(site.controller.by_hand.open(site.door.id, ANN))
        await told.wait()
        assert site.state.granted_to is not None
        deleting = asyncio.create_task(site.controller.delete_person(Subject("ann-1", None, None)))
        await asyncio.sleep(0.05)
        assert not deleting.done(), "it is not said to be done before it is"
        go_on.set()
        assert (await opening).granted
        assert await deleting == 1
        assert (site.state.by, site.state.lock) == (None, Lock.ACCESSED)
        assert b"Ann" not in site.all_bytes()


async def test_a_driver_who_is_deleted_was_never_named_and_the_carrier_still_is(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        text = site.token()
        assert (await site.present(text)).granted
        await site.controller.recorded()
        assert b"driver-4711" in site.all_bytes()
        assert await site.controller.delete_person(await site.journal.subject(1)) == 1
        assert b"driver-4711" not in site.all_bytes()
        assert site.state.by.name == "Parcels"
        assert (await site.present(text)).code is Code.ALREADY_SPENT


async def test_a_person_who_is_deleted_is_a_stranger_to_the_count_of_refusals(tmp_path):
    async with Site(tmp_path / "journal.db", setup={"manual": ManualRule.ADMINISTRATORS}) as site:

        async def refused(times):
            for _ in range(times):
                assert (await site.controller.by_hand.open(site.door.id, BOB)).code is Code.MANUAL_NOT_ALLOWED

        await refused(REFUSALS_AN_HOUR + 1)
        assert await site.controller.delete_person(Subject("bob-2", None, None)) == REFUSALS_AN_HOUR
        await refused(1)
        assert site.controller.counters == {Code.MANUAL_NOT_ALLOWED: 1}
        await site.told(EventName.ACCESS_DENIED, REFUSALS_AN_HOUR + 1)


async def test_while_a_backup_is_made_nobody_is_said_to_be_deleted(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        assert (await site.controller.by_hand.open(site.door.id, ANN)).granted
        await site.journal.begin_copy()
        with pytest.raises(BackupRunning):
            await site.controller.delete_person(Subject("ann-1", None, None))
        await site.journal.end_copy()
        assert await site.controller.delete_person(Subject("ann-1", None, None)) == 1
        assert site.state.by is None


# ---- after their time ----


async def test_persons_go_after_their_time_and_entries_stay(journal, path, monkeypatch):
    monkeypatch.setattr(erasure, "STEP", 3)
    for number in range(10):
        await deliver(journal, number, f"driver-{number}", at=NOW + number * DAY)
    due = Due.at(NOW + 35 * DAY, journal.newest, 30 * DAY)
    assert await journal.retain(due) == 5
    assert await journal.retain(due) == 0
    for number in range(10):
        assert (f"driver-{number}".encode() in on_disk(path)) is (number >= 5)
    await asyncio.to_thread(journal.close)
    assert proved(path) == 10


async def test_entries_go_after_their_time_and_the_rest_is_proved(journal, path):
    for number in range(6):
        await deliver(journal, number, f"driver-{number}", at=NOW + number * 200 * DAY)
    newest = NOW + 1000 * DAY
    assert Due.at(newest, newest, 30 * DAY) == Due(newest - 30 * DAY, newest - 730 * DAY, newest - 400 * DAY)
    await journal.retain(Due.at(newest, newest, 30 * DAY))
    await journal.append(event(at=newest))
    await asyncio.to_thread(journal.close)
    assert proved(path) == 5  # of 7
    assert read_journal(path, "SELECT min(size) FROM checkpoint") == [(2,)]
    assert read_journal(path, "SELECT non FROM spent ORDER BY at") == [
        ("nonce-3",),
        ("nonce-4",),
        ("nonce-5",),
    ]
    again = await asyncio.to_thread(open_journal, path)
    assert again.sequence == 7
    await asyncio.to_thread(again.close)


async def test_a_clock_that_jumps_ahead_empties_no_proof(journal):
    for number in range(3):
        await deliver(journal, number, "anna", at=NOW + number)
    await journal.retain(Due.at(NOW + 30 * 365 * DAY, journal.newest, 30 * DAY))
    assert read_journal_rows(journal, "SELECT count(*) FROM leaf") == [(3,)]
    assert read_journal_rows(journal, "SELECT count(*) FROM spent") == [(3,)]
    assert read_journal_rows(journal, "SELECT count(*) FROM person") == [(0,)]


async def test_the_newest_entries_never_go(journal):
    for number in range(3):
        await journal.append(event(at=NOW + number))
    await journal.retain(Due(NEVER, NOW + DAY, NEVER))
    assert read_journal_rows(journal, "SELECT seq FROM leaf") == [(3,)]


async def test_before_anything_is_shown_what_has_had_its_time_is_gone(journal, path):
    await deliver(journal, 1, "anna")
    await asyncio.to_thread(journal.close)
    again = await asyncio.to_thread(open_journal, path)
    assert again.retain_now(Due(NOW + 1, NEVER, NEVER)) == 1
    assert b"anna" not in on_disk(path)
    assert again.retain_now(Due(NOW + 1, NEVER, NEVER)) == 0
    again.close()


# ---- copies ----


async def test_a_copy_made_in_the_usual_way_is_whole_and_says_that_it_is_one(journal, path, tmp_path):
    """Files are copied one after the other while the doors work; the copy opens, with what was there when it began."""
    for number in range(20):
        await deliver(journal, number, "anna")
    await journal.begin_copy()
    main = path.read_bytes()
    for number in range(20, 40):
        await deliver(journal, number, "bert")
    log = path.with_name("journal.db-wal").read_bytes()
    assert path.read_bytes() == main, "the file rests while it is copied"
    await journal.end_copy()
    for half in (log, log[: len(log) // 2 + 7], b""):
        folder = tmp_path / f"restored-{len(half)}"
        folder.mkdir()
        (folder / "journal.db").write_bytes(main)
        (folder / "journal.db-wal").write_bytes(half)
        restored = await asyncio.to_thread(open_journal, folder / "journal.db")
        assert COPIED in restored.notes()
        assert 20 <= restored.sequence <= 40
        restored.close()
        proved(folder / "journal.db")
    await asyncio.to_thread(journal.close)
    assert read_journal(path, f"SELECT * FROM meta WHERE key = '{COPIED}'") == []
    assert proved(path) == 40


async def test_nothing_is_deleted_while_a_copy_is_made(journal):
    await deliver(journal, 1, "anna")
    await journal.begin_copy()
    with pytest.raises(BackupRunning):
        await journal.delete(Subject("u", None, None))
    assert await journal.retain(Due(NOW + 1, NEVER, NEVER)) == 0
    await journal.end_copy()
    assert await journal.retain(Due(NOW + 1, NEVER, NEVER)) == 1


async def test_a_copy_that_begins_while_a_person_is_deleted_finds_the_file_at_rest(journal, path):
    """The deletion was asked for first; it says that the copy may still have the person, and leaves the file alone."""
    await deliver(journal, 1, "anna")
    subject = await journal.subject(1)
    deleting = asyncio.create_task(journal.delete(subject))
    await asyncio.sleep(0)  # it has looked, and waits for the writer
    await journal.begin_copy()
    main = path.read_bytes()
    with pytest.raises(BackupRunning):
        await deleting
    assert path.read_bytes() == main
    await journal.end_copy()
    assert await journal.delete(subject) == 0
    assert b"anna" not in on_disk(path)


async def test_a_journal_that_is_closed_and_opened_while_it_is_copied_stays_at_rest(journal, path):
    await deliver(journal, 1, "anna")
    await journal.begin_copy()
    main = path.read_bytes()
    await deliver(journal, 2, "anna")
    await asyncio.to_thread(journal.close)
    assert path.read_bytes() == main
    again = await asyncio.to_thread(open_journal, path)
    assert again.sequence == 2
    assert again.retain_now(Due(NOW + 1, NEVER, NEVER)) == 0
    again.start(lambda _: None)
    assert path.read_bytes() == main
    await again.end_copy()
    await asyncio.to_thread(again.close)
    assert read_journal(path, f"SELECT * FROM meta WHERE key = '{COPIED}'") == []


async def test_a_failed_store_is_fit_for_no_copy(journal):
    journal.failed = True
    with pytest.raises(StoreFailed):
        await journal.begin_copy()
    journal.failed = False  # else nobody closes it


# ---- looking at it ----


async def test_the_newest_entries_of_a_door(journal):
    for number in range(6):
        await journal.append(event(at=NOW + number, door=(ONE, OTHER)[number % 2]), {"user_id": str(number)})
    assert [entry.leaf.sequence for entry in await journal.newest_entries(OTHER, 2)] == [6, 4]
    newest = await journal.newest_entries(None, 3)
    assert [entry.leaf.sequence for entry in newest] == [6, 5, 4]
    assert json.loads(newest[0].person.text) == {"user_id": "5"}
    plan = read_journal_rows(
        journal,
        "EXPLAIN QUERY PLAN SELECT seq FROM leaf WHERE CAST(bytes AS TEXT) ->> '$.door' = 'x' ORDER BY seq DESC",
    )
    assert "leaf_door" in plan[0][3]


async def test_a_journal_is_read_in_runs_that_end_at_checkpoints(journal):
    for number in range(5):
        await journal.append(event(at=NOW + number))
    header, run = await journal.header(), await journal.run(0)
    assert (header.size, header.base, header.keys) == (5, Tree(), (IDENTITY.verifier,))
    assert (run.first, run.last, run.checkpoints[-1].size) == (1, 5, 5)
    assert await journal.run(5) is None
    assert journal.checkpoint == run.checkpoints[-1].note
