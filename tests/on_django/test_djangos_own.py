"""Django's own tests of its backends for tasks, with the backend of Solar Wind in place of theirs.

They come with Django's source distribution, which `make test-long` fetches beside an environment with Django 6; nothing
of them is kept here. Django has tests for a backend that only notes tasks, and for one that runs them at once. So two
small classes make the one of Solar Wind look like these: the first notes what it has enqueued, the second waits until
it has run. What tests find out is what the backend, the dispatcher and the handler made of a task."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .project import Project

BESIDE = Path(__file__).parent.parent.parent / ".venv" / "django6"
FOUND = sorted(BESIDE.glob("sdist/*/tests/tasks"))

STANDING_IN = """
from copy import deepcopy
from asgiref.sync import sync_to_async
from django.tasks.exceptions import TaskResultDoesNotExist
from django.tasks.signals import task_finished
from solarwind.contrib.django import wind
from solarwind.contrib.django.tasks import SolarWindBackend

class DummyBackend(SolarWindBackend):
    def __init__(self, alias, params):
        super().__init__(alias, params)
        self.results = []
    def enqueue(self, task, args, kwargs):
        self.results.append(super().enqueue(task, args, kwargs))
        return deepcopy(self.results[-1])
    async def aenqueue(self, task, args, kwargs):
        self.results.append(await super().aenqueue(task, args, kwargs))
        return deepcopy(self.results[-1])
    def get_result(self, result_id):
        for result in self.results:
            if result.id == result_id:
                return result
        raise TaskResultDoesNotExist(result_id)
    async def aget_result(self, result_id):
        return self.get_result(result_id)
    def clear(self):
        self.results.clear()

class ImmediateBackend(SolarWindBackend):
    def enqueue(self, task, args, kwargs):
        finished = {}
        def note(sender, task_result, **_):
            finished[task_result.id] = task_result
        task_finished.connect(note)
        try:
            result = super().enqueue(task, args, kwargs)
            wind.wait(wind.settled(60))
        finally:
            task_finished.disconnect(note)
        return finished[result.id]
    async def aenqueue(self, task, args, kwargs):
        return await sync_to_async(self.enqueue)(task, args, kwargs)
"""
RUNNER = """
from django.test.runner import DiscoverRunner
from solarwind.testing.django import wind_in_memory

class Runner(DiscoverRunner):
    def run_suite(self, suite, **options):
        with wind_in_memory():
            return super().run_suite(suite, **options)
"""
QUEUES = '"QUEUES": ["default", "unknown_queue", "queue-1"], "OPTIONS": {"retry": {"attempts": 1}},'
SETTINGS = f"""
INSTALLED_APPS += ["own"]
TEST_RUNNER = "runner.Runner"
SOLARWIND = {{"URL": "memory://"}}
TASKS = {{"default": {{"BACKEND": "standing_in.ImmediateBackend", {QUEUES} }}}}
"""
# What does not hold here, and why.
NOT_HERE = {
    "test_using_correct_backend": "OPTIONS are not empty",
    "test_throws_keyboard_interrupt": "a task runs in another thread, or process, than who enqueues it",
    "test_complex_return_value": "results are not kept, so that any may be returned",
    "test_cannot_pass_run_after": "tasks may be deferred",
}


@pytest.mark.skipif(not FOUND, reason="Django 6 and its tests are not here: make test-long fetches them")
@pytest.mark.parametrize(("kind", "ran"), [("dummy", 15), ("immediate", 15)])
def test_djangos_own_tests_of_a_backend_pass(tmp_path: Path, kind: str, ran: int) -> None:
    own = FOUND[-1]
    project = Project(tmp_path, settings=SETTINGS, standing_in=STANDING_IN, runner=RUNNER)
    project.write("own/__init__.py", "")
    project.write("own/tasks.py", (own / "tasks.py").read_text())
    tests = (own / f"test_{kind}_backend.py").read_text()
    tests = re.sub(r"django\.tasks\.backends\.\w+(?=[. ])", "standing_in", tests).replace('"QUEUES": [],', QUEUES)
    for name in NOT_HERE:
        tests = tests.replace(f"def {name}(", f"def not_here_{name}(")
    project.write(f"own/test_{kind}.py", tests)
    done = project.call([str(BESIDE / "bin" / "python"), "manage.py", "test", "own", "-v", "2"])
    assert done.returncode == 0, done.stderr
    assert int(re.findall(r"^Ran (\d+) tests", done.stderr, re.MULTILINE)[0]) >= ran, done.stderr
