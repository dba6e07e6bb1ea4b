"""A picture of each page, light, dark and on a phone, for people to look at: `python -m console.screenshots FOLDER`.

Those that the documents show are written beside them.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import expect

from .browsing import Browsing, World, go
from .test_pages import PAGES

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = {
    "/": "console-overview",
    "/purposes/video.uploaded/Make%20thumbnail": "console-purpose",
    "/trace/first": "console-trace",
}
WAYS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
}
SOME_TRAFFIC_MS = 12_000


async def take(browsing: Browsing, world: World, folder: Path) -> None:
    for way, how in WAYS.items():
        async with browsing.page(world.console, world.admin, errors=("404",), **how) as page:
            await page.wait_for_timeout(SOME_TRAFFIC_MS)
            for address, (title, text) in PAGES.items():
                await go(page, address)
                await expect(page.locator("h1")).to_have_text(title)
                await expect(page.locator("main")).to_contain_text(re.compile(text))
                await page.wait_for_timeout(500)
                name = re.sub(r"\W+", "-", address).strip("-")[:60] or "overview"
                await page.screenshot(path=folder / f"{name}-{way}.png", full_page=way != "phone")
                if way == "light" and address in SHOWN:
                    await page.screenshot(path=DOCS / f"{SHOWN[address]}.png")


def main(folder: str) -> None:
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        world, browsing = World(Path(scratch)), Browsing()
        try:
            browsing.run(take(browsing, world, path))
        finally:
            browsing.end()
            world.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
