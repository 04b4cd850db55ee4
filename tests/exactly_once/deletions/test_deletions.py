"""What a deletion promises: nothing older comes back, nothing later is lost, whenever it is applied
and whatever Redis was before.
"""

from __future__ import annotations

import shutil
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from core.deletions import IdHasher
from core.experiments import recommendation_id
from core.settings import Settings
from core.types import Interaction, Item, User
from store.log.producer import Producer
from store.log.reader import LogReader
from store.state import keys
from store.state.apply.deletions import lookup
from store.state.entities import catalogue, users
from streams.ingest.deletions import recovery
from testing.process import Child
from testing.redis import RedisServer
from tests import oracle
from tests.exactly_once.conftest import caught_up
from tests.exactly_once.rebuild.test_rebuild import _archived, _rebuilt
from tests.support import eventually

Ingest = Callable[..., Child]
Spawn = Callable[..., Child]

pytestmark = [pytest.mark.process, pytest.mark.timeout(150)]

SECRET = "alice@example.org"


def put(producer: Producer, *names: str) -> None:
    """A profile and an item of each name."""
    for name in names:
        producer.user(name, User(user_id=name, interests=["energy"]))
        producer.item(name, Item(item_id=name, item_type="startup"))


def delete(producer: Producer, *names: str) -> None:
    """Delete the user and the item of each name, and wait until the broker has it."""
    for name in names:
        producer.user(name, None)
        producer.item(name, None)
    producer.flush()
    time.sleep(0.002)  # the broker's time has milliseconds: what follows is later


def view(settings: Settings, user_id: str, event_id: str | None = None) -> Interaction:
    """An event that an experiment's answer led to."""
    answer = recommendation_id(settings.experiments.assign(user_id, None))
    return Interaction(
        event_id or uuid.uuid4().hex,
        user_id,
        "startup-1",
        "view",
        time.time(),
        recommendation_id=answer,
    )


def act(producer: Producer, settings: Settings, *users_: str, count: int = 5) -> None:
    """Some events of each user, and wait until the broker has them."""
    for user_id in users_:
        for _ in range(count):
            producer.interaction(view(settings, user_id))
    producer.flush()
    time.sleep(0.002)  # the broker's time has milliseconds: what follows is later


def shown(redis: Redis) -> tuple[set[str], set[str]]:
    """Users with a profile, and items."""
    profiles = {key.decode().split(":")[1] for key in redis.keys("user:*:profile")}
    return profiles, {item.item_id for item in catalogue.changes(redis).items}


def test_what_is_older_than_a_deletion_stays_away_after_a_wipe_and_a_rebuild(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn
) -> None:
    with Producer(settings) as producer:
        put(producer, "gone", "back", "kept")
        act(producer, settings, "gone", "back", "kept")
        delete(producer, "gone", "back")
        put(producer, "back")
        act(producer, settings, "back", count=2)
    child = ingest()
    caught_up(redis, settings, child)
    assert shown(redis) == ({"back", "kept"}, {"back", "kept"})
    child.stop()
    _archived(spawn)
    _rebuilt(spawn, "--wipe")
    # the partitions of `users` and `items` are read again from the beginning, twice
    for _ in range(2):
        child = ingest()
        caught_up(redis, settings, child)
        assert shown(redis) == ({"back", "kept"}, {"back", "kept"})
        assert [users.read(redis, name, 50).events for name in ("gone", "back", "kept")] == [
            0,
            2,
            5,
        ]
        assert len(oracle.assert_equal(redis, settings).experiments) > 0
        child.stop()
        for topic in (settings.users_topic, settings.items_topic):
            for partition in range(settings.topic_partitions):
                redis.hdel(keys.position(topic, partition), "position")


def test_events_after_a_deletion_survive_a_redis_that_is_emptied_under_two_running_ingests(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    names = [f"user-{number}" for number in range(40)]
    first, second = (ingest(group=settings.ingest_group) for _ in range(2))
    with Producer(settings) as producer:
        act(producer, settings, *names, count=2)
        delete(producer, *names)
        act(producer, settings, *names)
        put(producer, *names[:10])
        redis.flushall()
        delete(producer, *names[10:20])
        act(producer, settings, *names, count=1)
        caught_up(redis, settings, first)
        redis.flushall()  # nothing is under way
        caught_up(redis, settings, first)
    second.check()
    counts = [users.read(redis, name, 50).events for name in names]
    assert counts == [6] * 10 + [1] * 10 + [6] * 20
    oracle.assert_equal(redis, settings)


def test_a_deletion_that_is_applied_after_later_events_keeps_exactly_those(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    """Duplicates included: the first of two may be dead, and is the first all the same."""
    with Producer(settings) as producer:
        for name in ("42", "43", "44"):
            producer.interaction(view(settings, name, f"early-{name}"))
        act(producer, settings, "42", "43", "44", count=3)
        delete(producer, "42", "43")
        for name in ("42", "44"):
            # a duplicate of a dead event
            producer.interaction(view(settings, name, f"early-{name}"))
            for _ in range(2):
                producer.interaction(view(settings, name, f"late-{name}"))
            producer.raw(settings.interactions_topic, name.encode(), b"not json")
        act(producer, settings, "42", "44", count=4)
    # as if the topic of users were read last
    unaware = ingest(USERS_TOPIC=f"other-{settings.users_topic}")
    eventually(
        lambda: users.read(redis, "42", 50).events == 9,
        "every event counted, the deletion not known",
    )
    eventually(
        lambda: users.read(redis, "43", 50).events == 4, "the same of a user who did not come back"
    )
    unaware.stop()
    caught_up(redis, settings, ingest())
    assert [users.read(redis, name, 50).events for name in ("42", "43", "44")] == [5, 0, 9]
    assert redis.keys("user:43*") == []
    assert len(oracle.assert_equal(redis, settings).experiments) > 0


def test_a_redis_that_is_set_back_to_before_a_deletion_learns_of_it_while_ingest_runs(
    broker: object,
    own_redis_server: RedisServer,
    settings: Settings,
    ingest: Ingest,
    tmp_path: Path,
) -> None:
    names = [f"user-{number}" for number in range(20)]
    with Redis.from_url(own_redis_server.url) as redis, Producer(settings) as producer:
        put(producer, *names)
        act(producer, settings, *names, count=3)
        child = ingest()
        caught_up(redis, settings, child)
        own_redis_server.kill()
        shutil.copytree(own_redis_server.directory / "appendonlydir", tmp_path / "older")
        own_redis_server.start()
        delete(producer, *names[:10])
        act(producer, settings, *names, count=2)
        put(producer, *names[:5])
        caught_up(redis, settings, child)
        own_redis_server.kill()
        shutil.rmtree(own_redis_server.directory / "appendonlydir")
        shutil.copytree(tmp_path / "older", own_redis_server.directory / "appendonlydir")
        own_redis_server.start()
        caught_up(redis, settings, child)
        assert [users.read(redis, name, 50).events for name in names] == [2] * 10 + [5] * 10
        assert shown(redis)[0] == {*names[:5], *names[10:]}
        oracle.assert_equal(redis, settings)


def test_a_kill_between_publishing_a_deletion_and_applying_it_loses_nothing(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    with Producer(settings) as producer:
        put(producer, "42", "43")
        act(producer, settings, "42", "43")
        child = ingest("die=3-deletions-published,1")
        caught_up(redis, settings, child)
        delete(producer, "42")
        assert child.wait(60) == -signal.SIGKILL
        assert redis.exists("user:42"), "published, not applied"
        act(producer, settings, "42", count=1)
    caught_up(redis, settings, ingest())
    assert users.read(redis, "42", 50).events == 1
    assert shown(redis) == ({"43"}, {"43"})
    oracle.assert_equal(redis, settings)


def test_a_deletion_that_only_its_own_topic_still_knows_is_applied_to_an_older_redis(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    """As after compaction has removed its record from `users` and `items`: ids are found by their
    hash.
    """
    with Producer(settings) as producer:
        put(producer, "a:b%", "kept")
        act(producer, settings, "a:b%", "kept")
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
    for hash_ in (keys.USERS_DELETED, keys.ITEMS_DELETED):
        redis.delete(hash_)
    for partition in range(settings.topic_partitions):
        redis.hdel(keys.DELETIONS, f"position:{partition}")
    assert recovery.recover(settings, redis) == 2
    assert shown(redis) == ({"kept"}, {"kept"})
    assert redis.keys("user:a*") == []
    oracle.assert_equal(redis, settings)


def test_no_id_of_a_deleted_user_is_kept_in_clear(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    with Producer(settings) as producer:
        put(producer, SECRET)
        act(producer, settings, SECRET)
        delete(producer, SECRET)
        # as an older release wrote it
        producer.raw(settings.deletions_topic, SECRET.encode(), b"20.5")
    child = ingest()
    caught_up(redis, settings, child)
    child.stop()
    clear = SECRET.encode()
    kept = [
        key
        for key in redis.scan_iter()
        if clear in key or (redis.type(key) == b"hash" and clear in b" ".join(redis.hkeys(key)))
    ]
    assert kept == []
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
    redis.flushall()  # the topic tells, too
    other = ingest(DELETION_SALT="another")
    assert other.wait(60) == 1
    assert "DELETION_SALT is not the one" in other.log.read_text()


def test_deletions_that_nothing_can_contradict_any_more_are_dropped(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn
) -> None:
    digest = IdHasher(settings.deletion_salt)("user", "long ago")
    with Producer(settings) as producer:
        producer.raw(settings.deletions_topic, b"long ago", b"20.5")
        put(producer, "42")
        act(producer, settings, "42", count=1)
        delete(producer, "42")
    child = ingest()
    caught_up(redis, settings, child)
    child.stop()
    assert lookup(redis, "user", [digest]) != [None], (
        "the archive is empty: ARCHIVE_URL may be wrong"
    )
    _archived(spawn)
    child = ingest()
    eventually(lambda: lookup(redis, "user", [digest]) == [None], "dropped from Redis")
    caught_up(redis, settings, child)
    child.stop()
    assert redis.hlen(keys.USERS_DELETED) == 1, (
        "the other one stays: its events are in log and archive"
    )
    redis.flushall()
    caught_up(redis, settings, ingest())
    assert lookup(redis, "user", [digest]) == [None], "dropped from the topic"
    oracle.assert_equal(redis, settings)


def test_a_redis_that_was_emptied_notes_its_settings_and_experiments_again_while_ingest_runs(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    with Producer(settings) as producer:
        act(producer, settings, "kept")
    child = ingest()
    caught_up(redis, settings, child)
    noted = redis.hgetall(keys.INGEST_SETTINGS), redis.hgetall(keys.EXPERIMENTS).keys()
    redis.flushall()
    with Producer(settings) as producer:
        act(producer, settings, "gone", "kept")
        caught_up(redis, settings, child)
        delete(producer, "gone")
    caught_up(redis, settings, child)
    assert (redis.hgetall(keys.INGEST_SETTINGS), redis.hgetall(keys.EXPERIMENTS).keys()) == noted
    oracle.assert_equal(redis, settings)  # the outcomes of the deleted user are gone
