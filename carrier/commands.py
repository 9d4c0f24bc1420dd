"""``vestibule-carrier run``, ``check``, ``migrate``, and what looks after keys, drivers, buildings and routes.

They work on the database that the running cloud works on, by the same functions as its API. The heavy part of the
program is loaded only by a command that runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from vestibule_core.link.code import EnrolmentCode

    from .config import Config
    from .store import Store
    from .store.tables import Door

DEFAULT_CONFIG: Final = Path("/etc/vestibule/carrier.toml")
_WHO: Final = "command"
_SOON: Final = timedelta(days=7)
_LONGEST_CODE: Final = 30
"""Days for which an enrolment code may be good."""

type Run = Callable[[argparse.Namespace], int]


class Unusable(Exception):
    """A command cannot do what it was asked for. The text says why and what to do."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add them."""

    def command(within: Any, named: str, run: Run, what: str, *arguments: str, **options: dict[str, Any]) -> None:
        parser = within.add_parser(named, help=what, description=f"{what[0].upper()}{what[1:]}.")
        parser.add_argument(
            "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=f"(default: {DEFAULT_CONFIG})"
        )
        for argument in arguments:
            parser.add_argument(argument, metavar=argument.upper())
        for name_, option in options.items():
            parser.add_argument(f"--{name_.replace('_', '-')}", **option)
        parser.set_defaults(run=run)

    def group(name: str, what: str) -> Any:
        parser = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    file: dict[str, Any] = {"type": Path, "metavar": "FILE", "required": True}
    day = {"metavar": "DAY", "help": "the last day of it, UTC: 2027-03-31; without, nothing is vetted"}

    command(commands, "run", _run, "be the carrier's cloud, until told to stop")
    command(commands, "check", _check, "say whether it could start, and what has to be done soon; changes nothing")
    command(commands, "migrate", _migrate, "give the database this program's schema; stop every replica first")
    of = group("keys", "make, show, revoke and publish keys")
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
    of = group("driver", "add, invite, vet, revoke and remove drivers")
    command(of, "add", _driver_add, "add a driver", "name", vetted_until=day)
    command(of, "list", _driver_list, "show all drivers and their devices")
    command(of, "invite", _driver_invite, "make a one-time link by which a driver adds a phone", "driver")
    command(of, "revoke", _driver_revoke, "revoke a device, or every device of a driver", "driver_or_device")
    command(
        of,
        "vetting",
        _driver_vetting,
        "say until when a driver is vetted",
        "driver",
        until={**day, "dest": "vetted_until"},
    )
    command(of, "remove", _driver_remove, "remove a driver, with name and devices", "driver")
    of = group("building", "invite, add, show and remove buildings")
    command(
        of,
        "invite",
        _building_invite,
        "make an enrolment code, by which a building connects itself",
        name={"required": True, "metavar": "NAME", "help": "how the building is called here"},
        building={"metavar": "ID", "help": "it is one more controller of this building"},
        days={"type": int, "default": 7, "metavar": "DAYS", "help": "for which the code is good (default: 7)"},
    )
    command(
        of,
        "add",
        _building_add,
        "add a building",
        "name",
        zone={"required": True, "metavar": "ZONE", "help": "its time zone: Europe/Berlin"},
        controller_key={"required": True, "metavar": "KEY", "help": "the key its controller signs with: name+id+key"},
        doors={**file, "help": 'JSON: [{"id", "name", "lat", "lon", "radius"}, ...]'},
    )
    command(of, "list", _building_list, "show all buildings, their controllers, links and doors")
    command(
        of,
        "remove",
        _building_remove,
        "remove a building: none of its doors is asked for any more",
        "building",
        controller={"metavar": "KEY", "help": "only this one of its controllers: name+id+key"},
    )
    of = group("manifest", "bring routes")
    command(of, "import", _manifest_import, "bring all routes of a file in, or none", "file")
    of = group("api-key", "add, show and revoke keys of dispatchers' programs")
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
        seen={"type": int, "metavar": "NUMBER", "help": "say that somebody has looked into this one"},
        all={"action": "store_true", "help": "show those, too, that were seen"},
    )
    command(commands, "audit", _audit, "show who changed what", last={"type": int, "default": 50, "metavar": "COUNT"})
    command(commands, "retain", _retain, "delete what is older than its time; a running cloud does it by itself")


# ---- how they work ----


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn what can be wrong into words for whoever typed the command. The one place for it."""
    from vestibule_core.errors import VestibuleError

    from .config import ConfigError
    from .drivers import NoSuch, NotPossible
    from .keys import KeyUnusable
    from .manifests import ManifestError
    from .store import StoreUnavailable
    from .store.schema import SchemaDiffers

    try:
        yield
    except StoreUnavailable as err:
        raise Unusable(f"the database does not answer: {err}") from err
    except (ConfigError, NoSuch, NotPossible, KeyUnusable, ManifestError, SchemaDiffers, VestibuleError) as err:
        raise Unusable(str(err)) from err


@contextlib.asynccontextmanager
async def _opened(config: Config) -> AsyncIterator[Store]:
    from .store import Store, schema

    store = Store(config.database)
    try:
        await schema.check(store)
        yield store
    finally:
        await store.close()


def _in_store[T](given: argparse.Namespace, work: Callable[[Store, Config], Awaitable[T]]) -> T:
    with explained():
        from .config import read_config

        config = read_config(given.config)

        async def working() -> T:
            async with _opened(config) as store:
                return await work(store, config)

        return asyncio.run(working())


def _in_session[T](given: argparse.Namespace, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    async def working(store: Store, _: Config) -> T:
        async with store.transaction() as session:
            return await work(session)

    return _in_store(given, working)


def _now() -> datetime:
    return datetime.now(UTC)


# ---- the cloud ----


def _run(given: argparse.Namespace) -> int:
    with explained():
        from .config import read_config

        config = read_config(given.config)
        from .app import serve

        asyncio.run(serve(config))
    return 0


def _check(given: argparse.Namespace) -> int:
    async def work(store: Store, config: Config) -> list[tuple[str, ...]]:
        from . import keys
        from .store.tables import KeyUse

        now = _now()
        rows: list[tuple[str, ...]] = [("config", str(given.config), "is right")]
        async with store.transaction() as session:
            rows.append(("database", store.url.get_backend_name(), "answers, and has this program's schema"))
            kid = await keys.current(session, KeyUse.TOKENS, now)
            await keys.KeyFolder(config.keys).signer(kid)
            rows.append(("key", kid, "signs"))
            published = await keys.newest_set(session)
            assert published is not None, "a current key is published"
            ends = datetime.fromtimestamp(published.exp, UTC)
            rows.append(("key set", f"version {published.version}", f"good until {_shown(ends)}"))
            if ends < now + _SOON:
                rows.append(("SOON", "keys publish", "buildings will not believe this set for much longer"))
            ends = max(key.sign_until for key in await keys.listed(session) if key.use == "sig" and not key.revoked_at)
            if ends < now + 2 * _SOON:
                rows.append(("SOON", "keys rotate", f"no key signs after {_shown(ends)}"))
        return rows

    print(_table(_in_store(given, work)))
    return 0


def _migrate(given: argparse.Namespace) -> int:
    with explained():
        from .config import read_config
        from .store import Store, schema

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


# ---- keys ----


def _keys_root(given: argparse.Namespace) -> int:
    with explained():
        from vestibule_core.keys import SigningKey

        from . import keys

        key = SigningKey.generate()
        keys.write_key(given.root, key)
    print(f"root key    {given.root}")
    print(f"thumbprint  {key.kid}")
    print(f"SHA-256     {keys.fingerprint(key).hex()}")
    print("Keep the file offline, and a copy elsewhere: whoever has it can name keys that open doors.")
    return 0


def _keys_rotate(given: argparse.Namespace) -> int:
    async def work(store: Store, config: Config) -> list[tuple[str, str, str]]:
        from . import keys

        async with store.transaction() as session:
            made = await keys.rotate(session, keys.KeyFolder(config.keys), _WHO, _now())
            return [("made", row.kid, f"{_USES[row.use]} from {_shown(row.sign_from)}") for row in made]

    print(_table(_in_store(given, work)))
    print("It signs nothing before it is published: `vestibule-carrier keys publish --root FILE`")
    return 0


_USES: Final = {"sig": "signs tokens", "issued": "signs the daily list"}


def _keys_revoke(given: argparse.Namespace) -> int:
    from . import keys

    _in_session(given, lambda session: keys.revoke(session, given.kid, _WHO, _now()))
    print("It signs nothing any more. Buildings hear of it from the next set: `keys publish --root FILE`, now")
    return 0


def _keys_publish(given: argparse.Namespace) -> int:
    async def work(store: Store, config: Config) -> tuple[str, ...]:
        from . import keys

        root = keys.read_key(given.root)
        following = keys.read_key(given.next_root) if given.next_root else None
        async with store.transaction() as session:
            row = await keys.publish(session, config.issuer, root, following, _WHO, _now())
            ends = datetime.fromtimestamp(row.exp, UTC)
            return "published", f"version {row.version}", f"{len(row.kids)} keys, good until {_shown(ends)}"

    print(_table([_in_store(given, work)]))
    return 0


def _keys_list(given: argparse.Namespace) -> int:
    async def work(session: AsyncSession) -> list[tuple[str, ...]]:
        from . import keys

        published = await keys.newest_set(session)
        kids = published.kids if published else []
        return [
            (
                "revoked" if row.revoked_at else "published" if row.kid in kids else "NOT PUBLISHED",
                row.kid,
                f"{_USES[row.use]} from {_shown(row.sign_from)} to {_shown(row.sign_until)}",
            )
            for row in await keys.listed(session)
        ]

    print(_table(_in_session(given, work)) or "no keys: `vestibule-carrier keys rotate` makes the first one")
    return 0


# ---- drivers ----


def _driver_add(given: argparse.Namespace) -> int:
    from . import drivers

    until = _last_day(given.vetted_until)
    driver = _in_session(given, lambda session: drivers.add(session, given.name, until, _WHO, _now()))
    print(driver.id)
    return 0


def _driver_list(given: argparse.Namespace) -> int:
    from . import drivers

    rows: list[tuple[str, ...]] = []
    for driver, devices in _in_session(given, drivers.listed):
        vetted = f"vetted until {_shown(driver.vetted_until)}" if driver.vetted_until else "NOT VETTED"
        rows.append((driver.id, driver.name or "", vetted if driver.active else f"NOT ACTIVE, {vetted}"))
        rows += [
            ("  device", device.id, f"revoked {_shown(device.revoked_at)}" if device.revoked_at else "may be used")
            for device in devices
        ]
    print(_table(rows) or "no drivers")
    return 0


def _driver_invite(given: argparse.Namespace) -> int:
    async def work(store: Store, config: Config) -> str:
        from . import drivers

        async with store.transaction() as session:
            return f"{config.origin}/#join={await drivers.invite(session, given.driver, _WHO, _now())}"

    print(_in_store(given, work))
    print("For the driver alone, good for 24 hours, once. An earlier link is void.")
    return 0


def _driver_revoke(given: argparse.Namespace) -> int:
    from . import drivers

    count = _in_session(given, lambda session: drivers.revoke(session, given.driver_or_device, _WHO, _now()))
    print(f"revoked     {count} {'device' if count == 1 else 'devices'}")
    return 0


def _driver_vetting(given: argparse.Namespace) -> int:
    from . import drivers

    until = _last_day(given.vetted_until)
    _in_session(given, lambda session: drivers.vet(session, given.driver, until, _WHO, _now()))
    print("not vetted any more" if until is None else f"vetted until {_shown(until)}")
    return 0


def _driver_remove(given: argparse.Namespace) -> int:
    async def work(store: Store, _: Config) -> None:
        from . import drivers

        async with store.transaction() as session:
            await drivers.remove(session, given.driver, _WHO, _now())
        await store.scrub()

    _in_store(given, work)
    print("removed     evidence of the driver's requests is deleted when its time is over")
    return 0


def _last_day(text: str | None) -> datetime | None:
    """Return the end of a day."""
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except ValueError as err:
        raise Unusable("a day is written like 2027-03-31") from err


# ---- buildings, routes, API keys ----


def _building_add(given: argparse.Namespace) -> int:
    async def work(session: AsyncSession) -> str:
        from . import buildings

        doors = buildings.read_doors(_text(given.doors))
        return (await buildings.add(session, given.name, given.zone, given.controller_key, doors, _WHO, _now())).id

    print(_in_session(given, work))
    return 0


def _building_invite(given: argparse.Namespace) -> int:
    async def work(store: Store, config: Config) -> EnrolmentCode:
        import hashlib

        from vestibule_core.link.code import EnrolmentCode

        from . import enrolment, keys

        async with store.transaction() as session:
            if (published := await keys.newest_set(session)) is None:
                raise Unusable("publish keys first: `vestibule-carrier keys rotate`, then `keys publish --root FILE`")
            lasts = timedelta(days=given.days)
            secret = await enrolment.invite(session, given.name, given.building, lasts, _WHO, _now())
            return EnrolmentCode(config.address, hashlib.sha256(published.root).digest(), secret)

    if not 1 <= given.days <= _LONGEST_CODE:
        raise Unusable(f"a code is good for 1 to {_LONGEST_CODE} days")
    print(_in_store(given, work))
    print(f"For the manager of the building alone, good for {given.days} days, for one controller.")
    return 0


def _building_list(given: argparse.Namespace) -> int:
    from . import buildings

    rows: list[tuple[str, ...]] = []
    for each in _in_session(given, buildings.listed):
        rows.append((each.building.id, each.building.name, each.building.zone))
        rows += [
            ("  controller", controller.key, f"connected since {_shown(link.since)}" if link else "NOT CONNECTED")
            for controller, link in each.controllers
        ]
        rows += [("  door", door.id, door.name + _flaw(door, each.offered)) for door in each.doors]
    print(_table(rows) or "no buildings")
    return 0


def _flaw(door: Door, offered: set[str]) -> str:
    if door.id not in offered:
        return ", NO CONTROLLER OFFERS IT, so it never opens"
    return "" if door.lat is not None else ", NO POSITION, so it never opens"


def _building_remove(given: argparse.Namespace) -> int:
    from . import buildings

    if given.controller:
        _in_session(given, lambda session: buildings.remove_controller(session, given.controller, _WHO, _now()))
    else:
        _in_session(given, lambda session: buildings.remove(session, given.building, _WHO, _now()))
    print("removed     a link that is there is ended within seconds")
    return 0


def _manifest_import(given: argparse.Namespace) -> int:
    from . import manifests

    async def work(session: AsyncSession) -> list[str]:
        path = Path(given.file)
        text = _text(path)
        routes = manifests.read_csv(text) if path.suffix.lower() == ".csv" else manifests.read_json(text)
        return await manifests.bring(session, routes, _WHO, _now())

    for route in _in_session(given, work):
        print(route)
    return 0


def _api_key_add(given: argparse.Namespace) -> int:
    from . import api_keys

    try:
        scopes = [api_keys.Scope(scope) for scope in given.scope]
    except ValueError as err:
        raise Unusable(f"a scope is one of {', '.join(api_keys.Scope)}") from err
    key, secret = _in_session(given, lambda session: api_keys.add(session, given.name, scopes, _WHO, _now()))
    print(f"key         {key.id}, may {' '.join(key.scopes)}")
    print(f"secret      {secret}")
    print("It is shown this once, and kept as a hash only.")
    return 0


def _api_key_list(given: argparse.Namespace) -> int:
    from . import api_keys

    keys = _in_session(given, api_keys.listed)
    print(
        _table((key.id, key.name, "revoked" if key.revoked_at else " ".join(key.scopes)) for key in keys) or "no keys"
    )
    return 0


def _api_key_revoke(given: argparse.Namespace) -> int:
    from . import api_keys

    _in_session(given, lambda session: api_keys.revoke(session, given.key, _WHO, _now()))
    print("revoked")
    return 0


def _alarms(given: argparse.Namespace) -> int:
    from . import alarms

    if given.seen is not None:
        _in_session(given, lambda session: alarms.see(session, given.seen, _WHO, _now()))
        print("seen")
        return 0
    found = _in_session(given, lambda session: alarms.listed(session, 200, seen=None if given.all else False))
    rows = [
        (
            str(each.id),
            f"{_shown(each.at)}{', seen' if each.seen_at else ''}",
            f"{each.kind} {each.subject} building={each.building_id or '-'} {_detail(each.detail)}",
        )
        for each in reversed(found)
    ]
    print(_table(rows) or "no alarms")
    return 0


def _audit(given: argparse.Namespace) -> int:
    async def work(session: AsyncSession) -> list[tuple[str, ...]]:
        from . import audit

        return [
            (str(entry.seq), _shown(entry.at), f"{entry.who}: {entry.what} {entry.subject} {_detail(entry.detail)}")
            for entry in reversed(await audit.newest(session, given.last))
        ]

    print(_table(_in_session(given, work)) or "nothing was changed yet")
    return 0


def _detail(detail: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in detail.items() if value is not None)


def _retain(given: argparse.Namespace) -> int:
    async def work(store: Store, config: Config) -> str:
        from .retention import retain

        gone = await retain(store, config.retention, _WHO, _now())
        return (
            f"deleted     evidence of {gone.evidence} requests, {gone.references} references, "
            f"{gone.pseudonyms} pseudonyms"
        )

    print(_in_store(given, work))
    return 0


# ---- words ----


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as err:
        raise Unusable(f"{path}: this is not UTF-8 text") from err


def _shown(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")


def _table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as columns; the last one is as wide as it is."""
    rows = [tuple(row) for row in rows]
    wide = [max((len(row[column]) for row in rows if len(row) > column + 1), default=0) for column in range(3)]
    return "\n".join("  ".join(cell.ljust(wide[n]) for n, cell in enumerate(row)).rstrip() for row in rows)
