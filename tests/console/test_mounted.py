"""The console in another program's app, below a path of its own, and what goes while somebody looks at it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from playwright.async_api import expect

from server.doors import mounted
from solarwind import Event, Retry, SolarWind
from solarwind.operations import Internal
from solarwind.server import app
from solarwind.testing.contract import until

from .browsing import Browsing, World, go, on_page

pytestmark = pytest.mark.long

GONE = ("404 (Not Found)",)
PAGES = {
    "/": ("Overview", "dead letters"),
    "/map?still=too": ("Map", "Fail"),
    "/topics": ("Topics", "uploaded"),
    "/topics/uploaded": ("uploaded", "first"),
    "/topics/uploaded?view=history": ("uploaded", "1 event is shown"),
    "/purposes": ("Purposes", "Encode"),
    "/purposes/uploaded/Encode": ("Encode", "half within"),
    "/dead": ("Dead letters", "no frames"),
    "/events/uploaded/first": ("first", "cat.mov"),
    "/trace/first": ("Trace of first", "encoded"),
    "/instances": ("Instances", "Encode"),
    "/later": ("Schedules and delayed", "nightly"),
    "/rollouts": ("Rollouts", "one version|No purpose|Encode"),
    "/webhooks": ("Webhooks", "No webhook is registered"),
    "/system": ("System", "How long commits take"),
    "/search?q=encode": ("Search: encode", "Encode"),
}


@asynccontextmanager
async def an_app() -> AsyncIterator[tuple[SolarWind, int]]:
    """Give an app with some events, and the console at /ops/console, and its port."""
    wind = SolarWind("memory://")
    for topic in ("uploaded", "encoded"):
        wind.topic(topic, keep=3600)
    wind.every("30 2 * * *", "report.due", {}, name="nightly")

    @wind.on("uploaded", purpose="Encode")
    async def encode(event: Event) -> None:
        wind.fire("encoded", "cat.mp4")

    @wind.on("uploaded", purpose="Fail", retry=Retry(attempts=1))
    async def fail(event: Event) -> None:
        raise ValueError("no frames")

    outer = FastAPI(lifespan=wind.lifespan)
    inner = app(wind, console=True)
    outer.mount("/ops", inner)
    async with inner.lifespan(), mounted(outer) as port:
        await wind.fire("uploaded", {"name": "cat.mov"}, id="first")
        await wind.settled(300)
        yield wind, port


@on_page
async def test_every_page_works_below_a_path(browsing: Browsing) -> None:
    async with an_app() as (_, port), browsing.page(f"http://127.0.0.1:{port}/ops/console") as page:
        assert page.url.startswith(f"http://127.0.0.1:{port}/ops/console/")
        for address, (title, text) in PAGES.items():
            await go(page, address)
            await expect(page.locator("h1")).to_have_text(title)
            await expect(page.locator("main")).to_contain_text(re.compile(text))
            await expect(page.get_by_role("alert")).to_have_count(0)
        await go(page, "/topics/uploaded")
        await page.get_by_role("button", name="Fire").first.click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Payload").fill('{"name": "second.mov"}')
        await dialog.locator("summary").click()
        await expect(dialog.get_by_label("Command line")).to_contain_text(f"--url ws://127.0.0.1:{port}/ops")
        await dialog.locator("button[type=submit]").click()
        await expect(page.get_by_role("region", name="Newest events")).to_contain_text("second.mov")
        await page.reload()
        await expect(page.get_by_role("region", name="Newest events")).to_contain_text("second.mov")


@on_page
async def test_an_event_that_is_trimmed_while_it_is_looked_at_stays_readable(browsing: Browsing) -> None:
    async with an_app() as (wind, port), browsing.page(f"http://127.0.0.1:{port}/ops/console/", errors=GONE) as page:
        (event,) = await wind.events("encoded")
        await go(page, f"/events/encoded/{event.id}")
        await expect(page.locator("main")).to_contain_text("cat.mp4")
        await Internal.keep(wind, "encoded", keep=0)
        await until(lambda: is_empty(wind), "it to be trimmed")
        await page.get_by_role("button", name="Fire an edited copy").click()
        await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        await expect(page.locator("main")).to_contain_text("cat.mp4")
        await page.reload()
        await expect(page.locator("main").get_by_role("alert")).to_contain_text(event.id)
        await go(page, f"/trace/{event.id}")
        await expect(page.locator("main").get_by_role("alert")).to_contain_text("expected")


async def is_empty(wind: SolarWind) -> bool:
    return not await wind.events("encoded")


@on_page
async def test_a_schedule_that_somebody_else_removed_is_refused_in_its_dialog(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin, errors=GONE) as page, world.http() as http:
        buttons = {"gone-1": "Pause", "gone-2": "Run now", "gone-3": "Remove"}
        for name in buttons:
            await http.put(f"/v1/topics/mounted.due/schedules/{name}", json={"every": "1h", "payload": 1})
        await go(page, "/later")
        for name, button in buttons.items():
            await page.locator("tr", has_text=name).get_by_role("button", name=button).click()
            dialog = page.get_by_role("dialog")
            assert (await http.delete(f"/v1/schedules/{name}")).status_code < 300
            await dialog.locator("button[type=submit]").click()
            await expect(dialog.get_by_role("alert")).to_contain_text(name)
            await dialog.get_by_role("button", name="Cancel").click()
        await expect(page.locator("tr", has_text="gone-")).to_have_count(0)
