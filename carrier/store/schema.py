"""The schema of the database: which version it has, and how it gets this program's.

What it refuses to do: change anything on its own. ``vestibule-carrier migrate`` does, in one transaction; everything
else only looks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from . import Store

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x76_65_73_74_69
"""PostgreSQL's advisory lock, so that of two that migrate one waits."""


class SchemaDiffers(Exception):
    """The database has another schema than this program. The text says what to do."""


async def check(store: Store) -> None:
    """Raise SchemaDiffers unless the database has exactly this program's schema; raise StoreUnavailable."""
    async with store.connection() as connection:
        await connection.run_sync(_check)


async def migrate(store: Store) -> tuple[str | None, str]:
    """Give the database this program's schema; return the revisions before and after.

    Raises SchemaDiffers if it is newer, or not ours; StoreUnavailable.
    """
    async with store.connection() as connection:
        revisions = await connection.run_sync(_migrate)
        await connection.commit()
        return revisions


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _revisions(connection: Connection) -> tuple[str | None, str, bool]:
    """Return the database's revision, this program's, and whether this program knows the former."""
    scripts = ScriptDirectory.from_config(_config())
    head = scripts.get_current_head()
    assert head is not None, "there is a first migration"
    current = MigrationContext.configure(connection).get_current_revision()
    return current, head, current is None or current in {script.revision for script in scripts.walk_revisions()}


def _check(connection: Connection) -> None:
    current, head, known = _revisions(connection)
    if not known:
        raise SchemaDiffers(_newer(current))
    if current is None:
        raise SchemaDiffers("the database is empty: run `vestibule-carrier migrate` first")
    if current != head:
        raise SchemaDiffers(
            f"the database has the older schema {current}, this program needs {head}: stop every replica, make a "
            "backup, then run `vestibule-carrier migrate`"
        )


def _migrate(connection: Connection) -> tuple[str | None, str]:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    current, head, known = _revisions(connection)
    if not known:
        raise SchemaDiffers(_newer(current))
    if current is None and (others := inspect(connection).get_table_names()):
        raise SchemaDiffers(
            f"the database holds tables of something else ({', '.join(sorted(others)[:3])}): use another one"
        )
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return current, head


def _newer(revision: str | None) -> str:
    return (
        f"the database has the schema {revision}, which is newer than this program: install the newer "
        "vestibule-carrier again, or restore the backup from before it"
    )
