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
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from carrier import alarms
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
NOTICES = """(since) => {
  window.noticed = new Promise((resolve) => {
    const watching = navigator.geolocation.watchPosition(({ timestamp }) => {
      if (timestamp < Math.floor(since)) return;
      navigator.geolocation.clearWatch(watching);
      resolve();
    }, () => {}, { enableHighAccuracy: true, maximumAge: 0 });
  });
}"""
"""Notice a newer position: all watches of a page are told of it together."""


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

    def goes_to(self, place: tuple[float, float]) -> None:
        """Go there, and let the page notice: it takes a position for as old as the browser was told of it."""
        self.page.evaluate(NOTICES, time.time() * 1000)
        self.is_at(place)
        self.page.evaluate("window.noticed")

    def asks(self, button: str, place: tuple[float, float] = PLACE) -> None:
        """Ask for a door; the phone has just found where it is."""
        self.goes_to(place)
        self.press(button)


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

    driver.asks("Open: Gate")
    driver.sees_heading("The door is released")
    assert driver.step("You") == "It is you."
    assert driver.step("Your route") == "This door is next on your route."
    assert driver.step("Where you are") == "You are at the door."
    assert driver.step("The time") == "It is within your hours."
    assert driver.step("The building") == "It released the door."
    driver.take_picture("03-released")

    driver.asks("Open: Lobby")
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
    driver.asks("Open: Gate")
    expect(driver.page.locator(".steps li.yes")).to_have_count(4)
    driver.sees("Asking the building …")
    assert driver.step("The building") == "Asking the building …"
    expect(driver.page.get_by_role("heading", name="The door is released")).to_have_count(0)
    driver.take_picture("06-asking")

    arrive()
    driver.sees_heading("The door is released")


def test_at_the_wrong_place_it_says_so_and_what_to_do(driver: Driver) -> None:
    driver.set_up()
    driver.asks("Open: Gate", FAR)
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
    driver.asks("Try again")
    driver.sees_heading("The door is released")


def test_whoever_is_not_the_owner_of_the_phone_gets_nowhere(driver: Driver) -> None:
    driver.set_up()
    driver.recognised(by_the_phone=False)
    driver.asks("Open: Gate")
    driver.sees_heading("You did not confirm")
    driver.take_picture("08-not-confirmed")
    driver.recognised(by_the_phone=True)
    driver.asks("Try again")
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
    driver.asks("Open: Gate")
    driver.sees_heading("The building cannot be reached")
    driver.take_picture("10-unreachable")
    driver.press("Back to today's stops")
    expect(driver.page.get_by_role("button", name="Open: Gate")).to_be_visible()


def test_a_building_that_is_locked_down_refuses_and_the_door_is_not_offered_again(driver: Driver) -> None:
    driver.set_up()
    ann = Actor("ann-1", "Ann", is_admin=True)
    driver.cloud.do(driver.cloud.served.site.controller.by_hand.set_lockdown(True, ann))
    driver.asks("Open: Gate")
    driver.sees_heading("The building refused")
    driver.sees("This door cannot be used at the moment. Call your dispatcher.")
    driver.take_picture("11-building-refused")
    expect(driver.page.get_by_role("button", name="Try again")).to_have_count(0)
    driver.press("Back to today's stops")
    driver.sees("There is nothing more to open today.")


def test_a_line_that_breaks_leads_to_the_outcome_and_not_to_a_second_request(driver: Driver) -> None:
    driver.set_up()
    arrive = driver.cloud.hold_the_strike()
    driver.asks("Open: Gate")
    expect(driver.page.locator(".steps li.yes")).to_have_count(4)
    driver.cloud.cut_every_line()
    expect(driver.page.get_by_text("No answer yet. Asking what happened …")).to_be_visible()

    arrive()
    driver.sees_heading("The door is released")
    assert driver.cloud.served.site.pulses == 1


def test_a_proxy_that_gives_up_leads_to_the_outcome_as_well(driver: Driver) -> None:
    """Its 502 says nothing about the door: the request has arrived, and the cloud decides it to its end."""
    driver.set_up()
    asked: list[str] = []

    def give_up(route: Route) -> None:
        asked.append(route.request.method)
        if len(asked) == 1:
            route.fetch()  # it arrives, and is answered
        if len(asked) <= 3:
            route.fulfill(status=(502, 503, 429)[len(asked) - 1], json={"error": "unavailable"})
        else:
            route.continue_()

    driver.page.route("**/driver/requests/req:*", give_up)
    driver.asks("Open: Gate")
    driver.sees_heading("The door is released")
    assert asked == ["POST", "GET", "GET", "GET"]
    driver.complaints.clear()  # the browser's own, of the proxy
    assert driver.cloud.served.site.pulses == 1


def test_a_cloud_that_cannot_answer_says_so_at_once_and_may_be_asked_again(driver: Driver) -> None:
    """It looked at nothing: no door is taken by it, and nobody waits for an outcome."""
    driver.set_up()
    asked: list[str] = []

    def turn_away(route: Route) -> None:
        asked.append(route.request.method)
        if len(asked) == 1:
            route.fulfill(status=503, json={"error": "unavailable"})
        else:
            route.continue_()

    driver.page.route("**/driver/requests/req:*", turn_away)
    driver.asks("Open: Gate")
    driver.sees_heading("The cloud cannot answer now")
    assert asked == ["POST"]
    driver.complaints.clear()
    driver.asks("Try again")
    driver.sees_heading("The door is released")
    assert driver.cloud.served.site.pulses == 1


def test_a_line_that_falls_silent_leads_to_the_outcome(driver: Driver) -> None:
    """No radio tells a phone in a lift that its line is dead: 25 s without a word are taken for that."""
    driver.page.clock.install()
    driver.set_up()
    arrive = driver.cloud.hold_the_strike()
    driver.asks("Open: Gate")
    expect(driver.page.locator(".steps li.yes")).to_have_count(4)
    driver.page.clock.fast_forward(26_000)
    driver.sees("No answer yet. Asking what happened …")
    driver.take_picture("18-asking-what-happened")

    arrive()
    driver.sees_heading("The door is released")
    assert driver.cloud.served.site.pulses == 1


def test_a_confirmation_that_nobody_answers_leaves_nobody_waiting(driver: Driver) -> None:
    driver.page.clock.install()
    driver.set_up()
    driver.page.route("**/driver/requests/req:*", lambda _: None)
    driver.asks("Open: Gate")
    expect(driver.page.get_by_role("status").filter(has_text="Checking …")).to_be_visible()
    with driver.page.expect_request(lambda asked: asked.method == "GET" and "/driver/requests/req:" in asked.url):
        driver.page.clock.fast_forward(26_000)
        driver.sees("No answer yet. Asking what happened …")
    driver.page.clock.fast_forward(46_000)
    driver.sees_heading("We do not know whether it opened")
    assert driver.step("You") == "Not known"
    driver.take_picture("19-unheard")
    driver.page.unroute("**/driver/requests/req:*")
    driver.press("Back to today's stops")
    driver.sees_heading("Today's stops")


def test_a_cloud_that_says_nothing_at_all_is_no_connection(driver: Driver) -> None:
    driver.page.clock.install()
    driver.set_up()
    driver.page.route("**/driver/**", lambda _: None)
    driver.press("Refresh")
    driver.page.clock.fast_forward(16_000)
    driver.sees_heading("No connection")
    driver.take_picture("20-no-connection")
    driver.page.unroute("**/driver/**")
    driver.press("Try again")
    driver.sees_heading("Today's stops")


def test_a_confirmation_that_the_browser_sends_twice_is_not_called_too_late(driver: Driver) -> None:
    """As it does if a connection that it kept was reset before any answer: the second time, it is used already."""
    driver.set_up()

    def send_twice(route: Route) -> None:
        if route.request.method == "POST":
            route.fetch()
        route.continue_()

    driver.page.route("**/driver/requests/req:*", send_twice)
    driver.asks("Open: Gate")
    driver.sees_heading("The door is released")
    assert driver.cloud.served.site.pulses == 1


def test_a_confirmation_that_comes_too_late_says_so_and_may_be_given_again(driver: Driver) -> None:
    driver.set_up()

    def sleep(route: Route) -> None:
        if route.request.method == "POST":
            driver.cloud.served.advance(minutes=3)
        route.continue_()

    driver.page.route("**/driver/requests/req:*", sleep)
    driver.asks("Open: Gate")
    driver.sees("No answer yet. Asking what happened …")
    driver.sees_heading("That took too long")
    driver.sees("Nothing was opened. Try again.")
    expect(driver.page.get_by_role("button", name="Try again")).to_be_visible()
    assert driver.cloud.served.site.pulses == 0


def test_a_line_that_is_lost_after_it_was_not_there_yet_is_unknown(driver: Driver) -> None:
    """Once, the cloud did not know the request; it may know it since, and the door may be open."""
    driver.page.clock.install()
    driver.set_up()
    asked: list[Route] = []

    def lose(route: Route) -> None:
        asked.append(route)
        if len(asked) == 2:
            route.continue_()
            return
        if len(asked) == 3:
            asked[0].fetch()  # it arrives only now
        route.abort()

    driver.page.route("**/driver/requests/req:*", lose)
    driver.asks("Open: Gate")
    driver.sees("No answer yet. Asking what happened …")
    while len(asked) < 4:
        driver.page.wait_for_timeout(100)
    driver.page.clock.fast_forward(45_000)
    driver.sees_heading("We do not know whether it opened")
    assert driver.cloud.served.site.pulses == 1


def test_a_confirmation_that_never_arrived_says_so(driver: Driver) -> None:
    driver.page.clock.install()
    driver.set_up()
    driver.page.route(
        "**/driver/requests/req:*",
        lambda route: route.abort() if route.request.method == "POST" else route.continue_(),
    )
    driver.asks("Open: Gate")
    driver.sees("No answer yet. Asking what happened …")
    driver.page.clock.set_system_time(time.time() + 46)  # a request under way is not given up, and is answered
    driver.sees_heading("Your confirmation did not arrive")
    driver.take_picture("21-unsent")
    driver.page.unroute("**/driver/requests/req:*")
    assert driver.cloud.served.site.pulses == 0


FAILS = """([how, name]) => {
  const works = navigator.credentials[how].bind(navigator.credentials);
  window.active = [];
  navigator.credentials[how] = async (options) => {
    window.active.push(navigator.userActivation.isActive);
    if (window.active.length > 1) return works(options);
    throw new DOMException("", name);
  };
}"""
"""Let the phone's passkeys fail once."""


@pytest.mark.parametrize("failure", ["NotReadableError", "UnknownError", "OperationError"])
def test_a_phone_whose_passkeys_fail_leaves_nobody_without_a_button(driver: Driver, failure: str) -> None:
    driver.page.goto(driver.cloud.link())
    driver.page.evaluate(FAILS, ["create", failure])
    driver.press("Set up this phone")
    driver.sees_heading("You did not confirm")
    driver.press("Set up this phone")
    driver.sees_heading("Today's stops")

    driver.page.evaluate(FAILS, ["get", failure])
    driver.asks("Open: Gate")
    driver.sees_heading("You did not confirm")
    driver.take_picture("22-passkeys-fail")
    driver.asks("Try again")
    driver.sees_heading("The door is released")

    driver.press("Back to today's stops")
    driver.press("Sign out")
    driver.page.evaluate(FAILS, ["get", failure])
    driver.press("Sign in with passkey")
    driver.sees_heading("You did not confirm")
    driver.press("Sign in with passkey")
    driver.sees_heading("Linden Court")


def test_a_phone_that_wants_a_finger_first_is_asked_at_once_for_what_was_asked_already(driver: Driver) -> None:
    """A phone may ask for a passkey only right after a finger, and it takes seconds to find where it is."""
    driver.set_up()
    driver.page.evaluate(FAILS, ["get", "NotAllowedError"])
    driver.asks("Open: Gate")
    driver.sees_heading("You did not confirm")
    driver.page.context.set_geolocation(None)
    driver.press("Try again")
    driver.sees_heading("The door is released")
    assert driver.page.evaluate("window.active[1]")
    assert [url for url in driver.asked_for if url.endswith("/driver/requests")] == [
        f"{driver.cloud.origin}/driver/requests"
    ]


def test_a_phone_that_comes_back_to_it_later_says_anew_where_it_is(driver: Driver) -> None:
    driver.page.clock.install()
    driver.set_up()
    driver.page.evaluate(FAILS, ["get", "NotAllowedError"])
    driver.asks("Open: Gate")
    driver.sees_heading("You did not confirm")
    now = time.time()
    driver.page.clock.set_system_time(now + 30)
    driver.press("Try again")
    driver.sees("Looking for your position …")
    driver.page.clock.set_system_time(now)
    driver.is_at((PLACE[0] + 0.00001, PLACE[1]))
    driver.sees_heading("The door is released")
    assert len([url for url in driver.asked_for if url.endswith("/driver/requests")]) == 2


def test_a_phone_that_is_set_up_already_may_sign_in(driver: Driver) -> None:
    driver.set_up()
    driver.page.goto("about:blank")
    driver.page.goto(driver.cloud.link())
    driver.press("Set up this phone")
    driver.sees_heading("This phone is set up already")
    driver.take_picture("23-set-up-already")
    driver.press("Sign in with passkey")
    driver.sees_heading("Linden Court")
    assert "#" not in driver.page.url, "to load it again does not begin to set it up"


def test_a_building_that_takes_no_deliveries_now_gives_the_door_back(driver: Driver) -> None:
    driver.set_up()
    site, ann = driver.cloud.served.site, Actor("ann-1", "Ann", is_admin=True)
    driver.cloud.do(site.controller.by_hand.set_deliveries(site.door.id, False, ann))
    driver.asks("Open: Gate")
    driver.sees_heading("The building refused")
    driver.sees("The building takes no deliveries at the moment. Call your dispatcher.")
    driver.sees("Nothing was opened. You can try once more: in a minute, or when your dispatcher says so.")
    driver.take_picture("24-building-refused-for-now")
    driver.cloud.do(site.controller.by_hand.set_deliveries(site.door.id, True, ann))
    driver.asks("Try again")
    driver.sees_heading("The door is released")


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
    driver.asks("Öffnen: Gate", FAR)
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
    driver.goes_to(FAR)
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
    driver.asks("Open: Gate", FAR)
    driver.sees_heading("Not opened")
    row = page.get_by_role("row").filter(has_text="Kim Example").first
    expect(row).to_contain_text("Linden Court: Gate")
    expect(row).to_contain_text("✗ too far, 412 m ± 8 m")
    expect(row).to_contain_text("Not confirmed")
    driver.page.wait_for_timeout(6100)
    driver.asks("Try again")
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


@pytest.fixture
def dispatcher(cloud: Cloud, browser: Browser) -> Iterator[Page]:
    """Somebody in front of the dispatcher's page, whose clock the test may turn."""
    window = browser.new_context(viewport={"width": 1300, "height": 700}, locale="en-GB")
    expect.set_options(timeout=PATIENCE * 1000)
    page = window.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.clock.install()
    page.goto(f"{cloud.origin}/dispatch")
    page.get_by_label("API key").fill(cloud.served.key)
    yield page
    window.close()
    assert complaints == []


def test_a_dispatcher_sees_how_many_alarms_are_not_written_down_one_by_one(
    dispatcher: Page, cloud: Cloud, pictures: Path
) -> None:
    async def raise_many() -> None:
        for number in range(alarms.MOST + 3):
            await cloud.served.alarm(f"{number:022}")

    cloud.do(raise_many())
    dispatcher.get_by_role("button", name="Follow").click()
    listed = dispatcher.get_by_role("region", name="Alarms").get_by_role("listitem")
    expect(listed).to_have_count(alarms.MOST + 1)
    expect(listed.first).to_contain_text("Linden Court, more of these, told 3 times")
    dispatcher.screenshot(path=pictures / "25-dispatcher-more-alarms.png")


def test_a_dispatcher_is_not_told_of_a_connection_before_there_is_one(dispatcher: Page) -> None:
    dispatcher.route("**/v1/decisions/live", lambda _: None)
    dispatcher.get_by_role("button", name="Follow").click()
    state = dispatcher.locator("#state")
    expect(state).to_have_text("Connecting …")
    dispatcher.clock.fast_forward(41_000)
    expect(state).to_have_text("No connection. Trying again …")
    dispatcher.unroute("**/v1/decisions/live")
    dispatcher.clock.fast_forward(41_000)
    expect(state).to_have_text("Connected. What comes is shown at once.")


def test_a_dispatchers_line_that_falls_silent_is_no_connection(dispatcher: Page) -> None:
    """The cloud says something every 15 s: after 40 s without a word, nobody is there any more."""
    dispatcher.get_by_role("button", name="Follow").click()
    state = dispatcher.locator("#state")
    expect(state).to_have_text("Connected. What comes is shown at once.")
    dispatcher.route("**/v1/decisions/live", lambda _: None)
    dispatcher.clock.fast_forward(41_000)
    expect(state).to_have_text("No connection. Trying again …")


def test_a_dispatcher_is_told_if_alarms_and_buildings_are_not_those_of_now(dispatcher: Page, pictures: Path) -> None:
    dispatcher.get_by_role("button", name="Follow").click()
    buildings = dispatcher.get_by_role("region", name="Buildings")
    expect(buildings).to_contain_text("0 of 1 connected.")
    dispatcher.route("**/v1/buildings", lambda route: route.abort())
    dispatcher.clock.fast_forward(16_000)
    expect(buildings).to_contain_text("No answer: the alarms and buildings shown here are old.")
    dispatcher.screenshot(path=pictures / "26-dispatcher-not-of-now.png")
    dispatcher.unroute("**/v1/buildings")
    dispatcher.clock.fast_forward(16_000)
    expect(buildings).to_contain_text("0 of 1 connected.")
    expect(buildings).not_to_contain_text("No answer")
