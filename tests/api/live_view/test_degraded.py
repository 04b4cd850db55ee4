"""Answers while Redis, the broker or the model is away, and after its return.

The tests kill real servers.
"""

from __future__ import annotations

import time

import pytest
from redis import Redis

from api.schemas.answers import Ready
from core.settings import Settings
from core.types import Recommendations
from models.registry import Registry
from store.log.client import admin
from store.log.topics import needs
from store.state.apply import counted_settings
from testing.apache import KafkaBroker
from testing.redis import RedisServer
from testing.tansu import TansuBroker
from tests.api.world import (
    FOR_DEVELOPER,
    checked,
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


def test_reads_are_degraded_while_redis_is_down_and_recover(
    settings: Settings, own_redis_server: RedisServer, broker: object
) -> None:
    publish(settings)
    redis = Redis.from_url(own_redis_server.url)
    remember(redis, "warm", "pay", "bank", events=7)
    store_items(redis, *ITEMS)
    redis.close()
    with serving(settings) as client:
        until_missing(client)
        assert client.get(f"{FOR_DEVELOPER}/warm").json()["method_used"] == "als"
        own_redis_server.kill()
        answer = client.get(f"{FOR_DEVELOPER}/warm")
        checked(answer.json(), Recommendations)
        assert shown(answer) != []
        assert (answer.json()["method_used"], answer.json()["degraded"]) == ("popular", True)
        assert {"als", "content_based"} <= {
            fallback["engine"] for fallback in answer.json()["fallbacks"]
        }
        until_missing(client, "redis")
        began = time.monotonic()
        for _ in range(20):
            for path in (
                f"{FOR_DEVELOPER}/warm",
                "/api/popular",
                "/api/items/pay/similar",
                "/api/explain/warm/coin",
                "/api/users/warm",
            ):
                answer = client.get(path)
                assert (answer.status_code, answer.json()["degraded"]) == (200, True), path
        assert time.monotonic() - began < 20 * 5 * settings.api_redis_timeout_s / 2, (
            "a known failure is not waited for again"
        )
        assert client.get("/health/ready").status_code == 200
        assert client.write("POST", "/api/events", event()).status_code == 202, (
            "the log does not need Redis"
        )
        refused = client.write("PATCH", "/api/items/pay", {"available": False})
        assert (refused.status_code, refused.json()["error"]) == (503, "store_unavailable")
        own_redis_server.start()
        until_missing(client)
        answer = eventually(
            lambda: not (read := client.get(f"{FOR_DEVELOPER}/warm").json())["degraded"] and read,
            "reads are whole again",
        )
        assert (answer["method_used"], answer["interaction_count"]) == ("als", 7)


def test_a_hanging_redis_delays_one_read_by_its_timeout(
    settings: Settings, own_redis_server: RedisServer
) -> None:
    import signal

    publish(settings)
    with serving(settings, api_redis_timeout_s=0.3) as client:
        assert client.get(f"{FOR_DEVELOPER}/42").status_code == 200
        own_redis_server.child.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert client.get(f"{FOR_DEVELOPER}/42").json()["degraded"] is True
            assert time.monotonic() - began < 3
            began = time.monotonic()
            for _ in range(30):
                assert client.get(f"{FOR_DEVELOPER}/42").status_code == 200
            assert time.monotonic() - began < 30 * 0.3 / 2
        finally:
            own_redis_server.child.signal(signal.SIGCONT)
        eventually(lambda: "redis" not in client.get("/health/ready").text, "Redis is back")


def test_state_of_another_number_of_shards_is_named_and_nobody_looks_new(
    settings: Settings, redis: Redis
) -> None:
    publish(settings)
    store_items(redis, *ITEMS)
    remember(redis, "warm", "pay", "bank", events=7)
    counted_settings.check(redis, settings)
    with serving(settings, redis_shards=4) as client:
        eventually(
            lambda: "state of REDIS_SHARDS=1" in client.get("/health/ready").text, "it is named"
        )
        answer = client.get(f"{FOR_DEVELOPER}/warm").json()
        assert (answer["method_used"], answer["degraded"]) == ("popular", True)
        redis.flushall()  # as `rebuild --wipe` does
        until_missing(client)
        redis.hset("{0}:ingest:settings", "redis_shards", "several")
        eventually(
            lambda: "which Eddyline did not write" in client.get("/health/ready").text,
            "it is named",
        )


@pytest.mark.process
def test_writes_fail_while_the_broker_is_down_and_recover(
    settings: Settings, redis: Redis, own_broker: KafkaBroker | TansuBroker
) -> None:
    publish(settings)
    remember(redis, "warm", "pay", "bank", events=7)
    with serving(settings, api_timeout_s=2.0) as client:
        until_missing(client)
        eventually(lambda: client.write("POST", "/api/events", event()).is_success, "accepted")
        own_broker.kill()
        began = time.monotonic()
        refused = client.write("POST", "/api/events", [event("e2"), event("e3")])
        assert (refused.status_code, refused.json()["error"]) == (503, "log_unavailable")
        assert "same event_id" in refused.json()["detail"]
        refused = client.write("PUT", "/api/items/x", {"item_type": "startup"})
        assert (refused.status_code, refused.json()["error"]) == (503, "log_unavailable")
        assert time.monotonic() - began < 8
        read = client.get(f"{FOR_DEVELOPER}/warm").json()
        assert (read["method_used"], read["degraded"]) == ("als", True)
        until_missing(client, "kafka")
        own_broker.start()
        until_missing(client)
        eventually(
            lambda: client.write("POST", "/api/events", event("e4")).status_code == 202,
            "events are accepted again",
        )
        assert client.get(f"{FOR_DEVELOPER}/warm").json()["degraded"] is False


def test_the_api_starts_without_bundle_redis_and_broker_and_names_them(settings: Settings) -> None:
    from pydantic import SecretStr

    alone = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:9/0")})
    began = time.monotonic()
    with serving(alone) as client:
        assert time.monotonic() - began < 10
        ready = client.get("/health/ready")
        checked(ready.json(), Ready)
        assert ready.status_code == 503
        assert {"redis", "model", "als"} <= {gap["part"] for gap in ready.json()["missing"]}
        assert client.get("/health/live").status_code == 200
        answer = client.get(f"{FOR_DEVELOPER}/42")
        assert (shown(answer), answer.json()["degraded"], answer.json()["model_version"]) == (
            [],
            True,
            None,
        )
        assert len(answer.json()["fallbacks"]) == 4


def test_without_a_bundle_the_catalogue_in_redis_is_served_by_popularity(
    settings: Settings, redis: Redis
) -> None:
    store_items(redis, *ITEMS)
    with serving(settings) as client:
        assert client.get("/health/ready").status_code == 200
        answer = client.get(f"{FOR_DEVELOPER}/42").json()
        assert (answer["method_used"], answer["degraded"], len(answer["recommendations"])) == (
            "popular",
            True,
            6,
        )


def test_a_bundle_without_a_part_answers_with_the_other_parts(
    settings: Settings, redis: Redis
) -> None:
    publish(settings, without="als")
    remember(redis, "warm", "pay", "bank", events=7)
    with serving(settings) as client:
        answer = client.get(f"{FOR_DEVELOPER}/warm").json()
        assert answer["method_used"] == "content_based"
        assert "als" in {gap["part"] for gap in client.get("/health/ready").json()["missing"]}


@pytest.mark.parametrize("part", ["als", "content"])
def test_a_damaged_part_degrades_answers_until_a_complete_bundle_is_live(
    settings: Settings, redis: Redis, broker: object, part: str
) -> None:
    remember(redis, "warm", "pay", "bank", events=7)
    version = publish(settings)
    broken = next(
        path
        for path in sorted((settings.models_path / version / part).iterdir())
        if path.suffix in (".npy", ".npz")
    )
    broken.write_bytes(broken.read_bytes()[:-1])
    with serving(settings) as client:
        until_missing(client, part)
        ready = client.get("/health/ready").json()
        assert (ready["degraded"], [gap["part"] for gap in ready["missing"]]) == (True, [part])
        assert broken.name in ready["missing"][0]["cause"]
        read = client.get(f"{FOR_DEVELOPER}/warm").json()
        assert (read["degraded"], len(read["recommendations"]) > 0) == (True, True)
        publish(settings)
        until_missing(client)
        assert client.get(f"{FOR_DEVELOPER}/warm").json()["degraded"] is False


def test_the_api_starts_with_a_binary_pointer_and_names_it(
    settings: Settings, redis: Redis, broker: object
) -> None:
    version = publish(settings)
    store_items(redis, *ITEMS)
    (settings.models_path / "current").write_bytes(b"\xff\xfe\x00")
    with serving(settings) as client:
        cause = eventually(
            lambda: [
                gap["cause"]
                for gap in client.get("/health/ready").json()["missing"]
                if gap["part"] == "model"
            ],
            "noticed",
        )
        assert "current cannot be read: it is not text" in cause[0]
        assert client.get(f"{FOR_DEVELOPER}/42").json()["method_used"] == "popular"
        Registry(settings.models_path).promote(version)
        eventually(
            lambda: client.get("/health/ready").json()["model_version"] == version,
            "the promoted version serves",
        )


def test_the_old_bundle_stays_live_when_the_new_one_is_damaged(
    settings: Settings, redis: Redis
) -> None:
    old = publish(settings)
    with serving(settings) as client:
        new = publish(settings)
        eventually(
            lambda: client.get("/health/ready").json()["model_version"] == new,
            "the new bundle serves",
        )
        Registry(settings.models_path).promote(old)
        eventually(
            lambda: client.get("/health/ready").json()["model_version"] == old, "rolled back"
        )
        (settings.models_path / new / "manifest.json").write_text("{")
        (settings.models_path / "current").write_text(f"{new}\n{old}\n")
        cause = eventually(
            lambda: [
                gap["cause"]
                for gap in client.get("/health/ready").json()["missing"]
                if gap["part"] == "model"
            ],
            "noticed",
        )
        assert "manifest.json" in cause[0]
        assert client.get(f"{FOR_DEVELOPER}/42").json()["model_version"] == old
        Registry(settings.models_path).promote(old)
        eventually(
            lambda: (
                not [
                    1
                    for gap in client.get("/health/ready").json()["missing"]
                    if gap["part"] == "model"
                ]
            ),
            "recovered",
        )


def test_the_topics_are_created_when_the_broker_is_up(
    settings: Settings, redis: Redis, broker: object
) -> None:
    names = {spec.name for spec in needs.specs(settings)}
    with serving(settings) as client:
        eventually(lambda: client.write("POST", "/api/events", event()).is_success, "accepted")
        # a broker may create the topic of that event by itself, before the API creates all
        eventually(lambda: names <= set(admin(settings).list_topics(timeout=10).topics), "created")
