"""The examples do what they say."""

from __future__ import annotations

import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from rich.console import Console

from sampling import some

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


def eventually(ask: Callable[[], Any], what: str) -> None:
    """Wait until the answer is something."""
    end = time.monotonic() + PATIENCE_S
    while not ask():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.2)


@pytest.mark.parametrize("number", some([signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]))
def test_the_demonstration_has_one_of_each_to_look_at_and_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, str(ROOT / "examples" / "video.py"), "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as demo:
        try:
            assert demo.stdout is not None
            assert demo.stdout.readline() == f"Its data is in {tmp_path}/.demo. Ctrl-C ends it.\n"
            address = urlsplit(demo.stdout.readline().strip())
            assert address.path == "/console/"
            headers = {"authorization": f"Bearer {address.fragment.removeprefix('token=')}"}
            with httpx.Client(base_url=f"http://{address.netloc}", headers=headers, timeout=PATIENCE_S) as http:
                if number == signal.SIGINT:
                    look_at_the_demonstration(lambda path: http.get(path).json())
        finally:
            demo.send_signal(number)
            _, said = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, said
    assert "fired" not in said
    assert [each.name for each in tmp_path.iterdir()] == [".demo"]
    assert (tmp_path / ".demo" / "wind.db").exists()


def look_at_the_demonstration(get: Callable[[str], Any]) -> None:
    """Wait until the facts of the console have one of each."""

    def purposes() -> dict[str, Any]:
        return {each["purpose"]: each for each in get("/v1/purposes")["purposes"]}

    eventually(lambda: len(purposes()) == 9, "all purposes")
    encode = purposes()["Encode video"]
    assert dict(zip(encode["versions"], encode["version_states"], strict=True)) == {1: "current", 2: "ramping 20 %"}
    assert {each["exchange"] for each in purposes().values()} == {"direct", "keyed", "fanout"}
    eventually(lambda: purposes()["Make thumbnail"]["dead"] and purposes()["Check rights"]["dead"], "dead letters")
    eventually(lambda: purposes()["Publish"]["retried"], "a retry")
    rollout = "/v1/topics/video.uploaded/purposes/Encode%20video/rollout"
    eventually(lambda: all(each["handled"] for each in get(rollout)["versions"]), "events of both versions")
    eventually(lambda: get("/v1/delayed")["delayed"], "a delayed event")
    assert {each["name"] for each in get("/v1/schedules")["schedules"]} == {"nightly report", "report of the minute"}
    event = get("/v1/topics/subscriber.told/events?limit=1")["events"][0]
    chain = [each["type"] for each in get(f"/v1/trace/{event['correlationid']}")["events"]]
    assert {"video.uploaded", "video.encoded", "video.published", "subscriber.told"} <= set(chain)
    before = get("/v1/topics/video.uploaded")["fired"]
    eventually(lambda: get("/v1/topics/video.uploaded")["fired"] > before, "more of it")


def test_the_demonstration_says_why_it_cannot_start(tmp_path: Path) -> None:
    (tmp_path / ".demo" / "wind.db").mkdir(parents=True)
    command = [sys.executable, str(ROOT / "examples" / "video.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "wind.db" in done.stderr
