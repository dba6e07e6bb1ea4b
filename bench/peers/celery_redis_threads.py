"""Celery on Redis, with threads as workers, which its documents advise for tasks that wait more than they compute."""

from __future__ import annotations

from peers import celery_redis
from peers.celery_redis import close, connect, enqueue

__all__ = ["close", "commands", "connect", "enqueue"]


def commands(workers: int) -> list[list[str]]:
    return [[*command, "--pool", "threads"] for command in celery_redis.commands(workers)]
