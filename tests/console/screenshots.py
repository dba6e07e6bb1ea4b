"""A picture of each page, light, dark and on a phone, for people to look at: `python -m console.screenshots FOLDER`.

Those that the documents show, of services that nobody means harm, are written beside them.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

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
MUCH_TRAFFIC_MS = 120_000


async def look(page: Page, address: str) -> None:
    """Go to a page, and wait until it shows what it has."""
    title, text = PAGES[address]
    await go(page, address)
    await expect(page.locator("h1")).to_have_text(title)
    await expect(page.locator("main")).to_contain_text(re.compile(text))
    await page.wait_for_timeout(500)


async def take_all(browsing: Browsing, world: World, folder: Path) -> None:
    for way, how in WAYS.items():
        async with browsing.page(world.console, world.admin, errors=("404",), **how) as page:
            await page.wait_for_timeout(SOME_TRAFFIC_MS)
            for address in PAGES:
                await look(page, address)
                name = re.sub(r"\W+", "-", address).strip("-")[:60] or "overview"
                await page.screenshot(path=folder / f"{name}-{way}.png", full_page=way != "phone")


async def take_shown(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin, color_scheme="light") as page:
        await page.wait_for_timeout(MUCH_TRAFFIC_MS)
        for address, name in SHOWN.items():
            await look(page, address)
            await page.screenshot(path=DOCS / f"{name}.png")


@contextmanager
def a_world(*how: str) -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), *how)
        try:
            yield world
        finally:
            world.end()


def main(folder: str) -> None:
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    browsing = Browsing()
    try:
        with a_world() as world:
            browsing.run(take_all(browsing, world, path))
        with a_world("friendly") as world:
            browsing.run(take_shown(browsing, world))
    finally:
        browsing.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
