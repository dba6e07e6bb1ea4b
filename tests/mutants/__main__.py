"""Put one fault after the other into a copy of the sources, and see that something notices: `make mutants`.

    python -m mutants [WORD …] [--jobs 2] [--seeds 300] [--check]

WORDs choose the faults whose file or text has one of them; with --check it looks only whether the list in `faults.py`
fits the sources. It exits with 1 where a fault survives, and with 2 where the list does not fit any more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from .faults import FAULTS, Fault

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src"
SIMULATOR = "solarwind.testing.simulator"
CORE = ("core/test_dispatcher.py",)  # what the simulator does not come upon, these do
A_FAULT_S = 600.0  # what does not end by then was noticed
_said = Lock()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mutants")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if stale := [text for fault in FAULTS if (text := misfit(fault))]:
        print("\n".join(stale), file=sys.stderr)
        return 2
    if options.check:
        return 0
    chosen = [each for each in FAULTS if not options.words or any(word in str(each) for word in options.words)]
    named = sorted({test for fault in chosen for test in fault.tests})
    if named and run("pytest", *named, "-x", source=SOURCES):
        print("expected the named tests to pass without a fault, they fail", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(options.jobs) as pool:
        alive = list(pool.map(lambda fault: survives(fault, options.seeds), chosen))
    survivors = [fault for fault, lives in zip(chosen, alive, strict=True) if lives]
    print(f"{len(chosen)} faults, {len(survivors)} survive")
    for fault in survivors:
        print(f"  {fault}")
    return bool(survivors)


def misfit(fault: Fault) -> str:
    """Return why a fault cannot be put in, in words."""
    path = SOURCES / "solarwind" / fault.file
    times = path.read_text().count(fault.text) if path.exists() else 0
    if times == 1:
        try:
            compile(path.read_text().replace(fault.text, fault.instead), fault.file, "exec")
        except SyntaxError as error:
            return f"{fault.file}: expected a program with {fault.instead!r}, got {error}"
        return ""
    where = [
        str(each.relative_to(path.parents[1]))
        for each in sorted(path.parents[1].rglob("*.py"))
        if fault.text in each.read_text()
    ]
    return f"{fault.file}: expected once, got {times} times: {fault.text!r}; it is in {', '.join(where) or 'no file'}"


def survives(fault: Fault, seeds: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        source = Path(folder) / "src"
        shutil.copytree(SOURCES, source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        path = source / "solarwind" / fault.file
        path.write_text(path.read_text().replace(fault.text, fault.instead))
        alive = bool(fault.tests) or not run(SIMULATOR, "--seeds", str(seeds), source=source)
        alive = alive and not run("pytest", *(fault.tests or CORE), "-x", source=source)
    with _said:
        print("SURVIVES" if alive else "noticed ", fault, flush=True)
    return alive


def run(module: str, *arguments: str, source: Path) -> int:
    """Return the exit code of pytest, with the sources from there."""
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", module, *arguments]
    if module == "pytest":
        command += ["-p", "no:cacheprovider", "-m", "long or not long"]
    try:
        return subprocess.run(
            command, cwd=ROOT / "tests", env=environment, capture_output=True, timeout=A_FAULT_S, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return -1


if __name__ == "__main__":
    sys.exit(main())
