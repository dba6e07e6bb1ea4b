"""The answers of operations, as a table or sentences for people, or as JSON for programs: by their types."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..engine.answers import Page, item_of
from ..engine.request import Cli, Operation
from ..event import Event
from ..records import (
    Attention,
    AuditEntry,
    DeadLetter,
    DelayedEvent,
    Difference,
    EventInfo,
    FieldTypes,
    InstanceInfo,
    Outcome,
    OwnerInfo,
    PayloadTypes,
    PurposeInfo,
    RateHistory,
    Result,
    RetryInfo,
    RolloutInfo,
    ScheduleInfo,
    SchemaInfo,
    StoreInfo,
    TopicInfo,
    Trace,
    VersionInfo,
    WebhookAnswer,
    WebhookInfo,
)
from ..text import plain
from . import show, tables, tracing
from .tables import Columns, Spark

if TYPE_CHECKING:
    pass

# Answers, for programs ----------------------------------------------------------------------------------------------


def document(operation: Operation[..., Any], cli: Cli, answer: Any, arguments: dict[str, Any]) -> Any:
    if answer is None:
        return {**{name: arguments[name] for name in ("topic", "purpose", "name") if name in arguments}, cli.key: True}
    key = operation.http.key if operation.http is not None else ""
    if isinstance(answer, Page):
        return {key or "items": [record(each) for each in answer], "next": answer.next}
    if isinstance(answer, list):
        return [record(each) for each in answer]
    return {key: answer} if key else record(answer)


def record(value: Any) -> Any:
    """Return one record for JSON."""
    make = _RECORDS.get(type(value))
    return value if make is None else make(value)


def _letter_record(letter: DeadLetter) -> dict[str, Any]:
    return {"event": show.event_record(letter.event)} | {
        name: getattr(letter, name) for name in ("error", "attempts", "time", "version")
    }


def _info_record(info: EventInfo) -> dict[str, Any]:
    return {"event": show.event_record(info.event), "position": info.position, "outcomes": info.outcomes}


def _delayed_record(delayed: DelayedEvent) -> dict[str, Any]:
    return {"event": show.event_record(delayed.event), "due": delayed.due, "place": delayed.place}


_RECORDS: dict[Any, Callable[[Any], Any]] = {
    PurposeInfo: lambda info: {"topic": info.topic, "purpose": info.purpose} | msgspec.structs.asdict(info.statistics),
    DeadLetter: _letter_record,
    DelayedEvent: _delayed_record,
    EventInfo: _info_record,
    Trace: tracing.record,
    Event: show.event_record,
}


# Answers, for people ------------------------------------------------------------------------------------------------


def say(operation: Operation[..., Any], cli: Cli, answer: Any, arguments: dict[str, Any]) -> None:
    item = item_of(operation.form.kind)
    if item in _PARAGRAPHS and answer:
        _PARAGRAPHS[item](answer)
    elif item is not None:
        topic = arguments.get("topic")
        none = cli.none.format(**arguments, on_topic=f" on {topic}" if topic else "")
        after = answer.next if isinstance(answer, Page) else None
        if after is not None and not answer:
            show.note(f"None so far: look on with --after {after}")
            return
        table(item, answer, none)
        if after is not None:
            show.note(f"{'What comes next' if arguments.get('tail') else 'There are more'}: --after {after}")
    elif isinstance(answer, Trace):
        show.render(tracing.tree(answer))
    elif isinstance(answer, DeadLetter):
        show.fields(_letter_fields(answer, **arguments))
    elif isinstance(answer, DelayedEvent):
        show.fields(_event_fields(answer.event) | {"due": answer.due, "payload": show.payload_text(answer.event)})
    elif isinstance(answer, EventInfo):
        show.fields(
            _event_fields(answer.event) | {"position": answer.position, "payload": show.payload_text(answer.event)}
        )
        show.say("")
        table(Outcome, answer.outcomes, f"No purpose listens to {answer.event.topic}.")
    elif isinstance(answer, RateHistory):
        tables.rows(_RATES, list(_rate_rows(answer)), none="")
    elif isinstance(answer, TopicInfo):
        _say_keeps(answer, dry=bool(arguments.get("dry_run")))
    elif isinstance(answer, PayloadTypes):
        _say_types(answer)
    elif isinstance(answer, RolloutInfo):
        table(VersionInfo, answer.versions, "")
        for each in answer.versions:
            if each.state == "shadow":
                counts = f"{each.compared:,} compared, {each.differed:,} differed, {each.missed:,} missed"
                show.say(f"Shadow {each.version}: {counts}")
        if answer.current != answer.intended:
            show.say(f"{answer.intended} has no instance, so {answer.current} is current meanwhile.")
    elif isinstance(answer, ScheduleInfo):
        show.fields(
            {name: getattr(answer, name) for name in ("name", "topic", "words", "every", "zone", "missed", "state")}
            | {"fired": answer.fired, "missed at": answer.missed_at}
        )
        for tick in answer.next:
            show.say(f"next: {show.cell(tick)}")
    elif isinstance(answer, msgspec.Struct):
        show.fields({_heading(name).lower(): value for name, value in msgspec.structs.asdict(answer).items()})
    elif isinstance(answer, bool):
        show.say((cli.says if answer else cli.none).format(**arguments))
    elif answer == 0 and cli.none:
        show.say(cli.none.format(**arguments))
    else:
        number = show.counted(answer, "event") if isinstance(answer, int) else answer
        says = cli.says_dry if arguments.get("dry_run") else cli.says
        show.say(says.format(number, **arguments))


def _say_keeps(info: TopicInfo, *, dry: bool) -> None:
    and_bytes = "" if info.keep_bytes is None else f", and {info.keep_bytes:,} bytes at most"
    kept = f": about {show.counted(info.kept, 'event')} would be left" if dry else ""
    show.say(f"{info.topic} {'would keep' if dry else 'keeps'} events for {show.span(info.keep)}{and_bytes}{kept}")


def _say_types(found: PayloadTypes) -> None:
    counts = ", ".join(f"{number:,} {name}" for name, number in found.types.items())
    show.say(f"{show.counted(found.events, 'event')}, the newest: {counts}" if found.events else "No events.")
    if found.fields:
        table(FieldTypes, found.fields, "")
    if found.more:
        show.note("There are more fields.")


def _say_attention(found: Sequence[Attention]) -> None:
    """Print a paragraph for each: a table has no room for sentences. The command is on a line of its own, whole, to be
    copied."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    for each in found:
        about = f": {each.purpose} on {each.topic}" if each.purpose else f": {each.topic}" if each.topic else ""
        age = show.age(each.since)
        since = f", for {age}" if age not in (None, "0s") else ""
        head = Text(plain(f"{each.urgency:<6}  {each.kind}{about}{since}"), _URGENCY_STYLES[each.urgency])
        what = each.text if each.error is None else f"{each.text}: {each.error}"
        text = Text(plain(f"{what}."))
        show.render(Group(head, Padding(text, (0, 0, 0, 8), expand=False)))
        show.say(f"        {each.command}")


def _say_differences(found: Sequence[Difference]) -> None:
    """Print a paragraph for each: in a table, results are cut just where they differ."""
    from rich.table import Table
    from rich.text import Text

    for each in found:
        show.render(tables.Line([plain(each.id), show.cell(each.time)], indent=2))
        both = Table.grid(padding=(0, 2, 0, 0))
        both.add_column(no_wrap=True)
        both.add_column(overflow="fold")
        both.add_row("  current", Text(plain(_result(each.current))))
        both.add_row(f"  shadow {each.version}", Text(plain(_result(each.shadow))))
        show.render(both)


_PARAGRAPHS: dict[Any, Callable[[Any], None]] = {Attention: _say_attention, Difference: _say_differences}
_URGENCY_STYLES = {"high": "bold red", "medium": "bold yellow", "low": "bold"}


def _event_fields(event: Event) -> dict[str, object]:
    return {
        "id": event.id,
        "topic": event.topic,
        "fired": event.time,
        "by": f"{event.process} on {event.machine}",
        "due": event.due,
        "expires": event.expires,
        "key": event.key,
        "cause": f"{event.cause.kind} {event.cause.id}",
        "root": event.root,
        **event.extensions,
    }


def _letter_fields(letter: DeadLetter, topic: str, purpose: str, id: str) -> dict[str, object]:
    first = {"id": id, "topic": topic, "purpose": purpose}
    return (first | _event_fields(letter.event)) | {
        "dead since": letter.time,
        "version": letter.version,
        "attempts": letter.attempts,
        "error": letter.error,
        "payload": show.payload_text(letter.event),
    }


def _outcome_row(outcome: Outcome) -> tuple[object, ...]:
    what = f"{outcome.state} at {outcome.place:,}" if outcome.place is not None else outcome.state
    when = outcome.until or outcome.ended or outcome.since
    took = None if outcome.took_s is None else show.took(outcome.took_s)
    who = outcome.version, outcome.machine, outcome.process
    return outcome.purpose, what, when, outcome.attempts or None, took, *who, outcome.error


def table(of: type, found: Sequence[Any], none: str) -> None:
    """Print records of a type as a table, or the sentence `none` where there are none."""
    columns, row = columns_of(of)
    tables.rows(columns, [row(each) for each in found], none)


def columns_of(of: Any) -> tuple[Columns, Callable[[Any], tuple[object, ...]]]:
    found = _TABLES.get(of)
    return found or (Columns(tuple(map(_heading, of.__struct_fields__))), msgspec.structs.astuple)


def _heading(name: str) -> str:
    return name.replace("_", " ").upper()


def _topic_row(info: TopicInfo) -> tuple[object, ...]:
    keep = show.span(info.keep)
    kept = info.kept, info.kept_bytes, keep, info.keep_bytes
    return info.topic, info.fired, len(info.purposes), info.delayed, info.next_due, *kept


def _delayed_row(delayed: DelayedEvent) -> tuple[object, ...]:
    event = delayed.event
    return delayed.due, event.topic, event.id, event.key, event.expires, show.payload_text(event)


def _owner_row(info: OwnerInfo) -> tuple[object, ...]:
    topics = "no answer" if info.topics is None else ", ".join(info.topics)
    return info.partition, info.stream, info.owner, topics


def _store_row(info: StoreInfo) -> tuple[object, ...]:
    count = sum(info.commits.counts)
    mean_ms = info.commits.sum_s * 1e3 / count if count else None
    return info.store, info.process, info.free, info.size, "full" if info.full else "", count, mean_ms


def _purpose_row(info: PurposeInfo) -> tuple[object, ...]:
    now = info.statistics
    counts = now.instances, now.pending, now.in_flight, now.settled, now.retried, now.dead, now.expired, now.dropped
    age = show.age(now.oldest)
    return (
        info.topic,
        info.purpose,
        now.state,
        now.exchange,
        show.versions(now),
        *counts[:2],
        now.delayed if now.delay or now.delayed else None,
        age,
        *counts[2:],
    )


def _instance_row(info: InstanceInfo) -> tuple[object, ...]:
    state = "" if info.state == "running" else info.state
    held = info.in_hand, info.room, info.rate, info.settled, show.age(info.since), show.age(info.heard)
    return info.topic, info.purpose, info.version, info.machine, info.process, state, *held, info.error


def _schema_row(info: SchemaInfo) -> tuple[object, ...]:
    schema = info.schema
    named = schema and (str(schema.get("$ref", "")).rpartition("/")[2] or schema.get("title") or schema.get("type"))
    type_ = "anything" if schema is None else str(named or "one of several")
    if not info.purpose:
        return info.topic, "(producers)", None, "", type_, ""
    return info.topic, info.purpose, info.version, info.exchange, type_, ", ".join(info.fires)


def _audit_pieces(row: Sequence[object]) -> list[str]:
    """Return an entry of the audit in pieces: when and what was done, to what, how exactly, and who did it."""
    time, by, verb, topic, purpose, events, arguments = row
    number = show.counted(events, "event") if isinstance(events, int) else None
    pieces = time, verb, f"{purpose} on {topic}" if purpose else topic, arguments, number, f"by {by}"
    return [show.cell(each) for each in pieces if each]


_RATES = Columns(("LAST", "EVENTS", "NUMBER", "MAX/S", "COURSE"))


def _rate_rows(history: RateHistory) -> Iterator[tuple[object, ...]]:
    for last, seconds, counts in (
        ("5m", 1, history.seconds),
        ("1h", 10, history.ten_seconds),
        ("1d", 60, history.minutes),
    ):
        for name, numbers in msgspec.structs.asdict(counts).items():
            yield last, name, sum(numbers), max(numbers) / seconds, Spark(numbers)


def _version_row(info: VersionInfo) -> tuple[object, ...]:
    share = f"{info.share * 100:.6g} %"
    times = [None if each is None else show.took(each) for each in (info.mean_s, info.p95_s)]
    stands = info.version, info.state, share, info.exchange, info.instances, info.pending, info.in_flight
    return *stands, info.handled, info.settled, *times


def _schedule_row(info: ScheduleInfo) -> tuple[object, ...]:
    following = info.next[0] if info.next else None
    return info.name, info.topic, info.words, info.missed, info.state, info.fired, following


def _result(found: Result) -> str:
    """Return what a version made of an event in words, such as `settled, 2 fired: video.encoded {"id":7}; …`."""
    if found.error is not None:
        return f"{found.outcome}: {found.error}"
    fired = "; ".join(f"{each.topic} {each.payload}" for each in found.fired)
    more = "; …" * (found.fired_count > len(found.fired))
    return f"{found.outcome}, {found.fired_count:,} fired: {fired}{more}" if found.fired_count else found.outcome


_TABLES: dict[type, tuple[Columns, Callable[[Any], tuple[object, ...]]]] = {
    TopicInfo: (
        Columns(("TOPIC", "FIRED", "PURPOSES", "DELAYED", "NEXT DUE", "KEPT", "BYTES", "KEEP", "KEEP BYTES")),
        _topic_row,
    ),
    StoreInfo: (
        Columns(
            ("STORE", "PROCESS", "FREE", "SIZE", "STATE", "COMMITS", "MEAN MS"),
            ("STORE", "FREE", "STATE", "MEAN MS", "COMMITS", "SIZE", "PROCESS"),
        ),
        _store_row,
    ),
    OwnerInfo: (Columns(("PARTITION", "STREAM", "OWNER", "TOPICS"), ("PARTITION", "OWNER", "TOPICS")), _owner_row),
    PurposeInfo: (
        Columns(
            ("TOPIC", "PURPOSE", "STATE", "EXCHANGE", "VERSIONS", "INSTANCES", "PENDING", "DELAYED", "OLDEST",
             "IN FLIGHT", "SETTLED", "RETRIED", "DEAD", "EXPIRED", "DROPPED"),
            ("TOPIC", "PURPOSE", "STATE", "PENDING", "OLDEST", "DEAD", "DELAYED", "INSTANCES", "IN FLIGHT", "SETTLED"),
        ),
        _purpose_row,
    ),
    AuditEntry: (
        Columns(
            ("TIME", "BY", "VERB", "TOPIC", "PURPOSE", "EVENTS", "ARGUMENTS"),
            pieces=_audit_pieces,
        ),
        lambda each: (each.time, each.by, each.verb, each.topic, each.purpose, each.events, each.arguments),
    ),
    SchemaInfo: (
        Columns(("TOPIC", "PURPOSE", "VERSION", "EXCHANGE", "TYPE", "FIRES"), ("TOPIC", "PURPOSE", "TYPE", "VERSION")),
        _schema_row,
    ),
    InstanceInfo: (
        Columns(
            ("TOPIC", "PURPOSE", "VERSION", "MACHINE", "PROCESS", "STATE", "IN HAND", "ROOM", "SETTLED/S",
             "SETTLED", "SINCE", "HEARD", "ERROR"),
            ("TOPIC", "PURPOSE", "PROCESS", "HEARD", "IN HAND", "STATE", "SETTLED/S", "ERROR", "VERSION", "MACHINE"),
        ),
        _instance_row,
    ),
    Outcome: (
        Columns(
            ("PURPOSE", "STATE", "WHEN", "ATTEMPTS", "TOOK", "VERSION", "MACHINE", "PROCESS", "ERROR"),
            ("PURPOSE", "STATE", "WHEN", "ERROR", "ATTEMPTS", "VERSION", "TOOK", "PROCESS"),
        ),
        _outcome_row,
    ),
    ScheduleInfo: (
        Columns(
            ("NAME", "TOPIC", "WHEN", "MISSED", "STATE", "FIRED", "NEXT"),
            ("NAME", "NEXT", "WHEN", "TOPIC", "STATE", "FIRED"),
        ),
        _schedule_row,
    ),
    RetryInfo: (
        Columns(("ID", "KEY", "DUE", "ATTEMPTS", "VERSION", "ERROR"), ("ID", "DUE", "ERROR", "ATTEMPTS")),
        lambda each: (each.id, each.key, each.due, each.attempts, each.version, each.error),
    ),
    FieldTypes: (
        Columns(("FIELD", "EVENTS", "TYPES")),
        lambda each: (each.field, each.events, ", ".join(each.types)),
    ),
    WebhookInfo: (
        Columns(
            ("TOPIC", "PURPOSE", "NAME", "HOST", "EXCHANGE", "VERSION", "STATE", "ERROR"),
            ("NAME", "STATE", "PURPOSE", "TOPIC", "HOST", "ERROR"),
        ),
        msgspec.structs.astuple,
    ),
    WebhookAnswer: (
        Columns(
            ("TIME", "ID", "ATTEMPT", "STATUS", "TOOK", "ERROR", "ANSWER"),
            ("TIME", "STATUS", "ID", "ERROR", "TOOK", "ANSWER"),
        ),
        lambda each: (
            *(each.time, each.id, each.attempt, each.status or "none"),
            *(show.took(each.took_s), each.error, each.payload),
        ),
    ),
    VersionInfo: (
        Columns(
            ("VERSION", "STATE", "SHARE", "EXCHANGE", "INSTANCES", "PENDING", "IN FLIGHT", "HANDLED", "SETTLED", "MEAN",
             "P95"),
            ("VERSION", "STATE", "SHARE", "PENDING", "HANDLED", "SETTLED", "P95", "MEAN", "INSTANCES", "IN FLIGHT"),
        ),
        _version_row,
    ),
    Event: (
        Columns(("ID", "TIME", "KEY", "PAYLOAD"), ("ID", "PAYLOAD")),
        lambda event: (event.id, event.time, event.key, show.payload_text(event)),
    ),
    DelayedEvent: (
        Columns(("DUE", "TOPIC", "ID", "KEY", "EXPIRES", "PAYLOAD"), ("DUE", "ID", "TOPIC", "PAYLOAD")),
        _delayed_row,
    ),
    DeadLetter: (
        Columns(("ID", "DEAD SINCE", "VERSION", "ATTEMPTS", "ERROR"), ("ID", "ERROR")),
        lambda letter: (letter.event.id, letter.time, letter.version, letter.attempts, letter.error),
    ),
}  # fmt: skip
