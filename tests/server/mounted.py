"""A process with somebody's own app, run by uvicorn, that has the server mounted: `python mounted.py STORE TOKENS`.

It prints its port. Without TOKENS anybody may do everything.
"""

from __future__ import annotations

import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from solarwind import server

ROOT = "/wind"


def main(store: str, tokens: str | None = None) -> None:
    events = server.app(store, tokens=tokens)
    outer = Starlette(routes=[Mount(ROOT, events)], lifespan=events.lifespan)
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(outer, log_level="error")).run(sockets=[listening])


if __name__ == "__main__":
    main(*sys.argv[1:])
