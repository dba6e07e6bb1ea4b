"""The webhooks of a server: registered, shown, taken away, and remembered across restarts.

They are definitions in the store, which nobody but the server's own user may read, since they hold what messages are
signed with. Where several servers share a store each of them knows all, and learns what another changes.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from time import time
from typing import Any

import msgspec

from ..engine.base import Definition, Definitions
from ..engine.tasks import Tasks
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
from ..names import check_purpose, check_topic
from ..origin import MACHINE
from .access import Grant
from .delivery import Delivery, Secret, Wanted, Webhook, ask, make_secret
from .faults import read_body
from .host import ServerHost
from .nesting import check_json
from .targets import Allowed, Dialer, Resolve, Target, Unanswered, read_url, resolve

log = logging.getLogger("solarwind")

MAX_WEBHOOKS = 1_000
OVERLAP_S = 86_400.0  # a secret that was replaced still signs for so long
LEAVE_S = 5.0  # that requests under way have when a webhook is changed or taken away
_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_MAX_CHARACTERS = 200

_KIND = "webhook"

Place = tuple[str, str, str]


class Webhooks:
    """See above. All of it on the loop of the engine."""

    def __init__(
        self,
        host: ServerHost,
        *,
        networks: Collection[str] = (),
        origin: str | None = None,
        resolve: Resolve = resolve,
    ) -> None:
        """`networks` may be reached besides public addresses; `origin` is who targets are told is asking."""
        self._host = host
        self._dialer = Dialer(Allowed(networks), resolve)
        self._origin = origin or MACHINE
        self._known: dict[Place, Webhook] = {}
        self._numbers: dict[Place, int] = {}  # of the changes that made them, or took them away here
        self._unwatch: Callable[[], None] = lambda: None
        self._refused: dict[Place, str] = {}  # why it could not join, or may not deliver
        self._barred: set[Place] = set()  # of those, the ones whose owner may not listen
        self._deciding: set[Place] = set()
        self._at_work: dict[Place, Delivery] = {}
        self._changing = asyncio.Lock()  # one change at a time
        self._tasks = Tasks(lambda _: None)

    # Life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Set those that are remembered to work. Raises `StoreError` where they cannot be read."""
        self._unwatch = self._definitions.watch(_KIND, self._told)
        async with self._changing:
            for definition in await self._definitions.list(_KIND):
                place, webhook = _read(definition)
                if webhook is not None:
                    self._known[place], self._numbers[place] = webhook, definition.number
            for webhook in self._known.values():
                await self._begin_or_refuse(webhook)

    @property
    def _definitions(self) -> Definitions:
        return self._host.engine.definitions

    def _told(self, definition: Definition) -> None:
        """Somebody changed one, here or at another server."""
        try:
            place, webhook = _read(definition)
        except StoreError as error:
            log.error("%s", error)
        else:
            self._spawn(self._adopt(place, webhook, definition.number))

    async def _adopt(self, place: Place, webhook: Webhook | None, number: int) -> None:
        async with self._changing:
            if number > self._numbers.get(place, 0):
                await self._end(place)
                self._forget(place)
                if webhook is not None:
                    self._known[place], self._numbers[place] = webhook, number
                    await self._begin_or_refuse(webhook)
            elif place not in self._known:  # taken away here, and from now on nothing of before can be told
                self._numbers.pop(place, None)

    def _forget(self, place: Place) -> None:
        self._known.pop(place, None)
        self._refused.pop(place, None)
        self._barred.discard(place)

    async def _begin_or_refuse(self, webhook: Webhook) -> None:
        """Set it to work, unless it has ended; if that cannot be, what is shown says why."""
        if webhook.ended is not None:
            return
        refusal = self._refusal(webhook)
        if refusal is not None:
            self._bar(webhook.place, refusal)
            return
        try:
            await self._begin(webhook)
        except (BadArgument, Busy, ConflictError, NotAllowed) as error:
            log.error("webhook %s of %r on topic %r could not join: %s", *reversed(webhook.place), error)
            self._refused[webhook.place] = str(error)

    async def stop(self) -> None:
        """Let requests come to their end within the grace that handlers have."""
        self._unwatch()
        await self._tasks.wait()
        at_work, self._at_work = self._at_work, {}
        for delivery in at_work.values():
            with suppress(Unavailable):
                delivery.leaving()
        await asyncio.gather(*(each.stop(self._host.wind.grace) for each in at_work.values()), return_exceptions=True)

    # What is asked ------------------------------------------------------------------------------------

    async def put(self, topic: str, purpose: str, name: str, body: bytes, grant: Grant) -> tuple[bool, dict[str, Any]]:
        """Register a webhook, or change it. Gives whether it is new, and what is shown: the secret too, if it was made
        here, and never again. It is of whoever puts it: what `grant` may no longer do, it does not.

        Raises `BadName`, `BadPayload`, `BadArgument`, `ConflictError`, `Busy`, `StoreError`; `NotAllowed` where the
        target may not be reached or does not want the events, and `Unavailable` where it cannot be asked.
        """
        place = _place(topic, purpose, name)
        wanted = _read_wanted(body, self._host.settings.nesting)
        secret, wanted = wanted.secret, msgspec.structs.replace(wanted, secret=None)
        before = self._known.get(place)
        if (
            before is not None
            and place in self._at_work
            and before.wanted == wanted
            and before.owner == grant.id
            and secret in (None, before.secrets[0].text)
        ):
            return False, self._shown(before)
        self._check_room(place)
        rate = await self._ask(wanted)
        async with self._changing:
            self._check_room(place)
            before = self._known.get(place)
            # What the target of another host knows stays between it and us.
            former = before if before is not None and _host(before) == _host(wanted) else None
            made = make_secret() if secret is None and former is None else None
            webhook = Webhook(
                topic=topic,
                purpose=purpose,
                name=name,
                wanted=wanted,
                secrets=_secrets(secret or made, former),
                rate=rate,
                owner=grant.id,
                owner_name=grant.name,
            )
            await self._replace(place, webhook)
        if before is None and not self._definitions.lasting:
            log.warning(
                "webhook %s of %r on topic %r lasts as long as this server runs, which has no store to remember it in: "
                "put it there again after each start",
                *reversed(place),
            )
        shown = self._shown(webhook)
        return before is None, {**shown, "secret": made} if made is not None else shown

    def get(self, topic: str, purpose: str, name: str) -> dict[str, Any]:
        """One webhook, without its secret. Raises `BadName` and `NotFound`."""
        place = _place(topic, purpose, name)
        if place not in self._known:
            raise _not_found(place)
        return self._shown(self._known[place])

    def every(self) -> list[dict[str, Any]]:
        """Those of all purposes."""
        return [self._shown(self._known[place]) for place in sorted(self._known)]

    def list(self, topic: str, purpose: str) -> list[dict[str, Any]]:
        """Those of a purpose, by name. Raises `BadName`."""
        check_topic(topic)
        check_purpose(purpose)
        return [self._shown(self._known[place]) for place in sorted(self._known) if place[:2] == (topic, purpose)]

    async def delete(self, topic: str, purpose: str, name: str) -> None:
        """Take it away: nothing more is sent, and the purpose keeps what pends. Raises `BadName` and `NotFound`."""
        place = _place(topic, purpose, name)
        async with self._changing:
            if place not in self._known:
                raise _not_found(place)
            removed = await self._definitions.remove(_KIND, _key(place))
            self._forget(place)
            if removed is not None:
                self._numbers[place] = removed.number
            await self._end(place)

    # Whose they are -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Called now and then: a webhook delivers as long as whoever put it may listen."""
        for place, webhook in self._known.items():
            refusal = self._refusal(webhook)
            if (refusal is None) == (place in self._barred) and place not in self._deciding:
                self._deciding.add(place)
                self._spawn(self._decide(place))

    def _refusal(self, webhook: Webhook) -> SolarWindError | None:
        """Why it may not deliver, by its owner's right."""
        try:
            self._host.access.owned(webhook.owner).check_listen(webhook.topic, webhook.purpose)
        except SolarWindError as error:
            return error
        return None

    async def _decide(self, place: Place) -> None:
        try:
            async with self._changing:
                webhook = self._known.get(place)
                if webhook is None or webhook.ended is not None:
                    return
                refusal = self._refusal(webhook)
                if refusal is not None:
                    self._bar(place, refusal)
                    await self._end(place)
                elif place in self._barred:
                    self._barred.discard(place)
                    self._refused.pop(place, None)
                    await self._begin_or_refuse(webhook)
        finally:
            self._deciding.discard(place)

    def _bar(self, place: Place, refusal: SolarWindError) -> None:
        log.warning("webhook %s of %r on topic %r delivers no more: %s", *reversed(place), refusal)
        self._barred.add(place)
        self._refused[place] = f"whoever put it may not listen any more: {refusal}"

    # Inner --------------------------------------------------------------------------------------------

    def _check_room(self, place: Place) -> None:
        if place not in self._known and len(self._known) >= MAX_WEBHOOKS:
            raise Busy(f"expected no more than {MAX_WEBHOOKS:,} webhooks, got another: take away one that has ended")

    async def _ask(self, wanted: Wanted) -> int | None:
        """Whether the target may be reached and wants the events; gives how many a minute."""
        url = read_url(wanted.url)
        try:
            await self._dialer.addresses(url.host, url.port)
        except Unanswered as error:
            raise Unavailable(str(error)) from None
        if not wanted.handshake:
            return wanted.rate
        target = Target(self._dialer, url, 1)
        try:
            return await ask(target, wanted, self._origin)
        finally:
            await target.aclose()

    async def _replace(self, place: Place, webhook: Webhook) -> None:
        """Set it to work in place of what was there; if that cannot be, what was there goes on."""
        before = self._known.get(place)
        was_at_work = place in self._at_work
        await self._end(place)
        try:
            await self._begin(webhook)
            await self._remember(webhook)
        except BaseException:
            await self._end(place)
            if before is not None and was_at_work:
                await self._begin(before)
            raise
        self._refused.pop(place, None)
        self._barred.discard(place)

    async def _begin(self, webhook: Webhook) -> None:
        """Set it to work. Raises what joining raises."""
        wanted, place = webhook.wanted, webhook.place
        target = Target(self._dialer, read_url(wanted.url), wanted.concurrency)

        def ended(reason: str) -> None:
            self._spawn(self._ended(delivery, reason))

        host = self._host
        delivery = Delivery(host.engine, host.limits, webhook, target, self._origin, ended, host.turns)
        await delivery.start()
        self._at_work[place] = delivery

    async def _end(self, place: Place) -> None:
        delivery = self._at_work.pop(place, None)
        if delivery is not None:
            await delivery.stop(LEAVE_S)

    async def _ended(self, delivery: Delivery, reason: str) -> None:
        """Its target or its purpose is gone: remember that, so that it is not set to work again. Where it is the
        dispatcher that cannot go on, the webhook can, once that is mended."""
        async with self._changing:
            place = delivery.webhook.place
            if self._at_work.get(place) is not delivery or self._host.engine.failed.done():
                return
            log.warning("webhook %s of %r on topic %r has ended: %s", *reversed(place), reason)
            with suppress(SolarWindError):  # then it ends again after the next start, or another server said so
                await self._remember(msgspec.structs.replace(delivery.webhook, ended=reason))
            await self._end(place)

    async def _remember(self, webhook: Webhook) -> None:
        """In place of the one that is known here. Raises `ConflictError` where another server has put another."""
        place, value = webhook.place, msgspec.json.encode(webhook)
        before = self._numbers.get(place, 0) if place in self._known else 0
        definition = await self._definitions.put(_KIND, _key(place), value, before=before)
        self._known[place], self._numbers[place] = webhook, definition.number

    def _shown(self, webhook: Webhook) -> dict[str, Any]:
        wanted, reason = webhook.wanted, webhook.ended or self._refused.get(webhook.place)
        state = "ended" if webhook.ended else "refused" if reason else "live"
        delivery = self._at_work.get(webhook.place)
        failing = delivery.failing if delivery is not None and state == "live" else None
        if failing is not None:
            state, reason = "failing", failing.error
        shown: dict[str, Any] = {
            "topic": webhook.topic,
            "purpose": webhook.purpose,
            "name": webhook.name,
            "state": state,
            "reason": reason,
            "failing_since": failing.since.isoformat() if failing is not None else None,
            "owner": webhook.owner_name or None,
            **msgspec.to_builtins(wanted),
            "url": read_url(wanted.url).shown,
            "rate": webhook.rate,
        }
        del shown["secret"], shown["token"]
        return shown

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.spawn(work, "the end or the beginning of a webhook")


def _host(of: Webhook | Wanted) -> tuple[str, str]:
    url = read_url(of.wanted.url if isinstance(of, Webhook) else of.url)
    return url.scheme, url.authority


def _read_wanted(body: bytes, max_nesting: int) -> Wanted:
    try:
        check_json(body, max_nesting)
    except BadPayload:
        # Nothing of it is shown, for a secret may be in it.
        raise BadPayload('expected a JSON object such as {"url": "https://example.com/hook"}, got no JSON') from None
    wanted = read_body(body, Wanted)
    wanted.check()
    return wanted


def _place(topic: str, purpose: str, name: str) -> Place:
    check_topic(topic)
    check_purpose(purpose)
    if not _NAME.fullmatch(name) or len(name) > _MAX_CHARACTERS:
        raise BadName(
            f"expected a webhook's name of 1 to {_MAX_CHARACTERS} characters, words of A-Z a-z 0-9 _ - joined by "
            f"single dots, got {name[:80]!a}"
        )
    return topic, purpose, name


def _not_found(place: Place) -> SolarWindError:
    topic, purpose, name = place
    return NotFound(f"expected a webhook of {purpose!r} on topic {topic!r}, got {name!r}, which is none")


def _secrets(text: str | None, before: Webhook | None) -> tuple[Secret, ...]:
    """The newest first; the one before it signs for a while too, so that the receiver has time to learn the new one."""
    known = before.secrets if before is not None else ()
    if text is None or (known and known[0].text == text):
        return known
    former = tuple(msgspec.structs.replace(each, until=time() + OVERLAP_S) for each in known[:1])
    return (Secret(text), *former)


# Where they are remembered -------------------------------------------------------------------------------


def _key(place: Place) -> str:
    return msgspec.json.encode(place).decode()


def _read(definition: Definition) -> tuple[Place, Webhook | None]:
    """Raises `StoreError`."""
    try:
        place = msgspec.json.decode(definition.name, type=Place)
        value = definition.value
        return place, msgspec.json.decode(value, type=Webhook) if value is not None else None
    except msgspec.MsgspecError:
        raise StoreError(
            f"expected a webhook in the store, got {definition.name[:200]!a}, which is not what was written: use the "
            "version of Solar Wind that wrote it"
        ) from None
