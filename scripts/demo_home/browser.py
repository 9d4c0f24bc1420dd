"""Persons in front of the demo: the manager, signed in to Home Assistant, and a driver with a phone in the hand.

Both are in a headless Chromium, always the same size, light and English: the system's (`scripts/setup --browser`),
driven by Playwright, whose locators see through the shadow roots that Home Assistant's pages are made of. The phone's
passkeys are the browser's own, in a virtual authenticator. What this file refuses to do: reach any host but this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from .home import HOST, Home, HomeFailed

CHROMIUM: Final = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
VIEWPORT: Final[ViewportSize] = {"width": 1280, "height": 900}
PATIENCE: Final = 30.0
"""Seconds until a click or a page that does not come is an error."""

_ARGUMENTS: Final = [
    "--no-sandbox",  # it is refused to root, and all that is shown is our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}, EXCLUDE localhost",
]


@dataclass(frozen=True, slots=True)
class Window:
    """What the person sees; ``page`` is Playwright's, to click and to type in."""

    home: Home
    page: Page

    @property
    def browser(self) -> Browser:
        """The browser that it is a window of."""
        assert self.page.context.browser is not None
        return self.page.context.browser

    def go(self, path: str) -> None:
        """Open a page of Home Assistant by its path, `/config/integrations` say, and wait until it is there."""
        self.page.goto(self.home.url + path)
        self.page.wait_for_load_state("networkidle")

    def screenshot(self, path: Path) -> None:
        """Write a picture of the window (PNG) once it stands still: two in a row are the same."""
        seen, now = b"", self._look()
        deadline = time.monotonic() + PATIENCE
        while now != seen:
            if time.monotonic() > deadline:
                raise HomeFailed(f"The page {self.page.url} does not come to rest.")
            self.page.wait_for_timeout(250)
            seen, now = now, self._look()
        path.write_bytes(now)

    def _look(self) -> bytes:
        return self.page.screenshot(animations="disabled", caret="hide")


@dataclass
class PhoneWindow:
    """A driver's phone: a browser with a virtual authenticator and a position that is said."""

    page: Page
    asked_for: list[str] = field(default_factory=list)
    """Every address that the page asked for."""
    complaints: list[str] = field(default_factory=list)
    """What the browser's console says."""
    authenticator: str = ""

    def __post_init__(self) -> None:
        """Listen to the page, and give it its authenticator."""
        self.page.on("request", lambda request: self.asked_for.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.cdp = self.page.context.new_cdp_session(self.page)
        self.cdp.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        self.authenticator = self.cdp.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"]

    def is_at(self, place: tuple[float, float], accuracy: int = 8) -> None:
        """Go there; degrees and metres."""
        self.page.context.set_geolocation({"latitude": place[0], "longitude": place[1], "accuracy": accuracy})

    def recognised(self, by_the_phone: bool) -> None:
        """Let the phone recognise who holds it, or not."""
        self.cdp.send(
            "WebAuthn.setUserVerified", {"authenticatorId": self.authenticator, "isUserVerified": by_the_phone}
        )

    def press(self, name: str) -> None:
        """Press a button."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def sees(self, text: str) -> None:
        """See a text on the page."""
        expect(self.page.get_by_role("main").get_by_text(text, exact=True).first).to_be_visible()

    def sees_heading(self, text: str) -> None:
        """See a heading."""
        expect(self.page.get_by_role("heading", name=text, exact=True)).to_be_visible()

    def step(self, name: str) -> str:
        """Return what is said beside one of the steps."""
        row = self.page.locator(".steps li").filter(has=self.page.get_by_text(name, exact=True))
        return row.locator(".why").inner_text()

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page (PNG)."""
        self.page.wait_for_timeout(150)
        self.page.screenshot(path=path, animations="disabled", full_page=True)


def phone_page(browser: Browser, place: tuple[float, float], **how: Any) -> Page:
    """Open a browser as on a phone that is at a place; ``how``: other settings."""
    settings: dict[str, Any] = {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
        "locale": "en-GB",
        "timezone_id": "Europe/Berlin",
        "color_scheme": "light",
        "permissions": ["geolocation"],
        "geolocation": {"latitude": place[0], "longitude": place[1], "accuracy": 8},
    }
    context = browser.new_context(**(settings | how))
    context.set_default_timeout(PATIENCE * 1000)
    return context.new_page()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser."""
    if not CHROMIUM.exists():
        raise HomeFailed(f"There is no browser at {CHROMIUM}; get one with: scripts/setup --browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def signed_in(home: Home, username: str, password: str) -> Iterator[Window]:
    """Open a browser in which somebody has signed in to a running Home Assistant."""
    with chromium() as browser:
        context = browser.new_context(
            viewport=VIEWPORT,
            device_scale_factor=1,
            color_scheme="light",
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
            service_workers="block",
            storage_state={"cookies": [], "origins": [_remembered(home, username, password)]},
        )
        context.set_default_timeout(PATIENCE * 1000)
        yield Window(home, context.new_page())


def _remembered(home: Home, username: str, password: str) -> Any:
    """Return what the user interface keeps of somebody who has signed in, in the browser's local storage."""
    somebody = Home(home.folder, home.python, port=home.port)
    refresh_token = somebody.log_in(username, password)
    lifetime = 1800
    kept = {
        "hassTokens": {
            "hassUrl": home.url,
            "clientId": f"{home.url}/",
            "refresh_token": refresh_token,
            "access_token": somebody.access,
            "token_type": "Bearer",
            "expires_in": lifetime,
            "expires": int((time.time() + lifetime) * 1000),
        },
        "selectedLanguage": "en",
        "selectedTheme": {"dark": False},
        "dockedSidebar": "docked",
    }
    return {
        "origin": home.url,
        "localStorage": [{"name": name, "value": json.dumps(value)} for name, value in kept.items()],
    }
