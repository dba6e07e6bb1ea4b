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


@pytest.mark.long
def test_a_relay_that_looks_now_and_then_is_found_at_rest() -> None:
    """What is committed while it is at work waits for no look of it: the figure would not be what its name says."""
    command = [sys.executable, str(BENCH / "effects.py"), "--events", "1000", "--rounds", "1", "--json"]
    ran = subprocess.run([*command, "--folder", "/var/tmp"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert ran.returncode == 0, ran.stderr
    row = json.loads(ran.stdout)[2]["rows"][0]
    assert row["name"] == "by hand: looks every 0.1 s"
    assert 20 < row["median"] < 200  # ms; half of 0.1 s is what it takes on average
