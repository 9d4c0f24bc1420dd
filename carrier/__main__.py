"""``vestibule-carrier``: the commands, and how they end."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version

from . import commands
from .conformance import command as conformance

# A thumbprint, a root key, a challenge (all random: one in 64 begins so), or a place south of the equator.
_NO_OPTION = re.compile(r"-[A-Za-z0-9_-]{21,}|-[0-9.]+,.*")
_EXTRA = {"aiosqlite", "alembic", "asyncpg", "sqlalchemy", "webauthn"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status. 0: done; 1: what was judged is refused; 2: not done, standard error
    says why; 130: interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="vestibule-carrier", description="A carrier's cloud: who may open a door now."
    )
    parser.add_argument("--version", action="version", version=version("vestibule-gateway"))
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands.add_commands(subparsers)
    conformance.add_command(subparsers)
    given = parser.parse_args(_unmistaken(sys.argv[1:] if arguments is None else arguments))
    try:
        return int(given.run(given))
    except commands.Unusable as err:
        return _complain(str(err))
    except OSError as err:
        return _complain(f"{err.filename}: {err.strerror}" if err.filename else str(err))
    except ModuleNotFoundError as err:
        if (err.name or "").partition(".")[0] not in _EXTRA:
            raise
        return _complain("this needs more packages: pip install 'vestibule-gateway[carrier]'")
    except KeyboardInterrupt:
        return 130


def _unmistaken(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with what begins with a dash and is no option where it cannot be taken for one: behind ``=``
    after an option, behind ``--`` otherwise.
    """
    ends = arguments.index("--") if "--" in arguments else len(arguments)
    first: list[str] = []
    last: list[str] = []
    for each in arguments[:ends]:
        if not _NO_OPTION.fullmatch(each):
            first.append(each)
        elif first and re.fullmatch("--[a-z-]+", first[-1]):
            first[-1] += f"={each}"
        else:
            last.append(each)
    last += arguments[ends + 1 :]
    return [*first, *(("--", *last) if last else ())]


def _complain(why: str) -> int:
    for line in why.splitlines():
        print(f"vestibule-carrier: {''.join(char if char.isprintable() else '?' for char in line)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
