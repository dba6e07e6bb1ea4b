"""All benchmarks, or some, one after the other. With --write their tables and plots go into a document, each as soon as
it is measured."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
import report

NAMES = ("machine", "in_process", "keyed", "versions", "topics", "retries", "latency", "lone", "backlog", "recovery")
NAMES += ("delayed", "facts", "processes", "sizes", "plan", "latency_processes", "open_loop", "closed_loop", "jobs")
NAMES += ("fanout", "connections", "viewers", "console", "ndjson", "slow_consumer", "effects")
NAMES += ("cluster", "cluster_latency", "cluster_chain", "takeover")
OWN = ("only", "write", "json")  # options that are not the benchmarks'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    harness.add_options(parser)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=NAMES, default=NAMES, help=" ".join(NAMES))
    parser.add_argument("--write", type=Path, metavar="FILE", help="the document whose tables are replaced")
    options = parser.parse_args()
    passed = _passed(parser, options)
    if not options.write:
        return _print(options.only, passed, options.json)
    try:
        report.check_places(options.write, options.only)
    except OSError as error:
        parser.error(f"expected a document at {options.write}, got {error.strerror!r}: name one that is there")
    except ValueError as error:
        parser.error(str(error))
    return _write(options.write, options.only, passed)


def _print(names: Sequence[str], passed: list[str], as_json: bool) -> int:
    tables = []
    for name in names:
        found = _measured(name, passed) if as_json else _shown(name, passed)
        if isinstance(found, int):
            return found
        tables += found
    if as_json:
        print(json.dumps(tables, indent=2))
    return 0


def _write(document: Path, names: Sequence[str], passed: list[str]) -> int:
    """Put each into the document. One that fails leaves its place as it is, and stops none of the others."""
    machine = _measured("machine", passed)  # the plots have lines of it
    if isinstance(machine, int):
        return machine
    own, failed = report.own_figures(machine), []
    for name in names:
        found = machine if name == "machine" else _measured(name, passed)
        if isinstance(found, int):
            failed.append(name)
            continue
        report.put(document, name, shlex.join(["python", f"bench/{name}.py", *_said(passed)]), found, own)
        print(f"{name} is in {document}", file=sys.stderr)
    if failed:
        print(f"not in {document}, since they failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _passed(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """Return the options that are passed on."""
    stated = {
        name: value
        for name, value in vars(options).items()
        if name not in OWN and value is not None and value != parser.get_default(name)
    }
    return [word for name, value in stated.items() for word in (f"--{name}", str(value))]


def _said(passed: list[str]) -> list[str]:
    """Return what the document says of them: where the disk is mounted is nobody's business there."""
    pairs = zip(passed[::2], passed[1::2], strict=True)
    return [word for name, value in pairs if name != "--folder" for word in (name, value)]


def _command(name: str, passed: list[str]) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *passed]


def _shown(name: str, passed: list[str]) -> list[Any] | int:
    """Let a benchmark print its tables. Return none, or the exit code if it failed."""
    return subprocess.run(_command(name, passed)).returncode or []


def _measured(name: str, passed: list[str]) -> list[Any] | int:
    """Return the tables of a benchmark, or the exit code if it failed, which it has said."""
    ran = subprocess.run([*_command(name, passed), "--json"], stdout=subprocess.PIPE, text=True)
    return ran.returncode or json.loads(ran.stdout)


if __name__ == "__main__":
    sys.exit(main())
