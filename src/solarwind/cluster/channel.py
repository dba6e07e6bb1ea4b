"""One connection to NATS: what is sent, the subscriptions, and the requests that wait for an answer.

nats-py carries the bytes, by its public names alone. Its own `request` needs a task to wait in for each request. Here a
request's callback is called in the turn of the loop in which the answer comes, and one task sends what all have to
send: so publishing one message after another waits for no turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from ..engine.tasks import Tasks

Answered = Callable[[Msg | None], None]
OnMessage = Callable[[Msg], Awaitable[None]]
MAX_UNSENT = 4 << 20  # bytes that are not written yet; while there are more, others wait
MUCH_UNSENT = 256 << 10  # bytes that a slow connection may need long to write
QUIET_S = 0.25  # without a message of a page; after as many as `MAX_QUIET` it is given up
MAX_QUIET = 4
FAULTS = (nats.errors.Error, OSError, RuntimeError)  # of a connection that is, or is about to be, gone
_NO_RESPONDERS = "503"


class NoAnswer(Exception):
    """There is no connection, no subscriber, or no answer in time: what was requested may have been done or not."""


class Nobody(NoAnswer):
    """The subject has no subscriber."""


class Channel:
    """All traffic of one connection of nats-py. An answer of None means that none came in time, or that the connection
    is gone. `broken` is called when a task ended unexpectedly."""

    def __init__(self, client: Client, broken: Callable[[], None]) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._numbers = count()
        self._waiting: dict[str, tuple[Answered, float]] = {}
        self._out: deque[tuple[str, bytes, str, dict[str, str] | None]] = deque()  # subject, data, reply, headers
        self._unsent = 0  # bytes of that
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(lambda error: broken())
        self._subscriptions: set[Subscription] = set()

    async def open(self) -> None:
        """Subscribe to the answers, and begin to send. Raise `NoAnswer`."""
        await self.subscribe(f"{self._inbox}.*", self._came)
        self._tasks.begin(self._send(), "what is sent to NATS")

    def end(self) -> None:
        """Send nothing more, because the connection is gone, and end all requests without an answer."""
        self._tasks.cancel()
        self._out.clear()
        for reply in list(self._waiting):
            self._answer(reply, None)

    async def close(self) -> None:
        """Close the connection. A server that reads nothing any more delays this until the kernel gives it up."""
        self.end()
        for subscription in list(self._subscriptions):
            await self.unsubscribe(subscription)
        with suppress(Exception):  # nats-py trips over connections that were never quite made
            await self._client.close()

    # Subscriptions ------------------------------------------------------------------------------------

    def new_inbox(self) -> str:
        """Return a subject that no one else uses."""
        return self._client.new_inbox()

    async def subscribe(self, subject: str, received: OnMessage) -> Subscription:
        """Call `received` with each message to a subject, in order. Raise `NoAnswer`."""
        try:
            subscription = await self._client.subscribe(subject, cb=received, pending_bytes_limit=0)
        except FAULTS as error:
            raise _gone(error) from None
        self._subscriptions.add(subscription)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription, unless it is gone with the connection."""
        self._subscriptions.discard(subscription)
        with suppress(*FAULTS):
            await subscription.unsubscribe()

    # What is sent -------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether a message is accepted at once."""
        return self._client.is_connected and self._client.pending_data_size + self._unsent < MAX_UNSENT

    async def tell(self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Send what has no answer. Raise `NoAnswer`."""
        try:
            await self._client.publish(subject, data, reply, headers)
        except FAULTS as error:
            raise _gone(error) from None

    def post(
        self, subject: str, data: bytes, headers: dict[str, str] | None, wait_s: float, answered: Answered
    ) -> None:
        """Send it soon; call it only while there `has_room`. `answered` is called once, later."""
        self._put(subject, data, self._expect(wait_s, answered), headers)

    async def ask(
        self, subject: str, data: bytes, headers: dict[str, str] | None, wait_s: float, again_s: float
    ) -> Msg | None:
        """Send a message, and return the answer. While there is none the message is sent again each `again_s`."""
        future: asyncio.Future[Msg | None] = self._loop.create_future()
        reply, until = self._expect(wait_s, _into(future)), self._loop.time() + wait_s
        while not future.done() and (left_s := until - self._loop.time()) > 0:
            self._put(subject, data, reply, headers)
            await asyncio.wait([future], timeout=min(again_s, left_s))
        return future.result() if future.done() else None

    async def is_heard(self, wait_s: float) -> bool:
        """Return whether a message to this connection itself comes back: NATS reads, writes and forwards. Where much
        waits to be written it may be late: then it is enough that anything comes."""
        future: asyncio.Future[Msg | None] = self._loop.create_future()
        is_behind, came = self._client.pending_data_size + self._unsent > MUCH_UNSENT, self._client.stats["in_msgs"]
        self._put(self._expect(wait_s, _into(future)), b"", "", None)
        if await _within(future, wait_s) is not None:
            return True
        return is_behind and self._client.stats["in_msgs"] > came

    def _put(self, subject: str, data: bytes, reply: str, headers: dict[str, str] | None) -> None:
        self._out.append((subject, data, reply, headers))
        self._unsent += len(data)
        self._wake.set()

    async def _send(self) -> None:
        """Send what waits, all in one turn of the loop as long as nats-py accepts it."""
        while True:
            while self._out:
                await self._send_one(*self._out.popleft())
            self._wake.clear()
            await self._wake.wait()

    async def _send_one(self, subject: str, data: bytes, reply: str, headers: dict[str, str] | None) -> None:
        self._unsent -= len(data)
        try:
            await self._client.publish(subject, data, reply, headers)
        except FAULTS:
            self._answer(reply or subject, None)

    # Requests -----------------------------------------------------------------------------------------

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
        """Give up the requests whose time is over. Called now and then."""
        now = self._loop.time()
        for reply in [reply for reply, (_, until) in self._waiting.items() if until < now]:
            self._answer(reply, None)

    # Pages --------------------------------------------------------------------------------------------

    async def page(self, subject: str, data: bytes) -> tuple[str, list[Msg]]:
        """Return the status, and the messages. NATS passes the request to any server that has the answer, and does not
        know if that one hangs: so ask again while nothing comes. Raise `NoAnswer`."""
        asked: list[_Page] = []
        came, quiet = -1, 0
        try:
            while quiet < MAX_QUIET:
                before, came = came, sum(len(page.messages) for page in asked)
                quiet = quiet + 1 if came == before else 0
                if not came:
                    asked.append(_Page())
                    await asked[-1].ask(self, subject, data)
                answers = [page.status for page in asked]
                await asyncio.wait(answers, timeout=QUIET_S, return_when=asyncio.FIRST_COMPLETED)
                for page in asked:
                    if page.status.done():
                        return page.status.result(), page.messages
            raise NoAnswer(f"no answer from {subject}")
        finally:
            for page in asked:
                await page.end(self)


class _Page:
    """An answer that is several messages, and a last one without data that has a status."""

    def __init__(self) -> None:
        self.messages: list[Msg] = []
        self.status: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._subscription: Subscription | None = None

    async def ask(self, channel: Channel, subject: str, data: bytes) -> None:
        inbox = channel.new_inbox()
        self._subscription = await channel.subscribe(inbox, self._came)
        await channel.tell(subject, data, inbox)

    async def _came(self, message: Msg) -> None:
        headers = message.headers or {}
        status = headers.get("Status")
        if status is None:
            self.messages.append(message)
        elif not self.status.done():
            self.status.set_result(f"{status} {headers.get('Description', '')}")

    async def end(self, channel: Channel) -> None:
        if self._subscription is not None:
            await channel.unsubscribe(self._subscription)


def nobody(message: Msg) -> bool:
    """Return whether NATS itself answers that the subject has no subscriber."""
    return not message.data and (message.headers or {}).get("Status") == _NO_RESPONDERS


def _gone(error: Exception) -> NoAnswer:
    return NoAnswer(f"no connection to NATS ({type(error).__name__})")


def _into(future: asyncio.Future[Msg | None]) -> Answered:
    def answered(message: Msg | None) -> None:
        if not future.done():
            future.set_result(message)

    return answered


async def _within(future: asyncio.Future[Msg | None], wait_s: float) -> Msg | None:
    try:
        async with asyncio.timeout(wait_s):
            return await future
    except TimeoutError:
        return None
