"""Versions side by side on the command line: how they are shown, and that every door refuses the same in the same
words."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from rich.cells import cell_len

from solarwind import SolarWind, SolarWindError

from .conftest import Process, Serving, call, done, eventually
from .test_cli_tables import run, terminal

TOPIC, PURPOSE = "com.example.video.uploaded", "Encode video to MP4"
PATH = f"/v1/topics/{TOPIC}/purposes/{quote(PURPOSE)}"


@pytest.fixture(scope="module")
def serving_versions() -> Iterator[tuple[Serving, SolarWind]]:
    """A server, and a process with versions of two purposes: of the first one, version 2 is a shadow, 3 has a quarter,
    4 copies and is held; of `Busy`, version 2 is a shadow with a copy in hand."""
    process = Process("serve", "--json", "--port", "0", "--engine", "memory://")
    process._end.cancel()  # it is there for all of them
    server, go_on = Serving(process), threading.Event()
    wind = SolarWind(server.url)

    @wind.on(TOPIC, purpose=PURPOSE)
    async def old(number: int) -> None:
        wind.fire("video.encoded", {"of": number, "codec": "the old one"})

    @wind.on(TOPIC, purpose=PURPOSE, version=2, rollout="shadow")
    async def new(number: int) -> None:
        if number:
            raise ValueError("no such codec\non this machine")
        wind.fire_many("video.encoded", [{"of": number, "part": part} for part in range(7)])

    wind.on(TOPIC, purpose=PURPOSE, version=3, rollout=0.25)(lambda number: None)
    wind.on(TOPIC, purpose=PURPOSE, version=4, exchange="fanout", rollout="hold")(lambda number: None)
    wind.on(TOPIC, purpose="Alone")(lambda number: None)
    wind.on("busy", purpose="Busy")(lambda number: None)
    wind.on("busy", purpose="Busy", version=2, rollout="shadow")(lambda number: go_on.wait(600))
    with wind:
        wind.fire("busy", 0).wait(600)

        def compared() -> int:
            found = server.ask("GET", f"{PATH}/rollout")[1]["versions"][1]["compared"]
            assert isinstance(found, int)
            if found < 2:
                wind.fire(TOPIC, 0 if found < 1 else 1).wait(600)
            return found

        eventually(lambda: compared() >= 2, "two events to be compared")
        busy = "/v1/topics/busy/purposes/Busy/rollout"
        eventually(lambda: server.ask("GET", busy)[1]["versions"][1]["in_flight"], "a copy to be in hand")
        yield server, wind
        go_on.set()
    process.close()


def words(*command: str) -> list[str]:
    return [{"T": TOPIC, "P": PURPOSE}.get(word, word) for word in command]


def test_a_rollout_says_how_each_version_stands_and_what_was_compared(
    serving_versions: tuple[Serving, SolarWind],
) -> None:
    out = done(*words("rollout", "show", "T", "P"), "--url", serving_versions[0].url).out
    heading, *rows, said = out.splitlines()
    assert heading.split()[3:] == [
        "EXCHANGE",
        "INSTANCES",
        "PENDING",
        "IN",
        "FLIGHT",
        "HANDLED",
        "SETTLED",
        "MEAN",
        "P95",
    ]
    states = [re.split(" {2,}", row.strip())[1:4] for row in rows]
    assert states == [
        ["current", "75 %", "direct"],
        ["shadow", "0 %", "direct"],
        ["ramping 25 %", "25 %", "direct"],
        ["held", "0 %", "fanout"],
    ]
    assert [row.split()[-1] for row in rows[:2]] == ["ms", "ms"]
    assert re.fullmatch(r"Shadow 2: \d compared, \d differed, 0 missed", said)


def test_it_is_said_where_the_version_that_was_promoted_has_no_instance(
    serving_versions: tuple[Serving, SolarWind],
) -> None:
    url = serving_versions[0].url
    other = SolarWind(url)
    other.on("gone", purpose="Gone")(lambda number: None)
    other.on("gone", purpose="Gone", version=2, rollout="hold")(lambda number: None)
    with other:
        assert "meanwhile" not in done("rollout", "show", "gone", "Gone", "--url", url).out
    wind = serving_versions[1]
    wind.on("gone", purpose="Gone")(lambda number: None)
    eventually(
        lambda: "current  100 %  direct            1" in done("rollout", "show", "gone", "Gone", "--url", url).out
    )
    said = done("rollout", "promote", "gone", "Gone", "--version", "2", "--url", url).lines[-1]
    assert said == "2 has no instance, so 1 is current meanwhile."


def test_differences_are_paragraphs_with_both_results_under_one_another(
    serving_versions: tuple[Serving, SolarWind],
) -> None:
    command = words("rollout", "differences", "T", "P"), "--url", serving_versions[0].url
    lines = done(*command[0], *command[1:]).lines
    found = done(*command[0], "--json", *command[1:]).json
    assert [line.split("  ")[0] for line in lines[::3]] == [each["id"] for each in found]
    assert lines[-2].startswith("  current   settled, 1 fired: video.encoded {")
    assert lines[-1].startswith('  shadow 2  settled, 7 fired: video.encoded {"of":0,"part":0}; video.encoded')
    assert lines[-1].endswith('{"of":0,"part":4}; …')
    assert lines[2] == "  shadow 2  failed: ValueError: no such codec\\non this machine"
    assert len(done(*command[0], "--limit", "1", *command[1:]).lines) == 3
    assert (found[0]["shadow"]["outcome"], found[0]["current"]["fired_count"]) == ("failed", 1)


@pytest.mark.parametrize("width", [60, 80])
def test_a_difference_is_whole_on_a_narrow_terminal(
    serving_versions: tuple[Serving, SolarWind], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(width, monkeypatch) as read:
        run(*words("rollout", "differences", "T", "P"), "--url", serving_versions[0].url)
        printed = re.sub(r"\x1b\[[0-9;]*m", "", read()).splitlines()
    assert max(map(cell_len, printed)) <= width
    whole = " ".join(" ".join(printed).split())
    for part in range(5):
        assert f'video.encoded {{"of":0,"part":{part}}};' in whole
    assert 'current settled, 1 fired: video.encoded {"of":0,"codec":"the old one"} shadow 2 settled, 7 fired' in whole
    for each in done(*words("rollout", "differences", "T", "P"), "--json", "--url", serving_versions[0].url).json:
        assert any(line.startswith(each["id"]) for line in printed)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("command", [["rollout", "show", "T", "P"], ["purposes"]], ids=" ".join)
def test_versions_fit_the_terminal_and_keep_what_matters(
    serving_versions: tuple[Serving, SolarWind], command: list[str], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(width, monkeypatch) as read:
        run(*words(*command), "--url", serving_versions[0].url)
        printed = re.sub(r"\x1b\[[0-9;]*m", "", read()).splitlines()
    assert max(map(cell_len, printed)) <= width
    kept = ["TOPIC", "PURPOSE", "STATE"] if command == ["purposes"] else ["VERSION", "STATE", "SHARE", "PENDING"]
    assert {*kept} <= {*printed[0].split()}
    if command[:2] == ["rollout", "show"]:
        assert [re.split(" {2,}", line.strip())[1] for line in printed[1:5]] == [
            "current", "shadow", "ramping 25 %", "held"
        ]  # fmt: skip


def test_purposes_show_which_version_is_a_shadow(serving_versions: tuple[Serving, SolarWind]) -> None:
    line = next(line for line in done("purposes", "--url", serving_versions[0].url).lines if PURPOSE in line)
    assert "  1, 2: shadow, 3: 25 %, 4: held  " in line


@pytest.mark.parametrize(
    ("share", "shown"), [("25%", "25 %"), ("12.5 %", "12.5 %"), ("0.25", "25 %"), ("33.3%", "33.3 %")]
)
def test_a_share_may_be_written_in_per_cent_as_it_is_shown(
    serving_versions: tuple[Serving, SolarWind], share: str, shown: str
) -> None:
    command = words("rollout", "share", "T", "P", "--version", "3"), "--url", serving_versions[0].url
    try:
        assert f"ramping {shown}  {shown}  " in done(*command[0], "--share", share, *command[1:]).out
    finally:
        done(*command[0], "--share", "0.25", *command[1:])


@pytest.mark.parametrize("share", ["25", "150%", "-1%", "nan"])
def test_a_share_that_is_none_is_refused_with_both_forms(
    serving_versions: tuple[Serving, SolarWind], share: str
) -> None:
    command = words("rollout", "share", "T", "P", "--version", "3", "--share", share)
    answer = call(*command, "--url", serving_versions[0].url, env={"COLUMNS": "200"})
    assert answer.code in (1, 2)
    assert "such as 0.5 or 50%, got" in answer.err
    assert share in answer.err


# A verb, what comes after the purpose in its path, its body, its code and words of the refusal.
REFUSED: dict[str, tuple[list[str], str, Any, tuple[int, str], list[str]]] = {
    "a share of more than 1": (
        ["rollout", "share", "T", "P", "--version", "3", "--share", "1.5"],
        f"{PATH}/rollout/share",
        {"version": 3, "share": 1.5},
        (400, "bad-argument"),
        ["got 1.5"],
    ),
    "shares of more than 1 together": (
        ["rollout", "share", "T", "P", "--version", "2", "--share", "0.8"],
        f"{PATH}/rollout/share",
        {"version": 2, "share": 0.8},
        (409, "conflict"),
        ["a share of 0 to 0.75, which is what is left beside other versions, got 0.8 for version 2"],
    ),
    "a share of a fan-out": (
        ["rollout", "share", "T", "P", "--version", "4", "--share", "0.1"],
        f"{PATH}/rollout/share",
        {"version": 4, "share": 0.1},
        (403, "not-allowed"),
        ["got version 4 with exchange 'fanout'"],
    ),
    "a fan-out as a shadow": (
        ["rollout", "shadow", "T", "P", "--version", "4"],
        f"{PATH}/rollout/shadow",
        {"version": 4},
        (403, "not-allowed"),
        ["got version 4 with exchange 'fanout'"],
    ),
    "a shadow that never joined": (
        ["rollout", "shadow", "T", "P", "--version", "9"],
        f"{PATH}/rollout/shadow",
        {"version": 9},
        (404, "not-found"),
        ["one of 1, 2, 3, 4, got 9, which never joined"],
    ),
    "promoting what never joined": (
        ["rollout", "promote", "T", "P", "--version", "9"],
        f"{PATH}/rollout/promote",
        {"version": 9},
        (404, "not-found"),
        ["one of 1, 2, 3, 4, got 9, which never joined"],
    ),
    "the current version as its own shadow": (
        ["rollout", "shadow", "T", "Alone", "--version", "1"],
        f"/v1/topics/{TOPIC}/purposes/Alone/rollout/shadow",
        {"version": 1},
        (409, "conflict"),
        ["expected another version of purpose 'Alone'", "got only version 1"],
    ),
    "rolling back with nothing before": (
        ["rollout", "rollback", "T", "Alone"],
        f"/v1/topics/{TOPIC}/purposes/Alone/rollout/rollback",
        None,
        (409, "conflict"),
        ["that was current before version 1, got none"],
    ),
    "promoting a shadow that has copies in hand": (
        ["rollout", "promote", "busy", "Busy", "--version", "2"],
        "/v1/topics/busy/purposes/Busy/rollout/promote",
        {"version": 2},
        (409, "conflict"),
        ["no copies in hand, got 1 that it has as a shadow"],
    ),
    "a share for a shadow that has copies in hand": (
        ["rollout", "share", "busy", "Busy", "--version", "2", "--share", "0.5"],
        "/v1/topics/busy/purposes/Busy/rollout/share",
        {"version": 2, "share": 0.5},
        (409, "conflict"),
        ["no copies in hand, got 1 that it has as a shadow"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_meaning_is_refused_in_the_same_words_at_every_door_and_changes_nothing(
    serving_versions: tuple[Serving, SolarWind], case: str
) -> None:
    command, path, body, code, said = REFUSED[case]
    command = words(*command)
    server = serving_versions[0]
    verb, topic, purpose = command[1:4]
    stands = server.ask("GET", path.rpartition("/")[0])

    async def in_python() -> SolarWindError:
        async with SolarWind(server.url) as wind:
            with pytest.raises(SolarWindError) as found:
                await getattr(wind, verb)(topic, purpose, **(body or {}))
            return found.value

    error = asyncio.run(in_python())
    status, problem = server.ask("POST", path, body)
    answer = call(*command, "--url", server.url)
    assert (error.code, (status, problem["code"])) == (code[1], code)
    assert (answer.code, answer.err.count("\n")) == (1, 1), answer
    for part in said:
        assert part in str(error)
        assert part in problem["detail"]
        assert part in answer.err
    assert server.ask("GET", path.rpartition("/")[0]) == stands
