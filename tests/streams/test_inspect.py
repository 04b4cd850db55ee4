"""What an operator reads of a user at 80 columns."""

from __future__ import annotations

import json

import pytest
from redis import Redis

from core.errors import ConfigurationError
from core.settings import Settings
from store.state import keys
from store.state.apply import counted_settings
from store.state.shards import Shards
from streams.inspection import output, views

LONG_ID = "user-" + "7" * 120


def test_the_counters_of_a_user_who_left_redis_are_shown(
    settings: Settings, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    redis.hset(keys.ONLY.user_idle("ann"), mapping={"events": 12, "ev:like": 12, "first_seen": 9})
    view = views.user(settings, "ann")
    assert (view["events"], view["idle"]) == (0, {"events": 12, "ev:like": 12})
    assert views.user(settings, "bob")["idle"] is None
    capsys.readouterr()  # of the log, too: no broker answers
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


def test_a_user_is_shown_in_the_shard_that_has_the_state(
    settings: Settings, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    four = settings.model_copy(update={"redis_shards": 4})
    with Shards(four) as shards:
        counted_settings.check(shards.first, four)
        client = shards.of_user("ann")
        client.hset(keys.of(client).user("ann"), mapping={"events": 3, "ev:like": 3})
        shard = keys.of(client).shard
    view = views.user(four, "ann")
    assert (view["shard"], view["events"]) == (shard, 3)
    assert view["keys"][0] == f"{{{shard}}}:user:ann"
    with pytest.raises(ConfigurationError, match=r"REDIS_SHARDS is 1, but .* REDIS_SHARDS=4"):
        views.user(settings, "ann")
