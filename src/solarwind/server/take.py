"""`POST …/take` and `POST …/settle`: for clients that ask for events, and report later what became of them.

A take is a service instance that is handed events once: it stops accepting as soon as it has some, and stays known
until each of them was settled or its lease ended. A token names one event of one take. Tokens are in memory only: after
a restart they are stale, and the events are handed out again.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta
from starlette.responses import Response

from ..core.effects import Failure, Join, Offer, Report
from ..core.spans import Spans
from ..engine.base import Since
from ..errors import BadArgument, Busy, ConflictError, NotAllowed, TooLarge
from ..event import Event, HandOut
from ..failure import MAX_SECONDS
from ..plugins import registered
from .call import Call, ClientGone, answer, in_pieces, problem
from .cloudevents import CloudEvent, to_cloudevent
from .host import ServerHost
from .revocation import Revocable
from .schemas import RateStated
from .stating import VersionOptions
from .times import read_since

MAX_WAIT_S = 60.0
MAX_LEASE_S = 86_400.0  # how long a client that is gone may hold events; a lease can be renewed
_MIN_WAIT_S = 0.05  # time to read events from disk, even where the client does not want to wait
_TURNS = 4  # of the loop, for what comes together with the first events
MAX_TAKE_BYTES = 8 << 20  # of payload, in one answer: what is more goes back
_ID_BYTES = 16
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


class Take(VersionOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request: `max` events, `wait` seconds for the first of them, and what an instance states."""

    max: Annotated[int, Meta(ge=1)] = 1
    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT_S)] = 0.0
    lease: Annotated[float, Meta(gt=0, le=MAX_LEASE_S)] = 30.0
    rate: RateStated | None = None


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The handler raised: retried as the take's `retry` says."""

    token: str
    error: str = "it was reported as failed without a reason"


class Postponed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Handed out again in `after` seconds, without counting the attempt."""

    token: str
    after: Annotated[float, Meta(ge=0, lt=MAX_SECONDS)] = 0.0


class Rejected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No attempt can succeed: a dead letter."""

    token: str
    reason: str = "it was rejected without a reason"


class Settle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of events, by their tokens. `renew`: their handlers are still running."""

    done: list[str] = []
    failed: list[str | Failed] = []
    later: list[str | Postponed] = []
    reject: list[str | Rejected] = []
    renew: list[str] = []


class Taken(msgspec.Struct):
    """The events, each with its `token`; none if nothing came in time."""

    events: list[CloudEvent]


class Settled(msgspec.Struct):
    """The number of events of each kind. `renewed` are those whose lease begins anew, and with it the lease of all
    events of the same take."""

    done: int = 0
    failed: int = 0
    later: int = 0
    reject: int = 0
    renewed: int = 0


Verdict = Literal["done", "failed", "later", "reject", "renewed"]


async def take(call: Call, takes: Takes) -> Response:
    """Hand out events. Raise the error for which it cannot."""
    wanted = await call.json(Take)
    max_count = call.host.settings.ids
    if wanted.max > max_count:
        raise TooLarge(f"expected a max of at most {max_count:,} events, got {wanted.max:,}: take several times")
    join = wanted.stated(call.topic, call.purpose, room=wanted.max, lease=wanted.lease, rate=wanted.rate)
    exchange = registered.lookup(join.exchange)
    if exchange is not None and not exchange.pends:
        raise NotAllowed(
            f"expected an exchange whose events pend until somebody takes them, got {join.exchange!r}, "
            "which keeps none: use the feed"
        )
    return await takes.take(call, join, read_since(wanted.since), wanted.wait)


async def settle(call: Call, takes: Takes) -> Response:
    """Record what became of events; it is durable once answered. Raise the error that refuses the whole request."""
    said = _read_settle(await call.json(Settle), call.host.settings.ids)
    counts, stale = await takes.settle(call.topic, call.purpose, said)
    settled = Settled(**counts)
    if not stale:
        return answer(settled)
    error = ConflictError(
        f"expected tokens of this purpose whose lease runs on, got {len(stale)} stale: their events were settled, or "
        "are handed out again; what was said of the others counts"
    )
    return problem(error, **msgspec.structs.asdict(settled), stale=stale)


class _Said(NamedTuple):
    """What became of one event."""

    token: str
    verdict: Verdict
    text: str = ""
    after_ns: int = 0

    def failure(self, position: int) -> Failure | None:
        if self.verdict == "failed":
            return Failure(position, "retry", self.text)
        if self.verdict == "later":
            return Failure(position, "later", f"again in {self.after_ns / 1e9:g} s", self.after_ns)
        return Failure(position, "reject", self.text) if self.verdict == "reject" else None


def _read_settle(body: Settle, max_count: int) -> list[_Said]:
    """Return what became of each event. Raise `TooLarge` and `BadArgument`, before anything is done."""
    failed = [Failed(each) if isinstance(each, str) else each for each in body.failed]
    later = [Postponed(each) if isinstance(each, str) else each for each in body.later]
    reject = [Rejected(each) if isinstance(each, str) else each for each in body.reject]
    said = [
        *(_Said(token, "done") for token in body.done),
        *(_Said(each.token, "failed", each.error) for each in failed),
        *(_Said(each.token, "later", after_ns=int(each.after * 1e9)) for each in later),
        *(_Said(each.token, "reject", each.reason) for each in reject),
        *(_Said(token, "renewed") for token in body.renew),
    ]
    if len(said) > max_count:
        raise TooLarge(f"expected at most {max_count:,} tokens, got {len(said):,}: settle several times")
    if len({each.token for each in said}) < len(said):
        raise BadArgument("expected each token once, got one twice: say one thing of each event")
    return said


class _TakenLease(NamedTuple):
    """The events of one lease; the first is the take's event number `first`. `open` are not settled."""

    lease: int
    first: int
    picks: Sequence[int]
    open: Spans


class _Taking:
    """One take, as the engine's receiver."""

    def __init__(self, takes: Takes, join: Join) -> None:
        self._takes = takes
        self.join = join
        self.id = secrets.token_urlsafe(_ID_BYTES)
        self.instance = 0
        self.joined = asyncio.Event()  # or refused
        self.came = asyncio.Event()  # events to hand out, or notice that none will come
        self.full = False  # it accepts nothing more
        self.over = False  # its tokens are stale
        self.use: Revocable | None = None  # the right by which it holds them
        self.timer: asyncio.TimerHandle | None = None  # until its lease ends
        self.offers: list[Offer] = []  # until they are handed out
        self.count = 0
        self.unsettled = 0  # events not settled yet
        self._parts: list[_TakenLease] = []

    # The engine's side

    def told(self, text: str) -> None:
        """Do nothing: it states no schema."""

    def deliver(self, offer: Offer) -> None:
        if self.full:
            asyncio.get_running_loop().call_soon(self._takes.give_back, offer)
            return
        self.offers.append(offer)
        self._parts.append(_TakenLease(offer.lease, self.count, offer.picks, Spans.of(offer.picks)))
        self.count += len(offer.picks)
        self.unsettled += len(offer.picks)
        self.came.set()

    def flush(self) -> None:
        """Do nothing: the waiting request looks a few turns of the loop later."""

    def lost(self, lease: int | None = None) -> None:
        self.offers = [each for each in self.offers if lease is not None and each.lease != lease]
        self._parts = [each for each in self._parts if lease is not None and each.lease != lease]

    def close(self, reason: str) -> None:
        self._takes.end_soon(self)

    # The tokens

    async def cloudevents(self, call: Call) -> list[Any]:
        """Return the events, each with its token."""
        self._give_back_surplus()
        return await in_pieces(call, self._written())

    def _written(self) -> Iterator[dict[str, Any]]:
        offers, self.offers = self.offers, []
        for offer, part in list(zip(offers, self._parts, strict=True)):
            stored, number = offer.stored, part.first
            its = self.join.purpose, self.join.version
            hand_out = HandOut(stored.batch, stored.start, *its, None, offer.tried, offer.shadow)
            for position in offer.picks:
                found = to_cloudevent(Event(hand_out, position - stored.start))
                found["token"] = f"{self.id}.{number}"
                number += 1
                yield found

    def _give_back_surplus(self) -> None:
        """Give back the last events where the answer would be too large. It keeps at least one."""
        size = 0
        for at, offer in enumerate(self.offers):
            for index, position in enumerate(offer.picks):
                start = position - offer.stored.start
                size += offer.stored.batch.bytes_of(start, start + 1)
                if size > MAX_TAKE_BYTES and (at or index):
                    self._shorten(at, index)
                    return

    def _shorten(self, at: int, index: int) -> None:
        """Keep the events before event `index` of offer `at`."""
        offers, parts = self.offers, self._parts
        self.offers = [*offers[:at], msgspec.structs.replace(offers[at], picks=offers[at].picks[:index])]
        self._parts = [*parts[:at], parts[at]._replace(picks=parts[at].picks[:index])]
        for offer, part in zip(offers[at:], parts[at:], strict=True):
            back = offer.picks[index:] if offer is offers[at] else offer.picks
            part.open.difference_update(Spans.of(back))
            self.unsettled -= len(back)
            self._takes.give_back(msgspec.structs.replace(offer, picks=back))

    def find(self, number: str) -> tuple[_TakenLease, int] | None:
        """Return the lease and position of an unsettled event by its number, or None."""
        if not _NUMBER.fullmatch(number):
            return None
        at = bisect_right(self._parts, int(number), key=lambda part: part.first) - 1
        if at < 0:
            return None
        part = self._parts[at]
        index = int(number) - part.first
        if index >= len(part.picks) or part.picks[index] not in part.open:
            return None
        return part, part.picks[index]


class Takes:
    """All takes that are not settled. Used on the engine's loop."""

    def __init__(self, host: ServerHost) -> None:
        self._host = host
        self._open: dict[str, _Taking] = {}

    async def stop(self) -> None:
        """End all waiting requests, and give back what was taken."""
        await asyncio.gather(*(self._end(each) for each in list(self._open.values())))

    async def take(self, call: Call, join: Join, since: Since, wait: float) -> Response:
        """Join, wait for events and answer. Raise what joining raises, `Busy`, and `ClientGone`."""
        if not self._host.running:
            raise self._host.not_running()
        max_count = self._host.settings.instances
        if len(self._open) >= max_count:
            raise Busy(f"expected at most {max_count:,} takes that are not settled, got another: settle what was taken")
        assert call.grant is not None
        taking = _Taking(self, join)
        self._open[taking.id] = taking
        taking.use = self._host.revocables.begin(
            call.grant,
            lambda grant: grant.check_listen(join.topic, join.purpose),
            lambda _: self.end_soon(taking),
        )
        try:
            await self._collect(taking, call, since, wait)
            events = await taking.cloudevents(call)
        except BaseException:
            await self._end(taking)
            raise
        if not events or taking.over:
            await self._end(taking)
            return answer(Taken([]))
        self._host.engine.alive(taking.instance)
        self._runs_on(taking)
        return answer(Taken(events))

    async def _collect(self, taking: _Taking, call: Call, since: Since, wait: float) -> None:
        """Join, and stop accepting with the events that come together."""
        engine = self._host.engine
        try:
            taking.instance = await engine.join(taking.join, since, taking)
        finally:
            taking.joined.set()
        gone, came = asyncio.ensure_future(call.gone()), asyncio.ensure_future(taking.came.wait())
        try:
            await asyncio.wait((gone, came), timeout=max(wait, _MIN_WAIT_S), return_when=asyncio.FIRST_COMPLETED)
            for _ in range(_TURNS):
                if taking.count >= taking.join.room or gone.done():
                    break
                await asyncio.sleep(0)
            if gone.done():
                raise ClientGone
        finally:
            gone.cancel()
            came.cancel()
            taking.full = True
        engine.leaving(taking.instance)

    def give_back(self, offer: Offer) -> None:
        """Give back an offer that arrived when the request no longer waited."""
        self._host.engine.report(Report(offer.instance, offer.lease, Spans(), (), Spans.of(offer.picks)), ())

    async def settle(self, topic: str, purpose: str, said: list[_Said]) -> tuple[dict[str, int], list[str]]:
        """Return the number of events that counted, by verdict, and the stale tokens, which did not."""
        of: dict[tuple[str, int], tuple[_Taking, _TakenLease, list[tuple[_Said, int]]]] = {}
        stale: list[str] = []
        for each in said:
            id, _, number = each.token.partition(".")
            taking = self._open.get(id)
            foreign = taking is None or taking.over or (taking.join.topic, taking.join.purpose) != (topic, purpose)
            found = taking.find(number) if taking is not None and not foreign else None
            if taking is None or found is None:
                stale.append(each.token)
                continue
            part, position = found
            of.setdefault((id, part.lease), (taking, part, []))[2].append((each, position))
            if each.verdict != "renewed":
                part.open.remove(position, position + 1)
                taking.unsettled -= 1
        counted = await asyncio.gather(*(self._report(*each) for each in of.values()))
        counts: Counter[str] = Counter()
        for counts_all, (taking, part, outcomes) in zip(counted, of.values(), strict=True):
            if counts_all:
                counts.update(each.verdict for each, _ in outcomes)
                self._runs_on(taking)
            else:
                taking.unsettled -= len(part.open)
                part.open.edges.clear()
                stale += [each.token for each, _ in outcomes]
            if not taking.unsettled:
                await self._end(taking)
        return counts, stale

    async def _report(self, taking: _Taking, part: _TakenLease, outcomes: list[tuple[_Said, int]]) -> bool:
        """Report to the engine, and return whether the report counts. An empty report renews the lease."""
        done = Spans.of(position for each, position in outcomes if each.verdict == "done")
        failures = (each.failure(position) for each, position in outcomes)
        failed = [failure for failure in failures if failure is not None]
        return await self._host.engine.settle(Report(taking.instance, part.lease, done, failed))

    # Leases -------------------------------------------------------------------------------------------

    def _runs_on(self, taking: _Taking) -> None:
        """Renew its lease, because it was heard of."""
        if taking.over:
            return
        if taking.timer is not None:
            taking.timer.cancel()
        lease_s = taking.join.lease_ns / 1e9
        taking.timer = asyncio.get_running_loop().call_later(lease_s, lambda: self.end_soon(taking, died=True))

    def end_soon(self, taking: _Taking, *, died: bool = False) -> None:
        self._host.spawn(self._end(taking, died=died))

    async def _end(self, taking: _Taking, *, died: bool = False) -> None:
        """Make its tokens stale. Unsettled events are handed out again."""
        if taking.over:
            return
        taking.over = True
        taking.came.set()
        if taking.timer is not None:
            taking.timer.cancel()
        await taking.joined.wait()
        self._open.pop(taking.id, None)
        if taking.use is not None:
            taking.use.close()
        if taking.instance:
            await self._host.engine.leave(taking.instance, died=died)
