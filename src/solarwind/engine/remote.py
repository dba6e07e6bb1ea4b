"""A dispatcher in another process, over a WebSocket: the engine of `ws://` and `wss://`.

It speaks `solarwind.v1` (see `wire`). When the connection is lost it comes back by itself: it registers every instance
again and sends every batch that was not accepted again, as the very bytes it was, so that nothing is lost and nothing
is stored twice. What instances had in hand then is the server's again: reports on it count for nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import msgspec

from .. import wire
from ..batch import Batch
from ..core.effects import Join, Offer, Report
from ..core.log import Stored
from ..errors import Busy, NotAllowed, ProtocolError, SolarWindError, StoreError, TooLarge, Unavailable
from ..event import Event, HandOut
from ..origin import MACHINE, process_name
from ..records import (
    DeadLetter,
    PurposeInfo,
    PurposeStatistics,
    Statistics,
    TopicInfo,
    TopicStatistics,
    Trace,
)
from .base import Receiver, Since
from .link import Link, connect

log = logging.getLogger("solarwind")

FIRST_WAIT_S = 0.05
MOST_WAIT_S = 1.0
_LEASE_BITS = 44  # of a lease's number at the server; above them is which connection it came by

T = TypeVar("T")


class _Lost(Unavailable):
    """The connection went while an answer was waited for."""

    code = Unavailable.code


class _Seat(msgspec.Struct, eq=False):
    """An instance of this process. `entered` is done once it has joined for the first time."""

    number: int
    join: Join
    since: Since
    receiver: Receiver
    entered: asyncio.Future[None]
    leaving: bool = False


class RemoteEngine:
    """See `Engine`."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """`url` is that of the server; `token`, if None, is `$SOLARWIND_TOKEN`."""
        self.url = url
        self._token = token if token is not None else os.environ.get("SOLARWIND_TOKEN") or None
        self._link: Link | None = None  # once it is shaken hands on; what is asked before waits
        self._welcome: wire.Welcome | None = None
        self._generation = 0  # of connections
        self._heard = 0.0
        self._number = 0
        self._out: list[wire.Message] = []
        self._flushing = False
        self._unaccepted: dict[int, tuple[Batch, asyncio.Future[None]]] = {}
        self._asked: dict[int, tuple[asyncio.Future[list[Any]], list[Any]]] = {}
        self._seats: dict[int, _Seat] = {}
        self._connecting: asyncio.Task[None] | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._running = False
        self._error: SolarWindError | None = None

    # Life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self.failed.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._up = asyncio.Event()
        await self._connect()
        self._running = True
        self._up.set()

    async def stop(self) -> None:
        if not self._running:
            return
        self._running = False
        if self._connecting is not None:
            self._connecting.cancel()
        if self._beat is not None:
            self._beat.cancel()
        if self._link is not None:
            self._flush()
            self._link.close()
            self._link = None
        gone = Unavailable(f"expected the server at {self.url} to accept it, but this process stopped before it did")
        self._fail_all(gone)

    def _check_running(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._running:
            raise Unavailable("expected a dispatcher that runs, got one that was stopped: start it again")

    def _fail(self, error: SolarWindError) -> None:
        """The server refuses what this process cannot do without."""
        if self._error is not None:
            return
        self._error = error
        log.critical("solarwind stops: %s", error)
        self._fail_all(error)
        for seat in self._seats.values():
            seat.receiver.close(str(error))
        self._seats.clear()
        if not self.failed.done():
            self.failed.set_exception(error)

    def _fail_all(self, error: SolarWindError) -> None:
        """Nobody is to wait for what will not come."""
        waiting = [future for _, future in self._unaccepted.values()]
        waiting += [seat.entered for seat in self._seats.values()]
        self._unaccepted.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()
        self._end_asked(error)
        self._up.set()

    # The connection -----------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Connect, say hello, and be welcome. Raises `Unavailable`, `ProtocolError`, and what the server refuses."""
        self._generation += 1
        self._out.clear()
        link = await connect(self.url, self._token, self._received, self._lost)
        self._link = link
        self._welcome = None
        welcome = self._expect(0)
        try:
            self._send(wire.Hello(f"{MACHINE}/{process_name()}"))
            async with asyncio.timeout(10.0):
                await welcome
        except TimeoutError:
            link.abort("it did not answer")
            raise Unavailable(f"expected a server at {self.url} to answer, it did not") from None
        except BaseException:
            link.abort("it was refused")
            raise
        self._heard = self._loop.time()
        self._keep_beating()

    def _keep_beating(self) -> None:
        """So often that a server that is gone is noticed within two heartbeats, and this client is heard of."""
        assert self._welcome is not None
        if self._beat is not None:
            self._beat.cancel()
        self._beat = self._loop.call_later(self._welcome.heartbeat_s / 2, self._heartbeat, self._generation)

    def _heartbeat(self, generation: int) -> None:
        if self._link is None or self._welcome is None or generation != self._generation:
            return
        if self._loop.time() - self._heard > 1.4 * self._welcome.heartbeat_s:
            self._link.abort("it did not answer")
            return
        self._send(wire.Ping())
        self._keep_beating()

    def _lost(self, why: str) -> None:
        self._link = None
        self._out.clear()
        self._end_asked(_Lost(f"expected an answer of the server at {self.url}, but the connection was lost: {why}"))
        for seat in self._seats.values():
            seat.receiver.lost()
        if self._running and self._error is None and self._connecting is None:
            log.warning("lost the server at %s: %s; trying to reach it again", self.url, why)
            self._up.clear()
            self._connecting = self._loop.create_task(self._reconnect())

    def _end_asked(self, error: SolarWindError) -> None:
        asked, self._asked = self._asked, {}
        for future, _ in asked.values():
            if not future.done():
                future.set_exception(error)
                future.exception()

    async def _reconnect(self) -> None:
        wait = FIRST_WAIT_S
        try:
            while self._running:
                try:
                    await self._connect()
                    await self._enter_again()
                    break
                except (Unavailable, Busy, StoreError) as error:
                    log.info("no server at %s yet: %s", self.url, error)
                    if self._link is not None:
                        self._link.abort("it is not ready")
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(2 * wait, MOST_WAIT_S)
            log.warning("the server at %s is back", self.url)
            self._connecting = None
            self._up.set()
        except SolarWindError as error:
            self._connecting = None
            self._fail(error)

    async def _enter_again(self) -> None:
        """Everything as it was: first who handles, then what was fired."""
        seats = [seat for seat in self._seats.values() if not seat.leaving]
        answers = await asyncio.gather(*map(self._enter, seats), return_exceptions=True)
        for seat, answer in zip(seats, answers, strict=True):
            if isinstance(answer, BaseException):
                if seat.entered.done() or not isinstance(answer, SolarWindError) or isinstance(answer, _RETRIED):
                    raise answer
                seat.entered.set_exception(answer)
            elif not seat.entered.done():
                seat.entered.set_result(None)
        for ref, (batch, _) in self._unaccepted.items():
            self._send(wire.Submit(ref, batch.data))

    # In -----------------------------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        try:
            for message in wire.read_server(data):
                _TAKE[type(message)](self, message)
        except ProtocolError as error:
            log.error("the server at %s sent what cannot be read: %s", self.url, error)
            if self._link is not None:
                self._link.abort(str(error))

    def _welcomed(self, welcome: wire.Welcome) -> None:
        self._welcome = welcome
        self._answered(0, None)

    def _accept(self, accepted: wire.Accepted) -> None:
        for ref in accepted.refs:
            found = self._unaccepted.pop(ref, None)
            if found is not None and not found[1].done():
                found[1].set_result(None)

    def _done(self, done: wire.Done) -> None:
        found = self._asked.get(done.ref)
        if found is None:
            return
        found[1].extend(done.items)
        if not done.more:
            self._answered(done.ref, None)

    def _refuse(self, refused: wire.Refused) -> None:
        error = wire.error_of(refused.code, refused.text)
        submitted = self._unaccepted.pop(refused.ref, None)
        if submitted is not None:
            if not submitted[1].done():
                submitted[1].set_exception(error)
                submitted[1].exception()
        elif refused.ref in self._asked:
            self._answered(refused.ref, error)
        else:
            log.error("the server at %s ends the connection: %s", self.url, error)
            if not isinstance(error, _RETRIED):
                self._fail(error)

    def _answered(self, ref: int, error: SolarWindError | None) -> None:
        future, items = self._asked.pop(ref, (None, []))
        if future is None or future.done():
            return
        if error is None:
            future.set_result(items)
        else:
            future.set_exception(error)
            future.exception()

    def _offered(self, offer: wire.Offer) -> None:
        stored = Stored(offer.start, Batch.read(offer.batch))
        generation = self._generation << _LEASE_BITS
        for share in offer.shares:
            seat = self._seats.get(share.instance)
            if seat is not None:
                edges = share.picks
                picks: Any = range(edges[0], edges[1]) if len(edges) == 2 else list(wire.read_spans(edges).positions())
                seat.receiver.deliver(Offer(seat.number, generation | share.lease, stored, picks, share.tried))

    def _stale(self, stale: wire.Stale) -> None:
        _does_not_count(stale.instance, stale.lease)

    def _closed(self, closed: wire.Closed) -> None:
        seat = self._seats.pop(closed.instance, None)
        if seat is not None:
            seat.receiver.close(closed.reason)

    def _ponged(self, pong: wire.Pong) -> None:
        """It was heard of."""

    # Out ----------------------------------------------------------------------------------------------

    def _send(self, message: wire.Message) -> None:
        self._out.append(message)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        messages, self._out = self._out, []
        if self._link is not None:
            for group in wire.groups(messages):
                self._link.send(wire.encode(group))

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _expect(self, ref: int) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._asked[ref] = (future, [])
        return future

    async def _ask(self, make: Callable[[int], wire.Message]) -> list[Any]:
        """The items of the answer. Raises what the server raised, and `Unavailable` where it is out of reach."""
        if self._link is None:
            raise _Lost(f"expected a server at {self.url}, it is out of reach: try again when it is back")
        ref = self._next()
        answer = self._expect(ref)
        self._send(make(ref))
        try:
            return await answer
        finally:
            self._asked.pop(ref, None)

    async def _call(self, name: str, arguments: wire.Arguments) -> list[Any]:
        self._check_running()
        packed = msgspec.Raw(wire.encode(arguments))
        return await self._ask(lambda ref: wire.Call(ref, name, packed))

    # Events and instances -----------------------------------------------------------------------------

    def submit(self, batch: Batch) -> asyncio.Future[None]:
        self._check_running()
        future: asyncio.Future[None] = self._loop.create_future()
        if self._welcome is not None and len(batch.data) + 1024 > self._welcome.frame_bytes:
            error = TooLarge(f"expected batches below {self._welcome.frame_bytes:,} bytes, got {len(batch.data):,}")
            future.set_exception(error)
            return future
        ref = self._next()
        self._unaccepted[ref] = (batch, future)
        if self._up.is_set():
            self._send(wire.Submit(ref, batch.data))
        return future

    async def join(self, join: Join, since: Since, receiver: Receiver) -> int:
        self._check_running()
        seat = _Seat(self._next(), join, since, receiver, self._loop.create_future())
        self._seats[seat.number] = seat
        try:
            if self._up.is_set():
                try:
                    await self._enter(seat)
                    return seat.number
                except _Lost:
                    pass
            await asyncio.shield(seat.entered)
        except BaseException:
            self._seats.pop(seat.number, None)
            raise
        finally:
            if not seat.entered.done() and seat.number in self._seats:
                seat.entered.set_result(None)
        return seat.number

    async def _enter(self, seat: _Seat) -> None:
        join, retry = seat.join, seat.join.retry
        await self._ask(
            lambda ref: wire.Join(
                ref,
                seat.number,
                join.topic,
                join.purpose,
                join.exchange,
                join.version,
                join.key,
                wire.pack_since(seat.since),
                join.room,
                join.lease_ns,
                (retry.attempts, retry.wait, retry.factor, retry.ceiling),
                join.origin,
            )
        )

    def report(self, report: Report, fired: Collection[Batch]) -> bool:
        message = self._report(report, fired, 0)
        if message is None:
            return False
        for batch in fired if report.done else ():
            self._send(wire.Hold(batch.data))
        self._send(message)
        return True

    async def settle(self, report: Report, fired: Collection[Batch] = ()) -> bool:
        self._check_running()
        message = self._report(report, fired, self._next())
        if message is None:
            return False
        for batch in fired if report.done else ():
            self._send(wire.Hold(batch.data))
        answer = self._expect(message.ref)
        self._send(message)
        return bool((await answer)[0])

    def _report(self, report: Report, fired: Collection[Batch], ref: int) -> wire.Report | None:
        """The message; None where it is on what came by an earlier connection."""
        if self._link is None or report.lease >> _LEASE_BITS != self._generation:
            _does_not_count(report.instance, report.lease)
            return None
        return wire.Report(
            report.instance,
            report.lease & ((1 << _LEASE_BITS) - 1),
            report.done.edges,
            list(report.failed),
            report.returned.edges,
            report.handled,
            report.busy_ns,
            len(fired) if report.done else 0,
            ref,
        )

    def alive(self, instance: int) -> None:
        if self._link is not None:
            self._send(wire.Alive(instance))

    def leaving(self, instance: int) -> None:
        seat = self._seats.get(instance)
        if seat is not None:
            seat.leaving = True
            if self._link is not None:
                self._send(wire.Leaving(instance))

    async def leave(self, instance: int, *, died: bool = False) -> None:
        if self._seats.pop(instance, None) is not None and self._link is not None:
            try:
                await self._ask(lambda ref: wire.Leave(ref, instance))
            except _Lost:  # then it is gone anyway
                pass

    async def quiet(self, purposes: Collection[tuple[str, str]]) -> None:
        while True:
            self._check_running()
            try:
                await self._call("quiet", wire.PurposesArguments(list(purposes)))
                return
            except _Lost:
                await self._up.wait()

    async def left(self, purposes: Collection[tuple[str, str]]) -> str:
        try:
            (text,) = await self._call("left", wire.PurposesArguments(list(purposes)))
        except _Lost as error:
            return str(error)
        return str(text)

    # What an operator asks ----------------------------------------------------------------------------

    async def topic(self, name: str, keep_ns: int | None, keep_bytes: int | None) -> None:
        await self._call("topic", wire.TopicArguments(name, keep_ns, keep_bytes))

    async def topics(self) -> list[TopicInfo]:
        return _read(await self._call("topics", wire.TopicsArguments()), list[TopicInfo])

    async def statistics(self) -> Statistics:
        items = _read(await self._call("statistics", wire.StatisticsArguments()), list[wire.StatisticsItem])
        return Statistics(
            {item.topic: TopicStatistics(item.fired) for item in items},
            {
                (item.topic, purpose): _read(counts, PurposeStatistics)
                for item in items
                for purpose, counts in item.purposes.items()
            },
        )

    async def purposes(self, topic: str | None) -> list[PurposeInfo]:
        statistics = await self.statistics()
        return [
            PurposeInfo(name, purpose, counts)
            for (name, purpose), counts in sorted(statistics.purposes.items())
            if topic in (None, name)
        ]

    async def dead(self, topic: str, purpose: str) -> list[DeadLetter]:
        items = _read(await self._call("dead", wire.PurposeArguments(topic, purpose)), list[wire.DeadItem])
        return [DeadLetter(_event(each.batch), each.error, each.attempts, wire.time_of(each.time_ns)) for each in items]

    async def redrive(self, topic: str, purpose: str, ids: Collection[str] | None) -> int:
        return await self._count("redrive", wire.LettersArguments(topic, purpose, _listed(ids)))

    async def discard(self, topic: str, purpose: str, ids: Collection[str] | None) -> int:
        return await self._count("discard", wire.LettersArguments(topic, purpose, _listed(ids)))

    async def replay(self, topic: str, purpose: str, since: Since, until: Since) -> int:
        times = wire.pack_since(since), wire.pack_since(until)
        return await self._count("replay", wire.ReplayArguments(topic, purpose, *times))

    async def _count(self, name: str, arguments: wire.Arguments) -> int:
        (count,) = await self._call(name, arguments)
        return int(count)

    async def retire(self, topic: str, purpose: str, *, force: bool) -> None:
        await self._call("retire", wire.RetireArguments(topic, purpose, force))

    async def trace(self, id: str) -> Trace:
        items = _read(await self._call("trace", wire.TraceArguments(id)), list[wire.TraceItem])
        caused: list[list[Trace]] = [[] for _ in items]
        for index in reversed(range(len(items))):
            trace = Trace(_event(items[index].batch), tuple(reversed(caused[index])))
            if index:
                caused[items[index].parent].append(trace)
        return trace

    async def backup(self, path: str) -> None:
        """Written here, from the copy that the server makes."""
        if os.path.exists(path):
            raise NotAllowed(f"expected the path of a new file, but {path} exists: name another")
        blocks = await self._call("backup", wire.BackupArguments())
        await asyncio.to_thread(_write, path, blocks)


def _read(items: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(items, kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"expected an answer that can be read, got another: {error}") from None


def _event(data: bytes) -> Event:
    return Event(HandOut(Batch.read(data)), 0)


def _listed(ids: Collection[str] | None) -> list[str] | None:
    return None if ids is None else list(ids)


def _write(path: str, blocks: list[bytes]) -> None:
    with open(path, "xb") as file:
        file.writelines(blocks)
        file.flush()
        os.fsync(file.fileno())


def _does_not_count(instance: int, lease: int) -> None:
    log.warning(
        "instance %d reported on lease %d, which is no longer its own: what it did does not count", instance, lease
    )


_RETRIED = (Unavailable, Busy, StoreError)
_TAKE: dict[type[Any], Callable[[RemoteEngine, Any], None]] = {
    wire.Welcome: RemoteEngine._welcomed,
    wire.Accepted: RemoteEngine._accept,
    wire.Done: RemoteEngine._done,
    wire.Refused: RemoteEngine._refuse,
    wire.Offer: RemoteEngine._offered,
    wire.Stale: RemoteEngine._stale,
    wire.Closed: RemoteEngine._closed,
    wire.Pong: RemoteEngine._ponged,
}
