"""The commands over a server: what holds for them on a store holds there too, since they are the same tests."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from server.place import Host

from . import test_cli_dead, test_cli_events, test_cli_operate, test_cli_refusals
from .conftest import Process, call, done, eventually

EACH_TIME = {"test_listen_prints_an_event_a_line_and_leaves_after_the_count", "test_top_leaves_on_a_signal"}


def _those_with(fixtures: set[str], module: ModuleType) -> dict[str, Callable[..., None]]:
    """Return the module's tests that are given a dispatcher by one of these fixtures, which give a server's below."""
    tests = {name: value for name, value in vars(module).items() if name.startswith("test_")}
    parameters = {name: inspect.signature(test).parameters.keys() for name, test in tests.items()}
    return {
        name: _long(test) if "start" in parameters[name] and name not in EACH_TIME else test
        for name, test in tests.items()
        if fixtures & parameters[name]
    }


def _long(test: Callable[..., None]) -> Callable[..., None]:
    """Leave to `make test-long` what starts processes of its own: in its own module the test is what it was."""

    @functools.wraps(test)
    def again(*arguments: object, **named: object) -> None:
        test(*arguments, **named)

    return pytest.mark.long(again)


globals().update(_those_with({"furnished"}, test_cli_dead))
globals().update(_those_with({"furnished", "url"}, test_cli_events))
globals().update(_those_with({"furnished", "empty"}, test_cli_operate))
globals().update(test_a_refusal_is_one_line=test_cli_refusals.test_a_refusal_is_one_line)


@pytest.fixture
def serve(host: Host) -> Iterator[Callable[..., str]]:
    """Start a server on a store and give its URL."""
    ports = []

    def serve(store: str, **how: Path) -> str:
        ports.append(host.start(store, **how))
        return f"ws://127.0.0.1:{ports[-1]}"

    yield serve
    for port in ports:
        host.stop(port)


@pytest.fixture
def url(serve: Callable[..., str], tmp_path: Path) -> str:
    return serve(f"sqlite:///{tmp_path}/wind.db")


@pytest.fixture
def empty(url: str) -> str:
    return url


@pytest.fixture
def furnished(furnished: str, serve: Callable[..., str]) -> str:
    return serve(furnished)


# --- what is another matter over a server -------------------------------------------------------------------


def test_listen_states_what_its_version_does_when_it_is_first_seen(url: str, start: Callable[..., Process]) -> None:
    done("fire", "t", "1", "--url", url)
    processes = [start("listen", "t", "--purpose", "p", "--url", url)]

    def states() -> list[str]:
        answer = call("rollout", "show", "t", "p", "--url", url, "--json")
        return [each["state"] for each in answer.json["versions"]] if answer.code == 0 else []

    eventually(lambda: states() == ["current"])
    processes.append(start("listen", "t", "--purpose", "p", "--version", "2", "--rollout", "0.25", "--url", url))
    eventually(lambda: states() == ["current", "ramping 25 %"])
    refused = start("listen", "t", "--purpose", "p", "--rollout", "soon", "--url", url).end()
    assert (refused.code, refused.out) == (1, "")
    assert "expected rollout 'newest', 'hold', 'shadow' or a share" in refused.err


def test_check_is_refused_saying_where_to_do_it(furnished: str) -> None:
    answer = call("check", "--url", furnished)
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert (
        f"expected a store in a file to check, got the server {furnished}: name its file, on its machine" in answer.err
    )


def test_a_backup_comes_over_the_wire_and_is_a_store_of_its_own(furnished: str, tmp_path: Path) -> None:
    (tmp_path / "mine.db").write_text("mine")
    assert "mine.db exists" in call("backup", "mine.db", "--url", furnished).err
    assert (tmp_path / "mine.db").read_text() == "mine"
    made = done("backup", "copy.db", "--url", furnished, "--json").json
    assert made == {"target": "copy.db", "bytes": (tmp_path / "copy.db").stat().st_size}
    assert done("check", "--url", "sqlite:///copy.db").out == "copy.db is sound\n"
    copied = done("topics", "--url", "sqlite:///copy.db", "--json").json
    assert copied == done("topics", "--url", furnished, "--json").json


def test_what_is_in_memory_has_no_backup(serve: Callable[..., str], tmp_path: Path) -> None:
    answer = call("backup", "copy.db", "--url", serve("memory://"))
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert list(tmp_path.iterdir()) == []


def settled(url: str) -> int:
    return int(done("purposes", "--url", url, "--json").json[0]["settled"])


@pytest.mark.long
def test_a_listener_stays_through_a_restart_of_the_server(
    host: Host, serve: Callable[..., str], tmp_path: Path, start: Callable[..., Process]
) -> None:
    store = f"sqlite:///{tmp_path}/wind.db"
    url = serve(store)
    port = int(url.rpartition(":")[2])
    done("fire", "t", "1", "--url", url)
    process = start("listen", "t", "--purpose", "p", "--since", "beginning", "--count", "2", "--url", url)
    process.read(" 1\n")
    eventually(lambda: settled(url) == 1)
    host.stop(port)
    host.start(store, port)
    done("fire", "t", "2", "--url", url)
    process.read(" 2\n")
    assert process.end().code == 0
    assert settled(url) == 2
