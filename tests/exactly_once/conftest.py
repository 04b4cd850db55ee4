"""What the exactly-once tests share: a store of its own, an ingest to torment, and the wait for the log's end."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from redis import Redis

from core.settings import Settings
from demo.processes import Child
from store import log
from tests import oracle
from tests.support import eventually


@pytest.fixture
def seed() -> int:
    """Printed, so that a failure can be repeated."""
    number = random.SystemRandom().randrange(2**32)
    print(f"seed {number}")
    return number


EXPERIMENTS = """
[experiments.blend]
users = [0.0, 0.6]
variants = { control = {}, half = { weight = 2, ensemble_als_weight = 0.5 } }

[experiments.colder]
users = [0.6, 0.9]
outcomes = ["like", "rating"]
variants = { control = {}, colder = { cold_start_threshold = 8 } }
"""


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Small transactions and a small cap, so that batches, trims and windows are crossed often; experiments run, topics are there."""
    path = tmp_path / "experiments.toml"
    path.write_text(EXPERIMENTS)
    small = settings.model_copy(
        update={
            "transaction_events": 40,
            "history_cap": 50,
            "dedup_window": 2000,
            "session_timeout_s": 6.0,
            "experiments_path": path,
        }
    )
    log.ensure_topics(small)
    return small


@pytest.fixture
def ingest(spawn: Callable[..., Child], settings: Settings) -> Callable[..., Child]:
    """`ingest("die=5.4-sent,3")` starts one; each in a group of its own, so that it never waits for the last one's session to end.

    Positions are in Redis, so the group changes nothing but who may start when: two processes on one partition are the harder case.
    """

    def start(*arguments: str, group: str | None = None, **environment: str) -> Child:
        return spawn(
            "tests.exactly_once.ingest_that_fails", *arguments, INGEST_GROUP=group or f"ingest-{uuid.uuid4().hex[:8]}", **environment
        )

    return start


def ends(settings: Settings) -> dict[int, int]:
    """Partition -> the log's end, of the interactions topic, by reading up to it."""
    consumer = Consumer(log.consumer_config(settings, "ends") | {"enable.partition.eof": True})
    consumer.assign([TopicPartition(settings.interactions_topic, partition, 0) for partition in range(settings.topic_partitions)])
    found: dict[int, int] = {}
    while len(found) < settings.topic_partitions:
        for message in consumer.consume(1000, 0.1):
            if (error := message.error()) is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                found[message.partition()] = message.offset()
    consumer.close()
    return found


def caught_up(redis: Redis, settings: Settings, child: Child, timeout: float = 60.0) -> None:
    """Wait until Redis stands at the log's end, its popularities too."""
    end = ends(settings)
    stands: dict[int, int] = {}

    def there() -> bool:
        child.check()
        stands.update(oracle.positions(redis, settings))
        return stands == end and oracle.popularity_positions(redis, settings) == end

    try:
        eventually(there, "ingest at the log's end", timeout)
    except AssertionError:
        raise AssertionError(f"the log ends at {end}, ingest stands at {stands} after {timeout:g} s; {child.describe('is slow')}") from None
