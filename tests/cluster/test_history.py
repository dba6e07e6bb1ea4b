"""History, and what is remembered of it, while one owner follows another: nothing is lost, doubled or mixed up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from solarwind import Event, NotFound, Reject, Retry, SolarWind, TooLarge
from solarwind.cluster import letters, log, noted, positions, store
from solarwind.cluster.channel import Channel
from solarwind.cluster.session import Session
from solarwind.testing import FakeClock
from solarwind.testing.contract import on_loop, until

from .place import NatsPlace
from .processes import one_of_each, process
from .servers import NatsServer, ask, connected

Own = Callable[..., Any]


@pytest.fixture
def place(server: NatsServer) -> Iterator[NatsPlace]:
    made = NatsPlace(server, streams=1)
    yield made
    made.close()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else is done once in many commits or messages is done all the time."""
    monkeypatch.setattr(positions, "NOTE_MESSAGES", 7)
    monkeypatch.setattr(positions, "NOTES_TOGETHER", 3)
    monkeypatch.setattr(store, "NOTES_TOGETHER", 3)
    monkeypatch.setattr(store, "CHECKPOINT_BYTES", 10_000)
    monkeypatch.setattr(positions, "READ_MESSAGES", 5)
    monkeypatch.setattr("solarwind.engine.snapshots.SNAPSHOT_AFTER", 24)
    monkeypatch.setattr(log, "SNAPSHOT_AFTER", 24)
    monkeypatch.setattr(log, "PURGE_AFTER", 12)
    monkeypatch.setattr(log, "PAGE", 5)
    monkeypatch.setattr(letters, "LETTERS_BYTES", 1_000)


async def messages(server: NatsServer, stream: str, subject: str = "") -> int:
    """Return how many messages a stream has, of all subjects or of those."""
    async with connected(server.urls) as client:
        state = (await ask(client, f"STREAM.INFO.{stream}", {"subjects_filter": subject or ">"}))["state"]
        return sum((state.get("subjects") or {}).values())


# What is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.long
@on_loop
async def test_what_became_of_events_outlives_its_commits_and_owners_and_goes_with_the_history(
    place: NatsPlace, often: None, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noted, "NOTES_OF", 8)
    monkeypatch.setattr(log, "NOTES_OF", 8)
    ids: list[str] = []
    for version in (1, 2):
        wind = place.open()
        wind.topic("T", keep=3600)

        @wind.on("T", purpose="p", version=version)
        async def handle(number: int) -> None: ...

        async with wind:
            for number in range(20):
                ids.append(await wind.fire("T", number))
                await wind.settled(60)
    subjects = f"solarwind.{place.namespace}.state.0.kept.notes"
    stream = f"SOLARWIND_{place.namespace}_state"
    assert await messages(server, stream, f"{subjects}.0.T") > 0
    async with place.open() as wind:
        for at, id in enumerate(ids):
            (its,) = (await wind.event("T", id)).outcomes
            assert (its.state, its.version, its.attempts) == ("settled", 1 + at // 20, 1)
        await wind.settled(60)
        wind.topic("T", keep=0)

        async def are_gone() -> bool:
            return not await messages(server, stream, f"{subjects}.0.T")

        await until(are_gone)


@pytest.mark.long
@on_loop
async def test_trimming_keeps_what_pends_and_what_is_dead(place: NatsPlace, often: None) -> None:
    """Owner after owner: what is left has its positions, so that every event is found as itself."""
    clock = place.clock()
    rejected: list[int] = []
    for turn in range(4):
        wind = place.open()
        wind.topic("T", keep_bytes=4_000)
        handled: list[int] = []

        @wind.on("T", purpose="p", since="beginning")
        async def handle(number: int, handled: list[int] = handled) -> None:
            handled.append(number)

        @wind.on("T", purpose="q", since="beginning")
        async def reject(number: int) -> None:
            if number % 25 == 11:
                raise Reject(f"not {number}")

        async with wind:
            for number in range(turn * 50, turn * 50 + 50):
                await wind.fire("T", number)
                await wind.settled(60)
            assert handled == [*range(turn * 50, turn * 50 + 50)]
            rejected += [turn * 50 + 11, turn * 50 + 36]
            await trimmed(place, wind, clock, 4_000 + 400 * len(rejected))
            dead = await wind.dead("T", "q")
            assert [(each.event.payload, each.error) for each in dead] == [
                (number, f"not {number}") for number in rejected
            ]
        async with place.open() as wind:
            kept = (await wind.topics())[0].kept
            assert await wind.replay("T", "p") >= kept
        handled.clear()
        wind = place.open()
        wind.on("T", purpose="p")(handle)
        async with wind:
            await wind.settled(60)
            assert len(handled) == kept < 80
            handled.sort()
            assert handled == sorted(set(handled))
            young = [number for number in handled if number not in rejected]
            assert young == [number for number in range(young[0], turn * 50 + 50) if number not in rejected]
            assert set(rejected) <= set(handled)
        assert await messages(place.server, f"SOLARWIND_{place.namespace}_0") == kept
    again: list[int] = []
    wind = place.open()

    @wind.on("T", purpose="q")
    async def redriven(number: int) -> None:
        again.append(number)

    async with wind:
        assert await wind.redrive("T", "q") == len(rejected)
        await wind.settled(60)
        assert sorted(again) == rejected
        await trimmed(place, wind, clock, 4_000)


async def trimmed(place: NatsPlace, wind: SolarWind, clock: FakeClock, maximum: int) -> None:
    """Wait until so many bytes at most are kept of the only topic, and its stream has no message of the others: they
    count as gone before they are deleted."""

    async def fits() -> bool:
        info = (await wind.topics())[0]
        return info.kept_bytes <= maximum and info.kept == await messages(
            place.server, f"SOLARWIND_{place.namespace}_0"
        )

    await until(fits, "history to be trimmed", meanwhile=lambda: clock.advance(2))


@pytest.mark.long
@on_loop
async def test_a_long_backlog_is_read_by_one_owner_after_the_other(
    server: NatsServer, namespace: str, often: None
) -> None:
    """In messages of one event and of many; one owner is killed. Each event is handled once. They have no key, so no
    order is promised: what was given back may be overtaken by what comes behind it."""
    url = server.url(namespace, streams=1)
    async with process(url, topics=["other", "T"], exchange="keyed", hang=True) as first, SolarWind(url) as firing:
        for start in range(0, 3000, 300):
            for number in range(start, start + 50):
                await firing.fire("T", number)
            await firing.fire_many("T", range(start + 50, start + 300))
            await firing.fire("other", start)
        await firing.statistics()
        await first.kill()
        await firing.fire_many("T", range(3000, 3100))
    handled: list[int] = []
    for _ in range(4):
        wind = SolarWind(url, grace=0)
        enough = len(handled) + 700
        stop = asyncio.Event()

        @wind.on("T", purpose="p", exchange="keyed", retry=Retry(attempts=100), concurrency=1)
        async def handle(number: int, stop: asyncio.Event = stop, enough: int = enough) -> None:
            if len(handled) == enough:
                stop.set()
                await asyncio.Event().wait()
            handled.append(number)

        async with wind:
            await stop.wait()
    wind = SolarWind(url)
    wind.on("T", purpose="p", exchange="keyed")(lambda number: handled.append(number))
    async with wind:
        await wind.settled(60)
        assert Counter(handled) == dict.fromkeys(range(3100), 1)
        assert (await wind.statistics()).purposes["T", "p"].settled == 3100


@on_loop
async def test_since_a_time_and_replay_hold_across_owners(server: NatsServer, namespace: str, often: None) -> None:
    url = server.url(namespace, streams=1)
    times: list[datetime] = []
    for turn in range(4):
        async with SolarWind(url) as wind:
            times.append(datetime.now(UTC))
            for number in range(turn * 30, turn * 30 + 10):
                await wind.fire("T", number)
                await wind.fire("U", -number)
            await wind.fire_many("T", range(turn * 30 + 10, turn * 30 + 30))
    seen: dict[str, list[int]] = {}

    def register(wind: SolarWind, purpose: str, since: Any) -> None:
        numbers = seen.setdefault(purpose, [])

        @wind.on("T", purpose=purpose, since=since)
        async def handle(number: int) -> None:
            numbers.append(number)

    wind = SolarWind(url)
    for turn, time in enumerate(times):
        register(wind, f"since {turn}", time)
    register(wind, "all", "beginning")
    async with wind:
        await wind.settled(60)
        assert {name: sorted(numbers) for name, numbers in seen.items()} == {"all": [*range(120)]} | {
            f"since {turn}": [*range(turn * 30, 120)] for turn in range(4)
        }
    for numbers in seen.values():
        numbers.clear()
    async with SolarWind(url) as wind:
        assert await wind.replay("T", "all", since=times[1], until=times[2]) == 30
        assert await wind.replay("T", "since 3", since=times[0], until=times[1]) == 30
    wind = SolarWind(url)
    register(wind, "all", "now")
    register(wind, "since 3", "now")
    async with wind:
        await wind.settled(60)
        assert (sorted(seen["all"]), sorted(seen["since 3"])) == ([*range(30, 60)], [*range(30)])


# Ids -------------------------------------------------------------------------------------------------------------


@on_loop
async def test_an_id_is_accepted_once(server: NatsServer, namespace: str) -> None:
    """By whomever it is fired, at the same moment or after restarts; one that Solar Wind made too."""
    url = server.url(namespace, streams=2)
    topics = one_of_each(2)
    made: list[str] = []
    for _ in range(3):
        winds = [SolarWind(url) for _ in range(3)]
        await asyncio.gather(*(wind.start() for wind in winds))
        receipts = [
            wind.fire(topic, number, id=f"id {number}", key=f"{number}")
            for wind in winds
            for topic in topics
            for number in range(40)
        ]
        for receipt in receipts:
            await receipt
        if not made:
            many = winds[0].fire_many(topics[0], ["made"] * 5)
            await many
            lone = winds[1].fire(topics[1], "made")
            await lone
            made = [*many.ids, lone.id]
        for wind in winds:
            for topic, id in zip([*[topics[0]] * 5, topics[1]], made, strict=True):
                await wind.fire(topic, "again", id=id)
        statistics = await winds[0].statistics()
        assert {topic: counts.fired for topic, counts in statistics.topics.items()} == {topics[0]: 45, topics[1]: 41}
        assert (await winds[1].trace("id 7")).event.key == "7"
        assert (await winds[2].trace(made[3])).event.payload == "made"
        for wind in winds:
            await wind.stop()
    handled: Counter[str] = Counter()
    wind = SolarWind(url)
    for topic in topics:

        @wind.on(topic, purpose="p", since="beginning")
        async def handle(event: Event) -> None:
            handled[event.id] += 1

    async with wind:
        await wind.settled(60)
        assert sorted(handled.values()) == [1] * 6 + [2] * 40


@on_loop
async def test_an_id_is_free_again_when_it_is_not_in_the_history(place: NatsPlace) -> None:
    """Though the stream's de-duplication window is still open."""
    clock = place.clock()
    wind = place.open()
    wind.topic("T", keep=0)
    handled: list[int] = []

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None:
        handled.append(number)

    async with wind:
        for number in range(3):
            await wind.fire("T", number, id="the same")
            await wind.settled(60)
            await trimmed(place, wind, clock, 0)
        assert handled == [0, 1, 2]


# What does not come when it is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["a message is lost on its way", "a node that is behind answers"])
@on_loop
async def test_events_that_a_reading_did_not_bring_are_read_again_and_none_counts_as_gone(
    place: NatsPlace, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async with place.open() as firing:
        for number in range(60):
            await firing.fire("T", number)
    page, last_sequence, faults = Channel.page, Session.last_sequence, []

    async def lossy(channel: Channel, subject: str, data: bytes) -> tuple[str, list[Any]]:
        status, messages = await page(channel, subject, data)
        if len(messages) > 20 and b"next_by_subj" in data:
            faults.append(len(messages))
            if len(faults) % 2:
                messages.pop(10)
        return status, messages

    async def behind(session: Session, stream: str, request: dict[str, Any]) -> list[Any]:
        if request["next_by_subj"].endswith(".T"):
            faults.append(request["seq"])
            if len(faults) % 2:
                return []
        return await read(session, stream, request)

    async def short(session: Session, stream: str) -> int:
        return await last_sequence(session, stream) - 30 * (len(faults) % 2)

    read = Session.page
    handled: list[int] = []
    wind = place.open()

    @wind.on("T", purpose="p", since="beginning")
    async def handle(number: int) -> None:
        handled.append(number)

    if how == "a message is lost on its way":
        monkeypatch.setattr(Channel, "page", lossy)
    else:
        monkeypatch.setattr(Session, "page", behind)
        monkeypatch.setattr(Session, "last_sequence", short)
    async with wind:
        await wind.settled(60)
        assert sorted(handled) == list(range(60))
        assert faults
        assert (await wind.statistics()).purposes["T", "p"].dropped == 0


# Sizes -----------------------------------------------------------------------------------------------------------


@on_loop
async def test_what_is_larger_than_a_nats_message_is_stored_and_handled(own: Own, often: None) -> None:
    """One, many together, fired by producers and by handlers, given ids, as dead letters, through restarts."""
    server = own(NatsServer, max_payload=65536)
    await server.start()
    url = server.url("x", streams=2)
    parents, children = one_of_each(2)
    handled: list[tuple[str, int, int]] = []

    def new() -> SolarWind:
        wind = SolarWind(url)

        @wind.on(parents, purpose="p", since="beginning")
        async def parent(payload: dict[str, Any], event: Event) -> None:
            handled.append((parents, payload["n"], len(payload["text"])))
            for number in range(3):
                wind.fire(children, {"n": payload["n"] * 10 + number, "text": payload["text"]}, key=f"{number}")
            wind.fire_many(children, [{"n": 1000 + payload["n"], "text": "x" * 1000}] * 100)

        @wind.on(children, purpose="q", since="beginning")
        async def child(payload: dict[str, Any]) -> None:
            handled.append((children, payload["n"], len(payload["text"])))
            if payload["n"] == 41:
                raise Reject("y" * 10_000)

        return wind

    size = 200_000
    async with SolarWind(url) as wind:
        await wind.fire(parents, {"n": 0, "text": "x" * size})
        await wind.fire(parents, {"n": 1, "text": "x" * 10})
        await wind.fire_many(parents, [{"n": number, "text": "x" * size} for number in (2, 3)])
        for _ in range(2):
            await wind.fire(parents, {"n": 4, "text": "x" * size}, id="given")
        with pytest.raises(TooLarge):
            await wind.fire(parents, "x" * (1 << 21))
        assert [each.kept for each in await wind.topics()] == [5]
        assert (await wind.trace("given")).event.payload["n"] == 4
    async with new() as wind:
        await wind.settled(60)
        expected = Counter({(parents, number, 10 if number == 1 else size): 1 for number in range(5)})
        expected |= {(children, 10 * n + k, 10 if n == 1 else size): 1 for n in range(5) for k in range(3)}
        expected |= {(children, 1000 + n, 1000): 100 for n in range(5)}
        assert Counter(handled) == expected
        handled.clear()
    async with new() as wind:
        await wind.settled(60)
        assert handled == []
        (dead,) = await wind.dead(children, "q")
        assert (dead.event.payload["n"], len(dead.event.payload["text"])) == (41, size)
        assert dead.error.startswith("yyyy")
        kept = {each.topic: each.kept for each in await wind.topics()}
        assert kept == {parents: 5, children: 515}
        assert await wind.replay(children, "q") == 515
        await wind.settled(60)
        assert len(handled) == 515


# State -----------------------------------------------------------------------------------------------------------


@pytest.mark.long
@on_loop
async def test_state_stays_small_and_right_over_many_commits_and_owners(
    server: NatsServer, namespace: str, often: None
) -> None:
    """Snapshots stand for what was before them; the texts of dead letters are there as long as those are dead."""
    url = server.url(namespace, streams=1)
    fired, dead = 0, list[int]()
    handled: Counter[int] = Counter()

    def new() -> SolarWind:
        wind = SolarWind(url)

        @wind.on("T", purpose="p", retry=Retry(attempts=2, wait=0))
        async def handle(number: int) -> None:
            handled[number] += 1
            if number % 10 == 3:
                raise ValueError(f"never {number} " + "z" * 100)
            wind.fire("child", number)

        @wind.on("child", purpose="q")
        async def child(number: int) -> None:
            handled[-number] += 1

        return wind

    for turn in range(5):
        async with new() as wind:
            for _ in range(80):
                await wind.fire("T", fired)
                await wind.settled(60)
                dead += [fired] if fired % 10 == 3 else []
                fired += 1
            letters = await wind.dead("T", "p")
            assert [each.event.payload for each in letters] == dead
            assert all(f"never {each.event.payload} zzz" in each.error and each.attempts == 2 for each in letters)
            if turn == 2:
                ids = [each.event.id for each in letters[:5]]
                assert await wind.discard("T", "p", ids) == 5
                assert await wind.redrive("T", "p", [each.event.id for each in letters[5:8]]) == 3
                await wind.settled(60)
                dead = [*dead[5:]]
                assert sorted(each.event.payload for each in await wind.dead("T", "p")) == dead
    async with SolarWind(url) as wind:
        found = (await wind.statistics()).purposes
        assert (found["T", "p"].settled, found["T", "p"].dead, found["T", "p"].pending) == (360, len(dead), 0)
        assert (found["child", "q"].settled, found["child", "q"].pending) == (360, 0)
    assert {handled[-number] for number in range(1, 400) if number % 10 != 3} == {1}
    root = f"solarwind.{namespace}.state.0"
    stream = f"SOLARWIND_{namespace}_state"
    assert await messages(server, stream, f"{root}.log.commit") < 150
    assert await messages(server, stream, f"{root}.log.track.>") < 10
    assert await messages(server, stream, f"{root}.log.topic.>") < 10
    assert await messages(server, stream, f"{root}.kept.dead.>") < 100
    async with SolarWind(url) as wind:
        assert await wind.discard("T", "p", None) == len(dead)
    async with new() as wind:
        for number in range(fired, fired + 60):
            await wind.fire("T", number)
            await wind.settled(60)
        assert [each.event.payload for each in await wind.dead("T", "p")] == [
            number for number in range(fired, fired + 60) if number % 10 == 3
        ]


@on_loop
async def test_a_purpose_that_is_retired_and_made_again_begins_anew(
    server: NatsServer, namespace: str, often: None
) -> None:
    """It begins anew, and nothing of the one before comes back with any later owner."""
    url = server.url(namespace, streams=1)
    for turn in range(3):
        wind = SolarWind(url)
        handled: list[int] = []

        @wind.on("T", purpose="p")
        async def handle(number: int, handled: list[int] = handled) -> None:
            handled.append(number)
            if number % 10 == 1:
                raise Reject(f"not {number}")

        async with wind:
            assert (await wind.statistics()).purposes["T", "p"].settled == 0
            assert await wind.dead("T", "p") == []
            for number in range(turn * 40, turn * 40 + 40):
                await wind.fire("T", number)
                await wind.settled(60)
            assert handled == [*range(turn * 40, turn * 40 + 40)]
        async with SolarWind(url) as wind:
            assert len(await wind.dead("T", "p")) == 4
            await wind.fire("T", -1)
            await wind.retire("T", "p", force=True)
        async with SolarWind(url) as wind:
            assert (await wind.statistics()).purposes == {}
            with pytest.raises(NotFound):
                await wind.dead("T", "p")


@on_loop
async def test_what_was_copied_is_not_copied_again(server: NatsServer, namespace: str) -> None:
    """By the next owner, though the copies are gone with their stream, and NATS does not remember them."""
    url = server.url(namespace, streams=2, dedup=1)
    parents, children = one_of_each(2)
    handled: list[int] = []

    def new() -> SolarWind:
        wind = SolarWind(url)

        @wind.on(parents, purpose="p", since="beginning")
        async def parent(number: int) -> None:
            wind.fire(children, number)

        @wind.on(children, purpose="q", since="beginning")
        async def child(number: int) -> None:
            handled.append(number)

        return wind

    async with new() as wind:
        for number in range(20):
            await wind.fire(parents, number)
        await wind.settled(60)
    async with connected(server.urls) as client:
        await ask(client, f"STREAM.DELETE.SOLARWIND_{namespace}_1")
    async with new() as wind:
        await wind.fire(parents, 20)
        await wind.settled(60)
        assert handled == [*range(21)]
