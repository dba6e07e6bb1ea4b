"""What benchmarks measured gets into a document as it was measured: in its place alone, and a peer that is faster is
shown as the faster one."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

BENCH = Path(__file__).parent.parent / "bench"
MACHINE = {"fdatasync": 100.0, "loopback": 10.0, "bare loop": 1e6}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the modules of the benchmarks that write."""
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    names = ("harness", "machine", "plots", "report")
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in set(sys.modules) - before:  # other tests may have modules of these names
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(BENCH)):
            del sys.modules[name]


def table(*rows: tuple[str, float], unit: str = "µs", **more: Any) -> dict[str, Any]:
    every = [
        {"name": name, "unit": unit, "min": figure, "median": figure, "max": figure * 1.1, "ratio": 1.0, "goals": []}
        for name, figure in rows
    ]
    return {"title": "How <soon>", "rows": every, "note": "", **more}


def drawn(bench: Any, of: dict[str, Any]) -> ElementTree.Element:
    return ElementTree.fromstring(bench.plots.svg(of, MACHINE))


def starred(picture: ElementTree.Element) -> list[str]:
    return [text.text for text in picture.iter(f"{SVG}text") if (text.text or "").startswith("★")]


@pytest.mark.parametrize(("unit", "winner"), [("µs", "★ NATS core, p50"), ("events/s", "★ ws://, p50")])
def test_the_star_is_at_the_fastest_whoever_it_is(bench: Any, unit: str, winner: str) -> None:
    picture = drawn(bench, table(("NATS core, p50", 100), ("ws://, p50", 200), ("fdatasync, p50", 50), unit=unit))
    assert starred(picture) == [winner]


def test_percentiles_are_compared_each_with_its_own(bench: Any) -> None:
    picture = drawn(bench, table(("NATS core, p50", 1), ("ws://, p50", 2), ("NATS core, p99", 9), ("ws://, p99", 8)))
    assert starred(picture) == ["★ NATS core, p50", "★ ws://, p99"]


def test_bars_are_as_long_as_their_figures(bench: Any) -> None:
    picture = drawn(bench, table(("NATS core", 100), ("ws://", 200)))
    widths = [float(bar.get("width", 0)) for bar in picture.iter(f"{SVG}rect") if bar.get("class") in ("peer", "ours")]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.01)


def test_no_line_goes_through_a_figure(bench: Any) -> None:
    """What the machine takes may be where a figure stands: the figure comes later, on a ground of its own."""
    picture = drawn(bench, table(("NATS core", 70), ("ws://", 200)))
    order = [(element.tag.removeprefix(SVG), element.get("class", "")) for element in picture.iter()]
    figures = [at for at, (tag, kind) in enumerate(order) if tag == "text" and "figure" in kind.split()]
    lines = [at for at, (tag, kind) in enumerate(order) if tag == "line" and kind == "line"]
    assert len(figures) == len(lines) == 2
    assert min(figures) > max(lines)
    assert re.search(r"\.figure \{[^}]*paint-order: stroke", bench.plots.STYLE)


def test_a_picture_has_no_script_and_fetches_nothing(bench: Any) -> None:
    picture = drawn(bench, table(("NATS core", 100), ("ws://", 200)))
    assert {element.tag.removeprefix(SVG) for element in picture.iter()} <= {
        *("svg", "title", "style", "rect", "text", "line")
    }
    assert not [
        name for element in picture.iter() for name in element.attrib if name.startswith("on") or "href" in name
    ]


def test_only_the_place_of_a_benchmark_changes_in_a_document(bench: Any, tmp_path: Path) -> None:
    document = tmp_path / "doc.md"
    document.write_text(
        "before\n<!-- bench: one -->\nold\n<!-- end -->\nbetween\n<!-- bench: two -->\nkept\n<!-- end -->\n"
    )
    found = table(("NATS core", 100), ("ws://", 200), note="left out: nothing")
    found["rows"][1]["goals"] = [{"goal": "≤ 1.25 ×", "met": False}]
    for _ in range(2):  # the second time replaces the first
        bench.report.put(document, "one", "python bench/one.py", [found], MACHINE)
    text = document.read_text()
    assert text.startswith("before\n<!-- bench: one -->\n`python bench/one.py`\n")
    assert text.endswith("<!-- end -->\nbetween\n<!-- bench: two -->\nkept\n<!-- end -->\n")
    assert text.count("| ws:// | 1.00 × | 200.0 µs | 200.0 µs | 220.0 µs | ≤ 1.25 ×: missed |") == 1
    assert "Left out: nothing.\n" in text
    assert "old" not in text
    assert "![How <soon>](benchmarks/one-1.svg)" in text
    assert (tmp_path / "benchmarks" / "one-1.svg").exists()


def test_a_document_without_a_place_is_refused_before_anything_is_measured(bench: Any, tmp_path: Path) -> None:
    document = tmp_path / "doc.md"
    document.write_text("<!-- bench: one -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match=r"to have a place for two: add lines with <!-- bench: two -->"):
        bench.report.check_places(document, ["one", "two"])


def test_a_benchmark_that_fails_leaves_its_place_as_it_is_and_the_others_are_written(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = importlib.import_module("all")
    document = tmp_path / "doc.md"
    places = [f"<!-- bench: {name} -->\nold {name}\n<!-- end -->\n" for name in ("jobs", "lone", "machine")]
    document.write_text("".join(places))
    machine = table(
        (f"{bench.machine.FDATASYNC}, p50", 100), (f"{bench.machine.LOOPBACK}, p50", 10), (bench.machine.BARE, 1e6)
    )
    found = {"machine": [machine], "jobs": 3, "lone": [table(("NATS core", 100), ("ws://", 200))]}
    monkeypatch.setattr(every, "_measured", lambda name, passed: found[name])
    monkeypatch.setattr(sys, "argv", ["all.py", "--write", str(document), "--only", "jobs", "lone", "machine"])
    assert every.main() == 1
    text = document.read_text()
    assert text.startswith(places[0])
    assert "| ws:// |" in text
    assert "old lone" not in text
    assert "old machine" not in text


def test_the_document_has_a_place_for_each_benchmark(bench: Any) -> None:
    names = runpy.run_path(str(BENCH / "all.py"))["NAMES"]
    bench.report.check_places(BENCH.parent / "docs" / "BENCHMARKS.md", names)


def test_the_document_says_what_each_benchmark_asks(bench: Any) -> None:
    names = runpy.run_path(str(BENCH / "all.py"))["NAMES"]
    told = re.findall(r"^\| `(\w+)\.py` \|", (BENCH.parent / "docs" / "BENCHMARKS.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(names)


def test_what_is_called_measured_of_one_machine_is_a_figure_of_the_benchmarks() -> None:
    docs = BENCH.parent / "docs"
    part = (docs / "SCALING.md").read_text().partition("## One machine")[2].partition("\n## ")[0]
    figures = re.findall(r"\| ([0-9,]+) \|", part)
    assert figures
    measured = (docs / "BENCHMARKS.md").read_text()
    assert [figure for figure in figures if f"| {figure}/s |" not in measured] == []


def test_each_figure_of_where_the_curves_bend_is_one_of_the_benchmarks() -> None:
    docs = BENCH.parent / "docs"
    part = (docs / "SCALING.md").read_text().partition("## Where the curves bend")[2].partition("\n## ")[0]
    third = [line.split("|")[3] for line in part.splitlines() if line.startswith("| ")]
    figures = [
        found for text in third for found in re.findall(r"[\d.,]*\d(?:/s| (?:×|MiB|MB/s|MB|ms|µs|s)(?!\w))", text)
    ]
    assert len(figures) > 20
    measured = (docs / "BENCHMARKS.md").read_text()
    assert [figure for figure in figures if f"| {figure} |" not in measured] == []


def test_a_benchmark_that_misses_a_goal_is_named_where_the_missed_goals_are() -> None:
    """Those without a plot of the same name are told by what their goals are about."""
    text = (BENCH.parent / "docs" / "BENCHMARKS.md").read_text()
    said = text.partition("- Goals that are still missed:")[2].partition("\n- ")[0]
    words = {
        "in_process": "one-by-one `fire`",
        "latency": "`await fire()` in one process",
        "lone": "ten such events",
        "latency_processes": "one event alone",
        "closed_loop": "closed loops",
        "fanout": "2,000,000 deliveries",
    }
    parts = re.findall(r"<!-- bench: (\w+) -->\n(.*?)<!-- end -->", text, re.DOTALL)
    missed = [name for name, part in parts if ": missed" in part]
    assert missed
    assert [name for name in missed if words.get(name, f"`{name}.py`") not in said] == []


def bench_refuses(name: str, *options: str, **environment: str) -> str:
    """Return the last line that a benchmark says, which has to refuse without a traceback."""
    command = [sys.executable, str(BENCH / f"{name}.py"), "--rounds", "1", *options]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=60)
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("name", ["latency", "all"])
@pytest.mark.parametrize("option", ["--events", "--rounds"])
@pytest.mark.parametrize("value", ["0", "-5", "1e5"])
def test_a_benchmark_refuses_to_count_nothing(name: str, option: str, value: str) -> None:
    said = bench_refuses(name, option, value)
    assert said.endswith(f"argument {option}: expected a whole number of 1 or more, such as 1000, got '{value}'")


@pytest.mark.parametrize("name", ["latency", "all"])
def test_a_benchmark_refuses_a_folder_that_is_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for each in ("file", "none"):
        said = bench_refuses(name, "--folder", str(tmp_path / each))
        assert said.endswith(
            f"expected a folder that is there, got {tmp_path / each}: create it, or name another with --folder"
        )


@pytest.mark.parametrize(("name", "peer"), [("in_process", "blinker"), ("fanout", "nats")])
def test_a_benchmark_whose_peer_is_not_installed_says_how_to_install_it(name: str, peer: str, tmp_path: Path) -> None:
    (tmp_path / f"{peer}.py").write_text(f"raise ModuleNotFoundError(\"No module named '{peer}'\", name='{peer}')")
    said = bench_refuses(name, "--events", "1", "--folder", "/var/tmp", PYTHONPATH=str(tmp_path))
    assert f"expected the module {peer}, got none: pip install -r {BENCH / 'requirements.txt'}" in said


def test_a_goal_that_the_machine_sets_is_met_where_most_rounds_meet_it(bench: Any) -> None:
    limit = bench.harness.Limit("one fdatasync + 200 µs", [300.0, 1_000.0, 400.0])
    row = bench.harness.Row("ws://", "µs", [250.0, 900.0, 500.0], limit=limit)
    assert row.goals == [("≤ one fdatasync + 200 µs, 400.0 µs", True)]
