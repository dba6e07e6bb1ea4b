"""`python -m server.fuzz [--seconds 600] [--first 0]`: ever new parts of what may come, until the time is over.

What fails is printed, made as small as it can be, with the seed that it began with; `--first` begins there again. It
becomes an example in test_fuzz.py.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from . import messages, requests
from .target import Target

AT_ONCE = 3
EXAMPLES = 200  # of a seed
KINDS: dict[str, tuple[Callable[[Target, Any], Any], st.SearchStrategy[Any]]] = {
    "messages": (messages.converse, st.lists(messages.SCRIPTS, min_size=1, max_size=AT_ONCE)),
    "requests": (requests.send, st.lists(requests.A_CONNECTION, min_size=1, max_size=AT_ONCE)),
}


def fuzz(target: Target, kind: str, number: int, examples: int) -> None:
    """Try so many examples of a seed. Raise the error of the smallest one that fails."""
    send, strategy = KINDS[kind]

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(strategy)
    def one(found: Sequence[Any]) -> None:
        try:
            target.runner.run(send(target, found))
        except BaseException as error:
            error.add_note(repr(found))  # as it can be put into a test
            raise

    one()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m server.fuzz")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--first", type=int, default=0)
    given_ = parser.parse_args()
    end = monotonic() + given_.seconds
    with tempfile.TemporaryDirectory(prefix="solarwind-fuzz-") as folder:
        target = Target(Path(folder))
        done = 0
        try:
            for number in itertools.count(given_.first):
                for kind in KINDS:
                    if monotonic() > end:
                        print(f"{done:,} examples, seeds {given_.first} to {number}: it goes on", flush=True)
                        return
                    print(f"seed {number}: {kind}", flush=True)
                    fuzz(target, kind, number, EXAMPLES)
                    done += EXAMPLES
        finally:
            target.close()


if __name__ == "__main__":
    print(f"hypothesis {hypothesis.__version__}")
    main()
