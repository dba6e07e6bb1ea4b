"""The client in JavaScript, examples/client.mjs, which was written from docs/PROTOCOL.md alone, at a real server.

So the document is enough to write one, and whatever it promises holds for a foreign client too.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from solarwind import Event, SolarWind
from solarwind.testing.contract import on_loop, until

from .place import Host
from .serving import Serving

CLIENT = Path(__file__).parent.parent.parent / "examples" / "client.mjs"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node, which runs the JavaScript client, is not installed")

BEGIN = f"""
import {{ SolarWind, Later, Reject }} from {json.dumps(CLIENT.as_uri())};
const wind = await new SolarWind(process.argv[2]).connect();
const say = (...what) => console.log(JSON.stringify(what, (_, each) => typeof each === "bigint" ? String(each) : each));
const heard = new Promise((resolve) => process.stdin.once("data", resolve).unref());
"""
QUICK = "retry: { attempts: 2, wait: 0 }"


@pytest.fixture
def url(host: Host) -> Iterator[str]:
    port = host.start("memory://")
    yield f"ws://127.0.0.1:{port}"
    host.stop(port)


def command(*words: str) -> list[str]:
    """Node 20 has its WebSocket behind an option, and newer ones have dropped it."""
    assert NODE is not None
    version = int(subprocess.run([NODE, "--version"], capture_output=True, text=True).stdout[1:].split(".")[0])
    return [NODE, *(["--experimental-websocket"] if version < 22 else []), *words]


class Script:
    """A program in JavaScript that runs meanwhile. `say(...)` is a line here; `tell` keeps its promise `heard`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(120):
            line = await self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise AssertionError((await self._process.stderr.read()).decode())
        return json.loads(line)

    def tell(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def end(self) -> None:
        """Check that it ends by itself, without an error."""
        rest, errors = await self._process.communicate()
        assert (self._process.returncode, rest) == (0, b""), errors.decode()


@asynccontextmanager
async def running(text: str, url: str, folder: Path) -> AsyncIterator[Script]:
    path = folder / "script.mjs"
    path.write_text(BEGIN + text)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command(str(path), url), stdin=pipe, stdout=pipe, stderr=pipe)
    script = Script(process)
    try:
        yield script
        await script.end()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.long
@on_loop
async def test_what_javascript_fires_is_handled_in_python_as_it_was(url: str, tmp_path: Path) -> None:
    wind = SolarWind(url)
    seen: list[Event] = []

    @wind.on("T", purpose="p")
    async def handle(event: Event) -> None:
        seen.append(event)

    text = """
        say(await Promise.all([
          wind.fire("T", { text: "naïve 🌬", list: [1, 2.5, null], deep: { big: 9007199254740991 } }, { key: "ключ" }),
          wind.fire("T", Buffer.from([0, 255, 254]), { id: "upload-17" }),
          wind.fire("T", undefined, { cause: ["user", "alice"] }),
          wind.fire("T", "x".repeat(100_000)),
        ]));
        say(await wind.fire("T", "again", { id: "upload-17" }));
        await wind.close();
    """
    async with wind, running(text, url, tmp_path) as script:
        (ids,) = await script.line()
        assert await script.line() == ["upload-17"], "acknowledged, and not stored again"
        await wind.settled(timeout=60)
    assert [event.id for event in seen] == ids
    first, second, third, fourth = seen
    assert first.payload == {"text": "naïve 🌬", "list": [1, 2.5, None], "deep": {"big": 9007199254740991}}
    assert (first.key, first.cause.kind, first.root) == ("ключ", "application", first.id)
    assert first.process.startswith("script.mjs:")
    assert (second.payload, second.id) == (b"\x00\xff\xfe", "upload-17")
    assert (third.payload, third.cause.kind, third.cause.id) == (None, "user", "alice")
    assert len(fourth.payload) == 100_000
    assert ids[0] < ids[2] or first.time_ns == third.time_ns


@on_loop
async def test_a_payload_of_any_type_of_json_is_read_in_javascript(url: str, tmp_path: Path) -> None:
    kinds = ["application/json; charset=utf-8", "application/geo+json", "text/json;v=1", "application/jsonish"]
    event = {"specversion": "1.0", "type": "T", "source": "/s"}
    batch = [event | {"id": kind, "datacontenttype": kind, "data_base64": "eyJhIjoxfQ=="} for kind in kinds]
    text = """
        await wind.on("T", "p", { since: "beginning" }, ({ contentType, payload }) => {
          say(contentType, Buffer.isBuffer(payload) ? null : payload);
        });
        say("ready");
        await heard;
        await wind.close();
    """
    async with httpx.AsyncClient() as http, running(text, url, tmp_path) as script:
        assert await script.line() == ["ready"]
        headers = {"content-type": "application/cloudevents-batch+json"}
        answer = await http.post(f"http{url[2:]}/v1/topics/T/events", json=batch, headers=headers)
        assert answer.status_code == 202, answer.text
        found = dict([await script.line() for _ in kinds])
        script.tell()
    assert found == {kind: {"a": 1} for kind in kinds[:3]} | {kinds[3]: None}


@pytest.mark.long
@on_loop
async def test_many_fired_in_one_turn_are_several_batches_in_order(url: str, tmp_path: Path) -> None:
    wind = SolarWind(url)
    seen: list[int] = []

    @wind.on("T", purpose="p", concurrency=1)
    async def handle(number: int) -> None:
        seen.append(number)

    text = """
        await Promise.all(Array.from({ length: 10_000 }, (_, number) => wind.fire("T", number)));
        await wind.close();
    """
    async with wind, running(text, url, tmp_path) as script:
        await script.end()
        await wind.settled(timeout=60)
    assert seen == list(range(10_000))


@pytest.mark.long
@on_loop
async def test_what_python_fires_is_handled_and_settled_in_javascript(url: str, tmp_path: Path) -> None:
    text = """
        const { stop } = await wind.on("T", "p", { concurrency: 4 }, (event) => {
          const { id, key, payload, attempt, root, cause } = event;
          say(id, key, payload, attempt, root, cause);
          if (payload.last) setImmediate(() => stop().then(() => wind.close()));
        });
        say("ready");
    """
    wind = SolarWind(url)
    async with wind, running(text, url, tmp_path) as script:
        assert await script.line() == ["ready"]
        ids = [await wind.fire("T", {"n": n, "last": n == 99}, key=f"k{n}") for n in range(100)]
        seen = [await script.line() for _ in range(100)]
        await script.end()
        assert [each[:5] for each in seen] == [
            [id, f"k{n}", {"n": n, "last": n == 99}, 1, id] for n, id in enumerate(ids)
        ]
        assert seen[0][5][0] == "application"
        counts = (await wind.statistics()).purposes["T", "p"]
        assert (counts.settled, counts.pending, counts.in_flight, counts.instances) == (100, 0, 0, 0)


@pytest.mark.long
@on_loop
async def test_a_handler_that_throws_is_tried_again_and_then_dead(url: str, tmp_path: Path) -> None:
    text = f"""
        await wind.on("T", "p", {{ {QUICK}, concurrency: 4 }}, (event) => {{
          say(event.payload, event.attempt);
          if (event.payload === "raises") throw new Error("no such codec");
          if (event.payload === "rejects") throw new Reject("not a video");
          if (event.payload === "later" && !globalThis.later) {{ globalThis.later = true; throw new Later(0.01); }}
        }});
        say("ready");
        await heard;
        await wind.close();
    """
    wind = SolarWind(url)
    async with wind, running(text, url, tmp_path) as script:
        assert await script.line() == ["ready"]
        for what in ("raises", "rejects", "later", "fine"):
            await wind.fire("T", what)
        seen = [await script.line() for _ in range(6)]
        assert sorted(seen) == [
            *[["fine", 1], ["later", 1], ["later", 1], ["raises", 1], ["raises", 2], ["rejects", 1]],
        ]
        await until(lambda: counts(wind, dead=2, settled=2, pending=0, in_flight=0))
        letters = [(letter.event.payload, letter.error, letter.attempts) for letter in await wind.dead("T", "p")]
        assert letters == [("raises", "no such codec", 2), ("rejects", "not a video", 1)]
        script.tell()


async def counts(wind: SolarWind, **wanted: int) -> bool:
    found = (await wind.statistics()).purposes["T", "p"]
    return {name: getattr(found, name) for name in wanted} == wanted


@pytest.mark.long
@on_loop
async def test_what_a_handler_fires_is_accepted_with_its_settle_or_not_at_all(url: str, tmp_path: Path) -> None:
    wind = SolarWind(url)
    seen: list[Event] = []

    @wind.on("U", purpose="q")
    async def handle(event: Event) -> None:
        seen.append(event)

    text = f"""
        await wind.on("T", "p", {{ {QUICK}, version: 3 }}, async (event) => {{
          event.fire("U", event.payload, {{ key: "k" }});
          if (event.payload === "bad") throw new Error("after it fired");
          if (event.payload === "refused") event.fire("no topic", 1);
        }});
        say("ready");
        await heard;
        await wind.close();
    """
    async with wind, running(text, url, tmp_path) as script:
        assert await script.line() == ["ready"]
        id = await wind.fire("T", "good")
        await wind.fire_many("T", ["bad", "refused"])
        await until(lambda: counts(wind, dead=2, settled=1))
        await wind.settled(timeout=60)
        script.tell()
        (event,) = seen
        cause = event.cause
        assert (event.payload, event.key, event.root) == ("good", "k", id)
        assert (cause.kind, cause.id, cause.purpose, cause.version) == ("event", id, "p", 3)
        errors = {letter.event.payload: letter.error for letter in await wind.dead("T", "p")}
        assert errors["bad"] == "after it fired"
        assert "expected a topic" in errors["refused"]


@pytest.mark.long
@on_loop
async def test_keyed_goes_one_at_a_time_per_key_in_order(url: str, tmp_path: Path) -> None:
    text = """
        const busy = new Set();
        await wind.on("T", "p", { exchange: "keyed", key: "$.of", concurrency: 10 }, async ({ payload: { of, n } }) => {
          const alone = !busy.has(of);
          busy.add(of);
          await new Promise((resolve) => setTimeout(resolve, 1));
          busy.delete(of);
          say(of, n, alone, busy.size);
        });
        say("ready");
        await heard;
        await wind.close();
    """
    wind = SolarWind(url)
    async with wind, running(text, url, tmp_path) as script:
        assert await script.line() == ["ready"]
        await wind.fire_many("T", [{"of": "abc"[n % 3], "n": n} for n in range(60)])
        seen = [await script.line() for _ in range(60)]
        script.tell()
    for name, start in (("a", 0), ("b", 1), ("c", 2)):
        assert [n for of, n, *_ in seen if of == name] == list(range(start, 60, 3))
    assert all(alone for _, _, alone, _ in seen)
    assert any(others for *_, others in seen), "other keys go on meanwhile"


@pytest.mark.long
@on_loop
async def test_a_handler_that_becomes_slow_keeps_its_event_and_gives_back_what_it_had_ahead(
    url: str, tmp_path: Path
) -> None:
    """It takes much longer than its lease, which is renewed."""
    text = """
        await wind.on("T", "p", { lease: 5 }, async ({ payload, attempt }) => {
          if (payload !== 1000) return;
          say(attempt);
          await heard; // that all others are handled; and then some more leases
          await new Promise((resolve) => setTimeout(resolve, 7000));
        });
        say("ready");
        await heard;
        await wind.close();
    """
    wind = SolarWind(url)
    elsewhere: list[int] = []
    async with wind, running(text, url, tmp_path) as script:
        assert await script.line() == ["ready"]
        await wind.fire_many("T", list(range(3000)))
        assert await script.line() == [1]

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            elsewhere.append(number)

        await until(lambda: len(elsewhere) >= 1999 - 4, "what was not begun to be given back, but for a few")
        script.tell()
        await script.end()
        await wind.settled(timeout=60)
        assert 1000 not in elsewhere
        assert await counts(wind, settled=3000, retried=0, dead=0)


@pytest.mark.long
@on_loop
async def test_a_refusal_comes_with_its_code_and_the_connection_goes_on(url: str, tmp_path: Path) -> None:
    text = """
        const code = (promise) => promise.then((value) => ["fine", value], (error) => [error.code, error.message]);
        await wind.on("T", "p", {}, () => {});
        say(...(await code(wind.on("T", "p", { exchange: "fanout" }, () => {}))));
        say(...(await code(wind.on("T", " p", {}, () => {}))));
        say(...(await code(wind.fire("T", 1, { key: "k".repeat(257) }))));
        say(...(await code(wind.fire("T", "x".repeat(2 ** 20)))));
        say(...(await code(wind.call("retire", { topic: "T", purpose: "nobody" }))));
        say(...(await code(wind.call("retire", { topic: "T", purpose: "p" }))));
        const instance = await wind.on("U", "q", {}, () => {});
        await wind.call("retire", { topic: "U", purpose: "q", force: true });
        say((await instance.closed).message);
        say(...(await code(wind.fire("T", 1))));
        await wind.close();
        say(...(await code(wind.fire("T", 1))));
    """
    async with running(text, url, tmp_path) as script:
        code, message = await script.line()
        assert code == "conflict"
        assert "version=2" in message
        for expected in ("bad-name", "bad-name", "too-large", "not-found", "conflict"):
            code, message = await script.line()
            assert (code, message.startswith(("expected", "the payload"))) == (expected, True), message
        assert await script.line() == ["purpose 'q' on topic 'U' was retired"]
        assert (await script.line())[0] == "fine"
        assert (await script.line())[0] == "unavailable"


@pytest.mark.long
@on_loop
async def test_the_javascript_client_outlives_restarts_and_nothing_is_lost_or_stored_twice(tmp_path: Path) -> None:
    """The server is killed twice while events are fired and handled at full pace."""
    serving = Serving(tmp_path)
    text = """
        const seen = new Map();
        await wind.on("T", "p", { concurrency: 10 }, ({ payload }) => {
          seen.set(payload, (seen.get(payload) ?? 0) + 1);
          if (payload % 1000 === 0) say("handled", payload);
        });
        const all = [];
        let more = true;
        heard.then(() => (more = false));
        while (more) {
          for (let count = 0; count < 100; count++) all.push(wind.fire("T", all.length));
          if (all.length % 10_000 === 0) await all.at(-1);
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
        const ids = await Promise.all(all);
        while (seen.size < all.length) await new Promise((resolve) => setTimeout(resolve, 5));
        say(ids.length, new Set(ids).size);
        await wind.close();
    """
    await serving.start()
    try:
        async with running(text, serving.url, tmp_path) as script:
            for _ in range(2):
                handled = await script.line()
                await serving.end(signal.SIGKILL)
                await serving.start()
                while (await script.line())[1] <= handled[1] + 3000:
                    pass
            script.tell()
            while (line := await script.line())[0] == "handled":
                pass
            count, distinct = line
        async with SolarWind(serving.url) as wind:
            assert count == distinct
            assert (await wind.statistics()).topics["T"].fired == count
            assert await counts(wind, pending=0, in_flight=0, dead=0)
    finally:
        serving.kill()


@pytest.mark.long
@on_loop
async def test_a_server_that_says_nothing_is_noticed_and_all_goes_on_when_it_is_back(tmp_path: Path) -> None:
    serving = Serving(tmp_path, "--heartbeat-s", 0.4)
    text = """
        let over;
        const handled = new Promise((resolve) => (over = resolve));
        await wind.on("T", "p", {}, ({ payload }) => over(payload));
        say("ready");
        await heard;
        say(await wind.call("topics").catch((error) => error.code));
        say(await handled);
        await wind.close();
    """
    await serving.start()
    try:
        async with running(text, serving.url, tmp_path) as script:
            assert await script.line() == ["ready"]
            serving.send(signal.SIGSTOP)
            script.tell()
            assert await script.line() == ["unavailable"]
            serving.send(signal.SIGCONT)
            async with SolarWind(serving.url) as wind:
                await wind.fire("T", "x")
                assert await script.line() == ["x"]
    finally:
        serving.kill()


@pytest.mark.long
def test_the_program_fires_and_listens(url: str) -> None:
    listening = subprocess.Popen(
        command(str(CLIENT), url, "listen", "T", "Look at it"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert listening.stdout is not None
    assert listening.stderr is not None
    try:
        assert listening.stderr.readline() == "listening to T for Look at it\n"
        fired = run("fire", "T", '{"name": "cat.mov"}', "cat", url=url)
        event = json.loads(listening.stdout.readline())
        assert (event["id"], event["key"], event["payload"]) == (fired.stdout.strip(), "cat", {"name": "cat.mov"})
        assert run("fire", "T", "-", url=url, given="1\n2\n3\n").stderr == "3 events fired\n"
        assert [json.loads(listening.stdout.readline())["payload"] for _ in range(3)] == [1, 2, 3]
    finally:
        listening.terminate()
        rest, errors = listening.communicate(timeout=300)
    assert (listening.returncode, rest, errors) == (0, "", "")


def run(*words: str, url: str, given: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(str(CLIENT), url, *words), input=given, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.long
def test_the_program_says_in_one_line_what_is_wrong(url: str) -> None:
    assert run("fire", "T", url=url, code=1).stderr.startswith("usage: client.mjs URL fire")
    assert run("fire", "T", "1", url="ws://127.0.0.1:1", code=1).stderr.startswith("unavailable: expected a server at")
    assert run("fire", "T", "{", url=url, code=1).stderr.startswith("SyntaxError: ")
    refused = run("listen", "T", "p", "nearest", url=url, code=1).stderr
    assert refused.startswith("bad-argument: expected an exchange, one of direct,")
    assert refused.count("\n") == 1


@pytest.mark.long
def test_a_node_without_a_websocket_is_told_of_in_one_line(url: str) -> None:
    without = ["--import", "data:text/javascript,delete globalThis.WebSocket"]
    refused = subprocess.run(
        command(*without, str(CLIENT), url, "fire", "T", "1"), capture_output=True, text=True, timeout=300, check=False
    )
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1), refused.stderr
    assert refused.stderr.startswith("usage: expected a WebSocket, got none: take Node 22 or newer, or 20 with")
