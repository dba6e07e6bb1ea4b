"""`solarwind serve --engine nats://…`: several servers are the doors of one namespace."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest

from cli import conftest as cli
from cli.conftest import Process, Serving, done, eventually
from server.place import Host
from server.test_authors import nobody_numbers_for_another
from solarwind.testing.contract import on_loop

from .servers import NatsServer

_bare_environment, start, serving, write = cli._bare_environment, cli.start, cli.serving, cli.write
Serve = Callable[..., Serving]

EVENTS = "/v1/topics/orders/events"
SHIP = "/v1/topics/orders/purposes/Ship%20it"


@pytest.fixture
def url(server: NatsServer, namespace: str) -> str:
    return server.url(namespace)


@pytest.mark.long
def test_what_is_fired_at_one_server_is_taken_at_another(url: str, serving: Serve) -> None:
    one, other = serving("--engine", url), serving("--engine", url)
    assert one.ask("POST", EVENTS, {"n": 1})[0] == 202
    (event,) = other.ask("POST", f"{SHIP}/take", {"since": "beginning", "wait": 10})[1]["events"]
    assert event["data"] == {"n": 1}
    status, problem = one.ask("POST", f"{SHIP}/settle", {"done": [event["token"]]})
    assert (status, problem["stale"]) == (409, [event["token"]]), "a token is known where it was made"
    assert other.ask("POST", f"{SHIP}/settle", {"done": [event["token"]]})[1]["done"] == 1
    for each in (one, other):
        (found,) = each.ask("GET", "/v1/purposes")[1]["purposes"]
        assert (found["settled"], found["pending"]) == (1, 0)


@pytest.mark.long
def test_a_worker_goes_on_at_its_server_when_the_one_that_owned_its_topics_is_killed(
    url: str, serving: Serve, start: Callable[..., Process], write: Callable[[str, str], None]
) -> None:
    write(
        "worker.py",
        """
        from solarwind import SolarWind
        wind = SolarWind()
        @wind.on("orders", purpose="Ship it", since="beginning")
        def ship(number: int) -> None:
            print("shipped", number, flush=True)
        """,
    )
    gone = serving("--engine", url)
    done("fire", "orders", "1", "--url", gone.url)
    eventually(lambda: owners(url) == [gone.process.popen.pid], "the first server to own the topic")
    stays = serving("--engine", url)
    worker = start("run", "worker:wind", "--url", stays.url)
    worker.read("shipped 1")
    assert owners(url) == [gone.process.popen.pid]
    gone.process.signal(signal.SIGKILL)
    assert stays.ask("POST", EVENTS, 2)[0] == 202
    worker.read("shipped 2")
    assert owners(stays.url) == [stays.process.popen.pid]
    worker.signal(signal.SIGTERM)
    assert worker.end().code == 0


def owners(url: str) -> list[int]:
    """Return the processes that own topics."""
    found = done("owners", "--url", url, "--json").json
    return [int(each["owner"].rpartition(":")[2] or 0) for each in found]


@pytest.mark.long
def test_a_server_is_ready_while_nats_is_there(own: Callable[..., NatsServer], serving: Serve) -> None:
    nats = own(NatsServer)
    asyncio.run(nats.start())
    server = serving("--engine", nats.url())
    assert server.ask("GET", "/readyz") == (200, {"status": "ready"})
    nats.pause()
    eventually(lambda: server.ask("GET", "/readyz")[0] == 503, "it to notice")
    assert server.ask("GET", "/healthz")[0] == 200
    nats.resume()
    eventually(lambda: server.ask("GET", "/readyz")[0] == 200, "it to be back")
    assert server.ask("POST", EVENTS, 1)[0] == 202


@pytest.mark.long
def test_a_webhook_that_is_put_at_one_server_is_known_at_all_and_after_a_restart(url: str, serving: Serve) -> None:
    one, other = (serving("--engine", url, "--webhook-network", "127.0.0.0/8") for _ in range(2))
    webhook = {"url": "http://127.0.0.1:9/", "handshake": False}
    hook = f"{SHIP}/webhooks/shop"
    assert one.ask("PUT", hook, webhook)[0] == 201
    eventually(lambda: other.ask("GET", hook)[0] == 200, "the other server to be told")
    assert other.ask("PUT", hook, {**webhook, "concurrency": 3})[0] == 200
    eventually(lambda: one.ask("GET", hook)[1]["concurrency"] == 3, "the first server to be told")
    for each in (one, other):
        each.process.signal(signal.SIGTERM)
        each.process.end()
    again = serving("--engine", url, "--webhook-network", "127.0.0.0/8")
    assert again.ask("GET", hook)[1]["concurrency"] == 3
    assert again.ask("DELETE", hook)[0] == 204
    assert again.ask("GET", "/v1/webhooks")[1] == {"webhooks": []}


@pytest.mark.long
def test_each_death_of_a_worker_behind_a_server_counts(
    url: str, serving: Serve, start: Callable[..., Process], write: Callable[[str, str], None]
) -> None:
    """What kills its worker is dead after its attempts, and what is behind it is handled."""
    write(
        "worker.py",
        """
        import os, signal
        from solarwind import Event, Retry, SolarWind
        wind = SolarWind()
        @wind.on("orders", purpose="Ship it", since="beginning", retry=Retry(attempts=3, wait=0.0))
        async def ship(event: Event) -> None:
            if event.payload == 0:
                print("attempt", event.attempt, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            print("shipped", event.payload, flush=True)
        """,
    )
    server = serving("--engine", url)
    done("fire", "orders", "-", "--lines", "--url", server.url, input="0\n1\n2\n")
    for attempt in (1, 2, 3):
        worker = start("run", "worker:wind", "--url", server.url)
        worker.read(f"attempt {attempt}")
        assert worker.end().code == -signal.SIGKILL
    worker = start("run", "worker:wind", "--url", server.url)
    for number in (1, 2):
        worker.read(f"shipped {number}")
    (letter,) = done("dead", "list", "orders", "Ship it", "--url", server.url, "--json").json["dead"]
    assert letter["attempts"] == 3
    worker.signal(signal.SIGTERM)
    assert worker.end().code == 0


@pytest.mark.long
@on_loop
async def test_nobody_numbers_for_anothers_producer(url: str) -> None:
    host = Host()
    try:
        await nobody_numbers_for_another(host.start(url))
    finally:
        host.end()
