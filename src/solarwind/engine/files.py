"""A file made by an operation, in transit from the dispatcher to the process that asked for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from ..errors import SolarWindError, StoreError
from ..store.paths import refuse_existing

BLOCK_BYTES = 256 << 10


async def read_file(make: Callable[[str], Coroutine[Any, Any, object]]) -> AsyncIterator[list[bytes]]:
    """Have `make` write a file at a path, in a folder of its own, and return its bytes in blocks."""
    import tempfile  # hardly ever needed, and it imports much

    with tempfile.TemporaryDirectory(prefix="solarwind-") as folder:
        path = os.path.join(folder, "made")
        making = asyncio.ensure_future(make(path))
        try:
            await asyncio.shield(making)
        finally:
            await asyncio.wait([making])  # a thread writes into the folder, even if no caller waits for it any more
        size, at = os.path.getsize(path), 0
        while at < size:
            yield [await asyncio.to_thread(_block, path, at)]
            at += BLOCK_BYTES


def _block(path: str, at: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(at)
        return file.read(BLOCK_BYTES)


async def write_file(path: str, asking: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    """Write the blocks that are asked for to a new file, for its owner alone. Raise `StoreError` if there is one, or it
    cannot be written, and leaves none that is not whole. Return no items."""
    try:
        refuse_existing(path)
    except SolarWindError:
        asking.close()
        raise
    blocks = await asking
    try:
        await asyncio.to_thread(_write, path, blocks)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error}): name another, and nothing was kept of this") from error
    return []


def _write(path: str, blocks: list[bytes]) -> None:
    file = open(path, "xb", opener=_for_owner_alone)  # noqa: SIM115 (it is removed, too, where that fails)
    try:
        with file:
            file.writelines(blocks)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(path)
        raise


def _for_owner_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
