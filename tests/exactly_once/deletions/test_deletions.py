"""A deletion removes every older record and no younger one, whenever it is applied and whatever
Redis held before.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from redis import Redis

from core.settings import Settings
from store.log.producer import Producer
from store.state import keys
from store.state.entities import users
from testing.redis import RedisServer
from tests import oracle
from tests.conftest import Spawn
from tests.exactly_once.commands import archive, rebuild
from tests.exactly_once.conftest import Ingest, caught_up
from tests.exactly_once.deletions.steps import act, delete, publish, stored_ids, view
from tests.support import eventually

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


def test_records_older_than_a_deletion_stay_out_after_a_wipe_and_a_rebuild(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn
) -> None:
    with Producer(settings) as producer:
        publish(producer, "deleted", "returned", "other")
        act(producer, settings, "deleted", "returned", "other")
        delete(producer, "deleted", "returned")
        publish(producer, "returned")
        act(producer, settings, "returned", count=2)
    child = ingest()
    caught_up(redis, settings, child)
    assert stored_ids(redis) == ({"returned", "other"}, {"returned", "other"})
    child.stop()
    archive(spawn)
    rebuild(spawn, "--wipe")
    # the partitions of `users` and `items` are read again from the beginning, twice
    for _ in range(2):
        child = ingest()
        caught_up(redis, settings, child)
        assert stored_ids(redis) == ({"returned", "other"}, {"returned", "other"})
        assert [
            users.read(redis, name, 50).events for name in ("deleted", "returned", "other")
        ] == [
            0,
            2,
            5,
        ]
        assert len(oracle.assert_equal(redis, settings).experiments) > 0
        child.stop()
        for topic in (settings.users_topic, settings.items_topic):
            for partition in range(settings.topic_partitions):
                redis.hdel(keys.ONLY.position(topic, partition), "position")


def test_events_after_a_deletion_count_when_redis_is_emptied_under_two_running_ingests(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    names = [f"user-{number}" for number in range(40)]
    first, second = (ingest(group=settings.ingest_group) for _ in range(2))
    with Producer(settings) as producer:
        act(producer, settings, *names, count=2)
        delete(producer, *names)
        act(producer, settings, *names)
        publish(producer, *names[:10])
        redis.flushall()
        delete(producer, *names[10:20])
        act(producer, settings, *names, count=1)
        caught_up(redis, settings, first)
        redis.flushall()  # while no batch is under way
        caught_up(redis, settings, first)
    second.check()
    counts = [users.read(redis, name, 50).events for name in names]
    assert counts == [6] * 10 + [1] * 10 + [6] * 20
    oracle.assert_equal(redis, settings)


def test_a_deletion_that_is_applied_after_younger_events_removes_only_the_older_ones(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    """With duplicates: an event is a duplicate even if the deletion removes the earlier one."""
    with Producer(settings) as producer:
        for name in ("42", "43", "44"):
            producer.interaction(view(settings, name, f"early-{name}"))
        act(producer, settings, "42", "43", "44", count=3)
        delete(producer, "42", "43")
        for name in ("42", "44"):
            # a duplicate of an event that is older than the deletion
            producer.interaction(view(settings, name, f"early-{name}"))
            for _ in range(2):
                producer.interaction(view(settings, name, f"late-{name}"))
            producer.raw(settings.interactions_topic, name.encode(), b"not json")
        act(producer, settings, "42", "44", count=4)
    # it reads no users: as if the topic of users were read last
    unaware = ingest(USERS_TOPIC=f"other-{settings.users_topic}")
    eventually(
        lambda: users.read(redis, "42", 50).events == 9,
        "every event counted while the deletion is unknown",
    )
    eventually(
        lambda: users.read(redis, "43", 50).events == 4,
        "the same for a user without younger events",
    )
    unaware.stop()
    caught_up(redis, settings, ingest())
    assert [users.read(redis, name, 50).events for name in ("42", "43", "44")] == [5, 0, 9]
    assert redis.keys("user:43*") == []
    assert len(oracle.assert_equal(redis, settings).experiments) > 0


def test_a_redis_set_back_before_a_deletion_gets_it_again_while_ingest_runs(
    broker: object,
    own_redis_server: RedisServer,
    settings: Settings,
    ingest: Ingest,
    tmp_path: Path,
) -> None:
    names = [f"user-{number}" for number in range(20)]
    with Redis.from_url(own_redis_server.url) as redis, Producer(settings) as producer:
        publish(producer, *names)
        act(producer, settings, *names, count=3)
        child = ingest()
        caught_up(redis, settings, child)
        own_redis_server.kill()
        shutil.copytree(own_redis_server.directory / "appendonlydir", tmp_path / "older")
        own_redis_server.start()
        delete(producer, *names[:10])
        act(producer, settings, *names, count=2)
        publish(producer, *names[:5])
        caught_up(redis, settings, child)
        own_redis_server.kill()
        shutil.rmtree(own_redis_server.directory / "appendonlydir")
        shutil.copytree(tmp_path / "older", own_redis_server.directory / "appendonlydir")
        own_redis_server.start()
        caught_up(redis, settings, child)
        assert [users.read(redis, name, 50).events for name in names] == [2] * 10 + [5] * 10
        assert stored_ids(redis)[0] == {*names[:5], *names[10:]}
        oracle.assert_equal(redis, settings)


def test_a_kill_between_publishing_and_applying_a_deletion_does_not_lose_it(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    with Producer(settings) as producer:
        publish(producer, "42", "43")
        act(producer, settings, "42", "43")
        child = ingest("die=3-deletions-published,1")
        caught_up(redis, settings, child)
        delete(producer, "42")
        assert child.wait(60) == -signal.SIGKILL
        assert redis.exists("user:42"), "published, not applied"
        act(producer, settings, "42", count=1)
    caught_up(redis, settings, ingest())
    assert users.read(redis, "42", 50).events == 1
    assert stored_ids(redis) == ({"43"}, {"43"})
    oracle.assert_equal(redis, settings)


def test_an_emptied_redis_gets_its_settings_and_experiments_again_while_ingest_runs(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    with Producer(settings) as producer:
        act(producer, settings, "other")
    child = ingest()
    caught_up(redis, settings, child)
    stored = redis.hgetall(keys.ONLY.settings), redis.hgetall(keys.ONLY.experiments).keys()
    redis.flushall()
    with Producer(settings) as producer:
        act(producer, settings, "deleted", "other")
        caught_up(redis, settings, child)
        delete(producer, "deleted")
    caught_up(redis, settings, child)
    assert (
        redis.hgetall(keys.ONLY.settings),
        redis.hgetall(keys.ONLY.experiments).keys(),
    ) == stored
    oracle.assert_equal(redis, settings)  # the outcomes of the deleted user are gone
