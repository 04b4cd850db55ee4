"""`streams rebuild`: Redis from the archive, after Redis was lost or a gap opened between it and
the log.

1. Nobody else may write: the lease `ingest-rebuild` keeps a second rebuild out; ingest processes
   that run are waited for and then refused.
2. Redis, Kafka and the archive are asked what there is, and the plan is shown
   (`streams.rebuild.plan`). Up to here nothing is changed.
3. With `wipe`, every key that is made from the log is deleted. A wipe that was killed goes on in
   the next rebuild.
4. Deletions are recovered from the log, so that what is older than they are stays out.
5. Each partition: the duplicate window is read from the archive, then the archive's events are
   applied from Redis' position on, by the same planner and transactions as ingest uses. Messages
   that are no valid event are published as dead letters before the position passes them, as ingest
   may not have read them. A rebuild that is killed goes on from where it stood.
6. Items and profiles, and events younger than the archive, come from the log when ingest starts
   again.

With `from_log` the archive is not read: step 5 moves the positions to where the log begins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import structlog
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.dedup import Dedup
from core.deletions import IdHasher
from core.errors import LogGap, Stale, StoreError
from core.settings import Settings
from core.types import Interaction
from store.archive.archive import Archive
from store.state import connection, running
from store.state import wipe as store_wipe
from store.state.apply import deletions as known_deletions
from store.state.apply import positions
from store.state.apply.applier import Applier
from store.state.apply.batches import Event, KnownDeletions, OffsetRange
from store.state.apply.pending import PendingPopularity
from store.state.apply.planner import Planner
from store.state.entities import experiments
from store.state.lease import Lease
from streams.ingest.deletions import recovery
from streams.rebuild import archived_letters
from streams.rebuild import plan as rebuild_plan
from streams.rebuild.archived_letters import ArchivedLetters
from streams.rebuild.plan import Part, Plan

_log = structlog.get_logger(__name__)

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
"""What an event's effect on Redis follows from."""
_COLUMNS = [*archived_letters.COLUMNS, *_FIELDS]
_LEASE_S = 30.0


class Rebuilt(NamedTuple):
    """One partition: where Redis stood, where it stands now, and how many events were counted
    between.
    """

    partition: int
    before: int
    after: int
    events: int


def run(
    settings: Settings, *, wipe: bool = False, from_log: bool = False, yes: bool = False
) -> list[Rebuilt]:
    """Rebuild, with a progress bar; answers what was done, by partition. `yes`: ask nothing.

    Raises what `rebuild_plan.make` raises, with nothing changed; StoreError and LogUnavailable
    later: run it again.
    """
    client = connection.connect(settings)
    connection.check_server(client)
    with Lease(client, running.REBUILD_LEASE, _LEASE_S):
        running.wait_until_none(client)
        plan = rebuild_plan.make(settings, client, wipe_first=wipe, from_log=from_log)
        _confirm(plan, yes)
        if plan.is_empty:
            typer.echo(
                "nothing to rebuild: Redis holds all that the archive holds, and the log "
                "holds what comes next"
            )
            return []
        if plan.wipe:
            store_wipe.wipe(client)
        positions.check_settings(client, settings)
        experiments.save_definitions(client, settings.experiments)
        recovery.recover(settings, client)
        for part in plan.to_move:
            _begin_at_log(client, plan, part)
        rebuilt = _from_archive(settings, client, plan)
    for one in rebuilt:
        _log.info("partition_rebuilt", topic=settings.interactions_topic, **one._asdict())
    typer.echo("done: start ingest, which reads on from the log")
    return rebuilt


def _confirm(plan: Plan, yes: bool) -> None:
    """Show the plan; on a terminal ask before anything is deleted or given up.

    Raises LogGap where nobody can be asked.
    """
    for line in plan.lines():
        typer.echo(line)
    if yes or not (plan.wipe or plan.lost):
        return
    if sys.stdin.isatty():
        typer.confirm("Go on?", abort=True)
    elif plan.lost and not plan.from_log:
        raise LogGap(f"{'; '.join(plan.lost)}. Nothing was changed; --yes goes on all the same")


def _begin_at_log(client: connection.Client, plan: Plan, part: Part) -> None:
    """Let a partition go on, or begin, at the log's first offset."""
    if part.redis.applied and not plan.wipe:
        positions.skip(client, part.topic, part.partition, part.redis.offset, part.low)
    else:
        positions.begin(client, part.topic, part.partition, part.low, part.topic_id)
    _log.warning(
        "gap_accepted",
        topic=part.topic,
        partition=part.partition,
        next=part.low,
        offsets=part.missing,
    )


def _from_archive(settings: Settings, client: connection.Client, plan: Plan) -> list[Rebuilt]:
    """Step 5."""
    if not plan.archived:
        return []
    archive = Archive(settings.archive_url)
    deleted = known_deletions.count(client, "user")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    rebuilt = []
    with Progress(*columns, transient=False) as progress:
        title = f"{settings.interactions_topic} ({deleted} deleted users stay out)"
        task = progress.add_task(title, total=sum(part.from_archive for part in plan.archived))
        for part in plan.archived:
            rebuilt.append(_partition(settings, client, archive, part))
            progress.update(task, advance=part.from_archive)
    return rebuilt


def _partition(
    settings: Settings, client: connection.Client, archive: Archive, part: Part
) -> Rebuilt:
    """Step 5 for one partition."""
    topic, partition, end = part.topic, part.partition, part.archived
    position = positions.take(client, topic, partition)
    if not position.applied:
        position = positions.begin(client, topic, partition, 0, part.topic_id)
    begin = position.offset
    popularity = PendingPopularity(
        settings.use_cases, settings.popularity_half_life_days, position.popularity
    )
    planner = Planner(settings.use_cases, settings.experiments)
    applier = Applier(
        connection.connect(settings),
        planner,
        settings.history_cap,
        IdHasher(settings.deletion_salt),
    )
    dedup = Dedup(settings.dedup_window)
    letters = ArchivedLetters(settings, topic)
    at, counted, events = begin, 0, list[Event]()

    def put(next_: int) -> None:
        nonlocal at, counted, events
        letters.publish()
        try:
            under = KnownDeletions(applier.deletions_version, {})
            applier.apply(
                planner.plan(
                    OffsetRange(topic, partition, at, next_),
                    events,
                    under,
                    popularity.piece(next_, whole=next_ == end),
                )
            )
        except Stale as stale:
            raise StoreError(
                f"{topic}/{partition} moved to {stale.position} while it was rebuilt: stop "
                f"every ingest, then run this again"
            ) from None
        at, counted, events = next_, counted + len(events), []

    try:
        for offset, event in _rows(
            archive,
            topic,
            partition,
            max(0, position.popularity.first - settings.dedup_window),
            end,
        ):
            if not isinstance(event, Event):
                if offset >= begin:
                    letters.add(partition, event)
                continue
            if dedup.is_duplicate(event.interaction.event_id, offset):
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
        positions.claim(client, topic, partition, part.topic_id)
    finally:
        letters.close()
        applier.close()
    return Rebuilt(partition, begin, end, counted)


def _rows(
    archive: Archive, topic: str, partition: int, start: int, end: int
) -> Iterator[tuple[int, Event | dict[str, Any]]]:
    """The archived messages at offsets [start, end); of one that is no valid event, its row."""
    if start >= end:
        return
    for table in archive.read(topic, {partition: end}, _COLUMNS, {partition: start}):
        for row in table.to_pylist():
            yield (
                row["offset"],
                row if row["error"] is not None else Event(_interaction(row), row["broker_time"]),
            )


def _interaction(row: dict[str, Any]) -> Interaction:
    return Interaction(**{name: row[name] for name in _FIELDS})
