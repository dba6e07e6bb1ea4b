"""Looks at a dispatcher's counters once a second, while anything happens, and feeds the rings of their rates.

So rates cost the same however many events there are. Seconds are those of the engine's clock; the pauses are the
loop's, so that a test's clock has nothing more to do.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..core.purpose import Purpose
from ..core.rates import SPANS, Rates
from ..records import PurposeRates, RateCounts, RateHistory
from ..timing import time_of
from .clock import Clock
from .rest import GENTLE_S, Pace, Rest, pace
from .tasks import Tasks

if TYPE_CHECKING:
    from ..core.dispatcher import Dispatcher
    from ..core.registry import Topic

PAUSE_S = 1.0
MAX_LOOKS = 1_000  # topics and purposes that are looked at in a second; where there are more, each has its turn
MAX_RINGS = 2_000  # topics and purposes that have rings: those in which something happened last
_MEAN_S = 10
_RECENT = 30  # slots of 10 seconds
_QUIET_S = SPANS[0][1]  # without anything, after which it rests until the next commit

# The numbers of counters in their rates: of a topic, and of a purpose.
FIRED = 0
SETTLED, RETRIED, DEAD = range(3)


class Sampler:
    """The sampler of one dispatcher."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock, tasks: Tasks) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._committed = False  # since the last look began
        self._turns: list[Topic | Purpose] = []  # whose turn it is in this round
        self._seconds = 1  # that a round takes
        self._with_rings: dict[Rates, None] = {}  # what happened last at the end
        self._sums = [0, 0, 0, 0]  # what all have grown by: fired, settled, retried, dead
        self._total = Rates(self._sums)

    def start(self) -> None:
        """Begin with the counters as they were stored: what was counted before did not happen now."""
        for topic in self._dispatcher.topics.values():
            topic.rates = Rates(_counts(topic))
            for purpose in topic.purposes.values():
                purpose.rates = Rates(_counts(purpose))

    def wake(self) -> None:
        """Go on, because something may have happened. Called with each commit."""
        self._committed = True
        if self._task is None or self._task.done():
            self._task = self._tasks.spawn(self._run(), "the sampling of rates")

    async def _run(self) -> None:
        pace.set(Pace(GENTLE_S))
        quiet = 0.0
        while quiet < _QUIET_S:
            await asyncio.sleep(PAUSE_S)
            self._committed = False
            grew = await self._look_at_some()
            quiet = 0.0 if grew or self._committed else quiet + PAUSE_S

    async def _look_at_some(self) -> bool:
        """Look at those whose turn it is. Return whether anything happened there, or others are still to come."""
        if not self._turns:
            for topic in self._dispatcher.topics.values():
                self._turns += (topic, *topic.purposes.values())
            self._seconds = max(1, -(-len(self._turns) // MAX_LOOKS))
        turns = self._turns[-MAX_LOOKS:]
        del self._turns[-MAX_LOOKS:]
        grew, rest = False, Rest()
        for each in turns:
            await rest.now_and_then()
            grew = self._look(each) or grew
        return grew or bool(self._turns)

    def _look(self, at: Topic | Purpose) -> bool:
        if at.rates is None:
            at.rates = Rates((0,) * len(_counts(at)))
        grown = at.rates.look(_counts(at), self.second, self._seconds)
        if grown:
            for place, count in zip(_places(at), grown, strict=True):
                self._sums[place] += count
            self._total.look(tuple(self._sums), self.second, self._seconds)
            self._with_rings.pop(at.rates, None)
            self._with_rings[at.rates] = None
            if len(self._with_rings) > MAX_RINGS:
                oldest = next(iter(self._with_rings))
                del self._with_rings[oldest]
                oldest.forget()
        return bool(grown)

    @property
    def second(self) -> int:
        """The second that it is, since 1970."""
        return self._clock.now() // 1_000_000_000

    def mean_fired(self, topic: Topic) -> float:
        """Return how many events a second are fired on a topic, as a mean of the last 10 seconds."""
        return _mean(self._rates(topic), FIRED, self.second)

    def mean(self, purpose: Purpose) -> PurposeRates:
        """Return the means of the last 10 seconds."""
        rates, second = self._rates(purpose), self.second
        if rates.is_empty:
            return PurposeRates(self.mean_fired(self._dispatcher.topics[purpose.topic]))
        recent = rates.read(SETTLED, 1, second, _RECENT)
        return PurposeRates(
            fired=self.mean_fired(self._dispatcher.topics[purpose.topic]),
            settled=_mean(rates, SETTLED, second),
            retried=_mean(rates, RETRIED, second),
            dead=_mean(rates, DEAD, second),
            recent=tuple(recent) if any(recent) else (),
        )

    def history(self, purpose: Purpose) -> RateHistory:
        """Return all that the rings have."""
        fired, rates, second = self._rates(self._dispatcher.topics[purpose.topic]), self._rates(purpose), self.second
        spans = (
            RateCounts(
                fired=tuple(fired.read(FIRED, span, second)),
                settled=tuple(rates.read(SETTLED, span, second)),
                retried=tuple(rates.read(RETRIED, span, second)),
                dead=tuple(rates.read(DEAD, span, second)),
            )
            for span in range(len(SPANS))
        )
        return RateHistory(purpose.topic, purpose.name, time_of(self._clock.wall()), *spans)

    def total(self, topic: str | None) -> RateHistory:
        """Return what all topics and purposes had together, or one topic and its purposes; nothing where there is no
        such topic here."""
        if topic is None:
            rings = [(self._total, range(4))]
        else:
            rings = [(self._rates(each), _places(each)) for each in _with_purposes(self._dispatcher.topics.get(topic))]
        spans = (RateCounts(*self._sums_of(rings, span)) for span in range(len(SPANS)))
        return RateHistory(topic or "", "", time_of(self._clock.wall()), *spans)

    def _sums_of(self, rings: list[tuple[Rates, range]], span: int) -> list[tuple[int, ...]]:
        sums = [[0] * SPANS[span][1] for _ in range(4)]
        for rates, places in rings:
            for counter, place in enumerate(places):
                read = rates.read(counter, span, self.second)
                sums[place] = [before + count for before, count in zip(sums[place], read, strict=True)]
        return [tuple(each) for each in sums]

    def _rates(self, of: Topic | Purpose) -> Rates:
        """Return the rates of a topic or a purpose, up to now."""
        self._look(of)
        assert of.rates is not None
        return of.rates


def _mean(rates: Rates, counter: int, second: int) -> float:
    return rates.total(counter, 0, second, _MEAN_S) / _MEAN_S


def _counts(of: Topic | Purpose) -> tuple[int, ...]:
    if isinstance(of, Purpose):
        return of.settled, of.retried, of.died
    return (of.end + of.unkept,)


def _places(of: Topic | Purpose) -> range:
    """Return where the counters stand among all four: those fired, settled, retried and dead."""
    return range(1, 4) if isinstance(of, Purpose) else range(1)


def _with_purposes(topic: Topic | None) -> list[Topic | Purpose]:
    return [] if topic is None else [topic, *topic.purposes.values()]
