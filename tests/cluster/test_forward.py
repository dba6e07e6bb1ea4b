"""What handlers fire is copied from the commits of its owner into the streams of its topics."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from solarwind import Dead, Event, Reject, SolarWind
from solarwind.cluster.engine import NatsEngine
from solarwind.cluster.forward import _Copier
from solarwind.cluster.session import NoAnswer, Session
from solarwind.cluster.store import JetStreamStore
from solarwind.engine.idle import IdleWaits
from solarwind.names import DEAD
from solarwind.testing.contract import on_loop, until

from .processes import one_of_each
from .servers import NatsServer

FIRED = 60


@pytest.mark.parametrize("lost", ["", "question", "answer"])
@on_loop
async def test_what_waits_to_be_copied_travels_together_each_once_and_in_order(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Also where a message to NATS or its answer is lost. An event with an id of its own is a message of its own."""
    copies: list[int] = []  # messages stored together, of each question
    lose = [lost]
    copy, publish_together = _Copier._copy, Session.publish_together

    async def copying_late(self: _Copier) -> None:
        if not copies:
            await until(lambda: sum(len(each.batch) for each in self.waiting) == FIRED)
        copies.append(0)
        await copy(self)

    async def losing(self: Session, messages: list[Any]) -> int:
        copies[-1] = len(messages)
        what = lose.pop() if lose else ""
        if what == "question":
            raise NoAnswer("it was lost")
        found = await publish_together(self, messages)
        if what == "answer":
            raise NoAnswer("it was lost")
        return found

    monkeypatch.setattr(_Copier, "_copy", copying_late)
    monkeypatch.setattr(Session, "publish_together", losing)
    wind = SolarWind(server.url(namespace, streams=1))
    handled: list[int] = []

    @wind.on("parents", purpose="p")
    async def parent(number: int) -> None:
        wind.fire("children", number, key="one", id=f"own-{number}" if number == FIRED // 2 else None)

    @wind.on("children", purpose="p", exchange="keyed")  # a direct one promises no order
    async def child(number: int) -> None:
        handled.append(number)

    async with wind:
        for number in range(FIRED):
            await wind.fire("parents", number)
            await until(lambda number=number: _settled(wind, number + 1))
        await until(lambda: len(handled) >= FIRED)
        await wind.settled(60)
        assert handled == list(range(FIRED))
        assert (await wind.statistics()).topics["children"].fired == FIRED
    assert len(copies) < FIRED / 4
    assert max(copies) > FIRED / 4


async def _settled(wind: SolarWind, count: int) -> bool:
    return (await wind.statistics()).purposes["parents", "p"].settled == count


@on_loop
async def test_what_a_handler_fires_is_stored_in_every_partition_where_topics_keep_no_history(
    server: NatsServer, namespace: str
) -> None:
    """Whether somebody listens on a topic its owner knows, and not the one whose handler fires; so it is for deaths."""
    topics, heard = one_of_each(2), list[tuple[str, str]]()
    engine = NatsEngine(server.url(namespace, streams=2) + "&keep=0")
    wind = SolarWind(engine=engine)

    async def handle(what: str, event: Event) -> None:
        heard.append((event.topic, what))
        if what == "parent":
            for topic in topics:
                wind.fire(topic, f"child of {event.topic}")
        elif what == "dead":
            raise Reject("no")

    async def hear(dead: Dead) -> None:
        heard.append((dead.topic, dead.error))

    for topic in topics:
        wind.on(topic, purpose="p")(handle)
    wind.on(DEAD, purpose="ops")(hear)
    async with wind:
        await until(lambda: len(engine._owners.mine) == 2, "it to own both partitions")
        dispatchers = [owner.engine._dispatcher for owner in engine._owners.mine.values()]
        await until(lambda: all(each.deaths.heard_elsewhere for each in dispatchers), "both to know that one hears")
        for topic in topics:
            await wind.fire_many(topic, ["parent", "dead"])
        await wind.settled(60)
    children = [f"child of {topic}" for topic in topics]
    assert sorted(heard) == sorted((topic, what) for topic in topics for what in ("parent", "dead", "no", *children))


@on_loop
async def test_settled_waits_for_what_was_handled_but_not_committed_when_it_looked(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrives and is handled while `settled` waits for copies leaves no work, but what it fired is nowhere yet
    where another commit began in between."""
    store, looked, held = JetStreamStore, asyncio.Event(), asyncio.Event()
    commit, forwarded, wait = store.commit, store.forwarded, IdleWaits.wait
    handled: list[int] = []

    async def holding_commit(self: JetStreamStore, *given: Any, **more: Any) -> Any:
        if handled == [0]:
            held.set()
            await looked.wait()
        return await commit(self, *given, **more)

    async def waiting(self: IdleWaits, purposes: Any) -> None:
        await wait(self, purposes)
        if not held.is_set():
            await wind.fire("others")
            await held.wait()

    async def looking_late(self: JetStreamStore) -> None:
        await forwarded(self)
        if not looked.is_set():
            await wind.fire("T", 1)
            await until(lambda: handled == [0, 1])
            asyncio.get_running_loop().call_soon(looked.set)

    wind = SolarWind(server.url(namespace, streams=1))

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None:
        handled.append(number)
        if number == 1:
            wind.fire("T", 2)

    @wind.on("others", purpose="q")
    async def other() -> None: ...

    async with wind:
        await wind.fire("T", 0)
        await wind.settled(60)
        monkeypatch.setattr(store, "commit", holding_commit)
        monkeypatch.setattr(store, "forwarded", looking_late)
        monkeypatch.setattr(IdleWaits, "wait", waiting)
        await wind.settled(60)
        assert handled == [0, 1, 2]
