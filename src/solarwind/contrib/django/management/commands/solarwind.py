"""`manage.py solarwind …`: the command `solarwind`, for this project.

It defines no option of its own: the words go to the command line of Solar Wind, in an environment that says which
`wind`, dispatcher and database are meant."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, SystemCheckError

from .....errors import BadArgument
from ... import wind
from ...databases import DEFAULT, database_url

_OF_AN_APP = ("run", "dev")  # they run the project's handlers, with the dispatcher that it states
_OF_A_DATABASE = ("relay", "outbox")
_OPTION = "--database"


class Command(BaseCommand):
    """Runs `solarwind` with these words."""

    help = "Run the project's handlers (run, dev), fire what was committed (relay), or ask the dispatcher."

    def run_from_argv(self, argv: list[str]) -> None:
        """Become the command line of Solar Wind: signals, output and exit code are its own."""
        words = self._without_django(argv[2:])
        try:
            if words[:1] and words[0] in _OF_AN_APP:
                self.check()
            words, environment = self._for_project(words)
        except SystemCheckError as error:
            self.stderr.write(str(error), lambda text: text)
            sys.exit(1)
        except BadArgument as error:
            self.stderr.write(str(error))
            sys.exit(1)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, _command(words), environment)

    def print_help(self, prog_name: str, subcommand: str) -> None:
        """Show the help of the command line of Solar Wind, for `manage.py help solarwind`: Django's own lists options
        that it does not take."""
        self.run_from_argv([prog_name, subcommand, "--help"])

    def add_arguments(self, parser: CommandParser) -> None:
        """Take all words, for `call_command`."""
        parser.add_argument("words", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, words: Sequence[str] = (), **__: Any) -> None:
        """Run it in a process of its own, for `call_command("solarwind", "purposes", "--json")`."""
        try:
            words, environment = self._for_project([str(word) for word in words])
        except BadArgument as error:
            raise CommandError(str(error)) from None
        ended = subprocess.run(_command(words), env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise CommandError(ended.stderr.strip(), returncode=ended.returncode)
        self.stderr.write(ended.stderr, lambda text: text, ending="")
        self.stdout.write(ended.stdout, ending="")

    def _without_django(self, words: list[str]) -> list[str]:
        """Return the words without Django's own, which `manage.py` has followed already."""
        parser = CommandParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--settings")
        parser.add_argument("--pythonpath")
        return list(parser.parse_known_args(words)[1])

    def _for_project(self, words: list[str]) -> tuple[list[str], dict[str, str]]:
        """Return the words, with the URL of a database that is named by its alias, and the environment. Raise
        `BadArgument`."""
        command = words[0] if words else ""
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "SOLARWIND_APP": "solarwind.contrib.django.entry:wind",
        }
        stated = wind.settings
        if stated.problems and command and not command.startswith("-"):  # it would ask another dispatcher
            raise BadArgument(stated.problems[0])
        # It counts before the environment, as it does in the project's processes, of which `run` is one.
        if stated.url is not None and (command not in _OF_AN_APP or "SOLARWIND_URL" in environment):
            environment["SOLARWIND_URL"] = stated.url
        if stated.token is not None:
            environment["SOLARWIND_TOKEN"] = stated.token
        if command in _OF_A_DATABASE and "--help" not in words:
            words, alias = _without_database(words)
            if "://" not in alias:
                alias = database_url(alias)
            environment["SOLARWIND_DATABASE"] = alias  # not on the command line, where others read passwords
        return words, environment


def _without_database(words: list[str]) -> tuple[list[str], str]:
    """Return the words without the option for a database, and its value; of several the last counts."""
    left, found = [], os.environ.get("SOLARWIND_DATABASE") or DEFAULT
    rest = iter(words)
    for word in rest:
        if word == _OPTION:
            found = next(rest, "")
        elif word.startswith(f"{_OPTION}="):
            found = word.partition("=")[2]
        else:
            left.append(word)
    return left, found


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "solarwind", *words]
