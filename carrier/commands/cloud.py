"""The commands of the cloud itself: be it, say whether it could be, and make its database what it has to be."""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from . import working
from .working import Commands, command, explained, in_store, shown, table

if TYPE_CHECKING:
    from carrier.config import Config
    from carrier.store import Store

_SOON: Final = timedelta(days=7)


def add(commands: Commands) -> None:
    """Add them."""
    command(commands, "run", _run, "be the carrier's cloud, until told to stop")
    command(commands, "check", _check, "say whether it could start, and what has to be done soon; changes nothing")
    command(commands, "migrate", _migrate, "give the database this program's schema; stop every replica first")


def _run(given: argparse.Namespace) -> int:
    with explained():
        from carrier.config import read_config

        config = read_config(given.config)
        from carrier.app import serve

        asyncio.run(serve(config))
    return 0


def _check(given: argparse.Namespace) -> int:
    async def work(store: Store, config: Config) -> list[tuple[str, ...]]:
        from carrier import keys
        from carrier.store.tables import KeyUse

        now = working.now()
        rows: list[tuple[str, ...]] = [("config", str(given.config), "is right")]
        async with store.transaction() as session:
            rows.append(("database", store.url.get_backend_name(), "answers, and has this program's schema"))
            kid = await keys.current(session, KeyUse.TOKENS, now)
            await keys.KeyFolder(config.keys).signer(kid)
            rows.append(("key", kid, "signs"))
            published = await keys.newest_set(session)
            assert published is not None, "a current key is published"
            ends = datetime.fromtimestamp(published.exp, UTC)
            rows.append(("key set", f"version {published.version}", f"good until {shown(ends)}"))
            if ends < now + _SOON:
                rows.append(("SOON", "keys publish", "buildings will not believe this set for much longer"))
            ends = max(key.sign_until for key in await keys.listed(session) if key.use == "sig" and not key.revoked_at)
            if ends < now + 2 * _SOON:
                rows.append(("SOON", "keys rotate", f"no key signs after {shown(ends)}"))
        return rows

    print(table(in_store(given, work)))
    return 0


def _migrate(given: argparse.Namespace) -> int:
    with explained():
        from carrier.config import read_config
        from carrier.store import Store, schema

        config = read_config(given.config)

        async def working() -> tuple[str | None, str]:
            store = Store(config.database)
            try:
                return await schema.migrate(store)
            finally:
                await store.close()

        before, after = asyncio.run(working())
    print(f"schema      {after}" + (", as before" if before == after else f", was {before or 'empty'}"))
    return 0
