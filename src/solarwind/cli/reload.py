"""`run --reload`: notice when a source file changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

_LOOK_S = 0.25
_NOT_OURS = {"__pycache__", "node_modules", "site-packages"}


async def changes(before: dict[str, int]) -> AsyncIterator[str]:
    """A file that is not as it was, again and again. `before` is what `times` gave at first."""
    while True:
        await asyncio.sleep(_LOOK_S)
        now = times()
        changed = difference(before, now)
        before = now
        if changed is not None:
            yield changed


def times() -> dict[str, int]:
    """When each Python file from here on down changed."""
    return dict(_files("."))


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """The Python files below, and when they changed; without what is hidden or installed."""
    for where, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if each not in _NOT_OURS and not each.startswith(".")]
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(where, name)
                try:
                    yield path, os.stat(path).st_mtime_ns
                except FileNotFoundError:
                    pass


def difference(before: dict[str, int], after: dict[str, int]) -> str | None:
    """A file that is new, gone or changed."""
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            return os.path.relpath(path)
    return None
