"""What the live workers leave in Redis, as reads take it: vectors of users, and factors of new
items.
"""

from __future__ import annotations

import numpy as np
import pytest
from redis import Redis

from core.settings import Settings
from core.types import Item
from engines.fold import made_with
from models.registry import Registry
from store.state import keys
from tests.api.world import FOR_DEVELOPER, Client, publish, shown, store_items
from tests.engines.world import ITEMS
from tests.support import eventually

HEALTH = np.array([0.0, 1.0], dtype="<f4").tobytes()


@pytest.fixture
def space(settings: Settings, api: Client) -> str:
    """What vectors of the live bundle are made with."""
    model = Registry(settings.models_path).load(None).als
    assert model is not None
    return made_with(model, settings.use_cases, settings.history_cap)


def keep(redis: Redis, key: str, space: str, as_of: int, vector: bytes = HEALTH) -> None:
    redis.hset(key, mapping={"version": "v", "made_with": space, "as_of": as_of, "vector": vector})


def write_new_item(
    redis: Redis, item_id: str, space: str, vector: tuple[float, float] | None
) -> None:
    """Factors of a new item as a live worker writes them, or (None) takes them away."""
    if vector is None:
        redis.delete(keys.ONLY.item_als(item_id))
        redis.zrem(keys.ONLY.new_items, item_id)
    else:
        keep(redis, keys.ONLY.item_als(item_id), space, 3, np.array(vector, dtype="<f4").tobytes())
        redis.zadd(keys.ONLY.new_items, {item_id: 1})
    redis.xadd(keys.ONLY.new_item_changes, {"item": item_id})


def counted(api: Client, state: str) -> float:
    name = f'eddyline_api_vectors_total{{state="{state}"}} '
    return next(
        (
            float(line.removeprefix(name))
            for line in api.get("/metrics").text.splitlines()
            if line.startswith(name)
        ),
        0.0,
    )


def test_reads_use_a_fresh_vector_and_count_its_state(
    api: Client, redis: Redis, space: str
) -> None:
    path = "/api/recommendations/warm?limit=1&engine=als"
    assert shown(api.get(path)) == ["coin"]
    keep(redis, keys.ONLY.user_als("warm"), space, 7)
    assert shown(api.get(path)) == ["pill"]
    assert shown(api.get(path + "&reasons=false")) == ["pill"]
    keep(redis, keys.ONLY.user_als("warm"), space, 6)
    assert shown(api.get(path)) == ["coin"]
    assert api.get(path).json()["as_of"] == 7, "folded in on the spot, from all seven"
    keep(redis, keys.ONLY.user_als("warm"), "another", 7)
    assert shown(api.get(path)) == ["coin"]
    assert {
        state: counted(api, state) for state in ("fresh", "stale", "missing", "other_model")
    } == {
        "fresh": 2,
        "stale": 2,
        "missing": 1,
        "other_model": 1,
    }


def test_a_corrupt_vector_is_ignored(api: Client, redis: Redis, space: str) -> None:
    key = keys.ONLY.user_als("warm")
    for spoil in (
        lambda: keep(redis, key, space, 7, b"short"),
        lambda: redis.hset(
            key, mapping={"version": b"\xff", "made_with": b"\xff", "as_of": "x", "vector": HEALTH}
        ),
        lambda: redis.hset(key, "as_of", "7"),
        lambda: redis.set(key, "of another type"),
    ):
        redis.delete(key)
        spoil()
        answer = api.get("/api/recommendations/warm?limit=1&engine=als")
        assert shown(answer) == ["coin"]
        assert answer.json()["fallbacks"] == []


def test_a_new_item_is_recommended_and_removed_within_a_refresh(
    api: Client, redis: Redis, space: str
) -> None:
    path = "/api/recommendations/warm?limit=1&engine=als"
    write_new_item(redis, "star", space, (2, 0))
    eventually(lambda: shown(api.get(path)) == ["star"], "its factors are picked up")
    assert api.get(path).json()["recommendations"][0]["reasons"][0]["items"] == ["pay", "bank"]
    store_items(redis, *ITEMS, Item(item_id="star", item_type="startup", title="Star"))
    eventually(
        lambda: shown(api.get(f"{FOR_DEVELOPER}/warm?limit=1")) == ["star"],
        "with an entry the use case shows it too",
    )
    write_new_item(redis, "star", space, (0, 2))
    eventually(lambda: shown(api.get(path)) == ["coin"], "its factors changed")
    write_new_item(redis, "star", space, None)
    write_new_item(redis, "odd", space, (float("nan"), 2))
    write_new_item(redis, "other", "another", (2, 0))
    write_new_item(redis, "moon", space, (3, 0))
    eventually(lambda: shown(api.get(path)) == ["moon"], "the next one is here")
    assert [
        line["item_id"]
        for line in api.get(path.replace("limit=1", "limit=9")).json()["recommendations"]
        if line["method"] == "als"
    ][:2] == ["moon", "coin"]


def test_new_items_written_before_the_start_are_there(
    settings: Settings, api: Client, redis: Redis, space: str
) -> None:
    from tests.api.world import serving

    write_new_item(redis, "star", space, (2, 0))
    with serving(settings) as other:
        assert shown(other.get("/api/recommendations/warm?limit=1&engine=als")) == ["star"]


def test_a_new_bundle_ignores_new_item_factors_of_the_old_one(
    settings: Settings, api: Client, redis: Redis, space: str
) -> None:
    path = "/api/recommendations/warm?limit=1&engine=als"
    write_new_item(redis, "star", space, (2, 0))
    eventually(lambda: shown(api.get(path)) == ["star"], "its factors are picked up")
    old = api.get(path).json()["model_version"]
    import tests.api.world as world

    model = world.als()
    other = type(model)(
        model.item_ids, model.item_factors * np.float32(0.5), regularization=0.1, alpha=10
    )
    world.als, original = (lambda: other), world.als  # type: ignore[assignment]
    try:
        new = publish(settings)
    finally:
        world.als = original
    answer = eventually(
        lambda: (response := api.get(path)).json()["model_version"] == new and response,
        "the new bundle answers",
    )
    assert old != new
    assert shown(answer) == ["coin"]
    assert "eddyline_api_swap_seconds_count 2.0" in api.get("/metrics").text
    assert "eddyline_api_model_age_seconds " in api.get("/metrics").text


def test_a_new_catalogue_entry_is_recommended_by_content(api: Client, redis: Redis) -> None:
    store_items(
        redis,
        *ITEMS,
        Item(item_id="fresh", item_type="startup", categories=["health"], created_at=0),
    )
    answer = eventually(
        lambda: (
            "fresh" in shown(response := api.get(f"{FOR_DEVELOPER}/cold?limit=4&include_seen=true"))
            and response
        ),
        "it is recommended",
    )
    line = next(line for line in answer.json()["recommendations"] if line["item_id"] == "fresh")
    assert (line["method"], line["reasons"][0]["attributes"]) == ("content_based", ["health"])
