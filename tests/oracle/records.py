"""Reads and keeps every committed record, so that the fold has records that the broker removes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, TopicPartition

from core.settings import Settings
from store.log import client as log

READ_S = 180.0
"""Seconds in which a log must be read to its end; the log of a test takes well under one."""


class Record(NamedTuple):
    """One record with the broker's time stamp, in seconds since 1970."""

    topic: str
    partition: int
    offset: int
    time: float
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]


Partition = tuple[str, int]


class RecordedLog:
    """Records by (topic, partition), in offset order.

    `read` appends the records since the last call. Call it before the broker removes records (a
    trimmed head, a deleted topic). The number of partitions is the broker's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self.records: dict[Partition, list[Record]] = {}
        self.ends: dict[Partition, int] = {}
        """The end offset for a reader of committed records; control records are below it, too."""

    def read(self, topics: Iterable[str]) -> Self:
        """Read `topics` from the end of the last call up to their ends.

        Raises AssertionError after READ_S. Thread-safe.
        """
        with self._lock:
            return self._read(topics)

    def _read(self, topics: Iterable[str]) -> Self:
        consumer = Consumer(
            log.consumer_config(self._settings, "oracle")
            | {"enable.partition.eof": True, "auto.offset.reset": "earliest"}
        )
        try:
            partitions = [
                (topic, number)
                for topic in topics
                for number in consumer.list_topics(topic, timeout=self._settings.kafka_timeout_s)
                .topics[topic]
                .partitions
            ]
            consumer.assign(
                [
                    TopicPartition(*partition, self.ends.get(partition, 0))
                    for partition in partitions
                ]
            )
            unread = set(partitions)
            deadline = time.monotonic() + READ_S
            while unread:
                assert time.monotonic() < deadline, (
                    f"the ends of {sorted(unread)} were not reached within {READ_S:g} s"
                )
                for message in consumer.consume(5000, 0.1):
                    partition = (message.topic(), message.partition())
                    if partition not in unread:
                        continue  # past the end of this read: the next call reads it
                    if message.error() is None:
                        self.records.setdefault(partition, []).append(_record(message))
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        self.ends[partition] = message.offset()
                        unread.discard(partition)
                    elif message.error().code() not in (
                        KafkaError._TRANSPORT,
                        KafkaError._ALL_BROKERS_DOWN,
                    ):
                        raise AssertionError(f"reading {partition}: {message.error()}")
        finally:
            consumer.close()
        return self

    def forget(self, topic: str) -> None:
        """Drop the records of a deleted topic; the next read starts at offset 0."""
        for partition in self.partitions(topic):
            del self.ends[partition]
            self.records.pop(partition, None)

    def partitions(self, topic: str) -> list[Partition]:
        """The partitions of a topic, in order."""
        return sorted(partition for partition in self.ends if partition[0] == topic)

    def of(self, partition: Partition, upto: int | None = None) -> list[Record]:
        """The records of a partition, below offset `upto` (None: all)."""
        records = self.records.get(partition, [])
        return records if upto is None else [entry for entry in records if entry.offset < upto]

    def after_last(self, partition: Partition) -> int:
        """The offset after the last record of a partition; 0 without records."""
        records = self.records.get(partition)
        return records[-1].offset + 1 if records else 0


def record(settings: Settings) -> RecordedLog:
    """The current logs of interactions, items and users."""
    return RecordedLog(settings).read(sources(settings))


def sources(settings: Settings) -> list[str]:
    """The topics from which the state in Redis is computed."""
    return [settings.interactions_topic, settings.items_topic, settings.users_topic]


def _record(message: object) -> Record:
    headers = {name: value or b"" for name, value in message.headers() or ()}  # type: ignore[attr-defined]
    return Record(
        message.topic(),  # type: ignore[attr-defined]
        message.partition(),  # type: ignore[attr-defined]
        message.offset(),  # type: ignore[attr-defined]
        message.timestamp()[1] / 1000,  # type: ignore[attr-defined]
        message.key(),  # type: ignore[attr-defined]
        message.value(),  # type: ignore[attr-defined]
        headers,
    )
