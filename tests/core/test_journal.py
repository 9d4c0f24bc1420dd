"""The journal: what is written is durable, told once, in order; what is not writable is never pretended. Protocol D."""

import asyncio
import hashlib
import json
import logging
import sqlite3
import stat
import threading

import pytest

from tests.simulated import open_journal, read_journal, some_doors
from vestibule_core import journal as journal_module
from vestibule_core import schema
from vestibule_core.errors import JournalDamaged, JournalInUse, JournalTooNew, Refused, StoreFailed
from vestibule_core.journal import Accepted, Spend, SpentState
from vestibule_core.model import AccessEvent, Code, EventName, Means, issuer
from vestibule_core.schema import SCHEMA_VERSION
from vestibule_core.writer import NOTED_BACK, noted_release

DOOR, OTHER_DOOR = (door.id for door in some_doors(2))
ISSUER = issuer("https://parcels.example")
PERSON = {"sub": "driver-4711", "stp": "stop-815", "token": "aaa.bbb.ccc"}


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


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
async def opened(path):
    """An open journal and the events that it told."""
    journal = await asyncio.to_thread(open_journal, path)
    journal.told = []
    journal.start(journal.told.append)
    yield journal
    await asyncio.to_thread(journal.close)


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


async def test_a_new_journal_is_readable_by_its_owner_only(opened, path):
    await opened.append(event())
    for file in (path, path.with_name("journal.db-wal")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def test_the_schema_is_that_of_the_protocol(opened, path):
    await asyncio.to_thread(opened.close)
    assert read_journal(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert read_journal(path, "PRAGMA application_id") == [(0x76737462,)]
    assert read_journal(path, "PRAGMA journal_mode") == [("wal",)]
    tables = read_journal(path, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    assert [name for (name,) in tables] == ["checkpoint", "leaf", "meta", "person", "spent"]
    columns = {table: [row[1] for row in read_journal(path, f"PRAGMA table_info({table})")] for (table,) in tables}
    assert columns == {
        "spent": ["iss", "jti", "door", "non", "at", "state"],
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


async def test_a_second_process_gets_no_journal(opened, path, processes):
    await opened.append(event())
    assert processes.run("open_another_journal", path=path)["opened"] == "JournalInUse"


async def test_a_second_process_gets_no_journal_after_this_one_was_read_for_a_backup(opened, path, processes):
    """Closing any file that is the database drops SQLite's own locks of the whole process."""
    await opened.append(event())
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


async def test_nor_does_a_second_controller_of_the_same_process(opened, path):
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


def test_a_migration_that_fails_leaves_the_older_journal(path, monkeypatch):
    open_journal(path).close()
    newer = (*schema._MIGRATIONS, ("CREATE TABLE extra(a)", "CREATE TABLE spent(a)"))
    monkeypatch.setattr(schema, "_MIGRATIONS", newer)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", len(newer))
    with pytest.raises(StoreFailed):
        open_journal(path)
    monkeypatch.undo()
    assert read_journal(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert read_journal(path, "SELECT * FROM sqlite_schema WHERE name = 'extra'") == []
    open_journal(path).close()


# ---- spending ----


async def test_a_token_is_spent_once(opened, path):
    recorded = await spend(opened, 1)
    assert recorded.sequence == 1
    with pytest.raises(Refused) as refused:
        await spend(opened, 1, nonce="another")
    assert refused.value.code is Code.ALREADY_SPENT
    await asyncio.to_thread(opened.close)
    assert read_journal(path, "SELECT iss, jti, door, non, state FROM spent") == [
        (ISSUER, "jti-1", DOOR, "nonce-1", "SPENT")
    ]


async def test_a_challenge_is_used_once(opened):
    """UNIQUE(door, non): two valid tokens on one challenge are one access (attack 26)."""
    await spend(opened, 1, nonce="n")
    with pytest.raises(Refused) as refused:
        await spend(opened, 2, nonce="n")
    assert refused.value.code is Code.ALREADY_SPENT
    await spend(opened, 3, nonce="n", door=OTHER_DOOR)


async def test_what_does_not_stand_any_more_is_not_spent(opened, path):
    with pytest.raises(Refused) as refused:
        await spend(opened, 1, again=lambda: Code.KEY_REVOKED)
    assert refused.value.code is Code.KEY_REVOKED
    await asyncio.to_thread(opened.close)
    assert read_journal(path, "SELECT count(*) FROM spent") == [(0,)]
    assert read_journal(path, "SELECT count(*) FROM leaf") == [(0,)]


async def test_the_last_check_runs_inside_the_transaction(opened):
    seen = []
    await spend(opened, 1, again=lambda: seen.append(opened._writer.db.in_transaction))
    assert seen == [True]


async def test_an_outcome_settles_its_spend(opened, path):
    for number, state in enumerate((SpentState.GRANTED, SpentState.FAILED, SpentState.UNKNOWN)):
        await spend(opened, number)
        await opened.settle(spend_of(number), state, event(number, EventName.DOOR_RELEASED))
    await asyncio.to_thread(opened.close)
    assert [row[0] for row in read_journal(path, "SELECT state FROM spent ORDER BY rowid")] == [
        "GRANTED",
        "FAILED",
        "UNKNOWN",
    ]


async def test_what_was_left_unfinished_is_found_at_the_next_start(opened, path):
    await spend(opened, 1, notes=noted_release(DOOR, event(1).spend_id))
    await spend(opened, 2)
    await opened.settle(spend_of(2), SpentState.GRANTED, event(2))
    await opened.append(event(3), notes=noted_release(OTHER_DOOR, event(3).spend_id))
    await asyncio.to_thread(opened.close)
    again = open_journal(path)
    try:
        assert again.unsettled() == [spend_of(1)]
        assert again.recent_spends(10) == [Accepted(spend_of(1), event(1).at), Accepted(spend_of(2), event(2).at)]
        notes = again.notes()
        assert noted_release(DOOR, event(1).spend_id).items() <= notes.items()
        assert noted_release(OTHER_DOOR, event(3).spend_id).items() <= notes.items()
    finally:
        again.close()


async def test_the_newest_spends_are_remembered_oldest_first(opened, path):
    for number in range(5):
        await spend(opened, number)
    await asyncio.to_thread(opened.close)
    again = open_journal(path)
    assert [accepted.spend for accepted in again.recent_spends(2)] == [spend_of(3), spend_of(4)]
    again.close()


def test_nothing_can_be_written_before_the_start(path):
    journal = open_journal(path)
    with pytest.raises(RuntimeError):
        journal.append(event())
    journal.close()


async def test_what_counts_a_spend_runs_where_it_is_written(opened):
    """So that the next token of the same commit sees it: a rate of one is one, also for 50 at once (attack 39)."""
    accepted = []

    def check_again():
        return Code.POLICY_RATE if accepted else None

    outcomes = await asyncio.gather(
        *(spend(opened, number, again=check_again, spent=lambda: accepted.append(1)) for number in range(50)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes].count(AccessEvent) == len(accepted) == 1
    assert {outcome.code for outcome in outcomes} == {Code.GRANTED, Code.POLICY_RATE}


async def test_what_is_not_spent_is_not_counted(opened):
    counted = []
    await spend(opened, 1)
    for kind in ({}, {"again": lambda: Code.LATE}):
        with pytest.raises(Refused):
            await spend(opened, 1, spent=lambda: counted.append(1), **kind)
    assert counted == []


# ---- notes: what has to be known after a restart ----


async def reopened(opened, path):
    await asyncio.to_thread(opened.close)
    return await asyncio.to_thread(open_journal, path)


def notes_of(journal):
    return {name: text for name, text in journal.notes().items() if name != "log"}


async def test_a_note_is_committed_with_its_entry_and_taken_away_with_another(opened, path):
    await opened.append(event(1), None, {"lockdown": "on", "mode:x": "blocked"})
    await opened.append(event(2), None, {"mode:x": None, "mode:y": "blocked", "never": None})
    await opened.append(event(3), None, {"mode:y": "other"})
    again = await reopened(opened, path)
    assert notes_of(again) == {"lockdown": "on", "mode:y": "other"}
    again.close()


async def test_an_entry_that_is_refused_leaves_no_note(opened, path):
    await spend(opened, 1, notes={"kept": "yes"})
    outcomes = await asyncio.gather(
        spend(opened, 1, notes={"spent twice": "on"}),
        spend(opened, 2, again=lambda: Code.LATE, notes={"late": "on", "kept": None}),
        opened.append(event(3), {"name": object()}, {"no json": "on", "kept": None}),
        return_exceptions=True,
    )
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
    again = await reopened(opened, path)
    assert notes_of(again) == {"kept": "yes"}
    again.close()


async def test_a_commit_that_fails_leaves_no_note(opened, path):
    Watched(opened, lambda sql: sqlite3.OperationalError("full") if sql == "COMMIT" else None)
    with pytest.raises(StoreFailed):
        await opened.append(event(1), None, {"lockdown": "on"})
    again = await reopened(opened, path)
    assert notes_of(again) == {}
    again.close()


async def test_the_end_of_a_release_takes_its_own_note_and_not_that_of_a_later_one(opened, path):
    one, other = event(1).spend_id, event(2).spend_id
    await spend(opened, 1, notes=noted_release(DOOR, one))
    await spend(opened, 2, notes=noted_release(DOOR, other))
    await spend(opened, 3, notes=noted_release(OTHER_DOOR, one))
    await opened.release_ended(DOOR, [one])
    await opened.release_ended(OTHER_DOOR, [one])
    again = await reopened(opened, path)
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
async def test_the_newest_time_survives_a_restart_also_if_the_clock_went_back(opened, path, times, newest, why):
    for each in times:
        await opened.append(at(each))
    assert opened.newest == newest
    again = await reopened(opened, path)
    assert again.newest == pytest.approx(newest, abs=NOTED_BACK)
    again.close()


async def test_a_clock_that_is_confirmed_is_the_newest_time(opened, path):
    await opened.append(at(5000))
    await opened.append(at(1000))
    await opened.append(at(1100, EventName.CLOCK_CONFIRMED))
    assert opened.newest == 1100
    await opened.append(at(1050))
    again = await reopened(opened, path)
    assert again.newest == 1100
    again.start(lambda _: None)
    await again.append(at(1200))
    assert again.newest == 1200
    await asyncio.to_thread(again.close)


async def test_a_time_that_was_never_committed_is_not_remembered(opened, path):
    await opened.append(at(1000))
    Watched(opened, lambda sql: sqlite3.OperationalError("full") if sql == "COMMIT" else None)
    with pytest.raises(StoreFailed):
        await opened.append(at(9000))
    again = await reopened(opened, path)
    assert again.newest == 1000
    again.close()


# ---- leaves and persons ----


async def test_what_merely_happened_is_a_leaf_with_nobody_in_it(opened, path):
    await opened.append(at(1000, EventName.DOOR_FORCED_OPEN))
    await asyncio.to_thread(opened.close)
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


async def test_a_leaf_is_compact_sorted_json_without_a_word_about_a_person(opened, path):
    await spend(opened, 7)
    await asyncio.to_thread(opened.close)
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


async def test_two_persons_with_the_same_words_have_different_commitments(opened, path):
    await spend(opened, 1)
    await spend(opened, 2)
    await opened.append(event(3))
    await asyncio.to_thread(opened.close)
    commits = [json.loads(raw)["commit"] for (raw,) in read_journal(path, "SELECT bytes FROM leaf")]
    assert commits[0] != commits[1]
    assert commits[2] is None


async def test_sequence_numbers_go_on_after_a_restart(opened, path):
    assert [(await opened.append(event(n))).sequence for n in range(3)] == [1, 2, 3]
    assert opened.sequence == 3
    await asyncio.to_thread(opened.close)
    again = open_journal(path)
    again.start(lambda _: None)
    assert (await again.append(event())).sequence == 4
    await asyncio.to_thread(again.close)


# ---- groups ----


async def test_all_that_waits_is_one_commit(opened):
    watched = Watched(opened)
    recorded = await asyncio.gather(*(spend(opened, number) for number in range(200)))
    commits = watched.statements.count("COMMIT")
    assert commits <= 20, f"{commits} commits for 200 spends"
    assert watched.statements.count("SAVEPOINT entry") == 200
    assert sorted(event.sequence for event in recorded) == list(range(1, 201))


async def test_everything_committed_is_told_once_and_in_order(opened):
    await asyncio.gather(*(spend(opened, number) for number in range(50)), opened.append(event(99)))
    assert [told.sequence for told in opened.told] == list(range(1, 52))


async def test_a_bad_entry_harms_no_neighbour(opened, path):
    """Refused, already spent, or nothing that JSON can hold: each leaves without a trace, and without a gap."""
    await spend(opened, 0)
    outcomes = await asyncio.gather(
        spend(opened, 1),
        spend(opened, 0),
        opened.append(event(5), {"name": object()}),
        spend(opened, 2, again=lambda: Code.LATE),
        spend(opened, 3, again=lambda: 1 // 0),
        spend(opened, 4),
        return_exceptions=True,
    )
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "AccessEvent", "Refused", "TypeError", "Refused", "ZeroDivisionError", "AccessEvent",
    ]  # fmt: skip
    assert not opened.failed
    await asyncio.to_thread(opened.close)
    assert read_journal(path, "SELECT jti FROM spent ORDER BY rowid") == [("jti-0",), ("jti-1",), ("jti-4",)]
    assert read_journal(path, "SELECT seq FROM leaf") == [(1,), (2,), (3,)]
    assert read_journal(path, "SELECT seq FROM person") == [(1,), (2,), (3,)]


async def test_a_caller_that_has_gone_leaves_its_entry(opened):
    task = opened.append(event(1))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await opened.append(event(2))).sequence == 2
    assert [told.sequence for told in opened.told] == [1, 2]


async def test_what_waits_at_the_end_is_written(opened, path):
    tasks = [opened.append(event(number)) for number in range(10)]
    await asyncio.sleep(0)
    await asyncio.to_thread(opened.close)
    await asyncio.gather(*tasks)
    assert read_journal(path, "SELECT count(*) FROM leaf") == [(10,)]
    opened.close()  # a second time is nothing
    with pytest.raises(StoreFailed):
        await opened.append(event(11))


async def test_what_comes_in_while_the_writer_ends_is_answered(opened, path):
    join, late = opened._thread.join, asyncio.get_running_loop().create_future()

    def end():
        join()
        opened._waiting.put(journal_module._Item(lambda writer: writer.append(event(9), None, {}), late, False))
        opened._waiting.put(None)

    opened._thread.join = end
    await asyncio.to_thread(opened.close)
    with pytest.raises(StoreFailed):
        await late
    assert read_journal(path, "SELECT count(*) FROM leaf") == [(0,)]


async def test_the_log_is_copied_back_when_it_has_been_quiet_for_a_while(opened, path, monkeypatch):
    monkeypatch.setattr(journal_module, "CHECKPOINT_PAGES", 5)
    copied = threading.Event()
    watched = Watched(opened, lambda sql: copied.set() if sql.startswith("INSERT OR REPLACE INTO meta") else None)
    for number in range(5):
        await spend(opened, number)
    assert not any("wal_checkpoint" in sql for sql in watched.statements), "not between two unlocks"
    assert await asyncio.to_thread(copied.wait, 5)
    assert path.with_name("journal.db-wal").stat().st_size < 5 * 4096


async def test_a_log_that_never_rests_is_copied_back_all_the_same(opened, monkeypatch):
    monkeypatch.setattr(journal_module, "CHECKPOINT_PAGES", 5)
    monkeypatch.setattr(journal_module, "MOST_PAGES", 10)
    monkeypatch.setattr(journal_module, "QUIET", 60)
    watched = Watched(opened)
    for number in range(10):
        await spend(opened, number)
    assert any("wal_checkpoint" in sql for sql in watched.statements)


# ---- a store that fails ----


@pytest.mark.parametrize(
    "statement", ["BEGIN", "SAVEPOINT", "INSERT INTO spent", "INSERT INTO leaf", "RELEASE", "COMMIT"]
)
async def test_any_failure_of_the_store_closes_it_for_good(opened, path, statement, caplog):
    await spend(opened, 0)
    watched = Watched(
        opened, lambda sql: sqlite3.OperationalError("disk I/O error") if sql.startswith(statement) else None
    )
    with caplog.at_level(logging.CRITICAL):
        with pytest.raises(StoreFailed):
            await spend(opened, 1)
        seen = len(watched.statements)
        for number in (1, 2):
            with pytest.raises(StoreFailed):
                await spend(opened, number)
        with pytest.raises(StoreFailed):
            await opened.append(event(3))
    assert opened.failed
    assert len(watched.statements) == seen, "nothing was tried again"
    assert [told.sequence for told in opened.told] == [1]
    await asyncio.to_thread(opened.close)
    assert read_journal(path, "SELECT jti FROM spent") == [("jti-0",)]


async def test_neighbours_of_a_failed_commit_all_fail(opened):
    Watched(opened, lambda sql: sqlite3.OperationalError("full") if sql == "COMMIT" else None)
    outcomes = await asyncio.gather(*(spend(opened, number) for number in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreFailed}
    assert opened.told == []


async def test_a_file_that_cannot_be_read_any_more_is_said_so(opened, path, monkeypatch, caplog):
    Watched(opened, lambda sql: sqlite3.OperationalError("full") if sql == "COMMIT" else None)

    def unreadable(*_, **__):
        raise sqlite3.OperationalError("unable to open")

    monkeypatch.setattr(sqlite3, "connect", unreadable)
    with pytest.raises(StoreFailed):
        await spend(opened, 1)
    await asyncio.to_thread(opened.close)
    assert "cannot be read" in caplog.text


async def test_a_dying_disk_does_not_end_the_writer(opened, monkeypatch):
    """Whatever the system says, everybody who asks gets an answer."""
    await opened.append(event(1))

    def dying(*_, **__):
        raise PermissionError("stale file handle")

    monkeypatch.setattr(type(opened._path), "stat", dying)
    assert (await opened.append(event(2))).sequence == 2
    monkeypatch.setattr(opened._writer, "append", dying)
    with pytest.raises(PermissionError):
        await opened.append(event(3))
    monkeypatch.undo()
    assert (await opened.append(event(4))).sequence == 3


async def test_a_writer_that_meets_a_bug_tells_everybody_and_takes_nothing_more(opened, monkeypatch):
    monkeypatch.setattr(opened, "_in_savepoint", lambda _: 1 / 0)
    with pytest.raises(StoreFailed, match="division"):
        await opened.append(event(1))
    monkeypatch.undo()
    with pytest.raises(StoreFailed):
        await opened.append(event(2))


# ---- copying the log back ----


async def test_a_long_log_is_copied_back(opened, path, monkeypatch):
    monkeypatch.setattr(journal_module, "CHECKPOINT_PAGES", 10)
    watched = Watched(opened)
    for number in range(20):
        await spend(opened, number)
    log = path.with_name("journal.db-wal")
    async with asyncio.timeout(10):
        while log.stat().st_size >= 10 * 4096:  # noqa: ASYNC110 - in the writer's thread, when nothing waits
            await asyncio.sleep(0.001)
    assert any("wal_checkpoint" in statement for statement in watched.statements)
    await asyncio.to_thread(opened.close)
    assert read_journal(path, "SELECT count(*) FROM spent") == [(20,)]


async def test_a_copy_that_fails_closes_the_store(opened, monkeypatch):
    monkeypatch.setattr(journal_module, "CHECKPOINT_PAGES", 1)
    Watched(opened, lambda sql: sqlite3.OperationalError("disk I/O error") if "wal_checkpoint" in sql else None)
    await spend(opened, 1)
    while not opened.failed:  # noqa: ASYNC110 - the copy is made in the writer's thread, when nothing waits
        await asyncio.sleep(0.001)
    with pytest.raises(StoreFailed):
        await spend(opened, 2)


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
