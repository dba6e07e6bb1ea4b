"""Firing: what a `SolarWind` does on its own, without any handler."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from threading import get_ident
from time import time_ns
from typing import Any, TypeVar, Unpack, cast
from weakref import WeakSet

import msgspec

from ..batch import MAX_NUMBERS, MAX_PRODUCERS, make_id
from ..calls import explained, unknown_option
from ..columns import check_extensions
from ..engine.base import Engine
from ..errors import BadArgument, Busy
from ..event import Cause, Event
from ..failure import Reject
from ..limits import Limits
from ..names import check_fired, check_id, check_key
from ..options import check_payloads
from ..origin import process_name
from ..payload import BYTES, encode
from ..systems import after_fork
from .bound import Around
from .buffer import ProducerBuffer
from .fire_options import EventOptions, FireOptions, read_options
from .group import ORDER, Group, IdNumbers
from .middleware import Handing, run_around, run_now
from .receipts import HELD_BYTES, Fired, HeldEvents, HeldReceipt, Receipt, Receipts, SentReceipt
from .runner import handling
from .typed import TypedTopic

log = logging.getLogger("solarwind")

R = TypeVar("R")

_GIVEN_UP = "%d events that were fired were not accepted within %.3g s, and are given up"
_STARTED: WeakSet[Firing] = WeakSet()  # in this process


def _after_fork() -> None:
    """Detach a forked child: it has the parent's objects, but not its threads, and must not use its connections and
    files."""
    for firing in list(_STARTED):
        firing._leave_behind()
    _STARTED.clear()


after_fork(_after_fork)


class Firing:
    """The part of a `SolarWind` that fires. Events fired on other threads have a buffer of their own, and so have those
    that enter their topic later."""

    _to_start = (  # where it does not run
        "use `async with wind:`, or without asyncio `with wind:`; in an ASGI app say `lifespan=wind.lifespan`, and in "
        "its tests `with TestClient(app) as client:`"
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._home: Engine | None = None  # that it fires to, once it was started
        self._thread_id = 0
        self._plain_thread = 0  # where a fire without options is only put into the buffer
        self._around = Around()
        self._typed: dict[str, TypedTopic] = {}  # topics with a schema that is stated here
        self._buffer = ProducerBuffer(limits, to_start=self._to_start)
        self._foreign = ProducerBuffer(limits, to_start=self._to_start)  # fired from other threads
        self._later = ProducerBuffer(limits, to_start=self._to_start, later=True)  # to be delayed, from any thread
        self._buffers = (self._buffer, self._foreign, self._later)
        self._foreign_lock = threading.Lock()  # for all but the first
        self._forked = ""  # why it is of no use in this process

    def _leave_behind(self) -> None:
        """Detach from the connections and files of the process that started it, of which this one is a child."""
        self._forked = (
            f"expected a SolarWind that this process started, got one of process {os.getppid()}, from which it was "
            "forked: make another one here, and start it"
        )
        self._home = None
        self._foreign_lock = threading.Lock()  # a thread that is not here may hold the other
        for buffer in self._buffers:
            buffer.leave_behind(self._forked)

    def _begin_firing(self, loop: asyncio.AbstractEventLoop, engine: Engine) -> None:
        """Accept events from here on, on this thread and loop, and on others."""
        self._thread_id = get_ident()
        self._plain_thread = 0 if self._around.middlewares or self._typed else self._thread_id
        self._home = engine
        _STARTED.add(self)
        self._numbers = IdNumbers(engine.author)
        self._buffer.open(loop, engine, partial(loop.call_soon, self._flush))
        for buffer in self._buffers:
            buffer.observer = self._around.observer
        for buffer in (self._foreign, self._later):
            buffer.open(loop, engine, partial(loop.call_soon_threadsafe, self._flush_locked, buffer))

    async def _drain_fired(self) -> None:
        """Wait until all that was fired is accepted or refused."""
        self._flush_all()
        for buffer in self._buffers:
            await buffer.drain()

    @property
    def _all_accepted(self) -> bool:
        return all(buffer.empty for buffer in self._buffers)

    async def _end_firing(self, grace: float) -> None:
        """Refuse further events, and wait for those that were fired, for `grace` seconds; then give up the rest."""
        self._close_all()
        try:
            async with asyncio.timeout(grace):
                await self._drain_fired()
        except TimeoutError:
            pass
        finally:
            self._give_up_all(grace)
            _STARTED.discard(self)

    def _give_up_fired(self, grace: float) -> None:
        """Give up what is not accepted once `grace` has passed, because the process is to end."""
        self._flush_all()
        self._close_all()
        self._give_up_all(grace)

    def _close_all(self) -> None:
        with self._foreign_lock:
            for buffer in self._buffers:
                buffer.close()

    def _give_up_all(self, grace: float) -> None:
        given_up = sum([buffer.give_up_all() for buffer in self._buffers])
        if given_up:
            log.error(_GIVEN_UP, given_up, grace)

    def fire(self, topic: str, payload: Any = None, **options: Unpack[FireOptions]) -> Receipt:
        """Fire an event on a topic and forget it. From any thread.

        Await the result to wait until the event is accepted (durable, where the store is); its `.id` is known at once.
        Inside a handler the event is held until the handler returns and committed together with the settle, unless
        `now`; the handled event is then its cause. `key` orders it for keyed purposes. The same `id` fired again is
        acknowledged and not stored again. With `at`, a datetime with a time zone, or `after`, a delay from now on,
        it is accepted now and enters its topic when it is due; until then `cancel` takes it back. It is not handed out
        any more once it `expires`: at a datetime, or so long from now on. A delay is seconds, a timedelta, or a text
        such as "5m", of ten years at most. `extensions` are texts by name that go with it, such as `traceparent`: at
        most 64, and 8 KiB together. `payload` is anything JSON can carry, or bytes. What the handler of a shadow fires
        is dropped, also with `now`, and so is what states a shadow's event as its `cause` outside of handlers.

        If it is not accepted `within` so many seconds, awaiting it raises `Unavailable`: the event is withdrawn if it
        was not sent yet; otherwise the error says that the outcome is not known, and that the same `id` may be fired
        again. To stop waiting (a cancelled task, a timeout of `wait`) withdraws nothing. What a handler fires has no
        such limit, unless `now`: it is accepted with the settle.

        Raise `BadName`, `BadPayload`, `TooLarge`, `Busy` where too much waits to be accepted, `Unavailable`."""
        if type(payload) is bytes:
            data, content = payload, BYTES
        else:
            data, content = encode(payload)
        handled = handling.get()
        if options or handled is not None or get_ident() != self._plain_thread:
            if self._typed:
                self._check_typed(topic, [(data, content)])
            if self._around.middlewares:
                return self._fire_through(topic, data, content, handled, options)
            return self._fire_with(topic, data, content, handled, options)
        return self._buffer.add(topic, data, content)

    def _check_typed(self, topic: str, encoded: Iterable[tuple[bytes, str]]) -> None:
        """Raise `BadPayload` for payloads that are not of the type that was stated for their topic."""
        if (typed := self._typed.get(topic)) is not None:
            for data, content in encoded:
                typed.check(data, content)

    def _fire_through(
        self, topic: str, data: bytes, content: str, handled: Event | None, options: FireOptions
    ) -> Receipt:
        """Fire through the middlewares. A function of its own: what it closes over would cost each fire."""

        def fire(changed: EventOptions) -> Receipt:
            return self._fire_with(topic, data, content, handled, cast(FireOptions, changed))

        return self._through(topic, [(data, content)], options, fire)

    def _through(
        self, topic: str, payloads: list[tuple[bytes, str]], options: EventOptions, fire: Callable[[EventOptions], R]
    ) -> R:
        """Fire through the middlewares, which run to their end here, and return what `fire` returned, which gets the
        options with the extensions that they have stated."""
        given = options.get("extensions")
        extensions = {} if given is None else dict(check_extensions(given))
        handing = Handing("fire", check_fired(topic), payloads=payloads, extensions=extensions)
        fired: list[R] = []

        async def last() -> R:
            fired.append(fire(cast(EventOptions, {**options, "extensions": extensions}) if extensions else options))
            return fired[0]

        def waiting() -> str:
            return (
                f"expected the middleware around a fire on {topic!r} not to wait, since fire returns at once, got one "
                f"that does, and {'the event was fired before' if fired else 'nothing was fired'}: look at "
                "handing.kind, and wait around a hand-out only"
            )

        run_now(run_around(self._around.middlewares, handing, last), waiting)
        return fired[0]

    def _fire_with(self, topic: str, data: bytes, content: str, handled: Event | None, options: FireOptions) -> Receipt:
        """Fire what is more than a payload, inside a handler, or from another thread."""
        attributes: dict[str, Any]
        if len(options) == 1 and (key := options.get("key")) is not None:  # as most are
            attributes, now, seconds, cause = {"keys": check_key(key)}, False, None, None
        else:
            attributes, now, seconds, cause = read_options(options, self._wall)
        after = cause.time_ns if cause is not None else 0
        if handled is not None:
            cause = handled
            after = max(after, handled.time_ns)
            if not now and self._holds(handled):
                check_fired(topic)
                self._buffer.check_size(topic, data)
                self._check_held(handled, len(data))
                return self._hold(handled, topic, data, content, attributes, after)
            attributes.setdefault("causes", Cause.event(handled))
        if "causes" in attributes:
            self._check_depth(attributes["causes"], handled)
        if cause is not None and cause.shadow:
            return self._drop(topic, [(data, content, attributes)], after)[0]
        later = "due" in attributes
        if seconds is None and not later and get_ident() == self._thread_id:
            return self._buffer.add_with(topic, data, content, attributes, after)
        with self._buffer_for(later) as buffer, buffer.whole(topic, apart=seconds is not None):
            receipt = buffer.add_with(topic, data, content, attributes, after)
        self._limit(buffer, [receipt], seconds)
        return receipt

    def _wall(self) -> int:
        """Return the time from which delays count, in ns since 1970: the dispatcher's, where it is in this process."""
        return time_ns() if self._home is None else self._home.service_clock.wall()

    @contextmanager
    def _buffer_for(self, later: bool) -> Iterator[ProducerBuffer]:
        """Yield the buffer for the calling thread, or for what is delayed."""
        if get_ident() == self._thread_id and not later:
            yield self._buffer
        else:
            with self._foreign_lock:
                yield self._later if later else self._foreign

    def _limit(self, buffer: ProducerBuffer, receipts: Sequence[SentReceipt], within: float | None) -> None:
        """Give up events that are not accepted within so many seconds from now."""
        if within is None or not receipts:
            return
        groups = list(dict.fromkeys(receipt.group for receipt in receipts))
        loop = groups[0].accepted.get_loop()
        if buffer is self._buffer:
            self._give_up_later(buffer, groups, within)
        else:
            loop.call_soon_threadsafe(self._give_up_later, buffer, groups, within)

    def _give_up_later(self, buffer: ProducerBuffer, groups: Sequence[Group], within: float) -> None:
        """Start the timer, on the loop. What is accepted leaves no timer behind: there may be a million before the
        first is due."""
        for group in groups:
            timer = group.accepted.get_loop().call_later(within, self._give_up, buffer, group, within)
            group.accepted.add_done_callback(partial(_end_timer, timer))

    def _give_up(self, buffer: ProducerBuffer, group: Group, within: float) -> None:
        if not group.accepted.done():
            with self._foreign_lock:
                buffer.give_up(group, within)

    @explained
    def fire_many(
        self,
        topic: str,
        payloads: Iterable[Any],
        key: str | Callable[[Any], str | None] | None = None,
        *,
        keys: Iterable[str | None] | None = None,
        ids: Iterable[str | None] | None = None,
        at: datetime | None = None,
        after: float | timedelta | str | None = None,
        expires: datetime | float | timedelta | str | None = None,
        cause: Cause | Event | None = None,
        extensions: Mapping[str, str] | None = None,
        now: bool = False,
        within: float | timedelta | None = None,
    ) -> Receipts:
        """Fire an event for each payload; they travel together. `key` is one for all, or a function of the payload;
        `keys` has one for each. `ids` has an id for each, so that they may be fired again. The other options are
        those of `fire`, for all of them.

        Awaiting the result waits until all are accepted; `.ids` are known at once. Raise what `fire` raises, and then
        nothing is fired. Small payloads without a key cost least this way."""
        check_fired(topic)
        given = check_payloads(payloads)
        encoded = list(map(encode, given))
        self._check_typed(topic, encoded)
        options = FireOptions(
            at=at, after=after, expires=expires, cause=cause, extensions=extensions, now=now, within=within
        )
        its_keys, its_ids = _keys(given, key, keys), _column("ids", ids, len(given), check_id)
        if not self._around.middlewares:
            return self._fire_encoded(topic, encoded, its_keys, its_ids, options)

        def fire(changed: EventOptions) -> Receipts:
            return self._fire_encoded(topic, encoded, its_keys, its_ids, cast(FireOptions, changed))

        return self._through(topic, encoded, options, fire)

    def _fire_encoded(
        self,
        topic: str,
        encoded: list[tuple[bytes, str]],
        its_keys: list[str | None] | None,
        its_ids: list[str | None] | None,
        options: FireOptions,
    ) -> Receipts:
        bytes_ = [data for data, _ in encoded]
        longest = max(bytes_, key=len, default=b"")
        self._buffer.check_size(topic, longest)
        stated, now, seconds, source = read_options(options, self._wall)
        earliest = source.time_ns if source is not None else 0
        handled = handling.get()
        if its_keys is None and its_ids is None and not stated and handled is None and seconds is None:
            contents = {content for _, content in encoded}
            if len(contents) == 1 and len(longest) <= self._buffer.small and get_ident() == self._thread_id:
                return Receipts(self._buffer.add_many(topic, bytes_, contents.pop()))
        columns = {field: each for field, each in (("keys", its_keys), ("ids", its_ids)) if each is not None}
        events: list[tuple[bytes, str, dict[str, Any]]] = [
            (data, content, stated | {field: each[at] for field, each in columns.items() if each[at] is not None})
            for at, (data, content) in enumerate(encoded)
        ]
        if handled is not None:
            earliest, source = max(earliest, handled.time_ns), handled
            if not now and self._holds(handled):
                self._check_held(handled, sum(HELD_BYTES + len(data) for data, *_ in events))
                return Receipts([self._hold(handled, topic, *event, earliest) for event in events])
            stated.setdefault("causes", Cause.event(handled))
            for _, _, attributes in events:
                attributes.setdefault("causes", stated["causes"])
        if "causes" in stated:
            self._check_depth(stated["causes"], handled)
        if source is not None and source.shadow:
            return Receipts(self._drop(topic, events, earliest))
        with self._buffer_for("due" in stated) as buffer, buffer.whole(topic, apart=seconds is not None):
            receipts = [buffer.add_with(topic, *event, earliest) for event in events]
        self._limit(buffer, receipts, seconds)
        return Receipts(receipts)

    def prepare(self, topic: str, payload: Any, options: EventOptions) -> tuple[Fired, bool]:
        """Return an event that is to be fired from elsewhere, such as a database: checked as `fire` does, with its id
        and its cause; and whether it counts, which what a shadow's handler fires does not. Raise what `fire`
        raises."""
        if unknown := options.keys() - EventOptions.__annotations__.keys():
            raise unknown_option("fire", min(unknown), EventOptions.__annotations__)
        encoded = (payload, BYTES) if type(payload) is bytes else encode(payload)
        self._check_typed(topic, [encoded])
        if not self._around.middlewares:
            return self._prepared(topic, encoded, options)
        return self._through(topic, [encoded], options, lambda changed: self._prepared(topic, encoded, changed))

    def prepare_many(
        self,
        topic: str,
        payloads: Iterable[Any],
        key: str | Callable[[Any], str | None] | None,
        keys: Iterable[str | None] | None,
        ids: Iterable[str | None] | None,
        options: EventOptions,
    ) -> list[tuple[Fired, bool]]:
        """Return an event for each payload: see `prepare`, and for the columns `fire_many`."""
        given = check_payloads(payloads)
        encoded = list(map(encode, given))
        self._check_typed(topic, encoded)
        nothing = [None] * len(given)
        each_key = _keys(given, key, keys) or nothing
        each_id = _column("ids", ids, len(given), check_id) or nothing

        def prepared(changed: EventOptions) -> list[tuple[Fired, bool]]:
            return [
                self._prepared(topic, each, {**changed, "key": of_key, "id": of_id})
                for each, of_key, of_id in zip(encoded, each_key, each_id, strict=True)
            ]

        return self._through(topic, encoded, options, prepared) if self._around.middlewares else prepared(options)

    def _prepared(self, topic: str, encoded: tuple[bytes, str], options: EventOptions) -> tuple[Fired, bool]:
        data, content = encoded
        check_fired(topic)
        self._buffer.check_size(topic, data)
        attributes, _, _, stated = read_options(cast(FireOptions, options), self._wall)
        handled = handling.get()
        source = handled or stated
        attributes.setdefault("causes", Cause.event(handled) if handled else Cause.application(process_name()))
        self._check_depth(attributes["causes"], handled)
        time = ORDER.now(max((each.time_ns for each in (handled, stated) if each is not None), default=0))
        # By chance alone: a forked child has what its parent has counted.
        attributes.setdefault("ids", make_id(time, secrets.randbelow(MAX_PRODUCERS), secrets.randbelow(MAX_NUMBERS)))
        return Fired(topic, data, content, time, attributes), source is None or not source.shadow

    def _holds(self, handled: Event) -> bool:
        """Return whether what is fired is held until the handler returns."""
        return handled._of.home is self._home and handled._is_handled

    def _check_held(self, handled: Event, more: int) -> None:
        size = 0 if handled._fired is msgspec.UNSET else handled._fired.size
        if size + more > self._limits.unaccepted_bytes:
            raise Busy(
                f"expected a handler to fire at most {self._limits.unaccepted_bytes:,} bytes before it returns, "
                "got more: fire them with now=True, or handle smaller parts"
            )

    def _check_depth(self, cause: Cause, handled: Event | None) -> None:
        """Raise where the event would be one too many of a chain of causes: `Reject` in a handler, so that its event is
        a dead letter at once, and what it fired before is not fired."""
        if cause.depth is not None and cause.depth > self._limits.depth:
            text = (
                f"expected at most {self._limits.depth:,} events that cause each other before the last, got one more, "
                f"which event {cause.id!a} would cause: a chain that causes itself must end, or set Limits(depth=…)"
            )
            raise BadArgument(text) if handled is None else Reject(text)

    def _hold(
        self, handled: Event, topic: str, data: bytes, content: str, attributes: dict[str, Any], after: int
    ) -> Receipt:
        if handled._fired is msgspec.UNSET:
            handled._fired = HeldEvents(Cause.event(handled))
        held: HeldEvents = handled._fired
        self._check_depth(attributes.setdefault("causes", held.cause), handled)
        fired = Fired(topic, data, content, ORDER.now(after), attributes)
        held.add(fired)
        return HeldReceipt(fired, self._numbers)

    def _drop(self, topic: str, events: Sequence[tuple[bytes, str, dict[str, Any]]], after: int) -> list[HeldReceipt]:
        """Return receipts for what a shadow's handler fires, or fired after it has returned: it counts for nothing, and
        no commit is to have it."""
        self._buffer.check_open(topic)
        self._buffer.check_size(topic, max([data for data, *_ in events], key=len, default=b""))
        return [HeldReceipt(Fired(topic, *event[:2], ORDER.now(after), event[2]), self._numbers) for event in events]

    def _flush(self) -> None:
        try:
            self._buffer.send(self._buffer.pop_groups())
        except Exception as error:  # else nothing would be sent any more
            self._buffer.refuse_all(error)

    def _flush_all(self) -> None:
        self._flush()
        for buffer in (self._foreign, self._later):
            self._flush_locked(buffer)

    def _flush_locked(self, buffer: ProducerBuffer) -> None:
        try:
            with self._foreign_lock:
                groups = buffer.pop_groups()
            buffer.send(groups)
        except Exception as error:
            with self._foreign_lock:
                buffer.refuse_all(error)


def _name_options() -> None:
    """Make `help(fire)` and `inspect` list its options by name."""
    shown = inspect.signature(Firing.fire)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False if name == "now" else None, annotation=of)
        for name, of in FireOptions.__annotations__.items()
    ]
    shown = shown.replace(parameters=[*list(shown.parameters.values())[:-1], *options])
    Firing.fire.__signature__ = shown  # type: ignore[attr-defined]


_name_options()


def _end_timer(timer: asyncio.TimerHandle, accepted: asyncio.Future[None]) -> None:
    timer.cancel()


def _column(
    what: str, given: Iterable[str | None] | None, count: int, check: Callable[[object], str]
) -> list[str | None] | None:
    """Return a value for each event, or None. Raise `BadArgument`, and what `check` raises."""
    if given is None:
        return None
    column = None if isinstance(given, str | bytes) or not isinstance(given, Iterable) else list(given)
    if column is None or len(column) != count:
        got = f"{type(given).__name__}" if column is None else f"{len(column):,}"
        raise BadArgument(f"expected {what}, one for each of {count:,} payloads, got {got}")
    for each in column:
        if each is not None:
            check(each)
    return column


def _keys(payloads: list[Any], key: Any, keys: Iterable[str | None] | None) -> list[str | None] | None:
    """Return the key of each event, or None."""
    if key is None:
        return _column("keys", keys, len(payloads), check_key)
    if keys is not None:
        raise BadArgument("expected key, for all, or keys, one for each, got both")
    if callable(key):
        return _column("keys", [key(payload) for payload in payloads], len(payloads), check_key)
    return [check_key(key)] * len(payloads)
