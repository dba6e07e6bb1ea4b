"""A browser and a server for tests: pages whose errors and policy violations fail the test, and what they look at."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from server.browser import CHROMIUM
from server.serving import Serving
from solarwind.server.access import Listen, create_token

R = TypeVar("R")

WORLD = Path(__file__).with_name("world.py")
AXE = Path(__file__).parents[2] / ".venv" / "axe.js"
OPTIONS = ("--headless", "--no-sandbox", "--disable-quic", "--disable-background-networking")
PATIENT_MS = 120_000  # for a machine that is busy; what is there is seen at once


class Browsing:
    """A browser, on a loop of its own that lasts as long as it: a test's loop ends with the test."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.browser: Browser = self.run(self._start())

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Do something on the browser's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self) -> Browser:
        expect.set_options(timeout=PATIENT_MS)
        self._playwright = await async_playwright().start()
        return await self._playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)

    async def _stop(self) -> None:
        await self.browser.close()
        await self._playwright.stop()

    def end(self) -> None:
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @asynccontextmanager
    async def page(
        self, url: str, token: str | None = None, errors: tuple[str, ...] = (), **how: Any
    ) -> AsyncIterator[Page]:
        """Yield a page of a console, which is open. What it complains of fails the test, but for these `errors`."""
        context = await self.browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **how})
        context.set_default_timeout(PATIENT_MS)
        complaints: list[str] = []

        def note(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and not any(each in message.text for each in errors):
                complaints.append(message.text)

        page = await context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
        try:
            await page.goto(url + (f"#token={quote(token)}" if token else ""))
            yield page
            assert complaints == [], f"{page.url}: {complaints}"
        finally:
            await context.close()


def on_page(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on the loop of its fixture `browsing`."""

    @functools.wraps(test)
    def run(**given: Any) -> None:
        given["browsing"].run(test(**given))

    return run


class World:
    """A server with tokens, in a process, and the services of `world.py` at it, in another."""

    def __init__(self, folder: Path, *how: str) -> None:
        """`how` are further arguments of `world.py`."""
        tokens = folder / "wind.tokens"
        make = functools.partial(create_token, str(tokens))
        self.tokens = str(tokens)
        self.admin, _ = make("operator", admin=True, fire=("*",), listen=(Listen("*"),))
        self.watcher, _ = make("watcher", watch=True)
        self.reader, _ = make("reader", watch_payloads=True)
        self._serving = Serving(folder, "--tokens", str(tokens), "--webhook-network", "127.0.0.1", scheme="http")
        asyncio.run(self._serving.start())
        self._services = subprocess.Popen(
            [sys.executable, str(WORLD), f"ws://127.0.0.1:{self._serving.port}", *how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"SOLARWIND_TOKEN": self.admin},
        )
        assert self._services.stdout is not None
        assert self._services.stdout.readline() == "ready\n"

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._serving.port}"

    @property
    def console(self) -> str:
        return f"{self.root}/console/"

    @asynccontextmanager
    async def http(self) -> AsyncIterator[httpx.AsyncClient]:
        """Yield an operator's client of the server."""
        headers = {"authorization": f"Bearer {self.admin}"}
        async with httpx.AsyncClient(base_url=self.root, headers=headers, timeout=300) as client:
            yield client

    def end(self) -> None:
        assert self._services.stdin is not None
        self._services.stdin.close()
        self._services.wait()
        assert self._services.stdout is not None
        self._services.stdout.close()
        self._serving.kill()


async def faults_of(page: Page) -> list[str]:
    """Return what axe-core finds wrong with a page."""
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


async def go(page: Page, address: str) -> None:
    """Go to another page of the console, by its address."""
    await page.evaluate("address => { location.hash = address; }", address)
