"""Each page, looked at in a browser: it shows what there is, says nothing to the browser's console, and axe-core finds
nothing."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from playwright.async_api import expect

from .browsing import AXE, Browsing, World, faults_of, go, on_page
from .world import LONG_PURPOSE, LONG_TOPIC

PAGES = {
    "/": ("Overview", "Nothing needs anybody|dead letters"),
    "/map": ("Map", "as wide as what flows"),
    "/map?focus=topic%3Avideo.encoded": ("Map", "Open"),
    "/topics": ("Topics", "video.uploaded"),
    "/topics/video.uploaded": ("video.uploaded", "Make thumbnail"),
    f"/topics/{LONG_TOPIC}": (LONG_TOPIC, "iiii"),
    f"/events/{LONG_TOPIC}/{'i' * 200}": ("i" * 200, "VVVV"),
    f"/purposes/{LONG_TOPIC}/{quote(LONG_PURPOSE)}": (LONG_PURPOSE, "EEEE"),
    f"/dead/{LONG_TOPIC}/{quote(LONG_PURPOSE)}": (f"Dead letters of {LONG_PURPOSE}", "EEEE"),
    "/topics/hostile?view=history&since=1h": ("hostile", "harm-0"),
    "/purposes": ("Purposes", "Encode video to MP4"),
    "/purposes/video.uploaded/Make%20thumbnail": ("Make thumbnail", "half within"),
    "/purposes/video.published/Live%20page": ("Live page", "fanout"),
    "/purposes/order.placed/Ask%20how%20it%20was": ("Ask how it was", "1 waiting for its delay"),
    "/purposes/nowhere/nothing": ("nothing", "There is no such purpose"),
    "/dead": ("Dead letters", "Make thumbnail"),
    "/dead/video.uploaded/Make%20thumbnail": ("Dead letters of Make thumbnail", "no frames in video"),
    "/events/video.uploaded/first": ("first", "Encode video to MP4"),
    "/events/order.placed/placed": ("placed", "to be handed out in 6 d"),
    "/events/shapes/binary": ("binary", "600 B"),
    "/events/shapes/many": ("many", "10,000 fields"),
    "/trace/first": ("Trace of first", "video.published"),
    "/trace/first?view=timeline": ("Trace of first", "in hand"),
    "/trace/first?view=json": ("Trace of first", '"specversion"'),
    "/instances": ("Instances", "world.py"),
    "/later": ("Schedules and delayed", "later-1"),
    "/rollouts": ("Rollouts", "Publish"),
    "/rollouts/video.encoded/Publish": ("Versions of Publish", "cannot publish a 7"),
    "/webhooks": ("Webhooks", "No webhook is registered|live|failing"),
    "/topics/shapes?view=types": ("shapes", "1 application/octet-stream"),
    "/webhooks/nowhere/nothing/none": ("none", "There is no such webhook"),
    "/system": ("System", "How long commits take"),
    "/search?q=thumb": ("Search: thumb", "Make thumbnail"),
    "/search?q=id%3Afirst": ("Search: id:first", "first.mov"),
    "/search?q=key%3Aann": ("Search: key:ann", "first.mov"),
    "/search?q=payload.name%3Afirst.mov": ("Search: payload.name:first.mov", "first.mov"),
    "/search?q=error%3Aframes": ("Search: error:frames", "no frames"),
    "/nowhere": ("There is no such page", "Overview"),
}


async def walk(
    browsing: Browsing, world: World, pages: dict[str, tuple[str, str]], every: int = 1, **how: object
) -> None:
    """Look at pages, and have axe-core look at every so many of them."""
    async with browsing.page(world.console, world.admin, **how) as page:
        for number, (address, (title, text)) in enumerate(pages.items()):
            await go(page, address)
            await expect(page.locator("h1")).to_have_text(title)
            await expect(page.locator("main")).to_contain_text(re.compile(text))
            if AXE.exists() and number % every == 0:
                assert await faults_of(page) == [], address
            wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{address} is wider than the window"
    if not AXE.exists():
        pytest.skip("the pages are right, but axe-core is not here to look at them")


@on_page
async def test_each_page_shows_what_there_is(browsing: Browsing, world: World) -> None:
    await walk(browsing, world, PAGES, every=4)


@pytest.mark.long
@on_page
async def test_axe_finds_nothing_on_any_page(browsing: Browsing, world: World) -> None:
    await walk(browsing, world, PAGES)


@pytest.mark.long
@on_page
async def test_each_page_is_readable_in_the_dark(browsing: Browsing, world: World) -> None:
    await walk(browsing, world, PAGES, color_scheme="dark")


@on_page
async def test_pages_fit_a_phone(browsing: Browsing, world: World) -> None:
    some = {address: PAGES[address] for address in ("/", "/purposes", "/events/video.uploaded/first", "/dead")}
    await walk(browsing, world, some, every=2, viewport={"width": 360, "height": 740})


@pytest.mark.long
@on_page
async def test_each_page_fits_a_phone(browsing: Browsing, world: World) -> None:
    await walk(browsing, world, PAGES, viewport={"width": 360, "height": 740})


@on_page
async def test_an_event_that_waits_for_a_delay_has_not_failed(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page:
        await go(page, "/events/order.placed/placed")
        steps = page.get_by_role("list", name="Steps for Ask how it was").locator("li strong")
        await expect(steps).to_have_text(["accepted", "waiting"])
        await go(page, "/purposes/order.placed/Ask%20how%20it%20was")
        standing = page.locator("dl.facts").first
        await expect(standing).to_contain_text("Its delay7 d")
        await expect(standing).to_contain_text(re.compile("Wait for the delay1, the first is handed out in 6 d"))


@on_page
async def test_a_long_topic_leaves_room_for_the_other_columns(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page:
        for address, last in (("/purposes", "Dead"), ("/instances", "State")):
            await go(page, address)
            heading = page.get_by_role("columnheader", name=last, exact=True)
            await expect(page.locator("main")).to_contain_text(LONG_TOPIC)
            box = await heading.bounding_box()
            assert box is not None
            assert box["x"] + box["width"] <= 1280, address


@on_page
async def test_on_a_phone_rows_have_no_empty_or_cut_cells_and_the_page_is_named(
    browsing: Browsing, world: World
) -> None:
    how = {"viewport": {"width": 360, "height": 740}}
    wrong = """() => [...document.querySelectorAll("td")].filter((each) => each.offsetParent && (
        each.innerText.trim() === "" || each.scrollWidth > each.clientWidth + 1)).map((each) => each.outerHTML)"""
    async with browsing.page(world.console, world.admin, **how) as page:
        for address, text in (("/instances", "world.py"), ("/system", "token create"), ("/topics/shapes", "binary")):
            await go(page, address)
            await expect(page.locator("main td").filter(has_text=text).first).to_be_visible()
            assert await page.evaluate(wrong) == [], address
            here = page.locator("header.top [aria-current]")
            await expect(here).to_be_in_viewport(ratio=0.9)
