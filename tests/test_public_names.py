"""Only public names of other libraries: none of their underscored members, nothing of theirs overwritten, no coroutine
driven by hand, no look into a suspended one. Shown by the source, and by what is built on their classes."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import django
import pytest
from django.conf import settings

from sources import MODULES, ROOT

PUBLIC = {
    "_replace",
    "_asdict",
    "_fields",
    "_make",
    "_exit",
    "_abc_impl",
}  # of named tuples, os and abc, whatever they are called
FRAMES = {
    f"{kind}_{name}" for kind in ("gi", "cr", "ag") for name in ("frame", "code", "yieldfrom", "await", "running")
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def nodes_of(tree: ast.Module) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree))


@cache
def own_names() -> frozenset[str]:
    """Return every underscored name that the package itself defines: functions, classes, variables, attributes,
    slots."""
    found: set[str] = set()
    for path in MODULES:
        for node in nodes_of(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                found.add(node.value)  # in `__slots__`
    return frozenset(found)


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def foreign_names(tree: ast.Module) -> set[str]:
    """Return what a module calls things that it imports from elsewhere."""
    found: set[str] = set()
    for node in nodes_of(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names if alias.name != "solarwind"}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module != "__future__":
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def offences(tree: ast.Module) -> Iterator[str]:
    """Yield each offence with what it is."""
    foreign = foreign_names(tree)
    for node in nodes_of(tree):
        if isinstance(node, ast.Import):
            yield from (f"import {each.name}" for each in node.names if any(map(is_private, each.name.split("."))))
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module != "__future__":
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (f"import {name}" for name in names if is_private(name))
        elif isinstance(node, ast.Attribute):
            yield from _of_attribute(node, foreign)
        elif isinstance(node, ast.Call):
            yield from _of_call(node, foreign)


def _of_attribute(node: ast.Attribute, foreign: set[str]) -> Iterator[str]:
    if node.attr in FRAMES:
        yield f"look at {node.attr}"
    elif isinstance(node.ctx, ast.Store | ast.Del) and isinstance(node.value, ast.Name) and node.value.id in foreign:
        yield f"overwrite {node.value.id}.{node.attr}"
    elif is_private(node.attr) and node.attr not in PUBLIC:
        of_import = isinstance(node.value, ast.Name) and node.value.id in foreign
        if of_import or node.attr not in own_names():
            yield f"use {node.attr}"


def _of_call(node: ast.Call, foreign: set[str]) -> Iterator[str]:
    function, arguments = node.func, node.args
    first = arguments[0] if arguments else None
    if isinstance(function, ast.Attribute) and function.attr == "send":
        if isinstance(first, ast.Constant) and first.value is None:
            yield "drive a coroutine by hand"
    elif isinstance(function, ast.Name) and function.id in ("getattr", "setattr", "delattr", "hasattr"):
        name = arguments[1] if len(arguments) > 1 else None
        if isinstance(name, ast.Constant) and is_private(str(name.value)) and name.value not in own_names():
            yield f"use {name.value}"
        if function.id == "setattr" and isinstance(first, ast.Name) and first.id in foreign:
            yield f"overwrite a name of {first.id}"


def configure_django() -> None:
    """Set up Django without a project, in this process, for modules that cannot be imported without."""
    if not settings.configured:
        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
        django.setup()


def offences_of_classes(module: str) -> Iterator[str]:
    """Underscored members of classes of other libraries that those built on them override or use."""
    if ".contrib.django" in module:
        configure_django()
    for own in vars(importlib.import_module(module)).values():
        if not isinstance(own, type) or own.__module__ != module:
            continue
        used = set(re.findall(r"\bself\.(_\w+)", source_of(own))) | set(vars(own))
        for base in own.__mro__[1:]:
            if base.__module__.partition(".")[0] in ("solarwind", "builtins", "typing", "abc", "enum"):
                continue
            known = set(vars(base)) | set(re.findall(r"\bself\.(_\w+)", source_of(base)))
            yield from (
                f"use {name} of {base.__name__}" for name in sorted((used & known) - PUBLIC) if is_private(name)
            )


def source_of(kind: type) -> str:
    """Return its source, or nothing where it is not written in Python, or made at run time."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    return classes_of(file).get(kind.__qualname__, "") if file.endswith(".py") else ""


@cache
def classes_of(file: str) -> dict[str, str]:
    """Return the sources of a file's classes, by their qualified names. `inspect.getsource` parses the file for
    each."""
    text = Path(file).read_text()
    lines, found = text.splitlines(), {}

    def look(node: ast.AST, within: str) -> None:
        for each in ast.iter_child_nodes(node):
            if isinstance(each, ast.ClassDef):
                found[within + each.name] = "\n".join(lines[each.lineno - 1 : each.end_lineno])
                look(each, f"{within}{each.name}.")
            elif isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                look(each, f"{within}{each.name}.<locals>.")
            else:
                look(each, within)

    look(ast.parse(text), "")
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_only_public_names_of_other_libraries() -> None:
    for path in MODULES:
        check_names(path)


def check_names(path: Path) -> None:
    module = ".".join(["solarwind", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
    found = Counter(offences(tree_of(path)))
    if not module.endswith("__main__"):
        found += Counter(offences_of_classes(module))
    assert not found, f"{name_of(path)}: find a public way to {', '.join(sorted(found))}"


@pytest.mark.parametrize(
    ("source", "offence"),
    [
        ("import uvicorn\nuvicorn.config.X = 1\nuvicorn.X = 1", "overwrite uvicorn.X"),
        ("client._server_info_of_theirs", "use _server_info_of_theirs"),
        ("getattr(client, '_subs_of_theirs')", "use _subs_of_theirs"),
        ("from asyncio import _register_task", "import _register_task"),
        ("import nats._private", "import nats._private"),
        ("client.publish(b'').send(None)", "drive a coroutine by hand"),
        ("generator.gi_frame.f_locals", "look at gi_frame"),
    ],
)
def test_each_kind_of_private_name_is_found(source: str, offence: str) -> None:
    assert offence in set(offences(ast.parse(source)))
