"""A dispatcher in another process, whatever carries the bytes: an engine that asks it for everything.

It speaks `solarwind.v1` (see `wire`). When the connection is lost it reconnects by itself: it registers every instance
again and sends every batch that was not accepted again, as the very same bytes, so that nothing is lost and nothing is
stored twice. What instances had in hand then is the server's again: reports on it do not count. An instance that the
server does not accept again is closed, and the others go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .. import wire
from ..batch import Batch, author_of
from ..core.effects import Failure, Join, Offer, Report
from ..core.log import Stored
from ..core.track import MAX_ERROR
from ..engine.backoff import Backoff
from ..engine.base import Link, Receiver, Since
from ..engine.clock import Clock, SteadyClock
from ..engine.files import write_file
from ..engine.running import Running, log_stale
from ..engine.tasks import Tasks
from ..errors import Busy, ProtocolError, SolarWindError, StoreError, TooLarge, Unavailable
from ..logs import limited
from ..origin import MACHINE, process_name
from ..store.definitions import Definitions, in_memory
from .heartbeat import Heartbeat
from .restating import Restating
from .riding import Rides, is_settle, may_ride
from .secrets import ClientSecrets

if TYPE_CHECKING:
    from ..engine.request import Request

log = logging.getLogger("solarwind")

R = TypeVar("R")

HELLO_S = 10.0
MAX_FAILURES = 250  # in a report
_ENVELOPE_BYTES = 64  # of a message around a batch, at most


class _Lost(Exception):
    """The connection is gone, or went while an answer was awaited. Internal: what may be repeated is repeated, and
    anything else raises `Unavailable`."""


class _Member(msgspec.Struct, eq=False):
    """An instance of this process. `entered` is done once it has joined for the first time."""

    number: int
    join: Join
    since: Since
    receiver: Receiver
    entered: asyncio.Future[None]
    rides: bool  # whether its settles may
    generation: int = 0  # of the connection that it has joined by
    leaving: bool = False


class _Submitted(msgspec.Struct, eq=False):
    """A batch that is not accepted yet. `sent`: the server may have it."""

    batch: Batch
    future: asyncio.Future[None]
    sent: bool = False


class Client(Running):
    """An engine on a server: see `Engine`. A subclass defines the link."""

    hello_s = HELLO_S  # that a server has to answer a hello

    def __init__(self, place: str) -> None:
        """`place` is the server in texts, without an article: "server at ws://127.0.0.1:7400"."""
        self.place = place
        self.service_clock: Clock = SteadyClock()
        # By it the server knows after a reconnect, and after its own restart, whose numbers are sent again.
        self._secret = token_bytes(32)
        self.author = author_of(self._secret)
        self._client_secrets = ClientSecrets()
        self.definitions: Definitions = in_memory()  # the server's are its own
        self._link: Link | None = None  # once it is shaken hands on; what is asked before waits
        self._why_lost = ""  # the last link
        self._welcome: wire.Welcome | None = None
        self._together = wire.MAX_TOGETHER
        self._generation = 0  # of connections
        self._base = 0  # of the numbers of leases by this connection: above those of all before
        self._highest = -1  # number of a lease
        self._out_of_reach = f"expected a {place}, but it is out of reach: try again when it is back"
        self._number = 0
        self._out: list[wire.Message] = []
        self._flushing = False
        self._unaccepted: dict[int, _Submitted] = {}
        self._asked: dict[int, tuple[asyncio.Future[list[Any]], list[Any]]] = {}
        self._members: dict[int, _Member] = {}
        self._delivered: list[Receiver] = []  # the receivers of the message that is being read
        self._connecting = False
        self._turned_away = False  # the last connection was ended by the server, for a reason that may pass
        self._heartbeat = Heartbeat(self._send, self._measured)
        self._rides = Rides(self._flush)

    async def _open(self) -> Link:
        """Connect. `_received` gets each message from then on, and `_lost` the reason for its end. Raise `Unavailable`
        where there is no server for now; any other error ends the engine."""
        raise NotImplementedError

    # Life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._error, self._connecting = None, False
        self._tasks = Tasks(self._fail)
        self._members.clear()
        self._restating = Restating()
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self.failed.add_done_callback(lambda future: future.cancelled() or future.exception())
        # While it is set everything is as it should be; or nothing is, any more, and `_check_running` says so.
        self._up = asyncio.Event()
        await self._connect()
        self._running = True
        self._up.set()

    async def stop(self) -> None:
        if not self._running:
            return
        self._running = False
        await self._tasks.end()
        self._heartbeat.end()
        self._rides.end()
        self._flush()
        self._client_secrets.lost()
        link, self._link = self._link, None
        self._fail_all(Unavailable(f"expected the {self.place} to accept it, but this process stopped before it did"))
        if link is not None:
            await link.close()

    def check(self) -> None:
        self._check_running()
        if self._link is None:
            raise Unavailable(self._out_of_reach)

    def _fail(self, error: SolarWindError) -> None:
        """End the engine: the server refuses what this process depends on."""
        if self._error is None:
            log.critical("solarwind stops: %s", error)
            self.end(error)

    def end(self, error: SolarWindError) -> None:
        """End everything with this error."""
        if self._error is not None:
            return
        self._error = error
        self._fail_all(error)
        for member in self._members.values():
            member.receiver.close(str(error))
        self._members.clear()
        if not self.failed.done():
            self.failed.set_exception(error)

    def _fail_all(self, error: SolarWindError) -> None:
        """Fail all that wait for an answer."""
        for each in self._unaccepted.values():
            _refuse(each.future, error)
        self._unaccepted.clear()
        for member in self._members.values():
            _refuse(member.entered, error)
        self._end_asked(error)
        self._up.set()

    # The connection -----------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Connect and exchange `hello` and `welcome`. Raise `Unavailable`, `ProtocolError`, and what the server
        refuses."""
        self._generation += 1
        self._base = self._highest + 1
        self._link = link = await self._open()
        welcome = self._expect(0)
        self._heartbeat.hello(self.service_clock)
        try:
            self._send(wire.Hello(f"{MACHINE}/{process_name()}", None, self._secret))
            async with asyncio.timeout(self.hello_s):
                await welcome
        except TimeoutError:
            link.abort("it did not answer")
            raise Unavailable(f"expected a {self.place} to answer, but it did not") from None
        except _Lost as lost:
            raise Unavailable(str(lost)) from None
        except BaseException:
            link.abort("it was given up")
            raise
        if self._link is not link:  # it ended right behind the welcome
            raise Unavailable(f"expected a {self.place} to stay, but the connection was lost: {self._why_lost}")
        assert self._welcome is not None
        self._heartbeat.begin(link, self._welcome.heartbeat_s)

    def _measured(self, delay_s: float) -> None:
        self.delay_s = delay_s

    def _lost(self, why: str) -> None:
        self._link, self._why_lost = None, why
        self._heartbeat.end()
        self._rides.end()
        self._client_secrets.lost()
        self._out.clear()
        self._end_asked(_Lost(f"expected an answer of the {self.place}, but the connection was lost: {why}"))
        for member in self._members.values():
            member.receiver.lost()
        if self._running and self._error is None and not self._connecting:
            limited.warning(("lost", self.place), "lost the %s: %s; trying to reach it again", self.place, why)
            self._up.clear()
            self._connecting = True
            self._tasks.begin(self._reconnect(), f"the way back to the {self.place}")

    def _end_asked(self, error: Exception) -> None:
        asked, self._asked = self._asked, {}
        for future, _ in asked.values():
            _refuse(future, error)

    async def _reconnect(self) -> None:
        """Reconnect until it succeeds, and restore everything."""
        backoff, turned_away, self._turned_away = Backoff(), self._turned_away, False
        try:
            if turned_away:  # else two that go on with each other badly do nothing else
                await backoff.pause()
            while not await self._is_back() and self._running:
                await backoff.pause()
        except SolarWindError as error:
            self._fail(error)
        else:
            limited.warning(("back", self.place), "the %s is back", self.place, ends=("no", self.place))
        self._connecting = False
        self._up.set()

    async def _is_back(self) -> bool:
        """Try once, and return whether it succeeded. Its last steps run in one turn of the loop, so that the connection
        still exists when it returns True, and a later loss starts a new attempt."""
        try:
            await self._connect()
            await self._restating.restate(self._called, self.store_id)
            while members := [each for each in self._members.values() if not self._is_in(each)]:
                answers = await asyncio.gather(*map(self._enter, members), return_exceptions=True)
                for member, refusal in zip(members, answers, strict=True):
                    self._entered(member, refusal)
            if self._link is None:
                return False
        except (_Lost, *_RETRIED) as error:
            limited.log(("no", self.place), logging.INFO, "no %s yet: %s", self.place, error)
            self._abort("it is not ready")
            return False
        for ref, each in list(self._unaccepted.items()):
            self._put(ref, each)
        return True

    def _is_in(self, member: _Member) -> bool:
        return member.generation == self._generation or member.leaving

    def _entered(self, member: _Member, refusal: BaseException | None) -> None:
        """Complete the registration of an instance. Raise an error that all have to retry; any other concerns this
        instance alone."""
        if refusal is None:
            if not member.entered.done():
                member.entered.set_result(None)
        elif isinstance(refusal, SolarWindError) and not isinstance(refusal, _GONE):
            self._turn_away(member.number, refusal)
        else:
            raise refusal

    def _turn_away(self, number: int, error: SolarWindError) -> None:
        """End an instance that the server refuses, unless it has left already."""
        member = self._members.pop(number, None)
        if member is None:
            return
        if member.entered.done():
            log.error("%r on %r gets nothing more in this process: %s", member.join.purpose, member.join.topic, error)
            member.receiver.close(str(error))
        else:
            _refuse(member.entered, error)

    # In -----------------------------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        try:
            for message in wire.read_server(data):
                _HANDLERS[type(message)](self, message)
        except ProtocolError as error:
            log.error("the %s sent an invalid message: %s", self.place, error)
            self._abort(str(error))
        except Exception as error:
            self._broken(error)
        delivered, self._delivered = self._delivered, []
        for receiver in delivered:
            receiver.flush()

    def _broken(self, error: Exception) -> None:
        """Connect again after an unexpected error: something that came, or was to be sent, is lost on this link."""
        log.error("an unexpected error on the connection to the %s: it is made anew", self.place, exc_info=error)
        self._abort(f"an unexpected {type(error).__name__}")

    def _abort(self, why: str) -> None:
        if self._link is not None:
            self._link.abort(why)

    def _welcomed(self, welcome: wire.Welcome) -> None:
        self._welcome, self.store_id = welcome, welcome.store
        self.patience_s = welcome.heartbeat_s  # the server waits for one and three quarters, of which one may have gone
        self._together = min(wire.MAX_TOGETHER, welcome.frame_bytes // 2)
        self._client_secrets.connected(self._send)
        self._heartbeat.answered()
        self._answered(0, None)

    def _accept(self, accepted: wire.Accepted) -> None:
        for ref in accepted.refs:
            found = self._unaccepted.pop(ref, None)
            if found is not None and not found.future.done():
                found.future.set_result(None)

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
            _refuse(submitted.future, error)
        elif refused.ref in self._asked:
            self._answered(refused.ref, error)
        else:
            limited.error(("ends", self.place), "the %s ends the connection: %s", self.place, error)
            self._turned_away = isinstance(error, _RETRIED)
            if not self._turned_away:
                self._fail(error)

    def _answered(self, ref: int, error: SolarWindError | None) -> None:
        future, items = self._asked.pop(ref, (None, []))
        if future is None or future.done():
            return
        if error is None:
            future.set_result(items)
        else:
            _refuse(future, error)

    def _offered(self, message: wire.Offer) -> None:
        stored = Stored(message.start, Batch.read(message.batch))
        for share in message.shares:
            member = self._members.get(share.instance)
            if member is not None:
                lease, edges = self._base + share.lease, share.picks
                self._highest = max(self._highest, lease)
                picks = wire.read_spans(edges).positions()
                offer = Offer(member.number, lease, stored, picks, share.tried, shadow=share.shadow)
                member.receiver.deliver(offer)
                self._delivered.append(member.receiver)

    def _stale(self, stale: wire.Stale) -> None:
        self._log_stale(stale.instance, stale.lease)
        member = self._members.get(stale.instance)
        if member is not None:
            member.receiver.lost(self._base + stale.lease)

    def _lost_in_hand(self, lost: wire.Lost) -> None:
        member = self._members.get(lost.instance)
        if member is not None:
            member.receiver.lost(None if lost.lease is None else self._base + lost.lease)

    def _closed(self, closed: wire.Closed) -> None:
        self._turn_away(closed.instance, Unavailable(closed.reason))

    def _ponged(self, pong: wire.Pong) -> None:
        self._heartbeat.answered()

    # Out ----------------------------------------------------------------------------------------------

    def _send(self, message: wire.Message, *, rides: bool = False) -> None:
        self._out.append(message)
        if not self._flushing and not (rides and self._rides.wait()):
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        messages, self._out = self._out, []
        if self._link is None:
            return
        try:
            for frame in wire.frames(messages, self._together):
                self._link.send(frame)
        except Exception as error:
            self._broken(error)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _expect(self, ref: int) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._asked[ref] = (future, [])
        return future

    async def _ask(self, make: Callable[[int], wire.Message]) -> list[Any]:
        """Return the items of the answer. Raise what the server raised, and `_Lost`."""
        if self._link is None:
            raise _Lost(self._out_of_reach)
        ref = self._next()
        answer = self._expect(ref)
        self._send(make(ref))
        try:
            return await answer
        finally:
            self._asked.pop(ref, None)

    async def ask(self, request: Request[R]) -> R:
        """See `Engine`."""
        operation = request.operation
        if operation.file is None:
            items = await self._call(request)
        else:
            items = await write_file(request.arguments[operation.file], self._call(request))
        self._restating.note(request, self.store_id)
        answer: R = operation.form.read(items)
        return answer

    async def _called(self, request: Request[Any]) -> list[Any]:
        """Return the items of the answer. Raise what the server raised, and `_Lost`."""
        packed = msgspec.Raw(wire.encode(request.operation.pack(request)))
        return await self._ask(lambda ref: wire.Call(ref, request.operation.name, packed, request.by))

    async def _call(self, request: Request[Any]) -> list[Any]:
        """Return the items of the answer. Raise what the server raised, and `Unavailable` where it is unreachable; an
        operation that may be repeated waits until it is back."""
        waits = request.operation.repeat == "always"
        while True:
            self._check_running()
            if waits:
                await self._up.wait()
                self._check_running()
            elif not self._up.is_set():  # all instances join first: some may ask only for what is theirs
                raise Unavailable(self._out_of_reach)
            try:
                return await self._called(request)
            except _Lost as lost:
                if not waits:
                    raise Unavailable(str(lost)) from None

    # Events and instances -----------------------------------------------------------------------------

    def submit(self, batch: Batch) -> asyncio.Future[None]:
        self._check_running()
        future: asyncio.Future[None] = self._loop.create_future()
        ref = self._next()
        submitted = self._unaccepted[ref] = _Submitted(batch, future)
        if self._up.is_set():
            self._put(ref, submitted)
        return future

    def add_author(self, secret: bytes) -> None:
        self._client_secrets.add(secret)

    def remove_author(self, secret: bytes) -> None:
        self._client_secrets.remove(secret)

    def withdraw(self, submitted: asyncio.Future[None]) -> bool:
        for ref, each in self._unaccepted.items():
            if each.future is submitted and not each.sent:
                del self._unaccepted[ref]
                return True
        return False

    def _put(self, ref: int, submitted: _Submitted) -> None:
        batch, submitted.sent = submitted.batch, True
        assert self._welcome is not None
        max_bytes = self._welcome.frame_bytes - _ENVELOPE_BYTES
        if len(batch.data) > max_bytes:
            text = f"expected a batch of at most {max_bytes:,} bytes, got {len(batch.data):,}"
            self._refuse(wire.Refused(ref, TooLarge.code, f"{text}: serve with more --frame-bytes"))
        else:
            self._send(wire.Submit(ref, batch.data))

    async def join(self, join: Join, since: Since, receiver: Receiver) -> int:
        self._check_running()
        member = _Member(self._next(), join, since, receiver, self._loop.create_future(), may_ride(join))
        self._members[member.number] = member
        try:
            if self._up.is_set():
                with suppress(_Lost):  # then it will be among those that join again
                    await self._enter(member)
                    self._entered(member, None)
            await asyncio.shield(member.entered)
        except BaseException as error:
            self._members.pop(member.number, None)
            if self._link is not None and not isinstance(error, SolarWindError):  # given up: it may have joined by now
                self._send(wire.Leave(self._next(), member.number))
            raise
        return member.number

    async def _enter(self, member: _Member) -> None:
        generation, join, since = self._generation, msgspec.Raw(wire.encode(member.join)), wire.pack_since(member.since)
        for text in await self._ask(lambda ref: wire.Join(ref, member.number, join, since)):
            name = (member.join.topic, member.join.purpose, member.join.version)
            limited.warning(("schema", *name), "%s", str(text)[:MAX_ERROR])
            member.receiver.told(str(text)[:MAX_ERROR])
        member.generation = generation

    def report(self, report: Report, fired: Collection[Batch]) -> bool:
        return self._send_report(report, fired, 0)

    async def settle(self, report: Report, fired: Collection[Batch] = ()) -> bool:
        self._check_running()
        ref = self._next()
        if not self._send_report(report, fired, ref):
            return False
        try:
            return bool((await self._expect(ref))[0])
        except _Lost as lost:
            raise Unavailable(str(lost)) from None

    def _send_report(self, report: Report, fired: Collection[Batch], ref: int) -> bool:
        """Send a report. Return False where its lease is from an earlier connection."""
        if self._link is None or report.lease < self._base:
            self._log_stale(report.instance, report.lease)
            return False
        lease = report.lease - self._base
        failed = [_shortened(failure) for failure in report.failed]
        while len(failed) > MAX_FAILURES:
            self._send(wire.Report(report.instance, lease, [], failed[-MAX_FAILURES:]))
            del failed[-MAX_FAILURES:]
        held = fired if report.done else ()
        for batch in held:
            self._send(wire.Hold(batch.data))
        done, returned = report.done.edges, report.returned.edges
        counts = report.handled, report.busy_ns, len(held), ref
        message = wire.Report(report.instance, lease, done, failed, returned, *counts)
        member = self._members.get(report.instance)
        self._send(message, rides=member is not None and member.rides and is_settle(message))
        return True

    def _log_stale(self, instance: int, lease: int) -> None:
        member = self._members.get(instance)
        log_stale(member.join if member is not None else None, instance, lease)

    def alive(self, instance: int) -> None:
        if self._link is not None:
            self._send(wire.Alive(instance))

    def leaving(self, *instances: int) -> None:
        for member in [self._members[each] for each in instances if each in self._members]:
            member.leaving = True
            if self._link is not None:
                self._send(wire.Leaving(member.number))

    async def leave(self, instance: int, *, died: bool = False) -> None:
        if self._members.pop(instance, None) is not None and self._link is not None:
            try:
                await self._ask(lambda ref: wire.Leave(ref, instance, died))
            except (_Lost, SolarWindError):  # then it is gone anyway
                pass


def _refuse(future: asyncio.Future[Any], error: Exception) -> None:
    """Fail a future without a warning where it is not awaited."""
    if not future.done():
        future.set_exception(error)
        future.exception()


def _shortened(failure: Failure) -> Failure:
    """Return the failure with its error cut to the length that a dead letter keeps."""
    if len(failure.error) <= MAX_ERROR:
        return failure
    return msgspec.structs.replace(failure, error=failure.error[:MAX_ERROR])


_GONE = (Unavailable, StoreError)
_RETRIED = (*_GONE, Busy)
_HANDLERS: dict[type[Any], Callable[[Client, Any], None]] = {
    wire.Welcome: Client._welcomed,
    wire.Accepted: Client._accept,
    wire.Done: Client._done,
    wire.Refused: Client._refuse,
    wire.Offer: Client._offered,
    wire.Stale: Client._stale,
    wire.Lost: Client._lost_in_hand,
    wire.Closed: Client._closed,
    wire.Pong: Client._ponged,
}
