"""The benchmarks still fit what they measure: each runs, with few events. What its figures are is no question here."""

from __future__ import annotations

import json
import math
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"
SHARED = {"all", "harness", "plots", "rabbit", "report", "servers"}
NAMES = sorted(path.stem for path in BENCH.glob("*.py") if path.stem not in SHARED)
EVENTS = {"takeover": 300_000}  # it kills the owner when 50,000 are handled
FEW = 200
PATIENCE_S = 600.0


def test_bench_all_runs_every_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    assert sorted(runpy.run_path(str(BENCH / "all.py"))["NAMES"]) == NAMES


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_and_has_a_figure_in_each_row(name: str) -> None:
    options = ["--events", str(EVENTS.get(name, FEW)), "--rounds", "1", "--replicas", "1", "--json"]
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="solarwind-") as folder:  # a benchmark refuses memory
        Path(folder).chmod(0o711)  # a server that root starts as another user is in it
        command = [sys.executable, str(BENCH / f"{name}.py"), "--folder", folder, *options]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ran.returncode == 0, ran.stderr
    tables = json.loads(ran.stdout)
    assert tables
    for table in tables:
        assert all(math.isfinite(row["median"]) for row in table["rows"]), table  # a difference may be below zero
