"""The journal: what is written is durable, told once, in order; what is not writable is never pretended. Protocol D."""

import asyncio
import fcntl
import hashlib
import json
import logging
import sqlite3
import stat
import threading
import traceback
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulated import IDENTITY, open_journal, read_journal, some_doors
from vestibule_core import journal as journal_module
from vestibule_core import schema
from vestibule_core import writer as writer_module
from vestibule_core.erasure import Due, Subject
from vestibule_core.errors import (
    IdentityMissing,
    JournalDamaged,
    JournalInUse,
    JournalMoved,
    JournalTooNew,
    Refused,
    StoreFailed,
)
from vestibule_core.evidence import Broken, Header
from vestibule_core.journal import COPIED, Acceptances, Accepted, Journal, Spend, SpentState, _Kind, end_copies
from vestibule_core.leaf import MAX_PERSON
from vestibule_core.merkle import Tree
from vestibule_core.model import AccessEvent, Code, EventName, Means, issuer
from vestibule_core.schema import LONGEST, LONGEST_VALUE, SCHEMA_VERSION
from vestibule_core.writer import NOTED_BACK, noted_release

DOOR, OTHER_DOOR = (door.id for door in some_doors(2))
ISSUER = issuer("https://parcels.example")
PERSON = {"sub": "driver-4711", "stp": "stop-815", "token": "aaa.bbb.ccc"}
WRITES = _Kind.WRITES


def event(number=0, outcome=EventName.ACCESS_GRANTED, code=Code.GRANTED):
    return AccessEvent(
        outcome=outcome,
        code=code,
        door=DOOR,
        means=Means.TOKEN,
        at=1_790_000_000.1234,
        spend_id=number.to_bytes(16),
        kid="k" * 43,
        issuer=ISSUER,
    )


def spend_of(number, nonce=None, door=DOOR):
    return Spend(ISSUER, f"jti-{number}", door, nonce or f"nonce-{number}")


async def spend(journal, number, *, nonce=None, door=DOOR, again=lambda: None, spent=lambda: None, notes=None):
    return await journal.spend(
        spend_of(number, nonce, door), event(number), PERSON, check_again=again, spent=spent, notes=notes or {}
    )


class Watched:
    """The journal's database connection, seen and (where a test wants it) broken."""

    def __init__(self, journal, breaks=lambda sql: None):
        self.statements = []
        self._db = journal._writer.db
        self._breaks = breaks
        journal._writer.db = self

    def execute(self, sql, *parameters):
        self.statements.append(sql)
        if error := self._breaks(sql):
            raise error
        return self._db.execute(sql, *parameters)

    def __getattr__(self, name):
        return getattr(self._db, name)


# ---- the file ----


async def test_a_new_journal_is_readable_by_its_owner_only(journal, path):
    await journal.append(event())
    for file in (path, path.with_name("journal.db-wal")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def test_the_schema_is_that_of_the_protocol(journal, path):
    await asyncio.to_thread(journal.close)
    assert read_journal(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert read_journal(path, "PRAGMA application_id") == [(0x76737462,)]
    assert read_journal(path, "PRAGMA journal_mode") == [("wal",)]
    tables = read_journal(path, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    assert [name for (name,) in tables] == ["checkpoint", "leaf", "meta", "person", "spent"]
    columns = {table: [row[1] for row in read_journal(path, f"PRAGMA table_info({table})")] for (table,) in tables}
    assert columns == {
        "spent": ["iss", "jti", "door", "non", "at", "state", "iat"],
        "leaf": ["seq", "bytes"],
        "person": ["seq", "salt", "json"],
        "checkpoint": ["size", "note"],
        "meta": ["key", "value"],
    }


def test_every_commit_is_synced(path):
    """NORMAL would lose the last commits at a power cut, and with them the memory of what was spent."""
    journal = open_journal(path)
    try:
        assert journal._writer.db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert journal._writer.db.execute("PRAGMA secure_delete").fetchone() == (1,)
        assert journal._writer.db.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    finally:
        journal.close()


def test_a_newer_journal_is_refused_and_left_as_it_is(path):
    open_journal(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(JournalTooNew):
        open_journal(path)
    assert path.read_bytes() == before


def test_a_newer_journal_that_died_with_a_log_is_left_as_it_is(tmp_path, path):
    """A downgrade after a crash: neither the file nor its log may be touched by a version that does not know them."""
    open_journal(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.execute("INSERT INTO meta VALUES('of the future', '1')")
    db.commit()
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("journal.db", "journal.db-wal"):  # as SIGKILL leaves them
        (crashed / name).write_bytes((tmp_path / name).read_bytes())
    db.close()
    before = {file.name: file.read_bytes() for file in crashed.iterdir()}
    assert before["journal.db-wal"]
    with pytest.raises(JournalTooNew):
        open_journal(crashed / "journal.db")
    assert {
        file.name: file.read_bytes() for file in crashed.iterdir() if file.suffix not in {".db-shm", ".lock"}
    } == before


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_foreign_database_is_refused_and_left_as_it_is(path, mode):
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute("CREATE TABLE states(state)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(JournalDamaged):
        open_journal(path)
    assert path.read_bytes() == before


def test_a_foreign_database_that_only_has_a_version_is_refused(path):
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 1")
    db.close()
    with pytest.raises(JournalDamaged):
        open_journal(path)


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to look like one" * 20, b"SQLite format 3\0" * 300]
)
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path, content):
    path.write_bytes(content)
    with pytest.raises((JournalDamaged, StoreFailed)):
        open_journal(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("leaf", [b'"no leaf"', b"{}", b'{"t":"noon"}', b"[]", b'{"t":null}'])
def test_a_journal_whose_newest_entry_cannot_be_read_is_refused(path, leaf):
    """What time it was is needed to judge the clock: to guess would be to trust any."""
    open_journal(path).close()
    db = sqlite3.connect(path)
    db.execute("INSERT INTO leaf VALUES(7, ?)", (leaf,))
    db.commit()
    db.close()
    with pytest.raises(JournalDamaged):
        open_journal(path)


def test_an_empty_file_becomes_a_journal(path):
    path.touch()
    open_journal(path).close()
    assert read_journal(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_a_folder_that_is_not_there_is_a_store_that_failed(tmp_path):
    with pytest.raises(StoreFailed):
        open_journal(tmp_path / "nowhere" / "journal.db")
    with pytest.raises(StoreFailed):
        open_journal(tmp_path)


def test_a_file_system_without_a_write_ahead_log_is_refused(monkeypatch):
    """Network file systems cannot keep one."""

    class NoLog:
        def execute(self, sql):
            answers = {"PRAGMA journal_mode = WAL": [("delete",)], "SELECT count(*) FROM sqlite_schema": [(0,)]}
            return type("Cursor", (), {"fetchone": lambda _: answers.get(sql, [(0,)])[0]})()

    from pathlib import Path

    with pytest.raises(StoreFailed, match="write-ahead"):
        schema._prepare(NoLog(), Path("journal.db"))


async def test_a_second_process_gets_no_journal(journal, path, processes):
    await journal.append(event())
    assert processes.run("open_another_journal", path=path)["opened"] == "JournalInUse"


async def test_a_second_process_gets_no_journal_after_this_one_was_read_for_a_backup(journal, path, processes):
    """Closing any file that is the database drops SQLite's own locks of the whole process."""
    await journal.append(event())
    await asyncio.to_thread(path.read_bytes)
    assert processes.run("open_another_journal", path=path)["opened"] == "JournalInUse"


def test_a_journal_that_a_database_tool_holds_is_not_opened(path, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kind: connect(*args, **(kind | {"timeout": 0.01})))
    open_journal(path).close()
    tool = connect(path)
    tool.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalInUse):
        open_journal(path)
    tool.close()
    open_journal(path).close()


async def test_nor_does_a_second_controller_of_the_same_process(journal, path):
    with pytest.raises(JournalInUse) as raised:
        await asyncio.to_thread(open_journal, path)
    assert raised.value.temporary


# ---- migrations ----


def test_an_older_journal_is_brought_forward_with_what_is_in_it(path, monkeypatch):
    open_journal(path).close()
    db = sqlite3.connect(path)
    db.execute("INSERT INTO meta VALUES('kept', 'yes')")
    db.commit()
    db.close()
    newer = (*schema._MIGRATIONS, ("ALTER TABLE spent ADD COLUMN witness TEXT", "CREATE TABLE extra(a)"))
    monkeypatch.setattr(schema, "_MIGRATIONS", newer)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", len(newer))
    open_journal(path).close()
    assert read_journal(path, "PRAGMA user_version") == [(SCHEMA_VERSION + 1,)]
    assert read_journal(path, "SELECT value FROM meta WHERE key = 'kept'") == [("yes",)]
    assert read_journal(path, "SELECT witness FROM spent") == []
    open_journal(path).close()  # and is not brought forward twice


@pytest.mark.parametrize(
    "statement, raised",
    [
        pytest.param("CREATE TABLE spent(a)", JournalDamaged, id="it has what it should not have yet"),
        pytest.param("INSERT INTO leaf VALUES(1, '{')", JournalDamaged, id="a leaf that is no JSON"),
        pytest.param("CREATE TABLE big(a)", StoreFailed, id="the disk is full"),
    ],
)
def test_a_migration_that_fails_leaves_the_older_journal(path, monkeypatch, statement, raised):
    open_journal(path).close()
    before = read_journal(path, "SELECT * FROM meta")
    newer = (*schema._MIGRATIONS, ("DELETE FROM meta", "PRAGMA max_page_count = 1", statement))
    monkeypatch.setattr(schema, "_MIGRATIONS", newer)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", len(newer))
    with pytest.raises(raised):
        open_journal(path)
    monkeypatch.undo()
    assert read_journal(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert read_journal(path, "SELECT * FROM meta") == before
    open_journal(path).close()


# ---- who holds it, and with which key ----


def test_the_key_is_asked_for_while_the_journal_is_held_and_told_whether_it_signed_before(path):
    """Two programs that start at once would each make a key, and one would sign with a key that is gone."""
    asked = []

    def key(signed_before):
        with pytest.raises(JournalInUse), schema.held(path):
            pass
        asked.append(signed_before)
        return IDENTITY

    for _ in range(2):
        Journal.open(path, key).close()
    assert asked == [False, True]


def test_without_its_key_a_journal_stays_as_it_is_and_free(path):
    def key(_):
        raise IdentityMissing

    open_journal(path).close()
    before = path.read_bytes()
    with pytest.raises(IdentityMissing):
        Journal.open(path, key)
    assert path.read_bytes() == before
    open_journal(path).close()


def test_a_journal_is_held_by_one_and_can_be_held_without_being_opened(path):
    journal = open_journal(path)
    with pytest.raises(JournalInUse), schema.held(path):
        pass
    journal.close()
    with schema.held(path), pytest.raises(JournalInUse):
        open_journal(path)
    open_journal(path).close()


def test_a_place_that_cannot_be_held_is_a_store_that_failed(tmp_path):
    with pytest.raises(StoreFailed), schema.held(tmp_path / "nowhere" / "journal.db"):
        pass


def test_a_lock_that_was_put_away_with_its_journal_holds_nothing(path, monkeypatch):
    """Who waits at the file of before would hold it along with whoever makes the next."""
    lock, flock = path.with_name("journal.db.lock"), fcntl.flock

    for leave in (lock.unlink, lambda: lock.rename(path.with_name("old")) and lock.touch()):

        def put_away(handle, how, leave=leave):
            leave()
            flock(handle, how)

        monkeypatch.setattr(fcntl, "flock", put_away)
        with pytest.raises(JournalInUse):
            open_journal(path)
        monkeypatch.undo()
        assert not path.exists()


# ---- copies for a backup that ends when the journal is not there to be told (test_erasure.py has the rest) ----


async def test_a_copy_of_a_journal_that_was_closed_is_ended_in_its_file(journal, path):
    await journal.begin_copy()
    await journal.append(event())
    await asyncio.to_thread(journal.close)
    assert path.with_name("journal.db-wal").exists()
    await asyncio.to_thread(end_copies)
    assert not path.with_name("journal.db-wal").exists(), "its log was copied back"
    assert read_journal(path, f"SELECT * FROM meta WHERE key = '{COPIED}'") == []
    assert read_journal(path, "SELECT count(*) FROM leaf") == [(1,)]
    again = await asyncio.to_thread(open_journal, path)
    assert not again.is_copy
    again.close()


async def test_a_copy_of_a_journal_that_is_in_use_is_ended_at_once_and_noted_when_it_is_opened_next(journal, path):
    await journal.begin_copy()
    journal.failed = True
    with pytest.raises(StoreFailed):
        await journal.end_copy()
    await asyncio.to_thread(end_copies)
    journal.failed = False  # else nobody closes it
    assert await journal.retain(Due(event().at + 1, 0, 0)) == 0
    assert not journal.is_copy
    await asyncio.to_thread(journal.close)
    assert read_journal(path, f"SELECT value FROM meta WHERE key = '{COPIED}'") == [("yes",)]
    again = await asyncio.to_thread(open_journal, path)
    assert not again.is_copy, "it is the journal itself"
    again.close()
    assert read_journal(path, f"SELECT * FROM meta WHERE key = '{COPIED}'") == []


async def test_a_copy_of_a_journal_that_is_gone_leaves_the_next_one_alone(journal, path):
    await journal.begin_copy()
    await asyncio.to_thread(journal.close)
    for file in path.parent.iterdir():
        file.unlink()
    await asyncio.to_thread(end_copies)
    assert list(path.parent.iterdir()) == []
    restored = await asyncio.to_thread(open_journal, path)
    restored.start(lambda _: None)
    await restored.append(event(), None, {COPIED: "yes"})
    await asyncio.to_thread(restored.close)
    again = await asyncio.to_thread(open_journal, path)
    assert again.is_copy, "one that was restored there is told from the one that is gone"
    again.close()


# ---- spending ----


async def test_a_token_is_spent_once(journal, path):
    recorded = await spend(journal, 1)
    assert recorded.sequence == 1
    with pytest.raises(Refused) as refused:
        await spend(journal, 1, nonce="another")
    assert refused.value.code is Code.ALREADY_SPENT
    await asyncio.to_thread(journal.close)
    assert read_journal(path, "SELECT iss, jti, door, non, state FROM spent") == [
        (ISSUER, "jti-1", DOOR, "nonce-1", "SPENT")
    ]


async def test_a_challenge_is_used_once(journal):
    """UNIQUE(door, non): two valid tokens on one challenge are one access (attack 26)."""
    await spend(journal, 1, nonce="n")
    with pytest.raises(Refused) as refused:
        await spend(journal, 2, nonce="n")
    assert refused.value.code is Code.ALREADY_SPENT
    await spend(journal, 3, nonce="n", door=OTHER_DOOR)


async def test_what_does_not_stand_any_more_is_not_spent(journal, path):
    with pytest.raises(Refused) as refused:
        await spend(journal, 1, again=lambda: Code.KEY_REVOKED)
    assert refused.value.code is Code.KEY_REVOKED
    await asyncio.to_thread(journal.close)
    assert read_journal(path, "SELECT count(*) FROM spent") == [(0,)]
    assert read_journal(path, "SELECT count(*) FROM leaf") == [(0,)]


async def test_the_last_check_runs_inside_the_transaction(journal):
    seen = []
    await spend(journal, 1, again=lambda: seen.append(journal._writer.db.in_transaction))
    assert seen == [True]


async def test_an_outcome_settles_its_spend(journal, path):
    for number, state in enumerate((SpentState.GRANTED, SpentState.FAILED, SpentState.UNKNOWN)):
        await spend(journal, number)
        await journal.settle(spend_of(number), state, event(number, EventName.DOOR_RELEASED))
    await asyncio.to_thread(journal.close)
    assert [row[0] for row in read_journal(path, "SELECT state FROM spent ORDER BY rowid")] == [
        "GRANTED",
        "FAILED",
        "UNKNOWN",
    ]


async def test_what_was_left_unfinished_is_found_at_the_next_start(journal, path):
    await spend(journal, 1, notes=noted_release(DOOR, event(1).spend_id))
    await spend(journal, 2)
    await journal.settle(spend_of(2), SpentState.GRANTED, event(2))
    await journal.append(event(3), notes=noted_release(OTHER_DOOR, event(3).spend_id))
    await asyncio.to_thread(journal.close)
    again = open_journal(path)
    try:
        assert again.unsettled() == [spend_of(1)]
        assert again.recent_spends(10) == [Accepted(spend_of(1), event(1).at), Accepted(spend_of(2), event(2).at)]
        notes = again.notes()
        assert noted_release(DOOR, event(1).spend_id).items() <= notes.items()
        assert noted_release(OTHER_DOOR, event(3).spend_id).items() <= notes.items()
    finally:
        again.close()


async def test_the_newest_spends_are_remembered_oldest_first(journal, path):
    for number in range(5):
        await spend(journal, number)
    await asyncio.to_thread(journal.close)
    again = open_journal(path)
    assert [accepted.spend for accepted in again.recent_spends(2)] == [spend_of(3), spend_of(4)]
    again.close()


def test_nothing_can_be_written_before_the_start(path):
    journal = open_journal(path)
    with pytest.raises(RuntimeError):
        journal.append(event())
    journal.close()


async def test_what_counts_a_spend_runs_where_it_is_written(journal):
    """So that the next token of the same commit sees it: a rate of one is one, also for 50 at once (attack 39)."""
    accepted = []

    def check_again():
        return Code.POLICY_RATE if accepted else None

    outcomes = await asyncio.gather(
        *(spend(journal, number, again=check_again, spent=lambda: accepted.append(1)) for number in range(50)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes].count(AccessEvent) == len(accepted) == 1
    assert {outcome.code for outcome in outcomes} == {Code.GRANTED, Code.POLICY_RATE}


async def test_what_is_not_spent_is_not_counted(journal):
    counted = []
    await spend(journal, 1)
    for kind in ({}, {"again": lambda: Code.LATE}):
        with pytest.raises(Refused):
            await spend(journal, 1, spent=lambda: counted.append(1), **kind)
    assert counted == []


# ---- notes: what has to be known after a restart ----


async def reopened(journal, path):
    await asyncio.to_thread(journal.close)
    return await asyncio.to_thread(open_journal, path)


def notes_of(journal):
    return {name: text for name, text in journal.notes().items() if name != "log"}


async def test_a_note_is_committed_with_its_entry_and_taken_away_with_another(journal, path):
    await journal.append(event(1), None, {"lockdown": "on", "mode:x": "blocked"})
    await journal.append(event(2), None, {"mode:x": None, "mode:y": "blocked", "never": None})
    await journal.append(event(3), None, {"mode:y": "other"})
    again = await reopened(journal, path)
    assert notes_of(again) == {"lockdown": "on", "mode:y": "other"}
    again.close()


async def test_an_entry_that_is_refused_leaves_no_note(journal, path):
    await spend(journal, 1, notes={"kept": "yes"})
    outcomes = await asyncio.gather(
        spend(journal, 1, notes={"spent twice": "on"}),
        spend(journal, 2, again=lambda: Code.LATE, notes={"late": "on", "kept": None}),
        journal.append(event(3), {"name": object()}, {"no json": "on", "kept": None}),
        return_exceptions=True,
    )
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
    again = await reopened(journal, path)
    assert notes_of(again) == {"kept": "yes"}
    again.close()


async def test_a_commit_that_fails_leaves_no_note(journal, path):
    Watched(journal, lambda sql: sqlite3.OperationalError("full") if sql == "COMMIT" else None)
    with pytest.raises(StoreFailed):
        await journal.append(event(1), None, {"lockdown": "on"})
    again = await reopened(journal, path)
    assert notes_of(again) == {}
    again.close()


async def test_the_end_of_a_release_takes_its_own_note_and_not_that_of_a_later_one(journal, path):
    one, other = event(1).spend_id, event(2).spend_id
    await spend(journal, 1, notes=noted_release(DOOR, one))
    await spend(journal, 2, notes=noted_release(DOOR, other))
    await spend(journal, 3, notes=noted_release(OTHER_DOOR, one))
    await journal.release_ended(DOOR, [one])
    await journal.release_ended(OTHER_DOOR, [one])
    again = await reopened(journal, path)
    assert notes_of(again) == noted_release(DOOR, other)
    again.close()


# ---- time: the newest of any entry, for the clock rule of protocol A.2 ----


def at(seconds, outcome=EventName.DOOR_OPENED):
    return AccessEvent(outcome=outcome, door=DOOR, at=float(seconds))


@pytest.mark.parametrize(
    "times, newest, why",
    [
        ([], 0, "nothing has happened yet"),
        ([1000], 1000, "one entry"),
        ([1000, 2000], 2000, "the clock goes on"),
        ([2000, 1000], 2000, "a clock that went back makes nothing older"),
        ([2000, 1000, 1500], 2000, "and goes on from there"),
        ([2000, 1000, 3000], 3000, "until it is later than ever"),
        ([3000, 1000, 2000, 500], 3000, "going back twice"),
        ([1000, 2000, 1000, 2500, 1000], 2500, "and again, after it was right"),
        ([2000, 1999.5], 2000, "a moment is no step: who waited for a turn began earlier"),
    ],
)
async def test_the_newest_time_survives_a_restart_also_if_the_clock_went_back(journal, path, times, newest, why):
    for each in times:
        await journal.append(at(each))
    assert journal.newest == newest
    again = await reopened(journal, path)
    assert again.newest == pytest.approx(newest, abs=NOTED_BACK)
    again.close()


async def test_a_clock_that_is_confirmed_is_the_newest_time(journal, path):
    await journal.append(at(5000))
    await journal.append(at(1000))
    await journal.append(at(1100, EventName.CLOCK_CONFIRMED))
    assert journal.newest == 1100
    await journal.append(at(1050))
    again = await reopened(journal, path)
    assert again.newest == 1100
    again.start(lambda _: None)
    await again.append(at(1200))
    assert again.newest == 1200
    await asyncio.to_thread(again.close)


async def test_a_time_that_was_never_committed_is_not_remembered(journal, path):
    await journal.append(at(1000))
    Watched(journal, lambda sql: sqlite3.OperationalError("full") if sql == "COMMIT" else None)
    with pytest.raises(StoreFailed):
        await journal.append(at(9000))
    again = await reopened(journal, path)
    assert again.newest == 1000
    again.close()


# ---- leaves and persons ----


async def test_what_merely_happened_is_a_leaf_with_nobody_in_it(journal, path):
    await journal.append(at(1000, EventName.DOOR_FORCED_OPEN))
    await asyncio.to_thread(journal.close)
    ((raw,),) = read_journal(path, "SELECT bytes FROM leaf")
    assert json.loads(raw) == {
        "seq": 1,
        "t": 1000.0,
        "door": DOOR,
        "kind": "door_forced_open",
        "code": None,
        "means": None,
        "kid": None,
        "spend_id": None,
        "commit": None,
    }


async def test_a_leaf_is_compact_sorted_json_without_a_word_about_a_person(journal, path):
    await spend(journal, 7)
    await asyncio.to_thread(journal.close)
    ((raw,),) = read_journal(path, "SELECT bytes FROM leaf")
    ((seq, salt, text),) = read_journal(path, "SELECT seq, salt, json FROM person")
    leaf = json.loads(raw)
    assert raw == json.dumps(leaf, sort_keys=True, separators=(",", ":")).encode()
    assert leaf == {
        "seq": 1,
        "t": 1_790_000_000.123,
        "door": DOOR,
        "kind": "access_granted",
        "code": "GRANTED",
        "means": "token",
        "kid": "k" * 43,
        "spend_id": (7).to_bytes(16).hex(),
        "commit": hashlib.sha256(salt + text.encode()).hexdigest(),
    }
    assert (seq, len(salt), json.loads(text)) == (1, 16, PERSON)
    for secret in (*PERSON.values(), "jti-7", "nonce-7"):
        assert secret.encode() not in raw


async def test_two_persons_with_the_same_words_have_different_commitments(journal, path):
    await spend(journal, 1)
    await spend(journal, 2)
    await journal.append(event(3))
    await asyncio.to_thread(journal.close)
    commits = [json.loads(raw)["commit"] for (raw,) in read_journal(path, "SELECT bytes FROM leaf")]
    assert commits[0] != commits[1]
    assert commits[2] is None


async def test_sequence_numbers_go_on_after_a_restart(journal, path):
    assert [(await journal.append(event(n))).sequence for n in range(3)] == [1, 2, 3]
    assert journal.sequence == 3
    await asyncio.to_thread(journal.close)
    again = open_journal(path)
    again.start(lambda _: None)
    assert (await again.append(event())).sequence == 4
    await asyncio.to_thread(again.close)


# ---- groups ----


async def test_all_that_waits_is_one_commit(journal):
    watched = Watched(journal)
    recorded = await asyncio.gather(*(spend(journal, number) for number in range(200)))
    commits = watched.statements.count("COMMIT")
    assert commits <= 20, f"{commits} commits for 200 spends"
    assert watched.statements.count("SAVEPOINT entry") == 200
    assert sorted(event.sequence for event in recorded) == list(range(1, 201))


async def test_everything_committed_is_told_once_and_in_order(journal):
    await asyncio.gather(*(spend(journal, number) for number in range(50)), journal.append(event(99)))
    assert [told.sequence for told in journal.told] == list(range(1, 52))


async def test_a_bad_entry_harms_no_neighbour(journal, path):
    """Refused, already spent, or nothing that JSON can hold: each leaves without a trace, and without a gap."""
    await spend(journal, 0)
    outcomes = await asyncio.gather(
        spend(journal, 1),
        spend(journal, 0),
        journal.append(event(5), {"name": object()}),
        spend(journal, 2, again=lambda: Code.LATE),
        spend(journal, 3, again=lambda: 1 // 0),
        spend(journal, 4),
        return_exceptions=True,
    )
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "AccessEvent", "Refused", "TypeError", "Refused", "ZeroDivisionError", "AccessEvent",
    ]  # fmt: skip
    assert not journal.failed
    await asyncio.to_thread(journal.close)
    assert read_journal(path, "SELECT jti FROM spent ORDER BY rowid") == [("jti-0",), ("jti-1",), ("jti-4",)]
    assert read_journal(path, "SELECT seq FROM leaf") == [(1,), (2,), (3,)]
    assert read_journal(path, "SELECT seq FROM person") == [(1,), (2,), (3,)]


async def test_a_caller_that_has_gone_leaves_its_entry(journal):
    task = journal.append(event(1))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await journal.append(event(2))).sequence == 2
    assert [told.sequence for told in journal.told] == [1, 2]


async def test_what_waits_at_the_end_is_written(journal, path):
    tasks = [journal.append(event(number)) for number in range(10)]
    await asyncio.sleep(0)
    await asyncio.to_thread(journal.close)
    await asyncio.gather(*tasks)
    assert read_journal(path, "SELECT count(*) FROM leaf") == [(10,)]
    journal.close()  # a second time is nothing
    with pytest.raises(StoreFailed):
        await journal.append(event(11))


async def test_what_comes_in_while_the_writer_ends_is_answered(journal, path):
    join, late = journal._thread.join, asyncio.get_running_loop().create_future()

    def end():
        join()
        journal._waiting.put(journal_module._Item(lambda writer: writer.append(event(9), None, {}), late, WRITES))
        journal._waiting.put(None)

    journal._thread.join = end
    await asyncio.to_thread(journal.close)
    with pytest.raises(StoreFailed):
        await late
    assert read_journal(path, "SELECT count(*) FROM leaf") == [(0,)]


async def test_the_log_is_copied_back_when_it_has_been_quiet_for_a_while(journal, path, monkeypatch):
    monkeypatch.setattr(journal_module, "CHECKPOINT_PAGES", 5)
    copied = threading.Event()
    watched = Watched(journal, lambda sql: copied.set() if sql.startswith("INSERT OR REPLACE INTO meta") else None)
    for number in range(5):
        await spend(journal, number)
    assert not any("wal_checkpoint" in sql for sql in watched.statements), "not between two unlocks"
    assert await asyncio.to_thread(copied.wait, 5)
    assert path.with_name("journal.db-wal").stat().st_size < 5 * 4096


async def test_a_log_that_never_rests_is_copied_back_all_the_same(journal, monkeypatch):
    monkeypatch.setattr(journal_module, "CHECKPOINT_PAGES", 5)
    monkeypatch.setattr(journal_module, "MOST_PAGES", 10)
    monkeypatch.setattr(journal_module, "QUIET", 60)
    watched = Watched(journal)
    for number in range(10):
        await spend(journal, number)
    assert any("wal_checkpoint" in sql for sql in watched.statements)


# ---- reading while it is written to ----


@contextmanager
def writer_at_rest(journal):
    """Keep the writer from its work, so that a test says what waits together."""
    go_on = threading.Event()
    journal._submit(lambda _: go_on.wait(10) and None)
    try:
        yield
    finally:
        go_on.set()


async def test_who_reads_sees_no_entry_before_it_is_committed_and_signed(journal):
    """Under load a verification said that the newest entries were not signed: they were, a moment later."""
    await journal.append(event(1))
    with writer_at_rest(journal):
        written, reading = journal.append(event(2)), journal.run(0)
        later, again = journal.append(event(3)), journal.run(0)
    for run in (await reading, await again):
        assert run.checkpoints[-1].size == run.last
    assert [(await one).sequence for one in (written, later)] == [2, 3]
    assert not journal._writer.db.in_transaction


async def test_nobody_at_a_door_waits_for_more_than_one_reader(journal):
    done = []
    with writer_at_rest(journal):
        for reader in range(4):
            journal._read(lambda _, reader=reader: done.append(reader))
        journal._submit(lambda _: done.append("written"))
        last = journal._read(lambda _: done.append(4))
    await last
    assert done == ["written", 0, 1, 2, 3, 4]
    with writer_at_rest(journal):
        submitted = threading.Event()

        def write():
            journal._submit(lambda _: done.append("written"))
            submitted.set()

        # It comes while the first one reads.
        first = journal._read(lambda _: journal._loop.call_soon_threadsafe(write) and submitted.wait(10))
        last = journal._read(lambda _: done.append(5))
    await asyncio.gather(first, last)
    assert done[-2:] == ["written", 5]


async def test_who_waits_to_read_at_the_end_is_answered(journal):
    with writer_at_rest(journal):
        reading = [journal.header() for _ in range(3)]
        closing = asyncio.create_task(asyncio.to_thread(journal.close))
        await asyncio.sleep(0.05)
    assert [header.size for header in await asyncio.gather(*reading)] == [0, 0, 0]
    await closing


async def damaged(path, what, monkeypatch):
    """Make a journal in which the person of entry 5, or a page full of old ones, is damaged; return it open."""
    monkeypatch.setattr(writer_module, "SPARSE", 50)  # a start looks at what follows the last anchor only
    journal = await asyncio.to_thread(open_journal, path)
    journal.start(lambda _: None)
    for number in range(401):
        last = journal.append(at(number), {"user_id": f"u{number}", "user": f"Secretname {number}"})
        if number % 40 == 0:
            await last
    await asyncio.to_thread(journal.close)
    db = sqlite3.connect(path)
    if what == "text":
        db.execute("UPDATE person SET json = CAST(x'ff' || json AS TEXT) WHERE seq = 5")
    else:
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'person'").fetchone()
    db.commit()
    db.close()
    if what == "page":
        with path.open("r+b") as file:
            file.seek((page - 1) * 4096)
            root = file.read(4096)
            first = int.from_bytes(root[(cell := int.from_bytes(root[12:14])) : cell + 4])  # its first child
            file.seek((first - 1) * 4096)
            file.write(b"\xee" * 4096)
    journal = await asyncio.to_thread(open_journal, path)
    journal.told = []
    journal.start(journal.told.append)
    return journal


READERS = {
    "verify": lambda journal: asyncio.to_thread(lambda: list(journal.runs(Header((), Tree(), None, 0)))),
    "run": lambda journal: journal.run(4),
    "subject": lambda journal: journal.subject(5),
    "show": lambda journal: journal.newest_entries(None, 1000),
    "about": lambda journal: journal.about(Subject("u4", None, None)),
}


@pytest.mark.parametrize("what", ["text", "page"])
async def test_damage_among_old_entries_is_said_to_who_reads_and_shuts_no_door(path, what, monkeypatch, caplog):
    """One request for it closed the store, refused every token from then on, and logged what the person's part said."""
    journal = await damaged(path, what, monkeypatch)
    for name, reading in READERS.items():
        if what == "text" and name in {"about", "subject"}:
            assert not await reading(journal), "nobody can say whom that text is about"
            continue
        with pytest.raises(Broken) as broken:
            await reading(journal)
        assert "Secretname" not in repr(traceback.format_exception(broken.value))
        assert (await journal.append(event())).outcome is EventName.ACCESS_GRANTED
    header = await journal.header()
    assert (header.base.size, header.flaw) == (0, None), "what is to be known before the first entry can be read"
    assert not journal.failed
    assert "Secretname" not in caplog.text
    if what == "text":
        run = await journal.run(0)
        assert (run.last, len(run.persons)) == (4, 4), "what comes before it is read"
        with pytest.raises(Broken) as broken:
            await journal.run(4)
        assert broken.value.after == 4
    await asyncio.to_thread(journal.close)


async def test_what_has_had_its_time_on_a_damaged_page_stays_and_shuts_no_door(path, monkeypatch):
    journal = await damaged(path, "page", monkeypatch)
    with pytest.raises(Broken):
        await journal.retain(Due(1000.0, 0, 0))
    assert (await journal.append(event())).sequence == 402
    await asyncio.to_thread(journal.close)
    journal = await asyncio.to_thread(open_journal, path)
    with pytest.raises(JournalDamaged):
        journal.retain_now(Due(1000.0, 0, 0))
    journal.close()


async def test_a_disk_that_fails_while_somebody_reads_has_not_failed_the_store(journal):
    """Whether it takes what happens, the next COMMIT says."""
    await journal.append(event())
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    watched = Watched(journal, lambda sql: error if sql.startswith("SELECT bytes") else None)
    with pytest.raises(StoreFailed, match="I/O"):
        await journal.run(0)
    journal._writer.db = watched._db
    assert not journal.failed
    assert (await journal.append(event())).sequence == 2


async def test_an_error_of_the_store_is_logged_without_the_text_that_could_not_be_read(journal, caplog):
    decoding = sqlite3.OperationalError("Could not decode to UTF-8 column 'json' with text 'Secretname'")
    Watched(journal, lambda sql: decoding if sql == "COMMIT" else None)
    with pytest.raises(StoreFailed) as failed:
        await journal.append(event())
    await asyncio.to_thread(journal.close)
    assert "Secretname" not in f"{caplog.text} {traceback.format_exception(failed.value)}"
    assert "not UTF-8" in caplog.text


async def test_who_reads_on_after_old_entries_were_dropped_is_told_to_begin_again(journal):
    for number in range(6):
        await journal.append(at(number))
    header = await journal.header()
    reading = journal.runs(header)
    while await journal.retain(Due(-1, 4, -1)):
        pass
    with pytest.raises(JournalMoved) as moved:
        await asyncio.to_thread(list, reading)
    assert moved.value.temporary
    header = await journal.header()
    assert header.base.size == 4
    assert [run.first for run in await asyncio.to_thread(list, journal.runs(header))] == [5]


async def test_a_person_of_whom_too_much_is_said_harms_no_neighbour(journal):
    """It could be written, but never be read or exported again."""
    outcomes = await asyncio.gather(
        journal.append(event(1), {"user": "x" * MAX_PERSON}), journal.append(event(2)), return_exceptions=True
    )
    assert [type(outcome).__name__ for outcome in outcomes] == ["ValueError", "AccessEvent"]


@pytest.mark.parametrize("length", [LONGEST_VALUE + 1, LONGEST, 10 * LONGEST])
async def test_an_entry_that_is_too_long_for_a_row_harms_no_neighbour(journal, length):
    """SQLite would fail the whole commit, and the store would be closed for good."""
    outcomes = await asyncio.gather(
        journal.append(replace(event(1), code="x" * length)), journal.append(event(2)), return_exceptions=True
    )
    assert [type(outcome).__name__ for outcome in outcomes] == ["ValueError", "AccessEvent"]
    assert outcomes[-1].sequence == 1


LONG = st.tuples(st.sampled_from(["x", "é", "\N{DOOR}", '"\n']), st.integers(0, 3 * LONGEST)).map(
    lambda of: of[0] * (of[1] // len(of[0]))
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["books:a", "books:ab", "books:a:b"]), LONG | st.none()), max_size=6))
async def test_notes_of_any_length_are_kept_as_they_were_written_last(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("notes") / "journal.db"
    for name, text in written:
        journal = open_journal(path)
        journal.start(lambda _: None)
        await journal.note({name: "soon replaced" * 10_000})
        await journal.note({name: text})
        journal.close()
    journal = open_journal(path)
    assert journal.notes() == {name: text for name, text in dict(written).items() if text is not None}
    journal.close()


async def test_a_long_note_that_is_not_committed_leaves_the_one_before_whole(journal, path):
    old = "old" * LONGEST
    await journal.note({"books": old})
    short = journal._submit(lambda writer: [writer.note({"books": "short"}), 1 / 0])
    with pytest.raises(ZeroDivisionError):
        await short
    await journal.note({"others": "o"})
    journal.close()
    again = open_journal(path)
    assert again.notes() == {"books": old, "others": "o"}
    again.close()


# ---- a store that fails ----


@pytest.mark.parametrize(
    "statement", ["BEGIN", "SAVEPOINT", "INSERT INTO spent", "INSERT INTO leaf", "RELEASE", "COMMIT"]
)
async def test_any_failure_of_the_store_closes_it_for_good(journal, path, statement, caplog):
    await spend(journal, 0)
    watched = Watched(
        journal, lambda sql: sqlite3.OperationalError("disk I/O error") if sql.startswith(statement) else None
    )
    with caplog.at_level(logging.CRITICAL):
        with pytest.raises(StoreFailed):
            await spend(journal, 1)
        seen = len(watched.statements)
        for number in (1, 2):
            with pytest.raises(StoreFailed):
                await spend(journal, number)
        with pytest.raises(StoreFailed):
            await journal.append(event(3))
    assert journal.failed
    assert len(watched.statements) == seen, "nothing was tried again"
    assert [told.sequence for told in journal.told] == [1]
    await asyncio.to_thread(journal.close)
    assert read_journal(path, "SELECT jti FROM spent") == [("jti-0",)]


async def test_neighbours_of_a_failed_commit_all_fail(journal):
    Watched(journal, lambda sql: sqlite3.OperationalError("full") if sql == "COMMIT" else None)
    outcomes = await asyncio.gather(*(spend(journal, number) for number in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreFailed}
    assert journal.told == []


async def test_a_file_that_cannot_be_read_any_more_is_said_so(journal, path, monkeypatch, caplog):
    Watched(journal, lambda sql: sqlite3.OperationalError("full") if sql == "COMMIT" else None)

    def unreadable(*_, **__):
        raise sqlite3.OperationalError("unable to open")

    monkeypatch.setattr(sqlite3, "connect", unreadable)
    with pytest.raises(StoreFailed):
        await spend(journal, 1)
    await asyncio.to_thread(journal.close)
    assert "cannot be read" in caplog.text


async def test_a_dying_disk_does_not_end_the_writer(journal, monkeypatch):
    """Whatever the system says, everybody who asks gets an answer."""
    await journal.append(event(1))

    def dying(*_, **__):
        raise PermissionError("stale file handle")

    monkeypatch.setattr(type(journal._path), "stat", dying)
    assert (await journal.append(event(2))).sequence == 2
    monkeypatch.setattr(journal._writer, "append", dying)
    with pytest.raises(PermissionError):
        await journal.append(event(3))
    monkeypatch.undo()
    assert (await journal.append(event(4))).sequence == 3


async def test_a_writer_that_meets_a_bug_tells_everybody_and_takes_nothing_more(journal, monkeypatch):
    monkeypatch.setattr(journal, "_in_savepoint", lambda _: 1 / 0)
    with pytest.raises(StoreFailed, match="division"):
        await journal.append(event(1))
    monkeypatch.undo()
    with pytest.raises(StoreFailed):
        await journal.append(event(2))


# ---- copying the log back ----


async def test_a_long_log_is_copied_back(journal, path, monkeypatch):
    monkeypatch.setattr(journal_module, "CHECKPOINT_PAGES", 10)
    watched = Watched(journal)
    for number in range(20):
        await spend(journal, number)
    log = path.with_name("journal.db-wal")
    async with asyncio.timeout(10):
        while log.stat().st_size >= 10 * 4096:  # noqa: ASYNC110 - in the writer's thread, when nothing waits
            await asyncio.sleep(0.001)
    assert any("wal_checkpoint" in statement for statement in watched.statements)
    await asyncio.to_thread(journal.close)
    assert read_journal(path, "SELECT count(*) FROM spent") == [(20,)]


async def test_a_copy_that_fails_closes_the_store(journal, monkeypatch):
    monkeypatch.setattr(journal_module, "CHECKPOINT_PAGES", 1)
    Watched(journal, lambda sql: sqlite3.OperationalError("disk I/O error") if "wal_checkpoint" in sql else None)
    await spend(journal, 1)
    while not journal.failed:  # noqa: ASYNC110 - the copy is made in the writer's thread, when nothing waits
        await asyncio.sleep(0.001)
    with pytest.raises(StoreFailed):
        await spend(journal, 2)


async def test_a_log_that_is_not_there_has_no_pages(tmp_path):
    assert schema.log_pages(tmp_path / "journal.db") == 0


async def test_entries_outlive_the_loop_that_asked_for_them(path):
    """The program ends in the middle: what was submitted is written, though nobody is left to be told."""
    journal = await asyncio.to_thread(open_journal, path)

    def run():
        async def submit():
            journal.start(lambda _: None)
            task = journal.append(event())
            await asyncio.sleep(0)
            task.cancel()

        asyncio.run(submit())

    blocked = journal._commit

    def after_the_loop(group):
        thread_done.wait(5)
        blocked(group)

    import threading

    thread_done = threading.Event()
    journal._commit = after_the_loop
    await asyncio.to_thread(run)
    thread_done.set()
    await asyncio.to_thread(journal.close)
    assert read_journal(path, "SELECT count(*) FROM leaf") == [(1,)]


# ---- what was accepted, for reconciliation ----


async def test_what_was_accepted_is_read_once_and_in_order(journal):
    for number in range(5):
        one = replace(spend_of(number), issued_at=1_790_000_000 + number)
        await journal.spend(one, event(number), PERSON, check_again=lambda: None, spent=lambda: None, notes={})
    other = Spend(issuer("https://other.example"), "jti-9", DOOR, "nonce-9", 7)
    await journal.spend(other, event(9), PERSON, check_again=lambda: None, spent=lambda: None, notes={})
    first = await journal.accepted(ISSUER, 0, most=3)
    assert [(each.jti, each.issued_at) for each in first.spends] == [
        (f"jti-{number}", 1_790_000_000 + number) for number in range(3)
    ]
    rest = await journal.accepted(ISSUER, first.upto)
    assert [each.jti for each in rest.spends] == ["jti-3", "jti-4"]
    assert await journal.accepted(ISSUER, rest.upto) == Acceptances(rest.upto, ())


async def test_how_far_the_journal_is_takes_no_reading_of_what_was_accepted(journal):
    assert await journal.accepted_upto() == 0
    for number in range(3):
        await spend(journal, number)
    assert await journal.accepted_upto() == (await journal.accepted(ISSUER, 0)).upto == 3


async def test_a_journal_that_was_replaced_by_an_older_one_is_read_again(journal):
    await spend(journal, 1)
    again = await journal.accepted(ISSUER, 1000)
    assert [each.jti for each in again.spends] == ["jti-1"]
    assert again.upto == 1
