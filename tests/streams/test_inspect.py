"""What an operator reads of a user at 80 columns."""

from __future__ import annotations

import json

import pytest
from redis import Redis

from core.settings import Settings
from store.state import keys
from streams.inspection import output, views

LONG_ID = "user-" + "7" * 120


def test_the_counters_of_a_user_who_left_redis_are_shown(
    settings: Settings, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    redis.hset(keys.ONLY.user_idle("ann"), mapping={"events": 12, "ev:like": 12, "first_seen": 9})
    view = views.user(settings, "ann")
    assert (view["events"], view["idle"]) == (0, {"events": 12, "ev:like": 12})
    assert views.user(settings, "bob")["idle"] is None
    output.show(view, True)
    assert json.loads(capsys.readouterr().out)["idle"]["events"] == 12


def test_ids_of_any_length_are_printed_whole(
    settings: Settings,
    redis: Redis,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    output.show(views.user(settings, LONG_ID), False)
    printed = capsys.readouterr().out
    assert f"user_id             {LONG_ID}\n" in printed
    assert "…" not in printed
