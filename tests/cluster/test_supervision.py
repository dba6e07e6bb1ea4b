"""Every background task of a process on `nats://` raises once what nobody expects: it is logged, and what depends on it
begins anew, so that no purpose stands still."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from breaking import Once
from due_log import events
from solarwind import Event, SolarWind, StoreError, Unavailable
from solarwind.cluster import owners
from solarwind.cluster.channel import Channel
from solarwind.cluster.copying import NatsEnd
from solarwind.cluster.delayed import StreamDueLog
from solarwind.cluster.forward import _Copier
from solarwind.cluster.link import Frames, MemoryLink, NatsLink
from solarwind.cluster.owner import Owner
from solarwind.cluster.owners import Owners
from solarwind.cluster.publish import Publisher
from solarwind.cluster.session import Session
from solarwind.cluster.store import JetStreamStore
from solarwind.cluster.tail import Tail
from solarwind.engine.history import Trimmer
from solarwind.engine.release import Releaser
from solarwind.peer.client import Client
from solarwind.peer.connection import Connection
from solarwind.service.consumer import Consumer
from solarwind.testing.contract import on_loop, until

from .processes import one_of_each
from .servers import NatsServer

# What each task does again and again.
STEPS: list[tuple[type, str]] = [
    (Channel, "is_heard"),
    (Channel, "_send_one"),
    (Channel, "post"),
    (Owners, "_turn"),
    (Owners, "_send_heartbeat"),
    (Owners, "_stay_awake"),
    (Owners, "_notify"),
    (Owners, "_heartbeat_came"),
    (Session, "_watch"),
    (Tail, "_watch"),
    (Tail, "_drop"),
    (JetStreamStore, "_receive"),
    (JetStreamStore, "look"),
    (JetStreamStore, "commit"),
    (Tail, "_sync"),
    (JetStreamStore, "_purge"),
    (JetStreamStore, "confirm_ownership"),
    (_Copier, "_copy"),
    (Publisher, "_store"),
    (Frames, "_put"),
    (Frames, "receive"),
    (MemoryLink, "send"),
    (NatsLink, "send"),
    (Consumer, "deliver"),
    (Connection, "handle"),
    (Connection, "_write"),
    (Trimmer, "_trim"),
    (Releaser, "release"),
    (StreamDueLog, "_sort_next"),
]
OF_DELAYED = ("Releaser.release", "StreamDueLog._sort_next")


class Broken(Exception):
    """Nobody expects it."""


class Steps:
    """Lets each raise once, when it is armed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._armed: set[str] = set()
        for kind, name in STEPS:
            monkeypatch.setattr(kind, name, self._breaking(f"{kind.__name__}.{name}", getattr(kind, name)))

    def arm(self, step: str) -> None:
        self._armed.add(step)

    def is_armed(self, step: str) -> bool:
        return step in self._armed

    def _breaking(self, step: str, real: Any) -> Any:
        def check() -> None:
            if step in self._armed:
                self._armed.remove(step)
                raise Broken(step)

        if asyncio.iscoroutinefunction(real):

            async def broken(*args: Any, **options: Any) -> Any:
                check()
                return await real(*args, **options)

            return broken

        def broken_now(*args: Any, **options: Any) -> Any:
            check()
            return real(*args, **options)

        return broken_now


@on_loop
async def test_an_owner_that_ends_right_after_each_start_is_started_once_a_heartbeat(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[float] = []
    start = Owner.start

    async def failing(self: Owner) -> None:
        await start(self)
        starts.append(monotonic())
        asyncio.get_running_loop().call_soon(self.engine.end, StoreError("it ends"))

    monkeypatch.setattr(Owner, "start", failing)
    monkeypatch.setattr(owners, "HEARTBEAT_S", 0.3)
    async with SolarWind(server.url(namespace, streams=1)) as wind:
        await wind.fire("T", 1)
        asking = asyncio.create_task(wind.statistics())
        await until(lambda: len(starts) > 2)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert starts[2] - starts[0] > 0.6


@pytest.mark.long
@on_loop
async def test_a_background_task_that_raises_is_logged_and_all_purposes_go_on(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    steps = Steps(monkeypatch)
    monkeypatch.setattr("solarwind.cluster.log.PURGE_AFTER", 8)
    caplog.set_level(logging.WARNING)
    first, second = one_of_each(2)
    url = server.url(namespace, streams=2)
    winds = [SolarWind(url), SolarWind(url)]
    handled: Counter[tuple[int, str]] = Counter()
    for number, wind in enumerate(winds):

        @wind.on(first, purpose="chain")
        async def chain(event: Event, number: int = number, wind: SolarWind = wind) -> None:
            handled[number, first] += 1
            wind.fire(second, event.payload)

        @wind.on(second, purpose="child")
        async def child(event: Event, number: int = number) -> None:
            handled[number, second] += 1

    async with winds[0], winds[1]:
        work = {(number, topic) for number in (0, 1) for topic in (first, second)}

        async def fire(step: str) -> bool:
            try:
                id = uuid4().hex if step == "Publisher._store" else None  # else it is posted at once
                await winds[0].fire(first, 1, id=id, within=2.0)
                if step in OF_DELAYED:
                    await asyncio.wait_for(
                        winds[0].engine.submit(events(first, 1, first=0, ids=[uuid4().hex], due=[1])), 2.0
                    )
                if step in ("Tail._sync", "Trimmer._trim"):
                    winds[1].topic(first, keep=60)
                    await winds[1].statistics()
            except (Unavailable, Broken, TimeoutError):
                pass
            return not steps.is_armed(step) and work <= handled.keys()

        for kind, name in STEPS:
            step = f"{kind.__name__}.{name}"
            caplog.clear()
            steps.arm(step)
            if step == "Owners._notify":
                winds[0].engine._owners._tell()  # type: ignore[attr-defined]
            if kind in (Tail, Session) or step == "JetStreamStore.confirm_ownership":
                winds[0].engine._session._gone.set()  # type: ignore[attr-defined]
            await until(lambda step=step: _broken(fire, step, steps), f"{step} to raise")
            handled.clear()
            await until(lambda step=step: fire(step), f"all to work again after {step}; {handled}")
            assert f"Broken: {step}" in caplog.text, f"nobody logged that {step} raised"
            for wind in winds:
                wind.engine.check()


async def _broken(fire: Any, step: str, steps: Steps) -> bool:
    await fire(step)
    return not steps.is_armed(step)


@on_loop
async def test_a_partition_that_cannot_be_taken_over_is_no_longer_ready(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SolarWind(server.url(namespace, streams=1)) as wind:
        await wind.fire("T", 1)
        await wind.statistics()

        async def refuse(self: Owner) -> None:
            raise Broken("no owner")

        monkeypatch.setattr(Owner, "start", refuse)

        def look(self: JetStreamStore) -> None:
            raise Broken("look")

        monkeypatch.setattr(JetStreamStore, "look", look)

        def is_ready() -> bool:
            try:
                wind.engine.check()
            except Unavailable as error:
                return "partition 0" not in str(error)
            return True

        await until(lambda: not is_ready(), "the owner to be given up")
        monkeypatch.undo()
        await until(is_ready, "the owner to be there again")


@on_loop
async def test_a_handler_that_cancels_all_tasks_ends_the_process_loudly(server: NatsServer, namespace: str) -> None:
    """Some libraries do so at their end: nothing is read, sent or looked at any more."""
    others = asyncio.all_tasks()
    wind = SolarWind(server.url(namespace, streams=1))

    @wind.on("T", purpose="p")
    async def cancel_all(number: int) -> None:
        for task in asyncio.all_tasks() - others - {asyncio.current_task()}:
            task.cancel()

    await wind.start()
    await wind.fire("T", 1)
    await until(lambda: wind.engine.failed.done(), "the engine to say that it failed")
    with pytest.raises(StoreError, match="cancelled all tasks"):
        wind.engine.check()
    await wind.stop()


@pytest.mark.parametrize("of", [(Owners, "_subscribe"), (Client, "_is_back")])
@on_loop
async def test_a_process_that_cannot_come_back_to_nats_or_an_owner_for_an_unexpected_reason_ends_loudly(
    of: tuple[type, str], once: Once, server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    wind = SolarWind(server.url(namespace, streams=1), grace=0)
    wind.on("T", purpose="p")(lambda: None)
    await wind.start()
    raised = once(*of)
    wind.engine._owners.mine[0].leave_all()  # type: ignore[attr-defined]
    wind.engine._session._gone.set()  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match="cannot go on after an unexpected Unexpected"):
        await asyncio.wait_for(wind.failed, 60)
    assert raised
    with pytest.raises(StoreError):
        wind.engine.check()
    assert "solarwind stops" in caplog.text
    await wind.stop()


@on_loop
async def test_a_copy_that_cannot_hear_other_processes_any_more_ends(
    once: Once, server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Else it would not notice one that begins to work there."""
    end = NatsEnd(server.url(namespace, streams=1), writes=True)
    await end.open(1)
    try:
        once(NatsEnd, "_hear")
        end._session._gone.set()

        def is_deaf() -> bool:
            try:
                end.check_alone()
            except StoreError as error:
                return "listening for other processes cannot go on" in str(error)
            return False

        await until(is_deaf)
        assert "Unexpected" in caplog.text
    finally:
        await end.leave(True)
