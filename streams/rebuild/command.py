"""Rebuilds Redis from the archive, after Redis was lost or a gap opened between it and the log:
`streams rebuild`.

1. Exclude other writers: the lease `ingest-rebuild` refuses a second rebuild, and ingest processes
   that start; the rebuild waits until none runs. The lease `expire` excludes `streams expire`.
2. Ask Redis, Kafka and the archive what they hold, and show the plan (`plan`). Nothing is changed
   up to here.
3. With `wipe`, delete every key that is made from the log, also with another REDIS_SHARDS. The
   next rebuild continues a wipe that was killed.
4. Recover the deletions from the log, so that what is older than they are is not applied.
5. Replay each partition (`replay`): read the duplicate window from the archive, then apply the
   archive's events from Redis' position on, by the planner and the transactions that ingest uses.
   A message that is no valid event is published as a dead letter before the position passes it,
   since ingest may not have read it. The next rebuild continues one that was killed.
6. When ingest starts again, it reads items, profiles and younger events from the log.

With `from_log` the archive is not read: step 5 moves the positions to where the log starts.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.errors import LogGap
from core.settings import Settings
from store import start
from store.archive.archive import Archive
from store.state import connection, keys, running
from store.state import wipe as store_wipe
from store.state.apply import counted_settings, positions
from store.state.apply import deletions as known_deletions
from store.state.entities import experiments
from store.state.lease import EXPIRY_LEASE, Lease
from store.state.shards import Shards
from streams.ingest.deletions import recovery
from streams.rebuild import plan as rebuild_plan
from streams.rebuild.plan import Part, Plan
from streams.rebuild.replay import ArchiveReplay, Rebuilt

_log = structlog.get_logger(__name__)

_LEASE_S = 30.0


def run(
    settings: Settings, *, wipe: bool = False, from_log: bool = False, yes: bool = False
) -> list[Rebuilt]:
    """Rebuild, with a progress bar; answers the result of each partition. `yes`: do not ask.

    Raises what `rebuild_plan.make` raises, with nothing changed. Raises StoreError and
    LogUnavailable later: run it again.
    """
    start.announce(settings, "rebuild")
    with ExitStack() as stack:
        shards = stack.enter_context(Shards(settings))
        for client in shards:
            connection.check_server(client)
        _exclude_writers(settings, stack)
        plan = rebuild_plan.make(settings, shards, wipe_first=wipe, from_log=from_log)
        _confirm(plan, yes)
        if plan.is_empty:
            typer.echo(
                "nothing to rebuild: Redis holds all that the archive holds, and the log "
                "holds what comes next"
            )
            return []
        if plan.wipe:
            store_wipe.wipe(settings)
        counted_settings.check(shards.first, settings)
        experiments.save_definitions(shards.first, settings.experiments)
        recovery.recover(settings, shards)
        for part in plan.to_move:
            _begin_at_log(shards.of_partition(part.topic, part.partition), plan, part)
        rebuilt = _from_archive(settings, shards, plan)
    for partition in rebuilt:
        _log.info("partition_rebuilt", topic=settings.interactions_topic, **partition._asdict())
    typer.echo("done: start ingest, which reads on from the log")
    return rebuilt


def _exclude_writers(settings: Settings, stack: ExitStack) -> None:
    """Step 1, also of processes with the former REDIS_SHARDS."""
    with connection.connect(settings) as client:
        numbers = store_wipe.numbers_to_wipe(client)
    firsts: dict[str, connection.Client] = {}
    for number in (settings.redis_shards, *numbers):
        first = connection.connect(settings.model_copy(update={"redis_shards": number}))
        firsts.setdefault(keys.of(first).prefix, first)  # several numbers share a prefix
    for first in firsts.values():
        stack.enter_context(first)
        for lease in (running.REBUILD_LEASE, EXPIRY_LEASE):
            stack.enter_context(Lease(first, lease, _LEASE_S))
        running.wait_until_none(first)


def _confirm(plan: Plan, yes: bool) -> None:
    """Show the plan; on a terminal, ask before anything is deleted or lost.

    Raises LogGap when events would be lost and there is no terminal.
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
    """Move the position of a partition to the log's first offset."""
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


def _from_archive(settings: Settings, shards: Shards, plan: Plan) -> list[Rebuilt]:
    """Step 5."""
    if not plan.archived:
        return []
    archive = Archive(settings.archive_url)
    deleted = sum(known_deletions.count(client, "user") for client in shards)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    rebuilt = []
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        title = f"{settings.interactions_topic} ({deleted} deleted users stay out)"
        task = progress.add_task(title, total=sum(part.from_archive for part in plan.archived))
        for part in plan.archived:
            client = shards.of_partition(part.topic, part.partition)
            rebuilt.append(ArchiveReplay(settings, client, archive, part).run())
            progress.update(task, advance=part.from_archive)
    return rebuilt
