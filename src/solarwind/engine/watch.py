"""All facts of a dispatcher for viewers: a snapshot first, and from then on what has changed.

One collector asks for the facts once a tick, however many viewers there are, and none does without viewers. What has
changed is written once for all viewers that want the same: they share a `View`, whose log has the last differences. A
viewer is a number in that log, so one that is slow costs no memory: where the log does not have what it needs any more,
it gets a snapshot again.

Changes are those of JSON Merge Patch (RFC 7396), by part and key: they can be applied twice, and put together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from random import getrandbits
from typing import Any, Protocol

import msgspec

from ..errors import Busy, SolarWindError, Unavailable
from ..logs import limited
from ..records import PurposeRates, TopicInfo
from ..text import escape_controls
from .answers import Page
from .arguments import PARTS, After, Interval, Parts, Purpose, Topic, Wait
from .rest import GENTLE_S, Pace, Rest, pace
from .tasks import Tasks

HIDDEN = "(needs the right watch:payloads)"  # in the place of an error, which may quote a payload
MAX_VIEWS = 32  # different ones of all topics together: each is written by itself; those of one topic cost little
MAX_ENTRIES = 300  # differences in a log
LOG_BYTES = 1 << 20  # of them, or so many times the bytes of a snapshot
_LOG_SNAPSHOTS = 4
PIECE_BYTES = 64 << 10  # of a message, about
MAX_AUDIT = 100  # entries
_NOT_YET = 1 << 62
LINGER_S = 10.0  # that a view is kept without a viewer, who may come back
_SHARE = 9  # collecting takes no more than one part in ten of the time
_SLOW_S = 10.0  # between two looks at how much history topics have
_WAKE_S = 0.8  # in how much time all viewers write
_STEP_S = 10  # of times that change with each event
_STEP_BYTES = 16 << 20  # of a disk's free ones
_LEFT_OUT = {"times", "commits"}  # histograms, which are large, and change with each event


class Fact(msgspec.Struct, frozen=True, gc=False):
    """A record, and which topic and purpose it is about; "" for none."""

    topic: str
    purpose: str
    record: msgspec.Struct


Facts = dict[str, Fact]  # by key
# By part, topic and key: the purpose and the fields that changed; None where the fact is gone.
Changes = dict[str, dict[str, dict[str, tuple[str, dict[str, Any] | None]]]]
Answer = Callable[..., Awaitable[Any]]  # the answer to an operation, by its name and arguments


class TopicFacts(msgspec.Struct, frozen=True, gc=False):
    """What is said of a topic: see `TopicStatistics` and `TopicInfo`, of which it is None until that was read."""

    fired: int
    fired_per_s: float
    delayed: int
    next_due: datetime | None
    kept: int | None
    kept_bytes: int | None
    keep: float | None
    keep_bytes: int | None


class Filter(msgspec.Struct, frozen=True):
    """What a viewer wants: these parts, of all topics and purposes or one, every so many seconds."""

    parts: tuple[str, ...] = PARTS
    topic: str | None = None
    purpose: str | None = None
    interval: int = 1
    payloads: bool = True  # whether it may see errors

    def wants(self, topic: str, purpose: str) -> bool:
        """Return whether a fact about these is wanted; what is about no topic is not, where one or a purpose is."""
        if self.topic is not None and topic != self.topic:
            return False
        return self.purpose is None or (bool(topic) and purpose in ("", self.purpose))


class Entry:
    """What viewers are to be told at once: JSON texts, up to a tick."""

    __slots__ = ("messages", "sent", "size", "tick")

    def __init__(self, tick: int, messages: Sequence[bytes]) -> None:
        self.tick = tick
        self.messages = messages
        self.sent: Any = None  # what a server made of it, once for all viewers
        self.size = sum(map(len, messages))


class Source(Protocol):
    """Where facts come from."""

    async def __call__(self) -> dict[str, Facts]:
        """Return all facts by part. Raise `SolarWindError` where they are not known now."""
        ...


class View:
    """What all viewers with the same filter share."""

    def __init__(self, filter: Filter, tick: int) -> None:
        self.filter = filter
        self.users = 0
        self.left = 0.0  # when the last user left
        self.log: deque[Entry] = deque()
        self.floor = _NOT_YET  # the log has everything after it: from the first snapshot on
        self.due = tick + filter.interval
        self.snapshot: Entry | None = None
        self.making = asyncio.Lock()  # of a snapshot
        self.waiting: list[asyncio.Future[None]] = []
        self._bytes = 0
        self._pending: dict[str, dict[str, dict[str, Any] | None]] = {}  # since the last entry

    def since(self, tick: int) -> list[Entry] | None:
        """Return the entries after a tick; None where the log does not have all of them."""
        if tick < self.floor:
            return None
        found: list[Entry] = []
        for each in reversed(self.log):
            if each.tick <= tick:
                break
            found.append(each)
        return found[::-1]

    def fresh(self) -> Entry | None:
        """Return a snapshot that is shorter than a new one and what came since are together."""
        found = self.snapshot
        if found is None or found.tick < self.floor:
            return None
        since = self.since(found.tick) or []
        return found if sum(each.size for each in since) <= found.size else None

    async def note(self, changes: Changes, rest: Rest) -> None:
        """Add changes to those that are still to be written."""
        for part in self.filter.parts:
            by_topic = changes.get(part, {})
            topics: Iterable[str] = by_topic
            if self.filter.topic is not None:
                topics = [self.filter.topic] if self.filter.topic in by_topic else ()
            for topic in topics:
                for key, (purpose, fields) in by_topic[topic].items():
                    await rest.now_and_then()
                    if self.filter.wants(topic, purpose):
                        self._put(part, key, fields)

    def _put(self, part: str, key: str, fields: dict[str, Any] | None) -> None:
        known = self._pending.setdefault(part, {})
        before = known.get(key)
        if fields is None or before is None:
            known[key] = fields
        else:
            within = {name: before.get(name, {}) | value for name, value in fields.items() if isinstance(value, dict)}
            known[key] = before | fields | within

    async def flush(self, tick: int, rest: Rest) -> bool:
        """Write what has changed, if it is time, into the log. Return whether there is anything."""
        if tick < self.due:
            return False
        self.due = tick + self.filter.interval
        pending, self._pending = self._pending, {}
        if not pending:
            return False
        items = ((part, key, fields) for part, facts in pending.items() for key, fields in facts.items())
        self.add(Entry(tick, [each async for each in written(items, self.filter.payloads, rest)]))
        return True

    def add(self, entry: Entry) -> None:
        self.log.append(entry)
        self._bytes += entry.size
        most = max(LOG_BYTES, _LOG_SNAPSHOTS * self.snapshot.size if self.snapshot is not None else 0)
        while len(self.log) > 1 and (len(self.log) > MAX_ENTRIES or self._bytes > most):
            gone = self.log.popleft()
            self._bytes -= gone.size
            self.floor = gone.tick
        if self.snapshot is not None and self.snapshot.tick < self.floor:
            self.snapshot = None


class Watch:
    """The facts of one dispatcher or server, and its views."""

    def __init__(
        self, answer: Answer, tasks: Callable[[], Tasks], more: Mapping[str, Callable[[], Facts]] | None = None
    ) -> None:
        """`answer` asks one of the operations; `more` has further parts, which are at hand."""
        self.interval_s = 1.0  # between two ticks, at least
        self._answer = answer
        self._tasks = tasks
        self._more = {} if more is None else more
        self._sources: dict[tuple[str, ...], Source] = {
            ("topics", "purposes"): self._statistics,
            ("instances",): self._instances,
            ("attention",): self._attention,
            ("audit",): self._audit,
            ("stores",): self._stores,
        }
        self._base = getrandbits(29) << 33  # so that the number of another server's log is none of this one's
        self._tick = 0
        self._due: dict[tuple[str, ...], float] = {}  # when a source is asked again
        self._facts: dict[str, Facts] = {}
        self._infos: dict[str, TopicInfo] = {}
        self._infos_due = 0.0
        self._views: dict[Filter, View] = {}
        self._ticked: list[asyncio.Future[None]] = []  # those who wait for the next tick
        self._hurry = asyncio.Event()
        self._pace = Pace(GENTLE_S)
        self._collecting: asyncio.Task[None] | None = None

    # For viewers ----------------------------------------------------------------------------------------

    @contextmanager
    def view(self, filter: Filter) -> Iterator[View]:
        """Give a view for as long as it is used. Raise `Busy` where there are too many."""
        found = self._views.get(filter)
        if found is None:
            if filter.topic is None and sum(each.topic is None for each in self._views) >= MAX_VIEWS:
                raise Busy(
                    f"expected at most {MAX_VIEWS} different wishes of viewers of all topics, got another: ask for "
                    "the same parts and interval as others, or for one topic"
                )
            found = self._views[filter] = View(filter, self._tick)
        if self._collecting is None or self._collecting.done():
            self._collecting = self._tasks().spawn(self._run(), "the collecting of facts")
        if any(part not in self._facts for part in filter.parts):
            self._hurry.set()
        found.users += 1
        try:
            yield found
        finally:
            found.users -= 1
            found.left = asyncio.get_running_loop().time()

    def number(self, tick: int) -> str:
        """Return what stands for a tick outside."""
        return str(self._base + tick)

    def tick_of(self, number: str | None) -> int:
        """Return the tick that `number` made a number of; -1 for any other text."""
        if number is None or not (number.isascii() and number.isdecimal() and len(number) < 20):
            return -1
        tick = int(number) - self._base
        return tick if 0 <= tick <= self._tick else -1

    async def snapshot(self, view: View) -> Entry:
        """Return a snapshot, which the view's log goes on from: one for all viewers that come within some time."""
        async with view.making:
            found = view.fresh()
            if found is None:
                while any(part not in self._facts for part in view.filter.parts):
                    await self._next_tick()
                found = view.snapshot = await self._make_snapshot(view)
            return found

    async def _make_snapshot(self, view: View) -> Entry:
        tick, facts, rest = self._tick, {part: self._facts[part] for part in view.filter.parts}, Rest()
        view.floor = min(view.floor, tick)
        items = (
            (part, key, fields_of(fact.record))
            for part, found in facts.items()
            for key, fact in found.items()
            if view.filter.wants(fact.topic, fact.purpose)
        )
        head = {"time": datetime.now(UTC), "interval": view.filter.interval, "parts": view.filter.parts}
        first = msgspec.json.encode({"snapshot": head, **{part: {} for part in view.filter.parts}})
        return Entry(tick, [first, *[each async for each in written(items, view.filter.payloads, rest)]])

    def news(self, view: View) -> asyncio.Future[None]:
        """Return a future that is done when the view's log may have something new, or gets `Unavailable` when there
        will be nothing."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        view.waiting.append(waiter)
        return waiter

    async def page(self, filter: Filter, after: str | None, wait: float) -> Page[str]:
        """Return what changed after `after`, or a snapshot, as JSON texts; where nothing did, what does in the next
        `wait` seconds."""
        with self.view(filter) as view:
            tick = self.tick_of(after)
            found = view.since(tick)
            if found is None:
                found = [await self.snapshot(view)]
            elif not found and wait:
                try:
                    async with asyncio.timeout(wait):
                        await self.news(view)
                except TimeoutError:
                    pass
                found = view.since(tick) or []
            last = found[-1].tick if found else tick
            return Page([text.decode() for each in found for text in each.messages], self.number(last))

    # The collector --------------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pace.set(self._pace)
        try:
            while self._views:
                began, self._pace.worked = loop.time(), 0.0
                await self._collect(began)
                await self._wake()
                left = began + max(self.interval_s, (_SHARE + 1) * self._pace.worked) - loop.time()
                self._hurry.clear()
                try:
                    async with asyncio.timeout(max(left, GENTLE_S)):
                        await self._hurry.wait()
                except TimeoutError:
                    pass
                self._drop_views(loop.time() - LINGER_S)
        finally:
            self._end()

    def _drop_views(self, since: float) -> None:
        """Drop the views that nobody has used since then."""
        for filter, view in list(self._views.items()):
            if not view.users and view.left < since:
                del self._views[filter]

    def _end(self) -> None:
        """Forget everything, because nobody is there, or the dispatcher stops. What comes later begins with a
        snapshot."""
        waiters = [*self._ticked, *(each for view in self._views.values() for each in view.waiting)]
        self._facts, self._views, self._ticked, self._due, self._infos = {}, {}, [], {}, {}
        self._tick += 1
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(Unavailable("the dispatcher stops: watch again when it is back"))

    async def _collect(self, now: float) -> None:
        """Ask for what is due, and write what has changed."""
        wanted = {part for filter in self._views for part in filter.parts}
        changes = Changes()
        facts = {part: known for part, known in self._facts.items() if part in wanted}
        for parts, source in self._sources.items():
            missing = any(part in wanted and part not in facts for part in parts)
            if wanted.isdisjoint(parts) or (self._due.get(parts, 0.0) > now and not missing):
                continue
            worked = self._pace.worked
            try:
                found = await source()
            except SolarWindError as error:
                limited.warning(("watch", parts), "%s cannot be shown to viewers now: %s", " and ".join(parts), error)
                found = {part: facts.get(part, {}) for part in parts}
            self._due[parts] = now + (_SHARE + 1) * (self._pace.worked - worked)
            for part in wanted.intersection(found):
                await _compare(part, facts.get(part, {}), found[part], changes)
                facts[part] = found[part]
        for part in wanted.difference(*self._sources):
            new = self._more[part]() if part in self._more else {}
            await _compare(part, facts.get(part, {}), new, changes)
            facts[part] = new
        self._facts = facts
        self._tick += 1
        rest = Rest()
        for view in list(self._views.values()):
            if view.floor < self._tick:
                await view.note(changes, rest)
                await view.flush(self._tick, rest)

    async def _next_tick(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._ticked.append(waiter)
        await waiter

    async def _wake(self) -> None:
        """Wake those who wait: one in a turn of the loop, because each of them writes."""
        waiters, self._ticked = self._ticked, []
        for view in self._views.values():
            if view.log and view.log[-1].tick == self._tick:
                waiters += view.waiting
                view.waiting = []
        pause = min(_WAKE_S / max(1, len(waiters)), 10 * GENTLE_S)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
            await asyncio.sleep(pause)

    # Sources --------------------------------------------------------------------------------------------

    async def _statistics(self) -> dict[str, Facts]:
        found = await self._answer("statistics")
        now = asyncio.get_running_loop().time()
        if now >= self._infos_due and any("topics" in filter.parts for filter in self._views):
            self._infos = {each.topic: each for each in await self._answer("topics")}
            spent = asyncio.get_running_loop().time() - now
            self._infos_due = now + max(_SLOW_S, (_SHARE + 1) * spent)
        topics, rest = Facts(), Rest()
        for name, counts in found.topics.items():
            await rest.now_and_then()
            kept = _kept(self._infos.get(name), counts.fired)
            topics[name] = Fact(
                name, "", TopicFacts(counts.fired, counts.fired_per_s, counts.delayed, counts.next_due, *kept)
            )
        purposes: Facts = {}
        for (topic, purpose), statistics in found.purposes.items():
            await rest.now_and_then()
            purposes[f"{topic}/{purpose}"] = Fact(topic, purpose, statistics)
        return {"topics": topics, "purposes": purposes}

    async def _instances(self) -> dict[str, Facts]:
        found, facts, rest = await self._answer("instances"), Facts(), Rest()
        for each in found:
            await rest.now_and_then()
            _put(facts, f"{each.topic}/{each.purpose}@{each.version} {each.machine}/{each.process}", each)
        return {"instances": facts}

    async def _attention(self) -> dict[str, Facts]:
        facts = Facts()
        for each in await self._answer("attention"):
            _put(facts, f"{each.kind} {each.topic}/{each.purpose}", each)
        return {"attention": facts}

    async def _stores(self) -> dict[str, Facts]:
        found = await self._answer("stores")
        return {"stores": {f"{each.store} {each.process}": Fact("", "", each) for each in found}}

    async def _audit(self) -> dict[str, Facts]:
        found = await self._answer("audit", limit=MAX_AUDIT)
        return {"audit": {str(each.number): Fact(each.topic, each.purpose, each) for each in found}}


class Watched:
    """The operation of what has a `Watch`."""

    _watch: Watch

    async def watch(
        self,
        parts: Parts = PARTS,
        topic: Topic | None = None,
        purpose: Purpose | None = None,
        interval: Interval = 1,
        after: After = None,
        wait: Wait = 0.0,
    ) -> Page[str]:
        """Return a snapshot of all facts, or what has changed after `after`, as JSON texts: see `Asking.watch`. Raise
        `Busy`."""
        return await self._watch.page(Filter(tuple(parts), topic, purpose, interval), after, wait)


def _kept(info: TopicInfo | None, fired: int) -> tuple[int | None, int | None, float | None, int | None]:
    """Return what a topic keeps: of what was fired since that was read all, if it keeps anything."""
    if info is None:
        return None, None, None, None
    keeps = info.keep > 0 and info.keep_bytes != 0
    return info.kept + (fired - info.fired if keeps else 0), info.kept_bytes, info.keep, info.keep_bytes


def _put(facts: Facts, key: str, record: Any) -> None:
    """Add a record by its key; a further one of the same key has a number besides."""
    number, name = 1, key
    while name in facts:
        number += 1
        name = f"{key} {number}"
    facts[name] = Fact(record.topic, record.purpose, record)


async def _compare(part: str, before: Facts, now: Facts, changes: Changes) -> None:
    """Add what is different to `changes`."""
    rest = Rest()
    for key, fact in now.items():
        await rest.now_and_then()
        known = before.get(key)
        if known is None:
            fields = fields_of(fact.record)
        elif known.record == fact.record:
            continue
        else:
            fields = fields_of(fact.record, known.record)
        if fields:
            changes.setdefault(part, {}).setdefault(fact.topic, {})[key] = fact.purpose, fields
    for key, fact in before.items():
        if key not in now:
            changes.setdefault(part, {}).setdefault(fact.topic, {})[key] = fact.purpose, None


def fields_of(record: msgspec.Struct, before: msgspec.Struct | None = None) -> dict[str, Any]:
    """Return the fields of a record by name: all, or those that are others than before."""
    found: dict[str, Any] = {}
    for name, show in _fields(type(record)):
        value = getattr(record, name)
        if before is None:
            found[name] = value if show is None else show(value)
        elif value != (known := getattr(before, name)):
            if isinstance(value, PurposeRates):
                value = fields_of(value, known)
                if not value:
                    continue
            elif show is not None:
                value = show(value)
                if value == show(known):
                    continue
            found[name] = value
    return found


@cache
def _fields(kind: type[msgspec.Struct]) -> list[tuple[str, Callable[[Any], Any] | None]]:
    """Return the fields of a kind of record that are shown, and how: None where they are shown as they are."""
    left_out = _LEFT_OUT if kind is not PurposeRates else {"recent"}  # the newest point of each alone
    names = [name for name in kind.__struct_fields__ if name not in left_out]
    return [(name, _rough if kind is PurposeRates else _SHOWN.get(name)) for name in names]


def _in_steps(time: datetime) -> datetime:
    return time.replace(second=time.second // _STEP_S * _STEP_S, microsecond=0)


def _in_large_steps(size: int | None) -> int | None:
    return None if size is None else size // _STEP_BYTES * _STEP_BYTES


def _rough(rate: float | None) -> float | None:
    """Return a rate with two digits: further ones change all the time. Below 10 one is behind the point."""
    return rate and (round(rate, 1) if rate < 10 else float(f"{rate:.2g}"))


# How fields are shown whose last digits change with each event.
_SHOWN: dict[str, Callable[[Any], Any]] = {
    "rates": fields_of,
    "rate": _rough,
    "fired_per_s": _rough,
    "heard": _in_steps,
    "free": _in_large_steps,
}


async def written(
    items: Iterable[tuple[str, str, dict[str, Any] | None]], payloads: bool, rest: Rest
) -> AsyncIterator[bytes]:
    """Yield JSON texts of a limited length that have these parts, keys and fields, in this order."""
    encode = msgspec.json.encode
    texts: list[bytes] = []
    size, last = 0, ""
    for part, key, fields in items:
        await rest.now_and_then()
        if not payloads and fields is not None and isinstance(fields.get("error"), str):
            fields = fields | {"error": HIDDEN}
        text = encode(key) + b":" + encode(fields)
        if size + len(text) > PIECE_BYTES:
            yield _closed(texts)
            texts, size, last = [], 0, ""
        texts.append((b"," if part == last else b'},"%b":{' % part.encode()) + text)
        size, last = size + len(text), part
    if texts:
        yield _closed(texts)


def _closed(texts: list[bytes]) -> bytes:
    texts[0] = b"{" + texts[0].removeprefix(b"},")
    return escape_controls(b"".join((*texts, b"}}")))
