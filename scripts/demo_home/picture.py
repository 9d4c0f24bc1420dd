"""Makes the pictures of the README: what a manager sees of a door after a delivery, a refusal and an unlock by hand.

Nothing in them is posed or painted: a fresh demo is played to, and the browser is looked at. What this file refuses to
do: leave anything behind but the pictures.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import expect

from .browser import Window, signed_in
from .building import Part, entities_of
from .delivery import Play, play
from .demo import USER_NAME, home_of, make
from .home import REPOSITORY, Home, HomeFailed, free_port, interruptible

PICTURES: Final = REPOSITORY / "docs" / "pictures"
DOOR: Final = "lobby"
HEIGHT: Final = 830
"""Pixels; so much of a door's page is worth seeing."""


def main() -> int:
    """Make the pictures; return the exit code."""
    try:
        with interruptible(), tempfile.TemporaryDirectory() as place:
            _make(Path(place) / "demo")
    except HomeFailed as err:
        print(f"picture: {err}", file=sys.stderr)
        return 1
    return 0


def _make(folder: Path) -> None:
    with home_of(folder, free_port()) as home:
        demo = make(folder, home)
        door = demo.door(DOOR)
        for what in (Play.DELIVERY, Play.OUTSIDE_HOURS):
            told = io.StringIO()
            with contextlib.redirect_stdout(told):
                as_expected = play(folder, DOOR, what)
            if not as_expected:
                raise HomeFailed(f"The demo does not do what is to be seen:\n{told.getvalue()}")
        home.perform("simulated_relays.driver", {"door": DOOR, "present": False})  # nobody is there to pull the door
        lock = entities_of(home, door)[Part.LOCK]
        (entities,) = home.commands({"type": "config/entity_registry/list"})
        (device,) = (entity["device_id"] for entity in entities if entity["entity_id"] == lock)
        PICTURES.mkdir(exist_ok=True)
        with signed_in(home, USER_NAME, demo.password) as window:
            window.page.set_viewport_size({"width": 1280, "height": HEIGHT})
            window.go(f"/config/devices/device/{device}")
            _refusal(window)
            _door(window, home, lock)


def _refusal(window: Window) -> None:
    """Why somebody was not let in."""
    page = window.page
    page.locator("ha-logbook-entry").filter(has_text="Access denied").first.click()
    why = page.locator("ha-logbook-chain").get_by_text("Swift Parcels (outside the hours for deliveries)")
    expect(why).to_be_visible()
    _take(window, "refusal")
    page.get_by_role("button", name="Close", exact=True).click()


def _door(window: Window, home: Home, lock: str) -> None:
    """A door that has just been unlocked."""
    page = window.page
    page.locator("hui-lock-entity-row").get_by_role("button", name="Unlock").click()
    expect(page.locator("ha-logbook-entry").filter(has_text="Unlocked").first).to_be_visible()
    page.mouse.move(0, 0)
    _take(window, "door")
    if home.get(f"/api/states/{lock}")["state"] != "unlocked":
        raise HomeFailed("The picture came too late: the door is locked again.")


def _take(window: Window, name: str) -> None:
    path = PICTURES / f"{name}.png"
    window.screenshot(path)
    print(f"{path.relative_to(REPOSITORY)}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    sys.exit(main())
