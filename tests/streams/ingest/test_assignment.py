"""An assigned partition is compared with the topic from which it is read."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import Consumer, TopicPartition
from redis import Redis

from core.errors import LogRewound
from core.settings import Settings
from store.log import client as log
from store.state.apply import deletions
from store.state.apply.planner import Planner
from store.state.shards import Shards
from streams.ingest.assignment import Assignment
from streams.retry import Retry
from tests.support import eventually
from tests.topics import recreate

pytestmark = [pytest.mark.apache, pytest.mark.timeout(240)]


def test_a_topic_that_is_created_anew_right_before_a_rebalance_is_noticed(
    broker: object, settings: Settings, redis: Redis
) -> None:
    log.ensure_topics(settings)
    deletions.mark_ready(redis)
    planner, retry = Planner(settings.use_cases), Retry(threading.Event())
    assignment = Assignment(settings, Shards(settings), planner, retry)
    consumer = Consumer(log.consumer_config(settings, settings.ingest_group))
    topic = settings.interactions_topic
    try:
        assignment.assign(consumer, [TopicPartition(topic, 0)])
        recreate(settings, topic)
        assignment.assign(consumer, [])  # a rebalance that leaves the partition where it is

        def error() -> BaseException | None:
            assignment.check_topics()
            partition = assignment.get(topic, 0)
            return partition.error if partition else None

        eventually(lambda: error() is not None, "the partition failed")
        assert isinstance(error(), LogRewound)
    finally:
        consumer.close()
