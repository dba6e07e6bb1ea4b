"""A backend for Django's tasks: `django.tasks` from Django 6 on, before that the package django-tasks.

    TASKS = {"default": {"BACKEND": "solarwind.contrib.django.tasks.SolarWindBackend"}}

Each queue is a topic, `django.tasks.QUEUE`, with one purpose: to run its tasks. So they are accepted, retried, become
dead letters and are looked after as all events are. There are no results to ask for: a task that has something to say
fires an event, or writes it down. There are no priorities either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime
from functools import partial
from traceback import format_exception
from typing import Any

from django.apps import apps
from django.core import checks
from django.db import connections
from django.utils import timezone
from django.utils.module_loading import import_string

try:
    from django.tasks import TaskContext, TaskResult, TaskResultStatus, task_backends
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import Task, TaskError
    from django.tasks.exceptions import InvalidTask
    from django.tasks.signals import task_enqueued, task_finished, task_started
except ImportError:  # before Django 6
    from django_tasks import TaskContext, TaskResult, TaskResultStatus, task_backends
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.base import Task, TaskError
    from django_tasks.exceptions import InvalidTaskError as InvalidTask
    from django_tasks.signals import task_enqueued, task_finished, task_started

from ...errors import BadArgument, SolarWindError
from ...event import Event
from ...failure import Reject, Retry
from ...names import check_topic, shown
from ...options import check_count, check_seconds
from ...origin import this_process
from . import conf, wind

__all__ = ["SolarWindBackend"]

PURPOSE = "Run Django tasks"
WITHIN_S = 5.0  # that an `enqueue` waits until the task is accepted
CONCURRENCY = 4

_OPTIONS = ("concurrency", "outbox", "retry", "within")
_NO_APP = f"expected {__package__!r} in INSTALLED_APPS, which runs the tasks of this backend, got none"


class SolarWindBackend(BaseTaskBackend):
    """Runs tasks as events of Solar Wind.

    `OPTIONS`: `concurrency`, how many tasks of a queue a process runs at once (4); `retry`, a dict of what `Retry`
    takes; `within`, how many seconds `enqueue` waits until a task is accepted (5); and `outbox`, the name of a database
    in whose transaction a task is enqueued, so that it exists if and only if that commits."""

    supports_defer = True
    supports_async_task = True
    supports_get_result = False
    supports_priority = False

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        """Read `OPTIONS`; what is wrong with them is told by Django's checks, and when a task is enqueued."""
        options, queues = params.get("OPTIONS", {}), params.get("QUEUES", [])
        wrong = []
        if not isinstance(options, dict):
            wrong.append(f"expected a dict as TASKS[{alias!r}]['OPTIONS'], got {shown(options)}")
        if not isinstance(queues, list | tuple | Set) or not all(isinstance(queue, str) for queue in queues):
            wrong.append(f"expected a list of names as TASKS[{alias!r}]['QUEUES'], got {shown(queues)}")
        super().__init__(alias, params | {"OPTIONS": {}, "QUEUES": ["default"]} if wrong else params)
        self.problems = tuple(wrong) or _problems(alias, self.queues, self.options) or _contradictions(self)

    def validate_task(self, task: Any) -> None:
        """Raise `InvalidTask` for one that cannot run here."""
        super().validate_task(task)
        if self.problems:
            raise InvalidTask(self.problems[0])

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return the result of a task that is accepted, or with `outbox` written down. Raise `InvalidTask`, and what
        `wind.fire` or `wind.outbox(...).fire` raises."""
        result = self._ready(task, args, kwargs)
        fire = self._firing(result)
        if (alias := self.options.get("outbox")) is not None:
            id = wind.outbox(alias).fire(*fire[0], **fire[1])
        else:
            id = wind.fire(*fire[0], **fire[1], within=self._within).wait()
        return self._enqueued(result, id)

    async def aenqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """See `enqueue`."""
        if self.options.get("outbox") is not None:
            return await super().aenqueue(task, args, kwargs)
        result = self._ready(task, args, kwargs)
        fire = self._firing(result)
        return self._enqueued(result, await wind.fire(*fire[0], **fire[1], within=self._within))

    def check(self, **_: Any) -> list[checks.CheckMessage]:
        """Return an error where the app is not installed, whose own check says what is wrong with options: this one is
        run before Django 6 by the app `django_tasks` alone, and from then on where `django.tasks` was imported."""
        return [] if apps.is_installed(__package__) else [checks.Error(_NO_APP, id="solarwind.E002")]

    @property
    def _within(self) -> float:
        return check_seconds("within", self.options.get("within", WITHIN_S), some=True)

    def _ready(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        self.validate_task(task)
        return result_of(task, "", args, kwargs, self.alias, timezone.now())

    def _firing(self, result: Any) -> tuple[tuple[str, dict[str, Any]], dict[str, Any]]:
        task = result.task
        payload = {
            "task": task.module_path,
            "args": result.args,
            "kwargs": result.kwargs,
            "backend": self.alias,
            "enqueued": result.enqueued_at.astimezone(UTC).isoformat(),
        }
        # A time without a zone is Django's local time, which is that of the process.
        due = {} if task.run_after is None else {"at": task.run_after.astimezone(UTC)}
        return (topic_of(task.queue_name), payload), due

    def _enqueued(self, result: Any, id: str) -> Any:
        object.__setattr__(result, "id", id)
        task_enqueued.send(type(self), task_result=result)
        return result


def result_of(
    task: Any, id: str, args: Sequence[Any], kwargs: Mapping[str, Any], backend: str, enqueued: datetime | None
) -> Any:
    """Return the result of a task that has not begun."""
    return TaskResult(
        task=task,
        id=id,
        status=TaskResultStatus.READY,
        enqueued_at=enqueued,
        started_at=None,
        last_attempted_at=None,
        finished_at=None,
        args=list(args),
        kwargs=dict(kwargs),
        backend=backend,
        errors=[],
        worker_ids=[],
    )


def topic_of(queue: str) -> str:
    """Return the topic of a queue."""
    return f"django.tasks.{queue}"


def _problems(alias: str, queues: set[str], options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is wrong with the settings of a backend."""
    where = f"TASKS[{alias!r}]"
    found = []
    if not queues:
        found.append(f"expected names of queues as {where}['QUEUES'], each of which is a topic, got none")
    for name in options:
        if name not in _OPTIONS:
            found.append(f"expected OPTIONS of {where} among {', '.join(_OPTIONS)}, got {shown(name)}")
    tried: list[Callable[[], object]] = [
        *(partial(check_topic, topic_of(queue)) for queue in sorted(queues)),
        lambda: check_count("concurrency", options.get("concurrency", CONCURRENCY)),
        lambda: check_seconds("within", options.get("within", WITHIN_S), some=True),
        lambda: retry_of(options),
        lambda: _check_database(options.get("outbox")),
    ]
    for check in tried:
        try:
            check()
        except SolarWindError as error:
            found.append(f"{where}: {error}")
    return tuple(found)


def _contradictions(backend: SolarWindBackend) -> tuple[str, ...]:
    """Return for which queues an earlier backend says otherwise how they run: a queue has one handler."""
    found: dict[str, str] = {}
    for alias in conf.backends():
        if alias == backend.alias:
            break
        earlier = task_backends[alias]
        if not earlier.problems and _running(earlier) != _running(backend):
            for queue in sorted(backend.queues & earlier.queues):
                found.setdefault(
                    queue,
                    f"expected retry and concurrency of queue {queue!r} in TASKS[{backend.alias!r}] as in "
                    f"TASKS[{alias!r}], got others: state the same, or name another queue",
                )
    return tuple(found.values())


def _running(backend: SolarWindBackend) -> tuple[Retry, int]:
    return retry_of(backend.options), backend.options.get("concurrency", CONCURRENCY)


def _backends() -> Iterator[SolarWindBackend]:
    return (task_backends[alias] for alias in conf.backends())


def problems() -> list[str]:
    """Return what is wrong with the backends of this kind in the settings `TASKS`, as sentences."""
    return [problem for backend in _backends() for problem in backend.problems]


def retry_of(options: Mapping[str, Any]) -> Retry:
    """Return how tasks are retried. Raise `BadArgument`."""
    stated = options.get("retry", {})
    if isinstance(stated, Retry):
        return stated
    if not isinstance(stated, dict) or not all(isinstance(name, str) for name in stated):
        raise BadArgument(f'expected retry as a dict such as {{"attempts": 3}}, got {shown(stated)}')
    return Retry(**stated)


def _check_database(alias: object) -> None:
    if alias is not None and alias not in list(connections):
        known = ", ".join(map(repr, connections))
        raise BadArgument(f"expected the name of a Django database as outbox, one of {known}, got {shown(alias)}")


# --- running ------------------------------------------------------------------------------------------------


def register() -> None:
    """Register a handler for each queue of each backend of this kind in the settings `TASKS`."""
    queues: dict[str, SolarWindBackend] = {}
    for backend in _backends():
        if not backend.problems:
            queues |= {queue: backend for queue in backend.queues if queue not in queues}
    for queue, backend in queues.items():
        retry, concurrency = _running(backend)
        # From the beginning: what was enqueued before anything ran tasks is to run, too.
        registering = partial(wind.on, topic_of(queue), purpose=PURPOSE, since="beginning")
        registering(concurrency=concurrency, retry=retry)(_runner(queue, retry.attempts))


def _runner(queue: str, attempts: int) -> Any:
    def run_task(payload: dict[str, Any], event: Event) -> None:
        """Run a task. Raise what it raises."""
        run(payload, event, queue, attempts)

    run_task.__qualname__ = run_task.__name__
    return run_task


def run(payload: dict[str, Any], event: Event, queue: str, attempts: int) -> None:
    """Run a task in this thread. Raise what it raises, and `Reject` where there is no such task."""
    task, result = _found(payload, event, queue)
    started = timezone.now()
    for name, value in (("started_at", started), ("last_attempted_at", started), ("status", TaskResultStatus.RUNNING)):
        object.__setattr__(result, name, value)
    # One for each attempt; who made the earlier ones is not known here.
    result.worker_ids.extend([""] * (event.attempt - 1) + [this_process()])
    backend = type(task.get_backend())
    task_started.send(backend, task_result=result)
    context = [TaskContext(task_result=result)] if task.takes_context else []
    try:
        returned = task.call(*context, *result.args, **result.kwargs)
    except BaseException as error:
        kind = type(error)
        path = f"{kind.__module__}.{kind.__qualname__}"
        result.errors.append(TaskError(exception_class_path=path, traceback="".join(format_exception(error))))
        if event.attempt >= attempts or isinstance(error, Reject):  # it is not tried again
            _finish(backend, result, TaskResultStatus.FAILED)
        raise
    object.__setattr__(result, "_return_value", returned)  # as each backend does: Django has no other way
    _finish(backend, result, TaskResultStatus.SUCCESSFUL)


def _finish(backend: type, result: Any, status: Any) -> None:
    object.__setattr__(result, "finished_at", timezone.now())
    object.__setattr__(result, "status", status)
    task_finished.send(backend, task_result=result)


def _found(payload: dict[str, Any], event: Event, queue: str) -> tuple[Any, Any]:
    """Return the task of a payload, and its result. Raise `Reject`."""
    try:
        path, args, kwargs = payload["task"], payload["args"], payload["kwargs"]
        task = import_string(path)
        enqueued = datetime.fromisoformat(payload["enqueued"])
        if not isinstance(task, Task):
            raise TypeError(f"{path} is no task")
        task = task.using(queue_name=queue, backend=payload["backend"])
        return task, result_of(task, event.id, args, kwargs, payload["backend"], enqueued)
    except (ImportError, InvalidTask, KeyError, TypeError, ValueError) as error:
        raise Reject(f"expected a task that this project has, got another: {type(error).__name__}: {error}") from error
