"""Answers to `call` messages, in parts that are small enough to travel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import msgspec

from ..engine.files import read_file
from ..engine.request import Operation, Request
from ..errors import BadArgument
from ..operations import OPERATIONS

MAX_ITEMS = 256  # in a part
_MAX_BYTES = 256 << 10
Part = list[Any]


def operation_of(name: str) -> Operation[..., Any]:
    """Return the operation that a `call` names. Raise `BadArgument`."""
    found = OPERATIONS.get(name)
    if found is None:
        raise BadArgument(f"expected a call, one of {', '.join(OPERATIONS)}, got {name!a}")
    return found


Ask = Callable[[Request[Any]], Awaitable[Any]]


async def answer(ask: Ask, operation: Operation[..., Any], message: msgspec.Struct) -> AsyncIterator[Part]:
    """Do the operation, by `ask`, and yield its answer in parts. Raise `BadName` and `BadArgument`, because a foreign
    client may have sent it, and what the operation raises."""
    if operation.file is not None:
        async for blocks in read_file(partial(_make, ask, operation, message)):
            yield blocks
        return
    found = await ask(operation.unpack(message))
    for part in _parts(operation.form.items(found)):
        yield part


async def _make(ask: Ask, operation: Operation[..., Any], message: msgspec.Struct, path: str) -> None:
    assert operation.file is not None
    await ask(operation.unpack(message, {operation.file: path}))


def _parts(items: Iterable[Any]) -> Iterable[Part]:
    part: Part = []
    size = 0
    for item in items:
        part.append(item)
        size += len(item if isinstance(item, bytes | str) else getattr(item, "batch", b""))
        if len(part) == MAX_ITEMS or size > _MAX_BYTES:
            yield part
            part, size = [], 0
    yield part
