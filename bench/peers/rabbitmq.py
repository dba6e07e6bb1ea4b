"""RabbitMQ by hand, with pika: a durable classic queue and persistent messages, acknowledged one by one. Run it, and
it is a worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pika

from peers import job

QUEUE = "bench.job"
PREFETCH = 100  # as its documents advise for what is handled quickly
PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


def channel() -> Any:
    opened = pika.BlockingConnection(pika.URLParameters(os.environ["BENCH_URL"])).channel()
    opened.queue_declare(QUEUE, durable=True)
    return opened


def commands(workers: int) -> list[list[str]]:
    return [[sys.executable, "-m", "peers.rabbitmq"]] * workers


_producer: list[Any] = []


async def connect() -> None:
    _producer.append(channel())


async def enqueue(numbers: Sequence[int]) -> None:
    for number in numbers:
        _producer[0].basic_publish("", QUEUE, str(number).encode(), PERSISTENT)
    _producer[0].queue_declare(QUEUE, passive=True)  # the answer comes after all that was published


async def close() -> None:
    _producer.pop().connection.close()


def work() -> None:
    def do(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        job.done(int(body))
        channel.basic_ack(method.delivery_tag)

    consumer = channel()
    consumer.basic_qos(prefetch_count=PREFETCH)
    consumer.basic_consume(QUEUE, do)
    consumer.start_consuming()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        work()
