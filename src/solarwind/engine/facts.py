"""Records of what an operator asks for, made from what a dispatcher knows."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from ..origin import this_process
from ..records import Histogram, InstanceInfo, StoreInfo
from ..timing import time_of

if TYPE_CHECKING:
    from ..core.instance import Instance
    from ..core.purpose import Purpose
    from ..store.base import Store
    from .room import Room


def instance_info(instance: Instance, purpose: Purpose, now: int) -> InstanceInfo:
    """Return the record of an instance."""
    machine, _, process = instance.origin.partition("/")
    return InstanceInfo(
        topic=purpose.topic,
        purpose=purpose.name,
        version=instance.version,
        machine=machine,
        process=process,
        state="leaving" if instance.leaving else "silent" if instance.silent else "running",
        since=time_of(instance.joined_at),
        heard=time_of(instance.heard_at),
        in_hand=instance.in_flight,
        room=instance.room,
        settled=instance.settled,
        rate=instance.rate.read(instance.settled, now),
        error=instance.error or None,
        timeout=instance.join.timeout_ns / 1e9 or None,
    )


def joined(purpose: Purpose) -> tuple[datetime | None, ...]:
    """Return when the first instance of each version joined, in the order of their numbers."""
    times = (each.joined_at for _, each in sorted(purpose.statements.items()))
    return tuple(time_of(each) if each else None for each in times)


def store_info(store: Store, room: Room) -> StoreInfo:
    """Return the record of a dispatcher's store."""
    space, times = store.space(), room.commits
    return StoreInfo(
        store=store.name,
        process=this_process(),
        free=None if space is None else space.free,
        size=None if space is None else space.size,
        full=room.full,
        commits=Histogram(tuple(times.counts), times.sum_ns / 1e9),
    )
