"""Groups of handlers: registered without a SolarWind, and included in as many as they are to run in."""

from __future__ import annotations

import gc
import inspect
import weakref

import pytest

from solarwind import BadArgument, BadName, Handlers, SolarWind
from solarwind.testing.contract import on_loop


def registered(wind: SolarWind | Handlers) -> list[tuple[str, str]]:
    return [(each.topic, each.purpose) for each in wind.handlers]


def test_on_of_a_group_has_the_options_of_on() -> None:
    assert inspect.signature(Handlers.on) == inspect.signature(SolarWind.on)
    assert Handlers.on is SolarWind.on


@on_loop
async def test_a_group_runs_where_it_is_included_under_each_of_its_prefixes() -> None:
    group, got = Handlers(), list[tuple[str, str]]()

    @group.on("placed", purpose="Count", exchange="keyed", version=2)
    async def count(name: str) -> None:
        got.append(("count", name))

    @group.on("paid")
    def paid(name: str) -> None:
        got.append(("paid", name))

    wind = SolarWind("memory://")
    wind.include(group)
    wind.include(group, prefix="shop.eu")
    assert registered(wind) == [
        ("placed", "Count"),
        ("paid", "paid"),
        ("shop.eu.placed", "Count"),
        ("shop.eu.paid", "paid"),
    ]
    assert (wind.handlers[2].exchange, wind.handlers[2].version) == ("keyed", 2)
    async with wind:
        for topic in ("placed", "shop.eu.placed", "shop.eu.paid", "shop.placed"):
            await wind.fire(topic, topic)
        await wind.settled(60)
    assert sorted(got) == [("count", "placed"), ("count", "shop.eu.placed"), ("paid", "shop.eu.paid")]


@on_loop
async def test_a_group_that_is_included_again_is_so_many_more_instances() -> None:
    group = Handlers()

    @group.on("T", purpose="p")
    async def handle() -> None: ...

    wind = SolarWind("memory://")
    wind.include(group)
    wind.include(group)
    async with wind:
        await wind.fire("T")
        await wind.settled(60)
        assert (await wind.statistics()).purposes["T", "p"].instances == 2
        wind.include(group)
        await wind.joined()
        assert (await wind.statistics()).purposes["T", "p"].instances == 3
        await wind.off(handle)
        assert (await wind.statistics()).purposes["T", "p"].instances == 0


@on_loop
async def test_what_a_group_gets_later_is_registered_where_it_is_included_by_way_of_others_too() -> None:
    inner, wind, got = Handlers(), SolarWind("memory://"), list[str]()

    def assemble() -> None:
        outer = Handlers()
        outer.include(inner, prefix="inner")
        wind.include(outer, prefix="outer")

    assemble()
    gc.collect()
    async with wind:

        @inner.on("T", purpose="late")
        async def handle(name: str) -> None:
            got.append(name)

        await wind.joined()
        await wind.fire("outer.inner.T", "late")
        await wind.settled(60)
    assert got == ["late"]


def test_a_group_keeps_no_solar_wind_that_is_gone() -> None:
    group = Handlers()

    @group.on("T")
    async def handle() -> None: ...

    gone = weakref.ref(wind := SolarWind("memory://"))
    wind.include(group)
    del wind
    gc.collect()
    assert gone() is None
    group.on("T", purpose="another")(handle)


def test_a_group_whose_handlers_are_refused_registers_none_of_them() -> None:
    group, wind = Handlers(), SolarWind("memory://")

    @group.on("first")
    async def first() -> None: ...

    @group.on("T")
    async def handle() -> None: ...

    def other() -> None: ...

    other.__name__ = "handle"
    wind.on("T")(other)
    with pytest.raises(BadArgument, match="expected a purpose="):
        wind.include(group)
    assert registered(wind) == [("T", "handle")]
    with pytest.raises(BadName, match="got 206 characters"):
        wind.include(group, prefix="x" * 200)
    assert registered(wind) == [("T", "handle")]
    wind.include(group, prefix="shop")
    with pytest.raises(BadArgument, match="expected a purpose="):
        group.on("T")(other)
    assert len(wind.handlers) == 3
    assert len(group.handlers) == 2


@pytest.mark.parametrize("prefix", ["", ".", "a.", "a b", 7])
def test_a_prefix_that_is_no_topic_is_refused(prefix: object) -> None:
    with pytest.raises(BadName, match="expected a topic"):
        SolarWind("memory://").include(Handlers(), prefix=prefix)  # type: ignore[arg-type]


def test_what_is_no_group_and_groups_in_a_circle_are_refused() -> None:
    wind, one, two = SolarWind("memory://"), Handlers(), Handlers()
    with pytest.raises(BadArgument, match=r"expected a group of handlers, Handlers\(\), got <solarwind"):
        wind.include(wind)  # type: ignore[arg-type]
    one.include(two)
    for outer, inner in ((two, one), (one, one)):
        with pytest.raises(BadArgument, match="expected groups without a cycle"):
            outer.include(inner)
