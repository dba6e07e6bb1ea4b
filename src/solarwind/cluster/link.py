"""A connection of `solarwind.v1` over NATS subjects, or in memory where the owner is in the same process.

NATS drops what a reader does not read fast enough, and does not tell the sender. So frames are numbered, and a missing
one ends the connection; and a sender has at most `WINDOW` bytes on the way that the reader has not credited yet. A
message that is larger than NATS accepts goes in several frames.

Where the other end has gone, each end learns it by the next frame that it sends: NATS reports it, or the owner's
process does, if it has ended the connection.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections import deque
from collections.abc import Callable
from uuid import uuid4

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from ..engine.tasks import Tasks
from ..errors import Unavailable
from ..peer.connection import Connection
from ..peer.transport import Transport
from ..wire import read_server
from .channel import nobody
from .layout import Layout
from .session import NoAnswer, Nobody, Session

WINDOW = 16 << 20
CREDIT = 1 << 20  # bytes that were read, after which the sender is told
MAX_RECENT, MAX_RECENT_BYTES = 256, 4 << 20  # messages that may turn out to have reached nobody
OPEN_S = 2.0
AWAY_S = 1.5  # that a client which NATS does not find has to come again: then it has died
_HEAD = struct.Struct("<BI")  # kind, number
Connected = Callable[[Transport], Connection]  # makes the owner's end of a connection
_WHOLE, _PART, _CREDITED, _END = range(4)
ENDED = _HEAD.pack(_END, 0) + b"its owner has ended it"  # the answer to a frame of a connection that is no more


class Frames:
    """One end of a connection: it numbers the frames that it sends to a subject, and joins the messages that it
    receives."""

    def __init__(
        self,
        session: Session,
        subject: str,
        received: Callable[[bytes], None],
        over: Callable[[str], None],
        reply: str,
        *,
        keeps: bool = False,
    ) -> None:
        """NATS says at `reply` that a frame reached nobody. Where this end `keeps` what it sent last, see
        `undelivered`, the frame's number is part of that subject."""
        self._session = session
        self._subject = subject
        self._reply = reply
        self._keeps = keeps
        self._recent: deque[tuple[int, bytes]] = deque()  # messages that were sent last, by their last frames
        self._recent_bytes = 0
        self._received = received
        self._over = over
        self._ended = False
        self._out: deque[tuple[int, bytes, bytes]] = deque()  # kind, what is in it, and the message that it ends
        self._sent = 0  # frames
        self._came = 0
        self._unread = 0  # bytes that the other end has not credited
        self._uncredited = 0  # bytes that came, and the other end was not told
        self._paused = False
        self._parts: list[bytes] = []
        self._wake = asyncio.Event()
        self._tasks = Tasks(lambda error: self.end(str(error)))
        self._tasks.begin(self._write(), "what is sent over a link")
        session.lost.append(self._session_lost)

    def send(self, data: bytes) -> None:
        whole = data
        max_bytes = self._session.max_payload - _HEAD.size if self._session.is_up else len(data)
        while len(data) > max_bytes:
            self._out.append((_PART, data[:max_bytes], b""))
            data = data[max_bytes:]
        self._out.append((_WHOLE, data, whole))
        self._wake.set()

    def undelivered(self, number: int) -> list[bytes]:
        """Return the messages that reached nobody, as the frame of that number did not, and those that wait."""
        found = [whole for last, whole in self._recent if last >= number]
        found += [whole for _, _, whole in self._out if whole]
        self._recent.clear()
        self._recent_bytes = 0
        self._out.clear()
        return found

    @property
    def waiting(self) -> int:
        """How many frames are not sent yet."""
        return len(self._out)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._credit()

    def say(self, reason: str) -> None:
        """Send the last frame, which says why the connection ends."""
        self._out.append((_END, reason.encode(), b""))
        self._wake.set()

    def last(self, reason: str) -> bytes:
        """Return that frame, to be sent another way."""
        return _HEAD.pack(_END, self._sent & 0xFFFFFFFF) + reason.encode()

    def end(self, why: str) -> None:
        """Close this end of the connection."""
        if not self._ended:
            self._ended = True
            if self._session_lost in self._session.lost:
                self._session.lost.remove(self._session_lost)
            self._wake.set()
            self._over(why)

    def _session_lost(self) -> None:
        self._out.clear()
        self.end("the connection to NATS was lost")

    # Out ----------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Send all frames, also those that were there before the end."""
        while self._out or not self._ended:
            if not self._out or (self._unread > WINDOW and not self._ended):
                self._wake.clear()
                await self._wake.wait()
                continue
            kind, data, whole = self._out.popleft()
            self._unread += len(data)
            if whole and self._keeps:
                self._keep(whole)
            await self._put(kind, data)
            if not self._out:
                self.drained()

    def _keep(self, whole: bytes) -> None:
        self._recent.append((self._sent, whole))
        self._recent_bytes += len(whole)
        while len(self._recent) > MAX_RECENT or self._recent_bytes > MAX_RECENT_BYTES:
            self._recent_bytes -= len(self._recent.popleft()[1])

    def drained(self) -> None:
        """Note that all frames are sent."""

    async def sent(self, wait_s: float) -> None:
        """Wait until all frames are sent, for `wait_s` seconds at most."""
        await self._tasks.wait(wait_s)

    async def _put(self, kind: int, data: bytes) -> None:
        number, self._sent = self._sent, self._sent + 1
        frame = _HEAD.pack(kind, number & 0xFFFFFFFF) + data
        try:
            await self._session.tell(self._subject, frame, f"{self._reply}.{number}" if self._keeps else self._reply)
        except NoAnswer as error:
            self._out.clear()
            self.end(f"NATS took nothing more ({error})")

    # In -----------------------------------------------------------------------------------------------

    async def receive(self, message: Msg) -> None:
        """Read a frame."""
        if self._ended:
            return
        data = message.data
        if len(data) < _HEAD.size:
            self.end("an invalid frame came")
            return
        kind, number = _HEAD.unpack_from(data)
        if kind == _END:
            self.end(data[_HEAD.size :].decode(errors="replace"))
            return
        if number != self._came & 0xFFFFFFFF:
            self.end("something on the way was lost")
            return
        self._came += 1
        if kind == _CREDITED:
            self._unread -= int.from_bytes(data[_HEAD.size :], "little")
            self._wake.set()
            return
        self._uncredited += len(data) - _HEAD.size
        if kind == _PART:
            self._parts.append(data[_HEAD.size :])
        else:
            whole = data[_HEAD.size :]
            if self._parts:
                whole = b"".join((*self._parts, whole))
                self._parts.clear()
            self._received(whole)
        if self._uncredited > CREDIT and not self._paused:
            self._credit()

    def _credit(self) -> None:
        credit, self._uncredited = self._uncredited, 0
        if credit and not self._ended:
            self._out.appendleft((_CREDITED, credit.to_bytes(8, "little"), b""))
            self._unread -= 8
            self._wake.set()


# The client's end -----------------------------------------------------------------------------------------------


class NatsLink:
    """See `Link` in `engine.base`. Open it, and check it before it is used."""

    def __init__(
        self,
        session: Session,
        layout: Layout,
        node: str,
        received: Callable[[bytes], None],
        lost: Callable[[str], None],
        vanished: Callable[[str], None],
    ) -> None:
        """`vanished` is called with the node at the other end when NATS finds nobody there."""
        self.silent = 0
        self._session = session
        self._received = received
        self._lost = lost
        self._vanished = vanished
        self._ended = ""  # why
        self._is_used = False
        self._subscription: Subscription | None = None
        self.node = node
        self.name = uuid4().hex  # what the other end knows it by
        self._inbox = layout.live(f"client.{self.name}")
        self._door = layout.live(f"node.{node}.open")
        self._frames = Frames(
            session, layout.live(f"node.{node}.{self.name}"), self._message, self._over, reply=self._inbox
        )

    async def open(self, partition: int, after: str) -> None:
        """Ask the owner to read and write there. `after` is the name of the link before, which this one replaces. Raise
        `Unavailable`."""
        asked = {"partition": partition, "name": self.name, "after": after}
        try:
            self._subscription = await self._session.subscribe(self._inbox, self._receive)
            answer = await self._session.ask(self._door, json.dumps(asked).encode(), wait=OPEN_S)
            refusal = json.loads(answer.data).get("refused")
            if refusal:
                raise Unavailable(str(refusal))
        except NoAnswer as error:
            self.abort("it could not be opened")
            if isinstance(error, Nobody):
                self._vanished(self.node)
            raise Unavailable(f"expected the owner of partition {partition} to answer: {error}") from None
        except BaseException:
            self.abort("it was given up")
            raise

    def check(self) -> None:
        """Use it from now on. Raise `Unavailable` if it has ended: the owner may have gone right after its answer."""
        if self._ended:
            raise Unavailable(f"expected the owner of the partition to stay, but {self._ended}")
        self._is_used = True

    async def _receive(self, message: Msg) -> None:
        self.silent = 0
        if nobody(message):
            self.abort("its process is gone")
            self._vanished(self.node)
        else:
            await self._frames.receive(message)

    def _message(self, data: bytes) -> None:
        self._received(data)

    def _over(self, why: str) -> None:
        self._ended = why
        self._session.spawn(self._unsubscribe(), "the end of a link")
        if self._is_used:
            self._lost(why)

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._session.unsubscribe(subscription)

    def send(self, data: bytes) -> None:
        self._frames.send(data)

    async def close(self) -> None:
        self._is_used = False
        self._frames.say("it was closed")
        self.abort("it was closed")
        await self._frames.sent(1.0)

    def abort(self, why: str) -> None:
        self._frames.end(why)


# The owner's end ------------------------------------------------------------------------------------------------


class NatsTransport:
    """See `Transport` in `peer.connection`."""

    local = False
    uid = None

    def __init__(
        self, session: Session, connected: Connected, subject: str, reply: str, forget: Callable[[], None]
    ) -> None:
        """`subject` is the client's, `reply` is this one's."""
        self._session = session
        self._forget = forget
        self._closed = False
        self._away = False
        self.subject = subject
        self.frames = Frames(session, subject, self._message, self._over, reply, keeps=True)
        self.connection: Connection = connected(self)
        self.frames.drained = self._drained  # type: ignore[method-assign]
        self._stuck = False

    async def receive(self, message: Msg, number: str) -> None:
        """Read a frame of the client's. With a `number`, NATS says that the frame of that number reached nobody."""
        if not number:
            await self.frames.receive(message)
        elif nobody(message) and number.isdecimal() and not self._closed:
            self._reached_nobody(int(number))

    def _reached_nobody(self, number: int) -> None:
        """Send the client nothing more for now: it has died, or lost NATS and connects again. What was sent in vain is
        no attempt."""
        if not self._away:
            self._away = True
            asyncio.get_running_loop().call_later(AWAY_S, self._died)
        undelivered = self.frames.undelivered(number)
        self.connection.unreceived([each for data in undelivered for each in read_server(data)])

    def _died(self) -> None:
        if not self._closed:
            self.abort()
            self.connection.lost(died=True)

    def _message(self, data: bytes) -> None:
        if self._away:  # it is there after all, but has not all that it was sent
            self.close(1012, "something on the way was lost")
            self.connection.lost(died=False)
        else:
            self.connection.received(data)

    def _drained(self) -> None:
        if self._stuck:
            self._stuck = False
            self.connection.unstuck()

    def _over(self, why: str) -> None:
        """End the connection, because the client ended it or a frame was lost: the client need not have died. A client
        that died is silent, which `Connection.check` notices. One that can still be reached is told, or it would wait
        for heartbeats."""
        self._forget()
        if not self._session.is_up:
            self._session.unsaid[self.subject] = self.frames.last(why)
        if not self._closed:
            self._closed = True
            self.connection.lost(died=False)

    def send(self, data: bytes) -> None:
        self.frames.send(data)
        if self.frames.waiting > 8 and not self._stuck:
            self._stuck = True
            self.connection.stuck()

    def pause(self) -> None:
        self.frames.pause()

    def resume(self) -> None:
        self.frames.resume()

    def close(self, code: int, reason: str) -> None:
        self._closed = True
        self.frames.say(reason)
        self.frames.end(reason)

    def abort(self) -> None:
        self._closed = True
        self.frames.end("the client does not answer")

    def replaced(self) -> None:
        """End it: the client has opened another link."""
        self.frames.end("the client came again")

    def authenticated(self) -> None:
        """Do nothing: NATS has authenticated the client."""


# Both ends in one process ---------------------------------------------------------------------------------------


class MemoryLink:
    """See `Link`. A message arrives in a later turn of the loop, so that no callback comes within the caller's own
    call."""

    def __init__(self, connected: Connected, received: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        self.silent = 0
        self._loop = asyncio.get_running_loop()
        self._received = received
        self._lost = lost
        self._over = False
        self._connection = connected(_Back(self))

    def send(self, data: bytes) -> None:
        self._loop.call_soon(self._connection.received, data)

    async def close(self) -> None:
        self._over = True
        self._loop.call_soon(lambda: self._connection.lost(died=False))
        await asyncio.sleep(0)

    def abort(self, why: str) -> None:
        if not self._over:
            self._loop.call_soon(self._connection.lost)
            self.ended(why)

    def ended(self, why: str) -> None:
        if not self._over:
            self._over = True
            self._lost(why)

    def came(self, data: bytes) -> None:
        if not self._over:
            self.silent = 0
            self._received(data)


class _Back:
    """The owner's end of a `MemoryLink`: a `Transport`."""

    local = True
    uid = None

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()

    def send(self, data: bytes) -> None:
        self._loop.call_soon(self._link.came, data)

    def pause(self) -> None:
        """Do nothing: what is not read stays in this process anyway."""

    def resume(self) -> None:
        """See `pause`."""

    def close(self, code: int, reason: str) -> None:
        self._loop.call_soon(self._link.ended, reason)

    def abort(self) -> None:
        self._loop.call_soon(self._link.ended, "it did not answer")

    def authenticated(self) -> None:
        """Do nothing: the client is this process."""
