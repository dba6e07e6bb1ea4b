"""Both ends of `solarwind.v1` without a server or a socket: the contract, and one client that serves another."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from solarwind import BadName, Event, SolarWind, Unavailable, wire
from solarwind.batch import Batch, seal
from solarwind.core.effects import Failure, Join, Offer, Report
from solarwind.core.spans import Spans
from solarwind.engine.base import Engine
from solarwind.engine.local import LocalEngine
from solarwind.engine.request import Request
from solarwind.limits import Limits
from solarwind.logs import limited
from solarwind.operations import OPERATIONS, Operator
from solarwind.peer import riding
from solarwind.peer.client import Client
from solarwind.peer.connection import Connection
from solarwind.peer.host import Rights
from solarwind.peer.time_slices import TimeSlices
from solarwind.service import consumer, runner
from solarwind.store.memory import MemoryStore
from solarwind.testing.clock import FakeClock
from solarwind.testing.contract import EngineContract, LocalPlace, Place, a_while, on_loop, until


class Everything:
    """The right to all."""

    def check_fire(self, topic: str | None) -> None: ...

    def check_listen(self, topic: str, purpose: str) -> None: ...

    def check_watch(self) -> None: ...

    def check_admin(self) -> None: ...


class Settings(msgspec.Struct, frozen=True):
    frame_bytes: int = 8 << 20
    authenticate_s: float = 5.0
    heartbeat_s: float = 15.0
    instances: int = 100
    unanswered: int = 100


class Host:
    """An engine, for anybody in this process."""

    name = "here"
    limits = Limits()
    settings = Settings()
    checks_authors = True

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.slices = TimeSlices()
        self._tasks: set[asyncio.Task[Any]] = set()

    def grant(self, token: str | None, uid: int | None) -> Everything:
        return _EVERYTHING

    async def ask(self, request: Request[Any], rights: Rights, by: str = "") -> Any:
        return await self.engine.ask(msgspec.structs.replace(request, by=by))

    def hold(self, size: int) -> None:
        """Hold a batch: there is no bound here."""

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def disconnected(self, connection: Connection) -> None: ...


_EVERYTHING = Everything()


class Link:
    """A client's end of a connection. What is sent arrives in the next turn of the loop."""

    def __init__(self, host: Host, received: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        self.silent = 0
        self._received, self._lost = received, lost
        self._loop = asyncio.get_running_loop()
        self._over = False
        self._connection = Connection(host, Back(self), None)

    def send(self, data: bytes) -> None:
        self._loop.call_soon(self._connection.received, data)

    def heard(self, data: bytes) -> None:
        if not self._over:
            self.silent = 0
            self._received(data)

    async def close(self) -> None:
        self._over = True
        await asyncio.sleep(0)  # what was sent arrives first
        self._connection.lost()

    def abort(self, why: str) -> None:
        if not self._over:
            self._over = True
            self._loop.call_soon(self._connection.lost)
            self._lost(why)


class Back:
    """The same connection's other end."""

    local = False
    uid = None

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()

    def send(self, data: bytes) -> None:
        self._loop.call_soon(self._link.heard, data)

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        self._loop.call_soon(self._link.abort, reason)

    def abort(self) -> None:
        self._loop.call_soon(self._link.abort, "the connection was given up")

    def authenticated(self) -> None: ...


class Behind(Client):
    """An engine that asks another in this process, which starts and stops with it."""

    link: Link

    def __init__(self, engine: Engine) -> None:
        super().__init__("dispatcher in this process")
        self._engine = engine
        self.connections = 0

    def random(self) -> float:
        return self._engine.random()

    async def _open(self) -> Link:
        self.connections += 1
        self.link = Link(Host(self._engine), self._received, self._lost)
        return self.link

    async def start(self) -> None:
        await self._engine.start()
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self._engine.stop()


class BehindAnother(LocalPlace):
    """A client of a client of an engine."""

    def open(self) -> SolarWind:
        engine = LocalEngine(self._make_store(), **self._options)
        return SolarWind(engine=Behind(Behind(engine)))


class TestAClientOfAClient(EngineContract):
    """What serves an engine does not ask whether that is a client itself."""

    @pytest.fixture
    def place(self) -> Place:
        return BehindAnother(MemoryStore, durable=False)


@on_loop
async def test_what_was_in_hand_when_a_connection_behind_was_lost_does_not_count() -> None:
    """The lease is of an earlier connection; what came by the next one has other numbers, and is settled."""
    middle = Behind(LocalEngine(MemoryStore()))
    wind = SolarWind(engine=Behind(middle))
    begun: list[int] = []
    go_on = asyncio.Event()

    @wind.on("T", purpose="p")
    async def handle(event: Event) -> None:
        begun.append(event.payload)
        await go_on.wait()

    async with wind:
        await wind.fire("T", 0)
        await until(lambda: begun == [0])
        middle.link.abort("somebody cut it")
        await until(lambda: middle.connections == 2)
        await until(lambda: is_up(middle), "everything is as it was")
        go_on.set()
        await wind.fire("T", 1)
        await wind.settled(60)
        assert begun == [0, 0, 1]
        found = (await wind.statistics()).purposes["T", "p"]
        assert (found.settled, found.dead, found.pending + found.in_flight) == (2, 0, 0)


async def is_up(client: Behind) -> bool:
    """Return whether its instances have joined again."""
    try:
        await Operator.topics(client)
    except Unavailable:
        return False
    return True


@pytest.mark.parametrize("exchange", ["direct", "keyed"])
@on_loop
async def test_what_runs_when_the_connection_is_lost_does_not_run_twice_at_a_time(exchange: str) -> None:
    """Nor does the next of its key, in any instance of the process; others begin at once."""
    engine = Behind(LocalEngine(MemoryStore()))
    wind = SolarWind(engine=engine)
    begun: list[int] = []
    attempts: list[int] = []
    running: Counter[str] = Counter()
    most = 0
    gate = asyncio.Event()

    async def handle(event: Event) -> None:
        nonlocal most
        name = event.key if exchange == "keyed" and event.key is not None else event.id
        begun.append(event.payload)
        attempts.append(event.attempt)
        running[name] += 1
        most = max(most, running[name])
        if event.payload != 9:
            await gate.wait()
        running[name] -= 1

    for _ in range(2):
        wind.on("T", purpose="p", exchange=exchange)(handle)
    async with wind:
        await wind.fire_many("T", [0, 1, 2], key=lambda number: "aab"[number])
        at_first = [0, 2] if exchange == "keyed" else [0, 1, 2]
        await until(lambda: sorted(begun) == at_first)
        engine.link.abort("somebody cut it")
        await until(lambda: engine.connections == 2)
        await wind.fire("T", 9, key="c")
        await until(lambda: 9 in begun, "one that nothing is in doubt of to begin")
        assert sorted(begun) == [*at_first, 9]
        gate.set()
        await wind.settled(60)
    assert sorted(begun) == ([0, 0, 1, 2, 2, 9] if exchange == "keyed" else [0, 0, 1, 1, 2, 2, 9])
    assert most == 1
    assert max(attempts) == 2, "the end of a connection is one attempt, however many instances it had"


@on_loop
async def test_tries_to_reach_a_dispatcher_that_is_away_are_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    client = Behind(LocalEngine(MemoryStore()))
    client.place = "dispatcher that is away"
    await client.start()
    tries, genuine = 0, client._open

    async def fail() -> Link:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise Unavailable("away")
        return await genuine()

    client._open = fail  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO, "solarwind"):
        client.link.abort("somebody cut it")
        await until(lambda: client.connections == 2, "it to be reached again")
    assert [record.getMessage() for record in caplog.records if "yet" in record.getMessage()] == [
        "no dispatcher that is away yet: away"
    ]
    await until(lambda: "the dispatcher that is away is back" in caplog.messages, "the line that says so")
    limited.flush()
    assert caplog.messages[-1] == "the dispatcher that is away is back"
    await client.stop()


class Collecting:
    """An instance that does nothing with what it gets."""

    def __init__(self) -> None:
        self.offers: list[Offer] = []

    def told(self, text: str) -> None: ...

    def deliver(self, offer: Offer) -> None:
        self.offers.append(offer)

    def flush(self) -> None: ...

    def lost(self, lease: int | None = None) -> None: ...

    def close(self, reason: str) -> None: ...


@on_loop
async def test_a_lease_of_an_earlier_connection_is_known_by_its_number() -> None:
    client, collecting = Behind(LocalEngine(MemoryStore())), Collecting()
    await client.start()
    instance = await client.join(Join("T", "p"), "now", collecting)
    await client.submit(seal("T", [b"1"], [1], producer=1, author=client.author, first=0, machine="m", process="p"))
    await until(lambda: len(collecting.offers) == 1)
    client.link.abort("somebody cut it")
    await until(lambda: len(collecting.offers) == 2)
    earlier, present = (each.lease for each in collecting.offers)
    assert earlier < present
    done = Spans.of(range(1))
    assert not client.report(Report(instance, earlier, done), [])
    assert not await client.settle(Report(instance, earlier, done))
    assert await client.settle(Report(instance, present, done))
    await client.stop()


@on_loop
async def test_that_an_instance_died_is_passed_on() -> None:
    """By a server that is a client itself."""
    client, collecting = Behind(Behind(LocalEngine(MemoryStore()))), Collecting()
    await client.start()
    join = Join("T", "p")
    instance = await client.join(join, "now", collecting)
    await client.submit(seal("T", [b"1"], [1], producer=1, first=0, machine="m", process="p", author=client.author))
    for died, tried in ((False, {}), (True, {0: 1}), (True, {0: 2})):
        await until(lambda: collecting.offers)
        collecting.offers.clear()
        await client.leave(instance, died=died)
        instance = await client.join(join, "now", collecting)
        await until(lambda: collecting.offers)
        assert collecting.offers[0].tried == tried
    await client.stop()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("purposes", {"topic": "a b"}),
        ("dead", {"topic": "a b", "purpose": "p"}),
        ("redrive", {"topic": "T", "purpose": " p"}),
        ("discard", {"topic": "T", "purpose": "p", "ids": [""]}),
        ("replay", {"topic": "T", "purpose": ""}),
        ("retire", {"topic": "", "purpose": "p"}),
        ("topic", {"topic": "T."}),
        ("trace", {"id": " "}),
    ],
)
@on_loop
async def test_a_bad_name_in_a_call_is_refused_as_one_whoever_sends_it(name: str, arguments: dict[str, Any]) -> None:
    client, operation = Behind(LocalEngine(MemoryStore())), OPERATIONS[name]
    await client.start()
    with pytest.raises(BadName, match="expected a"):
        await client._call(Request(operation, operation.defaults | arguments))
    await client.stop()


def test_neither_end_of_a_connection_needs_the_extra() -> None:
    """Whoever brings a link of his own needs no WebSocket."""
    names = "{'websockets', 'starlette', 'uvicorn'}"
    look = f"import sys, solarwind.peer.client, solarwind.peer.connection; assert not {names} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", look], check=True)


@on_loop
async def test_many_clients_that_fall_silent_are_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    limited.flush()
    engine = LocalEngine(MemoryStore())
    await engine.start()
    answers: list[bytes] = []
    links = [Link(Host(engine), answers.append, lambda why: None) for _ in range(20)]
    for link in links:
        link.send(wire.encode([wire.Hello("test")]))
    await until(lambda: len(answers) == 20, "all are welcome")
    for link in links:
        link._connection.check(asyncio.get_running_loop().time() + 100)
    assert not any(link._connection.open for link in links)
    assert [record.message for record in caplog.records if "was silent" in record.message] == [
        "a client was silent for two heartbeats, of 15 s: it is taken for gone"
    ]
    await engine.stop()


class FarLink(Link):
    """A link on which each message takes `FAR_S`, by the clock of a test."""

    clock: FakeClock

    def send(self, data: bytes) -> None:
        self._later(lambda: self._connection.received(data))

    def heard(self, data: bytes) -> None:
        self._later(lambda: super(FarLink, self).heard(data))

    def _later(self, arrive: Callable[[], None]) -> None:
        self.clock.call_at(self.clock.now() + int(FAR_S * 1e9), arrive)


class FarAway(Behind):
    """A client whose dispatcher is at the other end of such a link."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(LocalEngine(MemoryStore()))
        self.service_clock = self._clock = clock

    async def _open(self) -> Link:
        self.link = link = FarLink(Host(self._engine), self._received, self._lost)
        link.clock = self._clock
        return link


FAR_S, LEASE_S = 3.0, 10.0


@on_loop
async def test_an_event_is_not_begun_when_the_lease_that_began_as_it_was_sent_over_a_slow_link_may_be_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, stood_s = FakeClock(), 0.0
    for module in (consumer, runner):
        monkeypatch.setattr(module, "monotonic", lambda: clock.now() / 1e9 + stood_s)
    wind = SolarWind(engine=FarAway(clock))
    begun: list[int] = []

    @wind.on("T", purpose="p", lease=LEASE_S)
    async def handle(event: Event) -> None:
        nonlocal stood_s
        begun.append(event.payload)
        if len(begun) == 1:
            stood_s = LEASE_S - FAR_S + 0.5  # the process stands still until half a second behind the lease's end

    async def passes(condition: Callable[[], object]) -> None:
        while not condition():
            await a_while()
            clock.advance(FAR_S)

    async def done(work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        await passes(task.done)
        await task

    await done(wind.start())
    await done(wind.fire_many("T", [0, 1]))
    await passes(lambda: begun)
    await a_while()
    assert begun == [0]
    await passes(lambda: begun == [0, 1])
    await done(wind.stop())


# --- settles that ride -------------------------------------------------------------------------------------------


class Settling:
    """A client with events in hand, of which it reports one after the other, and the messages that it sends."""

    def __init__(self, exchange: str = "direct") -> None:
        self.engine = LocalEngine(MemoryStore())
        self.client = Behind(self.engine)
        self.frames: list[list[wire.Message]] = []
        self._exchange = exchange
        self._offers = Collecting()

    async def start(self, events: int) -> None:
        await self.client.start()
        join = Join("T", "p", self._exchange, room=events)
        self.instance = await self.client.join(join, "now", self._offers)
        for number in range(events):
            await self.client.submit(
                seal("T", [b"1"], [1], producer=1, author=self.client.author, first=number, machine="m", process="p")
            )
        await until(lambda: len(self._offers.offers) == events)
        send = self.client.link.send
        self.client.link.send = lambda data: (self.frames.append(wire.read_client(data)), send(data))  # type: ignore

    def report(self, *fired: Batch, **more: Any) -> None:
        """Report that the next event is done, and what its handler fired."""
        offer = self._offers.offers.pop(0)
        report = Report(self.instance, offer.lease, Spans.of(offer.picks), handled=1)
        assert self.client.report(msgspec.structs.replace(report, **more), fired)

    async def settled(self) -> int:
        """Return how many events are settled, asked without a message of the client."""
        return (await Operator.statistics(self.engine)).purposes["T", "p"].settled


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def long_ride(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(riding, "RIDE_S", 3600.0)


@pytest.mark.usefixtures("long_ride")
@on_loop
async def test_a_settle_is_sent_at_once_and_those_that_follow_closely_go_with_the_next_message() -> None:
    one = Settling()
    await one.start(3)
    one.report()
    await turns()
    assert [len(each) for each in one.frames] == [1], "the first is sent at once"
    one.report()
    one.report()
    await turns()
    assert len(one.frames) == 1, "the next ones wait"
    one.client.alive(one.instance)
    await turns()
    assert [type(each) for each in one.frames[1]] == [wire.Report, wire.Report, wire.Alive]
    assert await one.settled() == 3
    await one.client.stop()


@on_loop
async def test_a_settle_that_rides_is_sent_though_nothing_else_is_sent() -> None:
    one = Settling()
    await one.start(20)
    for _ in range(20):
        one.report()
        await turns()
    await until(lambda: _has_settled(one, 20))
    assert {type(message) for frame in one.frames for message in frame} == {wire.Report}
    await one.client.stop()


async def _has_settled(one: Settling, events: int) -> bool:
    return await one.settled() == events


@pytest.mark.usefixtures("long_ride")
@on_loop
async def test_a_client_that_stops_sends_the_settles_that_ride() -> None:
    one = Settling()
    await one.start(3)
    for _ in range(3):
        one.report()
    await turns()
    assert len(one.frames) == 1
    await one.client.stop()
    reports = [message for frame in one.frames for message in frame if isinstance(message, wire.Report)]
    assert len(reports) == 3


@pytest.mark.usefixtures("long_ride")
@pytest.mark.parametrize(
    "more",
    [
        {"failed": [Failure(1, "retry", "no")], "done": Spans()},
        {"returned": Spans.of([1]), "done": Spans()},
        {"busy_ns": 3_600_000_000_001},
    ],
)
@on_loop
async def test_what_says_more_than_that_quick_events_are_done_does_not_ride(more: dict[str, Any]) -> None:
    one = Settling()
    await one.start(2)
    one.report()
    await turns()
    one.report(**more)
    await turns()
    assert len(one.frames) == 2
    await one.client.stop()


@pytest.mark.usefixtures("long_ride")
@on_loop
async def test_a_settle_does_not_ride_whose_handler_fired_something() -> None:
    one = Settling()
    await one.start(2)
    one.report()
    await turns()
    one.report(seal("T", [b"1"], [1], producer=2, author=one.client.author, first=0, machine="m", process="p"))
    await turns()
    assert [type(each) for each in one.frames[1]] == [wire.Hold, wire.Report]
    await one.client.stop()


@pytest.mark.usefixtures("long_ride")
@on_loop
async def test_settles_of_a_keyed_purpose_do_not_ride_since_the_next_event_of_their_key_waits() -> None:
    one = Settling("keyed")
    await one.start(2)
    for _ in range(2):
        one.report()
        await turns()
    assert len(one.frames) == 2
    await one.client.stop()
