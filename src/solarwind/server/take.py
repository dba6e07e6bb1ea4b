"""`POST …/take` and `POST …/settle`: for those who ask for events, and say later what became of them.

A take is a service instance that is handed events once: it leaves as soon as it has some, so that nothing more comes,
and stays known until each of them was settled or its lease ended. A token names one event of one take. Tokens are in
memory only: after a restart they are stale, and the events are handed out again.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from bisect import bisect_right
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
from starlette.responses import Response

from ..core.effects import Failure, Join, Offer, Report
from ..core.exchange import lookup
from ..core.spans import Spans
from ..engine.base import Since
from ..errors import BadArgument, Busy, ConflictError, NotAllowed, TooLarge
from ..event import Event, HandOut
from ..failure import MOST_SECONDS
from ..service.registration import make_join
from .call import Call, ClientGone, answer, problem
from .cloudevents import encode, to_cloudevent
from .delivery import Attempts
from .times import read_since

if TYPE_CHECKING:
    from .asgi import Server

MOST_WAIT_S = 60.0
MOST_LEASE_S = 86_400.0  # whoever takes and is never heard of again holds events for so long; it can be renewed
MOST_ERROR = 10_000  # characters of why an event failed; the rest is cut off
_LEAST_WAIT_S = 0.05  # what is at hand nowhere but on disk has so long to come, also where nobody wants to wait
_TURNS = 4  # of the loop, for what comes together with the first events
_ENCODE_BYTES = 64 << 10  # then others have their turn
_ID_BYTES = 16
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


class Take(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What whoever takes states: `max` events, `wait` seconds for the first of them, and what an instance states."""

    max: int = 1
    wait: float = 0.0
    exchange: str = "direct"
    version: int = 1
    key: str | None = None
    since: str = "now"
    lease: float = 30.0
    retry: Attempts = Attempts()


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A handler raised: again after a while, as the take's `retry` says."""

    token: str
    error: str = "it was said to have failed, and not why"


class Postponed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Again in `after` seconds, and not counted."""

    token: str
    after: float = 0.0


class Rejected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No attempt can succeed: a dead letter."""

    token: str
    reason: str = "it was rejected, and not said why"


class Settle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of events, by their tokens. `renew`: their handlers are still at work."""

    done: list[str] = []
    failed: list[str | Failed] = []
    later: list[str | Postponed] = []
    reject: list[str | Rejected] = []
    renew: list[str] = []


Verdict = Literal["done", "failed", "later", "reject", "renewed"]
VERDICTS: tuple[Verdict, ...] = ("done", "failed", "later", "reject", "renewed")


async def take(call: Call) -> Response:
    """Hand out events. Raises what stands against it."""
    wanted = await call.json(Take)
    most = call.server.settings.ids
    if wanted.max > most:
        raise TooLarge(f"expected a max of at most {most:,} events, got {wanted.max:,}: take several times")
    if not 0 <= wanted.wait <= MOST_WAIT_S:
        raise BadArgument(f"expected a wait of 0 to {MOST_WAIT_S:g} seconds, got {wanted.wait}")
    if wanted.lease > MOST_LEASE_S:
        raise BadArgument(f"expected a lease of at most {MOST_LEASE_S:g} seconds, got {wanted.lease}: renew it")
    since = read_since(wanted.since)
    join = make_join(
        call.topic,
        call.purpose,
        wanted.exchange,
        wanted.version,
        wanted.key,
        since,
        wanted.retry,
        wanted.lease,
        wanted.max,
    )
    exchange = lookup(join.exchange)
    if exchange is not None and not exchange.pends:
        raise NotAllowed(
            f"expected an exchange whose events pend until somebody takes them, got {join.exchange!r}, "
            "which keeps none: use the feed"
        )
    return await call.server.takes.take(call, join, since, wanted.wait)


async def settle(call: Call) -> Response:
    """Note what became of events; it is durable once this is answered. Raises what stands against all of it."""
    said = _read_settle(await call.json(Settle), call.server.settings.ids)
    counts, stale = await call.server.takes.settle(call.topic, call.purpose, said)
    if not stale:
        return answer(counts)
    error = ConflictError(
        f"expected tokens of this purpose whose lease runs on, got {len(stale)} stale: their events were settled, or "
        "are handed out again; what was said of the others counts"
    )
    return problem(error, **counts, stale=stale)


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


def _read_settle(body: Settle, most: int) -> list[_Said]:
    """Raises `TooLarge` and `BadArgument`, before anything is done."""
    failed = [Failed(each) if isinstance(each, str) else each for each in body.failed]
    later = [Postponed(each) if isinstance(each, str) else each for each in body.later]
    reject = [Rejected(each) if isinstance(each, str) else each for each in body.reject]
    for each in later:
        if not 0 <= each.after < MOST_SECONDS:
            raise BadArgument(f"expected after 0 or more seconds, below a thousand million, got {each.after}")
    said = [
        *(_Said(token, "done") for token in body.done),
        *(_Said(each.token, "failed", each.error[:MOST_ERROR]) for each in failed),
        *(_Said(each.token, "later", after_ns=int(each.after * 1e9)) for each in later),
        *(_Said(each.token, "reject", each.reason[:MOST_ERROR]) for each in reject),
        *(_Said(token, "renewed") for token in body.renew),
    ]
    if len(said) > most:
        raise TooLarge(f"expected at most {most:,} tokens, got {len(said):,}: settle several times")
    if len({each.token for each in said}) < len(said):
        raise BadArgument("expected each token once, got one twice: say one thing of each event")
    return said


class _Part(NamedTuple):
    """The events of one lease. `open` are those that are not settled."""

    lease: int
    first: int  # the number of its first event within the take
    offer: Offer
    open: Spans


class _Taking:
    """One take, as the engine's receiver."""

    def __init__(self, takes: Takes, join: Join) -> None:
        self._takes = takes
        self.join = join
        self.id = secrets.token_urlsafe(_ID_BYTES)
        self.instance = 0
        self.joined = asyncio.Event()  # or refused
        self.came = asyncio.Event()  # something to hand out, or word that nothing will
        self.full = False  # it takes nothing more
        self.over = False  # its tokens are stale
        self.count = 0
        self.timer: asyncio.TimerHandle | None = None  # when its lease ends
        self._parts: list[_Part] = []

    def deliver(self, offer: Offer) -> None:
        if self.full:
            asyncio.get_running_loop().call_soon(self._takes.give_back, offer)
            return
        self._parts.append(_Part(offer.lease, self.count, offer, Spans.of(offer.picks)))
        self.count += len(offer.picks)
        self.came.set()

    def lost(self) -> None:
        self._parts.clear()

    def close(self, reason: str) -> None:
        self._takes.spawn_end(self)

    def token(self, number: int) -> str:
        return f"{self.id}.{number}"
