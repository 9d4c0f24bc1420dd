"""Who confirms that a journal goes on with a new key is its first entry under that key, whatever a crash comes between.

Protocol D. How somebody confirms it is in tests/integration/test_repairs.py.
"""

import asyncio
import json
import logging
import sqlite3

import pytest

from tests import simulated
from tests.simulated import Site
from vestibule_core import identity, new_key, schema
from vestibule_core.epoch import read_head
from vestibule_core.errors import IdentityMissing, IdentityUnusable, JournalInUse, Refused, StoreFailed
from vestibule_core.evidence import Entry, PersonPart
from vestibule_core.journal import Journal
from vestibule_core.model import Actor, Code, EventName, Means

NAME = "vestibule/test"
ANN = Actor(user_id="ann-1", name="Ann", is_admin=True)
BOB = Actor(user_id="bob-2", name="Bob", is_admin=True)


class Keyed:
    """A building whose key is in a file, and can be lost."""

    def __init__(self, folder):
        self.key, self.backup = folder / "identity.pem", folder / "backup.pem"
        self.site = Site(folder / "journal.db")

    def open_journal(self, path):
        return Journal.open(path, lambda signed: identity.keep(self.key, NAME, make=not signed))

    def lose_key(self):
        self.key.rename(self.backup)

    def find_key(self):
        self.backup.rename(self.key)

    async def confirm(self, actor):
        await asyncio.to_thread(new_key.go_on, self.site.path, self.key, NAME, actor)

    def entries(self):
        """Return kind and person of each entry."""
        rows = self.site.rows("SELECT leaf.seq, bytes, salt, json FROM leaf LEFT JOIN person USING(seq) ORDER BY seq")
        found = []
        for sequence, data, salt, text in rows:
            person = PersonPart(sequence, salt, text) if text is not None else None
            entry = Entry.of(sequence, data, person)
            found.append((entry.leaf.kind, person and person.read()))
        return found

    def confirmed(self):
        return [person for kind, person in self.entries() if kind == EventName.KEY_CONFIRMED]


@pytest.fixture
async def keyed(tmp_path, monkeypatch):
    """A building with an entry, at rest, whose key was lost."""
    keyed = Keyed(tmp_path)
    monkeypatch.setattr(simulated, "open_journal", keyed.open_journal)
    async with keyed.site as site:
        await site.controller.by_hand.confirm_clock(ANN)
    keyed.lose_key()
    with pytest.raises(IdentityMissing):
        await asyncio.to_thread(keyed.open_journal, keyed.site.path)
    return keyed


async def test_who_confirmed_a_new_key_is_its_first_entry_and_is_told_without_a_name(keyed, caplog):
    caplog.set_level(logging.DEBUG)
    await keyed.confirm(BOB)
    async with keyed.site.reopen() as site:
        await site.controller.recorded()
        own, newest = site.journal.signer.verifier, site.journal.checkpoint
        (event,) = await site.told(EventName.KEY_CONFIRMED)
        header = await site.journal.header()
    assert (event.sequence, event.code, event.means, event.door) == (2, Code.GRANTED, Means.MANUAL, None)
    assert "Bob" not in repr(event)
    assert "bob-2" not in repr(event)
    assert keyed.entries()[1] == (EventName.KEY_CONFIRMED, {"user_id": "bob-2", "user": "Bob"})
    assert read_head(newest, (own,)).size == 2
    assert [key.public for key in header.keys][1:] == [own.public]
    assert "Bob" not in caplog.text
    assert "bob-2" not in caplog.text


async def test_it_is_recorded_once(keyed):
    await keyed.confirm(ANN)
    for _ in range(3):
        async with keyed.site.reopen() as site:
            await site.controller.recorded()
    assert len(keyed.confirmed()) == 1
    assert keyed.site.rows("SELECT value FROM meta WHERE key = 'new_key'") == []


async def test_who_confirmed_is_known_after_the_power_failed_before_there_was_a_key(keyed, monkeypatch):
    """Else whoever finds the new key could not say whose it is. It is confirmed again, by whoever does that."""

    def fails(*_):
        raise IdentityUnusable("power")

    with monkeypatch.context() as patch:
        patch.setattr(identity.durable, "write", fails)
        with pytest.raises(IdentityUnusable):
            await keyed.confirm(ANN)
    assert not keyed.key.exists()
    assert json.loads(keyed.site.rows("SELECT value FROM meta WHERE key = 'new_key'")[0][0])["user"] == "Ann"
    await keyed.confirm(BOB)
    async with keyed.site.reopen() as site:
        await site.controller.recorded()
    assert keyed.confirmed() == [{"user_id": "bob-2", "user": "Bob"}]


async def test_who_confirmed_is_known_after_the_power_failed_before_that_was_an_entry(keyed):
    await keyed.confirm(BOB)
    journal = await asyncio.to_thread(keyed.open_journal, keyed.site.path)  # it names the new key from here on
    await asyncio.to_thread(journal.close)
    async with keyed.site.reopen() as site:
        await site.controller.recorded()
    assert keyed.confirmed() == [{"user_id": "bob-2", "user": "Bob"}]


async def test_a_key_that_came_back_after_all_was_confirmed_by_nobody(keyed, monkeypatch):
    """The disk took the note and not the key, and somebody had a backup of that."""

    def fails(*_):
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr(identity.durable, "write", fails)
        with pytest.raises(IdentityUnusable):
            await keyed.confirm(ANN)
    keyed.find_key()
    async with keyed.site.reopen() as site:
        await site.controller.recorded()
    assert keyed.confirmed() == []
    assert keyed.site.rows("SELECT value FROM meta WHERE key = 'new_key'") == []


async def test_a_key_that_is_there_is_not_replaced_and_nothing_is_noted(keyed):
    keyed.find_key()
    kept = keyed.key.read_bytes()
    await keyed.confirm(ANN)
    assert keyed.key.read_bytes() == kept
    assert keyed.site.rows("SELECT value FROM meta WHERE key = 'new_key'") == []


@pytest.mark.parametrize("who", [Actor("cid-3", "Cid", is_admin=False), Actor(None, None, is_admin=False)])
async def test_nobody_but_an_administrator_confirms_a_key(keyed, who):
    """Not an automation either: it could be asked by anybody."""
    with pytest.raises(Refused) as refused:
        await keyed.confirm(who)
    assert refused.value.code is Code.MANUAL_NOT_ALLOWED
    assert not keyed.key.exists()
    assert keyed.site.rows("SELECT value FROM meta WHERE key = 'new_key'") == []


async def test_no_key_is_made_for_a_journal_that_another_program_holds(keyed):
    keyed.find_key()
    async with keyed.site.reopen():
        keyed.lose_key()
        with pytest.raises(JournalInUse):
            await keyed.confirm(ANN)
        assert not keyed.key.exists()


async def test_no_key_is_made_if_it_cannot_be_noted_who_confirmed_it(keyed, monkeypatch):
    class Full:
        def __init__(self, db):
            self._db = db

        def execute(self, sql, *parameters):
            if sql == "COMMIT":
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            return self._db.execute(sql, *parameters)

        def __getattr__(self, name):
            return getattr(self._db, name)

    def full(path):
        lock, db, version = schema.take(path)
        return lock, Full(db), version

    with monkeypatch.context() as patch:
        patch.setattr(new_key, "take", full)
        with pytest.raises(StoreFailed):
            await keyed.confirm(BOB)
    assert not keyed.key.exists()
    await keyed.confirm(ANN)
    async with keyed.site.reopen() as site:
        await site.controller.recorded()
    assert keyed.confirmed() == [{"user_id": "ann-1", "user": "Ann"}]


async def test_of_a_person_who_confirmed_a_key_nothing_is_left_when_it_is_deleted(keyed):
    await keyed.confirm(BOB)
    async with keyed.site.reopen() as site:
        await site.controller.recorded()
        assert b"bob-2" in keyed.site.all_bytes()
        assert await site.journal.delete(2) == 1
    assert b"bob-2" not in keyed.site.all_bytes()
    assert [kind for kind, _ in keyed.entries()][1] == EventName.KEY_CONFIRMED
