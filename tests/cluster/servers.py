"""Real nats-servers for tests: one, or three that make a cluster; each a process on loopback, with a store of its own.

What is done to them is what befalls servers: they are stopped, killed, held up and started again on the same ports and
the same store. They end with the process that started them, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import nats
from nats.aio.client import Client
from nats.errors import Error, NoRespondersError

from ports import LOOPBACK, Port

PROGRAM = Path(sys.prefix, "bin", "nats-server")
END_S = 10.0  # what is not ended by then is killed
READY_S = 60.0
ANSWER_S = 10.0  # of one request; the servers' own limit for theirs is 4
LOOK_S = 0.01
Settings = dict[str, Any]


class Refused(Exception):
    """JetStream's answer is an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["description"])
        self.code: int = error.get("err_code", error["code"])


class Where:
    """The addresses of a server; `wires.py` has those of one that is in a network of its own."""

    def __init__(self) -> None:
        self.address = self.routes = LOOPBACK  # for clients, and for the other servers
        self._ports = [Port(), Port(), Port()]
        self.port, self.route_port, self.monitor = (each.number for each in self._ports)

    def within(self, command: list[str]) -> list[str]:
        """Return the command that starts it there."""
        return command

    def open_files(self) -> Sequence[int]:
        """Return what such a command needs."""
        return ()

    def close(self) -> None:
        for each in self._ports:
            each.close()


class NatsServer:
    """One node. `settings` are those of nats-server's configuration, by name; `jetstream` those of its block of that
    name, False for none. `folder` has its configuration, its log and its store."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "n1",
        jetstream: Settings | bool = True,
        where: Where | None = None,
        **settings: Any,
    ) -> None:
        self.name = name
        self.where = where or Where()
        self.folder = folder / name
        self.store = self.folder / "store"
        self.log = self.folder / "log"
        self.settings: Settings = {
            "server_name": name,
            "listen": f"{self.where.address}:{self.where.port}",
            "http": f"{self.where.address}:{self.where.monitor}",
            **settings,
        }
        if jetstream:
            given = {} if jetstream is True else jetstream
            self.settings["jetstream"] = {"store_dir": str(self.store), "max_file_store": 8 << 30, **given}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def hosts(self) -> str:
        """As they stand in a URL, with who may enter, where the settings say so."""
        may = self.settings.get("authorization")
        who = f"{may['user']}:{may['password']}@" if may else ""
        return f"{who}{self.where.address}:{self.where.port}"

    def url(self, namespace: str = "", **options: object) -> str:
        return url_of(self.hosts, namespace, options)

    @property
    def urls(self) -> list[str]:
        """For nats-py."""
        return [self.url()]

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start it, and do not wait for it."""
        assert not self.running, f"{self.name} runs"
        # A process ends with the thread that started it, which is what the kernel takes for its parent.
        assert threading.current_thread() is threading.main_thread()
        assert PROGRAM.is_file(), f"expected {PROGRAM}, found nothing: install requirements-dev.txt"
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        config.write_text(json.dumps(self.settings, indent=1))
        setpriv = shutil.which("setpriv")
        assert setpriv, "expected setpriv, found nothing: install util-linux"
        command = [setpriv, "--pdeathsig", "KILL", str(PROGRAM), "--config", str(config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.where.within(command), stdout=log, stderr=log, pass_fds=self.where.open_files()
            )

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        self.launch()
        await self.ready()

    async def ready(self) -> None:
        await holds_within(READY_S, self.healthy, lambda: f"{self.name} to serve; it said:\n{self.said()}")

    async def up(self) -> None:
        """Wait until it can be asked about itself, whatever it may be doing."""
        await holds_within(READY_S, self.answers, lambda: f"{self.name} to answer; it said:\n{self.said()}")

    async def healthy(self) -> bool:
        """Return whether it accepts clients, and all of JetStream that is on it is up to date."""
        assert self.running, f"{self.name} has ended; it said:\n{self.said()}"
        try:
            answer: dict[str, Any] = await self.monitored("healthz")
        except OSError:
            return False
        return bool(answer["status"] == "ok")

    async def answers(self) -> bool:
        assert self.running, f"{self.name} has ended; it said:\n{self.said()}"
        try:
            await self.monitored("varz")
        except OSError:
            return False
        return True

    async def monitored(self, what: str) -> Any:
        """Return what it says of itself: `varz`, `jsz`, `healthz`, `routez`…"""
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(self.where.address, self.where.monitor)
            try:
                writer.write(f"GET /{what} HTTP/1.0\r\n\r\n".encode())
                answer = await reader.read()
            finally:
                writer.close()
        if not answer:
            raise ConnectionError(f"{self.name} ended before it answered")
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    async def stop(self) -> None:
        """Stop it in order, by SIGTERM."""
        if self.running:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await holds_within(END_S, lambda: not self.running, lambda: f"{self.name} to end")
        self.kill()

    def kill(self) -> None:
        """Kill it, which to the process is like a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop the process, which keeps its connections."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def close(self) -> None:
        """Stop it for good."""
        await self.stop()
        self.where.close()


class NatsCluster:
    """Nodes that replicate for each other. `settings` are those of each."""

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 3,
        jetstream: Settings | bool = True,
        places: Sequence[Where] | None = None,
        **settings: Any,
    ) -> None:
        places = places or [Where() for _ in range(nodes)]
        routes = [f"nats://{each.routes}:{each.route_port}" for each in places]
        self.nodes = [
            NatsServer(
                folder,
                name=f"n{number}",
                jetstream=jetstream,
                where=where,
                cluster={"name": "solarwind", "listen": f"{where.routes}:{where.route_port}", "routes": routes},
                **settings,
            )
            for number, where in enumerate(places, 1)
        ]

    def __iter__(self) -> Any:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> NatsServer:
        return next(each for each in self.nodes if each.name == name)

    @property
    def hosts(self) -> str:
        first, *others = (each.hosts for each in self.nodes)
        return ",".join([first, *(each.rpartition("@")[2] for each in others)])

    def url(self, namespace: str = "", **options: object) -> str:
        return url_of(self.hosts, namespace, options)

    @property
    def urls(self) -> list[str]:
        return [each.url() for each in self.nodes]

    async def start(self) -> None:
        """Start the nodes one after the other: those that look for each other all at once may miss their first
        election, and hold the next one only seconds later."""
        for each in self.nodes:
            each.launch()
            await each.up()
        await self.ready()

    async def ready(self) -> None:
        """Wait until all nodes are up to date, and a stream on all of them can be made."""
        await asyncio.gather(*(each.ready() for each in self.nodes))
        await holds_within(READY_S, self._replicates, lambda: "the cluster to replicate a stream")

    async def _replicates(self) -> bool:
        probe = {"name": "READY", "subjects": ["ready"], "num_replicas": len(self.nodes)}
        try:
            async with connected(self.urls) as client:
                await ask(client, "STREAM.CREATE.READY", probe)
                await ask(client, "STREAM.DELETE.READY")
        except (Error, OSError, TimeoutError, Refused):
            return False
        return True

    async def stop(self) -> None:
        await asyncio.gather(*(each.stop() for each in self.nodes))

    def kill(self) -> None:
        for each in self.nodes:
            each.kill()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def close(self) -> None:
        await asyncio.gather(*(each.close() for each in self.nodes))

    async def leader(self, stream: str) -> NatsServer | None:
        """Return the node that leads it, as those who can be asked know; None where they do not."""
        try:
            async with connected(self.urls) as client:
                about = await ask(client, f"STREAM.INFO.{stream}")
        except (Error, OSError, TimeoutError, Refused):
            return None
        name = about["cluster"].get("leader")
        return self[name] if name else None

    async def first(self) -> NatsServer | None:
        """Return the node that leads the cluster itself: it decides about streams, consumers and nodes."""
        for each in self.nodes:
            if each.running:
                with contextlib.suppress(OSError, TimeoutError):
                    name = (await each.monitored("jsz"))["meta_cluster"].get("leader")
                    if name:
                        return self[name]
        return None


def url_of(hosts: str, namespace: str, options: dict[str, object]) -> str:
    query = f"?{urlencode(options)}" if options else ""
    return f"nats://{hosts}/{namespace}{query}" if namespace or query else f"nats://{hosts}"


async def holds_within(
    seconds: float, condition: Callable[[], bool | Awaitable[bool]], what: Callable[[], str]
) -> None:
    """Like `until` of the contract, for what takes servers longer than a test may wait for anything else."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                held = condition()
                if held is True or (held is not False and await held):
                    return
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise TimeoutError(f"waited {seconds:g} s in vain for {what()}") from None


@contextlib.asynccontextmanager
async def connected(urls: list[str]) -> AsyncIterator[Client]:
    """Yield a client that says once what is wrong, and does not try again."""
    client = await nats.connect(urls, allow_reconnect=False, connect_timeout=1, error_cb=_said_elsewhere)
    try:
        yield client
    finally:
        await client.close()


async def _said_elsewhere(_: Exception) -> None:
    """Whatever is wrong, the request fails by it."""


async def ask(client: Client, subject: str, body: object = None) -> dict[str, Any]:
    """Send a request to JetStream's own interface, and return the answer."""
    message = await client.request(
        f"$JS.API.{subject}", b"" if body is None else json.dumps(body).encode(), timeout=ANSWER_S
    )
    answer: dict[str, Any] = json.loads(message.data)
    if "error" in answer:
        raise Refused(answer["error"])
    return answer


async def streams(client: Client) -> list[str]:
    """Return the names of all, buckets included."""
    found: list[str] = []
    for _ in itertools.count():
        answer = await ask(client, "STREAM.NAMES", {"offset": len(found)})
        found += answer["streams"] or []
        if len(found) >= answer["total"]:
            return found
    raise AssertionError


async def remove(urls: list[str], namespace: str) -> None:
    """Remove everything that a namespace has on a server. Without JetStream it has nothing."""
    async with connected(urls) as client:
        try:
            found = await streams(client)
        except NoRespondersError:
            return
        prefix, bucket = f"SOLARWIND_{namespace}_", f"KV_SOLARWIND_{namespace}"
        gone = [each for each in found if each.startswith(prefix) or each == bucket]
        await asyncio.gather(*(ask(client, f"STREAM.DELETE.{each}") for each in gone))
