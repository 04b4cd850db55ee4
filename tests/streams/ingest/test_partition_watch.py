"""What ingest measures beside its work: the memory of Redis and its limit, for the alerts."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY
from redis import Redis

from core.settings import Settings
from store.log import client as log
from streams.ingest.partition_watch import IngestWatch

LIMIT = 512 * 1024 * 1024


@pytest.mark.usefixtures("broker")
def test_the_memory_of_redis_and_its_limit_are_metrics(settings: Settings, redis: Redis) -> None:
    log.ensure_topics(settings)
    redis.config_set("maxmemory", LIMIT)
    try:
        IngestWatch(settings, [settings.interactions_topic]).look()
    finally:
        redis.config_set("maxmemory", 0)
    used = REGISTRY.get_sample_value("eddyline_ingest_redis_memory_bytes")
    assert used == pytest.approx(redis.info("memory")["used_memory"], rel=0.5)
    assert REGISTRY.get_sample_value("eddyline_ingest_redis_memory_limit_bytes") == LIMIT
