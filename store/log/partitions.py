"""How many partitions the topics have, as the broker says.

TOPIC_PARTITIONS is only what a topic is created with.
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
"""Seconds until every producer has noticed added partitions: metadata.max.age.ms of Kafka's
clients. Until then they use the old number.
"""


class Partitions:
    """The latest answer of the broker by topic. Thread-safe."""

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        """Connects nothing before the first `refresh`."""
        self._settings, self._topics = settings, topics
        self._client: AdminClient | None = None
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def count(self, topic: str) -> int | None:
        """Partitions of `topic`; None before the broker's first answer."""
        return self._counts.get(topic)

    def refresh(self, timeout_s: float | None = None) -> None:
        """Ask the broker, and log `partitions_added` for a topic that has grown since the last
        answer.

        `timeout_s`: seconds to wait, KAFKA_TIMEOUT_S unless given. Raises LogUnavailable.
        """
        answers = self._connected().describe_topics(
            TopicCollection(list(self._topics)),
            request_timeout=timeout_s or self._settings.kafka_timeout_s,
        )
        found: dict[str, int] = {}
        for topic, answer in answers.items():
            try:
                found[topic] = len(answer.result().partitions)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise log.unreachable(
                        self._settings, f"counting the partitions of {topic}", error
                    ) from error
        with self._lock:
            counts = dict(self._counts)
            for topic, count in found.items():
                before = counts.get(topic)
                if not count:  # just being created
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
        """The log's end of each partition of `topic`, by number. Raises LogUnavailable."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked: dict[TopicPartition, Any] = {
            TopicPartition(topic, number): latest for number in range(self.count(topic) or 0)
        }
        try:
            futures = (
                self._connected().list_offsets(
                    asked, request_timeout=self._settings.kafka_timeout_s
                )
                if asked
                else {}
            )
            return [futures[partition].result().offset for partition in asked]
        except KafkaException as error:
            raise log.unreachable(
                self._settings, f"asking for the ends of {topic}", error
            ) from error

    def _connected(self) -> AdminClient:
        with self._lock:
            self._client = self._client or log.admin(self._settings)
            return self._client


def count(settings: Settings, topic: str, timeout_s: float | None = None) -> int:
    """Partitions of `topic` now; TOPIC_PARTITIONS while it does not exist.

    Raises LogUnavailable.
    """
    partitions = Partitions(settings, [topic])
    partitions.refresh(timeout_s)
    return partitions.count(topic) or settings.topic_partitions


class Layout(NamedTuple):
    """`partitions` of a topic, and `since` when (seconds since 1970) each producer is held to put a
    key where that number says.
    """

    partitions: int
    since: float


def note_layout(client: Any, topic: str, partitions: int, known: Layout | None = None) -> Layout:
    """Note the number of partitions that the broker says, and return the layout. Raises
    StoreUnavailable.

    `known`: what this process noted before, which is noted again in a Redis that was emptied since.
    Events of the time before partitions were added lie where the old number put them, for good. The
    first number that anybody notes counts from the log's beginning on: what was before is not
    known.
    """
    key = keys.layout(topic)
    with named_errors(f"noting the partitions of {topic}"):
        noted, since = client.hmget(key, ["partitions", "since"])
        if noted is not None and int(noted) == partitions:
            return Layout(partitions, float(since or 0))
        if noted is None and known is not None and known.partitions == partitions:
            layout = known
        else:
            layout = Layout(
                partitions, 0.0 if noted is known is None else time.time() + PRODUCERS_NOTICE_S
            )
        client.hset(key, mapping={"partitions": layout.partitions, "since": repr(layout.since)})
    return layout
