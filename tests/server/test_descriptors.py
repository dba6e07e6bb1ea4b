"""Open files have an end too: nobody takes the last ones, and having none for a moment is no disaster."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from leaping import leap
from solarwind.server import Server, Settings
from solarwind.server.access import Access, create_token, revoke_token
from solarwind.server.admission import Admission
from solarwind.server.listener import RESERVED_FILES, Listener
from solarwind.testing.contract import on_loop

from .peers import ask, bearer, peer, request
from .serving import Serving


@contextmanager
def no_files_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.open("/dev/null", os.O_RDONLY)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_tokens_stay_in_force_while_their_file_cannot_be_opened_for_want_of_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "tokens")
    first, _ = create_token(path, "first", admin=True)
    access = Access(path)
    second, _ = create_token(path, "second", admin=True)
    with no_files_left():
        assert [access.holds(first), access.holds(second), access.holds(first)] == [True, False, True]
    assert [each.message for each in caplog.records] == [
        "the tokens cannot be read for now (Too many open files): the known ones stay in force"
    ]
    assert [access.holds(first), access.holds(second)] == [True, True]
    revoke_token(path, "first")
    assert [access.holds(first), access.holds(second)] == [False, True]


@on_loop
async def test_of_the_connections_that_nobody_knows_the_oldest_makes_room() -> None:
    admission = Admission(100, 8)
    admitted = [admission.enter(f"10.0.0.{n}") for n in range(4)]
    assert all(admitted)
    known = admitted[0]
    assert known is not None
    known.welcome()
    for n in range(4, 6):
        assert admission.enter(f"10.0.0.{n}") is not None
    assert known.known
    assert len(admission.unknown) == 4
    assert admitted[1] not in admission.unknown


@on_loop
async def test_no_more_come_in_while_many_that_were_let_go_of_have_yet_to_close() -> None:
    admission = Admission(1_000, 8)
    entered = 0
    while not admission.crowded:
        assert admission.enter("10.0.0.1") is not None
        entered += 1
    assert entered < RESERVED_FILES


@on_loop
async def test_no_further_connection_is_accepted_where_all_are_known() -> None:
    admission = Admission(100, 4)
    for n in range(4):
        admitted = admission.enter(f"10.0.0.{n}")
        assert admitted is not None
        admitted.welcome()
    assert admission.enter("10.0.0.9") is None


@on_loop
async def test_idle_connections_and_a_change_of_the_tokens_lock_nobody_out(tmp_path: Path) -> None:
    path = str(tmp_path / "tokens")
    token, _ = create_token(path, "first", admin=True)
    serving = Limited(tmp_path, "--tokens", path, "--authenticate-s", 30)
    try:
        await serving.start()
        async with AsyncExitStack() as stack:
            for source in range(2, 6):
                for _ in range(100):
                    await stack.enter_async_context(peer(serving.port, source=f"127.0.0.{source}"))
            later, _ = create_token(path, "later", admin=True)
            for each in (token, later):
                assert (await ask(serving.port, "GET", "/v1/statistics", bearer(each))).status == 200
        assert not serving.complaints()
    finally:
        serving.kill()


class Limited(Serving):
    """With few files, of which it may have all."""

    def _launch(self) -> None:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, RESERVED_FILES + 100))

        command = ["serve", "--json", "--data", str(self.store), "--port", str(self.port), *self._options]
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "solarwind", *command], stderr=errors, preexec_fn=limit
            )


@on_loop
async def test_a_connection_without_a_token_ends_after_its_time_whatever_it_asks(tmp_path: Path) -> None:
    """With one it stays."""
    path = str(tmp_path / "tokens")
    token, _ = create_token(path, "first", admin=True)
    server = Server("memory://", tokens=path, settings=Settings(authenticate_s=20, idle_s=40))
    listener = Listener(server, port=0, grace=1.0)
    await server.start()
    await listener.start()
    try:
        async with peer(listener.port) as idle, peer(listener.port) as asking, peer(listener.port) as known:

            async def stay() -> bool:
                """Return whether the one that asks may, as the one that is known may."""
                assert (await known.ask("GET", "/v1/statistics", bearer(token))).status == 200
                await asking.send(request("GET", "/healthz"))
                return await asking.next_answer() is not None

            assert (await idle.ask("GET", "/healthz")).status == 200
            for _ in range(2):
                assert await stay()
                leap(11)
            assert await idle.read() == b""
            assert await stay()
            leap(11)
            await stay()
            leap(11)
            assert not await stay()
            assert (await known.ask("GET", "/v1/statistics", bearer(token))).status == 200
    finally:
        listener.close()
        await server.stop()
        await listener.stop()
