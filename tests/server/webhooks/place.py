"""What these tests send to and from: a real HTTP server that receives, and a server of Solar Wind that sends to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import uvicorn

from solarwind.records import PurposeStatistics
from solarwind.server import Server
from solarwind.server.access import EVERYTHING
from solarwind.testing.contract import until

TOPIC, PURPOSE = "orders", "Tell the shop"
ORIGIN = "events.example.com"


class Request(NamedTuple):
    """What came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    client: tuple[str, int]


class Answer(NamedTuple):
    """What goes back; an endless body goes on until the other side has had enough."""

    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012
    body: bytes = b""
    endless: bool = False


Behave = Callable[[Request], Answer | Awaitable[Answer]]


class Receiver:
    """An HTTP server on a port of loopback. It agrees to the handshake, and answers POST as it is told."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.behave: Behave = lambda request: Answer()
        self.handshake: Behave = lambda request: Answer(200, {"webhook-allowed-origin": "*"})
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def posts(self) -> list[Request]:
        return [each for each in self.requests if each.method == "POST"]

    @property
    def asked(self) -> list[Request]:
        return [each for each in self.requests if each.method == "OPTIONS"]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        query = scope["query_string"].decode()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        target = scope["path"] + (f"?{query}" if query else "")
        request = Request(scope["method"], target, headers, body, tuple(scope["client"]))
        self.requests.append(request)
        given = (self.handshake if request.method == "OPTIONS" else self.behave)(request)
        answer = given if isinstance(given, Answer) else await given
        raw = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        gone = asyncio.ensure_future(receive()) if answer.endless else None
        while gone is not None and not gone.done():
            await send({"type": "http.response.body", "body": bytes(4096), "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": answer.body})


@asynccontextmanager
async def served(app: Any, **how: Any) -> AsyncIterator[int]:
    """Yield the app on a port that the system chose."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1, access_log=False, **how
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await until(lambda: server.started, "the HTTP server is up")
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with served(receiver) as receiver.port:
        yield receiver


@asynccontextmanager
async def sending(
    url: str = "memory://", networks: tuple[str, ...] = ("127.0.0.1",), **options: Any
) -> AsyncIterator[Server]:
    server = Server(url, webhook_networks=networks, webhook_origin=ORIGIN, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def put(server: Server, url: str, name: str = "shop", **wanted: Any) -> dict[str, Any]:
    """Register a webhook and give what is shown."""
    purpose = wanted.pop("purpose", PURPOSE)
    _, shown = await server.webhooks.put(TOPIC, purpose, name, msgspec.json.encode({"url": url, **wanted}), EVERYTHING)
    return shown


async def counts(server: Server, purpose: str = PURPOSE) -> PurposeStatistics:
    return (await server.wind.statistics()).purposes[TOPIC, purpose]


async def settled(server: Server, count: int = 1) -> None:
    """Wait until so many events were settled."""

    async def all_settled() -> bool:
        return (await counts(server)).settled == count

    await until(all_settled, f"{count} settled")


async def dead(server: Server) -> str:
    """Wait for a dead letter, and give why it is one."""

    async def one_dead() -> bool:
        return (await counts(server)).dead == 1

    await until(one_dead, "a dead letter")
    (letter,) = await server.wind.dead(TOPIC, PURPOSE)
    return letter.error
