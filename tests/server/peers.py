"""Peers that may send anything: HTTP byte by byte, and WebSockets message by message, to any server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import time_ns
from typing import Any, NamedTuple, TypeVar

import h11
import msgspec
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.typing import Subprotocol

from solarwind import wire
from solarwind.batch import Batch, author_of, seal

T = TypeVar("T", bound=wire.Message)

PATIENCE_S = 180.0
_HANDSHAKE = (
    b"GET %b/v1/connect HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: solarwind.v1\r\n\r\n"
)


# --- HTTP -------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json", self
        found: dict[str, Any] = json.loads(self.body)
        assert (found["status"], found["type"]) == (self.status, "about:blank")
        assert {"title", "detail", "code"} <= set(found)
        return found

    @property
    def code(self) -> str:
        return str(self.problem["code"])


class Peer:
    """A connection, and the bytes on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""  # of what is behind an answer

    async def send(self, data: bytes) -> None:
        """Send as much as the server takes: it may have hung up."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
        await self.send(request(method, path, headers, body))
        return await self.answer(method)

    async def answer(self, method: str = "GET", *, head_only: bool = False) -> Answer:
        """Return the next answer; of an endless one only its head."""
        found = await self.next_answer(method, head_only=head_only)
        assert found is not None, "the connection was closed without an answer"
        return found

    async def next_answer(self, method: str = "GET", *, head_only: bool = False) -> Answer | None:
        """Return the next answer, or None where the server hung up instead. Of a stream there is only the head."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        if self._rest:
            parser.receive_data(self._rest)
            self._rest = b""
        response: h11.Response | None = None
        headers: dict[str, str] = {}
        body = b""
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                try:
                    data = await asyncio.wait_for(self._reader.read(1 << 16), PATIENCE_S)
                except ConnectionError:
                    data = b""
                if not data and response is None:
                    return None
                parser.receive_data(data)
            elif isinstance(event, h11.Response | h11.InformationalResponse):
                if event.status_code != 100:
                    response = event
                    for name, value in event.headers:  # one that is there twice is seen
                        text = filter(None, (headers.get(name.decode()), value.decode("latin-1")))
                        headers[name.decode()] = ", ".join(text)
                    if head_only or headers.get("content-type", "").startswith("text/event-stream"):
                        break
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                break
        assert response is not None
        self._rest = parser.trailing_data[0]
        return Answer(response.status_code, headers, body)

    async def read(self) -> bytes:
        """Return all that comes until the server hangs up."""
        found, self._rest = self._rest, b""
        with contextlib.suppress(ConnectionError):
            while data := await asyncio.wait_for(self._reader.read(1 << 16), PATIENCE_S):
                found += data
        return found

    async def exactly(self, size: int) -> bytes:
        """Return so many bytes."""
        return await self._reader.readexactly(size)

    async def until(self, text: bytes) -> None:
        """Read until this came."""
        found, self._rest = self._rest, b""
        while text not in found:
            data = await asyncio.wait_for(self._reader.read(1 << 16), PATIENCE_S)
            assert data, f"the connection was closed before {text!r} came"
            found += data

    async def handshake(self, root: str = "") -> None:
        """Become a WebSocket that has not said hello."""
        await self.send(_HANDSHAKE % root.encode())
        assert await self.status() == 101

    async def status(self) -> int:
        """Return the status of the next answer, of which only the head is read: it may be that of a handshake."""
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        return int(head.split(b" ")[1])

    def close(self) -> None:
        self._writer.transport.abort()


def request(method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    """Return the bytes of a request. It says its length, and that its host is localhost, unless `headers` say
    otherwise."""
    said: dict[str, str | None] = {"host": "localhost", "content-length": str(len(body)) if body else None}
    said |= {name.lower(): value for name, value in (headers or {}).items()}
    if "transfer-encoding" in said:
        said["content-length"] = None
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def handshake(path: str, headers: Mapping[str, str]) -> bytes:
    """Return the bytes of a WebSocket's handshake, valid but for what `headers` say otherwise."""
    more = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13"}
    more |= {"sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==", "sec-websocket-protocol": "solarwind.v1"}
    return request("GET", path, {**more, **headers})


@asynccontextmanager
async def peer(port: int | str, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> AsyncIterator[Peer]:
    """Yield a connection that comes from an address of this machine, or to the path of a Unix socket."""
    name, at = "localhost" if tls else None, (source, 0)
    if isinstance(port, str):
        streams = await asyncio.open_unix_connection(port)
    else:
        streams = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name, local_addr=at)
    made = Peer(*streams)
    try:
        yield made
    finally:
        made.close()


async def ask(
    port: int | str, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"", **how: Any
) -> Answer:
    """Send one request on a connection of its own, and return the answer."""
    async with peer(port, **how) as made:
        return await made.ask(method, path, headers, body)


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


# --- WebSocket --------------------------------------------------------------------------------------------------


class Refusal(Exception):
    """The server refused, with this code."""

    def __init__(self, refused: wire.Refused) -> None:
        super().__init__(f"{refused.code}: {refused.text}")
        self.ref, self.code, self.text = refused.ref, refused.code, refused.text


class Talker:
    """A client of `solarwind.v1` that says what it is told to."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._heard: list[wire.FromServer] = []
        self._refs = 0

    @property
    def ref(self) -> int:
        """A new one."""
        self._refs += 1
        return self._refs

    async def say(self, *messages: wire.Message) -> None:
        await self.socket.send(wire.encode(list(messages)))

    async def hear(self, kind: type[T]) -> T:
        """Return the next message of a kind; what came before is passed over. Raise `Refusal` where it is refused."""
        while True:
            while self._heard:
                message = self._heard.pop(0)
                if isinstance(message, wire.Refused) and kind is not wire.Refused:
                    raise Refusal(message)
                if isinstance(message, kind):
                    return message
            data = await asyncio.wait_for(self.socket.recv(), PATIENCE_S)
            assert isinstance(data, bytes)
            self._heard += wire.read_server(data)

    async def hello(self, token: str | None = None) -> wire.Welcome:
        await self.say(wire.Hello("test", token, SECRET))
        return await self.hear(wire.Welcome)

    async def submit(self, topic: str, *payloads: bytes) -> None:
        await self.say(wire.Submit(self.ref, batch(topic, *payloads).data))
        await self.hear(wire.Accepted)

    async def join(self, instance: int, topic: str, purpose: str, **more: Any) -> None:
        await self.say(join_of(self.ref, instance, topic, purpose, **more))
        await self.hear(wire.Done)

    async def call(self, name: str, /, **arguments: Any) -> list[Any]:
        await self.say(wire.Call(self.ref, name, msgspec.Raw(msgspec.msgpack.encode(arguments))))
        items: list[Any] = []
        while True:
            done = await self.hear(wire.Done)
            items += done.items
            if not done.more:
                return items

    async def ended(self) -> tuple[int, str]:
        """Wait until the server has closed the connection: gives its code and reason."""
        await asyncio.wait_for(self.socket.wait_closed(), PATIENCE_S)
        return self.socket.close_code or 0, self.socket.close_reason or ""


@asynccontextmanager
async def talker(
    port: int | str, token: str | None = None, headers: Mapping[str, str] | None = None, *, root: str = "", **how: Any
) -> AsyncIterator[Talker]:
    """Yield a WebSocket at the server that has not said hello. `token` goes with the handshake."""
    options = {"subprotocols": [Subprotocol(wire.SUBPROTOCOL)], "compression": None, "proxy": None} | how
    options |= {"max_size": None, "ping_interval": None, "close_timeout": 1}
    scheme, named = "wss" if "ssl" in how else "ws", f":{port}" if isinstance(port, int) else ""
    uri = f"{scheme}://localhost{named}{root}{wire.PATH}"
    more = {**bearer(token), **(headers or {})}
    made = connect(uri, host="127.0.0.1", additional_headers=more, **options)
    if isinstance(port, str):
        made = unix_connect(port, uri, additional_headers=more, **options)
    async with made as socket:
        yield Talker(socket)


SECRET = b"what only this client knows"  # that it says in hello


def join_of(ref: int, instance: int, topic: str, purpose: str, *, since: Any = "now", **options: Any) -> wire.Join:
    """Return a registration with whatever options."""
    said = {"topic": topic, "purpose": purpose, **options}
    return wire.Join(ref, instance, msgspec.Raw(wire.encode(said)), since)


def batch(topic: str, *payloads: bytes, **more: Any) -> Batch:
    """Return a batch that was never sent before."""
    producer = more.pop("producer", time_ns() & 0xFFFFFFFF)
    of = {"producer": producer, "author": author_of(SECRET), "first": 0, "machine": "m", "process": "p", **more}
    return seal(topic, list(payloads or (b"1",)), [time_ns()] * max(1, len(payloads)), **of)


# --- a server mounted in an app -----------------------------------------------------------------------------------


class Mounted:
    """A process that has the server mounted: see mounted.py."""

    def __init__(self, store: str, tokens: Path | None = None) -> None:
        command = [
            sys.executable,
            str(Path(__file__).with_name("mounted.py")),
            store,
            *([str(tokens)] if tokens else []),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> None:
        assert self._process.stdout is not None
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()
