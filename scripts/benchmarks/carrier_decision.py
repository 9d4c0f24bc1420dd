"""Decision: what a driver's confirmed request costs a carrier's cloud, next to a bare signature and a bare commit.

A replica in a process of its own gets the body with the passkey's assertion; when it has said what became of it, the
request is judged, claimed, challenged, signed, written down as issued, opened and its outcome recorded. A building with
a journal on the same disk is at the other end of a real link. The reference is one Ed25519 signature and one row of the
token's size, committed durably to the same database.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.url import make_url

from tests.carrier.databases import Cluster

from . import old_journal
from .carrier_cloud import SOON, Buildings, Phone, Town, cpu_of, cpu_with_children, doors_of, network, postgresql
from .table import Row

ROUNDS: Final = 7
DRIVERS: Final = 40
"""Requests of a round: one of each driver."""
BUILDINGS: Final = 8
DOORS: Final = 8
TOKEN: Final = 900
"""Bytes of what is signed and written for the reference: a token has about as many."""
COUNTED: Final = 10

type Commit = Callable[[bytes], Awaitable[None]]


def cost() -> list[Row]:
    """Decision: CPU, time, statements and transactions of a decision, on each kind of database."""
    with old_journal.folder() as name, postgresql() as cluster:
        folder = Path(name)
        rows = asyncio.run(_cost(folder / "sqlite", f"sqlite:///{folder}/sqlite/carrier.db", "SQLite", None))
        return rows + asyncio.run(_cost(folder / "postgresql", cluster.create(), "PostgreSQL", cluster))


async def _cost(folder: Path, url: str, kind: str, cluster: Cluster | None) -> list[Row]:
    town = await Town.founded(folder, url, BUILDINGS, DOORS)
    replica = town.replica()
    buildings = Buildings("real", town, 0, BUILDINGS)
    postmaster = None if cluster is None else cluster.pid
    try:
        replica.start()
        await buildings.begin(per_second=50)
        async with network() as session:
            phones = await town.phones(session, replica.base, DRIVERS)
            work = await _work(town, phones, ROUNDS + 1 + COUNTED // DRIVERS + 1)
            await _decisions(phones, work.pop(), session, replica.base)  # warm
            cpus, times, wishes = [], [], []
            async with _bare(town, postmaster) as commit:
                await _commits(commit, postmaster)
                for _ in range(ROUNDS):
                    ours = await _decisions(phones, work.pop(), session, replica.base, replica.pid, postmaster)
                    bare = await _commits(commit, postmaster)
                    cpus.append(ours[0] / bare[0])
                    times.append(ours[1] / bare[1])
                    wishes.append(ours[2] / ours[0])
            replica.end()
            async with town.served_here() as base:
                await buildings.all_connected(SOON)
                counted = await _counted(phones, work.pop(), session, base)
    finally:
        replica.end()
        buildings.kill()
        await town.store.close()
    what = f"cloud on {kind}, decision of a confirmed request until its outcome is recorded"
    bare_is = "an Ed25519 signature and one durable commit there"
    return [
        Row("Decision", f"{what} / {bare_is}, CPU of the cloud and the database", statistics.median(cpus), None),
        Row("Decision", "the same, time, with the building's own commit", statistics.median(times), None),
        Row("Decision", "the wish before it / the decision, CPU", statistics.median(wishes), None),
        Row("Decision", "statements of the decision, with BEGIN and COMMIT", counted["statements"] / COUNTED, None),
        Row("Decision", "transactions of the decision", counted["commits"] / COUNTED, None),
        Row("Decision", "of these, those that write", counted["writes"] / COUNTED, None),
    ]


async def _work(town: Town, phones: list[Phone], rounds: int) -> list[list[tuple[str, str]]]:
    """Return for each round a stop and its only door for each driver: no two at one door in a round."""
    doors = [(building, door) for building in range(BUILDINGS) for door in doors_of(building, DOORS)]
    mine = {phone.driver: [doors[(n + 7 * r) % len(doors)] for r in range(rounds)] for n, phone in enumerate(phones)}
    stops = await town.bring({driver: [(building, [door]) for building, door in own] for driver, own in mine.items()})
    return [[(stops[phone.driver][r], mine[phone.driver][r][1]) for phone in phones] for r in range(rounds)]


async def _decisions(
    phones: list[Phone], work: list[tuple[str, str]], session: Any, base: str, *pids: int | None
) -> tuple[float, float, float]:
    """Ask for all doors; return CPU and time of a decision, and CPU of a wish."""
    replica, postmaster = pids or (None, None)
    before = _cpu(replica, postmaster)
    wished = [await phone.wish(session, base, *each) for phone, each in zip(phones, work, strict=True)]
    between, took = _cpu(replica, postmaster), []
    for phone, wish in zip(phones, wished, strict=True):
        began = time.perf_counter()
        outcome = await phone.confirm(session, base, *wish)
        took.append(time.perf_counter() - began)
        assert outcome["state"] == "granted", outcome
    after = _cpu(replica, postmaster)
    return (after - between) / len(phones), statistics.median(took), (between - before) / len(phones)


def _cpu(replica: int | None, postmaster: int | None) -> float:
    return (cpu_of(replica) if replica else 0.0) + (cpu_with_children(postmaster) if postmaster else 0.0)


# ---- the reference ----


class _Bare:
    """A bare connection to the database of a town, and a table of its own there."""

    def __init__(self, town: Town, postmaster: int | None) -> None:
        self._town, self._postmaster = town, postmaster
        self._close: Callable[[], Awaitable[None]]

    async def __aenter__(self) -> Commit:
        url = make_url(self._town.url)
        if self._postmaster is None:
            db = sqlite3.connect(str(url.database), isolation_level=None)
            db.execute("PRAGMA synchronous = FULL")
            db.execute("CREATE TABLE bench(id INTEGER PRIMARY KEY, said BLOB NOT NULL)")

            async def commit(said: bytes) -> None:
                db.execute("INSERT INTO bench(said) VALUES (?)", (said,))

            async def close() -> None:
                db.close()
        else:
            line = await asyncpg.connect(host=url.query["host"], user=url.username, database=url.database)
            await line.execute("CREATE TABLE bench(id serial PRIMARY KEY, said bytea NOT NULL)")

            async def commit(said: bytes) -> None:
                await line.execute("INSERT INTO bench(said) VALUES ($1)", said)

            async def close() -> None:
                await line.close()

        self._close = close
        return commit

    async def __aexit__(self, *_: object) -> None:
        await self._close()


def _bare(town: Town, postmaster: int | None) -> _Bare:
    return _Bare(town, postmaster)


async def _commits(commit: Commit, postmaster: int | None) -> tuple[float, float]:
    """Sign and commit often; return CPU and time of one."""
    key, took = Ed25519PrivateKey.generate(), []
    before, of_database = time.process_time(), _cpu(None, postmaster)
    count = 10 * DRIVERS  # the kernel counts the database's CPU in hundredths of a second
    for _ in range(count):
        began = time.perf_counter()
        text = os.urandom(TOKEN - 64)
        await commit(text + key.sign(text))
        took.append(time.perf_counter() - began)
    cpu = time.process_time() - before + _cpu(None, postmaster) - of_database
    return cpu / count, statistics.median(took)


# ---- statements ----


async def _counted(phones: list[Phone], work: list[tuple[str, str]], session: Any, base: str) -> Counter[str]:
    """Return how much is asked of the database for COUNTED decisions by a replica in this process."""
    phones, work = phones[:COUNTED], work[:COUNTED]
    wished = [await phone.wish(session, base, *each) for phone, each in zip(phones, work, strict=True)]
    with _statements() as seen:
        for phone, wish in zip(phones, wished, strict=True):
            outcome = await phone.confirm(session, base, *wish)
            assert outcome["state"] == "granted", outcome
    return seen


@contextmanager
def _statements() -> Iterator[Counter[str]]:
    seen: Counter[str] = Counter()
    writing: set[int] = set()

    def executes(connection: Any, _cursor: object, statement: str, *_: object) -> None:
        seen["statements"] += 1
        if statement.split(maxsplit=1)[0] in ("INSERT", "UPDATE", "DELETE"):
            writing.add(id(connection))

    def begins(_: object) -> None:
        seen["statements"] += 1

    def commits(connection: Any) -> None:
        seen["statements"] += 1
        seen["commits"] += 1
        seen["writes"] += id(connection) in writing
        writing.discard(id(connection))

    listeners = (("before_cursor_execute", executes), ("begin", begins), ("commit", commits))
    for name, listener in listeners:
        event.listen(Engine, name, listener)
    try:
        yield seen
    finally:
        for name, listener in listeners:
            event.remove(Engine, name, listener)
