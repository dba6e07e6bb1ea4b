"""The exchanges: who gets an event, how evenly, and how one's own is added."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from solarwind.core.exchange import Direct, Exchange, Exchanges, Fanout, Instance, Keyed, Portions, Random
from solarwind.core.log import Stored
from solarwind.errors import BadArgument, ConflictError
from solarwind.event import Event
from solarwind.keys import field
from solarwind.plugins import load_exchange

from .bench import Bench, batch


@dataclass
class Seat:
    """An instance as an exchange sees it."""

    id: int
    free: int = 1
    used: int = 0
    in_flight: int = 0
    version: int = 1
    origin: str = "m/p"


def share(name: str, count: int, seats: Sequence[Seat]) -> dict[int, list[int]]:
    chosen = Exchanges().lookup(name)
    assert chosen is not None
    chances: Iterator[float] = iter(range(100, 0, -1))
    shares = chosen.share(Stored(10, batch(count)), range(10, 10 + count), seats, lambda: next(chances))
    return {seat.id: list(part) for seat, part in shares}


@pytest.mark.parametrize("exchange", ["direct", "direct:least-busy", "direct:random", "keyed"])
def test_a_hundred_slow_events_end_evenly_with_two_instances(exchange: str) -> None:
    bench = Bench()
    first, second = bench.join(exchange=exchange), bench.join(exchange=exchange)
    bench.fire(100)
    handled: Counter[int] = Counter()
    while offers := bench.take():
        assert len(offers) <= 2
        for offer in offers:
            assert len(offer.picks) == 1, "an instance with slow handlers hoards nothing"
            handled[offer.instance] += 1
            bench.report(offer, done=offer.picks, handled=1, busy_ns=10**9)
    assert handled[first] + handled[second] == 100
    assert abs(handled[first] - handled[second]) <= 10


def test_direct_prefers_the_least_recently_used() -> None:
    assert share("direct", 1, [Seat(1, used=3), Seat(2, used=1), Seat(3, used=2)]) == {2: [10]}


def test_least_busy_prefers_the_one_with_the_fewest_in_flight() -> None:
    assert share(
        "direct:least-busy", 1, [Seat(1, in_flight=3), Seat(2, in_flight=5), Seat(3, in_flight=0, used=9)]
    ) == {3: [10]}


def test_random_prefers_by_chance() -> None:
    assert share("direct:random", 1, [Seat(1), Seat(2), Seat(3)]) == {3: [10]}, "the lowest number comes first"


def test_a_burst_is_divided_evenly_and_by_room() -> None:
    assert share("direct", 6, [Seat(1, free=10), Seat(2, free=10)]) == {1: [10, 11, 12], 2: [13, 14, 15]}
    assert share("direct", 6, [Seat(1, free=1), Seat(2, free=10)]) == {1: [10], 2: [11, 12, 13, 14, 15]}
    assert share("direct", 6, [Seat(1, free=1), Seat(2, free=2)]) == {1: [10], 2: [11, 12]}


def test_fanout_gives_everybody_everything() -> None:
    assert share("fanout", 2, [Seat(1), Seat(2, free=0)]) == {1: [10, 11], 2: [10, 11]}


def test_keyed_sends_one_of_each_key_at_a_time_in_order() -> None:
    bench = Bench()
    for _ in range(3):
        bench.join(exchange="keyed", room=10)
    bench.fire(6, keys=["a", "a", "b", None, "b", "a"])
    offers = bench.take()
    assert sorted(position for offer in offers for position in offer.picks) == [0, 2, 3]
    holding_a = next(offer for offer in offers if 0 in offer.picks)
    bench.report(holding_a, failed=[0], verdict="later")
    assert not bench.given(), "its key is held while it waits"
    bench.pass_time(1)
    (offer,) = bench.take()
    bench.report(offer, done=[0])
    (offer,) = bench.take()
    assert list(offer.picks) == [1], "the next of its key, and not the one behind it"
    bench.report(offer, failed=[1], verdict="reject")
    assert list(bench.given().values()) == [[5]], "a dead letter holds up nobody"


def test_keyed_follows_the_field_that_the_purpose_names() -> None:
    bench = Bench()
    bench.join(exchange="keyed", key="$.k", room=10)
    bench.fire(2, keys=["a", "b"], payload=b'{"k": 7}')
    assert bench.given() == {1: [0]}


def test_an_event_of_ones_own_exchange_goes_where_it_says_or_waits() -> None:
    class ByKey(Exchange):
        def choose(self, event: Event, instances: Sequence[Instance]) -> Instance | None:
            return next((each for each in instances if each.origin == event.key), None)

    bench = Bench()
    bench.exchanges.register("by-key", ByKey())
    a, b = (bench.join(exchange="by-key", origin=origin, room=2) for origin in "ab")
    bench.fire(4, keys=["b", "a", "c", "a"])
    assert bench.given() == {b: [0], a: [1]}, "what it chooses nobody for waits, and what is behind it too"
    c = bench.join(exchange="by-key", origin="c", room=2)
    assert bench.given() == {c: [2], a: [3]}


def test_an_exchange_of_ones_own_that_does_not_pend_copies_to_whom_it_chooses() -> None:
    class Newest(Exchange):
        pends = False

        def choose(self, event: Event, instances: Sequence[Instance]) -> Iterable[Instance]:
            return [each for each in instances if event.key in (None, each.origin)]

    bench = Bench()
    bench.exchanges.register("some", Newest())
    a, b = (bench.join(exchange="some", origin=origin, room=5) for origin in "ab")
    bench.fire(3, keys=[None, "b", "x"])
    assert bench.given() == {a: [0], b: [0, 1]}
    assert bench.purpose().dropped == 1


class Misspelled(Exchange):
    def chose(self, event: Event, instances: Sequence[Instance]) -> Instance:
        return instances[0]


class OfOne(Exchange):
    def choose(self, event: Event) -> None:  # type: ignore[override]
        return None


class Waits(Exchange):
    async def choose(self, event: Event, instances: Sequence[Instance]) -> Instance:  # type: ignore[override]
        return instances[0]


class NeverAsked(Direct):
    def choose(self, event: Event, instances: Sequence[Instance]) -> Instance:
        return instances[0]


class ByItself(Direct):
    def share(self, stored: Stored, picks: Sequence[int], instances: Sequence[Instance], random: Random) -> Portions:
        return Exchange.share(self, stored, picks, instances, random)

    def choose(self, event: Event, instances: Sequence[Instance]) -> Instance:
        return instances[0]


class Other(ByItself):
    def choose(self, event: Event, instances: Sequence[Instance]) -> Instance:
        return instances[-1]


class Ordered(Direct):
    def order(self, instances: Sequence[Instance], random: Random) -> list[Instance]:
        return list(instances)


@pytest.mark.parametrize("kind", [Misspelled, OfOne, Waits, NeverAsked, Exchange])
def test_an_exchange_that_could_choose_nobody_is_refused(kind: type[Exchange]) -> None:
    """When it is registered, and not with each event, which would pend."""
    exchanges = Exchanges()
    with pytest.raises(BadArgument, match=rf"^expected .*, got .*\b{kind.__name__}\b.*: "):
        exchanges.register("mine", kind())
    assert exchanges.lookup("mine") is None


@pytest.mark.parametrize("kind", [ByItself, Other, Ordered, Direct, Fanout, Keyed])
def test_an_exchange_that_chooses_in_any_way_is_registered(kind: type[Exchange]) -> None:
    Exchanges().register("mine", kind())


def test_a_name_is_registered_once_and_must_be_one() -> None:
    exchanges = Exchanges()
    with pytest.raises(ConflictError, match="registered already"):
        exchanges.register("fanout", exchanges.lookup("direct") or Exchange())
    for name in ("", "A", "a b", "a:b:c", "ä"):
        with pytest.raises(BadArgument, match="expected an exchange's name"):
            exchanges.register(name, Exchange())
    with pytest.raises(BadArgument, match="expected an instance of an Exchange"):
        exchanges.register("mine", Exchange)  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match=r"expected an exchange, one of .*direct, .*keyed"):
        Bench().join(exchange="unheard-of")


def test_a_key_is_only_for_keyed() -> None:
    with pytest.raises(BadArgument, match="only with an exchange that is keyed"):
        Bench().join(exchange="direct", key="$.k")
    with pytest.raises(BadArgument, match="expected a field such as"):
        Bench().join(exchange="keyed", key="k")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1", "1.0", True),
        ("1", "1e0", True),
        ("100", "1E+2", True),
        ("100", "0.1e3", True),
        ("0", "-0.0", True),
        ("-1", "-10e-1", True),
        (str(2**70), f"{2**70}.0", True),
        ("1e999999", "10e999998", True),
        (str(2**70), str(2**70 + 1), False),
        ("0.1", "0.10000000000000000001", False),
        ("[10]", "[1e1]", True),
        ("[0.5]", "[5e-1]", True),
        ("[-0.0]", "[0]", True),
        (f"[{2**64}]", f"[{2**64}.0]", True),
        ("[18446744073709551615]", "[18446744073709551614]", False),
        ("[-100000000000000000]", "[-1e17]", True),
        ("[1000000000000000000]", "[1e18]", True),
        ('{"a": [100000000000000000000]}', '{"a": [1e20]}', True),
        ('{"b": 10.0, "a": "1111111111111111111"}', '{"a": "111111111111111111\\u0031", "b": 10}', True),
        ("[10]", "[100]", False),
        ("1", "-1", False),
        ("1", "10", False),
        ("1", '"1"', False),
        ("true", '"true"', False),
        ("true", "1", False),
        ('"a"', r'"\u0061"', True),
        ('"a"', '"A"', False),
        ('{"a": 1, "b": [1, {"c": 2}]}', '{"b":[1.0,{"c":2e0}],"a":1}', True),
        ('{"a": 1}', '{"a": "1"}', False),
        ("[1, 2]", "[2, 1]", False),
        ("[]", "{}", False),
        ('{"a": 1}', r'"{\"a\":1}"', False),
        (f'"{"x" * 5000}"', f'"{"x" * 5000}"', True),
        (f'"{"x" * 5000}"', f'"{"x" * 4999}y"', False),
    ],
)
def test_a_field_as_a_key_goes_by_its_json_value(one: str, other: str, same: bool) -> None:
    read = field("$.k")
    keys = [read(b'{"k": %b}' % text.encode(), "application/json") for text in (one, other)]
    assert None not in keys
    assert (keys[0] == keys[1]) is same


@pytest.mark.parametrize("payload", ["{}", '{"k": null}', '{"k": }', "[1]", "7", '{"K": 1}'])
def test_a_field_that_is_not_there_or_null_is_no_key(payload: str) -> None:
    assert field("$.k")(payload.encode(), "application/json") is None


@pytest.mark.parametrize("item", ["0.1", "1.5e10", "1e100", "[1.5]", '{"a":1.5}', "[]", "12345678901234567890"])
def test_a_large_array_costs_no_call_for_each_number_as_a_key(item: str) -> None:
    """Nobody may be held up by what another fires: 1 MiB of fractions took 1.7 s, number by number."""
    data = b'{"k": [%b]}' % ",".join([item] * ((1 << 20) // (len(item) + 1))).encode()
    read = field("$.k")
    calls: list[object] = []
    sys.setprofile(lambda frame, event, arg: calls.append(event))
    try:
        key = read(data, "application/json")
    finally:
        sys.setprofile(None)
    assert key is not None
    assert len(calls) < 200


def test_a_key_costs_little_however_long_the_field_is() -> None:
    for value in ('"' + "x" * 100_000 + '"', "[" + "1," * 50_000 + "1]", "1" * 100_000):
        key = field("$.k")(b'{"k": %b}' % value.encode(), "application/json")
        assert key is not None
        assert len(key) <= 256


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("fan-out", "fanout"), ("Direct", "direct"), ("keyd", "keyed"), ("direct:least_busy", "direct:least-busy")],
)
def test_a_mistyped_exchange_is_told_what_was_meant(typed: str, meant: str) -> None:
    for refusing in (lambda: Exchanges().check(typed, None), lambda: load_exchange(typed)):
        with pytest.raises(BadArgument, match=f"got '{typed}': did you mean '{meant}'\\?$"):
            refusing()


def test_an_exchange_that_is_nothing_like_any_is_not_guessed() -> None:
    for typed in ("pigeon", "x" * 100_000):
        with pytest.raises(BadArgument, match="register your own with"):
            load_exchange(typed)
