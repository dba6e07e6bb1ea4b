"""All benchmarks, or some, one after the other. With --write their tables and plots go into a document, each as soon as
it is measured."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness
import report

NAMES = ("machine", "in_process", "keyed", "versions", "topics", "latency", "lone", "backlog", "delayed", "facts")
NAMES += ("processes", "latency_processes", "closed_loop", "jobs", "fanout", "connections", "viewers", "ndjson")
NAMES += ("slow_consumer", "effects", "cluster", "cluster_latency", "cluster_chain", "takeover")
OWN = ("only", "write", "json")  # options that are not the benchmarks'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    harness.add_options(parser)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=NAMES, default=NAMES, help=" ".join(NAMES))
    parser.add_argument("--write", type=Path, metavar="FILE", help="the document whose tables are replaced")
    options = parser.parse_args()
    passed = _passed(parser, options)
    tables: list[Any] = []
    own: dict[str, float] = {}
    if options.write:
        try:
            report.check_places(options.write, options.only)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        if "machine" not in options.only:  # the plots have lines of it
            own = report.own_figures(_measured("machine", passed) or [])
    for name in options.only:
        if not options.write and not options.json:
            ran = subprocess.run(_command(name, passed))
            if ran.returncode:
                return ran.returncode
            continue
        found = _measured(name, passed)
        if found is None:
            return 1
        tables += found
        if name == "machine":
            own = report.own_figures(found)
        if options.write:
            report.put(options.write, name, shlex.join(["python", f"bench/{name}.py", *_said(passed)]), found, own)
            print(f"{name} is in {options.write}", file=sys.stderr)
    if options.json:
        print(json.dumps(tables, indent=2))
    return 0


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


def _measured(name: str, passed: list[str]) -> list[Any] | None:
    """Return the tables of a benchmark; nothing if it failed, which it has said."""
    ran = subprocess.run([*_command(name, passed), "--json"], stdout=subprocess.PIPE, text=True)
    return None if ran.returncode else json.loads(ran.stdout)


if __name__ == "__main__":
    sys.exit(main())
