"""Webhooks on the console: registered with a secret that is shown once, paused, sent again, and their answers."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from playwright.async_api import expect

from server.webhooks.place import Answer, Request, receiving

from .browsing import Browsing, World, go, on_page
from .test_verbs import confirm, opened
from .world import HARMFUL

pytestmark = pytest.mark.long

TELL = "Tell the shop"
GONE = ("404 (Not Found)",)  # what the page asks of a webhook until it hears that it was removed


@on_page
async def test_a_webhook_is_registered_and_its_secret_is_shown_once(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http, receiving() as receiver:
        await go(page, "/webhooks")
        fields = {"Topic": "hooks.made", "Purpose": TELL, "Name_of_the_webhook": "shop", "URL": receiver.url}
        dialog = await opened(page, "Register a webhook")
        for label, value in fields.items():
            await dialog.get_by_label(label.replace("_", " "), exact=True).fill(value)
        await expect(dialog.locator(".touches")).to_have_text("It is a new webhook.")
        await dialog.get_by_text("The command for this").click()
        await expect(dialog.get_by_label("curl")).to_contain_text("-X PUT")
        await dialog.locator("button[type=submit]").click()
        secret = page.get_by_role("dialog", name="The secret of shop")
        await expect(secret).to_contain_text(re.compile("whsec_[A-Za-z0-9+/=]{40}"))
        await expect(secret).to_contain_text("shown this once")
        await page.keyboard.press("Escape")
        await expect(page.locator("dialog")).to_have_count(0)
        assert "whsec_" not in await page.content()
        await page.get_by_role("link", name="shop", exact=True).click()
        await expect(page.locator("h1")).to_have_text("shop")
        await expect(page.locator("main")).to_contain_text("It has answered nothing")
        await http.post("/v1/topics/hooks.made/events", json=1, params={"id": "hooks-1"})
        await expect(page.get_by_role("region", name="Last answers")).to_contain_text("hooks-1")
        await expect(page.get_by_role("region", name="Last answers")).to_contain_text("200")


@on_page
async def test_what_the_server_refuses_at_registering_is_said_in_the_dialog(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin, errors=("403 (Forbidden)", "400 (Bad Request)")) as page:
        await go(page, "/webhooks")
        dialog = await opened(page, "Register a webhook")
        fields = {"Topic": "hooks.bad", "Purpose": TELL, "Name of the webhook": "shop", "URL": "http://10.1.2.3/hook"}
        for label, value in fields.items():
            await dialog.get_by_label(label, exact=True).fill(value)
        await dialog.locator("button[type=submit]").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("expected a target at a public address")
        await dialog.get_by_label("Name of the webhook").fill("a name")
        await dialog.locator("button[type=submit]").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("expected a webhook's name")


@on_page
async def test_a_webhook_is_paused_and_resumed_and_says_so_everywhere(browsing: Browsing, world: World) -> None:
    way = "/v1/topics/hooks.paused/purposes/Tell%20the%20shop"
    async with browsing.page(world.console, world.admin, GONE) as page, world.http() as http, receiving() as receiver:
        made = await http.put(f"{way}/webhooks/shop", json={"url": receiver.url})
        assert made.status_code == 201, made.text
        await go(page, "/webhooks/hooks.paused/Tell%20the%20shop/shop")
        await confirm(page, "Pause", "sends nothing until it is resumed", "0 events pend now")
        await expect(page.locator("dl.facts").first).to_contain_text("paused")
        await http.post("/v1/topics/hooks.paused/events", json=1)
        await go(page, "/purposes/hooks.paused/Tell%20the%20shop")
        facts = page.locator("dl.facts").first
        await expect(facts.locator("div", has_text="Webhooks")).to_contain_text("paused")
        await expect(facts.locator("div", has_text="Pending")).to_contain_text("1")
        await go(page, "/")
        point = page.locator(".attention > li", has_text="webhook paused").filter(has_text="hooks.paused")
        await expect(point).to_contain_text("Its webhook 'shop' is paused")
        await point.get_by_role("link").first.click()
        await expect(page.locator("h1")).to_have_text("Webhooks")
        row = page.locator("tr", has_text="hooks.paused")
        await expect(row.get_by_role("button", name="Resend")).to_be_disabled()
        await row.get_by_role("button", name="Resume").click()
        await page.get_by_role("dialog").locator("button[type=submit]").click()
        await expect(row).to_contain_text("live")
        await go(page, "/webhooks/hooks.paused/Tell%20the%20shop/shop")
        await expect(page.get_by_role("region", name="Last answers")).to_contain_text("200")
        await http.delete(f"{way}/webhooks/shop")
        await expect(page.locator("main")).to_contain_text("There is no such webhook")


@on_page
async def test_what_a_target_missed_is_counted_and_sent_again_and_its_answers_are_shown_as_text(
    browsing: Browsing, world: World
) -> None:
    way = "/v1/topics/hooks.missed/purposes/Tell%20the%20shop"
    fails = {"missed-1": 500, "missed-2": 413}

    def behave(request: Request) -> Answer:
        return Answer(fails.get(request.headers["ce-id"], 200), body="\n".join(HARMFUL).encode())

    async with browsing.page(world.console, world.admin, GONE) as page, world.http() as http, receiving() as receiver:
        receiver.behave = behave
        hook = {"url": receiver.url, "retry": {"attempts": 5, "wait": 36_000, "ceiling": 36_000}}
        await http.put(f"{way}/webhooks/shop", json=hook)
        for number in range(1, 3):
            await http.post("/v1/topics/hooks.missed/events", json=number, params={"id": f"missed-{number}"})
        await go(page, "/webhooks/hooks.missed/Tell%20the%20shop/shop")
        answers = page.get_by_role("region", name="Last answers")
        for text in ("missed-1", "missed-2", "got 500", "413", HARMFUL[0], HARMFUL[1], r"\u202egnp.exe"):
            await expect(answers).to_contain_text(text)
        assert await page.evaluate("document.querySelectorAll('main img, main script, main svg[onload]').length") == 0
        fails.clear()
        await expect(page.locator("main")).to_contain_text("What it gave up")
        await confirm(page, "Resend", "2 events will be sent again.", "dead letters are sent again")
        await expect(answers.locator("tbody tr")).to_have_count(4)
        dialog = await opened(page, "Resend")
        await expect(dialog.locator(".touches")).to_have_text("0 events will be sent again.")
        await expect(dialog.locator("button[type=submit]")).to_be_disabled()
        assert (await http.get(way)).json()["settled"] == 2
        await page.keyboard.press("Escape")
        await http.delete(f"{way}/webhooks/shop")


@on_page
async def test_without_the_right_nothing_is_registered_and_answers_have_no_texts(
    browsing: Browsing, world: World
) -> None:
    way = "/v1/topics/hooks.hidden/purposes/Tell%20the%20shop"
    async with browsing.page(world.console, world.watcher, GONE) as page, world.http() as http, receiving() as receiver:
        receiver.behave = lambda request: Answer(500, body=b"swordfish")
        await http.put(f"{way}/webhooks/shop", json={"url": receiver.url, "retry": {"attempts": 1}})
        await http.post("/v1/topics/hooks.hidden/events", json=1)
        await go(page, "/webhooks")
        await expect(page.get_by_role("button", name="Register a webhook")).to_be_disabled()
        row = page.locator("tr", has_text="hooks.hidden")
        for name in ("Pause", "Resend", "Remove"):
            await expect(row.get_by_role("button", name=name)).to_be_disabled()
        await row.get_by_role("link", name="shop", exact=True).click()
        answers = page.get_by_role("region", name="Last answers")
        await expect(answers).to_contain_text("500")
        await expect(answers).to_contain_text("(needs the right watch:payloads)")
        assert "swordfish" not in await page.locator("main").inner_text()
        await http.delete(f"{way}/webhooks/shop")


@on_page
async def test_a_webhook_of_a_fanout_has_nothing_to_send_again(browsing: Browsing, world: World) -> None:
    way = "/v1/topics/hooks.copies/purposes/Tell%20the%20shop"
    async with browsing.page(world.console, world.admin, GONE) as page, world.http() as http, receiving() as receiver:
        receiver.behave = lambda request: Answer(500)
        await http.put(f"{way}/webhooks/shop", json={"url": receiver.url, "exchange": "fanout"})
        await http.post("/v1/topics/hooks.copies/events", json=1)
        await go(page, "/webhooks/hooks.copies/Tell%20the%20shop/shop")
        await expect(page.get_by_role("region", name="Last answers")).to_contain_text("got 500")
        resend = page.get_by_role("button", name="Resend")
        await expect(resend).to_be_disabled()
        assert await resend.get_attribute("title") == "A fan-out keeps nothing that could be sent again."
        await expect(page.locator("main")).not_to_contain_text("What it gave up")
        await http.delete(f"{way}/webhooks/shop")


@on_page
async def test_without_a_webhook_the_page_shows_the_request_that_registers_one(
    browsing: Browsing, world: World
) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        for each in (await http.get("/v1/webhooks")).json()["webhooks"]:
            names = (each["topic"], each["purpose"], each["name"])
            way = "/v1/topics/{}/purposes/{}/webhooks/{}".format(*(quote(name, safe="") for name in names))
            assert (await http.delete(way)).status_code in (200, 204, 404), way
        await go(page, "/webhooks")
        command = page.locator(".empty code")
        await expect(command).to_contain_text("curl -X PUT")
        await expect(command).to_contain_text(
            "/v1/topics/video.uploaded/purposes/Tell%20the%20shop/webhooks/shop --json "
            """'{"url":"https://shop.example/hook"}'"""
        )
