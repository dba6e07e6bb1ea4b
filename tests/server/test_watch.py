"""Viewers of all facts: a snapshot, and what changes; shared, bounded, and ended in time."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import signal
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from sampling import some
from solarwind import Busy, Retry, SolarWind
from solarwind.engine import watch as watching
from solarwind.engine.arguments import PARTS
from solarwind.engine.tasks import Tasks
from solarwind.engine.watch import HIDDEN, Entry, Fact, Filter, TopicFacts, View, Watch
from solarwind.errors import Unavailable
from solarwind.operations import Internal
from solarwind.records import (
    AuditEntry,
    Histogram,
    InstanceInfo,
    PurposeStatistics,
    Statistics,
    TopicStatistics,
    VersionTimes,
)
from solarwind.server import Server, Settings
from solarwind.server.access import create_token
from solarwind.testing.contract import on_loop, until

from .doors import at, check_problem, served
from .peers import bearer, peer, request
from .serving import Serving
from .test_feed import Reader

Facts = dict[str, Any]


def merge(into: Facts, change: Facts) -> None:
    """Apply a merge patch, as RFC 7396 has it."""
    for key, value in change.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
            merge(into[key], value)
        else:
            into[key] = value


class Viewer(Reader):
    """A web page that shows facts."""

    facts: Facts
    id = ""
    snapshots = 0

    async def next(self) -> Facts:
        """Apply the next message, and return it."""
        while True:
            async with asyncio.timeout(120):
                lines = await self.block()
            assert lines, "the stream has ended"
            fields = dict(line.partition(": ")[::2] for line in lines)
            self.id = fields.get("id", self.id)
            if "data" in fields:
                break
        assert "event" not in fields, fields
        change: Facts = json.loads(fields["data"])
        if "snapshot" in change:
            self.facts, self.snapshots = {}, self.snapshots + 1
        merge(self.facts, change)
        return change

    async def whole(self) -> Facts:
        """Return all facts, once the snapshot is whole."""
        while await self.next():
            pass
        return self.facts

    async def until(self, part: str, key: str, **wanted: Any) -> None:
        """Read until a fact has these fields."""
        while {name: self.facts.get(part, {}).get(key, {}).get(name) for name in wanted} != wanted:
            await self.next()


@asynccontextmanager
async def viewer(port: int, headers: dict[str, str] | None = None, **query: Any) -> AsyncIterator[Viewer]:
    async with (
        httpx.AsyncClient(timeout=300) as http,
        http.stream("GET", f"http://127.0.0.1:{port}/v1/watch", params=query, headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Viewer(answer)


@asynccontextmanager
async def place(**options: Any) -> AsyncIterator[tuple[Server, SolarWind, int]]:
    """Yield a server whose ticks are short, its dispatcher, and its port."""
    wind = SolarWind("memory://")
    wind.topic("T", keep=3600)
    server = Server(wind, **options)
    server.host.watch.interval_s = 0.01
    async with wind, served(server) as port:
        yield server, wind, port


def refuse(number: int) -> None:
    raise ValueError(f"no use for {number}")


@on_loop
async def test_a_viewer_gets_all_facts_and_then_what_changes() -> None:
    async with place() as (_server, wind, port), viewer(port) as view:
        wind.on("T", purpose="p", retry=Retry(attempts=1))(refuse)
        await wind.joined()
        facts = await view.whole()
        assert list(facts["snapshot"]["parts"]) == list(PARTS)
        assert facts["server"]["connections"] == {"websockets": 0, "viewers": 1, "feeds": 0}
        assert facts["server"]["limits"]["batch_events"] == 4_096
        async with at(port) as doors:
            assert "\nsolarwind_viewers 1.0\n" in (await doors.http.get("/metrics")).text
        await view.until("purposes", "T/p", state="running", instances=1)
        await wind.fire("T", 7)
        await view.until("purposes", "T/p", dead=1)
        await view.until("topics", "T", fired=1)
        await view.until("attention", "dead letters T/p", urgency="medium")
        (instance,) = view.facts["instances"].values()
        assert (instance["purpose"], instance["error"]) == ("p", "ValueError: no use for 7")
        await wind.discard("T", "p", None)
        await view.until("purposes", "T/p", dead=0)
        await view.until("audit", "2", verb="discard", events=1)
        await until_true(view, lambda: not view.facts["attention"])
        await wind.off(refuse)
        await until_true(view, lambda: not view.facts["instances"])
        assert view.snapshots == 1


async def until_true(view: Viewer, condition: Any) -> None:
    while not condition():
        await view.next()


@pytest.mark.parametrize("kind", [Fact, PurposeStatistics, InstanceInfo, TopicFacts, VersionTimes, Histogram])
def test_what_is_made_anew_for_viewers_each_second_is_no_work_for_the_garbage_collector(kind: type[Any]) -> None:
    """Else a thousand purposes bring about a look at all objects every few seconds, which holds up events."""
    assert not kind.__struct_config__.gc


@pytest.mark.long
@on_loop
async def test_what_a_topic_keeps_goes_with_what_was_fired() -> None:
    """Though it is read now and then."""
    async with place() as (_server, wind, port), viewer(port) as view:
        await view.whole()
        wind.topic("unkept", keep=0)
        for number in (1, 2):
            await wind.fire("T", number)
            await wind.fire("unkept", number)
            await view.until("topics", "T", fired=number, kept=number)
            await view.until("topics", "unkept", fired=number, kept=0)


@on_loop
async def test_a_viewer_gets_only_the_parts_the_topic_and_the_purpose_that_it_wants() -> None:
    async with place() as (_, wind, port):
        for topic in ("T", "U"):
            for purpose in ("p", "q"):
                wind.on(topic, purpose=purpose)(lambda number: None)
        await wind.joined()
        async with viewer(port, parts="purposes,topics", topic="T") as view:
            facts = await view.whole()
            assert (facts["purposes"].keys(), facts["topics"].keys()) == ({"T/p", "T/q"}, {"T"})
            assert facts.keys() == {"snapshot", "purposes", "topics"}
        async with viewer(port, topic="T") as view:
            facts = await view.whole()
            assert facts["topics"].keys() == {"T"}
            assert not facts["server"]
            assert not facts["stores"]
        async with viewer(port, purpose="q") as view:
            facts = await view.whole()
            assert not facts["server"]
            assert not facts["stores"]
            assert (facts["purposes"].keys(), facts["topics"].keys()) == ({"T/q", "U/q"}, {"T", "U"})
            assert {each["purpose"] for each in facts["instances"].values()} == {"q"}
            await wind.fire("U", 1)
            await view.until("purposes", "U/q", settled=1)
            assert "U/p" not in view.facts["purposes"]


@on_loop
async def test_a_viewer_that_comes_back_goes_on_or_begins_anew() -> None:
    async with place() as (server, wind, port), viewer(port, parts="topics") as other:
        await other.whole()
        async with viewer(port, parts="topics") as view:
            await view.whole()
            await wind.fire("T", 1)
            await view.until("topics", "T", fired=1)
            last = view.id
        await wind.fire("T", 2)
        async with viewer(port, {"last-event-id": last}, parts="topics") as view:
            view.facts = {"topics": {"T": {"fired": 1}}}
            await view.until("topics", "T", fired=2)
            assert view.snapshots == 0
        for unknown in ("1", "x", str(int(last) + 1_000), ""):
            async with viewer(port, {"last-event-id": unknown}, parts="topics") as view:
                await view.whole()
                await view.until("topics", "T", fired=2)
        assert len(server.host.watch._views) == 1


@on_loop
async def test_an_id_stands_only_at_the_end_of_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was cut off in the middle is not gone on with."""
    monkeypatch.setattr(watching, "PIECE_BYTES", 1_000)
    async with place() as (_, wind, port):
        for number in range(20):
            wind.on(f"T{number}", purpose="p")(lambda number: None)
        await wind.joined()
        async with viewer(port, {"last-event-id": "7"}, parts="purposes") as view:
            assert "snapshot" in await view.next()
            ids = [view.id]
            while await view.next():
                ids.append(view.id)
            assert len(ids) > 5
            assert set(ids) == {""}
            assert view.id
            assert len(view.facts["purposes"]) == 20


@on_loop
async def test_viewers_who_want_the_same_share_what_is_written_and_without_any_nothing_is_collected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "LINGER_S", 0.0)
    async with place() as (server, wind, port):
        watch = server.host.watch
        assert watch._collecting is None
        async with viewer(port) as one, viewer(port) as two:
            await one.whole()
            await two.whole()
            (view,) = watch._views.values()
            assert view.users == 2
            await wind.fire("T", 1)
            for each in (one, two):
                await each.until("topics", "T", fired=1)
            assert view.log[0].sent is not None
        await until(lambda: watch._collecting is not None and watch._collecting.done(), "the collecting to end")
        assert (watch._views, watch._facts) == ({}, {})
        async with viewer(port) as again:
            assert (await again.whole())["topics"]["T"]["fired"] == 1


@on_loop
async def test_a_viewer_that_is_too_slow_gets_a_snapshot_instead_of_what_it_missed() -> None:
    view = View(Filter(), 5)
    assert view.since(5) is None
    view.floor = 5
    for tick in range(6, 6 + watching.MAX_ENTRIES):
        view.add(Entry(tick, [b"{}"]))
    assert [each.tick for each in view.since(303) or []] == [304, 305]
    assert view.since(305) == []
    assert len(view.since(5) or []) == watching.MAX_ENTRIES
    view.add(Entry(306, [b"{}"]))
    assert view.since(5) is None
    view.add(Entry(307, [bytes(watching.LOG_BYTES)]))
    assert (len(view.log), view.floor) == (1, 306)


@on_loop
async def test_a_viewer_with_a_longer_interval_gets_what_changed_together() -> None:
    tasks = Tasks(lambda _: None)
    fired = 0

    async def answer(name: str, **given: Any) -> Any:
        nonlocal fired
        fired += 1
        gone = {} if fired % 2 else {"G": TopicStatistics(fired)}
        return Statistics({"T": TopicStatistics(fired), **gone}, {}) if name == "statistics" else []

    watch = Watch(answer, lambda: tasks)
    watch.interval_s = 0.0
    wanted = Filter(("topics",), interval=4)
    with watch.view(wanted) as view:
        await watch.snapshot(view)
        ticks: list[int] = []
        while len(ticks) < 3:
            await watch.news(view)
            ticks = [each.tick for each in view.log]
        assert {after - before for before, after in itertools.pairwise(ticks)} == {4}
        for each in view.log:
            (message,) = each.messages
            assert json.loads(message)["topics"]["T"].keys() == {"fired"}
    await tasks.end()


@on_loop
async def test_what_cannot_be_asked_now_stays_as_it_was_until_it_can() -> None:
    tasks, answers = Tasks(lambda _: None), [1]

    async def answer(name: str, **given: Any) -> Any:
        if name != "statistics":
            return []
        if answers[0] < 0:
            raise Unavailable("the owner is gone")
        return Statistics({"T": TopicStatistics(answers[0])}, {})

    watch = Watch(answer, lambda: tasks)
    watch.interval_s = 0.0
    page = await watch.page(Filter(("topics",)), None, 0)
    answers[0] = -1
    assert list(await watch.page(Filter(("topics",)), page.next, 0.01)) == []
    answers[0] = 3
    later = await watch.page(Filter(("topics",)), page.next, 60)
    assert [json.loads(each) for each in later] == [{"topics": {"T": {"fired": 3}}}]
    waiting = asyncio.ensure_future(watch.page(Filter(("topics",)), later.next, 60))
    await asyncio.sleep(0)
    await tasks.end()
    with pytest.raises(Unavailable, match="the dispatcher stops"):
        await waiting


def test_a_rate_has_two_digits_so_that_noise_is_no_change() -> None:
    before, noise, after = (TopicStatistics(7, rate) for rate in (1_230.4, 1_180.0, 1_260.0))
    assert watching.fields_of(before) == {"fired": 7, "fired_per_s": 1_200.0, "delayed": 0, "next_due": None}
    assert watching.fields_of(noise, before) == {}
    assert watching.fields_of(after, before) == {"fired_per_s": 1_300.0}
    assert [watching.fields_of(TopicStatistics(0, rate))["fired_per_s"] for rate in (0.04, 0.123, 9.87)] == [
        0,
        0.1,
        9.9,
    ]


def test_a_change_and_one_after_it_are_one_change() -> None:
    view = View(Filter(), 0)
    for fields in ({"a": 1, "rates": {"fired": 1, "dead": 2}}, {"b": None, "rates": {"fired": 3}}):
        view._put("purposes", "T/p", fields)
    assert view._pending == {"purposes": {"T/p": {"a": 1, "b": None, "rates": {"fired": 3, "dead": 2}}}}
    view._put("purposes", "T/p", None)
    view._put("purposes", "T/p", {"a": 4})
    assert view._pending == {"purposes": {"T/p": {"a": 4}}}


@on_loop
async def test_viewers_and_their_different_wishes_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MAX_VIEWS", 1)
    async with place(settings=Settings(viewers=2)) as (_, _wind, port), at(port) as doors, viewer(port) as one:
        await one.whole()
        await doors.refused(doors.http.get("/v1/watch?interval=2"), 429, "busy", "different wishes")
        async with SolarWind(f"ws://127.0.0.1:{port}") as away:
            with pytest.raises(Busy, match="different wishes"):
                await anext(away.watch(interval=2))
        async with viewer(port, topic="T"):
            await doors.refused(doors.http.get("/v1/watch"), 429, "busy", "at most 2 viewers")


@on_loop
async def test_what_cannot_be_watched_is_refused_in_one_sentence() -> None:
    async with place() as (_, _wind, port), at(port) as doors:
        for query, *words in (
            ("parts=", "parts"),
            ("parts=purposes,nonsense", "parts"),
            ("interval=0", "interval"),
            ("interval=61", "interval"),
            ("interval=x", "interval"),
            ("every=1", "every"),
        ):
            await doors.refused(doors.http.get(f"/v1/watch?{query}"), 400, "bad-argument", "expected", *words)
        await doors.refused(doors.http.get("/v1/watch?topic=a..b"), 400, "bad-name", "a topic")
        answer = await doors.http.request("HEAD", "/v1/watch")
        assert answer.status_code == 405
        assert check_problem(await doors.http.post("/v1/watch"))["code"] == "method-not-allowed"


@on_loop
async def test_a_quiet_stream_has_heartbeats() -> None:
    async with place(settings=Settings(heartbeat_s=0.05)) as (_, _wind, port), viewer(port, parts="audit") as view:
        await view.whole()
        assert await view.block() == [":"]


class GzipViewer(Viewer):
    """One that keeps what came as it came, to check it with all that gzip demands, its trailer too."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(answer)
        self.raw = b""
        self._bytes = self._unpacked()

    async def _unpacked(self) -> AsyncIterator[bytes]:
        gzip_format = zlib.decompressobj(16 + zlib.MAX_WBITS)
        async for data in self.answer.aiter_raw():
            self.raw += data
            yield gzip_format.decompress(data)


@on_loop
async def test_a_viewer_that_accepts_gzip_gets_the_same_compressed_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PIECE_BYTES", 20_000)  # some are compressed in a thread, and others not
    wanted = {"parts": "topics"}
    settings = Settings(heartbeat_s=0.05)
    async with (
        place(settings=settings) as (server, wind, port),
        viewer(port, {"accept-encoding": "identity"}, **wanted) as plain,
        viewer(port, {"accept-encoding": "br, GZIP;q=0.5"}, **wanted) as other,
    ):
        for number in range(300):
            wind.topic(f"T{number}", keep=3600)
            await wind.fire(f"T{number}", 0)
        assert "content-encoding" not in plain.answer.headers
        assert other.answer.headers["content-encoding"] == "gzip"
        assert {each.answer.headers["vary"] for each in (plain, other)} == {"accept-encoding"}
        packed = GzipViewer(other.answer)
        for each in (plain, packed):
            await each.whole()
            await wind.fire("T", 1)
            await each.until("topics", "T299", fired=1)
        for each in (plain, packed):
            await each.until("topics", "T", fired=2)
            while await each.block() != [":"]:
                pass
        assert packed.facts["topics"] == plain.facts["topics"]
        server.leave()
        while await packed.block():
            pass
        text = gzip.decompress(packed.raw)
        assert text.startswith(b"retry: 1000\n\nid\ndata: ")
        assert len(packed.raw) < len(text)


@on_loop
async def test_the_last_words_to_a_viewer_are_compressed_too(tmp_path: Path) -> None:
    path = str(tmp_path / "tokens")
    token, _ = create_token(path, "page", watch=True)
    async with place(tokens=path) as (server, _, port), viewer(port, bearer(token), parts="audit") as other:
        packed = GzipViewer(other.answer)
        await packed.whole()
        for each in server.viewers._open:
            each.end("no more")
        while lines := await packed.block():
            last = lines
        assert last == ["event: closed", 'data: {"detail":"no more"}']
        assert gzip.decompress(packed.raw).endswith(b'"no more"}\n\n')


@pytest.mark.parametrize("header", ["", "identity", "br", "gzip;q=0", "gzip; Q=0.000, br", "xgzip"])
@on_loop
async def test_a_viewer_that_does_not_accept_gzip_gets_text(header: str) -> None:
    async with place() as (_, _wind, port), viewer(port, {"accept-encoding": header}, parts="audit") as view:
        assert "content-encoding" not in view.answer.headers
        await view.whole()


@pytest.mark.parametrize("right", ["watch", "watch_payloads"])
@on_loop
async def test_errors_are_shown_only_with_the_right_to_payloads(tmp_path: Path, right: str) -> None:
    path = str(tmp_path / "tokens")
    token, _ = create_token(path, "page", **{right: True})  # type: ignore[arg-type]
    shown = HIDDEN if right == "watch" else "ValueError: no use for 7"
    async with place(tokens=path) as (_, wind, port):
        wind.on("T", purpose="p", retry=Retry(attempts=1))(refuse)
        async with viewer(port, bearer(token), parts="instances") as view:
            await view.whole()
            await wind.fire("T", 7)
            await until_true(view, lambda: [each.get("error") for each in view.facts["instances"].values()] == [shown])
        async with viewer(port, bearer(token), parts="instances") as view:
            await view.whole()
            await until_true(view, lambda: [each.get("error") for each in view.facts["instances"].values()] == [shown])
        async with SolarWind(f"ws://127.0.0.1:{port}", token=token) as away:
            facts: Facts = {}
            async for change in away.watch(["instances"]):
                merge(facts, change)
                if [each.get("error") for each in facts["instances"].values()] == [shown]:
                    break


@on_loop
async def test_a_stream_ends_when_the_server_stops_also_one_that_is_not_read(tmp_path: Path) -> None:
    async with place() as (server, _wind, port):
        async with viewer(port) as view, peer(port) as deaf:
            await deaf.send(request("GET", "/v1/watch"))
            await view.whole()
            await until(lambda: server.viewers.count == 2, "both are there")
            server.leave()
            while await view.block():
                pass
            await until(lambda: server.viewers.count == 0, "both have ended")


@on_loop
async def test_keys_say_what_they_are_of_and_further_ones_have_a_number() -> None:
    facts = watching.Facts()
    entry = AuditEntry(1, datetime.now(UTC), "ann", "keep", "T", "", "", None)
    for _ in range(3):
        watching._put(facts, "x T/", entry)
    assert list(facts) == ["x T/", "x T/ 2", "x T/ 3"]


def test_a_row_for_watching_takes_parts_as_text_or_as_a_list() -> None:
    for parts in ("purposes,topics", ["topics", "purposes"], ("purposes", "topics", "topics")):
        wanted = Internal.watch.request({"parts": parts})
        assert wanted.arguments["parts"] == ("topics", "purposes")
        packed = msgspec.msgpack.encode(Internal.watch.pack(wanted))
        assert Internal.watch.unpack(Internal.watch.read(msgspec.Raw(packed))) == wanted


@pytest.mark.parametrize("end", some([signal.SIGKILL], [signal.SIGTERM, signal.SIGKILL]))
@on_loop
async def test_who_watches_by_the_protocol_goes_on_with_a_snapshot_once_a_server_is_back(
    tmp_path: Path, end: signal.Signals
) -> None:
    server, facts, snapshots = Serving(tmp_path), Facts(), 0

    async def watch(wind: SolarWind) -> None:
        nonlocal snapshots
        async for change in wind.watch(("topics",)):
            if "snapshot" in change:
                facts.clear()
                snapshots += 1
            merge(facts, change)

    def fired() -> Any:
        return facts.get("topics", {}).get("T", {}).get("fired")

    try:
        await server.start()
        async with SolarWind(server.url) as wind, asyncio.TaskGroup() as tasks:
            viewing = tasks.create_task(watch(wind))
            await wind.fire("T", 1)
            await until(lambda: fired() == 1, "it sees the first event")
            await server.end(end)
            await server.start()
            await wind.fire("T", 2)
            await until(lambda: fired() == 2, "it sees the second event")
            assert snapshots >= 2
            viewing.cancel()
    finally:
        server.kill()
