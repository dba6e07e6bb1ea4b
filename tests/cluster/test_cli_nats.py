"""The command line over nats://: every command, who owns what, what is refused, and what nobody may see."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from cli import conftest as cli
from cli.conftest import Process, Serving, call, done, eventually
from solarwind.cluster.address import read_address
from solarwind.cluster.durability import log_durability
from solarwind.cluster.session import Session

from .servers import NatsServer, connected, streams

_bare_environment, start, serving, write = cli._bare_environment, cli.start, cli.serving, cli.write
Start = Callable[..., Process]
Write = Callable[[str, str], None]

PASSWORD = "hush-hush"
ENCODE = ("video.uploaded", "Encode it")
APP = """
    from solarwind import Reject, SolarWind
    wind = SolarWind()
    @wind.on("video.uploaded", purpose="Encode it", since="beginning")
    async def encode(video: dict) -> None:
        if "name" not in video:
            raise Reject("a video without a name")
        wind.fire("video.encoded", {"of": video["name"]})
"""


@pytest.fixture
def url(server: NatsServer, namespace: str) -> str:
    return server.url(namespace)


# --- every command ------------------------------------------------------------------------------------------


@pytest.mark.long
def test_every_command_does_over_nats_what_it_does_elsewhere(
    url: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOLARWIND_URL", url)
    write("app.py", APP)
    assert done("fire", "video.uploaded", '{"name": "cat"}', "--id", "cat").out == "cat\n"
    assert done("fire", "video.uploaded", "--lines", input='{"name": "dog"}\n{}\n').out == "2 events fired\n"
    cli_run()
    (found,) = done("purposes", "video.uploaded", "--json").json
    assert (found["purpose"], found["settled"], found["dead"]) == ("Encode it", 2, 1)
    (dead,) = done("dead", "list", *ENCODE, "--json").json["dead"]
    assert "a video without a name" in done("dead", "show", *ENCODE, dead["event"]["id"]).out
    assert done("dead", "redrive", *ENCODE, "--all").out == "1 event to be handed out again\n"
    cli_run()
    assert done("dead", "discard", *ENCODE, "--all").out == "1 event discarded\n"
    assert done("trace", "cat", "--json").json["caused"][0]["event"]["payload"] == {"of": "cat"}
    assert done("topics", "set", "video.encoded", "--keep", "1d").out == "video.encoded keeps events for 1d\n"
    assert [(each["topic"], each["fired"]) for each in done("topics", "--json").json] == [
        ("video.encoded", 2),
        ("video.uploaded", 3),
    ]
    assert "video.uploaded" in done("top", "--count", "1").out
    assert done("replay", *ENCODE).out == "3 events to be handed out again\n"
    assert "pending events" in call("retire", *ENCODE).err
    assert done("retire", *ENCODE, "--force").out == "Encode it on video.uploaded is retired\n"


def cli_run() -> None:
    process = Process("run", "app:wind", "--until-settled")
    try:
        assert process.end().code == 0
    finally:
        process.close()


def test_listen_prints_what_comes(url: str, start: Start) -> None:
    done("fire", "t", "1", "--url", url)
    listening = start("listen", "t", "--purpose", "Look", "--since", "beginning", "--count", "2", "--url", url)
    assert listening.read("1").endswith(" 1\n")
    done("fire", "t", "2", "--url", url)
    assert listening.read("2").endswith(" 2\n")
    assert listening.end().code == 0


def test_ui_serves_the_console_of_a_namespace(url: str, start: Start) -> None:
    done("fire", "t", "1", "--url", url)
    process = start("ui", "--url", url, "--json")
    address = urlsplit(json.loads(process.read("console"))["console"])
    bearer = {"authorization": f"Bearer {address.fragment.removeprefix('token=')}"}
    with urlopen(Request(f"http://{address.netloc}/v1/topics", headers=bearer), timeout=cli.PATIENCE_S) as answer:
        assert [(each["topic"], each["fired"]) for each in json.load(answer)["topics"]] == [("t", 1)]
    process.signal(signal.SIGTERM)
    assert process.end().code == 0


# --- owners -------------------------------------------------------------------------------------------------


def test_owners_says_who_has_which_topics(url: str, serving: Callable[..., Serving]) -> None:
    done("fire", "a", "1", "--url", url)
    assert [each["owner"] for each in done("owners", "--url", url, "--json").json] == [""]
    server = serving("--engine", url)
    eventually(lambda: owned(url) == [(["a"], server.process.popen.pid)], "the server to own the topic")
    (row,) = done("owners", "--url", url).lines[1:]
    assert re.fullmatch(r" +\d+  SOLARWIND_\w+_\d+  \S+:\d+  a", row)


def owned(url: str) -> list[tuple[list[str], int]]:
    """Return the topics of each partition, and the process that has them."""
    found = done("owners", "--url", url, "--json").json
    return [(each["topics"], int(each["owner"].rpartition(":")[2] or 0)) for each in found]


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server with users: `wind` may do all, `other` nothing of JetStream."""
    server = NatsServer(
        tmp_path_factory.mktemp("locked"),
        authorization={
            "users": [
                {"user": "wind", "password": PASSWORD},
                {"user": "other", "password": PASSWORD, "permissions": {"publish": {"deny": "$JS.>"}}},
            ]
        },
    )
    yield from running(server)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server without JetStream."""
    yield from running(NatsServer(tmp_path_factory.mktemp("bare"), jetstream=False))


def running(server: NatsServer) -> Iterator[NatsServer]:
    try:
        asyncio.run(server.start())
        yield server
    finally:
        asyncio.run(server.close())


def at(server: NatsServer, user: str = "", rest: str = "") -> str:
    return f"nats://{user}{server.where.address}:{server.where.port}{rest}"


def refused(*command: str) -> str:
    """Return what the command says on its one line, which is no secret."""
    answer = call(*command)
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1), answer
    assert answer.err.startswith("solarwind: ")
    assert PASSWORD not in answer.err
    return answer.err


def test_credentials_that_are_wrong_are_not_repeated(locked: NatsServer) -> None:
    for user in ("", "wind:wrong@", f"nobody:{PASSWORD}@", f"{PASSWORD}@"):
        assert "expected credentials that NATS at" in refused("topics", "--url", at(locked, user))


def test_a_user_who_may_not_use_jetstream_is_told_what_he_may_not(locked: NatsServer) -> None:
    said = refused("fire", "t", "--url", at(locked, f"other:{PASSWORD}@"))
    assert "who may use JetStream" in said
    assert "$js.api.info" in said


@pytest.mark.parametrize("rest", ["/x", "?x", "#x", "[x", "[x]"])
def test_a_password_that_is_not_written_as_in_a_url_is_not_shown(rest: str) -> None:
    refused("topics", "--url", f"nats://wind:{PASSWORD}{rest}@127.0.0.1:4222")


def test_check_and_backup_say_what_to_do_instead(locked: NatsServer, tmp_path: Path) -> None:
    for command in (["check"], ["backup", "copy.db"]):
        said = refused(*command, "--url", at(locked, f"wind:{PASSWORD}@"))
        assert "solarwind copy" in said
        assert "nats stream backup" in said
    assert list(tmp_path.iterdir()) == []


def test_a_command_says_at_once_where_no_nats_server_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        there = f"127.0.0.1:{bound.getsockname()[1]}"
        for command in (["topics"], ["fire", "t"], ["owners"], ["copy", "--to", "sqlite:///copy.db"]):
            option = "--from" if command[0] == "copy" else "--url"
            assert f"expected a NATS server at nats://{there}" in refused(*command, option, f"nats://{there}")
        assert "expected a NATS server" in refused("serve", "--engine", f"nats://{there},{there}")


def test_a_command_refuses_a_nats_server_without_jetstream(bare: NatsServer) -> None:
    assert "start it with -js" in refused("topics", "--url", at(bare))


OPTIONS: dict[str, tuple[str, str]] = {
    "an invalid option": ("?stream=8", "an option of nats://, one of creds, "),
    "no number": ("?streams=many", "expected a whole number from 1 to 1000 as streams, got 'many'"),
    "an invalid namespace": ("/a.b", "expected a namespace"),
    "more replicas than servers": ("/lonely?replicas=3", "as many servers as replicas"),
    "credentials that are none": ("?creds=garbage", "expected credentials in garbage, a user's JWT and seed"),
    "credentials that are not there": ("?creds=none.creds", "expected credentials that can be read in none.creds"),
    "TLS where there is none": ("?tls=true", "to offer TLS, as tls=true demands"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_command_refuses_an_option_of_the_url_that_is_invalid(server: NatsServer, tmp_path: Path, case: str) -> None:
    rest, words = OPTIONS[case]
    (tmp_path / "garbage").write_text("garbage")
    said = refused("fire", "t", "--url", at(server, rest=rest))
    assert words in said
    assert "sqlite" not in said


def test_a_namespace_is_not_used_in_another_way_than_it_was_made(server: NatsServer, namespace: str) -> None:
    done("fire", "t", "--url", server.url(namespace, streams=3))
    said = refused("topics", "--url", server.url(namespace, streams=4))
    assert "expected streams=3" in said
    assert "got streams=4" in said


READING = [["topics"], ["purposes"], ["topics", "set", "t", "--keep", "0"], ["dead", "list", "t", "p"], ["owners"],
           ["replay", "t", "p"], ["retire", "t", "p"], ["trace", "i"], ["top", "--count", "1"]]  # fmt: skip


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_namespace_that_is_not_there_is_refused_rather_than_made(
    server: NatsServer, namespace: str, command: list[str]
) -> None:
    assert f"none named {namespace!r}" in refused(*command, "--url", server.url(namespace))

    async def made() -> list[str]:
        async with connected(server.urls) as client:
            return [each for each in await streams(client) if namespace in each]

    assert asyncio.run(made()) == []


# --- secrets ------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_no_process_shows_the_password(locked: NatsServer, start: Start, write: Write) -> None:
    """A command line is everybody's to read; so the URL comes by the environment, and goes to workers the same way."""
    write("app.py", APP)
    url = at(locked, f"wind:{PASSWORD}@", "/workers")
    service = start("run", "app:wind", "--workers", "2", env={**os.environ, "SOLARWIND_URL": url})
    workers = eventually_children(service.popen.pid, 2)
    for pid in (service.popen.pid, *workers):
        assert PASSWORD.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    done("fire", "video.uploaded", '{"name": "cat"}', "--url", url)
    eventually(lambda: done("purposes", "video.uploaded", "--url", url, "--json").json[0]["settled"] == 1)
    service.signal(15)
    ended = service.end()
    assert ended.code == 0, ended
    assert PASSWORD not in ended.out + ended.err


def eventually_children(pid: int, count: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    eventually(lambda: len(path.read_text().split()) == count, f"{count} workers")
    return [int(each) for each in path.read_text().split()]


# --- whether accepted means on disk -------------------------------------------------------------------------


def accounts(*, told: bool) -> dict[str, object]:
    """Return a system account, and one that uses JetStream, and is told by the first how servers are set, or is not."""
    subject = "$SYS.REQ.SERVER.PING.JSZ"
    wind: dict[str, object] = {"jetstream": "enabled", "users": [{"user": "wind", "password": PASSWORD}]}
    if told:
        wind["imports"] = [{"service": {"account": "SYS", "subject": subject}}]
    exports = [{"service": subject, "accounts": ["WIND"], "response_type": "stream"}]
    system = {"users": [{"user": "sys", "password": "sys"}], "exports": exports}
    return {"system_account": "SYS", "accounts": {"SYS": system, "WIND": wind}}


DURABILITY = {
    "nothing is told": (False, "2m", "INFO", "unless its servers have sync_interval: always"),
    "it fsyncs later": (True, "2m", "WARNING", "NATS fsyncs later on n1"),
    "it fsyncs before": (True, "always", "", ""),
}


@pytest.mark.parametrize("case", DURABILITY)
def test_it_is_said_when_accepted_does_not_mean_on_disk(
    own: Callable[..., NatsServer], caplog: pytest.LogCaptureFixture, case: str
) -> None:
    told, sync, level, words = DURABILITY[case]
    server = own(NatsServer, jetstream={"sync_interval": sync}, **accounts(told=told))

    async def go() -> None:
        await server.start()
        session = Session(read_address(at(server, f"wind:{PASSWORD}@")))
        await session.open()
        await log_durability(session, 3)
        await session.close()

    with caplog.at_level(logging.INFO, "solarwind"):
        asyncio.run(go())
    said = [(each.levelname, each.getMessage()) for each in caplog.records if each.name == "solarwind"]
    assert len(said) == bool(words), said
    for name, text in said:
        assert name == level
        assert words in text
        assert "a power cut of 2 servers at once" in text


def test_a_service_says_it_when_it_starts(url: str, serving: Callable[..., Serving]) -> None:
    said = json.loads(serving("--engine", url).process.read_err("accepted means on disk"))
    assert said["level"] == "info"
