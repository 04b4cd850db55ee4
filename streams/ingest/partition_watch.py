"""Asks the broker for the number of partitions, in a thread beside a consumer; it also knows the
partitions that are not assigned to any process yet.
"""

from __future__ import annotations

import threading
import time

import structlog

from core.errors import LogUnavailable, StoreUnavailable
from core.settings import Settings
from store.log.topics import partitions
from store.log.topics.partitions import Layout, Partitions
from store.state.apply import positions
from store.state.inspection import memory
from store.state.shards import Shards
from streams import metrics

_log = structlog.get_logger(__name__)

WATCH_S = 5.0
"""Seconds between two requests to the broker: how late added partitions are noticed, and how old
the lag of a topic may be.
"""


class PartitionWatch(threading.Thread):
    """Asks every WATCH_S seconds, and logs `partitions_added`.

    A request that fails is repeated after WATCH_S; the consumer's thread logs outages.
    """

    def __init__(self, settings: Settings, topics: list[str]) -> None:
        super().__init__(name="partition-watch", daemon=True)
        self._settings, self._topics = settings, topics
        self._stopped = threading.Event()
        self._partitions = Partitions(settings, topics)
        self.answered_at = 0.0
        """time.monotonic() before the latest request that was answered."""

    def run(self) -> None:
        """The thread."""
        while True:
            try:
                self.look()
            except (LogUnavailable, StoreUnavailable) as error:
                _log.debug("partitions_not_counted", error=str(error))
            if self._stopped.wait(WATCH_S):
                return

    def look(self) -> None:
        """Ask once. Raises LogUnavailable, StoreUnavailable."""
        began = time.monotonic()
        self._partitions.refresh()
        self._use_counts(self._partitions)
        self.answered_at = began

    def close(self) -> None:
        """End the thread, without waiting for a request that is under way: it may take up to
        KAFKA_TIMEOUT_S.
        """
        self._stopped.set()

    def _use_counts(self, counts: Partitions) -> None:
        """Use the numbers that the broker answered."""


class IngestWatch(PartitionWatch):
    """Also measures the lag of whole topics and the memory of Redis, and reads the layout of the
    interactions topic.
    """

    def __init__(self, settings: Settings, topics: list[str]) -> None:
        super().__init__(settings, topics)
        self._shards = Shards(settings)
        self._layout: Layout | None = None

    @property
    def layout(self) -> Layout | None:
        """Of the interactions topic, as of `answered_at`; None before the first answer."""
        return self._layout

    def _use_counts(self, counts: Partitions) -> None:
        interactions = self._settings.interactions_topic
        count = counts.count(interactions)
        if count is not None:
            self._layout = partitions.note_layout(
                self._shards.first, interactions, count, self._layout
            )
        for topic in self._topics:
            ends = counts.ends(topic)
            applied = positions.offsets(self._shards, topic, len(ends))
            behind = sum(
                max(0, end - position) for end, position in zip(ends, applied, strict=True)
            )
            metrics.topic_lag_events.labels(topic).set(behind)
        used, limit = memory.used_and_limit(self._shards)
        metrics.redis_memory_bytes.set(used)
        metrics.redis_memory_limit_bytes.set(limit)
