"""Publishes dead letters of archived messages that ingest may not have read, before `streams
rebuild` moves a position past them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import BadEvent
from core.settings import Settings
from store.log import dead_letters
from store.log.message import LogMessage
from store.log.producer import Producer

COLUMNS = ("offset", "broker_time", "error", "raw", "raw_truncated")
"""Columns of the archive that a dead letter needs."""


class ArchivedLetters:
    """Gathers dead letters of one topic.

    Connects to Kafka on the first `publish` that has any. Not thread-safe.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings, self._topic = settings, topic
        self._producer: Producer | None = None
        self._waiting: list[dead_letters.Record] = []

    def add(self, partition: int, row: Mapping[str, Any]) -> None:
        """Gather the dead letter of a row (COLUMNS) with an error.

        The archive has no key, and only the first bytes of a message. The letter of a longer one is
        marked as truncated; the source topic has the whole message until its retention ends.
        """
        code, _, reason = row["error"].partition(": ")
        message = LogMessage(
            self._topic, partition, row["offset"], row["broker_time"], None, row["raw"]
        )
        record = dead_letters.encode(
            message, BadEvent(code, reason), truncated=bool(row["raw_truncated"])
        )
        self._waiting.append(record)

    def publish(self) -> None:
        """Publish the letters and wait until they are acknowledged. Raises LogUnavailable."""
        if not self._waiting:
            return
        if self._producer is None:
            self._producer = Producer(self._settings)
        for record in self._waiting:
            self._producer.raw(
                self._settings.dlq_topic, record.key, record.value, headers=record.headers
            )
        self._producer.flush()
        self._waiting.clear()

    def close(self) -> None:
        """Drop the connection."""
        if self._producer is not None:
            self._producer.close()
