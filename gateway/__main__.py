"""``vestibule-gateway``: the commands, and how they end."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from . import commands as gateway
from . import journal
from .source import Unusable
from .strike import command as strike

_ISSUES: Final = "https://github.com/vestibule-access/vestibule/issues"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status.

    0: done; 1: a journal or a proof does not hold; 2: it cannot be said, whatever the reason; 130: interrupted.
    """
    if isinstance(sys.stdout, TextIOWrapper):  # a file gets UTF-8: a checkpoint that is printed can be read again
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="vestibule-gateway", description="Doors that open to signed one-time tokens.")
    parser.add_argument("--version", action="version", version=version("vestibule-gateway"))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    gateway.add_commands(commands)
    journal.add_commands(commands)
    strike.add_commands(commands)
    given = parser.parse_args(arguments)
    try:
        status = int(given.run(given))
        sys.stdout.flush()
    except Unusable as err:
        return _complain(str(err))
    except BrokenPipeError:  # whoever read what we print has had enough
        return _say_no_more()
    except OSError as err:
        _complain(f"{err.filename}: {err.strerror}" if err.filename else str(err))
        return _say_no_more()
    except MemoryError:
        return _complain("there is something in the file that needs more memory than there is")
    except KeyboardInterrupt:
        return 130
    except Exception as err:  # noqa: BLE001 - Python would end with 1, as if a journal did not hold
        *_, place = traceback.extract_tb(err.__traceback__)
        return _complain(
            f"a bug of vestibule-gateway, which says nothing about the file: {type(err).__name__}: {err} "
            f"({Path(place.filename).name}:{place.lineno}). Please report it: {_ISSUES}"
        )
    return status


def _complain(why: str) -> int:
    print(f"vestibule-gateway: {journal.printable(why)}", file=sys.stderr)
    return 2


def _say_no_more() -> int:
    """Drop what could not be printed: Python would try once more at its end, and complain."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2


if __name__ == "__main__":
    sys.exit(main())
