"""The commands that send events, items and users to Kafka."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from core.process.cli import load_settings
from core.process.tables import AsJson, Wide
from store.tables import options as tables
from store.tables.command_line import Reading, with_reading_options


def simulate(
    users: Annotated[
        int, typer.Option(min=1, help="Users at the time of the last of --events.")
    ] = 2000,
    items: Annotated[
        int, typer.Option(min=1, help="Startups at the time of the last of --events.")
    ] = 500,
    events: Annotated[int, typer.Option(min=0, help="Events of the past.")] = 50_000,
    seed: Annotated[int, typer.Option(help="The same seed and --start give the same events.")] = 42,
    rate: Annotated[
        float, typer.Option(min=0, help="Events per second; 0: as fast as possible.")
    ] = 0.0,
    forever: Annotated[
        bool,
        typer.Option(
            "--forever",
            help="After --events, send live events, new users and new startups until stopped.",
        ),
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(
            help="Time of the first event: ISO 8601 or seconds since 1970 (default: --days ago)."
        ),
    ] = None,
    days: Annotated[float, typer.Option(min=0, help="Days over which --events spread.")] = 30.0,
    summary: Annotated[
        Path | None,
        typer.Option(help="Write counts and one cold, warm and hot user id to this JSON file."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print items, users and events as JSON lines instead of sending them.",
        ),
    ] = False,
    catalogue: Annotated[
        bool,
        typer.Option(
            help="Send the startups and users of the past too; --no-catalogue if Kafka has them."
        ),
    ] = True,
) -> None:
    """Simulate a marketplace of startups, developers and investors whose tastes change."""
    from streams.simulator.command import Plan, run
    from streams.times import parse

    begin = time.time() - days * 86400 if start is None else parse(start)
    run(
        load_settings(),
        Plan(
            users=users,
            items=items,
            events=events,
            seed=seed,
            rate=rate,
            forever=forever,
            start=begin,
            days=days,
            summary=summary,
            dry_run=dry_run,
            catalogue=catalogue,
        ),
    )


@with_reading_options(reading=Reading("the file"))
def import_(
    *,
    reading: tables.Options,
    file: Annotated[
        str | None,
        typer.Argument(
            help=(
                "A file, a folder of files, or s3://bucket/key: CSV, JSON, Parquet, Arrow, Excel, "
                "compressed or not. Public data sets (MovieLens, Amazon, ...) need no --map."
            )
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(help="URL of a database to read instead of a file (needs SQLAlchemy)."),
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="Its table or view, with its schema if it needs one.")
    ] = None,
    min_value: Annotated[
        float | None, typer.Option(help="Skip rows whose value is lower, or missing.")
    ] = None,
    default_timestamp: Annotated[
        str | None, typer.Option(help="Time of rows without one; unset: such rows are skipped.")
    ] = None,
    speed: Annotated[
        str | None,
        typer.Option(
            help=(
                "Send at a multiple of the speed of the events' timestamps, such as 100x "
                "(default: as fast as possible)."
            )
        ),
    ] = None,
    sort: Annotated[
        bool,
        typer.Option(
            help=(
                "Send a file's events in the order of their time, sorted in temporary files where "
                "they are many; --no-sort sends them as they come."
            )
        ),
    ] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many events.")] = None,
    rejects: Annotated[
        Path,
        typer.Option(help="File for rows that are no valid event, with row number and reason."),
    ] = Path("rejects.jsonl"),
    max_rejects: Annotated[
        str,
        typer.Option(help="End with exit status 3 when a larger share of the rows is rejected."),
    ] = "1%",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on where the same import was killed, by the progress file beside --rejects.",
        ),
    ] = False,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview",
            help="Only show the mapping, ten rows and what would be rejected; send nothing.",
        ),
    ] = False,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """Import events, items or users from a file or a database table, through Kafka.

    The exit status is 3 when more rows than --max-rejects were rejected; the others are sent.
    """
    from streams.importers import command
    from streams.importers.options import Options, plan

    run = command.preview if preview else command.run
    run(
        load_settings(),
        plan(
            Options(
                file=file,
                reading=reading,
                database=database,
                table=table,
                min_value=min_value,
                default_timestamp=default_timestamp,
                speed=speed,
                sort=sort,
                limit=limit,
                rejects=rejects,
                max_rejects=max_rejects,
                resume=resume,
            )
        ),
        as_json,
        wide,
    )


def produce(
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            help="field=value of one event, such as user_id=42 item_id=startup-9 event_type=like."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Send JSON lines instead; - or no argument reads standard input."),
    ] = None,
) -> None:
    """Check one event or JSON lines, send them, and print topic:partition:offset of each."""
    from streams.produce import run

    run(load_settings(), file, fields or [])
