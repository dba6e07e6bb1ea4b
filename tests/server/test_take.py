"""Events taken and settled by HTTP, at a real server: what comes, what becomes of it, and what a token is good for."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cloudevents.core.bindings import http as sdk

from leaping import leap
from solarwind.server import Server
from solarwind.testing.contract import on_loop, until

from .doors import served
from .place import Host

PURPOSE = "Ship it: no/where?"
NOW = {"wait": 0}  # a retry without backoff


class Client:
    """Somebody who takes, over HTTP alone."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def ask(self, what: str, body: Any = None, purpose: str = PURPOSE, status: int = 200) -> Any:
        answer = await self.http.post(f"/v1/topics/orders/purposes/{quote(purpose, safe='')}/{what}", json=body or {})
        assert answer.status_code == status, answer.text
        return answer.json()

    async def take(self, purpose: str = PURPOSE, **wanted: Any) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = (await self.ask("take", wanted, purpose))["events"]
        return events

    async def settle(self, status: int = 200, purpose: str = PURPOSE, **said: Any) -> Any:
        return await self.ask("settle", said, purpose, status)

    async def fire(self, *payloads: Any, **query: str) -> list[str]:
        body = "\n".join(map(json.dumps, payloads))
        headers = {"content-type": "application/x-ndjson"}
        answer = await self.http.post("/v1/topics/orders/events", content=body, headers=headers, params=query)
        assert answer.status_code == 202, answer.text
        ids: list[str] = answer.json()["ids"]
        return ids

    async def begin(self, *payloads: Any, purpose: str = PURPOSE, **wanted: Any) -> list[str]:
        """Create the purpose, and then fire these events."""
        assert await self.take(purpose, **wanted) == []
        return await self.fire(*payloads)

    async def counts(self, purpose: str = PURPOSE) -> dict[str, Any]:
        counts: dict[str, Any] = (await self.http.get(f"/v1/topics/orders/purposes/{quote(purpose, safe='')}")).json()
        return counts

    async def until(self, purpose: str = PURPOSE, **wanted: int) -> None:
        async def so() -> bool:
            counts = await self.counts(purpose)
            return {name: counts.get(name) for name in wanted} == wanted

        await until(so, f"{wanted}")

    async def dead(self) -> list[dict[str, Any]]:
        answer = await self.http.get(f"/v1/topics/orders/purposes/{quote(PURPOSE, safe='')}/dead")
        letters: list[dict[str, Any]] = answer.json()["dead"]
        return letters


@asynccontextmanager
async def serving(host: Host, store: str = "memory://", **settings: Any) -> AsyncIterator[Client]:
    port = host.start(store, **settings)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            yield Client(http)
    finally:
        host.stop(port)


@asynccontextmanager
async def here(**options: Any) -> AsyncIterator[Client]:
    """Yield a client of a server on this loop, whose time leaps."""
    async with served(Server("memory://", **options)) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            yield Client(http)


def tokens(events: list[dict[str, Any]]) -> list[str]:
    return [event["token"] for event in events]


def data(events: list[dict[str, Any]]) -> list[Any]:
    return [event["data"] for event in events]


# What comes ----------------------------------------------------------------------------------------------


@on_loop
async def test_what_is_taken_is_a_cloudevent_with_a_token_and_settling_it_is_the_end(host: Host) -> None:
    async with serving(host) as client:
        (id,) = await client.begin({"number": 7})
        (event,) = await client.take()
        message = sdk.HTTPMessage({"content-type": "application/cloudevents+json"}, json.dumps(event).encode())
        read = sdk.from_structured_event(message)
        assert (read.get_id(), read.get_type(), read.get_data()) == (id, "orders", {"number": 7})
        assert (read.get_extension("purpose"), read.get_extension("attempt")) == (PURPOSE, 1)
        assert await client.settle(done=[event["token"]]) == {
            "done": 1,
            "failed": 0,
            "later": 0,
            "reject": 0,
            "renewed": 0,
        }
        await client.until(settled=1, instances=0, in_flight=0, pending=0)
        assert await client.take() == []


@on_loop
async def test_an_event_without_a_key_is_rejected_where_the_take_states_that(host: Host) -> None:
    async with serving(host) as client:
        keyed = {"exchange": "keyed", "key": "$.video", "key_missing": "reject"}
        await client.begin({"n": 1}, {"video": 2}, **keyed)
        assert data(await client.take(max=10, **keyed)) == [{"video": 2}]
        (letter,) = await client.dead()
        assert letter["error"] == "expected a key, the field $.video of its payload, got none"
        assert (await client.counts())["key_missing"] == 1
        answer = await client.http.get("/metrics")
        assert f'solarwind_purpose_key_missing_total{{purpose="{PURPOSE}",topic="orders"}} 1.0' in answer.text


@on_loop
async def test_bytes_come_in_base64(host: Host) -> None:
    async with serving(host) as client:
        await client.begin(1)
        (event,) = await client.take()
        headers = {"content-type": "application/octet-stream"}
        await client.http.post("/v1/topics/orders/events", content=b"\x00\xff", headers=headers)
        (event,) = await client.take()
        assert base64.b64decode(event["data_base64"]) == b"\x00\xff"
        assert "data" not in event


@on_loop
async def test_a_take_waits_for_the_first_event(host: Host) -> None:
    async with serving(host) as client:
        taking = asyncio.create_task(client.take(wait=20))
        await client.until(instances=1)
        await client.fire("here")
        assert data(await taking) == ["here"]


@on_loop
async def test_a_take_that_gets_nothing_leaves_nothing_behind(host: Host) -> None:
    async with serving(host) as client:
        assert await client.take(wait=0.1) == []
        await client.until(instances=0, pending=0)


@on_loop
async def test_no_more_come_than_are_wanted_and_the_rest_stays_for_others(host: Host) -> None:
    async with serving(host) as client:
        await client.begin(*range(5))
        first, second = await client.take(max=3), await client.take(max=3)
        assert (data(first), data(second)) == ([0, 1, 2], [3, 4])
        assert len(set(tokens(first + second))) == 5
        await client.settle(done=tokens(first + second))
        await client.until(settled=5, instances=0)


@on_loop
async def test_many_takes_share_what_there_is_and_nobody_gets_what_another_has(host: Host) -> None:
    async with serving(host) as client:
        await client.begin(*range(100))
        found = await asyncio.gather(*(client.take(max=7) for _ in range(20)))
        assert sorted(number for events in found for number in data(events)) == list(range(100))
        assert max(map(len, found)) == 7


@on_loop
async def test_a_new_purpose_listens_from_when_it_says(host: Host, tmp_path: Path) -> None:
    async with serving(host, f"sqlite:///{tmp_path}/wind.db") as client:
        await client.fire("before")
        since = {"now": 0, "beginning": 1, "1h": 1, "999999999d": 1, "2001-01-01T00:00:00Z": 1}
        for number, (when, expected) in enumerate(since.items()):
            assert data(await client.take(f"p{number}", since=when)) == ["before"] * expected
        assert await client.take("p0", since="beginning") == [], "it counts for a new purpose"


@on_loop
async def test_of_a_key_one_event_comes_at_a_time_in_order(host: Host) -> None:
    async with serving(host) as client:
        keyed = {"exchange": "keyed", "key": "$.video"}
        await client.begin(*({"video": number % 2, "n": number} for number in range(6)), **keyed)
        for expected in ([0, 1], [2, 3], [4, 5]):
            events = await client.take(max=10, **keyed)
            assert [event["n"] for event in data(events)] == expected
            assert await client.take(max=10, **keyed) == [], "while those of the keys are out"
            await client.settle(done=tokens(events))


@on_loop
async def test_takes_and_webhooks_state_the_limits_of_a_purpose_and_keep_to_them() -> None:
    async with here(webhook_networks=["127.0.0.1"]) as client:
        limits = {"at_most": 2, "rate": "1000/s"}
        await client.begin(*range(5), **limits)
        first = await client.take(max=10, wait=10, **limits)
        assert len(first) == 2
        assert await client.take(max=10, **limits) == []
        counts = await client.counts()
        assert (counts["rate"], counts["at_most"], counts["limited"], counts["in_flight"]) == ("1000/s", 2, False, 2)
        await client.settle(done=[first[0]["token"]])
        assert len(await client.take(max=10, wait=10, **limits)) == 1
        hooks = f"/v1/topics/orders/purposes/{quote(PURPOSE, safe='')}/webhooks/hook"
        hook = {"url": "http://127.0.0.1:9/", "handshake": False}
        for other in ({}, {"at_most": 3, "purpose_rate": "1000/s"}, {"at_most": 2, "purpose_rate": "1/s"}):
            answer = await client.http.put(hooks, json=hook | other)
            assert answer.status_code == 409, answer.text
            assert "stated exchange 'direct' with rate='1000/s' with at_most=2" in answer.json()["detail"]
        answer = await client.http.put(hooks, json=hook | {"at_most": 2, "purpose_rate": "1000/s"})
        assert answer.is_success, answer.text
        for bad in ({"rate": "100"}, {"rate": "0/s"}, {"at_most": 0}):
            answer = await client.ask("take", bad, status=400)
            assert answer["detail"].startswith("expected a")
        answer = await client.http.put(hooks, json=hook | {"purpose_rate": "100/fortnight"})
        assert (answer.status_code, answer.json()["detail"][:15]) == (400, "expected a rate")
        metrics = (await client.http.get("/metrics")).text
        assert "solarwind_purpose_limited{" in metrics


@on_loop
async def test_of_two_versions_that_wait_the_newer_gets_it(host: Host) -> None:
    async with serving(host) as client:
        old, new = (asyncio.create_task(client.take(wait=20, version=version)) for version in (1, 2))
        await client.until(instances=2)
        await client.fire("for the new one")
        assert data(await new) == ["for the new one"]
        await client.fire("for whoever is left")
        assert data(await old) == ["for whoever is left"]


@on_loop
async def test_whoever_hangs_up_while_waiting_is_gone_at_once(host: Host) -> None:
    async with serving(host) as client:
        taking = asyncio.create_task(client.take(wait=60, lease=600))
        await client.until(instances=1)
        taking.cancel()
        await client.until(instances=0)
        await client.fire("for another")
        (event,) = await client.take()
        assert (event["data"], event["attempt"]) == ("for another", 1)


# What becomes of it --------------------------------------------------------------------------------------


@on_loop
async def test_what_failed_comes_again_and_is_a_dead_letter_after_so_many_attempts(host: Host) -> None:
    async with serving(host) as client:
        wanted = {"retry": {"attempts": 3, **NOW}, "wait": 20}
        (id,) = await client.begin(1)
        for attempt, failed in enumerate(("x", {"token": "x"}, {"token": "x", "error": "it is broken"}), 1):
            (event,) = await client.take(**wanted)
            assert event["attempt"] == attempt
            said = event["token"] if failed == "x" else {**failed, "token": event["token"]}
            assert (await client.settle(failed=[said]))["failed"] == 1
        (letter,) = await client.dead()
        assert (letter["event"]["id"], letter["error"], letter["attempts"]) == (id, "it is broken", 3)


@on_loop
async def test_a_take_without_retry_leaves_how_the_version_retries(host: Host) -> None:
    async with serving(host) as client:
        (id,) = await client.begin(1)
        (event,) = await client.take(retry={"attempts": 2, **NOW}, wait=20)
        await client.settle(failed=[event["token"]])
        (event,) = await client.take(wait=20)
        await client.settle(failed=[event["token"]])
        (letter,) = await client.dead()
        assert (letter["event"]["id"], letter["attempts"]) == (id, 2)


@on_loop
async def test_later_does_not_count_as_an_attempt(host: Host) -> None:
    async with serving(host) as client:
        await client.begin(1)
        for said in ("token", {"after": 0}, {"after": 0.01}):
            (event,) = await client.take(wait=20, retry={"attempts": 1})
            assert event["attempt"] == 1
            later = event["token"] if said == "token" else {"token": event["token"], **said}
            assert (await client.settle(later=[later]))["later"] == 1
        (event,) = await client.take(wait=20)
        await client.settle(later=[{"token": event["token"], "after": 3600}])
        assert await client.take() == []
        await client.until(pending=1)


@on_loop
async def test_what_is_rejected_is_a_dead_letter_at_once(host: Host) -> None:
    async with serving(host) as client:
        await client.begin(1, 2)
        one, two = tokens(await client.take(max=2))
        assert (await client.settle(reject=[one, {"token": two, "reason": "no such order"}]))["reject"] == 2
        assert [letter["error"] for letter in await client.dead()] == [
            *("it was rejected without a reason", "no such order"),
        ]


@on_loop
async def test_one_request_settles_events_of_several_takes_each_in_its_way(host: Host) -> None:
    async with serving(host) as client:
        await client.begin(*range(6))
        a, b, c, d, e, f = tokens([event for _ in range(3) for event in await client.take(max=2)])
        assert await client.settle(done=[a, c], failed=[b], later=[d], reject=[e], renew=[f]) == {
            "done": 2,
            "failed": 1,
            "later": 1,
            "reject": 1,
            "renewed": 1,
        }
        await client.until(settled=2, dead=1, in_flight=1, pending=2)


@on_loop
async def test_a_settle_that_was_answered_outlives_a_killed_server(host: Host, own_host: Host, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/wind.db"
    port = own_host.start(store)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        client = Client(http)
        await client.begin(*range(4))
        one, two, three, _ = tokens(await client.take(max=4, retry={"attempts": 1}))
        await client.settle(done=[one], reject=[two], later=[{"token": three, "after": 3600}])
        own_host.kill()
    async with serving(host, store) as client:
        (event,) = await client.take(max=4, wait=20)
        assert (event["data"], event["attempt"]) == (3, 1)
        assert await client.take(max=4) == []
        counts = await client.counts()
        assert (counts["settled"], counts["dead"], counts["pending"]) == (1, 1, 1)


# Leases --------------------------------------------------------------------------------------------------


@on_loop
async def test_when_the_lease_ends_another_gets_it_and_the_late_settle_is_refused(host: Host) -> None:
    async with serving(host) as client:
        await client.begin(1)
        (late,) = await client.take(lease=0.05)
        (event,) = await client.take(wait=20)
        assert (event["id"], event["attempt"]) == (late["id"], 2)
        problem = await client.settle(409, done=[late["token"]])
        assert (problem["code"], problem["stale"]) == ("conflict", [late["token"]])
        assert (await client.settle(done=[event["token"]]))["done"] == 1
        await client.until(settled=1, instances=0)


@on_loop
async def test_a_take_that_is_never_settled_leaves_nothing_behind(host: Host) -> None:
    async with serving(host, instances=1) as client:
        await client.begin(*range(3))
        await client.take(max=3, lease=0.05)
        await client.until(instances=0, pending=3)
        assert len(await client.take(max=3)) == 3


@on_loop
async def test_of_several_events_those_that_were_not_settled_come_again() -> None:
    async with here() as client:
        await client.begin(*range(4))
        events = await client.take(max=4, lease=20)
        await client.settle(done=tokens(events)[1:3])
        leap(21)
        again: list[Any] = []

        async def both() -> bool:
            again.extend(data(await client.take(max=4, wait=20)))
            return len(again) == 2

        await until(both)
        assert again == [0, 3]


@on_loop
async def test_an_event_that_hangs_every_time_is_a_dead_letter(host: Host) -> None:
    async with serving(host) as client:
        await client.begin(1)
        wanted = {"retry": {"attempts": 2}, "lease": 0.05, "wait": 20}
        assert [(await client.take(**wanted))[0]["attempt"] for _ in range(2)] == [1, 2]
        await client.until(in_flight=0)
        assert await client.take(retry={"attempts": 2}) == []
        (letter,) = await client.dead()
        assert "did not come to an end 2 times" in letter["error"]


@on_loop
@pytest.mark.parametrize("how", ["renew", "later"])
async def test_a_lease_runs_on_while_something_is_said_of_it(how: str) -> None:
    """Whatever is said of one event of a take counts for all that were taken with it."""
    async with here() as client:
        await client.begin(*range(10))
        kept, *others = tokens(await client.take(max=10, lease=20))
        for _ in range(4):
            leap(10)
            said = {"renew": [kept]} if how == "renew" else {"later": [{"token": others.pop(), "after": 3600}]}
            await client.settle(**said)
        assert (await client.settle(done=[kept]))["done"] == 1


# Tokens --------------------------------------------------------------------------------------------------


@on_loop
async def test_stale_and_foreign_tokens_are_told_and_the_others_count(host: Host) -> None:
    async with serving(host) as client:
        await client.begin(purpose="Another")
        await client.begin(1, 2, 3)
        one, two, three = tokens(await client.take(max=3))
        (foreign,) = tokens(await client.take("Another"))
        await client.settle(done=[one])
        id, _, number = three.partition(".")
        made_up = [f"{id}.3", f"{id}.02", f"{id}.-1", f"{id}.", id, "", f".{number}", "x" * 200, f"{three}\n"]
        bad = [one, foreign, *made_up]
        problem = await client.settle(409, done=[two, *bad[:3]], renew=bad[3:])
        assert problem["stale"] == bad
        assert (problem["code"], problem["done"], problem["renewed"]) == ("conflict", 1, 0)
        await client.until(settled=2, in_flight=1)
        assert (await client.settle(done=[three]))["done"] == 1
        assert (await client.settle(purpose="Another", done=[foreign]))["done"] == 1


@on_loop
async def test_of_two_who_settle_the_same_event_at_once_one_counts(host: Host, tmp_path: Path) -> None:
    async with serving(host, f"sqlite:///{tmp_path}/wind.db") as client:
        await client.begin(1)
        (token,) = tokens(await client.take())
        url = f"/v1/topics/orders/purposes/{quote(PURPOSE, safe='')}/settle"
        said = ({"done": [token]}, {"reject": [token]}, {"failed": [token]})
        answers = await asyncio.gather(*(client.http.post(url, json=each) for each in said))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409]


@on_loop
async def test_a_token_twice_or_too_many_are_refused_before_anything_is_done(host: Host) -> None:
    async with serving(host, ids=3) as client:
        await client.begin(*range(3))
        one, two, three = tokens(await client.take(max=3))
        assert (await client.settle(400, done=[one, two], later=[one]))["code"] == "bad-argument"
        assert (await client.settle(413, done=[one, two, three], renew=["x"]))["code"] == "too-large"
        assert (await client.ask("take", {"max": 4}, status=413))["code"] == "too-large"
        assert (await client.settle(done=[one, two, three]))["done"] == 3


@on_loop
async def test_there_are_no_more_open_takes_than_allowed(host: Host) -> None:
    async with serving(host, instances=2) as client:
        await client.begin(1, 2, 3)
        events = [*await client.take(), *await client.take()]
        assert (await client.ask("take", status=429))["code"] == "busy"
        await client.settle(done=tokens(events[:1]))
        assert data(await client.take()) == [3]


# Stopping ------------------------------------------------------------------------------------------------


@on_loop
async def test_a_server_that_stops_answers_who_waits_and_gives_back_what_was_taken(host: Host, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/wind.db"
    port = host.start(store)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        client = Client(http)
        await client.begin(*range(3))
        (taken, *_) = await client.take(max=2, lease=3600)
        waiting = [asyncio.create_task(client.take("Another", wait=60)) for _ in range(3)]
        await client.until("Another", instances=3)
        await asyncio.to_thread(host.stop, port)
        assert await asyncio.gather(*waiting) == [[], [], []]
    async with serving(host, store) as client:
        assert (await client.settle(409, done=[taken["token"]]))["stale"] == [taken["token"]]
        events = await client.take(max=3)
        assert [(event["data"], event["attempt"]) for event in events] == [(0, 1), (1, 1), (2, 1)], "from the disk"


# Refusals ------------------------------------------------------------------------------------------------


@on_loop
async def test_a_take_from_an_exchange_that_does_not_pend_is_refused(host: Host) -> None:
    async with serving(host) as client:
        problem = await client.ask("take", {"exchange": "fanout"}, status=403)
        assert problem["code"] == "not-allowed"
        assert "use the feed" in problem["detail"]
        await client.until(instances=None)  # type: ignore[arg-type]


@on_loop
async def test_a_take_that_contradicts_the_first_statement_is_a_conflict(host: Host) -> None:
    async with serving(host) as client:
        await client.take(exchange="keyed")
        problem = await client.ask("take", {}, status=409)
        assert problem["code"] == "conflict"
        assert "stated exchange 'keyed', this instance states exchange 'direct'" in problem["detail"]


@on_loop
async def test_bad_bodies_are_refused_with_a_code(host: Host) -> None:
    async with serving(host) as client:
        for body in (
            *({"max": 0}, {"max": "1"}, {"max": 1.5}, {"wait": -1}, {"wait": 61}, {"lease": 0}, {"lease": 1e9}),
            *({"version": 0}, {"exchange": "pigeon"}, {"key": "$.a"}, {"since": "yesterday"}, {"maximum": 1}),
            *({"retry": {"attempts": 0}}, {"retry": {"tries": 1}}, {"retry": 3}, {"key": None, "exchange": 7}),
        ):
            assert (await client.ask("take", body, status=400))["code"] == "bad-argument", body
        for body in (
            *({"done": "x"}, {"done": [1]}, {"later": [{"token": "x", "after": -1}]}, {"later": [{"after": 1}]}),
            *({"later": [{"token": "x", "after": 1e300}]}, {"finished": []}, {"reject": [["x"]]}, {"renew": None}),
        ):
            assert (await client.ask("settle", body, status=400))["code"] == "bad-argument", body
        assert (await client.http.get("/v1/purposes")).json() == {"purposes": []}


@on_loop
async def test_a_take_states_what_a_version_does_that_is_first_seen(host: Host) -> None:
    async with serving(host) as client:
        await client.begin(1)
        for version, rollout in ((2, "hold"), (3, 0.25)):
            assert await client.take(version=version, rollout=rollout) == []
        answer = await client.http.get(f"/v1/topics/orders/purposes/{quote(PURPOSE, safe='')}/rollout")
        found = {each["version"]: each["state"] for each in answer.json()["versions"]}
        assert found == {1: "current", 2: "held", 3: "ramping 25 %"}
        (event,) = await client.take()
        assert event["data"] == 1
