"""The audit holds every verb of an operator, at each door: a new one cannot be forgotten here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import click
import typer.main

from solarwind import Reject, SolarWind
from solarwind.cli import app
from solarwind.engine.audit import OTHER_VERBS
from solarwind.operations import OPERATIONS, Internal
from solarwind.origin import user_name
from solarwind.server import Server
from solarwind.server.access import Access, Listen, create_token, revoke_token
from solarwind.server.http import ENDPOINTS
from solarwind.testing.contract import on_loop, until

from .doors import at, served
from .webhooks.place import receiving

VERBS = {name for name, each in OPERATIONS.items() if each.audited} | {*OTHER_VERBS}
# What changes something by HTTP and is no verb of an operator: what producers and services do.
SERVICES = {("POST", path) for path in ("/events", "/purposes/{purpose}/take", "/purposes/{purpose}/settle")} | {
    ("PUT", "/schedules/{name}")
}
# The commands that only ask, those that run something, and those on a file that no dispatcher has open meanwhile.
COMMANDS = {
    "top", "schedules add", "token list", "version", "run", "new", "dev", "serve", "ui", "fire", "listen", "check",
    "mcp", "restore", "copy", "docs", "relay", "outbox init", "outbox prune", "outbox status", "outbox redrive",
}  # fmt: skip


@on_loop
async def test_every_verb_of_an_operator_is_noted_with_who_did_it(tmp_path: Path) -> None:
    tokens = str(tmp_path / "tokens")
    ann, _ = create_token(tokens, "ann", listen=(Listen("T"),), admin=True)
    server = Server(f"sqlite:///{tmp_path}/wind.db", tokens=tokens, webhook_networks=["127.0.0.1"])
    hook = "/v1/topics/T/purposes/hooked/webhooks/w"
    async with served(server) as port, receiving() as receiver:
        url = f"ws://127.0.0.1:{port}"
        async with SolarWind(url, token=ann) as wind, at(port, headers={"authorization": f"Bearer {ann}"}) as doors:
            await prepare(server.wind)
            later = await server.wind.fire("T", after="1h")
            letters = [each.event.id for each in await wind.dead("T", "dead")]
            do: dict[str, Callable[[], Awaitable[Any]]] = {
                "redrive": lambda: wind.redrive("T", "dead", letters[:1]),
                "discard": lambda: wind.discard("T", "dead", letters[1:2]),
                "replay": lambda: wind.replay("T", "p"),
                "pause": lambda: wind.pause("T", "p"),
                "resume": lambda: wind.resume("T", "p"),
                "share": lambda: wind.share("T", "p", 2, 0.1),
                "shadow": lambda: wind.shadow("T", "p", 3),
                "promote": lambda: wind.promote("T", "p", 2),
                "rollback": lambda: wind.rollback("T", "p"),
                "retry": lambda: wind.retry("T", "p"),
                "retire": lambda: wind.retire("T", "p", force=True),
                "run_schedule": lambda: wind.run_schedule("s"),
                "pause_schedule": lambda: wind.pause_schedule("s"),
                "resume_schedule": lambda: wind.resume_schedule("s"),
                "remove_schedule": lambda: wind.remove_schedule("s"),
                "cancel": lambda: wind.cancel("T", later),
                "backup": lambda: wind.backup(str(tmp_path / "backup.db")),
                "keep": lambda: doors.ask("PUT", "/v1/topics/T", {"keep": 5}),
                "webhook put": lambda: doors.ask("PUT", hook, {"url": receiver.url}, 201),
                "pause_webhook": lambda: wind.pause_webhook("T", "hooked", "w"),
                "resume_webhook": lambda: wind.resume_webhook("T", "hooked", "w"),
                "webhook delete": lambda: doors.ask("DELETE", hook, status=204),
                "token create": lambda: token(tokens, "bob"),
                "token revoke": lambda: token(tokens, None),
            }
            assert do.keys() == VERBS
            for work in do.values():
                await work()

            async def all_noted() -> bool:
                return {each.verb for each in await wind.audit()} >= VERBS

            await until(all_noted)
            found = await wind.audit()
    for each in found:
        assert each.by.startswith(user_name() if each.verb.startswith("token") else "ann"), each
        assert (each.topic == "") == each.verb.endswith(("_schedule", "backup", "create", "revoke"))
    assert [each.arguments for each in found if each.verb == "webhook delete"] == ['{"name":"w"}']
    assert all("secret" not in each.arguments for each in found)


async def token(path: str, name: str | None) -> None:
    if name is not None:
        create_token(path, name, watch=True)
    else:
        revoke_token(path, "bob")


async def prepare(wind: SolarWind) -> None:
    async def never() -> None:
        raise Reject("it is of no use")

    async def ok() -> None: ...

    wind.on("T", purpose="dead")(never)
    for version in (1, 2, 3):
        wind.on("T", purpose="p", version=version, rollout="hold")(ok)
    await wind.joined()
    await Internal.declare_schedule(wind, "T", "s", "1d")
    await wind.fire_many("T", range(3))

    async def dead() -> bool:
        return (await wind.statistics()).purposes["T", "dead"].dead == 3

    await until(dead)


def test_what_was_done_with_tokens_while_no_server_ran_is_noted_once_when_it_starts(tmp_path: Path) -> None:
    tokens = str(tmp_path / "tokens")
    create_token(tokens, "ann", admin=True)
    revoke_token(tokens, "ann")

    @on_loop
    async def start() -> None:
        server = Server(f"sqlite:///{tmp_path}/wind.db", tokens=Access(tokens))
        async with served(server):

            async def both_noted() -> bool:
                return len(await server.wind.audit()) >= 2

            await until(both_noted)
            server.token_audit.check()
        assert not server.host.running

    for _ in range(2):
        start()

    @on_loop
    async def look() -> None:
        async with SolarWind(f"sqlite:///{tmp_path}/wind.db") as wind:
            found = [(each.verb, each.arguments.partition(",")[0]) for each in await wind.audit()]
            assert found == [("token revoke", '{"name":"ann"'), ("token create", '{"name":"ann"')]

    look()


def test_an_endpoint_that_changes_something_is_a_verb_of_an_operator_or_what_services_do() -> None:
    verbs = {(each.http.method, each.http.path) for name, each in OPERATIONS.items() if each.http and name in VERBS}
    hook = "/v1/topics/{topic}/purposes/{purpose}/webhooks/{name}"
    changing = {(each.method, each.path) for each in ENDPOINTS if each.method != "GET"}
    services = {(method, "/v1/topics/{topic}" + path) for method, path in SERVICES}
    assert changing == verbs | {("PUT", hook), ("DELETE", hook)} | services


def test_a_command_that_changes_something_is_a_verb_of_an_operator() -> None:
    of_operations = {each.cli.words for each in OPERATIONS.values() if each.cli}
    assert {*words(typer.main.get_command(app))} == of_operations | COMMANDS | {
        "backup",
        "token create",
        "token revoke",
    }


def words(of: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    found: dict[str, click.Command] = getattr(of, "commands", {})
    for name, each in found.items():
        yield from words(each, (*path, name))
    if not found or getattr(of, "invoke_without_command", False):
        yield " ".join(path)
