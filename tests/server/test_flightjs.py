"""The app and the page of docs/coming-from/flightjs.md, as the document has them: by HTTP, and in a browser."""

from __future__ import annotations

import json
import runpy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from solarwind import SolarWind
from solarwind.testing.contract import on_loop, until
from test_docs import blocks

from .browser import CHROMIUM, chromium
from .doors import mounted

DOCUMENT = Path(__file__).parents[2] / "docs" / "coming-from" / "flightjs.md"
# Clicks until the list has something, since what is encoded before the page's feed is open is dropped.
CLICKS = """<script type="module">
  const clicking = setInterval(() => {
    if (document.querySelector("#list").children.length) clearInterval(clicking);
    else document.querySelector("button").click();
  }, 50);
</script>
"""


@asynccontextmanager
async def running(
    folder: Path, monkeypatch: pytest.MonkeyPatch, more: str = ""
) -> AsyncIterator[tuple[int, list[str]]]:
    """Yield the app's port, and the names of the videos that pages have shown."""
    parts = {block.language: block.text for block in blocks(DOCUMENT)}
    (folder / "app.py").write_text(parts["python"])
    (folder / "page.html").write_text(parts["html"] + more)
    monkeypatch.chdir(folder)
    app = runpy.run_path("app.py")
    wind: SolarWind = app["wind"]
    shown: list[str] = []

    @wind.on("video.shown", purpose="Test")
    async def note(video: dict[str, str]) -> None:
        shown.append(video["name"])

    async with mounted(app["outer"]) as port:
        yield port, shown


@on_loop
async def test_the_app_has_the_page_and_its_feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as (port, shown):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            assert "EventSource" in (await http.get("/")).text
            feed = "/events/v1/topics/video.encoded/feed"
            async with http.stream("GET", feed, params={"purpose": "Live page"}) as answer:
                lines = answer.aiter_lines()
                assert (await anext(lines)).startswith("retry")
                fired = await http.post("/events/v1/topics/video.chosen/events", json={"name": "dog"})
                assert fired.status_code == 202
                async for line in lines:
                    if line.startswith("data: "):
                        assert json.loads(line.removeprefix("data: "))["data"] == {"name": "dog.mp4"}
                        break
            await http.post("/events/v1/topics/video.shown/events", json={"name": "dog.mp4"})
            await until(lambda: shown == ["dog.mp4"], "what a page posts is handled")


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@on_loop
async def test_the_components_of_the_page_talk_to_the_dispatcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, CLICKS) as (port, shown):
        async with chromium(f"http://127.0.0.1:{port}/", tmp_path / "profile"):
            await until(lambda: "cat.mp4" in shown, "the list shows what the chooser chose")
