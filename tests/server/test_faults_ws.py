"""What becomes of clients and their events when the way to the server, the server, or they themselves fail."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import apsw
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from leaping import leap
from sampling import some
from solarwind import Event, NotAllowed, Retry, SolarWind, StoreError, Unavailable, wire
from solarwind.engine.local import LocalEngine
from solarwind.logs import limited
from solarwind.server import Server, Settings
from solarwind.server.access import Listen, create_token, read_tokens
from solarwind.server.listener import Listener
from solarwind.store.sqlite import SqliteStore
from solarwind.testing.contract import a_while, on_loop, until
from store.faultyvfs import Disk

from .place import ROOT, Host
from .serving import Life, Serving, Way

HEARTBEAT_S = 2.0
EVENTS = 2_000  # of 5 ms each: more than are handled while somebody does not look
AGAIN = Retry(attempts=1_000_000, wait=0.0)
WELCOME = wire.encode([wire.Welcome("pretender", 15.0, 1 << 20, 1 << 20, 4_096, 1 << 20)])
Start = Callable[..., tuple[int, str]]
Open = Callable[[], AbstractAsyncContextManager[tuple[Way, Serving]]]


def collect(wind: SolarWind, purpose: str = "p", topic: str = "T", **options: object) -> list[object]:
    """Join, and give the list that grows with what comes."""
    seen: list[object] = []

    @wind.on(topic, purpose=purpose, retry=AGAIN, **options)  # type: ignore[arg-type]
    async def handle(event: Event) -> None:
        seen.append(event.payload)

    return seen


async def fired(wind: SolarWind, topic: str = "T") -> int:
    """Return how many events of a topic are stored."""
    topics = (await wind.statistics()).topics
    return topics[topic].fired if topic in topics else 0


# --- a connection that is half there ----------------------------------------------------------------------------


@pytest.fixture(params=["by itself", "mounted"])
def start(request: pytest.FixtureRequest, host: Host) -> Iterator[Start]:
    """Starts a server on `memory://` or a file: gives its port and the path to it. `host` stops it."""
    ports = []

    def start(url: str = "memory://", port: int = 0, **settings: object) -> tuple[int, str]:
        mounted = request.param == "mounted"
        port = host.mount("starlette", url, port, **settings) if mounted else host.start(url, port, **settings)
        ports.append(port)
        return port, ROOT if mounted else ""

    yield start
    host.drop(ports[-1])


@on_loop
async def test_a_half_open_connection_is_noticed_by_both_within_two_heartbeats(start: Start) -> None:
    """The server hands its events to another, and the client comes again by itself."""
    port, path = start(heartbeat_s=HEARTBEAT_S)
    begun: list[int] = []
    gate = asyncio.Event()
    async with Way(port) as way:
        cut_off, other = SolarWind(way.url + path), SolarWind(f"ws://127.0.0.1:{port}{path}")

        @cut_off.on("T", purpose="p", concurrency=1, retry=AGAIN)
        async def hold(number: int) -> None:
            begun.append(number)
            await gate.wait()

        async with cut_off, other:
            await other.fire_many("T", range(3))
            await until(lambda: begun)
            seen = collect(other)
            await other.joined()
            way.cut()
            await until(lambda: way.connections >= 2, "the client to come again")
            # The client that is back may get the event that its handler is still at: it gives it back at once.
            await until(lambda: len(seen) == 3, "the other to get its events")
            await until(lambda: way.hung_up >= 1, "the server to let go of the connection")
            assert sorted(seen) == [0, 1, 2]  # type: ignore[type-var]
            gate.set()
            again = lambda: other.fire("T", 3)  # noqa: E731
            await until(lambda: len(begun) > 1, "the client to handle again", meanwhile=again)


@on_loop
async def test_a_server_that_stands_still_is_left_and_found_again(serving: Callable[..., Serving]) -> None:
    """What was fired meanwhile is accepted once."""
    server = serving("--heartbeat-s", 1.0)
    await server.start()
    wind = SolarWind(server.url)
    seen = collect(wind)
    async with wind:
        await wind.fire("T", 0)
        server.send(signal.SIGSTOP)
        receipts = wind.fire_many("T", range(1, 10))
        await until(lambda: wind.engine._link is None, "the client to notice")  # type: ignore[attr-defined]
        server.send(signal.SIGCONT)
        await receipts
        await wind.settled(60)
        assert await fired(wind) == 10
    assert sorted(seen) == list(range(10))  # type: ignore[type-var]


# --- a client that stands still ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "heartbeat_s", some([60.0], [60.0, HEARTBEAT_S]), ids=["its lease ends", "its connection ends"]
)
@on_loop
async def test_a_stopped_client_loses_its_events_and_its_late_settle(
    heartbeat_s: float, serving: Callable[..., Serving], live: Callable[..., Life]
) -> None:
    """It counts for nothing, what it fired included; and the client works on."""
    server = serving("--heartbeat-s", heartbeat_s)
    await server.start()
    stopped = live("dawdle", server.url, "stopped", 1.5 * HEARTBEAT_S if heartbeat_s > HEARTBEAT_S else 60.0)
    other = SolarWind(server.url)
    async with other:
        await until(lambda: _instances(other, 1), "it to join")
        await other.fire("T", 1)
        await stopped.notes("begun 1")
        stopped.send(signal.SIGSTOP)

        @other.on("T", purpose="p", retry=AGAIN)
        async def instead(number: int) -> None:
            other.fire("child", ["other", number])

        await until(lambda: _settled(other, 1), "another to get its event")
        await other.off(instead)
        stopped.tell("go on")
        stopped.send(signal.SIGCONT)
        await stopped.notes("ended 1")
        await until(lambda: "does not count" in stopped.errors, "its settle to be refused")
        await other.fire("T", 2)
        await stopped.notes("begun 2")
        stopped.tell("go on")
        await until(lambda: _settled(other, 2), "it to handle again")
        children = collect(other, topic="child", since="beginning")
        await other.settled(60)
        assert sorted(children) == [["other", 1], ["stopped", 2]]  # type: ignore[type-var]
    await stopped.end()


@pytest.mark.long
@pytest.mark.parametrize(
    "heartbeat_s", some([HEARTBEAT_S], [60.0, HEARTBEAT_S]), ids=["its lease ends", "its connection ends"]
)
@on_loop
async def test_a_client_that_stood_still_begins_nothing_that_is_anothers_by_now(
    heartbeat_s: float, serving: Callable[..., Serving], live: Callable[..., Life]
) -> None:
    server = serving("--heartbeat-s", heartbeat_s)
    await server.start()
    stopped = live("steady", server.url, "stopped", 1.5 * HEARTBEAT_S if heartbeat_s > HEARTBEAT_S else 60.0)
    other = SolarWind(server.url)
    async with other:
        await until(lambda: _instances(other, 1), "it to join")
        await other.fire_many("T", range(EVENTS))
        await until(lambda: len(stopped.lines) > 30, "it to be at work")
        stopped.send(signal.SIGSTOP)
        since = monotonic()
        seen: list[object] = []

        @other.on("T", purpose="p", retry=AGAIN)
        async def instead(event: Event) -> None:
            seen.append(event.payload)

        await until(lambda: _settled(other, EVENTS), "another to get its events")
        await until(lambda: monotonic() > since + 3 * HEARTBEAT_S, "its own clock to say so, however late it was told")
        await other.off(instead)
        before = len(stopped.lines)
        await other.fire("T", "once more")
        stopped.send(signal.SIGCONT)
        await stopped.notes("once more")
        late = [line for line in stopped.lines[before:] if line != "once more"]
        assert len(late) <= 1, "what it was at when it was stopped may be written only now"
        assert seen
    await stopped.end()


@pytest.mark.long
@on_loop
async def test_with_keyed_no_process_is_at_two_of_a_key_though_the_server_is_killed(
    serving: Callable[..., Serving], live: Callable[..., Life]
) -> None:
    server = serving()
    await server.start()
    at_work = live("keyed", server.url, "at work")
    wind = SolarWind(server.url)
    async with wind:
        await until(lambda: _instances(wind, 2), "it to join")
        await wind.fire_many("T", range(120), key=lambda number: f"key {number % 6}")
        for kills in range(1, 3):
            await until(lambda kills=kills: len(at_work.lines) > kills * 50, "it to be at work")
            await server.end(signal.SIGKILL)
            await server.start()
        await until(lambda: {f"ended {number}" for number in range(120)} <= {*at_work.lines}, "all to be handled")
    assert not [line for line in at_work.lines if line.startswith("overlap")]
    await at_work.end()


async def _instances(wind: SolarWind, count: int) -> bool:
    return await _statistics(wind, "instances") == count


async def _settled(wind: SolarWind, count: int) -> bool:
    return await _statistics(wind, "settled") == count


async def _statistics(wind: SolarWind, name: str) -> object:
    """Return the purpose's statistics; None where there is none, or while the connection is made anew after a
    standstill."""
    with suppress(Unavailable):
        return getattr((await wind.statistics()).purposes.get(("T", "p")), name, None)
    return None


@on_loop
async def test_each_death_of_a_worker_counts_and_what_kills_it_is_dead_after_its_attempts(
    serving: Callable[..., Serving], live: Callable[..., Life]
) -> None:
    """Those beside it are handled."""
    server = serving()
    await server.start()
    wind = SolarWind(server.url)
    lives: list[Life] = []

    async def is_over() -> bool:
        found = (await wind.statistics()).purposes.get(("T", "p"))
        if found is not None and (found.settled, found.dead) == (5, 1):
            return True
        if len(lives) < 10 and (not lives or not lives[-1].alive):
            lives.append(live("die", server.url, f"life {len(lives)}"))
        return False

    async with wind:
        await wind.fire_many("T", ["a", "b", "poison", "c", "d", "e"])
        await until(is_over, "all to be handled or dead")
        (letter,) = await wind.dead("T", "p")
    attempts = [int(line.split()[1]) for each in lives for line in each.lines if line.startswith("poison")]
    assert (attempts, letter.attempts, letter.event.payload) == ([1, 2, 3], 3, "poison")


# --- a server that stops, or dies -----------------------------------------------------------------------------------


@on_loop
async def test_a_server_that_stops_is_no_fault_of_the_events_in_hand(start: Start, host: Host, tmp_path: Path) -> None:
    """They come again as if never tried; what their handlers made of them meanwhile counts for nothing."""
    store = f"sqlite:///{tmp_path}/wind.db"
    port, path = start(store)
    gate = asyncio.Event()
    begun: list[tuple[int, int]] = []
    wind = SolarWind(f"ws://127.0.0.1:{port}{path}")

    @wind.on("T", purpose="p", concurrency=1)
    async def handle(number: int, event: Event) -> None:
        begun.append((number, event.attempt))
        await gate.wait()
        wind.fire("child", number)

    async with wind:
        await wind.fire("T", 1)
        await until(lambda: begun)
        await asyncio.to_thread(host.stop, port)
        gate.set()
        start(store, port)
        await wind.settled(60)
        assert begun == [(1, 1), (1, 1)]
        assert await fired(wind, "child") == 1


@on_loop
async def test_a_batch_is_stored_once_though_the_server_is_killed_before_it_answers(
    serving: Callable[..., Serving],
) -> None:
    """The producer sends it again with the same numbers, and it is stored once."""
    server = serving("--heartbeat-s", 1.0)
    await server.start()
    async with Way(server.port) as way, SolarWind(way.url) as producer:
        async with SolarWind(server.url) as other:
            await producer.fire("T", 0)
            way.cut(back_only=True)
            receipts = producer.fire_many("T", range(1, 100))

            async def is_stored() -> bool:
                return await fired(other) == 100

            await until(is_stored, "it to be accepted")
        await server.end(signal.SIGKILL)
        await server.start()
        assert len((await receipts).ids) == 99
        async with SolarWind(server.url) as other:
            assert await fired(other) == 100
            seen = collect(other, since="beginning")
            await other.settled(60)
        assert sorted(seen) == list(range(100))  # type: ignore[type-var]


@asynccontextmanager
async def served(store: SqliteStore, port: int = 0, **settings: Any) -> AsyncIterator[Listener]:
    """Yield a server in this process."""
    wind = SolarWind(engine=LocalEngine(store))
    await wind.start()
    server = Server(wind, settings=Settings(**settings))
    listener = Listener(server, port=port, grace=5)
    await server.start()
    await listener.start()
    try:
        yield listener
    finally:
        listener.close()
        await server.stop()
        await listener.stop()
        await wind.stop()


@on_loop
async def test_a_store_that_fails_is_not_the_end_of_anybody_s_work(tmp_path: Path) -> None:
    """Its server's clients wait for the one after it, with all their instances and what is not accepted."""
    path = str(tmp_path / "wind.db")
    with Disk() as disk:
        async with served(SqliteStore(path, vfs=disk.name)) as listener:
            port = listener.port
            producer, service = SolarWind(f"ws://127.0.0.1:{port}"), SolarWind(f"ws://127.0.0.1:{port}")
            seen = collect(service)
            await producer.start()
            await service.start()
            await producer.fire("T", 0)
            await until(lambda: seen == [0])
            disk.fault = lambda kind, path: apsw.SQLITE_IOERR if kind == "sync" else 0
            receipt = producer.fire("T", 1)
            await until(lambda: producer.engine._link is None, "the failure")  # type: ignore[attr-defined]
            disk.fault = lambda kind, path: 0
    async with served(SqliteStore(path), port):
        await receipt
        await until(lambda: 1 in seen)
        await producer.fire("T", 2)
        await until(lambda: seen[-1] == 2)
        assert await fired(producer) == 3
        await producer.stop()
        await service.stop()


@on_loop
async def test_a_full_disk_is_an_answer(tmp_path: Path) -> None:
    """Not the end of the connection: what is fired is refused at once, and goes through when there is room."""
    with Disk() as disk:
        async with served(SqliteStore(str(tmp_path / "wind.db"), vfs=disk.name)) as listener:
            async with SolarWind(f"ws://127.0.0.1:{listener.port}") as wind:
                await wind.fire("T", 0)
                disk.quota = 0
                with pytest.raises(StoreError):
                    await wind.fire("T", "x" * 100_000)
                disk.quota = None
                await wind.fire("T", 1)
                assert await fired(wind) == 2


@on_loop
async def test_a_disk_that_takes_longer_than_heartbeats_ends_no_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server reads nothing more from a producer that is far ahead of it, its pings neither; both know better than
    to take the other for gone."""
    heartbeat_s, gate = 20.0, threading.Event()
    gate.set()

    def hang(kind: str, path: str) -> int:
        if kind == "sync":
            gate.wait()
        return 0

    with Disk() as disk:
        store = SqliteStore(str(tmp_path / "wind.db"), vfs=disk.name)
        async with served(store, heartbeat_s=heartbeat_s) as listener:
            async with SolarWind(f"ws://127.0.0.1:{listener.port}") as wind:
                await wind.fire("T", 0)
                disk.fault = hang
                gate.clear()
                try:
                    receipts = wind.fire_many("T", ["x" * 100_000] * 120)
                    for _ in range(12):
                        leap(heartbeat_s / 4)
                        await a_while()
                finally:
                    gate.set()
                await receipts
                assert await fired(wind) == 121
    assert caplog.text == ""


# --- coming again -----------------------------------------------------------------------------------------------


@pytest.fixture
def way_and_server(serving: Callable[..., Serving]) -> Open:
    """A server, and a way to it."""

    @asynccontextmanager
    async def open_() -> AsyncIterator[tuple[Way, Serving]]:
        server = serving()
        await server.start()
        async with Way(server.port) as way:
            yield way, server

    return open_


@on_loop
async def test_who_joins_or_leaves_while_the_server_is_away_has_done_so_when_it_is_back(way_and_server: Open) -> None:
    """Who joined is there when it is back, who left is not, and who gave up joining neither."""
    async with way_and_server() as (way, server), SolarWind(server.url) as other:
        wind = SolarWind(way.url)
        leaving = collect(wind, "leaving")
        staying = collect(wind, "staying")
        async with wind:
            way.shut()
            await until(lambda: way.connections > 1, "the client to notice")
            joining = collect(wind, "joining")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wind.joined(), 0.05)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wind.listen("T", "given up").open(), 0.05)
            await wind.off(next(each for each in wind._registrations if each.join.purpose == "leaving").function)
            with pytest.raises(Unavailable):
                await wind.statistics()
            way.reopen()
            await wind.joined()
            instances = {info.purpose: info.statistics.instances for info in await other.purposes("T")}
            assert instances == {"leaving": 0, "staying": 1, "joining": 1}
            await wind.fire("T", 1)
            await wind.settled(60)
        assert (leaving, staying, joining) == ([], [1], [1])


@on_loop
async def test_a_client_stops_while_the_server_is_away(way_and_server: Open) -> None:
    """It does not wait for one that joins, and says what was not accepted."""
    async with way_and_server() as (way, _):
        wind = SolarWind(way.url, grace=0.1)
        collect(wind)
        await wind.start()
        way.shut()
        await until(lambda: way.connections > 1, "the client to notice")
        collect(wind, "joining")
        receipt = wind.fire("T", 1)
        await asyncio.wait_for(wind.stop(), 60)
        with pytest.raises(Unavailable):
            await receipt
        with pytest.raises(Unavailable):
            wind.fire("T", 2)


@on_loop
async def test_an_instance_that_may_not_join_again_does_not_end_the_others(
    way_and_server: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """While it was away its purpose was retired, and another made of that name that contradicts it."""
    async with way_and_server() as (way, server), SolarWind(server.url) as other:
        wind = SolarWind(way.url)
        first, second = collect(wind, "first"), collect(wind, "second")
        async with wind:
            stream = await wind.listen("T", "first").open()
            way.shut()
            await until(lambda: way.connections > 1, "the client to notice")

            async def is_gone() -> bool:
                return (await other.statistics()).purposes["T", "first"].instances == 0

            await until(is_gone, "the server to notice")
            await other.retire("T", "first")
            instead = collect(other, "first", exchange="fanout")
            await other.joined()
            way.reopen()
            with pytest.raises(Unavailable, match="'direct'"):
                await anext(stream)
            await until(lambda: "'first' on 'T' gets nothing more" in caplog.text)
            await wind.fire("T", 1)
            await until(lambda: second == [1], "the others to go on")
            await until(lambda: instead == [1])
        assert first == []


@on_loop
async def test_an_instance_still_busy_with_events_it_lost_hoards_nothing(way_and_server: Open) -> None:
    """It came back with its hands full, of which the server knows nothing."""
    async with way_and_server() as (way, server), SolarWind(server.url) as other:
        wind = SolarWind(way.url, grace=0.0)
        begun: list[int] = []
        end = asyncio.Event()

        @wind.on("T", purpose="p", concurrency=1)
        async def handle(number: int) -> None:
            begun.append(number)
            await end.wait()

        async def is_in_hand() -> bool:
            return (await other.statistics()).purposes["T", "p"].in_flight > 0

        async with wind:
            await other.fire("T", 1)
            await until(lambda: begun == [1])
            way.shut()
            await until(lambda: way.connections > 1, "the client to notice")
            way.reopen()
            await until(is_in_hand, "it to be handed out again")
            seen = collect(other)
            await other.joined()
            await other.fire("T", 2)
            await until(lambda: sorted(map(str, seen)) == ["1", "2"], "another to handle both")
            assert begun == [1]
            end.set()


@on_loop
async def test_a_proxy_that_does_not_find_the_server_is_asked_again(way_and_server: Open) -> None:
    async with way_and_server() as (way, _):
        wind = SolarWind(way.url)
        seen = collect(wind)
        async with wind:
            way.shut(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngone")
            receipt = wind.fire("T", 1)
            await until(lambda: way.connections > 3, "the client to come again and again")
            with pytest.raises(Unavailable, match="502: gone"):
                await SolarWind(way.url).start()
            way.reopen()
            await receipt
            await until(lambda: seen == [1])


@pytest.mark.long
@on_loop
async def test_an_outage_is_one_line_of_each_kind_and_the_number_of_tries(
    way_and_server: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "solarwind")
    async with way_and_server() as (way, _):
        async with SolarWind(way.url):
            way.shut()
            tried = way.connections
            await until(lambda: way.connections >= tried + 4)
            way.reopen()
            await until(lambda: "is back" in caplog.text)
        said = [record.getMessage().partition(" at ws:")[0] for record in caplog.records]
        assert said.count("lost the server") == said.count("the server") == 1, caplog.text
        assert 1 <= said.count("no server") <= 2, caplog.text


@on_loop
async def test_another_program_is_not_asked_again(way_and_server: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Where the server was there is something else now: that is for somebody to look at."""
    async with way_and_server() as (way, _):
        wind = SolarWind(way.url)
        collect(wind)
        await wind.start()
        way.shut(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await until(lambda: wind.failed.done())
        assert "got HTTP 200: hello" in str(wind.failed.exception())
        await wind.stop()


class Pretender:
    """A server that answers joins, if it is told to, and lets go; or it hangs up right behind its answer."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.hangs_up = False
        self.joined: list[list[str]] = []  # the purposes, by connection
        self._sockets: list[ServerConnection] = []

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Yield its URL."""
        options = {"subprotocols": [Subprotocol(wire.SUBPROTOCOL)], "compression": None}
        async with serve(self._talk, "127.0.0.1", 0, **options) as server:  # type: ignore[arg-type]
            yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"

    async def hang_up(self) -> None:
        await self._sockets[-1].close(1012)

    async def _talk(self, socket: ServerConnection) -> None:
        self._sockets.append(socket)
        self.joined.append([])
        with suppress(ConnectionClosed):
            async for data in socket:
                assert isinstance(data, bytes)
                for message in wire.read_client(data):
                    await self._answer(socket, message)

    async def _answer(self, socket: ServerConnection, message: wire.FromClient) -> None:
        if isinstance(message, wire.Hello):
            await socket.send(WELCOME)
        elif isinstance(message, wire.Join):
            self.joined[-1].append(wire.read_join(message.join).purpose)
            await self.answers.wait()
            await socket.send(wire.encode([wire.Done(message.ref)]))
            if self.hangs_up:
                self.hangs_up = False
                await socket.close(1012)
        elif isinstance(message, wire.Leave):
            await socket.send(wire.encode([wire.Done(message.ref)]))


@on_loop
async def test_a_goodbye_right_behind_the_handshake_is_not_waited_for() -> None:
    """As from a server that was just about to stop."""

    async def hang_up(socket: ServerConnection) -> None:
        await socket.close(1012, "it stops")

    async with serve(hang_up, "127.0.0.1", 0, subprotocols=[Subprotocol(wire.SUBPROTOCOL)]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        for _ in range(10):
            with pytest.raises(Unavailable, match="it stops"):
                await SolarWind(f"ws://127.0.0.1:{port}").start()


@on_loop
async def test_a_goodbye_that_gives_a_code_alone_is_told_in_a_sentence() -> None:
    """As from a server that gives a client a moment for its `hello`."""

    async def hang_up(socket: ServerConnection) -> None:
        await socket.close(1002, "protocol")

    said = "expected a server at hand, but the server closed the connection, with the reason 'protocol': try again"
    async with serve(hang_up, "127.0.0.1", 0, subprotocols=[Subprotocol(wire.SUBPROTOCOL)]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(Unavailable) as refused:
            await SolarWind(f"ws://127.0.0.1:{port}").start()
    assert str(refused.value) == said


@on_loop
async def test_a_goodbye_right_behind_the_welcome_is_not_taken_for_a_start() -> None:
    """The client would wait for ever on a connection that is not there."""

    async def hang_up(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(WELCOME)
        await socket.close(1012, "it stops")

    async with serve(hang_up, "127.0.0.1", 0, subprotocols=[Subprotocol(wire.SUBPROTOCOL)]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        for _ in range(10):
            with pytest.raises(Unavailable, match="it stops"):
                await SolarWind(f"ws://127.0.0.1:{port}").start()


@on_loop
async def test_a_goodbye_right_behind_the_last_answer_is_noticed() -> None:
    """The client comes again, and does not take itself for connected."""
    server = Pretender()
    async with server.serve() as url:
        wind = SolarWind(url, grace=0)
        collect(wind)
        await wind.start()
        for number in range(1, 6):
            server.hangs_up = True
            await server.hang_up()
            await until(lambda number=number: len(server.joined) == 1 + 2 * number)  # type: ignore[misc]
            await until(lambda: server.joined[-1])
        await asyncio.wait_for(wind.stop(), 60)


@on_loop
async def test_one_that_joins_while_the_others_join_again_is_not_forgotten() -> None:
    server = Pretender()
    async with server.serve() as url:
        wind = SolarWind(url, grace=0)
        collect(wind, "first")
        await wind.start()
        server.answers.clear()
        await server.hang_up()
        await until(lambda: server.joined[1:] == [["first"]])
        collect(wind, "second")
        await asyncio.sleep(0)
        server.answers.set()
        await asyncio.wait_for(wind.joined(), 60)
        assert server.joined[1:] == [["first", "second"]]
        await asyncio.wait_for(wind.stop(), 60)


@pytest.mark.long
@on_loop
async def test_rights_that_are_withdrawn_end_what_they_allowed(
    tmp_path: Path, serving: Callable[..., Serving], caplog: pytest.LogCaptureFixture
) -> None:
    """At once, not when the connection is made anew; and nothing else ends."""
    tokens = tmp_path / "tokens"
    both = (Listen("T", "first"), Listen("T", "second"))
    text, token = create_token(str(tokens), "service", fire=("T",), listen=both)
    server = serving("--tokens", tokens)
    await server.start()
    wind = SolarWind(server.url, token=text)
    first, second = collect(wind, "first"), collect(wind, "second")
    async with wind:
        await wind.fire("T", 0)
        await until(lambda: (first, second) == ([0], [0]))
        assert token in read_tokens(str(tokens))
        tokens.write_text(tokens.read_text().replace('"first"', '"another"'))
        await until(lambda: "'first' on 'T' gets nothing more" in caplog.text)
        await wind.fire("T", 1)
        await until(lambda: second == [0, 1])
        await server.end()
        await server.start()
        await wind.fire("T", 2)
        await until(lambda: list(dict.fromkeys(second)) == [0, 1, 2])  # what was not settled before the end comes again
        collect(wind, "first")
        with pytest.raises(NotAllowed):
            await wind.joined()
    assert first == [0]


# --- its end ----------------------------------------------------------------------------------------------------


def is_away(wind: SolarWind) -> bool:
    try:
        wind.engine.check()
    except Unavailable:
        return True
    return False


@pytest.mark.long
@pytest.mark.parametrize("number", some([signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]))
@on_loop
async def test_a_stop_with_clients_takes_no_longer_than_they_need_to_answer(
    number: signal.Signals, serving: Callable[..., Serving], caplog: pytest.LogCaptureFixture
) -> None:
    """It waits for none of its times: not for its grace, nor its clients for theirs."""
    server = serving("--grace", 600)
    await server.start()
    winds = [SolarWind(server.url, grace=600) for _ in range(20)]
    for wind in winds:
        collect(wind)
        await wind.start()
    limited.flush()
    caplog.clear()
    assert await server.end(number) == 0
    assert server.complaints() == ""
    await until(lambda: all(map(is_away, winds)), "all clients to have lost the server")
    limited.flush()
    first, last = [record.message for record in caplog.records if record.message.startswith("lost the server")]
    assert ("the server stops" in first, "the server stops" in last) == (True, True)
    assert f"(the last of {len(winds) - 1} more like it" in last
    await server.start()
    await winds[0].fire("T")
    async with asyncio.timeout(60):
        await asyncio.gather(*(wind.stop() for wind in winds))
    caplog.set_level(logging.WARNING)
