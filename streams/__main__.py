"""`python -m streams`: everything that touches Kafka.

Each command imports its body when it runs, so that --help is instant.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from core import settings
from core.process import cli, logs
from core.settings import Settings

app = typer.Typer(
    name="python -m streams",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Bring events, items and users into Kafka, and from Kafka into Redis and the archive.",
)


@app.command()
def topics(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Exit with 0 also when a topic differs from what is needed."),
    ] = False,
) -> None:
    """Create what is missing of the topics, and compare the others with what is needed; exits with
    1 when one differs.
    """
    from streams.topics import run

    if not run(_settings(), as_json) and not accept:
        raise typer.Exit(1)


@app.command()
def ingest() -> None:
    """From Kafka into Redis, exactly once, until stopped.

    Any number of processes share the partitions.
    """
    from streams.ingest.loop import run

    run(_settings())


@app.command()
def live() -> None:
    """Keep the ALS vectors of changed users and new items fresh in Redis, until stopped.

    Any number of processes share the work.
    """
    from streams.live.command import run

    run(_settings())


@app.command()
def rebuild(
    wipe: Annotated[
        bool, typer.Option(help="First delete everything in Redis that is made from the log.")
    ] = False,
    from_log: Annotated[
        bool,
        typer.Option(
            help=(
                "Do without the archive: go on (with --wipe: begin) where the log begins, and "
                "give up what is older."
            )
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option(help="Do not ask before deleting or giving up anything.")
    ] = False,
) -> None:
    """Redis from the archive, after Redis was lost or a gap opened between it and the log. Stop
    every ingest before.

    First compares Redis, archive and log, shows what it will do, and changes nothing if that would
    lose anything.
    """
    from streams.rebuild.command import run

    run(_settings(), wipe=wipe, from_log=from_log, yes=yes)


@app.command()
def archive(
    until_idle: Annotated[
        bool,
        typer.Option(
            help="Stop when every partition of this process is archived up to the log's end."
        ),
    ] = False,
    accept_gap: Annotated[
        bool,
        typer.Option(
            help="Record offsets that the log no longer holds as an empty range, and go on."
        ),
    ] = False,
) -> None:
    """The interactions topic to Parquet files, every offset once.

    Any number of processes share the partitions.
    """
    from streams.archiver.archiver import run

    run(_settings(), until_idle, accept_gap)


@app.command()
def simulate(
    users: Annotated[
        int, typer.Option(min=1, help="Users, when the last of --events has happened.")
    ] = 2000,
    items: Annotated[int, typer.Option(min=1, help="Startups, likewise.")] = 500,
    events: Annotated[int, typer.Option(min=0, help="Events of the past.")] = 50_000,
    seed: Annotated[int, typer.Option(help="The same seed and --start give the same events.")] = 42,
    rate: Annotated[
        float, typer.Option(min=0, help="Events a second; 0: as fast as they go.")
    ] = 0.0,
    forever: Annotated[
        bool,
        typer.Option(
            help="Go on after --events with live ones, new users and new startups, until stopped."
        ),
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(
            help="Time of the first event: ISO 8601 or seconds since 1970 [default: --days ago]."
        ),
    ] = None,
    days: Annotated[float, typer.Option(min=0, help="Days that --events fill.")] = 30.0,
    summary: Annotated[
        Path | None,
        typer.Option(help="Write counts and one cold, warm and hot user id to this JSON file."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(help="Print items, users and events as JSON lines instead of sending them."),
    ] = False,
    catalogue: Annotated[
        bool,
        typer.Option(
            help="Send the startups and users of the past too; --no-catalogue if they are there."
        ),
    ] = True,
) -> None:
    """A marketplace of startups, developers and investors, with tastes that drift: something to
    look at within a minute.
    """
    from streams.simulator.command import Plan, run
    from streams.times import parse

    begin = time.time() - days * 86400 if start is None else parse(start)
    run(
        _settings(),
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


@app.command("import")
def import_(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="MovieLens ratings/movies/users, a RetailRocket-like CSV, any CSV or Parquet."
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help=(
                "interactions, items or users [default: what a known file holds, else "
                "interactions]."
            )
        ),
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", help="field=column,...: which column holds which field."),
    ] = None,
    constant: Annotated[
        list[str] | None,
        typer.Option(help="field=text,...: the same for every row, such as event_type=rating."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(help="URL of a database to read instead of a file (needs SQLAlchemy)."),
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="Its table or view, with its schema if it needs one.")
    ] = None,
    min_value: Annotated[
        float | None, typer.Option(help="Leave out rows whose value is lower, or missing.")
    ] = None,
    default_timestamp: Annotated[
        str | None, typer.Option(help="Time for rows without one, which are else left out.")
    ] = None,
    time_unit: Annotated[
        str | None, typer.Option(help="s, ms or us: the unit of numeric times [default: s].")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Between the cells of a text file [default: a comma].")
    ] = None,
    speed: Annotated[
        str | None,
        typer.Option(
            help=(
                "Such as 100x: at a multiple of the events' own clock [default: as fast as it "
                "goes]."
            )
        ),
    ] = None,
    sort: Annotated[
        bool,
        typer.Option(
            help="Send a file's events in the order of their time; --no-sort streams a huge file."
        ),
    ] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many events.")] = None,
    rejects: Annotated[
        Path,
        typer.Option(help="File for rows that are no valid event, with row number and reason."),
    ] = Path("rejects.jsonl"),
) -> None:
    """Events, items or users from a file or a database table, through Kafka like all others."""
    from streams.importers.command import run
    from streams.importers.options import plan

    run(
        _settings(),
        plan(
            file=file,
            kind=kind,
            mapping=map_,
            constants=constant,
            database=database,
            table=table,
            min_value=min_value,
            default_timestamp=default_timestamp,
            time_unit=time_unit,
            delimiter=delimiter,
            speed=speed,
            sort=sort,
            limit=limit,
            rejects=rejects,
        ),
    )


@app.command()
def produce(
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            help="field=value of one event, such as user_id=42 item_id=startup-9 event_type=like."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="JSON lines instead; - or nothing at all reads standard input."),
    ] = None,
) -> None:
    """Send one event, or JSON lines, checked here first. Prints topic:partition:offset of each."""
    from streams.produce import run

    run(_settings(), file, fields or [])


_Codes = Annotated[
    list[str] | None,
    typer.Option("--code", help="Only letters of this code; may be given several times."),
]
_Topic = Annotated[str | None, typer.Option(help="Only letters from this topic.")]
_Json = Annotated[bool, typer.Option("--json", help="For programs.")]

dlq = typer.Typer(
    no_args_is_help=True,
    help="Messages that are no valid event: see them, mend them, send them again.",
)
app.add_typer(dlq, name="dlq")


@dlq.command("list")
def dlq_list(
    code: _Codes = None,
    topic: _Topic = None,
    limit: Annotated[int, typer.Option(min=0, help="Letters to show.")] = 20,
    as_json: _Json = False,
) -> None:
    """Counts by reason, and the oldest letters that wait."""
    from streams.dead_letters.command import list_

    list_(_settings(), code or [], topic, limit, as_json)


@dlq.command("show")
def dlq_show(
    place: Annotated[str, typer.Argument(help="topic:partition:offset, as `list` prints it.")],
) -> None:
    """One letter with its whole message."""
    from streams.dead_letters.command import show

    show(_settings(), place)


@dlq.command("replay")
def dlq_replay(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            help="topic:partition:offset of single letters [default: all that are chosen]."
        ),
    ] = None,
    code: _Codes = None,
    topic: _Topic = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="field=value, put into every letter that is replayed."),
    ] = None,
    edit: Annotated[
        Path | None,
        typer.Option(
            help=(
                'JSON lines {"place": "topic:partition:offset", "value": {...}}: whole new '
                "messages."
            )
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Check and count only.")] = False,
) -> None:
    """Check letters again, after a fix, and send those that are valid now; none is sent twice."""
    from streams.dead_letters.command import replay

    replay(_settings(), places or [], code or [], topic, set_ or [], edit, dry_run)


inspect = typer.Typer(
    no_args_is_help=True, help="What Redis, the log, the archive and the models hold, decoded."
)
app.add_typer(inspect, name="inspect")


@inspect.command("user")
def inspect_user(user_id: str, as_json: _Json = False) -> None:
    """A person's whole state, and the engine that would answer them and why."""
    from streams import inspect

    inspect.show(inspect.user(_settings(), user_id), as_json)


@inspect.command("item")
def inspect_item(item_id: str, as_json: _Json = False) -> None:
    """A catalogue entry and its popularity as of now."""
    from streams import inspect

    inspect.show(inspect.item(_settings(), item_id), as_json)


@inspect.command("positions")
def inspect_positions(as_json: _Json = False) -> None:
    """How far the log, Redis and the archive are, by partition."""
    from streams import inspect

    inspect.show(inspect.where(_settings()), as_json)


@inspect.command("model")
def inspect_model(as_json: _Json = False) -> None:
    """The live bundle."""
    from streams import inspect

    inspect.show(inspect.model(_settings()), as_json)


def _settings() -> Settings:
    loaded = settings.load()
    logs.configure(loaded.log_level)
    return loaded


if __name__ == "__main__":
    cli.run(app)
