"""Counts the partitions of topics, and stores since when each number is valid.

TOPIC_PARTITIONS is only the number with which a topic is created.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from core.settings import Settings
from store.log import client as log
from store.state import keys
from store.state.connection import named_errors

_log = structlog.get_logger(__name__)

PRODUCERS_NOTICE_S = 300.0
"""Seconds in which producers may still use the old number after partitions were added:
metadata.max.age.ms of Kafka's clients.
"""


class Partitions:
    """The number of partitions of each topic, as the broker last answered. Thread-safe."""

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        """Connects nothing before the first `refresh`."""
        self._settings, self._topics = settings, topics
        self._client: AdminClient | None = None
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def count(self, topic: str) -> int | None:
        """The number of partitions of `topic`; None before the broker's first answer."""
        return self._counts.get(topic)

    def refresh(self, timeout_s: float | None = None) -> None:
        """Read the numbers from the broker, and log `partitions_added` for a topic that has more.

        `timeout_s`: seconds to wait, by default KAFKA_TIMEOUT_S. Raises LogUnavailable.
        """
        answers = self._connected().describe_topics(
            TopicCollection(list(self._topics)),
            request_timeout=timeout_s or self._settings.kafka_timeout_s,
        )
        current: dict[str, int] = {}
        for topic, answer in answers.items():
            try:
                current[topic] = len(answer.result().partitions)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise log.unreachable(
                        self._settings, f"counting the partitions of {topic}", error
                    ) from error
        with self._lock:
            counts = dict(self._counts)
            for topic, count in current.items():
                before = counts.get(topic)
                if not count:  # the topic is being created
                    continue
                if before is not None and count > before:
                    _log.info(
                        "partitions_added",
                        topic=topic,
                        before=before,
                        partitions=count,
                        added=list(range(before, count)),
                    )
                counts[topic] = count
            self._counts = counts  # replaced, never changed: readers take no lock

    def ends(self, topic: str) -> list[int]:
        """The end of each partition of `topic`, in order. Raises LogUnavailable."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        requests: dict[TopicPartition, Any] = {
            TopicPartition(topic, number): latest for number in range(self.count(topic) or 0)
        }
        try:
            futures = (
                self._connected().list_offsets(
                    requests, request_timeout=self._settings.kafka_timeout_s
                )
                if requests
                else {}
            )
            return [futures[partition].result().offset for partition in requests]
        except KafkaException as error:
            raise log.unreachable(
                self._settings, f"asking for the ends of {topic}", error
            ) from error

    def _connected(self) -> AdminClient:
        with self._lock:
            if self._client is None:  # a client without pending events is false
                self._client = log.admin(self._settings)
            return self._client


def count(settings: Settings, topic: str, timeout_s: float | None = None) -> int:
    """The number of partitions of `topic` now; TOPIC_PARTITIONS while it does not exist.

    Raises LogUnavailable.
    """
    partitions = Partitions(settings, [topic])
    partitions.refresh(timeout_s)
    return partitions.count(topic) or settings.topic_partitions


class Layout(NamedTuple):
    """The number of partitions of a topic, and since when every producer must use it.

    `since` is in seconds since 1970.
    """

    partitions: int
    since: float


def note_layout(client: Any, topic: str, partitions: int, known: Layout | None = None) -> Layout:
    """Store the broker's number of partitions in Redis, and return the layout.

    `client`: of shard 0. `known`: the layout that this process stored before; it is stored again
    when Redis was emptied since. Events from before partitions were added stay in the partitions of
    the old number. The first number that is stored counts from the log's beginning on, because
    earlier numbers are unknown. Raises StoreUnavailable.
    """
    key = keys.of(client).layout(topic)
    with named_errors(f"storing the partitions of {topic}"):
        stored, since = client.hmget(key, ["partitions", "since"])
        if stored is not None and int(stored) == partitions:
            return Layout(partitions, float(since or 0))
        if stored is None and known is not None and known.partitions == partitions:
            layout = known
        else:
            layout = Layout(
                partitions, 0.0 if stored is known is None else time.time() + PRODUCERS_NOTICE_S
            )
        client.hset(key, mapping={"partitions": layout.partitions, "since": repr(layout.since)})
    return layout
