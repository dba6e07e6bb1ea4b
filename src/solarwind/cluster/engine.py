"""The engine of `nats://`: it puts batches into the streams, and asks the owner of a topic's partition for all else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from secrets import token_bytes
from typing import Any, TypeVar

import msgspec
from nats.aio.msg import Msg

from ..batch import AUTHOR_BYTES, Batch
from ..core.effects import Join, Report
from ..engine import audit
from ..engine.answers import Page
from ..engine.arguments import LAST_PLACE, PLACE
from ..engine.base import NOTHING, Link, Receiver, Since
from ..engine.clock import Clock, SteadyClock
from ..engine.request import Owns, Request
from ..engine.running import Running
from ..engine.schedules import OF_SCHEDULES, ScheduleOperations
from ..engine.tasks import Tasks, end_tasks
from ..engine.tracing import trace
from ..engine.watch import Watch, Watched
from ..engine.webhook_part import OF_WEBHOOKS, WebhookOperations
from ..errors import NotFound, SolarWindError, StoreError, Unavailable
from ..limits import Limits
from ..names import check_topic, no_purpose, no_topic
from ..operations import OPERATIONS, Internal
from ..origin import this_process
from ..peer.client import Client
from ..records import Attention, AuditEntry, DelayedEvent, OwnerInfo, Trace, sorted_attention
from ..store.definitions import Definitions
from . import session
from .address import MAX_STREAMS, read_address
from .definitions import DefinitionKeys
from .durability import log_durability
from .layout import Layout
from .link import ENDED, MemoryLink, NatsLink, NatsTransport
from .namespace import open_namespace
from .owner import HEARTBEAT_S, Owner
from .owners import Owners
from .publish import Publisher
from .session import Refusal, Session, refused
from .store import JetStreamStore, no_file

log = logging.getLogger("solarwind")

R = TypeVar("R")
ATTENTION_S = 5.0  # in which a partition has another owner
OWNER_S = 10.0  # how long a request waits until an owner is found
OWNER_AGAIN_S = 0.1
STOP_S = 5.0  # that what was submitted has to be accepted at the end


class PartitionClient(Client):
    """This process as a client of the owner of a partition, whichever process that is."""

    hello_s = HEARTBEAT_S  # a hello that NATS drops is said again

    def __init__(self, engine: NatsEngine, partition: int) -> None:
        super().__init__(f"process that owns partition {partition}")
        self._engine = engine
        self.partition = partition

    def _next(self) -> int:
        """Return the number of an instance, which says which partition it belongs to."""
        return super()._next() * MAX_STREAMS + self.partition

    def _measured(self, delay_s: float) -> None:
        super()._measured(delay_s)
        self._engine.measured()

    async def _open(self) -> Link:
        return await self._engine.open_link(self.partition, self._received, self._lost)

    def moved(self, node: str) -> None:
        """Leave the link to the former owner: another node owns the partition now, and the former may be gone without a
        word."""
        if isinstance(self._link, NatsLink) and self._link.node != node:
            self._link.abort("it owns it no more")

    async def _call(self, request: Request[Any]) -> list[Any]:
        """Ask the owner. Partitions move while all is well, so wait for the next owner, and ask again what changes
        nothing."""
        if request.operation.repeat == "always":
            return await super()._call(request)
        try:
            async with asyncio.timeout(OWNER_S):
                while True:
                    await self._up.wait()
                    try:
                        return await super()._call(request)
                    except Unavailable:
                        if self._up.is_set() or request.operation.repeat != "question":
                            raise
        except TimeoutError:
            if not self._up.is_set():
                raise Unavailable(self._out_of_reach) from None
            raise Unavailable(
                f"expected the process that owns partition {self.partition} to answer within {OWNER_S:g} s, but it is "
                "busy: ask less at once; what was asked for may still be done"
            ) from None


class NatsEngine(Running, Watched, ScheduleOperations, WebhookOperations):
    """See `Engine`. Tests state `clock` and `random`."""

    patience_s = HEARTBEAT_S

    def __init__(
        self,
        url: str,
        *,
        limits: Limits | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] | None = None,
        serves: bool = False,
        makes: bool = True,
    ) -> None:
        """`serves`: it may own partitions though it has no instances of its own. Unless it `makes` a namespace, that
        has to be there already. Raise `BadArgument`."""
        self.address = read_address(url)
        self.url = self.address.shown
        self._limits = limits or Limits()
        self.author = token_bytes(AUTHOR_BYTES)
        self._clock = clock
        self.service_clock: Clock = SteadyClock()
        if random is not None:
            self._random = random
        self._serves = serves
        self._makes = makes
        self._clear()

    def _clear(self) -> None:
        """Reset everything to what it was before the first start."""
        self._error = None
        self._session = Session(self.address)
        self._opened_parts = AsyncExitStack()  # ends what was opened, the last first
        self._clients: dict[int, asyncio.Task[PartitionClient]] = {}
        self._started: dict[int, PartitionClient] = {}
        self._links: dict[int, str] = {}  # the name of the last link to each partition's owner
        self._watch = Watch(self._answer, lambda: self._tasks)
        self._audit = audit.Audit(lambda: self.definitions)
        self._transports: dict[str, NatsTransport] = {}  # by the names of their clients' links

    # Life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See `Engine`. If it is cancelled it leaves nothing open: nats-py ignores a cancellation that comes while it
        writes, so `_start` may be cancelled several times, and what it opened is closed here."""
        starting = asyncio.create_task(self._start())
        try:
            await asyncio.wait([starting])
            starting.result()
        except BaseException:
            await end_tasks([starting])
            await (self.stop() if self._running else self._opened_parts.aclose())
            raise

    async def _start(self) -> None:
        self._clear()
        loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = loop.create_future()
        self.failed.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._session.failed = self._fail
        self._opened_parts.push_async_callback(self._session.close)
        await self._session.open()
        try:
            async with asyncio.timeout(session.START_S):
                await self._open()
        except Refusal as refusal:
            raise refused(refusal, f"open namespace {self.address.namespace!r}") from refusal
        except TimeoutError:
            raise self._session.no_quorum() from None
        self._running = True
        self._tasks = Tasks(self._fail)
        self._tasks.spawn(log_durability(self._session, self._layout.settings.replicas), "a look at durability")

    async def _open(self) -> None:
        """Open the namespace. Raise what `open_namespace` raises."""
        self._layout: Layout = await self._session.until_answered(
            lambda: open_namespace(self._session, makes=self._makes), "open a namespace"
        )
        self._publisher = Publisher(self._session, self._layout, self._limits)
        self._opened_parts.push_async_callback(self._publisher.stop)
        self._owners = Owners(self._session, self._layout, self._make_owner)
        self._owners.opened = self._opened
        self._owners.moved = self._moved
        self._owners.failed = self._fail
        keys = DefinitionKeys(self._session, self._layout)
        self.definitions: Definitions = keys.definitions
        self._owners.received = keys.received
        self._opened_parts.push_async_callback(self._owners.stop)
        await self._owners.start()
        if self._serves:
            self._owners.participate()

    async def stop(self) -> None:
        if not self._running:
            return
        if self._publisher.unaccepted and self._error is None:
            await asyncio.wait(self._publisher.unaccepted, timeout=STOP_S)
        self._running = False
        await self._tasks.end()
        await end_tasks(task for task in self._clients.values() if not task.done())
        found = await asyncio.gather(*self._clients.values(), return_exceptions=True)
        await asyncio.gather(*(each.stop() for each in found if isinstance(each, PartitionClient)))
        await self._opened_parts.aclose()

    def check(self) -> None:
        self._check_running()
        if not self._session.is_up:
            raise Unavailable(f"expected NATS at {self.url}, but it is out of reach: try again when it is back")
        for partition, why in self._owners.troubles.items():
            raise Unavailable(
                f"expected partition {partition} to be dispatched here, but that failed and is tried again: {why}"
            )
        for owner in self._owners.mine.values():
            owner.engine.check()

    def _fail(self, error: SolarWindError) -> None:
        """End: NATS refuses something that this process needs."""
        if self._error is None:
            log.critical("solarwind stops: %s", error)
            self._error = error
            if not self.failed.done():
                self.failed.set_exception(error)
            if self._running:
                self._owners.end(StoreError(str(error)))
                for client in self._started.values():
                    client.end(error)

    def _make_owner(self, partition: int, ended: Callable[[Owner, StoreError], None]) -> Owner:
        store = JetStreamStore(self._session, self._layout, partition, self._publisher, self.definitions)
        store.rightful = partial(self._owners.owns, partition)
        return Owner(store, self._limits, ended, clock=self._clock, random=self._random)

    # The way to owners --------------------------------------------------------------------------------

    def _moved(self, partition: int, node: str) -> None:
        client = self._started.get(partition)
        if client is not None:
            client.moved(node)

    async def open_link(self, partition: int, received: Callable[[bytes], None], lost: Callable[[str], None]) -> Link:
        """Return an open link to the owner of a partition. Raise `Unavailable` if there is none in time."""
        until = asyncio.get_running_loop().time() + OWNER_S
        while True:
            node, owner = await self._owners.owner_of(partition, OWNER_S)
            if owner is not None:
                return MemoryLink(owner.connected, received, lost)
            link = NatsLink(self._session, self._layout, node, received, lost, self._owners.suspect)
            opening = link.open(partition, self._links.get(partition, ""))
            try:
                await self._owners.while_owner(partition, node, opening)
                self._links[partition] = link.name
                link.check()
                return link
            except Unavailable as error:
                link.abort(str(error))
                if asyncio.get_running_loop().time() > until:
                    raise
            await asyncio.sleep(OWNER_AGAIN_S)

    async def _opened(self, message: Msg) -> None:
        """Handle a message of a client for this process as an owner."""
        what, _, number = message.subject.removeprefix(self._layout.live(f"node.{self._owners.node}.")).partition(".")
        transport = self._transports.get(what)
        if transport is not None:
            await transport.receive(message, number)
        elif what == "open":
            await self._open_transport(message)
        else:
            await self._session.answer(message, ENDED)

    async def _open_transport(self, message: Msg) -> None:
        try:
            asked = msgspec.json.decode(message.data)
            partition, name, after = int(asked["partition"]), str(asked["name"]), str(asked["after"])
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
            log.warning("a message that Solar Wind did not write came at %s", message.subject)
            return
        answer = {}
        owner = self._owners.mine.get(partition)
        if owner is None or not owner.ready:
            answer = {"refused": f"expected an owner of partition {partition}, but this process is not its owner"}
            if owner is None:
                self._owners.doubt(partition)
        else:
            if after in self._transports:
                self._transports[after].replaced()
            there, here = self._layout.live(f"client.{name}"), self._layout.live(f"node.{self._owners.node}.{name}")
            forget = partial(self._forget, name)
            self._transports[name] = NatsTransport(self._session, owner.connected, there, here, forget)
        await self._session.answer(message, msgspec.json.encode(answer))

    def _forget(self, name: str) -> None:
        self._transports.pop(name, None)

    async def _client(self, partition: int) -> PartitionClient:
        """Return the client of a partition's owner. Raise `Unavailable` if there is no owner in time."""
        task = self._clients.get(partition)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._clients[partition] = asyncio.ensure_future(self._start_client(partition))
        return await asyncio.shield(task)

    async def _start_client(self, partition: int) -> PartitionClient:
        await self._publisher.ensure(partition)
        client = self._started[partition] = PartitionClient(self, partition)
        until = asyncio.get_running_loop().time() + OWNER_S
        while True:
            try:
                await client.start()
                break
            except Unavailable:
                if asyncio.get_running_loop().time() > until:
                    raise
                await asyncio.sleep(0.05)
        client.failed.add_done_callback(self._client_failed)
        return client

    def measured(self) -> None:
        """Use the longest delay of all owners as its own."""
        self.delay_s = max(client.delay_s for client in self._started.values())

    def _client_failed(self, future: asyncio.Future[None]) -> None:
        error = future.exception() if not future.cancelled() else None
        if isinstance(error, SolarWindError):
            self._fail(error)

    async def _client_of(self, topic: str) -> PartitionClient:
        self._check_running()
        return await self._client(self._layout.partition(check_topic(topic)))

    async def _existing(self, topic: str, purpose: str = "") -> PartitionClient:
        """Return the client of a topic's partition. Raise `NotFound`, as its owner would, if the partition was never
        used."""
        partition = self._layout.partition(topic)
        if partition not in await self._partitions():
            raise no_purpose(topic, purpose) if purpose else no_topic(topic)
        return await self._client(partition)

    async def _partitions(self) -> list[int]:
        """Return the numbers of the partitions that are in use."""
        self._check_running()
        return await self._owners.known()

    async def _of_each(self, request: Request[R]) -> list[tuple[R, Owns]]:
        """Ask all owners."""

        async def one(partition: int) -> tuple[R, Owns]:
            answer = await (await self._client(partition)).ask(request)
            return answer, lambda topic: self._layout.partition(topic) == partition

        return await asyncio.gather(*map(one, await self._partitions()))

    async def _of_any(self, request: Request[R]) -> R:
        """Ask the owner of the topic, and then the others: what a handler delayed is with the owner of the topic whose
        event it handled. Return the first answer that there is."""
        own = self._layout.partition(request.arguments["topic"])
        answer: R | NotFound | None = None
        for partition in sorted(await self._partitions(), key=lambda each: each != own):
            try:
                answer = await (await self._client(partition)).ask(request)
                if answer is not False:
                    return answer
            except NotFound as error:
                answer = error
        if answer is None:
            raise no_topic(request.arguments["topic"])
        if isinstance(answer, NotFound):
            raise answer
        return answer

    # Events and instances -----------------------------------------------------------------------------

    def submit(self, batch: Batch) -> asyncio.Future[None]:
        self._check_running()
        if batch.header.due is None:
            return self._publisher.submit(batch)
        submitted = self._tasks.keep(self._delay(batch))
        self._publisher.unaccepted.add(submitted)
        submitted.add_done_callback(self._publisher.unaccepted.discard)
        return submitted

    async def _delay(self, batch: Batch) -> None:
        """Have the owner accept a batch with due times: only it writes the due-log, and in the topic's stream the batch
        would be handed out at once. Raise what the owner refuses."""
        self._owners.participate_where_nobody_does()
        client = await self._client_of(batch.topic)
        await client.submit(batch)

    def withdraw(self, submitted: asyncio.Future[None]) -> bool:
        return self._publisher.withdraw(submitted)

    async def join(self, join: Join, since: Since, receiver: Receiver) -> int:
        self._check_running()
        self._owners.participate()
        client = await self._client_of(join.topic)
        return await client.join(join, since, receiver)

    def _client_with(self, instance: int) -> PartitionClient:
        return self._started[instance % MAX_STREAMS]

    def report(self, report: Report, fired: Collection[Batch]) -> bool:
        return self._client_with(report.instance).report(report, fired)

    async def settle(self, report: Report, fired: Collection[Batch] = ()) -> bool:
        self._check_running()
        return await self._client_with(report.instance).settle(report, fired)

    def alive(self, instance: int) -> None:
        self._client_with(instance).alive(instance)

    def leaving(self, *instances: int) -> None:
        for instance in instances:
            self._client_with(instance).leaving(instance)

    async def leave(self, instance: int, *, died: bool = False) -> None:
        await self._client_with(instance).leave(instance, died=died)

    # Operations ---------------------------------------------------------------------------------------

    async def ask(self, request: Request[R]) -> R:
        """See `Engine`."""
        self._check_running()
        operation = request.operation
        if operation.name in _BY_ITSELF:
            answer: R = await _BY_ITSELF[operation.name](self, **request.arguments)
            if operation.audited:
                request = msgspec.structs.replace(request, by=request.by or this_process())
                await self._audit.note(audit.entry_of(request, answer, self._wall_time()))
            return answer
        if operation.merge is not None:
            return operation.merge(await self._of_each(request))
        if operation.to == "any":
            return await self._of_any(request)
        topic, purpose = request.arguments["topic"], request.arguments.get("purpose", "")
        client = await (self._client_of(topic) if operation.makes else self._existing(topic, purpose))
        return await client.ask(request)

    def _stored_definitions(self) -> Definitions:
        return self.definitions

    def _wall_time(self) -> int:
        return (self._clock or self.service_clock).wall()

    async def _answer(self, name: str, **given: Any) -> Any:
        return await OPERATIONS[name](self, **given)

    async def _idle(self, purposes: Collection[tuple[str, str]]) -> None:
        """Wait until the purposes have nothing to do. What one partition's handlers fire may be another's work, so ask
        all of them until nothing was fired on the purposes' topics between two times."""
        by_partition: dict[int, list[tuple[str, str]]] = {}
        for topic, purpose in purposes:
            by_partition.setdefault(self._layout.partition(topic), []).append((topic, purpose))
        before: list[int] | None = None
        while True:
            self._check_running()
            if self._publisher.unaccepted:
                await asyncio.wait(self._publisher.unaccepted)
            for partition, some in by_partition.items():
                await Internal.idle(await self._client(partition), some)
            if len(by_partition) < 2:
                return
            after = []
            for partition, some in by_partition.items():
                topics = (await Internal.statistics(await self._client(partition))).topics
                after += [topics[topic].fired for topic, _ in some if topic in topics]
            if after == before:
                return
            before = after

    async def _left(self, purposes: Collection[tuple[str, str]]) -> str:
        parts = []
        for partition in sorted({self._layout.partition(topic) for topic, _ in purposes}):
            some = [names for names in purposes if self._layout.partition(names[0]) == partition]
            parts.append(await Internal.left(await self._client(partition), some))
        return "; ".join(part for part in parts if part != NOTHING) or NOTHING

    async def _trace(self, id: str, after: str | None, limit: int) -> Trace:
        return await trace(partial(Internal.lookup, self), partial(Internal.effects, self), id, after, limit)

    async def _delayed(self, topic: str | None, after: str | None, limit: int) -> Page[DelayedEvent]:
        """Ask all owners, and put their pages together: by when events are due, and then by partition."""
        begins = None if after is None else PLACE.fullmatch(after)

        async def one(partition: int) -> list[tuple[int, int, DelayedEvent]]:
            its = after
            if begins is not None and int(begins[1] or 0) != partition:
                # Of what is due at that time all of it was shown of the partitions before, and nothing of those after.
                due = int(begins[2]) - (int(begins[1] or 0) < partition)
                its = f"{due}.{LAST_PLACE}.-" if due >= 0 else None
            found = await Internal.delayed(await self._client(partition), topic, its, limit)
            more.extend([partition] * (found.next is not None))
            return [(int(each.place.split(".")[0]), partition, each) for each in found]

        more: list[int] = []
        found = await asyncio.gather(*map(one, await self._partitions()))
        merged = sorted((each for some in found for each in some), key=lambda each: each[:2])
        items = [
            msgspec.structs.replace(each, place=f"{partition}-{each.place}") for _, partition, each in merged[:limit]
        ]
        return Page(items, items[-1].place if items and (more or len(merged) > limit) else None)

    async def _backup(self, path: str) -> None:
        raise no_file()

    async def _attention(self, limit: int) -> list[Attention]:
        """Ask all owners; a partition without one needs a person as well."""

        async def one(partition: int) -> list[Attention]:
            try:
                async with asyncio.timeout(ATTENTION_S):
                    return await Internal.attention(await self._client(partition), limit)
            except (Unavailable, TimeoutError):
                text = f"Partition {partition} has no owner: its events are accepted, and pend until there is one"
                return [Attention("no owner", "high", "", "", None, text, "solarwind owners")]

        found = await asyncio.gather(*map(one, await self._partitions()))
        return sorted_attention(each for some in found for each in some)[:limit]

    async def _note_relay(self, **given: Any) -> None:
        """Tell one owner, which names it among what needs a person."""
        for partition in (await self._partitions())[:1]:
            await Internal.note_relay(await self._client(partition), **given)

    async def _read_audit(self, after: str | None, limit: int) -> Page[AuditEntry]:
        """Read it from the bucket: it needs no owner."""
        return await audit.read(self.definitions, after, limit)

    async def _all_owners(self) -> list[OwnerInfo]:
        async def topics(partition: int) -> tuple[str, ...] | None:
            try:
                found = await Internal.topics(await self._client(partition))
            except Unavailable:
                return None
            return tuple(each.topic for each in found if self._layout.partition(each.topic) == partition)

        partitions = await self._partitions()
        found = await asyncio.gather(*map(topics, partitions))
        return [
            OwnerInfo(partition, self._layout.events_stream(partition), self._owners.name_of(partition), names)
            for partition, names in zip(partitions, found, strict=True)
        ]


_BY_ITSELF: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {
    "attention": NatsEngine._attention,
    "audit": NatsEngine._read_audit,
    "delayed": NatsEngine._delayed,
    "idle": NatsEngine._idle,
    "left": NatsEngine._left,
    "note_relay": NatsEngine._note_relay,
    **{name: getattr(NatsEngine, name) for name in OF_SCHEDULES},
    "trace": NatsEngine._trace,
    "backup": NatsEngine._backup,
    "owners": NatsEngine._all_owners,
    "watch": NatsEngine.watch,
    **{name: getattr(NatsEngine, name) for name in OF_WEBHOOKS},
}
