"""Finds the interactions that are younger than the deletion of their user but were applied before
it: a deletion must not erase them.

Events and deletions lie in different partitions, so ingest may apply an event before an older
deletion of its user. Which events count is a function of the log (core.deletions, core.dedup), so
the log is read again, from the time of the deletion to the position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from core import codec
from core.dedup import Dedup
from core.errors import BadEvent
from core.settings import Settings
from store.log.reader import LogReader, Partition
from store.state.apply.batches import Event
from store.state.shards import UserCheck, shard_of_partition

_MARGIN_S = 1.0
"""Seconds before a deletion from which the log is read: a broker may know only the time of the
first message of a batch.
"""


class LaterEvents:
    """Reads such events from the log, for store.state.apply.entry_applier.

    Connects on first use. Not thread-safe.
    """

    def __init__(self, settings: Settings, shard: int) -> None:
        """`shard`: of the users whose events are looked for."""
        self._settings, self._shard = settings, shard
        self._reader: LogReader | None = None

    def close(self) -> None:
        """Drop the connection to Kafka; the next call opens another."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def partitions(self) -> list[Partition]:
        """The partitions of the interactions topic that have users of the shard.

        Raises LogUnavailable.
        """
        topic = self._settings.interactions_topic
        return [
            partition
            for partition in self._connected().partitions(topic)
            if shard_of_partition(self._settings, *partition) == self._shard
        ]

    def find(self, times: Mapping[str, float], positions: Sequence[int]) -> dict[str, list[Event]]:
        """By user, in the order of the log: the events that count and whose broker time is later
        than the user's in `times` (user id -> seconds).

        `positions`: of each partition, in the order of `partitions`, the offset at which the search
        ends. Raises LogUnavailable.
        """
        reader = self._connected()
        partitions = self.partitions()[: len(positions)]
        starts = reader.offsets_at(partitions, min(times.values()) - _MARGIN_S)
        later: dict[str, list[Event]] = {}
        for partition, position in zip(partitions, positions, strict=True):
            start = starts[partition]
            if start is None or start >= position:
                continue
            first = next(
                (offset for offset, _ in self._events(reader, partition, start, position, times)),
                None,
            )
            if first is None:
                continue
            # the window before the first one decides which of them are duplicates
            dedup = Dedup(self._settings.dedup_window)
            window = max(0, first - self._settings.dedup_window)
            for offset, event in self._events(reader, partition, window, position, None):
                if dedup.is_duplicate(event.interaction.event_id, offset):
                    continue
                user_id = event.interaction.user_id
                if offset >= first and event.broker_time > times.get(user_id, float("inf")):
                    later.setdefault(user_id, []).append(event)
        return later

    def _events(
        self,
        reader: LogReader,
        partition: Partition,
        start: int,
        end: int,
        times: Mapping[str, float] | None,
    ) -> Iterator[tuple[int, Event]]:
        """Offset and event of each valid message at the offsets [start, end); with `times`, only of
        events later than the deletion of their user.
        """
        earliest = -1.0 if times is None else min(times.values())
        use_cases, tolerance = self._settings.use_cases, self._settings.tolerance
        users = UserCheck(self._settings.redis_shards)
        for message in reader.read({partition: (start, end)}):
            broker_time = message.timestamp()[1] / 1000
            if broker_time <= earliest:
                continue
            try:
                interaction = codec.decode_interaction(
                    message.value(), broker_time, use_cases, tolerance
                )
                users.check(interaction.user_id, partition[1])
            except BadEvent:
                continue
            if times is None or broker_time > times.get(interaction.user_id, float("inf")):
                yield message.offset(), Event(interaction, broker_time)

    def _connected(self) -> LogReader:
        if self._reader is None:
            self._reader = LogReader(self._settings, "later-events")
        return self._reader
