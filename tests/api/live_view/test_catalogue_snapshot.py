"""Hidden and deleted items stay so when the API starts while Redis is away, and popularity keeps
its scale.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest
from pydantic import SecretStr
from redis import Redis

from api.live_view import snapshot
from api.live_view.snapshot import NAME, CatalogueSnapshot, Snapshot, merged
from core.settings import Settings
from models import files
from models.popular import PopularModel
from models.registry import Registry
from store.state import keys
from store.state.entities import popularity
from testing.redis import RedisServer
from tests.api.world import (
    FOR_DEVELOPER,
    Client,
    publish,
    serving,
    shown,
    store_items,
    until_missing,
)
from tests.engines.world import ITEMS
from tests.support import eventually

ROUTES = (
    f"{FOR_DEVELOPER}/warm?limit=20",
    "/api/recommendations/42?limit=20",
    "/api/popular?limit=20",
    "/api/items/pay/similar?limit=20",
)
AWAY = SecretStr("redis://127.0.0.1:9/0")


def anywhere(client: Client) -> set[str]:
    """Every item that some route shows."""
    return {item for route in ROUTES for item in shown(client.get(route))}


def hide(redis: Redis, item_id: str) -> None:
    item = next(item for item in ITEMS if item.item_id == item_id)
    store_items(redis, msgspec.structs.replace(item, available=False))


def delete(redis: Redis, item_id: str) -> None:
    redis.hdel(keys.ONLY.items, item_id)
    redis.xadd(keys.ONLY.items_changes, {"item": item_id})


@pytest.mark.parametrize("while_running", [True, False])
def test_hidden_and_deleted_items_stay_so_when_the_api_starts_without_redis(
    settings: Settings, redis: Redis, broker: object, while_running: bool
) -> None:
    publish(settings)
    store_items(redis, *ITEMS)
    with serving(settings) as client:
        assert {"pay", "bank", "coin"} <= anywhere(client)
        if while_running:
            hide(redis, "bank")
            delete(redis, "coin")
            eventually(
                lambda: not {"bank", "coin"} & anywhere(client), "the API has seen the changes"
            )
    if not while_running:
        hide(redis, "bank")
        delete(redis, "coin")
        with serving(settings):
            pass
    with serving(settings, redis_url=AWAY) as client:
        assert "pay" in anywhere(client)
        assert not {"bank", "coin"} & anywhere(client)
        ready = client.get("/health/ready").json()
        assert ready["degraded"] is True
        cause = next(gap["cause"] for gap in ready["missing"] if gap["part"] == "catalogue")
        assert "Redis has not been read since the start" in cause
        assert client.get(ROUTES[0]).json()["degraded"] is True
        # a retrain that read the catalogue before the changes does not bring them back
        publish(settings)
        version = Registry(settings.models_path).current()
        eventually(
            lambda: client.get("/health/ready").json()["model_version"] == version,
            "the new bundle is live",
        )
        assert not {"bank", "coin"} & anywhere(client)


def test_once_redis_answers_its_catalogue_is_served(
    settings: Settings, own_redis_server: RedisServer, broker: object
) -> None:
    publish(settings)
    with Redis.from_url(own_redis_server.url) as redis:
        store_items(redis, *ITEMS)
        hide(redis, "bank")
    with serving(settings):
        pass
    own_redis_server.kill()
    with serving(settings) as client:
        until_missing(client, "redis", "catalogue")
        assert "bank" not in anywhere(client)
        own_redis_server.start()
        until_missing(client)
        with Redis.from_url(own_redis_server.url) as redis:
            store_items(redis, *ITEMS)
        eventually(lambda: "bank" in anywhere(client), "an item that is available again is shown")


def test_without_bundle_and_redis_the_copy_on_disk_is_served(
    settings: Settings, redis: Redis
) -> None:
    store_items(redis, *ITEMS)
    hide(redis, "bank")
    with serving(settings):
        pass
    with serving(settings, redis_url=AWAY) as client:
        assert client.get("/health/ready").status_code == 200
        assert "pay" in anywhere(client)
        assert "bank" not in anywhere(client)


def test_without_write_access_there_is_no_copy_on_disk_and_one_warning(
    settings: Settings, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(settings)
    store_items(redis, *ITEMS)
    (settings.models_path / NAME).mkdir()  # also for root, whom no permission stops
    with serving(settings) as client:
        hide(redis, "bank")
        eventually(lambda: "bank" not in anywhere(client), "the change is shown")
    text = "".join(capsys.readouterr())
    assert text.count("catalogue_snapshot_not_written") == 1


def test_popularity_has_one_scale_with_and_without_redis(settings: Settings, redis: Redis) -> None:
    now = time.time()
    grown = popularity.growth(now, settings.popularity_half_life_days)
    scores = {"unlabelled": [("pay", 8 * grown), ("bank", 2 * grown)]}
    publish_popular(settings, scores)
    redis.zadd(keys.ONLY.popular("unlabelled"), dict(scores["unlabelled"]))
    seen = []
    for changed in ({}, {"redis_url": AWAY}):
        with serving(settings, **changed) as client:
            lines = client.get("/api/popular?limit=20").json()["recommendations"]
            seen.append({line["item_id"]: line["score"] for line in lines[:2]})
    assert seen == [{"pay": 1.0, "bank": 0.25}] * 2


def publish_popular(settings: Settings, scores: dict[str, list[tuple[str, float]]]) -> None:
    def write(folder: Path) -> None:
        files.write_json(folder / "catalogue.json", ITEMS)
        (folder / "popular").mkdir()
        PopularModel(scores).save(folder / "popular")

    Registry(settings.models_path).publish(write)


def test_the_file_is_bounded_and_only_a_cut_line_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "SLACK", 10)
    copy = CatalogueSnapshot(tmp_path, "items")
    copy.replace(ITEMS, ["gone"])
    hidden = [msgspec.structs.replace(item, available=False) for item in ITEMS]
    for _ in range(50):
        if not copy.append(hidden[:1], [], len(ITEMS)):
            copy.replace([*hidden[:1], *ITEMS[1:]], ["gone"])
    assert len((tmp_path / NAME).read_bytes().splitlines()) < 3 * (len(ITEMS) + 10)
    copy.append([], [ITEMS[1].item_id], len(ITEMS))
    with (tmp_path / NAME).open("rb+") as file:
        file.seek(-4, os.SEEK_END)
        file.truncate()
    loaded = copy.load()
    assert loaded is not None
    assert loaded.items[ITEMS[0].item_id].available is False
    assert loaded.deleted == {"gone"}
    assert CatalogueSnapshot(tmp_path, "other-items").load() is None, (
        "another topic's catalogue is not ours"
    )


def test_an_item_hidden_by_an_older_copy_or_the_bundle_stays_hidden() -> None:
    first, second, third = ITEMS[:3]
    hidden = msgspec.structs.replace(first, available=False)
    older = Snapshot(10.0, {first.item_id: hidden, second.item_id: second}, {third.item_id})
    items, deleted = merged(
        [first, msgspec.structs.replace(second, available=False), third, ITEMS[3]], 20.0, older
    )
    assert {item.item_id: item.available for item in items} == {
        first.item_id: False,
        second.item_id: False,
        ITEMS[3].item_id: True,
    }
    assert deleted == {third.item_id}
