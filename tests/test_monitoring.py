"""deploy/: the alert rules and the dashboard name only metrics that there are, and every expression has data in a real
Prometheus that scrapes a real server."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from ports import Port
from server.doors import served
from solarwind import Event, Reject, SolarWind
from solarwind.records import AttentionKind
from solarwind.server import Server
from solarwind.testing.contract import on_loop, until

DEPLOY = Path(__file__).parent.parent / "deploy"
RULES, DASHBOARD = DEPLOY / "prometheus-rules.yml", DEPLOY / "grafana-dashboard.json"
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None, reason="it needs Prometheus, as `apt-get install prometheus` has it"
)


def alerts() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def panels() -> dict[str, list[str]]:
    """Return the expressions of each panel of the dashboard."""
    found = json.loads(DASHBOARD.read_text())["panels"]
    return {each["title"]: [of["expr"] for of in each["targets"]] for each in found if each["type"] != "row"}


def expressions() -> Iterator[str]:
    for rule in alerts().values():
        yield rule["expr"]
    for found in panels().values():
        yield from found


def asked(expression: str) -> list[str]:
    """Return an expression as queries that have data also where no alarm is given: variables are filled in, comparisons
    give 0 or 1, and what another takes away is asked for by itself."""
    filled = re.sub(r"\$(topic|purpose)", ".*", expression.replace("$__rate_interval", "1m"))
    parts = re.split(r" unless on \([^)]*\) ", filled)
    return [re.sub(r" (==|>|<) (?=-?[0-9.]+)", r" \1 bool ", part) for part in parts]


@asynccontextmanager
async def busy() -> AsyncIterator[int]:
    """Yield the port of a server with something of everything: versions, dead letters, a purpose with nobody up."""
    wind = SolarWind("memory://")

    @wind.on("orders", purpose="Ship")
    async def ship(event: Event) -> None: ...

    @wind.on("orders", purpose="Refuse")
    async def refuse(event: Event) -> None:
        raise Reject("it is of no use")

    @wind.on("orders", purpose="Forgotten")
    async def forgotten(event: Event) -> None: ...

    @wind.on("orders", purpose="Ship", version=2, rollout=0.5)
    async def ship_anew(event: Event) -> None: ...

    @wind.on("orders", purpose="Ship", version=3, rollout="shadow")
    async def try_to_ship(event: Event) -> None: ...

    async def go_on() -> None:
        while True:
            await wind.fire_many("orders", range(10))
            await asyncio.sleep(0.1)  # between two of many, and nothing waits for it

    server = Server(wind)
    async with wind, served(server) as port, httpx.AsyncClient(timeout=60) as http:
        await wind.joined()
        await wind.off(forgotten)
        await wind.fire_many("orders", range(100))
        await wind.fire("orders", "later", after="1h")

        async def handled() -> bool:
            purposes = (await wind.statistics()).purposes
            return purposes["orders", "Ship"].settled + purposes["orders", "Refuse"].dead == 200

        await until(handled)
        await http.get(f"http://127.0.0.1:{port}/healthz")
        going_on = asyncio.create_task(go_on())
        yield port
        going_on.cancel()


@on_loop
async def test_every_metric_that_rules_and_dashboard_name_is_there() -> None:
    async with busy() as port, httpx.AsyncClient(timeout=60) as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    there = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    (due,) = (
        family.samples for family in text_string_to_metric_families(text) if family.name.endswith("next_due_seconds")
    )
    assert [0 < each.value <= 3_600 for each in due] == [True]
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    all_of_it = [*expressions(), *(each["definition"] for each in variables if "definition" in each)]
    named = {name for each in all_of_it for name in re.findall(r"\b(?:solarwind|process)_\w+", each)}
    assert named <= there
    assert {
        name for name in there if name.startswith("solarwind_") and not name.endswith(("_sum", "_created"))
    } <= named | {
        "solarwind_version_instances",
        "solarwind_version_in_flight",
    }


# What a Prometheus says that it accepts, and what others may.
ACCEPT = {
    "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1": "openmetrics",
    "application/openmetrics-text": "openmetrics",
    "text/plain;version=0.0.4": "plain",
    "*/*": "plain",
    "": "plain",
}
NAMED = 'Say "grüße" \\ to {all}, # once'


@pytest.mark.parametrize("accept", ACCEPT)
@on_loop
async def test_metrics_are_read_by_the_parser_of_the_form_that_the_client_accepts(accept: str) -> None:
    wind = SolarWind("memory://")

    @wind.on("orders", purpose=NAMED)
    async def handle(event: Event) -> None: ...

    async with wind, served(Server(wind)) as port, httpx.AsyncClient(timeout=60) as http:
        await wind.fire_many("orders", range(7))
        await wind.settled(60)
        answer = await http.get(f"http://127.0.0.1:{port}/metrics", headers={"accept": accept})
    media, parse = {
        "openmetrics": ("application/openmetrics-text; version=", openmetrics_families),
        "plain": ("text/plain; version=", text_string_to_metric_families),
    }[ACCEPT[accept]]
    assert answer.headers["content-type"].startswith(media)
    samples = {each.name: each for family in parse(answer.text) for each in family.samples}
    assert answer.text.endswith("\n# EOF\n") == (ACCEPT[accept] == "openmetrics")
    settled = samples["solarwind_purpose_settled_total"]
    assert (settled.labels, settled.value) == ({"topic": "orders", "purpose": NAMED}, 7)
    assert samples["solarwind_purpose_handler_seconds_count"].value == 7


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, as `apt-get install prometheus` has it")
@on_loop
async def test_promtool_finds_no_fault_in_the_metrics() -> None:
    async with busy() as port, httpx.AsyncClient(timeout=60) as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).content

    def checked(given: bytes) -> bytes:
        assert PROMTOOL is not None
        done = subprocess.run([PROMTOOL, "check", "metrics"], input=given, capture_output=True, timeout=600)
        return done.stdout + done.stderr

    assert checked(text) == b""
    assert checked(text + b"# TYPE a counter\na 1\n"), "it finds what is wrong: a counter without a help or _total"


def test_everything_that_needs_a_person_has_an_alert() -> None:
    """Named by its kind, or by the metric that says the same."""
    text = "".join(rule["expr"] for rule in alerts().values())
    same = {"store full": "solarwind_store_full"} | {
        state: f'solarwind_purpose_state{{state="{state}"}}' for state in ("nobody up", "failing")
    }
    for kind in get_args(AttentionKind):
        assert same.get(kind, f'solarwind_attention{{kind="{kind}"}}') in text
    assert all({"summary", "description"} <= rule["annotations"].keys() for rule in alerts().values())
    assert all(rule["labels"]["severity"] in ("critical", "warning", "info") for rule in alerts().values())


# --- in Prometheus --------------------------------------------------------------------------------------------

OF = 'instance="a",topic="T",purpose="p"'


def point(kind: str) -> str:
    return f'solarwind_attention{{{OF},kind="{kind}"}}'


def states(state: str) -> str:
    return f'solarwind_purpose_state{{{OF},state="{state}"}}'


def handled(what: str) -> str:
    return f'solarwind_purpose_{what}_seconds_count{{{OF},version="2"}}'


def commits(le: str) -> str:
    return f'solarwind_commit_seconds_bucket{{store="wind.db",le="{le}"}}'


YES, NO = "1x1600", "0x1600"
SHADOW = f'solarwind_version_state{{{OF},version="2",state="shadow"}}'  # of which nothing is settled
# For each alert series with which it is given, and with which it is not: a value, or one and how it grows, each minute.
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "SolarWindDown": ({'up{job="solarwind"}': NO}, {'up{job="solarwind"}': YES, 'up{job="other"}': NO}),
    "SolarWindUnanswered": (
        {'solarwind_unanswered{question="stores"}': YES},
        {'solarwind_unanswered{question="stores"}': NO},
    ),
    "SolarWindNoOwner": ({point("no owner"): YES}, {point("no owner"): NO, point("failing"): YES}),
    "SolarWindStoreFull": ({'solarwind_store_full{store="a"}': YES}, {'solarwind_store_full{store="a"}': NO}),
    "SolarWindStoreNearlyFull": (
        {'solarwind_store_free_bytes{store="a"}': YES, 'solarwind_store_size_bytes{store="a"}': "100x1600"},
        {
            'solarwind_store_free_bytes{store="a"}': "50x1600",
            'solarwind_store_size_bytes{store="a"}': "100x1600",
            point("store nearly full"): NO,
        },
    ),
    "SolarWindCommitSlow": (
        {commits("1"): "0+9x1600", commits("3"): "0+10x1600", commits("+Inf"): "0+10x1600"},
        {commits("1"): "0+10x1600", commits("3"): "0+10x1600", commits("+Inf"): "0+10x1600"},
    ),
    "SolarWindDelayedStuck": ({point("delayed events stuck"): YES}, {point("delayed events stuck"): NO}),
    "SolarWindDelayedLate": (
        {'solarwind_topic_next_due_seconds{topic="T"}': "-30-60x1600"},
        {'solarwind_topic_next_due_seconds{topic="T"}': "-30x1600"},
    ),
    "SolarWindClock": ({point("clock"): YES}, {point("clock"): NO}),
    "SolarWindOutbox": ({point("outbox"): YES}, {point("outbox"): NO}),
    "SolarWindNobodyUp": ({states("nobody up"): YES}, {states("nobody up"): NO, states("running"): YES}),
    "SolarWindFailing": ({states("failing"): YES}, {states("failing"): NO, states("running"): YES}),
    "SolarWindOldestTooOld": (
        {f"solarwind_purpose_oldest_pending_seconds{{{OF}}}": "0+60x1600", states("paused"): NO},
        {f"solarwind_purpose_oldest_pending_seconds{{{OF}}}": "0+60x1600", states("paused"): YES},
    ),
    "SolarWindDeadLettersGrow": (
        {f"solarwind_purpose_dead{{{OF}}}": "0+1x1600"},
        {f"solarwind_purpose_dead{{{OF}}}": "7x1600"},
    ),
    "SolarWindDeadLetters": ({point("dead letters"): YES}, {point("dead letters"): NO}),
    "SolarWindVersionFailing": (
        {handled("settle"): "0+4x1600", handled("handler"): "0+10x1600"},
        {handled("settle"): "0x1600", handled("handler"): "0+10x1600", SHADOW: YES},
    ),
    "SolarWindSilentInstance": ({point("silent instance"): YES}, {point("silent instance"): NO}),
    "SolarWindWebhookFailing": ({point("webhook failing"): YES}, {point("webhook failing"): NO}),
    "SolarWindHeldBack": ({point("held back"): YES}, {point("held back"): NO}),
    "SolarWindSchema": ({point("schema"): YES}, {point("schema"): NO}),
    "SolarWindScheduleMissed": ({point("schedule missed"): YES}, {point("schedule missed"): NO}),
    "SolarWindScheduleStuck": ({point("schedule stuck"): YES}, {point("schedule stuck"): NO}),
    "SolarWindPaused": ({point("paused"): YES}, {point("paused"): NO}),
    "SolarWindWebhookPaused": ({point("webhook paused"): YES}, {point("webhook paused"): NO}),
}


def promtool(*arguments: object) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@needs_prometheus
def test_promtool_finds_no_fault_in_the_rules_and_the_configuration(tmp_path: Path) -> None:
    promtool("check", "rules", RULES)
    for name in ("prometheus.yml", RULES.name):
        shutil.copy(DEPLOY / name, tmp_path)
    config = tmp_path / "prometheus.yml"
    config.write_text(config.read_text().replace("/etc/prometheus/solarwind.token", str(tmp_path / "token")))
    (tmp_path / "token").write_text("sw_token")
    promtool("check", "config", config)


@pytest.mark.long
@needs_prometheus
def test_each_alert_is_given_where_it_is_to_be_and_not_where_all_is_well(tmp_path: Path) -> None:
    assert CASES.keys() == alerts().keys()
    tests = []
    for alert, cases in CASES.items():
        at = {"1d": "25h", "1h": "2h"}.get(alerts()[alert].get("for", ""), "30m")
        firing = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
        for series, given in zip(cases, (True, False), strict=True):
            samples = [{"labels": "{}", "value": 1}] if given else []
            tests.append(
                {
                    "name": f"{alert} {given}",
                    "interval": "1m",
                    "input_series": [{"series": name, "values": values} for name, values in series.items()],
                    "promql_expr_test": [{"expr": firing, "eval_time": at, "exp_samples": samples}],
                }
            )
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", file)


CONFIG = """
global: {{scrape_interval: 3s, scrape_timeout: 3s, evaluation_interval: 3s}}
rule_files: [{rules}]
scrape_configs: [{{job_name: solarwind, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
"""


@pytest.mark.long
@needs_prometheus
@on_loop
async def test_every_expression_has_data_in_a_prometheus_that_scrapes_a_server(tmp_path: Path) -> None:
    assert PROMETHEUS is not None
    async with busy() as port, httpx.AsyncClient(timeout=60) as http:
        config, listens = tmp_path / "prometheus.yml", Port()
        config.write_text(CONFIG.format(rules=RULES, port=port))
        log = (tmp_path / "log").open("wb")
        process = await asyncio.create_subprocess_exec(
            *(PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data"),
            *(f"--web.listen-address=127.0.0.1:{listens.number}", "--log.level=error"),
            stdout=log,
            stderr=log,
        )
        log.close()
        root = f"http://127.0.0.1:{listens.number}/api/v1"
        left = [query for expression in expressions() for query in asked(expression)]

        async def all_answered() -> bool:
            assert process.returncode is None, (tmp_path / "log").read_text()
            try:
                while left:
                    got = await http.get(f"{root}/query", params={"query": left[0]})
                    if got.status_code == 503:  # it begins
                        return False
                    answer = got.json()
                    assert answer["status"] == "success", (left[0], answer)
                    if not any("NaN" not in each["value"] for each in answer["data"]["result"]):
                        return False
                    del left[0]
            except httpx.TransportError:  # it is not up yet
                return False
            return True

        try:
            try:
                await until(all_answered)
            except AssertionError:
                raise AssertionError(f"there is no data for {left[0]}") from None
            (group,) = (await http.get(f"{root}/rules")).json()["data"]["groups"]
            assert {rule["name"] for rule in group["rules"]} == alerts().keys()
            await until(lambda: _evaluated(http, root), "all rules to be evaluated")
        finally:
            process.terminate()
            await process.wait()


async def _evaluated(http: httpx.AsyncClient, root: str) -> bool:
    (group,) = (await http.get(f"{root}/rules")).json()["data"]["groups"]
    assert not [rule for rule in group["rules"] if rule.get("lastError")]
    return all(rule["health"] == "ok" for rule in group["rules"])
