"""What a simulated world is made of: the purposes that may come to be in it, and the workers that handle events."""

from __future__ import annotations

from random import Random

import msgspec

from ..batch import Batch
from ..core.effects import Join, Offer, Report
from ..limits import Limits

MAX_EVENTS = 220  # of one world
MS, SECOND = 10**6, 10**9
START = 1_700_000_000 * SECOND
EXCHANGES = ("direct", "direct", "direct:least-busy", "direct:random", "keyed", "keyed", "fanout")
KEYS = (None, "a", "b", "c")
FAULTS = (
    "fail", "die", "hang", "resend", "foreign", "leave", "jump", "crash", "stop", "full",
    "replay", "redrive", "discard", "retire", "trim", "conflict", "poison", "slow reads", "share",
    "delay", "set clock", "pause",
)  # fmt: skip
WEIGHTS = {
    "submit": 14, "commit": 44, "read": 20, "work": 60, "pass time": 10, "join": 8,
    "die": 2, "hang": 2, "wake": 2, "resend": 4, "foreign": 2, "leave": 3, "jump": 1, "crash": 1, "stop": 1, "full": 1,
    "replay": 2, "redrive": 3, "discard": 1, "retire": 1, "trim": 2, "conflict": 1, "share": 8,
    "delay": 4, "set clock": 1, "pause": 3,
}  # fmt: skip


class PurposePlan(msgspec.Struct, frozen=True):
    """A purpose that may come to be: what each of its versions states."""

    topic: str
    purpose: str
    versions: dict[int, tuple[str, str | None]]
    lease_ns: int
    fires: str | None  # its handlers fire on this topic
    shared: bool = False  # its versions may have shares
    delays: dict[int, int] = {}  # of its versions, in ns
    rate: str | None = None
    at_most: dict[int, int] = {}  # of its versions

    @property
    def name(self) -> tuple[str, str]:
        return self.topic, self.purpose


class OfferInHand(msgspec.Struct, eq=False):
    """An offer that was handed over, and what is left of it."""

    offer: Offer
    todo: list[int]


class SimulatedWorker(msgspec.Struct, eq=False):
    """A service instance, as it sees itself."""

    id: int
    join: Join
    plan: PurposePlan
    works: list[OfferInHand] = []
    hung: bool = False
    leaving: bool = False
    gone: bool = False  # the dispatcher let it go; it may not know
    said: list[tuple[Report, list[Batch]]] = []


def choose_faults(random: Random) -> set[str]:
    """Return the faults of this world: not all at once, since some bugs show only without the others."""
    if random.random() < 0.1:
        return {"poison"}
    share = random.choice((0.2, 0.5, 0.8))
    return {fault for fault in FAULTS if random.random() < share}


def choose_limits(random: Random) -> Limits:
    """Return the limits of this world, in some worlds so low that they are met."""
    limits = {
        "waiting": random.randint(1, 6),
        "copies": random.randint(1, 10),
        "copy_bytes": random.randint(100, 900),
    }
    return Limits(**{name: limit for name, limit in limits.items() if random.random() < 0.25})


def with_few_versions(random: Random, limits: Limits) -> Limits:
    """Return the limits, in some worlds with so few versions that they are forgotten."""
    return msgspec.structs.replace(limits, versions=random.randint(1, 3)) if random.random() < 0.5 else limits


def with_more_versions(random: Random, plans: list[PurposePlan]) -> list[PurposePlan]:
    """Return the purposes, in some worlds with further versions that state what others of theirs state."""
    if random.random() < 0.85:
        return plans
    found = []
    for plan in plans:
        stated, first = list(plan.versions.values()), len(plan.versions) + 1
        more = {version: random.choice(stated) for version in range(first, first + random.randint(1, 5))}
        found.append(msgspec.structs.replace(plan, versions={**plan.versions, **more}))
    return found


def make_plans(random: Random) -> list[PurposePlan]:
    """Return the purposes of a world."""
    plans = []
    for number in range(random.choice((1, 2, 3, 4))):
        topic = random.choice(("a", "a", "b"))
        versions = {
            version: (exchange, random.choice((None, "$.k")) if exchange == "keyed" else None)
            for version in range(1, random.choice((1, 1, 2, 3)) + 1)
            for exchange in (random.choice(EXCHANGES),)
        }
        shared = len(versions) > 1 and random.random() < 0.7
        if shared:  # those that are keyed are so in the same way, and in half of the worlds there are no fan-outs
            kind = random.choice((None, "$.k"))
            kinds = {"keyed": ("keyed", kind)} | ({"fanout": ("fanout", None)} if kind is None else {})
            versions = {each: kinds.get(exchange, ("direct", None)) for each, (exchange, _) in versions.items()}
        lease_ns = random.choice((1, 10, 30)) * SECOND
        fires = "b" if topic == "a" and random.random() < 0.5 else None
        plans.append(PurposePlan(topic, f"p{number}", versions, lease_ns, fires, shared))
    return plans


def with_delays(random: Random, plans: list[PurposePlan]) -> list[PurposePlan]:
    """Return the purposes, some of them with delays; not where events may be copied now, and pend later."""
    found = []
    for plan in plans:
        copies = {exchange == "fanout" for exchange, _ in plan.versions.values()}
        if len(copies) == 1 and random.random() < 0.3:
            delays = {each: random.choice((0, 1, 10, 90)) * SECOND for each in plan.versions}
            plan = msgspec.structs.replace(plan, delays=delays)
        found.append(plan)
    return found


def with_limits(random: Random, plans: list[PurposePlan]) -> list[PurposePlan]:
    """Return the purposes, some of them with limits."""
    found = []
    for plan in plans:
        if random.random() < 0.12:
            plan = msgspec.structs.replace(plan, rate=random.choice(("2/s", "30/m", "20/s", "90/s", "1000/s")))
        if random.random() < 0.12:
            plan = msgspec.structs.replace(plan, at_most={each: random.randint(1, 4) for each in plan.versions})
        found.append(plan)
    return found


def make_expires(random: Random, wall: int, count: int) -> list[int | None] | None:
    """Return when the events of a batch expire: of most batches none does."""
    if random.random() < 0.9:
        return None
    return [random.choice((None, wall + random.randint(-1, 30) * SECOND)) for _ in range(count)]


def make_due(random: Random, wall: int) -> list[int]:
    """Return when each event of a batch is due: in one part of it, or two."""
    times = {wall + random.randint(-1, 60) * SECOND for _ in range(random.randint(1, 2))}
    return [time for time in sorted(times) for _ in range(random.randint(1, 3))]
