"""A driver in front of the carrier's page, on a phone: set it up, see today's stops, ask for a door, know what to do.

A headless Chromium with a virtual authenticator and a position that the test says; the cloud behind it is a real one on
a real store, and the building a real controller with simulated strikes. The tests leave pictures, in a temporary folder
or in $PICTURES.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from scripts.demo_home.browser import CHROMIUM, PhoneWindow, chromium, phone_page
from scripts.demo_home.home import free_port
from tests.carrier.served import FAR, PLACE, Served
from tests.simulated import Moment
from vestibule_core.model import Actor

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}; scripts/setup --browser gets one"),
]
PATIENCE = 20.0


class Cloud:
    """A served cloud in a thread of its own, for tests that do not run in an event loop."""

    def __init__(self, folder: Path, **how: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        port = free_port()
        self.origin = f"http://localhost:{port}"
        self.served = Served(folder, origin=self.origin, port=port, **how)
        self.do(self.served.__aenter__())

    def do[T](self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        self.do(self.served.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def hold_the_strike(self) -> Callable[[], None]:
        """Let the first door's strike wait with its answer; return what lets it go on."""
        going_on = asyncio.Event()

        async def wait() -> None:
            await going_on.wait()

        self.served.site.strike.at(Moment.TOLD, wait)

        def go_on() -> None:
            self._loop.call_soon_threadsafe(going_on.set)

        return go_on

    def cut_every_line(self) -> None:
        """Lose the connections that there are."""

        async def cut() -> None:
            server = self.served.front._runner.server
            assert server is not None
            for connection in server.connections:
                if connection.transport is not None:
                    connection.transport.abort()

        self.do(cut())

    def link(self) -> str:
        return f"{self.origin}/#join={self.do(self.served.invite(self.served.driver))}"


@dataclass
class Driver(PhoneWindow):
    """Somebody with a phone in the hand."""

    cloud: Cloud = field(kw_only=True)
    pictures: Path = field(kw_only=True)

    def take_picture(self, name: str) -> None:
        self.screenshot(self.pictures / f"{name}.png")

    def set_up(self) -> None:
        self.page.goto(self.cloud.link())
        self.press("Set up this phone")
        self.sees_heading("Today's stops")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("PICTURES") or tmp_path / "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def cloud(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path, **getattr(request, "param", {}))
    yield cloud
    cloud.close()


def phone(browser: Browser, cloud: Cloud, pictures: Path, **how: Any) -> Driver:
    page = phone_page(browser, PLACE, **how)
    page.context.set_default_timeout(PATIENCE * 1000)
    return Driver(page, cloud=cloud, pictures=pictures)


@pytest.fixture
def driver(browser: Browser, cloud: Cloud, pictures: Path) -> Iterator[Driver]:
    driver = phone(browser, cloud, pictures)
    expect.set_options(timeout=PATIENCE * 1000)
    yield driver
    driver.page.context.close()
    assert all(url.startswith((cloud.origin, "data:")) for url in driver.asked_for), "it asks nobody else"
    refusals = [line for line in driver.complaints if "status of 4" not in line and "net::ERR" not in line]
    assert refusals == [], "not even its own policy has anything to complain about"


def test_a_driver_sets_the_phone_up_and_opens_both_doors_in_order(driver: Driver) -> None:
    driver.page.goto(link := driver.cloud.link())
    driver.take_picture("01-join")
    driver.press("Set up this phone")
    driver.sees("This phone is ready")
    driver.sees_heading("Linden Court")
    assert "#" not in driver.page.url, "the link's secret is not left in the address"
    driver.take_picture("02-today")

    driver.press("Open: Gate")
    driver.sees_heading("The door is released")
    assert driver.step("You") == "It is you."
    assert driver.step("Your route") == "This door is next on your route."
    assert driver.step("Where you are") == "You are at the door."
    assert driver.step("The time") == "It is within your hours."
    assert driver.step("The building") == "It released the door."
    driver.take_picture("03-released")

    driver.press("Open: Lobby")
    driver.sees_heading("The door is released")
    assert driver.cloud.served.site.pulses == 2
    driver.press("Back to today's stops")
    driver.sees("There is nothing more to open today.")
    driver.take_picture("04-all-open")

    driver.page.goto("about:blank")
    driver.page.goto(link)
    driver.press("Set up this phone")
    driver.sees("This link no longer works")
    driver.take_picture("05-link-spent")


def test_each_step_is_shown_while_it_happens(driver: Driver) -> None:
    driver.set_up()
    arrive = driver.cloud.hold_the_strike()
    driver.press("Open: Gate")
    expect(driver.page.locator(".steps li.yes")).to_have_count(4)
    assert driver.step("The building") == "Asking the building …"
    expect(driver.page.get_by_role("heading", name="The door is released")).to_have_count(0)
    driver.take_picture("06-asking")

    arrive()
    driver.sees_heading("The door is released")


def test_at_the_wrong_place_it_says_so_and_what_to_do(driver: Driver) -> None:
    driver.set_up()
    driver.is_at(FAR)
    driver.press("Open: Gate")
    driver.sees_heading("Not opened")
    expect(driver.page.get_by_role("alert")).to_contain_text("You are not at this door.")
    assert driver.step("Where you are") == (
        "You are not at this door. Go to the door, then try again. Is it the right building?"
    )
    assert driver.step("You") == "It is you."
    assert driver.step("The building") == "Not asked, because a check failed."
    driver.take_picture("07-wrong-place")
    driver.cloud.served.advance(seconds=10)
    driver.page.wait_for_timeout(6100)  # nobody walks faster
    driver.is_at(PLACE)
    driver.press("Try again")
    driver.sees_heading("The door is released")


def test_whoever_is_not_the_owner_of_the_phone_gets_nowhere(driver: Driver) -> None:
    driver.set_up()
    driver.recognised(by_the_phone=False)
    driver.press("Open: Gate")
    driver.sees_heading("You did not confirm")
    driver.take_picture("08-not-confirmed")
    driver.recognised(by_the_phone=True)
    driver.press("Try again")
    driver.sees_heading("The door is released")


def test_without_a_position_it_says_where_to_switch_it_on(browser: Browser, cloud: Cloud, pictures: Path) -> None:
    driver = phone(browser, cloud, pictures, permissions=[])
    driver.set_up()
    driver.press("Open: Gate")
    driver.sees_heading("Your position is switched off for this page")
    driver.take_picture("09-no-position")
    driver.page.context.close()
    assert cloud.served.site.pulses == 0


@pytest.mark.parametrize("cloud", [{"connected": False}], indirect=True)
def test_a_building_that_is_not_connected_is_said_honestly(driver: Driver) -> None:
    driver.set_up()
    driver.press("Open: Gate")
    driver.sees_heading("The building cannot be reached")
    driver.take_picture("10-unreachable")
    driver.press("Back to today's stops")
    expect(driver.page.get_by_role("button", name="Open: Gate")).to_be_visible()


def test_a_building_that_is_locked_down_refuses_and_the_door_is_not_offered_again(driver: Driver) -> None:
    driver.set_up()
    ann = Actor("ann-1", "Ann", is_admin=True)
    driver.cloud.do(driver.cloud.served.site.controller.by_hand.set_lockdown(True, ann))
    driver.press("Open: Gate")
    driver.sees_heading("The building refused")
    driver.sees("This door cannot be used at the moment. Call your dispatcher.")
    driver.take_picture("11-building-refused")
    expect(driver.page.get_by_role("button", name="Try again")).to_have_count(0)
    driver.press("Back to today's stops")
    driver.sees("There is nothing more to open today.")


def test_a_line_that_breaks_leads_to_the_outcome_and_not_to_a_second_request(driver: Driver) -> None:
    driver.set_up()
    arrive = driver.cloud.hold_the_strike()
    driver.press("Open: Gate")
    expect(driver.page.locator(".steps li.yes")).to_have_count(4)
    driver.cloud.cut_every_line()
    expect(driver.page.get_by_text("Connection lost. Asking what happened …")).to_be_visible()

    arrive()
    driver.sees_heading("The door is released")
    assert driver.cloud.served.site.pulses == 1


def test_a_driver_signs_out_and_in_again(driver: Driver) -> None:
    driver.set_up()
    driver.press("Sign out")
    driver.sees_heading("Sign in")
    driver.page.reload()
    driver.sees_heading("Sign in")
    driver.take_picture("12-sign-in")
    driver.press("Sign in with passkey")
    driver.sees_heading("Linden Court")


@pytest.mark.parametrize("cloud", [{"typed": True}], indirect=True)
def test_in_a_cloud_for_tests_a_position_can_be_typed_and_is_marked(
    browser: Browser, cloud: Cloud, pictures: Path
) -> None:
    driver = phone(browser, cloud, pictures, permissions=[], viewport={"width": 1100, "height": 900}, is_mobile=False)
    driver.set_up()
    driver.page.get_by_label("Latitude").fill(str(PLACE[0]))
    driver.page.get_by_label("Longitude").fill(str(PLACE[1]))
    driver.press("Use typed position")
    driver.sees("The typed position is used, and marked as typed.")
    driver.take_picture("13-typed")
    driver.press("Open: Gate")
    driver.sees_heading("The door is released")
    driver.page.context.close()


def test_it_speaks_german_to_whoever_does_and_is_readable_in_the_dark(
    browser: Browser, cloud: Cloud, pictures: Path
) -> None:
    driver = phone(browser, cloud, pictures, locale="de-DE", color_scheme="dark")
    driver.page.goto(cloud.link())
    driver.press("Dieses Telefon einrichten")
    driver.sees_heading("Stopps von heute")
    expect(driver.page.locator("html")).to_have_attribute("lang", "de")
    driver.is_at(FAR)
    driver.press("Öffnen: Gate")
    driver.sees_heading("Nicht geöffnet")
    assert driver.step("Ihr Standort").startswith("Sie sind nicht an dieser Tür. Gehen Sie zur Tür")
    driver.take_picture("14-german-dark")
    driver.page.context.close()


CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const color = parse(getComputedStyle(each).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest(".unseen, noscript")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${node.tagName} "${node.textContent.trim().slice(0, 40)}" ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_used_by_ear_by_keyboard_and_with_weak_eyes(
    browser: Browser, cloud: Cloud, pictures: Path, scheme: str
) -> None:
    driver = phone(browser, cloud, pictures, color_scheme=scheme, reduced_motion="reduce")
    page = driver.page

    def looks_good(heading: str) -> None:
        expect(page.get_by_role("heading", name=heading).first).to_be_focused()  # where a screen reader goes on
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing to scroll to the side"
        for button in page.get_by_role("button").all():
            box = button.bounding_box()
            assert box is not None
            assert box["height"] >= 44, "a wet glove hits it"
        assert page.locator("input:not([id])").count() == 0
        assert page.locator("img:not([alt])").count() == 0
        assert page.get_by_role("banner").count() == page.get_by_role("main").count() == 1

    page.goto(cloud.link())
    looks_good("Set up this phone")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Set up this phone")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Linden Court")).to_be_visible()
    looks_good("This phone is ready")
    driver.is_at(FAR)
    page.get_by_role("button", name="Open: Gate").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Not opened")
    expect(page.locator("#said")).to_have_attribute("aria-live", "polite")
    expect(page.locator("#said")).to_contain_text("Not opened")
    assert page.evaluate(CONTRAST) == []
    assert page.locator(".busy").count() == 0
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "a small phone"
    driver.take_picture(f"15-small-{scheme}")
    page.context.close()


def test_the_page_is_small_and_can_be_installed(driver: Driver) -> None:
    sizes: dict[str, int] = {}

    def weigh(response: Any) -> None:
        if response.status == 200 and not re.search(r"/driver/", response.url):
            sizes[response.url] = len(response.body())

    driver.page.goto(driver.cloud.origin)
    for path in ("/", "/web/driver.js", "/web/api.js", "/web/words.js", "/web/style.css", "/web/icon-512.png"):
        weigh(driver.page.request.get(driver.cloud.origin + path))
    assert sum(sizes.values()) < 60_000
    errors = driver.cdp.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert [each["errorId"] for each in errors if each["errorId"] != "in-incognito"] == []
    manifest = driver.cdp.send("Page.getAppManifest")
    assert manifest["errors"] == []
    assert '"display": "standalone"' in manifest["data"]


def test_a_dispatcher_sees_decisions_as_they_are_made(driver: Driver, browser: Browser) -> None:
    driver.set_up()
    window = browser.new_context(viewport={"width": 1300, "height": 700}, locale="en-GB")
    page = window.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{driver.cloud.origin}/dispatch")
    page.get_by_label("API key").fill("vck_" + "A" * 43)
    page.get_by_role("button", name="Follow").click()
    expect(page.get_by_role("status")).to_have_text("This key is not known, or it was revoked.")
    page.get_by_label("API key").fill(driver.cloud.served.key)
    page.get_by_role("button", name="Follow").click()
    driver.is_at(FAR)
    driver.press("Open: Gate")
    driver.sees_heading("Not opened")
    row = page.get_by_role("row").filter(has_text="Kim Example").first
    expect(row).to_contain_text("Linden Court: Gate")
    expect(row).to_contain_text("✗ too far, 412 m ± 8 m")
    expect(row).to_contain_text("Not confirmed")
    driver.page.wait_for_timeout(6100)
    driver.is_at(PLACE)
    driver.press("Try again")
    driver.sees_heading("The door is released")
    expect(page.get_by_role("row").filter(has_text="Door released")).to_have_count(1)
    page.screenshot(path=driver.pictures / "16-dispatcher.png")
    window.close()
    assert complaints == []


def test_a_dispatcher_sees_alarms_marks_them_as_seen_and_sees_who_is_not_connected(
    driver: Driver, browser: Browser
) -> None:
    served = driver.cloud.served
    driver.cloud.do(served.alarm())
    window = browser.new_context(viewport={"width": 1300, "height": 700}, locale="en-GB")
    page = window.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{driver.cloud.origin}/dispatch")
    page.get_by_label("API key").fill(served.key)
    page.get_by_role("button", name="Follow").click()
    alarms = page.get_by_role("region", name="Alarms")
    expect(alarms).to_contain_text("A building accepted a token that this cloud did not issue.")
    expect(alarms).to_contain_text("Linden Court")
    buildings = page.get_by_role("region", name="Buildings")
    expect(buildings).to_contain_text("0 of 1 connected.")
    expect(buildings).to_contain_text("Not connected: Linden Court")
    page.screenshot(path=driver.pictures / "17-dispatcher-alarm.png")
    page.get_by_role("button", name="Mark alarm 1 as seen").click()
    expect(alarms).to_be_hidden()
    window.close()
    assert complaints == []
