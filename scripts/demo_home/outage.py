"""Home Assistant is down, and somebody delivers at the parcel room: what its gateway does, and what is told afterwards.

The demo's own process stops its Home Assistant for as long as a file says so, and starts it again; who wrote the file
may die. Meanwhile the gateway has a link of its own to the carrier's cloud.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from . import room
from .building import PARCEL_ROOM, Part
from .demo import NotRunning, talk_to
from .fleet import NAME
from .hardware import PASSES_IN
from .home import Home, HomeFailed, answers, write_private
from .stage import RELOCK_GRACE, Stage, stage, style

LATE: Final = 70.0
"""Seconds after the release from which all that came of it is old news: the last of it is the end of the access."""
DOWN: Final = 60.0
"""Seconds within which Home Assistant is down, or up again."""
CAUGHT_UP: Final = 20.0
"""Seconds within which Home Assistant has been told."""
TURN: Final = 0.2
"""Seconds between two looks."""

_EXPECTED: Final = (
    f"{NAME} was granted access at Parcel room",
    f"{NAME} had Parcel room released",
    f"{NAME} opened Parcel room",
    "Parcel room was closed",
    f"{NAME} was let in before Parcel room locked again",
)


# ---- in the demo's own process ----


def order_of(folder: Path) -> Path:
    """Return the file that says who wants Home Assistant to be down."""
    return folder / "outage"


def is_wanted(folder: Path) -> bool:
    """Return whether somebody who is alive wants Home Assistant to be down."""
    try:
        os.kill(int(order_of(folder).read_text("ascii")), 0)
    except FileNotFoundError, ValueError, ProcessLookupError:
        return False
    return True


# ---- whoever plays ----


@contextlib.contextmanager
def _outage(folder: Path, home: Home) -> Iterator[None]:
    """Have Home Assistant down for as long as the `with` lasts."""
    write_private(order_of(folder), str(os.getpid()))
    try:
        _until(lambda: not answers(home.port), DOWN, "Home Assistant was not stopped.")
        yield
    finally:
        order_of(folder).unlink(missing_ok=True)


def _until(true: Callable[[], bool], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise HomeFailed(otherwise)
        time.sleep(TURN)


def outage(folder: Path, *, long: bool) -> bool:
    """Stop Home Assistant, deliver through the gateway, start it again, and show what it tells.

    ``long``: it stays down until what happened is old news.
    """
    with stage(folder, PARCEL_ROOM) as at:
        if at.door.gateway is None:
            raise HomeFailed(
                "The parcel room has no gateway here: while Home Assistant is down, nothing opens its door."
            )
        if at.state(Part.MODE)["state"] != "normal" or at.state(Part.DELIVERIES)["state"] == "off":
            raise HomeFailed("The parcel room lets no driver in now, so this cannot be shown.")
        device = at.device
        at.title("Home Assistant is down, and a driver delivers at the parcel room.")
        was = at.state(Part.ACCESS)["state"]
    began, before = datetime.now(UTC), len(room.releases(at.gateway))
    with _outage(folder, at.home):
        at.step("home", f"{style('red', 'Home Assistant is stopped')}: nothing answers at {at.home.url}")
        released = _deliver(at, before)
        if long:
            at.step("", "... and Home Assistant stays down until that is more than a minute ago")
            time.sleep(max(0.0, LATE - (datetime.now(UTC) - released).total_seconds()))
        started = time.monotonic()
    at.say()
    home = _back(folder)
    at.step("home", f"{style('green', 'Home Assistant is up again')}", time.monotonic() - started)
    lines = _told(home, began.isoformat(), device, {NAME, at.door.name})
    for when, words, is_late in lines:
        at.step("activity", f"{when:%H:%M:%S}  {words}{'  (late)' if is_late else ''}")
    at.expect([words for _, words, _ in lines] == list(_EXPECTED), "not what the gateway did, once and in order")
    at.expect({is_late for _, _, is_late in lines} == {long}, "what is old was told as news, or the other way round")
    at.expect(all(began <= when <= datetime.now(UTC) for when, _, _ in lines), "not in its own time")
    shown = home.get(f"/api/states/{at.entities[Part.ACCESS]}")
    at.expect(
        (shown["state"] == was) is long, "the event entity, on which automations are built, is not as it should be"
    )
    what = "hears nothing of it: it is too old to react to" if long else f"shows {shown['attributes']['event_type']}"
    at.step("event", what.replace("_", " "))
    _until(
        lambda: home.get(f"/api/states/{at.entities[Part.LOCK]}")["state"] == "locked", CAUGHT_UP, "It is not locked."
    )
    at.step("lock", "locked")
    at.expect(len(room.releases(at.gateway)) == before + 1, "the relay moved again")
    at.say()
    good = (
        "The parcel room opened once while Home Assistant was down. That was told afterwards, once, in order and with\n"
        "its own time: see Activity in the browser."
    )
    at.say(style("bold", good) if at.as_expected else style("red", "This is not what was to be shown."))
    return at.as_expected


def _deliver(at: Stage, before: int) -> datetime:
    """Have a driver deliver at the gateway; return when its relay released the door."""
    outcome = at.wish()
    if outcome["state"] != "granted":
        raise HomeFailed(f"The driver was not let in: {outcome['said']}")
    at.step("gateway", f"{style('green', '✓')} granted, over its own link to the cloud", outcome["took"])
    at.step("phone", outcome["said"])
    _until(lambda: len(room.releases(at.gateway)) > before, DOWN, "The relay did not move.")
    released = room.releases(at.gateway)[before]
    at.step("relay", "released once")

    def is_back() -> bool:
        return room.moves(at.gateway)[-1][1] == "off"

    _until(is_back, at.door.access_time + RELOCK_GRACE, "The relay did not go back.")
    after = (room.moves(at.gateway)[-1][0] - released).total_seconds()
    at.step("relay", f"back {after:.1f} s after the release; the driver is through")
    time.sleep(PASSES_IN)
    return released


def _back(folder: Path) -> Home:
    """Return the demo's Home Assistant once it runs again, as the manager."""
    deadline = time.monotonic() + DOWN
    while True:
        try:
            return talk_to(folder)[1]
        except NotRunning, OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(TURN)


def _told(home: Home, since: str, device: str, whose: Collection[str]) -> list[tuple[datetime, str, bool]]:
    """Return what Activity has of our events of somebody: when, in words, and whether it is told as old news."""
    deadline = time.monotonic() + CAUGHT_UP
    while True:
        ours = [line for line in home.activity(since) if line.get("domain") == "vestibule"]
        lines = [line for line in ours if line["name"] in whose]  # else: what was only counted
        if len(lines) >= len(_EXPECTED) or time.monotonic() > deadline:
            break
        time.sleep(TURN)
    # Old news are no lines of an entity: they are lines of the door's page themselves.
    late = {line["when"] for line in home.activity(since, device_ids=[device]) if line.get("domain") == "vestibule"}
    return [
        (datetime.fromtimestamp(line["when"], UTC), f"{line['name']} {line['message']}", line["when"] in late)
        for line in lines
    ]
