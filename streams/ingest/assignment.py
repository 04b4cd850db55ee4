"""Places the partitions that Kafka assigns to this process (step 1 of `streams.ingest.loop`), and
places those again that failed.
"""

from __future__ import annotations

from collections.abc import Iterator

import structlog
from confluent_kafka import Consumer, TopicPartition

from core.dedup import Dedup
from core.deletions import Kind
from core.errors import LogRewound, LogUnavailable, StoreUnavailable
from core.settings import Settings
from store import outage
from store.log.topics.ids import TopicId, TopicIds
from store.state.apply.pending import PendingPopularity
from store.state.apply.planner import Planner
from store.state.shards import Shards
from streams import metrics
from streams.ingest import readiness
from streams.ingest.deletions import recovery
from streams.ingest.partition import (
    RETRYABLE,
    EntryPartition,
    InteractionPartition,
    Partition,
)
from streams.ingest.placement import Placement, place
from streams.retry import Retry

_log = structlog.get_logger(__name__)


class Assignment:
    """The partitions that are assigned to this process, one `Partition` each. Belongs to the
    consumer's thread.
    """

    def __init__(self, settings: Settings, shards: Shards, planner: Planner, retry: Retry) -> None:
        """`planner`: forgets what it knows of Redis before a partition is placed."""
        self._settings, self._shards = settings, shards
        self._planner, self._retry = planner, retry
        self._topics = TopicIds(
            settings, [settings.interactions_topic, settings.items_topic, settings.users_topic]
        )
        self._topic_ids: dict[str, TopicId] = {}
        self._partitions: dict[tuple[str, int], Partition] = {}

    def __iter__(self) -> Iterator[Partition]:
        return iter(self._partitions.values())

    def get(self, topic: str, number: int) -> Partition | None:
        """The partition, if it is assigned to this process."""
        return self._partitions.get((topic, number))

    def assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Place partitions, and read them from there."""
        self._recover()
        consumer.incremental_assign(
            [
                self._place(consumer, partition.topic, partition.partition)
                for partition in partitions
            ]
        )

    def remove(self, partitions: list[TopicPartition]) -> None:
        """Drop partitions that are revoked or lost."""
        for partition in partitions:
            self._partitions.pop((partition.topic, partition.partition), None)
            _log.info("partition_revoked", topic=partition.topic, partition=partition.partition)

    def place_failed(self, consumer: Consumer) -> None:
        """Place each failed partition again, where Redis stands.

        Raises an error that no retry repairs.
        """
        failed = [partition for partition in self if partition.error is not None]
        if not failed:
            return
        for partition in failed:
            _check_retryable(partition)
        self._recover()
        placed = [self._place(consumer, partition.topic, partition.number) for partition in failed]
        outage.REDIS.end()  # placing read the position from Redis and the offsets from Kafka
        outage.KAFKA.end()
        # unlike a seek, this also drops what was fetched already
        consumer.incremental_unassign(placed)
        consumer.incremental_assign(placed)

    def check_topics(self) -> None:
        """Fail the partitions of a topic that was created anew: its offsets would go on as if they
        were those of the old one.

        Compares with the id at the placement of each partition: the ids that `_recover` reads for
        other partitions may already be new.
        """
        for topic, topic_id in self._topics.poll().items():
            for partition in self:
                if partition.topic == topic and partition.topic_id != topic_id:
                    partition.fail(LogRewound(f"{topic} was created anew, with the id {topic_id}"))

    def _recover(self) -> None:
        """Read the ids of the topics, and bring Redis, which may have been emptied or set back, to
        where anything may be applied.

        The settings come after the deletions: a Redis that is emptied in between is then not ready,
        and this is repeated. The other way round it would be ready without its settings.
        """
        self._topic_ids = self._retry("reading the ids of the topics", self._topics.read)
        self._retry("recovering deletions", lambda: recovery.recover(self._settings, self._shards))
        self._planner.forget()
        self._retry(
            "noting the settings", lambda: readiness.note_settings(self._settings, self._shards)
        )

    def _place(self, consumer: Consumer, topic: str, number: int) -> TopicPartition:
        """Place a partition where Redis says; answers from where to read it."""
        placement = self._retry(
            f"comparing Redis with the log of {topic}/{number}",
            lambda: place(
                self._settings,
                self._shards.of_partition(topic, number),
                consumer,
                topic,
                number,
                self._topic_ids[topic],
            ),
        )
        partition = self._partitions[topic, number] = self._partition(placement)
        _log.info(
            "partition_assigned",
            topic=topic,
            partition=number,
            position=partition.start,
            log_start=placement.low,
            log_end=placement.high,
        )
        return TopicPartition(topic, number, partition.read_from)

    def _partition(self, placement: Placement) -> Partition:
        settings = self._settings
        if placement.topic != settings.interactions_topic:
            kind: Kind = "item" if placement.topic == settings.items_topic else "user"
            return EntryPartition(placement, kind)
        popularity = PendingPopularity(
            settings.use_cases, settings.popularity_half_life_days, placement.position.popularity
        )
        return InteractionPartition(placement, Dedup(settings.dedup_window), popularity)


def _check_retryable(partition: Partition) -> None:
    """Log why a partition failed. Raises its error if no retry repairs it."""
    error = partition.error
    if isinstance(error, StoreUnavailable | LogUnavailable):
        outage.of(error).begin(str(error), f"applying a batch of {partition}")
    elif isinstance(error, RETRYABLE):
        _log.warning(
            "batch_rejected",
            topic=partition.topic,
            partition=partition.number,
            error=str(error),
        )
    elif error is not None:
        raise error
    metrics.retries.labels(type(error).__name__).inc()
