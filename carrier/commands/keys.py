"""The commands of keys: make, show, revoke and publish them."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import working
from .working import WHO, Commands, command, explained, group, in_session, in_store, shown, table

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from carrier.config import Config
    from carrier.store import Store


def add(commands: Commands) -> None:
    """Add them."""
    file: dict[str, Any] = {"type": Path, "metavar": "FILE", "required": True}
    of = group(commands, "keys", "make, show, revoke and publish keys")
    command(of, "root", _keys_root, "make a root key, to be kept offline", root={**file, "help": "the new file"})
    command(of, "rotate", _keys_rotate, "make the next signing key; then publish")
    command(of, "revoke", _keys_revoke, "let a key sign no more; then publish", "kid")
    command(
        of,
        "publish",
        _keys_publish,
        "let the root key sign the set of keys for all buildings",
        root={**file, "help": "the root key, needed at this moment only"},
        next_root={
            "type": Path,
            "metavar": "FILE",
            "help": "the root key that may follow: buildings are told of it now",
        },
    )
    command(of, "list", _keys_list, "show all keys")


def _keys_root(given: argparse.Namespace) -> int:
    with explained():
        from carrier import keys
        from vestibule_core.keys import SigningKey

        key = SigningKey.generate()
        keys.write_key(given.root, key)
    print(f"root key    {given.root}")
    print(f"thumbprint  {key.kid}")
    print(f"SHA-256     {keys.fingerprint(key).hex()}")
    print("Keep the file offline, and a copy elsewhere: whoever has it can name keys that open doors.")
    return 0


def _keys_rotate(given: argparse.Namespace) -> int:
    async def work(store: Store, config: Config) -> list[tuple[str, str, str]]:
        from carrier import keys

        async with store.transaction() as session:
            made = await keys.rotate(session, keys.KeyFolder(config.keys), WHO, working.now())
            return [("made", row.kid, f"{_USES[row.use]} from {shown(row.sign_from)}") for row in made]

    print(table(in_store(given, work)))
    print("It signs nothing before it is published: `vestibule-carrier keys publish --root FILE`")
    return 0


_USES: Final = {"sig": "signs tokens", "issued": "signs the daily list"}


def _keys_revoke(given: argparse.Namespace) -> int:
    from carrier import keys

    in_session(given, lambda session: keys.revoke(session, given.kid, WHO, working.now()))
    print("It signs nothing any more. Buildings hear of it from the next set: `keys publish --root FILE`, now")
    return 0


def _keys_publish(given: argparse.Namespace) -> int:
    async def work(store: Store, config: Config) -> tuple[str, ...]:
        from carrier import keys

        root = keys.read_key(given.root)
        following = keys.read_key(given.next_root) if given.next_root else None
        async with store.transaction() as session:
            row = await keys.publish(session, config.issuer, root, following, WHO, working.now())
            ends = datetime.fromtimestamp(row.exp, UTC)
            return "published", f"version {row.version}", f"{len(row.kids)} keys, good until {shown(ends)}"

    print(table([in_store(given, work)]))
    return 0


def _keys_list(given: argparse.Namespace) -> int:
    async def work(session: AsyncSession) -> list[tuple[str, ...]]:
        from carrier import keys

        published = await keys.newest_set(session)
        kids = published.kids if published else []
        return [
            (
                "revoked" if row.revoked_at else "published" if row.kid in kids else "NOT PUBLISHED",
                row.kid,
                f"{_USES[row.use]} from {shown(row.sign_from)} to {shown(row.sign_until)}",
            )
            for row in await keys.listed(session)
        ]

    print(table(in_session(given, work)) or "no keys: `vestibule-carrier keys rotate` makes the first one")
    return 0
