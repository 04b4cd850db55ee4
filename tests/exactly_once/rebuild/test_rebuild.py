"""Redis is rebuilt from archive and log after it was lost, after a gap, and after deletions."""

from __future__ import annotations

import time

import pytest
from redis import Redis

from core.deletions import IdHasher
from core.experiments import recommendation_id
from core.settings import Settings
from core.types import Interaction, Item, User
from store.dead_letters import letters as dlq
from store.log.producer import Producer
from store.state import keys
from store.state.apply.deletions import lookup
from store.state.entities import catalogue, experiments, users
from store.state.shards import Shards
from streams.ingest.deletions import recovery
from tests import oracle
from tests.conftest import Spawn
from tests.exactly_once.commands import archive, rebuild
from tests.exactly_once.conftest import Ingest, caught_up
from tests.exactly_once.traffic import Traffic
from tests.support import eventually

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]


def test_a_lost_redis_is_rebuilt_from_the_archive_and_then_the_log(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    traffic = Traffic(settings, seed)
    with Producer(settings) as producer:
        traffic.burst(producer, 1500)
    child = ingest()
    caught_up(redis, settings, child)
    archive(spawn)
    child.stop()
    redis.flushall()
    rebuild(spawn)
    oracle.assert_equal(redis, settings)
    assert sum(oracle.positions(redis, settings).values()) == traffic.sent
    with Producer(settings) as producer:
        traffic.burst(producer, 500)  # with duplicates of events that only the archive holds
    caught_up(redis, settings, ingest())
    oracle.assert_equal(redis, settings)


def test_a_rebuild_continues_at_the_position_and_with_wipe_starts_over(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    traffic = Traffic(settings, seed)
    with Producer(settings) as producer:
        traffic.burst(producer, 600)
    child = ingest()
    caught_up(redis, settings, child)
    child.stop()
    with Producer(settings) as producer:
        traffic.burst(producer, 600)
    archive(spawn)
    rebuild(spawn)
    assert sum(oracle.positions(redis, settings).values()) == traffic.sent
    oracle.assert_equal(redis, settings)
    rebuild(spawn, "--wipe")
    oracle.assert_equal(redis, settings)


@pytest.mark.apache  # Tansu cannot drop the beginning of a log
def test_a_gap_between_redis_and_the_log_stops_ingest_with_advice(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    from confluent_kafka import TopicPartition

    from store.log import client as log

    traffic = Traffic(settings, seed)
    with Producer(settings) as producer:
        traffic.burst(producer, 800)
    archive(spawn)
    admin = log.admin(settings)
    for deleted in admin.delete_records(
        [TopicPartition(settings.interactions_topic, 0, 100)]
    ).values():
        deleted.result(30)
    child = ingest()
    assert child.wait(60) == 1
    assert "the log begins at 100, and the archive at" in child.log.read_text()
    assert "streams rebuild" in child.log.read_text()
    rebuild(spawn)
    caught = ingest()
    eventually(
        lambda: "partition_assigned" in caught.log.read_text(), "ingest starts after the rebuild"
    )
    assert sum(oracle.positions(redis, settings).values()) == traffic.sent


def test_items_and_users_are_applied_and_a_null_value_deletes_them(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    item = Item(
        item_id="startup:1",
        item_type="startup",
        title="Tide",
        categories=["energy"],
        attributes={"stage": "seed"},
    )
    with Producer(settings) as producer:
        producer.item("startup:1", item)
        producer.item("startup:2", Item(item_id="startup:2", item_type="startup"))
        producer.user("42", User(user_id="42", roles=["developer"], interests=["energy"]))
        producer.raw(
            settings.items_topic, b"startup:3", b'{"item_id":"startup:4","item_type":"startup"}'
        )
    ingest()
    eventually(
        lambda: (
            {item.item_id for item in catalogue.changes(redis).items} == {"startup:1", "startup:2"}
        ),
        "both items",
    )
    known = catalogue.changes(redis)
    assert item in known.items
    assert users.read(redis, "42", 50).profile == User(
        user_id="42", roles=["developer"], interests=["energy"]
    )
    with Producer(settings) as producer:
        producer.item("startup:2", None)
        producer.item("startup:5", Item(item_id="startup:5", item_type="startup"))

    def has_changes() -> bool:
        changes = catalogue.changes(redis, known.cursor)
        return (
            not changes.complete
            and [item.item_id for item in changes.items] == ["startup:5"]
            and changes.deleted == ["startup:2"]
        )

    eventually(has_changes, "the changes since the cursor, and no others")


def test_a_deleted_user_is_removed_and_a_replay_does_not_restore_them(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn
) -> None:
    def view(event_id: str, user_id: str) -> Interaction:
        answer = recommendation_id(settings.experiments.assign(user_id, None))
        return Interaction(
            event_id, user_id, "startup-1", "view", time.time(), recommendation_id=answer
        )

    def read(user_id: str) -> int:
        return users.read(redis, user_id, 50).events

    with Producer(settings) as producer:
        producer.user("42", User(user_id="42"))
        for number in range(3):
            producer.interaction(view(f"a{number}", "42"))
        producer.interaction(view("b", "43"))
    child = ingest()
    eventually(lambda: read("42") == 3 and read("43") == 1, "both users' events")
    eventually(lambda: users.read(redis, "42", 50).profile, "the profile")
    with Producer(settings) as producer:
        producer.user("42", None)
    eventually(lambda: redis.keys("user:42*") == [], "no key of the user left")
    with Producer(settings) as producer:
        producer.interaction(view("c", "42"))  # comes back, as a new user
        producer.user("42", User(user_id="42", interests=["energy"]))
    eventually(lambda: read("42") == 1, "only the event after the deletion")
    assert redis.hlen(keys.ONLY.users_deleted) == 1
    caught_up(redis, settings, child)
    oracle.assert_equal(redis, settings)
    child.stop()
    archive(spawn)
    redis.flushall()
    rebuild(spawn)
    assert read("42") == 1
    assert read("43") == 1
    oracle.assert_equal(redis, settings)
    redis.flushall()
    child = ingest()  # from the log alone, its topics in no particular order
    eventually(
        lambda: read("42") == 1 and read("43") == 1 and users.read(redis, "42", 50).profile,
        "the same state from the log",
    )
    caught_up(redis, settings, child)
    assert len(oracle.assert_equal(redis, settings).experiments) > 1


def deleted_at(redis: Redis, settings: Settings, user_id: str) -> float | None:
    """Broker time (seconds) of the deletion that Redis knows of a user."""
    place = lookup(redis, "user", [IdHasher(settings.deletion_salt)("user", user_id)])[0]
    return place and place.time


def test_a_redis_set_back_before_a_deletion_deletes_the_user_at_the_next_start(
    broker: object, settings: Settings, redis: Redis
) -> None:
    """As after a backup was restored: Redis has the user's keys and experiments, only the log has
    the deletion.
    """
    variant = settings.experiments.assign("42", None)
    assert variant is not None
    experiments.save_definitions(redis, settings.experiments)
    redis.hset("user:42", "events", 1)
    for key in (
        keys.ONLY.experiment_outcomes(variant.id),
        keys.ONLY.experiment_exposed(variant.id),
    ):
        redis.zadd(key, {"42": 3.0, "43": 1.0})
    with Producer(settings) as producer:
        producer.raw(settings.deletions_topic, b"42", b"20.5")  # as an older release wrote it
    assert recovery.recover(settings, Shards(settings)) == 1
    assert deleted_at(redis, settings, "42") == 20.5
    assert redis.keys("user:42*") == []
    assert experiments.read([redis], variant.id) == ({"43": 1.0}, {"43": 1.0}, {})
    assert recovery.recover(settings, Shards(settings)) == 0


def test_a_rebuild_publishes_dead_letters_of_messages_that_ingest_has_not_read(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn, seed: int
) -> None:
    traffic = Traffic(settings, seed)
    with Producer(settings) as producer:
        traffic.burst(producer, 300)
        for value in (b"not json", b"", b"x" * 5000):
            producer.raw(settings.interactions_topic, b"user-1", value)
    archive(spawn)
    rebuild(spawn)
    expected = oracle.assert_equal(redis, settings)
    assert sum(oracle.positions(redis, settings).values()) == traffic.sent + 3
    assert oracle.dead_letter_differences(settings, expected) == []
    long = next(
        letter
        for letter in dlq.read(settings).select(dlq.Selection(codes=["not_json"]))
        if letter.size > 4000
    )
    assert long.truncated
    assert long.value == b"x" * 4096
