"""The API with REDIS_SHARDS=4: answers are as with one shard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from core.settings import Settings
from store.state import keys
from store.state.entities import trending
from store.state.shards import Shards, shard_of_user, users_by_shard
from tests.api.reads.test_trending import touched
from tests.api.trained_users import PEOPLE, publish_users
from tests.api.world import (
    FOR_DEVELOPER,
    Client,
    remember,
    serving,
    shown,
    store_items,
    until_missing,
)
from tests.engines.world import ITEMS
from tests.support import eventually


@pytest.fixture
def sharded(settings: Settings) -> Settings:
    return settings.model_copy(update={"redis_shards": 4, "topic_partitions": 4})


@pytest.fixture
def shards(sharded: Settings, redis: Redis) -> Iterator[Shards]:
    """Four shards with the catalogue and PEOPLE, who liked bank and pay."""
    with Shards(sharded) as shards:
        store_items(shards.first, *ITEMS)
        assert len(users_by_shard(PEOPLE, 4)) > 1
        for name in PEOPLE:
            remember(shards.of_user(name), name, "bank", "pay", interests=["health"])
        yield shards


@pytest.fixture
def sharded_api(sharded: Settings, shards: Shards) -> Iterator[Client]:
    publish_users(sharded, PEOPLE)
    with serving(sharded, api_after_s=0.3) as client:
        yield client


def test_users_of_all_shards_are_read(sharded_api: Client) -> None:
    for name in PEOPLE:
        state = sharded_api.get(f"/api/users/{name}").json()
        assert state["interaction_count"] == 2
        answer = sharded_api.get(f"{FOR_DEVELOPER}/{name}?limit=50")
        assert not {"bank", "pay"} & set(shown(answer)), "seen"


@pytest.mark.process
def test_no_answer_is_degraded_when_every_shard_works(broker: object, sharded_api: Client) -> None:
    until_missing(sharded_api, "content", "popular")  # which the bundle lacks
    for name in PEOPLE:
        for path in (f"/api/users/{name}", f"{FOR_DEVELOPER}/{name}?limit=50"):
            assert sharded_api.get(path).json()["degraded"] is False, path


def test_users_of_all_shards_are_compared(sharded_api: Client) -> None:
    similar = sharded_api.get(f"/api/users/{'fin'}/similar").json()
    assert {user["user_id"] for user in similar["users"]} == {"both", "fin-too"}
    assert all(set(user["shared_items"]) == {"bank", "pay"} for user in similar["users"])
    keen = sharded_api.get("/api/items/coin/users").json()
    assert {user["user_id"] for user in keen["users"]} <= set(PEOPLE)
    assert sharded_api.get("/api/items/bank/users").json()["users"] == [], "all have had it"


def test_popular_and_trending_are_sums_of_all_shards(sharded_api: Client, shards: Shards) -> None:
    for client in shards:
        touched(client, 0, bank=2.0, medpay=1.5)
    touched(shards[1], 0, pay=7.0)
    touched(shards[2], 2 * 3600, coin=30.0)
    for number, client in enumerate(shards):
        client.zadd(keys.of(client).popular("developer_startup"), {"mute": 100.0 * number})
    eventually(
        lambda: (
            shown(sharded_api.get("/api/popular?window=hour&limit=3")) == ["bank", "pay", "medpay"]
        ),
        "the last hour's order",
    )
    eventually(
        lambda: shown(sharded_api.get("/api/popular?window=day&limit=2")) == ["coin", "bank"],
        "the last day's order",
    )
    eventually(
        lambda: (
            shown(sharded_api.get("/api/popular?limit=1&use_case=developer_startup")) == ["mute"]
        ),
        "the most popular item",
    )
    hour = sharded_api.get("/api/items/bank/activity").json()["hour"]["developer_startup"]
    assert sum(hour["weights"]) == 8.0
    assert hour["seconds"] == trending.FINE.bucket


def test_a_read_waits_for_the_shard_of_its_partition(
    sharded_api: Client, shards: Shards, sharded: Settings
) -> None:
    topic = sharded.interactions_topic
    for partition in range(4):
        client = shards.of_partition(topic, partition)
        client.hset(keys.of(client).position(topic, partition), "position", "8")
        path = f"{FOR_DEVELOPER}/fin?after={topic}:{partition}"
        assert sharded_api.get(f"{path}:7").json()["stale"] is False
        assert sharded_api.get(f"{path}:8").json()["stale"] is True


def test_a_shard_that_fails_fails_only_its_users(
    sharded_api: Client, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = sharded_api.app.state.service.view
    failing = shard_of_user("fin", 4)
    # the live view would report at its next refresh that the shard works
    monkeypatch.setattr(view, "refresh", lambda: None)
    eventually(lambda: not view.shard_health.fails(failing), "the last refresh has ended")
    view.shard_health.mark_failed(failing, "testing")
    for name in PEOPLE:
        count = sharded_api.get(f"/api/users/{name}").json()["interaction_count"]
        assert count == (0 if shard_of_user(name, 4) == failing else 2)
    missing = sharded_api.get("/health/ready").json()["missing"]
    assert {"part": "redis", "cause": "testing"} in missing
