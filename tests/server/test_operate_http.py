"""What operators ask and do by HTTP, at a real server in another process: the same as by Python."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import quote

import httpx
import msgspec
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from solarwind import Event, SolarWind, StoreError
from solarwind.batch import seal
from solarwind.engine.local import LocalEngine
from solarwind.records import DeadLetter, InstanceInfo, PurposeInfo, PurposeRates, RateHistory, TopicInfo
from solarwind.server import Server
from solarwind.store.delays import MemoryDueLog
from solarwind.store.memory import MemoryStore
from solarwind.testing.contract import on_loop, until

from .doors import NDJSON, Doors, at, check_problem, served
from .place import Host


@pytest.fixture(scope="module")
def port(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = host.start(f"sqlite:///{tmp_path_factory.mktemp('store')}/wind.db", ids=1_000)
    yield port
    host.stop(port)


@asynccontextmanager
async def both(port: int) -> AsyncIterator[tuple[Doors, SolarWind]]:
    """Yield the HTTP endpoints, and a `SolarWind` over a WebSocket."""
    async with at(port) as doors, SolarWind(f"ws://127.0.0.1:{port}") as wind:
        yield doors, wind


# How everything stands -----------------------------------------------------------------------------------


def record(info: PurposeInfo) -> dict[str, Any]:
    counts = info.statistics
    return {
        "topic": info.topic,
        "purpose": info.purpose,
        "exchange": counts.exchange,
        "versions": list(counts.versions),
        "instances": counts.instances,
        "pending": counts.pending,
        "in_flight": counts.in_flight,
        "settled": counts.settled,
        "retried": counts.retried,
        "dead": counts.dead,
        "dropped": counts.dropped,
        "expired": counts.expired,
        "key_missing": counts.key_missing,
        "times": msgspec.json.decode(msgspec.json.encode(counts.times)),
        "state": counts.state,
        "oldest": counts.oldest.isoformat().replace("+00:00", "Z") if counts.oldest else None,
        "version_states": list(counts.version_states),
        "delay": counts.delay,
        "delayed": counts.delayed,
        "delayed_until": None,
        "rate": None,
        "at_most": None,
        "limited": False,
        "version_joined": msgspec.json.decode(msgspec.json.encode(counts.version_joined)),
    }


def without_rates(said: dict[str, Any]) -> dict[str, Any]:
    """Return what was said of a purpose, but for its rates, which are others a second later."""
    rates = msgspec.convert(said["rates"], PurposeRates)
    assert min(rates.fired, rates.settled, rates.retried, rates.dead) >= 0
    return {name: value for name, value in said.items() if name != "rates"}


@on_loop
async def test_statistics_and_purposes_are_those_of_python(port: int) -> None:
    async with both(port) as (doors, wind):
        await doors.take("one")
        await doors.take("two/ü", exchange="keyed", version=3)
        await doors.fire(b"1\n2\n3", NDJSON)
        events = await doors.take("one", max=2)
        await doors.settle(events[:1], purpose="one")
        found = await wind.purposes(doors.topic)
        assert [each.statistics.settled for each in found] == [1, 0]
        said = (await doors.ask("GET", "/v1/purposes", topic=doors.topic))["purposes"]
        assert [without_rates(each) for each in said] == [record(x) for x in found]
        for each in found:
            assert without_rates(await doors.ask("GET", doors.purpose(each.purpose))) == record(each)
            rates = msgspec.convert(await doors.ask("GET", f"{doors.purpose(each.purpose)}/rates"), RateHistory)
            assert sum(rates.minutes.settled) == each.statistics.settled
            assert sum(rates.minutes.fired) == 3
        everything = await wind.statistics()
        said = await doors.ask("GET", "/v1/statistics")
        fired = {name: each.fired for name, each in everything.topics.items()}
        assert {name: each["fired"] for name, each in said["topics"].items()} == fired
        assert fired[doors.topic] == 3
        all_purposes = [record(PurposeInfo(*names, counts)) for names, counts in everything.purposes.items()]
        assert sorted(map(without_rates, said["purposes"]), key=str) == sorted(all_purposes, key=str)


@on_loop
async def test_instances_are_those_of_python(port: int) -> None:
    async with both(port) as (doors, wind):
        await doors.take("one")
        await doors.take("two/ü", version=3)
        await doors.fire(b"1\n2", NDJSON)
        await doors.take("one", max=2)
        await doors.take("two/ü", max=1, version=3)
        found = await wind.instances(doors.topic)
        assert [(each.purpose, each.version, each.in_hand) for each in found] == [("one", 1, 2), ("two/ü", 3, 1)]
        said = await doors.ask("GET", "/v1/instances", topic=doors.topic)
        assert msgspec.convert(said["instances"], list[InstanceInfo]) == found
        everybody = (await doors.ask("GET", "/v1/instances"))["instances"]
        assert [each for each in everybody if each["topic"] == doors.topic] == said["instances"]


def topic_record(info: TopicInfo) -> dict[str, Any]:
    found = {name: getattr(info, name) for name in info.__struct_fields__}
    return {**found, "purposes": list(info.purposes)}


@on_loop
async def test_topics_are_those_of_python(port: int) -> None:
    async with both(port) as (doors, wind):
        await doors.take("p")
        await doors.fire(b"1\n2", NDJSON)
        (found,) = [each for each in await wind.topics() if each.topic == doors.topic]
        assert (found.fired, found.kept, found.purposes) == (2, 2, ("p",))
        path = f"/v1/topics/{doors.topic}"
        assert await doors.ask("GET", path) == topic_record(found)
        assert topic_record(found) in (await doors.ask("GET", "/v1/topics"))["topics"]


@on_loop
async def test_how_much_history_a_topic_keeps_can_be_set(port: int) -> None:
    async with both(port) as (doors, wind):
        path = f"/v1/topics/{doors.topic}"
        await doors.ask("GET", path, status=404)
        assert (await doors.ask("PUT", path, {}))["keep"] == 7 * 86_400
        assert (await doors.ask("PUT", path, {"keep": 0.5, "keep_bytes": 1_000}))["keep"] == 0.5
        said = await doors.ask("PUT", path, {"keep_bytes": None})
        assert (said["keep"], said["keep_bytes"]) == (0.5, None)
        said = await doors.ask("PUT", path, {"keep": None, "keep_bytes": 2e3})
        assert (said["keep"], said["keep_bytes"]) == (7 * 86_400, 2_000)
        assert await doors.ask("PUT", path, {"keep": 3_600}) == await doors.ask("GET", path)
        (found,) = [each for each in await wind.topics() if each.topic == doors.topic]
        assert (found.keep, found.keep_bytes) == (3_600.0, 2_000)


@pytest.mark.parametrize(
    "body", [{"keep": -1}, {"keep": 1e30}, {"keep": "7d"}, {"keep_bytes": 1.5}, {"keep_bytes": -1}, {"kept": 1}, [], 1]
)
@on_loop
async def test_what_is_no_setting_of_a_topic_is_refused(port: int, body: Any) -> None:
    async with at(port) as doors:
        code = "bad-argument" if isinstance(body, dict) else "bad-payload"
        assert (await doors.ask("PUT", f"/v1/topics/{doors.topic}", body, 400))["code"] == code
        await doors.ask("GET", f"/v1/topics/{doors.topic}", status=404)


# Dead letters --------------------------------------------------------------------------------------------


async def bury(doors: Doors, count: int) -> list[str]:
    """Make so many dead letters of the purpose `p`, and return their ids."""
    await doors.take("p")
    ids = await doors.fire("\n".join(map(str, range(count))), NDJSON)
    while events := await doors.take("p", max=1_000):
        body = {"reject": [{"token": event["token"], "reason": f"no {event['data']}"} for event in events]}
        await doors.ask("POST", f"{doors.purpose('p')}/settle", body)
    return ids


def letter(of: DeadLetter) -> tuple[Any, ...]:
    return of.event.id, of.event.payload, of.error, of.attempts, of.time, of.version


def said(of: dict[str, Any]) -> tuple[Any, ...]:
    its = of["event"]["id"], of["event"]["data"], of["error"], of["attempts"]
    return *its, datetime.fromisoformat(of["time"]), of["version"]


@on_loop
async def test_dead_letters_are_those_of_python(port: int) -> None:
    async with both(port) as (doors, wind):
        ids = await bury(doors, 3)
        found = await doors.ask("GET", f"{doors.purpose('p')}/dead")
        assert found["next"] is None
        assert [said(each) for each in found["dead"]] == [letter(each) for each in await wind.dead(doors.topic, "p")]
        assert [said(each)[:4] for each in found["dead"]] == [(id, n, f"no {n}", 1) for n, id in enumerate(ids)]
        assert {each["event"]["type"] for each in found["dead"]} == {doors.topic}


@on_loop
async def test_dead_letters_come_in_pages(port: int) -> None:
    async with at(port) as doors:
        ids = await bury(doors, 25)
        dead = f"{doors.purpose('p')}/dead"
        pages = []
        page: dict[str, Any] = {"next": "0"}
        more: dict[str, Any] = {}
        while page["next"] is not None:
            page = await doors.ask("GET", dead, limit=10, **more)
            pages.append([each["event"]["id"] for each in page["dead"]])
            more = {"after": page["next"]}
        assert pages == [ids[:10], ids[10:20], ids[20:]]
        for after in ("x", "", "-1", "9" * 20):
            assert (await doors.ask("GET", dead, status=400, after=after))["code"] == "bad-argument"
        for limit in ("0", "10001", "x", "1.5", ""):
            assert (await doors.ask("GET", dead, status=400, limit=limit))["code"] == "bad-argument"
        await doors.ask("GET", f"{doors.purpose('another')}/dead", status=404)


@on_loop
async def test_a_page_of_large_letters_is_a_short_one(port: int) -> None:
    async with at(port) as doors:
        await doors.take("p")
        for _ in range(10):
            await doors.fire(b'"%b"' % (b"x" * 1_000_000))
        while events := await doors.take("p", max=10):
            await doors.settle(events, "reject", "p")
        page = await doors.ask("GET", f"{doors.purpose('p')}/dead")
        assert len(page["dead"]) == 8
        rest = await doors.ask("GET", f"{doors.purpose('p')}/dead", after=page["next"])
        assert (len(rest["dead"]), rest["next"]) == (2, None)


@on_loop
async def test_dead_letters_are_redriven_and_discarded(port: int) -> None:
    async with both(port) as (doors, wind):
        ids = await bury(doors, 6)
        dead = f"{doors.purpose('p')}/dead"
        assert await doors.ask("POST", f"{dead}/discard", {"ids": [ids[0], ids[3]]}) == {"discarded": 2}
        assert await doors.ask("POST", f"{dead}/redrive", {"ids": [ids[1]]}) == {"redriven": 1}
        assert [each.event.id for each in await wind.dead(doors.topic, "p")] == [ids[2], ids[4], ids[5]]
        assert [event["id"] for event in await doors.take("p", max=10)] == [ids[1]]
        problem = await doors.ask("POST", f"{dead}/discard", {"ids": [ids[2], "never there"]}, 404)
        assert (problem["code"], "'never there'" in problem["detail"]) == ("not-found", True)
        assert len(await wind.dead(doors.topic, "p")) == 3
        assert await doors.ask("POST", f"{dead}/redrive", {"all": True}) == {"redriven": 3}
        assert await doors.ask("POST", f"{dead}/discard", {"all": True, "ids": None}) == {"discarded": 0}
        assert await wind.dead(doors.topic, "p") == []


@pytest.mark.parametrize("body", [None, {}, {"all": False}, {"ids": []}, {"ids": ["x"], "all": True}])
@on_loop
async def test_which_dead_letters_are_meant_must_be_said(port: int, body: Any) -> None:
    async with at(port) as doors:
        await bury(doors, 1)
        for doing in ("redrive", "discard"):
            problem = await doors.ask("POST", f"{doors.purpose('p')}/dead/{doing}", body, 400)
            assert "either ids of dead letters" in problem["detail"]
        for body, status in (({"ids": [""]}, 400), ({"ids": ["x"] * 1_001}, 413), ({"ids": "x"}, 400)):
            await doors.ask("POST", f"{doors.purpose('p')}/dead/discard", body, status)


# Replay, retire, trace -----------------------------------------------------------------------------------


@on_loop
async def test_history_is_replayed(port: int) -> None:
    async with at(port) as doors:
        replay = f"{doors.purpose('p')}/replay"
        await doors.ask("POST", replay, status=404)
        await doors.take("p")
        await doors.fire(b"1\n2", NDJSON)
        (_, last) = first = await doors.take("p", max=10)
        await doors.settle(first, purpose="p")
        assert await doors.ask("POST", replay) == {"replayed": 2}
        again = await doors.take("p", max=10)
        assert [event["id"] for event in again] == [event["id"] for event in first]
        await doors.settle(again, purpose="p")
        for body, count in (
            ({"since": "now"}, 0),
            ({"since": "0s"}, 0),
            ({"since": "1h", "until": "1970-01-01T00:00:00Z"}, 0),
            ({"since": last["time"], "until": "2262-01-01T00:00:00.5+01:00"}, 2),
        ):
            assert await doors.ask("POST", replay, body) == {"replayed": count}
        for since in ("yesterday", "2h ago", "2026-02-30T00:00:00Z", "2026-01-01", "-1s", ""):
            problem = await doors.ask("POST", replay, {"since": since}, 400)
            assert "expected since now, beginning, a time" in problem["detail"]


@on_loop
async def test_a_fanout_is_not_replayed(port: int) -> None:
    async with both(port) as (doors, wind):

        @wind.on(doors.topic, purpose="page", exchange="fanout")
        def show() -> None: ...

        await wind.joined()
        problem = await doors.ask("POST", f"{doors.purpose('page')}/replay", status=403)
        assert problem["code"] == "not-allowed"


@on_loop
async def test_a_purpose_is_retired_by_force_if_something_is_left(port: int) -> None:
    async with at(port) as doors:
        await doors.take("p")
        await doors.fire(b"1")
        assert (await doors.ask("DELETE", doors.purpose("p"), status=409))["code"] == "conflict"
        await doors.ask("DELETE", doors.purpose("p"), status=400, force="maybe")
        await doors.ask("DELETE", doors.purpose("p"), status=409, force="false")
        assert await doors.ask("DELETE", doors.purpose("p"), status=204, force="true") is None
        for method in ("GET", "DELETE"):
            assert (await doors.ask(method, doors.purpose("p"), status=404))["code"] == "not-found"


@on_loop
async def test_a_topic_s_history_comes_in_pages_of_cloudevents(port: int) -> None:
    async with both(port) as (doors, wind):
        ids = await doors.fire(b"1", key="a") + await doors.fire(b"2", key="b") + await doors.fire(b"3", key="a")
        path = f"/v1/topics/{doors.topic}/events"
        first = await doors.ask("GET", path, limit="2")
        second = await doors.ask("GET", path, limit="2", after=first["next"])
        assert [[event["id"] for event in page["events"]] for page in (first, second)] == [ids[:2], ids[2:]]
        assert (second["next"], second["events"][0]["data"], second["events"][0]["partitionkey"]) == (None, 3, "a")
        assert [event["data"] for event in (await doors.ask("GET", path, key="a"))["events"]] == [1, 3]
        assert (await doors.ask("GET", path, since="now"))["events"] == []
        assert [event.id for event in await wind.events(doors.topic)] == ids
        end = await doors.ask("GET", path, since="now", tail="true")
        ids += await doors.fire(b"4")
        assert [event["id"] for event in (await doors.ask("GET", path, after=end["next"]))["events"]] == ids[3:]
        for query in ({"after": "x"}, {"since": "yesterday"}, {"limit": "0"}):
            await doors.ask("GET", path, status=400, **query)
        await doors.ask("GET", "/v1/topics/never.used/events", status=404)


@on_loop
async def test_a_trace_is_what_an_event_caused_each_after_its_cause(port: int) -> None:
    async with both(port) as (doors, wind):
        topic = doors.topic

        @wind.on(topic, purpose="p")
        def spread(event: Event) -> None:
            for child in range(2 if event.payload else 0):
                wind.fire(topic, event.payload - 1, id=f"{event.id}.{child}")

        await wind.joined()
        (id,) = await doors.fire(b"2", id=f"root {topic}/ü")

        async def whole() -> bool:
            counts = await doors.ask("GET", doors.purpose("p"))
            return bool(counts["settled"] == 7)

        await until(whole, "the whole tree")
        events = (await doors.ask("GET", f"/v1/trace/{quote(id, safe='')}"))["events"]
        below = {name: f"{id}.{name}" for name in ("0", "0.0", "0.1", "1", "1.0", "1.1")}
        assert [event["id"] for event in events] == [id, *below.values()]
        assert [event.get("causationid") for event in events[1:]] == [each[:-2] for each in below.values()]
        assert {event["correlationid"] for event in events} == {id}
        tree = await wind.trace(id)
        assert [each.event.id for each in tree.caused] == [below["0"], below["1"]]
        one = await doors.ask("GET", f"/v1/topics/{topic}/events/{quote(id, safe='')}")
        assert (one["event"]["id"], one["position"]) == (id, 0)
        assert [(each["purpose"], each["state"], each["attempts"]) for each in one["outcomes"]] == [("p", "settled", 1)]
        assert one["outcomes"] == (await doors.ask("GET", f"/v1/trace/{quote(id, safe='')}"))["outcomes"][0]
        await doors.ask("GET", f"/v1/topics/{topic}/events/never-there", status=404)
        await doors.ask("GET", "/v1/trace/never-there", status=404)
        await doors.ask("GET", "/v1/trace/%20", status=400)


# Watching ------------------------------------------------------------------------------------------------


@on_loop
async def test_healthz_and_readyz_answer_200_while_it_runs(port: int) -> None:
    async with at(port) as doors:
        assert await doors.ask("GET", "/healthz") == {"status": "alive"}
        assert await doors.ask("GET", "/readyz") == {"status": "ready"}


class Failing(MemoryStore):
    broken = False

    async def commit(self, batches: Any, changes: Any, snapshots: Any, now: int, *more: Any) -> Any:
        if self.broken:
            raise StoreError("expected a disk, got none any more: start again on another")
        return await super().commit(batches, changes, snapshots, now, *more)


@on_loop
async def test_after_its_store_failed_it_lives_and_is_not_ready() -> None:
    store = Failing()
    async with SolarWind(engine=LocalEngine(store)) as wind, served(Server(wind)) as port, at(port) as doors:
        await doors.take("p")
        store.broken = True
        await doors.refused(doors.send(b"1"), 503, "store", "got none any more")
        answer = await doors.http.get("/readyz")
        assert answer.headers["retry-after"] == "1"
        assert check_problem(answer)["code"] == "store"
        assert await doors.ask("GET", "/healthz") == {"status": "alive"}
        await doors.refused(doors.http.get("/v1/statistics"), 503, "store", "got none any more")
        store.broken = False


@on_loop
async def test_while_delayed_events_cannot_enter_their_topics_it_takes_events_and_is_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(due_log: MemoryDueLog, now: int) -> NoReturn:
        raise StoreError("no answer")

    monkeypatch.setattr(MemoryDueLog, "release", fail)
    engine = LocalEngine(MemoryStore())
    async with SolarWind(engine=engine) as wind, served(Server(wind)) as port, at(port) as doors:
        assert await doors.ask("GET", "/readyz") == {"status": "ready"}
        now = time.time_ns()
        await engine.submit(seal("T", [b"1"], [now], producer=1, first=1, machine="m", process="p", due=[now]))
        await until(lambda: engine._commits.due.failing, "it to be tried")
        await doors.refused(doors.http.get("/readyz"), 503, "store", "expected delayed events to enter their topics")
        await doors.fire(b"2")


async def there(doors: Doors) -> bool:
    answer = await doors.http.get(doors.purpose("p"))
    return answer.status_code == 200 and answer.json()["instances"] == 1


@on_loop
async def test_while_it_does_not_run_it_lives_and_is_not_ready() -> None:
    """Before it was started, and while it stops: a mounted app is reached then too."""
    server = Server("memory://")
    transport = httpx.ASGITransport(server)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        doors = Doors(http, 0, "")

        async def look(state: str) -> None:
            assert await doors.ask("GET", "/healthz") == {"status": "alive"}
            for work in (http.get("/readyz"), doors.send(b"1"), http.get("/v1/topics"), http.get("/metrics")):
                await doors.refused(work, 503, "unavailable", f"expected a server that runs, got one {state}")

        await look("that was not started: enter its lifespan")
        await server.start()
        assert await doors.ask("GET", "/readyz") == {"status": "ready"}
        waiting = asyncio.ensure_future(doors.take("p", wait=30))
        await until(lambda: there(doors), "somebody to wait")
        stopping = asyncio.ensure_future(server.stop())
        await until(lambda: not server.running, "it to stop")
        await look("that stops: try again")
        await stopping
        assert await waiting == []
        await look("that stops: try again")


Metrics = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def metrics(doors: Doors) -> Metrics:
    """Return each number by its name and labels."""
    text = (await doors.http.get("/metrics")).text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def number(found: Metrics, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0)


@on_loop
async def test_metrics_are_numbers_that_prometheus_reads(port: int) -> None:
    async with both(port) as (doors, _):
        labels = {"topic": doors.topic, "purpose": 'say "hi"\\ to\u00fc'}
        purpose = labels["purpose"]
        await doors.take(purpose)
        await doors.fire(b"1\n2\n3\n4", NDJSON)
        events = await doors.take(purpose, max=3)
        await doors.settle(events[:1], purpose=purpose)
        await doors.settle(events[1:2], "reject", purpose)
        await doors.settle(events[2:], "later", purpose)
        found = await metrics(doors)
        assert number(found, "solarwind_events_fired_total", topic=doors.topic) == 4
        counts = await doors.ask("GET", doors.purpose(purpose))
        assert (counts["settled"], counts["dead"], counts["pending"]) == (1, 1, 2)
        for name in ("instances", "pending", "in_flight", "dead"):
            assert number(found, f"solarwind_purpose_{name}", **labels) == counts[name]
        for name in ("settled", "retried", "expired", "dropped", "key_missing"):
            assert number(found, f"solarwind_purpose_{name}_total", **labels) == counts[name]
        for state in ("running", "paused", "nobody up", "failing"):
            assert number(found, "solarwind_purpose_state", **labels, state=state) == (state == counts["state"])
        for name, events_count in (("handler", 3), ("settle", 1)):
            name = f"solarwind_purpose_{name}_seconds"
            assert number(found, f"{name}_count", **labels, version="1") == events_count
            assert number(found, f"{name}_bucket", **labels, version="1", le="+Inf") == events_count
        oldest = number(found, "solarwind_purpose_oldest_pending_seconds", **labels)
        assert 0 < oldest <= (datetime.now(UTC) - datetime.fromisoformat(counts["oldest"])).total_seconds()
        assert number(found, "solarwind_connections") >= 1
        assert number(found, "solarwind_viewers") == number(found, "solarwind_feeds") == 0
        assert number(found, "process_resident_memory_bytes") > 1 << 20


@on_loop
async def test_requests_are_counted_by_the_paths_that_there_are_not_those_that_are_asked_for(port: int) -> None:
    async with at(port) as doors:
        before = await metrics(doors)
        await doors.fire(b"1")
        await doors.send(b"x")
        await doors.http.get("/nowhere")
        await doors.http.request("BREW", "/healthz")
        after = await metrics(doors)
        for method, path, status in (
            ("POST", "/v1/topics/{topic}/events", "202"),
            ("POST", "/v1/topics/{topic}/events", "400"),
            ("other", "", "404"),
            ("other", "/healthz", "405"),
        ):
            labels = {"method": method, "path": path, "status": status}
            name = "solarwind_http_requests_total"
            assert number(after, name, **labels) - number(before, name, **labels) == 1
        paths = {dict(labels).get("path", "") for _, labels in after}
        assert not any(doors.topic in path for path in paths)


@on_loop
async def test_metrics_come_as_openmetrics_to_who_asks_for_that(port: int) -> None:
    async with at(port) as doors:
        await doors.fire(json.dumps("x"))
        answer = await doors.http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        families = openmetrics.text_string_to_metric_families(answer.text)
        (fired,) = [family for family in families if family.name == "solarwind_events_fired"]
        assert doors.topic in [sample.labels["topic"] for sample in fired.samples]
