"""What is public: each name with its signature and docstring, for the API reference and for the list of names.

public_api.txt is that list. `make api` writes it anew, once CHANGELOG.md says under Unreleased what changed.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NamedTuple

import django
import msgspec
from django.conf import settings

from solarwind import SolarWind, exchanges
from solarwind.operations import Operation

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_suffix(".txt")
CHANGELOG = ROOT / "CHANGELOG.md"
MANUAL = ROOT / "docs" / "PYTHON.md"
MODULES = ["solarwind", "solarwind.exchanges", "solarwind.records", "solarwind.server", "solarwind.testing"]
OF_DJANGO = ["solarwind.contrib.django.service", "solarwind.contrib.django.tasks", "solarwind.testing.django"]
NOT_PUBLIC = {"beside"}  # of contrib: what its modules share


class Name(NamedTuple):
    """A public name: a class, a function, or a member of a class."""

    module: str
    path: str  # "SolarWind.fire"
    kind: str  # class, exception, function, method, property or attribute
    signature: str  # "(topic: str, …) -> Receipt" of what is called, ": int" of the rest, "" where there is none
    doc: str
    is_async: bool

    @property
    def full(self) -> str:
        return f"{self.module}.{self.path}"

    @property
    def line(self) -> str:
        return f"{'async ' if self.is_async else ''}{self.full}{self.signature}"


def public_names() -> list[Name]:
    """Return all of them, by modules in the order of `MODULES`, a class before its members."""
    contrib = import_module("solarwind.contrib")
    modules = [each for each in iter_modules(contrib.__path__) if not each.ispkg and each.name not in NOT_PUBLIC]
    of_contrib = [f"{contrib.__name__}.{each.name}" for each in modules]
    if not settings.configured:  # a project's
        settings.configure()
        django.setup()
    return [name for module in [*MODULES, *sorted(of_contrib), *OF_DJANGO] for name in of_module(module)]


def of_module(module: str) -> Iterator[Name]:
    there = import_module(module)
    for name in getattr(there, "__all__", None) or own_names(there):
        yield from of_object(module, name, getattr(there, name))


def own_names(module: Any) -> list[str]:
    """Return the classes and functions that a module without `__all__` defines."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__ and callable(value)
    ]


def of_object(module: str, name: str, value: Any) -> Iterator[Name]:
    if not isinstance(value, type):
        yield Name(module, name, "function", signature_of(value), doc_of(value), is_async(value))
        return
    kind = "exception" if issubclass(value, BaseException) else "class"
    yield Name(module, name, kind, constructor_of(value), doc_of(value), False)
    for member, found in sorted(members_of(value).items()):
        path = f"{name}.{member}"
        if callable(found):
            yield Name(module, path, "method", signature_of(found, method=True), doc_of(found), is_async(found))
        elif isinstance(found, property):
            yield Name(module, path, "property", result_of(found.fget), doc_of(found), False)
        else:
            yield Name(module, path, "attribute", annotation_in(value, member, found), "", False)


def members_of(kind: type) -> dict[str, Any]:
    """Return what Solar Wind defines of a class, without what it has from another public class, and without what the
    manual does not show of a SolarWind: its bases have methods for each other."""
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        if base is not kind and base in public_bases():
            break
        if base.__module__.partition(".")[0] != "solarwind":
            continue
        for name in [*vars(base), *base.__annotations__] if "__annotations__" in vars(base) else vars(base):
            if not name.startswith("_") and name not in found:
                found[name] = inspect.getattr_static(kind, name, None)
                if not isinstance(found[name], property):
                    found[name] = getattr(kind, name, None)
    if kind is SolarWind:
        return {name: value for name, value in found.items() if name in names_in_manual()}
    return found


@cache
def public_bases() -> frozenset[type]:
    return frozenset({SolarWind, *(getattr(exchanges, name) for name in exchanges.__all__)})


@cache
def names_in_manual() -> frozenset[str]:
    return frozenset(one or two for one, two in re.findall(r"\bwind\.(\w+)|`(\w+)`", MANUAL.read_text()))


def constructor_of(kind: type) -> str:
    """Return the signature that a class is called with, or nothing where it has no constructor of its own."""
    if issubclass(kind, msgspec.Struct):
        return signature_of(kind)
    if getattr(kind, "_is_protocol", False):
        return ""
    own = any("__init__" in vars(base) for base in kind.__mro__ if base.__module__.startswith("solarwind"))
    return signature_of(kind.__init__, method=True).removesuffix(" -> None") if own else ""


def signature_of(function: Any, method: bool = False) -> str:
    signature = inspect.signature(function)
    if any(name.startswith("_") for name in signature.parameters):
        return ""  # only Solar Wind itself makes one
    parameters = list(signature.parameters.values())
    if method and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    shown, keyword_only = [], False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            shown.append("*")
        if each.kind is each.VAR_POSITIONAL:
            keyword_only = True
        stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        text = stars + each.name
        if each.annotation is not each.empty:
            text += f": {annotation_text(each.annotation)}"
        if each.default is not each.empty:
            text += f"{' = ' if ':' in text else '='}{default_text(each.default)}"
        shown.append(text)
    result = "" if signature.return_annotation is signature.empty else annotation_text(signature.return_annotation)
    return f"({', '.join(shown)})" + (f" -> {result}" if result else "")


def result_of(function: Any) -> str:
    found = inspect.signature(function).return_annotation
    return "" if found is inspect.Signature.empty else f": {annotation_text(found)}"


def annotation_in(kind: type, member: str, value: Any) -> str:
    for base in kind.__mro__:
        if member in vars(base).get("__annotations__", {}):
            text = annotation_text(vars(base)["__annotations__"][member])
            return f": {text}" + (f" = {value!r}" if text.startswith("ClassVar") else "")
    return ""


def annotation_text(annotation: Any) -> str:
    """Return it as the source has it."""
    if isinstance(annotation, str):
        return annotation
    text = getattr(annotation, "__forward_arg__", None) or inspect.formatannotation(annotation)
    return re.sub(r"\b(?:solarwind|typing|collections\.abc|datetime)\.(?:\w+\.)*(?=\w)", "", str(text))


def default_text(value: Any) -> str:
    return "UNSET" if value is msgspec.UNSET else re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or isinstance(function, Operation)


def doc_of(value: Any) -> str:
    found = inspect.getdoc(value) or ""
    return "" if found == inspect.getdoc(object) else found


# The list ------------------------------------------------------------------------------------------------------------


def changed_names(before: list[str], now: list[str]) -> list[str]:
    """Return the names whose lines differ between two lists, without their modules: `SolarWind.fire`."""
    return sorted({name_in(line) for line in {*before} ^ {*now}})


def name_in(line: str) -> str:
    full = re.match(r"(?:async )?([\w.]+)", line)
    assert full
    return (
        re.sub(r"^(?:[a-z_]+\.)*(?=[A-Z])", "", full[1]) if re.search(r"\.[A-Z]", full[1]) else full[1].rsplit(".")[-1]
    )


def unnamed(names: list[str], changelog: str, before: str = "") -> list[str]:
    """Return those that no line of the section Unreleased names which was not there before, by their last word or that
    of their class."""
    section = changelog.partition("\n## [Unreleased]")[2].partition("\n## [")[0]
    known = {*before.splitlines()}
    lines = "\n".join(line for line in section.splitlines() if line not in known)
    words = {word for code in re.findall(r"`([^`]+)`", lines) for word in re.findall(r"\w+", code)}
    return [name for name in names if name.split(".")[-1] not in words and name.split(".")[0] not in words]


def changelog_then() -> str:
    """Return the changelog as it was when the list was last changed; nothing where that is not known."""
    commit = git("log", "-1", "--format=%H", "--", LIST).strip()
    return git("show", f"{commit}:{CHANGELOG.name}") if commit else ""


def git(*words: str | Path) -> str:
    """Return what git says, or nothing where there is no git or no repository."""
    try:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def complaint() -> str:
    """Return one sentence that says what to do where the list and the code differ, else nothing."""
    names = changed_names(LIST.read_text().splitlines(), [each.line for each in public_names()])
    if not names:
        return ""
    return (
        f"the public names {', '.join(names)} changed: say so in CHANGELOG.md under Unreleased, with each name in "
        "backticks, then run `make api` and commit docs/site/public_api.txt"
    )


def main() -> int:
    now = [each.line for each in public_names()]
    before = LIST.read_text().splitlines() if LIST.exists() else now
    missing = unnamed(changed_names(before, now), CHANGELOG.read_text(), changelog_then())
    if missing:
        print(
            f"the public names {', '.join(missing)} changed, and CHANGELOG.md has no new line under Unreleased that "
            "names them: say there what changed, with the name in backticks, then run `make api` again",
            file=sys.stderr,
        )
        return 1
    LIST.write_text("".join(f"{line}\n" for line in now))
    return 0


if __name__ == "__main__":
    sys.exit(main())
