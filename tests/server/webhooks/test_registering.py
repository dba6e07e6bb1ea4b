"""How a webhook comes to be: what it may say, that its target is asked, and that it is remembered."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from solarwind import (
    BadArgument,
    BadName,
    BadPayload,
    ConflictError,
    NotAllowed,
    SolarWind,
    StoreError,
    TooLarge,
    Unavailable,
)
from solarwind.batch import Batch
from solarwind.core.log import Stored
from solarwind.core.state import Change, Snapshot
from solarwind.engine.local import LocalEngine
from solarwind.errors import Busy, NotFound
from solarwind.server import Server, webhooks
from solarwind.server.access import EVERYTHING
from solarwind.server.listener import Listener
from solarwind.store.memory import MemoryStore
from solarwind.testing.contract import on_loop, until

from .place import ORIGIN, PURPOSE, TOPIC, Answer, counts, put, receiving, sending, settled

SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="


def shown(server: Server, name: str = "shop") -> dict[str, Any]:
    return server.webhooks.get(TOPIC, PURPOSE, name)


# Over HTTP -----------------------------------------------------------------------------------------------


@on_loop
async def test_a_webhook_is_registered_changed_shown_and_removed_over_http() -> None:
    async with receiving() as receiver, sending() as server:
        listener = Listener(server, port=0)
        await listener.start()
        root = f"http://127.0.0.1:{listener.port}/v1/topics/{TOPIC}/purposes/Tell%20the%20shop/webhooks"
        async with httpx.AsyncClient(timeout=60) as http:
            made = await http.put(f"{root}/shop", json={"url": receiver.url + "?key=hidden"})
            assert made.status_code == 201
            assert made.json()["secret"].startswith("whsec_")
            assert made.json()["url"] == receiver.url + "?…"
            again = await http.put(f"{root}/shop", json={"url": receiver.url + "?key=hidden"})
            assert (again.status_code, "secret" in again.json()) == (200, False)
            changed = await http.put(f"{root}/shop", json={"url": receiver.url, "mode": "structured"})
            assert (changed.status_code, changed.json()["mode"]) == (200, "structured")
            one = (await http.get(f"{root}/shop")).json()
            assert (one["state"], one["name"], one["purpose"]) == ("live", "shop", PURPOSE)
            assert (await http.get(root)).json() == {"webhooks": [one]}
            await server.wind.fire(TOPIC, 1)
            await settled(server)
            assert (await http.delete(f"{root}/shop")).status_code == 204
            for answer in (await http.get(f"{root}/shop"), await http.delete(f"{root}/shop")):
                assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
            refused = await http.put(f"{root}/shop", json={"url": "http://10.0.0.1/"})
            assert (refused.status_code, refused.json()["code"]) == (403, "not-allowed")
        listener.close()
        await listener.stop()


# The handshake -------------------------------------------------------------------------------------------


@on_loop
async def test_the_target_is_asked_before_anything_is_sent() -> None:
    async with receiving() as receiver, sending() as server:
        receiver.handshake = lambda request: Answer(
            204, {"webhook-allowed-origin": ORIGIN.upper(), "webhook-allowed-rate": "120"}
        )
        assert (await put(server, receiver.url, rate=600))["rate"] == 120
        (asked,) = receiver.asked
        assert asked.headers["webhook-request-origin"] == ORIGIN
        assert asked.headers["webhook-request-rate"] == "600"
        assert receiver.posts == []


@on_loop
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(200), "got 200 without it"),
        (Answer(200, {"webhook-allowed-origin": "others.example.com"}), "got 200 with 'others.example.com'"),
        (Answer(307, {"location": "/agrees"}), "got 307 without it"),
        (Answer(200, {"webhook-allowed-origin": "*", "webhook-allowed-rate": "0"}), "to allow a rate"),
        (Answer(200, {"webhook-allowed-origin": "*", "webhook-allowed-rate": "many"}), "to allow a rate"),
    ],
)
async def test_a_target_that_does_not_agree_gets_nothing(answer: Answer, words: str) -> None:
    async with receiving() as receiver, sending() as server:
        receiver.handshake = lambda request: answer if request.target == "/hook" else Answer(500)
        with pytest.raises(NotAllowed, match=words):
            await put(server, receiver.url)
        assert [request.target for request in receiver.requests] == ["/hook"]
        with pytest.raises(NotFound):
            shown(server)
        assert (await server.wind.statistics()).purposes == {}


@on_loop
async def test_a_target_that_cannot_be_asked_may_be_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solarwind.server.delivery.HANDSHAKE_S", 0.05)
    forever = asyncio.Event()
    async with receiving() as receiver, sending() as server:

        async def wait(request: Any) -> Answer:
            await forever.wait()
            return Answer()

        receiver.handshake = wait
        with pytest.raises(Unavailable, match=r"expected an answer within 0\.05 s, got none"):
            await put(server, receiver.url)
        forever.set()


@on_loop
async def test_a_target_that_is_known_to_want_events_need_not_be_asked() -> None:
    async with receiving() as receiver, sending() as server:
        receiver.handshake = lambda request: Answer(405)
        await put(server, receiver.url, handshake=False)
        await server.wind.fire(TOPIC, 1)
        await settled(server)
        assert receiver.asked == []


# What it may say -----------------------------------------------------------------------------------------


@on_loop
async def test_a_webhook_states_what_its_version_does_when_it_is_first_seen() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url)
        assert (await put(server, receiver.url, name="next", version=2, rollout="hold"))["rollout"] == "hold"
        found = await server.wind.rollout(TOPIC, PURPOSE)
        assert [each.state for each in found.versions] == ["current", "held"]


@on_loop
@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"exchange": "pigeon"}, "expected an exchange, one of"),
        ({"version": 0}, "expected version to be an integer"),
        ({"key": "$.a"}, "expected a key only with an exchange that is keyed"),
        ({"since": "yesterday"}, "expected since"),
        ({"concurrency": 0}, "expected concurrency to be an integer"),
        ({"concurrency": 101}, "expected a concurrency of at most 100"),
        ({"timeout": 0}, "expected a timeout"),
        ({"timeout": 301}, "expected a timeout"),
        ({"rate": 0}, "expected a rate"),
        ({"token": "a b"}, "expected a token"),
        ({"token": "ü"}, "expected a token"),
        ({"token": "x\r\ny: z"}, "expected a token"),
        ({"secret": "hunter2"}, "expected a secret"),
        ({"secret": "whsec_aHVudGVyMg=="}, "expected a secret"),
        ({"secret": "whsec_hunter2!"}, "expected a secret"),
    ],
)
async def test_an_invalid_webhook_is_refused_and_no_secret_is_repeated(wanted: dict[str, Any], words: str) -> None:
    async with receiving() as receiver, sending() as server:
        with pytest.raises(BadArgument, match=words) as refusal:
            await put(server, receiver.url, **wanted)
        assert "unter2" not in str(refusal.value)
        assert receiver.posts == []
        with pytest.raises(NotFound):
            shown(server)


@on_loop
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"secret": "hunter2"',
        b'{"url": 7, "secret": "hunter2"}',
        b'{"url": "http://a/", "secrets": "hunter2"}',
        b'{"url": "http://a/", "retry": {"attempts": 0}}',
        b'{"url": "http://a/", "retry": {"tries": 2}}',
        b'{"url": "http://a/", "mode": "smoke"}',
        b"[" * 1_000 + b"]" * 1_000,
    ],
)
async def test_a_body_that_is_none_is_refused_and_no_secret_is_repeated(body: bytes) -> None:
    async with sending() as server:
        is_object = body.startswith(b"{") and body.endswith(b"}")
        with pytest.raises(BadArgument if is_object else (BadPayload, TooLarge)) as refusal:
            await server.webhooks.put(TOPIC, PURPOSE, "shop", body, EVERYTHING)
        assert "hunter2" not in str(refusal.value)


@on_loop
@pytest.mark.parametrize("name", ["", ".", "a..b", "a/b", "ü", "a b", "x" * 201])
async def test_a_webhooks_name_that_is_invalid_is_refused(name: str) -> None:
    async with sending() as server:
        with pytest.raises(BadName, match="expected a webhook's name"):
            await server.webhooks.put(TOPIC, PURPOSE, name, b'{"url": "http://a/"}', EVERYTHING)
        with pytest.raises(BadName, match="expected a webhook's name"):
            server.webhooks.get(TOPIC, PURPOSE, name)


@on_loop
async def test_a_change_that_cannot_be_leaves_the_webhook_as_it_was() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url)
        with pytest.raises(ConflictError):
            await put(server, receiver.url, exchange="keyed")
        assert shown(server)["exchange"] == "direct"
        await server.wind.fire(TOPIC, 1)
        await settled(server)


@on_loop
async def test_there_are_no_more_webhooks_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MAX_WEBHOOKS", 2)
    async with receiving() as receiver, sending() as server:
        found = await asyncio.gather(
            *(put(server, receiver.url, name) for name in ("a", "b", "c")), return_exceptions=True
        )
        assert sum(isinstance(each, Busy) for each in found) == 1, "although all were asked for at once"
        (one, _) = server.webhooks.list(TOPIC, PURPOSE)
        await put(server, receiver.url, one["name"], mode="structured")


# What is remembered --------------------------------------------------------------------------------------


@on_loop
async def test_a_webhook_goes_on_after_a_restart_with_the_same_secret(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/wind.db"
    async with receiving() as receiver:
        async with sending(store) as server:
            await put(server, receiver.url, secret=SECRET, token="s3cret", retry={"attempts": 2})
            before = shown(server)
        async with sending(store) as server:
            assert shown(server) == before
            await server.wind.fire(TOPIC, 1)
            await settled(server)
        (request,) = receiver.posts
        assert request.headers["authorization"] == "Bearer s3cret"
        assert len(receiver.asked) == 1, "it agreed already"
        async with sending(store) as server:
            await server.webhooks.delete(TOPIC, PURPOSE, "shop", EVERYTHING)
        async with sending(store) as server:
            assert server.webhooks.list(TOPIC, PURPOSE) == []


@pytest.fixture
def careless_umask() -> Iterator[None]:
    """So that no file is hidden by accident."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careless_umask")
@on_loop
async def test_secrets_are_for_nobody_elses_eyes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with receiving() as receiver:
        receiver.behave = lambda request: Answer(500)
        async with sending(f"sqlite:///{tmp_path}/wind.db") as server:
            url = receiver.url + "?password=hunter2"
            given = await put(server, url, secret=SECRET, token="s3cret", retry={"attempts": 1})
            await server.wind.fire(TOPIC, 1)

            async def dead() -> bool:
                return (await counts(server)).dead == 1

            await until(dead)
            (letter,) = await server.wind.dead(TOPIC, PURPOSE)
            said = [json.dumps([given, server.webhooks.list(TOPIC, PURPOSE)]), letter.error, caplog.text]
            said.append(repr(vars(server.webhooks)))
            for secret in (SECRET, "s3cret", "hunter2"):
                assert not [each for each in said if secret in each]
        assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}


@on_loop
async def test_a_webhook_that_has_ended_stays_ended_until_it_is_registered_again(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/wind.db"
    async with receiving() as receiver:
        receiver.behave = lambda request: Answer(410)
        async with sending(store) as server:
            await put(server, receiver.url)
            await server.wind.fire(TOPIC, 1)
            await until(lambda: shown(server)["state"] == "ended")
        async with sending(store) as server:
            assert shown(server)["state"] == "ended"
            assert (await counts(server)).instances == 0
            receiver.behave = lambda request: Answer(200)
            assert "secret" not in await put(server, receiver.url)
            await settled(server)


@on_loop
async def test_a_webhook_that_cannot_join_any_more_says_why_and_the_server_starts(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/wind.db"
    async with receiving() as receiver:
        async with sending(store) as server:
            await put(server, receiver.url)
            await put(server, receiver.url, "other", purpose="Another")
        async with SolarWind(store) as wind:
            await wind.retire(TOPIC, PURPOSE, force=True)

            @wind.on(TOPIC, purpose=PURPOSE, exchange="fanout")
            async def handle() -> None: ...

            await wind.joined()
        async with sending(store) as server:
            found = shown(server)
            assert (found["state"], found["reason"].partition(",")[0]) == (
                *("refused", f"version 1 of purpose {PURPOSE!r} on topic {TOPIC!r} stated exchange 'fanout'"),
            )
            await server.wind.fire(TOPIC, 1)
            await settled_elsewhere(server)


async def settled_elsewhere(server: Server) -> None:
    async def so() -> bool:
        return (await counts(server, "Another")).settled == 1

    await until(so)


@on_loop
@pytest.mark.parametrize(("name", "value"), [('["t","p","n"]', b"{"), ('["t"]', b"{}"), ("t", b'{"topic": 1}')])
async def test_a_stored_webhook_that_cannot_be_read_prevents_the_start(tmp_path: Path, name: str, value: bytes) -> None:
    async with SolarWind(f"sqlite:///{tmp_path}/wind.db") as wind:
        await wind.engine.definitions.put("webhook", name, value)
    with pytest.raises(StoreError, match=r"expected a webhook in the store, got .* which is not what was written"):
        async with sending(f"sqlite:///{tmp_path}/wind.db"):
            pass
    async with SolarWind(f"sqlite:///{tmp_path}/wind.db"):
        pass  # it was let go of


@on_loop
async def test_what_another_server_on_the_same_store_changes_counts_here(tmp_path: Path) -> None:
    async with receiving() as receiver:
        async with SolarWind(f"sqlite:///{tmp_path}/wind.db") as wind, sending(wind) as one, sending(wind) as other:  # type: ignore[arg-type]
            await put(one, receiver.url)
            await until(lambda: other.webhooks.list(TOPIC, PURPOSE))
            await put(other, receiver.url, concurrency=7)
            await until(lambda: shown(one)["concurrency"] == 7)
            await wind.fire(TOPIC, 1)
            await settled(one)
            receiver.behave = lambda request: Answer(410)
            await wind.fire(TOPIC, 2)
            await until(lambda: shown(one)["state"] == shown(other)["state"] == "ended")
            await one.webhooks.delete(TOPIC, PURPOSE, "shop", EVERYTHING)
            await until(lambda: not other.webhooks.list(TOPIC, PURPOSE))
            assert (await counts(one)).instances == 0
            await put(other, receiver.url)
            await until(lambda: one.webhooks.list(TOPIC, PURPOSE))


class Failing(MemoryStore):
    """Breaks at the next commit of a batch, once it is told to."""

    broken = False

    async def commit(
        self, batches: Sequence[Batch], changes: Sequence[Change], snapshots: Sequence[Snapshot], now: int, *more: Any
    ) -> list[Stored | None]:
        if self.broken and batches:
            raise StoreError("the disk is gone")
        return await super().commit(batches, changes, snapshots, now, *more)


@on_loop
async def test_a_store_that_breaks_does_not_end_the_webhooks() -> None:
    """When it was mended and the server is back they go on."""
    store = Failing()
    async with receiving() as receiver:
        async with SolarWind(engine=LocalEngine(store)) as wind, sending(wind) as server:  # type: ignore[arg-type]
            await put(server, receiver.url)
            store.broken = True
            with pytest.raises(StoreError, match="the disk is gone"):
                await wind.fire(TOPIC, 1)
            await until(lambda: wind.failed.done())
        store.broken = False
        async with SolarWind(engine=LocalEngine(store)) as wind, sending(wind) as server:  # type: ignore[arg-type]
            assert shown(server)["state"] == "live"
            await wind.fire(TOPIC, 1)
            await settled(server)


# --- what others may know ---------------------------------------------------------------------------------------


@on_loop
async def test_a_refusal_does_not_say_where_a_name_leads(caplog: pytest.LogCaptureFixture) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["10.20.30.40"]

    async with sending(networks=()) as server:
        server.webhooks = webhooks.Webhooks(server.host, origin=ORIGIN, resolve=resolve)
        await server.webhooks.start()
        with pytest.raises(NotAllowed) as refusal:
            await put(server, "http://db.internal/")
        assert "10.20" not in str(refusal.value)
        assert "private" not in str(refusal.value)
        assert "db.internal' at 10.20.30.40, which is private" in caplog.text
        with pytest.raises(NotAllowed, match=r"got '10.20.30.40', which is private"):
            await put(server, "http://10.20.30.40/")


@on_loop
async def test_a_webhook_that_goes_to_another_host_has_another_secret() -> None:
    """What the one knows, the other must not be sent signatures of."""
    async with receiving() as one, receiving() as other, sending() as server:
        first = await put(server, one.url, handshake=False)
        assert "secret" not in await put(server, f"{one.url}/else", handshake=False)
        moved = await put(server, other.url, handshake=False)
        assert moved["secret"] != first["secret"]
        await server.wind.fire(TOPIC)
        await settled(server)
        assert len(other.posts[0].headers["webhook-signature"].split()) == 1
        given = await put(server, one.url, handshake=False, secret=first["secret"])
        assert "secret" not in given


@on_loop
async def test_a_name_that_is_looked_up_slowly_delays_no_other() -> None:
    """Nor does it take more than one thread, however many events are for it."""
    asked: list[str] = []
    stuck = asyncio.Event()

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        if host == "slow.test":
            await stuck.wait()
        return ["127.0.0.1"]

    async with receiving() as receiver, sending() as server:
        server.webhooks = webhooks.Webhooks(server.host, networks=["127.0.0.1"], origin=ORIGIN, resolve=resolve)
        await server.webhooks.start()
        registering = [
            asyncio.ensure_future(put(server, f"http://slow.test:{receiver.port}/", f"slow{n}", handshake=False))
            for n in range(20)
        ]
        await put(server, f"http://quick.test:{receiver.port}/", "quick", handshake=False)
        await server.wind.fire(TOPIC)
        await settled(server)
        assert asked.count("slow.test") == 1
        stuck.set()
        await asyncio.gather(*registering)
