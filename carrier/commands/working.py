"""How the commands work: what each takes, on which database, and how it says what it found.

What it refuses to do: load a database's packages before a command runs, or end in a traceback for what somebody typed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from carrier.config import Config
    from carrier.store import Store

DEFAULT_CONFIG: Final = Path("/etc/vestibule/carrier.toml")
WHO: Final = "command"

type Run = Callable[[argparse.Namespace], int]
type Commands = argparse._SubParsersAction[argparse.ArgumentParser]


class Unusable(Exception):
    """A command cannot do what it was asked for. The text says why and what to do."""


# ---- what there is to type ----


def command(within: Any, named: str, run: Run, what: str, *arguments: str, **options: dict[str, Any]) -> None:
    """Add a command to a parser's commands, with what it takes."""
    parser = within.add_parser(named, help=what, description=f"{what[0].upper()}{what[1:]}.")
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=f"(default: {DEFAULT_CONFIG})"
    )
    for argument in arguments:
        kind = Path if argument == "file" else _printable
        parser.add_argument(argument, metavar=argument.upper(), type=kind)
    for name_, option in options.items():
        kinds = {} if option.get("action") == "store_true" else {"type": _printable}
        parser.add_argument(f"--{name_.replace('_', '-')}", **kinds | option)
    parser.set_defaults(run=run)


def group(commands: Commands, name: str, what: str) -> Any:
    """Add a command that has commands of its own, and return those."""
    parser = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


# ---- how they work ----


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn what can be wrong into words for whoever typed the command. The one place for it."""
    from carrier.config import ConfigError
    from carrier.drivers import NoSuch, NotPossible
    from carrier.keys import KeyUnusable
    from carrier.manifests import ManifestError
    from carrier.store import StoreUnavailable
    from carrier.store.schema import SchemaDiffers
    from vestibule_core.errors import VestibuleError

    try:
        yield
    except StoreUnavailable as err:
        raise Unusable(f"the database does not answer: {err}") from err
    except (ConfigError, NoSuch, NotPossible, KeyUnusable, ManifestError, SchemaDiffers, VestibuleError) as err:
        raise Unusable(str(err)) from err


@contextlib.asynccontextmanager
async def _opened(config: Config) -> AsyncIterator[Store]:
    from carrier.store import Store, schema

    store = Store(config.database)
    try:
        await schema.check(store)
        yield store
    finally:
        await store.close()


def in_store[T](given: argparse.Namespace, work: Callable[[Store, Config], Awaitable[T]]) -> T:
    """Return what ``work`` makes of the store of whoever typed, and of the configuration; raise Unusable."""
    with explained():
        from carrier.config import read_config

        config = read_config(given.config)

        async def working() -> T:
            async with _opened(config) as store:
                return await work(store, config)

        return asyncio.run(working())


def in_session[T](given: argparse.Namespace, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Return what ``work`` does in one transaction; raise Unusable."""

    async def working(store: Store, _: Config) -> T:
        async with store.transaction() as session:
            return await work(session)

    return in_store(given, working)


def now() -> datetime:
    """Return what time it is."""
    return datetime.now(UTC)


# ---- words ----


def _printable(text: str) -> str:
    """Return an argument that a database can be asked for, whichever it is."""
    if not text.isprintable():
        raise argparse.ArgumentTypeError("this holds what cannot be printed")
    return text


def number(text: str) -> int:
    """Return an argument that is a number which databases count to."""
    if not (text.isascii() and text.isdecimal()) or not 1 <= (value := int(text)) < 2**63:
        raise argparse.ArgumentTypeError("this has to be a number from 1")
    return value


def text_of(path: Path) -> str:
    """Return what stands in a file; raise Unusable, OSError."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as err:
        raise Unusable(f"{path}: this is not UTF-8 text") from err


def shown(at: datetime) -> str:
    """Return a moment for a person."""
    return at.strftime("%Y-%m-%d %H:%M UTC")


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as columns; the last one is as wide as it is."""
    rows = [tuple(row) for row in rows]
    wide = [max((len(row[column]) for row in rows if len(row) > column + 1), default=0) for column in range(3)]
    return "\n".join("  ".join(cell.ljust(wide[n]) for n, cell in enumerate(row)).rstrip() for row in rows)
