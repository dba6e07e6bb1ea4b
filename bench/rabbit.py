"""RabbitMQ in `processes.py`, by pika: producers get confirms, many under way at a time; consumers prefetch, and
acknowledge many with one message. Its documents advise both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

import harness
from harness import PAYLOAD

QUEUE = "bench.fired"
AHEAD = 2_000  # published and not yet confirmed
PREFETCH = 500
TOGETHER = 100  # that are acknowledged with one message
TURN = 100  # published in one turn of the loop
PERSISTENT = 2  # the delivery mode


def declare(channel: Any, kind: str, **more: Any) -> Any:
    return channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": kind}, **more)


def consumes(kind: str, say: Callable[[object], None], url: str, events: int) -> float:
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    declare(channel, kind)
    channel.basic_qos(prefetch_count=PREFETCH)
    say("ready")
    offset = {"x-stream-offset": "first"} if kind == "stream" else None
    for handled, (method, _, _) in enumerate(channel.consume(QUEUE, arguments=offset), 1):
        if handled % TOGETHER == 0 or handled == events:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if handled == events:
            break
    ended = perf_counter()
    connection.close()
    return ended


def produces(kind: str, say: Callable[[object], None], url: str, events: int) -> tuple[float, float]:
    return harness.run_loop(_produce(kind, url, events))


async def _produce(kind: str, url: str, events: int) -> tuple[float, float]:
    import pika
    from pika.adapters.asyncio_connection import AsyncioConnection

    async def answered(ask: Callable[[Callable[[Any], None]], object]) -> Any:
        answer = asyncio.get_running_loop().create_future()
        ask(answer.set_result)
        return await answer

    connection = None

    def connect(opened: Callable[[Any], None]) -> None:
        nonlocal connection
        connection = AsyncioConnection(pika.URLParameters(url), on_open_callback=opened)

    connection = await answered(connect)
    channel = await answered(lambda opened: connection.channel(on_open_callback=opened))
    await answered(lambda declared: declare(channel, kind, callback=declared))
    confirms = _Confirms()
    await answered(lambda selected: channel.confirm_delivery(confirms.note, callback=selected))
    properties = pika.BasicProperties(delivery_mode=PERSISTENT)
    begun = perf_counter()
    for at in range(0, events, TURN):
        some = range(at + 1, min(at + TURN, events) + 1)
        for number in some:
            channel.basic_publish("", QUEUE, PAYLOAD, properties)
            confirms.missing[number] = None
        await asyncio.sleep(0)
        await confirms.fewer_than(AHEAD)
    await confirms.fewer_than(1)
    ended = perf_counter()
    await answered(lambda closed: (connection.add_on_close_callback(lambda *_: closed(None)), connection.close()))
    return begun, ended


class _Confirms:
    """The numbers of what was published and is not confirmed yet."""

    def __init__(self) -> None:
        self.missing: dict[int, None] = {}
        self._came = asyncio.Event()

    def note(self, frame: Any) -> None:
        method = frame.method
        assert method.NAME == "Basic.Ack", "RabbitMQ has refused a message"
        if method.multiple:
            for number in list(self.missing):
                if number > method.delivery_tag:
                    break
                del self.missing[number]
        else:
            del self.missing[method.delivery_tag]
        self._came.set()

    async def fewer_than(self, count: int) -> None:
        while len(self.missing) >= count:
            self._came.clear()
            await self._came.wait()
