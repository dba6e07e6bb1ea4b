"""What is shown changes as it happens, stands still when it is told to, and comes back after a server was away."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Route, expect

from ports import Port
from solarwind import Event, Retry, SolarWind
from solarwind.server import Server
from solarwind.server.listener import Listener
from solarwind.testing.contract import until

from .browsing import Browsing, World, go, on_page

pytestmark = pytest.mark.long

AWAY = ("Failed to load resource", "net::ERR_")  # what Chromium says of a server that is not there


@on_page
async def test_counts_go_on_by_themselves_until_they_are_paused(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        await http.post("/v1/topics/live.one/events", json=1)
        await go(page, "/topics/live.one")
        fired = page.locator("dl.facts div", has_text="Fired").locator("dd")
        await expect(fired).to_contain_text("1 ")
        await http.post("/v1/topics/live.one/events", json={"said": "second"})
        await expect(fired).to_contain_text("2 ")
        await expect(page.get_by_role("region", name="Newest events")).to_contain_text("second")
        await page.keyboard.press("p")
        await expect(page.locator(".live")).to_contain_text("Paused by the key p")
        await http.post("/v1/topics/live.one/events", json=3)
        await page.keyboard.press("p")
        await expect(fired).to_contain_text("3 ")
        await expect(page.locator(".live")).to_have_count(0)


@on_page
async def test_a_page_that_is_not_seen_is_paused(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page:
        await expect(page.locator("h1")).to_have_text("Overview")
        hide = """hidden => {
            Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
        await page.evaluate(hide, True)
        await expect(page.locator(".live")).to_contain_text("Paused while it is not seen")
        await page.evaluate(hide, False)
        await expect(page.locator(".live")).to_have_count(0)


async def serve(wind: SolarWind, port: int) -> tuple[Server, Listener]:
    server = Server(wind, console=True)
    listener = Listener(server, port=port, grace=1.0)
    await wind.start()
    await server.start()
    await listener.start()
    return server, listener


async def stop(wind: SolarWind, server: Server, listener: Listener) -> None:
    listener.close()
    await server.stop()
    await listener.stop()
    await wind.stop()


@on_page
async def test_a_server_that_restarts_is_waited_for(browsing: Browsing, tmp_path: Path) -> None:
    port, url = Port(), f"sqlite:///{tmp_path}/wind.db"
    wind: Any = SolarWind(url)
    served = await serve(wind, port.number)
    await wind.fire("T", 1)
    async with browsing.page(f"http://127.0.0.1:{port.number}/console/", errors=AWAY) as page:
        await go(page, "/topics/T")
        fired = page.locator("dl.facts div", has_text="Fired").locator("dd")
        await expect(fired).to_contain_text("1 ")
        await stop(wind, *served)
        await expect(page.locator(".live.away")).to_contain_text("Not live")
        await expect(fired).to_contain_text("1 ")
        wind = SolarWind(url)
        served = await serve(wind, port.number)
        await wind.fire("T", 2)
        await expect(fired).to_contain_text("2 ")
        await expect(page.locator(".live")).to_have_count(0)
    await stop(wind, *served)
    port.close()


@pytest.mark.parametrize(
    ("address", "text"),
    [("/dead", "no room"), ("/topics/T?view=history", "1 event is shown"), ("/later", "No schedule")],
)
@on_page
async def test_what_could_not_be_asked_is_asked_once_the_server_is_back(
    browsing: Browsing, tmp_path: Path, address: str, text: str
) -> None:
    port, url = Port(), f"sqlite:///{tmp_path}/wind.db"
    wind: Any = SolarWind(url)

    @wind.on("T", purpose="Wait", retry=Retry(attempts=1))  # type: ignore[untyped-decorator]
    async def fail(event: Event) -> None:
        raise RuntimeError("no room")

    served = await serve(wind, port.number)
    await wind.fire("T", 1)
    await wind.settled(300)
    async with browsing.page(f"http://127.0.0.1:{port.number}/console/", errors=AWAY) as page:
        await expect(page.locator("main")).to_contain_text("dead letters")
        await stop(wind, *served)
        await expect(page.locator(".live.away")).to_contain_text("Not live")
        await go(page, address)
        await expect(page.locator("main").get_by_role("alert").first).to_contain_text("it is asked again")
        wind = SolarWind(url)
        served = await serve(wind, port.number)
        await expect(page.locator("main")).to_contain_text(text)
        await expect(page.get_by_role("alert")).to_have_count(0)
    await stop(wind, *served)
    port.close()


@on_page
async def test_what_a_proxy_answers_for_a_server_that_is_away_is_one_sentence_and_the_page_comes_by_itself(
    browsing: Browsing, world: World
) -> None:
    asked = 0

    async def refuse(request: Route) -> None:
        nonlocal asked
        asked += 1
        await request.fulfill(status=502, content_type="text/html", body="<html>Bad gateway</html>")

    async with browsing.page(world.console, world.admin, errors=("502 (Bad Gateway)",)) as page:
        await expect(page.locator("h1")).to_have_text("Overview")
        for way in ("**/v1/token", "**/v1/watch"):
            await page.route(way, refuse)
        await page.reload()
        before = asked
        await expect(page.locator("body")).to_have_text(
            re.compile(r"^\s*The server cannot be asked: the server answered 502\. It is tried again\.\s*$")
        )
        await until(lambda: asked > before + 2, "a second try")
        await expect(page.get_by_role("status")).to_contain_text("the server answered 502")
        await page.unroute("**/v1/token")
        await expect(page.locator(".live.away")).to_contain_text("Not live: the server answered 502.")
        await page.unroute("**/v1/watch")
        await expect(page.locator("h1")).to_have_text("Overview")
        await expect(page.locator(".live")).to_have_count(0)


@on_page
async def test_the_keyboard_goes_everywhere(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page:
        await expect(page.locator("h1")).to_have_text("Overview")
        await page.keyboard.press("g")
        await page.keyboard.press("t")
        await expect(page.locator("h1")).to_have_text("Topics")
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog")).to_contain_text("Search")
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await page.keyboard.press("/")
        await page.keyboard.type("purpose:thumb")
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_have_text("Search: purpose:thumb")
        await expect(page.get_by_role("link", name="Make thumbnail").first).to_be_visible()
        assert "#/search?q=purpose" in page.url
