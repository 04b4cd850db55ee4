"""Interactions that the broker took after the deletion of their user, though they were applied
before it: a deletion must not erase them.

Events and deletions lie in different partitions, so ingest may apply an event before the older
deletion of its user. What counts of it is a function of the log (core.deletions, core.dedup), so
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

_MARGIN_S = 1.0
"""Seconds before a deletion from which the log is read: a broker may know the time of a batch's
first message only.
"""


class LaterEvents:
    """Finds such events in the log; store.state.apply.entry_applier says when.

    Connects on first use. Not thread-safe.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reader: LogReader | None = None

    def close(self) -> None:
        """Drop the connection to Kafka; the next call opens another."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def partitions(self) -> list[Partition]:
        """Every partition of the interactions topic. Raises LogUnavailable."""
        return self._connected().partitions(self._settings.interactions_topic)

    def find(self, times: Mapping[str, float], positions: Sequence[int]) -> dict[str, list[Event]]:
        """The events that count of the users in `times` (user id -> seconds) with a later broker
        time, by user, in the log's order.

        `positions`: of each partition, in the order of `partitions`, the offset below which they
        are looked for. Raises LogUnavailable.
        """
        reader = self._connected()
        partitions = self.partitions()[: len(positions)]
        starts = reader.offsets_at(partitions, min(times.values()) - _MARGIN_S)
        found: dict[str, list[Event]] = {}
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
            # which of them are duplicates follows from the window before the first
            dedup = Dedup(self._settings.dedup_window)
            window = max(0, first - self._settings.dedup_window)
            for offset, event in self._events(reader, partition, window, position, None):
                if dedup.is_duplicate(event.interaction.event_id, offset):
                    continue
                user_id = event.interaction.user_id
                if offset >= first and event.broker_time > times.get(user_id, float("inf")):
                    found.setdefault(user_id, []).append(event)
        return found

    def _events(
        self,
        reader: LogReader,
        partition: Partition,
        start: int,
        end: int,
        times: Mapping[str, float] | None,
    ) -> Iterator[tuple[int, Event]]:
        """The valid events at offsets [start, end) with their offsets; with `times`, only those
        later than a deletion of their user.
        """
        earliest = -1.0 if times is None else min(times.values())
        for message in reader.read({partition: (start, end)}):
            broker_time = message.timestamp()[1] / 1000
            if broker_time <= earliest:
                continue
            try:
                interaction = codec.decode_interaction(
                    message.value(), broker_time, self._settings.use_cases
                )
            except BadEvent:
                continue
            if times is None or broker_time > times.get(interaction.user_id, float("inf")):
                yield message.offset(), Event(interaction, broker_time)

    def _connected(self) -> LogReader:
        if self._reader is None:
            self._reader = LogReader(self._settings, "later-events")
        return self._reader
