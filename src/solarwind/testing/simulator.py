"""Years of faults in minutes, from one seed: the dispatcher against everything that can go wrong around it.

    python -m solarwind.testing.simulator --seeds 1000
    python -m solarwind.testing.simulator --seeds 1 --first 4711    # a failure again, exactly

Each seed makes a small world (topics, purposes, faults that happen in it), takes random steps in it, and after
every step asks the `Book`, a simple model of the rules that shares no code with the core, whether they still hold. At
the end the faults stop, and everything must get done: nothing may be stuck.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from types import ModuleType

import msgspec

from ..core import backlog as core_backlog
from ..core import dispatcher as core_dispatcher
from ..core import track as core_track
from ..engine import commits
from .sim_facts import Broken
from .sim_world import World

STEPS = 200


class Summary(msgspec.Struct, frozen=True):
    """What really happened in a run, by kind."""

    seed: int
    steps: int
    counts: dict[str, int]


class SimulationFailure(AssertionError):
    """A rule was broken, or the core raised; `seed` and `step` say where, the text what went before."""

    def __init__(self, seed: int, step: int, why: str, said: Sequence[str]) -> None:
        super().__init__(
            f"seed {seed}, step {step}: {why}\n  the last steps:\n    "
            + "\n    ".join(said)
            + f"\n  again: python -m solarwind.testing.simulator --seeds 1 --first {seed}"
        )
        self.seed = seed
        self.step = step
        self.why = why


@contextmanager
def _little_at_once(seed: int) -> Iterator[None]:
    """Let only few suspects, purposes or events go together, in some worlds, so that several turns are needed."""
    random = Random(-seed - 1)
    limits: tuple[tuple[ModuleType, str, int], ...] = (
        (core_track, "MAX_SUSPECTS", 3),
        (core_dispatcher, "PURPOSES_A_TURN", 1),
        (core_backlog, "LOOK_AHEAD", 5),
        (commits, "MAX_COMMIT_BYTES", 3_000),
    )
    with ExitStack() as before:
        for module, name, largest in limits:
            if random.random() < 0.25:
                before.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, random.randint(1, largest))
        yield


def simulate(seed: int, steps: int = STEPS) -> Summary:
    """Run the world of `seed` for so many steps and to its end. Raise `SimulationFailure`."""
    with _little_at_once(seed):
        world = World(seed)
        names, weights = world.actions()
        try:
            for action in world.random.choices(names, weights, k=steps):
                world.step += 1
                world.take_step(action)
            world.settle_down()
            if world.durable:
                world.do_stop()
        except Exception as error:
            said = [f"{step}: {words % values}" for step, words, values in world.said]
            why = str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
            raise SimulationFailure(seed, world.step, why, said) from error
    return Summary(seed, steps, dict(world.counts + world.book.counts))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m solarwind.testing.simulator", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds (default 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps in each (default {STEPS})")
    chosen = parser.parse_args(arguments)
    began, total = time.monotonic(), Counter[str]()
    for number, seed in enumerate(range(chosen.first, chosen.first + chosen.seeds), 1):
        try:
            total.update(simulate(seed, chosen.steps).counts)
        except SimulationFailure as failure:
            steps = f" --steps {chosen.steps}" if chosen.steps != STEPS else ""
            print(f"\n{failure}{steps}", file=sys.stderr)
            return 1
        if number % 50 == 0 or number == chosen.seeds:
            pace = number / (time.monotonic() - began)
            print(f"\r{number:,} of {chosen.seeds:,} seeds, {pace:.0f} a second", end="", flush=True)
    print("\nall rules held; what happened: " + ", ".join(f"{value:,} {name}" for name, value in sorted(total.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
