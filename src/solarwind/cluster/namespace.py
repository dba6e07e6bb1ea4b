"""The streams and the bucket of a namespace: made when first used, and checked if they are there already."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec

from ..errors import BadArgument, ConflictError, NotFound
from .address import NamespaceSettings, check_settings
from .layout import Layout
from .session import EXPECT, NO_STREAM, STREAM_EXISTS, WRONG_SEQUENCE, Refusal, Session, refused

_S = 1_000_000_000
NOT_MADE = 10049  # JetStream's answer where a server could not make the files of a stream, which may come of its load
TRIES = 5
AGAIN_S = 0.2
# Nothing goes from a stream that is not deleted, and what is stored is what was sent.
_UNTOUCHED: dict[str, Any] = {
    "max_age": 0,
    "max_msgs_per_subject": -1,
    "no_ack": False,
    "sealed": False,
    "deny_delete": False,
    "deny_purge": False,
    "mirror": None,
    "sources": None,
    "subject_transform": None,
}
MARK = "solarwind"  # in a stream's metadata: which format it has; and how topics are spread
FORMAT = "7"
KEY_ONCE = {EXPECT: "0"}


async def open_namespace(session: Session, *, makes: bool = True) -> Layout:
    """Open the namespace of the session's address. Raise `BadArgument` where the URL states what it is not,
    `ConflictError` where its streams are not as needed, and `NotFound` where there is none and it is not to be made."""
    address = session.address
    found = await _find_settings(session)
    if found is None and not makes:
        raise NotFound(
            f"expected a namespace of Solar Wind at {address.shown}, but there is none named {address.namespace!r}: "
            "fire the first event to it, or name another"
        )
    settings = address.merged(found)
    layout = Layout(address.namespace, settings)
    await ensure(session, layout.bucket_stream, _bucket(layout))
    if found is None:
        try:
            await session.publish(layout.key("settings"), msgspec.json.encode(settings), KEY_ONCE)
        except Refusal as refusal:
            if refusal.code != WRONG_SEQUENCE:
                raise refused(refusal, "write the settings of a namespace") from refusal
            settings = address.merged(await _find_settings(session))  # another process was first
            layout = Layout(address.namespace, settings)
    state = _stream(layout, layout.state_stream, layout.state_subjects)
    await ensure(session, layout.state_stream, state | {"allow_rollup_hdrs": True})
    return layout


async def open_partition(session: Session, layout: Layout, partition: int) -> None:
    """Make the event stream of a partition, and the note by which all processes know that it is in use."""
    name = layout.events_stream(partition)
    await ensure(session, name, _stream(layout, name, layout.events_subjects(partition)))
    try:
        await session.publish(layout.key(f"owner.{partition}"), b"{}", KEY_ONCE)
    except Refusal as refusal:
        if refusal.code != WRONG_SEQUENCE:
            raise refused(refusal, "note that a stream is used") from refusal


async def _find_settings(session: Session) -> NamespaceSettings | None:
    layout = Layout(session.address.namespace, NamespaceSettings())
    try:
        found = await session.last(layout.bucket_stream, layout.key("settings"))
    except Refusal as refusal:
        if refusal.code != NO_STREAM:
            raise refused(refusal, "read the settings of a namespace") from refusal
        return None
    try:
        if found is None or not found.data:  # the key was deleted
            return None
        settings = msgspec.json.decode(found.data, type=NamespaceSettings)
        check_settings(settings)
        return settings
    except (msgspec.MsgspecError, BadArgument) as error:
        raise ConflictError(
            f"expected settings of Solar Wind under key 'settings' of bucket {layout.bucket}, got others ({error}): "
            "name another namespace"
        ) from None


async def ensure(session: Session, name: str, wanted: dict[str, Any]) -> None:
    """Make a stream; if it is there already, check that it is as wanted. Raise `ConflictError`."""
    for tries in range(TRIES):
        try:
            await session.api(f"STREAM.CREATE.{name}", wanted)
            return
        except Refusal as refusal:
            if refusal.code == STREAM_EXISTS:
                break
            if refusal.code != NOT_MADE or tries == TRIES - 1:
                raise _cannot_make(name, refusal) from refusal
        await asyncio.sleep(AGAIN_S)
    found = (await session.api(f"STREAM.INFO.{name}"))["config"]
    wanted = json.loads(json.dumps(wanted))
    differences = [
        f"{key} {json.dumps(value)}, got {json.dumps(found.get(key))}"
        for key, value in wanted.items()
        if key not in ("metadata", "description") and (found.get(key) or None) != (value or None)
    ]
    marks = found.get("metadata") or {}
    for key, value in wanted["metadata"].items():
        if marks.get(key) != value:
            differences.append(f"metadata {key}={value}, got {marks.get(key) or 'none'}")
    if differences:
        raise ConflictError(
            f"expected stream {name} with {'; '.join(differences)}: it is never altered silently, so name another "
            "namespace, or alter it with NATS's own tools"
        )


def _cannot_make(name: str, refusal: Refusal) -> ConflictError:
    return ConflictError(
        f"expected to make stream {name}, NATS refused: {refusal}: is there room for it, and are there as many servers "
        "as replicas?"
    )


def _stream(layout: Layout, name: str, subjects: str) -> dict[str, Any]:
    settings = layout.settings
    return {
        "name": name,
        "description": f"Solar Wind, namespace {layout.namespace}: see docs/NATS.md",
        "subjects": [subjects],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "num_replicas": settings.replicas,
        "duplicate_window": int(settings.dedup_s * _S),
        "allow_direct": True,
        "allow_atomic": True,
        "metadata": {
            MARK: FORMAT,
            f"{MARK}-streams": str(settings.streams),
            f"{MARK}-words": str(settings.words),
        },
        **_UNTOUCHED,
    }


def _bucket(layout: Layout) -> dict[str, Any]:
    """Return the settings of the bucket, as `nats kv` makes them, so that it can read them."""
    return _UNTOUCHED | {
        "name": layout.bucket_stream,
        "description": f"Solar Wind, namespace {layout.namespace}: see docs/NATS.md",
        "subjects": [layout.key(">")],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "num_replicas": layout.settings.replicas,
        "duplicate_window": 120 * _S,
        "max_msgs_per_subject": 1,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
        "metadata": {MARK: FORMAT},
    }
