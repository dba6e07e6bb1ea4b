"""What happens to the versions of a simulated purpose: new ones, and what an operator does with those that there are.

All of it is tried, whether or not it is allowed, and has to be refused where it is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..core.effects import Join
from ..core.purpose import Purpose
from ..core.spans import Spans
from ..errors import BadArgument, ConflictError, NotAllowed, NotFound
from .sim_facts import PENDING_EXCHANGES, Broken, PurposeBook, positions
from .sim_plans import PurposePlan
from .sim_store import Name

if TYPE_CHECKING:
    from .sim_world import World


def adopt_forgotten(book: PurposeBook, purpose: Purpose, owned: Mapping[int, int], counts: Counter[str]) -> None:
    """Forget the versions that the dispatcher has forgotten, if they were over."""
    facts = book.facts
    gone = [version for version in facts.statements if version not in purpose.statements]
    if not gone:
        return
    needed = {holder.join.version for holder in book.holders.values()} | {book.active[0], *facts.line[-2:]}
    needed |= {version for version, share in facts.wanted.items() if share} | book.gone.keys()
    left = {track: its & (facts.dead | ~facts.done) for track, its in owned.items()}
    needed |= {abs(track) for track, its in left.items() if its}
    if needed.intersection(gone):
        raise Broken(f"{book.name}: of the versions {gone}, which are forgotten, some are needed: {needed}")
    counts["versions forgotten"] += len(gone)
    book.forgot = True
    facts.line = [each for each in facts.line if each not in gone]
    facts.wanted = {each: share for each, share in facts.wanted.items() if each not in gone}
    facts.shadows = [each for each in facts.shadows if each not in gone]
    facts.given = {at: version for at, version in facts.given.items() if version not in gone}
    facts.statements = {version: its for version, its in facts.statements.items() if version not in gone}
    book.shadows = {version: its for version, its in book.shadows.items() if version not in gone}


def may_join(world: World, join: Join, enter: Callable[[], None]) -> bool:
    """Join. Return False where it has to be refused, because it states a share that is not left, or a share or a shadow
    stands beside a fan-out."""
    book = world.book.purposes.get((join.topic, join.purpose))
    if book is None or join.version in book.facts.statements:
        return _tried(enter, True)
    share = 0.0 if isinstance(join.rollout, str) else join.rollout
    facts, book.facts = book.facts, book.facts.copy()
    book.state(join)
    allowed = book.is_clear
    book.facts = facts
    return _tried(enter, allowed and book.may_share(join.version, share))


def change(world: World, plan: PurposePlan) -> None:
    """Share, shadow, promote or roll back, whatever comes of it."""
    versions, random = world.engine.dispatcher.versions, world.random
    book, before = world.book.purposes[plan.name], world.book.purposes[plan.name].facts.copy()
    version, share = random.choice(list(plan.versions)), random.choice((0.0, 0.2, 0.5, 0.5, 0.8, 1.0))
    known, verb = version in book.facts.statements, random.choice(("share", "share", "shadow", "promote", "rollback"))
    if verb == "share":
        allowed = known and book.may_share(version, share) and not (share and book.has_copies(version))
        book.share(version, share)
    elif verb == "shadow":
        allowed = known and any(each != version for each in book.facts.line)
        book.shadow(version)
    elif verb == "promote":
        allowed = known and not book.has_copies(version)
        book.promote(version)
    else:
        allowed = book.may_roll_back
        book.facts.line = book.facts.line[:-1]
    allowed = allowed and book.is_clear
    what = {"share": (version, share), "shadow": (version,), "promote": (version,), "rollback": ()}[verb]
    world.note("%s of %s to %s", verb, plan.name, what)
    after = book.facts.line, book.facts.wanted, book.facts.shadows
    if not allowed:
        book.facts.line, book.facts.wanted, book.facts.shadows = before.line, before.wanted, before.shadows

    def do() -> None:
        getattr(versions, verb)(*plan.name, *what, world.engine.now)
        book.facts.line, book.facts.wanted, book.facts.shadows = after
        world.engine.rolled(plan.name, plan.lease_ns)

    if _tried(do, allowed):
        world.counts[verb] += 1


def redrive_to(world: World, name: Name, mask: int) -> int | None:
    """Choose the version that these dead letters go to, None for whichever works where they died. Note that they do."""
    book, dispatcher = world.book.purposes[name], world.engine.dispatcher
    version = world.random.choice((None, *book.facts.statements))
    if version is None or not mask:
        return None
    owned, pends = world.book.owned(book), book.facts.statements[version][0] in PENDING_EXCHANGES
    if not pends or not book.may_have(owned, mask, version):
        try:
            dispatcher.redrive(*name, Spans.of(positions(mask)), world.engine.now, version)
        except NotAllowed:
            return None
        raise Broken(f"{name}: {positions(mask)} were redriven into {version}")
    before = len(book.facts.given)
    book.redriven(owned, mask, version)
    world.counts["redriven into another version"] += len(book.facts.given) > before
    return version


def _tried(do: Callable[[], None], allowed: bool) -> bool:
    """Do it and return True. Where it is not allowed, it has to be refused: return False then."""
    try:
        do()
    except (BadArgument, ConflictError, NotAllowed, NotFound):
        if allowed:
            raise
        return False
    if not allowed:
        raise Broken("what is not allowed was not refused")
    return True
