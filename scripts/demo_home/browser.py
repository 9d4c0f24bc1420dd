"""A person in front of the demo: a headless Chromium, signed in, always the same size, light and English.

It is the system's Chromium (`scripts/setup --browser`), driven by Playwright, whose locators see through the shadow
roots that Home Assistant's pages are made of. What this file refuses to do: reach any host but this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page, ViewportSize, sync_playwright

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
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}",
]


@dataclass(frozen=True, slots=True)
class Window:
    """What the person sees; ``page`` is Playwright's, to click and to type in."""

    home: Home
    page: Page

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


@contextlib.contextmanager
def signed_in(home: Home, username: str, password: str) -> Iterator[Window]:
    """Open a browser in which somebody has signed in to a running Home Assistant."""
    if not CHROMIUM.exists():
        raise HomeFailed(f"There is no browser at {CHROMIUM}; get one with: scripts/setup --browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
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
        finally:
            browser.close()


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
