"""A process that runs servers for tests, as many as asked for, so that not every test waits for a process to start.

It reads commands from stdin, one JSON array a line, and answers each with a line: ["start", url, port, {settings}] with
the port, ["stop", port] when the server is gone.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvloop

from solarwind.server import Server, Settings
from solarwind.server.listener import Listener


async def serve() -> None:
    loop = asyncio.get_running_loop()
    servers: dict[int, tuple[Server, Listener]] = {}
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, *arguments = json.loads(line)
        if command == "start":
            answer = await start(servers, *arguments)
        else:
            server, listener = servers.pop(arguments[0])
            await listener.stop()
            await server.stop()
            answer = "stopped"
        print(json.dumps(answer), flush=True)


async def start(
    servers: dict[int, tuple[Server, Listener]], url: str, port: int, settings: dict[str, Any]
) -> int | str:
    server = Server(url, settings=Settings(**settings))
    listener = Listener(server, port=port, grace=1.0)
    try:
        await server.start()
        await listener.start()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    servers[listener.port] = (server, listener)
    return listener.port


if __name__ == "__main__":
    uvloop.run(serve())
