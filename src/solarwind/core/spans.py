"""Sets of positions as arithmetic: a backlog of a hundred million events is two numbers.

A set is the sorted list of its edges `[start, stop, start, stop, …]`, each span half open. A position is
inside exactly where the number of edges at or below it is odd, so every operation is two bisections
and one splice.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, compress
from operator import gt, lt, sub
from typing import overload


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
        if isinstance(positions, Positions):
            return cls(positions.edges)
        starts = sorted(positions)
        stops = [start + 1 for start in starts]
        gaps = list(map(gt, starts[1:], stops))
        if not all(gaps):  # there are some in a row, or one twice
            starts, stops = [starts[0], *compress(starts[1:], gaps)], [*compress(stops, gaps), stops[-1]]
        spans = cls()
        spans.edges = edges = [0] * (2 * len(starts))
        edges[::2], edges[1::2] = starts, stops
        return spans

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
        if not edges or theirs[0] > edges[-1]:
            edges += theirs
            return
        low, high = bisect_left(edges, theirs[0]), bisect_right(edges, theirs[-1])
        if low % 2 and low == high:  # all of it is in one span
            return
        low, high = low - low % 2, high + high % 2
        edges[low:high] = _union(edges[low:high], theirs) if low < high else theirs

    def difference_update(self, other: Spans) -> None:
        theirs = other.edges
        if len(theirs) <= 2:
            if theirs:
                self.remove(theirs[0], theirs[1])
            return
        edges = self.edges
        if edges == theirs:  # an instance is done with all that it had
            edges.clear()
            return
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

    def first(self, count: int, start: int = 0) -> Spans:
        """Return the first `count` positions of the set at or after `start`."""
        part, at = Spans(), bisect_right(self.edges, start) // 2 * 2
        part.edges = edges = self.edges[at : at + 2 * max(0, count)]  # a span has one at least
        if edges and edges[0] < start:
            edges[0] = start
        counts = list(accumulate(map(sub, edges[1::2], edges[::2])))
        last = bisect_left(counts, count)  # the span that has the last of them
        if last < len(counts):
            edges[2 * last + 1] -= counts[last] - count
            del edges[2 * last + 2 :]
        return part

    def within(self, start: int, stop: int) -> Spans:
        """Return the part of the set from `start` up to `stop`."""
        part, edges = Spans(), self.edges
        if start >= stop:
            return part
        low, high = bisect_right(edges, start), bisect_left(edges, stop)
        part.edges = edges[low:high]
        if low % 2:
            part.edges.insert(0, start)
        if high % 2:
            part.edges.append(stop)
        return part

    def common(self, other: Spans) -> Spans:
        """Return the part of the set that is in `other` too."""
        if other.edges == self.edges:
            return Spans(self.edges)
        if not other.edges:
            return Spans()
        found = self.within(other.edges[0], other.edges[-1])
        if len(found.edges) > 8 * len(other.edges):  # few parts of many
            found = Spans()
            for start, stop in other:
                found.update(self.within(start, stop))
        elif len(other.edges) > 2:
            rest = found.copy()
            rest.difference_update(other)
            found.difference_update(rest)
        return found

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

    def positions(self, count: int | None = None) -> Sequence[int]:
        """Return the positions that are in the set now, in order. `count` is how many that are, where it is known."""
        edges = self.edges
        return range(edges[0], edges[1]) if len(edges) == 2 else Positions(edges.copy(), count)

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


class Positions(Sequence[int]):
    """The positions of a set in order: a sequence that costs for each span, not for each position."""

    __slots__ = ("_count", "edges")

    def __init__(self, edges: list[int], count: int | None = None) -> None:
        """`edges` are those of `Spans`. They belong to it, and change no more. `count` is how many positions that are,
        where it is known."""
        self.edges = edges
        self._count = sum(edges[1::2]) - sum(edges[::2]) if count is None else count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        starts = self.edges[::2]
        if len(starts) == self._count:
            return iter(starts)
        return chain.from_iterable(map(range, starts, self.edges[1::2]))

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        at = range(len(self))[index]
        if isinstance(at, int):
            counts: list[int] = list(accumulate(map(sub, self.edges[1::2], self.edges[::2])))
            span = bisect_right(counts, at)
            return self.edges[2 * span + 1] - (counts[span] - at)
        if len(at) == len(self) and at.step == 1:
            return self
        if not at or at.step != 1:
            return list(self)[index]
        return Spans(self.edges).within(self[at[0]], self[at[-1]] + 1).positions()

    def __repr__(self) -> str:
        return f"Positions({self.edges})"


def _union(one: list[int], other: list[int]) -> list[int]:
    """Return the edges of both together. With starts and stops each in order, there is a gap where so many spans have
    stopped as have started."""
    starts, stops = sorted(one[::2] + other[::2]), sorted(one[1::2] + other[1::2])
    gaps = list(map(lt, stops, starts[1:]))
    between = zip(compress(stops, gaps), compress(starts[1:], gaps), strict=True)
    return [starts[0], *chain.from_iterable(between), stops[-1]]
