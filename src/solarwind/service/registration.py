"""Registrations: the options of `on` and `listen`, checked, and the instances made from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context
from datetime import timedelta
from functools import wraps
from inspect import Parameter, ismethod, signature
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack

import msgspec
from msgspec import UNSET

from ..calls import explained, unknown_option
from ..core.effects import Join
from ..engine.base import Engine, Since
from ..errors import BadArgument
from ..failure import MAX_SECONDS, Retry
from ..limits import Limits
from ..names import DEAD, RESERVED, check_heard, check_purpose, check_topic
from ..options import check_count, check_seconds, check_since, check_type
from ..origin import this_process
from ..plugins import load_exchange, registered
from ..rate import check_rate
from ..records import SchemaInfo
from ..schema import read_schema, schema_of
from ..shares import SHADOW, Share, check_rollout
from ..timing import MAX_DELAY_NS, check_delay
from . import log_fields
from .bound import Around, bound
from .dead import Of, only
from .hints import innermost
from .runner import Runner
from .signature import Handler
from .timed import timed

MAX_ORIGIN = 1_000  # characters

P = ParamSpec("P")
T = TypeVar("T")


class FunctionOrigin(msgspec.Struct, frozen=True, eq=False):
    """Where a function is from. It is the same function of a module that was executed again where only the execution
    differs: an import makes a new spec or new globals, and each run of a notebook's cell is a file of its own."""

    module: str
    name: str
    spec: Any
    names: Any
    file: str

    @classmethod
    def of(cls, function: Callable[..., Any]) -> FunctionOrigin:
        inner = innermost(function)
        names = getattr(inner, "__globals__", None)
        file = getattr(getattr(inner, "__code__", None), "co_filename", "")
        spec = names.get("__spec__") if names is not None else None
        return cls(getattr(inner, "__module__", ""), getattr(inner, "__qualname__", ""), spec, names, file)

    def is_again(self, other: FunctionOrigin) -> bool:
        executed = self.spec is not other.spec or self.names is not other.names or self.file != other.file
        return executed and (self.module, self.name) == (other.module, other.name)


class Registration(msgspec.Struct, eq=False):
    """One call of `on`: the options of an instance, and the instance once it has joined."""

    function: Callable[..., Any]
    handler: Handler
    join: Join
    since: Since
    concurrency: int
    origin: FunctionOrigin
    unnamed: bool  # the purpose is the function's name
    only: Of | None = None  # of what is fired on `solarwind.dead`, the deaths that it gets
    runner: Runner | None = None
    instance: int = 0
    joining: asyncio.Task[None] | None = None

    @property
    def described(self) -> Join:
        """What it joins with: with the schema of what the handler reads."""
        schema = b"" if self.handler.reads is UNSET else schema_of(self.handler.reads)
        return msgspec.structs.replace(self.join, schema=schema)

    async def enter(
        self, engine: Engine, begun: asyncio.Event, limits: Limits, context: Context, around: Around
    ) -> None:
        """Join, with a `Runner` that handles nothing before `begun`. Raise what the engine raises."""
        log_fields.begin()
        handler = bound(self.handler, around)
        if self.only is not None:
            handler = only(handler, self.only)
        if self.join.timeout_ns:
            handler = timed(handler, self.join.timeout_ns, engine.service_clock)
        runner = Runner(engine, self.join, handler, self.concurrency, begun, limits, context)
        runner.observer = around.observer
        try:
            self.instance = await engine.join(handled_here(self.described), self.since, runner)
        except BaseException:
            await runner.stop(0)
            raise
        runner.enter(self.instance)
        self.runner = runner

    def below(self, prefix: str | None) -> Registration:
        """Return a registration of its own, on the topic with that prefix; what the dispatcher fires on has none. Raise
        `BadName`."""
        changed: dict[str, Any] = {}
        of = self.only
        if prefix is not None and of is not None:
            of = of.below(prefix)
            changed = {"purpose": of.hook}
        elif prefix is not None and not self.join.topic.startswith(RESERVED):
            changed = {"topic": check_topic(f"{prefix}.{self.join.topic}")}
        return msgspec.structs.replace(self, join=msgspec.structs.replace(self.join, **changed), only=of)

    def of_deaths(self, function: Any, handler: Handler | None) -> list[Registration]:
        """Return the registration of the handler of its deaths, which goes with it; none without one, and of a shadow,
        nothing of which is to have an effect."""
        if handler is None or self.join.rollout == SHADOW:
            return []
        of, at_once = Of(self.join.topic, self.join.purpose), concurrency_of(handler, None)
        join = stated(DEAD, of.hook, version=self.join.version, retry=Retry(), room=at_once)
        origin = FunctionOrigin.of(function)
        return [Registration(self.function, handler, join, "now", at_once, origin, unnamed=False, only=of)]

    async def leave(self, engine: Engine, grace: float) -> None:
        """Leave, if it has joined; handlers have `grace` seconds to finish."""
        self.joining = None
        if self.runner is not None:
            runner, self.runner = self.runner, None
            engine.leaving(self.instance)
            try:
                await runner.stop(grace)
            finally:
                await engine.leave(self.instance)


def described(registrations: Iterable[Registration]) -> list[SchemaInfo]:
    """Return what handlers read, and how their purposes are handed out: one for each version."""
    found: dict[tuple[str, str, int], SchemaInfo] = {}
    for each in registrations:
        join = each.described
        schema = read_schema(join.schema) if join.schema else None
        retry = msgspec.structs.asdict(join.retry or Retry())
        info = SchemaInfo(join.topic, join.purpose, join.version, join.exchange, join.key, retry, schema)
        found.setdefault((join.topic, join.purpose, join.version), info)
    return [found[name] for name in sorted(found)]


def concurrency_of(handler: Handler, stated: int | None) -> int:
    """Return how many events an instance handles at once, as stated or by default."""
    return stated or (10 if handler.is_async else 1)


class Options(TypedDict, total=False):
    """The options of a registration that say what is stated of a purpose and its version, or of the instance: those of
    `on` and `listen`, each defined here, with its type. See `Registering.on` for what they mean."""

    exchange: str
    version: int
    key: str | None
    key_missing: str
    since: Since
    retry: Retry | None
    lease: float | timedelta
    delay: float | timedelta | str | None
    rate: str | None
    at_most: int | None
    rollout: str | float | Share | None


_DEFAULTS: Options = {
    "exchange": "direct",
    "version": 1,
    "key": None,
    "key_missing": "handle",
    "since": "now",
    "retry": None,
    "lease": 30.0,
    "delay": None,
    "rate": None,
    "at_most": None,
    "rollout": None,
}


def shows_options(function: Callable[P, T]) -> Callable[P, T]:
    """Let the signature of a function that takes `Options` name each of them, with its default, and let it raise
    `BadArgument` for one that it does not name."""
    shown = signature(function)
    *named, _ = shown.parameters.values()
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Options.__annotations__[name])
        for name, default in _DEFAULTS.items()
    ]
    function.__signature__ = shown.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
    names = [each.name for each in (*named, *options)][1:]  # the first is the object
    begun = explained(function)

    @wraps(function)
    def call(*args: P.args, **given: P.kwargs) -> T:
        for name in given.keys() - set(names):
            raise unknown_option(function.__name__, name, names)
        return begun(*args, **given)

    return call


def stated(topic: str, purpose: str, *, room: int = 1, **options: Unpack[Options]) -> Join:
    """Return a registration with the options that somebody gave, from Python, the command line or HTTP, and with this
    process as its origin. Raise `BadName` and `BadArgument` for invalid ones."""
    given: Options = {**_DEFAULTS, **options}
    delay, retry = given["delay"], given["retry"]
    if retry is not None:
        check_type("retry", retry, Retry, "Retry(attempts=3)")
        retry = Retry(*msgspec.structs.astuple(retry))  # which only equals its own kind
    join = Join(
        topic=topic,
        purpose=purpose,
        exchange=given["exchange"],
        version=given["version"],
        key=given["key"],
        retry=retry,
        lease_ns=int(check_seconds("a lease", given["lease"], some=True) * 1e9),
        room=room,
        origin=this_process(),
        key_missing=given["key_missing"],
        rollout=check_rollout(given["rollout"]),
        delay_ns=0 if delay is None else check_delay("a delay", delay),
        rate=given["rate"],
        at_most=given["at_most"],
    )
    check_join(join, given["since"])
    return join


def handled_here(join: Join) -> Join:
    """Return the registration for a handler in this process, which may be a forked child by now."""
    return msgspec.structs.replace(join, origin=this_process(), process=this_process())


def check_join(join: Join, since: Since) -> None:
    """Raise `BadName` and `BadArgument` for an invalid registration, also one from another process."""
    check_heard(join.topic)
    check_purpose(join.purpose)
    load_exchange(join.exchange)
    check_count("version", join.version)
    check_count("room", join.room)
    if not 0 < join.lease_ns < MAX_SECONDS * 1e9:
        raise BadArgument(f"expected a lease of more than 0 seconds, got {join.lease_ns} ns")
    if not 0 <= join.timeout_ns < MAX_SECONDS * 1e9:
        raise BadArgument(f"expected a timeout of 0 seconds or more, got {join.timeout_ns} ns")
    if not 0 <= join.delay_ns <= MAX_DELAY_NS:
        raise BadArgument(f"expected a delay from 0 to ten years, got {join.delay_ns} ns")
    check_rate(join.rate)
    if join.at_most is not None:
        check_count("at_most", join.at_most)
    registered.check(join.exchange, join.key, join.key_missing)
    for what, name in (("an origin", join.origin), ("a process", join.process)):
        if len(name) > MAX_ORIGIN:
            raise BadArgument(f"expected {what} of at most {MAX_ORIGIN:,} characters, got {len(name):,}")
    check_since(since)
    check_rollout(join.rollout)
    if join.schema:
        read_schema(join.schema)
    found = registered.lookup(join.exchange)
    if found is None or found.pends:
        return
    if join.rate is not None or join.at_most is not None:
        limit = f"rate={join.rate!r}" if join.rate is not None else f"at_most={join.at_most}"
        raise BadArgument(
            f"expected no limit with exchange {join.exchange!r}, whose instances get all that comes, got {limit}: "
            "leave it out, or use an exchange whose events pend"
        )
    if isinstance(join.rollout, float) and join.rollout:
        raise BadArgument(
            f"expected no share with exchange {join.exchange!r}, whose instances get all that comes, got "
            f"{join.rollout:.6g}: leave it out, or use an exchange whose events pend"
        )
    if join.rollout == SHADOW:
        raise BadArgument(
            f"expected no shadow with exchange {join.exchange!r}, whose instances get all that comes: leave it out, or "
            "use an exchange whose events pend"
        )
    if since != "now":
        raise BadArgument(
            f"expected no since with exchange {join.exchange!r}, whose instances get what comes while they are there, "
            f"got {since!a}: leave it out, or use an exchange whose events pend"
        )


class Registrations(list[Registration]):
    """The registrations of one `SolarWind`."""

    def of(self, function: Callable[..., Any]) -> list[Registration]:
        """Return those of a function. An object's method is another object on each access, but equal."""
        return [each for each in self if _is_same(each.function, function)]

    def cannot_settle(self) -> str:
        """Return the end of a sentence on what is left: the purposes whose pending events no instance here settles."""
        purposes = {(each.join.topic, each.join.purpose): False for each in self}
        for each in self:
            exchange = registered.lookup(each.join.exchange)
            purposes[each.join.topic, each.join.purpose] |= exchange is None or exchange.pends
        names = ", ".join(f"{purpose!r} on {topic!r}" for (topic, purpose), able in purposes.items() if not able)
        if not names:
            return ""
        return f"; what pends for {names} needs a version whose exchange pends, and none runs here: run that one, too"

    def check(self, new: Registration) -> None:
        """Raise `BadArgument` where another function has the same name for the same purpose: the two would silently
        share its events."""
        for each in self if new.unnamed else ():
            taken = each.unnamed and _is_for_the_same(each.join, new.join)
            if taken and not _is_same(each.function, new.function) and not each.origin.is_again(new.origin):
                raise BadArgument(
                    f"expected a purpose=... for {new.handler.name}, since another function on topic "
                    f"{new.join.topic!r} has the purpose {new.join.purpose!r} by its name: state what each is for, "
                    "or the same purpose for both to share its events"
                )


def _is_for_the_same(one: Join, other: Join) -> bool:
    return (one.topic, one.purpose, one.version) == (other.topic, other.purpose, other.version)


def _is_same(one: Any, other: Any) -> bool:
    return one is other or (ismethod(one) and ismethod(other) and one == other)
