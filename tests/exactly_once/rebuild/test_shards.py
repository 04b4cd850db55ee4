"""REDIS_SHARDS is changed by a rebuild, and every number is the same afterwards."""

from __future__ import annotations

import pytest
from redis import Redis

from core.settings import Settings
from store.log.producer import Producer
from store.state.shards import Shards
from tests import oracle
from tests.conftest import Spawn
from tests.exactly_once.commands import archive, assert_stops, ingest_all, rebuild
from tests.exactly_once.conftest import Ingest, caught_up
from tests.exactly_once.traffic import Traffic

pytestmark = pytest.mark.timeout(480)


def test_the_number_of_shards_changes_by_a_rebuild_and_back_with_the_same_counts(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    four = settings.model_copy(update={"redis_shards": 4})
    traffic = Traffic(settings, seed)
    with Producer(settings) as producer:
        traffic.burst(producer, 500)
    ingest_all(redis, settings, ingest)
    archive(spawn)
    with Producer(settings) as producer:
        traffic.burst(producer, 200)  # which only the log has
    advice = "REDIS_SHARDS is 4, but this Redis has state of REDIS_SHARDS=1"
    assert_stops(ingest(REDIS_SHARDS="4"), advice)
    assert_stops(spawn("streams", "rebuild", REDIS_SHARDS="4"), advice)
    assert_stops(spawn("streams", "live", REDIS_SHARDS="4"), advice)
    oracle.assert_equal(redis, settings)

    plan = rebuild(spawn, "--wipe", REDIS_SHARDS="4")
    assert "all that was computed with REDIS_SHARDS=1" in plan
    assert [key for key in redis.scan_iter() if not key.startswith(b"{")] == []
    with Shards(four) as shards:
        oracle.assert_equal(shards, four)
        child = ingest(REDIS_SHARDS="4")
        caught_up(shards, four, child)  # type: ignore[arg-type]
        child.stop()
        oracle.assert_equal(shards, four)

    plan = rebuild(spawn, "--wipe")
    assert "all that was computed with REDIS_SHARDS=4" in plan
    assert [key for key in redis.scan_iter() if key.startswith(b"{")] == []
    ingest_all(redis, settings, ingest)
    oracle.assert_equal(redis, settings)
