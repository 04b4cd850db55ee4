"""Changes the topics of a schedule: trims, compacts, grows and recreates them.

The records are read first, so that the oracle knows what the broker drops.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from core.settings import Settings
from store.log import client as log
from tests import oracle
from tests.oracle.records import sources
from tests.support import eventually

RECORD_S = 0.4
"""Seconds between two reads of the logs while the broker compacts them."""
_LAG = "min.compaction.lag.ms"
"""A deletion that is compacted before ingest reads it is lost, so this must be longer than ingest
is down; the product asks for a day.
"""
_COMPACTION = {
    "segment.ms": "500",
    "min.cleanable.dirty.ratio": "0.01",
    _LAG: "15000",  # longer than ingest takes to start again on a busy machine
    "delete.retention.ms": "0",
}
_NO_COMPACTION = {_LAG: "86400000"}


class Topics:
    """The topics of one schedule, and the logs that were read from them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        log.ensure_topics(settings)
        # kept as an attribute: the end of the client cancels its pending requests
        self._admin: AdminClient = log.admin(settings)
        self._recorder: _Recorder | None = None
        self.logs = oracle.RecordedLog(settings)

    @property
    def is_compacted(self) -> bool:
        """Whether `compact` was called."""
        return self._recorder is not None

    def record(self) -> None:
        """Read every log up to its end."""
        self.logs.read(sources(self._settings))

    def partitions(self, topic: str) -> int:
        """The number of partitions of a topic."""
        return len(self._admin.list_topics(topic, timeout=30).topics[topic].partitions)

    def trim(self, offsets: Mapping[int, int]) -> None:
        """Remove the records below `offsets` (by partition) from the interactions."""
        self.record()
        starts = [
            TopicPartition(self._settings.interactions_topic, *limit) for limit in offsets.items()
        ]
        for trimmed in self._admin.delete_records(starts).values():
            trimmed.result(30)

    def compact(self) -> None:
        """Let the broker compact `users`, `items` and the deletions within seconds from now on,
        tombstones included.
        """
        self._recorder = _Recorder(self)
        self._recorder.start()
        self._alter(_COMPACTION)

    @contextmanager
    def no_compaction(self) -> Iterator[None]:
        """Compact nothing during the block, in which ingest is down."""
        if self.is_compacted:
            self._alter(_NO_COMPACTION)
        yield
        if self.is_compacted:
            self._alter(_COMPACTION)

    def _alter(self, values: Mapping[str, str]) -> None:
        """Set `values` for `users`, `items` and the deletions."""
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in values.items()
        ]
        settings = self._settings
        topics = (settings.users_topic, settings.items_topic, settings.deletions_topic)
        resources = [
            ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
            for topic in topics
        ]
        for altered in self._admin.incremental_alter_configs(resources).values():
            altered.result(30)

    def stop_recording(self) -> None:
        """End the reads that `compact` has started, after a last one."""
        if self._recorder is not None:
            self._recorder.end()

    def add_partitions(self, topic: str, count: int) -> None:
        """Raise the number of partitions of a topic to `count`."""
        for added in self._admin.create_partitions([NewPartitions(topic, count)]).values():
            added.result(30)

    def recreate(self, topic: str) -> None:
        """Delete a topic and create it again, empty. Traffic must pause."""
        for deleted in self._admin.delete_topics([topic]).values():
            deleted.result(30)
        eventually(
            lambda: topic not in self._admin.list_topics(timeout=30).topics, "the topic is deleted"
        )
        eventually(
            lambda: topic in log.ensure_topics(self._settings),
            "the topic is created again",
            every=0.2,
        )
        self.logs.forget(topic)

    def delete(self) -> None:
        """Delete all topics of the schedule."""
        self.stop_recording()
        suffix = self._settings.interactions_topic.removeprefix("interactions")
        names = [name for name in self._admin.list_topics(timeout=30).topics if suffix in name]
        self._admin.delete_topics(names)


class _Recorder(threading.Thread):
    """Reads the logs every RECORD_S, so that compaction removes no record before it is read."""

    def __init__(self, topics: Topics) -> None:
        super().__init__(name="recorder")
        self._topics, self._ended = topics, threading.Event()

    def run(self) -> None:
        """The thread."""
        while not self._ended.wait(RECORD_S):
            self._topics.record()

    def end(self) -> None:
        """Stop after a last read."""
        self._ended.set()
        self.join()
