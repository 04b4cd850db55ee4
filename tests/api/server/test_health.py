"""The API logs a part that fails once, and its recovery with the length of the failure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from api import health as api_health
from api.health import Health
from api.metrics import Metrics


@pytest.fixture
def events() -> Iterator[list[Any]]:
    before = structlog.get_config()
    structlog.reset_defaults()
    with capture_logs() as logged:
        yield logged
    structlog.configure(**before)


def test_a_part_that_fails_for_long_is_two_lines(events: list[Any]) -> None:
    health = Health(Metrics(), ("redis",))
    for number in range(100):
        health.mark_failed("redis", f"cause {number}")
    assert health.degraded
    health.mark_working("redis")
    health.mark_working("redis")
    first, last = [line for line in events if line["log_level"] != "debug"]
    assert (first["event"], first["log_level"]) == ("part_failed", "warning")
    assert first["cause"] == "cause 0"
    assert (last["event"], last["failures"]) == ("part_recovered", 100)
    assert last["outage_s"] >= 0
    assert not health.degraded


def test_a_part_that_fails_and_recovers_again_and_again_is_not_logged_each_time(
    events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    health = Health(Metrics(), ("redis",))
    for _ in range(50):
        health.mark_failed("redis", "slow")
        health.mark_working("redis")
    logged = [line["event"] for line in events if line["log_level"] != "debug"]
    assert logged == ["part_failed", "part_recovered"]
    health.mark_failed("redis", "away")
    monkeypatch.setattr(api_health, "QUIET_S", 0.0)  # as if it had lasted that long
    health.mark_failed("redis", "still away")
    assert events[-1]["log_level"] == "warning"
