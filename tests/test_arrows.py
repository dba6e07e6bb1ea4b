"""The arrows between the parts, a pure core, the public names and the limits of style, by reading the source."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import background
import solarwind
from solarwind import errors
from sources import MODULES, ROOT

# What each part may import of solarwind. A part is a folder, or a module of the top.
FOUNDATION = {
    "calls",
    "origin",
    "event",
    "names",
    "errors",
    "extras",
    "depends",
    "option_structs",
    "batch",
    "columns",
    "payload",
    "keys",
    "failure",
    "limits",
    "logs",
    "rate",
    "schedule",
    "schema",
    "shares",
    "systems",
    "text",
    "threads",
    "timing",
}
ARROWS = {
    "event": {"errors", "payload", "batch", "outbox.effects", "timing"},  # batch: for its annotations only
    "names": {"errors"},
    "origin": {"systems"},
    "errors": set(),
    "calls": {"errors"},
    "depends": {"calls", "errors"},
    "option_structs": {"calls", "errors"},
    "extras": {"errors"},
    "payload": {"errors", "models"},
    "keys": {"errors", "models", "payload"},
    "models": set(),
    "failure": {"calls", "errors", "option_structs"},
    "schedule": {"errors", "names"},
    "schema": {"errors", "models", "names", "payload", "text"},
    "rate": {"errors", "names"},
    "shares": {"errors", "names", "option_structs"},
    "limits": {"errors", "option_structs"},
    "logs": {"text"},
    "text": set(),
    "systems": {"errors"},
    "threads": set(),
    "timing": {"errors", "failure", "names"},
    "columns": {"errors", "event", "names", "payload"},
    "batch": {"columns", "errors", "event", "limits", "names", "payload"},
    "records": {"event"},
    "core": FOUNDATION | {"core"},
    "asyncapi": {"asyncapi_schemas", "errors", "records"},
    "asyncapi_schemas": set(),
    "exchanges": {"core", "plugins"},
    "plugins": {"core", "errors"},
    "store": FOUNDATION | {"core", "store"},
    "wire": FOUNDATION | {"core"},
    "engine": FOUNDATION | {"core", "store", "records", "wire", "options", "plugins", "engine"},
    "cluster": FOUNDATION | {"core", "store", "records", "wire", "engine", "operations", "peer", "cluster"},
    "copying": FOUNDATION | {"core", "store", "urls", "cluster.copying"},
    "service": FOUNDATION
    | {"core", "loops", "options", "engine.base", "engine.clock", "plugins", "records", "service"},
    "outbox": FOUNDATION
    | {"engine.backoff", "engine.base", "engine.tasks", "loops", "operations", "outbox", "service", "urls"},
    "loops": {"calls", "errors"},
    "shutdown": {"errors"},
    "options": {"engine.base", "errors", "failure", "loops", "names", "payload", "schedule"},
    "urls": {
        "cluster.engine",
        "engine",
        "errors",
        "extras",
        "limits",
        "names",
        "peer.remote",
        "store",
        "systems",
        "text",
    },
    "handlers": FOUNDATION | {"core", "engine.base", "options", "records", "service"},
    "declaring": {"calls", "errors", "logs", "names", "operations", "options", "payload", "service.typed"},
    "operations": {"describing", "engine", "loops", "options", "origin", "records", "scheduling", "sending"},
    "scheduling": {"engine", "options"},
    "sending": {"engine"},
    "describing": {"engine"},
    "wind": FOUNDATION
    | {"core", "engine", "lifecycle", "loops", "operations", "options", "outbox", "plugins", "records"}
    | {"asyncapi", "declaring", "handlers", "service", "shutdown", "urls"},
    "lifecycle": {"calls", "errors", "loops", "options", "shutdown", "threads", "wind"},  # wind: for annotations only
    "peer": FOUNDATION | {"core", "store.definitions", "wire", "engine", "operations", "plugins", "service", "peer"},
    "server": FOUNDATION
    | {"core", "engine", "operations", "options", "peer", "records", "plugins", "service", "shutdown", "urls"}
    | {"asyncapi", "server", "systems", "wind", "wire"},
    "contrib": FOUNDATION
    | {
        "core.effects",
        "engine.base",
        "engine.local",
        "handlers",
        "options",
        "outbox.sql",
        "service",
        "wind",
        "contrib",
    },
    "testing": None,  # anything but the command line
    "cli": None,  # anything but testing
    "__init__": FOUNDATION | {"core", "handlers", "records", "service.middleware", "wind"},
    "__main__": {"cli"},
}
# Imported only where somebody names a server, or a database of PostgreSQL; `cli.mcp` imports its extra when called.
OF_THE_EXTRA = {"cli.mcp", "cli.stdin", "outbox.postgres", "peer.frames", "peer.link"}
IMPURE = {
    "apsw",
    "asyncio",
    "concurrent",
    "datetime",
    "multiprocessing",
    "os",
    "random",
    "secrets",
    "select",
    "signal",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "uuid",
    "uvloop",
}


def part_of(module: str) -> str:
    """Return its part: `core` for `core.purpose`."""
    return module.split(".")[0]


def name_of(path: Path) -> str:
    """Return a module's name below solarwind; a package's ends in `.__init__`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> frozenset[tuple[str, str]]:
    """Return ("own", module below solarwind) or ("foreign", package), of everything imported anywhere in it."""
    return frozenset(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, str]]:
    package = ["solarwind", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name == "solarwind" or name.startswith("solarwind."):
                yield "own", existing(name.removeprefix("solarwind").lstrip("."))
            else:
                yield "foreign", name.split(".")[0]


def existing(name: str) -> str:
    """Return the longest start of it that is a module or package: the rest is a name in it."""
    parts = name.split(".") if name else []
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        if path.is_dir() or path.with_suffix(".py").is_file():
            return ".".join(parts[:length])
    return "__init__"


def test_a_module_imports_only_what_its_part_may() -> None:
    for path in MODULES:
        check_arrows(path)


def check_arrows(path: Path) -> None:
    module = name_of(path)
    part = part_of(module)
    assert part in ARROWS, f"{part} is new: say in ARROWS what it may import"
    allowed = ARROWS[part]
    for kind, imported in imports(path):
        if kind != "own":
            continue
        target = part_of(imported)
        if part == "testing":
            assert target != "cli", module
        elif allowed is None:
            assert target != "testing", module
        else:
            assert target in allowed or imported in allowed, f"{module} imports {imported}"
        if target in ("testing", "cli"):
            assert part in (target, "__main__"), f"{module} imports {imported}"


def test_no_folder_may_import_itself_by_way_of_others() -> None:
    folders = {part for part in ARROWS if (ROOT / part).is_dir()}
    left = {part: {part_of(each) for each in ARROWS[part] or ()} & folders - {part} for part in folders}
    while floor := {part for part, found in left.items() if not found & left.keys()}:
        left = {part: found for part, found in left.items() if part not in floor}
    assert not left, f"a circle of imports may be among {sorted(left)}"


def test_no_module_of_the_server_imports_itself_by_way_of_others() -> None:
    """Nor for annotations only."""
    left = {name_of(path): {name for kind, name in imports(path) if kind == "own"} for path in MODULES}
    left = {module: found for module, found in left.items() if module.startswith("server.")}
    while floor := {module for module, found in left.items() if not found & left.keys()}:
        left = {module: found for module, found in left.items() if module not in floor}
    assert not left, f"a circle of imports is among {sorted(left)}"


def test_a_forbidden_arrow_is_seen() -> None:
    """The test above can fail: it reads imports of every form."""
    found = set(imports(ROOT / "urls.py"))
    assert ("own", "store.sqlite") in found, "within a function"
    assert ("own", "engine.base") in found
    assert ("foreign", "urllib") in found
    assert ("own", "payload") in set(imports(ROOT / "event.py")), "from . import payload"


def test_the_core_has_no_clock_loop_thread_file_or_database() -> None:
    """No clock, chance, loop, thread, socket, file or database: time and chance come in, effects go out."""
    for path in (path for path in MODULES if part_of(name_of(path)) == "core"):
        foreign = {imported for kind, imported in imports(path) if kind == "foreign"}
        assert not foreign & IMPURE, name_of(path)
        calls = {node.id for node in ast.walk(tree_of(path)) if isinstance(node, ast.Name)}
        assert not calls & {"open", "print", "input", "exec", "eval"}, name_of(path)


def test_only_the_stores_have_sql() -> None:
    with_apsw = {part_of(name_of(path)) for path in MODULES if ("foreign", "apsw") in set(imports(path))}
    assert with_apsw <= {"store", "cli", "testing"}


def test_runtime_imports_are_few() -> None:
    """What the package needs where nobody asked for an extra; pydantic and attrs are the user's."""
    plain = {"msgspec", "apsw", "uvloop", "typer", "rich", "cronsim"}
    for path in MODULES:
        part = part_of(name_of(path))
        if part in ("testing", "server", "cluster", "contrib") or name_of(path) in OF_THE_EXTRA:
            continue
        for kind, imported in imports(path):
            if kind == "foreign" and imported not in plain:
                module = importlib.import_module(imported)
                assert _is_standard(module.__name__), f"{name_of(path)} imports {imported}"


def _is_standard(name: str) -> bool:
    return name in sys.stdlib_module_names


def test_public_names_are_sorted_complete_and_documented() -> None:
    """`__all__` is sorted and complete, and each name is there and says what it is for."""
    names = solarwind.__all__
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    for name in names:
        documented = getattr(solarwind, name).__doc__
        assert documented, name
        assert documented.strip(), name
    public = {name for name, value in vars(solarwind).items() if not name.startswith("_") and not _is_module(value)}
    assert public == set(names)


def _is_module(value: object) -> bool:
    return type(value) is type(ast)


def test_public_methods_are_documented() -> None:
    for name in solarwind.__all__:
        value = getattr(solarwind, name)
        if isinstance(value, type) and not issubclass(value, Exception):
            for member, function in vars(value).items():
                if not member.startswith("_") and callable(function):
                    inherited = any(getattr(base, member, None) is not None for base in value.__mro__[1:])
                    assert function.__doc__ or inherited, f"{name}.{member}"


def all_errors() -> list[type[errors.SolarWindError]]:
    found = [errors.SolarWindError]
    for error in found:
        found += error.__subclasses__()
    return [error for error in found if error.__module__.startswith("solarwind.")]


def test_each_error_has_a_code_of_its_own_and_is_documented_and_drawn() -> None:
    """Each error has a code of its own, says whose fault it is, is documented, public and drawn in its file."""
    drawn = dict(re.findall(r"[├└]── (\w+) .*\((\w+)\)", errors.__doc__ or ""))
    codes = set()
    for error in all_errors():
        assert error.__doc__
        assert error.code not in codes, error
        codes.add(error.code)
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", error.code)
        assert getattr(solarwind, error.__name__) is error
        if error is not errors.SolarWindError:
            assert "code" in vars(error), error
            assert "fault" in vars(error), error
            assert drawn.pop(error.__name__) == error.fault
    assert not drawn


def test_a_file_opens_with_why_it_exists_and_neither_it_nor_a_function_is_too_long() -> None:
    """No function is longer than 60 lines, no module longer than 600."""
    for path in MODULES:
        check_style(path)


def check_style(path: Path) -> None:
    source = path.read_text()
    tree = tree_of(path)
    module = name_of(path)
    if source.strip():
        assert ast.get_docstring(tree), f"{module} does not say why it exists"
    lines = source.count("\n")
    assert lines <= 600, f"{module} has {lines} lines"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("test_"):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{module}.{node.name} has {length} lines"


# A sentence that begins with one of these has its verb, if any, somewhere else.
NO_VERB = re.compile(
    "(a|all|an|and|another|any|anything|as|at|both|but|by|each|every|everything|for|from|he|here|how|if|in|into|it|its"
    "|many|much|no|nobody|none|nothing|of|on|one|only|or|other|others|she|so|some|such|that|the|their|there|these|they"
    "|this|those|to|two|what|when|where|whether|which|while|who|whoever|whose|why|with|without)",
    re.IGNORECASE,
)


def test_a_functions_docstring_begins_with_its_verb() -> None:
    """ "Return the positions.", not "The positions.", "Returns the positions." or "`name` is …"."""
    found = [
        f"{name_of(path)}.{node.name}: {documented.splitlines()[0]}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _may_be_a_noun(node)
        if (documented := ast.get_docstring(node)) and not begins_with_a_verb(documented)
    ]
    assert not found


def _may_be_a_noun(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether it is a property or fixture, named for a value; `__init__`, whose text is about its parameters; or
    a test, whose name says what holds."""
    decorators = " ".join(map(ast.unparse, function.decorator_list))
    return function.name == "__init__" or function.name.startswith("test_") or bool(_NOUNS.search(decorators))


_NOUNS = re.compile(r"property|\.setter|fixture")


def begins_with_a_verb(text: str) -> bool:
    """Return whether the first word can be an imperative: it is capitalised, and no plural or third person."""
    word = text.split()[0].rstrip(",.:;")
    plural = word.endswith("s") and not word.endswith("ss")
    return bool(re.fullmatch("[A-Z][a-z]+", word)) and not NO_VERB.fullmatch(word) and not plural


def test_a_docstring_without_a_verb_is_seen() -> None:
    for text in (
        "The positions.",
        "Returns the positions.",
        "Positions that are free.",
        "`name` is a topic.",
        "Its id.",
    ):
        assert not begins_with_a_verb(text)
    for text in ("Return the positions.", "Stop: nothing more is handed out.", "Pass it on."):
        assert begins_with_a_verb(text)


def test_the_seven_steps_stand_in_order() -> None:
    """In one file, top to bottom, with the names and numbers of the plan: the sixth leads to the fourth."""
    tree = tree_of(ROOT / "core" / "dispatcher.py")
    dispatcher = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Dispatcher")
    methods = [node.name for node in dispatcher.body if isinstance(node, ast.FunctionDef)]
    steps = ["receive", "pre_send", "for_each_purpose", "further_partitions", "exchange", "post_send", "drop"]
    assert [name for name in methods if name in steps] == steps
    drawn = re.findall(r"^    (\d) (\w+)", ast.get_docstring(tree) or "", re.MULTILINE)
    assert drawn == list(zip("1236457", steps, strict=True))


def test_whatever_begins_in_the_background_has_an_owner_that_notices_an_unexpected_error() -> None:
    known, found = background.known(), background.found()
    new, gone = found - known, known - found
    assert not new, f"begin it with `Tasks`, or say in tests/background.py how an error in it is noticed: {sorted(new)}"
    assert not gone, f"take them out of tests/background.py: {sorted(gone)}"
