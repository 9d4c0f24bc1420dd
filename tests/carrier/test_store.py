"""The database: its schema on both kinds, what a transaction promises, and what is left of what was deleted."""

import asyncio
import gc
import hashlib
import json
import os
import re
import sqlite3
import stat
import sys
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import IntegrityError, StatementError

from carrier import audit, buildings, drivers
from carrier.retention import Retention, retain
from carrier.store import Store, StoreUnavailable, database_url, schema
from carrier.store.queries import pseudonyms, release_door, use_ceremony
from carrier.store.tables import Base, Ceremony, Driver, Evidence
from vestibule_core import b64url

from .town import CREDENTIAL, HOME, NAME, NEAR, NOW, REFERENCE, Town

PLACES = [json.dumps(value).encode() for value in (*NEAR, *HOME)]


# ---- the schema ----


async def test_the_migrations_make_exactly_the_tables(store):
    async with store.connection() as connection:
        assert await connection.run_sync(_differences) == []


def _differences(connection):
    options = {"compare_type": True, "compare_server_default": True}
    return compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)


async def test_migrating_twice_changes_nothing(store):
    before, after = await schema.migrate(store)
    assert before == after
    await schema.check(store)


async def test_two_that_migrate_at_once_do_it_once(url):
    stores = [Store(url) for _ in range(3)]
    done = await asyncio.gather(*(schema.migrate(store) for store in stores))
    assert [before for before, _ in done].count(None) == 1
    for store in stores:
        await schema.check(store)
        await store.close()


async def test_an_empty_database_says_what_to_do(url):
    store = Store(url)
    with pytest.raises(schema.SchemaDiffers, match="vestibule-carrier migrate"):
        await schema.check(store)
    await store.close()


@pytest.mark.parametrize("revision, says", [("0000", "newer than this program"), ("9999", "newer than this program")])
async def test_a_schema_that_this_program_does_not_know_is_refused_and_left_alone(store, revision, says):
    async with store.transaction() as session:
        await session.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'"))
    for refused in (schema.check, schema.migrate):
        with pytest.raises(schema.SchemaDiffers, match=says):
            await refused(store)


async def test_an_older_schema_is_refused_until_it_is_migrated(store, monkeypatch):
    monkeypatch.setattr(schema, "_revisions", lambda _: ("0001", "0002", True))
    with pytest.raises(schema.SchemaDiffers, match="older schema 0001, this program needs 0002"):
        await schema.check(store)


async def test_a_database_of_something_else_is_left_alone(url):
    store = Store(url)
    async with store.transaction() as session:
        await session.execute(text("CREATE TABLE pigeons (id INTEGER)"))
    with pytest.raises(schema.SchemaDiffers, match="pigeons"):
        await schema.migrate(store)
    await store.close()


# ---- transactions ----


@pytest.mark.parametrize("spelt", ["mysql://x/y", "sqlite://", "sqlite:///:memory:", "no url", "oracle+x://y"])
def test_another_database_is_refused_at_once(spelt):
    with pytest.raises(ValueError, match="database"):
        database_url(spelt)


async def test_sqlite_is_durable_and_forgets_what_is_deleted(tmp_path):
    store = Store(database_url(f"sqlite:///{tmp_path}/a.db"))
    async with store.transaction() as session:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        assert [await session.scalar(text(f"PRAGMA {name}")) for name in pragmas] == ["wal", 2, 1, 1]
    await store.close()


async def test_a_block_that_fails_leaves_nothing_behind(store):
    async def fail():
        async with store.transaction() as session:
            await drivers.add(session, NAME, None, "command", NOW)
            await session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with store.transaction() as session:
        assert list(await session.scalars(select(Driver))) == []
        assert await audit.newest(session, 10) == []


async def test_moments_come_back_in_utc_and_naive_ones_are_refused(store):
    there = datetime(2026, 11, 26, 10, 30, tzinfo=timezone(timedelta(hours=1)))
    async with store.transaction() as session:
        driver = await drivers.add(session, NAME, there, "command", NOW)
    async with store.transaction() as session:
        found = (await session.get_one(Driver, driver.id)).vetted_until
        assert (found, found.tzinfo) == (there, UTC)
        # Through a statement that is never flushed: nothing may be left of it.
        with pytest.raises(StatementError, match="without a time zone"):
            await session.execute(update(Driver).values(vetted_until=datetime(2026, 1, 1)))  # noqa: DTZ001


async def test_a_challenge_is_used_once_however_many_try(store):
    async with store.transaction() as session:
        driver = await drivers.add(session, NAME, None, "command", NOW)
        await session.flush()
        session.add(
            Ceremony(
                challenge_sha256=b"c",
                kind="request",
                driver_id=driver.id,
                payload={"door": 1},
                expires_at=NOW + timedelta(seconds=60),
                used_at=None,
            )
        )

    async def use(kind="request", now=NOW):
        async with store.transaction() as session:
            return await use_ceremony(session, b"c", kind, now)

    assert await use(kind="register") is None
    assert await use(now=NOW + timedelta(seconds=60)) is None
    used = [one for one in await asyncio.gather(*(use() for _ in range(20))) if one is not None]
    assert used == [{"door": 1}]


async def test_the_same_names_for_a_building_are_made_once_however_many_make_them(store, tmp_path):
    town = await Town.founded(store, tmp_path)
    whose = {"sub": (town.driver, "2026-11"), "stp": ("stop:a", ""), "rte": ("route:a", "")}

    async def named():
        async with store.transaction() as session:
            return await pseudonyms(session, town.building, whose, os.urandom)

    first, *others = await asyncio.gather(*(named() for _ in range(20)))
    assert first.keys() == whose.keys()
    assert all(other == first for other in others)
    whose["stp"] = ("stop:b", "")
    assert {kind for kind, name in (await named()).items() if name != first[kind]} == {"stp"}


async def test_whoever_reads_waits_for_no_writer(store):
    async def names():
        async with store.reading() as session:
            return list(await session.scalars(select(Driver.name)))

    async def add():
        async with store.transaction() as session:
            await drivers.add(session, NAME, None, "command", NOW)

    async with store.transaction() as session:
        await drivers.add(session, NAME, None, "command", NOW)
        await session.flush()
        others = [asyncio.create_task(add()) for _ in range(10)]  # more than there are connections to SQLite
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            found = await names()
        if store.is_sqlite:  # all of them wait for us
            assert (found, [each for each in others if each.done()]) == ([], [])
    await asyncio.gather(*others)
    assert await names() == [NAME] * 11


async def test_a_connection_that_the_server_has_ended_is_not_used_again(cluster):
    store = Store(database_url(cluster.create()))
    await schema.migrate(store)
    async with AsyncExitStack() as together:
        for _ in range(5):
            session = await together.enter_async_context(store.transaction())
            await session.execute(text("SELECT 1"))
    async with store.transaction() as session:
        ended = await session.scalar(
            text(
                "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
        assert ended == 4
    await asyncio.sleep(0.1)  # until this program has heard of it
    async with AsyncExitStack() as together:
        for _ in range(5):
            session = await together.enter_async_context(store.transaction())
            assert await session.scalar(text("SELECT 1")) == 1
    await store.close()


async def test_a_new_database_is_its_owner_s_alone(tmp_path):
    store = Store(database_url(f"sqlite:///{tmp_path}/a.db"))
    await schema.migrate(store)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("a.db*")} == {0o600}
    await store.close()


async def test_what_is_no_database_is_said(tmp_path):
    (tmp_path / "a.db").write_text("x" * 10_000)
    store = Store(database_url(f"sqlite:///{tmp_path}/a.db"))
    with pytest.raises(StoreUnavailable, match="not a database"):
        await schema.check(store)
    await store.close()


async def test_a_database_that_is_not_there_is_unavailable(tmp_path):
    for url in (f"sqlite:///{tmp_path}/no/folder/a.db", f"postgresql://nobody@/x?host={tmp_path}"):
        store = Store(database_url(url))
        with pytest.raises(StoreUnavailable):
            async with store.transaction() as session:
                await session.execute(text("SELECT 1"))
        await store.close()


async def test_a_text_of_the_error_names_no_value(store):
    async def add_again():
        async with store.transaction() as session:
            session.add(Driver(id=driver.id, name=NAME, active=True, vetted_until=None, created_at=NOW))

    async with store.transaction() as session:
        driver = await drivers.add(session, NAME, None, "command", NOW)
    with pytest.raises(IntegrityError) as raised:
        await add_again()
    assert NAME not in str(raised.value)


async def test_a_door_is_given_back_without_looking_at_every_stop(store):
    said = []
    async with store.transaction() as session:
        bare = (await session.connection()).sync_connection
        event.listen(bare, "before_cursor_execute", lambda *now: said.append(now[2:4]))
        await release_door(session, "req:x")
        statement, values = said[-1]
        if not store.is_sqlite:
            await session.execute(text("SET LOCAL enable_seqscan = off"))  # of so few rows it would read all anyhow
        explain = "EXPLAIN QUERY PLAN " if store.is_sqlite else "EXPLAIN "
        plan = str((await (await session.connection()).exec_driver_sql(explain + statement, values)).all())
    assert "stop_door" in statement
    assert "SEARCH stop_door USING INDEX" in plan or re.search("Index Scan using [a-z_]+ on stop_door", plan)


async def test_what_postgresql_cannot_hold_is_told_without_the_value(cluster):
    store = Store(database_url(cluster.create()))
    await schema.migrate(store)
    for value in ("driver:\0", "driver:\ud800"):
        with pytest.raises(StoreUnavailable) as raised:
            async with store.transaction() as session:
                await session.get(Driver, value)
        assert str(raised.value) in ("CharacterNotInRepertoireError", "DataError")
    await store.close()


# ---- forgetting ----


async def test_after_retention_no_place_and_no_reference_is_left(store, tmp_path):
    town = await Town.founded(store, tmp_path)
    async with town.site:
        await town.ask(fix=None)
        await town.ask()
    digest = (await town.rows("SELECT evidence_digest FROM request WHERE state = 'granted'"))[0]
    assert await town.rows("SELECT count(*) FROM evidence") == [2]
    later = town.now + timedelta(days=30)
    kept = await retain(store, Retention(), "command", later - timedelta(seconds=1))
    assert (kept.evidence, kept.references) == (0, 0)
    gone = await retain(store, Retention(), "command", later + timedelta(hours=3))
    assert (gone.evidence, gone.references) == (2, 1)
    assert await town.rows("SELECT evidence_digest FROM request WHERE state = 'granted'") == [digest]
    assert await town.rows("SELECT count(*) FROM pseudonym WHERE kind <> 'sub'") == [0]
    left = await _everything(store)
    assert REFERENCE not in left
    assert str(NEAR[0]) not in left
    await _removed_building(town)
    assert str(HOME[0]) not in await _everything(store)


@pytest.mark.parametrize("old", ["nothing", "ended secrets", "evidence"])
async def test_the_database_is_written_anew_only_if_something_has_to_become_unreadable(
    store, tmp_path, monkeypatch, old
):
    """Nobody writes meanwhile, for seconds if it is a large one."""
    scrubbed = []

    async def scrub(*, anew):
        scrubbed.append(anew)

    monkeypatch.setattr(store, "scrub", scrub)
    town = await Town.founded(store, tmp_path)
    async with town.site:
        await town.ask()
    if old == "ended secrets":
        async with store.transaction() as session:
            await drivers.invite(session, town.driver, "command", NOW - timedelta(days=20))
    days = 31 if old == "evidence" else 0
    await retain(store, Retention(), "retention", town.now + timedelta(days=days))
    assert scrubbed == [old == "evidence"]
    await retain(store, Retention(), "retention", town.now + timedelta(days=days), scrub=True)
    assert scrubbed == [old == "evidence", True], "as after one that failed"


async def _removed_building(town):
    async with town.store.transaction() as session:
        await buildings.remove(session, town.building, "command", town.now)


async def test_a_removed_driver_leaves_an_id_only(store, tmp_path):
    town = await Town.founded(store, tmp_path)
    async with town.site:
        await town.ask()
    async with store.transaction() as session:
        await drivers.invite(session, town.driver, "command", NOW)
        await drivers.remove(session, town.driver, "command", NOW)
    left = await _everything(store)
    assert NAME not in left
    assert town.driver in left
    assert CREDENTIAL.decode() not in left
    assert await town.rows("SELECT count(*) FROM invitation") == [0]
    assert await town.rows("SELECT count(*) FROM pseudonym WHERE kind = 'sub'") == [0]


async def _everything(store):
    """Return whatever stands in any row."""
    async with store.connection() as connection:
        tables = [list(await connection.execute(table.select())) for table in Base.metadata.sorted_tables]
    return repr(tables)


async def test_what_was_deleted_is_not_in_sqlite_s_files_any_more(tmp_path):
    """Names, places and references, in the file and in the log of writes; and among so many rows that pages split and
    are merged.
    """
    path = tmp_path / "carrier.db"
    store = Store(database_url(f"sqlite:///{path}"))
    await schema.migrate(store)
    town = await Town.founded(store, tmp_path, stops=40)
    async with town.site:
        for stop in town.stops:
            await town.ask(stop=stop)
    before = _bytes(path)
    assert all(secret in before for secret in (NAME.encode(), REFERENCE.encode(), *PLACES[:1]))
    async with store.transaction() as session:
        await drivers.remove(session, town.driver, "command", NOW)
    await _removed_building(town)
    await retain(store, Retention(), "command", town.now + timedelta(days=31))
    after = _bytes(path)
    await store.close()
    assert len(after) > 10_000
    for secret in (NAME.encode(), REFERENCE.encode(), *PLACES, CREDENTIAL):
        assert secret not in after, secret
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _bytes(path):
    return b"".join(part.read_bytes() for part in path.parent.glob(f"{path.name}*"))


async def test_evidence_and_its_salt_give_the_digest_that_the_token_had(store, tmp_path):
    town = await Town.founded(store, tmp_path)
    async with town.site:
        await town.ask()
    async with store.transaction() as session:
        kept = (await session.scalars(select(Evidence))).one()
    digest = b64url.encode(hashlib.sha256(kept.salt + kept.record).digest())
    assert await town.rows("SELECT evidence_digest FROM request") == [digest]
    assert json.loads(kept.record)["fix"]["lat"] == NEAR[0]
    assert len(kept.salt) == 16


async def test_the_audit_says_who_did_what_and_no_name(store, tmp_path):
    town = await Town.founded(store, tmp_path)
    async with town.site:
        await town.ask()
    async with store.transaction() as session:
        entries = await audit.newest(session, 100)
    did = [(entry.who, entry.what) for entry in reversed(entries)]
    assert did == [
        ("command", "key made"),
        ("command", "key made"),
        ("command", "driver added"),
        (town.driver, "device added"),
        ("command", "keys published"),
        ("command", "building added"),
        ("command", "route brought"),
        (town.driver, "door asked for"),
    ]
    assert NAME not in repr([vars(entry) for entry in entries])


async def test_whoever_is_cancelled_in_a_transaction_leaves_no_connection_open(tmp_path, monkeypatch):
    """SQLAlchemy alone would, of SQLite, now and then: it is cancelled here at every step of the event loop."""
    left = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: left.append(what.exc_value))

    async def work(store):
        while True:
            async with store.transaction() as session:
                await session.execute(text("SELECT 1"))

    for steps in range(60):
        store = Store(database_url(f"sqlite:///{tmp_path / 'carrier.db'}"))
        working = asyncio.create_task(work(store))
        for _ in range(steps):
            await asyncio.sleep(0.0002)
        working.cancel()
        await asyncio.wait([working])
        await store.close()
    gc.collect()
    assert left == []
