"""A server's webhooks: registered, listed, removed, and stored across restarts.

They are definitions in the store, which only the server's own user may read, because they hold the signing keys.
Servers that share a store all run each webhook, and learn of each other's changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import time, time_ns
from typing import Any, Literal

import msgspec

from ..engine.attention import command
from ..engine.audit import entry_of, other_entry
from ..engine.base import Definition, Definitions
from ..engine.request import Request
from ..engine.tasks import Tasks
from ..engine.watch import Fact, Facts
from ..errors import (
    BadArgument,
    BadPayload,
    Busy,
    ConflictError,
    NotAllowed,
    NotFound,
    SolarWindError,
    StoreError,
    Unavailable,
)
from ..logs import limited
from ..names import check_purpose, check_topic, check_webhook
from ..origin import MACHINE, this_process
from ..records import Attention, WebhookAnswer, WebhookInfo
from .access import Grant
from .delivery import Delivery, Failing, Secret, Webhook, WebhookSpec, ask, make_secret
from .faults import read_body
from .host import ServerHost
from .json_check import check_json
from .targets import Allowed, Dialer, Resolve, Target, Unanswered, read_url, resolve

log = logging.getLogger("solarwind")

MAX_WEBHOOKS = 1_000
OVERLAP_S = 86_400.0  # how long a replaced secret still signs
LEAVE_S = 5.0  # for requests under way when a webhook is changed or removed
MAX_ANSWERS = 20  # of a target, that are known of each webhook

_KIND = "webhook"
_NOT_YET = "it could not start yet, which is tried again"
_ONLY_SHOWN = "here it is only shown; `solarwind serve` delivers it"

WebhookKey = tuple[str, str, str]
State = Literal["live", "failing", "paused", "refused", "ended"]


class Webhooks:
    """All webhooks of a server. Used on the engine's loop."""

    def __init__(
        self,
        host: ServerHost,
        *,
        networks: Collection[str] = (),
        origin: str | None = None,
        resolve: Resolve = resolve,
        delivers: bool = True,
    ) -> None:
        """`networks` may be reached besides public addresses; `origin` is the name that targets are told. Unless it
        `delivers`, webhooks are only shown."""
        self._host = host
        self._dialer = Dialer(Allowed(networks), resolve)
        self._origin = origin or MACHINE
        self._delivers = delivers
        self._known: dict[WebhookKey, Webhook] = {}
        self._numbers: dict[WebhookKey, int] = {}  # the definition's number of each, also of removed ones
        self._unwatch: Callable[[], None] = lambda: None
        self._end_attention: Callable[[], None] = lambda: None
        self._end_answers: Callable[[], None] = lambda: None
        self._refused: dict[WebhookKey, str] = {}  # why each could not join, or may not deliver
        self._barred: set[WebhookKey] = set()  # those whose owner may not listen
        self._deciding: set[WebhookKey] = set()
        self._at_work: dict[WebhookKey, Delivery] = {}
        self._answers: dict[WebhookKey, deque[WebhookAnswer]] = {}  # of the targets
        self._changing = asyncio.Lock()  # one change at a time
        self._tasks = Tasks(lambda _: None)
        host.facts["webhooks"] = self.facts

    # Life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the stored webhooks. Raise `StoreError` where they cannot be read."""
        self._unwatch = self._definitions.watch(_KIND, self._told)
        self._end_attention = self._host.wind.add_part(self.attention)
        self._end_answers = self._host.wind.add_answers(
            {
                "webhooks": self._infos,
                "webhook_answers": self._last_answers,
                "pause_webhook": self._pause,
                "resume_webhook": self._resume,
            }
        )
        async with self._changing:
            for definition in await self._definitions.list(_KIND):
                key, webhook = _read(definition)
                if webhook is not None:
                    self._known[key], self._numbers[key] = webhook, definition.number
            for webhook in self._known.values():
                await self._begin_or_refuse(webhook)

    @property
    def _definitions(self) -> Definitions:
        return self._host.engine.definitions

    def _told(self, definition: Definition) -> None:
        """Apply a change that was made here or by another server."""
        try:
            key, webhook = _read(definition)
        except StoreError as error:
            log.error("%s", error)
        else:
            self._spawn(self._adopt(key, webhook, definition.number))

    async def _adopt(self, key: WebhookKey, webhook: Webhook | None, number: int) -> None:
        async with self._changing:
            if number > self._numbers.get(key, 0):
                await self._end(key)
                self._forget(key)
                if webhook is not None:
                    self._known[key], self._numbers[key] = webhook, number
                    await self._begin_or_refuse(webhook)
                else:
                    self._answers.pop(key, None)
            elif key not in self._known:  # removed here: no earlier change can arrive any more
                self._numbers.pop(key, None)

    def _forget(self, key: WebhookKey) -> None:
        self._known.pop(key, None)
        self._refused.pop(key, None)
        self._barred.discard(key)

    async def _begin_or_refuse(self, webhook: Webhook) -> None:
        """Start it, unless it has ended or is paused; if it cannot start, its state says why."""
        if webhook.ended is not None or webhook.paused is not None:
            return
        if not self._delivers:
            self._refused[webhook.key] = _ONLY_SHOWN
            return
        refusal = self._refusal(webhook)
        if refusal is not None:
            self._bar(webhook.key, refusal)
            return
        try:
            await self._begin(webhook)
        except (BadArgument, Busy, ConflictError, NotAllowed) as error:
            log.error("webhook %s of %r on topic %r could not join: %s", *reversed(webhook.key), error)
            self._refused[webhook.key] = str(error)
        except Unavailable as error:
            kind = ("webhook waits", *webhook.key)
            what = "webhook %s of %r on topic %r cannot start yet, which is tried again: %s"
            limited.warning(kind, what, *reversed(webhook.key), error)

    async def stop(self) -> None:
        """Let requests finish within the grace period of handlers."""
        self._unwatch()
        self._end_attention()
        self._end_answers()
        await self._tasks.wait()
        at_work, self._at_work = self._at_work, {}
        for delivery in at_work.values():
            with suppress(Unavailable):
                delivery.leaving()
        await asyncio.gather(*(each.stop(self._host.wind.grace) for each in at_work.values()), return_exceptions=True)

    # Requests ------------------------------------------------------------------------------------------

    async def put(self, topic: str, purpose: str, name: str, body: bytes, grant: Grant) -> tuple[bool, dict[str, Any]]:
        """Register a webhook, or change it. Return whether it is new, and its description with the secret, if it was
        made here; the secret is never shown again. It belongs to the client that puts it, and delivers only while
        `grant` allows that.

        Raise `BadName`, `BadPayload`, `BadArgument`, `ConflictError`, `Busy`, `StoreError`; `NotAllowed` where the
        target may not be reached or refuses events, or this server does not deliver, and `Unavailable` where it does
        not answer.
        """
        key = _key(topic, purpose, name)
        if not self._delivers:
            raise NotAllowed(f"expected a server that delivers webhooks, got one that does not: {_ONLY_SHOWN}")
        spec = _read_wanted(body, self._host.settings.nesting)
        secret, spec = spec.secret, msgspec.structs.replace(spec, secret=None)
        before = self._known.get(key)
        if (
            before is not None
            and (key in self._at_work or before.paused is not None)
            and before.spec == spec
            and before.owner == grant.id
            and secret in (None, before.secrets[0].text)
        ):
            return False, self._shown(before)
        self._check_room(key)
        rate = await self._ask(spec)
        async with self._changing:
            self._check_room(key)
            before = self._known.get(key)
            # Secrets are not passed on to a target on another host.
            former = before if before is not None and _host(before) == _host(spec) else None
            made = make_secret() if secret is None and former is None else None
            webhook = Webhook(
                topic=topic,
                purpose=purpose,
                name=name,
                spec=spec,
                secrets=_secrets(secret or made, former),
                rate=rate,
                owner=grant.id,
                owner_name=grant.name,
                paused=before.paused if before is not None else None,
            )
            await self._replace(key, webhook)
        await self._note("webhook put", key, grant.name, url=read_url(spec.url).shown)
        if before is None and not self._definitions.lasting:
            log.warning(
                "webhook %s of %r on topic %r lasts as long as this server runs, which has no store to remember it in: "
                "put it there again after each start",
                *reversed(key),
            )
        shown = self._shown(webhook)
        return before is None, {**shown, "secret": made} if made is not None else shown

    def get(self, topic: str, purpose: str, name: str) -> dict[str, Any]:
        """Return one webhook, without its secret. Raise `BadName` and `NotFound`."""
        return self._shown(self._there(_key(topic, purpose, name)))

    def every(self) -> list[dict[str, Any]]:
        """Return the webhooks of all purposes."""
        return [self._shown(self._known[key]) for key in sorted(self._known)]

    def list(self, topic: str, purpose: str) -> list[dict[str, Any]]:
        """Return the webhooks of a purpose, by name. Raise `BadName`."""
        check_topic(topic)
        check_purpose(purpose)
        return [self._shown(self._known[key]) for key in sorted(self._known) if key[:2] == (topic, purpose)]

    async def delete(self, topic: str, purpose: str, name: str, grant: Grant) -> None:
        """Remove a webhook: it sends nothing more, and the purpose keeps what pends. Raise `BadName` and `NotFound`."""
        key = _key(topic, purpose, name)
        async with self._changing:
            if key not in self._known:
                raise _not_found(key)
            removed = await self._definitions.remove(_KIND, _definition_name(key))
            self._forget(key)
            if removed is not None:
                self._numbers[key] = removed.number
            await self._end(key)
            self._answers.pop(key, None)
        await self._note("webhook delete", key, grant.name)

    async def _note(self, verb: str, key: WebhookKey, by: str, **arguments: str) -> None:
        topic, purpose, name = key
        entry = other_entry(verb, by, datetime.now(UTC), topic, purpose, name=name, **arguments)
        await self._host.audit.note(entry)

    # Operations ---------------------------------------------------------------------------------------

    async def _pause(self, request: Request[None]) -> None:
        """See `WebhookOperations.pause_webhook`."""
        await self._set_paused(request, time())

    async def _resume(self, request: Request[None]) -> None:
        """See `WebhookOperations.resume_webhook`."""
        await self._set_paused(request, None)

    async def _set_paused(self, request: Request[None], paused: float | None) -> None:
        key = self._asked(request)
        async with self._changing:
            webhook = self._there(key)
            if webhook.ended is not None:
                raise ConflictError(
                    f"expected a webhook that may be paused and resumed, got {webhook.name!r}, which has ended: "
                    f"{webhook.ended}: put it again"
                )
            if (webhook.paused is None) != (paused is None):
                changed = msgspec.structs.replace(webhook, paused=paused)
                await self._remember(changed)
                self._refused.pop(key, None)
                self._barred.discard(key)
                await self._end(key)
                await self._begin_or_refuse(changed)
        request = msgspec.structs.replace(request, by=request.by or this_process())
        await self._host.audit.note(entry_of(request, None, time_ns()))

    async def _infos(self, request: Request[Any]) -> Sequence[WebhookInfo]:
        """See `WebhookOperations.webhooks`."""
        topic = request.arguments["topic"]
        return [self._info(self._known[key]) for key in sorted(self._known) if topic in (None, key[0])]

    async def _last_answers(self, request: Request[Any]) -> Sequence[WebhookAnswer]:
        """See `WebhookOperations.webhook_answers`."""
        key = self._asked(request)
        self._there(key)
        return [*reversed(self._answers.get(key, ()))][: request.arguments["limit"]]

    @staticmethod
    def _asked(request: Request[Any]) -> WebhookKey:
        return request.arguments["topic"], request.arguments["purpose"], request.arguments["name"]

    def _there(self, key: WebhookKey) -> Webhook:
        """Return a webhook. Raise `NotFound`."""
        if key not in self._known:
            raise _not_found(key)
        return self._known[key]

    # Owners --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Stop the webhooks whose owner may not listen any more, and start those that could not start yet. Called now
        and then."""
        if not self._delivers:
            return
        for key, webhook in self._known.items():
            if webhook.paused is not None:  # its owner counts when it is resumed
                continue
            is_changed = (self._refusal(webhook) is None) == (key in self._barred)
            if (is_changed or self._waits(webhook)) and key not in self._deciding:
                self._deciding.add(key)
                self._spawn(self._decide(key))

    def _refusal(self, webhook: Webhook) -> SolarWindError | None:
        """Return the error for which its owner may not listen, or None."""
        try:
            self._host.access.owned(webhook.owner).check_listen(webhook.topic, webhook.purpose)
        except SolarWindError as error:
            return error
        return None

    async def _decide(self, key: WebhookKey) -> None:
        try:
            async with self._changing:
                webhook = self._known.get(key)
                if webhook is None or webhook.ended is not None or webhook.paused is not None:
                    return
                refusal = self._refusal(webhook)
                if refusal is not None:
                    self._bar(key, refusal)
                    await self._end(key)
                elif key in self._barred or self._waits(webhook):
                    self._barred.discard(key)
                    self._refused.pop(key, None)
                    await self._begin_or_refuse(webhook)
        finally:
            self._deciding.discard(key)

    def _waits(self, webhook: Webhook) -> bool:
        """Return whether it should be at work and is not."""
        goes = webhook.ended is None and webhook.paused is None
        return goes and webhook.key not in self._at_work and webhook.key not in self._refused

    def _bar(self, key: WebhookKey, refusal: SolarWindError) -> None:
        log.warning("webhook %s of %r on topic %r delivers no more: %s", *reversed(key), refusal)
        self._barred.add(key)
        self._refused[key] = f"its owner may no longer listen: {refusal}"

    # Inner --------------------------------------------------------------------------------------------

    def _check_room(self, key: WebhookKey) -> None:
        if key not in self._known and len(self._known) >= MAX_WEBHOOKS:
            raise Busy(f"expected no more than {MAX_WEBHOOKS:,} webhooks, got another: take away one that has ended")

    async def _ask(self, spec: WebhookSpec) -> int | None:
        """Ask whether the target may be reached and accepts events; return the requests per minute that it allows."""
        url = read_url(spec.url)
        try:
            await self._dialer.addresses(url.host, url.port)
        except Unanswered as error:
            raise Unavailable(str(error)) from None
        if not spec.handshake:
            return spec.rate
        target = Target(self._dialer, url, 1)
        try:
            return await ask(target, spec, self._origin)
        finally:
            await target.aclose()

    async def _replace(self, key: WebhookKey, webhook: Webhook) -> None:
        """Start it in place of the former one, which goes on if that fails. One that is paused stays so."""
        before = self._known.get(key)
        was_at_work = key in self._at_work
        await self._end(key)
        try:
            if webhook.paused is None:
                await self._begin(webhook)
            await self._remember(webhook)
        except BaseException:
            await self._end(key)
            if before is not None and was_at_work:
                await self._begin(before)
            raise
        self._refused.pop(key, None)
        self._barred.discard(key)

    async def _begin(self, webhook: Webhook) -> None:
        """Start it. Raise what joining raises."""
        spec, key = webhook.spec, webhook.key
        target = Target(self._dialer, read_url(spec.url), spec.concurrency)

        def ended(reason: str) -> None:
            self._spawn(self._ended(delivery, reason))

        host = self._host
        answers = self._answers.setdefault(key, deque(maxlen=MAX_ANSWERS))
        delivery = Delivery(host.engine, host.limits, webhook, target, self._origin, ended, host.slices, answers)
        await delivery.start()
        self._at_work[key] = delivery

    async def _end(self, key: WebhookKey) -> None:
        delivery = self._at_work.pop(key, None)
        if delivery is not None:
            await delivery.stop(LEAVE_S)

    async def _ended(self, delivery: Delivery, reason: str) -> None:
        """Store that its target or its purpose is gone, so that it is not started again. After a failure of the
        dispatcher it may start again."""
        async with self._changing:
            key = delivery.webhook.key
            if self._at_work.get(key) is not delivery or self._host.engine.failed.done():
                return
            log.warning("webhook %s of %r on topic %r has ended: %s", *reversed(key), reason)
            self._refused[key] = reason
            try:
                await self._remember(msgspec.structs.replace(delivery.webhook, ended=reason))
            except SolarWindError:
                pass  # then it ends again after the next start, or another server has stored it
            finally:
                await self._end(key)

    def attention(self) -> Iterator[Attention]:
        """Yield the webhooks that deliver nothing: their targets fail, or they could not join, or are paused."""
        if not self._delivers:
            return
        for key, webhook in self._known.items():
            names = webhook.topic, webhook.purpose
            if webhook.paused is not None and webhook.ended is None:
                paused = datetime.fromtimestamp(webhook.paused, UTC)
                text = f"Its webhook {webhook.name!r} is paused and sends nothing: resume it when it may go on"
                resume = command("webhooks", "resume", names=key)
                yield Attention("webhook paused", "low", *names, paused, text, resume)
                continue
            delivery, refusal = self._at_work.get(key), self._refused.get(key)
            refusal = _NOT_YET if delivery is None and refusal is None else refusal
            failing = delivery.failing if delivery is not None else None
            if webhook.ended is None and (failing is not None or refusal is not None):
                why, since = (failing.error, failing.since) if failing is not None else (refusal, None)
                text = f"Its webhook {webhook.name!r} delivers nothing"
                shown = command("webhooks", "answers", names=key)
                yield Attention("webhook failing", "medium", *names, since, text, shown, why)

    def facts(self) -> Facts:
        """Return what viewers see of the webhooks."""
        found = Facts()
        for webhook in self._known.values():
            info = self._info(webhook)
            found[fact_name(info)] = Fact(info.topic, info.purpose, info)
        return found

    def _info(self, webhook: Webhook) -> WebhookInfo:
        spec, (state, reason, _) = webhook.spec, self._state(webhook)
        return WebhookInfo(*webhook.key, read_url(spec.url).host, spec.exchange, spec.version, state, reason)

    async def _remember(self, webhook: Webhook) -> None:
        """Store it in place of the version known here. Raise `ConflictError` where another server has changed it."""
        key, value = webhook.key, msgspec.json.encode(webhook)
        before = self._numbers.get(key, 0) if key in self._known else 0
        definition = await self._definitions.put(_KIND, _definition_name(key), value, before=before)
        self._known[key], self._numbers[key] = webhook, definition.number

    def _state(self, webhook: Webhook) -> tuple[State, str | None, Failing | None]:
        """Return its state, why it is not live, and since when and why its target fails."""
        if webhook.ended is not None:
            return "ended", webhook.ended, None
        if webhook.paused is not None:
            return "paused", None, None
        if webhook.key in self._refused:
            return "refused", self._refused[webhook.key], None
        delivery = self._at_work.get(webhook.key)
        if delivery is None:
            return "failing", _NOT_YET, None
        failing = delivery.failing
        return ("live", None, None) if failing is None else ("failing", failing.error, failing)

    def _shown(self, webhook: Webhook) -> dict[str, Any]:
        spec, (state, reason, failing) = webhook.spec, self._state(webhook)
        paused = None if webhook.paused is None else datetime.fromtimestamp(webhook.paused, UTC)
        shown: dict[str, Any] = {
            "topic": webhook.topic,
            "purpose": webhook.purpose,
            "name": webhook.name,
            "state": state,
            "reason": reason,
            "failing_since": msgspec.to_builtins(failing.since) if failing is not None else None,
            "paused_since": msgspec.to_builtins(paused),
            "owner": webhook.owner_name or None,
            **msgspec.to_builtins(spec),
            "url": read_url(spec.url).shown,
            "rate": webhook.rate,
        }
        del shown["secret"], shown["token"]
        return shown

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.spawn(work, "the end or the beginning of a webhook")


def fact_name(info: WebhookInfo) -> str:
    """Return the name by which viewers know a webhook."""
    return f"{info.topic}/{info.purpose}/{info.name}"


def _host(of: Webhook | WebhookSpec) -> tuple[str, str]:
    url = read_url(of.spec.url if isinstance(of, Webhook) else of.url)
    return url.scheme, url.authority


def _read_wanted(body: bytes, max_nesting: int) -> WebhookSpec:
    try:
        check_json(body, max_nesting)
    except BadPayload:
        # Its text is not shown, because it may contain a secret.
        raise BadPayload('expected a JSON object such as {"url": "https://example.com/hook"}, got no JSON') from None
    spec = read_body(body, WebhookSpec)
    spec.check()
    return spec


def _key(topic: str, purpose: str, name: str) -> WebhookKey:
    return check_topic(topic), check_purpose(purpose), check_webhook(name)


def _not_found(key: WebhookKey) -> SolarWindError:
    topic, purpose, name = key
    return NotFound(f"expected a webhook of {purpose!r} on topic {topic!r}, got {name!r}, which does not exist")


def _secrets(text: str | None, before: Webhook | None) -> tuple[Secret, ...]:
    """Return the keys, newest first. The former one signs for a while too, so that the receiver has time to learn the
    new one."""
    known = before.secrets if before is not None else ()
    if text is None or (known and known[0].text == text):
        return known
    former = tuple(msgspec.structs.replace(each, until=time() + OVERLAP_S) for each in known[:1])
    return (Secret(text), *former)


# Storage -------------------------------------------------------------------------------------------------


def _definition_name(key: WebhookKey) -> str:
    return msgspec.json.encode(key).decode()


def _read(definition: Definition) -> tuple[WebhookKey, Webhook | None]:
    """Return the key and the webhook of a definition; None where it was removed. Raise `StoreError`."""
    try:
        key = msgspec.json.decode(definition.name, type=WebhookKey)
        value = definition.value
        return key, msgspec.json.decode(value, type=Webhook) if value is not None else None
    except msgspec.MsgspecError:
        raise StoreError(
            f"expected a webhook in the store, got {definition.name[:200]!a}, which is not what was written: use the "
            "version of Solar Wind that wrote it"
        ) from None
