"""docs/HTTP.md: its lines of curl work as they stand, its programs run, and its tables name what there is."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ports import Port
from solarwind import errors
from solarwind.server.call import STATUS
from solarwind.server.delivery import WebhookSpec
from solarwind.server.http import ENDPOINTS
from solarwind.server.take import Settle, Take
from solarwind.testing.contract import on_loop

from .doors import at, mounted
from .serving import Serving

DOCUMENT = Path(__file__).parents[2] / "docs" / "HTTP.md"
MAX_S = 800

# Before the document's own lines: each curl must be answered with 2xx, and what was asked is noted. The feed (-N) has
# no end.
PREPARED = """
set -eu
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
curl() {
    local noted='%{stderr}%{http_code} %{method} %{url_effective}\\n'
    case " $* " in
        *" -N "*) command curl -sS --max-time 0.3 -w "$noted" "$@" || [ $? = 28 ] ;;
        *) command curl -sS --fail-with-body --max-time 20 --retry 9 --retry-connrefused -w "$noted" "$@" ;;
    esac
}
"""

# The receiver hears of the event before its webhook is removed.
HEARD = {
    "receiver.py &": "receiver.py > heard &",
    "curl -X DELETE $HOOKS": "until [ -s heard ]; do sleep 0.05; done\ncurl -X DELETE $HOOKS",
}


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return [text for each, text in found if each == language]


def rows(columns: int) -> list[tuple[str, ...]]:
    """Return the rows of all tables with so many columns."""
    found = (line[1:-1].split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("| "))
    return [tuple(cell.strip() for cell in row) for row in found if len(row) == columns]


@pytest.mark.long
@on_loop
async def test_each_line_of_curl_works_as_written_and_there_is_one_for_each_endpoint(tmp_path: Path) -> None:
    port = Port()
    receiver = str(port.number)
    program = next(text for text in blocks("python") if "is_genuine" in text)
    (tmp_path / "receiver.py").write_text(program.replace("8000", receiver))
    server = Serving(tmp_path, "--webhook-network", "127.0.0.1", scheme="http")
    await server.start()
    try:
        script = PREPARED + "".join(blocks("sh")).replace("7400", str(server.port)).replace("8000", receiver)
        for line, instead in HEARD.items():
            assert line in script
            script = script.replace(line, instead)
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, noted = (text.decode() for text in await asyncio.wait_for(process.communicate(), MAX_S))
    finally:
        server.kill()
        port.close()
    assert process.returncode == 0, out[-2_000:] + noted
    asked = re.findall(r"^(\d+) (\w+) http://127.0.0.1:\d+([^?\n]*)", noted, re.MULTILINE)
    assert {status[0] for status, _, _ in asked} == {"2"}, noted
    for each in ENDPOINTS:
        path = re.sub(r"\{\w+\}", "[^/]+", each.path)
        there = any(method == each.method and re.fullmatch(path, found) for _, method, found in asked)
        assert there or each.statuses[0] // 100 != 2, f"{each.method} {each.path} has no line"
    heard = (tmp_path / "heard").read_text()
    assert re.search(r'[0-9a-f-]{36} \{"name": "dog.mov"\}\n', heard), "the receiver heard of it"
    assert "retry: 1000" in out


@on_loop
async def test_the_app_with_the_doors_in_it_runs(tmp_path: Path) -> None:
    program = next(text for text in blocks("python") if "FastAPI" in text)
    names: dict[str, Any] = {"__name__": "app"}
    exec(program.replace("sqlite:///wind.db", f"sqlite:///{tmp_path}/wind.db"), names)
    async with mounted(names["outer"]) as port, at(port) as outside, at(port, "/events") as doors:
        assert isinstance((await outside.http.post("/orders/7")).json(), str)
        assert (await doors.ask("GET", "/v1/topics/orders"))["fired"] == 1


def test_what_is_shown_as_json_is_json() -> None:
    for text in blocks("json"):
        json.loads(text)


def test_the_doors_are_those_that_there_are() -> None:
    named = [tuple(cell.strip("`") for cell in row[:3]) for row in rows(4) if row[1].startswith("`/")]
    there = [(each.method, each.path, "" if each.right == "open" else each.right) for each in ENDPOINTS]
    assert sorted(named) == sorted(there)


def test_the_codes_are_those_that_there_are() -> None:
    named = {(int(status), code.strip("`")) for status, code, _ in rows(3) if re.fullmatch(r"[45]\d\d", status)}
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    there = {(next((status for kind, status in STATUS if issubclass(each, kind)), None), each) for each in kinds}
    for status, kind in there:
        fallback = 400 if kind.fault in ("caller", "peer") else 500
        assert (status or fallback, kind.code) in named, kind


def test_the_fields_are_those_that_there_are() -> None:
    text = DOCUMENT.read_text()
    for kind, heading in ((Take, "| take |"), (Settle, "| settle |"), (WebhookSpec, "| PUT |")):
        table = text[text.index(heading) :].partition("\n\n")[0]
        named = re.findall(r"`(\w+)`", "".join(line.split(" | ")[0] for line in table.splitlines()[2:]))
        assert sorted(named) == sorted(kind.__struct_fields__)
