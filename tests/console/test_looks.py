"""What pages show besides: what waits for a retry, types of payloads, owners, files to download, and plain words."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.async_api import Download, Page, expect

from .browsing import Browsing, World, go, on_page
from .test_verbs import confirm, dead, opened, pends, take
from .world import HARMFUL, LONG_PURPOSE, LONG_TOPIC

pytestmark = pytest.mark.long

HOURS = {"attempts": 9, "wait": 36_000, "ceiling": 36_000}


@on_page
async def test_retries_are_shown_with_when_and_why_and_are_not_waited_for(browsing: Browsing, world: World) -> None:
    way = "/v1/topics/looks.retry/purposes/Wait"
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        for number in range(3):
            await http.post("/v1/topics/looks.retry/events", json=number, params={"id": f"retry-{number}"})
        taken = await take(http, way, max=2, retry=HOURS)
        failed = [{"token": each["token"], "error": f"{HARMFUL[0]} {each['id']}"} for each in taken]
        settled = await http.post(f"{way}/settle", json={"failed": failed})
        assert settled.status_code == 200, settled.text
        await go(page, "/purposes/looks.retry/Wait")
        table = page.get_by_role("region", name="Retries next")
        await expect(table.locator("tbody tr")).to_have_count(2)
        row = table.locator("tr", has_text="retry-0").first
        await expect(row).to_contain_text("1 v1")
        await expect(row).to_contain_text(HARMFUL[0])
        await expect(row).to_contain_text("in ")
        assert await page.evaluate("document.querySelectorAll('main img').length") == 0
        await confirm(page, "Retry now", "2 events will be handed out now.", "The attempts that it had count")
        await expect(page.locator("main")).to_contain_text("Nothing waits for a retry.")
        await expect(page.get_by_role("button", name="Retry now")).to_be_disabled()
        assert len(await take(http, way, max=3)) == 3


@on_page
async def test_errors_of_retries_are_hidden_from_who_may_only_watch(browsing: Browsing, world: World) -> None:
    way = "/v1/topics/looks.hidden/purposes/Wait"
    async with browsing.page(world.console, world.watcher) as page, world.http() as http:
        await http.post("/v1/topics/looks.hidden/events", json={"swordfish": 1})
        (taken,) = await take(http, way, max=1, retry=HOURS)
        await http.post(f"{way}/settle", json={"failed": [{"token": taken["token"], "error": "swordfish"}]})
        await go(page, "/purposes/looks.hidden/Wait")
        await expect(page.get_by_role("region", name="Retries next")).to_contain_text("(needs the right")
        await go(page, "/topics/looks.hidden?view=types")
        await expect(page.locator("main")).to_contain_text("1 object")
        await expect(page.locator("main")).to_contain_text("The fields are shown to tokens")
        assert "swordfish" not in await page.locator("main").inner_text()


@on_page
async def test_the_types_of_a_topics_payloads_are_shown_with_their_fields_as_text(
    browsing: Browsing, world: World
) -> None:
    async with browsing.page(world.console, world.admin) as page:
        await go(page, "/topics/hostile")
        await page.get_by_role("button", name="Types of payloads").click()
        fields = page.get_by_role("region", name="Fields of payloads")
        await expect(page.locator("main")).to_contain_text("9 object")
        for text in HARMFUL:
            await expect(fields).to_contain_text(text.replace("\u202e", r"\u202e").replace("\u202c", r"\u202c"))
        await expect(fields.locator("tr", has_text="list").first).to_contain_text("array")
        assert await page.evaluate("document.querySelectorAll('main img, main script, main svg[onload]').length") == 0
        await go(page, "/topics/shapes?view=types")
        await expect(page.locator("main")).to_contain_text("1 application/octet-stream")
        await expect(page.locator("main")).to_contain_text("There are more fields.")


@on_page
async def test_the_system_says_how_full_its_limits_are(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page:
        await go(page, "/system")
        limits = page.locator("section", has=page.get_by_role("heading", name="Limits"))
        for name, most in (("Topics", "100,000"), ("Viewers", "10,000"), ("Feeds", "10,000")):
            shown = limits.locator("dl").first.locator("div", has_text=name)
            await expect(shown).to_contain_text(re.compile(f"[0-9]+ of {most}"))


@on_page
async def test_the_system_says_who_owns_the_topics(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page:
        await go(page, "/system")
        owners = page.get_by_role("region", name="Owners")
        await expect(owners.locator("tbody tr")).to_have_count(1)
        await expect(owners).to_contain_text("solarwind")
        await expect(owners).to_contain_text(" topics")


async def saved(page: Page, name: str) -> tuple[str, str]:
    """Click a button that downloads a file. Return its name and its text."""
    async with page.expect_download() as begun:
        await page.get_by_role("button", name=name).click()
    download: Download = await begun.value
    return download.suggested_filename, Path(await download.path()).read_text()


@on_page
async def test_facts_are_downloaded_as_json_and_csv_in_which_no_text_is_a_formula(
    browsing: Browsing, world: World
) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        for purpose in ("=1+1", 'a "quoted", one'):
            await pends(http, "looks.export", 1, purpose)
        await go(page, "/topics/looks.export")
        await expect(page.locator("main")).to_contain_text("=1+1")
        await expect(page.locator("main")).to_contain_text('a "quoted", one')
        await go(page, "/system")
        await page.get_by_label("Facts").select_option("purposes")
        name, text = await saved(page, "Download JSON")
        rows = {each["key"]: each for each in json.loads(text)}
        assert name == "purposes.json"
        assert rows["looks.export/=1+1"]["exchange"] == "direct"
        name, text = await saved(page, "Download CSV")
        table = {each["key"]: each for each in csv.DictReader(io.StringIO(text))}
        assert name == "purposes.csv"
        assert table.keys() == rows.keys()
        assert table['looks.export/a "quoted", one']["exchange"] == "direct"
        await page.get_by_label("Facts").select_option("instances")
        name, text = await saved(page, "Download CSV")
        machines = [each["machine"] for each in csv.DictReader(io.StringIO(text))]
        assert (name, all(machines)) == ("instances.csv", True)


@on_page
async def test_a_cell_that_a_spreadsheet_would_compute_begins_with_an_apostrophe(
    browsing: Browsing, world: World
) -> None:
    async with browsing.page(world.console, world.admin) as page:
        made = await page.evaluate(
            """async () => (await import("./parts/download.js")).csvOf(
                [{a: "=1", b: -1, c: "-1"}, {a: "@x", d: {e: [1]}}, {a: "x\\ny", b: null}, {a: "\\n=1", c: "＝1"}])"""
        )
        assert list(csv.reader(io.StringIO(made))) == [
            ["a", "b", "c", "d"],
            ["'=1", "-1", "'-1", ""],
            ["'@x", "", "", '{"e":[1]}'],
            ["x\ny", "", "", ""],
            ["'\n=1", "", "'＝1", ""],
        ]


@on_page
async def test_a_topics_history_is_downloaded_an_event_a_line(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        lines = "\n".join(f'{{"number":{number},"exact":12345678901234567890}}' for number in range(1_234))
        headers = {"content-type": "application/x-ndjson"}
        await http.post("/v1/topics/looks.lines/events", content=lines, headers=headers)
        await go(page, "/topics/looks.lines?view=history")
        await expect(page.locator("main")).to_contain_text("100 events are shown")
        name, text = await saved(page, "Download NDJSON")
        assert name == "looks.lines.ndjson"
        assert [json.loads(line)["data"]["number"] for line in text.splitlines()] == list(range(1_234))
        assert text.count('"exact":12345678901234567890') == 1_234
        await expect(page.locator("main")).to_contain_text("1,234 events are in the file.")


@on_page
async def test_a_history_from_a_time_of_the_address_says_that_time_and_how_large_each_payload_is(
    browsing: Browsing, world: World
) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        headers = {"content-type": "application/octet-stream"}
        for size in (1, 2, 3, 1_024):
            await http.post("/v1/topics/looks.bytes/events", content=b"\xff" * size, headers=headers)
        await go(page, "/topics/looks.bytes?view=history&since=2020-01-31T12:00:00Z")
        await expect(page.get_by_role("region", name="History").locator("code")).to_have_text(
            [f"application/octet-stream, {size}" for size in ("1 B", "2 B", "3 B", "1.0 KiB")]
        )
        await expect(page.get_by_label("From")).to_have_value("2020-01-31T12:00:00Z")


@on_page
async def test_an_event_that_states_no_cause_was_caused_by_its_application(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        await http.post("/v1/topics/looks.cause/events", json=1, params={"id": "uncaused"})
        await go(page, "/events/looks.cause/uncaused")
        cause = page.locator("dl.facts div").filter(has=page.get_by_text("Cause", exact=True))
        await expect(cause).to_have_text("Causeapplication operator")


@on_page
async def test_what_cannot_be_undone_and_what_is_trimmed_is_said_before(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        await dead(http, "looks.undo", 1)
        await go(page, "/dead/looks.undo/Wait")
        dialog = await opened(page, "Discard all 1")
        await expect(dialog).to_contain_text("this cannot be undone")
        await page.keyboard.press("Escape")
        for number in range(4):
            await http.post("/v1/topics/looks.kept/events", json=number)
        await go(page, "/topics/looks.kept")
        dialog = await opened(page, "Keep")
        touches = dialog.locator(".touches")
        await expect(touches).to_have_text("None of the 4 events that are kept will be trimmed.")
        await dialog.get_by_label("Seconds").fill("0")
        await expect(touches).to_have_text("About 4 events of 4 will be trimmed, for good.")
        assert (await http.get("/v1/topics/looks.kept")).json()["kept"] == 4


@on_page
async def test_there_is_no_way_back_where_no_version_was_current_before(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        way = await pends(http, "looks.rollout", 1)
        await take(http, way, version=2, rollout="hold")
        await go(page, "/rollouts/looks.rollout/Wait")
        back = page.get_by_role("button", name="Roll back")
        await expect(back).to_be_disabled()
        assert await back.get_attribute("title") == "No version was current before."
        await expect(page.get_by_role("columnheader", name="Share of events")).to_be_visible()
        names = [await each.inner_text() for each in await page.get_by_role("button", name="Share").all()]
        assert names.count("Share") == len(names) - 1
        await http.post(f"{way}/rollout/promote", json={"version": 2})
        await expect(back).to_be_enabled()


@on_page
async def test_the_button_for_the_colours_says_what_it_is(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page:
        for text in ("Theme: auto", "Theme: light", "Theme: dark"):
            button = page.get_by_role("button", name=text)
            await expect(button).to_be_visible()
            await button.click()
        await expect(page.get_by_role("button", name="Theme: auto")).to_be_visible()


@on_page
async def test_each_point_that_needs_a_person_is_a_sentence(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page, world.http() as http:
        await expect(page.locator(".attention > li").first).to_be_visible()
        texts = [each["text"] for each in (await http.get("/v1/attention")).json()["attention"]]
        assert texts
        assert all(text[0].isupper() or text[0].isdigit() for text in texts), texts


@on_page
async def test_names_in_drawings_end_in_an_ellipsis_where_they_are_wider_than_their_place(
    browsing: Browsing, world: World
) -> None:
    """A node of the map has padding at both sides, and what joined is left of its mark but not of the plot."""
    over = """() => [...document.querySelectorAll(".map .node")].flatMap((node) => {
        const room = node.querySelector("rect").getBBox().width - 11;
        const wide = ({ x, width }) => x + width > room;
        return [...node.querySelectorAll("text")].filter((text) => wide(text.getBBox())).map((each) => each.innerHTML);
    })"""
    async with browsing.page(world.console, world.admin) as page:
        await go(page, "/map?still=too")
        await expect(page.locator(".map .name").filter(has_text="Encode video").first).to_be_visible()
        assert await page.evaluate(over) == []
        await expect(page.locator(".map .name").filter(has_text=re.compile("a…$")).first).to_be_attached()
        await go(page, f"/topics/{LONG_TOPIC}")
        mark = page.locator(".plot text.mark").first
        await expect(mark).to_contain_text("… joined")
        assert await mark.evaluate("(text) => text.getBBox().x") >= 48, "it is over the numbers"


@on_page
async def test_a_long_id_is_one_line_of_a_table(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page:
        for address in (f"/topics/{LONG_TOPIC}", f"/dead/{LONG_TOPIC}/{quote(LONG_PURPOSE)}"):
            await go(page, address)
            id = page.locator("td .id").first
            await expect(id).to_have_text("i" * 200)
            box = await id.bounding_box()
            assert box is not None
            assert box["height"] < 30, address
            assert box["width"] > 200, address


@on_page
async def test_letters_in_a_group_show_what_their_errors_have_in_common(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page:
        await go(page, "/dead")
        group = page.locator(".groups > li").filter(has_text="no frames in video")
        await expect(group.locator(".error")).to_have_text("ValueError: no frames in video #")
        await expect(page.locator(".groups .error").filter(has_text="alert")).to_have_text(
            "RuntimeError: <script>alert(1)</script>"
        )
