"""Finds users whose events come through a partition that murmur2, the partitioner of Kafka's own
clients, does not choose for their id.

A producer with another partitioner (librdkafka's default is CRC32), without a key, or with another
key puts a user's events into another partition than the rest. Each event counts, but the same event
sent through both counts twice, because duplicates are found within a partition, and a user's events
are not in order.

1. `add` gathers the events of users who are not known to belong to the partition.
2. `check` hashes all these users at once, every second or after CHECK_EVENTS events. Users whose
   events came through another partition are suspects; the others are known from then on.
3. When the broker has answered the number of partitions again, suspects from before partitions were
   added are dropped. The others are counted, logged and noted in Redis for `inspect user`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from core.errors import StoreUnavailable
from core.murmur2 import partitions_of
from store.log.topics.partitions import Layout
from store.state.apply.batches import Event
from store.state.entities import users
from store.state.shards import Shards, users_by_shard
from streams import metrics
from streams.ingest.partition_watch import IngestWatch

_log = structlog.get_logger(__name__)

CHECK_EVENTS = 2_000
"""Events of unknown users that are hashed at once: a hash alone takes some 3 us (core/murmur2.py).
An event of a known user costs less than half of one that is hashed
(`python -m benchmarks.partition_check`, `--users`).
"""
MOST_KNOWN = 200_000
"""Users known to belong to their partitions, some 20 MB; more are hashed again."""
CHECK_S = 1.0
"""Seconds after which fewer events are checked."""
MOST_SUSPECTS = 20_000
"""Pairs of user and partition that wait for the number of partitions; more are not counted."""
MOST_NOTED = 1_000
"""Users that one process notes in Redis: enough to see which producer sends them."""
REMIND_S = 600.0
"""Seconds between two warnings."""
REMEDY = (
    "in every producer, use the user id as key and the partitioner murmur2 (librdkafka: "
    "partitioner=murmur2_random; Java's default)"
)


class _Suspects(NamedTuple):
    since: float
    """time.monotonic() of the first one's check."""
    events: dict[tuple[int, str], int]
    """(Partition, user id) -> events."""


class ForeignPartitions:
    """Gathers and checks events. Belongs to the consumer's thread."""

    def __init__(self, shards: Shards, topic: str, watch: IngestWatch) -> None:
        self._shards, self._topic, self._watch = shards, topic, watch
        self._known: dict[int, set[str]] = {}  # by partition, under `_partitions` of them
        self._partitions = 0
        self._gathered: list[tuple[int, Sequence[Event]]] = []
        self._waiting = 0
        self._checked = time.monotonic()
        self._suspects = _Suspects(0.0, {})
        self._noted: set[tuple[int, str]] = set()
        self._warned = -REMIND_S
        self._unreported = 0

    def add(self, partition: int, events: Sequence[Event]) -> None:
        """Step 1."""
        if known := self._known.get(partition):
            events = [event for event in events if event.interaction.user_id not in known]
        if events:
            self._gathered.append((partition, events))
            self._waiting += len(events)

    def check(self) -> None:
        """Steps 2 and 3, when they are due."""
        layout, now = self._watch.layout, time.monotonic()
        if (
            self._suspects.events
            and layout is not None
            and self._suspects.since < self._watch.answered_at
        ):
            self._report(layout)
        if self._waiting < CHECK_EVENTS and now - self._checked < CHECK_S:
            return
        self._checked = now
        gathered, self._gathered, self._waiting = self._gathered, [], 0
        if layout is None or layout.partitions == 1:
            return
        if layout.partitions != self._partitions or self._known_users() > MOST_KNOWN:
            self._partitions, self._known = layout.partitions, {}
        # The oldest event of a batch decides. A partition above the number was added after the
        # broker's answer.
        batches = [
            batch
            for batch in gathered
            if batch[1][0].broker_time >= layout.since and batch[0] < layout.partitions
        ]
        ids = [event.interaction.user_id for _, events in batches for event in events]
        keys = [user_id.encode() for user_id in ids]
        own_partitions = partitions_of(keys, layout.partitions).tolist()
        start = 0
        for partition, events in batches:
            part = slice(start, start + len(events))
            start = part.stop
            users_here, own = set(ids[part]), own_partitions[part]
            if own.count(partition) < len(own):
                pairs = zip(events, own, strict=True)
                foreign = [event for event, own in pairs if own != partition]
                self._suspect(partition, foreign, now)
                users_here.difference_update(event.interaction.user_id for event in foreign)
            self._known.setdefault(partition, set()).update(users_here)

    def _known_users(self) -> int:
        return sum(map(len, self._known.values()))

    def _suspect(self, partition: int, events: Sequence[Event], now: float) -> None:
        if not self._suspects.events:
            self._suspects = _Suspects(now, {})
        counts = self._suspects.events
        for event in events:
            suspect = (partition, event.interaction.user_id)
            if suspect in counts or len(counts) < MOST_SUSPECTS:
                counts[suspect] = counts.get(suspect, 0) + 1

    def _report(self, layout: Layout) -> None:
        """Step 3."""
        suspects, self._suspects = self._suspects.events, _Suspects(0.0, {})
        if layout.since > time.time():  # partitions were added just now
            return
        pairs = list(suspects)
        ids = [user_id.encode() for _, user_id in pairs]
        own_partitions = partitions_of(ids, layout.partitions).tolist()
        foreign = [pair for pair, own in zip(pairs, own_partitions, strict=True) if own != pair[0]]
        if not foreign:
            return
        events = sum(suspects[pair] for pair in foreign)
        metrics.foreign_partition_events.inc(events)
        self._unreported += events
        new = [pair for pair in foreign if pair not in self._noted][
            : max(0, MOST_NOTED - len(self._noted))
        ]
        if new:
            try:
                by_shard = users_by_shard({user_id for _, user_id in new}, len(self._shards))
                for shard, of_shard in by_shard.items():
                    members = set(of_shard)
                    notes = [
                        (user_id, partition) for partition, user_id in new if user_id in members
                    ]
                    users.note_partitions(self._shards[shard], notes)
                self._noted.update(new)
            except StoreUnavailable as error:
                _log.debug("foreign_partitions_not_noted", error=str(error))
        if time.monotonic() - self._warned >= REMIND_S:
            self._warned = time.monotonic()
            partition, user_id = foreign[0]
            _log.warning(
                "events_in_foreign_partitions",
                topic=self._topic,
                events=self._unreported,
                example=(
                    f"user {user_id} in partition {partition}, not "
                    f"{own_partitions[pairs.index(foreign[0])]} of {layout.partitions}"
                ),
                consequence="an event that is sent through two partitioners counts twice",
                remedy=REMEDY,
            )
            self._unreported = 0
