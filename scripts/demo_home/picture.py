"""Makes the pictures of the README: what a manager sees in Home Assistant, and a driver on the phone.

Nothing in them is posed or painted: a fresh demo is played to, and the browsers are looked at. What this file refuses
to do: leave anything behind but the pictures.
"""

from __future__ import annotations

import base64
import contextlib
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from playwright.sync_api import expect

from .browser import PhoneWindow, Window, phone_page, signed_in
from .building import LATITUDE, LONGITUDE, Part, entities_of
from .delivery import Play, play
from .demo import USER_NAME, Demo, fleet_of, home_of, make, place_near
from .fleet import NAME, YOU, Fleet
from .home import REPOSITORY, Home, HomeFailed, free_port, interruptible

PICTURES: Final = REPOSITORY / "docs" / "pictures"
DOOR: Final = "lobby"
HEIGHT: Final = 830
"""Pixels; so much of a door's page is worth seeing."""
PHONE: Final = 390, 860
"""Pixels of a phone's screen."""
WALK: Final = 6.1
"""Seconds for 400 metres: nobody's position jumps."""


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
    PICTURES.mkdir(exist_ok=True)
    folder.mkdir(mode=0o700)
    with fleet_of(folder) as fleet, home_of(folder, free_port()) as home:
        demo = make(folder, home)
        with signed_in(home, USER_NAME, demo.password) as window:
            _carrier(window, fleet, demo)
            for what in (Play.DELIVERY, Play.OUTSIDE_HOURS):
                told = io.StringIO()
                with contextlib.redirect_stdout(told):
                    as_expected = play(folder, DOOR, what)
                if not as_expected:
                    raise HomeFailed(f"The demo does not do what is to be seen:\n{told.getvalue()}")
            _driver(window, fleet, demo)
            home.perform(
                "simulated_relays.driver", {"door": DOOR, "present": False}
            )  # nobody is there to pull the door
            lock = entities_of(home, demo.door(DOOR))[Part.LOCK]
            (entities,) = home.commands({"type": "config/entity_registry/list"})
            (device,) = (entity["device_id"] for entity in entities if entity["entity_id"] == lock)
            window.page.set_viewport_size({"width": 1280, "height": HEIGHT})
            window.go(f"/config/devices/device/{device}")
            _refusal(window)
            _door(window, home, lock)


def _carrier(window: Window, fleet: Fleet, demo: Demo) -> None:
    """Whose cloud it is that a code was from."""
    page = window.page
    page.set_viewport_size({"width": 1280, "height": HEIGHT})
    window.go("/config/integrations/integration/vestibule")
    page.locator("ha-button").filter(has_text="Add carrier").click()
    page.get_by_text("With an enrolment code of the carrier").click()
    page.locator("ha-selector textarea").first.fill(fleet.enrolment_code("Linden Court"))
    for door in demo.doors:
        page.locator("ha-form").get_by_text(door.name, exact=True).last.click()
    page.get_by_role("button", name="Next", exact=True).last.click()
    expect(page.get_by_title("Let this carrier in?", exact=True)).to_be_visible()
    page.mouse.move(0, 0)
    _take(window, "carrier")
    page.get_by_role("button", name="Submit", exact=True).last.click()
    page.get_by_role("button", name="Finish", exact=True).last.click()
    fleet.wait_until_linked(1)


def _driver(window: Window, fleet: Fleet, demo: Demo) -> None:
    """Today's stop, a door that was released, and one that was not because the driver was elsewhere."""
    doors = [demo.door(key).id for key in ("gate", "lobby", "parcel-room")]
    fleet.bring(YOU, doors)
    width, height = PHONE
    viewport = {"width": width, "height": height}
    phone = PhoneWindow(phone_page(window.browser, (LATITUDE, LONGITUDE), viewport=viewport))
    seen = []

    def look() -> None:
        phone.page.wait_for_timeout(250)
        seen.append(phone.page.screenshot(animations="disabled"))

    phone.page.goto(fleet.invite(YOU))
    phone.press("Set up this phone")
    phone.sees("This phone is ready")
    look()
    phone.is_at((LATITUDE, LONGITUDE))
    phone.press("Open: Gate")
    phone.sees_heading("The door is released")
    look()
    phone.page.wait_for_timeout(WALK * 1000)
    phone.is_at((place_near(400.0).latitude, LONGITUDE))
    phone.press("Open: Lobby")
    phone.sees_heading("Not opened")
    look()
    phone.page.context.close()
    _side_by_side(window, seen, "driver")


def _side_by_side(window: Window, screens: Sequence[bytes], name: str) -> None:
    """Make one picture of several phones."""
    width, height = PHONE
    context = window.browser.new_context(viewport={"width": len(screens) * (width + 20) - 20, "height": height})
    images = "".join(
        f'<img width="{width}" src="data:image/png;base64,{base64.b64encode(screen).decode()}">' for screen in screens
    )
    page = context.new_page()
    page.set_content(f'<body style="margin: 0; display: flex; gap: 20px; background: #fff">{images}</body>')
    _take(Window(window.home, page), name)
    context.close()


def _refusal(window: Window) -> None:
    """Why somebody was not let in."""
    page = window.page
    page.locator("ha-logbook-entry").filter(has_text="Access denied").first.click()
    why = page.locator("ha-logbook-chain").get_by_text(f"{NAME} (outside the hours for deliveries)")
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
