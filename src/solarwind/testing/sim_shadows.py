"""What is true of a shadow of a simulated purpose: which copies it got, and what it and the current version made of
events the first time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..core.effects import Failure
from ..core.purpose import Purpose
from .sim_facts import Broken, PurposeBook, Verdicts, bits_of, positions

APART = 1 << (1 << 12)  # a copy may be in hand beside the event itself: in a set of events it is so far behind it

_VERDICTS = {"retry": "failed", "reject": "rejected", "later": "later"}


def offered(
    book: PurposeBook, version: int, mask: int, owned: int, same: Iterable[tuple[int, int]], where: str
) -> None:
    """Note that copies of these events go to a shadow. `owned` are the events that are the current version's, and
    `same` has for each copy, where the shadow keeps the order of keys, all events of its key."""
    shadow = book.shadows.get(version)
    if shadow is None:
        raise Broken(f"{where}, copies for version {version}, which is no shadow")
    if mask & ~owned or mask >> shadow.since << shadow.since != mask:
        raise Broken(f"{where}, copies of what the current version does not get, or did before {shadow.since}")
    if mask & shadow.given:
        raise Broken(f"{where}, copies that it had: {positions(mask & shadow.given)}")
    given = shadow.given
    for position, key in same:
        if (key & owned & given) >> (position + 1):
            raise Broken(f"{where}, a copy of {position} behind a later one of its key")
        if key & shadow.in_hand:
            raise Broken(f"{where}, a copy of {position} beside another of its key")
        given |= 1 << position
    shadow.given |= mask
    shadow.in_hand |= mask


def reported(book: PurposeBook, version: int, done: int, failed: Iterable[Failure], returned: int) -> None:
    """Note what a shadow made of copies."""
    given_back(book, version, returned, lost=False)
    if version in book.shadows:
        shadow, found = book.shadows[version], _verdicts(done, failed)
        shadow.own |= found
        shadow.in_hand &= ~bits_of(found)


def current_reported(book: PurposeBook, owned: int, done: int, failed: dict[int, Failure]) -> None:
    """Note what a version made of events. Those that are the current one's, `owned`, are compared."""
    for shadow in book.shadows.values():
        its = _verdicts(done & owned, [each for position, each in failed.items() if owned >> position & 1])
        shadow.current = its | shadow.current


def current_expired(book: PurposeBook, mask: int) -> None:
    """Note that events of the current version expired before they were handed out."""
    for shadow in book.shadows.values():
        shadow.current = dict.fromkeys(positions(mask), "expired") | shadow.current


def _verdicts(done: int, failed: Iterable[Failure]) -> Verdicts:
    return dict.fromkeys(positions(done), "settled") | {each.position: _VERDICTS[each.verdict] for each in failed}


def given_back(book: PurposeBook, version: int, mask: int, *, lost: bool) -> None:
    """Note that a shadow's instance gave copies back, or was lost with them."""
    shadow = book.shadows.get(version)
    if shadow is not None:
        shadow.in_hand &= ~mask
        if lost:
            shadow.own |= dict.fromkeys(positions(mask), "lost")
        else:
            shadow.given &= ~mask


def check(book: PurposeBook, purpose: Purpose, ids: Sequence[str], counts: Counter[str], *, bounded: bool) -> None:
    """Check that exactly what differs is said to; with `bounded`, some of it may have been too much to keep."""
    if set(purpose.shadows) != set(book.shadows):
        raise Broken(f"{book.name}: shadows are {set(purpose.shadows)}, not {set(book.shadows)}")
    seen = {
        version: (purpose.shadows[version].compared, len(shadow.own), len(shadow.current))
        for version, shadow in book.shadows.items()
    }
    if all(shadow.seen == seen[version] for version, shadow in book.shadows.items()):
        return
    said = [(each.version, ids.index(each.id), each) for each in purpose.differences or ()]
    for version, shadow in book.shadows.items():
        counts["shadows compared"] += seen[version][0] - shadow.seen[0]
        counts["shadows handled"] += seen[version][1] - shadow.seen[1]
        shadow.seen = seen[version]
        both = shadow.own.keys() & shadow.current.keys()
        expected = {at for at in both if shadow.own[at] != shadow.current[at]}
        its = {at: each for number, at, each in said if number == version and at >= shadow.since}
        for at, each in its.items():
            if (each.current.verdict, each.shadow.verdict) != (shadow.current.get(at), shadow.own.get(at)):
                raise Broken(f"{book.name}: {at} is said to differ: {each}")
            counts["shadows differed"] += 1
            if at not in expected and each.current.mark == each.shadow.mark:
                raise Broken(f"{book.name}: {at} does not differ: {each}")
        if not bounded and expected - its.keys():
            raise Broken(f"{book.name}: of version {version} {expected - its.keys()} differ, and are not said to")
        if not bounded and purpose.shadows[version].compared != len(both):
            raise Broken(
                f"{book.name}: of version {version} {purpose.shadows[version].compared} of {len(both)} compared"
            )
