"""The linter of the console's JavaScript finds what it is for: `make lint` runs it on the modules themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .vendoring import VENDOR

HERE = Path(__file__).parent
ESLINT = HERE.parents[1] / ".venv" / "eslint.mjs"
NODE = shutil.which("node")
needs_eslint = pytest.mark.skipif(
    NODE is None or not ESLINT.exists(), reason="needs Node, and ESLint as `make lint` has it"
)

MARKUP = "makes markup of a text"
FAULTS = {
    "let a = 1;\nconsole.error(a);": "prefer-const",
    "console.error(window.nothing == 1);": "eqeqeq",
    "document.body.innerHTML = location.hash;": "no-restricted-properties",
    "console.error(`<p dangerouslySetInnerHTML=${1} />`);": MARKUP,
    "console.error(eval('1'));": "no-eval",
    "console.error(nothing);": "no-undef",
    "const unused = 1;": "no-unused-vars",
    "const broken = ;": "syntax",
    'import { nothing } from "./other.js";\nconsole.error(nothing);': "imports nothing, which other.js does not export",
    'import { there } from "./gone.js";\nconsole.error(there);': "imports ./gone.js, which is not there",
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    assert NODE is not None
    return subprocess.run([NODE, HERE / "lint.mjs", ESLINT, folder], capture_output=True, text=True, timeout=600)


@needs_eslint
def test_the_modules_of_the_console_have_no_fault() -> None:
    done = lint(VENDOR.parent)
    assert (done.returncode, done.stdout) == (0, "")


@needs_eslint
@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_is_found_and_said_with_its_place(text: str, tmp_path: Path) -> None:
    (tmp_path / "other.js").write_text("export const there = 1;\n")
    (tmp_path / "user.js").write_text('import { there } from "./other.js";\nconsole.error(there);\n')
    (tmp_path / "wrong.js").write_text(f"{text}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if FAULTS[text] in line]
    assert lines, done.stdout
    assert all(line.startswith("wrong.js") for line in lines)


@needs_eslint
def test_what_nobody_imports_and_a_folder_without_modules_are_faults(tmp_path: Path) -> None:
    done = lint(tmp_path)
    assert (done.returncode, "no JavaScript" in done.stdout) == (1, True)
    (tmp_path / "own.js").write_text("export const alone = 1;\n")
    done = lint(tmp_path)
    assert (done.returncode, done.stdout) == (1, "own.js: exports alone, which nobody imports\n")
