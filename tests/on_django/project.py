"""Small projects of Django, in folders and processes of their own, since Django has its settings once in each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

A_WHILE_S = 120
PYTHON = os.environ.get("DJANGO_PYTHON", sys.executable)  # with another Django, of another environment

SETTINGS = """
from pathlib import Path
SECRET_KEY = "for tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["solarwind.contrib.django", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3",
                         "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 30}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MIDDLEWARE = []
ROOT_URLCONF = "urls"
USE_TZ = True
TIME_ZONE = "UTC"
SOLARWIND = {"URL": "sqlite:///wind.db", "GRACE": 5}
"""
MODELS = """
from django.db import models

class Note(models.Model):
    text = models.CharField(max_length=100)
"""
MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
execute_from_command_line(sys.argv)
"""
BEFORE = """
import django
django.setup()
from solarwind.contrib.django import wind
from shop.models import Note
"""
Ended = subprocess.CompletedProcess[str]


class Project:
    """A project with one app, `shop`, whose table is made."""

    def __init__(self, folder: Path, *, settings: str = "", events: str = "", **files: str) -> None:
        """`settings` are added to the usual ones; `files` are modules of the project by name, with `__` for a dot."""
        self.folder = folder
        self.settings = "settings"
        self.write("settings.py", SETTINGS + settings)
        self.write("manage.py", MANAGE)
        self.write("urls.py", "urlpatterns = []\n")
        self.write("shop/__init__.py", "")
        self.write("shop/models.py", MODELS)
        self.write("shop/events.py", events)
        for name, text in files.items():
            self.write(name.replace("__", "/") + ".py", text)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def environment(self, **variables: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SOLARWIND_", "DJANGO_"))}
        return own | {"DJANGO_SETTINGS_MODULE": self.settings, "PYTHONPATH": str(self.folder)} | variables

    def call(self, command: list[str], **variables: str) -> Ended:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=A_WHILE_S,
            check=False,
        )

    def manage(self, *words: str, **variables: str) -> Ended:
        """Run a command of the project and return how it ended."""
        return self.call([PYTHON, "manage.py", *words], **variables)

    def module(self, *words: str) -> Ended:
        """Run a module of Python, such as pytest, and return how it ended."""
        return self.call([PYTHON, "-m", *words])

    def migrated(self) -> Project:
        """Make the tables."""
        done = self.manage("migrate", "--run-syncdb", "-v", "0")
        assert done.returncode == 0, done.stderr
        return self

    def attempt(self, program: str, **variables: str) -> Ended:
        """Run a program in the project, and return how it ended."""
        return self.call([PYTHON, "-W", "error", "-c", BEFORE + program], **variables)

    def python(self, program: str, **variables: str) -> str:
        """Run a program in the project, and return what it prints."""
        done = self.attempt(program, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def begin(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """Start a process of the project, whose output goes into the file `output`."""
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                [PYTHON, *command],
                cwd=self.folder,
                env=self.environment(**variables),
                stdout=output,
                stderr=output,
                text=True,
            )

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()


def eventually(ask: Callable[[], Any], what: str) -> Any:
    """Wait until the answer is something, and return it."""
    end = time.monotonic() + A_WHILE_S
    while not (answer := ask()):
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.05)
    return answer
