"""The servers that the benchmarks talk to: each listens on loopback, on a port that the system chose, stores in a
folder of its own, and ends with the `with`."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, TypeVar
from urllib.request import urlopen

sys.path.append(str(Path(__file__).parent.parent / "tests"))
if TYPE_CHECKING:
    from outbox.postgres import Postgres

T = TypeVar("T")

START_S = 120.0
RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one on the PATH runs as another user, with a fixed folder
STOP_S = 60.0

NATS = """
host: 127.0.0.1
port: -1
ports_file_dir: {folder!r}
max_connections: 100000
max_pending: 1073741824  # bytes that it keeps for a consumer that is behind, before it cuts it off
"""
JETSTREAM = """
jetstream {{ store_dir: {folder!r}, max_file_store: 50GB, sync_interval: {sync} }}
"""
NODE = """
server_name: n{number}
http: 127.0.0.1:{monitor}
cluster {{ name: bench, listen: "127.0.0.1:{route}", routes: {routes} }}
"""


@dataclass
class Server:
    url: str
    pid: int
    others: tuple[int, ...] = ()  # the pids of a cluster's other nodes

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def program(name: str) -> str | None:
    """Return the path of a program: beside this Python, or where the shell finds it."""
    return shutil.which(name, path=os.path.dirname(sys.executable)) or shutil.which(name)


@contextmanager
def nats(
    folder: str, *, jetstream: bool = False, sync_always: bool = False, there: str | None = None
) -> Iterator[Server]:
    """Run a NATS server with its defaults: JetStream syncs what it wrote every two minutes."""
    with new_folder(folder, there) as path:
        config = Path(path, "nats.conf")
        config.write_text((NATS + JETSTREAM * jetstream).format(folder=path, sync="always" if sync_always else "2m"))
        with _started([_found("nats-server"), "-c", str(config)], path) as process:
            url = _wait(process, path, lambda: _nats_url(Path(path)))
            yield Server(url, process.pid)


def _nats_url(folder: Path) -> str | None:
    for file in folder.glob("*.ports"):
        with suppress(ValueError):  # it is just being written
            return str(json.loads(file.read_text())["nats"][0])
    return None


@contextmanager
def nats_cluster(folder: str, nodes: int = 3) -> Iterator[Server]:
    """Run JetStream on nodes that replicate for each other, with NATS's defaults. The URL has them all."""
    routes = [_free_port() for _ in range(nodes)]
    urls, monitors = [], []
    with ExitStack() as stack:
        for number, route in enumerate(routes, 1):
            path, monitor = stack.enter_context(new_folder(folder)), _free_port()
            config = Path(path, "nats.conf")
            others = json.dumps([f"nats://127.0.0.1:{each}" for each in routes])
            text = NATS + JETSTREAM + NODE
            config.write_text(
                text.format(folder=path, sync="2m", number=number, monitor=monitor, route=route, routes=others)
            )
            process = stack.enter_context(_started([_found("nats-server"), "-c", str(config)], path))
            urls.append(_wait(process, path, partial(_nats_url, Path(path))))
            monitors.append((process, path, monitor))
        for process, path, monitor in monitors:
            _wait(process, path, partial(_replicates, monitor, nodes))
        first, *others = (process.pid for process, _, _ in monitors)
        yield Server("nats://" + ",".join(url.removeprefix("nats://") for url in urls), first, tuple(others))


def _replicates(monitor: int, nodes: int) -> bool:
    """Return whether a node knows the leader and all the others."""
    try:
        with urlopen(f"http://127.0.0.1:{monitor}/jsz") as answer:
            meta = json.load(answer).get("meta_cluster", {})
    except OSError:
        return False
    return bool(meta.get("leader")) and meta.get("cluster_size") == nodes


@contextmanager
def redis(folder: str, sync: str = "everysec", there: str | None = None) -> Iterator[Server]:
    """Run a Redis that appends each write to a file, and syncs it each second, or `always` before it answers."""
    with new_folder(folder, there) as path:
        port = _free_port()
        options = {"bind": "127.0.0.1", "port": port, "dir": path, "save": "", "maxclients": 20_000}
        options |= {"appendonly": "yes", "appendfsync": sync}
        command = [_found("redis-server"), *(word for name in options for word in (f"--{name}", str(options[name])))]
        with _started(command, path) as process:
            _wait(process, path, lambda: _listens(port))
            yield Server(f"redis://127.0.0.1:{port}", process.pid)


@contextmanager
def beanstalkd(folder: str) -> Iterator[Server]:
    """Run a beanstalkd that appends each job to a file, and syncs it each 50 ms, which is its default."""
    with new_folder(folder) as path:
        port = _free_port()
        with _started([_found("beanstalkd"), "-l", "127.0.0.1", "-p", str(port), "-b", path], path) as process:
            _wait(process, path, lambda: _listens(port))
            yield Server(f"beanstalk://127.0.0.1:{port}", process.pid)


@contextmanager
def rabbitmq(folder: str) -> Iterator[Server]:
    """Run a RabbitMQ with its defaults, and the port mapper that it asks for, which would outlive it."""
    with new_folder(folder) as path, ExitStack() as stack:
        port, mapper, distribution = _free_port(), _free_port(), _free_port()
        environment = os.environ | {
            "HOME": path,
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONFIG_FILE": os.path.join(path, "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": os.path.join(path, "plugins"),
            "RABBITMQ_MNESIA_BASE": path,
            "RABBITMQ_LOG_BASE": path,
            "RABBITMQ_LOGS": "-",
        }
        mapping = stack.enter_context(_started([_found("epmd"), "-port", str(mapper)], path, environment))
        _wait(mapping, path, lambda: _listens(mapper))
        process = stack.enter_context(_started([_found(RABBITMQ)], path, environment))
        _wait(process, path, lambda: _listens(port))
        yield Server(f"amqp://guest:guest@127.0.0.1:{port}/%2F", process.pid)


@contextmanager
def postgres(folder: str) -> Iterator[Server]:
    """Run a PostgreSQL that syncs, with an empty database."""
    with postgresql(folder) as server:
        yield Server(server.new(), 0)


@contextmanager
def postgresql(folder: str) -> Iterator[Postgres]:
    """Run a PostgreSQL that syncs, on which new databases can be made."""
    from outbox.postgres import Postgres

    server = Postgres(folder, ("shared_buffers=128MB",))
    try:
        yield server
    finally:
        server.end()


@contextmanager
def nobody(folder: str) -> Iterator[Server]:
    """Yield an address on which one of the peers can listen itself."""
    yield Server(f"tcp://127.0.0.1:{_free_port()}", 0)


@contextmanager
def wind(engine: str, folder: str, scheme: str = "ws") -> Iterator[Server]:
    """Run `solarwind serve` on `sqlite`, a store of its own, or on `memory`. With `unix` as the scheme it listens at a
    Unix socket."""
    with new_folder(folder) as path:
        where = ["--engine", "memory://"] if engine == "memory" else ["--data", os.path.join(path, "wind.db")]
        at, pattern = ["--port", "0"], rf"\b{scheme}://[0-9.]+:[0-9]+"
        if scheme == "unix":
            at, pattern = ["--socket", os.path.join(path, "s")], r"\bunix:///\S+"
        with _started([sys.executable, "-m", "solarwind", "serve", *where, *at], path) as process:
            url = _wait(process, path, lambda: _printed(Path(path, "log"), pattern))
            yield Server(url, process.pid)


@contextmanager
def asgi(application: str, folder: str) -> Iterator[Server]:
    """Run uvicorn with an app of a file that is beside this one."""
    with new_folder(folder) as path:
        command = [sys.executable, "-m", "uvicorn", application, "--port", "0", "--no-access-log"]
        with _started([*command, "--app-dir", os.path.dirname(os.path.abspath(__file__))], path) as process:
            url = _wait(process, path, lambda: _printed(Path(path, "log"), r"\bhttp://[0-9.]+:[0-9]+"))
            yield Server(url, process.pid)


def _printed(log: Path, pattern: str) -> str | None:
    found = re.search(pattern, log.read_text(errors="replace"))
    return found[0] if found else None


def _found(name: str) -> str:
    found = program(name)
    if found is None:
        raise FileNotFoundError(f"expected {name} beside this Python or on the PATH, found it nowhere")
    return found


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def new_folder(folder: str, there: str | None = None) -> Iterator[str]:
    """Yield a new folder, removed afterwards; or the one that is `there`, which stays."""
    path = there or tempfile.mkdtemp(prefix="solarwind-bench-", dir=folder)
    try:
        yield path
    finally:
        if there is None:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _started(
    command: Sequence[str], folder: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, whose output goes to a file `log` in the folder."""
    with open(os.path.join(folder, "log"), "ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=environment
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], folder: str, ask: Callable[[], T | None]) -> T:
    """Ask until there is an answer."""
    until = monotonic() + START_S
    while True:
        found = ask()
        if found:
            return found
        if process.poll() is not None or monotonic() > until:
            said = Path(folder, "log").read_text(errors="replace")
            raise RuntimeError(f"expected {process.args} to start within {START_S:.0f} s; it said:\n{said}")
        sleep(0.02)
