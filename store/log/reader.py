"""Reads ranges of offsets of the log, without a consumer group."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from core.errors import LogUnavailable
from core.settings import Settings
from store.log import client as log
from store.log import ends as log_ends

Partition = tuple[str, int]

_HARMLESS = (
    KafkaError._TRANSPORT,  # the client reconnects
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError.GROUP_AUTHORIZATION_FAILED,  # a reader has a group's name and never joins it
)
_MESSAGES = 1000
"""Messages read from the client at once."""
_WAIT_MS = 10
"""Milliseconds that the broker may wait for more records before it answers; the default is 500."""


class LogReader:
    """A consumer without a group. Every method raises LogUnavailable. Not thread-safe."""

    def __init__(self, settings: Settings, purpose: str) -> None:
        """`purpose`: part of the group name that an operator sees; nothing is committed to it."""
        self._settings = settings
        config = log.consumer_config(settings, f"{settings.ingest_group}-{purpose}")
        reading = {
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": _WAIT_MS,
        }
        self._consumer = Consumer(config | reading)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()

    def topics(self) -> set[str]:
        """The names of all topics."""
        try:
            return set(self._consumer.list_topics(timeout=self._settings.kafka_timeout_s).topics)
        except KafkaException as error:
            raise log.unreachable(self._settings, "listing topics", error) from error

    def partitions(self, topic: str) -> list[Partition]:
        """The partitions that a topic has now."""
        try:
            metadata = self._consumer.list_topics(
                topic, timeout=self._settings.kafka_timeout_s
            ).topics[topic]
        except KafkaException as error:
            raise log.unreachable(
                self._settings, f"listing the partitions of {topic}", error
            ) from error
        if metadata.error is not None:
            raise LogUnavailable(
                f"Kafka at {self._settings.kafka_bootstrap_servers} answered for topic "
                f"{topic}: {metadata.error.str()}"
            )
        return [(topic, number) for number in sorted(metadata.partitions)]

    def ends(self, partition: Partition, position: int) -> tuple[int, int]:
        """First offset and end of a partition that is to be read from `position`."""
        return log_ends.ends(self._settings, self._consumer, *partition, position)

    def offsets_at(
        self, partitions: Sequence[Partition], seconds: float
    ) -> dict[Partition, int | None]:
        """For each partition an offset at or before the first message since `seconds`.

        `seconds`: broker time, since 1970. None where there is no such message.
        """
        requests = [TopicPartition(*partition, int(seconds * 1000)) for partition in partitions]
        try:
            answers = self._consumer.offsets_for_times(
                requests, timeout=self._settings.kafka_timeout_s
            )
        except KafkaException as error:
            raise log.unreachable(self._settings, "looking up offsets by time", error) from error
        for answer in answers:
            if answer.error is not None:
                raise log.unreachable(
                    self._settings,
                    f"looking up offsets of {answer.topic} by time",
                    KafkaException(answer.error),
                )
        return {
            (answer.topic, answer.partition): answer.offset if answer.offset >= 0 else None
            for answer in answers
        }

    def read(self, ranges: Mapping[Partition, tuple[int, int | None]]) -> Generator[Any]:
        """The messages of each partition at offsets [start, end), in the order of each partition.

        `end` None: up to the log's end as it is now. Offsets that the log no longer holds are
        skipped.
        """
        unfinished = {
            partition: end
            for partition, (start, end) in ranges.items()
            if end is None or start < end
        }
        if not unfinished:
            return
        self._consumer.assign(
            [TopicPartition(*partition, ranges[partition][0]) for partition in unfinished]
        )
        quiet_since = time.monotonic()
        try:
            while unfinished:
                messages = self._consumer.consume(1, 0.1)
                if messages:
                    # a first call for many messages would wait for all of them
                    messages += self._consumer.consume(_MESSAGES, 0)
                    quiet_since = time.monotonic()
                elif time.monotonic() - quiet_since > self._settings.kafka_timeout_s:
                    raise LogUnavailable(
                        f"Kafka at {self._settings.kafka_bootstrap_servers} did not answer "
                        f"for {self._settings.kafka_timeout_s:g} s while reading "
                        f"{', '.join(f'{topic}/{number}' for topic, number in unfinished)}; is "
                        f"the broker up?"
                    )
                for message in messages:
                    yield from self._checked(message, unfinished)
        except KafkaException as error:
            raise log.unreachable(self._settings, "reading the log", error) from error
        finally:
            self._consumer.unassign()

    def read_topic(self, topic: str) -> Generator[Any]:
        """Every message of `topic` up to the log's end as it is now."""
        yield from self.read(dict.fromkeys(self.partitions(topic), (0, None)))

    def first(self, partition: Partition) -> list[Any]:
        """The first message that the log still holds of a partition, as a list of one or none."""
        messages = self.read({partition: (0, None)})
        try:
            return list(itertools.islice(messages, 1))
        finally:
            messages.close()

    def _checked(self, message: Any, unfinished: dict[Partition, int | None]) -> Iterator[Any]:
        partition = (message.topic(), message.partition())
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                unfinished.pop(partition, None)
            elif error.code() not in _HARMLESS:
                raise log.unreachable(
                    self._settings, f"reading {partition[0] or 'the log'}", KafkaException(error)
                )
            return
        if partition not in unfinished:
            return
        end = unfinished[partition]
        if end is None or message.offset() < end:
            yield message
        if end is not None and message.offset() >= end - 1:
            del unfinished[partition]
