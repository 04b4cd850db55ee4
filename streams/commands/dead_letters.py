"""`python -m streams dlq`: the commands for dead letters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.contract.times import TimeUnit
from core.process.cli import load_settings
from core.process.tables import AsJson, Wide

Codes = Annotated[
    list[str] | None,
    typer.Option("--code", help="Only letters with this code; may be repeated."),
]
Topic = Annotated[str | None, typer.Option(help="Only letters from this topic.")]

app = typer.Typer(
    no_args_is_help=True,
    help="List, show and replay dead letters: messages that are no valid event.",
)


@app.command("list")
def list_letters(
    code: Codes = None,
    topic: Topic = None,
    limit: Annotated[int, typer.Option(min=0, help="Letters to show.")] = 20,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """Show counts by reason, and the oldest letters that were not replayed."""
    from store.dead_letters.letters import Selection
    from streams.dead_letters.command import list_

    list_(load_settings(), Selection(code or (), topic), limit, as_json, wide)


@app.command("show")
def show_letter(
    place: Annotated[str, typer.Argument(help="topic:partition:offset, as `list` prints it.")],
    as_json: AsJson = False,
) -> None:
    """Show one letter with its whole message."""
    from streams.dead_letters.command import show

    show(load_settings(), place, as_json)


@app.command("replay")
def replay_letters(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            help="topic:partition:offset of single letters (default: all that --code and --topic "
            "select)."
        ),
    ] = None,
    code: Codes = None,
    topic: Topic = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="field=value to set in every letter before it is replayed."),
    ] = None,
    cast: Annotated[
        list[str] | None,
        typer.Option(
            "--cast",
            help="field=type, the type of a field in every letter: str, number, time (from ISO "
            "8601), object (from [] or null) or list (from null or text).",
        ),
    ] = None,
    time_unit: Annotated[
        TimeUnit | None,
        typer.Option(help="Unit of timestamp and created_at that are too large for seconds."),
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and count only.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Send what the running ingest would refuse again, too.")
    ] = False,
) -> None:
    """Check letters again, after a fix, and send those that are valid now; none is sent twice.

    Exit status 1, and nothing is sent, when the running ingest would refuse some of them again.
    """
    from store.dead_letters.letters import Selection, parse_place
    from streams.dead_letters.command import corrections_of, replay
    from streams.dead_letters.replay import Sending

    selection = Selection(code or (), topic, [parse_place(place) for place in places or ()])
    corrections = corrections_of(set_ or (), cast or (), time_unit, edit)
    replay(load_settings(), selection, corrections, Sending(dry_run=dry_run, force=force))
