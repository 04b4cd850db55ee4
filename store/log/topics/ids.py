"""Reads the ids of topics from the broker, to detect a topic that was created anew.

A topic that was deleted and created again has the same name and another id.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from core.settings import Settings
from store.log import client as log

_log = structlog.get_logger(__name__)

WATCH_S = 2.0
"""Seconds between two requests of `poll`: how late a topic that was created anew is noticed."""

_NO_IDS = (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION)

TopicId = str | None
"""The id of one topic; None where the broker has no topic ids."""


class TopicIds:
    """The ids of `topics`, read by one admin client. `latest` is for any thread, the rest for one.

    Connects at the first request.
    """

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        self._settings, self._topics = settings, list(topics)
        self._client: AdminClient | None = None
        self._latest: dict[str, TopicId] = {}
        self._requested_at = 0.0  # time.monotonic()
        self._pending: Mapping[str, Future[Any]] | None = None
        self._missing: set[str] = set()
        self.confirmed_at: float = 0.0
        """time.monotonic() before the latest request that was answered: records that were read
        earlier came from the topics of this answer.
        """

    def latest(self, topic: str) -> TopicId:
        """The id in the latest answer; None before the first, or where the broker has no ids."""
        return self._latest.get(topic)

    def read(self) -> dict[str, TopicId]:
        """The ids now; waits for the broker.

        Raises LogUnavailable, also for a topic that does not exist.
        """
        sent = time.monotonic()
        ids = {topic: self._id(topic, future) for topic, future in self._describe().items()}
        self.confirmed_at, self._latest = sent, ids
        return ids

    def poll(self) -> dict[str, TopicId]:
        """The ids in an answer that arrived since the last call, by topic; empty if none arrived.

        Never waits: sends a request every WATCH_S and collects the answer in a later call. A topic
        that does not exist is logged once and left out. While the broker is unreachable the answer
        is empty.
        """
        if self._pending is None:
            if time.monotonic() - self._requested_at >= WATCH_S:
                self._requested_at = time.monotonic()
                self._pending = self._describe()
            return {}
        if not all(future.done() for future in self._pending.values()):
            return {}
        answers, self._pending = self._pending, None
        ids: dict[str, TopicId] = {}
        for topic, future in answers.items():
            try:
                ids[topic] = _id_of(future)
                self._missing.discard(topic)
            except KafkaException as error:
                if (
                    error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
                    and topic not in self._missing
                ):
                    self._missing.add(topic)
                    _log.warning("topic_missing", topic=topic, error=error.args[0].str())
        self._latest = {**self._latest, **ids}
        if len(ids) == len(self._topics):
            self.confirmed_at = self._requested_at
        return ids

    def _describe(self) -> Mapping[str, Future[Any]]:
        if self._client is None:
            self._client = log.admin(self._settings)
        timeout = self._settings.kafka_timeout_s
        futures: Mapping[str, Future[Any]] = self._client.describe_topics(
            TopicCollection(self._topics), request_timeout=timeout
        )
        return futures

    def _id(self, topic: str, future: Future[Any]) -> TopicId:
        try:
            return _id_of(future)
        except KafkaException as error:
            raise log.unreachable(self._settings, f"describing the topic {topic}", error) from error


def _id_of(future: Future[Any]) -> TopicId:
    """The id in one answer. Raises KafkaException."""
    try:
        identifier = str(future.result().topic_id)
    except KafkaException as error:
        if error.args[0].code() in _NO_IDS:
            return None
        raise
    # all zero: the broker has no topic ids
    return None if set(identifier) <= {"A", "0", "-"} else identifier
