"""Webhooks that somebody pauses and resumes, what their targets answered last, and what is sent again."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from solarwind import SolarWind
from solarwind.errors import ConflictError, NotAllowed, NotFound
from solarwind.records import Attention, WebhookAnswer
from solarwind.server import Server
from solarwind.server.access import Listen, create_token
from solarwind.server.targets import EXCERPT
from solarwind.server.webhooks import MAX_ANSWERS
from solarwind.testing.contract import on_loop, until

from ..doors import Doors, at, served
from .place import PURPOSE, TOPIC, Answer, counts, dead, put, receiving, sending, settled

HOOK = TOPIC, PURPOSE, "shop"
PATH = f"/v1/topics/{TOPIC}/purposes/{quote(PURPOSE)}/webhooks/shop"
ONCE = {"attempts": 1}


def state(server: Server) -> str:
    return str(server.webhooks.get(*HOOK)["state"])


async def pending(server: Server, number: int) -> None:
    async def all_pend() -> bool:
        return (await counts(server)).pending == number

    await until(all_pend, f"{number} pend")


async def answers(server: Server) -> list[WebhookAnswer]:
    return await server.wind.webhook_answers(*HOOK)


async def paused(server: Server) -> list[Attention]:
    return [each for each in await server.wind.attention() if each.kind == "webhook paused"]


@on_loop
async def test_a_paused_webhook_sends_nothing_and_its_events_pend_until_it_is_resumed() -> None:
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url)
        await server.wind.fire(TOPIC, 1)
        await settled(server)
        await server.wind.pause_webhook(*HOOK)
        await server.wind.pause_webhook(*HOOK)
        shown = server.webhooks.get(*HOOK)
        assert (shown["state"], shown["reason"]) == ("paused", None)
        assert shown["paused_since"] is not None
        assert [each.state for each in await server.wind.webhooks()] == ["paused"]
        assert [fact.record.state for fact in server.webhooks.facts().values()] == ["paused"]  # type: ignore[attr-defined]
        (point,) = await paused(server)
        assert (point.urgency, point.topic, point.purpose) == ("low", TOPIC, PURPOSE)
        assert point.command == f"solarwind webhooks resume {TOPIC} '{PURPOSE}' shop"
        await server.wind.fire(TOPIC, 2)
        await pending(server, 1)
        server.webhooks.check()
        assert len(receiver.posts) == 1
        await server.wind.resume_webhook(*HOOK)
        await settled(server, 2)
        assert (state(server), await paused(server)) == ("live", [])
        assert server.webhooks.get(*HOOK)["paused_since"] is None
        await server.wind.resume_webhook(*HOOK)


@on_loop
async def test_a_webhook_stays_paused_across_a_restart_and_a_change(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/wind.db"
    async with receiving() as receiver:
        async with sending(url) as server:
            await put(server, receiver.url)
            await server.wind.pause_webhook(*HOOK)
        async with sending(url) as server:
            assert state(server) == "paused"
            await server.wind.fire(TOPIC, 1)
            await pending(server, 1)
            await put(server, receiver.url, rate=60_000)
            assert state(server) == "paused"
            assert receiver.posts == []
            await server.wind.resume_webhook(*HOOK)
            await settled(server)
            assert state(server) == "live"


@on_loop
async def test_another_server_on_the_same_store_pauses_too(tmp_path: Path) -> None:
    wind = SolarWind(f"sqlite:///{tmp_path}/wind.db")
    async with receiving() as receiver, wind:
        one, other = (Server(wind, webhook_networks=["127.0.0.1"]) for _ in range(2))
        await one.start()
        await other.start()
        try:
            await put(one, receiver.url)
            await until(lambda: _known(other), "the other knows it")
            await wind.pause_webhook(*HOOK)
            await until(lambda: (state(one), state(other)) == ("paused", "paused"), "both pause it")
            await wind.resume_webhook(*HOOK)
            await until(lambda: (state(one), state(other)) == ("live", "live"), "both resume it")
        finally:
            await other.stop()
            await one.stop()


def _known(server: Server) -> bool:
    return len(server.webhooks.every()) == 1


@on_loop
async def test_one_that_is_not_there_or_has_ended_is_not_paused_and_a_dispatcher_alone_says_where_to_ask() -> None:
    async with receiving() as receiver, sending() as server:
        with pytest.raises(NotFound, match="'shop', which does not exist"):
            await server.wind.pause_webhook(*HOOK)
        with pytest.raises(NotFound):
            await server.wind.webhook_answers(*HOOK)
        receiver.behave = lambda request: Answer(410)
        await put(server, receiver.url)
        await server.wind.fire(TOPIC, 1)
        await until(lambda: state(server) == "ended")
        with pytest.raises(ConflictError, match="410 Gone"):
            await server.wind.pause_webhook(*HOOK)
        assert [each.error for each in await answers(server)] == ["the target answered 410 Gone"]
    async with SolarWind("memory://") as wind:
        for work in (wind.webhooks(), wind.pause_webhook(*HOOK), wind.webhook_answers(*HOOK)):
            with pytest.raises(NotAllowed, match="expected a server"):
                await work


@on_loop
async def test_the_last_answers_are_kept_with_what_was_said_and_how_long_it_took() -> None:
    async with receiving() as receiver, sending() as server:
        receiver.behave = lambda request: Answer(500, body=b"no room \xff" + b"x" * 5_000)
        await put(server, receiver.url, retry=ONCE)
        id = await server.wind.fire(TOPIC, 1)
        await dead(server)
        (found,) = await answers(server)
        assert (found.id, found.attempt, found.status) == (id, 1, 500)
        assert found.error == "expected the target to answer 2xx, got 500"
        assert found.payload.startswith("no room \ufffdxxx")
        assert len(found.payload) == EXCERPT
        assert 0 <= found.took_s < 60
        receiver.behave = lambda request: Answer(200, body=b"thanks")
        for number in range(MAX_ANSWERS + 5):
            await server.wind.fire(TOPIC, number)
        await settled(server, MAX_ANSWERS + 5)
        found_all = await answers(server)
        assert len(found_all) == MAX_ANSWERS
        assert {(each.status, each.error, each.payload) for each in found_all} == {(200, None, "thanks")}
        assert [each.time for each in found_all] == sorted((each.time for each in found_all), reverse=True)
        assert len(await server.wind.webhook_answers(*HOOK, limit=3)) == 3
        await server.wind.pause_webhook(*HOOK)
        assert len(await answers(server)) == MAX_ANSWERS


@on_loop
async def test_an_answer_that_did_not_come_and_one_that_rejects_are_among_the_answers() -> None:
    async with receiving() as receiver, sending() as server:
        receiver.behave = lambda request: Answer(413)
        await put(server, receiver.url)
        await server.wind.fire(TOPIC, 1)
        await dead(server)
        (found,) = await answers(server)
        assert found.error is not None
        assert (found.status, "no other attempt can help" in found.error) == (413, True)
        await put(server, "http://127.0.0.1:9/hook", handshake=False, retry=ONCE)
        await server.wind.fire(TOPIC, 2)

        async def none_came() -> bool:
            return (await answers(server))[0].status is None

        await until(none_came)
        assert "expected an answer, got" in ((await answers(server))[0].error or "")


@on_loop
async def test_what_a_target_missed_is_sent_again_at_once() -> None:
    async with receiving() as receiver, sending() as server:
        fails = {"orders-1": 500, "orders-2": 413}
        receiver.behave = lambda request: Answer(fails.get(request.headers["ce-id"], 200))
        await put(server, receiver.url, retry={"attempts": 5, "wait": 36_000, "ceiling": 36_000})
        for number in range(3):
            await server.wind.fire(TOPIC, number, id=f"orders-{number}")
        await dead(server)
        await settled(server, 1)

        async def waits() -> bool:
            return [each.id for each in await server.wind.retries(TOPIC, PURPOSE)] == ["orders-1"]

        await until(waits, "one to wait for a retry")
        assert await server.wind.retry(TOPIC, PURPOSE, dead=True, dry_run=True) == 2
        fails.clear()
        assert await server.wind.retry(TOPIC, PURPOSE, dead=True) == 2
        await settled(server, 3)
        assert (await counts(server)).dead == 0


# By HTTP, and who may -------------------------------------------------------------------------------------------


@on_loop
async def test_over_http_it_needs_admin_and_answers_without_payloads_have_no_texts(tmp_path: Path) -> None:
    tokens = str(tmp_path / "tokens")
    texts = {
        "admin": create_token(tokens, "ops", admin=True, fire=("*",), listen=(Listen("*"),))[0],
        "listen": create_token(tokens, "shop", listen=(Listen("*"),))[0],
        "watch": create_token(tokens, "watcher", watch=True)[0],
        "reader": create_token(tokens, "reader", watch_payloads=True)[0],
    }
    server = Server(f"sqlite:///{tmp_path}/wind.db", tokens=tokens, webhook_networks=["127.0.0.1"])
    async with receiving() as receiver, served(server) as port:
        receiver.behave = lambda request: Answer(500, body=b"swordfish")

        def doors(who: str) -> Any:
            return at(port, headers={"authorization": f"Bearer {texts[who]}"})

        async with doors("admin") as admin:
            await admin.ask("PUT", PATH, {"url": receiver.url, "retry": ONCE}, 201)
            await admin.ask("POST", f"/v1/topics/{TOPIC}/events", 1, 202)
            await dead(server)
        for who, may in {"watch": False, "listen": False, "reader": False, "admin": True}.items():
            async with doors(who) as its:
                for verb in ("pause", "resume"):
                    await _allowed(its, "POST", f"{PATH}/{verb}", may)
                await _allowed(its, "GET", f"{PATH}/answers", who != "listen")
                if who != "listen":
                    (found,) = (await its.ask("GET", f"{PATH}/answers"))["answers"]
                    assert (found["status"], found["id"]) == (500, found["id"])
                    hidden = "(needs the right watch:payloads)"
                    said = (found["payload"], found["error"])
                    bare = who == "watch"
                    assert said == ((hidden, hidden) if bare else ("swordfish", found["error"]))
        noted = [(each.verb, each.by, each.arguments) for each in await server.wind.audit()]
        assert noted[:2] == [("resume_webhook", "ops", '{"name":"shop"}'), ("pause_webhook", "ops", '{"name":"shop"}')]


async def _allowed(doors: Doors, method: str, path: str, may: bool) -> None:
    answer = await doors.http.request(method, path)
    assert (answer.status_code == 403) == (not may), (path, answer.text)
    assert answer.status_code in (200, 204, 403)
