"""With several shards each user is in one, all of a shard's keys have its tag, and every event
counts exactly once, whatever partition a producer chooses.
"""

from __future__ import annotations

import time
from collections import Counter

import pytest
from redis import Redis

from core import codec
from core.settings import Settings
from core.types import Interaction
from store.log.producer import Producer
from store.state import keys
from store.state.shards import Shards, shard_of_user
from testing.process import Child
from tests.conftest import Spawn
from tests.exactly_once.commands import run
from tests.exactly_once.conftest import Ingest
from tests.exactly_once.deletions.steps import act, delete, publish
from tests.support import eventually

SHARDS = 4
pytestmark = pytest.mark.timeout(360)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """As of the other tests, with shards."""
    return settings.model_copy(update={"redis_shards": SHARDS})


def _await_counts(settings: Settings, child: Child, expected: dict[str, int]) -> None:
    def is_exact() -> bool:
        child.check()
        return _counts(settings, list(expected)) == expected

    try:
        eventually(is_exact, "every event counted once")
    except AssertionError:
        counts = _counts(settings, list(expected))
        wrong = {
            name: (count, expected[name])
            for name, count in counts.items()
            if count != expected[name]
        }
        raise AssertionError(f"counted and expected: {wrong}; {child.describe('runs')}") from None


def _counts(settings: Settings, names: list[str]) -> dict[str, int]:
    with Shards(settings) as shards:
        clients = {name: shards.of_user(name) for name in names}
        return {
            name: int(client.hget(keys.of(client).user(name), "events") or 0)  # type: ignore[arg-type]
            for name, client in clients.items()
        }


@pytest.mark.process
def test_each_event_counts_once_in_the_shard_of_its_user_whatever_is_killed_or_emptied(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest
) -> None:
    names = [f"user-{number}" for number in range(40)]
    gone, stay = names[:8], names[8:]
    producer = Producer(settings)
    publish(producer, *names)
    act(producer, settings, *names)
    doomed = ingest("die=5.4-sent,3")
    eventually(lambda: not doomed.alive, "the process that kills itself ends")
    child = ingest()
    delete(producer, *gone)
    act(producer, settings, *gone[:4], count=2)
    expected = dict.fromkeys(stay, 5) | dict.fromkeys(gone[:4], 2) | dict.fromkeys(gone[4:], 0)
    _await_counts(settings, child, expected)
    redis.flushall()
    act(producer, settings, *stay, count=1)
    _await_counts(settings, child, expected | dict.fromkeys(stay, 6))
    stored = [key.decode() for key in redis.scan_iter(count=1000)]
    assert [key for key in stored if not key.startswith(tuple(f"{{{n}}}:" for n in range(4)))] == []
    of_users = {
        key.split(":")[2]: int(key[1]) for key in stored if key.split(":", 1)[1].startswith("user:")
    }
    assert of_users == {name: shard_of_user(name, SHARDS) for name in of_users}
    assert set(Counter(of_users.values())) == {0, 1, 2, 3}, "every shard has users"


def test_an_event_in_a_partition_of_another_shard_counts_after_its_replay(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, spawn: Spawn
) -> None:
    producer = Producer(settings)
    act(producer, settings, "alice", count=3)
    key = next(
        name for name in map(str, range(100)) if shard_of_user(name, 4) != shard_of_user("alice", 4)
    )
    event = Interaction("e-foreign", "alice", "startup-1", "view", time.time())
    producer.raw(settings.interactions_topic, key.encode(), codec.encode_json(event))
    producer.flush()
    child = ingest()
    _await_counts(settings, child, {"alice": 3})
    eventually(lambda: "foreign_partition" in run(spawn, "dlq", "list"), "the dead letter")
    run(spawn, "dlq", "replay", "--code", "foreign_partition")
    _await_counts(settings, child, {"alice": 4})
