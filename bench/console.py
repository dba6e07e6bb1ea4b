"""Is the console light while 10,000 events a second flow on 1,000 topics with five purposes each?

One producer fires, a hundred at a time, on all topics in turn, and one process handles the events for all purposes. A
Chromium opens the console some times, and then looks at each of the pages whose lists are long for some seconds. What
is measured is in the browser: when something is first painted, how much of a processor the page's thread takes, and how
long its longest task is, after which alone a frame can be drawn; 0 where none was longer than 50 ms. The longest gap
between two frames depends on what else the machine does.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from time import perf_counter, sleep
from typing import Any, NamedTuple

import harness
import servers
from harness import Crew, Options, Row, Table

TOPICS = 1_000
PURPOSES = 5  # of each
RATE = 10_000  # events a second
TOGETHER = 100  # events of a topic, fired at once
OPENINGS = 5
PAGES = ("/", "/map", "/topics", "/purposes", "/instances")
ARRIVED_S = 3.0  # for a page to be drawn for the first time: what is measured comes after that
FLOWS_S = 8.0  # for events to flow everywhere, before the first look
PAINT_MS = 200.0
PATIENT_MS = 300_000  # for a machine that is busy
TASK_MS = 50.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
SIZE: Any = {"width": 1280, "height": 800}
FLAGS = ["--headless", "--no-sandbox", "--disable-quic", "--disable-background-networking"]
OBSERVE = """() => {
    window.seen = {tasks: [], gaps: []};
    new PerformanceObserver(list => window.seen.tasks.push(...list.getEntries().map(each => each.duration)))
        .observe({type: "longtask"});
    let last = performance.now();
    const frame = now => { window.seen.gaps.push(now - last); last = now; requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
}"""
SEEN = "() => { const seen = window.seen; window.seen = {tasks: [], gaps: []}; return seen; }"
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"

Say = Callable[[object], None]


def topic(number: int) -> str:
    return f"bench.t{number % TOPICS}"


def consume(say: Say, url: str) -> None:
    harness.run_loop(_consume(say, url))


async def _consume(say: Say, url: str) -> None:
    from solarwind import SolarWind

    wind = SolarWind(url)

    async def handle(payloads: list[int]) -> None:
        pass

    for number in range(TOPICS):
        for purpose in range(PURPOSES):
            wind.on(topic(number), purpose=f"Purpose {purpose}")(handle)
    async with wind:
        await wind.joined()
        say("ready")
        await asyncio.Event().wait()


def produce(say: Say, url: str) -> None:
    harness.run_loop(_produce(say, url))


async def _produce(say: Say, url: str) -> None:
    from solarwind import SolarWind

    async with SolarWind(url) as wind:
        say("ready")
        number, due = 0, perf_counter()
        while True:
            wind.fire_many(topic(number), range(TOGETHER))
            number += 1
            due += TOGETHER / RATE
            await asyncio.sleep(max(0.0, due - perf_counter()))


class Look(NamedTuple):
    """What some seconds of a page showed."""

    cpu: float  # of the page's thread, in % of a core
    task: float  # the longest, in ms
    gap: float  # the longest between two frames, in ms


class Seen(NamedTuple):
    """What a browser showed: when something was painted, in ms, and what each page did."""

    at_rest: list[float]
    flowing: list[float]
    looks: dict[str, list[Look]]


async def _spent(session: Any) -> dict[str, float]:
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    return {each["name"]: each["value"] for each in metrics}


async def _look(page: Any, session: Any, seconds: float) -> Look:
    await page.evaluate(SEEN)
    began, before = perf_counter(), await _spent(session)
    await asyncio.sleep(seconds)
    after, lasted = await _spent(session), perf_counter() - began
    seen = await page.evaluate(SEEN)
    cpu = 100 * (after["TaskDuration"] - before["TaskDuration"]) / lasted
    return Look(cpu, max(seen["tasks"], default=0.0), max(seen["gaps"], default=0.0))


async def _paints(console: str, program: str) -> list[float]:
    """Open the console some times, and return when something was painted, in ms."""
    from playwright.async_api import async_playwright

    paints = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        for _ in range(OPENINGS):
            context = await browser.new_context(viewport=SIZE)
            page = await context.new_page()
            await page.goto(console, timeout=PATIENT_MS)
            await page.wait_for_selector("h1", timeout=PATIENT_MS)
            found = await page.wait_for_function(PAINT, timeout=PATIENT_MS)
            paints.append(await found.json_value())
            await context.close()
        await browser.close()
    return paints


async def _looks(console: str, program: str, seconds: float, rounds: int) -> dict[str, list[Look]]:
    """Look at each page so many times."""
    from playwright.async_api import async_playwright

    looks: dict[str, list[Look]] = {address: [] for address in PAGES}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        context = await browser.new_context(viewport=SIZE)
        page = await context.new_page()
        session = await context.new_cdp_session(page)
        await session.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
        await session.send("Performance.enable")
        await page.goto(console, timeout=PATIENT_MS)
        await page.wait_for_selector("h1", timeout=PATIENT_MS)
        await page.evaluate(OBSERVE)
        for _ in range(rounds):
            for address in PAGES:
                await page.evaluate("address => { location.hash = address; }", address)
                await asyncio.sleep(ARRIVED_S)
                looks[address].append(await _look(page, session, seconds))
        await browser.close()
    return looks


def measure(folder: str, seconds: float, rounds: int, flows_s: float) -> Seen:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise SystemExit("expected Chromium, found none: install it, such as with apt-get install chromium")
    with servers.wind("sqlite", folder) as server, Crew() as crew:
        console = f"http://127.0.0.1:{server.port}/console/"
        at_rest = asyncio.run(_paints(console, program))
        crew.start(consume, server.url).said()
        crew.start(produce, server.url).said()
        sleep(flows_s)
        flowing = asyncio.run(_paints(console, program))
        return Seen(at_rest, flowing, asyncio.run(_looks(console, program, seconds, rounds)))


def run(options: Options) -> list[Table]:
    few = options.events is not None
    seconds, rounds = (2.0 if few else 12.0), options.rounds or 3
    seen = measure(options.folder, seconds, rounds, 1.0 if few else FLOWS_S)
    rows = [
        Row("something is painted, at rest", "ms", seen.at_rest, at_most=PAINT_MS),
        Row("something is painted, while events flow", "ms", seen.flowing, at_most=PAINT_MS),
    ]
    for address, looks in seen.looks.items():
        name = address.strip("/") or "overview"
        rows.append(Row(f"{name}, the longest task", "ms", [each.task for each in looks], at_most=TASK_MS))
        rows.append(Row(f"{name}, the longest gap between frames", "ms", [each.gap for each in looks]))
        rows.append(Row(f"{name}, its thread", "% of a core", [each.cpu for each in looks]))
    title = f"The console at {RATE:,} events/s, with {TOPICS:,} topics and {TOPICS * PURPOSES:,} purposes"
    return [Table(title, rows)]


if __name__ == "__main__":
    harness.main(run, __doc__)
