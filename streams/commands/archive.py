"""`python -m streams archive`: the process that writes the archive, and its maintenance."""

from __future__ import annotations

from typing import Annotated

import typer

from core.process.cli import load_settings

app = typer.Typer()


@app.callback(invoke_without_command=True)
def archive(
    context: typer.Context,
    until_idle: Annotated[
        bool,
        typer.Option(
            "--until-idle",
            help="Stop when every partition of this process is archived up to the log's end.",
        ),
    ] = False,
    accept_gap: Annotated[
        bool,
        typer.Option(
            "--accept-gap",
            help="Record offsets that the log no longer has as an empty range, and continue.",
        ),
    ] = False,
) -> None:
    """Write the interactions topic to Parquet files, every offset once.

    Any number of processes share the partitions. `archive compact` merges small files.
    """
    if context.invoked_subcommand is not None:
        return
    from streams.archiver.command import run

    run(load_settings(service=True), until_idle, accept_gap)


@app.command()
def compact(
    target_mb: Annotated[
        float,
        typer.Option(
            min=0.001,
            help="Megabytes of the largest file to make. Files of at least half of that stay.",
        ),
    ] = 128.0,
    settle: Annotated[
        float,
        typer.Option(
            min=0.0,
            help=(
                "Seconds from writing a merged file to removing those that it replaces. Less than "
                "a list of the archive takes is safe only while nothing reads it."
            ),
        ),
    ] = 60.0,
) -> None:
    """Merge small files of the archive into larger ones; run it by a schedule.

    Everything may go on meanwhile, and it may be killed. Run one at a time.
    """
    from streams.archiver.command import compact as run

    typer.echo(run(load_settings(), round(target_mb * 1e6), settle))
