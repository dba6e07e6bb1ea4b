"""Each verb, done in a browser: what it says before, what it does, and that the commands that it shows do the same."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.async_api import Locator, Page, Route, expect

from .browsing import Browsing, World, go, on_page


async def confirm(page: Page, name: str, *said: str, **fields: str) -> None:
    """Open a verb's dialog, check what it says, fill its fields, and confirm it."""
    dialog = await opened(page, name)
    for label, value in fields.items():
        await dialog.get_by_label(label.replace("_", " ")).fill(value)
    for each in said:
        await expect(dialog).to_contain_text(each)
    await dialog.locator("button[type=submit]").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def opened(page: Page, name: str) -> Locator:
    await page.locator("main").get_by_role("button", name=name, exact=True).first.click()
    return page.get_by_role("dialog")


async def pends(http: httpx.AsyncClient, topic: str, number: int, purpose: str = "Wait") -> str:
    """Have a purpose with so many pending events and nobody up. Return the way to it."""
    way = f"/v1/topics/{topic}/purposes/{quote(purpose)}"
    for each in range(number):
        await http.post(f"/v1/topics/{topic}/events", json=each, params={"id": f"{topic}-{each}"})
    await take(http, way, version=1, max=1)
    return way


async def take(http: httpx.AsyncClient, way: str, **wanted: Any) -> list[dict[str, Any]]:
    answer = await http.post(f"{way}/take", json={"since": "beginning", "lease": 1, **wanted})
    assert answer.status_code == 200, answer.text
    taken: list[dict[str, Any]] = answer.json()["events"]
    return taken


async def dead(http: httpx.AsyncClient, topic: str, number: int) -> str:
    """Have so many dead letters: every second one has another error."""
    way = f"/v1/topics/{topic}/purposes/Wait"
    for each in range(number):
        await http.post(f"/v1/topics/{topic}/events", json=each, params={"id": f"{topic}-{each}"})
    taken = await take(http, way, max=number)
    assert len(taken) == number
    errors = [f"no room for {at}" if at % 2 else "too late" for at in range(number)]
    rejected = [{"token": each["token"], "reason": error} for each, error in zip(taken, errors, strict=True)]
    await http.post(f"{way}/settle", json={"reject": rejected})
    return way


async def count(http: httpx.AsyncClient, way: str, name: str) -> Any:
    return (await http.get(way)).json()[name]


@on_page
async def test_a_purpose_is_paused_resumed_replayed_and_retired(browsing: Browsing, world: World) -> None:
    gone = ("404 (Not Found)",)  # what the page asks of a purpose until it hears that it is retired
    async with browsing.page(world.console, world.admin, gone) as page, world.http() as http:
        way = await dead(http, "verbs.purpose", 3)
        await go(page, "/purposes/verbs.purpose/Wait")
        await confirm(page, "Pause", "0 events pend now; 0 in hand are finished.")
        await expect(page.locator("dl.facts").first).to_contain_text("paused")
        assert await count(http, way, "state") == "paused"
        await confirm(page, "Resume", "is handed out again")
        await expect(page.get_by_role("button", name="Pause")).to_be_visible()
        await confirm(page, "Replay", "3 events will pend again.", From="beginning")
        assert await count(http, way, "pending") == 3
        await confirm(page, "Retire", "gives up 3 pending events")
        await expect(page.locator("main")).to_contain_text("There is no such purpose")
        assert (await http.get(way)).status_code == 404


@pytest.mark.long
@on_page
async def test_a_replay_of_nothing_is_refused_and_says_why(browsing: Browsing, world: World) -> None:
    async with (
        browsing.page(world.console, world.admin, errors=("400 (Bad Request)",)) as page,
        world.http() as http,
    ):
        await dead(http, "verbs.replay", 1)
        await go(page, "/purposes/verbs.replay/Wait")
        dialog = await opened(page, "Replay")
        await dialog.get_by_label("From").fill("now")
        await expect(dialog.locator(".touches")).to_have_text("0 events will pend again.")
        await expect(dialog.locator("button[type=submit]")).to_be_disabled()
        await dialog.get_by_label("From").fill("yesterday")
        await expect(dialog.locator(".touches")).to_contain_text("expected")
        await expect(dialog.locator("button[type=submit]")).to_be_disabled()


@pytest.mark.long
@on_page
async def test_nothing_is_confirmed_before_its_number_is_said(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        await dead(http, "verbs.counted", 2)
        await go(page, "/purposes/verbs.counted/Wait")
        dialog = await opened(page, "Replay")
        touches, button = dialog.locator(".touches"), dialog.locator("button[type=submit]")
        await expect(touches).to_have_text("2 events will pend again.")
        asked = asyncio.Event()

        async def hold(request: Route) -> None:
            await asked.wait()
            await request.continue_()

        await page.route("**/replay*", hold)
        await dialog.get_by_label("From").fill("2h")
        await expect(touches).to_have_text("Counting …")
        await expect(button).to_be_disabled()
        asked.set()
        await expect(touches).to_have_text("2 events will pend again.")
        await expect(button).to_be_enabled()


@pytest.mark.long
@on_page
async def test_a_purpose_that_retires_while_a_verb_is_confirmed_is_said(browsing: Browsing, world: World) -> None:
    async with (
        browsing.page(world.console, world.admin, errors=("404 (Not Found)",)) as page,
        world.http() as http,
    ):
        way = await dead(http, "verbs.gone", 1)
        await go(page, "/dead/verbs.gone/Wait")
        dialog = await opened(page, "Redrive all 1")
        await expect(dialog).to_contain_text("All 1 dead letter")
        await page.keyboard.press("Escape")
        await go(page, "/purposes/verbs.gone/Wait")
        dialog = await opened(page, "Replay")
        await expect(dialog.locator(".touches")).to_have_text("1 event will pend again.")
        await http.delete(way, params={"force": "true"})
        await expect(page.locator("main")).to_contain_text("There is no such purpose")
        await dialog.locator("button[type=submit]").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("expected a purpose of topic 'verbs.gone'")


@pytest.mark.long
@on_page
async def test_dead_letters_are_redriven_and_discarded_in_groups(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        way = await dead(http, "verbs.dead", 7)
        await go(page, "/dead/verbs.dead/Wait")
        groups = page.locator(".groups > li")
        await expect(groups).to_have_count(2)
        late, room = groups.filter(has_text="too late"), groups.filter(has_text="no room")
        await expect(late).to_contain_text("4")
        await room.get_by_role("button", name="Redrive these").click()
        await expect(page.get_by_role("dialog")).to_contain_text("3 dead letters.")
        await page.get_by_role("dialog").locator("button[type=submit]").click()
        await expect(groups).to_have_count(1)
        assert (await count(http, way, "dead"), await count(http, way, "pending")) == (4, 3)
        await late.get_by_role("link", name="too late").click()
        discard = page.get_by_role("button", name=re.compile("Discard .* selected"))
        await expect(discard).to_be_disabled()
        await page.get_by_label("Select verbs.dead-0").check()
        await discard.click()
        await expect(page.get_by_role("dialog")).to_contain_text("1 dead letter.")
        await page.get_by_role("dialog").locator("button[type=submit]").click()
        await expect(page.get_by_role("button", name="Discard all 3")).to_be_visible()
        await confirm(page, "Redrive all 3", "All 3 dead letters", At_most_so_many_a_second="2")
        await expect(page.locator("main")).to_contain_text("No dead letters here")
        assert (await count(http, way, "dead"), await count(http, way, "pending")) == (0, 6)


@on_page
async def test_an_event_is_fired_and_a_topics_history_is_kept(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        await pends(http, "verbs.topic", 1)
        await go(page, "/topics/verbs.topic")
        dialog = await opened(page, "Fire an event")
        await dialog.get_by_label("Payload").fill("{broken")
        await expect(dialog.locator("button[type=submit]")).to_be_disabled()
        await dialog.get_by_label("Payload").fill('{"exact": 12345678901234567890}')
        await dialog.get_by_label("Key").fill("k")
        await expect(dialog.locator("button[type=submit]")).to_be_enabled()
        await dialog.locator("button[type=submit]").click()
        await expect(page.get_by_role("region", name="Newest events")).to_contain_text("12345678901234567890")
        await confirm(page, "Keep", "How much of its history", Seconds="7200")
        assert (await http.get("/v1/topics/verbs.topic")).json()["keep"] == 7200
        history = (await http.get("/v1/topics/verbs.topic/events", params={"key": "k"})).text
        assert "12345678901234567890" in history


@pytest.mark.long
@on_page
async def test_a_delayed_event_is_taken_back_and_a_schedule_steered(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        await http.post("/v1/topics/verbs.later/events", json=1, params={"id": "back", "after": "1h"})
        await http.put("/v1/topics/verbs.later/schedules/hourly", json={"every": "1h", "payload": 7})
        await go(page, "/later")
        schedule = page.locator("tr", has_text="hourly")
        for name, done in (("Pause", "paused"), ("Resume", "running"), ("Run now", "running")):
            await schedule.get_by_role("button", name=name).click()
            await page.get_by_role("dialog").locator("button[type=submit]").click()
            await expect(page.get_by_role("dialog")).to_have_count(0)
            await expect(schedule).to_contain_text(done)
        assert '"data":7' in (await http.get("/v1/topics/verbs.later/events")).text
        await schedule.get_by_role("button", name="Remove").click()
        await page.get_by_role("dialog").locator("button[type=submit]").click()
        await expect(schedule).to_have_count(0)
        await page.locator("tr", has_text="back").get_by_role("button", name="Cancel").click()
        await page.get_by_role("dialog").locator("button[type=submit]").click()
        await expect(page.locator("tr", has_text="verbs.later")).to_have_count(0)
        assert (await http.get("/v1/topics/verbs.later/delayed/back")).status_code == 404


@pytest.mark.long
@on_page
async def test_versions_are_shared_shadowed_promoted_and_rolled_back(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        way = await pends(http, "verbs.rollout", 2)
        await take(http, way, version=2, rollout="hold")
        await go(page, "/rollouts/verbs.rollout/Wait")
        second = page.locator("tr", has_text="v2")
        await expect(second).to_contain_text("held")
        steps = (("Share", "ramping 25 %", "25"), ("Shadow", "shadow", ""), ("Promote", "current", ""))
        for name, state, per_cent in steps:
            await second.get_by_role("button", name=name).click()
            dialog = page.get_by_role("dialog")
            if per_cent:
                await dialog.get_by_label("Per cent").fill(per_cent)
            await dialog.locator("button[type=submit]").click()
            await expect(second).to_contain_text(state)
        await confirm(page, "Roll back", "was current before")
        await expect(page.locator("tr", has_text="v1")).to_contain_text("current")
        assert (await http.get(f"{way}/rollout")).json()["intended"] == 1


@pytest.mark.long
@on_page
async def test_a_webhook_is_removed(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        hook = {"url": "http://127.0.0.1:9/hook", "handshake": False}  # nobody listens there
        made = await http.put("/v1/topics/verbs.hook/purposes/Tell/webhooks/shop", json=hook)
        assert made.status_code == 201, made.text
        await http.post("/v1/topics/verbs.hook/events", json=1)
        await go(page, "/webhooks")
        row = page.locator("tr", has_text="shop")
        await expect(row).to_contain_text("failing")
        await row.get_by_role("button", name="Remove").click()
        await page.get_by_role("dialog").locator("button[type=submit]").click()
        await expect(row).to_have_count(0)
        assert (await http.get("/v1/topics/verbs.hook/purposes/Tell/webhooks")).json() == {"webhooks": []}


@pytest.mark.long
@pytest.mark.parametrize("which", ["Command line", "curl"])
@on_page
async def test_the_commands_that_a_verb_shows_do_the_same(browsing: Browsing, world: World, which: str) -> None:
    topic = f"verbs.command.{which[:4]}"
    async with browsing.page(world.console, world.admin, ("404 (Not Found)",)) as page, world.http() as http:
        way = await dead(http, topic, 2)
        await go(page, f"/dead/{topic}/Wait")
        dialog = await opened(page, "Redrive all 2")
        await dialog.get_by_text("The command for this").click()
        await run(world, await dialog.get_by_label(which, exact=True).inner_text())
        assert await count(http, way, "dead") == 0
        await page.keyboard.press("Escape")
        await go(page, f"/purposes/{topic}/Wait")
        dialog = await opened(page, "Retire")
        await dialog.get_by_text("The command for this").click()
        await run(world, await dialog.get_by_label(which, exact=True).inner_text())
        assert (await http.get(way)).status_code == 404


@pytest.mark.long
@on_page
async def test_commands_that_pages_show_go_to_this_server(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        way = "/v1/topics/verbs.shown/events"
        await http.post(way, json="it's", params={"id": "shown", "key": "a key"})
        await go(page, "/events/verbs.shown/shown")
        await run(world, await page.locator(".copied code", has_text="solarwind fire").inner_text())
        events = (await http.get(way)).json()["events"]
        assert [(each["data"], each["partitionkey"]) for each in events] == [("it's", "a key")] * 2
        await go(page, "/topics/verbs.shown")
        await expect(page.locator(".empty code")).to_contain_text(f"--url ws{world.root.removeprefix('http')}")
        await go(page, "/")
        await run(world, await page.locator(".attention code").first.inner_text())


async def run(world: World, command: str) -> None:
    """Run a command as somebody who has copied it."""
    command = re.sub("^solarwind", f"{shlex.quote(sys.executable)} -m solarwind", command)
    environment = os.environ | {"SOLARWIND_TOKEN": world.admin}
    process = await asyncio.create_subprocess_shell(
        command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    assert b'"status":4' not in out


@pytest.mark.long
@on_page
async def test_an_event_that_is_redriven_where_it_is_shown_is_dead_no_more(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        way = await dead(http, "verbs.again", 2)
        for number, address in enumerate(("/events/verbs.again/verbs.again-0", "/trace/verbs.again-1")):
            await go(page, address)
            outcome = page.locator(".outcomes > li", has_text="Wait")
            await expect(outcome.locator(".state")).to_contain_text("dead")
            await confirm(page, "Again", "1 dead letter.")
            await expect(outcome.locator(".state")).to_contain_text("pending")
            assert await count(http, way, "dead") == 1 - number


@pytest.mark.long
@on_page
async def test_what_is_refused_because_it_was_done_elsewhere_shows_how_things_stand_now(
    browsing: Browsing, world: World
) -> None:
    way = "/v1/topics/verbs.elsewhere/schedules/twice"
    async with (
        browsing.page(world.console, world.admin, errors=("404 (Not Found)",)) as page,
        world.http() as http,
    ):
        await http.put(way, json={"every": "1h"})
        await go(page, "/later")
        row = page.locator("tr", has_text="twice")
        await row.get_by_role("button", name="Remove").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog.locator("button[type=submit]")).to_be_enabled()  # it has counted, by this clock
        await page.clock.install()
        await page.clock.pause_at(datetime.now() + timedelta(minutes=1))  # nothing more is asked because of the time
        await http.delete("/v1/schedules/twice")
        await dialog.locator("button[type=submit]").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("'twice'")
        await expect(row).to_have_count(0)


@pytest.mark.long
@on_page
async def test_a_dialog_closes_where_the_browser_goes_back(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        await pends(http, "verbs.back", 1)
        await go(page, "/topics/verbs.back")
        await expect(page.locator("h1")).to_have_text("verbs.back")
        await go(page, "/purposes/verbs.back/Wait")
        await expect(await opened(page, "Retire")).to_contain_text("is forgotten")
        await page.go_back()
        await expect(page.locator("h1")).to_have_text("verbs.back")
        await expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.long
@on_page
async def test_a_copy_of_an_event_is_edited_before_it_is_fired(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        first, second = '{"exact":12345678901234567890,"n":1}', '{"exact":12345678901234567890,"n":2}'
        way, headers = "/v1/topics/verbs.copy/events", {"content-type": "application/json"}
        await http.post(way, content=first, headers=headers, params={"id": "copied", "key": "ann"})
        await go(page, "/events/verbs.copy/copied")
        dialog = await opened(page, "Fire an edited copy")
        await expect(dialog.get_by_label("Payload, as JSON")).to_have_value(first)
        await expect(dialog.get_by_label("Key")).to_have_value("ann")
        await dialog.get_by_label("Payload, as JSON").fill(second)
        await dialog.locator("button[type=submit]").click()
        await expect(page.get_by_role("dialog")).to_have_count(0)
        events = (await http.get(way)).json()["events"]
        assert [(each["data"]["n"], each["partitionkey"]) for each in events] == [(1, "ann"), (2, "ann")]
