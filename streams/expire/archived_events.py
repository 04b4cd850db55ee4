"""Finds the events of some users in the archive that Redis counts: those below its position that
are no duplicate and later than the deletion of their user.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from core.dedup import Dedup
from core.deletions import IdHasher
from core.settings import Settings
from store.archive.archive import Archive
from store.state.apply import deletions, positions
from store.state.entities.users import history_line
from store.state.shards import Shards, shards_of_users, users_by_shard

_COLUMNS = ["offset", "broker_time", "event_id", "user_id"]
_LINE_COLUMNS = ["timestamp", "event_type", "value", "item_id"]


class _Event(NamedTuple):
    user_id: str
    partition: int
    broker_time: float
    table: pa.Table
    row: int


class ArchivedEvents:
    """Reads the whole archive for each call, about a microsecond for each archived event.

    Every method raises ArchiveError, StoreUnavailable.
    """

    def __init__(self, settings: Settings, shards: Shards) -> None:
        self._settings, self._shards = settings, shards
        self._hasher = IdHasher(settings.deletion_salt)

    def count(self, user_ids: Collection[str]) -> Counter[str]:
        """User -> number of events."""
        return Counter(event.user_id for event in self._rows(user_ids, _COLUMNS))

    def lines(self, counts: Mapping[str, int]) -> dict[str, list[str]]:
        """User -> the lines of a history of the first `counts[user]` events, HISTORY_CAP at most.

        A user of whom the archive has fewer events is left out. Within a partition the order is
        that of the log, between partitions that of the broker's time.
        """
        lines: dict[str, dict[int, list[tuple[float, str]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for event in self._rows(counts, [*_COLUMNS, *_LINE_COLUMNS]):
            timestamp, event_type, value, item_id = (
                event.table[name][event.row].as_py() for name in _LINE_COLUMNS
            )
            line = history_line(timestamp, event_type, value, item_id)
            lines[event.user_id][event.partition].append((event.broker_time, line))
        return {
            user_id: ordered[: counts[user_id]][-self._settings.history_cap :]
            for user_id, by_partition in lines.items()
            if len(ordered := _merged(by_partition)) >= counts[user_id]
        }

    def _rows(self, user_ids: Collection[str], columns: list[str]) -> Iterator[_Event]:
        times = self._deletion_times(list(user_ids))
        topic, archive = self._settings.interactions_topic, Archive(self._settings.archive_url)
        for partition, archived in archive.positions(topic).items():
            client = self._shards.of_partition(topic, partition)
            position = positions.read(client, topic, partition)
            end = {partition: min(archived, position.offset)}
            dedup = Dedup(self._settings.dedup_window)
            for table in archive.read(topic, end, columns, {partition: position.begins}):
                values = [table[name].to_pylist() for name in _COLUMNS]
                foreign = self._foreign_rows(partition, values[-1])
                for row, (offset, broker_time, event_id, user_id) in enumerate(
                    zip(*values, strict=True)
                ):
                    if event_id is None or row in foreign or dedup.is_duplicate(event_id, offset):
                        continue  # no valid event, or a duplicate
                    if user_id in user_ids and broker_time > times.get(user_id, -1.0):
                        yield _Event(user_id, partition, broker_time, table, row)

    def _foreign_rows(self, partition: int, user_ids: Sequence[str | None]) -> set[int]:
        """The rows of users of another shard, which ingest refuses."""
        shards = len(self._shards)
        if shards == 1:
            return set()
        shard_of = shards_of_users([user_id or "" for user_id in user_ids], shards)
        return {row for row, shard in enumerate(shard_of) if shard != partition % shards}

    def _deletion_times(self, user_ids: list[str]) -> dict[str, float]:
        times: dict[str, float] = {}
        for shard, of_shard in users_by_shard(user_ids, len(self._shards)).items():
            digests = [self._hasher("user", user_id) for user_id in of_shard]
            places = deletions.lookup(self._shards[shard], "user", digests)
            times.update(
                (user_id, place.time)
                for user_id, place in zip(of_shard, places, strict=True)
                if place is not None
            )
        return times


def _merged(by_partition: Mapping[int, list[tuple[float, str]]]) -> list[str]:
    if len(by_partition) == 1:
        [ordered] = by_partition.values()
    else:
        ordered = sorted(
            (at_and_line for part in by_partition.values() for at_and_line in part),
            key=lambda at_and_line: at_and_line[0],
        )
    return [line for _, line in ordered]
