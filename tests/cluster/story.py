"""What befalls a cluster and those who use it: the processes, what is done to them, and what became of the events."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from itertools import pairwise
from math import inf
from pathlib import Path
from time import monotonic, time_ns
from typing import NamedTuple

import nats
import nats.errors

from notes import Notes
from solarwind import Event, SolarWind
from solarwind.batch import seal
from solarwind.cluster.address import NamespaceSettings
from solarwind.cluster.layout import Layout
from solarwind.engine.tasks import end_tasks

from .lives import CHILDREN, STREAMS, TOPICS
from .place import new_namespace
from .servers import NatsCluster, NatsServer, holds_within

TESTS = Path(__file__).parents[1]
PRODUCERS = ("one", "two")
SERVICES = ("left", "middle", "right")
WORK = (
    *((purpose, topic) for topic in TOPICS for purpose in ("direct", "keyed", "chain", "confirmed")),
    ("child", CHILDREN),
)
AT_WORK_S = 60.0
PROBE_S = 0.1  # between two messages of the probe
BLOCKED_S = 0.7  # without an answer to any of its messages
TICK = os.sysconf("SC_CLK_TCK")


class Note(NamedTuple):
    """A line that a service wrote."""

    time: float
    verb: str
    purpose: str
    topic: str
    producer: str
    number: int
    service: str


class Life:
    """A process of `lives.py`, which may be begun again and again. What all of them noted is in one file."""

    def __init__(self, mode: str, url: str, folder: Path, name: str) -> None:
        self.name = name
        self.mode = mode
        notes = folder / f"{name}.notes"
        self._command = [sys.executable, "-m", "cluster.lives", mode, url, str(notes), name]
        notes.touch()
        self._notes = Notes(notes)
        self._errors = folder / f"{name}.errors"
        self._process: subprocess.Popen[bytes] | None = None
        self.begin()

    def begin(self) -> None:
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(self._command, cwd=TESTS, stderr=errors)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def lines(self) -> list[str]:
        """All whole lines so far."""
        return self._notes.lines

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def check(self) -> None:
        assert self._process is None or self._process.poll() is None, f"{self.name} has ended: {self.errors[-4000:]}"

    def cpu_s(self) -> float:
        """Return what it has used of a processor so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def end(self) -> None:
        """End it by a signal, as services end."""
        process = self._process
        assert process is not None
        self.send(signal.SIGTERM)
        await holds_within(30, lambda: process.poll() is not None, lambda: f"{self.name} to end; {self.errors[-4000:]}")
        assert process.returncode == 0, self.errors


class Probe:
    """Plain nats-py beside it: a message to each stream of the namespace now and then, by way of each node. A stream
    takes messages while one of the nodes gets an answer."""

    def __init__(self, cluster: NatsCluster, layout: Layout) -> None:
        self._cluster = cluster
        self._layout = layout
        topics = {layout.partition(f"probe-{number}"): f"probe-{number}" for number in range(100)}
        self._topics = [topics[partition] for partition in range(STREAMS)]
        self.acks: dict[str, list[float]] = {"state": [], "bucket": [], **{topic: [] for topic in self._topics}}
        self._first = 0

    def _message(self, stream: str) -> tuple[str, bytes]:
        if stream == "state":
            return self._layout.log(STREAMS, "probe"), b""
        if stream == "bucket":
            return self._layout.key("probe"), b""
        self._first += 1
        batch = seal(stream, [b"1"], [time_ns()], producer=1, first=self._first, machine="m", process="p")
        return self._layout.event_subject(batch, "direct", "probe"), batch.data

    def blocked(self, topic: str) -> list[tuple[float, float]]:
        """Return the times at which NATS did not take messages that are needed to handle its events."""
        needed = ["state", self._topics[self._layout.partition(topic)]]
        if topic == CHILDREN:
            needed += self._topics
        return [gap for stream in needed for gap in _gaps(sorted(self.acks[stream]), BLOCKED_S)]

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._ask(node)) for node in self._cluster]
        try:
            yield
        finally:
            await end_tasks(tasks)

    async def _ask(self, node: NatsServer) -> None:
        options = {
            "allow_reconnect": False,
            "connect_timeout": 1,
            "max_reconnect_attempts": 1,
            "error_cb": _passed_over,
        }
        while True:
            with suppress(nats.errors.Error, OSError, TimeoutError):
                client = await nats.connect(node.url(), **options)
                try:
                    await asyncio.gather(*(self._ask_for(client, stream) for stream in self.acks))
                finally:
                    await asyncio.wait_for(client.close(), 1)
            await asyncio.sleep(PROBE_S)

    async def _ask_for(self, client: nats.aio.client.Client, stream: str) -> None:
        while not client.is_closed:
            with suppress(TimeoutError, nats.errors.TimeoutError, nats.errors.NoRespondersError):
                subject, data = self._message(stream)
                answer = await client.request(subject, data, timeout=1)
                if "error" not in json.loads(answer.data):
                    self.acks[stream].append(monotonic())
            await asyncio.sleep(PROBE_S)


async def _passed_over(_: Exception) -> None:
    """Note a message that was skipped, which the next one shows."""


class Pause(NamedTuple):
    """Nothing was handled by a service for a purpose from `start` to `end`, and it could from `able` to `until`."""

    start: float
    end: float
    able: float
    until: float
    who: str

    @property
    def own(self) -> float:
        return self.until - self.able


class Story:
    """A cluster, who uses it, and what is done to them."""

    def __init__(self, cluster: NatsCluster, folder: Path) -> None:
        self.cluster = cluster
        self.namespace = new_namespace()
        self.url = cluster.url(self.namespace, replicas=3, streams=STREAMS)
        self.folder = folder
        self.lives: list[Life] = []
        self.services: dict[str, Life] = {}
        self.producers: dict[str, Life] = {}
        self.generation = 0
        self.layout = Layout(self.namespace, NamespaceSettings(streams=STREAMS))
        self.probe = Probe(cluster, self.layout)
        self.excuses: list[tuple[str, float, float]] = []  # a service could not handle between these times
        self.faults: list[tuple[float, str]] = []
        self.busy: list[tuple[str, float]] = []  # a process, and its share of a processor when nothing could be done

    # Life ---------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def told(self) -> AsyncIterator[None]:
        """Note the fault while it goes on."""
        try:
            for name in SERVICES:
                self.services[name] = Life("serve", self.url, self.folder, name)
            for name in PRODUCERS:
                self._produce(name)
            await self.are_at_work(0.0)
            self.begun = monotonic()
            async with self.probe.at_work():
                yield
        finally:
            for life in self.all():
                life.kill()

    def _produce(self, name: str) -> None:
        self.generation += 1
        if name in self.producers:
            self.lives.append(self.producers[name])
        self.producers[name] = Life("produce", self.url, self.folder, f"{name}-{self.generation}")

    def all(self) -> list[Life]:
        return [*self.services.values(), *self.producers.values(), *self.lives]

    def fault(self, what: str) -> None:
        self.faults.append((monotonic(), what))

    def kill(self, name: str) -> None:
        """Kill a process, and start it again."""
        self.fault(f"kill {name}")
        start = monotonic()
        if name in self.services:
            self.services[name].kill()
            self.services[name].begin()
            self.excuses.append((name, start, monotonic() + START_S))
        else:
            self.producers[name].kill()
            self._produce(name)

    async def cluster_ready(self) -> None:
        await asyncio.gather(*(node.ready() for node in self.cluster))

    async def idle(self, seconds: float) -> None:
        """Check that nobody is busy for so long while nothing can be done."""
        await asyncio.sleep(1.0)
        lives = [*self.services.values(), *self.producers.values()]
        before = {life: life.cpu_s() for life in lives}
        await asyncio.sleep(seconds)
        self.busy += [(life.name, (life.cpu_s() - before[life]) / seconds) for life in lives]

    async def owner(self, topic: str) -> str:
        """Return the name of the service that owns a topic's partition."""
        layout = self.layout
        found: list[str] = []

        async def ask() -> bool:
            client = await nats.connect(self.cluster.urls, allow_reconnect=False, connect_timeout=1)
            try:
                record = await client.jetstream().get_last_msg(
                    layout.bucket_stream, layout.key(f"owner.{layout.partition(topic)}")
                )
            finally:
                await client.close()
            name = json.loads(record.data or b"{}").get("name", "")
            found[:] = [life.name for life in self.services.values() if name.endswith(f":{life.pid}")]
            return bool(found)

        await holds_within(10, ask, lambda: f"an owner of {topic}")
        return found[0]

    # Work ---------------------------------------------------------------------------------------------

    def notes(self) -> list[Note]:
        found = []
        for life in self.services.values():
            for line in life.lines:
                verb, purpose, topic, producer, number, time = line.split()
                found.append(Note(float(time), verb, purpose, topic, producer, int(number), life.name))
        return sorted(found)

    async def are_at_work(self, since: float) -> None:
        """Wait until each service has handled for each purpose, and each producer's events are accepted."""
        missing = {(life.name, *work) for life in self.services.values() for work in WORK}
        missing |= {(life.name, "accepted", topic) for life in self.producers.values() for topic in TOPICS}
        lives = [*self.services.values(), *self.producers.values()]
        seen = dict.fromkeys(lives, 0)

        def look() -> bool:
            for life in lives:
                life.check()
                for line in life.lines[seen[life] :]:
                    words = line.split()
                    if float(words[-1]) > since and words[0] != "confirmed":
                        what = words[:2] if words[0] == "accepted" else words[1:3]
                        missing.discard((life.name, *what))
                seen[life] = len(life.lines)
            return not missing

        try:
            await holds_within(AT_WORK_S, look, lambda: f"all to work; did not: {sorted(missing)}")
        except TimeoutError as error:
            said = "\n".join(f"{life.name} said: {life.errors[-3000:]}" for life in lives)
            raise AssertionError(f"{error}\n{said}") from None

    # What became of it --------------------------------------------------------------------------------

    async def end(self) -> dict[str, list[tuple[str, int]]]:
        """Let all that was fired be handled. Gives what is stored on each topic: producers and numbers."""
        self.over = monotonic()
        for life in self.producers.values():
            await life.end()
        async with SolarWind(self.url) as wind:

            async def is_settled() -> bool:
                found = await wind.statistics()
                events = {topic: each.fired for topic, each in found.topics.items()}
                self.left = f"{found}"
                idle = all(each.pending + each.in_flight == 0 for each in found.purposes.values())
                return idle and events[CHILDREN] == sum(events[topic] for topic in TOPICS)

            await holds_within(60, is_settled, lambda: f"all to be settled, and have its child: {self.left}")
            self.statistics = await wind.statistics()
        stored: dict[str, list[tuple[str, int]]] = {topic: [] for topic in (*TOPICS, CHILDREN)}
        for life in self.services.values():
            await life.end()
        wind = SolarWind(self.url)

        async def note(events: list[Event]) -> None:
            for event in events:
                stored[event.topic].append(tuple(event.payload))

        for topic in stored:
            wind.on(topic, purpose="all", since="beginning")(note)
        async with wind:
            await wind.settled(60)
        return stored

    def accepted(self, topic: str) -> dict[str, int]:
        found = {}
        for life in self.all():
            if life.mode == "produce":
                for line in life.lines:
                    words = line.split()
                    if words[1] == topic:
                        found[life.name] = int(words[2])
        return found

    def accepted_at(self, event: tuple[str, str, int]) -> float:
        """Return the time at or before which it was accepted."""
        topic, name, number = event
        life = next(each for each in self.all() if each.name == name)
        accepted = (line.split() for line in life.lines)
        return next((float(time) for _, of, stop, time in accepted if of == topic and int(stop) > number), inf)

    def stood_still(self, service: str, since: float, until: float) -> float | None:
        """Return from when on it stood still, if it did between these times."""
        return next((low for name, low, high in self.excuses if name == service and low < until and high > since), None)

    def pauses(self, least: float) -> list[Pause]:
        """Return the times at which a service handled nothing for a purpose for so many seconds, beginning with the
        first fault."""
        times: dict[tuple[str, str, str], list[float]] = {}
        for note in self.notes():
            if note.verb == "handled" and self.begun - 1 < note.time < self.over:
                times.setdefault((note.service, note.purpose, note.topic), []).append(note.time)
        found = []
        for who, when in times.items():
            for start, end in _gaps([*when, self.over], least):
                excuses = [*self.probe.blocked(who[2]), *(each[1:] for each in self.excuses if each[0] == who[0])]
                for able, until in _between(start, end, excuses):
                    found.append(Pause(start, end, able, until, " ".join(who)))
        return sorted(found, key=lambda each: -each.own)

    def own_after_faults(self) -> list[float]:
        """Return for each fault how long at most a service handled nothing after it, though NATS let it."""
        times = [time for time, _ in self.faults]
        pauses = self.pauses(0.5)
        spans = pairwise([*times, inf])
        return [max((each.own for each in pauses if low - 1 < each.able < high), default=0.0) for low, high in spans]

    def show(self, kind: str) -> None:
        """Print it for people."""
        began = self.faults[0][0]
        at = datetime.now() - timedelta(seconds=monotonic() - began)
        stored = sum(each.fired for each in self.statistics.topics.values())
        print(f"\n{kind}, from {at:%H:%M:%S} on for {self.over - began:.0f} s: {stored:,} events")
        print("  faults:", *(f"{what} at {time - began:.1f};" for time, what in self.faults))
        for stream, acks in self.probe.acks.items():
            gaps = " ".join(f"{a - began:.1f}-{b - began:.1f}" for a, b in _gaps(sorted(acks), BLOCKED_S))
            print(f"  NATS alone took nothing for {stream}: {gaps or 'never'}")
        print(
            "  after each fault nothing handled for, by what is not NATS's:",
            *(f"{s:.1f}" for s in self.own_after_faults()),
        )
        for pause in self.pauses(1.0)[:3]:
            able = f"free to from {pause.able - began:.1f} to {pause.until - began:.1f}"
            print(
                f"  such as {pause.own:.1f} s of {pause.start - began:.1f}-{pause.end - began:.1f}, {able}: {pause.who}"
            )
        if self.busy:
            print(
                "  of a processor while nothing could be done:", *(f"{name} {share:.1%}" for name, share in self.busy)
            )
        print("  lines logged:", *(f"{life.name} {len(life.errors.splitlines())}" for life in self.all()))
        for text, count in self.logged().most_common(5):
            print(f"    {count:4d} {text[:150]}")

    def logged(self) -> Counter[str]:
        """Return how often what was logged, by all; numbers and names left out."""
        return Counter(
            re.sub(r"\d+|[0-9a-f]{8,}", "#", line.split(" ", 2)[2])
            for life in self.all()
            for line in life.errors.splitlines()
            if line[:2] == "20"
        )


START_S = 2.0  # that a service may need to be there


def _between(start: float, end: float, excuses: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return what is left of a time without these."""
    left = []
    for since, until in sorted(excuses):
        if since > start and until > start:
            left.append((start, min(since, end)))
        start = max(start, until)
        if start >= end:
            return [each for each in left if each[0] < each[1]]
    return [each for each in (*left, (start, end)) if each[0] < each[1]]


def _gaps(times: Iterable[float], least: float) -> list[tuple[float, float]]:
    return [(one, two) for one, two in pairwise(times) if two - one > least]
