"""The events that died since the last commit, for whoever tells of them: see `engine/deaths.py`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from ..names import DEAD
from .state import Letter
from .track import Track

if TYPE_CHECKING:
    from .registry import Registry


class Death(NamedTuple):
    """An event that became a dead letter of a purpose."""

    topic: str
    purpose: str
    letter: Letter


class Deaths:
    """The deaths of a dispatcher's purposes. Nothing is kept of them while no purpose listens on `DEAD`. Of those that
    do, none is told, so that no death tells of itself."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.heard_elsewhere = False  # by a purpose of another dispatcher
        self.waiting: list[Death] = []

    @property
    def heard_here(self) -> bool:
        """Whether a purpose of this dispatcher listens."""
        topic = self._registry.topics.get(DEAD)
        return topic is not None and bool(topic.purposes)

    def note(self, track: Track, letters: Iterable[Letter]) -> None:
        """Note that events of a track died."""
        if track.topic != DEAD and (self.heard_here or self.heard_elsewhere):
            self.waiting += [Death(*track.purpose.key, letter) for letter in letters]

    def pop(self) -> list[Death]:
        """Remove and return those since the last call."""
        waiting, self.waiting = self.waiting, []
        return waiting
