"""Payloads that are pydantic's: what was fired is what a handler of that type gets, or `fire` refuses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest
from pydantic import AliasChoices, AliasGenerator, AliasPath, BaseModel, ConfigDict, Field, RootModel, SecretStr
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass

from solarwind import BadArgument, BadPayload, SolarWind
from solarwind.testing.contract import on_loop

T = TypeVar("T")


class Aliased(BaseModel):
    number: int = Field(0, alias="N")


class Required(BaseModel):
    model_config = ConfigDict(extra="forbid")
    number: int = Field(alias="N")


class ToRead(BaseModel):
    number: int = Field(0, validation_alias="N")


class ToWrite(BaseModel):
    model_config = ConfigDict(extra="forbid")
    number: int = Field(serialization_alias="N")


class Apart(BaseModel):
    number: int = Field(0, validation_alias="read", serialization_alias="written")


class Choices(BaseModel):
    number: int = Field(0, validation_alias=AliasChoices("n", AliasPath("numbers", 0)))


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
    video_id: int = 0


class Generated(BaseModel):
    model_config = ConfigDict(alias_generator=AliasGenerator(validation_alias=to_camel, serialization_alias=str.upper))
    video_id: int = 0


class Nested(BaseModel):
    aliased: Aliased
    several: list[Aliased] = []
    named: dict[str, Choices] = {}
    perhaps: ToRead | None = None


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int

    @pydantic.computed_field
    @property
    def area(self) -> int:
        return self.side * self.side


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Words(BaseModel):
    words: list[str]

    @pydantic.field_serializer("words")
    def _join(self, words: list[str]) -> str:
        return " ".join(words)

    @pydantic.field_validator("words", mode="before")
    @classmethod
    def _split(cls, words: Any) -> Any:
        return words.split() if isinstance(words, str) else words


class Numbers(RootModel[list[int]]):
    pass


class Box(BaseModel, Generic[T]):
    value: T = Field(alias="V")


class Colour(Enum):
    RED = "red"


class Rich(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    price: Decimal = Decimal("1.50")
    data: bytes = b"\x00\xff"
    when: datetime = datetime(2026, 1, 2, tzinfo=UTC)
    length: timedelta = timedelta(seconds=1.5)
    id: UUID = UUID(int=7)
    colour: Colour = Colour.RED
    pair: tuple[int, str] = (1, "a")
    some: set[int] = {1, 2}
    text: pydantic.Json[dict[str, int]] = {"a": 1}


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    when: datetime
    some: frozenset[int]


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = Field(9, alias="L")


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str] = []


class Owner(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    others: list[Cat | Dog] = []


class Private(BaseModel):
    number: int
    _seen: datetime = pydantic.PrivateAttr(default_factory=lambda: datetime.now(UTC))


@pydantic_dataclass
class Point:
    x: int = Field(gt=0)
    y: int = Field(0, alias="Y")


@dataclasses.dataclass
class Rectangle:
    """It computes the same each time, and may be fired."""

    width: int
    area: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.area = self.width**2


@dataclasses.dataclass
class Holder:
    name: str
    model: Aliased


class StructHolder(msgspec.Struct):
    model: Aliased
    models: list[Strict] = []


class DictHolder(TypedDict):
    model: Choices


class Pages(list[int]):
    """A list with an attribute besides its elements."""

    def __init__(self, *pages: int, title: str) -> None:
        super().__init__(pages)
        self.title = title


class Titled(dict[str, int]):
    title = ""


@dataclasses.dataclass
class Fish:
    name: str


@dataclasses.dataclass
class Shark(Fish):
    teeth: int = 300


@dataclasses.dataclass
class Tank:
    fish: Fish
    others: list[Fish] = dataclasses.field(default_factory=list)
    note: Any = None


class TankStruct(msgspec.Struct):
    fish: Fish | None = None
    by_name: dict[str, Fish] = {}
    volume: float = 1.0


class Visit(msgspec.Struct):
    at: datetime
    also: list[datetime] = []


WHEN = datetime(2026, 1, 2, tzinfo=UTC)


async def fired_and_got(type_: Any, *payloads: Any) -> tuple[list[Any], list[str]]:
    """Return what a handler annotated with this type gets, and the errors of the dead letters."""
    got: list[Any] = []

    async def handle(payload: Any) -> None:
        got.append(payload)

    handle.__annotations__["payload"] = type_
    wind = SolarWind("memory://")
    wind.on("T", purpose="p")(handle)
    async with wind:
        for payload in payloads:
            await wind.fire("T", payload)
        await wind.settled(60)
        return got, [letter.error for letter in await wind.dead("T", "p")]


FAITHFUL: dict[str, tuple[Any, Any]] = {
    "alias": (Aliased, Aliased(N=7)),
    "required alias": (Required, Required(N=7)),
    "validation alias": (ToRead, ToRead(N=7)),
    "serialization alias": (ToWrite, ToWrite(number=7)),
    "two aliases": (Apart, Apart(read=7)),
    "alias choices and path": (Choices, Choices(numbers=[7])),
    "alias generator": (Camel, Camel(video_id=7)),
    "generator of two aliases": (Generated, Generated(videoId=7)),
    "nested": (Nested, Nested(aliased=Aliased(N=7), several=[Aliased(N=8)], named={"a": Choices(n=9)}, perhaps=None)),
    "nested in an optional": (Nested, Nested(aliased=Aliased(N=1), perhaps=ToRead(N=7))),
    "computed field": (Computed, Computed(side=3)),
    "extra values": (Extra, Extra(name="a", size=3, more=[1, {"b": None}])),
    "serializer and validator": (Words, Words(words=["a", "b"])),
    "root model": (Numbers, Numbers([1, 2])),
    "generic": (Box[int], Box[int](V=7)),
    "generic of a model": (Box[Cat], Box[Cat](V=Cat(L=3))),
    "rich types": (Rich, Rich(price=Decimal("0.10"), some={3})),
    "strict": (Strict, Strict(when=WHEN, some=frozenset({1}))),
    "union, the first": (Cat | Dog, Cat(L=3)),
    "union, the second": (Cat | Dog, Dog(tricks=["sit"])),
    "union with a plain type": (Cat | int, Cat(L=3)),
    "discriminated union": (Annotated[Cat | Dog, Field(discriminator="kind")], Dog(tricks=["sit"])),
    "unions within a model": (Owner, Owner(pet=Cat(L=3), others=[Dog(), Cat(L=1)])),
    "optional": (Aliased | None, Aliased(N=7)),
    "none for an optional": (Aliased | None, None),
    "dict of models": (dict[str, Aliased], {"a": Aliased(N=7)}),
    "tuple of unions": (tuple[Cat | Dog, ...], (Cat(L=3), Dog())),
    "private attribute": (Private, Private(number=7)),
    "dataclass of pydantic's": (Point, Point(x=3, Y=7)),
    "such dataclasses in a dict": (dict[str, Point], {"a": Point(x=3, Y=7)}),
    "in a dataclass": (Holder, Holder("a", Aliased(N=7))),
    "dataclass that computes a field": (Rectangle, Rectangle(3)),
    "in a struct": (StructHolder, StructHolder(Aliased(N=7), [Strict(when=WHEN, some=frozenset({1}))])),
    "a field of any type": (Tank, Tank(Fish("a"), [Fish("b")], note={"a": [1, None]})),
    "a Struct of dataclasses": (TankStruct, TankStruct(Fish("a"), {"b": Fish("c")}, 2)),
    "times with an offset in minutes": (
        Visit,
        Visit(WHEN, [datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5.5)))]),
    ),
    "a list's and a dict's subclass": (dict[str, list[int]], Titled(a=[1, 2])),
    "in a typed dict": (DictHolder, {"model": Choices(n=7)}),
}


@pytest.mark.parametrize("name", FAITHFUL)
@on_loop
async def test_a_model_comes_as_it_was_fired(name: str) -> None:
    type_, payload = FAITHFUL[name]
    got, errors = await fired_and_got(type_, payload)
    assert errors == []
    if name == "private attribute":
        assert got[0].number == 7
    else:
        assert got == [payload]
        assert type(got[0]) is type(payload) or isinstance(payload, Titled)


class Night(BaseModel):
    at: datetime
    also: dict[datetime, tuple[datetime, ...]] = {}


@dataclasses.dataclass
class Checked:
    times: list[datetime] = dataclasses.field(default_factory=list)
    value: Any = None

    def __post_init__(self) -> None:
        """Run code of its own, so that `fire` compares the result."""


class Round(NamedTuple):
    keeper: Keeper
    times: frozenset[datetime] = frozenset()


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("day", [datetime(2026, 10, 25, 2, 30), datetime(2026, 3, 29, 2, 30)], ids=["twice", "never"])
@on_loop
async def test_a_time_in_an_hour_that_a_clock_change_repeats_or_leaves_out_comes_as_it_was_fired(
    day: datetime, fold: int
) -> None:
    at = day.replace(tzinfo=BERLIN, fold=fold)
    night, round_ = Night(at=at, also={at: (at,)}), Round(Keeper(animal=Animal(name="a")), frozenset((at,)))
    (got,), errors = await fired_and_got(Night, night)
    assert (got.at.astimezone(UTC), got.at.utcoffset(), errors) == (at.astimezone(UTC), at.utcoffset(), [])
    (other,), errors = await fired_and_got(Round, round_)
    assert ([each.astimezone(UTC) for each in other.times], errors) == ([at.astimezone(UTC)], [])
    (checked,), errors = await fired_and_got(Checked, Checked([at]))
    assert ([each.astimezone(UTC) for each in checked.times], errors) == ([at.astimezone(UTC)], [])


@dataclasses.dataclass
class Tags:
    tags: Sequence[str] = ()
    numbers: Collection[int] = frozenset((1,))


class TagsStruct(msgspec.Struct):
    tags: Sequence[str] = ()
    numbers: Collection[int] = frozenset((1,))


class TagsModel(BaseModel):
    tags: Sequence[str] = ()
    numbers: Sequence[int] = (1,)


@pytest.mark.parametrize("type_", [Tags, TagsStruct, TagsModel])
@on_loop
async def test_a_sequence_may_be_a_tuple_and_comes_as_a_list(type_: Any) -> None:
    (got,), errors = await fired_and_got(type_, type_(tags=("a", "b")))
    assert (list(got.tags), list(got.numbers), errors) == (["a", "b"], [1], [])


@pytest.mark.parametrize(
    ("value", "comes"), [((1, 2), [1, 2]), (WHEN.date(), "2026-01-02"), ({1: 2}, {"1": 2}), ({1}, [1])]
)
@on_loop
async def test_a_field_of_any_type_takes_what_a_plain_payload_does_also_where_its_class_runs_code(
    value: Any, comes: Any
) -> None:
    (got,), errors = await fired_and_got(Checked, Checked(value=value))
    assert (got.value, errors) == (comes, [])


@on_loop
async def test_a_batch_handler_of_models_gets_them_as_they_were_fired() -> None:
    got, errors = await fired_and_got(list[Cat | Dog], Cat(L=3), Dog(tricks=["sit"]))
    assert errors == []
    assert [each for batch in got for each in batch] == [Cat(L=3), Dog(tricks=["sit"])]


class Hidden(BaseModel):
    name: str
    password: str = Field("", exclude=True)


class HiddenAndRequired(BaseModel):
    password: str = Field(exclude=True)


class Secret(BaseModel):
    token: SecretStr


class Anything(BaseModel):
    value: Any


class Number(BaseModel):
    value: float | None = None


class Animal(BaseModel):
    name: str


class Parrot(Animal):
    words: int = 3


class Keeper(BaseModel):
    animal: Animal


class Lossy(BaseModel):
    value: int

    @pydantic.field_serializer("value")
    def _zero(self, value: int) -> int:
        return 0


class Doubling(BaseModel):
    value: int

    @pydantic.field_validator("value")
    @classmethod
    def _double(cls, value: int) -> int:
        return 2 * value


class Equal(BaseModel):
    """Its own `==` says nothing of its fields."""

    value: int = Field(0, exclude=True)

    def __eq__(self, other: object) -> bool:
        return True


class Equals(BaseModel):
    each: list[Equal]


def unvalidated() -> Animal:
    animal = Animal(name="a")
    animal.name = 3  # type: ignore[assignment]
    return animal


@dataclasses.dataclass
class Longer:
    """Each time it is made it is longer."""

    value: int

    def __post_init__(self) -> None:
        self.value += 1


class LongerStruct(msgspec.Struct):
    value: int

    def __post_init__(self) -> None:
        self.value += 1


@dataclasses.dataclass
class Holding:
    each: list[Longer | None]


class Ranged(msgspec.Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


@attrs.define
class Account:
    name: str
    _balance: int = 0


@dataclasses.dataclass
class Owner:
    account: Account


class OwnerStruct(msgspec.Struct):
    account: Account


SECONDS = timezone(timedelta(minutes=19, seconds=32))  # Amsterdam's until 1937
ODD = datetime(1930, 1, 1, tzinfo=SECONDS)


def titled() -> Titled:
    it = Titled(a=1)
    it.title = "b"
    return it


def out_of_range() -> Ranged:
    ranged = Ranged(1, 2)
    ranged.low = 3
    return ranged


class Short(msgspec.Struct):
    x: int


class Longest(Short):
    y: int


class Pair(NamedTuple):
    short: Short


class Slotted(list[int]):
    __slots__ = ("tag",)

    def __init__(self, tag: str) -> None:
        self.tag = tag


LOSSY: dict[str, Callable[[], Any]] = {
    "excluded field": lambda: Hidden(name="a", password="hunter2"),
    "excluded and required field": lambda: HiddenAndRequired(password="hunter2"),
    "secret": lambda: Secret(token=SecretStr("hunter2")),
    "a tuple in Any": lambda: Anything(value=(1, 2)),
    "a time in Any": lambda: Anything(value=WHEN),
    "a model in Any": lambda: Anything(value=Animal(name="a")),
    "not a number": lambda: Number(value=float("nan")),
    "subclass in a field": lambda: Keeper(animal=Parrot(name="a")),
    "lossy serializer": lambda: Lossy(value=7),
    "validator that changes": lambda: Doubling(value=7),
    "a model that calls everything equal": lambda: Equal(value=7),
    "such a model within another": lambda: Equals(each=[Equal(value=7)]),
    "set without validation": unvalidated,
    "constructed without validation": lambda: Animal.model_construct(),
    "dataclass that changes itself when it is made": lambda: Longer(7),
    "Struct that changes itself when it is made": lambda: LongerStruct(7),
    "such a dataclass within another": lambda: Holding([Longer(7)]),
    "Struct that refuses itself when it is made": out_of_range,
    "attrs class with a private attribute": lambda: Account("a", balance=7),
    "such a class in a dataclass": lambda: Owner(Account("a", balance=7)),
    "such a class in a Struct": lambda: OwnerStruct(Account("a", balance=7)),
    "such a dataclass in a list": lambda: [Longer(7)],
    "such a dataclass in a dict": lambda: {"a": 1, "b": {"c": Longer(7)}},
    "such a dataclass in a field of any type": lambda: Tank(Fish("a"), note=Longer(7)),
    "such a dataclass in a tuple of Structs": lambda: (TankStruct(), LongerStruct(7)),
    "attrs class with a private attribute in a list": lambda: [[Account("a", balance=7)]],
    "a list with an attribute": lambda: Pages(1, 2, title="a"),
    "such a list in a dict": lambda: {"pages": Pages(1, 2, title="a")},
    "a dict with an attribute": lambda: [titled()],
    "subclass in a dataclass's field": lambda: Tank(Shark("a")),
    "subclass in a list of a dataclass's": lambda: [Tank(Fish("a"), others=[Shark("b")])],
    "subclass in a Struct's field": lambda: TankStruct(fish=Shark("a")),
    "subclass in a dict of a Struct's": lambda: TankStruct(by_name={"a": Shark("a")}),
    "a value of another type in a field": lambda: Fish(7),  # type: ignore[arg-type]
    "an invalid number of a float's": lambda: TankStruct(volume=2**53 + 1),
    "UTC offset with seconds": lambda: ODD,
    "UTC offset with seconds in a list": lambda: [ODD],
    "UTC offset with seconds in a dict": lambda: {"a": {"b": ODD}},
    "UTC offset with seconds as a name": lambda: {ODD: 1},
    "UTC offset with seconds in a Struct": lambda: Visit(ODD),
    "UTC offset with seconds in a list of a Struct's": lambda: Visit(WHEN, also=[ODD]),
    "UTC offset with microseconds": lambda: [datetime(2026, 1, 1, tzinfo=timezone(timedelta(microseconds=1)))],
    "UTC offset with seconds of a time of day": lambda: {"at": ODD.timetz()},
    "in a list": lambda: [Hidden(name="a", password="hunter2")],
    "subclass in a named tuple": lambda: Round(Keeper(animal=Parrot(name="a"))),
    "another type in a named tuple": lambda: [Round("x")],  # type: ignore[arg-type]
    "Struct's subclass in a named tuple": lambda: Pair(Longest(1, 2)),
    "a list's subclass with slots": lambda: {"a": Slotted("hunter2")},
    "in a struct": lambda: {"a": [Secret(token=SecretStr("hunter2"))]},
}


@pytest.mark.parametrize("name", LOSSY)
@on_loop
async def test_a_model_that_would_come_back_different_is_refused_by_fire(name: str) -> None:
    async with SolarWind("memory://") as wind:
        with pytest.raises(BadPayload) as caught:
            wind.fire("T", LOSSY[name]())
        text = str(caught.value)
        assert text.startswith("expected a payload ")
        assert "\n" not in text
        assert "hunter2" not in text, "what a model leaves out may be a secret"
        assert "T" not in (await wind.statistics()).topics


@on_loop
async def test_an_excluded_field_that_has_its_default_is_no_loss() -> None:
    got, errors = await fired_and_got(Hidden, Hidden(name="a"))
    assert (got, errors) == ([Hidden(name="a")], [])


@on_loop
async def test_others_see_a_model_by_its_aliases() -> None:
    """In another language, or in a handler that takes a dict."""
    got, _ = await fired_and_got(dict, Nested(aliased=Aliased(N=7)))
    assert got[0]["aliased"] == {"N": 7}


@on_loop
async def test_a_model_is_read_by_alias_and_by_name() -> None:
    got, errors = await fired_and_got(Aliased, {"N": 7}, {"number": 8})
    assert (got, errors) == ([Aliased(N=7), Aliased(N=8)], [])


@on_loop
async def test_constraints_of_pydantic_hold_without_a_model() -> None:
    got, errors = await fired_and_got(Annotated[int, Field(gt=0)], 5, -5)
    assert got == [5]
    assert "greater than 0" in errors[0]
    got, errors = await fired_and_got(dict[str, Point], {"a": {"x": -5}})
    assert got == []
    assert "greater than 0" in errors[0]


class PointHolder(msgspec.Struct):
    point: Point


class UnionHolder(msgspec.Struct):
    pet: Cat | Dog


@pytest.mark.parametrize("type_", [PointHolder, UnionHolder, dict[str, UnionHolder], Cat | dict[str, bytes]])
def test_a_type_that_neither_library_can_read_is_refused_when_it_is_registered(type_: Any) -> None:
    def handle(payload: Any) -> None: ...

    handle.__annotations__["payload"] = type_
    with pytest.raises(BadArgument) as caught:
        SolarWind("memory://").on("T", purpose="p")(handle)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("expected a payload type ")
