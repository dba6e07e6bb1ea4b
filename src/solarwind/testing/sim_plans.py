"""What a simulated world is made of: the purposes that may come to be in it, and the workers that handle events."""

from __future__ import annotations

from random import Random

import msgspec

from ..batch import Batch
from ..core.effects import Join, Offer, Report

MAX_EVENTS = 220  # of one world
MS, SECOND = 10**6, 10**9
START = 1_700_000_000 * SECOND
EXCHANGES = ("direct", "direct", "direct:least-busy", "direct:random", "keyed", "keyed", "fanout")
KEYS = (None, "a", "b", "c")
FAULTS = (
    "fail", "die", "hang", "resend", "foreign", "leave", "jump", "crash", "stop", "full",
    "replay", "redrive", "discard", "retire", "trim", "conflict", "poison", "slow reads", "share",
    "delay", "set clock",
)  # fmt: skip
WEIGHTS = {
    "submit": 14, "commit": 44, "read": 20, "work": 60, "pass time": 10, "join": 8,
    "die": 2, "hang": 2, "wake": 2, "resend": 4, "foreign": 2, "leave": 3, "jump": 1, "crash": 1, "stop": 1, "full": 1,
    "replay": 2, "redrive": 3, "discard": 1, "retire": 1, "trim": 2, "conflict": 1, "share": 4,
    "delay": 4, "set clock": 1,
}  # fmt: skip


class Plan(msgspec.Struct, frozen=True):
    """A purpose that may come to be: what each of its versions states."""

    topic: str
    purpose: str
    versions: dict[int, tuple[str, str | None]]
    lease_ns: int
    fires: str | None  # its handlers fire on this topic
    shared: bool = False  # its versions may have shares


class Work(msgspec.Struct, eq=False):
    """An offer that was handed over, and what is left of it."""

    offer: Offer
    todo: list[int]


class Worker(msgspec.Struct, eq=False):
    """A service instance, as it sees itself."""

    id: int
    join: Join
    plan: Plan
    works: list[Work] = []
    hung: bool = False
    leaving: bool = False
    gone: bool = False  # the dispatcher let it go; it may not know
    said: list[tuple[Report, list[Batch]]] = []


def make_plans(random: Random) -> list[Plan]:
    """Return the purposes of a world."""
    plans = []
    for number in range(random.choice((1, 2, 3, 4))):
        topic = random.choice(("a", "a", "b"))
        versions = {
            version: (exchange, random.choice((None, "$.k")) if exchange == "keyed" else None)
            for version in range(1, random.choice((1, 1, 2, 3)) + 1)
            for exchange in (random.choice(EXCHANGES),)
        }
        shared = len(versions) > 1 and random.random() < 0.5
        if shared:  # all of which pend, and are keyed in the same way
            kind = random.choice((None, "$.k"))
            keyed = {each for each, (exchange, _) in versions.items() if exchange == "keyed"}
            versions = {each: ("keyed", kind) if each in keyed else ("direct", None) for each in versions}
        lease_ns = random.choice((1, 10, 30)) * SECOND
        fires = "b" if topic == "a" and random.random() < 0.5 else None
        plans.append(Plan(topic, f"p{number}", versions, lease_ns, fires, shared))
    return plans


def make_due(random: Random, wall: int) -> list[int]:
    """Return when each event of a batch is due: in one part of it, or two."""
    times = {wall + random.randint(-1, 60) * SECOND for _ in range(random.randint(1, 2))}
    return [time for time in sorted(times) for _ in range(random.randint(1, 3))]
