"""Tests of the tests: with a bug put into ingest, the comparison with the oracle fails; without it,
the same scenario passes.
"""

from __future__ import annotations

import contextlib
import signal
import uuid

import psutil
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from redis import Redis

from core.codec import encode_json
from core.settings import Settings
from core.types import User
from store.log import client as log
from store.log.producer import Producer
from tests import oracle
from tests.exactly_once.conftest import Ingest, caught_up
from tests.exactly_once.traffic import Traffic
from tests.support import eventually
from tests.topics import recreate


def _killed_and_restarted(
    settings: Settings, redis: Redis, ingest: Ingest, bug: str, traffic: Traffic
) -> None:
    assert ingest(*_bugs(bug), "die=5.2-compared,4").wait(45) == -signal.SIGKILL
    caught_up(redis, settings, ingest())


def _uninterrupted(
    settings: Settings, redis: Redis, ingest: Ingest, bug: str, traffic: Traffic
) -> None:
    caught_up(redis, settings, ingest(*_bugs(bug)))


def _stopped_and_restarted(
    settings: Settings, redis: Redis, ingest: Ingest, bug: str, traffic: Traffic
) -> None:
    first = ingest(*_bugs(bug))
    caught_up(redis, settings, first)
    first.stop()
    with Producer(settings) as producer:
        traffic.burst(producer, 300)  # repeats some of the latest events
    second = ingest(*_bugs(bug))
    caught_up(redis, settings, second)
    eventually(
        lambda: second.log.read_text().count("partition_assigned") >= settings.topic_partitions,
        "the second one has its partitions",
    )
    second.stop()


def _frozen_and_continued(
    settings: Settings, redis: Redis, ingest: Ingest, bug: str, traffic: Traffic
) -> None:
    frozen = ingest(*_bugs(bug), "freeze=5.2-compared,3")
    eventually(
        lambda: psutil.Process(frozen.pid).status() == "stopped",
        "frozen between the comparison and the transaction",
    )
    other = ingest()
    caught_up(redis, settings, other)
    frozen.signal(signal.SIGCONT)
    frozen.stop()  # applies its queued batches first
    with Producer(settings) as producer:
        traffic.burst(producer, 300)
    caught_up(redis, settings, other)


def _deleted_late(
    settings: Settings, redis: Redis, ingest: Ingest, bug: str, traffic: Traffic
) -> None:
    """Every user is deleted between two bursts, and ingest reads the topic of users last."""
    with Producer(settings) as producer:
        for number in range(60):
            producer.user(f"user-{number}", User(user_id=f"user-{number}"))
            producer.user(f"user-{number}", None)
        producer.flush()
        traffic.burst(producer, 300)
    unaware = ingest(USERS_TOPIC=f"other-{settings.users_topic}")
    caught_up(redis, settings, unaware, topics=[settings.interactions_topic])
    unaware.stop()
    caught_up(redis, settings, ingest(*_bugs(bug)))


def _emptied(settings: Settings, redis: Redis, ingest: Ingest, bug: str, traffic: Traffic) -> None:
    _deleted_late(settings, redis, ingest, bug, traffic)
    redis.flushall()
    caught_up(redis, settings, ingest(*_bugs(bug)))


def _bugs(bug: str) -> list[str]:
    return [f"bug={bug}"] if bug else []


SCENARIOS = {
    "position-before-apply": _killed_and_restarted,
    "retry-by-client": _uninterrupted,
    "no-seek-on-assignment": _stopped_and_restarted,
    "no-window-after-restart": _stopped_and_restarted,
    "no-watch": _frozen_and_continued,
    "deletion-erases-later-events": _deleted_late,
    "dead-profile-returns": _emptied,
}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("bug", SCENARIOS)
def test_the_oracle_catches_a_seeded_bug(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int, bug: str
) -> None:
    traffic = Traffic(settings, seed)
    with Producer(settings) as producer:
        traffic.burst(producer, 1200)
    SCENARIOS[bug](settings, redis, ingest, bug, traffic)
    with pytest.raises(AssertionError):
        oracle.assert_equal(redis, settings)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("scenario", sorted({scenario.__name__ for scenario in SCENARIOS.values()}))
def test_the_same_scenario_without_the_bug_equals_the_oracle(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int, scenario: str
) -> None:
    traffic = Traffic(settings, seed)
    with Producer(settings) as producer:
        traffic.burst(producer, 1200)
    run = next(function for function in SCENARIOS.values() if function.__name__ == scenario)
    run(settings, redis, ingest, "", traffic)
    oracle.assert_equal(redis, settings)


@pytest.mark.apache
@pytest.mark.timeout(240)
@pytest.mark.parametrize("bug", ["", "aborted-records-count"])
def test_the_oracle_catches_records_of_aborted_transactions(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int, bug: str
) -> None:
    traffic = Traffic(settings, seed)
    config = log.client_config(settings) | {
        "transactional.id": f"seeded-{uuid.uuid4().hex[:8]}",
        "partitioner": "murmur2_random",
    }
    producer = KafkaProducer(config)
    producer.init_transactions(30)
    for is_committed in (True, False, True):
        producer.begin_transaction()
        for number in range(40):
            producer.produce(
                settings.interactions_topic,
                encode_json(traffic.event(f"user-{number}")),
                f"user-{number}".encode(),
            )
        producer.flush(30)
        producer.commit_transaction(30) if is_committed else producer.abort_transaction(30)
    caught_up(redis, settings, ingest(*_bugs(bug)))
    _assert_caught(redis, settings, bug)


def _are_dropped(admin: AdminClient, ends: list[TopicPartition]) -> bool:
    """Drop the records below `ends`; False: the policy of the topic forbids it."""
    try:
        for dropped in admin.delete_records(ends).values():
            dropped.result(30)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.POLICY_VIOLATION:
            raise
        return False
    return True


@pytest.mark.apache
@pytest.mark.timeout(240)
@pytest.mark.parametrize("bug", ["", "deletions-recovered-at-start-only"])
def test_the_oracle_catches_deletions_that_an_emptied_redis_does_not_learn(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int, bug: str
) -> None:
    """The topic `users` no longer holds the deletion, as after its compaction."""
    traffic = Traffic(settings, seed)
    with Producer(settings) as producer:
        traffic.burst(producer, 600)
    child = ingest(*_bugs(bug))
    with Producer(settings) as producer:
        producer.user("user-1", None)
    caught_up(redis, settings, child)
    logs = oracle.record(settings)
    admin = log.admin(settings)
    # else it refuses to drop records
    entry = ConfigEntry(
        "cleanup.policy", "compact,delete", incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(ResourceType.TOPIC, settings.users_topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(30)
    ends = [
        TopicPartition(*partition, logs.ends[partition])
        for partition in logs.partitions(settings.users_topic)
    ]
    # the broker answers the change of the policy before it has made it
    eventually(lambda: _are_dropped(admin, ends), "the broker drops the records")
    redis.flushall()
    interactions = {
        partition: end
        for (topic, partition), end in logs.ends.items()
        if topic == settings.interactions_topic
    }
    eventually(
        lambda: oracle.popularity_positions(redis, settings) == interactions,
        "everything is counted again",
        60,
    )
    _assert_caught(redis, settings, bug, logs)


def _assert_caught(
    redis: Redis, settings: Settings, bug: str, logs: oracle.RecordedLog | None = None
) -> None:
    with pytest.raises(AssertionError) if bug else contextlib.nullcontext():
        oracle.assert_equal(redis, settings, logs)


@pytest.mark.apache  # the client library crashes when Tansu deletes a topic that it reads
@pytest.mark.timeout(240)
def test_the_oracle_catches_a_topic_id_that_is_not_compared(
    broker: object, settings: Settings, redis: Redis, ingest: Ingest, seed: int
) -> None:
    """tests/exactly_once/rebuild/test_advice.py has the same sequence without the bug."""
    traffic = Traffic(settings, seed)
    with Producer(settings) as producer:
        traffic.burst(producer, 1200)
    child = ingest(*_bugs("topic-id-not-compared"))
    caught_up(redis, settings, child)
    child.signal(signal.SIGSTOP)  # else it may see a log that is shorter than what it applied
    recreate(settings, settings.interactions_topic)
    with Producer(settings) as producer:
        traffic.burst(producer, 4000)  # in every partition more than the old topic held
    child.signal(signal.SIGCONT)
    caught_up(redis, settings, child)
    with pytest.raises(AssertionError):
        oracle.assert_equal(redis, settings)
