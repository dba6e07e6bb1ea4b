"""run --workers: one command, a dispatcher and its workers; who dies comes back, and nobody is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampling import some
from solarwind.cli import supervisor
from solarwind.cli.supervisor import Child

from .conftest import PATIENCE_S, Process, Serving, call, done, eventually

README = Path(__file__).parent.parent.parent / "README.md"

Start = Callable[..., Process]
Write = Callable[[str, str], None]

# Its handler says what it got and in which process, and ends when there is a file that lets it.
APP = r"""
    import os, time
    from pathlib import Path
    from solarwind import SolarWind
    wind = SolarWind()

    @wind.on("t", purpose="p", since="beginning")
    def handle(number: int) -> None:
        os.write(1, f"VERSION got {number} in {os.getpid()}\n".encode())  # in one piece: several share this output
        while not Path("go").exists():
            time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def _app(write: Write) -> None:
    write("app.py", APP)


@pytest.fixture
def go(tmp_path: Path) -> Callable[[], None]:
    """Let handlers end."""
    return (tmp_path / "go").touch


def fire(url: str, *numbers: int) -> None:
    done("fire", "t", "--lines", "--url", url, input="".join(f"{each}\n" for each in numbers))


def state(url: str) -> tuple[int, int]:
    """Return how many events are settled, and how many pend."""
    (found,) = done("purposes", "--url", url, "--json").json
    return found["settled"], found["pending"]


def children(process: Process) -> dict[int, str]:
    """Return its processes, and their command lines, which are not its own any more."""
    parent = process.popen.pid
    found = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    commands = {pid: command(pid) for pid in found if f"SOLARWIND_PARENT={parent}\0" in told(pid)}
    return {pid: words for pid, words in commands.items() if words}


def command(pid: int) -> str:
    return told(pid, "cmdline").replace("\0", " ")


def told(pid: int, what: str = "environ") -> str:
    try:
        return Path(f"/proc/{pid}/{what}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def dispatcher(process: Process) -> int:
    return next(pid for pid, words in children(process).items() if " serve " in words)


def workers(process: Process) -> set[int]:
    return {pid for pid, words in children(process).items() if " run " in words}


def address(process: Process) -> str:
    """Return where its dispatcher is."""
    found = re.search(r"unix:///\S+", process.read_err("serves"))
    assert found is not None
    return found[0]


def token(process: Process) -> str:
    """Return the workers' token, which only its user can read."""
    environment = Path(f"/proc/{workers(process).pop()}/environ")
    assert stat.S_IMODE(environment.stat().st_mode) == 0o400
    found = re.search(r"=(sw_[0-9a-f]+_[\w-]{43})", environment.read_text())
    assert found is not None
    return found[1]


async def kept(child: Child) -> int:
    """Keep it running until it has nothing more to do, and return its exit code."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await child.keep(reloads=False)
    finally:
        child.close()


def ended(pids: set[int]) -> bool:
    return not any(command(pid) for pid in pids)


def got(line: str) -> tuple[int, int]:
    """Return which event was handled, and in which process."""
    words = line.split()
    return int(words[2]), int(words[4])


# --- the work -----------------------------------------------------------------------------------------------


def test_workers_share_the_work_and_leave_when_it_is_done(
    url: str, start: Start, go: Callable[[], None], tmp_path: Path
) -> None:
    fire(url, *range(6))
    process = start("run", "app:wind", "--workers", "3", "--until-settled", "--url", url)
    first = [got(process.read(" got ")) for _ in range(3)]  # each of them has one in hand
    assert len({pid for _, pid in first}) == 3
    everybody = {*children(process)}
    assert len(everybody) == 4
    go()
    answer = process.end()
    assert answer.code == 0
    assert sorted([*(number for number, _ in first), *(got(line)[0] for line in answer.lines)]) == list(range(6))
    assert sum("PURPOSE" in line for line in answer.err.splitlines()) == 1  # said by one for all
    assert ended(everybody)
    assert not (tmp_path / "wind.db-lock").exists()
    assert state(url) == (6, 0)


@pytest.mark.long
def test_how_many_may_come_from_the_environment_and_the_store_from_the_object(
    start: Start, write: Write, go: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("app.py", APP.replace("SolarWind()", "SolarWind('sqlite:///own.db', limits=Limits(payload_bytes=99))")
          .replace("import SolarWind", "import Limits, SolarWind"))  # fmt: skip
    go()
    fire("sqlite:///own.db", 1)
    monkeypatch.setenv("SOLARWIND_WORKERS", "1")
    monkeypatch.setenv("SOLARWIND_PAYLOAD_BYTES", "1")  # is meant for a server of that name, not for this one
    process = start("run", "app:wind")
    process.read("got 1")
    (worker,) = workers(process)
    assert " --workers " not in command(worker)
    assert " --payload-bytes=99 " in command(dispatcher(process))
    process.signal(signal.SIGTERM)
    assert process.end().code == 0
    assert state("sqlite:///own.db") == (1, 0)


@pytest.mark.long
def test_what_is_in_memory_is_shared_too_and_systemd_is_told_when_all_is_ready(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(PATIENCE_S)
        systemd.bind(str(tmp_path / "notify"))
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        process = start("run", "app:wind", "--workers", "2", "--url", "memory://", env=environment)
        at = address(process)
        assert systemd.recv(100) == b"READY=1"
        monkeypatch.setenv("SOLARWIND_TOKEN", token(process))
        fire(at, 1, 2)
        assert len({got(process.read(" got "))[1] for _ in range(2)}) == 2
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):  # whatever its processes said was for it alone
            systemd.recv(100)


@pytest.mark.long
def test_the_readmes_second_page_is_true(serving: Callable[..., Serving], start: Start, write: Write) -> None:
    """All of it, on a port that is free."""
    page = README.read_text().partition("\n## From one process to many\n")[2].partition("\n## ")[0]
    serve, app, run, curl = re.findall(r"^```\w+\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    server = serving(*shlex.split(serve, comments=True)[2:])
    write("app.py", app.replace("ws://127.0.0.1:7400", server.url))
    process = start(*shlex.split(run)[1:])
    process.read_err("app.encode")
    eventually(lambda: [each["instances"] for each in server.ask("GET", "/v1/purposes")[1]["purposes"]] == [4])
    asked = shlex.split(curl.replace("http://127.0.0.1:7400", server.http))
    said = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)
    assert said["accepted"] == 1
    assert process.read("encoding") == "encoding dog.mov\n"
    process.signal(signal.SIGTERM)
    assert process.end().code == 0


@pytest.mark.long
def test_a_server_that_is_named_is_used_and_none_is_started(
    serving: Callable[..., Serving], start: Start, go: Callable[[], None]
) -> None:
    go()
    server = serving()
    fire(server.url, 1)
    process = start("run", "app:wind", "--workers", "2", "--url", server.url)
    process.read("got 1")
    eventually(lambda: len(workers(process)) == 2)
    assert len(children(process)) == 2
    process.signal(signal.SIGTERM)
    assert process.end().code == 0
    assert state(server.url) == (1, 0)


# --- who dies -----------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_started_again_and_its_event_handed_out_again(
    url: str, start: Start, go: Callable[[], None]
) -> None:
    fire(url, 7)
    process = start("run", "app:wind", "--workers", "2", "--url", url)
    _, victim = got(process.read(" got 7"))
    eventually(lambda: len(workers(process)) == 2)
    before = workers(process)
    os.kill(victim, signal.SIGKILL)
    assert "ended by SIGKILL, starting it again" in process.read_err("SIGKILL")
    _, second = got(process.read(" got 7"))
    assert second != victim
    eventually(lambda: len(workers(process) - {victim}) == 2)
    assert len(workers(process) - before) == 1
    go()
    process.signal(signal.SIGTERM)
    assert process.end().code == 0
    assert state(url) == (1, 0)


@pytest.mark.long
def test_a_dispatcher_that_dies_is_started_again_and_the_workers_go_on(
    url: str, start: Start, go: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    go()
    process = start("run", "app:wind", "--workers", "2", "--url", url)
    at = address(process)
    eventually(lambda: len(workers(process)) == 2)
    before, victim = workers(process), dispatcher(process)
    os.kill(victim, signal.SIGKILL)
    assert "the dispatcher ended by SIGKILL" in process.read_err("SIGKILL")
    monkeypatch.setenv("SOLARWIND_TOKEN", token(process))
    fire(at, 1)  # the port never went: whoever connects meanwhile waits
    process.read(" got 1")
    assert workers(process) == before
    assert dispatcher(process) != victim
    process.signal(signal.SIGTERM)
    assert process.end().code == 0
    assert state(url) == (1, 0)


@pytest.mark.long
def test_a_worker_that_ends_early_again_and_again_is_started_after_a_growing_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = Child("worker 1", ["--version"], {**os.environ})
    pauses: list[float] = []

    async def rest(pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 4:
            child.end()

    monkeypatch.setattr(supervisor, "STEADY_S", math.inf)
    monkeypatch.setattr(child, "_rest", rest)
    assert asyncio.run(kept(child)) == 0
    assert pauses == [0.0, 0.5, 1.0, 2.0]


@pytest.mark.long
def test_nobody_is_left_behind_when_it_is_killed(url: str, start: Start, tmp_path: Path) -> None:
    fire(url, 1)
    process = start("run", "app:wind", "--workers", "2", "--url", url)
    process.read(" got 1")
    eventually(lambda: len(children(process)) == 3)
    everybody = {*children(process)}
    process.signal(signal.SIGKILL)
    assert process.end().code == -signal.SIGKILL
    eventually(lambda: ended(everybody))
    assert state(url) == (0, 1)


# --- the end ------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_on_a_signal_the_workers_drain_and_then_the_dispatcher_ends(
    url: str, start: Start, go: Callable[[], None]
) -> None:
    fire(url, 1, 2, 3, 4)
    process = start("run", "app:wind", "--workers", "2", "--url", url)
    for _ in range(2):
        process.read(" got ")
    everybody = {*children(process)}
    process.signal(signal.SIGTERM)
    go()
    answer = process.end()
    assert answer.code == 0
    assert ended(everybody)
    settled, pending = state(url)
    assert settled >= 2
    assert settled + pending == 4


@pytest.mark.long
def test_a_second_signal_ends_the_draining(url: str, start: Start) -> None:
    fire(url, 1)
    process = start("run", "app:wind", "--workers", "2", "--url", url)
    process.read(" got 1")
    process.signal(signal.SIGINT)
    eventually(lambda: len(workers(process)) == 1)  # the one that has nothing to do has left
    process.signal(signal.SIGINT)
    process.read_err("their events are handed out again")
    assert process.end().code == 0
    assert state(url) == (0, 1)


def test_a_child_told_to_end_while_it_starts_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child("the service", ["run", "app:wind", "--url", url], {**os.environ})
    create = asyncio.create_subprocess_exec

    async def create_and_end(*command: str, **how: Any) -> asyncio.subprocess.Process:
        made = await create(*command, **how)
        child.end()
        return made

    monkeypatch.setattr(asyncio, "create_subprocess_exec", create_and_end)
    assert asyncio.run(kept(child)) in (-signal.SIGTERM, 128 + signal.SIGTERM)


# --- what they print ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffered", some([""], ["", "1"]))
def test_a_worker_writes_what_its_handlers_print_a_line_at_a_time(
    url: str, start: Start, write: Write, buffered: str
) -> None:
    write(
        "app.py",
        """
        import sys
        from solarwind import SolarWind
        wind = SolarWind()
        @wind.on("t", purpose="p", since="beginning")
        def handle(number: int) -> None:
            print("got", number, "of", 1)
            print("got", number, "of", 1, file=sys.stderr)
        """,
    )
    fire(url, 1)
    environment = {**os.environ, "SOLARWIND_WORKER": "2", "PYTHONUNBUFFERED": buffered}
    out, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # each write to it is a message of its own
    with out, theirs:
        answer = start(
            "run", "app:wind", "--until-settled", "--url", url, env=environment, stdout=theirs, stderr=theirs
        ).end()
        assert answer.code == 0
        out.setblocking(False)
        written = []
        with contextlib.suppress(BlockingIOError):
            while True:
                written.append(out.recv(65_536))
    assert written == [b"got 1 of 1\n"] * 2


# --- who may use the dispatcher -----------------------------------------------------------------------------


def test_the_dispatcher_is_for_the_workers_alone_and_no_list_of_processes_has_the_token(
    url: str, start: Start, tmp_path: Path
) -> None:
    process = start("run", "app:wind", "--workers", "1", "--url", url)
    at = address(process)
    path = Path(at.removeprefix("unix://"))
    assert path.parent.is_relative_to(tempfile.gettempdir())
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path.parent, path)] == [0o700, 0o600]
    assert not listening(dispatcher(process))
    answer = call("topics", "--url", at)
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert "expected a token, got none" in answer.err
    process.read_err("app.handle")
    secret = token(process).split("_", 2)[2]
    for words in children(process).values():
        assert secret not in words
    assert not any(secret.encode() in each.read_bytes() for each in tmp_path.iterdir() if each.is_file())
    process.signal(signal.SIGTERM)
    process.end()
    assert not path.parent.exists()


def listening(pid: int) -> set[str]:
    """Return the sockets of a process that listen on a port."""
    links = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return links & {f"socket:[{words[9]}]" for words in lines if words[3] == "0A"}


def test_a_folder_for_temporary_files_whose_path_is_too_long_for_a_socket_is_refused(
    url: str, start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    process = start("run", "app:wind", "--workers", "1", "--url", url, env={**os.environ, "TMPDIR": str(folder)})
    answer = process.end()
    assert (answer.code, answer.err.count("\n")) == (1, 1), answer
    assert "expected a path of at most 107 bytes for a Unix socket, got " in answer.err
    assert "name that by $TMPDIR" in answer.err
    assert not list(folder.iterdir())


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["0", "-1", "many", "501"])
def test_a_number_that_is_none_is_a_usage_error(number: str) -> None:
    assert call("run", "app:wind", "--workers", number).code == 2


def test_what_cannot_be_imported_is_refused_before_anything_is_started(url: str, start: Start, write: Write) -> None:
    write("app.py", "1 / 0\n")
    answer = start("run", "app:wind", "--workers", "2", "--url", url).end()
    expected = "solarwind: app.py:1: ZeroDivisionError: division by zero, raised while 'app' was imported\n"
    assert (answer.code, answer.out, answer.err) == (1, "", expected)


@pytest.mark.long
def test_a_store_in_use_is_refused_once(held: Process, url: str, start: Start) -> None:
    answer = start("run", "app:wind", "--workers", "3", "--url", url).end()
    assert (answer.code, answer.err.count("\n")) == (1, 1), answer
    assert f"in use by process {held.popen.pid}" in answer.err


@pytest.mark.long
def test_a_statement_that_all_workers_would_make_in_vain_is_refused_once(url: str, start: Start, write: Write) -> None:
    done("fire", "t", "--url", url)
    done("purposes", "--url", url)
    listening = start("listen", "t", "--purpose", "p", "--exchange", "keyed", "--since", "beginning", "--url", url)
    listening.read(" null")
    listening.signal(signal.SIGTERM)
    assert listening.end().code == 0
    answer = start("run", "app:wind", "--workers", "3", "--url", url).end()
    refusals = [line for line in answer.err.splitlines() if line.startswith("solarwind: ")]
    assert answer.code == 1
    assert len(refusals) == 1
    assert "keyed" in refusals[0]


@pytest.mark.long
def test_a_worker_that_cannot_start_while_others_are_at_work_is_tried_again(
    url: str, start: Start, write: Write
) -> None:
    """A server that goes away just when the second one comes is no reason for the first one to end."""
    write(
        "app.py",
        r"""
        import os
        from solarwind import SolarWind
        if os.environ.get("SOLARWIND_WORKER") == "2" and not os.path.exists("tried"):
            open("tried", "w").close()
            raise RuntimeError("not yet")
        os.write(1, f"worker {os.environ.get('SOLARWIND_WORKER')} is here\n".encode())
        wind = SolarWind()
        @wind.on("t")
        def handle(payload: int) -> None: ...
        """,
    )
    process = start("run", "app:wind", "--workers", "2", "--url", url)
    process.read("worker 1 is here")
    process.read("worker 2 is here")
    process.signal(signal.SIGTERM)
    assert process.end().code == 0


@pytest.mark.long
def test_a_server_that_is_not_there_is_refused_once(start: Start) -> None:
    answer = start("run", "app:wind", "--workers", "3", "--url", "ws://127.0.0.1:1").end()
    assert answer.code == 1
    assert answer.err.splitlines()[-1].startswith("solarwind: expected a server at ws://127.0.0.1:1, got")
    assert answer.err.count("expected a server") == 1


# --- with other options -------------------------------------------------------------------------------------


@pytest.mark.long
def test_workers_with_json_log_only_json(url: str, start: Start, write: Write, go: Callable[[], None]) -> None:
    go()
    done("fire", "t", '"no number"', "--url", url)
    process = start("run", "app:wind", "--workers", "2", "--url", url, "--json")
    warning = json.loads(process.read_err("rejected"))
    assert warning["worker"] in (1, 2)
    os.kill(workers(process).pop(), signal.SIGKILL)
    assert json.loads(process.read_err("SIGKILL"))["level"] == "warning"
    process.signal(signal.SIGTERM)
    answer = process.end()
    assert answer.code == 0
    for line in answer.err.splitlines():
        json.loads(line)


@pytest.mark.long
def test_reload_starts_all_workers_anew_and_leaves_the_dispatcher(
    url: str, start: Start, write: Write, go: Callable[[], None]
) -> None:
    go()
    write("app.py", APP.replace("VERSION", "first"))
    process = start("run", "app:wind", "--workers", "2", "--reload", "--url", url)
    process.read_err("app.handle")
    eventually(lambda: len(workers(process)) == 2)
    before, dispatches = workers(process), dispatcher(process)
    write("app.py", APP.replace("VERSION", "other"))
    process.read_err("app.py changed, restarting")
    process.read_err("app.handle")
    eventually(lambda: len(workers(process) - before) == 2 and not before & workers(process))
    assert dispatcher(process) == dispatches
    process.signal(signal.SIGTERM)
    assert process.end().code == 0
