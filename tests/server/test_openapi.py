"""Whether the description of the HTTP doors is true, as schemathesis finds out at a real server with real data; and
whether it is OpenAPI, as two others that read such descriptions judge."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from solarwind.server.access import Listen, create_token
from solarwind.server.http import ENDPOINTS
from solarwind.testing.contract import on_loop

from .doors import NDJSON, Doors, at
from .npm import NODE, NPM, needs_npm
from .serving import Serving

HOOKS = f"{__package__}.schemathesis_hooks"
MAX_S = 800
EXAMPLES = 8

# Where what fits the description may still be refused for what it means: a time that is no day, a token said twice,
# an id beside a CloudEvent that has one, a URL, a retry, the ticks of a schedule. And the WebSocket is no request.
MEANT = ("/events", "/take", "/settle", "/replay", "/webhooks/{name}", "/schedules/{name}", "/v1/connect")

CONFIG = """
seed = 1
hooks = "{hooks}"
warnings = false
headers = {{ Authorization = "Bearer {token}" }}

[generation]
max-examples = {examples}
database = "none"
codec = "ascii"

# Streams without end, of which no more is described than that they are text: tests of their own read them. And the way
# to the console, which leads on.
[[operations]]
include-path-regex = "/(feed|watch|console)$"
enabled = false

[[operations]]
include-path-regex = "({meant})$"
checks.positive_data_acceptance.enabled = false
"""


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[int, str]]:
    """Yield the port of a server, whose webhooks may go nowhere but to this machine, and a token good for
    everything."""
    tokens = folder / "tokens"
    token, _ = create_token(str(tokens), "tester", fire=("*",), listen=(Listen("*"),), admin=True)
    server = Serving(folder, "--tokens", tokens, "--webhook-network", "127.0.0.1", scheme="http")
    await server.start()
    try:
        yield server.port, token
    finally:
        await server.end()


async def prepare(doors: Doors) -> None:
    """Make a topic with something of everything."""
    doors.topic = "T"
    await doors.take("p")
    await doors.fire("\n".join(map(str, range(20))), NDJSON)
    await doors.settle(await doors.take("p", max=10), "reject", "p")
    await doors.settle(await doors.take("p", max=2), "done", "p")
    await doors.fire(b"1", id="later", after="1d")
    webhook = {"url": "http://127.0.0.1:9/hook", "handshake": False}
    await doors.ask("PUT", "/v1/topics/silent/purposes/known/webhooks/known", webhook, 201)
    for name in ("daily", "removed"):
        await doors.ask("PUT", f"/v1/topics/T/schedules/{name}", {"every": "1d"}, 204)


@pytest.mark.long
@on_loop
async def test_the_description_is_true(tmp_path: Path) -> None:
    async with serving(tmp_path) as (port, token):
        async with at(port, headers={"authorization": f"Bearer {token}"}) as doors:
            await prepare(doors)
            meant = "|".join(map(re.escape, MEANT)).replace("\\", "\\\\")
            (tmp_path / "schemathesis.toml").write_text(
                CONFIG.format(hooks=HOOKS, token=token, meant=meant, examples=EXAMPLES)
            )
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{port}/openapi.json"),
                "--no-color",
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            out, _ = await asyncio.wait_for(process.communicate(), MAX_S)
            assert process.returncode == 0, out.decode()
            text = (await doors.http.get("/metrics")).text
    answered = set(re.findall(r'http_requests_total{method="(\w+)",path="(.*?)",status="20\d"}', text))
    wanted = {
        (each.method, each.path)
        for each in ENDPOINTS
        if each.statuses[0] // 100 == 2 and not each.streams and not each.page
    }
    assert len(wanted - answered) < 5, wanted - answered
    assert not re.search(r'http_requests_total{.*status="5\d\d"}', text)


@on_loop
async def test_everything_that_can_be_asked_is_described_and_all_that_is_referred_to_is_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as (port, _), at(port) as doors:
        described = await doors.ask("GET", "/openapi.json")
    found = {(method.upper(), path) for path, there in described["paths"].items() for method in there}
    assert found == {(each.method, each.path) for each in ENDPOINTS}
    assert len({each["operationId"] for there in described["paths"].values() for each in there.values()}) == len(found)
    for reference in references(described):
        at_ = described
        for name in reference.removeprefix("#/").split("/"):
            at_ = at_[name]


@on_loop
async def test_a_validator_of_openapi_finds_no_fault_in_the_description(tmp_path: Path) -> None:
    async with serving(tmp_path) as (port, _), at(port) as doors:
        described = await doors.ask("GET", "/openapi.json")
    # A pattern is one of ECMA-262, as JSON Schema says. The validator takes it for one of Python, which has no \p.
    text = json.dumps(described).replace(r"\\p{C}\\p{Z}", " ")
    assert [error.message for error in OpenAPIV31SpecValidator(json.loads(text)).iter_errors()] == []
    broken = json.loads(text.replace('"operationId": "get-healthz"', '"operationId": 1'))
    assert [*OpenAPIV31SpecValidator(broken).iter_errors()]


@needs_npm
@on_loop
async def test_a_linter_of_openapi_finds_nothing_to_say_of_the_description(tmp_path: Path) -> None:
    async with serving(tmp_path) as (port, _), at(port) as doors:
        described = await doors.ask("GET", "/openapi.json")
    (tmp_path / "openapi.json").write_text(json.dumps(described))
    del described["paths"]["/healthz"]["get"]["security"]
    (tmp_path / "broken.json").write_text(json.dumps(described))
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        *(NODE, NPM / "node_modules/@redocly/cli/bin/cli.js", "lint", "openapi.json", "broken.json"),
        *("--config", Path(__file__).with_name("redocly.yaml"), "--format", "json"),
        cwd=tmp_path,
        env={**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), MAX_S)
    assert out, err.decode()
    problems: list[dict[str, Any]] = []
    rest = out.decode().strip()
    while rest:  # there is a document for each file
        report, end = json.JSONDecoder().raw_decode(rest)
        problems, rest = problems + report["problems"], rest[end:].strip()
    found = {(Path(at["source"]["ref"]).name, each["ruleId"]) for each in problems for at in each["location"]}
    assert found == {("broken.json", "security-defined")}, problems


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)
