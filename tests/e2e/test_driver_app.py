"""All of it in front of two browsers: a manager adds a carrier by its code, and its driver opens doors with a phone.

A live Home Assistant, a carrier's cloud as a process of its own, the link between them, a passkey in a virtual
authenticator, and a position that the test says. The tests go on from one another. Each leaves pictures, in a temporary
folder or in $PICTURES.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, ViewportSize, expect

from scripts.demo_home import phone as robins
from scripts.demo_home.browser import CHROMIUM, PATIENCE, PhoneWindow, Window, phone_page, signed_in
from scripts.demo_home.building import LATITUDE, LONGITUDE, Door, Part, change, entities_of
from scripts.demo_home.delivery import Play, play
from scripts.demo_home.demo import USER_NAME, Demo, fleet_of, home_of, make, place_near
from scripts.demo_home.fleet import ISSUER, NAME, ROBIN, YOU, Fleet
from scripts.demo_home.home import REPOSITORY, Home, free_port
from scripts.demo_home.stage import read_relays_log
from scripts.demo_home.websocket import WebSocket
from vestibule_core.hours import Day

from .conftest import errors, journal_of

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}; scripts/setup --browser gets one"),
]
DOOR = "lobby"
HERE = (LATITUDE, LONGITUDE)
FAR = (place_near(400.0).latitude, LONGITUDE)
WALK = 6.1
"""Seconds from one to the other for somebody in a hurry: nobody's position jumps."""
TELLING = 5.0
SILENCE = 0.5
"""Seconds."""
PAGE: ViewportSize = {"width": 1280, "height": 1250}
FORM: ViewportSize = {"width": 1280, "height": 1500}


@dataclass
class Site:
    """The building, its manager in front of one browser, and a driver with a phone."""

    folder: Path
    demo: Demo
    home: Home
    fleet: Fleet
    manager: Window
    phone: PhoneWindow
    pictures: Path
    place: tuple[float, float] = HERE
    """Where the driver is."""

    def take_picture(self, name: str) -> None:
        """Of the manager's window."""
        self.manager.screenshot(self.pictures / f"{name}.png")

    def take_picture_of_the_phone(self, name: str) -> None:
        self.phone.screenshot(self.pictures / f"{name}.png")

    # ---- the building ----

    @property
    def door(self) -> Door:
        return self.demo.door(DOOR)

    def released(self, key: str = DOOR) -> int:
        return [relay for _, relay in read_relays_log(self.home.relays_log)].count(key)

    def state(self, part: Part = Part.LOCK) -> str:
        return str(self.home.get(f"/api/states/{entities_of(self.home, self.door)[part]}")["state"])

    @contextlib.contextmanager
    def hearing(self) -> Iterator[WebSocket]:
        """Hear what is told on Home Assistant's bus."""
        with self.home.websocket({"type": "subscribe_events", "event_type": "vestibule_access"}) as socket:
            yield socket

    @contextlib.contextmanager
    def hearing_nothing(self) -> Iterator[None]:
        """What the cloud refuses does not reach the building: nothing moves, and no line of its journal is told."""
        deadline = time.monotonic() + TELLING
        while self.state() != "locked" and time.monotonic() < deadline:  # of the test before
            time.sleep(0.1)
        before = read_relays_log(self.home.relays_log)
        with self.hearing() as socket:
            while socket.told(SILENCE) is not None:
                pass
            yield
            assert socket.told(SILENCE) is None
        assert self.state() == "locked"
        assert read_relays_log(self.home.relays_log) == before

    def reads_activity(self, of: str, name: str) -> None:
        """The manager looks at the newest line of the door's Activity that says so, and at who and why it was."""
        page = self.manager.page
        (entities,) = self.home.commands({"type": "config/entity_registry/list"})
        lock = entities_of(self.home, self.door)[Part.LOCK]
        (device,) = (each["device_id"] for each in entities if each["entity_id"] == lock)
        page.set_viewport_size(PAGE)
        self.manager.go(f"/config/devices/device/{device}")
        page.locator("ha-logbook-entry").filter(has=page.get_by_text(of, exact=True)).first.click()
        expect(page.locator("ha-logbook-chain").get_by_text(name, exact=True).first).to_be_visible()

    # ---- the driver ----

    def has_stop(self, doors: Sequence[str] = (DOOR,), **when: timedelta) -> dict[str, Any]:
        """The dispatcher gives the driver a stop at these doors; the driver refreshes the page."""
        stop = self.fleet.bring(YOU, [self.demo.door(key).id for key in doors], **when)
        self.phone.page.goto(self.fleet.origin)
        self.phone.sees_heading("Today's stops")
        return stop

    def goes_to(self, place: tuple[float, float]) -> None:
        self.phone.page.wait_for_timeout(WALK * 1000)
        self.place = place

    def presses(self, button: str) -> None:
        """The driver asks for a door; the phone has just found where it is."""
        self.phone.is_at(self.place)
        self.phone.press(button)


def outcomes(socket: WebSocket, until: str) -> list[dict[str, Any]]:
    """The events on the bus up to one."""
    heard: list[dict[str, Any]] = []
    while (event := socket.told(TELLING)) is not None:
        heard.append(event["data"])
        if event["data"]["outcome"] == until:
            return heard
    raise AssertionError(f"{until} was not told: {heard}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("app") / "demo"
    pictures = Path(os.environ.get("PICTURES") or folder.with_name("pictures"))
    pictures.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=PATIENCE * 1000)
    folder.mkdir()
    with fleet_of(folder) as fleet, home_of(folder, free_port()) as home:
        demo = make(folder, home)
        with signed_in(home, USER_NAME, demo.password) as manager:
            phone = PhoneWindow(phone_page(manager.browser, HERE))
            yield Site(folder, demo, home, fleet, manager, phone, pictures)
            assert all(url.startswith((fleet.origin, "data:")) for url in phone.asked_for), "it asks nobody else"
            # A browser notes each answer that is no success.
            assert [line for line in phone.complaints if "status of 4" not in line] == []
    assert errors(home.folder) == []


def field(page: Page, label: str) -> Locator:
    has_label = page.get_by_text(re.compile(rf"^\s*{re.escape(label)}\s*\*?\s*$"))
    return page.locator("ha-selector").filter(has=has_label)


def test_a_manager_adds_the_carrier_by_its_code(site: Site) -> None:
    page = site.manager.page
    page.set_viewport_size(FORM)
    site.manager.go("/config/integrations/integration/vestibule")
    page.locator("ha-button").filter(has_text="Add carrier").click()
    page.get_by_text("With an enrolment code of the carrier").click()
    expect(page.get_by_title("Add a carrier by its code", exact=True)).to_be_visible()
    field(page, "Enrolment code").locator("textarea").fill(site.fleet.enrolment_code("Linden Court"))
    for door in site.demo.doors:
        page.locator("ha-form").get_by_text(door.name, exact=True).last.click()
    site.take_picture("01-carrier-code")
    page.get_by_role("button", name="Next", exact=True).last.click()

    expect(page.get_by_title("Let this carrier in?", exact=True)).to_be_visible()
    expect(page.get_by_text(f"localhost:{site.fleet.port}").first).to_be_visible()
    expect(page.get_by_text(ISSUER, exact=True).first).to_be_visible()
    expect(field(page, "Name of the carrier").locator("input")).to_have_value(NAME)
    site.take_picture("02-carrier-enrolled")
    page.get_by_role("button", name="Submit", exact=True).last.click()
    expect(page.get_by_text(f"Created configuration for {NAME}.")).to_be_visible()
    page.get_by_role("button", name="Finish", exact=True).last.click()
    site.fleet.wait_until_linked(1)
    known = site.fleet.building()
    assert known["name"] == "Linden Court"
    assert {door["name"] for door in known["doors"] if door["has_position"] and door["is_offered"]} == {
        "Gate",
        "Lobby",
        "Parcel room",
    }
    site.take_picture("03-carriers")


def test_a_driver_sets_the_phone_up_by_the_link_and_sees_todays_stops(site: Site) -> None:
    site.fleet.bring(YOU, [site.demo.door(key).id for key in ("gate", "lobby", "parcel-room")])
    site.phone.page.goto(site.fleet.invite(YOU))
    site.take_picture_of_the_phone("10-join")
    site.phone.press("Set up this phone")
    site.phone.sees("This phone is ready")
    site.phone.sees_heading("Linden Court")
    expect(site.phone.page.get_by_role("listitem")).to_have_text(
        [re.compile("Gate.*next"), re.compile("Lobby.*later"), re.compile("Parcel room.*later")]
    )
    site.take_picture_of_the_phone("11-today")


def test_the_door_opens_in_home_assistant_and_its_event_tells_all_four_confirmations(site: Site) -> None:
    site.has_stop([DOOR, "gate"])
    began = datetime.now(UTC).isoformat()
    with site.hearing() as socket:
        site.presses("Open: Lobby")
        site.phone.sees_heading("The door is released")
        assert [site.phone.step(name) for name in ("You", "Your route", "Where you are", "The time")] == [
            "It is you.",
            "This door is next on your route.",
            "You are at the door.",
            "It is within your hours.",
        ]
        assert site.phone.step("The building") == "It released the door."
        site.take_picture_of_the_phone("12-released")
        told = outcomes(socket, until="door_relocked")
    assert [event["outcome"] for event in told] == [
        "access_granted",
        "door_released",
        "access_taken",
        "door_closed",
        "door_relocked",
    ]
    granted = told[0]
    assert (granted["door"], granted["means"], granted["carrier"]) == (site.door.id, "token", NAME)
    confirmed = granted["confirmed"]
    assert confirmed.keys() == {"driver", "route", "distance", "accuracy", "position_age", "request_age"}
    assert (confirmed["driver"], confirmed["route"]) == ("passkey", True)
    assert confirmed["distance"] <= 1
    assert confirmed["accuracy"] == 8
    assert 0 <= confirmed["request_age"] <= confirmed["position_age"] + 20
    assert site.released() == 1
    shown = site.home.activity(began, entity_ids=[entities_of(site.home, site.door)[Part.LOCK]])
    states = [line.get("state") for line in shown]
    assert [state for state in states if state in ("unlocked", "locked")] == ["unlocked", "locked"], states
    assert site.state() == "locked"
    site.reads_activity("Access granted", NAME)
    site.take_picture("13-activity-granted")

    site.presses("Open: Gate")
    site.phone.sees_heading("The door is released")
    assert site.released("gate") == 1


def test_at_the_wrong_place_the_phone_says_so_and_nothing_reaches_the_building(site: Site) -> None:
    site.has_stop()
    site.goes_to(FAR)
    with site.hearing_nothing():
        site.presses("Open: Lobby")
        site.phone.sees_heading("Not opened")
    expect(site.phone.page.get_by_role("alert")).to_contain_text("You are not at this door.")
    assert site.phone.step("Where you are") == (
        "You are not at this door. Go to the door, then try again. Is it the right building?"
    )
    assert site.phone.step("The building") == "Not asked, because a check failed."
    site.take_picture_of_the_phone("20-wrong-place")


def test_where_the_building_wants_a_driver_to_be_nearer_both_phone_and_activity_say_so(site: Site) -> None:
    site.goes_to((place_near(30.0).latitude, LONGITUDE))
    change(site.home, "carrier", ISSUER, "linked", {"distance": 5})
    with site.hearing() as socket:
        site.presses("Try again")
        site.phone.sees_heading("The building refused")
        denied = outcomes(socket, until="access_denied")[-1]
    change(site.home, "carrier", ISSUER, "linked", {"distance": 75})
    site.phone.sees("The building asks for a closer or newer position. Call your dispatcher.")
    site.take_picture_of_the_phone("21-building-wants-nearer")
    assert (denied["code"], denied["carrier"]) == ("POLICY_EVIDENCE", NAME)
    assert 25 <= denied["confirmed"]["distance"] <= 35
    site.reads_activity("Access denied", f"{NAME} (its confirmations are outside the limits)")
    site.take_picture("22-activity-distance")
    assert site.released() == 1


def test_a_stop_of_another_route_is_refused_whatever_the_phone_asks_for(site: Site) -> None:
    """The page offers the driver's own stops only, so it is a page that somebody has altered."""
    theirs = site.fleet.bring(ROBIN, [site.door.id])
    own = site.has_stop()
    asks = f"{site.fleet.origin}/driver/requests"

    def alter(route: Any) -> None:
        wish = json.loads(route.request.post_data)
        assert wish["stop"] == own["id"]
        route.continue_(post_data=json.dumps(wish | {"stop": theirs["id"]}))

    site.phone.page.route(asks, alter)
    with site.hearing_nothing():
        site.presses("Open: Lobby")
        site.phone.sees_heading("Not opened")
    site.phone.page.unroute(asks)
    assert site.phone.step("Your route") == (
        "This stop is not on your route. Refresh today's stops, or call your dispatcher."
    )
    site.take_picture_of_the_phone("30-wrong-route")


def test_before_its_time_a_stop_is_refused(site: Site) -> None:
    site.has_stop(begins=timedelta(hours=2), lasts=timedelta(hours=3))
    with site.hearing_nothing():
        site.presses("Open: Lobby")
        site.phone.sees_heading("Not opened")
    assert site.phone.step("The time") == "It is too early for this stop. Come back when its time has begun."
    site.take_picture_of_the_phone("40-early")


def test_outside_the_buildings_own_hours_both_phone_and_activity_say_so(site: Site) -> None:
    site.has_stop()
    elsewhen = {"days": [list(Day)[datetime.now(UTC).weekday() - 3]], "from": "00:00:00", "to": "00:01:00"}
    change(site.home, "carrier", ISSUER, "linked", {"hours": [elsewhen]})
    with site.hearing() as socket:
        site.presses("Open: Lobby")
        site.phone.sees_heading("The building refused")
        denied = outcomes(socket, until="access_denied")[-1]
    change(site.home, "carrier", ISSUER, "linked", {"hours": []})
    site.phone.sees("The building takes no deliveries at this time. Call your dispatcher.")
    site.take_picture_of_the_phone("41-building-hours")
    assert denied["code"] == "POLICY_HOURS"
    site.reads_activity("Access denied", f"{NAME} (outside the hours for deliveries)")
    site.take_picture("42-activity-hours")
    assert site.released() == 1


def test_in_a_desktop_browser_a_position_is_typed_and_marked_and_the_door_opens(site: Site) -> None:
    stop = site.has_stop()
    viewport = {"width": 1100, "height": 900}
    desktop = PhoneWindow(phone_page(site.manager.browser, HERE, permissions=[], viewport=viewport, is_mobile=False))
    desktop.page.goto(site.fleet.invite(YOU))
    desktop.press("Set up this phone")
    desktop.sees("This phone is ready")
    for where in FAR, HERE:
        desktop.page.get_by_label("Latitude").fill(f"{where[0]:.5f}")
        desktop.page.get_by_label("Longitude").fill(f"{where[1]:.5f}")
        desktop.press("Use typed position")
        desktop.sees("The typed position is used, and marked as typed.")
        desktop.press("Open: Lobby")
        desktop.sees_heading("Not opened" if where == FAR else "The door is released")
        assert desktop.step("Where you are").endswith(" Typed by hand, and marked so.")
        desktop.screenshot(site.pictures / f"43-typed-{'far' if where == FAR else 'here'}.png")
        desktop.press("Back to today's stops")
        desktop.page.wait_for_timeout(WALK * 1000 if where == FAR else 0)
    desktop.page.context.close()
    assert site.released() == 2
    decisions = site.fleet.ask("GET", "/v1/decisions?limit=2")["decisions"]
    assert [(each["stop"], each["state"], each["position"]["typed"]) for each in decisions] == [
        (stop["id"], "granted", True),
        (stop["id"], "refused", True),
    ]


def test_a_phone_that_was_withdrawn_is_not_known_any_more(site: Site) -> None:
    site.has_stop()
    assert site.fleet.withdraw(YOU) == 2, "the desktop, too"
    with site.hearing_nothing():
        site.presses("Open: Lobby")
        site.phone.sees_heading("Sign in")
        site.phone.press("Sign in with passkey")
        site.phone.sees_heading("This passkey is not known")
    site.phone.sees("It may have been withdrawn. Ask your dispatcher for a new link.")
    site.take_picture_of_the_phone("50-revoked")


def test_a_signing_key_that_was_stolen_and_revoked_opens_nothing_and_repairs_say_so(site: Site) -> None:
    assert play(site.folder, DOOR, Play.REVOKED)  # which sees the line of Activity, too
    page = site.manager.page
    site.manager.go("/config/repairs")
    page.get_by_text(f"A revoked key of {NAME} was used").click()
    expect(page.get_by_text("No door was opened.")).to_be_visible()
    site.take_picture("51-revoked-key")
    assert site.released() == 2


def test_the_dispatcher_sees_what_the_building_does_not(site: Site) -> None:
    page = site.manager.browser.new_context(viewport={"width": 1300, "height": 700}, locale="en-GB").new_page()
    page.goto(f"{site.fleet.origin}/dispatch")
    page.get_by_label("API key").fill(site.fleet.api_key)
    page.get_by_role("button", name="Follow").click()
    for reason in ("too far", "not on route", "too early"):
        expect(page.get_by_role("row").filter(has_text=f"✗ {reason}").filter(has_text=YOU).first).to_contain_text(
            "Not confirmed"
        )
    for code in ("POLICY_EVIDENCE", "POLICY_HOURS"):
        expect(page.get_by_role("row").filter(has_text=f"The building refused ({code})")).to_have_count(1)
    page.screenshot(path=site.pictures / "60-dispatcher.png")
    page.context.close()


def test_no_place_and_no_name_of_a_driver_is_kept_at_the_building(site: Site) -> None:
    site.home.stop()
    with contextlib.closing(sqlite3.connect(journal_of(site.home.folder))) as db:
        kept = "\n".join(str(line) for line in db.iterdump())
    for secret in (YOU, ROBIN, str(FAR[0])[:8], str(LATITUDE), site.fleet.driver(YOU)):
        assert secret not in kept


def test_the_plays_say_what_the_page_says() -> None:
    words = (REPOSITORY / "carrier" / "web" / "words.js").read_text("utf-8").partition("const de = ")[0]
    said = [*robins.STEPS.values(), *robins.PASSED.values(), *robins.UNKNOWN_PASSKEY]
    said += [words for outcome in robins.OUTCOMES.values() for words in outcome if words]
    assert [each for each in said if f'"{each}"' not in words] == []
