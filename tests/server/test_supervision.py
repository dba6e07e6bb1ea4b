"""Whatever goes on in the background of a server has an owner that notices its end: it says so, and ends or goes on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from breaking import Once, Unexpected
from solarwind import SolarWind, StoreError, Unavailable, wire
from solarwind.engine.local import LocalEngine
from solarwind.peer.client import Client
from solarwind.peer.connection import Connection
from solarwind.peer.heartbeat import Heartbeat
from solarwind.peer.link import WebSocketLink
from solarwind.peer.time_slices import TimeSlices
from solarwind.server.delivery import Delivery
from solarwind.server.feed import Feed
from solarwind.server.http11 import Http11
from solarwind.server.revocation import Revocables
from solarwind.server.take import Takes
from solarwind.server.targets import Allowed
from solarwind.server.webhooks import Webhooks
from solarwind.service.consumer import Consumer
from solarwind.testing.contract import on_loop, until

from .peers import SECRET, ask, peer, request, talker
from .test_time_slices import EVENTS, JSON, PURPOSE, here


async def serves(port: int) -> None:
    """Check that others are served as before."""
    assert (await ask(port, "GET", "/readyz")).status == 200
    async with talker(port) as other:
        await other.hello()
        await other.submit("t")


@on_loop
async def test_a_server_whose_look_at_its_connections_ends_says_so_and_is_not_ready(
    once: Once, caplog: pytest.LogCaptureFixture
) -> None:
    async with here() as (server, port):
        once(Revocables, "check")
        with pytest.raises(StoreError, match="cannot go on after an unexpected Unexpected"):
            await asyncio.wait_for(server.failed, 60)
        answer = await ask(port, "GET", "/readyz")
        assert answer.status == 503
        assert "the server's look at who is there" in answer.problem["detail"]
        assert "the server cannot go on" in caplog.text
        assert "Unexpected" in caplog.text


@pytest.mark.parametrize("of", [(Connection, "check"), (Connection, "_check_token")], ids=["the look", "the token"])
@on_loop
async def test_a_connection_that_cannot_be_looked_at_ends_and_the_others_go_on(
    of: tuple[type, str], once: Once
) -> None:
    async with here() as (_, port), talker(port) as made:
        await made.hello()
        once(*of)
        assert (await made.hear(wire.Refused)).code == "unavailable"
        await serves(port)


@on_loop
async def test_a_connection_whose_frame_cannot_be_read_on_ends_and_the_others_go_on(
    once: Once, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with here() as (_, port), talker(port) as made:
        await made.hello()
        with monkeypatch.context() as patch:
            patch.setattr(TimeSlices, "crowded", property(lambda slices: True))  # so that it is read in the background
            raised = once(TimeSlices, "next")
            await made.say(wire.Ping())
            assert (await made.hear(wire.Refused)).code == "unavailable"
        assert raised
        await serves(port)


@on_loop
async def test_a_connection_whose_body_cannot_be_read_on_is_closed_and_the_others_go_on(
    once: Once, caplog: pytest.LogCaptureFixture
) -> None:
    async with here() as (_, port), peer(port) as made:
        await made.send(request("POST", EVENTS, JSON | {"transfer-encoding": "chunked"}) + b"1\r\n1\r\n" * 50)
        await asyncio.sleep(0)
        raised = once(Http11, "_receive_body")
        await made.send(b"1\r\n1\r\n" * 1_000 + b"0\r\n\r\n")
        assert await made.read() == b""
        assert raised
        await serves(port)


@on_loop
async def test_a_connection_that_cannot_be_opened_is_closed_and_counts_no_more(
    once: Once, caplog: pytest.LogCaptureFixture
) -> None:
    async with here(connections=1) as (_, port):
        once(Http11, "__init__")
        async with peer(port) as made:
            assert await made.read() == b""
        assert (await ask(port, "GET", "/readyz")).status == 200, "its place is free again"
        assert "the opening of a connection ended in an unexpected way" in caplog.text


@on_loop
async def test_a_take_whose_end_fails_is_said_and_the_others_go_on(
    once: Once, caplog: pytest.LogCaptureFixture
) -> None:
    async with here() as (server, port):
        await ask(port, "POST", f"{PURPOSE}/take", JSON, b"{}")
        await server.wind.fire("t", 1)
        taken = await ask(port, "POST", f"{PURPOSE}/take", JSON, b'{"lease":0.1,"wait":5}')
        assert len(json.loads(taken.body)["events"]) == 1
        raised = once(Takes, "_end")
        await until(lambda: raised, "the lease to end")
        await until(lambda: "ended in an unexpected way" in caplog.text, "it to be said")
        await serves(port)


@on_loop
async def test_a_webhook_that_could_not_be_decided_about_is_decided_about_again(once: Once) -> None:
    async with here() as (server, port):
        wanted = b'{"url":"http://127.0.0.1:9/","handshake":false}'
        server.webhooks._dialer._allowed = Allowed(["127.0.0.1"])
        assert (await ask(port, "PUT", f"{PURPOSE}/webhooks/w", JSON, wanted)).status == 201
        raised = once(Webhooks, "_bar")
        server.webhooks._refusal = lambda webhook: StoreError("not allowed any more")  # type: ignore[method-assign]
        await until(lambda: raised, "a first try")
        await until(lambda: server.webhooks._barred, "a second try")
        await serves(port)


WEBHOOK = b'{"url":"http://127.0.0.1:9/","handshake":false}'


async def webhook(port: int) -> dict[str, Any]:
    """Return what is said of the webhook."""
    return json.loads((await ask(port, "GET", f"{PURPOSE}/webhooks/w")).body)  # type: ignore[no-any-return]


@pytest.mark.parametrize("error", [Unexpected("unexpected"), Unavailable("expected an owner, it moves")])
@on_loop
async def test_a_webhook_that_could_not_start_starts_in_the_end(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with here() as (server, port):
        server.webhooks._dialer._allowed = Allowed(["127.0.0.1"])
        assert (await ask(port, "PUT", f"{PURPOSE}/webhooks/w", JSON, WEBHOOK)).status == 201

        async def raising(delivery: Delivery) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Delivery, "start", raising)
            (definition,) = await server.wind.engine.definitions.list("webhook")
            key, known = next(iter(server.webhooks._known.items()))
            server.webhooks._spawn(server.webhooks._adopt(key, known, definition.number + 1))
            await until(lambda: str(error) in caplog.text, "it to be said")
            assert (await webhook(port))["state"] == "failing"

        async def is_live() -> bool:
            return (await webhook(port))["state"] == "live"

        await until(is_live)


@on_loop
async def test_a_webhook_whose_end_cannot_be_stored_is_not_shown_as_live(
    once: Once, caplog: pytest.LogCaptureFixture
) -> None:
    async with here() as (server, port):
        server.webhooks._dialer._allowed = Allowed(["127.0.0.1"])
        assert (await ask(port, "PUT", f"{PURPOSE}/webhooks/w", JSON, WEBHOOK)).status == 201
        once(Webhooks, "_remember")
        await server.wind.retire("t", "p", force=True)
        await until(lambda: "the end or the beginning of a webhook ended in an unexpected way" in caplog.text)
        assert (await webhook(port))["state"] == "refused"


@on_loop
async def test_a_feed_that_cannot_leave_counts_no_more(once: Once, caplog: pytest.LogCaptureFixture) -> None:
    async with here(instances=1) as (server, port):
        for _ in range(2):
            async with peer(port) as made:
                await made.send(request("GET", "/v1/topics/t/feed?purpose=f", {}))
                assert (await made.answer(head_only=True)).status == 200
                raised = once(LocalEngine, "leave")
            await until(lambda raised=raised: raised, "the feed to leave")  # type: ignore[misc]
            await until(lambda: not server.feeds._open, "its place to be free")
        assert "a request could not be answered" in caplog.text


@pytest.mark.parametrize("of", ["_next", "_send"])
@on_loop
async def test_a_feed_that_cannot_write_ends_and_its_reader_notices(
    of: str, once: Once, caplog: pytest.LogCaptureFixture
) -> None:
    async with here() as (server, port), peer(port) as made:
        if of == "_send":
            once(Feed, of)
        await made.send(request("GET", "/v1/topics/t/feed?purpose=f", {}))
        if of == "_next":
            await made.answer(head_only=True)
            once(Feed, of)
            await server.wind.fire("t", 1)
        await made.read()
        assert "a request could not be answered" in caplog.text
        assert not server.feeds._open
        await serves(port)


@on_loop
async def test_a_mounted_connection_on_which_nothing_can_be_sent_ends(caplog: pytest.LogCaptureFixture) -> None:
    async with here() as (server, _):

        async def send(message: Any) -> None:
            if message["type"] == "websocket.send":
                raise Unexpected

        hello = wire.encode([wire.Hello("c", None, SECRET)])
        came = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "bytes": hello}])

        async def receive() -> Any:
            return next(came, None) or await asyncio.Event().wait()

        scope = {"type": "websocket", "scheme": "ws", "headers": [(b"host", b"localhost")], "server": ("127.0.0.1", 1)}
        acceptor = server.acceptor(scope | {"subprotocols": [wire.SUBPROTOCOL]}, receive, send)
        await asyncio.wait_for(asyncio.create_task(acceptor), 60)
        assert not server.host._connections
        assert "nothing can be sent on a connection" in caplog.text


# --- clients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ((Consumer, "deliver"), "it is made anew"),
        ((WebSocketLink, "send"), "it is made anew"),
        ((Connection, "_write"), "nothing can be sent to a client"),
        ((Connection, "handle"), "a message of a client could not be handled"),
    ],
    ids=["what comes", "what is sent", "the server's answers", "the server's input"],
)
@on_loop
async def test_a_connection_on_which_something_unexpected_happens_is_made_anew_and_nothing_is_lost(
    of: tuple[type, str], said: str, once: Once, caplog: pytest.LogCaptureFixture
) -> None:
    handled: set[int] = set()
    async with here() as (server, port):
        wind = SolarWind(f"ws://127.0.0.1:{port}")

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            handled.add(number)

        async with wind:
            raised = once(*of)
            await asyncio.wait_for(wind.fire("T", 1), 60)
            await until(lambda: handled == {1})
        assert raised
        assert said in caplog.text
        assert "Unexpected" in caplog.text
        assert not server.wind.failed.done()
        await serves(port)


@on_loop
async def test_a_client_whose_ping_raises_goes_on_with_the_next(once: Once) -> None:
    async with here(heartbeat_s=0.2) as (_, port), SolarWind(f"ws://127.0.0.1:{port}") as wind:
        raised = once(Heartbeat, "_measure")
        await until(lambda: raised, "a ping that raises")
        measured: list[float] = []
        wind.engine._heartbeat._measured = measured.append  # type: ignore[attr-defined]
        await until(lambda: measured, "the next")


@on_loop
async def test_a_client_whose_way_back_raises_ends_loudly(once: Once, caplog: pytest.LogCaptureFixture) -> None:
    async with here() as (server, port):
        wind = SolarWind(f"ws://127.0.0.1:{port}")
        await wind.start()
        once(Client, "_is_back")
        server.host.leave_all()
        with pytest.raises(StoreError, match=f"the way back to the server at ws://127.0.0.1:{port} cannot go on"):
            await asyncio.wait_for(wind.failed, 60)
        with pytest.raises(StoreError):
            await wind.fire("T", 1)
        assert "solarwind stops" in caplog.text
        await wind.stop()


@on_loop
async def test_a_client_whose_way_back_is_cancelled_with_all_tasks_ends_loudly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some libraries do so at their end."""
    async with here() as (server, port):
        wind = SolarWind(f"ws://127.0.0.1:{port}")
        await wind.start()
        begun = asyncio.Event()

        async def never(client: Client) -> bool:
            begun.set()
            return await asyncio.Event().wait()

        monkeypatch.setattr(Client, "_is_back", never)
        before = asyncio.all_tasks()
        server.host.leave_all()
        await begun.wait()
        for task in asyncio.all_tasks() - before:
            task.cancel()
        with pytest.raises(StoreError, match="cancel your own tasks alone"):
            await asyncio.wait_for(wind.failed, 60)
        await wind.stop()
