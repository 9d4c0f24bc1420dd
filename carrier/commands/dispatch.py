"""The commands of whoever dispatches: manifests, keys of programs, alarms, the audit, and forgetting."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from . import working
from .working import WHO, Commands, Unusable, command, group, in_session, in_store, number, shown, table, text_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from carrier.config import Config
    from carrier.store import Store


def add(commands: Commands) -> None:
    """Add them."""
    of = group(commands, "manifest", "bring routes")
    command(of, "import", _manifest_import, "bring all routes of a file in, or none", "file")
    of = group(commands, "api-key", "add, show and revoke keys of dispatchers' programs")
    command(
        of,
        "add",
        _api_key_add,
        "add a key; its secret is shown once",
        "name",
        scope={
            "action": "append",
            "required": True,
            "help": "read, manifests, drivers, alarms or audit; may be repeated",
        },
    )
    command(of, "list", _api_key_list, "show all keys")
    command(of, "revoke", _api_key_revoke, "revoke a key", "key")
    command(
        commands,
        "alarms",
        _alarms,
        "show what somebody has to look into",
        seen={"type": number, "metavar": "NUMBER", "help": "say that somebody has looked into this one"},
        all={"action": "store_true", "help": "show those, too, that were seen"},
    )
    command(
        commands, "audit", _audit, "show who changed what", last={"type": number, "default": 50, "metavar": "COUNT"}
    )
    command(commands, "retain", _retain, "delete what is older than its time; a running cloud does it by itself")


def _manifest_import(given: argparse.Namespace) -> int:
    from carrier import manifests

    async def work(session: AsyncSession) -> list[str]:
        text = text_of(given.file)
        routes = manifests.read_csv(text) if given.file.suffix.lower() == ".csv" else manifests.read_json(text)
        return await manifests.bring(session, routes, WHO, working.now())

    for route in in_session(given, work):
        print(route)
    return 0


def _api_key_add(given: argparse.Namespace) -> int:
    from carrier import api_keys

    try:
        scopes = [api_keys.Scope(scope) for scope in given.scope]
    except ValueError as err:
        raise Unusable(f"a scope is one of {', '.join(api_keys.Scope)}") from err
    key, secret = in_session(given, lambda session: api_keys.add(session, given.name, scopes, WHO, working.now()))
    print(f"key         {key.id}, may {' '.join(key.scopes)}")
    print(f"secret      {secret}")
    print("It is shown this once, and kept as a hash only.")
    return 0


def _api_key_list(given: argparse.Namespace) -> int:
    from carrier import api_keys

    keys = in_session(given, api_keys.listed)
    print(table((key.id, key.name, "revoked" if key.revoked_at else " ".join(key.scopes)) for key in keys) or "no keys")
    return 0


def _api_key_revoke(given: argparse.Namespace) -> int:
    from carrier import api_keys

    in_session(given, lambda session: api_keys.revoke(session, given.key, WHO, working.now()))
    print("revoked")
    return 0


def _alarms(given: argparse.Namespace) -> int:
    from carrier import alarms

    if given.seen is not None:
        in_session(given, lambda session: alarms.see(session, given.seen, WHO, working.now()))
        print("seen")
        return 0
    found = in_session(given, lambda session: alarms.listed(session, 200, seen=None if given.all else False))
    rows = [
        (
            str(each.id),
            f"{shown(each.at)}{', seen' if each.seen_at else ''}",
            f"{each.kind} {each.subject} building={each.building_id or '-'} {_detail(each.detail)}",
        )
        for each in reversed(found)
    ]
    print(table(rows) or "no alarms")
    return 0


def _audit(given: argparse.Namespace) -> int:
    async def work(session: AsyncSession) -> list[tuple[str, ...]]:
        from carrier import audit

        return [
            (str(entry.seq), shown(entry.at), f"{entry.who}: {entry.what} {entry.subject} {_detail(entry.detail)}")
            for entry in reversed(await audit.newest(session, given.last))
        ]

    print(table(in_session(given, work)) or "nothing was changed yet")
    return 0


def _detail(detail: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in detail.items() if value is not None)


def _retain(given: argparse.Namespace) -> int:
    async def work(store: Store, config: Config) -> str:
        from carrier.retention import retain

        gone = await retain(store, config.retention, WHO, working.now(), scrub=True)
        return (
            f"deleted     evidence of {gone.evidence} requests, {gone.references} references, "
            f"{gone.pseudonyms} pseudonyms"
        )

    print(in_store(given, work))
    return 0
