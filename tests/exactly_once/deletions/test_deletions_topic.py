"""The topic of deletions gives Redis the deletions it lacks, and holds no id in clear text."""

from __future__ import annotations

import pytest
from redis import Redis

from core.deletions import IdHasher
from core.settings import Settings
from store.log.producer import Producer
from store.log.reader import LogReader
from store.state import keys
from store.state.apply.deletions import lookup
from store.state.shards import Shards
from streams.ingest.deletions import recovery
from tests import oracle
from tests.conftest import Spawn
from tests.exactly_once.commands import archive
from tests.exactly_once.conftest import Ingest, caught_up
from tests.exactly_once.deletions.steps import act, delete, publish, stored_ids
from tests.support import eventually

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

SECRET = "alice@example.org"


def test_a_deletion_that_only_its_own_topic_holds_is_applied_to_an_older_redis(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    """As after compaction has removed its record from `users` and `items`: the ids in Redis are
    hashed to find it.
    """
    with Producer(settings) as producer:
        publish(producer, "a:b%", "other")
        act(producer, settings, "a:b%", "other")
        child = ingest()
        caught_up(redis, settings, child)
        dump = {
            key: redis.dump(key)
            for key in [*redis.keys("user:*"), b"items", *redis.keys("experiment:*:outcomes")]
        }
        delete(producer, "a:b%")
        caught_up(redis, settings, child)
        child.stop()
    for key, value in dump.items():
        redis.restore(key, 0, value, replace=True)
    for hash_ in (keys.ONLY.users_deleted, keys.ONLY.items_deleted):
        redis.delete(hash_)
    for partition in range(settings.topic_partitions):
        redis.hdel(keys.ONLY.deletions, f"position:{partition}")
    assert recovery.recover(settings, Shards(settings)) == 2
    assert stored_ids(redis) == ({"other"}, {"other"})
    assert redis.keys("user:a*") == []
    oracle.assert_equal(redis, settings)


def test_no_id_of_a_deleted_user_remains_in_clear_text(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    with Producer(settings) as producer:
        publish(producer, SECRET)
        act(producer, settings, SECRET)
        delete(producer, SECRET)
        # as an older release wrote it
        producer.raw(settings.deletions_topic, SECRET.encode(), b"20.5")
    child = ingest()
    caught_up(redis, settings, child)
    child.stop()
    clear = SECRET.encode()
    keys_with_id = [
        key
        for key in redis.scan_iter()
        if clear in key or (redis.type(key) == b"hash" and clear in b" ".join(redis.hkeys(key)))
    ]
    assert keys_with_id == []
    with LogReader(settings, "test") as reader:
        partitions = reader.partitions(settings.deletions_topic)
        latest = {
            message.key(): message.value()
            for message in reader.read(dict.fromkeys(partitions, (0, None)))
        }
    assert latest.pop(clear) is None, "the record of the older release is rewritten"
    assert not any(clear in key or clear in value for key, value in latest.items())
    assert SECRET not in child.log.read_text()
    other = ingest(DELETION_SALT="another")
    assert other.wait(60) == 1
    assert "DELETION_SALT is not the one" in other.log.read_text()
    redis.flushall()  # the topic has the salt's fingerprint, too
    other = ingest(DELETION_SALT="another")
    assert other.wait(60) == 1
    assert "DELETION_SALT is not the one" in other.log.read_text()


def test_deletions_older_than_every_record_are_dropped(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn
) -> None:
    digest = IdHasher(settings.deletion_salt)("user", "long ago")
    with Producer(settings) as producer:
        producer.raw(settings.deletions_topic, b"long ago", b"20.5")
        publish(producer, "42")
        act(producer, settings, "42", count=1)
        delete(producer, "42")
    child = ingest()
    caught_up(redis, settings, child)
    child.stop()
    assert lookup(redis, "user", [digest]) != [None], (
        "the archive is empty: ARCHIVE_URL may be wrong"
    )
    archive(spawn)
    child = ingest()
    eventually(lambda: lookup(redis, "user", [digest]) == [None], "dropped from Redis")
    caught_up(redis, settings, child)
    child.stop()
    assert redis.hlen(keys.ONLY.users_deleted) == 1, (
        "the other one stays: log and archive hold its events"
    )
    redis.flushall()
    caught_up(redis, settings, ingest())
    assert lookup(redis, "user", [digest]) == [None], "dropped from the topic"
    oracle.assert_equal(redis, settings)
