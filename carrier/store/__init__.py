"""Where a carrier's cloud keeps what it knows: one database, SQLite or PostgreSQL, reached by transactions.

What it refuses to do: work on a schema that is older or newer than this program's, or say that something was written
before the database has said so. Errors of the database become ``StoreUnavailable`` here, and nowhere else.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from asyncpg import exceptions as of_asyncpg  # type: ignore[import-untyped]
from sqlalchemy import event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, DisconnectionError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine

from .tables import Prefix, is_id, new_id, sha256

__all__ = ["Prefix", "Store", "StoreUnavailable", "database_url", "is_id", "new_id", "sha256"]

_DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_WAIT: Final = 20
"""Seconds for which a transaction waits for others, or for a connection."""
_OF_SQLALCHEMY: Final = {
    "async_fallback",
    "async_creator_fn",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
}
# What is written contradicts what is there, or makes no sense: the caller's business, or a bug.
_MISTAKES: Final = (DataError, IntegrityError, ProgrammingError)
# While PostgreSQL starts, its own error comes out of connecting as it is.
_AWAY: Final = (DBAPIError, PoolTimeout, of_asyncpg.PostgresError, OSError, TimeoutError)


class StoreUnavailable(Exception):
    """The database does not answer. ``may_have_succeeded``: it was being asked to commit."""

    def __init__(self, why: str, *, may_have_succeeded: bool = False) -> None:
        """Say why."""
        super().__init__(why)
        self.may_have_succeeded = may_have_succeeded


def database_url(spelt: str) -> URL:
    """Return a URL of SQLite or PostgreSQL with the driver that is used for it; raise ValueError."""
    try:
        url = make_url(spelt)
    except ArgumentError as err:
        raise ValueError("not the URL of a database") from err
    if (driver := _DRIVERS.get(url.drivername)) is None:
        raise ValueError("a database is sqlite:///PATH or postgresql://...")
    if driver.startswith("sqlite") and (url.database or ":memory:") == ":memory:":
        raise ValueError("a database of SQLite has to be a file: sqlite:///PATH")
    return url.set(drivername=driver)


class Store:
    """The database of a carrier's cloud. Belongs to one event loop."""

    def __init__(self, url: URL) -> None:
        """Take what ``database_url`` returned. Connects when it is first used."""
        self.url: Final = url
        self.is_sqlite: Final = url.get_backend_name() == "sqlite"
        self._has_file = False
        common: dict[str, Any] = {"pool_timeout": _WAIT, "hide_parameters": True}
        if self.is_sqlite:
            # Writers take turns anyway; few connections wait for each other in fair order. Who reads has others.
            common |= {"pool_size": 4, "max_overflow": 0, "connect_args": {"timeout": _WAIT}}
            self._engine, self._reader = (create_async_engine(url, **common) for _ in range(2))
            for engine, begin in ((self._engine, _begin_to_write), (self._reader, _begin_to_read)):
                event.listen(engine.sync_engine, "connect", _prepare_sqlite)
                event.listen(engine.sync_engine, "begin", begin)
        else:
            common |= {"pool_size": 10, "max_overflow": 10}
            common |= {"connect_args": {"timeout": _WAIT, "command_timeout": _WAIT}}
            self._engine = create_async_engine(url, **common)
            # A read without BEGIN and COMMIT is one round trip in place of three.
            self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
            event.listen(self._engine.sync_engine, "checkout", _still_open)
        kind = _WholeSession if self.is_sqlite else AsyncSession
        self._sessions = async_sessionmaker(self._engine, class_=kind, expire_on_commit=False)
        self._readers = async_sessionmaker(self._reader, class_=kind, expire_on_commit=False, autoflush=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Give a session whose changes are committed at the end of the block, all or none.

        Raises StoreUnavailable. Never open a second one inside: the connections are few.
        """
        committing = False
        try:
            self._make_file()
            async with self._sessions() as session:
                yield session
                committing = True
                await session.commit()
        except _MISTAKES:
            raise
        except _AWAY as err:
            raise StoreUnavailable(_why(err), may_have_succeeded=committing) from err

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Give a session for a statement that reads, and waits for no writer. Raises StoreUnavailable.

        What two statements read may be of two moments; nothing that is written is certain to be kept.
        """
        try:
            self._make_file()
            async with self._readers() as session:
                yield session
        except _MISTAKES:
            raise
        except _AWAY as err:
            raise StoreUnavailable(_why(err)) from err

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Give a bare connection, for migrations and maintenance. Raises StoreUnavailable."""
        try:
            self._make_file()
            async with self._engine.connect() as connection:
                yield connection
        except _MISTAKES:
            raise
        except _AWAY as err:
            raise StoreUnavailable(_why(err)) from err

    async def scrub(self, *, anew: bool = True) -> None:
        """Make what was deleted unreadable in the database's own files, as far as the database can.

        SQLite: everything is written ``anew``, and the log of writes emptied. PostgreSQL gives space free by itself
        (autovacuum), and overwrites it with what comes next; nothing is done here.
        """
        if not self.is_sqlite:
            return
        async with self.connection() as connection:
            bare = await connection.execution_options(isolation_level="AUTOCOMMIT")
            # secure_delete zeroes what is deleted, but not what a page keeps when it is rearranged: hence VACUUM.
            if anew:
                await bare.execute(text("VACUUM"))
            await bare.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))

    def _make_file(self) -> None:
        """Make a new database of SQLite its owner's alone, and say why there can be none; raise OSError."""
        if self._has_file or not self.is_sqlite:
            return
        path = self.url.database
        assert path is not None, "it is a file"
        if not os.path.lexists(path):
            _make_sqlite(Path(path))
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        self._has_file = True

    def connect_options(self) -> dict[str, Any]:
        """Return by what asyncpg reaches this PostgreSQL, for a connection beside the transactions."""
        assert not self.is_sqlite
        _, options = self._engine.dialect.create_connect_args(self.url)
        return {name: value for name, value in options.items() if name not in _OF_SQLALCHEMY}

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()
        await self._reader.dispose()


async def _to_its_end[T](doing: Coroutine[Any, Any, T]) -> T:
    """Do something to its end, also if the caller is cancelled meanwhile; then that comes afterwards."""
    task = asyncio.get_running_loop().create_task(doing)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # it is not missed
        raise


def _whole(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    method = getattr(AsyncSession, name)

    async def whole(self: AsyncSession, *arguments: Any, **options: Any) -> Any:
        return await _to_its_end(method(self, *arguments, **options))

    return whole


class _WholeSession(AsyncSession):
    """A session whose every statement goes on to its end although whoever waits for it is cancelled.

    A statement of SQLite runs in a thread, and goes on there anyhow. Whoever is cancelled beside it makes SQLAlchemy
    leave its connection open, with the write lock that everybody else waits for.
    """


for _name in ("execute", "scalar", "scalars", "get", "get_one", "flush", "connection", "commit", "rollback", "close"):
    setattr(_WholeSession, _name, _whole(_name))


def _make_sqlite(path: Path) -> None:
    """Make an empty database with a write-ahead log, all at once; nothing if there is one meanwhile. Raises OSError.

    Of two that first open a bare file at once, one would be told that it is locked, however long it would wait: SQLite
    changes the kind of a database's log without waiting.
    """
    with TemporaryDirectory(prefix=".new-", dir=path.parent) as folder:  # its owner's alone
        made = Path(folder, path.name)
        made.touch(0o600)
        try:
            with closing(sqlite3.connect(made)) as db:
                db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.Error as err:
            raise OSError(str(err)) from err
        with suppress(FileExistsError):
            os.link(made, path)


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # Python's sqlite3 would begin transactions when it likes
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_to_write(connection: Any) -> None:
    # Not a deferred one: that fails at its first write if another has written since, however long one would wait.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_to_read(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")


def _still_open(_: object, record: Any, __: object) -> None:
    """Let no connection be used that PostgreSQL has closed meanwhile: asyncpg knows without asking."""
    if record.driver_connection.is_closed():
        raise DisconnectionError


def _why(err: BaseException) -> str:
    """Return what the database said, without the statement and its values."""
    said = getattr(err, "orig", None) or err
    if isinstance(said.__cause__, of_asyncpg.DataError):  # asyncpg repeats what it was given
        return type(said.__cause__).__name__
    return (str(said) or type(said).__name__).strip().splitlines()[0]
