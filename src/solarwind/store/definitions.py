"""Named definitions, apart from any topic's log: values by kind and name, such as a server's webhooks.

A change is one commit of the store, atomic and in order with all others. Each definition has the number of the change
that made it. A change may state the number of the definition that it replaces, so that of two concurrent changes only
one succeeds.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Protocol

import msgspec

from ..errors import BadArgument, Busy, ConflictError, TooLarge

log = logging.getLogger("solarwind")

MAX_VALUE_BYTES = 64 << 10
MAX_NAME_BYTES = 4 << 10
MAX_DEFINITIONS = 10_000


class Definition(msgspec.Struct, frozen=True, array_like=True):
    """`value` is None where it was removed. `number` is larger than that of every earlier change."""

    kind: str
    name: str
    value: bytes | None
    number: int

    def __repr__(self) -> str:
        """Leave out the value, which may contain secrets."""
        return f"<Definition {self.kind} {self.name!r}, number {self.number}>"


Listener = Callable[[Definition], None]
ChangeDefinition = Callable[[str, str, bytes | None, int | None], Awaitable[Definition | None]]
ReadDefinitions = Callable[[str | None], Awaitable[list[Definition]]]


class Definitions(Protocol):
    """The definitions of a store. Methods raise `StoreError` where they fail."""

    lasting: bool  # whether they survive the process

    async def list(self, kind: str | None = None) -> list[Definition]:
        """Return all definitions, or all of a kind, by kind and name."""
        ...

    async def put(self, kind: str, name: str, value: bytes, *, before: int | None = None) -> Definition:
        """Store a definition durably. `before` is the number of the definition that it replaces, 0 for none; None for
        any. Raise `ConflictError` where another is there; `TooLarge`, `Busy`, `BadArgument`."""
        ...

    async def remove(self, kind: str, name: str, *, before: int | None = None) -> Definition | None:
        """Remove a definition and return the change, or None where it was not there. `before` as above."""
        ...

    def watch(self, kind: str, told: Listener) -> Callable[[], None]:
        """Call `told` on the loop with each change of that kind from now on, by any process; a change may be repeated.
        Return a function that ends it."""
        ...


class Watchers:
    """The callbacks for changes of definitions."""

    def __init__(self) -> None:
        self._told: dict[str, list[Listener]] = {}

    def watch(self, kind: str, told: Listener) -> Callable[[], None]:
        watching = self._told.setdefault(kind, [])
        watching.append(told)
        return lambda: watching.remove(told)

    def tell(self, definition: Definition) -> None:
        for told in list(self._told.get(definition.kind, ())):
            try:
                told(definition)
            except Exception:
                log.exception("a watcher of definitions of kind %s raised", definition.kind)


class StoredDefinitions:
    """`Definitions` on two functions of a store: `change` a definition, or remove it where the value is None, and
    `read` those of a kind. `change` returns None where there was nothing to remove."""

    def __init__(self, change: ChangeDefinition, read: ReadDefinitions, *, lasting: bool) -> None:
        self.lasting = lasting
        self._change = change
        self._read = read
        self._watchers = Watchers()
        self.watch = self._watchers.watch
        self.tell = self._watchers.tell

    async def list(self, kind: str | None = None) -> list[Definition]:
        return sorted(await self._read(kind), key=lambda each: (each.kind, each.name))

    async def put(self, kind: str, name: str, value: bytes, *, before: int | None = None) -> Definition:
        check_definition(kind, name, value)
        definition = await self._change(kind, name, value, before)
        assert definition is not None
        self.tell(definition)
        return definition

    async def remove(self, kind: str, name: str, *, before: int | None = None) -> Definition | None:
        definition = await self._change(kind, name, None, before)
        if definition is not None:
            self.tell(definition)
        return definition


def in_memory() -> StoredDefinitions:
    """Return definitions that last as long as the process."""
    known: dict[tuple[str, str], Definition] = {}
    numbers = count(1)

    async def change(kind: str, name: str, value: bytes | None, before: int | None) -> Definition | None:
        found = known.get((kind, name))
        check_before(kind, name, found.number if found is not None else 0, before)
        if value is None and found is None:
            return None
        definition = Definition(kind, name, value, next(numbers))
        if value is None:
            del known[kind, name]
        else:
            check_count(len(known) + (found is None))
            known[kind, name] = definition
        return definition

    async def read(kind: str | None) -> list[Definition]:
        return [each for each in known.values() if kind in (None, each.kind)]

    return StoredDefinitions(change, read, lasting=False)


def check_definition(kind: str, name: str, value: bytes) -> None:
    """Raise `BadArgument` and `TooLarge` for an invalid definition."""
    if not (kind.isascii() and kind.isidentifier()):
        raise BadArgument(f"expected a kind of definition, a word of A-Z a-z 0-9 _, got {kind[:80]!a}")
    if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        raise BadArgument(f"expected a name of 1 to {MAX_NAME_BYTES:,} bytes, got {len(name.encode()):,}")
    if len(value) > MAX_VALUE_BYTES:
        raise TooLarge(f"expected a definition of at most {MAX_VALUE_BYTES:,} bytes, got {len(value):,}")


def check_before(kind: str, name: str, number: int, before: int | None) -> None:
    """Raise `ConflictError` unless `number`, 0 for none, is that of the definition to be changed."""
    if before is not None and before != number:
        raise ConflictError(
            f"expected {kind} {name!r} as of change {before}, got change {number}: somebody else changed it meanwhile; "
            "look at it, and try again"
        )


def check_count(number: int) -> None:
    """Raise `Busy` where there are too many definitions."""
    if number > MAX_DEFINITIONS:
        raise Busy(f"expected no more than {MAX_DEFINITIONS:,} definitions in a store, got another: remove one")
