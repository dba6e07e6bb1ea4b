"""Which process owns which partition: owners are found, elected, spread evenly, and replaced when a process joins,
leaves, hangs or dies.

The record of owners is in the namespace's bucket and is changed by compare-and-set, so there is one. Heartbeats tell
which processes live. Neither guards the data: the log (`log`) refuses what a former owner writes. So a process that is
in doubt may become the owner of a partition; the worst effect is one move too many.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from uuid import uuid4
from zlib import crc32

import msgspec
from nats.aio.msg import Msg

from ..engine.tasks import Tasks, end_tasks
from ..errors import SolarWindError, StoreError, Unavailable
from ..origin import MACHINE, process_name
from .layout import Layout
from .owner import Owner
from .session import EXPECT, WRONG_SEQUENCE, Identity, NoAnswer, Nobody, Raw, Refusal, Session
from .tail import Tail

log = logging.getLogger("solarwind")

HEARTBEAT_S = 1.0
DOUBT_S = 1.5  # without a heartbeat, after which a process is asked
SILENT_S = 3.0  # without a heartbeat, after which it is gone
AGAIN_S = 0.5  # that a process which NATS does not find has to connect again
ASK_S = 0.5  # that a process has to answer
LEAST_S = 0.1  # the same, where it is silent for long
TURN_S = 0.25  # between two looks at the owners
HELLO_S = 0.1  # that others have to say that they are there
OTHERS_FIRST_S = 0.7  # that a partition is left to the process that should take it
STEADY_S = 2.0  # without a process that joins or leaves, before partitions move for balance
MOVE_S = 0.5  # between two such moves
NEWS_S = 2.0  # that the bucket's leader has to say what is new


class Record(msgspec.Struct):
    """Which process owns a partition, as the bucket has it. `revision` is the record's sequence there."""

    node: str = ""
    name: str = ""
    revision: int = 0


class Member(msgspec.Struct):
    """Another process: what its heartbeats say, and when the last one came."""

    node: str
    name: str
    owned: list[int]
    takes_part: bool
    heard: float = 0.0


Ended = Callable[[Owner, StoreError], None]
MakeOwner = Callable[[int, Ended], Owner]


class Owners:
    """This process among the others. `make` makes an owner of a partition, without starting it."""

    def __init__(self, session: Session, layout: Layout, make: MakeOwner) -> None:
        self.node = uuid4().hex[:12]
        self.name = f"{MACHINE}/{process_name()}"
        self.records: dict[int, Record] = {}
        self.mine: dict[int, Owner] = {}
        self.members: dict[str, Member] = {}
        self.opened: Callable[[Msg], Awaitable[None]] = _ignore
        self.moved: Callable[[int, str], None] = lambda partition, node: None  # to that node
        self.failed: Callable[[SolarWindError], None] = lambda error: None
        self._session = session
        self._layout = layout
        self._make = make
        self._takes_part = False
        self._wanted: set[int] = set()
        self._awaited: Counter[int] = Counter()  # how many wait for the owner of a partition
        self._doubtful: set[int] = set()  # partitions whose records may be others than those here
        self._starting: dict[int, asyncio.Task[None]] = {}
        self._not_before: dict[int, float] = {}  # when a partition may be started anew, if it ended right after a start
        self._unowned: dict[int, float] = {}  # since when a partition is seen without an owner
        self._began = 0.0
        self._awake_at = 0.0  # when this process was at work last
        self._changed_at = 0.0  # when a process joined or left
        self._moved_at = 0.0
        self.received: Callable[[Raw], None] = lambda raw: None  # gets what else is in the bucket
        self._wake = asyncio.Event()
        self._news = asyncio.Condition()
        self._tail: Tail | None = None
        self._tasks = Tasks(lambda error: self.failed(error))
        self.troubles: dict[int, str] = {}  # of partitions that this process is to own and does not: why
        self._stopping = False
        self._loop = asyncio.get_running_loop()

    # Life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._began = self._changed_at = self._awake_at = self._loop.time()
        self._session.back.append(self._back)
        bucket = self._layout.bucket_stream
        about = await self._session.until_answered(
            lambda: self._session.api(f"STREAM.INFO.{bucket}"), "open a namespace"
        )
        last, created = int(about["state"]["last_seq"]), str(about["created"])
        self._tail = Tail(
            self._session,
            bucket,
            self._record,
            self._bucket_gone,
            lambda error: self.failed(error),
            created=created,
            last_per_subject=True,
        )
        self._session.mark = Identity(bucket, created, bool((about.get("cluster") or {}).get("name")))
        self._session.vital = bucket, self._layout.state_stream
        await self._subscribe()
        self._tail.begin()
        await self._tail.until(last)
        self._tasks.begin(self._run(), "the look at who owns what")
        self._tasks.repeat(self._send_heartbeat, HEARTBEAT_S, "the heartbeat to other processes")
        self._tasks.repeat(self._stay_awake, TURN_S, "the look at whether this process stood still")

    async def stop(self) -> None:
        """Hand over each partition that this process owns to a process that goes on, or to none."""
        self._stopping = True
        await self._tasks.end()
        await asyncio.gather(*(self._hand_over(partition, self._heir()) for partition in list(self.mine)))
        self._takes_part = False
        if self._session.is_up:
            await self._send_heartbeat()
        if self._back in self._session.back:
            self._session.back.remove(self._back)
        if self._tail is not None:
            await self._tail.end()

    def end(self, error: StoreError) -> None:
        """End at once: the partitions that this process owns stop as they are."""
        self._stopping = True
        self._tasks.cancel()
        for owner in list(self.mine.values()):
            owner.engine.end(error)

    def participate(self) -> None:
        """Let this process own partitions from now on."""
        if not self._takes_part:
            self._takes_part = True
            self._changed_at = self._loop.time()
            self._tasks.spawn(self._send_heartbeat(), "a heartbeat")
            self._wake.set()

    def participate_where_nobody_does(self) -> None:
        """Let this process own partitions from now on, if no other does: it needs an owner."""
        if not any(member.takes_part for member in self.members.values()):
            self.participate()

    def _back(self) -> None:
        """Subscribe again: the subscriptions were lost with the connection. A process that was not heard of meanwhile
        may well live."""
        self._trust()
        self._tasks.begin(self._subscribe(), "the subscription to other processes")

    async def _stay_awake(self) -> None:
        """Notice when this process stood still: it could not receive heartbeats meanwhile, so no process counts as gone
        for that."""
        now = self._loop.time()
        if now - self._awake_at > HEARTBEAT_S:
            self._trust()
        self._awake_at = now

    def _trust(self) -> None:
        """Count all processes as alive as of now."""
        for member in self.members.values():
            member.heard = self._loop.time()

    def _bucket_gone(self) -> None:
        self.failed(
            StoreError(f"expected bucket {self._layout.bucket}, but it was deleted: start again to make it anew")
        )

    async def _subscribe(self) -> None:
        try:
            await self._session.subscribe(self._layout.live("heartbeat"), self._heartbeat_came)
            await self._session.subscribe(self._layout.live("hello"), self._hello_came)
            await self._session.subscribe(self._layout.live(f"node.{self.node}.>"), self._asked)
            await self._session.tell(self._layout.live("hello"), self.node.encode())
            await self._send_heartbeat()
            await self._session.flush()
        except NoAnswer:
            pass  # the connection is gone again: `_back` will be called

    # Heartbeats ---------------------------------------------------------------------------------------

    async def _send_heartbeat(self) -> None:
        if not self._takes_part and not self.mine and not self._stopping:
            return
        heartbeat = Member(self.node, self.name, sorted(self.mine), self._takes_part and not self._stopping)
        try:
            await self._session.tell(self._layout.live("heartbeat"), msgspec.json.encode(heartbeat))
        except NoAnswer:
            pass  # it is not heard anyway

    async def _hello_came(self, message: Msg) -> None:
        if message.data != self.node.encode():
            await self._send_heartbeat()

    async def _heartbeat_came(self, message: Msg) -> None:
        try:
            member = msgspec.json.decode(message.data, type=Member)
        except msgspec.MsgspecError:
            log.warning("an invalid heartbeat came at %s", message.subject)
            return
        if member.node == self.node:
            return
        known = self.members.get(member.node)
        if known is None and not member.takes_part and not member.owned:
            return  # a process that only asked something says goodbye
        if known is None or known.takes_part != member.takes_part:
            self._changed_at = self._loop.time()
            self._wake.set()
        member.heard = self._loop.time()
        self.members[member.node] = member
        if known is None:
            self._tell()  # it may be an owner that is waited for
        if not member.takes_part and not member.owned:
            del self.members[member.node]  # it says goodbye

    async def _asked(self, message: Msg) -> None:
        what = message.subject.removeprefix(self._layout.live(f"node.{self.node}."))
        if what == "ping":
            await self._session.answer(message, b"")
        else:
            await self.opened(message)

    # Records ------------------------------------------------------------------------------------------

    def _record(self, raw: Raw) -> None:
        key = raw.subject.removeprefix(self._layout.key(""))
        kind, _, partition = key.partition(".")
        if kind != "owner":
            self.received(raw)
            return
        if not partition.isdecimal() or not 0 <= int(partition) < self._layout.settings.streams:
            log.error("key %s of bucket %s was not written by Solar Wind", key, self._layout.bucket)
            return
        try:
            record = _read_record(raw)
        except msgspec.MsgspecError as error:
            log.error("key %s of bucket %s was not written by Solar Wind: %s", key, self._layout.bucket, error)
            record = Record(revision=raw.seq)
        known = self.records.get(int(partition))
        if known is None or known.revision < raw.seq:
            self.records[int(partition)] = record
            self._wake.set()
            self._tell()
            if record.node:
                self.moved(int(partition), record.node)

    def _tell(self) -> None:
        """Wake those who wait for an owner."""
        self._tasks.spawn(self._notify(), "news of owners")

    async def _notify(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def owner_of(self, partition: int, wait_s: float) -> tuple[str, Owner | None]:
        """Return the node that owns a partition, and the owner itself where it is in this process. Wait for it for
        `wait_s` seconds at most. Raise `Unavailable`."""
        self._wanted.add(partition)
        self._awaited[partition] += 1
        self._wake.set()
        try:
            async with asyncio.timeout(wait_s):
                async with self._news:
                    while True:
                        found = self._known_owner(partition)
                        if found is not None:
                            return found
                        await self._news.wait()
        except TimeoutError:
            raise Unavailable(
                f"expected an owner of partition {partition} of namespace {self._layout.namespace!r}, but there is "
                "none yet: try again"
            ) from None
        finally:
            self._awaited -= Counter([partition])

    async def known(self) -> list[int]:
        """Return the numbers of the partitions that are in use by now, whoever brought them into use; while the
        bucket's leader does not answer, those that were last heard of."""
        if self._tail is not None:
            await asyncio.wait([self._tail.sync()], timeout=NEWS_S)
        return sorted(self.records)

    def doubt(self, partition: int) -> None:
        """Ask the bucket's leader for the record of a partition: another process says something else about its
        owner."""
        if partition in self.records:
            self._doubtful.add(partition)
            self._wake.set()

    async def _ask_for_record(self, partition: int) -> None:
        """Read the record from the bucket's leader: what the bucket sends by itself may be behind."""
        try:
            raw = await self._session.last(self._layout.bucket_stream, self._layout.key(f"owner.{partition}"))
        except (NoAnswer, Refusal):
            return
        self._doubtful.discard(partition)
        if raw is not None:
            self._record(raw)

    async def while_owner(self, partition: int, node: str, work: Coroutine[Any, Any, None]) -> None:
        """Do work that needs that owner, and give it up once another process owns the partition: an owner that hangs
        does not answer. Raise `Unavailable`."""
        tasks = [self._loop.create_task(work), self._loop.create_task(self._moved(partition, node))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not tasks[0].done():
                await end_tasks(tasks[:1])
            await end_tasks(tasks[1:])
        if not tasks[0].cancelled():
            tasks[0].result()
        if tasks[0].cancelled() or self.records[partition].node != node:
            raise Unavailable(f"expected partition {partition} to stay with its owner, but it moved: try again")

    async def _moved(self, partition: int, node: str) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self.records[partition].node != node)

    def name_of(self, partition: int) -> str:
        """Return the name of the process that owns a partition; "" where none does, or this process only helps out."""
        record = self.records[partition]
        owns = self._takes_part if record.node == self.node else record.node in self.members
        return record.name if owns else ""

    async def owns(self, partition: int) -> bool:
        """Return whether this process owns a partition by the record in the bucket, not by what is known of it here.
        Raise `Refusal` and `NoAnswer`."""
        raw = await self._session.last(self._layout.bucket_stream, self._layout.key(f"owner.{partition}"))
        try:
            return raw is not None and _read_record(raw).node == self.node
        except msgspec.MsgspecError:
            return False

    def _known_owner(self, partition: int) -> tuple[str, Owner | None] | None:
        record = self.records.get(partition)
        if record is None or not record.node:
            return None
        if record.node == self.node:
            owner = self.mine.get(partition)
            return (self.node, owner) if owner is not None and owner.ready else None
        return (record.node, None) if record.node in self.members else None

    async def _change(self, partition: int, node: str, name: str) -> bool:
        """Write who owns a partition. Return False if another process wrote first, or the answer is not known."""
        record = self.records[partition]
        data = msgspec.json.encode({"node": node, "name": name} if node else {})
        expect = {EXPECT: str(record.revision)}
        try:
            revision = await self._session.publish(self._layout.key(f"owner.{partition}"), data, expect)
        except Refusal as refusal:
            if refusal.code != WRONG_SEQUENCE:
                log.warning("the owner of partition %d cannot be written: %s", partition, refusal)
            return False
        except NoAnswer:
            self._doubtful.add(partition)  # it may be written
            return False
        self.records[partition] = Record(node, name, revision)
        self._tell()
        return True

    # Turns --------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        await asyncio.sleep(HELLO_S)
        while True:
            self._wake.clear()
            if self._session.is_up:
                try:
                    await self._turn()
                except Exception:
                    log.exception("looking at the owners of partitions failed")
            try:
                async with asyncio.timeout(TURN_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _turn(self) -> None:
        await self._stay_awake()
        now = self._loop.time()
        silent = [member for member in self.members.values() if now - member.heard > DOUBT_S]
        live = await asyncio.gather(*(self._lives(member.node, member) for member in silent))
        for member, lives in zip(silent, live, strict=True):
            if not lives:
                self.members.pop(member.node, None)
                self._changed_at = now
                log.warning("process %s no longer takes part: it is gone or hangs", member.name)
        await asyncio.gather(*map(self._ask_for_record, {*self._doubtful, *self._awaited}))
        part = self._participants()
        for partition, record in list(self.records.items()):
            if partition in self._doubtful:
                continue
            if record.node != self.node:
                self.troubles.pop(partition, None)
            if record.node == self.node:
                self._begin(partition)
            elif partition in self.mine:
                await self._end(partition)
            elif not await self._has_owner(record):
                await self._consider(partition, part)
            else:
                self._unowned.pop(partition, None)
        await self._balance(part)
        for owner in self.mine.values():
            owner.share_cache(len(self.mine))

    def _participants(self) -> dict[str, int]:
        """Return the nodes that partitions are spread over, with how many each owns. If there is none, each process
        owns what it needs."""
        part = {node: len(member.owned) for node, member in self.members.items() if member.takes_part}
        if self._takes_part:
            part[self.node] = len(self.mine)
        return part

    def suspect(self, node: str) -> None:
        """Check soon whether a node lives: NATS found no subscriber there. Its process has died, or lost NATS and
        connects again."""
        member = self.members.get(node)
        if member is not None:
            member.heard = min(member.heard, self._loop.time() - DOUBT_S + AGAIN_S)

    async def _lives(self, node: str, member: Member | None) -> bool:
        """Return whether a process that was not heard of for a while answers."""
        since = member.heard if member is not None else self._began
        left = since + SILENT_S - self._loop.time()
        try:
            await self._session.ask(self._layout.live(f"node.{node}.ping"), b"", wait=min(ASK_S, max(LEAST_S, left)))
        except Nobody:
            return False
        except NoAnswer:
            self._session.doubt()
            return self._loop.time() - since < SILENT_S
        if member is not None:
            member.heard = self._loop.time()
        return True

    async def _has_owner(self, record: Record) -> bool:
        if not record.node or record.node in self.members:
            return bool(record.node)
        if await self._lives(record.node, None):
            if record.node not in self.members:  # it will say itself what it is
                self.members[record.node] = Member(record.node, record.name, [], False, self._loop.time())
                self._tell()
            return True
        return False

    async def _consider(self, partition: int, part: dict[str, int]) -> None:
        """Become the owner of a partition that has none, if it is this process's turn."""
        now = self._loop.time()
        since = self._unowned.setdefault(partition, now)
        if part and self.node not in part:
            return
        if not part and partition not in self._wanted:
            return
        first = min(part or {self.node: 0}, key=lambda node: (part.get(node, 0), crc32(f"{node}.{partition}".encode())))
        if first != self.node and now - since < OTHERS_FIRST_S:
            return
        before = self.records[partition].name
        if await self._change(partition, self.node, self.name):
            self._unowned.pop(partition, None)
            part[self.node] = part.get(self.node, 0) + 1
            if before:
                self._changed_at = now
                log.warning("this process takes over partition %d from %s", partition, before)
            self._begin(partition)

    def _begin(self, partition: int) -> None:
        if partition in self.mine or partition in self._starting:
            return
        if self._loop.time() < self._not_before.get(partition, 0.0):
            return
        task = self._tasks.spawn(self._start(partition), f"taking over partition {partition}")
        self._starting[partition] = task
        task.add_done_callback(lambda _: self._starting.pop(partition, None))

    async def _start(self, partition: int) -> None:
        owner = self._make(partition, self._ended)
        begun = self._loop.time()
        try:
            await owner.start()
        except SolarWindError as error:
            if owner.store.gone:
                self.failed(error)
            elif not owner.store.fenced:  # else this process did not know yet
                log.warning("partition %d cannot be taken over: %s", partition, error)
                self.troubles[partition] = str(error)
            await asyncio.sleep(HEARTBEAT_S)
            return
        except Exception as error:
            log.exception("partition %d cannot be taken over", partition)
            self.troubles[partition] = f"an unexpected {type(error).__name__}: {error}"
            await asyncio.sleep(HEARTBEAT_S)
            return
        if self._stopping or self.records[partition].node != self.node:
            await owner.stop()
            return
        self.mine[partition] = owner
        self._not_before[partition] = self._loop.time() + HEARTBEAT_S
        log.info("partition %d is dispatched here, %.1f s after it was taken", partition, self._loop.time() - begun)
        self.troubles.pop(partition, None)
        self._tell()
        await self._send_heartbeat()

    def _ended(self, owner: Owner, error: StoreError) -> None:
        """Handle the end of an owner that could not go on, or whose partition another process owns. If none does, the
        partition is started again."""
        if self.mine.get(owner.partition) is owner and not self._stopping:
            del self.mine[owner.partition]
            self._tasks.spawn(owner.stop(), "the end of an owner")
            if not owner.store.is_over:
                self.troubles[owner.partition] = str(error)
            self._wake.set()
            if owner.store.gone:
                self.failed(error)

    async def _end(self, partition: int) -> None:
        owner = self.mine.pop(partition)
        name = self.records[partition].name or "nobody"
        log.warning("partition %d belongs to %s now", partition, name)
        owner.engine.end(StoreError(f"partition {partition} belongs to {name} now"))  # what it wrote would be refused
        await owner.stop()

    # Moving -------------------------------------------------------------------------------------------

    async def _balance(self, part: dict[str, int]) -> None:
        """Give one partition to a process that has two fewer; or give all away, if this process only helped out."""
        now = self._loop.time()
        others = {node: count for node, count in part.items() if node != self.node}
        if not others or not self.mine or now - self._moved_at < MOVE_S:
            return
        least = min(others, key=lambda node: (others[node], node))
        steady = now - self._changed_at > STEADY_S
        if not self._takes_part or (steady and len(self.mine) >= others[least] + 2):
            self._moved_at = now
            partition = max(self.mine)
            if not await self._is_sound(partition):
                return
            await self._hand_over(partition, least)
            if least in self.members:
                self.members[least].owned.append(-1)  # until its next heartbeat says so
            self._wake.set()

    async def _is_sound(self, partition: int) -> bool:
        """Return whether NATS answers for all that a move needs; otherwise the partition would have no owner for that
        time."""
        layout = self._layout
        if self.mine[partition].store.forwarder.stuck:
            return False
        streams = (layout.bucket_stream, layout.state_stream, layout.events_stream(partition))
        asked = (self._session.api(f"STREAM.INFO.{stream}") for stream in streams)
        return all(isinstance(each, dict) for each in await asyncio.gather(*asked, return_exceptions=True))

    def _heir(self) -> str:
        """Return the node that owns the fewest partitions of those that go on; "" if none does."""
        others = {node: len(member.owned) for node, member in self.members.items() if member.takes_part}
        heir = min(others, key=lambda node: (others[node], node), default="")
        if heir:
            self.members[heir].owned.append(-1)
        return heir

    async def _hand_over(self, partition: int, node: str) -> None:
        owner = self.mine.pop(partition)
        begun = self._loop.time()
        await owner.stop(drain=bool(node))
        log.info("partition %d is released, after %.1f s", partition, self._loop.time() - begun)
        if self.records[partition].node == self.node:
            name = self.members[node].name if node in self.members else ""
            await self._change(partition, node, name)


def _read_record(raw: Raw) -> Record:
    record = msgspec.json.decode(raw.data or b"{}", type=Record)
    record.revision = raw.seq
    return record


async def _ignore(message: Msg) -> None:
    """Drop what comes before the engine has said what opens a connection."""
