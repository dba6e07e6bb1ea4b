"""The settings `SOLARWIND`, and the handlers that are found in each app."""

from __future__ import annotations

from pathlib import Path

import pytest

from .project import Project

WRONG = {
    'SOLARWIND = "sqlite:///wind.db"': "expected a dict, such as SOLARWIND = {",
    'SOLARWIND = {"url": "memory://"}': "got 'url': did you mean 'URL'?",
    'SOLARWIND = {"COLOUR": 1}': "among URL, TOKEN, GRACE, LIMITS, EVENTS, HANDLE, RELAY, got 'COLOUR'",
    'SOLARWIND = {"URL": "http://localhost"}': "SOLARWIND['URL']: expected",
    'SOLARWIND = {"URL": Path("wind.db")}': "expected text such as",
    'SOLARWIND = {"TOKEN": 7}': "SOLARWIND['TOKEN']: expected",
    'SOLARWIND = {"GRACE": -1}': "SOLARWIND['GRACE']: expected grace of 0 or more seconds",
    'SOLARWIND = {"LIMITS": {"payload_byte": 1}}': "did you mean payload_bytes=1?",
    'SOLARWIND = {"LIMITS": 7}': "expected a dict such as {",
    'SOLARWIND = {"EVENTS": "shop/events"}': "expected the name of a module of each app",
    'SOLARWIND = {"EVENTS": "class"}': "expected the name of a module of each app",
    'SOLARWIND = {"EVENTS": ["events"]}': "expected the name of a module of each app",
    'SOLARWIND = {"HANDLE": "no"}': "expected True, False or None as SOLARWIND['HANDLE'], got 'no'",
    'SOLARWIND = {"RELAY": "default"}': "expected a list of names of databases",
    'SOLARWIND = {"RELAY": ["other"]}': "expected the name of a Django database, one of 'default', or a URL, got",
}


def test_each_wrong_setting_is_one_sentence_of_a_check_and_of_the_start(tmp_path: Path) -> None:
    project = Project(tmp_path)
    usual = (tmp_path / "settings.py").read_text()
    checking = "from solarwind.contrib.django.checks import check_settings\nfrom solarwind.contrib.django import conf\n"
    for setting, sentence in WRONG.items():
        name, _, value = setting.partition(" = ")
        checking += f"""
from django.test import override_settings
from pathlib import Path
with override_settings({name}={value}):
    [problem] = conf.read().problems
    assert {sentence!r} in problem, problem
"""
    project.python(checking)
    project.write("settings.py", usual + 'SOLARWIND = {"URl": "memory://", "GRACE": "long"}\n')
    checked = project.manage("check")
    assert checked.returncode == 1
    assert "?: (solarwind.E001) expected keys of SOLARWIND among" in checked.stderr
    assert "SOLARWIND['GRACE']" in checked.stderr
    assert "Traceback" not in checked.stderr
    run = project.manage("solarwind", "run", "--until-settled")
    assert run.returncode == 1
    assert "did you mean 'URL'?" in run.stderr
    assert "Traceback" not in run.stderr
    asked = project.manage("solarwind", "topics")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert "did you mean 'URL'?" in asked.stderr
    begun = project.attempt("wind.begin()")
    assert begun.stderr.splitlines()[-1].startswith("solarwind.errors.BadArgument: expected keys of SOLARWIND among")


def test_all_settings_are_what_the_wind_has(tmp_path: Path) -> None:
    project = Project(
        tmp_path,
        settings='SOLARWIND = {"URL": "sqlite:///other.db", "GRACE": 2, "LIMITS": {"payload_bytes": 10},'
        ' "EVENTS": "handlers", "HANDLE": False}\n',
        shop__handlers="from solarwind.contrib.django import wind\n\n"
        "from solarwind import Event\n@wind.on('U', purpose='q')\ndef handle(event: Event) -> None: ...\n",
        events="raise SystemError('not imported')",
    )
    program = """
from solarwind import TooLarge
assert (wind.grace, wind.limits.payload_bytes, wind.handles) == (2.0, 10, False)
print([each.topic for each in wind.handlers])
with wind:
    wind.fire("T", 1).wait(10)
    try:
        wind.fire("T", "x" * 11)
    except TooLarge:
        print("limited")
    print(wind.wait(wind.purposes()))
"""
    assert project.python(program) == "['U']\nlimited\n[]\n"
    assert (tmp_path / "other.db").exists()


def test_without_a_url_that_of_the_environment_counts_and_a_stated_one_counts_before_it(tmp_path: Path) -> None:
    project = Project(tmp_path, settings="del SOLARWIND\n")
    program = "print(type(wind.engine.store).__name__)"
    assert project.python(program) == "MemoryStore\n"
    assert project.python(program, SOLARWIND_URL="sqlite:///wind.db") == "SqliteStore\n"
    project = Project(tmp_path)
    assert project.python(program, SOLARWIND_URL="memory://") == "SqliteStore\n"


EVENTS = """
from solarwind import Handlers
from solarwind.contrib.django import wind

outer, inner, taken, other = Handlers(), Handlers(), Handlers(), Handlers()
same = outer
outer.include(inner, prefix="inner")
wind.include(taken, prefix="taken")

@wind.on("T", purpose="On wind")
def on_wind(number: int) -> None: ...

for group, purpose in ((inner, "In"), (outer, "Out"), (taken, "Taken"), (other, "Other")):
    @group.on("T", purpose=purpose)
    def handle(number: int) -> None: ...
"""


def test_each_group_of_each_app_is_included_once(tmp_path: Path) -> None:
    project = Project(tmp_path, events=EVENTS, settings='INSTALLED_APPS += ["more", "none"]\n')
    project.write("more/__init__.py", "")
    project.write("none/__init__.py", "")
    project.write("more/events.py", "from shop.events import outer\n")
    found = project.python("print(*sorted(f'{each.topic} {each.purpose}' for each in wind.handlers), sep='\\n')")
    assert found.splitlines() == ["T On wind", "T Other", "T Out", "inner.T In", "taken.T Taken"]


def test_a_module_of_handlers_that_fails_is_named_with_its_cause(tmp_path: Path) -> None:
    project = Project(tmp_path, events="import nowhere_at_all\n")
    done = project.attempt("")
    assert 'shop/events.py", line 1' in done.stderr
    assert done.stderr.splitlines()[-1].endswith(
        "expected shop.events, the handlers of app 'shop', to import, got ModuleNotFoundError: No module named "
        "'nowhere_at_all'"
    )


def test_events_that_no_app_has_are_a_check_and_nothing_starts(tmp_path: Path) -> None:
    project = Project(tmp_path, settings='SOLARWIND["EVENTS"] = "evnts"\n')
    problem = "expected the name of a module of an app as SOLARWIND['EVENTS'], got 'evnts', which no app has"
    assert f"(solarwind.E001) {problem}" in project.manage("check").stderr
    assert project.attempt("wind.begin()").stderr.splitlines()[-1].endswith(problem)


def test_a_database_in_memory_has_no_relay(tmp_path: Path) -> None:
    project = Project(tmp_path, settings='SOLARWIND["RELAY"] = ["default"]\n')
    program = """
from django.db import connections
from solarwind import SolarWindError
from solarwind.contrib.django.databases import database_url
for name in (":memory:", "", "file::memory:?cache=shared", "file:shop?mode=memory"):
    connections["default"].settings_dict["NAME"] = name
    try:
        wind.begin()
    except SolarWindError as error:
        print(error)
connections["default"].settings_dict["NAME"] = "file:my%20shop.db?mode=rwc"
print(database_url("default"))
"""
    said = project.python(program).splitlines()
    expected = "expected a Django database in a file, which a relay can open, got 'default' whose NAME is "
    assert said[:4] == [
        f"{expected}{name!r}" for name in (":memory:", "", "file::memory:?cache=shared", "file:shop?mode=memory")
    ]
    assert said[4] == f"sqlite:///{tmp_path}/my%20shop.db"


def test_help_is_that_of_the_command_line_of_solarwind(tmp_path: Path) -> None:
    done = Project(tmp_path).manage("help", "solarwind")
    assert done.returncode == 0
    assert "--skip-checks" not in done.stdout
    assert "relay" in done.stdout


@pytest.mark.parametrize("name", ["winds", "Wind"])
def test_what_the_package_does_not_have_is_an_attribute_error(tmp_path: Path, name: str) -> None:
    project = Project(tmp_path)
    done = project.attempt(f"import solarwind.contrib.django as package\npackage.{name}")
    assert f"AttributeError: module 'solarwind.contrib.django' has no attribute '{name}'" in done.stderr


def test_a_wrong_url_of_the_environment_is_a_check(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("settings.py", (tmp_path / "settings.py").read_text() + "SOLARWIND = {}\n")
    checked = project.manage("check", SOLARWIND_URL="http://localhost")
    assert checked.returncode == 1
    assert "?: (solarwind.E001) $SOLARWIND_URL or $SOLARWIND_TOKEN: expected" in checked.stderr
    assert "Traceback" not in checked.stderr


@pytest.mark.long
def test_a_backend_that_cannot_be_imported_is_a_check(tmp_path: Path) -> None:
    project = Project(tmp_path)
    usual = (tmp_path / "settings.py").read_text()
    program = """
from django.test import override_settings
from solarwind.contrib.django import conf
from solarwind.contrib.django.checks import check_settings
with override_settings(TASKS=%s):
    [found] = check_settings()
    print(found.id, found.msg)
    assert not conf.backends()
"""
    for tasks in (
        "None",
        '{"default": {}}',
        '{"default": None}',
        '{"default": {"BACKEND": 5}}',
        '{"default": {"BACKEND": "shop.nowhere.Backend"}}',
        '{"default": {"BACKEND": "solarwind.contrib.django.conf.Backend"}}',
    ):
        found = project.python(program % tasks)
        assert found.startswith("solarwind.E002 expected "), found
        assert " as TASKS" in found
    project.write("settings.py", f"{usual}TASKS = None\n")
    checked = project.manage("check")
    assert "?: (solarwind.E002) expected a dict of backends as TASKS, got None" in checked.stderr, checked.stderr
