"""The connection to NATS: it is made, watched and made again. A request on it is answered, or ends with the error that
there was no answer.

nats-py carries the bytes. Its own reconnecting is not used: everything that depends on a connection (consumers, links
to owners) has to be made anew anyway, and a server that was suspended must not hold this process up.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple, TypeVar

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from ..engine.backoff import Backoff
from ..engine.tasks import Tasks
from ..errors import BadArgument, NotAllowed, SolarWindError, StoreError, Unavailable
from ..logs import limited
from .address import Address
from .channel import Channel, OnMessage, nobody
from .channel import NoAnswer as NoAnswer
from .channel import Nobody as Nobody
from .connect import Faults, check_credentials, connect
from .formats import read_headers, read_time

log = logging.getLogger("solarwind")

OLDEST = (2, 12)  # of servers
START_S = 10.0  # that JetStream has to answer at the start
ANSWER_S = 2.0  # that a server has for an answer
AGAIN_S = 0.5  # after which a request that only reads is sent again
_READS = ("INFO", "STREAM.INFO.", "STREAM.MSG.GET.")
DOUBT_S = 0.5  # between two times that another server is asked while this one does not answer
LEADER_S = 0.7  # how long servers have to name the leader
ACTIVE_NS = 2_000_000_000  # since a leader and a replica heard of each other; they do every second
CLOSE_S = 1.0  # that connections have to come to their end in order
HEARTBEAT_S = 1.0  # between two heartbeats of NATS's; two that are missed are the end
EXPECT = "Nats-Expected-Last-Subject-Sequence"  # a header: stored only if the subject's last message is that one

T = TypeVar("T")

WRONG_SEQUENCE = 10071
NO_MESSAGE = 10037
NO_STREAM = 10059
STREAM_EXISTS = 10058
NOT_NOW = (
    *(10008, 10009, 10118),  # no quorum, no leader
    *(10158, 10164),  # the same message, or another of the same subject, is being stored just now
    *(10167, 10176, 10210),  # too much at once, or the leader went in the middle of messages that go together
)
NO_PEERS = 10005  # not now, if it says "peer offline": a server of the cluster is not known yet
FORBIDDEN = 0  # not one of JetStream's
STORE_FAILED = 10077
FULL = (STORE_FAILED, 10047, 10023, 10028)  # more bytes than the stream, the account or the server may have


class Refusal(Exception):
    """JetStream refuses a request."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Raw(msgspec.Struct):
    """A message as it is stored."""

    subject: str
    seq: int
    data: bytes
    headers: dict[str, str]
    time: int  # ns since 1970, by the server


class Identity(NamedTuple):
    """What NATS is known by after a reconnect: a stream, when it was created, and whether servers of a cluster have it,
    which know each other."""

    stream: str
    created: str
    clustered: bool


class Session:
    """The way of one process to NATS. `lost` and `back` are called when the connection goes, and when there is one
    again."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.up = asyncio.Event()
        self.lost: list[Callable[[], None]] = []
        self.back: list[Callable[[], None]] = []
        self.unsaid: dict[str, bytes] = {}  # what is said, by its subject, once there is a connection again
        self.failed: Callable[[SolarWindError], None] = lambda error: None
        self.mark: Identity | None = None
        self.vital: tuple[str, ...] = ()  # streams without which nothing can be done
        self.error: SolarWindError | None = None  # why there will be no connection any more
        self.max_payload = 1 << 20  # the most bytes of a message, its headers included
        self._channel: Channel | None = None
        self._tasks = Tasks(lambda error: self._end(error))
        self._gone = asyncio.Event()
        self._forbidden = ""  # what NATS said last of a subject that this user may not use
        self._closing = Tasks(lambda error: None)  # of connections that are let go
        self.connections = 0  # so far
        self._last_server = ""  # host and port
        self._doubted: Channel | None = None  # other servers are asked about it just now
        self._waits: Counter[str] = Counter()  # the number of waiting callers, by what they wait for
        self.no_answer = "it does not answer"  # why there was no answer the last time

    @property
    def channel(self) -> Channel:
        """The connection. Raise `NoAnswer` if there is none."""
        if self._channel is None:
            raise NoAnswer("there is no connection to NATS")
        return self._channel

    @property
    def is_up(self) -> bool:
        return self._channel is not None

    async def ready(self) -> None:
        """Wait until there is a connection. Raise the reason if there will be none any more."""
        await self.up.wait()
        if self.error is not None:
            raise self.error

    # Life ---------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect. Raise `Unavailable` if there is no server, `NotAllowed` for wrong credentials, and `BadArgument` for
        a server that lacks what is needed."""
        check_credentials(self.address)
        try:
            self._channel = await self._connect()
            await self._check_server()
        except BaseException:
            await self.close()
            raise
        self.up.set()
        self._tasks.begin(self._keep(), "the connection to NATS")

    async def close(self) -> None:
        await self._tasks.end()
        self._forget()
        await self._closing.wait(CLOSE_S)
        await self._closing.end()

    async def _connect(self) -> Channel:
        """Make a connection. Raise what `connect` raises."""
        gone = asyncio.Event()
        client, channel = await connect(
            self.address, self._servers(), Faults(gone.set, self._note_forbidden), self._spawn
        )
        self._gone, self.max_payload, self._version = gone, client.max_payload, client.connected_server_version
        self.connections += 1
        self._last_server = client.connected_url.netloc.rpartition("@")[2] if client.connected_url else ""
        return channel

    def _note_forbidden(self, text: str) -> None:
        self._forbidden = text
        log.error("NATS at %s does not allow it: %s", self.address.shown, text)

    def _servers(self) -> list[str]:
        """Return the servers in a random order, but the last one used at the end."""
        servers = random.sample(self.address.servers, len(self.address.servers))
        last = self._last_server
        return sorted(servers, key=lambda server: server.removeprefix("nats://") == last)

    async def _check_server(self) -> None:
        version = self._version
        if (version.major, version.minor) < OLDEST:
            raise BadArgument(
                f"expected a NATS server of version {'.'.join(map(str, OLDEST))} or newer at {self.address.shown}, "
                f"got {version.major}.{version.minor}.{version.patch}: upgrade it"
            )
        until = asyncio.get_running_loop().time() + START_S
        while asyncio.get_running_loop().time() < until:
            try:
                await self.api("INFO")
                return
            except Refusal as refusal:
                if refusal.code == FORBIDDEN:
                    raise NotAllowed(
                        f"expected a user of NATS at {self.address.shown} who may use JetStream, got {refusal}: "
                        "allow it"
                    ) from None
                if refusal.code != 10008:  # a cluster whose nodes have not found each other yet
                    raise BadArgument(
                        f"expected a NATS account that may use JetStream at {self.address.shown}, got {refusal}: "
                        "enable JetStream for it"
                    ) from None
            except Nobody:
                raise BadArgument(
                    f"expected a NATS server with JetStream at {self.address.shown}, got one without: "
                    "start it with -js, or with `jetstream {}` in its configuration"
                ) from None
            except NoAnswer as error:
                self.no_answer = str(error)
            await asyncio.sleep(0.3)
        raise self.no_quorum()

    async def _keep(self) -> None:
        """Keep a connection that answers."""
        while True:
            try:
                await self._watch()
            except Exception:
                log.exception("the connection to NATS at %s is made anew", self.address.shown)
            self._forget()
            self.up.clear()
            limited.warning("lost NATS", "lost NATS at %s; trying to reach it again", self.address.shown)
            for each in list(self.lost):  # some take themselves out
                each()
            try:
                self._channel = await self._connect_again()
            except SolarWindError as error:
                self._end(error)
                return
            limited.warning("NATS is back", "NATS at %s is back", self.address.shown, ends="no NATS")
            self.up.set()
            for each in list(self.back):
                each()
            unsaid, self.unsaid = self.unsaid, {}
            self._tasks.spawn(self._say(unsaid), "what was left unsaid")

    def _end(self, error: SolarWindError) -> None:
        """End: there will be no connection any more."""
        self.error = error
        self.up.set()
        self.failed(error)

    def _forget(self) -> None:
        """Drop the connection. A server that reads nothing any more delays nothing."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.end()
            self._spawn(channel.close())

    async def _watch(self) -> None:
        """Return once the connection is gone, or NATS missed two heartbeats that this process was awake for."""
        missed = 0
        while missed < 2 and not self._gone.is_set():
            channel = self.channel
            channel.expire()
            if not missed:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await self._gone.wait()
                except TimeoutError:
                    pass
            missed = 0 if await channel.is_heard(HEARTBEAT_S) else missed + 1

    async def _connect_again(self) -> Channel:
        backoff = Backoff()
        while True:
            try:
                self._channel = channel = await self._connect()
                try:
                    await self._check_mark()
                    return channel
                except BaseException:
                    self._forget()
                    raise
            # nats-py trips over servers that are just going or coming
            except (Unavailable, BadArgument, NoAnswer) as error:
                limited.log("no NATS", logging.INFO, "no NATS yet: %s", error)
            await backoff.pause()

    async def _check_mark(self) -> None:
        """Check that this is the same NATS as before. Raise `StoreError` and `NoAnswer`."""
        if self.mark is None or self.mark.clustered:
            return
        stream, created, _ = self.mark
        try:
            if (await self.api(f"STREAM.INFO.{stream}"))["created"] == created:
                return
        except Refusal as refusal:
            if refusal.code != NO_STREAM:
                raise NoAnswer(str(refusal)) from refusal
        raise StoreError(
            f"expected the NATS that it was at {self.address.shown}, got another, which has no such {stream}: name "
            "servers of one cluster"
        )

    async def _say(self, unsaid: dict[str, bytes]) -> None:
        for subject, data in unsaid.items():
            with suppress(NoAnswer):
                await self.tell(subject, data)

    def spawn(self, work: Coroutine[Any, Any, Any], what: str) -> None:
        """Run a task on the connection that nothing depends on; it ends with the session at the latest."""
        self._tasks.spawn(work, what)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        self._closing.spawn(work, "closing a connection to NATS")

    # Requests -----------------------------------------------------------------------------------------

    async def subscribe(self, subject: str, received: OnMessage) -> Subscription:
        """Call `received` with each message to a subject, in order, for as long as the connection lasts. Raise
        `NoAnswer`."""
        return await self.channel.subscribe(subject, received)

    async def unsubscribe(self, subscription: Subscription) -> None:
        if self._channel is not None:
            await self._channel.unsubscribe(subscription)

    async def tell(self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Send what has no answer. Raise `NoAnswer`."""
        await self.channel.tell(subject, data, reply, headers)

    async def answer(self, message: Msg, data: bytes) -> None:
        """Answer a message, if its sender waits and can be reached: else it asks again."""
        if message.reply:
            with suppress(NoAnswer):
                await self.tell(message.reply, data)

    async def flush(self) -> None:
        """Wait until NATS has received all that was sent so far. Raise `NoAnswer`."""
        if not await self.channel.is_heard(ANSWER_S):
            raise NoAnswer("NATS takes nothing")

    async def ask(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str] | None = None,
        wait: float = ANSWER_S,
        *,
        again: float = inf,
    ) -> Msg:
        """Return the answer to a message, which is sent `again` so many seconds later if there is none by then. Raise
        `NoAnswer`."""
        message = await self.channel.ask(subject, data, headers, wait, again)
        if message is None:
            raise NoAnswer(f"no answer from {subject}")
        if nobody(message):
            raise Nobody(f"nobody answers at {subject}")
        return message

    def post(self, subject: str, data: bytes, headers: dict[str, str], answered: Callable[[int | None], None]) -> bool:
        """Publish soon; return False if there is no room for it now. `answered` gets the message's sequence, or None if
        it is not certain that the message is stored."""
        channel = self._channel
        if channel is None or not channel.has_room:
            return False

        def read(message: Msg | None) -> None:
            if message is None:
                self.doubt()
            try:
                answered(_sequence(message) if message is not None and not nobody(message) else None)
            except (NoAnswer, Refusal):
                answered(None)

        channel.post(subject, data, headers, ANSWER_S, read)
        return True

    async def api(self, name: str, body: object = None) -> dict[str, Any]:
        """Return JetStream's answer to a request. One that only reads is sent again while a leader is elected: NATS
        drops it meanwhile. Raise `Refusal` and `NoAnswer`."""
        subject = f"$JS.API.{name}"
        try:
            again = AGAIN_S if name.startswith(_READS) else inf
            message = await self.ask(subject, json.dumps(body or {}).encode(), again=again)
        except NoAnswer as error:
            raise self._why(error, subject) from None
        answer: dict[str, Any] = json.loads(message.data)
        _check(answer)
        return answer

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> int:
        """Store a message and return its sequence. Raise `Refusal` and `NoAnswer`."""
        try:
            return _sequence(await self.ask(subject, data, headers))
        except NoAnswer as error:
            raise self._why(error, subject) from None

    def _why(self, error: NoAnswer, subject: str) -> Exception:
        """Return the reason why there is no answer: NATS reports separately that something is forbidden."""
        self.doubt()
        forbidden = self._forbidden.lower()
        if f'"{subject.lower()}"' in forbidden or "_inbox." in forbidden:
            return Refusal(FORBIDDEN, self._forbidden)
        return error

    def doubt(self) -> None:
        """Find out whether only this server does not answer, because a request was not answered."""
        channel = self._channel
        if len(self.address.servers) > 1 and channel is not None and self._doubted is not channel:
            self._doubted = channel
            self._tasks.spawn(self._ask_others(channel), "a question to other NATS servers")

    async def _ask_others(self, channel: Channel) -> None:
        """Go to another server if this one has lost its cluster, so that it knows no leader that leads. Others may have
        to elect theirs first: so ask them until one of the two knows leaders."""
        try:
            elsewhere = [False] * len(self.vital)
            while channel is self._channel:
                here = await self._leaders()  # asked last, as leaders may be elected meanwhile
                if all(here):
                    break
                better = any(it and not this for it, this in zip(elsewhere, here, strict=True))
                if better and channel is self._channel:
                    log.warning("the NATS server at %s has lost its cluster: going to another", self._last_server)
                    self._gone.set()
                    break
                await asyncio.sleep(DOUBT_S)
                elsewhere = await self._leaders_elsewhere()
        finally:
            if self._doubted is channel:
                self._doubted = None

    async def _leaders(self) -> list[bool]:
        """Return for each vital stream whether this server knows a leader that leads."""
        return await asyncio.gather(*map(self._has_leader, self.vital))

    async def _leaders_elsewhere(self) -> list[bool]:
        """Ask the same of another server."""
        other = Session(self.address)
        other._last_server, other.vital = self._last_server, self.vital
        try:
            other._channel = await other._connect()
            is_other = other._last_server != self._last_server
            return await other._leaders() if is_other else [False] * len(self.vital)
        except SolarWindError:
            return [False] * len(self.vital)
        finally:
            await other.close()

    async def _has_leader(self, stream: str) -> bool:
        """Return whether this server knows a leader of the stream that most of its replicas heard of just now."""
        try:
            message = await self.ask(f"$JS.API.STREAM.INFO.{stream}", b"", wait=LEADER_S)
        except NoAnswer:
            return False
        cluster = json.loads(message.data).get("cluster") or {}
        others = [each.get("active", 0) < ACTIVE_NS for each in cluster.get("replicas") or ()]
        return bool(cluster.get("leader")) and 2 * (sum(others) + 1) > len(others) + 1

    async def publish_together(self, messages: list[tuple[str, bytes, dict[str, str]]]) -> int:
        """Store all of these messages or none, and return the sequence of the last."""
        name = f"{random.getrandbits(64):016x}"
        for number, (subject, data, headers) in enumerate(messages, 1):
            batch = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(number)}
            if number == len(messages):
                return await self.publish(subject, data, headers | batch | {"Nats-Batch-Commit": "1"})
            await self.tell(subject, data, "", headers | batch)
        raise ValueError("expected messages, got none")

    async def last(self, stream: str, subject: str) -> Raw | None:
        """Return the last message of a subject, which may have wildcards, as the stream's leader has it."""
        return await self._from_leader(stream, {"last_by_subj": subject})

    async def next(self, stream: str, subject: str, seq: int) -> Raw | None:
        """Return the first message of a subject from `seq` on, as the stream's leader has it."""
        return await self._from_leader(stream, {"seq": max(1, seq), "next_by_subj": subject})

    async def _from_leader(self, stream: str, request: dict[str, Any]) -> Raw | None:
        try:
            found = (await self.api(f"STREAM.MSG.GET.{stream}", request))["message"]
        except Refusal as refusal:
            if refusal.code == NO_MESSAGE:
                return None
            raise
        headers = read_headers(base64.b64decode(found.get("hdrs", "")))
        data = base64.b64decode(found.get("data", ""))
        return Raw(found["subject"], found["seq"], data, headers, read_time(found["time"]))

    async def get(self, stream: str, request: dict[str, Any]) -> list[Raw]:
        """Return several messages at once, from any replica, which may be behind. Raise `Refusal` and `NoAnswer`."""
        status, messages = await self.channel.page(f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode())
        if status[:3] in ("503", "408"):
            raise NoAnswer(f"stream {stream} answered {status}")
        if status[:3] not in ("204", "404"):
            raise Refusal(int(status[:3]), status)
        _check_whole(stream, messages)
        return [_stored(message) for message in messages]

    async def page(self, stream: str, request: dict[str, Any]) -> list[Raw]:
        """Do what `get` does, but ask the leader for what the replica does not have."""
        found = await self.get(stream, request)
        if not found and "seq" in request:
            raw = await self.next(stream, request["next_by_subj"], request["seq"])
            found = [raw] if raw is not None else []
        return found

    async def last_sequence(self, stream: str) -> int:
        """Return the last sequence of a stream, as its leader has it."""
        return int((await self.api(f"STREAM.INFO.{stream}"))["state"]["last_seq"])

    async def until_answered(self, work: Callable[[], Awaitable[T]], what: str) -> T:
        """Do some work again and again while there is no answer, with one line in the log for all who wait for the
        same."""
        backoff, waits = Backoff(), False
        try:
            while True:
                await self.ready()
                try:
                    result = await work()
                except NoAnswer as error:
                    self.no_answer = str(error)
                    if not waits:
                        waits = True
                        self._waits[what] += 1
                        if self._waits[what] == 1:
                            limited.warning(("waiting", what), "waiting to %s: %s", what, error)
                    await backoff.pause()
                else:
                    if waits and self._waits[what] == 1:
                        limited.warning(
                            ("answers", what), "NATS answers again: went on to %s", what, ends=("waiting", what)
                        )
                    return result
        finally:
            self._waits[what] -= waits

    def no_quorum(self) -> SolarWindError:
        """Return the error for users where JetStream does not answer."""
        return Unavailable(
            f"expected JetStream at {self.address.shown} to answer, but it did not ({self.no_answer}): "
            "are all its servers up, and does its cluster have a quorum?"
        )


def refused(refusal: Refusal, what: str) -> SolarWindError:
    """Return the error for users when JetStream refuses a request."""
    if refusal.code in FULL:
        return StoreError(f"expected room to {what}, NATS has none ({refusal}): give its stream or account more")
    return StoreError(f"NATS refused to {what}: {refusal}")


class _Ack(msgspec.Struct):
    """JetStream's answer to a message."""

    seq: int = 0
    error: dict[str, Any] | None = None


_read_ack = msgspec.json.Decoder(_Ack).decode


def _sequence(message: Msg) -> int:
    """Return the sequence that an answer states. Raise `Refusal` and `NoAnswer`."""
    try:
        ack = _read_ack(message.data)
    except msgspec.MsgspecError:
        raise NoAnswer(f"what answers at {message.subject} is not JetStream") from None
    if ack.error:
        _check({"error": ack.error})
    return ack.seq


def _check_whole(stream: str, messages: list[Msg]) -> None:
    """Check that no message of a page is missing: each names the one before it. One that did not come, as where the way
    between two nodes was cut meanwhile, is not gone: the page has to be asked for again. Raise `NoAnswer`."""
    last = 0
    for message in messages:
        headers = message.headers or {}
        if int(headers.get("Nats-Last-Sequence", last)) != last:
            raise NoAnswer(f"a message of stream {stream} was lost on its way")
        last = int(headers["Nats-Sequence"])


def _stored(message: Msg) -> Raw:
    """Read one message of a page."""
    headers = message.headers or {}
    seq, time = int(headers["Nats-Sequence"]), read_time(headers["Nats-Time-Stamp"])
    return Raw(headers["Nats-Subject"], seq, message.data, headers, time)


def _check(answer: dict[str, Any]) -> None:
    error = answer.get("error")
    if error:
        code, text = int(error.get("err_code", error.get("code", 0))), str(error.get("description"))
        full = code in FULL and (code != STORE_FAILED or any(word in text for word in ("maximum", "no space")))
        offline = code == NO_PEERS and "offline" in text
        if code in NOT_NOW or offline or (error.get("code") == 503 and not full):
            raise NoAnswer(text)
        raise Refusal(code, text)
