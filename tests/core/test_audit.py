"""Whatever is changed in a journal's evidence is found, and the first interval that fails is named. Row 67."""

import asyncio
import sqlite3
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.simulated import IDENTITY, open_journal, some_doors
from vestibule_core import audit as auditing
from vestibule_core.audit import Audit, Failure
from vestibule_core.erasure import Due, Subject
from vestibule_core.evidence import PersonPart, SignedSize, read_header, read_run
from vestibule_core.merkle import Tree
from vestibule_core.model import AccessEvent, EventName
from vestibule_core.note import Checkpoint, SignerKey, open_note

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
    await journal.delete(Subject("u3", None, None))
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
    assert verify(path, kept=later).holds
    assert "older than what is still there" in verify(path, kept=oldest).failure.why
    alter(path, "DELETE FROM checkpoint WHERE size = 4")
    assert verify(path).failure == Failure(1, 4, "what is left of the dropped entries is not signed")


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
