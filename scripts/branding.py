"""Renders docs/brand/*.svg to custom_components/vestibule/brand/*.png, in the sizes that Home Assistant asks for.

A drawing has its dark colours in itself (`prefers-color-scheme`), so a browser renders both. Only Chromium is asked
to draw; what this file refuses to do is to change a drawing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright

from .demo_home.browser import CHROMIUM

REPOSITORY: Final = Path(__file__).parent.parent
SOURCES: Final = REPOSITORY / "docs" / "brand"
IMAGES: Final = REPOSITORY / "custom_components" / "vestibule" / "brand"

HEIGHTS: Final = {"icon": 256, "logo": 128}
"""Pixels. Each drawing is rendered at twice that, too."""


def main() -> None:
    """Render every image."""
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for drawing, height in HEIGHTS.items():
            svg = (SOURCES / f"{drawing}.svg").read_text("utf-8")
            for prefix in ("", "dark_"):
                for suffix, scale in (("", 1), ("@2x", 2)):
                    image = IMAGES / f"{prefix}{drawing}{suffix}.png"
                    image.write_bytes(_render(browser, svg, height, scale, dark=bool(prefix)))
        browser.close()


def _render(browser: Browser, svg: str, height: int, scale: int, *, dark: bool) -> bytes:
    page = browser.new_page(device_scale_factor=scale, color_scheme="dark" if dark else "light")
    page.set_content(f"<style>body {{ margin: 0 }} svg {{ display: block; height: {height}px }}</style>{svg}")
    image = page.locator("svg").screenshot(omit_background=True)
    page.close()
    return image


if __name__ == "__main__":
    main()
