"""Batches of several partitions share a transaction, and a partition that fails does not stop the
others.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from core.errors import Stale, StoreCorrupt
from core.settings import Settings
from core.types import Interaction
from store.state.apply import deletions, positions
from store.state.apply.batches import UNKNOWN_DELETIONS, Event
from store.state.apply.planner import Planner
from store.state.shards import Shards
from streams.ingest.apply_thread import ApplyThread, Task
from streams.ingest.partition import InteractionPartition, State
from tests.streams.ingest.partitions import interactions


class Applying:
    """An apply thread, three partitions, and batches of one event each."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self.redis, self.planner = redis, Planner(settings.use_cases)
        deletions.mark_ready(redis)
        self.thread = ApplyThread(Shards(settings), self.planner, settings)
        self.partitions = [interactions(settings, number) for number in range(3)]
        self.thread.start()

    def task(self, number: int) -> Task:
        """The next batch of a partition."""
        partition = self.partitions[number]
        event = Event(
            Interaction(f"e{partition.planned}", f"user-{number}", "startup-1", "like", 1.76e9),
            1.76e9,
        )
        offsets = partition.plan(partition.planned + 1)
        batch = self.planner.plan(offsets, [event], UNKNOWN_DELETIONS)
        return Task(partition, batch, [])

    def apply(self, *numbers: int) -> list[int]:
        """Apply the next batches of partitions in one transaction; answers the positions."""
        self.thread.put(*[self.task(number) for number in numbers])
        self.thread.drain()
        return [
            positions.read(self.redis, partition.topic, partition.number).offset
            for partition in self.partitions
        ]

    @property
    def failed(self) -> list[InteractionPartition]:
        return [partition for partition in self.partitions if partition.state is State.FAILED]


@pytest.fixture
def applying(settings: Settings, redis: Redis) -> Iterator[Applying]:
    applying = Applying(settings, redis)
    yield applying
    applying.thread.close()


def _transactions(redis: Redis) -> int:
    return int(redis.info("commandstats").get("cmdstat_exec", {"calls": 0})["calls"])  # type: ignore[union-attr]


def test_batches_that_are_put_together_are_one_transaction(
    applying: Applying, redis: Redis
) -> None:
    assert applying.apply(0) == [1, 0, 0]
    before = _transactions(redis)
    assert applying.apply(0, 1, 2) == [2, 1, 1]
    assert _transactions(redis) - before == 1
    events = [redis.hget(f"user:user-{number}", "events") for number in range(3)]
    assert events == [b"2", b"1", b"1"]
    assert [partition.applied for partition in applying.partitions] == [2, 1, 1]
    assert applying.failed == []


def test_a_stale_batch_fails_its_partition_and_no_other(applying: Applying, redis: Redis) -> None:
    stale = applying.partitions[1]
    redis.hset(f"ingest:{stale.topic}:1", "position", "7")
    assert applying.apply(0, 1, 2) == [1, 7, 1]
    assert applying.failed == [stale]
    assert isinstance(stale.error, Stale)
    assert stale.applied == 0
    error = stale.error
    assert applying.apply(0, 1) == [2, 7, 1]
    assert stale.error is error, "its later batches are dropped until it is placed again"


def test_a_key_of_another_type_is_named_and_fails_all_partitions_of_the_transaction(
    applying: Applying, redis: Redis
) -> None:
    redis.set("user:user-1", "a string")
    applying.apply(0, 1)
    assert applying.failed == applying.partitions[:2]
    for partition in applying.failed:
        assert isinstance(partition.error, StoreCorrupt)
        assert "user:user-1 answered WRONGTYPE" in str(partition.error)
