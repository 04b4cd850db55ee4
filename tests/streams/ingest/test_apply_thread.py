"""Batches of several partitions share a transaction, and not each other's troubles."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from core.errors import Stale, StoreCorrupt
from core.settings import Settings
from core.types import Interaction
from store.state import connection
from store.state.apply import deletions, positions
from store.state.apply.batches import UNKNOWN_DELETIONS, Event, OffsetRange
from store.state.apply.planner import Planner
from streams.ingest.apply_thread import Sender, Work


class Writing:
    """A sender, and batches of one event each for it."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self.redis, self.planner = redis, Planner(settings.use_cases)
        deletions.mark_ready(redis)
        self.sender = Sender(connection.connect(settings), self.planner, settings)
        self.sender.start()

    def work(self, partition: int, first: int) -> Work:
        event = Event(
            Interaction(f"e{first}", f"user-{partition}", "startup-1", "like", 1.76e9), 1.76e9
        )
        return Work(
            self.planner.plan(
                OffsetRange("t", partition, first, first + 1), [event], UNKNOWN_DELETIONS
            ),
            0,
            [],
        )

    def stands_at(self) -> list[int]:
        self.sender.drain()
        return [positions.read(self.redis, "t", number).offset for number in range(3)]

    def failed(self) -> list[tuple[int, type[BaseException]]]:
        failures = self.sender.failures
        return [
            (failure.partition[1], type(failure.error))
            for failure in iter(lambda: None if failures.empty() else failures.get(), None)
        ]


@pytest.fixture
def writing(settings: Settings, redis: Redis) -> Iterator[Writing]:
    made = Writing(settings, redis)
    yield made
    made.sender.close()


def _transactions(redis: Redis) -> int:
    return int(redis.info("commandstats").get("cmdstat_exec", {"calls": 0})["calls"])  # type: ignore[union-attr]


def test_what_is_put_together_is_one_transaction(writing: Writing, redis: Redis) -> None:
    writing.sender.put(writing.work(0, 0))
    assert writing.stands_at() == [1, 0, 0]
    before = _transactions(redis)
    writing.sender.put(writing.work(0, 1), writing.work(1, 0), writing.work(2, 0))
    assert writing.stands_at() == [2, 1, 1]
    assert _transactions(redis) - before == 1
    assert [redis.hget(f"user:user-{number}", "events") for number in range(3)] == [
        b"2",
        b"1",
        b"1",
    ]
    assert writing.failed() == []


def test_a_partition_that_another_process_has_taken_does_not_hold_up_the_others(
    writing: Writing, redis: Redis
) -> None:
    redis.hset("ingest:t:1", "position", "7")
    writing.sender.put(writing.work(0, 0), writing.work(1, 0), writing.work(2, 0))
    assert writing.stands_at() == [1, 7, 1]
    assert writing.failed() == [(1, Stale)]
    writing.sender.put(writing.work(0, 1), writing.work(1, 1))
    assert writing.stands_at() == [2, 7, 1]
    assert writing.failed() == [], "its later batches are dropped until it is placed again"


def test_a_key_of_somebody_else_is_named_and_fails_all_that_went_with_it(
    writing: Writing, redis: Redis
) -> None:
    redis.set("user:user-1", "somebody's own")
    writing.sender.put(writing.work(0, 0), writing.work(1, 0))
    writing.sender.drain()
    failures = [writing.sender.failures.get() for _ in range(2)]
    assert [failure.partition for failure in failures] == [("t", 0), ("t", 1)]
    assert all(
        isinstance(failure.error, StoreCorrupt)
        and "user:user-1 answered WRONGTYPE" in str(failure.error)
        for failure in failures
    )
