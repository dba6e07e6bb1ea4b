"""How a purpose hands its events to its instances: `direct`, `fanout`, `keyed`, or one of your own.

To add one, subclass `Exchange`, say whether its events pend, choose instances, and register it under a name:

    class Nearest(Exchange):
        def choose(self, event, instances):
            return next((i for i in instances if i.origin.startswith(event.machine)), instances[0])

    register_exchange("nearest", Nearest())

A package does the same by an entry point of the group `solarwind.exchanges`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from inspect import iscoroutinefunction, signature
from typing import ClassVar, Protocol

from ..batch import Batch
from ..calls import hint
from ..errors import BadArgument, ConflictError
from ..event import Event, HandOut
from ..keys import Key, check_field, field
from .log import Stored

Random = Callable[[], float]


class Instance(Protocol):
    """What an exchange sees of a live service instance."""

    @property
    def id(self) -> int:
        """Its number: one that joins later has a larger one."""
        ...

    @property
    def version(self) -> int:
        """The version of the purpose that it handles events for."""
        ...

    @property
    def origin(self) -> str:
        """Its machine and process, as `machine/process`."""
        ...

    @property
    def used(self) -> int:
        """A number that grows with each hand-out: the smallest was used least recently."""
        ...

    @property
    def in_flight(self) -> int:
        """How many events it has in hand."""
        ...

    @property
    def free(self) -> int:
        """How many more events it has room for."""
        ...


Portions = list[tuple[Instance, Sequence[int]]]


class Exchange:
    """A way of handing out. An instance of the class serves all purposes that state its name; it keeps no state."""

    # Whether an event waits until an instance has settled it. Else every chosen instance gets a copy,
    # and an event for which none is chosen is dropped.
    pends: ClassVar[bool] = True
    # Whether events with the same key go one at a time, in the order accepted.
    keyed: ClassVar[bool] = False

    def choose(self, event: Event, instances: Sequence[Instance]) -> Instance | Iterable[Instance] | None:
        """Return who gets this event, of the live instances (where events pend: those with room, at least one).

        Return, where events pend, one instance, or None to let it and the events behind it wait until an instance has
        room, joins or leaves. Otherwise return the instances that get a copy."""
        raise NotImplementedError(f"{type(self).__name__} chooses no instance: override choose()")

    def share(self, stored: Stored, picks: Sequence[int], instances: Sequence[Instance], random: Random) -> Portions:
        """Divide `picks`, positions of one batch in order, among the instances. What is in no share waits.

        This asks `choose` for each event; the exchanges in this file divide whole runs instead."""
        shares: dict[int, tuple[Instance, list[int]]] = {}
        free = {instance.id: instance.free for instance in instances}
        hand_out = HandOut(stored.batch, stored.start)
        for position in picks:
            chosen = self.choose(Event(hand_out, position - stored.start), instances)
            if chosen is None and self.pends:
                break
            several = [chosen] if not isinstance(chosen, Iterable) else chosen
            if self.pends and isinstance(chosen, Iterable):
                raise TypeError("expected one instance or None for an event that pends, got several")
            for instance in several:
                if instance is not None:
                    shares.setdefault(instance.id, (instance, []))[1].append(position)
                    free[instance.id] -= 1
            if self.pends:
                instances = [instance for instance in instances if free[instance.id] > 0]
                if not instances:
                    break
        return list(shares.values())


class Direct(Exchange):
    """One instance, the first in `order` that has room: the least recently used."""

    def order(self, instances: Sequence[Instance], random: Random) -> list[Instance]:
        """Return the instances in the order in which they are preferred. Override it for another rule."""
        return sorted(instances, key=lambda instance: instance.used)

    def share(self, stored: Stored, picks: Sequence[int], instances: Sequence[Instance], random: Random) -> Portions:
        if len(instances) == 1:
            return [(instances[0], picks[: instances[0].free])]
        shares: Portions = []
        left, at = len(instances), 0
        for instance in self.order(instances, random):
            # An even part of what is left, so that a burst keeps all instances busy and none hoards it.
            count = min(instance.free, -(-(len(picks) - at) // left))
            if count:
                shares.append((instance, picks[at : at + count]))
            left, at = left - 1, at + count
        return shares


class LeastBusy(Direct):
    """One instance: the one with the fewest events in flight."""

    def order(self, instances: Sequence[Instance], random: Random) -> list[Instance]:
        return sorted(instances, key=lambda instance: (instance.in_flight, instance.used))


class Random_(Direct):
    """One instance, chosen at random."""

    def order(self, instances: Sequence[Instance], random: Random) -> list[Instance]:
        return sorted(instances, key=lambda instance: random())


class Keyed(Direct):
    """One instance; all events of a key in the order accepted, one at a time."""

    keyed = True


class Fanout(Exchange):
    """Every live instance gets a copy; dropped where there is none."""

    pends = False

    def share(self, stored: Stored, picks: Sequence[int], instances: Sequence[Instance], random: Random) -> Portions:
        return [(instance, picks) for instance in instances]


_NAME = re.compile(r"[a-z0-9_-]+(:[a-z0-9_-]+)?")
KEY_MISSING = ("handle", "reject")  # what becomes of an event without a key


def _check_choice(exchange: Exchange) -> None:
    """Raise `BadArgument` for an exchange that could choose nobody, or whose `choose` is never asked."""
    kind = type(exchange)
    chooses, shares = (next(each for each in kind.__mro__ if name in vars(each)) for name in ("choose", "share"))
    if shares is not Exchange:
        if chooses is not Exchange and shares in (Direct, Fanout):
            raise BadArgument(
                f"expected an exchange whose choose() is asked, got {kind.__name__}, and a {shares.__name__} does not "
                "ask it: derive it from Exchange, or from Direct with another order()"
            )
        return
    if chooses is Exchange:
        raise BadArgument(
            f"expected an exchange that chooses, got {kind.__name__}, which does not: say "
            "`def choose(self, event, instances)` in it"
        )
    try:
        fits = not iscoroutinefunction(exchange.choose)
        signature(exchange.choose).bind(None, None)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise BadArgument(
            f"expected `def choose(self, event, instances)` in an exchange, got another in {kind.__name__}: it is "
            "called with an event and a list, and its answer counts at once"
        )


class Exchanges:
    """The exchanges that a dispatcher knows by name: those that come with Solar Wind, and what is registered."""

    def __init__(self) -> None:
        self._known: dict[str, Exchange] = {
            "direct": Direct(),
            "direct:least-busy": LeastBusy(),
            "direct:random": Random_(),
            "fanout": Fanout(),
            "keyed": Keyed(),
        }

    def register(self, name: str, exchange: Exchange) -> None:
        """Make `exchange` known under `name`.

        Raise `BadArgument` for a name outside `a-z 0-9 _ -` (with one colon within at most), or an object that is not
        an exchange or could choose nobody, and `ConflictError` where another exchange has that name."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadArgument(f"expected an exchange's name of a-z 0-9 _ - such as 'nearest', got {name!a}")
        if not isinstance(exchange, Exchange):
            raise BadArgument(f"expected an instance of an Exchange for {name!r}, got {exchange!a}")
        _check_choice(exchange)
        if type(self._known.get(name, exchange)) is not type(exchange):
            raise ConflictError(f"an exchange {name!r} is registered already: choose another name for {exchange!a}")
        self._known[name] = exchange

    def lookup(self, name: str) -> Exchange | None:
        return self._known.get(name)

    def unknown(self, name: object) -> str:
        """Return the refusal of a name that no exchange has."""
        known = list(self._known)
        return f"expected an exchange, one of {', '.join(sorted(known))}, got {name!a}{hint(name, known)}"

    def check(self, name: str, key: str | None, key_missing: str = "handle") -> None:
        """Raise `BadArgument` where a version may not state this exchange, key, and treatment of events without one."""
        exchange = self.lookup(name)
        if exchange is None:
            raise BadArgument(self.unknown(name))
        if key is not None:
            if not exchange.keyed:
                raise BadArgument(f"expected a key only with an exchange that is keyed, got {key!a} with {name!r}")
            check_field(key)
        if key_missing != "handle":
            check_key_missing(key_missing)
            if not exchange.keyed:
                raise BadArgument(
                    f"expected key_missing only with an exchange that is keyed, got {key_missing!a} with {name!r}"
                )


def check_key_missing(value: object) -> None:
    if value not in KEY_MISSING:
        raise BadArgument(f"expected key_missing 'handle' or 'reject', got {value!a}")


KeyOf = Callable[[Batch, int], Key | None]


def header_key(batch: Batch, index: int) -> str | None:
    return batch.key(index)


def key_of(path: str | None) -> KeyOf:
    """Return the function that reads an event's key, for a purpose that names its key by this path, or by none."""
    if path is None:
        return header_key
    read = field(path)
    return lambda batch, index: read(batch.payload(index), batch.content(index))
