"""Messages that can be read and cannot be meant: whoever sends them is refused, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from solarwind import SolarWind, wire
from solarwind.batch import author_of, seal
from solarwind.core.effects import Failure
from solarwind.testing.contract import on_loop, until

from .peers import join_of
from .place import Host

SECRET = b"what only this client knows"
OF: dict[str, Any] = {"producer": 0x26F4A91C, "author": author_of(SECRET), "machine": "m", "process": "p"}
WIDEST = 2**64 - 1  # what msgpack can say


@pytest.fixture(scope="module")
def url(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server, on a file, for all: what one test does to it is to be nothing to the others."""
    port = host.start(f"sqlite:///{tmp_path_factory.mktemp('store')}/wind.db")
    yield f"ws://127.0.0.1:{port}"
    host.stop(port)


class Peer:
    """A client that sends whatever it is told to."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._came: list[wire.FromServer] = []

    async def send(self, *messages: wire.Message) -> None:
        await self.socket.send(wire.encode(messages))

    async def next(self) -> wire.FromServer:
        if not self._came:
            async with asyncio.timeout(60):
                data = await self.socket.recv()
            assert isinstance(data, bytes)
            self._came = wire.read_server(data)
        return self._came.pop(0)

    async def ask(self, message: wire.Message) -> wire.FromServer:
        """Return the answer; what is offered before it comes next."""
        await self.send(message)
        offers = []
        while isinstance(answer := await self.next(), wire.Offer):
            offers.append(answer)
        self._came = [*offers, *self._came]
        return answer

    async def refused(self, message: wire.Message) -> wire.Refused:
        answer = await self.ask(message)
        assert isinstance(answer, wire.Refused)
        assert answer.text.startswith("expected ")
        assert "\n" not in answer.text
        return answer


@asynccontextmanager
async def peer(url: str) -> AsyncIterator[Peer]:
    subprotocols = [Subprotocol(wire.SUBPROTOCOL)]
    async with connect(url + wire.PATH, subprotocols=subprotocols, compression=None, max_size=None) as socket:
        found = Peer(socket)
        assert isinstance(await found.ask(wire.Hello("test", None, SECRET)), wire.Welcome)
        yield found


async def goes_on(url: str) -> None:
    """Check that the server accepts and hands out as before."""
    async with peer(url) as well:
        assert await well.ask(wire.Submit(1, batch("goes.on", first=next(_numbers)))) == wire.Accepted([1])


_numbers = iter(range(1_000_000))


def batch(topic: str = "T", *, first: int = 0, count: int = 1, **columns: Any) -> bytes:
    times = [10**18] * count
    return seal(topic, [b"1"] * count, times, **OF, first=first, **columns).data


def join(**others: Any) -> wire.Join:
    return join_of(**{"ref": 7, "instance": 1, "topic": "T", "purpose": "p", **others})


def retry(*values: Any) -> dict[str, Any]:
    return dict(zip(("attempts", "wait", "factor", "ceiling"), values, strict=True))


def call(what: str, **arguments: Any) -> wire.Call:
    return wire.Call(7, what, msgspec.Raw(msgspec.msgpack.encode(arguments)))


REFUSED: dict[str, tuple[wire.Message, str]] = {
    "a number that no store can keep": (wire.Submit(7, batch(first=2**63)), "protocol"),
    "a number that would be another's id": (wire.Submit(7, batch(first=2**30)), "protocol"),
    "numbers that would end as another's id": (wire.Submit(7, batch(first=2**30 - 1, count=2)), "protocol"),
    "a content type that is two headers": (wire.Submit(7, batch(content="text/plain\r\nx: y")), "bad-name"),
    "a topic that is the dispatcher's": (wire.Submit(7, batch("solarwind.dead")), "bad-name"),
    "a topic on which nothing is ever fired": (join(topic="solarwind.x"), "bad-name"),
    "a schedule on a topic that is the dispatcher's": (
        call("declare_schedule", topic="solarwind.dead", name="s", every="5m"),
        "bad-name",
    ),
    "a content type without an end": (wire.Submit(7, batch(content="x" * 201)), "bad-name"),
    "one invalid content type": (wire.Submit(7, batch(count=2, content=["text/plain", ""])), "bad-name"),
    "room for more than there is": (join(room=2**63), "bad-argument"),
    "no room": (join(room=-1), "bad-argument"),
    "a version beyond all bounds": (join(version=WIDEST), "bad-argument"),
    "since of a fan-out": (join(exchange="fanout", since="beginning"), "bad-argument"),
    "since ahead": (join(since=4_000_000_000_000_000_000), "bad-argument"),
    "a replay of what is ahead": (call("replay", topic="T", purpose="p", since=4 * 10**18), "bad-argument"),
    "a delay below 0": (join(delay_ns=-1), "bad-argument"),
    "a delay of more than ten years": (join(delay_ns=10**18), "bad-argument"),
    "a schema that is none": (join(schema=b"[]"), "bad-argument"),
    "a schema that is too large": (join(schema=b'{"title":"' + b"x" * 50_000 + b'"}'), "bad-argument"),
    "a schema that goes too deep": (join(schema=b'{"a":' * 200 + b"1" + b"}" * 200), "bad-argument"),
    "a timeout below 0": (join(timeout_ns=-1), "bad-argument"),
    "a rate without a unit": (join(rate="100"), "bad-argument"),
    "a rate that is a number": (join(rate=100), "bad-argument"),
    "nothing in flight": (join(at_most=0), "bad-argument"),
    "more in flight than is counted": (join(at_most=WIDEST), "bad-argument"),
    "a rate of a fan-out": (join(exchange="fanout", rate="1/s"), "bad-argument"),
    "another key_missing": (join(exchange="keyed", key_missing="ignore"), "bad-argument"),
    "key_missing without a key": (join(exchange="direct", key_missing="reject"), "bad-argument"),
    "a ceiling below the wait": (join(retry=retry(5, 10.0, 2.0, 1.0)), "bad-argument"),
    "a field deep down": (join(exchange="keyed", key="$" + ".a" * 100_000), "bad-argument"),
    "an origin without an end": (join(origin="x" * 100_000), "bad-argument"),
    "a lease that never ends": (join(lease_ns=WIDEST), "bad-argument"),
    "a lease that has ended": (join(lease_ns=-1), "bad-argument"),
    "a time in words": (join(since="yesterday"), "bad-argument"),
    "an option that there is not": (join(speed=1), "bad-argument"),
    "a version in words": (join(version="one"), "bad-argument"),
    "an invalid registration": (wire.Join(7, 1, msgspec.Raw(b"\x90")), "bad-argument"),
    "no attempts": (join(retry=retry(0, 1.0, 2.0, 60.0)), "bad-argument"),
    "a wait that is no number": (join(retry=retry(5, float("nan"), 2.0, 60.0)), "bad-argument"),
    "a ceiling without an end": (join(retry=retry(5, 1.0, 2.0, float("inf"))), "bad-argument"),
    "a factor that shrinks": (join(retry=retry(5, 1.0, -2.0, 60.0)), "bad-argument"),
    "an invalid topic": (call("keep", topic="a b", keep=1.0), "bad-name"),
    "history of less than nothing": (call("keep", topic="T", keep=-1.0), "bad-argument"),
    "history beyond all bounds": (call("keep", topic="T", keep=1e18), "bad-argument"),
    "bytes beyond all bounds": (call("keep", topic="T", keep_bytes=WIDEST), "bad-argument"),
    "a call that there is not": (call("shutdown"), "bad-argument"),
    "an argument that there is not": (call("topics", all=True), "bad-argument"),
    "an invalid time": (call("replay", topic="T", purpose="p", since="yesterday"), "bad-argument"),
}


@pytest.mark.parametrize("name", REFUSED)
@on_loop
async def test_a_refused_message_gets_its_code_and_the_connection_goes_on(name: str, url: str) -> None:
    message, code = REFUSED[name]
    async with peer(url) as one:
        answer = await one.refused(message)
        assert (answer.ref, answer.code) == (7, code)
        assert await one.ask(wire.Ping()) == wire.Pong()
    await goes_on(url)


ENDED: dict[str, Any] = {
    "a submit that nothing can answer": ["submit", 0, batch()],
    "a join that nothing can answer": ["join", -1, 1, {"topic": "T", "purpose": "p"}],
    "an unknown name": ["hallo", 1],
    "a second hello": ["hello", "again"],
    "a message without its fields": ["join", 1],
    "an invalid ref": ["leave", "1", 1],
    "half an edge": ["report", 1, 1, [0]],
    "edges out of order": ["report", 1, 1, [0, 5, 3, 9]],
    "edges before the first": ["report", 1, 1, [-2, -1]],
    "a failure before the first": ["report", 1, 1, [], [[-1, "retry"]]],
    "an invalid verdict": ["report", 1, 1, [], [[0, "perhaps"]]],
    "later, before now": ["report", 1, 1, [], [[0, "later", "", -1]]],
    "later than all times": ["report", 1, 1, [], [[0, "later", "", WIDEST]]],
    "more on hold than there is": ["report", 1, 1, [], [], [], 0, 0, 3],
    "less on hold than nothing": ["report", 1, 1, [], [], [], 0, 0, -1],
}


@pytest.mark.parametrize("name", ENDED)
@on_loop
async def test_a_bad_message_ends_the_connection_with_the_reason(name: str, url: str) -> None:
    async with peer(url) as one:
        assert await one.ask(join_of(1, 1, "T", "p")) == wire.Done(1)
        await one.socket.send(msgspec.msgpack.encode([ENDED[name]]))
        answer = await one.next()
        assert isinstance(answer, wire.Refused)
        assert (answer.ref, answer.code) == (0, "protocol")
        await one.socket.wait_closed()
        assert one.socket.close_code == 1002
    await goes_on(url)


@on_loop
async def test_a_report_of_all_positions_there_could_be_costs_nothing(url: str) -> None:
    """Also where what its handlers fired is refused, so that all of them are to be tried again."""
    async with peer(url) as one:
        await one.ask(join_of(1, 1, "S", "p", retry=retry(5, 0.0, 1.0, 0.0)))
        assert await one.ask(wire.Submit(2, batch("S"))) == wire.Accepted([2])
        offer = await one.next()
        assert isinstance(offer, wire.Offer)
        everything = [0, WIDEST]
        lease = offer.shares[0].lease
        await one.send(wire.Hold(b"none"), wire.Report(1, lease, everything, returned=everything, fired=1))
        again = await one.next()
        assert isinstance(again, wire.Offer)
        assert again.shares[0].tried == {0: 1}
        failed = [Failure(position, "retry") for position in (0, 0, WIDEST)]
        lease = again.shares[0].lease
        report = wire.Report(1, lease, [], failed, everything, handled=WIDEST, busy_ns=-5, ref=3)
        await one.send(report)
        answers = [await one.next(), await one.next()]
        assert wire.Done(3, [True]) in answers
        (third,) = (each for each in answers if isinstance(each, wire.Offer))
        assert third.shares[0].tried == {0: 2}
        assert await one.ask(wire.Report(1, third.shares[0].lease, everything, ref=4)) == wire.Done(4, [True])


@on_loop
async def test_who_leaves_and_hangs_up_in_one_breath_is_gone(url: str) -> None:
    """As is who was joining still; and a number that is used again belongs to who has it now."""
    address = parse_uri(url + wire.PATH)
    protocol = ClientProtocol(address, subprotocols=[Subprotocol(wire.SUBPROTOCOL)])
    reader, writer = await asyncio.open_connection(address.host, address.port)
    protocol.send_request(protocol.connect())
    writer.write(b"".join(protocol.data_to_send()))
    protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
    protocol.send_binary(
        wire.encode([wire.Hello("test", None, SECRET), *(join_of(each, each, "L", "p") for each in range(1, 100))])
    )
    writer.write(b"".join(protocol.data_to_send()))
    async with SolarWind(url) as wind:
        await until(lambda: has_instances(wind, 99))
        leaves = [wire.Leave(each, each) for each in range(100, 0, -1)]
        protocol.send_binary(wire.encode([*leaves, join_of(200, 1, "L", "p"), join_of(201, 1, "L", "p")]))
        protocol.send_close(1000)
        writer.write(b"".join(protocol.data_to_send()))
        await until(lambda: has_instances(wind, 0))
        writer.close()
        await writer.wait_closed()
        statistics = await wind.statistics()
        assert statistics.purposes["L", "p"].instances == 0


async def has_instances(wind: SolarWind, count: int) -> bool:
    found = (await wind.statistics()).purposes.get(("L", "p"))
    return found is not None and found.instances == count


@on_loop
async def test_who_reads_no_answers_is_not_listened_to(host: Host, url: str) -> None:
    """Else they would pile up. Others notice nothing, and when it reads again, all goes on."""
    address = parse_uri(url + wire.PATH)
    protocol = ClientProtocol(address, subprotocols=[Subprotocol(wire.SUBPROTOCOL)])
    reader, writer = await asyncio.open_connection(address.host, address.port)
    protocol.send_request(protocol.connect())
    writer.write(b"".join(protocol.data_to_send()))
    protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
    protocol.send_binary(wire.encode([wire.Hello("test", None, SECRET)]))
    writer.write(b"".join(protocol.data_to_send()))
    assert b"welcome" in await reader.read(1_000)
    pings = wire.encode([wire.Ping()] * 16_000)
    for _ in range(300):
        protocol.send_binary(pings)
    data = b"".join(protocol.data_to_send())
    writer.write(data)
    await until(lambda: rests(writer), "the server to take no more")
    assert writer.transport.get_write_buffer_size() > len(data) // 3
    await goes_on(url)
    writer.transport.abort()


async def rests(writer: asyncio.StreamWriter) -> bool:
    """Return whether nothing was read for a while."""
    size = writer.transport.get_write_buffer_size()
    for _ in range(50):
        await asyncio.sleep(0.01)
        if writer.transport.get_write_buffer_size() != size:
            return False
    return True


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@on_loop
async def test_what_is_sent_again_is_stored_once(store: str, host: Host, tmp_path: Path) -> None:
    """The same producer and number are the same event, whatever batch they come in, and whether it was handled."""
    port = host.start("memory://" if store == "memory" else f"sqlite:///{tmp_path}/wind.db")
    url = f"ws://127.0.0.1:{port}"
    async with peer(url) as one:
        await one.ask(join_of(1, 1, "T", "p", room=100))
        handled = 0
        for ref, (first, count, new) in enumerate([(10, 5, 5), (10, 5, 0), (12, 5, 2), (17, 1, 1), (0, 20, 12)], 2):
            assert await one.ask(wire.Submit(ref, batch(first=first, count=count))) == wire.Accepted([ref])
            if new:
                offer = await one.next()
                assert isinstance(offer, wire.Offer)
                (share,) = offer.shares
                handled += new
                assert share.picks == [handled - new, handled]
                assert await one.ask(wire.Report(1, share.lease, share.picks, ref=100)) == wire.Done(100, [True])
        answer = await one.ask(wire.Call(101, "topics"))
        assert isinstance(answer, wire.Done)
        assert answer.items[0]["fired"] == handled == 20
    host.stop(port)
