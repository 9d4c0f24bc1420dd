"""Every commit is signed over all that there is, and a journal goes on only from what was signed. Protocol D."""

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.simulated import IDENTITY, open_journal, read_journal, some_doors
from vestibule_core import writer as writer_module
from vestibule_core.errors import JournalDamaged, Refused
from vestibule_core.evidence import Broken
from vestibule_core.journal import Journal, Spend
from vestibule_core.merkle import Tree
from vestibule_core.model import AccessEvent, Code, EventName, issuer
from vestibule_core.note import Checkpoint, SignerKey, open_note
from vestibule_core.schema import SCHEMA_VERSION

DOOR = some_doors(1)[0].id
OF_0_1_0 = Path(__file__).parent / "journals" / "0.1.0.db"
"""Written by release 0.1.0: 20 tokens spent, 19 of them with an outcome, and a lockdown that holds."""


def opened_at(at):
    return AccessEvent(outcome=EventName.DOOR_OPENED, door=DOOR, at=float(at))


async def written(path, count, *, together=False, signer=IDENTITY):
    journal = await asyncio.to_thread(Journal.open, path, lambda _: signer)
    journal.start(lambda _: None)
    if together:
        await asyncio.gather(*[journal.append(opened_at(number), {"user_id": "u"}) for number in range(count)])
    else:
        for number in range(count):
            await journal.append(opened_at(number), {"user_id": "u"})
    await asyncio.to_thread(journal.close)


def leaves(path):
    return [leaf for (leaf,) in read_journal(path, "SELECT bytes FROM leaf ORDER BY seq")]


def checkpoints(path, *keys):
    return [
        (size, Checkpoint.parse(open_note(note, keys or [IDENTITY.verifier])))
        for size, note in read_journal(path, "SELECT size, note FROM checkpoint ORDER BY size")
    ]


async def test_each_commit_is_signed_over_all_entries(path):
    await written(path, 5)
    kept = leaves(path)
    assert checkpoints(path) == [
        (size, Checkpoint("vestibule/test", size, Tree().extend(kept[:size]).root())) for size in range(1, 6)
    ]


async def test_what_is_committed_together_is_signed_once(path):
    await written(path, 50, together=True)
    signed = checkpoints(path)
    assert signed[-1][1] == Checkpoint("vestibule/test", 50, Tree().extend(leaves(path)).root())
    assert len(signed) < 50


async def test_a_refused_entry_is_in_no_tree(journal, path):
    def refuse():
        return Code.LOCKDOWN

    spend = Spend(issuer("https://parcels.example"), "jti", DOOR, "nonce")
    refused = journal.spend(spend, opened_at(1), {}, check_again=refuse, spent=lambda: None, notes={})
    good = journal.append(opened_at(2))
    with pytest.raises(Refused):
        await refused
    assert (await good).sequence == 1
    await asyncio.to_thread(journal.close)
    assert checkpoints(path)[-1][1].root == Tree().extend(leaves(path)).root()


@pytest.mark.parametrize("first", [0, 1, 7])
async def test_a_journal_goes_on_where_it_ended(path, first):
    await written(path, first)
    await written(path, 3)
    assert checkpoints(path)[-1] == (
        first + 3,
        Checkpoint("vestibule/test", first + 3, Tree().extend(leaves(path)).root()),
    )


async def test_old_checkpoints_are_thinned_and_the_newest_stay(path, monkeypatch):
    monkeypatch.setattr(writer_module, "SPARSE", 10)
    await written(path, 25)
    await written(path, 20)  # and a start in between goes on from the noted tree
    sizes = [size for size, _ in checkpoints(path)]
    assert sizes == [10, 20, *range(30, 46)]
    kept = leaves(path)
    assert all(signed.root == Tree().extend(kept[:size]).root() for size, signed in checkpoints(path))


async def test_another_key_signs_on_and_both_are_named(path):
    await written(path, 2)
    other = SignerKey("vestibule/test", Ed25519PrivateKey.generate())
    await written(path, 2, signer=other)
    assert str(IDENTITY.verifier) in (keys := read_journal(path, "SELECT value FROM meta WHERE key = 'keys'")[0][0])
    assert str(other.verifier) in keys
    assert [size for size, _ in checkpoints(path, IDENTITY.verifier, other.verifier)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE leaf SET bytes = replace(bytes, 'door_opened', 'door_closed') WHERE seq = 2",
        "DELETE FROM leaf WHERE seq = 2",
        "DELETE FROM leaf WHERE seq = 3",
        "DELETE FROM leaf",
        "DELETE FROM checkpoint",
        "DELETE FROM checkpoint WHERE size = 3",
        "UPDATE checkpoint SET note = replace(note, '3', '2') WHERE size = 3",
        "UPDATE checkpoint SET note = x'00' WHERE size = 3",
        "UPDATE leaf SET bytes = 7 WHERE seq = 3",
        "UPDATE meta SET value = '[]' WHERE key = 'keys'",
        "UPDATE meta SET value = '{}' WHERE key = 'keys'",
        "DELETE FROM meta WHERE key = 'keys'",
        "INSERT INTO meta VALUES('tree', '[]')",
        "INSERT INTO person SELECT 4, salt, json FROM person WHERE seq = 3",
        """INSERT INTO meta VALUES('base', '{"size":1,"peaks":[]}')""",
        """INSERT INTO leaf SELECT 4, replace(bytes, '"seq":3', '"seq":4') FROM leaf WHERE seq = 3""",
    ],
)
async def test_a_journal_whose_newest_entries_are_not_those_that_were_signed_is_refused(path, harm):
    await written(path, 3)
    db = sqlite3.connect(path)
    db.execute(harm)
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(JournalDamaged):
        open_journal(path)
    assert path.read_bytes() == before


async def test_a_newest_checkpoint_that_is_no_text_is_refused(path, monkeypatch):
    """Also where nothing follows the tree that a start begins with."""
    monkeypatch.setattr(writer_module, "SPARSE", 3)
    await written(path, 6)
    db = sqlite3.connect(path)
    db.execute("UPDATE checkpoint SET note = x'00' WHERE size = 6")
    db.commit()
    db.close()
    with pytest.raises(JournalDamaged, match="no text"):
        open_journal(path)


async def test_a_gap_is_named(journal):
    for number in range(4):
        await journal.append(opened_at(number))

    def lose(writer):
        writer.db.execute("DELETE FROM leaf WHERE seq = 3")

    await journal._submit(lose)
    assert (await journal.run(0)).last == 2
    with pytest.raises(Broken) as broken:
        await journal.run(2)
    assert broken.value.after == 2


# ---- the journal of release 0.1.0 ----


async def test_the_journal_of_the_previous_release_keeps_every_spend_and_leaf_and_is_signed(path):
    shutil.copy(OF_0_1_0, path)
    columns = {"spent": "iss, jti, door, non, at, state", "leaf": "*", "person": "*"}
    before = {table: read_journal(path, f"SELECT {names} FROM {table}") for table, names in columns.items()}
    assert [len(rows) for rows in before.values()] == [20, 40, 21]
    assert read_journal(path, "PRAGMA user_version") == [(1,)]
    open_journal(path).close()
    assert read_journal(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert before == {table: read_journal(path, f"SELECT {names} FROM {table}") for table, names in columns.items()}
    assert read_journal(path, "SELECT DISTINCT iat FROM spent") == [(None,)]
    assert checkpoints(path) == [(40, Checkpoint("vestibule/test", 40, Tree().extend(leaves(path)).root()))]
    journal = await asyncio.to_thread(open_journal, path)
    assert journal.notes() == {"lockdown": "on"}
    assert [spend.jti for spend in journal.unsettled()] == ["jti-19"]
    journal.start(lambda _: None)
    again = Spend(issuer("https://parcels.example"), "jti-3", DOOR, "another")
    with pytest.raises(Refused) as refused:
        await journal.spend(again, opened_at(1), {}, check_again=lambda: None, spent=lambda: None, notes={})
    assert refused.value.code is Code.ALREADY_SPENT
    await asyncio.to_thread(journal.close)


async def test_a_journal_of_the_previous_release_is_given_a_new_key(path):
    """It was never signed: there is no key that could be missing."""
    shutil.copy(OF_0_1_0, path)
    asked = []
    for _ in range(2):
        journal = await asyncio.to_thread(Journal.open, path, lambda signed: asked.append(signed) or IDENTITY)
        journal.close()
    assert asked == [False, True]


async def test_a_journal_of_the_previous_release_in_which_an_entry_is_no_json_is_damaged_and_left_alone(path):
    shutil.copy(OF_0_1_0, path)
    db = sqlite3.connect(path)
    db.execute("UPDATE leaf SET bytes = x'7b' WHERE seq = 7")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(JournalDamaged, match="malformed"):
        open_journal(path)
    assert path.read_bytes() == before
