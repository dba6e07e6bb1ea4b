"""The backend for Django's tasks: what is enqueued, what runs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from .project import MODELS, Project

TASKS = """
import threading
try:
    from django.tasks import task
except ImportError:
    from django_tasks import task
from solarwind import Event, Reject
from shop.models import Note

calls = []

@task
def write(text, mark="!"):
    Note.objects.create(text=text + mark)
    return {"written": text}

@task
async def awrite(text):
    await Note.objects.acreate(text=text)

@task(takes_context=True)
def flaky(context, times):
    calls.append((context.attempt, context.task_result.attempts, context.task_result.id))
    if context.attempt < times:
        raise ConnectionError("not yet")

@task
def fails():
    raise SystemExit("at once")

@task(queue_name="mail")
def mail(text):
    Note.objects.create(text="mail " + text)

def plain(): ...
"""
SETTINGS = """
from datetime import timedelta
TASKS = {"default": {"BACKEND": "solarwind.contrib.django.tasks.SolarWindBackend", "QUEUES": ["default", "mail"],
                     "OPTIONS": {"retry": {"attempts": 3, "wait": 0.01}, "within": timedelta(seconds=30)}}}
SOLARWIND = {"URL": "memory://"}
"""
ALSO = 'INSTALLED_APPS += [] if __import__("django").VERSION >= (6,) else ["django_tasks"]\n'
BEGIN = """
from shop import tasks
try:
    from django.tasks import task_backends
    from django.tasks.exceptions import InvalidTask
    from django.tasks.signals import task_enqueued, task_started, task_finished
except ImportError:
    from django_tasks import task_backends
    from django_tasks.exceptions import InvalidTaskError as InvalidTask
    from django_tasks.signals import task_enqueued, task_started, task_finished
wind.begin()
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, settings=SETTINGS, shop__tasks=TASKS).migrated()


def test_tasks_run_with_their_arguments_sync_and_async(project: Project) -> None:
    program = """
import asyncio
result = tasks.write.enqueue("one", mark="?")
assert result.status == "READY" and not result.is_finished and result.enqueued_at and len(result.id) == 36
assert (result.args, result.kwargs, result.backend) == (["one"], {"mark": "?"}, "default")
tasks.awrite.enqueue("two")
tasks.mail.enqueue("three")
async def enqueue():
    return [await tasks.write.aenqueue("four"), await tasks.awrite.aenqueue("five")]
assert all(each.status == "READY" for each in asyncio.run(enqueue()))
wind.wait(wind.settled(60))
print(*sorted(Note.objects.values_list("text", flat=True)), sep=", ")
counts = wind.wait(wind.statistics()).purposes
print(*(counts[f"django.tasks.{queue}", "Run Django tasks"].settled for queue in ("default", "mail")))
"""
    assert project.python(BEGIN + program).splitlines() == ["five, four!, mail three, one?, two", "4 1"]


def test_a_task_that_raises_is_tried_again_and_then_is_a_dead_letter(project: Project) -> None:
    program = """
heard = []
for signal, name in ((task_enqueued, "enqueued"), (task_started, "started"), (task_finished, "finished")):
    signal.connect(lambda sender, task_result, name=name, **_: heard.append(
        (name, str(task_result.status), task_result.attempts)), weak=False)
assert tasks.flaky.enqueue(2).id
wind.wait(wind.settled(60))
assert [each[:2] for each in tasks.calls] == [(1, 1), (2, 2)] and len({each[2] for each in tasks.calls}) == 1
print(*(each for each in heard if each[0] != "enqueued"), sep="\\n")
heard.clear()
tasks.fails.enqueue()
wind.wait(wind.settled(60))
print(heard[-1])
[letter] = wind.wait(wind.dead("django.tasks.default", "Run Django tasks"))
print(letter.error, letter.attempts, letter.event.payload["task"])
"""
    done = project.attempt(BEGIN + program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "('started', 'RUNNING', 1)",
        "('started', 'RUNNING', 2)",
        "('finished', 'SUCCESSFUL', 2)",
        "('finished', 'FAILED', 3)",
        "SystemExit: at once 3 shop.tasks.fails",
    ]


def test_a_deferred_task_enters_its_queue_when_it_is_due(project: Project) -> None:
    program = """
from datetime import timedelta
from django.utils import timezone
from solarwind.testing.django import WindClock, wind_in_memory
wind.close()
with wind_in_memory(clock := WindClock()):
    tasks.write.using(run_after=timezone.now() + timedelta(hours=1)).enqueue("late")
    tasks.write.using(run_after=timezone.now() - timedelta(hours=1)).enqueue("past")
    wind.wait(wind.settled(60))
    print(*Note.objects.values_list("text", flat=True))
    clock.advance(3601)
    wind.wait(wind.settled(60))
    print(*Note.objects.values_list("text", flat=True))
"""
    assert project.python(BEGIN + program).splitlines() == ["past!", "past! late!"]


@pytest.mark.long
def test_what_the_backend_cannot_do_is_refused_and_its_flags_say_so(project: Project) -> None:
    program = """
backend = task_backends["default"]
print(backend.supports_defer, backend.supports_async_task, backend.supports_get_result, backend.supports_priority)
def refused(work):
    try:
        work()
    except (InvalidTask, NotImplementedError, Exception) as error:
        print(type(error).__name__.removesuffix("Error"), str(error)[:60])
refused(lambda: tasks.write.using(priority=1))
refused(lambda: tasks.write.using(queue_name="other"))
refused(lambda: tasks.write.get_result("x"))
refused(lambda: tasks.write.enqueue("x").refresh())
refused(lambda: tasks.write.enqueue(object()))
refused(lambda: tasks.write.enqueue("x" * (1 << 20)))
wind.close()
refused(lambda: tasks.write.enqueue("x"))
"""
    said = project.python(BEGIN + program).splitlines()
    assert said[0] == "True True False False"
    assert [line.split()[0] for line in said[1:]] == [
        "InvalidTask",
        "InvalidTask",
        "NotImplemented",
        "NotImplemented",
        "Type",
        "TooLarge",
        "Unavailable",
    ]


def test_an_event_that_is_no_task_of_the_project_is_a_dead_letter_at_once(project: Project) -> None:
    program = """
for payload in ({"task": "shop.tasks.gone", "args": [], "kwargs": {}, "backend": "default", "enqueued": "2026-01-01"},
                {"task": "shop.tasks.plain", "args": [], "kwargs": {}, "backend": "default", "enqueued": "2026-01-01"},
                {"task": "shop.tasks.write"}, {}):
    wind.fire("django.tasks.default", payload).wait(30)
wind.wait(wind.settled(60))
for letter in wind.wait(wind.dead("django.tasks.default", "Run Django tasks")):
    print(letter.attempts, letter.error)
"""
    said = project.python(BEGIN + program).splitlines()
    assert len(said) == 4
    assert all(line.startswith("1 expected a task that this project has, got another: ") for line in said), said


def test_wrong_options_are_checks_and_no_task_of_theirs_is_enqueued(project: Project) -> None:
    usual = (project.folder / "settings.py").read_text()
    wrong = """
TASKS["default"] |= {"QUEUES": [], "OPTIONS": {"retries": 3, "concurrency": 0, "within": -1, "outbox": "other",
                                               "retry": {"attempt": 3}}}
"""
    project.write("settings.py", usual + wrong)
    checked = project.manage("check")
    assert checked.returncode == 1
    for sentence in (
        "expected names of queues as TASKS['default']['QUEUES'], each of which is a topic, got none",
        "expected OPTIONS of TASKS['default'] among concurrency, outbox, retry, within, got 'retries'",
        "did you mean attempts=3?",
        "expected the name of a Django database as outbox, one of 'default', got 'other'",
    ):
        assert sentence in checked.stderr, checked.stderr
    assert checked.stderr.count("(solarwind.E002)") == 6
    project.write("settings.py", usual + wrong + ALSO)  # whose check asks the backends
    assert project.manage("check").stderr.count("(solarwind.E002)") == 6
    project.write("settings.py", usual + wrong + 'TASKS["default"] |= {"QUEUES": "mail", "OPTIONS": None}\n')
    checked = project.manage("check")
    assert "expected a dict as TASKS['default']['OPTIONS'], got None" in checked.stderr, checked.stderr
    assert "expected a list of names as TASKS['default']['QUEUES'], got 'mail'" in checked.stderr
    assert "Traceback" not in checked.stderr
    program = """
from solarwind.contrib.django.tasks import SolarWindBackend
for queues in ([1], [[]], [None, "mail"], {"mail": 1}):
    print(SolarWindBackend("other", {"QUEUES": queues}).problems)
"""
    project.write("settings.py", usual)
    said = project.python(program).splitlines()
    assert len(said) == 4
    assert all("expected a list of names as TASKS['other']['QUEUES'], got" in line for line in said), said
    project.write("settings.py", usual + 'TASKS["default"] |= {"QUEUES": ["default", "my mail", "mail"]}\n')
    done = project.attempt("import shop.tasks")
    assert done.returncode == 1
    assert "InvalidTask" in done.stderr.splitlines()[-1]
    assert "'django.tasks.my mail'" in done.stderr.splitlines()[-1]


def test_with_an_outbox_a_task_exists_if_and_only_if_its_transaction_commits(project: Project) -> None:
    settings = (project.folder / "settings.py").read_text()
    project.write("settings.py", settings + 'TASKS["default"]["OPTIONS"]["outbox"] = "default"\n')
    program = """
import asyncio
from django.db import transaction
from solarwind.testing.django import wind_in_memory
wind.close()
with wind_in_memory():
    for text, fails in (("kept", False), ("lost", True)):
        try:
            with transaction.atomic():
                assert tasks.write.enqueue(text).id
                if fails:
                    raise KeyError
        except KeyError:
            pass
    wind.wait(wind.settled(60))
    print(*Note.objects.values_list("text", flat=True))
"""
    assert project.python(BEGIN + program) == "kept!\n"


def test_without_a_backend_of_its_own_nothing_of_tasks_is_imported(tmp_path: Path) -> None:
    project = Project(tmp_path)
    found = "import sys\nprint({'django_tasks', 'django.tasks', 'solarwind.contrib.django.tasks'} & set(sys.modules))"
    assert project.python(found) == "set()\n"


def test_backends_that_run_a_queue_otherwise_contradict_each_other(project: Project) -> None:
    settings = (project.folder / "settings.py").read_text()
    same = """
TASKS |= {"same": TASKS["default"] | {"QUEUES": ["mail"], "OPTIONS": TASKS["default"]["OPTIONS"] | {"within": 1}},
          "other": TASKS["default"] | {"QUEUES": ["mail", "own"], "OPTIONS": %s}}
"""
    sentence = (
        "expected retry and concurrency of queue 'mail' in TASKS['other'] as in TASKS['default'], got others: state "
        "the same, or name another queue"
    )
    for options in ({"retry": {"attempts": 2}}, {"retry": {"attempts": 3, "wait": 0.01}, "concurrency": 1}):
        project.write("settings.py", settings + same % options)
        checked = project.manage("check")
        assert f"?: (solarwind.E002) {sentence}\n" in checked.stderr
        assert checked.stderr.count("solarwind.E002") == 1, checked.stderr
    said = project.attempt("from shop import tasks\ntasks.mail.using(backend='other')").stderr.splitlines()[-1]
    assert "InvalidTask" in said
    assert said.endswith(sentence)


def test_a_backend_without_its_app_says_so(project: Project) -> None:
    settings = (project.folder / "settings.py").read_text()
    project.write("settings.py", settings + ALSO + 'INSTALLED_APPS.remove("solarwind.contrib.django")\n')
    project.write(
        "shop/models.py", MODELS + "import shop.tasks\n"
    )  # as what enqueues does; it registers Django's check
    sentence = "expected 'solarwind.contrib.django' in INSTALLED_APPS, which runs the tasks of this backend, got none"
    assert f"(solarwind.E002) {sentence}" in project.manage("check").stderr
    said = project.attempt("from shop import tasks\ntasks.mail.enqueue('x')").stderr.splitlines()[-1]
    assert "with 'solarwind.contrib.django' in INSTALLED_APPS" in said


def test_a_task_that_was_enqueued_before_anything_ran_tasks_is_run_later(project: Project) -> None:
    project.write(
        "settings.py", (project.folder / "settings.py").read_text() + 'SOLARWIND["URL"] = "sqlite:///wind.db"\n'
    )
    program = """
wind.close()
wind.handles_here = False  # as where requests only fire
with wind:
    tasks.write.enqueue("early")
wind.handles_here = True
with wind:
    wind.wait(wind.settled(60))
print(*Note.objects.values_list("text", flat=True))
"""
    assert project.python(BEGIN.replace("wind.begin()", "") + program) == "early!\n"
