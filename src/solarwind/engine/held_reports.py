"""Reports that bring events, while there is no room for any. Reports without events do not wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator

from ..batch import Batch
from ..core.effects import Report

_HeldReport = tuple[Report, Collection[Batch], "asyncio.Future[bool]"]


class HeldReports:
    """Reports that do not count yet: what their instances have in hand stays their own. `count` counts one."""

    def __init__(self, count: Callable[[Report, Collection[Batch]], bool]) -> None:
        self._count = count
        self._waiting: list[_HeldReport] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, report: Report, fired: Collection[Batch]) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((report, fired, future))
        return future

    @property
    def next_bytes(self) -> int:
        return sum(len(batch.data) for batch in self._waiting[0][1])

    def count_next(self) -> None:
        """Count the next report, if there is one: while room was looked for, the last may have been counted because its
        instance left."""
        if self._waiting:
            self._count_one(self._waiting.pop(0))

    def count_all(self, instance: int) -> None:
        """Count everything that an instance reported, because it is about to leave."""
        if not self._waiting:
            return
        its = [each for each in self._waiting if each[0].instance == instance]
        self._waiting = [each for each in self._waiting if each[0].instance != instance]
        for each in its:
            self._count_one(each)

    def _count_one(self, held: _HeldReport) -> None:
        report, fired, future = held
        counts = self._count(report, fired)
        if not future.done():
            future.set_result(counts)

    def pop_futures(self) -> Iterator[asyncio.Future[bool]]:
        """Remove the reports, which will never count, and yield their futures."""
        while self._waiting:
            yield self._waiting.pop()[2]
