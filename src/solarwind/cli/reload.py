"""`run --reload`: notices when a source file changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

_LOOK_S = 0.25
_NOT_OURS = {"__pycache__", "node_modules", "site-packages"}


async def changes(before: dict[str, int]) -> AsyncIterator[str]:
    """Yield each changed file. `before` is the earlier result of `times`."""
    while True:
        await asyncio.sleep(_LOOK_S)
        now = times()
        changed = difference(before, now)
        before = now
        if changed is not None:
            yield changed


def times() -> dict[str, int]:
    """Return the modification time of each Python file below the current folder."""
    return dict(_files("."))


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """Yield the Python files below a folder with their modification times, without hidden and installed ones."""
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
    """Return a file that is new, gone or changed, or None."""
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            return os.path.relpath(path)
    return None
