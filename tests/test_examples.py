"""The examples do what they say."""

from __future__ import annotations

import importlib.util
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

ROOT = Path(__file__).parent.parent
PATIENCE_S = 300
DUPLICATES = [sys.executable, str(ROOT / "examples" / "duplicates.py")]


def make_tree(folder: Path, copies: int) -> None:
    for number in range(copies):
        (folder / f"same-{number:04}.txt").write_text("the same")
        (folder / f"own-{number:04}.txt").write_text(f"own {number:04}")


def find(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DUPLICATES, str(folder), *options], capture_output=True, text=True, timeout=PATIENCE_S, cwd=folder.parent
    )


def test_duplicates_are_found_and_the_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    make_tree(folder, 30)
    first = find(folder)
    assert first.returncode == 0, first.stderr
    assert "1 group of duplicates wastes 232 bytes." in first.stdout
    assert first.stderr.count("  =  ") == 29
    second = find(folder)
    assert "1 group of duplicates wastes 232 bytes." in second.stdout
    assert "  =  " not in second.stderr, "what was settled is not handled again"
    command = second.stderr.splitlines()[-1].removeprefix("To see in the console what it did: ")
    with subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE, text=True) as console:
        try:
            assert console.stdout is not None
            assert "/console/#token=" in console.stdout.readline()
        finally:
            console.terminate()
    assert console.returncode == 0


@pytest.mark.long
def test_a_file_that_cannot_be_read_is_a_dead_letter_and_stops_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    make_tree(folder, 2)
    done = find(folder)
    assert done.returncode == 0
    missing = find(tmp_path / "nowhere")
    assert missing.returncode == 1
    assert missing.stderr.startswith("expected a folder, got")


def test_the_duplicates_example_searches_the_standard_library_by_default(tmp_path: Path) -> None:
    done = subprocess.run([*DUPLICATES], capture_output=True, text=True, timeout=PATIENCE_S, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("The standard library of this Python.")
    assert " files in " in done.stderr
    assert ".pyc" not in done.stdout


def test_what_is_hidden_installed_or_cached_is_left_out_and_names_are_no_markup(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for place in (
        ".git",
        ".venv/lib",
        "env/lib",
        "__pycache__",
        "node_modules/a",
        "lib/site-packages",
        "[red]a",
        "\x1b[2J",
    ):
        (folder / place).mkdir(parents=True)
        (folder / place / "x[red].txt").write_text("the same")
    (folder / "env" / "pyvenv.cfg").touch()
    done = find(folder)
    assert done.returncode == 0, done.stderr
    assert "2 files in" in done.stderr
    assert done.stderr.count("  =  ") == 1
    for text in (done.stdout, done.stderr):
        assert "[red]a/x[red].txt" in text
        assert "\\x1b[2J/x[red].txt" in text
        assert str(folder) not in text.partition("with another")[2]


def test_paths_are_cut_in_the_middle_and_stay_distinguishable() -> None:
    spec = importlib.util.spec_from_file_location("duplicates", DUPLICATES[1])
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    sys.modules["duplicates"] = example
    spec.loader.exec_module(example)
    terminal = Console(force_terminal=True, width=60)
    long = "/".join(["folder"] * 20)
    for at in range(0, len(long), 7):
        pair = [f"/p/{long[:at]}{each}{long[at:]}" for each in ("1", "22")]
        shown = example.shown(terminal, Path("/p"), pair, 24)
        assert all(len(path) <= 24 for path in shown), shown
        assert len(set(shown)) == 2, shown


@pytest.mark.long
def test_interrupted_it_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    make_tree(folder, 200)
    process = subprocess.Popen([*DUPLICATES, str(folder)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "  =  " in line:  # at work: now
            os.kill(process.pid, signal.SIGINT)
            break
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (0, 130)
    again = find(folder)
    assert again.returncode == 0, again.stderr
    assert "1 group of duplicates wastes 1,592 bytes." in again.stdout


def test_a_registered_exchange_chooses_the_instances(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "exchange.py")], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert sorted(eval(done.stdout)) == list(range(10)), done.stderr


def test_a_fan_in_happens_once_though_handlers_are_called_again(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "fan_in.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout) == [f"video {number}" for number in range(5)]
    assert "attempt 1 of 12, again" in done.stderr
