"""Applies the archived events of one partition to Redis (step 5 of `streams.rebuild.command`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from core import codec
from core.dedup import Dedup
from core.deletions import IdHasher
from core.errors import BadEvent, Stale, StoreError
from core.settings import Settings
from core.types import Interaction
from store.archive.archive import Archive
from store.state import connection, keys
from store.state.apply import positions
from store.state.apply.applier import Applier
from store.state.apply.batches import Event, KnownDeletions, OffsetRange
from store.state.apply.pending import PendingPopularity
from store.state.apply.planner import Planner
from store.state.shards import UserCheck
from streams.rebuild import archived_letters
from streams.rebuild.archived_letters import ArchivedLetters
from streams.rebuild.plan import Part

_FIELDS = (
    "event_id",
    "user_id",
    "item_id",
    "event_type",
    "timestamp",
    "value",
    "use_case",
    "recommendation_id",
)
"""The fields of an event that decide what it changes in Redis."""
_COLUMNS = [*archived_letters.COLUMNS, *_FIELDS]


class Rebuilt(NamedTuple):
    """One partition: its position in Redis before and after, and how many events were counted in
    between.
    """

    partition: int
    before: int
    after: int
    events: int


class ArchiveReplay:
    """Applies one partition up to the archive's end, by the planner and the transactions that
    ingest uses.
    """

    def __init__(
        self, settings: Settings, client: connection.Client, archive: Archive, part: Part
    ) -> None:
        """`client`: of the shard of the partition."""
        self._client, self._archive, self._part = client, archive, part
        position = positions.take(client, part.topic, part.partition)
        if not position.applied:
            position = positions.begin(client, part.topic, part.partition, 0, part.topic_id)
        self._start = self._next = position.offset
        self._read_from = max(0, position.popularity.first - settings.dedup_window)
        self._dedup = Dedup(settings.dedup_window)
        self._popularity = PendingPopularity(
            settings.use_cases, settings.popularity_half_life_days, position.popularity
        )
        self._planner = Planner(settings.use_cases, settings.experiments, settings.redis_shards)
        self._users = UserCheck(settings.redis_shards)
        hasher = IdHasher(settings.deletion_salt)
        applier_client = connection.connect(settings, shard=keys.of(client).shard)
        self._applier = Applier(applier_client, self._planner, settings.history_cap, hasher)
        self._use_cases = settings.use_cases
        self._letters = ArchivedLetters(settings, part.topic)
        self._most = settings.transaction_events
        self._events: list[Event] = []
        self._counted = 0

    def run(self) -> Rebuilt:
        """Apply the partition. Raises StoreError when another process moves its position."""
        part, end = self._part, self._part.archived
        try:
            for row in self._rows():
                self._add(row)
                if len(self._events) == self._most:
                    self._apply(row["offset"] + 1)
            if end > self._next:
                self._apply(end)
            while self._popularity.mark.first < self._next:
                self._apply(self._next)
            positions.claim(self._client, part.topic, part.partition, part.topic_id)
        finally:
            self._letters.close()
            self._applier.close()
        return Rebuilt(part.partition, self._start, end, self._counted)

    def _rows(self) -> Iterator[dict[str, Any]]:
        """The archived messages that are to be read, one row each."""
        topic, number, end = self._part.topic, self._part.partition, self._part.archived
        start = {number: self._read_from}
        if self._read_from < end:
            for table in self._archive.read(topic, {number: end}, _COLUMNS, start):
                yield from table.to_pylist()

    def _add(self, row: dict[str, Any]) -> None:
        """Take a message up: below the position it only fills the duplicate window and the
        popularity that is not written yet.
        """
        offset = row["offset"]
        is_new = offset >= self._start
        if row["error"] is not None:
            if is_new:
                self._letters.add(self._part.partition, row)
            return
        event = Event(Interaction(**{name: row[name] for name in _FIELDS}), row["broker_time"])
        try:
            codec.check_interaction(event.interaction, event.broker_time, self._use_cases)
            self._users.check(event.interaction.user_id, self._part.partition)
        except BadEvent as bad:  # an event type, a use case or REDIS_SHARDS was changed since
            if is_new:
                raw = codec.encode_json(event.interaction)
                letter = {"error": f"{bad.code}: {bad}", "raw": raw, "raw_truncated": False}
                self._letters.add(self._part.partition, {**row, **letter})
            return
        if self._dedup.is_duplicate(event.interaction.event_id, offset):
            return
        self._popularity.add(offset, event.interaction, event.broker_time)
        if is_new:
            self._events.append(event)

    def _apply(self, next_: int) -> None:
        """Publish the dead letters and apply the events below `next_`, with a piece of the
        popularity.
        """
        topic, number = self._part.topic, self._part.partition
        self._letters.publish()
        piece = self._popularity.piece(next_, whole=next_ == self._part.archived)
        offsets = OffsetRange(topic, number, self._next, next_)
        deletions = KnownDeletions(self._applier.deletions_version, {})
        try:
            self._applier.apply(self._planner.plan(offsets, self._events, deletions, piece))
        except Stale as stale:
            raise StoreError(
                f"{topic}/{number} moved to {stale.position} while it was rebuilt: stop every "
                f"ingest, then run this again"
            ) from None
        self._next = next_
        self._counted += len(self._events)
        self._events = []
