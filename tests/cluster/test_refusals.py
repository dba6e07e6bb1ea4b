"""What is wrong with servers, streams and messages is said once, in one sentence; and what can go on goes on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Any

import pytest
from nats.aio.msg import Msg

from ports import Port
from solarwind import BadArgument, ConflictError, NotAllowed, SolarWind, StoreError, Unavailable
from solarwind.cluster import engine, owner, session, tail
from solarwind.cluster.channel import Channel
from solarwind.cluster.delayed import StreamDueLog
from solarwind.cluster.engine import NatsEngine
from solarwind.cluster.session import Session
from solarwind.engine import tasks
from solarwind.testing.contract import on_loop, until
from store.test_copying import batch

from .processes import one_of_each, process
from .servers import NatsCluster, NatsServer, ask, connected

Own = Callable[..., Any]
MAX_SENT, MAX_SENT_A_SECOND = 1_000, 50  # messages to NATS of a process that waits for it


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The subjects of all messages sent to NATS so far."""
    subjects: list[str] = []
    send = Channel._send_one

    async def sending(self: Channel, subject: str, *others: Any) -> None:
        subjects.append(subject)
        await send(self, subject, *others)

    monkeypatch.setattr(Channel, "_send_one", sending)
    return subjects


@on_loop
async def test_an_owner_that_is_busy_is_not_said_to_be_out_of_reach(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    server = own(NatsServer)
    await server.start()
    async with SolarWind(server.url("x")) as wind:
        await wind.fire("T", 1, id="later", after=3_600)
        goes_on, cancel = asyncio.Event(), StreamDueLog.cancel

        async def slow(self: StreamDueLog, *given: Any) -> list[bool]:
            await goes_on.wait()
            return await cancel(self, *given)

        monkeypatch.setattr(StreamDueLog, "cancel", slow)
        monkeypatch.setattr(engine, "OWNER_S", 0.5)
        with pytest.raises(Unavailable, match="it is busy: ask less at once; what was asked for may still be done"):
            await wind.cancel("T", "later")
        monkeypatch.setattr(engine, "OWNER_S", 600)
        goes_on.set()
        await until(lambda: _is_cancelled(wind), "it was done")


async def _is_cancelled(wind: SolarWind) -> bool:
    return not await wind.delayed("T")


async def refusal(url: str, error: type[Exception], *words: str) -> None:
    """Opening it fails with one sentence that has these words and no secrets."""
    with pytest.raises(error) as caught:
        await SolarWind(url).start()
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("expected ")
    assert "secret" not in text
    for word in words:
        assert word in text


def said(caplog: pytest.LogCaptureFixture, word: str = "") -> list[str]:
    """Return the lines of the log that an operator sees, with that word."""
    lines = [f"{each.levelname} {each.getMessage()}" for each in caplog.records if each.levelno >= logging.WARNING]
    return [line for line in lines if word in line]


@contextlib.asynccontextmanager
async def speaks(greeting: bytes, answer: bytes = b"") -> AsyncIterator[str]:
    """Something that listens where a NATS server should."""
    ends: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.add(writer)
        writer.write(greeting)
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                if answer and line.startswith(b"PING"):
                    writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"nats://user:secret@127.0.0.1:{port}/x"
    finally:
        server.close()
        for end in ends:
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()


def info(version: str, **more: Any) -> bytes:
    known = {"server_id": "x", "version": version, "max_payload": 1 << 20, "proto": 1, "headers": True, **more}
    return b"INFO " + json.dumps(known).encode() + b"\r\n"


# Servers ---------------------------------------------------------------------------------------------------------


@on_loop
async def test_a_nats_server_that_is_not_there_is_refused() -> None:
    port = Port()
    await refusal(f"nats://user:secret@127.0.0.1:{port.number}/x", Unavailable, str(port.number), "start one")
    await refusal("nats://nowhere.invalid/x", Unavailable, "nowhere.invalid")
    port.close()


@on_loop
async def test_what_listens_there_is_no_nats_server() -> None:
    async with (
        speaks(b"HTTP/1.1 400 Bad Request\r\n\r\n") as http,
        speaks(b"") as silent,
        speaks(b"\x00" * 99) as noise,
    ):
        await asyncio.gather(*(refusal(url, Unavailable, "NATS server") for url in (http, silent, noise)))


@pytest.mark.parametrize("version", ["2.9.25", "2.11.11"])
@on_loop
async def test_an_old_nats_server_is_refused(version: str) -> None:
    async with speaks(info(version, jetstream=True), b"PONG\r\n") as url:
        await refusal(url, BadArgument, "2.12", version, "upgrade")


@on_loop
async def test_a_nats_server_without_jetstream_is_refused(own: Own) -> None:
    server = own(NatsServer, jetstream=False)
    await server.start()
    await refusal(server.url("x"), BadArgument, "JetStream", "-js")


@on_loop
async def test_wrong_credentials_are_refused(own: Own, caplog: pytest.LogCaptureFixture) -> None:
    """At the start; and when they are changed while it runs everything stops, with one line, whatever is under way."""
    server = own(NatsServer, authorization={"user": "u", "password": "right"})
    await server.start()
    hosts = server.hosts.rpartition("@")[2]
    await refusal(f"nats://u:secret@{hosts}/x", NotAllowed, "credentials", "creds=")
    await refusal(f"nats://{hosts}/x", NotAllowed, "credentials")
    await refusal(f"nats://secret@{hosts}/x", NotAllowed, "credentials")
    assert said(caplog) == []

    wind = SolarWind(server.url("x"), grace=1.0)
    begun = asyncio.Event()

    @wind.on("T", purpose="p")
    async def handle() -> None:
        begun.set()
        await asyncio.Event().wait()

    await wind.start()
    await wind.fire("T")
    await begun.wait()
    server.settings["authorization"]["password"] = "changed"
    await server.restart()
    waiting = wind.fire("T")
    with pytest.raises(NotAllowed, match="credentials"):
        await asyncio.wait_for(asyncio.shield(wind.failed), 60)
    with pytest.raises(NotAllowed):
        await waiting
    with pytest.raises(NotAllowed):
        await wind.statistics()
    await wind.stop()
    assert len(said(caplog, "CRITICAL")) == 1
    assert len(said(caplog)) <= 6, said(caplog)


# Room ------------------------------------------------------------------------------------------------------------


async def alter(server: NatsServer, stream: str, **settings: Any) -> dict[str, Any]:
    """Alter the stream as an operator would, and return its state."""
    async with connected(server.urls) as client:
        about = await ask(client, f"STREAM.INFO.{stream}")
        await ask(client, f"STREAM.UPDATE.{stream}", about["config"] | settings)
        state: dict[str, Any] = about["state"]
        return state


async def state_of(server: NatsServer, stream: str) -> dict[str, Any]:
    async with connected(server.urls) as client:
        state: dict[str, Any] = (await ask(client, f"STREAM.INFO.{stream}"))["state"]
        return state


def chain(url: str) -> tuple[SolarWind, str, str, list[int]]:
    """Return a service that fires on a topic of another partition for each event, both topics, and what came there."""
    parents, children = one_of_each(2)
    wind = SolarWind(url)
    handled: list[int] = []

    @wind.on(parents, purpose="p")
    async def parent(number: int) -> None:
        wind.fire(children, number)

    @wind.on(children, purpose="q")
    async def child(number: int) -> None:
        handled.append(number)

    return wind, parents, children, handled


@on_loop
async def test_a_full_event_stream_refuses_producers_and_what_handlers_fire_waits(
    server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Producers are told; what handlers fired waits, with one line; and when there is room again all goes on."""
    wind, parents, children, handled = chain(server.url(namespace, streams=2))
    async with wind:
        await wind.fire(parents, 0)
        await wind.settled(60)
        stream = f"SOLARWIND_{namespace}_1"
        full = (await state_of(server, stream))["bytes"] + 100
        await alter(server, stream, max_bytes=full)
        with pytest.raises(StoreError, match=r"room.*give its stream or account more"):
            await wind.fire(children, 1000, key="x" * 100)
        lines = len(said(caplog))
        await wind.fire_many(parents, range(1, 50))
        await until(lambda: said(caplog, "that handlers fired on topic"))
        await wind.fire_many(parents, range(50, 100))
        await until(lambda: _settled(wind, parents, 100))
        assert len(said(caplog)) <= lines + 1
        await alter(server, stream, max_bytes=-1)
        await wind.settled(60)
        assert sorted(handled) == list(range(100))
        assert len(said(caplog)) <= lines + 2


async def _settled(wind: SolarWind, topic: str, number: int) -> bool:
    return (await wind.statistics()).purposes[topic, "p"].settled == number


@on_loop
async def test_a_full_state_stream_settles_nothing_until_there_is_room(
    server: NatsServer, namespace: str, sent: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is settled until there is room, which is said once; then all of it is, and what was fired comes once."""
    wind, parents, _, handled = chain(server.url(namespace, streams=2))
    async with wind:
        await wind.fire(parents, 0)
        await wind.settled(60)
        stream = f"SOLARWIND_{namespace}_state"
        await alter(server, stream, max_bytes=(await state_of(server, stream))["bytes"] + 10)
        begun, before = monotonic(), len(sent)
        await wind.fire_many(parents, range(1, 100))
        await until(lambda: said(caplog, "no room"))
        await until(lambda: monotonic() - begun > 1.5)
        assert len(said(caplog)) <= 2
        assert len(sent) - before < MAX_SENT + MAX_SENT_A_SECOND * (monotonic() - begun)
        await alter(server, stream, max_bytes=-1)
        await wind.settled(60)
        assert sorted(handled) == list(range(100))
        assert (await wind.statistics()).purposes[parents, "p"].settled == 100


@on_loop
async def test_a_full_nats_server_refuses_events_and_loses_none(
    own: Own, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all streams together. What was accepted is there, and what was not was refused; and it can be stopped."""
    monkeypatch.setattr(owner, "STOP_S", 0.3)
    server = own(NatsServer, jetstream={"max_file_store": 4 << 20})
    await server.start()
    wind = SolarWind(server.url("x", streams=1))
    handled: list[int] = []
    accepted = 0

    @wind.on("T", purpose="p")
    async def handle(payload: bytes) -> None:
        handled.append(len(payload))

    async with wind:
        refused: list[str] = []
        while not refused:
            try:
                await wind.fire("T", bytes(300_000))
                accepted += 1
            except StoreError as error:
                refused.append(str(error))
        assert "room" in refused[0]
        await until(lambda: len(handled) == accepted)
        assert len(said(caplog)) < 10
    assert 5 < accepted < 20


# What is deleted under our feet ----------------------------------------------------------------------------------


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that says nothing is looked after sooner."""
    monkeypatch.setattr(tail, "SILENT_S", 0.8)
    monkeypatch.setattr(tail, "HEARTBEAT_S", 0.2)


async def delete(server: NatsServer, *streams: str) -> None:
    async with connected(server.urls) as client:
        for stream in streams:
            await ask(client, f"STREAM.DELETE.{stream}")


@on_loop
async def test_a_deleted_event_stream_is_made_anew_and_said_once(
    server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture, hurry: None
) -> None:
    """What was in it is lost, which is said once; it is made anew, and what comes then is handled once."""
    wind = SolarWind(server.url(namespace, streams=1))
    handled: list[int] = []

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None:
        handled.append(number)

    async with wind:
        await wind.fire_many("T", range(10))
        await wind.settled(60)
        await delete(server, f"SOLARWIND_{namespace}_0")
        await until(lambda: said(caplog, "are lost"))
        await wind.fire_many("T", range(10, 20))
        await wind.settled(60)
        assert handled == list(range(20))
        assert len(said(caplog, "deleted")) <= 3
        assert len(said(caplog)) <= 8
        assert [each.kept for each in await wind.topics()] == [10]
    again = SolarWind(server.url(namespace, streams=1))
    again.on("T", purpose="p")(handle)
    async with again:
        await again.fire("T", 20)
        await again.settled(60)
        assert handled == list(range(21))


@pytest.mark.parametrize("stream", ["SOLARWIND_{}_state", "KV_SOLARWIND_{}"])
@on_loop
async def test_a_deleted_state_ends_those_at_work_and_is_made_anew(
    stream: str, server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture, hurry: None
) -> None:
    """Whoever is at work stops, with one error; whoever starts again makes it anew, and then all goes on as before."""
    parents, children = one_of_each(2)
    handled: list[int] = []

    def new() -> SolarWind:
        wind = SolarWind(server.url(namespace, streams=2))

        @wind.on(parents, purpose="p")
        async def parent(number: int) -> None:
            wind.fire(children, number)

        @wind.on(children, purpose="q")
        async def child(number: int) -> None:
            handled.append(number)

        return wind

    wind = new()
    await wind.start()
    for number in range(5):
        await wind.fire(parents, number)
        await wind.settled(60)
    await delete(server, stream.format(namespace))
    firing = asyncio.gather(wind.fire(parents, 5), return_exceptions=True)
    with pytest.raises(StoreError, match=r"deleted: start again"):
        await asyncio.wait_for(asyncio.shield(wind.failed), 60)
    with pytest.raises(StoreError, match=r"deleted: start again"):
        await wind.statistics()
    await wind.stop(0)
    await firing
    assert len(said(caplog, "CRITICAL")) == 1
    assert len(said(caplog)) <= 4
    async with new() as wind:
        handled.clear()
        await wind.fire_many(parents, range(6, 30))
        await wind.settled(60)
        assert sorted(set(handled)) == [*([5] if 5 in handled else []), *range(6, 30)]
        assert len(handled) == len(set(handled)), "what handlers fire comes, and comes once"


@pytest.mark.parametrize("counted", [False, True])
@on_loop
async def test_a_stream_purged_by_an_operator_loses_only_what_was_in_it(
    counted: bool, server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By an operator, while events pend: those are gone, and all that came before and comes behind is as it was."""
    url = server.url(namespace, streams=1)
    handled: list[tuple[str, int]] = []

    def new() -> SolarWind:
        wind = SolarWind(url)

        @wind.on("T", purpose="p", since="beginning")
        async def handle(number: int) -> None:
            handled.append(("T", number))

        @wind.on("U", purpose="p", since="beginning")
        async def other(number: int) -> None:
            handled.append(("U", number))

        return wind

    async with new() as wind:
        await wind.fire("T", 0)
        await wind.settled(60)
    async with SolarWind(url) as firing, connected(server.urls) as client:
        await firing.fire_many("T", range(1, 5000))
        await firing.fire_many("U", range(50))
        if counted:
            assert (await firing.statistics()).topics["T"].fired == 5000
        subject = f"solarwind.{namespace}.0.*.*.*.*.T"
        assert (await ask(client, f"STREAM.PURGE.SOLARWIND_{namespace}_0", {"filter": subject}))["purged"] >= 2
        await firing.fire_many("T", range(5000, 5020))
        await firing.fire_many("U", range(50, 60))
        if counted:
            assert (await firing.statistics()).topics["T"].fired == 5020
    handled.clear()
    async with new() as wind:
        await wind.settled(60)
        assert [number for topic, number in handled if topic == "U"] == list(range(60))
        assert [number for topic, number in handled if topic == "T"] == list(range(5000, 5020))
        await wind.fire("T", 5020)
        await wind.settled(60)
        assert handled[-1] == ("T", 5020)
    assert len(said(caplog)) <= 6  # where NATS is slow to answer, that is said too


# Messages that we did not write ----------------------------------------------------------------------------------


async def put(server: NatsServer, subject: str, data: bytes, **headers: str) -> None:
    async with connected(server.urls) as client:
        answer = json.loads((await client.request(subject, data, headers=headers or None)).data)
        assert "error" not in answer, answer


@on_loop
async def test_messages_among_events_that_we_did_not_write(
    server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is passed over with a line in the log; what is around it is handled, now and by the next owner."""
    url = server.url(namespace, streams=2)
    topic, other = one_of_each(2)
    handled: list[int] = []

    def new() -> SolarWind:
        wind = SolarWind(url)

        @wind.on(topic, purpose="p", since="beginning")
        async def handle(number: int) -> None:
            handled.append(number)
            if number < 100:
                wind.fire(topic, number + 100)

        return wind

    root = f"solarwind.{namespace}.0"
    foreign = [
        (f"{root}.fired.direct.me.me.{topic}", b"garbage", {}),
        (f"{root}.fired.direct.me.me.{topic}", b"", {}),
        (f"{root}.a.b.c.d.e.f", b"garbage", {}),
        (f"{root}.fired.direct.me.me.{topic}", b"\xff\xff\xff\xff", {"Solarwind-Piece": "1/3"}),
        (f"{root}.fired.direct.me.me.{topic}", b"garbage", {"Solarwind-Piece": "one of many"}),
        (f"{root}.fired.direct.me.me.{topic}", b"garbage", {"Solarwind-Piece": "7/3", "Solarwind-Number": "x"}),
        (f"{root}.fired.direct.me.me.{other}", batch(other, 1, 0).data, {}),
        (f"{root}.fired.direct.me.me.{topic}", batch(other, 1, 0).data, {}),
        (f"{root}.caused.from-0.me.me.{topic}", b"garbage", {}),
        (f"{root}.caused.from-0.me.me.{topic}", b"garbage", {"Solarwind-From": "garbage"}),
    ]
    async with new() as wind:
        await wind.fire(topic, 0)
        await wind.settled(60)
        for number, (subject, data, headers) in enumerate(foreign, 1):
            await put(server, subject, data, **headers)
            await wind.fire(topic, number)
            await wind.settled(60)
        numbers = [*range(len(foreign) + 1), *range(100, 101 + len(foreign))]
        assert sorted(handled) == numbers
        assert len(said(caplog)) <= 2 * len(foreign)
        await put(server, foreign[3][0], foreign[3][1], **foreign[3][2])
        await wind.settled(60)
    async with SolarWind(url) as wind:
        assert await wind.replay(topic, "p") == len(numbers)
    handled.clear()
    caplog.clear()
    async with new() as wind:
        assert [each.topic for each in await wind.topics()] == [topic]
        await wind.settled(60)
        again = [number for number in numbers if number >= 100]
        assert sorted(handled) == sorted(numbers + again)
        assert len(said(caplog)) <= 2 * len(foreign)


@on_loop
async def test_messages_among_state_that_we_did_not_write(
    server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even among the commits: the owner goes on behind them, and the next one passes them over."""
    url = server.url(namespace, streams=1)
    handled: list[int] = []

    def new() -> SolarWind:
        wind = SolarWind(url)

        @wind.on("T", purpose="p", since="beginning")
        async def handle(number: int) -> None:
            handled.append(number)
            if number == 3:
                raise ValueError("never")

        return wind

    root = f"solarwind.{namespace}.state.0"
    async with new() as wind:
        await wind.fire_many("T", range(10))
        await until(lambda: len(handled) > 3)
        async with connected(server.urls) as client:
            found = await ask(
                client, f"STREAM.MSG.GET.SOLARWIND_{namespace}_state", {"last_by_subj": f"{root}.log.commit"}
            )
        commit = base64.b64decode(found["message"]["data"])
        for number, (rest, data, headers) in enumerate(
            [
                ("log.commit", b"garbage", {}),
                ("log.commit", b"", {"Solarwind-Commit": "99.99"}),
                ("log.commit", b"garbage", {"Solarwind-Commit": "x"}),
                ("log.commit", commit[: len(commit) // 2], {"Solarwind-Piece": "1/2"}),
                ("log.track.0123.0", b"garbage", {}),
                ("log.topic.T", b"\x90", {}),
                ("log.other", b"garbage", {}),
                ("kept.index.T", b"garbage", {}),
                ("kept.dead.0123.1-2", b"garbage", {}),
                ("kept.ids.0.T", b"garbage", {}),
                ("kept.other", b"garbage", {}),
            ],
            10,
        ):
            await put(server, f"{root}.{rest}", data, **headers)
            await wind.fire("T", number)
            await until(lambda number=number: number in handled)
        await until(lambda: _counts(wind, settled=20))
    caplog.clear()
    handled.clear()
    async with new() as wind:
        assert await _counts(wind, settled=20)
        await wind.fire("T", 20)
        await until(lambda: 20 in handled)
        assert set(handled) <= {3, 20}
        assert await wind.replay("T", "p") == 21
        await until(lambda: set(handled) >= {*range(21)})
    assert len(said(caplog, "did not write")) + len(said(caplog, "not written by Solar Wind")) >= 5


async def _counts(wind: SolarWind, **counts: int) -> bool:
    found = (await wind.statistics()).purposes["T", "p"]
    return all(getattr(found, name) == count for name, count in counts.items())


@on_loop
async def test_what_somebody_writes_into_the_bucket_is_made_right_or_not_taken(
    server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who owns what is made right again; partitions that cannot be are not made; settings are not taken."""
    url = server.url(namespace, streams=1)
    wind = SolarWind(url)
    handled: list[int] = []

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None:
        handled.append(number)

    bucket = f"$KV.SOLARWIND_{namespace}"
    async with wind:
        for number, (key, data) in enumerate(
            [
                ("owner.0", b"garbage"),
                ("owner.0", b""),
                ("owner.0", json.dumps({"node": "nobody", "name": "nobody/there:1"}).encode()),
                ("owner.7", b"{}"),
                ("owner.x", b"{}"),
                ("something", b"else"),
            ]
        ):
            await put(server, f"{bucket}.{key}", data)
            await wind.fire("T", number)
            await until(lambda number=number: number in handled)
            await wind.settled(60)  # and committed, before the partition is taken away again
        assert list(dict.fromkeys(handled)) == list(range(6))  # one that was settled last may come again
        assert [each.partition for each in await wind.owners()] == [0]
        lines = len(said(caplog))
        assert lines <= 15, said(caplog)
        for settings, error, word in (
            (b"garbage", ConflictError, "settings"),
            (b'{"streams": 0}', ConflictError, "settings"),
            (b'{"streams": 5}', ConflictError, "streams"),
        ):
            await put(server, f"{bucket}.settings", settings)
            await refusal(server.url(namespace), error, word)
        await wind.fire("T", 6)
        await wind.settled(60)


@on_loop
async def test_a_forged_message_on_a_live_subject_changes_nothing(
    server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It moves nothing and stops nobody."""
    url = server.url(namespace, streams=1)
    live = f"solarwind.{namespace}.live"
    handled: list[int] = []
    async with process(url, topics=["U"]) as other, SolarWind(url) as wind, connected(server.urls) as client:

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            handled.append(number)

        await wind.joined()
        (record,) = await wind.owners()
        assert record.owner.endswith(f":{other.pid}")
        heard: list[str] = []

        async def hear(message: Any) -> None:
            heard.append(message.subject)

        await client.subscribe(f"{live}.>", cb=hear)
        await wind.fire("T", 0)
        await until(lambda: len(handled) == 1)
        await until(lambda: any(".heartbeat" in each for each in heard))
        node = next(each for each in heard if ".node." in each).split(".")[4]
        to_clients = [each for each in heard if ".client." in each]
        for subject in [f"{live}.heartbeat", f"{live}.hello", f"{live}.node.{node}.open", f"{live}.node.{node}.c1"]:
            for data in (b"", b"garbage", b"{}", b"[]", b'{"partition": "x", "to": 1}', b"\x00" * 5, b"\xff" * 100):
                await client.publish(subject, data)
        for subject in set(to_clients):
            await client.publish(subject, b"")
            await client.publish(subject, b"\x00" * 50)
        bad = {"partition": 0, "to": "a b\r\nPUB x 0\r\n"}
        await client.publish(f"{live}.node.{node}.open", json.dumps(bad).encode())
        await client.flush()
        for number in range(1, 20):
            await wind.fire("T", number)
        await wind.settled(60)
        assert sorted(set(handled)) == list(range(20))
        (record,) = await wind.owners()
        assert record.owner.endswith(f":{other.pid}")
        assert len(said(caplog)) < 40
        assert "Traceback" not in other.complaints


@on_loop
async def test_nats_servers_that_are_no_cluster_are_refused(own: Own, caplog: pytest.LogCaptureFixture) -> None:
    """Two that know nothing of each other in one URL: when one goes, nothing goes on with the other's namespace."""
    first, second = own(NatsServer, name="n1"), own(NatsServer, name="n2")
    await first.start()
    wind = SolarWind(f"nats://{first.hosts},{second.hosts}/x?streams=1")
    handled: list[str] = []

    @wind.on("T", purpose="p", since="beginning")
    async def handle(text: str) -> None:
        handled.append(text)

    await wind.start()
    await wind.fire("T", "one")
    await wind.settled(60)
    await second.start()
    async with SolarWind(second.url("x", streams=1)) as other:
        await other.fire("T", "other")
    first.kill()
    with pytest.raises(StoreError, match="another"):
        await asyncio.wait_for(asyncio.shield(wind.failed), 60)
    await wind.stop(0)
    assert handled == ["one"]
    assert len(said(caplog, "CRITICAL")) == 1


# Too few nodes ---------------------------------------------------------------------------------------------------


@pytest.mark.long
@on_loop
async def test_a_cluster_without_a_quorum_holds_up_who_runs_and_refuses_who_starts(
    own: Own, sent: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs waits, with a line or two, and goes on when it is back; whoever starts is told."""
    monkeypatch.setattr(session, "START_S", 1.0)
    cluster = own(NatsCluster)
    await cluster.start()
    url = cluster.url("x", streams=1, replicas=3)
    handled: list[int] = []
    wind = SolarWind(url)

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None:
        handled.append(number)

    async with wind:
        await wind.fire("T", 0)
        await wind.settled(60)
        stopped = cluster.nodes[1:]
        for each in stopped:
            each.kill()
        begun, before = monotonic(), len(sent)
        waiting = asyncio.gather(*(wind.fire("T", number) for number in range(1, 50)))
        await refusal(url, Unavailable, "quorum")
        assert not waiting.done()
        assert len(said(caplog)) <= 12, said(caplog)
        assert len(sent) - before < MAX_SENT + MAX_SENT_A_SECOND * (monotonic() - begun)
        await asyncio.gather(*(each.start() for each in stopped))
        await waiting
        await wind.settled(60)
        assert sorted(set(handled)) == list(range(50))
        assert handled.count(0) == 1


@pytest.mark.parametrize(
    ("code", "text"),
    [(10005, "no suitable peers for placement, peer offline"), (10049, "could not create the files")],
)
@on_loop
async def test_a_stream_that_cannot_be_made_yet_is_made_later(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch, code: int, text: str
) -> None:
    """A cluster that has just come together may not know all its nodes yet, and refuses to make streams on them."""
    refused = refuse_streams(monkeypatch, code, text, times=3)
    async with SolarWind(server.url(namespace)) as wind:
        await wind.fire("T", 1)
    assert len(refused) == 3


@on_loop
async def test_who_starts_is_told_why_no_stream_can_be_made(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "START_S", 1.0)
    refuse_streams(monkeypatch, 10005, "no suitable peers for placement, peer offline")
    await refusal(server.url(namespace), Unavailable, "peer offline", "are all its servers up")
    refuse_streams(monkeypatch, 10005, "no suitable peers for placement, insufficient storage")
    await refusal(server.url(namespace), ConflictError, "insufficient storage", "is there room for it")


def refuse_streams(monkeypatch: pytest.MonkeyPatch, code: int, text: str, times: int | None = None) -> list[str]:
    """Let JetStream refuse to make streams, so many times. Return the subjects of what it has refused."""
    refused: list[str] = []
    send = Session.ask

    async def ask(self: Session, subject: str, *others: Any, **more: Any) -> Msg:
        answer = await send(self, subject, *others, **more)
        if ".STREAM.CREATE." in subject and (times is None or len(refused) < times):
            refused.append(subject)
            answer.data = json.dumps({"error": {"code": 400, "err_code": code, "description": text}}).encode()
        return answer

    monkeypatch.setattr(Session, "ask", ask)
    return refused


@pytest.mark.parametrize("again_s", [tasks.AGAIN_S, 0.0])
@on_loop
async def test_a_start_that_is_cancelled_at_any_point_leaves_nothing_open(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch, again_s: float
) -> None:
    """nats-py passes over a cancellation that comes while it writes. So a task is cancelled again and again, which does
    not cut short what ends the connection."""
    monkeypatch.setattr(tasks, "AGAIN_S", again_s)
    before = asyncio.all_tasks()
    for turns in (*range(60), *(int(60 * 1.1**n) for n in range(100))):
        engine = NatsEngine(server.url(namespace, streams=1))
        starting = asyncio.create_task(engine.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        if starting.done():
            await engine.stop()
            break
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert asyncio.all_tasks() == before
