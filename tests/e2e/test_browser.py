"""A building manager in front of a browser: the forms, the door's page, and what is said when something is refused.

A live Home Assistant that knows three simulated relays and nothing of Vestibule yet; everything else is clicked and
typed. The tests go on from one another. Each leaves pictures, in a temporary folder or in $PICTURES.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, ViewportSize, expect

from scripts.demo_home.browser import CHROMIUM, PATIENCE, Window, signed_in
from scripts.demo_home.building import Door
from scripts.demo_home.carrier import CARELESS
from scripts.demo_home.demo import Demo, home_of, make_carrier
from scripts.demo_home.home import Home, free_port, write_private
from scripts.demo_home.stage import read_relays_log
from tests.link_cloud import LinkCloud

from .conftest import Driver, errors

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}; scripts/setup --browser gets one"),
]
FORM: ViewportSize = {"width": 1280, "height": 1900}
PAGE: ViewportSize = {"width": 1280, "height": 1250}
"""Windows in which the longest form, and the longest page, is seen whole."""
ACCESS_TIME = 4


@dataclass
class Manager:
    """Somebody who looks, clicks and types; and a driver of the carrier that is let in."""

    home: Home
    window: Window
    pictures: Path
    carrier: Path
    """Where it keeps its keys."""
    jwk_set: str
    door_id: str = ""
    """Read off the form."""
    taken: int = 0

    @property
    def page(self) -> Page:
        return self.window.page

    def take_picture(self, name: str) -> None:
        self.taken += 1
        self.window.screenshot(self.pictures / f"{self.taken:02}-{name}.png")

    def sees(self, text: str) -> None:
        expect(self.page.get_by_text(text).filter(visible=True).first).to_be_visible()

    def press(self, button: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).last.click()

    # ---- forms ----

    def sees_form(self, title: str) -> None:
        expect(self.page.get_by_title(title, exact=True)).to_be_visible()

    def field(self, label: str) -> Locator:
        has_label = self.page.get_by_text(re.compile(rf"^\s*{re.escape(label)}\s*\*?\s*$"))
        return self.page.locator("ha-selector").filter(has=has_label)

    def write(self, label: str, text: str) -> None:
        self.field(label).locator("input, textarea").fill(text)

    def choose(self, label: str, *names: str) -> None:
        """Choose the entity with these names: its own, and its device's."""
        self.field(label).locator("ha-selector-entity").click()
        expect(self.page.locator("ha-picker-combo-box").get_by_role("textbox")).to_be_focused()  # it is there to stay
        entity = self.page.locator("ha-picker-combo-box ha-combo-box-item")
        for name in names:
            entity = entity.filter(has=self.page.get_by_text(name, exact=True))
        entity.click()
        expect(self.field(label).locator("ha-picker-field")).to_contain_text(names[0])

    def tick(self, option: str) -> None:
        self.page.locator("ha-form").get_by_text(option, exact=True).last.click()

    def reads(self, pattern: str) -> str:
        """What the form shows that looks like this."""
        return self.page.get_by_text(re.compile(f"^{pattern}$")).inner_text().strip()

    # ---- the pages of devices ----

    def row(self, entity: str) -> Locator:
        rows = ", ".join(f"hui-{kind}-entity-row" for kind in ("lock", "select", "simple", "event", "toggle"))
        return self.page.locator(rows).filter(has=self.page.get_by_text(entity, exact=True))

    def lines(self, text: str) -> Locator:
        """The lines of Activity that say so, the newest first; old ones further down may not be there yet."""
        self.page.locator("ha-logbook-renderer lit-virtualizer").evaluate("list => { list.scrollTop = 0 }")
        return self.page.locator("ha-logbook-entry").filter(has=self.page.get_by_text(text, exact=True))

    # ---- the driver ----

    @property
    def driver(self) -> Driver:
        return Driver.of(self.carrier, Demo(self.home.port, "", "", "", (self.door,)))

    @property
    def door(self) -> Door:
        return Door("lobby", "Front door", self.door_id, ACCESS_TIME, has_rex=True)

    def released(self) -> int:
        return len(read_relays_log(self.home.relays_log))


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    folder = tmp_path_factory.mktemp("browser")
    pictures = Path(os.environ.get("PICTURES") or folder / "pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    with home_of(folder, free_port()) as home:
        home.prepare()
        home.start()
        home.onboard("Building manager", "manager", "only-of-this-test")
        home.wait_until_started()
        home.flow("simulated_relays", [("user", {})])
        jwk_set = make_carrier(folder)
        expect.set_options(timeout=PATIENCE * 1000)
        with signed_in(home, "manager", "only-of-this-test") as window:
            window.page.set_viewport_size(FORM)
            yield Manager(home, window, pictures, folder, jwk_set)
    assert errors(home.folder) == []


def test_a_building_is_added(manager: Manager) -> None:
    manager.window.go("/config/integrations/dashboard")
    manager.press("Add integration")
    manager.page.get_by_placeholder("Search for a brand name").fill("Vestibule")
    manager.page.locator("ha-integration-list-item").filter(has_text="Vestibule").click()
    manager.sees_form("Your building")
    manager.write("Name of the building", "Linden Court")
    manager.take_picture("building")
    manager.press("Submit")
    manager.sees_form("Add a door")


def test_a_door_is_added_with_what_watches_it_and_its_hours(manager: Manager) -> None:
    manager.write("Name of the door", "Front door")
    manager.choose("Relay", "Lobby relay")
    manager.write("Access time", str(ACCESS_TIME))
    manager.press("Next")
    manager.sees("Please choose: does it lock or close by itself, or shall Vestibule see to it?")
    manager.take_picture("door-incomplete")
    manager.tick("Vestibule locks or closes it when the time is over")
    manager.press("Next")

    manager.sees_form("What watches the door")
    manager.choose("Door contact", "Door", "Lobby relay")
    manager.choose("Request to exit", "Request to exit", "Lobby relay")
    manager.choose("Tamper switch", "Tamper", "Lobby relay")
    manager.take_picture("door-sensors")
    manager.press("Next")

    manager.sees_form("When the door is opened")
    manager.tick("As soon as the door is closed again")
    manager.take_picture("door-opened")
    manager.press("Next")

    manager.sees_form("Who may come in")
    manager.press("Add")
    manager.tick("Saturday")
    manager.tick("Sunday")
    # From 12 AM to 12 AM: the whole day, so that the driver can come whenever this runs.
    begins, ends = manager.page.locator("ha-selector-time").all()
    begins.get_by_role("spinbutton").first.fill("12")
    ends.get_by_role("spinbutton").first.fill("12")
    ends.locator("ha-select").click()
    ends.get_by_text("AM", exact=True).last.click()
    manager.take_picture("door-hours-row")
    manager.press("Add")
    manager.sees("mon, tue, wed, thu, fri, sat, sun · 00:00:00 · 00:00:00")
    manager.take_picture("door-hours")
    manager.press("Next")

    manager.sees_form("What the carrier needs")
    manager.door_id = manager.reads("door:[a-z2-7]{26}")
    manager.take_picture("door-id")
    manager.press("Submit")
    manager.sees("Created configuration for Front door.")
    manager.press("Finish")


@contextmanager
def cloud_at_work() -> Iterator[LinkCloud]:
    """The cloud of another carrier, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    cloud = LinkCloud("https://north.example", "North Parcels")
    cloud.text = cloud.key_set()  # one set, whenever it is asked for
    try:
        asyncio.run_coroutine_threadsafe(cloud.start(), loop).result(PATIENCE)
        yield cloud
        asyncio.run_coroutine_threadsafe(cloud.stop(), loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_carrier_is_added_by_its_code_on_two_pages(manager: Manager) -> None:
    manager.page.locator("ha-integration-card").filter(has_text="Vestibule").click()
    with cloud_at_work() as cloud:
        manager.page.locator("ha-button").filter(has_text="Add carrier").click()
        manager.sees_form("Add a carrier")
        manager.take_picture("carrier-how")
        manager.page.get_by_text("With an enrolment code of the carrier").click()
        manager.sees_form("Add a carrier by its code")
        code = cloud.code()
        manager.write("Enrolment code", code[:40] + ("B" if code[40] == "A" else "A") + code[41:])
        manager.tick("Front door")
        manager.press("Next")
        manager.sees("A character of the code is wrong or missing.")
        manager.take_picture("carrier-code-mistyped")
        manager.write("Enrolment code", cloud.code())
        manager.press("Next")

        manager.sees_form("Let this carrier in?")
        manager.sees(cloud.host)
        manager.sees(cloud.signing.kid)
        manager.take_picture("carrier-enrolled")
        manager.press("Submit")
        manager.sees("Created configuration for North Parcels.")
        manager.press("Finish")
        manager.take_picture("building-with-a-link")


def test_a_carrier_is_added_and_given_its_intake_key(manager: Manager) -> None:
    manager.page.locator("ha-button").filter(has_text="Add carrier").click()
    manager.page.get_by_text("With its public keys, over an address of this Home Assistant").click()
    manager.sees_form("Add a carrier by its keys")
    manager.write("Name of the carrier", "Swift Parcels")
    manager.write("Issuer", "https://swift.example")
    manager.write("Public keys", manager.jwk_set)
    manager.tick("Front door")
    manager.take_picture("carrier")
    manager.press("Next")

    manager.sees_form("Compare the keys")
    manager.take_picture("carrier-keys")
    manager.press("Next")

    manager.sees_form("Intake key")
    manager.sees(manager.door_id)
    write_private(manager.carrier / "swift" / "intake-key", manager.reads("[A-Za-z0-9_-]{43}"))
    manager.take_picture("carrier-intake-key")
    manager.press("Submit")
    manager.sees("Created configuration for Swift Parcels.")
    manager.press("Finish")
    manager.take_picture("building-page")


def test_the_door_is_unlocked_by_hand(manager: Manager) -> None:
    manager.page.set_viewport_size(PAGE)
    manager.page.locator("ha-config-entry-device-row").filter(has_text="Front door").click()
    expect(manager.row("Problem")).to_contain_text("OK")
    expect(manager.row("Door")).to_contain_text("Closed")
    manager.take_picture("door-page")
    assert manager.released() == 0

    manager.row("Front door").get_by_role("button", name="Unlock").click()
    expect(manager.row("Front door").get_by_role("button", name="Lock", exact=True)).to_be_visible()
    manager.take_picture("door-unlocked")
    expect(manager.row("Access")).to_contain_text("Access taken")
    expect(manager.row("Front door").get_by_role("button", name="Unlock")).to_be_visible()
    for line in ("Access granted", "Door released", "Access taken"):
        expect(manager.lines(line)).to_have_count(1)
    for line in ("Open", "Closed", "Locked"):  # of the contact and the lock, which may have one from their beginning
        expect(manager.lines(line).first).to_be_visible()
    manager.take_picture("door-unlocked-by-hand")
    assert manager.released() == 1


def test_a_driver_is_let_in_and_named(manager: Manager) -> None:
    assert manager.driver.deliver(manager.door) == ("granted", "GRANTED")
    expect(manager.lines("Access granted")).to_have_count(2)
    expect(manager.lines("Access taken")).to_have_count(2)
    expect(manager.row("Front door").get_by_role("button", name="Unlock")).to_be_visible()
    manager.take_picture("delivered")
    assert manager.released() == 2

    manager.lines("Access granted").first.click()
    manager.sees("What happened")
    manager.sees("Swift Parcels")
    manager.take_picture("delivered-details")
    manager.press("Close")


def test_a_driver_who_is_too_far_away_is_refused_and_the_reason_is_told(manager: Manager) -> None:
    careless = replace(manager.driver, cloud=replace(manager.driver.cloud, rules=CARELESS))
    assert careless.deliver(manager.door, metres_away=400) == ("refused", "POLICY_EVIDENCE")
    expect(manager.row("Access")).to_contain_text("Access denied")
    manager.lines("Access denied").first.click()
    manager.sees("Swift Parcels (its confirmations are outside the limits)")
    manager.take_picture("refused-details")
    manager.press("Close")
    assert manager.released() == 2


def test_a_lockdown_refuses_everybody_in_plain_words_until_it_is_lifted(manager: Manager) -> None:
    manager.page.get_by_role("link", name="Linden Court").click()
    manager.row("Lockdown").locator("ha-switch").click()
    expect(manager.lines("On")).to_have_count(1)
    manager.take_picture("lockdown")

    manager.page.go_back()
    expect(manager.row("Mode")).to_contain_text("Locked down")
    manager.row("Front door").get_by_role("button", name="Unlock").click()
    manager.sees("Front door was not opened: the building is locked down. Lift the lockdown first.")
    manager.take_picture("unlock-refused")
    assert manager.driver.deliver(manager.door) == ("refused", "DOOR_UNAVAILABLE")
    expect(manager.lines("Access denied")).to_have_count(3)
    assert manager.released() == 2

    manager.page.get_by_role("link", name="Linden Court").click()
    manager.row("Lockdown").locator("ha-switch").click()
    expect(manager.lines("Off")).to_have_count(1)
    manager.page.go_back()
    expect(manager.row("Mode")).to_contain_text("Normal")
    manager.row("Front door").get_by_role("button", name="Unlock").click()
    expect(manager.row("Access")).to_contain_text("Access taken")
    manager.take_picture("lockdown-lifted")
    assert manager.released() == 3
