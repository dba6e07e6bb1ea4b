"""A picture of each page and of some dialogs, light, dark and on a phone, for people to look at:
`python -m console.screenshots FOLDER`.

Those that the documents show, of services that nobody means harm, are written beside them.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from server.webhooks.place import Answer, Request, receiving

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
HOOK = "order.shipped/Tell%20the%20shop/shop"
PICTURED = PAGES | {"/webhooks": ("Webhooks", "order.shipped"), f"/webhooks/{HOOK}": ("shop", "got 500")}
# What is opened on a page: by keys, or by a button.
OPENED: dict[str, tuple[str, str]] = {
    "keys": ("/", "?"),
    "search": ("/", "/v"),
    "dialog-replay": ("/purposes/video.uploaded/Make%20thumbnail", "Replay"),
    "dialog-retire": ("/purposes/video.uploaded/Make%20thumbnail", "Retire"),
    "dialog-fire": ("/topics/video.uploaded", "Fire an event"),
    "dialog-keep": ("/topics/video.uploaded", "Keep"),
    "dialog-redrive": ("/dead/video.uploaded/Make%20thumbnail", "Redrive these"),
    "dialog-discard": ("/dead/video.uploaded/Make%20thumbnail", "Discard these"),
    "dialog-promote": ("/rollouts/video.encoded/Publish", "Promote"),
    "dialog-share": ("/rollouts/video.encoded/Publish", "Share"),
    "dialog-webhook": ("/webhooks", "Register a webhook"),
}
HEIGHT = 4_000  # of a picture at most
SOME_TRAFFIC_MS = 12_000
MUCH_TRAFFIC_MS = 120_000


async def look(page: Page, address: str) -> None:
    """Go to a page, and wait until it shows what it has."""
    title, text = PICTURED[address]
    await go(page, address)
    await expect(page.locator("h1")).to_have_text(title)
    await expect(page.locator("main")).to_contain_text(re.compile(text))
    await page.wait_for_timeout(500)


async def open_by(page: Page, how: str) -> None:
    if len(how) <= 2:
        for key in how:
            await page.keyboard.press(key)
    else:
        await page.get_by_role("button", name=how, exact=True).first.click()
    await page.wait_for_timeout(500)


async def take(page: Page, path: Path) -> None:
    width, height = await page.evaluate("[innerWidth, document.documentElement.scrollHeight]")
    await page.screenshot(
        path=path, full_page=True, clip={"x": 0, "y": 0, "width": width, "height": min(height, HEIGHT)}
    )


@asynccontextmanager
async def a_webhook(world: World) -> AsyncIterator[None]:
    """Have a webhook whose target refuses some of what it gets."""

    def behave(request: Request) -> Answer:
        full = request.headers["ce-id"].endswith("3")
        return Answer(500 if full else 200, body=b"the shop is full" if full else b"thanks")

    topic, purpose, name = HOOK.split("/")
    async with receiving() as receiver, world.http() as http:
        receiver.behave = behave
        made = {"url": receiver.url, "retry": {"attempts": 5, "wait": 36_000, "ceiling": 36_000}}
        await http.put(f"/v1/topics/{topic}/purposes/{purpose}/webhooks/{name}", json=made)
        for number in range(1, 6):
            await http.post(f"/v1/topics/{topic}/events", json={"order": number}, params={"id": f"shipped-{number}"})
        yield


async def take_all(browsing: Browsing, world: World, folder: Path) -> None:
    async with a_webhook(world):
        for way, how in WAYS.items():
            async with browsing.page(world.console, world.admin, errors=("404",), **how) as page:
                await page.wait_for_timeout(SOME_TRAFFIC_MS)
                for address in PICTURED:
                    await look(page, address)
                    name = re.sub(r"\W+", "-", address).strip("-")[:60] or "overview"
                    await take(page, folder / f"{name}-{way}.png")
                for name, (address, opener) in OPENED.items():
                    await look(page, address)
                    await open_by(page, opener)
                    await page.screenshot(path=folder / f"{name}-{way}.png")
                    await page.keyboard.press("Escape")


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
