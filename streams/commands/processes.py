"""The commands that prepare and run the processes between Kafka and Redis."""

from __future__ import annotations

from typing import Annotated

import typer

from core.process.cli import load_settings
from core.process.tables import AsJson, Wide


def topics(
    as_json: AsJson = False,
    wide: Wide = False,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Exit with 0 even if a topic differs from what is needed."),
    ] = False,
    own: Annotated[
        str | None,
        typer.Option(
            help=(
                "First part of topic names. Before anything is created, refuse a Redis and topics "
                "that hold data of other topics or programs."
            )
        ),
    ] = None,
) -> None:
    """Create the missing topics, and compare the existing ones with what is needed.

    Exits with 1 if one differs.
    """
    from streams.foreign_data import refuse_foreign_data
    from streams.topics import run

    settings = load_settings()
    if own is not None:
        refuse_foreign_data(settings, own)
    if not run(settings, as_json, wide) and not accept:
        raise typer.Exit(1)


def ingest() -> None:
    """Apply the events of Kafka to Redis, exactly once, until stopped.

    Any number of processes share the partitions.
    """
    from streams.ingest.loop import run

    run(load_settings(service=True))


def live() -> None:
    """Keep the ALS vectors of changed users and new items fresh in Redis, until stopped.

    Any number of processes share the work.
    """
    from streams.live.command import run

    run(load_settings(service=True))


def rebuild(
    wipe: Annotated[
        bool,
        typer.Option("--wipe", help="First delete everything in Redis that is made from the log."),
    ] = False,
    from_log: Annotated[
        bool,
        typer.Option(
            "--from-log",
            help=(
                "Do not read the archive: continue (with --wipe: start) at the first offset of the "
                "log, and lose the events before it."
            ),
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before data is deleted or lost.")
    ] = False,
) -> None:
    """Rebuild Redis from the archive, after Redis was lost or misses events that the log lost.

    Stop every ingest first. The command compares Redis, archive and log, and shows its plan. It
    changes nothing if the plan would lose events.
    """
    from streams.rebuild.command import run

    run(load_settings(), wipe=wipe, from_log=from_log, yes=yes)


def expire() -> None:
    """Remove from Redis what is too old to matter, once; run it by a schedule.

    Users without an event for USER_IDLE_DAYS leave, and those who returned are restored. Items of
    low popularity (POPULARITY_MIN_WEIGHT) are removed, and deletions that are older than everything
    in the log and the archive.
    """
    from streams.expire.command import run

    run(load_settings())
