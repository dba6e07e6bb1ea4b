"""The records that operations return: frozen, and the same from every engine."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

import msgspec

from .event import Event

# The bounds of histograms of times, in seconds: 0.1 ms to 50 minutes.
HISTOGRAM_S: tuple[float, ...] = tuple(count / 10_000 * 10**power for power in range(8) for count in (1, 3))


class TopicStatistics(msgspec.Struct, frozen=True, gc=False):
    """`fired` counts the events accepted since the topic exists, `fired_per_s` is the mean of the last 10 seconds.
    `delayed` events are not among them before they are due; `next_due` is when the next one is, None without any."""

    fired: int
    fired_per_s: float = 0.0
    delayed: int = 0
    next_due: datetime | None = None


class PurposeRates(msgspec.Struct, frozen=True, gc=False):
    """How many events a second, as a mean of the last 10 seconds: `fired` on the topic, and of the purpose `settled`,
    `retried` and made `dead` letters. `recent` has how many it settled in each 10 seconds of the last five minutes, the
    oldest first; nothing where that was none."""

    fired: float = 0.0
    settled: float = 0.0
    retried: float = 0.0
    dead: float = 0.0
    recent: tuple[int, ...] = ()


class Histogram(msgspec.Struct, frozen=True, gc=False):
    """How often something took how long: `counts` of times up to each of `HISTOGRAM_S`, and above the one before; the
    last one is of longer ones. `sum_s` is all of them together."""

    counts: tuple[int, ...]
    sum_s: float

    def quantile(self, part: float) -> float | None:
        """Return about how many seconds at most this part of all took, from 0 to 1; None where there are none. Within
        one of the `counts` they count as spread evenly."""
        left = part * sum(self.counts)
        for bound, before, count in zip(HISTOGRAM_S, (0.0, *HISTOGRAM_S), self.counts, strict=False):
            if count and left <= count:
                return before + (bound - before) * left / count
            left -= count
        return HISTOGRAM_S[-1] if any(self.counts) else None

    def mean(self) -> float | None:
        """Return the mean in seconds; None where there are none."""
        return self.sum_s / sum(self.counts) if any(self.counts) else None


class VersionTimes(msgspec.Struct, frozen=True, gc=False):
    """How long a version's events took, since the dispatcher started: in the `handler`, and from when they were fired,
    or due, until they were `settled`. They are counted for each report of an instance: the time in the handler is a
    mean of the events that it had reported, and the first of them stands for when all were fired."""

    version: int
    handler: Histogram
    settled: Histogram


class PurposeStatistics(msgspec.Struct, frozen=True, gc=False):
    """The numbers of a purpose.

    `pending` events are with no instance, those that wait for a retry included; `in_flight` ones are with one.
    `settled` and `retried` count since the purpose exists; `dead` is the number of dead letters now.

    For a fan-out these count copies since the dispatcher started: `pending` in its instances' buffers, `settled`
    handled, and `dropped` without an instance, from a full buffer, or because the handler raised.

    `expired` counts the events that it did not get because they had expired, since the purpose exists; for a fan-out
    copies.

    `key_missing` counts the events that a keyed purpose found without a key, since the dispatcher started.

    `state` is "paused" until it is resumed; else "nobody up" where events pend for which no instance is at work; else
    "failing" where handlers raised, nothing was settled in the ten seconds before or since, and something is left to do
    or became a dead letter within the last hour; else "running".

    `oldest` is when the oldest event that is not settled was fired, or when it was due: one that pends, waits for a
    retry or is in flight. None where there is none, or where it is not known.

    `delay` is for how many seconds an event waits before the current version gets it, 0 where that states none. So many
    of the `pending` events are `delayed`: they wait for that; for a fan-out these are events, not copies.
    `delayed_until` is when the first of them is handed out, and None where there is none, or where earlier ones are
    still to be.

    `rate` and `at_most` are the limits of the purpose, as the current version states them, such as "100/s" events
    handed out and 4 in flight; None where it states none. It is `limited` while events wait
    for one of them though instances have room.

    `version_states` has the state of each of the `versions`: see `VersionInfo`. `version_joined` has when its first
    instance joined, None where that is not known. `times` has how long their events took, for those that handled any
    since the dispatcher started.
    """

    exchange: str
    versions: tuple[int, ...]
    instances: int
    pending: int
    in_flight: int
    settled: int
    retried: int
    dead: int
    dropped: int
    key_missing: int = 0
    state: Literal["running", "paused", "nobody up", "failing"] = "running"
    oldest: datetime | None = None
    rates: PurposeRates = PurposeRates()
    version_states: tuple[str, ...] = ()
    times: tuple[VersionTimes, ...] = ()
    expired: int = 0
    delay: float = 0.0
    delayed: int = 0
    delayed_until: datetime | None = None
    version_joined: tuple[datetime | None, ...] = ()
    rate: str | None = None
    at_most: int | None = None
    limited: bool = False


class Statistics(msgspec.Struct, frozen=True):
    topics: dict[str, TopicStatistics]
    purposes: dict[tuple[str, str], PurposeStatistics]


class PurposeInfo(msgspec.Struct, frozen=True, gc=False):
    """A purpose and its numbers."""

    topic: str
    purpose: str
    statistics: PurposeStatistics


def listed(statistics: Statistics, topic: str | None) -> list[PurposeInfo]:
    """Return the purposes of one topic, or of all, by topic and name."""
    return [
        PurposeInfo(name, purpose, counts)
        for (name, purpose), counts in sorted(statistics.purposes.items())
        if topic in (None, name)
    ]


class InstanceInfo(msgspec.Struct, frozen=True, gc=False):
    """A live instance of a purpose. `machine` and `process` are where its handler runs.

    `since` is when it joined, `heard` when it was last heard of: it renews its lease while it has events in hand, and
    says nothing while it has none. `in_hand` events are with it, and it has `room` for so many together. `state` is
    "running"; "silent" once its lease ended; or "leaving". `settled` counts the events that it has handled, and `rate`
    is how many a second, as a mean of about the last ten seconds. `error` is why its last event failed, None where none
    did. Where its version is a shadow, these are of copies, which no count of the purpose has. `timeout` is how many
    seconds its handler may take for a call, None where it states none.
    """

    topic: str
    purpose: str
    version: int
    machine: str
    process: str
    state: Literal["running", "silent", "leaving"]
    since: datetime
    heard: datetime
    in_hand: int
    room: int
    settled: int
    rate: float
    error: str | None
    timeout: float | None = None


class Dead(msgspec.Struct, frozen=True):
    """The payload of an event on `solarwind.dead`: which event died, for which purpose, and of which error. `time` is
    when it did, after so many `attempts`, and `fired` when the event was fired."""

    topic: str
    id: str
    purpose: str
    version: int
    error: str
    attempts: int
    time: datetime
    key: str | None = None
    fired: datetime | None = None


def sorted_instances(instances: Iterable[InstanceInfo]) -> list[InstanceInfo]:
    """Return them by topic, purpose and version, those that joined first before others."""
    return sorted(instances, key=lambda each: (each.topic, each.purpose, each.version, each.since))


class StoreInfo(msgspec.Struct, frozen=True, gc=False):
    """The store of a dispatcher: its file, "memory", or the partition on NATS; and the machine and process of the
    dispatcher. `free` and `size` are bytes, None where only the store's own server can tell. `full`: it refuses new
    events since it has no room for them. `commits` is how long commits took, since the dispatcher started."""

    store: str
    process: str
    free: int | None
    size: int | None
    full: bool
    commits: Histogram


AttentionKind = Literal[
    "nobody up", "failing", "store full", "delayed events stuck", "no owner", "store nearly full", "dead letters",
    "silent instance", "webhook failing", "webhook paused", "held back", "paused", "schedule missed", "schedule stuck",
    "clock", "outbox", "schema",
]  # fmt: skip


class Attention(msgspec.Struct, frozen=True, gc=False):
    """Something that needs a person. `topic` and `purpose` are "" where it is not about any; `since` is None where that
    is not known. `text` is a sentence without its full stop, `error` what handlers or targets said, which may quote a
    payload, and `command` the one to look at it, or to do something about it."""

    kind: AttentionKind
    urgency: Literal["high", "medium", "low"]
    topic: str
    purpose: str
    since: datetime | None
    text: str
    command: str
    error: str | None = None


_URGENCIES = {"high": 0, "medium": 1, "low": 2}


def sorted_attention(found: Iterable[Attention]) -> list[Attention]:
    """Return the most urgent first, and of those the ones that are so for longest."""
    return sorted(
        found,
        key=lambda each: (
            _URGENCIES[each.urgency],
            each.since.timestamp() if each.since is not None else 0.0,
            each.kind,
            each.topic,
            each.purpose,
        ),
    )


class RateCounts(msgspec.Struct, frozen=True):
    """Numbers of events in equal parts of a time, the oldest first: `fired` on the topic, and of the purpose `settled`,
    `retried`, and made `dead` letters."""

    fired: tuple[int, ...]
    settled: tuple[int, ...]
    retried: tuple[int, ...]
    dead: tuple[int, ...]


class RateHistory(msgspec.Struct, frozen=True):
    """How many events there were up to `time`: in the last five minutes by the second, in the last hour by ten seconds,
    in the last day by the minute. The last number of each is of a part that is not over yet. Counted since the
    dispatcher started, and where there are very many purposes, of those in which something happened last."""

    topic: str
    purpose: str
    time: datetime
    seconds: RateCounts
    ten_seconds: RateCounts
    minutes: RateCounts


class VersionInfo(msgspec.Struct, frozen=True):
    """A version of a purpose. Its `state` is "current"; "ramping 10 %", with a share of its own; "shadow", it gets a
    copy of what the current one gets; "draining", it gets nothing more and has events in hand; "drained"; or "held", it
    gets nothing yet.

    `share` is the part of the events that it gets now, from 0 to 1: where a version with a share has no instance, the
    current one has it. `pending` are the events that it is to get, `in_flight` those that its instances have.

    Of a shadow these are copies. Since it is one, or since the dispatcher started, so many events were `compared`, so
    many of these `differed`, and so many were `missed` and not compared, because it had no instance, or one of the two
    was too slow.

    `mean_s` is how long its handler took since the dispatcher started, as a mean, and `p95_s` about how long at most
    for 95 of a hundred events, a shadow's copies included: see `VersionTimes`. They are None where it handled none.
    `handled` counts the attempts since then, those at a shadow's copies included, and `settled` the events that they
    settled: the other attempts failed, or said later. `delay` is how many seconds an event waits before it gets it.
    `rate` and `at_most` are the limits that it states: they are the purpose's while it is current, or its own as a
    shadow."""

    version: int
    state: str
    share: float
    exchange: str
    instances: int
    pending: int
    in_flight: int
    compared: int = 0
    differed: int = 0
    missed: int = 0
    mean_s: float | None = None
    p95_s: float | None = None
    handled: int = 0
    settled: int = 0
    delay: float = 0.0
    rate: str | None = None
    at_most: int | None = None


class ScheduleInfo(msgspec.Struct, frozen=True):
    """A schedule: on `topic` an event is fired at every tick, which are `every` so often in time zone `zone`, or in
    `words`. A tick that is more than a minute late was missed: then "skip" fires nothing, "once" one event for all.

    `fired` is the tick of its last event, `missed_at` the last that was skipped; `next` are its next five, none while
    it is paused.
    """

    name: str
    topic: str
    every: str
    zone: str
    words: str
    missed: Literal["skip", "once"]
    state: Literal["running", "paused"]
    fired: datetime | None
    missed_at: datetime | None
    next: tuple[datetime, ...]


class RolloutInfo(msgspec.Struct, frozen=True):
    """The versions of a purpose, in the order of their numbers, and the one that is current. `intended` is the one that
    is current whenever it has an instance; without one, a version that was current before it is so meanwhile. `before`
    was so before it, to which a rollback goes; None where none was."""

    topic: str
    purpose: str
    current: int
    versions: tuple[VersionInfo, ...]
    intended: int
    before: int | None = None


class FiredSample(msgspec.Struct, frozen=True):
    """An event that a handler fired, and the first 100 bytes of its payload as text."""

    topic: str
    key: str | None
    payload: str


class Result(msgspec.Struct, frozen=True):
    """What a version made of an event the first time. `outcome` is "settled"; "failed", its handler raised; "rejected";
    "later"; "expired" before it was handed out, of the current version; or "lost" with its instance, of a shadow.
    `error` is why it was not settled, None where it was. `fired_count` is how many events the handler fired, and
    `fired` has the first five of these."""

    outcome: Literal["settled", "failed", "rejected", "later", "lost", "expired"]
    error: str | None
    fired_count: int
    fired: tuple[FiredSample, ...]


class Difference(msgspec.Struct, frozen=True):
    """An event of which a shadow, which is this `version`, made something else than the current version. `time` is when
    both had reported it."""

    id: str
    version: int
    time: datetime
    current: Result
    shadow: Result


class AuditEntry(msgspec.Struct, frozen=True, gc=False):
    """What an operator did: the `verb`, to which topic and purpose ("" where it has none), with which further
    `arguments`, as JSON ("" for none), and to how many `events` (None where that has no meaning).

    `by` is who: the name of the token that a server checked, and for whom its client asked; or a user of the machine.
    Entries are numbered from 1.
    """

    number: int
    time: datetime
    by: str
    verb: str
    topic: str
    purpose: str
    arguments: str
    events: int | None


class HandlerInfo(msgspec.Struct, frozen=True):
    """A registered handler: one service instance, and the function's name."""

    topic: str
    purpose: str
    exchange: str
    version: int
    handler: str


class TopicInfo(msgspec.Struct, frozen=True, gc=False):
    """A topic and its history: `kept` events of `kept_bytes` in the log. `keep` is in seconds. `delayed` events enter
    it when they are due; `next_due` is when the next one is, None without any."""

    topic: str
    fired: int
    purposes: tuple[str, ...]
    kept: int
    kept_bytes: int
    keep: float
    keep_bytes: int | None
    delayed: int = 0
    next_due: datetime | None = None


class OwnerInfo(msgspec.Struct, frozen=True):
    """A partition of a `nats://` namespace: its stream, the process that owns it ("" while there is none), and its
    topics (None where no owner answers). On another engine there is one partition, which is the store."""

    partition: int
    stream: str
    owner: str
    topics: tuple[str, ...] | None


class DeadLetter(msgspec.Struct, frozen=True):
    """An event that a purpose gave up: its error, the number of attempts, when, and which version did."""

    event: Event
    error: str
    attempts: int
    time: datetime
    version: int


class WebhookInfo(msgspec.Struct, frozen=True, gc=False):
    """A webhook of a server. Its URL may contain a secret, so that its `host` alone is shown. It is "live", "failing"
    while its target accepts nothing, "paused" until it is resumed, "refused" where it may not or cannot deliver, or
    "ended". `error` is why it is not live."""

    topic: str
    purpose: str
    name: str
    host: str
    exchange: str
    version: int
    state: Literal["live", "failing", "paused", "refused", "ended"]
    error: str | None


class WebhookAnswer(msgspec.Struct, frozen=True):
    """What a webhook's target answered to an event, at a `time` and after `took_s` seconds: the `status` of HTTP, None
    where no answer came; and `error`, why the event is not settled by it, None where it is. `payload` is the beginning
    of the answer's body as text, 500 bytes of it at most."""

    time: datetime
    id: str
    attempt: int
    status: int | None
    took_s: float
    error: str | None
    payload: str


class RetryInfo(msgspec.Struct, frozen=True):
    """An event that waits for a retry: it is handed out again when it is `due`, after so many `attempts`, to that
    `version`. `error` is its last one, cut to 300 characters; None where it is not known, as after a restart of the
    dispatcher, or where its handler only said later. `place` is the `after` of the page that begins behind it."""

    id: str
    key: str | None
    due: datetime
    attempts: int
    version: int
    error: str | None
    place: str


class FieldTypes(msgspec.Struct, frozen=True):
    """A field of payloads that are objects: its path such as `user.name`, how many of the `events` have it, and the
    types of its values."""

    field: str
    events: int
    types: tuple[str, ...]


class PayloadTypes(msgspec.Struct, frozen=True):
    """The types that the payloads of a topic had, in a sample of its newest `events`, fired from `since` until `until`.

    `types` counts payloads: of JSON "object", "array", "string", "number", "boolean" and "null", and of other content
    its media type. `fields` are those of objects, in the order in which they were found; there are `more` where they
    are not all."""

    topic: str
    events: int
    since: datetime | None
    until: datetime | None
    types: dict[str, int]
    fields: tuple[FieldTypes, ...]
    more: bool


class SchemaInfo(msgspec.Struct, frozen=True):
    """What is known of a topic's payloads: with `purpose` "", what producers state; else what a version of a purpose
    reads, and how it is handed out: its `exchange`, `key` and `retry`. `schema` is a JSON Schema, None where none was
    stated. `fires` are the topics on which its handlers fired, as far as this dispatcher has seen."""

    topic: str
    purpose: str = ""
    version: int = 0
    exchange: str = ""
    key: str | None = None
    retry: dict[str, float] | None = None
    schema: dict[str, Any] | None = None
    fires: tuple[str, ...] = ()


class DelayedEvent(msgspec.Struct, frozen=True):
    """An event that enters its topic when it is `due`. `place` is the `after` of the page that begins behind it."""

    event: Event
    due: datetime
    place: str


class Outcome(msgspec.Struct, frozen=True):
    """What became of an event for a purpose. Its `state` is

    - "pending" at this `place`, from 1 on, to go to the `version`; for a fan-out, in an instance's buffer
    - "in hand" of the instance of that `version` in that `process` on that `machine`, `since` then
    - "waiting" `until` then, for a retry, or without an attempt for the purpose's delay
    - "settled" by that instance: handed out at `since`, and `ended` then
    - "dead": a dead letter since `ended`, of that `error`
    - "expired": it had expired when it would have been handed out, and was not, `ended` then
    - "discarded": it was a dead letter, which an operator has discarded
    - "copied": handed out as copies by a fan-out, which keeps nothing of an event, or dropped
    - "not for it": accepted before the purpose was there, or passed over

    `attempts` are those made, with the one that is under way. `took_s` is how long the handler took, as a mean of the
    events that its instance had handled with it. Where a fact is not known it is None, or "".
    """

    purpose: str
    state: Literal["pending", "in hand", "waiting", "settled", "dead", "expired", "discarded", "copied", "not for it"]
    version: int | None = None
    machine: str = ""
    process: str = ""
    attempts: int = 0
    place: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    ended: datetime | None = None
    took_s: float | None = None
    error: str | None = None


class EventInfo(msgspec.Struct, frozen=True):
    """An event, its `position` in its topic's history, from 0 on, and what became of it for each purpose on the topic,
    in the order of their names."""

    event: Event
    position: int
    outcomes: tuple[Outcome, ...]


class LocatedEvent(msgspec.Struct, frozen=True):
    """An event, what became of it, and where it is: its batch begins at position `start` of its topic's history with an
    event fired at `time_ns`, ns since 1970."""

    event: Event
    position: int
    outcomes: tuple[Outcome, ...]
    start: int
    time_ns: int


class Trace(msgspec.Struct, frozen=True):
    """An event and the events that it caused, in the order accepted. `more`: it caused, or may have caused, further
    ones, which `trace(event.id, after=…)` returns, after the last one here if there is any. `outcomes` has what became
    of it for each purpose on its topic."""

    event: Event
    caused: tuple[Trace, ...]
    more: bool = False
    outcomes: tuple[Outcome, ...] = ()
