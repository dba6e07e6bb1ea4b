"""All benchmarks, one after the other."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import harness

NAMES = ("in_process", "keyed", "versions", "topics", "latency", "backlog", "delayed", "facts")
NAMES += ("processes", "latency_processes", "fanout", "connections", "viewers", "ndjson", "slow_consumer", "effects")
NAMES += ("cluster", "cluster_latency", "cluster_chain", "takeover")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    harness.add_options(parser)
    as_json = parser.parse_args().json
    tables = []
    for name in NAMES:
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *sys.argv[1:]]
        ran = subprocess.run(command, stdout=subprocess.PIPE if as_json else None, text=True)
        if ran.returncode:
            return ran.returncode
        tables += json.loads(ran.stdout) if as_json else []
    if as_json:
        print(json.dumps(tables, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
