"""A change in Redis (event, item, popularity) shows in the next reads."""

from __future__ import annotations

import pytest
from redis import Redis

from core.settings import Settings
from core.types import Item
from store.state import keys
from tests.api.world import (
    FOR_DEVELOPER,
    Client,
    event,
    publish,
    remember,
    serving,
    shown,
    store_items,
    until_missing,
)
from tests.engines.world import ITEMS
from tests.support import eventually


def test_popularity_follows_redis_from_0_to_1_of_the_most_popular_item(
    api: Client, redis: Redis, settings: Settings
) -> None:
    import time

    from store.state.entities.popularity import growth

    weight = growth(time.time(), settings.popularity_half_life_days)
    redis.zadd(keys.ONLY.popular("developer_startup"), {"coin": 6.0 * weight, "pay": 1.5 * weight})
    answer = eventually(
        lambda: (
            (body := api.get("/api/popular?limit=2").json())["recommendations"][0]["item_id"]
            == "coin"
            and body
        ),
        "coin",
    )
    scores = {line["item_id"]: line["score"] for line in answer["recommendations"]}
    assert scores == {"coin": 1.0, "pay": pytest.approx(0.25)}


def test_a_new_a_changed_and_a_deleted_item_show_within_a_refresh(
    api: Client, redis: Redis
) -> None:
    store_items(redis, *ITEMS, Item(item_id="fresh", item_type="startup", categories=["fintech"]))
    eventually(
        lambda: "fresh" in shown(api.get(f"{FOR_DEVELOPER}/warm?limit=50")),
        "a new item is recommended",
    )
    store_items(redis, Item(item_id="fresh", item_type="startup", available=False))
    eventually(
        lambda: "fresh" not in shown(api.get(f"{FOR_DEVELOPER}/warm?limit=50")),
        "an unavailable item is not",
    )
    redis.hdel(keys.ONLY.items, "coin")
    redis.xadd(keys.ONLY.items_changes, {"item": "coin"})
    eventually(
        lambda: (
            "coin" not in shown(api.get("/api/recommendations/warm?limit=50&available_only=false"))
        ),
        "a deleted item is gone",
    )


def test_an_item_deleted_while_the_api_was_down_stays_deleted(
    settings: Settings, redis: Redis
) -> None:
    publish(settings)
    remember(redis, "warm", "pay", "bank", events=7)
    store_items(redis, *(item for item in ITEMS if item.item_id != "coin"))
    with serving(settings) as client:
        assert "coin" not in shown(
            client.get("/api/recommendations/warm?limit=50&available_only=false")
        )
        assert "ghost" in shown(client.get("/api/recommendations/warm?limit=50"))
        publish(settings)
        eventually(
            lambda: client.get("/health/ready").json()["model_version"].endswith("-2") or True,
            "a new bundle",
        )
        assert "coin" not in shown(
            client.get("/api/recommendations/warm?limit=50&available_only=false")
        )


def test_an_event_changes_the_next_read(api: Client, redis: Redis) -> None:
    before = shown(api.get(f"{FOR_DEVELOPER}/warm?limit=50"))
    remember(redis, "warm", "coin")
    assert "coin" in before
    assert "coin" not in shown(api.get(f"{FOR_DEVELOPER}/warm?limit=50"))


def test_a_user_with_corrupt_keys_is_answered_and_others_are_not_affected(
    api: Client, redis: Redis
) -> None:
    redis.set(keys.ONLY.user("broken"), "not a hash")
    answer = api.get(f"{FOR_DEVELOPER}/broken").json()
    assert (answer["method_used"], answer["degraded"]) == ("popular", True)
    assert api.get(f"{FOR_DEVELOPER}/warm").json()["method_used"] == "als"


@pytest.mark.process
def test_an_answer_is_not_degraded_when_every_part_works(
    settings: Settings, redis: Redis, broker: object
) -> None:
    publish(settings)
    remember(redis, "warm", "pay", "bank", events=7)
    with serving(settings) as client:
        until_missing(client)
        assert client.get("/health/ready").json()["degraded"] is False
        for path in (f"{FOR_DEVELOPER}/warm", "/api/users/warm", "/api/users/warm/similar"):
            assert client.get(path).json()["degraded"] is False, path
        assert client.write("POST", "/api/events", event()).status_code == 202
