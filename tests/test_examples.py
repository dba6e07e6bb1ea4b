"""The examples do what they say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DUPLICATES = [sys.executable, str(ROOT / "examples" / "duplicates.py")]


def make_tree(folder: Path, copies: int) -> None:
    for number in range(copies):
        (folder / f"same-{number:04}.txt").write_text("the same")
        (folder / f"own-{number:04}.txt").write_text(f"own {number:04}")


def find(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DUPLICATES, str(folder), *options], capture_output=True, text=True, timeout=60, cwd=folder.parent
    )


def test_duplicates_are_found_and_the_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    make_tree(folder, 30)
    first = find(folder)
    assert first.returncode == 0, first.stderr
    assert "1 groups of duplicates waste 232 bytes." in first.stdout
    assert first.stderr.count("  =  ") == 29
    second = find(folder)
    assert "1 groups of duplicates waste 232 bytes." in second.stdout
    assert "  =  " not in second.stderr, "what was settled is not handled again"


def test_a_file_that_cannot_be_read_is_a_dead_letter_and_stops_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    make_tree(folder, 2)
    done = find(folder)
    assert done.returncode == 0
    missing = find(tmp_path / "nowhere")
    assert missing.returncode == 1
    assert missing.stderr.startswith("expected a folder, got")


def test_interrupted_it_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    make_tree(folder, 600)
    process = subprocess.Popen([*DUPLICATES, str(folder)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "  =  " in line:  # at work: now
            os.kill(process.pid, signal.SIGINT)
            break
    process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    again = find(folder)
    assert again.returncode == 0, again.stderr
    assert "1 groups of duplicates waste 4,792 bytes." in again.stdout


def test_an_exchange_of_ones_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "exchange.py")], capture_output=True, text=True, timeout=60
    )
    assert sorted(eval(done.stdout)) == list(range(10)), done.stderr
