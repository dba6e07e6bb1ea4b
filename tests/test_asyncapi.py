"""AsyncAPI documents, of apps and of dispatchers, as AsyncAPI's own parser reads them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from solarwind import Event, Retry, SolarWind
from solarwind.asyncapi import document, encode
from solarwind.records import SchemaInfo
from solarwind.server import app
from solarwind.testing.contract import on_loop
from test_schemas import Animal, Cat, Dog, Holds, OneColour, Tree, Typed, Video

HERE = Path(__file__).parent
PARSER = HERE.parent / ".venv" / "asyncapi.js"
NODE = shutil.which("node")
needs_parser = pytest.mark.skipif(
    NODE is None or not PARSER.exists(), reason="needs Node, and AsyncAPI's parser as `make test` has it"
)


def diagnostics(*made: dict[str, Any] | bytes, folder: Path) -> str:
    """Return what the parser says of documents."""
    files = [folder / f"{number}.json" for number in range(len(made))]
    for file, each in zip(files, made, strict=True):
        file.write_bytes(each if isinstance(each, bytes) else encode(each))
    assert NODE is not None
    done = subprocess.run([NODE, HERE / "asyncapi.mjs", PARSER, *files], capture_output=True, text=True, timeout=600)
    return done.stdout + done.stderr


def shop() -> SolarWind:
    wind = SolarWind("memory://")
    wind.topic("video.uploaded", schema=Video)
    wind.every("5m", "report.due", None)

    @wind.on("video.uploaded", purpose="Encode video / to MP4: ü", exchange="keyed", key="$.name", retry=Retry(3))
    async def encode(video: Video) -> None:
        wind.fire("video.encoded", {"name": video.name})

    @wind.on("video.uploaded", purpose="Encode video - to MP4: ö", version=2)
    async def again(videos: list[OneColour]) -> None: ...

    for number, type_ in enumerate((Animal, Cat | Dog, Holds, Tree, Typed, bytes, tuple[int, str], Video | bytes, Any)):

        def handle(payload: Any, event: Event) -> None: ...

        handle.__annotations__["payload"] = type_
        wind.on("every_kind-of.payload", purpose=f"種類 {number}")(handle)
    return wind


@needs_parser
def test_the_document_of_an_app_has_no_diagnostic(tmp_path: Path) -> None:
    made = shop().asyncapi(title="Shop", version="1.0.0")
    assert diagnostics(made, SolarWind("memory://").asyncapi(), folder=tmp_path) == ""


@needs_parser
def test_what_is_wrong_with_a_document_is_found_by_the_parser(tmp_path: Path) -> None:
    made = shop().asyncapi()
    next(iter(made["operations"].values()))["action"] = "eat"
    assert '"action" property must be equal to one of the allowed values' in diagnostics(made, folder=tmp_path)


def test_a_purpose_receives_with_its_exchange_and_what_is_stated_is_sent() -> None:
    made = shop().asyncapi()
    operations = {each["summary"]: each for each in made["operations"].values()}
    receives = operations["Encode video / to MP4: ü (version 1)"]
    assert receives["x-solarwind"] == {
        "purpose": "Encode video / to MP4: ü",
        "version": 1,
        "exchange": "keyed",
        "key": "$.name",
        "retry": {"attempts": 3, "wait": 1.0, "factor": 2.0, "ceiling": 600.0},
    }
    assert receives["channel"] == {"$ref": "#/channels/video.uploaded"}
    assert operations["Fire on video.uploaded"]["x-solarwind"] == {"stated": True, "firedBy": []}
    assert operations["Fire on report.due"]["x-solarwind"] == {"stated": False, "firedBy": []}
    assert made["components"]["messages"]["Video"]["payload"] == {"$ref": "#/components/schemas/Video"}
    assert len(made["operations"]) == 2 + 9 + 2


@needs_parser
@on_loop
async def test_a_server_has_the_document_of_all_that_it_knows(tmp_path: Path) -> None:
    import httpx

    wind = shop()
    async with wind:
        async with app(wind).lifespan(None):
            pass
        server = app(wind, hosts=["wind.example"])
        await server.start()
        await wind.fire("video.uploaded", {"name": "cat.mov", "seconds": 1})
        await wind.settled(60)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(server), base_url="https://wind.example:7400"
        ) as client:
            answer = await client.get("/asyncapi.json")
            listed = (await client.get("/v1/schemas", params={"topic": "video.uploaded"})).json()
        await server.stop()
    made = answer.json()
    assert diagnostics(answer.content, folder=tmp_path) == ""
    assert made["servers"]["dispatcher"] == {
        "host": "wind.example:7400",
        "pathname": "/v1/connect",
        "protocol": "wss",
        "protocolVersion": "solarwind.v1",
    }
    sent = {each["summary"]: each["x-solarwind"] for each in made["operations"].values() if each["action"] == "send"}
    encoded = {"topic": "video.uploaded", "purpose": "Encode video / to MP4: ü", "version": 1}
    assert sent["Fire on video.encoded"] == {"stated": False, "firedBy": [encoded]}
    assert [each["version"] for each in listed["schemas"]] == [0, 2, 1]


@needs_parser
def test_a_schema_that_is_none_does_not_keep_the_document_from_the_others(tmp_path: Path) -> None:
    odd: list[dict[str, Any]] = [
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"$ref": 7},
        {"$defs": 5, "properties": []},
        {"$ref": "#/$defs/gone"},
    ]
    infos = [SchemaInfo("T", f"p{number}", 1, "direct", schema=each) for number, each in enumerate(odd)]
    made = document(infos, title="T", version="1")
    assert len(json.loads(encode(made))["operations"]) == len(odd)


@needs_parser
def test_the_command_prints_and_writes_the_document_of_an_app_without_running_it(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from solarwind import SolarWind\n\nwind = SolarWind('ws://127.0.0.1:9')\n\n\n"
        "@wind.on('order.placed')\nasync def ship(order: dict[str, int]) -> None: ...\n"
    )

    def docs(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "solarwind", "docs", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    printed, written = docs(), docs("app:wind", "--output", "made.json", "--title", "Shop", "--release", "1.4.0")
    assert (printed.returncode, written.returncode) == (0, 0), printed.stderr + written.stderr
    assert written.stdout == "made.json has 1 operation\n"
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["info"] == {"title": "Shop", "version": "1.4.0"}
    assert diagnostics(printed.stdout.encode(), folder=tmp_path) == ""
    both = docs("app:wind", "--url", "memory://")
    assert (both.returncode, "both" in both.stderr) == (2, True)
    missing = docs("nothing:here")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (1, 1)
