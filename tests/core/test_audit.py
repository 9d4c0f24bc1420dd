"""Whatever is changed in a journal's evidence is found, and the first interval that fails is named. Row 67."""

import asyncio
import dataclasses
import sqlite3
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.simulated import IDENTITY, open_journal, some_doors
from vestibule_core import audit as auditing
from vestibule_core.audit import Audit, Failure, Kept
from vestibule_core.erasure import DAY, Due
from vestibule_core.evidence import PersonPart, SignedSize, read_header, read_run
from vestibule_core.merkle import EMPTY_ROOT, Tree
from vestibule_core.model import AccessEvent, EventName
from vestibule_core.note import Checkpoint, SignerKey, open_note
from vestibule_core.schema import LONGEST

DOOR = some_doors(1)[0].id
KEY = IDENTITY.verifier
STRANGER = SignerKey("vestibule/test", Ed25519PrivateKey.from_private_bytes(bytes(32)))


@pytest.fixture
async def path(tmp_path):
    """A small journal: 8 entries, each signed, each with a person's part."""
    path = tmp_path / "journal.db"
    journal = await asyncio.to_thread(open_journal, path)
    journal.start(lambda _: None)
    for number in range(8):
        event = AccessEvent(outcome=EventName.DOOR_OPENED, door=DOOR, at=float(number))
        await journal.append(event, {"user_id": f"u{number}", "user": f"User {number}"})
    await asyncio.to_thread(journal.close)
    return path


def verify(path, *, keys=(KEY,), kept=None, most=3):
    db = sqlite3.connect(path)
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    try:
        header = read_header(db)

        def runs():
            after = header.base.size
            while (run := read_run(db, after, most=most)) is not None:
                yield run
                after = run.last

        return auditing.verify(header, runs(), keys=keys, kept=kept)
    finally:
        db.close()


def alter(path, *statements):
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def kept_of(path, size):
    db = sqlite3.connect(path)
    (note,) = db.execute("SELECT note FROM checkpoint WHERE size = ?", (size,)).fetchone()
    db.close()
    return Checkpoint.parse(open_note(note, [KEY]))


def test_a_journal_that_nobody_touched_holds(path):
    verdict = verify(path)
    assert verdict.holds
    assert (verdict.entries, verdict.persons, verdict.checkpoints, verdict.dropped) == (8, 8, 8, 0)
    assert Checkpoint.parse(open_note(verdict.newest, [KEY])).size == 8
    assert verify(path, kept=kept_of(path, 5)).holds
    assert verify(path, keys=()).keys == (KEY,)


SWAP = (
    "UPDATE leaf SET seq = -1 WHERE seq = 3",
    "UPDATE leaf SET seq = 3 WHERE seq = 4",
    "UPDATE leaf SET seq = 4 WHERE seq = -1",
)


@pytest.mark.parametrize(
    "harm, first, last",
    [
        (["UPDATE leaf SET bytes = CAST(replace(bytes, 'door_opened', 'door_closed') AS BLOB) WHERE seq = 4"], 4, 4),
        (["DELETE FROM leaf WHERE seq = 4"], 4, 4),
        (["DELETE FROM leaf WHERE seq > 6"], 7, 7),
        (["DELETE FROM checkpoint WHERE size > 6"], 7, 8),
        (SWAP, 3, 3),
        (["DELETE FROM checkpoint WHERE size IN (3, 4)", *SWAP], 3, 5),
        (["UPDATE checkpoint SET note = replace(note, 'vestibule', 'vestibula') WHERE size = 6"], 6, 6),
        (["UPDATE checkpoint SET note = (SELECT note FROM checkpoint WHERE size = 1) WHERE size = 2"], 2, 2),
        (["UPDATE person SET json = replace(json, 'User 4', 'User 5') WHERE seq = 5"], 5, 5),
        (["UPDATE person SET salt = x'00' WHERE seq = 5"], 5, 5),
        (["DELETE FROM leaf", "DELETE FROM person", "DELETE FROM checkpoint WHERE size < 8"], 1, 1),
    ],
    ids=[
        "byte edited", "row removed", "tail cut", "tail unsigned", "two rows swapped", "swapped between checkpoints",
        "note edited", "another checkpoint", "person edited", "salt edited", "all removed",
    ],
)  # fmt: skip
def test_row_67_what_was_altered_is_found_and_the_interval_is_named(path, harm, first, last):
    """Byte edited, row removed, tail cut, two rows swapped: verify names the interval."""
    alter(path, *harm)
    failure = verify(path).failure
    assert (failure.first, failure.last) == (first, last)


def test_a_tail_that_was_cut_with_its_checkpoints_is_found_by_a_checkpoint_that_was_kept(path):
    kept = kept_of(path, 8)
    alter(path, *[f"DELETE FROM {table} WHERE {column} > 6" for table, column in
                  (("leaf", "seq"), ("person", "seq"), ("checkpoint", "size"))])  # fmt: skip
    assert verify(path).holds, "nothing in it says so: that is what a kept checkpoint is for"
    assert verify(path, kept=kept).failure == Failure(
        7, 8, "the journal ends before entry 8, which is in the checkpoint that was kept"
    )


def test_a_journal_that_was_written_anew_is_found_by_a_checkpoint_that_was_kept(path):
    kept = replace(kept_of(path, 5), root=bytes(32))
    failure = verify(path, kept=kept).failure
    assert (failure.first, failure.last) == (5, 5)
    assert "kept" in failure.why


def test_a_journal_that_another_key_signed_is_not_the_buildings(path):
    failure = verify(path, keys=[STRANGER.verifier]).failure
    assert (failure.first, failure.last) == (1, 1)


async def test_a_deleted_person_leaves_a_journal_that_holds(path):
    journal = await asyncio.to_thread(open_journal, path)
    journal.start(lambda _: None)
    await journal.delete(4)
    await asyncio.to_thread(journal.close)
    verdict = verify(path)
    assert verdict.holds
    assert (verdict.entries, verdict.persons) == (8, 7)


async def test_dropped_entries_leave_a_journal_that_holds(path):
    oldest, later = kept_of(path, 1), kept_of(path, 6)
    journal = await asyncio.to_thread(open_journal, path)
    journal.retain_now(Due(-1.0, 3.5, -1.0))
    journal.close()
    verdict = verify(path)
    assert verdict.holds
    assert (verdict.entries, verdict.dropped) == (4, 4)
    assert verify(path, kept=later).kept is Kept.MATCHES
    too_old = verify(path, kept=oldest)
    assert too_old.holds, "that it is gone is as it should be"
    assert too_old.kept is Kept.TOO_OLD
    alter(path, "DELETE FROM checkpoint WHERE size = 4")
    assert verify(path).failure == Failure(1, 4, "what is left of the dropped entries is not signed")
    assert verify(path).entries == 0


# ---- a checkpoint that was kept ----


@pytest.fixture
def from_4(path):
    """The journal without its first four entries, as if they had had their time."""
    journal = open_journal(path)
    journal.retain_now(Due(-1.0, 3.5, -1.0))
    journal.close()
    return path


@pytest.mark.parametrize("size", [4, 5, 8])
def test_a_history_that_was_written_anew_and_signed_is_found_by_any_checkpoint_that_was_kept(from_4, size):
    """Whoever has the key can sign anything; also of the entries that were dropped just then."""
    other = replace(kept_of(from_4, size), root=bytes(32))
    assert verify(from_4, kept=kept_of(from_4, size)).kept is Kept.MATCHES
    verdict = verify(from_4, kept=other)
    assert verdict.failure.last == size
    assert verdict.kept is Kept.CONTRADICTED


def test_of_no_entries_only_one_thing_can_be_kept(path):
    assert verify(path, kept=Checkpoint("vestibule/test", 0, EMPTY_ROOT)).kept is Kept.MATCHES
    verdict = verify(path, kept=Checkpoint("vestibule/test", 0, bytes(32)))
    assert (verdict.failure.first, verdict.kept) == (1, Kept.CONTRADICTED)


def test_what_fails_before_it_says_nothing_about_a_checkpoint_that_was_kept(path):
    kept = kept_of(path, 5)
    assert verify(path).kept is None
    assert verify(path, kept=replace(kept, size=9)).kept is Kept.CONTRADICTED, "the journal ends before it"
    alter(path, "DELETE FROM leaf WHERE seq = 2")
    assert verify(path, kept=kept).kept is Kept.NOT_REACHED


# ---- who signed, and from when to when ----


def test_only_who_signed_is_said_to_have_signed(path):
    """A journal can name whoever it likes beside the key that signed it."""
    assert verify(path).signed == ((KEY, 8),)
    alter(path, f"""UPDATE meta SET value = '["{STRANGER.verifier}","{KEY}"]' WHERE key = 'keys'""")
    verdict = verify(path, keys=())
    assert verdict.holds
    assert verdict.keys == (STRANGER.verifier, KEY)
    assert verdict.signed == ((KEY, 8),)
    assert verify(path, keys=(KEY, KEY)).signed == ((KEY, 8),)


def test_it_is_said_from_when_to_when_entries_are_there(from_4, tmp_path):
    """Nothing else can tell that the oldest were dropped too early: whoever can write the file can note any tree."""
    verdict = verify(from_4)
    assert (verdict.oldest, verdict.latest) == (4.0, 7.0)
    open_journal(tmp_path / "empty.db").close()
    empty = verify(tmp_path / "empty.db")
    assert (empty.holds, empty.oldest, empty.latest, empty.signed) == (True, None, None, ())


# ---- what is not where it says ----


def resigned(path, leaves):
    """Write a journal of these leaves that the building's own key has signed."""
    tree = Tree().extend(leaves)
    note = IDENTITY.sign(Checkpoint("vestibule/test", len(leaves), tree.root()).text)
    db = sqlite3.connect(path)
    db.execute("DELETE FROM person")
    db.execute("DELETE FROM checkpoint")
    db.executemany("UPDATE leaf SET bytes = ? WHERE seq = ?", [(leaf, at) for at, leaf in enumerate(leaves, 1)])
    db.execute("INSERT INTO checkpoint VALUES(?, ?)", (len(leaves), note))
    db.commit()
    db.close()


@pytest.mark.parametrize(
    "alter_one, why",
    [
        (lambda leaf: leaf.replace(b'"seq":3', b'"seq":7'), "an entry carries another number than its place"),
        (lambda leaf: leaf.replace(b'"seq":3', b'"seq":3.0'), "an entry cannot be read"),
        (lambda leaf: leaf.replace(b',"spend_id"', b',"seq":7,"spend_id"'), "an entry cannot be read"),
        (lambda _: b"{}", "an entry cannot be read"),
    ],
)
def test_an_entry_that_says_that_it_is_another_is_found_though_it_is_signed(path, alter_one, why):
    """What is shown is what the entry says, and an entry is asked for by its number."""
    db = sqlite3.connect(path)
    leaves = [leaf for (leaf,) in db.execute("SELECT bytes FROM leaf ORDER BY seq")]
    db.close()
    resigned(path, leaves)
    assert verify(path).holds
    leaves[2] = alter_one(leaves[2])
    resigned(path, leaves)
    verdict = verify(path, most=100)
    assert verdict.failure == Failure(3, 3, why)
    assert verdict.entries == 2, "what a checkpoint proves together is not all said to hold"


@pytest.mark.parametrize(
    "stray",
    [
        "INSERT INTO leaf SELECT 0, bytes FROM leaf WHERE seq = 5",
        "INSERT INTO leaf SELECT 3, bytes FROM leaf WHERE seq = 5",
        "INSERT INTO leaf SELECT -5, bytes FROM leaf WHERE seq = 5",
        "INSERT INTO person SELECT 4, salt, json FROM person WHERE seq = 5",
        "INSERT INTO checkpoint SELECT 3, note FROM checkpoint WHERE size = 5",
    ],
)
def test_what_lies_under_numbers_that_were_dropped_is_found(from_4, stray):
    """Nothing else would ever look at it, and it could be shown as an entry."""
    alter(from_4, stray)
    failure = verify(from_4).failure
    assert (failure.first, failure.last) == (1, 4)
    assert "although it begins after entry 4" in failure.why


def test_what_lies_under_no_number_is_found_where_nothing_was_dropped(path):
    alter(path, "INSERT INTO person SELECT 0, salt, json FROM person WHERE seq = 5")
    failure = verify(path).failure
    assert (failure.first, failure.last) == (1, 1)


@pytest.mark.parametrize(
    "stray",
    [
        "INSERT INTO person SELECT 9, salt, json FROM person WHERE seq = 5",
        "INSERT INTO person SELECT 9223372036854775807, salt, json FROM person WHERE seq = 5",
        "INSERT INTO checkpoint SELECT 9223372036854775807, note FROM checkpoint WHERE size = 5",
        "INSERT INTO leaf SELECT 9223372036854775807, bytes FROM leaf WHERE seq = 5",
    ],
)
def test_what_lies_behind_the_last_entry_is_found(path, stray):
    alter(path, stray)
    verdict = verify(path)
    assert verdict.failure == Failure(9, 9, "entries are missing")
    assert verdict.entries == 8


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE leaf SET bytes = CAST(bytes AS TEXT) WHERE seq = 5",
        "UPDATE person SET json = CAST(x'ff' AS TEXT) WHERE seq = 5",
        "UPDATE person SET json = printf('%.*c', 300000, 'x') WHERE seq = 5",
        "UPDATE person SET salt = 'salt' WHERE seq = 5",
        "UPDATE checkpoint SET note = x'ff' WHERE size = 5",
    ],
)
def test_what_comes_before_damage_is_proved(path, damage):
    alter(path, damage)
    for most in (3, 100):
        verdict = verify(path, most=most)
        assert (verdict.failure.first, verdict.failure.last, verdict.entries) == (5, 5, 4)


def test_a_person_who_was_altered_takes_what_was_before_with_nobody(path):
    alter(path, "UPDATE person SET json = replace(json, 'User 4', 'User 5') WHERE seq = 5")
    verdict = verify(path, most=100)
    assert (verdict.failure.first, verdict.entries, verdict.persons) == (5, 4, 4)


def test_a_checkpoint_of_what_was_dropped_that_is_no_text_is_none(from_4):
    alter(from_4, "UPDATE checkpoint SET note = CAST(note AS BLOB) WHERE size = 4")
    assert verify(from_4).failure == Failure(1, 4, "what is left of the dropped entries is not signed")


def test_every_flipped_byte_of_the_evidence_is_found(path):
    """Each byte of each entry, each checkpoint, each salt and each person's part."""
    db = sqlite3.connect(path)
    header, run = read_header(db), read_run(db, 0)
    db.close()

    def holds(run):
        audit = Audit(header, keys=[KEY])
        audit.take(run)
        return audit.verdict().holds

    def flips(data):
        return (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(len(data)))

    assert holds(run)
    found = 0
    for place, leaf in enumerate(run.leaves):
        for flipped in flips(leaf):
            assert not holds(replace(run, leaves=(*run.leaves[:place], flipped, *run.leaves[place + 1 :])))
            found += 1
    for place, person in enumerate(run.persons):
        others = run.persons[:place], run.persons[place + 1 :]
        for salt in flips(person.salt):
            assert not holds(replace(run, persons=(*others[0], replace(person, salt=salt), *others[1])))
        for text in flips(person.text.encode()):
            part = PersonPart(person.sequence, person.salt, text.decode("latin-1"))
            assert not holds(replace(run, persons=(*others[0], part, *others[1])))
    for place, checkpoint in enumerate(run.checkpoints):
        others = run.checkpoints[:place], run.checkpoints[place + 1 :]
        for note in flips(checkpoint.note.encode()):
            altered = SignedSize(checkpoint.size, note.decode("utf-8", "replace"))
            assert not holds(replace(run, checkpoints=(*others[0], altered, *others[1])))
    assert found > 1000


def test_what_cannot_be_read_is_named(path):
    db = sqlite3.connect(path)
    header, run = read_header(db), read_run(db, 0)
    db.close()
    tree = Tree().append(b"no leaf")
    note = IDENTITY.sign(Checkpoint("vestibule/test", 1, tree.root()).text)
    audit = Audit(header, keys=[KEY])
    audit.take(replace(run, leaves=(b"no leaf",), persons=run.persons[:1], checkpoints=(SignedSize(1, note),)))
    assert "cannot be read" in audit.verdict().failure.why
    audit = Audit(header, keys=[KEY])
    audit.take(replace(run, persons=(replace(run.persons[0], sequence=99),)))
    assert audit.verdict().failure == Failure(99, 99, "a person's part belongs to no entry")


@pytest.mark.parametrize(
    "dropped, first, last, suspicious",
    [
        pytest.param(0, 0.0, 1.0, False, id="nothing is gone"),
        pytest.param(3, 0.0, 730 * DAY, False, id="24 months are there"),
        pytest.param(3, 0.0, 700 * DAY, False, id="and nothing had happened for four weeks before"),
        pytest.param(3, 0.0, 698 * DAY, True, id="a month is missing"),
        pytest.param(3, 0.0, 0.0, True, id="there is one entry"),
        pytest.param(3, None, None, False, id="nothing was proved"),
    ],
)
def test_what_is_gone_may_have_been_cut_off_unless_it_was_older_than_24_months(path, dropped, first, last, suspicious):
    verdict = dataclasses.replace(verify(path), dropped=dropped, oldest=first, latest=last)
    assert verdict.may_be_cut is suspicious
