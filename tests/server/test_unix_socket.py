"""What is the same at a Unix socket on every event loop, and what is its own there."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from solarwind import SolarWind, Unavailable
from solarwind.errors import NotAllowed
from solarwind.origin import MACHINE, user_of
from solarwind.server import Server, Settings
from solarwind.server.access import Access, create_token
from solarwind.server.listener import Listener
from solarwind.server.unix_socket import UnixSocket
from solarwind.testing.contract import on_loop, until

from .peers import ask, peer, request, talker

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "s"


@asynccontextmanager
async def served(path: Path, **options: Any) -> AsyncIterator[Server]:
    server = Server("memory://", **options)
    listener = Listener(server, port=None, unix=UnixSocket(str(path), 0o600), grace=1.0)
    await server.start()
    await listener.start()
    try:
        yield server
    finally:
        listener.close()
        await server.stop()
        await listener.stop()


@pytest.mark.parametrize("loop", LOOPS)
def test_python_and_http_meet_at_a_socket_on_each_loop(loop: str, path: Path) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(meet(path))


async def meet(path: Path) -> None:
    got: list[Any] = []
    async with served(path):
        wind = SolarWind(f"unix://{path}")
        wind.on("t", purpose="p")(async_append(got))
        async with wind, peer(str(path)) as feed:
            await feed.send(request("GET", "/v1/topics/t/feed?purpose=live", {}))
            assert (await feed.answer(head_only=True)).status == 200
            await wind.fire("t", "from Python" * 10_000)
            json = {"content-type": "application/json"}
            assert (await ask(str(path), "POST", "/v1/topics/t/events", json, b'"by HTTP"')).status == 202
            await until(lambda: len(got) == 2, "both events")
            await feed.until(b"by HTTP")
            take = await ask(str(path), "POST", "/v1/topics/t/purposes/q/take", json, b'{"max": 1}')
            assert take.status == 200
            await wind.settled(timeout=60)
        assert sorted(map(len, got)) == [len("by HTTP"), 110_000]
    assert not path.exists()


def async_append(got: list[Any]) -> Callable[[Any], Any]:
    async def append(payload: Any) -> None:
        got.append(payload)

    return append


@on_loop
async def test_an_event_by_http_is_from_this_machine_and_its_user(path: Path) -> None:
    async with served(path), SolarWind(f"unix://{path}") as wind:
        async with wind.listen("t", "p") as events:
            await ask(str(path), "POST", "/v1/topics/t/events", {"content-type": "application/json"}, b"1")
            event = await anext(aiter(events))
        assert (event.machine, event.process) == (MACHINE, user_of(os.geteuid()))


@on_loop
async def test_a_host_that_is_allowed_does_not_shut_out_those_at_the_socket(path: Path) -> None:
    async with served(path, hosts=["wind.example"]), SolarWind(f"unix://{path}") as wind:
        await wind.fire("t")
        assert (await ask(str(path), "GET", "/v1/topics", {"host": "wind.example"})).status == 200
        assert (await ask(str(path), "GET", "/v1/topics", {"host": "evil.example"})).status == 403
        page = {"host": "evil.example", "origin": "http://evil.example"}
        assert (await ask(str(path), "GET", "/v1/topics", page)).status == 403  # by a proxy of the user's


@on_loop
async def test_connections_are_counted_by_user(path: Path) -> None:
    async with served(path, settings=Settings(connections=2)) as server:
        async with talker(str(path)) as one, talker(str(path)) as other:
            await one.hello()
            await other.hello()
            async with peer(str(path)) as third:
                assert await third.read() == b""
            assert server.host.connection_count == 2
        await until(lambda: server.host.connection_count == 0, "both to be gone")
        async with talker(str(path)) as again:
            await again.hello()


def test_without_tokens_a_user_who_is_neither_the_servers_nor_root_gets_in_nowhere() -> None:
    own, root, other = os.geteuid(), 0, os.geteuid() + 1
    access = Access()
    for uid in (own, root):
        assert access.grant(None, uid).admin
    with pytest.raises(NotAllowed, match=r"expected a client of the server's user, .*, or of root, .*got one of"):
        access.grant(None, other)


@on_loop
async def test_a_connection_at_the_socket_ends_when_the_first_token_is_made(path: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "tokens")
    async with served(path, tokens=Access(file, required=False)):
        async with talker(str(path)) as made:
            await made.hello()
            token, _ = create_token(file, "first", admin=True)
            assert await made.ended() == (1008, "bad-token")
        assert (await ask(str(path), "GET", "/v1/topics")).code == "bad-token"
        assert (await ask(str(path), "GET", "/v1/topics", {"authorization": f"Bearer {token}"})).status == 200


def test_of_servers_that_find_a_file_left_behind_at_once_one_gets_the_path(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    first = UnixSocket(str(path), 0o600).bind()
    with first, pytest.raises(Unavailable, match=rf"but process {os.getpid()} \("):
        UnixSocket(str(path), 0o600).bind()


def test_a_socket_of_another_kind_that_is_in_use_is_left_to_its_process(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(Unavailable, match="but another process does at"):
            UnixSocket(str(path), 0o600).bind()
        assert path.is_socket()


def test_a_folder_that_another_process_has_locked_is_refused_after_a_while(path: Path) -> None:
    file = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="another process has locked it"):
            UnixSocket(str(path), 0o600).bind()
    finally:
        os.close(file)
