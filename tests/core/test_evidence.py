"""A journal is read strictly, up to the very entry that cannot be, and by what is evidence. Protocol D."""

import json
import sqlite3

import pytest

from tests.simulated import IDENTITY, small_journal, some_doors
from vestibule_core import schema
from vestibule_core.errors import JournalDamaged
from vestibule_core.evidence import Broken, Entry, PersonPart, keys_of, read_header, read_newest, read_run, tree_of
from vestibule_core.merkle import Tree
from vestibule_core.schema import look

DOOR, OTHER = (door.id for door in some_doors(2))


@pytest.fixture
async def path(tmp_path):
    return await small_journal(tmp_path / "journal.db")


@pytest.fixture
def altered(path):
    """Alter the journal, and open it for reading."""
    opened = []

    def altered(*statements):
        db = sqlite3.connect(path)
        for statement in statements:
            db.execute(statement)
        db.commit()
        db.close()
        looking = look(path)
        opened.append(looking)
        return looking.__enter__()

    yield altered
    for looking in opened:
        looking.__exit__(None, None, None)


DAMAGE = [
    ("UPDATE leaf SET bytes = CAST(bytes AS TEXT) WHERE seq = 5", "an entry is not in bytes"),
    ("UPDATE person SET json = x'00' WHERE seq = 5", "a person's part is not salt and text"),
    ("UPDATE person SET json = CAST(x'ff' AS TEXT) WHERE seq = 5", "the file is damaged"),
    ("UPDATE person SET json = printf('%.*c', 300000, 'x') WHERE seq = 5", "the file is damaged"),
    ("UPDATE person SET salt = 'x' WHERE seq = 5", "a person's part is not salt and text"),
    ("UPDATE checkpoint SET note = x'00' WHERE size = 5", "a checkpoint is no text"),
    ("DELETE FROM leaf WHERE seq = 5", "entries are missing"),
    ("DELETE FROM leaf WHERE seq > 4", "entries are missing"),
]


@pytest.mark.parametrize("damage, why", DAMAGE)
@pytest.mark.parametrize("most", [1, 3, 1000])
def test_a_run_ends_before_what_cannot_be_read_and_the_next_one_says_what_it_is(altered, damage, why, most):
    db = altered(damage)
    runs = []

    def read_all():
        while (run := read_run(db, runs[-1].last if runs else 0, most=most)) is not None:
            runs.append(run)

    with pytest.raises(Broken, match=why) as broken:
        read_all()
    assert broken.value.after == runs[-1].last == 4
    assert sum(len(run.persons) for run in runs) == 4
    assert runs[-1].checkpoints[-1].size == 4


def test_a_disk_that_fails_is_not_taken_for_damage():
    class Failing:
        def execute(self, *_):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

    for reading in (
        lambda: read_run(Failing(), 0),
        lambda: read_newest(Failing(), None, 1),
        lambda: read_header(Failing()),
    ):
        with pytest.raises(sqlite3.OperationalError):
            reading()


@pytest.mark.parametrize(
    "note",
    [
        "UPDATE meta SET value = x'ff' WHERE key = 'keys'",
        "UPDATE meta SET value = printf('%.*c', 60000, '[') WHERE key = 'keys'",
        "UPDATE meta SET value = '[1]' WHERE key = 'keys'",
        "UPDATE meta SET value = '[\"no key\"]' WHERE key = 'keys'",
        "INSERT INTO meta VALUES('base', printf('%.*c', 60000, '['))",
        "INSERT INTO meta VALUES('base', x'ff')",
        "INSERT INTO meta VALUES('base', '[]')",
        "INSERT INTO meta VALUES('base', '{\"size\":NaN,\"peaks\":[]}')",
        'INSERT INTO meta VALUES(\'base\', \'{"size":18446744073709551616,"peaks":["' + "00" * 32 + "\"]}')",
    ],
)
def test_what_a_journal_notes_of_itself_is_read_strictly(altered, note):
    with pytest.raises(Broken, match="notes of itself") as broken:
        read_header(altered(note))
    assert broken.value.after == 0


def test_notes_that_are_not_there_are_of_nothing():
    assert tree_of(None) == Tree()
    assert keys_of(None) == ()
    assert keys_of(json.dumps([str(IDENTITY.verifier)])) == (IDENTITY.verifier,)


@pytest.mark.parametrize("text", ["[]", "[" * 10_000, "", '{"a":NaN}', None])
def test_a_persons_part_that_is_no_object_cannot_be_read(text):
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own words
        PersonPart(1, b"", text).read()


# ---- the newest entries ----


def newest(db, door, **how):
    return [entry.leaf.sequence for entry in read_newest(db, door, 3, **how)]


def test_the_newest_come_first_with_who_it_was(altered):
    db = altered()
    entries = read_newest(db, None, 2)
    assert [(entry.leaf.sequence, entry.who) for entry in entries] == [(8, "User 8"), (7, "User 7")]
    assert newest(db, DOOR) == newest(db, DOOR, trusts_index=True) == [8, 7, 6]
    assert newest(db, OTHER) == newest(db, OTHER, trusts_index=True) == []


def test_an_index_that_was_altered_hides_no_entry_from_who_trusts_nobody(path):
    """An index is no evidence: no verification looks at it."""
    db = sqlite3.connect(path, isolation_level=None)
    (leaf,) = db.execute("SELECT bytes FROM leaf WHERE seq = 8").fetchone()
    db.execute("UPDATE leaf SET bytes = CAST(replace(bytes, ?, ?) AS BLOB) WHERE seq = 8", (DOOR, OTHER))
    index = db.execute("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema WHERE name = 'leaf_door'")
    row = index.fetchone()
    db.execute("PRAGMA writable_schema = ON")
    db.execute("DELETE FROM sqlite_schema WHERE name = 'leaf_door'")
    db.close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE leaf SET bytes = ? WHERE seq = 8", (leaf,))
    db.execute("PRAGMA writable_schema = ON")
    db.execute("INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql) VALUES(?, ?, ?, ?, ?)", row)
    db.close()
    with look(path) as db:
        assert newest(db, DOOR, trusts_index=True) == [7, 6, 5]
        assert newest(db, DOOR) == [8, 7, 6]


def test_with_the_index_the_entries_of_other_doors_are_not_looked_at(path):
    statements = []
    with look(path) as db:
        db.set_trace_callback(statements.append)
        read_newest(db, DOOR, 3, trusts_index=True)
        [query] = [statement for statement in statements if "FROM leaf" in statement]
        assert "leaf_door" in str(db.execute(f"EXPLAIN QUERY PLAN {query}").fetchall())


def test_what_lies_under_numbers_that_were_dropped_is_not_shown(altered):
    db = altered("INSERT INTO leaf SELECT 0, bytes FROM leaf WHERE seq = 5")
    assert [entry.leaf.sequence for entry in read_newest(db, None, 99)] == [8, 7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "damage, after",
    [
        ("UPDATE leaf SET bytes = CAST('{}' AS BLOB) WHERE seq = 7", 6),
        ("UPDATE leaf SET bytes = (SELECT bytes FROM leaf WHERE seq = 6) WHERE seq = 7", 6),
        ("UPDATE person SET salt = 'x' WHERE seq = 7", 6),
        ("UPDATE person SET json = CAST(x'ff' AS TEXT) WHERE seq = 7", 6),
    ],
)
def test_an_entry_that_cannot_be_shown_is_named(altered, damage, after):
    with pytest.raises(Broken) as broken:
        read_newest(altered(damage), None, 3)
    assert broken.value.after == after


def test_an_entry_says_which_one_it_is():
    with pytest.raises(Broken) as broken:
        Entry.of(7, b"[]", None)
    assert broken.value.after == 6


# ---- what may be told of an error ----


def test_a_text_that_cannot_be_read_is_in_no_error(path):
    db = sqlite3.connect(path)
    db.execute("UPDATE person SET json = CAST(json || x'ff' AS TEXT) WHERE seq = 5")
    db.commit()
    db.close()
    with pytest.raises(JournalDamaged, match="not UTF-8") as damaged, look(path) as db:
        db.execute("SELECT json FROM person").fetchall()
    assert "User" not in str(damaged.value)
    assert damaged.value.__suppress_context__


def test_a_row_that_is_too_long_is_damage(path):
    error = sqlite3.DataError("string or blob too big")
    error.sqlite_errorcode = sqlite3.SQLITE_TOOBIG
    assert schema.is_damage(error)
    assert not schema.is_damage(sqlite3.ProgrammingError("a closed database"))
