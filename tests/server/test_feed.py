"""Events as server-sent events, from a real server to real readers: a browser's EventSource among them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from solarwind.server import Server, Settings
from solarwind.server.access import Listen, create_token, revoke_token
from solarwind.server.listener import Listener
from solarwind.testing.contract import on_loop, until

from .browser import CHROMIUM, chromium
from .place import Host
from .resident import least_growth
from .webhooks.place import served

FEED = "/v1/topics/orders/feed"
LIVE = {"purpose": "Live page"}
PURPOSE = "/v1/topics/orders/purposes/Live%20page"
MAX_GROWTH = 4 << 20
NDJSON = {"content-type": "application/x-ndjson"}


@asynccontextmanager
async def serving(host: Host, store: str = "memory://", **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    port = host.start(store, **settings)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            yield http
    finally:
        host.stop(port)


@asynccontextmanager
async def listening(port: int = 0, **options: Any) -> AsyncIterator[tuple[Server, int]]:
    """Yield a server on this loop."""
    server = Server("memory://", **options)
    listener = Listener(server, port=port)
    await server.start()
    await listener.start()
    try:
        yield server, listener.port
    finally:
        listener.close()
        await server.stop()
        await listener.stop()


class Reader:
    """Somebody who reads a feed, as the standard says it is to be read."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._bytes = answer.aiter_bytes()
        self._rest = b""

    async def block(self) -> list[str]:
        """Return the lines of the next block; none at the end."""
        while b"\n\n" not in self._rest:
            try:
                self._rest += await anext(self._bytes)
            except StopAsyncIteration:
                assert not self._rest
                return []
        block, _, self._rest = self._rest.partition(b"\n\n")
        return block.decode().split("\n")

    async def event(self) -> Any:
        """Return the next message, a CloudEvent."""
        (line,) = await self.block()
        assert line.startswith("data: ")
        return json.loads(line.removeprefix("data: "))

    async def data(self, count: int) -> list[Any]:
        """Return what the next ones carry."""
        found = []
        for _ in range(count):
            found.append((await self.event())["data"])
        return found


@asynccontextmanager
async def reading(http: httpx.AsyncClient, **more: Any) -> AsyncIterator[Reader]:
    """Yield a reader of a feed that has joined: events fired from here on come."""
    async with http.stream("GET", FEED, params=LIVE, **more) as answer:
        assert answer.status_code == 200, await answer.aread()
        reader = Reader(answer)
        assert await reader.block() == ["retry: 1000"]
        yield reader


async def fire(http: httpx.AsyncClient, *payloads: Any) -> None:
    await send(http, "\n".join(map(json.dumps, payloads)).encode())


async def send(http: httpx.AsyncClient, body: bytes, kind: str = "application/x-ndjson") -> None:
    answer = await http.post("/v1/topics/orders/events", content=body, headers={"content-type": kind})
    assert answer.status_code == 202, answer.text


async def counts(http: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await http.get(PURPOSE)).json()
    return found


async def until_counts(http: httpx.AsyncClient, **wanted: int) -> None:
    async def so() -> bool:
        found = await counts(http)
        return {name: found[name] for name in wanted} == wanted

    await until(so, f"{wanted}")


# What comes ----------------------------------------------------------------------------------------------


@on_loop
async def test_each_message_is_a_cloudevent_and_none_has_an_id_to_come_back_to(host: Host) -> None:
    async with serving(host) as http, reading(http) as reader:
        headers = reader.answer.headers
        assert headers["content-type"].partition(";")[0] == "text/event-stream"
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
        await fire(http, {"number": 7})
        (line,) = await reader.block()
        event = json.loads(line.removeprefix("data: "))
        assert (event["type"], event["data"], event["specversion"]) == ("orders", {"number": 7}, "1.0")
        assert (event["purpose"], event["attempt"]) == ("Live page", 1)


@on_loop
async def test_a_feed_of_a_version_that_is_held_gets_nothing_yet(host: Host) -> None:
    async with serving(host) as http, reading(http) as reader:
        held = {**LIVE, "version": "2", "rollout": "hold"}
        async with http.stream("GET", FEED, params=held) as answer:
            assert await Reader(answer).block() == ["retry: 1000"]
            found = (await http.get(f"{PURPOSE}/rollout")).json()["versions"]
            assert [each["state"] for each in found] == ["current", "held"]
            await fire(http, 1)
            assert await reader.data(1) == [1]


@on_loop
async def test_a_line_break_in_a_payload_is_none_in_the_stream(host: Host) -> None:
    async with serving(host) as http, reading(http) as reader:
        await send(http, b'{"a":\n\n1,\r\n"b":\r"c\\n\\u2028\xe2\x80\xa8"}', "application/json")
        await send(http, b"\n\n", "application/octet-stream")
        assert (await reader.event())["data"] == {"a": 1, "b": "c\n\u2028\u2028"}
        assert (await reader.event())["data_base64"] == "Cgo="


@on_loop
async def test_everybody_gets_every_event_in_order(host: Host) -> None:
    async with serving(host) as http, reading(http) as one, reading(http) as other:
        await until_counts(http, instances=2)
        await fire(http, *range(3_000))
        assert await one.data(3_000) == await other.data(3_000) == list(range(3_000))
        await until_counts(http, settled=6_000, dropped=0, pending=0, in_flight=0)


@on_loop
async def test_a_reader_that_hangs_up_leaves_no_instance_behind(host: Host) -> None:
    async with serving(host) as http:
        async with reading(http):
            await until_counts(http, instances=1)
        await until_counts(http, instances=0)
        await fire(http, 1)
        async with reading(http) as reader:
            await fire(http, 2)
            assert await reader.data(1) == [2], "nothing is kept"


@pytest.mark.long
@on_loop
async def test_a_reader_that_is_slow_misses_the_oldest_and_costs_nobody_else_anything(own_host: Host) -> None:
    async with serving(own_host) as http, reading(http) as slow, reading(http) as fast:
        line = b"%%d%b" % (b" " * 900)
        start = 0

        async def send_more() -> None:
            nonlocal start
            for _ in range(4):
                await send(http, b"\n".join(line % number for number in range(start, start + 2_000)))
                assert await fast.data(2_000) == list(range(start, start + 2_000))
                start += 2_000

        await send_more()
        await send_more()
        assert await least_growth(own_host.pid, send_more, MAX_GROWTH) < MAX_GROWTH, "their events have 7 MB"
        while start < 40_000:
            await send_more()
        dropped = (await counts(http))["dropped"]
        assert dropped > 10_000
        got = await slow.data(start - dropped)
        assert got[-10_000:] == list(range(start - 10_000, start))
        assert got == sorted(set(got))
        await until_counts(http, dropped=dropped, in_flight=0)


# The end -------------------------------------------------------------------------------------------------


@on_loop
async def test_where_nothing_comes_a_comment_shows_that_somebody_is_there(host: Host) -> None:
    async with serving(host, heartbeat_s=1.0) as http, reading(http) as reader:
        assert [await reader.block() for _ in range(2)] == [[":"]] * 2
        await fire(http, 1)
        while (lines := await reader.block()) == [":"]:
            pass
        assert json.loads(lines[0].removeprefix("data: "))["data"] == 1


@on_loop
async def test_a_purpose_that_is_retired_ends_its_feeds_and_says_so(host: Host) -> None:
    async with serving(host) as http, reading(http) as reader:
        assert (await http.delete(PURPOSE, params={"force": "true"})).status_code == 204
        kind, data = await reader.block()
        assert kind == "event: closed"
        assert "was retired" in json.loads(data.removeprefix("data: "))["detail"]
        assert await reader.block() == []


@on_loop
async def test_a_token_that_is_revoked_ends_its_feeds(tmp_path: Path) -> None:
    tokens = str(tmp_path / "tokens")
    text, _ = create_token(tokens, "page", fire=("orders",), listen=(Listen("orders", "Live page"),))
    async with listening(tokens=tokens, settings=Settings(heartbeat_s=1.0)) as (_, port):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            assert (await http.get(FEED, params=LIVE)).status_code == 401
            async with reading(http, headers={"authorization": f"Bearer {text}"}) as reader:
                revoke_token(tokens, "page")
                while (lines := await reader.block()) == [":"]:
                    pass
                assert lines[0] == "event: closed"
                assert "expected a token that is known" in lines[1]
                assert await reader.block() == []


@on_loop
async def test_a_server_that_stops_ends_feeds_at_once(host: Host) -> None:
    port = host.start("memory://", heartbeat_s=3600)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        async with reading(http) as reader, reading(http) as behind:
            await send(http, b"\n".join(b'"%b"' % (b"x" * 60_000) for _ in range(100)))
            await until_counts(http, instances=2)
            assert len(await reader.data(100)) == 100
            stopping = asyncio.create_task(asyncio.to_thread(host.stop, port))
            assert await reader.block() == []
            await stopping
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                await behind.data(101)


# Refusals ------------------------------------------------------------------------------------------------


@on_loop
@pytest.mark.parametrize(
    ("query", "headers", "status", "words"),
    [
        (LIVE, {"last-event-id": "7"}, 403, "nothing to go back to"),
        ({**LIVE, "exchange": "direct"}, {}, 403, "take them instead"),
        ({**LIVE, "exchange": "keyed"}, {}, 403, "take them instead"),
        ({"purpose": "Work"}, {}, 409, "stated exchange 'direct', this instance states exchange 'fanout'"),
        ({**LIVE, "exchange": "pigeon"}, {}, 400, "expected an exchange, one of"),
        ({**LIVE, "version": "0"}, {}, 400, "1"),
        ({**LIVE, "since": "now"}, {}, 400, "since"),
        ({**LIVE, "rollout": "soon"}, {}, 400, "expected rollout 'newest', 'hold', 'shadow' or a share"),
        ({**LIVE, "rollout": "0.1"}, {}, 400, "expected no share with exchange 'fanout'"),
        ({**LIVE, "rollout": "shadow"}, {}, 400, "expected no shadow with exchange 'fanout'"),
        ({}, {}, 400, "expected the parameter purpose, got none"),
        ({"purpose": ""}, {}, 400, "expected a purpose"),
    ],
)
async def test_what_cannot_be_a_feed_is_refused(
    host: Host, query: dict[str, str], headers: dict[str, str], status: int, words: str
) -> None:
    async with serving(host) as http:
        await http.post("/v1/topics/orders/purposes/Work/take", json={})
        answer = await http.get(FEED, params=query, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert words in answer.json()["detail"]
        assert [each["purpose"] for each in (await http.get("/v1/purposes")).json()["purposes"]] == ["Work"]


# A browser -----------------------------------------------------------------------------------------------

PAGE = """<!doctype html><script>
let last = Promise.resolve();
const report = what => last = last.then(() => fetch("/report", {method: "POST", body: JSON.stringify(what)}));
const source = new EventSource("http://127.0.0.1:%d/v1/topics/orders/feed?purpose=Live%%20page");
source.onopen = () => report("open");
source.onmessage = message => report(JSON.parse(message.data).data);
source.addEventListener("closed", message => { source.close(); report("closed"); });
</script>"""


class Page:
    """A page with an EventSource, and what it reports."""

    def __init__(self) -> None:
        self.reports: list[Any] = []
        self.feed_port = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["method"] == "POST":
            self.reports.append(json.loads(body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": (PAGE % self.feed_port).encode()})

    async def until(self, *reports: Any) -> None:
        await until(lambda: self.reports == list(reports), f"the page reports {reports}, it did {self.reports}")


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@on_loop
async def test_a_browsers_eventsource_reads_a_feed_and_comes_back_after_a_restart(tmp_path: Path) -> None:
    page = Page()
    async with served(page) as port, asyncio.timeout(60):
        origin = f"http://127.0.0.1:{port}"
        async with AsyncExitStack() as stack:
            async with listening(origins=[origin]) as (server, page.feed_port):
                await stack.enter_async_context(chromium(origin, tmp_path))
                await page.until("open")
                await server.wind.fire("orders", "zwei\nZeilen \u2028")
                await page.until("open", "zwei\nZeilen \u2028")
            async with listening(page.feed_port, origins=[origin]) as (server, _):
                await page.until("open", "zwei\nZeilen \u2028", "open")
                await server.wind.fire("orders", 2)
                await server.wind.fire("orders", 3)
                await page.until("open", "zwei\nZeilen \u2028", "open", 2, 3)
                await server.wind.retire("orders", "Live page", force=True)
                await page.until("open", "zwei\nZeilen \u2028", "open", 2, 3, "closed")
