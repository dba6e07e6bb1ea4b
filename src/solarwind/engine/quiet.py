"""Waiting until some purposes have nothing left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec


class Quiet(msgspec.Struct, eq=False):
    """Somebody who waits until these purposes have nothing left to do; `left` were not yet seen without. What they did
    last may have caused more, so it counts once `commit` is done: all that was under way when they were seen."""

    purposes: tuple[tuple[str, str], ...]
    left: list[tuple[str, str]]
    future: asyncio.Future[None]
    commit: int | None = None

    def is_quiet(self, work_left: Callable[[str, str], bool]) -> bool:
        """Ask one purpose after the other, and all of them again only when each has been quiet once."""
        while self.left:
            if work_left(*self.left[-1]):
                return False
            self.left.pop()
        self.left = [names for names in self.purposes if work_left(*names)]
        return not self.left
