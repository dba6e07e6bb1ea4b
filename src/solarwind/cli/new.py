"""`new`: a project to start from."""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BadArgument
from ..extras import requirement
from .options import option

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_PLACEHOLDER = "project-name"
_OF_THIS = re.compile(r"^solarwind\[(.+)\]$", re.MULTILINE)  # the requirement of Solar Wind itself
_NAME = re.compile("[a-z0-9]([a-z0-9_.-]*[a-z0-9])?", re.ASCII | re.IGNORECASE)  # of a Python project


class Template(StrEnum):
    script = "script"
    fastapi = "fastapi"
    django = "django"


def new(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What to make; its name is the project's.")],
    template: Annotated[Template, option("template", "What it begins with.")] = Template.script,
) -> None:
    """Make a project to start from: handlers, their tests, and a README with the commands.

    The folder must not be there yet, or be empty.
    """
    name = folder.resolve().name
    if not _NAME.fullmatch(name):
        raise BadArgument(
            f"expected a folder whose name a Python project may have, such as my-shop, got {name!a}: it may have "
            "letters, digits, '-', '_' and '.'"
        )
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadArgument(f"expected a folder that is not there or empty, got {str(folder)!a}: name another")
        folder.mkdir(parents=True, exist_ok=True)
        _copy(files("solarwind") / "templates" / template, folder, name)
    except OSError as error:
        raise BadArgument(
            f"expected a folder that can be made and written, got {str(folder)!a}: {error.strerror}: name another"
        ) from None
    commands = (folder / "README.md").read_text().split("```")[1].removeprefix("sh\n")
    commands = f"cd {shlex.quote(str(folder))}\n{commands}"
    typer.echo(f"{folder} is made. Its README.md says what to do there, such as\n\n{indent(commands, '    ')}".rstrip())


def _copy(source: Traversable, folder: Path, name: str) -> None:
    for each in source.iterdir():
        place = folder / each.name.replace("gitignore", ".gitignore")  # a hidden file is left out of some packages
        if each.is_dir():
            if each.name == "__pycache__":  # of an installation
                continue
            place.mkdir()
            _copy(each, place, name)
        elif each.name.endswith((".py", ".md", ".toml", ".txt")) or place.name == ".gitignore":
            text = each.read_text("utf-8").replace(_PLACEHOLDER, name)
            if place.name == "requirements.txt":
                text = _OF_THIS.sub(lambda found: " ".join(requirement(found[1])), text)
            place.write_text(text, "utf-8")
