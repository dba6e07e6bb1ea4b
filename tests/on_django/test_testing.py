"""`solarwind.testing.django`: handlers see what a test has in its transaction, and run in turn with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .project import Project

EVENTS = """
import asyncio
import threading
from typing import Annotated
from asgiref.sync import sync_to_async
from django.db import connection
from solarwind import Depends, Event, Retry
from solarwind.contrib.django import wind
from .models import Note

seen = []

async def number():
    return await Note.objects.acount()

@wind.on("T", purpose="def")
def in_thread(text: str) -> None:
    Note.objects.create(text=text + " def")
    seen.append((text, connection, threading.current_thread()))

@wind.on("T", purpose="async")
async def on_loop(text: str) -> None:
    await Note.objects.acreate(text=text + " async")

@wind.on("retried", purpose="Twice", retry=Retry(wait=60))
def twice(text: str, event: Event) -> None:
    if event.attempt == 1:
        raise ConnectionError("again")
    wind.outbox("default").fire("T", text)

@wind.on("hung", purpose="Hang")
async def hang(number: int) -> None:
    await asyncio.get_running_loop().create_future()

@wind.on("given.up", purpose="Never", retry=Retry(attempts=1))
def never(text: str) -> None:
    raise ValueError("never")
"""
TESTS = """
import threading
from django.db import connection, connections
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from solarwind import Unavailable
from solarwind.contrib.django import wind
from solarwind.testing.django import WindMixin, wind_in_memory
from shop.events import seen
from shop.models import Note


class Rules:
    def test_a_handler_sees_what_is_not_committed_and_waits_for_its_turn(self):
        Note.objects.create(text="mine")
        wind.fire("T", "a").wait(10)
        for _ in range(100):                        # its handlers would have run by now
            assert Note.objects.count() == 1
        self.settle()
        assert sorted(Note.objects.values_list("text", flat=True)) == ["a async", "a def", "mine"]
        text, used, thread = seen[-1]
        assert used.connection is connection.connection and thread is not threading.current_thread()

    def test_a_retry_comes_with_the_clock_and_the_outbox_with_settle(self):
        wind.fire("retried", "b").wait(10)
        with self.assertRaisesMessage(TimeoutError, "which waits for the test's clock: call advance(60) first"):
            self.settle()
        self.advance(60)
        assert not self.fired("T")
        self.settle()
        assert [event.payload for event in self.fired("T")] == ["b"]
        assert self.fired("T")[0].cause.purpose == "Twice"
        assert Note.objects.count() == 2

    def test_a_dead_letter_is_found_and_each_test_begins_with_nothing(self):
        assert not self.fired("T") and not Note.objects.count()
        wind.fire("given.up", "c").wait(10)
        self.settle()
        [letter] = self.dead("given.up", "Never")
        assert letter.error == "ValueError: never"

    def test_what_is_left_is_given_up_with_the_test(self):
        wind.fire("T", "never handled").wait(10)

    def test_an_invalid_event_of_the_outbox_is_refused_where_it_is_written(self):
        with self.assertRaisesMessage(ValueError, "expected a topic"):
            wind.outbox("default").fire("..", 1)


class InTransaction(WindMixin, Rules, TestCase):
    pass


class Committed(WindMixin, Rules, TransactionTestCase):
    pass


class Hanging(WindMixin, SimpleTestCase):
    def test_a_handler_that_hangs_is_cut_off_and_there_is_a_warning_of_it(self):
        with self.assertWarnsRegex(RuntimeWarning, "got hang on 'hung', which did not within 3 s, at event .* 7"):
            with wind_in_memory() as found:
                found.fire("hung", 7).wait(10)
                with self.assertRaisesMessage(TimeoutError, "1 in flight of 'Hang' on 'hung'"):
                    found.wait(found.settled(0.3))
                with self.assertRaisesMessage(TimeoutError, "got one that went on for 5 s after the test had waited"):
                    found.wait(found.statistics())

    setUp = tearDown = lambda self: None


class WithoutDatabase(WindMixin, SimpleTestCase):
    def test_a_handler_may_not_use_the_database_either(self):
        wind.fire("T", "d").wait(10)
        self.advance(0)
        with self.assertRaises(TimeoutError):
            self.settle(0.2)


class Without(TestCase):
    def test_requests_do_not_start_it_and_it_says_what_to_do(self):
        self.client.get("/")
        with self.assertRaisesMessage(Unavailable, "in a test `wind_in_memory` of solarwind.testing.django"):
            wind.fire("T", "x")

    def test_a_block_of_its_own_has_it_and_gives_everything_back(self):
        before = wind.engine.store.path, wind.handles_here, wind._connections
        with wind_in_memory() as found:
            assert found is wind and wind.handles
            wind.fire("T", "x").wait(10)
            wind.wait(wind.settled(10))
        assert (wind.engine.store.path, wind.handles_here, wind._connections) == before
        assert all(each.allow_thread_sharing is False for each in connections.all())
        assert Note.objects.count() == 2
"""


@pytest.mark.long
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_djangos_test_cases_with_handlers_that_use_the_orm(
    tmp_path: Path, engine: str, request: pytest.FixtureRequest
) -> None:
    settings = 'SOLARWIND = {"URL": "sqlite:///never.db", "HANDLE": False}\n'
    if engine == "postgresql":
        settings += request.getfixturevalue("postgresql")
    project = Project(tmp_path, events=EVENTS, shop__tests=TESTS, settings=settings)
    done = project.manage("test", "-v", "1")
    assert done.returncode == 0, done.stderr
    assert "Ran 14 tests" in done.stderr
    assert not (tmp_path / "never.db").exists()
