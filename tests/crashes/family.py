"""A handler that fires children in every way there is, and what must have become of them in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from time import time_ns
from typing import Any

import msgspec

from solarwind import Event, Retry, SolarWind
from solarwind.testing.contract import until

AGAIN = Retry(attempts=1_000, wait=0.0)
SOON, A_MOMENT, A_DAY = timedelta(seconds=0.15), timedelta(milliseconds=1), timedelta(days=1)
PARENTS = {"batch": 2}  # how many events a call of the handler has, where it is not one
LARGE = 300_000  # bytes of each child's payload, where they are large: more together than a message to NATS may have

HANDLED = (
    *("plain", "elsewhere", "with an id", "keyed 0", "keyed 1", "keyed 2", "many 0", "many 1"),
    *("soon", "soon, with an id", "expires tomorrow"),
)
EXPIRED = ("expired", "due and expired")
TOMORROW = ("tomorrow 0", "tomorrow 1", "tomorrow, with an id")


class Child(msgspec.Struct):
    """The payload of a child: which one it is, of which event, and of which call of its handler."""

    label: str
    of: str
    call: str
    due: int | None = None  # ns since 1970
    together: int = 1  # how many events that call had
    filling: str = ""


class Topics(msgspec.Struct, frozen=True):
    """The topics of a family. On NATS `far` belongs to another partition than the others."""

    parents: str = "parents"
    near: str = "close"
    far: str = "elsewhere"
    spent: str = "spent"  # what expires before anybody handles it

    def all(self) -> tuple[str, ...]:
        return self.parents, self.near, self.far, self.spent


class Family:
    """The handlers of one process. `returning` is called when one of the parents' is about to return."""

    def __init__(self, wind: SolarWind, name: str, topics: Topics, returning: Callable[[], object]) -> None:
        self.wind = wind
        self.topics = topics
        self.handled: list[dict[str, Any]] = []
        self.filling = ""
        self._name = name
        self._returning = returning
        self.calls = 0
        for topic in topics.all():
            wind.topic(topic, keep=3_600)

    # The parents --------------------------------------------------------------------------------------

    def handle_parents(self, kind: str) -> None:
        options: dict[str, Any] = {"purpose": "parent", "since": "beginning", "retry": AGAIN}

        async def handle(event: Event) -> None:
            self._call([event])

        def on_a_thread(event: Event) -> None:
            self._call([event])

        async def together(events: list[Event]) -> None:
            self._call(events)

        handlers = {"thread": on_a_thread, "batch": together}
        self.wind.on(self.topics.parents, **options)(handlers.get(kind, handle))

    def _call(self, events: list[Event]) -> None:
        self.calls += 1
        for event in events:
            self._fire(event, f"{self._name} {self.calls}", len(events))
        self._returning()

    def _fire(self, event: Event, call: str, together: int) -> None:
        fire, fire_many, of = self.wind.fire, self.wind.fire_many, event.id
        near, far, spent = self.topics.near, self.topics.far, self.topics.spent
        now = datetime.now(UTC)
        soon, tomorrow = now + SOON, now + A_DAY

        def child(label: str, due: datetime | None = None) -> Child:
            return Child(label, of, call, None if due is None else _ns(due), together, self.filling)

        options: dict[str, Any] = {"cause": event} if together > 1 else {}  # else it is so by itself
        fire(near, child("plain"), **options)
        fire(far, child("elsewhere"), **options)
        fire(far, child("with an id"), id=f"child of {of}", **options)
        for number in range(3):
            fire(near, child(f"keyed {number}"), key="k", **options)
        fire_many(far, [child("many 0"), child("many 1")], ids=[f"first of {of}", None], key="k", **options)
        fire(near, child("soon", soon), at=soon, **options)
        fire(far, child("soon, with an id", soon), at=soon, id=f"late child of {of}", expires=tomorrow, **options)
        fire_many(far, [child(each, tomorrow) for each in TOMORROW[:2]], at=tomorrow, **options)
        fire(near, child(TOMORROW[2], tomorrow), at=tomorrow, id=f"last child of {of}", **options)
        fire(near, child("expires tomorrow"), expires=tomorrow, key="k", **options)
        fire(spent, child("expired"), expires=now - A_MOMENT, **options)
        fire(spent, child("due and expired", soon), at=soon, expires=soon + A_MOMENT, **options)

    # The children -------------------------------------------------------------------------------------

    def handle_children(self, *topics: str) -> None:
        for topic in topics:
            exchange = "keyed" if topic == self.topics.near else "direct"
            self.wind.on(topic, purpose="child", exchange=exchange, since="beginning")(self._note)

    async def _note(self, child: Child, event: Event) -> None:
        cause, due = event.cause, None if event.due is None else _ns(event.due)
        self.handled.append(
            {
                "child": msgspec.structs.replace(child, filling=""),
                "early": child.due is not None and (time_ns() < child.due or due != child.due),
                "cause": [cause.kind, cause.id, cause.purpose, cause.version, cause.root],
            }
        )

    # What became of them ------------------------------------------------------------------------------

    async def end(self) -> dict[str, Any]:
        """Handle all that is left, also what is due soon, and return what there is then."""
        self.handle_parents("async")
        self.handle_children(self.topics.near, self.topics.far)
        async with self.wind:
            await until(self._is_all_handled)
            spent = datetime.now(UTC) + 2 * A_MOMENT
            await until(lambda: datetime.now(UTC) > spent)
            self.handle_children(self.topics.spent)
            await self.wind.joined()
            await until(self._is_all_handled)
            found = (await self.wind.statistics()).purposes
            stored = [event for topic in self.topics.all()[1:] for event in await _all(self.wind.events, topic)]
            delayed = [each.event for each in await _all(self.wind.delayed)]
            return {
                "stored": [msgspec.structs.replace(event.decode(Child), filling="") for event in [*stored, *delayed]],
                "delayed": [event.decode(Child).label for event in delayed],
                "handled": self.handled,
                "settled": found[self.topics.parents, "parent"].settled,
                "expired": found[self.topics.spent, "child"].expired,
                "left": sum(each.pending + each.in_flight + each.dead for each in found.values()),
            }

    async def _is_all_handled(self) -> bool:
        soon = datetime.now(UTC) + A_DAY / 2
        await self.wind.settled(60)  # so that all that the parents fire is there
        delayed = await _all(self.wind.delayed)
        await self.wind.settled(60)  # and what was due is handled
        return all(each.due > soon for each in delayed)


async def _all(ask: Callable[..., Awaitable[Any]], *arguments: str) -> list[Any]:
    """Return what is on all pages of an answer."""
    found: list[Any] = []
    after = None
    while True:
        page = await ask(*arguments, after=after, limit=1_000)
        found += page
        after = page.next
        if after is None:
            return found


def _ns(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000


def was_again(found: dict[str, Any]) -> bool:
    """Return whether the children are of another call than the first."""
    return any(child["call"] != "first 1" for child in found["stored"])


def faults(found: dict[str, Any], parents: int, confirmed: str | None) -> Iterator[str]:
    """Say what is wrong with what was found in the end. `confirmed` is the process, or the call, whose settle was
    confirmed."""
    stored = msgspec.convert(found["stored"], list[Child])
    families = {child.of for child in stored}
    if len(families) != parents or found["settled"] != parents:
        yield f"{parents} parents were settled {found['settled']} times, and {len(families)} have children"
    for of in families:
        its = [child for child in stored if child.of == of]
        yield from _differ("stored", [each.label for each in its], (*HANDLED, *EXPIRED, *TOMORROW))
        calls = {child.call for child in its}
        if len(calls) > 1:
            yield f"children of several calls exist: {sorted(calls)}"
        if confirmed is not None and not all(call.startswith(confirmed) for call in calls):
            yield f"its settle was confirmed to {confirmed}, and then it was handled by {sorted(calls)}"
        handled = [each for each in found["handled"] if each["child"]["of"] == of]
        yield from _differ("handled", [each["child"]["label"] for each in handled], HANDLED)
        keyed = [each["child"]["label"] for each in handled if each["child"]["label"].startswith("keyed")]
        if keyed != sorted(keyed):
            yield f"handled out of order: {keyed}"
        causes = {tuple(each["cause"]) for each in handled}
        if causes != {("event", of, "parent", 1, of)}:
            yield f"the cause is {causes}"
    units = {child.call for child in stored}
    if len(units) > 1 and any(child.together > 1 for child in stored):
        yield f"the events of one call were settled apart: {sorted(units)}"
    early = [each["child"]["label"] for each in found["handled"] if each["early"]]
    if early:
        yield f"handled early, or due at another time: {early}"
    yield from _differ("delayed", found["delayed"], TOMORROW * parents)
    if found["expired"] != len(EXPIRED) * parents:
        yield f"{found['expired']} expired"
    if found["left"]:
        yield f"{found['left']} pend, are in flight or dead"


def _differ(what: str, labels: list[str], wanted: tuple[str, ...]) -> Iterator[str]:
    there, should = Counter(labels), Counter(wanted)
    if there != should:
        yield f"{what}: {dict(there - should)} too much, {dict(should - there)} missing"
