"""What is on the disk of a simulated world: which event is at which position, with which id and keys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from ..core.log import Stored
from .sim_facts import Broken


class LogBook:
    """The events of all topics, by their positions."""

    def __init__(self) -> None:
        self.starts: dict[str, dict[int, int]] = {}  # topic -> position of a batch -> its first event's number
        self.with_key: dict[tuple[str, str | None, str], int] = {}  # topic, kind, key -> set
        self.keys: defaultdict[str, list[tuple[str | None, str | None]]] = defaultdict(list)  # of both kinds
        self.ids: defaultdict[str, list[str]] = defaultdict(list)
        self.expires: defaultdict[str, dict[int, int]] = defaultdict(dict)  # by topic and position

    def add(self, stored: Stored) -> None:
        """Note that it is on the disk."""
        batch, topic = stored.batch, stored.batch.header.topic
        self.starts.setdefault(topic, {})[stored.start] = batch.header.first
        keys = self.keys[topic]
        if len(keys) != stored.start:
            raise Broken(f"{topic}: a batch at {stored.start} where the log ends at {len(keys)}")
        for index in range(len(batch)):
            inner = msgspec.json.decode(batch.payload(index)).get("k")
            keys.append((batch.key(index), inner))
            self.ids[topic].append(batch.id(index))
            end = batch.expires(index)
            if end is not None:
                self.expires[topic][stored.start + index] = end
            for kind, key in ((None, batch.key(index)), ("$.k", inner)):
                if key is not None:
                    name = (topic, kind, key)
                    self.with_key[name] = self.with_key.get(name, 0) | 1 << (stored.start + index)

    def expired(self, topic: str, wall: int) -> int:
        """Return the set of a topic's events that have expired."""
        return sum(1 << position for position, end in self.expires[topic].items() if end <= wall)

    def number(self, topic: str, position: int) -> int:
        """Return the number that the event at a position was fired with."""
        start = max(start for start in self.starts[topic] if start <= position)
        return self.starts[topic][start] + position - start

    def same_keys(self, topic: str, picks: Iterable[int], kind: str | None) -> list[tuple[int, int]]:
        """Return those of these events that have a key, each with the set of all events of its key."""
        found = [(position, self.keys[topic][position][0 if kind is None else 1]) for position in picks]
        return [(position, self.with_key[topic, kind, key]) for position, key in found if key is not None]
