"""A process that runs servers for tests, as many as asked for, so that not every test waits for a process to start.

It reads commands from stdin, one JSON array a line, and answers each with a line:

- ["start", url, port, tokens, {settings}] with the port, which may be the path of a Unix socket; tokens is the path
  of a file or null
- ["mount", framework, url, port, {settings}] with the port of somebody's app, of FastAPI or Starlette, that plain
  uvicorn runs and that has the server mounted
- ["stop", port] when the server is gone
- ["drop", port] at once
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import Mount

from solarwind.server import Server, Settings, app, asgi
from solarwind.server.listener import Listener
from solarwind.server.unix_socket import UnixSocket

ROOT = "/events"  # see place.py
asgi.CHECK_S = 0.05  # seconds: they look often at who may still be there, so no test states short limits to be quick
_Stop = Callable[[], Awaitable[None]]


async def serve() -> None:
    loop = asyncio.get_running_loop()
    servers: dict[int | str, _Stop] = {}
    dropped: set[asyncio.Future[None]] = set()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, *arguments = json.loads(line)
        if command in ("start", "mount"):
            try:
                answer, stop = await (start if command == "start" else mount)(*arguments)
                servers[answer] = stop
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
        else:
            stopping = asyncio.ensure_future(servers.pop(arguments[0])())
            if command == "drop":
                dropped.add(stopping)
            else:
                await stopping
            answer = "stopped"
        print(json.dumps(answer), flush=True)
    await asyncio.gather(*dropped)


async def start(url: str, port: int | str, tokens: str | None, settings: dict[str, Any]) -> tuple[int | str, _Stop]:
    server = Server(url, tokens=tokens, settings=Settings(**settings))
    where: dict[str, Any] = {"port": port}
    if isinstance(port, str):
        where = {"port": None, "unix": UnixSocket(port, 0o600)}
    listener = Listener(server, **where, grace=1.0)
    await server.start()
    await listener.start()

    async def stop() -> None:
        listener.close()
        await server.stop()
        await listener.stop()

    return listener.port or port, stop


async def mount(framework: str, url: str, port: int, settings: dict[str, Any]) -> tuple[int, _Stop]:
    events = app(url, settings=Settings(**settings))
    if framework == "fastapi":
        import fastapi  # takes half a second, which only those who ask for it have to wait

        outer: Any = fastapi.FastAPI(lifespan=events.lifespan)
        outer.mount(ROOT, events)
    else:
        outer = Starlette(routes=[Mount(ROOT, events)], lifespan=events.lifespan)
    listening = socket.create_server(("127.0.0.1", port))
    running = _Uvicorn(uvicorn.Config(outer, log_level="error"))
    task = asyncio.ensure_future(running.serve(sockets=[listening]))
    await running.has_started.wait()

    async def stop() -> None:
        running.asked.set()
        await task

    return listening.getsockname()[1], stop


class _Uvicorn(uvicorn.Server):
    """Plain, but that it does not look at the time to see whether it is to stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.asked = asyncio.Event()
        self.has_started = asyncio.Event()

    async def main_loop(self) -> None:
        self.has_started.set()
        await self.asked.wait()


if __name__ == "__main__":
    uvloop.run(serve())
