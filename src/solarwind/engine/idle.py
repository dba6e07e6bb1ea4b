"""Waiting until some purposes have nothing left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from ..core.dispatcher import Dispatcher
from .base import PAUSED
from .clock import Clock
from .commits import Commits


def left_of(dispatcher: Dispatcher, purposes: Collection[tuple[str, str]]) -> list[str]:
    """Return what these purposes have left to do, each that has anything in words."""
    parts = []
    for topic, purpose in purposes:
        if dispatcher.has_work(topic, purpose):
            found = dispatcher.purpose(topic, purpose)
            left = found.in_words(dispatcher.topics[topic].end)
            parts.append(f"{left} of {purpose!r} on {topic!r}{f', {PAUSED}' * bool(found.paused)}")
    return parts


class IdleWait(msgspec.Struct, eq=False):
    """A caller that waits until these purposes have nothing left to do; `left` are those that were not seen idle yet.
    What they did last may have caused more, so it counts once `commit` is done: everything that was under way when they
    were seen."""

    purposes: tuple[tuple[str, str], ...]
    left: list[tuple[str, str]]
    future: asyncio.Future[None]
    commit: int | None = None

    def is_idle(self, work_left: Callable[[str, str], bool]) -> bool:
        """Ask one purpose after the other, and all of them again only when each has been idle once."""
        while self.left:
            if work_left(*self.left[-1]):
                return False
            self.left.pop()
        self.left = [names for names in self.purposes if work_left(*names)]
        return not self.left


class IdleWaits:
    """All such waits. `work_left` returns whether a purpose has something to do; what is due may be for any."""

    def __init__(self, work_left: Callable[[str, str], bool], commits: Commits[Any], clock: Clock) -> None:
        self._work_left = work_left
        self._clock = clock
        self._commits = commits
        self.waiting: list[IdleWait] = []

    async def wait(self, purposes: Collection[tuple[str, str]]) -> None:
        waiter = IdleWait(tuple(purposes), list(purposes), asyncio.get_running_loop().create_future())
        self.waiting.append(waiter)
        self.check()
        await waiter.future

    def check(self) -> None:
        """Complete the waits that are over. Called whenever there may be one."""
        for waiter in self.waiting:
            if waiter.future.done():
                continue
            if not waiter.is_idle(self._work_left):
                waiter.commit = None
                continue
            if waiter.commit is None:
                waiter.commit = self._commits.following
            if self._commits.done >= waiter.commit and not self._commits.due.has_work(self._clock.wall()):
                waiter.future.set_result(None)
        self.waiting = [waiter for waiter in self.waiting if not waiter.future.done()]

    def pop_futures(self) -> list[asyncio.Future[None]]:
        """Remove and return the futures of all waits."""
        waiting, self.waiting = self.waiting, []
        return [each.future for each in waiting]
