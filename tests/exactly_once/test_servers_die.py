"""Every accepted event counts exactly once when Redis or the broker is killed and restarted, and
when Redis is set back to an older state.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from redis import Redis

from core.settings import Settings
from store.log.producer import Producer
from testing.apache import KafkaBroker
from testing.redis import RedisServer
from tests import oracle
from tests.exactly_once.conftest import Ingest, caught_up
from tests.exactly_once.traffic import Traffic
from tests.support import eventually


def _applied(redis: Redis, settings: Settings) -> int:
    return sum(oracle.positions(redis, settings).values())


@pytest.mark.process
@pytest.mark.timeout(360)
def test_a_redis_restarted_from_its_aof_loses_no_event(
    broker: object, own_redis_server: RedisServer, settings: Settings, ingest: Ingest, seed: int
) -> None:
    with Redis.from_url(own_redis_server.url) as redis, Traffic(settings, seed):
        child = ingest()
        for round_number in range(3):
            expected = 500 * (round_number + 1)
            eventually(
                lambda expected=expected: _applied(redis, settings) > expected, "events applied"
            )
            own_redis_server.kill()
            own_redis_server.start()
        expected = _applied(redis, settings) + 500
        eventually(
            lambda: _applied(redis, settings) > expected, "events applied after the last restart"
        )
    with Redis.from_url(own_redis_server.url) as redis:
        caught_up(redis, settings, child)
        oracle.assert_equal(redis, settings)


@pytest.mark.process
@pytest.mark.timeout(360)
def test_a_redis_set_back_to_an_older_copy_gets_the_lost_events_again(
    broker: object,
    own_redis_server: RedisServer,
    settings: Settings,
    ingest: Ingest,
    seed: int,
    tmp_path: Path,
) -> None:
    copy = tmp_path / "older"
    with Redis.from_url(own_redis_server.url) as redis, Traffic(settings, seed):
        child = ingest()
        eventually(lambda: _applied(redis, settings) > 500, "events applied")
        own_redis_server.kill()
        shutil.copytree(own_redis_server.directory / "appendonlydir", copy)
        own_redis_server.start()
        older = _applied(redis, settings)
        eventually(lambda: _applied(redis, settings) > older + 1000, "a thousand events more")
        own_redis_server.kill()
        shutil.rmtree(own_redis_server.directory / "appendonlydir")
        shutil.copytree(copy, own_redis_server.directory / "appendonlydir")
        own_redis_server.start()
        eventually(
            lambda: _applied(redis, settings) > older + 1500,
            "the lost events and more applied",
        )
    with Redis.from_url(own_redis_server.url) as redis:
        caught_up(redis, settings, child)
        oracle.assert_equal(redis, settings)


@pytest.mark.timeout(240)
def test_a_redis_set_back_while_no_event_arrives_gets_the_lost_events_again(
    broker: object, own_redis_server: RedisServer, settings: Settings, ingest: Ingest, seed: int
) -> None:
    with Producer(settings) as producer:
        Traffic(settings, seed).burst(producer, 400)
    child = ingest()
    with Redis.from_url(own_redis_server.url) as redis:
        caught_up(redis, settings, child)
        own_redis_server.kill()
        shutil.rmtree(own_redis_server.directory / "appendonlydir")
        own_redis_server.start()
        caught_up(redis, settings, child)
        oracle.assert_equal(redis, settings)


@pytest.mark.apache
@pytest.mark.timeout(480)
def test_a_broker_killed_and_restarted_loses_no_event(
    own_broker: KafkaBroker, settings: Settings, redis: Redis, ingest: Ingest, seed: int
) -> None:
    with Traffic(settings, seed):
        child = ingest()
        eventually(lambda: _applied(redis, settings) > 500, "events applied")
        own_broker.kill()
        own_broker.start()
        expected = _applied(redis, settings) + 500
        eventually(
            lambda: _applied(redis, settings) > expected,
            "events applied after the broker came back",
            90,
        )
        own_broker.kill()
        child.signal(signal.SIGKILL)
        own_broker.start()
        child = ingest()
    caught_up(redis, settings, child)
    oracle.assert_equal(redis, settings)


@pytest.mark.process
@pytest.mark.timeout(240)
def test_a_topic_created_anew_stops_ingest_with_advice(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int
) -> None:
    with Producer(settings) as producer:
        Traffic(settings, seed).burst(producer, 300)
    caught_up(redis, settings, first := ingest())
    first.stop()
    # as if the broker had lost the tail of its log
    redis.hset(f"ingest:{settings.interactions_topic}:0", "position", "100000")
    child = ingest()
    assert child.wait(60) == 1
    assert "Redis stands at 100000, but the log ends at" in child.log.read_text()
    redis.hset(
        f"ingest:{settings.interactions_topic}:0",
        mapping={"position": "5", "topic_id": "another-topic"},
    )
    child = ingest()
    if has_topic_ids(broker):
        assert child.wait(60) == 1
        assert "was created anew" in child.log.read_text()


def has_topic_ids(broker: object) -> bool:
    """Whether the test relies on the ids of topics, which a broker may not have."""
    return isinstance(broker, KafkaBroker)


@pytest.mark.process
@pytest.mark.timeout(120)
def test_a_key_of_another_type_stops_ingest_and_is_named(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int
) -> None:
    redis.set("user:user-1", "not a hash")
    with Producer(settings) as producer:
        Traffic(settings, seed).burst(producer, 300)
    child = ingest()
    assert child.wait(45) == 1
    assert "user:user-1" in child.log.read_text()


@pytest.mark.timeout(120)
def test_a_server_that_evicts_is_refused(
    broker: object, own_redis_server: RedisServer, settings: Settings, ingest: Ingest
) -> None:
    with Redis.from_url(own_redis_server.url) as redis:
        redis.config_set("maxmemory-policy", "allkeys-lru")
        child = ingest()
        assert child.wait(45) == 1
        assert "maxmemory-policy allkeys-lru" in child.log.read_text()
