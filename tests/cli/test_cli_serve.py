"""serve: what it refuses to start with, what each option does, and how it ends."""

from __future__ import annotations

import inspect
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer.main

from solarwind import Limits
from solarwind.cli import app
from solarwind.extras import install
from solarwind.server import Settings

from .conftest import PATIENCE_S, Answer, Process, Serving, call, done, eventually

Serve = Callable[..., Serving]
Start = Callable[..., Process]


# --- its life -----------------------------------------------------------------------------------------------


def test_it_serves_a_file_here_unless_told_otherwise_until_a_signal(serving: Serve, tmp_path: Path) -> None:
    server = serving()
    assert server.what == str(tmp_path / "wind.db")
    done("fire", "t", "1", "--url", server.url)
    assert server.ask("GET", "/healthz") == (200, {"status": "alive"})
    server.process.signal(signal.SIGTERM)
    answer = server.process.end()
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    assert done("topics", "--url", "sqlite:///wind.db", "--json").json[0]["fired"] == 1


def test_a_second_signal_ends_it_though_somebody_is_not_done(serving: Serve) -> None:
    server = serving("--engine", "memory://")
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(b"POST /v1/topics/t/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n[")
        eventually(lambda: server.ask("GET", "/healthz")[0] == 200)
        server.process.signal(signal.SIGTERM)
        eventually(lambda: not accepts(server.port), "the port to be closed")
        assert server.process.popen.poll() is None
        server.process.signal(signal.SIGINT)
        server.process.read_err("without waiting")
        assert server.process.end().code == 0


def test_a_server_that_stops_waits_as_long_as_grace_says(serving: Serve) -> None:
    server = serving("--engine", "memory://", "--grace", "0.1")
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(b"POST /v1/topics/t/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n[")
        eventually(lambda: server.ask("GET", "/healthz")[0] == 200)
        server.process.signal(signal.SIGTERM)
        assert "did not finish within 0.1 s" in server.process.read_err("did not finish")
        assert server.process.end().code == 0


def test_an_address_that_is_not_this_machines_is_refused_with_host_as_the_way_out() -> None:
    answer = call("serve", "--engine", "memory://", "--host", "192.0.2.1", "--port", "0", "--insecure")
    assert answer.code == 1
    assert answer.err.endswith("(Cannot assign requested address): name an address of this machine with --host\n")


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
    except OSError:
        return False
    return True


def test_it_tells_systemd_when_it_is_ready_and_when_it_stops(serving: Serve, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(PATIENCE_S)
        systemd.bind(str(tmp_path / "notify"))
        server = serving("--engine", "memory://", env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert systemd.recv(100) == b"READY=1"
        server.process.signal(signal.SIGTERM)
        assert systemd.recv(100) == b"STOPPING=1"


def test_a_socket_that_it_inherits_outlives_it(serving: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        first = serving("--fd", str(number), pass_fds=[number])
        assert first.port == listening.getsockname()[1]
        done("fire", "t", "--url", first.url)
        first.process.signal(signal.SIGTERM)
        assert first.process.end().code == 0
        with socket.create_connection(("127.0.0.1", first.port), timeout=PATIENCE_S) as early:
            early.sendall(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            serving("--fd", str(number), pass_fds=[number])
            assert b"200 OK" in early.recv(100)


# --- what it refuses ----------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[[str], Path]:
    """Make a certificate of one's own for localhost, with its key beside it."""

    def make(name: str) -> Path:
        path = tmp_path / f"{name}.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                   "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout",
                   str(path.with_suffix(".key")), "-out", str(path)]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        return path

    return make


@pytest.fixture
def refused() -> Callable[..., str]:
    """What `serve` says on its one line, and is over."""

    def refused(*options: str) -> str:
        port = [] if {"--port", "--fd"} & {*options} else ["--port", "0"]
        answer: Answer = call("serve", *port, *options)
        assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1), answer
        assert answer.err.startswith("solarwind: ")
        return answer.err

    return refused


def test_serve_refuses_a_port_in_use_in_one_line(refused: Callable[..., str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--port", str(port))
        assert f"expected to listen on 127.0.0.1 port {port}" in said
        assert "--port" in said
    assert not (tmp_path / "wind.db-lock").exists()


def test_serve_refuses_a_store_in_use_in_one_line(refused: Callable[..., str], serving: Serve, tmp_path: Path) -> None:
    server = serving("--data", "other wind.db")
    assert server.what == str(tmp_path / "other wind.db")
    said = refused("--data", "other wind.db")
    assert f"in use by process {server.process.popen.pid} (" in said
    assert "solarwind serve --data" in said


BAD: dict[str, tuple[list[str], str]] = {
    "no certificate there": (["--cert", "none.pem"], "but none.pem cannot be read"),
    "an invalid certificate": (["--cert", "garbage"], "not encrypted, as PEM files, got garbage"),
    "a key without a certificate": (["--cert-key", "garbage"], "name it with --cert"),
    "everybody, without tokens and TLS": (["--host", "0.0.0.0"], "got no tokens and no TLS"),
    "everybody, by both protocols": (["--host", "::"], "got no tokens and no TLS"),
    "no host": (["--host", ""], "expected an address of this machine as --host, got ''"),
    "an invalid host": (["--host", "no host"], "expected an address of this machine as --host, got 'no host'"),
    "no tokens there": (["--tokens", "none"], "expected a file of tokens at none, which cannot be opened"),
    "tokens that all may read": (["--tokens", "garbage"], "chmod 600 it"),
    "invalid tokens": (["--tokens", "secret"], "expected a file of tokens, but secret is not one"),
    "tokens that are a folder": (["--tokens", "."], "but . is not a file"),
    "an invalid origin": (["--origin", "example.com"], "got 'example.com'"),
    "an invalid name": (["--allow-host", "example.com:80"], "got 'example.com:80'"),
    "an invalid network": (["--webhook-network", "10.0.0.0/99"], "10.0.0.0/99"),
    "an invalid socket": (["--fd", "99"], "expected a listening socket as --fd, got 99"),
    "an invalid URL": (["--engine", "http://x"], "got 'http://x'"),
    "another server": (["--engine", "ws://127.0.0.1:7400"], "expected a store to serve"),
    "a folder": (["--data", "."], "is a folder"),
    "no folder": (["--data", "no/wind.db"], "no"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_serve_refuses_invalid_options_in_one_line(refused: Callable[..., str], tmp_path: Path, case: str) -> None:
    (tmp_path / "garbage").write_text("garbage")
    (tmp_path / "secret").write_text("garbage")
    (tmp_path / "secret").chmod(0o600)
    options, words = BAD[case]
    assert words in refused(*options)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["garbage", "secret"]


USAGE: dict[str, list[str]] = {
    "no such port": ["--port", "65536"],
    "no ids": ["--ids", "0"],
    "no time": ["--idle-s", "0"],
    "a socket that is no socket": ["--fd", "1"],
    "two stores": ["--engine", "memory://", "--data", "wind.db"],
    "two addresses": ["--fd", "9", "--host", "127.0.0.1"],
    "two ports": ["--fd", "9", "--port", "80"],
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_is_another_exit_code(case: str) -> None:
    assert call("serve", *USAGE[case]).code == 2


def test_with_tokens_and_tls_others_may_reach_it(
    serving: Serve, certificate: Callable[[str], Path], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = certificate("one")
    tls = ["--cert", str(made), "--cert-key", str(made.with_suffix(".key"))]
    assert "got no tokens:" in refused("--host", "0.0.0.0", *tls)
    token = done("token", "create", "all", "--fire", "*", "--listen", "*", "--admin", "--json").json["token"]
    assert "got no TLS:" in refused("--host", "0.0.0.0")
    server = serving("--host", "0.0.0.0", *tls)
    assert server.url == f"wss://0.0.0.0:{server.port}"
    monkeypatch.setenv("SSL_CERT_FILE", str(made))
    monkeypatch.setenv("SOLARWIND_TOKEN", token)
    assert done("fire", "t", "--url", f"wss://localhost:{server.port}").out


def test_serve_with_insecure_warns_that_anybody_may_connect(serving: Serve, start: Start) -> None:
    process = start("serve", "--engine", "memory://", "--host", "0.0.0.0", "--port", "0", "--insecure")
    process.read_err("may fire, listen and operate without a token")
    process.read_err("can read and change messages")
    assert process.read_err("serves").startswith("solarwind serves memory:// on ws://0.0.0.0:")


# --- without what a server needs ----------------------------------------------------------------------------

# Python as it is where only `pip install solarwind` was run.
PLAIN = """
import sys
extra = "starlette", "uvicorn", "websockets", "httpx", "httpcore", "h11", "prometheus_client"
sys.modules.update(dict.fromkeys(extra))
from solarwind import SolarWind
from solarwind.cli import main
main()
"""


@pytest.mark.long
def test_without_the_extra_its_commands_say_what_to_install_and_the_others_work(url: str) -> None:
    def plain(*arguments: str) -> Answer:
        ended = subprocess.run([sys.executable, "-c", PLAIN, *arguments], capture_output=True, text=True, check=False)
        return Answer(ended.returncode, ended.stdout, ended.stderr)

    assert plain("serve", "--help").code == 0
    assert plain("fire", "t", "--url", url).code == 0
    for command in (["serve"], ["token", "list"], ["topics"]):
        answer = plain(*command)
        assert (answer.code, answer.err.count("\n")) == (1, 1), answer
        assert f"run {install('server')}" in answer.err


# --- what its options do ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Settings, Limits])
def test_each_limit_is_an_option_that_states_its_default(kind: type[Any]) -> None:
    options = {each.name: each for each in typer.main.get_command(app).commands["serve"].params}  # type: ignore[attr-defined]
    usual = kind()
    for name in {*kind.__struct_fields__} - {"depth"}:  # which counts where a handler fires, and a server has none
        assert options[name].help.endswith(f": {getattr(usual, name):,.16g}."), name


def test_each_limit_that_is_given_is_the_one_that_holds() -> None:
    from solarwind.cli import serve

    names = (*Settings.__struct_fields__, *Limits.__struct_fields__)
    given = {name: number for number, name in enumerate(names, 1)}
    others: dict[str, Any] = dict.fromkeys(set(inspect.signature(serve.serve).parameters) - {*names, "context"})
    service = serve.Service(others | {"engine": "memory://", "host": "127.0.0.1", "port": 0, "grace": 0.0} | given)
    server = service._server
    assert {name: getattr(server.host.settings, name) for name in Settings.__struct_fields__} | {
        name: getattr(server.wind.limits, name) for name in Limits.__struct_fields__
    } == given


def test_a_limit_that_is_given_is_kept(serving: Serve) -> None:
    server = serving("--engine", "memory://", "--payload-bytes", "10", "--names", "1", "--ids", "2", "--nesting", "3",
                     "--body-bytes", "100", "--header-bytes", "1000")  # fmt: skip
    events = "/v1/topics/t/events"
    assert "at most 10 bytes" in call("fire", "t", '"0123456789"', "--url", server.url).err
    assert server.ask("POST", events, "x" * 20)[1]["code"] == "too-large"
    assert server.ask("POST", events, "x" * 200)[0] == 413
    assert "at most 3 deep" in server.ask("POST", events, [[[[]]]])[1]["detail"]
    assert server.ask("GET", "/healthz", header="x" * 2000)[0] == 431
    assert "2" in server.ask("POST", "/v1/topics/t/purposes/p/take", {"max": 3})[1]["detail"]
    assert server.ask("POST", events, 1)[0] == 202
    assert "no more than 1 topics" in call("listen", "other", "--purpose", "p", "--url", server.url).err


def test_a_client_that_does_not_authenticate_is_disconnected(serving: Serve) -> None:
    server = serving("--engine", "memory://", "--authenticate-s", "0.2", "--connections", "1")
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)) as silent:
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)) as second:
            assert second.recv(1) == b""
        assert silent.recv(1) == b""


def test_a_connection_may_rest_only_so_long(serving: Serve) -> None:
    server = serving("--engine", "memory://", "--idle-s", "0.2")
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)) as resting:
        resting.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = b""
        while part := resting.recv(1 << 12):
            answer += part
        assert b"alive" in answer


def test_only_names_and_origins_that_are_allowed_get_in(serving: Serve) -> None:
    usual = serving("--engine", "memory://")
    other = serving("--engine", "memory://", "--allow-host", "wind.example", "--origin", "https://app.example")
    for host, status in ((usual, 403), (other, 200)):
        assert host.ask("GET", "/v1/topics", host="wind.example")[0] == status
    assert other.ask("GET", "/v1/topics", host="localhost")[0] == 403
    for origin, status in (("https://app.example", 200), ("https://evil.example", 403)):
        assert other.ask("GET", "/v1/topics", host="wind.example", origin=origin)[0] == status
    assert usual.ask("GET", "/v1/topics", origin="https://app.example")[0] == 403


def test_webhooks_go_to_a_network_that_is_allowed_and_say_whose_they_are(serving: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as target:
        target.settimeout(PATIENCE_S)
        url = {"url": f"http://127.0.0.1:{target.getsockname()[1]}/hook"}
        where = "/v1/topics/t/purposes/p/webhooks/w"
        status, said = serving("--engine", "memory://").ask("PUT", where, url)
        assert (status, said["code"]) == (403, "not-allowed"), said
        server = serving(
            "--engine", "memory://", "--webhook-network", "127.0.0.0/8", "--webhook-origin", "wind.example"
        )
        with closing(socket.create_connection(("127.0.0.1", server.port))) as asking:
            body = json.dumps(url).encode()
            head = f"PUT {where} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            asking.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
            asked, _ = target.accept()
            with asked:
                said = asked.recv(1 << 16).lower()
                assert said.startswith(b"options /hook")
                assert b"webhook-request-origin: wind.example\r\n" in said


def test_a_certificate_is_read_anew_on_sighup(serving: Serve, certificate: Callable[[str], Path]) -> None:
    first, second = certificate("first"), certificate("second")
    server = serving("--engine", "memory://", "--cert", str(first), "--cert-key", str(first.with_suffix(".key")))

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", server.port))

    assert shown() == first.read_text()
    first.write_text("garbage")
    server.process.signal(signal.SIGHUP)
    server.process.read_err("the former certificate stays in use")
    assert shown() != second.read_text()
    second.rename(first)
    second.with_suffix(".key").rename(first.with_suffix(".key"))
    server.process.signal(signal.SIGHUP)
    server.process.read_err("the certificate was read anew")
    assert shown() == first.read_text()
