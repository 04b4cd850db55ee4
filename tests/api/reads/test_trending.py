"""`GET /api/popular?window=`: what applications show as trending."""

from __future__ import annotations

import time

from redis import Redis

from api.schemas.answers import ItemList
from core.settings import Settings
from store.state import keys
from store.state.entities.trending import COARSE, FINE
from tests.api.world import Client, checked, publish, serving, shown
from tests.support import eventually


def touched(redis: Redis, ago: float, name: str = "developer_startup", **weights: float) -> None:
    """Weights of events `ago` seconds ago, as ingest leaves them in popularity and in the
    buckets.
    """
    at = time.time() - ago
    redis.zadd(keys.of(redis).popular(name), dict.fromkeys(weights, 1.0))
    for level in (FINE, COARSE):
        for item, weight in weights.items():
            redis.zincrby(
                keys.of(redis).trending(name, level.bucket, int(at // level.bucket) * level.bucket),
                weight,
                item,
            )


def test_popularity_is_ranked_by_hour_day_and_week(settings: Settings, redis: Redis) -> None:
    publish(settings)
    touched(redis, 0, bank=2.0, pay=1.0)
    touched(redis, 5 * 3600, medpay=9.0)
    touched(redis, 3 * 86400, coin=20.0)
    touched(redis, 0, "investor_startup", mute=5.0)
    with serving(settings) as api:
        _orders(api)


def _orders(api: Client) -> None:
    eventually(
        lambda: shown(api.get("/api/popular?window=hour&limit=3")) == ["mute", "bank", "pay"],
        "the last hour's order",
    )
    eventually(
        lambda: shown(api.get("/api/popular?window=day&limit=3")) == ["medpay", "mute", "bank"],
        "the last day's order",
    )
    eventually(
        lambda: shown(api.get("/api/popular?window=week&limit=3")) == ["coin", "medpay", "mute"],
        "the last week's order",
    )
    assert shown(
        api.get("/api/popular?window=hour&limit=2&use_case=developer_startup&item_type=startup")
    ) == ["bank", "pay"]
    assert shown(api.get("/api/popular?window=week&category=fintech&limit=3")) == [
        "coin",
        "medpay",
        "bank",
    ]
    answer = api.get("/api/popular?window=hour&limit=4&use_case=developer_startup").json()
    checked(answer, ItemList)
    first, _, third = answer["recommendations"][:3]
    assert (first["score"], first["reasons"][0]["text"]) == (
        1.0,
        "popular with developers in the last hour",
    )
    assert third["score"] == 0.0, "the rest follows as it would without a window"
    assert answer["fallbacks"] == []


def test_new_events_show_in_the_windows_of_a_running_api(api: Client, redis: Redis) -> None:
    assert shown(api.get("/api/popular?window=hour&limit=1")) != ["mute"]
    touched(redis, 0, mute=5.0)
    eventually(
        lambda: shown(api.get("/api/popular?window=hour&limit=1")) == ["mute"],
        "the last hour's order",
    )


def test_without_data_of_a_window_the_answer_is_of_all_time_and_says_so(api: Client) -> None:
    answer = api.get("/api/popular?window=day&limit=2").json()
    assert len(answer["recommendations"]) == 2
    assert [line["engine"] for line in answer["fallbacks"]] == ["popular"]
    assert "the last day is not read from Redis yet" in answer["fallbacks"][0]["cause"]


def test_a_window_that_does_not_exist_is_refused(api: Client) -> None:
    answer = api.get("/api/popular?window=month")
    assert answer.status_code == 422
    assert "month" in answer.json()["detail"]
    assert api.get("/api/recommendations/42?window=hour").status_code == 422
