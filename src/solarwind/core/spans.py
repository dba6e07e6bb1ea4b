"""Sets of positions as arithmetic: a backlog of a hundred million events is two numbers.

A set is the sorted list of its edges `[start, stop, start, stop, …]`, each span half open. A position is
inside exactly where the number of edges at or below it is odd, so every operation is two bisections
and one splice.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Spans:
    """A set of whole numbers, kept as disjoint half-open spans in order."""

    __slots__ = ("edges",)

    def __init__(self, edges: Iterable[int] = ()) -> None:
        """`edges` are another set's `edges`: sorted, and no two equal."""
        self.edges: list[int] = list(edges)

    @classmethod
    def of(cls, positions: Iterable[int]) -> Spans:
        """Return the set of these positions, in any order, each once or more."""
        if isinstance(positions, range) and positions.step == 1:
            return cls((positions.start, positions.stop) if positions else ())
        edges: list[int] = []
        for position in sorted(positions):
            if edges and position <= edges[-1]:
                edges[-1] = max(edges[-1], position + 1)
            else:
                edges += (position, position + 1)
        return cls(edges)

    def add(self, start: int, stop: int) -> None:
        if start >= stop:
            return
        edges = self.edges
        if not edges or start > edges[-1]:  # the common case: work goes on at the end
            edges += (start, stop)
            return
        if start == edges[-1]:
            edges[-1] = stop
            return
        low, high = bisect_left(edges, start), bisect_right(edges, stop)
        edges[low:high] = [start] * (low % 2 == 0) + [stop] * (high % 2 == 0)

    def remove(self, start: int, stop: int) -> None:
        if start >= stop:
            return
        edges = self.edges
        low, high = bisect_left(edges, start), bisect_right(edges, stop)
        edges[low:high] = [start] * (low % 2) + [stop] * (high % 2)

    def update(self, other: Spans) -> None:
        theirs = other.edges
        if len(theirs) <= 2:
            if theirs:
                self.add(theirs[0], theirs[1])
            return
        edges = self.edges
        low, high = bisect_left(edges, theirs[0]), bisect_right(edges, theirs[-1])
        low, high = low - low % 2, high + high % 2
        edges[low:high] = _union(edges[low:high], theirs) if low < high else theirs

    def difference_update(self, other: Spans) -> None:
        theirs = other.edges
        if len(theirs) <= 2:
            if theirs:
                self.remove(theirs[0], theirs[1])
            return
        edges = self.edges
        low, high = bisect_right(edges, theirs[0]), bisect_left(edges, theirs[-1])
        low, high = low - low % 2, high + high % 2
        if low >= high:
            return
        mine = edges[low:high]
        # What is left out are the gaps between mine, and theirs; what is between those is left.
        start, stop = min(mine[0], theirs[0]) - 1, max(mine[-1], theirs[-1]) + 1
        edges[low:high] = _union([start, *mine, stop], theirs)[1:-1]

    def gap(self, position: int) -> tuple[int, int | None]:
        """Return the first span at or after `position` that is not in the set; its stop is None where it has no end."""
        edges = self.edges
        at = bisect_right(edges, position)
        if at % 2:
            position = edges[at]
            at += 1
        return position, edges[at] if at < len(edges) else None

    def within(self, start: int, stop: int) -> Spans:
        """Return the part of the set from `start` up to `stop`."""
        if start >= stop:
            return Spans()
        edges = self.edges
        low, high = bisect_right(edges, start), bisect_left(edges, stop)
        return Spans([start] * (low % 2) + edges[low:high] + [stop] * (high % 2))

    def common(self, other: Spans) -> Spans:
        """Return the part of the set that is in `other` too."""
        if other.edges == self.edges:
            return Spans(self.edges)
        part = Spans()
        if not other.edges:
            return part
        for start, stop in other:
            part.update(self.within(start, stop))
        return part

    def outside(self, start: int, stop: int) -> Spans:
        """Return the positions from `start` up to `stop` that are not in the set."""
        if start >= stop:
            return Spans()
        edges = [start, *self.within(start, stop).edges, stop]  # the gaps; those at the ends may be empty
        if edges[0] == edges[1]:
            del edges[:2]
        if edges and edges[-1] == edges[-2]:
            del edges[-2:]
        return Spans(edges)

    def copy(self) -> Spans:
        return Spans(self.edges)

    def __contains__(self, position: int) -> bool:
        return bisect_right(self.edges, position) % 2 == 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self.edges[::2], self.edges[1::2], strict=True)))

    def positions(self) -> Iterator[int]:
        for start, stop in self:
            yield from range(start, stop)

    def __len__(self) -> int:
        """Return how many positions are in the set."""
        edges = self.edges
        return edges[1] - edges[0] if len(edges) == 2 else sum(edges[1::2]) - sum(edges[::2])

    def __bool__(self) -> bool:
        return bool(self.edges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and self.edges == other.edges

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Spans({self.edges})"


def _union(one: list[int], other: list[int]) -> list[int]:
    """Return the edges of both together. With starts and stops each in order, there is a gap where so many spans have
    stopped as have started."""
    starts, stops = sorted(one[::2] + other[::2]), sorted(one[1::2] + other[1::2])
    edges = [starts[0]]
    for stop, start in zip(stops, starts[1:], strict=False):
        if stop < start:
            edges += (stop, start)
    edges.append(stops[-1])
    return edges
