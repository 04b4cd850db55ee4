"""`python -m training export`: its options and help."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from core.process.cli import load_settings
from training.command_options import ExportKind


def export_data(
    kind: Annotated[ExportKind, typer.Argument(help="What to write.")],
    output: Annotated[Path, typer.Argument(help="A new file: .jsonl, of events .parquet.")],
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            metavar="TIME",
            help="Only events with a record time (UTC) from this one on, such as 2026-11-22.",
        ),
    ] = None,
) -> None:
    """Write items, users or events as the files that `--items` and `--events` read.

    Items and users as they are in Redis; events as the archive has them, without duplicates and
    without those of deleted users. Example: `python -m training export items items.jsonl`
    """
    from training.export import export

    first = -math.inf if since is None else since.replace(tzinfo=UTC).timestamp()
    rows = export(load_settings(), kind, output, first)
    typer.echo(f"{output}: {rows:,} {kind}")
