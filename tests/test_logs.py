"""Lines that may come by the thousand: one per kind and period, and how many were left out."""

from __future__ import annotations

import logging
import threading

import pytest

from solarwind import logs
from solarwind.logs import LimitedLog
from solarwind.testing.contract import on_loop, until


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def limited(period_s: float = 60.0) -> tuple[LimitedLog, Time]:
    time = Time()
    return LimitedLog(logging.getLogger("solarwind"), period_s, time), time


def test_the_limited_log_does_not_count_a_kind_that_is_over(caplog: pytest.LogCaptureFixture) -> None:
    log, time = limited()
    for _ in range(3):
        log.warning("no server", "no server yet")
    log.warning("back", "the server is back", ends="no server")
    time.now += 60
    log.flush()
    assert caplog.messages == ["no server yet", "the server is back"]


def test_a_thousand_lines_of_a_kind_are_one_and_at_the_end_of_the_minute_their_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, time = limited()
    for number in range(1_001):
        log.warning("kind", "rejected: event %d", number)
    assert caplog.messages == ["rejected: event 0"]
    time.now += 60
    log.warning("kind", "rejected: event %d", 2_000)
    assert caplog.messages == ["rejected: event 0", "rejected: event 1000 (the last of 1,000 more like it in 60 s)"]
    log.flush()
    assert caplog.messages[2:] == ["rejected: event 2000 (the last of 1 more like it in 1 s)"]


def test_the_limited_log_counts_each_kind_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    log, _ = limited()
    for kind in ("a", "b", "a", "b"):
        log.error(kind, "%s is down", kind)
    assert caplog.messages == ["a is down", "b is down"]


def test_a_kind_that_was_quiet_for_its_period_is_written_at_once(caplog: pytest.LogCaptureFixture) -> None:
    log, time = limited()
    for _ in range(3):
        log.warning("kind", "100% full")
        time.now += 61
    assert caplog.messages == ["100% full"] * 3


def test_the_number_is_said_though_nothing_more_comes(caplog: pytest.LogCaptureFixture) -> None:
    log, time = limited(0.02)

    @on_loop
    async def run() -> None:
        for _ in range(5):
            log.warning("kind", "100% full")
        time.now += 1
        await until(lambda: "100% full (the last of 4 more like it in 1 s)" in caplog.messages)

    run()
    log.flush()


def test_kinds_are_bounded_and_the_number_of_one_that_goes_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_KINDS", 2)
    log, _ = limited()
    for kind in ("a", "a", "b", "c"):
        log.warning(kind, "%s is down", kind)
    assert caplog.messages == ["a is down", "b is down", "a is down (the last of 1 more like it in 1 s)", "c is down"]


def test_the_limited_log_counts_correctly_from_several_threads(caplog: pytest.LogCaptureFixture) -> None:
    log, _ = limited()
    threads = [threading.Thread(target=lambda: [log.warning("kind", "full") for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush()
    assert caplog.messages == ["full", "full (the last of 1,999 more like it in 1 s)"]
