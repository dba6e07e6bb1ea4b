"""Registering handlers: `on` and its options, on a `SolarWind` and on a group of handlers that is included in one."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, Unpack

import msgspec

from .calls import explained, explains_calls
from .errors import BadArgument
from .failure import Retry
from .names import check_purpose, check_topic, shown
from .options import check_count, check_seconds, check_topic_given
from .records import HandlerInfo
from .service.dead import inspect_on_dead
from .service.registration import (
    FunctionOrigin,
    Options,
    Registration,
    Registrations,
    concurrency_of,
    shows_options,
    stated,
)
from .service.signature import MAX_BATCH, inspect_handler
from .service.timed import check_may_be_timed

F = TypeVar("F", bound=Callable[..., Any])


@explains_calls
class Registering:
    """What handlers are registered with."""

    def __init__(self) -> None:
        self._registrations = Registrations()
        self._groups: list[Handlers] = []  # that are included here, kept because they know of this one only weakly

    @property
    def handlers(self) -> tuple[HandlerInfo, ...]:
        """The registered handlers: one record for each call of `on`."""
        return tuple(
            HandlerInfo(
                each.join.topic,
                each.join.purpose,
                each.join.exchange,
                each.join.version,
                f"{each.origin.module}.{each.handler.name}",
            )
            for each in self._registrations
        )

    @shows_options
    def on(
        self,
        topic: str,
        *,
        purpose: str | None = None,
        concurrency: int | None = None,
        batch: int | None = None,
        timeout: float | timedelta | None = None,
        on_dead: Callable[..., Any] | None = None,
        **options: Unpack[Options],
    ) -> Callable[[F], F]:
        """Register a function to handle the events of a topic for a purpose. Each call is one service instance.

        - `purpose`: why it listens, in plain words; the function's name if not given
        - `exchange`: `direct` (also `direct:least-busy`, `direct:random`), `fanout`, `keyed`, or one of your own
        - `version`: of the purpose; which of them gets the events follows from `rollout`, and can be changed live
        - `key`: for `keyed`, the payload's field that is the key, such as `$.video_id`; else the event's own key
        - `key_missing`: for `keyed`: "handle" an event without a key as its own key, or "reject" it
        - `since`: where a new purpose begins: "now", "beginning", a datetime, or a timedelta ago
        - `retry`: how often and when the version retries from now on; `Retry()` if not given
        - `lease`: seconds of silence with events in hand after which they go to another instance
        - `concurrency`: how many events it handles at once; 10 for `async def`, 1 for `def`, which runs on a thread
        - `batch`: how many events a batch handler gets at once; at most 500, which is the default
        - `timeout`: seconds (or a timedelta) after which a call of an `async def` is cancelled: the attempt has failed
        - `on_dead`: a function that is called with a `Dead` when one of the purpose's events becomes a dead letter
        - `delay`: seconds (a timedelta, "5m") after which it gets each event, in order; others get it at once
        - `rate`: how many events the purpose is handed out, over all instances: "100/s", also for m, h and d
        - `at_most`: how many events of the purpose are in flight at most, over all instances
        - `rollout`: what a version first seen beside others does: "newest" (if not given), it becomes current; "hold",
          it gets nothing yet; "shadow", it gets copies and is only compared; `Share(0.1)` or 0.1, it has a tenth

        The parameter annotated `Event` gets the event, the other one the payload decoded to its annotation; with
        `list[...]` it is a batch handler. One annotated `Annotated[..., Depends(function)]` gets what that makes.
        Registered while it runs, it joins at once (see `joined`). Raises `BadName` and `BadArgument`; joining raises
        `ConflictError` if it contradicts what was stated before.
        """
        check_topic_given(topic)
        if concurrency is not None:
            check_count("concurrency", concurrency)
        if batch is not None:
            check_count("batch", batch, MAX_BATCH)
        timeout_ns = 0 if timeout is None else int(check_seconds("a timeout", timeout, some=True) * 1e9)
        options["retry"] = Retry() if options.get("retry") is None else options["retry"]
        common, since = stated(topic, "?" if purpose is None else purpose, **options), options.get("since", "now")
        hearing = None if on_dead is None else inspect_on_dead(on_dead, common.exchange)

        def register(function: F) -> F:
            handler = inspect_handler(function, batch)
            if timeout is not None:
                check_may_be_timed(handler)
            at_once = concurrency_of(handler, concurrency)
            room = at_once * handler.batch if handler.is_batch else at_once
            named = check_purpose(purpose or handler.purpose)
            join = msgspec.structs.replace(common, purpose=named, room=room, timeout_ns=timeout_ns)
            origin = FunctionOrigin.of(function)
            own = Registration(function, handler, join, since, at_once, origin, unnamed=purpose is None)
            self._register([own, *own.of_deaths(on_dead, hearing)])
            return function

        return explained(register)

    def include(self, group: Handlers, *, prefix: str | None = None) -> None:
        """Register the handlers of a group, those that it has and those that it gets later on. With a `prefix` their
        topics begin with it and a dot: "shop" makes "shop.order.placed" of "order.placed".

        It is as if each had been registered here with `on`: a group that is included again, with another prefix or the
        same, is so many more instances. Raise `BadArgument`, and `BadName` for topics that become invalid; then nothing
        is registered."""
        if not isinstance(group, Handlers):
            raise BadArgument(f"expected a group of handlers, Handlers(), got {shown(group)}")
        if prefix is not None:
            check_topic(prefix)
        if group is self or self._reaches(group):
            raise BadArgument("expected groups without a cycle, got one that is included in itself")
        self._register(_moved(group._registrations, prefix))
        self._groups.append(group)
        group._includers.append((weakref.ref(self), prefix))

    def _register(self, new: list[Registration]) -> None:
        """Add registrations: all of them, or raise."""
        raise NotImplementedError

    def _reaches(self, group: Registering) -> bool:
        """Return whether what is registered here is registered with `group` too."""
        return False

    def _check_new(self, new: list[Registration]) -> None:
        """Raise what `_register` would raise."""
        for registration in new:
            self._registrations.check(registration)


@explains_calls
class Handlers(Registering):
    """A group of handlers, defined without a `SolarWind`: register them with `on`, as on one, and have them included
    where they are to run, `wind.include(group, prefix="shop")`. A group may be included in another."""

    def __init__(self) -> None:
        super().__init__()
        # Where it is included, and with which prefix. One that is gone needs nothing any more.
        self._includers: list[tuple[weakref.ref[Registering], str | None]] = []

    def _there(self) -> list[tuple[Registering, str | None]]:
        self._includers = [each for each in self._includers if each[0]() is not None]
        return [(there, prefix) for reference, prefix in self._includers if (there := reference()) is not None]

    def _reaches(self, group: Registering) -> bool:
        return any(there is group or there._reaches(group) for there, _ in self._there())

    def _register(self, new: list[Registration]) -> None:
        self._check_new(new)
        self._registrations += new
        for there, prefix in self._there():
            there._register(_moved(new, prefix))

    def _check_new(self, new: list[Registration]) -> None:
        super()._check_new(new)
        for there, prefix in self._there():
            there._check_new(_moved(new, prefix))


def _moved(registrations: list[Registration], prefix: str | None) -> list[Registration]:
    """Return registrations of their own, with the prefix. Raise `BadName`."""
    return [each.below(prefix) for each in registrations]
