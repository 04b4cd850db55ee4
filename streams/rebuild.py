"""`streams rebuild`: Redis from the archive, after Redis was lost or a gap opened between it and the log.

1. Nobody else may write: the lease `ingest-rebuild` keeps a second rebuild out, and a running ingest shows itself by moving a position.
2. With `wipe`, every key that is made from the log is deleted.
3. Users who were deleted are read from their topic, so that their interactions stay out.
4. Each partition: the duplicate window is read from the archive, then the archive's events are applied from Redis' position on,
   by the same planner and transactions as ingest uses. A rebuild that is killed goes on from where it stood.
5. Items and profiles, and events younger than the archive, come from the log when ingest starts again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import structlog
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.dedup import Dedup
from core.errors import Stale, StoreError
from core.settings import Settings
from core.types import Interaction
from store import apply, connection, experiments, keys, positions
from store.apply import Applier, Event, Planner
from store.archive import Archive
from store.lease import Lease
from store.pending import Pending
from streams import deletions

_log = structlog.get_logger(__name__)

_FIELDS = ("event_id", "user_id", "item_id", "event_type", "timestamp", "value", "use_case", "recommendation_id")
"""What an event's effect on Redis follows from."""
_COLUMNS = ["offset", "broker_time", "error", *_FIELDS]
_LEASE_S = 30.0


class Rebuilt(NamedTuple):
    """One partition: where Redis stood, where it stands now, and how many events were counted between."""

    partition: int
    before: int
    after: int
    events: int


def run(settings: Settings, *, wipe: bool = False) -> list[Rebuilt]:
    """Rebuild, with a progress bar; answers what was done, by partition. Raises StoreError, LogUnavailable, ArchiveError."""
    client = connection.connect(settings)
    connection.check_server(client)
    archive = Archive(settings.archive_url)
    topic = settings.interactions_topic
    with Lease(client, "ingest-rebuild", _LEASE_S):
        if wipe:
            _wipe(client)
        positions.check_settings(client, settings)
        experiments.note(client, settings.experiments)
        deletions.recover(settings, client)
        deleted = len(apply.deletions(client).times)
        ranges = archive.ranges(topic)
        total = sum(files[-1].next for files in ranges.values())
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, transient=False) as progress:
            task = progress.add_task(f"{topic} ({deleted} deleted users stay out)", total=total)
            rebuilt = []
            for partition, files in ranges.items():
                rebuilt.append(_partition(settings, client, archive, partition, files[-1].next))
                progress.update(task, advance=files[-1].next)
    for one in rebuilt:
        _log.info("partition rebuilt", topic=topic, **one._asdict())
    return rebuilt


def _partition(settings: Settings, client: connection.Client, archive: Archive, partition: int, end: int) -> Rebuilt:
    """Step 4 for one partition."""
    topic = settings.interactions_topic
    position = positions.take(client, topic, partition)
    begin = position.offset
    if begin >= end:
        return Rebuilt(partition, begin, begin, 0)  # Redis knows all that the archive holds
    popularity = Pending(settings.use_cases, settings.popularity_half_life_days, position.popularity)
    planner = Planner(settings.use_cases, settings.experiments)
    applier = Applier(connection.connect(settings), planner, settings.history_cap)
    deleted = apply.deletions(client)
    dedup = Dedup(settings.dedup_window)
    at, counted, events = begin, 0, list[Event]()

    def put(next_: int) -> None:
        nonlocal at, counted, events
        try:
            applier.apply(planner.plan(topic, partition, at, next_, events, deleted, popularity.piece(next_, whole=next_ == end)))
        except Stale as stale:
            raise StoreError(
                f"{topic}/{partition} moved to {stale.position} while it was rebuilt: stop every ingest, then run this again"
            ) from None
        at, counted, events = next_, counted + len(events), []

    try:
        for offset, event in _rows(archive, topic, partition, max(0, position.popularity.first - settings.dedup_window), end):
            if event is None or dedup.seen(event.interaction.event_id, offset):
                continue
            popularity.add(offset, event.interaction, event.broker_time)
            if offset < begin:
                continue
            events.append(event)
            if len(events) == settings.transaction_events:
                put(offset + 1)
        if end > at:
            put(end)
        while popularity.mark.first < at:
            put(at)
        topic_id = archive.topic_id(topic, partition)
        positions.claim(client, topic, partition, topic_id)
    finally:
        applier.close()
    return Rebuilt(partition, begin, end, counted)


def _rows(archive: Archive, topic: str, partition: int, start: int, end: int) -> Iterator[tuple[int, Event | None]]:
    """The archived messages at offsets [start, end); None for one that is no valid event."""
    if start >= end:
        return
    for table in archive.read(topic, {partition: end}, _COLUMNS, {partition: start}):
        for row in table.to_pylist():
            yield row["offset"], None if row["error"] is not None else Event(_interaction(row), row["broker_time"])


def _interaction(row: dict[str, Any]) -> Interaction:
    return Interaction(**{name: row[name] for name in _FIELDS})


def _wipe(client: connection.Client) -> None:
    with connection.named_errors("deleting what is made from the log"):
        for pattern in keys.OWNED:
            found: list[Any] = []
            for key in client.scan_iter(pattern, count=1000):
                found.append(key)
                if len(found) == 1000:
                    client.unlink(*found)
                    found.clear()
            if found:
                client.unlink(*found)
