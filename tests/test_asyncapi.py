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


ODD: list[dict[str, Any]] = [
    {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
    {"$ref": "#"},
    {"$ref": 7, "$defs": 5, "properties": []},
    {"$ref": "#/$defs/gone", "description": "of what is not there"},
    {"$ref": "https://schemas.example/video.json"},
    {"$ref": "#/$defs/A", "$defs": {"A": False}},
    {"$ref": "#/$defs/A", "$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}]}}},
    {
        "type": "widget",
        "enum": [],
        "required": "a",
        "minLength": -1,
        "minimum": "low",
        "allOf": [],
        "not": 5,
        "title": 5,
    },
    {"type": ["string", "string"], "enum": [1, 1], "required": ["a", "a"], "multipleOf": 0, "format": 5, "items": 5},
    {"uniqueItems": "yes", "examples": {}, "discriminator": 5, "dependencies": {"a": 5}, "maxItems": 1.5},
    {"externalDocs": 5, "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://schemas.example/"},
    {
        "default": {"$ref": "#/gone"},
        "const": {"$ref": 7},
        "examples": [{"a": [{"$ref": "#/gone"}]}],
        "x-a": {"$ref": "/"},
    },
    {"properties": {"$ref": {"type": "string"}, "__proto__": {"type": "string"}, "enum": {"type": "string"}}},
    {
        "unevaluatedProperties": {"$ref": "#/$defs/gone"},
        "dependentSchemas": {"a": {}},
        "dependentRequired": {"b": ["a"]},
    },
]


@needs_parser
def test_the_document_of_an_app_has_no_diagnostic_nor_has_one_with_schemas_that_are_none(tmp_path: Path) -> None:
    made = shop().asyncapi(title="Shop", version="1.0.0")
    infos = [SchemaInfo("T", f"p{number}", 1, "direct", schema=each) for number, each in enumerate(ODD)]
    odd = document(infos, title="T", version="1")
    assert len(odd["operations"]) == len(ODD)
    assert diagnostics(made, SolarWind("memory://").asyncapi(), odd, folder=tmp_path) == ""


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


def test_references_lead_where_they_led_and_what_is_data_stays_as_it_is(tmp_path: Path) -> None:
    schema = {
        "title": "Tree",
        "properties": {
            "children": {"items": {"$ref": "#"}},
            "either": {"$ref": "#/$defs/a~1b~0c", "description": "beside"},
            "inner": {"$ref": "#/$defs/Outer/$defs/Inner"},
            "spaced": {"$ref": "#/$defs/two%20words"},
            "like": {"$ref": "#/properties/data"},
            "data": {"enum": ["#/$defs/Outer", {"prefixItems": [1]}], "default": {"items": 5, "not": "a schema"}},
            "default": {"type": "integer"},
        },
        "$defs": {
            "a/b~c": {"type": "string"},
            "two words": {"type": "null"},
            "Outer": {"type": "object", "$defs": {"Inner": {"type": "boolean"}}},
        },
    }
    made = document([SchemaInfo("T", schema=schema)], title="T", version="1")

    def found(each: dict[str, Any]) -> dict[str, Any]:
        at: dict[str, Any] = made
        for step in each["$ref"].removeprefix("#/").split("/"):
            at = at[step]
        return at

    payload = made["components"]["messages"]["Tree"]["payload"]
    fields = payload["properties"]
    assert found(fields["children"]["items"]) == payload
    assert fields["either"] == {"description": "beside", "allOf": [{"$ref": "#/components/schemas/a-b-c"}]}
    assert found(fields["either"]["allOf"][0]) == {"type": "string"}
    assert found(fields["inner"]) == {"type": "boolean"}
    assert found(fields["spaced"]) == {"type": "null"}
    assert found(fields["like"]) == fields["data"] == schema["properties"]["data"]  # type: ignore[index]
    assert fields["default"] == {"type": "integer"}
    assert sorted(made["components"]["schemas"]) == ["Inner", "Tree", "a-b-c", "data", "two-words"]


def test_names_that_are_one_word_stay_apart_whatever_their_order() -> None:
    def reads(*names: str, of: str = "string") -> dict[str, Any]:
        members = [{"$ref": f"#/$defs/{name}"} for name in names]
        return {"anyOf": members, "$defs": {name: {"type": of, "title": name} for name in names}}

    def named(*schemas: dict[str, Any]) -> list[list[str]]:
        infos = [SchemaInfo("T", f"p{number}", 1, "direct", schema=each) for number, each in enumerate(schemas)]
        made = document(infos, title="T", version="1")
        there = made["components"]["schemas"]
        read = [made["components"]["messages"][name]["payload"]["anyOf"] for name in made["components"]["messages"]]
        return [[there[each["$ref"].rpartition("/")[2]]["title"] for each in members] for members in read]

    first, second = reads("K\u00f6ln", "K\u00faln", "K-ln"), reads("K\u00faln", "K\u00f6ln", "K-ln-2")
    assert named(first, second) == [["K\u00f6ln", "K\u00faln", "K-ln"], ["K\u00faln", "K\u00f6ln", "K-ln-2"]]
    alike = [reads("Video", of=kind) for kind in ("string", "integer", "string")]
    assert (
        len(
            document([SchemaInfo(f"T{n}", schema=each) for n, each in enumerate(alike)], title="T", version="1")[
                "components"
            ]["schemas"]
        )
        == 2
    )


def test_a_document_of_many_types_with_one_name_is_made_in_one_pass() -> None:
    """With a comparison of each with each it would take minutes."""
    chain = {f"A{at}": {"$ref": f"#/$defs/A{at + 1}"} for at in range(1_500)}
    schemas = [
        *({"$ref": "#/$defs/A", "$defs": {"A": {"const": number}}} for number in range(2_000)),
        {"anyOf": [{"$ref": "#/$defs/A1460"}, {"$ref": "#/$defs/A0"}], "$defs": chain | {"A1500": {"type": "string"}}},
    ]
    made = document(
        [SchemaInfo("T", f"p{n}", 1, "direct", schema=each) for n, each in enumerate(schemas)], title="T", version="1"
    )
    assert {"A", "A-2", "A-2000"} <= made["components"]["schemas"].keys()


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
    for words, says in (
        (("nothing:here",), "expected a module 'nothing'"),
        (("app:wind", "--title", ""), "expected title of an AsyncAPI document"),
        (
            ("app:wind", "--output", "none/made.json"),
            "expected --output to be a file that can be written, got none/made",
        ),
    ):
        refused = docs(*words)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
        assert says in refused.stderr
