"""The command line of the demo; `scripts/demo --help` describes it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Final

from .building import CARRIER, DOORS
from .delivery import Play, play, style
from .demo import USER_NAME, USUAL_FOLDER, Demo, command, running
from .home import RESTART, USUAL_PORT, Home, HomeFailed, interruptible


def main() -> int:
    """Do what the arguments say; return the exit code."""
    arguments = _parser().parse_args()
    folder = Path(os.path.abspath(arguments.standing / arguments.folder))  # noqa: PTH100 - `..` goes, links stay
    try:
        if arguments.verb == "deliver":
            return 0 if play(folder, arguments.door, arguments.play) else 1
        with interruptible():
            return _run(folder, arguments.port, fresh=arguments.fresh)
    except HomeFailed as err:
        print(f"demo: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("scripts/demo", add_help=False, epilog="More: scripts/demo --help")
    # Where the user stands; scripts/demo itself goes to the repository.
    parser.add_argument("--standing", type=Path, default=Path.cwd(), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=USUAL_FOLDER)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--port", type=int, default=USUAL_PORT)
    verbs = parser.add_subparsers(dest="verb")
    deliver = verbs.add_parser("deliver", add_help=False)
    deliver.add_argument("door", choices=[plan.key for plan in DOORS])
    plays = deliver.add_mutually_exclusive_group()
    for option in (Play.REPLAY, Play.FORGED, Play.WRONG_DOOR, Play.TOO_FAR):
        plays.add_argument(f"--{option}", dest="play", action="store_const", const=option)
    deliver.set_defaults(play=Play.DELIVERY)
    return parser


def _run(folder: Path, wanted_port: int, *, fresh: bool) -> int:
    """Run the demo until Ctrl-C."""
    began = time.monotonic()
    print("Starting Home Assistant ...", flush=True)
    with running(folder, wanted_port=wanted_port, fresh=fresh) as (demo, home):
        _welcome(folder, demo, home, wanted_port, time.monotonic() - began)
        with contextlib.suppress(KeyboardInterrupt):
            _stay(home)
        print("\nStopping Home Assistant ...", flush=True)
    print(f"Stopped. The demo is kept; start it again with: {command(folder)}")
    return 0


def _stay(home: Home) -> None:
    """Return never; start Home Assistant again when somebody restarts it in the browser."""
    while True:
        assert home.process is not None
        if (code := home.process.wait()) != RESTART:
            home.process = None
            raise HomeFailed(f"Home Assistant ended by itself (exit code {code}).\n{home.last_words()}")
        print("Home Assistant restarts ...", flush=True)
        home.prepare()
        home.start()


_PLAYS: Final = {
    "gate": "a driver delivers at the gate",
    "lobby": "... at the lobby",
    "parcel-room": "... at the parcel room",
    f"gate --{Play.REPLAY}": "the same token a second time",
    f"gate --{Play.FORGED}": "a token that somebody else signed",
    f"gate --{Play.WRONG_DOOR}": "a token that is not for this door",
    f"gate --{Play.TOO_FAR}": "a driver who is somewhere else",
}


def _welcome(folder: Path, demo: Demo, home: Home, wanted_port: int, seconds: float) -> None:
    version = home.get("/api/config")["version"]
    plays = "\n".join(f"  {command(folder)} deliver {what:<19} {shows}" for what, shows in _PLAYS.items())
    taken = "" if demo.port == wanted_port else f"   (port {wanted_port} is taken)"
    print(
        f"""
{style("bold", f"Home Assistant {version} is running with a demo building")} (ready in {seconds:.0f} s)

  address    {style("bold", home.url)}{taken}
  user name  {USER_NAME}
  password   {demo.password}

  doors      {", ".join(door.name for door in demo.doors)}, each with a simulated relay
  carrier    {CARRIER}, may open all of them

In another terminal:

{plays}

In the browser: Settings > Devices & services > Vestibule has the doors and the carrier;
a door's page has its lock and, under Activity, who was let in and which genuine tokens for it
were refused. A forged or garbled token, or one that was presented before, is only counted.

Ctrl-C ends it.""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
