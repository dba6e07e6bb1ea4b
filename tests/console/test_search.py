"""What a search may go on with is offered while it is typed, and is chosen with the keyboard or a click."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Page, Route, expect

from .browsing import AXE, Browsing, World, faults_of, go, on_page

pytestmark = pytest.mark.long


async def typed(page: Page, text: str) -> None:
    """Type into the search, as a person does."""
    await page.keyboard.press("Escape")
    await page.locator("#search").fill("")
    await page.locator("#search").press_sequentially(text)


def offered(page: Page, text: str) -> object:
    return page.get_by_role("option").filter(has_text=text)


@on_page
async def test_a_page_is_found_by_a_part_of_its_name_and_opened_with_the_keyboard(
    browsing: Browsing, world: World
) -> None:
    async with browsing.page(world.console, world.admin) as page:
        await expect(page.locator("h1")).to_have_text("Overview")
        await page.keyboard.press("/")
        field = page.get_by_role("combobox", name="Search")
        await expect(field).to_be_focused()
        await expect(field).to_have_attribute("aria-expanded", "true")
        await expect(page.get_by_role("option")).to_contain_text(
            ["topic:", "purpose:", "id:", "key:", "error:", "payload."]
        )
        await field.press_sequentially("thumb")
        await expect(page.get_by_role("option")).to_have_text(["Make thumbnailpurpose on video.uploaded"])
        await page.keyboard.press("ArrowDown")
        await expect(page.get_by_role("option")).to_have_attribute("aria-selected", "true")
        assert await field.get_attribute("aria-activedescendant") == "suggested-0"
        if AXE.exists():
            assert await faults_of(page) == []
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_have_text("Make thumbnail")
        await expect(page.get_by_role("listbox")).to_have_count(0)


@on_page
async def test_qualifiers_are_completed_with_what_there_is(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page:
        await go(page, "/instances")
        await expect(page.locator("main")).to_contain_text("cannot publish a 7")
        field = page.locator("#search")
        for text, option, then in (
            ("topic:video.up", "topic:video.uploaded", "topic:video.uploaded "),
            ("purpose:make", 'purpose:"Make thumbnail"', 'purpose:"Make thumbnail" '),
            ('error:"no fra', "no frames in video", 'error:"ValueError: no frames in video" '),
            ("error:cannot", "cannot publish a", 'error:"ValueError: cannot publish a" '),
            ("topic:video.uploaded key:user", 'key:"user 1"', 'topic:video.uploaded key:"user 1" '),
            ("topic:video.uploaded payload.na", "payload.name", "topic:video.uploaded payload.name:"),
            ("ke", "key:", "key:"),
        ):
            await typed(page, text)
            chosen = page.get_by_role("option").filter(has_text=option).first
            await chosen.click()
            await expect(field).to_have_value(then)
            await expect(field).to_be_focused()


@on_page
async def test_what_is_typed_is_searched_for_unless_something_is_chosen(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page:
        await expect(page.locator("h1")).to_have_text("Overview")
        await typed(page, "video")
        await expect(page.get_by_role("option").first).to_be_visible()
        for key in ("ArrowDown", "ArrowUp"):  # into the list, and back to the field
            await page.keyboard.press(key)
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_have_text("Search: video")
        await typed(page, "order")
        await expect(page.get_by_role("option").first).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("option")).to_have_count(0)
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_have_text(re.compile("Search: order|Overview|Search: video"))


@on_page
async def test_a_choice_is_gone_once_something_else_is_typed(browsing: Browsing, world: World) -> None:
    """What is offered for it may take its time."""
    async with browsing.page(world.console, world.admin) as page:
        await expect(page.locator("h1")).to_have_text("Overview")
        asked = asyncio.Event()

        async def hold(request: Route) -> None:
            await asked.wait()
            await request.continue_()

        await page.route("**/events?*", hold)
        await typed(page, "topic:shapes ke")
        await expect(page.get_by_role("option")).to_contain_text(["key:"])
        await page.keyboard.press("ArrowDown")
        await page.keyboard.type("y:ann")
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_have_text("Search: topic:shapes key:ann")
        asked.set()


@on_page
async def test_keys_of_an_input_method_choose_nothing(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page:
        await expect(page.locator("h1")).to_have_text("Overview")
        await typed(page, "video")
        await expect(page.get_by_role("option").first).to_be_visible()
        how = {"key": "ArrowDown", "bubbles": True, "cancelable": True, "isComposing": True}
        taken = "(field, how) => !field.dispatchEvent(new KeyboardEvent('keydown', how))"
        assert not await page.locator("#search").evaluate(taken, how)
        assert await page.locator("#search").evaluate(taken, how | {"isComposing": False})


@on_page
async def test_names_that_would_be_markup_are_offered_as_text_and_not_more_than_fit(
    browsing: Browsing, world: World
) -> None:
    how = {"viewport": {"width": 360, "height": 740}}
    async with browsing.page(world.console, world.admin, **how) as page:
        await go(page, "/topics")
        await expect(page.locator("h1")).to_have_text("Topics")
        await typed(page, "onerror")
        await expect(page.get_by_role("option")).to_contain_text(["<img src=x onerror=alert(1)>"])
        await typed(page, "aaaa")
        await expect(page.get_by_role("option").first).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        box = await page.locator("#suggested").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        await typed(page, "a")
        await expect(page.get_by_role("option").first).to_be_visible()
        assert await page.get_by_role("option").count() <= 8
