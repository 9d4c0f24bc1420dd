"""A journal at rest can be looked at: nothing is left beside it, and nobody is kept out of it."""

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.simulated import open_journal, small_journal
from vestibule_core.errors import JournalDamaged, JournalInUse, JournalTooNew, JournalUnsigned, StoreFailed
from vestibule_core.evidence import read_header, read_runs
from vestibule_core.model import AccessEvent, EventName
from vestibule_core.schema import look

OLD = Path(__file__).parent / "journals" / "0.1.0.db"


@pytest.fixture
async def path(tmp_path):
    return await small_journal(tmp_path / "journal.db")


def entries(path):
    with look(path) as db:
        return sum(len(run.leaves) for run in read_runs(db, read_header(db)))


def test_a_journal_at_rest_is_read_and_nothing_is_left_beside_it(path):
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert entries(path) == 8
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_it_cannot_be_changed_through_this(path):
    with pytest.raises(StoreFailed, match="readonly"), look(path) as db:
        db.execute("DELETE FROM leaf")


async def test_entries_that_are_in_its_log_only_are_read_too(path):
    journal = await asyncio.to_thread(open_journal, path)
    journal.start(lambda _: None)
    await journal.append(AccessEvent(outcome=EventName.DOOR_CLOSED, door=None, at=1.9e9))
    copy = path.parent / "copy"
    copy.mkdir()
    for file in (path, path.with_name("journal.db-wal")):
        shutil.copy(file, copy)
    await asyncio.to_thread(journal.close)
    assert entries(copy / "journal.db") == 9


async def test_a_journal_that_a_controller_holds_is_left_alone(path):
    journal = await asyncio.to_thread(open_journal, path)
    try:
        with pytest.raises(JournalInUse):
            entries(path)
    finally:
        await asyncio.to_thread(journal.close)
    assert entries(path) == 8


async def test_a_controller_that_begins_meanwhile_is_not_kept_out_and_is_found(path):
    looking = look(path)
    assert read_header(looking.__enter__()).size == 8
    (await asyncio.to_thread(open_journal, path)).close()
    with pytest.raises(JournalInUse):
        looking.__exit__(None, None, None)


def test_a_journal_of_a_version_that_did_not_sign_is_refused(tmp_path):
    with pytest.raises(JournalUnsigned), look(Path(shutil.copy(OLD, tmp_path))):
        pass


def test_a_newer_journal_is_refused(path):
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalTooNew), look(path):
        pass


@pytest.mark.parametrize(
    "harm",
    [
        "CREATE TRIGGER forgets AFTER INSERT ON leaf BEGIN DELETE FROM spent; END",
        "CREATE TABLE another(x)",
        "DROP INDEX leaf_door",
    ],
)
def test_tables_that_are_not_a_journals_are_refused(path, harm):
    db = sqlite3.connect(path)
    db.execute(harm)
    db.close()
    with pytest.raises(JournalDamaged, match="tables"), look(path):
        pass
    with pytest.raises(JournalDamaged, match="tables"):
        open_journal(path)


def test_another_database_is_refused(tmp_path):
    db = sqlite3.connect(tmp_path / "other.db")
    db.execute("CREATE TABLE other(x)")
    db.close()
    with pytest.raises(JournalDamaged), look(tmp_path / "other.db"):
        pass


def test_what_is_no_database_is_refused(tmp_path):
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(JournalDamaged), look(tmp_path / "text"):
        pass
    with pytest.raises(StoreFailed, match="No such file"), look(tmp_path / "nothing"):
        pass
