"""One webhook: its specification, and the service instance that POSTs its events as CloudEvents.

The purpose's rules hold as for any instance: a 2xx answer settles, any other counts as a handler that raised. Requests
are signed according to Standard Webhooks, and a target must first agree to receive events, by the handshake of the
CloudEvents webhook specification.
"""

from __future__ import annotations

import asyncio
import binascii
import hmac
import logging
import re
import secrets
from base64 import b64decode, b64encode
from collections import deque
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
from ..failure import Later, Reject
from ..limits import Limits
from ..logs import limited
from ..options import check_count
from ..peer.time_slices import TimeSlices
from ..rate import check_rate
from ..records import WebhookAnswer
from ..service.outcome import Outcome
from ..service.runner import Runner
from ..service.signature import Handler
from ..shares import check_rollout
from ..text import escape_controls
from ..timing import check_delay
from .cloudevents import STRUCTURED, encode, to_cloudevent, to_headers
from .schemas import RateStated
from .stating import Attempts, VersionOptions
from .targets import MAX_URL, Target, TargetAnswer, Unanswered, read_url
from .times import read_delay, read_since

log = logging.getLogger("solarwind")

MAX_CONCURRENCY = 100  # concurrent requests of one webhook
MAX_TIMEOUT_S = 300.0
MAX_RATE = 1_000_000  # requests a minute
MAX_PAUSE_S = 86_400.0  # the longest Retry-After that is followed
MAX_TOKEN = 4_096  # characters
HANDSHAKE_S = 10.0
_GONE = "the target answered 410 Gone"
_SECRET = "whsec_"
_SECRET_BYTES = range(24, 65)


class WebhookSpec(VersionOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The specification of a webhook, as the client that registers it states it."""

    url: Annotated[str, Meta(extra_json_schema={"pattern": "^https?://", "maxLength": MAX_URL})]
    retry: Attempts = Attempts()
    concurrency: Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_CONCURRENCY})] = 10
    # Requests a minute.
    rate: Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": MAX_RATE})] | None = None
    # Of the purpose, over all its instances: the `rate` of others.
    purpose_rate: RateStated | None = None
    # Seconds for an answer.
    timeout: Annotated[float, Meta(extra_json_schema={"exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S})] = 15.0
    mode: Literal["binary", "structured"] = "binary"
    handshake: bool = True
    token: str | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        """Show no secrets."""
        return f"<WebhookSpec at {read_url(self.url).shown}>"

    def check(self) -> None:
        """Raise `BadArgument` for an invalid value. Exchange and version are checked when it joins."""
        read_url(self.url)
        read_since(self.since)
        check_rollout(self.rollout)
        check_delay("a delay", read_delay(self.delay))
        check_rate(self.purpose_rate)
        if self.at_most is not None:
            check_count("at_most", self.at_most)
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
    """A key for signatures; `until` is when a replaced one expires, in seconds since 1970."""

    text: str
    until: float | None = None

    def __repr__(self) -> str:
        return f"<Secret until {self.until}>"


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as it is stored. `ended` is why it does not send any more; while it is `paused` it sends nothing."""

    topic: str
    purpose: str
    name: str
    spec: WebhookSpec  # without the secret
    secrets: tuple[Secret, ...]  # the newest first
    rate: int | None = None  # requests a minute, as the target allowed
    owner: str | None = None  # the id of the token that registered it; None where there were no tokens
    owner_name: str = ""
    ended: str | None = None
    paused: float | None = None  # since when, in seconds since 1970

    @property
    def key(self) -> tuple[str, str, str]:
        return self.topic, self.purpose, self.name

    @property
    def concurrency(self) -> int:
        """Concurrent requests: no more than the rate can keep busy, so that no event waits here that another instance
        could handle."""
        if self.rate is None:
            return self.spec.concurrency
        return min(self.spec.concurrency, max(1, ceil(self.rate / 60 * self.spec.timeout)))


# Signatures ----------------------------------------------------------------------------------------------


def make_secret() -> str:
    return _SECRET + b64encode(secrets.token_bytes(32)).decode()


def read_secret(text: str) -> bytes:
    """Return the key in it. Raise `BadArgument`, without showing the text."""
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
    """Return the signatures of a message, one for each valid secret, according to Standard Webhooks."""
    content = f"{id}.{timestamp}.".encode() + body
    good = [read_secret(each.text) for each in known if each.until is None or each.until > timestamp]
    return " ".join("v1," + b64encode(hmac.digest(key, content, "sha256")).decode() for key in good)


# The handshake -------------------------------------------------------------------------------------------


async def ask(target: Target, spec: WebhookSpec, origin: str) -> int | None:
    """Ask the target whether it accepts events from here. Return the requests that it allows per minute; None for any
    number.

    Raise `NotAllowed` if it refuses, and `Unavailable` if it does not answer.
    """
    headers = {"webhook-request-origin": origin, **_authorization(spec)}
    if spec.rate is not None:
        headers["webhook-request-rate"] = str(spec.rate)
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
        return spec.rate
    if not re.fullmatch(r"[0-9]{1,9}", rate) or int(rate) < 1:
        raise NotAllowed(f"expected the webhook's target to allow a rate, a number or *, got {rate[:80]!a}")
    return min(int(rate), spec.rate or MAX_RATE)


def _authorization(spec: WebhookSpec) -> dict[str, str]:
    return {"authorization": f"Bearer {spec.token}"} if spec.token is not None else {}


# Delivery ------------------------------------------------------------------------------------------------


class Undelivered(Exception):
    """The target answered, and did not accept the event."""


class RateLimit:
    """Schedules requests: a limited number per minute, and none during a pause that the target asked for."""

    def __init__(self, rate: int | None) -> None:
        self._interval = 60.0 / rate if rate else 0.0
        self._next = 0.0
        self._paused = 0.0

    def turn(self, now: float) -> float:
        """Return when the request that asks now may be sent; the next gets a later time."""
        turn = max(now, self._next)
        self._next = turn + self._interval
        return turn

    def left(self, turn: float, now: float) -> float:
        """Return the remaining wait. The target may have asked for a pause meanwhile."""
        return max(turn, self._paused) - now

    def pause(self, now: float, seconds: float) -> None:
        self._paused = max(self._paused, now + seconds)


class Failing(NamedTuple):
    """Why and since when a target accepts nothing."""

    since: datetime
    error: str


class _WebhookInstance(Runner):
    """The webhook's service instance. It reports when its purpose is retired, and logs a target's failures in one line
    each."""

    def __init__(self, ended: Callable[[str], None], webhook: Webhook, *how: Any) -> None:
        super().__init__(*how)
        self._ended = ended
        self._webhook = webhook

    def _failure(self, position: int, event: Event, error: BaseException, outcome: Outcome) -> Failure:
        if not isinstance(error, Undelivered | Unanswered | NotAllowed):
            return super()._failure(position, event, error, outcome)
        of, wait_ns = self._webhook, self._retry.delay_ns(event.attempt, self._engine.random)
        limited.warning(
            ("webhook", *of.key),
            "webhook %s of %r on topic %r, to %s: %s: event %s, %s",
            *(of.name, of.purpose, of.topic, read_url(of.spec.url).shown),
            *(outcome.text, event.id, self._next(event, wait_ns)),
        )
        return Failure(position, "retry", outcome.text, wait_ns)

    def close(self, reason: str) -> None:
        super().close(reason)
        self._ended(reason)


class Delivery:
    """A running webhook: a service instance whose handler POSTs."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        webhook: Webhook,
        target: Target,
        origin: str,
        ended: Callable[[str], None],
        slices: TimeSlices,
        answers: deque[WebhookAnswer],
    ) -> None:
        """`ended` is called with the reason when it is to send nothing any more. Requests are made and signed in
        `slices`, because they may be long and many. `answers` gets what the target answered."""
        self.webhook = webhook
        self._engine = engine
        self._limits = limits
        self._target = target
        self._origin = origin
        self._ended = ended
        self._slices = slices
        self._answers = answers
        self._rate_limit = RateLimit(webhook.rate)
        self._stopping = asyncio.Event()
        self._runner: Runner | None = None
        self.failing: Failing | None = None

    async def start(self) -> None:
        """Join the purpose. Raise what joining raises."""
        of = self.webhook
        spec = of.spec
        since = read_since(spec.since)
        handler = Handler(f"webhook {of.name}", of.purpose, self._post, True, False, False)
        join = spec.stated(of.topic, of.purpose, room=of.concurrency, rate=spec.purpose_rate)
        begun = asyncio.Event()
        runner = _WebhookInstance(self._ended, of, self._engine, join, handler, of.concurrency, begun, self._limits)
        try:
            runner.enter(await self._engine.join(join, since, runner))
        except BaseException:
            await runner.stop(0)
            raise
        self._runner = runner
        begun.set()

    def leaving(self) -> None:
        """Accept nothing more; events that wait for their turn are given back."""
        self._stopping.set()
        if self._runner is not None:
            self._engine.leaving(self._runner.instance)

    async def stop(self, grace: float) -> None:
        """Let requests finish for `grace` seconds, and give back the rest."""
        self.leaving()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.stop(grace)
            await self._engine.leave(runner.instance)
        await self._target.aclose()

    async def _post(self, event: Event) -> None:
        await self._turn()
        spec = self.webhook.spec
        await self._slices.next()
        with self._slices.piece():
            body = event.data if spec.mode == "binary" else escape_controls(encode(to_cloudevent(event)))
            headers = self._headers(event, body)
        loop = asyncio.get_running_loop()
        answer: TargetAnswer | None = None
        why, began = None, loop.time()
        try:
            answer = await self._target.request("POST", headers, body, spec.timeout)
            self._judge(answer)
        except (Undelivered, Unanswered, NotAllowed, Later, Reject) as error:
            why = str(error)
            if isinstance(error, Later):
                gone = answer is not None and answer.status == 410
                why = _GONE if gone else f"the target answered that it takes nothing now: {error}"
            if not self._stopping.is_set() and not isinstance(error, Reject):
                self.failing = Failing(self.failing.since if self.failing else datetime.now(UTC), why)
            raise
        else:
            self.failing = None
        finally:
            if answer is not None or why is not None:
                self._note(event, answer, why, round(loop.time() - began, 6))

    def _note(self, event: Event, answer: TargetAnswer | None, why: str | None, took_s: float) -> None:
        status, text = (None, "") if answer is None else (answer.status, answer.body.decode(errors="replace"))
        self._answers.append(WebhookAnswer(datetime.now(UTC), event.id, event.attempt, status, took_s, why, text))

    def _headers(self, event: Event, body: bytes) -> dict[str, str]:
        headers = to_headers(event)
        # With a full stop in a producer's own id, two messages could have one signature.
        id, timestamp = headers["ce-id"].replace(".", "%2E"), int(time())
        if self.webhook.spec.mode == "structured":
            headers = {"content-type": STRUCTURED}
        return {
            **headers,
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self.webhook.secrets, id, timestamp, body),
            "webhook-request-origin": self._origin,
            **_authorization(self.webhook.spec),
        }

    async def _turn(self) -> None:
        """Wait until it may send. Events that wait here when the webhook leaves are given back."""
        loop = asyncio.get_running_loop()
        turn = self._rate_limit.turn(loop.time())
        while not self._stopping.is_set():
            left = self._rate_limit.left(turn, loop.time())
            if left <= 0:
                return
            try:
                await asyncio.wait_for(self._stopping.wait(), left)
            except TimeoutError:
                pass
        raise Later(0)

    def _judge(self, answer: TargetAnswer) -> None:
        status = answer.status
        if 200 <= status < 300:
            return
        if status == 410:
            self.leaving()
            self._ended(_GONE)
            raise Later(0)
        if status in (429, 503):
            seconds = _retry_after(answer.headers.get("retry-after", ""))
            if seconds is not None:
                self._rate_limit.pause(asyncio.get_running_loop().time(), seconds)
                raise Later(seconds)
        if status in (413, 415):
            raise Reject(f"expected the target to take the event, got {status}: no other attempt can help")
        more = ": redirects are not followed, state where it leads" if 300 <= status < 400 else ""
        raise Undelivered(f"expected the target to answer 2xx, got {status}{more}")


def _retry_after(text: str) -> float | None:
    """Return a Retry-After in seconds, which may be written as a date; None if it is neither."""
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return min(float(text), MAX_PAUSE_S)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return min(max(0.0, (when - datetime.now(UTC)).total_seconds()), MAX_PAUSE_S)
