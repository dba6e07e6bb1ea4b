"""`top`: what it shows, sorted and filtered, on a terminal, into a pipe, and while the server is away."""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len
from rich.console import Console

from solarwind.cli.top import Sort
from solarwind.cli.top_view import View
from solarwind.records import PurposeRates, PurposeStatistics, Statistics, TopicStatistics

from .conftest import PATIENCE_S, Process, Serving, call, done

DAY_S = 86_400.0  # ages that look the same however long the tests take
LONG = "com.example.shop.orders.order-line-cancelled-by-customer"


def purpose(
    pending: int, settled_per_s: float, dead: int, age: float | None, state: str = "running"
) -> PurposeStatistics:
    oldest = None if age is None else datetime.now(UTC) - timedelta(seconds=age)
    rates = PurposeRates(settled=settled_per_s, recent=(0,) * 29 + (1,))
    return PurposeStatistics(
        "direct",
        (1,),
        1,
        pending,
        0,
        10,
        0,
        dead,
        0,
        state=state,
        oldest=oldest,
        rates=rates,  # type: ignore[arg-type]
    )


FOUND = Statistics(
    {LONG: TopicStatistics(100, 20.0), "seen": TopicStatistics(3, 0.5), "video.uploaded": TopicStatistics(50, 10.0)},
    {
        (LONG, "Warehouse"): purpose(5, 1.0, 0, 9 * DAY_S),
        (LONG, "Invoice"): purpose(0, 30.0, 2, None),
        ("video.uploaded", "Encode video to MP4"): purpose(900, 2.0, 1, 3 * DAY_S, "failing"),
    },
)


def view(sort: Sort = Sort.TOPIC, filter: str = "") -> View:
    made = View("ws://127.0.0.1:7400", sort, filter)
    made.answer = FOUND
    return made


def names(of: View) -> list[str]:
    return [row.purpose or row.topic for row in of.rows()]


def drawn(of: View, width: int, height: int = 24) -> list[str]:
    text = io.StringIO()
    console = Console(file=text, width=width, height=height, color_system=None, force_terminal=True, highlight=False)
    console.print(of)
    return text.getvalue().splitlines()


# --- order and filter -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        (Sort.TOPIC, ["Invoice", "Warehouse", "seen", "Encode video to MP4"]),
        (Sort.PENDING, ["Encode video to MP4", "Warehouse", "Invoice", "seen"]),
        (Sort.OLDEST, ["Warehouse", "Encode video to MP4", "Invoice", "seen"]),
        (Sort.FIRED, ["Invoice", "Warehouse", "Encode video to MP4", "seen"]),
        (Sort.SETTLED, ["Invoice", "Encode video to MP4", "Warehouse", "seen"]),
        (Sort.RETRIED, ["Invoice", "Warehouse", "seen", "Encode video to MP4"]),
        (Sort.DEAD, ["Invoice", "Encode video to MP4", "Warehouse", "seen"]),
    ],
)
def test_rows_are_sorted_by_each_column_the_largest_first_and_by_name_where_that_is_equal(
    sort: Sort, order: list[str]
) -> None:
    made = view(sort)
    assert names(made) == order
    made.press("r")
    assert names(made) == order[::-1]


def test_the_key_s_goes_through_all_orders() -> None:
    made = view()
    orders = [made.sort for _ in Sort if made.press("s")]
    assert {*orders} == {*Sort}
    assert made.sort == Sort.TOPIC


@pytest.mark.parametrize(("text", "found"), [("MP4", 1), ("mp4", 1), ("order-line", 2), ("e", 4), ("nothing", 0)])
def test_a_filter_leaves_topics_and_purposes_with_the_text_in_their_names(text: str, found: int) -> None:
    assert len(names(view(filter=text))) == found


def test_a_filter_is_typed_corrected_kept_and_taken_away() -> None:
    made = view()
    for key in "/waX\x7fre":
        assert made.press(key)
    assert names(made) == ["Warehouse"]
    assert made.press("q"), "it belongs to the text"
    made.press("\x7f")
    made.press("\r")
    assert names(made) == ["Warehouse"]
    made.press("\x1b")
    assert len(names(made)) == 4
    assert not made.press("q")


# --- what is drawn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_screen_fits_the_terminal_with_ages_rates_and_courses_from_80_columns_on(width: int) -> None:
    lines = drawn(view(Sort.PENDING), width)
    assert max(map(cell_len, lines)) <= width
    heading = re.split(" {2,}", lines[1].strip())
    assert {"TOPIC", "PURPOSE", "PENDING", "OLDEST"} <= {*heading}
    assert ({"SETTLED/S", "5 MIN"} <= {*heading}) == (width >= 80)
    assert lines[2].split()[:2] == ["video.uploaded", "Encode"]
    assert "3d" in lines[2].split()
    assert lines[3].startswith("com.exam")


def test_the_screen_says_how_many_rows_there_is_no_room_for() -> None:
    lines = drawn(view(), 80, 6)
    assert len(lines) == 6
    assert lines[-1].startswith("2 more  s sort")


def test_the_screen_says_that_the_server_is_away_and_keeps_what_was_known() -> None:
    made = view()
    made.away = "expected a server, found none"
    lines = drawn(made, 120)
    assert lines[0].startswith("away for 0 s, waiting: expected a server")
    assert "Warehouse" in "".join(lines)


def test_a_filter_that_nothing_has_is_said() -> None:
    assert "Nothing has that in its name." in drawn(view(filter="zzz"), 80)


# --- into a pipe ----------------------------------------------------------------------------------------------


def test_top_prints_a_table_each_time_where_there_is_no_terminal(furnished: str) -> None:
    lines = done("top", "--count", "2", "--interval", "0.05", "--url", furnished).lines
    assert sum(line.startswith("TOPIC ") for line in lines) == 2
    assert sum(line.startswith("video.uploaded") for line in lines) == 4


def test_top_as_json_is_a_line_each_time(furnished: str) -> None:
    first, second = done("top", "--count", "2", "--interval", "0.05", "--json", "--url", furnished).lines
    assert json.loads(first)["topics"][0] == {"topic": "video.encoded", "fired": 3, "fired_per_s": 0.0} | {
        "delayed": 0,
        "next_due": None,
    }
    assert json.loads(second)["purposes"][1]["rates"]["settled"] == 0.0


def test_top_sorts_and_filters_by_its_options_also_as_json(furnished: str) -> None:
    answer = done("top", "--count", "1", "--sort", "dead", "--json", "--url", furnished)
    assert answer.json["purposes"][0]["purpose"] == "Refuse"
    answer = done("top", "--count", "1", "--filter", "encoded", "--json", "--url", furnished)
    assert [each["topic"] for each in answer.json["topics"]] == ["video.encoded"]
    assert "Nothing has that" in done("top", "--count", "1", "--filter", "zzz", "--url", furnished).out
    assert call("top", "--sort", "size", "--url", furnished).code == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_top_leaves_on_a_signal(furnished: str, start: Callable[..., Process], number: int) -> None:
    process = start("top", "--json", "--url", furnished)
    process.read("video.uploaded")
    process.signal(number)
    answer = process.end()
    assert (answer.code, answer.err) == (0, "")


@pytest.mark.long
def test_top_goes_on_when_the_server_was_away(serving: Callable[..., Serving], start: Callable[..., Process]) -> None:
    server = serving("--engine", "memory://")
    top = start("top", "--url", server.url, "--interval", "0.05")
    top.read("No topics")
    server.process.popen.kill()
    top.read_err("reconnecting")
    again = serving("--engine", "memory://", "--port", str(server.port))
    top.read_err("reconnected")
    assert again.ask("POST", "/v1/topics/seen/events", 1)[0] == 202
    top.read("seen")
    top.signal(signal.SIGTERM)
    assert top.end().code == 0


# --- on a terminal --------------------------------------------------------------------------------------------


class Screen:
    """A process on a terminal of its own, 80 columns wide, and what it has drawn there."""

    def __init__(self, *arguments: str) -> None:
        import fcntl
        import termios

        self.leader, follower = os.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.settings = termios.tcgetattr(follower)
        self.follower = follower
        env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.popen = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *arguments],
            stdin=follower, stdout=follower, stderr=follower, env=env | {"TERM": "xterm-256color"},
            start_new_session=True,
        )  # fmt: skip
        self._written = ""

    @property
    def last(self) -> str:
        """What was drawn last, as text."""
        while select.select([self.leader], [], [], 0.01)[0]:
            try:
                self._written += os.read(self.leader, 1 << 16).decode(errors="replace")
            except OSError:  # it has ended
                break
        drawn = self._written.split("\x1b[H")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn[-1]).replace("\r", "")

    def shows(self, *texts: str, without: str = "\0") -> str:
        """Wait until it shows all of them, and not the other. Return what it shows then."""
        end = time.monotonic() + PATIENCE_S
        while True:
            shown = self.last
            if all(text in shown for text in texts) and without not in shown:
                return shown
            assert time.monotonic() < end, shown
            assert self.popen.poll() is None, shown

    def end(self) -> int:
        """Wait for its end, reading what it still draws, and return its exit code."""
        end = time.monotonic() + PATIENCE_S
        while self.popen.poll() is None:
            drawn = self.last
            assert time.monotonic() < end, drawn
        return self.popen.wait()

    def press(self, keys: str) -> None:
        os.write(self.leader, keys.encode())

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        os.close(self.leader)
        os.close(self.follower)


# Makes the terminal that of the new session before it begins.
_ON_TERMINAL = """
import fcntl, runpy, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv[0] = "solarwind"
runpy.run_module("solarwind", run_name="__main__")
"""


@pytest.fixture
def screen() -> Iterator[Callable[..., Screen]]:
    made: list[Screen] = []

    def screen(*arguments: str) -> Screen:
        made.append(Screen(*arguments))
        return made[-1]

    yield screen
    for each in made:
        each.close()


def topics(shown: str) -> list[str]:
    return [line.split()[0] for line in shown.splitlines() if line.startswith("video.")]


def test_top_on_a_terminal_obeys_its_keys_and_leaves_the_terminal_as_it_was(
    furnished: str, screen: Callable[..., Screen]
) -> None:
    import termios

    top = screen("top", "--url", furnished, "--interval", "0.1")
    shown = top.shows("by topic", "Encode [video] to MP4", "Refuse", "SETTLED/S", "5 MIN", "q leave")
    assert topics(shown) == ["video.encoded", "video.uploaded", "video.uploaded"]
    top.press("r")
    top.shows("by topic reversed", "q leave")
    top.press("/ref")
    top.shows("with 'ref'", "Refuse", "Enter", without="MP4")
    top.press("\x1b[A")
    top.press("\rq")
    assert top.end() == 0
    assert termios.tcgetattr(top.follower) == top.settings


@pytest.mark.long
def test_top_on_a_terminal_says_that_the_server_is_away_and_goes_on_when_it_is_back(
    serving: Callable[..., Serving], screen: Callable[..., Screen]
) -> None:
    server = serving("--engine", "memory://")
    assert server.ask("POST", "/v1/topics/before/purposes/Look/take", {"since": "now"})[0] == 200
    top = screen("top", "--url", server.url, "--interval", "0.1")
    top.shows("by topic", "before")
    server.process.popen.kill()
    top.shows("away for", "waiting", "before")
    again = serving("--engine", "memory://", "--port", str(server.port))
    assert again.ask("POST", "/v1/topics/after/events", 1)[0] == 202
    top.shows("by topic", "after", without="away for")
    top.popen.terminate()
    assert top.end() == 0
