"""``vestibule-gateway``: the commands, and how they end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from . import journal
from .source import Unusable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0 done, 1 a journal or a proof does not hold, 2 it cannot be said."""
    parser = argparse.ArgumentParser(prog="vestibule-gateway", description="Doors that open to signed one-time tokens.")
    parser.add_argument("--version", action="version", version=version("vestibule-gateway"))
    journal.add_commands(parser.add_subparsers(title="commands", metavar="COMMAND", required=True))
    given = parser.parse_args(arguments)
    try:
        return int(given.run(given))
    except Unusable as err:
        print(f"vestibule-gateway: {err}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read what we print has had enough; Python would complain once more at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except OSError as err:
        print(f"vestibule-gateway: {err}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
