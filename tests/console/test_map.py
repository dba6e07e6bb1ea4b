"""The map shows all of it, or says that it goes on; and what joined stays marked without its instances."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from ports import Port
from solarwind import Retry, SolarWind

from .browsing import Browsing, World, go, on_page
from .test_live import serve, stop

pytestmark = pytest.mark.long

LEVELS = 6


def chain(wind: SolarWind) -> None:
    """State purposes, each of which fires on the topic of the next."""
    for level in range(LEVELS):

        async def handle(number: int, level: int = level) -> None:
            wind.fire(f"level.{level + 1}", number)

        wind.on(f"level.{level}", purpose=f"Hand on from level {level}")(handle)


async def beyond(page: Page) -> int:
    """Return how many pixels of the map cannot be seen without scrolling."""
    found: int = await page.locator(".map").evaluate("each => each.scrollWidth - each.clientWidth")
    return found


@pytest.mark.parametrize(
    "how", [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}]
)
@on_page
async def test_a_chain_of_many_levels_fits_or_says_that_it_goes_on(
    browsing: Browsing, tmp_path: Path, how: dict[str, Any]
) -> None:
    port = Port()
    wind = SolarWind(f"sqlite:///{tmp_path}/wind.db")
    chain(wind)
    served = await serve(wind, port.number)
    for number in range(3):
        await wind.fire("level.0", number)
        await wind.settled(300)
    async with browsing.page(f"http://127.0.0.1:{port.number}/console/", **how) as page:
        await go(page, "/map?still=too")
        ends = page.get_by_role("link", name=re.compile(rf"^(level\.0|Hand on from level {LEVELS - 1}) "))
        await expect(ends).to_have_count(2)
        note = page.locator(".zoom [role=status]")
        await expect(page.locator(".map svg path").first).to_be_attached()
        if await beyond(page) > 0:
            await expect(note).to_contain_text("It goes on to the right")
            await page.locator(".map").evaluate("each => { each.scrollLeft = each.scrollWidth; }")
            await expect(note).to_contain_text("It goes on to the left")
        await page.get_by_role("button", name="All of it").click()
        await expect(note).to_have_count(0)
        assert await beyond(page) <= 1
        await page.get_by_role("button", name="Larger").click()
        await page.get_by_role("button", name="Larger").click()
        await expect(note).to_contain_text("It goes on to the")
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        box = await page.locator(".map").bounding_box()
        assert box is not None
        left = await page.locator(".map").evaluate("each => each.scrollLeft")
        below = box["y"] + box["height"] - 25  # where no node is
        await page.mouse.move(box["x"] + box["width"] - 30, below)
        await page.mouse.down()
        await page.mouse.move(box["x"] + 30, below)
        await page.mouse.up()
        assert await page.locator(".map").evaluate("each => each.scrollLeft") > left
        await page.get_by_role("button", name="As it fits").click()
        await expect(page.locator(".zoom output")).to_have_text(re.compile(r"^([7-9]\d|100) %$"))
    await stop(wind, *served)
    port.close()


@on_page
async def test_a_version_that_has_no_instance_any_more_is_marked_where_it_joined(
    browsing: Browsing, tmp_path: Path
) -> None:
    port = Port()
    wind = SolarWind(f"sqlite:///{tmp_path}/wind.db")

    async def handle(number: int) -> None: ...

    wind.on("T", purpose="Leave")(handle)
    served = await serve(wind, port.number)
    await wind.joined()
    await wind.off(handle)
    await wind.fire("T", 1)
    async with browsing.page(f"http://127.0.0.1:{port.number}/console/") as page:
        for address in ("/", "/topics/T", "/purposes/T/Leave"):
            await go(page, address)
            await expect(page.locator(".plot text.mark")).to_have_text("Leave v1 joined")
    await stop(wind, *served)
    port.close()


@on_page
async def test_a_topic_of_very_many_purposes_leaves_room_for_the_others(browsing: Browsing, tmp_path: Path) -> None:
    port = Port()
    wind = SolarWind(f"sqlite:///{tmp_path}/wind.db")

    async def handle(number: int) -> None: ...

    async def fail(number: int) -> None:
        raise ValueError(number)

    for number in range(200):
        wind.on("hub", purpose=f"{'W' * 190} {number:03}")(handle)
    wind.on("hub", purpose="Fail", retry=Retry(attempts=1))(fail)
    served = await serve(wind, port.number)
    await wind.fire("hub", 1)
    await wind.fire("hub", 2)
    for number in range(5):
        await wind.fire(f"quiet.{number}", 1)
    await wind.settled(300)
    async with browsing.page(f"http://127.0.0.1:{port.number}/console/") as page:
        await go(page, "/map?still=too")
        await expect(page.get_by_role("link", name=re.compile(r"^quiet\.\d "))).to_have_count(5)
        await expect(page.get_by_role("link", name=re.compile("^W+ "))).to_have_count(22)
        await expect(page.get_by_role("link", name=re.compile("^Fail "))).to_have_count(1)
        more = page.get_by_role("link", name="178 more purposes")
        await more.focus()
        await page.keyboard.press("Enter")
        await page.get_by_role("link", name="Open").click()
        await expect(page.locator("h1")).to_have_text("hub")
    await stop(wind, *served)
    port.close()


LAID = """async ([ids, edges]) => {
    const { layered } = await import(new URL("parts/layers.js", document.baseURI));
    const [node, margin] = [{width: 190, height: 46}, 12];
    const began = performance.now();
    const laid = layered(ids, edges.map(([from, to]) => ({from, to})), node, {x: 55, y: 16}, margin);
    const took = performance.now() - began;
    return {took, at: [...laid.at], points: [...laid.points], width: laid.width, height: laid.height};
}"""


def a_graph(seed: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Return nodes and edges by chance: chains, trees, and edges that lead back."""
    chance = random.Random(seed)
    ids = [f"topic:{number}" for number in range(chance.choice((1, 2, 10, 100)))]
    edges = [(ids[chance.randrange(at)], ids[at]) for at in range(1, len(ids))]
    edges += [(chance.choice(ids), chance.choice(ids)) for _ in range(len(ids) // 4)]
    return ids, [edge for edge in edges if edge[0] != edge[1]]


@on_page
async def test_nodes_of_any_graph_have_room_and_lines_lead_from_one_to_the_other(
    browsing: Browsing, world: World
) -> None:
    async with browsing.page(world.console, world.admin) as page:
        for seed in range(40):
            ids, edges = a_graph(seed)
            laid = await page.evaluate(LAID, [ids, edges])
            at = {name: (place["x"], place["y"]) for name, place in laid["at"]}
            assert set(at) == set(ids)
            for name, (x, y) in at.items():
                assert 95 <= x <= laid["width"] - 95, seed
                assert 23 <= y <= laid["height"] - 23, seed
                beside = [other for other, (its, high) in at.items() if its == x and abs(high - y) < 46]
                assert beside == [name], seed
            points = dict(laid["points"])
            for start, end in edges:
                line = points[f"{start} {end}"]
                (x, y), (to, down) = at[start], at[end]
                ends = [(each["x"], each["y"]) for each in (line[0], line[-1])]
                assert ends in ([(x + 95, y), (to - 95, down)], [(x - 95, y), (to + 95, down)]), seed
