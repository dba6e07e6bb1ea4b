"""The proof: a bank whose handlers and relays are killed, and whose database is restarted, while transfers go on."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from server.serving import Serving
from solarwind import Event, SolarWind
from solarwind.outbox import database as tables
from solarwind.testing.contract import on_loop, until

from .postgres import Postgres

BANK = Path(__file__).with_name("bank.py")
WAIT_S = 0.4  # at most, between two kills


class Process:
    """A handler or a relay that is killed and started again."""

    def __init__(self, folder: Path, number: int, *command: str) -> None:
        self._errors = folder / f"process-{number}.errors"
        self._command = [sys.executable, *command]
        self.start()

    def start(self) -> None:
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(self._command, stderr=errors)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def check(self) -> None:
        assert self._process.poll() is None, self._errors.read_text()


@pytest.fixture
def bank(postgres: Postgres) -> str:
    url = postgres.new()
    tables.init(url)
    return url


def ask(url: str, text: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(text.encode()).fetchall()


@pytest.mark.parametrize(
    ("accounts", "transfers", "kills", "restarts"),
    [
        pytest.param(10, 300, 4, 1, id="short"),
        pytest.param(100, 10_000, 200, 5, id="long", marks=pytest.mark.long),
    ],
)
@on_loop
async def test_each_transfer_is_applied_once_whatever_is_killed(
    accounts: int,
    transfers: int,
    kills: int,
    restarts: int,
    bank: str,
    postgres: Postgres,
    serving: Callable[..., Serving],
    tmp_path: Path,
) -> None:
    """The sum stays the same, and each transfer has one follow-up event."""
    chance = random.Random(kills)
    with psycopg.connect(bank) as connection:
        connection.execute(f"CREATE TABLE account AS SELECT id, 100 AS sum FROM generate_series(1, {accounts}) id")
        connection.execute("ALTER TABLE account ADD PRIMARY KEY (id)")
        connection.execute("CREATE TABLE applied (transfer text)")
    server = serving()
    await server.start()
    wind = SolarWind(server.url)
    booked: dict[str, set[str]] = {}  # the ids of a transfer's follow-up events

    @wind.on("booked", purpose="Count")
    async def count(event: Event) -> None:
        booked.setdefault(event.payload, set()).add(event.id)

    relay = ("-m", "solarwind", "relay", "--database", bank, "--url", server.url)
    processes = [Process(tmp_path, number, str(BANK), server.url, bank) for number in range(2)]
    processes += [Process(tmp_path, number, *relay) for number in range(2, 4)]
    restarted = {kills * (each + 1) // (restarts + 1) for each in range(restarts)}
    ids: list[str] = []
    try:
        async with wind:
            await until(lambda: wind.purposes("transfer"), "somebody to book")
            for kill in range(kills):
                some = transfers // kills
                pairs = [chance.sample(range(1, accounts + 1), 2) for _ in range(some)]
                ids += (await wind.fire_many("transfer", [{"from": one, "to": other} for one, other in pairs])).ids
                await asyncio.sleep(chance.uniform(0, WAIT_S))
                killed = chance.choice(processes)
                killed.kill()
                if kill in restarted:
                    await asyncio.to_thread(postgres.stop, chance.choice([signal.SIGQUIT, signal.SIGINT]))
                    await asyncio.to_thread(postgres.start)
                killed.start()

            async def all_done() -> bool:
                for process in processes:
                    process.check()
                return len(booked) == len(ids) and not (await asyncio.to_thread(tables.status, bank)).pending

            await until(all_done, "every transfer to be booked")
            await wind.settled(60)
            statistics = await wind.statistics()
    finally:
        for process in processes:
            process.kill()
    assert statistics.purposes["transfer", "Book"].dead == 0
    assert statistics.topics["booked"].fired == len(ids) == transfers // kills * kills
    assert set(booked) == set(ids)
    assert {len(each) for each in booked.values()} == {1}
    applied = Counter(transfer for (transfer,) in ask(bank, "SELECT transfer FROM applied"))
    assert set(applied) == set(ids)
    assert set(applied.values()) == {1}
    assert ask(bank, "SELECT sum(sum), count(DISTINCT sum) > 1 FROM account") == [(100 * accounts, True)]
    assert tables.status(bank).refused == []
