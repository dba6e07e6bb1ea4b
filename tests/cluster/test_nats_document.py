"""docs/NATS.md and deploy/nats.conf: the configurations run, the permissions suffice, the commands parse."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli import conftest as cli
from cli.conftest import Process, Serving, call, done
from ports import LOOPBACK, Port
from solarwind.cluster.address import NamespaceSettings
from solarwind.cluster.layout import Layout
from test_docs import blocks, parse

from .servers import PROGRAM, READY_S, connected, holds_within

ROOT = Path(__file__).parent.parent.parent
DOCUMENT, THREE_NODES = ROOT / "docs" / "NATS.md", ROOT / "deploy" / "nats.conf"
SECRETS = {"NATS_SYS": "sys-secret", "NATS_WIND": "wind-secret"}

_bare_environment, start, serving = cli._bare_environment, cli.start, cli.serving
Run = Callable[..., None]


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[Run]:
    """Start nats-server with a configuration and an environment."""
    running: list[subprocess.Popen[bytes]] = []
    setpriv = shutil.which("setpriv")
    assert setpriv

    def run(text: str, **environment: str) -> None:
        config = tmp_path / f"nats-{len(running)}.conf"
        config.write_text(text)
        log = config.with_suffix(".log").open("wb")
        command = [setpriv, "--pdeathsig", "KILL", str(PROGRAM), "-c", str(config)]
        with log:
            running.append(subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log))

    yield run
    for process in running:
        process.kill()
        process.wait()


def moved(text: str, *places: tuple[str, str]) -> str:
    """Return the configuration with each of these addresses and folders, which stands in it once, in another place."""
    for old, new in places:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def wait_for(*urls: str) -> None:
    async def answers() -> bool:
        try:
            async with connected(list(urls)) as client:
                await client.request("$JS.API.INFO", timeout=1)
        except Exception:
            return False
        return True

    asyncio.run(holds_within(READY_S, answers, lambda: f"{urls} to serve"))


def test_the_documented_configuration_of_one_node_works(nats_server: Run, tmp_path: Path) -> None:
    config = next(block.text for block in blocks(DOCUMENT) if block.language == "conf")
    port, monitor = Port(), Port()
    listen, http = f"{LOOPBACK}:{port.number}", f"{LOOPBACK}:{monitor.number}"
    store = ("/var/lib/nats", str(tmp_path / "store"))
    nats_server(moved(config, (f"{LOOPBACK}:4222", listen), (f"{LOOPBACK}:8222", http), store))
    wait_for(f"nats://{listen}")
    assert done("fire", "t", "1", "--url", f"nats://{listen}").out
    for each in (port, monitor):
        each.close()


@pytest.mark.long
def test_the_documented_configuration_of_three_nodes_works_and_limits_its_users(
    nats_server: Run, tmp_path: Path, serving: Callable[..., Serving], start: Callable[..., Process]
) -> None:
    """The user does what Solar Wind does: fires, owns, hands out across processes, trims, traces. He is told that
    accepted is on disk, so that nothing says that it may not be; and he may delete no stream."""
    nodes = [(f"n{number}", Port(), Port(), Port()) for number in (1, 2, 3)]
    routes = ", ".join(f"nats://{LOOPBACK}:{route.number}" for _, _, route, _ in nodes)
    for name, port, route, monitor in nodes:
        config = moved(
            THREE_NODES.read_text(),
            ("0.0.0.0:4222", f"{LOOPBACK}:{port.number}"),
            ("0.0.0.0:6222", f"{LOOPBACK}:{route.number}"),
            ("127.0.0.1:8222", f"{LOOPBACK}:{monitor.number}"),
            ("nats://n1:6222, nats://n2:6222, nats://n3:6222", routes),
            ("/var/lib/nats", str(tmp_path / name)),
        )
        nats_server(config, NATS_NAME=name, **SECRETS)
    hosts = [f"{LOOPBACK}:{port.number}" for _, port, _, _ in nodes]
    user = f"wind:{SECRETS['NATS_WIND']}@"
    wait_for(*(f"nats://{user}{host}" for host in hosts))
    url = f"nats://{user}{','.join(hosts)}/shop?replicas=3"
    server = serving("--engine", url)
    done("fire", "orders", "1", "--id", "first", "--url", url)
    listening = start("listen", "orders", "--purpose", "Look", "--since", "beginning", "--count", "1", "--url", url)
    listening.read("first")
    assert listening.end().code == 0
    assert done("topics", "set", "orders", "--keep", "0", "--url", url).out == "orders keeps events for 0\n"
    assert done("purposes", "--url", url, "--json").json[0]["settled"] == 1
    assert server.ask("POST", "/v1/topics/orders/events", {"n": 2})[0] == 202
    assert call("trace", "nothing", "--url", url).code == 1
    server.process.signal(15)
    ended = server.process.end()
    assert ended.code == 0
    assert "does not allow" not in ended.err
    assert "accepted" not in ended.err

    async def delete() -> bytes:
        async with connected([f"nats://{user}{hosts[0]}"]) as client:
            message = await client.request("$JS.API.STREAM.DELETE.SOLARWIND_shop_state", timeout=0.5)
            return message.data

    with pytest.raises(TimeoutError):
        asyncio.run(delete())
    for _, *ports in nodes:
        for port in ports:
            port.close()


def test_the_documented_commands_parse() -> None:
    lines = [line for block in blocks(DOCUMENT) if block.language == "sh" for line in block.text.splitlines()]
    found = [line for line in lines if line.startswith("solarwind ")]
    assert len(found) >= 7
    for line in found:
        parse(shlex.split(line, comments=True)[1:])


def test_streams_and_subjects_are_named_as_they_are() -> None:
    text = DOCUMENT.read_text().replace("….", "solarwind.shop.state.P.")
    layout = Layout("shop", NamespaceSettings())
    names = [layout.events_stream(0), layout.state_stream, layout.bucket_stream, layout.key("settings")]
    names += [
        layout.key("owner.0"),
        layout.log(0, "commit"),
        layout.log(0, "track.HASH.TRACK"),
        layout.log(0, "topic.TOPIC"),
    ]
    names += [
        layout.kept(0, "dead.HASH.FIRST-LAST"),
        layout.kept(0, "ids.PART.TOPIC"),
        layout.kept(0, "index.TOPIC"),
        layout.live("heartbeat"),
        layout.live("node.NODE.>"),
    ]
    names += [
        layout.events_of(0, kind="KIND", via="VIA", who="WHO", topic="TOPIC"),
        layout.events_of(0, topic="orders"),
    ]
    for name in names:
        general = re.sub(r"(?<=[._])0(?=$|\.)", "P", name)
        assert f"`{general}`" in text or name in text, general
