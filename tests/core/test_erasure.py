"""What is taken out of the journal is gone from the disk, what stays is still proved, and what was spent stays spent.

Row 69 of the protocol's table, as far as the core goes; tests/integration/test_erasure.py has the rest.
"""

import asyncio
import base64
import gc
import json
import shutil
import sqlite3
from types import CoroutineType, FrameType

import pytest

from tests.simulated import IDENTITY, Moment, Site, open_journal, read_journal, some_doors
from vestibule_core import erasure
from vestibule_core import journal as journal_module
from vestibule_core import writer as writer_module
from vestibule_core.door import Lock
from vestibule_core.erasure import DAY, Due, Subject
from vestibule_core.errors import BackupRunning, JournalDamaged, Refused, StoreFailed
from vestibule_core.evidence import Broken, read_base
from vestibule_core.journal import COPIED, Journal, Spend, SpentState
from vestibule_core.leaf import commitment
from vestibule_core.manual import PIN_TRIES
from vestibule_core.merkle import Tree
from vestibule_core.model import AccessEvent, Actor, Code, DoorMode, EventName, ManualRule, Means, issuer
from vestibule_core.note import Checkpoint, open_note
from vestibule_core.pin import Pin
from vestibule_core.telling import REFUSALS_AN_HOUR
from vestibule_core.token import erased_jti, spend_id, spend_id_of

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
    assert await journal.delete(5) == 2
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
    await journal.delete(1)
    again = Spend(ISSUER, "jti-1", ONE, "a fresh challenge")
    with pytest.raises(Refused) as refused:
        await journal.spend(again, event(), driver(1, "anna"), check_again=lambda: None, spent=lambda: None, notes={})
    assert refused.value.code is Code.ALREADY_SPENT
    # Its outcome comes after the deletion: it is not left open for the next start to puzzle over.
    await journal.settle(spend_of(1), SpentState.GRANTED, event(outcome=EventName.DOOR_RELEASED))
    await asyncio.to_thread(journal.close)
    assert read_journal(path, "SELECT state FROM spent") == [("GRANTED",)]


async def test_a_deleted_person_s_token_is_still_reconciled_by_its_spend_id(journal):
    await deliver(journal, 1, "anna")
    await journal.delete(1)
    [spent] = (await journal.accepted(ISSUER, 0)).spends
    assert spent.jti == erased_jti(ISSUER, "jti-1")
    assert spend_id_of(ISSUER, spent.jti) == spend_id_of(ISSUER, "jti-1") == spend_id(ISSUER, "jti-1")


async def test_the_same_name_at_another_carrier_is_another_person(journal):
    await deliver(journal, 1, "anna")
    other = driver(2, "anna")
    payload = base64.urlsafe_b64encode(b'{"iss":"https://other.example"}').decode().rstrip("=")
    await journal.append(event(), other | {"token": f"head.{payload}.sig"})
    assert await journal.delete(1) == 1
    assert await journal.subject(2) == Subject(None, issuer("https://other.example"), "anna")


async def test_an_automation_is_nobody(journal):
    await journal.append(event(), {"user_id": None, "user": None})
    assert await journal.subject(1) is None
    assert await journal.subject(99) is None


async def test_many_are_deleted_step_by_step(journal, path, monkeypatch):
    monkeypatch.setattr(erasure, "STEP", 4)
    for number in range(11):
        await journal.append(event(at=NOW + number), {"user_id": f"u{number % 2}", "user": "x"})
    assert await journal.delete(1) == 6
    assert read_journal_rows(journal, "SELECT count(*) FROM person") == [(5,)]


def read_journal_rows(journal, sql):
    return journal._writer.db.execute(sql).fetchall()


# ---- a deletion that is interrupted ----


def as_killed(path, folder):
    """Return a copy of the journal as SIGKILL would leave it now."""
    folder.mkdir()
    for file in (path, path.with_name("journal.db-wal")):
        shutil.copy(file, folder)
    return folder / "journal.db"


async def step_by_step(journal, path, monkeypatch):
    """Write seven entries about Anna, and return the journal as it is on the disk after each step of her deletion."""
    monkeypatch.setattr(erasure, "STEP", 2)
    for number in range(7):
        await journal.append(event(at=NOW + number), {"user_id": "u1", "user": "Anna B."})
    moments, step = [], erasure.go_on_deleting

    def watched(db, note):
        moments.append(as_killed(path, path.parent.parent / f"killed-{path.parent.name}-{len(moments)}"))
        return step(db, note)

    monkeypatch.setattr(erasure, "go_on_deleting", watched)
    assert await journal.delete(3, (event(at=NOW + 9, outcome=EventName.PERSON_DELETED), None)) == 7
    monkeypatch.setattr(erasure, "go_on_deleting", step)
    return moments


async def test_a_deletion_that_a_crash_interrupts_is_on_record_and_is_done_to_its_end_at_the_next_start(
    journal, path, monkeypatch
):
    moments = await step_by_step(journal, path, monkeypatch)
    assert b"Anna B." not in on_disk(path)
    assert len(moments) >= 4
    for killed in moments:
        assert b"Anna B." in on_disk(killed)
        again = await asyncio.to_thread(open_journal, killed)
        assert again.notes() == {}, "whom it is about is nobody else's to know"
        again.retain_now(Due(NEVER, NEVER, NEVER))
        assert b"Anna B." not in on_disk(killed)
        await asyncio.to_thread(again.close)
        assert proved(killed) == 8
        assert read_journal(killed, "SELECT key FROM meta WHERE key = 'empty' OR key LIKE 'deleting%'") == []
        ((newest,),) = read_journal(killed, "SELECT bytes FROM leaf ORDER BY seq DESC LIMIT 1")
        assert json.loads(newest)["kind"] == "person_deleted"


async def test_who_asks_again_by_the_same_entry_finishes_a_deletion_that_failed_half_way(journal, path, monkeypatch):
    """The entry that it was asked for by may be among those that are done: it still says whom it was about."""
    for killed in (await step_by_step(journal, path, monkeypatch))[:-1]:  # at the last one it was done
        again = await asyncio.to_thread(open_journal, killed)
        again.start(lambda _: None)
        assert await again.subject(3) == Subject("u1", None, None)
        await again.delete(3)
        assert b"Anna B." not in on_disk(killed)
        assert await again.subject(3) is None
        await asyncio.to_thread(again.close)


async def test_what_is_taken_out_next_finishes_a_deletion_that_nobody_waits_for(journal, path, monkeypatch):
    for killed in (await step_by_step(journal, path, monkeypatch))[1:2]:
        again = await asyncio.to_thread(open_journal, killed)
        again.start(lambda _: None)
        assert await again.retain(Due(NEVER, NEVER, NEVER)) > 0
        assert b"Anna B." not in on_disk(killed)
        await asyncio.to_thread(again.close)


async def test_nobody_is_deleted_from_a_journal_in_which_a_page_is_damaged_and_the_doors_work_on(journal, monkeypatch):
    """SQLite commits nothing after it met such a page: what else was written then would shut the doors."""
    await deliver(journal, 1, "anna")

    def damaged(*_):
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(erasure, "erase", damaged)
    deleting = asyncio.create_task(journal.delete(1))
    await asyncio.sleep(0)
    assert (await journal.append(event())).sequence == 2
    with pytest.raises(Broken, match="damaged"):
        await deleting
    assert (await journal.append(event())).sequence == 3
    monkeypatch.undo()
    assert await journal.delete(1) == 1


async def test_a_disk_that_fails_at_a_deletion_fails_the_store(journal, monkeypatch):
    await deliver(journal, 1, "anna")

    def failing(*_):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    monkeypatch.setattr(erasure, "erase", failing)
    with pytest.raises(StoreFailed, match="I/O"):
        await journal.delete(1)
    for asked in (lambda: journal.append(event()), lambda: journal.delete(1), lambda: journal.subject(1)):
        with pytest.raises(StoreFailed):
            await asked()


@pytest.mark.parametrize("when", ["quiet", "start"])
async def test_a_log_that_nobody_emptied_is_emptied_when_it_is_quiet_and_at_the_next_start(
    journal, path, monkeypatch, when
):
    """Whoever had asked for the deletion may have gone before its last step."""
    monkeypatch.setattr(journal_module, "QUIET", 0.05)
    monkeypatch.setattr(Journal, "_empty_log", lambda *_: None)
    for number in range(3):
        await journal.append(event(at=NOW + number), {"user_id": "u1", "user": "Anna B."})
    await journal.delete(1)
    assert b"Anna B." in on_disk(path)
    killed = as_killed(path, path.parent.parent / f"{path.parent.name}-{when}")
    monkeypatch.undo()
    if when == "start":
        (await asyncio.to_thread(open_journal, killed)).close()
        assert b"Anna B." not in on_disk(killed)
    else:
        async with asyncio.timeout(5):
            while journal._must_empty:  # noqa: ASYNC110 - in the writer's thread, when nothing waits
                await asyncio.sleep(0.05)
        assert b"Anna B." not in on_disk(path)


# ---- what a controller remembers besides ----

ANN = Actor(user_id="ann-1", name="Ann B.", is_admin=True)
BOB = Actor(user_id="bob-2", name="Bob", is_admin=False)
MAX = Actor(user_id="max-3", name="Max", is_admin=True)
"""Who deletes."""


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
        assert await site.controller.delete_person(1, MAX) == 1
        assert (named, site.controller.state(one.id).by, site.controller.state(other.id).by.name) == (
            ["Ann B.", "Bob"], None, "Bob",
        )  # fmt: skip
        assert site.state.lock is Lock.ACCESSED, "the door goes on"
        await site.controller.recorded()
        assert b"Ann B." not in site.all_bytes()
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
        deleting = asyncio.create_task(site.controller.delete_person(1, MAX))
        await asyncio.sleep(0.05)
        assert not deleting.done(), "it is not said to be done before it is"
        go_on.set()
        assert (await opening).granted
        assert await deleting == 1
        assert (site.state.by, site.state.lock) == (None, Lock.ACCESSED)
        assert b"Ann B." not in site.all_bytes()


async def test_a_driver_who_is_deleted_was_never_named_and_the_carrier_still_is(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        text = site.token()
        assert (await site.present(text)).granted
        await site.controller.recorded()
        assert b"driver-4711" in site.all_bytes()
        assert await site.controller.delete_person(1, MAX) == 1
        assert b"driver-4711" not in site.all_bytes()
        assert site.state.by.name == "Parcels"
        assert (await site.present(text)).code is Code.ALREADY_SPENT


async def test_a_person_who_is_deleted_is_a_stranger_to_the_count_of_refusals(tmp_path):
    async with Site(tmp_path / "journal.db", setup={"manual": ManualRule.ADMINISTRATORS}) as site:

        async def refused(times):
            for _ in range(times):
                assert (await site.controller.by_hand.open(site.door.id, BOB)).code is Code.MANUAL_NOT_ALLOWED

        await refused(REFUSALS_AN_HOUR + 1)
        assert await site.controller.delete_person(1, MAX) == REFUSALS_AN_HOUR
        await refused(1)
        assert site.controller.counters == {Code.MANUAL_NOT_ALLOWED: 1}
        await site.told(EventName.ACCESS_DENIED, REFUSALS_AN_HOUR + 1)


async def test_while_a_backup_is_made_nobody_is_said_to_be_deleted(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        assert (await site.controller.by_hand.open(site.door.id, ANN)).granted
        await site.journal.begin_copy()
        with pytest.raises(BackupRunning):
            await site.controller.delete_person(1, MAX)
        await site.journal.end_copy()
        assert await site.controller.delete_person(1, MAX) == 1
        assert site.state.by is None


async def test_a_deletion_is_recorded_and_told_with_who_asked_for_it(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        assert (await site.controller.by_hand.open(site.door.id, ANN)).granted
        assert await site.controller.delete_person(1, MAX, "origin") == 1
        [told] = await site.told(EventName.PERSON_DELETED)
        assert (told.origin, told.code, told.means) == ("origin", Code.GRANTED, Means.MANUAL)
        assert (await site.journal.newest_entries(None, 1))[0].who == "Max"
        assert await site.controller.delete_person(1, MAX) == 0, "about nobody any more"
        assert len(await site.told(EventName.PERSON_DELETED)) == 1


async def test_who_deletes_himself_is_not_written_down_by_that(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        assert (await site.controller.by_hand.open(site.door.id, ANN)).granted
        assert await site.controller.delete_person(1, ANN) == 1
        await site.told(EventName.PERSON_DELETED)
        assert b"Ann B." not in site.all_bytes()


async def test_only_administrators_delete(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        assert (await site.controller.by_hand.open(site.door.id, ANN)).granted
        with pytest.raises(Refused) as refused:
            await site.controller.delete_person(1, BOB)
        assert refused.value.code is Code.MANUAL_NOT_ALLOWED
        assert await site.journal.subject(1) is not None


async def test_a_deletion_whose_caller_goes_away_is_done_to_its_end(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        assert (await site.controller.by_hand.open(site.door.id, ANN)).granted
        deleting = asyncio.create_task(site.controller.delete_person(1, MAX))
        await asyncio.sleep(0)
        deleting.cancel()
        await site.told(EventName.PERSON_DELETED)
        await site.journal.retain(Due(NEVER, NEVER, NEVER))  # waits for its turn
        assert b"Ann B." not in site.all_bytes()
        assert site.state.by is None


async def test_a_door_has_forgotten_who_is_deleted_also_if_the_store_fails_then(tmp_path, monkeypatch):
    async with Site(tmp_path / "journal.db") as site:
        assert (await site.controller.by_hand.open(site.door.id, ANN)).granted
        monkeypatch.setattr(journal_module.erasure, "begun", lambda *_: site.journal._writer.db.execute("no SQL"))
        with pytest.raises(StoreFailed):
            await site.controller.delete_person(1, MAX)
        assert site.state.by is None


async def test_no_token_of_a_deleted_driver_is_left_in_memory_and_it_is_still_known_as_spent(tmp_path):
    async with Site(tmp_path / "journal.db") as site:
        text = site.token()
        assert (await site.present(text)).granted
        await site.controller.recorded()
        await site.controller.delete_person(1, MAX)
        gc.collect()
        kept_by = [held for held in gc.get_referrers(text) if not isinstance(held, CoroutineType | FrameType)]
        assert kept_by == []
        assert (await site.present(text)).code is Code.ALREADY_SPENT
        assert site.controller.counters == {Code.ALREADY_SPENT: 1}, "before its signature was looked at"


async def test_wrong_pins_of_a_person_who_is_deleted_are_forgotten(tmp_path):
    async with Site(tmp_path / "journal.db", setup={"pin": Pin.of("1234", bytes(16))}) as site:
        open_by_hand = site.controller.by_hand.open
        for _ in range(PIN_TRIES):
            assert (await open_by_hand(site.door.id, BOB, pin="0000")).code is Code.PIN_WRONG
            assert (await open_by_hand(site.door.id, ANN, pin="0000")).code is Code.PIN_WRONG
        assert (await open_by_hand(site.door.id, BOB, pin="1234")).code is Code.PIN_LOCKED
        await site.controller.recorded()
        assert await site.controller.delete_person(1, MAX) == PIN_TRIES + 1
        assert "bob-2" not in repr(vars(site.controller.by_hand._pin_tries))
        assert (await open_by_hand(site.door.id, ANN, pin="1234")).code is Code.PIN_LOCKED


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


HARM = {  # what becomes of entry 2
    "a leaf that cannot be read": """UPDATE leaf SET bytes = CAST(replace(bytes, '"t"', '"T"') AS BLOB)""",
    "a leaf that is text": "UPDATE leaf SET bytes = CAST(bytes AS TEXT)",
    "a leaf that is gone": "DELETE FROM leaf",
    "a leaf that is too long": """UPDATE leaf SET bytes = CAST(printf('{"door":"%.*c"}', 100000, 'x') AS BLOB)""",
    "a person who is no text": "UPDATE person SET json = x'ff'",
    "a person who is not UTF-8": "UPDATE person SET json = CAST(x'ff' AS TEXT)",
    "a person who is too long": "UPDATE person SET json = printf('%.*c', 300000, 'x')",
    "a person who is no object": "UPDATE person SET json = '[]'",
    "a person who is nested": "UPDATE person SET json = printf('%.*c', 60000, '[')",
    "a person without a token": """UPDATE person SET json = '{"sub":"x","jti":"y"}'""",
    "a token that says nothing": """UPDATE person SET json = '{"sub":"x","jti":"y","token":"a.W10.b"}'""",
    "a spend without a time": "UPDATE spent SET at = 'noon'",
}  # fmt: skip


def harm(path, *statements):
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize("what", HARM)
async def test_what_cannot_be_read_keeps_nothing_else_from_being_taken_out(path, monkeypatch, what):
    monkeypatch.setattr(writer_module, "SPARSE", 3)  # a start looks at what follows the last anchor only
    journal = await asyncio.to_thread(open_journal, path)
    journal.start(lambda _: None)
    for number in range(12):
        await deliver(journal, number, f"driver-{number}.", at=NOW + number * DAY)
    await asyncio.to_thread(journal.close)
    harm(path, f"{HARM[what]} WHERE rowid = 2")
    journal = await asyncio.to_thread(open_journal, path)
    journal.start(lambda _: None)
    assert await journal.delete(5) == 1
    await journal.retain(Due(NOW + 3.5 * DAY, NEVER, NOW + 3.5 * DAY))
    await journal.retain(Due(NOW + 3.5 * DAY, NOW + 3.5 * DAY, NEVER))
    for number in range(12):
        assert (f"driver-{number}.".encode() in on_disk(path)) is (number > 4), number
    assert read_journal_rows(journal, "SELECT min(seq) FROM person") == [(6,)]
    assert len(read_journal_rows(journal, "SELECT at FROM spent")) == 8 + ("spend" in what)
    await asyncio.to_thread(journal.close)


async def test_entries_that_are_not_those_which_were_signed_stay_for_whoever_looks(path, monkeypatch):
    """To drop them would be to note a tree that nobody signed: nothing behind it could be proved any more."""
    monkeypatch.setattr(writer_module, "SPARSE", 3)
    journal = await asyncio.to_thread(open_journal, path)
    journal.start(lambda _: None)
    for number in range(12):
        await journal.append(event(at=NOW + number))
    await asyncio.to_thread(journal.close)
    for altered in (
        "UPDATE leaf SET bytes = CAST(replace(bytes, 'GRANTED', 'REVOKED') AS BLOB) WHERE seq = 2",
        "UPDATE checkpoint SET note = 'no note' WHERE size = (SELECT min(size) FROM checkpoint)",
        "UPDATE checkpoint SET note = x'00' WHERE size = (SELECT min(size) FROM checkpoint)",
        "UPDATE leaf SET bytes = CAST('{}' AS BLOB) WHERE seq < 6",
    ):
        copy = path.with_name("copy.db")
        shutil.copy(path, copy)
        harm(copy, altered)
        again = await asyncio.to_thread(open_journal, copy)
        assert again.retain_now(Due(NEVER, NOW + DAY, NEVER)) == 0
        again.close()
    again = await asyncio.to_thread(open_journal, path)
    assert again.retain_now(Due(NEVER, NOW + DAY, NEVER)) > 0
    again.close()


async def test_who_it_was_goes_by_the_next_entry_if_its_own_cannot_be_read(path):
    journal = await asyncio.to_thread(open_journal, path)
    journal.start(lambda _: None)
    for number in range(4):
        await deliver(journal, number, f"driver-{number}", at=NOW + number * DAY)
    await asyncio.to_thread(journal.close)

    def left_after(due, *unreadable):
        copy = path.with_name("copy.db")
        shutil.copy(path, copy)
        db = sqlite3.connect(copy)
        for sequence in unreadable:
            db.execute("UPDATE leaf SET bytes = CAST('{}' AS BLOB) WHERE seq = ?", (sequence,))
        while erasure.drop_persons(db, before=due):
            pass
        left = [sequence for (sequence,) in db.execute("SELECT seq FROM person ORDER BY seq")]
        db.close()
        return left

    assert left_after(NOW + 1.5 * DAY) == [3, 4]
    assert left_after(NOW + 1.5 * DAY, 1) == [3, 4]
    assert left_after(NOW + 1.5 * DAY, 2) == [2, 3, 4], "the next one is not due"
    assert left_after(NOW + 2.5 * DAY, 2) == [4]
    assert left_after(NOW + 2.5 * DAY, 4) == [], "there is no next one"
    assert left_after(NOW - DAY, 4) == [1, 2, 3, 4]
    assert left_after(NOW - DAY, 1, 2, 3, 4) == [], "nobody will ever know"


async def test_a_deletion_whose_note_cannot_be_read_is_said(path):
    (await asyncio.to_thread(open_journal, path)).close()
    for text in ("[", "{}", "[1]"):
        harm(path, f"INSERT OR REPLACE INTO meta VALUES('deleting:1', '{text}')")
        journal = await asyncio.to_thread(open_journal, path)
        with pytest.raises(JournalDamaged):
            journal.retain_now(Due(NEVER, NEVER, NEVER))
        journal.close()


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
        await journal.delete(1)
    assert await journal.retain(Due(NOW + 1, NEVER, NEVER)) == 0
    await journal.end_copy()
    assert await journal.retain(Due(NOW + 1, NEVER, NEVER)) == 1


async def test_a_copy_that_begins_while_a_person_is_deleted_finds_the_file_at_rest(journal, path, monkeypatch):
    """What was begun is done to its end, into the log; the end of the copy takes it out of the file as well."""
    monkeypatch.setattr(erasure, "STEP", 2)
    for number in range(5):
        await deliver(journal, number, "anna")
    deleting = asyncio.create_task(journal.delete(1))
    while not journal._must_empty:  # noqa: ASYNC110 - the first step is in the log, and others follow
        await asyncio.sleep(0)
    await journal.begin_copy()
    main = path.read_bytes()
    assert await deleting == 5
    assert path.read_bytes() == main
    await journal.end_copy()
    assert b"anna" not in on_disk(path)
    assert read_journal_rows(journal, "SELECT key FROM meta WHERE key IN ('empty', 'deleting:1')") == []


async def test_a_copy_that_begins_just_before_a_person_is_deleted_has_that_person_and_it_is_said(journal):
    await deliver(journal, 1, "anna")
    deleting = asyncio.create_task(journal.delete(1))
    copying = journal.begin_copy()  # takes its place first
    with pytest.raises(BackupRunning):
        await deleting
    await copying
    assert await journal.subject(1) is not None
    await journal.end_copy()
    assert await journal.delete(1) == 1


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
