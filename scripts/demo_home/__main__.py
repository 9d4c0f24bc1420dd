"""The command line of the demo; `scripts/demo --help` describes it."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from . import fleet as canal
from .building import CARRIER, DOORS, Door
from .carrier import TurnedAway
from .delivery import Play, play
from .demo import USER_NAME, USUAL_FOLDER, Demo, command, fleet_of, place_near, running, talk_to
from .fleet import YOU, Fleet
from .home import RESTART, USUAL_PORT, Home, HomeFailed, interruptible
from .incidents import lockdown, walk_in
from .outage import TURN, is_wanted, outage
from .stage import style
from .websocket import Closed


def main() -> int:
    """Do what the arguments say; return the exit code."""
    arguments = _parser().parse_args()
    folder = Path(os.path.abspath(arguments.standing / arguments.folder))  # noqa: PTH100 - `..` goes, links stay
    try:
        with interruptible():
            match arguments.verb:
                case "dispatch":
                    return _dispatch(folder)
                case "deliver":
                    return 0 if play(folder, arguments.door, arguments.play) else 1
                case "lockdown":
                    return 0 if lockdown(folder, on=arguments.to == "on") else 1
                case "outage":
                    return 0 if outage(folder, long=arguments.long) else 1
                case "walk-in":
                    return 0 if walk_in(folder, arguments.door) else 1
                case _:
                    return _run(folder, arguments.port, fresh=arguments.fresh)
    except (HomeFailed, TurnedAway, Closed) as err:
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
    doors = [plan.key for plan in DOORS]
    deliver = verbs.add_parser("deliver", add_help=False)
    deliver.add_argument("door", nargs="?", choices=doors, default=doors[0])
    plays = deliver.add_mutually_exclusive_group()
    for option in Play:
        if option is not Play.DELIVERY:
            plays.add_argument(f"--{option}", dest="play", action="store_const", const=option)
    deliver.set_defaults(play=Play.DELIVERY)
    verbs.add_parser("dispatch", add_help=False)
    verbs.add_parser("lockdown", add_help=False).add_argument("to", choices=["on", "off"])
    verbs.add_parser("walk-in", add_help=False).add_argument("door", nargs="?", choices=doors, default="lobby")
    verbs.add_parser("outage", add_help=False).add_argument("--long", action="store_true")
    return parser


def _run(folder: Path, wanted_port: int, *, fresh: bool) -> int:
    """Run the demo until Ctrl-C."""
    began = time.monotonic()
    print("Starting Home Assistant and a carrier's cloud ...", flush=True)
    with running(folder, wanted_port=wanted_port, fresh=fresh) as (demo, home, fleet):
        _welcome(folder, demo, home, fleet, wanted_port, time.monotonic() - began)
        with contextlib.suppress(KeyboardInterrupt):
            _stay(folder, home)
        print("\nStopping Home Assistant ...", flush=True)
    print(f"Stopped. The demo is kept; start it again with: {command(folder)}")
    return 0


def _stay(folder: Path, home: Home) -> None:
    """Return never; start Home Assistant again after somebody has restarted it in the browser, or played an outage."""
    while True:
        assert home.process is not None
        try:
            code = home.process.wait(TURN)
        except subprocess.TimeoutExpired:
            if not is_wanted(folder):
                continue
            print("Home Assistant is stopped for as long as the outage lasts ...", flush=True)
            home.stop()
            while is_wanted(folder):
                time.sleep(TURN)
        else:
            if code != RESTART:
                home.process = None
                raise HomeFailed(f"Home Assistant ended by itself (exit code {code}).\n{home.last_words()}")
        print("Home Assistant restarts ...", flush=True)
        home.prepare()
        home.start()


_PLAYS: Final = {
    "deliver gate": "a driver delivers at the gate",
    "deliver lobby": "... at the lobby",
    "deliver parcel-room": "... at the parcel room",
    f"deliver gate --{Play.WRONG_PLACE}": "a driver who is somewhere else",
    f"deliver gate --{Play.WRONG_ROUTE}": "... at a stop of somebody else's route",
    f"deliver gate --{Play.EARLY}": "... before the time of the stop",
    f"deliver gate --{Play.REVOKED}": "... whose phone was withdrawn; and a key that was stolen",
    f"deliver gate --{Play.REPLAY}": "the same token a second time",
    f"deliver gate --{Play.FORGED}": "a token that somebody else signed",
    f"deliver gate --{Play.WRONG_DOOR}": "a token that is not for this door",
    f"deliver parcel-room --{Play.OUTSIDE_HOURS}": "a driver who comes when the door takes none",
    f"deliver gate --{Play.RATE}": "a driver more than allowed within the hour",
    "dispatch": "another stop for you, and another link",
    "walk-in": "somebody who goes through the lobby unasked",
    "lockdown on": "nobody is let in any more",
    "lockdown off": "... and again",
    "outage": "a driver at the parcel room while Home Assistant is down",
}


def _welcome(folder: Path, demo: Demo, home: Home, fleet: Fleet, wanted_port: int, seconds: float) -> None:
    version = home.get("/api/config")["version"]
    doors = "\n             ".join(f"{door.name}, {_hardware(door)}" for door in demo.doors)
    plays = "\n".join(f"  {command(folder)} {what:<36} {shows}" for what, shows in _PLAYS.items())
    taken = "" if demo.port == wanted_port else f"   (port {wanted_port} is taken)"
    print(
        f"""
{style("bold", f"Home Assistant {version} is running with a demo building")} (ready in {seconds:.0f} s)

  address    {style("bold", home.url)}{taken}
  user name  {USER_NAME}
  password   {demo.password}

  doors      {doors}
  carriers   {canal.NAME}, with a cloud to which the building is linked
             {CARRIER}, without one: it calls in, and what it signs passes through the hands of the plays

{style("bold", f"The cloud of {canal.NAME} is running, and you are its driver {YOU}")}

  page       {style("bold", _link(fleet, demo))}
             This link sets the browser up as your phone, once, with a passkey. Then you see today's stop.
  position   type {_typed(0)} there ({_typed(400)} is 400 metres away: refused)
             Open a door of the stop, the gate first: you see each confirmation, and the door opens here.
  dispatcher {fleet.origin}/dispatch   with the API key {fleet.api_key}

In another terminal:

{plays}

In Home Assistant: Settings > Devices & services > Vestibule has the building with its doors and the carriers, and
the gateway with its door.
A door's page has its lock, its mode and, under Activity, what happened there. A forged or garbled token,
or one that was presented before, is only counted.

Ctrl-C ends it.""",
        flush=True,
    )


def _link(fleet: Fleet, demo: Demo) -> str:
    """Return a one-time link for whoever sits at the browser, who has a stop today."""
    if fleet.stop_of(YOU) is None:
        fleet.bring(YOU, [door.id for door in demo.doors])
    return fleet.invite(YOU)


def _typed(metres_away: float) -> str:
    """Return what to type to be so many metres south of the doors."""
    place = place_near(metres_away)
    return f"{place.latitude:.5f} and {place.longitude:.5f}"


def _dispatch(folder: Path) -> int:
    """Give whoever sits at the browser another stop, and a link for another browser."""
    demo, _ = talk_to(folder)
    fleet = fleet_of(folder)
    fleet.bring(YOU, [door.id for door in demo.doors])
    print(f"{YOU} has a new stop at all doors in order. Refresh the page, or set another browser up by this link:\n")
    print(f"  {fleet.invite(YOU)}")
    return 0


def _hardware(door: Door) -> str:
    if door.strike is not None:
        return "with a Bluetooth strike on a virtual radio"
    if door.gateway is not None:
        return "with a gateway and a simulated relay board (Modbus-TCP)"
    return "with a simulated relay and contact in Home Assistant"


if __name__ == "__main__":
    sys.exit(main())
