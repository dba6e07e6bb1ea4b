"""An app that is mounted in somebody's: feeds, takes and uploads end when the process begins to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from sampling import some
from solarwind.server import app
from solarwind.shutdown import Shutdown
from solarwind.testing.contract import on_loop, until

from .peers import peer, request
from .place import Host

FIRES = """
from fastapi import FastAPI
from solarwind import SolarWind, Unavailable

wind = SolarWind(grace=0.5)
app = FastAPI(lifespan=wind.lifespan)

@app.get("/fire")
async def fire() -> str:
    print("fires", flush=True)
    try:
        return await wind.fire("t", 1)
    except Unavailable as error:
        return f"unavailable: {error}"
"""
APP = """
from starlette.applications import Starlette
from starlette.routing import Mount
from solarwind.server import app as solarwind_app

events = solarwind_app("memory://")
app = Starlette(routes=[Mount("/events", events)], lifespan=events.lifespan)
"""
# Ways to have an open feed: of the server, mounted beside a SolarWind that the app runs itself, each in its lifespan;
# and of the app's own, by `listen`.
OF_THE_DOORS = """
from contextlib import asynccontextmanager
from fastapi import FastAPI
from solarwind import SolarWind
from solarwind.server import app as solarwind_app

wind = SolarWind(grace=0.5)
events = solarwind_app(wind)

@asynccontextmanager
async def lifespan(outer):
    async with wind.lifespan(outer), events.lifespan(outer):
        yield

app = FastAPI(lifespan=lifespan)
app.mount("/events", events)
"""
OF_ITS_OWN = """
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from solarwind import SolarWind

wind = SolarWind(grace=0.5)
app = FastAPI(lifespan=wind.lifespan)

@app.get("/feed")
async def feed() -> StreamingResponse:
    async def lines():
        async with wind.listen("t", "live", exchange="fanout") as events:
            yield "begun"
            async for event in events:
                yield event.id
    return StreamingResponse(lines())
"""
# Runs the app on a loop of its own program, which then tells uvicorn to stop without a signal.
TOLD = """
import asyncio, sys
import uvicorn
from mine import app

async def main() -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=0))
    serving = asyncio.ensure_future(server.serve())
    await asyncio.to_thread(sys.stdin.readline)
    server.should_exit = True
    await serving

asyncio.run(main())
"""


def launch(folder: Path, app: str, url: str, told: bool) -> subprocess.Popen[bytes]:
    (folder / "mine.py").write_text(app)
    command = [sys.executable, "-m", "uvicorn", "mine:app", "--port", "0"]
    if told:
        (folder / "told.py").write_text(TOLD)
        command = [sys.executable, "told.py"]
    environment = {**os.environ, "SOLARWIND_URL": url}
    stdin = subprocess.PIPE if told else None
    with (folder / "errors").open("wb") as file:
        return subprocess.Popen(command, cwd=folder, env=environment, stdin=stdin, stderr=file, stdout=file, bufsize=0)


async def start(
    folder: Path, app: str = APP, url: str = "memory://", *, told: bool = False
) -> tuple[subprocess.Popen[bytes], int]:
    process, errors = launch(folder, app, url, told), folder / "errors"
    await until(lambda: "running on http" in errors.read_text(), "uvicorn to run")
    return process, int(errors.read_text().partition("127.0.0.1:")[2].split()[0])


@pytest.mark.parametrize("number", some([signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]))
@on_loop
async def test_what_has_no_end_ends_when_its_process_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    process, port = await start(tmp_path)
    try:
        async with peer(port) as feed, peer(port) as take, peer(port) as upload:
            await feed.send(request("GET", "/events/v1/topics/t/feed?purpose=live"))
            assert (await feed.answer(head_only=True)).status == 200
            json = {"content-type": "application/json"}
            await take.send(request("POST", "/events/v1/topics/t/purposes/p/take", json, b'{"wait":60}'))
            ndjson = {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"}
            await upload.send(request("POST", "/events/v1/topics/t/events", ndjson) + b"2\r\n1\n\r\n")

            async def all_there() -> bool:
                async with peer(port) as made:
                    body = (await made.ask("GET", "/events/v1/statistics")).body
                return body.count(b'"instances":1') == 2

            await until(all_there, "the feed and the take are there")
            process.send_signal(number)
            answer = await upload.answer()
            assert (answer.status, answer.code, answer.problem["accepted"]) == (503, "unavailable", 0)
            assert (await take.answer()).body == b'{"events":[]}'
            assert b"event:" not in await feed.read()
            await until(lambda: process.poll() is not None, "the process ends")
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("told", [False, True], ids=["by a signal", "by should_exit"])
@pytest.mark.parametrize(
    ("program", "path"),
    [(OF_THE_DOORS, "/events/v1/topics/t/feed?purpose=live"), (OF_ITS_OWN, "/feed")],
    ids=["of the doors", "of its own"],
)
@on_loop
async def test_an_app_with_an_open_feed_ends_within_its_grace_however_it_is_told_to_stop(
    tmp_path: Path, program: str, path: str, told: bool
) -> None:
    process, port = await start(tmp_path, program, told=told)
    try:
        async with peer(port) as feed:
            await feed.send(request("GET", path))
            assert (await feed.answer(head_only=True)).status == 200
            if told:
                assert process.stdin is not None
                process.stdin.write(b"\n")
            else:
                process.send_signal(signal.SIGTERM)
            await feed.read()
            await until(lambda: process.poll() is not None, "the process ends")
            assert "Application shutdown complete" in (tmp_path / "errors").read_text()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", some([signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]))
@on_loop
async def test_a_request_that_fires_while_the_server_is_away_ends_when_its_process_is_told_to_stop(
    tmp_path: Path, number: signal.Signals, host: Host
) -> None:
    behind = host.start("memory://")
    process, port = await start(tmp_path, FIRES, f"ws://127.0.0.1:{behind}")
    try:
        host.stop(behind)
        errors = tmp_path / "errors"
        await until(lambda: "lost the server" in errors.read_text(), "the app to notice that the server is away")
        async with peer(port) as waiting:
            await waiting.send(request("GET", "/fire"))
            await until(lambda: "fires" in errors.read_text(), "the request to fire")
            process.send_signal(number)
            assert b"unavailable: expected it to be accepted" in (await waiting.answer()).body
        await until(lambda: process.poll() is not None, "the process ends")
    finally:
        process.kill()
        process.wait()


@on_loop
async def test_an_app_that_runs_on_another_thread_ends_soon_once_it_was_told_to_leave() -> None:
    """No signal comes there, and its server waits for the feed."""
    events = app("memory://")
    outer = Starlette(routes=[Mount("/events", events)], lifespan=events.lifespan)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(outer, log_config=None))
    running = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    running.start()
    try:
        await until(lambda: server.started, "the app is up")
        async with peer(listening.getsockname()[1]) as feed:
            await feed.send(request("GET", "/events/v1/topics/t/feed?purpose=live"))
            assert (await feed.answer(head_only=True)).status == 200
            events.leave()
            server.should_exit = True
            await asyncio.wait_for(asyncio.to_thread(running.join), 60)
    finally:
        server.force_exit = server.should_exit = True
        running.join()


@on_loop
async def test_handlers_of_signals_that_are_there_are_called_and_put_back() -> None:
    came: list[Any] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    ours: Callable[..., Any] = signal.getsignal(signal.SIGTERM)  # type: ignore[assignment]
    begun = asyncio.Event()
    watching = Shutdown(begun.set)
    try:
        watching.watch()
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(begun.wait(), 60)
        assert came == [signal.SIGTERM]
        watching.end()
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)
