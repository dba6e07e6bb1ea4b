"""One webhook: what it was told to be, and the service instance that POSTs its events as CloudEvents.

The purpose's rules hold as for any instance: an answer of 2xx settles, any other is a handler that raised. What is
sent is signed as Standard Webhooks says, and a target is asked first whether it wants it, as CloudEvents' webhook
specification says.
"""

from __future__ import annotations

import asyncio
import binascii
import hmac
import logging
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import ceil
from time import time
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from ..core.effects import Failure
from ..engine.base import Engine
from ..errors import BadArgument, NotAllowed, Unavailable
from ..event import Event
from ..failure import Later, Reject, Retry
from ..limits import Limits
from ..logs import limited
from ..options import check_count
from ..peer.turns import Turns
from ..service.meaning import Meaning
from ..service.registration import make_join
from ..service.runner import Runner
from ..service.signature import Handler
from .cloudevents import STRUCTURED, encode, to_cloudevent, to_headers
from .described import Field, KeyMissing, SinceText, Version
from .targets import MAX_URL, Answer, Target, Unanswered, read_url
from .times import read_since

log = logging.getLogger("solarwind")

MAX_CONCURRENCY = 100  # requests of one webhook at a time
MAX_TIMEOUT_S = 300.0
MAX_RATE = 1_000_000  # requests a minute
MAX_PAUSE_S = 86_400.0  # that a target's Retry-After counts for
MAX_TOKEN = 4_096  # characters
HANDSHAKE_S = 10.0
_SECRET = "whsec_"
_SECRET_BYTES = range(24, 65)


class Attempts(Retry, frozen=True, forbid_unknown_fields=True):
    """A `Retry` as it comes over HTTP."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What whoever registers a webhook states."""

    url: Annotated[str, Meta(extra_json_schema={"pattern": "^https?://", "maxLength": MAX_URL})]
    exchange: str = "direct"
    version: Version = 1
    key: Field | None = None
    key_missing: KeyMissing = "handle"
    since: SinceText = "now"
    retry: Attempts = Attempts()
    concurrency: Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_CONCURRENCY})] = 10
    # Requests a minute.
    rate: Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_RATE})] | None = None
    # Seconds for an answer.
    timeout: Annotated[float, Meta(extra_json_schema={"exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S})] = 15.0
    mode: Literal["binary", "structured"] = "binary"
    handshake: bool = True
    token: str | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        """Without what is nobody's business."""
        return f"<Wanted at {read_url(self.url).shown}>"

    def check(self) -> None:
        """Raises `BadArgument`. What an exchange or a version may be, whoever joins says."""
        read_url(self.url)
        read_since(self.since)
        check_count("concurrency", self.concurrency)
        if self.concurrency > MAX_CONCURRENCY:
            raise BadArgument(f"expected a concurrency of at most {MAX_CONCURRENCY}, got {self.concurrency}")
        if not 0 < self.timeout <= MAX_TIMEOUT_S:
            raise BadArgument(f"expected a timeout of up to {MAX_TIMEOUT_S:.0f} seconds, got {self.timeout}")
        if self.rate is not None and not 1 <= self.rate <= MAX_RATE:
            raise BadArgument(f"expected a rate of 1 to {MAX_RATE:,} requests a minute, got {self.rate}")
        if self.token is not None and not re.fullmatch(rf"[!-~]{{1,{MAX_TOKEN}}}", self.token):
            raise BadArgument(f"expected a token of 1 to {MAX_TOKEN:,} printable ASCII characters, got another")
        if self.secret is not None:
            read_secret(self.secret)


class Secret(msgspec.Struct, frozen=True):
    """What messages are signed with; `until` is when a former one ends, in seconds since 1970."""

    text: str
    until: float | None = None

    def __repr__(self) -> str:
        return f"<Secret until {self.until}>"


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as it is remembered. `ended` says why it sends nothing any more."""

    topic: str
    purpose: str
    name: str
    wanted: Wanted  # without the secret
    secrets: tuple[Secret, ...]  # the newest first
    rate: int | None = None  # requests a minute, as the target allowed
    owner: str | None = None  # the id of the token that put it; None where there were no tokens
    owner_name: str = ""
    ended: str | None = None

    @property
    def place(self) -> tuple[str, str, str]:
        return self.topic, self.purpose, self.name

    @property
    def concurrency(self) -> int:
        """Requests at a time. No more than the rate can keep busy, so that no event waits here that another instance
        could have."""
        if self.rate is None:
            return self.wanted.concurrency
        return min(self.wanted.concurrency, max(1, ceil(self.rate / 60 * self.wanted.timeout)))


# Signatures ----------------------------------------------------------------------------------------------


def make_secret() -> str:
    return _SECRET + b64encode(secrets.token_bytes(32)).decode()


def read_secret(text: str) -> bytes:
    """The key in it. Raises `BadArgument`, which does not say what it was."""
    try:
        key = b64decode(text.removeprefix(_SECRET), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(_SECRET) or len(key) not in _SECRET_BYTES:
        raise BadArgument(
            f"expected a secret {_SECRET}… with {_SECRET_BYTES[0]} to {_SECRET_BYTES[-1]} bytes in base64, "
            "got another: leave it out to be given one"
        )
    return key


def sign(known: Sequence[Secret], id: str, timestamp: int, body: bytes) -> str:
    """The signatures of a message, one for each secret that is good, as Standard Webhooks says."""
    content = f"{id}.{timestamp}.".encode() + body
    good = [read_secret(each.text) for each in known if each.until is None or each.until > timestamp]
    return " ".join("v1," + b64encode(hmac.digest(key, content, "sha256")).decode() for key in good)


# The handshake -------------------------------------------------------------------------------------------


async def ask(target: Target, wanted: Wanted, origin: str) -> int | None:
    """Ask the target whether it wants events from here. Gives how many a minute; None is any number.

    Raises `NotAllowed` if it does not, and `Unavailable` if it does not say.
    """
    headers = {"webhook-request-origin": origin, **_authorization(wanted)}
    if wanted.rate is not None:
        headers["webhook-request-rate"] = str(wanted.rate)
    try:
        answer = await target.request("OPTIONS", headers, b"", HANDSHAKE_S)
    except Unanswered as error:
        raise Unavailable(f"the webhook's target cannot be asked whether it wants events: {error}") from None
    allowed = answer.headers.get("webhook-allowed-origin")
    if allowed is None or allowed.strip().lower() not in ("*", origin.lower()):
        got = f"{answer.status} with {allowed[:80]!a}" if allowed is not None else f"{answer.status} without it"
        raise NotAllowed(
            f"expected the webhook's target to answer OPTIONS with WebHook-Allowed-Origin: {origin}, got {got}: "
            "have it agree, or state handshake: false if it is known to want the events"
        )
    rate = answer.headers.get("webhook-allowed-rate", "*").strip()
    if rate == "*":
        return wanted.rate
    if not re.fullmatch(r"[0-9]{1,9}", rate) or int(rate) < 1:
        raise NotAllowed(f"expected the webhook's target to allow a rate, a number or *, got {rate[:80]!a}")
    return min(int(rate), wanted.rate or MAX_RATE)


def _authorization(wanted: Wanted) -> dict[str, str]:
    return {"authorization": f"Bearer {wanted.token}"} if wanted.token is not None else {}


# At work -------------------------------------------------------------------------------------------------


class Undelivered(Exception):
    """The target answered, and did not take the event."""


class Pace:
    """When the next request may go: no more than so many a minute, and none while the target wants a pause."""

    def __init__(self, rate: int | None) -> None:
        self._interval = 60.0 / rate if rate else 0.0
        self._next = 0.0
        self._paused = 0.0

    def turn(self, now: float) -> float:
        """When the request that asks now has its turn; the next has a later one."""
        turn = max(now, self._next)
        self._next = turn + self._interval
        return turn

    def left(self, turn: float, now: float) -> float:
        """How long to wait still. A pause may have come while it waited."""
        return max(turn, self._paused) - now

    def pause(self, now: float, seconds: float) -> None:
        self._paused = max(self._paused, now + seconds)


class Failing(NamedTuple):
    """A target that takes nothing for now: since when, and why the last time."""

    since: datetime
    error: str


class _Instance(Runner):
    """Says so when its purpose is gone, and what a target does in one line."""

    def __init__(self, ended: Callable[[str], None], webhook: Webhook, *how: Any) -> None:
        super().__init__(*how)
        self._ended = ended
        self._webhook = webhook

    def _failure(self, position: int, event: Event, error: BaseException, meant: Meaning) -> Failure:
        if not isinstance(error, Undelivered | Unanswered | NotAllowed):
            return super()._failure(position, event, error, meant)
        of, wait_ns = self._webhook, self.join.retry.delay_ns(event.attempt, self._engine.random)
        limited.warning(
            ("webhook", *of.place),
            "webhook %s of %r on topic %r, to %s: %s: event %s, %s",
            *(of.name, of.purpose, of.topic, read_url(of.wanted.url).shown),
            *(meant.text, event.id, self._next(event, wait_ns)),
        )
        return Failure(position, "retry", meant.text, wait_ns)

    def close(self, reason: str) -> None:
        super().close(reason)
        self._ended(reason)


class Delivery:
    """A webhook at work: a service instance whose handler POSTs."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        webhook: Webhook,
        target: Target,
        origin: str,
        ended: Callable[[str], None],
        turns: Turns,
    ) -> None:
        """`ended` is called when it is to send nothing any more, with why. What is sent is made and signed in `turns`:
        it may be long, and many at a time."""
        self.webhook = webhook
        self._engine = engine
        self._limits = limits
        self._target = target
        self._origin = origin
        self._ended = ended
        self._turns = turns
        self._pace = Pace(webhook.rate)
        self._stopping = asyncio.Event()
        self._runner: Runner | None = None
        self.failing: Failing | None = None

    async def start(self) -> None:
        """Raises what joining raises."""
        of = self.webhook
        wanted = of.wanted
        since, handler = (
            read_since(wanted.since),
            Handler(f"webhook {of.name}", of.purpose, self._post, True, False, False),
        )
        join = make_join(
            of.topic,
            of.purpose,
            wanted.exchange,
            wanted.version,
            wanted.key,
            since,
            wanted.retry,
            30.0,
            of.concurrency,
            wanted.key_missing,
        )
        begun = asyncio.Event()
        runner = _Instance(self._ended, of, self._engine, join, handler, of.concurrency, begun, self._limits)
        try:
            runner.enter(await self._engine.join(join, since, runner))
        except BaseException:
            await runner.stop(0)
            raise
        self._runner = runner
        begun.set()

    def leaving(self) -> None:
        """Take nothing more; those that wait for their turn go back."""
        self._stopping.set()
        if self._runner is not None:
            self._engine.leaving(self._runner.instance)

    async def stop(self, grace: float) -> None:
        """Let requests come to their end for `grace` seconds, and give back the rest."""
        self.leaving()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.stop(grace)
            await self._engine.leave(runner.instance)
        await self._target.aclose()

    async def _post(self, event: Event) -> None:
        await self._turn()
        wanted = self.webhook.wanted
        await self._turns.next()
        with self._turns.piece():
            body = event.data if wanted.mode == "binary" else encode(to_cloudevent(event))
            headers = self._headers(event, body)
        try:
            answer = await self._target.request("POST", headers, body, wanted.timeout)
            self._judge(answer)
        except (Undelivered, Unanswered, NotAllowed, Later) as error:
            if not self._stopping.is_set():
                why = (
                    f"the target answered that it takes nothing now: {error}"
                    if isinstance(error, Later)
                    else str(error)
                )
                self.failing = Failing(self.failing.since if self.failing else datetime.now(UTC), why)
            raise
        self.failing = None

    def _headers(self, event: Event, body: bytes) -> dict[str, str]:
        headers = to_headers(event)
        # A full stop in an id of a producer's own could make two messages of one signature.
        id, timestamp = headers["ce-id"].replace(".", "%2E"), int(time())
        if self.webhook.wanted.mode == "structured":
            headers = {"content-type": STRUCTURED}
        return {
            **headers,
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self.webhook.secrets, id, timestamp, body),
            "webhook-request-origin": self._origin,
            **_authorization(self.webhook.wanted),
        }

    async def _turn(self) -> None:
        """Wait until it may send. What waits here when the webhook leaves goes back."""
        loop = asyncio.get_running_loop()
        turn = self._pace.turn(loop.time())
        while not self._stopping.is_set():
            left = self._pace.left(turn, loop.time())
            if left <= 0:
                return
            try:
                await asyncio.wait_for(self._stopping.wait(), left)
            except TimeoutError:
                pass
        raise Later(0)

    def _judge(self, answer: Answer) -> None:
        status = answer.status
        if 200 <= status < 300:
            return
        if status == 410:
            self.leaving()
            self._ended("the target answered 410 Gone")
            raise Later(0)
        if status in (429, 503):
            seconds = _retry_after(answer.headers.get("retry-after", ""))
            if seconds is not None:
                self._pace.pause(asyncio.get_running_loop().time(), seconds)
                raise Later(seconds)
        if status in (413, 415):
            raise Reject(f"expected the target to take the event, got {status}: no other attempt can help")
        more = ": redirects are not followed, state where it leads" if 300 <= status < 400 else ""
        raise Undelivered(f"expected the target to answer 2xx, got {status}{more}")


def _retry_after(text: str) -> float | None:
    """Seconds; it may be written as a date. None if it is neither."""
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return min(float(text), MAX_PAUSE_S)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return min(max(0.0, (when - datetime.now(UTC)).total_seconds()), MAX_PAUSE_S)
