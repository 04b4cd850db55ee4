"""`streams inspect positions --wait` ends when Redis and the archive have what the log had."""

from __future__ import annotations

from typing import Any

import pytest

from core.settings import Settings
from streams import catch_up

Row = dict[str, Any]


def row(log_ends: int, redis: int, archive: int | None, partition: int = 0) -> Row:
    return {
        "topic": "events" if archive is not None else "items",
        "partition": partition,
        "log_ends": log_ends,
        "redis": redis,
        "archive": archive,
    }


def test_it_waits_for_both_up_to_the_end_that_the_log_had_at_first(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under traffic the log never ends; a partition that is added later has only later events."""
    looks = [
        [row(1200, 0, 0), row(5, 5, None)],
        [row(1300, 1200, 0), row(6, 5, None)],
        [row(1400, 1200, 0), row(9, 5, None)],
        last := [row(1500, 1250, 1200), row(9, 5, None), row(4, 0, 0, partition=1)],
    ]
    remaining = iter(looks)
    monkeypatch.setattr(catch_up, "partition_positions", lambda _settings: next(remaining))
    monkeypatch.setattr(catch_up, "LOOK_S", 0.0)
    assert catch_up.wait(settings) is last
    assert capsys.readouterr().err.splitlines() == [
        "waiting for 1,200 messages into redis, 1,200 messages into archive",
        "waiting for 1,200 messages into archive",
    ]
