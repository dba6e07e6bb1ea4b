"""A server's webhooks: registered, listed, removed, and stored across restarts.

They are definitions in the store, which only the server's own user may read, because they hold the signing keys.
Servers that share a store all run each webhook, and learn of each other's changes.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from time import time
from typing import Any

import msgspec

from ..engine.attention import command
from ..engine.audit import other_entry
from ..engine.base import Definition, Definitions
from ..engine.tasks import Tasks
from ..engine.watch import Fact, Facts
from ..errors import (
    BadArgument,
    BadName,
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
from ..names import check_purpose, check_topic
from ..origin import MACHINE
from ..records import Attention
from .access import Grant
from .delivery import Delivery, Secret, Webhook, WebhookSpec, ask, make_secret
from .faults import read_body
from .host import ServerHost
from .json_check import check_json
from .targets import Allowed, Dialer, Resolve, Target, Unanswered, read_url, resolve

log = logging.getLogger("solarwind")

MAX_WEBHOOKS = 1_000
OVERLAP_S = 86_400.0  # how long a replaced secret still signs
LEAVE_S = 5.0  # for requests under way when a webhook is changed or removed
_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_MAX_CHARACTERS = 200

_KIND = "webhook"
_NOT_YET = "it could not start yet, which is tried again"
_ONLY_SHOWN = "here it is only shown; `solarwind serve` delivers it"

WebhookKey = tuple[str, str, str]


class WebhookFacts(msgspec.Struct, frozen=True):
    """What viewers see of a webhook. Its URL may contain a secret, so that `host` alone is shown."""

    topic: str
    purpose: str
    name: str
    host: str
    exchange: str
    version: int
    state: str
    error: str | None


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
        self._refused: dict[WebhookKey, str] = {}  # why each could not join, or may not deliver
        self._barred: set[WebhookKey] = set()  # those whose owner may not listen
        self._deciding: set[WebhookKey] = set()
        self._at_work: dict[WebhookKey, Delivery] = {}
        self._changing = asyncio.Lock()  # one change at a time
        self._tasks = Tasks(lambda _: None)
        host.facts["webhooks"] = self.facts

    # Life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the stored webhooks. Raise `StoreError` where they cannot be read."""
        self._unwatch = self._definitions.watch(_KIND, self._told)
        self._end_attention = self._host.wind.add_part(self.attention)
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
            elif key not in self._known:  # removed here: no earlier change can arrive any more
                self._numbers.pop(key, None)

    def _forget(self, key: WebhookKey) -> None:
        self._known.pop(key, None)
        self._refused.pop(key, None)
        self._barred.discard(key)

    async def _begin_or_refuse(self, webhook: Webhook) -> None:
        """Start it, unless it has ended; if it cannot start, its state says why."""
        if webhook.ended is not None:
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
            and key in self._at_work
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
        key = _key(topic, purpose, name)
        if key not in self._known:
            raise _not_found(key)
        return self._shown(self._known[key])

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
        await self._note("webhook delete", key, grant.name)

    async def _note(self, verb: str, key: WebhookKey, by: str, **arguments: str) -> None:
        topic, purpose, name = key
        entry = other_entry(verb, by, datetime.now(UTC), topic, purpose, name=name, **arguments)
        await self._host.audit.note(entry)

    # Owners --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Stop the webhooks whose owner may not listen any more, and start those that could not start yet. Called now
        and then."""
        if not self._delivers:
            return
        for key, webhook in self._known.items():
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
                if webhook is None or webhook.ended is not None:
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
        return webhook.ended is None and webhook.key not in self._at_work and webhook.key not in self._refused

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
        """Start it in place of the former one, which goes on if that fails."""
        before = self._known.get(key)
        was_at_work = key in self._at_work
        await self._end(key)
        try:
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
        delivery = Delivery(host.engine, host.limits, webhook, target, self._origin, ended, host.slices)
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
        """Yield the webhooks that deliver nothing: their targets fail, or they could not join."""
        if not self._delivers:
            return
        for key, webhook in self._known.items():
            delivery, refusal = self._at_work.get(key), self._refused.get(key)
            refusal = _NOT_YET if delivery is None and refusal is None else refusal
            failing = delivery.failing if delivery is not None else None
            if webhook.ended is None and (failing is not None or refusal is not None):
                why, since = (failing.error, failing.since) if failing is not None else (refusal, None)
                text, names = f"its webhook {webhook.name!r} delivers nothing", (webhook.topic, webhook.purpose)
                shown = command("purposes", names=(webhook.topic,))
                yield Attention("webhook failing", "medium", *names, since, text, shown, why)

    def facts(self) -> Facts:
        """Return what viewers see of the webhooks."""
        found = Facts()
        for (topic, purpose, name), webhook in self._known.items():
            shown = self._shown(webhook)
            record = WebhookFacts(
                topic,
                purpose,
                name,
                read_url(webhook.spec.url).host,
                webhook.spec.exchange,
                webhook.spec.version,
                shown["state"],
                shown["reason"],
            )
            found[f"{topic}/{purpose}/{name}"] = Fact(topic, purpose, record)
        return found

    async def _remember(self, webhook: Webhook) -> None:
        """Store it in place of the version known here. Raise `ConflictError` where another server has changed it."""
        key, value = webhook.key, msgspec.json.encode(webhook)
        before = self._numbers.get(key, 0) if key in self._known else 0
        definition = await self._definitions.put(_KIND, _definition_name(key), value, before=before)
        self._known[key], self._numbers[key] = webhook, definition.number

    def _shown(self, webhook: Webhook) -> dict[str, Any]:
        spec, reason = webhook.spec, webhook.ended or self._refused.get(webhook.key)
        state = "ended" if webhook.ended else "refused" if reason else "live"
        delivery = self._at_work.get(webhook.key)
        failing = delivery.failing if delivery is not None and state == "live" else None
        if failing is not None:
            state, reason = "failing", failing.error
        elif state == "live" and delivery is None:
            state, reason = "failing", _NOT_YET
        shown: dict[str, Any] = {
            "topic": webhook.topic,
            "purpose": webhook.purpose,
            "name": webhook.name,
            "state": state,
            "reason": reason,
            "failing_since": msgspec.to_builtins(failing.since) if failing is not None else None,
            "owner": webhook.owner_name or None,
            **msgspec.to_builtins(spec),
            "url": read_url(spec.url).shown,
            "rate": webhook.rate,
        }
        del shown["secret"], shown["token"]
        return shown

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.spawn(work, "the end or the beginning of a webhook")


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
    check_topic(topic)
    check_purpose(purpose)
    if not _NAME.fullmatch(name) or len(name) > _MAX_CHARACTERS:
        raise BadName(
            f"expected a webhook's name of 1 to {_MAX_CHARACTERS} characters, words of A-Z a-z 0-9 _ - joined by "
            f"single dots, got {name[:80]!a}"
        )
    return topic, purpose, name


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
