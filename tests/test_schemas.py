"""Schemas of types, what cannot be read as another, and topics whose payloads have a type."""

from __future__ import annotations

import enum
import json
import sqlite3
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest

from solarwind import BadArgument, BadPayload, Event, SolarWind, StoreError
from solarwind.engine import schemas
from solarwind.schema import MAX_SCHEMA_BYTES, read_schema, schema_of, unreadable
from solarwind.testing.contract import on_loop


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Video(msgspec.Struct):
    name: str
    seconds: int
    colour: Colour = Colour.RED


class OneColour(msgspec.Struct):
    name: str
    seconds: int
    colour: Literal["red"] = "red"


class Titled(msgspec.Struct):
    name: str
    title: str


class OptionalName(msgspec.Struct):
    name: str = ""


class Texts(msgspec.Struct):
    name: str
    seconds: str


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class Long(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=3)]


class Tree(msgspec.Struct):
    value: int
    children: list[Tree] = []


class TextTree(msgspec.Struct):
    value: str
    children: list[TextTree] = []


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    name: str


class ModelCat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int = pydantic.Field(alias="livesLeft")


class ModelDog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: str

    @pydantic.field_validator("name")
    @classmethod
    def _no_cat(cls, name: str) -> str:
        if name == "cat":
            raise ValueError("a dog is no cat")
        return name


Animal = Annotated[ModelCat | ModelDog, pydantic.Field(discriminator="kind")]


@dataclass
class Holds:
    model: ModelCat
    notes: list[str] = field(default_factory=list)


class Typed(TypedDict):
    name: str


def name_of(each: Any) -> str:
    """Return the name of a parametrized test, the same in each process."""
    return str(getattr(each, "__name__", each))


def schema(type_: Any) -> dict[str, Any]:
    return read_schema(schema_of(type_))


# Of types -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [Any, object, msgspec.Raw, Event, schema_of], ids=name_of)
def test_what_says_nothing_of_a_payload_has_no_schema(type_: Any) -> None:
    assert schema_of(type_) == b""


def test_bytes_are_described_as_they_come_and_not_as_text_in_json() -> None:
    assert schema(bytes) == {"type": "string", "format": "binary"}
    both = schema(Video | bytes)
    assert both["anyOf"] == [{"$ref": "#/$defs/Video"}, {"type": "string", "format": "binary"}]


def test_a_model_of_pydantic_is_described_by_its_aliases_also_within_another_type() -> None:
    for type_ in (ModelCat, Holds, list[ModelCat], Animal):
        described = schema(type_)["$defs"]["ModelCat"]
        assert described["required"] == ["kind", "livesLeft"]
    assert schema(ModelCat)["$ref"] == "#/$defs/ModelCat"
    assert schema(Holds)["$defs"]["Holds"]["properties"]["model"] == {"$ref": "#/$defs/ModelCat"}
    assert schema(Animal)["discriminator"]["propertyName"] == "kind"


def test_models_and_other_types_of_one_name_within_a_type_stay_apart() -> None:
    def model(name: str, **fields: Any) -> Any:
        return pydantic.create_model(name, **{each: (type_, ...) for each, type_ in fields.items()})

    shared = model("Shared", q=int)
    first, second = model("Same", x=int, of=shared), model("Same", y=str, of=shared)
    struct = msgspec.defstruct("Same", [("z", bool)])
    for fields in ([("a", first), ("b", second)], [("a", first), ("b", struct)], [("a", list[first]), ("b", second)]):
        found = schema(make_dataclass("Holder", fields))
        properties = found["$defs"]["Holder"]["properties"]
        read = [properties["a"].get("items", properties["a"]), properties["b"]]
        names = [each["$ref"].removeprefix("#/$defs/") for each in read]
        other = "z" if fields[1][1] is struct else "y"
        assert [next(iter(found["$defs"][name]["properties"])) for name in names] == ["x", other]
        assert len([name for name in found["$defs"] if name.endswith("Shared")]) == 1


def test_a_schema_that_is_too_large_is_left_out() -> None:
    names = {f"field_{number}": (int, 0) for number in range(MAX_SCHEMA_BYTES // 20)}
    large: Any = msgspec.defstruct("Large", [(name, *each) for name, each in names.items()])
    assert schema_of(large) == b""
    with pytest.raises(BadArgument, match="at most 49,152 bytes"):
        SolarWind("memory://").topic("T", schema=large)


@pytest.mark.parametrize(
    "data",
    [b"", b"5", b"[]", b"{", b"[" * 5_000, b'{"a":' * 200 + b"0" + b"}" * 200, b'{"a":"' + b"x" * 50_000 + b'"}'],
    ids=lambda data: f"{data[:8]!r} {len(data)}",
)
def test_what_is_no_schema_is_refused_whoever_sent_it(data: bytes) -> None:
    with pytest.raises(BadArgument, match="expected a schema"):
        read_schema(data)


# Compared -----------------------------------------------------------------------------------------------------------

FAULTS: list[tuple[Any, Any, list[str]]] = [
    (Video, Titled, ["field $.title is required, and does not come"]),
    (OptionalName, Titled, ["field $.name is required, and may be left out", "field $.title is required, and does"]),
    (Video, Texts, ["string is expected at $.seconds, and integer comes"]),
    (Video, OneColour, ["value 'blue' at $.colour is not accepted"]),
    (Video, Strict, ["field $.seconds comes, and is not expected", "field $.colour comes, and is not expected"]),
    (Titled, Long, ["minLength 3 is expected at $.name, and none is stated"]),
    (Tree, TextTree, ["string is expected at $.value, and integer comes"]),
    (Cat | Dog, Cat, ["value 'Dog' at $.type is not accepted"]),
    (ModelCat | ModelDog, ModelCat, ["value 'dog' at $.kind is not accepted", "field $.livesLeft is required, and"]),
    (Video | None, Video, ["object is expected at $, and null comes"]),
    (list[int], list[str], ["string is expected at $[], and integer comes"]),
    (tuple[int, str], tuple[int, int], ["integer is expected at $[1], and string comes"]),
    (float, int, ["integer is expected at $, and number comes"]),
    (str, Literal["a", "b"], ["one of 2 values is expected at $, and any string may come"]),
    (dict[str, int], Titled, ["string is expected at $.name, and integer", "string is expected at $.title, and"]),
    (str, int | list[int], ["string at $ is not accepted"]),
]


@pytest.mark.parametrize(("written", "read", "faults"), FAULTS, ids=str)
def test_why_what_comes_cannot_be_read_is_said_with_its_place(written: Any, read: Any, faults: list[str]) -> None:
    found = unreadable(schema(written), schema(read))
    assert len(found) == len(faults), found
    for each, expected in zip(found, faults, strict=True):
        assert each.startswith(expected)


TEXT, OBJECT = {"type": "string"}, {"type": "object"}
NAMED = OBJECT | {"properties": {"name": TEXT}, "required": ["name"]}
NUMBERED = OBJECT | {"properties": {"number": {"type": "integer"}}, "required": ["number"]}
WHOLE = {"type": "integer"}


def items(*first: dict[str, Any], rest: Any = False) -> dict[str, Any]:
    return {"type": "array", "prefixItems": list(first), "items": rest}


@pytest.mark.parametrize(
    ("written", "read", "fault"),
    [
        (WHOLE | {"minimum": 1}, WHOLE | {"exclusiveMinimum": 0}, ""),
        (WHOLE | {"exclusiveMinimum": 0}, WHOLE | {"minimum": 1}, ""),
        ({"type": "number", "exclusiveMinimum": 0}, {"type": "number", "minimum": 0}, ""),
        ({"type": "number", "minimum": 0}, {"type": "number", "exclusiveMinimum": 0}, "exclusiveMinimum 0 is expected"),
        (WHOLE | {"maximum": 9}, WHOLE | {"exclusiveMaximum": 10}, ""),
        (WHOLE | {"maximum": 9}, WHOLE | {"exclusiveMaximum": 9}, "exclusiveMaximum 9 is expected at $, and maximum 9"),
        (WHOLE | {"exclusiveMaximum": 11}, WHOLE | {"maximum": 9}, "maximum 9 is expected at $, and exclusiveMaximum"),
        (WHOLE, WHOLE | {"exclusiveMaximum": 9}, "exclusiveMaximum 9 is expected at $, and none is stated"),
        (TEXT, TEXT | {"format": "date-time"}, "format 'date-time' is expected at $, and none is stated"),
        (TEXT, TEXT | {"pattern": "^a"}, "pattern '^a' is expected at $, and none is stated"),
        (TEXT, TEXT | {"format": "password"}, ""),
        (TEXT | {"format": "uuid4"}, TEXT | {"format": "uuid"}, ""),
        (TEXT | {"format": "date"}, TEXT | {"format": "date-time"}, "format 'date-time' is expected at $, and 'date'"),
        ({"allOf": [NAMED, NUMBERED]}, NUMBERED, ""),
        ({"allOf": [NAMED]} | NUMBERED, NAMED, ""),
        ({"allOf": [{"$ref": "#/$defs/N"}], "$defs": {"N": NAMED}, "properties": {}}, NAMED, ""),
        (NAMED, {"allOf": [NAMED, NUMBERED]}, "field $.number is required, and does not come"),
        (NAMED, OBJECT | {"additionalProperties": False, "patternProperties": {"^n": TEXT}}, ""),
        (OBJECT | {"properties": {}, "patternProperties": {"^n": TEXT}}, NAMED, ""),
        (NAMED, OBJECT | {"properties": {"name": False}}, "nothing is expected at $.name, and something comes"),
        (OBJECT | {"properties": {"name": False}}, NAMED | {"required": []}, ""),
        (items(WHOLE, TEXT), {"type": "array", "items": WHOLE}, "integer is expected at $[1], and string comes"),
        ({"type": "array", "items": WHOLE}, items(WHOLE, TEXT), "string is expected at $[1], and integer comes"),
        (items(WHOLE, TEXT), items(WHOLE, TEXT), ""),
        (items(WHOLE), items(WHOLE, TEXT, rest=TEXT), ""),
        ({"not": TEXT}, WHOLE, ""),
        (True, WHOLE, ""),
        (
            OBJECT | {"properties": {"a\nb\x1b[0m": TEXT}},
            OBJECT | {"additionalProperties": False},
            "field $.a\\nb\\x1b[0m",
        ),
        (WHOLE | {"minimum": 10**400}, WHOLE | {"minimum": 1.5}, ""),
    ],
    ids=lambda each: json.dumps(each)[:60],
)
def test_bounds_formats_parts_and_patterns_are_compared_by_what_they_mean(written: Any, read: Any, fault: str) -> None:
    found = unreadable(
        {"properties": {"at": written}, "type": "object", **_defs(written)},
        {"properties": {"at": read}, "type": "object"},
    )
    assert len(found) == bool(fault), found
    assert "".join(found).replace("$.at", "$").startswith(fault)


def _defs(written: Any) -> dict[str, Any]:
    return {"$defs": written["$defs"]} if isinstance(written, dict) and "$defs" in written else {}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *((each, each) for each in (Video, Tree, Cat | Dog, Animal, Holds, Typed, dict[str, int], int | None)),
        (int, float),
        (Cat, Cat | Dog),
        (OneColour, Video),
        (Titled, OptionalName),
        (Video, Typed),
        (dict, Video),
        (Video, dict),
        (list, list[int]),
        (ModelCat, Animal),
    ],
    ids=str,
)
def test_what_can_be_read_has_no_fault_nor_has_what_is_left_open(written: Any, read: Any) -> None:
    assert unreadable(schema(written), schema(read)) == []


@pytest.mark.parametrize(
    "odd",
    [
        {"required": 5, "type": "object"},
        {"properties": [1], "type": "object"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"$ref": 7},
        {"anyOf": 5, "enum": 5},
        {"type": {"a": 1}, "$defs": []},
        {"prefixItems": 5, "items": [5]},
    ],
    ids=str,
)
def test_what_is_no_json_schema_says_nothing_and_breaks_nothing(odd: dict[str, Any]) -> None:
    assert unreadable(odd, odd) == []
    unreadable(odd, schema(Video))
    unreadable(schema(Video), odd)


# Stated -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "no_type", ["Video", {"type": "object"}, None, 5, b"{}", [int], schema_of, SolarWind], ids=name_of
)
def test_a_schema_that_is_no_type_of_a_payload_is_refused_in_one_sentence(no_type: Any) -> None:
    with pytest.raises(BadArgument, match=r"^expected (schema= to be a type|a payload type)") as refused:
        SolarWind("memory://").topic("T", schema=no_type)
    assert "\n" not in str(refused.value)


@on_loop
async def test_a_union_with_a_tag_or_a_discriminator_is_checked_and_handled_as_its_member(tmp_path: Path) -> None:
    wind, seen = SolarWind("memory://"), list[Any]()
    wind.topic("own", schema=Cat | Dog)
    wind.topic("models", schema=Animal)

    @wind.on("own")
    async def own(animal: Cat | Dog) -> None:
        seen.append(animal)

    @wind.on("models")
    async def models(animal: Animal) -> None:
        seen.append(animal)

    async with wind:
        wind.fire("own", Dog("rex"))
        wind.fire("models", ModelCat(kind="cat", livesLeft=9))
        await wind.fire("models", {"kind": "dog", "name": "rex"})
        for topic, wrong, words in (
            ("own", {"type": "Cow", "name": "x"}, "Cow"),
            ("models", {"kind": "cow"}, "kind"),
            ("models", {"kind": "dog", "name": "cat"}, "a dog is no cat"),
            ("models", {"kind": "cat"}, "livesLeft"),
        ):
            with pytest.raises(BadPayload, match=words):
                wind.fire(topic, wrong)
        await wind.settled(60)
    assert [type(each) for each in seen] == [Dog, ModelCat, ModelDog]
    assert seen[1].lives == 9


@on_loop
async def test_every_way_to_fire_is_checked(tmp_path: Path) -> None:
    wind = SolarWind("memory://")
    wind.topic("T", schema=Titled)
    connection = sqlite3.connect(tmp_path / "shop.db")
    outbox = wind.outbox(connection)
    ways = {
        "fire": lambda: wind.fire("T", {"name": "a"}),
        "fire with a key": lambda: wind.fire("T", {"name": "a"}, key="k"),
        "fire bytes": lambda: wind.fire("T", b"a"),
        "fire many": lambda: wind.fire_many("T", [Titled("a", "b"), {"name": "a"}]),
        "outbox": lambda: outbox.fire("T", {"name": "a"}),
        "outbox, many": lambda: outbox.fire_many("T", [{"name": "a"}]),
        "schedule": lambda: wind.every("5m", "T", {"name": "a"}),
    }
    async with wind:
        for name, way in ways.items():
            with pytest.raises(BadPayload, match="for topic 'T' that is a Titled"):
                way()
            assert (await wind.statistics()).topics["T"].fired == 0, name
        await wind.fire("T", Titled("a", "b"))
        await wind.fire("U", {"name": "a"})


@on_loop
async def test_a_store_that_keeps_no_schema_keeps_nobody_from_starting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wind, seen = SolarWind("memory://"), list[str]()
    wind.topic("T", schema=Titled)

    @wind.on("T", purpose="p")
    async def handle(titled: Titled) -> None:
        seen.append(titled.name)

    async def full(*given: Any, **how: Any) -> None:
        raise StoreError("there is no room")

    monkeypatch.setattr(wind.engine.definitions, "put", full)
    async with wind:
        await wind.fire("T", Titled("a", "b"))
        await wind.settled(60)
        assert await wind.attention() == []
        assert [each.schema for each in await wind.schemas()] == [None]
    assert seen == ["a"]
    for what in ("topic 'T'", "version 1 of purpose 'p' on topic 'T'"):
        assert f"the schema of {what} is not kept: there is no room" in caplog.text


@on_loop
async def test_there_is_an_end_to_the_schemas_of_many_that_join_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "MAX_SCHEMAS", 5)
    wind = SolarWind(f"sqlite:///{tmp_path}/wind.db")
    for number in range(50):

        async def handle(titled: Titled) -> None: ...

        wind.on(f"T{number}", purpose="p")(handle)
    async with wind:
        assert len(await wind.engine.definitions.list("schema")) == 5


@on_loop
async def test_there_is_an_end_to_the_schemas_that_are_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(schemas, "MAX_SCHEMAS", 2)
    wind = SolarWind("memory://")
    for number in range(3):

        async def handle(titled: Titled) -> None: ...

        wind.on("T", purpose=f"p{number}")(handle)
    async with wind:
        assert len([each for each in await wind.schemas() if each.schema is not None]) == 2
        assert "is not kept, since there are 2 of" in caplog.text
        await wind.retire("T", "p0", force=True)
        await wind.retire("T", "p1", force=True)
        await wind.retire("T", "p2", force=True)
        assert not await wind.engine.definitions.list("schema")


def test_a_topic_with_a_schema_needs_no_right_to_set_what_it_keeps() -> None:
    wind = SolarWind("memory://")
    wind.topic("T", schema=Titled)
    assert not wind._settings
    wind.topic("T", keep=60)
    assert list(wind._settings) == ["T"]


# Documents ----------------------------------------------------------------------------------------------------------


def test_types_of_one_name_that_differ_are_two_messages() -> None:
    wind = SolarWind("memory://")

    def named_video(fields: list[Any]) -> Any:
        return msgspec.defstruct("Video", fields)

    for number, type_ in enumerate((Video, named_video([("a", int)]), named_video([("a", str)]), Video)):

        def handle(payload: Any) -> None: ...

        handle.__annotations__ = {"payload": type_, "return": None}
        wind.on("T", purpose=f"p{number}")(handle)
    made = wind.asyncapi(title="Shop", version="1.2.3")
    assert made["info"] == {"title": "Shop", "version": "1.2.3"}
    assert list(made["components"]["schemas"]) == ["Video", "Colour", "Video-2", "Video-3"]
    read = [each["messages"][0]["$ref"].rpartition("/")[2] for each in made["operations"].values()]
    assert read == ["Video", "Video-2", "Video-3", "Video"]
    json.dumps(made)
