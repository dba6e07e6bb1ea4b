"""When `wind` runs: with requests under WSGI, with the lifespan under ASGI, and as a service by `manage.py`."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from ports import Port

from .project import A_WHILE_S, PYTHON, Project, eventually

EVENTS = """
from solarwind.contrib.django import wind
from .models import Note

@wind.on("T", purpose="Write down")
def write(text: str) -> None:
    Note.objects.create(text=text)
"""
URLS = """
from django.http import JsonResponse
from django.urls import path
from solarwind import SolarWindError
from solarwind.contrib.django import wind
from shop.models import Note

def fire(request, text):
    try:
        return JsonResponse({"id": wind.fire("T", text).wait(30)})
    except SolarWindError as error:
        return JsonResponse({"detail": str(error)}, status=503)

async def afire(request, text):
    try:
        return JsonResponse({"id": await wind.fire("T", text)})
    except SolarWindError as error:
        return JsonResponse({"detail": str(error)}, status=503)

def notes(request):
    return JsonResponse({"notes": list(Note.objects.values_list("text", flat=True))})

urlpatterns = [path("fire/<text>", fire), path("afire/<text>", afire), path("notes", notes)]
"""
ASGI = """
from django.core.asgi import get_asgi_application
django = get_asgi_application()
from solarwind.contrib.django import wind
application = wind.asgi(django)
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, events=EVENTS, urls=URLS, asgi=ASGI).migrated()


def get(port: int, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}/{path}", timeout=A_WHILE_S)


def up(port: int) -> bool:
    try:
        return get(port, "notes").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.long
def test_under_wsgi_it_starts_with_the_first_request_and_stops_with_the_process(project: Project) -> None:
    program = """
from django.core.handlers.wsgi import WSGIHandler
from wsgiref.util import setup_testing_defaults

application = WSGIHandler()

def request(path):
    environ = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    return b"".join(application(environ, lambda status, headers: print(status)))

assert wind._state == "not started"
request("/notes")
assert wind._state == "running"
request("/fire/one")
wind.wait(wind.settled(30))
print(request("/notes").decode())
wind.fire("T", "at the end")
"""
    assert project.python(program).splitlines() == ["200 OK", "200 OK", "200 OK", '{"notes": ["one"]}']
    assert project.manage("solarwind", "run", "--until-settled").returncode == 0
    assert "at the end" in project.python("print(*Note.objects.values_list('text', flat=True))")


@pytest.mark.parametrize("served", ["asgi:application", "asgi:django"])
def test_under_asgi_it_lives_with_the_lifespan_and_one_that_was_forgotten_says_what_to_do(
    project: Project, served: str
) -> None:
    port = Port()
    server = project.begin("-m", "uvicorn", served, "--port", str(port.number))
    try:
        eventually(lambda: up(port.number), "uvicorn")
        fired = get(port.number, "fire/sync"), get(port.number, "afire/async")
        if served == "asgi:django":
            for answer in fired:
                assert answer.status_code == 503
                assert "`application = wind.asgi(get_asgi_application())` in asgi.py" in answer.json()["detail"]
        else:
            assert [answer.status_code for answer in fired] == [200, 200]
            eventually(lambda: sorted(get(port.number, "notes").json()["notes"]) == ["async", "sync"], "handlers")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(A_WHILE_S)
    assert "Traceback" not in project.output


def test_a_server_with_lifespan_does_not_start_where_the_wind_does_not(project: Project) -> None:
    project.write("settings.py", (project.folder / "settings.py").read_text() + 'SOLARWIND = {"GRACE": -1}\n')
    port = Port()
    server = project.begin("-m", "uvicorn", "asgi:application", "--port", str(port.number))
    assert server.wait(A_WHILE_S) == 3
    assert "SOLARWIND['GRACE']: expected grace" in project.output


def test_requests_are_served_though_the_dispatcher_is_away_and_the_log_says_why(project: Project) -> None:
    port = Port()
    project.write(
        "settings.py",
        (project.folder / "settings.py").read_text()
        + f"""
SOLARWIND = {{"URL": "ws://127.0.0.1:{port.number}"}}
""",
    )
    program = """
from django.core.handlers.wsgi import WSGIHandler
from wsgiref.util import setup_testing_defaults
for path in ("/notes", "/fire/one", "/notes"):
    environ = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    print(b"".join(WSGIHandler()(environ, lambda status, headers: print(status))).decode())
"""
    done = project.attempt(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("200 OK") == 2
    assert "503 Service Unavailable" in done.stdout
    assert done.stderr.count("Solar Wind did not start with a request: ") == 1


@pytest.mark.long
def test_with_a_dispatcher_elsewhere_requests_only_fire_and_the_service_handles(project: Project) -> None:
    port, web = Port(), Port()
    project.write(
        "settings.py",
        (project.folder / "settings.py").read_text()
        + f"""
SOLARWIND = {{"URL": "ws://127.0.0.1:{port.number}"}}
""",
    )
    dispatcher = project.begin("manage.py", "solarwind", "serve", "--data", "wind.db", "--port", str(port.number))
    running = [dispatcher]
    try:
        eventually(lambda: project.manage("solarwind", "topics").returncode == 0, "the dispatcher")
        assert project.manage("solarwind", "run", "--until-settled").returncode == 0
        running.append(project.begin("-m", "uvicorn", "asgi:application", "--port", str(web.number)))
        eventually(lambda: up(web.number), "uvicorn")
        assert get(web.number, "afire/x").status_code == 200
        asked = project.manage("solarwind", "purposes", "--json")
        assert '"instances":0' in asked.stdout.replace(" ", ""), asked.stdout
        assert '"pending":1' in asked.stdout.replace(" ", ""), asked.stdout
        running.append(project.begin("manage.py", "solarwind", "run", "--workers", "2"))
        eventually(lambda: get(web.number, "notes").json()["notes"] == ["x"], "the service")
    finally:
        for each in reversed(running):
            each.send_signal(signal.SIGTERM)
            each.wait(A_WHILE_S)
    assert [each.returncode for each in running[2:]] == [0]
    assert "Traceback" not in project.output


@pytest.mark.long
def test_the_command_is_that_of_solarwind_with_its_exit_codes(project: Project) -> None:
    assert "solarwind 0" in project.manage("solarwind", "--version").stdout
    sail = project.manage("solarwind", "sail")
    assert (sail.returncode, "No such command 'sail'" in sail.stderr) == (2, True)
    assert project.manage("solarwind", "run", "--help", "--settings", "settings").returncode == 0
    missing = project.manage("solarwind", "purposes")
    assert missing.returncode == 1
    assert "there is none at wind.db" in missing.stderr
    fired = project.manage("solarwind", "fire", "T", '"by hand"', "--pythonpath=.")
    assert fired.returncode == 0, fired.stderr
    nobody = project.manage("solarwind", "retire", "T", "Nobody")
    assert (nobody.returncode, "Traceback" in nobody.stderr) == (1, False)


@pytest.mark.long
def test_call_command_gives_what_it_prints_and_raises_what_it_refuses(project: Project) -> None:
    program = """
import io
from django.core.management import CommandError, call_command
out = io.StringIO()
call_command("solarwind", "fire", "T", '"called"', stdout=out, stderr=io.StringIO())
call_command("solarwind", "topics", "--json", stdout=out, stderr=io.StringIO())
print(out.getvalue())
for words in (("retire", "T", "Nobody"), ("relay", "--database", "nope")):
    try:
        call_command("solarwind", *words)
    except CommandError as error:
        print(error)
"""
    said = project.python(program)
    assert '"T"' in said
    assert "Nobody" in said.splitlines()[-2]
    assert said.splitlines()[-1].startswith("expected the name of a Django database, one of 'default', or a URL")


def test_the_command_line_of_solarwind_runs_a_project_that_is_not_set_up(project: Project) -> None:
    entry = "solarwind.contrib.django.entry:wind"
    done = project.call([PYTHON, "-m", "solarwind", "run", entry, "--until-settled"])
    assert done.returncode == 0, done.stderr
    assert "shop.events.write" in done.stderr
    nothing = project.call([PYTHON, "-m", "solarwind", "run", entry], DJANGO_SETTINGS_MODULE="")
    assert nothing.returncode == 1
    assert "Traceback" not in nothing.stderr
    assert "ImproperlyConfigured" in nothing.stderr
    project.write("shop/events.py", "\nimport nowhere_at_all\n")
    broken = project.call([PYTHON, "-m", "solarwind", "run", entry])
    assert broken.stderr.startswith("solarwind: shop/events.py:2: ImproperlyConfigured: expected shop.events, ")
