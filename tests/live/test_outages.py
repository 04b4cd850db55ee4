"""Live workers while a worker, Redis or Kafka dies: no vector is wrong, and all become fresh."""

from __future__ import annotations

import pytest
from redis import Redis

from core.settings import Settings
from models.als import ALSModel
from models.registry import Registry
from store.log import client as log
from store.state import keys
from testing.apache import KafkaBroker
from testing.redis import RedisServer
from tests.conftest import Spawn
from tests.live.processes import check_vectors_until, live_and_ingest, wait_until_fresh
from tests.live.world import EventStream, live_model, publish, send_last_events
from tests.support import eventually


@pytest.mark.process
@pytest.mark.timeout(480)
def test_no_vector_is_wrong_while_a_worker_dies_and_bundles_change(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    log.ensure_topics(settings)
    models: dict[str, ALSModel] = {}

    def publish_bundle(seed: int, items: int = 40) -> None:
        version = publish(settings, seed, items)
        models[version] = live_model(settings)

    def folded_by(version: str) -> bool:
        return any(
            redis.hget(keys.ONLY.user_als(user_id), "version") == version.encode()
            for user_id in EventStream.USERS
        )

    publish_bundle(1)
    ingest, dying, surviving = (
        spawn("streams", "ingest"),
        spawn("streams", "live", LIVE_READ_S="0"),
        spawn("streams", "live", LIVE_READ_S="0"),
    )
    with EventStream(settings):
        first = next(iter(models))
        check_vectors_until(
            redis, settings, models, lambda: folded_by(first), "vectors of the first bundle"
        )
        publish_bundle(2)
        second = list(models)[1]
        check_vectors_until(
            redis, settings, models, lambda: folded_by(second), "vectors of the second bundle"
        )
        dying.kill()
        publish_bundle(3, items=43)
        third = list(models)[2]
        check_vectors_until(
            redis, settings, models, lambda: folded_by(third), "vectors of the third bundle"
        )
        Registry(settings.models_path).rollback()
        before = redis.hget(keys.ONLY.user("user-0"), "events")
        check_vectors_until(
            redis,
            settings,
            models,
            lambda: redis.hget(keys.ONLY.user("user-0"), "events") != before,
            "more events",
        )
    send_last_events(settings)
    wait_until_fresh(redis, settings, models[second], ingest, surviving)


@pytest.mark.process
def test_after_an_outage_of_redis_all_vectors_become_fresh(
    settings: Settings, own_redis_server: RedisServer, spawn: Spawn, broker: object
) -> None:
    children = live_and_ingest(settings, spawn)
    model = live_model(settings)
    with EventStream(settings):
        with Redis.from_url(own_redis_server.url) as redis:
            eventually(lambda: redis.exists(keys.ONLY.user_als("user-0")), "a first vector", 60.0)
        own_redis_server.kill()
        eventually(
            lambda: "server_unavailable" in children[0].log.read_text(),
            "the worker logs the outage",
        )
        own_redis_server.start()
    with Redis.from_url(own_redis_server.url) as redis:
        send_last_events(settings)
        wait_until_fresh(redis, settings, model, *children)


@pytest.mark.apache
@pytest.mark.timeout(480)
def test_after_an_outage_of_kafka_all_vectors_become_fresh(
    settings: Settings, redis: Redis, spawn: Spawn, own_broker: KafkaBroker
) -> None:
    children = live_and_ingest(settings, spawn)
    send_last_events(settings)
    eventually(lambda: redis.exists(keys.ONLY.user_als("user-0")), "a first vector", 60.0)
    own_broker.kill()
    eventually(
        lambda: "server_unavailable" in children[0].log.read_text(),
        "the worker logs the outage",
    )
    own_broker.start()
    send_last_events(settings, number=2)
    eventually(
        lambda: redis.hget(keys.ONLY.user("user-0"), "events") == b"2", "the events after it", 60.0
    )
    wait_until_fresh(redis, settings, live_model(settings), *children)
