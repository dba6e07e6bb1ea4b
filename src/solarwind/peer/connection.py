"""One client's connection on any transport: passes its messages to the engine, and the engine's to the client.

`hello` comes first; then messages in any order. A refusal answers the refused message. Only a message that cannot be
read, or comes before `hello`, ends the connection, because nothing after it can be trusted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import takewhile
from typing import Any

import msgspec

from .. import wire
from ..batch import Batch
from ..core import effects
from ..core.spans import Spans
from ..errors import BadArgument, Busy, NotAllowed, ProtocolError, SolarWindError, TooLarge, Unavailable
from ..failure import MAX_SECONDS
from ..logs import limited
from ..names import check_fired
from ..service.registration import check_join
from . import calls
from .authors import Authors
from .host import Host, Rights
from .inbound import Inbound
from .offers import BatchOffers, offer_of
from .remote_instance import RemoteInstance
from .transport import Transport

log = logging.getLogger("solarwind")

UNAUTHENTICATED_BYTES = 16 << 10  # a message of an unauthenticated client, and what it has not read
_STOPPED = "expected a dispatcher that runs, but it stopped: try again"
MAX_UNACCEPTED = 8 << 20  # bytes of a connection's batches: then nothing more is read from it
MAX_UNREAD = 10_000  # messages for a peer that does not read them: likewise
_BATCH_BYTES = 1 << 10  # what a batch costs besides its own bytes, about
_SILENT = 1.75  # heartbeats: a client that is gone is noticed before the second ends
_MAX_TOPICS = 10_000  # that are remembered as allowed
_MAX_NS = int(MAX_SECONDS * 1e9)
_LEAVE_TOGETHER = 100  # instances, in one turn of the loop
MAX_BY = 200  # characters of whom a client asks for
_JOIN_S = 0.000_1  # the time that joining an instance costs on the loop, about

_Tasks = dict[asyncio.Task[None], None]  # while it is empty it is much smaller than a set


class Connection:
    """The connection. Its methods are called on the engine's loop."""

    __slots__ = (
        *("_accepted", "_authors", "_flushing", "_grant", "_held", "_held_bytes", "_host", "_lasting"),
        *("_loop", "_offered", "_offers", "_out", "_paused", "_room", "_instances", "_stuck", "_submitted", "_tasks"),
        *("_store", "_to_offer", "_token", "_topics", "_transport", "_unaccepted", "_inbound"),
        *("heard", "open", "since"),
    )

    def __init__(self, host: Host, transport: Transport, token: str | None) -> None:
        """`token` is the one from the handshake."""
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._token = token
        self._grant: Rights | None = None  # once it has said hello
        self._authors = Authors(host)  # of its batches
        self.open = True
        self.heard = self.since = self._loop.time()
        self._instances: dict[int, RemoteInstance] = {}
        self._topics: dict[str, None] = {}  # that it may fire on
        self._held: list[Batch | SolarWindError] = []
        self._held_bytes = 0
        self._submitted: dict[asyncio.Future[None], tuple[int, int]] = {}  # and not answered: with ref and bytes
        self._unaccepted = 0  # bytes
        self._inbound = Inbound(host.slices, self)
        self._paused = False  # reading
        self._stuck = False  # writing
        self._out: list[wire.Message] = []
        self._accepted: list[int] = []
        self._offers: dict[int, BatchOffers] = {}  # of this turn, by the batch
        self._to_offer: list[BatchOffers] = []
        self._offered = 0
        self._flushing = False
        self._room: list[asyncio.Future[None]] = []  # callers that wait until more can be written
        self._tasks: _Tasks = {}
        self._lasting: _Tasks = {}  # joins and leaves: those come to their end without it too

    # In -----------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Handle a frame."""
        if not self.open:
            return
        self.heard = self._loop.time()
        self._inbound.add(data)

    def failed(self, error: Exception) -> None:
        """End the connection after an unexpected error; its client reconnects."""
        if not isinstance(error, SolarWindError):
            log.error("a message of a client could not be handled", exc_info=error)
            error = Unavailable(f"the server could not handle a message: {type(error).__name__}, see its log")
        self.end(error)

    def refuse_text(self) -> None:
        self.end(ProtocolError("expected binary WebSocket messages, got a text"))

    def refuse_large(self, size: int, max_bytes: int) -> None:
        self.end(ProtocolError(f"expected WebSocket messages of at most {max_bytes:,} bytes, got {size:,}"))

    def handle(self, message: wire.FromClient) -> None:
        """Handle one message of a frame."""
        if self._grant is None:
            if not isinstance(message, wire.Hello):
                raise ProtocolError(f"expected hello as the first message, got {type(message).__name__.lower()}")
            self._hello(message)
            return
        if not self.open:
            return
        try:
            _HANDLERS[type(message)](self, message)
        except ProtocolError:
            raise
        except SolarWindError as error:
            if not (ref := getattr(message, "ref", 0)):
                raise
            self._refuse(ref, error)

    def _refuse(self, ref: int, error: BaseException) -> None:
        """Send a refusal. A dispatcher that is gone sends none: clients reconnect, and ask the next one."""
        if isinstance(error, Unavailable) or self._host.engine.failed.done():
            self.leave()
        elif isinstance(error, SolarWindError):
            self._send(wire.Refused(ref, error.code, str(error)))
        else:
            text = f"the server failed with {type(error).__name__}: see its log"
            self._send(wire.Refused(ref, SolarWindError.code, text))

    def _hello(self, hello: wire.Hello) -> None:
        self._authors.hello(hello.secret)
        self._token = hello.token or self._token
        self._grant = self._host.grant(self._token, self._transport.uid)
        self._transport.authenticated()
        settings, limits = self._host.settings, self._host.limits
        sizes = settings.frame_bytes, limits.batch_bytes, limits.batch_events, limits.payload_bytes
        self._store = self._host.engine.store_id
        self._send(wire.Welcome(self._host.name, settings.heartbeat_s, *sizes, self._store))

    def _again(self, hello: wire.Hello) -> None:
        raise ProtocolError("expected hello once, as the first message, got another")

    def _author(self, author: wire.Author) -> None:
        self._authors.say(author)

    def _ping(self, ping: wire.Ping) -> None:
        self._send(wire.Pong())

    # Firing

    def _batch(self, data: bytes) -> Batch:
        batch = Batch.read(data, self._host.limits)
        self._authors.check(batch.header.author)
        topic = batch.topic
        if topic not in self._topics:
            assert self._grant is not None
            self._grant.check_fire(check_fired(topic))
            if len(self._topics) < _MAX_TOPICS:
                self._topics[topic] = None
        return batch

    def _submit(self, submit: wire.Submit) -> None:
        try:
            batch = self._batch(submit.batch)
            future = self._host.engine.submit(batch)
        except SolarWindError as error:
            self._refuse(submit.ref, error)
            return
        size = batch.weight + _BATCH_BYTES
        self._unaccepted += size
        self._submitted[future] = submit.ref, size
        if self._unaccepted > MAX_UNACCEPTED:
            self.regulate()
        future.add_done_callback(self._submit_ended)

    def _submit_ended(self, future: asyncio.Future[None]) -> None:
        """Send the answer, together with all others that there are by now, unless it went with what came of it."""
        if future in self._submitted:
            self._answer_submit(future)
            self._answer_submits()
            self._flush()

    def _answer_submit(self, future: asyncio.Future[None]) -> None:
        ref, size = self._submitted.pop(future)
        self._unaccepted -= size
        if self._paused:
            self.regulate()
        error = future.exception() if not future.cancelled() else Unavailable(_STOPPED)
        if error is None:
            self._accepted.append(ref)
        else:
            self._refuse(ref, error)

    def _answer_submits(self) -> None:
        """Answer what has ended, up to the first batch that has not."""
        for future in list(takewhile(asyncio.Future.done, self._submitted)):
            self._answer_submit(future)

    def _hold(self, hold: wire.Hold) -> None:
        """Keep a batch for its report. A refusal here fails the events whose handlers fired it."""
        try:
            batch = self._batch(hold.batch)
            self._host.hold(batch.weight)
            self._held.append(batch)
            self._held_bytes += batch.weight + _BATCH_BYTES
        except SolarWindError as error:
            self._held.append(error)
            self._held_bytes += _BATCH_BYTES
        if self._held_bytes > 2 * self._host.limits.unaccepted_bytes:
            raise TooLarge(f"expected a report for what is on hold, got {self._held_bytes:,} bytes of it and none")

    # Instances

    def _join(self, join: wire.Join) -> None:
        assert self._grant is not None
        if join.instance in self._instances:
            raise BadArgument(f"expected a number that no instance of the connection has, got {join.instance}")
        if max(len(self._instances), len(self._lasting)) >= self._host.settings.instances:
            raise Busy(f"expected at most {self._host.settings.instances:,} instances on a connection, got another")
        wanted, since = wire.read_join(join.join), wire.read_since(join.since)
        self._grant.check_listen(wanted.topic, wanted.purpose)
        check_join(wanted, since)
        wanted = msgspec.structs.replace(wanted, process=self._process(wanted.process))
        remote = self._instances[join.instance] = RemoteInstance(self, join.instance, wanted)
        remote.joined = self._answer(join.ref, self._enter(remote, wanted, since), self._lasting)

    def _process(self, name: str) -> str:
        """Return the process's name at the engine, made unique so that no client can end another's process."""
        return name if self._transport.local or not name else f"{id(self)} {name}"

    async def _enter(self, remote: RemoteInstance, join: effects.Join, since: Any) -> AsyncIterator[list[Any]]:
        await self._host.slices.brief(_JOIN_S)
        try:
            remote.instance = await self._host.engine.join(join, since, remote)
        except SolarWindError:
            self._forget(remote)
            raise
        if not self.open:
            await self._host.engine.leave(remote.instance, died=True)
        elif remote.leaving:
            self._host.engine.leaving(remote.instance)
        yield remote.texts

    def _report(self, report: wire.Report) -> None:
        if report.ref:
            self._check_unanswered()
        held = self._pop_held(report.fired)
        remote = self._instances.get(report.instance)
        if remote is None or not remote.instance:
            # It may have been closed a moment ago: what it says does not count, and that is all.
            self._stale(report)
            return
        refusal = next((each for each in held if isinstance(each, SolarWindError)), None)
        told = self._read_report(remote, report, str(refusal) if refusal is not None else "")
        fired = [each for each in held if isinstance(each, Batch)] if refusal is None else []
        if report.ref:
            self._answer(report.ref, self._settle(told, fired), self._tasks)
        elif not self._host.engine.report(told, fired):
            self._stale(report)

    def _pop_held(self, count: int) -> list[Batch | SolarWindError]:
        if not 0 <= count <= len(self._held):
            raise ProtocolError(f"expected a report of at most {len(self._held)} batches on hold, got {count}")
        if not count:
            return []
        held = self._held[-count:]
        self._forget_held()
        return held

    def _forget_held(self) -> None:
        held, self._held = self._held, []
        self._held_bytes = 0
        if held:
            self._host.hold(-sum(each.weight for each in held if isinstance(each, Batch)))

    def _read_report(self, remote: RemoteInstance, report: wire.Report, refusal: str) -> effects.Report:
        done, returned = wire.read_spans(report.done), wire.read_spans(report.returned)
        if any(failure.position < 0 or not 0 <= failure.after_ns <= _MAX_NS for failure in report.failed):
            raise ProtocolError("expected failures of positions, to be tried again after 0 ns or more, got others")
        handled, busy_ns = max(0, report.handled), max(0, report.busy_ns)
        return effects.Report(remote.instance, report.lease, done, report.failed, returned, handled, busy_ns, refusal)

    async def _settle(self, report: effects.Report, fired: list[Batch]) -> AsyncIterator[list[Any]]:
        yield [await self._host.engine.settle(report, fired)]

    def _stale(self, report: wire.Report) -> None:
        if report.ref:
            self._send(wire.Done(report.ref, [False]))
        else:
            self._send(wire.Stale(report.instance, report.lease))

    def _alive(self, alive: wire.Alive) -> None:
        remote = self._instances.get(alive.instance)
        if remote is not None and remote.instance:
            self._host.engine.alive(remote.instance)

    def _leaving(self, leaving: wire.Leaving) -> None:
        remote = self._instances.get(leaving.instance)
        if remote is not None:
            remote.leaving = True
            if remote.instance:
                self._host.engine.leaving(remote.instance)

    def _leave(self, leave: wire.Leave) -> None:
        remote = self._instances.pop(leave.instance, None)
        if remote is None:
            self._send(wire.Done(leave.ref))
        else:
            self._answer(leave.ref, self._left(remote, leave.died), self._lasting)

    async def _left(self, remote: RemoteInstance, died: bool) -> AsyncIterator[list[Any]]:
        await self._leave_once_joined(remote, died=died)
        yield []

    async def _leave_once_joined(self, remote: RemoteInstance, *, died: bool = False) -> None:
        if remote.joined is not None and not remote.joined.done():
            await asyncio.wait([remote.joined])
        if remote.instance:
            await self._host.engine.leave(remote.instance, died=died)

    def _call(self, call: wire.Call) -> None:
        assert self._grant is not None
        self._check_unanswered()
        operation = calls.operation_of(call.name)
        message: Any = operation.read(call.arguments)
        own = {(remote.topic, remote.purpose) for remote in self._instances.values()}
        if operation.right == "watch":
            self._grant.check_watch()
        elif operation.right == "fire":
            self._grant.check_fire(message.topic)
        elif operation.right == "relay":
            self._grant.check_fire(None)
        elif not (operation.right == "own" and own.issuperset(message.purposes)):
            self._grant.check_admin()
        ask = partial(self._host.ask, rights=self._grant, by=call.by[:MAX_BY])
        self._answer(call.ref, calls.answer(ask, operation, message), self._tasks)

    def _check_unanswered(self) -> None:
        if len(self._tasks) >= self._host.settings.unanswered:
            raise Busy(f"expected at most {self._host.settings.unanswered:,} calls under way, got another: wait")

    # Out ----------------------------------------------------------------------------------------------

    def _answer(self, ref: int, parts: AsyncIterator[list[Any]], among: _Tasks) -> asyncio.Task[None]:
        """Send these parts, each when the one before is on its way."""
        task = self._loop.create_task(self._answer_in_parts(ref, parts))
        among[task] = None
        task.add_done_callback(among.pop)
        return task

    async def _answer_in_parts(self, ref: int, parts: AsyncIterator[list[Any]]) -> None:
        try:
            last: list[Any] | None = None
            async for part in parts:
                if last is not None:
                    self._send(wire.Done(ref, last, True))
                    await self._drained()
                last = part
            self._send(wire.Done(ref, last or []))
        except Exception as error:
            if not isinstance(error, SolarWindError):
                log.exception("a call could not be answered")
            self._refuse(ref, error)

    async def _drained(self) -> None:
        while (self._stuck or self._flushing) and self.open:
            future = self._loop.create_future()
            self._room.append(future)
            await future

    def offer(self, remote: RemoteInstance, offer: effects.Offer) -> None:
        """Offer events to an instance. Until they are flushed, all offers of a batch share one copy of it."""
        picks = offer.picks
        edges = [picks.start, picks.stop] if type(picks) is range and picks.step == 1 else Spans.of(picks).edges
        share = wire.Share(remote.local, offer.lease, edges, offer.tried, offer.shadow)
        known = self._offers.get(id(offer.stored))
        if known is not None and known.number >= remote.last:  # else it would overtake earlier offers
            known.shares.append(share)
        else:
            self._offered += 1
            known = self._offers[id(offer.stored)] = BatchOffers(self._offered, offer.stored, [share])
            self._to_offer.append(known)
        remote.last = known.number

    def closed_instance(self, remote: RemoteInstance, reason: str) -> None:
        if self._host.engine.failed.done():
            self.leave()
        elif self._forget(remote):
            self._send(wire.Closed(remote.local, reason))

    def lost_instance(self, remote: RemoteInstance, lease: int | None) -> None:
        if self._instances.get(remote.local) is remote:
            self._send(wire.Lost(remote.local, lease))

    def _forget(self, remote: RemoteInstance) -> bool:
        """Remove an instance. Return False if it left already: its number may be in use again."""
        known = self._instances.get(remote.local) is remote
        if known:
            del self._instances[remote.local]
        return known

    def _send(self, message: wire.Message) -> None:
        self._out.append(message)
        if len(self._out) > MAX_UNREAD:
            self.regulate()
        self._flush_soon()

    def _flush_soon(self) -> None:
        """Flush at the end of the turn, so that its messages travel together."""
        if not self._flushing and not self._stuck and self.open:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def flush_offers(self) -> None:
        if self._to_offer:
            if self._submitted:
                self._answer_submits()
            self._flush()

    def _flush(self) -> None:
        self._flushing = False
        if self._stuck or not self.open:
            return
        try:
            self._write()
        except Exception as error:  # something may be missing at the client, which connects again
            log.error("nothing can be sent to a client: it is disconnected", exc_info=error)
            self._transport.abort()
            self.lost()
            return
        if self._room and not self._stuck:
            self._wake_writers()
        if self._paused:
            self.regulate()

    def _write(self) -> None:
        messages, self._out = self._out, []
        if self._accepted:
            messages.append(wire.Accepted(self._accepted))
            self._accepted = []
        offers, self._to_offer = self._to_offer, []
        self._offers.clear()
        messages += [offer_of(each) for each in offers]
        groups = iter((messages,)) if len(messages) == 1 else wire.groups(messages)  # most are alone
        for group in groups:
            self._transport.send(wire.encode(group))
            if self._stuck:
                self._out = [message for group in groups for message in group]

    def _wake_writers(self) -> None:
        room, self._room = self._room, []
        for future in room:
            if not future.done():
                future.set_result(None)

    def stuck(self) -> None:
        """Note that the peer reads too slowly: its messages wait unencoded."""
        self._stuck = True

    def unstuck(self) -> None:
        self._stuck = False
        self._flush_soon()
        self._wake_writers()
        self.regulate()

    def regulate(self) -> None:
        """Stop reading while too much is not accepted yet, or while the peer does not read its answers."""
        max_bytes = MAX_UNACCEPTED // 2 if self._paused else MAX_UNACCEPTED
        paused = self._unaccepted > max_bytes or len(self._out) > MAX_UNREAD or bool(self._inbound)
        if paused and not self._paused:
            self._transport.pause()
        elif self._paused and not paused:
            self.heard = self._loop.time()
            self._transport.resume()
        self._paused = paused

    def unreceived(self, messages: list[wire.FromServer]) -> None:
        """Give back offers that did not reach the client, which may reconnect. It gets nothing more until then."""
        for local in list(self._instances):
            self._leaving(wire.Leaving(local))
        shares = [share for each in messages if isinstance(each, wire.Offer) for share in each.shares]
        for share in shares:
            self._report(wire.Report(share.instance, share.lease, [], returned=share.picks))

    # Its end ------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Check that the peer is alive and still has its rights. Called now and then."""
        settings = self._host.settings
        if self._grant is None:
            if now - self.since > settings.authenticate_s:
                self.end(ProtocolError(f"expected hello within {settings.authenticate_s:g} s, got none"))
        elif now - self.heard > _SILENT * settings.heartbeat_s and (self._stuck or not self._paused):
            limited.warning(
                ("silent",),
                "a client was silent for two heartbeats, of %g s: it is taken for gone",
                settings.heartbeat_s,
            )
            self._transport.abort()
            self.lost()
        elif self._host.engine.store_id != self._store:  # the one behind has forgotten all: it states that again
            self.leave()
        else:
            if self._paused:  # its pings are not read, and it is to know that the server is there
                self._send(wire.Pong())
            self._check_token()

    def _check_token(self) -> None:
        """Check the token again: it may have been revoked, or have other rights now."""
        try:
            grant = self._host.grant(self._token, self._transport.uid)
        except SolarWindError as error:
            self.end(error)
            return
        if grant != self._grant:
            self._grant = grant
            self._topics.clear()
            for remote in list(self._instances.values()):
                self._check_instance(remote, grant)

    def _check_instance(self, remote: RemoteInstance, grant: Rights) -> None:
        try:
            grant.check_listen(remote.topic, remote.purpose)
        except NotAllowed as refusal:
            self.closed_instance(remote, str(refusal))
            self._host.spawn(self._leave_once_joined(remote))

    def end(self, error: SolarWindError) -> None:
        """Send the reason, and close."""
        if self.open:
            self._stuck = False
            self._out.append(wire.Refused(0, error.code, str(error)))
            self._flush()
            self._transport.close(1002 if isinstance(error, ProtocolError) else 1008, error.code)
            self.lost()

    def leave(self) -> None:
        """Close, because the server stops: the client reconnects when it is back."""
        if self.open:
            self._stuck = False
            self._flush()
            self._transport.close(1012, "the server stops")
            self.lost(died=False)

    async def _leave_all(self, instances: list[int], *, died: bool) -> None:
        for start in range(0, len(instances), _LEAVE_TOGETHER):
            some = instances[start : start + _LEAVE_TOGETHER]
            await asyncio.gather(*[self._host.engine.leave(each, died=died) for each in some])
            await asyncio.sleep(0)

    def lost(self, *, died: bool = True) -> None:
        """Clean up after the connection is gone: the events of its instances are handed out again."""
        if not self.open:
            return
        self.open = False
        self._host.disconnected(self)
        self._wake_writers()
        self._out.clear()
        self._offers.clear()
        self._to_offer.clear()
        self._forget_held()
        self._authors.clear()
        self._inbound.clear()
        remotes, self._instances = self._instances, {}
        joined = [remote.instance for remote in remotes.values() if remote.instance]
        if joined:  # all of them before any leaves, or its events would go to the next, which is gone too
            self._host.engine.leaving(*joined)
            self._host.spawn(self._leave_all(joined, died=died))
        for task in self._tasks:
            task.cancel()


_HANDLERS: dict[type[Any], Callable[[Connection, Any], None]] = {
    wire.Hello: Connection._again,
    wire.Author: Connection._author,
    wire.Submit: Connection._submit,
    wire.Hold: Connection._hold,
    wire.Join: Connection._join,
    wire.Report: Connection._report,
    wire.Alive: Connection._alive,
    wire.Leaving: Connection._leaving,
    wire.Leave: Connection._leave,
    wire.Call: Connection._call,
    wire.Ping: Connection._ping,
}
