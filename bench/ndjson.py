"""How many events a second does one `curl --data-binary @file` bring through the HTTP endpoint?

Each line is one event. The clock runs around curl, until it has the answer; all events are accepted by then. The time
in which uvicorn carries the same file to an app that discards it stands beside it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from time import perf_counter
from typing import Any

import harness
import servers
from harness import PAYLOAD, Options, Row, Table
from servers import Server

GOAL = 200_000
MAX_S = "60"

Message = dict[str, Any]


async def swallow(scope: Message, receive: Callable[[], Any], send: Callable[[Message], Any]) -> None:
    """Read and discard a body, as an ASGI app, and answer with the number of lines."""
    if scope["type"] == "lifespan":
        return
    lines, more = 0, True
    while more:
        message = await receive()
        lines += message["body"].count(b"\n")
        more = message["more_body"]
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"accepted": %d}' % lines})


def measure(serve: Callable[[str], AbstractContextManager[Server]], folder: str, file: str, events: int) -> float:
    with serve(folder) as server, tempfile.NamedTemporaryFile(dir=folder) as answer:
        command = ["curl", "--silent", "--show-error", "--fail", "--max-time", MAX_S, "--output", answer.name]
        command += ["--data-binary", f"@{file}", "--header", "Content-Type: application/x-ndjson"]
        begun = perf_counter()
        subprocess.run([*command, f"{server.url}/v1/topics/bench.fired/events"], check=True)
        seconds = perf_counter() - begun
        said = answer.read()
    if json.loads(said).get("accepted") != events:
        raise RuntimeError(f"expected {events:,} events accepted, got {said[:200]!r}")
    return events / seconds


def run(options: Options) -> list[Table]:
    events, folder = options.events or 500_000, options.folder
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write((PAYLOAD + b"\n") * events)
        file.flush()
        rows = []
        served: dict[str, Callable[[str], AbstractContextManager[Server]]] = {
            "uvicorn, read and forgotten": partial(servers.asgi, "ndjson:swallow"),
            "memory://": partial(servers.wind, "memory", scheme="http"),
            "sqlite://": partial(servers.wind, "sqlite", scheme="http"),
        }
        measures = {name: partial(measure, serve, folder, file.name, events) for name, serve in served.items()}
        for name, figures in harness.take_turns(measures, options.rounds or 3).items():
            rows.append(Row(name, "events/s", figures, at_least=GOAL if "://" in name else None))
    return [Table(f"NDJSON by one curl, {events:,} events", harness.to_first(rows))]


if __name__ == "__main__":
    harness.main(run, __doc__)
