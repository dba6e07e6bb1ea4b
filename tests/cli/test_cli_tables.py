"""Tables on terminals of several widths, and where there is none."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.tree import Tree

from solarwind import Event, SolarWind
from solarwind.cli import answers, show, top_view, tracing
from solarwind.cli.tables import Columns, Line, Spark, Table, shorten
from solarwind.records import AuditEntry, DeadLetter, InstanceInfo, PurposeInfo, PurposeStatistics, TopicInfo, Trace

from .conftest import SOLARWIND, call, done

TOPIC = "com.example.shop.orders.order-line-cancelled-by-customer"
PURPOSE = "Tell the warehouse that a line of the order is not to be sent"
WIDE = "注文が取り消されたことを倉庫に知らせる、できるだけ早く、そして確実に"
ID = "01a20724-1961-750a-908c-540000000001"
PURPOSES = [
    (TOPIC, PURPOSE, "nobody up", "direct", "1, 2", 4, 12_345, 2_345, "3h", 0, 2_000_000, 3, 1_200, 7, 0),
    ("t", WIDE, "running", "keyed", "1", 0, 0, None, None, 0, 0, 0, 0, 0, 0),
    ("video.uploaded", "e\u0301" * 60, "running", "fanout", "1", 0, 0, None, None, 0, 0, 0, 0, 0, 0),
    ("video.uploaded", "👍🏽" * 40, "running", "fanout", "1", 0, 0, None, None, 0, 0, 0, 0, 0, 0),
]
TABLES: dict[str, tuple[Columns, Sequence[Sequence[object]]]] = {
    "purposes": (answers._TABLES[PurposeInfo][0], PURPOSES),
    "topics": (
        answers._TABLES[TopicInfo][0],
        [(TOPIC, 2_000_000, 10, 1_000, datetime.now(UTC), 1_000_000, 1 << 40, "7d", None)],
    ),
    "instances": (
        answers._TABLES[InstanceInfo][0],
        [
            (
                TOPIC,
                PURPOSE,
                2,
                "vm",
                "solarwind:22130",
                "silent",
                12,
                100,
                99_999.5,
                2_000_000,
                "3h",
                "59s",
                "ValueError: " * 9,
            )
        ],
    ),
    "dead list": (answers._TABLES[DeadLetter][0], [(ID, datetime.now(UTC), 3, 12, "no room " * 100)]),
    "top": (
        top_view._COLUMNS,
        [
            (
                TOPIC,
                PURPOSE,
                "failing",
                4,
                12_345,
                "3h",
                10,
                1.5,
                99_999.5,
                Spark([1, 2]),
                3,
                1_200,
                0,
                9,
                9,
                "direct",
                "1",
            )
        ],
    ),
}


def on_terminal(width: int, table: Table | Line | Tree, encoding: str = "utf-8") -> list[str]:
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    Console(file=out, width=width, color_system=None, force_terminal=True, highlight=False).print(table)
    out.seek(0)
    return out.read().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", TABLES)
def test_each_row_is_one_line_of_the_terminal_that_begins_and_ends_as_its_names_do(name: str, width: int) -> None:
    columns, values = TABLES[name]
    heading, *lines = on_terminal(width, Table(columns, values))
    assert len(lines) == len(values)
    assert max(map(cell_len, [heading, *lines])) <= width
    for title, text, shown in zip(("TOPIC", "PURPOSE", "ID"), (TOPIC, PURPOSE, ID), (8, 8, len(ID)), strict=True):
        if title in columns.names:
            assert title in heading
            assert text[:shown] in lines[0]
            assert text[-shown:] in lines[0]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", TABLES)
def test_a_column_is_whole_in_heading_and_numbers_or_left_out_and_named_as_such(name: str, width: int) -> None:
    columns, values = TABLES[name]
    table = Table(columns, values)
    heading, line = on_terminal(width, table)[:2]
    shown = re.split(" {2,}", heading.strip())
    assert table.left_out == [each for each in columns.names if each not in shown]
    for title, value in zip(columns.names, values[0], strict=True):
        if title in shown and isinstance(value, int | float):
            assert f"{value:,}" in line.split()


def test_a_wider_terminal_shows_more_columns_and_the_widest_shows_all_text() -> None:
    columns, values = TABLES["purposes"]
    counts = [len(re.split(" {2,}", on_terminal(width, Table(columns, values))[0].strip())) for width in (40, 80, 120)]
    assert counts == sorted({*counts})
    table = Table(columns, values)
    assert PURPOSE in on_terminal(1000, table)[1]
    assert not table.left_out


@pytest.mark.parametrize("width", [1, 10, 20, 40])
def test_a_very_narrow_terminal_shows_as_much_of_the_most_important_columns_as_fits(width: int) -> None:
    lines = on_terminal(width, Table(*TABLES["purposes"]))
    assert len(lines) == 1 + len(PURPOSES)
    assert max(map(cell_len, lines)) <= width
    assert lines[0].split() == {1: ["T"], 10: ["TOPIC"]}.get(width, ["TOPIC", "PURPOSE"])


@pytest.mark.parametrize("length", [37, 50, 80, 200])
def test_an_id_is_whole_as_long_as_the_terminal_is_wide_enough_for_it(length: int) -> None:
    id = ("upload-" * 30)[: length - 4] + "last"
    for of, between in ((DeadLetter, (3, None)), (Event, (None,))):
        line = on_terminal(80, Table(answers._TABLES[of][0], [(id, datetime.now(UTC), *between, "no room " * 100)]))[1]
        assert cell_len(line) <= 80
        assert (id in line) == (length <= 80)


def test_a_time_is_shortened_to_its_minutes_and_never_in_its_middle() -> None:
    time = datetime(2026, 11, 23, 6, 42, 17, 287_000, UTC)
    table = Table(Columns(("ID", "SINCE")), [(ID, time)])
    assert [on_terminal(width, table)[1].split("  ")[-1] for width in (62, 58, 55)] == [
        "2026-11-23 06:42:17.287Z",
        "2026-11-23 06:42:17Z",
        "2026-11-23 06:42Z",
    ]


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("video.uploaded", 14, "video.uploaded"),
        ("video.uploaded", 9, "vide…aded"),
        ("video.uploaded", 8, "vide…ded"),
        ("video.uploaded", 2, "vi"),
        ("video.uploaded", 1, "v"),
        ("注文が取り消された", 9, "注文…れた"),
        ("注文が取り消された", 8, "注文…た"),
        ("e\u0301" * 9, 5, "e\u0301e\u0301…e\u0301e\u0301"),
        ("a👍🏽b👍🏽c", 5, "a…👍🏽c"),
        ("", 0, ""),
    ],
)
def test_text_is_shortened_in_its_middle_by_whole_letters(text: str, width: int, short: str) -> None:
    assert shorten(text, width) == short
    assert cell_len(short) <= width


@pytest.mark.parametrize(
    ("numbers", "width", "drawn"),
    [
        ([0, 1, 4, 8], 4, "▁▂▅█"),
        ([0, 0, 0, 0], 4, "▁▁▁▁"),
        ([0, 0, 1_000_000, 1], 4, "▁▁█▂"),
        ([1, 1, 4, 4], 2, "▃█"),
        ([1] * 5, 2, "▆█"),
        ([], 4, ""),
    ],
)
def test_a_course_is_drawn_whole_in_any_width_and_only_zero_has_the_lowest_bar(
    numbers: list[int], width: int, drawn: str
) -> None:
    assert Spark(numbers).text(width, "▁▂▃▄▅▆▇█") == drawn


def test_a_course_is_narrower_on_a_narrow_terminal_and_drawn_in_ascii_where_there_is_no_unicode() -> None:
    table = Table(Columns(("TOPIC", "COURSE")), [("t" * 20, Spark([0] * 29 + [1]))])
    assert [cell_len(on_terminal(width, table)[1].split()[1]) for width in (80, 40, 30)] == [30, 18, 8]
    assert on_terminal(40, table, "ascii")[1].split()[1] == "_" * 17 + "#"


def test_a_terminal_without_unicode_is_shown_dots() -> None:
    lines = on_terminal(60, Table(*TABLES["topics"]), "ascii")
    assert "..." in lines[1]


# --- where it comes from: a terminal, a pipe -------------------------------------------------------------------


@contextmanager
def terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Make standard output and error a terminal of this width, and yield a function that closes it and returns what was
    printed."""
    leader, follower = os.openpty()
    written = os.fdopen(follower, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", written)
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm-256color")

    def read() -> str:
        written.write("\0")  # the end: what is written arrives in parts
        written.flush()
        printed = b""
        while not printed.endswith(b"\0"):
            printed += os.read(leader, 1 << 16)
        return printed[:-1].decode()

    yield read
    monkeypatch.undo()
    written.close()
    os.close(leader)


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        SOLARWIND.main(args=arguments, prog_name="solarwind")
    assert not ended.value.code


COMMANDS = [["topics"], ["purposes"], ["dead", "list", "video.uploaded", "Refuse"]]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_a_command_fits_the_terminal_and_says_for_which_columns_there_is_no_room(
    furnished: str, command: list[str], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(width, monkeypatch) as read:
        run(*command, "--url", furnished)
        printed = re.sub(r"\x1b\[[0-9;]*m", "", read()).splitlines()
    assert max(map(cell_len, printed)) <= width
    left_out = " ".join(printed).partition("There is no room for ")[2]
    shown = re.split(" {2,}", printed[0].strip())
    for name in left_out.partition(":")[0].split(", ") if left_out else ():
        assert name not in shown


def test_no_color_takes_all_colours_away(furnished: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with terminal(80, monkeypatch) as read:
        run("purposes", "--url", furnished)
        styles = re.findall(r"\x1b\[([0-9;]*)m", read())
    assert {*styles} <= {"", "0", "1"}  # bold is no colour


def test_a_pipe_gets_every_column_and_every_letter(url: str) -> None:
    purpose = WIDE * 5

    async def make() -> None:
        async with SolarWind(url) as wind, wind.listen(TOPIC, purpose):
            pass

    asyncio.run(make())
    heading, line = done("purposes", "--url", url).lines
    assert re.split(" {2,}", heading) == [*answers._TABLES[PurposeInfo][0].names]
    assert TOPIC in line
    assert purpose in line


def test_a_table_into_a_pipe_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    out = io.StringIO()
    show.render(Table(Columns(("ID", "PAYLOAD")), [("i" * 200, "p" * 100_000)]), out)
    assert out.getvalue() == f"{'ID':<200}  PAYLOAD\n{'i' * 200}  {'p' * 100_000}\n"


def test_an_empty_list_is_a_sentence_on_a_terminal_too(empty: str) -> None:
    assert call("purposes", "--url", empty).out == "No purposes.\n"


# --- what is no table -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 120])
def test_attention_is_sentences_that_fit_with_the_whole_command_on_a_line_of_its_own(
    furnished: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(width, monkeypatch) as read:
        run("attention", "--url", furnished)
        printed = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", read()).splitlines()]
    command = "        solarwind dead list video.uploaded Refuse"
    assert command in printed
    assert max(cell_len(line) for line in printed if "solarwind" not in line) <= width
    text = " ".join(line.strip() for line in printed)
    assert "dead letters: Refuse on video.uploaded" in text
    assert "It has 3 dead letters, and got the last within an hour: redrive or discard them." in text


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("options", [[], ["--follow"]], ids=" ".join)
def test_a_trace_fits_the_terminal_with_whole_ids_and_times(
    furnished: str, options: list[str], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "LOOK_S", 0.001)
    with terminal(width, monkeypatch) as read:
        run("trace", "video-1", *options, "--url", furnished)
        printed = re.sub(r"\x1b\[[0-9;]*m", "", read()).splitlines()
    assert max(map(cell_len, printed)) <= width
    (child,) = done("trace", "video-1", "--json", "--url", furnished).json["caused"]
    assert any(child["event"]["id"] in line for line in printed)
    times = [line for line in printed if re.search(r"\d{4}-\d\d-\d\d", line)]
    assert len(times) == (4 if options else 2)
    for line in times:
        assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z", line), "a time is not broken"


def test_a_chain_that_is_deeper_than_the_terminal_is_wide_can_be_shown() -> None:
    async def chain() -> Trace:
        async with SolarWind("memory://") as wind:
            wind.topic("t", keep=3600)
            id = await wind.fire("t", 1)
            return await wind.trace(id)

    trace = asyncio.run(chain())
    for _ in range(40):
        trace = msgspec.structs.replace(trace, caused=(trace,))
    assert max(map(cell_len, on_terminal(80, tracing.tree(trace)))) <= 80


AUDITED = [
    AuditEntry(
        7, datetime(2026, 11, 25, 9, 12, 40, 118_000, UTC), "ops for ann@vm", "promote", TOPIC, PURPOSE,
        '{"version":12}', None,
    ),
    AuditEntry(
        6, datetime(2026, 11, 25, 9, 10, 2, 0, UTC), "ann@vm", "redrive", "t", "p", '{"ids":["%s"]}' % ("x" * 150), 3
    ),
    AuditEntry(5, datetime(2026, 11, 25, 9, 8, 0, 0, UTC), "ann@vm", "backup", "", "", "", None),
]  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_audit_says_all_of_what_was_done_to_what_by_whom_however_narrow_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(width, monkeypatch) as read:
        answers.table(AuditEntry, AUDITED, "")
        printed = re.sub(r"\x1b\[[0-9;]*m", "", read()).splitlines()
    assert max(map(cell_len, printed)) <= width
    text = " ".join(" ".join(printed).split())
    assert "There is no room" not in text
    for said in ("2026-11-25 09:12", "promote", '{"version":12}', "ops for ann@vm", "2026-11-25 09:08", "backup"):
        assert said in text
    if width <= 80:
        whole = "".join(text.split())  # a line may end anywhere in what is longer than it
        assert f"{PURPOSE} on {TOPIC}".replace(" ", "") in whole
        assert f'{{"ids":["{"x" * 150}"]}}3eventsbyann@vm' in whole


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (20, ["a, bb, ccc, dddd"]),
        (12, ["a, bb, ccc,", "    dddd"]),
        (7, ["a, bb,", "    ccc", "    ,", "    ddd", "    d"]),
    ],
)
def test_a_line_goes_on_indented_where_its_next_piece_has_no_room(width: int, lines: list[str]) -> None:
    printed = on_terminal(width, Line(["a", "bb", "ccc", "dddd"], ", ", indent=4))
    assert [line.rstrip() for line in printed] == lines


def test_versions_are_shown_with_their_states_without_those_that_are_drained() -> None:
    states = {1: "drained", 2: "current", 3: "ramping 25 %", 4: "held"}
    info = PurposeStatistics("direct", (*states,), 1, 0, 0, 0, 0, 0, 0, version_states=(*states.values(),))
    assert show.versions(info) == "2, 3: 25 %, 4: held"
