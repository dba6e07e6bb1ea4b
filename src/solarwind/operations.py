"""The operations: all that can be asked of a dispatcher, a row each.

A row names the method of `engine/operations.py` that does it, and says who may ask it and where it goes on a cluster.
The methods of `SolarWind`, the `call` messages of the protocol and both ends of them are made from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from .engine.base import Engine
from .engine.operations import Operations
from .engine.request import Operation, Owns, Request
from .loops import on_loop
from .options import check_order
from .records import PurposeInfo, Statistics, TopicInfo

R = TypeVar("R")


def _topics(parts: Sequence[tuple[list[TopicInfo], Owns]]) -> list[TopicInfo]:
    return sorted((each for found, owns in parts for each in found if owns(each.topic)), key=lambda each: each.topic)


def _purposes(parts: Sequence[tuple[list[PurposeInfo], Owns]]) -> list[PurposeInfo]:
    return sorted((each for found, _ in parts for each in found), key=lambda each: (each.topic, each.purpose))


def _statistics(parts: Sequence[tuple[Statistics, Owns]]) -> Statistics:
    topics = {name: counts for found, owns in parts for name, counts in found.topics.items() if owns(name)}
    purposes = {names: counts for found, _ in parts for names, counts in found.purposes.items()}
    return Statistics(dict(sorted(topics.items())), dict(sorted(purposes.items())))


class Operator:
    """What an operator may ask, of an engine or of a `SolarWind`."""

    topics = Operation(Operations.topics, to="all", merge=_topics, repeat="question")
    purposes = Operation(Operations.purposes, to="all", merge=_purposes, repeat="question")
    statistics = Operation(Operations.statistics, to="all", merge=_statistics, repeat="question")
    dead = Operation(Operations.dead, repeat="question")
    redrive = Operation(Operations.redrive)
    discard = Operation(Operations.discard)
    replay = Operation(Operations.replay, check=check_order)
    retire = Operation(Operations.retire)
    trace = Operation(Operations.trace, to="engine", repeat="question")
    backup = Operation(Operations.backup, to="engine")


class Internal(Operator):
    """What services ask of an engine besides."""

    topic = Operation(Operations.topic, makes=True, repeat="always")
    quiet = Operation(Operations.quiet, right="own", to="engine", repeat="always")
    left = Operation(Operations.left, right="own", to="engine", repeat="question")


class Asking(Operator):
    """The part of a `SolarWind` that asks its engine, from whatever loop."""

    _engine: Engine
    _loop: asyncio.AbstractEventLoop | None

    async def ask(self, request: Request[R]) -> R:
        """Do one of the operations, and return its answer. Raises what it raises."""
        return await on_loop(self._loop, self._engine.ask(request))


def _rows(tables: Iterable[type]) -> dict[str, Operation[..., Any]]:
    return {name: each for of in tables for name, each in vars(of).items() if isinstance(each, Operation)}


OPERATIONS = _rows((Operator, Internal))
