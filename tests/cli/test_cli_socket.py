"""serve --socket: a server at a Unix socket, who gets there, and what becomes of its file."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from solarwind import Unavailable
from solarwind.origin import user_of
from solarwind.server.unix_socket import UnixSocket

from .conftest import PATIENCE_S, Process, Serving, call, done, eventually

Serve = Callable[..., Serving]
Start = Callable[..., Process]
NOBODY = 65_534
AS_NOBODY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a socket: the names of tests would make one too long."""
    return tmp_path_factory.mktemp("s") / "wind.sock"


@pytest.fixture
def url(path: Path) -> str:
    return f"unix://{path}"


def curl(path: Path, *arguments: str) -> Any:
    """Return what a client that knows only HTTP is answered at a socket."""
    command = ["curl", "--silent", "--show-error", "--max-time", str(PATIENCE_S), "--unix-socket", str(path)]
    said = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout
    return json.loads(said) if said else None


def listens(process: Process) -> set[str]:
    """Return the ports of loopback at which a process listens."""
    links = {os.readlink(each) for each in Path(f"/proc/{process.popen.pid}/fd").iterdir()}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return {words[1] for words in lines if words[3] == "0A" and f"socket:[{words[9]}]" in links}


# --- the places ---------------------------------------------------------------------------------------------


def test_a_socket_alone_has_no_port_and_every_command_and_http_go_there(
    serving: Serve, start: Start, path: Path, url: str
) -> None:
    server = serving("--socket", str(path))
    assert (server.unix, server.http) == (url, "")
    assert not listens(server.process)
    done("fire", "t", "1", "--url", url)
    sent = curl(path, "http://localhost/v1/topics/t/events", "--json", "2")
    assert sent["accepted"] == 1
    assert [done("topics", "--url", url, "--json").json[0]["fired"]] == [2]
    listening = start("listen", "t", "--purpose", "p", "--since", "beginning", "--count", "2", "--url", url)
    assert len(listening.end().lines) == 2
    *_, event = curl(path, "http://localhost/v1/topics/t/events")["events"]
    assert event["id"] == sent["ids"][0]
    assert event["source"].startswith(f"//{socket.gethostname()}/")
    server.process.signal(signal.SIGTERM)
    answer = server.process.end()
    assert (answer.code, answer.err) == (0, "")
    assert not path.exists()


@pytest.mark.parametrize("where", ["--port", "--host", "SOLARWIND_PORT"])
def test_a_port_is_there_too_where_it_is_stated(
    where: str, serving: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"--port": ["--port", "0"], "--host": ["--host", "127.0.0.1"]}.get(where, [])
    if where != "--port":  # for --host no free port can be asked for but by the variable
        monkeypatch.setenv("SOLARWIND_PORT", "0")
    server = serving("--socket", str(path), *more, "--engine", "memory://")
    assert len(listens(server.process)) == 1
    done("fire", "t", "--url", server.url)
    done("fire", "t", "--url", server.unix)
    assert server.ask("GET", "/v1/topics")[1]["topics"][0]["fired"] == 2


def test_the_url_may_come_from_the_environment_and_a_path_may_have_any_character(
    serving: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving("--socket", str(path.with_name("a b%ü?#")), "--engine", "memory://")
    monkeypatch.setenv("SOLARWIND_URL", server.unix)
    done("fire", "t")
    assert done("topics", "--json").json[0]["fired"] == 1


def test_a_socket_that_is_inherited_stays_and_is_served_beside_a_port(serving: Serve, path: Path, url: str) -> None:
    with socket.socket(socket.AF_UNIX) as there, socket.create_server(("127.0.0.1", 0)) as port:
        there.bind(str(path))
        there.listen()
        numbers = [there.fileno(), port.fileno()]
        options = [word for each in numbers for word in ("--fd", str(each))]
        server = serving("--engine", "memory://", *options, pass_fds=numbers)
        assert (server.unix, server.port) == (url, port.getsockname()[1])
        done("fire", "t", "--url", server.unix)
        done("fire", "t", "--url", server.url)
        server.process.signal(signal.SIGTERM)
        assert server.process.end().code == 0
    assert path.exists()


def test_the_console_of_a_server_at_a_socket_is_served_on_a_port_with_a_token(
    serving: Serve, start: Start, path: Path, url: str
) -> None:
    serving("--socket", str(path), "--engine", "memory://")
    done("fire", "t", "--url", url)
    shown = start("ui", "--url", url, "--json")
    address = json.loads(shown.read("console"))["console"]
    at, _, token = address.partition("/console/#token=")
    command = ["curl", "--silent", f"{at}/v1/topics"]
    refused = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert refused["code"] == "bad-token"
    command += ["--header", f"Authorization: Bearer {token}"]
    assert json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["topics"][0]["fired"] == 1


# --- who may connect ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "mode"), [((), 0o600), (("--socket-mode", "660"), 0o660)])
def test_the_file_is_its_users_alone_unless_another_mode_is_stated(
    options: tuple[str, ...], mode: int, serving: Serve, path: Path
) -> None:
    serving("--socket", str(path), "--engine", "memory://", *options)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_audit_names_the_user_at_the_other_end(serving: Serve, path: Path, url: str) -> None:
    serving("--socket", str(path))
    done("fire", "t", "--url", url)
    curl(path, "http://localhost/v1/topics/t", "--request", "PUT", "--json", '{"keep": 9}')
    done("topics", "set", "t", "--keep", "2d", "--url", url)
    found = done("audit", "--url", url, "--json").json["audit"]
    assert [each["by"].split(" for ")[0] for each in found] == [user_of(os.geteuid())] * 2


@AS_NOBODY
def test_another_user_has_to_be_let_in_by_the_mode_and_a_token(serving: Serve) -> None:
    """One of another user than the server's and root: without tokens nobody else may do anything."""
    with tempfile.TemporaryDirectory(prefix="solarwind-") as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "s"
        server = serving("--socket", str(path))
        with pytest.raises(PermissionError):
            as_nobody(path)
        path.chmod(0o666)
        status, told = as_nobody(path)
        assert (status, told["code"]) == (403, "not-allowed")
        assert f"expected a client of the server's user, {user_of(os.geteuid())}, or of root" in told["detail"]
        assert f"got one of {user_of(NOBODY)}: make tokens" in told["detail"]
        token = done("token", "create", "shop", "--watch", "--data", server.what, "--json").json["token"]
        assert as_nobody(path)[1]["code"] == "bad-token"
        assert as_nobody(path, authorization=f"Bearer {token}")[0] == 200
        assert call("topics", "--url", server.unix).code == 1  # by now nobody gets in without one


def as_nobody(path: Path, **headers: str) -> tuple[int, Any]:
    """Return the status and the body that another user is answered."""
    connection = http.client.HTTPConnection("localhost")
    with closing(socket.socket(socket.AF_UNIX)) as connection.sock:
        os.seteuid(NOBODY)
        try:
            connection.sock.connect(str(path))
        finally:
            os.seteuid(0)
        connection.request("GET", "/v1/topics", headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


# --- the file -----------------------------------------------------------------------------------------------


def test_a_file_that_a_killed_server_left_is_replaced(serving: Serve, path: Path, url: str) -> None:
    first = serving("--socket", str(path))
    first.process.signal(signal.SIGKILL)
    first.process.end()
    assert path.is_socket()
    refused = call("topics", "--url", url)
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert f"'Connection refused': start one with `solarwind serve --socket {path}`" in refused.err
    serving("--socket", str(path))
    done("fire", "t", "--url", url)


def test_a_client_goes_on_with_the_server_that_takes_the_place_of_a_killed_one(
    serving: Serve, start: Start, path: Path, url: str
) -> None:
    first = serving("--socket", str(path))
    listening = start("listen", "t", "--purpose", "p", "--count", "2", "--url", url)
    eventually(lambda: done("purposes", "--url", url, "--json").json)
    done("fire", "t", "1", "--url", url)
    listening.read("1")
    first.process.signal(signal.SIGKILL)
    first.process.end()
    serving("--socket", str(path))
    done("fire", "t", "2", "--url", url)
    assert listening.end().code == 0


def test_a_socket_that_a_process_listens_at_is_refused_naming_it(serving: Serve, path: Path) -> None:
    server = serving("--socket", str(path))
    answer = call("serve", "--socket", str(path), "--engine", "memory://")
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert f"but process {server.process.popen.pid} (" in answer.err
    assert done("topics", "--url", server.unix, "--json").json == []


REFUSED = {
    "no folder": (lambda path: path / "nowhere" / "s", "as there is no folder "),
    "a file": (lambda path: (path / "f").touch() or path / "f", "there is a file: name another with --socket"),
    "a folder": (lambda path: path, "there is a folder: name another with --socket"),
    "a link": (lambda path: (path / "l").symlink_to("f") or path / "l", "there is a symbolic link: name another"),
    "too long": (lambda path: path / ("x" * 108), "expected a path of at most 107 bytes for a Unix socket, got "),
    "nothing": (lambda path: "", "expected the path of a Unix socket, such as /run/wind.sock, got ''"),
    "a URL": (lambda path: f"unix://{path}/s", "got 'unix:///"),
    "a port": (
        lambda path: "ws://127.0.0.1:7400",
        "got 'ws://127.0.0.1:7400': name it without ws://, or a port with --po",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_path_that_can_be_no_socket_is_refused_and_left_alone(what: str, path: Path) -> None:
    make, said = REFUSED[what]
    before = make(path.parent)
    there = sorted(path.parent.iterdir())
    answer = call("serve", "--socket", str(before), "--engine", "memory://")
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1), answer
    assert said in answer.err
    assert sorted(path.parent.iterdir()) == there


@AS_NOBODY
def test_a_folder_that_belongs_to_others_is_refused() -> None:
    os.seteuid(NOBODY)
    try:
        with pytest.raises(Unavailable, match="as this user may not do so in /run: name a folder of its own with --so"):
            UnixSocket("/run/solarwind-test.sock", 0o600).bind()
    finally:
        os.seteuid(0)


def test_a_file_that_is_another_servers_by_now_is_left_to_it(serving: Serve, path: Path) -> None:
    server = serving("--socket", str(path), "--engine", "memory://")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        server.process.signal(signal.SIGTERM)
        assert server.process.end().code == 0
        assert path.is_socket()


@pytest.mark.parametrize("mode", ["999", "rw", "1777", "60", ""])
def test_a_mode_that_is_none_is_a_usage_error(mode: str, path: Path) -> None:
    assert call("serve", "--socket", str(path), "--socket-mode", mode).code == 2
    assert not path.exists()


def test_a_mode_without_a_socket_is_a_usage_error() -> None:
    assert call("serve", "--engine", "memory://", "--socket-mode", "0660").code == 2


def test_a_certificate_without_a_port_is_refused(path: Path) -> None:
    answer = call("serve", "--socket", str(path), "--cert", "server.pem")
    assert "expected a port for the certificate, got a Unix socket alone" in answer.err


URLS = ["unix://run/s", "unix:/run/s", "unix:run/s", "unix:///", "unix:///run/", "unix:///run/s?x=1", "unix:///run/s#x"]


@pytest.mark.parametrize("wrong", [*URLS, f"unix:///{'x' * 107}"])
def test_a_url_of_no_socket_is_refused_in_one_sentence(wrong: str) -> None:
    answer = call("topics", "--url", wrong)
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert "solarwind: expected " in answer.err
    assert "unix:///run/wind.sock" in answer.err or "/run/wind.sock" in answer.err
    assert answer.err.count(": name ") == 1, "it says once what to do"


@pytest.mark.parametrize(("what", "make"), [("file", Path.touch), ("folder", Path.mkdir)])
def test_what_is_no_socket_at_the_path_of_a_url_is_said_and_not_to_be_served_at(
    what: str, make: Callable[[Path], object], path: Path
) -> None:
    make(path)
    answer = call("topics", "--url", f"unix://{path}")
    assert answer.code == 1
    assert (
        answer.err == f"solarwind: expected a server's socket at unix://{path}, but there is a {what}: name another\n"
    )


def test_a_command_that_a_refusal_names_can_be_copied(path: Path) -> None:
    answer = call("topics", "--url", f"unix://{path.parent}/a%20b")
    assert f"start one with `solarwind serve --socket '{path.parent}/a b'`" in answer.err
