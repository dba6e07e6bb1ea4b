"""Connections to databases around handlers, the outbox in `atomic`, and the relay of a Django database."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .project import A_WHILE_S, Project, eventually

CONNECTIONS = """
from typing import Annotated
from asgiref.sync import sync_to_async
from django.db import connection
from solarwind import Depends
from solarwind.contrib.django import wind
from .models import Note

seen = []

def is_open():
    return connection.connection is not None

def used():
    seen.append(("dependency", is_open()))
    list(Note.objects.all())
    yield 7
    list(Note.objects.all())

@wind.on("T", purpose="def")
def in_thread(text: str) -> None:
    seen.append(("def", is_open()))
    Note.objects.create(text=text)
    seen.append(("def after", is_open()))

@wind.on("T", purpose="depends")
def with_dependency(text: str, number: Annotated[int, Depends(used)]) -> None:
    seen.append(("depends", is_open()))

@wind.on("T", purpose="async", concurrency=1)
async def on_loop(text: str) -> None:
    seen.append(("async", await sync_to_async(is_open)()))
    await Note.objects.acreate(text=text)
    seen.append(("async after", await sync_to_async(is_open)()))

@wind.on("T", purpose="fails")
def fails(text: str) -> None:
    seen.append(("fails", is_open()))
    Note.objects.count()
    from solarwind import Reject
    raise Reject("always")
"""


def test_connections_are_closed_after_each_call_of_a_handler(tmp_path: Path) -> None:
    project = Project(tmp_path, events=CONNECTIONS).migrated()
    program = """
from shop.events import seen
with wind:
    for text in "abc":
        wind.fire("T", text).wait(30)
    wind.wait(wind.settled(60))
print(*sorted(set(seen)), Note.objects.count(), sep="\\n")
"""
    assert project.python(program).splitlines() == [
        "('async', False)",
        "('async after', True)",
        "('def', False)",
        "('def after', True)",
        "('dependency', False)",
        "('depends', True)",
        "('fails', False)",
        "6",
    ]


@pytest.mark.long
def test_a_connection_that_is_kept_is_replaced_once_it_is_too_old(tmp_path: Path) -> None:
    events = """
from django.db import connection
from solarwind.contrib.django import wind
from .models import Note

seen = []

@wind.on("T", purpose="Write down")
def write(text: str) -> None:
    seen.append(connection.connection)
    Note.objects.create(text=text)
    seen.append(connection.connection)
    if text == "old":
        connection.close_at = 0
"""
    settings = 'DATABASES["default"] |= {"CONN_MAX_AGE": None}\n'
    project = Project(tmp_path, events=events, settings=settings).migrated()
    program = """
from shop.events import seen
with wind:
    for text in ("a", "b", "old", "c"):
        wind.fire("T", text).wait(30)
        wind.wait(wind.settled(60))
assert seen[0] is None and seen[1] is not None
assert all(each is seen[1] for each in seen[1:6])
assert seen[6] is None and seen[7] is not seen[1]
print(*Note.objects.values_list("text", flat=True))
"""
    assert project.python(program) == "a b old c\n"


ENDING = """
from solarwind.contrib.django import wind
from .models import Note

@wind.on("T", purpose="Write down", concurrency=5)
async def write(text: str) -> None:
    await Note.objects.aget_or_create(text=text)
"""


@pytest.mark.long
def test_async_handlers_that_a_process_ends_with_have_not_failed(tmp_path: Path) -> None:
    """The ORM's own thread for them takes no more work by then, which is no fault of theirs."""
    project = Project(tmp_path, events=ENDING).migrated()
    done = project.attempt("wind.begin()\nwind.fire_many('T', [str(number) for number in range(200)]).wait(60)")
    assert (done.returncode, done.stderr) == (0, "")
    counts = project.manage("solarwind", "purposes", "--json").stdout.replace(" ", "")
    assert '"dead":0' in counts, counts
    rest = "wind.begin()\nwind.wait(wind.settled(100))\nprint(Note.objects.values('text').distinct().count())"
    assert project.python(rest) == "200\n"


OUTBOX = """
from solarwind import Event
from solarwind.contrib.django import wind
from .models import Note
from django.db import transaction

@wind.on("note.written", purpose="Print")
def show(text: str, event: Event) -> None:
    print("handled", text, flush=True)

@wind.on("ordered", purpose="Once")
def book(text: str, event: Event) -> None:
    with transaction.atomic():
        if event.once("default"):
            Note.objects.create(text=text)
            wind.outbox("default").fire("note.written", text)
    if event.attempt == 1:
        raise RuntimeError("after the commit")
"""
RELAYED = 'SOLARWIND |= {"RELAY": ["default"]}\n'


def test_an_event_of_the_outbox_is_there_if_and_only_if_the_transaction_commits(tmp_path: Path) -> None:
    project = Project(tmp_path, events=OUTBOX, settings=RELAYED).migrated()
    program = """
from django.db import transaction
for text, fails in (("kept", False), ("lost", True)):
    try:
        with transaction.atomic():
            Note.objects.create(text=text)
            wind.outbox(using := "default").fire("note.written", text)
            if fails:
                raise KeyError
    except KeyError:
        pass
from django.db import connection
wind.outbox(connection).fire("note.written", "alone")
wind.begin()
import time
def left():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM solarwind_outbox")
        return cursor.fetchone()[0]
end = time.monotonic() + 60
while left() and time.monotonic() < end:
    time.sleep(0.02)
wind.wait(wind.settled(60))
"""
    assert sorted(project.python(program).splitlines()) == ["handled alone", "handled kept"]


def test_a_handler_that_asks_once_has_its_effect_and_its_event_once(tmp_path: Path) -> None:
    project = Project(tmp_path, events=OUTBOX, settings=RELAYED).migrated()
    program = """
import time
with wind:
    wind.wait(wind.joined())
    wind.fire("ordered", "lamp").wait(30)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        counts = wind.wait(wind.statistics()).purposes
        if counts["note.written", "Print"].settled and counts["ordered", "Once"].settled:
            break
        time.sleep(0.02)
print(Note.objects.count())
"""
    assert project.python(program) == "handled lamp\n1\n"


KILLED = """
import os, signal
from django.db import transaction
wind.begin()
with transaction.atomic():
    Note.objects.create(text="order")
    transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))  # between the commit and what comes after it
    {fire}
"""


@pytest.mark.parametrize(
    ("fire", "handled"),
    [
        ("transaction.on_commit(lambda: wind.fire('note.written', 'order').wait(30))", ""),
        ("wind.outbox('default').fire('note.written', 'order')", "handled order\n"),
    ],
    ids=["on_commit", "outbox"],
)
@pytest.mark.long
def test_a_death_between_commit_and_fire_loses_the_event_of_on_commit_and_not_of_the_outbox(
    tmp_path: Path, fire: str, handled: str
) -> None:
    project = Project(tmp_path, events=OUTBOX).migrated()
    assert project.manage("solarwind", "run", "--until-settled").returncode == 0  # the purposes exist from here on
    died = project.attempt(KILLED.format(fire=fire))
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert project.python("print(Note.objects.count())") == "1\n"
    relay = project.begin("manage.py", "solarwind", "relay")
    try:
        eventually(lambda: "solarwind relays" in project.output, "the relay")
        eventually(lambda: "0 events pending" in project.manage("solarwind", "outbox", "status").stdout, "the relay")
    finally:
        relay.send_signal(signal.SIGTERM)
        assert relay.wait(A_WHILE_S) == 0
    assert project.manage("solarwind", "run", "--until-settled").stdout == handled


@pytest.mark.long
def test_a_missing_table_and_a_missing_database_say_what_to_do(tmp_path: Path) -> None:
    project = Project(tmp_path, events=OUTBOX, settings=RELAYED)
    for program in ("wind.outbox('default').fire('T')", "wind.begin()"):
        done = project.attempt(program)
        assert (
            "NotFound: expected the table solarwind_outbox in this database, found none: make it with `manage.py migr"
            in (done.stderr)
        )
    done = project.attempt("wind.outbox('other').fire('T')")
    assert "BadArgument: expected the name of a Django database, one of 'default', got 'other'" in done.stderr
    for words in (("relay", "--database", "other"), ("outbox", "status", "--database=other")):
        refused = project.manage("solarwind", *words)
        assert refused.returncode == 1
        assert refused.stderr.startswith(
            "expected the name of a Django database, one of 'default', or a URL, got 'other'"
        )
        assert "Traceback" not in refused.stderr
    helped = project.manage("solarwind", "relay", "--help", "--database", "other")
    assert helped.returncode == 0


@pytest.mark.long
def test_with_postgresql_the_migration_makes_the_tables_and_a_relay_fires_what_was_committed(
    tmp_path: Path, postgresql: str
) -> None:
    project = Project(tmp_path, events=OUTBOX, settings=postgresql).migrated()
    assert project.manage("solarwind", "run", "--until-settled").returncode == 0
    died = project.attempt(KILLED.format(fire="wind.outbox('default').fire('note.written', 'order')"))
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert "1 event pending" in project.manage("solarwind", "outbox", "status").stdout
    project.write("settings.py", (tmp_path / "settings.py").read_text() + RELAYED)
    service = project.begin("manage.py", "solarwind", "run")
    try:
        eventually(lambda: "handled order" in project.output, "the relay within the service")
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(A_WHILE_S) == 0
    assert "0 events pending" in project.manage("solarwind", "outbox", "status").stdout
    assert project.manage("migrate", "solarwind", "zero").returncode == 0
    assert "solarwind_outbox in this database, found none" in project.manage("solarwind", "relay").stderr


@pytest.mark.long
def test_the_migration_says_its_sql_and_goes_back(tmp_path: Path) -> None:
    project = Project(tmp_path).migrated()
    assert "CREATE TABLE IF NOT EXISTS solarwind_once" in project.manage("sqlmigrate", "solarwind", "0001").stdout
    assert project.manage("makemigrations", "--check", "solarwind").returncode == 0
    tables = (
        "from django.db import connection\nprint([t for t in connection.introspection.table_names() if 'wind_' in t])"
    )
    assert project.python(tables) == "['solarwind_once', 'solarwind_outbox']\n"
    assert project.manage("migrate", "solarwind", "zero").returncode == 0
    assert project.python(tables) == "[]\n"
