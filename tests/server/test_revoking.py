"""Whatever is open by right of a token ends with that right, whenever a heartbeat is due, and others go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from solarwind import wire
from solarwind.server import Server, Settings
from solarwind.server.access import Access, Listen, create_token, revoke_token
from solarwind.server.listener import Listener
from solarwind.testing.contract import on_loop, until

from .peers import Answer, ask, bearer, peer, request, talker
from .webhooks.place import receiving

TOPIC, PURPOSE = "orders", "p"
AT = f"/v1/topics/{TOPIC}/purposes/{PURPOSE}"
JSON = {"content-type": "application/json"}
NEVER_S = 3_600.0  # between two heartbeats: what ends does not end by one


class Clock:
    """By which tokens expire."""

    ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Place(NamedTuple):
    """A server with tokens, and how a right ends: by being revoked, or by itself."""

    server: Server
    port: int
    path: str
    how: str
    clock: Clock

    def token(self, name: str, **rights: Any) -> str:
        rights = rights or {"fire": (TOPIC,), "listen": (Listen(TOPIC),)}
        expires = timedelta(hours=1) if name == "brief" and self.how == "expired" else None
        return create_token(self.path, name, expires=expires, **rights)[0]

    def end(self) -> None:
        """Take the right back."""
        if self.how == "revoked":
            revoke_token(self.path, "brief")
        else:
            self.clock.ahead = timedelta(hours=2)

    async def ask(self, method: str, path: str, token: str, body: Any = None) -> Answer:
        data = b"" if body is None else msgspec.json.encode(body)
        return await ask(self.port, method, path, bearer(token) | JSON, data)


@pytest.fixture(params=["revoked", "expired"])
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def place(tmp_path: Path, how: str) -> AsyncIterator[Place]:
    path = str(tmp_path / "tokens")
    create_token(path, "first", admin=True)
    clock = Clock()
    settings = Settings(heartbeat_s=NEVER_S)
    server = Server("memory://", tokens=Access(path, now=clock), webhook_networks=["127.0.0.1"], settings=settings)
    listener = Listener(server, port=0, grace=1.0)
    await server.start()
    await listener.start()
    try:
        yield Place(server, listener.port, path, how, clock)
    finally:
        listener.close()
        await server.stop()
        await listener.stop()


@on_loop
async def test_an_upload_ends_and_says_how_many_lines_were_accepted(tmp_path: Path, how: str) -> None:
    async with place(tmp_path, how) as at, peer(at.port) as made:
        headers = bearer(at.token("brief")) | {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"}
        await made.send(request("POST", f"/v1/topics/{TOPIC}/events", headers))
        line = b"[%b]\n" % (b" " * 100_000)
        for _ in range(4):  # lines are looked at together
            await made.send(b"%x\r\n%b\r\n" % (len(line), line))

        async def three_are_accepted() -> bool:
            topics = (await at.server.wind.statistics()).topics
            return TOPIC in topics and topics[TOPIC].fired == 3

        await until(three_are_accepted)
        at.end()
        answer = await made.answer()
        assert (answer.status, answer.code, answer.problem["accepted"]) == (401, "bad-token", 3)


@on_loop
async def test_a_connection_ends_and_says_why(tmp_path: Path, how: str) -> None:
    async with place(tmp_path, how) as at, talker(at.port) as made:
        await made.hello(at.token("brief"))
        at.end()
        refused = await made.hear(wire.Refused)
        assert (refused.ref, refused.code) == (0, "bad-token")
        assert how == "revoked" or "expired at" in refused.text


@on_loop
async def test_a_take_that_waits_ends_and_what_comes_goes_to_others(tmp_path: Path, how: str) -> None:
    async with place(tmp_path, how) as at:
        waiting = asyncio.ensure_future(at.ask("POST", f"{AT}/take", at.token("brief"), {"wait": 30}))
        await until(lambda: at.server.takes._open, "it waits")
        other = at.token("other")
        at.end()
        answer = await waiting
        assert (answer.status, answer.code) == (401, "bad-token")
        await at.server.wind.fire(TOPIC, 1)
        (event,) = json.loads((await at.ask("POST", f"{AT}/take", other, {"wait": 30})).body)["events"]
        assert (event["data"], event["attempt"]) == (1, 1)


@on_loop
async def test_what_was_taken_is_handed_out_again_and_its_token_is_stale(tmp_path: Path, how: str) -> None:
    async with place(tmp_path, how) as at:
        token, other = at.token("brief"), at.token("other")
        await at.ask("POST", f"{AT}/take", token, {})
        await at.server.wind.fire(TOPIC, 1)
        (taken,) = json.loads((await at.ask("POST", f"{AT}/take", token, {"wait": 30})).body)["events"]
        at.end()
        (event,) = json.loads((await at.ask("POST", f"{AT}/take", other, {"wait": 30})).body)["events"]
        assert event["id"] == taken["id"]
        assert (await at.ask("POST", f"{AT}/settle", other, {"done": [taken["token"]]})).status == 409
        assert (await at.ask("POST", f"{AT}/settle", other, {"done": [event["token"]]})).status == 200


@on_loop
async def test_a_feed_ends_and_says_why(tmp_path: Path, how: str) -> None:
    async with place(tmp_path, how) as at, peer(at.port) as made:
        await made.send(request("GET", f"/v1/topics/{TOPIC}/feed?purpose=live", bearer(at.token("brief"))))
        assert (await made.answer(head_only=True)).status == 200
        at.end()
        await made.until(b"event: closed\ndata: ")


@on_loop
async def test_a_viewer_ends_and_is_told_why(tmp_path: Path, how: str) -> None:
    async with place(tmp_path, how) as at, peer(at.port) as made, peer(at.port) as other:
        await other.send(request("GET", "/v1/watch", bearer(at.token("other", watch=True))))
        await other.until(b"server")
        await made.send(request("GET", "/v1/watch", bearer(at.token("brief", watch=True))))
        await made.until(b"server")
        at.end()
        await made.until(b"event: closed\ndata: ")
        assert at.server.viewers.count == 1


@on_loop
async def test_a_webhook_delivers_no_more_and_says_whose_it_was(tmp_path: Path, how: str) -> None:
    async with place(tmp_path, how) as at, receiving() as receiver:
        admin = at.token("admin", admin=True)
        wanted = {"url": f"http://127.0.0.1:{receiver.port}/", "handshake": False}
        answer = await at.ask("PUT", f"{AT}/webhooks/shop", at.token("brief"), wanted)
        assert (answer.status, json.loads(answer.body)["owner"]) == (201, "brief")
        at.end()

        async def state() -> str:
            (shown,) = json.loads((await at.ask("GET", "/v1/webhooks", admin)).body)["webhooks"]
            return f"{shown['state']} {shown['owner']}: {shown['reason']}"

        await until(lambda: not at.server.webhooks._at_work, "it delivers no more")
        assert (await state()).startswith("refused brief: its owner may no longer listen: expected a token")
        await at.server.wind.fire(TOPIC, 1)
        other = at.token("other")
        (event,) = json.loads((await at.ask("POST", f"{AT}/take", other, {"wait": 30})).body)["events"]
        assert event["data"] == 1
        assert receiver.posts == []
        answer = await at.ask("PUT", f"{AT}/webhooks/shop", other, wanted)
        assert (answer.status, json.loads(answer.body)["state"], json.loads(answer.body)["owner"]) == (
            200,
            "live",
            "other",
        )


@on_loop
async def test_a_webhook_delivers_again_once_its_owner_may_listen_again(tmp_path: Path) -> None:
    """As after a file of tokens that could not be read for a moment."""
    async with place(tmp_path, "revoked") as at, receiving() as receiver:
        wanted = {"url": f"http://127.0.0.1:{receiver.port}/", "handshake": False}
        await at.ask("PUT", f"{AT}/webhooks/shop", at.token("brief"), wanted)
        tokens = Path(at.path)
        tokens.chmod(0o644)
        await until(lambda: not at.server.webhooks._at_work, "it delivers no more")
        tokens.chmod(0o600)
        await at.server.wind.fire(TOPIC, 1)
        await until(lambda: len(receiver.posts) == 1, "it delivers again")


@on_loop
async def test_webhooks_of_a_time_without_tokens_are_nobodys_once_there_are_some(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    server = Server("memory://", tokens=Access(str(path), required=False), webhook_networks=["127.0.0.1"])
    await server.start()
    try:
        async with receiving() as receiver:
            body = msgspec.json.encode({"url": f"http://127.0.0.1:{receiver.port}/", "handshake": False})
            await server.webhooks.put(TOPIC, PURPOSE, "shop", body, server.host.access.grant(None))
            create_token(str(path), "first", admin=True)
            await until(lambda: not server.webhooks._at_work, "it delivers no more")
    finally:
        await server.stop()
