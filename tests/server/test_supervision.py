"""Whatever goes on in the background of a server has an owner that notices its end: it says so, and ends or goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

import pytest

from solarwind import StoreError, wire
from solarwind.peer.connection import Connection
from solarwind.peer.time_slices import TimeSlices
from solarwind.server.http11 import Http11
from solarwind.server.revocation import Revocables
from solarwind.server.take import Takes
from solarwind.server.targets import Allowed
from solarwind.server.webhooks import Webhooks
from solarwind.testing.contract import on_loop, until

from .peers import SECRET, ask, peer, request, talker
from .test_time_slices import EVENTS, JSON, PURPOSE, here

Once = Callable[[type, str], list[BaseException]]


class Unexpected(Exception):
    """What nobody thought of."""


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> Once:
    """Makes a method raise the next time it is called, and never again. Gives what was raised."""

    def break_it(of: type, name: str) -> list[BaseException]:
        raised: list[BaseException] = []
        good = getattr(of, name)

        def bad(*arguments: Any, **options: Any) -> Any:
            if raised:
                return good(*arguments, **options)
            raised.append(Unexpected(name))
            raise raised[0]

        async def bad_later(*arguments: Any, **options: Any) -> Any:
            return await bad(*arguments, **options) if raised else bad()

        monkeypatch.setattr(of, name, bad_later if iscoroutinefunction(good) else bad)
        return raised

    return break_it


async def serves(port: int) -> None:
    """Others are served as before."""
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
        assert (await made.hear(wire.Refused)).code == "protocol"
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
            assert (await made.hear(wire.Refused)).code == "protocol"
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
