"""The documents, as far as a machine can tell: programs run, links lead somewhere, commands parse, names exist."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main

import solarwind
from solarwind import Cause, Event, Handing, Handlers, SolarWind, errors, records
from solarwind.cli import app
from solarwind.cli.examples import EXAMPLES
from solarwind.contrib.django.service import DjangoSolarWind
from solarwind.contrib.flask import FlaskSolarWind
from solarwind.handlers import Registering
from solarwind.lifecycle import Life
from solarwind.outbox.effects import Effects
from solarwind.service.receipts import Receipt, Receipts
from solarwind.service.stream import Stream
from solarwind.testing.contract import EngineContract

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SOLARWIND: Any = typer.main.get_command(app)  # the command line, as typer makes it
README, PYTHON, CLI = ROOT / "README.md", ROOT / "docs" / "PYTHON.md", ROOT / "docs" / "CLI.md"
EFFECTS, SCHEMAS = ROOT / "docs" / "EFFECTS.md", ROOT / "docs" / "SCHEMAS.md"
DJANGO = ROOT / "docs" / "DJANGO.md"
INDEX, ERRORS = ROOT / "docs" / "index.md", ROOT / "docs" / "ERRORS.md"
OPENTELEMETRY = ROOT / "docs" / "OPENTELEMETRY.md"
GUARANTEES = ROOT / "docs" / "GUARANTEES.md"
COMING_FROM = sorted((ROOT / "docs" / "coming-from").glob("*.md"))
A_PROGRAM_S = 240


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line it begins at."""

    language: str
    text: str
    line: int


def blocks(document: Path) -> list[Block]:
    text = document.read_text()
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(each[1], each[2], text.count("\n", 0, each.start()) + 2) for each in found]


def prose(document: Path) -> str:
    """Return the document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


# --- programs -----------------------------------------------------------------------------------------------


def programs() -> Iterator[Any]:
    """Yield each block of Python that is a whole program, and the output that the document shows for it."""
    for document in (README, INDEX, PYTHON, EFFECTS, ERRORS, SCHEMAS, OPENTELEMETRY, *COMING_FROM):
        all_blocks = [*blocks(document), Block("", "", 0)]
        for block, following in pairwise(all_blocks):
            if block.language == "python" and following.language == "text" and is_program(block):
                yield pytest.param(block.text, following.text, id=f"{document.name}:{block.line}")


def is_program(block: Block) -> bool:
    return block.text.startswith(("import ", "from "))


def run(program: str, folder: Path) -> str:
    """Return what it prints, run on its own in a folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOLARWIND_")}
    command = [sys.executable, "-W", "error", "-c", program]
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=A_PROGRAM_S, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(("program", "output"), list(programs()))
def test_a_program_prints_what_is_shown(program: str, output: str, tmp_path: Path) -> None:
    assert run(program, tmp_path) == output


def test_the_readme_begins_with_a_short_program_that_may_run_again(tmp_path: Path) -> None:
    """It is about ten lines, needs nothing but what is installed, and finds its store from the first time."""
    example = next(block for block in blocks(README) if block.language == "python")
    lines = [line for line in example.text.splitlines() if line.strip()]
    assert len(lines) <= 12
    assert run(example.text, tmp_path) == run(example.text, tmp_path)
    assert (tmp_path / "wind.db").exists()


def test_the_readme_names_each_extra_and_all_has_all_of_them() -> None:
    """As `pyproject.toml` has them."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert re.findall(r"^pip install '\.\[(\w+)\]'", README.read_text(), re.MULTILINE)[-1] == "all"
    assert set(re.findall(r"^pip install '\.\[(\w+)\]'", README.read_text(), re.MULTILINE)) == set(extras)
    (all_of_them,) = extras.pop("all")
    assert sorted(all_of_them.removeprefix("solarwind[").removesuffix("]").split(",")) == sorted(extras)


def test_the_site_begins_with_the_program_of_the_readme() -> None:
    first = [next(block.text for block in blocks(page) if block.language == "python") for page in (README, INDEX)]
    assert first[0] == first[1]


def test_all_whole_programs_of_the_manual_are_run() -> None:
    """But the one which is a test and is run below."""
    whole = [block for block in blocks(PYTHON) if block.language == "python" and is_program(block)]
    shown = [each for each in programs() if each.id.startswith("PYTHON.md")]
    assert len(shown) == len(whole) - 1 >= 7


@pytest.mark.parametrize("document", COMING_FROM, ids=name_of)
def test_a_page_for_those_who_come_from_elsewhere_has_its_table_and_programs(document: Path) -> None:
    """Its programs are run above, but that of flightjs.md, which `server/test_flightjs.py` runs beside its page."""
    whole = [block for block in blocks(document) if block.language == "python" and is_program(block)]
    shown = [each for each in programs() if each.id.startswith(f"{document.name}:")]
    if document.name == "README.md":
        others = {other.name for other in COMING_FROM} - {document.name}
        assert set(re.findall(r"\]\(([\w-]+\.md)\)", prose(document))) == others
    else:
        assert "| what you do there | what you do here | how large the change is |" in prose(document)
        assert len(shown) == len(whole) - (document.name == "flightjs.md")
        assert whole
        assert all(len([line for line in block.text.splitlines() if line.strip()]) <= 32 for block in whole)


@pytest.mark.long
def test_the_test_of_the_manual_passes(tmp_path: Path) -> None:
    example = next(block for block in blocks(PYTHON) if "def test_it_is_tried_again" in block.text)
    (tmp_path / "test_example.py").write_text(example.text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=A_PROGRAM_S, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


# How many tests the programs of a page have.
PAGES = {"FASTAPI.md": 5, "LITESTAR.md": 3, "FLASK.md": 6, "TESTING.md": 106}


def files_of(document: Path) -> dict[str, str]:
    """Return the programs of a page by the names of their files: the paragraph before each begins with its name."""
    lines, files = document.read_text().splitlines(), {}
    for block in blocks(document):
        if block.language == "python":
            before = "\n".join(lines[: block.line - 2]).rstrip().split("\n\n")[-1]
            named = re.match(r"`(\w+\.py)`", before)
            assert named, f"{document.name}:{block.line} does not say which file it is"
            assert named[1] not in files
            files[named[1]] = block.text
    return files


@pytest.mark.long
@pytest.mark.parametrize(("page", "options"), [*((page, ()) for page in PAGES), ("TESTING.md", ("-n", "2"))], ids=str)
def test_the_apps_of_a_page_pass_its_tests(tmp_path: Path, page: str, options: tuple[str, ...]) -> None:
    files = files_of(ROOT / "docs" / page)
    for name, program in files.items():
        (tmp_path / name).write_text(program)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOLARWIND_")}
    tests = [name for name in files if name.startswith("test_")]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=A_PROGRAM_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{PAGES[page]} passed" in ended.stdout


# --- names --------------------------------------------------------------------------------------------------


def python_blocks() -> Iterator[Any]:
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.language == "python":
                yield pytest.param(document, block, id=f"{document.name}:{block.line}")


# What the variables of the documents' examples are.
VARIABLES: dict[str, type] = {
    "wind": SolarWind,
    "event": Event,
    "handing": Handing,
    "group": Handlers,
    "events": Stream,
    "receipt": Receipt,
    "letter": records.DeadLetter,
    "statistics": records.Statistics,
    "counts": records.PurposeStatistics,
    "info": records.PurposeInfo,
    "tree": records.Trace,
    "Cause": Cause,
}


OF_A_FRAMEWORK: dict[str, type] = {"DJANGO.md": DjangoSolarWind, "FLASK.md": FlaskSolarWind}


def variables_of(document: Path) -> dict[str, type]:
    return VARIABLES | {"wind": OF_A_FRAMEWORK.get(document.name, SolarWind)}


@pytest.mark.parametrize(("document", "block"), list(python_blocks()))
def test_an_example_uses_names_and_options_that_exist(document: Path, block: Block) -> None:
    """It is Python, and whatever it asks of solarwind is there, options included."""
    variables = variables_of(document)
    tree = compile(block.text, "example", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "solarwind":
            for alias in node.names:
                assert alias.name in solarwind.__all__
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            type_ = variables.get(node.value.id)
            assert type_ is None or hasattr(type_, node.attr), ast.unparse(node)
        elif isinstance(node, ast.Call):
            check_options(node, variables)


def check_options(call: ast.Call, variables: dict[str, type]) -> None:
    function: Any = None
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        function = getattr(variables.get(call.func.value.id), call.func.attr, None)
    elif isinstance(call.func, ast.Name) and call.func.id in solarwind.__all__:
        function = getattr(solarwind, call.func.id)
    if function is None or isinstance(function, property):
        return
    options = inspect.signature(function).parameters
    for keyword in call.keywords:
        assert keyword.arg in options, f"{ast.unparse(call)} has no option {keyword.arg}"


def test_the_manual_names_all_that_is_public_and_nothing_else() -> None:
    text = PYTHON.read_text()
    code = "\n".join([*re.findall(r"`([^`\n]+)`", prose(PYTHON)), *(block.text for block in blocks(PYTHON))])
    for name in solarwind.__all__:
        assert re.search(rf"\b{name}\b", code), f"{name} is public and not in the manual"
    for name in (
        name for of in (SolarWind, Life, Registering, Effects) for name in vars(of) if not name.startswith("_")
    ):
        assert re.search(rf"\bwind\.{name}\b|`{name}\b", text), f"wind.{name} is missing"
    for name in (name for name in vars(Handing) if not name.startswith("_")):
        assert re.search(rf"\bhanding\.{name}\b", text), f"handing.{name} is missing"
    for name in (name for name in vars(Event) if not name.startswith("_")):
        assert re.search(rf"\bevent\.{name}\b", text), f"event.{name} is missing"
    for type_ in (Receipt, Receipts, Stream, Cause, solarwind.Limits, *vars(records).values()):
        if isinstance(type_, type) and type_.__module__.startswith("solarwind"):
            members = {name for name in vars(type_) if not name.startswith("_")} - {"wake"}
            for name in members | set(getattr(type_, "__struct_fields__", ())):
                assert name.startswith("_") or re.search(rf"\b{name}\b", text), f"{type_.__name__}.{name} is missing"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_members_that_the_prose_names_exist(document: Path) -> None:
    """`wind.x`, `event.x` and so on, in code within a sentence."""
    for code in re.findall(r"`([^`\n]+)`", prose(document)):
        for name, member in re.findall(r"\b(\w+)\.(\w+)", code):
            type_ = variables_of(document).get(name)
            if type_ is not None and member not in ("db", "py", "sock"):
                there = hasattr(type_, member) or member in members_by_class()[type_.__name__]
                assert there, f"{document.name}: {code}"


# --- the site -----------------------------------------------------------------------------------------------


def toctrees(document: Path) -> list[list[Path]]:
    """Return the pages of each toctree of a page."""
    found = (block.text.splitlines() for block in blocks(document) if block.language == "{toctree}")
    entries = ([line for line in lines if line and not line.startswith(":")] for lines in found)
    return [[document.parent / f"{entry}.md" for entry in each] for each in entries]


def test_each_page_has_a_place_on_the_site() -> None:
    pages = set((ROOT / "docs").rglob("*.md")) - {INDEX}
    placed = [page for document in DOCUMENTS for tree in toctrees(document) for page in tree]
    assert len(placed) == len(set(placed)), "a page is in two toctrees: take it out of one"
    for page in sorted(pages - set(placed)):
        pytest.fail(
            f"{name_of(page)} is in no toctree: name it in docs/index.md, in the list and the toctree of Tutorial, "
            "How-to guides, Reference, Explanation or The project"
        )
    assert set(placed) == pages, "a toctree names a page that is not there"


def test_the_lists_of_the_front_page_have_what_its_toctrees_have() -> None:
    """The lists are for readers, with a sentence each; the toctrees are for the site's navigation."""
    sections = re.split(r"^## ", prose(INDEX), flags=re.MULTILINE)[1:]
    trees = toctrees(INDEX)
    assert len(sections) == len(trees)
    for section, tree in zip(sections, trees, strict=True):
        listed = [(INDEX.parent / target).resolve() for target in re.findall(r"\]\((\S+?\.md)\)", section)]
        assert listed == tree, f"the list and the toctree of {section.splitlines()[0]} differ"


def test_the_page_of_errors_has_a_section_for_each_code() -> None:
    """For those of the exceptions, and those of HTTP alone: with the class, whose fault it is, and the status."""
    http = (ROOT / "docs" / "HTTP.md").read_text()
    statuses: dict[str, set[str]] = {}
    for status, code in re.findall(r"^\| ([45]\d\d) \| `([a-z-]+)` \|", http, re.MULTILINE):
        statuses.setdefault(code, set()).add(status)
    kinds = {each.code: each for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "code")}
    sections = dict(re.findall(r"^## ([a-z-]+)\n\n(.*?)(?=^## |\Z)", ERRORS.read_text(), re.MULTILINE | re.DOTALL))
    for code in sorted(kinds.keys() | statuses.keys()):
        assert code in sections, f"docs/ERRORS.md has no section {code}: say there what it means, and what to do"
        first = sections[code].partition("\n")[0]
        assert set(re.findall(r"\b[45]\d\d\b", first)) == statuses.get(code, set()), f"{code}: {first}"
        if code in kinds:
            assert f"`{kinds[code].__name__}`" in first, f"{code}: {first}"
            assert f"fault `{kinds[code].fault}`" in first, f"{code}: {first}"
        for part in ("**Means**", "**Causes**", "**What to do**"):
            assert part in sections[code], f"{code}: {part}"
    assert sections.keys() == kinds.keys() | statuses.keys() == _codes_in_source()


def _codes_in_source() -> set[str]:
    """Return the codes of all classes of errors, wherever they are, and of the statuses of HTTP that are answered."""
    text = "\n".join(each.read_text() for each in (ROOT / "src").rglob("*.py"))
    raised = {HTTPStatus(int(status)).phrase for status in re.findall(r"HTTPException\((\d+)", text)}
    classes = re.findall(r"^    code(?:: [^=\n]+)? = \"([a-z-]+)\"$", text, re.MULTILINE)
    return {*classes, *(phrase.lower().replace(" ", "-") for phrase in raised)}


def test_what_is_compared_has_a_source_with_a_date() -> None:
    text = (ROOT / "docs" / "COMPARISON.md").read_text()
    tables, _, sources = text.partition("## Sources")
    dated = dict(re.findall(r"^\| (\w+) \| .*\]\(https://.*\| (20\d\d-\d\d-\d\d) \|$", sources, re.MULTILINE))
    headers = [line for line in tables.splitlines() if line.startswith("| | Solar Wind")]
    assert len(headers) == 2
    for header in headers:
        for column in header.strip("| ").split(" | ")[1:]:
            name = column.split()[0]
            assert name in dated, f"docs/COMPARISON.md: {name} has no source with a date under Sources"


# --- links --------------------------------------------------------------------------------------------------


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{document.name}: {target}"
        assert file.is_relative_to(ROOT), f"{document.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{document.name}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_files_and_functions_that_the_prose_names_exist(document: Path) -> None:
    """`core/dispatcher.py`, or `Dispatcher.exchange`, in code within a sentence."""
    folders = [ROOT, ROOT / "src" / "solarwind", ROOT / "tests", ROOT / "examples" / "django_shop"]
    for code in re.findall(r"`([^`\n]+)`", prose(document)):
        found = re.fullmatch(r"((?:\w+/)*\w+\.py)(?:::\w+)?", code)
        if found and "/" in code:
            assert any((folder / found[1]).exists() for folder in folders), f"{document.name}: {code}"
        found = re.fullmatch(r"([A-Z]\w+)\.(\w+)(\(.*\))?", code)
        if found and found[1] in members_by_class():
            assert found[2] in members_by_class()[found[1]], f"{document.name}: {code}"


def test_the_layout_that_is_drawn_is_the_layout() -> None:
    """Every module but those of cli, testing and templates, and no other; a folder stands before its files."""
    drawn = next(block.text for block in blocks(ROOT / "docs" / "ARCHITECTURE.md") if "dispatcher.py" in block.text)
    source = ROOT / "src" / "solarwind"
    others = ("cli", "testing", "templates")
    modules = [path for path in source.rglob("*.py") if path.relative_to(source).parts[0] not in others]
    names = {path.name for path in modules} - {"__main__.py"}
    assert set(re.findall(r"\w+\.py\b", drawn)) == names


@cache
def members_by_class() -> dict[str, set[str]]:
    """Return every class of the package with its methods and fields, by reading the source."""
    members: dict[str, set[str]] = {}
    for path in (ROOT / "src" / "solarwind").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                names = members.setdefault(node.name, set())
                for inner in ast.walk(node):
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                        names.add(inner.name)
                    elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                        names.add(inner.target.id)
                    elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                        names.add(inner.attr)
    return members


# --- the command line ---------------------------------------------------------------------------------------


def command_lines() -> Iterator[Any]:
    for document in (README, INDEX, CLI, EFFECTS, SCHEMAS, DJANGO, ROOT / "docs" / "SECURITY.md", *COMING_FROM):
        for block in blocks(document):
            for line in block.text.splitlines() if block.language == "sh" else ():
                if line.startswith("python manage.py solarwind relay "):  # which adds the project's own
                    line = line.replace(" relay ", " relay --database default ")
                line = line.removeprefix("python manage.py ")
                if line.startswith("solarwind "):
                    yield pytest.param(line, id=f"{document.name}:{line.partition('  #')[0].strip()}")


@pytest.mark.parametrize("line", list(command_lines()))
def test_a_command_line_parses(line: str) -> None:
    """Command, arguments and options exist and are taken; nothing is run."""
    parse(shlex.split(line, comments=True)[1:])


def parse(words: list[str]) -> None:
    """Parse a command line, as a group does before it runs a command."""
    context = SOLARWIND.make_context("solarwind", list(words))
    command = SOLARWIND
    while rest := [*context._protected_args, *context.args]:
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
        if not hasattr(command, "commands"):
            return


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_of_the_help_parses(line: str) -> None:
    parse(shlex.split(line.partition(" < ")[0]))


def test_every_example_is_of_a_command_and_fits_a_line() -> None:
    known = {
        words.removeprefix("solarwind ")
        for words, command in commands()
        if not hasattr(command, "commands") or command.invoke_without_command
    }
    assert EXAMPLES.keys() <= known
    assert all(len(f"solarwind {line}") <= 78 for lines in EXAMPLES.values() for line in lines)


@pytest.mark.parametrize("line", ["solarwind sail", "solarwind topics --colour", "solarwind replay T"])
def test_a_wrong_command_line_is_found_out(line: str) -> None:
    with pytest.raises(Exception, match=r"No such command|No such option|Missing "):
        parse(shlex.split(line)[1:])


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command with its words."""
    todo: list[tuple[str, Any]] = [("solarwind", SOLARWIND)]
    while todo:
        words, command = todo.pop()
        yield words, command
        todo += [(f"{words} {name}", inner) for name, inner in getattr(command, "commands", {}).items()]


def test_every_command_and_option_is_in_the_reference() -> None:
    text = CLI.read_text()
    for words, command in commands():
        if not hasattr(command, "commands"):
            assert words in text, f"{words} is missing"
        for parameter in command.params:
            for option in (each for each in parameter.opts if each.startswith("--")):
                assert option in text or option == "--help", f"{words} {option} is missing"


def test_every_option_in_the_reference_exists() -> None:
    known = {option for _, command in commands() for parameter in command.params for option in parameter.opts}
    for option in re.findall(r"`(--[a-z-]+)", prose(CLI)):
        assert option in known | {"--help", "--some-name"}, option


# --- guarantees ---------------------------------------------------------------------------------------------


@cache
def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_is_named_exists() -> None:
    """`contract::test_x` is a rule of the contract suite; `store/test_faults.py::test_x` is in `tests/`."""
    named = re.findall(r"`([\w/.]+)::(test_\w+)`", GUARANTEES.read_text())
    assert len(named) >= 50
    for place, test in named:
        there = set(dir(EngineContract)) if place == "contract" else functions_in(ROOT / "tests" / place)
        assert test in there, f"{place}::{test}"


def test_no_test_is_named_in_another_form() -> None:
    text = re.sub(r"`[\w/.]+::test_\w+`", "", GUARANTEES.read_text())
    assert not re.findall(r"`test_(?!docs)\w+`", text)


# --- the project alone --------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_a_document_speaks_of_the_project_alone(document: Path) -> None:
    text = document.read_text()
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    for number, line in enumerate(text.splitlines(), 1):
        assert not re.search(r"/(?:work|tmp|root|home)/|SPEC|DESIGN|issue \d", line), f"{document.name}:{number}"
        assert line == line.rstrip(), f"{document.name}:{number}"
