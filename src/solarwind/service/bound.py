"""A handler with what is around it: its dependencies, and the middleware of its `SolarWind`.

A handler that has neither is called as it is. For the others one coroutine does everything, whatever the handler is:
an `async def` handler awaits it. A `def` handler has its thread; what is `async` around it runs on the loop, and the
thread meanwhile waits for the parts that are to run there: the handler, and what of its dependencies is `def`. So each
dependency is opened and closed in one task, or in one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any, Protocol

import msgspec

from ..errors import BadArgument
from ..failure import Reject
from ..loops import running_loop
from .dependencies import EVENT, Plan, Step, plan
from .middleware import Handing, Middleware, run_around, run_now
from .observing import Observer
from .signature import Handler, refuse_unrun

_TRACEBACK = BaseException.__dict__["__traceback__"].__get__  # an exception may have attributes that raise
_NOT_ONCE = "generator didn't "  # begins what contextlib says of a function that yields never, or again

# What a function returned, and what it raised, which is not set on a future: that would refuse some exceptions.
Outcome = tuple[Any, BaseException | None]


class Around(msgspec.Struct, eq=False):
    """What is around the handlers and fires of a `SolarWind`: the middlewares, the first outermost, what stands in for
    dependencies, in tests, and who observes what travels, for tracing. `outermost` is around all of that: it returns a
    handler whose call has it around, on the loop or, for a `def` handler, in its thread."""

    middlewares: list[Middleware] = msgspec.field(default_factory=list)
    overrides: dict[Any, Any] = msgspec.field(default_factory=dict)
    observer: Observer | None = None
    outermost: Callable[[Handler], Handler] | None = None


class Run(Protocol):
    """Runs what is `def`, where the handler is to run."""

    def __call__(self, function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Awaitable[Any]: ...


def bound(handler: Handler, around: Around) -> Handler:
    """Return the handler with what is around it; itself where nothing is. Called on the loop, before it is started."""
    if handler.needs is not None or around.middlewares:
        made = Bound(handler, around, asyncio.get_running_loop())
        handler = msgspec.structs.replace(handler, call=made.call, is_raw=False, around=made)
    return handler if around.outermost is None else around.outermost(handler)


class Bound:
    """A handler whose `call` has everything around it."""

    def __init__(self, handler: Handler, around: Around, loop: asyncio.AbstractEventLoop) -> None:
        self._handler = handler
        self._middlewares = tuple(around.middlewares)
        self._around = around
        self._loop = loop
        self._planned_with: dict[Any, Any] = {}
        self._plan = self._planned({})
        self._threads: set[_Thread] = set()  # that wait for what runs on the loop
        self._making: dict[object, str] = {}  # the dependencies that are being opened or closed
        self.call: Callable[[Any], Any] = self._in_task if handler.is_async else self._in_thread

    def cancel(self) -> None:
        """Cancel what runs on the loop for `def` handlers, but not around one that runs: its thread cannot be ended."""
        for thread in list(self._threads):
            thread.cancel()

    @property
    def where(self) -> str:
        """Return the end of a sentence on what does not end: the dependencies that are being opened or closed."""
        names = sorted(set(self._making.values()))
        return f", in its dependency {', '.join(names)}" if names else ""

    # Where it runs ------------------------------------------------------------------------------------

    def _in_task(self, given: Any) -> Coroutine[Any, Any, None]:
        return self._handle(given, _here)

    def _in_thread(self, given: Any) -> None:
        if not self._middlewares and not self._current().is_async:
            run_now(
                self._handle(given, _here), lambda: f"expected {self._handler.name}, a def, not to wait on the loop"
            )
            return
        thread = _Thread(self._loop)
        self._threads.add(thread)
        try:
            thread.live(lambda: self._handle(given, thread.run))
        finally:
            self._threads.discard(thread)

    # What runs ----------------------------------------------------------------------------------------

    async def _handle(self, given: Any, run: Run) -> None:
        if not self._middlewares:
            await self._call(given, run)
            return
        events = given if self._handler.is_batch else (given,)
        handing = Handing("handle", events[0].topic, events=events)
        await run_around(self._middlewares, handing, lambda: self._call(given, run))

    async def _call(self, given: Any, run: Run) -> None:
        """Call the handler, with its dependencies."""
        handler, needs = self._handler, self._handler.needs
        if needs is None:
            argument = given.data if handler.is_raw else given
            refuse_unrun(await handler.call(argument) if handler.is_async else await run(handler.call, argument))
            return
        payload = needs.decode(given)
        made = self._current()
        values: list[Any] = []
        opened: list[tuple[Step, Any]] = []
        failure: BaseException | None = None
        try:
            for step in made.steps:
                values.append(await self._made(step, given, values, opened, run))
            chosen = [values[index] for index in made.values]
            if handler.is_async:
                result = needs.call(given, payload, chosen)
                refuse_unrun(await result if inspect.isawaitable(result) else result)
            else:
                refuse_unrun(await run(needs.call, given, payload, chosen))
        except BaseException as error:
            if issubclass(type(error), GeneratorExit) and handler.is_async and running_loop() is None:
                raise  # the loop is gone: nothing can be awaited any more
            failure = error
        # Each sees the handler's exception, whatever the others make of it: what failed is never settled.
        for step, manager in reversed(opened):
            try:
                await self._closed(step, manager, failure, run)
            except BaseException as error:
                failure = error
        if failure is not None:
            try:
                raise failure
            finally:
                failure = None

    async def _made(self, step: Step, given: Any, values: list[Any], opened: list[Any], run: Run) -> Any:
        """Return the value of a step. One that closes is put into `opened`."""
        positional = [given if index == EVENT else values[index] for index in step.positional]
        keywords = {name: given if index == EVENT else values[index] for name, index in step.keywords}
        with self._noted(step):
            if not step.closes:
                if step.is_async:
                    return await step.make(*positional, **keywords)
                value = await run(step.make, *positional, **keywords)
                if inspect.iscoroutine(value):
                    value.close()
                    raise TypeError(
                        f"expected dependency {step.name}, a def, to return its value, got a coroutine: "
                        "make it async def"
                    )
                return value
            manager = step.make(*positional, **keywords)
            value = await (manager.__aenter__() if step.is_async else run(manager.__enter__))
            opened.append((step, manager))
            return value

    async def _closed(self, step: Step, manager: Any, failure: BaseException | None, run: Run) -> None:
        said = (None, None, None) if failure is None else (type(failure), failure, _TRACEBACK(failure))
        with self._noted(step):
            await (manager.__aexit__(*said) if step.is_async else run(manager.__exit__, *said))

    @contextlib.contextmanager
    def _noted(self, step: Step) -> Iterator[None]:
        token = object()
        self._making[token] = step.name
        try:
            yield
        except RuntimeError as error:
            if not str(error).startswith(_NOT_ONCE):
                raise
            raise TypeError(
                f"expected dependency {step.name} to yield once, what the handler gets, got: {error}: what comes after "
                "the yield closes it"
            ) from error
        finally:
            del self._making[token]

    def _current(self) -> Plan:
        """Return the plan with what stands in now."""
        overrides = self._around.overrides
        if overrides != self._planned_with:
            try:
                self._plan, self._planned_with = self._planned(overrides), dict(overrides)
            except BadArgument as error:
                raise Reject(str(error)) from None  # no other attempt can help
        return self._plan

    def _planned(self, overrides: dict[Any, Any]) -> Plan:
        needs = self._handler.needs
        wants = () if needs is None else needs.wants
        return plan(wants, f"handler {self._handler.name}", self._handler.is_batch, overrides)


async def _here(function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Any:
    return function(*args, **keywords)


class _Thread:
    """The thread of a `def` handler, while a coroutine on the loop decides what it is to run."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[tuple[Context, Callable[[], Any], asyncio.Future[Outcome]] | None] = SimpleQueue()
        self._running: Future[BaseException | None] | None = None
        self._is_busy = False
        self._is_left = False  # nobody waits any more until what runs here ends
        self._context: Context | None = None  # of what runs here
        self._seen: Context | None = None  # of whoever awaited what ran here last

    def live(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` on the loop, and here what it asks for, until it is over. Raise what it raises."""

        async def begun() -> BaseException | None:
            try:
                await work()
            except BaseException as error:  # a task that raised SystemExit would end the loop
                return error
            return None

        beginning = begun()
        try:
            self._running = asyncio.run_coroutine_threadsafe(beginning, self._loop)
        except RuntimeError:  # the loop is closed
            beginning.close()
            raise
        self._running.add_done_callback(lambda _: self._jobs.put(None))
        while (job := self._jobs.get()) is not None:
            context, function, result = job
            outcome: Outcome
            try:
                outcome = context.run(function), None
            except BaseException as error:
                outcome = None, error
            self._loop.call_soon_threadsafe(_settle, result, outcome)
            del job, function, result, outcome
        failure = asyncio.CancelledError() if self._running.cancelled() else self._running.result()
        if failure is not None:
            try:
                raise failure
            finally:
                failure = None

    async def run(self, function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Any:
        """Run a function on the thread, in the context of whoever awaits it. Where that is cancelled, it is so once the
        function has ended, which nothing can end: else what it uses would be closed meanwhile."""
        if self._is_left:
            raise asyncio.CancelledError
        result: asyncio.Future[Outcome] = self._loop.create_future()
        cancelled: asyncio.CancelledError | None = None
        self._is_busy = True
        self._jobs.put((self._caught_up(), lambda: function(*args, **keywords), result))
        while not result.done():
            try:
                await asyncio.wait([result])
            except asyncio.CancelledError as now:
                if self._is_left:
                    raise
                cancelled = now
        self._is_busy = self._is_left = False
        value, error = result.result()
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                cancelled = error = None
        if error is not None:
            try:
                raise error
            finally:
                error = None  # else it and its traceback keep each other alive
        return value

    def _caught_up(self) -> Context:
        """Return the context of what runs here, which is one: what a dependency sets when it opens, it may reset when
        it closes. What whoever awaits has set since then is set in it, too."""
        now = copy_context()
        if self._context is None or self._seen is None:
            self._context = now.copy()
        else:
            changed = [each for each in now.items() if self._seen.get(each[0], self) is not each[1]]
            self._context.run(lambda: [variable.set(value) for variable, value in changed])
        self._seen = now
        return self._context

    def cancel(self) -> None:
        if self._is_busy:
            self._is_left = True
        elif self._running is not None:
            self._running.cancel()


def _settle(result: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not result.done():
        result.set_result(outcome)
