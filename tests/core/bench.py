"""A dispatcher on a bench: its calls with the tedious arguments filled in, its offers at hand, and a log besides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Literal

from solarwind.batch import Batch, seal
from solarwind.core.dispatcher import Dispatcher
from solarwind.core.effects import Closed, Failure, Fault, Fetch, Join, Offer, Report
from solarwind.core.exchange import Exchanges
from solarwind.core.log import Stored
from solarwind.core.purpose import Purpose
from solarwind.core.spans import Spans
from solarwind.core.state import Change, decode_changes, encode
from solarwind.core.track import Track
from solarwind.limits import Limits

SECOND = 10**9
KEEP_NS = 3600 * SECOND
HERE = "here"  # the dispatcher's own process


def batch(
    count: int = 1,
    *,
    keys: Sequence[str | None] | None = None,
    topic: str = "T",
    payload: bytes = b"1",
    due: Sequence[int | None] | None = None,
    expires: Sequence[int | None] | None = None,
) -> Batch:
    return seal(
        topic,
        [payload] * count,
        [1] * count,
        producer=1,
        first=1,
        machine="m",
        process="p",
        keys=list(keys) if keys is not None else None,
        due=list(due) if due is not None else None,
        expires=list(expires) if expires is not None else None,
    )


class Bench:
    """`durable` as a store's: then `commit` makes changes so, and `restart` keeps only what was committed."""

    def __init__(self, *, durable: bool = False, limits: Limits | None = None) -> None:
        self.limits = limits
        self.now = 1_000 * SECOND
        self.durable = durable
        self.log: list[Stored] = []
        self.at_hand = True
        self.written: list[Change] = []
        self.fetches: list[Fetch] = []
        self.closed: list[Closed] = []
        self.said: list[str] = []
        self.exchanges = Exchanges()
        self._begin()

    def _begin(self) -> None:
        self.dispatcher = Dispatcher(
            self,
            Random(1).random,
            keep_ns=KEEP_NS,
            durable=self.durable,
            limits=self.limits,
            home=HERE,
            exchanges=self.exchanges,
        )
        self.offers: list[Offer] = []

    def find(self, topic: str, position: int) -> Stored | None:
        """Return the log, if it is at hand."""
        found = (stored for stored in self.log if self.at_hand and stored.start <= position < stored.stop)
        return next(found, None)

    def carry_out(self) -> None:
        while self.dispatcher.behind:
            self.dispatcher.go_on(self.now)
        for effect in self.dispatcher.pop_effects():
            if isinstance(effect, Offer):
                self.offers.append(effect)
            elif isinstance(effect, Fetch):
                self.fetches.append(effect)
            elif isinstance(effect, Closed):
                self.closed.append(effect)
            elif isinstance(effect, Fault):
                self.said.append(effect.text)

    def commit(self) -> None:
        while self.dispatcher.changes:
            changes = self.dispatcher.pop_changes()
            self.written += decode_changes(encode(changes))
            self.dispatcher.committed(changes, self.now)
            self.carry_out()

    def restart(self, *, clean: bool = False) -> None:
        self._begin()
        self.dispatcher.topic("T").end = self.log[-1].stop if self.log else 0
        self.dispatcher.recover([], self.written, clean=clean, now=self.now)
        self.carry_out()

    def fire(self, count: int = 1, **options: Any) -> Stored:
        start = self.log[-1].stop if self.log else 0
        stored = Stored(start, batch(count, **options), self.now)
        self.dispatcher.topic("T")
        self.log.append(stored)
        self.dispatcher.accepted(stored, self.now)
        self.carry_out()
        return stored

    def join(self, purpose: str = "p", **options: Any) -> int:
        instance = self.join_without_commit(purpose, **options)
        if self.durable:
            self.commit()
        return instance

    def join_without_commit(self, purpose: str = "p", *, since: int | None = None, **options: Any) -> int:
        first = since if since is not None else self.log[-1].stop if self.log else 0
        join = Join("T", purpose, **{"process": HERE, **options})
        instance = self.dispatcher.join(join, first, self.now)
        self.carry_out()
        return instance

    def report(
        self,
        offer: Offer,
        *,
        done: Iterable[int] = (),
        failed: Iterable[int] = (),
        returned: Iterable[int] = (),
        verdict: Literal["retry", "later", "reject"] = "retry",
        after_ns: int = 0,
        handled: int = 0,
        busy_ns: int = 0,
        instance: int | None = None,
        fired: Sequence[Batch] = (),
    ) -> bool:
        report = Report(
            instance if instance is not None else offer.instance,
            offer.lease,
            Spans.of(done),
            [Failure(position, verdict, "it raised", after_ns) for position in failed],
            Spans.of(returned),
            handled,
            busy_ns,
        )
        counts = self.dispatcher.post_send(report, self.now, fired)
        self.carry_out()
        return counts

    def leave(self, instance: int, *, died: bool = False) -> None:
        self.dispatcher.leave(instance, self.now, died=died)
        self.carry_out()

    def pass_time(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)
        self.dispatcher.tick(self.now)
        self.carry_out()

    def take(self) -> list[Offer]:
        """Return the offers since the last call."""
        offers, self.offers = self.offers, []
        return offers

    def given(self) -> dict[int, list[int]]:
        """Return what each instance got since the last call."""
        given: dict[int, list[int]] = {}
        for offer in self.take():
            given.setdefault(offer.instance, []).extend(offer.picks)
        return given

    def purpose(self, name: str = "p") -> Purpose:
        return self.dispatcher.purpose("T", name)

    def track(self, name: str = "p") -> Track:
        return self.purpose(name).main

    def settle_all(self) -> int:
        """Handle everything; gives in how many rounds of reports."""
        for rounds in range(10_000):
            offers = self.take()
            if not offers:
                return rounds
            for offer in offers:
                self.report(offer, done=offer.picks)
        raise AssertionError("no end of it")
