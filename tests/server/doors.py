"""Somebody at the HTTP doors of a real server, and how a test gets there."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import uvicorn

from solarwind.server import Server
from solarwind.server.listener import Listener
from solarwind.testing.contract import until

JSON, BYTES, NDJSON = "application/json", "application/octet-stream", "application/x-ndjson"
STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"
PROBLEM = "application/problem+json"
_numbers = itertools.count()


class Doors:
    """A client that knows nothing but HTTP, with a topic of its own."""

    def __init__(self, http: httpx.AsyncClient, port: int, root: str) -> None:
        self.http = http
        self.port = port
        self.root = root
        self.topic = f"t{next(_numbers)}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.root}"

    @property
    def events(self) -> str:
        """Where events of the topic go."""
        return f"/v1/topics/{self.topic}/events"

    def purpose(self, purpose: str) -> str:
        return f"/v1/topics/{self.topic}/purposes/{quote(purpose, safe='')}"

    async def send(self, content: Any, kind: str = JSON, **query: str) -> httpx.Response:
        return await self.http.post(self.events, content=content, headers={"content-type": kind}, params=query)

    async def fire(self, content: Any, kind: str = JSON, **query: str) -> list[str]:
        """Return the ids of what was accepted."""
        answer = await self.send(content, kind, **query)
        assert answer.status_code == 202, answer.text
        said = answer.json()
        assert said["accepted"] == len(said["ids"])
        ids: list[str] = said["ids"]
        return ids

    async def ask(self, method: str, path: str, body: Any = None, status: int = 200, **query: Any) -> Any:
        """Return the answer, which has to have this status."""
        answer = await self.http.request(method, path, json=body, params=query)
        assert answer.status_code == status, answer.text
        if status >= 400:
            check_problem(answer)
        return answer.json() if answer.content else None

    async def refused(self, work: Any, status: int, code: str, *words: str) -> dict[str, Any]:
        """Check that it is answered with a problem that has these words."""
        problem = check_problem(await work)
        assert (problem["status"], problem["code"]) == (status, code), problem
        for word in words:
            assert word in problem["detail"], problem["detail"]
        return problem

    async def take(self, purpose: str = "look", **wanted: Any) -> list[dict[str, Any]]:
        taken: list[dict[str, Any]] = (await self.ask("POST", f"{self.purpose(purpose)}/take", wanted))["events"]
        return taken

    async def settle(self, events: Iterable[dict[str, Any]], how: str = "done", purpose: str = "look") -> None:
        await self.ask("POST", f"{self.purpose(purpose)}/settle", {how: [event["token"] for event in events]})

    async def stored(self) -> list[dict[str, Any]]:
        """Return all events that the topic's history has, in order."""
        found: list[dict[str, Any]] = []
        while events := await self.take(max=1_000, since="beginning"):
            found += events
            await self.settle(events)
        return found

    async def data(self) -> list[Any]:
        return [event["data"] for event in await self.stored()]


def check_problem(answer: httpx.Response) -> dict[str, Any]:
    """Check that it is a problem of RFC 9457, with a code and one sentence that says what was expected."""
    assert answer.headers["content-type"] == PROBLEM
    problem: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= set(problem)
    assert (problem["type"], problem["status"]) == ("about:blank", answer.status_code)
    assert "expected " in problem["detail"]
    assert "\n" not in problem["detail"]
    assert problem["code"].replace("-", "").isalpha()
    return problem


@asynccontextmanager
async def at(port: int, root: str = "", **how: Any) -> AsyncIterator[Doors]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}{root}", timeout=300, **how) as http:
        yield Doors(http, port, root)


@asynccontextmanager
async def served(server: Server) -> AsyncIterator[int]:
    """Yield the port of a server on this loop. Its dispatcher runs, or is its own."""
    listener = Listener(server, port=0, grace=1.0)
    await server.start()
    await listener.start()
    try:
        yield listener.port
    finally:
        listener.close()
        await server.stop()
        await listener.stop()


@asynccontextmanager
async def mounted(outer: Any) -> AsyncIterator[int]:
    """Yield the port of an app that is run as its users run it."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(outer, log_config=None, lifespan="on"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await until(lambda: server.started, "the outer app is up")
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def say(port: int, data: bytes) -> httpx.Response:
    """Return the answer to bytes on a connection, which the other side closes then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (each.partition(":") for each in lines)]
    return httpx.Response(int(line.split()[1]), headers=headers, content=body)


async def curl(*arguments: str, stdin: Any = asyncio.subprocess.DEVNULL) -> tuple[int, Any]:
    """Return what curl, which knows nothing of this project, was answered: the status, and JSON."""
    command = ["--silent", "--show-error", "--max-time", "300", "--write-out", "\n%{http_code}", *arguments]
    process = await asyncio.create_subprocess_exec("curl", *command, stdin=stdin, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    body, _, status = out.decode().rpartition("\n")
    return int(status), json.loads(body) if body else None
