"""Questions to NATS on one connection, and the answers to them: a subscription for all, and no task for any.

nats-py's own `request` takes a task to wait in. This calls back, in the turn of the loop in which the answer comes: so
whoever publishes one message after another does not wait for turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

import nats.errors
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

Answered = Callable[[Msg | None], None]
MOST_PENDING = 4 << 20  # bytes that nats-py holds and has not written; then whoever has more waits
QUIET_S = 0.25  # without a message of a page; after as many as `MOST_QUIET` it is given up
MOST_QUIET = 4
_NO_RESPONDERS = "503"


class Requests:
    """Of one connection. An answer of None is none: it took too long, or the connection is gone."""

    def __init__(self, client: Nats) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._numbers = count()
        self._waiting: dict[str, tuple[Answered, float]] = {}
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        await self._client.subscribe(f"{self._inbox}.*", cb=self._came, pending_bytes_limit=0)

    @property
    def has_room(self) -> bool:
        """Whether a message is taken at once."""
        return self._client.is_connected and self._client.pending_data_size < MOST_PENDING

    def post(
        self, subject: str, data: bytes, headers: dict[str, str] | None, wait_s: float, answered: Answered
    ) -> None:
        """Send it in this turn of the loop; where there `has_room`. `answered` is called once, later."""
        reply = self._expect(wait_s, answered)
        sending = self._client.publish(subject, data, reply, headers)
        try:
            sending.send(None)  # with room it comes to its end without waiting
        except StopIteration:
            return
        except (nats.errors.Error, OSError):
            pass
        sending.close()
        self._loop.call_soon(self._answer, reply, None)

    async def ask(self, subject: str, data: bytes, headers: dict[str, str] | None, wait_s: float) -> Msg | None:
        """Send it, and wait for the answer."""
        future: asyncio.Future[Msg | None] = self._loop.create_future()

        def answered(message: Msg | None) -> None:
            if not future.done():
                future.set_result(message)

        if self.has_room:
            self.post(subject, data, headers, wait_s, answered)
        else:
            reply = self._expect(wait_s, answered)
            try:
                await self._client.publish(subject, data, reply, headers)
            except (nats.errors.Error, OSError):
                self._answer(reply, None)
        try:
            async with asyncio.timeout(wait_s):
                return await future
        except TimeoutError:
            return None

    def _expect(self, wait_s: float, answered: Answered) -> str:
        reply = f"{self._inbox}.{next(self._numbers):x}"
        self._waiting[reply] = (answered, self._loop.time() + wait_s)
        return reply

    async def _came(self, message: Msg) -> None:
        self._answer(message.subject, message)

    def _answer(self, reply: str, message: Msg | None) -> None:
        found = self._waiting.pop(reply, None)
        if found is not None:
            found[0](message)

    def expire(self) -> None:
        """Called now and then: give up what took too long."""
        now = self._loop.time()
        for reply in [reply for reply, (_, until) in self._waiting.items() if until < now]:
            self._answer(reply, None)

    def end(self) -> None:
        """The connection is gone: nothing will be answered."""
        for reply in list(self._waiting):
            self._answer(reply, None)


def nobody(message: Msg) -> bool:
    """Whether it is NATS that answers: nobody listens there."""
    return not message.data and (message.headers or {}).get("Status") == _NO_RESPONDERS


# Pages ----------------------------------------------------------------------------------------------------------


class _Page:
    """An answer that is several messages, and a last one without data that has a status."""

    def __init__(self) -> None:
        self.messages: list[Msg] = []
        self.status: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._subscription: Subscription | None = None

    async def ask(self, client: Nats, subject: str, data: bytes) -> None:
        inbox = client.new_inbox()
        self._subscription = await client.subscribe(inbox, cb=self._came, pending_bytes_limit=0)
        await client.publish(subject, data, reply=inbox)

    async def _came(self, message: Msg) -> None:
        headers = message.headers or {}
        status = headers.get("Status")
        if status is None:
            self.messages.append(message)
        elif not self.status.done():
            self.status.set_result(f"{status} {headers.get('Description', '')}")

    async def end(self) -> None:
        try:
            if self._subscription is not None:
                await self._subscription.unsubscribe()
        except (nats.errors.Error, OSError):
            pass  # it is gone with the connection


async def ask_for_page(client: Nats, subject: str, data: bytes) -> tuple[str, list[Msg]]:
    """The status, and the messages. NATS passes the question to any server that has the answer, and does not know if
    that one hangs: so while nothing comes it is asked again. Raises `TimeoutError`, and what nats-py raises."""
    asked: list[_Page] = []
    came, quiet = -1, 0
    try:
        while quiet < MOST_QUIET:
            before, came = came, sum(len(page.messages) for page in asked)
            quiet = quiet + 1 if came == before else 0
            if not came:
                asked.append(_Page())
                await asked[-1].ask(client, subject, data)
            await asyncio.wait([page.status for page in asked], timeout=QUIET_S, return_when=asyncio.FIRST_COMPLETED)
            for page in asked:
                if page.status.done():
                    return page.status.result(), page.messages
        raise TimeoutError
    finally:
        for page in asked:
            await page.end()
